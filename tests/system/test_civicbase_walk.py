"""The CivicBase documentation, section by section: its requests as they stand there, written on one node and read on
another.

Room: what the seed shows, literally, ids apart. What goes beyond it is tested beside each module.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.system.neighbours import directories, listening, until
from tests.system.process import Answer, NodeProcess

APPLICATION = "app_12345"
TASK: dict[str, Any] = {
    "name": "Task",
    "fields": [
        {"name": "title", "type": "string", "required": True},
        {"name": "description", "type": "string", "required": False},
        {"name": "due_date", "type": "date", "required": True},
        {"name": "status", "type": "enum", "options": ["TODO", "IN_PROGRESS", "DONE"], "default": "TODO"},
    ],
}
ACCOUNT = {"email": "user@example.com", "password": "securepassword123", "application_id": APPLICATION}


@dataclass
class Pair:
    """The node that is written to, the node that is read from, and who does it."""

    writer: NodeProcess
    reader: NodeProcess
    tokens: dict[str, str] = field(default_factory=dict)  # of the user, by node
    user_id: str = ""

    def ask(
        self,
        node: NodeProcess,
        method: str,
        path: str,
        body: object = None,
        *,
        owner: bool = False,
        **headers: str,
    ) -> Answer:
        """A request of the user, or of the owner, in the application."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if owner:
            sent["X-Application-Id"] = APPLICATION
        token = "" if owner else self.tokens[node.url]
        return node.ask(method, f"/v1{path}", body, token=token, headers=sent)

    def write(self, method: str, path: str, body: object = None, **options: Any) -> Any:
        """The content of what the writer answers to a request that must be accepted."""
        answer = self.ask(self.writer, method, path, body, **options)
        assert answer.status in (200, 201, 204), answer.body
        return answer.json if answer.body else None

    def seen(self, path: str, holds: Callable[[Any], Any] = lambda content: True, **options: Any) -> Any:
        """What the reader answers, once it holds."""
        found: list[Any] = []

        def is_so() -> bool:
            answer = self.ask(self.reader, "GET", path, **options)
            found[:] = [answer.json] if answer.status == 200 else []
            return bool(found) and bool(holds(found[0]))

        until(is_so, path, self.writer, self.reader)
        return found[0]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    one, two = directories(tmp_path_factory.mktemp("walk"), "writer", "reader")
    settings = {"CIVICNODE_WEBHOOKS_ALLOW_PRIVATE": "true"}
    with NodeProcess(one, env=settings) as writer, NodeProcess(two, "--peer", listening(writer)) as reader:
        pair = Pair(writer, reader)
        # "User Registration" and "User Authentication", with the reader signing in where nobody has registered
        made = writer.ask("POST", "/v1/auth/register", {**ACCOUNT, "username": "johndoe"}, token=None)
        assert (made.status, made.json["message"]) == (201, "User registered successfully")
        pair.user_id = made.json["user_id"]

        def signs_in(node: NodeProcess) -> bool:
            answer = node.ask("POST", "/v1/auth/login", ACCOUNT, token=None)
            if answer.status == 200:
                assert answer.json["expires_in"] == 3600 and answer.json["token"].count(".") == 2
                pair.tokens[node.url] = answer.json["token"]
            return answer.status == 200

        for node in (writer, reader):
            until(lambda node=node: signs_in(node), "signing in", writer, reader)  # type: ignore[misc]
        assert pair.write("POST", "/data-models", TASK)["message"] == "Data model created successfully"
        pair.seen("/data-models/Task")
        yield pair


# -- "Data Models and CRUD Operations" ---------------------------------------------------------------------------


def test_a_data_model_reads_back_on_the_other_node(pair: Pair) -> None:
    model = pair.seen("/data-models/Task")
    assert model["name"] == "Task" and [f["name"] for f in model["fields"]] == [
        f["name"] for f in TASK["fields"]
    ]
    assert pair.seen(f"/data-models/{model['model_id']}") == model


def test_an_instance_is_created_read_updated_listed_and_deleted(pair: Pair) -> None:
    created = pair.write("POST", "/data/Task", {"title": "Write", "due_date": "2023-12-30"})
    assert (
        set(created) == {"message", "instance_id"} and created["message"] == "Instance created successfully"
    )
    path = f"/data/Task/{created['instance_id']}"
    assert pair.seen(path)["status"] == "TODO"
    assert pair.write("PUT", path, {"status": "DONE"}) == {"message": "Instance updated successfully"}
    shown = pair.seen(path, lambda task: task["status"] == "DONE")
    assert shown["created_by"] == pair.user_id and shown["title"] == "Write"
    listed = pair.seen("/data/Task")
    assert {"items", "total", "page", "per_page"} <= set(listed)
    assert (listed["page"], listed["per_page"]) == (1, 20) and shown in listed["items"]
    assert pair.ask(pair.writer, "DELETE", path).status == 204
    until(lambda: pair.ask(pair.reader, "GET", path).status == 404, "the delete", pair.writer, pair.reader)


