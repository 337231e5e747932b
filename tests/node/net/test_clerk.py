"""On which thread what is done: windows do not hold up what others ask, and nothing that fails stops the rest."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from node.net.clerk import BRIEF_WINDOW_BYTES, SMALL_WINDOW_BYTES, Clerk
from node.pace import Pace, Pauses
from protocol.commit import DEP_HASH_BYTES
from protocol.exchange import (
    EVERYTHING,
    Answer,
    Effect,
    FindLacking,
    IntegrateWindow,
    LackingFound,
    LoadHeads,
    LoadRuns,
    LoadState,
    RunsLoaded,
    StateLoaded,
    WindowIntegrated,
)
from protocol.messages import SpaceTips, Tip
from storage.changes import AnyChange
from storage.errors import StorageError, StorageFull
from storage.exchange import unpacked
from storage.windows import SLICE_BODIES_MAX
from tests.protocol.dialogue import NOW_MS, Record

NAMES = ("app/default", "system")


def window_of(record: Record, *, after_seq: int = 0) -> IntegrateWindow:
    """Everything that a record has written."""
    keys = [(record.store.system, record.author), (record.store.space("default"), record.author)]
    wants = tuple((key, after_seq if key[0] != record.store.system else 0) for key in keys)
    loaded = record.exchange.perform(LoadRuns(wants, 4 << 20))
    assert isinstance(loaded, RunsLoaded) and loaded.window is not None
    return IntegrateWindow(loaded.window, NAMES, EVERYTHING)


class Desk:
    """A clerk over a record in memory, whose writer takes as long as the test wants."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.clerk = Clerk(record.store, self._submit, logging.getLogger("tests"), Pace())
        self.written: list[AnyChange] = []
        self.gate: asyncio.Event | None = None  # what the writer waits for
        self.failure: Exception | None = None
        self.answers: list[tuple[str, Answer | Exception]] = []
        self.changed = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()

    def _submit(self, change: AnyChange) -> "asyncio.Future[Any]":
        task = asyncio.get_running_loop().create_task(self._write(change))
        self._tasks.add(task)
        return task

    async def _write(self, change: AnyChange) -> Any:
        if self.gate is not None:
            await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        self.written.append(change)
        self.changed.set()
        return self.record.integrator.write_one(change, NOW_MS)

    def ask(self, name: str, effect: Effect, is_wanted: Any = lambda: True) -> None:
        def reply(answer: Answer | Exception) -> None:
            self.answers.append((name, answer))
            self.changed.set()

        self.clerk.perform(effect, reply, is_wanted)

    async def until(self, count: int) -> None:
        """So many answers have come."""
        await self.until_true(lambda: len(self.answers) >= count)

    async def until_true(self, condition: Callable[[], bool]) -> None:
        """It holds, after something was written or answered."""
        async with asyncio.timeout(60):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def until_idle(self) -> None:
        """The thread of the record has nothing to do."""
        async with asyncio.timeout(60):
            while self.clerk._record._left:  # noqa: ASYNC110  # what is waited for has no event
                await asyncio.sleep(0)

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.answers]


@asynccontextmanager
async def desk(record: Record) -> AsyncIterator[Desk]:
    made = Desk(record)
    made.clerk.start()
    try:
        yield made
    finally:
        await made.clerk.stop()


def newest(record: Record) -> bytes:
    with record.store.read() as snapshot:
        head = snapshot.head(record.store.space("default"), record.author)
    assert head is not None
    return head.hash[:DEP_HASH_BYTES]


def state_of(record: Record) -> LoadState:
    return LoadState(record.author, "epoch", EVERYTHING)


async def test_what_others_ask_is_answered_while_a_window_is_taken_in() -> None:
    here, there = Record("here"), Record("there")
    there = Record("there", founder=here)
    for number in range(3 * SLICE_BODIES_MAX):
        here.put(f"d{number}", title="x")
    async with desk(there) as at:
        at.gate = asyncio.Event()
        at.ask("window", window_of(here))
        at.ask("state", state_of(here))
        at.ask("heads", LoadHeads("app/default", b"", 10))
        await at.until(2)
        assert at.names == ["state", "heads"]
        at.gate.set()
        await at.until(3)
        answer = at.answers[2][1]
        assert isinstance(answer, WindowIntegrated) and answer.integrated == 3 * SLICE_BODIES_MAX + 1
        assert len(at.written) >= 4  # slices, so that what is asked for on the node gets in between
    assert there.fingerprint() == here.fingerprint()


