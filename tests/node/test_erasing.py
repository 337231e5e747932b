"""Erasing across two devices: asked for on one, gone from both, confirmed by each, found in no file."""

import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from node.daemon import Node
from node.services import erasing
from node.services.lockout import key_of
from storage.compacting import Compaction
from storage.kv import Table
from tests.node.devices import Device, devices, until
from tests.storage.test_compacting import in_files

SECRET = "nobody-is-to-read-this-again"
TASK = {
    "name": "Task",
    "fields": [{"name": "title", "type": "string"}, {"name": "body", "type": "text"}],
}
ERASE = "/v1/privacy/erase"
CONFIRMED = {"password": "correct horse", "confirm": True}


async def titles(device: Device) -> set[str]:
    answer = await device.get("/v1/data/Task")
    return {item["title"] for item in answer["items"]}


async def create(device: Device, token: str, **values: Any) -> str:
    made = await device.ask("POST", "/v1/data/Task", values, token=token)
    assert made.status == 201, made.text
    return str(made.json["instance_id"])


async def is_confirmed(device: Device, id: str) -> bool:
    told = await device.ask("GET", f"/v1/privacy/erasures/{id}")
    return told.status == 200 and bool(told.json["status"] == "confirmed")


async def test_an_account_and_all_that_it_made_are_in_no_file_of_either_device_once_both_have_said_so(
    tmp_path: Path,
) -> None:
    async with devices(tmp_path, "ann", "bob") as (ann, bob):
        await bob.join(await ann.invite())
        await ann.get("/v1/data-models", TASK, method="POST", status=201)
        token, other = await ann.sign_in(SECRET), await ann.sign_in("other")
        gone = await create(ann, token, title=SECRET, body=SECRET * 30)
        await ann.ask("PUT", f"/v1/data/Task/{gone}", {"body": {"ops": [{"insert": SECRET}]}}, token=token)
        deleted = await create(ann, token, title=SECRET)
        await ann.ask("DELETE", f"/v1/data/Task/{deleted}", token=token)
        kept = await create(ann, other, title="kept")
        await ann.ask("PUT", "/v1/privacy/consent", {"news": True}, token=token)
        await until(lambda: _has(bob, f"/v1/data/Task/{gone}"), "bob has it")
        assert in_files(ann.directory, SECRET) and in_files(bob.directory, SECRET)

        asked = await ann.ask("POST", ERASE, CONFIRMED, token=token)
        assert asked.status == 202, asked.text
        id = asked.json["erasure_id"]
        assert asked.json["documents"] == 4  # two tasks, the account, its consents
        for device in (ann, bob):
            await until(partial(is_confirmed, device, id), "both have confirmed, as each of them knows")
        assert in_files(ann.directory, SECRET) == [] == in_files(bob.directory, SECRET)

        told = await ann.get(f"/v1/privacy/erasures/{id}")
        assert {node["node"]: node["status"] for node in told["nodes"]} == {
            ann.id: "confirmed",
            bob.id: "confirmed",
        }
        assert all(node["confirmed_at"] for node in told["nodes"]) and told["left"] == 0
        assert (await ann.ask("GET", "/v1/users/me", token=token)).status == 401
        signed_in = await ann.ask(
            "POST", "/v1/auth/login", {"email": f"{SECRET}@example.org", "password": "correct horse"}
        )
        assert signed_in.status == 401
        for device in (ann, bob):
            assert await titles(device) == {"kept"}
            assert (await device.ask("GET", f"/v1/data/Task/{gone}")).status == 404
        await ann.get(f"/v1/data/Task/{kept}", {"title": "goes on"}, method="PUT")  # the writer serves
        await until(lambda: _has_titles(bob, {"goes on"}), "links go on too")


async def test_what_a_device_alone_keeps_about_an_account_goes_with_it_and_nothing_of_another(
    tmp_path: Path,
) -> None:
    async with devices(tmp_path, "ann") as (ann,):
        gone, kept = [await _leaves_traces(ann, name) for name in ("dora", "other")]
        nobody = key_of("default", "nobody@example.org")
        await _fails_to_sign_in(ann, "nobody@example.org")
        before = _local(ann)
        for trace in (*gone.values(), *kept.values(), nobody):
            assert any(trace in record for record in before), trace

        asked = await ann.get(ERASE, {"confirm": True, "user_id": gone["user"]}, method="POST", status=202)
        await until(lambda: is_confirmed(ann, asked["erasure_id"]), "it is done")
        await ann.node.identity.api_keys.keep_uses()
        after = _local(ann)
        for trace in (*gone.values(), nobody):
            assert not any(trace in record for record in after), trace
        for trace in kept.values():
            assert sum(trace in record for record in after) == sum(trace in record for record in before)


