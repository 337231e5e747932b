from collections.abc import Iterator, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycrdt import Array, Doc, Text

from protocol.body import Body, Dot, Kind, Operation, body_hash, decode_body
from protocol.commit import DEP_HASH_BYTES, NO_PREVIOUS, Commit, Dep, Header, sign_commit
from protocol.conflict import conflicts
from protocol.encoding import decode, encode
from protocol.ids import SYSTEM_SPACE_NAME, Author, SpaceId, space_id
from protocol.integrate import (
    RULES,
    Change,
    Fork,
    Integrated,
    Known,
    Outcome,
    Refused,
    Verdict,
    Waiting,
    integrate,
)
from protocol.membership import Role, found_network
from protocol.window import Run, decode_window, encode_window
from tests.protocol.scenes import ROLE_MODEL, Scene, new_world, scenes
from tests.protocol.world import (
    MODEL,
    SPACE,
    SYSTEM,
    Peer,
    World,
    author_number,
    expected_document,
    keys_of,
    shuffled_causally,
)

SET_TITLE: Operation = [Kind.SET.value, {"title": "x"}]
seeds = st.integers(0, 2**32)


class TrustingWorld(World):
    """A world that knows of causal pasts only what `integrate` told about them, as a store does."""

    def knows(self, space: SpaceId, author: Author, seq: int, other: Author) -> int:
        told = [self.claimed.get(((space, author, s), other), 0) for s in range(seq, 0, -1)]
        return next(filter(None, told), 0)

    def known_by(self, space: SpaceId, author: Author, seq: int) -> Iterator[tuple[Author, int]]:
        for other in {
            other for (held, other) in self.claimed if held[:2] == (space, author) and held[2] <= seq
        }:
            yield other, self.knows(space, author, seq, other)


def receive_in_order(commits: Sequence[Commit], kind: type[World] = World) -> World:
    world = new_world(kind)
    for commit in commits:
        assert isinstance(world.receive(commit), Integrated)
    return world


def told_of(world: World, space: SpaceId, model: str, id: str) -> list[tuple[Dot, int, Body]]:
    """Every applied body of a document, by what the commits of the world hold."""
    told: list[tuple[Dot, int, Body]] = []
    for commit in world.order:
        header = commit.header
        for index, data in enumerate(commit.bodies):
            verdict, _ = world.outcomes[(header.space, header.author, header.seq), index]
            if data is not None and header.space == space and verdict is Verdict.APPLIED:
                body = decode_body(data, header.author)
                if (body.model, body.id) == (model, id):
                    told.append((Dot(header.author, header.seq, index), header.hlc, body))
    return told


# -- convergence ---------------------------------------------------------------------------------------------


@given(scenes(), seeds, seeds)
def test_every_causal_order_gives_the_same_documents_verdicts_and_conflicts(
    scene: Scene, one: int, other: int
) -> None:
    here = receive_in_order(shuffled_causally(scene.commits, Random(one)))
    there = receive_in_order(shuffled_causally(scene.commits, Random(other)))
    assert here.documents == there.documents
    assert here.outcomes == there.outcomes
    assert here.claimed == there.claimed
    for key, document in here.documents.items():
        assert document.version == there.documents[key].version
        assert repr(document.values()) == repr(there.documents[key].values())
        assert conflicts(document) == conflicts(there.documents[key])


@given(scenes(), seeds)
def test_peers_that_have_received_everything_agree_with_one_that_replays_from_zero(
    scene: Scene, seed: int
) -> None:
    fresh = receive_in_order(shuffled_causally(scene.commits, Random(seed)))
    for peer in scene.peers:
        live = {key: document.copy() for key, document in peer.world.documents.items()}
        assert receive_in_order(peer.world.order).documents == live
        peer.world.receive_all(c for c in scene.commits if c not in peer.world.order)
        assert peer.world.documents == fresh.documents
        assert peer.world.claimed == fresh.claimed


