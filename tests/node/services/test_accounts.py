import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.services.account_models import ACCOUNT, ADMIN_ACCOUNT, ADMIN_KEY, APIKEY, MFA, ROLE
from node.services.account_rules import check_email
from node.services.accounts import NAMESAKES_MAX
from node.services.lockout import Source
from node.services.passwords import Passwords
from node.services.refusals import (
    EmailTaken,
    InvalidFields,
    NotPermitted,
    TooManyAttempts,
    UnknownAccount,
    WrongCredentials,
    WrongPassword,
)
from tests.node.fakes import FakeNode, quick_passwords

HERE = Source.of("127.0.0.1", None)
PASSWORD = "securepassword123"


async def ann(node: FakeNode, **changes: Any) -> Any:
    said = {"email": "Ann@Example.org", "username": "ann", "password": PASSWORD} | changes
    return await node.identity.accounts.register(said.pop("application", "default"), **said)


async def prove(
    node: FakeNode, email: Any = "ann@example.org", password: Any = PASSWORD, application: Any = "default"
) -> Any:
    return await node.identity.accounts.prove(application, email, password, HERE)


async def test_who_registers_can_sign_in_under_any_spelling_of_the_address(node: FakeNode) -> None:
    account = await ann(node)
    assert account.email == "ann@example.org" and not account.is_admin and not account.is_disabled
    for email in ("ann@example.org", " ANN@EXAMPLE.ORG "):
        assert (await prove(node, email)).id == account.id


async def test_an_account_is_its_own_author_and_keeps_no_password(node: FakeNode) -> None:
    account = await ann(node)
    record = node.records.stored("default", ACCOUNT, account.id)
    assert record.created_by == account.id
    assert PASSWORD not in repr(record)
    assert record.values["verifier"].startswith("$argon2id$")
    assert "argon2" not in repr(account)


async def test_every_fault_is_named_at_once(node: FakeNode) -> None:
    with pytest.raises(InvalidFields) as refused:
        await ann(node, email="nobody", username="", password="short")
    assert set(refused.value.faults) == {"email", "username", "password"}
    with pytest.raises(InvalidFields) as refused:
        await ann(node, email=None, username=7, password=None)
    assert refused.value.faults["email"] == "This field is required"


async def test_an_address_is_taken_once_in_each_application(node: FakeNode) -> None:
    await ann(node)
    with pytest.raises(EmailTaken):
        await ann(node, email="ann@EXAMPLE.org")
    other = await ann(node, application="app_1")
    assert (await prove(node, application="app_1")).id == other.id


async def test_of_many_registrations_at_once_one_wins(node: FakeNode) -> None:
    answers = await asyncio.gather(*(ann(node) for _ in range(10)), return_exceptions=True)
    assert sum(isinstance(answer, EmailTaken) for answer in answers) == 9
    assert len(await node.identity.accounts.find_by_email("default", "ann@example.org")) == 1


async def test_nothing_tells_why_a_sign_in_failed(node: FakeNode) -> None:
    account = await ann(node)
    unset = await node.identity.accounts.create(
        "default", email="new@example.org", username="n", user="admin"
    )
    disabled = await ann(node, email="gone@example.org")
    await node.identity.accounts.set_disabled("default", disabled.id, True, user="admin")
    said = set()
    for email, password in (
        (account.email, "wrong password"),
        ("nobody@example.org", PASSWORD),
        (unset.email, PASSWORD),
        (disabled.email, PASSWORD),
        ("not an address", PASSWORD),
        ('"; drop table', PASSWORD),
    ):
        with pytest.raises(WrongCredentials) as refused:
            await prove(node, email, password)
        said.add(str(refused.value))
    assert len(said) == 1


