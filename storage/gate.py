"""The gate before the record is opened, and the anchor beside it that outlives it.

Room: the data directory's own files (lock, anchor) and the decision whether the
record may be opened and as whom. A node must never sign twice for one place in
its chain, so a record that was copied, restored or rolled back goes on as a new
author. A truncated record would kill the process when read, and an emptied one
would open as new: both are refused here, with the command that repairs them.

The anchor is one small file of two slots written in turn, so that a torn write
leaves the other: store id, inode and device of the record, whether the last stop
was clean, the record's size and time then, and our highest seq in each space. It
is written after a commit and before anyone hears of it; it is not flushed then,
because a lost anchor is only older than the record, which proves nothing and
harms none. While a first start is under way it says so: whatever such a start
has left behind was promised to nobody.
"""

import fcntl
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from zlib import crc32

from protocol.encoding import decode, encode
from protocol.errors import Malformed
from storage.errors import StorageError, StoreDamaged, StoreLocked, os_failure
from storage.keyfiles import flush_directory
from storage.lmdb_kv import DATA_FILE

LOCK_FILE = "lock"
ANCHOR_FILE = "anchor"
INDEX_FILE = "index.sqlite"
REPLACING_FILE = "replacing.json"  # another record is about to take the place of this one: `replacing`
FOUNDING = b"founding"  # stands for the store id while a first start is under way

_SLOT_BYTES = 8_192
_SEQS_KEPT_MAX = 200  # of as many spaces; they fit into a slot
_LOCK_TRIES = 20  # a command may be looking whether a node runs
_LOCK_WAIT_S = 0.01
_VERIFY_TIMEOUT_S = 60
_VERIFY_BYTES_PER_S = 1 << 20  # a twentieth of what a slow machine does


@dataclass(slots=True)
class Anchor:
    """What is known of the record from outside it."""

    store_id: bytes = b""
    inode: int = 0
    device: int = 0
    is_clean: bool = False
    size_bytes: int = 0
    modified_ns: int = 0
    seqs: dict[bytes, int] = field(default_factory=dict)  # space -> our highest seq
    turn: int = 0

    def describe(self, facts: os.stat_result) -> None:
        """Take down which file the record is, and how it was left."""
        self.inode, self.device = facts.st_ino, facts.st_dev
        self.size_bytes, self.modified_ns = facts.st_size, facts.st_mtime_ns

    def is_as_left(self, facts: os.stat_result) -> bool:
        """Whether nobody has touched the record since a clean stop, as far as its directory tells."""
        found = (facts.st_ino, facts.st_dev, facts.st_size, facts.st_mtime_ns)
        return self.is_clean and found == (self.inode, self.device, self.size_bytes, self.modified_ns)


def read_anchor(directory: Path) -> Anchor:
    """The anchor of a directory, an empty one if there is none or neither slot is whole. Raises OSError."""
    try:
        data = (directory / ANCHOR_FILE).read_bytes()
    except FileNotFoundError:
        return Anchor()
    found: list[Anchor] = []
    for slot in (data[:_SLOT_BYTES], data[_SLOT_BYTES:]):
        length, expected = int.from_bytes(slot[:4], "big"), slot[4:8]
        content = slot[8 : 8 + length]
        if length and len(content) == length and crc32(content).to_bytes(4, "big") == expected:
            try:
                found.append(Anchor(*decode(content)))
            except (Malformed, TypeError):
                continue
    return max(found, key=lambda anchor: anchor.turn) if found else Anchor()


