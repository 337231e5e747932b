"""Whatever becomes known late: documents, rows and feed are what they would be had it been known from the start.

The same cases on disk and in memory; after each of them all nodes agree, and the doctor replays each to the
same record.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from protocol.body import Dot
from protocol.changes import Record
from protocol.ids import SpaceId
from protocol.integrate import Change, Verdict
from protocol.limits import CLOCK_AHEAD_MAX_MS
from protocol.membership import Role
from protocol.schema import Field, FieldType
from protocol.statements import Revoke
from simulations.forger import Forger, dep_on, frontier_deps, window_of
from simulations.harness import APPLICATION, Node, World, standing_cuts
from storage.ancestry import past_in
from storage.feed_entry import FeedEntry
from storage.indexer import row_of
from storage.judging import Rebuilder
from storage.kv import KeyValueStore
from storage.lmdb_kv import LmdbKeyValueStore


@pytest.fixture(params=["memory", "disk"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """Ann founds a network; each test admits others. Links are made by `network`."""
    opened: list[KeyValueStore] = []

    def on_disk(number: int) -> KeyValueStore:
        directory = tmp_path / str(number)
        directory.mkdir()
        opened.append(LmdbKeyValueStore(str(directory)))
        return opened[-1]

    yield World(1, keys=on_disk, has_index=True) if request.param == "disk" else World(1, has_index=True)
    for keys in opened:
        keys.close()


def network(world: World, *roles: Role) -> list[Node]:
    """The founder and others with these roles, every two of them linked, all in sync."""
    nodes = [world.node(), *(world.node(role=role) for role in roles)]
    nodes[0].put("first", title="of ann")
    for place, caller in enumerate(nodes):
        for answerer in nodes[place + 1 :]:
            world.link(caller, answerer, latency_ms=(1, 3), effect_ms=(0, 0))
    world.settle()
    return nodes


def settle(world: World) -> None:
    """All agree, rows of the index included."""
    world.settle()
    for node in world.nodes:
        assert node.index is not None and not node.integrator.indexer.is_stale
        with node.store.read() as snapshot:
            past_of = past_in(snapshot, node.store.space(APPLICATION))
            made = [row_of(world.model, document, past_of) for document in node.documents().values()]
        assert not node.index.differences(world.model, [row for row in made if row is not None])


def title(node: Node, id: str) -> Any:
    """What the document shows; None if it does not exist."""
    document = node.documents().get((node.world.model.id, id))
    return document.values().get("title") if document is not None and document.exists else None


def told(node: Node, since: int) -> list[tuple[str, Change]]:
    """What subscribers heard after so many entries."""
    entries: list[FeedEntry] = node.entries[since:]
    assert [e.arrival for e in entries] == sorted(e.arrival for e in entries)
    return [(entry.id, entry.change) for entry in entries]


def keeping(**seqs: int) -> Any:
    """Cuts that leave so much of the chain in the space of documents, and all of every other."""

    def keep(space: SpaceId, author: bytes, seq: int, app: int = seqs["app"]) -> int:
        return min(seq, app)

    return keep


# -- revocation ------------------------------------------------------------------------------------------------


def test_what_is_above_a_cut_is_undone_everywhere_and_what_is_below_stays(world: World) -> None:
    ann, bob, mia = network(world, Role.MEMBER, Role.MEMBER)
    ann.put("shared", title="of ann")
    settle(world)
    bob.put("below", title="counts")
    bob.put("shared", title="of bob, counts")
    bob.put("shared", title="of bob, too late")
    bob.put("above", title="does not count")
    settle(world)
    heard = [len(node.entries) for node in (ann, bob, mia)]
    space, kept = ann.space, 2
    ann.revoke(bob, keeping=lambda s, a, seq: kept if s == space else seq)
    ann_first = told(ann, heard[0])
    assert sorted(ann_first) == [("above", Change.DELETED), ("shared", Change.UPDATED)]
    settle(world)
    for node, since in zip((ann, bob, mia), heard, strict=True):
        assert title(node, "below") == "counts"
        assert title(node, "shared") == "of bob, counts"
        assert title(node, "above") is None
        assert sorted(told(node, since)) == sorted(ann_first)
        assert {entry.author for entry in node.entries[since:]} == {ann.author}


def test_a_value_that_was_superseded_by_what_is_void_is_shown_again(world: World) -> None:
    ann, bob, _ = network(world, Role.MEMBER, Role.MEMBER)
    bob.put("first", title="of bob", votes=5, tags=["b"])
    settle(world)
    assert title(ann, "first") == "of bob"
    ann.revoke(bob, keeping=lambda s, a, seq: 0)
    settle(world)
    assert ann.documents()[world.model.id, "first"].values() == {"title": "of ann"}


def test_a_conflict_ends_when_one_of_its_values_is_void_and_its_winner_changes_back(world: World) -> None:
    ann, bob, mia = network(world, Role.MEMBER, Role.MEMBER)
    world.part()
    mia.put("first", title="of mia")
    world.run(for_ms=50)
    bob.put("first", title="of bob, later")
    settle(world)
    document = ann.documents()[world.model.id, "first"]
    assert title(ann, "first") == "of bob, later" and len(document.live_values("title")) == 2
    ann.revoke(bob, keeping=lambda s, a, seq: 0)
    settle(world)
    document = ann.documents()[world.model.id, "first"]
    assert title(ann, "first") == "of mia" and len(document.live_values("title")) == 1


def test_values_are_shown_anew_when_what_they_came_from_is_void_though_nothing_of_it_was_left(
    world: World,
) -> None:
    fields = {**world.model.fields, "rank": Field("rank", FieldType.INTEGER, merge="sum")}
    world.model = replace(world.model, fields=fields, conflict_strategy="merge")
    ann, bob, mia, eve = network(world, Role.MEMBER, Role.MEMBER, Role.MEMBER)
    eve.put("first", rank=10)
    settle(world)
    world.part()
    mia.put("first", rank=11)
    bob.put("first", rank=12)
    settle(world)
    assert [rank(node, "first") for node in (ann, bob, mia)] == [13] * 3
    since = len(bob.entries)
    before = bob.documents()[world.model.id, "first"]
    ann.revoke(eve, keeping=lambda s, a, seq: 0)
    settle(world)
    after = bob.documents()[world.model.id, "first"]
    assert after.layers == before.layers
    assert [rank(node, "first") for node in (ann, bob, mia)] == [23] * 3
    assert told(bob, since) == [("first", Change.UPDATED)]


def test_a_document_in_conflict_is_another_one_as_soon_as_any_of_its_bodies_counts_otherwise(
    world: World,
) -> None:
    ann, bob = network(world, Role.MEMBER)
    ann.put("first", title="base")
    settle(world)
    world.part()
    ann.put("first", title="of ann")
    bob.put("first", title="of bob")
    bob.put("alone", title="old")
    bob.put("alone", title="new")
    settle(world)
    with ann.store.write() as batch:
        assert batch.basis is not None
        rebuilder = Rebuilder(batch, batch.basis)
        for id, is_told in (("first", True), ("alone", False)):
            key = ann.space, world.model.id, id
            old = next(iter(batch.documents.history(*key)))
            batch.log.settle_verdict(old.chain, old.seq, old.index, Verdict.VOID)  # as if it had been so
            told = rebuilder.rebuild(key, ann.author, 1)
            assert (told is not None) is is_told
            assert batch.log.verdict(old.chain, old.seq, old.index) is Verdict.APPLIED


def rank(node: Node, id: str) -> Any:
    """What is shown: how values were folded."""
    with node.store.read() as snapshot:
        document = snapshot.documents.get(node.space, node.world.model.id, id)
        assert document is not None
        return Record.of(node.world.model, document, past_in(snapshot, node.space)).values["rank"]


def test_a_delete_that_is_void_brings_the_document_back(world: World) -> None:
    ann, bob, mia = network(world, Role.MEMBER, Role.MEMBER)
    bob.delete("first")
    settle(world)
    assert title(mia, "first") is None
    since = len(mia.entries)
    ann.revoke(bob, keeping=lambda s, a, seq: 0)
    settle(world)
    assert title(mia, "first") == "of ann"
    assert told(mia, since) == [("first", Change.CREATED)]


def test_what_others_built_on_void_commits_counts_and_the_void_ones_travel_for_it(world: World) -> None:
    ann, bob, mia = network(world, Role.MEMBER, Role.MEMBER)
    bob.put("a", title="void")
    bob.put("b", title="void")
    settle(world)
    mia.put("a", title="of mia, who had seen it")
    settle(world)
    ann.revoke(bob, keeping=lambda s, a, seq: 0)
    settle(world)
    late = world.node()  # hears of the revocation first, and then needs what is above the cut
    world.link(late, mia, latency_ms=(1, 3))
    settle(world)
    for node in (ann, mia, late):
        assert title(node, "a") == "of mia, who had seen it"
        assert title(node, "b") is None


def test_back_dated_commits_of_a_revoked_node_are_not_even_asked_for(world: World) -> None:
    ann, bob, _ = network(world, Role.MEMBER, Role.MEMBER)
    bob.put("counts", title="before")
    settle(world)
    forger = Forger(bob.node_keys, bob.author).follow(bob.store, bob.space)
    deps = frontier_deps(bob.store, bob.space, bob.author)
    ann.revoke(bob)
    settle(world)
    late = forger.commit(ann.space, forger.body(world.model.id, "late", title="back-dated"), deps=deps)
    ann.take(window_of(late))
    settle(world)
    assert title(ann, "late") is None
    heads = [node.seq_of(bob.author) for node in world.nodes]
    assert heads == [2, 1, 1][:1] + heads[1:]  # who was given it may keep it; nobody else asks


def test_one_can_go_on_writing_to_what_was_undone_and_to_what_came_back(world: World) -> None:
    ann, bob, mia = network(world, Role.ADMIN, Role.MEMBER)
    mia.put("doc", title="of mia")
    settle(world)
    ann.revoke(mia, keeping=lambda s, a, seq: 0)
    settle(world)
    ann.put("doc", title="again, of ann")
    settle(world)
    assert title(bob, "doc") == "again, of ann"
    bob.recover(Revoke(ann.node_keys.public, standing_cuts(bob, ann.node_keys.public, of_system=1)))
    settle(world)
    assert not bob.store.members.is_revoked(mia.node_keys.public)
    bob.put("doc", title="of bob, who sees both")
    settle(world)
    assert len(bob.documents()[world.model.id, "doc"].live_values("title")) == 1
    assert title(mia, "doc") == "of bob, who sees both"


def test_one_can_write_to_what_was_void_when_it_came_and_counts_now(world: World) -> None:
    ann, bob, mia = network(world, Role.ADMIN, Role.MEMBER)
    world.part()
    mia.put("doc", title="of mia")
    ann.revoke(mia)
    world.links[0].open()
    assert world.run(lambda: ann.root() == bob.root(), for_ms=10_000)
    bob.take(all_of(mia))
    assert title(bob, "doc") is None
    bob.recover(Revoke(ann.node_keys.public, standing_cuts(bob, ann.node_keys.public, of_system=1)))
    assert title(bob, "doc") == "of mia"
    bob.put("doc", title="of bob")
    settle(world)
    assert title(ann, "doc") == "of bob"
    assert len(ann.documents()[world.model.id, "doc"].live_values("title")) == 1


def all_of(node: Node) -> bytes:
    """A window with all that a node has written in the space of documents."""
    chain = node.store.names.chain(node.space, node.author)
    assert chain is not None
    with node.store.read() as snapshot:
        return window_of(*snapshot.log.commits(chain))


# -- what counts again -----------------------------------------------------------------------------------------


def test_a_recovery_that_makes_a_revocation_void_brings_everything_again(world: World) -> None:
    ann, bob, mia = network(world, Role.ADMIN, Role.MEMBER)
    mia.put("a", title="of mia")
    mia.put("first", title="changed by mia")
    settle(world)
    before = ann.documents()
    ann.revoke(mia, keeping=lambda s, a, seq: 0)
    settle(world)
    assert title(bob, "a") is None and title(bob, "first") == "of ann"
    since = len(mia.entries)
    bob.recover(Revoke(ann.node_keys.public, standing_cuts(bob, ann.node_keys.public, of_system=1)))
    settle(world)
    assert ann.documents() == before
    assert sorted(told(mia, since)) == [("a", Change.CREATED), ("first", Change.UPDATED)]
    mia.put("a", title="goes on")
    settle(world)
    assert title(bob, "a") == "goes on"


def test_a_device_is_suspended_and_what_it_wrote_counts_again_when_it_is_granted(world: World) -> None:
    ann, bob, mia = network(world, Role.ADMIN, Role.MEMBER)
    ticket = world.ticket()
    ann.invite(ticket, Role.MEMBER)
    settle(world)
    world.part()
    joe = world.node(by=(bob, ticket))
    kim = world.node(by=(mia, ticket))
    joe.put("of-joe", title="j")
    kim.put("of-kim", title="k")
    world.link(joe, bob, latency_ms=(1, 3))
    world.link(kim, mia, latency_ms=(1, 3))
    settle(world)
    for node in world.nodes:
        assert node.store.members.is_suspended(joe.node_keys.public)
        assert title(node, "of-joe") is title(node, "of-kim") is None
    since = len(ann.entries)
    ann.grant(joe, Role.MEMBER)
    settle(world)
    assert told(ann, since) == [("of-joe", Change.CREATED)]
    for node in world.nodes:
        assert title(node, "of-joe") == "j" and title(node, "of-kim") is None
    joe.put("of-joe", title="goes on")
    settle(world)
    ann.revoke(kim)
    settle(world)
    assert title(mia, "of-joe") == "goes on"


def test_a_member_whose_role_falls_to_reader_keeps_what_it_wrote_before_it_knew(world: World) -> None:
    ann, bob, mia = network(world, Role.MEMBER, Role.MEMBER)
    world.part()
    ann.grant(bob, Role.READER)
    bob.put("before", title="not knowing")
    settle(world)
    with pytest.raises(Exception, match="may not write"):
        bob.put("after", title="knowing")
    forger = Forger(bob.node_keys, bob.author).follow(bob.store, bob.space)
    deps = frontier_deps(bob.store, bob.space, bob.author)
    ann.take(window_of(forger.commit(ann.space, forger.body(world.model.id, "forced", title="x"), deps=deps)))
    settle(world)
    assert title(mia, "before") == "not knowing" and title(mia, "forced") is None


# -- early commits ---------------------------------------------------------------------------------------------


def test_an_early_commit_waits_comes_due_and_its_rows_with_it(world: World) -> None:
    ann, bob, mia = network(world, Role.MEMBER, Role.MEMBER)
    ahead_ms = 10 * CLOCK_AHEAD_MAX_MS
    bob.skew_ms = ahead_ms
    bob.put("first", title="of bob, ahead")
    bob.put("early", title="x")
    world.run(for_ms=2_000)
    world.run(world.is_settled, for_ms=20_000)
    assert title(bob, "early") == "x" and title(ann, "early") is None and title(mia, "first") == "of ann"
    assert ann.root() == bob.root() == mia.root()
    for node in (ann, mia):
        assert node.integrator.next_due_ms() is not None
    ann.crash()
    ann.start()
    assert ann.integrator.next_due_ms() is not None
    ann.put("first", title="of ann, who has not seen it")
    since = len(ann.entries)
    world.run(for_ms=ahead_ms - CLOCK_AHEAD_MAX_MS - 60_000)
    assert title(ann, "early") is None
    world.run(for_ms=90_000)
    ann.write(lambda local: None)
    assert title(ann, "early") == "x"
    assert ("early", Change.CREATED) in told(ann, since)
    settle(world)
    assert len(ann.documents()[world.model.id, "first"].live_values("title")) == 2


def test_an_early_commit_never_drags_our_clock_along(world: World) -> None:
    ann, bob = network(world, Role.MEMBER)
    bob.skew_ms = 86_400_000
    bob.put("early", title="x")
    world.run(world.is_settled, for_ms=20_000)
    ann.put("now", title="y")
    layer = ann.documents()[world.model.id, "now"].layers[0]
    assert layer.hlc >> 16 <= ann.clock_ms()


def test_an_early_commit_that_is_void_when_it_is_due_does_not_count(world: World) -> None:
    ann, bob, mia = network(world, Role.MEMBER, Role.MEMBER)
    bob.skew_ms = 86_400_000
    bob.put("early", title="x")
    world.run(world.is_settled, for_ms=20_000)
    ann.revoke(bob, keeping=lambda s, a, seq: 0)
    world.run(world.is_settled, for_ms=20_000)
    settle(world)  # lets every clock come round
    assert title(mia, "early") is None and title(bob, "early") is None


def test_who_had_seen_an_early_commit_supersedes_it_also_where_it_was_early(world: World) -> None:
    ann, bob, mia = network(world, Role.MEMBER, Role.MEMBER)
    bob.skew_ms = mia.skew_ms = 86_400_000
    bob.put("early", title="x")
    world.run(world.is_settled, for_ms=20_000)
    mia.put("early", title="y")
    world.run(world.is_settled, for_ms=20_000)
    assert title(ann, "early") is None
    settle(world)
    assert title(ann, "early") == "y"
    assert len(ann.documents()[world.model.id, "early"].live_values("title")) == 1


def test_a_false_past_does_not_bring_an_early_commit_forward(world: World) -> None:
    ann, bob, mia = network(world, Role.MEMBER, Role.MEMBER)
    bob.skew_ms = 86_400_000
    bob.put("first", title="early")
    world.run(world.is_settled, for_ms=20_000)
    forger = Forger(mia.node_keys, mia.author).follow(mia.store, mia.space)
    deps = frontier_deps(mia.store, mia.space, mia.author)
    seen = [Dot(bob.author, 1, 0)]
    body = forger.body(world.model.id, "first", seen=seen, title="has seen it")
    ann.take(window_of(forger.commit(ann.space, body, deps=deps, at_ms=ann.clock_ms())))
    assert title(ann, "first") == "has seen it"
    settle(world)
    document = bob.documents()[world.model.id, "first"]
    assert [value for _, value in document.live_values("title")] == ["has seen it"]


def test_a_dep_alone_gives_no_right(world: World) -> None:
    """Who was never admitted may name whatever it likes."""
    ann, bob = network(world, Role.MEMBER)
    stranger = world.stranger()
    deps = [*frontier_deps(ann.store, ann.space, stranger.author)]
    commit = stranger.commit(
        ann.space, stranger.body(world.model.id, "first", title="of a stranger"), deps=deps
    )
    ann.take(window_of(commit))
    bob.take(window_of(commit, stranger.commit(ann.space, deps=[dep_on(commit)][:0])))
    settle(world)
    assert title(ann, "first") == title(bob, "first") == "of ann"


# -- texts that several edit -----------------------------------------------------------------------------------


def notes(node: Node, id: str) -> Any:
    document = node.documents()[node.world.model.id, id]
    return document.values().get("notes", "")


def test_words_keep_their_place_between_words_that_count_no_more(world: World) -> None:
    ann, bob, mia = network(world, Role.MEMBER, Role.MEMBER)
    ann.put("page", notes="The end.")
    settle(world)
    bob.put("page", notes="The( bad) end.")
    settle(world)
    mia.put("page", notes="The( bad good) end.")
    settle(world)
    ann.revoke(bob, keeping=lambda s, a, seq: 0)
    settle(world)
    assert {notes(node, "page") for node in world.nodes} == {"The good end."}
    mia.put("page", notes="The very good end.")
    settle(world)
    assert {notes(node, "page") for node in world.nodes} == {"The very good end."}


def test_one_who_comes_later_writes_between_words_that_never_counted_for_it(world: World) -> None:
    ann, bob, mia = network(world, Role.MEMBER, Role.MEMBER)
    ann.put("page", notes="ab")
    settle(world)
    bob.put("page", notes="a-b")
    settle(world)
    mia.put("page", notes="a-mia-b")
    settle(world)
    ann.revoke(bob, keeping=lambda s, a, seq: 0)
    settle(world)
    eve = world.node(role=Role.MEMBER)
    world.link(eve, ann, latency_ms=(1, 3), effect_ms=(0, 0))
    settle(world)
    assert notes(eve, "page") == "amia-b"
    eve.put("page", notes="amieve-a-b")
    settle(world)
    assert {notes(node, "page") for node in world.nodes} == {"amieve-a-b"}
