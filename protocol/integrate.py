"""Integration: what a commit changes, as a pure function of the commit and of what it builds on.

Room: the verdict on every commit and body, and the documents that result. The
`View` reads what is stored; nothing here stores, signs, waits or looks at a
clock. A change made on this node and one that came from a peer end in the very
same code: `CommitBuilder` plans a commit against a view and leaves the same
documents as `integrate` does for that commit anywhere else.

A node may lag, it may never skip: a commit whose causes are not here yet waits;
one of a node without the right is void and counts as a cause all the same.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from types import MappingProxyType
from typing import NamedTuple, Protocol

from protocol.body import Body, Dot, Operation, Stub, body_hash, decode_body, document_named, name_in
from protocol.clock import HLC_MAX
from protocol.commit import DEP_HASH_BYTES, NO_PREVIOUS, Commit, Dep, Header, check_deps, sign_commit
from protocol.document import Document
from protocol.errors import LocalMisuse, NotPermitted, ProtocolError, TooLarge
from protocol.ids import SYSTEM_SPACE_NAME, Author, SpaceId, space_id
from protocol.keys import KeyPair
from protocol.limits import BODIES_PER_COMMIT_MAX, COMMIT_SIZE_MAX_BYTES, DEPS_PER_COMMIT_MAX
from protocol.membership import (
    Fault,
    Judgement,
    Link,
    Members,
    Role,
    StatementKind,
    decode_genesis,
    read_system_commit,
    statement_kind,
)
from protocol.verdicts import Judge
from protocol.verdicts import Verdict as Verdict


@dataclass(slots=True, unsafe_hash=True)  # never changed; frozen, each would take twice the time to make
class Head:
    """The newest commit of a chain that is integrated here."""

    seq: int
    hash: bytes
    hlc: int


class Sight(Protocol):
    """What commits have seen of others, and who wrote what."""

    def knows(self, space: SpaceId, author: Author, seq: int, other: Author) -> int:
        """The last seq of `other` in the causal past of the author's commit `seq`; 0 if none."""

    def blind_from(self, space: SpaceId, author: Author) -> int | None:
        """The seq of a chain from which on nobody has seen it, nor anything through it: where it forks.

        None of a chain that does not, and of one whose fork cuts settle. A past stops at the commit before, on
        whichever branch the rest of it lies: branches are not the same everywhere.
        """

    def written_by(self, space: SpaceId, model: str, id: str) -> Iterable[tuple[Author, int]]:
        """Author and seq of every body of a document that is here or was dropped, whatever its verdict."""


class View(Sight, Protocol):
    """What integration may read. One consistent state: the caller's transaction."""

    def head(self, space: SpaceId, author: Author) -> Head | None: ...

    def header_hash(self, space: SpaceId, author: Author, seq: int) -> bytes | None:
        """Hash of an integrated header, effective or void; None if it is not here."""

    def known_by(self, space: SpaceId, author: Author, seq: int) -> Iterable[tuple[Author, int]]:
        """All of `knows`, for authors of whom anything is known."""

    def forked_at(self, space: SpaceId, author: Author) -> int | None:
        """The first seq that the author is known to have signed twice."""

    @property
    def members(self) -> Members | None:
        """Those of all statements that are here; None before the network is founded."""

    def system_past(self, space: SpaceId, author: Author, seq: int) -> frozenset[Link]:
        """Heads of what a commit's whole causal past holds of `system`; none if it is not here."""

    def system_heads(self, links: frozenset[Link]) -> frozenset[Link]:
        """Those of the links that no other of them has seen."""

    def judge(
        self, space: SpaceId, author: Author, seq: int, digest: bytes, past: frozenset[Link]
    ) -> Judgement:
        """Whether a commit with this past in `system` counts, by all that is known here."""

    def document(self, space: SpaceId, model: str, id: str) -> Document | None:
        """The stored document. The caller may not change it: copy first."""


class Change(StrEnum):
    """What a body did to its document, as subscribers see it."""

    CREATED = "created"
    UPDATED = "updated"
    DELETED = "deleted"
    NONE = "none"


class Entry(NamedTuple):
    """The outcome of one body, in the order of the commit. Of what names no document, model and id are empty."""

    index: int  # type: ignore[assignment]  # in place of tuple's search
    model: str
    id: str
    verdict: Verdict
    change: Change
    body: Body | None


