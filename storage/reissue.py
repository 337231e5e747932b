"""Saying again what a node wrote on branches of its own chain that do not count any more.

Room: which chains this record has written as somebody that the node is no more, the branches of them that others
hold, and the bodies to be said. What one document needs is `protocol.reissue`'s; `integrator` signs and stores it,
`exchange` brings the branches.

    local "branch"  space, author, seq and hash, hex       -> {header, bodies}: of a branch that is not in the log
    local "said"    space and author, hex                  -> {state}: of what has been said again, all

A node that goes back in time and writes before it notices holds in its log what it wrote last, and gets what it had
written before from a peer: both are its own, and both are said again. What has been is known by its salt, which
this node's key makes of the commit that was lost and nobody else can tell from a drawn one: so also a second
rollback, or a copy of this node, finds what the first has said already.
"""

import hmac
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

from protocol.body import SALT_BYTES, SHARED_KINDS, Body, Dot, Kind, Operation, decode_body, name_in
from protocol.commit import DEP_HASH_BYTES, Commit, Header, decode_header, header_hash
from protocol.document import Document
from protocol.encoding import encode
from protocol.errors import ProtocolError
from protocol.ids import Author, SpaceId, node_of
from protocol.integrate import Placed, Verdict, grow
from protocol.keys import KeyPair
from protocol.limits import BODIES_PER_COMMIT_MAX
from protocol.membership import Judgement, Role, Standing
from protocol.reissue import Lost
from protocol.yjs_update import Update, client_id, decode_update, encode_update
from storage.judging import Places, documents_of
from storage.lives import lives
from storage.local import LocalReader, LocalWriter
from storage.names import Chain

if TYPE_CHECKING:
    from storage.store import Batch, Snapshot

ChainKey = tuple[SpaceId, Author]
DocumentName = tuple[str, str]  # model and id, in a space
_BRANCH, _SAID = "branch", "said"
_MARK_BYTES = 12  # of a salt; the rest numbers the bodies of one document
_MARK_DOMAIN = b"civicnode again 1\0"


# -- what is kept for it ----------------------------------------------------------------------------------------


def keep_branch(local: LocalWriter, commits: Iterable[Commit]) -> None:
    """Keep verified commits of one of these that are not those of the log."""
    for commit in commits:
        header = commit.header
        value = {"header": commit.header_bytes, "bodies": list(commit.bodies)}
        local.put(_BRANCH, _place((header.space, header.author), header.seq, commit.hash), value)


def drop_from_branches(local: LocalWriter, space: SpaceId, name: bytes) -> None:
    """A document is erased: keep nothing of it here either. `name` is as bodies hold it."""
    for place, value in list(local.scan(_BRANCH, space.hex())):
        bodies = [None if body is not None and name_in(body) == name else body for body in value["bodies"]]
        if bodies != value["bodies"]:
            local.put(_BRANCH, place, {**value, "bodies": bodies})


def is_kept(local: LocalReader, key: ChainKey, seq: int, hash_prefix: bytes) -> bool:
    return local.get(_BRANCH, _place(key, seq, hash_prefix)) is not None


def _place(key: ChainKey, seq: int, digest: bytes) -> str:
    return (key[0] + key[1] + seq.to_bytes(8, "big") + digest[:DEP_HASH_BYTES]).hex()


# -- branches ---------------------------------------------------------------------------------------------------


class _Lost(NamedTuple):
    """A commit that counts no more."""

    header: Header
    hash: bytes


@dataclass(slots=True)
class Branch:
    """What one branch of a forked chain of ours holds from the fork on."""

    key: ChainKey
    fork: int
    is_in_log: bool
    commits: dict[int, _Lost] = field(default_factory=dict)

    def body(self, snapshot: "Snapshot", seq: int, index: int) -> bytes | None:
        if self.is_in_log:
            chain = snapshot.names.chain(*self.key)
            return None if chain is None else snapshot.log.body(chain, seq, index)
        kept = snapshot.local.get(_BRANCH, _place(self.key, seq, self.commits[seq].hash))
        body: bytes | None = kept["bodies"][index] if kept is not None else None
        return body


def unsaid(snapshot: "Snapshot") -> list[tuple[ChainKey, str]]:
    """Forked chains of ours of which not all has been said again, each with the state that it is in."""
    basis = snapshot.basis
    ours = lives(snapshot.local) if basis is not None and basis.forks else frozenset()
    if basis is None or not ours:
        return []
    found: list[tuple[ChainKey, str]] = []
    for key, fork in sorted(basis.forks.items()):
        if key[1] in ours:
            places = "".join(place for place, _ in snapshot.local.scan(_BRANCH, (key[0] + key[1]).hex()))
            state = f"{fork} {sha256(places.encode()).hexdigest()}"
            said = snapshot.local.get(_SAID, (key[0] + key[1]).hex())
            if said is None or said["state"] != state:
                found.append((key, state))
    return found


