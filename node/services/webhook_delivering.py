"""From the outbox to the receivers: attempts, what becomes of each, and webhooks that are disabled for good reason.

Room: drives the lanes with timers and tasks that are handed in, and writes down every outcome before the next
attempt of the same delivery. An attempt asks first whether the webhook's user may still read what would be sent.
A crash between an answer and its record sends the delivery once more: at least once, under the same id.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from node.due import Timers
from node.metrics import Counter
from node.services.webhook_events import HookEvents
from node.services.webhook_lanes import Live, Waiting, retry_in_ms
from node.services.webhook_payload import signature_headers, signed_body
from node.services.webhook_records import (
    LOG_COUNT_MAX,
    LOG_SIZE_MAX_BYTES,
    Delivery,
    Hook,
    Status,
    WebhookRecords,
)
from node.services.webhook_sending import Outcome, Sender
from storage.errors import StorageError

ATTEMPTS_MAX = 128  # under way at the same time, of all webhooks
DISABLE_AFTER_MS = 5 * 86_400_000  # of nothing but failures
UNRECORDED_RETRY_MS = 60_000  # the record could not be written
LOOK_AGAIN_S = 3_600.0  # a clock that is set forward is noticed this late
PRUNED_EVERY = 50  # deliveries beyond the bound of a log
GONE = "the receiver answered 410 Gone"
NO_USER = "its user is gone or disabled"
ALL_FAILED = "every attempt of the last 5 days has failed"


@dataclass(frozen=True, slots=True)
class DeliveringParts:
    """`on_room` is called when a lane may have room again; `fraction` is random, from 0 to 1."""

    records: WebhookRecords
    events: HookEvents
    sender: Sender
    lives: Mapping[str, Live]
    on_room: Callable[[], None]
    sign: Callable[[bytes], bytes]
    now_ms: Callable[[], int]
    fraction: Callable[[], float]
    timers: Timers
    attempts: Counter  # by outcome
    over: Counter  # deliveries, by status
    log: logging.Logger


class Delivering:
    """For one event loop. `stop` it once; what is under way then is sent again after the next start."""

    def __init__(self, parts: DeliveringParts) -> None:
        self._parts = parts
        self._tasks: set[asyncio.Task[None]] = set()
        self._attempts: dict[tuple[str, int], asyncio.Task[None]] = {}  # those tasks by webhook and number
        self._held: dict[Live, None] = {}  # for whom there was no turn
        self._is_stopped = False

    async def stop(self) -> None:
        self._is_stopped = True
        for live in self._parts.lives.values():
            self.disarm(live)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def look(self, live: Live) -> None:
        """Start what is due of a webhook, and wake up when more will be."""
        self.disarm(live)
        self._held.pop(live, None)
        if self._is_stopped or not live.hook.enabled or self._parts.lives.get(live.hook.id) is not live:
            return
        now_ms = self._parts.now_ms()
        while len(self._tasks) < ATTEMPTS_MAX:
            waiting = live.lane.start(now_ms)
            if waiting is None:
                break
            task = asyncio.get_running_loop().create_task(self._attempt(live, waiting))
            self._tasks.add(task)
            self._attempts[live.hook.id, waiting.seq] = task
            task.add_done_callback(self._tasks.discard)
        else:
            self._held[live] = None
            return
        due_ms = live.lane.due_ms()
        if due_ms is not None:
            delay_s = min(max(0.0, (due_ms - now_ms) / 1_000), LOOK_AGAIN_S)
            live.timer = self._parts.timers.call_later(delay_s, self.look, live)

    def disarm(self, live: Live) -> None:
        if live.timer is not None:
            live.timer.cancel()
            live.timer = None

    async def ended(self, hook: str, seq: int) -> None:
        """Wait for the attempt of a delivery that is under way, if one is."""
        task = self._attempts.get((hook, seq))
        if task is not None:
            await asyncio.wait([task])

    # -- one attempt

    async def _attempt(self, live: Live, waiting: Waiting) -> None:
        try:
            await self._try(live, waiting)
        except StorageError as error:
            waiting.due_ms = self._parts.now_ms() + UNRECORDED_RETRY_MS
            self._parts.log.warning("webhook %s: an attempt was not recorded: %s", live.hook.id, error)
        except Exception:  # a bug: this delivery waits, the others go on
            waiting.due_ms = self._parts.now_ms() + UNRECORDED_RETRY_MS
            self._parts.log.exception("webhook %s: an attempt failed", live.hook.id)
        finally:
            live.lane.ended(waiting)
            self._attempts.pop((live.hook.id, waiting.seq), None)
            asyncio.get_running_loop().call_soon(self._go_on, live)  # once this task has ended

    def _go_on(self, live: Live) -> None:
        self.look(live)
        self._parts.on_room()
        while self._held and len(self._tasks) < ATTEMPTS_MAX and not self._is_stopped:
            self.look(next(iter(self._held)))

    async def _try(self, live: Live, waiting: Waiting) -> None:
        hook, records = live.hook, self._parts.records
        delivery = records.by_seq(hook.id, waiting.seq)
        body = None if delivery is None else records.body(hook.id, waiting.seq)
        if delivery is None or body is None:
            live.lane.drop(waiting.seq)
            return
        user = self._parts.events.user_of(hook)
        if user is None:
            await self.disable(live, NO_USER)
            return
        if not self._parts.events.may_be_told(user, delivery):
            await self._settle(live, replace(delivery, status=Status.DROPPED, error="not readable any more"))
            return
        outcome = await self.send(hook, delivery.id, body)
        now_ms = self._parts.now_ms()
        failing_since_ms = self._note_outcome(live, outcome, now_ms)
        await self._settle(live, self._after(delivery, outcome, now_ms))
        if outcome.code == 410:
            await self.disable(live, GONE)
        elif failing_since_ms is not None and now_ms - failing_since_ms >= DISABLE_AFTER_MS:
            await self.disable(live, ALL_FAILED)

    async def send(self, hook: Hook, id: str, body: bytes) -> Outcome:
        """One request, signed as of now."""
        now_ms = self._parts.now_ms()
        whole = signed_body(body, hook.secret)
        headers = signature_headers(id, now_ms // 1_000, whole, hook.secrets(now_ms), self._parts.sign)
        outcome = await self._parts.sender.send(hook.url, headers, whole)
        self._parts.attempts.add(("delivered" if outcome.is_delivered else "failed",))
        return outcome

    def _note_outcome(self, live: Live, outcome: Outcome, now_ms: int) -> int | None:
        """Let the lane know. Returns since when the receiver fails, if it does."""
        if outcome.is_delivered:
            live.lane.succeeded()
            live.failing_since_ms = None
        else:
            live.lane.failed(now_ms, _in_ms(outcome.retry_after_s), self._parts.fraction)
            live.failing_since_ms = live.failing_since_ms or now_ms
        return live.failing_since_ms

    def _after(self, delivery: Delivery, outcome: Outcome, now_ms: int) -> Delivery:
        """A delivery after an attempt."""
        told = replace(
            delivery,
            attempts=delivery.attempts + 1,
            round=delivery.round + 1,
            last_ms=now_ms,
            code=outcome.code,
            latency_ms=outcome.latency_ms,
            error=outcome.error,
            excerpt=outcome.excerpt,
        )
        if outcome.is_delivered:
            return replace(told, status=Status.DELIVERED)
        delay_ms = retry_in_ms(told.round, _in_ms(outcome.retry_after_s), self._parts.fraction)
        if delay_ms is None:
            return replace(told, status=Status.FAILED)
        return replace(told, next_ms=now_ms + delay_ms)

    async def _settle(self, live: Live, delivery: Delivery) -> None:
        """Write down what has become of a delivery, and how the receiver does."""
        is_there = await self._parts.records.record(
            live.hook.id, delivery, failing_since_ms=live.failing_since_ms
        )
        if not is_there or delivery.is_over:
            live.lane.drop(delivery.seq)
        elif (waiting := live.lane.waiting.get(delivery.seq)) is not None:
            waiting.due_ms = delivery.next_ms
        if is_there and delivery.is_over:
            self._parts.over.add((delivery.status.value,))
            await self.count_over(live, delivery)

    async def count_over(self, live: Live, delivery: Delivery) -> None:
        """One more in the log of a webhook, which is cut when it has grown too long."""
        live.over_count += 1
        live.over_size_bytes += delivery.size_bytes
        if live.over_count >= LOG_COUNT_MAX + PRUNED_EVERY or live.over_size_bytes > 2 * LOG_SIZE_MAX_BYTES:
            await self.prune(live)

    async def prune(self, live: Live) -> None:
        live.over_count, live.over_size_bytes = await self._parts.records.prune(
            live.hook.id, self._parts.now_ms()
        )

    async def disable(self, live: Live, reason: str) -> None:
        """What is pending stays, and nothing more is taken up, until somebody enables it again."""
        now_ms = self._parts.now_ms()

        def change(hook: Hook) -> Hook:
            if not hook.enabled:
                return hook
            return replace(hook, enabled=False, disabled_reason=reason, disabled_ms=now_ms)

        changed = await self._parts.records.change(live.hook.id, change)
        if changed is not None:
            live.hook = changed
            self.disarm(live)
            self._parts.log.warning("webhook %s is disabled: %s", changed.id, reason)


def _in_ms(seconds: int | None) -> int | None:
    return None if seconds is None else seconds * 1_000
