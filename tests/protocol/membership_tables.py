"""The tables of protocol/MEMBERSHIP.md and protocol/membership_vectors.json, made by running the cases.

Room: text out of verdicts. `python -m tests.protocol.membership_tables` writes both
files anew; the tests compare them with what is made here.
"""

import json
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

from protocol.cuts import Cuts
from protocol.encoding import encode
from protocol.ids import author_of, node_of
from protocol.membership import Members, Rights, Role
from protocol.statements import (
    Admit,
    Genesis,
    Grant,
    Invite,
    Recover,
    Revoke,
    Statement,
    Unknown,
    encode_statement,
)
from protocol.tickets import Ticket, encode_recovery_code, encode_ticket
from tests.protocol.membership_cases import Case, graph_case, graphs, pairs, stories
from tests.protocol.membership_world import (
    ADMINS,
    EXPIRES_MS,
    GENESIS,
    LAST,
    NAMES,
    OTHER_SPACE,
    SETUP,
    SPACE,
    SYSTEM,
    Said,
    admit,
    grant,
    invite,
    keys,
    life,
    members,
    node,
)

PROTOCOL = Path(__file__).parents[2] / "protocol"
RULES = PROTOCOL / "MEMBERSHIP.md"
VECTORS = PROTOCOL / "membership_vectors.json"
TICKETS: dict[bytes, str] = {
    node(name): name for person in NAMES.values() for name in (f"ticket of {person}", f"seat of {person}")
}


# -- words ---------------------------------------------------------------------------------------------------


def speaker(said: Said) -> str:
    """Who says it; a dash for each life after the first."""
    return NAMES[node_of(said.read.author)] + "'" * (said.read.author[-1] - 1)


def wording(statement: Statement | None) -> str:
    match statement:
        case Revoke(key, left):
            return f"revokes {NAMES[key]}" + ("" if left.cuts else ", naming nothing")
        case Recover(revoked):
            return "recovers" + "".join(f", putting out {NAMES[each.node]}" for each in revoked)
        case Grant(key, rights):
            return f"makes {NAMES[key]} {article(rights)}"
        case Invite(ticket_key, rights):
            return f"invites {article(rights)} ({TICKETS[ticket_key]})"
        case Admit(ticket_key, joiner):
            return f"admits {NAMES[joiner]} ({TICKETS[ticket_key]})"
        case Genesis():
            return "founds the network"
        case Unknown(kind):
            return f"says something of kind {kind}"
        case _:
            return "says what cannot be read"


def article(rights: Rights) -> str:
    return f"{'an' if rights.role is Role.ADMIN else 'a'} {in_words(rights)}"


def in_words(rights: Rights) -> str:
    return (
        rights.role.value if rights.spaces is None else f"{rights.role.value} in {len(rights.spaces)} space"
    )


def verdicts(found: Members, said: Said) -> list[str]:
    """Of each statement: its standing, for an invalid one with the reason."""
    return [
        f"{standing.value}: {fault.value}" if fault else standing.value
        for standing, fault in zip(found.standings(said.link), found.faults(said.link), strict=True)
    ]


def status(found: Members, key: bytes) -> str:
    if found.is_revoked(key):
        return "out"
    if found.is_suspended(key):
        return "suspended"
    rights = found.rights_of(key)
    return in_words(rights) if rights else "no role"


def changes(found: Members) -> str:
    """Who stands otherwise than after the setup."""
    before = members()
    states = {name: (status(before, key), status(found, key)) for key, name in NAMES.items()}
    return ", ".join(f"{name} {now}" for name, (then, now) in states.items() if now != then) or "as before"


# -- tables --------------------------------------------------------------------------------------------------


def tables() -> dict[str, str]:
    return {
        "pairs": table(("bob", "cat", "bob's", "cat's", "then"), (pair_row(case) for case in pairs())),
        "revocations": table(("at the same time", "then"), graph_rows()),
        "stories": table(("case", "what is said, and what it counts as", "then"), map(story_row, stories())),
    }


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def pair_row(case: Case) -> list[str]:
    found = members(*case.said)
    first, second = case.title.split(" | ")
    counts = [verdicts(found, said)[0] for said in case.said]
    return [first.removeprefix("bob "), second.removeprefix("cat "), *counts, changes(found)]


