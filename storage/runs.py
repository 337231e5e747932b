"""Which commits travel next: runs cut where a signature vouches for them, as much as a window holds.

Room: choosing and reading what goes out, and the room in which commits wait that
came before their causes. What is asked for, and when, is the sync session's.

    local "sync waiting"  space, author, hex  -> {run}: the end of a run whose beginning is integrated

The signature at the end of a run vouches for all of it. While its end waits, the
beginning has no signature of its own here; it can be passed on all the same,
because the end is kept and goes with it.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

from protocol.body import HASH_BYTES
from protocol.commit import Commit
from protocol.errors import ProtocolError
from protocol.exchange import ChainKey, LoadRuns, RunsLoaded
from protocol.ids import SPACE_ID_BYTES, Author, SpaceId
from protocol.limits import RUN_BODIES_MAX, RUN_COMMITS_MAX, RUN_SKELETON_MAX_BYTES, WINDOW_SIZE_MAX_BYTES
from protocol.packing import pack_window
from protocol.window import Run, decode_run
from storage.local import LocalReader, LocalWriter
from storage.names import Names
from storage.store import Snapshot

WAITING_SIZE_MAX_BYTES = 16 << 20  # four windows; what does not fit is asked for again
_RUN_FRAME_BYTES = 256  # of a run and its skeleton, beside commits
_WAITING = "sync waiting"


def key_of(commit: Commit) -> ChainKey:
    """The chain that a commit belongs to."""
    return commit.header.space, commit.header.author


@dataclass(slots=True)
class Stretch:
    """Consecutive commits of one chain, and what they take in a run; rather more than they do than less."""

    commits: list[Commit] = field(default_factory=list)
    size_bytes: int = 0
    skeleton_bytes: int = _RUN_FRAME_BYTES  # of that, all but the bodies
    bodies: int = 0
    is_whole: bool = True  # no body of it was lost

    def add(self, commit: Commit) -> None:
        self.commits.append(commit)
        sizes = [len(body) for body in commit.bodies if body is not None]
        sizes += [len(stub.encode()) for _, stub in commit.stubs]
        self.is_whole &= len(sizes) == len(commit.bodies)
        heads = len(commit.header_bytes) - (HASH_BYTES + 1) * len(sizes)  # hashes are not sent
        self.skeleton_bytes += heads
        self.size_bytes += heads + sum(sizes) + 5 * len(sizes)
        self.bodies += len(sizes)

    def extend(self, other: "Stretch") -> None:
        self.commits += other.commits
        self.size_bytes += other.size_bytes
        self.skeleton_bytes += other.skeleton_bytes - _RUN_FRAME_BYTES
        self.bodies += other.bodies
        self.is_whole &= other.is_whole

    @property
    def fits_a_run(self) -> bool:
        """Whether a peer would take these commits in one run and window."""
        if not self.is_whole or self.skeleton_bytes > RUN_SKELETON_MAX_BYTES or self.bodies > RUN_BODIES_MAX:
            return False
        if len(self.commits) == 1:
            return True  # travels alone, however large
        return len(self.commits) <= RUN_COMMITS_MAX and self.size_bytes <= WINDOW_SIZE_MAX_BYTES

    def fits_with(self, other: "Stretch") -> bool:
        """Whether both together would fit."""
        return not self.commits or (
            self.skeleton_bytes + other.skeleton_bytes <= RUN_SKELETON_MAX_BYTES
            and self.bodies + other.bodies <= RUN_BODIES_MAX
            and len(self.commits) + len(other.commits) <= RUN_COMMITS_MAX
            and self.size_bytes + other.size_bytes <= WINDOW_SIZE_MAX_BYTES
        )


# -- what waits ----------------------------------------------------------------------------------------


class WaitingRoom:
    """Ends of runs whose causes are not here yet, one a chain, each from right above what is integrated."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.runs: dict[ChainKey, Run] = {}
        self._causes: dict[ChainKey, int] | None = None  # that what waits names; None: to be looked up
        for key, value in snapshot.local.scan(_WAITING):
            name = bytes.fromhex(key)
            chain = SpaceId(name[:SPACE_ID_BYTES]), Author(name[SPACE_ID_BYTES:])
            self.runs[chain] = decode_run(value["run"])

    def keep(self, local: LocalWriter, runs: dict[ChainKey, Run]) -> None:
        """Exactly these wait from now on. Once that is durable, call `settle`."""
        for key in self.runs.keys() - runs.keys():
            local.delete(_WAITING, (key[0] + key[1]).hex())
        for key, run in runs.items():
            if self.runs.get(key) != run:
                local.put(_WAITING, (key[0] + key[1]).hex(), {"run": run.encode()})

    def settle(self, runs: dict[ChainKey, Run]) -> None:
        self.runs = runs
        self._causes = None

    def held_seq(self, key: ChainKey, integrated_seq: int) -> int:
        """How far a chain is here, integrated or waiting right above that."""
        waiting = self.runs.get(key)
        return max(integrated_seq, waiting.commits[-1].header.seq) if waiting is not None else integrated_seq

    def cause_seq(self, key: ChainKey) -> int:
        """The last commit of a chain that anything which waits names as its cause; 0 if nothing does.

        Whether it counts or not: what rests on it cannot be judged without.
        """
        if self._causes is None:
            self._causes = {}
            for (space, _), run in self.runs.items():
                for dep in (dep for commit in run.commits for dep in commit.header.deps if not dep.in_system):
                    known = space, dep.author
                    self._causes[known] = max(dep.seq, self._causes.get(known, 0))
        return self._causes.get(key, 0)


