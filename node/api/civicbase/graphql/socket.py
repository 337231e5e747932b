"""One socket that speaks `graphql-transport-ws`.

Room: the order in which messages may come, the tasks that answer them, and an end for every client that does not keep
to it. Each operation is a task, and all of them send by turns: one that is not taken holds up the others, not the
node, and a client that takes nothing for a while is cut off. Subscriptions are streams like those of server-sent
events; operations run as over HTTP.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import WSCloseCode, WSMsgType, web

from node.api.civicbase.graphql.engine import Chosen, Engine, Kind, Request
from node.api.civicbase.graphql.errors import DocumentFault
from node.api.civicbase.graphql.messages import (
    ACK,
    BAD_REQUEST,
    FORBIDDEN,
    ID_IN_USE,
    INITIALISED_TWICE,
    NOT_INITIALISED,
    PROTOCOL,
    UNAUTHORIZED,
    WRONG_PROTOCOL,
    Complete,
    ConnectionInit,
    Message,
    NotUnderstood,
    Ping,
    Subscribe,
    complete_of,
    credentials_in,
    error_of,
    next_of,
    pong,
    read_message,
)
from node.api.civicbase.graphql.requests import read_parameters, refused
from node.api.civicbase.graphql.subscription import ChangeFollower
from node.api.civicbase.realtime import Realtime
from node.api.civicbase.realtime_outbox import Pace
from node.api.civicbase.streaming import News, Stream, Streams
from node.api.errors import ApiError
from node.api.routes import Caller
from node.feed import CursorTooOld, Position

MESSAGE_MAX_BYTES = 1 << 20  # of a client: a document with its variables
REASON_MAX_BYTES = 123
OPERATIONS_MAX = 100  # at the same time, of one socket
STOPPING = (WSCloseCode.GOING_AWAY, "the node is stopping")


@dataclass(frozen=True, slots=True)
class SocketParts:
    """What sockets share. `may_introspect` says whether a caller may look at the schema."""

    engine: Engine
    realtime: Realtime
    streams: Streams
    may_introspect: Callable[[Caller], bool]


class Socket:
    """One client, from its upgrade to its end."""

    def __init__(self, parts: SocketParts, request: web.Request, caller: Caller, token: str | None) -> None:
        """`token` is what the caller was recognised by, None if that cannot change."""
        self._parts = parts
        self._request = request
        self._caller = caller
        self._token = token
        self._timing = parts.realtime.parts.timing
        self._limits = parts.realtime.parts.limits
        self._steady_ms = parts.realtime.parts.steady_ms
        self._socket = web.WebSocketResponse(
            protocols=(PROTOCOL,),
            heartbeat=self._timing.heartbeat_s,
            timeout=self._timing.linger_s,
            compress=False,
            max_msg_size=MESSAGE_MAX_BYTES,
        )
        self._running: dict[str, asyncio.Task[None]] = {}
        self._turn = asyncio.Lock()  # of sending
        self._sending: set[asyncio.Future[None]] = set()
        self._closing: asyncio.Task[None] | None = None
        self._is_greeted = False  # `connection_init` has come
        self._is_ready = False  # and was acknowledged

    async def run(self) -> web.WebSocketResponse:
        """Until either side ends it."""
        await self._socket.prepare(self._request)
        if self._socket.ws_protocol != PROTOCOL:
            await self._socket.close(code=WRONG_PROTOCOL, message=b"Subprotocol not acceptable")
            return self._socket
        wait_s = self._limits.authenticate_within_ms / 1000
        deadline = asyncio.get_running_loop().call_later(wait_s, self._on_deadline)
        try:
            await self._receive()
        except ConnectionError:
            pass  # the client has gone
        finally:
            deadline.cancel()
            tasks = list(self._running.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._closing is not None:
                await asyncio.wait((self._closing,))
        return self._socket

    def close(self, code: int, reason: str) -> None:
        """Say goodbye, and listen no more."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(code, reason))

    async def _close(self, code: int, reason: str) -> None:
        try:
            async with asyncio.timeout(self._timing.linger_s):
                await self._socket.close(code=code, message=_short(reason))
        except (TimeoutError, ConnectionError):
            self._hang_up()

    def _hang_up(self) -> None:
        """End the connection, but let what was said arrive: an abort would take the close code from the client."""
        transport = self._request.transport
        if transport is not None:
            transport.close()
            asyncio.get_running_loop().call_later(self._timing.linger_s, transport.abort)

    def _abort(self) -> None:
        if self._request.transport is not None:
            self._request.transport.abort()

    def _on_deadline(self) -> None:
        if not self._is_greeted:
            self.close(NOT_INITIALISED, "Connection initialisation timeout")

    # -- from the client

    async def _receive(self) -> None:
        pace = Pace(self._limits.messages_per_s_max, self._steady_ms())
        while self._closing is None:
            message = await self._socket.receive()
            if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                return  # closed, by whomever
            wait_ms = pace.wait_ms(self._steady_ms())
            if wait_ms:
                await asyncio.sleep(wait_ms / 1000)  # who speaks too often is listened to more slowly
            try:
                await self._follow(read_message(message.data))
            except NotUnderstood as fault:
                self.close(BAD_REQUEST, str(fault))

    async def _follow(self, message: Message) -> None:
        match message:
            case Ping():
                await self._send(pong(message.payload))
            case ConnectionInit():
                await self._greet(message)
            case Subscribe():
                await self._begin(message)
            case Complete():
                task = self._running.pop(message.id, None)
                if task is not None:
                    task.cancel()

    async def _greet(self, message: ConnectionInit) -> None:
        if self._is_greeted:
            self.close(INITIALISED_TWICE, "Too many initialisation requests")
            return
        self._is_greeted = True
        given = credentials_in(message.payload)
        if given.token is not None:
            try:
                self._caller = await self._parts.realtime.authenticate(given.token, given.application)
            except ApiError:
                self.close(FORBIDDEN, "Forbidden")
                return
            self._token = None if self._caller.is_owner else given.token
        self._is_ready = True
        await self._send(ACK)

    async def _begin(self, message: Subscribe) -> None:
        if not self._is_ready:
            self.close(UNAUTHORIZED, "Unauthorized")
        elif message.id in self._running:
            self.close(ID_IN_USE, f"Subscriber for {message.id} already exists")
        elif len(self._running) >= OPERATIONS_MAX:
            error = ApiError(429, "LIMIT_EXCEEDED", f"A socket runs {OPERATIONS_MAX} operations at most")
            await self._send(error_of(message.id, [refused(error)]))
        else:
            # What happens while the schema is made belongs to a subscription that was asked for before.
            since = self._parts.realtime.sources.feed.newest
            self._running[message.id] = asyncio.create_task(self._run(message, since))

    # -- operations

    async def _run(self, message: Subscribe, since: Position) -> None:
        """One operation, to its end; what goes wrong with it is told and ends it alone."""
        try:
            last = await self._last(message, since)
            if self._running.get(message.id) is asyncio.current_task():
                del self._running[message.id]  # before the client hears of it: it may use the id again
            if last is not None:
                await self._send(last)
        except ConnectionError:
            pass  # the client has gone

    async def _last(self, message: Subscribe, since: Position) -> bytes | None:
        """What is to be said at the end of an operation, None if nothing can be heard any more."""
        words = self._parts.engine.words
        try:
            return await self._answers(message, since)
        except DocumentFault as fault:
            return error_of(message.id, words.of(fault))
        except ConnectionError:
            raise
        except Exception as error:
            return error_of(message.id, [refused(words.api_error(error))])

    async def _answers(self, message: Subscribe, since: Position) -> bytes | None:
        """Send what an operation answers. Returns what is said last, as `_last`."""
        if not await self._is_welcome():
            return None
        chosen = await self._choose(message)
        if chosen.kind is Kind.SUBSCRIPTION:
            return await self._stream(message, chosen, since)
        await self._send(next_of(message.id, await self._parts.engine.run(chosen)))
        return complete_of(message.id)

    async def _choose(self, message: Subscribe) -> Chosen:
        asked = read_parameters(message.payload)
        caller = self._caller
        may_introspect = self._parts.may_introspect(caller)
        return await self._parts.engine.choose(
            Request(asked.query, caller, asked.operation_name, asked.variables, may_introspect)
        )

    async def _is_welcome(self) -> bool:
        """Whether the token still counts; if not, the socket is closed."""
        if self._token is None:
            return True
        authenticator = self._parts.realtime.parts.authenticator
        try:
            known = authenticator.cached(self._token)
            self._caller = known or await authenticator.authenticate(self._token, None)
        except ApiError:
            self.close(FORBIDDEN, "The token counts no longer")
            return False
        return True

    async def _stream(self, message: Subscribe, chosen: Chosen, since: Position) -> bytes | None:
        """The events of a subscription since it was asked for, as they come."""
        engine, sources = self._parts.engine, self._parts.realtime.sources
        wanted = engine.wanted(chosen)
        position, is_too_old = since, False
        if wanted.cursor is not None:
            try:
                position = sources.feed.position(wanted.cursor)
            except CursorTooOld:
                is_too_old = True
        follower = engine.follower(sources, self._caller, wanted, position)
        stream = Stream(follower, self._token, is_to_read_anew=is_too_old)
        with self._parts.streams.entered(stream):
            while (news := await self._parts.streams.next(stream)) is not None:
                if news.refusal is not None:
                    self.close(FORBIDDEN, "The token counts no longer")
                    return None
                if news.lost is not None:
                    return error_of(message.id, [refused(news.lost)])
                await self._tell(message, follower, news)
                if engine.current(chosen.request.caller.application) is not chosen.made:
                    # The models are others: it may not be valid any more.
                    chosen = await self._choose(message)
                    follower.want(engine.wanted(chosen))
        self.close(*STOPPING)
        return None

    async def _tell(self, message: Subscribe, follower: ChangeFollower, news: News) -> None:
        if news.anew is not None:
            await self._send(next_of(message.id, follower.say_anew(news.anew)))
        for seen in news.seen:
            await self._send(next_of(message.id, seen.json))

    # -- to the client

    async def _send(self, message: bytes) -> None:
        """Raises `ConnectionResetError` if the client has gone. One that takes nothing is cut off.

        An operation that is cancelled meanwhile leaves its message to be sent: nobody else's turn comes before.
        """
        await asyncio.shield(self._guarded(asyncio.create_task(self._send_in_turn(message))))

    async def _send_in_turn(self, message: bytes) -> None:
        async with self._turn:
            if self._socket.closed or self._closing is not None:
                raise ConnectionResetError("the socket is closed")
            sending = self._guarded(asyncio.ensure_future(self._socket.send_frame(message, WSMsgType.TEXT)))
            # Never cancelled: aiohttp gives one future to all who wait for a connection to drain.
            await asyncio.wait((sending,), timeout=self._timing.stall_s)
            if not sending.done():
                self._abort()
                raise ConnectionResetError("the client takes nothing")
            sending.result()

    def _guarded(self, task: "asyncio.Future[None]") -> "asyncio.Future[None]":
        self._sending.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: "asyncio.Future[None]") -> None:
        """Nobody may be left to hear of it."""
        self._sending.discard(task)
        if not task.cancelled():
            task.exception()


def _short(reason: str) -> bytes:
    """As much of it as fits a close frame (RFC 6455, 5.5), in whole characters."""
    return reason.encode()[:REASON_MAX_BYTES].decode(errors="ignore").encode()
