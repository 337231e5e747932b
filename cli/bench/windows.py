"""What a whole data set weighs as windows: as it crosses a link, before names are said once, and deflated.

Room: reads a data directory that no node holds, and writes nothing. The bytes of a real link are measured on a real
link; this tells what packing and compression take off them.
"""

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from cli.bench.errors import ChildFailed
from protocol.exchange import (
    EVERYTHING,
    ChainKey,
    HeadsLoaded,
    LoadHeads,
    LoadRuns,
    LoadState,
    RunsLoaded,
    StateLoaded,
)
from protocol.ids import space_id
from protocol.messages import HEADS_MAX
from protocol.packing import unpack
from protocol.session import WINDOW_TARGET_BYTES
from storage.exchange import Exchange
from storage.lmdb_kv import LmdbKeyValueStore
from storage.store import Store


@dataclass(frozen=True, slots=True)
class Weights:
    """In bytes. `deflated` is each window by itself, as it would have to be on a link."""

    packed: int
    plain: int
    deflated: int


def weigh(directory: Path) -> Weights:
    """Every commit in `directory` as windows for somebody who has none. Raises `StorageError`."""
    held = LmdbKeyValueStore(str(directory))
    try:
        store = Store(held)
        exchange = Exchange(store, _never)
        wants = _everything(store, exchange)
        packed = plain = deflated = 0
        while wants:
            loaded = exchange.perform(LoadRuns(tuple(wants.items()), WINDOW_TARGET_BYTES))
            assert isinstance(loaded, RunsLoaded)
            if loaded.window is None:
                break
            window = unpack(loaded.window)
            packed, plain = packed + len(loaded.window), plain + len(window)
            deflated += len(zlib.compress(window, 6))
            wants |= dict(loaded.sent_to)
            for key in loaded.exhausted:
                wants.pop(key, None)
        return Weights(packed, plain, deflated)
    finally:
        held.close()


def _everything(store: Store, exchange: Exchange) -> dict[ChainKey, int]:
    assert store.identity is not None
    state = exchange.perform(LoadState(store.identity.author, "", EVERYTHING))
    assert isinstance(state, StateLoaded)
    wants: dict[ChainKey, int] = {}
    for name, _ in state.roots:
        heads = exchange.perform(LoadHeads(name, b"", HEADS_MAX))
        assert isinstance(heads, HeadsLoaded)
        if not heads.is_last:
            raise ChildFailed(f"more than {HEADS_MAX} authors in one space")
        space = space_id(store.identity.network_id, name)
        wants |= {(space, tip.author): 0 for tip in heads.tips}
    return wants


def _never(change: Any) -> NoReturn:
    raise AssertionError("nothing is written where only weights are taken")
