"""What an administrator can say at the same time as another: the alphabet of the exhaustive tests.

Room: actions with their wording, the same for the tests, the tables in
MEMBERSHIP.md and the vectors.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from itertools import permutations, product

from protocol.cuts import Cuts
from protocol.membership import Role
from protocol.statements import Revoke
from tests.protocol.membership_world import (
    ADMINS,
    LAST,
    SETUP,
    SPACE,
    SYSTEM,
    Said,
    Sayable,
    admit,
    grant,
    invite,
    next_by,
    node,
    recover,
    revoke,
    say,
)


@dataclass(frozen=True)
class Action:
    """Something to say about somebody. `{}` in the wording is whom it is about."""

    wording: str
    make: Callable[[str], Sayable]


def kept(name: str) -> Revoke:
    return revoke(name, LAST[name])


# About another administrator.
REVOKE = Action("revokes {}", kept)
REVOKE_ALL = Action("revokes {}, naming nothing", lambda name: revoke(name))
DEMOTE = Action("makes {} a member", lambda name: grant(name, Role.MEMBER))
ADMIT_BY = Action("admits joe by a ticket of {}", lambda name: admit(f"ticket of {name}", "joe"))
RECOVER = Action("recovers, putting out {}", lambda name: recover(kept(name)))


# About nobody of them.
PROMOTE_MIA = Action("makes mia an admin", lambda _: grant("mia", Role.ADMIN))
LOWER_MIA = Action("makes mia a reader", lambda _: grant("mia", Role.READER))
INVITE = Action("invites", lambda _: invite("ticket of eve"))
ADMIT_JOE = Action("admits joe by a ticket of ann", lambda _: admit("ticket of ann", "joe"))
ADMIT_KIM = Action("admits kim by a ticket of ann", lambda _: admit("ticket of ann", "kim"))
RECOVER_ALONE = Action("recovers, putting out nobody", lambda _: recover())

ABOUT_ANOTHER = (REVOKE, REVOKE_ALL, DEMOTE, ADMIT_BY, RECOVER)
ABOUT_NONE = (PROMOTE_MIA, LOWER_MIA, INVITE, ADMIT_JOE, ADMIT_KIM, RECOVER_ALONE)


@cache
def said_now(who: str, action: Action, about: str) -> Said:
    """What `who` says, having seen the setup and nothing since."""
    return next_by(who, action.make(about))


def actions_of(
    who: str,
    others: Sequence[str],
    about_another: Sequence[Action] = ABOUT_ANOTHER,
    about_none: Sequence[Action] = ABOUT_NONE,
) -> list[Said]:
    """Everything that `who` can say, about each of the others or about none of them."""
    of_others = [said_now(who, action, other) for action in about_another for other in others if other != who]
    return of_others + [said_now(who, action, "") for action in about_none]


# -- cases with a story --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """Some commits on top of the setup, in an order in which causes come first."""

    title: str
    said: tuple[Said, ...]


def pairs() -> list[Case]:
    """All that bob and cat can say at the same time, each pair once."""
    actions = (*ABOUT_ANOTHER, *ABOUT_NONE)
    return [
        Case(
            f"bob {first.wording.format('cat')} | cat {second.wording.format('bob')}",
            (said_now("bob", first, "cat"), said_now("cat", second, "bob")),
        )
        for position, first in enumerate(actions)
        for second in actions[position:]
    ]


def graphs(size: int) -> list[dict[int, int]]:
    """Who revokes whom among so many, each at most one other: every connected way, each once."""
    found: dict[tuple[tuple[int, int], ...], dict[int, int]] = {}
    for targets in product((None, *range(size)), repeat=size):
        graph = {who: target for who, target in enumerate(targets) if target is not None}
        if all(who != target for who, target in graph.items()) and _is_connected(graph, size):
            forms = [
                tuple(sorted((names[who], names[target]) for who, target in graph.items()))
                for names in permutations(range(size))
            ]
            found.setdefault(min(forms), dict(min(forms)))
    return list(found.values())


def _is_connected(graph: dict[int, int], size: int) -> bool:
    reached, edge = {0}, {0}
    while edge:
        edge = {b for a, b in graph.items() if a in edge} | {a for a, b in graph.items() if b in edge}
        edge -= reached
        reached |= edge
    return len(reached) == size


def graph_case(graph: dict[int, int], names: Sequence[str]) -> Case:
    title = ", ".join(f"{names[a]} revokes {names[b]}" for a, b in graph.items())
    return Case(title, tuple(said_now(names[a], REVOKE, names[b]) for a, b in graph.items()))


def stories() -> list[Case]:
    """Cases that need more than two statements made at the same time."""
    bobs = LAST["bob"].read
    data_kept = Revoke(
        node("bob"),
        Cuts.at_heads((
            (SYSTEM, bobs.author, bobs.seq, bobs.hash), (SPACE, bobs.author, 3, sha256(b"3").digest()),
        )),
    )  # fmt: skip
    ann_gone = said_now("bob", REVOKE_ALL, "ann")
    founder_twice = say("ann", invite("ticket of eve"), after=SETUP["a1"])
    ann_out = said_now("bob", REVOKE, "ann")
    bob_out = said_now("ann", REVOKE, "bob")
    bob_gone = said_now("ann", REVOKE_ALL, "bob")
    bob_lowered = said_now("ann", DEMOTE, "bob")
    joe_in, kim_in = said_now("bob", ADMIT_JOE, ""), said_now("cat", ADMIT_KIM, "")
    joe_again = said_now("cat", ADMIT_JOE, "")
    zoe_in = next_by("ann", admit("ticket of ann", "zoe"))
    knowing = next_by("dan", grant("joe", Role.MEMBER), seen=[joe_in, kim_in])
    unknowing = next_by("dan", grant("joe", Role.ADMIN), seen=[joe_in])
    by_bob = said_now("cat", ADMIT_BY, "bob")
    eve_made = next_by("bob", invite("seat of zoe", Role.ADMIN), admit("seat of zoe", "zoe"))
    zoe_says = say("zoe", kept("cat"), grant("mia", Role.ADMIN), seen=[eve_made])
    seat = next_by("ann", invite("seat of joe", Role.ADMIN))
    joe_seat = next_by("bob", admit("seat of joe", "joe"), seen=[seat])
    kim_seat = next_by("cat", admit("seat of joe", "kim"), seen=[seat])
    kim_zoe = say("kim", invite("seat of zoe", Role.ADMIN), admit("seat of zoe", "zoe"), seen=[kim_seat])
    dan_admits = next_by("dan", admit("ticket of ann", "zoe"))
    mia_admits = next_by("mia", admit("ticket of ann", "eve"))
    by_joe = say("joe", grant("eve", Role.MEMBER), seen=[joe_seat, dan_admits, mia_admits])
    bob_twice = next_by("bob", invite("ticket of eve"), kept("cat"))
    bob_other = next_by("bob", grant("mia", Role.READER))
    return [
        Case("a revoked admin goes on, back-dated: all but a revocation is cut", (
            bob_out, next_by("bob", invite("ticket of eve"), grant("mia", Role.ADMIN), kept("dan")),
        )),
        Case("the same in a new incarnation, which the revocation cannot have named", (
            bob_out,
            say("bob", invite("ticket of eve"), kept("dan"), seen=LAST.values(), incarnation=2),
        )),
        Case("a revoked admin goes on, having seen it", (
            bob_out, next_by("bob", invite("ticket of eve"), kept("dan"), seen=[bob_out]),
        )),
        Case("an admin is made a member and goes on, back-dated: a role change binds only what has seen it", (
            bob_lowered, next_by("bob", grant("mia", Role.ADMIN)),
        )),
        Case("an admin is made a member and goes on, having seen it", (
            bob_lowered, next_by("bob", grant("mia", Role.ADMIN), seen=[bob_lowered]),
        )),
        Case("two cuts of one chain: the lowest counts, so what it said before falls, and who rests on it", (
            bob_out, next_by("dan", revoke("bob")), by_bob,
        )),
        Case("the inviter is revoked within the cut, and a ticket used at the same time", (bob_out, by_bob)),
        Case("the inviter is revoked and the invitation cut, and a ticket used at the same time", (
            bob_gone, by_bob,
        )),
        Case("the inviter is revoked, and a ticket used by one who has seen it", (
            bob_out, next_by("dan", admit("ticket of bob", "joe"), seen=[bob_out]),
        )),
        Case("a ticket is used twice, the second having seen the first", (
            joe_in, next_by("cat", admit("ticket of ann", "kim"), seen=[joe_in]),
        )),
        Case("a ticket is used twice apart: both are suspended", (joe_in, kim_in)),
        Case("a ticket is used three times apart", (joe_in, kim_in, zoe_in)),
        Case("a ticket is used twice apart for the same joiner: that is one use", (joe_in, joe_again)),
        Case("a ticket is used twice apart, and an admin who knows of both grants one", (
            joe_in, kim_in, knowing,
        )),
        Case("the same, and a third use comes to light", (joe_in, kim_in, knowing, zoe_in)),
        Case("the same, and the other is granted too", (
            joe_in, kim_in, knowing, next_by("ann", grant("kim", Role.READER), seen=[joe_in, kim_in]),
        )),
        Case("a ticket is used twice apart, and an admin who knows of one grants it", (
            joe_in, kim_in, unknowing,
        )),
        Case("a ticket is used twice apart, and one of the two uses is cut", (
            joe_in, kim_in, next_by("dan", kept("cat")),
        )),
        Case("two admins-to-be use a ticket apart: neither has a say in the dispute", (
            seat, joe_seat, kim_seat, say("joe", grant("joe", Role.ADMIN), seen=[joe_seat]),
            kim_zoe, say("zoe", grant("kim", Role.ADMIN), seen=[kim_zoe]),
        )),
        Case("one who is in a dispute, not knowing it, has no say in another", (
            seat, joe_seat, kim_seat, dan_admits, mia_admits, by_joe,
        )),
        Case("two roles granted apart: the lower, in the spaces of both", (
            next_by("bob", grant("mia", Role.ADMIN, frozenset({SPACE}))),
            next_by("cat", grant("mia", Role.MEMBER)),
        )),
        Case("a revoked key never returns", (
            bob_out,
            next_by("cat", grant("bob", Role.ADMIN)),
            next_by("dan", grant("bob", Role.ADMIN), invite("ticket of eve"), admit("ticket of eve", "bob"),
                    seen=[bob_out]),
        )),
        Case("a revocation that also names a chain of data", (next_by("ann", data_kept),)),
        Case("an admin revokes itself", (said_now("bob", REVOKE, "bob"),)),
        Case("a thief brings an accomplice, back-dated; the accomplice revokes and promotes", (
            bob_out, eve_made, zoe_says,
        )),
        Case("the same, and the owner recovers, putting out the thief", (
            bob_out, eve_made, zoe_says, say("eve", recover(kept("bob")), seen=[bob_out, *LAST.values()]),
        )),
        Case("all admins revoke one another in a ring, and the owner recovers on a new device", (
            *(said_now(a, REVOKE, b) for a, b in zip(ADMINS, (*ADMINS[1:], ADMINS[0]), strict=True)),
            say("eve", recover(), seen=LAST.values()),
        )),
        Case("two recoveries put out one another", (
            said_now("bob", RECOVER, "cat"), said_now("cat", RECOVER, "bob"),
        )),
        Case("a recovery outranks a grant made apart", (
            next_by("mia", recover()), next_by("cat", grant("mia", Role.READER)),
        )),
        Case("a recovery copied into another commit says nothing", (
            said_now("bob", RECOVER_ALONE, ""),
            next_by("cat", said_now("bob", RECOVER_ALONE, "").commit.bodies[0] or b""),
        )),
        Case("one seq signed twice: both branches are frozen, but a revocation on one stands", (
            bob_twice, bob_other,
        )),
        Case("the cut names the other branch of a fork", (
            bob_other, next_by("ann", revoke("bob", bob_other), seen=[bob_other]), bob_twice,
        )),
        Case("a revoked admin signs a seq below its cut twice: the branch that the cut names counts", (
            bob_out, by_bob, say("bob", invite("ticket of eve"), seen=[SETUP["a3"]]),
        )),
        Case("the founder's stolen key signs its second commit twice: all rested on it", (founder_twice,)),
        Case("the same, and the owner recovers, naming the branch that counts", (
            founder_twice, say("eve", recover(kept("ann")), seen=LAST.values()),
        )),
        Case("the founder is revoked, naming nothing: all rested on it", (ann_gone,)),
        Case("the same, and the owner recovers, putting out who did that", (
            ann_gone, say("eve", recover(kept("bob")), seen=[ann_gone, *LAST.values()]),
        )),
        Case("the founder is revoked in its place, and all goes on", (ann_out,)),
        Case("a member revokes, invites and grants", (
            next_by("mia", revoke("bob"), invite("ticket of eve"), grant("mia", Role.ADMIN)),
        )),
        Case("a member admits", (next_by("mia", admit("ticket of ann", "joe")),)),
        Case("a reader admits", (
            said_now("bob", LOWER_MIA, ""),
            next_by("mia", admit("ticket of ann", "joe"), seen=[said_now("bob", LOWER_MIA, "")]),
        )),
        Case("a stranger says anything", (
            next_by("joe", revoke("bob"), invite("ticket of eve"), grant("joe", Role.ADMIN),
                    admit("ticket of ann", "joe")),
        )),
        Case("a grant to a stranger, and a revocation of one", (
            next_by("bob", grant("joe", Role.MEMBER), revoke("kim")),
        )),
    ]  # fmt: skip
