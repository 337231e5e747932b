"""What all who follow changes share: reading the record for them, and what one caller may see of it.

Room: the realtime socket, streams of server-sent events and `GET /v1/sync/changes` read the same feed by the
same cursors. Here are the threads on which they read, few at a time for all of them together, and a `Follower`,
which turns what was read into events for one caller. What an event looks like is `realtime_messages`', whether
someone may see it `realtime_events`'.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple, Protocol

from node.api.civicbase.realtime_events import Cursors, Event, Sources, why_gone
from node.api.civicbase.realtime_messages import Dialect, cursor_text, event_tail
from node.api.routes import Caller
from node.conflict_feed import AnyEntry, ConflictEntry, Listener
from node.feed import Part, Position

READ_ENTRIES = 256  # of the record at once: some milliseconds on a thread
READERS_MAX = 2  # threads that read the record at the same time, for all who follow together


class FollowedFeed(Cursors, Protocol):
    """What of `node.conflict_feed.ConflictFeed` is used by those who follow it."""

    def subscribe(
        self, listener: Listener, /, *, on_caught_up: Callable[[str], None], with_old: bool = False
    ) -> Callable[[], None]: ...

    def position_at(self, ms: int) -> Position:
        """Raises `CursorTooOld`."""

    def part(self, after: Position, *, limit: int, application: str | None = None) -> Part[AnyEntry]:
        """Blocks. Raises `CursorTooOld` where the feed does not reach back so far."""


class RecordReader:
    """Reads parts of the feed for everybody who is behind. For one event loop."""

    def __init__(self, feed: FollowedFeed) -> None:
        self._feed = feed
        self._turns = asyncio.Semaphore(READERS_MAX)

    async def part(self, after: Position, application: str) -> Part[AnyEntry]:
        """What follows a position in an application. Raises `CursorTooOld`."""
        async with self._turns:
            return await asyncio.to_thread(self._read, after, application)

    def _read(self, after: Position, application: str) -> Part[AnyEntry]:
        """Without the values that were set: a reader may take its time, and holds little."""
        part = self._feed.part(after, limit=READ_ENTRIES, application=application)
        entries = [
            entry
            if isinstance(entry, ConflictEntry)
            else replace(entry, changed=dict.fromkeys(entry.changed))
            for entry in part.entries
        ]
        return Part(part.after, entries, part.reach)


class Seen(NamedTuple):
    """An entry of the feed as a caller sees it."""

    cursor: str
    json: bytes
    entry: AnyEntry


class Follower:
    """One caller at one place in the feed: what it may see of what follows, in the seed's `type` dialect.

    Each event names its `cursor` and the `previous` one, so that a gap shows.
    """

    def __init__(
        self,
        sources: Sources,
        caller: Caller,
        models: dict[str, str] | None,
        position: Position,
        *,
        with_conflicts: bool,
    ) -> None:
        """`models` are those asked for, by id, as the caller names them; None asks for all."""
        self._with_conflicts = with_conflicts
        self._sources = sources
        self.caller = caller
        self.models = models
        self.position = position
        self._sent = cursor_text(sources.feed.cursor(position))

    @property
    def cursor(self) -> str:
        """Where to go on from."""
        return self._sources.feed.cursor(self.position)

    @property
    def is_up_to_date(self) -> bool:
        return self.position >= self._sources.feed.newest

    def read_anew(self) -> str:
        """Go on from what is newest. Returns the cursor of that place, which is the `previous` of what follows."""
        self.position = self._sources.feed.newest
        self._sent = cursor_text(self.cursor)
        return self.cursor

    def let_go(self) -> dict[str, tuple[str, str]]:
        """Of the models asked for, those that can be heard of no longer: an error's code and sentence, by name."""
        gone = {}
        for model_id, named in list((self.models or {}).items()):
            if (why := why_gone(self._sources, self.caller, model_id, named)) is not None:
                gone[named] = why
                self.models = {id: name for id, name in (self.models or {}).items() if id != model_id}
        return gone

    def say(self, event: Event, previous: bytes) -> bytes | None:
        """An event as JSON, `previous` being the cursor sent before it, as JSON; None if it is not wanted."""
        assert event.model is not None
        named = event.model.name if self.models is None else self.models[event.entry.model]
        return event.head(Dialect.TYPE, named) + event_tail(None, event.cursor, previous)

    def take(self, part: Part[AnyEntry], *, count_max: int, size_max_bytes: int) -> list[Seen]:
        """Events from the beginning of a part that begins here, as many as fit; one at least, if there is any.

        Goes on to behind the last of them, or to the end of the part.
        """
        size_bytes = 0
        newest = self._sources.feed.newest
        taken: list[Seen] = []
        for entry in part.entries:
            position = Position(entry.arrival, entry.index)
            if position > newest:
                break  # stored, but not handed on: the cache may still hold the state before
            if len(taken) >= count_max or size_bytes >= size_max_bytes:
                return taken
            self.position = position
            if self.models is not None and entry.model not in self.models:
                continue
            if isinstance(entry, ConflictEntry) and not self._with_conflicts:
                continue
            event = Event(entry, self._sources)
            if event.model is None or not event.may_be_read_by(self.caller):
                continue
            said = self.say(event, self._sent)
            if said is None:
                continue
            taken.append(Seen(self.cursor, said, entry))
            size_bytes += len(said)
            self._sent = event.cursor
        self.position = max(self.position, min(part.reach, newest))
        return taken
