"""The query index: the records of every model in SQLite, made from the record and disposable.

Room: one writer, a few readers, and the promise that answers are those of the
rows applied so far or none at all. It knows how far it has read (`position`); who
feeds it decides what that means. A damaged file is reported (`IndexDamaged`),
never repaired: delete it and read everything again. Tables and columns are laid
out in `index_layout`, queries written in `index_query`, connections kept in
`index_connection`, people's SQL fenced in `index_sql`.

`reset`, `ensure_model`, `drop_model`, `apply` and `find_unique` belong to the one
writer thread. `query`, `aggregate`, `sql`, `check` and `differences` may be called
from any thread and block it.
"""

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from protocol.query import Aggregation, Filter, Query
from protocol.schema import Model, Value
from storage import index_query, index_tables
from storage.errors import IndexBehind, IndexDamaged, StorageError
from storage.index_conflicts import (
    ConflictNews,
    ConflictPage,
    ConflictQuery,
    ConflictRow,
    ConflictTable,
    NewsPlace,
    Settled,
    Standing,
    read_news,
    read_one,
    read_open_ids,
    read_page,
)
from storage.index_connection import (
    Connections,
    QueryTooLong,
    briefly,
    is_bad_value,
    meaning_of,
    open_reader,
    open_writer,
    prepare_file,
)
from storage.index_layout import Layout, Row, bindable
from storage.index_query import Allows, Page
from storage.index_sql import run_sql

__all__ = ["Index", "Page", "Row"]

TOTALS_CACHED_MAX = 1_000

# Of SQLite's machine: a page of 20 from an index takes 500, sorting 100 rows for it 1,200; 1,000 take about 0.1 ms.
BRIEF_STEPS_MAX = 8_000


