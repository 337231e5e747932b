"""What has changed since (seed S1, "Partial Sync"): page by page, or as server-sent events.

Room: one route in two forms. What a caller may see, and where it stands, is `following`'s; the events are those
of the realtime socket. A stream reads the record like everybody who is behind and keeps no queue: one that takes
less than is written costs no memory, one that takes nothing for a while is cut off, and `Last-Event-ID` takes it
back to where it was.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from aiohttp import hdrs, web

from node.api.civicbase.following import Follower, Seen
from node.api.civicbase.realtime import Realtime
from node.api.civicbase.streaming import News, Stream, Streams
from node.api.errors import NotFound, ValidationFailed, s1_form
from node.api.replies import Reply, kind
from node.api.requests import read_header, read_query
from node.api.routes import CALLER, TOKEN, Auth, Caller, KeyAccess, Route
from node.feed import CursorTooOld, Position
from node.services.refusals import NotPermitted, SignInNeeded
from storage.errors import UnknownModel

LIMIT = 100
LIMIT_MAX = 1_000
PAGE_SIZE_MAX_BYTES = 1 << 20  # plus one event; the next page goes on from there
PAGE_PARTS_MAX = 16  # read for one page, however few of them the caller may see: 4,096 entries
MODELS_MAX = 100
CURSOR_MAX_CHARS = 128
MS_MAX_DIGITS = 15  # of milliseconds since 1970: a cursor has dots
EVENT_STREAM = kind("text/event-stream", cache="no-store")
_encode = msgspec.json.Encoder().encode
_TAGS = ("Sync",)
_STREAM_HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
}

# Of documents (application, model, id): the open conflicts that a caller may see, as `GET /v1/conflicts` has them.
ConflictsAmong = Callable[[Caller, Sequence[tuple[str, str, str]]], Awaitable[list[dict[str, Any]]]]


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a request asks for. `since` None begins at the beginning, or for a stream with what comes now."""

    since: str | None
    limit: int
    models: dict[str, str] | None


class ChangeRoutes:
    """`start` and `stop` it once, on the loop of the feed."""

    def __init__(self, realtime: Realtime, conflicts_among: ConflictsAmong) -> None:
        """Reads what the realtime socket reads, in the same way."""
        self._parts = realtime.parts
        self._sources = realtime.sources
        self._reader = realtime.reader
        self._conflicts_among = conflicts_among
        self.streams = Streams(realtime)

    def start(self) -> None:
        self.streams.start()

    def stop(self) -> None:
        """Every stream ends at its next step."""
        self.streams.stop()

    def __len__(self) -> int:
        return len(self.streams)

    def routes(self) -> list[Route]:
        return [
            Route(
                "GET",
                "/v1/sync/changes",
                self.changes,
                "What has changed since: a page, or a stream of server-sent events",
                auth=Auth.OPTIONAL,  # a model may be public
                key_access=KeyAccess.DATA,
                token_in_query=True,
                tags=_TAGS,
                query=QUERY,
                responses={200: CHANGES},
                description=_DESCRIPTION,
            )
        ]

    async def changes(self, request: web.Request) -> web.StreamResponse:
        caller, is_stream = request[CALLER], _wants_stream(request)
        asked = self._read(request, caller)
        since = (read_header(request, "Last-Event-ID") or asked.since) if is_stream else asked.since
        position, is_too_old = self._position(since, is_stream=is_stream)
        follower = Follower(self._sources, caller, asked.models, position, with_conflicts=is_stream)
        if not is_stream:
            return await self._page(follower, asked.limit, is_too_old=is_too_old)
        if request.method == hdrs.METH_HEAD:
            return Reply(b"", kind=EVENT_STREAM)
        token = None if caller.user_id is None or caller.is_owner else request.get(TOKEN)
        stream = Stream(follower, token, is_to_read_anew=is_too_old)
        with self.streams.entered(stream):
            return await self._stream(request, stream)

    # -- what is asked

    def _read(self, request: web.Request, caller: Caller) -> _Asked:
        query = read_query(request)
        faults = {name: "Unknown parameter" for name in query if name not in (*QUERY, "token")}
        limit = query.get("limit", str(LIMIT))
        if not (limit.isascii() and limit.isdecimal() and len(limit) <= 4 and 1 <= int(limit) <= LIMIT_MAX):
            faults["limit"] = f"Must be a whole number from 1 to {LIMIT_MAX}"
        since = query.get("since")
        if since is not None and not 1 <= len(since) <= CURSOR_MAX_CHARS:
            faults["since"] = f"Must have 1 to {CURSOR_MAX_CHARS} characters"
        names = list(dict.fromkeys(query["model"].split(","))) if "model" in query else []
        if len(names) > MODELS_MAX:
            faults["model"] = f"Must name {MODELS_MAX} models at most"
        if faults:
            raise ValidationFailed(faults)
        return _Asked(since, int(limit), self._models(caller, names) if names else None)

    def _models(self, caller: Caller, names: Sequence[str]) -> dict[str, str]:
        """The models of these names, by their ids."""
        found: dict[str, str] = {}
        unknown: list[str] = []
        for name in names:
            try:
                model = self._sources.documents.model(caller.application, name)
            except UnknownModel as error:
                unknown.append(str(error))
                continue
            if not self._sources.permissions.may_ever(caller, model, "read"):
                if caller.user_id is None:
                    raise SignInNeeded("This needs a signed-in user")
                raise NotPermitted(f"You may not read '{name}'")
            found.setdefault(model.id, name)
        if unknown:
            raise NotFound(message := "; ".join(unknown), {"model": message})
        return found

    def _position(self, since: str | None, *, is_stream: bool) -> tuple[Position, bool]:
        """Where to begin, and whether that is not where it was asked to be, which is too far back."""
        feed = self._parts.feed
        try:
            if since is None:
                return (feed.newest if is_stream else feed.position_at(0)), False
            if since.isascii() and since.isdecimal() and len(since) <= MS_MAX_DIGITS:
                return feed.position_at(int(since)), False
            return feed.position(since), False
        except CursorTooOld:
            return feed.newest, True

    # -- a page

    async def _page(self, follower: Follower, limit: int, *, is_too_old: bool) -> Reply:
        seen: list[Seen] = []
        room = PAGE_SIZE_MAX_BYTES
        try:
            for _ in range(PAGE_PARTS_MAX):
                if is_too_old or follower.is_up_to_date or len(seen) >= limit or room <= 0:
                    break
                part = await self._reader.part(follower.position, follower.caller.application)
                taken = follower.take(part, count_max=limit - len(seen), size_max_bytes=room)
                room -= sum(len(event.json) for event in taken)
                seen += taken
        except CursorTooOld:
            is_too_old = True
        if is_too_old:
            seen = []
            follower.read_anew()
        touched = dict.fromkeys((e.entry.application, e.entry.model, e.entry.id) for e in seen)
        rest = {
            "cursor": follower.cursor,
            "has_more": not follower.is_up_to_date,
            "resync": is_too_old,
            "syncedCount": len(seen),
            "conflicts": await self._conflicts_among(follower.caller, list(touched)),
        }
        return Reply(b'{"changes":[%b],%b' % (b",".join(event.json for event in seen), _encode(rest)[1:]))

    # -- a stream

    async def _stream(self, request: web.Request, stream: Stream) -> web.StreamResponse:
        response = web.StreamResponse(headers=_STREAM_HEADERS)
        await response.prepare(request)
        message: bytes | None = b"retry: 2000\n" + _told("subscribed", stream.follower.cursor)
        try:
            while message is not None:
                async with asyncio.timeout(self._parts.timing.stall_s):
                    await response.write(message)
                message = _said(await self.streams.next(stream))
            async with asyncio.timeout(self._parts.timing.stall_s):
                await response.write_eof()
        except (TimeoutError, ConnectionError):
            if request.transport is not None:
                request.transport.abort()  # it takes nothing, or has gone
        return response