def proves_with_waiting(local: LocalReader, space: SpaceId, author: Author, seq: int, digest: bytes) -> bool:
    """Whether the signature of a run that waits vouches for what is integrated of its chain, up to this commit."""
    try:
        value = local.get(_WAITING, (space + author).hex())
        commits = decode_run(value["run"]).commits if value is not None else ()
    except ProtocolError:
        return False
    # It begins at the commit after this one, or before that if it was being integrated when the node died.
    return any(
        (commit.header.seq == seq and commit.hash == digest)
        or (commit.header.seq == seq + 1 and commit.header.previous == digest)
        for commit in commits
    )


def begun(runs: Iterable[Run], reach: dict[ChainKey, int]) -> dict[ChainKey, Run]:
    """What is kept while runs are being integrated: all of them, from right above what is here.

    As a run came, it is kept; only where several meet, or begin elsewhere, they are joined.
    """
    by_key: dict[ChainKey, list[Run]] = {}
    for run in runs:
        by_key.setdefault(key_of(run.commits[0]), []).append(run)
    kept: dict[ChainKey, Run] = {}
    size = 0
    for key, some in by_key.items():
        first = some[0]
        if len(some) == 1 and first.encoded is not None and first.commits[0].header.seq == reach[key] + 1:
            size += len(first.encoded)
            kept[key] = first
    others = [run.commits for key, some in by_key.items() if key not in kept for run in some]
    if size > WAITING_SIZE_MAX_BYTES:
        return ends_to_keep([run.commits for some in by_key.values() for run in some], reach)
    return kept | (ends_to_keep(others, reach, size) if others else {})


def ends_to_keep(
    tails: Iterable[Iterable[Commit]], reach: dict[ChainKey, int], size: int = 0
) -> dict[ChainKey, Run]:
    """What waits, out of the ends of runs: joined chain by chain, as far as there is room.

    `reach` tells how far each chain will be integrated, `size` how much is kept beside these. A piece above a gap
    is not kept: it is asked for again, with what lies between.
    """
    pieces: dict[ChainKey, dict[int, Commit]] = {}
    for tail in tails:
        for commit in tail:
            by_seq = pieces.setdefault(key_of(commit), {})
            held = by_seq.get(commit.header.seq)
            if held is None or (held.signature is None and held.hash == commit.hash):  # not of another branch
                by_seq[commit.header.seq] = commit
    kept: dict[ChainKey, Run] = {}
    for key, by_seq in pieces.items():
        stretch = _joined(by_seq, reach[key])
        size += stretch.size_bytes
        if size > WAITING_SIZE_MAX_BYTES:
            break
        if stretch.commits:
            kept[key] = Run(tuple(stretch.commits))
    return kept


