"""A node's side of the network, as the daemon knows it: an address that is taken, and what runs behind it.

Room: the order of opening and closing, and what is told while nothing is open. All the rest is `running`'s, which
is loaded once the API answers, so that peers cost no part of a start.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from node.listening import bind
from node.metrics import Metrics
from node.net.watch import addresses_of_machine
from node.origins import Address
from node.pace import Pace
from node.writer import Writer
from protocol.ids import Author, NetworkId, NodeId, node_of
from protocol.keys import KeyPair
from storage.changes import AnyChange, Written
from storage.feed_entry import FeedEntry
from storage.store import Store

Submit = Callable[[AnyChange], "asyncio.Future[Any]"]

if TYPE_CHECKING:
    from node.net.running import Running
    from protocol.exchange import PeerHolds, RolledBack, Shares

SYNC_TRY_S = 30.0
SYNC_AGAIN_FIRST_S = 0.25  # between looks whether somebody is there
SYNC_AGAIN_MAX_S = 30.0
OPEN_AFTER_S = 0.1  # whoever waits for the API goes first


@dataclass(frozen=True, slots=True)
class NetworkParts:
    """What the network is handed. `on_admitted` hears of a device that was let in here, and what it is called."""

    store: Store
    keys: KeyPair
    writer: Writer
    metrics: Metrics
    log: logging.Logger
    pace: Pace
    directory: Path
    listen: Address
    peers: Sequence[Address]
    mdns: bool
    clock_ms: Callable[[], int]
    steady_ms: Callable[[], int]
    random_bytes: Callable[[int], bytes]
    submit: Submit  # what peers sent: the writer's own, or something in front of it
    on_rolled_back: Callable[["RolledBack"], None]
    on_in_sync: Callable[["Shares"], None] = lambda shares: None  # of what is shared, a peer holds the same
    on_peer_holds: Callable[[Author, "Shares", "PeerHolds"], None] = lambda peer, shares, holds: None
    name_of: Callable[[NodeId], str | None] = lambda node: None
    on_admitted: Callable[[NodeId, str], None] = lambda node, name: None


@dataclass(frozen=True, slots=True)
class Synced:
    """What one `sync` came to. `touched` are documents that peers changed meanwhile: application, model, id."""

    count: int
    touched: tuple[tuple[str, str, str], ...]
    in_sync: bool


class Network:
    """Everything about peers. `bind` it, `start` it on the loop once the API answers, `stop` it once."""

    def __init__(self, parts: NetworkParts) -> None:
        assert parts.store.identity is not None
        self._parts = parts
        self._author = parts.store.identity.author
        with parts.store.read() as snapshot:
            self._position = snapshot.log.last_arrival()
        self._sockets: list[socket.socket] = []
        self.listening = (
            parts.listen
        )  # where peers reach this node; once bound, the port is the one that was taken
        self._running: Running | None = None
        self._opening: asyncio.Task[None] | None = None
        self._is_awaited = asyncio.Event()  # somebody waits for what opens in the background
        self._is_stopped = False
        self._faults = parts.metrics.counter(
            "civicnode_link_faults_total", "Links that ended by somebody's fault, and what was refused", ("reason",)
        )  # fmt: skip
        gauge = parts.metrics.gauge
        gauge("civicnode_links", "Open links to peers", lambda: len(self._talks()))
        gauge(
            "civicnode_link_bytes_total",
            "Bytes of links since the node started, inside TLS",
            lambda: self._running.peers.bytes_of_links() if self._running else {},
            ("direction",),
        )
        gauge(
            "civicnode_peer_lag_arrivals",
            "Commits that have arrived here and that a linked peer has not confirmed",
            partial(self._lags, lambda talk: talk.lag_arrivals),
            ("peer",),
        )
        gauge(
            "civicnode_peer_lag_seconds",
            "For how long a linked peer has been behind",
            partial(self._lags, lambda talk: talk.lag_ms / 1_000),
            ("peer",),
        )
        gauge("civicnode_in_sync", "1 if every linked peer holds the same", lambda: int(self.is_in_sync))

    def _talks(self) -> Sequence[Any]:
        return list(self._running.peers.talks.values()) if self._running is not None else ()

    def _lags(self, read: Callable[[Any], float]) -> dict[tuple[str, ...], float]:
        # By the first characters of the node id: there are never more links than `LINKS_MAX`.
        return {(talk.peer.author.hex()[:8],): read(talk) for talk in self._talks()}

    # -- life ----------------------------------------------------------------------------------------------

    def bind(self) -> None:
        """Take the address for peers. Raises `CannotListen`."""
        self._sockets = bind(self._parts.listen, "--listen")
        self.listening = Address(self._parts.listen.host, self._sockets[0].getsockname()[1])

    @property
    def network_id(self) -> NetworkId:
        """Which network this node is in."""
        assert self._parts.store.identity is not None
        return self._parts.store.identity.network_id

    def addresses(self) -> list[Address]:
        """Where others may reach this node, as far as it knows: IPv4 first. Blocks for a moment."""
        listening = self.listening
        if not listening.is_wildcard:
            return [listening]
        try:
            held = addresses_of_machine()
        except OSError:
            held = ()
        found = [Address(host, listening.port) for host in held if ":" not in host or ":" in listening.host]
        found.sort(key=lambda address: ":" in address.host)
        return found or [Address("127.0.0.1", listening.port)]

    async def linked_and_in_sync(self) -> None:
        """Wait until this node holds the same as every peer that it is linked with, and there is one."""
        again_s = SYNC_AGAIN_FIRST_S
        while True:
            await self.sync(SYNC_TRY_S)
            if self._talks() and self.is_in_sync:
                return
            await asyncio.sleep(again_s)
            again_s = min(2 * again_s, SYNC_AGAIN_MAX_S)

    @property
    def is_told_revoked(self) -> bool:
        """Whether a peer says that this node's key was revoked. It may lie, or this node has yet to hear of it."""
        return self._running is not None and self._running.is_told_revoked

    def start(self) -> None:
        """Open in the background."""
        self._opening = asyncio.get_running_loop().create_task(self._open())

    async def _open(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(OPEN_AFTER_S):
                await self._is_awaited.wait()
        try:
            make_running = await asyncio.to_thread(_load)
            running = await make_running(self._parts, self._sockets, self._faults)
            self._running = running
            await running.open(self.listening)
        except OSError as error:  # a full disk: the node serves its apps all the same
            self._parts.log.warning("this node cannot be linked with peers: %s", error)
        except Exception:
            self._parts.log.exception("this node cannot be linked with peers")

    async def stop(self) -> None:
        """Let nobody in, say goodbye, and end. The writer must still run: cursors are kept on the way."""
        if self._is_stopped:
            return
        self._is_stopped = True
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        if self._running is not None:
            await self._running.stop()
        for sock in self._sockets:
            sock.close()

    # -- what the daemon tells -----------------------------------------------------------------------------

    def on_durable(self, written: Written) -> None:
        """Commits of ours are on the disk: linked peers are told while the index follows. From any thread."""
        running = self._running
        if running is not None and running.peers.talks:
            running.loop.call_soon_threadsafe(self.on_stored, written)

    def on_stored(self, written: Written) -> None:
        """Commits have been stored, ours or others'. May be told twice of the same."""
        self._position = max(self._position, written.arrival)
        if self._running is not None:
            self._running.on_stored(written)

    def on_entries(self, entries: Sequence[FeedEntry]) -> None:
        """Documents have changed."""
        if self._running is not None:
            self._running.on_entries(entries)

    # -- what the API asks ---------------------------------------------------------------------------------

    @property
    def is_in_sync(self) -> bool:
        return self._running.peers.is_in_sync if self._running is not None else not self._parts.peers

    def status(self) -> dict[str, Any]:
        """`GET /v1/sync/status`, and where this node listens."""
        told: dict[str, Any] = {"peers": [], "warnings": []}
        return {
            "in_sync": self.is_in_sync,
            "node_id": node_of(self._author).hex(),
            "position": self._position,
            "listen": str(self.listening),
            **(self._running.report() if self._running is not None else told),
        }

    async def root(self) -> str | None:
        """A hash over all that counts here, in hexadecimal digits; None while peers cannot be spoken to."""
        return await self._running.root() if self._running is not None else None

    async def sync(self, timeout_s: float) -> Synced:
        """Dial now, and wait until this node holds the same as every peer it can reach, or the time is over."""
        if self._opening is not None and not self._opening.done():  # before that, no address is known
            self._is_awaited.set()
            await asyncio.wait([self._opening], timeout=timeout_s)
        if self._running is None:
            return Synced(0, (), self.is_in_sync)
        return await self._running.sync(timeout_s)


def _load() -> Any:
    from node.net.running import make_running

    return make_running
