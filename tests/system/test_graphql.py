"""GraphQL as others have it: the audits of GraphQL over HTTP and the client of graphql-ws, against a real node."""

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from platformdirs import user_cache_path

from tests.system import npm
from tests.system.process import NodeProcess

SCRIPTS = Path(__file__).parent / "graphql_js"
AUDITS = 61  # of graphql-http 1.23.1: fewer would not be all
RUN_TIMEOUT_S = 180

needs_node_js = pytest.mark.skipif(
    not shutil.which("node") or not shutil.which("npm"), reason="needs node and npm"
)


def _installed() -> Path:
    """Where the packages are installed, outside the repository: once for each lockfile."""
    digest = hashlib.sha256((SCRIPTS / "package-lock.json").read_bytes()).hexdigest()[:16]
    place = user_cache_path("civicnode-tests", appauthor=False) / f"graphql-{digest}"
    place.mkdir(parents=True, exist_ok=True)
    with npm.turn(place):
        for file in SCRIPTS.iterdir():
            there = place / file.name
            if not there.exists() or there.read_bytes() != file.read_bytes():  # another worker may run it
                shutil.copy(file, there)
        if not (place / "done").exists():
            npm.install(place)
            (place / "done").touch()
    return place


def _run(script: str, node: NodeProcess, *arguments: str) -> Any:
    """What a script prints. The token goes to its standard input."""
    done = subprocess.run(
        ["node", script, *arguments],
        cwd=_installed(),
        input=node.token,
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@needs_node_js
def test_every_audit_of_graphql_over_http_is_passed(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "data") as node:
        results = _run("audit.mjs", node, f"{node.url}/v1/graphql")
    assert len(results) == AUDITS
    assert [result for result in results if result["status"] != "ok"] == []


@needs_node_js
def test_the_client_of_graphql_ws_follows_changes(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "data") as node:
        definition = {"name": "Task", "fields": [{"name": "title", "type": "string"}]}
        assert node.ask("POST", "/v1/data-models", definition).status == 201
        start = node.ask("POST", "/v1/graphql", {"query": "{ _cursor }"}).json["data"]["_cursor"]
        for id in ("a", "b", "c"):
            assert node.ask("POST", "/v1/data/Task", {"id": id, "title": id.upper()}).status == 201
        query = "subscription ($cursor: String) { taskChanged(cursor: $cursor) { event record { title } } }"
        url = node.url.replace("http", "ws", 1) + "/v1/graphql"
        heard = _run("subscribe.mjs", node, url, query, start, "3")
    changes = [event["data"]["taskChanged"] for event in heard["events"]]
    assert changes == [{"event": "CREATED", "record": {"title": title}} for title in ("A", "B", "C")]
    assert heard["answers"] == [{"data": {"_models": ["Task"]}}]
