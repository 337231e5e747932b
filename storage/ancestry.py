"""The history of one document, as the search for common ancestors wants it.

Room: `protocol.ancestor.Past` over a snapshot of the store, and a bounded memory
of where values came from: a document may stay in conflict while much is written
to it, and its history is not gone through again for each of these writes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from hashlib import sha256

from protocol.ancestor import NOTHING, Origin, PastOf, Reach, Told, common, origins, value_said
from protocol.body import Dot, decode_body
from protocol.document import Document
from protocol.encoding import encode
from protocol.errors import ProtocolError
from protocol.ids import Author, SpaceId
from protocol.integrate import Verdict
from protocol.limits import BODIES_PER_COMMIT_MAX
from storage.documents import BodyAddress
from storage.store import Snapshot, Store

FOUND_MAX = 4_096


class KnownOrigins:
    """Where values came from, as it was found before. From any thread."""

    def __init__(self) -> None:
        self._dots: dict[bytes, tuple[int, tuple[Dot, ...]]] = {}

    def get(self, key: bytes, rejudged: int) -> tuple[Dot, ...] | None:
        """What was found while nothing was judged again since the arrival `rejudged`."""
        known = self._dots.get(key)
        return known[1] if known is not None and known[0] == rejudged else None

    def put(self, key: bytes, rejudged: int, dots: tuple[Dot, ...]) -> None:
        if len(self._dots) >= FOUND_MAX:
            self._dots = {}
        self._dots[key] = rejudged, dots


class StoredPast:
    """What came before what, in one document of a snapshot."""

    def __init__(
        self, snapshot: Snapshot, space: SpaceId, found: KnownOrigins | None, document: Document
    ) -> None:
        """`document` may be further than the snapshot, by bodies of a commit in the making."""
        self._snapshot = snapshot
        self._space = space
        self._found = found
        self._document = document
        self._heads: dict[bytes, int] = {}

    def reach(self, dot: Dot, author: bytes) -> Reach:
        if dot.author == author:
            return dot.seq, dot.index - 1
        if dot.seq > self._head(dot.author):  # in the making: it builds on all that is here
            return self._document.vector.get(author, NOTHING)
        known = self._snapshot.log.knows(self._space, dot.author, dot.seq, author)
        return (known, BODIES_PER_COMMIT_MAX) if known else NOTHING

    def _head(self, author: bytes) -> int:
        seq = self._heads.get(author)
        if seq is None:
            head = self._snapshot.head(self._space, Author(author))
            seq = self._heads[author] = head.seq if head is not None else 0
        return seq

    def newest_first(self, within: Mapping[bytes, Reach]) -> Iterator[tuple[Dot, Callable[[], Told | None]]]:
        names, document = self._snapshot.names, self._document
        addresses = self._snapshot.documents.history_backwards(self._space, document.model, document.id)
        for address in addresses:
            author = names.author(address.chain)
            if (address.seq, address.index) <= within.get(author, NOTHING):
                yield (
                    Dot(author, address.seq, address.index),
                    partial(told_at, self._snapshot, address),
                )

    def origins_of(self, name: str, dots: Sequence[Dot]) -> list[Origin]:
        within = common(self, self._document.vector, dots)
        if self._found is None:
            return origins(self, name, within)
        key, rejudged = self._key(name, within), self._snapshot.log.last_rejudged()
        known = self._found.get(key, rejudged)
        if known is not None:
            return [origin for dot in known for origin in self._said(dot, name)]
        found = origins(self, name, within)
        self._found.put(key, rejudged, tuple(origin.dot for origin in found))
        return found

    def _key(self, name: str, within: Mapping[bytes, Reach]) -> bytes:
        """Names the bodies within these reaches, as long as none of them is judged again."""
        document, parts = self._document, sorted(within.items())
        return sha256(encode([self._space, document.model, document.id, name, parts])).digest()

    def _said(self, dot: Dot, name: str) -> list[Origin]:
        chain = self._snapshot.names.chain(self._space, dot.author)
        told = None if chain is None else told_at(self._snapshot, BodyAddress(chain, dot.seq, dot.index))
        if told is None:
            return []
        return [Origin(dot, told.hlc, value) for value in value_said(told.body.operations, name) or ()]


def told_at(snapshot: Snapshot, address: BodyAddress) -> Told | None:
    """The body at an address; None if it was not applied, or is gone."""
    log, author = snapshot.log, snapshot.names.author(address.chain)
    if log.verdict(address.chain, address.seq, address.index) is not Verdict.APPLIED:
        return None
    data = log.body(address.chain, address.seq, address.index)
    if data is None:
        return None
    try:
        body = decode_body(data, author)
    except ProtocolError:
        return None
    hlc = log.header_fields(address.chain, address.seq).hlc
    return Told(Dot(author, address.seq, address.index), hlc, body)


def past_in(snapshot: Snapshot, space: SpaceId, found: KnownOrigins | None = None) -> PastOf:
    """How to find the past of a space's documents, for as long as the snapshot lasts."""
    return partial(StoredPast, snapshot, space, found)


def past_when_asked(
    store: Store, space: SpaceId, stack: ExitStack, found: KnownOrigins | None = None
) -> PastOf:
    """The same for who has no snapshot: one is opened with the first question, and closed by the stack."""
    opened: list[Snapshot] = []

    def past_of(document: Document) -> StoredPast:
        if not opened:
            opened.append(stack.enter_context(store.read()))
        return StoredPast(opened[0], space, found, document)

    return past_of
