"""Links of a simulated network: two ordered streams of bytes each, that are slow, spoilt and cut.

Room: what lies between nodes, and the driver at each end of it. A frame may come
twice, late or never, which no TCP stream does: a session must notice, end the link
and lose nothing. Which links there are, and when they fail, is for scenarios.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from protocol.errors import ProtocolError
from protocol.exchange import (
    Begin,
    Close,
    Effect,
    Ended,
    Event,
    InSync,
    IntegrateWindow,
    PeerMisbehaved,
    RolledBack,
    WindowIntegrated,
)
from protocol.frames import HEADER_BYTES
from protocol.handshake import Handshake, HandshakeFailed, Local, Peer, Side
from protocol.session import SyncSession
from protocol.window import Run
from storage.exchange import Steps, unpacked

# A window that is about to be taken in, and its runs.
Coming = tuple[IntegrateWindow, list[Run] | ProtocolError]

if TYPE_CHECKING:
    from simulations.harness import Node, World


@dataclass(frozen=True, slots=True)
class FrameFaults:
    """What happens to frames on their way: shares of them, from 0 to 1."""

    twice: float = 0
    late: float = 0  # behind some that were sent after it
    lost: float = 0


@dataclass(slots=True)
class Traffic:
    """What went over a link in one direction, framing included."""

    handshake_bytes: int = 0
    session_bytes: int = 0
    messages: int = 0


@dataclass
class Link:
    """Where one node calls another. Connections come and go; `is_kept` calls again after a cut."""

    world: "World"
    number: int
    caller: "Node"
    answerer: "Node"
    latency_ms: tuple[int, int] = (5, 20)
    chunk_bytes: tuple[int, int] | None = None  # bytes arrive in pieces of these sizes; None: as sent
    effect_ms: tuple[int, int] = (0, 3)
    redial_ms: tuple[int, int] = (50, 500)
    is_kept: bool = True
    cut_after_messages: int | None = None  # on the first connection, of both directions
    window_target_bytes: int = 1 << 20
    frame_faults: FrameFaults | None = None
    connection: "Connection | None" = None
    connections: int = 0
    traffic: dict[Side, Traffic] = field(default_factory=lambda: {side: Traffic() for side in Side})

    def open(self) -> None:
        """Call now, if both nodes are up and no connection stands."""
        if self.connection is not None or not (self.caller.is_up and self.answerer.is_up):
            self.call_later()
            return
        self.connections += 1
        self.world.note("open", self.number, self.connections)
        self.connection = Connection(self)
        self.connection.begin()

    def call_later(self) -> None:
        if self.is_kept and self.connection is None:
            delay = self.world.chance("redial", self.number, self.connections, self.world.now_ms)
            self.world.after(delay.randint(*self.redial_ms), self._call_again)

    def _call_again(self) -> None:
        if self.is_kept and self.connection is None:
            self.open()

    def cut(self) -> None:
        if self.connection is not None:
            self.connection.cut()

    @property
    def session_bytes(self) -> int:
        return sum(traffic.session_bytes for traffic in self.traffic.values())


class Connection:
    """One connection: two ordered streams of bytes, until it is cut. What was under way is then lost."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.world = link.world
        self.is_open = True
        self.messages = 0
        self.random = self.world.chance("connection", link.number, link.connections)
        self._arrival_ms = dict.fromkeys(Side, 0)
        fingerprint = self.random.randbytes(32)
        self.ends = {
            Side.CALLER: Endpoint(self, Side.CALLER, link.caller, fingerprint),
            Side.ANSWERER: Endpoint(self, Side.ANSWERER, link.answerer, fingerprint),
        }

    def begin(self) -> None:
        for end in self.ends.values():
            end.node.endpoints.append(end)
            end.flush()

    def transmit(self, sender: Side, data: bytes) -> None:
        """Bytes on their way to the other side, in order."""
        end = self.ends[Side.ANSWERER if sender is Side.CALLER else Side.CALLER]
        limit = self.link.cut_after_messages
        for frame in _frames(data):
            self.messages += 1
            self.link.traffic[sender].messages += 1
            for spoilt, late_ms in self._spoil(frame):
                self._carry(sender, end, spoilt, late_ms)
            if limit is not None and self.link.connections == 1 and self.messages >= limit:
                due_ms = self._arrival_ms[sender] - self.world.now_ms
                self.world.after(due_ms, self.cut)
                return

    def _spoil(self, frame: bytes) -> Iterator[tuple[bytes, int]]:
        """How often a frame arrives, and how much later than it should."""
        faults, random = self.link.frame_faults, self.random
        if faults is None:
            yield frame, 0
        elif random.random() >= faults.lost:
            for _ in range(1 + (random.random() < faults.twice)):
                yield frame, random.randint(1, 200) if random.random() < faults.late else 0

    def _carry(self, sender: Side, end: "Endpoint", data: bytes, late_ms: int) -> None:
        if late_ms:  # whole, and past whatever comes meanwhile
            latency_ms = self.random.randint(*self.link.latency_ms)
            self.world.after(latency_ms + late_ms, partial(end.hear, data))
            return
        for piece in self._pieces(data):
            due_ms = self.world.now_ms + self.random.randint(*self.link.latency_ms)
            self._arrival_ms[sender] = due_ms = max(due_ms, self._arrival_ms[sender])
            self.world.after(due_ms - self.world.now_ms, partial(end.hear, piece))

    def _pieces(self, data: bytes) -> Iterator[bytes]:
        if self.link.chunk_bytes is None:
            yield data
            return
        place = 0
        while place < len(data):
            size = self.random.randint(*self.link.chunk_bytes)
            yield data[place : place + size]
            place += size

    def cut(self, *, is_silent: bool = False) -> None:
        """Both sides see the end of the stream, unless the cut is silent: then each finds out by itself."""
        if not self.is_open:
            return
        self.is_open = False
        self.world.note("cut", self.link.number)
        if self.link.connection is self:
            self.link.connection = None
        for end in self.ends.values():
            if not is_silent:
                end.hear_eof()
        self.link.call_later()


