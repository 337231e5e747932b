"""The whole of `civicnode bench` against a stand-in for a node, small and short."""

import json
import os
import signal
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from cli.bench import run
from cli.bench.asking import Sizes
from cli.bench.errors import BenchMisuse
from cli.bench.figures import SPECS, Group, Verdict, delayed_specs
from cli.bench.report import Report

STANDIN = [sys.executable, "-m", "tests.cli.bench_standin"]
TINY = Sizes(
    small=2_000,
    large=2_000,
    call=500,
    calls_beside_gets=2,
    pool=100,
    questions=100,
    window_s=0.15,
    warmup_s=0.02,
    idle_s=0.1,
    help_runs=1,
    written=40,
    live_writes=5,
    links=1,
    changed=2,
)
ALONE = [group.value for group in Group if group is not Group.SYNC]  # what one node is asked


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where workspaces come to lie, to see that none stays."""
    path = tmp_path / "scratch"
    path.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(path))
    return path


def bench(
    *only: str, fault: str = "", flush_delay_ms: float = 0, json_path: Path | None = None
) -> tuple[Report, str]:
    console = Console(file=StringIO(), width=80)
    command = [*STANDIN, f"--fault={fault}"] if fault else STANDIN
    seen = run(
        rounds=1,
        only=only,
        console=console,
        flush_delay_ms=flush_delay_ms,
        command=command,
        sizes=TINY,
        json_path=json_path,
    )
    assert isinstance(console.file, StringIO)
    return seen, console.file.getvalue()


def faults(seen: Report) -> dict[str, str | None]:
    return {figure.spec.key: figure.fault for figure in seen.sections[0].figures}


def test_a_run_brings_in_every_figure_with_and_without_slow_flushes(tmp_path: Path, scratch: Path) -> None:
    seen, text = bench(*ALONE, flush_delay_ms=5, json_path=tmp_path / "bench.json")
    document = json.loads((tmp_path / "bench.json").read_text())
    assert document == json.loads(json.dumps(seen.document()))
    plain, slow = document["sections"]
    assert [figure["key"] for figure in plain["figures"]] == [spec.key for spec in SPECS]
    assert [figure["key"] for figure in slow["figures"]] == [spec.key for spec in delayed_specs()]
    assert [figure["fault"] for figure in [*plain["figures"], *slow["figures"]] if figure["fault"]] == []
    assert slow["flush_delay_ms"] == 5
    by_key = {figure["key"]: figure for figure in plain["figures"]}
    assert by_key["flushes_per_commit"]["value"]["median"] == 2
    assert by_key["creates_per_commit"]["value"]["median"] == 1
    assert by_key["creates_per_commit"]["verdict"] == Verdict.SHORT
    assert not seen.passed
    slow_floor = slow["figures"][0]["comparison"]["other"]["median"]
    assert slow_floor < 100  # two flushes of 5 ms each
    assert "5 ms added to every flush" in text
    assert list(scratch.iterdir()) == []


def test_only_what_was_asked_for_is_measured() -> None:
    seen, _ = bench("help")
    assert [figure.spec.key for figure in seen.sections[0].figures] == ["status_help"]
    assert len(seen.sections) == 1


@pytest.mark.parametrize(
    ("fault", "group", "key", "reason"),
    [
        ("no-start", "creates", "creates_c1", "written by a newer release"),
        ("rate-limit", "creates", "creates_c1", "429 where 201 is right"),
        ("no-metrics", "creates", "creates_per_commit", "civicnode_bodies_total"),
        ("wrong-total", "query", "third_by_scan", "two answers"),
        ("lost-write", "reads", "get_c1", "1996 records where 2000 were acknowledged"),
    ],
)
def test_a_node_that_misbehaves_fails_its_figures_with_the_reason(
    fault: str, group: str, key: str, reason: str, scratch: Path
) -> None:
    seen, text = bench(group, fault=fault)
    assert reason in (faults(seen)[key] or "")
    assert reason in text.replace("\n", "")
    assert not seen.passed
    assert list(scratch.iterdir()) == []


def test_one_step_that_fails_leaves_the_others_their_figures() -> None:
    seen, _ = bench("creates", "disk", "start", fault="rate-limit")
    missing = {key for key, fault in faults(seen).items() if fault}
    assert missing == {
        "creates_c1",
        "creates_c32",
        "creates_per_commit",
        "flushes_per_commit",
        "disk_creates",
    }


def test_a_node_that_ignores_the_flush_delay_is_caught() -> None:
    seen, _ = bench("creates", fault="no-delay", flush_delay_ms=5)
    assert "does not honour" in (seen.sections[1].figures[0].fault or "")
    assert faults(seen)["creates_c1"] is None


def test_an_unclean_stop_is_remarked() -> None:
    seen, text = bench("creates", fault="unclean-stop")
    assert faults(seen)["creates_c1"] is None
    assert "the node stopped with 7" in text


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"only": ["speed"]}, "creates, disk, help, import, pages, query, reads, start, sync"),
        ({"versus": "mongodb"}, "pocketbase"),
        ({"rounds": 0}, "1 to 50"),
        ({"flush_delay_ms": 101}, "0 to 100 ms"),
    ],
)
def test_what_does_not_exist_is_refused_before_anything_starts(
    arguments: dict[str, object], named: str, scratch: Path
) -> None:
    with pytest.raises(BenchMisuse, match=named):
        run(console=Console(file=StringIO()), **arguments)  # type: ignore[arg-type]
    assert list(scratch.iterdir()) == []


def test_a_termination_takes_children_and_files_along(scratch: Path) -> None:
    code = (
        "import sys; from rich.console import Console; from cli.bench import run; "
        f"run(rounds=50, only=['creates'], console=Console(file=sys.stderr), command={STANDIN!r})"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(scratch)},
    ) as victim:
        while victim.poll() is None and not list(scratch.glob("*/*creates*/owner.token")):
            pass
        victim.send_signal(signal.SIGTERM)
        assert victim.wait(60) == 128 + signal.SIGTERM
    assert list(scratch.iterdir()) == []
