"""Who may knock: a flood is kept out, and keeps nobody else out."""

import pytest

from node.net.limits import (
    HOSTS_MAX,
    KNOCKING_MAX,
    KNOCKING_PER_HOST_MAX,
    KNOCKS_AT_ONCE,
    KNOCKS_PER_S,
    LINKS_PER_HOST_MAX,
    Doorkeeper,
    source_of,
)
from tests.node.net.wires import Time


def doorkeeper() -> tuple[Doorkeeper, Time]:
    time = Time()
    return Doorkeeper(steady_ms=time.steady_ms), time


def test_one_address_may_knock_some_times_at_once_and_then_at_a_pace() -> None:
    keeper, time = doorkeeper()
    taken = 0
    for number in range(200):
        may, _ = keeper.knock(number, "10.0.0.1")
        taken += may
        keeper.leave(number)
    assert taken == KNOCKS_AT_ONCE
    assert keeper.knock("other", "10.0.0.2") == (True, None)
    time.pass_s(1)
    again = sum(keeper.knock(1_000 + number, "10.0.0.1")[0] for number in range(100))
    assert again == KNOCKS_PER_S


def test_a_flood_from_one_address_displaces_its_own_oldest() -> None:
    keeper, _ = doorkeeper()
    keeper.knock("honest", "10.0.0.9")
    for number in range(KNOCKING_PER_HOST_MAX):
        assert keeper.knock(number, "10.0.0.1") == (True, None)
    assert keeper.knock("next", "10.0.0.1") == (True, 0)
    assert keeper.knock("after", "10.0.0.1") == (True, 1)
    assert keeper.knocking == KNOCKING_PER_HOST_MAX + 1


def test_a_flood_from_many_addresses_displaces_those_that_come_in_crowds_first() -> None:
    keeper, _ = doorkeeper()
    keeper.knock("honest", "10.9.9.9")
    for number in range(KNOCKING_MAX - 1):
        keeper.knock(number, f"10.0.0.{number % 4}")
    may, displaced = keeper.knock("late", "10.8.8.8")
    assert may and displaced != "honest"
    assert keeper.knocking == KNOCKING_MAX


def test_with_nobody_in_a_crowd_the_oldest_goes() -> None:
    keeper, _ = doorkeeper()
    for number in range(KNOCKING_MAX):
        keeper.knock(number, f"10.0.0.{number}")
    assert keeper.knock("late", "10.8.8.8") == (True, 0)


def test_who_has_proved_itself_does_not_count_as_knocking_but_as_inside() -> None:
    keeper, time = doorkeeper()
    for number in range(LINKS_PER_HOST_MAX):
        time.pass_s(1)
        assert keeper.knock(number, "10.0.0.1") == (True, None)
        keeper.let_in(number)
    assert keeper.knocking == 0
    time.pass_s(1)
    assert keeper.knock("one more", "10.0.0.1") == (False, None)
    assert keeper.knock("elsewhere", "10.0.0.2") == (True, None)
    keeper.leave(0)
    assert keeper.knock("one more", "10.0.0.1") == (True, None)


def test_what_is_remembered_of_addresses_is_bounded() -> None:
    keeper, _ = doorkeeper()
    for number in range(HOSTS_MAX + 500):
        keeper.knock(number, f"10.{number // 65536}.{number // 256 % 256}.{number % 256}")
        keeper.leave(number)
    assert len(keeper._buckets) == HOSTS_MAX


@pytest.mark.parametrize(
    ("host", "source"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("not an address", "not an address"),
    ],
)
def test_addresses_of_one_home_count_as_one(host: str, source: str) -> None:
    assert source_of(host) == source