@dataclass(slots=True)
class Integrated:
    """All that one commit changes."""

    commit: Commit
    documents: dict[tuple[str, str], Document]
    entries: list[Entry]
    knowledge: dict[Author, int] = field(default_factory=dict)  # what `knows` now answers, where it grew
    system_past: frozenset[Link] | None = None  # what `system_past` now answers, where it grew
    counts: bool = True  # whether others are to build on it; of what does not count nobody need hear
    members: Members | None = None  # with the statements of this commit, if it is of `system`


@dataclass(frozen=True, slots=True)
class Waiting:
    """Causes are missing: the commit is kept aside until they are here."""

    missing: tuple[tuple[SpaceId, Author, int], ...]


@dataclass(frozen=True, slots=True)
class Known:
    """The commit is here already; nothing changes."""


@dataclass(frozen=True, slots=True)
class Fork:
    """The author signed two commits with one seq. `ours` is the hash of the one that is here."""

    ours: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    """The commit breaks a rule: its chain is read no further. `rule` is one of the words of `RULES`.

    `clock_not_increasing` and `system_dep_in_system` hold whatever else is known. `dep_hash_mismatch` means
    that the author of the dep has forked, or that this author lies: a node that holds the other branch
    integrates the commit.
    """

    rule: str


Outcome = Integrated | Waiting | Known | Fork | Refused
FINAL_RULES = ("clock_not_increasing", "system_dep_in_system")
RULES = tuple(sorted((*FINAL_RULES, "dep_hash_mismatch")))


def integrate(commit: Commit, view: View, *, system: SpaceId, is_early: bool = False) -> Outcome:
    """The verdict on a commit whose signature and bodies have been verified, and what it changes.

    `is_early`: its timestamp is too far ahead of this node's clock, so its bodies wait (SPEC, "Clocks").
    """
    header = commit.header
    space, author = header.space, header.author
    head = view.head(space, author)
    if head is not None and header.seq <= head.seq:
        ours = view.header_hash(space, author, header.seq)
        return Known() if ours == commit.hash else Fork(ours or b"")
    if header.seq > (head.seq if head else 0) + 1:
        return Waiting(((space, author, header.seq - 1),))
    if header.previous != (head.hash if head else NO_PREVIOUS):
        return Fork(head.hash if head else b"")
    if head is not None and header.hlc <= head.hlc:
        return Refused("clock_not_increasing")
    if space == system and any(dep.in_system for dep in header.deps):
        return Refused("system_dep_in_system")
    missing: list[tuple[SpaceId, Author, int]] = []
    for dep in header.deps:
        place, seq = system if dep.in_system else space, dep.seq
        known = view.header_hash(place, dep.author, seq)
        if known is not None and known[:DEP_HASH_BYTES] == dep.hash_prefix:
            continue
        forked_at = view.forked_at(place, dep.author)
        if forked_at is None or seq < forked_at:
            if known is not None:
                return Refused("dep_hash_mismatch")
        elif place != system:  # on another branch: what all have in common is enough
            seq = forked_at - 1
            if not seq or view.header_hash(place, dep.author, seq) is not None:
                continue
        elif is_stated(view.members, dep):
            continue
        missing.append((place, dep.author, seq))
    if missing:
        return Waiting(tuple(missing))
    knowledge = knowledge_of(view, header)
    if space == system:
        return _integrate_statements(commit, view, knowledge)
    past, grown = system_past_of(view, header)
    judgement = view.judge(space, author, header.seq, commit.hash, past)
    overlay = _Overlay(view, space)
    judge = Judge(header, judgement, _known_of(view, header, knowledge), partial(view.blind_from, space))
    stubs = dict(commit.stubs)
    entries = [
        _integrate_body(index, data, stubs.get(index), header, judge, overlay, is_early)
        for index, data in enumerate(commit.bodies)
    ]
    return Integrated(commit, overlay.changed, entries, knowledge, grown, judgement.counts)


def is_stated(members: Members | None, dep: Dep) -> bool:
    """Whether a commit of `system` is here that a dep names, on whichever branch of its chain."""
    return members is not None and members.has_seen(Link(dep.author, dep.seq, dep.hash_prefix))


