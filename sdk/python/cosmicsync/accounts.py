"""Accounts: registering, signing in, and the profile of who is signed in.

Room: `/v1/auth` and `/v1/users`. Tokens are kept and renewed by `transport`.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from cosmicsync.errors import MfaRequired
from cosmicsync.transport import Tokens, Transport, tokens_of


class Accounts:
    """One client's sign-in. A new token is fetched before the old one ends, and when it is refused."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    @property
    def tokens(self) -> Tokens | None:
        """What requests are made with; keep it to stay signed in across a restart."""
        return self._transport.tokens

    def use(self, tokens: Tokens | None) -> None:
        """Go on with tokens that were kept."""
        self._transport.take_tokens(tokens)

    async def register(
        self, *, email: str, password: str, username: str, application_id: str | None = None
    ) -> dict[str, Any]:
        """-> `user_id`, `message`."""
        asked = {"email": email, "password": password, "username": username}
        answer = await self._transport.ask(
            "POST", "/v1/auth/register", _with(asked, application_id), signed=False
        )
        return dict(answer.body)

    async def login(
        self,
        *,
        email: str,
        password: str,
        application_id: str | None = None,
        mfa_code: str | Callable[[], Any] | None = None,
    ) -> dict[str, Any]:
        """-> `token`, `expires_in`, `refresh_token`. `mfa_code` may be a function that asks for one when it is
        needed. Raises `MfaRequired`, `Unauthorized`, `RateLimited`."""
        asked = _with({"email": email, "password": password}, application_id)
        if isinstance(mfa_code, str):
            asked["mfa_code"] = mfa_code
        try:
            answer = await self._transport.ask("POST", "/v1/auth/login", asked, signed=False)
        except MfaRequired:
            if not callable(mfa_code):
                raise
            code = mfa_code()
            asked["mfa_code"] = await code if inspect.isawaitable(code) else code
            answer = await self._transport.ask("POST", "/v1/auth/login", asked, signed=False)
        self._transport.take_tokens(tokens_of(answer.body))
        return dict(answer.body)

    async def refresh(self) -> bool:
        """Get a new token now. False if the node gives none any more: sign in again."""
        return await self._transport.refresh()

    async def logout(self) -> None:
        """End the session, on every node. The tokens are forgotten whatever the node says."""
        try:
            await self._transport.ask("POST", "/v1/auth/logout")
        finally:
            self._transport.take_tokens(None)

    async def change_password(self, *, current_password: str, new_password: str) -> None:
        asked = {"current_password": current_password, "new_password": new_password}
        await self._transport.ask("POST", "/v1/auth/password", asked)

    async def enable_mfa(self) -> dict[str, Any]:
        """Begin with a second factor; it counts once `verify_mfa` has had a code. -> `secret`, `qr_code`,
        `recovery_codes`."""
        return dict((await self._transport.ask("POST", "/v1/auth/mfa/enable")).body)

    async def verify_mfa(self, code: str) -> None:
        await self._transport.ask("POST", "/v1/auth/mfa/verify", {"code": code})

    async def me(self) -> dict[str, Any]:
        """The own profile."""
        return dict((await self._transport.ask("GET", "/v1/users/me")).body)

    async def update_me(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        return dict((await self._transport.ask("PUT", "/v1/users/me", changes)).body)

    async def put_user_data(self, key: str, value: Any) -> None:
        await self._transport.ask("POST", "/v1/users/me/data", {"key": key, "value": value})

    async def user_data(self, key: str) -> Any:
        """Raises `NotFound`."""
        return (await self._transport.ask("GET", f"/v1/users/me/data/{quote(key, safe='')}")).body["value"]

    async def is_permitted(self, action: str, resource: str) -> bool:
        query = {"action": action, "resource": resource}
        return bool(
            (await self._transport.ask("GET", "/v1/users/me/permissions", query=query)).body["permitted"]
        )


def _with(asked: dict[str, Any], application_id: str | None) -> dict[str, Any]:
    return asked if application_id is None else {**asked, "application_id": application_id}
