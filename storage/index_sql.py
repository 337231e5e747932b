"""SQL written by the device's owner, run without letting it do harm.

Room: the fence around one SELECT: what it may read, how long it may take, how
much it may return. Nothing may be written, attached, loaded or asked of SQLite
itself; the tables of built-in models (accounts, roles) stay out of sight.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from storage.errors import SqlRefused

SQL_SIZE_MAX = 100_000
RESULT_SIZE_MAX_BYTES = 64 * 2**20
_VALUE_SIZE_MAX_BYTES = 4 * 2**20  # a string or JSON value of 1 MiB, escaped
_STEPS_BETWEEN_LOOKS = 20_000  # about a millisecond of SQLite's virtual machine

_LIMITS = {
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_LENGTH: _VALUE_SIZE_MAX_BYTES,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: SQL_SIZE_MAX,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 1_000,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 200,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 50,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}
_ALWAYS_READABLE = frozenset({"json_each", "json_tree", "sqlite_schema", "sqlite_master"})
# Their first use on a connection declares a table, which the fence would not let pass.
_WARM_UP = "SELECT 1 FROM json_each('[]'), json_tree('[]')"
_FORBIDDEN_FUNCTIONS = frozenset({"load_extension", "fts3_tokenizer", "writefile", "readfile", "edit"})


def run_sql(
    connection: sqlite3.Connection,
    text: str,
    *,
    readable: frozenset[str],
    limit_rows: int,
    timeout_ms: int,
    monotonic: Callable[[], float],
) -> tuple[list[str], list[tuple[object, ...]]]:
    """Column names and at most `limit_rows` rows of one SELECT over the tables and views in `readable`.

    Raises `SqlRefused`; errors that speak of a damaged file pass as `sqlite3.Error`.
    """
    connection.execute(_WARM_UP).fetchall()
    with _fenced(connection, readable, monotonic() + timeout_ms / 1000, monotonic):
        try:
            cursor = connection.execute(text)
            if cursor.description is None:
                raise SqlRefused("only SELECT is allowed")
            columns = [name for name, *_ in cursor.description]
            rows = _fetch(cursor, limit_rows)
            cursor.close()
            return columns, rows
        except (sqlite3.Warning, ValueError) as error:  # several statements; NULs, lone surrogates
            raise SqlRefused(str(error)) from error
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
            if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_IOERR):
                raise
            if code == sqlite3.SQLITE_INTERRUPT:
                raise SqlRefused(f"the query took longer than {timeout_ms} ms") from error
            if code in (sqlite3.SQLITE_AUTH, sqlite3.SQLITE_READONLY):
                raise SqlRefused(f"only reading the models of this node is allowed: {error}") from error
            raise SqlRefused(str(error)) from error


def _fetch(cursor: sqlite3.Cursor, limit_rows: int) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    size = 0
    for row in cursor:
        if len(rows) == limit_rows:
            break
        rows.append(row)
        size += sum(len(value) if isinstance(value, (str, bytes)) else 8 for value in row)
        if size > RESULT_SIZE_MAX_BYTES:
            raise SqlRefused(f"the result is larger than {RESULT_SIZE_MAX_BYTES} bytes")
    return rows


@contextmanager
def _fenced(
    connection: sqlite3.Connection, readable: frozenset[str], deadline: float, monotonic: Callable[[], float]
) -> Iterator[None]:
    """While inside, the connection obeys the limits; afterwards it is as before."""
    allowed = frozenset(name.lower() for name in readable) | _ALWAYS_READABLE
    objects = "SELECT lower(name) FROM sqlite_schema UNION SELECT lower(name) FROM pragma_module_list"
    hidden = {name for (name,) in connection.execute(objects)} - allowed

    def authorize(
        action: int, first: str | None, second: str | None, database: str | None, trigger: str | None
    ) -> int:
        if action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE):
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_FUNCTION:
            is_forbidden = (second or "").lower() in _FORBIDDEN_FUNCTIONS
            return sqlite3.SQLITE_DENY if is_forbidden else sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_READ:
            name = (first or "").lower()
            # `count(*)` reads no column of anything, be it a table or a name that WITH gave.
            if name in allowed or (not second and name not in hidden):
                return sqlite3.SQLITE_OK
        return sqlite3.SQLITE_DENY

    limits = {name: connection.setlimit(name, value) for name, value in _LIMITS.items()}
    connection.set_authorizer(authorize)
    connection.set_progress_handler(lambda: int(monotonic() > deadline), _STEPS_BETWEEN_LOOKS)
    try:
        yield
    finally:
        connection.set_progress_handler(None, 0)
        connection.set_authorizer(None)
        for name, value in limits.items():
            connection.setlimit(name, value)
