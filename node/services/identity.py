"""Everything about accounts, put together.

Room: composition. The daemon calls `build_identity` once and hands the result to the surfaces and
to the feed; nothing here decides anything.
"""

import base64
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from node.services.accounts import Accounts
from node.services.administrators import Administrators
from node.services.api_keys import ApiKeys
from node.services.edits import Edits
from node.services.keyring import Keyring
from node.services.lockout import Lockout
from node.services.mfa import Mfa
from node.services.passwords import Passwords
from node.services.permissions import Permissions
from node.services.ports import LocalStore, Records
from node.services.profiles import Profiles
from node.services.recommendations import Recommendations
from node.services.sessions import Sessions
from node.services.tokens import Tokens

LIFETIME_S = 3600  # seed S1: "expires_in": 3600


class Changes:
    """Who wants to know that a document changed."""

    def __init__(self) -> None:
        self._listeners: list[Callable[[str, str], None]] = []

    def listen(self, listener: Callable[[str, str], None]) -> None:
        self._listeners.append(listener)

    def __call__(self, model: str, id: str) -> None:
        """`model` is a model's id, `id` a document's. Quick; for the event loop alone."""
        for listener in self._listeners:
            listener(model, id)


@dataclass(frozen=True, slots=True)
class Identity:
    """The services of accounts. `close()` it at the end."""

    accounts: Accounts
    mfa: Mfa
    profiles: Profiles
    sessions: Sessions
    api_keys: ApiKeys
    keyring: Keyring
    tokens: Tokens
    permissions: Permissions
    recommendations: Recommendations
    passwords: Passwords
    lockout: Lockout
    changes: Changes

    def on_change(self, model: str, id: str) -> None:
        """A document changed, here or elsewhere: to be called from the feed, for every entry."""
        self.changes(model, id)

    async def sweep(self, applications: Iterable[str]) -> None:
        """Drop node-local records that say nothing any more. For a timer, about once an hour."""
        await self.sessions.sweep(applications)
        await self.lockout.sweep()
        await self.mfa.sweep()
        await self.api_keys.keep_uses()

    def close(self) -> None:
        self.passwords.close()


def build_identity(
    *,
    records: Records,
    local: LocalStore,
    node_id: str,
    network_id: str,
    seed: bytes,
    issuer_role: Callable[[str], str | None],
    new_id: Callable[[], str],
    random_bytes: Callable[[int], bytes],
    now_ms: Callable[[], int],
    lifetime_s: int | None = None,
    shared_secret: str | None = None,
    passwords: Passwords | None = None,
) -> Identity:
    """Ids are lower-case hex, `seed` is the node's Ed25519 seed; the other arguments are the world
    outside: role of a node by its id (None: unknown or revoked), new document ids, randomness and
    the clock."""

    def may_author() -> bool:
        return issuer_role(node_id) in ("admin", "member")

    def random_text(size_bytes: int) -> str:
        return base64.urlsafe_b64encode(random_bytes(size_bytes)).rstrip(b"=").decode("ascii")

    changes = Changes()
    edits = Edits(records, changes)
    passwords = passwords or Passwords(random_bytes=random_bytes)
    lockout = Lockout(local, now_ms=now_ms)
    tokens = Tokens(
        node_id=node_id,
        network_id=network_id,
        seed=seed,
        issuer_role=issuer_role,
        now_ms=now_ms,
        shared_secret=shared_secret,
    )
    administrators = Administrators(
        records, edits, may_author=may_author, may_stand=lambda: issuer_role(node_id) == "admin"
    )
    mfa = Mfa(records, local, administrators, lockout, random_bytes=random_bytes, now_ms=now_ms)
    accounts = Accounts(
        records,
        passwords,
        lockout,
        mfa,
        edits,
        administrators,
        new_id=new_id,
        random_text=random_text,
        random_bytes=random_bytes,
        now_ms=now_ms,
    )
    keyring = Keyring()
    sessions = Sessions(
        records,
        local,
        accounts,
        tokens,
        edits,
        keyring,
        mac_key=hashlib.blake2b(b"refresh tokens", key=seed, person=b"civicnode", digest_size=32).digest(),
        random_bytes=random_bytes,
        now_ms=now_ms,
        may_author=may_author,
        changed=changes,
        lifetime_s=lifetime_s or LIFETIME_S,
    )
    api_keys = ApiKeys(
        records,
        local,
        accounts,
        edits,
        administrators,
        new_id=new_id,
        random_text=random_text,
        now_ms=now_ms,
        changed=changes,
    )
    recommendations = Recommendations(accounts)
    changes.listen(recommendations.on_change)
    changes.listen(sessions.on_change)
    return Identity(
        accounts=accounts,
        mfa=mfa,
        profiles=Profiles(records, accounts, edits),
        sessions=sessions,
        api_keys=api_keys,
        keyring=keyring,
        tokens=tokens,
        permissions=Permissions(now_ms),
        recommendations=recommendations,
        passwords=passwords,
        lockout=lockout,
        changes=changes,
    )
