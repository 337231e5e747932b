"""The one feed: every change that was integrated here, in one order, with one cursor.

Room: cursors, live distribution and catching up from the record. Entries come
from storage in the order of arrival; this module only hands them on. A cursor
is opaque to applications: `<epoch>.<arrival>.<index>`. One that is of another
epoch, or too far back, is answered by exactly one `resync`.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from itertools import islice
from typing import NamedTuple

from protocol.body import decode_body
from protocol.errors import ProtocolError
from protocol.integrate import Change, Entry, Verdict
from storage.integrator import FeedEntry, feed_entry, rejudged_entry
from storage.log import Rejudgement
from storage.store import Store

ARRIVALS_KEPT_MAX = 1_000_000  # how far back a cursor may lie (CONTRACT, "One cursor")
Listener = Callable[[Sequence[FeedEntry]], None]


class Position(NamedTuple):
    """A place in the order of arrival: after the body `index` of an arrival."""

    arrival: int
    body: int


class CursorTooOld(Exception):
    """The cursor is of another life of the store, or further back than the feed reaches: resync."""


class Feed:
    """Subscribers are called on the loop, in the order in which they subscribed."""

    def __init__(self, store: Store) -> None:
        assert store.identity is not None
        self._store = store
        self._epoch = store.identity.epoch
        self._listeners: list[Listener] = []
        with store.read() as snapshot:
            self.newest = Position(snapshot.log.last_arrival(), 1 << 16)

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` with every group of entries from now on. Returns how to end it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    def publish(self, entries: Sequence[FeedEntry]) -> None:
        """Hand on what was just stored."""
        self.newest = Position(entries[-1].arrival, entries[-1].index)
        for listener in list(self._listeners):
            listener(entries)

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
        if (
            position.arrival > self.newest.arrival
            or position.arrival < self.newest.arrival - ARRIVALS_KEPT_MAX
        ):
            raise CursorTooOld(cursor)
        return position

    def since(self, position: Position, *, limit: int) -> list[FeedEntry]:
        """Up to `limit` entries after a position; the last commit may be cut. Blocks while reading."""
        with closing(self._entries(position)) as entries:
            return list(islice(entries, limit))

    def _entries(self, position: Position) -> Generator[FeedEntry, None, None]:
        with self._store.read() as snapshot:
            applications = {self._store.space(name): name for name in snapshot.applications()}
            for arrival in snapshot.log.happenings(after_number=max(position.arrival - 1, 0)):
                if isinstance(arrival, Rejudgement):
                    for index, told in enumerate(arrival.documents):
                        application = applications.get(told.space)
                        if application is not None and (arrival.number, index) > position:
                            rejudged = rejudged_entry(told, arrival.number, index, application)
                            if rejudged is not None:
                                yield rejudged
                    continue
                space = self._store.names.space_of_chain(arrival.chain)
                application = applications.get(space)
                if application is None:
                    continue
                author = self._store.names.author(arrival.chain)
                head = snapshot.log.header_fields(arrival.chain, arrival.seq)
                for index, change in enumerate(arrival.changes):
                    if change is Change.NONE or (arrival.number, index) <= position:
                        continue
                    data = snapshot.log.body(arrival.chain, arrival.seq, index)
                    try:
                        body = decode_body(data, author) if data is not None else None
                    except ProtocolError:
                        body = None
                    if body is not None:
                        entry = Entry(index, body.model, body.id, Verdict.APPLIED, change, body)
                        yield feed_entry(entry, arrival.number, application, author, head.hlc)
