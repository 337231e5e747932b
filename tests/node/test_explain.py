"""Why a document stands as it does: what a node knows of it across the network, and whom it tells."""

from pathlib import Path
from typing import Any

from protocol.membership import Role
from protocol.window import Run
from storage.runs import WaitingRoom
from tests.node.pair import Running, admit, exchange, hand_over, pair
from tests.node.test_linked import until_in_sync

TASK: dict[str, Any] = {
    "name": "Task",
    "fields": [{"name": "title", "type": "string"}, {"name": "rank", "type": "integer", "max": 10}],
}


async def explain(node: Running, id: str = "t1", token: str | None = None) -> Any:
    return await node.done("GET", f"/v1/sync/explain/Task/{id}", token=token)


def by_node(explained: Any) -> dict[str, Any]:
    return {each["node"]: each for each in explained["nodes"]}


async def test_who_has_which_version_follows_from_what_each_node_has_signed(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, b):
        await a.done("POST", "/v1/data-models", TASK)
        await a.done("POST", "/v1/data/Task", {"id": "t1", "title": "one"})
        first = (await a.done("GET", "/v1/data/Task/t1"))["version"]
        there = by_node(await explain(a))[b.id.hex()]
        assert (there["version"], there["lacks"], there["is_current"], there["role"]) == (
            None,
            1,
            False,
            "member",
        )
        await hand_over(a, b)
        assert by_node(await explain(a))[b.id.hex()]["version"] is None, "handed over, but nobody has said so"
        await b.done("POST", "/v1/data/Task", {"id": "t2", "title": "of another"})
        await hand_over(b, a)
        there = by_node(await explain(a))[b.id.hex()]
        assert (there["version"], there["is_current"], there["known_by"]) == (first, True, "commits")
        await a.done("PUT", "/v1/data/Task/t1", {"title": "two"})
        explained = await explain(a)
        here, there = by_node(explained)[a.id.hex()], by_node(explained)[b.id.hex()]
        assert explained["nodes"][0] == here and here["is_this_node"] and here["is_current"]
        assert here["version"] == explained["here"]["version"] != first
        assert (there["version"], there["lacks"], there["is_current"]) == (first, 1, False)
        assert explained["here"]["state"] == "shown"
        assert [write["fields"] for write in explained["writes"]] == [["title"], ["title"]]
        assert {write["node"] for write in explained["writes"]} == {a.id.hex()}
        assert explained["refused"] == [] and explained["waiting"] == []


async def test_what_a_link_has_acknowledged_counts_at_once(tmp_path: Path) -> None:
    async with pair(tmp_path, is_linked=True) as (a, b):
        await a.done("POST", "/v1/data-models", TASK)
        await until_in_sync(a, b)
        await a.done("POST", "/v1/data/Task", {"id": "t1"}, Prefer="wait=peers:1; timeout=60")
        there = by_node(await explain(a))[b.id.hex()]
        assert (there["is_current"], there["known_by"], there["name"]) == (True, "link", "second")


async def test_writes_that_do_not_count_are_told_with_the_rule_to_administrators_alone(
    tmp_path: Path,
) -> None:
    async with pair(tmp_path) as (a, b):
        await a.done("POST", "/v1/data-models", TASK)
        _, ann = await a.sign_up("ann")
        await a.done("POST", "/v1/data/Task", {"id": "t1", "title": "mine"}, token=ann)
        await exchange(a, b)
        await a.revoke(b.id)
        await b.done("PUT", "/v1/data/Task/t1", {"title": "theirs", "rank": 1})
        await b.done("POST", "/v1/data/Task", {"id": "gone"})
        await hand_over(b, a)
        explained = await explain(a)
        (refused,) = explained["refused"]
        assert (refused["verdict"], refused["standing"]) == ("void", "cut")
        assert refused["node"] == b.id.hex() and refused["fields"] == ["rank", "title"]
        assert "revoked" in refused["why"] and explained["refused_total"] == 1
        assert b.id.hex() not in by_node(explained), "no member holds for the network any more"
        told = await explain(a, token=ann)
        assert "refused" not in told and told["refused_total"] == 1
        gone = await explain(a, "gone")
        assert gone["here"]["state"] == "absent" and len(gone["refused"]) == 1
        assert (await a.ask("GET", "/v1/sync/explain/Task/gone", token=ann)).status == 404


