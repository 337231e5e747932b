"""Subscriptions over `graphql-transport-ws`, on a real node: its messages, its close codes, and nothing missed."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.api.civicbase.graphql import socket as sockets
from node.api.civicbase.graphql.messages import (
    BAD_REQUEST,
    FORBIDDEN,
    ID_IN_USE,
    INITIALISED_TWICE,
    NOT_INITIALISED,
    PROTOCOL,
    UNAUTHORIZED,
    WRONG_PROTOCOL,
    NotUnderstood,
    read_message,
)
from tests.node.pair import exchange, pair
from tests.node.running import Running, running

PATIENCE_S = 60.0
TASK = {
    "name": "Task",
    "fields": [
        {"name": "title", "type": "string"},
        {"name": "status", "type": "enum", "options": ["TODO", "DONE"]},
        {"name": "owner", "type": "reference", "model": "Task"},
    ],
}
SECRET = {
    "name": "Secret",
    "fields": [{"name": "word", "type": "string"}],
    "permissions": {"read": "owner"},
}
EVERYTHING = "event id record { title status owner { title } } changed matches origin cursor previous"


class Client:
    """A client that hides nothing."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    async def say(self, **message: Any) -> None:
        await self.socket.send_json(message)

    async def hear(self) -> Any:
        message = await self.socket.receive(PATIENCE_S)
        assert message.type is aiohttp.WSMsgType.TEXT, message
        return json.loads(message.data)

    async def init(self, **payload: Any) -> None:
        await self.say(type="connection_init", payload=payload or None)
        assert await self.hear() == {"type": "connection_ack"}

    async def subscribe(self, query: str, id: str = "1", **variables: Any) -> None:
        await self.say(type="subscribe", id=id, payload={"query": query, "variables": variables})

    async def event(self, id: str = "1", root: str = "taskChanged") -> Any:
        message = await self.hear()
        assert message["type"] == "next" and message["id"] == id, message
        return message["payload"]["data"][root]

    async def end(self) -> int | None:
        """The code that the server closes with."""
        while True:
            message = await self.socket.receive(PATIENCE_S)
            if message.type is aiohttp.WSMsgType.CLOSE:
                return int(message.data)  # what was said, whatever became of the connection after it
            if message.type is not aiohttp.WSMsgType.TEXT:
                return self.socket.close_code


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(tmp_path) as node:
        for definition in (TASK, SECRET):
            await node.model(definition)
        yield node


@asynccontextmanager
async def connected(
    node: Running, *, protocol: str = PROTOCOL, token: str | None = None, query: str = ""
) -> AsyncIterator[Client]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    url = f"{node.node.url}/v1/graphql{query}"
    async with node.http.ws_connect(url, protocols=[protocol], headers=headers) as socket:
        yield Client(socket)


def owner(node: Running) -> str:
    return (node.node.settings.data_dir / "owner.token").read_text().strip()


async def write(node: Running, id: str, **values: Any) -> None:
    model = node.node.catalog.find("default", "Task")
    assert model is not None
    await node.set(model, id, values)


async def cursor(node: Running) -> str:
    answer = await node.ask("POST", "/v1/graphql", {"query": "{ _cursor }"})
    return str(answer.json["data"]["_cursor"])


async def test_changes_come_as_they_are_selected(node: Running) -> None:
    async with connected(node) as client:
        await client.init(token=owner(node))
        await client.subscribe(f"subscription {{ taskChanged {{ {EVERYTHING} kind: __typename }} }}")
        await client.say(type="ping", payload={"n": 1})
        assert await client.hear() == {"type": "pong", "payload": {"n": 1}}
        await write(node, "t", title="one", status="TODO")
        created = await client.event()
        assert created["event"] == "CREATED" and created["id"] == "t" and created["kind"] == "TaskChange"
        assert created["record"] == {"title": "one", "status": "TODO", "owner": None}
        assert created["origin"] is None and created["matches"] is True
        await write(node, "t", owner="t")
        updated = await client.event()
        assert updated["event"] == "UPDATED" and updated["changed"] == ["owner"]
        assert updated["record"]["owner"] == {"title": "one"}
        assert updated["previous"] == created["cursor"] != updated["cursor"]
        await node.ask("DELETE", "/v1/data/Task/t")
        deleted = await client.event()
        assert deleted["event"] == "DELETED" and deleted["record"] is None and deleted["matches"] is None
        await client.say(type="complete", id="1")
        await write(node, "u")
        await client.subscribe("{ _models }", id="1")
        answer = await client.hear()
        assert answer == {"type": "next", "id": "1", "payload": {"data": {"_models": ["Secret", "Task"]}}}
        assert await client.hear() == {"type": "complete", "id": "1"}


