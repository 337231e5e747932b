"""What applications may ask for: edits of documents, as values.

Room: the one form in which every surface, the command line and the simulator ask
for a change. Values have been checked against the model; who may ask has been
checked by the API. What is asked here becomes operations in `document`, and a
signed commit in `integrate`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from protocol.ancestor import PastOf
from protocol.clock import ms_of_hlc
from protocol.conflict import Conflict, judge_contested
from protocol.document import Document
from protocol.resolution import Resolution
from protocol.schema import Model
from protocol.schema_field import EMPTY
from protocol.sealed import LOCKED
from protocol.times import datetime_from_ms

_NONE: tuple[Conflict, ...] = ()


@dataclass(frozen=True, slots=True)
class Record:
    """A document as applications see it: the shown value of every field, and what the node knows of it.

    `conflicts` are those that the model's strategy leaves open.
    """

    id: str
    model: Model
    values: dict[str, Any]
    created_at_ms: int
    updated_at_ms: int
    created_by: str
    version: str
    conflicts: tuple[Conflict, ...] = ()
    is_broken: bool = False  # see `Document.is_broken`

    @classmethod
    def of(cls, model: Model, document: Document, past_of: PastOf) -> "Record":
        """The record of a document that exists. `past_of` is asked only where values stand side by side."""
        (values, is_contested), conflicts = document.shown(), _NONE
        if is_contested and not model.rules.is_plain:
            values, conflicts = judge_contested(document, values, model.rules, past_of)
        for name, default in model.late_defaults:
            if name not in values:
                values[name] = default
        return cls(
            document.id,
            model,
            values,
            ms_of_hlc(document.created_hlc),
            ms_of_hlc(document.updated_hlc),
            document.created_user,
            document.version,
            conflicts,
            document.is_broken,
        )

    def facts(self) -> dict[str, Any]:
        """The document as JSON: id, the model's fields in their order (null where there is no value, for sets,
        counters, texts and arrays what nothing adds up to), then meta. `strategy_missing` is there where a value
        is shown for want of the plugin that should have chosen it."""
        document: dict[str, Any] = {"id": self.id}
        values = self.values
        for name, field in self.model.fields.items():
            value = values.get(name)
            if value is None and field.type in EMPTY:
                value = EMPTY[field.type]
            document[name] = LOCKED if field.encrypted and value is not None else value
        document["created_at"] = datetime_from_ms(self.created_at_ms)
        document["updated_at"] = datetime_from_ms(self.updated_at_ms)
        document["created_by"] = self.created_by
        document["version"] = self.version
        if self.is_strategy_missing:
            document["strategy_missing"] = True
        return document

    @property
    def is_strategy_missing(self) -> bool:
        """Whether a value is shown for want of the plugin that should have chosen it."""
        return bool(self.conflicts) and self.model.rules.is_plugins


class EditKind(StrEnum):
    """`PUT` creates or updates, `RESOLVE` ends a conflict; the others fail where the document is, or is not, there.

    `ERASE` leaves nothing of a document, deleted or not, on any node and for ever.
    """

    CREATE = "create"
    UPDATE = "update"
    PUT = "put"
    DELETE = "delete"
    ERASE = "erase"
    RESOLVE = "resolve"


# Sees the record as it stands when the edit is made (None if there is none); raises to refuse the whole change.
Guard = Callable[[Record | None], None]


@dataclass(slots=True)
class Edit:
    """One edit of one document. `if_match` is the version that the asker has seen.

    `ends` names the conflict that a `RESOLVE` ends.
    """

    kind: EditKind
    model: Model
    id: str
    values: Mapping[str, Any]
    if_match: str | None = None
    guard: Guard | None = None
    ends: Resolution | None = None


@dataclass(slots=True)
class DocumentChange:
    """Edits of one acting user in one application: all of them in one commit, or none.

    With `is_atomic` off each stands for itself, and the result holds an exception where one failed. With it on,
    `reached` is the place of the edit that failed, if one did. `checks_references` is off where documents are told
    again that were once true, in no order.
    """

    application: str
    user: str
    edits: list[Edit]
    is_atomic: bool = True
    reached: int = 0
    checks_references: bool = True