@given(scenes())
def test_the_builder_leaves_what_integration_of_its_commit_leaves(scene: Scene) -> None:
    """Outcomes of own commits were kept from the builder, those of the replay come from `integrate`."""
    for peer in scene.peers:
        again = receive_in_order(peer.world.order)
        assert again.outcomes == peer.world.outcomes
        assert again.claimed == peer.world.claimed


@given(scenes())
def test_documents_are_what_no_applied_body_took_away(scene: Scene) -> None:
    world = receive_in_order(scene.commits)
    for (space, model, id), document in world.documents.items():
        told = told_of(world, space, model, id)
        for (kind, name), held in document.shared.items():
            assert held.shown == plainly_merged(told, kind, name)
        layers_alone = document.copy()
        layers_alone.shared = {}
        assert layers_alone == expected_document(model, id, told)


def plainly_merged(told: Sequence[tuple[Dot, int, Body]], kind: int, name: str) -> Any:
    """What pycrdt makes of a field's updates if nobody looks at them first."""
    doc: Any = Doc(client_id=1)
    root = doc.get(name, type=Text if kind == Kind.TEXT else Array)
    for _, _, body in told:
        for operation in body.operations:
            if operation[:2] == [kind, name]:
                doc.apply_update(operation[3])
    return str(root) if kind == Kind.TEXT else [decode(bytes(element)) for element in root]


@given(scenes(), seeds)
def test_commits_in_any_order_wait_for_their_causes_and_then_succeed(scene: Scene, seed: int) -> None:
    commits = list(scene.commits)
    Random(seed).shuffle(commits)
    world = new_world()
    for commit in commits:
        outcome = world.receive(commit)
        if isinstance(outcome, Waiting):
            assert outcome.missing
            assert all(world.header_hash(*address) is None for address in outcome.missing)
    world.receive_all(commits)
    assert world.documents == receive_in_order(scene.commits).documents


@given(scenes(), seeds)
def test_a_commit_that_comes_again_changes_nothing(scene: Scene, seed: int) -> None:
    world = receive_in_order(scene.commits)
    before = {key: document.copy() for key, document in world.documents.items()}
    for commit in shuffled_causally(scene.commits, Random(seed)):
        assert world.receive(commit) == Known()
        assert world.receive(replace(commit, bodies=(None,) * len(commit.bodies))) == Known()
    assert world.documents == before


@given(scenes())
def test_what_integration_says_of_causal_pasts_is_what_walking_the_graph_finds(scene: Scene) -> None:
    world, trusting = receive_in_order(scene.commits), receive_in_order(scene.commits, TrustingWorld)
    assert trusting.documents == world.documents
    assert trusting.outcomes == world.outcomes
    authors = {commit.header.author for commit in scene.commits}
    for space, author, seq in world.commits:
        for other in authors - {author}:
            assert trusting.knows(space, author, seq, other) == world.knows(space, author, seq, other)


@given(scenes(), seeds)
def test_windows_carry_a_scene_as_it_was(scene: Scene, seed: int) -> None:
    """Every author's commits in one run of each space, all runs in one window."""
    chains: dict[tuple[SpaceId, Author], list[Commit]] = {}
    for commit in scene.commits:
        chains.setdefault((commit.header.space, commit.header.author), []).append(commit)
    if chains:
        window = encode_window([Run(tuple(commits)) for commits in chains.values()])
        received = [commit for run in decode_window(window) for commit in run.commits]
        Random(seed).shuffle(received)
        world = new_world()
        world.receive_all(received)
        assert world.documents == receive_in_order(scene.commits).documents


# -- verdicts on commits -------------------------------------------------------------------------------------


def test_a_commit_waits_for_the_one_before_it() -> None:
    peer, other = Peer(1), World()
    first, second, third = (peer.write("one", [SET_TITLE]) for _ in range(3))
    assert other.receive(third) == Waiting(((SPACE, peer.author, 2),))
    assert other.receive(second) == Waiting(((SPACE, peer.author, 1),))
    for commit in (first, second, third):
        assert isinstance(other.receive(commit), Integrated)
    assert other.documents == peer.world.documents


