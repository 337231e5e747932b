from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocol.schema import Model
from tests.node.api.civicbase.conftest import OWNER_TOKEN, PASSWORD, Api, running


def model(name: Any = "Task", **permissions: Any) -> Any:
    return Model(id=f"{name.lower()}_1", application="default", name=name, fields={}, permissions=permissions)


async def test_a_profile_is_read_and_changed(api: Api) -> None:
    user, token = await api.sign_up()
    me = await api.ask("GET", "/v1/users/me", token=token)
    assert me.status == 200
    assert (me.json["user_id"], me.json["email"], me.json["username"]) == (user, "ann@example.org", "ann")
    assert me.json["created_at"].endswith("Z") and me.json["roles"] == [] and me.json["is_admin"] is False
    assert "argon2" not in me.text and "verifier" not in me.text
    answer = await api.ask("PUT", "/v1/users/me", {"username": "Ann B", "bio": "hiker"}, token=token)
    assert answer.status == 200
    assert (answer.json["username"], answer.json["bio"], answer.json["email"]) == (
        "Ann B",
        "hiker",
        "ann@example.org",
    )
    assert (await api.ask("GET", "/v1/users/me", token=token)).json == answer.json
    answer = await api.ask("PUT", "/v1/users/me", {"roles": ["admin"], "username": ""}, token=token)
    assert answer.status == 400 and set(answer.json["details"]) == {"roles", "username"}


async def test_a_free_field_cannot_pose_as_a_real_one(api: Api) -> None:
    user, token = await api.sign_up()
    for body in ({"user_id": "someone"}, {"is_admin": True}, {"created_at": "2000-01-01T00:00:00.000Z"}):
        assert (await api.ask("PUT", "/v1/users/me", body, token=token)).status == 400
    assert (await api.ask("GET", "/v1/users/me", token=token)).json["user_id"] == user


async def test_users_see_names_and_administrators_see_accounts(api: Api) -> None:
    user, token = await api.sign_up()
    boss = await api.admin()
    answer = await api.ask("GET", "/v1/users", token=token)
    assert answer.status == 200 and answer.headers["X-Total-Count"] == "2"
    assert answer.json[0].keys() == {"id", "user_id", "username", "created_at"}
    assert "@" not in answer.text
    pages = [await api.ask("GET", f"/v1/users?page={n}&per_page=1", token=boss) for n in (1, 2)]
    found = [(account["user_id"], account["email"]) for page in pages for account in page.json]
    assert len(found) == 2 and (user, "ann@example.org") in found
    answer = await api.ask("GET", "/v1/users?page=0&per_page=101", token=token)
    assert answer.status == 400 and set(answer.json["details"]) == {"page", "per_page"}
    assert (await api.ask("GET", "/v1/users")).status == 401


async def test_applications_do_not_see_one_another(api: Api) -> None:
    await api.sign_up()
    user, token = await api.sign_up("ben@example.org", application_id="app_1")
    answer = await api.ask("GET", "/v1/users", token=token)
    assert [found["user_id"] for found in answer.json] == [user]


async def test_an_administrator_makes_an_account_that_cannot_sign_in_yet(api: Api) -> None:
    boss = await api.admin()
    _, token = await api.sign_up()
    body = {"username": "new", "email": "new@example.org"}
    assert (await api.ask("POST", "/v1/users", body, token=token)).status == 403
    assert (await api.ask("POST", "/v1/users", body)).status == 401
    made = await api.ask("POST", "/v1/users", body, token=boss)
    assert made.status == 201 and made.json["message"] == "User created successfully"
    user = made.json["user_id"]
    login = {"email": "new@example.org", "password": PASSWORD}
    assert (await api.ask("POST", "/v1/auth/login", login)).status == 401
    path = f"/v1/admin/users/{user}/password"
    assert (await api.ask("POST", path, {"password": PASSWORD}, token=boss)).status == 200
    assert (await api.ask("POST", "/v1/auth/login", login)).status == 200
    assert (await api.ask("POST", "/v1/users", {}, token=boss)).json["details"].keys() == {
        "username",
        "email",
    }
    assert (await api.ask("POST", "/v1/users", body, token=boss)).status == 409


