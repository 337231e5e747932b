"""Which changes go to the disk together, and in which order, over an integrator that takes as long as a test wants."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from node.writer import GROUP_EDITS_MAX, QUIET_GROUPS, RECEIVED_EDITS_MAX, Writer, WriterOverloaded
from storage.changes import AnyChange, Received, Written
from storage.feed_entry import FeedEntry
from storage.integrator import Integrator

ENTRY: Any = object()


class Slow:
    """In place of an integrator: notes each group, and stores it when it is told to."""

    def __init__(self) -> None:
        self.indexer: Any = type("Indexer", (), {"is_stale": False, "refill": staticmethod(lambda: False)})
        self.groups: list[list[str]] = []
        self.names: dict[int, str] = {}
        self.may_store = threading.Semaphore(0)

    def write(self, changes: Sequence[AnyChange], now_ms: int, on_durable: object = None) -> Written:
        self.groups.append([self.names[id(change)] for change in changes])
        assert self.may_store.acquire(timeout=60)
        return Written([None for _ in changes], entries=[ENTRY], arrival=1)


class Scene:
    def __init__(self, writer: Writer, slow: Slow) -> None:
        self.writer = writer
        self.slow = slow
        self._changes: list[AnyChange] = []  # alive, so that no two have one id

    def ask(self, name: str) -> "asyncio.Future[Any]":
        """A change that is asked for here."""
        return self._submit(name, lambda local: None)

    def hear(self, name: str, bodies: int = GROUP_EDITS_MAX) -> "asyncio.Future[Any]":
        """Commits from a peer."""
        commit: Any = type("Commit", (), {"bodies": (b"",) * bodies})
        return self._submit(name, Received([commit]))

    def _submit(self, name: str, change: AnyChange) -> "asyncio.Future[Any]":
        self._changes.append(change)
        self.slow.names[id(change)] = name
        return self.writer.submit(change)


@asynccontextmanager
async def scene(
    on_written: Callable[[Sequence[FeedEntry]], None] = lambda entries: None,
    on_stored: Callable[[Written], None] = lambda written: None,
) -> AsyncIterator[Scene]:
    slow: Any = Slow()
    integrator: Integrator = slow
    log = logging.getLogger("tests")
    writer = Writer(integrator, now_ms=lambda: 0, on_written=on_written, on_stored=on_stored, log=log)
    writer.start()
    try:
        yield Scene(writer, slow)
    finally:
        slow.may_store.release(1_000)
        if writer._thread.is_alive():
            await writer.stop()


async def test_what_is_asked_for_here_goes_before_what_peers_have_sent_and_then_it_is_their_turn() -> None:
    async with scene() as at:
        at.hear("first")
        for name in ("second", "third"):
            at.hear(name)
        asked = [at.ask("one"), at.ask("two")]
        at.slow.may_store.release(2)
        await asyncio.gather(*asked)
        last = at.hear("fourth")
        at.slow.may_store.release(3)
        await last
        assert at.slow.groups == [["first"], ["one", "two"], ["second"], ["third"], ["fourth"]]


async def test_however_much_is_asked_for_here_what_peers_have_sent_is_stored_in_every_second_group() -> None:
    async with scene() as at:
        at.ask("first")
        heard = [at.hear(f"heard {number}") for number in range(2)]
        for number in range(3 * GROUP_EDITS_MAX):
            at.ask(f"asked {number}")
        at.slow.may_store.release(5)
        await asyncio.gather(*heard)
        groups = [group[0].split()[0] for group in at.slow.groups]
        assert groups[:5] == ["first", "asked", "heard", "asked", "heard"]


async def test_while_nobody_writes_here_what_peers_have_sent_goes_in_larger_groups() -> None:
    together = RECEIVED_EDITS_MAX // GROUP_EDITS_MAX
    assert together > 1
    async with scene() as at:
        heard = [at.hear(str(number)) for number in range(QUIET_GROUPS + 2 * together)]
        at.slow.may_store.release(QUIET_GROUPS + 2)
        await asyncio.gather(*heard)
        assert [len(group) for group in at.slow.groups] == [1] * QUIET_GROUPS + [together] * 2
        del at.slow.groups[:]
        asked, heard = at.ask("asked"), [at.hear(str(number)) for number in range(together)]
        at.slow.may_store.release(1 + together)
        await asyncio.gather(asked, *heard)
        assert [len(group) for group in at.slow.groups] == [1] * (1 + together)


async def test_what_is_small_shares_a_group_whoever_wrote_it() -> None:
    async with scene() as at:
        at.ask("first")
        heard, asked = at.hear("heard", bodies=1), at.ask("asked")
        at.slow.may_store.release(2)
        await asyncio.gather(heard, asked)
        assert at.slow.groups == [["first"], ["asked", "heard"]]


async def test_subscribers_hear_of_what_a_peer_has_sent_before_other_peers_and_the_peer_itself() -> None:
    told: list[str] = []

    def on_written(entries: Sequence[FeedEntry]) -> None:
        asyncio.get_running_loop().call_soon(told.append, "subscriber")

    async with scene(on_written, lambda written: told.append("other peers")) as at:
        heard = at.hear("heard")
        heard.add_done_callback(lambda _: told.append("peer"))
        at.slow.may_store.release()
        await heard
        await asyncio.sleep(0)
    assert told == ["subscriber", "other peers", "peer"]


async def test_a_writer_that_stops_stores_what_peers_have_sent_and_a_frozen_one_refuses_it() -> None:
    async with scene() as at:
        heard = [at.hear(name) for name in ("first", "second")]
        at.slow.may_store.release(2)
        await at.writer.stop()
        assert all(future.done() and future.exception() is None for future in heard)
        with pytest.raises(WriterOverloaded):
            at.hear("late")
    async with scene() as at:
        first, second = at.hear("first"), at.hear("second")
        at.writer.freeze("this node goes on as another")
        with pytest.raises(WriterOverloaded, match="as another"):
            await second
        at.slow.may_store.release()
        await first
