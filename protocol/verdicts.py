"""The verdict on one body: whether it counts, by its author's rights and its causal past.

Room: what a body may do where it stands. What its commit counts as is
`membership`'s, what becomes of its document is `integrate`'s.
"""

from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from operator import is_

from protocol.body import Body, Dot, Kind, Operation, decode_body
from protocol.commit import Header
from protocol.document import Document
from protocol.errors import ProtocolError
from protocol.ids import Author, node_of
from protocol.limits import BODIES_PER_COMMIT_MAX
from protocol.membership import Judgement, Role

# Documents that count from `admin` nodes only: the roles of users, and the rights that administrators give in models.
_ADMIN_MODEL_PREFIXES = ("$role_",)
_DEFINITIONS_PREFIX = "$model_"  # definitions of models, whose rights stand in a register of this name
PERMISSIONS = "permissions"
_WHOLE = frozenset({Kind.DELETE, Kind.RESTORE, Kind.ERASE})
# Author and seq of every body of a document, by model and id.
WrittenBy = Callable[[str, str], Iterable[tuple[Author, int]]]


class Verdict(StrEnum):
    """What became of a body. Only `APPLIED` ones change documents."""

    APPLIED = "applied"
    EARLY = "early"  # its timestamp is too far ahead of this node's clock: applied when it is due
    WITHHELD = "withheld"  # of a kind that a newer release knows: kept, forwarded, not shown
    VOID = "void"  # its author had not the right, or it names what its author cannot have seen
    MALFORMED = "malformed"
    DROPPED = "dropped"  # its document is erased: the header and a stub stand for it
    MISSING = "missing"  # it came as a stub, and no erasure says why: who has it is asked for it


class Judge:
    """Whether the bodies of one commit count: a function of its author's rights and of its causal past."""

    def __init__(
        self,
        header: Header,
        judgement: Judgement,
        known_of: Callable[[Author], int],
        blind_from: Callable[[Author], int | None],
        known_in_fields: Callable[[Author], int] | None = None,
    ) -> None:
        """`judgement` says what the commit counts as; `known_of` tells how much of others it has seen, and
        `blind_from` from which seq on of a chain nobody has seen anything. Where it writes in collaborative fields may
        have been chosen by less: `known_in_fields`."""
        self._author = header.author
        self._seq = header.seq
        self._role = judgement.role
        self._keeps_places = judgement.keeps_places
        self._known_of = known_of
        self._blind_from = blind_from
        self._known_in_fields = known_in_fields or known_of

    def known_of(self, author: bytes) -> int:
        return self._known_of(Author(author))

    def verdict(
        self, data: bytes | None, index: int, *, is_early: bool = False
    ) -> tuple[Body | None, Verdict]:
        """A body as far as it can be read and has seen anything, and what becomes of it."""
        if data is None:
            return None, Verdict.MISSING
        try:
            body = decode_body(data, self._author)
        except ProtocolError:
            return None, Verdict.MALFORMED
        if body.seen:
            body = body._replace(seen=self._sighted(body.seen))
        if not self.may_write(body.model) or not self.is_past(body.seen, index):
            return body, Verdict.VOID
        if not body.is_understood:
            return body, Verdict.WITHHELD
        return body, Verdict.EARLY if is_early else Verdict.APPLIED

    def place(
        self, body: Body, verdict: Verdict, index: int, document: Document | None
    ) -> tuple[Verdict, bool]:
        """The verdict on a body with operations on collaborative fields, and whether it is ballast.

        An applied one is void if it writes where its author had seen no place for it. A void one is ballast if
        others may have built on what it inserted while it counted; so is one that came too early, until it is
        due: what is written now has it in its past.
        """
        if verdict is Verdict.APPLIED or verdict is Verdict.EARLY:
            if self.is_misplaced(body, document):
                return Verdict.VOID, False
            return verdict, verdict is Verdict.EARLY
        is_ballast = (
            verdict is Verdict.VOID
            and self._keeps_places
            and not self.may_write(body.model)
            and body.is_understood
            and self.is_past(body.seen, index)
            and not self.is_misplaced(body, document)
        )
        return verdict, is_ballast

    def alone(self, body: Body, verdict: Verdict, written_by: WrittenBy) -> Verdict:
        """The verdict on erasures, and on what decides the rights in a model: where other nodes have written to the
        document too, they count from administrators alone.

        It is decided from the places of bodies, which stay known when the bodies are gone.
        """
        if self._role is Role.ADMIN or not _is_for_one_node(body):
            return verdict
        if verdict in (Verdict.APPLIED, Verdict.EARLY):
            node = node_of(self._author)
            for author, seq in written_by(body.model, body.id):
                if node_of(author) != node and seq <= self._known_of(author):
                    return Verdict.VOID
        return verdict

    def is_misplaced(self, body: Body, document: Document | None) -> bool:
        document = document or Document(body.model, body.id)
        known_of = self._known_in_fields
        return document.fault_of(self._author, body.operations, lambda a: known_of(Author(a))) is not None

    def may_write(self, model: str) -> bool:
        if self._role is Role.ADMIN:
            return True
        return self._role is Role.MEMBER and not model.startswith(_ADMIN_MODEL_PREFIXES)

    def _sighted(self, seen: tuple[Dot, ...]) -> tuple[Dot, ...]:
        """What a body has seen, less what lies at or above a fork: of that chain, what all branches have in common."""
        found: list[Dot] = []
        for dot in seen:
            limit = None if dot.author == self._author else self._blind_from(Author(dot.author))
            if limit is None or dot.seq < limit:
                found.append(dot)
            elif limit > 1:
                found.append(Dot(dot.author, limit - 1, BODIES_PER_COMMIT_MAX - 1))
        return seen if len(found) == len(seen) and all(map(is_, found, seen)) else tuple(found)

    def is_past(self, seen: Sequence[Dot], index: int) -> bool:
        """Whether all that the body of this index has seen is in its causal past."""
        for dot in seen:
            if dot.author == self._author:
                if (dot.seq, dot.index) >= (self._seq, index):
                    return False
            elif dot.seq > self._known_of(Author(dot.author)):
                return False
        return True


def _is_for_one_node(body: Body) -> bool:
    """Whether members may say this only of documents that no other node has written to."""
    if body.model.startswith(_DEFINITIONS_PREFIX):
        return any(map(_decides_rights, body.operations))
    return body.is_erasure


def _decides_rights(operation: Operation) -> bool:
    """Whether a definition has other rights after this, or takes rights along when it goes or comes back."""
    kind = operation[0]
    return kind in _WHOLE or (kind == Kind.SET and PERMISSIONS in operation[1])