class Index:
    """SQLite as a query index. See the module's words for which thread may call what."""

    def __init__(
        self, path: str | None, *, readers: int = 2, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """Open or create the index at `path`; None keeps it in memory.

        Raises `IndexDamaged` if there is something at `path` that is not a sound index of this
        version. In memory, readers and writer share one connection and wait for each other.
        """
        self._path = path
        self._monotonic = monotonic
        opened: list[sqlite3.Connection] = []
        try:
            is_cut = path is not None and prepare_file(Path(path))
            opened.append(open_writer(path))
            if is_cut and (found := opened[0].execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
                raise IndexDamaged(f"the query index is damaged: {found}")
            self._layouts, self._row_counts, self._position = index_tables.open_base(opened[0])
            self._conflicts = ConflictTable(opened[0])
            if path is not None:
                opened += [open_reader(path) for _ in range(readers)]
                opened.append(open_reader(path))
        except (sqlite3.Error, StorageError) as error:
            for connection in opened:
                connection.close()
            if isinstance(error, sqlite3.Error):
                raise meaning_of(error) from error
            raise
        self._writer = Connections(opened[:1])
        self._readers = Connections(opened[1 : 1 + readers]) if path is not None else self._writer
        self._brief = Connections(opened[1 + readers :]) if path is not None else None
        # A total is good while its model's generation, counted up after each change, is the same.
        self._generations: dict[str, int] = {}
        self._totals: dict[tuple[str, str], tuple[int, int]] = {}

    def close(self) -> None:
        """Wait for running queries, then close. Safe to call twice."""
        self._readers.close()
        if self._brief is not None:
            self._brief.close()
        self._writer.close()

    # --- writing ---

    def position(self) -> tuple[bytes, int] | None:
        """Which store the index was made from, and how far it has read that store's arrival order.

        None in a new index: call `reset` before `apply`.
        """
        return self._position

    def reset(self, store_id: bytes) -> None:
        """Forget everything and start at the beginning of a store."""
        layouts = list(self._layouts.values())
        with self._hiding(*(layout.model_id for layout in layouts)), self._writing() as connection:
            index_tables.clear(connection, layouts, store_id)
            self._conflicts.clear(connection)
        self._row_counts, self._position = {}, (store_id, 0)

    def ensure_model(self, model: Model) -> bool:
        """Make room for a model's records, or adapt what is there. Cheap if nothing changed.

        Returns True if the table is new or had to be made anew, so that the model's records must be
        applied (again). Fields that were added get their column and are empty in older rows, which
        is right for records that were valid before; records that only became valid now have to be
        applied by whoever judges them. A new index reads all rows, on the calling thread.
        """
        asked, old = Layout.of(model), self._layouts.get(model.id)
        grown = asked.grown_from(old) if old is not None else None
        if old is not None and grown == old:
            return False
        unique = frozenset(field.name for field in model.fields.values() if field.unique)
        if old is not None and grown is not None:
            with self._writing() as connection:
                index_tables.adapt(connection, old, grown, unique)
            self._layouts[model.id] = grown
            return False
        with self._hiding(model.id), self._writing() as connection:
            if old is not None:
                index_tables.drop(connection, old)
                self._conflicts.drop(connection, model.id)
            index_tables.create(connection, asked, unique)
        self._layouts[model.id] = asked
        self._row_counts[model.id] = 0
        return True

    def drop_model(self, model_id: str) -> None:
        """Forget a model and its rows. Nothing happens if it is not known."""
        layout = self._layouts.get(model_id)
        if layout is None:
            return
        with self._hiding(model_id), self._writing() as connection:
            index_tables.drop(connection, layout)
            self._conflicts.drop(connection, model_id)
        self._row_counts.pop(model_id)

    def apply(
        self,
        rows: Iterable[tuple[Model, Row]],
        deletes: Iterable[tuple[str, str]],
        arrival: int,
        *,
        standings: Sequence[Standing] = (),
        settled_at: int = 0,
        is_news: bool = True,
    ) -> list[ConflictNews]:
        """Delete `(model_id, id)`, then add or replace rows, then move the position: all or nothing.

        Of several rows with one id the last counts. Visible to queries when it returns, and after a
        crash either wholly there or to be read again. `standings` are of all documents that are, or may
        have been, in conflict, as they stand after the arrival `settled_at`; what is new about that is
        returned, if it is news. Raises `IndexBehind` for a row of a model that was not ensured,
        `StorageFull`, `IndexDamaged`.
        """
        if self._position is None:
            raise StorageError("the query index has no position yet: reset it first")
        grouped: dict[str, dict[str, Row]] = {}
        for model, row in rows:
            grouped.setdefault(model.id, {})[row[0]] = row
        gone: dict[str, list[tuple[str]]] = {}
        for model_id, id in deletes:
            if model_id in self._layouts:  # else dropped with all its rows
                gone.setdefault(model_id, []).append((id,))
        batches = []
        for model_id, by_id in grouped.items():
            layout = self._layout(model_id)
            batches.append((layout, list(map(layout.parameters, by_id.values()))))
        settling = standings, settled_at, is_news
        try:
            added, settled = self._apply(batches, gone, arrival, *settling)
        except (OverflowError, UnicodeEncodeError, sqlite3.ProgrammingError, sqlite3.InterfaceError):
            # A value that SQLite cannot hold: no valid record has one, but one must not stop the rest.
            batches = [(layout, [tuple(map(bindable, row)) for row in batch]) for layout, batch in batches]
            added, settled = self._apply(batches, gone, arrival, *settling)
        self._position = (self._position[0], arrival)
        self._conflicts.take_over(settled)
        for model_id, difference in added.items():
            self._row_counts[model_id] += difference
            self._changed(model_id)
        return settled.news

    def _apply(
        self,
        batches: list[tuple[Layout, list[tuple[Value, ...]]]],
        gone: Mapping[str, list[tuple[str]]],
        arrival: int,
        standings: Sequence[Standing],
        settled_at: int,
        is_news: bool,
    ) -> tuple[dict[str, int], Settled]:
        """Do what `apply` says; return by how many rows each touched table grew, and what became of conflicts."""
        added: dict[str, int] = {}
        with self._writing() as connection:
            for model_id, ids in gone.items():
                deleted = connection.executemany(self._layouts[model_id].delete, ids).rowcount
                added[model_id] = -deleted
            for layout, batch in batches:
                # New rows are the usual case, and the count of those added keeps totals cheap. What was changed since
                # it was made is mostly there already: apart from it, the others need not be written twice.
                for some in _parted(batch):
                    new = connection.executemany(layout.insert, some).rowcount
                    if new < len(some):
                        connection.executemany(layout.upsert, some)
                    added[layout.model_id] = added.get(layout.model_id, 0) + new
            connection.executemany(
                'UPDATE "$models" SET row_count = row_count + ? WHERE model_id = ?',
                [(difference, model_id) for model_id, difference in added.items() if difference],
            )
            settled = self._conflicts.settle(connection, standings, settled_at, is_news=is_news)
            connection.execute('UPDATE "$position" SET arrival = ?', [arrival])
        return added, settled

    def find_unique(
        self, model: Model, field: str, value: Value, *, except_id: str | None = None
    ) -> str | None:
        """The id of a record other than `except_id` that holds `value` in `field`, as applied so far."""
        return self.find_unique_together(model, (field,), (value,), except_id=except_id)

    def find_unique_together(
        self,
        model: Model,
        fields: tuple[str, ...],
        values: tuple[Value, ...],
        *,
        except_id: str | None = None,
    ) -> str | None:
        """The same for several fields at once. Null never equals anything."""
        layout = self._layout(model.id)
        columns = [index_query.column_of(layout, name) for name in fields]
        condition = " AND ".join(f"{column} = ?" for column in columns)
        with self._connection(self._writer) as connection:
            row = connection.execute(
                f"SELECT id FROM {layout.table} WHERE {condition} AND id IS NOT ? LIMIT 1",
                [*map(bindable, values), except_id],
            ).fetchone()
        return None if row is None else str(row[0])

    def truncate_log(self) -> bool:
        """Fold SQLite's write-ahead log into the file and empty it, so that erased content is in neither.

        Returns False if a running query kept it from that: try again later.
        """
        with self._connection(self._writer) as connection:
            busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not busy

    # --- reading ---

    def query(self, model: Model, query: Query, is_allowed: Allows | None = None) -> Page:
        """One page of record ids, of those that `is_allowed` lets through. Blocks; from any thread.

        Raises `IndexBehind` if the model or a field is not known yet, `IndexDamaged`, and
        `QueryFault` if the record that a cursor points at is needed and gone.
        """
        with self._reading(model.id) as (connection, layout):
            if is_allowed is not None:
                with index_query.allowing(connection, is_allowed):
                    query = replace(query, filter=index_query.allowed(query.filter))
                    total = index_query.count(connection, layout, query.filter)
                    return index_query.page(connection, layout, query, total=total, row_count=0)
            total = self._total(connection, layout, query.filter)
            row_count = self._row_counts.get(layout.model_id, 0)
            return index_query.page(connection, layout, query, total=total, row_count=row_count)

    def query_briefly(self, model: Model, query: Query) -> Page | None:
        """As `query`, but gives up with None where it would take more than a moment (some 0.8 ms).

        For one thread, the event loop's: most pages are found through an index, and handing those to
        another thread costs more than finding them.
        """
        if self._brief is None:
            return None
        try:
            with (
                self._reading(model.id, self._brief) as (connection, layout),
                briefly(connection, BRIEF_STEPS_MAX),
            ):
                total = self._total(connection, layout, query.filter)
                row_count = self._row_counts.get(layout.model_id, 0)
                return index_query.page(connection, layout, query, total=total, row_count=row_count)
        except QueryTooLong:
            return None

    def aggregate(
        self, model: Model, aggregation: Aggregation, is_allowed: Allows | None = None
    ) -> list[dict[str, Value]]:
        """One object per group: the grouped fields, then the figures by alias, over the records that `is_allowed`
        lets through. Blocks; from any thread."""
        with self._reading(model.id) as (connection, layout):
            if is_allowed is not None:
                with index_query.allowing(connection, is_allowed):
                    aggregation = replace(aggregation, filter=index_query.allowed(aggregation.filter))
                    return index_query.aggregate(connection, layout, aggregation)
            return index_query.aggregate(connection, layout, aggregation)

    # --- conflicts; from any thread ---

    def has_conflicts(self, model_id: str) -> bool:
        """Whether any applied document of the model is in conflict. Does not block."""
        return self._conflicts.has_open(model_id)

    def conflicts(self, query: ConflictQuery) -> ConflictPage:
        """One page of conflicts. Blocks. Raises `QueryFault` for a cursor that is none."""
        with (
            self._connection(self._readers) as connection,
            index_query.allowing(connection, query.is_allowed),
        ):
            return read_page(connection, query)

    def conflict(self, id: str) -> ConflictRow | None:
        """A conflict that is open or remembered. Takes a moment."""
        with self._connection(self._brief or self._readers) as connection:
            return read_one(connection, id)

    def open_conflicts(self, model_id: str) -> set[str]:
        """Ids of all open conflicts of a model. Blocks."""
        with self._connection(self._readers) as connection:
            return read_open_ids(connection, model_id)

    def conflict_news(self, after: NewsPlace, upto: int, *, limit: int) -> list[ConflictNews]:
        """Conflicts that appeared or ended after a place and up to an arrival, in their order. Blocks."""
        with self._connection(self._readers) as connection:
            return read_news(connection, after, upto, limit)

    def sql(
        self, text: str, *, limit_rows: int = 10_000, timeout_ms: int = 5_000
    ) -> tuple[list[str], list[tuple[object, ...]]]:
        """Run one SELECT over the models; return column names and at most `limit_rows` rows.

        Models go by their name (if only one application has it) or their table `m_<model_id>`.
        Raises `SqlRefused` for anything else, for faulty SQL, and when `timeout_ms` have passed.
        Blocks; from any thread.
        """
        layouts = list(self._layouts.values())
        visible = [layout for layout in layouts if not layout.is_builtin]
        readable = {name for layout in visible for name in (layout.name, layout.table_name)}
        readable -= {layout.table_name for layout in layouts if layout.is_builtin}
        with self._spare_reader() as connection:
            return run_sql(
                connection,
                text,
                readable=frozenset(readable),
                limit_rows=limit_rows,
                timeout_ms=timeout_ms,
                monotonic=self._monotonic,
            )

    def check(self) -> list[str]:
        """Look through the whole file; return what is wrong with it, nothing if it is sound."""
        try:
            with self._spare_reader() as connection:
                return index_tables.check(connection)
        except IndexDamaged as error:
            return [str(error)]

    def differences(self, model: Model, rows: Iterable[Row]) -> list[str]:
        """Compare the index with all records of a model; name the ids that differ, are missing or too many.

        The rows must be those applied so far: hold the writer, or expect differences. Not more than
        `index_query.DIFFERENCES_MAX` are named.
        """
        layout = self._layout(model.id)
        with self._spare_reader() as connection:
            return index_query.differences(connection, layout, rows)

    # --- inside ---

    def _layout(self, model_id: str) -> Layout:
        layout = self._layouts.get(model_id)
        if layout is None:
            raise IndexBehind(f"the query index does not know the model {model_id} yet")
        return layout

    def _total(self, connection: sqlite3.Connection, layout: Layout, filter_: Filter | None) -> int:
        """How many records meet a filter, counted at most once between two changes of the model."""
        if filter_ is None:
            return self._row_counts.get(layout.model_id, 0)
        key = (layout.model_id, filter_.text)
        # Taken before counting: a change in between makes the total stale at once, never fresh.
        generation = self._generations.get(layout.model_id, 0)
        known = self._totals.get(key)
        if known is not None and known[0] == generation:
            return known[1]
        total = index_query.count(connection, layout, filter_)
        if len(self._totals) >= TOTALS_CACHED_MAX:
            self._totals.clear()
        self._totals[key] = (generation, total)
        return total

    def _changed(self, model_id: str) -> None:
        self._generations[model_id] = self._generations.get(model_id, 0) + 1

    @contextmanager
    def _reading(
        self, model_id: str, readers: Connections | None = None
    ) -> Iterator[tuple[sqlite3.Connection, Layout]]:
        """A reader, and the layout of a model; from any thread."""
        layout = self._layout(model_id)
        try:
            with self._connection(readers or self._readers) as connection:
                yield connection, layout
        except IndexDamaged as error:
            if self._layouts.get(model_id) is layout:
                raise
            raise IndexBehind(f"the model {model_id} was just changed") from error

    @contextmanager
    def _connection(self, connections: Connections) -> Iterator[sqlite3.Connection]:
        """A connection to oneself; SQLite's errors become ours."""
        connection = connections.take()
        try:
            yield connection
        except sqlite3.Error as error:
            if is_bad_value(error):
                raise
            raise meaning_of(error) from error
        finally:
            connections.give_back(connection)

    @contextmanager
    def _hiding(self, *model_ids: str) -> Iterator[None]:
        """While the tables of models come and go, readers are told that the index is behind."""
        hidden = {id: self._layouts.pop(id) for id in model_ids if id in self._layouts}
        try:
            yield
        except BaseException:
            self._layouts.update(hidden)
            raise
        finally:
            for model_id in model_ids:
                self._changed(model_id)

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """The writer inside one transaction, undone if anything is raised."""
        with self._connection(self._writer) as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _spare_reader(self) -> Iterator[sqlite3.Connection]:
        """A reader of its own for what may take long, so that queries never wait for it."""
        if self._path is None:
            with self._connection(self._readers) as shared:
                yield shared
            return
        own: sqlite3.Connection | None = None
        try:
            own = open_reader(self._path)
            yield own
        except sqlite3.Error as error:
            raise meaning_of(error) from error
        finally:
            if own is not None:
                own.close()


def _parted(batch: list[tuple[Value, ...]]) -> list[list[tuple[Value, ...]]]:
    """Rows that were made and changed at one time, and the others."""
    changed = [row for row in batch if row[1] != row[2]]
    if not changed or len(changed) == len(batch):
        return [batch]
    return [[row for row in batch if row[1] == row[2]], changed]
