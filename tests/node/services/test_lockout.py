import asyncio
from typing import Any

import pytest

from node.services import lockout
from node.services.lockout import (
    DELAY_MAX_MS,
    FAILURES_MAX,
    FREE_PER_ACCOUNT,
    FREE_PER_SOURCE,
    Lockout,
    Source,
)
from node.services.refusals import TooBusy, TooManyAttempts, WrongCredentials
from tests.node.fakes import Clock, FakeLocal

HOME = Source.of("192.0.2.1", None)
AWAY = Source.of("192.0.2.2", None)


class Guesser:
    def __init__(self) -> None:
        self.clock = Clock()
        self.local = FakeLocal()
        self.lockout = Lockout(self.local, now_ms=self.clock)

    async def guess(self, source: Any = HOME, email: Any = "ann@example.org", *, right: Any = False) -> Any:
        """Seconds to wait if refused, else None: the password was looked at."""
        try:
            async with self.lockout.attempt("default", email, source) as attempt:
                if not right:
                    raise WrongCredentials
                await attempt.passed()
        except WrongCredentials:
            return None
        except TooManyAttempts as refused:
            return refused.wait_ms / 1000
        return None


@pytest.fixture
def guesser() -> Any:
    return Guesser()


async def test_five_guesses_are_free_and_then_the_wait_doubles_to_an_hour(guesser: Guesser) -> None:
    for _ in range(FREE_PER_ACCOUNT):
        assert await guesser.guess() is None
    for wait_s in (30, 60, 120, 240, 480, 960, 1920, 3600, 3600):
        assert await guesser.guess() == wait_s
        guesser.clock.pass_s(wait_s - 1)
        assert await guesser.guess() == 1
        guesser.clock.pass_s(1)
        assert await guesser.guess() is None


async def test_a_refused_guess_costs_no_write_and_makes_nothing_worse(guesser: Guesser) -> None:
    for _ in range(FREE_PER_ACCOUNT):
        await guesser.guess()
    writes = guesser.local.writes
    for _ in range(200):
        assert await guesser.guess() == 30
    assert guesser.local.writes == writes
    guesser.clock.pass_s(30)
    assert await guesser.guess(right=True) is None


async def test_a_right_password_starts_the_count_again(guesser: Guesser) -> None:
    for _ in range(FREE_PER_ACCOUNT - 1):
        await guesser.guess()
    await guesser.guess(right=True)
    for _ in range(FREE_PER_ACCOUNT):
        assert await guesser.guess() is None
    assert await guesser.guess() == 30


async def test_guessing_from_elsewhere_does_not_shut_the_owner_out(guesser: Guesser) -> None:
    await guesser.guess(right=True)
    for _ in range(200):
        await guesser.guess(AWAY)
    assert await guesser.guess(right=True) is None
    # Nor does it from anywhere else, where the owner has never been.
    assert await guesser.guess(Source.of("192.0.2.3", None), right=True) is None


async def test_parallel_guesses_are_counted_before_the_password_is_looked_at(guesser: Guesser) -> None:
    looked = 0

    async def guess() -> None:
        nonlocal looked
        async with guesser.lockout.attempt("default", "ann@example.org", HOME):
            looked += 1
            await asyncio.sleep(0)
            raise WrongCredentials

    answers = await asyncio.gather(*(guess() for _ in range(25)), return_exceptions=True)
    assert looked == FREE_PER_ACCOUNT
    assert sum(isinstance(answer, TooManyAttempts) for answer in answers) == 25 - FREE_PER_ACCOUNT


async def test_many_right_passwords_at_once_all_pass(guesser: Guesser) -> None:
    assert await asyncio.gather(*(guesser.guess(right=True) for _ in range(25))) == [None] * 25


async def test_counts_survive_a_crash_in_the_middle_of_a_guess(guesser: Guesser) -> None:
    for _ in range(FREE_PER_ACCOUNT):
        attempt = guesser.lockout.attempt("default", "ann@example.org", HOME)
        await attempt.__aenter__()  # and then the power goes
        guesser.lockout = Lockout(guesser.local, now_ms=guesser.clock)
    assert await guesser.guess() == 30


