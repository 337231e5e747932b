"""Integration: what a commit changes, as a pure function of the commit and of what it builds on.

Room: the verdict on every commit and body, and the documents that result. The
`View` reads what is stored; nothing here stores, signs, waits or looks at a
clock. A change made on this node and one that came from a peer end in the very
same code: `CommitBuilder` plans a commit against a view and leaves the same
documents as `integrate` does for that commit anywhere else.

A node may lag, it may never skip: a commit whose causes are not here yet waits;
one of a node without the right is void and counts as a cause all the same.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from protocol.body import Body, Dot, Operation, body_hash, decode_body, encode_body
from protocol.commit import DEP_HASH_BYTES, NO_PREVIOUS, Commit, Dep, Header, sign_commit
from protocol.document import Document
from protocol.errors import LocalMisuse, ProtocolError
from protocol.ids import Author, SpaceId, node_of
from protocol.keys import KeyPair
from protocol.membership import Role

# Documents that count from `admin` nodes only: the roles of users.
_ADMIN_MODEL_PREFIXES = ("$role_",)


@dataclass(frozen=True, slots=True)
class Head:
    """The newest commit of a chain that is integrated here."""

    seq: int
    hash: bytes
    hlc: int


class View(Protocol):
    """What integration may read. One consistent state: the caller's transaction."""

    def head(self, space: SpaceId, author: Author) -> Head | None: ...

    def header_hash(self, space: SpaceId, author: Author, seq: int) -> bytes | None:
        """Hash of an integrated header, effective or void; None if it is not here."""

    def knows(self, space: SpaceId, author: Author, seq: int, other: Author) -> int:
        """The last seq of `other` in the causal past of the author's commit `seq`; 0 if none."""

    def known_by(self, space: SpaceId, author: Author, seq: int) -> Iterable[tuple[Author, int]]:
        """All of `knows`, for authors of whom anything is known."""

    def role_of(self, node: bytes) -> Role | None: ...

    def document(self, space: SpaceId, model: str, id: str) -> Document | None:
        """The stored document. The caller may not change it: copy first."""


class Verdict(StrEnum):
    """What became of a body. Only `APPLIED` ones change documents."""

    APPLIED = "applied"
    WITHHELD = "withheld"  # of a kind that a newer release knows: kept, forwarded, not shown
    VOID = "void"  # its author had not the right, or it names what its author cannot have seen
    MALFORMED = "malformed"
    DROPPED = "dropped"  # erased: the header stands for it


class Change(StrEnum):
    """What a body did to its document, as subscribers see it."""

    CREATED = "created"
    UPDATED = "updated"
    DELETED = "deleted"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Entry:
    """The outcome of one body, in the order of the commit."""

    index: int
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
    knowledge: dict[Author, int] = field(default_factory=dict)  # what `knows` answers for this commit, where it grew


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
    """The commit breaks a rule, whatever else is known. `rule` is one of a fixed set of words."""

    rule: str


Outcome = Integrated | Waiting | Known | Fork | Refused


def integrate(commit: Commit, view: View, *, system: SpaceId) -> Outcome:
    """The verdict on a commit whose signature and bodies have been verified, and what it changes."""
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
    missing: list[tuple[SpaceId, Author, int]] = []
    for dep in header.deps:
        place = system if dep.in_system else space
        known = view.header_hash(place, dep.author, dep.seq)
        if known is None:
            missing.append((place, dep.author, dep.seq))
        elif known[:DEP_HASH_BYTES] != dep.hash_prefix:
            return Refused("dep_hash_mismatch")
    if missing:
        return Waiting(tuple(missing))
    overlay = _Overlay(view, space)
    knowledge = _knowledge(header, view)
    role = view.role_of(node_of(author))
    entries = [
        _integrate_body(index, data, header, view, overlay, knowledge, role)
        for index, data in enumerate(commit.bodies)
    ]
    return Integrated(commit, overlay.changed, entries, knowledge)


def _knowledge(header: Header, view: View) -> dict[Author, int]:
    """For each author of whom this commit's past holds more than the one before it did: the last seq."""
    grown: dict[Author, int] = {}
    for dep in header.deps:
        if dep.in_system:
            continue
        for other, seq in [(dep.author, dep.seq), *view.known_by(header.space, dep.author, dep.seq)]:
            if other != header.author and seq > grown.get(other, 0):
                grown[other] = seq
    before = header.seq - 1
    return {a: seq for a, seq in grown.items() if seq > (view.knows(header.space, header.author, before, a))}


