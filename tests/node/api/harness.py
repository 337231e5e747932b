"""An API on a free port, spoken to byte by byte: what HTTP libraries tidy up is what is tested here."""

import asyncio
import io
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiohttp import web

from node.api.app import build_app
from node.api.errors import ApiError, InvalidToken
from node.api.middleware import Frame, FrameParts
from node.api.ratelimit import RatePolicy
from node.api.replies import json_response
from node.api.requests import read_json
from node.api.routes import CALLER, Auth, Caller, Route
from node.api.runner import ApiServer
from node.api.system import System
from node.logs import make_logger
from node.metrics import Metrics
from node.origins import Address

OWNER_TOKEN = "owner-" + "o" * 37
USER_TOKEN = "user.token.1"
ADMIN_TOKEN = "admin.token.1"
NOW_MS = 1_700_000_000_000


class Note(msgspec.Struct, forbid_unknown_fields=True):
    """A body for tests."""

    text: str
    stars: int = 0


class Tokens:
    """Knows two tokens. The first use of each takes the slow way, as in the node."""

    def __init__(self) -> None:
        self.callers = {
            USER_TOKEN: Caller("u1", "default", key="user:u1"),
            ADMIN_TOKEN: Caller("a1", "default", is_admin=True, key="user:a1"),
        }
        self.seen: set[str] = set()

    def cached(self, token: str) -> Caller | None:
        """A token seen before."""
        return self.callers[token] if token in self.seen else None

    async def authenticate(self, token: str, application: str | None) -> Caller:
        """Any token."""
        if token not in self.callers:
            raise InvalidToken
        self.seen.add(token)
        return self.callers[token]


@dataclass
class Reply:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes
    repeated: list[str] = field(default_factory=list)

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Api:
    """A running API with a few routes of each kind, and the state they change."""

    def __init__(self, frame: Frame, server: ApiServer, log: io.StringIO, notes: list[str]) -> None:
        self.frame = frame
        self.server = server
        self.log = log
        self.notes = notes
        self.now_ms = NOW_MS

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self.server.listening is not None
        return self.server.listening.address.port

    @property
    def host(self) -> str:
        """The `Host` of an honest request."""
        return f"127.0.0.1:{self.port}"

    async def raw(self, message: bytes) -> Reply:
        """Send bytes, read one reply. `HOST` in them is replaced by the true one."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(message.replace(b"HOST", self.host.encode()))
            is_head = message.startswith(b"HEAD ")
            async with asyncio.timeout(60):
                return await read_reply(reader, is_head=is_head)
        finally:
            writer.close()

    async def ask(
        self,
        method: str,
        target: str,
        headers: Sequence[tuple[str, str]] | Mapping[str, str] = (),
        body: bytes = b"",
        token: str | None = None,
    ) -> Reply:
        """Send a request with a true `Host`."""
        pairs = list(headers.items()) if isinstance(headers, Mapping) else list(headers)
        if token is not None:
            pairs.append(("Authorization", f"Bearer {token}"))
        if body and not any(name == "Content-Length" for name, _ in pairs):
            pairs.append(("Content-Length", str(len(body))))
        head = "".join(f"{name}: {value}\r\n" for name, value in pairs)
        message = f"{method} {target} HTTP/1.1\r\nHost: {self.host}\r\n{head}\r\n"
        return await self.raw(message.encode("utf-8", "surrogateescape") + body)

    async def post(self, target: str, content: object, **more: Any) -> Reply:
        """Send JSON."""
        headers = {"Content-Type": "application/json"} | dict(more.pop("headers", {}))
        return await self.ask("POST", target, headers, json.dumps(content).encode(), **more)


async def read_reply(reader: asyncio.StreamReader, *, is_head: bool = False) -> Reply:
    """Read one reply off a connection."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    line, *rows = head.rstrip("\r\n").split("\r\n")
    names = [row.partition(": ")[0].lower() for row in rows]
    headers = {row.partition(": ")[0].lower(): row.partition(": ")[2] for row in rows}
    status = int(line.split()[1])
    length = int(headers.get("content-length", "0"))
    body = b"" if is_head or status in (101, 204, 304) else await reader.readexactly(length)
    repeated = sorted({name for name in names if names.count(name) > 1})
    return Reply(status, headers, body, repeated)


