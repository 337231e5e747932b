import sqlite3
from pathlib import Path

import pytest

from cli.bench.errors import ChildFailed, LoadFailed
from cli.bench.rawsql import RawIndex, find_index
from cli.bench.records import Question, records


def index_file(data_dir: Path, columns: str) -> Path:
    path = data_dir / "deep" / "query.db"
    path.parent.mkdir()
    (data_dir / "note.txt").write_text("SQLite format 4, no more")
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE other (id, title)")
    database.execute(f'CREATE TABLE "m_bench_1" ({columns})')
    for number, record in enumerate(records(4_000)):
        database.execute(
            f"INSERT INTO m_bench_1 VALUES ({', '.join('?' * 9)})", [f"{number:05d}", *record.values()]
        )
    database.commit()
    database.close()
    return path


PLAIN = "id TEXT PRIMARY KEY, title, summary, district, status, votes, cost, urgent, due"
PREFIXED = "id TEXT PRIMARY KEY, f_title, f_summary, f_district, f_status, f_votes, f_cost, f_urgent, f_due"


@pytest.mark.parametrize("columns", [PLAIN, PREFIXED])
def test_raw_sql_finds_the_index_and_gives_the_page_that_was_asked_for(tmp_path: Path, columns: str) -> None:
    path = index_file(tmp_path, columns)
    assert find_index(tmp_path) == path
    index = RawIndex(path)
    found = index.page(Question("district", "district-007", "votes", True, 2))
    index.close()
    sample = [
        (record["votes"], f"{number:05d}")
        for number, record in enumerate(records(4_000))
        if record["district"] == "district-007"
    ]
    assert found == [key for _, key in sorted(sample, reverse=True)[20:40]]


def test_raw_sql_does_not_count_a_page_that_is_not_full(tmp_path: Path) -> None:
    index = RawIndex(index_file(tmp_path, PLAIN))
    with pytest.raises(LoadFailed, match="not full"):
        index.measure([Question("district", "district-007", "votes", True, 3)], warmup_s=0.0, seconds=1.0)
    index.close()


def test_a_directory_without_an_index_is_named(tmp_path: Path) -> None:
    with pytest.raises(ChildFailed, match="no SQLite file"):
        find_index(tmp_path)
    database = sqlite3.connect(tmp_path / "index.db")
    database.execute("CREATE TABLE m (id)")
    database.close()
    with pytest.raises(ChildFailed, match="no table"):
        RawIndex(tmp_path / "index.db")
