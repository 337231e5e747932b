"""Earlier states of a document, found by their versions: in simulated nodes that edit one text."""

from pathlib import Path
from typing import Any

from protocol.membership import Role
from simulations.harness import Node, World
from storage import versions
from storage.versions import Earlier, find_version


def version_of(node: Node, id: str = "page") -> str:
    return node.documents()[node.world.model.id, id].version


def find(node: Node, version: str, id: str = "page") -> Earlier | None:
    with node.store.read() as snapshot:
        return find_version(snapshot, node.store.basis, node.space, node.world.model.id, id, version)


def points(found: Earlier | None) -> int:
    assert found is not None
    return found.document.shared[8, "notes"].weave.visible_points()


def test_every_state_that_was_shown_is_found_but_for_the_last() -> None:
    world = World(1)
    node = world.node()
    seen: list[str] = []
    for length in range(1, 6):
        node.put("page", notes="x" * length)
        seen.append(version_of(node))
    for place, version in enumerate(seen[:-1]):
        found = find(node, version)
        assert (points(found), found and found.bodies_since) == (place + 1, len(seen) - place - 1)
    assert find(node, seen[-1]) is None
    assert find(node, "0" * 16) is None
    assert find(node, seen[0], "other") is None


def test_states_of_others_are_found_where_they_have_been_shown(monkeypatch: Any, tmp_path: Path) -> None:
    world = World(2)
    ann, bob = world.node(), world.node(role=Role.MEMBER)
    ann.put("page", notes="ab")
    link = world.link(ann, bob, latency_ms=(1, 2), effect_ms=(0, 0))
    world.settle()
    both = version_of(ann)
    assert link.connection is not None
    link.connection.cut()
    bob.put("page", notes="abc")
    alone = version_of(bob)
    ann.put("page", notes="0ab")
    world.settle()
    assert version_of(ann) == version_of(bob)
    for node in (ann, bob):
        assert points(find(node, both)) == 2
    assert points(find(bob, alone)) == 3
    assert find(ann, alone) is None  # ann never showed that
    monkeypatch.setattr(versions, "BODIES_READ_MAX", 2)
    assert find(bob, both) is None
