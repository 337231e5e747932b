"""A damaged index says so, and never answers wrongly."""

import random
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from protocol.query import Query, parse_filter
from protocol.schema import Field, FieldType, Model
from storage.errors import IndexDamaged
from storage.index import Index, Row

MODEL = Model(
    "task",
    "default",
    "Task",
    {"title": Field("title", FieldType.STRING), "n": Field("n", FieldType.INTEGER, indexed=True)},
)
ROWS = [Row(f"r{n:04}", n, n, "ann", "v", {"title": f"title {n} " * 20, "n": n % 10}) for n in range(2000)]
EVERY = [row.id for row in ROWS]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a sound index, closed cleanly."""
    path = tmp_path_factory.mktemp("sound") / "index.db"
    index = Index(str(path))
    index.reset(b"store")
    index.ensure_model(MODEL)
    index.apply([(MODEL, row) for row in ROWS], [], 2000)
    index.close()
    return path.read_bytes()


def answers(path: Path) -> list[str] | None:
    """All ids in order, or None if the index was found damaged or empty on the way."""
    index = None
    try:
        index = Index(str(path))
        if index.position() is None:
            return None
        ids: list[str] = []
        for page in range(1, 21):
            ids += index.query(MODEL, Query(None, "id", False, page, 100)).ids
        for number in range(10):
            some = index.query(
                MODEL, Query(parse_filter(f"n:eq:{number}", MODEL), "created_at", False, 1, 100)
            )
            assert some.ids == EVERY[number::10][:100]
        return ids
    except IndexDamaged:
        return None
    finally:
        if index is not None:
            index.close()


def test_a_sound_file_answers(sound: bytes, tmp_path: Path) -> None:
    (tmp_path / "index.db").write_bytes(sound)
    assert answers(tmp_path / "index.db") == EVERY


@pytest.mark.parametrize("content", [b"not a database, just text " * 500, b"\0" * 8192, b"SQLite format 3\0"])
def test_garbage_is_refused_when_opened(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "index.db").write_bytes(content)
    with pytest.raises(IndexDamaged):
        index = Index(str(tmp_path / "index.db"))
        index.reset(b"store")


def test_a_database_of_another_program_is_refused(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "index.db")
    connection.execute("CREATE TABLE things (a)")
    connection.close()
    with pytest.raises(IndexDamaged):
        Index(str(tmp_path / "index.db"))


def test_an_index_of_another_version_is_refused(sound: bytes, tmp_path: Path) -> None:
    changed = bytearray(sound)
    changed[60:64] = (99).to_bytes(4, "big")  # user_version
    (tmp_path / "index.db").write_bytes(changed)
    with pytest.raises(IndexDamaged):
        Index(str(tmp_path / "index.db"))


def test_a_directory_in_its_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IndexDamaged):
        Index(str(tmp_path))


def test_an_emptied_file_is_a_new_index(tmp_path: Path) -> None:
    (tmp_path / "index.db").write_bytes(b"")
    index = Index(str(tmp_path / "index.db"))
    assert index.position() is None
    index.close()


def test_a_cut_file_is_found_wherever_it_was_cut(sound: bytes, tmp_path: Path) -> None:
    chance = random.Random(1)
    for length in [1, 99, 100, 512, 4095, 4096, 8192, *chance.sample(range(len(sound)), 25)]:
        path = tmp_path / f"cut{length}.db"
        path.write_bytes(sound[:length])
        assert answers(path) is None, length


def test_a_file_cut_under_its_log_is_found(tmp_path: Path) -> None:
    """As after a crash: the newest pages are in the log, and someone cut the file."""
    index = Index(str(tmp_path / "index.db"))
    index.reset(b"store")
    index.ensure_model(MODEL)
    index.apply([(MODEL, row) for row in ROWS], [], 2000)
    assert index.truncate_log()
    index.apply([(MODEL, ROWS[0])], [], 2001)
    file, log = ((tmp_path / f"index.db{part}").read_bytes() for part in ("", "-wal"))
    index.close()
    for length in (0, 4096, len(file) // 2, len(file) - 4096):
        directory = tmp_path / f"cut{length}"
        directory.mkdir()
        (directory / "index.db").write_bytes(file[:length])
        (directory / "index.db-wal").write_bytes(log)
        assert answers(directory / "index.db") is None, length


def test_a_long_value_that_was_cut_under_the_log_is_found(tmp_path: Path) -> None:
    """The end of a long value fills pages of its own, which SQLite would read as zeros."""
    index = Index(str(tmp_path / "index.db"))
    index.reset(b"store")
    index.ensure_model(MODEL)
    index.apply([(MODEL, Row("long", 0, 0, "ann", "v", {"title": "x" * 500_000}))], [], 1)
    assert index.truncate_log()
    index.apply([(MODEL, ROWS[0])], [], 2)
    file, log = ((tmp_path / f"index.db{part}").read_bytes() for part in ("", "-wal"))
    index.close()
    (tmp_path / "cut.db").write_bytes(file[: len(file) - 40 * 4096])
    (tmp_path / "cut.db-wal").write_bytes(log)
    with pytest.raises(IndexDamaged):
        Index(str(tmp_path / "cut.db"))
    (tmp_path / "whole.db").write_bytes(file)
    (tmp_path / "whole.db-wal").write_bytes(log)
    Index(str(tmp_path / "whole.db")).close()


@pytest.mark.parametrize(
    "damage",
    [
        lambda old: bytes(len(old)),
        lambda old: b"\xff" * len(old),
        lambda old: random.Random(3).randbytes(len(old)),
    ],
)
def test_a_page_of_rubbish_is_found_or_not_used(
    sound: bytes, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    found = 0
    for page in range(0, len(sound) // 4096, 9):
        path = tmp_path / f"page{page}.db"
        place = slice(page * 4096, page * 4096 + 4096)
        path.write_bytes(sound[: place.start] + damage(sound[place]) + sound[place.stop :])
        answer = answers(path)
        assert answer is None or answer == EVERY, page
        found += answer is None
    assert found > 3


def test_the_check_finds_what_queries_may_miss(sound: bytes, tmp_path: Path) -> None:
    """A bit flipped inside a value keeps the file well formed: the index no longer fits its table."""
    place = sound.index(b"r0777", sound.index(b"r0777") + 1)
    path = tmp_path / "index.db"
    path.write_bytes(sound[:place] + b"r0778" + sound[place + 5 :])
    index = Index(str(path))
    assert index.check() != []
    index.close()


def test_the_check_finds_a_wrong_count(sound: bytes, tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    path.write_bytes(sound)
    connection = sqlite3.connect(path)
    connection.execute('UPDATE "$models" SET row_count = 5')
    connection.commit()
    connection.close()
    index = Index(str(path))
    assert index.check() == ['"m_task" holds 2000 rows, not 5']
    index.close()


@pytest.mark.parametrize(
    "statement", ['DROP TABLE "m_task"', "UPDATE \"$models\" SET layout = '[]'", 'DROP TABLE "$models"']
)
def test_tables_that_someone_changed_are_found(sound: bytes, tmp_path: Path, statement: str) -> None:
    path = tmp_path / "index.db"
    path.write_bytes(sound)
    connection = sqlite3.connect(path)
    connection.execute('DROP VIEW "Task"')
    connection.execute(statement)
    connection.commit()
    connection.close()
    assert answers(path) is None


def test_a_file_that_is_cut_while_open_is_found(sound: bytes, tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    path.write_bytes(sound)
    index = Index(str(path))
    with path.open("r+b") as file:
        file.truncate(4096)
    with pytest.raises(IndexDamaged):
        for sort in ("n", "id", "created_at", "title"):
            assert index.query(MODEL, Query(None, sort, False, 1, 100)).ids
    index.close()
