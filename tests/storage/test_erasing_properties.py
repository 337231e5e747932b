"""Whatever is erased, and whatever else a node holds of it when it hears of that: one set of commits, one outcome."""

from collections.abc import Sequence
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.body import decode_body
from protocol.commit import Commit
from protocol.errors import ProtocolError
from protocol.integrate import Verdict
from simulations.harness import START_MS, Node
from storage.doctor_replay import replayed_differences
from storage.errors import DocumentErased
from storage.memory_kv import MemoryKeyValueStore
from storage.store import Store
from tests.storage.test_rejudging_properties import NEVER_EARLY_MS, Hearer, Story, commits_of

LASTING = ("put", "put", "put", "delete", "hand", "hand", "erase", "skew")
SHAKEN = (*LASTING, "revoke", "grant", "recover")


class ErasingStory(Story):
    """Nodes that write, erase and hear things in the order that chance has it."""

    def act(self, action: str, node: Node, other: Node) -> None:
        try:
            if action == "erase":
                node.erase(f"d{self.random.randrange(3)}")
            else:
                super().act(action, node, other)
        except DocumentErased:
            pass

    def tell(self, actions: Sequence[str], steps: int) -> dict[bytes, list[Commit]]:
        """Every commit that anybody has made, causes first, as each node holds it."""
        self.actions = actions
        self.go(steps)
        held: dict[bytes, list[Commit]] = {}
        for node in self.nodes:
            for commit in commits_of(node.store):
                held.setdefault(commit.hash, []).append(commit)
        return held


def bodies_here(commit: Commit) -> int:
    return sum(body is not None for body in commit.bodies)


def contents_of_erased(store: Store) -> list[bytes]:
    """Bodies of erased documents that are here and are no erasures."""
    found = []
    with store.read() as snapshot:
        erased = {(d.model, d.id) for _, d in snapshot.documents.everything() if d.is_erased}
        for arrival in snapshot.log.arrivals():
            commit = snapshot.log.commit(arrival.chain, arrival.seq)
            assert commit is not None
            for data in commit.bodies:
                try:
                    body = decode_body(data or b"", commit.header.author)
                except ProtocolError:
                    continue
                if (body.model, body.id) in erased and not body.is_erasure:
                    found.append(data or b"")
    return found


def check(seed: int, steps: int, actions: Sequence[str]) -> None:
    story = ErasingStory(seed)
    held = story.tell(actions, steps)
    outcomes = []
    for number, now_ms in ((1, NEVER_EARLY_MS), (2, NEVER_EARLY_MS), (3, START_MS)):
        random = Random(f"{seed} {number}")
        hearer = Hearer(story.nodes[0], number)
        hearer.hear([random.choice(versions) for versions in held.values()], random, now_ms)
        hearer.come_due()
        if actions is SHAKEN:  # an erasure may have ceased to count: what is left of its document comes back
            hearer.hear([max(versions, key=bodies_here) for versions in held.values()], random, now_ms)
            hearer.come_due()
        assert contents_of_erased(hearer.store) == []
        assert replayed_differences(hearer.store, MemoryKeyValueStore()) == []
        outcomes.append(hearer.outcome())
    for name in outcomes[0]:
        assert outcomes[1][name] == outcomes[0][name], f"seed {seed}: two orders, two {name}"
        assert outcomes[2][name] == outcomes[0][name], f"seed {seed}: early or not, two {name}"
    if actions is LASTING:
        assert Verdict.MISSING not in outcomes[0]["verdicts"].values()


@settings(max_examples=settings().max_examples // 2)
@given(seed=st.integers(0, 1 << 32), steps=st.integers(1, 40))
def test_every_node_has_the_same_erased_whatever_came_with_its_body_and_in_which_order(
    seed: int, steps: int
) -> None:
    check(seed, steps, LASTING)


@settings(max_examples=settings().max_examples // 2)
@given(seed=st.integers(0, 1 << 32), steps=st.integers(1, 40))
def test_what_an_erasure_that_ceases_to_count_has_dropped_comes_back_from_who_has_it(
    seed: int, steps: int
) -> None:
    check(seed, steps, SHAKEN)
