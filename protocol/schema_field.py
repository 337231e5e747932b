"""The words a model is written in: field types, fields, index specs, and their limits.

Room: plain values and nothing else. What a value of each type may be is decided
in `schema_check`, how a definition is read from JSON in `schema_definition`, and
`schema` ties them together; import from there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

# A stored value, as documents hold it: str, int, float, bool, None, and for `json`, `array` and `set`
# lists and string-keyed dicts of these. Never bytes, never a tag of the encoding.
Value = Any

INTEGER_MIN = -(2**63)
INTEGER_MAX = 2**63 - 1
FLOAT_INTEGER_MAX = 2**53  # beyond it a float no longer tells neighbouring integers apart
STRING_SIZE_MAX_BYTES = 2**20
JSON_SIZE_MAX_BYTES = 2**20  # as counted by `schema_check.json_size_bytes`
JSON_DEPTH_MAX = 32
SET_ITEMS_MAX = 10_000
SET_ITEM_SIZE_MAX_BYTES = 4096

NAME_SIZE_MAX = 63
FIELDS_MAX = 256
INDEXES_MAX = 32  # each one makes every write dearer
INDEX_FIELDS_MAX = 8
OPTIONS_MAX = 1000
OPTION_SIZE_MAX = 255
PATTERN_SIZE_MAX = 1024
PATTERN_COMPILED_MAX_BYTES = 2**20
DEFINITION_SIZE_MAX_BYTES = 2**18  # a definition is one small document that every node keeps in memory


class FieldType(StrEnum):
    """What a field holds. The last is reserved: definitions that use it are refused."""

    STRING = "string"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    DATE = "date"
    DATETIME = "datetime"
    ENUM = "enum"
    JSON = "json"
    SET = "set"
    COUNTER = "counter"
    REFERENCE = "reference"
    TEXT = "text"
    ARRAY = "array"
    FILE = "file"

    @property
    def phrase(self) -> str:
        """The type in a sentence: `an enum field`, `a string field`."""
        return f"{'an' if self.value[0] in 'aei' else 'a'} {self.value} field"


RESERVED_TYPES = frozenset({FieldType.FILE})
SHARED_TYPES = frozenset({FieldType.TEXT, FieldType.ARRAY})  # which several may edit at once
# What these show if nobody has written to them.
EMPTY: Mapping[FieldType, Value] = {
    FieldType.SET: [],
    FieldType.COUNTER: 0,
    FieldType.TEXT: "",
    FieldType.ARRAY: [],
}
NUMERIC_TYPES = frozenset({FieldType.INTEGER, FieldType.NUMBER, FieldType.COUNTER})
SCALAR_TYPES = frozenset(FieldType) - RESERVED_TYPES - SHARED_TYPES - {FieldType.JSON, FieldType.SET}
BOUNDED_TYPES = frozenset(
    {FieldType.STRING, FieldType.INTEGER, FieldType.NUMBER, FieldType.DATE, FieldType.DATETIME, FieldType.SET}
)
ENCRYPTED_TYPES = SCALAR_TYPES - {FieldType.COUNTER, FieldType.REFERENCE} | {FieldType.JSON}
UNIQUE_TYPES = SCALAR_TYPES - {FieldType.BOOLEAN, FieldType.COUNTER}

# Every record has these beside its fields; a field may not take their names, whatever the case
# (SQL does not tell `ID` from `id`).
META_FIELDS = ("id", "created_at", "updated_at", "created_by", "version")
RESERVED_NAMES = frozenset({*META_FIELDS, "version_vector", "strategy_missing"})


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a model.

    `minimum` and `maximum` bound the value of numbers, dates and datetimes, the number of
    characters of a string and the number of items of a set. `default` is in stored form.
    `model` names the model a reference points into. `merge` says how values that did not see each
    other are folded into one. Values of an `encrypted` field are sealed before they are stored (`sealed`).
    """

    name: str
    type: FieldType
    required: bool = False
    default: Value = None
    unique: bool = False
    indexed: bool = False
    minimum: int | float | str | None = None
    maximum: int | float | str | None = None
    pattern: str | None = None
    options: tuple[str, ...] = ()
    encrypted: bool = False
    merge: str | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class IndexSpec:
    """An index over one or more fields, each rising (+1) or falling (-1)."""

    fields: tuple[tuple[str, int], ...]
    unique: bool = False
