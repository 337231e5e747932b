"""Where sync reads the record and takes windows apart: on two threads, so that neither holds up the loop.

Room: when each effect of a session is carried out, and on which thread. What an effect means is
`storage.exchange`'s; who asks is a link's session on the loop, and the answer goes back there.

One thread owns the `Exchange` and carries out one effect after the other; all of them but windows are quick. A
second one takes windows apart and verifies them, which costs 40 µs a commit: a fifth of a second for a full
one. A window is then taken in by steps, each of which waits for the one writer, and between two steps the first
thread goes on with what other links ask. So a link that catches up delays the others by one step's planning.
Windows are taken in one at a time, in the order in which they came; and what is lacking here (`FindLacking`) waits
its turn between them, because what a window holds is neither here nor lacking while it is under way.

What was written a moment ago comes alone, in a window of some hundred bytes. If the first thread has nothing to do,
such a window is taken in on the loop itself: to wake a thread and to be woken by it takes longer than the work.
"""

import asyncio
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from node.net.recent import Recent
from node.pace import Pace, Pauses
from protocol.errors import ProtocolError
from protocol.exchange import EVERYTHING, Answer, Effect, FindLacking, IntegrateWindow, LoadRuns
from protocol.ids import SYSTEM_SPACE_NAME
from protocol.window import Run
from storage.changes import AnyChange
from storage.errors import StorageError
from storage.exchange import Exchange, Steps, unpacked
from storage.store import Store

SMALL_WINDOW_BYTES = 4_096  # taken apart where it is read: a hand-over would cost as much
BRIEF_WINDOW_BYTES = 2_048  # taken in on the loop: 0.2 ms for a commit or two, 6 ms for many that say nothing
Reply = Callable[[Answer | Exception], None]
Submit = Callable[[AnyChange], "asyncio.Future[Any]"]


@dataclass(slots=True, eq=False)
class _Window:
    """A window on its way into the record."""

    effect: IntegrateWindow
    reply: Reply
    is_wanted: Callable[[], bool]
    runs: list[Run] | ProtocolError | None = None
    is_unpacking: bool = False


@dataclass(slots=True, eq=False)
class _Question:
    """What has to wait for the windows before it."""

    effect: FindLacking
    reply: Reply
    is_wanted: Callable[[], bool]
    has_settled: bool = False


class _Thread:
    """Runs what it is given, one after the other."""

    def __init__(self, name: str, log: logging.Logger) -> None:
        self._log = log
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._counting = threading.Lock()
        self._left = 0  # jobs that were put and are not done
        self._turn = threading.Lock()  # of whoever does a job

    def start(self) -> None:
        self._thread.start()

    def put(self, job: Callable[[], None]) -> None:
        with self._counting:
            self._left += 1
        self._jobs.put(job)

    def do_here(self, job: Callable[[], None]) -> bool:
        """Do it at once on the calling thread, if no other is under way or waits. Whether it was done."""
        with self._counting:
            is_free = not self._left and self._turn.acquire(blocking=False)
        if is_free:
            try:
                self._do(job)
            finally:
                self._turn.release()
        return is_free

    async def stop(self) -> None:
        """Do what was put before, then end."""
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            with self._turn:
                self._do(job)
            with self._counting:
                self._left -= 1

    def _do(self, job: Callable[[], None]) -> None:
        try:
            job()
        except Exception:  # a bug; every job answers for itself, so nobody waits for this one
            self._log.exception("a job of sync failed")


