"""The realtime socket over real sockets, with a real client."""

import asyncio
import base64
import json
import logging
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType, web
from aiohttp.test_utils import TestServer

from node.api.civicbase.realtime import PENDING_MAX, Realtime, routes
from node.api.civicbase.realtime_outbox import Limits
from node.api.civicbase.realtime_socket import RealtimeParts, Timing
from node.api.errors import ApiError, s1_form
from node.api.routes import ANONYMOUS, CALLER, TOKEN, Auth
from node.services.scopes import Scopes
from protocol.ids import builtin_model_id
from protocol.integrate import Change
from tests.node.api.civicbase.realtime_fakes import ANN, APPLICATION, BEN, HERE, FakeAuthenticator, World

OWNER_TOKEN = "o" * 43
SEND_BUFFER_BYTES = 16_384  # of the system, small so that a client who does not read is felt soon
PATIENCE_S = 60.0


class Node:
    """What serves the socket in these tests, and what its frame would do before it."""

    def __init__(self, world: World, limits: Limits, timing: Timing) -> None:
        self.world = world
        self.authenticator = FakeAuthenticator()
        parts = RealtimeParts(
            feed=world.feed,
            documents=world.documents,
            permissions=world.permissions,
            authenticator=self.authenticator,
            node_id=HERE,
            steady_ms=lambda: int(asyncio.get_running_loop().time() * 1000),
            log=logging.getLogger("test"),
            edit=world.edit,
            owner_token=OWNER_TOKEN,
            limits=limits,
            timing=timing,
        )
        self.realtime = Realtime(parts)
        self.url = ""
        self.client: ClientSession

    async def frame(self, request: web.Request) -> web.StreamResponse:
        authorization = request.headers.get("Authorization", "")
        token = authorization.removeprefix("Bearer ") or request.query.get("token")
        assert request.transport is not None
        transport_socket = request.transport.get_extra_info("socket")
        transport_socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        try:
            caller = await self.authenticator.authenticate(token, None) if token else ANONYMOUS
            request[CALLER] = caller
            if token:
                request[TOKEN] = token
            return await self.realtime.handle(request)
        except ApiError as error:
            return web.json_response(s1_form(error), status=error.status, headers=error.headers)

    @asynccontextmanager
    async def connected(
        self, token: str | None = "ann", **options: Any
    ) -> AsyncIterator[ClientWebSocketResponse]:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with self.client.ws_connect(self.url, headers=headers, **options) as ws:
            yield ws

    def outbox_size_bytes(self) -> int:
        """Of the socket that has most waiting."""
        return max((s.outbox.size_bytes for s in self.realtime._connections), default=0)


@asynccontextmanager
async def serving(limits: Limits | None = None, **timing: float) -> AsyncIterator[Node]:
    quick = {"linger_s": 0.5, "recheck_s": 0.05, **timing}
    node = Node(World(), limits or Limits(), Timing(**quick))
    app = web.Application()
    app.router.add_get("/v1/realtime", node.frame)
    async with TestServer(app) as server, ClientSession() as node.client:
        node.url = str(server.make_url("/v1/realtime"))
        node.realtime.start()
        try:
            yield node
        finally:
            await node.realtime.stop()


async def hear(ws: ClientWebSocketResponse) -> Any:
    """The next message."""
    async with asyncio.timeout(PATIENCE_S):
        message = await ws.receive()
    assert message.type is WSMsgType.TEXT, message
    return json.loads(message.data)


async def say(ws: ClientWebSocketResponse, **members: Any) -> Any:
    """Send a message; the one that answers."""
    await ws.send_json(members)
    return await hear(ws)


async def end_of(ws: ClientWebSocketResponse) -> tuple[list[Any], int | None]:
    """What is heard until the socket closes, and with which code it does."""
    heard: list[Any] = []
    async with asyncio.timeout(PATIENCE_S):
        async for message in ws:
            heard.append(json.loads(message.data))
    return heard, ws.close_code


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  # what is waited for has no event
            await asyncio.sleep(0.001)


# -- getting in


def test_the_route_is_the_seeds_and_takes_a_token_in_the_query() -> None:
    world = World()
    (route,) = routes(Node(world, Limits(), Timing()).realtime)
    assert (route.method, route.path) == ("GET", "/v1/realtime")
    assert route.auth is Auth.OPTIONAL
    assert route.token_in_query