async def test_only_what_is_asked_for_comes(node: Running) -> None:
    await write(node, "a", status="TODO")
    query = """subscription ($id: ID, $events: [ChangeEvent!], $filter: TaskFilter) {
      taskChanged(id: $id, events: $events, filter: $filter) { event id matches }
    }"""
    async with connected(node, token=owner(node)) as client:
        await client.init()
        await client.subscribe(query, id="one", id_=None)
        await client.subscribe(query, id="events", events=["DELETED"])
        await client.subscribe(query, id="filter", filter={"status": "TODO"})
        await client.say(type="subscribe", id="b", payload={"query": query, "variables": {"id": "b"}})
        heard: dict[str, list[Any]] = {"one": [], "events": [], "filter": [], "b": []}
        await client.say(type="ping")
        assert await client.hear() == {"type": "pong"}

        async def hear(**counts: int) -> None:
            """Until so much is told: an update that is read once its record is gone has nothing to show."""
            while any(len(heard[name]) < count for name, count in counts.items()):
                message = await client.hear()
                change = message["payload"]["data"]["taskChanged"]
                heard[message["id"]].append((change["event"], change["id"], change["matches"]))

        await write(node, "a", title="x")  # meets the filter
        await hear(one=1, filter=1)
        await write(node, "b", title="x")  # never did
        await hear(one=2, b=1)
        await write(node, "b", title="y")
        await hear(one=3, b=2)
        await write(node, "a", status="DONE")  # does no more
        await hear(one=4, filter=2)
        await write(node, "a", title="y")
        await hear(one=5)
        await node.ask("DELETE", "/v1/data/Task/a")
        await node.ask("DELETE", "/v1/data/Task/b")
        await hear(one=7, events=2, filter=4, b=3)
    assert len(heard["one"]) == 7
    assert heard["events"] == [("DELETED", "a", None), ("DELETED", "b", None)]
    assert [event for event in heard["filter"] if event[1] == "a"] == [
        ("UPDATED", "a", True),
        ("UPDATED", "a", False),
        ("DELETED", "a", None),
    ]
    assert ("UPDATED", "b", False) not in heard["filter"]
    assert [event[0] for event in heard["b"]] == ["CREATED", "UPDATED", "DELETED"]


async def test_a_cursor_misses_nothing_and_one_that_is_too_old_is_told_once(node: Running) -> None:
    start = await cursor(node)
    for number in range(100):
        await node.ask("POST", "/v1/data/Task", {"id": f"t{number}", "title": str(number)})
    query = "subscription ($cursor: String) { taskChanged(cursor: $cursor) { event id cursor previous } }"
    async with connected(node, token=owner(node)) as client:
        await client.init()
        await client.subscribe(query, cursor=start)
        seen = [await client.event() for _ in range(60)]
        assert seen[0]["previous"] == start
    async with connected(node, token=owner(node)) as client:
        await client.init()
        await client.subscribe(query, cursor=seen[-1]["cursor"])
        await write(node, "last")
        seen += [await client.event() for _ in range(41)]
        assert [change["id"] for change in seen] == [*(f"t{n}" for n in range(100)), "last"]
        assert all(later["previous"] == sooner["cursor"] for sooner, later in pairwise(seen))
        await client.subscribe(query, id="old", cursor="0123.1.1")
        resync = await client.event("old")
        assert (resync["event"], resync["id"]) == ("RESYNC", None)
        await write(node, "more")
        heard = [await client.hear() for _ in range(2)]
        (more,) = [m["payload"]["data"]["taskChanged"] for m in heard if m["id"] == "old"]
        assert more["id"] == "more" and more["previous"] == resync["cursor"]


async def test_changes_of_other_nodes_carry_their_origin(tmp_path: Path) -> None:
    async with pair(tmp_path) as (here, there):
        await here.done("POST", "/v1/data-models", TASK)
        await exchange(here, there)
        url = f"{here.node.url}/v1/graphql?token={here.owner}"
        async with here.http.ws_connect(url, protocols=[PROTOCOL]) as socket:
            client = Client(socket)
            await client.init()
            await client.subscribe("subscription { taskChanged { id origin record { title } } }")
            await client.say(type="ping")
            await client.hear()
            await there.done("POST", "/v1/data/Task", {"id": "far", "title": "x"})
            await exchange(here, there)
            assert await client.event() == {"id": "far", "origin": there.id.hex(), "record": {"title": "x"}}