def graph_rows() -> Iterator[list[str]]:
    for size in (2, 3, 4):
        for graph in graphs(size):
            case = graph_case(graph, ADMINS[-size:])
            yield [case.title, changes(members(*case.said))]


def story_row(case: Case) -> list[str]:
    found = members(*case.said)
    lines: list[str] = []
    for said in case.said:
        spoken = zip(said.read.statements, verdicts(found, said), strict=True)
        parts = "; ".join(f"{wording(each)} → *{verdict}*" for each, verdict in spoken)
        lines.append(f"{speaker(said)} {parts}")
    return [case.title, "<br>".join(lines), changes(found)]


def with_tables(text: str) -> str:
    """The rules with their tables made anew, each between its two comments."""
    for name, content in tables().items():
        start, end = f"<!-- {name} -->\n", f"\n<!-- end of {name} -->"
        before, rest = text.split(start)
        _, after = rest.split(end)
        text = before + start + content + end + after
    return text


# -- vectors -------------------------------------------------------------------------------------------------


def vectors() -> dict[str, Any]:
    cases = [*stories(), *pairs()]
    cases += [graph_case(graph, ADMINS[-size:]) for size in (3, 4) for graph in graphs(size)]
    commits: dict[str, Said] = {}
    for said in (*SETUP.values(), *(said for case in cases for said in case.said)):
        commits.setdefault(short(said), said)
    return {
        "about": "Made by tests/protocol/membership_tables.py for MEMBERSHIP.md. Bytes are hexadecimal.",
        "genesis": GENESIS.body.hex(),
        "network_id": GENESIS.network_id.hex(),
        "system_space": SYSTEM.hex(),
        "seeds": {name: keys(name).seed.hex() for name in ("network", *NAMES.values(), *TICKETS.values())},
        "nodes": {name: key.hex() for key, name in NAMES.items()},
        "statements": statement_vectors(),
        "tickets": ticket_vectors(),
        "commits": {name: commit_vector(said) for name, said in commits.items()},
        "setup": [short(said) for said in SETUP.values()],
        "cases": [case_vector(case) for case in cases],
        "judgements": judgement_vectors(),
    }


def short(said: Said) -> str:
    """A name for a commit within the vectors."""
    return f"{speaker(said)} {said.read.seq} {said.commit.hash[:4].hex()}"


def commit_vector(said: Said) -> dict[str, Any]:
    return {
        "header": said.commit.header_bytes.hex(),
        "hash": said.commit.hash.hex(),
        "signature": (said.commit.signature or b"").hex(),
        "bodies": [(body or b"").hex() for body in said.commit.bodies],
    }


def case_vector(case: Case) -> dict[str, Any]:
    found = members(*case.said)
    return {
        "title": case.title,
        "commits": [short(said) for said in case.said],
        "verdicts": [verdicts(found, said) for said in (*SETUP.values(), *case.said)],
        "nodes": {name: status(found, node(name)) for name in NAMES.values()},
    }


