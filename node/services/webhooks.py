"""Webhooks of this node: who may register what, and everything that runs for them.

Room: definitions and what their users ask for; `webhook_following` fills the outbox, `webhook_delivering` empties
it. A webhook stays on the node where it was registered (one that came from a peer would make this machine send
requests for somebody else) and shows its user what that user may read, at the moment of delivery. Administrators see
and change all webhooks of their application.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from node.due import Timers
from node.feed import Feed
from node.metrics import Metrics
from node.services.account_models import ACCOUNT
from node.services.local import LocalStore
from node.services.permissions import Actor
from node.services.refusals import (
    InvalidFields,
    TooBusy,
    TooManyWebhooks,
    UnknownDelivery,
    UnknownWebhook,
    WebhookDisabled,
)
from node.services.webhook_delivering import Delivering, DeliveringParts
from node.services.webhook_events import PING, HookEvents, check_events
from node.services.webhook_following import Following, FollowingParts
from node.services.webhook_lanes import Live
from node.services.webhook_payload import (
    SECRET_PREFIX,
    body_of,
    new_secret,
    public_key_text,
    secret_key,
)
from node.services.webhook_records import (
    Delivery,
    Hook,
    HookState,
    Status,
    WebhookRecords,
    asked_again,
    delivery_id,
)
from node.services.webhook_sending import Sender
from node.services.webhook_targets import url_fault
from protocol.ids import builtin_model_id
from storage.errors import StorageError
from storage.feed_entry import FeedEntry

HOOKS_MAX = 1_000  # on this node
HOOKS_PER_USER_MAX = 100
SECRET_MAX_CHARS = 256
SECRET_BYTES = (24, 64)  # in a `whsec_` secret, as Standard Webhooks wants it
OVERLAP_S = 86_400  # for how long the secret before a change signs too
OVERLAP_MAX_S = 30 * 86_400
PENDING_MAX = 100_000  # in all: with many webhooks each has less room, and reads the feed later
PINGS_MAX = 16  # at the same time: each may last as long as an attempt
SWEEP_S = 3_600.0
FIELDS = ("url", "events", "secret", "enabled")


@dataclass(frozen=True, slots=True)
class WebhookParts:
    """What is handed in. `is_own(host, port)` is whether this node listens there; `sign` signs with its key."""

    feed: Feed
    local: LocalStore
    events: HookEvents
    metrics: Metrics
    allow_private: bool
    is_own: Callable[[str, int], bool]
    public_key: bytes
    sign: Callable[[bytes], bytes]
    new_id: Callable[[], str]
    now_ms: Callable[[], int]
    seconds: Callable[[], float]
    random_bytes: Callable[[int], bytes]
    timers: Timers
    log: logging.Logger
    sender: Sender | None = None  # a test's own


class Webhooks:
    """`start` it once the writer runs, `stop` it before the writer does. For one event loop."""

    def __init__(self, parts: WebhookParts) -> None:
        self._parts = parts
        self._records = WebhookRecords(parts.local)
        self._lives: dict[str, Live] = {}
        self._sender = parts.sender or Sender(
            allow_private=parts.allow_private,
            is_own=parts.is_own,
            seconds=parts.seconds,
            now_ms=parts.now_ms,
        )
        count = parts.metrics.counter
        self._delivering = Delivering(
            DeliveringParts(
                records=self._records,
                events=parts.events,
                sender=self._sender,
                lives=self._lives,
                on_room=lambda: self._following.wake(),
                sign=parts.sign,
                now_ms=parts.now_ms,
                fraction=lambda: int.from_bytes(parts.random_bytes(4), "big") / (1 << 32),
                timers=parts.timers,
                attempts=count(
                    "civicnode_webhook_attempts_total", "Requests to receivers of webhooks", ("outcome",)
                ),
                over=count(
                    "civicnode_webhook_deliveries_total", "Deliveries that are over, by how", ("status",)
                ),
                log=parts.log,
            )
        )
        self._following = Following(
            FollowingParts(
                feed=parts.feed,
                records=self._records,
                events=parts.events,
                lives=self._lives,
                on_taken_up=self._delivering.look,
                now_ms=parts.now_ms,
                log=parts.log,
            )
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._unsubscribe: Callable[[], None] = lambda: None
        self._loaded = asyncio.Event()
        self._pings = 0  # under way
        parts.metrics.gauge(
            "civicnode_webhook_pending", "Deliveries of webhooks that wait", lambda: self.status()["pending"]
        )
        parts.metrics.gauge(
            "civicnode_webhook_oldest_pending_seconds",
            "Age of the oldest delivery that waits",
            self._oldest_s,
        )

    def start(self) -> None:
        for hook, state in self._records.hooks():
            self._lives[hook.id] = Live.of(hook, state)
        self._share_room()
        self._unsubscribe = self._parts.feed.subscribe(self._on_entries)
        self._tasks.append(asyncio.get_running_loop().create_task(self._run()))

    async def stop(self) -> None:
        self._unsubscribe()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._delivering.stop()
        await self._sender.close()

    def status(self) -> dict[str, int]:
        """How many webhooks there are, how many of them are disabled, and how many deliveries wait."""
        lives = self._lives.values()
        return {
            "webhooks": len(self._lives),
            "disabled": sum(not live.hook.enabled for live in lives),
            "pending": sum(len(live.lane.waiting) for live in lives),
        }

    def _oldest_s(self) -> float:
        firsts = [next(iter(live.lane.waiting.values()), None) for live in self._lives.values()]
        oldest_ms = min((first.created_ms for first in firsts if first is not None), default=None)
        return 0.0 if oldest_ms is None else max(0.0, (self._parts.now_ms() - oldest_ms) / 1_000)

    def _on_entries(self, entries: Sequence[FeedEntry]) -> None:
        if self._lives:
            self._following.wake()

    async def _run(self) -> None:
        """Read what was pending, without holding up the start; then follow."""
        for live in list(self._lives.values()):
            await self._load(live)
        self._loaded.set()
        self._following.wake()
        self._tasks.append(asyncio.get_running_loop().create_task(self._sweep()))
        await self._following.run()

    async def _load(self, live: Live) -> None:
        try:
            found = await asyncio.to_thread(self._records.deliveries, live.hook.id)
        except StorageError as error:
            self._parts.log.warning("webhook %s: its deliveries cannot be read: %s", live.hook.id, error)
            return
        for delivery in found:
            if delivery.is_over:
                live.over_count += 1
                live.over_size_bytes += delivery.size_bytes
            else:
                live.lane.add(delivery)
        self._delivering.look(live)

    async def _sweep(self) -> None:
        """Let go of what is too old, now and every hour."""
        while True:
            for live in list(self._lives.values()):
                try:
                    await self._delivering.prune(live)
                except StorageError as error:
                    self._parts.log.warning("webhook %s: its log cannot be cut: %s", live.hook.id, error)
            await asyncio.sleep(SWEEP_S)

    def _share_room(self) -> None:
        for live in self._lives.values():
            live.lane.share_room(PENDING_MAX // max(1, len(self._lives)))

    # -- definitions

    async def create(self, actor: Actor, *, is_owner: bool, values: Mapping[str, Any]) -> Hook:
        """Durable when it returns. Raises `InvalidFields`, `TooManyWebhooks`."""
        faults = {name: "This field is required" for name in ("url", "events") if values.get(name) is None}
        given = self._checked({n: v for n, v in values.items() if v is not None or n not in FIELDS}, faults)
        user, now_ms = actor.user_id or "", self._parts.now_ms()
        of_user = sum(live.hook.user == user for live in self._lives.values())
        if of_user >= HOOKS_PER_USER_MAX or len(self._lives) >= HOOKS_MAX:
            raise TooManyWebhooks(HOOKS_PER_USER_MAX, HOOKS_MAX)
        hook = Hook(
            id=self._parts.new_id(),
            application=actor.application,
            user=user,
            is_owner=is_owner,
            is_admin=actor.is_admin,
            url=given["url"],
            events=given["events"],
            secret=given.get("secret") or new_secret(self._parts.random_bytes),
            enabled=given.get("enabled", True),
            created_ms=now_ms,
            updated_ms=now_ms,
        )
        state = HookState(*self._parts.feed.newest)
        await self._records.add(hook, state)
        self._lives[hook.id] = Live.of(hook, state)
        self._share_room()
        self._following.wake()
        return hook

    def of(self, actor: Actor) -> list[Hook]:
        """Those that a user may see, oldest first."""
        return [live.hook for live in self._lives.values() if _may(actor, live.hook)]

    def of_user(self, application: str, user: str) -> list[Hook]:
        """Those that a user has registered, oldest first."""
        hooks = (live.hook for live in self._lives.values())
        return [hook for hook in hooks if (hook.application, hook.user) == (application, user)]

    def get(self, actor: Actor, id: str) -> Hook:
        """Raises `UnknownWebhook`."""
        return self._live(actor, id).hook

    async def change(self, actor: Actor, id: str, values: Mapping[str, Any]) -> Hook:
        """Change what is given; a new secret counts at once, the one before for `OVERLAP_S` too.

        To enable one that was disabled lets it go on from here: what was pending is sent, what happened in between
        is not. Durable when it returns. Raises `UnknownWebhook`, `InvalidFields`.
        """
        live = self._live(actor, id)
        given = self._checked(values, {})
        now_ms = self._parts.now_ms()

        def step(hook: Hook) -> Hook:
            changed = replace(hook, updated_ms=now_ms, **{n: v for n, v in given.items() if n != "secret"})
            if "secret" in given and given["secret"] != hook.secret:
                changed = _with_secret(changed, given["secret"], now_ms, OVERLAP_S)
            if actor.user_id == hook.user:
                changed = replace(changed, is_admin=actor.is_admin)
            if changed.enabled:
                changed = replace(changed, disabled_reason=None, disabled_ms=None)
            elif hook.enabled:
                changed = replace(changed, disabled_reason="by request", disabled_ms=now_ms)
            return changed

        return await self._change(live, step)

    async def rotate_secret(self, actor: Actor, id: str, secret: object, overlap_s: int) -> Hook:
        """A new secret, made here if None is given; the one before signs too for a while. Raises as `change`."""
        live = self._live(actor, id)
        faults = {} if secret is None else _named("secret", _secret_fault(secret))
        if not 0 <= overlap_s <= OVERLAP_MAX_S:
            faults["overlap_s"] = f"Must be a whole number from 0 to {OVERLAP_MAX_S}"
        if faults:
            raise InvalidFields(faults)
        new = secret if isinstance(secret, str) else new_secret(self._parts.random_bytes)
        now_ms = self._parts.now_ms()
        return await self._change(
            live, lambda hook: _with_secret(replace(hook, updated_ms=now_ms), new, now_ms, overlap_s)
        )

    async def _change(self, live: Live, step: Callable[[Hook], Hook]) -> Hook:
        changed = await self._records.change(live.hook.id, step)
        if changed is None:
            raise UnknownWebhook
        was_enabled, live.hook = live.hook.enabled, changed
        if changed.enabled and not was_enabled:
            await self._go_on(live)
        self._delivering.look(live)
        return changed

    async def _go_on(self, live: Live) -> None:
        """What is pending is due at once; what happened while it was disabled is not told."""
        await self._loaded.wait()
        newest = self._parts.feed.newest
        live.position = live.stored_position = newest
        live.failing_since_ms = None
        live.lane.begin_anew(self._parts.now_ms())
        await self._records.note(
            live.hook.id, arrival=newest.arrival, body=newest.body, failing_since_ms=None
        )

    async def remove(self, actor: Actor, id: str) -> None:
        """With its outbox and log. Durable when it returns. Raises `UnknownWebhook`."""
        await self._remove(self._live(actor, id))

    async def _remove(self, live: Live) -> None:
        await self._records.remove(live.hook.id)
        self._lives.pop(live.hook.id, None)
        self._delivering.disarm(live)
        self._share_room()

    def _live(self, actor: Actor, id: str) -> Live:
        live = self._lives.get(id)
        if live is None or not _may(actor, live.hook):
            raise UnknownWebhook
        return live

    def _checked(self, values: Mapping[str, Any], faults: dict[str, str]) -> dict[str, Any]:
        """The fields as they are kept. Raises `InvalidFields` with every fault."""
        faults = faults | {name: "Unknown field" for name in values if name not in FIELDS}
        given = {name: value for name, value in values.items() if name in FIELDS}
        if "url" in given:
            faults |= _named("url", url_fault(given["url"], allow_private=self._parts.allow_private))
        if "events" in given:
            given["events"], found = check_events(given["events"])
            faults |= found
        if "secret" in given:
            faults |= _named("secret", _secret_fault(given["secret"]))
        if not isinstance(given.get("enabled", True), bool):
            faults["enabled"] = "Must be true or false"
        if faults:
            raise InvalidFields(faults)
        return given

    # -- deliveries

    async def deliveries(self, actor: Actor, id: str) -> list[Delivery]:
        """The log of a webhook and what is pending, newest first. Raises `UnknownWebhook`."""
        live = self._live(actor, id)
        return (await asyncio.to_thread(self._records.deliveries, live.hook.id))[::-1]

    def sent_body(self, hook: str, delivery: Delivery) -> bytes | None:
        """What was sent, but for its signature; None of what was not."""
        return self._records.body(hook, delivery.seq) if delivery.attempts else None

    async def replay(self, actor: Actor, id: str, delivery_id: str) -> Delivery:
        """Send a delivery once more, under the same id, as soon as its turn comes; one that waits need not wait.

        Durable when it returns. Raises `UnknownWebhook`, `UnknownDelivery`, `WebhookDisabled`.
        """
        live = self._live(actor, id)
        await self._loaded.wait()
        if not live.hook.enabled:
            raise WebhookDisabled
        delivery = self._records.delivery(id, delivery_id)
        if delivery is None:
            raise UnknownDelivery
        waiting = live.lane.waiting.get(delivery.seq)
        if waiting is not None and waiting.is_under_way:
            if not delivery.is_over:
                return delivery
            await self._delivering.ended(id, delivery.seq)  # it is recorded, and all but over
        again = asked_again(delivery, self._parts.now_ms())
        if not await self._records.record(id, again, failing_since_ms=live.failing_since_ms):
            raise UnknownDelivery
        if delivery.is_over:
            live.over_count -= 1
            live.over_size_bytes -= delivery.size_bytes
        live.lane.add(again)
        live.lane.rest_until_ms = 0
        self._delivering.look(live)
        return again

    async def test(self, actor: Actor, id: str) -> Delivery:
        """Send an event `ping` now, whatever waits, and tell what came of it. Raises `UnknownWebhook`, `TooBusy`."""
        live = self._live(actor, id)
        if self._pings >= PINGS_MAX:
            raise TooBusy
        self._pings += 1
        try:
            return await self._ping(live)
        finally:
            self._pings -= 1

    async def _ping(self, live: Live) -> Delivery:
        hook, now_ms, seq = live.hook, self._parts.now_ms(), live.new_seq()
        body = body_of(PING, None, None, {}, now_ms, None)
        ping = Delivery(seq, delivery_id(hook.id, seq, PING, now_ms), PING, "", "", now_ms, len(body))
        outcome = await self._delivering.send(hook, ping.id, body)
        ping = replace(
            ping,
            status=Status.DELIVERED if outcome.is_delivered else Status.FAILED,
            attempts=1,
            round=1,
            last_ms=self._parts.now_ms(),
            code=outcome.code,
            latency_ms=outcome.latency_ms,
            error=outcome.error,
            excerpt=outcome.excerpt,
        )
        if outcome.is_delivered:
            live.lane.succeeded()
            live.failing_since_ms = None
        if not await self._records.record(hook.id, ping, body, failing_since_ms=live.failing_since_ms):
            raise UnknownWebhook
        await self._delivering.count_over(live, ping)
        self._delivering.look(live)
        return ping

    async def forget(self, application: str, model: str, id: str) -> None:
        """Delete every delivery about an instance, sent or not: for its erasure. `model` is a model's id.

        News that it was deleted, which wait, are sent all the same: they have no content. With an account its
        webhooks go too. Durable when it returns; what is on its way at this moment arrives.
        """
        if model == builtin_model_id(application, ACCOUNT):
            for live in list(self._lives.values()):
                if (live.hook.application, live.hook.user) == (application, id):
                    await self._remove(live)
        self._following.forget(application, model, id)
        gone = await self._records.forget(application, model, id)
        for hook, seq in gone:
            if (told := self._lives.get(hook)) is not None:
                told.lane.drop(seq)
        self._following.wake()

    # -- how they look

    @property
    def public_key(self) -> str:
        """The key that `v1a` signatures are verified with."""
        return public_key_text(self._parts.public_key)

    def pending(self, hook: Hook) -> int:
        live = self._lives.get(hook.id)
        return 0 if live is None else len(live.lane.waiting)

    def failing_since_ms(self, hook: Hook) -> int | None:
        live = self._lives.get(hook.id)
        return None if live is None else live.failing_since_ms

    def unmatched(self, hook: Hook) -> list[str]:
        return self._parts.events.unmatched(hook)


def _may(actor: Actor, hook: Hook) -> bool:
    return hook.application == actor.application and (actor.is_admin or hook.user == actor.user_id)


def _with_secret(hook: Hook, secret: str, now_ms: int, overlap_s: int) -> Hook:
    return replace(hook, secret=secret, former_secret=hook.secret, former_until_ms=now_ms + overlap_s * 1_000)


def _named(name: str, fault: str | None) -> dict[str, str]:
    return {} if fault is None else {name: fault}


def _secret_fault(secret: object) -> str | None:
    if not isinstance(secret, str):
        return "Must be a text"
    if not 1 <= len(secret) <= SECRET_MAX_CHARS or not secret.isprintable():
        return f"Must have 1 to {SECRET_MAX_CHARS} characters, none of them a control character"
    if secret.startswith(SECRET_PREFIX):
        least, most = SECRET_BYTES
        try:
            size = len(secret_key(secret))
        except ValueError:
            size = 0
        if not least <= size <= most:
            return f"What begins with {SECRET_PREFIX} must go on with {least} to {most} bytes in base64"
    return None
