"""One realtime socket: bytes to and from a client, and entries read from the record for it.

Room: the tasks and timers of one connection. It carries and decides nothing: after any input to its
`realtime_session` it does what the session wants done. A client that takes nothing for a while is cut off;
one that takes less than is written falls behind and is served from the record, so it costs no memory.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from logging import Logger
from typing import Any, Protocol

from aiohttp import WSMsgType, web
from aiohttp.abc import AbstractStreamWriter

from node.api.civicbase.following import FollowedFeed, RecordReader
from node.api.civicbase.realtime_events import Documents, Event, Sources, Watchers
from node.api.civicbase.realtime_messages import Authenticate, EditText
from node.api.civicbase.realtime_outbox import Frame, Limits
from node.api.civicbase.realtime_session import Session
from node.api.errors import ApiError
from node.api.routes import Authenticator, Caller
from node.conflict_feed import AnyEntry
from node.feed import CursorTooOld, Part
from node.services.breach_notices import Notice
from node.services.permissions import Permissions

WRITE_SIZE_BYTES = 64 << 10  # handed to the system at once: asyncio's own high-water mark


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds."""

    heartbeat_s: float = 30.0  # a ping when nothing was heard for so long; half of it for the pong
    stall_s: float = 5.0  # a client that takes nothing for so long, while something waits, is cut off
    linger_s: float = 2.0  # for the other side to answer a close
    recheck_s: float = 5.0  # how late an expired token is noticed on a quiet socket or stream
    keep_alive_s: float = 15.0  # a stream is never silent for longer: proxies would give it up


