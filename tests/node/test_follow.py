"""What apps of one node hear of what happened on another: origins, first syncs, and what was judged again."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partialmethod
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from node.api.civicbase.graphql.messages import FORBIDDEN
from node.api.civicbase.realtime_session import NOT_WELCOME
from node.api.civicbase.realtime_socket import Timing
from node.api.runner import ApiServer
from protocol.exchange import EVERYTHING
from tests.node.pair import Running, exchange, hand_over, pair
from tests.node.running import Running as Here
from tests.node.running import running
from tests.node.services.webhook_receiver import receiving

TASK = {"name": "Task", "fields": [{"name": "title", "type": "string"}, {"name": "rank", "type": "integer"}]}
PATIENCE_S = 60.0


class Ears:
    """All that an app hears on one node: both dialects of the socket, and the stream."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, stream: aiohttp.ClientResponse) -> None:
        self.socket = socket
        self.stream = stream

    async def hear(self) -> tuple[Any, Any, Any]:
        """The next event by each way: `action`, `type` and stream."""
        said = {}
        for _ in range(2):
            message = await self.socket.receive_json(timeout=PATIENCE_S)
            said["event" if "event" in message else "type"] = message
        return said["event"], said["type"], await self.streamed()

    async def streamed(self) -> Any:
        while True:
            line = (await self.stream.content.readline()).decode()
            assert line, "the stream has ended"
            if line.startswith("data: "):
                return json.loads(line[6:])


@asynccontextmanager
async def listening(node: Running) -> AsyncIterator[Ears]:
    headers = {"Authorization": f"Bearer {node.owner}"}
    url = node.node.url
    stream_headers = headers | {"Accept": "text/event-stream"}
    async with (
        node.http.ws_connect(url + "/v1/realtime", headers=headers) as socket,
        node.http.get(url + "/v1/sync/changes", headers=stream_headers) as stream,
    ):
        await socket.send_json({"action": "subscribe", "model": "Task"})
        await socket.send_json({"type": "subscribe", "models": ["Task"]})
        ears = Ears(socket, stream)
        await ears.hear()
        yield ears


async def shared_model(a: Running, b: Running) -> None:
    await a.done("POST", "/v1/data-models", TASK)
    await exchange(a, b)
    await settled(b)


async def settled(*nodes: Running) -> None:
    """These and a peer hold the same: what a session tells with `InSync`."""
    for node in nodes:
        node.node.sharing.on_in_sync(EVERYTHING)
        await node.node.writer.submit(lambda local: None)


async def test_remote_changes_carry_their_origin_on_every_way_and_local_ones_none(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, b):
        await shared_model(a, b)
        async with listening(a) as ears:
            await b.done("POST", "/v1/data/Task", {"id": "t1", "title": "far"})
            await hand_over(b, a)
            action, typed, streamed = await ears.hear()
            assert {e["origin"] for e in (action, typed, streamed)} == {b.id.hex()}
            assert (action["event"], action["data"]["title"]) == ("create", "far")
            assert (typed["type"], typed["changes"]) == ("create", {"title": "far"})
            assert {key: typed[key] for key in typed if key not in ("subscription", "previous")} == {
                key: streamed[key] for key in streamed if key != "previous"
            }
            await a.done("PUT", "/v1/data/Task/t1", {"title": "near"})
            heard = await ears.hear()
            assert all("origin" not in event for event in heard)
            assert all(
                e["previous"] == f["cursor"] for e, f in zip(heard, (action, typed, streamed), strict=True)
            )
        page = await a.done("GET", f"/v1/sync/changes?since={action['previous']}")
        assert [change.get("origin") for change in page["changes"]] == [b.id.hex(), None]
        assert [change["cursor"] for change in page["changes"]] == [action["cursor"], heard[0]["cursor"]]


async def test_what_the_first_sync_brings_is_one_resync(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, b):
        await a.done("POST", "/v1/data-models", TASK)
        for n in range(5):
            await a.done("POST", "/v1/data/Task", {"id": f"t{n}"})
        b.clock.pass_s(60)
        a.clock.pass_s(60)
        await b.done("POST", "/v1/data-models", TASK)  # its user has not waited for the others' data
        before = (await b.done("GET", "/v1/sync/changes"))["cursor"]
        async with listening(b) as ears:
            await hand_over(a, b)
            await b.done("POST", "/v1/data/Task", {"id": "own"})
            heard = await ears.hear()
            assert [event.get("instance_id", event.get("instanceId")) for event in heard] == ["own"] * 3
            assert len((await b.done("GET", "/v1/data/Task"))["items"]) == 6
            await settled(b)
            resync = await ears.hear()
            assert [event.get("event", event.get("type")) for event in resync] == ["resync"] * 3
            await settled(b)
            await a.done("POST", "/v1/data/Task", {"id": "later"})
            await hand_over(a, b)
            heard = await ears.hear()
            assert [event.get("instance_id", event.get("instanceId")) for event in heard] == ["later"] * 3
            assert all(event["origin"] == a.id.hex() for event in heard)
            assert heard[0]["previous"] == resync[0]["cursor"]
        page = await b.done("GET", f"/v1/sync/changes?since={before}")
        assert page["resync"] and page["changes"] == []
        page = await b.done("GET", f"/v1/sync/changes?since={resync[2]['cursor']}")
        assert not page["resync"] and [change["instanceId"] for change in page["changes"]] == ["later"]


