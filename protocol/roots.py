"""A hash tree over the heads of a space, and one root over all spaces that two peers share.

Room: when two nodes hold the same commits, in one comparison of 32 bytes; where
they differ, in a walk of a few levels. Nothing is stored here: the tree is built
from heads and kept up with them, one path a change.

The tree is a trie over SHA-256 of the author, sixteen ways at each level. Its
shape follows from the set of heads alone, whatever the order they came in: a
place with at most `LEAF_HEADS_MAX` heads below it is a leaf.

    leaf   SHA-256("civicnode leaf 1\\0"   + each head: author(40), seq u64, hash(32); in the order of keys)
    inner  SHA-256("civicnode branch 1\\0" + the sixteen roots below)
    hash   that of the head's header; or, of a chain of which bodies are missing that no erasure accounts for,
           SHA-256("civicnode lacking 1\0" + that hash + each of them: seq u64, index u32; ascending)
    empty  32 zero bytes
    all    SHA-256("civicnode root 1\\0"   + each space that is not empty: space id(16), root; in their order)

A chain of which a seq was signed twice has its first such seq for a head, with a hash that says no more than that:

    fork   SHA-256("civicnode fork 1\\0"   + author(40), seq u64; in `system` the hash of the newest commit of each
           branch, ascending)
"""

from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256

from protocol.ids import Author

LEAF_HEADS_MAX = 16  # a leaf then takes about a kilobyte to tell in full
EMPTY = bytes(32)
_WAYS = 16
_LEAF_DOMAIN = b"civicnode leaf 1\0"
_BRANCH_DOMAIN = b"civicnode branch 1\0"
_ROOT_DOMAIN = b"civicnode root 1\0"
_LACKING_DOMAIN = b"civicnode lacking 1\0"
_FORK_DOMAIN = b"civicnode fork 1\0"
Path = tuple[int, ...]  # of nibbles, from the root down
_Leaf = dict[bytes, tuple[Author, int, bytes]]  # by key: author, seq, hash


class _Place:
    """One place of the trie: a leaf, or a branch of sixteen."""

    __slots__ = ("below", "count", "heads", "root")

    def __init__(self) -> None:
        self.heads: _Leaf = {}
        self.below: list[_Place] | None = None
        self.count = 0
        self.root: bytes | None = EMPTY  # None: to be computed


def lacking_hash(digest: bytes, missing: Iterable[tuple[int, int]]) -> bytes:
    """What stands for a head in the root of who lacks bodies below it: seq and index of each, ascending."""
    parts = [seq.to_bytes(8, "big") + index.to_bytes(4, "big") for seq, index in missing]
    return sha256(_LACKING_DOMAIN + digest + b"".join(parts)).digest()


class HeadTree:
    """The heads of one space, with their root. A change costs one path, the root is computed when asked."""

    def __init__(self, heads: Iterable[tuple[Author, int, bytes]] = ()) -> None:
        self._top = _Place()
        for author, seq, digest in heads:
            self.update(author, seq, digest)

    def __len__(self) -> int:
        """How many authors have a head here."""
        return self._top.count

    def update(self, author: Author, seq: int, digest: bytes) -> None:
        """The head of an author is now this one."""
        key = sha256(author).digest()
        path = [self._top]
        while (below := path[-1].below) is not None:
            path.append(below[_nibble(key, len(path) - 1)])
        leaf = path[-1]
        is_new = key not in leaf.heads
        leaf.heads[key] = (author, seq, digest)
        for place in path:
            place.root = None
            place.count += is_new
        if len(leaf.heads) > LEAF_HEADS_MAX:
            _split(leaf, len(path) - 1)

    @property
    def root(self) -> bytes:
        """The same on every node that has the same heads; `EMPTY` if there are none."""
        return _root_of(self._top)

    def branches(self, path: Path = ()) -> tuple[bytes, ...] | None:
        """The sixteen roots below a path; None where the tree has a leaf, or ends above."""
        place, depth = self._descend(path)
        if depth < len(path) or place.below is None:
            return None
        return tuple(_root_of(child) for child in place.below)

    def heads(self, path: Path = ()) -> Iterator[tuple[Author, int, bytes]]:
        """All heads whose key begins with the path: author, seq, hash. Do not change the tree meanwhile."""
        place, depth = self._descend(path)
        places = [place]
        while places:
            held = places.pop()
            for key, head in held.heads.items():
                if all(_nibble(key, level) == path[level] for level in range(depth, len(path))):
                    yield head
            places += held.below or ()

    def _descend(self, path: Path) -> tuple[_Place, int]:
        """The place at a path, or the leaf above it, with its depth."""
        place = self._top
        for depth, nibble in enumerate(path):
            if place.below is None:
                return place, depth
            place = place.below[nibble]
        return place, len(path)


def _nibble(key: bytes, level: int) -> int:
    byte = key[level >> 1]
    return byte & 15 if level & 1 else byte >> 4


def _split(leaf: _Place, level: int) -> None:
    leaf.below = [_Place() for _ in range(_WAYS)]
    for key, head in leaf.heads.items():
        child = leaf.below[_nibble(key, level)]
        child.heads[key] = head
        child.count += 1
        child.root = None
    leaf.heads = {}
    for child in leaf.below:
        if len(child.heads) > LEAF_HEADS_MAX:
            _split(child, level + 1)


def _root_of(place: _Place) -> bytes:
    if place.root is None:
        if place.below is not None:
            told = b"".join([_root_of(child) for child in place.below])
            place.root = sha256(_BRANCH_DOMAIN + told).digest()
        elif place.heads:
            heads = [place.heads[key] for key in sorted(place.heads)]
            told = b"".join([author + seq.to_bytes(8, "big") + digest for author, seq, digest in heads])
            place.root = sha256(_LEAF_DOMAIN + told).digest()
        else:
            place.root = EMPTY
    return place.root


def root_over(spaces: Mapping[bytes, bytes]) -> bytes:
    """One root over the roots of spaces by their id; spaces without a commit make no difference."""
    told = b"".join([space + root for space, root in sorted(spaces.items()) if root != EMPTY])
    return sha256(_ROOT_DOMAIN + told).digest()


def fork_mark(author: Author, seq: int, tips: Iterable[bytes] = ()) -> bytes:
    """In place of the hash of a head: this seq was signed twice, and nothing lower is known to have been.

    In `system` the hashes of the newest commits of all branches come with it, whose statements are needed everywhere.
    """
    return sha256(_FORK_DOMAIN + author + seq.to_bytes(8, "big") + b"".join(sorted(tips))).digest()