def _joined(by_seq: dict[int, Commit], after_seq: int) -> Stretch:
    """One chain from right after a seq to the last signature before a gap."""
    whole, pending = Stretch(), Stretch()
    seq, previous = after_seq + 1, None
    while (commit := by_seq.get(seq)) is not None:
        if previous is not None and commit.header.previous != previous:
            break  # a fork: it shows when the first of both is integrated
        pending.add(commit)
        if commit.signature is not None:
            if not whole.fits_with(pending):
                break
            whole.extend(pending)
            pending = Stretch()
        seq, previous = seq + 1, commit.hash
    return whole


# -- what goes out ----------------------------------------------------------------------------------------


class RunReader:
    """Reads chains with what waits above them. Valid as long as its snapshot."""

    def __init__(
        self,
        snapshot: Snapshot,
        names: Names,
        waiting: WaitingRoom,
        on_step: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_step` is called again and again while runs are read and packed."""
        self._snapshot = snapshot
        self._names = names
        self._waiting = waiting
        self._on_step = on_step

    def load(self, effect: LoadRuns) -> RunsLoaded:
        """Stretches of the wanted chains, the earliest first, until the window is full.

        A timestamp is later than those of its causes, unless a clock was far ahead, so windows come nearly
        in causal order; what comes early waits at the other end.
        """
        times = [(self._hlc_after(key, after_seq), key, after_seq) for key, after_seq in effect.wants]
        queue = [(hlc, key, after_seq) for hlc, key, after_seq in times if hlc is not None]
        exhausted = {key for hlc, key, _ in times if hlc is None}
        heapify(queue)
        runs: dict[ChainKey, Stretch] = {}
        size = 0
        while queue and size < effect.size_max_bytes:
            _, key, after_seq = heappop(queue)
            stretch = self.stretch(key, after_seq)
            if stretch is None:
                exhausted.add(key)
                continue
            if runs and size + stretch.size_bytes + len(runs) * _RUN_FRAME_BYTES > WINDOW_SIZE_MAX_BYTES:
                break
            run = runs.setdefault(key, Stretch())
            if not run.fits_with(stretch):
                continue  # this chain goes on in the next window
            run.extend(stretch)
            size += stretch.size_bytes
            last_seq = stretch.commits[-1].header.seq
            hlc = self._hlc_after(key, last_seq)
            if hlc is None:
                exhausted.add(key)
            else:
                heappush(queue, (hlc, key, last_seq))
        if not runs:
            return RunsLoaded(None, (), frozenset(exhausted))
        sent_to = tuple((key, run.commits[-1].header.seq) for key, run in runs.items())
        window = pack_window([Run(tuple(run.commits)) for run in runs.values()], self._on_step)
        bodies = sum(run.bodies for run in runs.values())
        return RunsLoaded(window, sent_to, frozenset(exhausted), bodies)

    def window_after(self, key: ChainKey, after_seq: int) -> bytes:
        """A window with the commits of one chain from right after a seq to the next signature that is kept."""
        return pack_window([self.run_after(key, after_seq)])

    def run_after(self, key: ChainKey, after_seq: int) -> Run:
        """The commits of one chain from right after a seq to the next signature that is kept."""
        stretch = self.stretch(key, after_seq)
        assert stretch is not None, "what is here has come in a run that fitted"
        return Run(tuple(stretch.commits))

    def _hlc_after(self, key: ChainKey, seq: int) -> int | None:
        """The timestamp of the commit after `seq`, if it is integrated here."""
        chain = self._names.chain(*key)
        if chain is None or self._snapshot.log.header(chain, seq + 1) is None:
            return None
        return self._snapshot.log.header_fields(chain, seq + 1).hlc

    def stretch(self, key: ChainKey, after_seq: int) -> Stretch | None:
        """The commits after a seq up to the next signature that is kept; None if no peer could take them."""
        stretch = Stretch()
        for commit in self._commits(key, after_seq):
            stretch.add(commit)
            self._on_step()
            if not stretch.fits_a_run:
                return None
            if commit.signature is not None:
                return stretch
        return None

    def _commits(self, key: ChainKey, after_seq: int) -> Iterator[Commit]:
        chain = self._names.chain(*key)
        assert chain is not None
        seq = after_seq
        for commit in self._snapshot.log.commits(chain, after_seq=after_seq):
            yield commit
            seq = commit.header.seq
        waiting = self._waiting.runs.get(key)
        if waiting is not None and waiting.commits[0].header.seq <= seq + 1:
            yield from (commit for commit in waiting.commits if commit.header.seq > seq)