def _said(news: News | None) -> bytes | None:
    """News as server-sent events; None if there will be no more."""
    if news is None:
        return None
    if (error := news.refusal or news.lost) is not None:
        return b"data: %b\n\n" % _encode({"type": "error", **s1_form(error)})
    if news.anew is not None:
        return _told("resync", news.anew)
    if not news.seen:
        return b": keep-alive\n\n"
    return b"".join(b"id: %b\ndata: %b\n\n" % (seen.cursor.encode(), seen.json) for seen in news.seen)


def _wants_stream(request: web.Request) -> bool:
    accepted = request.headers.get(hdrs.ACCEPT, "")
    return any(kind.partition(";")[0].strip().lower() == "text/event-stream" for kind in accepted.split(","))


def _told(what: str, cursor: str) -> bytes:
    return b"id: %b\ndata: %b\n\n" % (cursor.encode(), _encode({"type": what, "cursor": cursor}))


QUERY: dict[str, dict[str, Any]] = {
    "since": {
        "type": "string",
        "minLength": 1,
        "maxLength": CURSOR_MAX_CHARS,
        "description": "A `cursor`, or milliseconds since 1970; from the beginning without it",
    },
    "limit": {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT},
    "model": {"type": "string", "description": "Names or ids of models, parted by commas; all without it"},
}
CHANGE: dict[str, Any] = {
    "type": "object",
    "required": ["type", "model", "instanceId", "changes", "cursor", "previous"],
    "properties": {
        "type": {"enum": ["create", "update", "delete"]},
        "model": {"type": "string"},
        "instanceId": {"type": "string"},
        "changes": {"type": "object", "description": "The fields that were changed, as they are now"},
        "data": {"type": "object", "description": "The instance as it is now, unless it is deleted"},
        "origin": {"type": "string", "description": "The node that it came from, if not this one"},
        "cursor": {"type": "string"},
        "previous": {"type": "string", "description": "The cursor before: another than yours shows a gap"},
    },
}
CHANGES: dict[str, Any] = {
    "type": "object",
    "required": ["changes", "cursor", "has_more", "resync", "syncedCount", "conflicts"],
    "properties": {
        "changes": {"type": "array", "items": CHANGE},
        "cursor": {"type": "string", "description": "Ask for what comes after it the next time"},
        "has_more": {"type": "boolean", "description": "Whether to ask again at once"},
        "resync": {"type": "boolean", "description": "`since` is too old: read the documents anew"},
        "syncedCount": {"type": "integer", "minimum": 0},
        "conflicts": {"type": "array", "items": {"type": "object"}},
    },
}
_DESCRIPTION = """Every change that the caller may read, oldest first, in the shape of realtime events. Ask for
`since` = the last `cursor`, or the time of the last sync (then some changes may come twice, none is left out).
With `Accept: text/event-stream` the same changes come as server-sent events for as long as the client listens:
`Last-Event-ID`, which browsers send by themselves, counts before `since`, and without either the stream begins
with what comes next. The event `resync` says that the documents are to be read anew, `error` that a model that was
asked for may be read no longer, or that the token counts no longer, which ends the stream."""
