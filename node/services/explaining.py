"""Why a document stands as it does: which node has which version, what waits for what, what was refused and why.

Room: what this node knows of one document across its network, as JSON (CONTRACT, "Explain"). All of it is read
here: what others hold follows from what their commits say they have seen, which they have signed, and from what
they have acknowledged on a link. Who may ask is asked by the caller.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from node.services.receipts import Holding
from node.services.records import Records, vector_to_json
from protocol.body import Body, Kind, decode_body
from protocol.changes import Record
from protocol.clock import due_ms, ms_of_hlc
from protocol.commit import Header
from protocol.document import Document
from protocol.errors import ProtocolError
from protocol.ids import Author, NodeId, SpaceId, node_of
from protocol.integrate import Verdict
from protocol.membership import Standing
from protocol.schema import Model
from protocol.times import datetime_from_ms
from storage.ancestry import past_in
from storage.documents import BodyAddress
from storage.judging import Span, spans
from storage.runs import WaitingRoom
from storage.store import Snapshot, Store

BODIES_READ_MAX = 100_000  # the newest to arrive; of a document with more, what is older is left out
WRITES_MAX = 100  # listed, the newest to arrive first
WAITING_MAX = 100  # chains listed
CAUSES_MAX = 10  # of one chain
NODES_MAX = 1_000

_STANDINGS = {
    Standing.INVALID: "its node had no right to write here, by all that it had seen then",
    Standing.CUT: "its node is revoked, and it lies above what the revocation leaves standing",
    Standing.FORKED: "its author has signed two commits with one number, at this one or before",
    Standing.SUSPENDED: "its node came in by an invitation that was used twice, and no admin has decided yet",
    Standing.UPROOTED: "what gave its node the right to write does not count any more",
}
_VERDICTS = {
    Verdict.VOID: "it names what its author cannot have seen, or its node's role does not allow it",
    Verdict.MALFORMED: "it breaks a rule of the format",
    Verdict.WITHHELD: "a newer release wrote it: kept and passed on, shown after an upgrade",
    Verdict.DROPPED: "its document was erased",
    Verdict.MISSING: "it has not come: a peer left it out, and those who have it are asked",
}


@dataclass(frozen=True, slots=True)
class _Place:
    """One body of the document."""

    at: BodyAddress
    author: Author
    verdict: Verdict

    @property
    def reach(self) -> tuple[int, int]:
        return self.at.seq, self.at.index


@dataclass(frozen=True, slots=True)
class Explanation:
    """`created_by` decides who may read it; `content` has what only administrators see under `refused`."""

    created_by: str | None
    content: dict[str, Any]


class Explanations:
    """Use it on the event loop; reading is done on a thread."""

    def __init__(
        self,
        store: Store,
        records: Records,
        holdings: Callable[[], Mapping[NodeId, Holding]],
        name_of: Callable[[NodeId], str | None],
    ) -> None:
        """`holdings` are what nodes have acknowledged on links, `name_of` what people call a node."""
        self._store = store
        self._records = records
        self._holdings = holdings
        self._name_of = name_of

    async def of(self, model: Model, id: str) -> Explanation | None:
        """None if nothing was ever written about it, as far as is known here."""
        found: Explanation | None = await self._records.in_pool(self._read, model, id, self._holdings())
        return found

    # -- on a thread

    def _read(self, model: Model, id: str, holdings: Mapping[NodeId, Holding]) -> Explanation | None:
        space = self._store.space(model.application)
        names: dict[NodeId, str | None] = {}

        def name_of(node: NodeId) -> str | None:
            if node not in names:
                names[node] = self._name_of(node)
            return names[node]

        def told(author: bytes) -> dict[str, Any]:
            """A node, and which of its lives it was."""
            node = node_of(author)
            return {"node": node.hex(), "name": name_of(node), "author": author.hex()}

        with self._store.read() as snapshot:
            addresses = islice(snapshot.documents.history_backwards(space, model.id, id), BODIES_READ_MAX)
            places = [
                _Place(at, snapshot.names.author(at.chain), snapshot.log.verdict(at.chain, at.seq, at.index))
                for at in addresses
            ]
            document = snapshot.documents.get(space, model.id, id)
            waiting = [
                *islice(_waiting(snapshot, space, model.id, id, self._store.system, told), WAITING_MAX)
            ]
            if not places and document is None and not any(chain["concerns_it"] for chain in waiting):
                return None
            reader = _Writes(snapshot, told)
            applied = [place for place in places if place.verdict is Verdict.APPLIED]
            refused = [place for place in places if place.verdict is not Verdict.APPLIED]
            content = {
                "model": model.name,
                "instance_id": id,
                "here": _here(snapshot, space, model, document),
                "nodes": self._nodes(snapshot, space, model, id, applied, holdings, name_of),
                "waiting": waiting,
                "writes": [reader.write(place) for place in applied[:WRITES_MAX]],
                "refused": [reader.write(place) for place in refused[:WRITES_MAX]],
                "refused_total": len(refused),
                "writes_total": len(applied),
            }
            return Explanation(document.created_user if document is not None else None, content)

    def _nodes(
        self,
        snapshot: Snapshot,
        space: SpaceId,
        model: Model,
        id: str,
        applied: list[_Place],
        holdings: Mapping[NodeId, Holding],
        name_of: Callable[[NodeId], str | None],
    ) -> list[dict[str, Any]]:
        """Every node that may hold the document, this one first, with the version that it surely has."""
        assert self._store.identity is not None
        own_author = self._store.identity.author
        here = node_of(own_author)
        members = self._store.members
        chains: dict[NodeId, list[Author]] = {}
        for _, author in snapshot.names.chains_of(space):
            chains.setdefault(node_of(author), []).append(author)
        rights = {node: members.rights_of(node) for node in members.nodes}
        may_hold = [
            node
            for node, right in rights.items()
            if right is not None and (right.spaces is None or space in right.spaces)
        ]
        may_hold.sort(key=lambda node: (node != here, node))
        whole = _vector(applied)
        found: list[dict[str, Any]] = []
        for node in may_hold[:NODES_MAX]:
            right = rights[node]
            assert right is not None
            lives, holding = chains.get(node, []), holdings.get(node)
            seen = _Seen(snapshot, space, lives, holding, own_author, model.application)
            has = applied if node == here else [place for place in applied if seen.has(place)]
            vector = _vector(has)
            told = "this_node" if node == here else seen.source
            found.append(
                {
                    "node": node.hex(),
                    "name": name_of(node),
                    "role": right.role.value,
                    "is_this_node": node == here,
                    "version": _version(model, id, vector) if vector else None,
                    "is_current": bool(has) and vector == whole,
                    "lacks": len(applied) - len(has),
                    "known_by": told,
                    "as_of": None if node == here else seen.as_of,
                }
            )
        return found


class _Seen:
    """What one node has seen for sure: by its newest commit here, and by what it has acknowledged."""

    def __init__(
        self,
        snapshot: Snapshot,
        space: SpaceId,
        lives: list[Author],
        holding: Holding | None,
        own_author: Author,
        application: str,
    ) -> None:
        """`holding` tells of the chain of `own_author`, who this node writes as."""
        self._own_author = own_author
        self._snapshot = snapshot
        self._space = space
        self._holding = holding
        self._is_shared = holding is not None and holding.shares_with(application)
        # An earlier life of its store may have known what this one has lost: the newest counts.
        heads = [(head, author) for author in lives if (head := snapshot.head(space, author)) is not None]
        self._newest = max(heads, key=lambda pair: pair[0].hlc, default=None)
        self._known: dict[Author, int] = {}

    @property
    def source(self) -> str | None:
        """How it is known: `link`, `commits`, or not at all."""
        return "link" if self._holding is not None else "commits" if self._newest is not None else None

    @property
    def as_of(self) -> str | None:
        """When it wrote what shows what it has seen, by its clock."""
        return datetime_from_ms(ms_of_hlc(self._newest[0].hlc)) if self._newest is not None else None

    def has(self, place: _Place) -> bool:
        holding = self._holding
        if holding is not None:
            if self._is_shared and 0 < place.at.arrival <= holding.position:
                return True
            if place.author == self._own_author and holding.chains.get(self._space, 0) >= place.at.seq:
                return True
        return place.at.seq <= self._knows(place.author)

    def _knows(self, other: Author) -> int:
        known = self._known.get(other)
        if known is None:
            known = 0
            if self._newest is not None:
                head, author = self._newest
                is_own = other == author
                known = head.seq if is_own else self._snapshot.knows(self._space, author, head.seq, other)
            self._known[other] = known
        return known


class _Writes:
    """Bodies with what became of them."""

    def __init__(self, snapshot: Snapshot, told: Callable[[bytes], dict[str, Any]]) -> None:
        self._snapshot = snapshot
        self._told = told
        self._headers: dict[tuple[int, int], Header] = {}
        self._spans: dict[int, list[Span]] = {}

    def write(self, place: _Place) -> dict[str, Any]:
        at, log = place.at, self._snapshot.log
        header = self._headers.get((at.chain, at.seq))
        if header is None:
            header = self._headers[at.chain, at.seq] = log.header_fields(at.chain, at.seq)
        body = _body(log.body(at.chain, at.seq, at.index), place.author)
        found = {
            **self._told(place.author),
            "seq": at.seq,
            "index": at.index,
            "at": datetime_from_ms(ms_of_hlc(header.hlc)),
            "user": body.user if body is not None else None,
            "fields": _fields(body),
            "verdict": place.verdict.value,
        }
        if place.verdict is Verdict.APPLIED:
            return found
        standing = self._standing(at)
        if place.verdict is Verdict.EARLY:
            due = datetime_from_ms(max(0, due_ms(header.hlc)))
            why = f"its author's clock is far ahead of this node's: it is applied at {due}"
        elif standing is Standing.STANDS:
            why = _VERDICTS[place.verdict]
        else:
            why = _STANDINGS[standing]
        return {**found, "standing": standing.value, "why": why}

    def _standing(self, at: BodyAddress) -> Standing:
        basis = self._snapshot.basis
        assert basis is not None
        if at.chain not in self._spans:
            self._spans[at.chain] = spans(self._snapshot, at.chain, basis)
        return next(
            span.judgement.standing
            for span in self._spans[at.chain]
            if span.first_seq <= at.seq <= span.last_seq
        )


def _here(snapshot: Snapshot, space: SpaceId, model: Model, document: Document | None) -> dict[str, Any]:
    """How the document stands on this node."""
    if document is None or not document.vector:
        state = "erased" if document is not None and document.is_erased else "absent"
        return {"state": state, "version": None, "version_vector": {}, "quarantine": None, "conflicts": []}
    told: dict[str, Any] = {
        "state": "deleted",
        "version": document.version,
        "version_vector": vector_to_json(document.vector),
        "quarantine": None,
        "conflicts": [],
    }
    if document.exists and document.is_broken:
        told["state"] = "quarantined"
        told["quarantine"] = {
            name: "What was written into it could not be merged on this node: it is kept, and not shown here"
            for (_, name), field in document.shared.items()
            if document.is_quarantined or field.is_broken
        }
    elif document.exists:
        record = Record.of(model, document, past_in(snapshot, space))
        faults = model.check_record(record.values)
        told["state"] = "quarantined" if faults else "shown"
        told["quarantine"] = faults or None
        told["conflicts"] = [conflict.field for conflict in record.conflicts]
    return told


def _waiting(
    snapshot: Snapshot,
    space: SpaceId,
    model_id: str,
    id: str,
    system: SpaceId,
    told: Callable[[bytes], dict[str, Any]],
) -> Iterator[dict[str, Any]]:
    """Chains of the space, and of `system`, that are here and cannot be integrated yet: what each waits for."""
    for (of_space, author), run in sorted(WaitingRoom(snapshot).runs.items()):
        if of_space not in (space, system):
            continue
        causes: dict[tuple[bytes, bytes], int] = {}
        for commit in run.commits:
            for dep in commit.header.deps:
                place = system if dep.in_system else of_space
                if snapshot.header_hash(place, Author(dep.author), dep.seq) is None:
                    key = (place, dep.author)
                    causes[key] = max(dep.seq, causes.get(key, 0))
        bodies = (body for commit in run.commits for body in commit.bodies)
        yield {
            **told(author),
            "space": "system" if of_space == system else "application",
            "from_seq": run.commits[0].header.seq,
            "to_seq": run.commits[-1].header.seq,
            "waits_for": [
                {**told(other), "space": "system" if place == system else "application", "seq": seq}
                for (place, other), seq in islice(causes.items(), CAUSES_MAX)
            ],
            "concerns_it": of_space == space and any(_is_about(b, author, model_id, id) for b in bodies),
        }


def _is_about(data: bytes | None, author: Author, model_id: str, id: str) -> bool:
    body = _body(data, author)
    return body is not None and (body.model, body.id) == (model_id, id)


def _body(data: bytes | None, author: Author) -> Body | None:
    try:
        return decode_body(data, author) if data is not None else None
    except ProtocolError:
        return None


def _fields(body: Body | None) -> list[str]:
    """What a body is about: the names of its fields."""
    names: set[str] = set()
    for operation in body.operations if body is not None else ():
        match operation:
            case [Kind.SET, dict() as values]:
                names.update(values)
            case [_, str() as name, *_]:
                names.add(name)
    return sorted(names)


def _vector(places: list[_Place]) -> dict[Author, tuple[int, int]]:
    vector: dict[Author, tuple[int, int]] = {}
    for place in places:
        vector[place.author] = max(place.reach, vector.get(place.author, (0, 0)))
    return vector


def _version(model: Model, id: str, vector: Mapping[Author, tuple[int, int]]) -> str:
    state = Document(model.id, id)
    state.vector = {bytes(author): reach for author, reach in vector.items()}
    return state.version
