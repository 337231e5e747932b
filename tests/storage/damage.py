"""Nodes to be damaged, and ways to do it behind everyone's back."""

import random
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import lmdb

from storage.doctor import Report, examine
from storage.kv import Table
from storage.lmdb_kv import LmdbKeyValueStore
from tests.storage.kit import (
    BUILTINS,
    record_file,
)

TASKS = 12


def check(directory: Path, *, repair: bool = False) -> Report:
    return examine(directory, repair=repair, builtins=BUILTINS, random_bytes=random.Random(5).randbytes)


def alter(directory: Path, table: Table, change: Callable[[bytes, bytes], tuple[bytes, bytes] | None],
          *, nth: int = 0) -> bytes:  # fmt: skip
    """Change the n-th stored pair of a table behind everyone's back, checksum and all; None deletes it."""
    path = str(directory)
    with lmdb.open(path, max_dbs=len(Table), map_size=1 << 28) as environment:
        handle = environment.open_db(table.encode())
        with environment.begin(write=True) as transaction:
            pairs = list(transaction.cursor(handle))
            key, stored = pairs[nth]
            transaction.delete(key, db=handle)
            changed = change(key, stored)
            if changed is not None:
                transaction.put(*changed, db=handle)
    return key


def flipped(key: bytes, stored: bytes) -> tuple[bytes, bytes]:
    data = bytearray(stored)
    data[-1] ^= 4
    return key, bytes(data)


def flipped_key(key: bytes, stored: bytes) -> tuple[bytes, bytes]:
    data = bytearray(key)
    data[-1] ^= 4
    return bytes(data), stored


def gone(_key: bytes, _stored: bytes) -> None:
    return None


def rewrite(directory: Path, table: Table, key: bytes, value: bytes | None) -> None:
    """Change what is stored, with the right checksum: as a bug would."""
    with closing(LmdbKeyValueStore(str(directory))) as keys, keys.write() as batch:
        if value is None:
            batch.delete(table, key)
        else:
            batch.put(table, key, value)


def compact(directory: Path) -> None:
    with closing(LmdbKeyValueStore(str(directory))) as keys, (directory / "compact").open("wb") as file:
        keys.copy_to(file.fileno())
    (directory / "compact").replace(record_file(directory))
