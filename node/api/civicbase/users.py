"""Users, their profiles, roles, interests and what applications keep about them (seed S1).

Room: translates `/v1/users…` to the services of accounts and back, and decides who may see which
view of an account: oneself and administrators all of it, other users a name.
"""

from aiohttp import web

from node.api.civicbase.account_views import (
    ADMIN,
    APPLICATION,
    EMAIL,
    FLAG,
    GIVEN,
    MADE,
    MESSAGE,
    PRINTABLE_TEXT,
    PROFILE,
    PUBLIC,
    ROLE,
    TEXT,
    TEXTS,
    USERNAME,
    AccountDeps,
    account_meant,
    acting_user,
    admin_view,
    application_of,
    own_account,
    owner_view,
    profile_view,
    public_view,
    schema,
    source_of,
)
from node.api.civicbase.paging import paging, read_paging
from node.api.errors import Forbidden, ValidationFailed
from node.api.replies import json_response
from node.api.requests import read_json, read_query
from node.api.routes import CALLER, Auth, Caller, Route
from node.services.account_rules import (
    DATA_KEY_MAX,
    INTEREST_MAX,
    INTERESTS_MAX,
    REQUIRED,
    check_role,
)
from node.services.recommendations import TOP_N_DEFAULT, TOP_N_MAX
from protocol.query import PER_PAGE_MAX, read_whole
from protocol.schema_rules import ACTIONS

TAGS = ("Users",)

# What the seed's "write" stands for: changing the data of a model in one way or the other.
QUESTIONS = {**{action: (action,) for action in ACTIONS}, "write": ("create", "update")}


_WORD = {"type": "string", "maxLength": INTEREST_MAX, "$ref": PRINTABLE_TEXT["$ref"]}
_INTERESTS = {
    "anyOf": [
        {"$ref": PRINTABLE_TEXT["$ref"], "maxLength": INTEREST_MAX, "pattern": "[^ ,]"},
        {
            "type": "array",
            "items": _WORD,
            "contains": {"type": "string", "pattern": "[^ ]"},
            "maxItems": INTERESTS_MAX,
        },
    ]
}