async def test_every_failed_sign_in_does_the_same_work(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ann(node)
    passwords = node.identity.passwords
    original = passwords._run
    checks: list[object] = []

    async def counted(work: Callable[[], Any]) -> Any:
        checks.append(work)
        return await original(work)

    monkeypatch.setattr(passwords, "_run", counted)
    for n, email in enumerate(("ann@example.org", "nobody@example.org", "not an address"), start=1):
        with pytest.raises(WrongCredentials):
            await prove(node, email, "wrong password")
        assert len(checks) == n


async def test_unknown_addresses_are_slowed_like_known_ones(node: FakeNode) -> None:
    await ann(node)
    waits = []
    for email in ("ann@example.org", "nobody@example.org"):
        for _ in range(5):
            with pytest.raises(WrongCredentials):
                await prove(node, email, "wrong password")
        with pytest.raises(TooManyAttempts) as refused:
            await prove(node, email, PASSWORD)
        waits.append(refused.value.wait_ms)
    assert waits[0] == waits[1]


async def test_twins_made_apart_can_both_sign_in(node: FakeNode) -> None:
    first = await ann(node)
    second = await ann(node, email="twin@example.org", password="another password")
    node.records.put("default", ACCOUNT, second.id, {"email": "ann@example.org"})
    assert (await prove(node)).id == first.id
    assert (await prove(node, password="another password")).id == second.id


async def test_an_account_without_a_password_gets_one_from_an_administrator(node: FakeNode) -> None:
    accounts = node.identity.accounts
    account = await accounts.create("default", email="new@example.org", username="new", user="admin")
    with pytest.raises(InvalidFields):
        await accounts.set_password("default", account.id, "short", user="admin")
    await accounts.set_password("default", account.id, PASSWORD, user="admin")
    assert (await prove(node, "new@example.org")).id == account.id
    with pytest.raises(UnknownAccount):
        await accounts.set_password("default", "nobody", PASSWORD, user="admin")


async def test_setting_a_password_lets_a_locked_out_owner_in_again(node: FakeNode) -> None:
    account = await ann(node)
    for _ in range(5):
        with pytest.raises(WrongCredentials):
            await prove(node, password="wrong password")
    with pytest.raises(TooManyAttempts):
        await prove(node)
    await node.identity.accounts.set_password("default", account.id, "a new password", user="admin")
    await prove(node, password="a new password")


async def test_a_change_of_password_asks_for_the_old_one(node: FakeNode) -> None:
    account = await ann(node)
    change = node.identity.accounts.change_password
    with pytest.raises(InvalidFields) as refused:
        await change(account, None, "short", session="s", source=HERE)
    assert set(refused.value.faults) == {"current_password", "new_password"}
    with pytest.raises(WrongPassword):
        await change(account, "wrong password", "a new password", session="s", source=HERE)
    await change(account, PASSWORD, "a new password", session="s", source=HERE)
    changed = node.identity.accounts.require("default", account.id)
    assert changed.generation != account.generation
    assert changed.accepts_session("s", account.generation)
    assert changed.accepts_session("t", changed.generation)
    assert not changed.accepts_session("t", account.generation)
    assert not changed.accepts_session(None, account.generation)
    assert changed.accepts_session(None, None)
    with pytest.raises(WrongCredentials):
        await prove(node)
    assert (await prove(node, password="a new password")).id == account.id


async def test_guessing_the_current_password_is_counted_like_signing_in(node: FakeNode) -> None:
    account = await ann(node)
    for _ in range(5):
        with pytest.raises(WrongPassword):
            await node.identity.accounts.change_password(
                account, "wrong password", "a new password", session="s", source=HERE
            )
    with pytest.raises(TooManyAttempts):
        await prove(node)


async def test_an_old_verifier_is_replaced_at_the_next_sign_in() -> None:
    node = FakeNode()
    stronger = Passwords(memory_bytes=16384, passes=1)
    try:
        account = await ann(node)
        node.identity.accounts._passwords = stronger
        await prove(node)
        record = node.records.stored("default", ACCOUNT, account.id)
        assert "m=16," in record.values["verifier"]
        assert record.values["generation"] == account.generation  # no session ends for it
        await prove(node)
    finally:
        stronger.close()
        node.close()


async def test_on_a_reader_signing_in_works_and_writes_nothing() -> None:
    node = FakeNode()
    weaker, stronger = quick_passwords(), Passwords(memory_bytes=16384, passes=1)
    try:
        await ann(node)
        node.own_role = "reader"
        node.identity.accounts._passwords = stronger
        writes = node.records.writes
        await prove(node)
        assert node.records.writes == writes
    finally:
        weaker.close()
        stronger.close()
        node.close()


async def test_the_role_admin_makes_an_administrator_and_withdrawing_it_undoes_that(node: FakeNode) -> None:
    accounts = node.identity.accounts
    account = await ann(node)
    await accounts.grant_role("default", account.id, "editor", user="owner")
    await accounts.grant_role("default", account.id, "admin", user="owner")
    await accounts.grant_role("default", account.id, "admin", user="owner")
    found = accounts.require("default", account.id)
    assert found.roles == {"admin", "editor"} and found.is_admin
    assert node.records.stored("default", ROLE, account.id).created_by == "owner"
    await accounts.withdraw_role("default", account.id, "admin", user="owner")
    await accounts.withdraw_role("default", account.id, "admin", user="owner")
    assert accounts.require("default", account.id).roles == {"editor"}


@pytest.mark.parametrize("role", [None, "", "no blanks", "x" * 33, 3, ["admin"], "$admin", "role:x"])
async def test_a_role_has_a_plain_name(node: FakeNode, role: Any) -> None:
    account = await ann(node)
    with pytest.raises(InvalidFields):
        await node.identity.accounts.grant_role("default", account.id, role, user="owner")


async def test_roles_go_to_accounts_that_exist_in_that_application(node: FakeNode) -> None:
    account = await ann(node)
    with pytest.raises(UnknownAccount):
        await node.identity.accounts.grant_role("app_1", account.id, "admin", user="owner")
    assert not [key for key in node.records.documents if key[1] == ROLE]


async def test_an_administrator_is_made_with_rights_from_the_start(node: FakeNode) -> None:
    made = await node.identity.accounts.create_admin(
        "default", email="boss@example.org", username=None, password=PASSWORD, user="owner"
    )
    assert made.is_admin and made.username == "boss"
    writes = [key[1] for key in node.records.documents]
    assert writes == [ADMIN_ACCOUNT, ROLE, ACCOUNT]  # never an administrator without the right to be one
    with pytest.raises(EmailTaken):
        await node.identity.accounts.create_admin(
            "default", email="boss@example.org", username=None, password=PASSWORD, user="owner"
        )


async def test_parallel_grants_all_stay(node: FakeNode) -> None:
    account = await ann(node)
    grant = node.identity.accounts.grant_role
    await asyncio.gather(*(grant("default", account.id, f"role{n}", user="owner") for n in range(20)))
    assert len(node.identity.accounts.require("default", account.id).roles) == 20


async def test_a_change_from_a_peer_in_the_middle_of_an_edit_is_not_lost(node: FakeNode) -> None:
    account = await ann(node)
    grant = node.identity.accounts.grant_role
    await grant("default", account.id, "editor", user="owner")

    def arrive() -> None:
        node.records.before_write = lambda: None
        node.records.put("default", ROLE, account.id, {"roles": ["editor", "author"]})

    node.records.before_write = arrive
    await grant("default", account.id, "reviewer", user="owner")
    assert node.identity.accounts.require("default", account.id).roles == {"editor", "author", "reviewer"}


async def test_a_first_grant_that_meets_one_from_a_peer_joins_it(node: FakeNode) -> None:
    account = await ann(node)

    def arrive() -> None:
        node.records.before_write = lambda: None
        node.records.put("default", ROLE, account.id, {"roles": ["author"]})

    node.records.before_write = arrive
    await node.identity.accounts.grant_role("default", account.id, "editor", user="owner")
    assert node.identity.accounts.require("default", account.id).roles == {"author", "editor"}


@pytest.mark.parametrize(
    "odd",
    [
        {"email": None},
        {"username": 7},
        {"verifier": ["x"]},
        {"interests": "x"},
        {"generation": 1},
    ],
)
async def test_a_document_that_is_no_account_is_nobodys(node: FakeNode, odd: dict[str, Any]) -> None:
    account = await ann(node)
    node.records.put("default", ACCOUNT, account.id, odd)
    accounts = node.identity.accounts
    assert accounts.get("default", account.id) is None
    assert await accounts.page("default", page=1, per_page=10, with_disabled=True) == ([], 1)
    assert [account async for account in accounts.each("default")] == []
    with pytest.raises(WrongCredentials):
        await prove(node)


async def test_a_field_of_a_newer_release_does_no_harm(node: FakeNode) -> None:
    account = await ann(node)
    node.records.put("default", ACCOUNT, account.id, {"more": 1})
    assert (await prove(node)).id == account.id


@pytest.mark.parametrize("odd", ["admin", {"admin": 1}, [["admin"]], 7])
async def test_a_document_that_grants_no_roles_grants_none(node: FakeNode, odd: Any) -> None:
    account = await ann(node)
    node.records.put("default", ROLE, account.id, {"roles": odd})
    assert node.identity.accounts.require("default", account.id).roles == frozenset()


async def test_pages_hold_the_oldest_first_and_leave_the_disabled_out(node: FakeNode) -> None:
    made = []
    for n in range(5):
        made.append(await ann(node, email=f"user{n}@example.org"))
        node.clock.pass_s(1)
    accounts = node.identity.accounts
    await accounts.set_disabled("default", made[1].id, True, user="admin")
    page, total = await accounts.page("default", page=1, per_page=3, with_disabled=False)
    assert ([a.id for a in page], total) == ([made[0].id, made[2].id, made[3].id], 4)
    page, total = await accounts.page("default", page=2, per_page=3, with_disabled=True)
    assert ([a.id for a in page], total) == ([made[3].id, made[4].id], 5)
    assert await accounts.page("app_1", page=1, per_page=3, with_disabled=True) == ([], 0)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("Ann@Example.Org", "ann@example.org"),
        ("ann+tag@example.co.uk", "ann+tag@example.co.uk"),
        ("o'brien@example.org", "o'brien@example.org"),
        ("user@localhost", "user@localhost"),
        ("用户@例子.广告", "用户@例子.广告"),
        ("a\u0308nn@example.org", "änn@example.org"),
    ],
)
def test_addresses_that_exist_are_taken(given: Any, kept: Any) -> None:
    assert check_email(given) == (kept, None)


