"""Which other nodes hold what was written here, for whoever wants to wait for that.

Room: a small table in memory, from what links tell (`protocol.exchange.PeerHolds`), and those who wait on it. It
counts nodes, not links. A node that has acknowledged a commit and gone away since still holds it; one that comes
back in another life of its store is asked anew. Nobody waits, as a rule: then all this costs is one look into a
dictionary for each acknowledgement.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from protocol.ids import Author, NodeId, SpaceId, application_space_name, node_of

if TYPE_CHECKING:  # what belongs to links is loaded with them, after the start
    from protocol.exchange import PeerHolds, Shares

HOLDERS_MAX = 1_024  # nodes remembered; one that is forgotten is counted again once it has acknowledged more
WAITING_MAX = 4_096  # requests at a time; above it they are answered at once, with what is known


@dataclass(frozen=True, slots=True)
class Newest:
    """The newest of our own chain in an application's space, and the newest arrival, at one moment."""

    application: str
    space: SpaceId
    seq: int
    arrival: int


@dataclass(slots=True)
class Holding:
    """What one node holds of what is here, by its own word."""

    author: Author
    shares: "Shares"
    chains: dict[SpaceId, int] = field(default_factory=dict)
    position: int = 0  # all that had arrived here up to it, in what is shared

    def has(self, written: Newest) -> bool:
        if written.seq and self.chains.get(written.space, 0) >= written.seq:
            return True
        return self.position >= written.arrival and self.shares_with(written.application)

    def shares_with(self, application: str) -> bool:
        return application_space_name(application) in self.shares


@dataclass(slots=True, eq=False)
class _Waiting:
    written: Newest
    count: int
    held_by: set[NodeId]
    done: "asyncio.Future[None]"


class Receipts:
    """For one event loop. `close` it when the node stops."""

    def __init__(self, own_node: NodeId, newest_of: Callable[[str], Newest]) -> None:
        """`newest_of(application)` reads the record."""
        self._own_node = own_node
        self._newest_of = newest_of
        self._holdings: dict[NodeId, Holding] = {}
        self._waiting: dict[_Waiting, None] = {}
        self._is_closed = False

    @property
    def holdings(self) -> dict[NodeId, Holding]:
        """By node, as known now."""
        return dict(self._holdings)

    def on_peer_holds(self, peer: Author, shares: "Shares", holds: "PeerHolds") -> None:
        """A link tells what the node at its other end has acknowledged."""
        node = node_of(peer)
        if node == self._own_node:
            return
        holding = self._holdings.get(node)
        if holding is None or holding.author != peer:
            if holding is None and len(self._holdings) >= HOLDERS_MAX:
                del self._holdings[next(iter(self._holdings))]
            holding = self._holdings[node] = Holding(peer, shares)
        holding.shares = shares
        holding.position = max(holding.position, holds.position)
        for space, seq in holds.chains:
            if seq > holding.chains.get(space, 0):
                holding.chains[space] = seq
        if self._waiting:
            self._look(node, holding)

    def on_members_changed(self, is_member: Callable[[NodeId], bool]) -> None:
        """A node that is no member any more does not count, whatever it holds."""
        for node in [node for node in self._holdings if not is_member(node)]:
            del self._holdings[node]
            for waiting in self._waiting:
                waiting.held_by.discard(node)

    async def wait(self, application: str, count: int, timeout_s: float) -> int:
        """Wait until so many other nodes hold all that was written here until now in an application.

        Returns how many do, after `timeout_s` at the latest.
        """
        written = self._newest_of(application)
        held_by = {node for node, holding in self._holdings.items() if holding.has(written)}
        if len(held_by) >= count or self._is_closed or len(self._waiting) >= WAITING_MAX:
            return len(held_by)
        waiting = _Waiting(written, count, held_by, asyncio.get_running_loop().create_future())
        self._waiting[waiting] = None
        try:
            async with asyncio.timeout(timeout_s):
                await waiting.done
        except TimeoutError:
            pass
        finally:
            del self._waiting[waiting]
        return len(waiting.held_by)

    def close(self) -> None:
        """Answer whoever waits, with what is known."""
        self._is_closed = True
        for waiting in self._waiting:
            if not waiting.done.done():
                waiting.done.set_result(None)

    def _look(self, node: NodeId, holding: Holding) -> None:
        for waiting in self._waiting:
            if node not in waiting.held_by and holding.has(waiting.written):
                waiting.held_by.add(node)
                if len(waiting.held_by) >= waiting.count and not waiting.done.done():
                    waiting.done.set_result(None)
