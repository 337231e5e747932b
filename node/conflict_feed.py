"""The feed with news of conflicts in it: for surfaces that tell their clients of them.

Room: places news between the feed's entries, live and from the record. What has become of a conflict is known
after a whole arrival, so its news come after all entries of that. Cursors are the feed's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from node.feed import Feed, Position
from storage.index import Index
from storage.index_conflicts import PLACE_DIGITS, ConflictNews, NewsPlace
from storage.integrator import FeedEntry

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

    @classmethod
    def of(cls, news: ConflictNews) -> "ConflictEntry":
        index = _FIRST_INDEX + int(news.id[:PLACE_DIGITS], 16) + _OPEN * news.is_open
        return cls(
            news.arrival, index, news.application, news.model_id, news.instance_id, news.id, news.is_open
        )


AnyEntry = FeedEntry | ConflictEntry
Listener = Callable[[Sequence[AnyEntry]], None]


class ConflictFeed:
    """`node.feed.Feed` as far as followers need it, with more entries. On the loop, but for `since`."""

    def __init__(self, feed: Feed, index: Index) -> None:
        self._feed = feed
        self._index = index
        self._listeners: list[Listener] = []
        self._newest = Position(feed.newest.arrival, _LAST_INDEX)  # of the news that were handed on

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` with every group of entries from now on. Returns how to end it."""
        self._listeners.append(listener)
        end = self._feed.subscribe(listener)

        def unsubscribe() -> None:
            end()
            if listener in self._listeners:
                self._listeners.remove(listener)

        return unsubscribe

    def publish(self, news: Sequence[ConflictNews]) -> None:
        """Hand on what has become of conflicts, after the entries of the same arrivals."""
        entries = sorted(map(ConflictEntry.of, news), key=_place)
        self._newest = max(self._newest, _place(entries[-1]))
        for listener in list(self._listeners):
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

    def since(self, position: Position, *, limit: int) -> list[AnyEntry]:
        """Up to `limit` entries after a position. Blocks while reading."""
        newest = self._feed.newest.arrival
        entries = self._feed.since(position, limit=limit)
        upto = entries[-1].arrival if len(entries) >= limit else max(newest, position.arrival)
        news = self._index.conflict_news(_news_place(position), upto, limit=limit)
        both: list[AnyEntry] = [*entries, *map(ConflictEntry.of, news)]
        return sorted(both, key=_place)[:limit]


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
