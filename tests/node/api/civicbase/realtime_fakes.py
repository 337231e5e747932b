"""In-memory stand-ins for what the realtime socket reads: a feed, documents, and known tokens.

They keep the promises of `node.feed` and `node.services.records`: writes are stored first and handed on
later, listeners are called in order, reading the record returns whole commits.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from node.api.civicbase.realtime_events import Event, Sources, Watchers
from node.api.civicbase.realtime_messages import EditText
from node.api.civicbase.realtime_outbox import Limits
from node.api.civicbase.realtime_session import Session
from node.api.errors import ApiError, InvalidToken, ValidationFailed
from node.api.routes import Caller
from node.conflict_feed import AnyEntry
from node.feed import BODY_MAX, CursorTooOld, Feed, Part, Position
from node.services.permissions import Permissions
from node.services.records import Rendered
from protocol.clock import ms_of_hlc
from protocol.ids import Author
from protocol.integrate import Change
from protocol.schema import Field, FieldType, Model, model_id
from storage.errors import UnknownModel
from storage.feed_entry import FeedEntry

HERE = bytes(31) + b"\x01"
ELSEWHERE = bytes(31) + b"\x02"
INCARNATION = bytes(8)
APPLICATION = "default"

ANN = Caller("ann", APPLICATION, session_id="ann-1", key="user:ann")
BEN = Caller("ben", APPLICATION, session_id="ben-1", key="user:ben")
ADMIN = Caller("root", APPLICATION, is_admin=True, session_id="root-1", key="user:root")


class FakeFeed(Feed):
    """The real cursors over a record in a list. `write` stores, `publish` hands on; `tell` does both."""

    def __init__(self) -> None:
        self._epoch = "e"
        self._subscribers = []
        self.newest = Position(0, BODY_MAX)
        self.record: list[FeedEntry] = []
        self.unpublished: list[FeedEntry] = []
        self.reads = 0
        self.reaches_back_to = 0  # an arrival

    def cursor_of(self, entry: AnyEntry) -> str:
        return self.cursor(Position(entry.arrival, entry.index))

    def write(self, commit: Sequence[FeedEntry]) -> None:
        self.record += commit
        self.unpublished += commit

    def publish_all(self) -> None:
        entries, self.unpublished = self.unpublished, []
        if entries:
            self.publish(entries)

    def _oldest_reachable(self) -> int:
        return 0  # what a fake holds is never too old by the clock

    def position(self, cursor: str) -> Position:
        return self._in_reach(super().position(cursor))

    def position_at(self, ms: int) -> Position:
        arrivals = [entry.arrival for entry in self.record if ms_of_hlc(entry.hlc) < ms]
        return self._in_reach(Position(max(arrivals, default=0), BODY_MAX))

    def part(
        self, after: Position, *, limit: int, application: str | None = None, over_first_sync: bool = False
    ) -> Part[FeedEntry]:
        self.reads += 1
        self._in_reach(after)
        found = [
            entry
            for entry in self.record
            if (entry.arrival, entry.index) > after and application in (None, entry.application)
        ]
        if len(found) > limit:
            return Part(after, found[:limit], Position(found[limit - 1].arrival, found[limit - 1].index))
        last = max(self.newest.arrival, *(entry.arrival for entry in self.record[-1:]), 0)
        return Part(after, found, max(after, Position(last, BODY_MAX)))

    def old_among(self, arrivals: Iterable[int], application: str) -> set[int]:
        return set()

    def _in_reach(self, position: Position) -> Position:
        if position.arrival < self.reaches_back_to:
            raise CursorTooOld(str(position))
        return position


class FakeDocuments:
    """Models and instances of every application. `renderings` counts how often one was rendered."""

    def __init__(self) -> None:
        self.models: dict[tuple[str, str], Model] = {}
        self.shown: dict[tuple[str, str], Rendered] = {}
        self.creators: dict[tuple[str, str], str] = {}
        self.renderings = 0

    def model(self, application: str, name_or_id: str) -> Model:
        for model in self.models.values():
            if model.application == application and name_or_id in (model.name, model.id):
                return model
        raise UnknownModel(f"There is no data model '{name_or_id}'")

    def rendered(self, model: Model, id: str) -> Rendered | None:
        self.renderings += 1
        return self.shown.get((model.id, id))

    def creator(self, model: Model, id: str) -> str | None:
        return self.creators.get((model.id, id))


class FakeAuthenticator:
    """Tokens that count, and those whose callers have been looked up already."""

    def __init__(self) -> None:
        self.callers: dict[str, Caller] = {"ann": ANN, "ben": BEN, "root": ADMIN}
        self.known: set[str] = set()

    def cached(self, token: str) -> Caller | None:
        return self.callers.get(token) if token in self.known else None

    async def authenticate(self, token: str, application: str | None) -> Caller:
        if token not in self.callers:
            raise InvalidToken
        self.known.add(token)
        return self.callers[token]

    def end(self, token: str) -> None:
        """The token counts no longer."""
        self.known.discard(token)
        self.callers.pop(token, None)


class World:
    """A node's data as the socket sees it."""

    def __init__(self) -> None:
        self.feed = FakeFeed()
        self.documents = FakeDocuments()
        self.permissions = Permissions(lambda: 0)
        self.sources = Sources(self.documents, self.feed, self.permissions, HERE)
        self.watchers: Watchers[Session] = Watchers()
        self.arrival = 0
        self.edits: list[tuple[Caller, EditText]] = []
        self.define("Task")

    async def edit(self, caller: Caller, asked: EditText) -> str:
        """Takes every edit but those of a field `wrong`."""
        if asked.field == "wrong":
            raise ValidationFailed({"wrong": "Unknown field"})
        self.edits.append((caller, asked))
        return f"v{len(self.edits)}"

    def define(self, name: str, application: str = APPLICATION, **permissions: Any) -> Model:
        title = Field(name="title", type=FieldType.STRING)
        count = Field(name="count", type=FieldType.INTEGER)
        fields = {"title": title, "count": count}
        id = model_id(application, name)
        model = Model(id=id, application=application, name=name, fields=fields, permissions=permissions)
        self.documents.models[application, name] = model
        return model

    def forget(self, name: str, application: str = APPLICATION) -> None:
        del self.documents.models[application, name]

    def entry(
        self,
        change: Change,
        model: str,
        id: str,
        *,
        user: str = "ann",
        node: bytes = HERE,
        application: str = APPLICATION,
        index: int = 0,
        **values: Any,
    ) -> FeedEntry:
        """What comes of a change, as the next arrival; the document is changed at once, the feed is not."""
        known = self.documents.models.get((application, model))
        at = (known.id if known is not None else model, id)
        if change is Change.DELETED:
            self.documents.shown.pop(at, None)
        else:
            self._show(at, user, values)
        return FeedEntry(
            self.arrival + 1,
            index,
            application,
            at[0],
            id,
            change,
            Author(node + INCARNATION),
            user,
            0,
            values,
        )

    def _show(self, at: tuple[str, str], user: str, values: Mapping[str, Any]) -> None:
        before = self.documents.shown.get(at)
        creator = self.documents.creators.setdefault(at, user)
        document: dict[str, Any] = {"id": at[1], "title": None, "count": None}
        if before is not None:
            document |= json.loads(before.json)
        document |= values
        document["created_by"] = creator
        document["version"] = f"v{self.arrival + 1}"
        rendered = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
        self.documents.shown[at] = Rendered(rendered, document["version"], creator)

    def commit(self, *entries: FeedEntry) -> list[FeedEntry]:
        """Store entries as one commit."""
        self.feed.write(entries)
        self.arrival += 1
        return list(entries)

    def tell(self, change: Change, model: str, id: str, **details: Any) -> FeedEntry:
        """Make a change, store it and hand it on."""
        entry = self.entry(change, model, id, **details)
        self.commit(entry)
        self.feed.publish_all()
        return entry

    def create(self, model: str, id: str, **details: Any) -> FeedEntry:
        return self.tell(Change.CREATED, model, id, **details)

    def update(self, model: str, id: str, **details: Any) -> FeedEntry:
        return self.tell(Change.UPDATED, model, id, **details)

    def delete(self, model: str, id: str, **details: Any) -> FeedEntry:
        return self.tell(Change.DELETED, model, id, **details)


