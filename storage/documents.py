"""The live states of documents, and where the bodies of each are to be found in the log.

Room: the only place that knows the tables `documents` and `history`. A state is
a cache of the log.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from protocol.document import Document
from protocol.encoding import decode, encode
from protocol.errors import Malformed
from protocol.ids import SpaceId
from protocol.integrate import Integrated
from storage.arrivals import Arrival
from storage.errors import StoreDamaged
from storage.kv import ReadTransaction, Table, WriteTransaction, after
from storage.names import Chain, Collection, Names

LIVE_DOCUMENTS_MAX = 64
LIVE_MAX_BYTES = 64 << 20  # about


@dataclass(frozen=True, slots=True)
class BodyAddress:
    """Where one body of a document stands in the log, and with which arrival it came."""

    chain: Chain
    seq: int
    index: int
    arrival: int = 0  # 0 where it was not looked up


def _document_key(collection: Collection, id: str) -> bytes:
    return collection.to_bytes(4, "big") + id.encode()


class LiveDocuments:
    """Documents with collaborative fields as they were last written, with all that has been built of them.

    To take such a field apart costs milliseconds, an edit of one that is taken apart tenths of one. A document is
    found by its stored bytes, so one that was not kept after all is never found. For the writer alone.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, tuple[bytes, Document, int]] = OrderedDict()
        self._bytes = 0

    def get(self, key: bytes, value: bytes) -> Document | None:
        kept = self._kept.get(key)
        if kept is None or kept[0] != value:
            return None
        self._kept.move_to_end(key)
        return kept[1]

    def put(self, key: bytes, value: bytes, document: Document) -> None:
        if not document.shared:
            return
        before = self._kept.pop(key, None)
        self._bytes -= before[2] if before is not None else 0
        size = len(value) + sum(field.memory_bytes for field in document.shared.values())
        self._kept[key] = value, document, size
        self._bytes += size
        while len(self._kept) > LIVE_DOCUMENTS_MAX or self._bytes > LIVE_MAX_BYTES:
            _, (_, _, dropped) = self._kept.popitem(last=False)
            self._bytes -= dropped

    def clear(self) -> None:
        self._kept.clear()
        self._bytes = 0


class DocumentReader:
    """Documents within one transaction."""

    def __init__(self, transaction: ReadTransaction, names: Names) -> None:
        self._transaction = transaction
        self._names = names

    def get(self, space: bytes, model: str, id: str) -> Document | None:
        """The stored document, deleted ones included. Raises `StoreDamaged` if it cannot be read."""
        collection = self._names.collection(space, model)
        if collection is None:
            return None
        value = self._transaction.get(Table.DOCUMENTS, _document_key(collection, id))
        return None if value is None else self._decoded(model, id, value)

    def _decoded(self, model: str, id: str, value: bytes) -> Document:
        try:
            return Document.from_state(model, id, decode(value), self._names.author)
        except (Malformed, IndexError) as error:
            raise StoreDamaged(f"document {model}/{id} is damaged: run `civicnode doctor`") from error

    def all_of(self, space: bytes, model: str, *, after_id: str = "") -> Iterator[Document]:
        """Every document of a model in the order of ids, deleted ones included."""
        collection = self._names.collection(space, model)
        if collection is None:
            return
        prefix = collection.to_bytes(4, "big")
        start = prefix + after_id.encode() + b"\0" if after_id else prefix
        for key, value in self._transaction.scan(Table.DOCUMENTS, start, after(prefix)):
            yield self._decoded(model, key[4:].decode(), value)

    def everything(self) -> Iterator[tuple[SpaceId, Document]]:
        """Every document of every model, in the order of collections and ids."""
        for key, value in self._transaction.scan(Table.DOCUMENTS, b"", None):
            space, model = self._names.model(int.from_bytes(key[:4], "big"))
            yield space, self._decoded(model, key[4:].decode(), value)

    def history(self, space: bytes, model: str, id: str) -> Iterator[BodyAddress]:
        """The bodies of a document in the order of arrival."""
        collection = self._names.collection(space, model)
        if collection is None:
            return
        prefix = _document_key(collection, id) + b"\0"
        for key, _ in self._transaction.scan(Table.HISTORY, prefix, after(prefix)):
            address = self._address(key)
            if address is not None:
                yield address

    def history_backwards(self, space: bytes, model: str, id: str) -> Iterator[BodyAddress]:
        """The same from the newest arrival on: for who needs the end of it alone."""
        collection = self._names.collection(space, model)
        if collection is None:
            return
        prefix = _document_key(collection, id) + b"\0"
        stop = after(prefix)
        while (found := self._transaction.last(Table.HISTORY, prefix, stop)) is not None:
            stop = found[0]
            address = self._address(stop)
            if address is not None:
                yield address

    def _address(self, key: bytes) -> BodyAddress | None:
        arrival = self._transaction.get(Table.ARRIVALS, key[-10:-2])
        if arrival is None:
            return None
        chain, seq = int.from_bytes(arrival[:4], "big"), int.from_bytes(arrival[4:12], "big")
        return BodyAddress(chain, seq, int.from_bytes(key[-2:], "big"), int.from_bytes(key[-10:-2], "big"))


