"""SQLite connections for the query index, and what their errors mean.

Room: how a connection is opened and set up, how readers share a few of them, and
which of SQLite's errors say that the file cannot be trusted. No statement about
models or records stands here.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import chain, repeat
from pathlib import Path
from queue import SimpleQueue

from protocol.query_filter import compile_like
from storage.errors import IndexDamaged, StorageError, StorageFull

STATEMENTS_CACHED = 256
WRITER_CACHE_KIB = 16_000
# The rows that an index finds lie all over their table. To sort 1,000 of 100,000 (43 MB) took 3.5 ms of a core with
# 8 MB, 2.4 with 32, 2.2 with all. Mapping the file would take as little, and end the process if someone cut the file.
READER_CACHE_KIB = 32_000
# A checkpoint costs two flushes and rewrites each page once, so fewer are cheaper: 256-row batches
# with a random index ran at 65,000 rows/s with 1,000 pages, 76,000 with 4,000. 16 MiB of log.
CHECKPOINT_PAGES = 4_000
LOG_KEPT_MAX_BYTES = CHECKPOINT_PAGES * 4096
BUSY_TIMEOUT_S = 5.0
LIKES_CACHED = 64
_LOOKS = 8  # at how much a brief query has taken: each makes it wait for the interpreter

_DAMAGE = frozenset(
    {
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,  # the file was deleted or replaced under us
        sqlite3.SQLITE_FORMAT,
        sqlite3.SQLITE_ERROR,  # our statements are sound, so a missing table or column is the file's fault
    }
)


def open_writer(path: str | None) -> sqlite3.Connection:
    """The connection that writes; None is a database in memory. Raises `sqlite3.Error`."""
    connection = _connect(path or ":memory:", uri=False)
    try:
        for pragma in (
            "journal_mode = WAL",
            "synchronous = NORMAL",  # a crash may lose the newest rows, never order: they are read again
            "secure_delete = ON",  # erased content must not stay in free pages
            f"wal_autocheckpoint = {CHECKPOINT_PAGES}",
            f"journal_size_limit = {LOG_KEPT_MAX_BYTES}",
            f"cache_size = -{WRITER_CACHE_KIB}",
        ):
            connection.execute(f"PRAGMA {pragma}").fetchall()
    except sqlite3.Error:
        connection.close()
        raise
    return connection


class QueryTooLong(StorageError):
    """Statements took more steps than `briefly` allows. Ask again where that may take longer."""


@contextmanager
def briefly(connection: sqlite3.Connection, steps_max: int) -> Iterator[None]:
    """Statements inside end with `QueryTooLong` when together they take about `steps_max` steps of SQLite's machine.

    SQLite counts the steps of a prepared statement over all the times that it is run, so its every look comes at a
    random place: of a few looks, each statement can have one too early. It strikes once, so that what then ends a
    transaction passes.
    """
    looks = chain(repeat(0, _LOOKS), (1,), repeat(0))
    connection.set_progress_handler(looks.__next__, max(1, steps_max // _LOOKS))
    try:
        yield
    finally:
        connection.set_progress_handler(None, 0)


def open_reader(path: str) -> sqlite3.Connection:
    """A connection that can only read. Raises `sqlite3.Error`."""
    connection = _connect(f"{Path(path).absolute().as_uri()}?mode=ro", uri=True)
    try:
        connection.execute("PRAGMA query_only = ON")
        connection.execute(f"PRAGMA cache_size = -{READER_CACHE_KIB}")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _connect(target: str, *, uri: bool) -> sqlite3.Connection:
    connection = sqlite3.connect(
        target,
        uri=uri,
        timeout=BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,  # each is used by one thread at a time: see `Connections`
        cached_statements=STATEMENTS_CACHED,
    )
    try:
        # Pages that break their own rules are reported, not read; views and defaults run no surprises.
        connection.execute("PRAGMA cell_size_check = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.create_function("civic_like", 2, _like_function(), deterministic=True)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _like_function() -> Callable[[object, object], int]:
    """`civic_like(pattern, text)`: what `like` means for text that is not plain ASCII."""
    compiled = lru_cache(LIKES_CACHED)(compile_like)

    def like(pattern: object, text: object) -> int:
        return int(isinstance(pattern, str) and isinstance(text, str) and compiled(pattern)(text))

    return like


class Connections:
    """A few connections, each lent to one thread at a time. `take` blocks until one is free."""

    def __init__(self, connections: list[sqlite3.Connection]) -> None:
        self._free: SimpleQueue[sqlite3.Connection | None] = SimpleQueue()
        self._all = connections
        for connection in connections:
            self._free.put(connection)

    def take(self) -> sqlite3.Connection:
        connection = self._free.get()
        if connection is None:
            self._free.put(None)
            raise StorageError("the query index is closed")
        return connection

    def give_back(self, connection: sqlite3.Connection) -> None:
        self._free.put(connection)

    def close(self) -> None:
        """Wait for each connection to come back and close it. Later calls of `take` raise."""
        for _ in self._all:
            connection = self._free.get()
            if connection is None:  # closed before
                break
            connection.close()
        self._all = []
        self._free.put(None)


def meaning_of(error: sqlite3.Error) -> StorageError:
    """One of SQLite's errors in our words."""
    code = getattr(error, "sqlite_errorcode", None)
    if code == sqlite3.SQLITE_INTERRUPT:
        return QueryTooLong("the query takes too many steps")
    if code is not None and code & 0xFF == sqlite3.SQLITE_FULL:
        return StorageFull(f"the query index has no room left: {error}")
    if code is None and not isinstance(error, sqlite3.OperationalError):
        return StorageError(f"the query index was misused: {error}")
    if code is None or code & 0xFF in _DAMAGE:  # without a code: text that is not UTF-8
        return IndexDamaged(f"the query index is damaged: {error}")
    return StorageError(f"the query index failed: {error}")


def is_bad_value(error: sqlite3.Error) -> bool:
    """A parameter of a type that SQLite cannot hold, as Python reports it: without SQLite's own code."""
    return isinstance(error, (sqlite3.ProgrammingError, sqlite3.InterfaceError)) and "binding" in str(error)


def prepare_file(path: Path) -> bool:
    """Make the file if there is none, for its owner's eyes alone; tell whether it has to be looked through.

    That is so if it is shorter than it says and has a log beside it: a crash in the middle of a
    checkpoint leaves that, and it is sound then; but if someone cut the file, SQLite reads the missing
    pages as zeros and does not trip over all of them. Without a log it finds out by itself.
    """
    if not path.parent.is_dir():
        raise StorageError(f"{path.parent} is not a directory")
    log = path.with_name(f"{path.name}-wal")
    try:
        path.touch(mode=0o600)  # SQLite gives its log the same mode
        if log.stat().st_size == 0:
            return False
        with path.open("rb") as file:
            header = file.read(100)
        page_size = int.from_bytes(header[16:18], "big")
        pages = int.from_bytes(header[28:32], "big")
        return path.stat().st_size < (65536 if page_size == 1 else page_size) * pages
    except OSError:
        return False