@pytest.mark.parametrize(
    "given",
    ["@", "a@", "@b", "a b@c.d", "a@b c", "a@b@c", "a@-b.c", "a@b..c", "a@b.", "a" * 65 + "@b.c",
     "a@" + "b" * 254, "a\x00@b.c", 'a"@b.c', "a\\@b.c", "a\u202e@b.c", ["a@b.c"], 7, True, {}],
)  # fmt: skip
def test_what_is_no_address_is_not(given: Any) -> None:
    assert check_email(given)[1]


@given(st.text())
def test_an_accepted_address_is_its_own_normal_form(text: str) -> None:
    email, fault = check_email(text)
    assert fault or check_email(email) == (email, None)


async def boss(node: FakeNode) -> Any:
    return await node.identity.accounts.create_admin(
        "default", email="boss@example.org", username=None, password=PASSWORD, user="owner"
    )


def now(node: FakeNode, account: Any) -> Any:
    return node.identity.accounts.require("default", account.id)


async def test_nothing_that_a_member_node_writes_of_an_administrators_account_counts(node: FakeNode) -> None:
    account, other = await boss(node), await ann(node)
    assert account.is_admin
    key, text = await node.identity.api_keys.create(account, name="k", scopes=["read"], is_admin=True)
    forged = {
        name: getattr(other, name)
        for name in ("email", "username", "verifier", "generation", "keys_generation")
    }
    forged |= {"disabled": True, "keys": [], "recovery": "x", "kept_session": "x", "interests": ["chess"]}
    node.records.put("default", ACCOUNT, account.id, forged)
    node.records.put("default", MFA, account.id, {"secret": "JBSWY3DPEHPK3PXP", "set": "a", "codes": ["a:b"]})
    node.records.documents["default", APIKEY, key.id] = node.records.stored("default", ADMIN_KEY, key.id)
    planted = {"user": account.id, "scopes": ["write"], "hash": "x", "generation": account.keys_generation}
    node.records.put("default", APIKEY, "planted", planted)
    for n in range(NAMESAKES_MAX):
        values = {"email": account.email, "username": "x", "verifier": other.verifier}
        node.records.put("default", ACCOUNT, f"namesake{n}", values)
    there = now(node, account)
    assert there.interests == ("chess",)
    same = replace(account, interests=there.interests, version=there.version)
    assert there == same
    assert (await prove(node, account.email)).id == account.id
    assert [k.id for k in await node.identity.api_keys.of_user("default", account.id)] == [key.id]
    assert node.identity.api_keys.behind(text)

    for gone in (ACCOUNT, MFA):
        del node.records.documents["default", gone, account.id]
    assert now(node, account).is_admin and (await prove(node, account.email)).id == account.id
    new = "another one"
    await node.identity.accounts.change_password(account, PASSWORD, new, session=None, source=HERE)
    assert node.records.stored("default", ACCOUNT, account.id).values["email"] == account.email
    await node.identity.accounts.withdraw_role("default", account.id, "admin", user="owner")
    assert not (await prove(node, account.email, new)).is_admin  # what counted as one still counts


