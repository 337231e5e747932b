"""Queries in SQL: filters, pages and aggregations compiled and run on one connection.

Room: the SQL side of what `protocol.query_filter` and `protocol.query` mean; a
property test holds both sides to the same answers. Values are always bound,
names always come from a `Layout`. Knows nothing of transactions, threads or
caches of totals, which are `index`'s.
"""

import math
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

from protocol.errors import QueryFault
from protocol.query import (
    MOMENTS,
    Aggregation,
    Condition,
    Cursor,
    Filter,
    Kind,
    Measure,
    Op,
    Query,
    encode_cursor,
)
from protocol.schema import Value
from protocol.times import datetime_from_ms
from storage.errors import IndexBehind
from storage.index_layout import META_COLUMNS, Layout, Row, bindable, set_token

GROUPS_MAX = 10_000
DIFFERENCES_MAX = 1_000  # named before `differences` stops
WHERE_CACHED_MAX = 256  # compiled filters kept per model

# A filter that many rows meet, sorted by another field: SQLite finds all of them and sorts them
# (16 ms for a third of 100,000). Looking through the first rows in sort order instead takes 0.3 ms,
# if the wanted ones are spread about evenly; it is tried only where failing costs little.
WINDOW_MARGIN = 4  # rows looked through per row expected to be needed
WINDOW_EXTRA_ROWS = 64
WINDOW_SHARE = 4  # at most a quarter of the rows that meet the filter, so a failed try adds a quarter

_COMPARISONS = {Op.EQ: "=", Op.NE: "IS NOT", Op.GT: ">", Op.GTE: ">=", Op.LT: "<", Op.LTE: "<="}

Allows = Callable[..., bool]  # asked of an id, or of a model's and an instance's

Sql = tuple[str, list[Value]]  # a piece of SQL and the values for its marks


@dataclass(frozen=True, slots=True)
class Page:
    """One page: record ids in order, how many records meet the filter, and where the next page starts."""

    ids: list[str]
    total: int
    next_cursor: str | None


# --- filters ---------------------------------------------------------------------------------------


def where(layout: Layout, filter_: Filter | None) -> Sql:
    """The condition for WHERE. Raises `IndexBehind` if the table lacks a field yet."""
    if filter_ is None:
        return "1", []
    cached = layout.where_cache.get(filter_.text)
    if cached is None:
        # Whether a record is allowed is asked last: of few, and it is dear.
        limit = ["civic_allowed(id)"] if isinstance(filter_, _Allowed) else []
        groups = [[_condition(layout, condition) for condition in group] for group in filter_.groups]
        text = " OR ".join(f"({' AND '.join(sql for sql, _ in group)})" for group in groups)
        text = " AND ".join([f"({text})", *limit] if text else limit)
        values = [value for group in groups for _, some in group for value in some]
        if len(layout.where_cache) >= WHERE_CACHED_MAX:
            layout.where_cache.clear()
        cached = layout.where_cache[filter_.text] = (f"({text})", values)
    return cached


def column_of(layout: Layout, name: str) -> str:
    column = layout.column(name)
    if column is None:
        raise IndexBehind(f"the query index has no field {name} of {layout.name} yet")
    return column


def _condition(layout: Layout, condition: Condition) -> Sql:
    column = column_of(layout, condition.field)
    values = list(condition.values)
    if condition.kind is Kind.SET:
        return _set_condition(column, condition.op, values)
    match condition.op:
        case Op.IN:
            return f"{column} IN ({_marks(values)})", values
        case Op.NIN:
            return f"({column} IS NULL OR {column} NOT IN ({_marks(values)}))", values
        case Op.LIKE:
            return _like_condition(column, values[0])
    return f"{column} {_COMPARISONS[condition.op]} ?", values


def _marks(values: list[Value]) -> str:
    return ", ".join("?" * len(values))


def _set_condition(column: str, op: Op, values: list[Value]) -> Sql:
    tokens = [set_token(value) for value in values]
    if not tokens:  # nothing that a set can hold was asked for
        return ("0" if op in (Op.EQ, Op.IN) else "1"), []
    held = _any_of([f"instr({column}, ?)"] * len(tokens))
    if op in (Op.EQ, Op.IN):
        return held, list(tokens)
    return f"({column} IS NULL OR NOT {held})", list(tokens)


def _any_of(conditions: list[str]) -> str:
    """The conditions joined by OR, as a balanced tree: SQLite refuses to go 1,000 deep."""
    if len(conditions) <= 8:
        return f"({' OR '.join(conditions)})"
    middle = len(conditions) // 2
    return f"({_any_of(conditions[:middle])} OR {_any_of(conditions[middle:])})"


