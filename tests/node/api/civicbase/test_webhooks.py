"""The routes of webhooks: shapes, faults, and who may see what."""

import asyncio
import hmac
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import standardwebhooks

from tests.node.fakes import Clock
from tests.node.pair import Running
from tests.node.services.webhook_receiver import NODE, Receiver, receiving, verified_by_node

BODY = {"url": "https://your-app.com/webhook-endpoint", "events": ["user.created", "data.updated"]}


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def node(tmp_path: Path, http: aiohttp.ClientSession) -> AsyncIterator[Running]:
    here = Running(tmp_path / "node", Clock(), http)
    await here.start()
    yield here
    await here.node.stop()


@pytest.fixture
async def open_node(tmp_path: Path, http: aiohttp.ClientSession) -> AsyncIterator[Running]:
    """One that lets webhooks go to this machine, by the real clock."""
    import time

    clock: Any = lambda: time.time_ns() // 1_000_000  # noqa: E731
    here = Running(tmp_path / "open", clock, http, webhooks_allow_private=True)
    await here.start()
    yield here
    await here.node.stop()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as found:
        yield found


async def test_a_webhook_is_registered_as_the_seed_says(node: Running) -> None:
    answer = await node.ask("POST", "/v1/webhooks", {**BODY, "secret": "your_webhook_secret"})
    assert answer.status == 201
    made = answer.json
    assert (made["url"], made["events"], made["secret"]) == (
        BODY["url"],
        BODY["events"],
        "your_webhook_secret",
    )
    assert made["webhook_id"] == made["id"] and answer.headers["Location"] == f"/v1/webhooks/{made['id']}"
    assert made["enabled"] is True and made["unmatched_events"] == []
    shown = await node.done("GET", f"/v1/webhooks/{made['id']}")
    assert shown == {name: value for name, value in made.items() if name not in ("secret", "message")}
    assert await node.done("GET", "/v1/webhooks") == {"items": [shown], "total": 1, "page": 1, "per_page": 20}


async def test_a_secret_is_made_and_shown_once(node: Running) -> None:
    made = await node.done("POST", "/v1/webhooks", BODY)
    assert made["secret"].startswith("whsec_") and len(made["secret"]) == 50
    assert "secret" not in await node.done("GET", f"/v1/webhooks/{made['id']}")
    assert made["secret"] != (await node.done("POST", "/v1/webhooks", BODY))["secret"]


async def test_every_fault_is_named_at_once(node: Running) -> None:
    answer = await node.ask(
        "POST", "/v1/webhooks", {"events": ["x", "Task.updated"], "secret": "", "foo": None}
    )
    assert answer.status == 400 and answer.json["error_code"] == "BAD_REQUEST"
    assert set(answer.json["details"]) == {"url", "events[0]", "secret", "foo"}
    answer = await node.ask("POST", "/v1/webhooks", {**BODY, "secret": "whsec_tooshort", "enabled": "yes"})
    assert set(answer.json["details"]) == {"secret", "enabled"}
    answer = await node.ask("POST", "/v1/webhooks", {"url": None, "events": None})
    assert set(answer.json["details"]) == {"url", "events"}


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9000/x", "http://localhost/", "http://169.254.169.254/latest"]
)
async def test_private_targets_need_the_setting(node: Running, url: str) -> None:
    answer = await node.ask("POST", "/v1/webhooks", {**BODY, "url": url})
    assert answer.status == 400 and "webhooks_allow_private" in answer.json["details"]["url"]


async def test_what_is_given_is_changed(node: Running) -> None:
    made = await node.done("POST", "/v1/webhooks", BODY)
    path = f"/v1/webhooks/{made['id']}"
    for method in ("PUT", "PATCH"):
        changed = await node.done(method, path, {"events": ["*"], "enabled": False})
        assert (changed["url"], changed["events"], changed["enabled"]) == (BODY["url"], ["*"], False)
        assert changed["disabled_reason"] == "by request"
        assert (await node.done(method, path, {"enabled": True}))["disabled_reason"] is None
    shown = await node.done("GET", path)
    assert await node.done("PUT", path, shown) == shown, "what was read may be sent back"
    assert (await node.ask("PUT", path, {**shown, "created_by": "me"})).status == 400
    assert (await node.ask("PATCH", path, {"url": None})).json["details"] == {"url": "Must be a text"}
    assert (await node.ask("DELETE", path)).status == 204
    for method, rest in (("GET", ""), ("DELETE", ""), ("GET", "/deliveries"), ("POST", "/test")):
        assert (await node.ask(method, path + rest)).status == 404


