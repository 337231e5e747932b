"""Those who follow changes for as long as they listen, each at its own pace.

Room: waking them, reading on for them, and seeing whether their tokens still count. What is made of the news is
theirs: server-sent events in `changes`, subscriptions in `graphql`. A stream keeps no queue: one that takes less than
is written is served from the record, like everybody who is behind, and costs no memory.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from node.api.civicbase.following import Follower, Seen
from node.api.civicbase.realtime import Realtime
from node.api.civicbase.realtime_events import DECISIVE
from node.api.errors import ApiError, Unavailable
from node.conflict_feed import AnyEntry
from node.feed import CursorTooOld

EVENTS_MAX = 64  # in one piece, before a slow client is waited for
SIZE_MAX_BYTES = 256 << 10  # of one piece, plus one event
STREAMS_MAX = 1_000


class Stream:
    """One client that follows changes."""

    def __init__(self, follower: Follower, token: str | None, *, is_to_read_anew: bool = False) -> None:
        self.follower = follower
        self.token = token  # what the caller was recognised by; None if that cannot change
        self.is_to_read_anew = is_to_read_anew
        self.is_over = False
        self.wake = asyncio.Event()

    def concerns(self, touched: set[tuple[str, str]], decided: set[tuple[str, str]]) -> bool:
        """Whether it is to be woken by changes in these models, each with its application, or by what these documents
        decide about who may hear."""
        application, models = self.follower.caller.application, self.follower.models
        if decided:
            names = (*self.follower.caller.known_as, *(models or ()))
            if any((application, name) in decided for name in names):
                return True
        if models is None:
            return any(name == application for name, _ in touched)
        return any((application, model) in touched for model in models)


@dataclass(frozen=True, slots=True)
class News:
    """What a stream hears next: events, or the cursor from which all is to be read anew, or why it may hear no more
    of some models (after which it ends, if those were all), or of anything.

    None of these says that nothing has happened for a while.
    """

    seen: Sequence[Seen] = ()
    anew: str | None = None
    lost: ApiError | None = None
    refusal: ApiError | None = None


class Streams:
    """All streams of one node. `start` and `stop` it once, on the loop of the feed."""

    def __init__(self, realtime: Realtime) -> None:
        """Reads what the realtime socket reads, in the same way."""
        self._parts = realtime.parts
        self._reader = realtime.reader
        self._streams: dict[Stream, None] = {}
        self._unsubscribe: Callable[[], None] = lambda: None
        self._is_stopping = False

    def start(self) -> None:
        # What a first sync brings is not told, but it may decide about rights.
        self._unsubscribe = self._parts.feed.subscribe(
            self._on_entries, on_caught_up=self._on_caught_up, with_old=True
        )

    def stop(self) -> None:
        """Every stream ends at its next step."""
        self._is_stopping = True
        self._unsubscribe()
        for stream in self._streams:
            stream.wake.set()

    def __len__(self) -> int:
        return len(self._streams)

    @contextmanager
    def entered(self, stream: Stream) -> Iterator[None]:
        """The stream is woken by what concerns it. Raises `Unavailable` if there are too many."""
        if self._is_stopping or len(self._streams) >= STREAMS_MAX:
            raise Unavailable("The node is stopping" if self._is_stopping else "Too many streams are open")
        self._streams[stream] = None
        try:
            yield
        finally:
            del self._streams[stream]

    async def next(self, stream: Stream) -> News | None:
        """What the stream hears next; None if that was all."""
        follower, loop = stream.follower, asyncio.get_running_loop()
        quiet_since_s = loop.time()
        while not (self._is_stopping or stream.is_over):
            stream.wake.clear()
            refusal = await self._refusal(stream)
            if refusal is not None:
                stream.is_over = True
                return News(refusal=refusal)
            if gone := follower.let_go():
                stream.is_over = not follower.models
                return News(lost=_lost(gone))
            if stream.is_to_read_anew:
                stream.is_to_read_anew = False
                return News(anew=follower.read_anew())
            if not follower.is_up_to_date:
                seen = await self._read_on(stream)
                if seen:
                    return News(seen)
                continue
            if loop.time() - quiet_since_s >= self._parts.timing.keep_alive_s:
                return News()
            try:
                async with asyncio.timeout(self._parts.timing.recheck_s):
                    await stream.wake.wait()
            except TimeoutError:
                pass
        return None

    def _on_entries(self, entries: Sequence[AnyEntry]) -> None:
        if self._streams:
            touched = {(entry.application, entry.model) for entry in entries if not entry.is_old}
            decided = {(e.application, e.id) for e in entries if e.model.startswith(DECISIVE)}
            for stream in self._streams:
                if stream.concerns(touched, decided):
                    stream.wake.set()

    def check_all(self) -> None:
        """The members of the network are others now: whose tokens still count is to be found out again."""
        for stream in self._streams:
            stream.wake.set()

    def _on_caught_up(self, application: str) -> None:
        for stream in self._streams:
            if stream.follower.caller.application == application:
                stream.is_to_read_anew = True
                stream.wake.set()

    async def _read_on(self, stream: Stream) -> list[Seen]:
        follower = stream.follower
        try:
            part = await self._reader.part(follower.position, follower.caller.application)
        except CursorTooOld:
            stream.is_to_read_anew = True
            return []
        if stream.is_to_read_anew or await self._refusal(stream) is not None:
            return []  # that came while it was read
        return follower.take(part, count_max=EVENTS_MAX, size_max_bytes=SIZE_MAX_BYTES)

    async def _refusal(self, stream: Stream) -> ApiError | None:
        """Why the client may hear no more, if it may not. Otherwise its rights are brought up to date."""
        if stream.token is None:
            return None
        authenticator = self._parts.authenticator
        try:
            caller = authenticator.cached(stream.token) or await authenticator.authenticate(
                stream.token, None
            )
        except ApiError as error:
            return error
        stream.follower.caller = caller
        return None


def _lost(gone: Mapping[str, tuple[str, str]]) -> ApiError:
    code, sentence = next(iter(gone.values()))
    message = sentence if len(gone) == 1 else "Some of these models can be followed no longer"
    status = 404 if code == "NOT_FOUND" else 403
    return ApiError(status, code, message, {named: said for named, (_, said) in gone.items()})