async def test_data_is_kept_per_user_and_key(api: Api) -> None:
    _, token = await api.sign_up()
    _, other = await api.sign_up("ben@example.org")
    value = {"theme": "dark", "notifications": True}
    answer = await api.ask("POST", "/v1/users/me/data", {"key": "preferences", "value": value}, token=token)
    assert (answer.status, answer.json) == (200, {"message": "Custom data stored successfully"})
    answer = await api.ask("GET", "/v1/users/me/data/preferences", token=token)
    assert (answer.status, answer.json) == (200, {"key": "preferences", "value": value})
    assert (await api.ask("GET", "/v1/users/me/data/preferences", token=other)).status == 404
    answer = await api.ask("POST", "/v1/users/me/data", {"key": ""}, token=token)
    assert answer.status == 400 and set(answer.json["details"]) == {"key", "value"}
    await api.ask("POST", "/v1/users/me/data", {"key": "a/b ü", "value": 1}, token=token)
    assert (await api.ask("GET", "/v1/users/me/data/a%2Fb%20%C3%BC", token=token)).json["value"] == 1
    await api.ask("POST", "/v1/users/me/data", {"key": "k", "value": 2}, token=OWNER_TOKEN)
    assert (await api.ask("GET", "/v1/users/me/data/k", token=OWNER_TOKEN)).json["value"] == 2


async def test_a_role_counts_on_the_very_next_request(api: Api) -> None:
    user, token = await api.sign_up()
    boss = await api.admin()
    role = {"role": "editor", "application_id": "default"}
    assert (await api.ask("POST", f"/v1/users/{user}/roles", role, token=token)).status == 403
    answer = await api.ask("POST", f"/v1/users/{user}/roles", role, token=boss)
    assert (answer.status, answer.json) == (200, {"message": "Role assigned successfully"})
    assert (await api.ask("GET", "/v1/users/me", token=token)).json["roles"] == ["editor"]
    assert (await api.ask("GET", "/v1/admin/users", token=token)).status == 403
    await api.ask("POST", f"/v1/users/{user}/roles", {"role": "admin"}, token=boss)
    assert (await api.ask("GET", "/v1/admin/users", token=token)).status == 200
    assert (await api.ask("DELETE", f"/v1/users/{user}/roles/admin", token=boss)).status == 200
    assert (await api.ask("GET", "/v1/admin/users", token=token)).status == 403
    assert (await api.ask("POST", "/v1/users/nobody/roles", role, token=boss)).status == 404
    answer = await api.ask("POST", f"/v1/users/{user}/roles", {"application_id": 1}, token=boss)
    assert answer.status == 400 and set(answer.json["details"]) == {"role", "application_id"}


async def test_administrators_stay_within_their_application_and_the_owner_need_not(api: Api) -> None:
    boss = await api.admin()
    user, token = await api.sign_up("ben@example.org", application_id="app_1")
    role = {"role": "editor", "application_id": "app_1"}
    assert (await api.ask("POST", f"/v1/users/{user}/roles", role, token=boss)).status == 403
    assert (await api.ask("POST", f"/v1/users/{user}/roles", {"role": "editor"}, token=boss)).status == 404
    assert (await api.ask("POST", f"/v1/users/{user}/roles", role, token=OWNER_TOKEN)).status == 200
    assert (await api.ask("GET", "/v1/users/me", token=token)).json["roles"] == ["editor"]


async def test_permissions_are_told_before_they_are_needed(api: Api) -> None:
    user, token = await api.sign_up()
    api.models["default", "Task"] = model()
    api.models["default", "Report"] = model(
        "Report", read="role:boss", update="role:boss", create="role:boss"
    )

    async def permitted(action: Any, resource: Any, token: Any = token) -> Any:
        answer = await api.ask(
            "GET", f"/v1/users/me/permissions?action={action}&resource={resource}", token=token
        )
        assert answer.status == 200 and answer.json.keys() == {"permitted"}
        return answer.json["permitted"]

    for action in ("read", "write", "delete", "create", "update"):
        assert await permitted(action, "Task")
        assert await permitted(action, "Report") is (action == "delete")  # of one's own
        assert not await permitted(action, "Unheard")
        assert await permitted(action, "Report", OWNER_TOKEN)
    await api.ask("POST", f"/v1/users/{user}/roles", {"role": "boss"}, token=OWNER_TOKEN)
    assert await permitted("read", "Report") and await permitted("write", "Report")
    answer = await api.ask("GET", "/v1/users/me/permissions?action=fly", token=token)
    assert answer.status == 400 and set(answer.json["details"]) == {"action", "resource"}


async def test_interests_lead_to_recommendations(api: Api) -> None:
    user, token = await api.sign_up()
    other, other_token = await api.sign_up("ben@example.org")
    for path, sent, by in (
        (f"/v1/users/{user}/interests", "hiking, photography", token),
        ("/v1/users/me/interests", ["hiking", "chess"], other_token),
    ):
        answer = await api.ask("POST", path, {"interests": sent}, token=by)
        assert (answer.status, answer.json) == (200, {"message": "Interests added successfully"})
    answer = await api.ask("GET", f"/v1/users/{user}/recommendations?top_n=5", token=token)
    assert answer.status == 200
    assert answer.json == [
        {"user_id": other, "username": "ben", "score": 0.3333, "shared_interests": ["hiking"]}
    ]
    assert (await api.ask("GET", "/v1/users/me/recommendations", token=token)).json == answer.json
    for top_n in ("0", "101", "-1", "x", "1.5", "٣", "1" * 30):
        answer = await api.ask("GET", f"/v1/users/{user}/recommendations?top_n={top_n}", token=token)
        assert answer.status == 400 and set(answer.json["details"]) == {"top_n"}
    assert (
        await api.ask("POST", f"/v1/users/{user}/interests", {"interests": ""}, token=token)
    ).status == 400


