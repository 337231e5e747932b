"""A small world of nodes in memory, as a second opinion on what the protocol decides.

Room: `World` is what one node has integrated, kept as plainly as possible: the
causal past of a commit is found by walking the graph, never from what `integrate`
says about it. `Peer` is a node that writes and receives. `expected_document` is
the merge told without an order: what is alive is what no body that has seen it
took away. Nothing here is shared with storage.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from random import Random

from protocol.body import Body, Dot, Kind, Operation, body_hash, decode_body, document_named, stub_of
from protocol.building import CommitBuilder
from protocol.commit import DEP_HASH_BYTES, NO_PREVIOUS, Commit, Dep, Header, sign_commit
from protocol.document import Document, Layer, element_key
from protocol.errors import ProtocolError
from protocol.ids import INCARNATION_BYTES, Author, NodeId, SpaceId, author_of, node_of
from protocol.integrate import Head, Integrated, Outcome, Verdict, Waiting, integrate
from protocol.keys import KeyPair
from protocol.membership import Judgement, Link, Members, Role, Standing

SPACE = SpaceId(b"the space of app")
SYSTEM = SpaceId(b"the system space")
MODEL = "task_0a1b2c3d"

Address = tuple[SpaceId, Author, int]
DocumentKey = tuple[SpaceId, str, str]


@cache
def keys_of(number: int) -> KeyPair:
    """The key pair of the node of this number."""
    return KeyPair.from_seed(number.to_bytes(32, "big"))


@cache
def author_number(node: int, incarnation: int = 1) -> Author:
    return author_of(keys_of(node).public, incarnation.to_bytes(INCARNATION_BYTES, "big"))


@dataclass(repr=False)
class World:
    """What one node has integrated. Satisfies `protocol.integrate.View`."""

    roles: dict[NodeId, Role | None] = field(default_factory=dict)
    role_of_others: Role | None = Role.ADMIN
    commits: dict[Address, Commit] = field(default_factory=dict)
    order: list[Commit] = field(default_factory=list)
    documents: dict[DocumentKey, Document] = field(default_factory=dict)
    outcomes: dict[tuple[Address, int], tuple[Verdict, str]] = field(default_factory=dict)
    written: dict[DocumentKey, list[tuple[Author, int]]] = field(default_factory=dict)
    claimed: dict[tuple[Address, Author], int] = field(default_factory=dict)  # what `integrate` says it knows
    _pasts: dict[Address, frozenset[Address]] = field(default_factory=dict)

    # -- View

    def head(self, space: SpaceId, author: Author) -> Head | None:
        seqs = [seq for (held, whose, seq) in self.commits if (held, whose) == (space, author)]
        if not seqs:
            return None
        newest = self.commits[space, author, max(seqs)]
        return Head(newest.header.seq, newest.hash, newest.header.hlc)

    def header_hash(self, space: SpaceId, author: Author, seq: int) -> bytes | None:
        commit = self.commits.get((space, author, seq))
        return commit.hash if commit else None

    def knows(self, space: SpaceId, author: Author, seq: int, other: Author) -> int:
        past = self.past_of(space, author, seq)
        return max((s for held, whose, s in past if (held, whose) == (space, other)), default=0)

    def known_by(self, space: SpaceId, author: Author, seq: int) -> Iterator[tuple[Author, int]]:
        for other in {whose for held, whose, _ in self.past_of(space, author, seq) if held == space}:
            yield other, self.knows(space, author, seq, other)

    def forked_at(self, space: SpaceId, author: Author) -> int | None:
        return None

    def blind_from(self, space: SpaceId, author: Author) -> int | None:
        return None

    @property
    def members(self) -> Members | None:
        return None  # roles are given here, whatever is said

    def system_past(self, space: SpaceId, author: Author, seq: int) -> frozenset[Link]:
        return frozenset()

    def system_heads(self, links: frozenset[Link]) -> frozenset[Link]:
        return links

    def judge(
        self, space: SpaceId, author: Author, seq: int, digest: bytes, past: frozenset[Link]
    ) -> Judgement:
        role = self.roles.get(node_of(author), self.role_of_others)
        return Judgement(Standing.STANDS if role else Standing.INVALID, role)

    def document(self, space: SpaceId, model: str, id: str) -> Document | None:
        return self.documents.get((space, model, id))

    def written_by(self, space: SpaceId, model: str, id: str) -> list[tuple[Author, int]]:
        return self.written.get((space, model, id), [])

    # -- the graph

    def past_of(self, space: SpaceId, author: Author, seq: int) -> frozenset[Address]:
        """The commit and all that it builds on; empty if it is not here."""
        start = (space, author, seq)
        if start not in self.commits:
            return frozenset()
        if start not in self._pasts:
            parents = parents_of(self.commits[start])
            self._pasts[start] = frozenset([start]).union(*(self.past_of(*parent) for parent in parents))
        return self._pasts[start]

    def deps(self, space: SpaceId, author: Author) -> tuple[Dep, ...]:
        """The heads of what is here, for the author's next commit in a space."""
        addresses = list(self.commits)
        built_on = {parent for address in addresses for parent in parents_of(self.commits[address])}
        own = self.head(space, author)
        own_past = self.past_of(space, author, own.seq) if own else frozenset()
        heads = [
            Dep(held != space, whose, seq, self.commits[held, whose, seq].hash[:DEP_HASH_BYTES])
            for held, whose, seq in addresses
            if (held, whose, seq) not in built_on | own_past
            and (held == space or (held, space) == (SYSTEM, SPACE))
        ]
        return tuple(sorted(dep for dep in heads if dep.in_system or dep.author != author))

    # -- keeping

    def keep(self, done: Integrated) -> None:
        header = done.commit.header
        address = (header.space, header.author, header.seq)
        self.commits[address] = done.commit
        self.order.append(done.commit)
        for (model, id), document in done.documents.items():
            self.documents[header.space, model, id] = document
            if document.is_erased:
                self._drop(header.space, model, id)
        for entry in done.entries:
            self.outcomes[address, entry.index] = (entry.verdict, entry.id)
            place = header.author, header.seq
            self.written.setdefault((header.space, entry.model, entry.id), []).append(place)
        self.claimed.update({(address, other): seq for other, seq in done.knowledge.items()})

        erased = [e.index for e in done.entries if e.verdict is Verdict.DROPPED]
        self.commits[address] = self.order[-1] = without_bodies(self.commits[address], erased)

    def _drop(self, space: SpaceId, model: str, id: str) -> None:
        """Leave stubs of all that was said of a document, but for erasures."""
        for number, commit in enumerate(self.order):
            header = commit.header
            address = (header.space, header.author, header.seq)
            for index, data in enumerate(commit.bodies):
                stub = dict(commit.stubs).get(index) if data is None else stub_of(data)
                named = stub is not None and (header.space, *(document_named(stub.name) or ())) == (
                    space,
                    model,
                    id,
                )
                if (
                    not named
                    or (address, index) not in self.outcomes
                    or (data and _erases(data, header.author))
                ):
                    continue
                self.outcomes[address, index] = (Verdict.DROPPED, id)
                self.order[number] = commit = without_bodies(commit, [index])
                self.commits[address] = commit

    def receive(self, commit: Commit) -> Outcome:
        outcome = integrate(commit, self, system=SYSTEM)
        if isinstance(outcome, Integrated):
            self.keep(outcome)
        return outcome

    def receive_all(self, commits: Iterable[Commit]) -> None:
        """Commits in any order: those that wait are tried again until all are here."""
        waiting = list(commits)
        while waiting:
            left = [commit for commit in waiting if isinstance(self.receive(commit), Waiting)]
            assert len(left) < len(waiting), "commits wait for what is not among them"
            waiting = left


