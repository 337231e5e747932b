"""The surface as an app meets it, on one node: the seed's shapes for what this release serves."""

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from node.daemon import BENCH_FLUSH_DELAY
from tests.system.process import NodeProcess, civicnode

TASK: dict[str, Any] = {
    "name": "Task",
    "fields": [
        {"name": "title", "type": "string", "required": True},
        {"name": "description", "type": "string", "required": False},
        {"name": "due_date", "type": "date", "required": True, "indexed": True},
        {"name": "status", "type": "enum", "options": ["TODO", "IN_PROGRESS", "DONE"], "default": "TODO"},
        {"name": "code", "type": "string", "unique": True},
    ],
}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    with NodeProcess(tmp_path_factory.mktemp("api") / "node") as node:
        assert node.ask("POST", "/v1/data-models", TASK).status == 201
        yield node
        assert node.stop() == 0
        assert "Traceback" not in node.errors.read_text()


def _user(node: NodeProcess, name: str) -> str:
    account = {"email": f"{name}@example.com", "password": "securepassword123", "application_id": "default"}
    registered = node.ask("POST", "/v1/auth/register", {**account, "username": name}, token=None)
    assert registered.status == 201
    assert registered.json["message"] == "User registered successfully"
    assert isinstance(registered.json["user_id"], str)
    signed_in = node.ask("POST", "/v1/auth/login", account, token=None)
    assert signed_in.status == 200
    assert signed_in.json["expires_in"] == 3600
    return str(signed_in.json["token"])


def test_a_model_reads_back_as_it_was_defined_by_id_and_by_name(node: NodeProcess) -> None:
    by_name = node.ask("GET", "/v1/data-models/Task").json
    assert node.ask("GET", f"/v1/data-models/{by_name['model_id']}").json == by_name
    assert [field["name"] for field in by_name["fields"]] == [field["name"] for field in TASK["fields"]]
    assert node.ask("POST", "/v1/data-models", TASK).status == 409