def _seen_of(view: Sight, space: SpaceId, dep: Dep) -> int:
    """The last seq of a chain of this space that a commit has seen which names this one."""
    limit = view.blind_from(space, dep.author)
    return dep.seq if limit is None else min(dep.seq, limit - 1)


def knowledge_of(view: View, header: Header) -> dict[Author, int]:
    """For each author of whom this commit's past holds more than the one before it did: the last seq."""
    space, author, before = header.space, header.author, header.seq - 1
    grown: dict[Author, int] = {}
    for dep in header.deps:
        reached = 0 if dep.in_system else _seen_of(view, space, dep)
        if not reached:
            continue
        for other, seq in [(dep.author, reached), *view.known_by(space, dep.author, reached)]:
            if other != author and seq > grown.get(other, 0):
                grown[other] = seq
    return {other: seq for other, seq in grown.items() if seq > view.knows(space, author, before, other)}


def _known_of(view: View, header: Header, knowledge: dict[Author, int]) -> Callable[[Author], int]:
    """How much of another author's chain the past of a commit holds, given what has grown with it."""

    def known_of(other: Author) -> int:
        known = knowledge.get(other)
        if known is None:
            known = view.knows(header.space, header.author, header.seq - 1, other)
        return known

    return known_of


def system_past_of(view: View, header: Header) -> tuple[frozenset[Link], frozenset[Link] | None]:
    """Heads of what the whole causal past of a commit holds of `system`; again, if that has grown with it."""
    space = header.space
    own = view.system_past(space, header.author, header.seq - 1)
    if not header.deps:
        return own, None
    found = set(own)
    for dep in header.deps:
        if dep.in_system:
            found.add(Link(dep.author, dep.seq, dep.hash_prefix))
        else:
            found |= view.system_past(space, dep.author, _seen_of(view, space, dep))
    if found == own:
        return own, None
    heads = view.system_heads(frozenset(found))
    return heads, heads if heads != own else None


def _integrate_body(
    index: int,
    data: bytes | None,
    stub: Stub | None,
    header: Header,
    judge: "Judge",
    overlay: "_Overlay",
    is_early: bool,
) -> Entry:
    body, verdict = judge.verdict(data, index, is_early=is_early)
    if body is None:
        model, id = _document_of(data, stub)
        document = overlay.document(model, id) if id else None
        if document is not None and document.is_erased:
            verdict = Verdict.DROPPED
        return Entry(index, model, id, verdict, Change.NONE, None)
    dot, change, is_ballast = Dot(header.author, header.seq, index), Change.NONE, False
    document = overlay.document(body.model, body.id)
    if document is not None and document.is_erased and not body.is_erasure:
        return Entry(index, body.model, body.id, Verdict.DROPPED, Change.NONE, body)
    verdict = judge.alone(body, verdict, overlay.written_by)
    if body.is_shared:
        verdict, is_ballast = judge.place(body, verdict, index, document)
    if is_ballast or verdict is Verdict.APPLIED:
        change = overlay.apply(body, dot, header.hlc, judge.known_of, is_ballast=is_ballast)
    return Entry(index, body.model, body.id, verdict, change, body)


def _document_of(data: bytes | None, stub: Stub | None) -> tuple[str, str]:
    """Model and id of a body that cannot be read, or is not here; empty if it names no document."""
    if data is not None:
        return document_named(name_in(data)) or ("", "")
    return stub.document if stub is not None else ("", "")


def _integrate_statements(commit: Commit, view: View, knowledge: dict[Author, int]) -> Integrated:
    """Statements are judged for what they say by `membership`; here is told which of them are valid."""
    members = view.members
    if members is None:
        verdicts = [
            _verdict_on_genesis(index, body, commit.header) for index, body in enumerate(commit.bodies)
        ]
    else:
        read = read_system_commit(commit, members.genesis)
        members = members.with_commits([read])
        faults = members.faults(read.link)
        verdicts = [_verdict_on(body, fault) for body, fault in zip(commit.bodies, faults, strict=True)]
    entries = [Entry(index, "", "", verdict, Change.NONE, None) for index, verdict in enumerate(verdicts)]
    return Integrated(commit, {}, entries, knowledge, members=members)


