"""Changes since a place, page by page and as server-sent events, over real sockets."""

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import ClientError, ClientResponse, ClientSession, web
from aiohttp.test_utils import TestServer

from node.api.civicbase.changes import ChangeRoutes
from node.api.civicbase.realtime import Realtime
from node.api.civicbase.realtime_socket import RealtimeParts, Timing
from node.api.civicbase.streaming import EVENTS_MAX
from node.api.error_table import ERROR_TABLE
from node.api.errors import from_exception, s1_form
from node.api.routes import ANONYMOUS, CALLER, TOKEN, Caller
from node.feed import BODY_MAX, Position
from protocol.clock import hlc_of_ms
from protocol.integrate import Change
from tests.node.api.civicbase.realtime_fakes import APPLICATION, ELSEWHERE, HERE, FakeAuthenticator, World

SEND_BUFFER_BYTES = 16_384  # of the system, small so that a client who does not read is felt soon
PATIENCE_S = 60.0


class Served:
    """What serves the route in these tests, and what its frame would do before it."""

    def __init__(self, **timing: float) -> None:
        self.world = World()
        self.authenticator = FakeAuthenticator()
        parts = RealtimeParts(
            feed=self.world.feed,
            documents=self.world.documents,
            permissions=self.world.permissions,
            authenticator=self.authenticator,
            node_id=HERE,
            steady_ms=lambda: int(asyncio.get_running_loop().time() * 1000),
            log=logging.getLogger("test"),
            edit=self.world.edit,
            timing=Timing(**{"recheck_s": 0.02, **timing}),
        )
        self.asked_conflicts: list[tuple[str, str, str]] = []
        self.changes = ChangeRoutes(Realtime(parts), self._conflicts)
        self.url = ""
        self.client: ClientSession

    async def _conflicts(
        self, caller: Caller, touched: Sequence[tuple[str, str, str]]
    ) -> list[dict[str, Any]]:
        self.asked_conflicts += touched
        return [{"instance_id": id} for _, _, id in touched if id == "torn"]

    async def frame(self, request: web.Request) -> web.StreamResponse:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        assert request.transport is not None
        transport_socket = request.transport.get_extra_info("socket")
        transport_socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        try:
            if token:
                request[TOKEN] = token
            request[CALLER] = await self.authenticator.authenticate(token, None) if token else ANONYMOUS
            return await self.changes.changes(request)
        except Exception as error:
            refusal = from_exception(error, ERROR_TABLE)
            if refusal is None:
                raise
            return web.json_response(s1_form(refusal), status=refusal.status)

    async def ask(self, token: str | None = "ann", **query: Any) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with self.client.get(self.url, params=query, headers=headers) as answer:
            return answer.status, await answer.json()

    async def page(self, token: str | None = "ann", **query: Any) -> Any:
        status, content = await self.ask(token, **query)
        assert status == 200, content
        return content

    @asynccontextmanager
    async def stream(
        self, token: str | None = "ann", last: str | None = None, **query: Any
    ) -> AsyncIterator["Stream"]:
        headers = {"Accept": "text/event-stream"}
        headers |= {"Authorization": f"Bearer {token}"} if token else {}
        headers |= {"Last-Event-ID": last} if last else {}
        async with self.client.get(self.url, params=query, headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            assert answer.content_type == "text/event-stream"
            yield Stream(answer)


class Stream:
    """A client of server-sent events."""

    def __init__(self, answer: ClientResponse) -> None:
        self.answer = answer

    async def block(self) -> list[str]:
        """The lines up to the next empty one; none at the end."""
        lines: list[str] = []
        async with asyncio.timeout(PATIENCE_S):
            while line := (await self.answer.content.readline()).decode().rstrip("\n"):
                lines.append(line)
        return lines

    async def hear(self) -> Any:
        """The next event, its id checked against its cursor; None at the end."""
        while lines := await self.block():
            fields = dict(line.split(": ", 1) for line in lines if not line.startswith(":"))
            if "data" in fields:
                event = json.loads(fields["data"])
                assert fields.get("id") == event.get("cursor"), lines
                return event
        return None


@asynccontextmanager
async def serving(**timing: float) -> AsyncIterator[Served]:
    served = Served(**timing)
    app = web.Application()
    app.router.add_get("/v1/sync/changes", served.frame)
    async with TestServer(app) as server, ClientSession() as served.client:
        served.url = str(server.make_url("/v1/sync/changes"))
        served.changes.start()
        try:
            yield served
        finally:
            served.changes.stop()


def ids(page: Any) -> list[str]:
    return [change["instanceId"] for change in page["changes"]]


# -- pages ---------------------------------------------------------------------------------------------------


async def test_every_change_is_told_in_order_with_a_chain_of_cursors() -> None:
    async with serving() as served:
        world = served.world
        world.create("Task", "t1", title="one")
        world.update("Task", "t1", count=2, node=ELSEWHERE)
        world.create("Task", "torn", title="two")
        world.delete("Task", "t2", user="ann")
        page = await served.page()
        first, second, third, fourth = page["changes"]
        assert [c["type"] for c in page["changes"]] == ["create", "update", "create", "delete"]
        assert second["origin"] == ELSEWHERE.hex() and "origin" not in first
        assert second["changes"] == {"count": 2} and second["data"]["title"] == "one"
        assert "data" not in fourth and fourth["changes"] == {}
        start = served.world.feed.cursor(Position(0, BODY_MAX))
        assert [c["previous"] for c in page["changes"]] == [
            start,
            *(c["cursor"] for c in (first, second, third)),
        ]
        assert (page["has_more"], page["resync"], page["syncedCount"]) == (False, False, 4)
        assert page["conflicts"] == [{"instance_id": "torn"}]
        again = await served.page(since=page["cursor"])
        assert again["changes"] == [] and again["cursor"] == page["cursor"]
        world.create("Task", "t3")
        more = await served.page(since=page["cursor"])
        assert ids(more) == ["t3"]
        assert more["changes"][0]["previous"] == page["cursor"]


async def test_pages_join_without_gap_or_repetition() -> None:
    async with serving() as served:
        for n in range(7):
            served.world.create("Task", f"t{n}")
        heard: list[Any] = []
        query: dict[str, Any] = {"limit": 3}
        while True:
            page = await served.page(**query)
            heard += page["changes"]
            query["since"] = page["cursor"]
            if not page["has_more"]:
                break
        assert [change["instanceId"] for change in heard] == [f"t{n}" for n in range(7)]
        assert [c["previous"] for c in heard[1:]] == [c["cursor"] for c in heard[:-1]]


async def test_only_what_the_caller_may_read_is_told() -> None:
    async with serving() as served:
        served.world.define("Diary", read="owner")
        served.world.define("Notice", read="public")
        served.world.create("Diary", "a", user="ann")
        served.world.create("Diary", "b", user="ben")
        served.world.create("Notice", "n")
        served.world.create("Task", "t")
        served.world.delete("Diary", "b", user="ben")
        assert ids(await served.page("ann")) == ["a", "n", "t"]
        assert ids(await served.page("ben")) == ["n", "t", "b"], "of the creation nothing is left to be shown"
        assert ids(await served.page("root")) == ["a", "n", "t", "b"]
        assert ids(await served.page(None)) == ["n"]


async def test_models_can_be_chosen_by_name_or_id_and_are_called_as_asked() -> None:
    async with serving() as served:
        other = served.world.define("Other")
        served.world.define("Third")
        for model in ("Task", "Other", "Third"):
            served.world.create(model, f"in {model}")
        page = await served.page(model=f"Task,{other.id}")
        assert [(c["model"], c["instanceId"]) for c in page["changes"]] == [
            ("Task", "in Task"),
            (other.id, "in Other"),
        ]
        assert [c["model"] for c in (await served.page())["changes"]] == ["Task", "Other", "Third"]


async def test_models_that_are_not_there_or_not_to_be_read_are_refused() -> None:
    async with serving() as served:
        served.world.define("Secret", read="role:boss")
        assert (await served.ask(model="Nothing"))[0] == 404
        assert (await served.ask(model="Secret"))[0] == 403
        assert (await served.ask(None, model="Secret"))[0] == 401


async def test_every_fault_of_a_request_is_named() -> None:
    async with serving() as served:
        status, refusal = await served.ask(limit="0", since="x" * 129, colour="red")
        assert status == 400 and set(refusal["details"]) == {"limit", "since", "colour"}
        for limit in ("1001", "-1", "1.5", "", "1e3"):
            assert (await served.ask(limit=limit))[0] == 400


async def test_what_is_too_old_gets_one_resync_and_the_newest_cursor() -> None:
    async with serving() as served:
        for n in range(3):
            served.world.create("Task", f"t{n}")
        served.world.feed.reaches_back_to = 2
        for since in ("other.1.0", "nonsense", "0", None):
            page = await served.page(**({} if since is None else {"since": since}))
            assert (page["changes"], page["resync"], page["has_more"]) == ([], True, False)
            assert page["cursor"] == served.world.feed.cursor()
        served.world.create("Task", "next")
        page = await served.page(since=page["cursor"])
        assert (ids(page), page["resync"]) == (["next"], False)


async def test_a_time_brings_what_came_since() -> None:
    async with serving() as served:
        world = served.world
        for n in range(4):
            entry = world.entry(Change.CREATED, "Task", f"t{n}")
            entry.hlc = hlc_of_ms(1_000 * n)
            world.commit(entry)
        world.feed.publish_all()
        assert ids(await served.page(since="2000")) == ["t2", "t3"]
        assert ids(await served.page(since="0")) == ["t0", "t1", "t2", "t3"]


async def test_a_page_ends_where_it_gets_too_large() -> None:
    async with serving() as served:
        for n in range(4):
            served.world.create("Task", f"t{n}", title="x" * 300_000)
        page = await served.page()
        assert ids(page) == ["t0", "t1"] and page["has_more"]
        assert ids(await served.page(since=page["cursor"])) == ["t2", "t3"]


async def test_what_nobody_may_read_is_read_past_a_bounded_way() -> None:
    async with serving() as served:
        served.world.define("Diary", read="owner")
        for _ in range(5_000):
            served.world.commit(served.world.entry(Change.UPDATED, "Diary", "b", user="ben"))
        served.world.create("Task", "t")
        page = await served.page("ann")
        assert page["changes"] == [] and page["has_more"]
        page = await served.page("ann", since=page["cursor"])
        assert ids(page) == ["t"] and not page["has_more"]


# -- streams -------------------------------------------------------------------------------------------------


async def test_a_stream_tells_what_comes_and_where_it_stands() -> None:
    async with serving() as served:
        served.world.create("Task", "before")
        async with served.stream() as stream:
            started = await stream.hear()
            assert started == {"type": "subscribed", "cursor": served.world.feed.cursor()}
            served.world.create("Task", "t1", node=ELSEWHERE)
            event = await stream.hear()
            assert (event["type"], event["instanceId"], event["origin"]) == ("create", "t1", ELSEWHERE.hex())
            assert event["previous"] == started["cursor"]
            served.world.update("Task", "t1", title="x")
            assert (await stream.hear())["previous"] == event["cursor"]


async def test_the_last_event_id_takes_a_stream_back_and_counts_before_since() -> None:
    async with serving() as served:
        for n in range(3):
            served.world.create("Task", f"t{n}")
        cursor = (await served.page(limit=1))["changes"][0]["cursor"]
        async with served.stream(last=cursor, since=served.world.feed.cursor()) as stream:
            assert (await stream.hear())["cursor"] == cursor
            heard = [await stream.hear() for _ in range(2)]
            assert [event["instanceId"] for event in heard] == ["t1", "t2"]
            assert heard[0]["previous"] == cursor


async def test_a_stream_from_a_cursor_that_is_too_old_hears_one_resync_and_then_what_is_new() -> None:
    async with serving() as served:
        served.world.create("Task", "t1")
        async with served.stream(last="gone.1.0") as stream:
            await stream.hear()
            resync = await stream.hear()
            assert resync == {"type": "resync", "cursor": served.world.feed.cursor()}
            served.world.create("Task", "t2")
            event = await stream.hear()
            assert (event["instanceId"], event["previous"]) == ("t2", resync["cursor"])


async def test_the_end_of_a_first_sync_is_told_once_to_streams_of_that_application() -> None:
    async with serving() as served, served.stream() as stream:
        await stream.hear()
        served.world.feed.caught_up("another")
        served.world.feed.caught_up(APPLICATION)
        served.world.create("Task", "t2")
        resync = await stream.hear()
        assert resync["type"] == "resync"
        served.world.create("Task", "t3")
        event = await stream.hear()
        assert event["type"] == "create" and event["previous"] == resync["cursor"]


async def test_a_stream_that_loses_its_token_hears_no_more_and_is_told_why() -> None:
    async with serving() as served:
        async with served.stream() as stream:
            await stream.hear()
            served.authenticator.end("ann")
            served.world.create("Task", "not for them")
            error = await stream.hear()
            assert (error["type"], error["error_code"]) == ("error", "AUTH_INVALID_TOKEN")
            assert await stream.hear() is None
        assert len(served.changes) == 0


async def test_a_quiet_stream_is_kept_alive_and_notices_an_expired_token() -> None:
    async with serving(keep_alive_s=0.05) as served, served.stream() as stream:
        await stream.hear()
        assert await stream.block() == [": keep-alive"]
        served.authenticator.end("ann")
        assert (await stream.hear())["type"] == "error"


async def test_a_client_that_takes_nothing_is_cut_off_and_others_are_not() -> None:
    async with serving(stall_s=2) as served, served.stream() as slow, served.stream() as quick:
        await slow.hear()
        await quick.hear()
        for n in range(4 * EVENTS_MAX):
            served.world.create("Task", f"t{n}", title="x" * 8_000)
        count = 0
        async with asyncio.timeout(PATIENCE_S):
            while count < 4 * EVENTS_MAX:
                assert (await quick.hear())["instanceId"] == f"t{count}"
                count += 1
            while len(served.changes) > 1:  # noqa: ASYNC110  # what is waited for has no event
                await asyncio.sleep(0.01)
        try:
            while await slow.hear() is not None:
                pass
        except ClientError:
            pass


async def test_streams_end_when_the_node_stops() -> None:
    async with serving() as served:
        async with served.stream() as stream:
            await stream.hear()
            served.changes.stop()
            assert await stream.hear() is None
        assert len(served.changes) == 0


async def test_a_client_that_goes_away_is_forgotten() -> None:
    async with serving(keep_alive_s=0.02) as served:
        async with served.stream() as stream:
            await stream.hear()
        async with asyncio.timeout(PATIENCE_S):
            while len(served.changes):  # noqa: ASYNC110  # what is waited for has no event
                await asyncio.sleep(0.01)


async def test_only_what_was_asked_for_is_streamed() -> None:
    async with serving() as served:
        served.world.define("Other")
        async with served.stream(model="Task") as stream:
            await stream.hear()
            served.world.create("Other", "o")
            served.world.create("Task", "t")
            assert (await stream.hear())["instanceId"] == "t"
