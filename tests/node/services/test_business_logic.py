"""The seed's "Custom Business Logic", on a node with a plugin: what it refuses, sets, does afterwards and answers."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.node.running import Running, running

BALANCE = {"name": "balance", "type": "integer", "required": True, "indexed": True}


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Running]:
    plugins = tmp_path / "plugins"
    plugins.mkdir(mode=0o700)
    shutil.copy(Path(__file__).parent / "bank_plugin.py", plugins)
    async with running(tmp_path / "node", plugins_dir=plugins) as node:
        for definition in (
            {
                "name": "UserAccount",
                "fields": [BALANCE, {"name": "note", "type": "string"}],
                "permissions": {"read": "owner"},
            },
            {"name": "Notice", "fields": [{"name": "text", "type": "string"}]},
            {"name": "Loop", "fields": [{"name": "n", "type": "integer"}]},
        ):
            assert (await node.ask("POST", "/v1/data-models", definition)).status == 201
        yield node


async def notices(node: Running, count: int) -> list[str]:
    """The texts of all notices, once there are so many."""
    while True:
        items = (await node.ask("GET", "/v1/data/Notice")).json["items"]
        if len(items) >= count:
            return [item["text"] for item in items]
        await asyncio.sleep(0.01)


async def account(node: Running, balance: int, **more: Any) -> str:
    made = await node.ask("POST", "/v1/data/UserAccount", {"balance": balance, **more})
    assert made.status == 201, made.text
    return str(made.json["instance_id"])


async def test_a_validator_refuses_in_its_own_words_and_every_one_is_asked(node: Running) -> None:
    id = await account(node, 500)
    refused = await node.ask("PUT", f"/v1/data/UserAccount/{id}", {"balance": -50})
    assert (refused.status, refused.json["error"]) == (400, "Account balance cannot be negative")
    refused = await node.ask("POST", "/v1/data/UserAccount", {"balance": -3})
    assert refused.json["details"] == {
        "ensurePositiveBalance": "Account balance cannot be negative",
        "ensureRound": "Must be a multiple of 5",
    }
    assert (await node.ask("GET", f"/v1/data/UserAccount/{id}")).json["balance"] == 500


async def test_a_trigger_before_sets_fields_and_one_after_acts_once(node: Running) -> None:
    before = len(await notices(node, 0))
    id = await account(node, 500)
    assert (await node.ask("GET", f"/v1/data/UserAccount/{id}")).json["note"].startswith("opened by owner@")
    assert (await node.ask("PUT", f"/v1/data/UserAccount/{id}", {"balance": 75})).status == 200
    assert f"{id} has 75, had 500" in await notices(node, before + 1)
    assert (await node.ask("PUT", f"/v1/data/UserAccount/{id}", {"balance": 400})).status == 200
    assert len(await notices(node, before + 1)) == before + 1


async def test_a_delete_is_refused_or_told(node: Running) -> None:
    before = len(await notices(node, 0))
    id = await account(node, 100)
    refused = await node.ask("DELETE", f"/v1/data/UserAccount/{id}")
    assert (refused.status, refused.json["details"]) == (400, {"keep": "An account with money in it stays"})
    await node.ask("PUT", f"/v1/data/UserAccount/{id}", {"balance": 0})
    assert (await node.ask("DELETE", f"/v1/data/UserAccount/{id}")).status == 204
    assert f"{id} is gone" in await notices(node, before + 2)
    assert (await node.ask("DELETE", f"/v1/data/UserAccount/{id}")).status == 404


async def test_in_a_batch_each_operation_is_judged(node: Running) -> None:
    operations = [
        {"method": "POST", "path": "/data/UserAccount", "body": {"balance": balance}}
        for balance in (5, -5, 10)
    ]
    answer = await node.ask("POST", "/v1/batch", {"operations": operations, "atomic": False})
    assert [one["status"] for one in answer.json["results"]] == [201, 400, 201]
    total = (await node.ask("GET", "/v1/data/UserAccount")).json["total"]
    refused = await node.ask("POST", "/v1/batch", {"operations": operations})
    assert refused.status == 400 and "cannot be negative" in refused.text
    assert (await node.ask("GET", "/v1/data/UserAccount")).json["total"] == total


async def test_changes_that_lead_to_changes_come_to_an_end(node: Running) -> None:
    made = await node.ask("POST", "/v1/data/Loop", {"n": 0})
    path = f"/v1/data/Loop/{made.json['instance_id']}"
    assert (await node.ask("PUT", path, {"n": 1})).status == 200
    assert node.node.records.logic is not None
    await node.node.records.logic.close()
    assert (await node.ask("GET", path)).json["n"] == 5


async def test_queries_and_methods_see_what_their_caller_may_read(node: Running) -> None:
    _, ann = await node.sign_up("ann")
    _, bob = await node.sign_up("bob")
    made = await node.ask("POST", "/v1/data/UserAccount", {"balance": 2000}, token=ann)
    id = made.json["instance_id"]
    path = "/v1/data/UserAccount/queries/below?balance=3000"
    assert (await node.ask("GET", path, token=ann)).json == [id]
    assert (await node.ask("GET", path, token=bob)).json == []
    method = f"/v1/data/UserAccount/{id}/methods/isRich"
    assert (await node.ask("GET", method, token=ann)).json is True
    assert (await node.ask("GET", method, token=bob)).status == 403
    assert (await node.ask("GET", "/v1/data/UserAccount/none/methods/isRich", token=ann)).status == 404


async def test_bad_arguments_and_unknown_names_are_the_callers_fault(node: Running) -> None:
    for path in ("queries/below", "queries/below?balance=many", "queries/below?balance=1&x=2"):
        assert (await node.ask("GET", f"/v1/data/UserAccount/{path}")).status == 400
    for path in ("UserAccount/queries/none", "Nothing/queries/below", "UserAccount/x/methods/none"):
        assert (await node.ask("GET", f"/v1/data/{path}")).status == 404
    answer = await node.ask("GET", "/v1/data/UserAccount/queries/meddle")
    assert (answer.status, answer.json["error_code"]) == (500, "PLUGIN_FAILED")
    assert "change nothing" in answer.json["error"] and "Traceback" not in answer.text


async def test_a_strategy_of_a_plugin_decides_and_nothing_stays_open(node: Running) -> None:
    definition = {
        "name": "Purse",
        "conflict_strategy": "richest",
        "fields": [BALANCE, {"name": "owner", "type": "string"}],
    }
    purse = await node.model(definition)
    assert purse.conflict_strategy.startswith("richest@")
    await node.apart(purse, "one", {"balance": 90, "owner": "a"}, {"balance": 20, "owner": "b"})
    shown = (await node.ask("GET", "/v1/data/Purse/one")).json
    assert (shown["balance"], shown["owner"]) == (90, "a") and "strategy_missing" not in shown
    assert (await node.ask("GET", "/v1/data/Purse?filter=balance:eq:90")).json["total"] == 1
    assert (await node.ask("GET", "/v1/conflicts?model=Purse")).json["items"] == []