def _frames(data: bytes) -> Iterator[bytes]:
    place = 0
    while place < len(data):
        size = int.from_bytes(data[place : place + HEADER_BYTES], "big") & 0x7FFFFFFF
        yield data[place : place + HEADER_BYTES + size]
        place += HEADER_BYTES + size


class Endpoint:
    """The driver of one end: carries bytes, effects and deadlines, and decides nothing."""

    def __init__(self, connection: Connection, side: Side, node: "Node", fingerprint: bytes) -> None:
        self.connection = connection
        self.world = connection.world
        self.side = side
        self.node = node
        self.random = self.world.chance("end", connection.link.number, connection.link.connections, side.name)
        identity = node.identity
        local = Local(node.node_keys, identity.author, identity.epoch, identity.network_id)
        self.handshake: Handshake | None = Handshake(
            side, local, nonce=self.random.randbytes(32), fingerprint=fingerprint, clock_ms=node.clock_ms(),
            now_ms=self.world.now_ms,
        )  # fmt: skip
        self.session: SyncSession | None = None
        self.peer: Peer | None = None
        self._due_ms = {False: 0, True: 0}  # reading and integrating are queues of their own
        self._armed_ms: int | None = None

    @property
    def is_gone(self) -> bool:
        return self not in self.node.endpoints

    def hear(self, data: bytes) -> None:
        if self.is_gone or not self.connection.is_open:
            return
        self.world.note("hear", self.node.number, self.connection.link.number, data)
        if self.session is not None:
            self.step(self.session.receive(data, self.world.now_ms))
        elif self.handshake is not None:
            self._on_handshake(self.handshake.receive(data))

    def hear_eof(self) -> None:
        if not self.is_gone and self.session is not None:
            self.step(self.session.receive_eof())
        self.leave()

    def give(self, given: Any) -> None:
        if self.session is not None and not self.is_gone:
            self.step(self.session.send(given, self.world.now_ms))

    def _on_handshake(self, events: list[Peer | HandshakeFailed]) -> None:
        self.flush()
        for event in events:
            if isinstance(event, HandshakeFailed):
                self.connection.cut()
                return
            assert self.handshake is not None
            self.peer = event
            rest, self.handshake = self.handshake.rest(), None
            self.session = SyncSession(
                is_caller=self.side is Side.CALLER, network_id=self.node.identity.network_id,
                author=self.node.identity.author, peer=event.author, peer_epoch=event.epoch,
                now_ms=self.world.now_ms, window_target_bytes=self.connection.link.window_target_bytes,
            )  # fmt: skip
            self.give(Begin())
            if rest:
                self.hear(rest)

    def flush(self) -> None:
        """Bytes out, deadline re-armed."""
        machine = self.session or self.handshake
        if machine is None:
            return
        data = machine.take_bytes()
        if data and self.connection.is_open:
            traffic = self.connection.link.traffic[self.side]
            if self.session is not None:
                traffic.session_bytes += len(data)
            else:
                traffic.handshake_bytes += len(data)
            self.connection.transmit(self.side, data)
        deadline_ms = machine.deadline_ms
        if deadline_ms is not None and (self._armed_ms is None or deadline_ms < self._armed_ms):
            self._armed_ms = deadline_ms
            self.world.after(max(0, deadline_ms - self.world.now_ms), lambda: self._on_time(deadline_ms))

    def _on_time(self, armed_ms: int) -> None:
        if self._armed_ms != armed_ms or self.is_gone:
            return
        self._armed_ms = None
        if self.session is not None:
            self.step(self.session.on_deadline(self.world.now_ms))
        elif self.handshake is not None:
            self._on_handshake(self.handshake.on_deadline(self.world.now_ms))

    def step(self, events: list[Event]) -> None:
        """After any input: bytes out, timer re-armed, then events onwards."""
        self.flush()
        for event in events:
            match event:
                case InSync(position):
                    assert self.peer is not None
                    self.node.exchange.keep_cursor(self.peer.author, self.peer.epoch, position)
                    self.node.news.append(event)
                    self.node.say_again()
                case RolledBack():
                    self.node.news.append(event)
                    self.node.renew()
                    return
                case Ended() | PeerMisbehaved():
                    self.node.news.append(event)
                    self.leave()
                    self.connection.cut()
                    return
                case _ if isinstance(event, Effect):
                    self._carry_out(event)
                case _:
                    self.node.news.append(event)

    def leave(self) -> None:
        if not self.is_gone:
            self.node.endpoints.remove(self)

    def _carry_out(self, effect: Effect) -> None:
        """Storage takes its time, first to look and then to answer; answers of one kind keep their order."""
        lane = isinstance(effect, IntegrateWindow)
        low, high = self.connection.link.effect_ms
        looks_ms = max(self.world.now_ms + self.random.randint(low, high), self._due_ms[lane])
        answers_ms = self._due_ms[lane] = looks_ms + self.random.randint(low, high)
        window = None
        if isinstance(effect, IntegrateWindow):
            window = effect, unpacked(effect)
            self.node.coming.append(window)
        self.world.after(looks_ms - self.world.now_ms, lambda: self._look(effect, window, answers_ms))

    def _look(self, effect: Effect, window: Coming | None, answers_ms: int) -> None:
        if window is not None:
            self.node.coming.remove(window)
        if self.is_gone or not self.node.is_up:
            return
        before = self.node.exchange.position
        answer = self.node.exchange.perform(effect) if window is None else self._taken_in(window)
        self.world.after(answers_ms - self.world.now_ms, lambda: self.give(answer))
        if self.node.exchange.position > before:
            self.node.tell()

    def _taken_in(self, window: Coming) -> WindowIntegrated:
        """Whichever window has come meanwhile is planned while this one is written, as on a thread of a real node."""
        exchange, coming = self.node.exchange, self.node.coming

        def steps() -> Steps:
            taking = exchange.integrate(*window)
            try:
                changes = next(taking)
                if coming:
                    exchange.prepare(coming[0][1])
                while True:
                    outcomes = yield changes
                    changes = taking.send(outcomes)
            except StopIteration as end:
                return cast(WindowIntegrated, end.value)

        return exchange.run(steps())

    def close(self) -> None:
        self.give(Close("closing"))
