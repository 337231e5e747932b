from hypothesis import given
from hypothesis import strategies as st

from protocol.clock import COUNTER_BITS, HLC_MAX, HybridClock, hlc_of_ms, is_due, ms_of_hlc
from protocol.limits import CLOCK_AHEAD_MAX_MS

moments = st.integers(0, (1 << 48) - 1)


@given(moments, st.integers(0, (1 << COUNTER_BITS) - 1))
def test_a_timestamp_holds_its_millisecond(now_ms: int, counter: int) -> None:
    assert ms_of_hlc(hlc_of_ms(now_ms) + counter) == now_ms
    assert hlc_of_ms(now_ms) + counter <= HLC_MAX


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 50), st.integers(0, 60 << COUNTER_BITS)), max_size=60)
)
def test_a_clock_never_gives_a_time_at_or_before_one_that_it_gave_or_observed(
    inputs: list[tuple[bool, int, int]],
) -> None:
    clock, latest = HybridClock(), 0
    for is_tick, now_ms, other in inputs:
        if is_tick:
            given_out = clock.tick(now_ms)
            assert given_out > latest
            assert given_out >= hlc_of_ms(now_ms)
            latest = given_out
        else:
            clock.observe(other, now_ms)
            if is_due(other, now_ms):
                latest = max(latest, other)


def test_many_ticks_in_one_millisecond_run_on_into_the_next() -> None:
    clock = HybridClock(hlc_of_ms(5) + (1 << COUNTER_BITS) - 1)
    assert clock.tick(5) == hlc_of_ms(6)


def test_a_clock_that_goes_backwards_does_not_take_timestamps_with_it() -> None:
    clock = HybridClock()
    before = clock.tick(1_000)
    assert clock.tick(10) == before + 1


def test_a_commit_is_due_up_to_five_minutes_ahead() -> None:
    assert is_due(hlc_of_ms(CLOCK_AHEAD_MAX_MS) + (1 << COUNTER_BITS) - 1, 0)
    assert not is_due(hlc_of_ms(CLOCK_AHEAD_MAX_MS + 1), 0)


def test_a_timestamp_too_far_ahead_never_drags_the_clock_along() -> None:
    clock = HybridClock()
    clock.observe(HLC_MAX, 1_000)
    assert clock.tick(1_000) == hlc_of_ms(1_000)
    clock.observe(hlc_of_ms(1_000 + CLOCK_AHEAD_MAX_MS), 1_000)
    assert clock.tick(1_000) == hlc_of_ms(1_000 + CLOCK_AHEAD_MAX_MS) + 1
