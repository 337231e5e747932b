"""Random bytes from the operating system, drawn a few thousand at a time.

Room: buffering. Each draw is a system call, for which Python lets another thread in; beside a busy writer the
loop then waits a fifth of a millisecond for its turn, on every id it makes.
"""

import os
import threading

_DRAWN_BYTES = 4_096


class RandomPool:
    """As good as `os.urandom`, whose output it hands out, each byte once. From any thread."""

    def __init__(self) -> None:
        self._held = b""
        self._used = 0
        self._lock = threading.Lock()

    def bytes(self, size: int) -> bytes:
        """`size` fresh random bytes."""
        if size > _DRAWN_BYTES // 4:
            return os.urandom(size)
        with self._lock:
            end = self._used + size
            if end > len(self._held):
                self._held, end = os.urandom(_DRAWN_BYTES), size
            self._used = end
            return self._held[end - size : end]

    def bits(self, count: int) -> int:
        """An integer of `count` random bits; `count` is a multiple of 8."""
        return int.from_bytes(self.bytes(count // 8), "big")
