"""The load generator: many keep-alive connections from one process of its own.

Room: one selector, non-blocking sockets, requests that were built beforehand, and a
clock read once an answer. It knows nothing of models or nodes. The parent starts it as
`python -m cli.bench.load`, writes a `Plan` as one line of JSON, waits for `ready`, writes
`go`, and reads an `Outcome`; closing the pipe ends the load early, so that a parent that
dies leaves no load behind. Imports stay few: this process must be up at once and spend
its core on requests alone. `process.Load` is the parent's end.

Closed loop by default: a connection asks again as soon as it was answered. With
`per_second` the loop is open: requests fall due on a fixed timetable, and their latency
counts from when they were due, so that a stalled server is not asked less and thereby
flattered.

Measured on two cores at 2.6 GHz: 65,000 GETs a second and core at 32 connections, 26,700/s
against a server that was then busy for 0.98 of its core, where a client in C reached 26,600/s.
At 1 connection it takes 30 us of each request (C: 16 us); see `figures.net_share`.
"""

import gc
import json
import selectors
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from cli.bench.answers import Answer, AnswerReader
from cli.bench.errors import BadAnswer, LoadFailed

CONNECTIONS_MAX = 256
SECONDS_MAX = 600.0
ANSWER_MAX_S = 30.0
DRAIN_MAX_S = 60.0  # how long answers may still come in after the last request
RECEIVE_MAX_BYTES = 64 * 1024
_LENGTH = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class Plan:
    """What to ask and for how long. `requests` is a file made by `write_requests`.

    The answers of the first `warmup_s` seconds are not measured. With `once` every request
    is sent exactly once, nothing is warm-up, and `seconds` is only the time limit.
    """

    port: int
    requests: str
    connections: int = 1
    seconds: float = 1.5
    warmup_s: float = 0.3
    once: bool = False
    per_second: float | None = None
    expect: int = 200


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one load saw. Latencies cover the measured answers only.

    `answered` counts every good answer, warm-up and stragglers included: what a server
    acknowledged. `core_share` is the CPU time of its one thread over the measured wall time.
    """

    measured: int
    answered: int
    seconds: float
    per_second: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    core_share: float


def write_requests(path: Path, requests: Iterable[bytes]) -> int:
    """Write whole HTTP requests for a `Plan`; returns how many."""
    count = 0
    with path.open("wb") as file:
        for request in requests:
            file.write(_LENGTH.pack(len(request)))
            file.write(request)
            count += 1
    return count


def read_requests(path: Path) -> list[bytes]:
    data = path.read_bytes()
    requests: list[bytes] = []
    at = 0
    while at < len(data):
        (size,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        requests.append(data[at : at + size])
        at += size
    return requests


def percentile(ordered: list[float], share: float) -> float:
    """The smallest value that at least `share` of the (sorted) values do not exceed."""
    if not ordered:
        return 0.0
    rank = -(-len(ordered) * round(share * 1000) // 1000)
    return ordered[min(len(ordered), max(1, rank)) - 1]


class _Connection:
    __slots__ = ("asked_at", "reader", "rest", "sock")

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=10.0)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)
        self.reader = AnswerReader()
        self.asked_at = -1.0  # negative: nothing is asked
        self.rest: memoryview | None = None  # what of a large request is still to be sent

    def wait_at_most(self, seconds: float) -> None:
        """Make this socket block. By option, not `settimeout`, which would poll before each read."""
        self.sock.setblocking(True)
        limit = struct.pack("ll", int(seconds), 0)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)


class Driver:
    """Carries one `Plan` through. `open` connects, `run` measures; both block."""

    def __init__(self, plan: Plan, requests: list[bytes], *, stop_fd: int | None = None) -> None:
        if not requests:
            raise LoadFailed("there is nothing to ask")
        if not 1 <= plan.connections <= CONNECTIONS_MAX or not 0 < plan.seconds <= SECONDS_MAX:
            raise LoadFailed("a plan out of bounds")
        self._plan = plan
        self._requests = requests
        # epoll waits in whole milliseconds, which would make every request of a timetable late.
        timed = plan.per_second is not None
        self._selector = selectors.SelectSelector() if timed else selectors.DefaultSelector()
        self._connections: list[_Connection] = []
        self._idle: deque[_Connection] = deque()
        self._backlog: deque[float] = deque()  # when requests fell due that wait for a connection
        self._next = 0  # position in the requests
        self._in_flight = 0
        self._answered = 0
        self._latencies: list[float] = []
        self._stopped = False
        self._measure_from = 0.0
        self._end_at = 0.0
        if stop_fd is not None:
            self._selector.register(stop_fd, selectors.EVENT_READ, None)

    def open(self) -> None:
        try:
            for _ in range(self._plan.connections):
                self._connect()
        except OSError as error:
            raise LoadFailed(f"cannot connect to port {self._plan.port}: {error}") from error

    def close(self) -> None:
        for connection in self._connections:
            connection.sock.close()
        self._selector.close()

    def run(self) -> Outcome:
        plan = self._plan
        started = time.perf_counter()
        warmup_s = 0.0 if plan.once else plan.warmup_s
        self._measure_from = started + warmup_s
        self._end_at = self._measure_from + plan.seconds
        try:
            if plan.per_second is not None:
                cpu_s, ended = self._run_timetable(started, plan.per_second)
            elif plan.connections == 1 and not plan.once:
                cpu_s, ended = self._run_alone()
            else:
                cpu_s, ended = self._run_closed()
            self._drain(time.perf_counter() + DRAIN_MAX_S)
        except (OSError, BadAnswer) as error:
            raise LoadFailed(str(error)) from error
        if plan.once:
            if self._next < len(self._requests):
                raise LoadFailed(f"{self._next} of {len(self._requests)} requests in {plan.seconds} s")
            ended = time.perf_counter()
        return self._outcome(max(ended - self._measure_from, 1e-9), cpu_s)

    def _run_closed(self) -> tuple[float, float]:
        """CPU seconds since the measuring began, and when it ended."""
        while self._idle and not self._is_exhausted():
            self._ask(self._idle.popleft(), time.perf_counter())
        cpu_from = -1.0
        while True:
            now = time.perf_counter()
            if cpu_from < 0 and now >= self._measure_from:
                cpu_from = time.thread_time()
            if now >= self._end_at or self._stopped or not self._in_flight:
                return time.thread_time() - cpu_from if cpu_from >= 0 else 0.0, now
            limit = self._end_at if cpu_from >= 0 else self._measure_from
            self._turn(max(0.0, limit - now), ask_again=True)

    def _run_alone(self) -> tuple[float, float]:
        """One connection: ask, wait, ask again, and keep the books while the server works.

        At one connection server and generator take turns, so what the generator does between
        an answer and the next request slows every server alike and draws shares towards 1.
        Hence no selector here, and only reading and sending on that path.
        """
        clock, connection = time.perf_counter, self._idle.popleft()
        connection.wait_at_most(ANSWER_MAX_S)
        following = self._requests[0]
        connection.asked_at = clock()
        connection.sock.sendall(following)
        cpu_from = -1.0
        while True:
            self._next += 1
            following = self._requests[self._next % len(self._requests)]
            receive, feed, sock = connection.sock.recv, connection.reader.feed, connection.sock
            while (answer := feed(receive(RECEIVE_MAX_BYTES))) is None:
                continue
            asked_at, now = connection.asked_at, clock()
            goes_on = now < self._end_at and answer.keep_alive
            if goes_on:
                connection.asked_at = now
                sock.sendall(following)
            self._record(answer, asked_at, now)
            if cpu_from < 0 and now >= self._measure_from:
                cpu_from = time.thread_time()
            if now >= self._end_at:
                return time.thread_time() - cpu_from, now
            if not goes_on:
                self._forget(connection)
                self._connect()
                connection = self._idle.popleft()
                connection.wait_at_most(ANSWER_MAX_S)
                connection.asked_at = clock()
                connection.sock.sendall(following)

    def _run_timetable(self, started: float, per_second: float) -> tuple[float, float]:
        step = 1.0 / per_second
        due = started
        backlog = self._backlog
        cpu_from = -1.0
        while True:
            now = time.perf_counter()
            if cpu_from < 0 and now >= self._measure_from:
                cpu_from = time.thread_time()
            if now >= self._end_at or self._stopped:
                return time.thread_time() - cpu_from if cpu_from >= 0 else 0.0, now
            while due <= now:
                backlog.append(due)
                due += step
            while backlog and self._idle:
                self._ask(self._idle.popleft(), backlog.popleft())
            self._turn(max(0.0, min(due, self._end_at) - now), ask_again=False)

    def _drain(self, until: float) -> None:
        """Wait for what was asked; the server may have acknowledged it already."""
        while self._in_flight or self._backlog:
            while self._backlog and self._idle:
                self._ask(self._idle.popleft(), self._backlog.popleft())
            left = until - time.perf_counter()
            if left <= 0:
                raise LoadFailed(f"{self._in_flight} requests without an answer in {DRAIN_MAX_S:.0f} s")
            self._turn(min(left, 1.0), ask_again=False)

    def _turn(self, timeout_s: float, *, ask_again: bool) -> None:
        for key, events in self._selector.select(timeout_s):
            connection: _Connection | None = key.data
            if connection is None:  # the parent closed its end
                self._stopped = True
                self._selector.unregister(key.fileobj)
            elif events & selectors.EVENT_WRITE:
                self._send_rest(connection)
            else:
                self._receive(connection, ask_again)

    def _receive(self, connection: _Connection, ask_again: bool) -> None:
        try:
            data = connection.sock.recv(RECEIVE_MAX_BYTES)
        except BlockingIOError:
            return
        answer = connection.reader.feed(data)
        if answer is None:
            return
        now = time.perf_counter()
        if connection.asked_at < 0:
            raise LoadFailed("an answer to nothing")
        self._record(answer, connection.asked_at, now)
        self._in_flight -= 1
        connection.asked_at = -1.0
        if not answer.keep_alive:
            self._forget(connection)
            self._connect()
            connection = self._idle.pop()
        if ask_again and now < self._end_at and not self._is_exhausted():
            self._ask(connection, now)
        else:
            self._idle.append(connection)

    def _record(self, answer: Answer, asked_at: float, now: float) -> None:
        """Count an answer. It is measured by its end in a closed loop, else by when it was due."""
        if answer.status != self._plan.expect:
            text = answer.body[:300].decode("utf-8", "replace")
            raise LoadFailed(f"answered {answer.status} where {self._plan.expect} is right: {text}")
        self._answered += 1
        if self._plan.per_second is None:
            is_measured = self._measure_from <= now < self._end_at
        else:
            is_measured = asked_at >= self._measure_from
        if is_measured:
            self._latencies.append(now - asked_at)

    def _ask(self, connection: _Connection, due_at: float) -> None:
        """Send the next request; its latency counts from `due_at`."""
        request = self._requests[self._next % len(self._requests)]
        self._next += 1
        self._in_flight += 1
        connection.asked_at = due_at
        try:
            sent = connection.sock.send(request)
        except BlockingIOError:
            sent = 0
        if sent < len(request):
            connection.rest = memoryview(request)[sent:]
            both = selectors.EVENT_READ | selectors.EVENT_WRITE
            self._selector.modify(connection.sock, both, connection)

    def _send_rest(self, connection: _Connection) -> None:
        assert connection.rest is not None
        connection.rest = connection.rest[connection.sock.send(connection.rest) :]
        if not connection.rest:
            connection.rest = None
            self._selector.modify(connection.sock, selectors.EVENT_READ, connection)

    def _is_exhausted(self) -> bool:
        return self._plan.once and self._next >= len(self._requests)

    def _connect(self) -> None:
        connection = _Connection(self._plan.port)
        self._connections.append(connection)
        self._selector.register(connection.sock, selectors.EVENT_READ, connection)
        self._idle.append(connection)

    def _forget(self, connection: _Connection) -> None:
        self._selector.unregister(connection.sock)
        self._connections.remove(connection)
        connection.sock.close()

    def _outcome(self, seconds: float, cpu_s: float) -> Outcome:
        ordered = sorted(self._latencies)
        return Outcome(
            measured=len(ordered),
            answered=self._answered,
            seconds=seconds,
            per_second=len(ordered) / seconds,
            p50_ms=percentile(ordered, 0.50) * 1000,
            p99_ms=percentile(ordered, 0.99) * 1000,
            max_ms=(ordered[-1] if ordered else 0.0) * 1000,
            core_share=cpu_s / seconds,
        )


def main() -> int:
    """The child's side of the conversation described above."""
    plan = Plan(**json.loads(sys.stdin.readline()))
    driver = Driver(plan, read_requests(Path(plan.requests)), stop_fd=sys.stdin.fileno())
    try:
        driver.open()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        if sys.stdin.readline().strip() != "go":
            return 1
        gc.collect()
        gc.disable()
        answer: dict[str, object] = asdict(driver.run())
    except LoadFailed as error:
        answer = {"fault": str(error)}
    finally:
        driver.close()
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
