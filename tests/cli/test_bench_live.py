"""Writes on one node, heard on another: frames, and the child against a server that stands for both."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from threading import Thread

import pytest
from aiohttp import WSMsgType, web
from hypothesis import given
from hypothesis import strategies as st

from cli.bench.errors import BadAnswer
from cli.bench.live import MESSAGE_MAX_BYTES, MessageReader, Outcome, Plan, frame
from cli.bench.process import START_MAX_S, Child, Workspace

TEXT = 0x1


def served(payload: bytes) -> bytes:
    """A text frame of a server: unmasked."""
    size = len(payload)
    if size < 126:
        return bytes((0x81, size)) + payload
    if size < 1 << 16:
        return b"\x81\x7e" + size.to_bytes(2, "big") + payload
    return b"\x81\x7f" + size.to_bytes(8, "big") + payload


@given(
    sizes=st.lists(st.sampled_from([0, 1, 125, 126, 65_535, 65_536]), min_size=1, max_size=3), data=st.data()
)
def test_frames_are_read_however_the_bytes_were_cut(sizes: list[int], data: st.DataObject) -> None:
    stream = b"".join(served(bytes(size)) for size in sizes)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=4)))
    reader = MessageReader()
    found: list[int] = []
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += [len(payload) for opcode, payload in reader.feed(stream[start:stop]) if opcode == TEXT]
    assert found == sizes


@pytest.mark.parametrize(
    "data",
    [
        b"\x01\x00",  # a fragment
        b"\xc1\x00",  # compressed
        b"\x81\x80\0\0\0\0",  # masked
        b"\x81\x7f" + (MESSAGE_MAX_BYTES + 1).to_bytes(8, "big"),
    ],
)
def test_frames_that_no_node_sends_end_the_run(data: bytes) -> None:
    with pytest.raises(BadAnswer):
        list(MessageReader().feed(data))


@pytest.mark.parametrize("size", [0, 125, 126, 65_535])
def test_frames_of_the_client_are_masked_with_nothing(size: int) -> None:
    data = frame(TEXT, bytes(size))
    assert data[1] & 0x80
    assert data.endswith(bytes(4 + size))


class Both:
    """A server for both ends: what is written to it is told to whoever listens."""

    def __init__(self, fault: str = "") -> None:
        self._fault = fault
        self._sockets: list[web.WebSocketResponse] = []

    async def write(self, request: web.Request) -> web.Response:
        if self._fault == "refuses":
            return web.json_response({"error": "no"}, status=403)
        event = {"event": "update", "instance_id": request.match_info["id"], "data": await request.json()}
        for socket in self._sockets:
            if self._fault == "hangs up":
                await socket.close()
            else:
                await socket.send_json(event)
        return web.json_response(event["data"])

    async def listen(self, request: web.Request) -> web.StreamResponse:
        if self._fault == "no socket":
            return web.Response(status=401)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            assert message.type is WSMsgType.TEXT
            assert json.loads(message.data)["action"] == "subscribe"
            await socket.ping(b"still there?")
            await socket.send_json({"event": "subscribed"})
            self._sockets.append(socket)
        return socket

    async def serve(self, ready: "asyncio.Queue[int]", stopped: asyncio.Event) -> None:
        app = web.Application()
        app.router.add_put("/v1/data/Bench/{id}", self.write)
        app.router.add_get("/v1/realtime", self.listen)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        await ready.put(runner.addresses[0][1])
        await stopped.wait()
        await runner.cleanup()


@contextmanager
def serving(both: Both) -> Iterator[int]:
    loop = asyncio.new_event_loop()
    ready: asyncio.Queue[int] = asyncio.Queue()
    stopped = asyncio.Event()
    thread = Thread(target=loop.run_until_complete, args=(both.serve(ready, stopped),))
    thread.start()
    try:
        yield asyncio.run_coroutine_threadsafe(ready.get(), loop).result(START_MAX_S)
    finally:
        loop.call_soon_threadsafe(stopped.set)
        thread.join()
        loop.close()


def told(child: Child, port: int, writes: int = 4) -> None:
    plan = Plan(port, "one", port, "two", ["a", "b"], writes, every_ms=1.0)
    child.say(json.dumps(asdict(plan)))


def test_every_write_is_timed_from_its_answer_and_from_its_request() -> None:
    with (
        serving(Both()) as port,
        Workspace() as workspace,
        workspace.running("cli.bench.live") as child,
    ):
        told(child, port)
        assert child.line(START_MAX_S) == "ready"
        child.say("go")
        seen = Outcome(**json.loads(child.line(START_MAX_S)))
    assert seen.heard == 4
    assert 0 <= seen.p50_ms <= seen.p99_ms
    assert seen.p50_ms <= seen.whole_p50_ms <= seen.whole_p99_ms


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("refuses", "answered 403"), ("no socket", "refused"), ("hangs up", "was closed")],
)
def test_what_goes_wrong_is_told(fault: str, reason: str) -> None:
    with (
        serving(Both(fault)) as port,
        Workspace() as workspace,
        workspace.running("cli.bench.live") as child,
    ):
        told(child, port)
        line = child.line(START_MAX_S)
        if line == "ready":
            child.say("go")
            line = child.line(START_MAX_S)
        assert reason in json.loads(line)["fault"]
