"""Registration, sign-in and tokens (seed S1, "User Management and Authentication").

Room: translates `/v1/auth/…` to the services of accounts and back.
"""

import msgspec
from aiohttp import web

from node.api.civicbase.account_views import (
    APPLICATION,
    EMAIL,
    FLAG,
    GIVEN,
    MADE,
    MESSAGE,
    PASSWORD,
    TEXT,
    USERNAME,
    AccountDeps,
    Json,
    application_of,
    own_account,
    schema,
    signed_in_account,
    source_of,
)
from node.api.errors import Forbidden, Unauthorized, ValidationFailed
from node.api.replies import Reply, json_response, kind
from node.api.requests import parse_json, read_body, read_json
from node.api.routes import CALLER, JSON_ONLY, Auth, KeyAccess, Route
from node.services.account_rules import REQUIRED
from node.services.accounts import registration_faults
from node.services.sessions import Grant

TAGS = ("Authentication",)
BODY_MAX_BYTES = 16 * 1024
# For routes that need no body: what aiohttp's client says of a POST without one.
ACCEPTS_NO_BODY = (*JSON_ONLY, "application/octet-stream")

MFA_CODE: Json = {"type": ["string", "null"], "description": "a TOTP or a recovery code"}
SECRET = kind("application/json", cache="no-store")

GRANT = schema("token expires_in", token=TEXT, expires_in={"type": "integer"}, refresh_token=TEXT)


