"""The servers under measurement, as the parent sees them: started, asked, stopped.

Room: how a node and the floor are launched, when they count as ready, and the few plain
requests of the set-up (define a model, list ids, read metrics). Measured requests never
go this way; they come from `load`, in a process of its own.
"""

import contextlib
import http.client
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cli.bench.errors import BadReply, ChildFailed
from cli.bench.process import DELAY_VARIABLE, START_MAX_S, STOP_MAX_S, Child, Workspace
from cli.bench.records import MODEL, definition

REPLY_MAX_S = 60.0
LISTED_AT_ONCE = 100  # the largest page a node gives
_ADDRESS = re.compile(r"http://127\.0\.0\.1:(\d+)")
_METRIC = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{[^}]*\})?\s+(\S+)")


class Client:
    """One keep-alive connection for the set-up. `token` goes with every request."""

    def __init__(self, port: int, token: str | None = None) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=REPLY_MAX_S)
        self._token = token

    def ask(self, method: str, target: str, body: object | None = None, *, right: int = 200) -> bytes:
        """The body of the answer. Raises `BadReply` unless its status is `right`."""
        headers = {"Accept": "application/json"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        data = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            data = json.dumps(body).encode()
        try:
            try:
                self._connection.request(method, target, data, headers)
                reply = self._connection.getresponse()
            except http.client.RemoteDisconnected:  # it was idle for longer than a node waits
                self._connection.request(method, target, data, headers)
                reply = self._connection.getresponse()
            text = reply.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise ChildFailed(f"{method} {target} had no answer: {error}") from error
        if reply.status != right:
            raise BadReply(
                what=f"{method} {target}", status=reply.status, text=text.decode("utf-8", "replace")
            )
        return text

    def json(self, method: str, target: str, body: object | None = None, *, right: int = 200) -> Any:
        text = self.ask(method, target, body, right=right)
        try:
            return json.loads(text)
        except ValueError:
            raise BadReply(what=f"{method} {target}", status=right, text="not JSON") from None

    def close(self) -> None:
        self._connection.close()


class Node:
    """A real node, in a process of its own, on a data directory that outlives it."""

    def __init__(
        self, workspace: Workspace, command: Sequence[str], data_dir: Path, *, flush_delay_ms: float = 0
    ) -> None:
        self._workspace = workspace
        self._command = command
        self._environment = {DELAY_VARIABLE: f"{flush_delay_ms:g}"} if flush_delay_ms else {}
        self._child: Child | None = None
        self.data_dir = data_dir
        self.port = 0
        self.token = ""
        self.client = Client(0)

    def start(self, *, peers: Sequence[int] = ()) -> float:
        """Launch it; returns the seconds until `GET /health` first answered 200. It dials `peers` on loopback."""
        options = ["start", "--data-dir", str(self.data_dir), "--api", "127.0.0.1:0"]
        options += [option for port in peers for option in ("--peer", f"127.0.0.1:{port}")]
        options += ["--listen", "127.0.0.1:0", "--no-mdns"]
        child = self._workspace.start([*self._command, *options], environment=self._environment)
        self._child = child
        self.port = port_in(child.line_with("http://127.0.0.1:", START_MAX_S))
        taken_s = healthy_after(child, "/health", self.port)
        self.token = (self.data_dir / "owner.token").read_text(encoding="utf-8").strip()
        self.client = Client(self.port, self.token)
        return taken_s

    def stop(self) -> None:
        """Ask it to stop and wait; anything but a clean end raises `ChildFailed`."""
        child = self._child
        if child is None:
            return
        try:
            self.client.close()
            child.terminate()
            status = child.wait(STOP_MAX_S)
            if status != 0:
                raise ChildFailed(f"the node stopped with {status}: {child.log_end()}")
        finally:
            self.kill()

    def kill(self) -> None:
        self.client.close()
        if self._child is not None:
            self._workspace.end(self._child)
            self._child = None

    @property
    def peer_port(self) -> int:
        """Where it listens for peers."""
        listen: str = self.client.json("GET", "/v1/admin/status")["listen"]
        return int(listen.rpartition(":")[2])

    def wait_for_index(self) -> None:
        """Until the query index is no more behind the record."""
        until = time.perf_counter() + START_MAX_S
        while self.client.json("GET", "/health").get("index", "ready") != "ready":
            if time.perf_counter() > until:
                raise ChildFailed(f"the query index is not ready after {START_MAX_S:.0f} s")
            time.sleep(0.01)

    def define_model(self) -> None:
        self.client.ask("POST", "/v1/data-models", definition(), right=201)

    def total(self) -> int:
        return int(self.client.json("GET", f"/v1/data/{MODEL}?per_page=1")["total"])

    def expect_total(self, count: int) -> None:
        """An import that answered must be there, whole; otherwise its figure means nothing."""
        total = self.total()
        if total != count:
            raise ChildFailed(f"the node lists {total} records where {count} were acknowledged")

    def ids(self, count: int) -> list[str]:
        found: list[str] = []
        for page in range(1, -(-count // LISTED_AT_ONCE) + 1):
            target = f"/v1/data/{MODEL}?sort=created_at&order=asc&per_page={LISTED_AT_ONCE}&page={page}"
            found += [item["id"] for item in self.client.json("GET", target)["items"]]
        if len(set(found)) < count:
            raise ChildFailed(f"the node lists {len(set(found))} ids where {count} records are")
        return found

    def metrics(self) -> dict[str, float]:
        return parse_metrics(self.client.ask("GET", "/metrics").decode("utf-8", "replace"))


@contextlib.contextmanager
def node_running(
    workspace: Workspace,
    command: Sequence[str],
    data_dir: Path,
    *,
    flush_delay_ms: float = 0,
    peers: Sequence[int] = (),
) -> Iterator[tuple[Node, float]]:
    """A node and the seconds it took to start. Stopped cleanly if all went well, else killed."""
    node = Node(workspace, command, data_dir, flush_delay_ms=flush_delay_ms)
    try:
        taken_s = node.start(peers=peers)
        yield node, taken_s
        node.stop()
    finally:
        node.kill()


@contextlib.contextmanager
def floor_running(workspace: Workspace, *, records: int, flush_delay_ms: float = 0) -> Iterator[int]:
    """The port of a floor server that holds `records` rendered records."""
    environment: Mapping[str, str] = {DELAY_VARIABLE: f"{flush_delay_ms:g}"} if flush_delay_ms else {}
    directory = workspace.directory("floor")
    options = ("--dir", str(directory), "--records", str(records))
    with workspace.running("cli.bench.floor", *options, environment=environment) as child:
        yield port_in(child.line_with("http://127.0.0.1:", START_MAX_S))


def healthy_after(child: Child, target: str, port: int) -> float:
    """Seconds from the start of `child` until `GET target` first answered 200."""
    client = Client(port)
    try:
        while True:
            with contextlib.suppress(BadReply, ChildFailed):
                client.ask("GET", target)
                return time.perf_counter() - child.started_at
            if not child.is_running or time.perf_counter() > child.started_at + START_MAX_S:
                raise ChildFailed(f"{child.name} gave no healthy answer: {child.log_end()}")
            time.sleep(0.002)
    finally:
        client.close()


def port_in(line: str) -> int:
    """The port in the first loopback address a line names."""
    found = _ADDRESS.search(line)
    if found is None:
        raise ChildFailed(f"no loopback address in {line!r}")
    return int(found.group(1))


def parse_metrics(text: str) -> dict[str, float]:
    """Prometheus text to name -> value, the values of one name summed over its labels."""
    values: dict[str, float] = {}
    for line in text.splitlines():
        found = _METRIC.match(line)
        if found is None:
            continue
        with contextlib.suppress(ValueError):
            values[found.group(1)] = values.get(found.group(1), 0.0) + float(found.group(2))
    return values


def size_on_disk(directory: Path) -> int:
    """Bytes the file system has given to everything under `directory`.

    Counted in blocks, so that address space that was only reserved does not count.
    """
    blocks = 0
    for path in [directory, *directory.rglob("*")]:
        with contextlib.suppress(FileNotFoundError):
            blocks += path.lstat().st_blocks
    return blocks * 512
