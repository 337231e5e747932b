"""API keys: making, listing and revoking them.

Room: translates `/v1/api-keys` to the service `api_keys` and back. What a key opens is checked by the frame and
by `services.permissions`.
"""

import msgspec
from aiohttp import web

from node.api.civicbase.account_views import (
    PRINTABLE_TEXT,
    TEXT,
    TIME,
    AccountDeps,
    Json,
    own_account,
    schema,
    signed_in_account,
)
from node.api.civicbase.auth import BODY_MAX_BYTES, SECRET
from node.api.errors import Forbidden, NotFound
from node.api.replies import Reply, json_response
from node.api.requests import read_json, read_query
from node.api.routes import CALLER, KeyAccess, Route
from node.services.api_keys import KEYS_MAX, LIFETIME_MAX_S, LIFETIME_MIN_S, NAME_MAX, ApiKey, ApiKeys
from node.services.scopes import PATTERN, SCOPES_MAX
from protocol.times import datetime_from_ms

TAGS = ("Authentication",)

_TIME_OR_NULL: Json = {"type": ["string", "null"], "format": "date-time"}
_SCOPES: Json = {
    "type": "array",
    "items": {"type": "string", "pattern": PATTERN},
    "minItems": 1,
    "maxItems": SCOPES_MAX,
}
_FIELDS: Json = {
    "id": TEXT,
    "name": TEXT,
    "scopes": _SCOPES,
    "user_id": TEXT,
    "created_at": TIME,
    "expires_at": _TIME_OR_NULL,
    "last_used_at": _TIME_OR_NULL,
}
_REQUIRED = "id name scopes user_id created_at expires_at last_used_at"
KEY = schema(_REQUIRED, **_FIELDS)
_NOTE = """Send the key as `Authorization: Bearer <key>` or `X-API-Key: <key>`. It acts as its user, within its scopes:
`read` (GET), `write` (everything else), `data:MODEL:read` and `data:MODEL:write` (the data of one model, or of all by
`*`), `admin` (only administrators give it, on an administrator's device). No key opens what belongs to a person who is
signed in: passwords, MFA, sessions and API keys. `api_key` is shown once."""


def routes(deps: AccountDeps) -> list[Route]:
    """The routes under `/v1/api-keys`."""
    identity, keys = deps.identity, deps.identity.api_keys

    async def create(request: web.Request) -> web.StreamResponse:
        caller = request[CALLER]
        account = signed_in_account(identity, caller)
        body = await read_json(request)
        key, text = await keys.create(
            account,
            name=body.get("name"),
            scopes=body.get("scopes"),
            expires_at=body.get("expires_at"),
            expires_in=body.get("expires_in"),
            is_admin=caller.is_admin,
        )
        return Reply(msgspec.json.encode(_view(key, keys) | {"api_key": text}), 201, kind=SECRET)

    async def list_keys(request: web.Request) -> web.StreamResponse:
        caller = request[CALLER]
        user = read_query(request).get("user_id")
        if user is None:
            user = own_account(identity, caller).id
        elif user != caller.user_id and not caller.is_admin:
            raise Forbidden("Only administrators see the API keys of others")
        found = await keys.of_user(caller.application, user)
        return json_response({"items": [_view(key, keys) for key in found], "total": len(found)})

    async def revoke(request: web.Request) -> web.StreamResponse:
        caller = request[CALLER]
        key = keys.get(caller.application, request.match_info["id"])
        if key.user != caller.user_id and not caller.is_admin:
            raise NotFound("There is no such API key")
        await keys.revoke(key, user=caller.user_id or "")
        return Reply(status=204)

    return [
        Route(
            "POST",
            "/v1/api-keys",
            create,
            "Make an API key",
            key_access=KeyAccess.NONE,
            request=schema(
                "name scopes",
                name=PRINTABLE_TEXT | {"maxLength": NAME_MAX},
                scopes=_SCOPES,
                expires_at=_TIME_OR_NULL,
                expires_in={
                    "type": ["integer", "null"],
                    "minimum": LIFETIME_MIN_S,
                    "maximum": LIFETIME_MAX_S,
                    "description": "seconds; without either, the key never expires",
                },
            ),
            responses={201: schema(_REQUIRED + " api_key", **_FIELDS, api_key=TEXT)},
            tags=TAGS,
            body_max_bytes=BODY_MAX_BYTES,
            description=_NOTE,
        ),
        Route(
            "GET",
            "/v1/api-keys",
            list_keys,
            "List one's API keys, oldest first",
            key_access=KeyAccess.NONE,
            query={"user_id": TEXT | {"description": "another user's, for administrators"}},
            responses={
                200: schema(
                    "items total",
                    items={"type": "array", "items": KEY},
                    total={"type": "integer", "minimum": 0, "maximum": 2 * KEYS_MAX},
                )
            },
            tags=TAGS,
            description="`last_used_at` is what this node knows; a key may be in use on others.",
        ),
        Route(
            "DELETE",
            "/v1/api-keys/{id}",
            revoke,
            "Revoke an API key, on every node",
            key_access=KeyAccess.NONE,
            responses={204: None},
            tags=TAGS,
            description=(
                "Administrators may revoke anybody's. A key of an administrator, or with the scope `admin`, is made "
                "and revoked on an administrator's device."
            ),
        ),
    ]


def _view(key: ApiKey, keys: ApiKeys) -> Json:
    used_ms = keys.last_used_ms(key)
    return {
        "id": key.id,
        "name": key.name,
        "scopes": list(key.scopes.words),
        "user_id": key.user,
        "created_at": datetime_from_ms(key.created_at_ms),
        "expires_at": None if key.expires_ms is None else datetime_from_ms(key.expires_ms),
        "last_used_at": None if used_ms is None else datetime_from_ms(used_ms),
    }