async def test_what_came_too_early_is_told_with_the_time_when_it_counts(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, b):
        await a.done("POST", "/v1/data-models", TASK)
        await exchange(a, b)
        b.clock.pass_s(3_600)
        await b.done("POST", "/v1/data/Task", {"id": "t1"})
        await hand_over(b, a)
        (early,) = (await explain(a))["refused"]
        assert (early["verdict"], early["standing"]) == ("early", "stands")
        assert "it is applied at 20" in early["why"]


async def test_what_the_model_does_not_allow_is_told_field_by_field(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, b):
        await a.done("POST", "/v1/data-models", TASK)
        await exchange(a, b)
        wider = [TASK["fields"][0], {"name": "rank", "type": "integer"}]
        await b.done("PUT", "/v1/data-models/Task", {**TASK, "fields": wider})
        await b.done("POST", "/v1/data/Task", {"id": "t1", "rank": 99})
        a.clock.pass_s(10)  # the later definition counts for both
        wide = [TASK["fields"][0], {"name": "rank", "type": "integer", "max": 20}]
        await a.done("PUT", "/v1/data-models/Task", {**TASK, "fields": wide})
        await hand_over(b, a)
        assert (await a.ask("GET", "/v1/data/Task/t1")).status == 404
        here = (await explain(a))["here"]
        assert here["state"] == "quarantined" and set(here["quarantine"]) == {"rank"}


async def test_chains_that_wait_are_told_with_what_they_wait_for(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, b):
        await a.done("POST", "/v1/data-models", TASK)
        await admit(a, tmp_path / "third", Role.MEMBER)
        third = Running(tmp_path / "third", a.clock, a.http)
        await third.start()
        try:
            for node in (b, third):
                await exchange(a, node)
            await third.done("POST", "/v1/data/Task", {"id": "other"})
            await hand_over(third, b)
            await b.done("POST", "/v1/data/Task", {"id": "t1", "title": "after what the first lacks"})
            run, cause = Run((b.commits()[-1],)), third.commits()[-1].header
        finally:
            await third.node.stop()
        with a.store.read() as snapshot:
            room = WaitingRoom(snapshot)
        key = run.commits[0].header.space, run.commits[0].header.author
        await a.node.writer.submit(lambda local: room.keep(local, {key: run}))
        (waiting,) = (await explain(a))["waiting"]
        assert (waiting["node"], waiting["space"], waiting["concerns_it"]) == (
            b.id.hex(),
            "application",
            True,
        )
        assert waiting["from_seq"] == waiting["to_seq"] == run.commits[0].header.seq
        (needed,) = waiting["waits_for"]
        assert (needed["author"], needed["seq"]) == (cause.author.hex(), cause.seq)
        assert (await explain(a))["here"]["state"] == "absent"
        assert (await a.ask("GET", "/v1/sync/explain/Task/t9")).status == 404


async def test_only_who_may_read_a_document_may_know_where_it_is(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, _):
        await a.done("POST", "/v1/data-models", {**TASK, "permissions": {"read": "owner"}})
        _, ann = await a.sign_up("ann")
        _, ben = await a.sign_up("ben")
        await a.done("POST", "/v1/data/Task", {"id": "t1"}, token=ann)
        assert (await explain(a, token=ann))["here"]["state"] == "shown"
        path = "/v1/sync/explain/Task/t1"
        assert (await a.ask("GET", path, token=ben)).status == 403
        assert (await a.ask("GET", path, token="nobody's")).status == 401
        assert (await a.ask("GET", "/v1/sync/explain/Nothing/t1", token=ann)).status == 404
        await a.done("DELETE", "/v1/data/Task/t1", token=ann)
        assert (await explain(a, token=ann))["here"]["state"] == "deleted"
        assert (await a.ask("GET", path, token=ben)).status == 403