def test_faults_are_told_as_the_seed_shows(pair: Pair) -> None:
    refused = pair.ask(pair.writer, "POST", "/data/Task", {"due_date": "2023-12-30", "status": "LATER"})
    assert refused.status == 400
    assert refused.json["error"] == "Validation failed"
    assert refused.json["details"] == {
        "title": "This field is required",
        "status": "Invalid option. Must be one of: TODO, IN_PROGRESS, DONE",
    }


# -- "Real-time Updates and Querying" ----------------------------------------------------------------------------


def titles_of(listed: Any) -> list[str]:
    return [task["title"] for task in listed["items"]]


def test_filters_sorting_pages_aggregation_and_graphql(pair: Pair) -> None:
    dates = {"a": "2023-01-05", "b": "2023-06-05", "c": "2024-01-05", "d": "2022-01-05"}
    for title, due in dates.items():
        status = "DONE" if title == "d" else "TODO"
        pair.write("POST", "/data/Task", {"title": title, "due_date": due, "status": status})
    found = pair.seen(
        "/data/Task?filter=status:eq:TODO,due_date:lt:2023-12-31&sort=due_date&order=asc",
        lambda listed: listed["total"] >= 2,
    )
    assert titles_of(found) == ["a", "b"]
    everything = pair.seen("/data/Task?sort=due_date&order=asc", lambda listed: listed["total"] == 4)
    assert titles_of(everything) == ["d", "a", "b", "c"]
    assert pair.seen("/data/Task?page=2&per_page=50")["items"] == []
    asked = {
        "group_by": ["status"],
        "aggregations": [{"field": "id", "operation": "count", "alias": "task_count"}],
        "filter": "due_date:gte:2023-01-01",
    }
    answer = pair.ask(pair.reader, "POST", "/data/Task/aggregate", asked)
    assert answer.status == 200 and answer.json == [{"status": "TODO", "task_count": 3}]
    query = "query { tasks(filter: { status: TODO }, sort: { field: due_date, order: ASC }) "
    query += "{ id title status due_date } }"
    told = pair.ask(pair.reader, "POST", "/graphql", {"query": query}).json
    assert [task["title"] for task in told["data"]["tasks"]] == ["a", "b", "c"]
    assert set(told["data"]["tasks"][0]) == {"id", "title", "status", "due_date"}


async def test_both_dialects_of_the_socket_hear_the_other_node(pair: Pair) -> None:
    created = pair.write("POST", "/data/Task", {"title": "watched", "due_date": "2023-12-30"})
    id = created["instance_id"]
    pair.seen(f"/data/Task/{id}")
    token = pair.tokens[pair.reader.url]
    async with aiohttp.ClientSession() as http:
        url = f"{pair.reader.url}/v1/realtime"
        headers = {"Authorization": f"Bearer {token}"}
        async with http.ws_connect(url, headers=headers) as first, http.ws_connect(url) as second:
            await first.send_json({"action": "subscribe", "model": "Task", "instance_id": id})
            await first.receive_json()
            await second.send_json({"type": "authenticate", "token": token})
            await second.receive_json()
            await second.send_json(
                {"type": "subscribe", "models": ["Task"], "events": ["updated", "deleted"]}
            )
            await second.receive_json()
            pair.write("PUT", f"/data/Task/{id}", {"title": "heard"})
            update = await first.receive_json()
            if update["event"] == "create":  # it can be read before it is told
                update = await first.receive_json()
            assert (update["event"], update["model"], update["instance_id"]) == ("update", "Task", id)
            assert update["data"]["title"] == "heard"
            update = await second.receive_json()
            assert (update["type"], update["model"], update["instanceId"]) == ("update", "Task", id)
            assert update["changes"] == {"title": "heard"}
            await first.send_json({"action": "unsubscribe", "model": "Task", "instance_id": id})
            await first.receive_json()
            pair.ask(pair.writer, "DELETE", f"/data/Task/{id}")
            gone = await second.receive_json()
            assert (gone["type"], gone["model"], gone["instanceId"]) == ("delete", "Task", id)


# -- "User Management and Authentication" ------------------------------------------------------------------------


