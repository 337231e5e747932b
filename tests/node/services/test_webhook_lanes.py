"""Order, pace and giving up, in memory and by a clock of our own."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from node.services.webhook_lanes import (
    DOWN_AFTER,
    DOWN_FIRST_MS,
    DOWN_MOST_MS,
    PENDING_COUNT_MAX,
    RETRY_AFTER_MAX_MS,
    RETRY_MS,
    UNDER_WAY_MAX,
    Lane,
    Waiting,
    retry_in_ms,
)
from node.services.webhook_records import Delivery

DAY_MS = 86_400_000


def _no_jitter() -> float:
    return 0.0


def _delivery(seq: int, instance: str = "", **more: Any) -> Delivery:
    return Delivery(seq, f"msg_{seq:x}_", "data.updated", "task", instance or f"t{seq}", 0, 100, **more)


def _lane(*deliveries: Delivery) -> Lane:
    lane = Lane()
    for delivery in deliveries:
        lane.add(delivery)
    return lane


def _started(lane: Lane, now_ms: int = 0) -> list[int]:
    found: list[int] = []
    while (waiting := lane.start(now_ms)) is not None:
        found.append(waiting.seq)
    return found


def test_a_few_are_under_way_at_a_time() -> None:
    lane = _lane(*map(_delivery, range(1, 10)))
    assert _started(lane) == list(range(1, UNDER_WAY_MAX + 1))
    assert lane.due_ms() is None, "nothing can start before something ends"
    lane.ended(lane.waiting[2])
    lane.drop(2)
    assert _started(lane) == [UNDER_WAY_MAX + 1]


def test_deliveries_about_one_instance_go_in_order() -> None:
    lane = _lane(_delivery(1, "a"), _delivery(2, "a"), _delivery(3, "b"))
    assert _started(lane) == [1, 3]
    first = lane.waiting[1]
    lane.ended(first)
    first.due_ms = 5_000  # it has failed
    assert _started(lane) == [], "the one after it waits with it"
    assert lane.due_ms() == 5_000
    assert _started(lane, 5_000) == [1]
    lane.ended(first)
    lane.drop(1)
    assert _started(lane, 5_000) == [2]


def test_a_receiver_that_is_down_is_tried_by_one_at_a_time_at_growing_distances() -> None:
    lane = _lane(*map(_delivery, range(1, 100)))
    now_ms, distances = 0, []
    for failures in range(1, 14):
        waiting = lane.start(now_ms)
        assert waiting is not None
        assert failures <= DOWN_AFTER or lane.start(now_ms) is None
        lane.ended(waiting)
        waiting.due_ms = now_ms + DAY_MS
        lane.failed(now_ms, None, _no_jitter)
        due_ms = lane.due_ms()
        assert due_ms is not None
        distances.append(due_ms - now_ms)
        now_ms = due_ms
    assert distances[:DOWN_AFTER] == [0, 0, DOWN_FIRST_MS]
    assert distances == sorted(distances) and distances[-1] == DOWN_MOST_MS
    lane.succeeded()
    assert len(_started(lane, now_ms)) == UNDER_WAY_MAX


def test_a_receiver_may_ask_for_a_rest() -> None:
    lane = _lane(*map(_delivery, range(1, 5)))
    lane.failed(1_000, 60_000, _no_jitter)
    assert lane.start(60_999) is None
    assert lane.due_ms() == 61_000
    assert lane.start(61_000) is not None
    lane.failed(0, 10 * DAY_MS, _no_jitter)
    assert lane.rest_until_ms == RETRY_AFTER_MAX_MS


def test_the_schedule_is_that_of_standard_webhooks_and_ends() -> None:
    delays = [retry_in_ms(round, None, _no_jitter) for round in range(1, len(RETRY_MS) + 2)]
    assert delays == [*RETRY_MS, None]
    assert sum(RETRY_MS) > 3 * DAY_MS
    assert retry_in_ms(1, 3_600_000, _no_jitter) == 3_600_000
    assert retry_in_ms(1, 10 * DAY_MS, _no_jitter) == RETRY_AFTER_MAX_MS
    assert retry_in_ms(len(RETRY_MS) + 1, 3_600_000, _no_jitter) is None


@given(st.floats(0, 1), st.integers(1, len(RETRY_MS)))
def test_jitter_only_delays(fraction: float, round: int) -> None:
    delay_ms = retry_in_ms(round, None, lambda: fraction)
    assert delay_ms is not None and RETRY_MS[round - 1] <= delay_ms <= RETRY_MS[round - 1] * 1.2


def test_a_lane_is_full_by_number_or_by_size() -> None:
    lane = _lane(*map(_delivery, range(PENDING_COUNT_MAX)))
    is_full = [lane.is_full]
    lane.drop(5)
    is_full.append(lane.is_full)
    lane.drop(5)
    assert lane.size_bytes == 100 * (PENDING_COUNT_MAX - 1)
    lane.share_room(10)
    assert [*is_full, lane.is_full] == [True, False, True]
    assert Lane(size_bytes=9 << 20).is_full


def test_what_begins_anew_is_due() -> None:
    lane = _lane(_delivery(1, next_ms=DAY_MS), _delivery(2))
    for _ in range(DOWN_AFTER):
        lane.failed(0, None, _no_jitter)
    lane.begin_anew(7)
    assert not lane.is_down
    assert _started(lane, 7) == [1, 2]


class Driven:
    """A lane driven by chance: what it starts, and that it keeps its promises while it does."""

    def __init__(self) -> None:
        self.lane = Lane()
        self.now_ms = 0
        self.under_way: list[Waiting] = []
        self.done: list[tuple[object, int]] = []
        self.seq = 0

    def do(self, step: tuple[str, int]) -> None:
        kind, number = step
        if kind == "add":
            self.seq += 1
            self.lane.add(_delivery(self.seq, f"t{number % 3}", next_ms=self.now_ms))
        elif kind == "pass":
            self.now_ms += number * 60_000
        elif kind == "start":
            waiting = self.lane.start(self.now_ms)
            if waiting is not None:
                assert waiting.due_ms <= self.now_ms
                self.under_way.append(waiting)
                assert len(self.under_way) <= UNDER_WAY_MAX
                assert len({each.subject for each in self.under_way}) == len(self.under_way)
        elif self.under_way:
            waiting = self.under_way.pop(number % len(self.under_way))
            self.lane.ended(waiting)
            if kind == "deliver":
                self.lane.succeeded()
                self.lane.drop(waiting.seq)
                self.done.append((waiting.subject, waiting.seq))
            else:
                self.lane.failed(self.now_ms, None, _no_jitter)
                waiting.due_ms = self.now_ms + 5_000


steps = st.tuples(
    st.sampled_from(["add", "add", "pass", "start", "start", "deliver", "fail"]), st.integers(0, 9)
)


@given(st.lists(steps, max_size=80))
def test_whatever_happens_nothing_is_lost_and_instances_stay_in_order(taken: list[tuple[str, int]]) -> None:
    driven = Driven()
    for step in taken:
        driven.do(step)
    while driven.lane.waiting:
        while driven.under_way:
            driven.do(("deliver", 0))
        driven.now_ms = max(driven.now_ms, driven.lane.due_ms() or 0)
        driven.do(("start", 0))
    assert sorted(seq for _, seq in driven.done) == list(range(1, driven.seq + 1))
    for subject in {subject for subject, _ in driven.done}:
        order = [seq for of, seq in driven.done if of == subject]
        assert order == sorted(order)
    assert driven.lane.size_bytes == 0
