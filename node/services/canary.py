"""Merges updates from others in a process of its own first, and tells which of them it does not survive.

Room: one worker process (`canary_worker`), started when it is first needed and again when it dies or falls silent.
What is to be tried comes from `screening`, which also acts on the answer. The walk over an update
(`protocol.walk`) decides what counts, everywhere alike; this only keeps one node from being stopped by a fault of
the library that merges, which holds the interpreter while it works.

A verdict hides a document for good, so it rests on what the update did and not on how the machine was meanwhile:
a worker dies of it, or of the CPU time that it has spent on it, twice. One that says nothing may be stopped,
swapped out or asleep; it is replaced, and so is one that was killed from outside. Only where one after the other
falls silent over the same updates, each of them new and each having answered a question before, and yet another one
answers afterwards, are the updates what all that has in common. Were they let through, what blocks a worker without
spending time would block the node, and were they left waiting, everything else that peers send would wait as well.
"""

import asyncio
import logging
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from node.writer import WriterOverloaded
from protocol.encoding import encode

START_TIMEOUT_S = 30.0  # a loaded machine may take seconds to load the library
CPU_MAX_S = 10.0  # for one trial: a thousand times what a large text takes
SILENCE_TIMEOUT_S = 60.0  # of the clock: CPU_MAX_S, on a machine that gives a worker a sixth of a core
IDLE_S = 60.0  # then the worker goes, with its 40 MB
_KEPT = frozenset(
    {"PATH", "HOME", "LANG", "LC_ALL"}
)  # of the environment, which may hold the settings' secrets
_DEATHS = 2  # a machine that was short of memory is no fault of the update
_SILENCES = 3  # the first may be that of a worker that was stopped long before
# How a worker ends that was told to, was killed because it was silent, or was chosen by a system without memory.
_ENDED_FROM_OUTSIDE = {0, -signal.SIGHUP, -signal.SIGINT, -signal.SIGTERM, -signal.SIGKILL}


@dataclass(frozen=True, slots=True)
class Trial:
    """Updates of one field, in the order in which they are to be merged; `key` names it in the answer."""

    key: Hashable
    field: str
    is_text: bool
    contents: bytes
    updates: tuple[bytes, ...]


class _Outcome(Enum):
    SURVIVED = auto()
    DIED = auto()
    SILENT = auto()


class Canary:
    """Use it on one event loop; `stop` it once."""

    def __init__(
        self,
        log: logging.Logger,
        *,
        cpu_max_s: float = CPU_MAX_S,
        silence_timeout_s: float = SILENCE_TIMEOUT_S,
        worker: str = "node.services.canary_worker",
    ) -> None:
        """`worker` is the module that the process runs; it holds itself to `cpu_max_s` for each trial."""
        self._log = log
        self._module = worker
        self._cpu_max_s = cpu_max_s
        self._silence_timeout_s = silence_timeout_s
        self._worker: Process | None = None
        self._turn = asyncio.Lock()
        self._idle: asyncio.TimerHandle | None = None
        self._is_stopped = False
        self.starts = 0

    async def check(self, trials: Sequence[Trial]) -> set[Hashable]:
        """The keys of the trials that do harm. One caller is served at a time.

        Where no worker can be had nothing is found: the walk has passed these updates, and a node that takes in
        nothing would be worse. Raises `WriterOverloaded` if the canary is stopped meanwhile.
        """
        bad: set[Hashable] = set()
        async with self._turn:
            if self._idle is not None:
                self._idle.cancel()
            try:
                for trial in trials:
                    if await self._does_harm(trial):
                        bad.add(trial.key)
            except OSError as error:
                self._log.warning(
                    "updates of texts are not tried first", extra={"data": {"reason": str(error)}}
                )
            self._idle = asyncio.get_running_loop().call_later(IDLE_S, self._on_idle)
        return bad

    async def _does_harm(self, trial: Trial) -> bool:
        deaths = silences = 0
        while deaths < _DEATHS and silences < _SILENCES:
            match await self._try(trial):
                case _Outcome.SURVIVED:
                    return False
                case _Outcome.DIED:
                    deaths += 1
                case _Outcome.SILENT:
                    silences += 1
                    self._log.warning(
                        "a process in which updates of texts are tried is replaced: it did not answer",
                        extra={"data": {"times": silences}},
                    )
        if deaths < _DEATHS:
            await self._started()  # the machine still lets others answer, or nothing is found
        return True

    async def _try(self, trial: Trial) -> _Outcome:
        worker = await self._started()
        asked = encode([trial.is_text, trial.field, trial.contents, list(trial.updates)])
        if await self._answers(worker, asked, self._silence_timeout_s):
            return _Outcome.SURVIVED
        await self._end()
        return _Outcome.SILENT if worker.returncode in _ENDED_FROM_OUTSIDE else _Outcome.DIED

    @staticmethod
    async def _answers(worker: Process, asked: bytes, timeout_s: float) -> bool:
        """Whether it does. If not, it has ended by itself or has had `timeout_s` of the clock."""
        assert worker.stdin is not None and worker.stdout is not None
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                try:
                    worker.stdin.write(len(asked).to_bytes(4, "big") + asked)
                    await worker.stdin.drain()
                    await worker.stdout.readexactly(1)
                    return True
                except (asyncio.IncompleteReadError, ConnectionError):
                    await worker.wait()  # else it would be us who end it, and how it ended is what counts
        return False

    async def _started(self) -> Process:
        """The worker, ready: it has answered. Raises OSError if there is none to be had."""
        self._refuse_if_stopped()
        if self._worker is not None and self._worker.returncode is None:
            return self._worker
        self.starts += 1
        worker = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", self._module, str(self._cpu_max_s),
            stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env=child_environment(),
        )  # fmt: skip
        self._worker = worker
        if self._is_stopped:  # while it was started, and nothing was there to be killed
            self._kill()
        asked = encode([True, "", b"", []])  # what it takes to load the library is not the first trial's
        if not await self._answers(worker, asked, START_TIMEOUT_S):
            await self._end()
            self._refuse_if_stopped()
            raise OSError("the process in which they are tried does not start")
        return worker

    def _refuse_if_stopped(self) -> None:
        if self._is_stopped:
            raise WriterOverloaded("the node is stopping")

    def _on_idle(self) -> None:
        if not self._turn.locked() and self._worker is not None and self._worker.stdin is not None:
            self._worker.stdin.close()  # it ends by itself

    async def stop(self) -> None:
        """End the worker, whatever it is at: what is being tried is not taken in, and comes again."""
        self._is_stopped = True
        self._kill()
        async with self._turn:
            if self._idle is not None:
                self._idle.cancel()
            await self._end()

    async def _end(self) -> None:
        self._kill()
        worker, self._worker = self._worker, None
        if worker is not None:
            await worker.wait()

    def _kill(self) -> None:
        if self._worker is not None:
            with suppress(ProcessLookupError):
                self._worker.kill()


def child_environment(is_kept: Callable[[str], bool] = _KEPT.__contains__) -> dict[str, str]:
    """The variables that are kept, and what it takes to import what this process imported."""
    root = str(Path(__file__).parents[2])
    inherited = os.environ.get("PYTHONPATH")
    kept = {name: value for name, value in os.environ.items() if is_kept(name)}
    return {**kept, "PYTHONPATH": os.pathsep.join([root, inherited]) if inherited else root}