def test_a_profile_custom_data_roles_and_permissions(pair: Pair) -> None:
    assert pair.seen("/users/me")["username"] == "johndoe"
    assert pair.write("PUT", "/users/me", {"bio": "hello"})["bio"] == "hello"
    assert pair.seen("/users/me", lambda me: me.get("bio") == "hello")["email"] == "user@example.com"
    value = {"theme": "dark", "notifications": True}
    stored = pair.write("POST", "/users/me/data", {"key": "preferences", "value": value})
    assert stored == {"message": "Custom data stored successfully"}
    assert pair.seen("/users/me/data/preferences")["value"] == value
    asked = {"role": "editor", "application_id": APPLICATION}
    assigned = pair.write("POST", f"/users/{pair.user_id}/roles", asked, owner=True)
    assert assigned == {"message": "Role assigned successfully"}
    pair.seen("/users/me", lambda me: "editor" in me["roles"])
    assert pair.seen("/users/me/permissions?action=read&resource=Task") == {"permitted": True}
    assert pair.seen("/users/me/permissions?action=read&resource=Nothing") == {"permitted": False}


def test_users_interests_and_recommendations(pair: Pair) -> None:
    made = pair.write("POST", "/users", {"username": "jane", "email": "jane@example.com"}, owner=True)
    assert made["message"] == "User created successfully"
    for user in (pair.user_id, made["user_id"]):
        added = pair.write(
            "POST", f"/users/{user}/interests", {"interests": "hiking, photography"}, owner=True
        )
        assert added == {"message": "Interests added successfully"}
    found = pair.seen(f"/users/{pair.user_id}/recommendations?top_n=1", lambda found: found)
    assert [(one["user_id"], one["username"], sorted(one["shared_interests"])) for one in found] == [
        (made["user_id"], "jane", ["hiking", "photography"])
    ]
    assert any(user["username"] == "jane" for user in pair.seen("/users"))


def test_an_expired_token_is_refreshed_and_a_second_factor_asked_for(pair: Pair) -> None:
    account = {**ACCOUNT, "email": "mfa@example.com"}
    made = pair.writer.ask("POST", "/v1/auth/register", {**account, "username": "mfa"}, token=None)
    assert made.status == 201
    token = pair.writer.ask("POST", "/v1/auth/login", account, token=None).json["token"]
    fresh = pair.writer.ask("POST", "/v1/auth/refresh", token=token)
    assert fresh.status == 200 and fresh.json["expires_in"] == 3600
    enabled = pair.writer.ask("POST", "/v1/auth/mfa/enable", token=token)
    assert enabled.status == 200 and enabled.json["qr_code"].startswith("data:image/png;base64,")
    verified = pair.writer.ask(
        "POST", "/v1/auth/mfa/verify", {"code": one_time_code(enabled.json["secret"])}, token=token
    )
    assert (verified.status, verified.json) == (200, {"message": "MFA verified successfully"})
    refused = pair.writer.ask("POST", "/v1/auth/login", account, token=None)
    assert (refused.status, refused.json["error_code"]) == (401, "AUTH_MFA_REQUIRED")


