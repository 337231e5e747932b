"""How a window is taken in: the order of its commits, and by how many at a time they are given to the writer.

Room: plans, for `exchange` to carry out. Nothing is written here. The writer takes in what was planned faster than it
could be planned and written in turn, so a window may be planned ahead, while the one before it is being written: as
if that goes well. If it does not, or anything else was written that matters, the plan is made again.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from protocol.causal import causal_order
from protocol.commit import Commit
from protocol.exchange import ChainKey
from protocol.integrate import is_stated
from protocol.window import Run
from storage.judging import Basis
from storage.runs import begun, ends_to_keep, key_of
from storage.store import Snapshot, Store

SLICE_BODIES_MAX = 256  # integrated at a time, so that what is asked for here gets in between
SLICES_TOGETHER_MAX = 8  # given to the writer, so that it need not wait between them


@dataclass(frozen=True, slots=True)
class Plan:
    """What is integrated, slice by slice; what waits while that is `begun`, and what is `kept` after.

    It holds for these runs, while chains end at `heads` and the basis is this one; then they will end at `reach`.
    """

    slices: list[Sequence[Commit]]
    begun: dict[ChainKey, Run]
    kept: dict[ChainKey, Run]
    runs: Sequence[Run]
    heads: dict[ChainKey, int]
    reach: dict[ChainKey, int]
    basis: Basis

    def holds(self, snapshot: Snapshot, runs: Sequence[Run], basis: Basis) -> bool:
        """Whether the same runs would be planned in the same way now."""
        are_same = len(runs) == len(self.runs) and all(map(_is_same, runs, self.runs))
        return (
            are_same
            and basis is self.basis
            and all(_seq_of(snapshot, key) == seq for key, seq in self.heads.items())
        )


class Planner:
    """Plans one window after the other. Blocks for a few microseconds a commit. Not thread-safe."""

    def __init__(self, store: Store, on_step: Callable[[], None] = lambda: None) -> None:
        """`on_step` is called for every commit."""
        self._store = store
        self._on_step = on_step
        self._newest: Plan | None = None
        self._ahead: Plan | None = None

    def plan(self, runs: Sequence[Run]) -> Plan:
        """A plan for what waits and what came, which is carried out next."""
        ahead, self._ahead = self._ahead, None
        basis = self._store.basis
        with self._store.read() as snapshot:
            is_good = ahead is not None and ahead.holds(snapshot, runs, basis)
            plan = (
                ahead
                if ahead is not None and is_good
                else _planned(runs, snapshot, self._store, {}, self._on_step)
            )
        self._newest = plan
        return plan

    def plan_ahead(self, runs: Sequence[Run]) -> None:
        """Plan for what came, as if the newest plan has been carried out and all went well."""
        newest = self._newest
        if newest is not None:
            with self._store.read() as snapshot:
                runs = [*newest.kept.values(), *runs]
                self._ahead = _planned(runs, snapshot, self._store, newest.reach, self._on_step)

    def done(self) -> None:
        """The newest plan was carried out."""
        self._newest = None


def _planned(
    runs: Sequence[Run],
    snapshot: Snapshot,
    store: Store,
    reached: dict[ChainKey, int],
    on_step: Callable[[], None],
) -> Plan:
    """`reached` tells where chains will end that have not come as far yet."""
    basis = store.basis
    heads: dict[ChainKey, int] = {}

    def known_seq(key: ChainKey) -> int:
        if key not in heads:
            heads[key] = max(reached.get(key, 0), _seq_of(snapshot, key))
        return heads[key]

    order = causal_order(runs, known_seq, system=store.system, forks=basis.forks,
                         is_stated=partial(is_stated, basis.members), on_step=on_step)  # fmt: skip
    slices = list(_slices(order.ready))
    reach = dict(heads)
    kept_meanwhile = begun(runs, reach) if len(slices) > 1 else {}
    for commit in order.ready:
        key = key_of(commit)
        reach[key] = max(reach[key], commit.header.seq)
    kept = ends_to_keep(order.tails, reach) if order.tails else {}
    return Plan(slices, kept_meanwhile if slices else kept, kept, runs, heads, reach, basis)


def _seq_of(snapshot: Snapshot, key: ChainKey) -> int:
    head = snapshot.head(*key)
    return head.seq if head is not None else 0


def _is_same(one: Run, other: Run) -> bool:
    return one is other


def together(slices: Sequence[Sequence[Commit]]) -> Iterator[Sequence[Sequence[Commit]]]:
    """The slices as they are given to the writer. The first and the last go alone: they decide what is kept."""
    if len(slices) > 1:
        yield slices[:1]
    for start in range(1, len(slices) - 1, SLICES_TOGETHER_MAX):
        yield slices[start : min(start + SLICES_TOGETHER_MAX, len(slices) - 1)]
    if slices:
        yield slices[-1:]


def _slices(commits: Sequence[Commit]) -> Iterable[Sequence[Commit]]:
    """The commits in their order, as many at a time as `SLICE_BODIES_MAX` bodies allow; one at least."""
    start, bodies = 0, 0
    for number, commit in enumerate(commits):
        size = max(1, len(commit.bodies))
        if number > start and bodies + size > SLICE_BODIES_MAX:
            yield commits[start:number]
            start, bodies = number, 0
        bodies += size
    if start < len(commits):
        yield commits[start:]
