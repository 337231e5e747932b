"""Values of encrypted fields: what nodes store and forward without being able to read it.

Room: the form of an envelope and its limits, which every node judges alike. Who seals and opens envelopes, and with
which keys, is the API's (`node.services.sealing`): nodes of the network never need to.

    {"v": 1, "box": base64url, "keys": {user id: base64url, …}}

`box` is a nonce of 24 bytes and the value, as CBOR, under XChaCha20-Poly1305 with a key of its own; each of `keys` is
that key, sealed (libsodium's sealed box) to the user's key. `associated_data` ties the box to its place.
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from protocol.encoding import encode

VERSION = 1
READERS_MAX = 64
BOX_SIZE_MAX_BYTES = 2**20 + 1024  # a value of the largest size, and what sealing adds
KEY_SIZE_BYTES = 32
SEALED_KEY_SIZE_BYTES = 80  # a key, an ephemeral public key and a tag
NONCE_SIZE_BYTES = 24
LOCKED = {"encrypted": True}  # what is shown of a value to those who cannot open it
_TAG_SIZE_BYTES = 16
_USER_SIZE_MAX = 128


@dataclass(frozen=True, slots=True)
class Unsealed:
    """A checked value on its way to be sealed. Nothing encodes it, so what is not sealed cannot be stored.

    `readers` are user ids; None keeps those that there are.
    """

    value: Any
    readers: tuple[str, ...] | None = None


class Envelope(NamedTuple):
    """A sealed value, taken apart."""

    box: bytes
    keys: Mapping[str, bytes]


def associated_data(application: str, model_id: str, id: str, field: str) -> bytes:
    """What a box is bound to, so that none can be shown as the value of another field, document or application."""
    return b"civicnode field 1\0" + encode([application, model_id, id, field])


def write_envelope(envelope: Envelope) -> dict[str, Any]:
    return {
        "v": VERSION,
        "box": _text(envelope.box),
        "keys": {user: _text(key) for user, key in envelope.keys.items()},
    }


def read_envelope(value: object) -> Envelope | None:
    """An envelope taken apart; None for anything else."""
    if not isinstance(value, Mapping) or value.keys() != {"v", "box", "keys"} or value["v"] != VERSION:
        return None
    box, keys = _bytes(value["box"], BOX_SIZE_MAX_BYTES), value["keys"]
    if box is None or len(box) <= NONCE_SIZE_BYTES + _TAG_SIZE_BYTES:
        return None
    if not isinstance(keys, Mapping) or not 1 <= len(keys) <= READERS_MAX:
        return None
    opened: dict[str, bytes] = {}
    for user, text in keys.items():
        key = _bytes(text, SEALED_KEY_SIZE_BYTES)
        if not isinstance(user, str) or not 0 < len(user) <= _USER_SIZE_MAX or key is None:
            return None
        if len(key) != SEALED_KEY_SIZE_BYTES:
            return None
        opened[user] = key
    return Envelope(box, opened)


def read_unsealed(value: object) -> Unsealed | str:
    """A value as an app gives it: itself, or `{"value": …, "readers": [user id, …]}`. A text says what is wrong."""
    if not isinstance(value, Mapping) or value.keys() != {"value", "readers"}:
        return Unsealed(value)
    readers = value["readers"]
    if not isinstance(readers, list) or not all(isinstance(one, str) and one for one in readers):
        return "readers must be a list of user ids"
    if len(readers) >= READERS_MAX:
        return f"readers may name at most {READERS_MAX - 1} users"
    return Unsealed(value["value"], tuple(dict.fromkeys(readers)))


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _bytes(text: object, size_max: int) -> bytes | None:
    """Base64url without padding, in its one canonical form."""
    if not isinstance(text, str) or not text.isascii() or len(text) > size_max * 4 // 3 + 4:
        return None
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        return None
    return data if len(data) <= size_max and _text(data) == text else None
