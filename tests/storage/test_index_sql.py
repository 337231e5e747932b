"""SQL by hand: reading is easy, and nothing else is possible."""

from pathlib import Path
from typing import Any

import pytest

from protocol.schema import Field, FieldType, Model
from storage.errors import SqlRefused
from storage.index import Index, Row

TASK = Model(
    "task_1",
    "default",
    "Task",
    {"status": Field("status", FieldType.STRING), "tags": Field("tags", FieldType.SET)},
)
ACCOUNT = Model("_account_1", "default", "$account", {"verifier": Field("verifier", FieldType.STRING)})


@pytest.fixture(params=["file", "memory"])
def index(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    made = Index(str(tmp_path / "index.db") if request.param == "file" else None)
    made.reset(b"store")
    made.ensure_model(TASK)
    made.ensure_model(ACCOUNT)
    made.apply(
        [
            (TASK, Row("a", 1_700_000_000_123, 0, "ann", "v", {"status": "TODO", "tags": ["x", 5]})),
            (TASK, Row("b", 1_700_000_000_000, 0, "ann", "v", {"status": "DONE"})),
            (ACCOUNT, Row("u", 0, 0, "", "v", {"verifier": "secret"})),
        ],
        [],
        1,
    )
    yield made
    made.close()


def test_a_model_is_read_by_its_name(index: Index) -> None:
    assert index.sql("SELECT id, created_at, status FROM Task ORDER BY created_at") == (
        ["id", "created_at", "status"],
        [("b", "2023-11-14T22:13:20.000Z", "DONE"), ("a", "2023-11-14T22:13:20.123Z", "TODO")],
    )


@pytest.mark.parametrize(
    "text",
    [
        "SELECT count(*) FROM Task",
        "SELECT count(*) FROM m_task_1 WHERE f_status = 'TODO' OR 1",
        "WITH t AS (SELECT status FROM Task) SELECT count(*) FROM t",
        "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 2) SELECT max(n) FROM c",
        "SELECT count(*) FROM Task, json_each(tags)",
        "SELECT 2 -- a comment",
        "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 2) SELECT count(*) FROM c",
        "VALUES (2)",
        "SELECT 2;",
    ],
)
def test_any_select_over_models_runs(index: Index, text: str) -> None:
    assert index.sql(text)[1] == [(2,)]


@pytest.mark.parametrize(
    "text",
    [
        "DELETE FROM m_task_1",
        "INSERT INTO m_task_1 (id) VALUES ('c')",
        "UPDATE m_task_1 SET f_status = 'x'",
        "UPDATE m_task_1 SET f_status = 'x' RETURNING id",
        "WITH t AS (SELECT 1) DELETE FROM m_task_1",
        "REPLACE INTO \"$position\" VALUES (1, x'00', 0)",
        "DROP TABLE m_task_1",
        "DROP VIEW Task",
        "CREATE TABLE t (a)",
        "CREATE TEMP TABLE t (a)",
        "CREATE TEMP VIEW t AS SELECT 1",
        "CREATE VIRTUAL TABLE t USING fts5(a)",
        "ALTER TABLE m_task_1 ADD COLUMN x",
        "ATTACH ':memory:' AS other",
        "ATTACH '/tmp/other.db' AS other",
        "DETACH main",
        "VACUUM",
        "VACUUM INTO '/tmp/copy.db'",
        "REINDEX",
        "ANALYZE",
        "BEGIN",
        "COMMIT",
        "SAVEPOINT s",
        "PRAGMA database_list",
        "PRAGMA query_only = OFF",
        "PRAGMA writable_schema = ON",
        "SELECT * FROM pragma_database_list",
        "SELECT file FROM pragma_database_list()",
        "SELECT * FROM pragma_compile_options",
        "SELECT * FROM dbstat",
        "SELECT * FROM sqlite_stmt",
        "SELECT load_extension('x')",
        "SELECT fts3_tokenizer('simple')",
        "SELECT fts3_tokenizer('simple', x'0000000000000000')",
        'SELECT * FROM "$position"',
        'SELECT store_id FROM "$position"',
        'SELECT * FROM "$models"',
        "SELECT * FROM m__account_1",
        'SELECT verifier FROM "$account"',
        "SELECT id FROM Task UNION SELECT f_verifier FROM m__account_1",
        "SELECT (SELECT f_verifier FROM m__account_1)",
        "SELECT count(*) FROM m__account_1",
        'SELECT count(*) FROM "$account"',
        "SELECT count(*) FROM pragma_database_list",
        "SELECT count(*) FROM pragma_module_list",
        "SELECT count(*) FROM dbstat",
        "SELECT count(*) FROM sqlite_stat1",
        "SELECT 1; SELECT 2",
        "SELECT 1; DROP TABLE m_task_1",
        "SELECT zeroblob(1000000000)",
        "SELECT nothing FROM Task",
        "SELECT FROM",
        "",
        "-- nothing",
        "EXPLAIN SELECT load_extension('x')",
        "SELECT 1\0",
        "SELECT '\ud800'",
        "SELECT ?",
        "SELECT CAST(x'ff' AS TEXT)",
        "SELECT " + "(" * 2000 + "1" + ")" * 2000,
        "SELECT '" + "x" * 200_000 + "'",
    ],
)
def test_everything_else_is_refused_and_changes_nothing(index: Index, text: str) -> None:
    with pytest.raises(SqlRefused):
        index.sql(text)
    assert index.check() == []
    assert index.sql("SELECT count(*) FROM Task")[1] == [(2,)]
    index.apply([(TASK, Row("a", 0, 0, "ann", "v", {"status": "again"}))], [], 2)  # the writer is as before


def test_a_query_that_takes_too_long_is_stopped() -> None:
    ticks = iter(range(10**9))
    index = Index(None, monotonic=lambda: next(ticks) / 1000)
    index.reset(b"store")
    endless = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT max(n) FROM c"
    with pytest.raises(SqlRefused, match="took longer than 50 ms"):
        index.sql(endless, timeout_ms=50)
    assert index.sql("SELECT 1") == (["1"], [(1,)])


def test_no_more_rows_come_than_asked_for(index: Index) -> None:
    many = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT n FROM c"
    assert index.sql(many, limit_rows=3)[1] == [(1,), (2,), (3,)]
    assert index.sql("SELECT id FROM Task", limit_rows=0)[1] == []


def test_a_result_that_would_fill_memory_is_refused(index: Index) -> None:
    text = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT zeroblob(3000000) FROM c"
    with pytest.raises(SqlRefused, match="larger than"):
        index.sql(text)


def test_a_name_that_two_models_share_has_no_view(index: Index) -> None:
    other = Model("task_2", "other", "TASK", {"colour": Field("colour", FieldType.STRING)})
    index.ensure_model(other)
    with pytest.raises(SqlRefused, match="no such table"):
        index.sql("SELECT * FROM Task")
    assert index.sql("SELECT count(*) FROM m_task_1")[1] == [(2,)]
    index.drop_model("task_1")
    assert index.sql("SELECT colour FROM task") == (["colour"], [])


@pytest.mark.parametrize("name", ["m__account_1", "sqlite_schema", "sqlite_stat1", "x_task_1", "m_later_1"])
def test_a_model_cannot_take_the_name_of_a_table(index: Index, name: str) -> None:
    index.ensure_model(Model("odd", "default", name, {"verifier": Field("verifier", FieldType.STRING)}))
    index.ensure_model(Model("later_1", "default", "Later", {}))
    with pytest.raises(SqlRefused):
        index.sql("SELECT f_verifier FROM m__account_1")
    assert index.sql("SELECT * FROM m_odd")[1] == []


def test_items_of_a_set_can_be_listed(index: Index) -> None:
    assert sorted(map(str, index.sql("SELECT value FROM Task, json_each(tags)")[1])) == ["('x',)", "(5,)"]