def routes(deps: AccountDeps) -> list[Route]:
    """The routes under `/v1/users`."""
    identity = deps.identity
    accounts, profiles = identity.accounts, identity.profiles

    async def read_me(request: web.Request) -> web.StreamResponse:
        caller = request[CALLER]
        if caller.is_owner:
            return json_response(owner_view(caller))
        return json_response(profile_view(own_account(identity, caller)))

    async def update_me(request: web.Request) -> web.StreamResponse:
        account = own_account(identity, request[CALLER])
        changes = await read_json(request)
        updated = await profiles.update(account, changes, profile_view(account), source=source_of(request))
        return json_response(profile_view(updated))

    async def list_users(request: web.Request) -> web.StreamResponse:
        caller = request[CALLER]
        faults: dict[str, str] = {}
        page, per_page = read_paging(read_query(request), faults, PER_PAGE_MAX)
        if faults:
            raise ValidationFailed(faults)
        found, total = await accounts.page(
            caller.application, page=page, per_page=per_page, with_disabled=caller.is_admin
        )
        view = admin_view if caller.is_admin else public_view
        return json_response([view(account) for account in found], headers={"X-Total-Count": str(total)})

    async def create_user(request: web.Request) -> web.StreamResponse:
        caller = request[CALLER]
        body = await read_json(request)
        account = await accounts.create(
            caller.application,
            email=body.get("email"),
            username=body.get("username"),
            user=acting_user(caller),
        )
        return json_response({"message": "User created successfully", "user_id": account.id}, 201)

    async def put_data(request: web.Request) -> web.StreamResponse:
        caller = request[CALLER]
        body = await read_json(request)
        await profiles.put_data(caller.application, acting_user(caller), body)
        return json_response({"message": "Custom data stored successfully"})

    async def get_data(request: web.Request) -> web.StreamResponse:
        caller = request[CALLER]
        key = request.match_info["key"]
        value = profiles.get_data(caller.application, acting_user(caller), key)
        return json_response({"key": key, "value": value})

    async def permitted(request: web.Request) -> web.StreamResponse:
        caller = request[CALLER]
        query = read_query(request)
        faults = {name: REQUIRED for name in ("action", "resource") if not query.get(name)}
        action = query.get("action", "")
        if action and action not in QUESTIONS:
            faults["action"] = f"Invalid option. Must be one of: {', '.join(QUESTIONS)}"
        if faults:
            raise ValidationFailed(faults)
        model = deps.find_model(caller.application, query["resource"])
        answer = model is not None and any(
            identity.permissions.may_ever(caller, model, asked) for asked in QUESTIONS[action]
        )
        return json_response({"permitted": answer})

    async def assign_role(request: web.Request) -> web.StreamResponse:
        caller = request[CALLER]
        body = await read_json(request)
        fault = check_role(body.get("role"))[1]
        faults = {"role": fault} if fault else {}
        application = caller.application
        if body.get("application_id") is not None:
            application = application_of(body, faults)
        if faults:
            raise ValidationFailed(faults)
        _stay_within(caller, application)
        user = account_meant(request, caller)
        await accounts.grant_role(application, user, body["role"], user=acting_user(caller))
        return json_response({"message": "Role assigned successfully"})

    async def remove_role(request: web.Request) -> web.StreamResponse:
        caller = request[CALLER]
        await accounts.withdraw_role(
            caller.application,
            account_meant(request, caller),
            request.match_info["role"],
            user=acting_user(caller),
        )
        return json_response({"message": "Role removed successfully"})

    async def add_interests(request: web.Request) -> web.StreamResponse:
        caller = request[CALLER]
        body = await read_json(request)
        await profiles.add_interests(
            caller.application,
            account_meant(request, caller),
            body.get("interests"),
            user=acting_user(caller),
        )
        return json_response({"message": "Interests added successfully"})

    async def recommend(request: web.Request) -> web.StreamResponse:
        caller = request[CALLER]
        faults: dict[str, str] = {}
        top_n = read_whole(read_query(request), "top_n", TOP_N_DEFAULT, TOP_N_MAX, faults)
        if faults:
            raise ValidationFailed(faults)
        account = accounts.require(caller.application, account_meant(request, caller))
        return json_response(
            [
                {
                    "user_id": found.user,
                    "username": found.username,
                    "score": found.score,
                    "shared_interests": list(found.shared_interests),
                }
                for found in await identity.recommendations.for_user(account, top_n)
            ]
        )

    return [
        Route("GET", "/v1/users/me", read_me, "Read the own profile", responses={200: PROFILE}, tags=TAGS),
        Route(
            "PUT",
            "/v1/users/me",
            update_me,
            "Change the own profile",
            request=schema(
                username=USERNAME,
                email=EMAIL,
                current_password=TEXT,
                interests={"anyOf": [_INTERESTS, {"enum": ["", None]}, TEXTS | {"maxItems": 0}]},
            )
            | {
                "additionalProperties": True,
                "dependentSchemas": {"email": schema("current_password", current_password=GIVEN)},
            },
            responses={200: PROFILE},
            tags=TAGS,
            description=(
                "Only the given fields change. Fields of any other name are kept as they are, null removes "
                "them. A new `email` needs `current_password`."
            ),
        ),
        Route(
            "GET",
            "/v1/users",
            list_users,
            "List the users of the application, oldest first",
            query=paging(PER_PAGE_MAX),
            responses={200: {"type": "array", "items": {"anyOf": [ADMIN, PUBLIC]}}},
            tags=TAGS,
            description="Administrators see e-mail addresses and roles. `X-Total-Count` is their number.",
        ),
        Route(
            "POST",
            "/v1/users",
            create_user,
            "Make an account that can sign in once a password is set",
            auth=Auth.ADMIN,
            request=schema("username email", username=USERNAME, email=EMAIL),
            responses={201: MADE},
            tags=TAGS,
        ),
        Route(
            "POST",
            "/v1/users/me/data",
            put_data,
            "Keep a value under a key",
            request=schema("key value", key=PRINTABLE_TEXT | {"maxLength": DATA_KEY_MAX}, value={}),
            responses={200: MESSAGE},
            tags=TAGS,
        ),
        Route(
            "GET",
            "/v1/users/me/data/{key}",
            get_data,
            "Read the value kept under a key",
            responses={200: schema("key value", key=TEXT, value={})},
            tags=TAGS,
        ),
        Route(
            "GET",
            "/v1/users/me/permissions",
            permitted,
            "Ask whether one may do something to a model's data",
            query={
                "action": TEXT | {"enum": list(QUESTIONS), "required": True},
                "resource": GIVEN | {"required": True},
            },
            responses={200: schema("permitted", permitted=FLAG)},
            tags=TAGS,
            description="What holds for one's own documents counts as permitted; `write` is create or update",
        ),
        Route(
            "POST",
            "/v1/users/{id}/roles",
            assign_role,
            "Give a user a role; `admin` makes an administrator",
            auth=Auth.ADMIN,
            request=schema("role", role=ROLE, application_id=APPLICATION),
            responses={200: MESSAGE},
            tags=TAGS,
            description=(
                "An administrator has rights under a password only that an administrator's device has stood for: "
                "`admin`, given again, stands for the one that the account has now."
            ),
        ),
        Route(
            "DELETE",
            "/v1/users/{id}/roles/{role}",
            remove_role,
            "Take a role from a user",
            auth=Auth.ADMIN,
            responses={200: MESSAGE},
            tags=TAGS,
        ),
        Route(
            "POST",
            "/v1/users/{id}/interests",
            add_interests,
            "Add to a user's interests: words parted by commas, or a list",
            request=schema("interests", interests=_INTERESTS),
            responses={200: MESSAGE},
            tags=TAGS,
        ),
        Route(
            "GET",
            "/v1/users/{id}/recommendations",
            recommend,
            "Users with similar interests, most similar first",
            query={
                "top_n": {"type": "integer", "minimum": 1, "maximum": TOP_N_MAX, "default": TOP_N_DEFAULT}
            },
            responses={
                200: {
                    "type": "array",
                    "items": schema(
                        "user_id username score shared_interests",
                        user_id=TEXT,
                        username=TEXT,
                        score={"type": "number", "minimum": 0, "maximum": 1},
                        shared_interests=TEXTS,
                    ),
                }
            },
            tags=TAGS,
        ),
    ]


def _stay_within(caller: Caller, application: str) -> None:
    """An administrator administers one application; the owner all of them."""
    if application != caller.application and not caller.is_owner:
        raise Forbidden("Administrators act within their own application")
