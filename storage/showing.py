"""What this node shows of `system` to a peer that does not know it, and what it believes of a peer that it does not.

Room: reading statements for `protocol.joining`, and judging evidence against what is here. What is shown to
a stranger is what gives this node its rights, with its causal past: statements of membership, and of those no
more than it takes.
"""

from protocol.commit import Commit, Header
from protocol.evidence import Evidence
from protocol.ids import Author, NodeId, node_of
from protocol.joining import admission_reason
from protocol.meeting import LoadStatements, Reason, StatementsLoaded, WriteAdmission
from protocol.membership import Members
from protocol.packing import pack_window
from protocol.window import Run
from storage.changes import Said
from storage.errors import StoreDamaged
from storage.runs import RunReader, Stretch, WaitingRoom
from storage.store import Snapshot, Store

SHOWN_TARGET_BYTES = 1 << 20  # of one message; a slow line needs some seconds for it
RUNS_SHOWN_MAX = 1_024  # of one message


def load_statements(store: Store, effect: LoadStatements) -> StatementsLoaded:
    """Some commits of `system` that the effect asks for. Blocks on the disk."""
    with store.read() as snapshot:
        needed = _needed(store, snapshot, effect)
        reader = RunReader(snapshot, store.names, WaitingRoom(snapshot))
        runs: dict[Author, Stretch] = {}
        size, is_last = 0, True
        for author, seq in needed.items():
            after_seq = effect.shown.get(author, 0)
            while after_seq < seq:
                stretch = reader.stretch((store.system, author), after_seq)
                if stretch is None:
                    raise StoreDamaged("a statement cannot be proved: run `civicnode doctor`")
                run = runs.get(author, Stretch())
                is_full = len(runs) >= RUNS_SHOWN_MAX or size + stretch.size_bytes > SHOWN_TARGET_BYTES
                if runs and (is_full or not run.fits_with(stretch)):
                    is_last = False
                    break
                run.extend(stretch)
                runs[author] = run
                size += stretch.size_bytes
                after_seq = stretch.commits[-1].header.seq
        branches = [run for author in needed for run in snapshot.log.branches(store.system, author)]
        if not runs:
            some = branches[effect.branches : effect.branches + 1]
            is_last = effect.branches + len(some) == len(branches)
            return StatementsLoaded(pack_window(some) if some else b"", (), is_last, len(some))
        is_last &= effect.branches == len(branches)
        window = pack_window([Run(tuple(run.commits)) for run in runs.values()])
        return StatementsLoaded(
            window, tuple((author, run.commits[-1].header.seq) for author, run in runs.items()), is_last
        )


def _needed(store: Store, snapshot: Snapshot, effect: LoadStatements) -> dict[Author, int]:
    """The last seq to show of each chain."""
    if effect.everything:
        heads = ((a, snapshot.head(store.system, a)) for _, a in store.names.chains_of(store.system))
        return {author: head.seq for author, head in heads if head is not None}
    members = store.members
    needed: dict[Author, int] = {}
    for link in members.at(members.rooted_in(effect.node)).links:
        head = snapshot.head(store.system, link.author)  # on another branch may be more than in the log
        seq = min(link.seq, head.seq) if head is not None else 0
        needed[link.author] = max(seq, needed.get(link.author, 0))
    return needed


def statements(store: Store) -> list[Commit]:
    """Every commit of `system` that is here, nearly in causal order. Blocks on the disk."""
    with store.read() as snapshot:
        found = [
            commit
            for chain, _ in store.names.chains_of(store.system)
            for commit in snapshot.log.commits(chain)
        ]
        for _, author in store.names.chains_of(store.system):
            for run in snapshot.log.branches(store.system, author):
                found += run.commits
    return sorted(found, key=lambda commit: commit.header.hlc)


def judge_evidence(store: Store, evidence: Evidence, node: NodeId) -> Reason | None:
    """Why a peer is no member by what it shows and what is known here together; None if it is one.

    In memory: nothing is stored. Takes some seconds for the most that can be shown; from any thread.
    Raises `ProtocolError` if the evidence is of another network.
    """
    if store.members.is_revoked(node):
        return Reason.REVOKED
    members = evidence.fold(statements(store))
    if members.role_of(node) is None:
        return Reason.NO_ROLE
    past = members.at(members.rooted_in(node))
    return None if evidence.is_needed(past) else Reason.TOO_MUCH


def says_admission(effect: WriteAdmission, author: Author, now_ms: int) -> Said:
    """What writes an admission down. Its result is the commit, or it raises `NotAdmitted`."""

    def make(members: Members, header: Header) -> bytes:
        reason = admission_reason(members, node_of(author), effect.admit, now_ms)
        if reason is not None:
            raise NotAdmitted(reason)
        return effect.body

    return Said(make)


class NotAdmitted(Exception):
    """The admission would be invalid, or the ticket has expired by this node's clock."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.text)
        self.reason = reason
