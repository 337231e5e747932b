"""Records into a node and out of it again."""

import csv
import io
import json
from pathlib import Path

import pytest

from cli import importer
from cli.errors import Interrupted
from tests.cli.conftest import Run
from tests.cli.fake_node import FakeNode

PEOPLE = [{"id": "a", "name": "Ada", "age": 36}, {"id": "b", "name": "Bob", "age": 50}]


@pytest.fixture
def people(tmp_path: Path) -> Path:
    path = tmp_path / "people.json"
    path.write_text(json.dumps(PEOPLE))
    return path


def test_a_file_makes_a_model_and_its_records(node: FakeNode, run: Run, people: Path) -> None:
    result = run("import", str(people), "--model", "Person", "--create-model", "--index", "age", "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert (document["schema"], document["created"], document["failed"]) == (1, 2, 0)
    assert node.models["Person"]["fields"] == [
        {"name": "name", "type": "string"},
        {"name": "age", "type": "integer", "indexed": True},
    ]
    assert node.records["Person"]["a"] == {"name": "Ada", "age": 36}


def test_standard_input_is_read_like_a_file(node: FakeNode, run: Run) -> None:
    result = run("import", "-", "--model", "Person", "--create-model", stdin="name,age\nAda,36\n")
    assert result.exit_code == 0, result.stderr
    assert list(node.records["Person"].values()) == [{"name": "Ada", "age": 36}]


def test_a_dry_run_shows_the_plan_and_changes_nothing(node: FakeNode, run: Run, people: Path) -> None:
    result = run("import", str(people), "--model", "Person", "--create-model", "--dry-run")
    assert result.exit_code == 0, result.stderr
    assert "would be made, and would get 2 records" in result.stdout
    assert {method for method, _, _ in node.requests} == {"GET"}
    document = json.loads(
        run("import", str(people), "--model", "P", "--create-model", "--dry-run", "--json").stdout
    )
    assert document["schema"] == 1
    assert document["definition"]["fields"][0]["name"] == "name"


def test_a_dry_run_names_the_records_that_the_model_would_refuse(
    node: FakeNode, run: Run, tmp_path: Path
) -> None:
    node.models["N"] = {"name": "N", "fields": [{"name": "n", "type": "integer"}]}
    (tmp_path / "n.ndjson").write_text('{"n": 1}\n{"n": "x", "m": 2}\n{"id": "a/b", "n": 3}\n')
    result = run("import", str(tmp_path / "n.ndjson"), "--model", "N", "--dry-run")
    assert result.exit_code == 1
    assert "line 2: " in result.stderr and "m: " in result.stderr and "n: " in result.stderr
    assert "line 3: id: an id is" in result.stderr
    assert "would get 1 record;" in result.stdout
    assert node.records == {}


def test_a_model_is_neither_made_unasked_nor_made_twice(node: FakeNode, run: Run, people: Path) -> None:
    result = run("import", str(people), "--model", "Person")
    assert result.exit_code == 1 and "add --create-model" in result.stderr
    node.models["Person"] = {"name": "Person", "fields": []}
    result = run("import", str(people), "--model", "Person", "--create-model")
    assert result.exit_code == 1 and "leave out --create-model" in result.stderr
    assert node.records == {}


def test_cells_become_what_the_existing_model_says(node: FakeNode, run: Run, tmp_path: Path) -> None:
    fields = [
        {"name": "zip", "type": "string"},
        {"name": "ok", "type": "boolean"},
        {"name": "n", "type": "number"},
    ]
    node.models["Place"] = {"name": "Place", "fields": fields}
    (tmp_path / "places.csv").write_text("zip,ok,n\n53111,yes,3\n")
    result = run("import", str(tmp_path / "places.csv"), "--model", "Place")
    assert result.exit_code == 0, result.stderr
    assert list(node.records["Place"].values()) == [{"zip": "53111", "ok": True, "n": 3}]


def test_refused_records_are_counted_and_named_and_the_others_stay(
    node: FakeNode, run: Run, tmp_path: Path
) -> None:
    node.models["N"] = {"name": "N", "fields": [{"name": "n", "type": "integer"}]}
    lines = ['{"n": 1}', '{"n": "x", "m": 2}', '{"n": "\\ud800"}', '{"n": 4}']
    (tmp_path / "n.ndjson").write_text("\n".join(lines))
    result = run("import", str(tmp_path / "n.ndjson"), "--model", "N")
    assert result.exit_code == 1
    assert "line 2: m: Unknown field; n: Must be an integer" in result.stderr
    assert "line 3: its text holds half of a surrogate pair" in result.stderr
    assert "2 of 4 records were not created" in result.stderr
    assert len(node.records["N"]) == 2


def test_a_damaged_file_changes_nothing(node: FakeNode, run: Run, tmp_path: Path) -> None:
    (tmp_path / "n.ndjson").write_text('{"n": 1}\n{"n": ')
    result = run("import", str(tmp_path / "n.ndjson"), "--model", "N", "--create-model")
    assert result.exit_code == 1 and "line 2" in result.stderr
    assert node.requests == []


def test_a_node_that_stops_taking_records_leaves_a_count(
    node: FakeNode, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importer, "BATCH_MAX_RECORDS", 2)
    answer = node.answer

    def full_after_two(method: str, path: str, query: dict[str, str], body: object) -> tuple[int, object]:
        if path == "/v1/batch" and len(node.records.get("N", {})) >= 2:
            return 507, {"error": "The node's disk is full", "error_code": "STORAGE_FULL"}
        return answer(method, path, query, body)

    monkeypatch.setattr(node, "answer", full_after_two)
    (tmp_path / "n.csv").write_text("n\n" + "".join(f"{n}\n" for n in range(7)))
    result = run("import", str(tmp_path / "n.csv"), "--model", "N", "--create-model")
    assert result.exit_code == 1
    assert result.stderr == (
        "Error: after 2 records were created: The node's disk is full "
        "(free some space on the node's disk; it takes writes again by itself)\n"
    )


def test_batches_are_bounded_in_records_and_in_bytes(
    node: FakeNode, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importer, "BATCH_MAX_RECORDS", 3)
    monkeypatch.setattr(importer, "BATCH_MAX_BYTES", 1000)
    (tmp_path / "t.csv").write_text("t\n" + "x\n" * 7 + ("y" * 2000 + "\n") * 2)
    assert run("import", str(tmp_path / "t.csv"), "--model", "T", "--create-model").exit_code == 0
    sizes = [len(body["operations"]) for _, path, body in node.requests if path == "/v1/batch"]
    assert sizes == [3, 3, 2, 1]


@pytest.fixture
def filled(node: FakeNode) -> FakeNode:
    fields = [
        {"name": "name", "type": "string"},
        {"name": "tags", "type": "set"},
        {"name": "ok", "type": "boolean"},
    ]
    node.models["Thing"] = {"name": "Thing", "fields": fields}
    node.records["Thing"] = {f"r{n:04d}": {"name": f"n,{n}", "tags": ["a"], "ok": True} for n in range(250)}
    return node


@pytest.mark.parametrize("name", ["things.json", "things.ndjson", "things.csv"])
def test_an_export_holds_every_record_and_can_be_imported_again(
    filled: FakeNode, run: Run, tmp_path: Path, name: str
) -> None:
    target = tmp_path / name
    document = json.loads(run("export", str(target), "--model", "Thing", "--json").stdout)
    assert (document["schema"], document["exported"]) == (1, 250)
    before = filled.records.pop("Thing")
    result = run("import", str(target), "--model", "Thing")
    assert result.exit_code == 0, result.stderr
    assert filled.records["Thing"] == before
    assert list(tmp_path.glob(".things*")) == []


def test_an_export_to_standard_output_is_the_records_alone(filled: FakeNode, run: Run) -> None:
    assert len(json.loads(run("export", "--model", "Thing").stdout)) == 250
    rows = list(csv.DictReader(io.StringIO(run("export", "--model", "Thing", "--format", "csv").stdout)))
    assert rows[249] == {
        "id": "r0249",
        "name": "n,249",
        "tags": '["a"]',
        "ok": "true",
        "created_at": "2026-01-01T00:00:00.000Z",
        "updated_at": "",
        "created_by": "",
        "version": "v1",
    }


def test_an_empty_model_exports_as_an_empty_array(filled: FakeNode, run: Run) -> None:
    filled.records["Thing"] = {}
    assert json.loads(run("export", "--model", "Thing").stdout) == []


def test_an_export_of_an_unknown_model_names_those_there_are(filled: FakeNode, run: Run) -> None:
    result = run("export", "--model", "Thign")
    assert result.exit_code == 1
    assert "there are: Thing" in result.stderr


def test_a_failed_export_leaves_the_old_file(filled: FakeNode, run: Run, tmp_path: Path) -> None:
    target = tmp_path / "things.json"
    target.write_text("old")
    filled.records["Thing"] = {"x": {"name": "a"}}
    answer = filled.answer

    def broken(method: str, path: str, query: dict[str, str], body: object) -> tuple[int, object]:
        return (500, {"error": "Broken"}) if path == "/v1/data/Thing" else answer(method, path, query, body)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filled, "answer", broken)
        assert run("export", str(target), "--model", "Thing").exit_code == 1
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["things.json"]


def test_an_interrupted_import_says_what_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(importer, "_settle", interrupt)
    with pytest.raises(Interrupted, match="at least 0 of the records were created, and stay") as caught:
        importer.send(None, "Person", [("record 1", {"id": "a"})])  # type: ignore[arg-type]
    assert caught.value.exit_code == 130


def test_the_rate_of_a_handful_is_not_told(node: FakeNode, run: Run, people: Path) -> None:
    people.write_text(json.dumps(PEOPLE[:1]))
    result = run("import", str(people), "--model", "Person", "--create-model")
    assert result.stdout == "created 1 record of Person\n"
