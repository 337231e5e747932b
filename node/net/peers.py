"""Which links there are, and which there should be.

Room: decides about connections: whom to dial and when, whom to let talk and over what, which of two links to keep.
Carries out nothing itself: sockets are `door`'s, addresses `contacts`', conversations `talk`'s. Everything here
runs on the loop.

Two nodes may call each other at the same moment. Then one of the two links goes, and so that both keep the same,
only one of them decides: the node with the smaller author keeps the newest link and ends the older ones; the
other keeps both until it does.

A node without a role here gets no session. Where joining is possible it is handed to `strangers`; otherwise its
link ends, and it has learned who this node is, which the handshake tells to whoever knows the network.
"""

import asyncio
import logging
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from node.metrics import Counter
from node.net.contacts import Contact, Contacts, Source
from node.net.limits import LINKS_MAX, Doorkeeper
from node.net.link import Link, Speaker, State, Timer, Timers
from node.net.talk import Desk, SyncTalk
from node.origins import Address
from protocol.exchange import (
    Arrived,
    ChainRefused,
    Diverged,
    ForkFound,
    InSync,
    News,
    PeerHolds,
    RolledBack,
    Shares,
    Unacquainted,
    WindowStored,
    shares_of,
)
from protocol.handshake import Handshake, Local, Peer, Side
from protocol.ids import NODE_ID_BYTES, SYSTEM_SPACE_NAME, Author, NodeId, node_of
from protocol.joining import Opening
from protocol.membership import Members
from protocol.messages import NONCE_BYTES
from protocol.session import SyncSession

DIALING_MAX = 8  # at a time
STRANGERS_MAX = 8  # that are being handled by `strangers` at a time
QUEUED_MAX_BYTES = 64 << 20  # of windows that wait to be stored; above it links stop reading
BRIEF_MS = 5_000  # a link that ended sooner is no reason to call again at once
GOODBYE_S = 1.0  # for peers to hear that the node stops
NOTES_MAX = 32  # what went wrong, remembered for `GET /v1/sync/status`

MEETINGS_MAX = 4  # on one link: two nodes that know nothing of each other need two on each side
ONLY_SYSTEM = Shares(frozenset({SYSTEM_SPACE_NAME}))
# Makes what speaks with a node that there can be no session with yet, or says no.
Strangers = Callable[[Link, Peer, Opening], Speaker | None]