def _like_condition(column: str, pattern: str) -> Sql:
    """`like` as `compile_like` means it.

    On plain ASCII text without NULs (the usual case, told by its length) SQLite's own LIKE gives
    the same answer for a folded pattern, and never enters Python.
    """
    folded = pattern.casefold()
    if "\0" in folded:  # LIKE would stop there
        return f"civic_like(?, {column})", [folded]
    escaped = folded.replace("\\", "\\\\").replace("_", "\\_")
    return (
        f"({column} IS NOT NULL AND CASE WHEN length({column}) = length(CAST({column} AS BLOB))"
        f" THEN {column} LIKE ? ESCAPE '\\' ELSE civic_like(?, {column}) END)"
    ), [escaped, folded]


class _Allowed(Filter):
    """A filter that lets through allowed records alone: see `allowing`."""


def allowed(filter_: Filter | None) -> Filter:
    """What the filter lets through of the records that are allowed."""
    return _Allowed(filter_.groups, f"{filter_.text}&allowed") if filter_ else _Allowed((), "&allowed")


@contextmanager
def allowing(connection: sqlite3.Connection, is_allowed: Allows) -> Iterator[None]:
    """While a query runs on the connection: what is allowed. What `is_allowed` raises is raised here."""
    failed: list[Exception] = []

    def ask(*ids: str) -> bool:
        try:
            return is_allowed(*ids)
        except Exception as error:  # SQLite would make an error of its own of it, and the index be distrusted
            failed.append(error)
            return False

    connection.create_function("civic_allowed", -1, ask)
    try:
        yield
    finally:
        connection.create_function("civic_allowed", -1, None)
    if failed:
        raise failed[0]


# --- pages -----------------------------------------------------------------------------------------


def count(connection: sqlite3.Connection, layout: Layout, filter_: Filter | None) -> int:
    """How many records meet the filter."""
    condition, values = where(layout, filter_)
    row = connection.execute(f"SELECT count(*) FROM {layout.table} WHERE {condition}", values).fetchone()
    return int(row[0])


def page(connection: sqlite3.Connection, layout: Layout, query: Query, *, total: int, row_count: int) -> Page:
    """One page of a query. `total` of the table's `row_count` records meet its filter."""
    column = column_of(layout, query.sort)
    wanted = query.per_page + 1  # one more tells whether there is a next page
    offset = (query.page - 1) * query.per_page
    window = _window_size(layout, query, wanted + offset, total, row_count)
    if query.cursor is None:
        rows = _rows(connection, layout, query, ("1", []), wanted, window)
    else:
        rows = []
        is_one_statement = layout.never_null(query.sort) and not query.cursor.by_id
        with nullcontext() if is_one_statement else _snapshot(connection):
            for segment in _behind(connection, layout, column, query.cursor):
                rows += _rows(connection, layout, query, segment, wanted - len(rows), window)
                if len(rows) == wanted:
                    break
    next_cursor = None
    if len(rows) == wanted:
        id, value = rows[query.per_page - 1]
        if value is not None and layout.is_boolean(query.sort):
            value = bool(value)
        next_cursor = encode_cursor(query.sort, query.descending, value, id)
    return Page([row[0] for row in rows[: query.per_page]], total, next_cursor)


@contextmanager
def _snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """All statements inside see the same rows, whatever is applied meanwhile."""
    try:
        connection.execute("BEGIN")  # inside `try`: a limit on steps may strike here, when it has begun
        yield
    finally:
        while connection.in_transaction:
            try:
                connection.execute("ROLLBACK")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:  # and here, when nothing has ended
                    raise


def _behind(connection: sqlite3.Connection, layout: Layout, column: str, cursor: Cursor) -> list[Sql]:
    """What lies behind a cursor: conditions whose rows follow one another, each fit for an index.

    Records without a value come first when rising and last when falling, as SQLite sorts them.
    """
    if column == "id":
        return [(f"id {'<' if cursor.descending else '>'} ?", [cursor.id])]
    value = cursor.value
    if cursor.by_id:
        row = connection.execute(f"SELECT {column} FROM {layout.table} WHERE id = ?", [cursor.id]).fetchone()
        if row is None:
            raise QueryFault({"cursor": "The record it points at is gone; start again"})
        value = row[0]
    sign = "<" if cursor.descending else ">"
    if value is None:
        segments: list[Sql] = [(f"{column} IS NULL AND id {sign} ?", [cursor.id])]
        if not cursor.descending:
            segments.append((f"{column} IS NOT NULL", []))
        return segments
    segments = [(f"({column}, id) {sign} (?, ?)", [value, cursor.id])]
    if cursor.descending and not layout.never_null(cursor.sort):
        segments.append((f"{column} IS NULL", []))
    return segments


