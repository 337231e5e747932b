"""The gate before the record is opened, and the anchor beside it that outlives it.

Room: the data directory's own files (lock, anchor) and the decision whether the
record may be opened and as whom. A node must never sign twice for one place in
its chain, so a record that was copied, restored or rolled back goes on as a new
author. A truncated record would kill the process when read, and an emptied one
would open as new: both are refused here, with the command that repairs them.

The anchor is one small file of two slots written in turn, so that a torn write
leaves the other: store id, inode and device of the record, whether the last stop
was clean, the record's size then, and our highest seq in each space. It is
written after a commit and before anyone hears of it; it is not flushed, because
a lost anchor is only older than the record, which proves nothing and harms none.
"""

import fcntl
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from zlib import crc32

from protocol.encoding import decode, encode
from protocol.errors import Malformed
from storage.errors import StoreDamaged, StoreLocked
from storage.lmdb_kv import DATA_FILE

LOCK_FILE = "lock"
ANCHOR_FILE = "anchor"
_SLOT_BYTES = 8_192
_VERIFY_TIMEOUT_S = 600


@dataclass(slots=True)
class Anchor:
    """What is known of the record from outside it."""

    store_id: bytes = b""
    inode: int = 0
    device: int = 0
    is_clean: bool = False
    size_bytes: int = 0
    seqs: dict[bytes, int] = field(default_factory=dict)  # space -> our highest seq
    turn: int = 0


class AnchorFile:
    """The anchor on disk, open for as long as the node runs."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / ANCHOR_FILE
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.value = self._newest() or Anchor()

    def _newest(self) -> Anchor | None:
        found: list[Anchor] = []
        for slot in (0, 1):
            data = os.pread(self._descriptor, _SLOT_BYTES, slot * _SLOT_BYTES)
            length, expected = int.from_bytes(data[:4], "big"), data[4:8]
            content = data[8 : 8 + length]
            if length and len(content) == length and crc32(content).to_bytes(4, "big") == expected:
                try:
                    found.append(Anchor(*decode(content)))
                except (Malformed, TypeError):
                    continue
        return max(found, key=lambda anchor: anchor.turn) if found else None

    def write(self, *, flush: bool = False) -> None:
        """Write the value to the slot whose turn it is. About 5 µs without a flush."""
        value = self.value
        value.turn += 1
        content = encode([value.store_id, value.inode, value.device, value.is_clean, value.size_bytes, value.seqs,
                          value.turn])  # fmt: skip
        if len(content) + 8 > _SLOT_BYTES:  # some hundreds of spaces: keep the newest, the others prove nothing
            value.seqs = dict(list(value.seqs.items())[-200:])
            return self.write(flush=flush)
        data = len(content).to_bytes(4, "big") + crc32(content).to_bytes(4, "big") + content
        os.pwrite(self._descriptor, data, (value.turn % 2) * _SLOT_BYTES)
        if flush:
            os.fsync(self._descriptor)

    def note(self, space: bytes, seq: int) -> None:
        """Our chain in a space has reached `seq`, durably."""
        self.value.seqs.pop(space, None)
        self.value.seqs[space] = seq
        self.write()

    def close(self) -> None:
        os.close(self._descriptor)


class DirectoryLock:
    """Holds a data directory for one process. Raises `StoreLocked`, naming the holder."""

    def __init__(self, directory: Path) -> None:
        self._descriptor = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._descriptor, 32, 0).strip()
            os.close(self._descriptor)
            pid = int(holder) if holder.isdigit() else None
            who = f"process {pid}" if pid else "another process"
            raise StoreLocked(f"{who} is using {directory}: stop it, or choose another --data-dir", pid=pid) from error
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        os.close(self._descriptor)

    def __enter__(self) -> "DirectoryLock":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()


def prepare_directory(directory: Path) -> None:
    """Make the data directory if it is missing; readable by its owner alone. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.chmod(directory, 0o700)


def check_record(directory: Path, anchor: Anchor) -> None:
    """Refuse a record that is missing, emptied, truncated or structurally damaged. Raises `StoreDamaged`.

    After a clean stop a look at the size suffices; otherwise a child process verifies every page, so that a
    damaged file cannot take this process down (0.5 s for 100,000 documents).
    """
    record = directory / DATA_FILE
    hint = "run `civicnode doctor`, or `civicnode restore` a backup"
    if not anchor.store_id:
        if record.exists() and record.stat().st_size == 0:
            raise StoreDamaged(f"{record} is empty although it exists: {hint}")
        if record.exists():
            verify_record(directory)
        return
    if not record.exists():
        raise StoreDamaged(f"{record} is missing although this directory has held a node: {hint}")
    size_bytes = record.stat().st_size
    if size_bytes == 0:
        raise StoreDamaged(f"{record} is empty although it held data: {hint}")
    if anchor.is_clean and (record.stat().st_ino, record.stat().st_dev) == (anchor.inode, anchor.device):
        if size_bytes != anchor.size_bytes:
            raise StoreDamaged(f"{record} has {size_bytes} bytes, {anchor.size_bytes} at the last stop: {hint}")
        return
    verify_record(directory)


def verify_record(directory: Path) -> None:
    """Verify the structure of a record offline, in a child process. Raises `StoreDamaged`."""
    command = [sys.executable, "-m", "lmdb", "verify", str(directory)]
    try:
        child = subprocess.run(command, capture_output=True, text=True, timeout=_VERIFY_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise StoreDamaged(f"{directory / DATA_FILE} could not be verified in {_VERIFY_TIMEOUT_S} s") from error
    if child.returncode:
        lines = (child.stderr or child.stdout).strip().splitlines()
        reason = lines[-1] if lines else f"exit status {child.returncode}"
        raise StoreDamaged(
            f"{directory / DATA_FILE} is damaged ({reason}): run `civicnode doctor`, or `civicnode restore` a backup"
        )


def must_start_new_life(directory: Path, anchor: Anchor, store_id: bytes, seqs: dict[bytes, int]) -> str | None:
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