def _integrate_body(index: int, data: bytes | None, header: Header, view: View, overlay: "_Overlay",
                    knowledge: dict[Author, int], role: Role | None) -> Entry:
    if data is None:
        return Entry(index, "", "", Verdict.DROPPED, Change.NONE, None)
    try:
        body = decode_body(data, header.author)
    except ProtocolError:
        return Entry(index, "", "", Verdict.MALFORMED, Change.NONE, None)
    verdict = _judge(body, index, header, view, knowledge, role)
    change = Change.NONE
    if verdict is Verdict.APPLIED:
        dot = Dot(header.author, header.seq, index)
        change = overlay.apply(body.model, body.id, dot, header.hlc, body.user, body.seen, body.operations)
    return Entry(index, body.model, body.id, verdict, change, body)


def _judge(body: Body, index: int, header: Header, view: View, knowledge: dict[Author, int],
           role: Role | None) -> Verdict:
    if role is not Role.ADMIN and (role is not Role.MEMBER or body.model.startswith(_ADMIN_MODEL_PREFIXES)):
        return Verdict.VOID
    for dot in body.seen:
        if dot.author == header.author:
            is_past = (dot.seq, dot.index) < (header.seq, index)
        else:
            author = Author(dot.author)
            known = knowledge.get(author) or view.knows(header.space, header.author, header.seq - 1, author)
            is_past = dot.seq <= known
        if not is_past:
            return Verdict.VOID
    return Verdict.APPLIED if body.is_understood else Verdict.WITHHELD


class _Overlay:
    """Documents as they stand within one commit: the view's, until a body changes its own copy."""

    def __init__(self, view: View, space: SpaceId) -> None:
        self._view = view
        self._space = space
        self.changed: dict[tuple[str, str], Document] = {}

    def document(self, model: str, id: str) -> Document | None:
        return self.changed.get((model, id)) or self._view.document(self._space, model, id)

    def apply(self, model: str, id: str, dot: Dot, hlc: int, user: str, seen: Sequence[Dot],
              operations: list[Operation]) -> Change:
        document = self.changed.get((model, id))
        if document is None:
            stored = self._view.document(self._space, model, id)
            document = stored.copy() if stored else Document(model, id)
            self.changed[model, id] = document
        existed = document.exists
        document.apply(dot, hlc, user, seen, operations)
        if document.exists:
            return Change.UPDATED if existed else Change.CREATED
        return Change.DELETED if existed else Change.NONE


class CommitBuilder:
    """A commit of our own in the making: bodies are planned one by one, each seeing those before it.

    `hlc` comes from the clock, `deps` from the store's heads. `mark` and `rollback` let one request of a group
    fail without a trace in the others.
    """

    def __init__(self, view: View, *, space: SpaceId, author: Author, hlc: int, deps: tuple[Dep, ...] = ()) -> None:
        head = view.head(space, author)
        if head is not None and hlc <= head.hlc:
            raise LocalMisuse("the clock went backwards within a chain")
        self._overlay = _Overlay(view, space)
        self._space = space
        self._author = author
        self._hlc = hlc
        self._deps = deps
        self._view = view
        self.seq = head.seq + 1 if head else 1
        self._previous = head.hash if head else NO_PREVIOUS
        self._bodies: list[bytes] = []
        self._entries: list[Entry] = []
        self._undo: list[tuple[tuple[str, str], Document | None]] | None = None

    def __len__(self) -> int:
        return len(self._bodies)

    def document(self, model: str, id: str) -> Document | None:
        """The document as the next body would see it. Not to be changed by the caller."""
        return self._overlay.document(model, id)

    def add(self, user: str, model: str, id: str, seen: tuple[Dot, ...], operations: list[Operation],
            salt: bytes) -> Entry:
        """Append a body and apply it."""
        index = len(self._bodies)
        data = encode_body(salt, user, model, id, seen, operations, self._author)
        if self._undo is not None:
            current = self._overlay.changed.get((model, id))
            self._undo.append(((model, id), current.copy() if current else None))
        dot = Dot(self._author, self.seq, index)
        change = self._overlay.apply(model, id, dot, self._hlc, user, seen, operations)
        body = Body(salt, user, model, id, seen, operations)
        entry = Entry(index, model, id, Verdict.APPLIED, change, body)
        self._bodies.append(data)
        self._entries.append(entry)
        return entry

    def mark(self) -> int:
        """Begin a request that may have to be undone."""
        self._undo = []
        return len(self._bodies)

    def rollback(self, mark: int) -> None:
        """Undo all since the last `mark`."""
        for key, before in reversed(self._undo or []):
            if before is None:
                self._overlay.changed.pop(key, None)
            else:
                self._overlay.changed[key] = before
        del self._bodies[mark:], self._entries[mark:]
        self._undo = []

    def sign(self, keys: KeyPair) -> Integrated:
        """The finished commit with all that it changes."""
        hashes = tuple(body_hash(data) for data in self._bodies)
        header = Header(self._space, self._author, self.seq, self._previous, self._hlc, self._deps, hashes)
        knowledge = _knowledge(header, self._view) if self._deps else {}
        return Integrated(sign_commit(keys, header, self._bodies), self._overlay.changed, self._entries, knowledge)
