"""Webhooks of a whole node: from a write to the receiver, by the clock of the test."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from node.services import webhook_following as following
from node.services import webhook_records as records
from node.services.permissions import Actor
from node.services.webhook_events import HookUser
from node.services.webhook_records import Delivery, Status
from node.services.webhooks import Webhooks
from protocol.ids import builtin_model_id
from storage.changes import Shared
from storage.errors import StorageFull
from tests.node.fakes import Clock
from tests.node.pair import PASSWORD, Running, exchange, hand_over, pair
from tests.node.services.webhook_receiver import OK, Receiver, receiving

TASK = {"name": "Task", "fields": {"title": {"type": "string"}, "stage": {"type": "string"}}}
DAY_S = 86_400
OWNER: Actor = HookUser("owner", "default", True, frozenset())


@asynccontextmanager
async def _node(directory: Path, clock: Clock | None = None, **settings: Any) -> AsyncIterator[Running]:
    async with aiohttp.ClientSession() as http:
        node = Running(directory, clock or Clock(), http, webhooks_allow_private=True, **settings)
        await node.start()
        try:
            yield node
        finally:
            await node.node.stop()


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Running]:
    async with _node(tmp_path / "here") as node:
        await node.done("POST", "/v1/data-models", TASK)
        yield node


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as found:
        yield found


def _hooks(node: Running) -> Webhooks:
    return node.node.civicbase.webhooks


async def _register(node: Running, receiver: Receiver, *events: str, **more: Any) -> str:
    body = {"url": receiver.url, "events": list(events) or ["*"], "secret": "s3cret"}
    return str((await node.done("POST", "/v1/webhooks", body, **more))["id"])


async def _log(node: Running, hook: str, until: Callable[[list[Delivery]], bool]) -> list[Delivery]:
    """What has become of a webhook's deliveries, oldest first, once it is what is waited for."""
    async with asyncio.timeout(60):
        while True:
            found = (await _hooks(node).deliveries(OWNER, hook))[::-1]
            if until(found):
                return found
            await asyncio.sleep(0.005)


async def _disabled(node: Running, hook: str) -> Any:
    """A webhook, once it is disabled."""
    async with asyncio.timeout(60):
        while True:
            shown = await node.done("GET", f"/v1/webhooks/{hook}")
            if not shown["enabled"]:
                return shown


def _all(status: Status, count: int) -> Callable[[list[Delivery]], bool]:
    return lambda found: len(found) == count and all(each.status is status for each in found)


def _tried(count: int) -> Callable[[list[Delivery]], bool]:
    """The first delivery has been attempted so often, as the record says."""
    return lambda found: bool(found) and found[0].attempts == count


async def test_every_kind_of_change_is_told(here: Running, receiver: Receiver) -> None:
    hook = await _register(
        here, receiver, "data.created", "data.updated", "data.deleted", "Task.stage_changed"
    )
    writes: list[tuple[str, str, Any, int]] = [
        ("POST", "", {"id": "t1", "title": "a", "stage": "new"}, 1),
        ("PUT", "/t1", {"title": "b"}, 2),
        ("PUT", "/t1", {"stage": "won"}, 4),
        ("DELETE", "/t1", None, 5),
    ]
    for method, path, body, heard in writes:
        await here.done(method, "/v1/data/Task" + path, body)
        await receiver.heard(heard)
    await _log(here, hook, _all(Status.DELIVERED, 5))
    said = [sent.json for sent in receiver.sent]
    assert [(each["event"], each["changes"]) for each in said] == [
        ("data.created", {"title": "a", "stage": "new"}),
        ("data.updated", {"title": "b"}),
        ("data.updated", {"stage": "won"}),
        ("Task.stage_changed", {"stage": "won"}),
        ("data.deleted", {}),
    ]
    assert all((each["model"], each["instanceId"]) == ("Task", "t1") for each in said)
    assert len({sent.headers["webhook-id"] for sent in receiver.sent}) == 5


