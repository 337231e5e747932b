"""One change of a document as subscribers see it, at its place in the one feed.

Room: the entries of the order of arrival in words of applications. `integrator` gives them out after each write,
`node.feed` hands them on and makes them anew from the record for who is behind.
"""

from dataclasses import dataclass
from typing import Any

from protocol.body import Kind
from protocol.changes import Record
from protocol.ids import Author
from protocol.integrate import Change, Entry
from storage.arrivals import Rejudged

_SET = Kind.SET.value
_TOUCHING = frozenset({Kind.ADD, Kind.REMOVE, Kind.INCREMENT, Kind.TEXT, Kind.ARRAY})


@dataclass(slots=True)  # not frozen: that would double the time it takes to make one
class FeedEntry:
    """One body's effect, at its place in the one feed: what subscribers of every surface follow."""

    arrival: int
    index: int
    application: str
    model: str
    id: str
    change: Change
    author: Author
    user: str
    hlc: int
    changed: dict[str, Any]  # fields that the body touched: what it set registers to, None for others
    created_by: str | None = None  # of what was judged again: who had created the document
    is_old: bool = False  # of a first sync: subscribers are told `resync` once instead
    record: Record | None = None  # the document as the whole group has left it, where it was made on the way


def feed_entry(
    entry: Entry, arrival: int, application: str, author: Author, hlc: int, *, is_old: bool = False
) -> FeedEntry:
    """The feed's view of one integrated body."""
    changed: dict[str, Any] = {}
    user = ""
    if entry.body is not None:
        user = entry.body.user
        operations = entry.body.operations
        if len(operations) == 1 and operations[0][0] == _SET:  # nearly always; nobody changes what it holds
            changed = operations[0][1]
        else:
            for operation in operations:
                if operation[0] == _SET:
                    changed |= operation[1]
                elif operation[0] in _TOUCHING:
                    changed.setdefault(operation[1])
    return FeedEntry(arrival, entry.index, application, entry.model, entry.id, entry.change, author, user, hlc,
                     changed, is_old=is_old)  # fmt: skip


def rejudged_entry(
    told: Rejudged, arrival: int, index: int, application: str, *, is_old: bool = False
) -> FeedEntry | None:
    """The feed's view of a document that is another one without having been written to."""
    if told.change is Change.NONE:
        return None
    return FeedEntry(arrival, index, application, told.model, told.id, told.change, told.author, "", told.hlc,
                     dict.fromkeys(told.fields), told.created_by, is_old=is_old)  # fmt: skip
