import base64
from typing import Any

import pytest

from node.services.totp import totp_code
from tests.node.api.civicbase.conftest import OWNER_TOKEN, PASSWORD, Api

LOGIN = {"email": "ann@example.org", "password": PASSWORD}


def code(api: Api, secret: str) -> str:
    return totp_code(secret, api.node.clock() // 30_000)


async def with_mfa(api: Api) -> tuple[str, str, Any]:
    """-> user id, token, what `enable` answered; a step later."""
    user, token = await api.sign_up()
    shown = await api.ask("POST", "/v1/auth/mfa/enable", token=token)
    assert shown.status == 200, shown.text
    body = {"code": code(api, shown.json["secret"])}
    verified = await api.ask("POST", "/v1/auth/mfa/verify", body, token=token)
    assert verified.status == 200 and verified.json == {"message": "MFA verified successfully"}
    api.node.clock.pass_s(30)
    return user, token, shown.json


async def test_mfa_is_enabled_verified_and_then_asked_for(api: Api) -> None:
    user, token = await api.sign_up()
    shown = await api.ask("POST", "/v1/auth/mfa/enable", token=token)
    assert shown.status == 200 and shown.headers["Cache-Control"] == "no-store"
    assert set(shown.json) == {"secret", "qr_code", "recovery_codes"}
    kind, _, picture = shown.json["qr_code"].partition(",")
    assert kind == "data:image/png;base64" and base64.b64decode(picture).startswith(b"\x89PNG\r\n")
    me = await api.ask("GET", "/v1/users/me", token=token)
    assert me.json["mfa_enabled"] is False and me.json["mfa_recovery_codes_left"] == 0
    assert (await api.ask("POST", "/v1/auth/login", LOGIN)).status == 200
    body = {"code": code(api, shown.json["secret"])}
    assert (await api.ask("POST", "/v1/auth/mfa/verify", body, token=token)).status == 200
    me = await api.ask("GET", "/v1/users/me", token=token)
    assert me.json["mfa_enabled"] is True and me.json["mfa_recovery_codes_left"] == 10
    assert shown.json["secret"] not in me.text

    asked = await api.ask("POST", "/v1/auth/login", LOGIN)
    assert (asked.status, asked.json["error_code"]) == (401, "AUTH_MFA_REQUIRED")
    wrong = await api.ask("POST", "/v1/auth/login", LOGIN | {"mfa_code": "000000"})
    assert (wrong.status, wrong.json["error_code"]) == (401, "AUTH_INVALID_MFA_CODE")
    api.node.clock.pass_s(30)
    granted = await api.ask("POST", "/v1/auth/login", LOGIN | {"mfa_code": code(api, shown.json["secret"])})
    assert granted.status == 200 and set(granted.json) == {"token", "expires_in", "refresh_token"}
    recovered = await api.ask("POST", "/v1/auth/login", LOGIN | {"mfa_code": shown.json["recovery_codes"][0]})
    assert recovered.status == 200
    assert user


async def test_every_fault_is_named(api: Api) -> None:
    _, token, _ = await with_mfa(api)
    answer = await api.ask("POST", "/v1/auth/mfa/verify", {}, token=token)
    assert answer.status == 400 and set(answer.json["details"]) == {"code"}
    answer = await api.ask("POST", "/v1/auth/mfa/verify", {"code": 5}, token=token)
    assert answer.status == 400 and answer.json["details"]["code"] == "Must be a string"
    answer = await api.ask("POST", "/v1/auth/mfa/disable", {}, token=token)
    assert answer.status == 400 and set(answer.json["details"]) == {"code", "password"}
    answer = await api.ask("POST", "/v1/auth/login", {"mfa_code": 5})
    assert answer.status == 400 and set(answer.json["details"]) == {"email", "password", "mfa_code"}


async def test_who_has_none_is_told_so(api: Api) -> None:
    _, token = await api.sign_up()
    both = {"password": PASSWORD, "code": "123456"}
    for path, body in (("verify", {"code": "123456"}), ("disable", both), ("recovery-codes", both)):
        answer = await api.ask("POST", f"/v1/auth/mfa/{path}", body, token=token)
        assert (answer.status, answer.json["error_code"]) == (409, "CONFLICT"), path
    granted = await api.ask("POST", "/v1/auth/login", LOGIN | {"mfa_code": None})
    assert granted.status == 200


async def test_a_second_factor_is_disabled_by_both_factors(api: Api) -> None:
    _, token, shown = await with_mfa(api)
    assert (await api.ask("POST", "/v1/auth/mfa/enable", token=token)).status == 409
    wrong = {"password": PASSWORD, "code": "000000"}
    assert (await api.ask("POST", "/v1/auth/mfa/disable", wrong, token=token)).status == 400
    right = {"password": PASSWORD, "code": code(api, shown["secret"])}
    assert (await api.ask("POST", "/v1/auth/mfa/disable", right, token=token)).status == 200
    assert (await api.ask("POST", "/v1/auth/login", LOGIN)).status == 200


async def test_new_recovery_codes_take_the_place_of_the_old(api: Api) -> None:
    _, token, shown = await with_mfa(api)
    body = {"password": PASSWORD, "code": shown["recovery_codes"][0]}
    answer = await api.ask("POST", "/v1/auth/mfa/recovery-codes", body, token=token)
    assert answer.status == 200 and len(answer.json["recovery_codes"]) == 10
    old = await api.ask("POST", "/v1/auth/login", LOGIN | {"mfa_code": shown["recovery_codes"][1]})
    assert old.status == 401
    new = await api.ask("POST", "/v1/auth/login", LOGIN | {"mfa_code": answer.json["recovery_codes"][0]})
    assert new.status == 200


async def test_an_administrator_takes_a_lost_factor_away(api: Api) -> None:
    user, token, _ = await with_mfa(api)
    assert (await api.ask("DELETE", f"/v1/admin/users/{user}/mfa", token=token)).status == 403
    admin = await api.admin()
    listed = await api.ask("GET", "/v1/admin/users?email=ann@example.org", token=admin)
    assert listed.json["items"][0]["mfa_enabled"] is True
    assert (await api.ask("DELETE", f"/v1/admin/users/{user}/mfa", token=admin)).status == 200
    assert (await api.ask("POST", "/v1/auth/login", LOGIN)).status == 200
    assert (await api.ask("DELETE", "/v1/admin/users/nobody/mfa", token=admin)).status == 404


@pytest.mark.parametrize("path", ["enable", "verify", "disable", "recovery-codes"])
async def test_only_a_user_has_a_second_factor(api: Api, path: str) -> None:
    body = None if path == "enable" else {"code": "123456", "password": PASSWORD}
    assert (await api.ask("POST", f"/v1/auth/mfa/{path}", body, token=OWNER_TOKEN)).status == 403
    assert (await api.ask("POST", f"/v1/auth/mfa/{path}", body)).status == 401


async def test_a_password_changed_or_reset_leaves_the_second_factor(api: Api) -> None:
    user, token, _ = await with_mfa(api)
    change = {"current_password": PASSWORD, "new_password": "another password"}
    assert (await api.ask("POST", "/v1/auth/password", change, token=token)).status == 200
    admin = await api.admin()
    body = {"password": "yet another password"}
    assert (await api.ask("POST", f"/v1/admin/users/{user}/password", body, token=admin)).status == 200
    asked = await api.ask("POST", "/v1/auth/login", LOGIN | body)
    assert asked.json["error_code"] == "AUTH_MFA_REQUIRED"


async def test_profile_fields_of_these_names_cannot_be_written(api: Api) -> None:
    _, token = await api.sign_up()
    answer = await api.ask("PUT", "/v1/users/me", {"mfa_enabled": True}, token=token)
    assert answer.status == 400 and set(answer.json["details"]) == {"mfa_enabled"}
    assert (await api.ask("PUT", "/v1/users/me", {"mfa_enabled": False}, token=token)).status == 200
