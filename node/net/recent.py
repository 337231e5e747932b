"""The newest commits of our own, kept in memory for peers that are up to date with all before them.

Room: answers to `LoadRuns` that need no look at the record. A record that was just written goes out from here, at
once, to however many peers; whoever is further behind is served by the clerk. What is kept is bounded, and so is
what an answer holds: making one must not hold up the loop.
"""

from collections import deque
from collections.abc import Sequence

from protocol.commit import DEP_HASH_BYTES, Commit
from protocol.exchange import ChainKey, Fresh, LoadRuns, RunsLoaded
from protocol.ids import Author, application_space_name
from protocol.messages import Tip
from protocol.packing import pack_window
from protocol.window import Run

KEPT_MAX = 64  # commits of one chain; a peer with two windows on the way is a few behind
KEPT_MAX_BYTES = 16 << 10  # of one chain: half a millisecond of packing
CHAINS_MAX = 64


class Recent:
    """Own commits, by chain, without gaps up to the newest. Use it on the loop."""

    def __init__(self) -> None:
        self._chains: dict[ChainKey, deque[tuple[Commit, int]]] = {}  # each with its size in bytes
        self._packed: dict[tuple[ChainKey, int], RunsLoaded] = {}  # since the newest commit

    def put(self, stored: Sequence[tuple[str, Commit, int]], own: Author) -> tuple[Fresh, ...]:
        """Commits that have just been stored; what sessions are told of them.

        Those of others are not kept, and with them nothing from before: they may have changed what there is.
        """
        self._packed.clear()
        if any(commit.header.author != own for _, commit, _ in stored):
            self._chains.clear()
        grown: dict[ChainKey, tuple[str, int]] = {}  # by chain its application, and the first that came
        newest: dict[ChainKey, Commit] = {}
        for application, commit, _ in stored:
            header = commit.header
            key = header.space, header.author
            if key not in newest:
                grown[key] = application, header.seq
            newest[key] = commit
            if header.author != own:
                continue
            kept = self._chains.pop(key, None) or deque()
            if kept and kept[-1][0].header.seq != header.seq - 1:
                kept.clear()
            kept.append((commit, len(commit.header_bytes) + sum(len(body or b"") for body in commit.bodies)))
            while len(kept) > KEPT_MAX or (kept and sum(size for _, size in kept) > KEPT_MAX_BYTES):
                kept.popleft()
            self._chains[key] = kept
            if len(self._chains) > CHAINS_MAX:
                del self._chains[next(iter(self._chains))]
        return tuple(
            Fresh(application_space_name(application), first_seq, _tip_of(newest[key]))
            for key, (application, first_seq) in grown.items()
        )

    def forget(self) -> None:
        """Something else has been stored, which may change what counts."""
        self._chains.clear()
        self._packed.clear()

    def load(self, effect: LoadRuns) -> RunsLoaded | None:
        """The answer, if it is known without asking the record."""
        if len(effect.wants) != 1:
            return None
        key, after_seq = effect.wants[0]
        kept = self._chains.get(key)
        if not kept or not kept[0][0].header.seq <= after_seq + 1 <= kept[-1][0].header.seq:
            return None
        known = self._packed.get((key, after_seq))
        if known is None:
            commits = tuple(commit for commit, _ in kept if commit.header.seq > after_seq)
            bodies = sum(len(commit.bodies) for commit in commits)
            window, last_seq = pack_window([Run(commits)]), commits[-1].header.seq
            known = RunsLoaded(window, ((key, last_seq),), frozenset({key}), bodies)
            self._packed[key, after_seq] = known
        return known


def _tip_of(commit: Commit) -> Tip:
    return Tip(commit.header.author, commit.header.seq, commit.hash[:DEP_HASH_BYTES])