class Clerk:
    """Create and use it on one event loop; `start` and `stop` it once."""

    def __init__(self, store: Store, submit: Submit, log: logging.Logger, pace: Pace) -> None:
        """`submit` hands a change to the one writer; it is called on the loop. Both threads give way by `pace`."""
        self._store = store
        self._submit = submit
        self._log = log
        self._pace = pace
        self._pauses = Pauses(pace)
        self._pause_unpacking = Pauses(pace)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._record = _Thread("sync", log)
        self._unpacker = _Thread("sync windows", log)
        self._exchange: Exchange | None = None
        self.recent = Recent()
        self.queued_bytes = 0  # of windows that are not in the record yet
        # Of whoever does a job of the first thread:
        self._line: deque[_Window | _Question] = deque()
        self._steps: Steps | None = None  # of what is being taken in
        self._reply: Reply | None = None
        self._is_brief = False  # it came in a brief window
        self._told: list[Callable[[], None]] | None = None  # on the loop: what is called once the job is done

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._record.start()
        self._unpacker.start()

    async def stop(self) -> None:
        """End both threads. What is under way is answered, though nobody may listen any more."""
        if self._loop is not None:
            await self._unpacker.stop()
            await self._record.stop()
        self._pace.end_long()

    def perform(self, effect: Effect, reply: Reply, is_wanted: Callable[[], bool]) -> None:
        """Carry out an effect. `reply` is called on the loop, with the answer or what went wrong.

        What is not wanted any more when its turn comes is left out, and not answered. Answers of one kind come
        in the order of asking; one that needs no look at the record comes at once. Call on the loop.
        """
        if isinstance(effect, LoadRuns) and (known := self.recent.load(effect)) is not None:
            reply(known)
            return
        if isinstance(effect, IntegrateWindow):
            size = len(effect.data)
            self.queued_bytes += size

            def settle(answer: Answer | Exception) -> None:
                self.queued_bytes -= size
                if is_wanted():
                    reply(answer)

            accept = partial(self._accept, _Window(effect, settle, is_wanted))
            is_brief = size <= BRIEF_WINDOW_BYTES and self._exchange is not None and self._exchange.is_settled
            if not (is_brief and self._do_here(accept)):
                self._record.put(accept)
        elif isinstance(effect, FindLacking):
            self._record.put(partial(self._accept, _Question(effect, reply, is_wanted)))
        else:
            self._record.put(partial(self._carry_out, effect, reply, is_wanted))

    def take_in(self, runs: Sequence[Run], reply: Reply, is_wanted: Callable[[], bool]) -> None:
        """Take runs of `system` in that did not come in a window, all at once. `reply` as for `perform`."""
        effect = IntegrateWindow(b"", (SYSTEM_SPACE_NAME,), EVERYTHING)
        self._record.put(partial(self._accept, _Window(effect, reply, is_wanted, list(runs))))

    def _do_here(self, job: Callable[[], None]) -> bool:
        """Do a job of the first thread on the loop, if that thread has nothing to do. Whether it was done."""
        told: list[Callable[[], None]] = []

        def do() -> None:
            self._told = told
            try:
                job()
            finally:
                self._told = None

        is_done = self._record.do_here(do)
        for call in told:
            call()
        return is_done

    # -- on the thread of the record, or in its place --------------------------------------------------------

    @property
    def _own_exchange(self) -> Exchange:
        if self._exchange is None:  # it reads all that has arrived: not at the start of the node
            self._exchange = Exchange(self._store, self._never, self._rest)
        return self._exchange

    def _rest(self) -> None:
        if self._told is None:  # else it is the loop that does this
            self._pauses()

    def _never(self, change: AnyChange) -> Any:
        raise AssertionError("windows are taken in by steps, and nothing else here is written")

    def _carry_out(self, effect: Effect, reply: Reply, is_wanted: Callable[[], bool]) -> None:
        if not is_wanted():
            return
        answer: Answer | Exception
        try:
            answer = self._own_exchange.perform(effect)
        except Exception as error:
            answer = self._failed(error)
        self._on_loop(reply, answer)

    def _failed(self, error: Exception) -> Exception:
        if not isinstance(error, StorageError):
            self._log.error("an effect of sync failed", exc_info=error)
        return error

    def _on_loop(self, call: Callable[..., None], *arguments: Any) -> None:
        assert self._loop is not None
        if self._told is not None:
            self._told.append(partial(call, *arguments))
            return
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:
            pass  # the loop is closed: nobody is left to hear it

    # -- windows, on the same thread

    def _accept(self, item: _Window | _Question) -> None:
        self._line.append(item)
        self._go_on()

    def _go_on(self) -> None:
        """Begin with whatever is next in line; a window may have to be taken apart first."""
        while self._steps is None and self._line:
            item = self._line[0]
            if isinstance(item, _Window) and item.runs is None and item.is_wanted():
                if item.is_unpacking or len(item.effect.data) > SMALL_WINDOW_BYTES:
                    break
                item.runs = unpacked(item.effect)
            self._line.popleft()
            if isinstance(item, _Question):
                self._look_into(item)
            elif item.runs is None:
                self._on_loop(item.reply, StorageError("not wanted any more"))
            else:
                self._take_in(item, item.runs)
        for item in self._line:  # while one is written, the next is taken apart
            if isinstance(item, _Window) and item.runs is None:
                if not item.is_unpacking:
                    item.is_unpacking = True
                    self._unpacker.put(partial(self._unpack, item))
                break

    def _look_into(self, question: _Question) -> None:
        """What waits here without need is taken in first, if that is possible now."""
        try:
            is_unsettled = self._own_exchange.is_unsettled
        except Exception:
            is_unsettled = False  # whatever it is, the question will tell
        if is_unsettled and not question.has_settled and question.is_wanted():
            question.has_settled = True
            self._line.appendleft(question)
            self._begin(self._own_exchange.settle(), None)
        else:
            self._carry_out(question.effect, question.reply, question.is_wanted)

    def _take_in(self, window: _Window, runs: list[Run] | ProtocolError) -> None:
        try:
            steps = self._own_exchange.integrate(window.effect, runs)
        except Exception as error:
            self._on_loop(window.reply, self._failed(error))
        else:
            self._begin(steps, window.reply, is_brief=0 < len(window.effect.data) <= BRIEF_WINDOW_BYTES)

    def _unpack(self, window: _Window) -> None:
        """On the other thread."""
        runs: list[Run] | ProtocolError = []
        try:
            if window.is_wanted():
                runs = unpacked(window.effect, self._pause_unpacking)
        finally:
            self._record.put(partial(self._unpacked, window, runs))

    def _unpacked(self, window: _Window, runs: list[Run] | ProtocolError) -> None:
        window.runs = runs
        if self._steps is not None and self._line[0] is window:
            try:
                self._own_exchange.prepare(runs)
            except Exception as error:
                self._failed(error)  # whatever it is, it will show when the turn of the window comes
        self._go_on()

    def _begin(self, steps: Steps, reply: Reply | None, *, is_brief: bool = False) -> None:
        self._steps, self._reply, self._is_brief = steps, reply, is_brief
        if not is_brief:
            self._pace.begin_long()
        self._step(None)

    def _step(self, outcomes: list[Any] | None) -> None:
        """Go on with what is being taken in: its last changes have come to this. Once begun, it goes to the end."""
        steps = self._steps
        assert steps is not None
        try:
            changes = next(steps) if outcomes is None else steps.send(outcomes)
        except StopIteration as end:
            self._end(end.value)
        except Exception as error:
            self._end(self._failed(error))
        else:
            self._on_loop(self._write, changes)

    def _end(self, answer: Answer | Exception) -> None:
        reply, self._steps, self._reply = self._reply, None, None
        self._pace.end_long()
        if reply is not None:
            self._on_loop(reply, answer)
        if self._line:
            self._record.put(self._go_on)

    # -- on the loop

    def _write(self, changes: Sequence[AnyChange]) -> None:
        futures: list[asyncio.Future[Any]] = []
        for change in changes:
            try:
                futures.append(self._submit(change))
            except Exception as error:
                futures.append(asyncio.get_running_loop().create_future())
                futures[-1].set_exception(error)
        left = len(futures)

        def on_done(_: "asyncio.Future[Any]") -> None:
            nonlocal left
            left -= 1
            if not left:
                self._written([_outcome_of(future) for future in futures])

        for future in futures:
            future.add_done_callback(on_done)

    def _written(self, outcomes: list[Any]) -> None:
        step = partial(self._step, outcomes)
        if not (self._is_brief and self._do_here(step)):
            self._record.put(step)


def _outcome_of(done: "asyncio.Future[Any]") -> Any:
    """The result, or the error."""
    return StorageError("the node is stopping") if done.cancelled() else done.exception() or done.result()
