"""The gate: who may open a record, whether it may be opened, and as whom."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from storage import gate
from storage.errors import StorageFull, StoreDamaged, StoreLocked
from storage.gate import (
    ANCHOR_FILE,
    Anchor,
    AnchorFile,
    DirectoryLock,
    check_record,
    must_start_new_life,
    prepare_directory,
    read_anchor,
    structural_faults,
)
from tests.storage.child import opened
from tests.storage.kit import TASK, Site, filled_directory, record_file

SLOT = 8_192


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Of a node that was used and stopped cleanly."""
    return filled_directory(tmp_path / "node", tasks=20)


# -- the lock ----------------------------------------------------------------------------------------------


def test_the_lock_names_its_holder(tmp_path: Path) -> None:
    with DirectoryLock(tmp_path), pytest.raises(StoreLocked, match=f"process {os.getpid()} ") as refused:
        DirectoryLock(tmp_path)
    assert refused.value.pid == os.getpid()


def test_the_lock_is_free_once_its_holder_has_gone(tmp_path: Path) -> None:
    with DirectoryLock(tmp_path):
        pass
    with DirectoryLock(tmp_path):
        assert (tmp_path / "lock").read_text() == str(os.getpid())
    assert (tmp_path / "lock").read_text() == ""  # so that nobody is named who has nothing to do with it


