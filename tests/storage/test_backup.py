"""Backups: whole or not at all, and restored without touching anything before all is known to be sound."""

import io
import json
import os
import shutil
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from storage import backup as module
from storage.backup import MANIFEST_FILE, backup, backup_store, restore
from storage.doctor import examine
from storage.errors import NewerFormat, StorageError, StorageFull, StoreDamaged, StoreLocked
from storage.gate import ANCHOR_FILE, INDEX_FILE, read_anchor
from storage.lmdb_kv import DATA_FILE
from storage.store import FORMAT
from tests.storage.kit import TASK, Site, create, filled_directory, record_file

Contents = dict[str, tuple[bytes, int]]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return filled_directory(tmp_path / "node")


@pytest.fixture
def file(directory: Path, tmp_path: Path) -> Path:
    """A backup of `directory`."""
    (directory / "owner.token").write_text("a secret of another service")
    (directory / "run.json").write_text("{}")
    backup(directory, tmp_path / "monday.backup")
    return tmp_path / "monday.backup"


def contents(directory: Path) -> Contents:
    """What a directory holds, but for the lock, which everyone who looks writes to."""
    return {
        str(path.relative_to(directory)): (path.read_bytes(), path.stat().st_mode)
        for path in directory.rglob("*")
        if path.is_file() and path.name != "lock"
    }


def tasks(directory: Path) -> set[str]:
    with Site(directory) as site:
        model = site.catalog.find("default", "Task")
        assert model is not None
        return {document.id for (_, m, _), document in site.documents().items() if m == model.id}


# -- writing -----------------------------------------------------------------------------------------------


def test_a_backup_holds_record_and_keys_and_says_what_they_are(file: Path, directory: Path) -> None:
    with tarfile.open(file) as archive:
        names = archive.getnames()
        manifest = json.load(archive.extractfile(MANIFEST_FILE) or io.BytesIO())
    assert names == ["network.key", "node.key", "owner.token", DATA_FILE, MANIFEST_FILE]
    assert [part["name"] for part in manifest["parts"]] == names[:-1]
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in file.parent.iterdir() if path.is_file()] == [
        file.name
    ]  # no temporary is left


def test_a_backup_leaves_the_node_as_it_was(directory: Path, tmp_path: Path) -> None:
    before = contents(directory)
    size_bytes = backup(directory, tmp_path / "b")
    assert size_bytes == (tmp_path / "b").stat().st_size
    assert contents(directory) == before
    with Site(directory) as site:
        assert site.new_life is None


def test_what_is_there_is_not_overwritten(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "b").write_text("precious")
    with pytest.raises(StorageError, match="exists already"):
        backup(directory, tmp_path / "b")
    assert (tmp_path / "b").read_text() == "precious"


def test_progress_counts_up_to_the_whole(directory: Path, tmp_path: Path) -> None:
    for work in (
        lambda p: backup(directory, tmp_path / "b", p),
        lambda p: restore(tmp_path / "b", tmp_path / "n", p),
    ):
        steps: list[tuple[int, int]] = []
        work(lambda done, of, steps=steps: steps.append((done, of)))
        assert steps == sorted(steps)
        assert steps[-1][0] == steps[-1][1] > 0


def test_a_running_node_is_backed_up_by_itself_alone(directory: Path, tmp_path: Path) -> None:
    with Site(directory) as site:
        with pytest.raises(StoreLocked):
            backup(directory, tmp_path / "b")
        assert site.record is not None
        backup_store(site.record, tmp_path / "b")
    assert restore(tmp_path / "b", tmp_path / "restored") is None
    assert tasks(tmp_path / "restored") == tasks(directory)


