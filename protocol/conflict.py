"""Values that did not see each other: which one is shown, and what is told about the rest.

Room: pure functions of a document's live values, so that every node shows the
same. Under `crdt` the largest (hlc, author) is shown and the conflict listed;
`lww` shows the same and lists nothing.
"""

from dataclasses import dataclass
from typing import Any

from protocol.document import Document, Layer

DELETED = "$deleted"  # the field under which a delete that met an update is listed
LISTING_STRATEGIES = frozenset({"crdt"})


@dataclass(frozen=True, slots=True)
class LiveValue:
    """One of the values that stand side by side, with where it came from."""

    value: Any
    node: bytes
    user: str
    hlc: int


@dataclass(frozen=True, slots=True)
class Conflict:
    """A field with several live values, the shown one last."""

    model: str
    id: str
    field: str
    values: tuple[LiveValue, ...]


def conflicts(document: Document, strategy: str = "crdt") -> list[Conflict]:
    """The conflicts of one document, in the order of the fields' names."""
    if strategy not in LISTING_STRATEGIES or len(document.layers) < 2:
        return []
    found: list[Conflict] = []
    for name in sorted({name for layer in document.layers for name in layer.registers}):
        live = document.live_values(name)
        if len(live) > 1 and not all(is_same(value, live[0][1]) for _, value in live[1:]):
            found.append(
                Conflict(document.model, document.id, name, tuple(_live(x, value) for x, value in live))
            )
    deletes = [x for x in document.layers if x.is_delete]
    updates = [x for x in document.layers if (x.registers or x.sets) and not x.is_delete]
    if deletes and updates:
        values = [_live(x, {**x.registers, **x.sets}) for x in updates] + [_live(x, None) for x in deletes]
        found.append(Conflict(document.model, document.id, DELETED, tuple(values)))
    return found


def is_same(one: Any, other: Any) -> bool:
    """Whether two values are one to an application: as for elements of a set, 1 is 1.0 and not `true`."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(is_same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(is_same(one[name], other[name]) for name in one)
    return bool(one == other)


def _live(layer: Layer, value: Any) -> LiveValue:
    return LiveValue(value, layer.dot.author[:32], layer.user, layer.hlc)
