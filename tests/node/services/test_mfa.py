import asyncio
from typing import Any

import pytest

from node.services.account_models import MFA
from node.services.lockout import FREE_PER_ACCOUNT, Source
from node.services.mfa import Enrolment
from node.services.refusals import (
    InvalidFields,
    MfaEnabled,
    MfaNotEnabled,
    MfaRequired,
    NotPermitted,
    TooManyAttempts,
    WrongCredentials,
    WrongMfaCode,
)
from node.services.totp import totp_code
from tests.node.fakes import FakeNode

HERE = Source.of("127.0.0.1", None)
PASSWORD = "securepassword123"


async def ann(node: FakeNode) -> Any:
    return await node.identity.accounts.register(
        "default", email="ann@example.org", username="ann", password=PASSWORD
    )


def code_of(node: FakeNode, enrolment: Enrolment, steps: int = 0) -> str:
    return totp_code(enrolment.secret, node.clock() // 30_000 + steps)


async def enrolled(node: FakeNode) -> tuple[Any, Enrolment]:
    """An account with a second factor, a step after it was put in force."""
    account = await ann(node)
    enrolment = await node.identity.mfa.enable(account)
    await node.identity.mfa.verify(account, code_of(node, enrolment), HERE)
    node.clock.pass_s(30)
    return node.identity.accounts.require("default", account.id), enrolment


async def sign_in(node: FakeNode, code: str | None = None, password: str = PASSWORD) -> Any:
    return await node.identity.accounts.prove("default", "ann@example.org", password, HERE, mfa_code=code)


async def test_a_secret_counts_once_a_code_of_it_was_seen(node: FakeNode) -> None:
    account = await ann(node)
    enrolment = await node.identity.mfa.enable(account)
    assert len(enrolment.secret) == 32 and len(set(enrolment.recovery_codes)) == 10
    assert "ann@example.org" in enrolment.uri and enrolment.secret in enrolment.uri
    assert (await sign_in(node)).mfa is None
    assert not [key for key in node.records.documents if key[1] == MFA]
    await node.identity.mfa.verify(account, code_of(node, enrolment), HERE)
    with pytest.raises(MfaRequired):
        await sign_in(node)
    node.clock.pass_s(30)
    signed_in = await sign_in(node, code_of(node, enrolment))
    assert signed_in.mfa.recovery_codes_left == 10


async def test_without_the_password_nothing_tells_of_a_second_factor(node: FakeNode) -> None:
    _, enrolment = await enrolled(node)
    for code in (None, "000000", code_of(node, enrolment)):
        with pytest.raises(WrongCredentials):
            await sign_in(node, code, password="wrong password")
    await sign_in(node, code_of(node, enrolment))  # a code beside a wrong password was not spent


async def test_of_many_sign_ins_with_one_code_one_gets_in_also_after_a_restart(node: FakeNode) -> None:
    _, enrolment = await enrolled(node)
    code = code_of(node, enrolment)
    with_one = [sign_in(node, code) for _ in range(3)]
    answers = await asyncio.gather(*with_one, return_exceptions=True)
    assert [type(answer) for answer in answers].count(WrongMfaCode) == 2
    node.restart()
    with pytest.raises(WrongMfaCode):
        await sign_in(node, code)
    node.clock.pass_s(30)
    with pytest.raises(WrongMfaCode):  # within the window, and not newer
        await sign_in(node, code)
    await sign_in(node, code_of(node, enrolment))


async def test_the_code_that_verified_does_not_sign_in(node: FakeNode) -> None:
    account = await ann(node)
    enrolment = await node.identity.mfa.enable(account)
    await node.identity.mfa.verify(account, code_of(node, enrolment), HERE)
    with pytest.raises(WrongMfaCode):
        await sign_in(node, code_of(node, enrolment))
    await sign_in(node, code_of(node, enrolment, +1))  # an app whose clock is ahead


async def test_a_clock_a_day_off_opens_nothing(node: FakeNode) -> None:
    _, enrolment = await enrolled(node)
    for steps in (-2880, -2, 2, 2880):
        with pytest.raises(WrongMfaCode):
            await sign_in(node, code_of(node, enrolment, steps))
        await node.identity.lockout.clear("default", "ann@example.org")


async def test_a_recovery_code_signs_in_once(node: FakeNode) -> None:
    account, enrolment = await enrolled(node)
    code = enrolment.recovery_codes[3]
    answers = await asyncio.gather(*(sign_in(node, code) for _ in range(3)), return_exceptions=True)
    assert [type(answer) for answer in answers].count(WrongMfaCode) == 2
    node.restart()
    with pytest.raises(WrongMfaCode):
        await sign_in(node, code)
    left = await sign_in(node, enrolment.recovery_codes[4].replace("-", " ").upper())
    assert node.identity.accounts.require("default", left.id).mfa.recovery_codes_left == 8  # type: ignore[union-attr]
    stored = node.records.stored("default", MFA, account.id)
    assert len(stored.values["codes"]) == 8
    assert not any(code in repr(stored) for code in enrolment.recovery_codes)


async def test_what_another_node_has_spent_is_spent_here(node: FakeNode) -> None:
    account, enrolment = await enrolled(node)
    other = FakeNode(seed=b"\x02" * 32, clock=node.clock)
    try:
        other.records.documents |= node.records.documents
        with pytest.raises(MfaRequired):
            await sign_in(other)
        await sign_in(other, code_of(node, enrolment))
        await sign_in(node, code_of(node, enrolment))  # steps belong to one node
        await sign_in(other, enrolment.recovery_codes[0])
        node.records.documents |= other.records.documents
        with pytest.raises(WrongMfaCode):
            await sign_in(node, enrolment.recovery_codes[0])
    finally:
        other.close()
    assert account.id


async def test_on_a_reader_a_recovery_code_is_spent_for_that_reader(node: FakeNode) -> None:
    account, enrolment = await enrolled(node)
    node.own_role = "reader"
    before = dict(node.records.documents)
    await sign_in(node, enrolment.recovery_codes[0])
    with pytest.raises(WrongMfaCode):
        await sign_in(node, enrolment.recovery_codes[0])
    assert node.records.documents == before
    assert node.identity.accounts.require("default", account.id).mfa.recovery_codes_left == 9  # type: ignore[union-attr]


async def test_nothing_begins_on_a_reader(node: FakeNode) -> None:
    account = await ann(node)
    node.own_role = "reader"
    with pytest.raises(NotPermitted):
        await node.identity.mfa.enable(account)


async def test_codes_cannot_be_guessed_without_end(node: FakeNode) -> None:
    """Asking without a code in between starts no count again."""
    await enrolled(node)
    for _ in range(FREE_PER_ACCOUNT):
        with pytest.raises(MfaRequired):
            await sign_in(node)
        with pytest.raises(WrongMfaCode):
            await sign_in(node, "000000")
    with pytest.raises(TooManyAttempts):
        await sign_in(node, "000000")
    with pytest.raises(TooManyAttempts):
        await sign_in(node)


async def test_nor_by_who_holds_a_session(node: FakeNode) -> None:
    account, _ = await enrolled(node)
    for _ in range(FREE_PER_ACCOUNT):
        with pytest.raises(InvalidFields):
            await node.identity.mfa.verify(account, "000000", HERE)
    with pytest.raises(TooManyAttempts):
        await node.identity.mfa.verify(account, "000000", HERE)


async def test_verifying_clears_no_failures_of_the_password(node: FakeNode) -> None:
    account = await ann(node)
    for _ in range(FREE_PER_ACCOUNT - 1):
        with pytest.raises(WrongCredentials):
            await sign_in(node, password="wrong password")
        enrolment = await node.identity.mfa.enable(account)
        if node.identity.mfa.status("default", account.id) is None:
            await node.identity.mfa.verify(account, code_of(node, enrolment), HERE)
            await node.identity.mfa.disable("default", account.id, by=account.id)
    with pytest.raises(WrongCredentials):
        await sign_in(node, password="wrong password")
    with pytest.raises(TooManyAttempts):
        await sign_in(node)


async def test_a_secret_waits_an_hour_and_a_newer_one_takes_its_place(node: FakeNode) -> None:
    account = await ann(node)
    first = await node.identity.mfa.enable(account)
    second = await node.identity.mfa.enable(account)
    with pytest.raises(InvalidFields):
        await node.identity.mfa.verify(account, code_of(node, first), HERE)
    node.clock.pass_s(3601)
    with pytest.raises(MfaNotEnabled):
        await node.identity.mfa.verify(account, code_of(node, second), HERE)
    await node.identity.sweep([])
    assert not list(node.local.scan("mfa-pending"))


@pytest.mark.parametrize("code", ["", "12345", 123456, None, "let me in please"])
async def test_what_is_no_code_counts_as_no_failure(node: FakeNode, code: object) -> None:
    account = await ann(node)
    await node.identity.mfa.enable(account)
    for _ in range(FREE_PER_ACCOUNT + 1):
        with pytest.raises(InvalidFields):
            await node.identity.mfa.verify(account, code, HERE)


async def test_disabled_it_asks_no_more_and_can_be_enabled_anew(node: FakeNode) -> None:
    account, enrolment = await enrolled(node)
    with pytest.raises(MfaEnabled):
        await node.identity.mfa.enable(account)
    await node.identity.mfa.disable("default", account.id, by="admin")
    assert (await sign_in(node)).mfa is None
    assert not await node.identity.mfa.accepts("default", account.id, enrolment.recovery_codes[0])
    again = await node.identity.mfa.enable(account)
    await node.identity.mfa.verify(account, code_of(node, again), HERE)  # in the very step of the old secret
    with pytest.raises(MfaRequired):
        await sign_in(node)
    assert not await node.identity.mfa.accepts("default", account.id, enrolment.recovery_codes[0])


async def test_both_factors_confirm_what_is_weighty(node: FakeNode) -> None:
    account, enrolment = await enrolled(node)
    confirm = node.identity.accounts.confirm_all
    with pytest.raises(InvalidFields) as refused:
        await confirm(account, "wrong password", code_of(node, enrolment), HERE)
    assert set(refused.value.faults) == {"password"}
    with pytest.raises(InvalidFields) as refused:
        await confirm(account, PASSWORD, "000000", HERE)
    assert set(refused.value.faults) == {"code"}
    await confirm(account, PASSWORD, code_of(node, enrolment), HERE)
    await node.identity.mfa.disable("default", account.id, by=account.id)
    with pytest.raises(MfaNotEnabled):
        await confirm(
            node.identity.accounts.require("default", account.id),
            PASSWORD,
            code_of(node, enrolment, 1),
            HERE,
        )


async def test_new_recovery_codes_replace_all_before(node: FakeNode) -> None:
    account, enrolment = await enrolled(node)
    codes = await node.identity.mfa.renew_codes("default", account.id)
    assert len(codes) == 10 and not set(codes) & set(enrolment.recovery_codes)
    assert not await node.identity.mfa.accepts("default", account.id, enrolment.recovery_codes[0])
    assert await node.identity.mfa.accepts("default", account.id, codes[0])


async def test_of_two_sets_made_apart_one_counts(node: FakeNode) -> None:
    """The set merges, so after both nodes have met it holds the codes of both."""
    account, _ = await enrolled(node)
    key = ("default", MFA, account.id)
    here = await node.identity.mfa.renew_codes("default", account.id)
    codes_here = node.records.stored(*key).values["codes"]
    there = await node.identity.mfa.renew_codes("default", account.id)
    node.records.documents[key].values["codes"] += codes_here
    assert node.identity.mfa.status("default", account.id).recovery_codes_left == 10  # type: ignore[union-attr]
    assert not await node.identity.mfa.accepts("default", account.id, here[0])
    assert await node.identity.mfa.accepts("default", account.id, there[0])


@pytest.mark.parametrize("values", [{"secret": "no base32"}, {"secret": "JBSWY3DPEHPK3PXP"}, {"secret": ""}])
async def test_a_broken_second_factor_from_a_peer_lets_nobody_in(node: FakeNode, values: Any) -> None:
    account = await ann(node)
    await node.records.create("default", MFA, values, user=account.id, id=account.id)
    with pytest.raises(MfaRequired):
        await sign_in(node)
    with pytest.raises(WrongMfaCode):
        await sign_in(node, "000000")
