"""How the records of a model lie in SQLite: tables, columns, indexes, views.

Room: every name and every statement that defines or fills a table. Running them
is the affair of `index_tables` and `index`, reading that of `index_query`. Names come from
checked models and are quoted all the same.

    "$position"    one row: which store, how far its arrival order has been read
    "$models"      model_id, application, name, layout (JSON), row_count
    "$conflicts"   see `index_conflicts`
    "m_<model_id>" one row per record, WITHOUT ROWID, by id
    "<model name>" a view for people, where one model alone has the name

A field's column is `f_<field>`: TEXT for text, dates, options and references,
INTEGER for integers, counters and booleans (0 and 1), NUMERIC for numbers, JSON
text for `json`, `array` and `set`. A set has each item on a line of its own, so that
`instr` finds an item exactly.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import msgspec

from protocol.query import META_KINDS
from protocol.schema import FieldType, Model, Value
from protocol.schema_check import Fault, set_item_key

META_COLUMNS = ("id", "created_at", "updated_at", "created_by", "version")

_COLUMN_TYPES = {
    FieldType.INTEGER: "INTEGER",
    FieldType.COUNTER: "INTEGER",
    FieldType.BOOLEAN: "INTEGER",
    FieldType.NUMBER: "NUMERIC",
}

# What SQLite is told to expect: this many rows of STAT_ROWS per value of an indexed field. Only
# their order matters, so that of two indexed conditions the more telling one is looked up; all are
# so low that looking up always beats scanning. (A condition that most rows meet is `index_query`'s
# affair.) Fixed numbers in place of ANALYZE keep plans the same from one day to the next.
STAT_ROWS = 1_000_000
_STAT_UNIQUE = 1
_STAT_USUAL = 10
_STAT_PER_VALUE = {FieldType.BOOLEAN: 200, FieldType.ENUM: 100, FieldType.DATE: 30}


class Row(NamedTuple):
    """One record as the index takes it; `values` are stored values by field name."""

    id: str
    created_at_ms: int
    updated_at_ms: int
    created_by: str
    version: str
    values: dict[str, Value]


Key = tuple[tuple[str, int], ...]  # fields of an SQL index, each +1 or -1; the id follows by itself


def quoted(name: str) -> str:
    """A name as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


