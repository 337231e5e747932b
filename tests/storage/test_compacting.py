"""The record's file after an erasure, and an exchange of files that is cut short anywhere."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from protocol.changes import Edit, EditKind
from storage import compacting, keyfiles, lmdb_kv
from storage.errors import StorageError
from storage.gate import ANCHOR_FILE
from storage.lmdb_kv import DATA_FILE
from tests.storage.kit import TASK, Site, tables

SECRET = "nobody-is-to-read-this-again"


def in_files(directory: Path, text: str) -> list[str]:
    """Files that hold a text, in any of the forms in which a program may write one."""
    forms = [text.encode(), text.encode("utf-16-le"), text.encode("utf-16-be"), text.encode().hex().encode()]
    found = [path for path in directory.rglob("*") if path.is_file()]
    return [path.name for path in found if any(form in path.read_bytes() for form in forms)]


def erased(directory: Path) -> Site:
    """A node that has erased much of what it held, and has still to clear its files of it."""
    site = Site(directory)
    model = site.define(TASK)
    for number in range(40):
        site.create(model, f"t{number}", title=SECRET, extra={"more": SECRET * 200 * (number % 2)})
    site.create(model, "kept", title="kept")
    site.change(*(Edit(EditKind.ERASE, model, f"t{number}", {}) for number in range(40)))
    return site


def compact(site: Site) -> None:
    assert site.index is not None and site.index.truncate_log()
    exchange(site)


def exchange(site: Site) -> None:
    assert site.record is not None
    compaction = site.record.compaction
    compaction.begin()
    compaction.copy()
    compaction.finish()


def test_no_file_holds_what_was_erased_and_the_node_goes_on_as_who_it_was(tmp_path: Path) -> None:
    with erased(tmp_path) as site:
        assert in_files(tmp_path, SECRET)  # else this test would show nothing
        with site.store.read() as before:
            compact(site)
            assert in_files(tmp_path, SECRET) == []
            model = site.catalog.find("default", "Task")
            assert model is not None
            site.create(model, "after", title="after")
            space = site.store.space("default")
            assert before.documents.get(space, model.id, "after") is None  # a read of before ends as it began
            assert before.documents.get(space, model.id, "kept") is not None
        assert site.values(model, "after") == {"title": "after"}
        compact(site)  # once more, from a file that has been exchanged
        assert in_files(tmp_path, SECRET) == []
        held = tables(site.store.keys)
    with Site(tmp_path) as site:
        assert site.new_life is None and tables(site.store.keys) == held
        assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("compact")) == []


@pytest.mark.parametrize("is_too_much", [False, True])
def test_what_is_written_while_the_copy_is_made_is_in_its_place(
    is_too_much: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_too_much:
        monkeypatch.setattr(lmdb_kv, "CHANGES_MAX_BYTES", 0)
    with erased(tmp_path) as site:
        assert site.record is not None and site.index is not None and site.index.truncate_log()
        model = site.catalog.find("default", "Task")
        assert model is not None
        compaction = site.record.compaction
        compaction.begin()
        site.create(model, "before", title="in the copy already")
        compaction.copy()
        site.create(model, "during", title="not yet")
        site.update(model, "before", title="changed")
        site.change(Edit(EditKind.DELETE, model, "kept", {}))
        with pytest.raises(ZeroDivisionError), site.store.write() as batch:
            batch.local.put("kind", "key", {})
            raise ZeroDivisionError
        held = tables(site.store.keys)
        compaction.finish()
        assert tables(site.store.keys) == held
        assert in_files(tmp_path, SECRET) == []
        site.create(model, "after", title="after")
        held = tables(site.store.keys)
    with Site(tmp_path) as site:
        assert site.new_life is None and tables(site.store.keys) == held


STEPS = ("copy_to", "write_secret", "rename data", "rename lock", "flush", "anchor", "unlink", "rmtree")


@pytest.mark.parametrize("step", STEPS)
def test_an_exchange_that_is_cut_short_is_settled_at_the_next_start(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def kill(*_: Any, **__: Any) -> None:
        raise Killed

    site = erased(tmp_path)
    held = tables(site.store.keys)
    assert site.record is not None
    rename: Callable[..., None] = os.rename
    match step:
        case "copy_to":
            monkeypatch.setattr(compacting, "_copy", kill)
        case "write_secret" | "flush_directory":
            monkeypatch.setattr(compacting, step, kill)
        case "rename data" | "rename lock":
            wanted = DATA_FILE if step == "rename data" else "lock.mdb"
            monkeypatch.setattr(os, "rename", lambda a, b: kill() if Path(a).name == wanted else rename(a, b))
        case "flush":
            flush = keyfiles.flush_directory
            monkeypatch.setattr(
                compacting, "flush_directory", lambda p: kill() if p == tmp_path else flush(p)
            )
        case "anchor":
            monkeypatch.setattr(type(site.record.anchor), "write", kill)
        case "unlink":
            monkeypatch.setattr(os, "unlink", kill)
        case "rmtree":
            monkeypatch.setattr(shutil, "rmtree", lambda *a, **k: None if k else kill())
    # What a killed process would not do any more is not done here either.
    settle = compacting.settle
    if step not in ("anchor", "unlink", "rmtree"):
        monkeypatch.setattr(compacting, "settle", lambda *_: None)
    with pytest.raises(Killed):
        exchange(site)
    monkeypatch.undo()
    assert compacting.settle is settle
    site.crash()
    with Site(tmp_path) as again:
        assert again.new_life is None, step
        assert tables(again.store.keys) == held
        assert not (tmp_path / compacting.STAGE).exists() and not (tmp_path / compacting.PLAN_FILE).exists()
        compact(again)
        assert in_files(tmp_path, SECRET) == []
        assert (tmp_path / ANCHOR_FILE).exists()


def test_a_disk_that_is_full_leaves_everything_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with erased(tmp_path) as site:
        assert site.record is not None
        copy = type(site.store.keys).copy_to  # type: ignore[attr-defined]

        def fill(self: Any, descriptor: int) -> None:
            copy(self, descriptor)
            raise OSError(28, os.strerror(28))

        monkeypatch.setattr(type(site.store.keys), "copy_to", fill)
        with pytest.raises(StorageError, match="space"):
            exchange(site)
        monkeypatch.undo()
        model = site.catalog.find("default", "Task")
        assert model is not None
        site.create(model, "after", title="after")
        compact(site)
        assert in_files(tmp_path, SECRET) == []
