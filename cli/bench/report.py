"""What a run found out, as a document for programs and as tables for people.

Room: words and layout. The document is plain JSON (`schema` 1); the tables show the same
figures. rich is imported when a table is drawn, so that reading a document costs nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cli.bench.figures import Against, Figure, Spread, Verdict
from cli.bench.machine import FlushLatency

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

SCHEMA = 1
FILE_WIDTH = 180  # columns when the output is no terminal, where nothing needs to wrap
LOAD_AVERAGE_QUIET = 0.5  # runnable tasks in the minute before; more than that disturbs a figure
LOAD_LINE = (
    "load core: the share of a core the load generator took, the larger of both sides; "
    "net: at 1 connection, without the time it took itself"
)


@dataclass(frozen=True, slots=True)
class Section:
    """Figures that belong in one table, measured under one condition."""

    name: str
    title: str
    figures: list[Figure]
    remarks: tuple[str, ...] = ()
    flush_delay_ms: float = 0
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """A whole run. `passed` is whether every target was met and nothing failed."""

    started_at: str
    taken_s: float
    rounds: int
    is_quick: bool
    machine: dict[str, object]
    flushes: list[FlushLatency]
    sections: list[Section]

    @property
    def passed(self) -> bool:
        verdicts = {figure.verdict for section in self.sections for figure in section.figures}
        return verdicts.isdisjoint({Verdict.SHORT, Verdict.FAILED})

    def document(self) -> dict[str, object]:
        """Everything, ready for `json.dumps`."""
        return {
            "schema": SCHEMA,
            "started_at": self.started_at,
            "taken_s": round(self.taken_s, 1),
            "rounds": self.rounds,
            "quick": self.is_quick,
            "passed": self.passed,
            "machine": {
                **self.machine,
                "flush_ms": [
                    {"p50": _rounded(seen.p50_ms), "p99": _rounded(seen.p99_ms)} for seen in self.flushes
                ],
            },
            "sections": [_section(section) for section in self.sections],
        }


def _section(section: Section) -> dict[str, object]:
    return {
        "name": section.name,
        "title": section.title,
        "version": section.version,
        "flush_delay_ms": section.flush_delay_ms,
        "remarks": list(section.remarks),
        "figures": [_figure(figure) for figure in section.figures],
    }


def _figure(figure: Figure) -> dict[str, object]:
    spec = figure.spec
    target = None
    if spec.target is not None:
        target = {
            "of": "comparison" if spec.target.compared else "value",
            "at_least" if spec.target.at_least else "at_most": spec.target.bound,
        }
    comparison = None
    if spec.against is not None:
        comparison = {"how": spec.against.value, "with": spec.other, "other": _spread(figure.other)}
        comparison |= {"result": _spread(figure.compared), "net_of_load": _spread(figure.net)}
    return {
        "key": spec.key,
        "group": spec.group.value,
        "title": figure.title,
        "unit": spec.unit,
        "value": _spread(figure.value),
        "rounds": [_rounded(value) for value in figure.rounds],
        "comparison": comparison,
        "target": target,
        "verdict": figure.verdict.value,
        "fault": figure.fault,
        "latency_ms": {"p50": _spread(figure.p50_ms), "p99": _spread(figure.p99_ms)},
        "load_core_share": _spread(figure.load_core_share),
    }


def _spread(spread: Spread | None) -> dict[str, float] | None:
    if spread is None:
        return None
    return {"median": _rounded(spread.median), "min": _rounded(spread.low), "max": _rounded(spread.high)}


def _rounded(value: float) -> float:
    """Four significant digits: more would be noise."""
    return float(f"{value:.4g}")


def show(report: Report, console: "Console") -> None:
    """Draw the tables, the machine and what has to be said beside them."""
    from rich.text import Text

    width = None if console.is_terminal else max(console.width, FILE_WIDTH)
    for section in report.sections:
        console.print()
        console.print(_table(section), width=width)
        for figure in section.figures:
            if figure.fault is not None:
                console.print(Text(f"  {figure.title}: {figure.fault}", style="red"), width=width)
        for remark in section.remarks:
            console.print(Text(f"  {remark}", style="dim"), width=width)
    kind = (
        "a quick look, the figures are a hint only"
        if report.is_quick
        else f"medians of {report.rounds} round(s)"
    )
    console.print()
    for line in (machine_line(report), LOAD_LINE, f"{kind}; {report.taken_s:.0f} s"):
        console.print(Text(line, style="dim"), width=width)


def machine_line(report: Report) -> str:
    """The machine on one line, with what a flush cost."""
    about = report.machine
    parts = [f"{about.get('cores')} cores", about.get("processor"), about.get("kernel")]
    parts += [f"Python {about.get('python')}", about.get("file_system")]
    flush = Spread.of(seen.p50_ms for seen in report.flushes)
    if flush is not None:
        parts.append(f"4 KiB flush {flush.median:.3f} ms ({flush.low:.3f} to {flush.high:.3f})")
    line = ", ".join(str(part) for part in parts if part)
    busy = about.get("load_average")
    if isinstance(busy, float) and busy > LOAD_AVERAGE_QUIET:
        line += f"; other work kept {busy:.1f} cores busy when it began, so trust shares more than rates"
    if about.get("file_system") == "tmpfs":
        line += "; tmpfs does not flush, set TMPDIR to a directory on a disk"
    return line


def _table(section: Section) -> "Table":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=section.title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False
    )
    table.add_column("figure", no_wrap=True)
    columns: dict[str, Callable[[Figure], str]] = {
        "target": _target,
        "median": lambda figure: _value(figure.value, figure.spec.unit),
        "min to max": _range,
        "held against": _held_against,
        "result": _result,
        "p50 / p99 ms": _latency,
        "load core": lambda figure: _number(figure.load_core_share.median) if figure.load_core_share else "",
    }
    cells = {name: [cell(figure) for figure in section.figures] for name, cell in columns.items()}
    filled = [name for name, texts in cells.items() if any(texts)]
    for name in filled:
        table.add_column(name, justify="right")
    table.add_column("verdict", no_wrap=True)
    styles = {Verdict.PASS: "green", Verdict.SHORT: "yellow", Verdict.FAILED: "red", Verdict.NONE: "dim"}
    for row, figure in enumerate(section.figures):
        verdict = Text(figure.verdict.value, style=styles[figure.verdict])
        table.add_row(figure.title, *(cells[name][row] for name in filled), verdict)
    return table


def _target(figure: Figure) -> str:
    spec = figure.spec
    if spec.target is None:
        return ""
    if not spec.target.compared:
        return f"{spec.target}{_suffix(spec.unit)}"
    return {
        Against.SHARE: f"{spec.target} of it",
        Against.TIMES: f"{spec.target} times it",
        Against.OVER: f"{spec.target}{_suffix(spec.unit)} over it",
        None: str(spec.target),
    }[spec.against]


def _held_against(figure: Figure) -> str:
    if figure.spec.other is None or figure.other is None:
        return ""
    return f"{figure.spec.other}: {_value(figure.other, figure.spec.unit)}"


def _result(figure: Figure) -> str:
    spread = figure.compared
    if spread is None:
        return ""
    match figure.spec.against:
        case Against.SHARE:
            net = f" (net {figure.net.median:.2f})" if figure.net else ""
            return f"{spread.median:.2f}{net}"
        case Against.TIMES:
            return f"{spread.median:.2f} times"
        case Against.OVER:
            return f"{spread.median:+.3f}{_suffix(figure.spec.unit)}"
    return ""


def _latency(figure: Figure) -> str:
    if figure.p50_ms is None or figure.p99_ms is None:
        return ""
    return f"{_number(figure.p50_ms.median)} / {_number(figure.p99_ms.median)}"


def _range(figure: Figure) -> str:
    if figure.value is None or len(figure.rounds) < 2:
        return ""
    return f"{_number(figure.value.low)} to {_number(figure.value.high)}"


def _value(spread: Spread | None, unit: str) -> str:
    return "" if spread is None else f"{_number(spread.median)}{_suffix(unit)}"


def _suffix(unit: str) -> str:
    return {"/s": "/s", "each": "", "times": "×"}.get(unit, f" {unit}")


def _number(value: float) -> str:
    """Three digits that matter, without an exponent."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}" if abs(value) < 1 else f"{value:.2f}"
