"""Records of this device alone."""

import pytest

from storage.kv import Table
from storage.local import LocalReader, LocalWriter
from storage.memory_kv import MemoryKeyValueStore


def test_kinds_are_apart_and_keys_come_in_order() -> None:
    keys = MemoryKeyValueStore()
    with keys.write() as batch:
        local = LocalWriter(batch)
        for kind, key in (("b", "2"), ("b", "1"), ("a", "1"), ("b", "21"), ("ba", "1")):
            local.put(kind, key, {"at": key})
    with keys.read() as snapshot:
        reader = LocalReader(snapshot)
        assert [key for key, _ in reader.scan("b")] == ["1", "2", "21"]
        assert list(reader.scan("b", "2")) == [("2", {"at": "2"}), ("21", {"at": "21"})]
        assert reader.get("a", "1") == {"at": "1"}
        assert reader.get("a", "2") is None


def test_delete_says_whether_there_was_one() -> None:
    keys = MemoryKeyValueStore()
    with keys.write() as batch:
        local = LocalWriter(batch)
        local.put("a", "é", {})
        assert local.delete("a", "é") is True
        assert local.delete("a", "é") is False


def test_undo_puts_back_what_was_there_at_the_mark() -> None:
    keys = MemoryKeyValueStore()
    with keys.write() as batch:
        local = LocalWriter(batch)
        local.put("a", "kept", {"n": 1})
        local.put("a", "changed", {"n": 1})
        local.put("a", "deleted", {"n": 1})
        local.mark()
        before = dict(batch.scan(Table.LOCAL, b"", None))
        local.put("a", "changed", {"n": 2})
        local.put("a", "changed", {"n": 3})
        local.delete("a", "deleted")
        local.put("a", "new", {})
        local.delete("a", "never")
        local.undo()
        assert dict(batch.scan(Table.LOCAL, b"", None)) == before


def test_a_key_that_is_too_long_is_refused() -> None:
    keys = MemoryKeyValueStore()
    with keys.write() as batch, pytest.raises(ValueError, match="limit 400"):
        LocalWriter(batch).put("kind", "é" * 200, {})
