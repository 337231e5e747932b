"""Making, changing and dropping the tables of the query index.

Room: runs the statements of `index_layout` on a connection, inside a transaction
that the caller holds. Keeps the catalogue (`"$models"`), the planner's estimates
and the views in step with the tables.
"""

import sqlite3
from collections.abc import Iterable

from storage import index_conflicts
from storage.errors import IndexDamaged
from storage.index_layout import Layout, quoted

FORMAT_VERSION = 2  # of the whole file as `index_layout` describes it; any other: delete and rebuild
APPLICATION_ID = 0x43564E31

_CREATE_BASE = (
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {FORMAT_VERSION}",
    'CREATE TABLE "$position" (one INTEGER PRIMARY KEY CHECK (one = 1), store_id BLOB NOT NULL,'
    " arrival INTEGER NOT NULL)",
    'CREATE TABLE "$models" (model_id TEXT PRIMARY KEY, application TEXT NOT NULL, name TEXT NOT NULL,'
    " layout TEXT NOT NULL, row_count INTEGER NOT NULL) WITHOUT ROWID",
    *index_conflicts.CREATE,
    "ANALYZE sqlite_schema",  # makes sqlite_stat1, which `stat_rows` fills
)
_OWN_PREFIXES = ("m_", "x_", "sqlite_")  # of tables and indexes; a view must never stand in their way


def open_base(
    connection: sqlite3.Connection,
) -> tuple[dict[str, Layout], dict[str, int], tuple[bytes, int] | None]:
    """Layouts, row counts and position in the file; an empty one gets its base tables.

    Opens its own transaction. Raises `IndexDamaged` if the file is of another make.
    """
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    owner = connection.execute("PRAGMA application_id").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if (version, owner, tables) == (0, 0, 0):
        connection.execute("BEGIN IMMEDIATE")
        for statement in _CREATE_BASE:
            connection.execute(statement)
        connection.execute("COMMIT")
        return {}, {}, None
    if owner != APPLICATION_ID or version != FORMAT_VERSION:
        raise IndexDamaged("the query index was made by another version or another program")
    layouts: dict[str, Layout] = {}
    row_counts: dict[str, int] = {}
    try:
        for model_id, application, name, layout, rows in connection.execute('SELECT * FROM "$models"'):
            layouts[model_id] = Layout.from_stored(model_id, application, name, layout)
            row_counts[model_id] = int(rows)
        position = connection.execute('SELECT store_id, arrival FROM "$position"').fetchone()
        return layouts, row_counts, None if position is None else (bytes(position[0]), int(position[1]))
    except (ValueError, KeyError, TypeError) as error:
        raise IndexDamaged(f"the query index holds a layout that makes no sense: {error}") from error


def clear(connection: sqlite3.Connection, layouts: Iterable[Layout], store_id: bytes) -> None:
    """Drop everything and note the store that is read from its beginning."""
    for layout in layouts:
        drop(connection, layout)
    connection.execute('INSERT OR REPLACE INTO "$position" VALUES (1, ?, 0)', [store_id])


def create(connection: sqlite3.Connection, layout: Layout, unique: frozenset[str]) -> None:
    """Make the table of a model with its indexes and view."""
    connection.execute(layout.create_table())
    connection.execute(
        'INSERT INTO "$models" VALUES (?, ?, ?, ?, 0)',
        [layout.model_id, layout.application, layout.name, layout.to_stored()],
    )
    _make_indexes(connection, layout, frozenset(), unique)
    _make_view(connection, layout.name)


def adapt(connection: sqlite3.Connection, old: Layout, new: Layout, unique: frozenset[str]) -> None:
    """Add the columns and indexes that `new` has more than `old`, and drop the indexes it lacks."""
    _drop_view(connection, old.name)
    for statement in new.add_columns(old):
        connection.execute(statement)
    for key in old.keys:
        if key not in new.keys:
            connection.execute(f"DROP INDEX {quoted(old.index_name(key))}")
    connection.execute('UPDATE "$models" SET layout = ? WHERE model_id = ?', [new.to_stored(), new.model_id])
    _make_indexes(connection, new, frozenset(old.keys), unique)
    _make_view(connection, new.name)


def drop(connection: sqlite3.Connection, layout: Layout) -> None:
    """Drop a model's table and all that belongs to it."""
    _drop_view(connection, layout.name)
    connection.execute(f"DROP TABLE {layout.table}")
    connection.execute("DELETE FROM sqlite_stat1 WHERE tbl = ?", [layout.table_name])
    connection.execute('DELETE FROM "$models" WHERE model_id = ?', [layout.model_id])
    _make_view(connection, layout.name)  # for another model that had to share the name


def check(connection: sqlite3.Connection) -> list[str]:
    """What is wrong with the file: SQLite's own findings, and row counts that are not right."""
    found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(100)")]
    faults = [] if found == ["ok"] else found
    connection.execute("BEGIN")
    counts = connection.execute('SELECT model_id, row_count FROM "$models"').fetchall()
    for model_id, row_count in counts:
        table = quoted(f"m_{model_id}")
        actual = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        if actual != row_count:
            faults.append(f"{table} holds {actual} rows, not {row_count}")
    connection.execute("COMMIT")
    return faults


def _make_indexes(
    connection: sqlite3.Connection, layout: Layout, present: frozenset[object], unique: frozenset[str]
) -> None:
    # Estimates first: making an index makes other connections read them with the changed schema.
    connection.execute("DELETE FROM sqlite_stat1 WHERE tbl = ?", [layout.table_name])
    connection.executemany("INSERT INTO sqlite_stat1 VALUES (?, ?, ?)", layout.stat_rows(unique))
    for key in layout.keys:
        if key not in present:
            connection.execute(layout.create_index(key))
    connection.execute("ANALYZE sqlite_schema")  # and this connection reads them now


def _drop_view(connection: sqlite3.Connection, name: str) -> None:
    """Drop the view of that name, however it is spelled."""
    views = connection.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'view' AND lower(name) = lower(?)", [name]
    ).fetchall()
    for (view,) in views:
        connection.execute(f"DROP VIEW {quoted(view)}")


def _make_view(connection: sqlite3.Connection, name: str) -> None:
    """Give a model its view if it is the only one of that name (SQL does not tell `Task` from `task`)."""
    _drop_view(connection, name)
    rows = connection.execute(
        'SELECT model_id, application, name, layout FROM "$models" WHERE lower(name) = lower(?)', [name]
    ).fetchall()
    if len(rows) == 1 and not name.lower().startswith(_OWN_PREFIXES):
        connection.execute(Layout.from_stored(*rows[0]).create_view())
