import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.node.api.civicbase.conftest import OWNER_TOKEN, PASSWORD, Api, running


async def test_a_user_registers_signs_in_and_is_known(api: Api) -> None:
    answer = await api.ask(
        "POST",
        "/v1/auth/register",
        {
            "email": "user@example.com",
            "password": PASSWORD,
            "username": "johndoe",
            "application_id": "app_12345",
        },
    )
    assert answer.status == 201
    assert answer.json["message"] == "User registered successfully" and isinstance(
        answer.json["user_id"], str
    )
    answer = await api.ask(
        "POST",
        "/v1/auth/login",
        {"email": "user@example.com", "password": PASSWORD, "application_id": "app_12345"},
    )
    assert answer.status == 200 and answer.json["expires_in"] == 3600
    assert set(answer.json) == {"token", "expires_in", "refresh_token"}
    assert answer.headers["Cache-Control"] == "no-store"
    me = await api.ask("GET", "/v1/users/me", token=answer.json["token"])
    assert me.status == 200 and me.json["application_id"] == "app_12345"


async def test_every_fault_of_a_registration_is_named_at_once(api: Api) -> None:
    answer = await api.ask("POST", "/v1/auth/register", {"application_id": "no blanks", "password": "short"})
    assert answer.status == 400
    assert answer.json["error"] == "Validation failed"
    assert set(answer.json["details"]) == {"email", "password", "username", "application_id"}
    assert answer.json["details"]["email"] == "This field is required"
    answer = await api.ask("POST", "/v1/auth/login", {"application_id": 5, "email": 7})
    assert set(answer.json["details"]) == {"email", "password", "application_id"}


async def test_a_taken_address_says_no_more_than_that(api: Api) -> None:
    await api.register(username="secretive")
    answer = await api.ask(
        "POST", "/v1/auth/register", {"email": "ANN@example.org", "password": PASSWORD, "username": "x"}
    )
    assert answer.status == 409 and answer.json["error_code"] == "CONFLICT"
    assert "secretive" not in answer.text and set(answer.json) == {"error", "error_code"}


async def test_a_failed_sign_in_reads_the_same_whatever_the_reason(api: Api) -> None:
    await api.register()
    answers = [
        await api.ask("POST", "/v1/auth/login", {"email": email, "password": "wrong password", **more})
        for email, more in (
            ("ann@example.org", {}),
            ("nobody@example.org", {}),
            ("not an address", {}),
            ("ann@example.org", {"application_id": "app_unheard_of"}),
        )
    ]
    assert {answer.status for answer in answers} == {401}
    assert len({answer.text for answer in answers}) == 1
    assert answers[0].json["error_code"] == "AUTH_INVALID_CREDENTIALS"


async def test_after_five_failures_a_sign_in_waits(api: Api) -> None:
    await api.register()
    for email in ("ann@example.org", "nobody@example.org"):
        for _ in range(5):
            answer = await api.ask("POST", "/v1/auth/login", {"email": email, "password": "wrong password"})
            assert answer.status == 401
        answer = await api.ask("POST", "/v1/auth/login", {"email": email, "password": PASSWORD})
        assert answer.status == 429
        assert answer.json["error_code"] == "RATE_LIMIT_EXCEEDED" and answer.json["retry_after"] == 30
        assert answer.headers["Retry-After"] == "30"
    api.node.clock.pass_s(30)
    await api.login()


async def test_no_token_and_a_bad_token_are_told_apart(api: Api) -> None:
    answer = await api.ask("GET", "/v1/users/me")
    assert (answer.status, answer.json["error_code"]) == (401, "UNAUTHORIZED")
    answer = await api.ask("GET", "/v1/users/me", token="eyJhbGciOiJub25lIn0.e30.")
    assert (answer.status, answer.json["error_code"]) == (401, "AUTH_INVALID_TOKEN")


async def test_an_expired_token_refreshes_itself_once(api: Api) -> None:
    _, token = await api.sign_up()
    api.node.clock.pass_s(3601)
    assert (await api.ask("GET", "/v1/users/me", token=token)).status == 401
    answer = await api.ask("POST", "/v1/auth/refresh", token=token)
    assert answer.status == 200 and set(answer.json) == {"token", "expires_in"}
    assert answer.json["expires_in"] == 3600
    assert (await api.ask("GET", "/v1/users/me", token=answer.json["token"])).status == 200
    again = await api.ask("POST", "/v1/auth/refresh", token=token)
    assert (again.status, again.text) == (200, answer.text)  # within 30 s
    api.node.clock.pass_s(31)
    answer = await api.ask("POST", "/v1/auth/refresh", token=token)
    assert (answer.status, answer.json["error_code"]) == (401, "AUTH_INVALID_TOKEN")


