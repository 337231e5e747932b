from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.bench import peers, rounds
from cli.bench.figures import (
    SPECS,
    VERSUS_SPECS,
    Against,
    Group,
    Ledger,
    Sample,
    Spec,
    Spread,
    Target,
    Verdict,
    delayed_specs,
    net_share,
)
from cli.bench.peer_figures import PEER_SPECS

SHARE = Spec("share", Group.READS, "share", "/s", Target(0.5, True, compared=True), Against.SHARE, "bare")
PLAIN = Spec("plain", Group.IMPORT, "import of {large}", "/s", Target(100, True))
OVER = Spec("over", Group.START, "start", "s", Target(0.2, False, compared=True), Against.OVER, "empty")
FREE = Spec("free", Group.PAGES, "page", "/s")


def ledger() -> Ledger:
    return Ledger((SHARE, PLAIN, OVER, FREE), {"large": "100,000"})


def verdict_of(held: Ledger, key: str) -> Verdict:
    return next(figure.verdict for figure in held.summary() if figure.spec.key == key)


def test_a_share_is_the_median_of_the_shares_of_each_round() -> None:
    held = ledger()
    for value, other in ((10, 40), (60, 100), (100, 100)):
        held.add("share", Sample(value, other))
    figure = held.summary()[0]
    assert figure.value == Spread(60, 10, 100)
    assert figure.other == Spread(100, 40, 100)
    assert figure.compared == Spread(0.6, 0.25, 1.0)
    assert figure.verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("key", "sample", "expected"),
    [
        ("share", Sample(49, 100), Verdict.SHORT),
        ("share", Sample(50, 100), Verdict.PASS),
        ("share", Sample(50, 0), Verdict.FAILED),
        ("share", Sample(50), Verdict.FAILED),
        ("plain", Sample(99.9), Verdict.SHORT),
        ("plain", Sample(100), Verdict.PASS),
        ("over", Sample(0.7, 0.4), Verdict.SHORT),
        ("over", Sample(0.59, 0.4), Verdict.PASS),
        ("free", Sample(1), Verdict.NONE),
    ],
)
def test_a_bound_is_on_the_value_or_on_what_it_is_held_against(
    key: str, sample: Sample, expected: Verdict
) -> None:
    held = ledger()
    held.add(key, sample)
    assert verdict_of(held, key) is expected


def test_a_figure_without_a_sample_has_failed_and_says_so() -> None:
    assert {figure.fault for figure in ledger().summary()} == {"not measured"}


def test_a_fault_marks_what_its_round_did_not_bring_in_and_nothing_else() -> None:
    held = ledger()
    held.add("plain", Sample(200))
    held.add("share", Sample(1, 1))
    counts = held.taken()
    held.add("share", Sample(1, 1))
    held.fail(["share", "plain"], "it did not start", counts=counts)
    faults = {figure.spec.key: figure.fault for figure in held.summary()}
    assert faults == {
        "share": None,
        "plain": "it did not start",
        "over": "not measured",
        "free": "not measured",
    }
    assert held.remarks == []


def test_a_fault_after_everything_was_measured_is_a_remark() -> None:
    held = ledger()
    held.add("share", Sample(1, 1))
    for _ in range(2):
        held.fail(["share"], "it did not stop", counts={})
    assert verdict_of(held, "share") is Verdict.PASS
    assert held.remarks == ["it did not stop"]


def test_samples_of_figures_that_were_not_asked_for_are_dropped() -> None:
    held = ledger()
    held.add("unasked", Sample(1))
    assert held.taken() == {}
    assert held.last("unasked") is None


def test_titles_name_the_sizes() -> None:
    assert ledger().summary()[1].title == "import of 100,000"


@given(
    rate=st.floats(100, 1e5),
    other=st.floats(100, 1e5),
    work_us=st.floats(0, 9),
)
def test_the_share_without_the_load_is_that_of_the_servers_own_times(
    rate: float, other: float, work_us: float
) -> None:
    ours, floor = 1 / (1 / rate + work_us / 1e6), 1 / (1 / other + work_us / 1e6)
    net = net_share((ours, ours * work_us / 1e6), (floor, floor * work_us / 1e6))
    assert net == pytest.approx(rate / other)


def test_no_share_without_the_load_when_the_load_was_everything() -> None:
    assert net_share((100, 1.0), (100, 0.1)) is None
    assert net_share((0, 0.1), (100, 0.1)) is None


def test_every_figure_has_a_key_of_its_own_and_every_group_a_figure() -> None:
    every = (*SPECS, *PEER_SPECS)
    assert len({spec.key for spec in every}) == len(every)
    assert {spec.group for spec in every} == set(Group)
    for spec in (*every, *VERSUS_SPECS):
        assert (spec.against is None) == (spec.other is None)
        assert spec.target is None or not spec.target.compared or spec.against is not None


def test_every_figure_is_brought_in_by_some_step_that_can_fail() -> None:
    steps = (
        rounds._CREATES,
        rounds._READS,
        rounds._PAGES,
        rounds._IMPORTS,
        rounds._LARGE_ONCE,
        rounds._LARGE,
    )
    keys = [*chain.from_iterable(steps), "status_help"]
    assert sorted(keys) == sorted(spec.key for spec in SPECS)
    between = ["sync_import", *peers._EVERYTHING]
    assert sorted(between) == sorted(spec.key for spec in PEER_SPECS)
    assert set(peers._EVERYTHING).issuperset((*peers._LINKS, *peers._LIVE))


def test_slow_flushes_keep_the_shares_and_drop_the_bounds_in_records_a_second() -> None:
    slow = {spec.key: spec.target for spec in delayed_specs()}
    assert slow["import_c1"] is None
    assert slow["creates_c32"] == Target(0.80, True, compared=True)
    assert slow["creates_per_commit"] == Target(12, True)
