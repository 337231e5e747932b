from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from node.conflict_feed import AnyEntry, ConflictEntry, ConflictFeed
from node.feed import BODY_MAX, Position
from protocol.ids import Author
from protocol.integrate import Change
from storage.changes import Written
from storage.feed_entry import FeedEntry
from storage.index_conflicts import PLACE_DIGITS, ConflictNews, NewsPlace
from tests.node.api.civicbase.realtime_fakes import FakeFeed


class FakeIndex:
    """News of conflicts, read as the index's own query does."""

    def __init__(self) -> None:
        self.news: list[ConflictNews] = []

    def conflict_news(self, after: NewsPlace, upto: int, *, limit: int) -> list[ConflictNews]:
        placed = sorted((NewsPlace(n.arrival, n.is_open, n.id[:PLACE_DIGITS]), n.id, n) for n in self.news)
        return [n for place, _, n in placed if place > after and n.arrival <= upto][:limit]


def entry(arrival: int, index: int) -> FeedEntry:
    return FeedEntry(
        arrival, index, "default", "task", "one", Change.UPDATED, Author(bytes(40)), "ann", 0, {}
    )


def news(arrival: int, number: int, is_open: bool = True) -> ConflictNews:
    return ConflictNews(f"{number:032x}"[::-1], "default", "task", "one", arrival, is_open)


def feeds() -> tuple[ConflictFeed, FakeFeed, FakeIndex]:
    feed, index = FakeFeed(), FakeIndex()
    return ConflictFeed(feed, index), feed, index  # type: ignore[arg-type]


def place(found: AnyEntry) -> Position:
    return Position(found.arrival, found.index)


def test_news_are_told_after_the_entries_of_their_arrival_and_read_again_in_the_same_places() -> None:
    both, feed, index = feeds()
    heard: list[AnyEntry] = []
    end = both.subscribe(heard.extend)
    feed.write([entry(1, 0), entry(1, 9_999)])
    feed.publish_all()
    index.news = [news(1, 7), news(1, 3, False), news(1, 5)]
    both.publish(Written([], conflicts=index.news))
    assert [place(e) for e in heard] == sorted(place(e) for e in heard)
    assert both.part(Position(0, 0), limit=10).entries == heard
    assert both.newest == place(heard[-1])
    for number, told in enumerate(heard):
        cursor = both.cursor_of(told)
        assert both.part(both.position(cursor), limit=10).entries == heard[number + 1 :]
    end()
    both.publish(Written([], conflicts=[news(2, 1)]))
    feed.write([entry(2, 0)])
    feed.publish_all()
    assert len(heard) == 5


def test_who_comes_back_after_a_restart_is_told_what_was_told_before_it() -> None:
    feed, index = FakeFeed(), FakeIndex()
    feed.record = [entry(1, 0)]
    feed.newest = Position(1, BODY_MAX)
    index.news = [news(1, 7)]
    both = ConflictFeed(feed, index)  # type: ignore[arg-type]
    (told,) = both.part(Position(1, 0), limit=10).entries
    assert isinstance(told, ConflictEntry) and place(told) <= both.newest
    assert both.part(both.newest, limit=10).entries == []


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(0, 3)), unique=True),
    st.lists(st.tuples(st.integers(1, 4), st.integers(0, 10**12), st.booleans()), unique_by=lambda n: n[1]),
    st.integers(1, 4),
)
def test_reading_a_few_at_a_time_misses_nothing_and_repeats_nothing(
    bodies: list[Any], told: list[Any], limit: int
) -> None:
    both, feed, index = feeds()
    feed.record = [entry(*at) for at in sorted(bodies)]
    feed.newest = Position(4, BODY_MAX)
    index.news = [news(*n) for n in told]
    whole = both.part(Position(0, 0), limit=1_000).entries
    assert len(whole) == len(bodies) + len(told)
    read: list[AnyEntry] = []
    position = Position(0, 0)
    while whole and position < place(whole[-1]):
        part = both.part(position, limit=limit)
        assert len(part.entries) <= limit and position < part.reach
        assert not part.entries or place(part.entries[-1]) <= part.reach
        read += part.entries
        position = part.reach
    assert read == whole


def test_news_of_what_is_stored_but_not_handed_on_are_left_for_the_next_part() -> None:
    """The index may not know them yet."""
    both, feed, index = feeds()
    feed.write([entry(1, 0)])
    feed.publish_all()
    feed.write([entry(2, 0)])
    part = both.part(Position(0, 0), limit=10)
    assert part.reach.arrival == 1
    index.news = [news(2, 1)]
    feed.publish_all()
    both.publish(Written([], conflicts=index.news))
    assert [place(e).arrival for e in both.part(part.reach, limit=10).entries] == [2, 2]


def test_conflicts_that_a_first_sync_brings_are_no_news() -> None:
    both, feed, index = feeds()
    index.news = [news(1, 5), news(2, 7)]
    heard: list[AnyEntry] = []
    both.subscribe(heard.extend)
    old = replace(entry(1, 0), is_old=True)
    feed.write([old, entry(2, 0)])
    feed.publish_all()
    both.publish(Written([], [old, entry(2, 0)], index.news))
    assert [place(e).arrival for e in heard] == [2, 2]
    feed.old_among = lambda arrivals, application: {1} & set(arrivals)  # type: ignore[method-assign]
    read = both.part(Position(1, 0), limit=10, application="default").entries
    assert [place(e).arrival for e in read] == [2, 2]
