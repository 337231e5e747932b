"""What somebody shows of a network's membership: commits of `system`, taken in piece by piece, believed at the end.

Room: checking and folding in memory, bounded. Who shows what, and when, is
`joining`'s; what stands is `membership`'s. Nothing that is shown is stored before
it adds up: a stranger's bytes end here.
"""

from collections.abc import Sequence

from protocol.causal import causal_order
from protocol.commit import Commit
from protocol.errors import Malformed, ProtocolError, TooLarge
from protocol.exchange import ChainKey
from protocol.ids import SYSTEM_SPACE_NAME, NetworkId, space_id
from protocol.membership import Genesis, Members, decode_genesis, read_system_commit
from protocol.packing import unpack_window
from protocol.window import Run

SHOWN_SIZE_MAX_BYTES = 64 << 20  # in all; a thousand devices come to half a megabyte
SHOWN_COMMITS_MAX = 16_384  # in all; folding them takes some seconds


class OtherNetwork(ProtocolError):
    """What is shown does not begin with the genesis of the network that it should be of."""


class Incomplete(ProtocolError):
    """What is shown names commits that it does not show."""


class Evidence:
    """Commits that one peer has shown. For one thread at a time."""

    def __init__(self, network_id: NetworkId) -> None:
        self.network_id = network_id
        self.runs: list[Run] = []
        self.commits: list[Commit] = []  # after `fold`: causes first, without those whose causes are missing
        self.is_whole = False  # after `fold`: nothing was missing
        self._system = space_id(network_id, SYSTEM_SPACE_NAME)
        self._size_bytes = 0
        self._count = 0

    def take(self, data: bytes) -> None:
        """Take in what one message shows, signatures verified. About 40 µs a run. Raises `ProtocolError`."""
        if not data:
            return
        for run in unpack_window(data):
            if run.commits[0].header.space != self._system:
                raise Malformed("shown: commits of another space than this network's `system`")
            for commit in run.commits:
                if any(body is None for body in commit.bodies):
                    raise Malformed("shown: a statement that was dropped")
                self._size_bytes += len(commit.header_bytes) + sum(len(body or b"") for body in commit.bodies)
            self._count += len(run.commits)
            self.runs.append(run)
        if self._size_bytes > SHOWN_SIZE_MAX_BYTES:
            raise TooLarge("shown, in bytes", size=self._size_bytes, size_max=SHOWN_SIZE_MAX_BYTES)
        if self._count > SHOWN_COMMITS_MAX:
            raise TooLarge("commits shown", size=self._count, size_max=SHOWN_COMMITS_MAX)

    def fold(self, known: Sequence[Commit] = ()) -> Members:
        """What one knows who has seen all this and `known`, commits that are here.

        Raises `OtherNetwork` if the genesis of the network is not among them.
        """
        reach: dict[ChainKey, int] = {}
        for commit in known:
            key = commit.header.space, commit.header.author
            reach[key] = max(reach.get(key, 0), commit.header.seq)
        order = causal_order(self.runs, lambda key: reach.get(key, 0), system=self._system)
        genesis = self._genesis([*known, *order.ready])
        members = Members.of_genesis(genesis).with_commits(
            read_system_commit(commit, genesis) for commit in known
        )
        self.commits, waiting = [], order.ready
        while (
            waiting
        ):  # by hash: a branch whose beginning is not here is left, and what comes after one comes later
            left: list[Commit] = []
            for commit in waiting:
                read = read_system_commit(commit, genesis)
                if all(map(members.knows, read.parents)):
                    members = members.with_commits([read])
                    self.commits.append(commit)
                else:
                    left.append(commit)
            waiting = left if len(left) < len(waiting) else []
        self.is_whole = len(self.commits) == self._count
        return members

    def is_needed(self, past: Members) -> bool:
        """Whether every run begins with a commit of `past`: nothing is shown that has no bearing on it."""
        needed = {(link.author, link.seq) for link in past.links}
        firsts = (run.commits[0].header for run in self.runs)
        return all((header.author, header.seq) in needed for header in firsts)

    def _genesis(self, commits: Sequence[Commit]) -> Genesis:
        for commit in commits:
            body = commit.bodies[0] if commit.header.seq == 1 and commit.bodies else None
            if body is None:
                continue
            try:
                genesis = decode_genesis(body)
            except ProtocolError:
                continue
            if genesis.network_id == self.network_id:
                return genesis
        raise OtherNetwork("what is shown does not begin with the genesis of this network")
