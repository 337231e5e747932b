from typing import Any

import pytest

from node.api.routes import Caller
from node.services.permissions import Permissions
from node.services.scopes import Scopes
from protocol.schema import Field, FieldType, Model
from tests.node.api.civicbase.conftest import OWNER_TOKEN, PASSWORD, Api, running

READ_ONLY = {"name": "reports", "scopes": ["read"]}


async def made(api: Api, token: str, **body: Any) -> Any:
    answer = await api.ask("POST", "/v1/api-keys", READ_ONLY | body, token=token)
    assert answer.status == 201, answer.text
    return answer.json


async def test_a_key_is_shown_once_listed_and_revoked(api: Api) -> None:
    user, token = await api.sign_up()
    answer = await api.ask("POST", "/v1/api-keys", READ_ONLY | {"expires_in": 3600}, token=token)
    assert answer.status == 201 and answer.headers["Cache-Control"] == "no-store"
    key = answer.json
    assert key["name"] == "reports" and key["scopes"] == ["read"] and key["user_id"] == user
    assert key["expires_at"] and key["last_used_at"] is None
    me = await api.ask("GET", "/v1/users/me", token=key["api_key"])
    assert me.status == 200 and me.json["id"] == user
    listed = await api.ask("GET", "/v1/api-keys", token=token)
    assert listed.json["total"] == 1 and listed.json["items"][0]["last_used_at"]
    assert set(listed.json["items"][0]) == set(key) - {"api_key"} and key["api_key"] not in listed.text
    gone = await api.ask("DELETE", f"/v1/api-keys/{key['id']}", token=token)
    assert (gone.status, gone.text) == (204, "")
    refused = await api.ask("GET", "/v1/users/me", token=key["api_key"])
    assert (refused.status, refused.json["error_code"]) == (401, "AUTH_INVALID_TOKEN")
    assert (await api.ask("DELETE", f"/v1/api-keys/{key['id']}", token=token)).status == 404
    assert (await api.ask("GET", "/v1/api-keys", token=token)).json == {"items": [], "total": 0}


async def test_a_key_comes_by_either_header(api: Api) -> None:
    _, token = await api.sign_up()
    key = (await made(api, token))["api_key"]
    assert (await api.ask("GET", "/v1/users/me", X_API_Key=key)).status == 200
    assert (await api.ask("GET", "/v1/users/me", X_API_Key="cbk_nonsense")).status == 401
    both = await api.ask("GET", "/v1/users/me", token="nonsense", X_API_Key=key)
    assert both.status == 401  # Authorization counts, if it is there


async def test_a_key_opens_what_its_scopes_say(api: Api) -> None:
    _, token = await api.sign_up()
    reads = (await made(api, token))["api_key"]
    writes = (await made(api, token, scopes=["write"]))["api_key"]
    data = (await made(api, token, scopes=["data:Task:read"]))["api_key"]
    name = {"username": "other"}
    assert (await api.ask("GET", "/v1/users/me", token=reads)).status == 200
    refused = await api.ask("PUT", "/v1/users/me", name, token=reads)
    assert (refused.status, refused.json["error_code"]) == (403, "FORBIDDEN") and "write" in refused.text
    assert (await api.ask("PUT", "/v1/users/me", name, token=writes)).status == 200
    assert (await api.ask("GET", "/v1/users/me", token=writes)).status == 403
    for method, path in (("GET", "/v1/users/me"), ("PUT", "/v1/users/me"), ("GET", "/v1/users")):
        assert (await api.ask(method, path, name if method == "PUT" else None, token=data)).status == 403
    assert (await api.ask("GET", "/v1/nowhere", token=data)).status == 404


async def test_a_key_asks_about_its_own_permissions(api: Api) -> None:
    _, token = await api.sign_up()
    api.models["default", "Task"] = Model("t", "default", "Task", {"a": Field("a", FieldType.STRING)})
    key = (await made(api, token, scopes=["read"]))["api_key"]
    for action, permitted in (("read", True), ("write", False)):
        path = f"/v1/users/me/permissions?action={action}&resource=Task"
        assert (await api.ask("GET", path, token=key)).json == {"permitted": permitted}
        assert (await api.ask("GET", path, token=token)).json == {"permitted": True}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/api-keys"),
        ("GET", "/v1/api-keys"),
        ("DELETE", "/v1/api-keys/x"),
        ("POST", "/v1/auth/logout"),
        ("POST", "/v1/auth/password"),
        ("POST", "/v1/auth/mfa/enable"),
        ("POST", "/v1/auth/mfa/verify"),
        ("POST", "/v1/auth/mfa/disable"),
        ("POST", "/v1/auth/mfa/recovery-codes"),
    ],
)
async def test_no_key_opens_what_is_a_persons(api: Api, method: str, path: str) -> None:
    admin = await api.admin()
    key = (await made(api, admin, scopes=["admin"]))["api_key"]
    answer = await api.ask(method, path, None if method == "GET" else {}, token=key)
    assert answer.status == 403 and "signed in" in answer.text


