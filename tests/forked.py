"""Processes that are there at once: forked off one that has imported already what they would import.

Room: starting and ending them; they have the face of `subprocess.Popen`, as far as tests use it. An interpreter that
imports a node takes longer than most tests that need one. That the command itself starts a node is tested in
tests/cli/test_end_to_end.py, and wherever a node is given a `prefix`.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import IO, Self

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["pytest", "cli.commands.start", "cli.settings", "node.process", "tests.storage.child"]
)


class Forked:
    """A process that runs `work`, a function of a module, with `arguments`, and then ends with what that returns.

    Its standard input is empty, its standard output is ours to read, its standard error is the file `errors`.
    """

    def __init__(
        self,
        work: Callable[[list[str]], int | None],
        arguments: list[str],
        *,
        errors: IO[bytes],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        reading, writing = os.pipe()
        with _sent(writing) as output, _sent(os.dup(errors.fileno())) as complaints:
            self._process = _CONTEXT.Process(
                target=_run,
                args=(
                    work,
                    arguments,
                    output,
                    complaints,
                    dict(os.environ if environment is None else environment),
                ),
                daemon=True,
            )
            self._process.start()
        self.stdout: IO[bytes] = os.fdopen(reading, "rb")

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        """The exit status; None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """The exit status. Raises `subprocess.TimeoutExpired`."""
        self._process.join(timeout)
        status = self._process.exitcode
        if status is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(self._process.name, timeout)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stdout.close()
        self.wait()


def _sent(descriptor: int) -> Connection:
    """What takes a descriptor to another process. Closing it closes ours."""
    return Connection(descriptor, readable=False)


def _run(
    work: Callable[[list[str]], int | None],
    arguments: list[str],
    output: Connection,
    complaints: Connection,
    environment: dict[str, str],
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    no_input = os.open(os.devnull, os.O_RDONLY)
    os.dup2(no_input, 0)
    os.close(no_input)
    for number, sent in ((1, output), (2, complaints)):
        os.dup2(sent.fileno(), number)
        sent.close()
    sys.exit(work(arguments))