def _verdict_on(data: bytes | None, fault: Fault | None) -> Verdict:
    if data is None:
        return Verdict.DROPPED
    if fault is None:
        return Verdict.APPLIED
    if fault is not Fault.SILENT:
        return Verdict.VOID
    try:
        is_newer = statement_kind(data) not in tuple(StatementKind)
    except ProtocolError:
        is_newer = False
    return Verdict.WITHHELD if is_newer else Verdict.MALFORMED


def _verdict_on_genesis(index: int, data: bytes | None, header: Header) -> Verdict:
    """A genesis counts in the first commit of its founder, in the network that is named by it."""
    if data is None:
        return Verdict.DROPPED
    try:
        if statement_kind(data) != StatementKind.GENESIS:
            return Verdict.WITHHELD
        genesis = decode_genesis(data)
    except ProtocolError:
        return Verdict.MALFORMED
    is_here = header.space == space_id(genesis.network_id, SYSTEM_SPACE_NAME)
    is_first = (header.node, header.seq, index) == (genesis.founder, 1, 0)
    return Verdict.APPLIED if is_here and is_first else Verdict.VOID


@dataclass(frozen=True, slots=True)
class Placed:
    """One body of a document where it stands in the log, with what its commit counts as."""

    header: Header
    index: int
    data: bytes | None
    judgement: Judgement
    is_early: bool
    known_in_fields: Callable[[Author], int] | None = None  # as `Judge` has it


def rebuild(
    view: View, space: SpaceId, model: str, id: str, bodies: Iterable[Placed], *, is_quarantined: bool = False
) -> tuple[Document, list[Verdict]]:
    """A document made anew of all its bodies, which are given causes first, and the verdict on each.

    What a commit is found to count as can change when more of `system` becomes known; what it has seen
    cannot. One that this node has quarantined stays so.
    """
    document = Document(model, id)
    if is_quarantined:
        document.quarantine()
    all_placed = list(bodies)
    verdicts = list(grow(view, space, document, all_placed))
    if document.is_erased:  # also what came before its erasure
        for number, placed in enumerate(all_placed):
            if not _is_erasure(placed):
                verdicts[number] = Verdict.DROPPED
    return document, verdicts


def grow(view: Sight, space: SpaceId, document: Document, bodies: Iterable[Placed]) -> Iterator[Verdict]:
    """Apply bodies to a document, causes first. The verdict on each, given when it has been applied."""
    for placed in bodies:
        header = placed.header

        def known_of(other: Author, header: Header = header) -> int:
            return view.knows(space, header.author, header.seq, other)

        judge = Judge(
            header, placed.judgement, known_of, partial(view.blind_from, space), placed.known_in_fields
        )
        body, verdict = judge.verdict(placed.data, placed.index, is_early=placed.is_early)
        is_ballast = False
        if document.is_erased and not (body is not None and body.is_erasure):
            body, verdict = None, Verdict.DROPPED
        elif body is not None:
            verdict = judge.alone(body, verdict, partial(view.written_by, space))
            if body.is_shared:
                verdict, is_ballast = judge.place(body, verdict, placed.index, document)
        if body is not None and (is_ballast or verdict is Verdict.APPLIED):
            dot = Dot(header.author, header.seq, placed.index)
            document.apply(dot, header.hlc, body.user, body.seen, body.operations,
                           is_ballast=is_ballast, known_of=judge.known_of)  # fmt: skip
        yield verdict


def _is_erasure(placed: Placed) -> bool:
    try:
        return placed.data is not None and decode_body(placed.data, placed.header.author).is_erasure
    except ProtocolError:
        return False


class _Overlay:
    """Documents as they stand within one commit: the view's, until a body changes its own copy."""

    def __init__(self, view: View, space: SpaceId) -> None:
        self._view = view
        self._space = space
        self.changed: dict[tuple[str, str], Document] = {}

    def document(self, model: str, id: str) -> Document | None:
        return self.changed.get((model, id)) or self._view.document(self._space, model, id)

    def written_by(self, model: str, id: str) -> Iterable[tuple[Author, int]]:
        return self._view.written_by(self._space, model, id)

    def apply(
        self,
        body: Body,
        dot: Dot,
        hlc: int,
        known_of: Callable[[bytes], int],
        *,
        is_ballast: bool = False,
    ) -> Change:
        document = self.changed.get((body.model, body.id))
        if document is None:
            stored = self._view.document(self._space, body.model, body.id)
            document = stored.copy() if stored else Document(body.model, body.id)
            self.changed[body.model, body.id] = document
        existed = document.exists
        document.apply(
            dot, hlc, body.user, body.seen, body.operations, is_ballast=is_ballast, known_of=known_of
        )
        if body.is_erasure:
            return Change.DELETED  # whether there was anything is not known everywhere
        if document.exists:
            return Change.UPDATED if existed else Change.CREATED
        return Change.DELETED if existed else Change.NONE


