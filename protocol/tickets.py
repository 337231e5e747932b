"""Tickets and recovery codes: what people carry from one device to another, as one line of text.

Room: the text, and what is inside. A ticket gives no right by itself: an
`invite` in the log names its key, role and expiry, and they are what counts. The
secret is drawn by the caller.

    ticket         "civic1" + armour([version 1, network id(32), inviter node(32), secret(16), role,
                   expires ms, [address …]])
    recovery code  "civickey1" + armour(seed of the network key(32)), in groups of five for writing down
    armour         Crockford base 32 of the bytes and 5 bytes of SHA-256(prefix + NUL + bytes)

The ticket key is the Ed25519 key whose seed is SHA-256("civicnode ticket 1\\0" +
secret). Letters may be of either case, o, i and l are read as the digits they
look like, white space and hyphens are skipped: a ticket may be read out, wrapped
by a mail program, or printed in capitals, which a QR code packs closer.
"""

import re
from dataclasses import dataclass, field
from hashlib import sha256

from protocol.encoding import decode_exact, encode
from protocol.errors import Malformed, TooLarge
from protocol.ids import NODE_ID_BYTES, NetworkId, NodeId
from protocol.keys import SEED_BYTES, KeyPair
from protocol.roles import ROLE_OF_RANK, Role
from protocol.statements import EXPIRES_MS_MAX

SECRET_BYTES = 16
ADDRESSES_PER_TICKET_MAX = 8  # more would not fit a QR code that a phone reads from a terminal
ADDRESS_LENGTH_MAX = 261  # a host name of 255 characters, a colon and a port
TEXT_LENGTH_MAX = 8_192  # the longest ticket has 3,600 characters
_VERSION = 1
_TICKET_PREFIX = "civic1"
_RECOVERY_PREFIX = "civickey1"
_TICKET_KEY_DOMAIN = b"civicnode ticket 1\0"
_CHECKSUM_BYTES = 5
_DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"
_VALUES = {digit: value for value, digit in enumerate(_DIGITS)} | {"o": 0, "i": 1, "l": 1}
# Printable and short, so that it can be shown as it is: a host name, an IPv4 or [IPv6] address, and a port.
_ADDRESS = re.compile(
    r"(?:[A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}(?:%[A-Za-z0-9._-]{1,15})?\]):[0-9]{1,5}\Z"
)


@dataclass(frozen=True, slots=True)
class Ticket:
    """An invitation as it is handed over. Role and expiry are for showing; the log decides."""

    network_id: NetworkId
    inviter: NodeId
    secret: bytes = field(repr=False)
    role: Role
    expires_ms: int
    addresses: tuple[str, ...]

    @property
    def keys(self) -> KeyPair:
        """The ticket key: its public half stands in the invitation, its signature admits the joiner."""
        return KeyPair.from_seed(sha256(_TICKET_KEY_DOMAIN + self.secret).digest())

    def is_expired(self, now_ms: int) -> bool:
        return self.expires_ms <= now_ms


def encode_ticket(ticket: Ticket) -> str:
    """The ticket as one line. Raises `Malformed` if it holds what a ticket may not."""
    _check(ticket)
    fields = [
        _VERSION,
        ticket.network_id,
        ticket.inviter,
        ticket.secret,
        ticket.role.rank,
        ticket.expires_ms,
        list(ticket.addresses),
    ]
    return _armour(_TICKET_PREFIX, encode(fields))


