"""A compact copy of the record in its place, while the node runs: no page of it holds what was deleted.

Room: how the file is exchanged under the writer, whatever happens in between. The engine leaves deleted bytes in pages
that are free, and in the gaps of others; a compact copy holds what is reachable and nothing else. It is made beside the
writer, who then writes to it what has changed meanwhile: what is deleted in that time may stay in its free pages, and
goes with the next copy. The anchor knows the record by its inode, so it is told of the new one; until it is, a small
file says that both are the same record.

    compacting/        the copy in the making: record, lock table
    compacting.json    {"from": [inode, device], "to": [inode, device]}: the copy is whole, and about to take the place
"""

import json
import os
import shutil
from pathlib import Path

from storage.errors import StorageError, os_failure
from storage.gate import AnchorFile
from storage.keyfiles import flush_directory, write_secret
from storage.kv import KeyValueStore
from storage.lmdb_kv import DATA_FILE, LOCK_TABLE_FILE, LmdbKeyValueStore

STAGE = "compacting"
PLAN_FILE = "compacting.json"


class Compaction:
    """How the record's file is exchanged: `begin`, `copy` and `finish`, or `give_up`. One exchange at a time."""

    def __init__(self, keys: KeyValueStore, directory: Path, anchor: AnchorFile) -> None:
        assert isinstance(keys, LmdbKeyValueStore)
        self._keys = keys
        self._directory = directory
        self._anchor = anchor

    def begin(self) -> None:
        """For the writer, between two writes: of what was deleted until now the copy will hold nothing."""
        self._keys.follow()

    def copy(self) -> None:
        """Make the copy, on any thread: reads and writes go on. Blocks, 3 s for 300 MB beside other work.

        Raises `StorageError`. The record must not be closed meanwhile.
        """
        stage = self._directory / STAGE
        try:
            shutil.rmtree(stage, ignore_errors=True)
            stage.mkdir(mode=0o700)
            _copy(self._keys, stage / DATA_FILE)
        except OSError as error:
            raise os_failure(error, error.filename or stage) from error

    def finish(self) -> None:
        """For the writer, between two writes: write to the copy what has changed since, and put it in place. Durable.

        Blocks for as long as that takes; if it was too much to be remembered, for another copy. Raises
        `StorageError`; then the record is as it was, or the node writes nothing more before it was started again.
        """
        keys, directory = self._keys, self._directory
        stage = directory / STAGE
        try:
            try:
                if not keys.can_catch_up:
                    self.begin()
                    self.copy()
                plan = {"from": _identity(directory / DATA_FILE), "to": _identity(stage / DATA_FILE)}
                write_secret(directory / PLAN_FILE, json.dumps(plan))
                keys.move_to(str(stage), lambda: _take_place(directory, stage))
            finally:
                self.give_up()
        except OSError as error:
            raise os_failure(error, error.filename or directory) from error

    def give_up(self) -> None:
        """Have nothing more to do with the copy, if it is not in its place yet."""
        self._keys.unfollow()
        if not self._keys.failure:
            settle(self._directory, self._anchor)


def _copy(keys: LmdbKeyValueStore, path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        keys.copy_to(descriptor)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _take_place(directory: Path, stage: Path) -> None:
    flush_directory(stage)
    os.rename(stage / DATA_FILE, directory / DATA_FILE)
    os.rename(stage / LOCK_TABLE_FILE, directory / LOCK_TABLE_FILE)
    flush_directory(directory)


def settle(directory: Path, anchor: AnchorFile) -> None:
    """Have the anchor know the record that is in its place, and clear away what is left of an exchange.

    For whoever holds the directory, also after an exchange that was cut short anywhere. Raises OSError, `StorageError`.
    """
    plan = _read_plan(directory)
    if plan is not None:
        known = [anchor.value.inode, anchor.value.device]
        if _identity(directory / DATA_FILE) == plan["to"] and known == plan["from"]:
            anchor.value.inode, anchor.value.device = plan["to"]
            anchor.write(flush=True)
        os.unlink(directory / PLAN_FILE)
        flush_directory(directory)
    if (directory / STAGE).exists():
        shutil.rmtree(directory / STAGE)


def _identity(path: Path) -> list[int]:
    facts = path.stat()
    return [facts.st_ino, facts.st_dev]


def _read_plan(directory: Path) -> dict[str, list[int]] | None:
    path = directory / PLAN_FILE
    try:
        plan = json.loads(path.read_text("utf-8"))
        found: dict[str, list[int]] = {name: [int(n) for n in plan[name]] for name in ("from", "to")}
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(f"{path} is damaged: delete it, and the node goes on as a new author") from error
    return found
