"""What a sync session needs of the record: roots, heads, runs to send, and a place for runs that came.

Room: carries out the effects of `protocol.session` over `Snapshot` and
`Integrator`, and keeps how far each peer has been followed. What goes out and
what waits is chosen in `runs`; what crosses a link, and in which order of
messages, is the session's.

    local "sync cursor"  author of the peer, hex  -> {epoch, position}
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from protocol.commit import DEP_HASH_BYTES, NO_PREVIOUS, Commit
from protocol.errors import ProtocolError
from protocol.exchange import (
    EVERYTHING,
    Answer,
    ArrivalsLoaded,
    ChainKey,
    ChainRefused,
    Effect,
    FindLacking,
    ForkFound,
    Fresh,
    HeadsLoaded,
    IntegrateWindow,
    LackingFound,
    LoadArrivals,
    LoadHeads,
    LoadRuns,
    LoadState,
    Shares,
    StateLoaded,
    WindowIntegrated,
)
from protocol.ids import (
    NODE_ID_BYTES,
    Author,
    SpaceId,
    application_space_name,
    node_of,
    space_id,
)
from protocol.integrate import Fork, Integrated, Known, Outcome, Refused, Waiting
from protocol.messages import SpaceRoot, SpaceTips
from protocol.packing import unpack_window
from protocol.roots import root_over
from protocol.window import Run
from storage.arrivals import NO_CHAIN
from storage.branches import PROOFS_MAX, Branches, is_mark
from storage.changes import AnyChange, Forked, LocalChange, Received
from storage.heads import Heads, tip_of
from storage.lives import lives
from storage.local import LocalWriter
from storage.names import Chain
from storage.reissue import keep_branch
from storage.runs import RunReader, WaitingRoom, key_of
from storage.store import Store
from storage.windows import Planner, together

SUSPECTS_MAX = 4_096
SEQ_MAX = (1 << 63) - 1
_ARRIVALS_READ_MAX = 100_000  # in one go: about 0.2 s of reading
_CURSOR = "sync cursor"

# Hands a change to the one writer: its result, once it is durable. Blocks.
Write = Callable[[AnyChange], Any]
# Gives changes for the one writer, in order; takes the result of each, or its error, once all are durable; ends in an
# answer.
Steps = Generator[Sequence[AnyChange], Sequence[Any], WindowIntegrated]


@dataclass(slots=True)
class _Taken:
    """What became of the commits of a window."""

    integrated: int = 0
    bodies: int = 0  # of those
    forks: list[ForkFound] = field(default_factory=list)
    refused: list[ChainRefused] = field(default_factory=list)
    left: set[ChainKey] = field(default_factory=set)  # chains of which nothing more can follow


class Exchange:
    """The record as sync sees it. Not thread-safe: it carries out one effect at a time.

    A window is the exception: `integrate` takes it in by steps, and other effects may be carried out between
    two of them, though no other window and no `FindLacking`.
    """

    def __init__(self, store: Store, write: Write, on_step: Callable[[], None] = lambda: None) -> None:
        """`on_step` is called again and again while runs are read and windows planned, for tenths of a second."""
        assert store.identity is not None
        self._store = store
        self._network_id = store.identity.network_id
        self._write = write
        self._on_step = on_step
        self._heads = Heads(self._network_id, store.names, store.system)
        # A commit came that continues another than ours: ask after this.
        self._suspects: dict[ChainKey, int] = {}
        with store.read() as snapshot:
            self._waiting = WaitingRoom(snapshot)
            self._heads.follow(snapshot)
            self._lives = lives(snapshot.local)
        self._planner = Planner(store, on_step)
        self._branches = Branches(store, self._heads, self._waiting)
        self.is_unsettled = bool(self._waiting.runs)  # a window may have been cut short: `settle`

    @property
    def is_settled(self) -> bool:
        """Whether no window is under way, and nothing waits for its causes: to take one in means that one alone."""
        return not (self.is_unsettled or self._waiting.runs)

    def perform(self, effect: Effect) -> Answer:
        """Carry out one effect. Blocks on the disk."""
        match effect:
            case LoadState():
                return self._load_state(effect)
            case LoadHeads():
                return self._load_heads(effect)
            case LoadArrivals():
                return self._load_arrivals(effect)
            case FindLacking():
                return self._find_lacking(effect)
            case LoadRuns():
                with self._store.read() as snapshot:
                    reader = RunReader(snapshot, self._store.names, self._waiting, self._on_step)
                    loaded = reader.load(effect)
                    return replace(
                        loaded, proofs=tuple(self._branches.proofs_beside(snapshot, effect, loaded))
                    )
            case IntegrateWindow():
                return self.run(self.integrate(effect, unpacked(effect)))

    def run(self, steps: Steps) -> WindowIntegrated:
        """Take all steps, one after the other. Blocks."""
        try:
            changes = next(steps)
            while True:
                outcomes: list[Any] = []
                try:
                    for change in changes:
                        outcomes.append(self._write(change))
                except Exception as error:
                    outcomes.append(error)
                changes = steps.send(outcomes)
        except StopIteration as end:
            answer: WindowIntegrated = end.value
            return answer
        finally:
            steps.close()

    def keep_cursor(self, peer: Author, epoch: str, position: int) -> None:
        """Keep `cursor_change`. Durable when it returns."""
        self._write(cursor_change(peer, epoch, position))

    @property
    def position(self) -> int:
        """The newest arrival."""
        with self._store.read() as snapshot:
            return snapshot.log.last_arrival()

    def root(self, shares: Shares = EVERYTHING) -> bytes:
        """The root over all shared spaces, as it stands."""
        with self._store.read() as snapshot:
            self._heads.follow(snapshot)
        return self._root(self._shared(shares))

    # -- where we stand ------------------------------------------------------------------------------------

    def _shared(self, shares: Shares) -> list[tuple[str, SpaceId]]:
        return sorted(
            (n, space) for space, n in self._heads.names.items() if n in shares and space in self._heads.trees
        )

    def _root(self, shared: list[tuple[str, SpaceId]]) -> bytes:
        return root_over({space: self._heads.trees[space].root for _, space in shared})

    def _load_state(self, effect: LoadState) -> StateLoaded:
        with self._store.read() as snapshot:
            self._heads.follow(snapshot)
            shared = self._shared(effect.shares)
            theirs = [
                SpaceTips(name, (tip_of(effect.peer, head),))
                for name, space in shared
                if (head := snapshot.head(space, effect.peer)) is not None
            ]
            cursor = snapshot.local.get(_CURSOR, effect.peer.hex())
            branches = self._branches.of_former_lives(snapshot, effect)
        return StateLoaded(
            root=self._root(shared),
            roots=tuple(SpaceRoot(name, self._heads.trees[space].root) for name, space in shared),
            position=self._heads.position,
            cursor=cursor["position"] if cursor is not None and cursor["epoch"] == effect.peer_epoch else 0,
            theirs=tuple(theirs),
            branches=branches,
        )

    # -- what we can offer ---------------------------------------------------------------------------------

    def _load_heads(self, effect: LoadHeads) -> HeadsLoaded:
        space = space_id(self._network_id, effect.space)
        with self._store.read() as snapshot:
            self._heads.follow(snapshot)
        chains = sorted((author, chain) for chain, author in self._store.names.chains_of(space))
        tips = [
            tip_of(author, head)
            for author, chain in chains
            if author > effect.after_author and (head := self._heads.told(chain)) is not None
        ]
        chosen = tuple(tips[: effect.count_max])
        return HeadsLoaded(self._heads.position, chosen, len(chosen) == len(tips))

    def _load_arrivals(self, effect: LoadArrivals) -> ArrivalsLoaded:
        with self._store.read() as snapshot:
            self._heads.follow(snapshot)
            first: dict[Chain, int] = {}
            position, is_last = effect.after_position, True
            for read, (number, chain, seq) in enumerate(
                snapshot.log.grown(after_number=effect.after_position)
            ):
                if chain not in first and chain != NO_CHAIN:
                    if len(first) == effect.count_max or read >= _ARRIVALS_READ_MAX:
                        is_last = False
                        break
                    first[chain] = seq
                position = number
            if is_last:
                position = max(position, snapshot.log.last_arrival())  # of what is no commit nobody is told
            fresh: list[Fresh] = []
            for chain, seq in first.items():
                space, author = self._store.names.space_of_chain(chain), self._store.names.author(chain)
                name, head = self._heads.names.get(space), self._heads.told(chain)
                if name is not None and name in effect.shares and head is not None and head.seq >= seq:
                    fresh.append(Fresh(name, seq, tip_of(author, head)))
            if self._store.basis.forks:
                forks = {(f.space, f.tip.author): f for f in self._branches.known_since(snapshot, effect)}
                fresh = [f for f in fresh if (f.space, f.tip.author) not in forks] + list(forks.values())
        fresh.sort(key=lambda found: (found.space, found.tip.author))
        return ArrivalsLoaded(position, is_last, tuple(fresh))

    def _find_lacking(self, effect: FindLacking) -> LackingFound:
        lacking: list[tuple[int, int]] = []
        forked: list[tuple[int, int]] = []
        proofs: list[bytes] = []
        told = [(space, tip) for space, tips in effect.spaces for tip in tips]
        forks = self._store.basis.forks
        incomplete: list[tuple[int, int]] = []
        with self._store.read() as snapshot:
            self._heads.follow(snapshot)
            for index, (name, tip) in enumerate(told):
                space = space_id(self._network_id, name)
                key = space, tip.author
                head = snapshot.head(space, tip.author)
                seq = head.seq if head is not None else 0
                if key in forks and tip.seq >= forks[key]:
                    proofs += self._branches.proofs(snapshot, key, tip)[: PROOFS_MAX - len(proofs)]
                    if tip.author in self._lives and self._branches.is_rival(snapshot, key, tip):
                        forked.append((index, forks[key] - 1))
                    elif (held := self._waiting.held_seq(key, seq)) < forks[key] - 1:
                        lacking.append((index, held))  # what all branches have in common
                elif key in self._suspects:
                    forked.append((index, min(self._suspects[key], tip.seq - 1)))
                elif is_mark(tip):  # of a fork that is not known here, or a lower one than is
                    forked.append((index, min(self._waiting.held_seq(key, seq), tip.seq - 1)))
                elif tip.seq > (held := self._waiting.held_seq(key, seq)):
                    if held < self._limit_of(key):
                        lacking.append((index, held))
                elif tip.seq <= seq:
                    ours = snapshot.header_hash(space, tip.author, tip.seq)
                    if ours is None or ours[:DEP_HASH_BYTES] != tip.hash_prefix:
                        forked.append((index, tip.seq - 1))
                    elif (first := self._first_missing(key)) is not None and first <= tip.seq:
                        incomplete.append((index, first - 1))
        if not (lacking or forked):  # else what accounts for what is missing may be about to come
            lacking = incomplete
        return LackingFound(tuple(lacking), tuple(forked), tuple(proofs))

    def _first_missing(self, key: ChainKey) -> int | None:
        chain = self._store.names.chain(*key)
        return None if chain is None else self._heads.first_missing(chain)

    def _limit_of(self, key: ChainKey) -> int:
        """The last seq of a chain that is worth asking for.

        What is above a cut does not count, and is asked for only if something that waits rests on it.
        """
        space, author = key
        cuts = [
            c.of_chain(space, author[NODE_ID_BYTES:]) for c in self._store.members.cuts_of(node_of(author))
        ]
        if space == self._store.system:
            return SEQ_MAX  # a revocation stands above any cut
        limit = min((cut.seq if cut is not None else 0 for cut in cuts), default=SEQ_MAX)
        return max(limit, self._waiting.cause_seq(key))

    # -- what we get ---------------------------------------------------------------------------------------

    def integrate(self, effect: IntegrateWindow, runs: list[Run] | ProtocolError) -> Steps:
        """Take a window in, whose runs are `unpacked`: from any thread, since that is most of the work."""
        if isinstance(runs, ProtocolError):
            return WindowIntegrated(self._heads.position, fault=str(runs))
        if any(c.stubs for run in runs for c in run.commits if c.header.space == self._store.system):
            return WindowIntegrated(self._heads.position, fault="a statement that was dropped")
        heard = {space_id(self._network_id, name): name for name in effect.names if name in effect.shares}
        ours = {space: name for space, name in self._heads.names.items() if name in effect.shares}
        spaces = {run.commits[0].header.space for run in runs}
        if spaces - heard.keys() - ours.keys():
            return WindowIntegrated(
                self._heads.position, fault="a run of a space that is not shared on this link"
            )
        met = self._applications([heard[space] for space in spaces - ours.keys()])
        tips = tuple((key_of(run.commits[0]), run.commits[-1].header.seq) for run in runs)
        taken = yield from self._take_in(runs, met)
        return WindowIntegrated(
            self.position,
            tips,
            taken.integrated,
            sum(len(run.commits) for run in self._waiting.runs.values()),
            tuple(taken.forks),
            tuple(taken.refused),
            bodies=taken.bodies,
        )

    def prepare(self, runs: list[Run] | ProtocolError) -> None:
        """Plan how a window is taken in, while the one before it is: then the writer need not wait for that."""
        if not isinstance(runs, ProtocolError):
            self._planner.plan_ahead(runs)

    def settle(self) -> Steps:
        """Take in what waits without need, as after the node or the disk failed in the middle of a window."""
        taken = yield from self._take_in([], [])
        return WindowIntegrated(self.position, (), taken.integrated)

    def _take_in(self, runs: list[Run], met: list[str]) -> Generator[Sequence[AnyChange], Any, _Taken]:
        """Integrate these runs and what has waited, as far as causes go, and keep the rest.

        The signature at the end of a run vouches for all of it, so a run that is integrated in several slices
        is kept whole until the last of them: whatever happens in between, each commit here can be proved.
        """
        self.is_unsettled = True
        taken = _Taken()
        yield from self._note_branches(runs, taken)
        plan = self._planner.plan([*self._waiting.runs.values(), *runs])
        if not plan.slices:
            yield from self._keep_waiting(plan.begun)
        if met and not plan.slices:  # what waits may be integrated with a window of other spaces
            yield from _written(Received((), met))
        proofs = {key_of(run.commits[0]): run for run in runs}
        for number, some in enumerate(together(plan.slices)):
            changes = [Received(commits, met) for commits in some]
            kept = plan.kept if some[-1] is plan.slices[-1] else plan.begun
            if not number or kept is plan.kept:
                changes[0].local = self._keeping(kept)
            outcomes: list[list[Outcome] | Exception] = yield changes
            if changes[0].local is not None and not isinstance(outcomes[0], Exception):
                self._waiting.settle(kept)
            yield from self._note(changes, outcomes, proofs, taken)
        # What waits of a chain that was left may be the one proof of what is here: if none of it was tried, it stays.
        waited = self._waiting.runs
        kept = {k: run for k, run in plan.kept.items() if k not in taken.left or run == waited.get(k)}
        yield from self._keep_waiting(kept)
        rivals = self._rivals(runs)
        if rivals:
            yield from _written(lambda local: keep_branch(local, rivals))
        if taken.forks and self._waiting.runs:  # what waits for a branch need wait no more
            again = yield from self._take_in([], [])
            taken.integrated, taken.bodies = (
                taken.integrated + again.integrated,
                taken.bodies + again.bodies,
            )
            taken.refused += again.refused
        self._planner.done()
        self.is_unsettled = False
        return taken

    def _note(
        self,
        changes: Sequence[Received],
        outcomes: Sequence[list[Outcome] | Exception],
        proofs: dict[ChainKey, Run],
        taken: _Taken,
    ) -> Generator[Sequence[AnyChange], Any, None]:
        """What became of some slices. Raises what went wrong with the first that was not stored."""
        for change, found in zip(changes, outcomes, strict=False):  # none follows one that failed
            if isinstance(found, Exception):
                raise found
            for commit, outcome in zip(change.commits, found, strict=True):
                if isinstance(outcome, Integrated):
                    taken.integrated += 1
                    taken.bodies += len(commit.bodies)
                elif not isinstance(outcome, Known):
                    yield from self._note_left(commit, outcome, proofs, taken)

    def _note_left(
        self, commit: Commit, outcome: Outcome, proofs: dict[ChainKey, Run], taken: _Taken
    ) -> Generator[Sequence[AnyChange], Any, None]:
        """A commit that could not be integrated: nothing more of its chain can."""
        key, seq = key_of(commit), commit.header.seq
        if key in taken.left:
            return
        match outcome:
            case Fork():
                taken.left.add(key)
                run = proofs.get(key)
                if run is not None and all(held.hash != commit.hash for held in run.commits):
                    run = None  # it had waited here
                forked_at = self._store.basis.forks.get(key)
                if run is not None and key[0] == self._store.system and forked_at is not None:
                    yield from self._keep_branch(run, min(seq, forked_at), taken)
                elif run is not None and self._is_fork_point(commit):
                    self._suspects.pop(key, None)
                    if seq < self._store.basis.forks.get(key, seq + 1):
                        yield from _written(Forked(run, seq))
                        taken.forks.append(ForkFound(*key, seq, run.encode()))
                else:
                    self._suspect(key, (run.commits[0].header.seq if run is not None else seq) // 2)
            case Refused(rule):
                taken.left.add(key)
                taken.refused.append(ChainRefused(*key, seq, rule))
            case Waiting():
                taken.left.add(key)
                taken.refused.append(ChainRefused(*key, seq, "cause_refused"))

    def _note_branches(self, runs: Sequence[Run], taken: _Taken) -> Generator[Sequence[AnyChange], Any, None]:
        """What can be told of forks from the runs themselves, whether or not they can be integrated.

        Of two runs of which neither has its causes here, signatures prove as much as of what is in the log. And of a
        chain of `system` a branch may come piece by piece.
        """
        for run in runs:
            key, waiting = key_of(run.commits[0]), self._waiting.runs.get(key_of(run.commits[0]))
            seq = _parting(waiting, run) if waiting is not None else None
            if waiting is not None and seq is not None and seq < self._store.basis.forks.get(key, seq + 1):
                yield from _written(Forked(waiting, seq))
                yield from _written(Forked(run, seq))
                taken.forks.append(ForkFound(*key, seq, run.encode()))
            elif key[0] == self._store.system and key in self._store.basis.forks:
                with self._store.read() as snapshot:
                    first = run.commits[0].header
                    before = snapshot.header_hash(*key, first.seq - 1) if first.seq > 1 else NO_PREVIOUS
                if before != first.previous:
                    yield from self._keep_branch(run, self._store.basis.forks[key], taken)

    def _keep_branch(self, run: Run, seq: int, taken: _Taken) -> Generator[Sequence[AnyChange], Any, None]:
        """Another branch of a chain of `system` that is known to fork: its statements are taken in, and told on."""
        with self._store.read() as snapshot:
            is_held = snapshot.holds_branch(run)
        if not is_held:
            header = run.commits[0].header
            yield from _written(Forked(run, seq))
            taken.forks.append(ForkFound(header.space, header.author, seq, run.encode()))

    def _rivals(self, runs: list[Run]) -> list[Commit]:
        """Commits of other branches of chains that this node has written: to be said again by who it is now."""
        forks, found = self._store.basis.forks, list[Commit]()
        with self._store.read() as snapshot:
            for run in runs:
                key = key_of(run.commits[0])
                if key[1] in self._lives and key in forks and key[0] != self._store.system:
                    found += [
                        commit
                        for commit in run.commits
                        if commit.header.seq >= forks[key]
                        and snapshot.header_hash(*key, commit.header.seq) != commit.hash
                    ]
        return found

    def _is_fork_point(self, commit: Commit) -> bool:
        """Whether a commit with the seq of one that is here continues what is here."""
        header = commit.header
        with self._store.read() as snapshot:
            ours = snapshot.header_hash(header.space, header.author, header.seq)
            before = snapshot.header_hash(header.space, header.author, header.seq - 1) or NO_PREVIOUS
        return ours is not None and ours != commit.hash and header.previous == before

    def _suspect(self, key: ChainKey, after_seq: int) -> None:
        """The chain forks somewhere: the next time, ask for it from further below."""
        if len(self._suspects) >= SUSPECTS_MAX:
            self._suspects.clear()
        self._suspects[key] = min(after_seq, self._suspects.get(key, after_seq + 1) // 2)

    def _applications(self, names: list[str]) -> list[str]:
        """The applications of spaces that come here for the first time."""
        prefix = application_space_name("")
        return sorted(name[len(prefix) :] for name in names if name.startswith(prefix))

    def _keep_waiting(self, runs: dict[ChainKey, Run]) -> Generator[Sequence[AnyChange], Any, None]:
        """Exactly these wait from now on."""
        keep = self._keeping(runs)
        if keep is not None:
            yield from _written(keep)
            self._waiting.settle(runs)

    def _keeping(self, runs: dict[ChainKey, Run]) -> LocalChange | None:
        """What keeps these and no others; None if nothing changes. Call `settle` once it is durable."""
        if runs == self._waiting.runs:
            return None

        def keep(local: LocalWriter) -> None:
            self._waiting.keep(local, runs)

        return keep


def _written(change: AnyChange) -> Generator[Sequence[AnyChange], Any, None]:
    """Have one change written. Raises what it failed with."""
    (outcome,) = yield [change]
    if isinstance(outcome, Exception):
        raise outcome


def unpacked(
    effect: IntegrateWindow, on_step: Callable[[], None] = lambda: None
) -> list[Run] | ProtocolError:
    """The runs of a window, every signature verified, or what is wrong with it. About 40 µs a commit."""
    try:
        return unpack_window(effect.data, on_step)
    except ProtocolError as error:
        return error


def cursor_change(peer: Author, epoch: str, position: int) -> LocalChange:
    """Keeps that all the peer's record held up to this arrival is here.

    An older cursor costs an offer of what has arrived since, so a live link need not keep every one.
    """
    return lambda local: local.put(_CURSOR, peer.hex(), {"epoch": epoch, "position": position})


def _parting(one: Run, other: Run) -> int | None:
    """The first seq at which two runs of one chain hold different commits after the same one; None if nowhere."""
    held = {commit.header.seq: commit for commit in one.commits}
    for commit in other.commits:
        header = commit.header
        ours = held.get(header.seq)
        if ours is not None and ours.hash != commit.hash and ours.header.previous == header.previous:
            return header.seq
    return None
