"""Doctor: finds every damage there is, repairs what follows from the log, and never makes anything worse."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from protocol.encoding import decode, encode
from storage import doctor as module
from storage.doctor import examine
from storage.errors import NewerFormat, StorageError, StoreLocked
from storage.gate import ANCHOR_FILE, INDEX_FILE, read_anchor
from storage.kv import Table
from storage.lmdb_kv import CHECKSUM_BYTES, LmdbKeyValueStore
from storage.store import FORMAT
from tests.storage.damage import TASKS, alter, check, flipped, flipped_key, gone, rewrite
from tests.storage.kit import (
    Site,
    copied,
    filled_directory,
    record_file,
    stored,
)


@pytest.fixture
def directory(template: Path, tmp_path: Path) -> Path:
    """A copy of `template` to be damaged."""
    return copied(template, tmp_path / "node")


@pytest.fixture
def unverified(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine itself did the damage: the pages are in order, and verifying them takes time."""
    monkeypatch.setattr(module, "structural_faults", lambda _directory: [])


# -- nothing to find ---------------------------------------------------------------------------------------


def test_a_sound_node_is_in_order(directory: Path) -> None:
    report = check(directory)
    assert report.ok and not report.repaired, report
    assert report.counts == {
        "commits": 17,
        "chains": 3,
        "bodies": 30,
        "signatures": 3,
        "documents": 26,
        "rows of the query index": 25,
        "arrivals that the query index has yet to read": 0,
    }


def test_looking_changes_nothing(directory: Path) -> None:
    def state() -> dict[str, bytes]:
        files = (path for path in directory.iterdir() if path.name != "lock")
        return {path.name: path.read_bytes() for path in files if not path.name.startswith(INDEX_FILE)}

    before, times = state(), record_file(directory).stat().st_mtime_ns
    check(directory)
    assert state() == before
    assert record_file(directory).stat().st_mtime_ns == times


def test_repairing_what_is_in_order_changes_nothing(directory: Path) -> None:
    before = stored(directory)
    report = check(directory, repair=True)
    assert report.ok and not report.repaired
    assert stored(directory) == before


def test_after_a_crash_all_is_in_order_and_the_next_start_is_quick(directory: Path) -> None:
    with Site(directory) as site:
        model = site.catalog.find("default", "Task")
        assert model is not None
        site.create(model, "last", title="x")
        site.crash()
    assert check(directory).ok
    assert not read_anchor(directory).is_clean
    assert check(directory, repair=True).ok
    assert read_anchor(directory).is_clean
    with Site(directory) as site:
        assert site.new_life is None


def test_a_copied_node_stays_one_that_has_to_begin_anew(directory: Path, tmp_path: Path) -> None:
    shutil.copytree(directory, tmp_path / "copy")
    assert check(tmp_path / "copy", repair=True).ok
    with Site(tmp_path / "copy") as site:
        assert site.new_life is not None


def test_a_node_that_lived_several_lives_is_in_order(directory: Path) -> None:
    for life in range(3):
        (directory / ANCHOR_FILE).unlink()
        with Site(directory, seed=life + 10) as site:
            site.catch_up()
            model = site.catalog.find("default", "Task")
            assert model is not None
            site.update(model, "t1", title=f"life {life}")
    report = check(directory)
    assert report.ok, report.problems
    assert report.counts["chains"] == 6


def test_a_long_chain_is_proved_by_few_signatures(large: Path) -> None:
    report = check(large)
    assert report.ok, report.problems
    assert report.counts["signatures"] == 4  # 64, 128, the newest, and that of the system space


def test_a_running_node_is_not_examined(directory: Path) -> None:
    with Site(directory), pytest.raises(StoreLocked):
        check(directory)


