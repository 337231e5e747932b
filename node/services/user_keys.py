"""The public keys of a user: a list in which each is signed by the one before.

Room: the form of the list in `$account`, and what it proves. Where the chain breaks, somebody who did not have the old
key has set a new one: an administrator who reset a password, or a device of the network that means ill.
"""

import base64
import binascii
from collections.abc import Sequence
from typing import Any, NamedTuple

import nacl.exceptions
from nacl.signing import VerifyKey

from node.services.keyring import UserKey

KEYS_MAX = (
    64  # changes of keys that are remembered: a password change keeps the key, only a reset makes another
)
_PUBLIC_SIZE_BYTES = 32
_SIGNATURE_SIZE_BYTES = 64


class PublicKeys(NamedTuple):
    """`newest` is what to seal to; `is_continuous` whether each key was signed by the one before."""

    newest: bytes
    is_continuous: bool


def first_key(user: str, key: UserKey) -> list[list[str]]:
    """The list of a user's first key, which signs itself."""
    return [_entry(user, 0, key.public, key)]


def next_key(user: str, known: object, key: UserKey, signed_by: UserKey | None) -> list[list[str]]:
    """The list with another key. Without the one before it, it signs itself, and the chain is broken there."""
    listed = known if isinstance(known, list) else []
    kept = [entry for entry in listed if isinstance(entry, list)][-(KEYS_MAX - 1) :]
    return [*kept, _entry(user, len(kept), key.public, signed_by or key)]


def read_keys(user: str, known: object) -> PublicKeys | None:
    """What a list says; None if there is no key in it. It may come from a peer."""
    if not isinstance(known, list) or not 1 <= len(known) <= KEYS_MAX:
        return None
    newest: bytes | None = None
    is_continuous = True
    for number, entry in enumerate(known):
        parts = _parts(entry)
        if parts is None:
            return None
        public, signature = parts
        is_continuous &= _is_signed(user, number, public, signature, newest or public)
        newest = public
    assert newest is not None
    return PublicKeys(newest, is_continuous)


def _message(user: str, number: int, public: bytes) -> bytes:
    return b"civicnode user key 1\0" + user.encode() + b"\0" + number.to_bytes(4, "big") + public


def _entry(user: str, number: int, public: bytes, signer: UserKey) -> list[str]:
    signature = signer.signing.sign(_message(user, number, public)).signature
    return [base64.b64encode(part).decode("ascii") for part in (public, signature)]


def _is_signed(user: str, number: int, public: bytes, signature: bytes, signer: bytes) -> bool:
    try:
        VerifyKey(signer).verify(_message(user, number, public), signature)
    except (nacl.exceptions.BadSignatureError, nacl.exceptions.CryptoError):
        return False
    return True


def _parts(entry: Any) -> tuple[bytes, bytes] | None:
    if not isinstance(entry, Sequence) or len(entry) != 2 or not all(isinstance(part, str) for part in entry):
        return None
    try:
        public, signature = (base64.b64decode(part, validate=True) for part in entry)
    except (binascii.Error, ValueError):
        return None
    if len(public) != _PUBLIC_SIZE_BYTES or len(signature) != _SIGNATURE_SIZE_BYTES:
        return None
    return public, signature
