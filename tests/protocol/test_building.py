"""Commits of one's own in the making: limits, roll-back, what they name, and what they refuse."""

import pytest

from protocol.body import Dot, Kind, Operation
from protocol.building import CommitBuilder
from protocol.clock import HLC_MAX
from protocol.commit import DEP_HASH_BYTES, Dep
from protocol.errors import LocalMisuse, Malformed, NotPermitted, TooLarge
from protocol.ids import Author
from protocol.integrate import (
    Entry,
    Integrated,
    integrate,
)
from protocol.limits import (
    BODIES_PER_COMMIT_MAX,
    BODY_SIZE_MAX_BYTES,
    COMMIT_SIZE_MAX_BYTES,
    DEPS_PER_COMMIT_MAX,
)
from protocol.membership import Role
from protocol.planning import plan_write
from protocol.window import Run, decode_window, encode_window
from tests.protocol.scenes import ROLE_MODEL
from tests.protocol.world import (
    MODEL,
    SPACE,
    SYSTEM,
    Peer,
    World,
    author_number,
    document_of,
)

SET_TITLE: Operation = [Kind.SET.value, {"title": "x"}]


def test_a_rolled_back_request_leaves_no_trace() -> None:
    peer, twin = Peer(1), Peer(1)
    for one in (peer, twin):
        one.write("one", [SET_TITLE])
    built = []
    for one in (peer, twin):
        builder = one.builder()
        builder.mark()
        builder.add("ann", MODEL, "one", (), [[Kind.INCREMENT.value, "count", 1]], bytes(16))
        if one is peer:
            mark = builder.mark()
            for id in ("one", "one", "two"):
                builder.add("bob", MODEL, id, (), [[Kind.DELETE.value]], bytes(16))
            builder.rollback(mark)
            assert builder.document(MODEL, "two") is None
            builder.rollback(builder.mark())
        assert len(builder) == 1
        builder.add("ann", MODEL, "one", (), [[Kind.INCREMENT.value, "count", 1]], bytes(16))
        built.append((builder.size_bytes, builder.sign(one.keys)))
    assert built[0] == built[1]


def test_whom_a_body_relies_on_is_named_by_its_own_chain_once() -> None:
    """Cleo has ann's work by way of bob, who may turn out to have forked."""
    ann, bob, cleo = Peer(1), Peer(2), Peer(3)
    commits = [ann.write("one", [SET_TITLE])]
    bob.world.receive_all(commits)
    commits.append(bob.write("two", [SET_TITLE]))
    cleo.world.receive_all(commits)
    builder = cleo.builder()
    builder.mark()
    builder.add("cleo", MODEL, "one", (Dot(ann.author, 1, 0),), [SET_TITLE], cleo.salt())
    builder.rollback(0)
    builder.add("cleo", MODEL, "two", (Dot(bob.author, 1, 0),), [SET_TITLE], cleo.salt())
    assert [dep.author for dep in cleo.finish(builder).header.deps] == [bob.author]
    for named, expected in (({}, [ann.author]), ({ann.author: 1}, [])):
        head = cleo.world.head(SPACE, cleo.author)
        assert head is not None
        builder = CommitBuilder(cleo.world, space=SPACE, author=cleo.author, hlc=head.hlc + 1, named=named)
        builder.add("cleo", MODEL, "one", (Dot(ann.author, 1, 0),), [SET_TITLE], cleo.salt())
        assert [dep.author for dep in cleo.finish(builder).header.deps] == expected


def test_the_stored_documents_of_the_view_are_never_changed() -> None:
    peer = Peer(1)
    peer.write("one", [SET_TITLE, [Kind.ADD.value, "tags", ["x"]]])
    stored, before = document_of(peer, "one"), document_of(peer, "one").copy()
    builder = peer.builder()
    seen = (Dot(peer.author, 1, 0),)
    builder.add("ann", MODEL, "one", seen, [SET_TITLE, [Kind.REMOVE.value, "tags", ["x"]]], bytes(16))
    commit = builder.sign(peer.keys).commit
    assert stored == before
    integrate(commit, peer.world, system=SYSTEM)
    assert stored == before


def test_each_body_sees_those_before_it_in_the_group() -> None:
    peer, other = Peer(1), World()
    builder = peer.builder()
    for values in ({"title": "a", "count": 1}, {"title": "b", "count": 5}, {"count": 2}):
        plan = plan_write(builder.document(MODEL, "one"), values, counters=("count",))
        builder.add("ann", MODEL, "one", plan.seen, plan.operations, peer.salt())
    other.receive(peer.finish(builder))
    assert document_of(peer, "one").values() == {"title": "b", "count": 2}
    assert len(document_of(peer, "one").layers) == 1
    assert other.documents == peer.world.documents


def refused(peer: Peer, builder: CommitBuilder, kind: type[Exception], *parts: object) -> None:
    """The builder refuses this body, and nothing of it stays."""
    before = (len(builder), builder.size_bytes, builder.document(MODEL, "one"))
    with pytest.raises(kind):
        builder.add(*parts)  # type: ignore[arg-type]
    assert (len(builder), builder.size_bytes, builder.document(MODEL, "one")) == before