def statement_vectors() -> list[dict[str, Any]]:
    salt = bytes(range(16))
    bobs = node("bob")
    left = Cuts.at_heads(
        (space, author_of(bobs, life(number)), number, sha256(life(number)).digest())
        for space in (SYSTEM, SPACE)
        for number in (1, 2)
    )
    samples: list[tuple[str, Invite | Admit | Grant | Revoke]] = [
        ("admit joe by the ticket of ann", admit("ticket of ann", "joe")),
        ("grant mia admin everywhere", grant("mia", Role.ADMIN)),
        ("grant mia reader in two spaces", grant("mia", Role.READER, frozenset({SPACE, OTHER_SPACE}))),
        ("grant mia member nowhere", grant("mia", Role.MEMBER, frozenset())),
        ("revoke bob, naming nothing", Revoke(node("bob"), Cuts())),
        ("revoke bob, naming the chains of four", Revoke(node("bob"), left)),
        ("invite a member by the ticket of eve", invite("ticket of eve")),
    ]
    found = [{"says": s, "body": encode_statement(each, salt).hex(), "is": "read"} for s, each in samples]
    newer = encode([salt, 6, b"of a newer release"]).hex()
    cut = [SYSTEM, life(1), 1, bytes(32)]
    odd: list[tuple[str, list[Any]]] = [
        ("no kind", [salt]),
        ("a salt of 15 bytes", [salt[:15], 2, node("mia"), 1, None]),
        ("a kind that is a truth value", [salt, True, node("mia"), 1, None]),
        ("a kind above 255", [salt, 256]),
        ("a grant of role 0", [salt, 2, node("mia"), 0, None]),
        ("a grant of role 4", [salt, 2, node("mia"), 4, None]),
        ("a grant with a field too many", [salt, 2, node("mia"), 1, None, None]),
        ("a grant with spaces out of order", [salt, 2, node("mia"), 1, sorted([SPACE, OTHER_SPACE])[::-1]]),
        ("a grant with a space twice", [salt, 2, node("mia"), 1, [SPACE, SPACE]]),
        ("a revocation with a cut at 0", [salt, 3, node("bob"), [[*cut[:2], 0, bytes(32)]]]),
        ("a revocation with two cuts of one chain", [salt, 3, node("bob"), [cut, [*cut[:2], 2, bytes(32)]]]),
        ("an invitation that expires before 1970", [salt, 5, node("ticket of eve"), 2, None, -1]),
    ]  # fmt: skip
    found.append({"says": "something of a newer release", "body": newer, "is": "withheld"})
    found += [{"says": says, "body": encode(fields).hex(), "is": "malformed"} for says, fields in odd]
    return found


def sample_ticket() -> Ticket:
    addresses = ("192.0.2.7:7440", "[2001:db8::7]:7440", "node.example:7440")
    return Ticket(GENESIS.network_id, node("ann"), bytes(range(16)), Role.MEMBER, EXPIRES_MS, addresses)


def ticket_vectors() -> dict[str, Any]:
    ticket = sample_ticket()
    return {
        "network_id": ticket.network_id.hex(),
        "inviter": ticket.inviter.hex(),
        "secret": ticket.secret.hex(),
        "ticket_key": ticket.keys.public.hex(),
        "role": ticket.role.value,
        "expires_ms": ticket.expires_ms,
        "addresses": list(ticket.addresses),
        "text": encode_ticket(ticket),
        "recovery_code": encode_recovery_code(keys("network")),
    }


def judgement_vectors() -> list[dict[str, Any]]:
    """Commits of a space that is not `system`: how each counts when a case is known."""
    return [
        judgement
        for case in stories()
        for name, heads in data_authors(case)
        for judgement in judge_some(case, name, heads)
    ]


def data_authors(case: Case) -> Iterator[tuple[str, list[Said]]]:
    """Who might have written data, and the heads of `system` that they had seen when they did."""
    yield "bob", list(LAST.values())
    for said in case.said:
        for statement in said.read.statements:
            if isinstance(statement, Admit) and statement.joiner in NAMES:
                yield NAMES[statement.joiner], [said]


def judge_some(case: Case, name: str, heads: list[Said]) -> Iterator[dict[str, Any]]:
    found = members(*case.said)
    for seq, digest in ((1, b"1"), (3, b"3"), (3, b"other"), (4, b"4")) if name == "bob" else ((1, b"1"),):
        author, header_hash = author_of(node(name), life(1)), sha256(digest).digest()
        verdict = found.judge(SPACE, author, seq, header_hash, [said.link for said in heads])
        yield {
            "case": case.title,
            "space": SPACE.hex(),
            "author": author.hex(),
            "seq": seq,
            "hash": header_hash.hex(),
            "heads": [short(said) for said in heads],
            "standing": verdict.standing.value,
            "role": verdict.role.value if verdict.role else None,
        }


def dump(value: dict[str, Any]) -> str:
    """JSON with one entry of each list or map a line."""
    parts: list[str] = []
    for key, content in value.items():
        if isinstance(content, dict):
            inner = ",\n".join(f"  {line(name)}: {line(each)}" for name, each in content.items())
            parts.append(f" {line(key)}: {{\n{inner}\n }}")
        elif isinstance(content, list):
            inner = ",\n".join(f"  {line(each)}" for each in content)
            parts.append(f" {line(key)}: [\n{inner}\n ]")
        else:
            parts.append(f" {line(key)}: {line(content)}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    RULES.write_text(with_tables(RULES.read_text()))
    VECTORS.write_text(dump(vectors()))
