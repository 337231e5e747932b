"""The key-value store in memory: for tests and simulations, behaving as the one on disk does.

Room: sorted keys beside a dictionary, per table. A write is laid over the tables
and becomes part of them when it ends, so that it can be dropped and nobody sees
half of it. A table that is being read when a write ends is copied first.
`fail_next_write` shows what a full or failing disk does.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from heapq import merge

from protocol.errors import LocalMisuse
from storage.errors import StorageFailed
from storage.kv import KEY_MAX_BYTES, Table


class _Sorted:
    """Pairs in the order of their keys. In an overlay, None stands for a key that was deleted."""

    __slots__ = ("keys", "values")

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self.values: dict[bytes, bytes | None] = {}

    def copy(self) -> "_Sorted":
        other = _Sorted()
        other.keys, other.values = self.keys.copy(), self.values.copy()
        return other

    def put(self, key: bytes, value: bytes | None) -> None:
        if key not in self.values:
            if not self.keys or key > self.keys[-1]:
                self.keys.append(key)
            else:
                insort(self.keys, key)
        self.values[key] = value

    def remove(self, key: bytes) -> None:
        if self.values.pop(key, None) is not None:
            del self.keys[bisect_left(self.keys, key)]

    def range(self, start: bytes, stop: bytes | None) -> range:
        return range(
            bisect_left(self.keys, start), len(self.keys) if stop is None else bisect_left(self.keys, stop)
        )


class MemoryTransaction:
    """Reads and, within `MemoryKeyValueStore.write`, writes."""

    def __init__(self, tables: dict[Table, _Sorted]) -> None:
        self._tables = tables
        self.overlays: dict[Table, _Sorted] = {}
        self.failure: Exception | None = None

    def get(self, table: Table, key: bytes) -> bytes | None:
        overlay = self.overlays.get(table)
        if overlay is not None and key in overlay.values:
            return overlay.values[key]
        return self._tables[table].values.get(key)

    def scan(self, table: Table, start: bytes, stop: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        held, overlay = self._tables[table], self.overlays.get(table)
        keys: Iterable[bytes] = (held.keys[i] for i in held.range(start, stop))
        if overlay is not None:
            found = overlay.range(start, stop)
            keys = merge((key for key in keys if key not in overlay.values), (overlay.keys[i] for i in found))
        for key in keys:
            value = self.get(table, key)
            if value is not None:
                yield key, value

    def last(self, table: Table, start: bytes, stop: bytes | None) -> tuple[bytes, bytes] | None:
        best: tuple[bytes, bytes] | None = None
        overlay = self.overlays.get(table)
        for source in (self._tables[table], overlay):
            for position in reversed(source.range(start, stop) if source is not None else ()):
                assert source is not None
                key = source.keys[position]
                value = self.get(table, key)
                if value is not None:
                    best = max(best or (key, value), (key, value))
                    break
        return best

    def audit(self, table: Table, start: bytes = b"") -> Iterator[tuple[bytes, bytes | None, bool]]:
        """Every key in order with its value: nothing is damaged here."""
        return ((key, value, True) for key, value in self.scan(table, start, None))

    def count(self, table: Table) -> int:
        held, overlay = self._tables[table].values, self.overlays.get(table)
        changes = overlay.values.items() if overlay is not None else ()
        return len(held) + sum((value is not None) - (key in held) for key, value in changes)

    def put(self, table: Table, key: bytes, value: bytes) -> None:
        if not 0 < len(key) <= KEY_MAX_BYTES:
            self.failure = LocalMisuse(f"a key of {len(key)} bytes: keys have 1 to {KEY_MAX_BYTES}")
            raise self.failure
        self._overlay(table).put(key, value)

    def put_many(self, table: Table, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        for key, value in pairs:
            self.put(table, key, value)

    def append(self, table: Table, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        newest = self.last(table, b"", None)
        last = newest[0] if newest else b""
        for key, value in pairs:
            if key <= last:
                self.failure = LocalMisuse(f"keys appended to {table} are not above all others")
                raise self.failure
            self.put(table, key, value)
            last = key

    def delete(self, table: Table, key: bytes) -> bool:
        if self.get(table, key) is None:
            return False
        self._overlay(table).put(key, None)
        return True

    def _overlay(self, table: Table) -> _Sorted:
        overlay = self.overlays.get(table)
        if overlay is None:
            overlay = self.overlays[table] = _Sorted()
        return overlay


class MemoryKeyValueStore:
    """`KeyValueStore` without a disk: what it holds is as durable as the object."""

    def __init__(self) -> None:
        self._tables = {table: _Sorted() for table in Table}
        self._readers = 0
        self._commits = 0
        self.failure: str | None = None
        self.fail_next_write: Exception | None = None

    @contextmanager
    def read(self) -> Iterator[MemoryTransaction]:
        self._readers += 1
        try:
            yield MemoryTransaction(dict(self._tables))
        finally:
            self._readers -= 1

    @contextmanager
    def write(self) -> Iterator[MemoryTransaction]:
        if self.failure:
            raise StorageFailed(self.failure)
        transaction = MemoryTransaction(self._tables)
        yield transaction
        if transaction.failure is not None:
            raise transaction.failure
        if self.fail_next_write is not None:
            failure, self.fail_next_write = self.fail_next_write, None
            if isinstance(failure, StorageFailed):
                self.failure = str(failure)
            raise failure
        for table, overlay in transaction.overlays.items():
            self._lay(table, overlay)
        self._commits += 1

    def _lay(self, table: Table, overlay: _Sorted) -> None:
        if self._readers:
            self._tables[table] = self._tables[table].copy()
        held = self._tables[table]
        for key in overlay.keys:
            value = overlay.values[key]
            if value is None:
                held.remove(key)
            else:
                held.put(key, value)

    def statistics(self) -> dict[str, int]:
        pairs = (pair for held in self._tables.values() for pair in held.values.items())
        used = sum(len(key) + len(value or b"") for key, value in pairs)
        return {"commits": self._commits, "flushes": 0, "used_bytes": used}

    def close(self) -> None:
        pass
