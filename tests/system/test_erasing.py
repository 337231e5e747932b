"""Erasing by real processes that are killed on the way."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from storage.compacting import PLAN_FILE, STAGE
from tests.storage.test_compacting import in_files
from tests.system.process import NodeProcess, civicnode

SECRET = "nobody-is-to-read-this-again"
MODEL = {"name": "Entry", "fields": [{"name": "text", "type": "string"}]}
PATIENCE_S = 60


def until(holds: Callable[[], bool], what: str) -> None:
    ends_at = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < ends_at, what


def status_of(node: NodeProcess, id: str) -> str:
    return str(node.ask("GET", f"/v1/privacy/erasures/{id}").json["status"])


@pytest.mark.parametrize("moment", ["at once", STAGE, PLAN_FILE])
def test_a_node_that_is_killed_while_it_erases_finishes_at_the_next_start(
    moment: str, tmp_path: Path
) -> None:
    directory = tmp_path / "node"
    with NodeProcess(directory) as node:
        node.ask("POST", "/v1/data-models", MODEL)
        made = node.ask("POST", "/v1/data/Entry", {"text": SECRET * 100}).json["instance_id"]
        kept = node.ask("POST", "/v1/data/Entry", {"text": "kept"}).json["instance_id"]
        node.ask("POST", "/v1/data/Entry", {"text": "x" * 1_000_000})  # so that a copy takes a moment
        asked = node.ask("POST", "/v1/privacy/erase", {"confirm": True, "model": "Entry", "id": made})
        assert asked.status == 202, asked.body
        id = asked.json["erasure_id"]
        if moment != "at once":
            until(
                lambda: (directory / moment).exists() or status_of(node, id) == "confirmed",
                "the exchange has begun",
            )
        node.kill()
    with NodeProcess(directory) as node:
        until(lambda: status_of(node, id) == "confirmed", "it is finished")
        assert in_files(directory, SECRET) == []
        assert node.ask("GET", f"/v1/data/Entry/{kept}").json["text"] == "kept"
        assert node.ask("POST", "/v1/data/Entry", {"text": "later"}).status == 201
        assert node.stop() == 0
    assert "new author" not in node.errors.read_text()
    assert civicnode("doctor", "--data-dir", str(directory)).returncode == 0
    assert in_files(directory, SECRET) == []
