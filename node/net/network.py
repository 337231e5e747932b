"""A node's side of the network: everything about peers, put together.

Room: composition of this package, for the daemon: listening, dialing, sessions, discovery, and what is told of
them. Nothing here holds up the start of a node: the API answers before the first peer is spoken to.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from node.listening import bind
from node.metrics import Metrics
from node.net import door
from node.net.clerk import Clerk
from node.net.contacts import Source
from node.net.discovery import Discovery
from node.net.door import Door
from node.net.known import KnownAddresses
from node.net.mdns import MdnsRadio
from node.net.peers import Peers, Strangers, Surroundings
from node.net.report import report, warnings
from node.net.tls import answering_context, calling_context
from node.net.watch import Watch, addresses_of_machine
from node.origins import Address
from node.writer import Writer
from protocol.exchange import Arrived, Fresh, PeerHolds, RolledBack, Shares
from protocol.handshake import Local, Peer
from protocol.ids import Author, NodeId, node_of
from protocol.keys import KeyPair
from storage.errors import StorageError
from storage.exchange import cursor_change
from storage.integrator import AnyChange, FeedEntry, Written
from storage.store import Store

TOUCHED_MAX = 1_000  # documents that one sync names conflicts of


@dataclass(frozen=True, slots=True)
class NetworkParts:
    """What the network is handed."""

    store: Store
    keys: KeyPair
    writer: Writer
    metrics: Metrics
    log: logging.Logger
    directory: Path
    listen: Address
    peers: Sequence[Address]
    mdns: bool
    clock_ms: Callable[[], int]
    steady_ms: Callable[[], int]
    random_bytes: Callable[[int], bytes]
    on_rolled_back: Callable[[RolledBack], None]
    on_in_sync: Callable[[Shares], None] = lambda shares: None  # of what is shared, a peer holds the same
    on_peer_holds: Callable[[Author, Shares, PeerHolds], None] = lambda peer, shares, holds: None
    name_of: Callable[[NodeId], str | None] = lambda node: None
    strangers: Strangers | None = None


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
        self._clerk = Clerk(parts.store, parts.writer.submit, parts.log)
        self._known = KnownAddresses(parts.store, self._keep, clock_ms=parts.clock_ms)
        with parts.store.read() as snapshot:
            self._position = snapshot.log.last_arrival()
        self._sockets: list[socket.socket] = []
        self._door: Door | None = None
        self._peers: Peers | None = None
        self._watch: Watch | None = None
        self._discovery: Discovery | None = None
        self._opening: asyncio.Task[None] | None = None
        self._is_stopped = False
        self._touched: list[dict[tuple[str, str, str], None]] = []  # of each sync under way
        self._faults = parts.metrics.counter(
            "civicnode_link_faults_total", "Links that ended by somebody's fault, and what was refused", ("reason",)
        )  # fmt: skip
        gauge = parts.metrics.gauge
        gauge("civicnode_links", "Open links to peers", lambda: len(self._peers.talks) if self._peers else 0)
        gauge(
            "civicnode_link_bytes_total",
            "Bytes of links since the node started, inside TLS",
            lambda: self._peers.bytes_of_links() if self._peers else {},
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

    def _lags(self, read: Callable[[Any], float]) -> dict[tuple[str, ...], float]:
        # By the first characters of the node id: there are never more links than `LINKS_MAX`.
        talks = self._peers.talks.values() if self._peers else ()
        return {(talk.peer.author.hex()[:8],): read(talk) for talk in talks}

    # -- life ----------------------------------------------------------------------------------------------

    def bind(self) -> None:
        """Take the address for peers. Raises `CannotListen`."""
        self._sockets = bind(self._parts.listen, "--listen")

    @property
    def listening(self) -> Address:
        """Where peers reach this node: the port is the one that was taken."""
        return Address(self._parts.listen.host, self._sockets[0].getsockname()[1])

    def start(self) -> None:
        """Open in the background."""
        self._clerk.start()
        self._opening = asyncio.get_running_loop().create_task(self._open())

    async def _open(self) -> None:
        parts = self._parts
        try:
            context, fingerprint = await asyncio.to_thread(
                answering_context, parts.directory, parts.random_bytes
            )
        except OSError as error:  # a full disk: the node serves its apps all the same
            parts.log.warning("this node cannot be linked with peers: %s", error)
            return
        calling = calling_context()
        loop = asyncio.get_running_loop()
        identity = parts.store.identity
        assert identity is not None
        local = Local(parts.keys, identity.author, identity.epoch, identity.network_id)
        around = Surroundings(
            local=lambda: local,
            members=lambda: parts.store.members,
            desk=self._clerk,
            queued_bytes=lambda: self._clerk.queued_bytes,
            connect=lambda link, address: door.call(link, address, calling),
            keep_cursor=self._keep_cursor,
            remember=self._known.remember,
            on_rolled_back=parts.on_rolled_back,
            on_in_sync=parts.on_in_sync,
            on_peer_holds=parts.on_peer_holds,
            clock_ms=parts.clock_ms,
            steady_ms=parts.steady_ms,
            random_bytes=parts.random_bytes,
            chance=lambda: int.from_bytes(parts.random_bytes(4), "big") / (1 << 32),
            timers=loop,
            log=parts.log,
            faults=self._faults,
            strangers=parts.strangers,
        )
        peers = Peers(around, fingerprint, self._position)
        self._door = Door(self._sockets, context, peers.answering, peers.keeper, self._refused, parts.log)
        await self._door.open()
        self._peers = peers
        for address in parts.peers:
            peers.contacts.add(address, Source.CONFIGURED)
        for address in self._known.addresses():
            peers.contacts.add(address, Source.LEARNED)
        peers.plan()
        if parts.mdns and not parts.listen.is_loopback:
            self._discovery = Discovery(
                identity.network_id,
                self.listening,
                lambda on_heard, on_lost: MdnsRadio(on_heard, on_lost, parts.log),
                on_found=lambda address: peers.found(address, Source.NEARBY),
                on_lost=peers.contacts.forget_nearby,
                clock_ms=parts.clock_ms,
                random_bytes=parts.random_bytes,
                log=parts.log,
            )
        self._watch = Watch(addresses_of_machine, self._on_look, clock_ms=parts.clock_ms, log=parts.log)
        self._watch.start()

    async def _on_look(self, addresses: tuple[str, ...], has_changed: bool) -> None:
        if has_changed and self._peers is not None:
            self._parts.log.info("the network has changed: calling all known peers")
            self._peers.on_network_changed(addresses)
        if self._discovery is not None:
            await self._discovery.refresh(addresses)

    def _refused(self, reason: str) -> None:
        self._faults.add((reason,))

    async def stop(self) -> None:
        """Let nobody in, say goodbye, and end. The writer must still run: cursors are kept on the way."""
        if self._is_stopped:
            return
        self._is_stopped = True
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        if self._watch is not None:
            await self._watch.stop()
        if self._discovery is not None:
            await self._discovery.stop()
        if self._door is not None:
            await self._door.close()
        else:
            for sock in self._sockets:
                sock.close()
        if self._peers is not None:
            await self._peers.stop()
        await self._clerk.stop()

    # -- what the daemon tells -----------------------------------------------------------------------------

    def on_stored(self, written: Written) -> None:
        """Commits have been stored, ours or others'."""
        fresh: tuple[Fresh, ...] = ()
        since = -1
        if written.own:
            fresh, since = self._clerk.recent.put(written.own), written.own[0][2] - 1
        else:
            self._clerk.recent.forget()
        self._position = max(self._position, written.arrival)
        if self._peers is not None:
            self._peers.on_arrived(Arrived(written.arrival, since, fresh))

    def on_entries(self, entries: Sequence[FeedEntry]) -> None:
        """Documents have changed."""
        for touched in self._touched:
            for entry in entries:
                if entry.author != self._author and len(touched) < TOUCHED_MAX:
                    touched[entry.application, entry.model, entry.id] = None

    def on_members_changed(self) -> None:
        """Somebody has another role than before. Call on the loop."""
        if self._peers is not None:
            self._peers.on_members_changed()

    # -- what the API asks ---------------------------------------------------------------------------------

    @property
    def is_in_sync(self) -> bool:
        return self._peers.is_in_sync if self._peers is not None else not self._parts.peers

    def status(self) -> dict[str, Any]:
        """`GET /v1/sync/status`."""
        peers = self._peers
        return {
            "in_sync": self.is_in_sync,
            "node_id": node_of(self._author).hex(),
            "position": self._position,
            "listen": str(self.listening),
            "peers": report(peers, self._parts.name_of, self._parts.steady_ms, self._parts.clock_ms)
            if peers is not None
            else [],
            "warnings": warnings(peers) if peers is not None else [],
        }

    async def sync(self, timeout_s: float) -> Synced:
        """Dial now, and wait until this node holds the same as every peer it can reach, or the time is over."""
        peers = self._peers
        if peers is None and self._opening is not None:
            await asyncio.wait([self._opening], timeout=timeout_s)
            peers = self._peers
        if peers is None:
            return Synced(0, (), False)
        touched: dict[tuple[str, str, str], None] = {}
        self._touched.append(touched)
        received = peers.received_bodies
        sent = {link: talk.session.sent_bodies for link, talk in peers.talks.items()}
        changed = asyncio.Event()
        stop_listening = peers.listen(changed.set)
        tried = {contact: contact.tried for contact in peers.contacts}
        peers.wake()

        def is_done() -> bool:
            dialed = all(
                contact.tried > before or (contact.author is not None and peers.is_linked(contact.author))
                for contact, before in tried.items()
            )
            return dialed and all(talk.is_in_sync for talk in peers.talks.values() if talk.is_open)

        try:
            async with asyncio.timeout(timeout_s):
                while not is_done():
                    changed.clear()
                    await changed.wait()
        except TimeoutError:
            pass
        finally:
            stop_listening()
            self._touched.remove(touched)
        delivered = [talk.session.sent_bodies - sent.get(link, 0) for link, talk in peers.talks.items()]
        count = peers.received_bodies - received + max(delivered, default=0)
        return Synced(count, tuple(touched), self.is_in_sync)

    # -- what is kept --------------------------------------------------------------------------------------

    def _keep_cursor(self, peer: Peer, position: int) -> None:
        self._keep(cursor_change(peer.author, peer.epoch, position))

    def _keep(self, change: AnyChange) -> None:
        """Have something stored that nobody waits for."""
        try:
            written = self._parts.writer.submit(change)
        except StorageError as error:
            self._parts.log.warning("not kept: %s", error)
            return
        written.add_done_callback(self._kept)

    def _kept(self, done: "asyncio.Future[Any]") -> None:
        if not done.cancelled() and (error := done.exception()) is not None:
            self._parts.log.warning("not kept: %s", error)
