"""The signed commit log: headers, bodies, signatures, verdicts, heads, and the order of arrival.

Room: the only place that knows the tables `heads`, `headers`, `signatures`,
`bodies`, `verdicts`, `knowledge` and `arrivals`. Commits have been verified
before they come here; who may write is decided in `protocol.integrate`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from protocol.commit import Commit, Header, decode_header, header_hash, make_commit
from protocol.encoding import decode, encode
from protocol.errors import ProtocolError
from protocol.ids import Author, SpaceId
from protocol.integrate import Change, Entry, Head, Integrated, Verdict
from protocol.limits import SIGNATURE_KEPT_EVERY
from storage.errors import StoreDamaged
from storage.kv import ReadTransaction, Table, WriteTransaction, after
from storage.names import Chain, Names

_CHANGE_CODES = {Change.NONE: 0, Change.CREATED: 1, Change.UPDATED: 2, Change.DELETED: 3}
_CHANGES = {code: change for change, code in _CHANGE_CODES.items()}


def _u32(number: int) -> bytes:
    return number.to_bytes(4, "big")


def _u64(number: int) -> bytes:
    return number.to_bytes(8, "big")


@dataclass(frozen=True, slots=True)
class Arrival:
    """One commit in the order in which this store integrated them: the one feed counts by these."""

    number: int
    chain: Chain
    seq: int
    changes: tuple[Change, ...]


class LogReader:
    """The log within one transaction."""

    def __init__(self, transaction: ReadTransaction, names: Names) -> None:
        self._transaction = transaction
        self._names = names

    def head(self, space: bytes, author: bytes) -> Head | None:
        chain = self._names.chain(space, author)
        value = None if chain is None else self._transaction.get(Table.HEADS, _u32(chain))
        return Head(*decode(value)) if value is not None else None

    def header(self, chain: Chain, seq: int) -> bytes | None:
        return self._transaction.get(Table.HEADERS, _u32(chain) + _u64(seq))

    def header_hash(self, space: bytes, author: bytes, seq: int) -> bytes | None:
        chain = self._names.chain(space, author)
        header = None if chain is None else self.header(chain, seq)
        return header_hash(header) if header is not None else None

    def header_fields(self, chain: Chain, seq: int) -> Header:
        """A stored header, decoded. Raises `StoreDamaged` if it is missing or altered."""
        data = self.header(chain, seq)
        try:
            if data is not None:
                return decode_header(data)
        except ProtocolError as error:
            raise StoreDamaged(f"header {seq} of chain {chain} is damaged: run `civicnode doctor`") from error
        raise StoreDamaged(f"header {seq} of chain {chain} is missing: run `civicnode doctor`")

    def signature(self, chain: Chain, seq: int) -> bytes | None:
        return self._transaction.get(Table.SIGNATURES, _u32(chain) + _u64(seq))

    def body(self, chain: Chain, seq: int, index: int) -> bytes | None:
        """A stored body, or None if it was dropped."""
        return self._transaction.get(Table.BODIES, _u32(chain) + _u64(seq) + index.to_bytes(2, "big"))

    def commit(self, chain: Chain, seq: int) -> Commit | None:
        """A stored commit, every hash checked again. Raises `StoreDamaged` where the bytes do not add up."""
        header = self.header(chain, seq)
        if header is None:
            return None
        key = _u32(chain) + _u64(seq)
        found = {
            int.from_bytes(k[12:], "big"): body
            for k, body in self._transaction.scan(Table.BODIES, key, after(key))
        }
        try:
            size = len(decode(header)[8])
            return make_commit(header, [found.get(i) for i in range(size)], self.signature(chain, seq))
        except (ProtocolError, TypeError, IndexError) as error:
            raise StoreDamaged(f"commit {seq} of chain {chain} is damaged: run `civicnode doctor`") from error

    def commits(self, chain: Chain, *, after_seq: int = 0) -> Iterator[Commit]:
        """The commits of one chain after `after_seq`, in order."""
        seq = after_seq + 1
        while (commit := self.commit(chain, seq)) is not None:
            yield commit
            seq += 1

    def verdict(self, chain: Chain, seq: int, index: int) -> Verdict:
        value = self._transaction.get(Table.VERDICTS, _u32(chain) + _u64(seq) + index.to_bytes(2, "big"))
        return Verdict.APPLIED if value is None else Verdict(value.decode())

    def knows(self, space: bytes, author: bytes, seq: int, other: bytes) -> int:
        chain, known = self._names.chain(space, author), self._names.chain(space, other)
        if chain is None or known is None:
            return 0
        prefix = _u32(chain) + _u32(known)
        found = self._transaction.last(Table.KNOWLEDGE, prefix, prefix + _u64(seq + 1))
        return int.from_bytes(found[1], "big") if found else 0

    def known_by(self, space: bytes, author: bytes, seq: int) -> Iterator[tuple[Author, int]]:
        chain = self._names.chain(space, author)
        if chain is None:
            return
        prefix = _u32(chain)
        known: dict[Chain, int] = {}
        for key, value in self._transaction.scan(Table.KNOWLEDGE, prefix, after(prefix)):
            if int.from_bytes(key[8:], "big") <= seq:
                known[int.from_bytes(key[4:8], "big")] = int.from_bytes(value, "big")
        for number, other_seq in known.items():
            yield self._names.author(number), other_seq

    def last_arrival(self) -> int:
        """The number of the newest arrival; 0 if there is none."""
        found = self._transaction.last(Table.ARRIVALS, b"", None)
        return int.from_bytes(found[0], "big") if found else 0

    def first_arrival(self) -> int:
        for key, _ in self._transaction.scan(Table.ARRIVALS, b"", None):
            return int.from_bytes(key, "big")
        return 1

    def arrivals(self, *, after_number: int = 0) -> Iterator[Arrival]:
        """Arrivals in order, after a number."""
        for key, value in self._transaction.scan(Table.ARRIVALS, _u64(after_number + 1), None):
            changes = tuple(_CHANGES[code] for code in value[12:])
            chain, seq = int.from_bytes(value[:4], "big"), int.from_bytes(value[4:12], "big")
            yield Arrival(int.from_bytes(key, "big"), chain, seq, changes)


class LogWriter(LogReader):
    """The log within the one write transaction."""

    _transaction: WriteTransaction

    def append(self, done: Integrated) -> Arrival:
        """Store one integrated commit at the end of its chain and of the order of arrival."""
        commit, header, transaction = done.commit, done.commit.header, self._transaction
        chain = self._names.give_chain(transaction, header.space, header.author)
        key = _u32(chain) + _u64(header.seq)
        transaction.put(Table.HEADS, _u32(chain), encode([header.seq, commit.hash, header.hlc]))
        transaction.put(Table.HEADERS, key, commit.header_bytes)
        if commit.signature is not None:
            newest = transaction.last(Table.SIGNATURES, _u32(chain), key)
            if newest is not None and int.from_bytes(newest[0][4:], "big") % SIGNATURE_KEPT_EVERY:
                transaction.delete(Table.SIGNATURES, newest[0])  # this one proves all that it proved
            transaction.put(Table.SIGNATURES, key, commit.signature)
        pairs = [
            (key + index.to_bytes(2, "big"), body)
            for index, body in enumerate(commit.bodies)
            if body is not None
        ]
        if pairs:
            newest = transaction.last(Table.BODIES, b"", None)
            if newest is None or newest[0] < pairs[0][0]:
                transaction.append(Table.BODIES, pairs)
            else:
                transaction.put_many(Table.BODIES, pairs)
        self._store_outcomes(chain, header.space, header.seq, done)
        number = self.last_arrival() + 1
        changes = bytes(_CHANGE_CODES[entry.change] for entry in done.entries)
        transaction.append(Table.ARRIVALS, [(_u64(number), key + changes)])
        return Arrival(number, chain, header.seq, tuple(entry.change for entry in done.entries))

    def _store_outcomes(self, chain: Chain, space: SpaceId, seq: int, done: Integrated) -> None:
        for entry in done.entries:
            if entry.verdict is not Verdict.APPLIED:
                self.put_verdict(chain, seq, entry)
        for other, known_seq in done.knowledge.items():
            known = self._names.give_chain(self._transaction, space, other)
            self._transaction.put(Table.KNOWLEDGE, _u32(chain) + _u32(known) + _u64(seq), _u64(known_seq))

    def put_verdict(self, chain: Chain, seq: int, entry: Entry) -> None:
        key = _u32(chain) + _u64(seq) + entry.index.to_bytes(2, "big")
        self._transaction.put(Table.VERDICTS, key, entry.verdict.value.encode())
