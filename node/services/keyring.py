"""The keys with which users open what was sealed to them, for as long as they are signed in here.

Room: memory, and nothing else. A key comes in with a sign-in, is found by its session, and goes with it; after a
restart there is none. Where keys are stored is in `accounts` (sealed by passwords), what they open in `sealing`.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from nacl.public import PrivateKey, PublicKey
from nacl.signing import SigningKey, VerifyKey

SESSIONS_MAX = 10_000
SEED_SIZE_BYTES = 32


@dataclass(frozen=True, slots=True)
class UserKey:
    """A user's key pair: Ed25519, which signs the next one and, converted, opens what is sealed to it."""

    signing: SigningKey

    @classmethod
    def of(cls, seed: bytes) -> "UserKey":
        return cls(SigningKey(seed))

    @property
    def seed(self) -> bytes:
        return bytes(self.signing)

    @property
    def public(self) -> bytes:
        return bytes(self.signing.verify_key)

    @property
    def opening(self) -> PrivateKey:
        return self.signing.to_curve25519_private_key()


def sealing_key(public: bytes) -> PublicKey:
    """The key to seal to, for a user's public key. Raises `nacl.exceptions.RuntimeError` for bytes that are none."""
    return VerifyKey(public).to_curve25519_public_key()


@dataclass(frozen=True, slots=True)
class _Held:
    application: str
    user: str
    key: UserKey


class Keyring:
    """For the event loop."""

    def __init__(self) -> None:
        self._by_session: OrderedDict[str, _Held] = OrderedDict()
        self._sessions_of: dict[tuple[str, str], set[str]] = {}

    def put(self, session: str, application: str, user: str, seed: bytes) -> None:
        """A session has begun with this key. Beyond `SESSIONS_MAX` the one that began first is locked."""
        self._by_session[session] = _Held(application, user, UserKey.of(seed))
        self._sessions_of.setdefault((application, user), set()).add(session)
        if len(self._by_session) > SESSIONS_MAX:
            self.drop(next(iter(self._by_session)))

    def of_session(self, session: str | None) -> UserKey | None:
        """The key of the user whose session this is; None if it is not here."""
        held = self._by_session.get(session) if session is not None else None
        return None if held is None else held.key

    def holds(self, application: str, user: str) -> bool:
        """Whether the user is signed in here with a key."""
        return (application, user) in self._sessions_of

    def drop(self, session: str) -> None:
        """The session is over."""
        held = self._by_session.pop(session, None)
        if held is not None:
            sessions = self._sessions_of[held.application, held.user]
            sessions.discard(session)
            if not sessions:
                del self._sessions_of[held.application, held.user]

    def drop_unless(self, user: str, stands: Callable[[str, str], bool]) -> None:
        """The account of a user has changed: drop the sessions of which `stands(application, session)` says no."""
        for (application, one), sessions in list(self._sessions_of.items()):
            if one == user:
                for session in [session for session in sessions if not stands(application, session)]:
                    self.drop(session)
