"""The signed log: what is appended is read back, proved, in order."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from protocol.body import Body, body_hash
from protocol.commit import Commit, Header, sign_commit, verify_signature
from protocol.ids import Author, SpaceId
from protocol.integrate import Change, Entry, Integrated, Verdict
from protocol.keys import KeyPair
from protocol.limits import SIGNATURE_KEPT_EVERY
from storage.errors import StoreDamaged
from storage.kv import Table
from storage.log import PROVED_TOGETHER_MAX_BYTES, LogReader
from storage.memory_kv import MemoryKeyValueStore
from storage.store import Store
from tests.storage.kit import TASK, Site, create

KEYS = KeyPair.from_seed(b"k" * 32)
SPACE = SpaceId(b"s" * 16)
AUTHOR = Author(KEYS.public + b"incarnat")
OTHER = Author(b"o" * 40)


class Chain:
    """Commits of one author, made one after the other."""

    def __init__(self, author: Author = AUTHOR, space: SpaceId = SPACE) -> None:
        self.author = author
        self.space = space
        self.seq = 0
        self.hash = bytes(32)

    def next(self, *texts: str, verdict: Verdict = Verdict.APPLIED, is_signed: bool = True) -> Integrated:
        bodies = [Body(b"s" * 16, "ann", "m", t[:9], (), [[0, {"t": t}]]).encode(self.author) for t in texts]
        self.seq += 1
        hashes = tuple(map(body_hash, bodies))
        header = Header(self.space, self.author, self.seq, self.hash, self.seq << 16, (), hashes)
        commit = sign_commit(KEYS, header, bodies)
        self.hash = commit.hash
        change = Change.CREATED if verdict is Verdict.APPLIED else Change.NONE
        entries = [Entry(i, "m", t, verdict, change, None) for i, t in enumerate(texts)]
        return Integrated(commit if is_signed else replace(commit, signature=None), {}, entries)


@pytest.fixture
def store() -> Store:
    return Store(MemoryKeyValueStore())


def append(store: Store, *done: Integrated) -> None:
    with store.write() as batch:
        for each in done:
            batch.log.append(each)


def signatures(store: Store) -> list[int]:
    with store.keys.read() as transaction:
        return [int.from_bytes(key[4:], "big") for key, _ in transaction.scan(Table.SIGNATURES, b"", None)]


@pytest.fixture
def log(store: Store) -> Iterator[LogReader]:
    """The log of `store` as it is when the test asks for it first."""
    with store.read() as snapshot:
        yield snapshot.log


def test_a_commit_is_read_back_whole(store: Store) -> None:
    done = Chain().next("one", "two")
    append(store, done)
    with store.read() as snapshot:
        assert snapshot.log.commit(0, 1) == done.commit
        assert snapshot.log.body(0, 1, 1) == done.commit.bodies[1]
        assert snapshot.log.header_fields(0, 1) == done.commit.header
        assert snapshot.log.header_hash(SPACE, AUTHOR, 1) == done.commit.hash
        assert snapshot.log.commit(0, 2) is None
        assert snapshot.log.commit(1, 1) is None


def test_the_head_is_the_newest_commit_of_a_chain(store: Store) -> None:
    chain = Chain()
    with store.read() as snapshot:
        assert snapshot.log.head(SPACE, AUTHOR) is None
    append(store, chain.next("a"), chain.next("b"))
    append(store, last := chain.next("c"))
    with store.read() as snapshot:
        head = snapshot.log.head(SPACE, AUTHOR)
        assert head is not None
        assert (head.seq, head.hash, head.hlc) == (3, last.commit.hash, last.commit.header.hlc)
        assert snapshot.log.head(SPACE, OTHER) is None


def test_commits_of_a_chain_come_in_order_and_from_where_one_asks(store: Store) -> None:
    chain, other = Chain(), Chain(OTHER)
    append(store, chain.next("a"), other.next("x"), chain.next("b"), other.next("y"), chain.next("c"))
    with store.read() as snapshot:
        assert [c.header.seq for c in snapshot.log.commits(0)] == [1, 2, 3]
        assert [c.header.seq for c in snapshot.log.commits(1, after_seq=1)] == [2]
        assert list(snapshot.log.commits(0, after_seq=3)) == []


def test_commits_read_in_order_are_those_that_are_read_one_by_one(store: Store) -> None:
    chain, other = Chain(), Chain(OTHER)
    append(
        store,
        chain.next("a", "b", is_signed=False),
        other.next("x"),
        chain.next(),
        chain.next("c"),
        chain.next("d"),
    )
    with store.write() as batch:
        batch.log.drop(0, 1, 1, arrival=1)
        batch.transaction.delete(Table.HEADERS, bytes(4) + (4).to_bytes(8, "big"))
    append(store, chain.next("e"))  # above the gap
    with store.read() as snapshot:
        assert list(snapshot.log.commits(0)) == [snapshot.log.commit(0, seq) for seq in (1, 2, 3)]
        assert list(snapshot.log.commits(1)) == [snapshot.log.commit(1, 1)]


def test_arrivals_count_every_commit_in_the_order_in_which_it_came(store: Store) -> None:
    chain, other = Chain(), Chain(OTHER)
    append(store, chain.next("a", "b"), other.next("x"))
    append(store, chain.next("c", verdict=Verdict.VOID))
    with store.read() as snapshot:
        found = list(snapshot.log.arrivals())
        assert [(a.number, a.chain, a.seq) for a in found] == [(1, 0, 1), (2, 1, 1), (3, 0, 2)]
        assert [a.changes for a in found] == [(Change.CREATED,) * 2, (Change.CREATED,), (Change.NONE,)]
        assert [a.number for a in snapshot.log.arrivals(after_number=2)] == [3]
        assert (snapshot.log.first_arrival(), snapshot.log.last_arrival()) == (1, 3)


def test_an_empty_log_has_no_arrivals(log: LogReader) -> None:
    assert (log.first_arrival(), log.last_arrival(), list(log.arrivals())) == (1, 0, [])


def test_verdicts_other_than_applied_are_kept(store: Store) -> None:
    append(store, Chain().next("a", "b", verdict=Verdict.WITHHELD), Chain(OTHER).next("x"))
    with store.read() as snapshot:
        assert [snapshot.log.verdict(0, 1, i) for i in (0, 1)] == [Verdict.WITHHELD] * 2
        assert snapshot.log.verdict(1, 1, 0) is Verdict.APPLIED


def test_signatures_are_kept_at_the_newest_and_at_every_64th(store: Store) -> None:
    chain = Chain()
    for _ in range(2 * SIGNATURE_KEPT_EVERY + 2):
        append(store, chain.next("a"))
    assert signatures(store) == [SIGNATURE_KEPT_EVERY, 2 * SIGNATURE_KEPT_EVERY, 2 * SIGNATURE_KEPT_EVERY + 2]
    with store.read() as snapshot:
        newest = snapshot.log.commit(0, chain.seq)
        assert newest is not None and newest.signature is not None
        assert verify_signature(AUTHOR, newest.hash, newest.signature)


def test_a_run_that_is_signed_at_its_end_leaves_one_signature(store: Store) -> None:
    chain = Chain()
    append(store, chain.next("a"), chain.next("b"))
    append(store, *(chain.next("c", is_signed=False) for _ in range(5)), chain.next("d"))
    assert signatures(store) == [8]


def test_signatures_are_kept_where_one_run_could_not_hold_what_lies_between(store: Store) -> None:
    chain = Chain()
    large = "x" * (PROVED_TOGETHER_MAX_BYTES // 3)
    for text in ("a", "b", large, "c", large, large, "d", large * 3 + "x", "e", "f"):
        append(store, chain.next(text))
    assert signatures(store) == [5, 7, 8, 10]


def test_a_long_run_does_not_take_the_signature_before_it(store: Store) -> None:
    chain = Chain()
    append(store, chain.next("a"), chain.next("b"))
    append(
        store, *(chain.next("c", is_signed=False) for _ in range(2 * SIGNATURE_KEPT_EVERY)), chain.next("d")
    )
    append(store, chain.next("e"))
    assert signatures(store) == [2, 2 * SIGNATURE_KEPT_EVERY + 3, 2 * SIGNATURE_KEPT_EVERY + 4]


def test_a_write_that_was_not_kept_leaves_no_size_behind(store: Store) -> None:
    chain = Chain()
    append(store, chain.next("a"))
    twin = Chain()
    twin.seq, twin.hash = chain.seq, chain.hash
    with pytest.raises(ZeroDivisionError), store.write() as batch:
        batch.log.append(twin.next("x" * PROVED_TOGETHER_MAX_BYTES))
        raise ZeroDivisionError
    append(store, chain.next("b"), chain.next("c"))
    assert signatures(store) == [3]


def test_a_body_that_its_header_does_not_sign_is_damage(store: Store) -> None:
    done = Chain().next("one")
    append(store, done)
    with store.keys.write() as batch:
        batch.put(Table.BODIES, (0).to_bytes(4, "big") + (1).to_bytes(8, "big") + b"\0\0", b"another")
    with store.read() as snapshot, pytest.raises(StoreDamaged, match="civicnode doctor"):
        snapshot.log.commit(0, 1)


@pytest.mark.parametrize("data", [b"", b"\x80", b"\x01", b"\xff", b"\x89" + b"\x01" * 9])
def test_a_header_that_is_none_is_damage(store: Store, data: bytes) -> None:
    append(store, Chain().next("one"))
    with store.keys.write() as batch:
        batch.put(Table.HEADERS, (0).to_bytes(4, "big") + (1).to_bytes(8, "big"), data)
    with store.read() as snapshot:
        with pytest.raises(StoreDamaged):
            snapshot.log.commit(0, 1)
        with pytest.raises(StoreDamaged):
            snapshot.log.header_fields(0, 1)


def test_a_dropped_body_is_read_as_none(store: Store) -> None:
    done = Chain().next("one", "two")
    append(store, Integrated(replace(done.commit, bodies=(None, done.commit.bodies[1])), {}, done.entries))
    with store.read() as snapshot:
        commit = snapshot.log.commit(0, 1)
    assert commit == Commit(
        done.commit.header, done.commit.header_bytes, done.commit.hash, (None, done.commit.bodies[1]),
        done.commit.signature,
    )  # fmt: skip


def test_what_an_author_knows_of_another_grows_with_its_chain() -> None:
    first = Site(seed=1)
    model = first.define(TASK)
    second = Site(seed=2, founder=first)
    second.receive_from(first)
    for number in range(3):
        first.create(model, f"a{number}", title="a")
    second.create(model, "b", title="b")  # has seen the first's two commits
    second.receive_from(first)
    second.create(model, "c", title="c")  # has seen all five
    first.receive_from(second)
    space = first.store.space("default")
    assert first.store.identity is not None and second.store.identity is not None
    ours, theirs = first.store.identity.author, second.store.identity.author
    for site in (first, second):
        with site.store.read() as snapshot:
            assert [snapshot.log.knows(space, theirs, seq, ours) for seq in (0, 1, 2, 3)] == [0, 1, 4, 4]
            assert list(snapshot.log.known_by(space, theirs, 1)) == [(ours, 1)]
            assert list(snapshot.log.known_by(space, theirs, 2)) == [(ours, 4)]
            assert snapshot.log.knows(space, ours, 4, theirs) == 0
            assert list(snapshot.log.known_by(space, OTHER, 1)) == []


def test_what_a_node_writes_is_what_it_signs() -> None:
    site = Site()
    model = site.define(TASK)
    site.change(*(create(model, f"t{n}", title=str(n)) for n in range(10)))
    for commit in site.commits():
        assert commit.signature is None or verify_signature(
            commit.header.author, commit.hash, commit.signature
        )
    assert len(site.commits()[-1].bodies) == 10