async def test_a_token_may_come_by_header_by_query_or_by_message() -> None:
    async with serving() as node:
        async with node.connected() as ws:
            assert (await say(ws, action="subscribe", model="Task"))["event"] == "subscribed"
        async with node.client.ws_connect(node.url + "?token=ann") as ws:
            assert (await say(ws, action="subscribe", model="Task"))["event"] == "subscribed"
        async with node.connected(None) as ws:
            await ws.send_json({"type": "authenticate", "token": "ann"})
            await ws.send_json(
                {"type": "subscribe", "models": ["Task"]}
            )  # without waiting, as the seed's client
            assert await hear(ws) == {"type": "authenticated", "user_id": "ann"}
            assert (await hear(ws))["type"] == "subscribed"
            node.world.create("Task", "t1")
            assert (await hear(ws))["type"] == "create"
        await until(lambda: len(node.realtime) == 0)
        assert not node.realtime.watchers.wants(node.world.entry(Change.UPDATED, "Task", "t1"))


async def test_the_owner_token_may_come_by_message_and_names_its_application() -> None:
    async with serving() as node:
        node.world.define("Note", application="other")
        async with node.connected(None) as ws:
            answer = await say(ws, type="authenticate", token=OWNER_TOKEN, application_id="other")
            assert answer["type"] == "authenticated"
            assert (await say(ws, action="subscribe", model="Note"))["event"] == "subscribed"


async def test_edits_are_made_in_the_order_of_the_client_and_answered_in_its_dialect() -> None:
    edit: dict[str, Any] = {"model": "Task", "field": "body", "ops": []}
    async with serving() as node, node.connected() as ws:
        await ws.send_json({"action": "edit", **edit, "instance_id": "t1", "base_version": "v", "ref": "a"})
        await ws.send_json({"type": "edit", **edit, "instanceId": "t1", "baseVersion": "v"})
        await ws.send_json(
            {"type": "edit", **edit, "field": "wrong", "instanceId": "t1", "baseVersion": "v", "ref": "c"}
        )
        names = {"model": "Task", "field": "body"}
        assert await hear(ws) == {
            "event": "edited",
            **names,
            "instance_id": "t1",
            "version": "v1",
            "ref": "a",
        }
        assert await hear(ws) == {"type": "edited", **names, "instanceId": "t1", "version": "v2"}
        refused = await hear(ws)
        assert (refused["type"], refused["details"], refused["ref"]) == (
            "error",
            {"wrong": "Unknown field"},
            "c",
        )
        assert [(caller.user_id, asked.ref) for caller, asked in node.world.edits] == [
            ("ann", "a"),
            ("ann", None),
        ]


async def test_no_edit_is_made_for_a_token_that_counts_no_longer() -> None:
    async with serving() as node, node.connected() as ws:
        node.authenticator.end("ann")
        await ws.send_json(
            {
                "action": "edit",
                "model": "Task",
                "field": "b",
                "ops": [],
                "instance_id": "t",
                "base_version": "v",
            }
        )
        heard, code = await end_of(ws)
        assert ([message["error_code"] for message in heard], code) == (["AUTH_INVALID_TOKEN"], 4401)
        assert node.world.edits == []


async def test_a_bad_token_or_none_in_time_closes_with_4401() -> None:
    async with serving() as node, node.connected(None) as ws:
        await ws.send_json({"type": "authenticate", "token": "forged"})
        heard, code = await end_of(ws)
        assert [message["error_code"] for message in heard] == ["AUTH_INVALID_TOKEN"]
        assert code == 4401
    async with serving(Limits(authenticate_within_ms=50)) as node, node.connected(None) as ws:
        heard, code = await end_of(ws)
        assert [message["error_code"] for message in heard] == ["UNAUTHORIZED"]
        assert code == 4401


async def test_a_plain_request_is_told_to_upgrade() -> None:
    async with serving() as node, node.client.get(node.url) as reply:
        assert reply.status == 426
        assert reply.headers["Upgrade"] == "websocket"
        assert (await reply.json())["error_code"] == "UPGRADE_REQUIRED"


async def test_compression_is_not_agreed_on() -> None:
    async with serving() as node, node.connected(compress=15) as ws:
        assert ws.compress == 0


async def test_messages_may_have_64_kib_and_no_more() -> None:
    async with serving() as node:
        async with node.connected() as ws:
            text = json.dumps({"action": "subscribe", "model": "Task"})
            await ws.send_str(text + " " * (65_536 - len(text)))
            assert (await hear(ws))["event"] == "subscribed"
            await ws.send_str(text + " " * (65_537 - len(text)))
            assert (await end_of(ws))[1] == 1009
        async with node.connected() as ws:
            await ws.send_bytes(b"{}")
            assert (await hear(ws))["error_code"] == "BAD_REQUEST"