async def test_what_was_deleted_before_it_could_be_told_is_told_without_content(
    here: Running, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _register(here, receiver, "*")
    with monkeypatch.context() as held:
        held.setattr(_hooks(here)._following, "step", _nothing)
        await here.done("POST", "/v1/data/Task", {"id": "t1", "title": "a"})
        await here.done("DELETE", "/v1/data/Task/t1")
    await here.done("POST", "/v1/data/Task", {"id": "t2", "title": "b"})
    sent = await receiver.heard(3)
    told = [(each.json["event"], each.json["instanceId"], each.json["changes"]) for each in sent]
    assert sorted(told, key=str) == [
        ("data.created", "t1", {}),
        ("data.created", "t2", {"title": "b"}),
        ("data.deleted", "t1", {}),
    ]


async def test_only_what_was_asked_for_is_told_and_only_from_then_on(
    here: Running, receiver: Receiver
) -> None:
    await here.done("POST", "/v1/data-models", {"name": "project", "fields": {"status": {"type": "string"}}})
    await here.done("POST", "/v1/data/project", {"id": "p1", "status": "open"})
    await _register(here, receiver, "project.status_changed", "Task.deleted")
    await here.done("POST", "/v1/data/Task", {"id": "t1"})
    await here.done("PUT", "/v1/data/project/p1", {"status": "done"})
    await here.done("DELETE", "/v1/data/Task/t1")
    sent = await receiver.heard(2)
    assert [each.json["event"] for each in sent] == ["project.status_changed", "Task.deleted"]


async def test_accounts_are_told_of_without_credentials(here: Running, receiver: Receiver) -> None:
    ann, token = await here.sign_up("ann")
    await _register(here, receiver, "user.created", "user.updated")  # of the owner: sees all
    async with receiving() as of_ann:
        await _register(here, of_ann, "user.created", "user.updated", token=token)
        bob, of_bob = await here.sign_up("bob")
        await here.done("PUT", "/v1/users/me", {"bio": "hiker"}, token=of_bob)
        await here.done("PUT", "/v1/users/me", {"username": "robert"}, token=of_bob)
        await here.done(
            "POST", "/v1/auth/password", {"current_password": "correct horse 9", "new_password": "another horse 10"},
            token=of_bob,
        )  # fmt: skip
        await here.done("PUT", "/v1/users/me", {"bio": "climber"}, token=token)
        full = await receiver.heard(4)
        seen = await of_ann.heard(3)
    assert [(s.json["event"], s.json["instanceId"], s.json["changes"]) for s in full] == [
        ("user.created", bob, {"email": "bob@example.org", "username": "bob", "disabled": False}),
        ("user.updated", bob, {"bio": "hiker"}),
        ("user.updated", bob, {"username": "robert"}),
        ("user.updated", ann, {"bio": "climber"}),
    ]
    assert [(s.json["instanceId"], s.json["changes"]) for s in seen] == [
        (bob, {"username": "bob"}),
        (bob, {"username": "robert"}),
        (ann, {"bio": "climber"}),
    ]


async def test_a_user_is_told_of_what_that_user_may_read(here: Running, receiver: Receiver) -> None:
    private = {"name": "Diary", "fields": {"text": {"type": "string"}}, "permissions": {"read": "owner"}}
    await here.done("POST", "/v1/data-models", private)
    _, ann = await here.sign_up("ann")
    _, bob = await here.sign_up("bob")
    await _register(here, receiver, "data.created", "data.deleted", token=ann)
    await here.done("POST", "/v1/data/Diary", {"id": "of-bob", "text": "x"}, token=bob)
    await here.done("DELETE", "/v1/data/Diary/of-bob", token=bob)
    await here.done("POST", "/v1/data/Diary", {"id": "of-ann", "text": "x"}, token=ann)
    await here.done("DELETE", "/v1/data/Diary/of-ann", token=ann)
    sent = await receiver.heard(2)
    assert [each.json["instanceId"] for each in sent] == ["of-ann", "of-ann"]


async def test_rights_are_those_of_the_moment_of_delivery(here: Running, receiver: Receiver) -> None:
    _, ann = await here.sign_up("ann")
    hook = await _register(here, receiver, "data.created", token=ann)
    receiver.answer = lambda sent: (500, {}, b"")
    await here.done("POST", "/v1/data/Task", {"id": "t1", "title": "a"})
    await _log(here, hook, _tried(1))
    await here.done("PUT", "/v1/data-models/Task", {**TASK, "permissions": {"read": "role:staff"}})
    receiver.answer = lambda sent: OK
    here.clock.pass_s(10)
    await _hooks(here).replay(OWNER, hook, (await _log(here, hook, _tried(1)))[0].id)
    (dropped,) = await _log(here, hook, _all(Status.DROPPED, 1))
    assert dropped.attempts == 1 and len(receiver.sent) == 1


async def test_a_user_that_is_gone_ends_its_webhook(here: Running, receiver: Receiver) -> None:
    user, ann = await here.sign_up("ann")
    hook = await _register(here, receiver, token=ann)
    receiver.answer = lambda sent: (500, {}, b"")
    await here.done("POST", "/v1/data/Task", {"id": "t1"})
    (first,) = await _log(here, hook, _tried(1))
    await here.done("PUT", f"/v1/admin/users/{user}", {"disabled": True})
    await _hooks(here).replay(OWNER, hook, first.id)
    shown = await _disabled(here, hook)
    assert shown["disabled_reason"] == "its user is gone or disabled" and shown["pending"] == 1


async def test_a_receiver_that_fails_gets_it_once_it_is_back(here: Running, receiver: Receiver) -> None:
    hook = await _register(here, receiver, "data.created")
    receiver.answer = lambda sent: (503, {}, b"down")
    await here.done("POST", "/v1/data/Task", {"id": "t1"})
    (failed,) = await _log(here, hook, _tried(1))
    assert (failed.code, failed.excerpt, failed.status) == (503, "down", Status.PENDING)
    assert 5_000 <= failed.next_ms - here.clock() <= 6_000
    assert (await here.done("GET", f"/v1/webhooks/{hook}"))["failing_since"] is not None
    receiver.answer = lambda sent: OK
    here.clock.pass_s(7)
    await here.done("POST", "/v1/data/Task", {"id": "t2"})  # what is due is looked at again
    await _log(here, hook, _all(Status.DELIVERED, 2))
    first, *again = [s for s in receiver.sent if s.json["instanceId"] == "t1"]
    assert len(again) == 1 and again[0].headers["webhook-id"] == first.headers["webhook-id"]
    assert int(again[0].headers["webhook-timestamp"]) - int(first.headers["webhook-timestamp"]) == 7
    assert again[0].json == first.json
    assert (await here.done("GET", f"/v1/webhooks/{hook}"))["failing_since"] is None


async def test_a_receiver_that_is_gone_is_disabled_and_can_be_enabled(
    here: Running, receiver: Receiver
) -> None:
    hook = await _register(here, receiver, "data.created")
    receiver.answer = lambda sent: (410, {}, b"")
    await here.done("POST", "/v1/data/Task", {"id": "t1"})
    shown = await _disabled(here, hook)
    assert "410" in shown["disabled_reason"] and shown["disabled_at"] is not None and shown["pending"] == 1
    await here.done("POST", "/v1/data/Task", {"id": "between"})
    receiver.answer = lambda sent: OK
    again = await here.done("PATCH", f"/v1/webhooks/{hook}", {"enabled": True})
    assert (again["enabled"], again["disabled_reason"], again["failing_since"]) == (True, None, None)
    await here.done("POST", "/v1/data/Task", {"id": "t2"})
    await _log(here, hook, _all(Status.DELIVERED, 2))
    assert [s.json["instanceId"] for s in receiver.sent] == ["t1", "t1", "t2"]


async def test_nothing_but_failures_for_five_days_disables(here: Running, receiver: Receiver) -> None:
    hook = await _register(here, receiver, "data.created")
    receiver.answer = lambda sent: (500, {}, b"")
    await here.done("POST", "/v1/data/Task", {"id": "t1"})
    await _log(here, hook, _tried(1))
    here.clock.pass_s(5 * DAY_S + 1)
    await here.done("POST", "/v1/data/Task", {"id": "t2"})
    await _log(here, hook, lambda found: len(found) == 2 and all(each.attempts for each in found))
    shown = await _disabled(here, hook)
    assert shown["disabled_reason"] == "every attempt of the last 5 days has failed"


async def test_it_is_given_up_at_the_end_of_its_schedule(here: Running, receiver: Receiver) -> None:
    hook = await _register(here, receiver, "data.created")
    receiver.answer = lambda sent: (400, {}, b"no") if sent.json["instanceId"] == "bad" else OK
    await here.done("POST", "/v1/data/Task", {"id": "bad"})
    for attempt in range(1, 11):
        found = await _log(here, hook, _tried(attempt))
        here.clock.pass_s(30 * 3_600)
        await here.done("POST", "/v1/data/Task", {"id": f"good{attempt}"})
    found = await _log(here, hook, lambda found: len(found) == 11 and all(each.is_over for each in found))
    assert (found[0].status, found[0].attempts) == (Status.FAILED, 10)
    assert all(each.status is Status.DELIVERED for each in found[1:])
    again = await here.done("POST", f"/v1/webhooks/{hook}/deliveries/{found[0].id}/replay")
    assert again["status"] == "pending"
    found = await _log(here, hook, _tried(11))
    assert found[0].status is Status.PENDING, "a schedule of its own again"


async def test_a_slow_receiver_holds_up_nobody_else(here: Running, receiver: Receiver) -> None:
    async with receiving() as hanging:
        hanging.answer = lambda sent: None
        stuck = await _register(here, hanging, "data.created")
        hook = await _register(here, receiver, "data.created")
        for number in range(8):
            await here.done("POST", "/v1/data/Task", {"id": f"t{number}"})
        await _log(here, hook, _all(Status.DELIVERED, 8))
        assert len(await hanging.heard(4)) == 4, "and is not hit by more than a few at a time"
        assert (await here.done("GET", f"/v1/webhooks/{stuck}"))["pending"] == 8
        await here.done("DELETE", f"/v1/webhooks/{stuck}")


async def test_what_was_pending_is_sent_after_a_restart(tmp_path: Path, receiver: Receiver) -> None:
    clock = Clock()
    receiver.answer = lambda sent: (500, {}, b"")
    async with _node(tmp_path / "here", clock) as node:
        await node.done("POST", "/v1/data-models", TASK)
        hook = await _register(node, receiver, "data.created")
        await node.done("POST", "/v1/data/Task", {"id": "t1"})
        await _log(node, hook, _tried(1))
    receiver.answer = lambda sent: OK
    clock.pass_s(10)
    async with _node(tmp_path / "here", clock) as node:
        await _log(node, hook, _all(Status.DELIVERED, 1))
        await node.done("POST", "/v1/data/Task", {"id": "t2"})
        await _log(node, hook, _all(Status.DELIVERED, 2))
        numbers = [each.seq for each in await _hooks(node).deliveries(OWNER, hook)]
        assert len(set(numbers)) == 2, "no number is given twice"


async def test_what_was_not_taken_up_yet_is_read_from_the_feed_after_a_restart(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with _node(tmp_path / "here") as node:
        await node.done("POST", "/v1/data-models", TASK)
        await _register(node, receiver, "data.created")
        monkeypatch.setattr(_hooks(node)._following, "step", _nothing)
        operations = [
            {"method": "POST", "path": "/data/Task", "body": {"id": f"t{number}"}} for number in range(60)
        ]
        await node.done("POST", "/v1/batch", {"operations": operations})
    assert receiver.sent == []
    monkeypatch.setattr(following, "READ_ENTRIES", 16)
    async with _node(tmp_path / "here"):
        await receiver.heard(60)
    assert sorted(s.json["instanceId"] for s in receiver.sent) == sorted(f"t{number}" for number in range(60))


async def test_an_outbox_that_is_full_leaves_the_rest_in_the_feed(here: Running, receiver: Receiver) -> None:
    hook = await _register(here, receiver, "data.created")
    live = _hooks(here)._lives[hook]
    live.lane.share_room(5)
    receiver.answer = lambda sent: (500, {}, b"")
    other = await _register(here, receiver, "Task.deleted")
    _hooks(here)._lives[hook].lane.share_room(5)
    operations = [
        {"method": "POST", "path": "/data/Task", "body": {"id": f"t{number}"}} for number in range(40)
    ]
    await here.done("POST", "/v1/batch", {"operations": operations})
    await here.done("DELETE", "/v1/data/Task/t0")
    await _log(here, other, lambda found: len(found) == 1)
    assert len(await _hooks(here).deliveries(OWNER, hook)) == 5, "and nobody else waits for it"
    receiver.answer = lambda sent: OK
    await here.done("PATCH", f"/v1/webhooks/{hook}", {"enabled": True})
    live.lane.begin_anew(here.clock())
    here.clock.pass_s(3_600)
    _hooks(here)._delivering.look(live)
    found = await _log(here, hook, _all(Status.DELIVERED, 40))
    assert [each.instance for each in found] == [f"t{number}" for number in range(40)]


async def test_a_webhook_too_far_behind_is_told_once_to_read_anew(
    here: Running, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = await _register(here, receiver, "data.created")
    monkeypatch.setattr(following, "ARRIVALS_KEPT_MAX", 3)
    monkeypatch.setattr(_hooks(here)._lives[hook].lane, "size_bytes", 1 << 40)  # full
    for number in range(6):
        await here.done("POST", "/v1/data/Task", {"id": f"t{number}"})
    monkeypatch.setattr(_hooks(here)._lives[hook].lane, "size_bytes", 0)
    _hooks(here)._following.wake()
    await _log(here, hook, _all(Status.DELIVERED, 1))
    await here.done("POST", "/v1/data/Task", {"id": "after"})
    sent = await receiver.heard(2)
    assert [(s.json["event"], s.json["instanceId"]) for s in sent] == [
        ("resync", None),
        ("data.created", "after"),
    ]


async def test_a_disk_that_is_full_loses_no_event(
    here: Running, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = await _register(here, receiver, "data.created")
    outbox = _hooks(here)._records
    take_up = outbox.take_up

    async def full(*_: object) -> None:
        monkeypatch.setattr(outbox, "take_up", take_up)
        raise StorageFull("no space")

    monkeypatch.setattr(outbox, "take_up", full)
    await here.done("POST", "/v1/data/Task", {"id": "t1"})
    await here.done("POST", "/v1/data/Task", {"id": "t2"})
    await _log(here, hook, _all(Status.DELIVERED, 2))


async def test_what_is_erased_is_forgotten(here: Running, receiver: Receiver) -> None:
    receiver.answer = lambda sent: (500, {}, b"")
    hook = await _register(here, receiver, "data.created")
    deletions = await _register(here, receiver, "data.deleted")
    model = here.node.catalog.find("default", "Task")
    assert model is not None
    for id in ("t1", "t2"):
        await here.done("POST", "/v1/data/Task", {"id": id, "title": f"secret of {id}"})
    await _log(here, hook, lambda found: [each.attempts for each in found] == [1, 1])
    await here.done("DELETE", "/v1/data/Task/t1")
    await _log(here, deletions, _tried(1))
    await _hooks(here).forget("default", model.id, "t1")
    await _hooks(here).forget("other", model.id, "t2")
    (left,) = await _hooks(here).deliveries(OWNER, hook)
    assert left.instance == "t2"
    assert [each.event for each in await _hooks(here).deliveries(OWNER, deletions)] == ["data.deleted"]
    assert _hooks(here).status()["pending"] == 2
    with here.store.read() as snapshot:
        kept = json.dumps([value for _, value in snapshot.local.scan("webhook body")], default=repr)
    assert "secret of t2" in kept and "secret of t1" not in kept


async def test_what_is_erased_while_it_is_taken_up_is_not_kept(
    here: Running, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = await _register(here, receiver, "data.created")
    model = here.node.catalog.find("default", "Task")
    assert model is not None
    outbox = _hooks(here)._records
    take_up = outbox.take_up

    async def erased_meanwhile(*given: Any) -> None:
        monkeypatch.setattr(outbox, "take_up", take_up)
        await _hooks(here).forget("default", model.id, "t1")
        await take_up(*given)

    monkeypatch.setattr(outbox, "take_up", erased_meanwhile)
    await here.done("POST", "/v1/data/Task", {"id": "t1", "title": "secret"})
    await here.done("POST", "/v1/data/Task", {"id": "t2"})
    await receiver.heard(1)
    (left,) = await _log(here, hook, _all(Status.DELIVERED, 1))
    assert left.instance == "t2"
    assert [sent.json["instanceId"] for sent in receiver.sent] == ["t2"]


async def test_with_an_account_its_webhooks_are_erased(here: Running, receiver: Receiver) -> None:
    ann, token = await here.sign_up("ann")
    await _register(here, receiver, token=token)
    mine = await _register(here, receiver)
    await _hooks(here).forget("default", builtin_model_id("default", "$account"), ann)
    assert [each["id"] for each in (await here.done("GET", "/v1/webhooks"))["items"]] == [mine]


async def test_who_asks_for_erasure_is_forgotten_by_outboxes_too(here: Running, receiver: Receiver) -> None:
    receiver.answer = lambda sent: (500, {}, b"")
    _, ann = await here.sign_up("ann")
    mine = await _register(here, receiver, "data.created", "user.updated")
    await _register(here, receiver, token=ann)
    await here.done("POST", "/v1/data/Task", {"id": "t1", "title": "a secret of ann"}, token=ann)
    await here.done("PUT", "/v1/users/me", {"bio": "a secret of ann"}, token=ann)
    await _log(here, mine, lambda found: len(found) == 2)
    await here.done("POST", "/v1/privacy/erase", {"password": PASSWORD, "confirm": True}, token=ann)
    await _log(here, mine, lambda found: found == [])
    assert [each["id"] for each in (await here.done("GET", "/v1/webhooks"))["items"]] == [mine]
    with here.store.read() as snapshot:
        assert list(snapshot.local.scan("webhook body")) == []


async def test_the_log_is_bounded(here: Running, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "LOG_COUNT_MAX", 3)
    hook = await _register(here, receiver, "data.created")
    for number in range(6):
        await here.done("POST", "/v1/data/Task", {"id": f"t{number}"})
    await _log(here, hook, _all(Status.DELIVERED, 6))
    live = _hooks(here)._lives[hook]
    await _hooks(here)._delivering.prune(live)
    found = await _hooks(here).deliveries(OWNER, hook)
    assert [each.instance for each in found] == ["t5", "t4", "t3"]
    here.clock.pass_s(15 * DAY_S)
    await _hooks(here)._delivering.prune(live)
    assert await _hooks(here).deliveries(OWNER, hook) == []
    with here.store.read() as snapshot:
        assert list(snapshot.local.scan("webhook body")) == []


async def test_a_removed_webhook_leaves_nothing(here: Running, receiver: Receiver) -> None:
    receiver.answer = lambda sent: (500, {}, b"")
    hook = await _register(here, receiver, "data.created")
    await here.done("POST", "/v1/data/Task", {"id": "t1"})
    await _log(here, hook, _tried(1))
    await here.done("DELETE", f"/v1/webhooks/{hook}")
    await here.done("POST", "/v1/data/Task", {"id": "t2"})
    with here.store.read() as snapshot:
        for kind in ("webhook", "webhook state", "webhook delivery", "webhook body"):
            assert list(snapshot.local.scan(kind)) == []


# -- two nodes


async def test_changes_of_other_nodes_are_told_by_the_node_of_the_webhook(
    tmp_path: Path, receiver: Receiver
) -> None:
    async with pair(tmp_path, webhooks_allow_private=True) as (first, second):
        await first.done("POST", "/v1/data-models", TASK)
        await exchange(first, second)
        hook = await _register(first, receiver, "data.created")
        await second.done("POST", "/v1/data/Task", {"id": "there", "title": "x"})
        await hand_over(second, first)
        await first.done("POST", "/v1/data/Task", {"id": "here", "title": "y"})
        await _log(first, hook, _all(Status.DELIVERED, 2))
        there, here = receiver.sent
        assert (there.json["instanceId"], there.json["origin"]) == ("there", second.id.hex())
        assert here.json["instanceId"] == "here" and "origin" not in here.json
        assert (await second.done("GET", "/v1/webhooks"))["items"] == [], "a webhook does not travel"


async def test_what_the_first_sync_brings_is_not_told(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pair(tmp_path, webhooks_allow_private=True) as (first, second):
        await first.done("POST", "/v1/data-models", TASK)
        for number in range(3):
            await first.done("POST", "/v1/data/Task", {"id": f"old{number}"})
        hook = await _register(second, receiver, "data.created")
        # All of it has gone by, the end of the first sync included, before the feed is read for the webhook.
        with monkeypatch.context() as held:
            held.setattr(_hooks(second)._following, "step", _nothing)
            for node in (first, second):
                node.clock.pass_s(60)
            await hand_over(first, second)
            first.clock.pass_s(1)
            await first.done("POST", "/v1/data/Task", {"id": "new"})
            await hand_over(first, second)
            await second.node.writer.submit(Shared(["default"]))
        await first.done("POST", "/v1/data/Task", {"id": "newer"})
        await hand_over(first, second)
        await _log(second, hook, _all(Status.DELIVERED, 2))
        assert [s.json["instanceId"] for s in receiver.sent] == ["new", "newer"]


async def _nothing(*_: object) -> bool:
    return False
