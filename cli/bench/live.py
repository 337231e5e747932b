"""How long a write on one node takes until a listener on another hears of it.

Room: a child process that writes to one node over HTTP and listens to the other on its realtime socket, in one thread
and with one clock. The parent starts it as `python -m cli.bench.live`, writes a `Plan` as one line of JSON, waits for
`ready`, writes `go`, and reads an `Outcome`. As in `load`, plain sockets: what this process spends between an
event and its time would be put down to the nodes.

An event counts when it carries the record as it was written: then it is readable where it was heard.
"""

import base64
import gc
import json
import selectors
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from cli.bench.answers import AnswerReader
from cli.bench.errors import BadAnswer, LoadFailed
from cli.bench.load import RECEIVE_MAX_BYTES, percentile
from cli.bench.records import MODEL, as_json, request

COUNTED = "votes"  # the field that every write gives another value, to tell events apart
HEARD_MAX_S = 30.0
MESSAGE_MAX_BYTES = 1 << 20
_MASK = b"\0\0\0\0"
_TEXT, _CLOSE, _PING, _PONG = 0x1, 0x8, 0x9, 0xA


@dataclass(frozen=True, slots=True)
class Plan:
    """Where to write and where to listen. Writes fall due on a timetable, one after the other."""

    writer_port: int
    writer_token: str
    listener_port: int
    listener_token: str
    ids: list[str]
    writes: int
    every_ms: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of every write. An event that was heard before the answer took no time."""

    heard: int
    p50_ms: float  # from the answer on
    p99_ms: float
    whole_p50_ms: float  # from the request on
    whole_p99_ms: float
    core_share: float


class MessageReader:
    """WebSocket frames of a server, as far as a listener needs them (RFC 6455, section 5.2).

    `feed` gives the opcode and the payload of each whole frame. Raises `BadAnswer`.
    """

    def __init__(self, data: bytes = b"") -> None:
        self._held = bytearray(data)

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        self._held += data
        held = self._held
        while len(held) >= 2:
            opcode, size, start = held[0] & 0x0F, held[1], 2
            if not held[0] & 0x80 or held[0] & 0x70 or size & 0x80:
                raise BadAnswer("a frame that is masked, compressed or not whole")
            if size >= 126:
                start = 4 if size == 126 else 10
                if len(held) < start:
                    return
                size = int.from_bytes(held[2:start], "big")
            if size > MESSAGE_MAX_BYTES:
                raise BadAnswer(f"a message of {size} bytes")
            if len(held) < start + size:
                return
            payload = bytes(held[start : start + size])
            del held[: start + size]
            yield opcode, payload


def frame(opcode: int, payload: bytes) -> bytes:
    """A frame of a client; masked, with a mask that changes nothing."""
    assert len(payload) < 1 << 16
    size = bytes((0x80 | len(payload),)) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2, "big")
    return bytes((0x80 | opcode,)) + size + _MASK + payload


class Listener:
    """A subscription to everything that happens to the model on one node."""

    def __init__(self, port: int, token: str) -> None:
        """Connects and subscribes: nothing after it is missed. Blocks. Raises `LoadFailed` or OSError."""
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=HEARD_MAX_S)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        lines = [
            "GET /v1/realtime HTTP/1.1",
            f"Host: 127.0.0.1:{port}",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {base64.b64encode(b'civicnode bench!').decode()}",
            f"Authorization: Bearer {token}",
        ]
        self.sock.sendall("\r\n".join([*lines, "", ""]).encode())
        head = b""
        while b"\r\n\r\n" not in head:
            data = self.sock.recv(RECEIVE_MAX_BYTES)
            if not data or len(head) > RECEIVE_MAX_BYTES:
                raise LoadFailed("the realtime socket was closed before it was open")
            head += data
        if not head.startswith(b"HTTP/1.1 101"):
            raise LoadFailed(f"the realtime socket was refused: {head[:60]!r}")
        self._reader = MessageReader(head.partition(b"\r\n\r\n")[2])
        self.sock.sendall(frame(_TEXT, as_json({"action": "subscribe", "model": MODEL})))
        while not any(event.get("event") == "subscribed" for event in self.receive()):
            continue

    def receive(self) -> list[dict[str, object]]:
        """Events out of what the socket has now. Blocks if it has nothing."""
        data = self.sock.recv(RECEIVE_MAX_BYTES)
        if not data:
            raise LoadFailed("the realtime socket was closed")
        events: list[dict[str, object]] = []
        for opcode, payload in self._reader.feed(data):
            if opcode == _TEXT:
                events.append(json.loads(payload))
            elif opcode == _PING:
                self.sock.sendall(frame(_PONG, payload))
            elif opcode == _CLOSE:
                raise LoadFailed(f"the realtime socket was closed: {payload[2:].decode('utf-8', 'replace')}")
        return events


class Driver:
    """Carries one `Plan` through. Making it connects, `run` measures; both block."""

    def __init__(self, plan: Plan) -> None:
        if not plan.ids or not 0 < plan.writes < 1_000_000:
            raise LoadFailed("a plan out of bounds")
        self._plan = plan
        self._listener = Listener(plan.listener_port, plan.listener_token)
        self._writer = socket.create_connection(("127.0.0.1", plan.writer_port), timeout=HEARD_MAX_S)
        self._writer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = AnswerReader()
        # epoll waits in whole milliseconds, which would make every write late.
        self._selector = selectors.SelectSelector()
        self._selector.register(self._listener.sock, selectors.EVENT_READ, self._hear)
        self._selector.register(self._writer, selectors.EVENT_READ, self._answered)
        self._is_waiting = False  # for an answer
        self._asked: list[float] = []
        self._acked: list[float] = []
        self._heard: dict[int, float] = {}

    def close(self) -> None:
        self._selector.close()
        self._listener.sock.close()
        self._writer.close()

    def run(self) -> Outcome:
        plan, clock = self._plan, time.perf_counter
        requests = [
            request(
                "PUT",
                f"/v1/data/{MODEL}/{plan.ids[number % len(plan.ids)]}",
                port=plan.writer_port,
                body=as_json({COUNTED: number}),
                token=plan.writer_token,
            )
            for number in range(plan.writes)
        ]
        cpu_from, began = time.thread_time(), clock()
        due = began
        until = began + HEARD_MAX_S + plan.writes * plan.every_ms / 1000
        while len(self._acked) < plan.writes or len(self._heard) < plan.writes:
            now = clock()
            if now > until:
                raise LoadFailed(f"{len(self._heard)} of {plan.writes} writes were heard of")
            number = len(self._asked)
            is_left = number < plan.writes
            if is_left and not self._is_waiting and now >= due:
                self._is_waiting = True
                self._asked.append(clock())
                self._writer.sendall(requests[number])
                due = max(due + plan.every_ms / 1000, now)
                continue
            wait_s = max(0.0, due - now) if is_left and not self._is_waiting else 1.0
            for key, _ in self._selector.select(wait_s):
                key.data()
        return self._outcome((time.thread_time() - cpu_from) / (clock() - began))

    def _answered(self) -> None:
        answer = self._reader.feed(self._writer.recv(RECEIVE_MAX_BYTES))
        now = time.perf_counter()
        if answer is None:
            return
        if answer.status != 200:
            raise LoadFailed(f"a write was answered {answer.status}: {answer.body[:200]!r}")
        self._acked.append(now)
        self._is_waiting = False

    def _hear(self) -> None:
        events = self._listener.receive()
        now = time.perf_counter()
        for event in events:
            data = event.get("data")
            if event.get("event") == "update" and isinstance(data, dict):
                self._heard.setdefault(int(data[COUNTED]), now)

    def _outcome(self, core_share: float) -> Outcome:
        numbers = range(self._plan.writes)
        after = sorted(max(0.0, self._heard[n] - self._acked[n]) * 1000 for n in numbers)
        whole = sorted((self._heard[n] - self._asked[n]) * 1000 for n in numbers)
        return Outcome(
            heard=len(after),
            p50_ms=percentile(after, 0.50),
            p99_ms=percentile(after, 0.99),
            whole_p50_ms=percentile(whole, 0.50),
            whole_p99_ms=percentile(whole, 0.99),
            core_share=core_share,
        )


def main() -> int:
    """The child's side of the conversation described above."""
    plan = Plan(**json.loads(sys.stdin.readline()))
    try:
        driver = Driver(plan)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        if sys.stdin.readline().strip() != "go":
            return 1
        gc.collect()
        gc.disable()
        answer: dict[str, object] = asdict(driver.run())
        driver.close()
    except (LoadFailed, BadAnswer, OSError, KeyError, ValueError) as error:
        answer = {"fault": f"live: {error or type(error).__name__}"}
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
