"""Passwords as argon2id verifiers, worked out away from the event loop.

Room: turns a password and a user's key into a verifier, and opens one with the other, in two threads and
behind a short queue (each check holds 19 MiB). It knows no accounts and stores nothing. A verifier is the key itself,
sealed under what argon2id makes of the password: that it opens proves the password, and no change made elsewhere can
part the two. Verifiers describe themselves (`$argon2id$v=19$m=…,t=…,p=1$salt$sealed key`), so parameters may rise later
and old verifiers keep working until their owner's next sign-in replaces them.
"""

import asyncio
import base64
import re
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import nacl.exceptions
import nacl.pwhash.argon2id
import nacl.utils
from nacl.secret import SecretBox

from node.services.refusals import TooBusy

T = TypeVar("T")

MEMORY_BYTES = 19 * 2**20  # OWASP's minimum for argon2id: m = 19 MiB, t = 2, p = 1
PASSES = 2
THREADS = 2  # at most 38 MiB at work, and one core always left for the loop on small devices
QUEUE_MAX = 32  # beyond it a request is told to come back: 429

LENGTH_MIN = 8  # NIST SP 800-63B
LENGTH_MAX = 1024

# A verifier may come from a peer. One that asks for more than this is never computed: it would
# let a member of the network exhaust this node's memory by way of a sign-in.
VERIFIER_MEMORY_MAX_KIB = 128 * 1024
VERIFIER_PASSES_MAX = 16

_VERIFIER = re.compile(
    r"\$argon2id\$v=19\$m=([0-9]{1,7}),t=([0-9]{1,3}),p=1\$([A-Za-z0-9+/]{22})\$([A-Za-z0-9+/]{96})", re.ASCII
)
KEY_SIZE_BYTES = 32  # of the user's key, and of what it is sealed under
_SALT_SIZE_BYTES = nacl.pwhash.argon2id.SALTBYTES
_NONCE_SIZE_BYTES = SecretBox.NONCE_SIZE


def password_fault(password: object) -> str | None:
    """What is wrong with a new password, or None."""
    if password is None or password == "":
        return "This field is required"
    if not isinstance(password, str):
        return "Must be a string"
    if len(password) < LENGTH_MIN:
        return f"Must be at least {LENGTH_MIN} characters"
    if len(password) > LENGTH_MAX:
        return f"Must be at most {LENGTH_MAX} characters"
    if _secret(password) is None:
        return "Must be valid Unicode text"
    return None


def _secret(password: str) -> bytes | None:
    """The bytes that are hashed: NFKC, so that two keyboards agree (NIST SP 800-63B)."""
    try:
        return unicodedata.normalize("NFKC", password).encode()
    except UnicodeEncodeError:  # a lone surrogate
        return None


class Passwords:
    """Hashes and checks passwords. `close()` it at the end."""

    def __init__(
        self,
        *,
        random_bytes: Callable[[int], bytes] = nacl.utils.random,
        memory_bytes: int = MEMORY_BYTES,
        passes: int = PASSES,
        threads: int = THREADS,
        queue_max: int = QUEUE_MAX,
    ) -> None:
        self._random_bytes = random_bytes
        self._memory_bytes = memory_bytes
        self._passes = passes
        self._in_hand_max = threads + queue_max
        self._in_hand = 0
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="passwords")
        # Nobody's verifier: checking it costs what checking a real one costs.
        self._dummy = f"$argon2id$v=19$m={memory_bytes // 1024},t={passes},p=1${'A' * 22}${'A' * 96}"

    async def make_verifier(self, password: str, key: bytes) -> str:
        """The verifier of an acceptable password, which holds the user's key. Raises TooBusy when too many wait."""
        secret = _secret(password)
        if secret is None:
            raise ValueError("password_fault was not asked")
        salt, nonce = self._random_bytes(_SALT_SIZE_BYTES), self._random_bytes(_NONCE_SIZE_BYTES)
        return await self._run(lambda: self._make(secret, key, salt, nonce))

    async def open(self, verifier: str | None, password: str) -> bytes | None:
        """The key in `verifier`, if `password` is the one behind it; None otherwise.

        With no usable verifier (unknown account, no password set) it takes as long. Raises TooBusy when too many
        wait.
        """
        usable = verifier is not None and self._is_usable(verifier)
        secret = _secret(password[: LENGTH_MAX + 1])
        checked = verifier if usable and verifier is not None else self._dummy
        key = await self._run(lambda: _open(checked, secret or b""))
        return key if usable and secret is not None and len(password) <= LENGTH_MAX else None

    def is_outdated(self, verifier: str) -> bool:
        """Whether the parameters have risen since this verifier was made."""
        parts = _VERIFIER.fullmatch(verifier)
        if parts is None:
            return False
        return int(parts[1]) * 1024 < self._memory_bytes or int(parts[2]) < self._passes

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _is_usable(self, verifier: str) -> bool:
        parts = _VERIFIER.fullmatch(verifier)
        return (
            parts is not None
            and int(parts[1]) <= VERIFIER_MEMORY_MAX_KIB
            and 1 <= int(parts[2]) <= VERIFIER_PASSES_MAX
        )

    def _make(self, secret: bytes, key: bytes, salt: bytes, nonce: bytes) -> str:
        sealed = SecretBox(_stretched(secret, salt, self._passes, self._memory_bytes)).encrypt(key, nonce)
        parameters = f"m={self._memory_bytes // 1024},t={self._passes},p=1"
        return f"$argon2id$v=19${parameters}${_text(salt)}${_text(sealed)}"

    async def _run(self, work: Callable[[], T]) -> T:
        if self._in_hand >= self._in_hand_max:
            raise TooBusy("too many wait already")
        self._in_hand += 1
        job = asyncio.get_running_loop().run_in_executor(self._pool, work)
        job.add_done_callback(self._done)
        return await job

    def _done(self, _job: object) -> None:
        self._in_hand -= 1


def _open(verifier: str, secret: bytes) -> bytes | None:
    parts = _VERIFIER.fullmatch(verifier)
    assert parts is not None
    salt, sealed = base64.b64decode(parts[3] + "=="), base64.b64decode(parts[4])
    try:
        return SecretBox(_stretched(secret, salt, int(parts[2]), int(parts[1]) * 1024)).decrypt(sealed)
    except (nacl.exceptions.CryptoError, ValueError):
        return None


def _stretched(secret: bytes, salt: bytes, passes: int, memory_bytes: int) -> bytes:
    return nacl.pwhash.argon2id.kdf(KEY_SIZE_BYTES, secret, salt, opslimit=passes, memlimit=memory_bytes)


def _text(data: bytes) -> str:
    return base64.b64encode(data).rstrip(b"=").decode("ascii")