def one_time_code(secret: str) -> str:
    """What an authenticator app shows (RFC 6238)."""
    key = base64.b32decode(secret + "=" * (-len(secret) % 8))
    digest = hmac.digest(key, (int(time.time()) // 30).to_bytes(8, "big"), hashlib.sha1)
    at = digest[-1] & 15
    return f"{(int.from_bytes(digest[at : at + 4], 'big') & 0x7FFFFFFF) % 10**6:06}"


# -- "Webhooks" --------------------------------------------------------------------------------------------------


async def test_a_webhook_hears_of_the_other_node_and_its_signature_is_the_seeds(pair: Pair) -> None:
    heard: list[tuple[dict[str, str], bytes]] = []
    arrived = asyncio.Event()

    async def receive(request: web.Request) -> web.Response:
        heard.append((dict(request.headers), await request.read()))
        arrived.set()
        return web.Response()

    server = web.Application()
    server.router.add_post("/webhook-endpoint", receive)
    runner = web.AppRunner(server)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        hook = {
            "url": f"http://127.0.0.1:{port}/webhook-endpoint",
            "events": ["user.created", "data.updated", "project.status_changed"],
            "secret": "your_webhook_secret",
        }
        pair.write("POST", "/webhooks", hook)
        id = pair.write("POST", "/data/Task", {"title": "told", "due_date": "2023-12-30"})["instance_id"]
        pair.seen(f"/data/Task/{id}")
        assert pair.ask(pair.reader, "PUT", f"/data/Task/{id}", {"title": "told twice"}).status == 200
        await arrived.wait()
    finally:
        await runner.cleanup()
    headers, raw = heard[0]
    body = json.loads(raw)
    assert (body["event"], body["model"], body["instanceId"]) == ("data.updated", "Task", id)
    assert body["changes"] == body["data"]["changes"] == {"title": "told twice"}
    assert body["data"]["model"] == "Task" and isinstance(body["timestamp"], int)
    expected = hmac.new(b"your_webhook_secret", raw, hashlib.sha256).hexdigest()
    assert headers["X-CivicBase-Signature"] == f"sha256={expected}"
    signature = body.pop("signature").removeprefix("sha256=")
    plain = json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
    assert hmac.compare_digest(signature, hmac.new(b"your_webhook_secret", plain, hashlib.sha256).hexdigest())


# -- "Batch Operations", "Data Export and Import" ----------------------------------------------------------------


def test_a_batch_an_export_and_an_import(pair: Pair) -> None:
    for name in ("UserProfile", "Project"):
        model = {
            "name": name,
            "fields": [{"name": "name", "type": "string"}, {"name": "interests", "type": "set"}],
        }
        pair.write("POST", "/data-models", model)
    operations = [
        {"method": "POST", "path": "/data/UserProfile", "body": {"name": "ada", "interests": ["hiking"]}},
        {"method": "POST", "path": "/data/Project", "body": {"name": "engine"}},
    ]
    results = pair.write("POST", "/batch", {"operations": operations})["results"]
    assert [one["status"] for one in results] == [201, 201]
    for name, result in zip(("UserProfile", "Project"), results, strict=True):
        pair.seen(f"/data/{name}/{result['body']['instance_id']}")
        pair.seen(f"/data/{name}", lambda listed: listed["total"] == 1)  # the index follows the record
    exported = pair.ask(
        pair.reader, "POST", "/export", {"models": ["UserProfile", "Project"], "format": "json"}
    )
    assert exported.status == 200 and b"engine" in exported.body and b"hiking" in exported.body
    boundary = "civicnode-walk"
    part = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="data.json"\r\n'
    part += "Content-Type: application/json\r\n\r\n"
    data = part.encode() + exported.body + f"\r\n--{boundary}--\r\n".encode()
    kind = f"multipart/form-data; boundary={boundary}"
    assert pair.ask(pair.writer, "POST", "/import", data, Content_Type=kind).status == 200


# -- "Error Handling, Rate Limiting, and API Versioning" ---------------------------------------------------------


def test_errors_rate_limits_and_the_changelog(pair: Pair) -> None:
    refused = pair.reader.ask("GET", "/v1/users/me", token="not.a.token")
    assert refused.status == 401
    assert refused.json == {
        "error": "Invalid authentication token provided",
        "error_code": "AUTH_INVALID_TOKEN",
    }
    assert pair.reader.ask("GET", "/v1/users/me", token=None).json["error_code"] == "UNAUTHORIZED"
    assert pair.ask(pair.reader, "GET", "/data/Task/none").json["error_code"] == "NOT_FOUND"
    answer = pair.ask(pair.reader, "GET", "/users/me")
    limit, left, reset = (
        int(answer.headers[f"x-ratelimit-{name}"]) for name in ("limit", "remaining", "reset")
    )
    assert limit == 1000 and 0 <= left < limit and time.time() - 5 < reset <= time.time() + 3605
    assert "civicnode" in pair.reader.ask("GET", "/changelog", token=None).body.decode().lower()


# -- "Offline Functionality and Sync" ----------------------------------------------------------------------------


def test_a_sync_says_what_it_brought_and_a_partial_one_what_has_changed_since(pair: Pair) -> None:
    synced = pair.ask(pair.reader, "POST", "/sync")
    assert (
        synced.status == 200
        and isinstance(synced.json["syncedCount"], int)
        and synced.json["conflicts"] == []
    )

    def is_told() -> bool:
        """Of a write; not before the reader's first sync is over, which is told as one `resync`."""
        before = int(time.time() * 1000) - 1
        id = pair.write("POST", "/data/Task", {"title": "synced", "due_date": "2023-12-30"})["instance_id"]
        pair.seen(f"/data/Task/{id}")
        changes = pair.ask(pair.reader, "GET", f"/sync/changes?since={before}")
        assert changes.status == 200 and "cursor" in changes.json
        return id in changes.body.decode()

    until(is_told, "the change since a time", pair.writer, pair.reader)