async def test_the_scope_admin_is_for_administrators(api: Api) -> None:
    _, token = await api.sign_up()
    refused = await api.ask("POST", "/v1/api-keys", READ_ONLY | {"scopes": ["admin"]}, token=token)
    assert refused.status == 403
    admin = await api.admin()
    key = (await made(api, admin, scopes=["admin"]))["api_key"]
    assert (await api.ask("GET", "/v1/admin/users", token=key)).status == 200
    plain = (await made(api, admin, scopes=["read", "write"]))["api_key"]
    assert (await api.ask("GET", "/v1/admin/users", token=plain)).status == 403
    listed = await api.ask("GET", "/v1/users", token=plain)
    assert "email" not in listed.text


async def test_keys_of_others_are_for_administrators(api: Api) -> None:
    user, token = await api.sign_up()
    key = await made(api, token)
    _, other = await api.sign_up("ben@example.org")
    assert (await api.ask("GET", f"/v1/api-keys?user_id={user}", token=other)).status == 403
    assert (await api.ask("DELETE", f"/v1/api-keys/{key['id']}", token=other)).status == 404
    listed = await api.ask("GET", f"/v1/api-keys?user_id={user}", token=OWNER_TOKEN)
    assert [one["id"] for one in listed.json["items"]] == [key["id"]]
    assert (await api.ask("DELETE", f"/v1/api-keys/{key['id']}", token=OWNER_TOKEN)).status == 204
    assert (await api.ask("POST", "/v1/api-keys", READ_ONLY, token=OWNER_TOKEN)).status == 403


async def test_every_fault_of_a_key_is_named(api: Api) -> None:
    _, token = await api.sign_up()
    body = {"scopes": ["all"], "expires_in": -1}
    answer = await api.ask("POST", "/v1/api-keys", body, token=token)
    assert answer.status == 400 and set(answer.json["details"]) == {"name", "scopes", "expires_in"}


async def test_a_token_of_a_shared_secret_sets_up_nothing_that_outlives_it() -> None:
    import jwt

    secret = "a shared secret of more than thirty-two bytes"
    async with running(shared_secret=secret) as api:
        user = await api.register()
        said = {"sub": user, "exp": api.node.clock() // 1000 + 60, "sid": "s"}
        token = jwt.encode(said, secret, algorithm="HS256")
        assert (await api.ask("GET", "/v1/users/me", token=token)).status == 200
        assert (await api.ask("GET", "/v1/api-keys", token=token)).status == 200
        for path, body in (
            ("/v1/api-keys", READ_ONLY),
            ("/v1/auth/mfa/enable", None),
            ("/v1/auth/mfa/verify", {"code": "123456"}),
            ("/v1/auth/logout", {"everywhere": True}),
        ):
            refused = await api.ask("POST", path, body, token=token)
            assert refused.status == 403 and "shared secret" in refused.text, path


async def test_signing_out_everywhere_ends_sessions_and_keys(api: Api) -> None:
    await api.register()
    mine, other = await api.login(), await api.login()
    key = (await made(api, mine["token"]))["api_key"]
    wrong = await api.ask("POST", "/v1/auth/logout", {"everywhere": "yes"}, token=mine["token"])
    assert wrong.status == 400
    answer = await api.ask("POST", "/v1/auth/logout", {"everywhere": True}, token=mine["token"])
    assert answer.status == 200
    for token in (mine["token"], other["token"], key):
        assert (await api.ask("GET", "/v1/users/me", token=token)).status == 401
    body = {"refresh_token": other["refresh_token"]}
    assert (await api.ask("POST", "/v1/auth/refresh", body)).status == 401
    await api.login(password=PASSWORD)


def test_scopes_bind_also_where_a_model_is_public() -> None:
    """A key is a promise about what its program touches, so it holds for what everybody may read too."""
    model = Model("t", "default", "Task", {"a": Field("a", FieldType.STRING)}, permissions={"read": "public"})
    key = Caller("ann", "default", api_key_id="k", scopes=Scopes(["data:Plan:read"]))
    assert not Permissions(lambda: 0).check(key, model, "read")
    assert not Permissions(lambda: 0).may_ever(key, model, "read")
