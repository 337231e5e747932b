"""The Python client against a real node: data, hooks, accounts, and what happens when an answer is lost."""

import asyncio
import base64
import hmac
import inspect
import json
import struct
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import cosmicsync
from cosmicsync import (
    AsyncCosmicSync,
    BadRequest,
    Conflict,
    CosmicSync,
    MfaRequired,
    NodeUnreachable,
    NotFound,
    NotOffered,
    PreconditionFailed,
    RateLimited,
    Tokens,
    Unauthorized,
)
from cosmicsync.transport import Answer, Transport
from tests.system.neighbours import free_port
from tests.system.process import NodeProcess

PASSWORD = "securepassword123"


def test_an_instance_is_made_read_changed_and_deleted(client: CosmicSync, task: str) -> None:
    made = client.create_instance(
        task, {"title": "one", "tags": {"b", "a"}, "due": datetime(2030, 1, 2).date()}
    )
    found = client.get_instance(task, made["id"])
    assert (found.title, found["status"], found.due, found.tags) == ("one", "TODO", "2030-01-02", ["a", "b"])
    assert found.version == made["version"] and found.createdAt == found["created_at"]
    changed = client.update_instance(task, made["id"], {"status": "DONE"}, if_match=made["version"])
    assert changed["version"] != made["version"]
    with pytest.raises(PreconditionFailed) as moved:
        client.update_instance(task, made["id"], {"status": "TODO"}, if_match=made["version"])
    assert (moved.value.status, moved.value.error_code) == (412, "PRECONDITION_FAILED")
    client.delete_instance(task, made["id"])
    with pytest.raises(NotFound):
        client.get_instance(task, made["id"])


def test_every_fault_is_told_by_its_field(client: CosmicSync, task: str) -> None:
    with pytest.raises(BadRequest) as refused:
        client.create_instance(task, {"status": "LATER", "colour": 1})
    assert set(refused.value.details) == {"title", "status", "colour"}
    assert str(refused.value) == "Validation failed"
    with pytest.raises(NotFound):
        client.query(f"{task}x", {"title": "a"})


def test_queries_are_those_of_the_seed(client: CosmicSync, task: str) -> None:
    client.batch(
        [
            {
                "method": "POST",
                "path": f"/data/{task}",
                "body": {"id": f"i{n:03}", "title": f"t{n}", "priority": n},
            }
            for n in range(230)
        ]
    )
    assert len(client.query(task)) == 230
    over = client.query(task, {"priority": {"$gt": 226}}, sort={"priority": -1})
    assert [item.title for item in over] == ["t229", "t228", "t227"]
    for skip, limit in ((0, 5), (10, 5), (7, 5), (101, 120), (225, 20), (230, 1), (0, 0)):
        page = client.query(task, None, skip=skip, limit=limit, sort={"priority": 1})
        assert [item.priority for item in page] == list(range(230))[skip : skip + limit], (skip, limit)
    few = client.query(
        task, {"$or": [{"priority": 3}, {"title": {"$regex": "^t22[0-1]"}}]}, sort={"priority": 1}
    )
    assert [item.priority for item in few] == [3, 220, 221]
    several = client.query(task, {"priority": {"$lt": 4}}, sort=[("status", 1), ("priority", -1)], limit=2)
    assert [item.priority for item in several] == [3, 2]
    names = client.query(task, {"priority": 1}, projection={"title": 1})
    assert [dict(item) for item in names] == [{"id": "i001", "title": "t1"}]
    soon = datetime.now(UTC) + timedelta(days=1)
    assert len(client.query(task, {"createdAt": {"$lt": soon}, "createdBy": {"$ne": "nobody"}}, limit=3)) == 3
    assert client.query(task, "priority:eq:5")[0].title == "t5"
    summed = client.aggregate(
        task,
        {
            "group_by": ["status"],
            "aggregations": [{"field": "priority", "operation": "max", "alias": "most"}],
            "filter": {"priority": {"$lt": 100}},
        },
    )
    assert summed == [{"status": "TODO", "most": 99}]
    with pytest.raises(NotOffered):
        client.aggregate(task, {"group_by": ["status"], "filter": {"title": {"$regex": "x"}}})


