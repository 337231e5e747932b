"""What this node said in commits that count, and that is void since another author's chain is known to fork.

Words written between words of a branch that counts no more have no place any more; whoever wrote them says them
again, so that nothing acknowledged is lost. Room: what is kept until then. What is to be said is `protocol.reissue`'s;
`integrator` signs and stores it once a peer holds the same, when it is known whether it has been said already.

    local "void"  SHA-256 of space, document and commit, hex  -> {space, model, id, at, user, again, carried}
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from protocol.body import Body, Dot
from protocol.document import Document
from protocol.encoding import encode
from protocol.ids import SpaceId
from protocol.integrate import Verdict
from protocol.reissue import Again, Carried, carried, plain_again
from protocol.weave import Anchored
from storage.local import LocalReader, LocalWriter

if TYPE_CHECKING:
    from storage.store import Snapshot

_VOID = "void"


@dataclass(frozen=True, slots=True)
class Voided:
    """What of one document is to be said again. `at` is where the last body stands that said it."""

    key: str
    space: SpaceId
    name: tuple[str, str]  # model and id
    at: Dot
    user: str
    again: Sequence[Again]
    carried: Sequence[Carried]

    def is_void(self, snapshot: "Snapshot") -> bool:
        """Whether it counts no more even now."""
        chain = snapshot.names.chain(self.space, self.at.author)
        return chain is not None and snapshot.log.verdict(chain, self.at.seq, self.at.index) is Verdict.VOID


def keep_voided(
    local: LocalWriter, space: SpaceId, before: Document, now: Document, bodies: Sequence[tuple[Dot, Body]]
) -> None:
    """Bodies of one author and document, in order, have turned void: keep what is to be said again.

    `before` is the document with them and `now` the same without.
    """
    at, last = bodies[-1]
    again = plain_again(before, bodies)
    moved = carried(before, now, at.author, bodies)
    if not (again or moved):
        return
    key = sha256(encode([space, now.model, now.id, list(at)])).hexdigest()
    value = {
        "space": space,
        "model": now.model,
        "id": now.id,
        "at": list(at),
        "user": last.user,
        "again": [[each.user, [list(dot) for dot in each.seen], each.operations] for each in again],
        "carried": [[each.kind, each.name, [list(splice) for splice in each.splices]] for each in moved],
    }
    local.put(_VOID, key, value)


def voided(local: LocalReader) -> Iterator[Voided]:
    """All that is to be said again."""
    for key, value in local.scan(_VOID):
        again = [Again(user, tuple(Dot(*dot) for dot in seen), said) for user, seen, said in value["again"]]
        moved = [
            Carried(kind, name, tuple(map(_splice, splices))) for kind, name, splices in value["carried"]
        ]
        yield Voided(
            key, value["space"], (value["model"], value["id"]), Dot(*value["at"]), value["user"], again, moved
        )


def _splice(stored: list[Any]) -> Anchored:
    after, insert, deletes = stored
    gone = tuple((author, n, (clock, length)) for author, n, (clock, length) in deletes)
    return Anchored(None if after is None else (after[0], after[1], after[2]), insert, gone)


def settle_voided(local: LocalWriter, told: Voided) -> None:
    """It has been said again, or need not be."""
    local.delete(_VOID, told.key)


def drop_voided(local: LocalWriter, space: SpaceId, model: str, id: str) -> None:
    """A document is erased: keep nothing of it here either."""
    for told in list(voided(local)):
        if (told.space, *told.name) == (space, model, id):
            settle_voided(local, told)
