"""The key-value store on disk: one LMDB environment, flushed before a write returns.

Room: the only module that imports LMDB. `writemap` stays off (a full disk would
kill the process) and so does every option that trades durability for speed. A
commit is two flushes: the pages, then the meta page that makes them count.
"""

import errno
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import lmdb

from storage.errors import StorageFailed, StorageFull, StoreDamaged
from storage.kv import Table

DATA_FILE = "data.mdb"
MAP_SIZE_BYTES = 256 << 30  # address space, not disk: a full disk is the one limit that users meet
MAP_SIZE_SMALL_BYTES = 64 << 30
_FLUSHES_PER_COMMIT = 2
_READERS_MAX = 512


class LmdbTransaction:
    """Reads and, within `LmdbKeyValueStore.write`, writes."""

    __slots__ = ("_handles", "_transaction")

    def __init__(self, transaction: "lmdb.Transaction", handles: dict[Table, object]) -> None:
        self._transaction = transaction
        self._handles = handles

    def get(self, table: Table, key: bytes) -> bytes | None:
        return self._transaction.get(key, None, self._handles[table])

    def scan(self, table: Table, start: bytes, stop: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        with self._transaction.cursor(self._handles[table]) as cursor:
            if not cursor.set_range(start):
                return
            for key, value in cursor:
                if stop is not None and key >= stop:
                    return
                yield key, value

    def last(self, table: Table, start: bytes, stop: bytes | None) -> tuple[bytes, bytes] | None:
        with self._transaction.cursor(self._handles[table]) as cursor:
            found = cursor.prev() if stop is not None and cursor.set_range(stop) else cursor.last()
            return cursor.item() if found and cursor.key() >= start else None

    def count(self, table: Table) -> int:
        return self._transaction.stat(self._handles[table])["entries"]

    def put(self, table: Table, key: bytes, value: bytes) -> None:
        self._transaction.put(key, value, True, True, False, self._handles[table])

    def append(self, table: Table, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        with self._transaction.cursor(self._handles[table]) as cursor:
            cursor.putmulti(pairs, append=True)

    def delete(self, table: Table, key: bytes) -> bool:
        return self._transaction.delete(key, b"", self._handles[table])


class LmdbKeyValueStore:
    """`KeyValueStore` in a directory. One process opens it at a time: `gate` holds the lock."""

    def __init__(self, directory: str, *, flush_delay_ms: float = 0) -> None:
        """`flush_delay_ms` makes every flush slower, to see what a slow disk would do to a figure."""
        self._path = os.path.join(directory, DATA_FILE)
        self._flush_delay_s = _FLUSHES_PER_COMMIT * flush_delay_ms / 1000
        self._commits = 0
        self._failed: str | None = None
        options = dict(subdir=True, max_dbs=len(Table), max_readers=_READERS_MAX, mode=0o600, meminit=False,
                       sync=True, metasync=True, writemap=False, max_spare_txns=8)  # fmt: skip
        try:
            try:
                self._environment = lmdb.open(directory, map_size=MAP_SIZE_BYTES, **options)
            except lmdb.MemoryError:  # a device or a container that does not give so much address space
                self._environment = lmdb.open(directory, map_size=MAP_SIZE_SMALL_BYTES, **options)
            self._handles = {table: self._environment.open_db(table.encode()) for table in Table}
        except lmdb.Error as error:
            raise _translated(error, self._path) from error

    @contextmanager
    def read(self) -> Iterator[LmdbTransaction]:
        with self._environment.begin() as transaction:
            yield LmdbTransaction(transaction, self._handles)

    @contextmanager
    def write(self) -> Iterator[LmdbTransaction]:
        if self._failed:
            raise StorageFailed(self._failed)
        transaction = self._environment.begin(write=True)
        try:
            yield LmdbTransaction(transaction, self._handles)
        except lmdb.Error as error:
            transaction.abort()
            raise _translated(error, self._path) from error
        except BaseException:
            transaction.abort()
            raise
        try:
            transaction.commit()
        except lmdb.Error as error:
            failure = _translated(error, self._path, self._free_bytes())
            if isinstance(failure, StorageFailed):
                self._failed = f"{failure}; restart the node, which verifies the record first"
            raise failure from error
        if self._flush_delay_s:
            time.sleep(self._flush_delay_s)
        self._commits += 1

    def _free_bytes(self) -> int | None:
        try:
            facts = os.statvfs(self._path)
        except OSError:
            return None
        return facts.f_bavail * facts.f_frsize

    def statistics(self) -> dict[str, int]:
        info = self._environment.info()
        page = self._environment.stat()["psize"]
        return {
            "commits": self._commits,
            "flushes": self._commits * _FLUSHES_PER_COMMIT,
            "used_bytes": (info["last_pgno"] + 1) * page,
        }

    def copy_to(self, directory: str) -> None:
        """A compact, consistent copy into an empty directory, while reads and writes go on. Blocks."""
        try:
            self._environment.copy(directory, compact=True)
        except lmdb.Error as error:
            raise _translated(error, directory) from error

    def close(self) -> None:
        self._environment.close()


# The engine answers a write that did not fit with the bare error number, or with EIO for a short write.
_FULL_BELOW_BYTES = 1 << 20


def _translated(error: "lmdb.Error", path: str, free_bytes: int | None = None) -> Exception:
    """What an LMDB error means for this node."""
    text = str(error)
    if isinstance(error, lmdb.MapFullError):
        return StorageFull(f"the store at {path} has reached its limit of address space")
    if isinstance(error, lmdb.DiskError) or os.strerror(errno.ENOSPC) in text or os.strerror(errno.EDQUOT) in text:
        return StorageFull(f"no space left for {path}: free some, and writes resume by themselves")
    if free_bytes is not None and free_bytes < _FULL_BELOW_BYTES:
        return StorageFull(f"no space left for {path}: free some, and writes resume by themselves")
    damaged = (lmdb.CorruptedError, lmdb.InvalidError, lmdb.PageNotFoundError, lmdb.PanicError,
               lmdb.VersionMismatchError, lmdb.BadDbiError)  # fmt: skip
    if isinstance(error, damaged):
        return StoreDamaged(f"{path} is damaged ({text}): run `civicnode doctor`, or `civicnode restore` a backup")
    return StorageFailed(f"the disk failed at {path} ({text})")
