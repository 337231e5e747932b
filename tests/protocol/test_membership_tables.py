"""The written rules, the vectors and the code say the same; the vectors alone are enough to find that out."""

import json
from itertools import permutations
from typing import Any

import pytest

from protocol.commit import make_commit, verify_signature
from protocol.errors import ProtocolError
from protocol.ids import Author, SpaceId
from protocol.keys import KeyPair
from protocol.membership import Members, SystemCommit, decode_genesis, read_system_commit
from protocol.statements import Unknown, decode_statement, encode_statement
from protocol.tickets import decode_recovery_code, decode_ticket
from tests.protocol.membership_cases import graph_case, graphs, stories
from tests.protocol.membership_tables import RULES, VECTORS, dump, status, vectors, verdicts, with_tables
from tests.protocol.membership_world import ADMINS, members, node

MAKE = "python -m tests.protocol.membership_tables"


def test_the_tables_of_the_rules_are_what_the_code_does() -> None:
    text = RULES.read_text()
    assert with_tables(text) == text, f"run {MAKE} and read what changed"


def test_the_vectors_are_what_the_code_does() -> None:
    assert VECTORS.read_text() == dump(vectors()), f"run {MAKE} and read what changed"


def test_who_revokes_whom_counts_and_not_their_names() -> None:
    for size in (2, 3, 4):
        for graph in graphs(size):
            outcomes = set()
            for names in permutations(ADMINS[-size:]):
                found = members(*graph_case(graph, names).said)
                outcomes.add(tuple(status(found, node(name)) for name in names))
            assert len(outcomes) == 1


def test_titles_of_cases_are_names() -> None:
    titles = [case.title for case in stories()]
    assert len(set(titles)) == len(titles)


# -- from the bytes alone ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def given() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(VECTORS.read_text())
    return found


@pytest.fixture(scope="module")
def commits(given: dict[str, Any]) -> dict[str, SystemCommit]:
    """Every commit of the vectors, read and verified as one that came from a peer."""
    genesis = decode_genesis(bytes.fromhex(given["genesis"]))
    found: dict[str, SystemCommit] = {}
    for name, each in given["commits"].items():
        bodies = [bytes.fromhex(body) for body in each["bodies"]]
        commit = make_commit(bytes.fromhex(each["header"]), bodies, bytes.fromhex(each["signature"]))
        assert commit.hash.hex() == each["hash"]
        assert verify_signature(commit.header.author, commit.hash, bytes.fromhex(each["signature"]))
        assert commit.header.space.hex() == given["system_space"]
        found[name] = read_system_commit(commit, genesis)
    return found


def known(given: dict[str, Any], commits: dict[str, SystemCommit], case: dict[str, Any]) -> Members:
    genesis = decode_genesis(bytes.fromhex(given["genesis"]))
    names = (*given["setup"], *case["commits"])
    return Members.of_genesis(genesis).with_commits(commits[name] for name in names)


def test_the_cases_come_out_from_their_bytes(given: dict[str, Any], commits: dict[str, SystemCommit]) -> None:
    for case in given["cases"]:
        found = known(given, commits, case)
        said = [commits[name] for name in (*given["setup"], *case["commits"])]
        outcome = [
            [f"{s.value}: {f.value}" if f else s.value for s, f in zip(standings, faults, strict=True)]
            for each in said
            for standings, faults in [(found.standings(each.link), found.faults(each.link))]
        ]
        assert outcome == case["verdicts"], case["title"]
        for name, expected in case["nodes"].items():
            assert status(found, bytes.fromhex(given["nodes"][name])) == expected, case["title"]


def test_the_judgements_come_out_from_their_bytes(
    given: dict[str, Any], commits: dict[str, SystemCommit]
) -> None:
    cases = {case["title"]: known(given, commits, case) for case in given["cases"]}
    for each in given["judgements"]:
        verdict = cases[each["case"]].judge(
            SpaceId(bytes.fromhex(each["space"])),
            Author(bytes.fromhex(each["author"])),
            each["seq"],
            bytes.fromhex(each["hash"]),
            [commits[head].link for head in each["heads"]],
        )
        role = verdict.role.value if verdict.role else None
        assert (verdict.standing.value, role) == (each["standing"], each["role"]), each


def test_the_statements_come_out_from_their_bytes(given: dict[str, Any]) -> None:
    for each in given["statements"]:
        body = bytes.fromhex(each["body"])
        if each["is"] == "malformed":
            with pytest.raises(ProtocolError):
                decode_statement(body)
            continue
        statement = decode_statement(body)
        assert isinstance(statement, Unknown) == (each["is"] == "withheld")
        if each["is"] == "read":
            assert encode_statement(statement, bytes(range(16))) == body  # type: ignore[arg-type]


def test_the_ticket_comes_out_from_its_text(given: dict[str, Any]) -> None:
    expected = given["tickets"]
    ticket = decode_ticket(expected["text"])
    assert ticket.network_id.hex() == expected["network_id"]
    assert ticket.inviter.hex() == expected["inviter"]
    assert ticket.keys.public.hex() == expected["ticket_key"]
    assert (ticket.role.value, ticket.expires_ms) == (expected["role"], expected["expires_ms"])
    assert list(ticket.addresses) == expected["addresses"]
    network_keys = decode_recovery_code(expected["recovery_code"])
    assert network_keys.seed.hex() == given["seeds"]["network"]
    assert network_keys == KeyPair.from_seed(network_keys.seed)


def test_verdicts_name_the_reason() -> None:
    case = next(case for case in stories() if case.title == "a member revokes, invites and grants")
    assert verdicts(members(*case.said), case.said[0]) == ["invalid: not_admin"] * 3