def test_updates_in_a_batch_are_stored_together_or_not_at_all(client: CosmicSync, task: str) -> None:
    ids = [client.create_instance(task, {"title": f"t{n}"})["id"] for n in range(2)]
    updates = [{"modelName": task, "instanceId": id, "updates": {"priority": 7}} for id in ids]
    assert [result["status"] for result in client.batch_update(updates)] == [200, 200]
    updates[1]["updates"] = {"priority": "seven"}
    updates[0]["updates"] = {"priority": 8}
    with pytest.raises(BadRequest) as refused:
        client.batch_update(updates)
    assert "operations[1].priority" in refused.value.details
    assert client.get_instance(task, ids[0]).priority == 7
    assert client.batch_update([]) == []


def test_a_model_that_is_defined_again_grows(client: CosmicSync, task: str) -> None:
    grown = client.define_model(
        task, fields={"extra": "string", "priority": {"type": "integer", "indexed": True}},
        indexes=[{"key": {"title": 1}}, {"key": {"priority": -1}}],
    )  # fmt: skip
    fields = {field["name"]: field for field in grown["fields"]}
    assert (
        fields["extra"]["type"] == "string" and fields["title"]["required"] and fields["priority"]["indexed"]
    )
    again = client.define_model(task, fields={}, indexes=[{"key": {"title": 1}}])
    assert [index["key"] for index in again["indexes"]] == [{"priority": -1}, {"title": 1}]
    with pytest.raises(BadRequest):
        client.define_model(task, fields={"priority": "string"})
    with pytest.raises(BadRequest):
        client.define_model(f"{task}New", fields={"a": "nothing"})


def test_business_logic_runs_around_each_write(client: CosmicSync, task: str) -> None:
    told: list[tuple[str, Any, str]] = []

    def validate(data: Any, context: cosmicsync.Context) -> None:
        if (data.get("priority") or 0) < 0:
            raise ValueError("Priority cannot be negative")

    def stamp(data: Any, context: cosmicsync.Context) -> None:
        data["title"] = data["title"].strip()

    async def after(data: Any, context: cosmicsync.Context) -> None:
        told.append((context.action, data["title"], data.shout()))
        raise RuntimeError("what a trigger does afterwards takes nothing back")

    client.register_validator(name="notNegative", model=task, validate=validate)
    client.register_trigger(name="strip", model=task, event="beforeCreate", handler=stamp)
    client.register_trigger(name="tell", model=task, event="afterUpdate", handler=after)
    client.extend_model(task, {"shout": lambda self: self["title"].upper()})
    id = client.create_instance(task, {"title": " spaced "})["id"]
    with pytest.raises(ValueError, match="cannot be negative"):
        client.update_instance(task, id, {"priority": -5})
    client.update_instance(task, id, {"priority": 5})
    with pytest.raises(ValueError, match="cannot be negative"):
        client.batch_update([{"modelName": task, "instanceId": id, "updates": {"priority": -5}}])
    assert told == [("update", "spaced", "SPACED")]
    assert client.get_instance(task, id).shout() == "SPACED"
    with pytest.raises(ValueError, match="no event"):
        client.register_trigger(model=task, event="afterwards", handler=after)

    # A query method may use the client, which waits for it.
    client.register_query_method(
        name="above", model=task, query=lambda than: client.query(task, {"priority": {"$gt": than}})
    )
    assert [item.id for item in client.model(task).above(4)] == [id]
    assert [item.id for item in getattr(client, task).above(4)] == [id]
    with pytest.raises(NotFound, match="No plugin has a query method"):
        client.model(task).below(than=4)  # asked of the node's plugins
    client.define_model("Offer", fields={"name": "string", "price": "integer"})
    tea = client.create_instance("Offer", {"name": "tea", "price": 4})["id"]
    client.create_instance("Offer", {"name": "car", "price": 9_000})
    assert client.Offer.cheap(below=10) == ["tea"]
    assert client.call_method("Offer", tea, "label", currency="EUR") == "tea: 4 EUR"