def routes(deps: AccountDeps) -> list[Route]:
    """The routes under `/v1/auth`."""
    identity = deps.identity

    async def register(request: web.Request) -> web.StreamResponse:
        body = await read_json(request)
        email, username, password = body.get("email"), body.get("username"), body.get("password")
        faults = registration_faults(email, username, password)
        application = application_of(body, faults)
        if faults:
            raise ValidationFailed(faults)
        account = await identity.accounts.register(
            application, email=email, username=username, password=password
        )
        return json_response({"message": "User registered successfully", "user_id": account.id}, 201)

    async def login(request: web.Request) -> web.StreamResponse:
        body = await read_json(request)
        email, password = body.get("email"), body.get("password")
        faults = text_faults(email=email, password=password)
        mfa_code = _mfa_code(body, faults)
        application = application_of(body, faults)
        if faults:
            raise ValidationFailed(faults)
        account = await identity.accounts.prove(
            application, str(email), str(password), source_of(request), mfa_code=mfa_code
        )
        return _granted(await identity.sessions.start(account))

    async def refresh(request: web.Request) -> web.StreamResponse:
        raw = await read_body(request)
        body = parse_json(raw) if raw else {}
        refresh_token = body.get("refresh_token")
        if refresh_token is not None:
            faults = text_faults(refresh_token=refresh_token)
            if faults:
                raise ValidationFailed(faults)
            return _granted(await identity.sessions.refresh(str(refresh_token)))
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Unauthorized(
                "Send the expired token as Authorization: Bearer, or a refresh_token in the body"
            )
        return _granted(await identity.sessions.exchange(token.strip()))

    async def logout(request: web.Request) -> web.StreamResponse:
        caller = request[CALLER]
        raw = await read_body(request)
        everywhere = parse_json(raw).get("everywhere", False) if raw else False
        if not isinstance(everywhere, bool):
            raise ValidationFailed({"everywhere": "Must be true or false"})
        if everywhere:
            await identity.accounts.end_all(signed_in_account(identity, caller))
            return json_response({"message": "Signed out successfully, everywhere"})
        if caller.session_id is None or caller.user_id is None:
            raise Forbidden("This token belongs to no session that could be ended")
        await identity.sessions.end(caller.session_id, user=caller.user_id, application=caller.application)
        return json_response({"message": "Signed out successfully"})

    async def password(request: web.Request) -> web.StreamResponse:
        caller = request[CALLER]
        account = own_account(identity, caller)
        body = await read_json(request)
        await identity.accounts.change_password(
            account,
            body.get("current_password"),
            body.get("new_password"),
            session=caller.session_id,
            source=source_of(request),
        )
        return json_response({"message": "Password changed successfully"})

    async def recovery_code(request: web.Request) -> web.StreamResponse:
        account = own_account(identity, request[CALLER])
        password = (await read_json(request)).get("password")
        code = await identity.accounts.new_recovery_code(account, password, source_of(request))
        return Reply(msgspec.json.encode({"recovery_code": code}), kind=SECRET)

    async def recover(request: web.Request) -> web.StreamResponse:
        body = await read_json(request)
        email, code, new = body.get("email"), body.get("recovery_code"), body.get("new_password")
        faults = text_faults(email=email, recovery_code=code, new_password=new)
        mfa_code = _mfa_code(body, faults)
        application = application_of(body, faults)
        if faults:
            raise ValidationFailed(faults)
        account = await identity.accounts.recover(
            application, str(email), str(code), new, source_of(request), mfa_code=mfa_code
        )
        return _granted(await identity.sessions.start(account))

    return [
        Route(
            "POST",
            "/v1/auth/recovery-code",
            recovery_code,
            "Get a recovery code for the own account, shown once",
            request=schema("password", password=GIVEN),
            responses={200: schema("recovery_code", recovery_code=TEXT)},
            tags=TAGS,
            body_max_bytes=BODY_MAX_BYTES,
            description="Keep it where the password is not. It opens what is encrypted for you; nobody else can.",
        ),
        Route(
            "POST",
            "/v1/auth/recover",
            recover,
            "Set a new password by the recovery code, and sign in",
            auth=Auth.NONE,
            request=schema(
                "email recovery_code new_password",
                email=GIVEN,
                recovery_code=GIVEN,
                new_password=PASSWORD,
                application_id=APPLICATION,
                mfa_code=MFA_CODE,
            ),
            responses={200: GRANT},
            tags=TAGS,
            body_max_bytes=BODY_MAX_BYTES,
        ),
        Route(
            "POST",
            "/v1/auth/register",
            register,
            "Register a user",
            auth=Auth.NONE,
            request=schema(
                "email password username",
                email=EMAIL,
                password=PASSWORD,
                username=USERNAME,
                application_id=APPLICATION,
            ),
            responses={201: MADE},
            tags=TAGS,
            body_max_bytes=BODY_MAX_BYTES,
        ),
        Route(
            "POST",
            "/v1/auth/login",
            login,
            "Sign in",
            auth=Auth.NONE,
            request=schema(
                "email password",
                email=GIVEN,
                password=GIVEN,
                application_id=APPLICATION,
                mfa_code=MFA_CODE,
            ),
            responses={200: GRANT},
            tags=TAGS,
            body_max_bytes=BODY_MAX_BYTES,
            description=(
                "Repeated failures are slowed down, per account and per source: 429 says how long. For an "
                "account with MFA, 401 `AUTH_MFA_REQUIRED` asks for `mfa_code`; a code counts once."
            ),
        ),
        Route(
            "POST",
            "/v1/auth/refresh",
            refresh,
            "Get a new token",
            auth=Auth.NONE,
            request=schema(refresh_token={"type": ["string", "null"], "minLength": 1}),
            body_optional=True,
            responses={200: GRANT},
            tags=TAGS,
            accepts=ACCEPTS_NO_BODY,
            body_max_bytes=BODY_MAX_BYTES,
            description=(
                "Either `Authorization: Bearer <expired token>`, once per token and up to 7 days after it "
                "expired, or `refresh_token` in the body, which is replaced by the one in the answer. Asked "
                "again within 30 s, the answer is the same; a replaced token used later ends the session."
            ),
        ),
        Route(
            "POST",
            "/v1/auth/logout",
            logout,
            "Sign out: end the session, on every node",
            key_access=KeyAccess.NONE,
            request=schema(everywhere=FLAG),
            description="With `everywhere`, every session and API key of the user ends.",
            responses={200: MESSAGE},
            tags=TAGS,
            accepts=ACCEPTS_NO_BODY,
            body_max_bytes=BODY_MAX_BYTES,
        ),
        Route(
            "POST",
            "/v1/auth/password",
            password,
            "Change the own password; other sessions end",
            key_access=KeyAccess.NONE,
            request=schema("current_password new_password", current_password=GIVEN, new_password=PASSWORD),
            responses={200: MESSAGE},
            tags=TAGS,
            body_max_bytes=BODY_MAX_BYTES,
        ),
    ]


def _mfa_code(body: Json, faults: dict[str, str]) -> str | None:
    """The second factor in a body, if there is one."""
    mfa_code = body.get("mfa_code")
    if not isinstance(mfa_code, str | None):
        faults["mfa_code"] = "Must be a string"
        return None
    return mfa_code or None


def _granted(grant: Grant) -> web.StreamResponse:
    body: Json = {"token": grant.token, "expires_in": grant.expires_in_s}
    if grant.refresh_token is not None:
        body["refresh_token"] = grant.refresh_token
    return Reply(msgspec.json.encode(body), kind=SECRET)


def text_faults(**values: object) -> dict[str, str]:
    """What is wrong with members of a body that must be texts and not empty."""
    return {
        name: "Must be a string" if value else REQUIRED
        for name, value in values.items()
        if not value or not isinstance(value, str)
    }
