"""What sync asks of the record: roots, heads, runs, and a place for commits that came before their causes."""

from typing import Any

import pytest

from protocol.commit import DEP_HASH_BYTES, Commit
from protocol.exchange import (
    EVERYTHING,
    ArrivalsLoaded,
    ChainKey,
    FindLacking,
    HeadsLoaded,
    IntegrateWindow,
    LackingFound,
    LoadArrivals,
    LoadHeads,
    LoadRuns,
    LoadState,
    RunsLoaded,
    Shares,
    StateLoaded,
    WindowIntegrated,
)
from protocol.limits import SIGNATURE_KEPT_EVERY
from protocol.messages import SpaceTips, Tip
from protocol.packing import pack_window, unpack_window
from protocol.roots import root_over
from protocol.window import Run
from storage.changes import AnyChange
from storage.exchange import Exchange
from storage.runs import proves_with_waiting
from storage.windows import SLICE_BODIES_MAX
from tests.protocol.dialogue import NOW_MS, Dialogue, Record, pair

DEFAULT = "app/default"


def state(record: Record, peer: Record, shares: Shares = EVERYTHING) -> StateLoaded:
    answer = record.exchange.perform(LoadState(peer.author, peer.identity.epoch, shares))
    assert isinstance(answer, StateLoaded)
    return answer


def heads(record: Record, after: bytes = b"", count_max: int = 10) -> HeadsLoaded:
    answer = record.exchange.perform(LoadHeads(DEFAULT, after, count_max))
    assert isinstance(answer, HeadsLoaded)
    return answer


def arrivals(record: Record, after: int, count_max: int = 10) -> ArrivalsLoaded:
    answer = record.exchange.perform(LoadArrivals(after, EVERYTHING, count_max))
    assert isinstance(answer, ArrivalsLoaded)
    return answer


def lacking(record: Record, *tips: Tip) -> LackingFound:
    answer = record.exchange.perform(FindLacking((SpaceTips(DEFAULT, tips),)))
    assert isinstance(answer, LackingFound)
    return answer


def key(record: Record, author: Record) -> ChainKey:
    return record.store.space("default"), author.author


def runs(record: Record, *wants: tuple[ChainKey, int], size: int = 1 << 20) -> RunsLoaded:
    answer = record.exchange.perform(LoadRuns(wants, size))
    assert isinstance(answer, RunsLoaded)
    return answer


def integrate(record: Record, *sent: Run, shares: Shares = EVERYTHING) -> WindowIntegrated:
    names = ("system", DEFAULT)
    answer = record.exchange.perform(IntegrateWindow(pack_window(sent), names, shares))
    assert isinstance(answer, WindowIntegrated)
    return answer


def commits(record: Record, author: Record) -> list[Commit]:
    chain = record.store.names.chain(*key(record, author))
    assert chain is not None
    with record.store.read() as snapshot:
        return list(snapshot.log.commits(chain))


def tip(record: Record, author: Record, seq: int) -> Tip:
    return Tip(author.author, seq, commits(record, author)[seq - 1].hash[:DEP_HASH_BYTES])


def test_a_state_tells_roots_position_and_what_we_hold_of_the_peer() -> None:
    first, second = pair(ours=3, theirs=2)
    Dialogue(first, second).run()
    found = state(first, second)
    assert found == state(first, second)
    assert found.position == 6 and found.cursor == 0
    assert [space for space, _ in found.roots] == [DEFAULT, "system"]
    assert [(space, tips[0].seq) for space, tips in found.theirs] == [(DEFAULT, 2)]
    assert found.root == state(second, first).root == first.exchange.root()
    first.put("x", title="x")
    changed = state(first, second)
    assert changed.root != found.root and changed.position == 7
    assert changed.roots[1] == found.roots[1]


def test_spaces_that_are_not_shared_are_in_no_root() -> None:
    first, second = pair()
    only_system = Shares(frozenset({"system"}))
    before = state(first, second, only_system)
    first.put("x", title="x")
    assert state(first, second, only_system).root == before.root
    assert [space for space, _ in before.roots] == ["system"]
    assert state(first, second, Shares(frozenset())).root == root_over({})


