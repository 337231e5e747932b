"""The specification and its vectors against the code: byte for byte, and number by number."""

import json
import re
from typing import Any

import pytest

from protocol import (
    body,
    clock,
    commit,
    conflict,
    document,
    ids,
    integrate,
    keys,
    limits,
    sealed,
    statements,
    tickets,
    window,
    yjs_update,
)
from protocol.body import Dot, Kind, body_hash, decode_body, decode_stub, stub_of
from protocol.commit import decode_header, header_hash, make_commit, verify_signature
from protocol.document import Document
from protocol.encoding import decode, decode_exact
from protocol.errors import Malformed, ProtocolError
from protocol.integrate import RULES, Verdict
from protocol.membership import Role, StatementKind, decode_genesis
from protocol.window import decode_window
from tests.protocol.make_vectors import PATH, as_text
from tests.protocol.world import World

SPEC = (PATH.parent / "SPEC.md").read_text(encoding="utf-8")
VECTORS: dict[str, list[Any]] = json.loads(PATH.read_text(encoding="ascii"))
Case = dict[str, Any]


def raw(text: str) -> bytes:
    return bytes.fromhex(text)


def cases(section: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "case", VECTORS[section], ids=lambda case: case.get("odd") or case.get("malformed")
    )


# -- the vectors ---------------------------------------------------------------------------------------------


def test_the_vectors_are_made_again_byte_for_byte() -> None:
    assert as_text() == PATH.read_text(encoding="ascii")


@cases("encoding")
def test_encoding(case: Case) -> None:
    data = raw(case["bytes"])
    if "malformed" in case:
        for decoder in (decode, decode_exact):
            with pytest.raises(Malformed):
                decoder(data)
        return
    assert repr(decode(data)) == repr(case["value"])
    if case["exact"]:
        assert repr(decode_exact(data)) == repr(case["value"])
    else:
        with pytest.raises(Malformed):
            decode_exact(data)


@cases("signatures")
def test_signatures(case: Case) -> None:
    accepted = keys.verify(raw(case["public"]), raw(case["message"]), raw(case["signature"]))
    assert accepted == case["accepted"]


@cases("bodies")
def test_bodies(case: Case) -> None:
    data, author = raw(case["bytes"]), raw(case["author"])
    if "malformed" in case:
        with pytest.raises(ProtocolError):
            decode_body(data, author)
        return
    decoded = decode_body(data, author)
    assert body_hash(data).hex() == case["hash"]
    stub = decode_stub(raw(case["stub"]))
    assert stub == stub_of(data) and stub.hash.hex() == case["hash"]
    assert stub.document == (decoded.model, decoded.id)
    assert (decoded.salt.hex(), decoded.user, decoded.id) == (case["salt"], case["user"], case["id"])
    assert [[dot.author.hex(), dot.seq, dot.index] for dot in decoded.seen] == case["seen"]


@cases("headers")
def test_headers(case: Case) -> None:
    data = raw(case["bytes"])
    if "malformed" in case:
        with pytest.raises(ProtocolError):
            decode_header(data)
        return
    header = decode_header(data)
    assert header_hash(data).hex() == case["hash"]
    assert verify_signature(header.author, raw(case["hash"]), raw(case["signature"]))
    assert (header.seq, header.hlc, header.previous.hex()) == (case["seq"], case["hlc"], case["previous"])
    deps = [[int(d.in_system), d.author.hex(), d.seq, d.hash_prefix.hex()] for d in header.deps]
    assert deps == case["deps"]


@cases("windows")
def test_windows(case: Case) -> None:
    data = raw(case["bytes"])
    if "refused" in case:
        with pytest.raises(ProtocolError):
            decode_window(data)
        return
    commits = [made for run in decode_window(data) for made in run.commits]
    assert [made.hash.hex() for made in commits] == [told["hash"] for told in case["commits"]]
    for made in commits:
        make_commit(made.header_bytes, made.bodies, made.signature, dict(made.stubs))


@cases("networks")
def test_networks(case: Case) -> None:
    genesis = decode_genesis(raw(case["body"]))
    assert genesis.network_id.hex() == case["network_id"]
    assert ids.space_id(genesis.network_id, "system").hex() == case["system"]


@cases("versions")
def test_versions(case: Case) -> None:
    made = Document("task", "one")
    for author, seq, index in case["vector"]:
        made.apply(Dot(raw(author), seq, index), seq, "", (), [[5]])
    assert made.version == case["version"]