def settle(local: LocalWriter, key: ChainKey, state: str) -> None:
    """All of it has been said again, as far as it is here."""
    local.put(_SAID, (key[0] + key[1]).hex(), {"state": state})


def _branches(snapshot: "Snapshot", key: ChainKey) -> Iterator[Branch]:
    """The branch in the log, if it does not count, and the others that are kept."""
    assert snapshot.basis is not None
    names, fork = snapshot.names, snapshot.basis.forks[key]
    chain, head = names.chain(*key), snapshot.head(*key)
    if chain is not None and head is not None:
        digest = snapshot.header_hash(*key, head.seq) or b""
        judged = snapshot.judge(*key, head.seq, digest, snapshot.system_past(*key, head.seq))
        if judged.standing is Standing.FORKED:
            branch = Branch(key, fork, is_in_log=True)
            for seq in range(fork, head.seq + 1):
                header = snapshot.log.header_fields(chain, seq)
                branch.commits[seq] = _Lost(header, snapshot.header_hash(*key, seq) or b"")
            yield branch
    kept: dict[bytes, _Lost] = {}
    for place, value in snapshot.local.scan(_BRANCH, (key[0] + key[1]).hex()):
        header = decode_header(value["header"])
        kept[bytes.fromhex(place[-2 * DEP_HASH_BYTES :])] = _Lost(header, header_hash(value["header"]))
    continued = {lost.header.previous[:DEP_HASH_BYTES] for lost in kept.values()}
    for prefix in sorted(kept.keys() - continued):
        branch = Branch(key, fork, is_in_log=False)
        lost = kept.get(prefix)
        while lost is not None and lost.header.seq >= fork:
            branch.commits[lost.header.seq] = lost
            lost = kept.get(lost.header.previous[:DEP_HASH_BYTES])
        if fork in branch.commits:
            branch.commits = dict(sorted(branch.commits.items()))
            yield branch


@dataclass(slots=True)
class _BranchView:
    """What commits have seen of others, those of a branch that is not in the log included; and of the branch itself."""

    snapshot: "Snapshot"
    branch: Branch
    sightings: "_Sightings"
    _known: list[tuple[int, dict[Author, int]]] = field(default_factory=list)  # from a seq on, ascending

    def knows(self, space: SpaceId, author: Author, seq: int, other: Author) -> int:
        branch = self.branch
        if other == branch.key[1] and author != other:
            return max(self.snapshot.knows(space, author, seq, other), self.sightings.of_author(author, seq))
        if branch.is_in_log or author != branch.key[1] or seq < branch.fork:
            return self.snapshot.knows(space, author, seq, other)
        if not self._known:
            self._known = list(self._grown())
        return self._known[bisect_right(self._known, seq, key=lambda known: known[0]) - 1][1].get(other, 0)

    def blind_from(self, space: SpaceId, author: Author) -> int | None:
        return None if author == self.branch.key[1] else self.snapshot.blind_from(space, author)

    def written_by(self, space: SpaceId, model: str, id: str) -> Iterable[tuple[Author, int]]:
        return self.snapshot.written_by(space, model, id)

    def _grown(self) -> Iterator[tuple[int, dict[Author, int]]]:
        (space, author), fork = self.branch.key, self.branch.fork
        known = dict(self.snapshot.known_by(space, author, fork - 1))
        yield 0, known
        for seq, lost in self.branch.commits.items():
            grown: dict[Author, int] = {}
            for dep in (dep for dep in lost.header.deps if not dep.in_system):
                for other, reached in [
                    (dep.author, dep.seq),
                    *self.snapshot.known_by(space, dep.author, dep.seq),
                ]:
                    if reached > max(known.get(other, 0), grown.get(other, 0)):
                        grown[other] = reached
            if grown:
                known = known | grown
                yield seq, known