@dataclass(frozen=True, slots=True)
class Note:
    """Something that a person may want to know."""

    at_ms: int  # wall clock
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the manager of links is handed."""

    local: Callable[[], Local]
    members: Callable[[], Members]  # as known now
    desk: Desk
    queued_bytes: Callable[[], int]
    connect: Callable[[Link, Address], Awaitable[None]]
    keep_cursor: Callable[[Peer, int], None]
    remember: Callable[[Address, NodeId], None]  # a peer was reached there
    on_rolled_back: Callable[[RolledBack], None]
    clock_ms: Callable[[], int]
    steady_ms: Callable[[], int]
    random_bytes: Callable[[int], bytes]
    chance: Callable[[], float]
    timers: Timers
    log: logging.Logger
    faults: Counter  # by one word
    strangers: Strangers | None = None
    on_in_sync: Callable[[Shares], None] = lambda shares: None  # of what is shared, both hold the same
    on_peer_holds: Callable[[Author, Shares, PeerHolds], None] = lambda peer, shares, holds: None


class Peers:
    """The links of one node."""

    def __init__(self, around: Surroundings, fingerprint: bytes, position: int) -> None:
        """`fingerprint` is that of our certificate; `position` our newest arrival."""
        self._around = around
        self._fingerprint = fingerprint
        self.position = position
        self.contacts = Contacts(steady_ms=around.steady_ms, chance=around.chance)
        self.keeper = Doorkeeper(steady_ms=around.steady_ms)
        self.links: dict[Link, Contact | None] = {}  # oldest first; with the contact that was dialed
        self.talks: dict[Link, SyncTalk] = {}
        self.clock_ahead_ms: dict[Link, int] = {}  # the peer's clock against ours
        self.notes: deque[Note] = deque(maxlen=NOTES_MAX)
        self.received_bodies = 0
        self.closed_bytes = [0, 0]  # in and out, of links that are gone
        self._strangers: set[Link] = set()
        self._meetings: dict[Link, int] = {}  # conversations about membership so far
        self._shares: dict[Link, Shares] = {}
        self._numbers = 0
        self._dialing: dict[Contact, asyncio.Task[None]] = {}
        self._timer: Timer | None = None
        self._listeners: set[Callable[[], None]] = set()
        self._is_stopping = False
        self._emptied: asyncio.Event | None = None

    # -- life ----------------------------------------------------------------------------------------------

    async def stop(self) -> None:
        """Say goodbye on every link, then cut those that do not go."""
        self._is_stopping = True
        if self._timer is not None:
            self._timer.cancel()
        for task in list(self._dialing.values()):
            task.cancel()
        await asyncio.gather(*self._dialing.values(), return_exceptions=True)
        self._emptied = asyncio.Event()
        for link in list(self.links):
            talk = self.talks.get(link)
            if talk is not None:
                talk.close("the node is stopping")
            link.end("the node is stopping")
        if self.links:
            try:
                async with asyncio.timeout(GOODBYE_S):
                    await self._emptied.wait()
            except TimeoutError:
                for link in list(self.links):
                    link.cut("the node is stopping")

    # -- what others tell ----------------------------------------------------------------------------------

    def on_arrived(self, arrived: Arrived) -> None:
        """Our order of arrival has grown."""
        self.position = max(self.position, arrived.position)
        for talk in list(self.talks.values()):
            talk.arrived(arrived)
        self._changed()

    def on_members_changed(self) -> None:
        """Somebody has another role than before: links end or begin anew where that matters."""
        for link, talk in list(self.talks.items()):
            shares = self._shares_with(talk.peer.node)
            if shares is None:
                self._note("no_role", f"{_short(talk.peer.author)} has no role in this network any more")
                self._around.faults.add(("no_role",))
                talk.close("no role in this network")
            elif shares != self._shares[link]:
                talk.close("rights have changed")
        self.wake()

    def on_network_changed(self, addresses: Sequence[str]) -> None:
        """The machine has these addresses now: links from others are dead, and every known peer may be near."""
        for link in list(self.links):
            host = link.local_host
            if host is not None and host not in addresses and not Address(host, 0).is_loopback:
                link.cut("this machine has another address now")
        self.wake()

    def wake(self) -> None:
        """Dial whatever is known and not linked, now."""
        self.contacts.wake()
        self.plan()

    def found(self, address: Address, source: Source) -> None:
        """A peer may be at this address."""
        self.contacts.add(address, source)
        self.plan()

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` whenever anything about links may have changed. Returns how to end it."""
        self._listeners.add(listener)
        return lambda: self._listeners.discard(listener)

    def _changed(self) -> None:
        for listener in list(self._listeners):
            listener()

    # -- dialing -------------------------------------------------------------------------------------------

    def plan(self) -> None:
        """Dial what is due, and come back when something else will be."""
        if self._is_stopping:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for contact in self.contacts.due(self.is_linked):
            if len(self._dialing) >= DIALING_MAX or len(self.links) >= LINKS_MAX:
                break
            self.contacts.on_dialing(contact)
            self._dialing[contact] = asyncio.get_running_loop().create_task(self._dial(contact))
        due_ms = self.contacts.next_due_ms(self.is_linked)
        if due_ms is not None:
            delay_ms = max(1, due_ms - self._around.steady_ms())
            if len(self._dialing) >= DIALING_MAX or len(self.links) >= LINKS_MAX:
                delay_ms = max(delay_ms, 1_000)
            self._timer = self._around.timers.call_later(delay_ms / 1_000, self.plan)

    async def _dial(self, contact: Contact) -> None:
        link = self._make(Side.CALLER, contact.address, contact)
        reason = "no answer"
        try:
            await self._around.connect(link, contact.address)
            return
        except TimeoutError:
            pass
        except ssl.SSLError:
            reason = "what listens there speaks no TLS 1.3"
        except OSError as error:
            reason = error.strerror or str(error) or type(error).__name__
        except asyncio.CancelledError:
            reason = "the node is stopping"
            raise
        finally:
            self._dialing.pop(contact, None)
            if link.state is State.CONNECTING:
                link.end(reason)
            self.plan()

    def answering(self, address: Address) -> Link:
        """The link of somebody who has connected."""
        return self._make(Side.ANSWERER, address, None)

    def _make(self, side: Side, address: Address, contact: Contact | None) -> Link:
        self._numbers += 1
        around = self._around
        link = Link(
            self._numbers, side, address, self, timers=around.timers, steady_ms=around.steady_ms, log=around.log,
            fingerprint=self._fingerprint,
        )  # fmt: skip
        self.links[link] = contact
        return link

    def is_linked(self, author: Author) -> bool:
        """Whether there is a link to this node in this life."""
        return any(talk.peer.author == author and talk.is_open for talk in self.talks.values())

    # -- what links say (link.Owner) -----------------------------------------------------------------------

    def handshake(self, side: Side, fingerprint: bytes) -> Handshake:
        around = self._around
        return Handshake(
            side,
            around.local(),
            nonce=around.random_bytes(NONCE_BYTES),
            fingerprint=fingerprint,
            clock_ms=max(0, min(around.clock_ms(), (1 << 48) - 1)),
            now_ms=around.steady_ms(),
        )

    @property
    def is_overfull(self) -> bool:
        return self._around.queued_bytes() > QUEUED_MAX_BYTES

    def on_peer(self, link: Link, peer: Peer) -> Speaker | None:
        contact = self.links.get(link)
        ours = self._around.local().author
        if peer.author == ours:
            if contact is not None:
                self.contacts.on_reached(contact, ours, is_own=True)
            link.cut("this node itself")
            return None
        if contact is not None:
            self.contacts.on_reached(contact, peer.author)
        shares = self._shares_with(peer.node)
        if shares is None:
            is_caller = link.side is Side.CALLER
            return self._meet_stranger(link, peer, Opening.ASKS if is_caller else Opening.WAITS)
        self._strangers.discard(link)
        if len(self.talks) >= LINKS_MAX:
            link.cut("too many links", "crowded")
            return None
        self.keeper.let_in(link)
        self.clock_ahead_ms[link] = peer.clock_ms - self._around.clock_ms()
        local = self._around.local()
        session = SyncSession(
            is_caller=link.side is Side.CALLER,
            network_id=local.network_id,
            author=ours,
            peer=peer.author,
            peer_epoch=peer.epoch,
            now_ms=self._around.steady_ms(),
            shares=shares,
        )
        talk = SyncTalk(
            link,
            session,
            peer,
            desk=self._around.desk,
            listener=self,
            steady_ms=self._around.steady_ms,
            position=self.position,
        )
        self._end_older(peer.author)
        self.talks[link] = talk
        self._shares[link] = shares
        if contact is not None:
            self._around.remember(contact.address, peer.node)
        self._around.log.info("linked with %s at %s", _short(peer.author), link.address)
        self._changed()
        return talk

    def _shares_with(self, node: NodeId) -> Shares | None:
        """What may cross a link with a node; None if it has no role.

        If this one has none, all that it may learn is that it has one again: it is suspended, or was revoked.
        """
        local = self._around.local()
        members = self._around.members()
        ours, theirs = members.rights_of(node_of(local.author)), members.rights_of(node)
        if theirs is None:
            return None
        return ONLY_SYSTEM if ours is None else shares_of(ours, theirs, local.network_id)

    def _meet_stranger(self, link: Link, peer: Peer, opening: Opening) -> Speaker | None:
        speaker = None
        self._meetings[link] = self._meetings.get(link, 0) + 1
        is_let = len(self._strangers - {link}) < STRANGERS_MAX and self._meetings[link] <= MEETINGS_MAX
        if self._around.strangers is not None and is_let:
            speaker = self._around.strangers(link, peer, opening)
        if speaker is None:
            self._note("no_role", f"{_short(peer.author)} at {link.address} has no role in this network")
            link.cut("no role in this network", "no_role")
        else:
            self._strangers.add(link)
        return speaker

    def on_acquainted(self, link: Link, rest: bytes) -> None:
        """Both sides of a link know the other as a member now. `rest` is what was heard since."""
        assert link.peer is not None
        self._go_on(link, self.on_peer(link, link.peer), rest)

    def _show_ourselves(self, talk: SyncTalk) -> None:
        """The peer does not know this node, though this one knows it."""
        link = talk.link
        self.talks.pop(link, None)
        self._shares.pop(link, None)
        self._go_on(link, self._meet_stranger(link, talk.peer, Opening.ASKED), talk.session.rest())

    def _go_on(self, link: Link, speaker: Speaker | None, rest: bytes) -> None:
        if speaker is not None and link.state is State.OPEN:
            link.change(speaker, rest)

    def _end_older(self, author: Author) -> None:
        """A new link to this author comes up: see the head of this module."""
        older = [talk for talk in self.talks.values() if talk.peer.author == author and talk.is_open]
        if self._around.local().author < author:
            for talk in older:
                talk.close("another link has taken its place")
        elif len(older) > 1:  # whoever should decide does not
            older[0].close("too many links with one node")

    def on_gone(self, link: Link) -> None:
        contact = self.links.pop(link, None)
        talk = self.talks.pop(link, None)
        self.keeper.leave(link)
        self._strangers.discard(link)
        self._meetings.pop(link, None)
        self._shares.pop(link, None)
        self.clock_ahead_ms.pop(link, None)
        self.closed_bytes[0] += link.bytes_in
        self.closed_bytes[1] += link.bytes_out
        if link.fault is not None:
            self._around.faults.add((link.fault,))
        if talk is None:
            if contact is not None and not contact.is_own:
                self.contacts.on_failed(contact, link.reason)
            if link.fault is not None:
                self._around.log.info("no link with %s: %s", link.address, link.reason)
        else:
            self._lost(link, contact, talk)
        if not self.links and self._emptied is not None:
            self._emptied.set()
        self._changed()
        self.plan()

    def _lost(self, link: Link, contact: Contact | None, talk: SyncTalk) -> None:
        self._around.log.info("link with %s has ended: %s", _short(talk.peer.author), link.reason)
        if link.fault is not None:
            self._note(link.fault, f"{_short(talk.peer.author)} at {link.address}: {link.reason}")
        was_brief = self._around.steady_ms() - link.since_ms < BRIEF_MS
        if (link.fault is not None or was_brief) and contact is not None:
            self.contacts.on_failed(contact, link.reason)
        if link.fault is None:
            self.contacts.on_link_lost(talk.peer.author, except_for=contact if was_brief else None)

    # -- what talks tell (talk.Listener) -------------------------------------------------------------------

    def on_news(self, talk: SyncTalk, news: News) -> None:
        match news:
            case WindowStored(bodies=bodies):
                self.received_bodies += bodies
                self._read_on()
            case ForkFound(_, author, seq):
                self._note("fork", f"{_short(author)} has signed two commits with seq {seq}")
                self._around.faults.add(("fork",))
            case ChainRefused(_, author, seq, rule):
                self._note("refused", f"commit {seq} of {_short(author)} is refused: {rule}")
                self._around.faults.add(("refused",))
            case Diverged():
                self._note("diverged", f"{_short(talk.peer.author)} holds other commits than this node")
                self._around.faults.add(("diverged",))
            case RolledBack():
                self._note(
                    "rolled_back", f"{_short(talk.peer.author)} holds commits of ours that are not here"
                )
                self._around.faults.add(("rolled_back",))
                self._around.on_rolled_back(news)
            case PeerHolds():
                self._around.on_peer_holds(talk.peer.author, self._shares[talk.link], news)
            case InSync():
                self._around.on_in_sync(self._shares[talk.link])
                self._read_on()
            case Unacquainted():
                self._show_ourselves(talk)
        self._changed()

    def keep_cursor(self, peer: Peer, position: int) -> None:
        self._around.keep_cursor(peer, position)

    def _read_on(self) -> None:
        for link in list(self.talks):
            link.refresh()

    def _note(self, kind: str, text: str) -> None:
        self.notes.append(Note(self._around.clock_ms(), kind, text))
        self._around.log.warning("%s", text, extra={"data": {"kind": kind}})

    # -- a look inside -------------------------------------------------------------------------------------

    @property
    def is_in_sync(self) -> bool:
        """Whether every linked peer holds what this node does. With peers known and none linked: no."""
        talks = [talk for talk in self.talks.values() if not talk.session.is_closed]
        if talks:
            return all(talk.is_in_sync for talk in talks)
        return not any(not contact.is_own for contact in self.contacts)

    def bytes_of_links(self) -> dict[tuple[str, ...], float]:
        """All bytes since the start, by direction."""
        return {
            ("in",): self.closed_bytes[0] + sum(link.bytes_in for link in self.links),
            ("out",): self.closed_bytes[1] + sum(link.bytes_out for link in self.links),
        }


def _short(author: Author) -> str:
    """Enough of an author for logs: the node, and which of its lives."""
    return f"{author[:NODE_ID_BYTES].hex()[:8]}.{author[NODE_ID_BYTES:].hex()[:4]}"