async def test_keys_from_before_somebody_was_administrator_do_not_count_meanwhile(node: FakeNode) -> None:
    account = await ann(node)
    _, text = await node.identity.api_keys.create(account, name="k", scopes=["read"], is_admin=False)
    accounts, behind = node.identity.accounts, node.identity.api_keys.behind
    await accounts.grant_role("default", account.id, "admin", user="owner")
    assert behind(text) is None
    await accounts.withdraw_role("default", account.id, "admin", user="owner")
    assert behind(text) is not None


async def test_a_user_made_administrator_and_one_without_a_password_yet_have_their_rights(
    node: FakeNode,
) -> None:
    account = await ann(node)
    unset = await node.identity.accounts.create(
        "default", email="new@example.org", username="n", user="owner"
    )
    for one in (account, unset):
        await node.identity.accounts.grant_role("default", one.id, "admin", user="owner")
        assert now(node, one).is_admin
    await node.identity.accounts.set_password("default", unset.id, PASSWORD, user="owner")
    assert now(node, unset).is_admin
    await node.identity.accounts.withdraw_role("default", unset.id, "admin", user="owner")
    assert not now(node, unset).is_admin


async def test_on_a_member_node_only_users_passwords_are_set(node: FakeNode) -> None:
    account, other = await boss(node), await ann(node)
    node.own_role = "member"
    accounts, writes = node.identity.accounts, node.records.writes
    with pytest.raises(NotPermitted):
        await accounts.set_password("default", account.id, "another one", user="owner")
    with pytest.raises(NotPermitted):
        await accounts.change_password(account, PASSWORD, "another one", session=None, source=HERE)
    with pytest.raises(NotPermitted):
        await accounts.reset_mfa("default", account.id, user="owner")
    with pytest.raises(NotPermitted):
        await accounts.set_disabled("default", account.id, True, user="owner")
    with pytest.raises(NotPermitted):
        await accounts.end_all(account)
    with pytest.raises(NotPermitted):
        await node.identity.mfa.enable(account)
    with pytest.raises(NotPermitted):
        await node.identity.api_keys.create(account, name="k", scopes=["read"], is_admin=True)
    assert node.records.writes == writes
    assert (await prove(node, "boss@example.org")).is_admin
    await accounts.set_password("default", other.id, "another one", user="owner")
    await accounts.reset_mfa("default", other.id, user="owner")