async def test_a_refresh_token_refreshes_and_is_replaced(api: Api) -> None:
    await api.register()
    first = await api.login()
    answers = await asyncio.gather(
        *(api.ask("POST", "/v1/auth/refresh", {"refresh_token": first["refresh_token"]}) for _ in range(20))
    )
    assert {answer.status for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    second = answers[0].json
    assert set(second) == {"token", "expires_in", "refresh_token"}
    api.node.clock.pass_s(31)
    assert (await api.ask("GET", "/v1/users/me", token=second["token"])).status == 200
    answer = await api.ask("POST", "/v1/auth/refresh", {"refresh_token": first["refresh_token"]})
    assert (answer.status, answer.json["error_code"]) == (401, "AUTH_INVALID_TOKEN")
    answer = await api.ask("POST", "/v1/auth/refresh", {"refresh_token": second["refresh_token"]})
    assert answer.status == 401
    assert (await api.ask("GET", "/v1/users/me", token=second["token"])).status == 401


@pytest.mark.parametrize("body", [None, {}, {"refresh_token": None}])
async def test_a_refresh_needs_one_token_or_the_other(api: Api, body: Any) -> None:
    answer = await api.ask("POST", "/v1/auth/refresh", body)
    assert (answer.status, answer.json["error_code"]) == (401, "UNAUTHORIZED")


@pytest.mark.parametrize("body", [{"refresh_token": 5}, {"refresh_token": ""}, {"refresh_token": []}])
async def test_a_refresh_token_is_a_text(api: Api, body: Any) -> None:
    answer = await api.ask("POST", "/v1/auth/refresh", body)
    assert answer.status == 400 and "refresh_token" in answer.json["details"]


async def test_the_owner_token_neither_refreshes_nor_signs_out_nor_has_a_password(api: Api) -> None:
    assert (await api.ask("POST", "/v1/auth/refresh", token=OWNER_TOKEN)).status == 401
    assert (await api.ask("POST", "/v1/auth/logout", token=OWNER_TOKEN)).status == 403
    answer = await api.ask("POST", "/v1/auth/password", {"current_password": "x"}, token=OWNER_TOKEN)
    assert answer.status == 403


async def test_signing_out_ends_the_session_on_the_very_next_request(api: Api) -> None:
    await api.register()
    mine, other = await api.login(), await api.login()
    assert (await api.ask("GET", "/v1/users/me", token=mine["token"])).status == 200
    answer = await api.ask("POST", "/v1/auth/logout", token=mine["token"])
    assert answer.status == 200 and answer.json["message"]
    for path in ("/v1/users/me", "/v1/users"):
        assert (await api.ask("GET", path, token=mine["token"])).status == 401
    assert (await api.ask("POST", "/v1/auth/refresh", token=mine["token"])).status == 401
    body = {"refresh_token": mine["refresh_token"]}
    assert (await api.ask("POST", "/v1/auth/refresh", body)).status == 401
    assert (await api.ask("GET", "/v1/users/me", token=other["token"])).status == 200


async def test_a_new_password_ends_the_other_sessions(api: Api) -> None:
    await api.register()
    mine, other = await api.login(), await api.login()
    change = {"current_password": "wrong password", "new_password": "a new password"}
    assert (await api.ask("POST", "/v1/auth/password", change, token=mine["token"])).status == 403
    answer = await api.ask("POST", "/v1/auth/password", {"new_password": "short"}, token=mine["token"])
    assert set(answer.json["details"]) == {"current_password", "new_password"}
    change["current_password"] = PASSWORD
    assert (await api.ask("POST", "/v1/auth/password", change, token=mine["token"])).status == 200
    assert (await api.ask("GET", "/v1/users/me", token=mine["token"])).status == 200
    assert (await api.ask("GET", "/v1/users/me", token=other["token"])).status == 401
    assert (
        await api.ask("POST", "/v1/auth/login", {"email": "ann@example.org", "password": PASSWORD})
    ).status == 401
    await api.login(password="a new password")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.dictionaries(
    st.sampled_from(
        [
            "email",
            "password",
            "username",
            "application_id",
            "refresh_token",
            "current_password",
            "new_password",
            "mfa_code",
        ]
    ),
    JSON,
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(bodies=st.lists(JSON | FIELDS, min_size=8, max_size=8))
async def test_no_body_makes_the_node_stumble(bodies: Any) -> None:
    async with running() as api:
        _, token = await api.sign_up()
        for body in bodies:
            for path in ("register", "login", "refresh", "password"):
                answer = await api.ask("POST", f"/v1/auth/{path}", body, token=token)
                assert answer.status in (200, 201, 400, 401, 403, 409, 415, 429), (path, body, answer)


SECRETS = st.dictionaries(
    st.sampled_from(["code", "password", "name", "scopes", "expires_in", "expires_at"]),
    JSON | st.lists(st.sampled_from(["read", "admin", "data:*:write", "all"])),
)


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(bodies=st.lists(JSON | SECRETS, min_size=8, max_size=8))
async def test_no_body_about_mfa_and_keys_makes_the_node_stumble(bodies: Any) -> None:
    async with running() as api:
        _, token = await api.sign_up()
        await api.ask("POST", "/v1/auth/mfa/enable", token=token)
        for body in bodies:
            for path in ("auth/mfa/verify", "auth/mfa/disable", "auth/mfa/recovery-codes", "api-keys"):
                answer = await api.ask("POST", f"/v1/{path}", body, token=token)
                assert answer.status in (201, 400, 403, 409, 415, 429), (path, body, answer)
