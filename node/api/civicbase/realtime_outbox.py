"""What one realtime socket may cost, and what waits for it to be taken.

Room: the limits of a socket and a bounded queue of messages. What is in them is `realtime_session`'s.
"""

from collections import deque
from dataclasses import dataclass

_CREDIT_MAX_MS = 1000.0  # what a client has saved up at most: one second's messages


@dataclass(frozen=True, slots=True)
class Limits:
    """What one socket may cost."""

    subscriptions_max: int = 1_000  # models and instances, all messages together
    messages_per_s_max: int = 100
    messages_ahead_max_s: int = 10  # a client so far beyond that rate is no mistake: the socket is closed
    authenticate_within_ms: int = 5_000
    queue_size_max_bytes: int = 1 << 20  # plus one event, which may be larger than that by itself
    queue_frames_max: int = 4_096
    replay_size_max_bytes: int = 256 << 10  # read ahead from the record; the rest is room for live events
    replay_frames_max: int = 256


class Pace:
    """How often a client speaks: each message costs its share of a second, which passing time gives back."""

    def __init__(self, messages_per_s_max: int, now_ms: int) -> None:
        self._cost_ms = 1000 / messages_per_s_max
        self._credit_ms = _CREDIT_MAX_MS
        self._at_ms = now_ms

    def wait_ms(self, now_ms: int) -> float:
        """A message has come, refused ones too. How long the client should have waited with it, 0 if it was time."""
        self._credit_ms = min(_CREDIT_MAX_MS, self._credit_ms + max(0, now_ms - self._at_ms))
        self._at_ms = now_ms
        self._credit_ms -= self._cost_ms
        return max(0.0, -self._credit_ms)


Frame = tuple[bytes, ...]  # the parts of one message


class Outbox:
    """Messages that wait for the socket to take them."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._frames: deque[Frame] = deque()
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def is_full(self) -> bool:
        """Whether no more events go in, and no message is to be followed that would be answered."""
        limits = self._limits
        return self.size_bytes >= limits.queue_size_max_bytes or len(self._frames) >= limits.queue_frames_max

    @property
    def is_ahead(self) -> bool:
        """Whether what is read from the record should wait until the client has taken some."""
        limits = self._limits
        return (
            self.size_bytes >= limits.replay_size_max_bytes or len(self._frames) >= limits.replay_frames_max
        )

    def put(self, *parts: bytes) -> None:
        self._frames.append(parts)
        self.size_bytes += sum(map(len, parts))

    def take(self, size_max_bytes: int) -> list[Frame]:
        """Messages from the front: at least one if there is any, more while they fit."""
        taken: list[Frame] = []
        size_bytes = 0
        while self._frames and size_bytes < size_max_bytes:
            frame = self._frames.popleft()
            taken.append(frame)
            size_bytes += sum(map(len, frame))
        self.size_bytes -= size_bytes
        return taken

    def clear(self) -> None:
        self._frames.clear()
        self.size_bytes = 0
