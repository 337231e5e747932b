"""Random histories of a small network: who wrote what, having received which commits of whom.

Room: one hypothesis strategy. Everything is made by `Peer`s of `world`, honest
bodies by the builder, dishonest ones by hand; what comes of it is compared in
`test_integrate`.
"""

from dataclasses import dataclass, field

from hypothesis import strategies as st

from protocol.body import Body, Dot, Kind, decode_body
from protocol.building import CommitBuilder
from protocol.commit import Commit
from protocol.document import Document
from protocol.errors import NotPermitted, ProtocolError
from protocol.ids import NodeId
from protocol.membership import Role
from protocol.planning import Plan, plan_delete, plan_write
from tests.protocol import strategies, yjs_strategies
from tests.protocol.world import MODEL, SYSTEM, Peer, World, author_number, keys_of

ROLE_MODEL = "$role_0a1b2c3d"
SETS, COUNTERS = ("tags", "labels"), ("count", "votes")
SHARED = {"body": Kind.TEXT.value, "steps": Kind.ARRAY.value}

# Node 1 has two lives. Node 3 may not write roles, node 4 nothing, node 5 is a stranger.
LIVES = [(1, 1), (1, 2), (2, 1), (3, 1), (4, 1), (5, 1)]
ROLES: dict[int, Role | None] = {3: Role.MEMBER, 4: Role.READER, 5: None}

writes = st.fixed_dictionaries(
    {},
    optional={
        "title": strategies.texts,
        "done": strategies.values,
        "tags": st.lists(strategies.elements, max_size=3),
        "count": st.integers(-5, 5) | strategies.int64s,
        "body": st.text(alphabet="ab 😀", max_size=8),
        "steps": st.lists(st.integers(0, 3), max_size=5),
    },
)


def new_world(kind: type[World] = World) -> World:
    """A world in which everybody has the role of `ROLES`."""
    return kind(roles={NodeId(keys_of(node).public): role for node, role in ROLES.items()})


@dataclass
class Scene:
    """A network that has written for a while. `commits` are in the order in which they were made."""

    peers: list[Peer]
    commits: list[Commit] = field(default_factory=list)

    def __repr__(self) -> str:
        names = {peer.author: f"{peer.number}.{peer.incarnation}" for peer in self.peers}
        lines = []
        for header, bodies in ((commit.header, commit.bodies) for commit in self.commits):
            place = "system " if header.space == SYSTEM else ""
            deps = " ".join(f"{names[dep.author]}:{dep.seq}" for dep in header.deps)
            lines.append(f"{place}{names[header.author]}:{header.seq} at {header.hlc} after [{deps}]")
            lines += [f"    {_shown(data, header.author)}" for data in bodies if data is not None]
        return "Scene:\n" + "\n".join(lines)


def _shown(data: bytes, author: bytes) -> str:
    try:
        body = decode_body(data, author)
    except ProtocolError as error:
        return f"{data!r}: {error}"
    seen = [(dot.author[-1], dot.author[:2].hex(), dot.seq, dot.index) for dot in body.seen]
    return f"{body.model}/{body.id} of {body.user!r}, seen {seen}: {body.operations}"