async def test_a_webhook_is_its_users_own_and_administrators(node: Running) -> None:
    ann_id, ann = await node.sign_up("ann")
    _, bob = await node.sign_up("bob")
    made = await node.done("POST", "/v1/webhooks", BODY, token=ann)
    path = f"/v1/webhooks/{made['id']}"
    assert made["created_by"] == ann_id
    assert (await node.ask("GET", path, token=ann)).status == 200
    assert (await node.ask("GET", path)).status == 200, "the owner is an administrator"
    for method, rest in (
        ("GET", ""), ("PUT", ""), ("DELETE", ""), ("GET", "/deliveries"), ("POST", "/test"), ("POST", "/rotate-secret"),
        ("POST", "/deliveries/msg_1_a/replay"),
    ):  # fmt: skip
        body: Any = {} if method == "PUT" else None
        answer = await node.ask(method, path + rest, body, token=bob)
        assert (answer.status, answer.json["error_code"]) == (404, "NOT_FOUND"), (method, rest)
    assert (await node.done("GET", "/v1/webhooks", token=bob))["total"] == 0
    async with node.http.get(node.node.url + "/v1/webhooks") as anonymous:
        assert anonymous.status == 401


async def test_there_is_a_limit_for_each_user(node: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    import node.services.webhooks as webhooks

    monkeypatch.setattr(webhooks, "HOOKS_PER_USER_MAX", 2)
    for _ in range(2):
        await node.done("POST", "/v1/webhooks", BODY)
    assert (await node.ask("POST", "/v1/webhooks", BODY)).status == 409
    _, ann = await node.sign_up("ann")
    await node.done("POST", "/v1/webhooks", BODY, token=ann)


async def test_pages(node: Running) -> None:
    made = [(await node.done("POST", "/v1/webhooks", BODY))["id"] for _ in range(3)]
    page = await node.done("GET", "/v1/webhooks?per_page=2&page=2")
    assert ([each["id"] for each in page["items"]], page["total"]) == (made[2:], 3)
    answer = await node.ask("GET", f"/v1/webhooks/{made[0]}/deliveries?page=0&per_page=x&foo=1")
    assert set(answer.json["details"]) == {"page", "per_page", "foo"}


async def test_a_ping_is_told_about_and_logged(open_node: Running, receiver: Receiver) -> None:
    node = open_node
    made = await node.done("POST", "/v1/webhooks", {**BODY, "url": receiver.url})
    path = f"/v1/webhooks/{made['id']}"
    ping = await node.done("POST", path + "/test")
    assert (ping["event"], ping["status"], ping["response_code"], ping["response_body"]) == (
        "ping", "delivered", 200, "thanks",
    )  # fmt: skip
    assert receiver.sent[0].json["event"] == "ping"
    receiver.answer = lambda sent: (500, {}, b"oops")
    failed = await node.done("POST", path + "/test")
    assert (failed["status"], failed["error"]) == ("failed", "the receiver answered 500")
    log = await node.done("GET", path + "/deliveries")
    assert (log["items"], log["total"]) == ([failed, ping], 2)


async def test_a_delivery_can_be_looked_at_and_replayed(open_node: Running, receiver: Receiver) -> None:
    node = open_node
    await node.done("POST", "/v1/data-models", {"name": "Task", "fields": {"title": {"type": "string"}}})
    made = await node.done("POST", "/v1/webhooks", {**BODY, "url": receiver.url, "events": ["Task.created"]})
    path = f"/v1/webhooks/{made['id']}/deliveries"
    await node.done("POST", "/v1/data/Task", {"id": "t1", "title": "x" * 10_000})
    await receiver.heard(1)
    delivery = await _only(node, path)
    assert (delivery["event"], delivery["instance_id"], delivery["attempts"]) == ("Task.created", "t1", 1)
    assert delivery["next_attempt_at"] is None and len(delivery["body"]) == 4_096
    again = await node.ask("POST", f"{path}/{delivery['id']}/replay")
    assert again.status == 202 and again.json["status"] == "pending"
    first, second = await receiver.heard(2)
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == delivery["id"]
    for other in ("msg_1_0", "msg_ffff_0", "x", "msg_" + "f" * 40):
        assert (await node.ask("POST", f"{path}/{other}/replay")).status == 404
    await node.done("PATCH", f"/v1/webhooks/{made['id']}", {"enabled": False})
    assert (await node.ask("POST", f"{path}/{delivery['id']}/replay")).status == 409


async def _only(node: Running, path: str) -> Any:
    """The one delivery of a webhook, once it is over."""
    async with asyncio.timeout(60):
        while True:
            (delivery,) = (await node.done("GET", path))["items"]
            if delivery["status"] != "pending":
                return delivery


async def test_both_secrets_sign_for_a_while(open_node: Running, receiver: Receiver) -> None:
    node = open_node
    made = await node.done("POST", "/v1/webhooks", {**BODY, "url": receiver.url})
    path = f"/v1/webhooks/{made['id']}"
    rotated = await node.done("POST", path + "/rotate-secret")
    assert rotated["secret"] != made["secret"] and rotated["previous_secret_until"] is not None
    await node.done("POST", path + "/test")
    (sent,) = receiver.sent
    for secret in (rotated["secret"], made["secret"]):
        standardwebhooks.Webhook(secret).verify(sent.body, dict(sent.headers))
    assert sent.headers["X-CivicBase-Signature"] == _sha256(rotated["secret"], sent.body)
    assert sent.headers["X-CivicBase-Signature-Previous"] == _sha256(made["secret"], sent.body)
    await node.done("POST", path + "/rotate-secret", {"secret": "mine", "overlap_s": 0})
    await node.done("POST", path + "/test")
    assert "X-CivicBase-Signature-Previous" not in receiver.sent[1].headers
    if NODE is not None:
        assert verified_by_node([receiver.sent[1].body], "mine") == [True]
    answer = await node.ask("POST", path + "/rotate-secret", {"secret": "", "overlap_s": -1})
    assert set(answer.json["details"]) == {"secret", "overlap_s"}


def _sha256(secret: str, body: bytes) -> str:
    return "sha256=" + hmac.digest(secret.encode(), body, "sha256").hex()


async def test_the_node_never_calls_itself(open_node: Running) -> None:
    node = open_node
    for url in (node.node.url, f"http://{node.node.network.listening}"):
        made = await node.done("POST", "/v1/webhooks", {**BODY, "url": url + "/v1/webhooks"})
        ping = await node.done("POST", f"/v1/webhooks/{made['id']}/test")
        assert (ping["status"], ping["error"]) == ("failed", "the target is this node itself")


async def test_metrics_and_status_tell_of_webhooks(open_node: Running, receiver: Receiver) -> None:
    node = open_node
    made = await node.done("POST", "/v1/webhooks", {**BODY, "url": receiver.url, "events": ["user.created"]})
    await node.sign_up("ann")
    await receiver.heard(1)
    await _only(node, f"/v1/webhooks/{made['id']}/deliveries")
    over = {"webhooks": 1, "disabled": 0, "pending": 0}
    async with asyncio.timeout(60):  # it is over in the record before it is in memory
        while (await node.done("GET", "/v1/admin/status"))["webhooks"] != over:
            pass
    metrics = (await node.ask("GET", "/metrics")).text
    assert 'civicnode_webhook_attempts_total{outcome="delivered"} 1.0' in metrics
    assert 'civicnode_webhook_deliveries_total{status="delivered"} 1.0' in metrics
    assert "civicnode_webhook_pending 0.0" in metrics


async def test_no_api_key_opens_them(node: Running) -> None:
    """A webhook would outlive the key, and read what its scopes do not."""
    _, ann = await node.sign_up("ann")
    key = await node.done("POST", "/v1/api-keys", {"name": "robot", "scopes": ["read", "write"]}, token=ann)
    for method in ("GET", "POST"):
        body = BODY if method == "POST" else None
        assert (await node.ask(method, "/v1/webhooks", body, token=key["api_key"])).status == 403


async def test_so_many_pings_at_a_time(
    open_node: Running, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    import node.services.webhooks as webhooks

    monkeypatch.setattr(webhooks, "PINGS_MAX", 1)
    answers = asyncio.Event()
    made = await open_node.done("POST", "/v1/webhooks", {**BODY, "url": receiver.url})
    receiver.answer = lambda sent: None if not answers.is_set() else (200, {}, b"")
    first = asyncio.create_task(open_node.ask("POST", f"/v1/webhooks/{made['id']}/test"))
    await receiver.heard(1)
    assert (await open_node.ask("POST", f"/v1/webhooks/{made['id']}/test")).status == 429
    await open_node.done("DELETE", f"/v1/webhooks/{made['id']}")
    first.cancel()
