"""The key-value store in memory: for tests and simulations, behaving as the one on disk does.

Room: sorted keys beside a dictionary, per table. A write works on the live
tables and undoes itself if it fails. There is one thread: a reader never
overlaps a writer. `fail_next_write` shows what a full or failing disk does.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from storage.kv import Table


class _Sorted:
    __slots__ = ("keys", "values")

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self.values: dict[bytes, bytes] = {}


class MemoryTransaction:
    """Reads and, within `MemoryKeyValueStore.write`, writes."""

    def __init__(self, tables: dict[Table, _Sorted]) -> None:
        self._tables = tables
        self._before: list[tuple[Table, bytes, bytes | None]] = []

    def get(self, table: Table, key: bytes) -> bytes | None:
        return self._tables[table].values.get(key)

    def _range(self, table: Table, start: bytes, stop: bytes | None) -> range:
        keys = self._tables[table].keys
        return range(bisect_left(keys, start), len(keys) if stop is None else bisect_left(keys, stop))

    def scan(self, table: Table, start: bytes, stop: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        held = self._tables[table]
        for position in self._range(table, start, stop):
            key = held.keys[position]
            yield key, held.values[key]

    def last(self, table: Table, start: bytes, stop: bytes | None) -> tuple[bytes, bytes] | None:
        held = self._tables[table]
        positions = self._range(table, start, stop)
        return (held.keys[positions[-1]], held.values[held.keys[positions[-1]]]) if positions else None

    def count(self, table: Table) -> int:
        return len(self._tables[table].keys)

    def put(self, table: Table, key: bytes, value: bytes) -> None:
        held = self._tables[table]
        self._before.append((table, key, held.values.get(key)))
        if key not in held.values:
            insort(held.keys, key)
        held.values[key] = value

    def append(self, table: Table, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        for key, value in pairs:
            self.put(table, key, value)

    def delete(self, table: Table, key: bytes) -> bool:
        held = self._tables[table]
        if key not in held.values:
            return False
        self._before.append((table, key, held.values.pop(key)))
        del held.keys[bisect_left(held.keys, key)]
        return True

    def undo(self) -> None:
        """Put everything back as it was when the transaction began."""
        before, self._before = self._before, []
        for table, key, value in reversed(before):
            if value is None:
                self.delete(table, key)
            else:
                self.put(table, key, value)


class MemoryKeyValueStore:
    """`KeyValueStore` without a disk: what it holds is as durable as the object."""

    def __init__(self) -> None:
        self._tables = {table: _Sorted() for table in Table}
        self._commits = 0
        self.fail_next_write: Exception | None = None

    @contextmanager
    def read(self) -> Iterator[MemoryTransaction]:
        yield MemoryTransaction(self._tables)

    @contextmanager
    def write(self) -> Iterator[MemoryTransaction]:
        transaction = MemoryTransaction(self._tables)
        try:
            yield transaction
            if self.fail_next_write is not None:
                failure, self.fail_next_write = self.fail_next_write, None
                raise failure
        except BaseException:
            transaction.undo()
            raise
        self._commits += 1

    def statistics(self) -> dict[str, int]:
        used = sum(len(k) + len(v) for held in self._tables.values() for k, v in held.values.items())
        return {"commits": self._commits, "flushes": 0, "used_bytes": used}

    def close(self) -> None:
        pass
