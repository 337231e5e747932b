"""Which head of every chain two nodes compare, offer and must both have; and the roots over them.

Room: follows the order of arrival and what is known of members and forks, and
keeps the trees of `protocol.roots` up with both. What counts is `judging`'s; who
is told is `exchange`'s.

Of a chain both must have what counts and, counting or not, what that rests on. What
only some nodes hold, because they had taken it before they knew, is not told. Who lacks
bodies of a chain for which no erasure accounts has another root than who has them. Of a
forked chain it is told that it forks, and where: what its branches hold is not the
same everywhere, but whoever is to integrate what was built on one must know of it. In
`system` all branches are to be everywhere, since a statement on one may stand.
"""

from collections.abc import Iterable, Mapping, Sequence

from protocol.commit import DEP_HASH_BYTES, Commit
from protocol.ids import SYSTEM_SPACE_NAME, Author, NetworkId, SpaceId, application_space_name, space_id
from protocol.integrate import Head, Integrated
from protocol.messages import Tip
from protocol.roots import HeadTree, fork_mark, lacking_hash
from storage.arrivals import NO_CHAIN, Arrival
from storage.judging import Basis, effective_seq
from storage.names import Chain, Names
from storage.store import Snapshot


class Heads:
    """What is to be told of each chain, as of the last snapshot that was followed. Not thread-safe."""

    def __init__(self, network_id: NetworkId, names: Names, system: SpaceId) -> None:
        self._network_id = network_id
        self._chains = names
        self._system = system
        self._basis: Basis | None = None  # by which the following was found
        self._effective: dict[Chain, int] = {}
        self._needed: dict[Chain, int] = {}  # the last commit that one which counts has in its past
        self._told: dict[Chain, Head] = {}
        self._missing: dict[Chain, list[tuple[int, int]]] = {}  # seq and index of bodies, ascending
        self._missing_stamp = 0
        self.trees: dict[SpaceId, HeadTree] = {}
        self.names: dict[SpaceId, str] = {}
        self.position = 0  # the newest arrival

    def follow(self, snapshot: Snapshot) -> None:
        """Bring everything up to the snapshot. Costs a few reads for each chain that has grown."""
        names = [SYSTEM_SPACE_NAME, *map(application_space_name, snapshot.applications())]
        self.names = {space_id(self._network_id, name): name for name in names}
        changed = self._find_grown(snapshot)
        if snapshot.basis is not self._basis:  # any commit may count otherwise now
            self._basis = snapshot.basis
            self._effective, self._needed, self._told, self.trees = {}, {}, {}, {}
            changed = {chain for chain, _ in self._chains.authors()}
        changed |= self._find_missing(snapshot)
        for chain in sorted(changed | self._find_counting(snapshot, sorted(changed))):
            self._tell(snapshot, chain)

    def _find_grown(self, snapshot: Snapshot) -> set[Chain]:
        """Chains of which something has arrived; all there are, where that is quicker to look up."""
        last = snapshot.log.last_arrival()
        arrived = last - self.position
        after_number, self.position = self.position, last
        chains = self._chains.authors()
        if arrived > len(
            chains
        ):  # as after a catch-up, of which each arrival would be read while others wait
            space_of = self._chains.space_of_chain
            return {chain for chain, author in chains if snapshot.head(space_of(chain), author) is not None}
        grown = {chain for _, chain, _ in snapshot.log.grown(after_number=after_number)}
        return grown - {NO_CHAIN}

    def told(self, chain: Chain) -> Head | None:
        """The head that is told of a chain; its hlc is not set. None if nothing is told."""
        return self._told.get(chain)

    def first_missing(self, chain: Chain) -> int | None:
        """The first commit of a chain of which a body is missing here for which no erasure accounts."""
        missing = self._missing.get(chain)
        return missing[0][0] if missing else None

    def _find_missing(self, snapshot: Snapshot) -> set[Chain]:
        """Look up which bodies are missing, if that may have changed. The chains of which others are than before."""
        stamp = snapshot.log.missing_stamp()
        if stamp == self._missing_stamp:
            return set()
        before, self._missing, self._missing_stamp = self._missing, {}, stamp
        for chain, seq, index, filled_with in snapshot.log.missing():
            if not filled_with:
                self._missing.setdefault(chain, []).append((seq, index))
        chains = before.keys() | self._missing.keys()
        return {chain for chain in chains if before.get(chain) != self._missing.get(chain)}

    def _find_counting(self, snapshot: Snapshot, chains: Iterable[Chain]) -> set[Chain]:
        """Look up how far chains count. Others of which more is needed for that."""
        assert self._basis is not None
        grown: set[Chain] = set()
        for chain in chains:
            space = self._chains.space_of_chain(chain)
            if space == self._system:
                continue
            seq = self._effective[chain] = effective_seq(snapshot, chain, self._basis)
            for other, known in snapshot.log.known_by(space, self._chains.author(chain), seq) if seq else ():
                number = self._chains.chain(space, other)
                if number is not None and known > self._needed.get(number, 0):
                    self._needed[number] = known
                    if known > self._effective.get(number, 0):
                        grown.add(number)
        return grown

    def _tell(self, snapshot: Snapshot, chain: Chain) -> None:
        space, author = self._chains.space_of_chain(chain), self._chains.author(chain)
        head = snapshot.head(space, author)
        assert self._basis is not None
        seq, digest = (head.seq, head.hash) if head is not None else (0, None)
        if space != self._system:
            seq = min(seq, max(self._effective.get(chain, 0), self._needed.get(chain, 0)))
        forked_at = self._basis.forks.get((space, author))
        if head is not None and seq != head.seq:
            digest = snapshot.header_hash(space, author, seq)
        if forked_at is not None:
            tips = snapshot.log.branch_tips(space, author) if space == self._system else ()
            seq, digest = forked_at, fork_mark(author, forked_at, tips)
        if seq and digest is not None:
            self._told[chain] = Head(seq, digest, 0)
            missing = [place for place in self._missing.get(chain, ()) if place[0] <= seq]
            leaf = lacking_hash(digest, missing) if missing and forked_at is None else digest
            self.trees.setdefault(space, HeadTree()).update(author, seq, leaf)


Plain = tuple[str, Commit, int]  # application, commit, arrival


def plain(done: Sequence[tuple[Integrated, Arrival]], applications: Mapping[SpaceId, str]) -> list[Plain]:
    """Commits that were stored together, all of which count: of each chain the newest is what is told.

    Empty if something came in between, or is of no application: then what is told is to be looked up.
    """
    found: list[Plain] = []
    for finished, arrival in done:
        application = applications.get(finished.commit.header.space)
        if application is None or (found and arrival.number != found[-1][2] + 1):
            return []
        found.append((application, finished.commit, arrival.number))
    return found


def tip_of(author: Author, head: Head) -> Tip:
    """A head as peers are told of it."""
    return Tip(author, head.seq, head.hash[:DEP_HASH_BYTES])
