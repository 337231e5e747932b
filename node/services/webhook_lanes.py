"""Which delivery of a webhook goes next, and when: a lane for each webhook, so that none waits for another.

Room: webhooks as they run: order, pace and giving up, over values in memory. Time and randomness are handed in, and
nothing is sent or stored here. Within a lane some deliveries are under way at a time, those about one instance one
after the other in the order of their events. After a few failures in a row a receiver is taken to be down: then one
delivery at a time tries whether it is back, at growing distances. Each delivery has a schedule besides, that of
Standard Webhooks.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from node.due import Handle
from node.feed import Position
from node.services.webhook_records import Delivery, Hook, HookState

SECOND_MS, MINUTE_MS, HOUR_MS = 1_000, 60_000, 3_600_000
# How long after each attempt the next one follows; after the last of these it is given up.
RETRY_MS = (5 * SECOND_MS, 5 * MINUTE_MS, 30 * MINUTE_MS, 2 * HOUR_MS, 5 * HOUR_MS, 10 * HOUR_MS, 14 * HOUR_MS,
            20 * HOUR_MS, 24 * HOUR_MS)  # fmt: skip
RETRY_AFTER_MAX_MS = 24 * HOUR_MS  # of what a receiver may ask for
JITTER = 0.2  # added to every delay, up to this part of it: receivers that come back are not hit at once
UNDER_WAY_MAX = 4  # deliveries of one webhook
DOWN_AFTER = 3  # failures in a row
DOWN_FIRST_MS, DOWN_MOST_MS = 5 * SECOND_MS, 5 * MINUTE_MS
PENDING_COUNT_MAX = 1_000  # of one webhook: more stay in the feed, which is read on as these are delivered
PENDING_SIZE_MAX_BYTES = 8 << 20


@dataclass(slots=True)
class Waiting:
    """A delivery that is pending, as much of it as is held in memory."""

    seq: int
    subject: tuple[str, str] | int  # deliveries of one subject go in order
    due_ms: int
    created_ms: int
    size_bytes: int
    is_under_way: bool = False

    @classmethod
    def of(cls, delivery: Delivery) -> "Waiting":
        subject = (delivery.model, delivery.instance) if delivery.instance else delivery.seq
        return cls(delivery.seq, subject, delivery.next_ms, delivery.created_ms, delivery.size_bytes)


@dataclass(slots=True)
class Lane:
    """The pending deliveries of one webhook."""

    waiting: dict[int, Waiting] = field(default_factory=dict)  # by number, in the order of events
    size_bytes: int = 0
    under_way: int = 0
    failures: int = 0  # in a row
    rest_until_ms: int = 0

    count_max: int = PENDING_COUNT_MAX

    @property
    def is_full(self) -> bool:
        return len(self.waiting) >= self.count_max or self.size_bytes >= PENDING_SIZE_MAX_BYTES

    @property
    def is_down(self) -> bool:
        return self.failures >= DOWN_AFTER

    def share_room(self, count_max: int) -> None:
        """With many webhooks each has less."""
        self.count_max = max(1, min(PENDING_COUNT_MAX, count_max))

    def begin_anew(self, now_ms: int) -> None:
        """Forget that the receiver was down: what waits is due."""
        self.succeeded()
        for each in self.waiting.values():
            each.due_ms = min(each.due_ms, now_ms)

    def add(self, delivery: Delivery) -> None:
        self.drop(delivery.seq)
        self.waiting[delivery.seq] = Waiting.of(delivery)
        self.size_bytes += delivery.size_bytes

    def drop(self, seq: int) -> None:
        """It is over, or was forgotten."""
        gone = self.waiting.pop(seq, None)
        if gone is not None:
            self.size_bytes -= gone.size_bytes

    def start(self, now_ms: int) -> Waiting | None:
        """The delivery to send now, which is under way from here on; None if there is none now."""
        if self.under_way >= (1 if self.is_down else UNDER_WAY_MAX) or now_ms < self.rest_until_ms:
            return None
        chosen = next((each for each in self._next_of_each() if each.due_ms <= now_ms), None)
        if chosen is not None:
            chosen.is_under_way = True
            self.under_way += 1
        return chosen

    def due_ms(self) -> int | None:
        """When `start` may give something, if nothing happens until then; None if only then."""
        if self.under_way >= (1 if self.is_down else UNDER_WAY_MAX):
            return None
        due_ms = min((each.due_ms for each in self._next_of_each()), default=None)
        return None if due_ms is None else max(due_ms, self.rest_until_ms)

    def _next_of_each(self) -> Iterator[Waiting]:
        """The oldest delivery of each subject, unless it is under way."""
        seen: set[object] = set()
        for each in self.waiting.values():
            if each.subject not in seen:
                seen.add(each.subject)
                if not each.is_under_way:
                    yield each

    def ended(self, waiting: Waiting) -> None:
        """An attempt is over, however it went."""
        waiting.is_under_way = False
        self.under_way -= 1

    def succeeded(self) -> None:
        self.failures, self.rest_until_ms = 0, 0

    def failed(self, now_ms: int, retry_after_ms: int | None, fraction: Callable[[], float]) -> None:
        """The receiver was not there, or was not willing."""
        self.failures += 1
        rest_ms = min(retry_after_ms or 0, RETRY_AFTER_MAX_MS)
        if self.is_down:
            doubled = DOWN_FIRST_MS << min(self.failures - DOWN_AFTER, 10)
            rest_ms = max(rest_ms, jittered(min(doubled, DOWN_MOST_MS), fraction))
        if rest_ms:
            self.rest_until_ms = now_ms + rest_ms


@dataclass(slots=True, eq=False)
class Live:
    """A webhook as it runs. `position` is how far the feed was read for it."""

    hook: Hook
    position: Position
    stored_position: Position
    next_seq: int
    failing_since_ms: int | None = None
    lane: Lane = field(default_factory=Lane)
    over_count: int = 0  # of its log
    over_size_bytes: int = 0
    timer: Handle | None = None

    @classmethod
    def of(cls, hook: Hook, state: HookState) -> "Live":
        return cls(hook, state.position, state.position, state.next_seq, state.failing_since_ms)

    def new_seq(self) -> int:
        self.next_seq += 1
        return self.next_seq - 1


def retry_in_ms(round: int, retry_after_ms: int | None, fraction: Callable[[], float]) -> int | None:
    """How long to wait after `round` attempts that failed; None to give up. `fraction` is random, 0 to 1."""
    if round > len(RETRY_MS):
        return None
    return max(jittered(RETRY_MS[round - 1], fraction), min(retry_after_ms or 0, RETRY_AFTER_MAX_MS))


def jittered(delay_ms: int, fraction: Callable[[], float]) -> int:
    return delay_ms + int(delay_ms * JITTER * fraction())
