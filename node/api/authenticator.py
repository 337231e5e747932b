"""From a bearer token to the caller of a request.

Room: verifies a token once, an API key likewise, asks `node.services.sessions` whether it still stands, and remembers
the answer until the token expires or something about it changes. A change is any feed entry about
the account, its roles, or the session's end; `on_change` must see them all, on the event loop. What
is forgotten is found by user and session, never by the text of a token.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from node.api.errors import InvalidToken
from node.api.routes import DEFAULT_APPLICATION, Caller
from node.services.account_models import ADMIN_ROLE
from node.services.accounts import Account
from node.services.api_keys import PREFIX, ApiKeys, Use
from node.services.sessions import Sessions
from node.services.tokens import TokenRefused, Tokens

REMEMBERED_MAX = 10_000  # about 1.5 KiB each, the token's text included


def owner_caller(node_name: str) -> Caller:
    """Who the owner token acts as. The frame compares that token and names its application."""
    return Caller(
        user_id=f"owner@{node_name}",
        application=DEFAULT_APPLICATION,
        is_admin=True,
        is_owner=True,
        key="owner",
    )


@dataclass(slots=True)
class _Known:
    caller: Caller
    expires_ms: float
    use: Use | None  # of an API key


class Authenticator:
    """Implements `node.api.routes.Authenticator`."""

    def __init__(
        self,
        tokens: Tokens,
        sessions: Sessions,
        api_keys: ApiKeys | None = None,
        *,
        now_ms: Callable[[], int],
        remembered_max: int = REMEMBERED_MAX,
    ) -> None:
        self._tokens = tokens
        self._sessions = sessions
        self._api_keys = api_keys
        self._now_ms = now_ms
        self._remembered_max = remembered_max
        self._known: dict[str, _Known] = {}  # token -> caller, oldest first
        self._about: dict[str, set[str]] = {}  # user or session -> tokens

    def cached(self, token: str) -> Caller | None:
        """The caller of a token seen before, if it still counts."""
        known = self._known.get(token)
        if known is None:
            return None
        now_ms = self._now_ms()
        if known.expires_ms <= now_ms:
            self._forget(token)
            return None
        if known.use is not None:
            known.use.at_ms = now_ms
        return known.caller

    async def authenticate(self, token: str, application: str | None = None) -> Caller:
        """The caller of a token. Raises InvalidToken.

        `application` is ignored: a user's token counts in the application it was issued for.
        Nothing here awaits, so no change can slip in between looking and remembering.
        """
        caller = self.cached(token)
        if caller is not None:
            return caller
        if token.startswith(PREFIX):
            return self._by_key(token)
        try:
            claims = self._tokens.verify(token)
        except TokenRefused as refused:
            raise InvalidToken("The token has expired") if refused.is_expired else InvalidToken from None
        account = self._sessions.account_behind(claims)
        if account is None or (claims.issuer is None and account.is_admin):
            raise InvalidToken
        is_admin = account.is_admin and claims.has_full_rights
        caller = Caller(
            user_id=account.id,
            application=account.application,
            is_admin=is_admin,
            is_admin_elsewhere=account.is_admin and not is_admin,
            session_id=claims.session,
            issuer=claims.issuer,
            roles=_roles(account, is_admin),
            key=_rate_key(account),
        )
        self._remember(token, _Known(caller, claims.expires_s * 1000, None))
        return caller

    def _by_key(self, text: str) -> Caller:
        """The caller that an API key stands for: its user, within its scopes. Raises InvalidToken."""
        shown = None if self._api_keys is None else self._api_keys.behind(text)
        if shown is None:
            raise InvalidToken
        key, account = shown.key, shown.account
        is_admin = account.is_admin and key.scopes.is_admin
        caller = Caller(
            user_id=account.id,
            application=account.application,
            is_admin=is_admin,
            roles=_roles(account, is_admin),
            key=_rate_key(account),
            api_key_id=key.id,
            scopes=key.scopes,
        )
        self._remember(text, _Known(caller, inf if key.expires_ms is None else key.expires_ms, shown.use))
        return caller

    def on_change(self, model: str, id: str) -> None:
        """Forget what was decided about a user, session or API key. `id` is the changed document's."""
        for token in list(self._about.get(id, ())):
            self._forget(token)

    def forget_all(self) -> None:
        """The members of the network changed: every issuer is judged again."""
        self._known.clear()
        self._about.clear()

    def _remember(self, token: str, known: _Known) -> None:
        if len(self._known) >= self._remembered_max:
            self._forget(next(iter(self._known)))
        self._known[token] = known
        for name in known.caller.known_as:
            self._about.setdefault(name, set()).add(token)

    def _forget(self, token: str) -> None:
        known = self._known.pop(token)
        for name in known.caller.known_as:
            tokens = self._about[name]
            tokens.discard(token)
            if not tokens:
                del self._about[name]


def _roles(account: Account, is_admin: bool) -> frozenset[str]:
    """The roles that count: that of administrators only with their rights."""
    return account.roles if is_admin else account.roles - {ADMIN_ROLE}


def _rate_key(account: Account) -> str:
    """Sessions and API keys of one user are counted together."""
    return f"user:{account.application}:{account.id}"
