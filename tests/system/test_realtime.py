"""The realtime socket on a whole node: what is written over HTTP is heard, whatever happens in between."""

import asyncio
from pathlib import Path
from typing import Any

from aiohttp import ClientSession, ClientWebSocketResponse

from tests.system.process import NodeProcess

TASK = {
    "name": "Task",
    "fields": [
        {"name": "title", "type": "string"},
        {"name": "tags", "type": "set"},
        {"name": "votes", "type": "counter"},
    ],
}
DIARY = {"name": "Diary", "fields": [{"name": "text", "type": "string"}], "permissions": {"read": "owner"}}
PATIENCE_S = 120


def sign_up(node: NodeProcess, name: str) -> str:
    account = {"email": f"{name}@example.org", "password": "correct horse 9", "application_id": "default"}
    assert node.ask("POST", "/v1/auth/register", {**account, "username": name}, token=None).status == 201
    return str(node.ask("POST", "/v1/auth/login", account, token=None).json["token"])


async def ask(node: NodeProcess, method: str, path: str, body: object = None, token: str = "") -> Any:
    answer = await asyncio.to_thread(node.ask, method, path, body, token=token)
    assert answer.status < 300, answer.body
    return answer.json if answer.body else None


async def hear(ws: ClientWebSocketResponse) -> Any:
    async with asyncio.timeout(PATIENCE_S):
        return await ws.receive_json()


async def say(ws: ClientWebSocketResponse, **members: Any) -> Any:
    await ws.send_json(members)
    return await hear(ws)


async def test_changes_are_heard_in_both_dialects_by_those_who_may(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "node") as node:
        for model in (TASK, DIARY):
            assert node.ask("POST", "/v1/data-models", model).status == 201
        ann, ben = sign_up(node, "ann"), sign_up(node, "ben")
        url = f"{node.url}/v1/realtime"
        async with (
            ClientSession() as client,
            client.ws_connect(url, headers={"Authorization": f"Bearer {ann}"}) as first,
            client.ws_connect(f"{url}?token={ben}") as second,
            client.ws_connect(url) as owner,
        ):
            await say(first, action="subscribe", model="Task")
            await say(first, action="subscribe", model="Diary")
            await say(second, type="subscribe", models=["Task", "Diary"])
            assert (await say(owner, type="authenticate", token=node.token))["type"] == "authenticated"
            await say(owner, action="subscribe", model="Diary")
            made = await ask(node, "POST", "/v1/data/Task", {"title": "one", "tags": ["a"], "votes": 1}, ann)
            path = f"/v1/data/Task/{made['instance_id']}"
            created = await hear(first)
            assert created["event"] == "create"
            assert created["data"] == node.ask("GET", path).json
            heard = await hear(second)
            assert heard["changes"] == {"title": "one", "tags": ["a"], "votes": 1}
            await ask(node, "PUT", path, {"tags": ["b"], "votes": 3}, ann)
            assert (await hear(first))["data"]["tags"] == ["b"]
            assert (await hear(second))["changes"] == {"tags": ["b"], "votes": 3}
            note = await ask(node, "POST", "/v1/data/Diary", {"text": "mine"}, ann)
            await ask(node, "DELETE", f"/v1/data/Diary/{note['instance_id']}", None, ann)
            await ask(node, "DELETE", path, None, ann)
            assert [(await hear(first))["event"] for _ in range(3)] == ["create", "delete", "delete"]
            assert [(await hear(owner))["event"] for _ in range(2)] == ["create", "delete"]
            gone = await hear(second)
            assert (gone["type"], gone["model"], gone["instanceId"]) == (
                "delete",
                "Task",
                made["instance_id"],
            )
            ending = asyncio.create_task(hear_end(second))  # listening before it comes, to answer it in time
            await ask(node, "POST", "/v1/auth/logout", None, ben)
            assert (await ending) == 4401
        assert node.stop() == 0
        assert "Traceback" not in node.errors.read_text()


async def hear_end(ws: ClientWebSocketResponse) -> int | None:
    async with asyncio.timeout(PATIENCE_S):
        async for _ in ws:
            pass
    return ws.close_code


async def test_a_subscription_goes_on_after_a_crash_with_its_cursor(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "node") as node:
        assert node.ask("POST", "/v1/data-models", TASK).status == 201
        async with (
            ClientSession() as client,
            client.ws_connect(f"{node.url}/v1/realtime?token={node.token}") as ws,
        ):
            cursor = (await say(ws, type="subscribe", models=["Task"]))["cursor"]
            for n in range(3):
                await ask(node, "POST", "/v1/data/Task", {"title": str(n)})
            cursor = (await hear(ws))["cursor"]
        node.kill()
    with NodeProcess(tmp_path / "node") as node:
        operations = [
            {"method": "POST", "path": "/data/Task", "body": {"title": str(n)}} for n in range(3, 5_000)
        ]
        assert node.ask("POST", "/v1/batch", {"operations": operations}).status == 200
        async with (
            ClientSession() as client,
            client.ws_connect(f"{node.url}/v1/realtime?token={node.token}") as ws,
        ):
            assert (await say(ws, type="subscribe", models=["Task"], cursor=cursor))["cursor"] == cursor
            previous = cursor
            titles: list[str] = []
            while len(titles) < 4_999:
                event = await hear(ws)
                assert (event["type"], event["previous"]) == ("create", previous)
                previous = event["cursor"]
                titles.append(event["data"]["title"])
            assert titles == [str(n) for n in range(1, 5_000)]
        assert node.stop() == 0
        assert "Traceback" not in node.errors.read_text()


async def test_a_large_batch_reaches_whoever_is_watching(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "node") as node:
        assert node.ask("POST", "/v1/data-models", TASK).status == 201
        async with (
            ClientSession() as client,
            client.ws_connect(f"{node.url}/v1/realtime?token={node.token}") as ws,
        ):
            previous = (await say(ws, action="subscribe", model="Task"))["cursor"]
            operations = [
                {"method": "POST", "path": "/data/Task", "body": {"title": f"{n} " + "x" * 500}}
                for n in range(10_000)
            ]
            writing = asyncio.create_task(ask(node, "POST", "/v1/batch", {"operations": operations}))
            for n in range(10_000):
                event = await hear(ws)
                assert (event["previous"], event["data"]["title"].split()[0]) == (previous, str(n))
                previous = event["cursor"]
            await writing
        assert node.stop() == 0
