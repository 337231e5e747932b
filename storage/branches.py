"""What a node tells of chains that fork, and which branches of them it shows to whom.

Room: what is read of known forks for a peer. That a chain forks is found out in `exchange`; what it means is
`protocol.membership`'s and `protocol.integrate`'s.
"""

from collections.abc import Iterator

from protocol.commit import DEP_HASH_BYTES
from protocol.exchange import ChainKey, Fresh, LoadArrivals, LoadRuns, LoadState, RunsLoaded
from protocol.ids import node_of
from protocol.messages import SpaceTips, Tip
from protocol.packing import pack_window
from protocol.roots import fork_mark
from storage.heads import Heads, tip_of
from storage.reissue import is_kept
from storage.runs import RunReader, WaitingRoom
from storage.store import Snapshot, Store

PROOFS_MAX = 4  # of forks in answer to one offer; the rest are given at the next


def is_mark(tip: Tip) -> bool:
    """Whether this says that the chain forks here, instead of naming a commit."""
    return tip.hash_prefix == fork_mark(tip.author, tip.seq)[:DEP_HASH_BYTES]


class Branches:
    """The branches of forked chains, as far as they are here. Of `heads` what was last followed counts."""

    def __init__(self, store: Store, heads: Heads, waiting: WaitingRoom) -> None:
        self._store = store
        self._heads = heads
        self._waiting = waiting
        self._turn = 0  # of what is sent of many branches

    def of_former_lives(self, snapshot: Snapshot, effect: LoadState) -> tuple[SpaceTips, ...]:
        """What is held here of chains that the peer's node has forked as somebody that it was before."""
        found: dict[str, list[Tip]] = {}
        for space, author in sorted(self._store.basis.forks):
            name = self._heads.names.get(space)
            if (
                node_of(author) != node_of(effect.peer)
                or author == effect.peer
                or space == self._store.system
            ):
                continue
            head = snapshot.head(space, author)
            if head is not None and name is not None and name in effect.shares:
                found.setdefault(name, []).append(tip_of(author, head))
        return tuple(SpaceTips(name, tuple(tips)) for name, tips in sorted(found.items()))

    def known_since(self, snapshot: Snapshot, effect: LoadArrivals) -> Iterator[Fresh]:
        """Chains that are known to fork, or lower than before, since a position."""
        for key, fork in snapshot.log.forks().items():
            name, chain = self._heads.names.get(key[0]), self._store.names.chain(*key)
            head = self._heads.told(chain) if chain is not None else None
            if name is None or head is None or name not in effect.shares:
                continue
            if fork.arrival > effect.after_position:
                yield Fresh(name, head.seq, tip_of(key[1], head), is_fork=True)

    def proofs(self, snapshot: Snapshot, key: ChainKey, tip: Tip) -> list[bytes]:
        """Windows with the branches of a forked chain that a peer who tells of this head may not have."""
        if key[0] == self._store.system:
            return self._all_branches(snapshot, key, tip)
        forked_at = self._store.basis.forks[key]
        tells_mark = is_mark(tip)
        if tells_mark and tip.seq == forked_at:
            return []
        others = [pack_window([run]) for run in snapshot.log.branches(*key)]
        if snapshot.header_hash(*key, forked_at) is None or (
            not tells_mark and self._is_ours(snapshot, key, tip)
        ):
            return others
        ours = RunReader(snapshot, self._store.names, self._waiting).window_after(key, forked_at - 1)
        return [ours, *others] if tells_mark else [ours]

    def proofs_beside(self, snapshot: Snapshot, effect: LoadRuns, loaded: RunsLoaded) -> Iterator[bytes]:
        """Windows with the other branches of chains that fork within what is sent of them, or would if it were here."""
        forks, sent = self._store.basis.forks, dict(loaded.sent_to)
        for key, after_seq in effect.wants:
            forked_at = forks.get(key)
            if forked_at is None or after_seq >= forked_at or key[0] == self._store.system:
                continue
            if sent.get(key, 0) >= forked_at or snapshot.header_hash(*key, forked_at) is None:
                yield from (pack_window([run]) for run in snapshot.log.branches(*key))

    def _all_branches(self, snapshot: Snapshot, key: ChainKey, tip: Tip) -> list[bytes]:
        """Windows with all branches of a chain of `system`, for a peer who does not tell that it holds the same.

        Beginning with another one each time, since not all may be sent at once.
        """
        chain = self._store.names.chain(*key)
        told = self._heads.told(chain) if chain is not None else None
        if told is None or tip == tip_of(tip.author, told):
            return []
        head, reader = snapshot.head(*key), RunReader(snapshot, self._store.names, self._waiting)
        assert head is not None
        windows = [pack_window([run]) for run in snapshot.log.branches(*key)]
        seq = told.seq - 1
        while seq < head.seq:
            run = reader.run_after(key, seq)
            windows.append(pack_window([run]))
            seq = run.commits[-1].header.seq
        self._turn += 1
        first = self._turn * PROOFS_MAX % len(windows) if len(windows) > PROOFS_MAX else 0
        return [*windows[first:], *windows[:first]]

    def _is_ours(self, snapshot: Snapshot, key: ChainKey, tip: Tip) -> bool:
        ours = snapshot.header_hash(*key, tip.seq)
        return ours is not None and ours[:DEP_HASH_BYTES] == tip.hash_prefix

    def is_rival(self, snapshot: Snapshot, key: ChainKey, tip: Tip) -> bool:
        """Whether a head is of a branch of our own former chain of which not all is here."""
        if key[0] == self._store.system:
            return False  # all branches come unasked
        return not (
            is_mark(tip)
            or self._is_ours(snapshot, key, tip)
            or is_kept(snapshot.local, key, tip.seq, tip.hash_prefix)
        )
