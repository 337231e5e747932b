"""Instances as an app holds them, and models as far as this library needs to know them.

Room: plain values. A `Document` is a dictionary whose fields are attributes too, with the methods that
`extend_model` gave its model.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

# What the node adds to the fields of a model, and how the seed's examples spell it.
META_FIELDS = ("id", "created_at", "updated_at", "created_by", "version")
_ALIASES = {"createdAt": "created_at", "updatedAt": "updated_at", "createdBy": "created_by", "_id": "id"}


class Document(dict[str, Any]):
    """One instance: `user["name"]`, `user.name`, and `user.full_name()` where the model was extended so.

    `timestamp` is when it was last written, in epoch milliseconds, unless the model has such a field.
    """

    __slots__ = ("_hidden", "_methods")

    def __init__(
        self,
        values: Mapping[str, Any],
        methods: Mapping[str, Callable[..., Any]] | None = None,
        hidden: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(values)
        self._methods: Mapping[str, Callable[..., Any]] = methods or {}
        self._hidden: Mapping[str, Any] = hidden or {}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in self._methods:
            return self._methods[name].__get__(self)
        for spelt in (name, _ALIASES.get(name, name)):
            for known in (self, self._hidden):
                if spelt in known:
                    return known[spelt]
        if name == "timestamp" and isinstance(written := getattr(self, "updated_at", None), str):
            return int(datetime.fromisoformat(written).timestamp() * 1000)
        raise AttributeError(name)


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The types of a model's fields, None where the definition could not be read."""

    name: str
    fields: Mapping[str, str] = field(default_factory=dict)
    is_known: bool = True

    def spelt(self, name: str) -> str:
        """A field as the node calls it: `createdAt` is `created_at`, unless the model has a `createdAt`."""
        return _ALIASES.get(name, name) if name not in self.fields else name

    def type_of(self, name: str) -> str | None:
        """The type of a field; None for what the node adds, and for what is not known."""
        return self.fields.get(name)


def shape_of(definition: Mapping[str, Any]) -> ModelShape:
    """What a definition says of its fields."""
    return ModelShape(definition["name"], {entry["name"]: entry["type"] for entry in definition["fields"]})


def fields_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a document without what the node added."""
    return {name: value for name, value in document.items() if name not in META_FIELDS}


def changed_fields(
    before: Mapping[str, Any], after: Mapping[str, Any], names: Iterable[str]
) -> dict[str, Any]:
    """Those of `names` that differ, as they are in `after`."""
    return {name: after[name] for name in names if name in after and before.get(name) != after[name]}


def to_json(content: Any) -> str:
    """Compact JSON; moments in ISO 8601, sets as lists. Raises `TypeError` for what is none of JSON's kinds."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"), default=_jsonable)


def _jsonable(value: Any) -> Any:
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=repr)
    raise TypeError(f"{type(value).__name__} has no form in JSON")