@asynccontextmanager
async def api_with(
    *more: Route,
    address: Address = Address("127.0.0.1", 0),  # noqa: B008  # frozen
    rates: Mapping[str, RatePolicy] | None = None,
    system: System | None = None,
    origins: Sequence[str] = ("http://localhost:3000",),
    error_table: Mapping[type[BaseException], Callable[[Any], ApiError]] | None = None,
    **options: Any,
) -> AsyncIterator[Api]:
    """A running API with the routes of the tests and `more`."""
    notes: list[str] = []
    log = io.StringIO()
    logger: logging.Logger = make_logger(level="info", format="json", stream=log, clock_ms=lambda: NOW_MS)
    holder: list[Api] = []
    ticks = iter(range(10**9))
    parts = FrameParts(
        clock_ms=lambda: holder[0].now_ms,
        seconds=lambda: next(ticks) / 1000,
        new_request_id=lambda: "req-1",
        log=logger,
        metrics=Metrics(),
        authenticator=Tokens(),
        owner_token=OWNER_TOKEN,
        rates={"s1": RatePolicy(3600, 1000, 60)} if rates is None else rates,
        error_table=error_table or {},
        log_requests=bool(options.pop("log_requests", False)),
    )
    frame = build_app([*_routes(notes), *more], parts, system)
    server = ApiServer(frame, address, logger, origins=origins, **options)
    api = Api(frame, server, log, notes)
    holder.append(api)
    await server.start()
    try:
        yield api
    finally:
        await server.stop(grace_s=1)


def _routes(notes: list[str]) -> list[Route]:
    async def write(request: web.Request) -> web.StreamResponse:
        note = await read_json(request, Note)
        notes.append(note.text)
        return json_response({"message": "written"}, 201)

    async def touch(request: web.Request) -> web.StreamResponse:
        notes.append("touched")
        return json_response({"touched": True})

    async def read(request: web.Request) -> web.StreamResponse:
        caller = request[CALLER]
        return json_response(
            {"id": request.match_info["id"], "user": caller.user_id, "application": caller.application}
        )

    async def fail(request: web.Request) -> web.StreamResponse:
        raise RuntimeError("secret detail")

    async def listen(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str(f"hello {request[CALLER].user_id}")
        async for message in socket:
            if message.data == "fail":
                raise RuntimeError("in a socket")
            await socket.send_str(message.data)
        return socket

    return [
        Route("POST", "/open/notes", write, "Write", auth=Auth.NONE, request=Note),
        Route("POST", "/open/touch", touch, "Touch", auth=Auth.NONE),
        Route("POST", "/v1/notes", write, "Write", request=Note, responses={201: None}),
        Route("PUT", "/v1/notes/{id}", write, "Replace", request=Note, responses={200: None}),
        Route("DELETE", "/v1/notes/{id}", touch, "Remove", responses={204: None}),
        Route("GET", "/v1/notes/{id}", read, "Read"),
        Route("GET", "/open/notes/{id}", read, "Read", auth=Auth.NONE),
        Route("GET", "/maybe/{id}", read, "Read", auth=Auth.OPTIONAL),
        Route("GET", "/local/{id}", read, "Read", auth=Auth.LOCAL),
        Route("GET", "/admin/{id}", read, "Read", auth=Auth.ADMIN),
        Route("GET", "/open/fail", fail, "Fail", auth=Auth.NONE),
        Route(
            "GET",
            "/v1/live",
            listen,
            "Listen",
            auth=Auth.OPTIONAL,
            responses={101: None},
            token_in_query=True,
        ),
    ]
