"""Sessions: what a sign-in starts, a refresh continues and a sign-out ends.

Room: issues tokens for accounts that have proved themselves and says whether a genuine token still
stands. A session (its refresh family, and which expired tokens were exchanged) belongs to the node
where it began and never replicates; its end does, as a `$signout` document, so that every node
refuses its tokens. The clock and all randomness are handed in.

A refresh token is opaque to clients: session, number, 256 random bits, and a MAC by which this node
knows its own at once. Stored is only the hash of the newest. Each use makes a successor,
HMAC(salt, token) under a salt drawn at that use and kept for 30 s: a client that lost the answer
asks again and gets the very same one. An older token after that is a copy in other hands, and the
whole family ends (RFC 9700, 4.14.2).
"""

import asyncio
import base64
import hashlib
import hmac
import string
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from node.services.account_models import SIGNOUT, account_models
from node.services.accounts import Account, Accounts
from node.services.edits import Edits
from node.services.keyring import Keyring
from node.services.ports import Changed, LocalStore, Records, Values
from node.services.refusals import SessionRefused
from node.services.tokens import Claims, TokenRefused, Tokens
from protocol.ids import builtin_model_id
from protocol.query import parse_query

SESSION = "session"  # kinds of node-local records
EXCHANGED = "exchanged"

GRACE_MS = 30_000  # CONTRACT: a retry within 30 s gets the same successor
EXCHANGE_WITHIN_S = 7 * 86_400  # CONTRACT: an expired token can be exchanged for 7 days
IDLE_MAX_MS = 30 * 86_400_000  # a session nobody refreshes for so long is over
ROTATIONS_KEPT_MAX = 32  # within GRACE_MS; a client that refreshes faster loses the grace of the oldest

_ID_SIZE_BYTES = 16
_NUMBER_SIZE_BYTES = 4
_SECRET_SIZE_BYTES = 32
_MAC_SIZE_BYTES = 16
_ALPHABET = string.ascii_letters + string.digits + "-_"  # of the names of sessions and tokens
_REFRESH_SIZE_BYTES = _ID_SIZE_BYTES + _NUMBER_SIZE_BYTES + _SECRET_SIZE_BYTES + _MAC_SIZE_BYTES

Entry = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Grant:
    """What a client gets. `refresh_token` is None when only an access token was asked for."""

    user: str
    application: str
    session: str
    token: str
    expires_in_s: int
    refresh_token: str | None


@dataclass(frozen=True, slots=True)
class _RefreshToken:
    session: str
    number: int
    secret: bytes


