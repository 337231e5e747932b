"""Requests to a node: tokens, repetition, rates.

Room: one request becomes one answer or one error of the family. What is repeated here is safe to repeat: reads,
whole values, and whatever carries an idempotency key. Nothing here knows what a path means.
"""

import asyncio
import base64
import json
import random
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from cosmicsync.documents import to_json
from cosmicsync.errors import Closed, CosmicSyncError, NodeUnreachable, RateLimited, error_of

TIMEOUT_S = 30.0
RATE_LIMIT_WAIT_MAX_S = 5.0  # a longer wait is the app's to decide
TRIES = 3
BACKOFF_S = 0.1  # before the second try; doubled each time, and scattered
REFRESH_BEFORE_S = 30.0
_REPEATABLE = frozenset({"GET", "PUT", "DELETE"})


def new_key() -> str:
    """A key that no other request has."""
    return uuid.uuid4().hex


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: Any

    @property
    def version(self) -> str | None:
        """The version that the `ETag` names."""
        tag = self.headers.get("ETag")
        return None if tag is None else tag.removeprefix("W/").strip('"')


@dataclass(frozen=True, slots=True)
class RateLimit:
    """What the last answer said of the rate: so many in all, left, and when (epoch seconds) it begins anew."""

    limit: int
    remaining: int
    reset: int


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a sign-in has given. `expires_at_s` is epoch seconds by this device's clock."""

    token: str
    refresh_token: str | None = None
    expires_at_s: float | None = None


class Closing:
    """Ends what is under way, with `Closed`. Use it on one event loop."""

    def __init__(self) -> None:
        self.is_closed = False
        self._scopes: set[asyncio.Timeout] = set()

    def close(self) -> None:
        if self.is_closed:
            return
        self.is_closed = True
        for scope in self._scopes:
            scope.reschedule(asyncio.get_running_loop().time())

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """For what may last until it is closed. Raises `Closed` once it is."""
        if self.is_closed:
            raise Closed
        try:
            async with asyncio.timeout(None) as scope:
                self._scopes.add(scope)
                try:
                    yield
                finally:
                    self._scopes.discard(scope)
        except TimeoutError:
            if self.is_closed:
                raise Closed from None
            raise


