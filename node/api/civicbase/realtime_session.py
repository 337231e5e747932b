"""One client of the realtime socket: messages and feed entries in, replies and events out.

Room: what is subscribed, who may see what, and that nothing is missed. No socket and no clock: `realtime`
carries the bytes, `realtime_messages` knows their shapes. Entries reach a subscription by one of two ways.
**Live**: the feed hands them on as they are stored. **Behind**: the driver reads them from the record, from
the oldest place where a subscription stands, a part at a time. A subscription is behind after a `subscribe`
with a cursor, when the client takes less than it is sent, and while its token is looked at again. It counts
entries by their position, so it goes from one way to the other without gap or repetition.

    subscribe ──no cursor──────────────► live ──queue full, token in doubt──► behind
        └──────cursor──► behind ──position has reached the newest──► live

Every event names its `cursor` and the `previous` one of its subscription, so that a client sees a gap.
"""

from collections.abc import Iterable, Mapping
from itertools import islice
from math import ceil
from typing import Any, NamedTuple

from node.api.civicbase.realtime_events import Event, Sources, Target, Watchers, why_gone
from node.api.civicbase.realtime_messages import (
    FAULTS_MAX,
    Authenticate,
    Dialect,
    EditText,
    MessageRefused,
    Subscribe,
    Unsubscribe,
    cursor_text,
    edited_reply,
    error_reply,
    event_tail,
    names_of,
    read_message,
    reply,
)
from node.api.civicbase.realtime_outbox import Limits, Outbox, Pace
from node.api.errors import ApiError
from node.api.routes import Caller
from node.conflict_feed import AnyEntry
from node.feed import CursorTooOld, Part, Position
from storage.errors import UnknownModel

NOT_WELCOME = 4401  # a close code of the range for applications (RFC 6455, 7.4.2), after HTTP's 401


class Close(NamedTuple):
    """How the socket is to be closed, once the outbox is empty."""

    code: int
    reason: str


class _Subscription:
    """What one `subscribe` asked for, and how far it has got."""

    __slots__ = ("dialect", "instance", "is_live", "named", "number", "position", "sent", "topics")

    def __init__(
        self, number: int, request: Subscribe, named: dict[Target, str], position: Position, cursor: str
    ) -> None:
        self.number = number
        self.dialect = request.dialect
        self.instance = request.instance
        self.topics = request.topics
        self.named = named  # models as the subscriber named them
        self.position = position  # nothing up to here is to be sent (again)
        self.sent = cursor_text(cursor)  # the cursor sent last
        self.is_live = False

    def about(self, cursor: str) -> dict[str, Any]:
        """The members of a reply that say which subscription it is, and where it stands."""
        about = names_of(self.dialect, tuple(self.named.values()), self.instance)
        return about | {"subscription": self.number, "cursor": cursor}


