"""What is shown of `system`, what is believed of what others show, and a record made of what was shown."""

from random import Random

import pytest

from protocol.evidence import Evidence, OtherNetwork
from protocol.ids import Author, NetworkId, NodeId
from protocol.keys import KeyPair
from protocol.meeting import LoadStatements, Reason, StatementsLoaded
from protocol.membership import Role
from simulations.harness import Node
from storage.errors import StoreDamaged
from storage.memory_kv import MemoryKeyValueStore
from storage.opening import join_store
from storage.showing import judge_evidence, load_statements, statements
from storage.store import Store
from tests.protocol.meetings import invite, network

LAPTOP = KeyPair.from_seed(b"l" * 32)


def learn(node: Node, other: Node) -> None:
    """All statements of one reach the other, as a sync would bring them."""
    for commit in statements(other.store):
        node.integrator.receive(commit, node.clock_ms())


def shown_by(store: Store, node: bytes, *, everything: bool = False) -> Evidence:
    """Everything that a store shows as this node, taken in."""
    assert store.identity is not None
    evidence, is_last = Evidence(store.identity.network_id), False
    shown: dict[Author, int] = {}
    branches = 0
    while not is_last:
        loaded = load_statements(store, LoadStatements(NodeId(node), everything, shown, branches))
        evidence.take(loaded.data)
        shown |= dict(loaded.sent_to)
        branches += loaded.branches
        is_last = loaded.is_last
    return evidence


def entangled() -> tuple[Node, Node, Node]:
    """cat was let in early; later ann has said something that builds on what bob has said, which cat never saw."""
    _, (ann, bob) = network(Role.ADMIN)
    cat = ann.world.node(role=Role.MEMBER)
    invite(bob)
    learn(ann, bob)
    invite(ann, number=1)
    return ann, bob, cat


def test_what_gives_a_node_its_rights_is_shown_with_its_past_and_no_more_chains() -> None:
    ann, bob, cat = entangled()
    learn(cat, ann)
    evidence = shown_by(cat.store, cat.node_keys.public)
    assert {run.commits[0].header.author for run in evidence.runs} == {ann.identity.author}
    members = evidence.fold()
    assert members.role_of(cat.node_keys.public) is Role.MEMBER
    assert not evidence.is_whole, "the end of ann's run builds on bob's, which is not shown"
    everything = shown_by(cat.store, cat.node_keys.public, everything=True)
    assert everything.fold().roles == ann.store.members.roles and everything.is_whole
    assert everything.fold().role_of(bob.node_keys.public) is Role.ADMIN


def test_a_record_made_of_what_was_shown_can_itself_be_shown_and_goes_on() -> None:
    ann, _, cat = entangled()
    learn(cat, ann)
    evidence = shown_by(cat.store, cat.node_keys.public)
    evidence.fold()
    keys = MemoryKeyValueStore()
    join_store(Store(keys), LAPTOP, evidence.commits, evidence.runs, random_bytes=Random(1).randbytes)
    made = Store(keys)
    again = shown_by(made, cat.node_keys.public)
    assert again.fold().role_of(cat.node_keys.public) is Role.MEMBER
    with pytest.raises(StoreDamaged, match="proved"):
        # Without the ends of the runs nothing here would have a signature.
        bare = MemoryKeyValueStore()
        join_store(Store(bare), LAPTOP, evidence.commits, random_bytes=Random(1).randbytes)
        shown_by(Store(bare), cat.node_keys.public)


def test_nothing_is_shown_of_a_node_without_rights() -> None:
    _, (ann, bob) = network(Role.MEMBER)
    nothing = StatementsLoaded(b"", (), True)
    assert load_statements(ann.store, LoadStatements(LAPTOP.public, False, {})) == nothing
    ann.revoke(bob)
    assert load_statements(ann.store, LoadStatements(bob.node_keys.public, False, {})) == nothing


def test_a_grant_that_settled_a_dispute_is_shown_with_the_admission() -> None:
    _, (ann, bob) = network(Role.READER)
    ann.grant(bob, Role.ADMIN)
    evidence = shown_by(ann.store, bob.node_keys.public)
    assert evidence.fold().role_of(bob.node_keys.public) is Role.ADMIN


def test_evidence_is_judged_with_what_is_known_here() -> None:
    ann, bob, cat = entangled()
    evidence = shown_by(cat.store, cat.node_keys.public)
    assert judge_evidence(bob.store, evidence, cat.node_keys.public) is None
    assert judge_evidence(bob.store, evidence, LAPTOP.public) is Reason.NO_ROLE
    learn(bob, ann)
    bob.revoke(cat)
    assert judge_evidence(bob.store, evidence, cat.node_keys.public) is Reason.REVOKED
    with pytest.raises(OtherNetwork):
        Evidence(NetworkId(b"n" * 32)).fold()
