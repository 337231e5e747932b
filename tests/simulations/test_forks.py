"""Whoever builds on branches of forked chains, and whichever branch a node met first: all judge all alike."""

from random import Random

import pytest

from protocol.membership import Role
from simulations.forger import Forger, frontier_deps, window_of
from simulations.harness import Node, World

SEEDS = (2, 18, 20)  # of which each failed while pasts went on through a fork


class Tangle:
    """Two sides that hear nothing of each other, and authors who tell each side another story.

    What is written on either side builds on all that is there: words on words, values on values, by way of whoever
    wrote last. A chance of the seed decides who writes what, whom it has seen, and when.
    """

    def __init__(self, seed: int) -> None:
        self.world = world = World(seed)
        self.random: Random = world.chance("tangle")
        self.ids = ["one", "two", "three"]
        nodes = [
            world.node(role=role) for role in (Role.ADMIN, Role.MEMBER, Role.MEMBER, Role.ADMIN, Role.MEMBER)
        ]
        self.sides = nodes[:3], nodes[3:]
        self.forgers = [self._forger() for _ in range(self.random.randint(1, 2))]
        for place, caller in enumerate(nodes):
            for answerer in nodes[place + 1 :]:
                world.link(caller, answerer, latency_ms=(1, 5))
        self._write_in_turn(nodes, self.random.randint(0, 8))
        world.settle()
        world.part()
        for link in world.links:
            if any(link.caller in side and link.answerer in side for side in self.sides):
                link.is_kept = True
                link.open()

    def _forger(self) -> Forger:
        forger, founder = self.world.stranger(), self.world.nodes[0]
        ticket = self.world.ticket()
        founder.invite(ticket, Role.MEMBER)
        founder.admit(forger.keys, ticket)
        return forger

    def go(self) -> None:
        """Each side by itself, then all together."""
        for forger in self.forgers:
            base = forger.tips.get(self.world.nodes[0].space)
            for side in self.sides:
                if base is not None:
                    forger.tips[self.world.nodes[0].space] = base
                else:
                    forger.tips.clear()
                for _ in range(self.random.randint(3, 10)):
                    if self.random.random() < 0.4:
                        self._forge(forger, self.random.choice(side))
                    else:
                        self._write(self.random.choice(side))
                    self.world.run(for_ms=self.random.choice((0, 20, 100)))
        self.world.settle()
        self._write_in_turn(self.world.nodes, 5)
        late = self.world.node()
        self.world.link(late, self.random.choice(self.world.nodes[:-1]), latency_ms=(1, 5))
        self.world.settle()

    def _write_in_turn(self, nodes: list[Node], times: int) -> None:
        for _ in range(times):
            self._write(self.random.choice(nodes))
            self._forge(self.random.choice(self.forgers), self.random.choice(nodes))
            self.world.run(for_ms=20)

    def _forge(self, forger: Forger, node: Node) -> None:
        """A commit of a chain that forks, which has seen all that a node has."""
        id, title = self.random.choice(self.ids), f"forged {self.random.randrange(99)}"
        deps = frontier_deps(node.store, node.space, forger.author)
        body = forger.body(self.world.model.id, id, title=title)
        node.take(window_of(forger.commit(node.space, body, deps=deps, at_ms=node.clock_ms())))

    def _write(self, node: Node) -> None:
        id, random = self.random.choice(self.ids), self.random
        document = node.documents().get((self.world.model.id, id))
        text: str = document.values().get("notes", "") if document is not None and document.exists else ""
        at = random.randint(0, len(text))
        notes = text[:at] + random.choice(("ab", "c ", "😀", "")) + text[at + random.randint(0, 2) :]
        tags = sorted(random.sample("abcd", random.randint(0, 3)))
        what = random.choice(({"title": f"title {random.randrange(99)}"}, {"tags": tags}, {"notes": notes}))
        node.put(id, **what)


@pytest.mark.parametrize("seed", SEEDS)
def test_who_met_different_branches_first_comes_to_the_same(seed: int) -> None:
    Tangle(seed).go()