@cases("integration")
def test_integration(case: Case) -> None:
    roles: dict[ids.NodeId, Role | None] = {
        ids.NodeId(raw(node)): Role(role) for node, role in case["roles"].items()
    }
    world = World(roles=roles, role_of_others=None)
    for step in case["steps"]:
        for run in decode_window(raw(step["window"])):
            outcome = world.receive(run.commits[-1])
        assert type(outcome).__name__.lower() == step["outcome"]
        if isinstance(outcome, integrate.Integrated):
            assert [entry.verdict for entry in outcome.entries] == step["verdicts"]
    for told in case["documents"]:
        made = world.documents[ids.SpaceId(raw(told["space"])), told["model"], told["id"]]
        assert (made.exists, made.version, made.values()) == (told["exists"], told["version"], told["values"])
        assert made.erased_hlc == told["erased"]
    assert len(world.documents) == len(case["documents"])


def test_the_vectors_hold_what_each_rule_refuses_and_every_verdict() -> None:
    steps = [step for case in VECTORS["integration"] for step in case["steps"]]
    assert {step["outcome"] for step in steps} == {"integrated", "waiting", "known", "fork", "refused"}
    assert {step["rule"] for step in steps if "rule" in step} == set(RULES)
    seen = {verdict for step in steps for verdict in step.get("verdicts", ())}
    assert seen == set(Verdict) - {Verdict.EARLY}  # it depends on more than bytes


# -- the specification ---------------------------------------------------------------------------------------


def rows(heading: str) -> list[list[str]]:
    """The cells of the table below a heading that begins so."""
    below = SPEC.split(f"\n## {heading}", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in below.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_every_limit_of_the_specification_is_that_of_the_code() -> None:
    told = {name: int(number.replace(",", "")) for name, number in rows("14. Limits")}
    local = {"INSTANCE_ID_LENGTH_MAX", "APPLICATION_ID_LENGTH_MAX"}  # of what the API gives out
    agreed = {name: value for name, value in vars(limits).items() if name.isupper() and name not in local}
    assert told == agreed


def test_every_domain_of_the_specification_is_that_of_the_code() -> None:
    told = set(re.findall(r'"(civicnode [a-z]+ \d)\\0"', SPEC))
    sources = [
        module.__file__
        for module in (body, commit, conflict, document, ids, sealed, statements, tickets, window, yjs_update)
    ]
    used: set[str] = set()
    for source in sources:
        assert source is not None
        with open(source, encoding="utf-8") as text:
            used |= set(re.findall(r'b"(civicnode [a-z]+ \d)\\0"', text.read()))
    assert told == used


def test_kinds_verdicts_and_rules_of_the_specification_are_those_of_the_code() -> None:
    operations = {int(row[0]): row[1] for row in rows("6. Bodies")}
    assert operations == {kind.value: kind.name for kind in Kind}
    kinds = {int(row[0]): row[1].removesuffix(", reserved").upper() for row in rows("10. Networks")}
    assert kinds == {kind.value: kind.name for kind in StatementKind}
    assert {row[0].strip("`") for row in rows("11. Integration")} == set(Verdict)
    assert set(re.findall(r"\*\*Refused\*\* `(\w+)`", SPEC)) == set(RULES)
    assert all(f"`{role}`" in SPEC for role in Role)


def test_sizes_of_the_specification_are_those_of_the_code() -> None:
    for name, size in (("node id", ids.NODE_ID_BYTES), ("incarnation", ids.INCARNATION_BYTES),
                       ("author", ids.AUTHOR_BYTES), ("space id", ids.SPACE_ID_BYTES)):  # fmt: skip
        (row,) = (row for row in rows("2. Identifiers") if row[0] == name)
        assert f"bytes({size})" in row[1]
    assert f"[{commit.VERSION}, space({ids.SPACE_ID_BYTES}), node({ids.NODE_ID_BYTES})" in SPEC
    assert f"previous({body.HASH_BYTES})" in SPEC
    assert f"hash prefix({commit.DEP_HASH_BYTES})" in SPEC
    assert f"[salt({body.SALT_BYTES}), user, model, id, seen, operations]" in SPEC
    assert f"signature({keys.SIGNATURE_BYTES})" in SPEC
    assert f"a counter in the lower {clock.COUNTER_BITS}" in SPEC


def test_every_section_of_the_vectors_is_described() -> None:
    assert [row[0].strip("`") for row in rows("16. Test vectors")] == list(VECTORS)
