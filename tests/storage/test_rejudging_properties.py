"""Whatever is said and written, and in whatever causal order it comes: one set of commits, one outcome."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.commit import Commit
from protocol.document import Document
from protocol.errors import ProtocolError
from protocol.ids import author_of
from protocol.integrate import Integrated, Known, Verdict, Waiting
from protocol.limits import CLOCK_AHEAD_MAX_MS
from protocol.membership import Role
from protocol.statements import Revoke
from simulations.harness import START_MS, Node, World, standing_cuts
from storage.changes import Received
from storage.doctor_replay import replayed_differences
from storage.errors import UnknownDocument
from storage.exchange import Exchange
from storage.memory_kv import MemoryKeyValueStore
from storage.store import Store

ACTIONS = ("put", "put", "put", "delete", "hand", "hand", "hand", "revoke", "grant", "recover", "skew")
NEVER_EARLY_MS = START_MS + 1_000 * CLOCK_AHEAD_MAX_MS


class Story:
    """Four nodes that write, say and hear things in the order that chance has it."""

    actions: Sequence[str] = ACTIONS

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.world = World(seed)
        roles = (Role.ADMIN, Role.ADMIN, Role.MEMBER)
        self.nodes = [self.world.node(), *(self.world.node(role=role) for role in roles)]
        self.nodes[0].put("d0", title="first")

    def go(self, steps: int) -> list[Commit]:
        """Every commit that anybody has made, causes first."""
        for _ in range(steps):
            node, other = self.random.sample(self.nodes, 2)
            try:
                self.act(self.random.choice(self.actions), node, other)
            except (UnknownDocument, ProtocolError):
                pass  # it may not, as far as it knows
            self.world.now_ms += self.random.randrange(1_000)
        found = {commit.hash: commit for node in self.nodes for commit in commits_of(node.store)}
        return list(found.values())

    def act(self, action: str, node: Node, other: Node) -> None:
        random = self.random
        match action:
            case "put":
                node.put(
                    f"d{random.randrange(3)}", title=f"t{random.randrange(99)}", tags=[random.choice("abc")]
                )
            case "delete":
                node.delete(f"d{random.randrange(3)}")
            case "hand":
                other.write(Received(commits_of(node.store), ["default"]))
            case "skew":
                node.skew_ms = random.choice((0, 2 * CLOCK_AHEAD_MAX_MS))
            case "revoke" if node.store.members.role_of(node.node_keys.public) is Role.ADMIN:
                node.revoke(other, keeping=lambda space, author, seq: random.randint(0, seq))
            case "grant" if node.store.members.role_of(node.node_keys.public) is Role.ADMIN:
                node.grant(other, random.choice(list(Role)))
            case "recover" if random.random() < 0.3:
                node.recover(Revoke(other.node_keys.public, standing_cuts(node, other.node_keys.public)))


def commits_of(store: Store) -> list[Commit]:
    """Every commit of a store in the order of arrival."""
    with store.read() as snapshot:
        found = [snapshot.log.commit(arrival.chain, arrival.seq) for arrival in snapshot.log.arrivals()]
    return [commit for commit in found if commit is not None]


class Hearer:
    """A store that only listens."""

    def __init__(self, node: Node, number: int) -> None:
        self.store = Store(MemoryKeyValueStore())
        author = author_of(node.node_keys.public, number.to_bytes(8, "big"))
        self.store.begin(replace(node.identity, author=author), founding=None)
        self.node = node
        self.integrator = node.integrator_over(self.store)

    def hear(self, commits: Sequence[Commit], random: Random, now_ms: int) -> None:
        """Take in commits in an order of chance in which causes come first, a few at a time."""
        waiting = list(commits)
        while waiting:
            random.shuffle(waiting)
            later: list[Commit] = []
            place = 0
            while place < len(waiting):
                some = waiting[place : place + random.randint(1, 4)]
                place += len(some)
                (outcomes,) = self.integrator.write([Received(some, ["default"])], now_ms).results
                for commit, outcome in zip(some, outcomes, strict=True):
                    assert isinstance(outcome, Integrated | Known | Waiting), outcome
                    if isinstance(outcome, Waiting):
                        later.append(commit)
            assert len(later) < len(waiting), "commits wait for what nobody has made"
            waiting = later

    def come_due(self) -> None:
        while (due_ms := self.integrator.next_due_ms()) is not None:
            self.integrator.write([], due_ms)

    def outcome(self) -> dict[str, Any]:
        """Documents, verdicts, members, heads and root."""
        names, system = self.store.names, self.store.system
        documents: dict[tuple[str, str], Document] = {}
        verdicts: dict[tuple[bytes, int, int], Verdict] = {}
        with self.store.read() as snapshot:
            for _, document in snapshot.documents.everything():
                documents[document.model, document.id] = document
            for arrival in snapshot.log.arrivals():
                key = names.space_of_chain(arrival.chain) + names.author(arrival.chain), arrival.seq
                for index in range(len(snapshot.log.header_fields(arrival.chain, arrival.seq).body_hashes)):
                    verdicts[(*key, index)] = snapshot.log.verdict(arrival.chain, arrival.seq, index)
            heads = {space: set(snapshot.frontier(space)) for space in (system, self.store.space("default"))}
        return {
            "documents": documents,
            "verdicts": verdicts,
            "roles": self.store.members.roles,
            "heads": heads,
            "root": Exchange(self.store, lambda change: None).root(),
        }


def check(seed: int, steps: int) -> None:
    story = Story(seed)
    commits = story.go(steps)
    outcomes = []
    for number, now_ms in ((1, NEVER_EARLY_MS), (2, NEVER_EARLY_MS), (3, START_MS)):
        hearer = Hearer(story.nodes[0], number)
        hearer.hear(commits, Random(f"{seed} {number}"), now_ms)
        hearer.come_due()
        assert replayed_differences(hearer.store, MemoryKeyValueStore()) == []
        outcomes.append(hearer.outcome())
    for name in outcomes[0]:
        assert outcomes[1][name] == outcomes[0][name], f"seed {seed}: two orders, two {name}"
        assert outcomes[2][name] == outcomes[0][name], f"seed {seed}: early or not, two {name}"


@settings(max_examples=settings().max_examples // 2)
@given(seed=st.integers(0, 1 << 32), steps=st.integers(1, 40))
def test_two_causal_orders_of_the_same_commits_have_the_same_outcome(seed: int, steps: int) -> None:
    check(seed, steps)