@pytest.mark.parametrize("is_restarted", [False, True])
async def test_what_an_erased_account_wrote_on_a_device_that_had_not_heard_of_it_goes_too(
    is_restarted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LOAD_MAX", "INTERVAL_S", "FAILED_RETRY_S"):
        monkeypatch.setattr(erasing, name, 0.05)
    erase_late = erasing.Erasing._erase_late
    if is_restarted:  # and what came before has not been looked at
        monkeypatch.setattr(erasing.Erasing, "_erase_late", _nothing)
    async with devices(tmp_path, "ann", "bob") as (ann, bob):
        await bob.join(await ann.invite())
        await ann.get("/v1/data-models", TASK, method="POST", status=201)
        token, other = await ann.sign_in("dora"), await ann.sign_in("other")
        await until(lambda: _has(bob, "/v1/data-models/Task"), "bob has the model")
        await until(lambda: _knows(bob, token), "bob knows dora")
        await until(lambda: _knows(bob, other), "bob knows the other")
        for device in (ann, bob):
            device.forget_peers()
        asked = await ann.ask("POST", ERASE, CONFIRMED, token=token)
        assert asked.status == 202, asked.text
        late = await create(bob, token, title=SECRET)
        await create(bob, other, title="kept")
        await bob.add_peer(ann)
        await until(lambda: _has_titles(ann, {"kept"} | ({SECRET} if is_restarted else set())), "it has come")
        if is_restarted:
            monkeypatch.setattr(erasing.Erasing, "_erase_late", erase_late)
            await ann.stop()
            ann.node = Node(ann.node.settings)
            await ann.start()
            await bob.add_peer(ann)
        for device in (ann, bob):
            await until(partial(_has_titles, device, {"kept"}), "it is gone")
            await until(lambda d=device: not d.node.local.scan("erasing"), "nothing is due")  # type: ignore[misc]
            assert in_files(device.directory, SECRET) == []
        assert (await ann.get(f"/v1/data/Task/{late}/history"))["items"][0]["action"] == "erased"


async def test_writes_go_on_while_the_record_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may_end, copy = threading.Event(), threading.Event(), Compaction.copy

    def slow(self: Compaction) -> None:
        copy(self)
        begun.set()
        may_end.wait()

    monkeypatch.setattr(Compaction, "copy", slow)
    async with devices(tmp_path, "ann") as (ann,):
        await ann.get("/v1/data-models", TASK, method="POST", status=201)
        made = await ann.get("/v1/data/Task", {"title": SECRET}, method="POST", status=201)
        gone = {"confirm": True, "model": "Task", "id": made["instance_id"]}
        asked = await ann.get(ERASE, gone, method="POST", status=202)
        try:
            await until(begun.is_set, "the copy is made")
            await ann.get("/v1/data/Task", {"title": "meanwhile"}, method="POST", status=201)
        finally:
            may_end.set()
        await until(lambda: is_confirmed(ann, asked["erasure_id"]), "it is done")
        assert in_files(ann.directory, SECRET) == [] and await titles(ann) == {"meanwhile"}


async def test_what_a_members_device_may_not_erase_is_left_to_an_administrators(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasing, "LOAD_MAX", 0)
    async with devices(tmp_path, "ann", "bob") as (ann, bob):
        await bob.join(await ann.invite())
        bob.node.erasing.interval_s = 0  # it has to copy its record twice
        await ann.get("/v1/data-models", TASK, method="POST", status=201)
        token = await ann.sign_in("dora")
        on_ann = await create(ann, token, title=SECRET)
        await until(lambda: _has(bob, f"/v1/data/Task/{on_ann}"), "bob has it")
        account = {"email": "dora@example.org", "password": "correct horse"}
        signed_in = await bob.ask("POST", "/v1/auth/login", account)
        token = signed_in.json["token"]
        await create(bob, token, title="written on bob")
        asked = await bob.ask("POST", ERASE, CONFIRMED, token=token)
        assert asked.status == 202 and asked.json["status"] == "needs_administrator", asked.text
        id = asked.json["erasure_id"]
        assert await titles(bob) == {SECRET}
        path = f"/v1/privacy/erasures/{id}/complete"
        assert "administrator" in await bob.refusal("POST", path, status=403)
        await until(lambda: _has(ann, f"/v1/privacy/erasures/{id}"), "ann knows of it")
        told = await ann.get(path, method="POST", status=202)
        assert told["left"] == 0
        await until(lambda: is_confirmed(ann, id), "both have confirmed")
        assert await titles(bob) == set() == await titles(ann)


async def test_what_is_asked_for_is_checked_and_every_fault_named(tmp_path: Path) -> None:
    async with devices(tmp_path, "ann") as (ann,):
        await ann.get("/v1/data-models", TASK, method="POST", status=201)
        token, other = await ann.sign_in("dora"), await ann.sign_in("other")
        mine, theirs = await create(ann, token, title="mine"), await create(ann, other, title="theirs")

        async def refused(body: Any, token: str = token) -> tuple[int, set[str]]:
            answer = await ann.ask("POST", ERASE, body, token=token)
            return answer.status, set(answer.json.get("details") or ())

        assert await refused({}) == (400, {"confirm", "password"})
        assert await refused({"confirm": "yes", "password": 7, "model": 1}) == (
            400,
            {"confirm", "password", "model", "id"},
        )
        assert (await refused({**CONFIRMED, "password": "wrong horse"}))[0] in (400, 401, 403)
        assert await refused({**CONFIRMED, "model": "Task", "id": theirs}) == (403, set())
        assert await refused({**CONFIRMED, "model": "Task", "id": "nothing"}) == (404, set())
        assert await refused({**CONFIRMED, "model": "$account", "id": mine}) == (404, set())
        assert await refused({**CONFIRMED, "user_id": "somebody"}) == (403, set())
        assert await titles(ann) == {"mine", "theirs"}
        answer = await ann.ask("POST", ERASE, {**CONFIRMED, "model": "Task", "id": mine}, token=token)
        assert answer.status == 202 and await titles(ann) == {"theirs"}
        assert (await ann.ask("GET", "/v1/users/me", token=token)).status == 200  # the account stays
        again = await ann.ask("POST", "/v1/data/Task", {"id": mine, "title": "again"}, token=token)
        assert again.status == 409 and "was erased" in again.json["error"]
        history = await ann.get(f"/v1/data/Task/{mine}/history")
        assert [item["action"] for item in history["items"]] == ["erased"]
        explained = await ann.get(f"/v1/sync/explain/Task/{mine}")
        assert explained["here"]["state"] == "erased"
        assert [write["verdict"] for write in explained["refused"]] == ["dropped"]
        assert "erased" in explained["refused"][0]["why"]
        assert (await ann.ask("GET", "/v1/privacy/erasures/nothing")).status == 404


async def test_a_service_that_fails_and_a_list_that_is_none_do_not_keep_erasing_from_going_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasing, "FAILED_RETRY_S", 0.05)
    async with devices(tmp_path, "ann") as (ann,):
        await ann.get("/v1/data-models", TASK, method="POST", status=201)
        records, dropped = ann.node.records, list[str]()
        odd = {"node": "x", "kind": "document", "items": [1, [2, 3], ["a"], {}]}
        await records.create(records.builtin("default", "$erasure"), odd, user="somebody")

        async def fail_once(application: str, model: str, id: str) -> None:
            dropped.append(id)
            if len(dropped) == 1:
                raise RuntimeError("not now")

        ann.node.erasing.listen(fail_once)
        made = await ann.get("/v1/data/Task", {"title": SECRET}, method="POST", status=201)
        gone = made["instance_id"]
        asked = await ann.get(
            ERASE, {"confirm": True, "model": "Task", "id": gone}, method="POST", status=202
        )
        await until(lambda: is_confirmed(ann, asked["erasure_id"]), "it goes on")
        assert dropped == [gone, gone] and in_files(ann.directory, SECRET) == []