def test_a_commit_waits_for_all_that_it_builds_on_and_names_what_is_missing() -> None:
    ann, bob, cleo, other = Peer(1), Peer(2), Peer(3), World()
    of_ann, of_bob = ann.write("one", [SET_TITLE]), bob.write("two", [SET_TITLE])
    founding = ann.finish(ann.builder(SYSTEM))
    for commit in (of_ann, of_bob, founding):
        cleo.world.receive(commit)
    both = cleo.write("one", [SET_TITLE])
    missing = other.receive(both)
    assert isinstance(missing, Waiting)
    assert set(missing.missing) == {(SPACE, ann.author, 1), (SPACE, bob.author, 1), (SYSTEM, ann.author, 1)}
    other.receive(of_ann)
    other.receive(founding)
    assert other.receive(both) == Waiting(((SPACE, bob.author, 1),))
    other.receive(of_bob)
    assert isinstance(other.receive(both), Integrated)


def test_two_commits_of_one_author_with_one_seq_are_a_fork() -> None:
    peer, copied, other = Peer(1), Peer(1), World()
    ours, theirs = peer.write("one", [SET_TITLE]), copied.write("one", [[Kind.DELETE.value]])
    other.receive(ours)
    assert other.receive(theirs) == Fork(ours.hash)
    later = peer.write("one", [SET_TITLE])
    other.receive(later)
    assert other.receive(theirs) == Fork(ours.hash)


def test_a_commit_that_continues_another_branch_is_a_fork() -> None:
    peer, copied, other = Peer(1), Peer(1), World()
    ours = peer.write("one", [SET_TITLE])
    copied.write("two", [SET_TITLE])
    other.receive(ours)
    assert other.receive(copied.write("two", [SET_TITLE])) == Fork(ours.hash)


@pytest.mark.parametrize("step", [0, -1])
def test_a_commit_whose_clock_does_not_increase_is_refused(step: int) -> None:
    peer, other = Peer(1, now_ms=9), World()
    first = peer.write("one", [SET_TITLE])
    other.receive(first)
    header = Header(SPACE, peer.author, 2, first.hash, first.header.hlc + step, (), ())
    assert other.receive(sign_commit(peer.keys, header, [])) == Refused("clock_not_increasing")


def test_a_commit_that_names_another_header_than_is_here_is_refused() -> None:
    ann, bob, other = Peer(1), Peer(2), World()
    other.receive(ann.write("one", [SET_TITLE]))
    dep = Dep(False, ann.author, 1, bytes(DEP_HASH_BYTES))
    assert other.receive(bob.forge([], deps=(dep,))) == Refused("dep_hash_mismatch")


def test_a_commit_of_the_system_space_names_no_other_place() -> None:
    ann, bob = Peer(1), Peer(2)
    founding = ann.finish(ann.builder(SYSTEM))
    bob.world.receive(founding)
    dep = Dep(True, ann.author, 1, founding.hash[:DEP_HASH_BYTES])
    header = Header(SYSTEM, bob.author, 1, NO_PREVIOUS, 1, (dep,), ())
    assert bob.world.receive(sign_commit(bob.keys, header, [])) == Refused("system_dep_in_system")


def test_the_rules_by_which_commits_are_refused_have_fixed_names() -> None:
    assert RULES == ("clock_not_increasing", "dep_hash_mismatch", "system_dep_in_system")


def test_chains_of_two_spaces_and_of_two_lives_are_apart() -> None:
    one, other, elsewhere = Peer(1, 1), Peer(1, 2), World()
    for commit in (
        one.write("one", [SET_TITLE]),
        other.write("two", [SET_TITLE]),
        one.finish(one.builder(SYSTEM)),
    ):
        assert isinstance(elsewhere.receive(commit), Integrated)


# -- verdicts on bodies --------------------------------------------------------------------------------------


def verdicts_of(outcome: Outcome) -> list[Verdict]:
    assert isinstance(outcome, Integrated)
    return [entry.verdict for entry in outcome.entries]


def body_of(peer: Peer, *, model: str = MODEL, id: str = "one", seen: Sequence[Dot] = ()) -> bytes:
    return Body(peer.salt(), "ann", model, id, tuple(seen), [SET_TITLE]).encode(peer.author)


