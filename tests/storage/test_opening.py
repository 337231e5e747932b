"""Opening a data directory and closing it, on every path."""

import os
from pathlib import Path

import pytest

from protocol.keys import KeyPair
from protocol.membership import Role
from storage import opening
from storage.errors import NewerFormat, StorageError, StorageFailed, StorageFull, StoreDamaged
from storage.gate import ANCHOR_FILE, FOUNDING, AnchorFile, read_anchor
from storage.keyfiles import load_key, load_or_make_key, read_secret, write_secret
from storage.opening import OpenRecord, open_record, own_heads, prepare_next_key
from storage.store import FORMAT
from tests.storage.child import opened
from tests.storage.kit import NOW_MS, TASK, Site, filled_directory, record_file


def open_at(directory: Path) -> OpenRecord:
    return open_record(directory, now_ms=NOW_MS, random_bytes=os.urandom)


class Interrupted(BaseException):
    """Stands for whatever may end a start half way."""


# -- the first start ---------------------------------------------------------------------------------------


def test_a_first_start_makes_a_network_of_one(tmp_path: Path) -> None:
    record = open_at(tmp_path / "node")
    identity = record.store.identity
    assert identity is not None and record.new_life is None
    assert identity.author[:32] == record.keys.public
    assert record.store.members.role_of(record.keys.public) is Role.ADMIN
    assert record.store.counts() == {"documents": 0, "commits": 1}
    assert own_heads(record.store)[record.store.system].seq == 1
    record.close()
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "node").iterdir()} == {0o600}


