"""Integration: what a commit changes, as a pure function of the commit and of what it builds on.

Room: the verdict on every commit and body, and the documents that result. The
`View` reads what is stored; nothing here stores, signs, waits or looks at a
clock. A change made on this node and one that came from a peer end in the very
same code: `protocol.building` plans a commit against a view and leaves the same
documents as `integrate` does for that commit anywhere else.

A node may lag, it may never skip: a commit whose causes are not here yet waits;
one of a node without the right is void and counts as a cause all the same.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import NamedTuple, Protocol

from protocol.body import Body, Dot, Stub, decode_body, document_named, name_in
from protocol.commit import DEP_HASH_BYTES, NO_PREVIOUS, Commit, Dep, Header
from protocol.document import Document
from protocol.errors import ProtocolError
from protocol.ids import SYSTEM_SPACE_NAME, Author, SpaceId, space_id
from protocol.membership import (
    Fault,
    Judgement,
    Link,
    Members,
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
    overlay = Overlay(view, space)
    judge = Judge(header, judgement, past_of(view, header, knowledge), partial(view.blind_from, space))
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


def past_of(view: View, header: Header, knowledge: dict[Author, int]) -> Callable[[Author], int]:
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
    overlay: "Overlay",
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


class Overlay:
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
