"""What came too early is applied when it is due, though nobody writes anything."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from node.due import LOOK_AGAIN_S, RETRY_S, DueTimer
from protocol.clock import due_ms
from protocol.limits import CLOCK_AHEAD_MAX_MS
from storage.changes import AnyChange
from storage.errors import StorageFull
from tests.storage.kit import NOW_MS, TASK, Site

HOUR_MS = 3_600_000


class Timers:
    """One timer at a time, rung by hand."""

    def __init__(self) -> None:
        self.delay_s: float | None = None
        self._callback: Callable[[], None] = lambda: None

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any) -> "Timers":
        assert self.delay_s is None, "the timer before was neither rung nor cancelled"
        self.delay_s, self._callback = delay, callback
        return self

    def cancel(self) -> None:
        self.delay_s = None

    def ring(self) -> None:
        assert self.delay_s is not None
        self.delay_s = None
        self._callback()


class Node:
    """A store with a timer, whose writer is asked directly."""

    def __init__(self) -> None:
        self.site = Site()
        self.model = self.site.define(TASK)
        self.other = Site(founder=self.site, seed=2, now_ms=NOW_MS + HOUR_MS)
        self.other.receive_from(self.site)
        self.timers = Timers()
        self.failure: Exception | None = None
        self.writes = 0
        self.timer = DueTimer(
            next_due_ms=self.site.integrator.next_due_ms,
            submit=self._submit,
            now_ms=lambda: self.site.now_ms,
            timers=self.timers,
            log=logging.getLogger("tests"),
        )

    def _submit(self, change: AnyChange) -> "asyncio.Future[Any]":
        self.writes += 1
        if self.failure is not None:
            raise self.failure
        result = self.site.integrator.write_one(change, self.site.now_ms)
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        done.set_result(result)
        self.timer.look()
        return done

    def receive_early(self, id: str) -> None:
        """A document that the other node makes now by its own clock, an hour ahead."""
        self.other.create(self.model, id, title="from the future")
        self.site.receive_from(self.other)
        self.timer.look()


async def test_nothing_is_armed_while_nothing_waits() -> None:
    node = Node()
    node.timer.look()
    assert node.timers.delay_s is None


async def test_what_is_due_is_applied_by_the_timer_alone() -> None:
    node = Node()
    node.receive_early("t1")
    assert node.site.values(node.model, "t1") is None
    assert node.timers.delay_s == LOOK_AGAIN_S, "looks again, since the clock may be set forward meanwhile"
    node.timers.ring()
    assert (node.writes, node.timers.delay_s) == (0, LOOK_AGAIN_S)
    wait_ms = HOUR_MS - CLOCK_AHEAD_MAX_MS
    node.site.now_ms = NOW_MS + wait_ms - 10_000
    node.timers.ring()
    assert node.timers.delay_s is not None and 0 < node.timers.delay_s < 11
    node.site.now_ms = NOW_MS + wait_ms + 100
    node.timers.ring()
    assert node.site.values(node.model, "t1") == {"title": "from the future"}
    assert node.timers.delay_s is None


async def test_the_next_one_is_waited_for_in_turn() -> None:
    node = Node()
    node.receive_early("t1")
    node.other.now_ms += HOUR_MS
    node.receive_early("t2")
    node.site.now_ms = NOW_MS + HOUR_MS
    node.timers.ring()
    assert node.site.values(node.model, "t1") is not None
    assert node.site.values(node.model, "t2") is None
    assert node.timers.delay_s == LOOK_AGAIN_S
    node.site.now_ms = NOW_MS + 2 * HOUR_MS
    node.timers.ring()
    assert node.site.values(node.model, "t2") is not None


async def test_a_disk_that_fails_is_asked_again() -> None:
    node = Node()
    node.receive_early("t1")
    node.site.now_ms = NOW_MS + HOUR_MS
    node.failure = StorageFull("no space")
    node.timers.ring()
    assert node.timers.delay_s == RETRY_S
    node.failure = None
    node.timers.ring()
    assert node.site.values(node.model, "t1") is not None


async def test_a_stopped_timer_does_not_ring() -> None:
    node = Node()
    node.receive_early("t1")
    node.timer.stop()
    assert node.timers.delay_s is None


def test_a_commit_is_due_as_soon_as_it_may_be_materialised() -> None:
    site = Site()
    model = site.define(TASK)
    other = Site(founder=site, seed=2, now_ms=NOW_MS + HOUR_MS)
    other.receive_from(site)
    other.create(model, "t1", title="x")
    site.receive_from(other)
    due = site.integrator.next_due_ms()
    assert due == due_ms(other.commits()[-1].header.hlc)
    site.integrator.write([], due - 1)
    assert site.values(model, "t1") is None
    site.integrator.write([], due)
    assert site.values(model, "t1") is not None
    assert site.integrator.next_due_ms() is None


def test_a_node_that_starts_again_remembers_what_waits() -> None:
    site = Site()
    model = site.define(TASK)
    other = Site(founder=site, seed=2, now_ms=NOW_MS + HOUR_MS)
    other.receive_from(site)
    other.create(model, "t1", title="x")
    site.receive_from(other)
    due = site.integrator.next_due_ms()
    site.start()
    assert site.integrator.next_due_ms() == due