def test_a_cursor_outlives_a_restart_and_belongs_to_one_epoch() -> None:
    first, second = pair()
    first.exchange.keep_cursor(second.author, second.identity.epoch, 12)
    first.open()
    assert state(first, second).cursor == 12
    first.exchange.keep_cursor(second.author, "older", 12)
    assert state(first, second).cursor == 0


def test_heads_come_in_pages_in_the_order_of_authors() -> None:
    first, second = pair()
    Dialogue(first, second).run()
    whole = heads(first)
    assert whole.is_last and [t.author for t in whole.tips] == sorted([first.author, second.author])
    page = heads(first, count_max=1)
    assert page.tips == whole.tips[:1] and not page.is_last
    assert heads(first, after=page.tips[0].author).tips == whole.tips[1:]


def test_arrivals_tell_each_chain_once_with_the_first_that_is_new() -> None:
    first, second = pair(ours=3, theirs=2)
    Dialogue(first, second).run()
    position = first.exchange.position
    assert arrivals(first, position) == ArrivalsLoaded(position, True, ())
    for number in range(3):
        first.put(f"new{number}", title="x")
    found = arrivals(first, position)
    assert (found.position, found.is_last) == (position + 3, True)
    assert [(fresh.first_seq, fresh.tip.seq) for fresh in found.fresh] == [(4, 6)]
    limited = arrivals(first, 0, count_max=1)
    assert not limited.is_last and len(limited.fresh) == 1
    assert arrivals(first, limited.position).fresh


def test_what_is_lacking_is_told_with_what_is_here() -> None:
    first, second = pair(ours=5)
    Dialogue(first, second).run()
    for number in range(3):
        first.put(f"new{number}", title="x")
    assert lacking(second, tip(first, first, 8)) == LackingFound(((0, 5),), ())
    assert lacking(second, tip(first, first, 5)) == LackingFound((), ())
    assert lacking(second, tip(first, first, 3)) == LackingFound((), ())
    other = tip(first, first, 3)._replace(hash_prefix=bytes(16))
    assert lacking(second, other) == LackingFound((), ((0, 2),))


