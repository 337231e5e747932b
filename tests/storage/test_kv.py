"""The key-value stores: one contract for both, and what only the one on disk has to do."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import lmdb
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from storage.errors import StorageFailed, StorageFull, StoreDamaged
from storage.kv import KeyValueStore, ReadTransaction, Table, WriteTransaction
from storage.lmdb_kv import DATA_FILE, LmdbKeyValueStore
from storage.memory_kv import MemoryKeyValueStore
from tests.directories import temporary_directory
from tests.storage.contract import A, B, KeyValueContract, Refused, everything, filled


class TestLmdb(KeyValueContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[KeyValueStore]:
        store = LmdbKeyValueStore(str(tmp_path))
        yield store
        store.close()


class TestMemory(KeyValueContract):
    @pytest.fixture
    def store(self) -> KeyValueStore:
        return MemoryKeyValueStore()


keys = st.binary(min_size=1, max_size=3) | st.sampled_from([b"a", b"b", b"\xff", b"\xff\xff"])
values = st.binary(max_size=8)
tables = st.sampled_from([A, B])
limits = st.none() | st.binary(max_size=2)


class BothStores(RuleBasedStateMachine):
    """Whatever is done to the two stores, they answer alike."""

    def __init__(self) -> None:
        super().__init__()
        self.held = ExitStack()
        directory = self.held.enter_context(temporary_directory())
        self.stores: tuple[KeyValueStore, ...] = (LmdbKeyValueStore(directory), MemoryKeyValueStore())
        self.held.callback(self.stores[0].close)
        self.open: tuple[WriteTransaction, ...] | None = None
        self.reading: tuple[ReadTransaction, ...] | None = None
        self.write = ExitStack()
        self.read = ExitStack()

    def teardown(self) -> None:
        self.read.close()
        self.write.close()
        self.held.close()

    @precondition(lambda self: self.open is None)
    @rule()
    def begin(self) -> None:
        self.write = ExitStack()
        self.open = tuple(self.write.enter_context(store.write()) for store in self.stores)

    @precondition(lambda self: self.open is not None)
    @rule(is_kept=st.booleans())
    def end(self, is_kept: bool) -> None:
        self.open = None
        if is_kept:
            self.write.close()
        else:
            with pytest.raises(Refused), self.write:
                raise Refused

    @rule()
    def begin_or_end_reading(self) -> None:
        self.read.close()
        if self.reading is None:
            self.reading = tuple(self.read.enter_context(store.read()) for store in self.stores)
        else:
            self.reading = None

    @precondition(lambda self: self.open is not None)
    @rule(table=tables, key=keys, value=values)
    def put(self, table: Table, key: bytes, value: bytes) -> None:
        for batch in self.open or ():
            batch.put(table, key, value)

    @precondition(lambda self: self.open is not None)
    @rule(table=tables, key=keys)
    def delete(self, table: Table, key: bytes) -> None:
        there = [batch.delete(table, key) for batch in self.open or ()]
        assert there[0] == there[1]

    @precondition(lambda self: self.open is not None)
    @rule(table=tables, suffixes=st.sets(st.binary(min_size=1, max_size=2), max_size=3), value=values)
    def append(self, table: Table, suffixes: set[bytes], value: bytes) -> None:
        for batch in self.open or ():
            newest = batch.last(table, b"", None)
            prefix = newest[0] if newest else b""
            if len(prefix) < 100:
                batch.append(table, [(prefix + suffix, value) for suffix in sorted(suffixes)])

    @rule(table=tables, key=keys, start=limits, stop=limits)
    def look(self, table: Table, key: bytes, start: bytes | None, stop: bytes | None) -> None:
        for pair in (self.open, self.reading):
            if pair is not None:
                assert pair[0].get(table, key) == pair[1].get(table, key)
                assert pair[0].last(table, start or b"", stop) == pair[1].last(table, start or b"", stop)
                found = [list(transaction.scan(table, start or b"", stop)) for transaction in pair]
                assert found[0] == found[1]

    @invariant()
    def hold_the_same(self) -> None:
        for pair in (self.open, self.reading):
            if pair is not None:
                assert everything(pair[0]) == everything(pair[1])
                assert pair[0].count(A) == pair[1].count(A)
        with self.stores[0].read() as on_disk, self.stores[1].read() as in_memory:
            assert everything(on_disk, B) == everything(in_memory, B)


TestBothStores = BothStores.TestCase
TestBothStores.settings = settings(stateful_step_count=50)


# -- on disk only ------------------------------------------------------------------------------------------


def test_what_was_written_is_there_after_reopening(tmp_path: Path) -> None:
    filled(LmdbKeyValueStore(str(tmp_path)), b"a").close()
    store = LmdbKeyValueStore(str(tmp_path))
    with store.read() as snapshot:
        assert everything(snapshot) == [(b"a", b"a")]
    store.close()


def test_every_commit_is_two_flushes(tmp_path: Path) -> None:
    store = filled(LmdbKeyValueStore(str(tmp_path)), b"a")
    assert store.statistics()["flushes"] == 2 * store.statistics()["commits"]
    store.close()


def test_a_read_only_store_changes_no_file(tmp_path: Path) -> None:
    filled(LmdbKeyValueStore(str(tmp_path)), b"a").close()
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
    store = LmdbKeyValueStore(str(tmp_path), read_only=True)
    with store.read() as snapshot:
        assert snapshot.get(A, b"a") == b"a"
    store.close()
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()} == before


def test_only_the_owner_may_read_the_files(tmp_path: Path) -> None:
    filled(LmdbKeyValueStore(str(tmp_path)), b"a").close()
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def raw(directory: Path) -> "lmdb.Environment":
    return lmdb.open(str(directory), max_dbs=len(Table), map_size=1 << 26)


def test_an_altered_value_is_never_served(tmp_path: Path) -> None:
    filled(LmdbKeyValueStore(str(tmp_path)), b"a", b"b").close()
    with raw(tmp_path) as environment, environment.begin(write=True) as transaction:
        table = environment.open_db(A.encode(), transaction)
        stored = transaction.get(b"a", db=table)
        assert stored is not None
        transaction.put(b"a", stored[:-1] + b"A", db=table)
    store = LmdbKeyValueStore(str(tmp_path))
    with store.read() as snapshot:
        with pytest.raises(StoreDamaged, match="civicnode doctor"):
            snapshot.get(A, b"a")
        with pytest.raises(StoreDamaged):
            list(snapshot.scan(A, b"", None))
        with pytest.raises(StoreDamaged):
            snapshot.last(A, b"", b"b")
        assert snapshot.get(A, b"b") == b"b"
        assert list(snapshot.audit(A)) == [(b"a", None, True), (b"b", b"b", True)]
    store.close()


def test_a_value_is_not_served_under_another_key_and_its_own_is_missed(tmp_path: Path) -> None:
    filled(LmdbKeyValueStore(str(tmp_path)), b"a1", b"c1", b"e1").close()
    with raw(tmp_path) as environment, environment.begin(write=True) as transaction:
        table = environment.open_db(A.encode(), transaction)
        stored = transaction.pop(b"c1", db=table)
        assert stored is not None
        transaction.put(b"c3", stored, db=table)  # as if one bit of the key had flipped
    store = LmdbKeyValueStore(str(tmp_path))
    with store.read() as snapshot:
        for read in (
            lambda: snapshot.get(A, b"c3"),
            lambda: snapshot.get(A, b"c1"),  # its neighbours tell that it is not simply absent
            lambda: snapshot.get(A, b"c4"),
            lambda: list(snapshot.scan(A, b"b", b"d")),
            lambda: list(snapshot.scan(A, b"c1", b"c2")),
            lambda: list(snapshot.scan(A, b"c4", b"d")),
            lambda: snapshot.last(A, b"", b"d"),
        ):
            with pytest.raises(StoreDamaged):
                read()
        assert snapshot.get(A, b"e1") == b"e1"
        assert snapshot.get(A, b"f") is None
        assert [key for key, value, _ in snapshot.audit(A) if value is None] == [b"c3"]
    store.close()


def test_absence_is_believed_again_for_each_gap(tmp_path: Path) -> None:
    store = filled(LmdbKeyValueStore(str(tmp_path)), b"b", b"d")
    with store.write() as batch:
        for key in (b"a", b"c", b"c1", b"e", b"a1", b"e1", b"c"):
            assert batch.get(A, key) is None
            batch.put(A, key, key)
            assert batch.get(A, key) == key
            batch.delete(A, key)
    store.close()


def test_a_record_without_one_of_its_tables_is_damaged(tmp_path: Path) -> None:
    filled(LmdbKeyValueStore(str(tmp_path)), b"a").close()
    with raw(tmp_path) as environment, environment.begin(write=True) as transaction:
        transaction.drop(environment.open_db(B.encode(), transaction))
    store = LmdbKeyValueStore(str(tmp_path))
    with store.read() as snapshot:
        assert snapshot.get(A, b"a") == b"a"
        with pytest.raises(StoreDamaged, match=B.value):
            snapshot.get(B, b"a")
    store.close()


@pytest.mark.parametrize("read_only", [False, True])
def test_a_file_that_is_no_record_is_damaged(tmp_path: Path, read_only: bool) -> None:
    (tmp_path / DATA_FILE).write_bytes(os.urandom(8_192))
    with pytest.raises(StoreDamaged, match="civicnode restore"):
        LmdbKeyValueStore(str(tmp_path), read_only=read_only)


def test_after_a_flush_that_failed_there_are_no_more_writes() -> None:
    store = filled(MemoryKeyValueStore(), b"a")
    store.fail_next_write = StorageFailed("the disk failed")
    with pytest.raises(StorageFailed):
        filled(store, b"b")
    with pytest.raises(StorageFailed):
        filled(store, b"c")
    with store.read() as snapshot:
        assert everything(snapshot) == [(b"a", b"a")]


def test_after_a_full_disk_writes_resume() -> None:
    store = filled(MemoryKeyValueStore(), b"a")
    store.fail_next_write = StorageFull("no space")
    with pytest.raises(StorageFull):
        filled(store, b"b")
    filled(store, b"c")
    with store.read() as snapshot:
        assert [key for key, _ in everything(snapshot)] == [b"a", b"c"]
