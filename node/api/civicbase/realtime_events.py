"""What all realtime sockets share: an entry of the feed as an event, and who wants to hear of it.

Room: one rendering of an entry for everybody, whether a reader may see it, and the index from models to
sessions, so that an entry which nobody watches costs two look-ups. What a client has been sent is
`realtime_session`'s, the shapes are `realtime_messages`'.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, Protocol, TypeVar

from node.api.civicbase.realtime_messages import (
    Conflict,
    Dialect,
    Topic,
    conflict_head,
    cursor_text,
    event_head,
)
from node.api.routes import Caller
from node.conflict_feed import AnyEntry, ConflictEntry
from node.feed import Position
from node.services.permissions import Permissions, Subject
from node.services.records import Rendered
from protocol.ids import node_of
from protocol.integrate import Change
from protocol.schema import Model
from storage.errors import StoreDamaged, UnknownModel
from storage.feed_entry import FeedEntry

Watcher = TypeVar("Watcher")

BREACHES = "$breach_"  # how the id of the model begins whose documents tell users of breaches
# Built-in models whose documents decide what somebody may hear; their ids begin so. Those of the first have the ids of
# models, those of the second that of a user, session or API key.
DECIDE_MODELS = ("$model_", "$role_model_")
DECISIVE = (*DECIDE_MODELS, "$account_", "$role_", "$signout_", "$apikey_")


class Documents(Protocol):
    """What `node.services.records.Records` offers to readers of changes."""

    def model(self, application: str, name_or_id: str) -> Model:
        """Raises `UnknownModel`."""

    def rendered(self, model: Model, id: str) -> Rendered | None:
        """The instance as it stands, None if there is none to show."""

    def creator(self, model: Model, id: str) -> str | None:
        """Who created the instance, be it deleted since."""


class Cursors(Protocol):
    """What a session needs of `node.conflict_feed.ConflictFeed`."""

    @property
    def newest(self) -> Position: ...
    def cursor(self, position: Position | None = None) -> str: ...
    def cursor_of(self, entry: AnyEntry) -> str: ...
    def position(self, cursor: str) -> Position: ...


@dataclass(frozen=True, slots=True)
class Sources:
    """What sessions read from. `node_id` is this node's: changes of other nodes carry their origin.

    `conflict(application, id)` is a conflict as JSON, None if nothing is known of it.
    """

    documents: Documents
    feed: Cursors
    permissions: Permissions
    node_id: bytes
    conflict: Callable[[str, str], Mapping[str, Any] | None] = lambda application, id: None


def why_gone(sources: Sources, caller: Caller, model_id: str, named: str) -> tuple[str, str] | None:
    """Why a caller can follow a model no longer, as an error's code and sentence; None if it can."""
    try:
        model = sources.documents.model(caller.application, model_id)
    except UnknownModel:
        model = None
    if model is None or model.id != model_id:
        return "NOT_FOUND", f"There is no data model '{named}' any more"
    if not sources.permissions.may_ever(caller, model, "read"):
        return "FORBIDDEN", f"You may not read '{named}' any more"
    return None


