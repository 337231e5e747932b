"""Version vectors: for each author, how much of its chain is known.

Room: comparing, merging and subtracting vectors. Used by sync to find what a
peer lacks, and shown to applications as the document's `version_vector`; the
order of `compare` is that of CivicBase, "Version Vectors" (1, -1, 0 or None).
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Generic, TypeVar

A = TypeVar("A", bound=bytes | str)


class VersionVector(Generic[A]):
    """A map from author to the last sequence number known of it; absent means 0."""

    __slots__ = ("_seqs",)

    def __init__(self, seqs: Mapping[A, int] | Iterable[tuple[A, int]] = ()) -> None:
        self._seqs = {author: seq for author, seq in dict(seqs).items() if seq > 0}

    def __getitem__(self, author: A) -> int:
        return self._seqs.get(author, 0)

    def __iter__(self) -> Iterator[tuple[A, int]]:
        """Pairs of author and seq, in the order of the authors."""
        return iter(sorted(self._seqs.items()))

    def __len__(self) -> int:
        return len(self._seqs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, VersionVector) and self._seqs == other._seqs

    def __hash__(self) -> int:
        return hash(frozenset(self._seqs.items()))

    def __repr__(self) -> str:
        return f"VersionVector({self._seqs!r})"

    def advanced(self, author: A, seq: int) -> "VersionVector[A]":
        """This vector, knowing `author` up to at least `seq`."""
        return VersionVector({**self._seqs, author: max(seq, self[author])})

    def merged(self, other: "VersionVector[A]") -> "VersionVector[A]":
        """What is known where both are known: the least upper bound."""
        return VersionVector({a: max(self[a], other[a]) for a in self._seqs.keys() | other._seqs.keys()})

    def compare(self, other: "VersionVector[A]") -> int | None:
        """1 if this one knows more, -1 if less, 0 if the same, None if each knows what the other lacks."""
        authors = self._seqs.keys() | other._seqs.keys()
        ahead = any(self[a] > other[a] for a in authors)
        behind = any(self[a] < other[a] for a in authors)
        if ahead and behind:
            return None
        return int(ahead) - int(behind)

    def missing_from(self, other: "VersionVector[A]") -> dict[A, tuple[int, int]]:
        """For each author that `other` lacks something of: its seq after which, and ours up to which."""
        return {a: (other[a], seq) for a, seq in sorted(self._seqs.items()) if seq > other[a]}
