"""From the feed to the outbox: each change becomes a delivery for every webhook that may hear of it.

Room: reading the feed for webhooks, who are all served by one reading while they stand at the same place. What is
taken up is stored together with the place that was reached. A webhook whose outbox is full stays where it is, and is
read for again when there is room: so what it has not heard of is kept once, in the feed, and what one receiver
cannot take holds up nobody else. One that falls behind further than the feed reaches hears `resync` once instead.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from node.feed import ARRIVALS_KEPT_MAX, Feed, Position
from node.services.webhook_events import RESYNC, HookEvents
from node.services.webhook_lanes import Live
from node.services.webhook_payload import body_of
from node.services.webhook_records import Delivery, New, TakenUp, WebhookRecords, delivery_id
from storage.errors import StorageError
from storage.feed_entry import FeedEntry

READ_ENTRIES = 256  # of the feed at once
TAKEN_SIZE_MAX_BYTES = 4 << 20  # of bodies in one transaction, plus one
NOTED_EVERY_ARRIVALS = 1_000  # how much may have to be read again after a crash, where it concerned nobody
RETRY_S = 5.0


@dataclass(frozen=True, slots=True)
class FollowingParts:
    """`lives` are the webhooks of this node by id; `on_taken_up` is told of those that have new deliveries."""

    feed: Feed
    records: WebhookRecords
    events: HookEvents
    lives: Mapping[str, Live]
    on_taken_up: Callable[[Live], None]
    now_ms: Callable[[], int]
    log: logging.Logger


class Following:
    """`run` it as a task; `wake` it when there may be something to read."""

    def __init__(self, parts: FollowingParts) -> None:
        self._parts = parts
        self._news = asyncio.Event()
        self._forgotten: set[tuple[str, str, str]] = set()  # since the reading under way began

    def wake(self) -> None:
        self._news.set()

    def forget(self, application: str, model: str, id: str) -> None:
        """What was read of an instance is not to be stored any more."""
        self._forgotten.add((application, model, id))

    async def run(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                while await self.step():
                    pass
            except StorageError as error:
                self._parts.log.warning("webhooks: the feed could not be taken up: %s", error)
                asyncio.get_running_loop().call_later(RETRY_S, self._news.set)
            except Exception:  # a bug must not end deliveries for good
                self._parts.log.exception("webhooks: the feed could not be taken up")
                asyncio.get_running_loop().call_later(RETRY_S, self._news.set)

    async def step(self) -> bool:
        """Take up what comes next. Whether there may be more. Raises `StorageError`."""
        self._forgotten.clear()
        feed, newest = self._parts.feed, self._parts.feed.newest
        behind = [live for live in self._parts.lives.values() if _is_to_be_read_for(live, newest)]
        if not behind:
            return False
        after = min(live.position for live in behind)
        if after.arrival < newest.arrival - ARRIVALS_KEPT_MAX:
            far = [live for live in behind if live.position.arrival < newest.arrival - ARRIVALS_KEPT_MAX]
            await self._store([self._read_anew(live, newest) for live in far])
            return True
        part = await asyncio.to_thread(feed.part, after, limit=READ_ENTRIES, over_first_sync=True)
        # What is stored but not handed on yet may still be in caches as it was before.
        reach = min(part.reach, feed.newest)
        entries = [entry for entry in part.entries if (entry.arrival, entry.index) <= reach]
        taken = [self._take(live, entries, reach) for live in behind if self._is_there(live)]
        await self._store([each for each in taken if each is not None])
        return reach > after

    def _is_there(self, live: Live) -> bool:
        return self._parts.lives.get(live.hook.id) is live and live.hook.enabled

    def _take(self, live: Live, entries: Sequence[FeedEntry], reach: Position) -> TakenUp | None:
        """What one webhook gets of a part of the feed, as much as there is room for."""
        if live.position >= reach:
            return None
        user = self._parts.events.user_of(live.hook)
        new: list[New] = []
        size_bytes = 0
        reached = reach
        for entry in entries:
            position = Position(entry.arrival, entry.index)
            if position <= live.position or entry.application != live.hook.application:
                continue
            if len(new) + len(live.lane.waiting) >= live.lane.count_max or size_bytes >= TAKEN_SIZE_MAX_BYTES:
                reached = Position(entry.arrival, entry.index - 1)
                break
            happening = None if user is None else self._parts.events.happening(entry)
            if happening is None or user is None:
                continue
            told = self._parts.events.changes_for(user, happening)
            if told is None:
                continue
            for event in happening.heard_as(live.hook.events):
                body = body_of(
                    event, happening.model_name, entry.id, told[0], happening.at_ms, happening.origin
                )
                size_bytes += len(body)
                seq = live.new_seq()
                id = delivery_id(
                    live.hook.id, seq, event, entry.author.hex(), entry.hlc, *position, entry.model, entry.id
                )
                new.append(
                    New(self._delivery(seq, id, event, entry, body, happening.created_by, told[1]), body)
                )
        is_worth_noting = reached.arrival - live.stored_position.arrival >= NOTED_EVERY_ARRIVALS
        if not new and not is_worth_noting:
            live.position = max(live.position, reached)
            return None
        return TakenUp(live.hook.id, live.hook.application, max(live.position, reached), new)

    def _delivery(
        self,
        seq: int,
        id: str,
        event: str,
        entry: FeedEntry,
        body: bytes,
        created_by: str | None,
        is_private: bool,
    ) -> Delivery:
        now_ms = self._parts.now_ms()
        return Delivery(
            seq,
            id,
            event,
            entry.model,
            entry.id,
            now_ms,
            len(body),
            is_private=is_private,
            created_by=created_by,
            next_ms=now_ms,
        )

    def _read_anew(self, live: Live, newest: Position) -> TakenUp:
        now_ms, seq = self._parts.now_ms(), live.new_seq()
        body = body_of(RESYNC, None, None, {}, now_ms, None)
        id = delivery_id(live.hook.id, seq, RESYNC, *newest, now_ms)
        delivery = Delivery(seq, id, RESYNC, "", "", now_ms, len(body), next_ms=now_ms)
        return TakenUp(live.hook.id, live.hook.application, newest, [New(delivery, body)])

    async def _store(self, taken: Iterable[TakenUp]) -> None:
        """Durable when it returns; only then does a lane hear of what is new."""
        taken = list(taken)
        if not taken:
            return
        forgotten = self._forgotten
        await self._parts.records.take_up(taken, forgotten)
        for each in taken:
            live = self._parts.lives.get(each.hook)
            if live is None:
                continue
            live.position = live.stored_position = max(live.position, each.reach)
            for delivery, _ in each.new:
                if not delivery.is_of(forgotten, each.application):
                    live.lane.add(delivery)
            if each.new:
                self._parts.on_taken_up(live)


def _is_to_be_read_for(live: Live, newest: Position) -> bool:
    return live.hook.enabled and live.position < newest and not live.lane.is_full
