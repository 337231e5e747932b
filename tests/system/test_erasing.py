"""Erasing by real processes that are killed on the way, or away while it is asked for."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from node.services.lockout import key_of
from storage.compacting import PLAN_FILE, STAGE
from tests.storage.test_compacting import in_files
from tests.system.neighbours import free_port, join, until
from tests.system.process import NodeProcess, civicnode

SECRET = "nobody-is-to-read-this-again"
MODEL = {"name": "Entry", "fields": [{"name": "text", "type": "string"}]}


def status_of(node: NodeProcess, id: str) -> str:
    return str(node.ask("GET", f"/v1/privacy/erasures/{id}").json["status"])


@pytest.mark.parametrize("moment", [STAGE, PLAN_FILE])
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
        until(
            lambda: (directory / moment).exists() or status_of(node, id) == "confirmed",
            "the exchange has begun",
            pause_s=0,  # that is there for a moment only
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


TASK = {
    "name": "Task",
    "fields": [
        {"name": "title", "type": "string", "indexed": True},
        {"name": "code", "type": "string", "unique": True},
        {"name": "body", "type": "text"},
        {"name": "tags", "type": "set"},
        {"name": "more", "type": "json"},
    ],
}
ACCOUNT = {"email": f"{SECRET}@example.org", "password": "correct horse"}
LAST = ", and once more"
PRIVATE = {"CIVICNODE_WEBHOOKS_ALLOW_PRIVATE": "1"}


def test_what_was_erased_is_in_no_file_of_three_nodes_one_of_which_is_killed_on_the_way_and_one_was_away(
    tmp_path: Path,
) -> None:
    directories = [tmp_path / name for name in ("ann", "bob", "cho")]
    at_ann, at_bob, at_cho = directories
    with NodeProcess(at_ann) as ann:
        with NodeProcess(at_bob, env=PRIVATE) as bob, NodeProcess(at_cho) as cho:
            for node in (bob, cho):
                join(node, ann)
            assert ann.ask("POST", "/v1/data-models", TASK).status == 201
            registered = ann.ask("POST", "/v1/auth/register", {**ACCOUNT, "username": SECRET}, token=None)
            assert registered.status == 201
            until(lambda: knows(bob) and shows(bob, "/v1/data-models/Task"), "bob knows both")
            written, traces = write_everywhere(bob)
            for node in (ann, cho):
                until(lambda node=node: LAST in title(node, written), "all of it is here")  # type: ignore[misc]
            cho.kill()
            assert all(in_files(directory, SECRET) for directory in directories)
            assert all(in_files(at_bob, trace) for trace in traces)

            asked = ann.ask("POST", "/v1/privacy/erase", {**ACCOUNT, "confirm": True}, token=signed_in(ann))
            assert asked.status == 202, asked.body
            id = asked.json["erasure_id"]
            until(lambda: shows(bob, f"/v1/privacy/erasures/{id}"), "bob hears of it")
            bob.kill()
        (at_bob / "import-left").write_text(SECRET)  # of an upload that was under way
        with NodeProcess(at_bob) as bob, NodeProcess(at_cho) as cho:
            until(lambda: status_of(ann, id) == "confirmed", "all have said so")
            told = ann.ask("GET", f"/v1/privacy/erasures/{id}").json
            assert told["left"] == 0 and [node["status"] for node in told["nodes"]] == ["confirmed"] * 3
            for node in (ann, bob, cho):
                assert in_files(node.data_dir, SECRET) == [] and SECRET not in node.errors.read_text()
                assert [trace for trace in traces if in_files(node.data_dir, trace)] == []
                assert title(node, written) == "" and signed_in(node) is None
            assert bob.stop() == 0
    assert civicnode("doctor", "--data-dir", str(at_bob)).returncode == 0
    assert [in_files(directory, SECRET) for directory in directories] == [[], [], []]


def shows(node: NodeProcess, path: str) -> bool:
    return node.ask("GET", path).status == 200


def title(node: NodeProcess, id: str) -> str:
    """Of a task; "" if it is not there."""
    answer = node.ask("GET", f"/v1/data/Task/{id}")
    return str(answer.json["title"]) if answer.status == 200 else ""


def knows(node: NodeProcess) -> bool:
    """Whether it has the account. Signing in to find out would count as failing."""
    return bool(node.ask("GET", f"/v1/admin/users?email={ACCOUNT['email']}").json["items"])


def signed_in(node: NodeProcess) -> str | None:
    """The token of the account that is to be erased; None where nobody can sign in to it."""
    answer = node.ask("POST", "/v1/auth/login", ACCOUNT, token=None)
    return str(answer.json["token"]) if answer.status == 200 else None


def write_everywhere(node: NodeProcess) -> tuple[str, list[str]]:
    """Have a node hold the secret in every kind of record that it keeps. -> the id of one of the documents; other
    texts that are to be gone with it, which lie in records of this node alone."""
    token = signed_in(node)
    assert token is not None
    claims = token.split(".")[1]
    session = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["sid"]

    def ask(method: str, path: str, body: object = None, key: str = "") -> Any:
        headers = {"Idempotency-Key": key} if key else {}
        answer = node.ask(method, f"/v1{path}", body, token=token, headers=headers)
        assert answer.status in (200, 201), answer.body
        return answer.json

    hook = {"url": f"http://127.0.0.1:{free_port()}/{SECRET}", "events": ["*"]}  # its deliveries wait
    hook_secret = ask("POST", "/webhooks", hook, key="hook")["secret"]
    ask("POST", "/users/me/data", {"key": "note", "value": SECRET})
    ask("POST", "/api-keys", {"name": SECRET, "scopes": ["read"]})
    ask("PUT", "/privacy/consent", {SECRET: True})
    second_factor = ask("POST", "/auth/mfa/enable", key="second factor")["secret"]
    node.ask("POST", "/v1/auth/login", {**ACCOUNT, "password": "wrong"}, token=None)
    values = {
        "title": SECRET,
        "code": SECRET,
        "body": SECRET * 30,
        "tags": [SECRET],
        "more": {SECRET: SECRET * 300},
    }
    id = str(ask("POST", "/data/Task", values, key="create")["instance_id"])
    version = ask("GET", f"/data/Task/{id}?fields=version")["version"]
    ask(
        "PUT",
        f"/data/Task/{id}",
        {"body": {"ops": [{"retain": 3}, {"insert": SECRET}], "base_version": version}},
    )
    mutation = f'mutation {{ updateTask(id: "{id}", input: {{ code: "{SECRET} 2" }}) {{ title code }} }}'
    ask("POST", "/graphql", {"query": mutation}, key="graphql")
    figures = {
        "group_by": ["title"],
        "aggregations": [{"field": "code", "operation": "max", "alias": "code"}],
    }
    assert SECRET in str(ask("POST", "/data/Task/aggregate", figures, key="figures"))
    gone = ask("POST", "/data/Task", {"title": SECRET})["instance_id"]
    assert node.ask("DELETE", f"/v1/data/Task/{gone}", token=token).status == 204
    ask("PUT", f"/data/Task/{id}", {"title": SECRET + LAST, "tags": ["none"]})
    return id, [session, hook_secret, second_factor, key_of("default", ACCOUNT["email"])]
