"""Webhooks and their deliveries on disk: definitions, how far each has read the feed, the outbox and its log.

Room: the only place that knows these records, all of them local to this node:

    local "webhook"           hook               -> `Hook`
    local "webhook state"     hook               -> `HookState`
    local "webhook delivery"  hook / seq (hex)   -> `Delivery`
    local "webhook body"      hook / seq (hex)   -> {body}: what is sent, but for its signature

A delivery and the place in the feed up to which there are deliveries are written in one transaction: after a crash
the feed is read on from there, so no event is lost and none becomes two deliveries. Functions that take a
`LocalWriter` run on the writer's thread.
"""

import hashlib
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, NamedTuple

from node.feed import Position
from node.services.local import LocalStore, Value
from storage.local import LocalWriter

_HOOK, _STATE, _DELIVERY, _BODY = "webhook", "webhook state", "webhook delivery", "webhook body"
LOG_COUNT_MAX = 500  # of deliveries of one webhook that are over
LOG_SIZE_MAX_BYTES = 4 << 20  # of their bodies
LOG_KEPT_MS = 14 * 86_400_000


class Status(StrEnum):
    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"  # given up
    DROPPED = "dropped"  # the webhook's user may not read it any more


@dataclass(frozen=True, slots=True)
class Hook:
    """A webhook as it was registered. `is_admin` is whether its user had every right in the application then."""

    id: str
    application: str
    user: str
    is_owner: bool
    is_admin: bool
    url: str
    events: tuple[str, ...]
    secret: str
    created_ms: int
    updated_ms: int
    enabled: bool = True
    disabled_reason: str | None = None
    disabled_ms: int | None = None
    former_secret: str | None = None  # signs too, until `former_until_ms`
    former_until_ms: int = 0

    def __repr__(self) -> str:
        return f"Hook({self.id})"  # no secret in a log

    def secrets(self, now_ms: int) -> list[str]:
        """What signs at this time, the present one first."""
        former = self.former_secret if now_ms < self.former_until_ms else None
        return [self.secret] if former is None else [self.secret, former]


@dataclass(frozen=True, slots=True)
class HookState:
    """How far a webhook has got: after this place in the feed, with this number for its next delivery."""

    arrival: int
    body: int
    next_seq: int = 1
    failing_since_ms: int | None = None  # the first of attempts that all failed

    @property
    def position(self) -> Position:
        return Position(self.arrival, self.body)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event for one webhook. `model` is a model's id, "" if it is about none, as `instance`."""

    seq: int
    id: str  # the `webhook-id`: the same however often it is sent
    event: str
    model: str
    instance: str
    created_ms: int
    size_bytes: int
    status: Status = Status.PENDING
    is_private: bool = False  # of an account: holds what only itself and administrators may see
    created_by: str | None = None  # who made the instance
    attempts: int = 0
    round: int = 0  # attempts since it was last asked for: what the schedule counts
    next_ms: int = 0  # of the next attempt, while it is pending
    last_ms: int | None = None
    code: int | None = None
    latency_ms: int | None = None
    error: str | None = None
    excerpt: str = ""

    @property
    def is_over(self) -> bool:
        return self.status is not Status.PENDING

    def is_of(self, forgotten: Container[tuple[str, str, str]], application: str) -> bool:
        """Whether it tells of one of these instances: application, model, id. Not where it tells that one is gone.

        A receiver that is to delete what it holds has to hear of it, and such a delivery has no content.
        """
        if not self.is_over and self.event.endswith(".deleted"):
            return False
        return (application, self.model, self.instance) in forgotten


class New(NamedTuple):
    """A delivery to be stored, with what is sent."""

    delivery: Delivery
    body: bytes


class TakenUp(NamedTuple):
    """What one webhook gets of a part of the feed."""

    hook: str
    application: str
    reach: Position
    new: Sequence[New]


def delivery_id(hook: str, seq: int, *of: object) -> str:
    """The `webhook-id` of a delivery: begins with its number, and is another one for any other event."""
    text = "\0".join(map(str, (hook, seq, *of)))
    return f"msg_{seq:x}_{hashlib.blake2b(text.encode(), digest_size=12).hexdigest()}"