async def test_after_a_hundred_failures_in_all_only_known_sources_are_let_in(guesser: Guesser) -> None:
    await guesser.guess(right=True)
    for n in range(FAILURES_MAX):
        assert await guesser.guess(Source.of(f"198.51.100.{n}", None)) is None
    assert await guesser.guess(Source.of("203.0.113.1", None), right=True) == DELAY_MAX_MS / 1000
    assert await guesser.guess(HOME, right=True) is None
    assert await guesser.guess(Source.of("203.0.113.1", None), right=True) is None


async def test_forgetting_the_longest_quiet_sources_gives_no_guess_beyond_the_hundred(
    guesser: Guesser,
) -> None:
    looked = 0
    for n in range(400):
        looked += await guesser.guess(Source.of(f"10.0.{n % 200}.{n // 200}", None)) is None
    assert looked == FAILURES_MAX


async def test_setting_a_password_clears_the_count(guesser: Guesser) -> None:
    for n in range(FAILURES_MAX):
        await guesser.guess(Source.of(f"198.51.100.{n}", None))
    await guesser.lockout.clear("default", "ann@example.org")
    assert await guesser.guess(right=True) is None


async def test_one_source_trying_many_accounts_is_slowed(guesser: Guesser) -> None:
    for n in range(FREE_PER_SOURCE):
        assert await guesser.guess(email=f"user{n}@example.org") is None
    assert await guesser.guess(email="another@example.org") == 30
    assert await guesser.guess(AWAY, email="another@example.org") is None
    guesser.clock.pass_s(30)
    assert await guesser.guess(email="another@example.org") is None
    assert await guesser.guess(email="third@example.org") == 60


async def test_a_source_its_owner_has_used_before_is_not_slowed_by_guesses_at_others(
    guesser: Guesser,
) -> None:
    await guesser.guess(right=True)
    for n in range(FREE_PER_SOURCE + 5):
        await guesser.guess(email=f"user{n}@example.org")
    assert await guesser.guess(email="new@example.org", right=True) == 30
    assert await guesser.guess(right=True) is None


async def test_an_own_account_does_not_reset_what_a_source_failed_elsewhere(guesser: Guesser) -> None:
    for n in range(FREE_PER_SOURCE - 1):
        await guesser.guess(email=f"user{n}@example.org")
        await guesser.guess(email="mallory@example.org", right=True)
    assert await guesser.guess(email="victim@example.org") is None
    assert await guesser.guess(email="another@example.org") == 30


async def test_a_source_starts_afresh_after_an_hour(guesser: Guesser) -> None:
    for n in range(FREE_PER_SOURCE):
        await guesser.guess(email=f"user{n}@example.org")
    guesser.clock.pass_s(3601)
    for n in range(FREE_PER_SOURCE):
        assert await guesser.guess(email=f"later{n}@example.org") is None


async def test_what_was_never_looked_at_does_not_count(guesser: Guesser) -> None:
    for _ in range(50):
        with pytest.raises(TooBusy):
            async with guesser.lockout.attempt("default", "ann@example.org", HOME):
                raise TooBusy
    for _ in range(FREE_PER_ACCOUNT):
        assert await guesser.guess() is None


async def test_applications_are_counted_apart(guesser: Guesser) -> None:
    for _ in range(FREE_PER_ACCOUNT):
        await guesser.guess()
    async with guesser.lockout.attempt("app_1", "ann@example.org", HOME) as attempt:
        await attempt.passed()


async def test_records_hold_no_address_and_go_when_they_say_nothing_more(guesser: Guesser) -> None:
    await guesser.guess()
    assert not any(
        "ann" in repr(entry) or "192.0.2" in repr(entry) for entry in guesser.local.entries.items()
    )
    guesser.clock.pass_s(lockout.FORGET_MS / 1000 + 1)
    await guesser.lockout.sweep()
    assert not guesser.local.entries


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("192.0.2.1", "192.0.2.2", False),
        (None, "192.0.2.1", False),
    ],
)
def test_a_source_is_what_one_subscriber_holds(one: Any, other: Any, same: Any) -> None:
    assert (Source.of(one, None) == Source.of(other, None)) is same


def test_apps_of_different_origins_on_one_device_are_different_sources() -> None:
    one, other = (
        Source.of("127.0.0.1", "http://localhost:3000"),
        Source.of("127.0.0.1", "http://localhost:4000"),
    )
    assert one.label != other.label and one.address == other.address
