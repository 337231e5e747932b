"""The history of one document, as the search for common ancestors wants it.

Room: `protocol.ancestor.Past` over a snapshot of the store. It reads what is
asked for and keeps nothing.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial

from protocol.ancestor import NOTHING, PastOf, Reach, Told
from protocol.body import Dot, decode_body
from protocol.document import Document
from protocol.errors import ProtocolError
from protocol.ids import Author, SpaceId
from protocol.integrate import Verdict
from protocol.limits import BODIES_PER_COMMIT_MAX
from storage.documents import BodyAddress
from storage.store import Snapshot, Store


class StoredPast:
    """What came before what, in one document of a snapshot."""

    def __init__(self, snapshot: Snapshot, space: SpaceId, document: Document) -> None:
        """`document` may be further than the snapshot, by bodies of a commit in the making."""
        self._snapshot = snapshot
        self._space = space
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


def past_in(snapshot: Snapshot, space: SpaceId) -> PastOf:
    """How to find the past of a space's documents, for as long as the snapshot lasts."""
    return partial(StoredPast, snapshot, space)


def past_when_asked(store: Store, space: SpaceId, stack: ExitStack) -> PastOf:
    """The same for who has no snapshot: one is opened with the first question, and closed by the stack."""
    opened: list[Snapshot] = []

    def past_of(document: Document) -> StoredPast:
        if not opened:
            opened.append(stack.enter_context(store.read()))
        return StoredPast(opened[0], space, document)

    return past_of
