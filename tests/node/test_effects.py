"""What happened on another node counts on this one as soon as it is known here."""

from pathlib import Path
from typing import Any

import aiohttp

from protocol.membership import Role
from tests.node.pair import PASSWORD, Answer, Running, exchange, hand_over, pair

TASK: dict[str, Any] = {"name": "Task", "fields": [{"name": "title", "type": "string"}]}


async def me(node: Running, token: str) -> Answer:
    return await node.ask("GET", "/v1/users/me", token=token)


async def test_an_account_made_on_one_node_can_sign_in_on_the_other(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, b):
        user, token = await a.sign_up("ann")
        await hand_over(a, b)
        assert (await me(b, token)).json["user_id"] == user
        there = await b.login("ann")
        await hand_over(b, a)
        assert (await me(a, there)).json["user_id"] == user


async def test_signing_out_anywhere_ends_the_session_everywhere(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, b):
        _, first = await a.sign_up("ann")
        second = await a.login("ann")
        await hand_over(a, b)
        assert {(await me(b, token)).status for token in (first, second)} == {200}
        await a.done("POST", "/v1/auth/logout", token=first)
        await hand_over(a, b)
        assert [(await me(b, token)).status for token in (first, second)] == [401, 200]
        await b.done("POST", "/v1/auth/logout", token=second)  # of a session that began on the other node
        await hand_over(b, a)
        assert (await me(a, second)).status == 401


async def test_a_new_password_counts_everywhere_and_ends_the_other_sessions(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, b):
        _, kept = await a.sign_up("ann")
        other = await a.login("ann")
        await hand_over(a, b)
        there = await b.login("ann")
        assert {(await me(b, token)).status for token in (kept, other, there)} == {200}
        change = {"current_password": PASSWORD, "new_password": "another horse 8"}
        await a.done("POST", "/v1/auth/password", change, token=kept)
        await hand_over(a, b)
        assert [(await me(b, token)).status for token in (kept, other, there)] == [200, 401, 401]
        account = {"email": "ann@example.org", "password": PASSWORD}
        assert (await b.ask("POST", "/v1/auth/login", account)).status == 401
        assert (await me(b, await b.login("ann", "another horse 8"))).status == 200


async def test_a_disabled_account_is_disabled_everywhere(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, b):
        user, token = await a.sign_up("ann")
        await hand_over(a, b)
        there = await b.login("ann")
        assert (await me(b, token)).status == (await me(b, there)).status == 200
        await a.done("PUT", f"/v1/admin/users/{user}", {"disabled": True})
        await hand_over(a, b)
        assert (await me(b, token)).status == (await me(b, there)).status == 401
        account = {"email": "ann@example.org", "password": PASSWORD}
        assert (await b.ask("POST", "/v1/auth/login", account)).status == 401


async def test_roles_given_by_an_admin_node_count_everywhere_at_once(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, b):
        user, token = await a.sign_up("ann")
        await hand_over(a, b)
        there = await b.login("ann")
        listing = "/v1/admin/users"
        assert [(await n.ask("GET", listing, token=t)).status for n, t in ((b, token), (b, there))] == [
            403
        ] * 2
        await a.done("POST", f"/v1/users/{user}/roles", {"role": "admin"})
        await hand_over(a, b)
        # An admin node's token opens administrator routes everywhere, a member node's only those of itself.
        assert (await b.ask("GET", listing, token=token)).status == 200
        assert (await b.ask("GET", listing, token=there)).status == 200
        await hand_over(b, a)
        assert (await a.ask("GET", listing, token=there)).status == 401  # sign in here
        assert (await me(a, there)).status == 200
        await a.done("DELETE", f"/v1/users/{user}/roles/admin")
        await hand_over(a, b)
        assert (await b.ask("GET", listing, token=token)).status == 403