class Sessions:
    def __init__(
        self,
        records: Records,
        local: LocalStore,
        accounts: Accounts,
        tokens: Tokens,
        edits: Edits,
        keyring: Keyring,
        *,
        mac_key: bytes,
        random_bytes: Callable[[int], bytes],
        now_ms: Callable[[], int],
        may_author: Callable[[], bool],
        changed: Changed,
        lifetime_s: int,
    ) -> None:
        """`mac_key` marks this node's refresh tokens and must survive restarts. `lifetime_s` is how
        long an access token counts. `may_author()` is False on a reader node."""
        self._records = records
        self._local = local
        self._accounts = accounts
        self._tokens = tokens
        self._edits = edits
        self._keyring = keyring
        self._mac_key = mac_key
        self._random_bytes = random_bytes
        self._now_ms = now_ms
        self._may_author = may_author
        self._changed = changed
        self._lifetime_s = lifetime_s
        self._signout_model = next(m for m in account_models("default") if m.name == SIGNOUT)

    # -- beginning and going on ---------------------------------------------------------------

    async def start(self, account: Account, *, lifetime_s: int | None = None) -> Grant:
        """Begin a session for an account that has proved itself by every factor it has."""
        now_ms = self._now_ms()
        lifetime_s = self._lifetime_s if lifetime_s is None else lifetime_s
        session, secret = self._new_name(), self._random_bytes(_SECRET_SIZE_BYTES)
        issue = self._new_issue(now_ms, lifetime_s)
        await self._local.put(
            SESSION,
            session,
            {
                "user": account.id,
                "application": account.application,
                "generation": account.generation,
                "lifetime_s": lifetime_s,
                "expires_ms": _idle_until_ms(now_ms, lifetime_s),
                "number": 0,
                "hash": _hash(secret),
                "rotations": [],
            },
        )
        if account.key is not None:
            self._keyring.put(session, account.application, account.id, account.key)
        return self._grant(account, session, issue, _RefreshToken(session, 0, secret), now_ms)

    async def refresh(self, refresh_token: str) -> Grant:
        """Exchange a refresh token for its successor and a new access token. Raises SessionRefused."""
        shown = self._parse(refresh_token)
        now_ms = self._now_ms()
        account = self._account_of(shown.session, now_ms)
        salt, issue_name = self._random_bytes(_SECRET_SIZE_BYTES), self._new_name()

        def rotate(entry: Entry | None) -> tuple[Entry | None, tuple[Entry | None, bool]]:
            """Runs on the writer thread. -> the session; the rotation to answer with, and is it a copy?"""
            if entry is None:
                return None, (None, False)
            recent = [r for r in entry["rotations"] if now_ms - r["at_ms"] <= GRACE_MS]
            if shown.number == entry["number"]:
                if not hmac.compare_digest(entry["hash"], _hash(shown.secret)):
                    return entry, (None, False)
                issue = self._new_issue(now_ms, entry["lifetime_s"], issue_name)
                made = {"number": shown.number, "at_ms": now_ms, "salt": salt.hex(), "issue": issue}
                rotated = {
                    **entry,
                    "number": shown.number + 1,
                    "hash": _hash(_successor(made, shown.secret)),
                    "expires_ms": _idle_until_ms(now_ms, entry["lifetime_s"]),
                    "rotations": [*recent, made][-ROTATIONS_KEPT_MAX:],
                }
                return rotated, (made, False)
            again = next((r for r in recent if r["number"] == shown.number), None)
            return entry, (again, again is None)

        made, is_copy = await self._local.transact(SESSION, shown.session, rotate)
        if is_copy:  # its MAC says it was ours, and it was replaced long ago
            await self.end(shown.session, user=account.id, application=account.application)
        if made is None:
            raise SessionRefused
        successor = _RefreshToken(shown.session, shown.number + 1, _successor(made, shown.secret))
        return self._grant(account, shown.session, made["issue"], successor, now_ms)

    async def exchange(self, token: str) -> Grant:
        """A new access token for one that has expired, or soon will. Each counts once; a retry gets the same.

        Raises SessionRefused, for a token of another node too: its session lives there.
        """
        try:
            claims = self._tokens.verify(token, expired_within_s=EXCHANGE_WITHIN_S)
        except TokenRefused:
            raise SessionRefused from None
        if claims.issuer != self._tokens.node_id or claims.session is None or claims.token_id is None:
            raise SessionRefused
        now_ms = self._now_ms()
        account = self._account_of(claims.session, now_ms)
        if (claims.user, claims.application) != (account.id, account.application):
            raise SessionRefused
        session = self._local.get(SESSION, claims.session)
        if session is None:
            raise SessionRefused
        until_ms = (claims.expires_s + EXCHANGE_WITHIN_S) * 1000
        issue = self._new_issue(now_ms, session["lifetime_s"])

        def claim(entry: Entry | None) -> tuple[Entry, Entry | None]:
            """Runs on the writer thread. -> what is noted of the token; what was issued for it, None if long ago"""
            if entry is None:
                entry = {"until_ms": until_ms, "at_ms": now_ms, "issue": issue}
            return entry, entry["issue"] if now_ms - entry["at_ms"] <= GRACE_MS else None

        def prolong(entry: Entry | None) -> tuple[Entry | None, bool]:
            if entry is None:
                return None, False
            return {**entry, "expires_ms": _idle_until_ms(now_ms, entry["lifetime_s"])}, True

        issued = await self._local.transact(EXCHANGED, claims.token_id, claim)
        if issued is None or not await self._local.transact(SESSION, claims.session, prolong):
            raise SessionRefused  # it was exchanged before, or its session has ended at this very moment
        return self._grant(account, claims.session, issued, None, now_ms)

    # -- ending -------------------------------------------------------------------------------

    async def end(self, session: str, *, user: str, application: str) -> None:
        """End a session for good, here at once and elsewhere as the news spreads. Durable on return."""
        entry = self._local.get(SESSION, session)
        lifetime_s = self._lifetime_s if entry is None else entry["lifetime_s"]
        self._keyring.drop(session)
        await self._local.delete(SESSION, session)
        self._changed(builtin_model_id(application, SIGNOUT), session)
        # A reader authors nothing, and needs not: its tokens count on itself alone.
        if self._may_author():
            values: Values = {
                "user": user,
                "node": self._tokens.node_id,
                "until_ms": _idle_until_ms(self._now_ms(), lifetime_s),
            }
            await self._edits.write(
                application, SIGNOUT, session, lambda old: {} if old is not None else values, user=user
            )

    def on_change(self, model: str, id: str) -> None:
        """A document changed: keys of sessions that have ended elsewhere leave the memory."""
        self._keyring.drop(id)  # a sign-out has the session's name; nothing else has
        self._keyring.drop_unless(id, lambda application, session: self._stands(application, id, session))

    def _stands(self, application: str, user: str, session: str) -> bool:
        account, entry = self._accounts.get(application, user), self._local.get(SESSION, session)
        if account is None or account.is_disabled or entry is None:
            return False
        return account.accepts_session(session, entry["generation"])

    def account_behind(self, claims: Claims) -> Account | None:
        """The account of a genuine token, or None if account, session or password have changed since.

        Reads the store; does not block for long.
        """
        account = self._accounts.get(claims.application, claims.user)
        if account is None or account.is_disabled:
            return None
        if not account.accepts_session(claims.session, claims.generation):
            return None
        if claims.session is not None:
            if self._is_signed_out(claims.application, claims.session):
                return None
            if claims.issuer == self._tokens.node_id and self._local.get(SESSION, claims.session) is None:
                return None
        return account

    async def forget(self, application: str, user: str) -> None:
        """An account was erased: its sessions on this node leave nothing behind."""
        for prefix in _ALPHABET:  # in slices, as `sweep`
            for session, entry in list(self._local.scan(SESSION, prefix)):
                if (entry["application"], entry["user"]) == (application, user):
                    self._keyring.drop(session)
                    await self._local.delete(SESSION, session)
            await asyncio.sleep(0)

    async def sweep(self, applications: Iterable[str]) -> None:
        """Drop what no longer says anything. For a timer, about once an hour."""
        now_ms = self._now_ms()
        for kind, until in ((SESSION, "expires_ms"), (EXCHANGED, "until_ms")):
            for prefix in _ALPHABET:  # in slices, so that no request waits for a long scan
                over = [key for key, entry in self._local.scan(kind, prefix) if entry[until] < now_ms]
                for key in over:
                    await self._local.delete(kind, key)
                await asyncio.sleep(0)
        if self._may_author():
            for application in applications:
                await self._sweep_signouts(application, now_ms)

    async def _sweep_signouts(self, application: str, now_ms: int) -> None:
        """Each node drops its own, in portions: what is left over waits for the next sweep."""
        query = parse_query(
            {"filter": f"node:eq:{self._tokens.node_id},until_ms:lt:{now_ms}", "per_page": "100"},
            self._signout_model,
        )
        records, _total, _cursor = await self._records.find(application, SIGNOUT, query)
        for record in records:
            await self._records.delete(application, SIGNOUT, record.id, user=record.created_by or "")

    # -- inside -------------------------------------------------------------------------------

    def _is_signed_out(self, application: str, session: str) -> bool:
        """Whether the session was ended on any node: for good, though a member's device can delete what says so."""
        return self._records.was_ever(application, SIGNOUT, session)

    def _account_of(self, session: str, now_ms: int) -> Account:
        """The account of a session of this node that stands. Raises SessionRefused."""
        entry = self._local.get(SESSION, session)
        if entry is None or entry["expires_ms"] < now_ms:
            raise SessionRefused
        account = self._accounts.get(entry["application"], entry["user"])
        if account is None or account.is_disabled:
            raise SessionRefused
        if not account.accepts_session(session, entry["generation"]):
            raise SessionRefused
        if self._is_signed_out(account.application, session):
            raise SessionRefused
        return account

    def _grant(
        self, account: Account, session: str, issue: Entry, refresh: _RefreshToken | None, now_ms: int
    ) -> Grant:
        token = self._tokens.issue(
            user=account.id,
            application=account.application,
            session=session,
            token_id=issue["name"],
            generation=account.generation,
            issued_s=issue["at_s"],
            expires_s=issue["expires_s"],
        )
        return Grant(
            user=account.id,
            application=account.application,
            session=session,
            token=token,
            expires_in_s=max(0, issue["expires_s"] - now_ms // 1000),
            refresh_token=None if refresh is None else self._text(refresh),
        )

    def _new_issue(self, now_ms: int, lifetime_s: int, name: str | None = None) -> Entry:
        at_s = now_ms // 1000
        return {"name": name or self._new_name(), "at_s": at_s, "expires_s": at_s + lifetime_s}

    def _new_name(self) -> str:
        return _encode(self._random_bytes(_ID_SIZE_BYTES))

    def _text(self, token: _RefreshToken) -> str:
        body = _decode(token.session) + token.number.to_bytes(_NUMBER_SIZE_BYTES, "big") + token.secret
        return _encode(body + self._mac(body))

    def _parse(self, text: str) -> _RefreshToken:
        """A refresh token that this node once gave out. Raises SessionRefused."""
        try:
            raw = _decode(text)
        except ValueError:
            raise SessionRefused from None
        body, mac = raw[:-_MAC_SIZE_BYTES], raw[-_MAC_SIZE_BYTES:]
        if len(raw) != _REFRESH_SIZE_BYTES or not hmac.compare_digest(mac, self._mac(body)):
            raise SessionRefused
        number_end = _ID_SIZE_BYTES + _NUMBER_SIZE_BYTES
        number = int.from_bytes(body[_ID_SIZE_BYTES:number_end], "big")
        return _RefreshToken(_encode(body[:_ID_SIZE_BYTES]), number, body[number_end:])

    def _mac(self, body: bytes) -> bytes:
        return hashlib.blake2b(body, key=self._mac_key, digest_size=_MAC_SIZE_BYTES).digest()


def _successor(rotation: Entry, secret: bytes) -> bytes:
    return hmac.digest(bytes.fromhex(rotation["salt"]), secret, "sha256")


def _idle_until_ms(now_ms: int, lifetime_s: int) -> int:
    """A session outlives the time in which its last token can be exchanged."""
    return now_ms + max(IDLE_MAX_MS, (lifetime_s + EXCHANGE_WITHIN_S) * 1000)


def _hash(secret: bytes) -> str:
    return hashlib.sha256(secret).hexdigest()


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _decode(text: str) -> bytes:
    """Raises ValueError for any text but the one canonical form."""
    if len(text) > 256 or not text.isascii():
        raise ValueError("not base64url")
    raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if _encode(raw) != text:
        raise ValueError("not base64url")
    return raw