def _erases(data: bytes, author: Author) -> bool:
    try:
        return decode_body(data, author).is_erasure
    except ProtocolError:
        return False


def parents_of(commit: Commit) -> list[Address]:
    """What a commit builds on directly, by its header alone."""
    header = commit.header
    parents = [(SYSTEM if dep.in_system else header.space, dep.author, dep.seq) for dep in header.deps]
    return parents + ([(header.space, header.author, header.seq - 1)] if header.seq > 1 else [])


def shuffled_causally(commits: Sequence[Commit], random: Random) -> list[Commit]:
    """The commits in another order that respects causes."""
    left = {(c.header.space, c.header.author, c.header.seq): c for c in commits}
    order: list[Commit] = []
    while left:
        ready = [address for address, c in left.items() if not any(p in left for p in parents_of(c))]
        order.append(left.pop(random.choice(ready)))
    return order


@dataclass
class Peer:
    """A node that writes in one space. `now_ms` is its own idea of the time."""

    number: int
    incarnation: int = 1
    world: World = field(default_factory=World)
    now_ms: int = 1
    salts: int = 0

    @property
    def keys(self) -> KeyPair:
        return keys_of(self.number)

    @property
    def author(self) -> Author:
        return author_number(self.number, self.incarnation)

    def builder(self, space: SpaceId = SPACE) -> CommitBuilder:
        head = self.world.head(space, self.author)
        hlc = max(self.now_ms << 16, head.hlc + 1 if head else 1)
        deps = self.world.deps(space, self.author)
        return CommitBuilder(self.world, space=space, author=self.author, hlc=hlc, deps=deps)

    def salt(self) -> bytes:
        self.salts += 1
        return self.salts.to_bytes(16, "big")

    def write(
        self, id: str, operations: list[Operation], seen: Sequence[Dot] = (), *, user: str = "ann"
    ) -> Commit:
        """One commit of one body."""
        builder = self.builder()
        builder.add(user, MODEL, id, tuple(seen), operations, self.salt())
        return self.finish(builder)

    def finish(self, builder: CommitBuilder) -> Commit:
        done = builder.sign(self.keys)
        self.world.keep(done)
        return done.commit

    def forge(self, bodies: Sequence[bytes], *, deps: tuple[Dep, ...] | None = None) -> Commit:
        """A commit that no builder would make, with these bytes for bodies. It is kept nowhere."""
        head = self.world.head(SPACE, self.author)
        named = self.world.deps(SPACE, self.author) if deps is None else deps
        header = Header(
            SPACE,
            self.author,
            head.seq + 1 if head else 1,
            head.hash if head else NO_PREVIOUS,
            max(self.now_ms << 16, head.hlc + 1 if head else 1),
            named,
            tuple(map(body_hash, bodies)),
        )
        return sign_commit(self.keys, header, bodies)


