"""Data directories of one network, until a node can join one: lives of one node key, founded by the first.

Room: preparing directories before nodes run on them.
"""

import os
import shutil
from pathlib import Path

from storage.opening import open_record
from storage.store import Identity

_KEPT = ("node.key", "network.key")


def found(directory: Path) -> None:
    """A data directory as a first start leaves it."""
    open_record(directory, now_ms=_now_ms(), random_bytes=os.urandom).close()


def twin(of: Path, directory: Path) -> None:
    """An empty record of the same network and node key, with an author of its own."""
    record = open_record(of, now_ms=_now_ms(), random_bytes=os.urandom)
    known = record.store.identity
    record.close()
    assert known is not None
    directory.mkdir(mode=0o700)
    found(directory)
    ours = open_record(directory, now_ms=_now_ms(), random_bytes=os.urandom)
    ours.close()
    raise NotImplementedError


def _now_ms() -> int:
    import time

    return time.time_ns() // 1_000_000


_ = (shutil, Identity)