def test_a_killed_holder_leaves_no_lock(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from storage.gate import DirectoryLock;"
        "DirectoryLock(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as child:
        assert child.stdout is not None and child.stdout.readline() == "held\n"
        with pytest.raises(StoreLocked) as refused:
            DirectoryLock(tmp_path)
        assert refused.value.pid == child.pid
        child.kill()
    DirectoryLock(tmp_path).release()


def test_who_only_looks_does_not_keep_a_node_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    looking = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(looking, fcntl.LOCK_SH)
    monkeypatch.setattr(time, "sleep", lambda _s: fcntl.flock(looking, fcntl.LOCK_UN))
    DirectoryLock(tmp_path).release()
    os.close(looking)


def test_a_second_opening_is_refused(directory: Path) -> None:
    with Site(directory), pytest.raises(StoreLocked):
        Site(directory)
    Site(directory).close()


def test_the_directory_is_for_its_owner_alone(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "b"
    prepare_directory(directory)
    assert directory.stat().st_mode & 0o777 == 0o700
    directory.chmod(0o755)
    prepare_directory(directory)
    assert directory.stat().st_mode & 0o777 == 0o700


# -- the anchor --------------------------------------------------------------------------------------------


def test_the_anchor_is_read_back(tmp_path: Path) -> None:
    anchor = AnchorFile(tmp_path)
    assert anchor.value == read_anchor(tmp_path) == Anchor()
    anchor.value = Anchor(b"store", 1, 2, True, 3, 4, {b"space": 5}, 0)
    anchor.write(flush=True)
    anchor.note(b"other", 6)
    anchor.close()
    assert read_anchor(tmp_path) == Anchor(b"store", 1, 2, True, 3, 4, {b"space": 5, b"other": 6}, 2)


def test_a_directory_without_an_anchor_has_an_empty_one(tmp_path: Path) -> None:
    assert read_anchor(tmp_path) == Anchor()
    assert not (tmp_path / ANCHOR_FILE).exists()  # reading makes none


@pytest.mark.parametrize("cut", [0, 1, 8, 18])
def test_a_torn_note_leaves_the_one_before(tmp_path: Path, cut: int) -> None:
    anchor = AnchorFile(tmp_path)
    for seq in (1, 2, 3):
        anchor.note(b"space", seq)
    anchor.close()
    data = bytearray((tmp_path / ANCHOR_FILE).read_bytes())
    newest = (anchor.value.turn % 2) * SLOT
    data[newest + cut : newest + cut + 4] = b"\xff\xff\xff\xff"
    (tmp_path / ANCHOR_FILE).write_bytes(data)
    assert read_anchor(tmp_path).seqs == {b"space": 2}


@pytest.mark.parametrize("data", [b"", b"\0" * 100, os.urandom(2 * SLOT), b"\xff" * SLOT])
def test_an_anchor_of_which_nothing_is_left_is_an_empty_one(tmp_path: Path, data: bytes) -> None:
    (tmp_path / ANCHOR_FILE).write_bytes(data)
    assert read_anchor(tmp_path) == Anchor()


def test_an_anchor_holds_the_newest_spaces_when_there_are_too_many(tmp_path: Path) -> None:
    anchor = AnchorFile(tmp_path)
    for number in range(500):
        anchor.note(number.to_bytes(16, "big"), number)
    anchor.close()
    assert list(read_anchor(tmp_path).seqs.values()) == list(range(300, 500))


def test_the_anchor_has_its_place_on_the_disk_from_the_start(tmp_path: Path) -> None:
    AnchorFile(tmp_path).close()
    facts = (tmp_path / ANCHOR_FILE).stat()
    assert facts.st_size == 2 * SLOT
    assert facts.st_blocks * 512 >= 2 * SLOT
    assert facts.st_mode & 0o777 == 0o600


def test_a_note_that_does_not_reach_the_disk_does_not_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    anchor = AnchorFile(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        anchor.note(b"space", 1)
        assert type(anchor.failure) is StorageFull
        with pytest.raises(StorageFull):
            anchor.write()
    anchor.note(b"space", 2)
    assert str(anchor.failure) == "None"
    anchor.close()


# -- as whom -----------------------------------------------------------------------------------------------


def author(directory: Path) -> str:
    with Site(directory, seed=5) as site:
        assert site.store.identity is not None
        return site.store.identity.author.hex()


def test_a_node_goes_on_as_itself(directory: Path) -> None:
    assert author(directory) == author(directory)
    with Site(directory) as site:
        assert site.new_life is None


def test_a_copied_directory_goes_on_as_a_new_author(directory: Path, tmp_path: Path) -> None:
    before = author(directory)
    shutil.copytree(directory, tmp_path / "copy")
    with Site(tmp_path / "copy") as site:
        assert site.new_life is not None and "copied" in site.new_life
    assert author(tmp_path / "copy") != before
    assert author(directory) == before


def test_a_moved_directory_stays_itself(directory: Path, tmp_path: Path) -> None:
    before = author(directory)
    directory.rename(tmp_path / "moved")
    assert author(tmp_path / "moved") == before


def test_a_directory_without_its_anchor_goes_on_as_a_new_author(directory: Path) -> None:
    before = author(directory)
    (directory / ANCHOR_FILE).unlink()
    with Site(directory) as site:
        assert site.new_life is not None and "anchor" in site.new_life
    assert author(directory) != before


@pytest.mark.parametrize("is_clean", [True, False])
def test_a_record_that_was_rolled_back_goes_on_as_a_new_author(directory: Path, is_clean: bool) -> None:
    before = author(directory)
    old = record_file(directory).read_bytes()
    with Site(directory) as site:
        model = site.catalog.find("default", "Task")
        assert model is not None
        site.create(model, "later", title="x")
        if not is_clean:
            site.crash()
    with record_file(directory).open("r+b") as file:  # in place: the file stays the same one
        file.write(old)
        file.truncate()
    with Site(directory) as site:
        assert site.new_life is not None and "older" in site.new_life
        assert site.values(model, "later") is None
    assert author(directory) != before


def test_another_nodes_record_in_its_place_is_noticed(directory: Path, tmp_path: Path) -> None:
    other = filled_directory(tmp_path / "other", seed=9)
    shutil.copy(record_file(other), record_file(directory))
    with pytest.raises(Exception, match=r"node\.key is not the key of this record"):
        Site(directory)
    shutil.copy(other / "node.key", directory / "node.key")
    with Site(directory) as site:
        assert site.new_life is not None and "not the one" in site.new_life


def test_a_clock_that_was_set_back_begins_a_new_life(directory: Path) -> None:
    with Site(directory) as site:
        now_ms = site.now_ms
        assert site.new_life is None
    with Site(directory, now_ms=now_ms - 59_000) as site:
        assert site.new_life is None
    with Site(directory, now_ms=now_ms - 3_600_000) as site:
        assert site.new_life is not None and "clock" in site.new_life
        model = site.catalog.find("default", "Task")
        assert model is not None
        site.create(model, "after", title="x")
    with Site(directory, now_ms=now_ms - 3_590_000) as site:
        assert site.new_life is None  # one new life was enough


@pytest.mark.parametrize(
    ("anchor", "seqs", "expected"),
    [
        (Anchor(), {}, "missing"),
        (Anchor(b"another"), {}, "not the one"),
        (Anchor(b"store", -1, -1), {}, "copied"),
        (Anchor(b"store"), {b"a": 3}, None),
        (Anchor(b"store", seqs={b"a": 3}), {b"a": 3}, None),
        (Anchor(b"store", seqs={b"a": 3}), {b"a": 4, b"b": 1}, None),
        (Anchor(b"store", seqs={b"a": 3, b"b": 1}), {b"a": 3}, "older"),
        (Anchor(b"store", seqs={b"a": 4}), {b"a": 3}, "older"),
    ],
)
def test_when_a_new_life_begins(
    tmp_path: Path, anchor: Anchor, seqs: dict[bytes, int], expected: str | None
) -> None:
    record_file(tmp_path).write_bytes(b"x")
    if anchor.inode == 0:
        anchor.describe(record_file(tmp_path).stat())
    reason = must_start_new_life(tmp_path, anchor, b"store", seqs)
    assert reason is expected or (expected is not None and reason is not None and expected in reason)


# -- whether -----------------------------------------------------------------------------------------------


def test_after_a_clean_stop_the_record_is_not_verified(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def verify(_directory: Path) -> None:
        raise AssertionError("verified")

    monkeypatch.setattr(gate, "verify_record", verify)
    Site(directory).close()
    site = Site(directory)
    site.crash()
    with pytest.raises(AssertionError, match="verified"):
        Site(directory)


@pytest.mark.parametrize("field", ["size_bytes", "modified_ns", "inode", "device", "is_clean"])
def test_a_record_that_was_touched_since_is_verified(
    directory: Path, field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified: list[Path] = []
    monkeypatch.setattr(gate, "verify_record", verified.append)
    anchor = read_anchor(directory)
    check_record(directory, anchor)
    assert not verified
    setattr(anchor, field, getattr(anchor, field) - 1)
    check_record(directory, anchor)
    assert verified == [directory]


def cut(share: float) -> int:
    return -int(share * 100)


@pytest.mark.parametrize("size", [cut(0.9), cut(0.5), cut(0.1), 4_096, 1, 0])
@pytest.mark.parametrize("is_clean", [True, False])
def test_a_truncated_record_is_refused_and_kills_nobody(directory: Path, size: int, is_clean: bool) -> None:
    if not is_clean:
        Site(directory).crash()
    whole = record_file(directory).stat().st_size
    os.truncate(record_file(directory), size if size >= 0 else whole * -size // 100)
    found = opened(directory)
    assert found["error"] == "StoreDamaged"
    assert "civicnode doctor" in found["message"] and "civicnode restore" in found["message"]


@pytest.mark.parametrize("page", [0, 1])
def test_a_zeroed_meta_page_is_refused(directory: Path, page: int) -> None:
    with record_file(directory).open("r+b") as file:
        file.seek(page * 4_096)
        file.write(bytes(4_096))
    assert opened(directory)["error"] == "StoreDamaged"


def test_a_missing_record_is_refused_where_there_was_one(directory: Path) -> None:
    record_file(directory).unlink()
    found = opened(directory)
    assert found["error"] == "StoreDamaged"
    assert "missing" in found["message"]
    assert not record_file(directory).exists()  # nor is an empty one made


def test_a_record_of_an_empty_engine_is_refused_where_there_was_one(directory: Path, tmp_path: Path) -> None:
    from storage.lmdb_kv import LmdbKeyValueStore

    (tmp_path / "empty").mkdir()
    LmdbKeyValueStore(str(tmp_path / "empty")).close()
    shutil.copy(record_file(tmp_path / "empty"), record_file(directory))
    assert opened(directory)["error"] == "StoreDamaged"


def test_a_sound_record_has_no_structural_faults(directory: Path) -> None:
    assert structural_faults(directory) == []


def test_a_module_in_the_current_directory_is_not_run_instead(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lmdb.py").write_text("raise SystemExit('the wrong one')")
    monkeypatch.chdir(tmp_path)
    assert structural_faults(directory) == []
    with record_file(directory).open("r+b") as file:
        file.write(bytes(8))
    assert structural_faults(directory) != ["the wrong one"]


def test_a_refusal_names_the_first_fault(directory: Path) -> None:
    os.truncate(record_file(directory), record_file(directory).stat().st_size // 2 & ~4_095)
    with pytest.raises(StoreDamaged, match=r"is damaged \(.*page.*\): run `civicnode doctor`"):
        check_record(directory, Anchor(b"store"))


def test_a_model_that_was_defined_before_is_there_after_a_crash(directory: Path) -> None:
    with Site(directory) as site:
        model = site.define({**TASK, "name": "Later"})
        site.create(model, "a", title="x")
        site.crash()
    with Site(directory) as site:
        assert site.values(model, "a") == {"title": "x"}