def _rows(
    connection: sqlite3.Connection, layout: Layout, query: Query, segment: Sql, wanted: int, window: int
) -> list[tuple[str, Value]]:
    """Ids and sort values of a segment's rows that meet the filter, from the query's page on."""
    condition, values = where(layout, query.filter)
    inside, bounds = segment
    column = column_of(layout, query.sort)
    offset = (query.page - 1) * query.per_page
    way = "DESC" if query.descending else "ASC"
    order = f"ORDER BY {column} {way}" + (f", id {way}" if column != "id" else "")
    if window:
        found = connection.execute(
            f"SELECT id, {column} FROM"
            f" (SELECT * FROM {layout.table} WHERE {inside} {order} LIMIT ?)"
            f" WHERE {condition} {order} LIMIT ? OFFSET ?",
            [*bounds, window, *values, wanted, offset],
        ).fetchall()
        if len(found) == wanted:
            return found
    return connection.execute(
        f"SELECT id, {column} FROM {layout.table} WHERE {condition} AND {inside} {order} LIMIT ? OFFSET ?",
        [*values, *bounds, wanted, offset],
    ).fetchall()


def _window_size(layout: Layout, query: Query, needed: int, total: int, row_count: int) -> int:
    """How many rows to look through in sort order before asking in full; 0 to ask at once."""
    if query.filter is None or not total or not layout.keeps_order(query.sort):
        return 0
    size = needed * row_count // total * WINDOW_MARGIN + WINDOW_EXTRA_ROWS
    if size * WINDOW_SHARE > total:
        return 0
    conditions = [condition for group in query.filter.groups for condition in group]
    if any(condition.field == query.sort for condition in conditions):
        return 0  # the rows that meet it lie together in this order, not spread
    if len(query.filter.groups) == 1:
        equal = frozenset(condition.field for condition in conditions if condition.op is Op.EQ)
        if layout.serves(equal, query.sort):
            return 0
    return size


# --- aggregations ----------------------------------------------------------------------------------


def aggregate(
    connection: sqlite3.Connection, layout: Layout, aggregation: Aggregation
) -> list[dict[str, Value]]:
    """One object per group, ordered by the group's values, nulls first.

    A sum of integers beyond 64 bits comes as a float; a figure that is not finite as null.
    """
    try:
        return _aggregate(connection, layout, aggregation, sum_as="sum")
    except sqlite3.OperationalError as error:
        if "overflow" not in str(error):
            raise
    return _aggregate(connection, layout, aggregation, sum_as="total")


def _aggregate(
    connection: sqlite3.Connection, layout: Layout, aggregation: Aggregation, *, sum_as: str
) -> list[dict[str, Value]]:
    condition, values = where(layout, aggregation.filter)
    groups = [column_of(layout, name) for name in aggregation.group_by]
    figures = [_figure(layout, measure, sum_as) for measure in aggregation.measures]
    by = f" GROUP BY {', '.join(groups)} ORDER BY {', '.join(groups)}" if groups else ""
    rows = connection.execute(
        f"SELECT {', '.join([*groups, *figures])} FROM {layout.table} WHERE {condition}{by} LIMIT ?",
        [*values, GROUPS_MAX + 1],
    ).fetchall()
    if len(rows) > GROUPS_MAX:
        raise QueryFault({"group_by": f"More than {GROUPS_MAX} groups; group by fewer fields or filter"})
    shown = [(name, name, False) for name in aggregation.group_by]
    shown += [(m.alias, m.field, m.operation not in ("min", "max")) for m in aggregation.measures]
    return [
        {
            label: value if is_figure else _shown(layout, name, value)
            for (label, name, is_figure), value in pairs
        }
        for pairs in (zip(shown, map(_finite, row), strict=True) for row in rows)
    ]


def _figure(layout: Layout, measure: Measure, sum_as: str) -> str:
    function = sum_as if measure.operation == "sum" else measure.operation
    column = column_of(layout, measure.field)
    if function == "total":  # which is 0.0 where sum is null
        return f"CASE WHEN count({column}) THEN total({column}) END"
    return f"{function}({column})"


def _finite(value: Value) -> Value:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _shown(layout: Layout, name: str, value: Value) -> Value:
    """A field's value as records show it."""
    if value is None:
        return None
    if name in MOMENTS:
        return datetime_from_ms(value)
    return bool(value) if layout.is_boolean(name) else value


# --- the whole table -------------------------------------------------------------------------------


def differences(connection: sqlite3.Connection, layout: Layout, rows: Iterable[Row]) -> list[str]:
    """Ids whose rows are not those that should be there."""
    found: list[str] = []
    seen: set[str] = set()
    names = ", ".join(META_COLUMNS)
    columns = "".join(f", {layout.column(name)}" for name, _ in layout.columns)
    select = f"SELECT {names}{columns} FROM {layout.table} WHERE id = ?"
    for row in rows:
        seen.add(row.id)
        stored = connection.execute(select, [row.id]).fetchone()
        if stored != tuple(map(bindable, layout.parameters(row))):
            found.append(f"{row.id} {'is missing' if stored is None else 'differs'}")
        if len(found) == DIFFERENCES_MAX:
            return found
    for (id,) in connection.execute(f"SELECT id FROM {layout.table}"):
        if id not in seen:
            found.append(f"{id} is too many")
        if len(found) == DIFFERENCES_MAX:
            break
    return found
