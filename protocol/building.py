"""A commit of one's own in the making.

Room: plans bodies against a view, applies and signs them. It leaves the same documents as `protocol.integrate` does
for that commit anywhere else, with the same code.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType

from protocol.body import Body, Dot, Operation, body_hash
from protocol.clock import HLC_MAX
from protocol.commit import DEP_HASH_BYTES, NO_PREVIOUS, Dep, Header, check_deps, sign_commit
from protocol.document import Document
from protocol.errors import LocalMisuse, NotPermitted, ProtocolError, TooLarge
from protocol.ids import Author, SpaceId
from protocol.integrate import Entry, Integrated, Overlay, View, knowledge_of, past_of, system_past_of
from protocol.keys import KeyPair
from protocol.limits import BODIES_PER_COMMIT_MAX, COMMIT_SIZE_MAX_BYTES, DEPS_PER_COMMIT_MAX
from protocol.membership import Role
from protocol.verdicts import Judge, Verdict

_NOTHING: Mapping[Author, int] = MappingProxyType({})


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
        named: Mapping[Author, int] = _NOTHING,
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
            past_of(view, self._header, self._knowledge),
            partial(view.blind_from, space),
        )
        self._view = view
        self._overlay = Overlay(view, space)
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
