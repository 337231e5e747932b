"""Hearing of changes as they happen: one socket a subscription, kept up for as long as it is wanted.

Room: connecting, resuming, noticing gaps. The node's cursors do the remembering: what was missed while a link was
down is replayed, and where that is no longer possible the node says `resync` once.
"""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import aiohttp

from cosmicsync.errors import Closed, CosmicSyncError, NodeUnreachable, Unauthorized, error_of
from cosmicsync.transport import Transport

Event = dict[str, Any]
BACKOFF_S = 0.2
BACKOFF_MAX_S = 30.0
HEARTBEAT_S = 20.0
NOT_WELCOME = 4401
_EVENTS = frozenset({"create", "update", "delete", "conflict", "conflict_resolved"})
_WAITING = "RATE_LIMIT_EXCEEDED"
# Whose handler this is, in the task or thread that runs it and in all that it starts.
_handling: ContextVar["Subscription | None"] = ContextVar("handling", default=None)


class Subscription:
    """Changes of some models. Iterate over it, or hand `run` a handler; `close` ends it.

    An event is the node's: `type` (create, update, delete, conflict, conflict_resolved), `model`, `instanceId`,
    `changes`, `data`, `origin`, `cursor`. `resync` says that what was missed cannot be replayed: read anew.
    """

    def __init__(
        self,
        transport: Transport,
        models: Sequence[str],
        *,
        events: Sequence[str] | None = None,
        instance_id: str | None = None,
        cursor: str | None = None,
        on_cursor: Callable[[str], Awaitable[None]] | None = None,
        on_resync: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.cursor = cursor
        self._transport = transport
        self._asked: Event = {"type": "subscribe", "models": list(models)}
        if events is not None:
            self._asked["events"] = list(events)
        if instance_id is not None:
            self._asked["instanceId"] = instance_id
        self._on_cursor = on_cursor
        self._on_resync = on_resync
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._task: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._up = asyncio.Event()

    @property
    def is_connected(self) -> bool:
        return self._up.is_set()

    async def ready(self) -> None:
        """Wait until the node has acknowledged the subscription. Raises what ended it."""
        up = asyncio.ensure_future(self._up.wait())
        waiting: set[asyncio.Future[Any]] = {up} if self._task is None else {up, self._task}
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if not up.done():
            up.cancel()
            assert self._task is not None
            self._task.result()

    async def close(self) -> None:
        """End it. A handler that runs comes to its end; it is not waited for where it is what calls this."""
        self._closing.set()
        if self._socket is not None:
            await self._socket.close()
        if self._task is not None and _handling.get() is not self:
            await asyncio.wait({self._task})

    def run(self, handle: Callable[[Event], Awaitable[None]], on_end: Callable[[Exception], None]) -> None:
        """Hand every event to `handle`, one after the other, in a task. `on_end` hears why it had to end."""

        async def run() -> None:
            _handling.set(self)
            try:
                async for event in self:
                    await handle(event)
            except Closed:
                pass  # the client was, and with it this
            except Exception as error:
                on_end(error)
                raise

        self._task = asyncio.ensure_future(run())
        self._task.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def __aiter__(self) -> AsyncIterator[Event]:
        """Events, until it is closed. Raises what a node refuses it with, for good; a lost link is not told."""
        failures = 0
        while not self._closing.is_set():
            wait_s: float | None = None
            try:
                async for event in self._link():
                    yield event
            except Unauthorized:
                if not await self._refreshed():
                    raise
            except NodeUnreachable:
                pass
            except CosmicSyncError as refusal:
                if refusal.error_code != _WAITING:
                    raise
                wait_s = refusal.retry_after_s
            finally:
                if self._up.is_set():
                    failures = 0
                self._up.clear()
            if wait_s is None:
                wait_s = random.uniform(0, min(BACKOFF_MAX_S, BACKOFF_S * 2**failures))
            failures = min(failures + 1, 16)
            try:
                async with asyncio.timeout(wait_s):
                    await self._closing.wait()
            except TimeoutError:
                pass

    async def _refreshed(self) -> bool:
        try:
            return await self._transport.refresh()
        except NodeUnreachable:
            return True  # the link is the trouble: it is tried again

    async def _link(self) -> AsyncIterator[Event]:
        """The events of one connection, until it ends."""
        token, url = self._transport.token, f"{self._transport.url}/v1/realtime"
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        if self._transport.application is not None:
            headers["X-Application-Id"] = self._transport.application
        try:
            async with self._transport.http.ws_connect(
                url,
                headers=headers,
                heartbeat=HEARTBEAT_S,
                max_msg_size=0,
                timeout=aiohttp.ClientWSTimeout(ws_close=2),
            ) as socket:
                self._socket = socket
                await socket.send_json({**self._asked, **({"cursor": self.cursor} if self.cursor else {})})
                async for event in self._read(socket):
                    yield event
                if socket.close_code == NOT_WELCOME:
                    raise Unauthorized("The token counts no longer", status=401)
        except aiohttp.WSServerHandshakeError as error:
            if error.status == 401:
                raise Unauthorized("Invalid authentication token provided", status=401) from error
            raise NodeUnreachable(f"No realtime from {url}: {error.status}") from error
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise NodeUnreachable(f"No answer from {url}: {error}") from error
        finally:
            self._socket = None

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> AsyncIterator[Event]:
        last: str | None = None  # the cursor sent last on this connection
        async for message in socket:
            if message.type is not aiohttp.WSMsgType.TEXT:
                return
            event: Event = json.loads(message.data)
            kind = event.get("type")
            if kind == "subscribed":
                last = event["cursor"]
                # One that was too old stays until `resync` has been heard, whatever becomes of the link.
                if self.cursor is None:
                    await self._advance(event)
                self._up.set()
            elif kind == "error":
                raise _refusal(event)
            elif kind == "resync":
                last = event["cursor"]
                if self._on_resync is not None:
                    await (
                        self._on_resync()
                    )  # where that fails, the old cursor is resumed from, and it is said again
                yield event
                await self._advance(event)
            elif kind in _EVENTS:
                if last is not None and event.get("previous") != last:
                    return  # something is missing: it is asked for again
                last = event["cursor"]
                yield event
                await self._advance(event)

    async def _advance(self, event: Event) -> None:
        self.cursor = event["cursor"]
        if self._on_cursor is not None:
            await self._on_cursor(event["cursor"])


def _refusal(event: Mapping[str, Any]) -> CosmicSyncError:
    statuses = {
        "NOT_FOUND": 404,
        "FORBIDDEN": 403,
        "UNAUTHORIZED": 401,
        "AUTH_INVALID_TOKEN": 401,
        _WAITING: 429,
    }
    return error_of(statuses.get(str(event.get("error_code")), 400), event)