@pytest.mark.parametrize("exists", [True, False])
async def test_others_interests_are_not_anybodys(api: Api, exists: bool) -> None:
    _, token = await api.sign_up()
    other = await api.register("ben@example.org") if exists else "01hf7yawxr947kq3rdb60n2j9m"
    assert (
        await api.ask("POST", f"/v1/users/{other}/interests", {"interests": "x"}, token=token)
    ).status == 403
    assert (await api.ask("GET", f"/v1/users/{other}/recommendations", token=token)).status == 403
    expected = 200 if exists else 404
    assert (await api.ask("GET", f"/v1/users/{other}/recommendations", token=OWNER_TOKEN)).status == expected


async def test_the_owner_is_known_and_has_no_profile_to_change(api: Api) -> None:
    me = await api.ask("GET", "/v1/users/me", token=OWNER_TOKEN)
    assert me.status == 200 and me.json["user_id"] == "owner@test" and me.json["is_admin"] is True
    assert (await api.ask("PUT", "/v1/users/me", {"bio": "x"}, token=OWNER_TOKEN)).status == 403


async def test_administrators_find_disable_and_enable_accounts(api: Api) -> None:
    user, token = await api.sign_up()
    boss = await api.admin()
    answer = await api.ask("GET", "/v1/admin/users?email=ANN@example.org", token=boss)
    assert answer.status == 200 and answer.json["total"] == 1
    found = answer.json["items"][0]
    assert (found["user_id"], found["disabled"], found["has_password"]) == (user, False, True)
    assert "argon2" not in answer.text
    path = f"/v1/admin/users/{user}"
    assert (await api.ask("PUT", path, {"disabled": "yes"}, token=boss)).status == 400
    assert (await api.ask("PUT", path, {"disabled": True}, token=token)).status == 403
    assert (await api.ask("PUT", path, {"disabled": True}, token=boss)).json["disabled"] is True
    assert (await api.ask("GET", "/v1/users/me", token=token)).status == 401
    assert (
        await api.ask("POST", "/v1/auth/login", {"email": "ann@example.org", "password": PASSWORD})
    ).status == 401
    answer = await api.ask("GET", "/v1/admin/users?per_page=1", token=boss)
    assert (answer.json["total"], len(answer.json["items"])) == (2, 1)
    await api.ask("PUT", path, {"disabled": False}, token=boss)
    await api.login()


async def test_only_administrators_make_administrators(api: Api) -> None:
    _, token = await api.sign_up()
    body = {"email": "boss@example.org", "password": PASSWORD}
    assert (await api.ask("POST", "/v1/admin/admins", body)).status == 401
    assert (await api.ask("POST", "/v1/admin/admins", body, token=token)).status == 403
    assert (await api.ask("POST", "/v1/admin/admins", body, token=OWNER_TOKEN)).status == 201
    assert (await api.ask("POST", "/v1/admin/admins", body, token=OWNER_TOKEN)).status == 409
    answer = await api.ask("POST", "/v1/admin/admins", {}, token=OWNER_TOKEN)
    assert {"email", "password"} <= set(answer.json["details"])


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
            "username",
            "interests",
            "role",
            "application_id",
            "key",
            "value",
            "password",
            "disabled",
            "roles",
        ]
    ),
    JSON,
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(bodies=st.lists(JSON | FIELDS, min_size=4, max_size=4))
async def test_no_body_makes_the_node_stumble(bodies: Any) -> None:
    async with running() as api:
        user, token = await api.sign_up()
        for body in bodies:
            for method, path in (
                ("PUT", "/v1/users/me"),
                ("POST", "/v1/users"),
                ("POST", "/v1/users/me/data"),
                ("POST", f"/v1/users/{user}/roles"),
                ("POST", f"/v1/users/{user}/interests"),
                ("POST", "/v1/admin/admins"),
                ("PUT", f"/v1/admin/users/{user}"),
                ("POST", f"/v1/admin/users/{user}/password"),
            ):
                for by in (token, OWNER_TOKEN):
                    answer = await api.ask(method, path, body, token=by)
                    assert answer.status in (200, 201, 400, 401, 403, 409, 415, 429), (path, body, answer)
        assert (await api.ask("GET", "/v1/users", token=OWNER_TOKEN)).status == 200