def seq_of(id: str) -> int | None:
    """The number of a delivery by its id; None for what is none."""
    kind, _, rest = id.partition("_")
    number = rest.partition("_")[0]
    try:
        return int(number, 16) if kind == "msg" and len(number) <= 12 else None
    except ValueError:
        return None


def _key(hook: str, seq: int) -> str:
    return f"{hook}/{seq:012x}"


def _delivery(key: str, value: Value) -> Delivery:
    value["status"] = Status(value["status"])
    return Delivery(seq=int(key.rpartition("/")[2], 16), **value)


def _value(of: Any, *but: str) -> Value:
    return {name: value for name, value in asdict(of).items() if name not in but}


class WebhookRecords:
    """Reads from any thread; writes are durable when they return. Raises `StorageError`."""

    def __init__(self, local: LocalStore) -> None:
        self._local = local

    # -- reading

    def hooks(self) -> list[tuple[Hook, HookState]]:
        """All webhooks of this node, in the order of their ids."""
        states = {id: HookState(**value) for id, value in self._local.scan(_STATE)}
        return [(_hook(id, value), states[id]) for id, value in self._local.scan(_HOOK) if id in states]

    def deliveries(self, hook: str) -> list[Delivery]:
        """Those of one webhook, oldest first: `LOG_COUNT_MAX` and those that are pending, at most."""
        return [_delivery(key, value) for key, value in self._local.scan(_DELIVERY, hook + "/")]

    def delivery(self, hook: str, id: str) -> Delivery | None:
        seq = seq_of(id)
        found = None if seq is None else self.by_seq(hook, seq)
        return found if found is not None and found.id == id else None

    def by_seq(self, hook: str, seq: int) -> Delivery | None:
        value = self._local.get(_DELIVERY, _key(hook, seq))
        return None if value is None else _delivery(_key(hook, seq), value)

    def body(self, hook: str, seq: int) -> bytes | None:
        """What is sent, but for its signature; None once it is forgotten."""
        value = self._local.get(_BODY, _key(hook, seq))
        return None if value is None else value["body"]

    # -- writing

    async def add(self, hook: Hook, state: HookState) -> None:
        def step(local: LocalWriter) -> None:
            local.put(_HOOK, hook.id, _value(hook, "id"))
            local.put(_STATE, hook.id, _value(state))

        await self._local.change(step)

    async def change(self, hook: str, change: Callable[[Hook], Hook]) -> Hook | None:
        """Change a definition, on the writer's thread. Returns what it is now; None if it is gone."""

        def step(local: LocalWriter) -> Hook | None:
            value = local.get(_HOOK, hook)
            if value is None:
                return None
            changed = change(_hook(hook, value))
            local.put(_HOOK, hook, _value(changed, "id"))
            return changed

        return await self._local.change(step)

    async def note(self, hook: str, **state: Any) -> None:
        """Change some members of a `HookState`."""
        await self._local.change(lambda local: _note(local, hook, **state))

    async def remove(self, hook: str) -> None:
        """A webhook with everything of it."""

        def step(local: LocalWriter) -> None:
            for kind in (_DELIVERY, _BODY):
                for key, _ in list(local.scan(kind, hook + "/")):
                    local.delete(kind, key)
            local.delete(_STATE, hook)
            local.delete(_HOOK, hook)

        await self._local.change(step)

    async def take_up(self, taken: Sequence[TakenUp], forgotten: set[tuple[str, str, str]]) -> None:
        """Store new deliveries together with how far the feed was read for them.

        `forgotten` are instances of which nothing may be kept by then: application, model, id.
        """

        def step(local: LocalWriter) -> None:
            for each in taken:
                if local.get(_HOOK, each.hook) is None:
                    continue
                _note(
                    local,
                    each.hook,
                    arrival=each.reach.arrival,
                    body=each.reach.body,
                    next_seq=max((new.delivery.seq + 1 for new in each.new), default=0),
                )
                for delivery, body in each.new:
                    if not delivery.is_of(forgotten, each.application):
                        _put(local, each.hook, delivery, body)

        await self._local.change(step)

    async def record(
        self,
        hook: str,
        delivery: Delivery,
        new_body: bytes | None = None,
        *,
        failing_since_ms: int | None,
    ) -> bool:
        """What has become of a delivery. Whether it is still there; with `new_body` it is made."""

        def step(local: LocalWriter) -> bool:
            if local.get(_HOOK, hook) is None:
                return False
            if new_body is None and local.get(_DELIVERY, _key(hook, delivery.seq)) is None:
                return False
            _put(local, hook, delivery, new_body)
            _note(local, hook, next_seq=delivery.seq + 1, failing_since_ms=failing_since_ms)
            return True

        return await self._local.change(step)

    async def prune(self, hook: str, now_ms: int) -> tuple[int, int]:
        """Keep the newest of what is over. Returns how many those are, and the size of their bodies."""

        def step(local: LocalWriter) -> tuple[int, int]:
            found = [_delivery(key, value) for key, value in local.scan(_DELIVERY, hook + "/")]
            over = [each for each in found if each.is_over]
            gone = set(_too_many(over, now_ms))
            _delete(local, ((hook, seq) for seq in gone))
            kept = [each.size_bytes for each in over if each.seq not in gone]
            return len(kept), sum(kept)

        return await self._local.change(step)

    async def forget(self, application: str, model: str, id: str) -> list[tuple[str, int]]:
        """Delete every delivery about one instance, with its content, but for news of its deletion: for erasure.

        `model` is a model's id. Returns hook and number of each. Reads the application's outbox whole, without
        bodies, on the writer's thread.
        """
        forgotten = {(application, model, id)}

        def step(local: LocalWriter) -> list[tuple[str, int]]:
            found: list[tuple[str, int]] = []
            for hook, value in list(local.scan(_HOOK)):
                if value["application"] == application:
                    each = (_delivery(key, value) for key, value in local.scan(_DELIVERY, hook + "/"))
                    found += [(hook, one.seq) for one in each if one.is_of(forgotten, application)]
            _delete(local, found)
            return found

        return await self._local.change(step)


