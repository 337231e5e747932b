"""What every key-value store must do. `test_kv` runs it against the one on disk and the one in memory."""

from collections.abc import Iterator
from typing import TypeVar

import pytest

from protocol.errors import LocalMisuse
from storage.errors import StorageError
from storage.kv import KEY_MAX_BYTES, KeyValueStore, ReadTransaction, Table, after

A, B = Table.META, Table.LOCAL
Store = TypeVar("Store", bound=KeyValueStore)


class Refused(Exception):
    """Raised by a test inside a transaction."""


def everything(transaction: ReadTransaction, table: Table = A) -> list[tuple[bytes, bytes]]:
    return list(transaction.scan(table, b"", None))


def filled(store: Store, *keys: bytes, table: Table = A) -> Store:
    """The store, holding each key with itself as its value."""
    with store.write() as batch:
        for key in keys:
            batch.put(table, key, key)
    return store


class KeyValueContract:
    """Subclasses give the fixture `store`: a new, empty store."""

    def test_what_was_written_is_read_back(self, store: KeyValueStore) -> None:
        with store.write() as batch:
            batch.put(A, b"key", b"value")
            batch.put(A, b"empty", b"")
        with store.read() as snapshot:
            assert snapshot.get(A, b"key") == b"value"
            assert snapshot.get(A, b"empty") == b""
            assert snapshot.get(A, b"other") is None

    def test_tables_are_apart(self, store: KeyValueStore) -> None:
        filled(store, b"key")
        with store.read() as snapshot:
            assert snapshot.get(B, b"key") is None
            assert (snapshot.count(A), snapshot.count(B)) == (1, 0)

    def test_a_new_value_replaces_the_old(self, store: KeyValueStore) -> None:
        with filled(store, b"key").write() as batch:
            batch.put(A, b"key", b"longer than before")
        with store.read() as snapshot:
            assert everything(snapshot) == [(b"key", b"longer than before")]

    def test_delete_says_whether_the_key_was_there(self, store: KeyValueStore) -> None:
        with filled(store, b"a", b"b").write() as batch:
            assert batch.delete(A, b"a") is True
            assert batch.delete(A, b"a") is False
            assert batch.delete(A, b"c") is False
            assert batch.get(A, b"a") is None
        with store.read() as snapshot:
            assert everything(snapshot) == [(b"b", b"b")]

    def test_the_writer_reads_its_own_writes(self, store: KeyValueStore) -> None:
        with filled(store, b"a", b"c", b"d").write() as batch:
            batch.put(A, b"b", b"new")
            batch.put(A, b"c", b"changed")
            batch.delete(A, b"d")
            batch.put(A, b"e", b"new")
            batch.delete(A, b"e")
            assert everything(batch) == [(b"a", b"a"), (b"b", b"new"), (b"c", b"changed")]
            assert batch.last(A, b"", None) == (b"c", b"changed")
            assert batch.count(A) == 3

    def test_nothing_is_kept_of_a_write_that_raises(self, store: KeyValueStore) -> None:
        filled(store, b"a", b"b")
        with pytest.raises(Refused), store.write() as batch:
            batch.put(A, b"a", b"changed")
            batch.put(A, b"c", b"new")
            batch.append(A, [(b"d", b"new")])
            batch.delete(A, b"b")
            raise Refused
        with store.read() as snapshot:
            assert everything(snapshot) == [(b"a", b"a"), (b"b", b"b")]
        filled(store, b"c")  # and the store goes on
        with store.read() as snapshot:
            assert snapshot.count(A) == 3

    def test_a_reader_keeps_its_state_while_writes_go_on(self, store: KeyValueStore) -> None:
        filled(store, b"a", b"b")
        with store.read() as snapshot:
            with store.write() as batch:
                batch.put(A, b"a", b"changed")
                batch.delete(A, b"b")
                batch.put(A, b"c", b"new")
                with store.read() as during:
                    assert everything(during) == [(b"a", b"a"), (b"b", b"b")]
            assert everything(snapshot) == [(b"a", b"a"), (b"b", b"b")]
            assert (snapshot.get(A, b"b"), snapshot.get(A, b"c")) == (b"b", None)
            assert snapshot.count(A) == 2
        with store.read() as snapshot:
            assert everything(snapshot) == [(b"a", b"changed"), (b"c", b"new")]

    def test_a_scan_that_was_begun_ends_in_the_same_state(self, store: KeyValueStore) -> None:
        filled(store, *(bytes([n]) for n in range(1, 100)))
        with store.read() as snapshot:
            scan = snapshot.scan(A, b"", None)
            assert next(scan) == (b"\x01", b"\x01")
            with store.write() as batch:
                for n in range(1, 100):
                    batch.delete(A, bytes([n]))
            assert len(list(scan)) == 98

    @pytest.mark.parametrize(
        ("start", "stop", "expected"),
        [
            (b"", None, [b"a", b"b", b"ba", b"c"]),
            (b"b", None, [b"b", b"ba", b"c"]),
            (b"b", b"c", [b"b", b"ba"]),
            (b"b\x00", b"c\x00", [b"ba", b"c"]),
            (b"bb", b"c", []),
            (b"d", None, []),
            (b"", b"a", []),
            (b"c", b"a", []),
        ],
    )
    def test_ranges_hold_their_start_and_not_their_stop(
        self, store: KeyValueStore, start: bytes, stop: bytes | None, expected: list[bytes]
    ) -> None:
        filled(store, b"c", b"ba", b"a", b"b")
        with store.read() as snapshot:
            assert [key for key, _ in snapshot.scan(A, start, stop)] == expected
            last = snapshot.last(A, start, stop)
            assert last == ((expected[-1], expected[-1]) if expected else None)

    def test_keys_come_in_the_order_of_their_bytes(self, store: KeyValueStore) -> None:
        keys = [n.to_bytes(2, "big") for n in (65_535, 256, 255, 1, 2, 4_096)] + [b"\xff" * 9, b"\x00"]
        filled(store, *keys)
        with store.read() as snapshot:
            assert [key for key, _ in snapshot.scan(A, b"", None)] == sorted(keys)

    def test_a_prefix_is_a_range(self, store: KeyValueStore) -> None:
        filled(store, b"\xff", b"\xff\xff", b"\xff\xffa", b"a", b"ab", b"b")
        with store.read() as snapshot:
            assert [k for k, _ in snapshot.scan(A, b"a", after(b"a"))] == [b"a", b"ab"]
            assert [k for k, _ in snapshot.scan(A, b"\xff\xff", after(b"\xff\xff"))] == [
                b"\xff\xff",
                b"\xff\xffa",
            ]

    def test_append_fills_the_end_of_a_table(self, store: KeyValueStore) -> None:
        with filled(store, b"a").write() as batch:
            batch.append(A, [(b"b", b"1"), (b"c", b"2")])
            batch.append(A, iter([(b"d", b"3")]))
            batch.append(A, [])
        with store.read() as snapshot:
            assert everything(snapshot) == [(b"a", b"a"), (b"b", b"1"), (b"c", b"2"), (b"d", b"3")]

    @pytest.mark.parametrize("pairs", [[(b"c", b"")], [(b"d", b"")], [(b"f", b""), (b"e", b"")]])
    def test_append_refuses_what_is_not_at_the_end(
        self, store: KeyValueStore, pairs: list[tuple[bytes, bytes]]
    ) -> None:
        filled(store, b"d")
        with pytest.raises(LocalMisuse), store.write() as batch:
            batch.append(A, pairs)
        with store.read() as snapshot:
            assert everything(snapshot) == [(b"d", b"d")]

    def test_a_refused_append_undoes_the_write_even_if_it_was_caught(self, store: KeyValueStore) -> None:
        filled(store, b"d")
        with pytest.raises(LocalMisuse), store.write() as batch:
            batch.put(A, b"e", b"")
            try:
                batch.append(A, [(b"c", b"")])
            except LocalMisuse:
                pass
        with store.read() as snapshot:
            assert everything(snapshot) == [(b"d", b"d")]

    @pytest.mark.parametrize("size", [0, KEY_MAX_BYTES + 1])
    def test_a_key_of_no_or_too_many_bytes_is_a_bug(self, store: KeyValueStore, size: int) -> None:
        with pytest.raises(LocalMisuse, match=f"{size} bytes"), store.write() as batch:
            batch.put(A, b"k" * size, b"")
        filled(store, b"k" * KEY_MAX_BYTES)

    def test_large_values_are_kept_whole(self, store: KeyValueStore) -> None:
        value = bytes(range(256)) * 8_192
        with store.write() as batch:
            batch.put(A, b"large", value)
        with store.read() as snapshot:
            assert snapshot.get(A, b"large") == value

    def test_commits_are_counted(self, store: KeyValueStore) -> None:
        before = store.statistics()["commits"]
        filled(filled(store, b"a"), b"b")
        with pytest.raises(Refused), store.write() as batch:
            batch.put(A, b"c", b"")
            raise Refused
        assert store.statistics()["commits"] - before == 2
        assert store.statistics()["used_bytes"] > 0

    def test_a_generator_left_half_way_holds_nothing_up(self, store: KeyValueStore) -> None:
        filled(store, b"a", b"b")
        scans: list[Iterator[tuple[bytes, bytes]]] = []
        with store.read() as snapshot:
            scans.append(snapshot.scan(A, b"", None))
            next(scans[0])
        filled(store, b"c")
        scans[0].close()  # type: ignore[attr-defined]
        with store.read() as snapshot:
            assert snapshot.count(A) == 3

    def test_errors_of_storage_pass_through_a_write(self, store: KeyValueStore) -> None:
        with pytest.raises(StorageError), store.write() as batch:
            batch.put(A, b"a", b"")
            raise StorageError
        assert store.failure is None
