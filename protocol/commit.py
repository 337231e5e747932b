"""One signed entry of an author's chain in a space: header, bodies, signature.

Room: layouts, hashes and signatures of headers, and the rules that link a
header to the one before. Who may write is `integrate`'s; how commits travel is
`window`'s; what is stored where is storage's.

    header     [version, space(16), node(32), incarnation(8), seq, previous(32), hlc, deps, body hashes]
    dep        [place, author(40), seq, hash prefix(16)]; place 0 is this space, 1 is `system`
    hash       SHA-256("civicnode header 1\\0" + header)
    signature  Ed25519 over "civicnode signature 1\\0" + hash

The previous hash of seq 1 is 32 zero bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from typing import Any, NamedTuple

from protocol.body import HASH_BYTES, Stub, body_hash
from protocol.clock import HLC_MAX, Hlc
from protocol.encoding import decode_exact, encode
from protocol.errors import BrokenChain, Malformed, TooLarge
from protocol.ids import (
    AUTHOR_BYTES,
    INCARNATION_BYTES,
    NODE_ID_BYTES,
    SPACE_ID_BYTES,
    Author,
    NodeId,
    SpaceId,
    author_of,
)
from protocol.keys import KeyPair, verify
from protocol.limits import BODIES_PER_COMMIT_MAX, COMMIT_SIZE_MAX_BYTES, DEPS_PER_COMMIT_MAX

VERSION = 1
DEP_HASH_BYTES = 16
NO_PREVIOUS = bytes(HASH_BYTES)
_HEADER_DOMAIN = b"civicnode header 1\0"
_SIGNATURE_DOMAIN = b"civicnode signature 1\0"
# What stands before the fields of a header of fixed length.
_HASH_HEAD = encode(bytes(HASH_BYTES))[:-HASH_BYTES]
_ONE_HASH = encode([bytes(HASH_BYTES)])[:-HASH_BYTES]
_FRAME = (
    b"\x89" + encode(VERSION) + encode(bytes(SPACE_ID_BYTES))[:-SPACE_ID_BYTES],
    encode(bytes(NODE_ID_BYTES))[:-NODE_ID_BYTES],
    encode(bytes(INCARNATION_BYTES))[:-INCARNATION_BYTES],
)


class Dep(NamedTuple):
    """A head of the commit graph that the author had integrated, in its space or in `system`."""

    in_system: bool
    author: Author
    seq: int
    hash_prefix: bytes


@dataclass(slots=True, unsafe_hash=True)  # never changed; frozen, each would take twice the time to make
class Header:
    """What the author signs. Equal headers have equal bytes."""

    space: SpaceId
    author: Author
    seq: int
    previous: bytes
    hlc: Hlc
    deps: tuple[Dep, ...]
    body_hashes: tuple[bytes, ...]

    @property
    def node(self) -> NodeId:
        return NodeId(self.author[:NODE_ID_BYTES])

    def encode(self) -> bytes:
        deps = deps_to_lists(self.deps)
        return encode_header(
            self.space, self.author, self.seq, self.previous, self.hlc, deps, self.body_hashes
        )


def deps_to_lists(deps: Sequence[Dep]) -> list[list[Any]]:
    """Deps as they stand in a header."""
    return [[int(d.in_system), d.author, d.seq, d.hash_prefix] for d in deps]


@dataclass(slots=True, unsafe_hash=True)  # as a header
class Commit:
    """A header as received or made, its hash, and its bodies; `None` stands for one that is not here.

    Of those that were dropped `stubs` has what is left, each with its index, ascending.
    """

    header: Header
    header_bytes: bytes
    hash: bytes
    bodies: tuple[bytes | None, ...]
    signature: bytes | None = None  # None inside a run: a later signature vouches for it
    stubs: tuple[tuple[int, Stub], ...] = ()


def header_hash(header_bytes: bytes) -> bytes:
    """The hash by which the next header and other authors' deps name this one."""
    return sha256(_HEADER_DOMAIN + header_bytes).digest()


def sign_commit(keys: KeyPair, header: Header, bodies: Sequence[bytes]) -> Commit:
    """A commit of our own. `header.body_hashes` are those of `bodies`."""
    header_bytes = header.encode()
    digest = header_hash(header_bytes)
    return Commit(header, header_bytes, digest, tuple(bodies), keys.sign(_SIGNATURE_DOMAIN + digest))


def verify_signature(author: bytes, digest: bytes, signature: bytes) -> bool:
    """Whether `signature` is that of the author's node over a header of this hash."""
    return verify(author[:NODE_ID_BYTES], _SIGNATURE_DOMAIN + digest, signature)


def encode_header(
    space: bytes,
    author: bytes,
    seq: int,
    previous: bytes,
    hlc: int,
    deps: Sequence[Sequence[Any]],
    body_hashes: Sequence[bytes],
) -> bytes:
    """The bytes of a header of this version, put together by hand: there is one in every commit.

    They are those of the encoded list if every part has its length, which `check_header` sees to.
    """
    return b"".join(
        (
            _FRAME[0],
            space,
            _FRAME[1],
            author[:NODE_ID_BYTES],
            _FRAME[2],
            author[NODE_ID_BYTES:],
            encode(seq),
            _HASH_HEAD,
            previous,
            encode(hlc),
            encode(deps) if deps else b"\x80",
            _ONE_HASH + body_hashes[0] if len(body_hashes) == 1 else encode(body_hashes),
        )
    )