def without_bodies(commit: Commit, indexes: Iterable[int]) -> Commit:
    """A commit with stubs in place of these bodies."""
    gone = {i: stub_of(body) for i in indexes if (body := commit.bodies[i]) is not None}
    bodies = tuple(None if i in gone else body for i, body in enumerate(commit.bodies))
    stubs = tuple(sorted({**dict(commit.stubs), **gone}.items()))
    return replace(commit, bodies=bodies, stubs=stubs)


def document_of(peer: Peer, id: str) -> Document:
    return peer.world.documents[SPACE, MODEL, id]


# -- the merge, told without an order ------------------------------------------------------------------------


@dataclass
class _Told:
    """A body that was applied, and what it says by itself."""

    dot: Dot
    hlc: int
    body: Body


def expected_document(model: str, id: str, told: Sequence[tuple[Dot, int, Body]]) -> Document:
    """The document of these bodies, each with its dot and timestamp, by looking at every pair of them."""
    bodies = [_Told(*item) for item in told]
    document = Document(model, id)
    for one in bodies:
        layer = _said_by(one)
        for other in bodies:
            if any(dot.author == one.dot.author and one.dot <= dot for dot in other.body.seen):
                _take_away(layer, other.body.operations)
        if layer.registers or layer.sets or layer.is_delete:
            document.layers.append(layer)
        for operation in one.body.operations:
            if operation[0] == Kind.INCREMENT:
                total = document.counters.get(operation[1], 0) + operation[2]
                document.counters[operation[1]] = (total + 2**63) % 2**64 - 2**63
        document.vector[one.dot.author] = max(
            document.vector.get(one.dot.author, (0, 0)), (one.dot.seq, one.dot.index)
        )
    document.layers.sort(key=lambda layer: (layer.hlc, *layer.dot))
    if bodies:
        written = [(one.hlc, one.body.user) for one in bodies]
        anew = [
            (one.hlc, one.body.user)
            for one in bodies
            if {Kind.DELETE, Kind.RESTORE} <= {operation[0] for operation in one.body.operations}
        ]
        document.is_anew = bool(anew)
        document.created_hlc, document.created_user = max(anew) if anew else min(written)
        document.updated_hlc, document.updated_user = max(written)
    return document


def _said_by(one: _Told) -> Layer:
    """What a body leaves alive if nobody else ever writes."""
    layer = Layer(one.dot, one.hlc, one.body.user, {})
    for operation in one.body.operations:
        match operation:
            case [Kind.SET, values]:
                layer.registers |= values
            case [Kind.ADD, name, elements]:
                held = layer.sets.setdefault(name, [])
                held += [
                    e
                    for n, e in enumerate(elements)
                    if element_key(e) not in map(element_key, [*held, *elements[:n]])
                ]
            case _:
                _take_away(layer, [operation])
                layer.is_delete |= operation[0] == Kind.DELETE
    return layer


def _take_away(layer: Layer, operations: list[Operation]) -> None:
    """Take out of a layer what a body that has seen it supersedes."""
    for operation in operations:
        match operation:
            case [Kind.SET, values]:
                layer.registers = {name: v for name, v in layer.registers.items() if name not in values}
            case [Kind.ADD | Kind.REMOVE, name, elements] if name in layer.sets:
                gone = list(map(element_key, elements))
                layer.sets[name] = [e for e in layer.sets[name] if element_key(e) not in gone]
                if not layer.sets[name]:
                    del layer.sets[name]
            case [Kind.DELETE]:
                layer.registers, layer.sets, layer.is_delete = {}, {}, False
            case [Kind.RESTORE]:
                layer.is_delete = False
