"""A second factor: enabling, verifying and disabling it (seed S1, "Multi-factor Authentication").

Room: translates `/v1/auth/mfa/…` to the service `mfa` and back, and draws the QR code. Signing in with a
code is `auth`'s.
"""

import asyncio
from typing import Any

import msgspec
from aiohttp import web

from node.api.civicbase.account_views import (
    GIVEN,
    MESSAGE,
    TEXT,
    TEXTS,
    AccountDeps,
    schema,
    signed_in_account,
    source_of,
)
from node.api.civicbase.auth import ACCEPTS_NO_BODY, BODY_MAX_BYTES, SECRET, text_faults
from node.api.errors import ValidationFailed
from node.api.replies import Reply, json_response
from node.api.requests import read_json
from node.api.routes import CALLER, KeyAccess, Route
from node.services.accounts import Account

TAGS = ("Authentication",)
_BOTH = schema("password code", password=GIVEN, code=GIVEN | {"description": "a TOTP or a recovery code"})
_PIXELS = 5  # a module's side


def routes(deps: AccountDeps) -> list[Route]:
    """The routes under `/v1/auth/mfa`."""
    identity = deps.identity

    async def enable(request: web.Request) -> web.StreamResponse:
        enrolment = await identity.mfa.enable(signed_in_account(identity, request[CALLER]))
        picture = await asyncio.to_thread(_qr_code, enrolment.uri)  # 45 ms
        return _secret(
            {
                "secret": enrolment.secret,
                "qr_code": picture,
                "recovery_codes": list(enrolment.recovery_codes),
            }
        )

    async def verify(request: web.Request) -> web.StreamResponse:
        account = signed_in_account(identity, request[CALLER])
        body = await read_json(request)
        if faults := text_faults(code=body.get("code")):
            raise ValidationFailed(faults)
        await identity.mfa.verify(account, body["code"], source_of(request))
        return json_response({"message": "MFA verified successfully"})

    async def disable(request: web.Request) -> web.StreamResponse:
        account = await _confirmed(request)
        await identity.mfa.disable(account.application, account.id, by=account.id)
        return json_response({"message": "MFA disabled successfully"})

    async def renew_codes(request: web.Request) -> web.StreamResponse:
        account = await _confirmed(request)
        codes = await identity.mfa.renew_codes(account.application, account.id)
        return _secret({"recovery_codes": list(codes)})

    async def _confirmed(request: web.Request) -> Account:
        """The caller's account, by both factors in the body."""
        account = signed_in_account(identity, request[CALLER])
        body = await read_json(request)
        password, code = body.get("password"), body.get("code")
        if faults := text_faults(password=password, code=code):
            raise ValidationFailed(faults)
        await identity.accounts.confirm_all(account, str(password), str(code), source_of(request))
        return account

    return [
        Route(
            "POST",
            "/v1/auth/mfa/enable",
            enable,
            "Begin with MFA: a secret for an authenticator app",
            key_access=KeyAccess.NONE,
            responses={
                200: schema("secret qr_code recovery_codes", secret=TEXT, qr_code=TEXT, recovery_codes=TEXTS)
            },
            tags=TAGS,
            accepts=ACCEPTS_NO_BODY,
            body_max_bytes=BODY_MAX_BYTES,
            description=(
                "`qr_code` is a PNG as a data URI. Signing in asks for a code once `verify` has seen one, within "
                "an hour; from then on each recovery code stands in for a TOTP once. They are not shown again."
            ),
        ),
        Route(
            "POST",
            "/v1/auth/mfa/verify",
            verify,
            "Put MFA in force by a first code; later, check a code",
            key_access=KeyAccess.NONE,
            request=schema("code", code=GIVEN),
            responses={200: MESSAGE},
            tags=TAGS,
            body_max_bytes=BODY_MAX_BYTES,
        ),
        Route(
            "POST",
            "/v1/auth/mfa/disable",
            disable,
            "End MFA, by password and code",
            key_access=KeyAccess.NONE,
            request=_BOTH,
            responses={200: MESSAGE},
            tags=TAGS,
            body_max_bytes=BODY_MAX_BYTES,
        ),
        Route(
            "POST",
            "/v1/auth/mfa/recovery-codes",
            renew_codes,
            "New recovery codes; those before count no more",
            key_access=KeyAccess.NONE,
            request=_BOTH,
            responses={200: schema("recovery_codes", recovery_codes=TEXTS)},
            tags=TAGS,
            body_max_bytes=BODY_MAX_BYTES,
        ),
    ]


def _secret(body: dict[str, Any]) -> web.StreamResponse:
    return Reply(msgspec.json.encode(body), kind=SECRET)


def _qr_code(text: str) -> str:
    import segno

    return segno.make(text, micro=False).png_data_uri(scale=_PIXELS)
