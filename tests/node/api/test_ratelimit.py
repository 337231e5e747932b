from hypothesis import given
from hypothesis import strategies as st

from node.api.ratelimit import KEYS_MAX, RateLimiter, RatePolicy


def passes(limiter: RateLimiter, key: str, now_s: int, signed_in: bool = True) -> bool:
    return limiter.take(key, signed_in, now_s)[1]


def test_each_key_has_its_own_count_and_the_window_ends_on_the_hour() -> None:
    limiter = RateLimiter(RatePolicy(3600, 2, 1))
    assert [passes(limiter, "a", 7199) for _ in range(3)] == [True, True, False]
    assert passes(limiter, "b", 7199)
    assert limiter.reset_s == 7200
    assert passes(limiter, "a", 7200)


def test_strangers_have_less() -> None:
    limiter = RateLimiter(RatePolicy(3600, 2, 1))
    assert [passes(limiter, "ip", 0, signed_in=False) for _ in range(2)] == [True, False]


def test_the_headers_say_the_limit_what_is_left_and_the_reset() -> None:
    limiter = RateLimiter(RatePolicy(60, 5, 1))
    lines, _ = limiter.take("a", True, 59)
    assert lines == b"X-RateLimit-Limit: 5\r\nX-RateLimit-Reset: 60\r\nX-RateLimit-Remaining: 4\r\n"


def test_a_clock_set_back_does_not_lock_anybody_out() -> None:
    limiter = RateLimiter(RatePolicy(3600, 1, 1))
    assert passes(limiter, "a", 100_000)
    assert not passes(limiter, "a", 100_000)
    assert passes(limiter, "a", 0)


def test_a_flood_of_keys_shares_one_count_and_spares_who_was_there() -> None:
    limiter = RateLimiter(RatePolicy(3600, 10, 10))
    assert passes(limiter, "early", 0)
    for number in range(KEYS_MAX):
        limiter.take(f"key-{number}", True, 0)
    late = sum(passes(limiter, f"late-{number}", 0) for number in range(100))
    assert late <= 10
    assert passes(limiter, "early", 0)
    assert len(limiter._counts) <= KEYS_MAX + 1


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 300)), max_size=200),
    st.integers(1, 5),
)
def test_nobody_gets_more_than_the_limit_in_a_window(requests: list[tuple[str, int]], limit: int) -> None:
    limiter = RateLimiter(RatePolicy(60, limit, limit))
    passed: dict[tuple[str, int], int] = {}
    for key, now_s in sorted(requests, key=lambda request: request[1]):
        if passes(limiter, key, now_s):
            passed[key, now_s // 60] = passed.get((key, now_s // 60), 0) + 1
    assert all(count <= limit for count in passed.values())
