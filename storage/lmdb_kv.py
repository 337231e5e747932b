"""The key-value store on disk: one LMDB environment, flushed before a write returns.

Room: the only module that imports LMDB. `writemap` stays off (a full disk would
kill the process) and so does every option that trades durability for speed. `meminit`
stays on: else what memory once held, erased content too, would fill the gaps of pages. A
commit is two flushes: the pages, then the meta page that makes them count.

The engine does not notice a flipped bit, so every value carries a checksum over
its table, its key and itself, and a key that is not found is believed only if
its neighbours are whole and in order. What is read here was written here, or it
is `StoreDamaged`. The checksum also tells `salvage` what it has found on a page
that nothing leads to any more.

Each call to the engine lets go of the interpreter, and beside a busy thread it
takes up to the switch interval to get it back. So what a transaction writes is
collected, and handed over table by table when it ends or is looked for in order.
"""

import errno
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from zlib import crc32

import lmdb

from protocol.errors import LocalMisuse
from storage.errors import StorageError, StorageFailed, StorageFull, StoreDamaged, os_failure
from storage.kv import KEY_MAX_BYTES, Table

DATA_FILE = "data.mdb"
LOCK_TABLE_FILE = "lock.mdb"
MAP_SIZE_BYTES = 256 << 30  # address space, not disk: a full disk is the one limit that users meet
MAP_SIZE_SMALL_BYTES = 64 << 30
_FLUSHES_PER_COMMIT = 2
_READERS_MAX = 512
_LOCK_TABLE_BYTES = 64 << 10  # 64 bytes a reader and a header
CHECKSUM_BYTES = 4
CHANGES_MAX_BYTES = 64 << 20  # that are remembered while a copy is made: a second of writing them to it
_NO_GAP: tuple[bytes, bytes | None] = (b"\xff" * (KEY_MAX_BYTES + 1), None)

# Tables in which one pair by itself has its place anywhere, or of which there is little.
_SCATTERED = frozenset({Table.META, Table.CHAINS, Table.COLLECTIONS, Table.HEADS, Table.LOCAL, Table.FORKS})

_SEEDS = {table: crc32(table.encode()) for table in Table}


def checksum(table: Table, key: bytes, value: bytes) -> bytes:
    """What stands before a value on the disk."""
    return crc32(value, crc32(key, _SEEDS[table])).to_bytes(CHECKSUM_BYTES, "big")