def test_what_other_nodes_would_not_apply_is_not_added() -> None:
    peer, stranger = Peer(1), author_number(9)
    builder = peer.builder()
    salt = bytes(16)
    for value in (float("nan"), 2**63, b"bytes", (1, 2), "\ud800", {1: 2}):
        refused(peer, builder, Malformed, "ann", MODEL, "one", (), [[0, {"title": value}]], salt)
    for operations in ([[1, "tags", [[]]]], [[3, "count", True]], [[0, {}]], [[False, {"title": 1}]]):
        refused(peer, builder, Malformed, "ann", MODEL, "one", (), operations, salt)
    for parts in (
        ("x" * 300, MODEL, "one"),
        ("ann", "a b", "one"),
        ("ann", MODEL, "a\0b"),
        ("ann", MODEL, ""),
    ):
        refused(peer, builder, Malformed, *parts, (), [SET_TITLE], salt)
    refused(peer, builder, Malformed, "ann", MODEL, "one", (), [SET_TITLE], b"short")
    large: list[Operation] = [[0, {"title": "x" * BODY_SIZE_MAX_BYTES}]]
    refused(peer, builder, TooLarge, "ann", MODEL, "one", (), large, salt)
    for dot in (Dot(stranger, 1, 0), Dot(peer.author, 1, 0), Dot(peer.author, 2, 0)):
        refused(peer, builder, LocalMisuse, "ann", MODEL, "one", (dot,), [SET_TITLE], salt)
    refused(peer, builder, LocalMisuse, "ann", MODEL, "one", (), [SET_TITLE, [77]], salt)
    refused(peer, builder, TooLarge, "ann", MODEL, "one", (), [], salt)
    builder.add("ann", MODEL, "one", (), [SET_TITLE], salt)
    assert isinstance(World().receive(peer.finish(builder)), Integrated)


@pytest.mark.parametrize(
    ("role", "model", "is_allowed"),
    [
        (Role.MEMBER, MODEL, True),
        (Role.MEMBER, ROLE_MODEL, False),
        (Role.READER, MODEL, False),
        (None, MODEL, False),
    ],
)
def test_a_node_adds_only_what_it_may_write(role: Role | None, model: str, is_allowed: bool) -> None:
    peer = Peer(1, world=World(role_of_others=role))
    if is_allowed:
        peer.builder().add("ann", model, "one", (), [SET_TITLE], bytes(16))
    else:
        refused(peer, peer.builder(), NotPermitted, "ann", model, "one", (), [SET_TITLE], bytes(16))


def test_the_size_of_a_commit_in_the_making_is_limited() -> None:
    peer = Peer(1)
    builder = peer.builder()
    large: list[Operation] = [[0, {"title": "x" * (BODY_SIZE_MAX_BYTES - 200)}]]
    for number in range(8):
        builder.mark()
        builder.add("ann", MODEL, f"large-{number}", (), large, peer.salt())
    room = COMMIT_SIZE_MAX_BYTES - builder.size_bytes
    refused(peer, builder, TooLarge, "ann", MODEL, "one", (), [[0, {"title": "x" * room}]], bytes(16))
    builder.add("ann", MODEL, "one", (), [[0, {"title": "x" * (room - 100)}]], bytes(16))
    commit = peer.finish(builder)
    assert sum(len(body) for body in commit.bodies if body) <= COMMIT_SIZE_MAX_BYTES
    other = World()
    other.receive(decode_window(encode_window([Run((commit,))]))[0].commits[0])
    assert other.documents == peer.world.documents


def test_the_number_of_bodies_of_a_commit_in_the_making_is_limited() -> None:
    builder = Peer(1).builder()
    for number in range(BODIES_PER_COMMIT_MAX):
        builder.add("ann", MODEL, f"n{number}", (), [SET_TITLE], bytes(16))
    refused(Peer(1), builder, TooLarge, "ann", MODEL, "one", (), [SET_TITLE], bytes(16))


def test_a_builder_refuses_what_no_header_may_hold() -> None:
    peer = Peer(1)
    last = peer.write("one", [SET_TITLE]).header.hlc
    deps = tuple(
        Dep(False, Author(number.to_bytes(40, "big")), 1, bytes(DEP_HASH_BYTES))
        for number in range(DEPS_PER_COMMIT_MAX + 1)
    )
    own = (Dep(False, peer.author, 1, bytes(DEP_HASH_BYTES)),)
    wrong = (
        (last, ()),
        (0, ()),
        (HLC_MAX + 1, ()),
        (last + 1, deps),
        (last + 1, deps[1::-1]),
        (last + 1, own),
    )
    for hlc, named in wrong:
        with pytest.raises(LocalMisuse):
            CommitBuilder(peer.world, space=SPACE, author=peer.author, hlc=hlc, deps=named)


def test_an_entry_of_the_builder_is_that_of_integration() -> None:
    peer, other = Peer(1), World()
    builder = peer.builder()
    entry = builder.add("ann", MODEL, "one", (), [SET_TITLE], bytes(16))
    done = other.receive(peer.finish(builder))
    assert isinstance(done, Integrated)
    assert done.entries == [entry]
    assert isinstance(entry, Entry) and entry.body is not None and entry.body.user == "ann"