class Session:
    """Inputs are messages, their verdicts and deadlines, entries live and read, and changes of rights.

    After any input look at `outbox`, `close` and `is_behind`.
    """

    def __init__(
        self,
        sources: Sources,
        watchers: "Watchers[Session]",
        caller: Caller | None,
        *,
        now_ms: int,
        limits: Limits | None = None,
    ) -> None:
        """`caller` is None until someone has signed in."""
        self._sources = sources
        self._watchers = watchers
        self._limits = limits or Limits()
        self.caller = caller
        self.outbox = Outbox(self._limits)
        self.close: Close | None = None
        self.deadline_ms = None if caller is not None else now_ms + self._limits.authenticate_within_ms
        self._dialect = Dialect.TYPE  # the one spoken last
        self._subscriptions = 0  # how many there have been
        self._targets: dict[Target, dict[Dialect, _Subscription]] = {}
        self._behind: dict[_Subscription, None] = {}
        self._pace = Pace(self._limits.messages_per_s_max, now_ms)

    # -- messages ------------------------------------------------------------------------------------------

    def receive(self, text: str, now_ms: int) -> Authenticate | EditText | None:
        """Follow a message. What it cannot do itself is handed back: a token, after which `authenticated` or
        `not_authenticated` follows, or an edit, after which `edited` or `not_edited` does.
        """
        if self.close is not None or self._is_too_often(now_ms):
            return None
        try:
            message = read_message(text)
            self._dialect = message.dialect
            if isinstance(message, Authenticate):
                return message
            if self.caller is None:
                raise MessageRefused(message.dialect, "UNAUTHORIZED", "Authenticate first")
            if isinstance(message, EditText):
                return message
            if isinstance(message, Subscribe):
                self._subscribe(message, self.caller)
            else:
                self._unsubscribe(message, self.caller)
        except MessageRefused as refusal:
            self._tell_error(refusal.dialect or self._dialect, refusal.message, refusal.code, refusal.details)
        return None

    def receive_binary(self, now_ms: int) -> None:
        """A message that is not text."""
        if self.close is None and not self._is_too_often(now_ms):
            self._tell_error(self._dialect, "Messages are JSON in text frames", "BAD_REQUEST")

    def authenticated(self, caller: Caller, asked: Authenticate) -> bool:
        """The token is good. Returns whether it counts: a socket stays with the user it began with."""
        if self.close is not None:
            return False
        before = self.caller
        if asked.application is not None and asked.application != caller.application:
            self.not_authenticated(None, asked)
            return False
        if before is not None and (before.user_id, before.application) != (
            caller.user_id,
            caller.application,
        ):
            self._tell_error(asked.dialect, "This socket is another user's: open one more", "CONFLICT")
            return False
        self.deadline_ms = None
        self.outbox.put(reply(asked.dialect, "authenticated", {"user_id": caller.user_id}))
        self.refresh(caller)
        return True

    def not_authenticated(self, error: ApiError | None, asked: Authenticate) -> None:
        """The token is not good. Who was signed in before stays so; anybody else is sent away."""
        message = "Invalid authentication token provided" if error is None else error.message
        code = "AUTH_INVALID_TOKEN" if error is None else error.code
        self._tell_error(asked.dialect, message, code)
        if self.caller is None:
            self.end(NOT_WELCOME, "not authenticated")

    def edited(self, asked: EditText, version: str) -> None:
        """The edit is stored."""
        self.outbox.put(edited_reply(asked, version))

    def not_edited(self, asked: EditText, error: ApiError) -> None:
        """Nothing of the edit was done."""
        self.outbox.put(error_reply(asked.dialect, error.message, error.code, error.details, ref=asked.ref))

    def refresh(self, caller: Caller) -> None:
        """The same user, as the node knows it now."""
        if caller != self.caller:
            self.caller = caller
            self.review()

    def on_deadline(self) -> None:
        """The time to authenticate is over."""
        if self.caller is None and self.close is None:
            seconds = self._limits.authenticate_within_ms // 1000
            self._tell_error(self._dialect, f"Authenticate within {seconds} s of connecting", "UNAUTHORIZED")
            self.end(NOT_WELCOME, "not authenticated")

    def tell(self, kind: str, members: Mapping[str, object]) -> None:
        """Something that concerns the user, whatever is subscribed. Programs with a key are not told."""
        if self.close is None and self.caller is not None and self.caller.scopes is None:
            self.outbox.put(reply(self._dialect, kind, members))

    def sign_out(self, message: str) -> None:
        """The token counts no longer."""
        if self.close is None:
            self._tell_error(self._dialect, message, "AUTH_INVALID_TOKEN")
            self.end(NOT_WELCOME, "the token counts no longer")

    def end(self, code: int, reason: str) -> None:
        """Close the socket after what waits already, and hear of nothing any more."""
        if self.close is None:
            self.close = Close(code, reason)
        self.leave()

    def cut_off(self, code: int, reason: str) -> None:
        """Close the socket without what waits."""
        self.outbox.clear()
        self.end(code, reason)

    def leave(self) -> None:
        """End every subscription without a word."""
        if self.caller is not None:
            for target in self._targets:
                self._watchers.discard(self, self.caller.application, target)
        self._targets.clear()
        self._behind.clear()

    def _is_too_often(self, now_ms: int) -> bool:
        wait_s = ceil(self._pace.wait_ms(now_ms) / 1000)
        if not wait_s:
            return False
        code = "RATE_LIMIT_EXCEEDED"
        self.outbox.put(error_reply(self._dialect, "Rate limit exceeded", code, retry_after_s=wait_s))
        if wait_s > self._limits.messages_ahead_max_s:
            self.end(1008, "too many messages")
        return True

    def _tell_error(
        self, dialect: Dialect, message: str, code: str, details: Mapping[str, str] | None = None
    ) -> None:
        self.outbox.put(error_reply(dialect, message, code, details))

    # -- subscriptions -------------------------------------------------------------------------------------

    def _subscribe(self, request: Subscribe, caller: Caller) -> None:
        dialect, feed = request.dialect, self._sources.feed
        named = self._resolve(request, caller)
        count = sum(map(len, self._targets.values()))
        count += sum(dialect not in self._targets.get(target, ()) for target in named)
        if count > self._limits.subscriptions_max:
            most = self._limits.subscriptions_max
            raise MessageRefused(dialect, "LIMIT_EXCEEDED", f"A socket takes {most} subscriptions at most")
        position, is_resumed = feed.newest, False
        if request.cursor is not None:
            try:
                position, is_resumed = feed.position(request.cursor), True
            except CursorTooOld:
                pass
        cursor = feed.cursor(position)
        self._subscriptions += 1
        subscription = _Subscription(self._subscriptions, request, named, position, cursor)
        for target in named:
            self._drop(target, dialect, caller.application)  # the newer request counts
            if target not in self._targets:
                self._watchers.add(self, caller.application, target)
            self._targets.setdefault(target, {})[dialect] = subscription
        about = subscription.about(cursor)
        self.outbox.put(reply(dialect, "subscribed", about))
        if request.cursor is not None and not is_resumed:
            self.outbox.put(reply(dialect, "resync", about))
        self._place(subscription)

    def _resolve(self, request: Subscribe, caller: Caller) -> dict[Target, str]:
        """The targets of a request, as it names them. Raises `MessageRefused` naming every fault."""
        named: dict[Target, str] = {}
        faults: dict[str, tuple[str, str]] = {}
        for number, name in enumerate(request.models):
            where = "model" if request.dialect is Dialect.ACTION else f"models[{number}]"
            try:
                model = self._sources.documents.model(caller.application, name)
            except UnknownModel as error:
                faults[where] = ("NOT_FOUND", str(error))
                continue
            if self._sources.permissions.may_ever(caller, model, "read"):
                named.setdefault((model.id, request.instance or ""), name)
            else:
                faults[where] = ("FORBIDDEN", f"You may not read '{name}'")
        if faults:
            codes = {code for code, _ in faults.values()}
            messages = {message for _, message in faults.values()}
            raise MessageRefused(
                request.dialect,
                codes.pop() if len(codes) == 1 else "BAD_REQUEST",
                messages.pop() if len(messages) == 1 else "Not all of these models can be watched",
                {where: message for where, (_, message) in islice(faults.items(), FAULTS_MAX)},
            )
        return named

    def _unsubscribe(self, request: Unsubscribe, caller: Caller) -> None:
        """End what is meant by it. That nothing was is no fault: the client has what it wants."""
        dialect = request.dialect
        models = None if request.models is None else frozenset(request.models)
        for target in list(self._targets):
            subscription = self._targets[target].get(dialect)
            if subscription is None or (request.instance is not None and target[1] != request.instance):
                continue
            named = subscription.named[target]
            if models is None or self._is_meant(target[0], named, models, caller):
                self._drop(target, dialect, caller.application)
        about = names_of(dialect, request.models, request.instance) if request.models is not None else {}
        self.outbox.put(reply(dialect, "unsubscribed", about))

    def _is_meant(self, model_id: str, named: str, models: frozenset[str], caller: Caller) -> bool:
        if named in models or model_id in models:
            return True
        try:
            return self._sources.documents.model(caller.application, model_id).name in models
        except UnknownModel:
            return False

    def _drop(self, target: Target, dialect: Dialect, application: str) -> None:
        by_dialect = self._targets.get(target, {})
        subscription = by_dialect.pop(dialect, None)
        if subscription is None:
            return
        del subscription.named[target]
        if not subscription.named:
            self._behind.pop(subscription, None)
        if not by_dialect:
            del self._targets[target]
            self._watchers.discard(self, application, target)

    def review(self, model_id: str | None = None) -> None:
        """The caller's rights, or a model, have changed: end what may be read no longer, and say so."""
        if self.caller is None or self.close is not None:
            return
        lost: dict[tuple[Dialect, str, str], dict[str, str]] = {}
        for target in list(self._targets):
            if model_id is not None and target[0] != model_id:
                continue
            for dialect, subscription in list(self._targets[target].items()):
                named = subscription.named[target]
                if (why := why_gone(self._sources, self.caller, target[0], named)) is not None:
                    self._drop(target, dialect, self.caller.application)
                    lost.setdefault((dialect, *why), {})[named] = why[1]
        for (dialect, code, reason), details in lost.items():
            self._tell_error(dialect, reason, code, details)

    # -- events --------------------------------------------------------------------------------------------

    def deliver(self, event: Event) -> None:
        """An entry that was just stored, in the order of the feed."""
        position = event.position
        for subscription, named in self._concerned(event.entry):
            if subscription.is_live and position > subscription.position:
                if self.outbox.is_full:
                    self._fall_behind(subscription, event.just_before)
                else:
                    self._send(subscription, named, event)

    def fall_behind(self, position: Position) -> None:
        """What comes after `position` is not handed over live: everything is to be read from the record."""
        for by_dialect in self._targets.values():
            for subscription in by_dialect.values():
                if subscription.is_live:
                    self._fall_behind(subscription, position)

    @property
    def is_behind(self) -> bool:
        return bool(self._behind)

    @property
    def behind_since(self) -> Position | None:
        """Where to read on from: the part read goes to `replay`."""
        return min((subscription.position for subscription in self._behind), default=None)

    def replay(self, part: Part[AnyEntry]) -> Part[AnyEntry] | None:
        """What was read from the record. Returns what is left of it once the queue has taken enough."""
        newest = self._sources.feed.newest
        taking = [subscription for subscription in self._behind if subscription.position >= part.after]
        for number, entry in enumerate(part.entries):
            if (entry.arrival, entry.index) > newest:
                break  # stored, but not handed on yet: it comes live, or by the next part
            concerned = [pair for pair in self._concerned(entry) if not pair[0].is_live]
            if not concerned:
                continue
            event = Event(entry, self._sources)
            if self.outbox.is_ahead:
                self._advance(taking, event.just_before)
                return Part(event.just_before, part.entries[number:], part.reach)
            for subscription, named in concerned:
                if part.after <= subscription.position < event.position:
                    self._send(subscription, named, event)
        self._advance(taking, min(part.reach, newest))
        for subscription in taking:
            self._place(subscription)
        return None

    def resync(self) -> None:
        """What was missed cannot be read any more: say so once a subscription, and go on from here."""
        self._resync(self._behind)

    def read_anew(self) -> None:
        """A first sync has brought what had been there before: the same, for every subscription."""
        self._resync(s for by_dialect in self._targets.values() for s in by_dialect.values())

    def _resync(self, subscriptions: Iterable[_Subscription]) -> None:
        feed = self._sources.feed
        for subscription in dict.fromkeys(subscriptions):
            subscription.position, cursor = feed.newest, feed.cursor()
            subscription.sent = cursor_text(cursor)
            about = subscription.about(cursor)
            self.outbox.put(reply(subscription.dialect, "resync", about))
            self._place(subscription)

    def _concerned(self, entry: AnyEntry) -> list[tuple[_Subscription, str]]:
        """The subscriptions that an entry belongs to, with the name each has for the model."""
        return [
            (subscription, subscription.named[target])
            for target in ((entry.model, ""), (entry.model, entry.id))
            if (by_dialect := self._targets.get(target)) is not None
            for subscription in by_dialect.values()
        ]

    def _send(self, subscription: _Subscription, named: str, event: Event) -> None:
        """Queue the event, if it is wanted and the caller may see it."""
        if event.topic not in subscription.topics:
            return
        if self.caller is None or not event.may_be_read_by(self.caller):
            return
        tail = event_tail(subscription.number, event.cursor, subscription.sent)
        self.outbox.put(event.head(subscription.dialect, named), tail)
        subscription.sent = event.cursor

    def _fall_behind(self, subscription: _Subscription, position: Position) -> None:
        subscription.is_live = False
        subscription.position = max(subscription.position, position)
        self._behind[subscription] = None

    def _advance(self, subscriptions: Iterable[_Subscription], position: Position) -> None:
        for subscription in subscriptions:
            subscription.position = max(subscription.position, position)

    def _place(self, subscription: _Subscription) -> None:
        """Live or behind, by where it stands."""
        subscription.is_live = subscription.position >= self._sources.feed.newest
        if subscription.is_live or not subscription.named:
            self._behind.pop(subscription, None)
        else:
            self._behind[subscription] = None
