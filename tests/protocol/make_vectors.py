"""Makes `protocol/vectors.json` from fixed seeds: `python -m tests.protocol.make_vectors`.

Room: one example of everything that SPEC.md describes, as values. Nothing is
random, so that making it again gives the same file; the test beside it does so.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from protocol.body import Body, Dot, body_hash, decode_body, stub_of
from protocol.commit import (
    NO_PREVIOUS,
    Commit,
    Dep,
    Header,
    decode_header,
    deps_to_lists,
    header_hash,
    sign_commit,
)
from protocol.conflict import conflicts
from protocol.document import Document
from protocol.encoding import decode, decode_exact, encode
from protocol.ids import (
    SYSTEM_SPACE_NAME,
    NodeId,
    builtin_model_id,
    derived_model_id,
    sortable_id,
    space_id,
)
from protocol.integrate import Fork, Integrated, Outcome, Refused, Waiting
from protocol.keys import verify
from protocol.membership import Role, found_network
from protocol.window import Run, decode_window, encode_window
from tests.protocol import curve25519 as curve
from tests.protocol.vector_text import Case, is_refused, text_of
from tests.protocol.world import MODEL, SPACE, SYSTEM, Peer, World, author_number, keys_of, without_bodies

PATH = Path(__file__).parents[2] / "protocol" / "vectors.json"

ANN, BOB = author_number(1), author_number(2)
SALT = bytes(range(16))


def vectors() -> dict[str, list[Case]]:
    """All sections, as they stand in the file."""
    sections: dict[str, Callable[[], list[Case]]] = {
        "encoding": _encoding,
        "ids": _ids,
        "keys": _keys,
        "signatures": _signatures,
        "bodies": _bodies,
        "headers": _headers,
        "windows": _windows,
        "networks": _networks,
        "versions": _versions,
        "integration": _integration,
    }
    return {name: make() for name, make in sections.items()}


def as_text() -> str:
    return text_of(vectors())


# -- encoding and identifiers --------------------------------------------------------------------------------


def _encoding() -> list[Case]:
    values: list[Any] = [
        None, True, False, 0, 23, 24, 255, 256, 65_535, 65_536, 2**32, 2**63 - 1, -1, -24, -25, -(2**63),
        0.0, -0.0, 1.0, 1.5, 0.1, -1e300, "", "a", "é", "e\u0301", "😀", "x" * 24, [], [1, [2, 3]], {},
        {"b": 1, "a": [True, None]},
    ]  # fmt: skip
    cases: list[Case] = [{"bytes": encode(value), "value": value, "exact": True} for value in values]
    for text in ("1801", "190001", "1b0000000000000001", "3800", "780161", "980101", "f93e00", "fa3fc00000"):
        data = bytes.fromhex(text)
        cases.append({"bytes": data, "value": decode(data), "exact": False})
    for odd, text in (
        ("a tag", "c074323032362d30312d30315430303a30303a30305a"),
        ("a bignum", "c249010000000000000000"),
        ("a tag that stands for nothing", "d9d9f701"),
        ("a list of indefinite length", "9f01ff"),
        ("bytes of indefinite length", "5f4101ff"),
        ("text of indefinite length", "7f6161ff"),
        ("a map of indefinite length", "bf616101ff"),
        ("a key twice", "a2616101616102"),
        ("an integer as key", "a10101"),
        ("text that is not UTF-8", "62c080"),
        ("a surrogate", "63eda080"),
        ("bytes after the value", "0101"),
        ("a list that is cut short", "8301"),
        ("nothing", ""),
    ):
        data = bytes.fromhex(text)
        assert is_refused(decode, data) and is_refused(decode_exact, data), odd
        cases.append({"bytes": data, "malformed": odd})
    return cases


def _ids() -> list[Case]:
    network = body_hash(b"a network")
    cases: list[Case] = [
        {"kind": "space", "network": network, "name": name, "id": space_id(network, name)}
        for name in ("system", "app/default", "app/ärger")
    ]
    cases += [
        {
            "kind": "model",
            "application": application,
            "name": name,
            "hash": derived_model_id(application, name),
        }
        for application, name in (("default", "Task"), ("other", "Task"), ("default", "task"))
    ]
    cases.append(
        {
            "kind": "builtin",
            "application": "default",
            "name": "$role",
            "id": builtin_model_id("default", "$role"),
        }
    )
    cases += [
        {"kind": "document", "now_ms": now_ms, "random": f"{random:020x}", "id": sortable_id(now_ms, random)}
        for now_ms, random in ((0, 0), (1_790_000_000_000, 0x0123456789ABCDEF0123), (2**48 - 1, 2**80 - 1))
    ]
    return cases


# -- signatures ----------------------------------------------------------------------------------------------


def _keys() -> list[Case]:
    cases = []
    for number, message in ((1, b""), (2, b"a"), (3, bytes(range(256)))):
        keys = keys_of(number)
        cases.append(
            {"seed": keys.seed, "public": keys.public, "message": message, "signature": keys.sign(message)}
        )
    return cases


def _signatures() -> list[Case]:
    """What honest signers never make, so that libraries differ in it."""
    secret, nonce, message = 0x1234_5678_9ABC_DEF0 * 8, 987_654_321, b"a message"
    point, r_point = curve.times(secret, curve.BASE), curve.times(nonce, curve.BASE)
    public, r = curve.encoded(point), curve.encoded(r_point)
    small = curve.small_order_points()
    cases: list[Case] = []

    def case(what: str, key: bytes, text: bytes, signature: bytes) -> None:
        accepted = verify(key, text, signature)
        cases.append(
            {"public": key, "message": text, "signature": signature, "accepted": accepted, "odd": what}
        )

    good = curve.signature(secret, nonce, message, public=public, r=r)
    case("nothing", public, message, good)
    s = int.from_bytes(good[32:], "little")
    case("s is not reduced", public, message, r + (s + curve.ORDER).to_bytes(32, "little"))
    case("s has its highest bit set", public, message, r + (s | 1 << 255).to_bytes(32, "little"))
    for order in range(1, 8):
        mixed_r = curve.encoded(curve.add(r_point, small[order]))
        signature = curve.signature(secret, nonce, message, public=public, r=mixed_r)
        case("R has a part of small order", public, message, signature)
    for order in (1, 2, 4):
        mixed = curve.encoded(curve.add(point, small[order]))
        for vanishes in (True, False):
            texts = (message + bytes([n]) for n in range(256))
            found = (t for t in texts if (order * curve.challenge(r, mixed, t) % 8 == 0) == vanishes)
            text = next(found)
            signature = curve.signature(secret, nonce, text, public=mixed, r=r)
            case(
                f"A has a part of small order, which {'vanishes' if vanishes else 'stays'}",
                mixed,
                text,
                signature,
            )
    for order in range(8):
        key = curve.encoded(small[order])
        text = next(
            t for t in (bytes([n]) for n in range(256)) if order * curve.challenge(r, key, t) % 8 == 0
        )
        case("A has small order", key, text, curve.signature(0, nonce, text, public=key, r=r))
        signature = curve.signature(secret, 0, message, public=public, r=key)
        case("R has small order", public, message, signature)
    for y in (0, 1, 3, 18):
        odd = (y + curve.P).to_bytes(32, "little")
        case("A is not in canonical form", odd, message, curve.signature(0, nonce, message, public=odd, r=r))
        case(
            "R is not in canonical form",
            public,
            message,
            curve.signature(secret, 0, message, public=public, r=odd),
        )
    return cases


# -- bodies, headers, windows --------------------------------------------------------------------------------


def _body(*operations: Any, **parts: Any) -> Body:
    whole: Case = {"salt": SALT, "user": "ann", "model": MODEL, "id": "one", "seen": ()} | parts
    return Body(**whole, operations=list(operations) or [[0, {"title": "x"}]])


def _bodies() -> list[Case]:
    low, high = sorted([ANN, BOB])
    good = [
        _body(),
        _body([0, {"title": "Läuft", "done": False, "size": 2.5, "more": {"a": [1, None]}}], user=""),
        _body([1, "tags", ["x", 1, True, None, 0.5]], [2, "tags", ["y"]], [3, "count", -(2**63)]),
        _body([6]),
        _body([4], [5], seen=(Dot(low, 1, 0), Dot(high, 2**63 - 1, 9_999))),
        _body(
            [0, {"title": "x"}],
            [200, b"of a newer release", {"a": 1}],
            model="$role_0a1b2c3d",
            id="A.b:c~d-e_f",
        ),
    ]
    cases: list[Case] = []
    for body in good:
        data = body.encode(ANN)
        stub = stub_of(data).encode()
        cases.append({"author": ANN, "bytes": data, "hash": body_hash(data), "stub": stub, **body._asdict()})
    whole = _body().encode(ANN)
    wide = whole[:18] + b"\x78" + bytes([whole[18] & 31]) + whole[19:]  # the length of the user in two bytes
    told = {"hash": body_hash(wide), "stub": stub_of(wide).encode(), **decode_body(wide, ANN)._asdict()}
    cases.append({"author": ANN, "bytes": wide, **told})
    parts = [SALT, "ann", MODEL, "one", [], [[0, {"title": "x"}]]]
    others = sorted([Dot(BOB, 1, 0), Dot(author_number(3), 1, 0)])
    for odd, index, part in (
        ("a short salt", 0, SALT[:15]),
        ("an erasure with an argument", 5, [[6, 0]]),
        ("an erasure that does not stand alone", 5, [[6], [4]]),
        ("a user of 257 characters", 1, "x" * 257),
        ("a model that is no name", 2, "a b"),
        ("an id with a zero byte", 3, "a\0b"),
        ("a dot of the own author in full", 4, [[ANN, 1, 0]]),
        ("two dots of one author", 4, [[BOB, 1, 0], [BOB, 2, 0]]),
        ("dots out of order", 4, [[dot.author, 1, 0] for dot in reversed(others)]),
        ("a dot with true for a number", 4, [[True, 0]]),
        ("no operations", 5, []),
        ("false for a kind", 5, [[False, {"title": "x"}]]),
        ("0.0 for a kind", 5, [[0.0, {"title": "x"}]]),
        ("a set of no registers", 5, [[0, {}]]),
        ("an integer of 65 bits", 5, [[0, {"title": 2**63}]]),
        ("a number that is not finite", 5, [[0, {"title": float("inf")}]]),
        ("bytes for a value", 5, [[0, {"title": b"x"}]]),
        ("a list for an element", 5, [[1, "tags", [[]]]]),
        ("a float for a delta", 5, [[3, "count", 1.0]]),
        ("a delete with an argument", 5, [[4, 0]]),
        ("a kind above 255", 5, [[256]]),
    ):  # fmt: skip
        data = encode([*parts[:index], part, *parts[index + 1 :]])
        assert is_refused(decode_body, data, ANN), odd
        cases.append({"author": ANN, "bytes": data, "malformed": odd})
    return cases


def _headers() -> list[Case]:
    prefix = bytes(range(16))
    deps = tuple(
        sorted([Dep(False, BOB, 7, prefix), Dep(True, ANN, 1, prefix), Dep(True, BOB, 2**40, prefix)])
    )
    first = Header(SPACE, ANN, 1, NO_PREVIOUS, 1_790_000_000_000 << 16, (), (body_hash(b"a body"),))
    second = Header(SPACE, ANN, 2, header_hash(first.encode()), first.hlc + 1, deps, ())
    cases: list[Case] = []
    for header in (first, second):
        commit = sign_commit(keys_of(1), header, [])
        cases.append({
            "seed": keys_of(1).seed, "space": header.space, "author": header.author, "seq": header.seq,
            "previous": header.previous, "hlc": header.hlc, "deps": deps_to_lists(header.deps),
            "body_hashes": header.body_hashes, "bytes": commit.header_bytes, "hash": commit.hash,
            "signature": commit.signature,
        })  # fmt: skip
    parts = decode(second.encode())
    for odd, index, part in (
        ("version 2", 0, 2),
        ("version true", 0, True),
        ("a node of 31 bytes", 2, ANN[:31]),
        ("seq 0", 4, 0),
        ("no previous hash though seq is 2", 5, NO_PREVIOUS),
        ("hlc 0", 6, 0),
        ("a float for a place", 7, [[0.0, BOB, 7, prefix]]),
        ("the own chain as a dep", 7, [[0, ANN, 1, prefix]]),
        ("deps out of order", 7, [[1, BOB, 1, prefix], [0, BOB, 1, prefix]]),
        ("two deps of one author and place", 7, [[0, BOB, 1, prefix], [0, BOB, 2, prefix]]),
        ("a body hash of 31 bytes", 8, [bytes(31)]),
    ):
        data = encode([*parts[:index], part, *parts[index + 1 :]])
        assert is_refused(decode_header, data), odd
        cases.append({"bytes": data, "malformed": odd})
    cases.append({"bytes": b"\x89\x18\x01" + second.encode()[2:], "malformed": "version 1 in two bytes"})
    cases.append({"bytes": second.encode() + b"\0", "malformed": "a byte after the header"})
    return cases


DROPPED = Body(SALT, "ann", MODEL, "two", (), [[0, {"title": "gone"}]]).encode(ANN)


def _chain(node: int, *contents: list[bytes | None]) -> list[Commit]:
    commits: list[Commit] = []
    previous, author = NO_PREVIOUS, author_number(node)
    for number, bodies in enumerate(contents, 1):
        whole = [DROPPED if body is None else body for body in bodies]
        header = Header(SPACE, author, number, previous, 1_000 * number, (), tuple(map(body_hash, whole)))
        signed = sign_commit(keys_of(node), header, whole)
        commits.append(without_bodies(signed, [i for i, body in enumerate(bodies) if body is None]))
        previous = signed.hash
    return commits


def _windows() -> list[Case]:
    body = _body().encode(ANN)
    ann, bob = _chain(1, [body], [], [b"anything", None]), _chain(2, [b""])
    cases: list[Case] = []
    for runs in ([Run(tuple(ann))], [Run(tuple(ann[1:]))], [Run(tuple(ann[:2])), Run(tuple(bob))]):
        data = encode_window(runs)
        commits = [
            {
                "author": c.header.author,
                "seq": c.header.seq,
                "hash": c.hash,
                "body_hashes": c.header.body_hashes,
            }
            for run in decode_window(data)
            for c in run.commits
        ]
        cases.append({"bytes": data, "commits": commits})
    skeleton, *bodies = decode(Run(tuple(ann)).encode())
    twice = [Run(tuple(ann[:1])).encode(), Run(tuple(ann[1:])).encode()]
    for odd, data in (
        ("a body was changed", encode([encode([skeleton, b"another", *bodies[1:]])])),
        ("a body is missing", encode([encode([skeleton, *bodies[1:]])])),
        ("a body too many", encode([encode([skeleton, *bodies, b""])])),
        ("two runs of one author and space", encode(twice)),
        ("no run", encode([])),
    ):
        assert is_refused(decode_window, data), odd
        cases.append({"bytes": data, "refused": odd})
    return cases


# -- networks and documents ----------------------------------------------------------------------------------


def _networks() -> list[Case]:
    founder, network = keys_of(1), keys_of(9)
    genesis = found_network(founder.public, network, 1_790_000_000_000, SALT)
    return [{
        "founder": founder.public, "network_seed": network.seed, "network_key": network.public, "salt": SALT,
        "created_ms": genesis.created_ms, "body": genesis.body, "network_id": genesis.network_id,
        "system": space_id(genesis.network_id, SYSTEM_SPACE_NAME),
    }]  # fmt: skip


def _versions() -> list[Case]:
    cases = []
    for dots in ([Dot(ANN, 1, 0)], [Dot(ANN, 2, 0), Dot(ANN, 2, 9_999), Dot(BOB, 2**63 - 1, 1)]):
        document = Document(MODEL, "one")
        for dot in dots:
            document.apply(dot, dot.seq, "", (), [[5]])
        vector = [[author, *last] for author, last in sorted(document.vector.items())]
        cases.append({"vector": vector, "version": document.version})
    return cases


ROLES: dict[int, Role | None] = {1: Role.ADMIN, 2: Role.ADMIN, 3: Role.MEMBER, 4: Role.READER}


def _integration() -> list[Case]:
    return [
        _case(*scene)
        for scene in (
            _writing_apart(),
            _sets_and_counters(),
            _deletes(),
            _verdicts(),
            _refusals(),
            _erasures(),
            _definitions(),
        )
    ]


def _world() -> World:
    roles = {NodeId(keys_of(number).public): role for number, role in ROLES.items()}
    return World(roles=roles, role_of_others=None)


def _peers(*numbers: int) -> list[Peer]:
    return [Peer(number, world=_world(), salts=100 * number) for number in numbers]


def _case(what: str, commits: list[Commit]) -> Case:
    """A fresh node receives these commits in this order."""
    world, steps = _world(), list[Case]()
    for commit in commits:
        signed = encode_window([Run((commit,))])
        steps.append({"window": signed, **_told(world.receive(commit))})
    documents = [
        {
            "space": space, "model": model, "id": id, "exists": document.exists, "version": document.version,
            "erased": document.erased_hlc,
            "values": document.values(), "created": [document.created_hlc, document.created_user],
            "updated": [document.updated_hlc, document.updated_user],
            "conflicts": {c.field: [v.value for v in c.values] for c in conflicts(document)},
        }
        for (space, model, id), document in sorted(world.documents.items())
    ]  # fmt: skip
    roles = {keys_of(number).public.hex(): role for number, role in ROLES.items()}
    return {"what": what, "system": SYSTEM, "roles": roles, "steps": steps, "documents": documents}


def _told(outcome: Outcome) -> Case:
    match outcome:
        case Integrated(entries=entries):
            return {"outcome": "integrated", "verdicts": [entry.verdict.value for entry in entries]}
        case Waiting(missing):
            return {"outcome": "waiting", "missing": missing}
        case Fork(ours):
            return {"outcome": "fork", "ours": ours}
        case Refused(rule):
            return {"outcome": "refused", "rule": rule}
    return {"outcome": "known"}


def _exchange(*peers: Peer) -> None:
    for peer in peers:
        for other in peers:
            for commit in list(other.world.order):
                peer.world.receive(commit)


def _writing_apart() -> tuple[str, list[Commit]]:
    ann, bob, cleo = _peers(1, 2, 3)
    first = ann.write("one", [[0, {"title": "a", "done": False}]])
    _exchange(ann, bob, cleo)
    seen = [Dot(ann.author, 1, 0)]
    apart = [
        ann.write("one", [[0, {"title": "b"}]], seen, user="ann"),
        bob.write("one", [[0, {"title": "c", "done": True}]], seen, user="bob"),
        bob.write("one", [[0, {"title": "d"}]], seen, user="bob"),
    ]
    _exchange(ann, bob, cleo)
    both = cleo.write(
        "one", [[0, {"title": "e"}]], sorted([Dot(ann.author, 2, 0), Dot(bob.author, 1, 0)]), user="cleo"
    )
    return "values written apart, one of them with an old context, and one that has seen most", [
        first,
        *apart,
        both,
    ]


def _sets_and_counters() -> tuple[str, list[Commit]]:
    ann, bob = _peers(1, 2)
    first = ann.write("one", [[1, "tags", ["x", "y", 1]], [3, "count", 2**63 - 1]])
    _exchange(ann, bob)
    seen = [Dot(ann.author, 1, 0)]
    apart = [
        ann.write("one", [[1, "tags", ["x"]], [3, "count", 1]], seen),
        bob.write("one", [[2, "tags", ["x", 1.0, True]], [3, "count", 1]], seen),
    ]
    return "an element added while it is removed, and a counter that wraps around", [first, *apart]


def _deletes() -> tuple[str, list[Commit]]:
    ann, bob = _peers(1, 2)
    commits = [ann.write(id, [[0, {"title": "a"}]]) for id in ("one", "two")]
    _exchange(ann, bob)
    for number, id in enumerate(("one", "two"), 1):
        seen = [Dot(ann.author, number, 0)]
        commits += [ann.write(id, [[4]], seen), bob.write(id, [[0, {"title": "b"}]], seen)]
    _exchange(ann, bob)
    all_of = sorted([Dot(ann.author, 4, 0), Dot(bob.author, 2, 0)])
    commits.append(bob.write("two", [[4], [5], [0, {"title": "again"}]], all_of, user="bob"))
    return "deletes that met updates, and one document written again", commits


def _verdicts() -> tuple[str, list[Commit]]:
    ann, member, reader, stranger = _peers(1, 3, 4, 5)
    first = ann.write("one", [[0, {"title": "a"}]])
    commits = [first]
    for peer in (member, reader, stranger):
        peer.world.receive(first)
        bodies = [
            _body([0, {"title": str(peer.number)}], id="two"),
            _body(model="$role_0a1b2c3d"),
            _body([0, {"title": "x"}], [77, b""]),
            _body(seen=tuple(sorted([Dot(ann.author, 1, 0)]))),
            _body(seen=(Dot(ann.author, 2, 0),)),
            _body(seen=(Dot(peer.author, 1, 5),)),
            _body(seen=(Dot(peer.author, 1, 4),)),
        ]
        forged = peer.forge([*(body.encode(peer.author) for body in bodies), b"noise"])
        commits.append(
            Commit(forged.header, forged.header_bytes, forged.hash, forged.bodies, forged.signature)
        )
    return "bodies of every verdict, by a member, a reader and a stranger", commits


def _refusals() -> tuple[str, list[Commit]]:
    ann, again, bob, cleo = *_peers(1), *_peers(1), *_peers(2, 3)
    first = ann.write("one", [[0, {"title": "a"}]])
    second = ann.write("one", [[0, {"title": "b"}]])
    other_first = again.write("one", [[0, {"title": "c"}]])
    backwards = Header(SPACE, ann.author, 3, second.hash, second.header.hlc, (), ())
    lying = Header(SPACE, bob.author, 1, NO_PREVIOUS, 1, (Dep(False, ann.author, 1, bytes(16)),), ())
    odd_place = Header(SYSTEM, bob.author, 1, NO_PREVIOUS, 1, (Dep(True, ann.author, 1, bytes(16)),), ())
    cleo.world.receive(first)
    cleo.world.receive(second)
    early = cleo.write("one", [[4]], [Dot(ann.author, 2, 0)])
    commits = [
        second,
        early,
        first,
        early,
        second,
        first,
        early,
        other_first,
        again.write("one", [[0, {"title": "d"}]]),
        sign_commit(ann.keys, backwards, []),
        sign_commit(bob.keys, lying, []),
        sign_commit(bob.keys, odd_place, []),
    ]
    return "commits that wait, come twice, fork, and are refused", commits


def _erasures() -> tuple[str, list[Commit]]:
    ann, bob, member = _peers(1, 2, 3)
    first = ann.write("one", [[0, {"title": "a"}]])
    own = member.write("two", [[0, {"title": "b"}]], user="cleo")
    _exchange(ann, bob, member)
    beside = bob.write("one", [[0, {"title": "c"}]], [Dot(ann.author, 1, 0)])
    refused = member.forge([_body([6]).encode(member.author)])  # what others wrote, too
    member.world.receive(refused)
    of_own = member.write("two", [[6]], user="cleo")
    by_admin = ann.write("one", [[6]])
    later = ann.write("three", [[0, {"title": "d"}]])
    return "documents that are erased: by who wrote them, by an admin, and what is said of them elsewhere", [
        without_bodies(first, [0]),
        own,
        refused,
        of_own,
        by_admin,
        beside,
        later,
    ]


def _definitions() -> tuple[str, list[Commit]]:
    ann, member = _peers(1, 3)
    later, apart = (Peer(3, incarnation, _world(), salts=1_000 * incarnation) for incarnation in (2, 3))
    rights = [0, {"permissions": {"read": "owner"}}]

    def forge(peer: Peer, *bodies: tuple[str, list[Any]]) -> Commit:
        said = [_body(*operations, model="$model_0a1b2c3d", id=id) for id, operations in bodies]
        return peer.forge([body.encode(peer.author) for body in said])

    commits = [forge(ann, ("one", [rights])), forge(member, ("two", [rights]), ("two", [[4], [5], rights]))]
    for commit in commits:
        for peer in (ann, later):
            peer.world.receive(commit)
    commits.append(
        forge(
            later,
            *(("one", [operation]) for operation in (rights, [4], [5], [6], [0, {"plural": "ones"}])),
            ("two", [rights]),
        )
    )
    commits.append(forge(ann, ("two", [[0, {"plural": "twos"}]])))
    for commit in commits[2:]:
        later.world.receive(commit)
    commits += [forge(later, ("two", [rights])), forge(apart, ("one", [rights]))]
    return "definitions of models: rights that a member says beside others, after others, and apart", commits


if __name__ == "__main__":
    PATH.write_text(as_text(), encoding="ascii")