STEPS = ["check_record", "LmdbKeyValueStore", "load_or_make_key", "found_store", "_take_bearings"]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("is_before", [True, False])
def test_a_first_start_that_was_cut_short_begins_again(
    tmp_path: Path, step: str, is_before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = getattr(opening, step)

    def interrupted(*arguments: object, **options: object) -> object:
        result = None if is_before else whole(*arguments, **options)
        if result is not None and hasattr(result, "close"):
            result.close()
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(opening, step, interrupted)
        with pytest.raises(Interrupted):
            open_at(tmp_path)
    record = open_at(tmp_path)
    assert record.new_life is None
    assert record.store.counts()["commits"] == 1
    record.close()
    open_at(tmp_path).close()


@pytest.mark.parametrize("size", [0, 1, 4_096])
def test_what_a_killed_first_start_left_of_the_record_is_no_damage(tmp_path: Path, size: int) -> None:
    anchor = AnchorFile(tmp_path)
    anchor.value.store_id = FOUNDING
    anchor.write()
    anchor.close()
    record_file(tmp_path).write_bytes(bytes(size))
    assert opened(tmp_path)["new_life"] is None


def test_an_empty_record_is_refused_where_no_first_start_was_under_way(tmp_path: Path) -> None:
    record_file(tmp_path).write_bytes(b"")
    with pytest.raises(StoreDamaged, match="empty"):
        open_at(tmp_path)


def test_keys_of_before_are_used_again(tmp_path: Path) -> None:
    seed = os.urandom(32)
    write_secret(tmp_path / "node.key", seed.hex())
    record = open_at(tmp_path)
    assert record.keys == KeyPair.from_seed(seed)
    record.close()


# -- keys --------------------------------------------------------------------------------------------------


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return filled_directory(tmp_path / "node", tasks=3)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_that_others_may_read_is_refused(directory: Path, mode: int) -> None:
    (directory / "node.key").chmod(mode)
    with pytest.raises(StorageError, match="chmod 600"):
        open_at(directory)


@pytest.mark.parametrize("text", ["", "abcd", "zz" * 32, "é", "ab" * 33])
def test_a_key_file_that_holds_no_key_is_refused(directory: Path, text: str) -> None:
    (directory / "node.key").write_text(text, encoding="latin-1")
    with pytest.raises(StorageError, match="does not hold a key"):
        open_at(directory)


def test_no_key_is_made_for_a_record_that_lacks_its_own(directory: Path) -> None:
    kept = (directory / "node.key").read_text()
    (directory / "node.key").unlink()
    with pytest.raises(StorageError, match=r"node\.key is missing"):
        open_at(directory)
    assert not (directory / "node.key").exists()
    write_secret(directory / "node.key", kept.strip())
    open_at(directory).close()


def test_a_secret_is_never_replaced(tmp_path: Path) -> None:
    write_secret(tmp_path / "a.key", "one")
    with pytest.raises(FileExistsError):
        write_secret(tmp_path / "a.key", "two")
    assert read_secret(tmp_path / "a.key") == "one"
    assert load_or_make_key(tmp_path / "b.key", b"s" * 32) == load_key(tmp_path / "b.key")
    assert load_or_make_key(tmp_path / "b.key", b"t" * 32) == load_key(tmp_path / "b.key")
    assert load_key(tmp_path / "c.key") is None


def test_a_secret_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            write_secret(tmp_path / "a.key", "one")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a.key.new").write_text("left by a kill")
    write_secret(tmp_path / "a.key", "one")
    assert read_secret(tmp_path / "a.key") == "one"


# -- later starts, and stops -------------------------------------------------------------------------------


def test_a_start_that_fails_lets_go_of_everything(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(os.listdir("/proc/self/fd")) if Path("/proc").exists() else 0
    for step in ("load_key", "_take_bearings", "check_record", "LmdbKeyValueStore", "Store"):
        with monkeypatch.context() as patch:
            patch.setattr(opening, step, lambda *_, **__: (_ for _ in ()).throw(Interrupted))
            with pytest.raises(Interrupted):
                open_at(directory)
    open_at(directory).close()
    assert not before or len(os.listdir("/proc/self/fd")) == before


def test_a_newer_format_is_told_from_damage(directory: Path) -> None:
    record = open_at(directory)
    with record.store.write() as batch:
        batch.put_meta("format", FORMAT + 1)
    record.close()
    with pytest.raises(NewerFormat):
        open_at(directory)


def test_a_record_is_marked_as_in_use_before_it_is_opened(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_anchor(directory).is_clean
    seen: list[bool] = []

    def look(*_: object, **__: object) -> object:
        seen.append(read_anchor(directory).is_clean)
        raise Interrupted

    monkeypatch.setattr(opening, "LmdbKeyValueStore", look)
    with pytest.raises(Interrupted):
        open_at(directory)
    assert seen == [False]


def test_a_crash_after_a_new_life_began_is_no_damage(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (directory / ANCHOR_FILE).unlink()

    def interrupted(*_: object) -> None:
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(opening, "_take_bearings", interrupted)
        with pytest.raises(Interrupted):
            open_at(directory)
    record = open_at(directory)
    assert record.new_life is not None
    record.close()
    record = open_at(directory)
    assert record.new_life is None
    record.close()


def test_a_clean_stop_says_so_and_a_crash_does_not(directory: Path) -> None:
    open_at(directory).close()
    anchor = read_anchor(directory)
    assert anchor.is_clean and anchor.is_as_left(record_file(directory).stat())
    Site(directory).crash()
    assert not read_anchor(directory).is_clean


def test_a_stop_after_a_failed_flush_is_not_clean(directory: Path) -> None:
    record = open_at(directory)
    record.store.keys.failure = "the disk failed"
    record.close()
    assert not read_anchor(directory).is_clean
    open_at(directory).close()


def test_a_stop_on_a_full_disk_is_a_stop(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = open_at(directory)

    def full(**_: object) -> None:
        raise StorageFull("no space")

    with monkeypatch.context() as patch:
        patch.setattr(record.anchor, "write", full)
        record.close()
    open_at(directory).close()


def test_closing_twice_is_closing_once(directory: Path) -> None:
    record = open_at(directory)
    record.close()
    record.close()
    assert read_anchor(directory).is_clean
    open_at(directory).close()


def test_the_anchor_knows_our_chains_in_every_space(directory: Path) -> None:
    with Site(directory) as site:
        site.define(TASK, "second")
        spaces = {site.store.system: 1, site.store.space("default"): 4, site.store.space("second"): 1}
        assert read_anchor(directory).seqs == spaces
        site.crash()
    assert read_anchor(directory).seqs == spaces
    Site(directory).close()
    assert read_anchor(directory).seqs == spaces


@pytest.mark.skipif(os.geteuid() == 0, reason="root may do everything")
def test_a_directory_of_someone_else_is_told_in_words(tmp_path: Path) -> None:
    (tmp_path / "node").mkdir(mode=0o500)
    with pytest.raises(StorageError, match="owner of the data"):
        open_at(tmp_path / "node" / "below")


def test_a_file_in_the_place_of_the_directory_is_told_in_words(tmp_path: Path) -> None:
    (tmp_path / "node").write_text("")
    with pytest.raises(StorageError, match="cannot be used"):
        open_at(tmp_path / "node")


def test_errors_of_the_system_are_told_in_ours(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, kind in ((28, StorageFull), (5, StorageFailed), (13, StorageError)):

        def fail(*_: object, number: int = number) -> None:
            raise OSError(number, os.strerror(number), str(directory))

        with monkeypatch.context() as patch:
            patch.setattr(opening, "AnchorFile", fail)
            with pytest.raises(kind):
                open_at(directory)


# -- another key -------------------------------------------------------------------------------------------------


def test_a_node_goes_on_under_another_key_with_all_that_it_holds(tmp_path: Path) -> None:
    directory = tmp_path / "node"
    first = open_at(directory)
    network_key = load_key(directory / "network.key")
    first.close()
    prepare_next_key(directory, b"n" * 32)
    second = open_at(directory)
    assert second.keys == KeyPair.from_seed(b"n" * 32) and second.new_life is not None
    assert second.store.identity is not None and first.store.identity is not None
    assert second.store.identity.network_id == first.store.identity.network_id
    assert second.store.identity.author[:32] == second.keys.public
    assert second.store.members.role_of(second.keys.public) is None, "it has yet to be let in"
    second.close()
    third = open_at(directory)
    assert third.keys == second.keys and third.new_life is None
    third.close()
    former = directory / f"former-{first.keys.public.hex()[:16]}.key"
    assert load_key(former) == first.keys
    assert load_key(directory / "network.key") == network_key


@pytest.mark.parametrize("step", ["_renew", "load_key", "os.rename", "flush_directory"])
@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("is_before", [True, False])
def test_a_change_of_key_that_was_cut_short_is_carried_on(
    tmp_path: Path, step: str, nth: int, is_before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "node"
    open_at(directory).close()
    prepare_next_key(directory, b"n" * 32)
    owner, name = (os, "rename") if step == "os.rename" else (opening, step)
    whole, left = getattr(owner, name), nth

    def interrupted(*arguments: object, **options: object) -> object:
        nonlocal left
        left -= 1
        if left or is_before:
            result = whole(*arguments, **options) if left else None
            if left:
                return result
            raise Interrupted
        whole(*arguments, **options)
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, interrupted)
        try:
            open_at(directory).close()
        except Interrupted:
            pass
    record = open_at(directory)
    assert record.keys == KeyPair.from_seed(b"n" * 32)
    assert record.store.identity is not None and record.store.identity.author[:32] == record.keys.public
    record.close()
    assert not (directory / "next.key").exists()
