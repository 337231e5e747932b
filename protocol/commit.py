"""One signed entry of an author's chain in a space: header, bodies, signature.

Room: layouts, hashes and signatures of headers, and the rules that link a
header to the one before. Who may write is `integrate`'s; what is stored where
is storage's.

    header     [version, space(16), node(32), incarnation(8), seq, previous(32), hlc, deps, body hashes]
    dep        [place, author(40), seq, hash prefix(16)]; place 0 is this space, 1 is `system`
    hash       SHA-256("civicnode header 1\\0" + header)
    signature  Ed25519 over "civicnode signature 1\\0" + hash

The previous hash of seq 1 is 32 zero bytes. A chain hash costs 1/70 of a
verification, so in a contiguous run the last signature vouches for the rest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, NamedTuple

from protocol.body import HASH_BYTES, body_hash
from protocol.clock import HLC_MAX, Hlc
from protocol.encoding import decode, decode_exact, encode
from protocol.errors import BadSignature, BrokenChain, Malformed, TooLarge
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
from protocol.keys import SIGNATURE_BYTES, KeyPair, verify
from protocol.limits import (
    BODIES_PER_COMMIT_MAX,
    COMMIT_SIZE_MAX_BYTES,
    DEPS_PER_COMMIT_MAX,
    WINDOW_SIZE_MAX_BYTES,
)

VERSION = 1
DEP_HASH_BYTES = 16
NO_PREVIOUS = bytes(HASH_BYTES)
_HEADER_DOMAIN = b"civicnode header 1\0"
_SIGNATURE_DOMAIN = b"civicnode signature 1\0"


class Dep(NamedTuple):
    """A head of the commit graph that the author had integrated. `in_system` tells which of the two spaces."""

    in_system: bool
    author: Author
    seq: int
    hash_prefix: bytes


@dataclass(frozen=True, slots=True)
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
        return encode([
            VERSION, self.space, self.author[:NODE_ID_BYTES], self.author[NODE_ID_BYTES:], self.seq, self.previous,
            self.hlc, [[int(d.in_system), d.author, d.seq, d.hash_prefix] for d in self.deps], list(self.body_hashes),
        ])  # fmt: skip


@dataclass(frozen=True, slots=True)
class Commit:
    """A header as it was received or made, its hash, and its bodies; `None` stands for a body that was dropped."""

    header: Header
    header_bytes: bytes
    hash: bytes
    bodies: tuple[bytes | None, ...]
    signature: bytes | None = None  # None inside a run: a later signature vouches for it


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


def decode_header(data: bytes) -> Header:
    """The header in `data`, checked by re-encoding. Raises `Malformed` or `TooLarge`."""
    match decode_exact(data):
        case [int() as version, bytes() as space, bytes() as node, bytes() as incarnation, int() as seq,
              bytes() as previous, int() as hlc, list() as deps, list() as hashes]:  # fmt: skip
            pass
        case _:
            raise Malformed("a header has nine fixed fields")
    if version != VERSION or isinstance(version, bool):
        raise Malformed(f"header version {version}, this node reads {VERSION}")
    if len(space) != SPACE_ID_BYTES or len(node) != NODE_ID_BYTES or len(incarnation) != INCARNATION_BYTES:
        raise Malformed("a header with a space, node or incarnation of a wrong length")
    if isinstance(seq, bool) or not 0 < seq < 1 << 63 or isinstance(hlc, bool) or not 0 < hlc <= HLC_MAX:
        raise Malformed("a header with a seq or hlc out of range")
    if len(previous) != HASH_BYTES or (seq == 1) != (previous == NO_PREVIOUS):
        raise Malformed("a header whose previous hash does not fit its seq")
    if len(hashes) > BODIES_PER_COMMIT_MAX:
        raise TooLarge("bodies in a commit", size=len(hashes), size_max=BODIES_PER_COMMIT_MAX)
    if any(not isinstance(item, bytes) or len(item) != HASH_BYTES for item in hashes):
        raise Malformed("a body hash of a wrong length")
    author = author_of(node, incarnation)
    return Header(SpaceId(space), author, seq, previous, hlc, _decode_deps(deps, author), tuple(hashes))


def _decode_deps(deps: list[Any], author: bytes) -> tuple[Dep, ...]:
    if len(deps) > DEPS_PER_COMMIT_MAX:
        raise TooLarge("deps of a commit", size=len(deps), size_max=DEPS_PER_COMMIT_MAX)
    decoded: list[Dep] = []
    for dep in deps:
        match dep:
            case [0 | 1 as place, bytes() as named, int() as seq, bytes() as prefix] if (
                len(named) == AUTHOR_BYTES
                and 0 < seq < 1 << 63
                and len(prefix) == DEP_HASH_BYTES
                and not isinstance(place, bool)
                and not isinstance(seq, bool)
            ):
                decoded.append(Dep(bool(place), Author(named), seq, prefix))
            case _:
                raise Malformed("a dep is [place, author, seq, hash prefix]")
    if decoded != sorted(set(decoded)):
        raise Malformed("deps are sorted and named once")
    if any(dep.author == author and not dep.in_system for dep in decoded):
        raise Malformed("an author's own chain is named by the previous hash, not by a dep")
    return tuple(decoded)


def make_commit(header_bytes: bytes, bodies: Sequence[bytes | None], signature: bytes | None) -> Commit:
    """A commit out of stored or received parts. Raises if a body is not the one that the header names."""
    header = decode_header(header_bytes)
    check_bodies(header, bodies)
    return Commit(header, header_bytes, header_hash(header_bytes), tuple(bodies), signature)


def check_bodies(header: Header, bodies: Sequence[bytes | None]) -> None:
    """Raise unless `bodies` are those of the header; a body that is `None` was dropped and is not checked."""
    if len(bodies) != len(header.body_hashes):
        raise BrokenChain(f"{len(bodies)} bodies for {len(header.body_hashes)} hashes")
    size = sum(len(body) for body in bodies if body is not None)
    if size > COMMIT_SIZE_MAX_BYTES:
        raise TooLarge("commit in bytes", size=size, size_max=COMMIT_SIZE_MAX_BYTES)
    for body, expected in zip(bodies, header.body_hashes, strict=True):
        if body is not None and body_hash(body) != expected:
            raise BrokenChain("a body does not have the hash that the header signs")


# -- runs and windows ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive commits of one author in one space, the last of them signed.

    Author, seq, previous hash and the hashes of bodies present are recomputed, not sent:

        run     [space, author, first seq, previous hash, entries, signature of the last]
        entry   [hlc minus the hlc before, deps, bodies]; a dropped body is given by its hash
        body    [bytes] or [0, hash]
    """

    commits: tuple[Commit, ...]

    def encode(self) -> bytes:
        first = self.commits[0].header
        entries: list[Any] = []
        hlc = 0
        for commit in self.commits:
            deps = [[int(d.in_system), d.author, d.seq, d.hash_prefix] for d in commit.header.deps]
            bodies = [
                [body] if body is not None else [0, digest]
                for body, digest in zip(commit.bodies, commit.header.body_hashes, strict=True)
            ]
            entries.append([commit.header.hlc - hlc, deps, bodies])
            hlc = commit.header.hlc
        return encode([first.space, first.author, first.seq, first.previous, entries, self.commits[-1].signature])


