"""The live states of documents, and where the bodies of each are to be found in the log.

Room: the only place that knows the tables `documents` and `history`. A state is
a cache of the log.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from protocol.document import Document
from protocol.encoding import decode, encode
from protocol.errors import Malformed
from protocol.ids import SpaceId
from protocol.integrate import Integrated
from storage.errors import StoreDamaged
from storage.kv import ReadTransaction, Table, WriteTransaction, after
from storage.log import Arrival
from storage.names import Chain, Collection, Names


@dataclass(frozen=True, slots=True)
class BodyAddress:
    """Where one body of a document stands in the log, and with which arrival it came."""

    chain: Chain
    seq: int
    index: int
    arrival: int = 0  # 0 where it was not looked up


def _document_key(collection: Collection, id: str) -> bytes:
    return collection.to_bytes(4, "big") + id.encode()


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
            states.append((prefix + id.encode(), encode(document.to_state(number_of))))
        transaction.put_many(Table.DOCUMENTS, states)
        arrival_key = b"\0" + arrival.number.to_bytes(8, "big")
        places: list[tuple[bytes, bytes]] = []
        for entry in done.entries:
            if entry.body is not None:
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
        if not document.vector:
            transaction.delete(Table.DOCUMENTS, key)
            return

        def number_of(author: bytes) -> int:
            number = names.chain(space, author)
            assert number is not None, "the authors of a document's bodies have chains"
            return number

        transaction.put(Table.DOCUMENTS, key, encode(document.to_state(number_of)))
