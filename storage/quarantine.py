"""Documents whose texts this node does not merge, because merging them has stopped a process.

Room: the list of them, among the records that belong to this node alone. That a document is one is also in its
state (`Document.is_quarantined`), where merging looks; whoever writes one writes both.

    local "quarantine"  space, hex + " " + model + " " + id  -> {at_ms, reason}
"""

from collections.abc import Iterator
from typing import NamedTuple

from protocol.ids import SpaceId
from storage.local import LocalReader, LocalWriter

_KIND = "quarantine"


class Quarantined(NamedTuple):
    space: SpaceId
    model: str
    id: str
    at_ms: int
    reason: str


def note(local: LocalWriter, told: Quarantined) -> None:
    """Add a document to the list, or change what is said of it."""
    key = f"{told.space.hex()} {told.model} {told.id}"
    local.put(_KIND, key, {"at_ms": told.at_ms, "reason": told.reason})


def forget(local: LocalWriter, space: SpaceId, model: str, id: str) -> None:
    """Take a document off the list: it is erased."""
    local.delete(_KIND, f"{space.hex()} {model} {id}")


def listed(local: LocalReader) -> Iterator[Quarantined]:
    """All that are quarantined, in the order of spaces, models and ids."""
    for key, value in local.scan(_KIND):
        space, model, id = key.split(" ")
        yield Quarantined(SpaceId(bytes.fromhex(space)), model, id, value["at_ms"], value["reason"])
