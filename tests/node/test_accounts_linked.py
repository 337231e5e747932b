"""Accounts on two devices of one network, an administrator's and a member's: rights, sessions and what ends them."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from node.services.account_models import ACCOUNT, ADMIN_ACCOUNT, MFA
from node.services.totp import totp_code
from protocol.errors import NotPermitted
from tests.node.devices import Device, devices, until
from tests.node.pair import PASSWORD as PAIRS_PASSWORD
from tests.node.pair import Running, exchange, pair

PASSWORD = "correct horse"  # as `Device.sign_in` has it
ME = "/v1/users/me"


@asynccontextmanager
async def linked(tmp_path: Path) -> AsyncIterator[tuple[Device, Device]]:
    """An administrator's device and a member's."""
    async with devices(tmp_path, "ann", "bob") as (ann, bob):
        await bob.join(await ann.invite())
        yield ann, bob


async def status(device: Device, token: str, path: str = ME) -> int:
    return (await device.ask("GET", path, token=token)).status


async def known(device: Device, name: str) -> str:
    """The id of an account, once a device has it. Asking by signing in would count as failing."""

    async def find() -> Any:
        path = f"/v1/admin/users?email={name}@example.org"
        return (await device.get(path))["items"]

    return str((await until(find, f"{name} is known"))[0]["user_id"])


async def login(device: Device, name: str, password: str = PASSWORD) -> Any:
    answer = await device.ask(
        "POST", "/v1/auth/login", {"email": f"{name}@example.org", "password": password}
    )
    assert answer.status == 200, answer.text
    return answer.json


async def test_what_ends_a_session_ends_it_on_every_node(tmp_path: Path) -> None:
    async with linked(tmp_path) as (ann, bob):
        of_ann = await ann.sign_in("eve")
        await known(bob, "eve")
        of_bob = (await login(bob, "eve"))["token"]
        for device in (ann, bob):
            assert await status(device, of_ann) == await status(device, of_bob) == 200

        await bob.ask("POST", "/v1/auth/logout", token=of_ann)

        async def is_out() -> bool:
            return await status(ann, of_ann) == 401

        await until(is_out, "a sign-out on one node ends the session on the one that began it")
        assert await status(ann, of_bob) == 200

        kept = await login(ann, "eve")
        change = {"current_password": PASSWORD, "new_password": "a new password"}
        assert (await ann.ask("POST", "/v1/auth/password", change, token=kept["token"])).status == 200
        assert await status(ann, of_bob) == 401

        async def is_out_there() -> bool:
            return await status(bob, of_bob) == 401

        await until(is_out_there, "a new password ends sessions everywhere")
        assert await status(bob, kept["token"]) == 200
        last = await login(bob, "eve", "a new password")
        everywhere = {"everywhere": True}
        assert (await bob.ask("POST", "/v1/auth/logout", everywhere, token=last["token"])).status == 200

        async def is_out_everywhere() -> bool:
            return await status(ann, kept["token"]) == 401

        await until(is_out_everywhere, "and so does signing out everywhere")
        refresh = {"refresh_token": kept["refresh_token"]}
        assert (await ann.ask("POST", "/v1/auth/refresh", refresh)).status == 401


async def test_roles_given_on_one_node_count_on_the_other(tmp_path: Path) -> None:
    async with linked(tmp_path) as (ann, bob):
        token = await ann.sign_in("eve")
        user = await known(bob, "eve")
        rules = {"create": "role:editor", "read": "authenticated"}
        plan = {"name": "Plan", "fields": [{"name": "title", "type": "string"}], "permissions": rules}
        await ann.get("/v1/data-models", plan, method="POST", status=201)

        async def permitted(device: Device, action: str = "create", resource: str = "Plan") -> Any:
            path = f"/v1/users/me/permissions?action={action}&resource={resource}"
            answer = await device.ask("GET", path, token=token)
            assert answer.status == 200 and set(answer.json) == {"permitted"}
            return answer.json["permitted"]

        async def may_read_there() -> Any:
            return await permitted(bob, "read")

        await until(may_read_there, "the model crosses")
        assert [await permitted(device) for device in (ann, bob)] == [False, False]
        assert not await permitted(ann, "read", "Nothing")
        role = {"role": "editor", "application_id": "default"}
        assert (await bob.ask("POST", f"/v1/users/{user}/roles", role)).status == 403  # a member's device
        assert await ann.get(f"/v1/users/{user}/roles", role, method="POST") == {
            "message": "Role assigned successfully"
        }
        await until(lambda: permitted(bob), "the role crosses")
        made = await bob.ask("POST", "/v1/data/Plan", {"title": "x"}, token=token)
        assert made.status == 201
        assert await permitted(bob, "write") and await permitted(ann, "delete")


async def test_an_administrators_token_of_a_members_device_opens_no_administrator_route_elsewhere(
    tmp_path: Path,
) -> None:
    async with linked(tmp_path) as (ann, bob):
        of_ann = await ann.sign_in("root", is_admin=True)
        await known(bob, "root")
        of_bob = (await login(bob, "root"))["token"]
        routes = "/v1/admin/users"
        assert await status(bob, of_bob, routes) == await status(bob, of_ann, routes) == 200
        assert await status(ann, of_ann, routes) == await status(ann, of_bob) == 200
        answer = await ann.ask("GET", routes, token=of_bob)
        assert answer.status == 401 and "sign in on this node" in answer.text
        assert (await ann.ask("GET", ME, token=of_bob)).json[
            "is_admin"
        ] is True  # the account's, not the token's

        key = {"name": "backup", "scopes": ["admin"]}
        assert (await bob.ask("POST", "/v1/api-keys", key, token=of_bob)).status == 403
        made = await ann.ask("POST", "/v1/api-keys", key, token=of_ann)
        assert made.status == 201

        async def opens_there() -> bool:
            return await status(bob, made.json["api_key"], routes) == 200

        await until(opens_there, "a key of an administrator's device counts everywhere")
        gone = await bob.ask("DELETE", f"/v1/api-keys/{made.json['id']}", token=of_bob)
        assert gone.status == 403  # a member's device cannot write it
        assert await status(ann, made.json["api_key"], routes) == 200
        everywhere = {"everywhere": True}
        assert (await bob.ask("POST", "/v1/auth/logout", everywhere, token=of_bob)).status == 403
        assert (await ann.ask("POST", "/v1/auth/logout", everywhere, token=of_ann)).status == 200

        async def is_over() -> bool:
            return await status(bob, made.json["api_key"], routes) == 401

        await until(is_over, "signing out everywhere ends it there too")


async def test_nothing_that_a_members_device_says_of_an_administrator_counts(tmp_path: Path) -> None:
    async with pair(tmp_path) as (admin, member):
        account = {"email": "root@example.org", "username": "root", "password": PAIRS_PASSWORD}
        user = (await admin.done("POST", "/v1/admin/admins", account))["user_id"]
        token = await admin.login("root")
        thief, _ = await admin.sign_up("eve")
        await exchange(admin, member)
        answer = await member.ask("POST", f"/v1/admin/users/{user}/password", {"password": "a stolen one"})
        assert answer.status == 403 and "administrator" in answer.text
        # What a device writes if it is not ours.
        records = member.node.identity.accounts._records
        stolen = records.get("default", ACCOUNT, thief)
        assert stolen is not None
        forged = {"verifier": stolen.values["verifier"], "keys": stolen.values["keys"], "generation": "x"}
        forged |= {"disabled": True, "email": "gone@example.org", "keys_generation": "x", "recovery": "x"}
        await records.update("default", ACCOUNT, user, forged, user=thief)
        await records.create("default", MFA, {"secret": "JBSWY3DPEHPK3PXP"}, user=thief, id=user)
        with pytest.raises(NotPermitted):
            await records.update("default", ADMIN_ACCOUNT, user, {"disabled": True}, user=thief)
        await exchange(admin, member)
        await records.delete("default", ACCOUNT, user, user=thief)
        await exchange(admin, member)
        for node in (admin, member):
            assert (await node.ask("GET", "/v1/admin/users", token=token)).status == 200
            assert (await node.done("GET", ME, token=await node.login("root")))["is_admin"] is True


async def test_users_with_like_interests_are_found_across_nodes(tmp_path: Path) -> None:
    async with linked(tmp_path) as (ann, bob):
        eve = await ann.sign_in("eve")
        user = await known(bob, "eve")
        dan = await bob.sign_in("dan")
        other = await known(ann, "dan")
        words = {"interests": "hiking, photography"}
        answer = await ann.ask("POST", f"/v1/users/{user}/interests", words, token=eve)
        assert answer.status == 200 and answer.json == {"message": "Interests added successfully"}
        words_of_dan = {"interests": ["Photography", "hiking", "chess"]}
        assert (await bob.ask("POST", f"/v1/users/{other}/interests", words_of_dan, token=dan)).status == 200

        async def recommended() -> Any:
            return (await ann.ask("GET", f"/v1/users/{user}/recommendations?top_n=1", token=eve)).json

        assert await until(recommended, "the interests cross") == [
            {
                "user_id": other,
                "username": "dan",
                "score": 0.6667,
                "shared_interests": ["hiking", "photography"],
            }
        ]


async def test_an_account_that_is_brought_keeps_its_second_factor(tmp_path: Path) -> None:
    async with devices(tmp_path, "ann", "bob") as (ann, bob):
        token = await bob.sign_in("dan")
        shown = (await bob.ask("POST", "/v1/auth/mfa/enable", token=token)).json
        body = {"code": totp_code(shown["secret"], int(time.time()) // 30)}
        assert (await bob.ask("POST", "/v1/auth/mfa/verify", body, token=token)).status == 200
        await bob.join(await ann.invite(), keep="bring")
        await known(ann, "dan")
        account = {"email": "dan@example.org", "password": PASSWORD}
        for device in (ann, bob):
            answer = await device.ask("POST", "/v1/auth/login", account)
            assert answer.json["error_code"] == "AUTH_MFA_REQUIRED"
        recovered = account | {"mfa_code": shown["recovery_codes"][0]}
        assert (await ann.ask("POST", "/v1/auth/login", recovered)).status == 200


async def test_recovery_codes_spent_apart_are_both_spent_once_the_nodes_have_met(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, b):
        user, token = await a.sign_up("eve")
        shown = await a.done("POST", "/v1/auth/mfa/enable", token=token)
        code = totp_code(shown["secret"], a.clock() // 30_000)
        await a.done("POST", "/v1/auth/mfa/verify", {"code": code}, token=token)
        await exchange(a, b)
        codes = shown["recovery_codes"]

        async def attempt(node: Running, mfa_code: str) -> int:
            body = {"email": "eve@example.org", "password": PAIRS_PASSWORD, "mfa_code": mfa_code}
            return (await node.ask("POST", "/v1/auth/login", body)).status

        assert await attempt(a, codes[0]) == 200
        # Spent on the one, unheard of on the other: a step or a code counts once on each node, until they meet.
        assert await attempt(b, codes[0]) == await attempt(b, codes[1]) == 200
        assert await attempt(a, code) == 401
        assert await attempt(b, code) == 200
        await exchange(a, b)
        for node in (a, b):
            me = await node.done("GET", ME, token=token)
            assert me["mfa_recovery_codes_left"] == 8
            assert await attempt(node, codes[1]) == 401
            assert await attempt(node, codes[2 if node is a else 3]) == 200

        both = {"password": PAIRS_PASSWORD, "code": codes[4]}
        await a.done("POST", "/v1/auth/mfa/recovery-codes", both, token=token)
        both["code"] = codes[5]
        await b.done("POST", "/v1/auth/mfa/recovery-codes", both, token=token)
        await exchange(a, b)
        left = [(await node.done("GET", ME, token=token))["mfa_recovery_codes_left"] for node in (a, b)]
        assert left == [10, 10]  # of two sets made apart the same one counts on both
        for node in (a, b):
            assert (await node.ask("GET", f"/v1/data/$mfa/{user}")).status == 404
