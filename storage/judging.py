"""What commits of data count as, by all that is known here, and which documents are others when that changes.

Room: verdicts over whole chains and the documents that follow from them. The
rules are `protocol.membership`'s and `protocol.integrate`'s; this applies them
to what is stored. A commit's own past never changes, so between two seqs at
which it grows, or a cut or a fork lies, all commits of a chain count alike.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from protocol.body import Body, Dot, decode_body, document_named, name_in
from protocol.commit import Header
from protocol.cuts import Cut, Cuts
from protocol.document import Document
from protocol.ids import INCARNATION_BYTES, Author, NodeId, SpaceId, node_of
from protocol.integrate import Change, Placed, Verdict, rebuild
from protocol.membership import Judgement, Link, Members
from storage.arrivals import Rejudged
from storage.documents import BodyAddress
from storage.lives import is_life
from storage.names import Chain
from storage.voided import keep_voided

if TYPE_CHECKING:
    from storage.store import Batch, Snapshot

ChainKey = tuple[SpaceId, Author]
DocumentKey = tuple[SpaceId, str, str]  # space, model, id


@dataclass(frozen=True, slots=True)
class Basis:
    """All that a verdict depends on beside a commit and its past."""

    members: Members
    forks: Mapping[ChainKey, int]  # the first seq that was signed twice


def blind_from(snapshot: "Snapshot", basis: Basis, key: ChainKey) -> int | None:
    """The seq of a chain from which on nobody has seen anything of it or through it.

    Where it forks; but if cuts settle which branch counts, and that is the one which is here, nowhere.
    """
    forked_at = basis.forks.get(key)
    if forked_at is None:
        return None
    space, author = key
    cuts = basis.members.cuts_of(node_of(author))
    named = [each.of_chain(space, author[-INCARNATION_BYTES:]) for each in cuts]
    is_here = named and all(
        cut is not None and snapshot.header_hash(space, author, cut.seq) == cut.hash for cut in named
    )
    return None if is_here else forked_at


class Span(NamedTuple):
    """Consecutive commits of one chain that count alike."""

    first_seq: int
    last_seq: int
    judgement: Judgement


def judge(
    snapshot: "Snapshot", basis: Basis, key: ChainKey, seq: int, digest: bytes, past: frozenset[Link]
) -> Judgement:
    """Whether one commit counts."""
    space, author = key

    def leads_to(cut: Cut) -> bool:
        return seq <= cut.seq and snapshot.header_hash(space, author, cut.seq) == cut.hash

    forked_at = basis.forks.get(key)
    return basis.members.judge(space, author, seq, digest, past, forked_at=forked_at, leads_to=leads_to)


def spans(snapshot: "Snapshot", chain: Chain, basis: Basis, more_starts: Iterable[int] = ()) -> list[Span]:
    """The whole of a chain, in order. `more_starts` are further seqs at which a span is to begin."""
    found = list(_spans_backwards(snapshot, chain, basis, more_starts))
    found.reverse()
    return found


def _spans_backwards(
    snapshot: "Snapshot", chain: Chain, basis: Basis, more_starts: Iterable[int] = ()
) -> Iterator[Span]:
    key = snapshot.names.space_of_chain(chain), snapshot.names.author(chain)
    head = snapshot.head(*key)
    if head is None:
        return
    pasts = [(0, frozenset[Link]()), *snapshot.log.system_pasts(chain)]
    starts = {1, *(seq for seq, _ in pasts), *_breaks(key, basis), *more_starts}
    following = head.seq + 1
    for first in sorted((seq for seq in starts if 0 < seq <= head.seq), reverse=True):
        while pasts[-1][0] > first:
            pasts.pop()
        digest = snapshot.header_hash(*key, first) or b""
        yield Span(first, following - 1, judge(snapshot, basis, key, first, digest, pasts[-1][1]))
        following = first


def _breaks(key: ChainKey, basis: Basis) -> Iterator[int]:
    """Seqs at which cuts and forks divide a chain. At a cut's own seq only the hash that it names counts."""
    space, author = key
    for cuts in basis.members.cuts_of(node_of(author)):
        cut = cuts.of_chain(space, author[-INCARNATION_BYTES:])
        if cut is not None:
            yield cut.seq
            yield cut.seq + 1
    if key in basis.forks:
        yield basis.forks[key]