def test_people_sign_in_stay_signed_in_and_sign_out(node: NodeProcess) -> None:
    kept: list[Tokens | None] = []
    with CosmicSync(node.url, on_tokens=kept.append) as client:
        with pytest.raises(Unauthorized):
            client.auth.me()
        client.auth.register(email="ada@example.org", username="ada", password=PASSWORD)
        with pytest.raises(Unauthorized):
            client.auth.login(email="ada@example.org", password="another password")
        client.auth.login(email="ada@example.org", password=PASSWORD)
        assert client.auth.me()["username"] == "ada"
        assert client.rate_limit is not None and client.rate_limit.limit == 1000
        first = client.auth.tokens
        assert first is not None and first.refresh_token is not None

        # A token that is refused is renewed, and so is one that is about to end.
        client.auth.use(Tokens(first.token + "x", first.refresh_token))
        assert client.auth.me()["username"] == "ada"
        second = client.auth.tokens
        assert second is not None and second.token != first.token
        client.auth.use(Tokens(second.token, second.refresh_token, expires_at_s=time.time() + 1))
        assert client.auth.me()["username"] == "ada"
        assert client.auth.tokens != second and kept[-1] == client.auth.tokens

        client.auth.put_user_data("theme", {"dark": True})
        assert client.auth.user_data("theme") == {"dark": True}
        assert client.auth.update_me({"city": "London"})["city"] == "London"
        last = client.auth.tokens
        client.auth.logout()
        assert client.auth.tokens is None and kept[-1] is None
        assert last is not None
        client.auth.use(Tokens(last.token))
        with pytest.raises(Unauthorized):
            client.auth.me()


async def test_a_refusal_that_comes_once_the_token_is_renewed_does_not_renew_it_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    is_renewed, refused, renewals = asyncio.Event(), list[str](), list[str]()

    async def once(self: Transport, m: str, path: str, b: Any, headers: Any, q: Any = None) -> Answer:
        if path == "/v1/auth/refresh":
            renewals.append(path)
            return Answer(200, {}, {"token": "new.to.ken"})
        if headers["Authorization"] == "Bearer old.to.ken":
            refused.append(path)
            if path == "/late":
                await is_renewed.wait()
            raise Unauthorized("it has ended", error_code="AUTH_INVALID_TOKEN", status=401)
        return Answer(200, {}, path)

    monkeypatch.setattr(Transport, "_once", once)
    transport = Transport("http://127.0.0.1:9", on_tokens=lambda tokens: is_renewed.set())
    transport._tokens = Tokens("old.to.ken", "refresh")
    answers = await asyncio.gather(transport.ask("GET", "/soon"), transport.ask("GET", "/late"))
    assert [answer.body for answer in answers] == refused == ["/soon", "/late"]
    assert len(renewals) == 1


