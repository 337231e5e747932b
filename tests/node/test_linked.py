"""Two whole nodes on a real link: receipts, and what crosses by itself."""

import asyncio
from pathlib import Path
from typing import Any

from node.net.contacts import Source
from node.net.peers import Peers
from tests.node.pair import Answer, Running, pair

TASK = {"name": "Task", "fields": [{"name": "title", "type": "string"}]}
PATIENCE_S = 60.0


async def until_in_sync(*nodes: Running) -> None:
    async with asyncio.timeout(PATIENCE_S):
        for node in nodes:
            while not (await node.done("GET", "/v1/sync/status"))["in_sync"]:
                await node.done("POST", "/v1/sync")


async def meet(caller: Running, answerer: Running) -> None:
    """Have one node call the other."""
    (await links_of(caller)).found(answerer.node.network.listening, Source.CONFIGURED)


async def links_of(node: Running) -> Peers:
    """Once they are open."""
    network = node.node.network
    assert network._opening is not None
    await network._opening
    assert network._running is not None
    return network._running.peers


def held_by(answer: Answer) -> tuple[int, str, str | None]:
    return answer.status, answer.headers["X-Held-By-Peers"], answer.headers.get("Preference-Applied")


async def test_writes_are_answered_when_other_nodes_hold_them(tmp_path: Path) -> None:
    async with pair(tmp_path, is_linked=True) as (a, b):
        await a.done("POST", "/v1/data-models", TASK)
        await until_in_sync(a, b)
        prefer: dict[str, str] = {"Prefer": "wait=peers:1; timeout=60"}
        enough = ("1", 'wait="peers:1"')
        one = "/v1/data/Task/t1"
        create = {"method": "POST", "path": "/data/Task", "body": {"id": "t2"}}
        asked: list[tuple[str, str, Any, int]] = [
            ("POST", "/v1/data/Task", {"id": "t1", "title": "x"}, 201),
            ("PUT", one, {"title": "y"}, 200),
            ("POST", "/v1/batch", {"operations": [create]}, 200),
            ("POST", "/v1/batch", {"operations": [{**create, "body": {"id": "t3"}}], "atomic": False}, 200),
            ("DELETE", one, None, 204),
        ]
        for method, path, body, status in asked:
            answer = await a.ask(method, path, body, **prefer)
            assert held_by(answer) == (status, *enough), answer.text
            # What the other node holds by its word, it has.
            there = await b.ask("GET", one)
            assert there.status == (404 if method == "DELETE" else 200)
            if method == "PUT":
                assert there.json["title"] == "y"


async def test_at_the_deadline_it_is_said_how_many_hold_it(tmp_path: Path) -> None:
    async with pair(tmp_path, is_linked=True) as (a, b):
        await a.done("POST", "/v1/data-models", TASK)
        await until_in_sync(a, b)
        # The other node may be slow to say so: then the answer is as true, and a later deadline is met.
        deadlines_s = iter((1.5, 6, 24, 60))
        held = "0"
        while held == "0":
            prefer = f"wait=peers:2; timeout={next(deadlines_s)}"
            answer = await a.ask("POST", "/v1/data/Task", {"title": "x"}, Prefer=prefer)
            held = answer.headers["X-Held-By-Peers"]
            assert held_by(answer) == (201, held, None)
        assert held == "1"
        await b.node.stop()
        answer = await a.ask("POST", "/v1/data/Task", {"id": "t2"}, Prefer="wait=peers:1; timeout=0.1")
        assert held_by(answer) == (201, "0", None)
        answer = await a.ask("POST", "/v1/data/Task", {"id": "t3"})
        assert "X-Held-By-Peers" not in answer.headers


async def test_what_comes_by_the_first_link_is_one_resync_and_later_changes_are_events(
    tmp_path: Path,
) -> None:
    async with pair(tmp_path, is_linked=False) as (a, b):
        await a.done("POST", "/v1/data-models", TASK)
        for n in range(20):
            await a.done("POST", "/v1/data/Task", {"id": f"t{n}"})
        b.clock.pass_s(1)
        a.clock.pass_s(1)
        await b.done("POST", "/v1/data-models", TASK)
        headers = {"Authorization": f"Bearer {b.owner}"}
        async with b.http.ws_connect(b.node.url + "/v1/realtime", headers=headers) as socket:
            await socket.send_json({"action": "subscribe", "model": "Task"})
            assert (await socket.receive_json(timeout=PATIENCE_S))["event"] == "subscribed"
            await meet(b, a)
            assert (await socket.receive_json(timeout=PATIENCE_S))["event"] == "resync"
            assert (await b.done("GET", "/v1/data/Task"))["total"] == 20
            await a.done("POST", "/v1/data/Task", {"id": "later"})
            event = await socket.receive_json(timeout=PATIENCE_S)
            assert (event["event"], event["instance_id"], event["origin"]) == ("create", "later", a.id.hex())


async def test_a_sync_says_how_much_it_brought_and_which_conflicts(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, b):
        links = await links_of(b)

        async def synced() -> Any:
            # Nobody calls before the sync does: what has crossed by then would not be its own.
            links.contacts.add(a.node.network.listening, Source.CONFIGURED)
            return await b.done("POST", "/v1/sync?timeout_ms=60000")

        await a.done("POST", "/v1/data-models", TASK)
        for n in range(20):
            await a.done("POST", "/v1/data/Task", {"id": f"t{n}", "title": "before"})
        told = await synced()
        assert told["syncedCount"] >= 21 and told["conflicts"] == []

        links.contacts._contacts.clear()
        for link in list(links.links):
            link.cut("the test says so")
        for n in range(10):
            await a.done("PUT", f"/v1/data/Task/t{n}", {"title": "on a"})
        await b.done("PUT", "/v1/data/Task/t0", {"title": "on b"})
        told = await synced()
        assert told["syncedCount"] >= 11
        (conflict,) = told["conflicts"]
        assert (conflict["instance_id"], conflict["field"]) == ("t0", "title")