async def test_what_is_lacking_is_said_once_the_windows_before_are_in() -> None:
    here = Record("here")
    there = Record("there", founder=here)
    for number in range(2 * SLICE_BODIES_MAX):
        here.put(f"d{number}", title="x")
    tips = SpaceTips("app/default", (Tip(here.author, 2 * SLICE_BODIES_MAX, newest(here)),))
    async with desk(there) as at:
        at.gate = asyncio.Event()
        at.ask("window", window_of(here))  # from one peer
        at.ask("lacking", FindLacking((tips,)))  # as another asks
        at.ask("state", state_of(here))
        await at.until(1)
        assert at.names == ["state"]
        at.gate.set()
        await at.until(3)
        assert at.names == ["state", "window", "lacking"]
        assert at.answers[2][1] == LackingFound((), ())  # else all of it would be sent twice


async def test_windows_are_taken_in_one_at_a_time_in_the_order_in_which_they_came() -> None:
    here = Record("here")
    there = Record("there", founder=here)
    for number in range(600):
        here.put(f"d{number}", title="x")
    first = window_of(here)
    here.put("last", title="y")
    second = window_of(here, after_seq=600)
    assert len(second.data) <= SMALL_WINDOW_BYTES < len(first.data)
    async with desk(there) as at:
        at.ask("large", first)
        at.ask("small", second)  # would overtake the large one, which is taken apart on another thread
        await at.until(2)
        assert at.names == ["large", "small"]
        assert all(isinstance(answer, WindowIntegrated) and not answer.waiting for _, answer in at.answers)
    assert there.seq(here.author) == 601


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """On which threads windows were taken apart, one after the other."""
    found: list[str] = []

    def noting(effect: IntegrateWindow, *on_step: Callable[[], None]) -> Any:
        found.append(threading.current_thread().name)
        return unpacked(effect, *on_step)

    monkeypatch.setattr("node.net.clerk.unpacked", noting)
    return found