async def test_only_who_may_read_hears(node: Running) -> None:
    _, ann = await node.sign_up("ann")
    _, bob = await node.sign_up("bob")
    query = "subscription { secretChanged { id record { word } } }"
    async with (
        connected(node, query=f"?token={ann}") as hers,
        connected(node) as his,
        connected(node) as nobodys,
    ):
        await hers.init()
        await his.init(Authorization=f"Bearer {bob}")
        await nobodys.init()
        await hers.subscribe(query)
        await his.subscribe(query)
        await nobodys.subscribe(query)
        refused = await nobodys.hear()
        assert refused["type"] == "error" and refused["id"] == "1"
        assert refused["payload"][0]["extensions"]["error_code"] == "UNAUTHORIZED"
        for client in (hers, his):
            await client.say(type="ping")
            assert await client.hear() == {"type": "pong"}
        await node.ask("POST", "/v1/data/Secret", {"id": "a", "word": "hers"}, token=ann)
        await node.ask("POST", "/v1/data/Secret", {"id": "b", "word": "his"}, token=bob)
        assert (await hers.event(root="secretChanged"))["record"] == {"word": "hers"}
        assert (await his.event(root="secretChanged"))["record"] == {"word": "his"}


async def test_what_happens_while_a_subscription_is_being_read_is_told(
    node: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_go_on, choose = asyncio.Event(), sockets.Socket._choose

    async def late(self: sockets.Socket, message: Any) -> Any:
        await may_go_on.wait()  # as long as a schema takes to be made
        return await choose(self, message)

    monkeypatch.setattr(sockets.Socket, "_choose", late)
    async with connected(node) as client:
        await client.init(token=owner(node))
        await client.subscribe("subscription { taskChanged { id } }")
        await client.say(type="ping")
        assert await client.hear() == {"type": "pong"}
        await write(node, "t")
        may_go_on.set()
        assert (await client.event())["id"] == "t"


async def test_who_signs_out_hears_no_more(node: Running) -> None:
    _, ann = await node.sign_up("ann")
    async with connected(node, token=ann) as client:
        await client.init()
        await client.subscribe("subscription { taskChanged { id } }")
        assert (await node.ask("POST", "/v1/auth/logout", {}, token=ann)).status in (200, 204)
        await write(node, "t")
        assert await client.end() == FORBIDDEN


@pytest.mark.parametrize(
    ("messages", "code"),
    [
        (['{"type":"subscribe","id":"1","payload":{"query":"{ _models }"}}'], UNAUTHORIZED),
        (['{"type":"connection_init"}', '{"type":"connection_init"}'], INITIALISED_TWICE),
        (["no JSON"], BAD_REQUEST),
        (['{"type":"start"}'], BAD_REQUEST),
        (['{"type":"connection_init"}', '{"type":"subscribe","id":"","payload":{}}'], BAD_REQUEST),
        (['{"type":"connection_init","payload":{"token":5}}'], BAD_REQUEST),
        (['{"type":"connection_init","payload":{"token":"nobody\'s"}}'], FORBIDDEN),
        (
            [
                '{"type":"connection_init"}',
                *[
                    '{"type":"subscribe","id":"%s","payload":{"query":"subscription { publicChanged { id } }"}}'
                    % ("ö" * 128)
                ]
                * 2,
            ],
            ID_IN_USE,
        ),
    ],
)
async def test_who_breaks_the_protocol_is_closed_with_its_code(
    node: Running, messages: list[str], code: int
) -> None:
    public = {
        "name": "Public",
        "fields": [{"name": "a", "type": "string"}],
        "permissions": {"read": "public"},
    }
    await node.ask("POST", "/v1/data-models", public)
    async with connected(node) as client:
        for message in messages:
            await client.socket.send_str(message)
        assert await client.end() == code


async def test_another_subprotocol_is_not_spoken(node: Running) -> None:
    async with connected(node, protocol="graphql-ws") as client:
        assert await client.end() == WRONG_PROTOCOL


async def test_a_socket_that_is_never_initialised_is_closed(node: Running) -> None:
    parts = node.node.civicbase.realtime.parts
    object.__setattr__(parts.limits, "authenticate_within_ms", 50)
    async with connected(node) as client:
        assert await client.end() == NOT_INITIALISED


async def test_operations_have_a_limit_and_errors_of_their_own(
    node: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "OPERATIONS_MAX", 2)
    async with connected(node, token=owner(node)) as client:
        await client.init()
        await client.subscribe("subscription { taskChanged { nope } }")
        fault = await client.hear()
        assert fault["type"] == "error" and "nope" in fault["payload"][0]["message"]
        await client.subscribe("subscription ($no: Boolean!) { taskChanged @skip(if: $no) { id } }", no=True)
        assert (await client.hear())["type"] == "error"
        await client.subscribe("subscription { taskChanged(filter: { status: null }) { id } }")
        assert (await client.hear())["payload"][0]["extensions"]["details"] == {
            "filter": "status: Must have a value"
        }
        for id in ("1", "2", "3"):
            await client.subscribe("subscription { taskChanged { id } }", id=id)
        refused = await client.hear()
        assert refused["id"] == "3" and refused["payload"][0]["extensions"]["error_code"] == "LIMIT_EXCEEDED"
        await client.subscribe('mutation { createTask(input: { title: "x" }) { title } }', id="4")
        assert (await client.hear())["type"] == "error"
        await client.say(type="complete", id="1")
        await client.subscribe('mutation { createTask(input: { title: "x" }) { title } }', id="4")
        heard = [await client.hear() for _ in range(3)]
        assert {(m["type"], m["id"]) for m in heard} == {("next", "2"), ("next", "4"), ("complete", "4")}


async def test_a_subscription_follows_its_model_into_another_schema(node: Running) -> None:
    async with connected(node, token=owner(node)) as client:
        await client.init()
        await client.subscribe("subscription { taskChanged { id record { title } } }")
        await client.say(type="ping")
        await client.hear()
        wider = TASK | {"fields": [*TASK["fields"], {"name": "more", "type": "string"}]}
        assert (await node.ask("PUT", "/v1/data-models/Task", wider)).status == 200
        await write(node, "t", title="x", more="y")
        assert (await client.event())["id"] == "t"
        await write(node, "u", title="z")
        assert (await client.event())["record"] == {"title": "z"}


async def test_who_takes_nothing_is_cut_off_and_holds_up_nobody(node: Running) -> None:
    object.__setattr__(node.node.civicbase.realtime.parts.timing, "stall_s", 0.2)
    async with connected(node, token=owner(node)) as client, connected(node, token=owner(node)) as other:
        for each in (client, other):
            await each.init()
        await client.subscribe("subscription { taskChanged { record { title } } }")
        await other.subscribe("subscription { taskChanged { id } }")
        await client.say(type="ping")
        await client.hear()
        transport = client.socket._response.connection.transport  # type: ignore[union-attr]
        assert transport is not None
        transport.pause_reading()
        for number in range(60):
            await node.ask("POST", "/v1/data/Task", {"id": f"t{number}", "title": "x" * 500_000})
        assert [(await other.event())["id"] for _ in range(60)] == [f"t{n}" for n in range(60)]
        streams = node.node.civicbase.changes.streams
        async with asyncio.timeout(PATIENCE_S):
            while len(streams) > 1:  # noqa: ASYNC110  # what is waited for has no event
                await asyncio.sleep(0.01)
        transport.resume_reading()
        with pytest.raises((aiohttp.ClientError, AssertionError, ConnectionError)):
            for _ in range(60):
                await client.event()


async def test_sockets_end_with_the_node(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        async with connected(node, token=owner(node)) as client:
            await client.init()
            await client.subscribe("subscription { taskChanged { id } }")
            await client.hear()  # there is no such model
            node.node.civicbase.graphql.stop()
            assert await client.end() == 1001
        answer = await node.ask("GET", "/v1/graphql", Upgrade="websocket")
        assert answer.status == 503


async def test_sockets_are_not_counted_and_queries_that_pretend_are_none(node: Running) -> None:
    for _ in range(3):
        async with connected(node) as client:
            await client.init()
    async with node.http.get(node.node.url + "/v1/graphql", params={"query": "{ _models }"}) as answer:
        assert answer.headers["X-RateLimit-Remaining"] == "59"
    headers = {"Upgrade": "websocket, h2c", "Connection": "Upgrade"}
    async with node.http.get(
        node.node.url + "/v1/graphql", params={"query": "{ _models }"}, headers=headers
    ) as answer:
        assert answer.headers["X-RateLimit-Remaining"] == "58"


@given(st.text(max_size=40) | st.sampled_from(["[]", "{}", '{"type":1}', '{"type":"ping","payload":[]}']))
def test_whatever_comes_is_a_message_or_not_understood(text: str) -> None:
    with pytest.raises(NotUnderstood):
        read_message(text)
