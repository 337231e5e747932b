"""A node's side of the network while it is open: links, sessions and discovery, put together.

Room: composition of this package. Loaded once the API answers, and only then: what it needs takes a tenth of the
time in which a node starts. The daemon knows `network`, which knows this.
"""

import asyncio
import socket
import ssl
from collections.abc import Sequence
from typing import Any

from node.metrics import Counter
from node.net import door
from node.net.clerk import Clerk
from node.net.contacts import Source
from node.net.discovery import Discovery
from node.net.door import Door
from node.net.known import KnownAddresses
from node.net.mdns import MdnsRadio
from node.net.meetings import MeetingParts, Meetings
from node.net.network import NetworkParts, Synced
from node.net.peers import Peers, Surroundings
from node.net.report import report, warnings
from node.net.talk import SyncTalk
from node.net.tls import answering_context, calling_context
from node.net.watch import Watch, addresses_of_machine
from node.origins import Address
from protocol.exchange import EVERYTHING, Answer, Arrived, Fresh, LoadState, StateLoaded
from protocol.handshake import Local, Peer
from storage.changes import AnyChange, Written
from storage.errors import StorageError
from storage.exchange import cursor_change
from storage.feed_entry import FeedEntry

TOLD_REVOKED = (
    "another device of this network says that the key of this one was revoked: "
    "it can join again with a ticket, or with `civicnode recover` by the recovery code"
)
ROOT_MAX_S = 5.0  # what else is asked of the record meanwhile takes milliseconds
TOUCHED_MAX = 1_000  # documents that one sync names conflicts of


async def make_running(parts: NetworkParts, sockets: Sequence[socket.socket], faults: Counter) -> "Running":
    """Everything that takes time to make, made off the loop. Raises OSError."""
    loop = asyncio.get_running_loop()
    context, fingerprint = await asyncio.to_thread(answering_context, parts.directory, parts.random_bytes)
    return Running(parts, sockets, faults, context, fingerprint, loop)


class Running:
    """`open` it on the loop, `stop` it once."""

    def __init__(
        self,
        parts: NetworkParts,
        sockets: Sequence[socket.socket],
        faults: Counter,
        context: ssl.SSLContext,
        fingerprint: bytes,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        assert parts.store.identity is not None
        self.loop = loop
        self._parts = parts
        self._identity = identity = parts.store.identity
        self._members = parts.store.members
        self._clerk = Clerk(parts.store, parts.submit, parts.log, parts.pace)
        self._known = KnownAddresses(parts.store, self._keep, clock_ms=parts.clock_ms)
        self._touched: list[dict[tuple[str, str, str], None]] = []  # of each sync under way
        self._watch: Watch | None = None
        self._discovery: Discovery | None = None
        self.is_told_revoked = False
        self._meetings = Meetings(
            MeetingParts(
                store=parts.store,
                writer=parts.writer,
                clerk=self._clerk,
                clock_ms=parts.clock_ms,
                steady_ms=parts.steady_ms,
                log=parts.log,
                on_acquainted=lambda link, rest: self.peers.on_acquainted(link, rest),
                on_admitted=parts.on_admitted,
                on_told_revoked=self._on_told_revoked,
            )
        )
        calling = calling_context()
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
            faults=faults,
            strangers=self._meetings.speaker,
        )
        self.peers = Peers(around, fingerprint, 0)
        self._door = Door(
            sockets,
            context,
            self.peers.answering,
            self.peers.keeper,
            lambda reason: faults.add((reason,)),
            parts.log,
        )

    async def open(self, listening: Address) -> None:
        """Let peers in, and call those that are known."""
        parts, peers = self._parts, self.peers
        with parts.store.read() as snapshot:
            peers.position = max(peers.position, snapshot.log.last_arrival())
        self._clerk.start()
        await self._door.open()
        for address in parts.peers:
            peers.contacts.add(address, Source.CONFIGURED)
        for address in self._known.addresses():
            peers.contacts.add(address, Source.LEARNED)
        peers.plan()
        if parts.mdns and not parts.listen.is_loopback:
            self._discovery = Discovery(
                self._identity.network_id,
                listening,
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
        if has_changed:
            self._parts.log.info("the network has changed: calling all known peers")
            self.peers.on_network_changed(addresses)
        if self._discovery is not None:
            await self._discovery.refresh(addresses)

    def _on_told_revoked(self) -> None:
        if not self.is_told_revoked:
            self._parts.log.warning(TOLD_REVOKED)
        self.is_told_revoked = True

    async def stop(self) -> None:
        """Let nobody in, say goodbye, and end. The writer must still run: cursors are kept on the way."""
        if self._watch is not None:
            await self._watch.stop()
        if self._discovery is not None:
            await self._discovery.stop()
        await self._door.close()
        await self.peers.stop()
        await self._clerk.stop()

    # -- what the daemon tells -----------------------------------------------------------------------------

    def on_stored(self, written: Written) -> None:
        """Commits have been stored, ours or others'. May be told twice of the same."""
        if written.arrival > self.peers.position:
            self._tell(written)
        if self._parts.store.members is not self._members:
            self._members = self._parts.store.members
            self.peers.on_members_changed()

    def _tell(self, written: Written) -> None:
        fresh: tuple[Fresh, ...] = ()
        since = -1
        if written.plain:
            fresh = self._clerk.recent.put(written.plain, self._identity.author)
            since = written.plain[0][2] - 1
        else:
            self._clerk.recent.forget()
        self.peers.on_arrived(Arrived(written.arrival, since, fresh))

    def on_entries(self, entries: Sequence[FeedEntry]) -> None:
        """Documents have changed."""
        for touched in self._touched:
            for entry in entries:
                if entry.author != self._identity.author and len(touched) < TOUCHED_MAX:
                    touched[entry.application, entry.model, entry.id] = None

    # -- what the API asks ---------------------------------------------------------------------------------

    def report(self) -> dict[str, Any]:
        """What `GET /v1/sync/status` says of peers."""
        parts = self._parts
        return {
            "peers": report(self.peers, parts.name_of, parts.steady_ms, parts.clock_ms),
            "warnings": self._warnings(),
        }

    def _warnings(self) -> list[dict[str, str]]:
        told = [{"kind": "revoked", "text": TOLD_REVOKED}] if self.is_told_revoked else []
        return told + warnings(self.peers)

    async def root(self) -> str | None:
        """As a peer with whom everything is shared would be told it; None if the record cannot say now."""
        told: asyncio.Future[Answer | Exception] = asyncio.get_running_loop().create_future()

        def reply(answer: Answer | Exception) -> None:
            if not told.done():
                told.set_result(answer)

        own = self._identity
        self._clerk.perform(LoadState(own.author, own.epoch, EVERYTHING), reply, lambda: not told.done())
        try:
            async with asyncio.timeout(ROOT_MAX_S):
                answer = await told
        except TimeoutError:
            return None
        return answer.root.hex() if isinstance(answer, StateLoaded) else None

    async def sync(self, timeout_s: float) -> Synced:
        """Dial now, and wait until every peer it can reach has said anew that both hold the same, or the time is over.

        What a peer has written just before may not be known of here yet, so each is asked.
        """
        peers, began_ms = self.peers, self._parts.steady_ms()
        asked: set[SyncTalk] = set()
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
            for talk in {talk for talk in peers.talks.values() if talk.is_open} - asked:
                asked.add(talk)
                if talk.began_ms < began_ms:
                    talk.compare()
            return dialed and all(
                talk.was_compared_since(began_ms) for talk in peers.talks.values() if talk.is_open
            )

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
        return Synced(count, tuple(touched), peers.is_in_sync)

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
