"""Texts and lists that several edit, over HTTP on a whole node."""

import asyncio
from pathlib import Path
from typing import Any

from aiohttp import ClientSession, ClientWebSocketResponse

from tests.system.process import Answer, NodeProcess, civicnode

PAGE = {
    "name": "Page",
    "fields": [
        {"name": "title", "type": "string"},
        {"name": "body", "type": "text", "required": True},
        {"name": "steps", "type": "array"},
    ],
}


def put(node: NodeProcess, values: dict[str, Any], id: str = "one") -> Answer:
    return node.ask("PUT", f"/v1/data/Page/{id}", values)


def shown(node: NodeProcess, id: str = "one") -> Any:
    return node.ask("GET", f"/v1/data/Page/{id}").json


def version_of(answer: Answer) -> str:
    assert answer.status < 300, answer.body
    return answer.headers["etag"].strip('"')


def edit(node: NodeProcess, field: str, version: str, *ops: dict[str, Any]) -> Answer:
    return put(node, {field: {"ops": list(ops), "base_version": version}})


def start(node: NodeProcess, **values: Any) -> str:
    assert node.ask("POST", "/v1/data-models", PAGE).status == 201
    made = node.ask("POST", "/v1/data/Page", {"id": "one", **values})
    assert made.status == 201, made.body
    return version_of(made)


def test_a_text_is_created_edited_and_survives_a_kill(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "node") as node:
        first = start(node, body="The quick fox", steps=["run", {"n": 1, "m": [1.5, None]}, 2])
        assert shown(node)["body"] == "The quick fox"
        assert shown(node)["steps"] == ["run", {"n": 1, "m": [1.5, None]}, 2]
        second = version_of(put(node, {"body": "The quick brown fox 🦊"}))
        # Two apps edit what they saw at the first and at the second version: both edits land where they were meant.
        assert edit(node, "body", first, {"retain": 13}, {"insert": " jumps"}).status == 200
        assert (
            edit(node, "body", second, {"delete": 3}, {"insert": "A"}, {"retain": 18}, {"insert": "!"}).status
            == 200
        )
        assert shown(node)["body"] == "A quick brown fox jumps 🦊!"
        assert (
            edit(node, "steps", first, {"retain": 1}, {"delete": 1}, {"insert": [True, "😀"]}).status == 200
        )
        assert shown(node)["steps"] == ["run", True, "😀", 2]
        node.kill()
    with NodeProcess(tmp_path / "node") as node:
        assert shown(node)["body"] == "A quick brown fox jumps 🦊!"
        # Read from the history: nothing of this is in memory any more.
        assert edit(node, "body", first, {"delete": 3}, {"insert": "One"}, {"retain": 10}).status == 200
        assert shown(node)["body"] in ("OneA quick brown fox jumps 🦊!", "AOne quick brown fox jumps 🦊!")
        assert node.stop() == 0
    checked = civicnode("doctor", "--data-dir", str(tmp_path / "node"))
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_texts_are_filtered_as_strings_and_empty_ones_read_as_empty(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "node") as node:
        start(node, body="alpha beta")
        assert node.ask("POST", "/v1/data/Page", {"id": "two", "body": ""}).status == 201
        found = node.ask("GET", "/v1/data/Page?filter=body:like:%25beta").json
        assert [item["id"] for item in found["items"]] == ["one"]
        assert (shown(node, "two")["body"], shown(node, "two")["steps"]) == ("", [])
        version = version_of(put(node, {"body": "gamma"}, "two"))
        assert shown(node, "two")["body"] == "gamma"
        assert node.ask("GET", "/v1/data/Page/two").headers["etag"].strip('"') == version


def test_what_is_wrong_with_an_edit_is_named(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "node") as node:
        version = start(node, body="abc")
        wrong = edit(node, "body", version, {"retain": 0}, {"insert": 1}, {"keep": 1})
        assert wrong.status == 400
        assert set(wrong.json["details"]) == {"body.ops[0]", "body.ops[1].insert", "body.ops[2]"}
        beyond = edit(node, "body", version, {"retain": 4}, {"insert": "x"})
        assert (beyond.status, beyond.json["details"]) == (
            400,
            {"body.ops": "Reaches beyond the end: 3 characters at that version"},
        )
        assert edit(node, "title", version, {"insert": "x"}).status == 400
        assert put(node, {"body": {"ops": []}}).json["details"] == {
            "body.base_version": "This field is required"
        }
        assert put(node, {"body": 5}).json["details"] == {"body": "Must be a string"}
        assert put(node, {"steps": "x"}).json["details"] == {"steps": "Must be a list"}
        assert put(node, {"body": None}).json["details"] == {"body": "This field is required"}
        unknown = edit(node, "body", "0" * 16, {"insert": "x"})
        assert (unknown.status, unknown.json["error_code"]) == (409, "CONFLICT")
        assert edit(node, "body", version, {"insert": "x" * (1 << 20)}).status == 413
        gone = node.ask(
            "PUT", "/v1/data/Page/none", {"body": {"ops": [{"insert": "x"}], "base_version": version}}
        )
        assert gone.status == 404
        assert shown(node)["body"] == "abc"


