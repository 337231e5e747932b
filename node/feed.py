"""The one feed: every change that was integrated here, in one order, with one cursor.

Room: cursors, live distribution and catching up from the record. Entries come
from storage in the order of arrival; this module only hands them on. A cursor
is opaque to applications: `<epoch>.<arrival>.<index>`. One that is of another
epoch, or too far back, is answered by exactly one `resync`, and so is one from
before the end of a first sync: what that brings (`storage.first_sync`) is no
news, so it is not handed on, and once it is over subscribers are told to read anew.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from protocol.body import decode_body
from protocol.errors import ProtocolError
from protocol.ids import SpaceId
from protocol.integrate import Change, Entry, Verdict
from storage.arrivals import Arrival, Rejudgement
from storage.feed_entry import FeedEntry, feed_entry, rejudged_entry
from storage.first_sync import FirstSync, first_sync
from storage.store import Snapshot, Store

ARRIVALS_KEPT_MAX = 1_000_000  # how far back a cursor may lie (CONTRACT, "One cursor")
KEPT_MS = 30 * 86_400_000  # likewise
_LOOK_AGAIN_MS = 60_000  # a minute makes no difference to a month
ARRIVALS_READ_MAX = 10_000  # in one go: the log of a busy application beside a quiet one, 50 ms
BODY_MAX = 1 << 32  # after every body of an arrival, and every document that was judged again
Listener = Callable[[Sequence[FeedEntry]], None]
E = TypeVar("E", covariant=True)


class Position(NamedTuple):
    """A place in the order of arrival: after the body `index` of an arrival."""

    arrival: int
    body: int


@dataclass(frozen=True, slots=True)
class Part(Generic[E]):
    """A part of the feed: no entry after `after` and up to `reach` is missing from it."""

    after: Position
    entries: Sequence[E]
    reach: Position


class CursorTooOld(Exception):
    """The cursor is of another life of the store, or further back than the feed reaches: resync."""


@dataclass(frozen=True, slots=True, eq=False)
class _Subscriber:
    listener: Listener
    on_caught_up: Callable[[str], None]
    with_old: bool


class Feed:
    """Subscribers are called on the loop, in the order in which they subscribed."""

    def __init__(self, store: Store, now_ms: Callable[[], int]) -> None:
        assert store.identity is not None
        self._store = store
        self._now_ms = now_ms
        self._oldest = 0  # this arrival and what lies before it came longer ago than the feed reaches
        self._looked_at_ms: int | None = None
        self._epoch = store.identity.epoch
        self._subscribers: list[_Subscriber] = []
        with store.read() as snapshot:
            self.newest = Position(snapshot.log.last_arrival(), BODY_MAX)

    def subscribe(
        self,
        listener: Listener,
        *,
        on_caught_up: Callable[[str], None] = lambda application: None,
        with_old: bool = False,
    ) -> Callable[[], None]:
        """Call `listener` with every group of entries from now on. Returns how to end it.

        `on_caught_up` is called with an application whose first sync is over: it is to be read anew. Entries of
        that first sync (`is_old`) go only to those who ask for them by `with_old`.
        """
        subscriber = _Subscriber(listener, on_caught_up, with_old)
        self._subscribers.append(subscriber)
        return lambda: self._subscribers.remove(subscriber) if subscriber in self._subscribers else None

    def publish(self, entries: Sequence[FeedEntry]) -> None:
        """Hand on what was just stored."""
        self.newest = Position(entries[-1].arrival, entries[-1].index)
        news = [entry for entry in entries if not entry.is_old]
        for subscriber in list(self._subscribers):
            if subscriber.with_old:
                subscriber.listener(entries)
            elif news:
                subscriber.listener(news)

    def caught_up(self, application: str) -> None:
        """The first sync of an application is over."""
        for subscriber in list(self._subscribers):
            subscriber.on_caught_up(application)

    def cursor(self, position: Position | None = None) -> str:
        """The cursor of a position; of the newest entry if none is given."""
        arrival, body = position or self.newest
        return f"{self._epoch}.{arrival}.{body}"

    def cursor_of(self, entry: FeedEntry) -> str:
        return f"{self._epoch}.{entry.arrival}.{entry.index}"

    def position(self, cursor: str) -> Position:
        """The position of a cursor. Raises `CursorTooOld`; a malformed cursor is too old as well."""
        epoch, _, rest = cursor.partition(".")
        arrival, _, index = rest.partition(".")
        if epoch != self._epoch or not (arrival.isdecimal() and index.isdecimal()) or len(rest) > 32:
            raise CursorTooOld(cursor)
        position = Position(int(arrival), int(index))
        if position.arrival > self.newest.arrival:
            raise CursorTooOld(cursor)
        return self._reachable(position)

    def position_at(self, ms: int) -> Position:
        """After what had arrived by this time of this node's clock, or some seconds earlier: never later.

        Raises `CursorTooOld`.
        """
        with self._store.read() as snapshot:
            return self._reachable(Position(snapshot.log.arrival_before(ms), BODY_MAX))

    def _reachable(self, position: Position) -> Position:
        oldest = max(self.newest.arrival - ARRIVALS_KEPT_MAX, self._oldest_reachable())
        if position < self.newest and position.arrival < oldest:  # who has seen all lacks nothing
            raise CursorTooOld(str(position))
        return position

    def _oldest_reachable(self) -> int:
        now_ms = self._now_ms()
        if self._looked_at_ms is None or abs(now_ms - self._looked_at_ms) >= _LOOK_AGAIN_MS:
            with self._store.read() as snapshot:
                self._oldest = snapshot.log.arrived_before(now_ms - KEPT_MS)
            self._looked_at_ms = now_ms
        return self._oldest

    def part(
        self, after: Position, *, limit: int, application: str | None = None, over_first_sync: bool = False
    ) -> Part[FeedEntry]:
        """What follows a position, of one application or of all: about `limit` entries at most. Blocks.

        Raises `CursorTooOld` where a first sync lies in between, unless asked to go on without what that has brought.
        """
        with self._store.read() as snapshot:
            named = {self._store.space(name): name for name in snapshot.applications()}
            wanted = {space: name for space, name in named.items() if application in (None, name)}
            firsts = {space: first for space in wanted if (first := first_sync(snapshot, space)) is not None}
            if not over_first_sync and any(f.after < f.until > after.arrival for f in firsts.values()):
                raise CursorTooOld(str(after))
            reader = _Reader(snapshot, wanted, firsts)
            entries: list[FeedEntry] = []
            happenings = snapshot.log.happenings(after_number=max(after.arrival - 1, 0))
            for number, arrival in enumerate(happenings):
                if number >= ARRIVALS_READ_MAX:
                    return Part(after, entries, Position(arrival.number - 1, BODY_MAX))
                for entry in reader.entries(arrival):
                    if (entry.arrival, entry.index) > after:
                        if len(entries) >= limit:
                            return Part(after, entries, Position(entries[-1].arrival, entries[-1].index))
                        entries.append(entry)
            return Part(after, entries, max(after, Position(snapshot.log.last_arrival(), BODY_MAX)))

    def old_among(self, arrivals: Iterable[int], application: str) -> set[int]:
        """Those of some arrivals that a first sync of this application, which still goes on, has brought. Blocks."""
        with self._store.read() as snapshot:
            space = self._store.space(application)
            first = first_sync(snapshot, space)
            if first is None or not first.is_open:
                return set()
            found: set[int] = set()
            for number in arrivals:
                happening = next(iter(snapshot.log.happenings(after_number=number - 1)), None)
                if isinstance(happening, Arrival):
                    head = snapshot.log.header_fields(happening.chain, happening.seq)
                    if first.brought(number, head.hlc):
                        found.add(number)
            return found


class _Reader:
    """Makes entries of what is stored, within one snapshot."""

    def __init__(
        self, snapshot: Snapshot, applications: dict[SpaceId, str], firsts: dict[SpaceId, FirstSync]
    ) -> None:
        """`applications` are those that are asked for."""
        self._snapshot = snapshot
        self._applications = applications
        self._firsts = firsts

    def entries(self, arrival: Arrival | Rejudgement) -> Iterator[FeedEntry]:
        if isinstance(arrival, Rejudgement):
            for index, told in enumerate(arrival.documents):
                application = self._applications.get(told.space)
                if application is not None and not self._is_old(told.space, arrival.number, told.hlc):
                    rejudged = rejudged_entry(told, arrival.number, index, application)
                    if rejudged is not None:
                        yield rejudged
            return
        names, log = self._snapshot.names, self._snapshot.log
        space = names.space_of_chain(arrival.chain)
        application = self._applications.get(space)
        if application is None:
            return
        author, head = names.author(arrival.chain), log.header_fields(arrival.chain, arrival.seq)
        if self._is_old(space, arrival.number, head.hlc):
            return
        for index, change in enumerate(arrival.changes):
            if change is Change.NONE:
                continue
            data = log.body(arrival.chain, arrival.seq, index)
            try:
                body = decode_body(data, author) if data is not None else None
            except ProtocolError:
                body = None
            if body is not None:
                entry = Entry(index, body.model, body.id, Verdict.APPLIED, change, body)
                yield feed_entry(entry, arrival.number, application, author, head.hlc)

    def _is_old(self, space: SpaceId, arrival: int, hlc: int) -> bool:
        first = self._firsts.get(space)
        return first is not None and first.brought(arrival, hlc)
