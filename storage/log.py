"""The signed commit log: headers, bodies, signatures, verdicts, heads, and the order of arrival.

Room: the only place that knows the tables `heads`, `headers`, `signatures`,
`bodies`, `stubs`, `missing`, `verdicts`, `knowledge`, `pasts`, `early`, `forks`, `arrivals`,
`rejudged` and `times`. Commits have been verified before they come here; who may write is decided in
`protocol.integrate`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from struct import Struct
from typing import Any

from protocol.body import Stub, decode_stub, stub_of
from protocol.commit import Commit, Header, commit_of_parts, decode_header, header_hash
from protocol.encoding import decode, encode
from protocol.errors import ProtocolError
from protocol.ids import AUTHOR_BYTES, SPACE_ID_BYTES, Author, SpaceId
from protocol.integrate import Change, Head, Integrated, Verdict
from protocol.limits import RUN_SKELETON_MAX_BYTES, SIGNATURE_KEPT_EVERY
from protocol.membership import Link
from protocol.window import Run, decode_run, without_bodies
from storage.arrivals import NO_CHAIN, Arrival, KnownFork, Rejudged, Rejudgement
from storage.ends import Ended, Ends
from storage.errors import StoreDamaged
from storage.kv import ReadTransaction, Table, WriteTransaction, after, beside
from storage.names import Chain, Names

# Commits that one signature proves: more, and they would not fit the run in which they travel.
PROVED_TOGETHER_MAX_BYTES = RUN_SKELETON_MAX_BYTES
MS_MAX = (1 << 48) - 1  # of a timestamp
TIME_KEPT_EVERY_MS = 10_000  # of arrivals: what is asked for by time may come with so much more
TIMES_KEPT_MS = 90 * 86_400_000  # three times as long as a cursor may lie back
_TIMES_FORGOTTEN = 2  # with each that is remembered, so that there are ever fewer too many
_MISSING_STAMP = b"missing"
_CHANGE_CODES = {Change.NONE: 0, Change.CREATED: 1, Change.UPDATED: 2, Change.DELETED: 3}
_CHANGES = {code: change for change, code in _CHANGE_CODES.items()}


_ARRIVED = Struct(">IQ")  # chain and seq


def _u32(number: int) -> bytes:
    return number.to_bytes(4, "big")


def _u64(number: int) -> bytes:
    return number.to_bytes(8, "big")


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
        bodies = dict(self._transaction.scan(Table.BODIES, key, after(key)))
        return self._put_together(chain, seq, header, bodies, self.signature(chain, seq))

    def _put_together(
        self, chain: Chain, seq: int, header: bytes, bodies: Mapping[bytes, bytes], signature: bytes | None
    ) -> Commit:
        """A commit of what its tables hold of it, bodies by their keys."""
        found = {int.from_bytes(key[12:], "big"): body for key, body in bodies.items()}
        try:
            fields = decode_header(header)
            size = len(fields.body_hashes)
            stubs = self.stubs(chain, seq) if len(found) < size else None
            return commit_of_parts(fields, header, [found.get(i) for i in range(size)], signature, stubs)
        except (ProtocolError, TypeError, IndexError) as error:
            raise StoreDamaged(f"commit {seq} of chain {chain} is damaged: run `civicnode doctor`") from error

    def stub(self, chain: Chain, seq: int, index: int) -> Stub | None:
        """What is left of a body that was dropped; None of any other."""
        value = self._transaction.get(Table.STUBS, _u32(chain) + _u64(seq) + index.to_bytes(2, "big"))
        return None if value is None else _stub(value)

    def stubs(self, chain: Chain, seq: int) -> dict[int, Stub]:
        """All that is left of the bodies of a commit that were dropped, by index."""
        key = _u32(chain) + _u64(seq)
        found = self._transaction.scan(Table.STUBS, key, after(key))
        return {int.from_bytes(place[12:], "big"): _stub(value) for place, value in found}

    def missing(self, chain: Chain | None = None) -> Iterator[tuple[Chain, int, int, int]]:
        """Bodies that came as stubs and no erasure says why: chain, seq, index, and the arrival with which each was
        filled in, 0 while it is not."""
        start = b"" if chain is None else _u32(chain)
        for key, value in self._transaction.scan(Table.MISSING, start, after(start)):
            places = (int.from_bytes(key[:4], "big"), int.from_bytes(key[4:12], "big"))
            yield *places, int.from_bytes(key[12:], "big"), int.from_bytes(value, "big")

    def missing_stamp(self) -> int:
        """Another number whenever `missing` has become another."""
        value = self._transaction.get(Table.META, _MISSING_STAMP)
        return 0 if value is None else int(decode(value))

    def commits(self, chain: Chain, *, after_seq: int = 0) -> Iterator[Commit]:
        """The commits of one chain after `after_seq`, in order.

        Three tables are read side by side: to look each commit up would take a dozen calls to the engine.
        """
        start, stop = _u32(chain) + _u64(after_seq + 1), after(_u32(chain))
        bodies_of = beside(self._transaction.scan(Table.BODIES, start, stop))
        signature_of = beside(self._transaction.scan(Table.SIGNATURES, start, stop))
        for seq, (key, header) in enumerate(
            self._transaction.scan(Table.HEADERS, start, stop), after_seq + 1
        ):
            if key != _u32(chain) + _u64(seq):
                return
            yield self._put_together(chain, seq, header, bodies_of(key), signature_of(key).get(key))

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

    def known_by(self, space: bytes, author: bytes, seq: int) -> Iterable[tuple[Author, int]]:
        chain = self._names.chain(space, author)
        if chain is None:
            return
        # From one other chain to the next by its last entry: the entries of one are as many as the commits.
        start, stop = _u32(chain), after(_u32(chain))
        while (first := next(self._transaction.scan(Table.KNOWLEDGE, start, stop), None)) is not None:
            prefix = first[0][:8]
            found = self._transaction.last(Table.KNOWLEDGE, prefix, prefix + _u64(seq + 1))
            if found is not None:
                yield self._names.author(int.from_bytes(prefix[4:], "big")), int.from_bytes(found[1], "big")
            start = prefix + b"\xff" * 9  # above every entry of this other chain

    def first_seeing(self, chain: Chain, other: Chain, seq: int) -> int | None:
        """The first commit of a chain that has seen this one of another chain, or a later one; None if none has."""
        prefix = _u32(chain) + _u32(other)
        for key, known in self._transaction.scan(Table.KNOWLEDGE, prefix, after(prefix)):
            if int.from_bytes(known, "big") >= seq:
                return int.from_bytes(key[8:], "big")
        return None

    def last_arrival(self) -> int:
        """The number of the newest arrival; 0 if there is none."""
        found = self._transaction.last(Table.ARRIVALS, b"", None)
        return int.from_bytes(found[0], "big") if found else 0

    def last_rejudged(self) -> int:
        """The arrival with which documents were judged again last; 0 if none ever was."""
        found = self._transaction.last(Table.REJUDGED, b"", None)
        return int.from_bytes(found[0][:8], "big") if found else 0

    def first_arrival(self) -> int:
        for key, _ in self._transaction.scan(Table.ARRIVALS, b"", None):
            return int.from_bytes(key, "big")
        return 1

    def arrivals(self, *, after_number: int = 0) -> Iterator[Arrival]:
        """Commits in the order in which they arrived, after a number."""
        return (found for found in self.happenings(after_number=after_number) if isinstance(found, Arrival))

    def grown(self, *, after_number: int = 0) -> Iterator[tuple[int, Chain, int]]:
        """Arrival, chain and seq of commits after a number; in place of what was judged again, `NO_CHAIN`."""
        for key, value in self._transaction.scan(Table.ARRIVALS, _u64(after_number + 1), None):
            chain, seq = _ARRIVED.unpack_from(value)
            yield int.from_bytes(key, "big"), chain, seq

    def happenings(self, *, after_number: int = 0) -> Iterator[Arrival | Rejudgement]:
        """The order of arrival, with what was judged again in its place."""
        for key, value in self._transaction.scan(Table.ARRIVALS, _u64(after_number + 1), None):
            number, second = int.from_bytes(key, "big"), int.from_bytes(value[4:12], "big")
            if value[:4] == _u32(NO_CHAIN):
                found = self._transaction.scan(Table.REJUDGED, key, after(key))
                yield Rejudgement(number, second, tuple(_rejudged(decode(told)) for _, told in found))
            else:
                changes = tuple(_CHANGES[code] for code in value[12:])
                yield Arrival(number, int.from_bytes(value[:4], "big"), second, changes)

    # -- when

    def last_time(self) -> tuple[int, int] | None:
        """The newest mark of `mark_time`: milliseconds, and an arrival."""
        found = self._transaction.last(Table.TIMES, b"", None)
        return (int.from_bytes(found[0], "big"), int.from_bytes(found[1], "big")) if found else None

    def arrival_before(self, ms: int) -> int:
        """An arrival such that all which came at this time or later follow it; others may follow it too."""
        found = self._transaction.last(Table.TIMES, b"", _u64(min(ms, MS_MAX) + 1))
        return int.from_bytes(found[1], "big") if found else 0

    def arrived_before(self, ms: int) -> int:
        """An arrival such that it and all before it came before this time; 0 if none is known to have.

        What follows a mark came within `TIME_KEPT_EVERY_MS` of it, or with a mark of its own.
        """
        found = self._transaction.last(Table.TIMES, b"", _u64(max(0, ms - TIME_KEPT_EVERY_MS) + 1))
        if found is None:
            return 0
        following = next(self._transaction.scan(Table.TIMES, found[0] + b"\0", None), None)
        return self.last_arrival() if following is None else int.from_bytes(following[1], "big")

    # -- what commits count as

    def system_past(self, chain: Chain, seq: int) -> frozenset[Link]:
        """Heads of what the causal past of a commit holds of `system`."""
        found = self._transaction.last(Table.PASTS, _u32(chain), _u32(chain) + _u64(seq + 1))
        return frozenset() if found is None else _links(found[1])

    def system_pasts(self, chain: Chain) -> list[tuple[int, frozenset[Link]]]:
        """Each of these with the seq from which on it holds, ascending; before the first there is none."""
        found = self._transaction.scan(Table.PASTS, _u32(chain), after(_u32(chain)))
        return [(int.from_bytes(key[4:], "big"), _links(value)) for key, value in found]

    def is_early(self, chain: Chain, seq: int) -> bool:
        """Whether the bodies of a commit wait until it is due."""
        return self._transaction.get(Table.EARLY, _u32(chain) + _u64(seq)) == _u64(0)

    def early(self) -> Iterator[tuple[Chain, int, int]]:
        """Commits that came before they were due: chain, seq, and the arrival with which they were found due, or 0."""
        for key, value in self._transaction.scan(Table.EARLY, b"", None):
            yield int.from_bytes(key[:4], "big"), int.from_bytes(key[4:], "big"), int.from_bytes(value, "big")

    def forks(self) -> dict[tuple[SpaceId, Author], KnownFork]:
        """Chains of which a seq was signed twice, with the first such seq."""
        found: dict[tuple[SpaceId, Author], KnownFork] = {}
        for key, fork in self.all_forks():
            if key not in found or fork.seq < found[key].seq:
                found[key] = fork
        return found

    def branches(self, space: SpaceId, author: Author) -> list[Run]:
        """What is here of a forked chain beside the log, in the order in which it came."""
        found = [fork for key, fork in self.all_forks() if key == (space, author)]
        return [decode_run(fork.run) for fork in sorted(found, key=lambda fork: fork.arrival)]

    def branch_tips(self, space: SpaceId, author: Author) -> list[bytes]:
        """Hashes of the newest commits of all branches of a chain that are here, ascending."""
        runs, head = self.branches(space, author), self.head(space, author)
        tips = {run.commits[-1].hash for run in runs} | ({head.hash} if head is not None else set())
        continued = {commit.header.previous for run in runs for commit in run.commits}
        ours = {self.header_hash(space, author, run.commits[-1].header.seq) for run in runs}
        return sorted(tips - continued - (ours - ({head.hash} if head is not None else set())))

    def all_forks(self) -> Iterator[tuple[tuple[SpaceId, Author], KnownFork]]:
        """The same, with what was known of a chain before a lower fork of it was."""
        author_at = SPACE_ID_BYTES + AUTHOR_BYTES
        for key, value in self._transaction.scan(Table.FORKS, b"", None):
            chain = SpaceId(key[:SPACE_ID_BYTES]), Author(key[SPACE_ID_BYTES:author_at])
            yield chain, KnownFork(*decode(value))


class LogWriter(LogReader):
    """The log within the one write transaction."""

    _transaction: WriteTransaction

    def __init__(self, transaction: WriteTransaction, names: Names, ends: Ends) -> None:
        super().__init__(transaction, names)
        self._ends = ends
        self._new_heads: dict[Chain, Head] = {}
        self.late: list[tuple[SpaceId, str, str]] = []  # documents of which a body came after their erasure
        self._is_missing_changed = False
        self._last_arrival: int | None = None

    # -- what is at the ends of chains is mostly in memory

    def head(self, space: bytes, author: bytes) -> Head | None:
        chain = self._names.chain(space, author)
        if chain is None:
            return None
        new, end = self._new_heads.get(chain), self._ends.get(chain)
        if new is not None or end is not None:
            return new or (end.head if end is not None else None)
        head = super().head(space, author)
        self._ends.put_head(chain, head)
        return head

    def header_hash(self, space: bytes, author: bytes, seq: int) -> bytes | None:
        chain = self._names.chain(space, author)
        if chain is None:
            return None
        known = self._ends.commit(chain, seq)
        return known.hash if known is not None else super().header_hash(space, author, seq)

    def knows(self, space: bytes, author: bytes, seq: int, other: bytes) -> int:
        chain = self._names.chain(space, author)
        if chain is None:
            return 0
        known = self._ends.commit(chain, seq)
        return (
            known.knows.get(Author(other), 0)
            if known is not None
            else super().knows(space, author, seq, other)
        )

    def known_by(self, space: bytes, author: bytes, seq: int) -> Iterable[tuple[Author, int]]:
        chain = self._names.chain(space, author)
        known = None if chain is None else self._ends.commit(chain, seq)
        return known.knows.items() if known is not None else super().known_by(space, author, seq)

    def system_past(self, chain: Chain, seq: int) -> frozenset[Link]:
        known = self._ends.commit(chain, seq)
        return known.system_past if known is not None else super().system_past(chain, seq)

    def last_arrival(self) -> int:
        if self._last_arrival is None:
            self._last_arrival = super().last_arrival()
        return self._last_arrival

    # -- storing

    def append(self, done: Integrated) -> Arrival:
        """Store one integrated commit at the end of its chain and of the order of arrival.

        Its head is stored by `finish`.
        """
        commit, header, transaction = done.commit, done.commit.header, self._transaction
        chain = self._names.give_chain(transaction, header.space, header.author)
        key = _u32(chain) + _u64(header.seq)
        transaction.put(Table.HEADERS, key, commit.header_bytes)
        if commit.signature is not None:
            self._let_go(chain, commit)
            transaction.put(Table.SIGNATURES, key, commit.signature)
        stubs = dict(commit.stubs)
        for index, body in enumerate(commit.bodies):
            if body is not None and done.entries[index].verdict is not Verdict.DROPPED:
                transaction.put(Table.BODIES, key + index.to_bytes(2, "big"), body)
            elif (stub := stubs.get(index) if body is None else stub_of(body)) is not None:
                transaction.put(Table.STUBS, key + index.to_bytes(2, "big"), stub.encode())
                if body is not None:
                    self.late.append((header.space, *stub.document))
        self._store_outcomes(chain, header.space, header.seq, done)
        head = Head(header.seq, commit.hash, header.hlc)
        self._ends.put(chain, head, self._ended(chain, done))
        self._new_heads[chain] = head
        number = self._next_arrival()
        changes = [entry.change for entry in done.entries]
        codes = bytes([_CHANGE_CODES[change] for change in changes])
        transaction.put(Table.ARRIVALS, _u64(number), key + codes)
        return Arrival(number, chain, header.seq, tuple(changes))

    def mark_time(self, now_ms: int) -> None:
        """Remember that what arrives from here on came now or later.

        While a clock that was set back has not come as far again, there is nothing to remember. What is older
        than `TIMES_KEPT_MS` is forgotten: who asks for such a time gets everything.
        """
        last = self.last_time()
        if last is None or now_ms > last[0]:
            self._transaction.put(Table.TIMES, _u64(now_ms), _u64(self.last_arrival()))
            old = self._transaction.scan(Table.TIMES, b"", _u64(max(0, now_ms - TIMES_KEPT_MS)))
            for key in [key for key, _ in islice(old, _TIMES_FORGOTTEN)]:
                self._transaction.delete(Table.TIMES, key)

    def finish(self) -> None:
        """The transaction is about to end."""
        for chain, head in self._new_heads.items():
            self._transaction.put(Table.HEADS, _u32(chain), encode([head.seq, head.hash, head.hlc]))
        self._new_heads.clear()
        if self._is_missing_changed:
            self._transaction.put(Table.META, _MISSING_STAMP, encode(self.missing_stamp() + 1))
            self._is_missing_changed = False

    def _next_arrival(self) -> int:
        self._last_arrival = self.last_arrival() + 1
        return self._last_arrival

    def _ended(self, chain: Chain, done: Integrated) -> Ended:
        """The commit that has just been stored, as those that build on it will see it."""
        header = done.commit.header
        before = self._ends.commit(chain, header.seq - 1)
        if before is None:
            known = dict(super().known_by(header.space, header.author, header.seq))
            return Ended(done.commit.hash, known, super().system_past(chain, header.seq), done.counts)
        knows = {**before.knows, **done.knowledge} if done.knowledge else before.knows
        past = done.system_past if done.system_past is not None else before.system_past
        return Ended(done.commit.hash, knows, past, done.counts)

    def _let_go(self, chain: Chain, commit: Commit) -> None:
        """Drop the newest signature, if the one of this commit can prove all that it proved.

        A run begins after one kept signature and ends at another, so what lies between two must fit one.
        """
        transaction, start, seq = self._transaction, _u32(chain), commit.header.seq
        newest = transaction.last(Table.SIGNATURES, start, start + _u64(seq))
        if newest is None or not int.from_bytes(newest[0][4:], "big") % SIGNATURE_KEPT_EVERY:
            return
        before = transaction.last(Table.SIGNATURES, start, newest[0])
        first = int.from_bytes(before[0][4:], "big") + 1 if before is not None else 1
        if seq - first >= SIGNATURE_KEPT_EVERY:
            return
        sizes = self._names.sizes.setdefault(chain, {})
        for known in [known for known in sizes if not first <= known < seq]:
            del sizes[known]
        for missing in range(first, seq):
            if missing not in sizes:
                sizes[missing] = self._size_of(chain, missing)
        sizes[seq] = len(commit.header_bytes) + sum(len(body) for body in commit.bodies if body is not None)
        sizes[seq] += sum(len(stub.encode()) for _, stub in commit.stubs)
        if sum(sizes.values()) <= PROVED_TOGETHER_MAX_BYTES:
            transaction.delete(Table.SIGNATURES, newest[0])

    def _size_of(self, chain: Chain, seq: int) -> int:
        key = _u32(chain) + _u64(seq)
        held = [*self._transaction.scan(Table.BODIES, key, after(key))]
        held += self._transaction.scan(Table.STUBS, key, after(key))
        return len(self.header(chain, seq) or b"") + sum(len(value) for _, value in held)

    def _store_outcomes(self, chain: Chain, space: SpaceId, seq: int, done: Integrated) -> None:
        is_early = False
        for entry in done.entries:
            if entry.verdict is not Verdict.APPLIED:
                self.settle_verdict(chain, seq, entry.index, entry.verdict)
                is_early |= entry.verdict is Verdict.EARLY
        self.put_past(chain, space, seq, done.knowledge, done.system_past)
        if is_early:
            self._transaction.put(Table.EARLY, _u32(chain) + _u64(seq), _u64(0))

    def put_past(
        self,
        chain: Chain,
        space: SpaceId,
        seq: int,
        knowledge: Mapping[Author, int],
        system_past: frozenset[Link] | None,
    ) -> None:
        """What a commit has seen, where that is more than the one before it had."""
        for other, known_seq in knowledge.items():
            known = self._names.give_chain(self._transaction, space, other)
            self._transaction.put(Table.KNOWLEDGE, _u32(chain) + _u32(known) + _u64(seq), _u64(known_seq))
        if system_past is not None:
            links = [list(link) for link in sorted(system_past)]
            self._transaction.put(Table.PASTS, _u32(chain) + _u64(seq), encode(links))

    def forget_pasts(self, chain: Chain, seq: int) -> None:
        """Forget what a chain has seen from this commit on: it is about to be found again."""
        start, stop = _u32(chain), after(_u32(chain))
        for table, seq_at in ((Table.KNOWLEDGE, 8), (Table.PASTS, 4)):
            for key in [key for key, _ in self._transaction.scan(table, start, stop)]:
                if int.from_bytes(key[seq_at:], "big") >= seq:
                    self._transaction.delete(table, key)

    def settle_early(self, chain: Chain, seq: int) -> None:
        """A commit is due: its documents are about to be made anew, in the next rejudgement."""
        self._transaction.put(Table.EARLY, _u32(chain) + _u64(seq), _u64(self.last_arrival() + 1))

    def put_fork(self, space: SpaceId, author: Author, seq: int, run: bytes) -> None:
        """A chain forks at this seq: what is here is judged again, in the next rejudgement.

        Of `system` there may be several runs of one chain and seq: all branches are kept.
        """
        value, key = encode([seq, run, self.last_arrival() + 1]), space + author + _u64(seq)
        if self._transaction.get(Table.FORKS, key) is not None:
            key += _u64(self.last_arrival() + 1)
        self._transaction.put(Table.FORKS, key, value)

    def append_rejudgement(self, documents: Sequence[Rejudged], at_ms: int) -> Rejudgement:
        """Give what was judged again its place in the order of arrival."""
        number = self._next_arrival()
        self._transaction.put(Table.ARRIVALS, _u64(number), _u32(NO_CHAIN) + _u64(at_ms))
        for index, told in enumerate(documents):
            value = [
                *told[:3],
                _CHANGE_CODES[told.change],
                told.author,
                told.hlc,
                told.created_by,
                list(told.fields),
            ]
            self._transaction.put(Table.REJUDGED, _u64(number) + _u32(index), encode(value))
        return Rejudgement(number, at_ms, tuple(documents))

    def settle_verdict(self, chain: Chain, seq: int, index: int, verdict: Verdict) -> None:
        """The verdict on a body is now this."""
        key = _u32(chain) + _u64(seq) + index.to_bytes(2, "big")
        if verdict is Verdict.APPLIED:
            self._transaction.delete(Table.VERDICTS, key)
            return
        self._transaction.put(Table.VERDICTS, key, verdict.value.encode())
        if verdict is Verdict.MISSING:
            self._transaction.put(Table.MISSING, key, _u64(0))
            self._is_missing_changed = True
        elif verdict is Verdict.DROPPED and self._transaction.delete(Table.MISSING, key):
            self._is_missing_changed = True

    # -- erasing

    def drop(self, chain: Chain, seq: int, index: int, arrival: int) -> None:
        """Keep no more of a body than its stub; nor what it once did, in the order of arrival."""
        key = _u32(chain) + _u64(seq) + index.to_bytes(2, "big")
        data = self._transaction.get(Table.BODIES, key)
        if data is not None:
            self._transaction.put(Table.STUBS, key, stub_of(data).encode())
            self._transaction.delete(Table.BODIES, key)
        self.settle_verdict(chain, seq, index, Verdict.DROPPED)
        told = self._transaction.get(Table.ARRIVALS, _u64(arrival))
        if told is not None and told[12 + index : 13 + index] not in (b"", b"\0"):
            self._transaction.put(
                Table.ARRIVALS, _u64(arrival), told[: 12 + index] + b"\0" + told[13 + index :]
            )

    def fill(self, chain: Chain, commit: Commit) -> list[int]:
        """Put the bodies of a commit where they are missing: their documents are about to be made anew, in the next
        rejudgement. The indexes of those that were."""
        filled: list[int] = []
        for index, body in enumerate(commit.bodies):
            key = _u32(chain) + _u64(commit.header.seq) + index.to_bytes(2, "big")
            if body is not None and self._transaction.get(Table.MISSING, key) == _u64(0):
                self._transaction.put(Table.BODIES, key, body)
                self._transaction.delete(Table.STUBS, key)
                self._transaction.put(Table.MISSING, key, _u64(self.last_arrival() + 1))
                filled.append(index)
                self._is_missing_changed = True
        return filled

    def forget_rejudged(self, space: SpaceId, model: str, id: str) -> None:
        """Tell no more that a document was once made anew."""
        kept: dict[bytes, list[bytes]] = {}
        was_told = False
        for key, value in list(self._transaction.scan(Table.REJUDGED, b"", None)):
            told = _rejudged(decode(value))
            is_it = (told.space, told.model, told.id) == (space, model, id)
            kept.setdefault(key[:8], []).extend([] if is_it else [value])
            was_told |= is_it
        for number, values in kept.items() if was_told else ():
            for key, _ in list(self._transaction.scan(Table.REJUDGED, number, after(number))):
                self._transaction.delete(Table.REJUDGED, key)
            for index, value in enumerate(values):
                self._transaction.put(Table.REJUDGED, number + _u32(index), value)

    def drop_from_forks(self, space: SpaceId, name: bytes) -> None:
        """Keep no more than stubs of a document's bodies in the proofs of forks, which hold nonetheless."""
        for (forked, author), fork in list(self.all_forks()):
            run = without_bodies(decode_run(fork.run), name) if forked == space else None
            if run is not None:
                value = encode([fork.seq, run.encode(), fork.arrival])
                self._transaction.put(Table.FORKS, forked + author + _u64(fork.seq), value)


def _stub(value: bytes) -> Stub:
    try:
        return decode_stub(value)
    except ProtocolError as error:
        raise StoreDamaged("what is left of an erased body is damaged: run `civicnode doctor`") from error


def _links(value: bytes) -> frozenset[Link]:
    return frozenset(Link(Author(author), seq, prefix) for author, seq, prefix in decode(value))


def _rejudged(told: list[Any]) -> Rejudged:
    space, model, id, code, author, hlc, created_by, fields = told
    return Rejudged(SpaceId(space), model, id, _CHANGES[code], Author(author), hlc, created_by, tuple(fields))
