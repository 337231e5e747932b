"""Documents of a record that was moved aside, issued again: in order, once, also when the node stops in between."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from node.services import bringing
from node.services.bringing import Bringing, documents_of
from storage.lmdb_kv import LmdbKeyValueStore
from storage.store import Store
from tests.node.devices import Device, devices, until

NOTE = {
    "name": "Note",
    "fields": [
        {"name": "text", "type": "string", "required": True},
        {"name": "tags", "type": "set"},
        {"name": "votes", "type": "counter"},
        {"name": "more", "type": "json"},
    ],
}


async def filled(device: Device, count: int) -> None:
    await device.get("/v1/data-models", NOTE, method="POST", status=201)
    operations = [
        {
            "method": "POST",
            "path": "/data/Note",
            "body": {"id": f"n{number:04}", "text": f"note {number}", "votes": 2},
        }
        for number in range(count)
    ]
    answer = await device.get("/v1/batch", {"operations": operations}, method="POST")
    assert {result["status"] for result in answer["results"]} == {201}


async def report(device: Device) -> dict[str, Any]:
    told: dict[str, Any] = (await device.get("/v1/admin/join"))["bringing"]
    return told


async def is_done(device: Device) -> bool:
    return bool((await report(device))["state"] == "done")


async def test_everything_comes_in_slices_and_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bringing, "SLICE_DOCUMENTS", 7)
    async with devices(tmp_path, "ann", "bob") as (ann, bob):
        await filled(bob, 50)
        await bob.join(await ann.invite(), "bring")
        await until(lambda: is_done(bob), "all is brought")
        told = await report(bob)
        assert (told["models"], told["accounts"], told["documents"], told["left"]) == (1, 0, 50, 0)
        await until(lambda: bob.node.network.is_in_sync, "it crosses")  # ann may not have heard of all of it
        listed = await ann.get("/v1/data/Note?per_page=100")
        assert listed["total"] == 50 and {item["votes"] for item in listed["items"]} == {2}
        assert {item["created_by"] for item in listed["items"]} == {"owner@bob"}


async def test_a_node_that_stops_in_between_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bringing, "SLICE_DOCUMENTS", 5)
    issued: list[str] = []
    whole = Bringing._issue
    is_stuck = True

    async def counted(self: Bringing, one: Any) -> Any:
        if is_stuck and len(issued) >= 23:
            await asyncio.Event().wait()  # until the node is stopped
        issued.append(one.document.id)
        return await whole(self, one)

    monkeypatch.setattr(Bringing, "_issue", counted)
    async with devices(tmp_path, "ann", "bob") as (ann, bob):
        await filled(bob, 40)
        await bob.join(await ann.invite(), "bring")
        await until(lambda: len(issued) == 23, "it is half way")
        assert (await report(bob))["state"] == "running"
        is_stuck = False
        bob.node._start_again(None)
        first = bob.node
        await until(lambda: bob.node is not first, "it starts again")
        await until(lambda: is_done(bob), "it goes on")
        told = await report(bob)
        assert (told["models"], told["documents"], told["left"]) == (1, 40, 0)
        assert len(issued) < 2 * 41, "what was noted is not tried again"
        assert len(set(issued)) == 41


async def test_what_the_network_does_not_allow_is_listed(tmp_path: Path) -> None:
    async with devices(tmp_path, "ann", "bob") as (ann, bob):
        stricter = {"name": "Note", "fields": [{"name": "text", "type": "string", "max": 3}]}
        await ann.get("/v1/data-models", stricter, method="POST", status=201)
        await ann.get("/v1/data/Note", {"id": "n0000", "text": "x"}, method="POST", status=201)
        await filled(bob, 2)
        await bob.join(await ann.invite(), "bring")
        await until(lambda: is_done(bob), "all is looked at")
        left = {(one["model"], one["id"]): one["reason"] for one in (await report(bob))["left_behind"]}
        (model_id,) = {id for name, id in left if name == "$model"}
        assert left["$model", model_id] == "the network has a document of this id"
        assert "does not allow it: " in left["Note", "n0000"] and "votes" in left["Note", "n0001"]


async def test_nothing_is_to_be_brought_where_nothing_was_left(tmp_path: Path) -> None:
    async with devices(tmp_path, "ann", "bob") as (ann, bob):
        await bob.join(await ann.invite(), "bring")
        assert (await bob.get("/v1/admin/join"))["bringing"] is None


async def test_the_order_is_models_accounts_what_is_kept_of_them_and_the_rest(tmp_path: Path) -> None:
    async with devices(tmp_path, "bob") as (bob,):
        await bob.sign_in("ada")
        await filled(bob, 3)
        assert (await bob.ask("DELETE", "/v1/data/Note/n0001")).status in (200, 204)
        directory = bob.directory
    keys = LmdbKeyValueStore(str(directory), read_only=True)
    try:
        found = list(documents_of(Store(keys), ""))
        kinds = [one.kind for one in found if one.model != "$userdata"]
        assert kinds == ["models", "accounts", "documents", "documents"]
        assert [one.document.id for one in found[-2:]] == ["n0000", "n0002"]
        for number, one in enumerate(found):
            rest = list(documents_of(Store(keys), one.place))
            assert [other.place for other in rest] == [other.place for other in found[number + 1 :]]
    finally:
        keys.close()
