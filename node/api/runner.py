"""Listening: from a socket to the frame, and a clean end.

Room: sockets, connections and TLS; what a request means is `middleware`'s. aiohttp's server is used without
its application object: `Frame` does the routing (tried: 29 against 37 µs a request). Connections are bounded
in number, and one that says nothing, or never ends its first request, is dropped; a flood of silent ones
displaces its own oldest.
"""

import asyncio
import socket
import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from logging import Logger
from pathlib import Path
from typing import cast

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader

from node.api.errors import ApiError, BadRequest, s1_form
from node.api.loopback import served_at
from node.api.middleware import Frame
from node.api.replies import json_response
from node.api.requests import ApiRequest
from node.api.routes import BODY_MAX_BYTES
from node.listening import BACKLOG, CannotListen, bind
from node.origins import Address
from node.pace import Pace

# A machine's own apps keep a handful each; a descriptor and about 20 KB go with a connection.
CONNECTIONS_MAX = 1_024
SILENT_MAX = 64  # of them, those that have not sent one whole request yet
SILENT_MAX_S = 5.0  # research on slow-loris: a head comes within one round trip, or it is not meant to come
IDLE_MAX_S = 75.0  # between two requests on one connection
LINGER_S = 1.0  # for the rest of a body that was refused
GRACE_S = 5.0  # for requests under way when the node stops
GOING_AWAY_S = 1.0  # for the other side to answer the close of a WebSocket


@dataclass(frozen=True, slots=True)
class Listening:
    """Where the API really listens."""

    address: Address
    url: str


class Connection(web.RequestHandler):
    """One connection. What aiohttp itself refuses, before there is a request, reads like our own refusals."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The reply to bytes that are not HTTP, or to a fault that `Frame` did not catch."""
        if request.writer.output_size > 0:
            raise ConnectionResetError("a reply broke off")
        if status == HTTPStatus.BAD_REQUEST:
            error: ApiError = BadRequest("The request is not valid HTTP")
        else:
            if not isinstance(exc, ConnectionError):  # or the other side hung up: anyone may, at any time
                self.log_exception("error outside the frame", exc_info=exc)
            error = ApiError(status, HTTPStatus(status).name, HTTPStatus(status).phrase)
        reply = json_response(s1_form(error), error.status)
        reply.force_close()
        return reply


class _Server(web.Server):
    """Makes connections and keeps their number bounded."""

    def __init__(self, frame: Frame, log: Logger, pace: Pace, *, connections_max: int) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(
            self._answer,  # type: ignore[arg-type]  # takes what our factory makes
            request_factory=self._request,
            loop=loop,
        )
        self._pace = pace
        self._frame = frame
        self._event_loop = loop
        self._connections_max = connections_max
        self._silent: dict[web.RequestHandler, asyncio.Handle] = {}  # oldest first
        self._make = partial(
            Connection,
            self,
            loop=loop,
            logger=log,
            access_log=cast(Logger, None),  # aiohttp takes None for no log
            keepalive_timeout=IDLE_MAX_S,
            lingering_time=LINGER_S,
            auto_decompress=False,
        )

    def __call__(self) -> web.RequestHandler:
        return self._make()

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        if len(self._silent) >= SILENT_MAX:
            next(iter(self._silent)).force_close()
        if len(self.connections) > self._connections_max:
            handler.force_close()
            return
        self._silent[handler] = self._event_loop.call_later(SILENT_MAX_S, self._on_silence, handler)

    def _on_silence(self, handler: web.RequestHandler) -> None:
        """Close it, unless its request has come after all: a loop that was held up reads before it rings, and the
        request is made in the turn after that."""
        if handler in self._silent:
            self._silent[handler] = self._event_loop.call_soon(handler.force_close)

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        self._spoke(handler)
        super().connection_lost(handler, exc)

    def _spoke(self, handler: web.RequestHandler) -> None:
        timer = self._silent.pop(handler, None)
        if timer is not None:
            timer.cancel()

    def _request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: "asyncio.Task[None]",
    ) -> ApiRequest:
        if protocol in self._silent:
            self._spoke(protocol)
        return ApiRequest(
            message, payload, protocol, writer, task, self._event_loop, client_max_size=BODY_MAX_BYTES
        )

    async def _answer(self, request: ApiRequest) -> web.StreamResponse:
        key = id(request)
        self._pace.begin(key)
        try:
            return await self._frame.handle(request)
        finally:
            self._pace.end(key)