# -- hearing


async def test_what_is_written_is_heard_by_all_who_watch_it() -> None:
    async with serving() as node, node.connected() as ann, node.connected("ben") as ben:
        first = await say(ann, action="subscribe", model="Task")
        await say(ben, type="subscribe", models=["Task"], events=["updated"])
        node.world.create("Task", "t1", title="one")
        node.world.update("Task", "t1", title="two")
        created, updated = await hear(ann), await hear(ann)
        assert (created["event"], created["previous"]) == ("create", first["cursor"])
        assert (updated["event"], updated["previous"]) == ("update", created["cursor"])
        assert (await hear(ben))["changes"] == {"title": "two"}


async def test_writes_that_nobody_watches_are_not_kept() -> None:
    async with serving() as node, node.connected() as ws:
        await say(ws, action="subscribe", model="Task", instance_id="t1")
        node.world.define("Other")
        node.world.create("Other", "o1")
        node.world.create("Task", "t2")
        assert not node.realtime._pending


async def test_a_client_that_comes_back_misses_nothing_while_writes_go_on() -> None:
    async with serving() as node:
        world, count = node.world, 600
        async with node.connected() as ws:
            await say(ws, action="subscribe", model="Task")
            for n in range(20):
                world.create("Task", f"t{n}")
            cursor = [await hear(ws) for _ in range(10)][-1]["cursor"]

        async def write() -> None:
            for n in range(20, count):
                world.create("Task", f"t{n}")
                await asyncio.sleep(0)

        writing = asyncio.create_task(write())
        async with node.connected() as ws:
            await say(ws, action="subscribe", model="Task", cursor=cursor)
            heard = [await hear(ws) for _ in range(count - 10)]
            assert [event["instance_id"] for event in heard] == [f"t{n}" for n in range(10, count)]
            assert [event["previous"] for event in heard] == [
                cursor,
                *(event["cursor"] for event in heard[:-1]),
            ]
        await writing


async def test_a_cursor_of_another_life_gets_one_resync() -> None:
    async with serving() as node, node.connected() as ws:
        node.world.create("Task", "t1")
        assert (await say(ws, type="subscribe", models=["Task"], cursor="other.1.0"))["type"] == "subscribed"
        resync = await hear(ws)
        assert resync["type"] == "resync"
        node.world.create("Task", "t2")
        event = await hear(ws)
        assert (event["instanceId"], event["previous"]) == ("t2", resync["cursor"])


async def test_a_record_that_no_longer_reaches_back_gets_one_resync() -> None:
    """The entries went between the look at the cursor and the reading."""
    async with serving() as node, node.connected() as ws:
        node.world.create("Task", "t1")
        node.world.create("Task", "t2")
        await ws.send_json({"action": "subscribe", "model": "Task", "cursor": "e.1.0"})
        session = await first_session(node)
        await until(lambda: bool(session._targets))
        node.world.feed.reaches_back_to = 2
        kinds = {(await hear(ws))["event"] for _ in range(2)}
        assert kinds <= {"subscribed", "resync", "create"}
        node.world.create("Task", "t3")
        while (await hear(ws)).get("instance_id") != "t3":
            pass


async def first_session(node: Node) -> Any:
    await until(lambda: len(node.realtime) > 0)
    return next(iter(node.realtime._connections))


# -- rights while connected


async def test_a_token_that_expires_closes_a_quiet_socket() -> None:
    async with serving() as node, node.connected() as ws:
        await say(ws, action="subscribe", model="Task")
        node.authenticator.end("ann")
        heard, code = await end_of(ws)
        assert [message["error_code"] for message in heard] == ["AUTH_INVALID_TOKEN"]
        assert code == 4401


async def test_nothing_is_told_under_a_token_that_no_longer_counts() -> None:
    async with serving(recheck_s=60) as node, node.connected() as ws:
        await say(ws, action="subscribe", model="Task")
        node.authenticator.end("ann")
        node.world.create("Task", "t1")
        heard, code = await end_of(ws)
        assert [message["event"] for message in heard] == ["error"]
        assert code == 4401


@pytest.mark.parametrize(("model", "id"), [("$signout", "ann-1"), ("$account", "ann")])
async def test_signing_out_closes_the_socket_at_once(model: str, id: str) -> None:
    async with serving(recheck_s=60) as node, node.connected() as ws, node.connected("ben") as other:
        await say(ws, action="subscribe", model="Task")
        await say(other, action="subscribe", model="Task")
        node.authenticator.end("ann")
        node.world.create(builtin_model_id(APPLICATION, model), id)
        assert (await end_of(ws))[1] == 4401
        node.world.create("Task", "t1")
        assert (await hear(other))["event"] == "create"