def test_a_backup_that_is_made_while_the_node_writes_is_of_one_moment(
    directory: Path, tmp_path: Path
) -> None:
    with Site(directory) as site:
        model = site.catalog.find("default", "Task")
        assert model is not None and site.record is not None
        written = 0
        is_enough = threading.Event()

        def write() -> None:
            nonlocal written
            while not is_enough.is_set():
                written += 1
                edits = [create(model, f"pair-{written}-{half}", title="x") for half in "ab"]
                site.change(*edits)

        writer = threading.Thread(target=write)
        writer.start()
        for number in range(5):
            backup_store(site.record, tmp_path / f"b{number}")
        is_enough.set()
        writer.join()
    for number in range(5):
        restore(tmp_path / f"b{number}", tmp_path / f"n{number}")
        halves = [id.rpartition("-")[0] for id in tasks(tmp_path / f"n{number}") if id.startswith("pair")]
        assert all(halves.count(pair) == 2 for pair in halves)


def test_a_damaged_node_is_not_backed_up(directory: Path, tmp_path: Path) -> None:
    os.truncate(record_file(directory), record_file(directory).stat().st_size // 2)
    with pytest.raises(StoreDamaged):
        backup(directory, tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_a_directory_without_a_node_is_not_backed_up(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="holds no node"):
        backup(tmp_path, tmp_path / "b")
    with pytest.raises(StorageError, match="holds no node"):
        backup(tmp_path / "missing", tmp_path / "b")


@pytest.mark.parametrize("step", ["write", "fsync", "copy_to"])
def test_a_backup_for_which_there_is_no_room_leaves_nothing(
    directory: Path, tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    target = {"write": (module, "_add_record"), "fsync": (os, "fsync"), "copy_to": (module, "_tar_header")}[
        step
    ]
    with monkeypatch.context() as patch:
        patch.setattr(*target, full)
        with pytest.raises(StorageFull, match="no space left"):
            backup(directory, tmp_path / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["node"]


# -- restoring ---------------------------------------------------------------------------------------------


def test_a_restored_node_holds_everything_and_goes_on_as_a_new_author(file: Path, directory: Path) -> None:
    target = file.parent / "restored"
    assert restore(file, target) is None
    assert sorted(path.name for path in target.iterdir()) == sorted(
        ["lock", "network.key", "node.key", "owner.token", DATA_FILE]
    )
    assert {path.stat().st_mode & 0o777 for path in target.iterdir()} == {0o600}
    with Site(directory) as old, Site(target, seed=7) as new:
        assert old.store.identity is not None and new.store.identity is not None
        assert new.new_life is not None
        assert new.store.identity.author != old.store.identity.author
        assert new.keys == old.keys
        assert new.documents() == old.documents()
        new.catch_up()
        model = new.catalog.find("default", "Task")
        assert model is not None
        new.create(model, "after", title="x")
    assert "after" in tasks(target)
    report = examine(target, repair=False)
    assert report.ok, report.problems


def test_an_empty_directory_or_one_with_other_things_is_filled(file: Path) -> None:
    target = file.parent / "restored"
    target.mkdir()
    (target / "notes.txt").write_text("mine")
    assert restore(file, target) is None
    assert (target / "notes.txt").read_text() == "mine"
    assert tasks(target)


@pytest.mark.parametrize("left", [[DATA_FILE], ["node.key"], ["owner.token"], [ANCHOR_FILE]])
def test_a_directory_that_holds_a_node_is_refused(file: Path, directory: Path, left: list[str]) -> None:
    target = file.parent / "other"
    shutil.copytree(directory, target)
    for path in target.iterdir():
        if path.name not in left:
            path.unlink()
    before = contents(target)
    with pytest.raises(StorageError, match="holds a node already"):
        restore(file, target)
    assert contents(target) == before


def test_force_moves_the_old_node_aside_whole(file: Path, directory: Path, tmp_path: Path) -> None:
    other = filled_directory(tmp_path / "other", tasks=2, seed=9)
    before = contents(other)
    aside = restore(file, other, force=True)
    assert aside is not None and aside.parent == other
    assert contents(aside) == before
    assert len(tasks(other)) == 5
    with Site(aside) as old:
        assert old.new_life is None  # could go on as if nothing had been
    second = restore(file, other, force=True)
    assert second is not None and second != aside
    assert aside.exists()


def test_restoring_over_the_very_node_begins_a_new_life(file: Path, directory: Path) -> None:
    with Site(directory) as site:
        assert site.store.identity is not None
        before = site.store.identity.author
        model = site.catalog.find("default", "Task")
        assert model is not None
        site.create(model, "later", title="x")
    restore(file, directory, force=True)
    assert not (directory / ANCHOR_FILE).exists() and not (directory / INDEX_FILE).exists()
    with Site(directory, seed=3) as site:
        assert site.store.identity is not None
        assert site.store.identity.author != before
        assert site.values(model, "later") is None


def test_a_running_node_is_not_restored_over(file: Path, directory: Path) -> None:
    with Site(directory), pytest.raises(StoreLocked):
        restore(file, directory, force=True)


def rewritten(file: Path, change: Any) -> Path:
    """The backup with its members changed: a dictionary of names and contents, manifest included."""
    members: dict[str, bytes] = {}
    with tarfile.open(file) as archive:
        for member in archive.getmembers():
            members[member.name] = (archive.extractfile(member) or io.BytesIO()).read()
    change(members)
    target = file.with_name("changed.backup")
    with tarfile.open(target, "w") as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return target


def with_manifest(change: Any) -> Any:
    def apply(members: dict[str, bytes]) -> None:
        manifest = json.loads(members[MANIFEST_FILE])
        change(manifest)
        members[MANIFEST_FILE] = json.dumps(manifest).encode()

    return apply


def flip(name: str) -> Any:
    def apply(members: dict[str, bytes]) -> None:
        data = bytearray(members[name])
        data[len(data) // 2] ^= 1
        members[name] = bytes(data)

    return apply


CHANGES: dict[str, Any] = {
    "a bit of the record": flip(DATA_FILE),
    "a bit of a key": flip("node.key"),
    "no record": lambda members: members.pop(DATA_FILE),
    "no key": lambda members: members.pop("node.key"),
    "no manifest": lambda members: members.pop(MANIFEST_FILE),
    "a manifest that is none": lambda members: members.update({MANIFEST_FILE: b"[]"}),
    "a manifest that is cut": lambda members: members.update({MANIFEST_FILE: b'{"kind"'}),
    "a manifest of nothing": with_manifest(lambda manifest: manifest.update(parts=[])),
    "a manifest of odd parts": with_manifest(lambda manifest: manifest.update(parts=[1, None])),
    "a path out": with_manifest(lambda manifest: manifest["parts"][0].update(name="../x.key")),
    "an absolute path": with_manifest(lambda manifest: manifest["parts"][0].update(name="/etc/x.key")),
    "another file": with_manifest(lambda manifest: manifest["parts"][0].update(name="lock")),
    "another size": with_manifest(lambda manifest: manifest["parts"][-1].update(size_bytes=1)),
    "another program's": with_manifest(lambda manifest: manifest.update(kind="other")),
    "a newer format": with_manifest(lambda manifest: manifest.update(format=2)),
    "keys of another node": lambda members: None,
}  # fmt: skip


@pytest.fixture(params=["new", "empty", "held"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A directory to restore to, in one of the states there are; unchanged in the end."""
    target = tmp_path / "target"
    if request.param == "held":
        filled_directory(target, tasks=1, seed=9)
    elif request.param == "empty":
        target.mkdir()
        (target / "notes.txt").write_text("mine")
    before = contents(target) if target.exists() else None
    yield target
    assert (contents(target) if target.exists() else None) == before
    if request.param == "held":
        assert tasks(target)


@pytest.mark.parametrize("what", CHANGES)
def test_a_backup_that_was_changed_touches_nothing(
    file: Path, target: Path, what: str, tmp_path: Path
) -> None:
    changed = rewritten(file, CHANGES[what])
    if what == "keys of another node":
        other = filled_directory(tmp_path / "other", tasks=1, seed=5)
        shutil.copy(other / "node.key", tmp_path / "node" / "node.key")
        changed = tmp_path / "mixed.backup"
        backup(tmp_path / "node", changed)
    with pytest.raises(StorageError):
        restore(changed, target, force=True)


@pytest.mark.parametrize("share", [1.0, 0.7, 0.1, 1_600])
def test_a_backup_that_is_cut_short_touches_nothing(file: Path, target: Path, share: float) -> None:
    size = file.stat().st_size  # the last kilobyte is padding, and what it pads the manifest
    os.truncate(file, int(size - (share if share > 1 else size * share)))
    with pytest.raises(StorageError):
        restore(file, target, force=True)


def test_a_file_that_is_no_backup_touches_nothing(target: Path, tmp_path: Path) -> None:
    (tmp_path / "noise").write_bytes(os.urandom(20_000))
    with pytest.raises(StoreDamaged):
        restore(tmp_path / "noise", target, force=True)
    with pytest.raises(StorageError):
        restore(tmp_path / "missing", target, force=True)


def test_a_backup_of_a_newer_format_is_told_from_a_damaged_one(
    directory: Path, target: Path, tmp_path: Path
) -> None:
    with Site(directory) as site:
        with site.store.write() as batch:
            batch.put_meta("format", FORMAT + 1)
        assert site.record is not None
        backup_store(site.record, tmp_path / "newer")
    with pytest.raises(NewerFormat):
        restore(tmp_path / "newer", target, force=True)


@pytest.mark.parametrize("is_held", [True, False])
def test_whatever_step_of_putting_it_in_place_fails_all_is_as_before(
    file: Path, tmp_path: Path, is_held: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "target"
    if is_held:
        filled_directory(target, tasks=1, seed=9)
    else:
        target.mkdir()
    before = contents(target)
    rename = os.rename
    monkeypatch.setattr(module, "verify_record", lambda _directory: None)
    failing_at = 0
    is_through = False
    while not is_through:
        failing_at += 1
        left = failing_at

        def rename_or_fail(source: Path, destination: Path) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise OSError(28, "No space left on device")
            rename(source, destination)

        with monkeypatch.context() as patch:
            patch.setattr(os, "rename", rename_or_fail)
            try:
                restore(file, target, force=True)
                is_through = True
            except StorageFull:
                assert contents(target) == before
                assert {path.name for path in target.iterdir()} == {"lock", *before}
    assert failing_at > (8 if is_held else 4)


def test_cut_short_between_two_steps_no_node_starts_on_a_half(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a kill: nothing is undone. Every state is refused, or is the old node, or the new one."""
    target = filled_directory(tmp_path / "target", tasks=1, seed=9)
    old, new = tasks(target), {f"t{n}" for n in range(5)}
    rename = os.rename
    states = 0
    outcomes: list[str] = []

    def rename_and_look(source: Path, destination: Path) -> None:
        nonlocal states
        rename(source, destination)
        states += 1
        copy = tmp_path / f"state-{states}"
        shutil.copytree(target, copy)
        try:
            found = tasks(copy)
            outcomes.append("old" if found == old else "new" if found == new else "a mixture")
        except StorageError:
            outcomes.append("refused")

    monkeypatch.setattr(os, "rename", rename_and_look)
    restore(file, target, force=True)
    assert states > 8
    assert set(outcomes) <= {"refused", "new"}
    assert outcomes[0] == "refused"
    assert tasks(target) == new


def test_the_anchor_is_gone_last(file: Path, tmp_path: Path) -> None:
    target = tmp_path / "restored"
    restore(file, target)
    assert read_anchor(target).store_id == b""
    assert tasks(target)


def test_a_backup_keeps_what_the_index_and_the_models_need(directory: Path, tmp_path: Path) -> None:
    with Site(directory) as site:
        site.define({**TASK, "name": "Second"}, "other")
    backup(directory, tmp_path / "b")
    restore(tmp_path / "b", tmp_path / "n")
    with Site(tmp_path / "n") as site:
        site.catch_up()
        assert site.catalog.find("other", "Second") is not None
        model = site.catalog.find("default", "Task")
        assert model is not None and len(site.indexed(model)) == 5