# Makes an edit of a text in the name of a caller; the version that it made. Raises `ApiError`.
Edit = Callable[[Caller, EditText], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class RealtimeParts:
    """What the socket works with. `steady_ms` is a clock that never goes back; `conflict` as in `Sources`;
    `breach(application, id)` is a notice of a breach, None if there is none."""

    feed: FollowedFeed
    documents: Documents
    permissions: Permissions
    authenticator: Authenticator
    node_id: bytes
    steady_ms: Callable[[], int]
    log: Logger
    edit: Edit
    owner_token: str | None = None
    owner: Caller = field(default_factory=lambda: Caller("owner", "default", is_admin=True, is_owner=True))
    conflict: Callable[[str, str], Mapping[str, Any] | None] = lambda application, id: None
    breach: Callable[[str, str], Notice | None] = lambda application, id: None
    limits: Limits = field(default_factory=Limits)
    timing: Timing = field(default_factory=Timing)


class Hub(Protocol):
    """What connections share; `realtime.Realtime` is it."""

    @property
    def parts(self) -> RealtimeParts: ...
    @property
    def sources(self) -> Sources: ...
    @property
    def watchers(self) -> Watchers[Session]: ...
    @property
    def reader(self) -> RecordReader: ...
    def enter(self, connection: "Connection", /) -> None: ...
    def recognise(self, connection: "Connection", caller: Caller, /) -> None: ...
    def leave(self, connection: "Connection", /) -> None: ...
    async def authenticate(self, token: str, application: str | None, /) -> Caller: ...


class Connection:
    """One socket with its session: it carries bytes and decides nothing."""

    def __init__(
        self,
        realtime: "Hub",
        request: web.Request,
        socket: web.WebSocketResponse,
        writer: AbstractStreamWriter,
        caller: Caller,
        token: str | None,
    ) -> None:
        parts = realtime.parts
        self._realtime = realtime
        self._request = request
        self._socket = socket
        self._writer = writer
        self._token = token  # what `caller` was recognised by; None if that cannot change
        self._steady_ms = parts.steady_ms
        self._timing = parts.timing
        known = caller if caller.user_id is not None else None
        self.session = Session(
            realtime.sources, realtime.watchers, known, now_ms=parts.steady_ms(), limits=parts.limits
        )
        self.known_as: list[tuple[str, str]] = []  # kept by the hub: application, and user or session
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._has_output = asyncio.Event()
        self._is_idle = False  # the task that writes has nothing to do
        self._has_room = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None  # of the record
        self._asking: asyncio.Task[None] | None = None  # whether the token still counts
        self._waiting_on: asyncio.Task[object] | None = None  # for the client to take something

    async def run(self) -> None:
        """Until either side ends it."""
        realtime, session = self._realtime, self.session
        realtime.enter(self)
        if session.caller is not None:
            realtime.recognise(self, session.caller)
        sending = asyncio.create_task(self._send_until_closed())
        deadline: asyncio.TimerHandle | None = None
        if session.deadline_ms is not None:
            wait_s = (session.deadline_ms - self._steady_ms()) / 1000
            deadline = asyncio.get_running_loop().call_later(wait_s, self._on_deadline)
        try:
            await self._receive()
            if session.close is not None:
                await sending  # says goodbye first
        finally:
            realtime.leave(self)
            if deadline is not None:
                deadline.cancel()
            tasks = [task for task in (sending, self._reading, self._asking) if task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.ended.set_result(None)

    def step(self) -> None:
        """After any input to the session: what it wants done is begun."""
        session = self.session
        if session.outbox and self._is_idle and not self._request.protocol.writing_paused:
            self._write()  # at once: to wake the task takes two turns of the loop, in which others have theirs
        if session.outbox or session.close is not None:
            self._has_output.set()
        if session.close is not None:
            self._has_room.set()  # nobody waits any longer
        elif session.is_behind and self._reading is None:
            self._reading = asyncio.create_task(self._guarded(self._read_record()))

    def deliver(self, event: Event, *, is_welcome: bool) -> None:
        """A live entry; `step` follows. Never raises: other clients are waiting for the same entry."""
        try:
            if is_welcome:
                self.session.deliver(event)
            else:
                self.session.fall_behind(event.just_before)
        except Exception as error:
            self._fail(error)

    def is_welcome(self) -> bool:
        """Whether the token is known to count, without looking far."""
        caller = self.session.caller
        if self._token is None or caller is None:
            return True
        known = self._realtime.parts.authenticator.cached(self._token)
        if known is None:
            return False
        self.session.refresh(known)
        return True

    def check(self) -> None:
        """Look at the token again if it is not known to count."""
        if not self.is_welcome() and self._asking is None:
            self._asking = asyncio.create_task(self._guarded(self._ask_and_forget()))
        self.step()

    async def _ask_and_forget(self) -> None:
        try:
            await self._ask()
        finally:
            self._asking = None

    async def _ask(self) -> None:
        """Whether the token counts; if not, the socket is told so and closed."""
        if self.is_welcome() or self._token is None:
            return
        try:
            caller = await self._realtime.parts.authenticator.authenticate(self._token, None)
        except ApiError as error:
            self.session.sign_out(error.message)
        else:
            self.session.refresh(caller)
        self.step()

    def _on_deadline(self) -> None:
        self.session.on_deadline()
        self.step()

    # -- from the client

    async def _receive(self) -> None:
        session = self.session
        while session.close is None:
            message = await self._socket.receive()
            if message.type is WSMsgType.TEXT:
                asked = session.receive(message.data, self._steady_ms())
                if isinstance(asked, EditText):
                    await self._edit(asked)
                elif asked is not None:
                    await self._authenticate(asked)
            elif message.type is WSMsgType.BINARY:
                session.receive_binary(self._steady_ms())
            else:
                return  # closed, by whomever
            self.step()
            if session.outbox.is_full:
                await self._room()  # who does not read its answers is not listened to

    async def _authenticate(self, asked: Authenticate) -> None:
        try:
            caller = await self._realtime.authenticate(asked.token, asked.application)
        except ApiError as error:
            self.session.not_authenticated(error, asked)
            return
        if self.session.authenticated(caller, asked):
            self._token = None if caller.is_owner else asked.token
            self._realtime.recognise(self, caller)

    async def _edit(self, asked: EditText) -> None:
        """The next message waits for it, so that a client's edits are made in its order."""
        await self._ask()  # whether its token counts still
        caller, edit = self.session.caller, self._realtime.parts.edit
        if caller is None or self.session.close is not None:
            return
        try:
            version = await edit(caller, asked)
        except ApiError as error:
            self.session.not_edited(asked, error)
        else:
            self.session.edited(asked, version)

    # -- to the client

    async def _send_until_closed(self) -> None:
        try:
            await self._send()
        except ConnectionError:
            pass  # the client has gone
        except Exception as error:
            self._fail(error)
            self._abort()

    async def _send(self) -> None:
        """Write what waits, as fast as the client takes it; say goodbye in the end."""
        session, outbox = self.session, self.session.outbox
        while session.close is None or outbox:
            self._is_idle = not outbox
            await self._has_output.wait()
            self._is_idle = False
            self._has_output.clear()
            while outbox:
                if not self._write():
                    return
                if self._request.protocol.writing_paused:
                    await self._drain()
        await self._say_goodbye(session.close.code, session.close.reason)

    def _write(self) -> bool:
        """Write as much of what waits as is handed over at once. Whether somebody is there."""
        transport = self._request.transport
        if self._socket.closed or transport is None:
            return False
        transport.write(_framed(self.session.outbox.take(WRITE_SIZE_BYTES)))
        if not self.session.outbox.is_ahead:
            self._has_room.set()
        return True

    async def _drain(self) -> None:
        if not await self._ends_within(self._timing.stall_s, self._writer.drain()):
            self.session.cut_off(1013, "too slow: resume with the last cursor")
            self.step()

    async def _say_goodbye(self, code: int, reason: str) -> None:
        closing = self._socket.close(code=code, message=reason.encode())
        if not await self._ends_within(self._timing.linger_s, closing):
            self._abort()  # what it has not taken until now it never will

    async def _ends_within(self, wait_s: float, work: Coroutine[Any, Any, object]) -> bool:
        """Whether the work ends in time. It is never cancelled, but ends with the connection.

        aiohttp gives one future to all who wait for a connection to drain: to cancel one is to cancel all.
        """
        task = self._waiting_on = asyncio.create_task(work)
        task.add_done_callback(_forget_outcome)
        await asyncio.wait((task,), timeout=wait_s)
        return task.done()

    def _abort(self) -> None:
        transport = self._request.transport
        if transport is not None:
            transport.abort()

    async def _room(self) -> None:
        """Wait until the client has taken enough to be sent more."""
        while self.session.outbox.is_ahead and self.session.close is None:
            self._has_room.clear()
            await self._has_room.wait()

    # -- from the record

    async def _read_record(self) -> None:
        """Bring subscriptions that are behind up to the newest entry."""
        session = self.session
        try:
            left: Part[AnyEntry] | None = None
            while session.close is None and (after := session.behind_since) is not None:
                await self._ask()
                if left is None and session.caller is not None:
                    try:
                        left = await self._realtime.reader.part(after, session.caller.application)
                    except CursorTooOld:
                        session.resync()
                        self.step()
                    continue  # the token may have expired meanwhile
                if left is None:
                    return
                left = session.replay(left)
                self.step()
                await asyncio.sleep(0)
                await self._room()
        finally:
            self._reading = None

    # -- faults of ours

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        """Do the work of a task; what goes wrong ends this socket alone."""
        try:
            await work
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._realtime.parts.log.error("a realtime socket failed", exc_info=error)
        self.session.cut_off(1011, "internal error")
        self.step()


def _forget_outcome(task: "asyncio.Task[object]") -> None:
    """The connection was lost meanwhile, which `receive` finds out as well."""
    if not task.cancelled():
        task.exception()


def _framed(frames: Sequence[Frame]) -> bytes:
    """Unmasked text frames (RFC 6455, 5.2) in one piece.

    aiohttp's writer takes 2.5 µs and a call to the system for each, which joining them saves in a burst.
    """
    pieces: list[bytes] = []
    for parts in frames:
        length = sum(map(len, parts))
        if length < 126:
            pieces.append(b"\x81" + length.to_bytes(1, "big"))
        elif length < 65_536:
            pieces.append(b"\x81\x7e" + length.to_bytes(2, "big"))
        else:
            pieces.append(b"\x81\x7f" + length.to_bytes(8, "big"))
        pieces += parts
    return b"".join(pieces)
