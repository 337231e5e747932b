"""A small network in which anybody can say anything, with real keys and real bytes.

Room: people, their keys, and commits of `system` made by them. ann founds the
network and admits bob, cat and dan as admins and mia as a member; each admin has
then made one ticket for a member (`ticket of ann` …), and all have seen all that.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from hashlib import sha256

from protocol.body import body_hash
from protocol.commit import NO_PREVIOUS, Commit, Dep, Header, sign_commit
from protocol.cuts import Cuts
from protocol.ids import NodeId, SpaceId, application_space_name, author_of, space_id
from protocol.keys import KeyPair
from protocol.membership import Members, Rights, Role, SystemCommit, found_network, read_system_commit
from protocol.statement_log import Link
from protocol.statements import (
    Admit,
    Grant,
    Invite,
    Revoke,
    ask_admission,
    encode_statement,
    sign_recovery,
)

ADMINS = ("ann", "bob", "cat", "dan")
PEOPLE = (*ADMINS, "mia")
EXPIRES_MS = 1_800_000_000_000


@cache
def keys(name: str) -> KeyPair:
    """The keys of a node, a ticket or the network."""
    return KeyPair.from_seed(sha256(name.encode()).digest())


def node(name: str) -> NodeId:
    """The public key of `name`: a node id, or the key of a ticket."""
    return keys(name).public


def life(number: int) -> bytes:
    """The incarnation of somebody's first, second … life."""
    return number.to_bytes(8, "big")


GENESIS = found_network(node("ann"), keys("network"), 1_700_000_000_000, bytes(16))
SYSTEM = space_id(GENESIS.network_id, "system")
SPACE = space_id(GENESIS.network_id, application_space_name("default"))
OTHER_SPACE = space_id(GENESIS.network_id, application_space_name("other"))


@dataclass(frozen=True)
class Recovering:
    """A recovery that is still to be signed, for the commit that it is going to stand in."""

    revoked: tuple[Revoke, ...]


Sayable = Invite | Admit | Grant | Revoke | Recovering | bytes  # bytes: a body as it is


@dataclass(frozen=True)
class Said:
    """A commit of `system`, as it travels and as the fold takes it."""

    commit: Commit
    read: SystemCommit

    @property
    def link(self) -> Link:
        return self.read.link


def say(
    who: str,
    *statements: Sayable,
    seen: Iterable[Said] = (),
    after: Said | None = None,
    incarnation: int = 1,
) -> Said:
    """A commit by `who`, after `after` in the same chain, having seen `seen`."""
    author = author_of(node(who), life(incarnation))
    seq = after.read.seq + 1 if after else 1
    previous = after.commit.hash if after else NO_PREVIOUS
    links = {said.link.author: said.link for said in sorted(seen, key=lambda said: said.link)}
    links.pop(author, None)  # a header names one commit an author, here the latest, and its own by hash
    deps = tuple(sorted(Dep(False, link.author, link.seq, link.hash_prefix) for link in links.values()))
    header = Header(SYSTEM, author, seq, previous, 1_000 + seq, deps, ())
    bodies = [_body(who, index, statement, header) for index, statement in enumerate(statements)]
    hashes = tuple(body_hash(body) for body in bodies)
    header = Header(SYSTEM, author, seq, previous, 1_000 + seq, deps, hashes)
    commit = sign_commit(keys(who), header, bodies)
    return Said(commit, read_system_commit(commit, GENESIS))


def _body(who: str, index: int, statement: Sayable, header: Header) -> bytes:
    salt = sha256(f"salt {who} {header.seq} {index}".encode()).digest()[:16]
    match statement:
        case bytes():
            return statement
        case Recovering(revoked):
            return sign_recovery(keys("network"), revoked, salt, header)
        case _:
            return encode_statement(statement, salt)


def invite(ticket: str, role: Role = Role.MEMBER, spaces: frozenset[SpaceId] | None = None) -> Invite:
    return Invite(node(ticket), Rights(role, spaces), EXPIRES_MS)


@cache
def admit(ticket: str, joiner: str) -> Admit:
    return ask_admission(keys(ticket), keys(joiner), GENESIS.network_id)


def grant(name: str, role: Role, spaces: frozenset[SpaceId] | None = None) -> Grant:
    return Grant(node(name), Rights(role, spaces))


def cuts(heads: Iterable[Said]) -> Cuts:
    """Leaves standing these commits of `system` and what came before them in their chains."""
    return Cuts.at_heads((SYSTEM, said.read.author, said.read.seq, said.commit.hash) for said in heads)


def revoke(name: str, *heads: Said) -> Revoke:
    """Puts somebody out; of what they said, the chains up to `heads` count."""
    return Revoke(node(name), cuts(heads))


def recover(*revoked: Revoke) -> Recovering:
    return Recovering(revoked)


def _founding() -> dict[str, Said]:
    a1 = say("ann", GENESIS.body)
    invites = [invite(f"seat of {name}", Role.ADMIN) for name in ADMINS[1:]] + [invite("seat of mia")]
    a2 = say("ann", *invites, after=a1)
    a3 = say("ann", *(admit(f"seat of {name}", name) for name in PEOPLE[1:]), after=a2)
    a4 = say("ann", invite("ticket of ann"), after=a3)
    others = {name: say(name, invite(f"ticket of {name}"), seen=[a3]) for name in ADMINS[1:]}
    return {"a1": a1, "a2": a2, "a3": a3, "ann": a4, **others}


SETUP: dict[str, Said] = _founding()
LAST: dict[str, Said] = {name: SETUP[name] for name in ADMINS}  # the last that each admin has said so far


def next_by(who: str, *statements: Sayable, seen: Iterable[Said] = (), after: Said | None = None) -> Said:
    """What somebody says next, having seen all of the setup, and `seen`."""
    return say(who, *statements, seen=[*LAST.values(), *seen], after=after or LAST.get(who))


def members(*said: Said, setup: bool = True) -> Members:
    """What one knows who has seen all that, handed over in this order."""
    found = Members.of_genesis(GENESIS)
    for each in (*(SETUP.values() if setup else ()), *said):
        found = found.with_commits([each.read])
    return found


NAMES: dict[bytes, str] = {node(name): name for name in (*PEOPLE, "joe", "kim", "zoe", "eve")}


def roles(found: Members) -> dict[str, str]:
    """Roles by name; `suspended` for those who are."""
    answer = {NAMES[key]: role.value for key, role in found.roles.items()}
    return answer | {NAMES[key]: "suspended" for key in NAMES if found.is_suspended(key)}
