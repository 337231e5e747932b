"""What was in a space before this node came to it: which arrivals brought it.

Room: one small fact a space, kept in `meta`. A node that joins a network gets all that there is in one go. To
applications that is no news: they are told once to read anew (`resync`), and nothing else follows from it, no
mail and no webhook. So a first sync has a beginning, with the first commit from elsewhere in a space that this
node has not shared before, and an end, once this node and a peer hold the same. What was made in the meantime,
by the clock of its author, is news all the same.

    meta "first sync <space>"  [after arrival, met ms, until arrival or 0 while it lasts]
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from protocol.clock import ms_of_hlc
from protocol.ids import SpaceId
from storage.store import Batch, Snapshot


@dataclass(frozen=True, slots=True)
class FirstSync:
    """Of one space. `after` and `until` are arrivals; `met_ms` is when the space was met, by this node's clock."""

    after: int
    met_ms: int
    until: int = 0

    @property
    def is_open(self) -> bool:
        """Whether it still goes on."""
        return not self.until

    def brought(self, arrival: int, hlc: int) -> bool:
        """Whether an arrival in this space is part of what had been there before."""
        is_within = self.after < arrival and (self.is_open or arrival <= self.until)
        return is_within and ms_of_hlc(hlc) < self.met_ms


def first_sync(snapshot: Snapshot, space: SpaceId) -> FirstSync | None:
    """That of a space; None if there is none: the space was made here, or is not shared yet."""
    value = snapshot.meta(_name(space))
    return None if value is None else FirstSync(*value)


class FirstSyncs:
    """Those of all spaces, for the one writer. What is found in a transaction counts once that is kept."""

    def __init__(self, snapshot: Snapshot, spaces: Mapping[SpaceId, str], *, is_joined: bool) -> None:
        """`is_joined`: the network was there before this node, so whatever others have made in it may be old."""
        self._is_joined = is_joined
        self._known: dict[SpaceId, FirstSync] = {}
        self._found: dict[SpaceId, FirstSync] = {}  # in this transaction
        for space in spaces:
            known = first_sync(snapshot, space)
            if known is not None:
                self._known[space] = known

    def brought(self, space: SpaceId, arrival: int, hlc: int) -> bool:
        """Whether an arrival is of a first sync."""
        known = self._known.get(space)
        return known is not None and known.brought(arrival, hlc)

    def is_unshared(self, space: SpaceId) -> bool:
        """Whether a space should be noted when this node and a peer hold the same of it."""
        known = self._known.get(space)
        return self._is_joined if known is None else known.is_open

    # -- in a transaction

    def open(self) -> None:
        """A transaction begins; what the last one found, if it was not kept, is forgotten."""
        self._found = {}

    def begin(self, batch: Batch, space: SpaceId, now_ms: int, *, is_met: bool) -> None:
        """A commit from elsewhere is about to be stored; `is_met` if it is the first thing known of its space."""
        if space not in self._known and space not in self._found and (is_met or self._is_joined):
            self._put(batch, space, FirstSync(batch.log.last_arrival(), now_ms))

    def end(self, batch: Batch, space: SpaceId, now_ms: int) -> bool:
        """This node and a peer hold the same of this space. Whether applications should read it anew."""
        known = self._known.get(space)
        last = batch.log.last_arrival()
        if known is None:
            self._put(batch, space, FirstSync(last, now_ms, last))
            return False
        if not known.is_open:
            return False
        self._put(batch, space, replace(known, until=last))
        return True

    def keep(self) -> None:
        """The transaction is durable."""
        self._known |= self._found

    def _put(self, batch: Batch, space: SpaceId, value: FirstSync) -> None:
        batch.put_meta(_name(space), [value.after, value.met_ms, value.until])
        self._found[space] = value


def _name(space: SpaceId) -> str:
    return "first sync " + space.hex()