class _Sightings:
    """How much of a branch commits of others have in their past: two branches have the same dots."""

    def __init__(self, snapshot: "Snapshot", branch: Branch) -> None:
        (space, author), names = branch.key, snapshot.names
        self._names, self._space = names, space
        # Of each chain commits with what they have seen, where that has grown; ascending.
        self._grown: dict[Chain, list[tuple[int, int]]] = {}
        for arrival in snapshot.log.arrivals(after_number=_fork_arrival(snapshot, branch.key, branch.fork)):
            chain = arrival.chain
            if names.space_of_chain(chain) != space or names.author(chain) == author:
                continue
            before = self.of(chain, arrival.seq)
            seen = [before]
            for dep in snapshot.log.header_fields(chain, arrival.seq).deps:
                lost = branch.commits.get(dep.seq) if dep.author == author else None
                if dep.in_system:
                    continue
                if lost is not None and lost.hash[:DEP_HASH_BYTES] == dep.hash_prefix:
                    seen.append(dep.seq)
                elif dep.author != author:
                    seen.append(self.of_author(dep.author, dep.seq))
            if max(seen) > before:
                self._grown.setdefault(chain, []).append((arrival.seq, max(seen)))

    def of(self, chain: Chain, seq: int) -> int:
        """The last commit of the branch that one of a chain has seen; 0 if none."""
        grown = self._grown.get(chain, [])
        place = bisect_right(grown, seq, key=lambda known: known[0])
        return grown[place - 1][1] if place else 0

    def of_author(self, author: Author, seq: int) -> int:
        chain = self._names.chain(self._space, author)
        return 0 if chain is None else self.of(chain, seq)


def _fork_arrival(snapshot: "Snapshot", key: ChainKey, fork: int) -> int:
    """An arrival before which nothing of the branches of a chain can have been seen by others."""
    chain = snapshot.names.chain(*key)
    for document in documents_of(snapshot, chain, fork) if chain is not None else ():
        for address in snapshot.documents.history(*document):
            if address.chain == chain and address.seq >= fork:
                return address.arrival - 1
    return 0


# -- what is to be said again -----------------------------------------------------------------------------------


class Reissue:
    """The documents that a forked chain of ours has touched, with what they lack. Within one transaction."""

    def __init__(self, batch: "Batch", keys: KeyPair) -> None:
        assert batch.basis is not None and batch.members is not None
        self._batch = batch
        self._members = batch.members
        self._places = Places(batch, batch.basis)
        self._secret = sha256(_MARK_DOMAIN + keys.seed).digest()

    def salts(self, space: SpaceId, name: DocumentName, digest: bytes) -> Iterator[bytes] | None:
        """Salts for bodies that say again what a document lacks, up to the commit of this hash; None if it was said."""
        mark = self._mark(space, name, digest)
        for at in self._batch.documents.history(space, *name):
            body = _decoded(
                self._batch.log.body(at.chain, at.seq, at.index), self._batch.names.author(at.chain)
            )
            if body is not None and body.salt[:_MARK_BYTES] == mark:
                return None
        return _salts(mark)

    def of(self, key: ChainKey) -> Iterator[tuple[DocumentName, Lost, Iterator[bytes]]]:
        """Each document with what of it was lost, and salts for the bodies that say it again.

        A document that two branches have touched comes twice: the second time, what the first has said is there.
        The branch that was written last comes last, so that of two values its own is shown.
        """
        space, author = key
        role = self._members.role_of(node_of(author), space)
        if role is None or role is Role.READER:
            return
        branches = [branch for branch in _branches(self._batch, key) if branch.commits]
        for branch in sorted(branches, key=lambda branch: next(reversed(branch.commits.values())).header.hlc):
            sightings = _Sightings(self._batch, branch)
            for name, places in self._documents(branch).items():
                lost = self._lost(branch, name, places, sightings, Judgement(Standing.STANDS, role))
                if lost is not None:
                    mark = self._mark(space, name, branch.commits[places[-1][0]].hash)
                    yield name, lost, _salts(mark)

    def _documents(self, branch: Branch) -> dict[DocumentName, list[tuple[int, int]]]:
        """Where the bodies of each document stand in a branch."""
        found: dict[DocumentName, list[tuple[int, int]]] = {}
        for seq, lost in branch.commits.items():
            for index in range(len(lost.header.body_hashes)):
                body = _decoded(branch.body(self._batch, seq, index), branch.key[1])
                if body is not None:
                    found.setdefault((body.model, body.id), []).append((seq, index))
        return found

    def _mark(self, space: SpaceId, name: DocumentName, digest: bytes) -> bytes:
        """What the salts of bodies begin with that say again what a document lacks, up to the commit of this hash."""
        what = encode([space, *name, digest])
        return hmac.digest(self._secret, what, "sha256")[:_MARK_BYTES]

    def _lost(
        self,
        branch: Branch,
        name: DocumentName,
        places: Sequence[tuple[int, int]],
        sightings: _Sightings,
        stands: Judgement,
    ) -> Lost | None:
        """What of a document was lost with a branch; None if nothing is left to be said."""
        batch, (space, author) = self._batch, branch.key
        held = batch.documents.get(space, *name)
        if held is not None and held.is_erased:
            return None
        marks = {self._mark(space, name, branch.commits[seq].hash): seq for seq, _ in places}
        said_seq, said = 0, dict[str, int]()
        without: list[Placed] = []
        wanted: list[Placed] = []
        own = batch.names.chain(space, author)
        for at in batch.documents.history(space, *name):
            placed = self._places.place(at)
            if at.chain == own and at.seq >= branch.fork:
                wanted += [replace(placed, judgement=stands)] if branch.is_in_log else []
                continue
            body = _decoded(placed.data, placed.header.author)
            mark = body.salt[:_MARK_BYTES] if body is not None else b""
            if body is not None and mark in marks and node_of(placed.header.author) == node_of(author):
                said_seq = max(said_seq, marks[mark])
                _count(body, said)
                continue
            if body is not None and not sightings.of(at.chain, at.seq):
                placed = _blind(placed, body, branch)
            without.append(placed)
            if body is not None and batch.log.verdict(at.chain, at.seq, at.index) is Verdict.VOID:
                wanted.append(_without_insertions(placed, body))
            else:  # it stands where it does though the branch is not there
                known_of = partial(batch.knows, space, placed.header.author, at.seq)
                wanted.append(replace(placed, known_in_fields=known_of))
        if said_seq >= places[-1][0]:
            return None
        if not branch.is_in_log:
            lost = [
                Placed(branch.commits[seq].header, index, branch.body(batch, seq, index), stands, False)
                for seq, index in places
            ]
            wanted = _merged(wanted, lost)
        view = _BranchView(batch, branch, sightings)
        before, after = Document(*name), Document(*name)
        deque(grow(view, space, before, without), maxlen=0)
        deque(grow(view, space, after, wanted), maxlen=0)

        def is_unsaid(dot: Dot) -> bool:
            return dot.author == author and dot.seq >= max(branch.fork, said_seq + 1)

        return Lost(before, after, is_unsaid, said if said_seq else None)