def test_an_instance_lives_through_create_read_update_and_delete(node: NodeProcess) -> None:
    token = _user(node, "crud")
    created = node.ask("POST", "/v1/data/Task", {"title": "a", "due_date": "2026-01-02"}, token=token)
    assert created.status == 201
    assert created.json["message"] == "Instance created successfully"
    path = f"/v1/data/Task/{created.json['instance_id']}"
    read = node.ask("GET", path, token=token)
    assert read.json["status"] == "TODO"
    assert read.headers["etag"] == f'"{read.json["version"]}"' == created.headers["etag"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", read.json["created_at"])
    assert node.ask("GET", path, token=token, headers={"If-None-Match": read.headers["etag"]}).status == 304
    updated = node.ask(
        "PUT", path, {"status": "DONE"}, token=token, headers={"If-Match": read.headers["etag"]}
    )
    assert (updated.status, updated.json) == (200, {"message": "Instance updated successfully"})
    stale = node.ask("PUT", path, {"status": "TODO"}, token=token, headers={"If-Match": read.headers["etag"]})
    assert stale.status == 412
    assert node.ask("GET", path, token=token).json["status"] == "DONE"
    assert node.ask("DELETE", path, token=_user(node, "stranger")).status == 403
    assert node.ask("DELETE", path, token=token).status == 204
    gone = node.ask("GET", path, token=token)
    assert (gone.status, gone.json["error_code"]) == (404, "NOT_FOUND")


def test_every_fault_of_a_record_is_named_in_one_answer_and_nothing_is_written(node: NodeProcess) -> None:
    before = node.ask("GET", "/v1/data/Task?per_page=1").json["total"]
    refused = node.ask("POST", "/v1/data/Task", {"status": "LATER", "due_date": 5, "nope": 1})
    assert refused.status == 400
    assert refused.json["error"] == "Validation failed"
    assert refused.json["details"]["title"] == "This field is required"
    assert refused.json["details"]["status"] == "Invalid option. Must be one of: TODO, IN_PROGRESS, DONE"
    assert set(refused.json["details"]) == {"title", "status", "due_date", "nope"}
    assert node.ask("GET", "/v1/data/Task?per_page=1").json["total"] == before


def test_filters_sorting_pages_and_cursors_agree(node: NodeProcess) -> None:
    operations = [
        {
            "method": "POST",
            "path": "/data/Task",
            "body": {"title": f"page {n}", "due_date": f"2027-01-{n:02}"},
        }
        for n in range(1, 26)
    ]
    assert node.ask("POST", "/v1/batch", {"operations": operations}).status == 200
    where = "filter=due_date:gte:2027-01-01,due_date:lte:2027-01-31&sort=due_date&order=asc"
    by_page = [node.ask("GET", f"/v1/data/Task?{where}&per_page=10&page={n}").json for n in (1, 2, 3)]
    assert [len(page["items"]) for page in by_page] == [10, 10, 5]
    assert {page["total"] for page in by_page} == {25}
    titles = [item["title"] for page in by_page for item in page["items"]]
    assert titles == [f"page {n}" for n in range(1, 26)]
    by_cursor: list[str] = []
    cursor = ""
    while True:
        page = node.ask("GET", f"/v1/data/Task?{where}&per_page=10{cursor}").json
        by_cursor += [item["title"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert by_cursor == titles
    projected = node.ask("GET", f"/v1/data/Task?{where}&per_page=1&fields=title").json["items"][0]
    assert set(projected) == {"id", "title"}


def test_an_atomic_batch_is_all_or_nothing_and_names_the_operation_at_fault(node: NodeProcess) -> None:
    before = node.ask("GET", "/v1/data/Task?per_page=1").json["total"]
    good = {
        "method": "POST",
        "path": "/data/Task",
        "body": {"title": "b", "due_date": "2026-05-05", "code": "one"},
    }
    bad = {"method": "POST", "path": "/data/Task", "body": {"due_date": "x"}}
    refused = node.ask("POST", "/v1/batch", {"operations": [good, bad]})
    assert refused.status == 400
    assert set(refused.json["details"]) == {"operations[1].title", "operations[1].due_date"}
    twice = node.ask("POST", "/v1/batch", {"operations": [good, good]})
    assert twice.status == 409
    assert node.ask("GET", "/v1/data/Task?per_page=1").json["total"] == before
    apart = node.ask("POST", "/v1/batch", {"operations": [good, good, bad], "atomic": False}).json["results"]
    assert [result["status"] for result in apart] == [201, 409, 400]


def test_aggregation_groups_and_counts(node: NodeProcess) -> None:
    body = {
        "group_by": ["status"],
        "aggregations": [{"field": "id", "operation": "count", "alias": "task_count"}],
        "filter": "due_date:gte:2027-01-01,due_date:lte:2027-01-31",
    }
    answer = node.ask("POST", "/v1/data/Task/aggregate", body)
    assert answer.json == [{"status": "TODO", "task_count": 25}]


def test_tokens_are_refreshed_in_both_forms_and_die_with_the_session(node: NodeProcess) -> None:
    _user(node, "refresh")
    account = {"email": "refresh@example.com", "password": "securepassword123"}
    signed_in = node.ask("POST", "/v1/auth/login", account, token=None).json
    body = {"refresh_token": signed_in["refresh_token"]}
    first = node.ask("POST", "/v1/auth/refresh", body, token=None)
    retried = node.ask("POST", "/v1/auth/refresh", body, token=None)
    assert first.status == retried.status == 200
    assert first.json["refresh_token"] == retried.json["refresh_token"]
    assert node.ask("GET", "/v1/users/me", token=first.json["token"]).status == 200
    assert node.ask("POST", "/v1/auth/logout", token=first.json["token"]).status in (200, 204)
    refused = node.ask("GET", "/v1/users/me", token=first.json["token"])
    assert (refused.status, refused.json["error_code"]) == (401, "AUTH_INVALID_TOKEN")
    assert node.ask("GET", "/v1/users/me", token=None).json["error_code"] == "UNAUTHORIZED"


def test_another_application_sees_nothing_of_this_one(node: NodeProcess) -> None:
    account = {"email": "o@example.com", "password": "securepassword123", "application_id": "other_app"}
    node.ask("POST", "/v1/auth/register", {**account, "username": "o"}, token=None)
    token = node.ask("POST", "/v1/auth/login", account, token=None).json["token"]
    assert node.ask("GET", "/v1/data/Task", token=token).status == 404
    assert node.ask("GET", "/v1/data-models", token=token).json == []
    assert node.ask("POST", "/v1/data-models", TASK, token=token).status == 201
    assert node.ask("GET", "/v1/data/Task", token=token).json["total"] == 0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b"\xff\xfe",
        b'{"title": NaN}',
        b"[" * 100_000,
        b'{"a":' * 5_000,
        b"0" * 5_000,
    ],
)
@pytest.mark.parametrize(
    "path",
    [
        "/v1/data/Task",
        "/v1/data-models",
        "/v1/batch",
        "/v1/data/Task/aggregate",
        "/v1/auth/login",
        "/v1/auth/register",
    ],
)
def test_malformed_bodies_are_refused_and_never_a_fault_of_the_node(
    node: NodeProcess, path: str, body: bytes
) -> None:
    answer = node.ask("POST", path, body)
    assert 400 <= answer.status < 500, answer.body
    assert "error" in answer.json


@pytest.mark.parametrize(
    "query",
    [
        "page=0",
        "per_page=101",
        "filter=nope",
        "filter=title:eq",
        "sort=nope",
        "order=up",
        "cursor=!!",
        "page=x&sort=y",
    ],
)
def test_malformed_queries_are_refused_by_parameter(node: NodeProcess, query: str) -> None:
    answer = node.ask("GET", f"/v1/data/Task?{query}")
    assert answer.status == 400
    assert set(answer.json["details"]) <= {part.split("=")[0] for part in query.split("&")}


def test_the_api_describes_every_route_it_serves(node: NodeProcess) -> None:
    from openapi_spec_validator import validate

    document = node.ask("GET", "/openapi.json").json
    validate(document)
    assert "/v1/data/{model}/{id}" in document["paths"]
    assert node.ask("GET", "/docs").status == node.ask("GET", "/changelog").status == 200


async def test_concurrent_creates_share_commits_and_flushes(tmp_path: Path) -> None:
    """At 32 connections a commit serves a dozen creates or more, and costs two flushes at most.

    Each flush takes so long that on the busiest machine the clients have asked again before it is over.
    """
    connections, creates = 32, 640
    with NodeProcess(tmp_path / "node", env={BENCH_FLUSH_DELAY: "40"}) as node:
        assert node.ask("POST", "/v1/data-models", TASK).status == 201
        before = _figures(node)
        async with aiohttp.ClientSession(
            node.url, headers={"Authorization": f"Bearer {node.token}"}
        ) as session:

            async def create(worker: int) -> None:
                for number in range(creates // connections):
                    body = {"title": f"{worker}-{number}", "due_date": "2026-01-01"}
                    async with session.post("/v1/data/Task", json=body) as answer:
                        assert answer.status == 201, await answer.text()

            await asyncio.gather(*(create(worker) for worker in range(connections)))
        after = _figures(node)
        commits = after["civicnode_commits_total"] - before["civicnode_commits_total"]
        assert after["civicnode_bodies_total"] - before["civicnode_bodies_total"] == creates
        assert creates / commits >= 12
        assert after["civicnode_flushes_total"] - before["civicnode_flushes_total"] <= 2 * commits
        assert node.stop() == 0


def _figures(node: NodeProcess) -> dict[str, float]:
    text = node.ask("GET", "/metrics").body.decode()
    return {name: float(value) for name, value in re.findall(r"^(civicnode_\w+) (\S+)$", text, re.MULTILINE)}


def test_what_is_answered_is_json_in_the_seeds_order(node: NodeProcess) -> None:
    page = node.ask("GET", "/v1/data/Task?per_page=1").body
    assert list(json.loads(page)) == ["items", "total", "page", "per_page", "next_cursor"]


def test_an_applications_administrator_lets_no_origin_into_the_device(node: NodeProcess) -> None:
    account = {"email": "boss@example.com", "password": "securepassword123", "application_id": "elsewhere"}
    registered = node.ask("POST", "/v1/auth/register", {**account, "username": "boss"}, token=None)
    assert registered.status == 201
    arguments = ("user", "role", "boss@example.com", "admin", "--application", "elsewhere")
    assert civicnode(*arguments, "--data-dir", str(node.data_dir)).returncode == 0
    token = str(node.ask("POST", "/v1/auth/login", account, token=None).json["token"])
    asked = {"origin": "https://evil.example"}
    assert node.ask("POST", "/v1/admin/origins", asked, token=token).status == 403
    assert node.ask("DELETE", "/v1/admin/origins?origin=https://evil.example", token=token).status == 403
    assert node.ask("GET", "/v1/admin/origins").json == {"origins": []}
