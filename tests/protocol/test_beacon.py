"""Names on the local network that only members of the same network recognise."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.beacon import HOUR_MS, HOURS_APART_MAX, NAME_BYTES, TAG_BYTES, Beacon
from protocol.errors import LocalMisuse
from protocol.ids import NetworkId

HERE, ELSEWHERE = Beacon(NetworkId(b"n" * 32)), Beacon(NetworkId(b"m" * 32))
NAME = b"nameless"
NOW_MS = 1_700_000_000_000
HOUR = NOW_MS // HOUR_MS


def test_a_tag_is_recognised_by_its_own_network_alone() -> None:
    tag = HERE.tag(NAME, HOUR)
    assert HERE.is_ours(NAME, tag, NOW_MS)
    assert not ELSEWHERE.is_ours(NAME, tag, NOW_MS)
    assert not HERE.is_ours(b"renamed.", tag, NOW_MS)


@given(apart=st.integers(-100, 100))
def test_clocks_may_be_a_day_apart_and_not_much_more(apart: int) -> None:
    tag = HERE.tag(NAME, HOUR + apart)
    assert HERE.is_ours(NAME, tag, NOW_MS) is (abs(apart) <= HOURS_APART_MAX)


def test_a_name_and_an_hour_give_a_tag_that_tells_nothing_of_either_network() -> None:
    tags = {beacon.tag(bytes([n]) * NAME_BYTES, HOUR + n) for beacon in (HERE, ELSEWHERE) for n in range(50)}
    assert len(tags) == 100
    assert {len(tag) for tag in tags} == {TAG_BYTES}


@given(name=st.binary(max_size=20), tag=st.binary(max_size=40), now_ms=st.integers(0, (1 << 48) - 1))
def test_whatever_is_announced_is_judged_and_nothing_raises(name: bytes, tag: bytes, now_ms: int) -> None:
    assert not HERE.is_ours(name, tag, now_ms)


def test_a_clock_at_its_beginning_is_judged_too() -> None:
    assert HERE.is_ours(NAME, HERE.tag(NAME, 3), 0)


def test_a_name_of_another_length_is_a_mistake_of_ours() -> None:
    with pytest.raises(LocalMisuse):
        HERE.tag(b"short", HOUR)