def test_runs_end_at_kept_signatures_and_fill_a_window() -> None:
    first, second = pair(ours=3 * SIGNATURE_KEPT_EVERY + 10)
    size_of_all = len(runs(first, (key(first, first), 0)).window or b"")
    small = runs(first, (key(first, first), 0), size=size_of_all // 4)
    assert small.window is not None and small.exhausted == frozenset()
    (run,) = unpack_window(small.window)
    last_seq = run.commits[-1].header.seq
    assert small.sent_to == ((key(first, first), last_seq),)
    assert last_seq % SIGNATURE_KEPT_EVERY == 0
    rest = runs(first, (key(first, first), last_seq))
    assert rest.exhausted == {key(first, first)}
    assert runs(first, (key(first, first), 3 * SIGNATURE_KEPT_EVERY + 10)) == RunsLoaded(
        None, (), frozenset({key(first, first)})
    )
    assert runs(first, (key(first, second), 0)).exhausted == {key(first, second)}


def test_who_reads_runs_is_called_at_each_commit_so_that_others_can_be_given_their_turn() -> None:
    first, _ = pair(ours=SIGNATURE_KEPT_EVERY + 2)
    calls: list[None] = []
    exchange = Exchange(
        first.store, lambda change: first.integrator.write_one(change, NOW_MS), lambda: calls.append(None)
    )
    answer = exchange.perform(LoadRuns(((key(first, first), 0),), 1 << 20))
    assert isinstance(answer, RunsLoaded)
    assert len(calls) >= SIGNATURE_KEPT_EVERY + 2


def test_runs_of_several_chains_come_with_causes_first() -> None:
    first, second = pair(ours=2, theirs=2)
    for number in range(100):
        Dialogue(first, second).run()
        (first if number % 2 else second).put(f"turn{number}", title="x")
    Dialogue(first, second).run()
    third = Record("third", founder=first)
    talk = Dialogue(third, first, window_target_bytes=4_000).run()
    assert talk.is_in_sync
    assert third.documents() == first.documents()


def test_the_end_of_a_run_waits_for_its_causes_and_outlives_a_restart() -> None:
    first, second = pair(ours=2, theirs=2)
    Dialogue(first, second).run()
    first.put("late", title="depends on the second's")
    third = Record("third", founder=first)
    system = (first.store.system, first.author)
    founding = unpack_window(runs(first, (system, 0)).window or b"")
    whole = Run(tuple(commits(first, first)))
    answer = integrate(third, *founding, whole)
    assert (answer.integrated, answer.waiting) == (3, 1)
    third.open()
    assert third.seq(first.author) == 2
    assert lacking(third, tip(first, first, 3)) == LackingFound((), ())
    # The beginning is passed on with the end that vouches for it.
    passed_on = runs(third, (key(third, first), 0))
    assert [len(run.commits) for run in unpack_window(passed_on.window or b"")] == [3]
    answer = integrate(third, Run(tuple(commits(first, second))))
    assert (answer.integrated, answer.waiting) == (3, 0)
    third.open()
    assert third.documents() == first.documents()
    assert third.exchange.root() == first.exchange.root()


def test_pieces_of_one_chain_that_wait_are_joined_and_a_gap_is_not_kept() -> None:
    first, second = pair(ours=1, theirs=1)
    Dialogue(first, second).run()
    for number in range(5):
        first.put(f"late{number}", title="depends on the second's")
    third = Record("third", founder=first)
    system = (first.store.system, first.author)
    signed = [unpack_window(runs(first, (key(first, first), n)).window or b"")[0] for n in range(1, 5)]
    integrate(third, *unpack_window(runs(first, (system, 0)).window or b""))
    assert integrate(third, signed[3]).waiting == 0
    whole = unpack_window(runs(first, (key(first, first), 0)).window or b"")[0]
    assert integrate(third, whole).waiting == 5
    assert integrate(third, signed[3]).waiting == 5
    assert integrate(third, Run(tuple(commits(first, second)))).waiting == 0
    assert third.seq(first.author) == 6


def test_a_run_of_a_space_that_is_not_shared_is_a_fault() -> None:
    first, second = pair()
    answer = integrate(second, Run(tuple(commits(first, first))), shares=Shares(frozenset({"system"})))
    assert answer.fault is not None and answer.integrated == 0
    junk = second.exchange.perform(IntegrateWindow(b"junk", (), EVERYTHING))
    assert isinstance(junk, WindowIntegrated) and junk.fault is not None


def test_a_window_that_is_here_already_changes_nothing() -> None:
    first, second = pair()
    Dialogue(first, second).run()
    before = second.exchange.position
    answer = integrate(second, Run(tuple(commits(first, first))))
    assert (answer.integrated, answer.waiting, answer.position) == (0, 0, before)
    assert answer.tips == ((key(second, first), 3),)


class PowerCut(Exception):
    """The node dies."""


@pytest.mark.parametrize("written", range(5))
def test_a_window_that_was_cut_short_is_proved_by_what_waits_and_taken_in_at_the_next_start(
    written: int,
) -> None:
    first, second = pair(ours=0, theirs=0)
    for number in range(3 * SLICE_BODIES_MAX):
        first.put(f"a{number}", title="x")
    with first.store.read() as snapshot:
        chain = first.store.names.chain(first.store.system, first.author)
        assert chain is not None
        founding = list(snapshot.log.commits(chain))
    integrate(second, Run(tuple(founding)))
    effect = IntegrateWindow(
        pack_window([Run(tuple(commits(first, first)))]), ("system", DEFAULT), EVERYTHING
    )
    done = 0

    def write(change: AnyChange) -> Any:
        nonlocal done
        if done == written:
            raise PowerCut
        done += 1
        return second.integrator.write_one(change, NOW_MS)

    second.exchange = Exchange(second.store, write)
    if written < 3:  # of three slices the first keeps the run, and the last lets it go
        with pytest.raises(PowerCut):
            second.exchange.perform(effect)
    else:
        second.exchange.perform(effect)
    with second.store.read() as snapshot:
        head = snapshot.head(*key(second, first))
        if head is not None and head.seq < 3 * SLICE_BODIES_MAX:
            assert proves_with_waiting(snapshot.local, *key(second, first), head.seq, head.hash)
    second.open()
    assert second.exchange.is_unsettled is (0 < written < 3)
    second.exchange.run(second.exchange.settle())
    expected = 3 * SLICE_BODIES_MAX if written else 0
    assert second.seq(first.author) == expected
    assert not second.exchange.is_unsettled
    if not written:
        second.exchange.perform(effect)
    assert second.fingerprint() == first.fingerprint()
