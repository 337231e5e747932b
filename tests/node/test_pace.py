"""Threads that work long rest while somebody waits for the loop, and only then."""

import selectors
import socket
import sys
from collections.abc import Iterator

import pytest

from node.pace import BRIEF_S, LONG_TURN_S, PAUSE_S, QUIET_S, WORK_S, Pace, Pauses


class Time:
    def __init__(self) -> None:
        self.now = 100.0
        self.rested: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.rested.append(self.now)
        self.now += seconds


@pytest.fixture
def time() -> Time:
    return Time()


def works(time: Time, pauses: Pauses, seconds: float) -> int:
    """Work for so long, in steps of a tenth of a millisecond; how often that rested."""
    before, until = len(time.rested), time.now + seconds
    while time.now < until:
        time.now += 0.000_1
        pauses()
    return len(time.rested) - before


def test_nobody_rests_while_nobody_waits(time: Time) -> None:
    pace = Pace(clock=time)
    pauses = Pauses(pace, time.sleep)
    assert works(time, pauses, 1) == 0
    pace.begin(1)
    assert works(time, pauses, BRIEF_S / 2) > 0
    pace.end(1)
    assert works(time, pauses, 1) == 0


def test_under_a_flood_of_requests_a_thread_rests_often_and_goes_on(time: Time) -> None:
    pace = Pace(clock=time)
    pauses = Pauses(pace, time.sleep)
    for request in range(1_000):
        pace.begin(request)
        works(time, pauses, BRIEF_S / 2)
        pace.end(request - 1)
    rests = [later - earlier for earlier, later in zip(time.rested, time.rested[1:], strict=False)]
    assert len(rests) > 1_000
    assert min(rests) >= PAUSE_S + WORK_S  # it worked in between
    assert max(rests) < 3 * (PAUSE_S + WORK_S)


def test_a_request_that_takes_long_holds_up_nobody_for_long(time: Time) -> None:
    pace = Pace(clock=time)
    pauses = Pauses(pace, time.sleep)
    pace.begin(1)
    assert works(time, pauses, BRIEF_S) > 0
    assert works(time, pauses, 1) == 0
    pace.begin(2)
    pace.begin(3)
    time.now += BRIEF_S / 2
    pace.end(2)
    assert works(time, pauses, BRIEF_S / 4) > 0  # for the third
    pace.end(3)
    assert works(time, pauses, 1) == 0
    pace.end(1)
    pace.end(1)  # as of one that was refused before it was noted
    assert works(time, pauses, 1) == 0


@pytest.fixture
def turn_s() -> Iterator[float]:
    """How long a thread keeps the interpreter."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(LONG_TURN_S / 5)
    yield sys.getswitchinterval()
    sys.setswitchinterval(before)


def test_turns_are_longer_while_long_work_goes_on_and_nobody_asks(time: Time, turn_s: float) -> None:
    pace = Pace(clock=time)
    pauses = Pauses(pace, time.sleep)
    works(time, pauses, 2 * QUIET_S)
    assert sys.getswitchinterval() == turn_s  # nothing that takes long is under way
    for _ in range(1_000):
        pace.begin_long()
        pace.end_long()
    assert sys.getswitchinterval() == turn_s
    pace.begin_long()
    pace.begin_long()
    works(time, pauses, QUIET_S)
    assert sys.getswitchinterval() == pytest.approx(LONG_TURN_S)
    pace.begin(1)  # at once
    assert sys.getswitchinterval() == turn_s
    works(time, pauses, QUIET_S / 2)
    pace.end(1)
    works(time, pauses, QUIET_S / 4)
    assert sys.getswitchinterval() == turn_s
    works(time, pauses, QUIET_S)
    assert sys.getswitchinterval() == pytest.approx(LONG_TURN_S)
    pace.end_long()
    pace.end_long()
    assert sys.getswitchinterval() == turn_s


@pytest.fixture
def waited_at() -> Iterator[tuple[selectors.BaseSelector, socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs, selectors.DefaultSelector() as selector:
        selector.register(ours, selectors.EVENT_READ)
        yield selector, ours, theirs


def test_threads_rest_as_long_as_something_came_that_the_loop_has_not_read(
    time: Time, waited_at: tuple[selectors.BaseSelector, socket.socket, socket.socket]
) -> None:
    selector, ours, theirs = waited_at
    fileno = getattr(selector, "fileno", None)
    if fileno is None:
        pytest.skip("what a loop waits at cannot be asked on this system")
    pace = Pace(fileno(), clock=time)
    one, other = Pauses(pace, time.sleep), Pauses(pace, time.sleep)  # two threads, each with its own
    assert works(time, one, 0.1) == 0
    theirs.send(b"GET / HTTP/1.1")
    assert works(time, one, 0.1) > 10
    assert works(time, other, 0.1) > 10
    selector.select(0)  # the loop has seen it, but not read it
    assert works(time, one, 0.1) > 10
    ours.recv(100)
    assert works(time, one, 0.1) == works(time, other, 0.1) == 0