async def test_a_member_node_may_not_give_roles_and_says_so(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, b):
        user, _ = await a.sign_up("ann")
        await hand_over(a, b)
        refused = await b.ask("POST", f"/v1/users/{user}/roles", {"role": "admin"})
        assert refused.status == 403 and "member" in refused.json["error"]


async def test_a_reader_node_reads_and_signs_in_and_names_its_role_where_it_may_not_write(
    tmp_path: Path,
) -> None:
    async with pair(tmp_path, role=Role.READER) as (a, b):
        _, token = await a.sign_up("ann")
        await a.done("POST", "/v1/data-models", TASK)
        await a.done("POST", "/v1/data/Task", {"id": "t1", "title": "one"}, token=token)
        await hand_over(a, b)
        there = await b.login("ann")
        assert (await b.ask("GET", "/v1/data/Task/t1", token=there)).json["title"] == "one"
        operation = {"method": "POST", "path": "/data/Task", "body": {"title": "two"}}
        refused = [
            await b.ask("POST", "/v1/data/Task", {"title": "two"}, token=there),
            await b.ask("PUT", "/v1/data/Task/t1", {"title": "two"}, token=there),
            await b.ask("DELETE", "/v1/data/Task/t1", token=there),
            await b.ask("POST", "/v1/batch", {"operations": [operation]}, token=there),
            await b.ask("POST", "/v1/data-models", {**TASK, "name": "Other"}, token=there),
        ]
        assert [answer.status for answer in refused] == [403] * 5
        assert all("reader" in answer.json["error"] for answer in refused)
        assert (await me(a, there)).status == 401, "a reader's tokens count on itself alone"


async def test_models_and_their_permissions_count_as_soon_as_they_arrive(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, b):
        _, ann = await a.sign_up("ann")
        _, ben = await a.sign_up("ben")
        assert (await b.ask("GET", "/v1/data/Task", token=ann)).status == 401
        await a.done("POST", "/v1/data-models", TASK, token=ann)
        await hand_over(a, b)
        await b.done("POST", "/v1/data/Task", {"id": "t1", "title": "one"}, token=ann)
        assert (await b.ask("GET", "/v1/data/Task/t1", token=ben)).status == 200
        await exchange(b, a)
        await a.done("PUT", "/v1/data-models/Task", {**TASK, "permissions": {"read": "owner"}})
        await hand_over(a, b)
        assert (await b.ask("GET", "/v1/data/Task/t1", token=ben)).status == 403
        assert (await b.ask("GET", "/v1/data/Task/t1", token=ann)).status == 200
        fields = [*TASK["fields"], {"name": "due", "type": "date"}]
        await a.done("PUT", "/v1/data-models/Task", {**TASK, "fields": fields})
        await hand_over(a, b)
        refused = await b.ask("POST", "/v1/data/Task", {"title": "two", "due": "soon"}, token=ann)
        assert refused.json["details"] == {"due": "Must be a date (YYYY-MM-DD)"}
        await a.done("DELETE", "/v1/data-models/Task")
        await hand_over(a, b)
        assert (await b.ask("GET", "/v1/data/Task/t1", token=ann)).status == 404


async def test_a_document_is_the_same_wherever_it_is_read(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, b):
        ann_id, ann = await a.sign_up("ann")
        await a.done("POST", "/v1/data-models", TASK)
        await a.done("POST", "/v1/data/Task", {"id": "t1", "title": "one"}, token=ann)
        await hand_over(a, b)
        there = await b.done("GET", "/v1/data/Task/t1", token=ann)
        assert there["created_by"] == ann_id
        b.clock.pass_s(5)
        await b.done("PUT", "/v1/data/Task/t1", {"title": "two"})  # by the owner of the other device
        await hand_over(b, a)
        here = await a.done("GET", "/v1/data/Task/t1", token=ann)
        assert here == await b.done("GET", "/v1/data/Task/t1", token=ann)
        assert here["created_by"] == ann_id and here["title"] == "two"
        assert here["created_at"] == there["created_at"] < here["updated_at"]
        listed = (await a.done("GET", "/v1/data/Task?filter=title:eq:two", token=ann))["items"]
        assert [item["id"] for item in listed] == ["t1"]