async def test_a_revoked_api_key_closes_the_socket_at_once() -> None:
    async with serving(recheck_s=60) as node:
        key = replace(ANN, session_id=None, api_key_id="key-1", scopes=Scopes(["data:Task:read"]))
        node.authenticator.callers["cbk_1"] = key
        async with node.connected("cbk_1") as ws:
            node.world.define("Plan")
            refused = await say(ws, action="subscribe", model="Plan")
            assert refused["event"] == "error"
            await say(ws, action="subscribe", model="Task")
            node.authenticator.end("cbk_1")
            node.world.create(builtin_model_id(APPLICATION, "$apikey"), "key-1")
            assert (await end_of(ws))[1] == 4401


async def test_a_doubtful_token_that_still_counts_costs_no_event() -> None:
    """The account changed, so the token is looked at again; meanwhile the record keeps what was written."""
    async with serving(recheck_s=60) as node, node.connected() as ws:
        await say(ws, action="subscribe", model="Task")
        for n in range(5):
            node.authenticator.known.clear()
            node.world.create(builtin_model_id(APPLICATION, "$account"), "ann")
            node.world.create("Task", f"t{n}")
            node.authenticator.known.clear()
            node.world.update("Task", f"t{n}")
        heard = [await hear(ws) for _ in range(10)]
        assert [event["instance_id"] for event in heard] == [f"t{n}" for n in range(5) for _ in "cu"]
        assert [event["previous"] for event in heard[1:]] == [event["cursor"] for event in heard[:-1]]


async def test_a_lost_role_or_a_changed_model_ends_subscriptions() -> None:
    async with serving(recheck_s=60) as node:
        node.authenticator.callers["ben"] = replace(BEN, roles=frozenset({"planner"}))
        plan = node.world.define("Plan", read="role:planner")
        async with node.connected("ben") as ws:
            await say(ws, type="subscribe", models=["Plan", "Task"])
            node.authenticator.callers["ben"] = BEN
            node.authenticator.known.clear()
            node.world.create(builtin_model_id(APPLICATION, "$role"), "ben")
            assert (await hear(ws))["details"] == {"Plan": "You may not read 'Plan' any more"}
            task = node.world.define("Task", read="role:planner")
            node.world.update(builtin_model_id(APPLICATION, "$model"), task.id)
            assert (await hear(ws))["details"] == {"Task": "You may not read 'Task' any more"}
            node.world.create("Task", "t1")
            node.world.create("Plan", "p1")
            node.world.define("Task")
            assert (await say(ws, type="subscribe", models=["Task"]))["type"] == "subscribed"
        assert plan.id


async def test_a_renewed_token_takes_the_place_of_the_first() -> None:
    async with serving() as node, node.connected() as ws:
        node.authenticator.callers["new"] = replace(ANN, session_id="ann-2")
        assert (await say(ws, type="authenticate", token="new"))["type"] == "authenticated"
        node.authenticator.end("ann")
        node.world.create(builtin_model_id(APPLICATION, "$signout"), "ann-1")
        assert (await say(ws, action="subscribe", model="Task"))["event"] == "subscribed"
        node.authenticator.end("new")
        assert (await end_of(ws))[1] == 4401


# -- slow clients, many events, faults


class RawClient:
    """A client that reads only when told to, and whose system buffers little."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, node: Node, token: str) -> "RawClient":
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        raw.setblocking(False)
        host, port = node.url.split("/")[2].split(":")
        await asyncio.get_running_loop().sock_connect(raw, (host, int(port)))
        reader, writer = await asyncio.open_connection(sock=raw, limit=1_024)
        key = base64.b64encode(bytes(16)).decode()
        writer.write(
            f"GET /v1/realtime?token={token} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        await reader.readuntil(b"\r\n\r\n")
        return cls(reader, writer)

    async def say(self, **members: Any) -> None:
        payload = json.dumps(members).encode()
        assert len(payload) < 126
        self._writer.write(bytes([0x81, 0x80 | len(payload)]) + bytes(4) + payload)
        await self._writer.drain()

    async def hear(self) -> tuple[int, bytes] | None:
        """Opcode and payload of the next frame, None at the end."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                first, length = await self._reader.readexactly(2)
                if length == 126:
                    (length,) = struct.unpack("!H", await self._reader.readexactly(2))
                elif length == 127:
                    (length,) = struct.unpack("!Q", await self._reader.readexactly(8))
                return first & 15, await self._reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    async def close(self) -> None:
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except ConnectionError:
            pass


