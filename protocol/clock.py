"""Hybrid logical clocks: 48 bits of milliseconds, 16 bits of counter, in one integer.

Room: arithmetic on timestamps. The wall clock is handed in as `now_ms`. After
Kulkarni et al., "Logical Physical Clocks" (2014): never behind what was seen,
never far ahead of the wall clock. Timestamps order what is displayed; they give
no rights and detect no conflicts.
"""

from protocol.limits import CLOCK_AHEAD_MAX_MS

Hlc = int
COUNTER_BITS = 16
HLC_MAX = (1 << 64) - 1


def hlc_of_ms(now_ms: int) -> Hlc:
    """The first timestamp of a millisecond."""
    return now_ms << COUNTER_BITS


def ms_of_hlc(hlc: Hlc) -> int:
    """Milliseconds since 1970 (UTC) that a timestamp stands for."""
    return hlc >> COUNTER_BITS


def is_due(hlc: Hlc, now_ms: int) -> bool:
    """Whether a commit of this timestamp may be materialised now."""
    return hlc <= last_due(now_ms)


def last_due(now_ms: int) -> Hlc:
    """The last timestamp that `is_due`."""
    return hlc_of_ms(now_ms + CLOCK_AHEAD_MAX_MS + 1) - 1


def due_ms(hlc: Hlc) -> int:
    """The first moment at which `is_due`."""
    return ms_of_hlc(hlc) - CLOCK_AHEAD_MAX_MS


class HybridClock:
    """The clock of one author. Not thread-safe: it belongs to whoever writes commits."""

    def __init__(self, last: Hlc = 0) -> None:
        self.last = last

    def tick(self, now_ms: int) -> Hlc:
        """A timestamp later than every one given or observed before."""
        self.last = max(self.last + 1, hlc_of_ms(now_ms))
        return self.last

    def observe(self, hlc: Hlc, now_ms: int) -> None:
        """Take note of another's timestamp. One that is too far ahead never drags this clock along."""
        if is_due(hlc, now_ms) and hlc > self.last:
            self.last = hlc