async def test_documents_that_a_revocation_undoes_are_told_with_the_node_that_revoked(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, b):
        await shared_model(a, b)
        await a.done("POST", "/v1/data/Task", {"id": "kept", "title": "mine", "rank": 1})
        await exchange(a, b)
        await a.revoke(b.id)  # as far as it has written until now
        await b.done("POST", "/v1/data/Task", {"id": "late", "title": "x"})  # it does not know yet
        await b.done("PUT", "/v1/data/Task/kept", {"title": "theirs"})
        async with listening(b) as ears:
            await hand_over(a, b)
            gone, changed = await ears.hear(), await ears.hear()
            assert {e["origin"] for e in (*gone, *changed)} == {a.id.hex()}
            assert [e.get("event", e.get("type")) for e in gone] == ["delete"] * 3
            assert gone[0]["instance_id"] == "late" and gone[0]["data"] is None
            assert changed[1]["changes"] == {"title": "mine"}, "the rest is as it was"
            assert changed[2]["data"] == changed[0]["data"]
        assert (await b.ask("GET", "/v1/data/Task/late")).status == 404
        await hand_over(b, a)
        seen = await a.done("GET", "/v1/sync/changes?model=Task")
        assert [change["instanceId"] for change in seen["changes"]] == ["kept"]


async def test_what_came_too_early_is_told_when_its_time_has_come(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, b):
        await shared_model(a, b)
        b.clock.pass_s(3_600)
        await b.done("POST", "/v1/data/Task", {"id": "t1", "title": "from the future"})
        async with listening(a) as ears:
            await hand_over(b, a)
            assert (await a.ask("GET", "/v1/data/Task/t1")).status == 404
            a.clock.pass_s(3_600)
            a.node.sharing.due._ring()
            heard = await ears.hear()
            assert {event["origin"] for event in heard} == {b.id.hex()}
            assert heard[1]["type"] == "create" and heard[1]["changes"] == {"title": "from the future"}
            assert (await a.done("GET", "/v1/data/Task/t1"))["title"] == "from the future"


async def test_an_owner_hears_that_a_revocation_took_their_document(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, b):
        await a.done(
            "POST", "/v1/data-models", {**TASK, "permissions": {"read": "owner", "create": "authenticated"}}
        )
        _, ann = await a.sign_up("ann")
        _, ben = await a.sign_up("ben")
        await exchange(a, b)
        await settled(b)
        await a.revoke(b.id)
        await b.done("POST", "/v1/data/Task", {"id": "late"}, token=ann)
        before = (await b.done("GET", "/v1/sync/changes", token=ann))["cursor"]
        await hand_over(a, b)
        for token, expected in ((ann, ["late"]), (ben, [])):
            page = await b.done("GET", f"/v1/sync/changes?since={before}", token=token)
            assert [c["instanceId"] for c in page["changes"]] == expected, page


async def test_those_whom_a_breach_concerns_are_told_on_the_node_that_they_are_at(tmp_path: Path) -> None:
    async with pair(tmp_path, webhooks_allow_private=True) as (a, b), receiving() as receiver:
        dora, hers = await a.sign_up("dora")
        _, his = await a.sign_up("ben")
        await exchange(a, b)
        await settled(b)
        hook = {"url": receiver.url, "events": ["breach.created"]}
        for token in (hers, his, b.owner):
            await b.done("POST", "/v1/webhooks", hook, token=token)
        url = b.node.url + "/v1/realtime?token="
        async with b.http.ws_connect(url + hers) as concerned, b.http.ws_connect(url + his) as other:
            told = {"affected_user_ids": [dora], "description": "A backup was stolen", "severity": "high"}
            notice = await a.done("POST", "/v1/privacy/breaches", told)
            await hand_over(a, b)
            heard = await concerned.receive_json(timeout=PATIENCE_S)
            del notice["affected_user_ids"]
            assert heard == {"type": "breach", **notice}
            await other.send_json({"type": "subscribe", "models": ["Task"]})
            assert (await other.receive_json(timeout=PATIENCE_S))["error_code"] == "NOT_FOUND"
        sent = [each.json for each in await receiver.heard(2)]
        changes = sorted((each["changes"] for each in sent), key=len)
        assert changes == [notice, {**notice, "affected_user_ids": [dora]}]
        assert {(each["event"], each["model"]) for each in sent} == {("breach.created", "Breach")}


