"""The figures of synchronisation, from real nodes, few records and one round."""

import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from cli.bench import run
from cli.bench.figures import Figure, Verdict
from cli.bench.peer_figures import PEER_SPECS
from tests.cli.test_bench import STANDIN, TINY


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "scratch"
    path.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(path))
    return path


def figures(command: list[str] | None, json_path: Path | None = None) -> tuple[dict[str, Figure], str]:
    console = Console(file=StringIO(), width=120)
    seen = run(rounds=1, only=["sync"], console=console, command=command, sizes=TINY, json_path=json_path)
    (section,) = seen.sections
    assert section.name == "civicnode-peers"
    assert isinstance(console.file, StringIO)
    return {figure.spec.key: figure for figure in section.figures}, console.file.getvalue()


def median(figure: Figure) -> float:
    assert figure.value is not None
    return figure.value.median


def test_every_figure_is_measured_on_nodes_that_end_up_with_the_same(tmp_path: Path, scratch: Path) -> None:
    found, text = figures(None, tmp_path / "bench.json")
    assert {key: figure.fault for key, figure in found.items() if figure.fault} == {}
    assert list(found) == [spec.key for spec in PEER_SPECS]
    document = json.loads((tmp_path / "bench.json").read_text())
    assert [figure["key"] for figure in document["sections"][0]["figures"]] == list(found)
    assert "40 records written singly on three nodes" in text
    # What does not depend on how fast a machine is holds for few records too.
    assert found["in_sync_bytes"].verdict is Verdict.PASS
    assert median(found["in_sync_turns"]) in (0.5, 1)  # two flights that cross are one
    assert median(found["catch_up_plain"]) > median(found["catch_up_deflated"]) > 0
    assert found["resync_bytes"].verdict is Verdict.PASS
    assert list(scratch.iterdir()) == []


def test_nodes_that_do_not_sync_fail_every_figure_but_the_import(scratch: Path) -> None:
    found, _ = figures(STANDIN)
    faults = {key: figure.fault for key, figure in found.items()}
    assert faults.pop("sync_import") is None
    assert all(fault and "404" in fault for fault in faults.values())
    assert list(scratch.iterdir()) == []