class Transport:
    """One node, as one user. Use it on one event loop."""

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        token_file: str | Path | None = None,
        application: str | None = None,
        timeout_s: float = TIMEOUT_S,
        rate_limit_wait_max_s: float = RATE_LIMIT_WAIT_MAX_S,
        on_tokens: Callable[[Tokens | None], None] | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self.rate_limit: RateLimit | None = None
        self._tokens = Tokens(token) if token is not None else None
        self._token_file = None if token_file is None else Path(token_file)
        self.application = application
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._rate_limit_wait_max_s = rate_limit_wait_max_s
        self._on_tokens = on_tokens
        self._http: aiohttp.ClientSession | None = None
        self._refreshing: asyncio.Task[bool] | None = None
        self.closing = Closing()

    def end(self) -> None:
        """From now on nothing is sent; who waits for an answer gets `Closed`."""
        self.closing.close()

    async def close(self) -> None:
        self.end()
        if self._http is not None:
            await self._http.close()
            self._http = None

    @property
    def http(self) -> aiohttp.ClientSession:
        if self.closing.is_closed:
            raise Closed
        if self._http is None or self._http.closed:
            self._http = aiohttp.ClientSession(timeout=self._timeout)
        return self._http

    # -- who asks

    @property
    def tokens(self) -> Tokens | None:
        return self._tokens

    def take_tokens(self, tokens: Tokens | None) -> None:
        """From now on, requests are made with these."""
        self._tokens = tokens
        if self._on_tokens is not None:
            self._on_tokens(tokens)

    @property
    def token(self) -> str | None:
        if self._tokens is None and self._token_file is not None:
            self._tokens = Tokens(self._token_file.read_text().strip())
        return None if self._tokens is None else self._tokens.token

    @property
    def user(self) -> str:
        """Whom the token names; "" for nobody, and for a token that does not say."""
        parts = (self.token or "").split(".")
        if len(parts) != 3:
            return ""
        try:
            claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        except ValueError:
            return ""
        return str(claims.get("sub", "")) if isinstance(claims, dict) else ""

    async def refresh(self) -> bool:
        """Get a new token for the old one; many who ask at once share one request. Whether there is one now."""
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.ensure_future(self._refresh())
        return await asyncio.shield(self._refreshing)

    async def _refresh(self) -> bool:
        old = self._tokens
        if old is None or old.token.count(".") != 2:
            return False
        try:
            if old.refresh_token is not None:
                answer = await self._once(
                    "POST", "/v1/auth/refresh", {"refresh_token": old.refresh_token}, {}
                )
            else:
                answer = await self._once(
                    "POST", "/v1/auth/refresh", None, {"Authorization": f"Bearer {old.token}"}
                )
        except (NodeUnreachable, Closed):
            raise
        except CosmicSyncError:
            return False
        self.take_tokens(tokens_of(answer.body, old.refresh_token))
        return True

    # -- asking

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        key: str | None = None,
        signed: bool = True,
        is_repeatable: bool | None = None,
    ) -> Answer:
        """The answer to a request. `key` is its idempotency key; every POST has one.

        Raises `NodeUnreachable`, or what the node refuses it with. `is_repeatable` says whether a request whose
        answer was lost may be sent again.
        """
        sent = dict(headers or {})
        if method == "POST":
            sent["Idempotency-Key"] = key or new_key()
        if is_repeatable is None:
            is_repeatable = method in _REPEATABLE and "If-Match" not in sent
        if signed and self._is_stale():
            await self.refresh()
        is_refreshed = False
        for left in reversed(range(TRIES)):
            if signed and self.token is not None:
                sent["Authorization"] = f"Bearer {self.token}"
            try:
                return await self._once(method, path, body, sent, query)
            except NodeUnreachable as fault:
                was_sent = not isinstance(fault.__cause__, aiohttp.ClientConnectorError)
                if not left or (was_sent and not is_repeatable):
                    raise
                await self._sleep(self._pause_s(left))
            except CosmicSyncError as fault:
                if signed and fault.status == 401 and fault.error_code == "AUTH_INVALID_TOKEN":
                    # One that was sent before another request had the token renewed is only sent again.
                    is_renewed = (
                        self.token is not None and sent.get("Authorization") != f"Bearer {self.token}"
                    )
                    if is_refreshed or not left or not (is_renewed or await self.refresh()):
                        raise
                    is_refreshed = True
                elif not left or not self._is_worth_waiting(fault):
                    raise
                else:
                    await self._sleep(fault.retry_after_s or self._pause_s(left))
        raise AssertionError("the last try returns or raises")

    def _is_stale(self) -> bool:
        tokens = self._tokens
        if tokens is None or tokens.expires_at_s is None or tokens.refresh_token is None:
            return False
        return time.time() > tokens.expires_at_s - REFRESH_BEFORE_S

    def _is_worth_waiting(self, fault: CosmicSyncError) -> bool:
        if not isinstance(fault, RateLimited) and fault.status != 503:
            return False
        return (fault.retry_after_s or 0) <= self._rate_limit_wait_max_s

    async def _sleep(self, seconds: float) -> None:
        async with self.closing.open():
            await asyncio.sleep(seconds)

    @staticmethod
    def _pause_s(left: int) -> float:
        return BACKOFF_S * (1 << (TRIES - 1 - left)) * random.uniform(0.5, 1.5)

    async def _once(
        self,
        method: str,
        path: str,
        body: Any,
        headers: Mapping[str, str],
        query: Mapping[str, str] | None = None,
    ) -> Answer:
        sent = dict(headers)
        data: bytes | aiohttp.FormData | None = None
        if isinstance(body, (bytes, aiohttp.FormData)):
            data = body
        elif body is not None:
            data = to_json(body).encode()
            sent["Content-Type"] = "application/json"
        if self.application is not None:
            sent.setdefault("X-Application-Id", self.application)
        try:
            async with (
                self.closing.open(),
                self.http.request(
                    method, self.url + path, data=data, headers=sent, params=query, allow_redirects=False
                ) as answer,
            ):
                raw = await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise NodeUnreachable(f"No answer from {self.url}: {error or type(error).__name__}") from error
        self._note_rate(answer.headers)
        content: Any = raw
        if "json" in answer.headers.get("Content-Type", ""):
            content = json.loads(raw) if raw else None
        elif not raw:
            content = None
        if answer.status >= 400:
            raise error_of(answer.status, content, answer.headers.get("Retry-After"))
        return Answer(answer.status, answer.headers, content)

    def _note_rate(self, headers: Mapping[str, str]) -> None:
        names = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
        try:
            self.rate_limit = RateLimit(*(int(headers[name]) for name in names))
        except (KeyError, ValueError):
            pass  # not every answer has them


def tokens_of(body: Mapping[str, Any], refresh_token: str | None = None) -> Tokens:
    """The tokens in the answer to a sign-in; one without a refresh token leaves the old one in place."""
    return Tokens(
        body["token"],
        body.get("refresh_token", refresh_token),
        time.time() + float(body.get("expires_in", 3600)),
    )