async def _leaves_traces(device: Device, name: str) -> dict[str, str]:
    """Have a device keep something about a new account in every kind of record of its own; by what to find it."""
    token = await device.sign_in(name)
    user = (await device.ask("GET", "/v1/users/me", token=token)).json["id"]
    await _fails_to_sign_in(device, f"{name}@example.org")
    factor = await device.ask("POST", "/v1/auth/mfa/enable", token=token)
    key = await device.ask("POST", "/v1/api-keys", {"name": "k", "scopes": ["read"]}, token=token)
    assert (await device.ask("GET", "/v1/data-models", token=key.json["api_key"])).status == 200
    await device.node.identity.api_keys.keep_uses()
    hook = {"url": f"https://{name}.example.org/", "events": ["data.deleted"]}
    headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": "k"}
    async with device.http.post(f"{device.node.url}/v1/webhooks", json=hook, headers=headers) as made:
        assert made.status == 201, await made.text()
        secret = (await made.json())["secret"]
    return {
        "user": user,
        "count": key_of("default", f"{name}@example.org"),
        "factor": factor.json["secret"],
        "key": key.json["id"],
        "hook": secret,
    }


async def _fails_to_sign_in(device: Device, email: str) -> None:
    answer = await device.ask("POST", "/v1/auth/login", {"email": email, "password": "wrong horse"})
    assert answer.status == 401, answer.text


def _local(device: Device) -> list[str]:
    """All records of this device alone."""
    assert device.node.record is not None
    with device.node.record.store.read() as snapshot:
        pairs = snapshot.local._transaction.scan(Table.LOCAL, b"", None)
        return [(key + value).decode("latin-1") for key, value in pairs]


async def _nothing(_: object) -> None:
    """In the place of what is not to be done."""


async def _knows(device: Device, token: str) -> bool:
    return (await device.ask("GET", "/v1/users/me", token=token)).status == 200


async def _has(device: Device, path: str) -> bool:
    return (await device.ask("GET", path)).status == 200


async def _has_titles(device: Device, wanted: set[str]) -> bool:
    return await titles(device) == wanted
