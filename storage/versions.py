"""A document as it stood at an earlier version.

Room: finding, in the history of one document, the state that had a version. The
states that a node has shown are those after each body in the order of its
arrival here. Versions of states that only other nodes had are not found.
"""

from dataclasses import dataclass
from itertools import islice

from protocol.clock import ms_of_hlc
from protocol.document import Document
from protocol.ids import SpaceId
from protocol.integrate import grow
from storage.judging import Basis, Places
from storage.store import Snapshot

BODIES_READ_MAX = 50_000  # of one document: about two seconds of reading


@dataclass(frozen=True, slots=True)
class Earlier:
    """A state of a document, how many bodies came after it, and when the first of those was written."""

    document: Document
    bodies_since: int
    ended_ms: int


def find_version(
    snapshot: Snapshot, basis: Basis, space: SpaceId, model: str, id: str, version: str
) -> Earlier | None:
    """The newest state of this version that is not the last, or None. Blocks; reads the history from its beginning."""
    addresses = list(islice(snapshot.documents.history(space, model, id), BODIES_READ_MAX + 1))
    if len(addresses) > BODIES_READ_MAX:
        return None
    places, document = Places(snapshot, basis), Document(model, id)
    document.quarantine()  # only places are asked for: no contents need be merged
    for count, _ in enumerate(grow(snapshot, space, document, map(places.place, addresses)), start=1):
        if document.version == version and count < len(addresses):
            header = snapshot.log.header_fields(addresses[count].chain, addresses[count].seq)
            return Earlier(document, len(addresses) - count, ms_of_hlc(header.hlc))
    return None