def decode_ticket(text: str) -> Ticket:
    """The ticket in `text`. Raises `Malformed` or `TooLarge`, with a message for whoever typed it."""
    match decode_exact(_unarmour(_TICKET_PREFIX, text, "a ticket")):
        case [version, *_] if type(version) is int and version != _VERSION:
            raise Malformed(f"a ticket of version {version}: this node reads version {_VERSION}")
        case [
            version,
            bytes() as network_id,
            bytes() as inviter,
            bytes() as secret,
            role,
            expires_ms,
            list() as addresses,
        ] if type(version) is type(role) is type(expires_ms) is int and role in ROLE_OF_RANK:
            pass
        case _:
            raise Malformed("a ticket that is not of this form")
    if any(type(address) is not str for address in addresses):
        raise Malformed("a ticket with an address that is not text")
    ticket = Ticket(
        NetworkId(network_id), NodeId(inviter), secret, ROLE_OF_RANK[role], expires_ms, tuple(addresses)
    )
    _check(ticket)
    return ticket


def _check(ticket: Ticket) -> None:
    if (
        len(ticket.network_id) != 32
        or len(ticket.inviter) != NODE_ID_BYTES
        or len(ticket.secret) != SECRET_BYTES
    ):
        raise Malformed("a ticket with a network, inviter or secret of a wrong length")
    if not 0 <= ticket.expires_ms <= EXPIRES_MS_MAX:
        raise Malformed("a ticket with an expiry out of range")
    if len(ticket.addresses) > ADDRESSES_PER_TICKET_MAX:
        raise TooLarge("addresses of a ticket", size=len(ticket.addresses), size_max=ADDRESSES_PER_TICKET_MAX)
    if any(len(a) > ADDRESS_LENGTH_MAX or not _ADDRESS.match(a) for a in ticket.addresses):
        raise Malformed("a ticket with an address that is not host:port")


def encode_recovery_code(network_keys: KeyPair) -> str:
    """The network's recovery code, in groups of five characters."""
    text = _armour(_RECOVERY_PREFIX, network_keys.seed)[len(_RECOVERY_PREFIX) :]
    return "-".join((_RECOVERY_PREFIX, *(text[start : start + 5] for start in range(0, len(text), 5))))


def decode_recovery_code(text: str) -> KeyPair:
    """The network key in a recovery code. Raises `Malformed` or `TooLarge`."""
    seed = _unarmour(_RECOVERY_PREFIX, text, "a recovery code")
    if len(seed) != SEED_BYTES:
        raise Malformed("a recovery code of a wrong length")
    return KeyPair.from_seed(seed)


# -- one line of text ----------------------------------------------------------------------------------------


def _armour(prefix: str, data: bytes) -> str:
    checked = data + _checksum(prefix, data)
    padding = -len(checked) * 8 % 5
    number = int.from_bytes(checked, "big") << padding
    digits = (len(checked) * 8 + padding) // 5
    return prefix + "".join(_DIGITS[number >> 5 * place & 31] for place in reversed(range(digits)))


def _unarmour(prefix: str, text: str, what: str) -> bytes:
    if len(text) > TEXT_LENGTH_MAX:
        raise TooLarge(f"{what} in characters", size=len(text), size_max=TEXT_LENGTH_MAX)
    compact = "".join(text.replace("-", "").split()).lower()
    if not compact.startswith(prefix):
        raise Malformed(f"not {what}: one begins with {prefix}")
    number = 0
    digits = compact[len(prefix) :]
    for digit in digits:
        value = _VALUES.get(digit)
        if value is None:
            raise Malformed(f"{what} cannot hold the character {digit!r}: was it copied whole?")
        number = number << 5 | value
    padding = len(digits) * 5 % 8
    if padding >= 5 or number & (1 << padding) - 1 or len(digits) * 5 // 8 <= _CHECKSUM_BYTES:
        raise Malformed(f"{what} that is cut short: was it copied whole?")
    checked = (number >> padding).to_bytes(len(digits) * 5 // 8, "big")
    data, checksum = checked[:-_CHECKSUM_BYTES], checked[-_CHECKSUM_BYTES:]
    if checksum != _checksum(prefix, data):
        raise Malformed(f"{what} with a mistake in it: was it copied whole?")
    return data


def _checksum(prefix: str, data: bytes) -> bytes:
    return sha256(prefix.encode() + b"\0" + data).digest()[:_CHECKSUM_BYTES]
