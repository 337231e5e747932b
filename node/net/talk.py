"""A sync session on a link: its effects go to the clerk, its news to the owner.

Room: the `Speaker` that runs between two nodes of a network. What is said is `protocol.session`'s; which nodes
talk, and what follows when one is behind or forked, is `peers`'. Keeps how far the peer has been followed, but
not every step: an older cursor costs an offer of what has arrived since, and a write costs two flushes.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from node.net.link import Link, Speaker, State
from protocol.exchange import (
    Answer,
    Arrived,
    Begin,
    ChainRefused,
    Close,
    Compare,
    Compared,
    Diverged,
    Effect,
    Ended,
    Event,
    ForkFound,
    Input,
    InSync,
    LoadArrivals,
    LoadHeads,
    LoadRuns,
    News,
    PeerHolds,
    PeerMisbehaved,
    RolledBack,
    Unacquainted,
    WindowStored,
)
from protocol.handshake import Peer
from protocol.session import SyncSession

CURSOR_EVERY_MS = 60_000
LAGS_MAX = 64  # moments remembered; the last of them stands for all later ones


class Desk(Protocol):
    """Who carries out effects: `node.net.clerk`."""

    def perform(
        self, effect: Effect, reply: Callable[[Answer | Exception], None], is_wanted: Callable[[], bool]
    ) -> None: ...


class Listener(Protocol):
    """Who hears what a session tells: `node.net.peers`."""

    def on_news(self, talk: "SyncTalk", news: News) -> None: ...

    def keep_cursor(self, peer: Peer, position: int) -> None:
        """Keep it some time; not at once, and not if the node dies before."""


@dataclass(slots=True)
class _Lag:
    """What the peer has not confirmed yet: since when, and up to where that was measured."""

    since_ms: int
    position: int


class SyncTalk(Speaker):
    """One session on one link."""

    def __init__(
        self,
        link: Link,
        session: SyncSession,
        peer: Peer,
        *,
        desk: Desk,
        listener: Listener,
        steady_ms: Callable[[], int],
        position: int,
    ) -> None:
        """`position` is our newest arrival, as far as the owner knows."""
        self.link = link
        self.session = session
        self.peer = peer
        self.began_ms = steady_ms()
        self.in_sync_ms: int | None = None  # when both were last known to hold the same
        self._desk = desk
        self._listener = listener
        self._steady_ms = steady_ms
        self._position = position
        self._told_position = position
        self._held: deque[Effect] = deque()  # that would make more output while the link is full
        self._lags: deque[_Lag] = deque()
        self._fault: str | None = None  # of our own, for which the link ends
        self._cursor: int | None = None  # to be kept
        self._cursor_kept_ms = steady_ms() - CURSOR_EVERY_MS
        if position:
            self._lags.append(_Lag(steady_ms(), position))

    # -- the face towards the link

    @property
    def machine(self) -> SyncSession:
        return self.session

    def begin(self) -> None:
        self._give(Begin())

    def on_event(self, event: Event) -> None:
        match event:
            case LoadRuns() | LoadHeads() | LoadArrivals() if self.link.is_full:
                self._held.append(event)
            case InSync(position):
                self.in_sync_ms = self._steady_ms()
                self._note_cursor(position)
                self._listener.on_news(self, event)
            case Ended(reason):
                self.link.end(reason, self._fault)
                self._listener.on_news(self, event)
            case PeerMisbehaved(reason):
                self.link.end(reason, event.kind)
                self._listener.on_news(self, event)
            case RolledBack():
                self.link.end("the peer holds commits of ours that are not here")
                self._listener.on_news(self, event)
            case Unacquainted():
                self.on_end()
                self._listener.on_news(self, event)
            case Compared() | PeerHolds() | ForkFound() | ChainRefused() | Diverged() | WindowStored():
                self._listener.on_news(self, event)
            case _:
                self._perform(event)

    def on_writable(self) -> None:
        while self._held and not self.link.is_full:
            self._perform(self._held.popleft())
        if not self.link.is_full and self._told_position < self._position:
            self._tell(Arrived(self._position))

    def on_end(self) -> None:
        self._held.clear()
        if self._cursor is not None:
            self._listener.keep_cursor(self.peer, self._cursor)
            self._cursor = None

    # -- the face towards the owner

    def arrived(self, arrived: Arrived) -> None:
        """Our order of arrival has grown."""
        if arrived.position <= self._position:
            return
        self._position = arrived.position
        if len(self._lags) < LAGS_MAX:
            self._lags.append(_Lag(self._steady_ms(), arrived.position))
        else:
            self._lags[-1].position = arrived.position
        if not self.link.is_full:
            self._tell(arrived)

    def compare(self) -> None:
        """Ask the peer what it holds, as soon as nothing is under way."""
        self._give(Compare())

    def close(self, reason: str) -> None:
        """End the conversation, and tell the peer why."""
        self._give(Close(reason))

    @property
    def is_open(self) -> bool:
        return self.link.state is State.OPEN and not self.session.is_closed

    @property
    def is_in_sync(self) -> bool:
        """Whether both sides hold the same, as far as this one knows."""
        return self.is_open and self.session.is_in_sync and self.lag_arrivals == 0

    def was_compared_since(self, since_ms: int) -> bool:
        """Whether it is in sync, and the peer has been asked since then, be it by way of beginning."""
        asked_ms = self.in_sync_ms if self.began_ms >= since_ms else self.session.compared_ms
        return self.is_in_sync and asked_ms is not None and asked_ms >= since_ms

    @property
    def lag_arrivals(self) -> int:
        """How much of what has arrived here the peer has not confirmed."""
        return max(0, self._position - self.session.settled_position)

    @property
    def lag_ms(self) -> int:
        """For how long the peer has been behind; within the time of one answer if it keeps up."""
        settled = self.session.settled_position
        while self._lags and self._lags[0].position <= settled:
            self._lags.popleft()
        return self._steady_ms() - self._lags[0].since_ms if self._lags and self.lag_arrivals else 0

    # -- in between

    def _tell(self, arrived: Arrived) -> None:
        self._told_position = self._position
        self._give(arrived)

    def _give(self, given: Input) -> None:
        if self.is_open or isinstance(given, Begin):
            self.link.step(self.session.send(given, self._steady_ms()))

    def _perform(self, effect: Effect) -> None:
        self._desk.perform(effect, self._answered, lambda: self.is_open)

    def _answered(self, answer: Answer | Exception) -> None:
        if not self.is_open:
            return
        if isinstance(answer, Exception):
            self._fault = "storage"
            self._give(Close("this node cannot go on"))
        else:
            self._give(answer)

    def _note_cursor(self, position: int) -> None:
        if position == self._cursor:
            return
        self._cursor = position
        now_ms = self._steady_ms()
        if now_ms >= self._cursor_kept_ms + CURSOR_EVERY_MS:
            self._cursor_kept_ms = now_ms
            self._cursor = None
            self._listener.keep_cursor(self.peer, position)
