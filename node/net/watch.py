"""Noticing that the network has changed: an interface came or went, or the machine was asleep.

Room: looking, every few seconds, on every platform alike. What follows from a change is the listener's. A look
takes a fraction of a millisecond.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

LOOK_EVERY_S = 5.0
ASLEEP_MS = 15_000  # between two looks, by the wall clock: the machine slept, or its clock was set

Look = Callable[[], tuple[str, ...]]


def addresses_of_machine() -> tuple[str, ...]:
    """Every address of this machine that others may reach it at, in order.

    Those that mean something on one interface only (IPv6 link-local) are left out. Blocks for a moment.

    Raises OSError where the system does not tell.
    """
    import ifaddr

    found: set[str] = set()
    for adapter in ifaddr.get_adapters():
        for held in adapter.ips:
            address = held.ip if isinstance(held.ip, str) else held.ip[0]
            if not address.startswith(("127.", "fe80:")) and address != "::1":
                found.add(address)
    return tuple(sorted(found))


class Watch:
    """Looks around until it is stopped."""

    def __init__(
        self,
        look: Look,
        on_look: Callable[[tuple[str, ...], bool], Awaitable[None]],
        *,
        clock_ms: Callable[[], int],
        log: logging.Logger,
        every_s: float = LOOK_EVERY_S,
    ) -> None:
        """`on_look` is told the addresses after each look, and whether something has changed since the last."""
        self._look = look
        self._on_look = on_look
        self._clock_ms = clock_ms
        self._log = log
        self._every_s = every_s
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        before: tuple[str, ...] | None = None
        looked_ms = self._clock_ms()
        while True:
            now_ms = self._clock_ms()
            was_asleep = abs(now_ms - looked_ms) > self._every_s * 1_000 + ASLEEP_MS
            looked_ms = now_ms
            try:
                seen = await asyncio.to_thread(self._look)
            except OSError:
                seen = before or ()
            has_changed = (before is not None and seen != before) or was_asleep
            before = seen
            try:
                await self._on_look(seen, has_changed)
            except Exception:
                self._log.exception("a change of the network was not followed")
            await asyncio.sleep(self._every_s)