class AnchorFile:
    """The anchor on disk, open for as long as the node runs."""

    def __init__(self, directory: Path) -> None:
        """Raises OSError."""
        self._path = directory / ANCHOR_FILE
        self.value = read_anchor(directory)
        self.failure: StorageError | None = None  # why the newest note is not on the disk
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        size_bytes = os.fstat(self._descriptor).st_size
        if size_bytes < 2 * _SLOT_BYTES:  # its place on the disk, so that a full one does not stop us later
            os.pwrite(self._descriptor, bytes(2 * _SLOT_BYTES - size_bytes), size_bytes)

    def write(self, *, flush: bool = False) -> None:
        """Write the value to the slot whose turn it is. About 5 µs without a flush. Raises `StorageError`."""
        value = self.value
        if len(value.seqs) > _SEQS_KEPT_MAX:  # the oldest prove nothing that the newest do not
            value.seqs = dict(list(value.seqs.items())[-_SEQS_KEPT_MAX:])
        value.turn += 1
        content = encode([value.store_id, value.inode, value.device, value.is_clean, value.size_bytes,
                          value.modified_ns, value.seqs, value.turn])  # fmt: skip
        data = len(content).to_bytes(4, "big") + crc32(content).to_bytes(4, "big") + content
        try:
            os.pwrite(self._descriptor, data, (value.turn % 2) * _SLOT_BYTES)
            if flush:
                os.fsync(self._descriptor)
        except OSError as error:
            raise os_failure(error, self._path) from error
        self.failure = None

    def note(self, space: bytes, seq: int) -> None:
        """Our chain in a space has reached `seq`, durably.

        Never raises, because the commit stands whatever becomes of this: see `failure`.
        """
        self.value.seqs.pop(space, None)
        self.value.seqs[space] = seq
        try:
            self.write()
        except StorageError as error:
            self.failure = error

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class DirectoryLock:
    """Holds a data directory for one process. Raises `StoreLocked`, naming the holder, or OSError."""

    def __init__(self, directory: Path) -> None:
        self._descriptor = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._take(directory)
        except BaseException:
            os.close(self._descriptor)
            raise
        self._sign(str(os.getpid()))

    def _sign(self, pid: str) -> None:
        try:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, pid.encode(), 0)
        except OSError:
            pass  # a full disk: whoever finds the directory locked is not told by whom

    def _take(self, directory: Path) -> None:
        for tries_left in reversed(range(_LOCK_TRIES)):
            try:
                return fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if tries_left:
                    time.sleep(_LOCK_WAIT_S)
                    continue
                holder = os.pread(self._descriptor, 32, 0).strip()
                pid = int(holder) if holder.isdigit() else None
                who = f"process {pid}" if pid else "another process"
                message = f"{who} is using {directory}: stop it, or choose another --data-dir"
                raise StoreLocked(message, pid=pid) from error

    def release(self) -> None:
        if self._descriptor >= 0:
            self._sign("")
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> "DirectoryLock":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.release()


def prepare_directory(directory: Path) -> None:
    """Make the data directory if it is missing; readable by its owner alone. Raises OSError."""
    if not directory.is_dir():
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        flush_directory(directory.parent)
    if directory.stat().st_mode & 0o077:
        os.chmod(directory, 0o700)


def check_record(directory: Path, anchor: Anchor) -> None:
    """Refuse a record that is missing, emptied, truncated or structurally damaged. Raises `StoreDamaged`.

    After a clean stop a look at the file's size and times suffices; otherwise a child process verifies every
    page, so that a damaged file cannot take this process down (0.5 s for 100,000 documents).
    """
    record = directory / DATA_FILE
    hint = "run `civicnode doctor`, or `civicnode restore` a backup"
    if (directory / REPLACING_FILE).exists():
        raise StorageError(f"{directory} is changing its network: start the node once, and it will be done")
    try:
        facts = record.stat()
    except FileNotFoundError:
        if anchor.store_id not in (b"", FOUNDING):
            raise StoreDamaged(
                f"{record} is missing although this directory has held a node: {hint}"
            ) from None
        return
    if facts.st_size == 0:
        raise StoreDamaged(f"{record} is empty although it exists: {hint}")
    if not anchor.is_as_left(facts):
        verify_record(directory)


def verify_record(directory: Path) -> None:
    """Verify the structure of a record offline, in a child process. Raises `StoreDamaged`."""
    faults = structural_faults(directory)
    if faults:
        more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
        raise StoreDamaged(
            f"{directory / DATA_FILE} is damaged ({faults[0]}{more}): "
            "run `civicnode doctor`, or `civicnode restore` a backup"
        )


def structural_faults(directory: Path) -> list[str]:
    """What is wrong with the pages of a record, found by a child process that never maps the file."""
    size_bytes = (directory / DATA_FILE).stat().st_size
    timeout_s = _VERIFY_TIMEOUT_S + size_bytes / _VERIFY_BYTES_PER_S
    # -P: a file named lmdb.py in the current directory is not what we want to run.
    command = [sys.executable, "-P", "-m", "lmdb", "verify", str(directory)]
    try:
        child = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        return [f"it could not be verified in {timeout_s:.0f} s"]
    if child.returncode == 0:
        return []
    lines = [line.strip() for line in child.stdout.splitlines() if line.strip()]
    return lines or child.stderr.strip().splitlines()[-1:] or [f"exit status {child.returncode}"]


def must_start_new_life(
    directory: Path, anchor: Anchor, store_id: bytes, seqs: dict[bytes, int]
) -> str | None:
    """Why this record may not go on as its old author; None if it may.

    `seqs` are our highest seqs in the record itself.
    """
    facts = (directory / DATA_FILE).stat()
    if not anchor.store_id:
        return "the anchor file is missing, as after a restore"
    if anchor.store_id != store_id:
        return "the record is not the one that was here before"
    if (facts.st_ino, facts.st_dev) != (anchor.inode, anchor.device):
        return "the record was copied or moved to another file"
    behind = [space for space, seq in anchor.seqs.items() if seqs.get(space, 0) < seq]
    if behind:
        return "the record is older than what this node has already signed"
    return None