async def test_a_change_that_was_cut_short_leaves_the_administrator_as_it_was(node: FakeNode) -> None:
    account = await boss(node)

    def fail() -> None:
        raise OSError("the power failed")

    node.records.before_write = fail
    with pytest.raises(OSError, match="power"):
        await node.identity.accounts.change_password(
            account, PASSWORD, "another one", session=None, source=HERE
        )
    node.records.before_write = lambda: None
    assert (await prove(node, "boss@example.org")).is_admin


async def test_an_administrators_verifier_is_renewed_at_a_sign_in_on_an_admin_node(node: FakeNode) -> None:
    account = await boss(node)
    stronger = Passwords(memory_bytes=16384, passes=1)
    node.identity.accounts._passwords = stronger
    node.own_role = "member"
    assert (await prove(node, "boss@example.org")).is_admin
    assert now(node, account).verifier == account.verifier
    node.own_role = "admin"
    await prove(node, "boss@example.org")
    assert now(node, account).verifier != account.verifier and now(node, account).is_admin
    stronger.close()


async def test_an_administrator_recovers_on_an_admin_node(node: FakeNode) -> None:
    account = await boss(node)
    code = await node.identity.accounts.new_recovery_code(account, PASSWORD, HERE)
    said = ("default", "boss@example.org", code, "another one", HERE)
    node.own_role = "member"
    with pytest.raises(NotPermitted):
        await node.identity.accounts.recover(*said)
    node.own_role = "admin"
    assert (await node.identity.accounts.recover(*said)).is_admin
    assert (await prove(node, "boss@example.org", "another one")).is_admin