@dataclass(frozen=True)
class Layout:
    """The table of one model. Columns keep the order in which they were added."""

    model_id: str
    application: str
    name: str
    columns: tuple[tuple[str, FieldType], ...]
    keys: tuple[Key, ...]
    resolver: str = ""  # the plugin's strategy whose function has made the values, if one has
    where_cache: dict[str, tuple[str, list[Value]]] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, model: Model) -> "Layout":
        """The layout a model asks for."""
        keys: list[Key] = [(("created_at", 1),)]
        keys += [((f.name, 1),) for f in model.fields.values() if f.indexed or f.unique]
        keys += [_forward(spec.fields) for spec in model.indexes]
        columns = tuple((f.name, f.type) for f in model.fields.values() if not f.encrypted)
        resolver = model.conflict_strategy if model.resolver is not None else ""
        return cls(model.id, model.application, model.name, columns, tuple(dict.fromkeys(keys)), resolver)

    @classmethod
    def from_stored(cls, model_id: str, application: str, name: str, layout: str) -> "Layout":
        """The layout that `to_stored` wrote. Raises ValueError, KeyError or TypeError on anything else."""
        stored = json.loads(layout)
        columns = tuple((str(column), FieldType(kind)) for column, kind in stored["columns"])
        keys = tuple(tuple((str(column), int(way)) for column, way in key) for key in stored["keys"])
        return cls(model_id, application, name, columns, keys, str(stored.get("resolver", "")))

    def to_stored(self) -> str:
        stored = {"columns": [(name, kind.value) for name, kind in self.columns], "keys": self.keys}
        return json.dumps({**stored, "resolver": self.resolver} if self.resolver else stored)

    def grown_from(self, old: "Layout") -> "Layout | None":
        """This layout with the columns of `old` first, or None if `old`'s table cannot grow into it."""
        now = dict(self.columns)
        if self.resolver != old.resolver or any(now.get(name) != kind for name, kind in old.columns):
            return None
        added = tuple(column for column in self.columns if column not in old.columns)
        return replace(self, columns=old.columns + added, where_cache={})

    # --- names ---

    @cached_property
    def table_name(self) -> str:
        return f"m_{self.model_id}"

    @cached_property
    def table(self) -> str:
        return quoted(self.table_name)

    @cached_property
    def _column_names(self) -> dict[str, str]:
        return {name: name for name in META_KINDS} | {name: quoted(f"f_{name}") for name, _ in self.columns}

    def column(self, name: str) -> str | None:
        """The SQL name of a field's column; None if there is no such column (yet)."""
        return self._column_names.get(name)

    @cached_property
    def is_builtin(self) -> bool:
        return self.name.startswith("$")

    def is_boolean(self, name: str) -> bool:
        return (name, FieldType.BOOLEAN) in self.columns

    def never_null(self, name: str) -> bool:
        return name in META_KINDS

    def keeps_order(self, name: str) -> bool:
        """Can rows be read in the order of this field without sorting?"""
        return name == "id" or ((name, 1),) in self.keys

    def serves(self, equal: frozenset[str], sort: str) -> bool:
        """Does one index both find rows with given values in `equal` and hold them in the order of `sort`?"""
        for key in self.keys:
            names = [name for name, _ in key]
            if sort in names and names.index(sort) > 0 and equal.issuperset(names[: names.index(sort)]):
                return True
        return False

    # --- definition ---

    def create_table(self) -> str:
        columns = [
            "id TEXT PRIMARY KEY NOT NULL",
            "created_at INTEGER NOT NULL",
            "updated_at INTEGER NOT NULL",
            "created_by TEXT NOT NULL",
            "version TEXT NOT NULL",
            *(self._column_definition(name, kind) for name, kind in self.columns),
        ]
        return f"CREATE TABLE {self.table} ({', '.join(columns)}) WITHOUT ROWID"

    def add_columns(self, old: "Layout") -> list[str]:
        return [
            f"ALTER TABLE {self.table} ADD COLUMN {self._column_definition(name, kind)}"
            for name, kind in self.columns[len(old.columns) :]
        ]

    @staticmethod
    def _column_definition(name: str, kind: FieldType) -> str:
        return f"{quoted(f'f_{name}')} {_COLUMN_TYPES.get(kind, 'TEXT')}"

    def index_name(self, key: Key) -> str:
        return f"x_{self.model_id}_{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:8]}"

    def create_index(self, key: Key) -> str:
        """The id ends every index, in the direction of the last field, so that pages can be read from it."""
        parts = [f"{self._column_names[name]}{' DESC' if way < 0 else ''}" for name, way in key]
        parts.append(f"id{' DESC' if key[-1][1] < 0 else ''}")
        return f"CREATE INDEX {quoted(self.index_name(key))} ON {self.table} ({', '.join(parts)})"

    def stat_rows(self, unique: Iterable[str]) -> list[tuple[str, str, str]]:
        """Rows of sqlite_stat1: table, index, estimates."""
        kinds, singular = dict(self.columns), {*unique, "created_at", "updated_at"}
        rows = []
        for key in self.keys:
            estimates, expected = [], STAT_ROWS
            for name, _ in key:
                usual = _STAT_PER_VALUE.get(kinds[name], _STAT_USUAL) if name in kinds else _STAT_USUAL
                expected = max(1, min(expected, _STAT_UNIQUE if name in singular else usual))
                estimates.append(expected)
            rows.append(
                (self.table_name, self.index_name(key), " ".join(map(str, [STAT_ROWS, *estimates, 1])))
            )
        return rows

    def create_view(self) -> str:
        """The records as people know them: times in ISO 8601, booleans as 0 and 1."""
        columns = [
            "id",
            *(f"{_iso(name)} AS {name}" for name in ("created_at", "updated_at")),
            "created_by",
            "version",
            *(f"{self._column_names[name]} AS {quoted(name)}" for name, _ in self.columns),
        ]
        return f"CREATE VIEW {quoted(self.name)} AS SELECT {', '.join(columns)} FROM {self.table}"

    # --- rows ---

    @cached_property
    def _insert_or(self) -> str:
        marks = ", ".join("?" * (len(META_COLUMNS) + len(self.columns)))
        return f"INSERT INTO {self.table} VALUES ({marks}) ON CONFLICT (id) DO "

    @cached_property
    def insert(self) -> str:
        """Adds rows that are not there; the count of changes tells how many were added."""
        return f"{self._insert_or}NOTHING"

    @cached_property
    def upsert(self) -> str:
        names = [*META_COLUMNS[1:], *(self._column_names[name] for name, _ in self.columns)]
        return f"{self._insert_or}UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in names)}"

    @cached_property
    def delete(self) -> str:
        return f"DELETE FROM {self.table} WHERE id = ?"

    @cached_property
    def parameters(self) -> Callable[[Row], tuple[Value, ...]]:
        """The function that turns a row into the parameters of `insert` and `upsert`."""
        names = [name for name, _ in self.columns]
        encoders = [
            (at, _ENCODERS[kind]) for at, (_, kind) in enumerate(self.columns, 5) if kind in _ENCODERS
        ]

        def plain(row: Row) -> tuple[Value, ...]:
            return (*row[:5], *map(row[5].get, names))

        def encoded(row: Row) -> tuple[Value, ...]:
            parameters = [*row[:5], *map(row[5].get, names)]
            for at, encode in encoders:
                if parameters[at] is not None:
                    parameters[at] = encode(parameters[at])
            return tuple(parameters)

        return encoded if encoders else plain


def _forward(key: Key) -> Key:
    """The same index with its first field rising: SQLite reads either way."""
    return key if key[0][1] > 0 else tuple((name, -way) for name, way in key)


def _iso(column: str) -> str:
    seconds = f"strftime('%Y-%m-%dT%H:%M:%S', {column} / 1000, 'unixepoch')"
    return f"{seconds} || printf('.%03dZ', {column} % 1000)"


# --- values that are stored as JSON text -----------------------------------------------------------


def set_token(item: Value) -> str:
    """One item as it stands in a stored set, between the line breaks that mark its ends.

    Line breaks inside the item are escaped by JSON, so the text is found exactly where the item is.
    """
    key = set_item_key(item)
    plain = item if isinstance(key, Fault) else key[1]
    return f"\n{_json_text(plain)}\n"


def _set_text(items: Value) -> str | None:
    if not isinstance(items, list):
        return _json_text(items)
    return f"[{','.join(map(set_token, items))}]"


def _json_text(value: Any) -> str | None:
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError, OverflowError, RecursionError):  # not JSON, so no valid record's value
        return None


_ENCODERS: dict[FieldType, Callable[[Value], str | None]] = {
    FieldType.JSON: _json_text,
    FieldType.ARRAY: _json_text,
    FieldType.SET: _set_text,
}


def bindable(value: Value) -> Value:
    """The nearest thing to a value that SQLite can hold; None if there is none.

    Only for rows that a plain attempt could not store: no record that its model allows needs it.
    """
    if type(value) is int and not -(2**63) <= value < 2**63:
        try:
            return float(value)
        except OverflowError:
            return None
    if type(value) is str and not value.isascii():
        return value.encode(errors="replace").decode()
    return value if value is None or type(value) in (str, int, float, bool) else None