def decode_header(data: bytes) -> Header:
    """The header in `data`, checked by re-encoding. Raises `Malformed` or `TooLarge`."""
    match decode_exact(data):
        case [int() as version, bytes() as space, bytes() as node, bytes() as incarnation, int() as seq,
              bytes() as previous, int() as hlc, list() as deps, list() as hashes]:  # fmt: skip
            pass
        case _:
            raise Malformed("a header has nine fixed fields")
    if bool in (type(version), type(seq), type(hlc)):
        raise Malformed("a header with a truth value for a number")
    if version != VERSION:
        raise Malformed(f"header version {version}, this node reads {VERSION}")
    if len(node) != NODE_ID_BYTES or len(incarnation) != INCARNATION_BYTES:
        raise Malformed("a header with a node or incarnation of a wrong length")
    return check_header(space, author_of(node, incarnation), seq, previous, hlc, deps, hashes)


def check_header(
    space: bytes, author: Author, seq: int, previous: bytes, hlc: int, deps: list[Any], hashes: list[Any]
) -> Header:
    """The header of these fields, which have the declared types. Raises `Malformed` or `TooLarge`."""
    if len(space) != SPACE_ID_BYTES or len(author) != AUTHOR_BYTES:
        raise Malformed("a header with a space or an author of a wrong length")
    if not 0 < seq < 1 << 63 or not 0 < hlc <= HLC_MAX:
        raise Malformed("a header with a seq or hlc out of range")
    if len(previous) != HASH_BYTES or (seq == 1) != (previous == NO_PREVIOUS):
        raise Malformed("a header whose previous hash does not fit its seq")
    if len(hashes) > BODIES_PER_COMMIT_MAX:
        raise TooLarge("bodies in a commit", size=len(hashes), size_max=BODIES_PER_COMMIT_MAX)
    for item in hashes:
        if type(item) is not bytes or len(item) != HASH_BYTES:
            raise Malformed("a body hash of a wrong length")
    return Header(SpaceId(space), author, seq, previous, hlc, _decode_deps(deps, author), tuple(hashes))


def check_deps(deps: Sequence[Dep], author: bytes) -> None:
    """Raise `Malformed` or `TooLarge` if a header of this author may not hold these deps."""
    if len(deps) > DEPS_PER_COMMIT_MAX:
        raise TooLarge("deps of a commit", size=len(deps), size_max=DEPS_PER_COMMIT_MAX)
    if any(a[:2] >= b[:2] for a, b in pairwise(deps)):
        raise Malformed("deps are in the order of place and author, one of each")
    if any(dep.author == author and not dep.in_system for dep in deps):
        raise Malformed("an author's own chain is named by the previous hash, not by a dep")


def _decode_deps(deps: list[Any], author: bytes) -> tuple[Dep, ...]:
    decoded: list[Dep] = []
    for dep in deps:
        match dep:
            case [0 | 1 as place, bytes() as named, seq, bytes() as prefix] if (
                len(named) == AUTHOR_BYTES
                and len(prefix) == DEP_HASH_BYTES
                and type(place) is type(seq) is int  # neither a bool nor 1.0
                and 0 < seq < 1 << 63
            ):
                decoded.append(Dep(bool(place), Author(named), seq, prefix))
            case _:
                raise Malformed("a dep is [place, author, seq, hash prefix]")
    check_deps(decoded, author)
    return tuple(decoded)


def commit_of_fields(
    header: Header, header_bytes: bytes, bodies: Sequence[bytes | None], stubs: Mapping[int, Stub]
) -> Commit:
    """A commit whose header bytes and body hashes were just computed of what it holds. Raises `TooLarge`."""
    _check_size(bodies)
    return Commit(header, header_bytes, header_hash(header_bytes), tuple(bodies), None, tuple(stubs.items()))


def make_commit(
    header_bytes: bytes,
    bodies: Sequence[bytes | None],
    signature: bytes | None,
    stubs: Mapping[int, Stub] | None = None,
) -> Commit:
    """A commit out of stored or received parts. Raises if a body or stub is not of one that the header names."""
    return commit_of_parts(decode_header(header_bytes), header_bytes, bodies, signature, stubs)


def commit_of_parts(
    header: Header,
    header_bytes: bytes,
    bodies: Sequence[bytes | None],
    signature: bytes | None,
    stubs: Mapping[int, Stub] | None,
) -> Commit:
    """The same where the header was decoded before."""
    check_bodies(header, bodies)
    held = tuple(sorted(stubs.items())) if stubs else ()
    for index, stub in held:
        if bodies[index] is not None or stub.hash != header.body_hashes[index]:
            raise BrokenChain("a stub does not have the hash that the header signs")
    return Commit(header, header_bytes, header_hash(header_bytes), tuple(bodies), signature, held)


def check_bodies(header: Header, bodies: Sequence[bytes | None]) -> None:
    """Raise unless `bodies` are those of the header; one that is `None` is not here and is not checked."""
    if len(bodies) != len(header.body_hashes):
        raise BrokenChain(f"{len(bodies)} bodies for {len(header.body_hashes)} hashes")
    _check_size(bodies)
    for body, expected in zip(bodies, header.body_hashes, strict=True):
        if body is not None and body_hash(body) != expected:
            raise BrokenChain("a body does not have the hash that the header signs")


def _check_size(bodies: Sequence[bytes | None]) -> None:
    size = sum([len(body) for body in bodies if body is not None])
    if size > COMMIT_SIZE_MAX_BYTES:
        raise TooLarge("commit in bytes", size=size, size_max=COMMIT_SIZE_MAX_BYTES)
