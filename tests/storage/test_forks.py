"""An author who signs one seq twice: whichever branch a node met first, all come to the same.

On disk and in memory, through real sessions; the doctor replays every node after each case.
"""

from typing import Any

from protocol.commit import Commit
from protocol.exchange import RolledBack
from protocol.keys import KeyPair
from protocol.membership import Role
from simulations.forger import Forger, dep_on, frontier_deps, window_of
from simulations.harness import Node, World
from storage.memory_kv import MemoryKeyValueStore
from storage.opening import join_store
from storage.store import Store
from storage.voided import Voided, voided
from tests.storage.test_rejudging import network, settle, title, world
from tests.storage.test_showing import shown_by

__all__ = ["world"]  # the fixture


def forger_of(node: Node) -> Forger:
    """Somebody else who holds the key of a node, which itself is gone."""
    forger = Forger(node.node_keys, node.author).follow(node.store, node.space, node.store.system)
    for link in [link for link in node.world.links if node in (link.caller, link.answerer)]:
        link.is_kept = False
        link.cut()
        node.world.links.remove(link)
    node.world.nodes.remove(node)
    return forger


def write(forger: Forger, node: Node, id: str, *, after: Commit | None = None, **values: Any) -> Commit:
    """The next commit of a chain, or one beside those after another."""
    body = forger.body(node.world.model.id, id, **values)
    deps = frontier_deps(node.store, node.space, forger.author)
    return forger.commit(node.space, body, deps=deps, after=after, at_ms=node.clock_ms())


def apart_on_two_branches(world: World) -> tuple[Node, Node, Node, Forger, list[Commit]]:
    """Ann has one branch of bob's chain, cat the other, dan neither. Below the fork is one commit of bob's."""
    ann, bob, cat, dan = network(world, Role.MEMBER, Role.ADMIN, Role.MEMBER)
    bob.put("common", title="below the fork")
    settle(world)
    forger = forger_of(bob)
    world.part()
    common = forger.tips[ann.space]
    one = [write(forger, ann, "a", after=common, title="one")]
    one += [write(forger, ann, "a2", title="one, on")]
    other = [write(forger, cat, "b", after=common, title="other")]
    other += [write(forger, cat, "b2", title="other, on"), write(forger, cat, "b3", title="other, on and on")]
    ann.take(window_of(*one))
    cat.take(window_of(*other))
    return ann, cat, dan, forger, [common, *one, *other]


def test_a_fork_freezes_the_chain_at_the_common_prefix_everywhere(world: World) -> None:
    ann, cat, dan, forger, _ = apart_on_two_branches(world)
    assert title(ann, "a") == "one" and title(cat, "b") == "other"
    settle(world)
    for node in (ann, cat, dan):
        assert title(node, "common") == "below the fork"
        assert [title(node, id) for id in ("a", "a2", "b", "b2", "b3")] == [None] * 5
        assert node.store.basis.forks == {(node.space, forger.author): 2}


def test_what_honest_nodes_built_on_either_branch_counts_and_comes_to_who_has_neither(world: World) -> None:
    ann, cat, dan, _forger, _ = apart_on_two_branches(world)
    ann.put("a", title="of ann, who has seen it")
    cat.put("b2", title="of cat, who has seen it")
    ann.put("common", title="of ann")
    cat.put("common", title="of cat")
    settle(world)
    for node in (ann, cat, dan):
        assert title(node, "a") == "of ann, who has seen it"
        assert title(node, "b2") == "of cat, who has seen it"
        assert title(node, "b") is None
        assert len(node.documents()[world.model.id, "common"].live_values("title")) == 2
    late = world.node()
    world.link(late, dan, latency_ms=(1, 3))
    settle(world)
    late.put("common", title="of late, who has seen both")
    settle(world)
    assert title(ann, "common") == title(cat, "common") == "of late, who has seen both"


def test_a_fork_at_the_very_beginning_leaves_nothing(world: World) -> None:
    ann, bob, cat = network(world, Role.MEMBER, Role.MEMBER)
    forger = forger_of(bob)
    world.part()
    one = write(forger, ann, "a", title="one")
    del forger.tips[ann.space]
    other = write(forger, cat, "b", title="other")
    ann.take(window_of(one))
    cat.take(window_of(other))
    settle(world)
    assert title(ann, "a") is title(cat, "b") is None


def test_a_lower_fork_that_comes_to_light_later_freezes_more(world: World) -> None:
    ann, cat, dan, forger, _commits = apart_on_two_branches(world)
    settle(world)
    del forger.tips[ann.space]
    third = write(forger, dan, "third", title="from the beginning")
    dan.take(window_of(third))
    settle(world)
    for node in (ann, cat, dan):
        assert title(node, "common") is None
        assert node.store.basis.forks == {(node.space, forger.author): 1}