async def test_a_revoked_node_has_its_tokens_refused_at_once_on_sockets_too(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, b):
        await a.sign_up("ann")
        await a.done("POST", "/v1/data-models", TASK)
        await hand_over(a, b)
        there = await b.login("ann")
        await exchange(b, a)
        assert (await me(a, there)).status == 200
        url = a.node.url + "/v1/realtime"
        async with a.http.ws_connect(url, headers={"Authorization": f"Bearer {there}"}) as socket:
            await socket.send_json({"action": "subscribe", "model": "Task"})
            assert (await socket.receive_json())["event"] == "subscribed"
            await a.revoke(b.id)
            assert (await me(a, there)).status == 401
            await a.done("POST", "/v1/data/Task", {"title": "not for them"})
            error = await socket.receive_json()
            assert error["error_code"] == "AUTH_INVALID_TOKEN"
            closed = await socket.receive()
            assert (closed.type, closed.data) == (aiohttp.WSMsgType.CLOSE, 4401)
        here = await a.login("ann")
        assert (await me(a, here)).status == 200, "the account is no part of the node"


async def test_a_node_that_becomes_a_reader_issues_no_more_tokens_for_others(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, b):
        await a.sign_up("ann")
        await hand_over(a, b)
        there = await b.login("ann")
        assert (await me(a, there)).status == 200
        await a.grant(b.id, Role.READER)
        assert (await me(a, there)).status == 401
        await hand_over(a, b)
        assert (await me(b, there)).status == 200


async def test_what_a_revocation_takes_away_is_gone_and_can_be_created_again(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, b):
        await a.done("POST", "/v1/data-models", TASK)
        await hand_over(a, b)
        await b.done("POST", "/v1/data/Task", {"id": "t1", "title": "before"})
        await hand_over(b, a)
        await b.done("POST", "/v1/data/Task", {"id": "t2", "title": "after"})
        await a.revoke(b.id)
        await hand_over(b, a)
        found = (await a.done("GET", "/v1/data/Task"))["items"]
        assert [item["id"] for item in found] == ["t1"]
        assert (await a.ask("GET", "/v1/data/Task/t2")).status == 404


async def test_an_account_that_a_revocation_undoes_opens_nothing_any_more(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, b):
        _, before = await b.sign_up("ann")
        await exchange(a, b)
        cuts = a.cuts_at_heads(b.id)
        await b.sign_up("mallory")
        await hand_over(b, a)
        here = await a.login("mallory")
        assert (await me(a, here)).status == 200
        await a.revoke(b.id, cuts)
        assert (await me(a, here)).status == 401
        account = {"email": "mallory@example.org", "password": PASSWORD}
        assert (await a.ask("POST", "/v1/auth/login", account)).status == 401
        assert (await me(a, await a.login("ann"))).status == 200
        assert (await me(a, before)).status == 401, "it was the revoked node that issued it"


async def test_two_accounts_with_one_address_made_apart_both_sign_in_by_their_passwords(
    tmp_path: Path,
) -> None:
    async with pair(tmp_path) as (a, b):
        account = {"email": "ann@example.org", "username": "ann"}
        first = await a.done("POST", "/v1/auth/register", {**account, "password": "first horse 1"})
        second = await b.done("POST", "/v1/auth/register", {**account, "password": "second horse 2"})
        await exchange(a, b)
        for node in (a, b):
            for made, password in ((first, "first horse 1"), (second, "second horse 2")):
                token = await node.login("ann", password)
                assert (await me(node, token)).json["user_id"] == made["user_id"]
            listed = await node.done("GET", "/v1/admin/users?email=ann@example.org")
            assert {item["user_id"] for item in listed["items"]} == {first["user_id"], second["user_id"]}
