"""Nodes joined by wires in memory: real links, sessions and records, no sockets, and time moved by hand.

Room: what tests of `node.net` share. Bytes, answers of storage and timers wait in queues until `Wires.settle`
delivers them, so a test can look in between, cut, or hold back.
"""

import asyncio
import heapq
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any

from node.metrics import Counter
from node.net.contacts import Source
from node.net.link import Link
from node.net.peers import Peers, Strangers, Surroundings
from node.origins import Address
from protocol.exchange import Answer, Arrived, Effect, IntegrateWindow, RolledBack
from protocol.handshake import Local, Peer
from protocol.ids import NodeId
from protocol.membership import Members
from tests.protocol.dialogue import KEYS, NOW_MS, Record


@dataclass
class Timer:
    is_cancelled: bool = False

    def cancel(self) -> None:
        self.is_cancelled = True


class Time:
    """A clock and its timers, moved by hand."""

    def __init__(self) -> None:
        self.now_ms = 1_000_000
        self._queue: list[tuple[float, int, Timer, Callable[[], object]]] = []
        self._tickets = count()

    def steady_ms(self) -> int:
        return int(self.now_ms)

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> Timer:
        timer = Timer()
        due_ms = self.now_ms + delay * 1_000
        heapq.heappush(self._queue, (due_ms, next(self._tickets), timer, lambda: callback(*args)))
        return timer

    def pass_s(self, seconds: float) -> None:
        """Let time pass, and everything ring that is due meanwhile."""
        end_ms = self.now_ms + seconds * 1_000
        while self._queue and self._queue[0][0] <= end_ms:
            due_ms, _, timer, ring = heapq.heappop(self._queue)
            self.now_ms = max(self.now_ms, int(due_ms))
            if not timer.is_cancelled:
                ring()
        self.now_ms = int(end_ms)


