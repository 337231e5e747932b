"""Recovery codes of accounts: a second way to a user's key, for whoever has forgotten the password.

Room: the code as people write it down, and the key sealed under it. A code is 160 random bits, so it needs no
stretching. Which account it belongs to, and what follows, is `accounts`'s.
"""

import base64
import hashlib
from collections.abc import Callable

import nacl.exceptions
from nacl.secret import SecretBox

CODE_SIZE_BYTES = 20
_CODE_LENGTH = 32  # in base32
_GROUP = 4


def code_text(code: bytes) -> str:
    """`ABCD-EFGH-…`: letters and digits that are not mistaken for one another (RFC 4648, section 6)."""
    text = base64.b32encode(code).decode("ascii")
    return "-".join(text[at : at + _GROUP] for at in range(0, len(text), _GROUP))


def seal(code: bytes, key: bytes, user: str, random_bytes: Callable[[int], bytes]) -> str:
    """The user's key under a code."""
    sealed = SecretBox(_stretched(code, user)).encrypt(key, random_bytes(SecretBox.NONCE_SIZE))
    return base64.b64encode(sealed).decode("ascii")


def opened(text: str, sealed: str | None, user: str) -> bytes | None:
    """The key, if this is the code that it is sealed under. Spaces, hyphens and case do not count."""
    plain = text.replace("-", "").replace(" ", "").upper()
    if sealed is None or len(plain) != _CODE_LENGTH:
        return None
    try:
        return SecretBox(_stretched(base64.b32decode(plain), user)).decrypt(
            base64.b64decode(sealed, validate=True)
        )
    except (nacl.exceptions.CryptoError, ValueError, TypeError):
        return None


def _stretched(code: bytes, user: str) -> bytes:
    return hashlib.blake2b(
        user.encode(), key=code, person=b"civicnode rec 1", digest_size=SecretBox.KEY_SIZE
    ).digest()
