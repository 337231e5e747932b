"""Documents that were erased here, and of which this node may still hold something elsewhere.

Room: the list of them, among the records that belong to this node alone. The record itself holds nothing of such
a document from the commit on that notes it here. What lies outside the documents (records of services, the query
index, pages of files that were freed but not overwritten) is dropped by `node.services.erasing`, which takes a
document off the list when that is done.

    local "erasing"  space, hex + " " + model + " " + id  -> {}
"""

from collections.abc import Iterator
from typing import NamedTuple

from protocol.ids import SpaceId
from storage.local import LocalReader, LocalWriter

_KIND = "erasing"


class Due(NamedTuple):
    """A document of which not everything is gone yet."""

    space: SpaceId
    model: str
    id: str


def note_due(local: LocalWriter, space: SpaceId, model: str, id: str) -> None:
    """A document was erased in this transaction."""
    local.put(_KIND, f"{space.hex()} {model} {id}", {})


def due(local: LocalReader) -> Iterator[Due]:
    """All of which not everything is gone yet, in the order of spaces, models and ids."""
    for key, _ in local.scan(_KIND):
        space, model, id = key.split(" ")
        yield Due(SpaceId(bytes.fromhex(space)), model, id)


def settle(local: LocalWriter, done: Due) -> None:
    """Nothing is left of it."""
    local.delete(_KIND, f"{done.space.hex()} {done.model} {done.id}")
