import json
from io import StringIO

from rich.console import Console

from cli.bench.figures import SPECS, Ledger, Sample
from cli.bench.machine import FlushLatency
from cli.bench.report import Report, Section, show


def report(*, is_short: bool = False) -> Report:
    held = Ledger(SPECS, {"small": "10,000", "large": "100,000", "call": "1,000"})
    for _ in range(2):
        for spec in SPECS:
            value = 1e-9 if is_short else 23456.789
            if spec.target is not None and not spec.target.at_least and not is_short:
                value = 0.123456789
            held.add(spec.key, Sample(value, 1.0, 0.4, 0.25, 0.75, 0.5))
    return Report(
        started_at="2025-01-01T00:00:00+00:00",
        taken_s=12.34,
        rounds=2,
        is_quick=False,
        machine={"cores": 2, "kernel": "Linux 6", "python": "3.11.7", "file_system": "ext4"},
        flushes=[FlushLatency(0.03, 0.1), FlushLatency(0.05, 0.1)],
        sections=[Section("civicnode", "civicnode", held.summary(), ("a remark",))],
    )


def drawn(shown: Report) -> str:
    console = Console(file=StringIO(), width=80)
    show(shown, console)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_the_document_is_plain_json_with_a_schema_number() -> None:
    document = json.loads(json.dumps(report().document()))
    assert document["schema"] == 1
    assert document["passed"] is True
    assert document["machine"]["flush_ms"] == [{"p50": 0.03, "p99": 0.1}, {"p50": 0.05, "p99": 0.1}]
    [section] = document["sections"]
    figures = {figure["key"]: figure for figure in section["figures"]}
    assert set(figures) == {spec.key for spec in SPECS}
    assert figures["creates_c1"] == {
        "key": "creates_c1",
        "group": "creates",
        "title": "creates, 1 conn.",
        "unit": "/s",
        "value": {"median": 23460.0, "min": 23460.0, "max": 23460.0},
        "rounds": [23460.0, 23460.0],
        "comparison": {
            "how": "share of",
            "with": "bare POST",
            "other": {"median": 1.0, "min": 1.0, "max": 1.0},
            "result": {"median": 23460.0, "min": 23460.0, "max": 23460.0},
            "net_of_load": {"median": 0.4, "min": 0.4, "max": 0.4},
        },
        "target": {"of": "comparison", "at_least": 0.4},
        "verdict": "pass",
        "fault": None,
        "latency_ms": {
            "p50": {"median": 0.25, "min": 0.25, "max": 0.25},
            "p99": {"median": 0.75, "min": 0.75, "max": 0.75},
        },
        "load_core_share": {"median": 0.5, "min": 0.5, "max": 0.5},
    }
    assert figures["disk_import"]["target"] == {"of": "value", "at_most": 7}


def test_the_table_shows_every_figure_on_a_line_with_its_verdict() -> None:
    shown = report()
    lines = drawn(shown).splitlines()
    for figure in shown.sections[0].figures:
        [line] = [line for line in lines if line.strip().startswith(figure.title)]
        assert line.rstrip().endswith(figure.verdict.value)
    assert any("a remark" in line for line in lines)
    assert any("4 KiB flush 0.040 ms (0.030 to 0.050)" in line for line in lines)


def test_one_figure_that_falls_short_fails_the_run() -> None:
    short = report(is_short=True)
    assert not short.passed
    assert "falls short" in drawn(short)


def test_a_missing_figure_says_why_below_the_table() -> None:
    held = Ledger(SPECS[:1])
    held.fail([SPECS[0].key], "the node did not start", counts={})
    shown = report()
    failed = Report(
        shown.started_at,
        1.0,
        1,
        True,
        {"file_system": "tmpfs", "load_average": 1.5},
        [],
        [Section("civicnode", "civicnode", held.summary())],
    )
    assert not failed.passed
    text = drawn(failed)
    assert "creates, 1 conn.: the node did not start" in text
    assert "a hint only" in text
    assert "set TMPDIR" in text
    assert "1.5 cores busy" in text
