"""Edits on earlier states: which of them a node takes, and where they land."""

from typing import Any

import pytest

from node.services.refusals import BaseUnknown
from node.services.text_bases import AGE_MAX_MS, EDITS_SINCE_MAX, TextBases
from protocol.errors import EditFault, Unmergeable
from protocol.text_edit import AnchoredEdit, read_edit
from simulations.harness import Node, World
from storage.changes import Received
from storage.errors import UnknownDocument
from storage.quarantine import Quarantined


class Scene:
    def __init__(self) -> None:
        self.world = World(1)
        self.node: Node = self.world.node()
        self.now_ms = self.node.clock_ms
        self.later_ms = 0
        self.bases = TextBases(self.node.store, lambda: self.node.clock_ms() + self.later_ms)

    def put(self, text: str) -> str:
        self.node.put("page", notes=text)
        return self.version()

    def version(self) -> str:
        return self.node.documents()[self.world.model.id, "page"].version

    def edit(self, version: str, *ops: dict[str, Any], id: str = "page") -> str:
        """Make an edit; what is shown then."""
        given = {"ops": list(ops), "base_version": version}
        values = {"title": "t", "notes": read_edit(given, is_text=True)}
        anchored = self.bases.anchor(self.world.model, id, values)
        assert anchored["title"] == "t" and isinstance(anchored["notes"], AnchoredEdit)
        self.node.put("page", **anchored)
        return str(self.node.documents()[self.world.model.id, "page"].values()["notes"])


def test_an_edit_lands_where_it_was_meant_whatever_came_since() -> None:
    scene = Scene()
    versions = [scene.put("fox"), scene.put("a fox"), scene.put("a fox runs")]
    assert scene.edit(versions[0], {"retain": 3}, {"insert": "y"}) == "a foxy runs"
    assert scene.edit(versions[1], {"delete": 1}, {"insert": "the"}) == "the foxy runs"
    assert scene.edit(versions[2], {"retain": 10}, {"insert": "!"}) == "the foxy runs!"
    assert scene.edit(scene.version(), {"insert": "> "}) == "> the foxy runs!"
    assert scene.edit(versions[0], {"delete": 3}) == "> the y runs!"


def test_states_are_kept_and_otherwise_read_from_the_history(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()
    version = scene.put("abc")
    assert scene.edit(version, {"insert": "0"}) == "0abc"  # which keeps the state
    monkeypatch.setattr("node.services.text_bases.find_version", lambda *of: None)
    assert scene.edit(version, {"retain": 3}, {"insert": "d"}) == "0abcd"
    scene.bases = TextBases(scene.node.store, scene.node.clock_ms)
    with pytest.raises(BaseUnknown):
        scene.edit(version, {"insert": "x"})


def test_no_more_states_are_kept_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.services.text_bases.STATES_KEPT_MAX", 3)
    scene = Scene()
    for length in range(1, 9):
        scene.edit(scene.put("x" * length), {"insert": "y"})
    assert len(scene.bases._states) == 3
    monkeypatch.setattr("node.services.text_bases.MEMORY_MAX_BYTES", 1)
    scene.edit(scene.version(), {"insert": "y"})
    assert len(scene.bases._states) == 1


def test_a_base_may_be_old_or_have_many_edits_behind_it_but_not_both(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (EDITS_SINCE_MAX, AGE_MAX_MS) == (1_000, 86_400_000)
    monkeypatch.setattr("node.services.text_bases.EDITS_SINCE_MAX", 3)
    scene = Scene()
    version = scene.put("a")
    for length in range(2, 5):
        scene.put("a" * length)
    scene.later_ms = AGE_MAX_MS + 1_000
    assert scene.edit(version, {"insert": "b"}) == "baaaa"
    scene.bases = TextBases(scene.node.store, lambda: scene.node.clock_ms() + scene.later_ms)
    with pytest.raises(BaseUnknown, match="3 edits and 24 hours"):
        scene.edit(version, {"insert": "c"})
    scene.later_ms = AGE_MAX_MS - 1_000
    assert scene.edit(version, {"insert": "c"}).endswith("baaaa")


def test_what_cannot_be_edited_is_refused_by_its_reason() -> None:
    scene = Scene()
    version = scene.put("abc")
    with pytest.raises(EditFault) as caught:
        scene.edit(version, {"retain": 4})
    assert caught.value.details == {"notes.ops": "Reaches beyond the end: 3 characters at that version"}
    with pytest.raises(BaseUnknown):
        scene.edit("f" * 16, {"insert": "x"})
    with pytest.raises(UnknownDocument):
        scene.edit(version, {"insert": "x"}, id="none")
    held = Quarantined(scene.node.space, scene.world.model.id, "page", 1, "for a test")
    scene.node.write(Received([], quarantine=[held]))
    with pytest.raises(Unmergeable):
        scene.edit(version, {"insert": "x"})