def test_there_must_be_something_to_examine(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(StorageError, match="--data-dir"):
            check(path)


def test_a_newer_format_is_left_alone(directory: Path) -> None:
    rewrite(directory, Table.META, b"format", encode(FORMAT + 1))
    with pytest.raises(NewerFormat):
        check(directory, repair=True)


def test_progress_counts_every_commit_twice(directory: Path) -> None:
    steps: list[tuple[int, int]] = []
    examine(directory, repair=False, progress=lambda done, of: steps.append((done, of)))
    assert steps[-1] == (34, 34)


# -- what follows from the log -----------------------------------------------------------------------------

DERIVED = [
    Table.DOCUMENTS,
    Table.HISTORY,
    Table.HEADS,
    Table.CHAINS,
    Table.COLLECTIONS,
    Table.ARRIVALS,
    Table.SIGNATURES,
    Table.META,
]


@pytest.mark.parametrize("table", DERIVED)
@pytest.mark.parametrize("damage", [flipped, flipped_key, gone], ids=["value", "key", "gone"])
@pytest.mark.parametrize("nth", [0, -1])
@pytest.mark.usefixtures("unverified")
def test_what_is_derived_is_rebuilt(
    directory: Path, table: Table, damage: Callable[[bytes, bytes], tuple[bytes, bytes] | None], nth: int
) -> None:
    before = stored(directory)
    alter(directory, table, damage, nth=nth)
    seen = check(directory)
    assert not seen.ok, seen
    assert all("civicnode" in problem or "not whole" in problem for problem in seen.problems), seen.problems
    report = check(directory, repair=True)
    assert report.repaired, report
    if table is Table.META and any("application" in problem for problem in report.problems):
        return  # the name of an application is in nothing else, unless it is the usual one
    assert report.ok, report.problems
    assert check(directory).ok
    assert stored(directory) == before


def test_several_damages_are_told_and_repaired_together(directory: Path) -> None:
    before = stored(directory)
    for table in (Table.DOCUMENTS, Table.HISTORY, Table.HEADS, Table.COLLECTIONS, Table.ARRIVALS):
        alter(directory, table, flipped, nth=1)
    assert check(directory, repair=True).ok
    assert check(directory).ok
    assert stored(directory) == before


def test_a_document_that_differs_from_the_log_is_named(directory: Path) -> None:
    with Site(directory) as site:
        space = site.store.space("default")
        model = site.catalog.find("default", "Task")
        assert model is not None
        collection = site.store.names.collection(space, model.id)
        assert collection is not None
        key = collection.to_bytes(4, "big")
        with site.store.keys.read() as transaction:
            other = transaction.get(Table.DOCUMENTS, key + b"t5")
    assert other is not None
    rewrite(directory, Table.DOCUMENTS, key + b"t4", other)
    rewrite(directory, Table.DOCUMENTS, key + b"invented", other)
    rewrite(directory, Table.DOCUMENTS, key + b"t6", None)
    report = check(directory)
    assert not report.ok
    problems = "\n".join(report.problems)
    assert f"document {model.id}/t4 is not what the log says" in problems
    assert f"document {model.id}/invented should not be there" in problems
    assert f"document {model.id}/t6 is not what the log says" in problems
    assert check(directory, repair=True).ok
    with Site(directory) as site:
        assert site.values(model, "t4") == {"title": "task 4", "points": 4, "tags": ["a"], "votes": 1}
        assert site.values(model, "invented") is None
        assert site.values(model, "t6") is not None
        site.catch_up()
        assert "invented" not in site.indexed(model)


def test_many_findings_of_a_kind_are_counted(directory: Path) -> None:
    with closing(LmdbKeyValueStore(str(directory))) as keys, keys.write() as batch:
        for key, _ in list(batch.scan(Table.DOCUMENTS, b"", None)):
            batch.delete(Table.DOCUMENTS, key)
    report = check(directory)
    assert len(report.problems) == 21
    assert "6 more of this kind" in report.problems[-1]
    assert check(directory, repair=True).ok
    assert check(directory).ok


def test_what_each_arrival_did_is_rebuilt(directory: Path) -> None:
    with closing(LmdbKeyValueStore(str(directory))) as keys, keys.read() as transaction:
        key, value = transaction.last(Table.ARRIVALS, b"", None) or (b"", b"")
    rewrite(directory, Table.ARRIVALS, key, value[:-1] + b"\x01")
    assert not check(directory).ok
    assert check(directory, repair=True).ok
    with closing(LmdbKeyValueStore(str(directory))) as keys, keys.read() as transaction:
        assert transaction.get(Table.ARRIVALS, key) == value


def test_a_wrong_frontier_is_rebuilt(directory: Path) -> None:
    with closing(LmdbKeyValueStore(str(directory))) as keys, keys.read() as transaction:
        frontiers = [(k, v) for k, v in transaction.scan(Table.META, b"frontier ", b"frontier~")]
    assert len(frontiers) == 3
    rewrite(
        directory, Table.META, frontiers[0][0], encode([*decode(frontiers[0][1]), [b"x" * 40, 1, b"y" * 16]])
    )
    report = check(directory)
    assert "frontier" in report.problems[0]
    assert check(directory, repair=True).ok


def test_when_the_order_of_arrival_had_to_be_guessed_cursors_do_not_outlive_it(directory: Path) -> None:
    alter(directory, Table.ARRIVALS, flipped, nth=3)
    alter(directory, Table.ARRIVALS, flipped, nth=4)
    report = check(directory, repair=True)
    assert report.ok, report.problems
    with Site(directory) as site:
        assert site.new_life is not None  # and with it a new epoch


def test_repairing_that_is_cut_short_can_be_done_again(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = stored(directory)
    for nth in (0, 5, -1):
        alter(directory, Table.DOCUMENTS, flipped, nth=nth)
    alter(directory, Table.COLLECTIONS, flipped)
    monkeypatch.setattr(module, "_FIXES_PER_WRITE", 3)
    for steps in range(1, 12):
        left = steps
        write = LmdbKeyValueStore.write

        def failing(self: LmdbKeyValueStore, write: Callable[..., object] = write) -> object:
            nonlocal left
            if "doctor-" not in self._path:
                left -= 1
            if left == 0:
                raise KeyboardInterrupt
            return write(self)

        with monkeypatch.context() as patch:
            patch.setattr(LmdbKeyValueStore, "write", failing)
            try:
                check(directory, repair=True)
            except KeyboardInterrupt:
                pass
    assert check(directory, repair=True).ok
    assert stored(directory) == before
    assert not list(directory.glob("doctor-*"))


# -- the index ---------------------------------------------------------------------------------------------


def test_an_index_that_lies_is_removed_and_built_anew(directory: Path) -> None:
    with closing(sqlite3.connect(directory / INDEX_FILE)) as connection:
        connection.execute("UPDATE m_task_46bdfd37 SET created_by = 'a lie' WHERE id = 't4'")
        connection.commit()
    report = check(directory)
    assert report.problems == ["query index: Task: t4 differs: `civicnode doctor --repair` removes it"]
    assert check(directory, repair=True).ok
    assert not (directory / INDEX_FILE).exists()
    with Site(directory) as site:
        site.catch_up()
        model = site.catalog.find("default", "Task")
        assert model is not None and len(site.indexed(model)) == TASKS - 1
    assert check(directory).ok


@pytest.mark.parametrize("data", [b"", b"noise" * 2_000, b"SQLite format 3\0" + bytes(8_000)])
def test_an_index_that_is_none_is_removed(directory: Path, data: bytes) -> None:
    for file in directory.glob(INDEX_FILE + "-*"):
        file.unlink()
    (directory / INDEX_FILE).write_bytes(data)
    check(directory, repair=True)
    with Site(directory) as site:
        site.catch_up()
        model = site.catalog.find("default", "Task")
        assert model is not None and len(site.indexed(model)) == TASKS - 1
    assert check(directory).ok


def test_an_index_that_is_behind_or_missing_is_no_fault(directory: Path) -> None:
    with Site(directory, index=False) as site:
        model = site.catalog.find("default", "Task")
        assert model is not None
        site.create(model, "later", title="x")
    report = check(directory)
    assert report.ok and report.counts["arrivals that the query index has yet to read"] == 1
    for file in directory.glob(INDEX_FILE + "*"):
        file.unlink()
    assert check(directory).ok


# -- the log -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", [Table.HEADERS, Table.BODIES])
@pytest.mark.parametrize("damage", [flipped, flipped_key, gone], ids=["value", "key", "gone"])
@pytest.mark.parametrize("nth", [1, 6, -1])
@pytest.mark.usefixtures("unverified")
def test_what_is_lost_from_the_log_is_told_and_nothing_is_made_worse(
    directory: Path, table: Table, damage: Callable[[bytes, bytes], tuple[bytes, bytes] | None], nth: int
) -> None:
    before = stored(directory)
    alter(directory, table, damage, nth=nth)
    record = record_file(directory).read_bytes()
    for repair in (False, True):
        report = check(directory, repair=repair)
        assert not report.ok
        assert any("lost" in problem and "civicnode restore" in problem for problem in report.problems)
        assert record_file(directory).read_bytes() == record
    assert stored(directory) == before  # the documents are still there to be read


def test_the_document_of_a_lost_body_is_named(directory: Path) -> None:
    with closing(LmdbKeyValueStore(str(directory))) as keys, keys.read() as transaction:
        bodies = [key for key, _ in transaction.scan(Table.BODIES, b"", None)]
    ninth = next(n for n, key in enumerate(bodies) if key[:4] == (1).to_bytes(4, "big") and key[11] == 4)
    alter(directory, Table.BODIES, flipped, nth=ninth)
    report = check(directory)
    assert any("a change of document task_46bdfd37/t2" in problem for problem in report.problems), (
        report.problems
    )


def test_a_commit_that_was_exchanged_is_found(directory: Path) -> None:
    """As by someone who can write the file: every checksum is right."""
    with closing(LmdbKeyValueStore(str(directory))) as keys, keys.read() as transaction:
        headers = list(transaction.scan(Table.HEADERS, b"", None))
    rewrite(directory, Table.HEADERS, headers[3][0], headers[4][1])
    assert not check(directory, repair=True).ok


def test_a_forged_signature_is_made_again(directory: Path) -> None:
    with closing(LmdbKeyValueStore(str(directory))) as keys, keys.read() as transaction:
        signatures = dict(transaction.scan(Table.SIGNATURES, b"", None))
    for key in signatures:
        rewrite(directory, Table.SIGNATURES, key, b"x" * 64)
    assert not check(directory).ok
    assert check(directory, repair=True).ok
    with closing(LmdbKeyValueStore(str(directory))) as keys, keys.read() as transaction:
        assert dict(transaction.scan(Table.SIGNATURES, b"", None)) == signatures


def test_an_altered_record_of_this_device_is_dropped(directory: Path) -> None:
    alter(directory, Table.LOCAL, flipped)
    assert "this device alone" in check(directory).problems[0]
    assert check(directory, repair=True).ok
    with Site(directory) as site, site.store.read() as snapshot:
        assert snapshot.local.get("session", "ann") is None


# -- the files beside the record ---------------------------------------------------------------------------


def test_a_missing_record_is_told_with_the_way_back(directory: Path) -> None:
    record_file(directory).unlink()
    report = check(directory, repair=True)
    assert len(report.problems) == 1
    assert "missing" in report.problems[0] and "civicnode restore" in report.problems[0]
    record_file(directory).write_bytes(b"")
    assert "empty" in check(directory, repair=True).problems[0]


def test_a_missing_or_foreign_key_is_told(directory: Path, tmp_path: Path) -> None:
    key = directory / "node.key"
    text = key.read_text()
    key.unlink()
    assert "node.key is missing" in check(directory).problems[0]
    other = filled_directory(tmp_path / "other", seed=9)
    shutil.copy(other / "node.key", key)
    assert any("not the key of this record" in problem for problem in check(directory, repair=True).problems)
    key.write_text(text)
    key.chmod(0o644)
    assert "chmod 600" in check(directory).problems[0]
    key.chmod(0o600)
    assert check(directory).ok


def test_a_report_is_data(directory: Path) -> None:
    report = check(directory)
    assert json.dumps([report.ok, report.problems, report.repaired, report.counts])
    assert CHECKSUM_BYTES == 4