def test_what_was_seen_by_way_of_a_branch_alone_is_seen_by_who_has_the_other(world: World) -> None:
    """Ann's chain names whom it relies on: nothing is seen through a chain that forks."""
    ann, bob, cat, dan = network(world, Role.MEMBER, Role.ADMIN, Role.MEMBER)
    forger = forger_of(bob)
    world.part()
    dan.put("doc", title="of dan", tags=["a", "b"])
    with dan.store.read() as snapshot:
        chain = dan.store.names.chain(dan.space, dan.author)
        said = snapshot.log.commit(chain, 1) if chain is not None else None
    assert said is not None
    ann.take(window_of(said))
    ann.take(window_of(write(forger, ann, "a", title="has seen dan's")))
    ann.put("doc", title="of ann", tags=["a"])  # its heads are the forger's alone
    forger.tips.clear()
    cat.take(window_of(write(forger, cat, "a", title="has seen nothing")))
    settle(world)
    for node in (ann, cat, dan):
        assert titles(node, "doc") == ["of ann"]
        assert node.documents()[world.model.id, "doc"].values()["tags"] == ["a"]


def test_words_written_into_a_branch_are_said_again_by_who_wrote_them(world: World) -> None:
    ann, bob, cat = network(world, Role.MEMBER, Role.MEMBER)
    bob.put("doc", title="t", notes="The fox.")
    settle(world)
    backup = bob.backup()
    bob.put("doc", notes="The quick fox.")
    settle(world)
    ann.put("doc", title="of ann", notes="The quick brown fox.")
    ann.put("doc", notes="The quick brown red fox.", tags=["seen"])
    settle(world)
    world.part()
    bob.restore(backup, as_new_author=False)
    bob.put("doc", notes="The fox jumps.")
    settle(world)
    for node in (ann, bob, cat):
        doc = node.documents()[world.model.id, "doc"].values()
        assert sorted(doc["notes"].split()) == ["The", "brown", "fox", "jumps.", "quick", "red"]
        assert doc["notes"].index("brown") < doc["notes"].index("red")
        assert (titles(node, "doc"), doc["tags"]) == (["of ann"], ["seen"])
        assert not list(voided_of(node))
    heads = [node.seq_of(ann.author) for node in (ann, bob, cat)]
    world.part()
    settle(world)
    assert [node.seq_of(ann.author) for node in (ann, bob, cat)] == heads  # nor is it said once more


def voided_of(node: Node) -> list[Voided]:
    with node.store.read() as snapshot:
        return list(voided(snapshot.local))


def test_a_fork_is_believed_though_neither_branch_can_be_integrated(world: World) -> None:
    """What both rest on counts nowhere, so nobody is told of it."""
    ann, bob, cat = network(world, Role.MEMBER, Role.MEMBER)
    forger, stranger = forger_of(bob), world.stranger()
    base = forger.tips.get(ann.space)
    world.part()
    nothing = stranger.commit(ann.space, at_ms=ann.clock_ms())
    ann.take(window_of(nothing))
    for id in ("one", "other"):
        body = forger.body(world.model.id, id, title=id)
        commit = forger.commit(ann.space, body, deps=[dep_on(nothing)], after=base, is_kept=False)
        ann.take(window_of(commit))
    settle(world)
    assert ann.store.basis.forks == cat.store.basis.forks == {(ann.space, forger.author): 1}


# -- statements ------------------------------------------------------------------------------------------------


def test_statements_on_both_branches_are_known_everywhere_and_to_who_joins(world: World) -> None:
    """A later commit builds on the branch that others do not hold; they take it in, and so does a joiner."""
    ann, bob, cat = network(world, Role.ADMIN, Role.MEMBER)
    backup, keys = bob.backup(), KeyPair.from_seed(b"k" * 32)
    tickets = [world.ticket() for _ in range(3)]
    bob.invite(tickets[0], Role.MEMBER)
    settle(world)
    cat.admit(KeyPair.from_seed(b"j" * 32), tickets[0])
    settle(world)
    world.part()
    bob.restore(backup, as_new_author=False)
    bob.invite(tickets[1], Role.MEMBER)
    bob.grant(cat, Role.ADMIN)
    settle(world)
    bob.invite(tickets[2], Role.MEMBER)
    settle(world)
    cat.admit(keys, tickets[2])
    settle(world)
    links = {frozenset(node.store.members.links) for node in (ann, bob, cat)}
    assert len(links) == 1 and ann.store.members.role_of(keys.public) is Role.MEMBER
    for node in (ann, bob, cat):
        assert {frozenset(Store(node.keys).members.links)} == links
        evidence = shown_by(node.store, node.node_keys.public, everything=True)
        evidence.fold()
        assert evidence.is_whole
        joined = Store(MemoryKeyValueStore())
        join_store(joined, keys, evidence.commits, evidence.runs, random_bytes=ann.random.randbytes)
        assert frozenset(joined.members.links) in links


