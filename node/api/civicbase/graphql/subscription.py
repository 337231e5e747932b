"""Subscriptions: changes of the records of a model, as a document selects them.

Room: what a subscription asks for, and each event of the feed as its answer. Following the feed, cursors and rights
are `following`'s and `streaming`'s, for this surface as for the others.

A filter holds for the record as it is after the change. One that met it before and does not any more is told as well,
so that a list which is kept up to date can let go of it: whenever a field that the filter asks about was set.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from node.api.civicbase.following import Follower
from node.api.civicbase.graphql.schema import RecordType
from node.api.civicbase.graphql.selection import NULL, Collected, Reader, Selection, compile_selection
from node.api.civicbase.realtime_events import Event, Sources
from node.api.civicbase.realtime_messages import cursor_text
from node.api.routes import Caller
from node.conflict_feed import ConflictEntry
from node.feed import Position
from node.services.records import Rendered
from protocol.changes import Record
from protocol.integrate import Change
from protocol.query_filter import Filter
from storage.errors import UnknownModel

_EVENTS = {Change.CREATED: "CREATED", Change.UPDATED: "UPDATED", Change.DELETED: "DELETED"}
_ALWAYS_SET = frozenset({"updated_at"})
_encode = msgspec.json.Encoder().encode


class ChangeSelection:
    """What is selected of a `…Change`."""

    def __init__(
        self,
        type: RecordType,
        collected: Collected,
        collect: Callable[[RecordType, Sequence[Any]], Collected],
    ) -> None:
        self._type = type
        self._parts: list[tuple[bytes, str, Selection | None]] = []
        for response_name, details in collected.items():
            name = details[0].node.name.value
            below = compile_selection(type, collect(type, details), collect) if name == "record" else None
            self._parts.append((_encode(response_name), name, below))

    def render(self, values: Mapping[str, bytes], document: Rendered | None, reader: Reader) -> bytes:
        """`values` are the members beside `record`, as JSON; those left out are null."""
        typename = _encode(f"{self._type.names.type}Change")
        pieces = []
        for key, name, below in self._parts:
            if below is not None:
                value = NULL if document is None else below.render([document], reader)[0]
            else:
                value = typename if name == "__typename" else values.get(name, NULL)
            pieces.append(b"%b:%b" % (key, value))
        return b"{%b}" % b",".join(pieces)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a subscription asks for. `response_name` is that of its one root field."""

    type: RecordType
    response_name: str
    selection: ChangeSelection
    id: str | None = None
    events: frozenset[str] | None = None
    filter: Filter | None = None
    cursor: str | None = None
    asked_about: frozenset[str] = field(default=frozenset())  # fields that the filter asks about

    def answer(self, change: bytes) -> bytes:
        return b'{"data":{%b:%b}}' % (_encode(self.response_name), change)


class ChangeFollower(Follower):
    """One subscription at its place in the feed."""

    def __init__(
        self,
        sources: Sources,
        caller: Caller,
        wanted: Wanted,
        position: Position,
        reader_of: Callable[[Caller], Reader],
        record_of: Callable[[RecordType, str], Record | None],
    ) -> None:
        model = wanted.type.model
        super().__init__(sources, caller, {model.id: model.name}, position, with_conflicts=False)
        self.wanted = wanted
        self._reader_of = reader_of
        self._record_of = record_of

    def want(self, wanted: Wanted) -> None:
        """The same as before, in the schema as it is now. Raises `UnknownModel` if that means another model."""
        if wanted.type.model.id != self.wanted.type.model.id:
            raise UnknownModel(f"There is no data model '{self.wanted.type.model.name}' any more")
        self.wanted = wanted

    def say(self, event: Event, previous: bytes) -> bytes | None:
        entry, wanted = event.entry, self.wanted
        if isinstance(entry, ConflictEntry) or (wanted.id is not None and entry.id != wanted.id):
            return None
        name = _EVENTS[entry.change]
        if wanted.events is not None and name not in wanted.events:
            return None
        reader = self._reader_of(self.caller)
        document = reader.opened(wanted.type, event.subject) if isinstance(event.subject, Rendered) else None
        matches = None if document is None else self._matches(entry.id)
        is_set = not entry.changed or not wanted.asked_about.isdisjoint({*entry.changed, *_ALWAYS_SET})
        if matches is False and not is_set:
            return None  # it did not meet the filter before either
        values = {
            "event": _encode(name),
            "id": _encode(entry.id),
            "changed": _encode(list(entry.changed)),
            "matches": _encode(matches),
            "origin": _encode(event.origin),
            "cursor": event.cursor,
            "previous": previous,
        }
        return wanted.answer(wanted.selection.render(values, document, reader))

    def say_anew(self, cursor: str) -> bytes:
        """What was missed is to be read anew."""
        at = cursor_text(cursor)
        values = {"event": b'"RESYNC"', "cursor": at, "previous": at}
        return self.wanted.answer(self.wanted.selection.render(values, None, self._reader_of(self.caller)))

    def _matches(self, id: str) -> bool:
        filter = self.wanted.filter
        if filter is None:
            return True
        record = self._record_of(self.wanted.type, id)
        return record is not None and filter.matches(_filtered(record))


def _filtered(record: Record) -> dict[str, Any]:
    """A record as filters look at it."""
    return {
        **record.values,
        "id": record.id,
        "created_at": record.created_at_ms,
        "updated_at": record.updated_at_ms,
        "created_by": record.created_by,
    }