# Made once: making a strategy takes longer than drawing from it.
_who_there_is = st.sampled_from([LIVES, LIVES[:4], LIVES[1:4], LIVES[:3], LIVES[:2]])
_acts = st.sampled_from(["write", "write", "write", "meet", "meet", "pull", "forge", "system"])
_models = st.sampled_from([MODEL, MODEL, MODEL, ROLE_MODEL])
_ways_to_write = st.sampled_from(["planned", "planned", "delete", "raw"])
_steps, _numbers, _booleans = st.integers(8, 24), st.integers(0, 59), st.booleans()
_one_or_two, _one_to_three, _one_to_four = st.integers(1, 2), st.integers(1, 3), st.integers(1, 4)
_up_to_two, _once_in_four, _once_in_five = st.integers(0, 2), st.integers(0, 3), st.integers(0, 4)
_operations = st.lists(strategies.operations, min_size=1, max_size=3)
_odd_operations = st.lists(strategies.operations, min_size=1, max_size=2)
_small_bytes = st.binary(max_size=40)
_KNOWN = tuple(author_number(*life) for life in LIVES)
_named = st.dictionaries(st.sampled_from(_KNOWN), st.tuples(_one_to_four, _up_to_two), max_size=2)


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    lives = draw(_who_there_is)
    scene = Scene([Peer(node, life, new_world()) for node, life in lives])
    # Small examples of a network are dull ones: nobody has seen anything yet.
    for step in range(draw(_steps)):
        peer = scene.peers[draw(_numbers) % len(scene.peers)]
        peer.now_ms = draw(_one_to_four)
        match draw(_acts):
            case "write":
                scene.commits += _write(draw, peer)
            case "meet":
                for other in scene.peers:
                    _pull(peer, other, 99)
            case "pull":
                other = scene.peers[(scene.peers.index(peer) + 1 + step) % len(scene.peers)]
                _pull(peer, other, draw(_one_to_three))
            case "forge":
                commit = peer.forge([_odd_body(draw, peer) for _ in range(draw(_up_to_two))])
                peer.world.receive(commit)
                scene.commits.append(commit)
            case "system":
                scene.commits.append(peer.finish(peer.builder(SYSTEM)))
    return scene


def _pull(peer: Peer, other: Peer, count: int) -> None:
    """Receive the first commits that another has and this one lacks."""
    lacking = [commit for commit in other.world.order if commit not in peer.world.order]
    for commit in lacking[:count]:
        peer.world.receive(commit)


def _write(draw: st.DrawFn, peer: Peer) -> list[Commit]:
    builder = peer.builder()
    for _ in range(draw(_one_to_three)):
        mark = builder.mark()
        try:
            for _ in range(draw(_one_or_two)):
                _add(draw, peer, builder)
        except NotPermitted:
            builder.rollback(mark)
        if draw(_once_in_five) == 0:
            builder.rollback(mark)
    return [peer.finish(builder)] if len(builder) else []


def _add(draw: st.DrawFn, peer: Peer, builder: CommitBuilder) -> None:
    model, id = draw(_models), draw(strategies.ids)
    current = builder.document(model, id)
    plan: Plan
    match draw(_ways_to_write):
        case "planned":
            seen = current or Document(model, id)
            plan = plan_write(
                seen, draw(writes), sets=SETS, counters=COUNTERS, shared=SHARED, author=peer.author
            )
        case "delete" if current is not None:
            plan = plan_delete(current, peer.author)
        case _:
            plan = Plan(_stale_context(draw, current), draw(_operations))
    if plan.operations:
        builder.add(draw(strategies.users), model, id, plan.seen, plan.operations, peer.salt())


def _stale_context(draw: st.DrawFn, current: Document | None) -> tuple[Dot, ...]:
    """Of some authors of a document what they wrote, up to an earlier commit or body."""
    vector = current.vector if current else {}
    dots = [Dot(author, 1 + draw(_numbers) % seq, index) for author, (seq, index) in vector.items() if seq]
    return tuple(sorted(dot for dot in dots if draw(_booleans)))


def _odd_body(draw: st.DrawFn, peer: Peer) -> bytes:
    """Bytes, a body of a newer release, or one that names what its author may or may not have seen."""
    if draw(_once_in_four) == 0:
        return draw(_small_bytes)
    named = draw(_named)
    seen = tuple(sorted(Dot(author, *last) for author, last in named.items()))
    operations = draw(_odd_operations)
    id = draw(strategies.ids)
    if draw(_booleans):
        operations = [draw(yjs_strategies.forged_operations(_KNOWN, peer.author, MODEL, id))]
    if draw(_once_in_four) == 0:
        operations.append(draw(strategies.unknown_operations))
    body = Body(peer.salt(), draw(strategies.users), MODEL, id, seen, operations)
    return body.encode(peer.author)
