"""Several daemons of one network on this machine, and when they agree.

Room: what the tests of peers share. Waiting here is for a condition, never for a time.
"""

import http.client
import random
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.system.process import NodeProcess
from tests.system.twins import found, twin

PATIENCE_S = 180.0  # a call comes again after up to 30 s, a second copy of an erased record after 60
QUERY_MAX = 10_000  # rows that a query answers with
MODEL = {
    "name": "Entry",
    "fields": [
        {"name": "text", "type": "string", "required": True},
        {"name": "number", "type": "integer", "indexed": True},
        {"name": "tags", "type": "set"},
    ],
}


def directories(tmp_path: Path, *names: str) -> list[Path]:
    """Data directories of one network, the first of them its founder's; all others are empty."""
    made = [tmp_path / name for name in names]
    found(made[0])
    for directory in made[1:]:
        twin(made[0], directory)
    return made


def join(node: NodeProcess, host: NodeProcess) -> None:
    """Have a node that holds nothing join the network of another one, and wait until it is in sync.

    They are two devices then, and count as such; what `directories` makes are records of one.
    """
    ticket = host.ask("POST", "/v1/admin/invitations").json["ticket"]
    joined = node.ask("POST", "/v1/admin/join", {"ticket": ticket})
    assert joined.status == 200, joined.body
    node.token = node.read_token()

    def is_linked() -> bool:
        try:
            told = status(node)
        except (ConnectionError, http.client.HTTPException):
            return False  # it goes on as another node, and closes what was asked of the one that it was
        return bool(told["peers"]) and bool(told["in_sync"])

    until(is_linked, "the link", host, node)


def free_port() -> int:
    """A port that stays free while nobody listens there: not one that systems give to whoever asks for any."""
    while True:
        port = random.randrange(10_000, 32_000)
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError:
            continue


def listening(node: NodeProcess) -> str:
    """Where it takes calls of peers."""
    return str(node.ask("GET", "/v1/admin/status").json["listen"])


def status(node: NodeProcess) -> Any:
    return node.ask("GET", "/v1/sync/status").json


def until(condition: Callable[[], bool], what: str, *nodes: NodeProcess, pause_s: float = 0.02) -> None:
    """Wait until it holds; say what the nodes say if it never does."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > end:
            told = "\n".join(
                f"{node.data_dir.name}: {status(node)}\n{node.errors.read_text()[-2_000:]}" for node in nodes
            )
            raise AssertionError(f"{what} has not happened in {PATIENCE_S} s\n{told}")
        time.sleep(pause_s)


def entries(node: NodeProcess) -> Any:
    """Every entry of a node, as its index has them; None while it cannot say."""
    found: list[list[Any]] = []
    while True:
        after = found[-1][0] if found else ""
        sql = f"SELECT id, text, number FROM Entry WHERE id > '{after}' ORDER BY id"
        answer = node.ask("POST", "/v1/admin/query", {"sql": sql, "limit": QUERY_MAX})
        if answer.status != 200:
            return None
        found += answer.json["rows"]
        if len(answer.json["rows"]) < QUERY_MAX:
            return found


def agree(*nodes: NodeProcess) -> None:
    """Wait until all nodes are linked, in sync, and hold the same entries."""

    def is_so() -> bool:
        told = [status(node) for node in nodes]
        if not all(each["in_sync"] and any(peer["in_sync"] for peer in each["peers"]) for each in told):
            return False
        held = [entries(node) for node in nodes]
        return held[0] is not None and all(each == held[0] for each in held)

    until(is_so, "agreement", *nodes)