# -- one's own chain -------------------------------------------------------------------------------------------


def titles(node: Node, id: str) -> list[object]:
    """All that stands side by side."""
    return sorted(v for _, v in node.documents()[node.world.model.id, id].live_values("title"))


def test_a_store_that_was_rolled_back_and_written_to_loses_neither_side(world: World) -> None:
    ann, bob, cat = network(world, Role.MEMBER, Role.MEMBER)
    bob.put("doc", title="t0", votes=1, tags=["kept", "taken"], notes="The fox.")
    bob.put("gone", title="to be deleted")
    bob.put("back", title="to come back")
    bob.delete("back")
    settle(world)
    backup = bob.backup()
    bob.put("told", title="before")
    bob.put("doc", title="t1", votes=3, tags=["kept", "told"], notes="The quick fox.")
    bob.put("back", title="is back")
    settle(world)
    ann.put("told", title="of ann, who has seen it")
    settle(world)
    world.part()
    bob.restore(backup, as_new_author=False)
    bob.put("after", title="after")
    bob.put("doc", title="t2", votes=6, tags=["kept", "taken", "after"], notes="The fox jumps.")
    bob.delete("gone")
    settle(world)
    for node in (ann, bob, cat):
        assert title(node, "told") == "of ann, who has seen it" and len(titles(node, "told")) == 1
        assert title(node, "after") == "after" and title(node, "gone") is None
        assert title(node, "back") == "is back"
        assert titles(node, "doc") == ["t1", "t2"]
        doc = node.documents()[world.model.id, "doc"].values()
        assert doc["votes"] == 1 + 2 + 5
        assert sorted(doc["tags"]) == ["after", "kept", "told"]
        assert doc["notes"] == "The quick fox jumps."


def test_what_was_said_again_is_not_said_once_more_after_another_rollback(world: World) -> None:
    ann, bob, cat = network(world, Role.MEMBER, Role.MEMBER)
    backup = bob.backup()
    bob.put("doc", title="t1", votes=2)
    settle(world)
    for word in ("one", "two"):
        world.part()
        bob.restore(backup, as_new_author=False)
        bob.put(word, title=word, votes=1)
        settle(world)
        ann.put("doc", title=f"of ann after {word}")
        settle(world)
    for node in (ann, bob, cat):
        assert titles(node, "doc") == ["of ann after two"]
        assert node.documents()[world.model.id, "doc"].values()["votes"] == 2
        for word in ("one", "two"):
            assert node.documents()[world.model.id, word].values() == {"title": word, "votes": 1}


def test_a_copy_that_nobody_noticed_goes_on_as_another_and_loses_nothing(world: World) -> None:
    ann, bob, cat = network(world, Role.MEMBER, Role.MEMBER)
    bob.put("shared", title="before", votes=1, tags=["kept"])
    settle(world)
    world.part()
    twin = world.twin(bob, is_noticed=False)
    assert twin.author == bob.author
    bob.put("of-bob", title="b")
    bob.put("shared", title="of bob", votes=3)
    twin.put("of-twin", title="t")
    twin.put("shared", title="of twin", votes=6, tags=["kept", "twin"])
    twin.put("first", title="changed by twin")
    twin.delete("first")
    world.link(twin, cat, latency_ms=(1, 3))
    settle(world)
    assert any(isinstance(news, RolledBack) for news in bob.news + twin.news)
    assert bob.author != twin.author
    bob.put("later", title="goes on")
    settle(world)
    for node in (ann, bob, cat, twin):
        assert title(node, "of-bob") == "b" and title(node, "of-twin") == "t"
        assert title(node, "first") is None and title(node, "later") == "goes on"
        assert set(titles(node, "shared")) == {"of bob", "of twin"}
        assert sorted(node.documents()[world.model.id, "shared"].values()["tags"]) == ["kept", "twin"]


def test_a_fork_that_is_shown_to_its_author_by_a_third_makes_it_go_on_as_another(world: World) -> None:
    """Nobody that it meets had any of its chain from it: the proof comes with the rest."""
    ann, bob, cat = network(world, Role.MEMBER, Role.MEMBER)
    world.part()
    forger = Forger(bob.node_keys, bob.author).follow(bob.store, bob.space)
    bob.put("mine", title="of bob")
    author = bob.author
    ann.take(window_of(write(forger, ann, "other", title="of a thief")))
    settle(world)
    assert bob.author != author
    for node in (ann, bob, cat):
        assert title(node, "mine") == "of bob"