@pytest.mark.parametrize(
    ("role", "of_data", "of_roles"),
    [
        (Role.ADMIN, Verdict.APPLIED, Verdict.APPLIED),
        (Role.MEMBER, Verdict.APPLIED, Verdict.VOID),
        (Role.READER, Verdict.VOID, Verdict.VOID),
        (None, Verdict.VOID, Verdict.VOID),
    ],
)
def test_what_a_node_may_write_follows_from_its_role(
    role: Role | None, of_data: Verdict, of_roles: Verdict
) -> None:
    peer, other = Peer(1), World(role_of_others=role)
    commit = peer.forge([body_of(peer), body_of(peer, model=ROLE_MODEL)])
    assert verdicts_of(other.receive(commit)) == [of_data, of_roles]
    assert ((SPACE, MODEL, "one") in other.documents) == (of_data is Verdict.APPLIED)


def test_a_commit_of_a_stranger_counts_as_a_cause_all_the_same() -> None:
    stranger, ann, other = Peer(5, world=new_world()), Peer(1, world=new_world()), new_world()
    void = stranger.forge([body_of(stranger)])
    ann.world.receive(void)
    after = ann.write("one", [SET_TITLE])
    assert isinstance(other.receive(after), Waiting)
    assert verdicts_of(other.receive(void)) == [Verdict.VOID]
    assert verdicts_of(other.receive(after)) == [Verdict.APPLIED]


def test_a_body_may_have_seen_all_that_its_commit_builds_on_over_several_hops() -> None:
    ann, bob, cleo = Peer(1), Peer(2), Peer(3)
    first, second = ann.write("one", [SET_TITLE]), ann.write("one", [SET_TITLE])
    bob.world.receive(first)
    of_bob = bob.write("two", [SET_TITLE])
    for commit in (first, second, of_bob):
        cleo.world.receive(commit)
    only_bob = tuple(dep for dep in cleo.world.deps(SPACE, cleo.author) if dep.author == bob.author)
    transitive, too_new = Dot(ann.author, 1, 0), Dot(ann.author, 2, 0)
    commit = cleo.forge([body_of(cleo, seen=[transitive]), body_of(cleo, seen=[too_new])], deps=only_bob)
    assert verdicts_of(cleo.world.receive(commit)) == [Verdict.APPLIED, Verdict.VOID]


def test_a_dep_on_an_old_commit_brings_what_that_commit_knew_and_no_more() -> None:
    ann, bob, cleo = Peer(1), Peer(2), Peer(3)
    first = ann.write("one", [SET_TITLE])
    bob.world.receive(first)
    old = bob.write("two", [SET_TITLE])
    second = ann.write("one", [SET_TITLE])
    bob.world.receive(second)
    for commit in (first, old, second, bob.write("two", [SET_TITLE])):
        cleo.world.receive(commit)
    dep = Dep(False, bob.author, 1, old.hash[:DEP_HASH_BYTES])
    seen = [[Dot(ann.author, seq, 0)] for seq in (1, 2)]
    commit = cleo.forge([body_of(cleo, seen=dots) for dots in seen], deps=(dep,))
    assert verdicts_of(cleo.world.receive(commit)) == [Verdict.APPLIED, Verdict.VOID]
    own_later = cleo.forge([body_of(cleo, seen=[Dot(ann.author, 1, 0)])], deps=())
    assert verdicts_of(cleo.world.receive(own_later)) == [Verdict.APPLIED]


@pytest.mark.parametrize(
    ("seq", "index", "expected"),
    [
        (1, 9_999, Verdict.APPLIED),
        (2, 0, Verdict.APPLIED),
        (2, 1, Verdict.VOID),
        (2, 2, Verdict.VOID),
        (3, 0, Verdict.VOID),
    ],
)
def test_a_body_may_have_seen_what_its_author_wrote_before_it(
    seq: int, index: int, expected: Verdict
) -> None:
    peer = Peer(1)
    peer.write("one", [SET_TITLE])
    commit = peer.forge([body_of(peer), body_of(peer, seen=[Dot(peer.author, seq, index)]), body_of(peer)])
    assert verdicts_of(peer.world.receive(commit)) == [Verdict.APPLIED, expected, Verdict.APPLIED]


