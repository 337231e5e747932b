"""Calling a node of a network that this one is not of: to join it, or to get to know it.

Room: addresses tried one after the other, a link to the first that answers, and the joiner's machine on it. The
links of the node's own network are `peers`'. What the outcome is used for is `node.services.joining`'s.
"""

import asyncio
import logging
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from node.net import door
from node.net.link import Link, Speaker, State
from node.net.tls import calling_context
from node.origins import Address
from node.services.joining import CallFailed, Met
from protocol.exchange import PeerMisbehaved
from protocol.handshake import Handshake, Local, Peer, Side
from protocol.ids import INCARNATION_BYTES, NetworkId, author_of
from protocol.joining import Joiner
from protocol.keys import KeyPair
from protocol.meeting import Joined, Learned, MeetingEvent, NotMet, ReadShown, Reason
from protocol.messages import NONCE_BYTES
from protocol.tickets import Ticket

CONNECT_TIMEOUT_S = 4.0  # of each address: there may be eight, and somebody is waiting


@dataclass(frozen=True, slots=True)
class CallParts:
    """Where time, randomness and words go."""

    clock_ms: Callable[[], int]
    steady_ms: Callable[[], int]
    random_bytes: Callable[[int], bytes]
    log: logging.Logger


async def call_network(
    addresses: Sequence[Address],
    network_id: NetworkId,
    keys: KeyPair,
    ticket: Ticket | None,
    name: str,
    parts: CallParts,
) -> Met:
    """Ask the nodes at these addresses to be let in, or without a ticket to be shown the network.

    Raises `CallFailed` when none does, with what the last of them said that matters.
    """
    failures: list[str] = []
    reason: Reason | None = None
    for address in addresses:
        call = _Call(address, network_id, keys, ticket, name, parts)
        try:
            return await call.outcome()
        except CallFailed as failure:
            failures.append(f"{address}: {failure}")
            if failure.reason is not None:
                reason = failure.reason
                if not reason.may_help_elsewhere:
                    raise CallFailed(str(failure), reason) from None
    if not failures:
        raise CallFailed("the ticket names no address: make one on a node that others can reach")
    raise CallFailed("; ".join(failures), reason)


class _Call:
    """One link to one address; its owner."""

    is_overfull = False

    def __init__(
        self,
        address: Address,
        network_id: NetworkId,
        keys: KeyPair,
        ticket: Ticket | None,
        name: str,
        parts: CallParts,
    ) -> None:
        self._address = address
        self._network_id = network_id
        self._keys = keys
        self._ticket = ticket
        self._name = name
        self._parts = parts
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[Met] = self._loop.create_future()

    async def outcome(self) -> Met:
        link = Link(
            0,
            Side.CALLER,
            self._address,
            self,
            timers=self._loop,
            steady_ms=self._parts.steady_ms,
            log=self._parts.log,
        )
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await door.call(link, self._address, calling_context())
        except TimeoutError:
            raise CallFailed("no answer") from None
        except ssl.SSLError:
            raise CallFailed("what listens there is no civicnode") from None
        except OSError as error:
            raise CallFailed(error.strerror or str(error) or type(error).__name__) from None
        try:
            return await self._done
        finally:
            if link.state is not State.CLOSED:
                link.end("that is all")

    # -- link.Owner

    def handshake(self, side: Side, fingerprint: bytes) -> Handshake:
        random_bytes = self._parts.random_bytes
        author = author_of(self._keys.public, random_bytes(INCARNATION_BYTES))
        return Handshake(
            side,
            Local(self._keys, author, "", self._network_id),
            nonce=random_bytes(NONCE_BYTES),
            fingerprint=fingerprint,
            clock_ms=max(0, min(self._parts.clock_ms(), (1 << 48) - 1)),
            now_ms=self._parts.steady_ms(),
        )

    def on_peer(self, link: Link, peer: Peer) -> Speaker | None:
        if peer.node == self._keys.public:
            self.fail("this is the node itself")
            link.cut("this node itself")
            return None
        machine = Joiner(
            ticket=self._ticket,
            network_id=self._network_id,
            keys=self._keys,
            peer=peer.node,
            name=self._name,
            salt=self._parts.random_bytes(16),
            now_ms=self._parts.steady_ms(),
        )
        return _JoinTalk(self, link, peer, machine, self._parts)

    def on_gone(self, link: Link) -> None:
        self.fail(_said_of(link))

    def succeed(self, peer: Peer, outcome: Joined | Learned) -> None:
        if not self._done.done():
            self._done.set_result(Met(str(self._address), peer.node, outcome))

    def fail(self, text: str, reason: Reason | None = None) -> None:
        if not self._done.done():
            self._done.set_exception(CallFailed(text, reason))


def _said_of(link: Link) -> str:
    if link.peer is None:
        return "no node of this network answers there"
    return link.reason or "the link has ended"


class _JoinTalk(Speaker):
    """The joiner's machine on its link."""

    def __init__(self, call: _Call, link: Link, peer: Peer, machine: Joiner, parts: CallParts) -> None:
        self._call = call
        self._link = link
        self._peer = peer
        self._machine = machine
        self._parts = parts
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def machine(self) -> Joiner:
        return self._machine

    def begin(self) -> None:
        self._link.step(self._machine.begin(self._parts.steady_ms()))

    def on_event(self, event: MeetingEvent) -> None:
        match event:
            case ReadShown():
                task = asyncio.get_running_loop().create_task(self._read(event))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            case Joined() | Learned():
                self._call.succeed(self._peer, event)
                self._link.end("that is all")
            case NotMet(reason, text):
                self._call.fail(text, reason)
                self._link.end(text)
            case PeerMisbehaved(text):
                self._call.fail(f"the node there breaks the rules: {text}")
                self._link.end(text, event.kind)

    async def _read(self, effect: ReadShown) -> None:
        answer = await asyncio.to_thread(effect.perform)
        if self._link.state is State.OPEN and not self._machine.is_closed:
            self._link.step(self._machine.send(answer, self._parts.steady_ms()))

    def on_writable(self) -> None:
        pass

    def on_end(self) -> None:
        for task in self._tasks:
            task.cancel()
