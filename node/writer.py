"""The one writer: a queue on the event loop, a thread around the integrator, group commit between them.

Room: when a group of changes goes to the disk, and who is told afterwards. What
a change does is decided in `storage.integrator`. Changes that arrive while a
group is being written share the next one: one commit a space, one signature,
two flushes. Nobody is answered before all that the answer speaks of is stored.

A group leaves at once while there is one client. With more, it waits until about
half of those who are writing have asked, or `GROUP_WAIT_S` has passed, so that
at 32 connections a flush serves a dozen writes or more and the other half is
prepared meanwhile (the idea of PostgreSQL's commit_delay and commit_siblings).

What is asked for here goes before what peers have sent, which waits in a line of its own; but if none of that was
in a group, it is first in the next one.
"""

import asyncio
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from node.metrics import Metrics
from protocol.changes import DocumentChange
from storage.changes import AnyChange, Received, Written
from storage.errors import StorageError
from storage.feed_entry import FeedEntry
from storage.indexer import Indexer
from storage.integrator import Integrator
from storage.store import Store

GROUP_EDITS_MAX = 256  # so that an import lets interactive writes in between
RECEIVED_EDITS_MAX = 512  # while nobody writes here: the first who does waits an eighth of a second, once
QUIET_GROUPS = 3  # without a change that was asked for here: then nobody writes here
PENDING_MAX = 20_000  # changes waiting; above it the API answers 503
GROUP_WAIT_S = 0.002  # longer than a dozen requests take to be read, shorter than a flush of a real disk
ALONE = 1.2  # writers at a time, smoothed: with fewer, a change does not wait for others even one turn of the loop
_IDLE_S = 0.05


T = TypeVar("T")


class _Job(NamedTuple):
    work: Callable[[], Any]
    future: "asyncio.Future[Any]"


_Line = deque[tuple[AnyChange, int, "asyncio.Future[Any]"]]


class WriterOverloaded(StorageError):
    """More changes are waiting than this node will hold."""