def _salts(mark: bytes) -> Iterator[bytes]:
    return (mark + n.to_bytes(SALT_BYTES - _MARK_BYTES, "big") for n in count())


def _decoded(data: bytes | None, author: Author) -> Body | None:
    try:
        return decode_body(data, author) if data is not None else None
    except ProtocolError:
        return None


def _count(body: Body, said: dict[str, int]) -> None:
    """Add what a body adds to counters."""
    for operation in body.operations:
        if operation[0] == Kind.INCREMENT:
            said[operation[1]] = said.get(operation[1], 0) + operation[2]


def _blind(placed: Placed, body: Body, branch: Branch) -> Placed:
    """A body whose author had seen another branch of a chain: of this one, no more than all have in common."""
    author = branch.key[1]
    if placed.header.author == author or all(d.author != author or d.seq < branch.fork for d in body.seen):
        return placed
    common = [Dot(author, branch.fork - 1, BODIES_PER_COMMIT_MAX - 1)] if branch.fork > 1 else []
    seen = tuple(sorted([*(dot for dot in body.seen if dot.author != author), *common]))
    return replace(placed, data=body._replace(seen=seen).encode(placed.header.author))


def _without_insertions(placed: Placed, body: Body) -> Placed:
    """A void body with no more than what it deletes in collaborative fields: its author says the rest again."""
    operations: list[Operation] = []
    for kind, *rest in body.operations:
        if kind in SHARED_KINDS:
            name, n, data = rest
            own = client_id(placed.header.author, body.model, body.id, name, n)
            update = decode_update(data, name, is_text=kind == Kind.TEXT)
            deletes = tuple(each for each in update.deletes if each[0] != own)
            if deletes:
                operations.append([kind, name, n, encode_update(Update(-1, (), deletes), name)])
    if not operations:
        return replace(placed, judgement=Judgement(Standing.INVALID, None))
    return replace(placed, data=body._replace(operations=operations).encode(placed.header.author))


def _merged(some: Sequence[Placed], others: Sequence[Placed]) -> list[Placed]:
    """Both in one order that has causes first: a timestamp is later than those of its causes."""
    merged: list[Placed] = []
    left = list(others)
    for placed in some:
        while left and left[0].header.hlc < placed.header.hlc:
            merged.append(left.pop(0))
        merged.append(placed)
    return merged + left