class Certificate:
    """What a caller sees of the answerer's TLS."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def getpeercert(self, *, binary_form: bool) -> bytes:
        assert binary_form
        return self._data


class Transport(asyncio.Transport):
    """One end of a wire."""

    def __init__(self, wires: "Wires", link: Link, certificate: bytes, host: str = "127.0.0.1") -> None:
        super().__init__()
        self.extra = {"ssl_object": Certificate(certificate), "sockname": (host, 1), "peername": (host, 2)}
        self.wires = wires
        self.link = link
        self.other: Transport | None = None
        self.sent: deque[bytes] = deque()
        self.is_stuck = False  # the other side takes nothing
        self.reads = True
        self.closing = False
        self.is_lost = False
        self.high = 1 << 30
        self.is_paused = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.extra.get(name, default)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self.is_lost:
            self.sent.append(bytes(data))
            if not self.is_paused and self.get_write_buffer_size() > self.high:
                self.is_paused = True
                self.link.pause_writing()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.high = high or 0

    def get_write_buffer_size(self) -> int:
        return sum(map(len, self.sent))

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True
        self.wires.touched = True

    def abort(self) -> None:
        self.sent.clear()
        self.lose()

    def lose(self) -> None:
        if not self.is_lost:
            self.is_lost = self.closing = True
            self.wires.later(lambda: self.link.connection_lost(None))
            if self.other is not None and not self.other.is_lost:
                self.wires.later(self.other.lose)

    def pump(self) -> bool:
        """Carry what was written. Returns whether anything happened."""
        other = self.other
        if other is None or self.is_lost:
            return False
        if self.sent and not self.is_stuck and other.reads:
            data = self.sent.popleft()
            if self.is_paused and not self.sent:
                self.is_paused = False
                self.link.resume_writing()
            other.link.data_received(data)
            return True
        if self.closing and not self.sent:
            self.lose()
            return True
        return False


class Desk:
    """Storage: carries out effects when its turn comes."""

    def __init__(self, node: "WiredNode") -> None:
        self._node = node
        self.failure: Exception | None = None
        self.performed: list[Effect] = []
        self.queued_bytes = 0

    def perform(
        self, effect: Effect, reply: Callable[[Answer | Exception], None], is_wanted: Callable[[], bool]
    ) -> None:
        self.performed.append(effect)
        self._node.wires.later(lambda: self._carry_out(effect, reply, is_wanted))

    def _carry_out(
        self, effect: Effect, reply: Callable[[Answer | Exception], None], is_wanted: Callable[[], bool]
    ) -> None:
        if not is_wanted():
            return
        if self.failure is not None:
            reply(self.failure)
            return
        reply(self._node.record.exchange.perform(effect))
        if isinstance(effect, IntegrateWindow):
            self._node.tell()


class Wires:
    """Everything between nodes, and the time they live in."""

    def __init__(self) -> None:
        self.time = Time()
        self.nodes: dict[Address, WiredNode] = {}
        self.transports: list[Transport] = []
        self.touched = False
        self._jobs: deque[Callable[[], None]] = deque()

    def later(self, job: Callable[[], None]) -> None:
        self._jobs.append(job)

    async def settle(self) -> None:
        """Deliver everything there is to be delivered, until nothing happens any more."""
        quiet = 0
        for _ in range(100_000):
            happened, self.touched = self.touched, False
            for _ in range(len(self._jobs)):
                self._jobs.popleft()()
                happened = True
            for transport in list(self.transports):
                happened |= transport.pump()
            await asyncio.sleep(0)
            quiet = 0 if happened else quiet + 1
            if quiet > 5:
                return
        raise AssertionError("this does not come to rest")

    async def pass_s(self, seconds: float, *, step_s: float = 1.0) -> None:
        """Let time pass in steps, and everything happen that comes of it."""
        left = seconds
        while left > 0:
            self.time.pass_s(min(step_s, left))
            left -= step_s
            await self.settle()

    def join(self, caller: Link, answerer: Link, certificate: bytes) -> tuple[Transport, Transport]:
        """A wire between two links."""
        one = Transport(self, caller, certificate)
        two = Transport(self, answerer, b"")
        one.other, two.other = two, one
        self.transports += [one, two]
        answerer.connection_made(two)
        caller.connection_made(one)
        return one, two


@dataclass
class WiredNode:
    """A record in memory and the manager of its links."""

    wires: Wires
    record: Record
    address: Address
    members: Members | None = None
    strangers: Strangers | None = None
    skew_ms: int = 0
    is_up: bool = True
    is_silent: bool = False  # takes connections, and never says a word
    cursors: list[tuple[Peer, int]] = field(default_factory=list)
    remembered: list[tuple[Address, NodeId]] = field(default_factory=list)
    rolled_back: list[RolledBack] = field(default_factory=list)
    dialed: list[Address] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = Random(str(self.address))
        self.certificate = self.random.randbytes(64)
        self.faults = Counter("faults", "", ("reason",))
        self.desk = Desk(self)
        self.wires.nodes[self.address] = self
        self.peers = self._manager()

    def _manager(self) -> Peers:
        from node.net.tls import fingerprint_of

        identity = self.record.identity
        local = Local(KEYS, identity.author, identity.epoch, identity.network_id)
        around = Surroundings(
            local=lambda: local,
            members=lambda: self.members or self.record.store.members,
            desk=self.desk,
            queued_bytes=lambda: self.desk.queued_bytes,
            connect=self._connect,
            keep_cursor=lambda peer, position: self.cursors.append((peer, position)),
            remember=lambda address, node: self.remembered.append((address, node)),
            on_rolled_back=self.rolled_back.append,
            clock_ms=lambda: NOW_MS + self.wires.time.steady_ms() + self.skew_ms,
            steady_ms=self.wires.time.steady_ms,
            random_bytes=self.random.randbytes,
            chance=self.random.random,
            timers=self.wires.time,
            log=logging.getLogger("tests"),
            faults=self.faults,
            strangers=self.strangers,
        )
        return Peers(around, fingerprint_of(self.certificate), self.record.exchange.position)

    async def _connect(self, link: Link, address: Address) -> None:
        self.dialed.append(address)
        await asyncio.sleep(0)
        other = self.wires.nodes.get(address)
        if other is None or not other.is_up:
            raise ConnectionRefusedError(111, "Connection refused")
        answering = other.peers.answering(Address("127.0.0.1", 40_000 + len(self.dialed)))
        other.peers.keeper.knock(answering, "127.0.0.1")
        self.wires.join(link, answering, other.certificate)

    def know(self, *others: "WiredNode") -> None:
        """Learn where others listen, as from `--peer`, and dial them."""
        for other in others:
            self.peers.found(other.address, Source.CONFIGURED)

    def put(self, id: str, **values: Any) -> None:
        self.record.put(id, **values)
        self.tell()

    def tell(self) -> None:
        self.peers.on_arrived(Arrived(self.record.exchange.position))

    def cut(self) -> None:
        """Every wire of this node breaks."""
        for transport in self.wires.transports:
            if transport.link in self.peers.links:
                transport.abort()

    @property
    def reasons(self) -> dict[str, float]:
        return {reason: number for (reason,), number in self.faults.values.items()}


def wired(*names: str, apart: int = 0) -> tuple[Wires, list[WiredNode]]:
    """Nodes of one network, which know nothing of each other yet, with so many documents of their own each."""
    wires = Wires()
    founder = Record(names[0])
    records = [founder, *(Record(name, founder=founder) for name in names[1:])]
    nodes = []
    for number, record in enumerate(records):
        for place in range(apart):
            record.put(f"{names[number]}{place}", title=names[number])
        nodes.append(WiredNode(wires, record, Address(f"10.0.0.{number + 1}", 4490)))
    return wires, nodes


def are_equal(*nodes: WiredNode) -> bool:
    """Whether all hold the same documents and say so."""
    return (
        len({node.record.fingerprint() for node in nodes}) == 1
        and len({node.record.exchange.root() for node in nodes}) == 1
        and all(node.peers.is_in_sync for node in nodes)
    )
