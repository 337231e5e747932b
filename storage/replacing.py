"""Another record in the place of the one that is here: made beside it, then both moved, whatever happens in between.

Room: how a node that joins a network changes its record for one of that network. The new record is made whole
in a directory of its own; a small file then says that the change is decided, and from there on the next one who
opens the directory carries it out, step by step, from wherever it was cut short. Before that file is there the
old node starts, after it the new one. Nothing is deleted: the old record goes aside with all that belongs to it,
and is a whole data directory there.

    joining-…       the new record in the making: record, key, anchor
    replacing.json  {"stage", "aside", "old"}: names of both directories, and of what goes aside
    replaced-N      what was here before
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from protocol.clock import HybridClock
from protocol.keys import KeyPair
from storage.catalog import Catalog
from storage.changes import Said
from storage.errors import StorageError, StoreDamaged, os_failure
from storage.gate import ANCHOR_FILE, INDEX_FILE, REPLACING_FILE, Anchor, AnchorFile
from storage.integrator import Integrator
from storage.keyfiles import NETWORK_KEY_FILE, NEXT_KEY_FILE, NODE_KEY_FILE, flush_directory, write_secret
from storage.lmdb_kv import DATA_FILE, LOCK_TABLE_FILE, LmdbKeyValueStore
from storage.local import LocalWriter
from storage.store import Store

STAGE_PREFIX = "joining-"
ASIDE_PREFIX = "replaced-"
_NEW_FILES = (NODE_KEY_FILE, ANCHOR_FILE, DATA_FILE)  # in the order in which they come in


def make_stage(
    directory: Path,
    keys: KeyPair,
    begin: Callable[[Store], None],
    *,
    now_ms: int,
    random_bytes: Callable[[int], bytes],
    local: Callable[[LocalWriter], None] = lambda local: None,
    said: Said | None = None,
) -> Path:
    """Make a record of its own beside the one in `directory`, and return where. Durable when it returns. Blocks.

    `begin` gives the new store its identity; `local` adds records of this node alone; `said` is stated in it.
    Raises `StorageError`; then nothing is left behind.
    """
    try:
        stage = Path(tempfile.mkdtemp(prefix=STAGE_PREFIX, dir=directory))
        try:
            write_secret(stage / NODE_KEY_FILE, keys.seed.hex())
            with closing(LmdbKeyValueStore(str(stage))) as kept:
                store = Store(kept)
                begin(store)
                with store.write() as batch:
                    local(batch.local)
                if said is not None:
                    _writer_of(store, keys, random_bytes).write_one(said, now_ms)
                anchor = _anchor_of(store)
            _write_anchor(stage, anchor)
            flush_directory(stage)
        except BaseException:
            shutil.rmtree(stage, ignore_errors=True)
            raise
    except OSError as error:
        raise os_failure(error, error.filename or directory) from error
    return stage


def _writer_of(store: Store, keys: KeyPair, random_bytes: Callable[[int], bytes]) -> Integrator:
    catalog = Catalog(store)
    return Integrator(store, None, catalog, keys, HybridClock(), random_bytes, lambda space, seq: None)


def _anchor_of(store: Store) -> Anchor:
    assert store.identity is not None
    author = store.identity.author
    with store.read() as snapshot:
        heads = {space: snapshot.head(space, author) for space in store.names.spaces_of(author)}
    seqs = {bytes(space): head.seq for space, head in heads.items() if head is not None}
    return Anchor(store_id=store.identity.store_id, is_clean=True, seqs=seqs)


def _write_anchor(stage: Path, anchor: Anchor) -> None:
    """The record keeps its inode when it is moved, so its anchor can be made here."""
    with closing(AnchorFile(stage)) as file:
        anchor.describe((stage / DATA_FILE).stat())
        file.value = anchor
        file.write(flush=True)


def free_aside(directory: Path) -> Path:
    """Where the record that is here would be moved."""
    number = 1
    while (aside := directory / f"{ASIDE_PREFIX}{number}").exists():
        number += 1
    return aside


def decide(directory: Path, stage: Path, aside: Path) -> None:
    """From now on the staged record is this directory's: the next `finish` puts it in place. Durable.

    For whoever holds the directory, with nothing more to be written to the old record. Raises `StorageError`.
    """
    plan = {"stage": stage.name, "aside": aside.name, "old": _old_names(directory)}
    try:
        write_secret(directory / REPLACING_FILE, json.dumps(plan))
    except OSError as error:
        raise os_failure(error, directory) from error


def _old_names(directory: Path) -> list[str]:
    kept = {DATA_FILE, ANCHOR_FILE, NODE_KEY_FILE, NETWORK_KEY_FILE, NEXT_KEY_FILE, LOCK_TABLE_FILE}
    return sorted(path.name for path in directory.iterdir() if path.name in kept)


def drop_stage(stage: Path) -> None:
    """The staged record is not wanted after all."""
    shutil.rmtree(stage, ignore_errors=True)


def finish(directory: Path) -> Path | None:
    """Carry out what was decided, if anything was; clear away what was not. Returns where the old record is now.

    For whoever has just locked the directory, before anything in it is opened. May be cut short anywhere and
    called again. Raises `StoreDamaged`, or OSError.
    """
    plan = _read_plan(directory)
    if plan is None:
        for left in directory.glob(STAGE_PREFIX + "*"):
            shutil.rmtree(left, ignore_errors=True)
        return None
    stage, aside = directory / str(plan["stage"]), directory / str(plan["aside"])
    if (stage / DATA_FILE).exists():  # it comes in last: until then, all that is here is the old node's
        aside.mkdir(mode=0o700, exist_ok=True)
        flush_directory(directory)
        index = [path.name for path in directory.glob(INDEX_FILE + "*")]
        for name in [*plan["old"], *index]:
            if not (aside / name).exists() and (directory / name).exists():
                os.rename(directory / name, aside / name)
        flush_directory(aside)
        flush_directory(directory)
        for name in _NEW_FILES:
            if (stage / name).exists():
                os.rename(stage / name, directory / name)
        flush_directory(stage)
        flush_directory(directory)
    elif not (directory / DATA_FILE).exists():
        raise StoreDamaged(f"{stage} is gone, which was to become this node's record: move {aside} back here")
    shutil.rmtree(stage, ignore_errors=True)
    os.unlink(directory / REPLACING_FILE)
    flush_directory(directory)
    return aside


def _read_plan(directory: Path) -> dict[str, Any] | None:
    path = directory / REPLACING_FILE
    try:
        plan = json.loads(path.read_text("utf-8"))
        names = [plan["stage"], plan["aside"], *plan["old"]]
        if any(name != os.path.basename(name) or not name for name in names):
            raise ValueError
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(
            f"{path} is damaged: delete it, and the node that was here before starts"
        ) from error
    known: dict[str, Any] = plan
    return known
