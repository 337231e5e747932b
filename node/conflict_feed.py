"""The feed with news of conflicts in it: for surfaces that tell their clients of them.

Room: places news between the feed's entries, live and from the record. What has become of a conflict is known
after a whole arrival, so its news come after all entries of that. Cursors are the feed's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from node.feed import BODY_MAX, Feed, Part, Position
from storage.changes import Written
from storage.feed_entry import FeedEntry
from storage.index import Index
from storage.index_conflicts import PLACE_DIGITS, ConflictNews, NewsPlace

# News stand behind everything that an arrival can hold, each at a place that follows from the conflict, so that
# it is the same whenever the news are read: 40 bits of its id, those that have ended first.
_FIRST_INDEX = 1 << 48
_OPEN = 1 << 40
_LAST_INDEX = 1 << 49


@dataclass(frozen=True, slots=True)
class ConflictEntry:
    """A conflict of a document has appeared, or has ended, at its place in the feed."""

    arrival: int
    index: int
    application: str
    model: str
    id: str
    conflict: str
    is_open: bool
    is_old: ClassVar[bool] = False

    @classmethod
    def of(cls, news: ConflictNews) -> "ConflictEntry":
        index = _FIRST_INDEX + int(news.id[:PLACE_DIGITS], 16) + _OPEN * news.is_open
        return cls(
            news.arrival, index, news.application, news.model_id, news.instance_id, news.id, news.is_open
        )


AnyEntry = FeedEntry | ConflictEntry
Listener = Callable[[Sequence[AnyEntry]], None]


class ConflictFeed:
    """`node.feed.Feed` as far as followers need it, with more entries. On the loop, but for `part`."""

    def __init__(self, feed: Feed, index: Index) -> None:
        self._feed = feed
        self._index = index
        self._listeners: list[Listener] = []
        self._newest = Position(feed.newest.arrival, _LAST_INDEX)  # of the news that were handed on

    def subscribe(
        self,
        listener: Listener,
        *,
        on_caught_up: Callable[[str], None] = lambda application: None,
        with_old: bool = False,
    ) -> Callable[[], None]:
        """Call `listener` with every group of entries from now on; the rest as for `Feed.subscribe`."""
        self._listeners.append(listener)
        end = self._feed.subscribe(listener, on_caught_up=on_caught_up, with_old=with_old)

        def unsubscribe() -> None:
            end()
            if listener in self._listeners:
                self._listeners.remove(listener)

        return unsubscribe

    def publish(self, written: Written) -> None:
        """Hand on what has become of conflicts, after the entries of the same arrivals.

        What a first sync has brought is no news.
        """
        old = {entry.arrival for entry in written.entries if entry.is_old}
        entries = sorted((ConflictEntry.of(news) for news in written.conflicts), key=_place)
        self._newest = max(self._newest, _place(entries[-1]))
        entries = [entry for entry in entries if entry.arrival not in old]
        for listener in list(self._listeners) if entries else ():
            listener(entries)

    @property
    def newest(self) -> Position:
        return max(self._feed.newest, self._newest)

    def cursor(self, position: Position | None = None) -> str:
        """The cursor of a position; of the newest entry if none is given."""
        return self._feed.cursor(position or self.newest)

    def cursor_of(self, entry: AnyEntry) -> str:
        return self._feed.cursor(_place(entry))

    def position(self, cursor: str) -> Position:
        """The position of a cursor. Raises `CursorTooOld`."""
        return self._feed.position(cursor)

    def position_at(self, ms: int) -> Position:
        """As `Feed.position_at`. Raises `CursorTooOld`."""
        return self._feed.position_at(ms)

    def part(self, after: Position, *, limit: int, application: str | None = None) -> Part[AnyEntry]:
        """As `Feed.part`, with news of conflicts. Blocks. Raises `CursorTooOld`."""
        newest = self._feed.newest.arrival  # the index has all news up to here
        part = self._feed.part(after, limit=limit, application=application)
        reach = part.reach
        if reach.body >= BODY_MAX:  # the end of an arrival, and news come after that
            reach = Position(min(reach.arrival, newest), _LAST_INDEX)
        news = self._index.conflict_news(_news_place(after), reach.arrival, limit=limit + 1)
        entries = [entry for entry in part.entries if (entry.arrival, entry.index) <= reach]
        placed = (ConflictEntry.of(each) for each in news)
        wanted = [e for e in placed if _place(e) <= reach and application in (None, e.application)]
        if wanted and application is not None:
            old = self._feed.old_among(sorted({entry.arrival for entry in wanted}), application)
            wanted = [entry for entry in wanted if entry.arrival not in old]
        both: list[AnyEntry] = sorted([*entries, *wanted], key=_place)
        if len(news) > limit:  # of what follows the last of them nothing is known
            last = _place(ConflictEntry.of(news[-1]))
            both, reach = [entry for entry in both if _place(entry) <= last], min(reach, last)
        if len(both) > limit:
            both, reach = both[:limit], _place(both[limit - 1])
        return Part(after, both, max(reach, after))


def _place(entry: AnyEntry) -> Position:
    return Position(entry.arrival, entry.index)


def _news_place(position: Position) -> NewsPlace:
    """Which news come after a position."""
    place = position.body - _FIRST_INDEX
    if place < 0:
        return NewsPlace(position.arrival, False, "")
    if place >= 2 * _OPEN:
        return NewsPlace(position.arrival + 1, False, "")
    return NewsPlace(position.arrival, place >= _OPEN, f"{place % _OPEN:0{PLACE_DIGITS}x}")