def code_of(secret: str) -> str:
    """A one-time code (RFC 6238)."""
    counter = struct.pack(">Q", int(time.time()) // 30)
    digest = hmac.digest(base64.b32decode(secret), counter, "sha1")
    place = digest[-1] & 15
    return f"{(struct.unpack_from('>I', digest, place)[0] & 0x7FFFFFFF) % 1_000_000:06}"


def test_a_second_factor_is_asked_for_when_it_is_needed(node: NodeProcess) -> None:
    person = {"email": "fay@example.org", "password": PASSWORD}
    with CosmicSync(node.url) as client:
        client.auth.register(username="fay", **person)
        client.auth.login(**person, mfa_code=lambda: pytest.fail("not needed yet"))
        enabled = client.auth.enable_mfa()
        client.auth.verify_mfa(code_of(enabled["secret"]))
        with pytest.raises(MfaRequired):
            client.auth.login(**person)
        asked: list[str] = []

        def ask() -> str:
            asked.append(enabled["recovery_codes"][0])
            return asked[-1]

        client.auth.login(**person, mfa_code=ask)
        assert len(asked) == 1 and client.auth.me()["username"] == "fay"


def test_graphql_files_webhooks_and_erasure(client: CosmicSync, task: str) -> None:
    made = client.create_instance(task, {"title": "one"})
    assert (
        client.graphql("query($n: String!) { __type(name: $n) { name } }", {"n": task})["__type"]["name"]
        == task
    )
    with pytest.raises(BadRequest):
        client.graphql("{ nothing }")
    exported = client.export_data([task])
    assert [record["id"] for record in exported[task]] == [made["id"]]
    lines = json.dumps({"title": "two"}).encode() + b"\n"
    assert client.import_data(lines, model=task, format="ndjson")["created"] == 1
    hook = client.register_webhook("https://app.example.org/hook", [f"{task}.created"], secret="a" * 32)
    assert hook["id"]
    user = client.auth.register(email="gus@example.org", username="gus", password=PASSWORD)["user_id"]
    assert client.notify_peer_deletion(user)["user_id"] == user
    assert client.notify_peer_deletion(user, erase=True)["erasure_id"]


def lose_answers(monkeypatch: pytest.MonkeyPatch, method: str, path: str, times: int = 1) -> list[str]:
    """The node does what it is asked; the first answers to such requests are lost. -> the keys that were sent."""
    once, keys = Transport._once, list[str]()

    async def losing(self: Transport, m: str, p: str, b: Any, h: Any, q: Any = None) -> Answer:
        answer = await once(self, m, p, b, h, q)
        if (m, p) == (method, path):
            keys.append(h.get("Idempotency-Key", ""))
            if len(keys) <= times:
                raise NodeUnreachable("the answer was lost")
        return answer

    monkeypatch.setattr(Transport, "_once", losing)
    return keys


def test_a_create_whose_answer_was_lost_makes_one_instance(
    client: CosmicSync, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = lose_answers(monkeypatch, "POST", f"/v1/data/{task}")
    made = client.create_instance(task, {"title": "once"})
    assert [item.id for item in client.query(task)] == [made["id"]]
    assert len(set(keys)) <= 1  # a repetition carries the key of the first try
    assert made["version"] == client.get_instance(task, made["id"]).version
    with pytest.raises(Conflict):
        client.create_instance(
            task, {"id": made["id"], "title": "the app's own id is not taken for a repetition"}
        )


def test_an_edit_of_a_text_is_not_repeated_blindly(
    client: CosmicSync, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = client.create_instance(task, {"title": "t", "body": "ab"})
    lose_answers(monkeypatch, "PUT", f"/v1/data/{task}/{made['id']}")
    edit = {"body": {"ops": [{"retain": 1}, {"insert": "x"}], "base_version": made["version"]}}
    with pytest.raises(NodeUnreachable):
        client.update_instance(task, made["id"], edit)
    assert client.get_instance(task, made["id"]).body == "axb"


def test_no_node_is_one_error_of_the_family() -> None:
    with CosmicSync(f"http://127.0.0.1:{free_port()}", token="x") as client:
        with pytest.raises(NodeUnreachable) as caught:
            client.get_instance("Task", "1")
        assert isinstance(caught.value, cosmicsync.CosmicSyncError)
        assert caught.value.error_code == "NODE_UNREACHABLE" and caught.value.status is None


def test_the_rate_is_kept_or_told(tmp_path: Path) -> None:
    limits = {"CIVICNODE_S1_RATE_LIMIT_AUTHENTICATED": "8"}
    with NodeProcess(tmp_path / "data", env=limits) as node, CosmicSync(node.url) as client:
        client.auth.register(email="bob@example.org", username="bob", password=PASSWORD)
        client.auth.login(email="bob@example.org", password=PASSWORD)
        with pytest.raises(RateLimited) as caught:
            for _ in range(9):
                client.auth.me()
        assert caught.value.error_code == "RATE_LIMIT_EXCEEDED" and caught.value.retry_after_s
        assert client.rate_limit is not None and client.rate_limit.remaining == 0


def test_values_are_kept_for_a_while(client: CosmicSync) -> None:
    calls: list[int] = []

    def fetch() -> int:
        calls.append(1)
        return len(calls)

    assert [client.get_cached_data("k", fetch) for _ in range(2)] == [1, 1]
    assert client.get_cached_data("other", fetch, ttl_s=0) == 2
    assert client.get_cached_data("other", fetch, ttl_s=0) == 3


async def test_the_asynchronous_client_has_the_same_methods(node: NodeProcess) -> None:
    def methods(kind: type) -> dict[str, str]:
        return {
            name: str(inspect.signature(member)).split(" -> ")[0]
            for name, member in vars(kind).items()
            if not name.startswith("_")
            and inspect.isfunction(member)
            and name not in ("close", "subscribe", "model")
        }

    assert methods(AsyncCosmicSync) == methods(CosmicSync)
    async with AsyncCosmicSync(node.url, token=node.token) as client:
        await client.define_model("AsyncThing", fields={"name": "string"})
        made = await client.create_instance("AsyncThing", {"name": "a"})
        assert (await client.get_instance("AsyncThing", made["id"])).name == "a"
        assert (await client.request("GET", "/v1/users/me")).status == 200


def test_a_coroutine_inside_the_blocking_client_cannot_wait_for_it(client: CosmicSync, task: str) -> None:
    async def validate(data: Any, context: cosmicsync.Context) -> None:
        context.client.query(task)

    client.register_validator(model=task, validate=validate)
    with pytest.raises(RuntimeError, match="plain function"):
        client.create_instance(task, {"title": "t"})