def test_nothing_of_a_deleted_text_comes_back(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "node") as node:
        version = start(node, body="secret", steps=[1, 2])
        assert node.ask("DELETE", "/v1/data/Page/one").status == 204
        assert edit(node, "body", version, {"insert": "x"}).status == 404
        assert node.ask("POST", "/v1/data/Page", {"id": "one", "body": "new"}).status == 201
        assert (shown(node)["body"], shown(node)["steps"]) == ("new", [])


def test_edits_in_a_batch_stand_together_or_each_alone(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "node") as node:
        version = start(node, body="abc")
        one = {"ops": [{"insert": "1"}], "base_version": version}
        two = {"ops": [{"retain": 3}, {"insert": "2"}], "base_version": version}
        bad = {"ops": [{"insert": "3"}], "base_version": "f" * 16}

        def operations(*edits: dict[str, Any]) -> list[dict[str, Any]]:
            return [{"method": "PUT", "path": "/data/Page/one", "body": {"body": e}} for e in edits]

        refused = node.ask("POST", "/v1/batch", {"operations": operations(one, bad)})
        assert refused.status == 409, refused.body
        assert shown(node)["body"] == "abc"
        assert node.ask("POST", "/v1/batch", {"operations": operations(one, two)}).status == 200
        assert shown(node)["body"] == "1abc2"
        apart = node.ask("POST", "/v1/batch", {"operations": operations(bad, one), "atomic": False}).json
        assert [result["status"] for result in apart["results"]] == [409, 200]
        assert sorted(shown(node)["body"]) == sorted("11abc2")


async def test_texts_are_edited_over_the_socket_in_both_dialects(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "node") as node:
        version = start(node, body="abc")
        headers = {"Authorization": f"Bearer {node.token}"}
        async with (
            ClientSession(headers=headers) as client,
            client.ws_connect(f"{node.url}/v1/realtime") as writer,
            client.ws_connect(f"{node.url}/v1/realtime") as watcher,
        ):

            async def hear(ws: ClientWebSocketResponse) -> Any:
                async with asyncio.timeout(120):
                    return await ws.receive_json()

            await watcher.send_json({"type": "subscribe", "models": ["Page"]})
            await hear(watcher)
            edit = {"model": "Page", "field": "body"}
            ops = [{"retain": 3}, {"insert": "d"}]
            await writer.send_json(
                {
                    "action": "edit",
                    **edit,
                    "instance_id": "one",
                    "ops": ops,
                    "base_version": version,
                    "ref": "1",
                }
            )
            first = await hear(writer)
            assert (first["event"], first["ref"]) == ("edited", "1")
            heard = await hear(watcher)
            assert (heard["type"], heard["changes"]) == ("update", {"body": "abcd"})
            await writer.send_json(
                {"type": "edit", **edit, "instanceId": "one", "ops": [{"delete": 1}], "baseVersion": version}
            )
            second = await hear(writer)
            assert second == {"type": "edited", **edit, "instanceId": "one", "version": second["version"]}
            assert (await hear(watcher))["changes"] == {"body": "bcd"}
            await writer.send_json(
                {"type": "edit", **edit, "instanceId": "one", "ops": [{"cut": 1}], "baseVersion": version}
            )
            refused = await hear(writer)
            assert set(refused["details"]) == {"body.ops[0]"}
            await writer.send_json(
                {
                    "type": "edit",
                    **edit,
                    "instanceId": "one",
                    "ops": [{"delete": 1}],
                    "baseVersion": "unknown",
                }
            )
            assert (await hear(writer))["error_code"] == "CONFLICT"
        shown_now = await asyncio.to_thread(shown, node)
        assert (shown_now["body"], shown_now["version"]) == ("bcd", second["version"])
