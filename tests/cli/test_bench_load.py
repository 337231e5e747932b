"""What the load generator makes of answers and of time. Sockets are real; time passes as the server here says."""

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.bench import load
from cli.bench.errors import LoadFailed
from cli.bench.load import Driver, Outcome, Plan, percentile, read_requests, write_requests

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
GET = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


class Clock:
    """Time that passes when somebody says so, or when nothing is asked and the generator waits for its timetable."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self._lock = threading.Lock()

    def pass_s(self, seconds: float) -> None:
        with self._lock:
            self.now_s += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    # A half of the time it computes.
    passing = SimpleNamespace(perf_counter=lambda: clock.now_s, thread_time=lambda: clock.now_s / 2)
    monkeypatch.setattr(load, "time", passing)
    return clock


class Patient:
    """A selector for a generator in such time: what is asked is waited for, and while nothing is, time passes."""

    def __init__(self, driver: Driver, clock: Clock) -> None:
        self._driver, self._clock, self._selector = driver, clock, driver._selector

    def __getattr__(self, name: str) -> Any:
        return getattr(self._selector, name)

    def select(self, timeout_s: float) -> Any:
        if self._driver._in_flight:
            return self._selector.select()
        self._clock.pass_s(timeout_s)
        return []


class Scripted:
    """A server of threads that answers each request as `answer` says and counts them."""

    def __init__(self, answer: Callable[[int, bytes], bytes]) -> None:
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.seen: list[bytes] = []
        self.connections = 0
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            thread = threading.Thread(target=self._serve, args=(client,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        held = b""
        with client, suppress(ConnectionError):
            while data := client.recv(65_536):
                held += data
                while (end := _end_of_request(held)) is not None:
                    with self._lock:
                        self.seen.append(held[:end])
                        number = len(self.seen)
                    answer = self._answer(number, held[:end])
                    held = held[end:]
                    if answer:
                        client.sendall(answer)
                    if not answer or b"Connection: close" in answer:
                        return


def _end_of_request(held: bytes) -> int | None:
    head, found, _ = held.partition(b"\r\n\r\n")
    if not found:
        return None
    _, has_body, length = head.partition(b"Content-Length: ")
    end = len(head) + 4 + (int(length.split(b"\r\n")[0]) if has_body else 0)
    return end if len(held) >= end else None


def taking(clock: Clock, seconds: float) -> Callable[[int, bytes], bytes]:
    """One answer after the other, each of which takes so long."""

    def answer(number: int, request: bytes) -> bytes:
        clock.pass_s(seconds)
        return OK

    return answer


@contextmanager
def serving(answer: Callable[[int, bytes], bytes]) -> Iterator[Scripted]:
    server = Scripted(answer)
    try:
        yield server
    finally:
        server.close()


def drive(
    server: Scripted,
    requests: list[bytes],
    *,
    connections: int = 1,
    seconds: float = 0.1,
    warmup_s: float = 0.02,
    once: bool = False,
    per_second: float | None = None,
    expect: int = 200,
    clock: Clock | None = None,
) -> Outcome:
    plan = Plan(server.port, "", connections, seconds, warmup_s, once, per_second, expect)
    driver = Driver(plan, requests)
    if clock is not None:
        driver._selector = Patient(driver, clock)  # type: ignore[assignment]
    try:
        driver.open()
        return driver.run()
    finally:
        driver.close()


@pytest.mark.parametrize("connections", [1, 8])
def test_every_answer_the_server_gave_is_counted_and_the_warm_up_is_not_measured(
    connections: int, clock: Clock
) -> None:
    with serving(taking(clock, 0.001)) as server:
        seen = drive(server, [GET], connections=connections)
    assert seen.answered == len(server.seen)
    assert 0 < seen.measured < seen.answered
    assert server.connections == connections
    assert 0 < seen.p50_ms <= seen.p99_ms <= seen.max_ms
    assert seen.per_second == pytest.approx(seen.measured / seen.seconds)
    assert seen.core_share == pytest.approx(0.5, abs=0.1)  # looked at between answers, which may be many


@pytest.mark.parametrize("connections", [1, 3])
def test_latency_and_rate_agree_with_a_server_that_takes_a_known_time(connections: int, clock: Clock) -> None:
    together = threading.Barrier(connections, action=lambda: clock.pass_s(0.01))

    def slowly(number: int, request: bytes) -> bytes:
        together.wait()  # every connection has asked: all their answers take the same hundredth
        return OK

    with serving(slowly) as server:
        seen = drive(server, [GET], connections=connections, seconds=0.4)
    assert seen.p50_ms == pytest.approx(10) == seen.max_ms
    assert seen.per_second == pytest.approx(connections * 100, rel=0.05)


def test_once_sends_every_request_exactly_once_and_then_ends(clock: Clock) -> None:
    requests = [b"GET /%d HTTP/1.1\r\n\r\n" % number for number in range(100)]
    with serving(taking(clock, 0.001)) as server:
        seen = drive(server, requests, connections=4, seconds=30, once=True)
    assert sorted(server.seen) == sorted(requests)
    assert seen.answered == seen.measured == 100
    assert seen.seconds == pytest.approx(0.1)


def test_a_request_larger_than_any_buffer_arrives_whole() -> None:
    body = bytes(8 * 2**20)
    large = b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    with serving(lambda number, request: OK) as server:
        seen = drive(server, [large, GET, large], connections=2, seconds=30, once=True)
    assert sorted(map(len, server.seen)) == sorted([len(large), len(GET), len(large)])
    assert seen.answered == 3


@pytest.mark.parametrize("connections", [1, 4])
def test_a_connection_that_the_server_closes_after_an_answer_is_opened_again(
    connections: int, clock: Clock
) -> None:
    closing = OK.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n")

    def answer(number: int, request: bytes) -> bytes:
        clock.pass_s(0.001)
        return closing if number % 5 == 0 else OK

    with serving(answer) as server:
        seen = drive(server, [GET], connections=connections)
    assert seen.answered == len(server.seen) > 10
    assert server.connections > connections


def test_a_timetable_is_kept_and_latency_counts_from_when_a_request_was_due(clock: Clock) -> None:
    def stalls_once(number: int, request: bytes) -> bytes:
        if number == 20:
            clock.pass_s(0.1)
        return OK

    with serving(stalls_once) as server:
        seen = drive(server, [GET], seconds=0.5, warmup_s=0.0, per_second=200, clock=clock)
    assert seen.measured == pytest.approx(100, abs=1)
    assert seen.max_ms >= 100 - 1e-6
    # Those that fell due while the server stalled waited too, though none was sent.
    assert seen.p99_ms >= 80


@pytest.mark.parametrize("connections", [1, 4])
def test_a_wrong_status_ends_the_load_with_what_the_server_said(connections: int) -> None:
    refusal = b'HTTP/1.1 429 Too Many Requests\r\nContent-Length: 18\r\n\r\n{"error": "limit"}'
    with (
        serving(lambda number, request: refusal if number > 3 else OK) as server,
        pytest.raises(LoadFailed, match=r'429 where 200 is right: \{"error": "limit"\}'),
    ):
        drive(server, [GET], connections=connections, seconds=60)


@pytest.mark.parametrize("connections", [1, 4])
def test_a_connection_cut_before_its_answer_ends_the_load(connections: int) -> None:
    with (
        serving(lambda number, request: b"" if number > 3 else OK) as server,
        pytest.raises(LoadFailed),
    ):
        drive(server, [GET], connections=connections, seconds=60)


def test_once_says_when_time_ran_out(clock: Clock) -> None:
    with serving(taking(clock, 0.02)) as server, pytest.raises(LoadFailed, match="of 100 requests"):
        drive(server, [GET] * 100, seconds=0.1, once=True)


def test_nobody_listening_is_a_fault_of_the_load() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    driver = Driver(Plan(port, ""), [GET])
    with pytest.raises(LoadFailed, match="cannot connect"):
        driver.open()
    driver.close()


@pytest.mark.parametrize("plan", [Plan(1, "", connections=0), Plan(1, "", seconds=1e9)])
def test_plans_out_of_bounds_are_refused(plan: Plan) -> None:
    with pytest.raises(LoadFailed):
        Driver(plan, [GET])


def test_the_child_ends_early_when_its_parent_hangs_up(tmp_path: Path) -> None:
    write_requests(tmp_path / "requests", [GET])
    with serving(lambda number, request: OK) as server:
        plan = Plan(server.port, str(tmp_path / "requests"), 2, seconds=60)
        with subprocess.Popen(
            [sys.executable, "-m", "cli.bench.load"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as child:
            assert child.stdin is not None and child.stdout is not None
            child.stdin.write(json.dumps(asdict(plan)) + "\n")
            child.stdin.flush()
            assert child.stdout.readline() == "ready\n"
            child.stdin.write("go\n")
            child.stdin.close()
            answer = json.loads(child.stdout.readline())
            assert child.wait(60) == 0
    assert answer["answered"] == len(server.seen)


@given(requests=st.lists(st.binary(max_size=50), max_size=20))
def test_requests_survive_their_file(requests: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("requests") / "file"
    assert write_requests(path, requests) == len(requests)
    assert read_requests(path) == requests


@given(
    values=st.lists(st.floats(0, 1e6), min_size=1, max_size=300), share=st.sampled_from([0.5, 0.9, 0.99, 1.0])
)
def test_a_percentile_is_a_value_that_so_many_do_not_exceed(values: list[float], share: float) -> None:
    found = percentile(sorted(values), share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9
    assert sum(value < found for value in values) < share * len(values) + 1e-9


def test_the_percentile_of_nothing_is_zero() -> None:
    assert percentile([], 0.99) == 0.0
