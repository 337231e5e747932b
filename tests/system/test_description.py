"""`/openapi.json` against the node that serves it, by Schemathesis: what the description takes is taken, what it does
not take is refused, and every answer is as described. Whose the token is decides what is reached: the owner's all, a
user's what users may do, none what is public."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.system.process import NodeProcess

# In an environment of its own: it holds some libraries back that the node uses. `make soak` sets it up.
FUZZER = Path(sys.prefix) / "fuzzer" / "bin" / "schemathesis"
CONFIG = Path(__file__).with_name("schemathesis.toml")
UNLIMITED = {f"CIVICNODE_S1_RATE_LIMIT_{who}": "1000000" for who in ("ANONYMOUS", "AUTHENTICATED")}
RUN_TIMEOUT_S = 3_600
MODELS: list[dict[str, Any]] = [
    {
        "name": "Task",
        "fields": [
            {"name": "title", "type": "string", "required": True, "max": 80},
            {"name": "status", "type": "enum", "options": ["TODO", "IN_PROGRESS", "DONE"], "default": "TODO"},
            {"name": "due_date", "type": "date", "indexed": True},
            {"name": "seen_at", "type": "datetime"},
            {"name": "rank", "type": "integer", "min": 0, "max": 10},
            {"name": "weight", "type": "number"},
            {"name": "done", "type": "boolean"},
            {"name": "tags", "type": "set"},
            {"name": "votes", "type": "counter"},
            {"name": "body", "type": "text"},
            {"name": "steps", "type": "array"},
            {"name": "extra", "type": "json"},
        ],
    },
    {
        "name": "Note",
        "fields": [
            {"name": "task", "type": "reference", "model": "Task"},
            {"name": "code", "type": "string", "pattern": "^[a-z]{2,5}$", "unique": True},
        ],
        "permissions": {"read": "public"},
    },
]
EMAIL, PASSWORD = "ada@example.org", "correct horse"


def token_of(node: NodeProcess, who: str) -> str | None:
    if who == "owner":
        return node.token
    if who == "nobody":
        return None
    account = {"email": EMAIL, "username": "ada", "password": PASSWORD}
    assert node.ask("POST", "/v1/auth/register", account).status == 201
    answer = node.ask("POST", "/v1/auth/login", {"email": EMAIL, "password": PASSWORD})
    return str(answer.json["token"])


@pytest.mark.soak
@pytest.mark.skipif(not FUZZER.exists(), reason="needs Schemathesis, which `make soak` sets up")
@pytest.mark.parametrize("who", ["owner", "user", "nobody"])
def test_the_node_is_as_it_is_described(tmp_path: Path, who: str) -> None:
    with NodeProcess(tmp_path / "node", env=UNLIMITED) as node:
        for model in MODELS:
            assert node.ask("POST", "/v1/data-models", model).status == 201
        for number in range(3):
            task = {"id": f"t{number}", "title": f"Number {number}", "rank": number}
            assert node.ask("POST", "/v1/data/Task", task).status == 201
        token = token_of(node, who)
        run = subprocess.run(
            [
                *(FUZZER, "--no-color", "--config-file", CONFIG),
                *("run", f"{node.url}/openapi.json", "--checks", "all", "--max-examples", "10"),
                *("--phases", "examples,coverage,fuzzing,stateful", "--continue-on-failure"),
                *(("--header", f"Authorization: Bearer {token}") if token else ()),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=RUN_TIMEOUT_S,
        )
        assert run.returncode == 0, run.stdout[-20_000:] + run.stderr
        assert node.ask("GET", "/health").json["status"] == "healthy"
    assert "unexpected error" not in node.errors.read_text()
