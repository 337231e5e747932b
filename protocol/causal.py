"""In which order the commits of a window can be integrated, and which must wait for others.

Room: an order over runs, from their deps alone. The verdict on each commit is
`integrate`'s; what waits is kept by storage.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from protocol.commit import Commit, Dep
from protocol.exchange import ChainKey
from protocol.ids import SpaceId
from protocol.window import Run


@dataclass(frozen=True, slots=True)
class Order:
    """`ready` has causes first; `tails` are the ends of runs whose causes are not here, by run."""

    ready: list[Commit]
    tails: list[tuple[Commit, ...]]


def causal_order(
    runs: Sequence[Run],
    known_seq: Callable[[ChainKey], int],
    *,
    system: SpaceId,
    forks: Mapping[ChainKey, int] = MappingProxyType({}),
    is_stated: Callable[[Dep], bool] = lambda dep: True,
    on_step: Callable[[], None] = lambda: None,
) -> Order:
    """Commits of `runs`, causes first. `known_seq` tells how much of a chain is integrated here.

    `forks` are the first seqs that are known to be signed twice: causes from there on need not be here; but in
    `system`, where `is_stated` tells whether one is, on whichever branch. What is known already is `ready` too, so
    that a fork shows when it is integrated. The same runs, heads, forks and statements give the same order.
    `on_step` is called for every commit.
    """
    reach: dict[ChainKey, int] = {}

    def reached(key: ChainKey) -> int:
        if key not in reach:
            reach[key] = known_seq(key)
        return reach[key]

    ready: list[Commit] = []
    places = [0] * len(runs)
    sleepers: dict[ChainKey, list[tuple[int, int]]] = {}  # chain -> which seq of it, which run waits for it
    work = deque(range(len(runs)))
    while work:
        number = work.popleft()
        commits = runs[number].commits
        while places[number] < len(commits):
            on_step()
            commit = commits[places[number]]
            missing = _missing(commit, reached, system, forks, is_stated)
            if missing is not None:
                sleepers.setdefault(missing[0], []).append((missing[1], number))
                break
            ready.append(commit)
            places[number] += 1
            key = commit.header.space, commit.header.author
            reach[key] = max(reached(key), commit.header.seq)
            if key in sleepers:
                work.extend(other for seq, other in sleepers[key] if seq <= reach[key])
                sleepers[key] = [(seq, other) for seq, other in sleepers[key] if seq > reach[key]]
    tails = [run.commits[place:] for run, place in zip(runs, places, strict=True) if place < len(run.commits)]
    return Order(ready, tails)


def _missing(
    commit: Commit,
    reached: Callable[[ChainKey], int],
    system: SpaceId,
    forks: Mapping[ChainKey, int],
    is_stated: Callable[[Dep], bool],
) -> tuple[ChainKey, int] | None:
    """The first cause of a commit that is not here."""
    header = commit.header
    own = header.space, header.author
    if header.seq > reached(own) + 1:
        return own, header.seq - 1
    if header.seq <= reached(own):
        return None  # known, or another one in its place
    for dep in header.deps:
        key = (system if dep.in_system else header.space), dep.author
        seq = dep.seq
        if seq >= forks.get(key, seq + 1):
            if key[0] == system:
                if not is_stated(dep):
                    return key, seq
                continue
            seq = forks[key] - 1
        if reached(key) < seq:
            return key, seq
    return None