def decode_run(data: bytes) -> Run:
    """The run in `data`, its last signature verified. Raises `Malformed`, `TooLarge` or `BadSignature`."""
    if len(data) > COMMIT_SIZE_MAX_BYTES + WINDOW_SIZE_MAX_BYTES:
        raise TooLarge("run in bytes", size=len(data), size_max=COMMIT_SIZE_MAX_BYTES + WINDOW_SIZE_MAX_BYTES)
    match decode(data):
        case [bytes() as space, bytes() as author, int() as seq, bytes() as previous, [_, *_] as entries,
              bytes() as signature] if len(author) == AUTHOR_BYTES and len(signature) == SIGNATURE_BYTES:  # fmt: skip
            pass
        case _:
            raise Malformed("a run is [space, author, first seq, previous hash, entries, signature]")
    commits: list[Commit] = []
    hlc = 0
    for entry in entries:
        match entry:
            case [int() as hlc_step, list() as deps, list() as parts] if hlc_step > 0 and not isinstance(hlc_step, bool):
                hlc += hlc_step
            case _:
                raise Malformed("an entry of a run is [hlc step, deps, bodies]")
        bodies, hashes = _decode_parts(parts)
        # Built as bytes and decoded again, so that exactly one piece of code decides what a header may hold.
        header_bytes = encode([VERSION, space, author[:NODE_ID_BYTES], author[NODE_ID_BYTES:], seq, previous, hlc,
                               deps, hashes])  # fmt: skip
        commit = make_commit(header_bytes, bodies, None)
        commits.append(commit)
        seq, previous = seq + 1, commit.hash
    last = commits[-1]
    if not verify_signature(author, last.hash, signature):
        raise BadSignature(f"run of {len(commits)} commits up to seq {last.header.seq}")
    commits[-1] = Commit(last.header, last.header_bytes, last.hash, last.bodies, signature)
    return Run(tuple(commits))


def _decode_parts(parts: list[Any]) -> tuple[list[bytes | None], list[bytes]]:
    bodies: list[bytes | None] = []
    hashes: list[bytes] = []
    for part in parts:
        match part:
            case [bytes() as body]:
                bodies.append(body)
                hashes.append(body_hash(body))
            case [0, bytes() as digest] if part[0] is not False:
                bodies.append(None)
                hashes.append(digest)
            case _:
                raise Malformed("a body in a run is [bytes] or [0, hash]")
    return bodies, hashes


def encode_window(runs: Sequence[Run]) -> bytes:
    """A window: the runs of several authors that travel together, `[run …]`, each run as bytes."""
    data = encode([run.encode() for run in runs])
    if len(data) > WINDOW_SIZE_MAX_BYTES and len(runs) > 1:
        raise TooLarge("window in bytes", size=len(data), size_max=WINDOW_SIZE_MAX_BYTES)
    return data


def decode_window(data: bytes) -> list[Run]:
    """The runs of a window: every signature verified, at most one run an author and space."""
    match decode(data):
        case list() as items if items and all(isinstance(item, bytes) for item in items):
            runs = [decode_run(item) for item in items]
        case _:
            raise Malformed("a window is a list of runs")
    if len({(run.commits[0].header.space, run.commits[0].header.author) for run in runs}) != len(runs):
        raise Malformed("a window has one run an author and space")
    return runs
