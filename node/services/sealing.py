"""Sealing and opening the values of encrypted fields.

Room: between what apps write and read and the envelopes of `protocol.sealed`. Values are sealed to the users that the
writer names, and to the writer; they are opened for a session whose key is in the `keyring`, and shown to everybody
else as `{"encrypted": true}`. The node, its disk and its peers have envelopes alone.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import nacl.exceptions
from nacl import bindings
from nacl.public import SealedBox

from node.services.keyring import Keyring, UserKey, sealing_key
from node.services.refusals import InvalidFields, KeyLocked
from protocol.changes import Edit, EditKind, Record
from protocol.encoding import decode, encode
from protocol.errors import ProtocolError
from protocol.schema import Model
from protocol.sealed import (
    KEY_SIZE_BYTES,
    LOCKED,
    NONCE_SIZE_BYTES,
    READERS_MAX,
    Envelope,
    Unsealed,
    associated_data,
    read_envelope,
    write_envelope,
)

Opener = Callable[[Record, dict[str, Any]], None]


class Sealing:
    """For the event loop. Sealing a value takes about 0.1 ms a reader, opening one as long."""

    def __init__(
        self,
        keyring: Keyring,
        read: Callable[[Model, str], Record | None],
        public_key_of: Callable[[str, str], bytes | None],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        """`public_key_of` (application, user) is the key to seal to; None for somebody who has none."""
        self._keyring = keyring
        self._read = read
        self._public_key_of = public_key_of
        self._random_bytes = random_bytes

    def seal(self, edits: Sequence[Edit], user: str) -> None:
        """Seal what the edits set in encrypted fields. Raises `KeyLocked`, or `InvalidFields` for unknown readers."""
        for edit in edits:
            fields = [name for name, value in edit.values.items() if type(value) is Unsealed]
            if fields:
                if not self._keyring.holds(edit.model.application, user):
                    raise KeyLocked
                current = None if edit.kind is EditKind.CREATE else self._read(edit.model, edit.id)
                edit.values = {
                    **edit.values,
                    **{name: self._sealed(edit, name, current, user) for name in fields},
                }

    def _sealed(self, edit: Edit, field: str, current: Record | None, user: str) -> dict[str, Any]:
        unsealed = edit.values[field]
        readers: Sequence[str] | None = unsealed.readers
        if readers is None:
            known = read_envelope(current.values.get(field)) if current is not None else None
            readers = list(known.keys) if known is not None else []
        application = edit.model.application
        publics = {
            reader: self._public_key_of(application, reader) for reader in dict.fromkeys([user, *readers])
        }
        if missing := [reader for reader, public in publics.items() if public is None]:
            raise InvalidFields({field: f"There is no key to encrypt for: {', '.join(missing)}"})
        if len(publics) > READERS_MAX:
            raise InvalidFields({field: f"A value has at most {READERS_MAX} readers"})
        key, nonce = self._random_bytes(KEY_SIZE_BYTES), self._random_bytes(NONCE_SIZE_BYTES)
        tied_to = associated_data(application, edit.model.id, edit.id, field)
        box = bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(encode(unsealed.value), tied_to, nonce, key)
        keys = {
            reader: SealedBox(sealing_key(public)).encrypt(key)
            for reader, public in publics.items()
            if public
        }
        return write_envelope(Envelope(nonce + box, keys))

    def open(
        self, model: Model, id: str, content: dict[str, Any], user: str | None, session: str | None
    ) -> None:
        """Show in a document's JSON form what this session can open. `content` has `LOCKED` there until then."""
        open = self.opener(user, session)
        if open is not None and any(content.get(name) is not None for name in model.encrypted):
            record = self._read(model, id)
            if record is not None:
                open(record, content)

    def opener(self, user: str | None, session: str | None) -> Opener | None:
        """Shows in the JSON form of a record what this session can open, on any thread; None if it has no key here."""
        key = self._keyring.of_session(session)
        if key is None or user is None:
            return None

        def open(record: Record, content: dict[str, Any]) -> None:
            model = record.model
            for name in model.encrypted:
                envelope = read_envelope(record.values.get(name))
                if envelope is not None and name in content:
                    tied_to = associated_data(model.application, model.id, record.id, name)
                    content[name] = _opened(envelope, user, key, tied_to)

        return open


def _opened(envelope: Envelope, user: str, key: UserKey, tied_to: bytes) -> Any:
    sealed = envelope.keys.get(user)
    if sealed is None:
        return LOCKED
    nonce, box = envelope.box[:NONCE_SIZE_BYTES], envelope.box[NONCE_SIZE_BYTES:]
    try:
        value_key = SealedBox(key.opening).decrypt(sealed)
        return decode(bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(box, tied_to, nonce, value_key))
    except (nacl.exceptions.CryptoError, ValueError, ProtocolError):
        return LOCKED  # sealed to a key that was lost, or by a peer that did it wrong


def shown(model: Model, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as everybody may see them."""
    return {
        name: LOCKED if name in model.encrypted and value is not None else value
        for name, value in values.items()
    }
