"""A window that is planned while the one before it is written, and when that plan does not hold."""

import pytest

from protocol.exchange import EVERYTHING, IntegrateWindow, WindowIntegrated
from protocol.packing import pack_window
from protocol.window import Run
from storage.exchange import unpacked
from storage.windows import SLICE_BODIES_MAX, SLICES_TOGETHER_MAX, Planner, together
from tests.protocol.dialogue import NOW_MS, Record, pair

NAMES = ("system", "app/default")


def run_of(author: Record, application: str | None, after: int = 0, until: int | None = None) -> Run:
    space = author.store.system if application is None else author.store.space(application)
    chain = author.store.names.chain(space, author.author)
    assert chain is not None
    with author.store.read() as snapshot:
        found = list(snapshot.log.commits(chain, after_seq=after))
    return Run(tuple(found[: None if until is None else until - after]))


def take_in(record: Record, *runs: Run, ahead: Run | None = None) -> WindowIntegrated:
    """Take a window in; the next one is planned before the first change of this one is written."""
    steps = record.exchange.integrate(IntegrateWindow(b"", NAMES, EVERYTHING), list(runs))
    try:
        changes = next(steps)
        if ahead is not None:
            record.exchange.prepare([ahead])
        while True:
            changes = steps.send([record.integrator.write_one(change, NOW_MS) for change in changes])
    except StopIteration as end:
        answer: WindowIntegrated = end.value
        return answer


@pytest.fixture
def two() -> tuple[Record, Record]:
    first, second = pair(ours=0, theirs=0)
    for number in range(8):
        first.put(f"a{number}", title="x")
    take_in(second, run_of(first, None))
    return first, second


def planned(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many runs each plan was made of, from now on."""
    from storage import windows

    made: list[int] = []
    make = windows._planned

    def counted(*arguments: object) -> windows.Plan:
        plan = make(*arguments)  # type: ignore[arg-type]
        made.append(len(plan.runs))
        return plan

    monkeypatch.setattr(windows, "_planned", counted)
    return made


def test_what_was_planned_ahead_is_not_planned_again(
    two: tuple[Record, Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = two
    made = planned(monkeypatch)
    later = run_of(first, "default", after=5)
    assert take_in(second, run_of(first, "default", until=5), ahead=later).integrated == 5
    assert made == [1, 1]
    assert take_in(second, later).integrated == 3
    assert made == [1, 1]
    assert second.fingerprint() == first.fingerprint()


def test_what_waits_is_planned_along_with_what_it_waits_for(
    two: tuple[Record, Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = two
    third = Record("third", founder=first)
    take_in(third, run_of(first, None))
    cause = run_of(first, "default")
    take_in(second, cause)
    for number in range(3):
        second.put(f"b{number}", title="y")
    made = planned(monkeypatch)
    assert take_in(third, run_of(second, "default"), ahead=cause).waiting == 3
    assert take_in(third, cause).integrated == 8 + 3
    assert made == [1, 2]
    assert third.fingerprint() == second.fingerprint()


def test_another_window_or_a_chain_that_has_grown_since_is_planned_anew(
    two: tuple[Record, Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = two
    begin, middle, end = (
        run_of(first, "default", after=after, until=until) for after, until in ((0, 3), (3, 5), (5, 8))
    )
    take_in(second, begin, ahead=end)  # and then another comes
    made = planned(monkeypatch)
    assert take_in(second, middle).integrated == 2
    assert made == [1]
    second.exchange.prepare([end])  # with nothing under way there is nothing to plan upon
    assert made == [1]
    assert take_in(second, end).integrated == 3
    assert second.fingerprint() == first.fingerprint()


def test_a_plan_does_not_hold_if_what_it_rests_on_was_not_written(two: tuple[Record, Record]) -> None:
    first, second = two
    planner = Planner(second.store)
    begin, rest = run_of(first, "default", until=5), run_of(first, "default", after=5)
    assert [len(some) for some in planner.plan([begin]).slices] == [5]
    planner.plan_ahead([rest])
    plan = planner.plan([rest])  # though the first never reached the record
    assert not plan.slices and not plan.kept  # above a gap
    planner.plan_ahead([begin])
    planner.done()
    planner.plan_ahead([rest])
    assert [len(some) for some in planner.plan([begin, rest]).slices] == [8]


def test_what_cannot_be_read_is_not_planned(two: tuple[Record, Record]) -> None:
    first, second = two
    broken = IntegrateWindow(pack_window([run_of(first, "default")])[:-1], NAMES, EVERYTHING)
    second.exchange.prepare(unpacked(broken))
    assert take_in(second, run_of(first, "default")).integrated == 8


def test_the_first_and_the_last_slice_go_alone() -> None:
    assert SLICE_BODIES_MAX > 1
    for count in range(2 * SLICES_TOGETHER_MAX + 4):
        slices = [[] for _ in range(count)]  # type: ignore[var-annotated]
        given = list(together(slices))
        assert [some for each in given for some in each] == slices
        assert max(map(len, given), default=0) <= SLICES_TOGETHER_MAX
        if count > 1:
            assert len(given[0]) == len(given[-1]) == 1