class CommitBuilder:
    """A commit of our own in the making: bodies are planned one by one, each seeing those before it.

    For every space but `system`, whose bodies are statements: there it makes commits without bodies. `hlc`
    comes from the clock, `deps` are all heads that the view has integrated. `mark` and `rollback` let one
    request of a group fail without a trace in the others. What any other node would not apply is not added:
    this node's documents must never be ahead of what its commits say.

    What a body relies on is named by the chain itself, though another chain's past may hold it: the other one may
    come to fork, and nothing is seen through it then. `named` is what earlier commits have named so.
    """

    def __init__(
        self,
        view: View,
        *,
        space: SpaceId,
        author: Author,
        hlc: int,
        deps: tuple[Dep, ...] = (),
        named: Mapping[Author, int] = MappingProxyType({}),
    ) -> None:
        head = view.head(space, author)
        if (head is not None and hlc <= head.hlc) or not 0 < hlc <= HLC_MAX:
            raise LocalMisuse("the clock went backwards within a chain, or out of its range")
        try:
            check_deps(deps, author)
        except ProtocolError as error:  # such a header would end this chain everywhere else
            raise LocalMisuse(f"deps that no header may hold: {error}") from error
        self.seq = head.seq + 1 if head else 1
        self.size_bytes = 0  # of the bodies; a commit holds COMMIT_SIZE_MAX_BYTES
        previous = head.hash if head else NO_PREVIOUS
        self._header = Header(space, author, self.seq, previous, hlc, deps, ())
        self._knowledge = knowledge_of(view, self._header) if deps else {}
        past, self._grown = system_past_of(view, self._header)
        judgement = view.judge(space, author, self.seq, b"", past)
        self._role = judgement.role
        self._judge = Judge(
            self._header,
            judgement,
            _known_of(view, self._header, self._knowledge),
            partial(view.blind_from, space),
        )
        self._view = view
        self._overlay = _Overlay(view, space)
        self._named = {**named, **{dep.author: dep.seq for dep in deps if not dep.in_system}}
        self._more_deps: list[tuple[Dep, int]] = []  # with what was named of this author before
        self._marked_deps = 0
        self._bodies: list[bytes] = []
        self._entries: list[Entry] = []
        self._undo: list[tuple[tuple[str, str], Document | None]] | None = None

    def __len__(self) -> int:
        return len(self._bodies)

    def known_of(self, author: bytes) -> int:
        """How much of another author's chain the commit will have in its past."""
        return self._judge.known_of(author)

    @property
    def may_write(self) -> bool:
        """Whether this node may write anything here at all, as far as it knows."""
        return self._role is not None and self._role is not Role.READER

    def is_past(self, dot: Dot) -> bool:
        """Whether the next body may have seen this one."""
        return self._judge.is_past((dot,), len(self._bodies))

    def document(self, model: str, id: str) -> Document | None:
        """The document as the next body would see it. Not to be changed by the caller."""
        return self._overlay.document(model, id)

    def add(
        self, user: str, model: str, id: str, seen: tuple[Dot, ...], operations: list[Operation], salt: bytes
    ) -> Entry:
        """Append a body and apply it. If it raises, nothing has changed.

        Raises `Malformed` or `TooLarge` (also when the whole commit would be, or would name too much),
        `NotPermitted`, or `LocalMisuse` for a body that names what this commit does not build on.
        """
        header, index = self._header, len(self._bodies)
        body = Body(salt, user, model, id, seen, operations)
        data = body.encode(header.author)
        if index >= BODIES_PER_COMMIT_MAX:
            raise TooLarge("bodies in a commit", size=index + 1, size_max=BODIES_PER_COMMIT_MAX)
        if self.size_bytes + len(data) > COMMIT_SIZE_MAX_BYTES:
            size = self.size_bytes + len(data)
            raise TooLarge("commit in bytes", size=size, size_max=COMMIT_SIZE_MAX_BYTES)
        if not self._judge.may_write(model):
            raise NotPermitted(model, self._role)
        if self._judge.alone(body, Verdict.APPLIED, self._overlay.written_by) is not Verdict.APPLIED:
            raise NotPermitted(model, self._role)
        current = self._overlay.document(model, id)
        if current is not None and current.is_erased and not body.is_erasure:
            raise LocalMisuse("a body of a document that is erased")
        if (seen and not self._judge.is_past(seen, index)) or not body.is_understood:
            raise LocalMisuse("a body of unknown kind, or that has seen what its commit does not build on")
        if body.is_shared and self._judge.is_misplaced(body, current):
            raise LocalMisuse("a body that writes in a collaborative field where it has no place")
        self._name(self._relied_on(body, current))
        if self._undo is not None:
            changed = self._overlay.changed.get((model, id))
            self._undo.append(((model, id), changed.copy() if changed else None))
        dot = Dot(header.author, header.seq, index)
        change = self._overlay.apply(body, dot, header.hlc, self._judge.known_of)
        entry = Entry(index, model, id, Verdict.APPLIED, change, body)
        self._bodies.append(data)
        self._entries.append(entry)
        self.size_bytes += len(data)
        return entry

    def mark(self) -> int:
        """Begin a request that may have to be undone."""
        self._undo = []
        self._marked_deps = len(self._more_deps)
        return len(self._bodies)

    def rollback(self, mark: int) -> None:
        """Undo all since the last `mark`, which is the one handed in."""
        for key, before in reversed(self._undo or []):
            if before is None:
                self._overlay.changed.pop(key, None)
            else:
                self._overlay.changed[key] = before
        self.size_bytes -= sum(map(len, self._bodies[mark:]))
        del self._bodies[mark:], self._entries[mark:]
        for dep, named in self._more_deps[self._marked_deps :]:
            self._named[dep.author] = named
        del self._more_deps[self._marked_deps :]
        self._undo = []

    def _relied_on(self, body: Body, document: Document | None) -> list[Author]:
        """Whose work a body builds on of which this chain has not named enough itself."""
        own, named = self._header.author, self._named
        found = {
            Author(dot.author)
            for dot in body.seen
            if dot.author != own and dot.seq > named.get(Author(dot.author), 0)
        }
        if not body.is_shared:
            return sorted(found)
        document = document or Document(body.model, body.id)
        asked: set[Author] = set()

        def known_of(other: bytes) -> int:
            asked.add(Author(other))
            return self.known_of(other) if other in found else named.get(Author(other), 0)

        # One pass stops at the first unit that is not to be had.
        while document.fault_of(own, body.operations, known_of) is not None:
            more = {other for other in asked if other not in found and self.known_of(other) > known_of(other)}
            if not more:
                break
            found |= more
        return sorted(found)

    def _name(self, authors: Sequence[Author]) -> None:
        """Name the newest commits of these authors that are in the past of this one.

        Of more than a header can hold as many as it can; unless there are bodies that the rest can come after.
        """
        free = DEPS_PER_COMMIT_MAX - len(self._header.deps) - len(self._more_deps)
        if len(authors) > free and self._bodies:
            count = DEPS_PER_COMMIT_MAX - free + len(authors)
            raise TooLarge("deps of a commit", size=count, size_max=DEPS_PER_COMMIT_MAX)
        named = {dep.author for dep in self._header.deps if not dep.in_system}
        for author in [author for author in authors if author not in named][:free]:
            seq = self.known_of(author)
            digest = self._view.header_hash(self._header.space, author, seq)
            if digest is not None:
                dep = Dep(False, author, seq, digest[:DEP_HASH_BYTES])
                self._more_deps.append((dep, self._named.get(author, 0)))
                self._named[author] = seq

    def sign(self, keys: KeyPair) -> Integrated:
        """The finished commit with all that it changes."""
        header = replace(
            self._header,
            deps=tuple(sorted([*self._header.deps, *(dep for dep, _ in self._more_deps)])),
            body_hashes=tuple(map(body_hash, self._bodies)),
        )
        commit = sign_commit(keys, header, self._bodies)
        return Integrated(commit, self._overlay.changed, self._entries, self._knowledge, self._grown)
