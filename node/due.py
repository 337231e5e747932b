"""Wakes the writer when commits that came too early are due.

Room: one timer. A commit from a device whose clock is far ahead is kept and its changes wait (SPEC, "Clocks");
the writer applies them with whatever it writes next, and on a quiet node nothing is written. Time is handed in.
"""

import logging
from collections.abc import Callable
from typing import Any, Protocol

from storage.changes import AnyChange
from storage.errors import StorageError

LOOK_AGAIN_S = 60.0  # a clock that is set forward is noticed this late
RETRY_S = 5.0


class Handle(Protocol):
    def cancel(self) -> None: ...


class Timers(Protocol):
    """An event loop, or what stands in for one."""

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any) -> Handle: ...


class DueTimer:
    """`look` after every group of writes and at the start; `stop` at the end. For one event loop."""

    def __init__(
        self,
        *,
        next_due_ms: Callable[[], int | None],
        submit: Callable[[AnyChange], Any],
        now_ms: Callable[[], int],
        timers: Timers,
        log: logging.Logger,
    ) -> None:
        self._next_due_ms = next_due_ms
        self._submit = submit
        self._now_ms = now_ms
        self._timers = timers
        self._log = log
        self._armed: tuple[int, Handle] | None = None  # for which moment

    def look(self) -> None:
        """Something may be due at another time than before."""
        due_ms = self._next_due_ms()
        if due_ms is None:
            self.stop()
        elif self._armed is None or self._armed[0] != due_ms:
            self._arm(due_ms, (due_ms - self._now_ms()) / 1_000)

    def stop(self) -> None:
        if self._armed is not None:
            self._armed[1].cancel()
            self._armed = None

    def _arm(self, due_ms: int, delay_s: float) -> None:
        self.stop()
        delay_s = min(max(0.0, delay_s), LOOK_AGAIN_S)
        self._armed = due_ms, self._timers.call_later(delay_s, self._ring)

    def _ring(self) -> None:
        self._armed = None
        due_ms = self._next_due_ms()
        if due_ms is None:
            return
        wait_ms = due_ms - self._now_ms()
        if wait_ms > 0:
            self._arm(due_ms, wait_ms / 1_000)
            return
        self._arm(due_ms, RETRY_S)  # should it fail; `look` follows when it does not
        try:
            written = self._submit(lambda local: None)
        except StorageError as error:
            self._log.warning("what is due could not be applied: %s", error)
        else:
            written.add_done_callback(self._written)

    def _written(self, done: Any) -> None:
        if not done.cancelled() and (error := done.exception()) is not None:
            self._log.warning("what is due could not be applied: %s", error)
