"""Noticing that the network has changed, by looking again and again."""

import asyncio
import logging

from node.net.watch import ASLEEP_MS, Watch, addresses_of_machine
from tests.node.fakes import Clock


class Watched:
    """A watch whose every look is asked for."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, ...] | OSError] = []
        self.told: asyncio.Queue[tuple[tuple[str, ...], bool]] = asyncio.Queue()
        self.clock = Clock()
        self.failure: Exception | None = None
        self.watch = Watch(
            self.look, self.on_look, clock_ms=self.clock, log=logging.getLogger("tests.watch"), every_s=0
        )

    def look(self) -> tuple[str, ...]:
        seen = self.seen.pop(0) if len(self.seen) > 1 else self.seen[0]
        if isinstance(seen, OSError):
            raise seen
        return seen

    async def on_look(self, addresses: tuple[str, ...], has_changed: bool) -> None:
        failure, self.failure = self.failure, None
        await self.told.put((addresses, has_changed))
        if failure is not None:
            raise failure

    async def changes(self, count: int) -> list[tuple[tuple[str, ...], bool]]:
        self.watch.start()
        async with asyncio.timeout(60):
            told = [await self.told.get() for _ in range(count)]
        await self.watch.stop()
        return told


async def test_only_what_differs_from_the_look_before_is_a_change() -> None:
    watched = Watched()
    watched.seen = [("a",), ("a",), ("a", "b"), (), ("a",), ("a",)]
    told = await watched.changes(6)
    assert [changed for _, changed in told] == [False, False, True, True, True, False]
    assert told[2][0] == ("a", "b")


async def test_where_the_system_does_not_tell_nothing_has_changed() -> None:
    watched = Watched()
    watched.seen = [("a",), OSError("no"), ("a",)]
    assert [changed for _, changed in await watched.changes(3)] == [False, False, False]


async def test_a_machine_that_slept_is_in_a_new_place() -> None:
    watched = Watched()
    watched.seen = [("a",)]

    naps = iter([0, ASLEEP_MS + 1, 0, 0, 0])

    async def later(addresses: tuple[str, ...], has_changed: bool) -> None:
        watched.clock.pass_s(next(naps, 0) / 1_000)
        await watched.told.put((addresses, has_changed))

    watched.watch._on_look = later
    assert [changed for _, changed in await watched.changes(4)] == [False, False, True, False]


async def test_a_listener_that_fails_is_told_of_the_next_look_all_the_same() -> None:
    watched = Watched()
    watched.seen = [("a",), ("b",)]
    watched.failure = RuntimeError("a bug")
    assert [changed for _, changed in await watched.changes(2)] == [False, True]


def test_this_machine_can_be_looked_at() -> None:
    addresses = addresses_of_machine()
    assert list(addresses) == sorted(set(addresses))
    assert not any(address.startswith(("127.", "fe80:")) or address == "::1" for address in addresses)