class Event:
    """One feed entry as clients see it, rendered at most once a dialect, for all who watch it."""

    def __init__(self, entry: AnyEntry, sources: Sources) -> None:
        self.entry = entry
        self.position = Position(entry.arrival, entry.index)
        self._sources = sources
        self._heads: dict[tuple[Dialect, str], bytes] = {}

    @property
    def topic(self) -> Topic:
        """What it is about, as subscriptions select by it."""
        if isinstance(self.entry, ConflictEntry):
            return Conflict.OPEN if self.entry.is_open else Conflict.RESOLVED
        return self.entry.change

    @property
    def just_before(self) -> Position:
        """Where someone stands who has seen everything but this entry and what follows."""
        return Position(self.position.arrival, self.position.body - 1)

    @cached_property
    def model(self) -> Model | None:
        try:
            model = self._sources.documents.model(self.entry.application, self.entry.model)
        except UnknownModel:
            return None
        return model if model.id == self.entry.model else None  # not one that took another's id for a name

    @cached_property
    def subject(self) -> Rendered | Subject | None:
        """What the reader needs the right to, as it stands now; None if there is nothing to show."""
        if self.model is None:
            return None
        documents = self._sources.documents
        try:
            if self.topic is Change.DELETED:
                creator = documents.creator(self.model, self.entry.id)
                if creator is None and isinstance(self.entry, FeedEntry):
                    creator = self.entry.created_by  # nothing is left of it
                return Subject(creator)
            shown = documents.rendered(self.model, self.entry.id)
            if shown is None and self._conflict is not None:  # it may be in conflict for being deleted
                return Subject(documents.creator(self.model, self.entry.id))
            return shown
        except StoreDamaged:
            return None  # reading it by id says so; the other events go on

    @cached_property
    def _conflict(self) -> Mapping[str, Any] | None:
        """The conflict that it is about, if that is still what it was."""
        if not isinstance(self.entry, ConflictEntry):
            return None
        found = self._sources.conflict(self.entry.application, self.entry.conflict)
        return found if found is not None and found["resolved"] is not self.entry.is_open else None

    @cached_property
    def cursor(self) -> bytes:
        return cursor_text(self._sources.feed.cursor_of(self.entry))

    @property
    def origin(self) -> str | None:
        """The node that a change came from, None if that is this one."""
        if isinstance(self.entry, ConflictEntry):
            return None
        node = node_of(self.entry.author)
        return None if node == self._sources.node_id else node.hex()

    def may_be_read_by(self, caller: Caller) -> bool:
        if self.model is None or self.subject is None:
            return False
        if isinstance(self.topic, Conflict) and self._conflict is None:
            return False
        return self._sources.permissions.check(caller, self.model, "read", self.subject)

    def head(self, dialect: Dialect, named: str) -> bytes:
        """The event up to what differs from one subscription to another. Ask only if someone may read it."""
        head = self._heads.get((dialect, named))
        if head is None:
            entry, subject = self.entry, self.subject
            if isinstance(entry, ConflictEntry):
                assert isinstance(self.topic, Conflict) and self._conflict is not None
                head = conflict_head(dialect, self.topic, named, entry.id, self._conflict)
                self._heads[dialect, named] = head
                return head
            document = subject.json if isinstance(subject, Rendered) else None
            head = event_head(dialect, entry.change, named, entry.id, document, entry.changed, self.origin)
            self._heads[dialect, named] = head
        return head


Target = tuple[str, str]  # id of a model, and of an instance or "" for all


class Watchers(Generic[Watcher]):
    """Which sessions want to hear of an entry."""

    def __init__(self) -> None:
        self._by_model: dict[tuple[str, str], dict[str, dict[Watcher, None]]] = {}

    def add(self, watcher: Watcher, application: str, target: Target) -> None:
        model, instance = target
        self._by_model.setdefault((application, model), {}).setdefault(instance, {})[watcher] = None

    def discard(self, watcher: Watcher, application: str, target: Target) -> None:
        model, instance = target
        instances = self._by_model.get((application, model), {})
        watchers = instances.get(instance, {})
        watchers.pop(watcher, None)
        if not watchers:
            instances.pop(instance, None)
        if not instances:
            self._by_model.pop((application, model), None)

    def wants(self, entry: AnyEntry) -> bool:
        instances = self._by_model.get((entry.application, entry.model))
        return instances is not None and ("" in instances or entry.id in instances)

    def of(self, entry: AnyEntry) -> list[Watcher]:
        """In the order of subscribing. A copy: whoever hears of an entry may end a subscription."""
        instances = self._by_model.get((entry.application, entry.model), {})
        return list({**instances.get("", {}), **instances.get(entry.id, {})})

    def first_of_each(self, entries: Iterable[AnyEntry]) -> dict[Watcher, AnyEntry]:
        """For everybody whom some of the entries concern, the first of those."""
        first: dict[Watcher, AnyEntry] = {}
        seen: set[tuple[str, str, str]] = set()
        for entry in entries:
            instances = self._by_model.get((entry.application, entry.model), {})
            for instance in ("", entry.id):
                key = (entry.application, entry.model, instance)
                if key not in seen:
                    seen.add(key)
                    for watcher in instances.get(instance, ()):
                        first.setdefault(watcher, entry)
        return first

    def of_model(self, application: str, model: str) -> list[Watcher]:
        """Those that watch the model or any instance of it."""
        instances = self._by_model.get((application, model), {})
        return list({watcher: None for watchers in instances.values() for watcher in watchers})
