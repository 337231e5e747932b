import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.api.civicbase.account_views import profile_view
from node.services.account_models import ACCOUNT, USERDATA
from node.services.accounts import Account
from node.services.lockout import Source
from node.services.refusals import EmailTaken, InvalidFields, UnknownAccount, UnknownData, WrongPassword
from tests.node.fakes import FakeNode

HERE = Source.of("127.0.0.1", None)
PASSWORD = "securepassword123"


async def ann(node: FakeNode, email: str = "ann@example.org") -> Account:
    return await node.identity.accounts.register("default", email=email, username="ann", password=PASSWORD)


async def update(node: FakeNode, account: Account, /, **changes: Any) -> Account:
    account = node.identity.accounts.require("default", account.id)
    return await node.identity.profiles.update(account, changes, profile_view(account), source=HERE)


async def test_fields_of_any_name_are_kept_and_null_removes_one(node: FakeNode) -> None:
    account = await ann(node)
    await update(node, account, bio="hiker", links=["https://example.org"], age=30)
    changed = await update(node, account, bio="walker", age=None, username="Ann B")
    assert changed.username == "Ann B"
    assert changed.profile == {"bio": "walker", "links": ["https://example.org"]}
    assert profile_view(changed)["bio"] == "walker"


async def test_a_profile_can_be_sent_back_as_it_was_read(node: FakeNode) -> None:
    account = await ann(node)
    await update(node, account, bio="hiker", interests=["chess"])
    read = profile_view(node.identity.accounts.require("default", account.id))
    writes = node.records.writes
    changed = await update(node, account, **read)
    assert profile_view(changed) == read
    assert node.records.writes <= writes + 1


@pytest.mark.parametrize(
    "name",
    ["id", "user_id", "application_id", "roles", "is_admin", "created_at", "version", "disabled", "password",
     "verifier", "generation", "kept_session"],
)  # fmt: skip
async def test_what_is_not_the_owners_to_set_is_refused(node: FakeNode, name: str) -> None:
    account = await ann(node)
    with pytest.raises(InvalidFields) as refused:
        await update(node, account, **{name: "x", "bio": "y"})
    assert set(refused.value.faults) == {name}
    assert not node.identity.accounts.require("default", account.id).profile


async def test_every_fault_is_named_at_once(node: FakeNode) -> None:
    account = await ann(node)
    with pytest.raises(InvalidFields) as refused:
        await update(
            node, account, username="", email="x", interests=[1], roles=["admin"], **{"no blanks": 1}
        )
    assert {"username", "email", "interests", "roles", "no blanks"} <= set(refused.value.faults)


async def test_a_profile_has_an_end(node: FakeNode) -> None:
    account = await ann(node)
    for changes in ({"bio": "x" * 70_000}, {f"field{n}": n for n in range(101)}, {"deep": nested(40)}):
        with pytest.raises(InvalidFields):
            await update(node, account, **changes)


def nested(depth: Any) -> Any:
    return [nested(depth - 1)] if depth else []


async def test_a_new_address_takes_the_password_and_must_be_free(node: FakeNode) -> None:
    account = await ann(node)
    await ann(node, "ben@example.org")
    with pytest.raises(InvalidFields, match="current_password, email"):
        await update(node, account, email="not one")
    with pytest.raises(InvalidFields, match="current_password"):
        await update(node, account, email="ann@new.example")
    with pytest.raises(WrongPassword):
        await update(node, account, email="ann@new.example", current_password="wrong password")
    with pytest.raises(EmailTaken):
        await update(node, account, email="Ben@example.org", current_password=PASSWORD)
    changed = await update(node, account, email="Ann@New.example", current_password=PASSWORD, bio="moved")
    assert changed.email == "ann@new.example" and changed.profile == {"bio": "moved"}
    assert PASSWORD not in repr(node.records.documents)
    await ann(node, "ann@example.org")  # the old address is free again


async def test_interests_come_as_text_or_list_and_are_only_added_once(node: FakeNode) -> None:
    account = await ann(node)
    add = node.identity.profiles.add_interests
    await add("default", account.id, " hiking, photography ,hiking,", user=account.id)
    await add("default", account.id, ["photography", "chess"], user=account.id)
    assert node.identity.accounts.require("default", account.id).interests == (
        "hiking",
        "photography",
        "chess",
    )
    changed = await update(node, account, interests=["go"])
    assert changed.interests == ("go",)
    assert (await update(node, account, interests=[])).interests == ()


