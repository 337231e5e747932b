"""The statements of the `system` space, as the bytes that a header signs the hash of.

Room: layouts, and the signatures inside a statement. Whether its author might
say it, and whether it counts, is decided in `statement_log` and `standing`.
MEMBERSHIP.md has the rules.

    statement  [salt(16), kind, …]
    genesis    [salt, 0, founder node(32), network key(32), created ms, proof(64)]
    admit      [salt, 1, ticket key(32), joiner node(32), ticket's proof(64), joiner's proof(64)]
    grant      [salt, 2, node(32), role, spaces]
    revoke     [salt, 3, node(32), cuts]
    recover    [salt, 4, [[node(32), cuts] …], proof(64)]
    invite     [salt, 5, ticket key(32), role, spaces, expires ms]

    role            1 reader, 2 member, 3 admin
    spaces          null for all, or [space id(16) …] in order, one of each
    genesis' proof  the network key's signature over "civicnode genesis 1\\0" + the first five, encoded
    ticket's proof  the ticket key's signature over "civicnode admit 1\\0" + network id + joiner node
    joiner's proof  the joiner's signature over "civicnode join 1\\0" + network id + ticket key
    recover's proof the network key's signature over "civicnode recover 1\\0" +
                    [salt, 4, revoked, space, author(40), seq, previous, deps], the last five as in the
                    header of its commit

A kind that this version does not know is withheld: kept, forwarded, and without
effect until an upgrade.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256
from itertools import pairwise
from typing import Any

from protocol.body import SALT_BYTES
from protocol.commit import Header
from protocol.cuts import CUTS_PER_STATEMENT_MAX, Cuts, decode_cuts
from protocol.encoding import decode_exact, encode
from protocol.errors import BadSignature, Malformed, TooLarge
from protocol.ids import NODE_ID_BYTES, SPACE_ID_BYTES, NetworkId, NodeId, SpaceId
from protocol.keys import SIGNATURE_BYTES, KeyPair, verify
from protocol.limits import BODY_SIZE_MAX_BYTES
from protocol.roles import ROLE_OF_RANK, Rights

KEY_BYTES = 32
SPACES_PER_GRANT_MAX = 1_024  # agreed; far above the number of applications of a node
REVOKED_PER_RECOVERY_MAX = 1_024  # agreed; nodes that one recovery puts out
STATEMENT_KIND_MAX = 255  # agreed
EXPIRES_MS_MAX = (1 << 48) - 1

_GENESIS_DOMAIN = b"civicnode genesis 1\0"
_NETWORK_DOMAIN = b"civicnode network 1\0"
_ADMIT_DOMAIN = b"civicnode admit 1\0"
_JOIN_DOMAIN = b"civicnode join 1\0"
_RECOVER_DOMAIN = b"civicnode recover 1\0"


class StatementKind(IntEnum):
    """Kinds of statement. Numbers are for ever."""

    GENESIS = 0
    ADMIT = 1
    GRANT = 2
    REVOKE = 3
    RECOVER = 4
    INVITE = 5


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


@dataclass(frozen=True, slots=True)
class Invite:
    """Whoever proves to hold the ticket key may be admitted with these rights, once."""

    ticket_key: bytes
    rights: Rights
    expires_ms: int  # judged by the node that admits, when it does; no verdict depends on it


@dataclass(frozen=True, slots=True)
class Admit:
    """A node joins by a ticket. Both proofs together: the ticket was meant for it, and it asked to join."""

    ticket_key: bytes
    joiner: NodeId
    ticket_proof: bytes
    joiner_proof: bytes


@dataclass(frozen=True, slots=True)
class Grant:
    """A node that was admitted has these rights from now on."""

    node: NodeId
    rights: Rights


@dataclass(frozen=True, slots=True)
class Revoke:
    """A node key is out for good; of its chains only what the cuts name counts."""

    node: NodeId
    cuts: Cuts


@dataclass(frozen=True, slots=True)
class Recover:
    """The network key makes the author of the commit an admin, and puts out whom it names."""

    revoked: tuple[Revoke, ...]
    proof: bytes


@dataclass(frozen=True, slots=True)
class Unknown:
    """A statement of a newer release."""

    kind: int


Statement = Genesis | Invite | Admit | Grant | Revoke | Recover | Unknown


# -- genesis -------------------------------------------------------------------------------------------------


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


# -- the others: making and reading --------------------------------------------------------------------------


def encode_statement(statement: Invite | Admit | Grant | Revoke | Recover, salt: bytes) -> bytes:
    """The body that says `statement`. A genesis carries its own body."""
    fields: list[Any]
    match statement:
        case Admit(ticket_key, joiner, ticket_proof, joiner_proof):
            fields = [StatementKind.ADMIT.value, ticket_key, joiner, ticket_proof, joiner_proof]
        case Grant(node, rights):
            fields = [StatementKind.GRANT.value, node, *_rights_to_lists(rights)]
        case Revoke(node, cuts):
            fields = [StatementKind.REVOKE.value, node, cuts.to_lists()]
        case Recover(revoked, proof):
            fields = [StatementKind.RECOVER.value, _revoked_to_lists(revoked), proof]
        case Invite(ticket_key, rights, expires_ms):
            fields = [StatementKind.INVITE.value, ticket_key, *_rights_to_lists(rights), expires_ms]
    return encode([salt, *fields])


def statement_kind(body: bytes) -> int:
    """The kind of the statement in `body`, known to this version or not. Raises `Malformed`."""
    return _kind_and_fields(decode_exact(body))[0]


def decode_statement(body: bytes) -> Statement:
    """The statement in `body`, its inner signatures not yet verified but for a genesis.

    Raises `Malformed`, `TooLarge` or `BadSignature`, and nothing else.
    """
    if len(body) > BODY_SIZE_MAX_BYTES:
        raise TooLarge("statement in bytes", size=len(body), size_max=BODY_SIZE_MAX_BYTES)
    kind, fields = _kind_and_fields(decode_exact(body))
    match kind, fields:
        case StatementKind.GENESIS, _:
            return decode_genesis(body)
        case StatementKind.ADMIT, [ticket_key, joiner, ticket_proof, joiner_proof]:
            return Admit(
                _exactly(ticket_key, KEY_BYTES),
                NodeId(_exactly(joiner, NODE_ID_BYTES)),
                _exactly(ticket_proof, SIGNATURE_BYTES),
                _exactly(joiner_proof, SIGNATURE_BYTES),
            )
        case StatementKind.GRANT, [node, role, spaces]:
            return Grant(NodeId(_exactly(node, NODE_ID_BYTES)), _decode_rights(role, spaces))
        case StatementKind.REVOKE, [node, cuts]:
            return Revoke(NodeId(_exactly(node, NODE_ID_BYTES)), decode_cuts(cuts))
        case StatementKind.RECOVER, [list() as revoked, proof]:
            return Recover(_decode_revoked(revoked), _exactly(proof, SIGNATURE_BYTES))
        case StatementKind.INVITE, [ticket_key, role, spaces, expires_ms]:
            if type(expires_ms) is not int or not 0 <= expires_ms <= EXPIRES_MS_MAX:
                raise Malformed("an invitation with an expiry out of range")
            return Invite(_exactly(ticket_key, KEY_BYTES), _decode_rights(role, spaces), expires_ms)
    if kind in _KNOWN_KINDS:
        raise Malformed("a statement that is not of its kind's form")
    return Unknown(kind)


_KNOWN_KINDS = frozenset(kind.value for kind in StatementKind)


def _kind_and_fields(value: Any) -> tuple[int, list[Any]]:
    match value:
        case [bytes() as salt, kind, *fields] if len(salt) == SALT_BYTES and type(kind) is int:
            if 0 <= kind <= STATEMENT_KIND_MAX:
                return kind, fields
    raise Malformed("a statement is [salt, kind, …]")


def _exactly(value: Any, size: int) -> bytes:
    if type(value) is not bytes or len(value) != size:
        raise Malformed(f"a statement with something other than {size} bytes where a key or proof belongs")
    return value


def _rights_to_lists(rights: Rights) -> list[Any]:
    return [rights.role.rank, None if rights.spaces is None else sorted(rights.spaces)]


def _decode_rights(role: Any, spaces: Any) -> Rights:
    if type(role) is not int or role not in ROLE_OF_RANK:
        raise Malformed("a role is 1, 2 or 3")
    if spaces is None:
        return Rights(ROLE_OF_RANK[role])
    if type(spaces) is not list or any(
        type(item) is not bytes or len(item) != SPACE_ID_BYTES for item in spaces
    ):
        raise Malformed("spaces are null or a list of space ids")
    if len(spaces) > SPACES_PER_GRANT_MAX:
        raise TooLarge("spaces of a grant", size=len(spaces), size_max=SPACES_PER_GRANT_MAX)
    if any(a >= b for a, b in pairwise(spaces)):
        raise Malformed("spaces are in order, one of each")
    return Rights(ROLE_OF_RANK[role], frozenset(SpaceId(item) for item in spaces))


def _revoked_to_lists(revoked: Iterable[Revoke]) -> list[Any]:
    return [[item.node, item.cuts.to_lists()] for item in revoked]


def _decode_revoked(items: list[Any]) -> tuple[Revoke, ...]:
    if len(items) > REVOKED_PER_RECOVERY_MAX:
        raise TooLarge("nodes put out by a recovery", size=len(items), size_max=REVOKED_PER_RECOVERY_MAX)
    revoked: list[Revoke] = []
    for item in items:
        match item:
            case [node, cuts]:
                revoked.append(Revoke(NodeId(_exactly(node, NODE_ID_BYTES)), decode_cuts(cuts)))
            case _:
                raise Malformed("a recovery names [node, cuts]")
    if any(a.node >= b.node for a, b in pairwise(revoked)):
        raise Malformed("the nodes that a recovery names are in order, one of each")
    total = sum(len(item.cuts.cuts) for item in revoked)
    if total > CUTS_PER_STATEMENT_MAX:
        raise TooLarge("cuts of a recovery", size=total, size_max=CUTS_PER_STATEMENT_MAX)
    return tuple(revoked)


# -- proofs --------------------------------------------------------------------------------------------------


def ask_admission(ticket_keys: KeyPair, joiner_keys: KeyPair, network_id: bytes) -> Admit:
    """The admission that a joiner asks for: any member may write it down."""
    ticket_proof = ticket_keys.sign(_ADMIT_DOMAIN + network_id + joiner_keys.public)
    joiner_proof = joiner_keys.sign(_JOIN_DOMAIN + network_id + ticket_keys.public)
    return Admit(ticket_keys.public, joiner_keys.public, ticket_proof, joiner_proof)


def is_proven_admission(admit: Admit, network_id: bytes) -> bool:
    """Whether both proofs hold: nobody is admitted unasked, and no ticket admits whom its holder does not."""
    return verify(admit.ticket_key, _ADMIT_DOMAIN + network_id + admit.joiner, admit.ticket_proof) and verify(
        admit.joiner, _JOIN_DOMAIN + network_id + admit.ticket_key, admit.joiner_proof
    )


def sign_recovery(network_keys: KeyPair, revoked: Iterable[Revoke], salt: bytes, header: Header) -> bytes:
    """The body of a recovery that can stand in the commit of `header` alone.

    `header` is read but for its hlc and its body hashes, which come after. `revoked` may be in any order.
    """
    ordered = sorted(revoked, key=lambda item: item.node)
    proof = network_keys.sign(_recovery_message(salt, ordered, header))
    return encode_statement(Recover(tuple(ordered), proof), salt)


def is_proven_recovery(body: bytes, recover: Recover, network_key: bytes, header: Header) -> bool:
    """Whether the network key signed this recovery, for this place: elsewhere it is a replay."""
    salt = decode_exact(body)[0]
    return verify(network_key, _recovery_message(salt, recover.revoked, header), recover.proof)


def _recovery_message(salt: bytes, revoked: Iterable[Revoke], header: Header) -> bytes:
    deps = [[int(dep.in_system), dep.author, dep.seq, dep.hash_prefix] for dep in header.deps]
    place = [header.space, header.author, header.seq, header.previous, deps]
    fields = [salt, StatementKind.RECOVER.value, _revoked_to_lists(revoked), *place]
    return _RECOVER_DOMAIN + encode(fields)