def effective_seq(snapshot: "Snapshot", chain: Chain, basis: Basis) -> int:
    """The last commit of a chain that counts; 0 if none does."""
    return _last_counting(_spans_backwards(snapshot, chain, basis))


def _last_counting(backwards: Iterable[Span]) -> int:
    return next((span.last_seq for span in backwards if span.judgement.counts), 0)


def cuts_at_heads(snapshot: "Snapshot", node: NodeId) -> Cuts:
    """What a revocation of a node names that leaves standing all that is here of it, in every space."""
    names = snapshot.names
    heads = [
        (space, author, head.seq, head.hash)
        for chain, author in names.authors()
        if node_of(author) == node
        and (head := snapshot.head(space := names.space_of_chain(chain), author)) is not None
    ]
    return Cuts.at_heads(heads)


@dataclass(slots=True)
class Rejudging:
    """What is different when more has become known."""

    documents: dict[DocumentKey, None] = field(default_factory=dict)  # in the order of chains and seqs
    spaces: dict[SpaceId, None] = field(default_factory=dict)  # in which a chain counts up to another commit


def compare_bases(batch: "Batch", before: Basis, after: Basis) -> Rejudging:
    """Documents with a body of a commit that counts otherwise now, and spaces whose heads are others."""
    found = Rejudging()
    for chain, author in batch.names.authors():
        space = batch.names.space_of_chain(chain)
        if space == batch.system:
            continue
        breaks = {*_breaks((space, author), before), *_breaks((space, author), after)}
        then, now = spans(batch, chain, before, breaks), spans(batch, chain, after, breaks)
        for old, new in zip(then, now, strict=True):
            if _weight(old.judgement) != _weight(new.judgement):
                for seq in range(old.first_seq, old.last_seq + 1):
                    found.documents.update(dict.fromkeys(documents_of(batch, chain, seq)))
        if _last_counting(reversed(then)) != _last_counting(reversed(now)):
            found.spaces[space] = None
    return found


def _weight(judgement: Judgement) -> tuple[object, bool]:
    """All by which what a commit counts as makes a difference to documents."""
    return judgement.role, judgement.keeps_places


def counting_heads(batch: "Batch", space: SpaceId, basis: Basis) -> list[tuple[Author, int]]:
    """The newest commits of a space that count and that no other one which counts has in its past.

    In `system` all do, since what they say may.
    """
    tips: list[tuple[Author, int]] = []
    for chain, author in batch.names.chains_of(space):
        head = batch.head(space, author) if space == batch.system else None
        tips.append((author, head.seq if head is not None else effective_seq(batch, chain, basis)))
    covered: dict[Author, int] = {}
    for author, seq in tips:
        for other, known in batch.log.known_by(space, author, seq) if seq else ():
            covered[other] = max(known, covered.get(other, 0))
    return [(author, seq) for author, seq in tips if seq > covered.get(author, 0)]


def documents_of(snapshot: "Snapshot", chain: Chain, seq: int) -> Iterator[DocumentKey]:
    """The documents that the bodies of a commit name."""
    space = snapshot.names.space_of_chain(chain)
    for index in range(len(snapshot.log.header_fields(chain, seq).body_hashes)):
        found = document_at(snapshot, BodyAddress(chain, seq, index))
        if found is not None:
            yield space, *found


def document_at(snapshot: "Snapshot", at: BodyAddress) -> tuple[str, str] | None:
    """Model and id of the document that a body names, also if it was dropped; None if it names none."""
    data = snapshot.log.body(at.chain, at.seq, at.index)
    if data is not None:
        return document_named(name_in(data))
    stub = snapshot.log.stub(at.chain, at.seq, at.index)
    return stub.document if stub is not None else None


class Places:
    """Where the bodies of documents stand, with what their commits count as."""

    def __init__(self, snapshot: "Snapshot", basis: Basis) -> None:
        self._snapshot = snapshot
        self._basis = basis
        self._spans: dict[Chain, list[Span]] = {}
        self._headers: dict[tuple[Chain, int], Header] = {}

    def place(self, at: BodyAddress) -> Placed:
        log, chain, seq = self._snapshot.log, at.chain, at.seq
        header = self._headers.get((chain, seq))
        if header is None:
            header = self._headers[chain, seq] = log.header_fields(chain, seq)
        if chain not in self._spans:
            self._spans[chain] = spans(self._snapshot, chain, self._basis)
        judgement = next(s.judgement for s in self._spans[chain] if s.first_seq <= seq <= s.last_seq)
        return Placed(header, at.index, log.body(chain, seq, at.index), judgement, log.is_early(chain, seq))