@pytest.mark.parametrize("interests", [None, "", " , ", [], [""], ["x" * 65], "a\x00b", 5, {"a": 1}, [["a"]]])
async def test_interests_that_are_none_are_refused(node: FakeNode, interests: Any) -> None:
    account = await ann(node)
    with pytest.raises(InvalidFields):
        await node.identity.profiles.add_interests("default", account.id, interests, user=account.id)


async def test_interests_have_an_end_and_an_owner(node: FakeNode) -> None:
    account = await ann(node)
    add = node.identity.profiles.add_interests
    await add("default", account.id, [f"word{n}" for n in range(100)], user=account.id)
    with pytest.raises(InvalidFields):
        await add("default", account.id, "one more", user=account.id)
    with pytest.raises(UnknownAccount):
        await add("default", "nobody", "chess", user=account.id)
    with pytest.raises(UnknownAccount):
        await add("app_1", account.id, "chess", user=account.id)


async def test_parallel_edits_of_one_profile_all_stay(node: FakeNode) -> None:
    account = await ann(node)
    add = node.identity.profiles.add_interests
    await asyncio.gather(*(add("default", account.id, f"word{n}", user=account.id) for n in range(20)))
    await asyncio.gather(*(update(node, account, **{f"field{n}": n}) for n in range(20)))
    found = node.identity.accounts.require("default", account.id)
    assert len(found.interests) == 20 and len(found.profile) == 20


async def test_data_reads_back_as_it_was_stored(node: FakeNode) -> None:
    profiles = node.identity.profiles
    values: list[Any] = [
        {"theme": "dark", "notifications": True},
        None,
        0,
        [],
        "text",
        {"a": [1, {"b": None}]},
    ]
    for value in values:
        await profiles.put_data("default", "ann", {"key": "preferences", "value": value})
        assert profiles.get_data("default", "ann", "preferences") == value
    for user, application, key in (
        ("ben", "default", "preferences"),
        ("ann", "app_1", "preferences"),
        ("ann", "default", "x"),
    ):
        with pytest.raises(UnknownData):
            profiles.get_data(application, user, key)


async def test_two_devices_that_set_one_key_apart_write_one_document(node: FakeNode) -> None:
    other = FakeNode(seed=b"\x02" * 32)
    try:
        for of in (node, other):
            await of.identity.profiles.put_data("default", "ann", {"key": "preferences", "value": 1})
        assert set(node.records.documents) == set(other.records.documents)
        assert [key[1] for key in node.records.documents] == [USERDATA]
    finally:
        other.close()


@pytest.mark.parametrize(
    ("body", "faults"),
    [
        ({}, {"key", "value"}),
        ({"key": "k"}, {"value"}),
        ({"key": "", "value": 1}, {"key"}),
        ({"key": "x" * 129, "value": 1}, {"key"}),
        ({"key": "a\nb", "value": 1}, {"key"}),
        ({"key": 5, "value": 1}, {"key"}),
        ({"key": "k", "value": "x" * 300_000}, {"value"}),
        ({"key": "k", "value": nested(40)}, {"value"}),
    ],
)
async def test_every_fault_of_stored_data_is_named(node: FakeNode, body: Any, faults: Any) -> None:
    with pytest.raises(InvalidFields) as refused:
        await node.identity.profiles.put_data("default", "ann", body)
    assert set(refused.value.faults) == faults


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@given(
    st.dictionaries(st.text(max_size=10) | st.sampled_from(["email", "username", "roles", "interests"]), JSON)
)
async def test_no_change_of_a_profile_can_raise_anything_else_or_make_it_unreadable(changes: Any) -> None:
    node = FakeNode()
    try:
        account = await ann(node)
        try:
            await update(node, account, **changes)
        except (InvalidFields, WrongPassword):
            return
        record = node.records.stored("default", ACCOUNT, account.id)
        assert record.values["email"] == "ann@example.org"
        shown = profile_view(node.identity.accounts.require("default", account.id))
        assert shown["user_id"] == account.id and shown["roles"] == []
    finally:
        node.close()
