"""The index as its writer and readers use it: rows in, models changed, totals kept, threads at once."""

import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from protocol.query import Query, parse_query
from protocol.schema import Field, FieldType, IndexSpec, Model
from storage.errors import IndexBehind, StorageError, StorageFull
from storage.index import Index, Row


def model_of(*fields: Field, id: str = "task_1", name: str = "Task", **rest: Any) -> Model:
    return Model(id, "default", name, {field.name: field for field in fields}, **rest)


TASK = model_of(
    Field("title", FieldType.STRING),
    Field("email", FieldType.STRING, unique=True),
    Field("points", FieldType.INTEGER, indexed=True),
    Field("tags", FieldType.SET),
    Field("extra", FieldType.JSON),
)


def row(id: str, at_ms: int = 0, **values: Any) -> Row:
    return Row(id, at_ms, at_ms, "ann", "v1", values)


def ids(index: Index, model: Model = TASK, **params: str) -> list[str]:
    return index.query(model, parse_query({"sort": "id", "order": "asc", **params}, model)).ids


@pytest.fixture(params=["file", "memory"])
def index(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    made = Index(str(tmp_path / "index.db") if request.param == "file" else None)
    made.reset(b"store")
    assert made.ensure_model(TASK)
    yield made
    made.close()


def test_a_new_index_has_no_position_and_takes_no_rows() -> None:
    index = Index(None)
    assert index.position() is None
    with pytest.raises(StorageError):
        index.apply([], [], 1)


def test_rows_are_added_replaced_and_deleted_with_the_position(index: Index) -> None:
    index.apply([(TASK, row("a", title="x")), (TASK, row("b"))], [], 7)
    assert (ids(index), index.position()) == (["a", "b"], (b"store", 7))
    index.apply([(TASK, row("a", title="y")), (TASK, row("c"))], [(TASK.id, "b"), (TASK.id, "zz")], 8)
    assert (ids(index), index.position()) == (["a", "c"], (b"store", 8))
    assert ids(index, filter="title:eq:y") == ["a"]
    assert index.check() == []


def test_a_row_that_is_deleted_and_given_is_kept_and_the_last_of_two_counts(index: Index) -> None:
    rows = [(TASK, row("a", title="x")), (TASK, row("a", title="y"))]
    index.apply(rows, [(TASK.id, "a")], 1)
    assert ids(index, filter="title:eq:y") == ["a"]
    assert index.query(TASK, Query()).total == 1


def test_totals_follow_every_change(index: Index) -> None:
    def totals() -> tuple[int, int]:
        filtered = parse_query({"filter": "points:gt:5"}, TASK)
        return index.query(TASK, Query()).total, index.query(TASK, filtered).total

    assert totals() == (0, 0)
    index.apply([(TASK, row(f"r{n}", points=n)) for n in range(10)], [], 1)
    assert totals() == totals() == (10, 4)
    index.apply([(TASK, row("r9", points=0)), (TASK, row("new", points=9))], [(TASK.id, "r0")], 2)
    assert totals() == (10, 4)
    index.apply([], [(TASK.id, "r8")], 3)
    assert totals() == (9, 3)


def test_a_failed_batch_changes_nothing(index: Index) -> None:
    index.apply([(TASK, row("a"))], [], 1)
    unknown = model_of(id="unknown")
    with pytest.raises(IndexBehind):
        index.apply([(TASK, row("b")), (unknown, row("c"))], [(TASK.id, "a")], 2)
    assert (ids(index), index.position()) == (["a"], (b"store", 1))


def test_deletes_of_a_dropped_model_are_ignored(index: Index) -> None:
    index.drop_model(TASK.id)
    index.drop_model(TASK.id)
    index.apply([], [(TASK.id, "a")], 1)
    with pytest.raises(IndexBehind):
        index.query(TASK, Query())


def test_a_value_that_sqlite_cannot_hold_does_not_stop_the_rest(index: Index) -> None:
    odd = [2**70, b"bytes", [1], {"a": 1}, "\ud800", object(), 10**400]
    rows = [(TASK, row(f"r{n}", title="x", points=value, email=value)) for n, value in enumerate(odd)]
    rows += [
        (TASK, row("s", tags=[object()], extra={"a": object()})),
        (TASK, row("t", tags="x", extra="\ud800")),
    ]
    index.apply(rows, [], 1)
    assert index.query(TASK, Query()).total == len(rows)
    assert len(ids(index, filter="title:eq:x")) == len(odd)


def test_a_unique_value_is_found_wherever_it_is_but_at_home(index: Index) -> None:
    index.apply([(TASK, row("a", email="e@x")), (TASK, row("b", email=None))], [], 1)
    assert index.find_unique(TASK, "email", "e@x") == "a"
    assert index.find_unique(TASK, "email", "e@x", except_id="a") is None
    assert index.find_unique(TASK, "email", "E@x") is None
    assert index.find_unique(TASK, "email", None) is None
    assert index.find_unique_together(TASK, ("email", "created_by"), ("e@x", "ann")) == "a"
    assert index.find_unique_together(TASK, ("email", "created_by"), ("e@x", "bob")) is None


def test_reset_forgets_rows_models_and_position(index: Index) -> None:
    index.apply([(TASK, row("a"))], [], 5)
    index.reset(b"other")
    assert index.position() == (b"other", 0)
    with pytest.raises(IndexBehind):
        index.query(TASK, Query())
    assert index.ensure_model(TASK)
    assert ids(index) == []


def test_everything_is_there_after_opening_again(tmp_path: Path) -> None:
    path = str(tmp_path / "index.db")
    index = Index(path)
    index.reset(b"store")
    index.ensure_model(TASK)
    index.apply([(TASK, row("a", points=3))], [], 4)
    index.close()
    index.close()
    again = Index(path)
    assert again.position() == (b"store", 4)
    assert ids(again, filter="points:eq:3") == ["a"]
    assert not again.ensure_model(TASK)
    assert again.query(TASK, Query()).total == 1
    again.close()
    with pytest.raises(StorageError):
        again.query(TASK, Query())


def test_a_crash_leaves_the_last_batch_wholly_or_not_at_all(tmp_path: Path) -> None:
    """The files as a killed process leaves them: the log not folded in."""
    index = Index(str(tmp_path / "index.db"))
    index.reset(b"store")
    index.ensure_model(TASK)
    index.apply([(TASK, row(f"r{n}")) for n in range(500)], [], 500)
    file, log = ((tmp_path / f"index.db{part}").read_bytes() for part in ("", "-wal"))
    index.close()
    seen = set()
    for kept in (len(log), len(log) - 100, len(log) - 5000, len(log) // 2):
        directory = tmp_path / str(kept)
        directory.mkdir()
        (directory / "index.db").write_bytes(file)
        (directory / "index.db-wal").write_bytes(log[:kept])
        again = Index(str(directory / "index.db"))
        assert again.position() in ((b"store", 500), (b"store", 0), None)
        seen.add(again.position())
        if again.position() == (b"store", 500):
            assert again.query(TASK, Query()).total == len(ids(again, per_page="100")) * 5 == 500
        assert again.check() == []
        again.close()
    assert {(b"store", 500), (b"store", 0)} <= seen


def test_a_full_disk_keeps_what_was_there_and_writing_resumes(tmp_path: Path) -> None:
    index = Index(str(tmp_path / "index.db"))
    index.reset(b"store")
    index.ensure_model(TASK)
    index.apply([(TASK, row("a"))], [], 1)
    writer = index._writer.take()
    writer.execute("PRAGMA max_page_count = 60")  # as if the disk were full there
    index._writer.give_back(writer)
    with pytest.raises(StorageFull):
        index.apply([(TASK, row(f"r{n}", title="x" * 1000)) for n in range(500)], [], 2)
    assert (ids(index), index.position()) == (["a"], (b"store", 1))
    writer.execute("PRAGMA max_page_count = 100000")
    index.apply([(TASK, row(f"r{n}", title="x" * 1000)) for n in range(500)], [], 2)
    assert index.query(TASK, Query()).total == 501
    assert index.check() == []
    index.close()


def test_only_its_owner_may_read_the_file(tmp_path: Path) -> None:
    index = Index(str(tmp_path / "index.db"))
    index.reset(b"store")
    assert {file.stat().st_mode & 0o777 for file in tmp_path.glob("index.db*")} == {0o600}
    index.close()


def test_a_directory_that_is_not_there_is_no_damage(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as raised:
        Index(str(tmp_path / "missing" / "index.db"))
    assert type(raised.value) is StorageError


# --- models that change ----------------------------------------------------------------------------


def index_names(index: Index) -> set[str]:
    _, rows = index.sql("SELECT sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL")
    found = {str(sql).split(" ON ")[1] for (sql,) in rows}
    return {text for text in found if text.startswith('"m_')}


def test_new_fields_add_columns_and_keep_the_rows(index: Index) -> None:
    index.apply([(TASK, row("a", title="x"))], [], 1)
    grown = model_of(
        Field("colour", FieldType.STRING, indexed=True),
        *TASK.fields.values(),
        indexes=(IndexSpec((("points", -1), ("title", 1))),),
    )
    assert not index.ensure_model(grown)
    assert not index.ensure_model(grown)
    index.apply([(grown, row("b", colour="red", title="y"))], [], 2)
    assert ids(index, grown, filter="colour:eq:red") == ["b"]
    assert ids(index, grown, filter="title:in:x;y") == ["a", "b"]
    assert index.query(grown, Query()).total == 2
    assert index.check() == []


def test_indexes_come_and_go_with_the_definition(index: Index) -> None:
    assert index_names(index) == {
        '"m_task_1" (created_at, id)',
        '"m_task_1" ("f_email", id)',
        '"m_task_1" ("f_points", id)',
    }
    fields = [Field("title", FieldType.STRING, indexed=True), *list(TASK.fields.values())[1:]]
    specs = (IndexSpec((("points", -1),)), IndexSpec((("title", 1), ("points", -1))))
    changed = model_of(*[Field(f.name, f.type, indexed=f.name == "title") for f in fields], indexes=specs)
    assert not index.ensure_model(changed)
    assert index_names(index) == {
        '"m_task_1" (created_at, id)',
        '"m_task_1" ("f_title", id)',
        '"m_task_1" ("f_points", id)',
        '"m_task_1" ("f_title", "f_points" DESC, id DESC)',
    }


@pytest.mark.parametrize("change", ["removed", "retyped"])
def test_a_field_that_is_gone_or_of_another_type_means_reading_all_again(index: Index, change: str) -> None:
    index.apply([(TASK, row("a", points=1))], [], 1)
    fields = [field for field in TASK.fields.values() if field.name != "points"]
    if change == "retyped":
        fields.append(Field("points", FieldType.STRING))
    changed = model_of(*fields)
    assert index.ensure_model(changed)
    assert index.query(changed, Query()).total == 0
    index.apply([(changed, row("a", title="x"))], [], 2)
    assert ids(index, changed) == ["a"]
    assert index.check() == []


def test_fields_may_have_the_names_of_sql(index: Index) -> None:
    odd = model_of(
        *[Field(name, FieldType.STRING, indexed=True) for name in ("select", "order", "rowid", "f_x", "x")],
        id="odd_1",
        name="Group-By",
    )
    assert index.ensure_model(odd)
    index.apply([(odd, row("a", select="s", order="o", rowid="r", f_x="1", x="2"))], [], 1)
    assert ids(index, odd, filter="select:eq:s,order:eq:o,rowid:eq:r,f_x:eq:1,x:eq:2") == ["a"]
    assert index.sql('SELECT "select", x FROM "Group-By"') == (["select", "x"], [("s", "2")])


def test_the_doctor_names_every_row_that_differs(index: Index) -> None:
    rows = [row(f"r{n}", title="é", points=n, tags=["b", 1], extra={"a": [None]}) for n in range(5)]
    index.apply([(TASK, r) for r in rows], [], 1)
    assert index.differences(TASK, rows) == []
    changed = [rows[0]._replace(values={"title": "e"}), *rows[1:4], row("r9")]
    assert index.differences(TASK, changed) == ["r0 differs", "r9 is missing", "r4 is too many"]


def test_erased_content_is_in_no_file_once_the_log_is_truncated(tmp_path: Path) -> None:
    index = Index(str(tmp_path / "index.db"))
    index.reset(b"store")
    index.ensure_model(TASK)
    index.apply([(TASK, row("a", title="unforgettable " * 200, email="secret@x")), (TASK, row("b"))], [], 1)
    index.apply([], [(TASK.id, "a")], 2)
    assert index.truncate_log()
    for file in tmp_path.glob("index.db*"):
        content = file.read_bytes()
        assert b"unforgettable" not in content
        assert b"secret@x" not in content
    index.close()


# --- threads ---------------------------------------------------------------------------------------


def test_readers_see_whole_batches_while_the_writer_applies(index: Index) -> None:
    """Each batch moves one mark from record to record: a reader that sees half of one sees 0 or 2."""
    batches, failures = 100, list[object]()
    marked = parse_query({"filter": "title:eq:mark"}, TASK)
    index.apply([(TASK, row(f"r{n}", title="mark" if n == 0 else "")) for n in range(20)], [], 1)

    def read() -> None:
        try:
            for _ in range(100):
                page = index.query(TASK, marked)
                if len(page.ids) != 1:
                    failures.append(page)
                if index.query(TASK, Query(per_page=100)).ids != sorted(
                    (f"r{n}" for n in range(20)), reverse=True
                ):
                    failures.append("rows")
        except Exception as error:
            failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for n in range(batches):
        old, new = f"r{n % 20}", f"r{(n + 1) % 20}"
        index.apply([(TASK, row(old, title="")), (TASK, row(new, title="mark"))], [], n + 2)
    for reader in readers:
        reader.join()
    assert failures == []


def test_a_model_may_be_dropped_and_made_anew_under_readers(index: Index) -> None:
    failures: list[Exception] = []
    done = threading.Event()
    other = model_of(Field("title", FieldType.INTEGER))

    def read() -> None:
        while not done.is_set():
            try:
                index.query(TASK, parse_query({"filter": "title:ne:x"}, TASK))
            except IndexBehind:
                pass
            except Exception as error:
                failures.append(error)
                return

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for n in range(20):
        index.drop_model(TASK.id)
        index.ensure_model(TASK)
        index.apply([(TASK, row("a"))], [], n)
        index.ensure_model(other)
        index.ensure_model(TASK)
    done.set()
    for reader in readers:
        reader.join()
    assert failures == []


def test_closing_waits_for_a_running_query(tmp_path: Path) -> None:
    index = Index(str(tmp_path / "index.db"), readers=1)
    connection = index._readers.take()
    closer = threading.Thread(target=index.close)
    closer.start()
    connection.execute("SELECT 1")
    index._readers.give_back(connection)
    closer.join()
    with pytest.raises(sqlite3.ProgrammingError):
        connection.execute("SELECT 1")