def test_a_body_may_not_have_seen_an_author_of_whom_nothing_is_known() -> None:
    peer = Peer(1)
    for other in (author_number(1, 2), author_number(2)):
        commit = peer.forge([body_of(peer, seen=[Dot(other, 1, 0)])])
        assert verdicts_of(peer.world.receive(commit)) == [Verdict.VOID]


def test_each_body_of_a_commit_is_judged_by_itself() -> None:
    peer = Peer(1)
    unknown = Body(peer.salt(), "ann", MODEL, "one", (), [SET_TITLE, [77, b"new"]]).encode(peer.author)
    commit = peer.forge([b"noise", unknown, body_of(peer), body_of(peer, id="two")])
    done = peer.world.receive(replace(commit, bodies=(*commit.bodies[:3], None)))
    assert isinstance(done, Integrated)
    expected = [Verdict.MALFORMED, Verdict.WITHHELD, Verdict.APPLIED, Verdict.MISSING]
    assert verdicts_of(done) == expected
    assert [(entry.index, entry.id) for entry in done.entries] == [(0, ""), (1, "one"), (2, "one"), (3, "")]
    assert [entry.body is None for entry in done.entries] == [True, False, False, True]
    assert list(done.documents) == [(MODEL, "one")]


def test_a_change_tells_what_became_of_the_document() -> None:
    peer = Peer(1)
    steps: list[tuple[Operation, Change]] = [
        (SET_TITLE, Change.CREATED),
        (SET_TITLE, Change.UPDATED),
        ([Kind.DELETE.value], Change.DELETED),
        (SET_TITLE, Change.NONE),  # hidden by the delete, which it has not seen
        ([Kind.RESTORE.value], Change.CREATED),
    ]
    for operation, expected in steps:
        builder = peer.builder()
        seen = (Dot(peer.author, builder.seq - 1, 0),) if operation[0] == Kind.RESTORE else ()
        assert builder.add("ann", MODEL, "one", seen, [operation], peer.salt()).change is expected
        peer.finish(builder)


# -- statements ----------------------------------------------------------------------------------------------


def test_a_genesis_counts_once_and_in_the_network_that_it_founds() -> None:
    founder = Peer(1)
    genesis = found_network(founder.keys.public, keys_of(9), 1, bytes(16))
    system = space_id(genesis.network_id, SYSTEM_SPACE_NAME)
    other_genesis = found_network(founder.keys.public, keys_of(9), 2, bytes(16))
    admit, noise = encode([bytes(16), 1, "more"]), b"noise"
    bodies = [genesis.body, genesis.body, other_genesis.body, admit, noise]

    def outcome_of(peer: Peer, space: SpaceId, bodies: list[bytes]) -> Outcome:
        hashes = tuple(map(body_hash, bodies))
        commit = sign_commit(peer.keys, Header(space, peer.author, 1, NO_PREVIOUS, 1, (), hashes), bodies)
        return integrate(commit, World(), system=space)

    expected = [Verdict.APPLIED, Verdict.VOID, Verdict.VOID, Verdict.WITHHELD, Verdict.MALFORMED]
    assert verdicts_of(outcome_of(founder, system, bodies)) == expected
    assert verdicts_of(outcome_of(Peer(2), system, [genesis.body])) == [Verdict.VOID]
    assert verdicts_of(outcome_of(founder, SYSTEM, [genesis.body])) == [Verdict.VOID]


def test_a_statement_that_was_dropped_or_is_of_a_document_changes_nothing() -> None:
    peer = Peer(1)
    data = body_of(peer)
    header = Header(SYSTEM, peer.author, 1, NO_PREVIOUS, 1, (), (body_hash(data), body_hash(b"")))
    commit = sign_commit(peer.keys, header, [data, b""])
    done = peer.world.receive(replace(commit, bodies=(data, None)))
    assert isinstance(done, Integrated)
    assert verdicts_of(done) == [Verdict.MALFORMED, Verdict.DROPPED] and done.documents == {}
