from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.services.account_models import ADMIN_KEY, APIKEY
from node.services.api_keys import KEYS_MAX
from node.services.lockout import Source
from node.services.refusals import InvalidFields, NotPermitted, UnknownApiKey
from protocol.times import datetime_from_ms
from tests.node.fakes import FakeNode

PASSWORD = "securepassword123"


async def ann(node: FakeNode, application: str = "default") -> Any:
    return await node.identity.accounts.register(
        application, email="ann@example.org", username="ann", password=PASSWORD
    )


async def make(node: FakeNode, account: Any, *scopes: str, is_admin: bool = False, **more: Any) -> Any:
    said = {"name": "a program", "scopes": list(scopes) or ["read"]} | more
    return await node.identity.api_keys.create(account, is_admin=is_admin, **said)


@pytest.mark.parametrize("application", ["default", "app_1.x-y"])
async def test_a_key_is_found_by_its_text_and_stored_as_a_hash(node: FakeNode, application: str) -> None:
    account = await ann(node, application)
    key, text = await make(node, account, "read", "data:Task:write")
    shown = node.identity.api_keys.behind(text)
    assert shown is not None and shown.key == key and shown.account.id == account.id
    assert key.scopes.words == ("data:Task:write", "read") and key.expires_ms is None
    secret = text[4:].partition("_")[2].partition(".")[0]
    assert len(secret) == 43 and secret not in repr(node.records.documents)


async def test_no_other_text_is_a_key(node: FakeNode) -> None:
    account = await ann(node)
    await ann(node, "other")
    key, text = await make(node, account)
    last = "A" if text[-1] != "A" else "B"
    for wrong in (
        text[:-1],
        text + "A",
        text[:-1] + last,
        text + ".other",
        text + ".default\n",
        text + ".no blanks",
        text.replace("cbk_", "cbk-"),
        text.upper(),
        f"cbk_{key.id}_",
        "cbk_",
        "",
    ):
        assert node.identity.api_keys.behind(wrong) is None, wrong


@given(st.text(max_size=120))
def test_any_text_is_looked_at_without_fault(text: str) -> None:
    node = FakeNode()
    try:
        assert node.identity.api_keys.behind("cbk_" + text) is None
    finally:
        node.close()


async def test_every_fault_is_named_at_once(node: FakeNode) -> None:
    account = await ann(node)
    with pytest.raises(InvalidFields) as refused:
        await make(node, account, name="", scopes=["everything"], expires_in=5)
    assert set(refused.value.faults) == {"name", "scopes", "expires_in"}
    with pytest.raises(InvalidFields) as refused:
        await make(node, account, expires_in="x", expires_at="x")
    assert set(refused.value.faults) == {"expires_at", "expires_in"}
    now_ms = node.clock()
    for more in (
        {"expires_at": datetime_from_ms(now_ms)},
        {"expires_at": "tomorrow"},
        {"expires_at": 5},
        {"expires_at": "9999-01-01T00:00:00Z"},
        {"expires_in": True},
        {"expires_in": 10**12},
        {"expires_in": 60, "expires_at": datetime_from_ms(now_ms + 60_000)},
        {"name": "x" * 101},
        {"name": "two\nlines"},
    ):
        with pytest.raises(InvalidFields):
            await make(node, account, **more)
    assert not await node.identity.api_keys.of_user("default", account.id)


async def test_a_key_expires(node: FakeNode) -> None:
    account = await ann(node)
    _, soon = await make(node, account, expires_in=60)
    key, later = await make(node, account, expires_at=datetime_from_ms(node.clock() + 90_000))
    assert key.expires_ms == node.clock() + 90_000
    node.clock.pass_s(60)
    assert node.identity.api_keys.behind(soon) is None and node.identity.api_keys.behind(later)
    node.clock.pass_s(30)
    assert node.identity.api_keys.behind(later) is None
    assert len(await node.identity.api_keys.of_user("default", account.id)) == 2


async def test_what_ends_keys_and_what_leaves_them(node: FakeNode) -> None:
    account = await ann(node)
    accounts, keys = node.identity.accounts, node.identity.api_keys
    _, text = await make(node, account)
    here = Source.of("127.0.0.1", None)
    await accounts.change_password(account, PASSWORD, "another password", session=None, source=here)
    assert keys.behind(text)
    await accounts.set_password("default", account.id, "yet another one", user="admin")
    assert keys.behind(text) is None
    _, text = await make(node, accounts.require("default", account.id))
    await accounts.end_all(account)
    assert keys.behind(text) is None
    key, text = await make(node, accounts.require("default", account.id))
    await keys.revoke(key, user=account.id)
    assert keys.behind(text) is None
    with pytest.raises(UnknownApiKey):
        keys.get("default", key.id)


async def test_only_administrators_give_admin_and_such_keys_lie_where_admin_nodes_write(
    node: FakeNode,
) -> None:
    account = await ann(node)
    with pytest.raises(NotPermitted):
        await make(node, account, "admin")
    key, text = await make(node, account, "admin", "read", is_admin=True)
    assert ("default", ADMIN_KEY, key.id) in node.records.documents
    assert node.identity.api_keys.behind(text)
    assert [one.id for one in await node.identity.api_keys.of_user("default", account.id)] == [key.id]


async def test_an_admin_key_that_a_member_node_could_have_written_is_none(node: FakeNode) -> None:
    account = await ann(node)
    key, text = await make(node, account, "admin", is_admin=True)
    moved = node.records.documents.pop(("default", ADMIN_KEY, key.id))
    node.records.documents["default", APIKEY, key.id] = moved
    assert node.identity.api_keys.behind(text) is None
    assert not await node.identity.api_keys.of_user("default", account.id)


@pytest.mark.parametrize(
    "values",
    [{"scopes": "read"}, {"user": 5}, {"user": "nobody"}, {"expires_ms": "soon"}, {"hash": 5}, {"hash": ""}],
)
async def test_a_broken_key_from_a_peer_opens_nothing(node: FakeNode, values: Any) -> None:
    account = await ann(node)
    key, text = await make(node, account)
    node.records.documents["default", APIKEY, key.id].values.update(values)
    assert node.identity.api_keys.behind(text) is None


async def test_a_user_has_so_many_keys_at_most(node: FakeNode) -> None:
    account = await ann(node)
    for _ in range(KEYS_MAX):
        await make(node, account)
    with pytest.raises(NotPermitted, match="at most"):
        await make(node, account)