class DocumentWriter(DocumentReader):
    """Documents within the one write transaction."""

    _transaction: WriteTransaction

    def __init__(self, transaction: WriteTransaction, names: Names, live: LiveDocuments) -> None:
        super().__init__(transaction, names)
        self._live = live

    def get(self, space: bytes, model: str, id: str) -> Document | None:
        """As that of the reader; what it gives may be known to others and is not to be changed."""
        collection = self._names.collection(space, model)
        if collection is None:
            return None
        key = _document_key(collection, id)
        value = self._transaction.get(Table.DOCUMENTS, key)
        if value is None:
            return None
        return self._live.get(key, value) or self._decoded(model, id, value)

    def store(self, done: Integrated, arrival: Arrival) -> None:
        """Keep what a commit made of its documents, and where its bodies stand."""
        space, names, transaction = done.commit.header.space, self._names, self._transaction
        numbers: dict[bytes, int] = {done.commit.header.author: arrival.chain}

        def number_of(author: bytes) -> int:
            number = numbers.get(author)
            if number is None:
                number = numbers[author] = names.chain(space, author)  # type: ignore[assignment]
            assert number is not None
            return number

        prefixes: dict[str, bytes] = {}
        states: list[tuple[bytes, bytes]] = []
        for (model, id), document in done.documents.items():
            prefix = prefixes.get(model)
            if prefix is None:
                prefix = prefixes[model] = names.give_collection(transaction, space, model).to_bytes(4, "big")
            key, state = prefix + id.encode(), encode(document.to_state(number_of))
            states.append((key, state))
            self._live.put(key, state, document)
        transaction.put_many(Table.DOCUMENTS, states)
        arrival_key = b"\0" + arrival.number.to_bytes(8, "big")
        places: list[tuple[bytes, bytes]] = []
        for entry in done.entries:
            if entry.id:
                prefix = prefixes.get(entry.model)
                if prefix is None:
                    number = names.give_collection(transaction, space, entry.model)
                    prefix = prefixes[entry.model] = number.to_bytes(4, "big")
                places.append(
                    (prefix + entry.id.encode() + arrival_key + entry.index.to_bytes(2, "big"), b"")
                )
        transaction.put_many(Table.HISTORY, places)

    def put(self, space: SpaceId, document: Document) -> None:
        """Keep a document that was made anew of its history; one of which nothing is left goes."""
        names, transaction = self._names, self._transaction
        collection = names.give_collection(transaction, space, document.model)
        key = _document_key(collection, document.id)
        if document.is_blank:
            transaction.delete(Table.DOCUMENTS, key)
            return

        def number_of(author: bytes) -> int:
            number = names.chain(space, author)
            assert number is not None, "the authors of a document's bodies have chains"
            return number

        transaction.put(Table.DOCUMENTS, key, encode(document.to_state(number_of)))
