"""What was just written is at hand for peers that are up to date, and for nobody else."""

from node.net.recent import CHAINS_MAX, KEPT_MAX, KEPT_MAX_BYTES, Recent
from protocol.commit import DEP_HASH_BYTES, Commit
from protocol.exchange import LoadRuns, RunsLoaded
from protocol.messages import Tip
from protocol.packing import unpack_window
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
        recent.put([(application, commit, 0)])


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
    fresh = recent.put([("default", mine[0], 5), ("default", mine[1], 6), ("other", other[0], 7)])
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