class Rebuilder:
    """Makes documents anew from their bodies, with what their commits count as now."""

    def __init__(self, batch: "Batch", basis: Basis) -> None:
        self._batch = batch
        self._places = Places(batch, basis)

    def rebuild(self, key: DocumentKey, author: Author, hlc: int) -> Rejudged | None:
        """Make one document anew, verdicts included. What became of it; None if it is as it was.

        `author` and `hlc` are those of the commit that gave the reason.
        """
        batch = self._batch
        before = batch.documents.get(*key)
        addresses = list(batch.documents.history(*key))
        said = [self._places.place(at) for at in addresses]
        is_quarantined = before is not None and before.is_quarantined
        document, verdicts = rebuild(batch, *key, said, is_quarantined=is_quarantined)
        # Values that stand side by side are shown by where they came from, which may be of bodies that have
        # left nothing else behind.
        is_contested, is_moved = document.shown()[1], False
        lost: dict[Author, list[tuple[Dot, Body]]] = {}  # of this node's own, by who it was
        for at, verdict, body in zip(addresses, verdicts, said, strict=True):
            held = batch.log.verdict(at.chain, at.seq, at.index)
            if is_contested and held is not verdict:
                is_moved = True
            if held is Verdict.APPLIED and verdict is Verdict.VOID and body.judgement.counts:
                self._note_lost(body, lost)
            batch.log.settle_verdict(at.chain, at.seq, at.index, verdict)
        for bodies in lost.values():
            if before is not None and not document.is_erased:
                keep_voided(batch.local, key[0], before, document, bodies)
        is_same = before == document and not is_moved
        if (is_same and not document.shared) or (before is None and document.is_blank):
            return None
        batch.documents.put(key[0], document)
        if document.is_erased:
            batch.drop_bodies(key)
            if is_same:
                return None
            return Rejudged(*key, Change.DELETED, author, hlc, "", ())  # whatever was here of it
        if is_same or (before is None and not document.vector):
            return None  # but for ballast, which shows nothing
        creator = before.created_user if before is not None else document.created_user
        fields = touched_fields(before, document)
        if is_moved:
            fields = sorted({*fields, *_contested_fields(document)})
        return Rejudged(*key, _change(before, document), author, hlc, creator, tuple(fields))

    def _note_lost(self, placed: Placed, lost: dict[Author, list[tuple[Dot, Body]]]) -> None:
        author = placed.header.author
        if placed.data is not None and (author == self._batch.author or is_life(self._batch.local, author)):
            body = decode_body(placed.data, author)
            lost.setdefault(author, []).append((Dot(author, placed.header.seq, placed.index), body))


def touched_fields(before: Document | None, after: Document) -> list[str]:
    """The names of the fields that hold something else now, in order; none of a document that is gone."""
    if not after.exists:
        return []
    old, new = _held(before) if before is not None and before.exists else {}, _held(after)
    return sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))


def _contested_fields(document: Document) -> set[str]:
    """Registers with several values, of a document that exists."""
    names = [name for layer in document.layers for name in layer.registers]
    return {name for name in names if names.count(name) > 1} if document.exists else set()


def _held(document: Document) -> dict[str, Any]:
    """All that each field holds, values that did not see each other included."""
    held: dict[str, Any] = dict(document.counters)
    for name in {name for layer in document.layers for name in (*layer.registers, *layer.sets)}:
        live = [(layer.dot, value) for layer, value in document.live_values(name)]
        held[name] = live, document.elements(name), document.counters.get(name)
    for (kind, name), shared in document.shared.items():
        if shared.edited.hlc:
            held[name] = held.get(name), kind, shared.shown
    return held


def _change(before: Document | None, after: Document) -> Change:
    existed = before is not None and before.exists
    if after.exists:
        return Change.UPDATED if existed else Change.CREATED
    return Change.DELETED if existed else Change.NONE
