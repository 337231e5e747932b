"""A wire between two nodes that can be cut: a TCP forwarder on loopback.

Room: carries bytes between whoever connects here and one port behind it, counts them, and stops when it is told
to. It looks at nothing that it carries, so a cut meets two nodes wherever they are in what they say. For the demo
and for measurements; one thread, which sleeps while nothing moves.
"""

import contextlib
import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field

CHUNK_BYTES = 256 << 10  # carried at a time: a window of a megabyte in four turns
HELD_MAX_BYTES = 1 << 20  # of one direction, while the far end does not take them
CONNECT_TIMEOUT_S = 5.0


@dataclass(slots=True, eq=False)
class _End:
    """One end of one connection, and what waits to be sent to it."""

    sock: socket.socket
    is_near: bool  # of whoever connected here
    other: "_End" = field(init=False)
    held: bytearray = field(default_factory=bytearray)
    is_open: bool = True  # it may still send us something


@dataclass(frozen=True, slots=True)
class Carried:
    """What has crossed since the wire was made. A flight is a run of bytes in one direction."""

    bytes_out: int  # from who connected to the port behind
    bytes_back: int
    flights: int

    def since(self, before: "Carried") -> "Carried":
        return Carried(
            self.bytes_out - before.bytes_out,
            self.bytes_back - before.bytes_back,
            self.flights - before.flights,
        )

    @property
    def bytes(self) -> int:
        return self.bytes_out + self.bytes_back


class Wire:
    """A forwarder to `target_port` of loopback. It is whole when made, unless `is_cut`; `close` it once.

    While it is cut nobody listens at `port`, and what was connected is closed at both ends.
    """

    def __init__(self, target_port: int, *, is_cut: bool = False) -> None:
        """Raises OSError."""
        self._target_port = target_port
        self._selector = selectors.DefaultSelector()
        self._ends: set[_End] = set()
        self._bytes_out = self._bytes_back = self._flights = 0
        self._was_near: bool | None = None  # the direction of the last bytes
        self._calls: list[tuple[Callable[[], object], Future[object]]] = []
        self._lock = threading.Lock()  # of `_calls`
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._selector.register(self._wake_in, selectors.EVENT_READ, None)
        self._is_closed = False
        # The port stays ours while the wire is cut: bound, and not listening.
        self._listener = _bound(0)
        self.port: int = self._listener.getsockname()[1]
        if not is_cut:
            self._listen()
        self._thread = threading.Thread(target=self._run, name=f"wire {self.port}", daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """Drop every connection, and take no new one."""
        self._on_thread(self._cut)

    def restore(self) -> None:
        """Take connections again."""
        self._on_thread(self._restore)

    @property
    def carried(self) -> Carried:
        return Carried(self._bytes_out, self._bytes_back, self._flights)

    def close(self) -> None:
        with contextlib.suppress(RuntimeError):
            self._on_thread(self._close)
        self._thread.join()

    # -- on the thread -------------------------------------------------------------------------------------

    def _on_thread(self, call: Callable[[], object]) -> None:
        """Have something done by the thread, and wait for it."""
        done: Future[object] = Future()
        with self._lock:
            if self._is_closed:
                raise RuntimeError("the wire is closed")
            self._calls.append((call, done))
        self._wake_out.send(b"x")
        done.result()

    def _run(self) -> None:
        while not self._is_closed:
            for key, events in self._selector.select():
                if key.fileobj is self._wake_in:
                    self._wake_in.recv(64)
                elif key.fileobj is self._listener:
                    self._accept()
                elif key.data in self._ends:  # else it has gone in this very turn
                    self._move(key.data, events)
            with self._lock:
                calls, self._calls = self._calls, []
            for call, done in calls:
                try:
                    done.set_result(call())
                except Exception as error:
                    done.set_exception(error)

    def _listen(self) -> None:
        self._listener.listen(16)
        self._selector.register(self._listener, selectors.EVENT_READ, None)

    def _cut(self) -> None:
        if self._listener in self._selector.get_map():
            self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = _bound(self.port)
        for end in list(self._ends):
            self._drop(end)

    def _restore(self) -> None:
        if self._listener not in self._selector.get_map():
            self._listen()

    def _close(self) -> None:
        self._cut()
        with self._lock:
            self._is_closed = True
        for sock in (self._listener, self._wake_in, self._wake_out):
            sock.close()
        self._selector.close()

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        try:
            far = socket.create_connection(("127.0.0.1", self._target_port), CONNECT_TIMEOUT_S)
        except OSError:
            near.close()
            return
        ends = _End(near, True), _End(far, False)
        ends[0].other, ends[1].other = ends[1], ends[0]
        for end in ends:
            end.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            end.sock.setblocking(False)
            self._selector.register(end.sock, selectors.EVENT_READ, end)
            self._ends.add(end)

    def _move(self, end: _End, events: int) -> None:
        try:
            if events & selectors.EVENT_WRITE:
                self._send(end)
            if events & selectors.EVENT_READ:
                self._receive(end)
        except OSError:
            self._drop(end)

    def _receive(self, end: _End) -> None:
        data = end.sock.recv(CHUNK_BYTES)
        if not data:
            if not end.other.held:
                self._drop(end)
            else:
                end.is_open = False
                self._watch(end)
            return
        if end.is_near:
            self._bytes_out += len(data)
        else:
            self._bytes_back += len(data)
        if self._was_near is not end.is_near:
            self._was_near = end.is_near
            self._flights += 1
        end.other.held += data
        self._send(end.other)

    def _send(self, end: _End) -> None:
        if end.held:
            with contextlib.suppress(BlockingIOError):
                del end.held[: end.sock.send(end.held)]
        if not end.held and not end.other.is_open:
            self._drop(end)
            return
        self._watch(end)
        self._watch(end.other)

    def _watch(self, end: _End) -> None:
        """Wait for what this end can do next."""
        if end not in self._ends:
            return
        events = selectors.EVENT_WRITE if end.held else 0
        if end.is_open and len(end.other.held) < HELD_MAX_BYTES:
            events |= selectors.EVENT_READ
        registered = self._selector.get_map().get(end.sock)
        if registered is None and events:
            self._selector.register(end.sock, events, end)
        elif registered is not None and not events:
            self._selector.unregister(end.sock)
        elif registered is not None and registered.events != events:
            self._selector.modify(end.sock, events, end)

    def _drop(self, end: _End) -> None:
        for one in (end, end.other):
            if one in self._ends:
                self._ends.discard(one)
                if one.sock in self._selector.get_map():
                    self._selector.unregister(one.sock)
                one.sock.close()


def _bound(port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", port))
    except BaseException:
        sock.close()
        raise
    return sock


@contextlib.contextmanager
def wire_to(target_port: int, *, is_cut: bool = False) -> Iterator[Wire]:
    """A `Wire` that is closed on the way out."""
    wire = Wire(target_port, is_cut=is_cut)
    try:
        yield wire
    finally:
        wire.close()
