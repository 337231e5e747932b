"""Who belongs to a network, as a fold over the signed statements of its `system` space.

Room: the statements and what they add up to. A network begins with a genesis
statement by its founder and is named by that statement's hash; it also names
the network key, whose statements outrank all. A lone node is a network of one:
its founder is its only member and an administrator.

    statement  [salt(16), kind, …]
    genesis    [salt(16), 0, founder node(32), network key(32), created ms, proof(64)]
               proof: the network key's signature over "civicnode genesis 1\\0" + the first five, encoded

Kinds 1 to 4 are kept for admit, grant, revoke and recover. A kind that this
version does not know is withheld, as an operation is.
"""

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from hashlib import sha256

from protocol.body import SALT_BYTES
from protocol.encoding import decode_exact, encode
from protocol.errors import BadSignature, Malformed
from protocol.ids import NODE_ID_BYTES, NetworkId, NodeId
from protocol.keys import KeyPair, verify

_GENESIS_DOMAIN = b"civicnode genesis 1\0"
_NETWORK_DOMAIN = b"civicnode network 1\0"


class Role(StrEnum):
    """What a node may do in a network: `admin` everything, `member` write data, `reader` nothing but read."""

    ADMIN = "admin"
    MEMBER = "member"
    READER = "reader"


class StatementKind(IntEnum):
    """Kinds of statement. Numbers are for ever."""

    GENESIS = 0
    ADMIT = 1
    GRANT = 2
    REVOKE = 3
    RECOVER = 4


_STATEMENT_KIND_MAX = 255


@dataclass(frozen=True, slots=True)
class Genesis:
    """How a network began."""

    founder: NodeId
    network_key: bytes
    created_ms: int
    body: bytes

    @property
    def network_id(self) -> NetworkId:
        return NetworkId(sha256(_NETWORK_DOMAIN + self.body).digest())


def found_network(founder: bytes, network_keys: KeyPair, created_ms: int, salt: bytes) -> Genesis:
    """The genesis statement of a new network. The founder signs the commit that carries it."""
    fields = [salt, StatementKind.GENESIS.value, founder, network_keys.public, created_ms]
    proof = network_keys.sign(_GENESIS_DOMAIN + encode(fields))
    return Genesis(NodeId(founder), network_keys.public, created_ms, encode([*fields, proof]))


def decode_genesis(body: bytes) -> Genesis:
    """The genesis in `body`. Raises `Malformed` or `BadSignature`."""
    match decode_exact(body):
        case [
            bytes() as salt,
            kind,
            bytes() as founder,
            bytes() as network_key,
            created_ms,
            bytes() as proof,
        ]:
            pass
        case _:
            raise Malformed("a genesis is [salt, 0, founder, network key, created ms, proof]")
    if type(kind) is not int or kind != StatementKind.GENESIS or type(created_ms) is not int:
        raise Malformed("a genesis of another kind, or with a time that is not a number")
    if len(salt) != SALT_BYTES or len(founder) != NODE_ID_BYTES or not 0 <= created_ms < 1 << 48:
        raise Malformed("a genesis with a salt, founder or time out of range")
    signed = encode([salt, kind, founder, network_key, created_ms])
    if not verify(network_key, _GENESIS_DOMAIN + signed, proof):
        raise BadSignature("the genesis is not signed by the network key that it names")
    return Genesis(NodeId(founder), network_key, created_ms, body)


def statement_kind(body: bytes) -> int:
    """The kind of the statement in `body`, known to this version or not. Raises `Malformed`."""
    match decode_exact(body):
        case [bytes() as salt, kind, *_] if len(salt) == SALT_BYTES and type(kind) is int:
            if 0 <= kind <= _STATEMENT_KIND_MAX:
                return kind
    raise Malformed("a statement is [salt, kind, …]")


@dataclass(frozen=True, slots=True)
class Members:
    """The members that a set of statements adds up to."""

    genesis: Genesis
    roles: dict[NodeId, Role]

    @classmethod
    def of_genesis(cls, genesis: Genesis) -> "Members":
        return cls(genesis, {genesis.founder: Role.ADMIN})

    def role_of(self, node: bytes) -> Role | None:
        """The role of a node, or None for a stranger."""
        return self.roles.get(NodeId(node))
