"""The order in which the commits of a window can be integrated."""

from hypothesis import given
from hypothesis import strategies as st

from protocol.causal import causal_order
from protocol.commit import DEP_HASH_BYTES, NO_PREVIOUS, Commit, Dep, Header, sign_commit
from protocol.exchange import ChainKey
from protocol.ids import Author, SpaceId, author_of
from protocol.keys import KeyPair
from protocol.window import Run

KEYS = KeyPair.from_seed(b"k" * 32)
SPACE, SYSTEM = SpaceId(b"s" * 16), SpaceId(b"S" * 16)
AUTHORS = [author_of(KEYS.public, bytes([number]) * 8) for number in range(4)]
Place = tuple[int, int]  # author, seq


def history(steps: list[tuple[int, list[int]]]) -> dict[Place, Commit]:
    """Commits in the order of making: each step names an author and whose newest commits it has seen."""
    made: dict[Place, Commit] = {}
    newest: dict[int, Commit] = {}
    for number, (author, seen) in enumerate(steps):
        before = newest.get(author)
        deps = tuple(
            sorted(
                Dep(False, AUTHORS[other], newest[other].header.seq, newest[other].hash[:DEP_HASH_BYTES])
                for other in set(seen) - {author}
                if other in newest
            )
        )
        seq = before.header.seq + 1 if before else 1
        previous = before.hash if before else NO_PREVIOUS
        commit = sign_commit(KEYS, Header(SPACE, AUTHORS[author], seq, previous, number + 1, deps, ()), [])
        made[author, seq] = newest[author] = commit
    return made


def place(commit: Commit) -> Place:
    return AUTHORS.index(commit.header.author), commit.header.seq


def known(seqs: dict[int, int]) -> dict[Author, int]:
    return {AUTHORS[number]: seq for number, seq in seqs.items()}


def order(runs: list[Run], seqs: dict[int, int]) -> tuple[list[Place], list[list[Place]]]:
    held = known(seqs)

    def known_seq(key: ChainKey) -> int:
        return held.get(key[1], 0)

    found = causal_order(runs, known_seq, system=SYSTEM)
    return list(map(place, found.ready)), [list(map(place, tail)) for tail in found.tails]


def run(made: dict[Place, Commit], author: int, first: int, last: int) -> Run:
    return Run(tuple(made[author, seq] for seq in range(first, last + 1)))


step = st.tuples(st.integers(0, 3), st.lists(st.integers(0, 3), max_size=3))
steps = st.lists(step, min_size=1, max_size=24)


@given(steps=steps, data=st.data())
def test_causes_come_first_and_nothing_is_left_when_all_are_here(
    steps: list[tuple[int, list[int]]], data: st.DataObject
) -> None:
    made = history(steps)
    last = {author: max(seq for a, seq in made if a == author) for author, _ in made}
    runs = [run(made, author, 1, seq) for author, seq in last.items()]
    ready, tails = order(data.draw(st.permutations(runs)), {})
    assert tails == []
    assert sorted(ready) == sorted(made)
    done: set[Place] = set()
    for author, seq in ready:
        commit = made[author, seq]
        assert seq == 1 or (author, seq - 1) in done
        assert all((AUTHORS.index(dep.author), dep.seq) in done for dep in commit.header.deps)
        done.add((author, seq))


@given(steps=steps, data=st.data())
def test_what_is_ready_depends_on_the_runs_and_not_on_their_order(
    steps: list[tuple[int, list[int]]], data: st.DataObject
) -> None:
    made = history(steps)
    last = {author: max(seq for a, seq in made if a == author) for author, _ in made}
    cut = {author: data.draw(st.integers(1, seq)) for author, seq in last.items()}
    here = [author for author in cut if data.draw(st.booleans())]
    runs = [run(made, author, 1, cut[author]) for author in here]
    ready, tails = order(runs, {})
    again, tails_again = order(list(reversed(runs)), {})
    assert sorted(ready) == sorted(again)
    assert sorted(tails) == sorted(tails_again)
    assert sorted(ready + [commit for tail in tails for commit in tail]) == sorted(
        (author, seq) for author in here for seq in range(1, cut[author] + 1)
    )


def test_a_run_waits_from_the_first_commit_whose_cause_is_missing() -> None:
    made = history([(0, []), (1, []), (0, [1]), (0, [])])
    assert order([run(made, 0, 1, 3)], {}) == ([(0, 1)], [[(0, 2), (0, 3)]])
    assert order([run(made, 0, 1, 3)], {1: 1}) == ([(0, 1), (0, 2), (0, 3)], [])


def test_a_run_that_begins_above_what_is_here_waits() -> None:
    made = history([(0, [])] * 4)
    assert order([run(made, 0, 3, 4)], {0: 1}) == ([], [[(0, 3), (0, 4)]])
    assert order([run(made, 0, 3, 4), run(made, 0, 2, 2)], {0: 1}) == ([(0, 2), (0, 3), (0, 4)], [])


def test_what_is_known_is_ready_so_that_a_fork_can_show() -> None:
    made = history([(0, []), (0, [1])])
    assert order([run(made, 0, 1, 2)], {0: 2}) == ([(0, 1), (0, 2)], [])


def test_a_dep_in_the_system_space_is_looked_for_there() -> None:
    dep = Dep(True, AUTHORS[1], 1, bytes(16))
    commit = sign_commit(KEYS, Header(SPACE, AUTHORS[0], 1, NO_PREVIOUS, 1, (dep,), ()), [])

    def only(space: SpaceId) -> list[Commit]:
        def known_seq(key: ChainKey) -> int:
            return int(key == (space, AUTHORS[1]))

        return causal_order([Run((commit,))], known_seq, system=SYSTEM).ready

    assert only(SPACE) == []
    assert only(SYSTEM) == [commit]