async def test_a_client_that_stops_reading_is_cut_off_and_harms_nobody() -> None:
    count, size_bytes = 1_000, 4_000
    limits = Limits(queue_size_max_bytes=1 << 18, replay_size_max_bytes=1 << 16)
    async with serving(limits, stall_s=0.3, linger_s=5.0) as node, node.connected("ben") as good:
        slow = await RawClient.connect(node, "ann")
        await slow.say(action="subscribe", model="Task")
        await say(good, action="subscribe", model="Task")
        await until(
            lambda: len(node.realtime.watchers.of(node.world.entry(Change.UPDATED, "Task", "t"))) == 2
        )
        largest = 0
        for n in range(count):
            node.world.create("Task", f"t{n}", title="x" * size_bytes)
            if n % 20 == 19:
                heard = [await hear(good) for _ in range(20)]
                assert [event["instance_id"] for event in heard] == [f"t{k}" for k in range(n - 19, n + 1)]
            largest = max(largest, node.outbox_size_bytes())
        assert largest < (1 << 18) + 2 * size_bytes
        # What the system had taken comes through, in order, and then the reason.
        await until(lambda: any(s.close is not None for s in node.realtime._connections))
        last, code = "", None
        while (frame := await slow.hear()) is not None and code is None:
            opcode, payload = frame
            if opcode == 8:
                (code,) = struct.unpack("!H", payload[:2])
            elif opcode == 1:
                last = json.loads(payload)["cursor"]
        assert code == 1013
        await slow.close()
        await until(lambda: len(node.realtime) == 1)
        # With the last cursor it goes on where it was.
        async with node.connected() as again:
            await say(again, action="subscribe", model="Task", cursor=last)
            after = int(last.split(".")[1])
            heard = [await hear(again) for _ in range(count - after)]
            assert [event["instance_id"] for event in heard] == [f"t{n}" for n in range(after, count)]


async def test_a_client_that_never_answers_the_close_is_dropped() -> None:
    async with serving(stall_s=0.1, linger_s=0.1) as node:
        slow = await RawClient.connect(node, "ann")
        await slow.say(action="subscribe", model="Task")
        await first_session(node)
        await until(lambda: node.realtime.watchers.wants(node.world.entry(Change.UPDATED, "Task", "t")))
        for n in range(300):
            node.world.create("Task", f"t{n}", title="x" * 4_000)
        await until(lambda: len(node.realtime) == 0)
        await slow.close()


async def test_a_burst_beyond_every_queue_reaches_a_client_that_reads() -> None:
    count = PENDING_MAX + 1_000
    limits = Limits(queue_frames_max=300, replay_frames_max=100)
    async with serving(limits) as node, node.connected() as ws, node.connected("ben") as other:
        await say(ws, type="subscribe", models=["Task"])
        await say(other, action="subscribe", model="Task", instance_id="t7")
        world = node.world
        world.commit(*(world.entry(Change.CREATED, "Task", f"t{n}", index=n) for n in range(count)))
        world.feed.publish_all()
        heard = [await hear(ws) for _ in range(count)]
        assert [event["instanceId"] for event in heard] == [f"t{n}" for n in range(count)]
        assert [event["previous"] for event in heard[1:]] == [event["cursor"] for event in heard[:-1]]
        assert (await hear(other))["instance_id"] == "t7"


async def test_a_fault_of_ours_ends_one_socket_and_not_the_feed(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as node, node.connected() as ws, node.connected("ben") as other:
        node.world.define("Other")
        await say(ws, action="subscribe", model="Task")
        await say(other, action="subscribe", model="Other")
        node.world.documents.creator = lambda model, id: 1 / 0  # type: ignore[assignment,method-assign,return-value]
        node.world.delete("Task", "t1")
        assert (await end_of(ws))[1] == 1011
        assert "a realtime socket failed" in caplog.text
        node.world.create("Other", "o1")
        assert (await hear(other))["event"] == "create"


async def test_stopping_says_goodbye_and_lets_nobody_in() -> None:
    async with serving() as node, node.connected() as ws, node.connected(None) as stranger:
        await say(ws, action="subscribe", model="Task")
        node.world.create("Task", "t1")
        await until(lambda: not node.realtime._pending)
        closing = asyncio.create_task(node.realtime.stop())
        heard, code = await end_of(ws)
        assert [event["event"] for event in heard] == ["create"]
        assert code == 1001
        assert (await end_of(stranger))[1] == 1001
        await closing
        async with node.client.get(node.url, headers={"Upgrade": "websocket"}) as reply:
            assert reply.status == 503
