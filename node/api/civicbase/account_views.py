"""How accounts look in CivicBase: bodies in, bodies out.

Room: the shapes shared by the routes about accounts, and what those routes need of the node.
Nothing here asks who may see what; the routes choose the view.
"""

from collections.abc import Callable
from typing import Any, Protocol

from aiohttp import web

from node.api.errors import Forbidden
from node.api.openapi import PRINTABLE
from node.api.routes import Caller
from node.services.account_models import ADMIN_ROLE
from node.services.account_rules import USERNAME_MAX, check_application
from node.services.accounts import Account
from node.services.identity import Identity
from node.services.lockout import Source
from node.services.permissions import Ruled
from protocol.times import datetime_from_ms

Json = dict[str, Any]


class AccountDeps(Protocol):
    """What the routes about accounts need of the node."""

    @property
    def identity(self) -> Identity: ...

    @property
    def find_model(self) -> Callable[[str, str], Ruled | None]:
        """The model of (application, name or id), or None."""


def source_of(request: web.Request) -> Source:
    """Where a request comes from, for counting failed sign-ins."""
    return Source.of(request.remote, request.headers.get("Origin"))


def application_of(body: Json, faults: dict[str, str]) -> str:
    """The application that a body names; a fault is added to `faults`."""
    application, fault = check_application(body.get("application_id"))
    if fault:
        faults["application_id"] = fault
        return ""
    return str(application)


def acting_user(caller: Caller) -> str:
    """The caller of a route that needs one."""
    assert caller.user_id is not None  # the frame lets nobody else in
    return caller.user_id


def own_account(identity: Identity, caller: Caller) -> Account:
    """The caller's account. Raises Forbidden for the owner token, which has none."""
    if caller.is_owner:
        raise Forbidden("The owner token has no account of its own; sign in as a user")
    return identity.accounts.require(caller.application, acting_user(caller))


def signed_in_account(identity: Identity, caller: Caller) -> Account:
    """The caller's account, for what outlives a token. Raises Forbidden for the owner token, and for one that a
    backend has made with the shared secret: it counts on this node, and what it would set up on every node."""
    account = own_account(identity, caller)
    if caller.issuer is None:
        raise Forbidden("This token was made with a shared secret: sign in at a node to do this")
    return account


def account_meant(request: web.Request, caller: Caller) -> str:
    """The user id in the path, with `me` for the caller. Raises Forbidden for someone else's, but
    to administrators."""
    user = request.match_info["id"]
    if user == "me":
        return acting_user(caller)
    if user != caller.user_id and not caller.is_admin:
        raise Forbidden("Only administrators may do this for other users")
    return user


def profile_view(account: Account) -> Json:
    """An account as its owner sees it: free fields first, so that none can pose as a real one."""
    return {
        **account.profile,
        "id": account.id,
        "user_id": account.id,
        "application_id": account.application,
        "email": account.email,
        "username": account.username,
        "interests": list(account.interests),
        "roles": sorted(account.roles),
        "is_admin": account.is_admin,
        "mfa_enabled": account.mfa is not None,
        "mfa_recovery_codes_left": 0 if account.mfa is None else account.mfa.recovery_codes_left,
        "created_at": datetime_from_ms(account.created_at_ms),
        "updated_at": datetime_from_ms(account.updated_at_ms),
    }


def public_view(account: Account) -> Json:
    """An account as any other user of the application sees it."""
    return {
        "id": account.id,
        "user_id": account.id,
        "username": account.username,
        "created_at": datetime_from_ms(account.created_at_ms),
    }


def admin_view(account: Account) -> Json:
    """An account as administrators see it."""
    return {
        **public_view(account),
        "application_id": account.application,
        "email": account.email,
        "roles": sorted(account.roles),
        "is_admin": account.is_admin,
        "disabled": account.is_disabled,
        "has_password": account.verifier is not None,
        "mfa_enabled": account.mfa is not None,
        "updated_at": datetime_from_ms(account.updated_at_ms),
    }


def owner_view(caller: Caller) -> Json:
    """The owner token's stand-in for a profile."""
    return {
        "id": caller.user_id,
        "user_id": caller.user_id,
        "application_id": caller.application,
        "email": None,
        "username": caller.user_id,
        "interests": [],
        "roles": [ADMIN_ROLE],
        "is_admin": True,
        "mfa_enabled": False,
        "mfa_recovery_codes_left": 0,
    }


# -- JSON schemas, for the API's description ---------------------------------------------------


def schema(required: str = "", **properties: Json) -> Json:
    """An object with these properties; `required` names those that must be there."""
    described: Json = {"type": "object", "properties": properties}
    if required:
        described["required"] = required.split()
    return described


TEXT: Json = {"type": "string"}
EMAIL: Json = {"type": "string", "format": "email", "maxLength": 254}
PASSWORD: Json = {"type": "string", "format": "password", "minLength": 8, "maxLength": 1024}
GIVEN: Json = {"type": "string", "minLength": 1}
PRINTABLE_TEXT: Json = {"$ref": f"#/components/schemas/{PRINTABLE}", "minLength": 1}
USERNAME: Json = PRINTABLE_TEXT | {"maxLength": USERNAME_MAX, "pattern": "[^ ]"}
APPLICATION: Json = {"type": ["string", "null"], "pattern": "^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"}
ROLE: Json = {"type": "string", "pattern": "^[A-Za-z][A-Za-z0-9_-]{0,31}$"}
TIME: Json = {"type": "string", "format": "date-time"}
FLAG: Json = {"type": "boolean"}
COUNT: Json = {"type": "integer", "minimum": 0}
TEXTS: Json = {"type": "array", "items": TEXT}

MESSAGE = schema("message", message=TEXT)
MADE = schema("message user_id", message=TEXT, user_id=TEXT)
PROFILE = schema(
    "id user_id application_id email username interests roles is_admin mfa_enabled mfa_recovery_codes_left",
    id=TEXT,
    user_id=TEXT,
    application_id=TEXT,
    email={"type": ["string", "null"]},
    username=TEXT,
    interests=TEXTS,
    roles=TEXTS,
    is_admin=FLAG,
    mfa_enabled=FLAG,
    mfa_recovery_codes_left=COUNT,
    created_at=TIME,
    updated_at=TIME,
)
PUBLIC = schema("id user_id username created_at", id=TEXT, user_id=TEXT, username=TEXT, created_at=TIME)
ADMIN = schema(
    "id user_id username email roles is_admin disabled has_password mfa_enabled",
    id=TEXT,
    user_id=TEXT,
    application_id=TEXT,
    username=TEXT,
    email=TEXT,
    roles=TEXTS,
    is_admin=FLAG,
    disabled=FLAG,
    has_password=FLAG,
    mfa_enabled=FLAG,
    created_at=TIME,
    updated_at=TIME,
)
