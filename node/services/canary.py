"""Merges updates from others in a process of its own first, and tells which of them it does not survive.

Room: one worker process (`canary_worker`), started when it is first needed and again when it dies or takes too
long. What is to be tried comes from `screening`, which also acts on the answer. The walk over an update
(`protocol.walk`) decides what counts, everywhere alike; this only keeps one node from being stopped by a fault of
the library that merges, which holds the interpreter while it works.
"""

import asyncio
import logging
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from protocol.encoding import encode

START_TIMEOUT_S = 30.0  # a loaded machine may take seconds to load the library
TRIAL_TIMEOUT_S = 10.0  # a thousand times what a large text takes
IDLE_S = 60.0  # then the worker goes, with its 40 MB
_KEPT = frozenset(
    {"PATH", "HOME", "LANG", "LC_ALL"}
)  # of the environment, which may hold the settings' secrets
_TRIES = 2  # a machine that was short of time or memory is no fault of the update


@dataclass(frozen=True, slots=True)
class Trial:
    """Updates of one field, in the order in which they are to be merged; `key` names it in the answer."""

    key: Hashable
    field: str
    is_text: bool
    contents: bytes
    updates: tuple[bytes, ...]


class Canary:
    """Use it on one event loop; `stop` it once."""

    def __init__(
        self,
        log: logging.Logger,
        *,
        trial_timeout_s: float = TRIAL_TIMEOUT_S,
        worker: str = "node.services.canary_worker",
    ) -> None:
        """`worker` is the module that the process runs."""
        self._log = log
        self._module = worker
        self._trial_timeout_s = trial_timeout_s
        self._worker: Process | None = None
        self._turn = asyncio.Lock()
        self._idle: asyncio.TimerHandle | None = None
        self.starts = 0

    async def check(self, trials: Sequence[Trial]) -> set[Hashable]:
        """The keys of the trials that the worker did not survive, twice. One caller is served at a time.

        Where no worker can be had nothing is found: the walk has passed these updates, and a node that takes in
        nothing would be worse.
        """
        bad: set[Hashable] = set()
        async with self._turn:
            if self._idle is not None:
                self._idle.cancel()
            try:
                for trial in trials:
                    for _ in range(_TRIES):
                        if await self._survives(trial):
                            break
                    else:
                        bad.add(trial.key)
            except OSError as error:
                self._log.warning(
                    "updates of texts are not tried first", extra={"data": {"reason": str(error)}}
                )
            self._idle = asyncio.get_running_loop().call_later(IDLE_S, self._on_idle)
        return bad

    async def _survives(self, trial: Trial) -> bool:
        worker = await self._started()
        assert worker.stdin is not None and worker.stdout is not None
        asked = encode([trial.is_text, trial.field, trial.contents, list(trial.updates)])
        try:
            async with asyncio.timeout(self._trial_timeout_s):
                worker.stdin.write(len(asked).to_bytes(4, "big") + asked)
                await worker.stdin.drain()
                await worker.stdout.readexactly(1)
        except (TimeoutError, asyncio.IncompleteReadError, ConnectionError):
            await self._end()
            return False
        return True

    async def _started(self) -> Process:
        """The worker, ready. Raises OSError if there is none to be had."""
        if self._worker is not None and self._worker.returncode is None:
            return self._worker
        self.starts += 1
        worker = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", self._module, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env=child_environment()
        )  # fmt: skip
        self._worker = worker
        assert worker.stdin is not None and worker.stdout is not None
        asked = encode([True, "", b"", []])  # what it takes to load the library is not the first trial's
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                worker.stdin.write(len(asked).to_bytes(4, "big") + asked)
                await worker.stdin.drain()
                await worker.stdout.readexactly(1)
        except (TimeoutError, asyncio.IncompleteReadError, ConnectionError) as error:
            await self._end()
            raise OSError("the process in which they are tried does not start") from error
        return worker

    def _on_idle(self) -> None:
        if not self._turn.locked() and self._worker is not None and self._worker.stdin is not None:
            self._worker.stdin.close()  # it ends by itself

    async def stop(self) -> None:
        async with self._turn:
            if self._idle is not None:
                self._idle.cancel()
            await self._end()

    async def _end(self) -> None:
        worker, self._worker = self._worker, None
        if worker is None:
            return
        with suppress(ProcessLookupError):
            worker.kill()
        await worker.wait()


def child_environment(is_kept: Callable[[str], bool] = _KEPT.__contains__) -> dict[str, str]:
    """The variables that are kept, and what it takes to import what this process imported."""
    root = str(Path(__file__).parents[2])
    inherited = os.environ.get("PYTHONPATH")
    kept = {name: value for name, value in os.environ.items() if is_kept(name)}
    return {**kept, "PYTHONPATH": os.pathsep.join([root, inherited]) if inherited else root}
