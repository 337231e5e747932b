"""Documents that this node does not merge: kept in order, shown to nobody, listed, through restarts and doctors."""

from protocol.membership import Role
from simulations.harness import Node, World
from storage.changes import Received
from storage.doctor_replay import replayed_differences
from storage.memory_kv import MemoryKeyValueStore
from storage.quarantine import Quarantined, listed, note


def two(world: World) -> tuple[Node, Node]:
    ann, bob = world.node(), world.node(role=Role.MEMBER)
    ann.put("page", notes="words")
    world.link(ann, bob, latency_ms=(1, 2), effect_ms=(0, 0))
    world.settle()
    return ann, bob


def quarantine(node: Node, id: str = "page") -> Quarantined:
    told = Quarantined(node.space, node.world.model.id, id, 7, "for a test")
    node.write(Received([], quarantine=[told]))
    return told


def test_a_quarantined_document_is_listed_and_says_nothing_while_others_go_on() -> None:
    world = World(1)
    ann, bob = two(world)
    told = quarantine(bob)
    with bob.store.read() as snapshot:
        assert list(listed(snapshot.local)) == [told]
    key = world.model.id, "page"
    assert bob.documents()[key].is_broken
    ann.put("page", notes="more words", title="t")
    world.settle()
    assert ann.documents()[key].values()["notes"] == "more words"
    held = bob.documents()[key]
    assert held.is_quarantined and "notes" not in held.values()
    assert held == ann.documents()[key]  # order and all, but for the contents
    assert not replayed_differences(bob.store, MemoryKeyValueStore())


def test_a_document_can_be_quarantined_before_it_is_here() -> None:
    world = World(2)
    ann, bob = two(world)
    quarantine(bob, "new")
    assert not bob.documents()[world.model.id, "new"].exists
    ann.put("new", notes="first words")
    world.settle()
    held = bob.documents()[world.model.id, "new"]
    assert held.exists and held.is_broken and held.values() == {}
    assert not replayed_differences(bob.store, MemoryKeyValueStore())


def test_what_is_made_anew_after_a_revocation_stays_quarantined() -> None:
    world = World(3)
    ann, bob = two(world)
    bob.put("page", notes="words of bob")
    world.settle()
    quarantine(ann)
    ann.revoke(bob, keeping=lambda space, author, seq: 0)
    world.settle()
    assert ann.documents()[world.model.id, "page"].is_quarantined


def test_the_list_holds_each_document_once_in_order() -> None:
    world = World(4)
    node = world.node()
    for id in ("b", "a", "b"):
        quarantine(node, id)
    with node.store.write() as batch:
        note(batch.local, Quarantined(node.space, "m", "z", 9, "why"))
    with node.store.read() as snapshot:
        assert sorted(told.id for told in listed(snapshot.local)) == ["a", "b", "z"]
