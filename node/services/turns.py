"""Turns: one at a time for whoever names the same key.

Room: in-memory, on one event loop. It orders requests that would otherwise race each other
(two sign-ins to one account, two edits of one profile); what must survive a crash is guarded in
the writer's transaction instead.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from node.services.refusals import TooBusy

WAITING_MAX = 32  # for one key; a person has a handful of apps, an attacker any number


class _Turn:
    __slots__ = ("lock", "users")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.users = 0


class Turns:
    def __init__(self, *, waiting_max: int = WAITING_MAX) -> None:
        self._waiting_max = waiting_max
        self._turns: dict[str, _Turn] = {}

    @asynccontextmanager
    async def take(self, key: str) -> AsyncIterator[None]:
        """Wait for the turn of `key`, in order of asking. Raises TooBusy when the queue is full."""
        turn = self._turns.get(key)
        if turn is None:
            turn = self._turns[key] = _Turn()
        if turn.users > self._waiting_max:
            raise TooBusy("too many wait already")
        turn.users += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.users -= 1
            if not turn.users:
                del self._turns[key]