async def test_a_large_window_is_taken_apart_on_a_thread_of_its_own(threads: list[str]) -> None:
    here = Record("here")
    there = Record("there", founder=here)
    for number in range(300):
        here.put(f"d{number}", title="some text that makes it larger")
    async with desk(there) as at:
        at.ask("large", window_of(here))
        await at.until(1)
        here.put("one", title="more" * (BRIEF_WINDOW_BYTES // 4))
        at.ask("small", window_of(here, after_seq=300))
        await at.until(2)
    assert threads == ["sync windows", "sync"]


async def test_threads_rest_while_somebody_waits_and_the_loop_never_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rested: list[str] = []
    monkeypatch.setattr(Pauses, "__call__", lambda pauses: rested.append(threading.current_thread().name))
    here = Record("here")
    there = Record("there", founder=here)
    for number in range(300):
        here.put(f"d{number}", title="some text that makes it larger")
    async with desk(there) as at:
        at.ask("large", window_of(here))
        await at.until(1)
        await at.until_idle()
        assert {*rested} == {"sync windows", "sync"}
        rested.clear()
        here.put("one", title="y")
        at.ask("brief", window_of(here, after_seq=300))
        await at.until(2)
    assert not rested and there.fingerprint() == here.fingerprint()


async def test_a_commit_that_comes_alone_is_taken_in_without_a_thread(threads: list[str]) -> None:
    here = Record("here")
    there = Record("there", founder=here)
    here.put("first", title="x")
    async with desk(there) as at:
        at.ask("state", state_of(here))  # reads all that has arrived, and so never on the loop
        at.ask("first", window_of(here))
        await at.until(2)
        await at.until_idle()
        here.put("second", title="y")
        at.ask("second", window_of(here, after_seq=1))
        await at.until(3)
    assert threads == ["sync", "MainThread"]
    assert there.fingerprint() == here.fingerprint()


async def test_a_brief_window_waits_its_turn_behind_others(threads: list[str]) -> None:
    here = Record("here")
    there = Record("there", founder=here)
    here.put("first", title="x")
    async with desk(there) as at:
        at.ask("first", window_of(here))
        at.gate = asyncio.Event()
        at.ask("state", state_of(here))
        await at.until(1)
        here.put("second", title="y")
        at.ask("second", window_of(here, after_seq=1))
        at.ask("state", state_of(here))
        await at.until(2)
        assert at.names == ["state", "state"]  # the thread still has the first window under way
        at.gate.set()
        await at.until(4)
        assert at.names[2:] == ["first", "second"]
    assert there.fingerprint() == here.fingerprint()


async def test_beside_what_waits_for_its_causes_nothing_is_taken_in_on_the_loop(threads: list[str]) -> None:
    here = Record("here")
    there, third = Record("there", founder=here), Record("third", founder=here)
    here.put("d", title="x")
    third.exchange.perform(window_of(here))
    third.put("d", title="y")
    chain = (third.store.space("default"), third.author), 0
    effect = third.exchange.perform(LoadRuns((chain,), 4 << 20))
    assert isinstance(effect, RunsLoaded) and effect.window is not None
    async with desk(there) as at:
        at.ask("its causes are missing", IntegrateWindow(effect.window, NAMES, EVERYTHING))
        await at.until(1)
        await at.until_idle()
        at.ask("its causes", window_of(here))
        await at.until(2)
    assert threads == ["sync", "sync"]
    assert there.fingerprint() == third.fingerprint()


async def test_a_bug_on_the_loop_is_logged_and_told_and_the_next_window_is_taken_in(
    threads: list[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Record("here")
    there = Record("there", founder=here)
    here.put("d", title="x")
    async with desk(there) as at:
        at.ask("state", state_of(here))
        await at.until(1)
        await at.until_idle()
        with monkeypatch.context() as patch:
            patch.setattr("storage.exchange.Exchange.integrate", lambda *_: 1 / 0)
            at.ask("odd", window_of(here))
            await at.until(2)
        assert isinstance(at.answers[1][1], ZeroDivisionError)
        at.ask("sound", window_of(here))
        await at.until(3)
    assert threads[-1] == "MainThread"
    assert "an effect of sync failed" in caplog.text
    assert there.fingerprint() == here.fingerprint()


async def test_a_window_that_no_honest_node_sends_is_the_peers_fault_and_keeps_nothing() -> None:
    here = Record("here")
    there = Record("there", founder=here)
    async with desk(there) as at:
        at.ask("noise", IntegrateWindow(b"\x81\x43abc", NAMES, EVERYTHING))
        await at.until(1)
        answer = at.answers[0][1]
        assert isinstance(answer, WindowIntegrated) and answer.fault
        assert at.written == [] and at.clerk.queued_bytes == 0


async def test_a_disk_that_fails_is_told_and_the_window_is_taken_in_when_it_works_again() -> None:
    here = Record("here")
    there = Record("there", founder=here)
    for number in range(2 * SLICE_BODIES_MAX):
        here.put(f"d{number}", title="x")
    async with desk(there) as at:
        at.ask("window", window_of(here))
        await at.until_true(lambda: len(at.written) == 2)  # of three slices, the first of which keeps the run
        at.failure = StorageFull("the disk is full")
        await at.until(1)
        assert isinstance(at.answers[0][1], StorageFull)
        at.failure = None
        assert 0 < there.seq(here.author) < 2 * SLICE_BODIES_MAX
        tip = Tip(here.author, 2 * SLICE_BODIES_MAX, b"p" * 16)
        at.ask("lacking", FindLacking((SpaceTips("app/default", (tip,)),)))  # a link comes up again
        await at.until(2)
        assert there.seq(here.author) == 2 * SLICE_BODIES_MAX  # before the question was answered
    assert there.fingerprint() == here.fingerprint()


async def test_a_bug_is_logged_and_told_and_the_thread_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    here = Record("here")
    async with desk(here) as at:
        at.ask("odd", LoadHeads("app/default", b"", "ten"))  # type: ignore[arg-type]
        at.ask("state", state_of(here))
        await at.until(2)
        assert isinstance(at.answers[0][1], TypeError)
        assert isinstance(at.answers[1][1], StateLoaded)
    assert "an effect of sync failed" in caplog.text


async def test_what_nobody_wants_any_more_is_left_out() -> None:
    here = Record("here")
    there = Record("there", founder=here)
    here.put("d", title="x")
    async with desk(there) as at:
        at.ask("window", window_of(here), lambda: False)
        at.ask("state", state_of(here), lambda: False)
        at.ask("wanted", state_of(here))
        await at.until(1)
        assert at.names == ["wanted"]
        assert at.clerk.queued_bytes == 0 and at.written == []


async def test_bytes_of_windows_are_counted_until_they_are_stored() -> None:
    here = Record("here")
    there = Record("there", founder=here)
    here.put("d", title="x")
    async with desk(there) as at:
        at.gate = asyncio.Event()
        effect = window_of(here)
        at.ask("window", effect)
        assert at.clerk.queued_bytes == len(effect.data)
        at.gate.set()
        await at.until(1)
        assert at.clerk.queued_bytes == 0


async def test_a_writer_that_takes_nothing_more_is_told_as_it_is() -> None:
    here = Record("here")
    there = Record("there", founder=here)
    here.put("d", title="x")

    def refuse(change: AnyChange) -> "asyncio.Future[Any]":
        raise StorageError("the node is stopping")

    async with desk(there) as at:
        at.clerk._submit = refuse
        at.ask("window", window_of(here))
        await at.until(1)
        assert str(at.answers[0][1]) == "the node is stopping"


async def test_a_clerk_that_was_never_started_can_be_stopped() -> None:
    await Desk(Record("here")).clerk.stop()