def _with_checksums(table: Table, pairs: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    seed = _SEEDS[table]  # as `checksum`, without a call for each pair
    return [
        (key, crc32(value, crc32(key, seed)).to_bytes(CHECKSUM_BYTES, "big") + value) for key, value in pairs
    ]


class _Handles(dict[Table, "lmdb._Database"]):
    """The open tables. One that is missing is told only to those who ask for it: a newer release may have moved it."""

    def __missing__(self, table: Table) -> "lmdb._Database":
        raise StoreDamaged(
            f"the record has no table {table}: run `civicnode doctor`, or `civicnode restore` a backup"
        )


class LmdbTransaction:
    """Reads and, within `LmdbKeyValueStore.write`, writes. `failure` is what made it unfit to be committed."""

    __slots__ = ("_gaps", "_handles", "_held", "_noted", "_path", "_transaction", "failure")

    def __init__(
        self,
        transaction: "lmdb.Transaction[bytes]",
        handles: _Handles,
        path: str,
        noted: "list[_Noted] | None" = None,
    ) -> None:
        """`noted` gets all that is handed to the engine, in this order."""
        self._transaction = transaction
        self._handles = handles
        self._path = path
        self._gaps: dict[Table, tuple[bytes, bytes | None]] | None = None
        self._held: dict[Table, dict[bytes, bytes]] = {}  # written, and not yet handed to the engine
        self._noted = noted
        self.failure: Exception | None = None

    def __enter__(self) -> "LmdbTransaction":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._transaction.abort()

    def get(self, table: Table, key: bytes) -> bytes | None:
        if self._held and (held := self._held.get(table)) is not None:
            written = held.get(key)
            if written is not None:
                return written
        if self._gaps is not None:
            low, high = self._gaps.get(table, _NO_GAP)
            if low < key and (high is None or key < high):
                return None  # creates ask for one new id after the other
        try:
            stored = self._transaction.get(key, None, self._handles[table])
        except lmdb.Error as error:
            raise self._fail(error, key) from error
        if stored is None:
            self._check_absence(table, key)
            return None
        value = stored[CHECKSUM_BYTES:]
        if checksum(table, key, value) != stored[:CHECKSUM_BYTES]:
            raise self._damaged(table)
        return value

    def _check_absence(self, table: Table, key: bytes) -> None:
        """Raise unless the key's neighbours are whole and on their sides of it.

        A bit flipped in a key, or in one of the keys that lead to it, would otherwise make data vanish in silence.
        """
        if self._gaps is None:
            self._gaps = {}
        try:
            with self._transaction.cursor(self._handles[table]) as cursor:
                high = self._whole(table, *cursor.item())[0] if cursor.set_range(key) else None
                has_low = cursor.last() if high is None else cursor.prev()
                low = self._whole(table, *cursor.item())[0] if has_low else b""
        except lmdb.Error as error:
            raise self._fail(error, key) from error
        if not low < key or (high is not None and not key < high):
            raise self._damaged(table)
        self._gaps[table] = low, high

    def _whole(self, table: Table, key: bytes, stored: bytes) -> tuple[bytes, bytes]:
        value = stored[CHECKSUM_BYTES:]
        if checksum(table, key, value) != stored[:CHECKSUM_BYTES]:
            raise self._damaged(table)
        return key, value

    def scan(self, table: Table, start: bytes, stop: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        self._hand_over(table)
        try:
            with self._transaction.cursor(self._handles[table]) as cursor:
                if not (self._seek(cursor, table, start) if start else cursor.first()):
                    return
                for key, stored in cursor:
                    pair = self._whole(table, key, stored)
                    if stop is not None and key >= stop:
                        return
                    yield pair
        except lmdb.Error as error:
            raise self._fail(error, start) from error

    def _seek(self, cursor: "lmdb.Cursor[bytes]", table: Table, start: bytes) -> bool:
        """Go to the first key that is not less than `start`, and make sure that it is the first."""
        found = cursor.set_range(start)
        if found and cursor.key() < start:
            raise self._damaged(table)
        if (cursor.prev() if found else cursor.last()) and self._whole(table, *cursor.item())[0] >= start:
            raise self._damaged(table)
        return found and cursor.set_range(start)

    def last(self, table: Table, start: bytes, stop: bytes | None) -> tuple[bytes, bytes] | None:
        self._hand_over(table)
        try:
            with self._transaction.cursor(self._handles[table]) as cursor:
                if stop is not None and self._seek(cursor, table, stop):
                    self._whole(table, *cursor.item())
                    found = cursor.prev()
                else:
                    found = cursor.last()
                if not found:
                    return None
                pair = self._whole(table, *cursor.item())
                return pair if pair[0] >= start else None
        except lmdb.Error as error:
            raise self._fail(error, start) from error

    def count(self, table: Table) -> int:
        self._hand_over(table)
        try:
            return self._transaction.stat(self._handles[table])["entries"]
        except lmdb.Error as error:
            raise self._fail(error) from error

    def put(self, table: Table, key: bytes, value: bytes) -> None:
        if not 0 < len(key) <= KEY_MAX_BYTES:
            raise self._fail_key(len(key))
        held = self._held.get(table)
        if held is None:
            self._held[table] = {key: value}
        else:
            held[key] = value

    def put_many(self, table: Table, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        for key, value in pairs:
            self.put(table, key, value)

    def hand_over(self) -> None:
        """Give the engine all that was written: the transaction is about to be committed."""
        for table in list(self._held):
            self._hand_over(table)

    def _hand_over(self, table: Table) -> None:
        held = self._held.pop(table, None) if self._held else None
        if not held:
            return
        if self._gaps is not None:
            self._gaps.pop(table, None)
        stored = _with_checksums(table, sorted(held.items()))
        if self._noted is not None:
            self._noted.append((table, stored))
        try:
            if len(stored) == 1 and table in _SCATTERED:
                self._transaction.put(*stored[0], True, True, False, self._handles[table])
                return
            with self._transaction.cursor(self._handles[table]) as cursor:
                # At the end of a tree the engine fills its pages, where else it leaves them half empty.
                is_last = not cursor.last() or cursor.key() < stored[0][0]
                cursor.putmulti(stored, append=is_last)
        except lmdb.Error as error:
            raise self._fail(error, *(key for key, _ in stored)) from error

    def append(self, table: Table, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        self._hand_over(table)
        if self._gaps is not None:
            self._gaps.pop(table, None)
        stored = _with_checksums(table, pairs)
        if self._noted is not None:
            self._noted.append((table, stored))
        try:
            with self._transaction.cursor(self._handles[table]) as cursor:
                _, added = cursor.putmulti(stored, append=True)
        except lmdb.Error as error:
            raise self._fail(error, *(key for key, _ in stored)) from error
        if added != len(stored):  # the engine skips what is out of order, in silence
            self.failure = LocalMisuse(
                f"{len(stored) - added} keys appended to {table} are not above all others"
            )
            raise self.failure

    def delete(self, table: Table, key: bytes) -> bool:
        held = self._held.get(table)
        was_held = held is not None and held.pop(key, None) is not None
        if self._noted is not None:
            self._noted.append((table, [(key, None)]))
        try:
            return self._transaction.delete(key, b"", self._handles[table]) or was_held
        except lmdb.Error as error:
            raise self._fail(error, key) from error

    def audit(self, table: Table, start: bytes = b"") -> Iterator[tuple[bytes, bytes | None, bool]]:
        """Every key in order with its value (None if it is not what was written), and whether a search finds it.

        For `doctor`: does not stop at damage.
        """
        self._hand_over(table)
        handle = self._handles[table]
        try:
            with self._transaction.cursor(handle) as cursor:
                if not cursor.set_range(start):
                    return
                for key, stored in cursor:
                    value = stored[CHECKSUM_BYTES:]
                    is_whole = checksum(table, key, value) == stored[:CHECKSUM_BYTES]
                    is_found = self._transaction.get(key, None, handle) == stored
                    yield key, value if is_whole else None, is_found
        except lmdb.Error as error:
            raise self._fail(error) from error

    def _damaged(self, table: Table) -> StoreDamaged:
        return StoreDamaged(f"{self._path} is damaged (in {table}): run `civicnode doctor`")

    def _fail(self, error: "lmdb.Error", *keys: bytes) -> Exception:
        """What an engine's error means. The transaction is not fit to be committed, whoever catches this."""
        if isinstance(error, lmdb.BadValsizeError):
            return self._fail_key(next((len(key) for key in keys if not 0 < len(key) <= KEY_MAX_BYTES), 0))
        self.failure = _translated(error, self._path)
        return self.failure

    def _fail_key(self, size: int) -> Exception:
        self.failure = LocalMisuse(f"a key of {size} bytes: keys have 1 to {KEY_MAX_BYTES}")
        return self.failure


_Noted = tuple[Table, Sequence[tuple[bytes, bytes | None]]]


class _Changes:
    """The last value of each key that was written, None where it was deleted; nothing once that is too much."""

    def __init__(self) -> None:
        self.latest: dict[Table, dict[bytes, bytes | None]] = {}
        self.is_complete = True
        self._size_bytes = 0

    def add(self, noted: Iterable[_Noted]) -> None:
        """What a transaction has written, once it counts."""
        for table, pairs in noted if self.is_complete else ():
            self.latest.setdefault(table, {}).update(pairs)
            self._size_bytes += sum(len(key) + len(stored or b"") for key, stored in pairs)
        if self._size_bytes > CHANGES_MAX_BYTES:
            self.latest.clear()
            self.is_complete = False


class LmdbKeyValueStore:
    """`KeyValueStore` in a directory. One process opens it at a time: `gate` holds the lock."""

    def __init__(self, directory: str, *, flush_delay_ms: float = 0, read_only: bool = False) -> None:
        """`flush_delay_ms` makes every flush slower, to see what a slow disk would do to a figure.

        `read_only` leaves every file as it is; the record must be there then. Raises `StorageError`.
        """
        self._path = os.path.join(directory, DATA_FILE)
        self._flush_delay_s = _FLUSHES_PER_COMMIT * flush_delay_ms / 1000
        self._commits = 0
        self._changes: _Changes | None = None  # since `follow`
        self.failure: str | None = None
        if not read_only:
            _reserve_lock_table(os.path.join(directory, LOCK_TABLE_FILE))
        self._opened = self._open(directory, read_only)

    def _open(self, directory: str, read_only: bool = False) -> "_Opened":
        try:
            environment = _open(directory, read_only)
        except lmdb.Error as error:
            raise _translated(error, self._path) from error
        try:
            return environment, _open_tables(environment, read_only)
        except lmdb.Error as error:
            environment.close()
            raise _translated(error, self._path) from error

    @property
    def _environment(self) -> "lmdb.Environment":
        return self._opened[0]

    def read(self) -> LmdbTransaction:
        environment, handles = self._opened  # another thread may put another file in its place
        try:
            return LmdbTransaction(environment.begin(), handles, self._path)
        except lmdb.Error as error:
            raise _translated(error, self._path) from error

    @contextmanager
    def write(self) -> Iterator[LmdbTransaction]:
        if self.failure:
            raise StorageFailed(self.failure)
        environment, handles = self._opened
        try:
            transaction = environment.begin(write=True)
        except lmdb.Error as error:
            raise self._stopped_by(error) from error
        changes = self._changes
        noted: list[_Noted] | None = None if changes is None else []
        held = LmdbTransaction(transaction, handles, self._path, noted)
        try:
            yield held
            held.hand_over()
            if held.failure is not None:  # someone has caught it and gone on
                raise held.failure
        except BaseException:
            transaction.abort()
            raise
        try:
            transaction.commit()
        except lmdb.Error as error:
            raise self._stopped_by(error) from error
        if changes is not None and noted:
            changes.add(noted)
        if self._flush_delay_s:
            time.sleep(self._flush_delay_s)
        self._commits += 1

    def _stopped_by(self, error: "lmdb.Error") -> Exception:
        """After a failed flush nobody knows what reached the disk: no more writes until the record was verified."""
        failure = _translated(error, self._path)
        if isinstance(failure, StorageFailed):
            self.failure = f"{failure}; restart the node, which verifies the record first"
        return failure

    def statistics(self) -> dict[str, int]:
        info = self._environment.info()
        page = self._environment.stat()["psize"]
        return {
            "commits": self._commits,
            "flushes": self._commits * _FLUSHES_PER_COMMIT,
            "used_bytes": (info["last_pgno"] + 1) * page,
        }

    def copy_to(self, descriptor: int) -> None:
        """Write a compact, consistent copy to an open file from where it stands, while reads and writes go on.

        Not flushed. Blocks, without holding up other threads.
        """
        try:
            self._environment.copyfd(descriptor, compact=True)
        except lmdb.Error as error:
            raise _translated(error, "the copy of the record") from error

    def follow(self) -> None:
        """From now on remember what is written, for a copy that begins later. For the writer, between two writes."""
        self._changes = _Changes()

    def unfollow(self) -> None:
        """Forget it, and remember nothing more."""
        self._changes = None

    @property
    def can_catch_up(self) -> bool:
        """Whether all that was written since `follow` is remembered: some tens of megabytes are."""
        return self._changes is not None and self._changes.is_complete

    def move_to(self, directory: str, settle: Callable[[], None]) -> None:
        """Go on with the copy of this record in another directory, which `settle` then puts in the place of this one.

        What was written since `follow` is written to the copy first, durably. Reads that are under way end in the old
        file, which is closed with the last of them. For the writer, between two writes. Raises `StorageError` if the
        copy cannot be opened or written; what `settle` raises stops all writes, because nobody knows then which of
        both files is in its place. Blocks.
        """
        _reserve_lock_table(os.path.join(directory, LOCK_TABLE_FILE))
        opened = self._open(directory)
        try:
            self._catch_up(*opened)
        except lmdb.Error as error:
            opened[0].close()
            raise _translated(error, os.path.join(directory, DATA_FILE)) from error
        try:
            settle()
        except BaseException as error:
            self.failure = (
                f"the compact copy of {self._path} could not take its place ({error}); restart the node"
            )
            raise
        finally:
            self._opened = opened

    def _catch_up(self, environment: "lmdb.Environment", handles: _Handles) -> None:
        """Write to a copy what was written here since before it was begun: what it has of that already is the same."""
        if self._changes is None or not self._changes.latest:
            return
        with environment.begin(write=True) as transaction:
            for table, latest in self._changes.latest.items():
                for key, stored in sorted(latest.items()):
                    if stored is None:
                        transaction.delete(key, b"", handles[table])
                    else:
                        transaction.put(key, stored, True, True, False, handles[table])

    def close(self) -> None:
        self._environment.close()


_Opened = tuple["lmdb.Environment", _Handles]


def _open_tables(environment: "lmdb.Environment", read_only: bool) -> _Handles:
    """The tables: all made at once in a new record, all to be there in an old one."""
    handles = _Handles()
    if not read_only and environment.stat()["entries"] == 0:
        with environment.begin(write=True) as transaction:
            return _Handles({t: environment.open_db(t.encode(), transaction) for t in Table})
    for table in Table:
        with suppress(lmdb.NotFoundError):
            handles[table] = environment.open_db(table.encode(), create=False)
    return handles


def _open(directory: str, read_only: bool) -> "lmdb.Environment":
    for size_bytes in (MAP_SIZE_BYTES, MAP_SIZE_SMALL_BYTES):
        try:
            return lmdb.open(
                directory, map_size=size_bytes, subdir=True, max_dbs=len(Table), max_readers=_READERS_MAX,
                mode=0o600, meminit=True, sync=True, metasync=True, writemap=False, max_spare_txns=8,
                readonly=read_only, lock=not read_only, create=not read_only,
            )  # fmt: skip
        except lmdb.MemoryError:  # a device or a container that does not give so much address space
            if size_bytes == MAP_SIZE_SMALL_BYTES:
                raise
    raise AssertionError("unreachable")


def _reserve_lock_table(path: str) -> None:
    """Give the table of readers its place on the disk: it is mapped and written, and a full disk would kill us then.

    Whoever opens the record alone, as we do, makes the table anew.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.pwrite(descriptor, bytes(_LOCK_TABLE_BYTES), 0) < _LOCK_TABLE_BYTES:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(descriptor)
    except OSError as error:
        raise os_failure(error, path) from error


# The engine answers a write that did not fit with the system's error, or with EIO after a short write.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FULL_BELOW_BYTES = 1 << 20
_DAMAGED = (lmdb.CorruptedError, lmdb.InvalidError, lmdb.PageNotFoundError, lmdb.VersionMismatchError,
            lmdb.NotFoundError, lmdb.IncompatibleError)  # fmt: skip


def _translated(error: "lmdb.Error", path: str) -> StorageError:
    """What an error of the engine means for this node."""
    if isinstance(error, lmdb.MapFullError):
        return StorageFull(f"the store at {path} has reached its limit of address space")
    if isinstance(error, lmdb.DiskError) or error.code in _FULL or _is_short_write(error, path):
        return StorageFull(f"no space left for {path}: free some, and writes resume by themselves")
    if isinstance(error, _DAMAGED):
        return StoreDamaged(
            f"{path} is damaged ({error}): run `civicnode doctor`, or `civicnode restore` a backup"
        )
    if isinstance(error, lmdb.ReadonlyError):
        return StorageError(
            f"{path} cannot be opened for writing ({error}): run the node as the owner of its data"
        )
    if isinstance(error, lmdb.MemoryError):
        return StorageError(f"there is not enough address space for {path}: raise the process's limit")
    return StorageFailed(f"the disk failed at {path} ({error})")


def _is_short_write(error: "lmdb.Error", path: str) -> bool:
    """Whether a write stopped half way for want of room: the disk's, a quota's, or a limit of the process."""
    if error.code != errno.EIO:
        return False
    directory = os.path.dirname(path) or "."
    try:
        facts = os.statvfs(directory)
        if facts.f_bavail * facts.f_frsize < _FULL_BELOW_BYTES:
            return True
        if os.stat(path).st_size + _FULL_BELOW_BYTES > resource.getrlimit(resource.RLIMIT_FSIZE)[0] >= 0:
            return True
        with tempfile.TemporaryFile(dir=directory) as probe:  # a quota shows in nothing but a write
            probe.write(bytes(_FULL_BELOW_BYTES))
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as failure:
        return failure.errno in _FULL
    return False
