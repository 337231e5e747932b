"""What was just written is at hand for peers that are up to date, and for nobody else."""

from collections.abc import Sequence

import pytest

from node.net.recent import CHAINS_MAX, KEPT_MAX, KEPT_MAX_BYTES, Recent
from protocol.commit import DEP_HASH_BYTES, Commit
from protocol.exchange import EVERYTHING, ArrivalsLoaded, LoadArrivals, LoadRuns, RunsLoaded
from protocol.messages import HEADS_MAX, Tip
from protocol.packing import unpack_window
from simulations.faults import Run, Settings
from storage.changes import AnyChange, Written
from storage.exchange import Exchange
from storage.integrator import Integrator
from tests.protocol.dialogue import Record


def written(record: Record, count: int, *, title: str = "x", application: str = "default") -> list[Commit]:
    before = record.seq(record.author, application)
    for number in range(count):
        record.put(f"d{before + number}", application, title=title)
    chain = record.store.names.chain(record.store.space(application), record.author)
    assert chain is not None
    with record.store.read() as snapshot:
        return list(snapshot.log.commits(chain, after_seq=before))


def put(recent: Recent, commits: list[Commit], application: str = "default") -> None:
    for commit in commits:
        recent.put([(application, commit, 0)], commit.header.author)


def seqs(loaded: RunsLoaded | None) -> list[int]:
    assert loaded is not None and loaded.window is not None
    (run,) = unpack_window(loaded.window)
    return [commit.header.seq for commit in run.commits]


def test_the_answer_is_the_one_that_the_record_would_give() -> None:
    record, recent = Record("r"), Recent()
    commits = written(record, 3)
    put(recent, commits)
    key = record.store.space("default"), record.author
    for after_seq in range(3):
        effect = LoadRuns(((key, after_seq),), 1 << 20)
        assert recent.load(effect) == record.exchange.perform(effect)
    assert seqs(recent.load(LoadRuns(((key, 1),), 1 << 20))) == [2, 3]


def test_whoever_lacks_more_than_is_kept_or_nothing_asks_the_record() -> None:
    record, recent = Record("r"), Recent()
    commits = written(record, 4)
    put(recent, commits[2:])
    key = record.store.space("default"), record.author
    assert recent.load(LoadRuns(((key, 1),), 1 << 20)) is None
    assert recent.load(LoadRuns(((key, 4),), 1 << 20)) is None
    assert recent.load(LoadRuns(((key, 2), (key, 3)), 1 << 20)) is None
    other = record.store.system, record.author
    assert recent.load(LoadRuns(((other, 0),), 1 << 20)) is None
    assert seqs(recent.load(LoadRuns(((key, 2),), 1 << 20))) == [3, 4]


def test_sessions_are_told_of_each_chain_once_with_the_first_and_the_last_of_a_group() -> None:
    record, recent = Record("r"), Recent()
    mine, other = written(record, 2), written(record, 1, application="other")
    fresh = recent.put(
        [("default", mine[0], 5), ("default", mine[1], 6), ("other", other[0], 7)], record.author
    )
    assert [(one.space, one.first_seq, one.tip.seq) for one in fresh] == [
        ("app/default", 1, 2),
        ("app/other", 1, 1),
    ]
    assert fresh[0].tip == Tip(record.author, 2, mine[1].hash[:DEP_HASH_BYTES])


def test_a_gap_begins_anew() -> None:
    record, recent = Record("r"), Recent()
    commits = written(record, 4)
    put(recent, [commits[0], commits[2], commits[3]])
    key = record.store.space("default"), record.author
    assert recent.load(LoadRuns(((key, 0),), 1 << 20)) is None
    assert seqs(recent.load(LoadRuns(((key, 2),), 1 << 20))) == [3, 4]


def test_what_is_kept_is_bounded() -> None:
    record, recent = Record("r"), Recent()
    put(recent, written(record, KEPT_MAX + 10))
    key = record.store.space("default"), record.author
    assert len(recent._chains[key]) <= KEPT_MAX
    put(recent, written(record, 3, title="x" * KEPT_MAX_BYTES))
    assert not recent._chains[key]
    for number in range(CHAINS_MAX + 3):
        put(recent, written(record, 1, application=f"a{number}"), f"a{number}")
    assert len(recent._chains) == CHAINS_MAX
    recent.forget()
    assert not recent._chains


def test_a_window_is_packed_once_for_all_peers() -> None:
    record, recent = Record("r"), Recent()
    put(recent, written(record, 1))
    key = record.store.space("default"), record.author
    effect = LoadRuns(((key, 0),), 1 << 20)
    assert recent.load(effect) is recent.load(effect)


def test_what_others_wrote_is_told_and_nothing_from_before_is_kept() -> None:
    record, recent = Record("r"), Recent()
    before, after = written(record, 2)
    put(recent, [before])
    other = written(Record("other"), 1)[0]
    fresh = recent.put([("default", other, 2), ("default", after, 3)], record.author)
    assert [one.tip.author for one in fresh] == [other.header.author, record.author]
    key = record.store.space("default"), record.author
    assert recent.load(LoadRuns(((key, 0),), 1 << 20)) is None
    assert seqs(recent.load(LoadRuns(((key, 1),), 1 << 20))) == [2]


SETTINGS = Settings(
    nodes=4, steps=80, step_ms=50, latency_ms=(5, 60), effect_ms=(0, 5), window_target_bytes=2_000, skew_ms=1_000,
    create=3, update=8, delete=1, cut=2, cut_silently=0, crash=1, back_up=0, restore=0, set_back=0, clone=1,
    spoil_frames=0, hostile=2, attack=4, sign_twice=0, revoke=2, grant=1, recover=1,
)  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
def test_of_plain_writes_sessions_are_told_what_the_record_would_tell(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over nodes that are revoked, forked and lied to: what counts no more, or rests on such, is no plain write."""
    own, others, looked_up = 0, 0, 0
    write = Integrator.write

    def checked(self: Integrator, changes: Sequence[AnyChange], now_ms: int) -> Written:
        nonlocal own, others, looked_up
        written = write(self, changes, now_ms)
        if written.plain:
            identity = self._store.identity
            assert identity is not None
            fresh = Recent().put(written.plain, identity.author)
            before = written.plain[0][2] - 1
            told = Exchange(self._store, lambda change: None).perform(
                LoadArrivals(before, EVERYTHING, HEADS_MAX)
            )
            expected = tuple(sorted(fresh, key=lambda one: (one.space, one.tip.author)))
            assert told == ArrivalsLoaded(written.arrival, True, expected)
            own += any(one.tip.author == identity.author for one in fresh)
            others += any(one.tip.author != identity.author for one in fresh)
        looked_up += bool(written.arrival and not written.plain)
        return written

    monkeypatch.setattr(Integrator, "write", checked)
    Run(seed, SETTINGS).go()
    assert min(own, others, looked_up) > 10
