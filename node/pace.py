"""Whoever works long gives way to requests: its thread is one of many that take turns at one interpreter.

Room: whether the loop is wanted, and pauses for threads that look at that. Reading runs, taking windows apart and
storing what peers sent look here at every step. While nobody waits they go on at full speed; while somebody does, they
work a little and rest a little, so a flood of requests slows them down and never stops them.

The loop cannot tell by itself that it is wanted: it would have to get its turn first. A thread that calls an engine
every few microseconds lets go of the interpreter at each call, for too short to be taken up by another that waits,
and often enough to keep it from insisting. So threads look whether anything has come in that the loop has not read
yet, which the system tells anybody of a selector; the loop tells of what it has read and not answered.
"""

import select
import sys
import time
from collections.abc import Callable

BRIEF_S = 0.02  # a request that takes longer waits for something else: nobody gives way to it any more
# A pause takes longer than it says, by what it takes to wake up.
WORK_S = 0.000_5
PAUSE_S = 0.000_4
# How long a thread keeps the interpreter while another one insists, as long as nobody has asked for anything for a
# while: to change hands takes time, and a catch-up took a tenth to a quarter longer at a fifth of this (measured on
# two cores). A request that has to wait so long again and again takes tens of milliseconds.
LONG_TURN_S = 0.001
QUIET_S = 0.1


class Pace:
    """Requests under way. The loop writes, any thread reads `until`."""

    def __init__(self, selector: int | None = None, clock: Callable[[], float] = time.perf_counter) -> None:
        """`selector` is the descriptor of what the loop waits at; None if there is none that can be asked."""
        self.selector = selector
        self.clock = clock
        self.until = 0.0  # by `clock`: so long somebody is known to wait
        self._began: dict[int, float] = {}  # by the number that stands for a request; newest last
        self._asked_at = clock()
        self._turn_s: float | None = None  # how long turns are else, while what works long may lengthen them

    def begin(self, request: int) -> None:
        """A request is under way."""
        self._began[request] = self._asked_at = began = self.clock()
        self.until = began + BRIEF_S
        if self._turn_s is not None:
            sys.setswitchinterval(self._turn_s)

    def end(self, request: int) -> None:
        """It has been answered."""
        self._began.pop(request, None)
        self.until = next(reversed(self._began.values()), -BRIEF_S) + BRIEF_S

    def begin_long(self) -> None:
        """From now on, threads that look here do most of the work."""
        if self._turn_s is None:
            self._turn_s = round(
                sys.getswitchinterval(), 6
            )  # else it would be cut to a microsecond less each time

    def end_long(self) -> None:
        """Not any more."""
        if self._turn_s is not None:
            sys.setswitchinterval(self._turn_s)
            self._turn_s = None

    def is_wanted(self, now: float) -> bool:
        """Whether somebody is known to wait. If nobody has asked for a while, turns become longer."""
        turn_s = self._turn_s
        if turn_s is not None and now - self._asked_at > QUIET_S:
            sys.setswitchinterval(max(turn_s, LONG_TURN_S))
        return now < self.until


class Pauses:
    """For one thread, which calls it at every step, every tenth of a millisecond or so."""

    def __init__(self, pace: Pace, sleep: Callable[[float], None] = time.sleep) -> None:
        self._pace = pace
        self._sleep = sleep
        self._due = 0.0
        self._poll: select.poll | None = None
        if pace.selector is not None:
            self._poll = select.poll()
            self._poll.register(pace.selector, select.POLLIN)

    def __call__(self) -> None:
        """Rest for a moment, if somebody waits and this thread has worked since the last time."""
        now = self._pace.clock()
        if now < self._due:
            return
        if self._pace.is_wanted(now) or (self._poll is not None and self._poll.poll(0)):
            self._sleep(PAUSE_S)
            now = self._pace.clock()
        self._due = now + WORK_S