class Client:
    """A session without a socket: what a driver does with it, by hand."""

    def __init__(self, world: World, caller: Caller | None = ANN, limits: Limits | None = None) -> None:
        self.world = world
        self.now_ms = 0
        self.session = Session(world.sources, world.watchers, caller, now_ms=0, limits=limits)
        self.pending: list[FeedEntry] = []
        world.feed.subscribe(self.on_entries)
        self.delivers_at_once = True

    def on_entries(self, entries: Sequence[FeedEntry]) -> None:
        self.pending += entries
        if self.delivers_at_once:
            self.deliver_pending(len(self.pending))

    def deliver_pending(self, count: int) -> None:
        """Hand over the first of what the feed has told, as a later turn of the loop would."""
        entries, self.pending = self.pending[:count], self.pending[count:]
        for entry in entries:
            if self.session in self.world.watchers.of(entry):
                self.session.deliver(Event(entry, self.world.sources))

    def drop_pending(self) -> None:
        """What a driver does that is told more than it can hand over."""
        for session, entry in self.world.watchers.first_of_each(self.pending).items():
            session.fall_behind(Event(entry, self.world.sources).just_before)
        self.pending.clear()

    def say(self, message: object = None, /, **members: Any) -> list[Any]:
        """Send a message, and hear what is said at once. Raises if a token is to be looked at."""
        self.now_ms += 1_000
        text = message if isinstance(message, str) else json.dumps(members if message is None else message)
        if self.session.receive(text, self.now_ms) is not None:
            raise AssertionError("asks to authenticate")
        return self.hear()

    def hear(self) -> list[Any]:
        """All that waits in the outbox."""
        return [json.loads(b"".join(frame)) for frame in self.session.outbox.take(1 << 40)]

    def read_on(self, limit: int = 2) -> list[Any]:
        """Read the record as long as the session is behind. What it queued meanwhile."""
        heard: list[Any] = []
        while (after := self.session.behind_since) is not None:
            left: Part[AnyEntry] | None = self.world.feed.part(after, limit=limit)
            while left is not None:
                left = self.session.replay(left)
                heard += self.hear()
        return heard


def error_of(heard: list[Any]) -> Any:
    """The one message heard, which is an error."""
    (message,) = heard
    assert "error" in (message.get("type"), message.get("event")), message
    return message


__all__ = [
    "ADMIN",
    "ANN",
    "APPLICATION",
    "BEN",
    "ELSEWHERE",
    "HERE",
    "ApiError",
    "Client",
    "FakeAuthenticator",
    "FakeDocuments",
    "FakeFeed",
    "World",
    "error_of",
]
