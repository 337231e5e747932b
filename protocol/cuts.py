"""Where the chains of a revoked node end: what a revocation leaves standing of each.

Room: the value and its layout. Which revocations stand, and so which cuts
apply, is decided in `standing`.

    cut   [space(16), incarnation(8), last seq that counts, hash of that header(32)]
    cuts  [cut …], in the order of space and incarnation, one of each

A chain that is not named ends before its first commit. Of several cuts the lowest
counts: a commit has to be within each. Where the chain forks, its branches end
at their common prefix, unless the cuts settle which of them counts: then those
commits do that every named header continues.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

from protocol.body import HASH_BYTES
from protocol.errors import LocalMisuse, Malformed, TooLarge
from protocol.ids import INCARNATION_BYTES, NODE_ID_BYTES, SPACE_ID_BYTES, Author, SpaceId, node_of

CUTS_PER_STATEMENT_MAX = 16_384  # agreed; 60 bytes each, so that a statement stays within the size of a body


class Cut(NamedTuple):
    """The last commit that counts of one chain of a revoked node."""

    space: SpaceId
    incarnation: bytes
    seq: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Cuts:
    """All that one revocation leaves standing. In the order of space and incarnation."""

    cuts: tuple[Cut, ...] = ()
    _by_chain: dict[tuple[bytes, bytes], Cut] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_chain", {(cut.space, cut.incarnation): cut for cut in self.cuts})

    @classmethod
    def at_heads(cls, heads: Iterable[tuple[SpaceId, Author, int, bytes]]) -> "Cuts":
        """Cuts that leave standing what one has seen of a node: its heads, as space, author, seq and hash.

        Raises `LocalMisuse` for heads of several nodes, or two of one chain.
        """
        found = list(heads)
        cuts = sorted(Cut(space, author[NODE_ID_BYTES:], seq, digest) for space, author, seq, digest in found)
        if len({node_of(author) for _, author, _, _ in found}) > 1:
            raise LocalMisuse("cuts are those of one node")
        if any(a[:2] == b[:2] for a, b in pairwise(cuts)):
            raise LocalMisuse("a chain is cut once")
        return cls(tuple(cuts))

    def of_chain(self, space: bytes, incarnation: bytes) -> Cut | None:
        """The cut of one chain; None if nothing of it counts."""
        return self._by_chain.get((space, incarnation))

    def to_lists(self) -> list[list[Any]]:
        return [list(cut) for cut in self.cuts]


def is_within(cuts: Iterable[Cuts], space: bytes, incarnation: bytes, seq: int, header_hash: bytes) -> bool:
    """Whether a commit with this place and hash is cut off by none of these."""
    for each in cuts:
        cut = each.of_chain(space, incarnation)
        if cut is None or seq > cut.seq or (seq == cut.seq and header_hash != cut.hash):
            return False
    return True


def is_settled(
    cuts: Sequence[Cuts], space: bytes, incarnation: bytes, leads_to: Callable[[Cut], bool]
) -> bool:
    """Whether a commit at or above a fork counts nevertheless.

    `leads_to` tells whether the header that a cut names is here, and is the commit or continues it.
    """
    named = [each.of_chain(space, incarnation) for each in cuts]
    return bool(named) and all(cut is not None and leads_to(cut) for cut in named)


def decode_cuts(value: Any) -> Cuts:
    """The cuts in a decoded list. Raises `Malformed` or `TooLarge`."""
    if type(value) is not list:
        raise Malformed("cuts are a list")
    if len(value) > CUTS_PER_STATEMENT_MAX:
        raise TooLarge("cuts of a revocation", size=len(value), size_max=CUTS_PER_STATEMENT_MAX)
    cuts: list[Cut] = []
    for item in value:
        match item:
            case [bytes() as space, bytes() as incarnation, seq, bytes() as digest] if (
                len(space) == SPACE_ID_BYTES
                and len(incarnation) == INCARNATION_BYTES
                and len(digest) == HASH_BYTES
                and type(seq) is int
                and 0 < seq < 1 << 63
            ):
                cuts.append(Cut(SpaceId(space), incarnation, seq, digest))
            case _:
                raise Malformed("a cut is [space, incarnation, seq, header hash]")
    if any(a[:2] >= b[:2] for a, b in pairwise(cuts)):
        raise Malformed("cuts are in the order of space and incarnation, one of each")
    return Cuts(tuple(cuts))
