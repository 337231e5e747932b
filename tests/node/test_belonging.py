"""Networks of several nodes in one process: tickets, roles, introductions, and what is refused in which words."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

from protocol.tickets import decode_ticket, encode_ticket
from tests.node.devices import Device, devices, until

TASK = {"name": "Task", "fields": [{"name": "title", "type": "string"}]}
PEERS = "/v1/admin/peers"
INVITATIONS = "/v1/admin/invitations"


async def title(device: Device, id: str) -> str | None:
    answer = await device.ask("GET", f"/v1/data/Task/{id}")
    return str(answer.json["title"]) if answer.status == 200 else None


async def put(device: Device, id: str, text: str) -> int:
    return (await device.ask("POST", "/v1/data/Task", {"id": id, "title": text})).status


async def role_of(device: Device, other: Device | str) -> str | None:
    id = other if isinstance(other, str) else other.id
    found = (await device.peers()).get(id)
    return found["role"] if found is not None else None


async def test_an_invitation_says_what_it_gives_and_the_recovery_code_until_it_is_written_down(
    tmp_path: Path,
) -> None:
    async with devices(tmp_path, "ann") as (ann,):
        wanted = {
            "role": "reader",
            "applications": ["shop"],
            "expires_in_s": 900,
            "addresses": ["example.org:4490"],
        }
        told = await ann.get(INVITATIONS, wanted, method="POST", status=201)
        assert told["ticket"].startswith("civic1") and told["role"] == "reader"
        assert told["applications"] == ["shop"]
        assert told["addresses"] == ["example.org:4490", ann.listening]
        assert told["recovery_code"].startswith("civickey1")
        again = await ann.get(INVITATIONS, method="POST", status=201)  # with no body at all
        assert again["role"] == "member" and again["applications"] is None
        assert again["recovery_code"] == told["recovery_code"]
        assert (await ann.get("/v1/admin/recovery-code", method="DELETE")) == {"forgotten": True}
        assert not (ann.directory / "network.key").exists()
        assert (await ann.get("/v1/admin/recovery-code", method="DELETE")) == {"forgotten": False}
        assert (await ann.get(INVITATIONS, {}, method="POST", status=201))["recovery_code"] is None
        listed = (await ann.get(INVITATIONS))["invitations"]
        assert [one["role"] for one in listed] == ["reader", "member", "member"]


async def test_every_fault_of_an_invitation_is_named(tmp_path: Path) -> None:
    async with devices(tmp_path, "ann") as (ann,):
        bad = {
            "applications": ["a b", "ok", ""],
            "expires_in_s": 0,
            "addresses": ["nowhere", "0.0.0.0:1", "ok:1"],
        }
        refused = await ann.ask("POST", INVITATIONS, bad)
        assert refused.status == 400
        wrong = {"applications[0]", "applications[2]", "expires_in_s", "addresses[0]", "addresses[1]"}
        assert refused.json["details"].keys() == wrong
        refused = await ann.ask("POST", INVITATIONS, {"role": "king", "expires_in_s": "x", "addresses": [1]})
        assert refused.json["details"].keys() == {"role", "expires_in_s", "addresses[0]"}
        assert (await ann.ask("POST", INVITATIONS, {"applications": []})).status == 400
        assert (await ann.get(INVITATIONS))["invitations"] == []


async def test_devices_are_decided_about_by_the_owner_and_administrators_of_the_default_application(
    tmp_path: Path,
) -> None:
    async with devices(tmp_path, "ann") as (ann,):
        boss = await ann.sign_in("boss", is_admin=True)
        elsewhere = await ann.sign_in("clerk", application="shop", is_admin=True)
        user = await ann.sign_in("user")
        made = await ann.ask("POST", INVITATIONS, {}, token=boss)
        assert made.status == 201 and made.json["recovery_code"] is None
        assert (ann.directory / "network.key").exists()
        for token in (elsewhere, user):
            for method, path in (("GET", PEERS), ("POST", INVITATIONS), ("DELETE", f"{PEERS}/{'a' * 64}")):
                assert (await ann.ask(method, path, token=token)).status == 403
        for path in ("/v1/admin/join", "/v1/admin/recover"):
            assert "owner token" in await ann.refusal(
                "POST", path, {"ticket": "x", "code": "x"}, status=403, token=boss
            )
        assert "owner token" in await ann.refusal("DELETE", "/v1/admin/recovery-code", status=403, token=boss)


async def test_names_and_parts_of_ids_mean_a_node_if_they_mean_one(tmp_path: Path) -> None:
    async with devices(tmp_path, "ann", "bob", "cat") as (ann, bob, cat):
        for device in (bob, cat):
            await device.join(await ann.invite())
        await until(lambda: _names(ann, {"ann", "bob", "cat"}), "names are told")
        for name in ("bob", bob.id, bob.id[:8], bob.id[:20].upper()):
            changed = await ann.get(f"{PEERS}/{name}", {"role": "reader"}, method="PUT")
            assert (changed["node_id"], changed["role"]) == (bob.id, "reader")
        for name in ("bo", bob.id[:7], "f" * 12, "dan"):
            assert "civicnode peers" in await ann.refusal(
                "PUT", f"{PEERS}/{name}", {"role": "member"}, status=404
            )
        cat.node.belonging.devices.name = "bob"
        await cat.node.belonging.devices.publish()
        await until(lambda: _names(ann, {"ann", "bob"}), "the other name is told")
        assert "Several nodes" in await ann.refusal("DELETE", f"{PEERS}/bob", status=404)
        assert await role_of(ann, bob) == "reader" and await role_of(ann, cat) == "member"


async def _names(device: Device, wanted: set[str]) -> bool:
    return {one["name"] for one in (await device.peers()).values()} == wanted


async def test_a_member_cannot_decide_and_is_told_so(tmp_path: Path) -> None:
    async with devices(tmp_path, "ann", "bob") as (ann, bob):
        await bob.join(await ann.invite())
        await until(lambda: role_of(bob, ann), "they know each other")
        for method, path, body in (
            ("POST", INVITATIONS, {}),
            ("PUT", f"{PEERS}/{ann.id}", {"role": "reader"}),
            ("DELETE", f"{PEERS}/{ann.id}", None),
        ):
            assert "is a member" in await bob.refusal(method, path, body, status=403)
        for device in (ann, bob):
            assert "another administrator" in await device.refusal(
                "DELETE", f"{PEERS}/{device.id}", status=403
            )
        assert "its own role" in await ann.refusal("PUT", f"{PEERS}/{ann.id}", {"role": "reader"}, status=403)


async def test_a_device_limited_to_an_application_holds_that_one_alone(tmp_path: Path) -> None:
    async with devices(tmp_path, "ann", "bob") as (ann, bob):
        for application in ("default", "shop"):
            headers = {
                "X-Application-Id": application,
                "Authorization": f"Bearer {(ann.directory / 'owner.token').read_text().strip()}",
            }
            for path, body in (
                ("/v1/data-models", TASK),
                ("/v1/data/Task", {"id": "one", "title": application}),
            ):
                async with ann.http.post(ann.node.url + path, json=body, headers=headers) as made:
                    assert made.status == 201
        joined = await bob.join(await ann.invite(applications=["shop"]))
        assert joined["applications_limited"]
        await until(
            lambda: bob.node.catalog.knows("shop") and bob.node.network.is_in_sync, "the shop crosses"
        )
        assert bob.node.catalog.applications() == ["shop"]
        assert (await ann.peers())[bob.id]["applications"] == ["shop"]
        assert (await bob.peers())[bob.id]["applications"] == ["shop"]
        refused = await bob.ask("POST", "/v1/data-models", {**TASK, "name": "Other"})
        assert refused.status == 403 and "no role here" in refused.json["error"]


async def test_what_a_device_may_do_changes_while_it_is_linked(tmp_path: Path) -> None:
    async with devices(tmp_path, "ann", "bob") as (ann, bob):
        await ann.get("/v1/data-models", TASK, method="POST", status=201)
        await bob.join(await ann.invite())
        await until(lambda: bob.node.catalog.find("default", "Task"), "the model crosses")
        assert await put(bob, "one", "as a member") == 201
        await ann.get(f"{PEERS}/{bob.id}", {"role": "reader"}, method="PUT")
        await until(lambda: _is(bob, "reader"), "bob hears of it")
        assert await put(bob, "two", "as a reader") == 403
        await ann.get(f"{PEERS}/{bob.id}", {"role": "admin"}, method="PUT")
        await until(lambda: _is(bob, "admin"), "and of that")
        assert await put(bob, "two", "as an admin") == 201
        await until(lambda: title(ann, "two"), "it counts")
        assert (await bob.ask("POST", INVITATIONS, {})).status == 201


async def _is(device: Device, role: str) -> bool:
    return await role_of(device, device) == role


async def test_two_that_were_let_in_by_others_introduce_themselves(tmp_path: Path) -> None:
    async with devices(tmp_path, "ann", "bob", "cat") as (ann, bob, cat):
        await ann.get("/v1/data-models", TASK, method="POST", status=201)
        for device in (bob, cat):
            await device.join(await ann.invite())
            await until(lambda device=device: device.node.catalog.find("default", "Task"), "it syncs")  # type: ignore[misc]
            ann.forget_peers()
            device.forget_peers()  # before the other joins: so bob knows nothing of cat
        assert await role_of(bob, cat) is None and await role_of(cat, bob) == "member"
        assert await put(cat, "one", "of cat") == 201
        await cat.add_peer(bob)  # cat takes bob for a member, bob does not know cat
        await until(lambda: title(bob, "one"), "cat has shown how it became a member")
        assert await role_of(bob, cat) == "member"


async def test_whoever_calls_asks_whom_it_does_not_know(tmp_path: Path) -> None:
    async with devices(tmp_path, "ann", "bob", "cat") as (ann, bob, cat):
        await ann.get("/v1/data-models", TASK, method="POST", status=201)
        for device in (bob, cat):
            await device.join(await ann.invite())
            await until(lambda device=device: device.node.catalog.find("default", "Task"), "it syncs")  # type: ignore[misc]
            ann.forget_peers()
            device.forget_peers()
        assert await put(cat, "one", "of cat") == 201
        await bob.add_peer(cat)
        await until(lambda: title(bob, "one"), "bob has asked")
        assert await role_of(bob, cat) == "member"


async def test_a_ticket_used_at_two_nodes_apart_suspends_both_devices_until_one_is_granted(
    tmp_path: Path,
) -> None:
    async with devices(tmp_path, "ann", "bob", "cat", "dan") as (ann, bob, cat, dan):
        await ann.get("/v1/data-models", TASK, method="POST", status=201)
        await bob.join(await ann.invite())
        await until(lambda: bob.node.catalog.find("default", "Task"), "bob syncs")
        told = await ann.get(INVITATIONS, {"addresses": [bob.listening]}, method="POST", status=201)
        ticket = told["ticket"]
        await until(lambda: _invitations(bob), "bob has heard of the invitation")
        ann.forget_peers()
        bob.forget_peers()
        # One device gets in at bob; another with the same ticket reaches ann alone, who has not heard of that.
        await cat.join(ticket)
        await dan.join(_at(ticket, ann.listening))
        assert await role_of(bob, cat) == "member" and await role_of(ann, dan) == "member"
        await bob.add_peer(ann)
        for device in (ann, bob):  # each by the other's statement, and neither before the other
            for guest in (cat, dan):
                what = f"{device.node.settings.name} suspends both"
                await until(lambda device=device, guest=guest: _state(device, guest, "suspended"), what)  # type: ignore[misc]
        assert await put(dan, "one", "of dan") in (201, 403, 404)
        granted = await ann.get(f"{PEERS}/{dan.id}", {"role": "member"}, method="PUT")
        assert granted["state"] == "member"
        await dan.add_peer(ann)
        await until(lambda: _state(dan, dan, "member"), "dan hears of it")
        await until(lambda: dan.node.catalog.find("default", "Task"), "and syncs")
        assert await put(dan, "two", "of dan") == 201
        await until(lambda: title(ann, "two"), "what it writes counts")
        assert await _state(ann, cat, "suspended")


def _invitations(device: Device) -> int:
    assert device.node.record is not None
    return len(device.node.record.store.members.open_invites())


async def _state(device: Device, other: Device, state: str) -> bool:
    found = (await device.peers()).get(other.id)
    return found is not None and found["state"] == state


async def test_joining_is_refused_in_words_and_changes_nothing(tmp_path: Path) -> None:
    async with devices(tmp_path, "ann", "bob") as (ann, bob):
        ticket = await ann.invite()
        before = bob.network_id
        path = "/v1/admin/join"
        assert "one begins with civic1" in await bob.refusal("POST", path, {"ticket": "hello"}, status=400)
        assert "already" in await ann.refusal("POST", path, {"ticket": ticket}, status=409)
        assert "keep" in await bob.refusal("POST", path, {"ticket": ticket, "keep": "all"}, status=400)
        reader = await ann.invite(role="reader")
        await bob.get("/v1/data-models", TASK, method="POST", status=201)
        assert "--bring" in await bob.refusal("POST", path, {"ticket": ticket}, status=409)
        assert "--discard" in await bob.refusal("POST", path, {"ticket": reader, "keep": "bring"}, status=409)
        for text, told in (
            (_at(ticket, "127.0.0.1:1"), "127.0.0.1:1: "),
            (_at(ticket, bob.listening), "no node of this network"),
        ):
            assert told in await bob.refusal("POST", path, {"ticket": text, "keep": "discard"}, status=409)
        assert "names no address" in await bob.refusal(
            "POST", path, {"ticket": _at(ticket), "keep": "discard"}, status=409
        )
        assert bob.network_id == before and not list(bob.directory.glob("joining-*"))
        assert await put(bob, "one", "still here") == 201


def _at(ticket: str, *addresses: str) -> str:
    return encode_ticket(replace(decode_ticket(ticket), addresses=addresses))


async def test_a_device_whose_key_was_revoked_joins_again_with_another(tmp_path: Path) -> None:
    async with devices(tmp_path, "ann", "bob", "other") as (ann, bob, other):
        await bob.join(await ann.invite())
        old = bob.id
        await until(lambda: role_of(ann, bob), "bob is in")
        await ann.get(f"{PEERS}/{old}", method="DELETE")
        await until(lambda: bool(bob.node.network.is_told_revoked), "bob is told")
        warnings = (await bob.get("/v1/sync/status"))["warnings"]
        assert any(one["kind"] == "revoked" for one in warnings)
        # It goes into another network first: nobody joins the network that they are in.
        await bob.join(await other.invite(), "discard")
        assert bob.id == old
        await bob.join(await ann.invite(), "discard")
        assert bob.id != old
        await until(lambda: role_of(ann, bob.id), "it is in, as another node")
        assert (await ann.peers())[old]["state"] == "revoked"


async def test_a_recovery_code_of_another_network_is_told_from_one_with_a_mistake(tmp_path: Path) -> None:
    async with devices(tmp_path, "ann", "bob") as (ann, bob):
        code = (await bob.get(INVITATIONS, {}, method="POST", status=201))["recovery_code"]
        path = "/v1/admin/recover"
        assert "another network" in await ann.refusal("POST", path, {"code": code}, status=409)
        assert "copied whole" in await ann.refusal("POST", path, {"code": code[:-2] + "zz"}, status=400)
        named: dict[str, Any] = {
            "code": code,
            "network": ann.network_id,
            "peers": [ann.listening],
            "keep": "discard",
        }
        assert "another network" in await bob.refusal("POST", path, named, status=409)
        for wrong in ({"network": "xyz", "peers": [ann.listening]}, {"network": ann.network_id, "peers": ["x"]},
                      {"network": ann.network_id}, {"peers": [ann.listening]},
                      {"network": ann.network_id, "peers": [ann.listening], "revoke": ["ann"]}):  # fmt: skip
            assert (await bob.ask("POST", path, {"code": code, "keep": "discard", **wrong})).status == 400
        every = {"code": "x", "network": "xyz", "peers": [ann.listening, "x"], "keep": "all"}
        assert (await bob.ask("POST", path, every)).json["details"].keys() == {"keep"}
        every["keep"] = "discard"
        refused = await bob.ask("POST", path, every)
        assert refused.json["details"].keys() == {"code", "network", "peers[1]"}
        refused = await bob.ask("POST", path, {"code": "x", "peers": ["x"], "revoke": ["ann"]})
        assert refused.json["details"].keys() == {"code", "network", "revoke"}
        assert len(await bob.peers()) == 1


async def test_a_member_recovers_and_puts_out_the_thief_of_the_founder(tmp_path: Path) -> None:
    async with devices(tmp_path, "ann", "bob") as (ann, bob):
        code = (await ann.get(INVITATIONS, {}, method="POST", status=201))["recovery_code"]
        await bob.join(await ann.invite())
        await until(lambda: role_of(bob, bob), "bob is in")
        told = await bob.get("/v1/admin/recover", {"code": code, "revoke": [ann.id[:8]]}, method="POST")
        assert told == {"recovered": True, "restarting": False, "joined": None}
        assert await role_of(bob, bob) == "admin" and await _state(bob, ann, "revoked")
        assert (await bob.ask("POST", INVITATIONS, {})).status == 201
        own = {"code": code, "revoke": [bob.id]}
        assert "put itself out" in await bob.refusal("POST", "/v1/admin/recover", own, status=403)


async def test_a_node_that_is_joining_joins_once(tmp_path: Path) -> None:
    async with devices(tmp_path, "ann", "bob") as (ann, bob):
        tickets = [await ann.invite(), await ann.invite()]
        answers = await asyncio.gather(
            *(bob.ask("POST", "/v1/admin/join", {"ticket": ticket}) for ticket in tickets)
        )
        assert sorted(answer.status for answer in answers) == [200, 409]
        await until(lambda: bob.network_id == ann.network_id, "bob is in")
        assert len((await ann.get(INVITATIONS))["invitations"]) == 1
