"""One connection to a peer: bytes, deadlines and back-pressure between a transport and the machines on it.

Room: carries, and decides nothing. First a `Handshake` runs on it; what runs afterwards is a `Speaker` of the
owner's choice, who gets to know who is there. Whatever happens, no exception leaves a callback of the
transport: a peer's fault closes its link, and so does a bug of ours, which is logged.

Bounded both ways. In: a machine holds one incomplete message, whose size the protocol limits by its kind, and
while more windows are under way than the node will hold, links stop reading. Out: a speaker is asked to hold
back what makes more output while the transport is full, and above `OUT_MAX_BYTES` the link stops reading, since
whatever else it says are answers. A peer that takes nothing for `STALLED_AFTER_S` is gone.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Protocol

from node.net.tls import fingerprint_of
from node.origins import Address
from protocol.handshake import Handshake, HandshakeFailed, Peer, Side
from protocol.limits import COMMIT_SIZE_MAX_BYTES

WRITE_HIGH_BYTES = (
    256 << 10
)  # in the transport, above which it is full; four times what a home link holds in flight
# The largest window there is, which is one commit, and as much again for everything else.
OUT_MAX_BYTES = 2 * COMMIT_SIZE_MAX_BYTES
STALLED_AFTER_S = 30.0  # as a session waits for a word
LINGER_S = 2.0  # for the last word to leave
EARLY_MAX_BYTES = 1_024  # heard before the connection is told to be up: more than a handshake's first message


class Machine(Protocol):
    """What `Link` drives: `protocol.session`, and whatever else speaks on links. Times are steady milliseconds."""

    @property
    def deadline_ms(self) -> int | None: ...

    def receive(self, data: bytes, now_ms: int) -> Sequence[Any]: ...

    def receive_eof(self) -> Sequence[Any]: ...

    def on_deadline(self, now_ms: int) -> Sequence[Any]: ...

    def take_bytes(self) -> bytes: ...


class Speaker(Protocol):
    """A machine, and what becomes of its events."""

    @property
    def machine(self) -> Machine: ...

    def begin(self) -> None:
        """The link is its own from now on."""

    def on_event(self, event: Any) -> None:
        """An event of the machine, after its bytes have been handed on."""

    def on_writable(self) -> None:
        """The transport takes more again."""

    def on_end(self) -> None:
        """The link is gone."""


class Owner(Protocol):
    """Who decides about links: `node.net.peers`."""

    def handshake(self, side: Side, fingerprint: bytes) -> Handshake: ...

    def on_peer(self, link: "Link", peer: Peer) -> Speaker | None:
        """Who is there, and who is to speak with it. None: nobody; then the owner has closed the link."""

    def on_gone(self, link: "Link") -> None:
        """Once, when the link is gone. `link.fault` and `link.reason` say why."""

    @property
    def is_overfull(self) -> bool:
        """Whether so much waits to be stored that links should not read."""


class Timer(Protocol):
    def cancel(self) -> None: ...


class Timers(Protocol):
    """The part of an event loop that links need."""

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> Timer: ...


class State(Enum):
    """What a link is doing, in the words of `GET /v1/sync/status`."""

    CONNECTING = "connecting"
    HANDSHAKE = "handshake"
    OPEN = "open"
    CLOSED = "closed"


class Link(asyncio.Protocol):
    """One end of a connection. `number` tells links of one node apart, in logs."""

    def __init__(
        self,
        number: int,
        side: Side,
        address: Address,
        owner: Owner,
        *,
        timers: Timers,
        steady_ms: Callable[[], int],
        log: logging.Logger,
        fingerprint: bytes = b"",
    ) -> None:
        """`fingerprint` is that of our own certificate where we answer; a caller looks at the peer's."""
        self.number = number
        self.side = side
        self.address = address
        self.peer: Peer | None = None
        self.state = State.CONNECTING
        self.since_ms = steady_ms()
        self.bytes_in = self.bytes_out = 0
        self.handshake_bytes = 0  # of both, until it was known who is there
        self.fault: str | None = None  # one of a few words, if the link ended by somebody's fault
        self.reason = ""  # why it ended, for people
        self.is_full = False  # the transport takes no more for now
        self.speaker: Speaker | None = None
        self._owner = owner
        self._timers = timers
        self._steady_ms = steady_ms
        self._log = log
        self._fingerprint = fingerprint
        self._transport: asyncio.Transport | None = None
        self._handshake: Handshake | None = None
        self._early = b""
        self._armed: tuple[int, Timer] | None = None
        self._stall_timer: Timer | None = None
        self._is_reading = True
        self._is_gone = False

    # -- what the transport says ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        if self.state is State.CLOSED:  # before it had begun
            transport.abort()
            return
        self._transport = transport
        transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES)
        try:
            if self.side is Side.CALLER:
                tls = transport.get_extra_info("ssl_object")
                certificate = tls.getpeercert(binary_form=True) if tls is not None else None
                self._fingerprint = fingerprint_of(certificate or b"")
            self.state = State.HANDSHAKE
            self._handshake = self._owner.handshake(self.side, self._fingerprint)
            self._flush()
            early, self._early = self._early, b""
            if early:
                self._hear(early)
        except Exception:
            self._on_bug()

    def data_received(self, data: bytes) -> None:
        self.bytes_in += len(data)
        try:
            if self._handshake is None and self.speaker is None:
                if self.state is State.CONNECTING and len(self._early) + len(data) <= EARLY_MAX_BYTES:
                    self._early += data
                return
            self._hear(data)
        except Exception:
            self._on_bug()

    def eof_received(self) -> bool:
        return False  # the transport closes itself

    def connection_lost(self, exc: BaseException | None) -> None:
        try:
            if self.state is State.OPEN and self.speaker is not None:
                self._step(self.speaker.machine.receive_eof())
            elif self.state is State.HANDSHAKE and self._handshake is not None:
                self._on_handshake(self._handshake.receive_eof())
            self.end("the link is closed" if exc is None else str(exc) or type(exc).__name__)
        except Exception:
            self._on_bug()
        self._transport = None
        self._go()

    def pause_writing(self) -> None:
        self.is_full = True
        self._watch(-1)

    def resume_writing(self) -> None:
        self.is_full = False
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None
        try:
            self._read_or_not()
            if self.speaker is not None and self.state is State.OPEN:
                self.speaker.on_writable()
        except Exception:
            self._on_bug()

    # -- what the owner and the speaker say ----------------------------------------------------------------

    def step(self, events: Sequence[Any]) -> None:
        """After any input to the machine: bytes out, timer armed anew, then events onwards."""
        try:
            self._step(events)
        except Exception:
            self._on_bug()

    def change(self, speaker: Speaker, rest: bytes) -> None:
        """Let another speaker go on. `rest` is what the one before has received and not looked at."""
        self.speaker = speaker
        speaker.begin()
        if rest:
            self._hear(rest)

    def end(self, reason: str, fault: str | None = None) -> None:
        """Close the link once what has been said has left, or after `LINGER_S`. Only the first call counts."""
        if self.state is State.CLOSED:
            return
        self._flush()
        self.state, self.reason, self.fault = State.CLOSED, reason, fault
        if self._armed is not None:
            self._armed[1].cancel()
            self._armed = None
        if self._transport is None:
            self._go()
            return
        self._transport.close()
        self._timers.call_later(LINGER_S, self._abort)

    def cut(self, reason: str, fault: str | None = None) -> None:
        """Close the link at once."""
        self.end(reason, fault)
        self._abort()

    @property
    def local_host(self) -> str | None:
        """The address of this machine that the link uses."""
        name = self._transport.get_extra_info("sockname") if self._transport is not None else None
        return str(name[0]) if name else None

    def refresh(self) -> None:
        """What waits to be stored has become less: read on, if nothing else is against it."""
        self._read_or_not()

    # -- in between ----------------------------------------------------------------------------------------

    def _hear(self, data: bytes) -> None:
        if self.state is State.CLOSED:
            return
        if self.speaker is not None:
            self._step(self.speaker.machine.receive(data, self._steady_ms()))
        elif self._handshake is not None:
            self._on_handshake(self._handshake.receive(data))

    def _on_handshake(self, events: Sequence[Peer | HandshakeFailed]) -> None:
        self._flush()
        for event in events:
            if isinstance(event, HandshakeFailed):
                self.cut(event.reason, event.kind)
                return
            handshake, self._handshake = self._handshake, None
            assert handshake is not None
            self.peer = event
            rest = handshake.rest()
            self.handshake_bytes = self.bytes_in + self.bytes_out - len(rest)
            speaker = self._owner.on_peer(self, event)
            if speaker is None or self.state is State.CLOSED:
                return
            self.speaker, self.state = speaker, State.OPEN
            speaker.begin()
            if rest:
                self._hear(rest)

    def _step(self, events: Sequence[Any]) -> None:
        self._flush()
        for event in events:
            if self.speaker is not None:
                self.speaker.on_event(event)

    @property
    def _machine(self) -> Machine | Handshake | None:
        return self.speaker.machine if self.speaker is not None else self._handshake

    def _flush(self) -> None:
        machine = self._machine
        if machine is None or self.state is State.CLOSED:
            return
        data = machine.take_bytes()
        if data and self._transport is not None:
            self.bytes_out += len(data)
            self._transport.write(data)
        self._read_or_not()
        self._arm(machine.deadline_ms)

    def _read_or_not(self) -> None:
        """Stop reading while the peer does not take our answers, or the node has too much to store."""
        transport = self._transport
        if transport is None or self.state is State.CLOSED:
            return
        waiting = transport.get_write_buffer_size() if self.is_full else 0
        should_read = waiting <= OUT_MAX_BYTES and not (self.speaker is not None and self._owner.is_overfull)
        if should_read is not self._is_reading:
            self._is_reading = should_read
            if should_read:
                transport.resume_reading()
            else:
                transport.pause_reading()

    # -- deadlines -----------------------------------------------------------------------------------------

    def _arm(self, deadline_ms: int | None) -> None:
        """Deadlines move with every message: a timer that would ring too early is left to find that out."""
        if deadline_ms is None or (self._armed is not None and self._armed[0] <= deadline_ms):
            return
        if self._armed is not None:
            self._armed[1].cancel()
        delay_ms = max(0, deadline_ms - self._steady_ms())
        self._armed = deadline_ms, self._timers.call_later(delay_ms / 1_000 + 0.001, self._on_time)

    def _on_time(self) -> None:
        self._armed = None
        machine = self._machine
        if machine is None or self.state is State.CLOSED:
            return
        now_ms = self._steady_ms()
        try:
            if isinstance(machine, Handshake):
                self._on_handshake(machine.on_deadline(now_ms))
                return
            if not self._is_reading:  # whoever does not listen must not complain of silence
                self._step(machine.receive(b"", now_ms))
            deadline_ms = machine.deadline_ms
            self._step(
                machine.on_deadline(now_ms) if deadline_ms is not None and deadline_ms <= now_ms else ()
            )
        except Exception:
            self._on_bug()

    def _watch(self, taken_before: int) -> None:
        """While the transport is full: does the peer take anything at all?"""
        if not self.is_full or self._transport is None:
            return
        taken = self.bytes_out - self._transport.get_write_buffer_size()
        if taken == taken_before:
            self.cut("the peer takes no more", "stalled")
            return
        self._stall_timer = self._timers.call_later(STALLED_AFTER_S, self._watch, taken)

    # -- ends ----------------------------------------------------------------------------------------------

    def _on_bug(self) -> None:
        self._log.exception("link %d failed", self.number)
        try:
            self.cut("an error of this node", "internal")
        except Exception:
            self._log.exception("link %d could not be closed", self.number)

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _go(self) -> None:
        if self._is_gone:
            return
        self._is_gone = True
        if self.speaker is not None:
            self.speaker.on_end()
        self._owner.on_gone(self)
