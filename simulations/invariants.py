"""What must hold of every run once it has come to rest.

Room: looks into every node and compares; changes nothing but clocks, which it
lets come round. A broken invariant is an AssertionError that names the seed.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from protocol.ids import Author, SpaceId
from protocol.integrate import Verdict
from protocol.membership import Judgement, Standing
from storage.doctor_replay import replayed_differences
from storage.judging import documents_of, spans
from storage.memory_kv import MemoryKeyValueStore

if TYPE_CHECKING:
    from simulations.harness import Node, World

# Why a commit that a node has acknowledged may count for nothing in the end.
_EXCUSES = (Standing.CUT, Standing.UPROOTED, Standing.SUSPENDED)


def check(world: "World") -> None:
    """Every invariant, of a world at rest."""
    let_clocks_come_round(world)
    check_agreement(world)
    check_nothing_is_lost(world)
    check_nothing_forbidden_is_shown(world)
    for node in world.nodes:
        found = replayed_differences(node.store, MemoryKeyValueStore())
        assert not found, f"{_where(world, node)}: the doctor replays otherwise: {found[:5]}"


def let_clocks_come_round(world: "World") -> None:
    """Until no commit is early anywhere."""
    for node in world.nodes:
        while node.integrator.next_due_ms() is not None:
            node.come_due()


def check_agreement(world: "World") -> None:
    """All nodes say the same of all that they hold in common."""
    first = world.nodes[0]
    expected = _said_by(first)
    verdicts = dict(_verdicts(first))
    for node in world.nodes[1:]:
        for name, value in _said_by(node).items():
            assert value == expected[name], f"{_where(world, node)}: other {name} than node 0"
        others = dict(_verdicts(node))
        odd = [key for key in verdicts.keys() & others.keys() if verdicts[key] != others[key]]
        assert not odd, f"{_where(world, node)}: another verdict than node 0 on {odd[:3]}"


def check_nothing_is_lost(world: "World") -> None:
    """What a node has acknowledged counts, and is everywhere; unless a statement says that it does not count."""
    for node in world.nodes:
        rights = node.store.members.rights_of(node.node_keys.public)
        if rights is not None and rights.may_write:
            assert not node.integrator.has_lost_anything(), f"{_where(world, node)}: not all is said again"
        for author, seq in sorted(node.acknowledged):
            # One that a revocation cut off need not be where it was acknowledged, if that node was restored since.
            judged = next(filter(None, (_judged(other, author, seq) for other in world.nodes)), None)
            assert judged is not None, f"{_where(world, node)}: acknowledged {seq} is nowhere"
            if judged.counts:
                lacking = [other.number for other in world.nodes if other.seq_of(author) < seq]
                assert not lacking, f"{_where(world, node)}: acknowledged {seq} is not on {lacking}"
            elif judged.standing is Standing.FORKED:
                missing = [id for id in _named_by(world, author, seq) if not _is_known(world.nodes[0], id)]
                assert not missing, f"{_where(world, node)}: {seq} is forked, and {missing} not said again"
            else:
                assert judged.standing in _EXCUSES, f"{_where(world, node)}: {seq} is {judged.standing}"


def _named_by(world: "World", author: Author, seq: int) -> Iterator[tuple[str, str]]:
    """The documents that a commit of an own branch names, as far as anybody holds it."""
    for node in world.nodes:
        chain = node.store.names.chain(node.space, author)
        with node.store.read() as snapshot:
            if chain is not None and snapshot.log.header(chain, seq) is not None:
                yield from (named[1:] for named in documents_of(snapshot, chain, seq))


def _is_known(node: "Node", key: tuple[str, str]) -> bool:
    """Whether anything that counts was ever said of a document."""
    document = node.documents().get(key)
    return document is not None and bool(document.vector)


def check_nothing_forbidden_is_shown(world: "World") -> None:
    """Of what nobody had the right to write, nothing is seen anywhere."""
    for node in world.nodes:
        forked = {author for _, author in node.store.basis.forks}
        forbidden = {id for id in world.forbidden if world.unless_forked.get(id) not in forked}
        shown = {id for _, id in node.documents()} & forbidden
        told = {entry.id for entry in node.entries} & forbidden
        why = [world.forbidden[id] for id in sorted(shown | told)]
        assert not why, f"{_where(world, node)}: shows {why}"


def _where(world: "World", node: "Node") -> str:
    return f"seed {world.seed}, node {node.number}"


def _said_by(node: "Node") -> dict[str, Any]:
    members = node.store.members
    keys = sorted(members.roles.keys() | {other.node_keys.public for other in node.world.nodes})
    return {
        "root": node.root(),
        "members": {key: (members.rights_of(key), members.is_suspended(key)) for key in keys},
        "cuts": {key: sorted(cuts.cuts for cuts in members.cuts_of(key)) for key in keys},
        "documents": {key: document for key, document in node.documents().items() if document.vector},
    }


def _verdicts(node: "Node") -> Iterator[tuple[tuple[SpaceId, Author, int, bytes, int], Verdict]]:
    names = node.store.names
    with node.store.read() as snapshot:
        for arrival in snapshot.log.arrivals():
            space, author = names.space_of_chain(arrival.chain), names.author(arrival.chain)
            for index, digest in enumerate(
                snapshot.log.header_fields(arrival.chain, arrival.seq).body_hashes
            ):
                key = space, author, arrival.seq, digest, index
                yield key, snapshot.log.verdict(arrival.chain, arrival.seq, index)


def _judged(node: "Node", author: Author, seq: int) -> Judgement | None:
    """What a commit of the space of documents counts as; None if it is not there."""
    chain = node.store.names.chain(node.space, author)
    if chain is None:
        return None
    with node.store.read() as snapshot:
        found = spans(snapshot, chain, node.store.basis)
    return next((span.judgement for span in found if span.first_seq <= seq <= span.last_seq), None)