class ApiServer:
    """The API of one node while it listens. Not started twice."""

    def __init__(
        self,
        frame: Frame,
        address: Address,
        log: Logger,
        *,
        tls: ssl.SSLContext | None = None,
        names: Iterable[str] = (),
        origins: Iterable[str] = (),
        connections_max: int = CONNECTIONS_MAX,
        sockets: Sequence[socket.socket] = (),
        pace: Pace | None = None,
    ) -> None:
        """`sockets` are those of a server before this one on the same address, as `keep_sockets` gave them.

        Requests are noted in `pace`.
        """
        self._frame = frame
        self._address = address
        self._log = log
        self._tls = tls
        self._names = tuple(names)
        self._origins = frozenset(origins)
        self._connections_max = connections_max
        self._server: _Server | None = None
        self._listeners: list[asyncio.Server] = []
        self._sockets: Sequence[socket.socket] = sockets
        self._pace = pace or Pace()
        self.listening: Listening | None = None

    async def start(self) -> Listening:
        """Listen. Raises `CannotListen`; nothing is left behind then."""
        self._sockets = sockets = self._sockets or bind(self._address, "--api")
        port = sockets[0].getsockname()[1]
        bound = Address(self._address.host, port)
        self._server = _Server(self._frame, self._log, self._pace, connections_max=self._connections_max)
        self.listening = Listening(bound, f"{'https' if self._tls else 'http'}://{_reachable(bound)}")
        self._allow(self._origins)
        loop = asyncio.get_running_loop()
        for sock in sockets:
            self._listeners.append(
                await loop.create_server(
                    self._server,
                    sock=sock,
                    ssl=self._tls,
                    ssl_handshake_timeout=SILENT_MAX_S if self._tls else None,
                    backlog=BACKLOG,
                )
            )
        return self.listening

    def allow_origins(self, origins: Iterable[str]) -> None:
        """From now on exactly these origins, as `parse_origin` writes them, count as local apps."""
        self._origins = frozenset(origins)
        self._allow(self._origins)

    def _allow(self, origins: frozenset[str]) -> None:
        if self.listening is not None:
            bound, tls = self.listening.address, self._tls is not None
            self._frame.serve_as(served_at(bound, tls=tls, names=self._names, allowed=origins))

    def keep_sockets(self) -> list[socket.socket]:
        """Second handles of what this listens on: who connects after `stop` waits for the server that gets them."""
        return [sock.dup() for sock in self._sockets]

    async def stop(self, grace_s: float = GRACE_S) -> None:
        """Take no more connections, close WebSockets (1001), let requests under way end, close the rest."""
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        if self._server is None:
            return
        self._frame.stopping.set()
        self._server.pre_shutdown()  # idle connections end, busy ones after their reply
        await asyncio.gather(*(_say_goodbye(held) for held in list(self._frame.sockets)))
        await self._server.shutdown(grace_s)
        self._server = None


async def _say_goodbye(held: web.WebSocketResponse) -> None:
    try:
        async with asyncio.timeout(GOING_AWAY_S):
            await held.close(code=1001, message=b"the node is stopping")
    except (TimeoutError, ConnectionError, RuntimeError):
        pass  # it has gone by itself, or never answers: the connection is cut next


def tls_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """TLS 1.2 or newer with this certificate. Raises `CannotListen` naming the file at fault."""
    for file in (certificate, key):
        try:
            file.open("rb").close()
        except OSError as error:  # ssl would not say which
            raise CannotListen(f"{file} cannot be read: {error.strerror}") from error
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
    except ssl.SSLError as error:
        reason = error.reason or "not PEM"
        raise CannotListen(
            f"{certificate} and {key} do not serve as certificate and key: {reason}"
        ) from error
    return context


def _reachable(bound: Address) -> Address:
    """An address that a client on this machine can use."""
    if not bound.is_wildcard:
        return bound
    return Address("::1" if ":" in bound.host else "127.0.0.1", bound.port)