async def test_a_node_with_open_streams_stops_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = partialmethod(ApiServer.stop, grace_s=PATIENCE_S * 100)  # requests under way are cut off
    monkeypatch.setattr(ApiServer, "stop", never)
    async with pair(tmp_path) as (a, b):
        await shared_model(a, b)
        async with listening(b) as ears, asyncio.timeout(PATIENCE_S):
            await b.node.stop()
            assert (await ears.stream.content.read()).strip() == b""


async def test_whoever_loses_the_right_to_read_is_told_at_once_on_every_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = partialmethod(Timing.__init__, recheck_s=PATIENCE_S * 100)  # tokens are looked at again
    monkeypatch.setattr(Timing, "__init__", never)
    plan = {**TASK, "name": "Plan", "permissions": {"read": "role:planner"}}
    async with running(tmp_path) as node:
        await node.model(plan)
        for n, cause in enumerate(("role", "permissions", "model", "disabled", "signed out")):
            user, token = await node.sign_up(f"ben{n}")
            await node.ask("POST", f"/v1/users/{user}/roles", {"role": "planner"})
            headers, url = {"Authorization": f"Bearer {token}"}, node.node.url
            async with (
                node.http.ws_connect(url + "/v1/realtime", headers=headers) as socket,
                node.http.get(
                    url + "/v1/sync/changes?model=Plan", headers=headers | {"Accept": "text/event-stream"}
                ) as stream,
                node.http.ws_connect(
                    url + "/v1/graphql", headers=headers, protocols=["graphql-transport-ws"]
                ) as graphql,
            ):
                await socket.send_json({"action": "subscribe", "model": "Plan"})
                await socket.send_json({"type": "subscribe", "models": ["Plan"]})
                await graphql.send_json({"type": "connection_init"})
                query = "subscription { planChanged { id } }"
                await graphql.send_json({"type": "subscribe", "id": "1", "payload": {"query": query}})
                ears = Ears(socket, stream)
                await ears.hear()
                assert (await graphql.receive_json(timeout=PATIENCE_S))["type"] == "connection_ack"
                await node.ask("POST", "/v1/data/Plan", {"title": cause})
                await ears.hear()
                assert (await graphql.receive_json(timeout=PATIENCE_S))["type"] == "next"
                await take_away(node, cause, user, token)
                code = {"model": "NOT_FOUND"}.get(cause, "FORBIDDEN")
                async with asyncio.timeout(PATIENCE_S):
                    if cause in ("disabled", "signed out"):
                        while (said := await socket.receive()).type is aiohttp.WSMsgType.TEXT:
                            assert "AUTH_INVALID_TOKEN" in said.data
                        assert said.data == NOT_WELCOME
                        assert (await graphql.receive()).data == FORBIDDEN
                        assert (await ears.streamed())["error_code"] == "AUTH_INVALID_TOKEN"
                    else:
                        for said in await ears.hear():
                            assert said["error_code"] == code and "'Plan'" in said["error"]
                        refused = await graphql.receive_json()
                        assert refused["type"] == "error"
                        assert refused["payload"][0]["extensions"]["error_code"] == code
                    assert (await stream.content.read()).strip() == b""
            await node.ask("POST", "/v1/data-models", plan)
            await node.ask("PUT", "/v1/data-models/Plan", plan)


async def take_away(node: Here, cause: str, user: str, token: str) -> None:
    """What lets a user read a model."""
    plan = "/v1/data-models/Plan"
    match cause:
        case "role":
            answer = await node.ask("DELETE", f"/v1/users/{user}/roles/planner")
        case "permissions":
            answer = await node.ask(
                "PUT", plan, {**TASK, "name": "Plan", "permissions": {"read": "role:boss"}}
            )
        case "model":
            answer = await node.ask("DELETE", plan)
        case "disabled":
            answer = await node.ask("PUT", f"/v1/admin/users/{user}", {"disabled": True})
        case _:
            answer = await node.ask("POST", "/v1/auth/logout", token=token)
    assert answer.status < 300, answer.text
