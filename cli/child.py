"""A node as a child process, for a command that needs one while none runs, and for the demo.

Room: starts `civicnode start` with the interpreter and the packages this command itself runs from, waits for
its ready line, and stops it cleanly. It decides nothing about what the node does.
"""

import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import cli
from cli.errors import CliError

START_TIMEOUT_S = 60.0  # a large store after an unclean stop is verified first
STOP_TIMEOUT_S = 30.0


def command(*arguments: str) -> list[str]:
    """The command line that runs `civicnode` with `arguments`; use it with `environment()`."""
    # -P: a folder named `node` or `cli` in the working directory must not stand in for ours.
    return [sys.executable, "-P", "-m", "cli.main", *arguments]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for `command`: ours, able to import the packages this process imported."""
    root = str(Path(cli.__file__).parent.parent)
    inherited = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([root, inherited]) if inherited else root
    return {**os.environ, "PYTHONPATH": path, **(extra or {})}


@contextmanager
def node(arguments: Sequence[str], *, env: Mapping[str, str] | None = None) -> Iterator[str]:
    """Run `civicnode start` with `arguments`; yields the line it printed when it was ready.

    Raises `CliError` with the node's own last words if it does not get ready. On the way out the node is
    stopped with SIGTERM and waited for.
    """
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command("start", *arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment(env),
        )
        assert process.stdout is not None
        reader: threading.Thread | None = None
        try:
            line = _first_line(process.stdout)
            if not line:
                stop(process)
                raise CliError(_last_words(errors))
            reader = threading.Thread(target=_drain, args=(process.stdout,), daemon=True)
            reader.start()
            yield line
        finally:
            stop(process)
            if reader is not None:
                reader.join()
            process.stdout.close()


def stop(process: subprocess.Popen[bytes]) -> int:
    """End `process` as a user would; return its exit code. Kills it after `STOP_TIMEOUT_S`."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        return process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _first_line(stream: IO[bytes]) -> str:
    """The first line of `stream`, or nothing if it ends or `START_TIMEOUT_S` passes before one is there."""
    ready, _, _ = select.select([stream], [], [], START_TIMEOUT_S)
    return stream.readline().decode(errors="replace").strip() if ready else ""


def _drain(stream: IO[bytes]) -> None:
    while stream.read(65_536):
        pass


def _last_words(errors: IO[bytes]) -> str:
    errors.seek(0)
    lines = errors.read().decode(errors="replace").strip().splitlines()
    if not lines:
        return "the node ended before it was ready, and said nothing: run civicnode start to watch it"
    return lines[-1].removeprefix("Error: ")