class Writer:
    """Create and use it on one event loop; `start` and `stop` it once."""

    def __init__(
        self,
        integrator: Integrator,
        *,
        now_ms: Callable[[], int],
        on_written: Callable[[Sequence[FeedEntry]], None],
        on_stored: Callable[[Written], None] = lambda written: None,
        on_durable: Callable[[Written], None] = lambda written: None,
        on_members_changed: Callable[[], None] = lambda: None,
        on_caught_up: Callable[[str], None] = lambda application: None,
        log: logging.Logger,
    ) -> None:
        """`on_written` is called on the loop: the group is durable, its writers are not answered yet.

        `on_stored` is called after that, whenever commits were stored, also where no document has changed.
        `on_durable` is that of `Integrator.write`, on the writer's thread.
        `on_members_changed` is called before both where other statements count than before, `on_caught_up` after
        `on_written` with each application whose first sync is over.
        """
        self._integrator = integrator
        self._now_ms = now_ms
        self._on_written = on_written
        self._on_stored = on_stored
        self._on_durable = on_durable
        self._on_members_changed = on_members_changed
        self._on_caught_up = on_caught_up
        self._log = log
        self._pending: _Line = deque()  # what is asked for here
        self._received: _Line = deque()
        self._is_owed = False  # what peers have sent was passed over
        self._own_in_group = 0  # changes that were asked for here, in the group that is being written
        self._quiet_groups = 0  # in a row without any
        self._groups: queue.SimpleQueue[list[AnyChange] | _Job | None] = queue.SimpleQueue()
        self._writing: list[asyncio.Future[Any]] | None = None
        self._writers = 1.0  # how many clients write at the same time, smoothed
        self._oldest_at = 0.0
        self._timer: asyncio.Handle | None = None
        self._is_closed = False
        self._closed_because = "the node is stopping"
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self.groups = 0
        self.edits = 0

    @property
    def is_started(self) -> bool:
        return self._loop is not None

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def stop(self) -> None:
        """Write what is pending, answer it, and end the thread."""
        self._is_closed = True
        while self._pending or self._received or self._writing is not None:
            waiting = [future for _, _, future in [*self._pending, *self._received]] + (self._writing or [])
            self._hand_over()
            await asyncio.wait(waiting)
            await asyncio.sleep(0)  # lets `_group_done` of the last group return
        self._groups.put(None)
        await asyncio.to_thread(self._thread.join)

    def freeze(self, reason: str) -> None:
        """Write nothing more but the group that is being written: what waits, and what comes, is refused so."""
        self._is_closed, self._closed_because = True, reason
        pending = [*self._pending, *self._received]
        self._pending, self._received = deque(), deque()
        for _, _, future in pending:
            if not future.done():
                future.set_exception(WriterOverloaded(reason))

    async def settled(self) -> None:
        """Wait until the group that is being written, if any, has been stored or has failed."""
        while self._writing is not None:
            await asyncio.wait(self._writing)
            await asyncio.sleep(0)  # lets `_group_done` of the group return

    def between(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        """The result of work that is done on the writer's thread between two groups. Nothing is written meanwhile."""
        if self._is_closed:
            raise WriterOverloaded(self._closed_because)
        assert self._loop is not None
        future: asyncio.Future[T] = self._loop.create_future()
        self._groups.put(_Job(work, future))
        return future

    def submit(self, change: AnyChange) -> "asyncio.Future[Any]":
        """The result of a change, once it is durable: a list of records, or what a local change returned.

        The future raises what the change's guard or plan raised, or a `StorageError`. Call on the loop.
        """
        if self._is_closed or len(self._pending) >= PENDING_MAX:
            raise WriterOverloaded(self._closed_because if self._is_closed else "too many writes are waiting")
        assert self._loop is not None
        future = self._loop.create_future()
        if isinstance(change, Received):
            self._received.append((change, _size(change), future))
            if self._writing is None and self._timer is None:
                self._hand_over()
            return future
        if not self._pending:
            self._oldest_at = self._loop.time()
        self._pending.append((change, _size(change), future))
        if self._writing is None and self._timer is None:
            if self._writers < ALONE:
                self._hand_over()
            else:
                self._timer = self._loop.call_soon(self._consider)
        return future

    def _consider(self) -> None:
        """Nothing is being written: hand a group over now, or wait a little for more to join it."""
        self._timer = None
        if self._writing is not None or not (self._pending or self._received):
            return
        assert self._loop is not None
        wait_s = self._oldest_at + GROUP_WAIT_S - self._loop.time()
        if self._received or len(self._pending) * 2 >= self._writers or wait_s <= 0:
            self._hand_over()
        else:
            self._timer = self._loop.call_later(min(wait_s, 0.000_3), self._consider)

    def _hand_over(self) -> None:
        if self._writing is not None or not (self._pending or self._received):
            return
        group: list[AnyChange] = []
        futures: list[asyncio.Future[Any]] = []
        edits = 0
        is_sync_first, received = self._is_owed, len(self._received)
        own = len(self._pending)
        edits_max = GROUP_EDITS_MAX if own or self._quiet_groups < QUIET_GROUPS else RECEIVED_EDITS_MAX
        for line in (self._received, self._pending) if is_sync_first else (self._pending, self._received):
            while line and (not group or edits + line[0][1] <= edits_max):
                change, size, future = line.popleft()
                edits += size
                if not future.cancelled():
                    group.append(change)
                    futures.append(future)
        self._is_owed = 0 < received == len(self._received)
        self._own_in_group = own - len(self._pending)
        if not group:
            return self._hand_over()
        self._writing = futures
        self.edits += edits
        self._groups.put(group)

    def _run(self) -> None:
        """The thread. Between groups it lets the indexer catch up, a slice at a time."""
        refill_left = True
        while True:
            try:
                group = self._groups.get(block=not refill_left, timeout=None)
            except queue.Empty:
                refill_left = self._refill()
                continue
            if group is None:
                return
            if isinstance(group, _Job):
                self._work(group)
                continue
            outcome: Written | BaseException
            try:
                outcome = self._integrator.write(group, self._now_ms(), self._on_durable)
            except StorageError as error:
                outcome = error
            except (
                BaseException
            ) as error:  # a bug: the group is undone, its writers are told, the node goes on
                self._log.exception("a group of writes failed")
                outcome = error
            refill_left = self._integrator.indexer.is_stale
            assert self._loop is not None
            self._loop.call_soon_threadsafe(self._group_done, outcome)

    def _work(self, job: "_Job") -> None:
        assert self._loop is not None
        try:
            result = job.work()
        except Exception as error:
            self._loop.call_soon_threadsafe(_settle, job.future, None, error)
        else:
            self._loop.call_soon_threadsafe(_settle, job.future, result, None)

    def _refill(self) -> bool:
        try:
            more = self._integrator.indexer.refill()
        except Exception:  # of the disk, or a bug: whatever it is, the thread must go on writing
            self._log.exception("the query index could not be filled")
            time.sleep(_IDLE_S)
            return True
        return more

    def _group_done(self, outcome: Written | BaseException) -> None:
        futures, self._writing = self._writing or [], None
        own = self._own_in_group
        self._quiet_groups = 0 if own else self._quiet_groups + 1
        self.groups += 1
        if self._received and not self._pending:  # nobody else to wait for
            self._hand_over()
        if own:
            self._writers += (own + len(self._pending) - self._writers) * 0.2
        if isinstance(outcome, Written):
            if outcome.has_new_members:
                self._on_members_changed()
            if outcome.entries:
                self._on_written(outcome.entries)
            for application in outcome.caught_up:
                self._on_caught_up(application)
        if own:
            self._tell(futures, outcome)
        else:  # what peers have sent: those who are told in the next turn of the loop, as subscribers are, go first
            assert self._loop is not None
            self._loop.call_soon(self._tell, futures, outcome)

    def _tell(self, futures: "list[asyncio.Future[Any]]", outcome: Written | BaseException) -> None:
        """Tell who has asked what became of it."""
        if isinstance(outcome, Written):
            for future, result in zip(futures, outcome.results, strict=True):
                if future.done():
                    continue
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)
            if outcome.arrival:
                self._on_stored(outcome)
        else:
            for future in futures:
                if not future.done():
                    future.set_exception(outcome)
        is_waiting = self._pending or self._received
        if is_waiting and self._writing is None and self._timer is None and self._loop is not None:
            self._timer = self._loop.call_soon(self._consider)


def _settle(future: "asyncio.Future[Any]", result: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)


def _size(change: AnyChange) -> int:
    """How many edits of documents a change asks for, or brings."""
    if isinstance(change, DocumentChange):
        return len(change.edits)
    if isinstance(change, Received):
        return max(1, sum(len(commit.bodies) for commit in change.commits))
    return 1


def count_writes(metrics: Metrics, writer: Writer, store: Store, indexer: Indexer) -> None:
    """Have it counted what is written, and what that takes."""
    gauge = metrics.gauge
    gauge("civicnode_commits_total", "Commits of this node since it started", lambda: writer.groups)
    gauge(
        "civicnode_bodies_total", "Changes of documents written since the node started", lambda: writer.edits
    )
    gauge(
        "civicnode_flushes_total",
        "Flushes of the record since the node started",
        lambda: store.statistics()["flushes"],
    )
    gauge("civicnode_record_bytes", "Size of the record in use", lambda: store.statistics()["used_bytes"])
    gauge("civicnode_index_behind", "1 while the query index is being rebuilt", lambda: int(indexer.is_stale))
