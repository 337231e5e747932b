import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.metrics import Metrics


def text(metrics: Metrics) -> str:
    return metrics.render()[0].decode()


def test_counters_are_shown_by_label() -> None:
    metrics = Metrics()
    counter = metrics.counter("jobs_total", "Jobs done", ("kind",))
    counter.add(("fast",))
    counter.add(("fast",), 2)
    counter.add(("slow",))
    assert 'jobs_total{kind="fast"} 3.0' in text(metrics)
    assert 'jobs_total{kind="slow"} 1.0' in text(metrics)
    assert "# TYPE jobs_total counter" in text(metrics)


def test_gauges_are_read_when_asked_for() -> None:
    metrics = Metrics()
    values: dict[tuple[str, ...], float] = {("a",): 1.0}
    metrics.gauge("plain", "One value", lambda: 7)
    metrics.gauge("many", "By label", lambda: values, ("which",))
    assert "plain 7.0" in text(metrics)
    values[("b",)] = 2.0
    assert 'many{which="b"} 2.0' in text(metrics)


def test_histograms_count_up_to_each_bound() -> None:
    metrics = Metrics()
    seconds = metrics.histogram("took", "How long", ("what",), bounds=(0.1, 1.0)).at(("x",))
    for value in (0.05, 0.1, 0.5, 3.0):
        seconds.observe(value)
    shown = text(metrics)
    assert 'took_bucket{le="0.1",what="x"} 2.0' in shown
    assert 'took_bucket{le="1.0",what="x"} 3.0' in shown
    assert 'took_bucket{le="+Inf",what="x"} 4.0' in shown
    assert 'took_sum{what="x"} 3.65' in shown


@given(st.lists(st.floats(0, 20), max_size=50))
def test_a_histogram_loses_nothing(values: list[float]) -> None:
    series = Metrics().histogram("h", "H").at()
    for value in values:
        series.observe(value)
    assert sum(series.counts) == len(values)
    assert series.total == pytest.approx(sum(values))


def test_two_nodes_in_one_process_keep_their_numbers_apart() -> None:
    one, other = Metrics(), Metrics()
    one.counter("x_total", "X").add()
    other.counter("x_total", "X")
    assert "x_total 1.0" in text(one)
    assert "x_total 1.0" not in text(other)


def test_a_name_is_taken_once() -> None:
    metrics = Metrics()
    metrics.counter("x_total", "X")
    with pytest.raises(ValueError, match="x_total"):
        metrics.gauge("x_total", "X", lambda: 1)


def test_the_start_does_not_pay_for_what_a_scrape_needs() -> None:
    code = "import sys, node.api.app, node.metrics, node.logs, node.settings; " + (
        "print(*[name for name in ('prometheus_client', 'jwt', 'structlog', 'rich', 'cryptography') "
        "if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""
