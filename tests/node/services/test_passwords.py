import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.services.passwords import Passwords, password_fault
from node.services.refusals import TooBusy
from tests.node.fakes import quick_passwords

KEY = bytes(range(32))


@pytest.fixture
def passwords() -> Any:
    made = quick_passwords()
    yield made
    made.close()


async def test_a_verifier_fits_its_password_and_no_other(passwords: Passwords) -> None:
    verifier = await passwords.make_verifier("correct horse", KEY)
    assert verifier.startswith("$argon2id$v=19$m=8,t=1,p=1$")
    assert await passwords.open(verifier, "correct horse") == KEY
    assert await passwords.open(verifier, "correct horsf") is None
    assert await passwords.open(verifier, "correct horse ") is None


async def test_two_verifiers_of_one_password_differ(passwords: Passwords) -> None:
    assert await passwords.make_verifier("same again", KEY) != await passwords.make_verifier(
        "same again", KEY
    )


async def test_a_password_typed_in_another_unicode_form_is_the_same(passwords: Passwords) -> None:
    verifier = await passwords.make_verifier("pa\u00dfw\u00f6rter", KEY)
    assert await passwords.open(verifier, "pa\u00dfwo\u0308rter") == KEY


@pytest.mark.parametrize(
    "verifier",
    [
        None,
        "",
        "password",
        "$argon2id$v=19$m=99999999,t=2,p=1$" + "A" * 22 + "$" + "A" * 96,  # asks for 95 GiB
        "$argon2id$v=19$m=1048576,t=2,p=1$" + "A" * 22 + "$" + "A" * 96,  # asks for 1 GiB
        "$argon2id$v=19$m=8,t=999,p=1$" + "A" * 22 + "$" + "A" * 96,
        "$argon2id$v=19$m=8,t=0,p=1$" + "A" * 22 + "$" + "A" * 96,
        "$argon2id$v=19$m=0,t=1,p=1$" + "A" * 22 + "$" + "A" * 96,
        "$argon2i$v=19$m=8,t=3,p=1$" + "A" * 22 + "$" + "A" * 96,
        "$argon2id$v=19$m=8,t=1,p=1$" + "A" * 22 + "$" + "A" * 96 + "\n",
        "$2b$12$" + "A" * 53,
    ],
)
async def test_no_verifier_from_elsewhere_can_match_or_exhaust_the_node(
    passwords: Passwords, verifier: Any
) -> None:
    assert await passwords.open(verifier, "anything at all") is None


async def test_the_stand_in_for_an_unknown_account_is_a_real_check(
    passwords: Passwords, monkeypatch: pytest.MonkeyPatch
) -> None:
    verifier = await passwords.make_verifier("something else", KEY)
    original = passwords._run
    checks: list[object] = []

    async def counted(work: Callable[[], Any]) -> Any:
        checks.append(work)
        return await original(work)

    monkeypatch.setattr(passwords, "_run", counted)
    assert await passwords.open(None, "anything at all") is None
    assert await passwords.open(verifier, "anything at all") is None
    assert len(checks) == 2


async def test_older_parameters_are_noticed(passwords: Passwords) -> None:
    old = await passwords.make_verifier("good enough", KEY)
    stronger = Passwords(memory_bytes=16384, passes=1)
    try:
        assert stronger.is_outdated(old)
        assert await stronger.open(old, "good enough") == KEY
        assert not stronger.is_outdated(await stronger.make_verifier("good enough", KEY))
        assert not stronger.is_outdated("not a verifier")
    finally:
        stronger.close()


async def test_too_many_at_once_are_turned_away_and_the_rest_are_served() -> None:
    passwords = Passwords(memory_bytes=8192, passes=1, threads=1, queue_max=3)
    try:
        answers = await asyncio.gather(
            *(passwords.open(None, "anything at all") for _ in range(10)), return_exceptions=True
        )
        assert answers.count(None) == 4
        assert sum(isinstance(answer, TooBusy) for answer in answers) == 6
        assert await passwords.open(None, "anything at all") is None  # the queue is free again
    finally:
        passwords.close()


@pytest.mark.parametrize(
    "password", [None, "", "seven77", "x" * 1025, 12345678, ["password"], "lone \ud800 half"]
)
def test_unacceptable_passwords_are_named(password: str) -> None:
    assert password_fault(password)


@pytest.mark.parametrize("password", ["eight888", "x" * 1024, "\u0000" * 8, "пароль-пароль"])
def test_acceptable_passwords_are_not(password: str) -> None:
    assert password_fault(password) is None


@given(st.text(max_size=1100))
async def test_any_text_can_be_checked(text: str) -> None:
    passwords = quick_passwords()
    try:
        assert await passwords.open("$argon2id$v=19$m=8,t=1,p=1$" + "A" * 22 + "$" + "A" * 96, text) is None
    finally:
        passwords.close()
