"""What peers sent, on its way to the writer, with a canary that finds what it is told to."""

import asyncio
import logging
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

from node.services.canary import Trial
from node.services.screening import Screen, quarantined_of
from protocol.commit import Commit
from protocol.membership import Role
from simulations.harness import Node, World
from storage.changes import AnyChange, Received
from storage.quarantine import Quarantined


@dataclass
class FakeCanary:
    """Finds every field of these documents bad."""

    bad: tuple[str, ...] = ()
    seen: list[Trial] = field(default_factory=list)

    async def check(self, trials: Sequence[Trial]) -> set[Hashable]:
        self.seen += trials
        return {trial.key for trial in trials if isinstance(trial.key, tuple) and trial.key[2] in self.bad}


@dataclass
class FakeWriter:
    node: Node
    changes: list[AnyChange] = field(default_factory=list)

    def submit(self, change: AnyChange) -> "asyncio.Future[Any]":
        self.changes.append(change)
        done = asyncio.get_running_loop().create_future()
        done.set_result(self.node.integrator.write([change], self.node.clock_ms()).results[0])
        return done


class Scene:
    """Ann has written; nothing of it is on bob's node yet."""

    def __init__(self, *bad: str) -> None:
        self.world = World(1)
        self.ann, self.bob = self.world.node(), self.world.node(role=Role.MEMBER)
        self.world.settle()
        self.canary, self.writer = FakeCanary(bad), FakeWriter(self.bob)
        screen: Any = Screen
        self.screen: Screen = screen(
            self.bob.store, self.writer, self.canary, logging.getLogger("test"), now_ms=lambda: 7
        )

    def commits(self, after: int = 0) -> list[Commit]:
        with self.ann.store.read() as snapshot:
            chain = snapshot.names.chain(self.ann.space, self.ann.identity.author)
            return [] if chain is None else list(snapshot.log.commits(chain, after_seq=after))

    def shown(self, id: str) -> Any:
        document = self.bob.documents().get((self.world.model.id, id))
        return None if document is None or document.is_broken else document.values().get("notes")


async def test_updates_of_each_field_are_tried_together_on_what_is_held_of_it() -> None:
    scene = Scene()
    scene.ann.put("page", notes="one", title="t")
    scene.ann.put("plain", title="t")
    scene.ann.put("page", notes="one two")
    await scene.screen.submit(Received(scene.commits(), ["default"]))
    (trial,) = scene.canary.seen
    assert (trial.field, trial.is_text, trial.contents, len(trial.updates)) == ("notes", True, b"", 2)
    assert scene.shown("page") == "one two"
    scene.ann.put("page", notes="one two three")
    await scene.screen.submit(Received(scene.commits(after=3)))
    assert len(scene.canary.seen[-1].updates) == 3  # what is held, and the new one
    assert scene.shown("page") == "one two three"


async def test_a_document_that_did_harm_is_quarantined_with_the_commit_that_brought_it() -> None:
    scene = Scene("bad")
    scene.ann.put("good", notes="words")
    scene.ann.put("bad", notes="words")
    outcomes = await scene.screen.submit(Received(scene.commits(), ["default"]))
    assert len(outcomes) == 2
    assert (scene.shown("good"), scene.shown("bad")) == ("words", None)
    (received,) = scene.writer.changes
    assert isinstance(received, Received)
    assert received.quarantine == (
        Quarantined(scene.bob.space, scene.world.model.id, "bad", 7, "merging its text stopped a process"),
    )
    (told,) = quarantined_of(scene.bob.store)
    assert (told["application"], told["id"]) == ("default", "bad")
    assert told["at"] == "1970-01-01T00:00:00.007Z"
    scene.ann.put("bad", notes="more words")
    await scene.screen.submit(Received(scene.commits(after=2)))
    assert len(scene.canary.seen) == 2  # nothing more is tried of it
    assert scene.shown("bad") is None


async def test_what_has_no_texts_or_cannot_be_read_is_handed_on() -> None:
    scene = Scene("bad")
    scene.ann.put("plain", title="t")
    (commit,) = scene.commits()
    await scene.screen.submit(Received([commit], ["default"]))
    await scene.screen.submit(Received([]))
    assert scene.canary.seen == [] and len(scene.writer.changes) == 2
