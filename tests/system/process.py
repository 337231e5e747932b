"""A node in a process of its own, and an HTTP client that hides nothing.

Room: starting, killing and asking. What must be true afterwards is said in the tests.
"""

import contextlib
import http.client
import io
import json
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cli import child
from cli.main import main
from tests.forked import Forked

STOP_TIMEOUT_S = 60
PORTS = ("--api", "127.0.0.1:0", "--listen", "127.0.0.1:0", "--no-mdns")


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class NodeProcess:
    """`civicnode start` on free ports, ready when made. With a `prefix` it is started by that, as a command."""

    def __init__(
        self,
        data_dir: Path,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
        ports: Sequence[str] = PORTS,
    ) -> None:
        self.data_dir = data_dir
        self.errors = data_dir.parent / f"{data_dir.name}.log"  # the node's own words
        command = ["start", "--data-dir", str(data_dir), *ports, *arguments]
        self._process: Forked | subprocess.Popen[bytes]
        with self.errors.open("ab") as log:
            if prefix:
                self._process = subprocess.Popen(
                    [*prefix, *child.command(*command)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env=child.environment(env),
                )
            else:
                self._process = Forked(main, command, errors=log, environment=child.environment(env))
        assert self._process.stdout is not None
        line = self._process.stdout.readline().decode()
        assert "http" in line, self.errors.read_text()
        self.url = line.split()[-1]
        self.port = int(self.url.rsplit(":", 1)[1])
        self.token = self.read_token()

    def read_token(self) -> str:
        return (self.data_dir / "owner.token").read_text().strip()

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        token: str | None = "",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request on a connection of its own. `token` "" is the owner's, None is none."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            sent = dict(headers or {})
            if token is not None:
                sent["Authorization"] = f"Bearer {token or self.token}"
            data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
            if data is not None:
                sent.setdefault("Content-Type", "application/json")
            connection.request(method, path, data, sent)
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def kill(self) -> None:
        """As a power cut would: no clean-up of any kind."""
        self._process.kill()
        self._process.wait()
        self._close()

    def stop(self) -> int:
        """As a user would. Returns the exit status."""
        self._process.send_signal(signal.SIGTERM)
        status = self._process.wait(STOP_TIMEOUT_S)
        self._close()
        return status

    def _close(self) -> None:
        assert self._process.stdout is not None
        self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self.kill()
        self._close()


def civicnode(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, here: starting an interpreter takes longer than most of them. Nodes are processes."""
    if arguments[0] == "start":
        command = child.command(*arguments)
        return subprocess.run(command, capture_output=True, text=True, env=child.environment(), check=False)
    output, errors = io.TextIOWrapper(io.BytesIO()), io.TextIOWrapper(io.BytesIO())
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        status = main(arguments)
    return subprocess.CompletedProcess(arguments, status, _written(output), _written(errors))


def _written(stream: io.TextIOWrapper) -> str:
    stream.seek(0)
    return stream.read()
