"""Data directories of one network, until a node can join one: lives of one node key, founded by the first.

Room: preparing a directory before a node runs on it.
"""

import os
import shutil
import time
from pathlib import Path

from protocol.ids import INCARNATION_BYTES, author_of
from storage.keyfiles import NETWORK_KEY_FILE, NODE_KEY_FILE
from storage.lmdb_kv import LmdbKeyValueStore
from storage.opening import open_record
from storage.store import Identity, Store


def found(directory: Path) -> None:
    """A data directory as a first start and a clean stop leave it."""
    now_ms = time.time_ns() // 1_000_000
    open_record(directory, now_ms=now_ms, random_bytes=os.urandom).close()


def twin(of: Path, directory: Path) -> None:
    """An empty record in the network of another one, with an author of its own. No node may run on `of`."""
    keys = LmdbKeyValueStore(str(of))
    known = Store(keys).identity
    keys.close()
    assert known is not None
    directory.mkdir(mode=0o700)
    for name in (NODE_KEY_FILE, NETWORK_KEY_FILE):
        if (of / name).exists():
            shutil.copy(of / name, directory / name)
    author = author_of(known.author[:32], os.urandom(INCARNATION_BYTES))
    keys = LmdbKeyValueStore(str(directory))
    store = Store(keys)
    store.begin(
        Identity(os.urandom(16), os.urandom(4).hex(), known.network_id, known.genesis, author), founding=None
    )
    store.close()