def _note(local: LocalWriter, hook: str, *, next_seq: int = 0, **state: Any) -> None:
    """A number that was given once is never given again, whoever writes last."""
    value = local.get(_STATE, hook)
    if value is None:
        return
    changed = {**value, **state, "next_seq": max(value["next_seq"], next_seq)}
    if changed != value:
        local.put(_STATE, hook, changed)


def _hook(id: str, value: Value) -> Hook:
    value["events"] = tuple(value["events"])
    return Hook(id=id, **value)


def _put(local: LocalWriter, hook: str, delivery: Delivery, body: bytes | None) -> None:
    value = _value(delivery, "seq")
    value["status"] = delivery.status.value
    local.put(_DELIVERY, _key(hook, delivery.seq), value)
    if body is not None:
        local.put(_BODY, _key(hook, delivery.seq), {"body": body})


def _delete(local: LocalWriter, found: Iterable[tuple[str, int]]) -> None:
    for hook, seq in found:
        local.delete(_DELIVERY, _key(hook, seq))
        local.delete(_BODY, _key(hook, seq))


def _too_many(over: Sequence[Delivery], now_ms: int) -> Iterator[int]:
    """What is beyond the bounds of a log, given oldest first."""
    size_bytes = 0
    for count, delivery in enumerate(reversed(over)):
        size_bytes += delivery.size_bytes
        is_old = (delivery.last_ms or delivery.created_ms) < now_ms - LOG_KEPT_MS
        if count >= LOG_COUNT_MAX or (count and size_bytes > LOG_SIZE_MAX_BYTES) or is_old:
            yield delivery.seq


def asked_again(delivery: Delivery, now_ms: int) -> Delivery:
    """A delivery that is to be sent once more, from the beginning of its schedule."""
    return replace(delivery, status=Status.PENDING, round=0, next_ms=now_ms, error=None)
