"""From the values of a file to a model, and from the text of a CSV cell to a value.

Room: pure. The guess is careful: a type is chosen only if every value of the field has it, and text that
would not read back the same as a number (`007`, `+49…`) stays text.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from node.services.record_files import Record, value_of

INTEGER_MIN, INTEGER_MAX = -(2**63), 2**63 - 1
SET_BY_THE_NODE = ("created_at", "updated_at", "created_by", "version")
NAME_MAX_CHARS = 63

_INTEGER = re.compile(r"-?(0|[1-9][0-9]*)\Z")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?\Z")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")
_DATETIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})\Z"
)


def kind_of_text(text: str) -> str:
    """The type of a string by its looks: `date`, `datetime` or `string`."""
    try:
        if _DATE.match(text):
            date.fromisoformat(text)
            return "date"
        if _DATETIME.match(text):
            datetime.fromisoformat(text)
            return "datetime"
    except ValueError:
        pass  # the thirtieth of February
    return "string"


def kind_of_cell(cell: str) -> str:
    """The type of a CSV cell by its looks."""
    if _INTEGER.match(cell):
        # Longer numbers are names for things (account, article), not amounts.
        return "integer" if INTEGER_MIN <= int(cell[:20]) <= INTEGER_MAX and len(cell) <= 20 else "string"
    if _NUMBER.match(cell):
        return "number" if float(cell) not in (float("inf"), float("-inf")) else "string"
    if cell.lower() in ("true", "false"):
        return "boolean"
    return kind_of_text(cell)


def kind_of_value(value: Any) -> str:
    """The type of a JSON value."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer" if INTEGER_MIN <= value <= INTEGER_MAX else "number"
    if isinstance(value, float):
        return "number"
    return kind_of_text(value) if isinstance(value, str) else "json"


@dataclass
class Guess:
    """What the fields of a file are, learned record by record."""

    from_text: bool  # the values are CSV cells
    kinds: dict[str, set[str]] = field(default_factory=dict)

    def learn(self, record: Record) -> None:
        kind_of = kind_of_cell if self.from_text else kind_of_value
        for name, value in record.items():
            kinds = self.kinds.setdefault(name, set())
            if value is not None:
                kinds.add(kind_of(value))

    def type_of(self, name: str) -> str:
        kinds = self.kinds[name]
        if len(kinds) == 1:
            return next(iter(kinds))
        if not kinds:
            return "string"
        if kinds == {"integer", "number"}:
            return "number"
        return "string" if self.from_text or kinds <= {"string", "date", "datetime"} else "json"

    def definition(self, model: str, names: "Names", indexed: Iterable[str]) -> dict[str, Any]:
        """The body of `POST /v1/data-models`."""
        wanted = set(indexed)
        fields = []
        for original in self.kinds:
            name = names.fields.get(original)
            if name is not None:
                entry = {"name": name, "type": self.type_of(original)}
                fields.append({**entry, "indexed": True} if name in wanted or original in wanted else entry)
        return {"name": model, "fields": fields}


@dataclass
class Names:
    """How the file's field names become the model's; which field is the id; what is left out."""

    fields: dict[str, str] = field(default_factory=dict)
    id_field: str | None = None
    left_out: list[str] = field(default_factory=list)

    @property
    def changed(self) -> dict[str, str]:
        return {original: name for original, name in self.fields.items() if original != name}

    @classmethod
    def of(cls, originals: Iterable[str], id_field: str | None) -> "Names":
        """Names for `originals`, in order. A field called `id` is the id unless another is named."""
        found = list(originals)
        names = cls(id_field=id_field or ("id" if "id" in found else None))
        taken: set[str] = {"id", *SET_BY_THE_NODE}
        for original in found:
            if original in SET_BY_THE_NODE:
                names.left_out.append(original)
            elif original == "id":
                if names.id_field != "id":
                    names.left_out.append(original)
            else:
                name = _field_name(original, taken)
                taken.add(name)
                names.fields[original] = name
        return names


def _field_name(original: str, taken: set[str]) -> str:
    """`original` as a field name: a letter, then letters, digits and underscores; not one already taken."""
    plain = re.sub(r"[^A-Za-z0-9_]+", "_", original).strip("_") or "field"
    if not plain[0].isalpha():
        plain = f"field_{plain}"
    plain = plain[:NAME_MAX_CHARS]
    name, number = plain, 1
    while name in taken:
        number += 1
        name = f"{plain[: NAME_MAX_CHARS - 7]}_{number}"
    return name


def body_of(record: Record, names: Names, types: Mapping[str, str], *, from_text: bool) -> Record:
    """The body that creates `record`; `types` are the model's, by its own field names."""
    body: Record = {}
    if names.id_field is not None and record.get(names.id_field) is not None:
        body["id"] = str(record[names.id_field])
    for original, value in record.items():
        name = names.fields.get(original)
        if name is not None and value is not None:
            body[name] = value_of(value, types.get(name, "string")) if from_text else value
    return body
