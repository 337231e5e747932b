"""The processes of a measurement, and the directory they work in.

Room: starts every child, hears its lines, ends it, and removes what it left. A
`Workspace` is a context: whatever happens inside, no child and no file of it stays.
What the children are and what they are asked is decided by the modules that use this.
"""

import contextlib
import json
import os
import queue
import shutil
import signal
import site
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Self

from cli.bench.errors import ChildFailed, LoadFailed
from cli.bench.load import DRAIN_MAX_S, Outcome, Plan

START_MAX_S = 60.0
STOP_MAX_S = 60.0
DELAY_VARIABLE = "CIVICNODE_BENCH_FLUSH_DELAY_MS"  # read by a node's storage and by the floor
LOG_SHOWN_MAX_BYTES = 600
_KEPT = ("PATH", "LANG", "TMPDIR", "VIRTUAL_ENV")
_KEPT_HEADS = ("LC_", "LD_", "DYLD_", "PYTHON")
_ROOT = Path(__file__).resolve().parents[2]


class Child:
    """One process with a pipe each way. Its error output goes to a file beside its data."""

    def __init__(self, arguments: Sequence[str], *, environment: Mapping[str, str], log: Path) -> None:
        self.name = Path(arguments[0]).name if "-m" not in arguments else arguments[arguments.index("-m") + 1]
        self._log = log
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.started_at = time.perf_counter()
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                arguments,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=dict(environment),
                start_new_session=True,  # an interrupt reaches us alone, and we end it in order
            )
        threading.Thread(target=self._listen, daemon=True, name=f"output of {self.name}").start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def line(self, timeout_s: float) -> str:
        """Its next line of output, without the end. Raises `ChildFailed`."""
        try:
            line = self._lines.get(timeout=timeout_s)
        except queue.Empty:
            raise ChildFailed(f"{self.name} said nothing for {timeout_s:.0f} s") from None
        if line is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
            raise ChildFailed(f"{self.name} ended with {self._process.returncode}: {self.log_end()}")
        return line

    def line_with(self, text: str, timeout_s: float) -> str:
        """The next line that holds `text`; those before it are passed over."""
        until = time.perf_counter() + timeout_s
        while True:
            line = self.line(max(0.0, until - time.perf_counter()))
            if text in line:
                return line

    def say(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise ChildFailed(f"{self.name} ended early: {self.log_end()}") from None

    def hang_up(self) -> None:
        """Close its standard input, which our own children take as the end."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()

    def wait(self, timeout_s: float) -> int:
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise ChildFailed(f"{self.name} did not end within {timeout_s:.0f} s") from None

    def terminate(self) -> None:
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it now, and whatever it started."""
        if self.is_running:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        self.hang_up()

    def log_end(self) -> str:
        """The end of its error output, on one line."""
        data = self._log.read_bytes()[-LOG_SHOWN_MAX_BYTES:] if self._log.exists() else b""
        return " | ".join(data.decode("utf-8", "replace").split("\n")).strip(" |") or "no message"

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                self._lines.put(line.rstrip("\n"))
        self._lines.put(None)


class Workspace:
    """A temporary directory and the children that work in it. Not thread-safe."""

    def __init__(self, parent: Path | None = None) -> None:
        self._parent = parent
        self._children: list[Child] = []
        self._numbers = iter(range(1, 1_000_000))
        self._guard: subprocess.Popen[str] | None = None
        self.root = Path()

    def __enter__(self) -> Self:
        self.root = Path(tempfile.mkdtemp(prefix="civicnode-bench-", dir=self._parent))
        self._guard = subprocess.Popen(
            [sys.executable, "-m", "cli.bench.guard", str(self.root)],
            stdin=subprocess.PIPE,
            text=True,
            env=self.environment(),
            start_new_session=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        for child in list(self._children):
            self.end(child)
        shutil.rmtree(self.root, ignore_errors=True)
        if self._guard is not None and self._guard.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._guard.stdin.close()
            self._guard.wait(10)

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """What children see: the interpreter's surroundings, none of the user's settings.

        A home of their own keeps a user's settings file out of the measurement.
        """
        kept = {
            name: value for name, value in os.environ.items() if name in _KEPT or name.startswith(_KEPT_HEADS)
        }
        paths = [str(_ROOT), *filter(None, [kept.get("PYTHONPATH")])]
        kept |= {"PYTHONPATH": os.pathsep.join(paths), "HOME": str(self.root)}
        kept.setdefault("PYTHONUSERBASE", site.getuserbase())
        return {**kept, **(extra or {})}

    def directory(self, name: str) -> Path:
        """A new directory of its own."""
        path = self.root / f"{next(self._numbers):04d}-{name}"
        path.mkdir()
        return path

    def file(self, name: str) -> Path:
        """A path that nothing else has; the file is the caller's to write."""
        return self.root / f"{next(self._numbers):04d}-{name}"

    def start(self, arguments: Sequence[str], *, environment: Mapping[str, str] | None = None) -> Child:
        child = Child(arguments, environment=self.environment(environment), log=self.file("log"))
        self._children.append(child)
        self._tell_guard(f"+{child.pid}")
        return child

    def start_module(self, module: str, *options: str, environment: Mapping[str, str] | None = None) -> Child:
        return self.start([sys.executable, "-m", module, *options], environment=environment)

    def end(self, child: Child) -> None:
        """Kill a child unless it has ended, and forget it."""
        child.kill()
        if child in self._children:
            self._children.remove(child)
            self._tell_guard(f"-{child.pid}")

    @contextlib.contextmanager
    def running(
        self, module: str, *options: str, environment: Mapping[str, str] | None = None
    ) -> Iterator[Child]:
        child = self.start_module(module, *options, environment=environment)
        try:
            yield child
        finally:
            self.end(child)

    def _tell_guard(self, line: str) -> None:
        if self._guard is not None and self._guard.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._guard.stdin.write(line + "\n")
                self._guard.stdin.flush()


class Load:
    """The parent's end of one `cli.bench.load`: connected and waiting once this is made."""

    def __init__(self, workspace: Workspace, plan: Plan) -> None:
        self._workspace = workspace
        self._plan = plan
        self._child = workspace.start_module("cli.bench.load")
        self._child.say(json.dumps(asdict(plan)))
        first = self._child.line(START_MAX_S)
        if first != "ready":
            workspace.end(self._child)
            raise LoadFailed(_fault(first))

    def go(self) -> None:
        self._child.say("go")

    def stop(self) -> None:
        """End the load early; what was asked is still waited for."""
        self._child.hang_up()

    def outcome(self) -> Outcome:
        """Wait for its end. Raises `LoadFailed`."""
        try:
            line = self._child.line(self._plan.warmup_s + self._plan.seconds + DRAIN_MAX_S + 10)
        finally:
            self._workspace.end(self._child)
        answer = json.loads(line)
        if "fault" in answer:
            raise LoadFailed(_fault(line))
        return Outcome(**answer)


def run_load(workspace: Workspace, plan: Plan) -> Outcome:
    """Carry one plan through from start to end."""
    load = Load(workspace, plan)
    load.go()
    return load.outcome()


def _fault(line: str) -> str:
    try:
        return str(json.loads(line)["fault"])
    except (ValueError, KeyError, TypeError):
        return f"the load generator said {line[:200]!r}"
