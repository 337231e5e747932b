"""Statements: what is written can be read, in one way only, and what cannot be read is refused."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.commit import NO_PREVIOUS, Dep, Header
from protocol.cuts import CUTS_PER_STATEMENT_MAX, Cut, Cuts
from protocol.encoding import decode, encode
from protocol.errors import BadSignature, Malformed, ProtocolError, TooLarge
from protocol.ids import NodeId, SpaceId
from protocol.roles import Rights, Role
from protocol.statements import (
    REVOKED_PER_RECOVERY_MAX,
    SPACES_PER_GRANT_MAX,
    Admit,
    Genesis,
    Grant,
    Invite,
    Recover,
    Revoke,
    StatementKind,
    Unknown,
    ask_admission,
    decode_genesis,
    decode_statement,
    encode_statement,
    is_proven_admission,
    is_proven_recovery,
    sign_recovery,
    statement_kind,
)
from tests.protocol.membership_world import GENESIS, LAST, SPACE, SYSTEM, keys, life, node, revoke

QUICK = settings(max_examples=100, deadline=None)
SALT = bytes(range(16))


def exactly(size: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=size, max_size=size)


nodes = exactly(32).map(NodeId)
rights = st.builds(
    Rights, st.sampled_from(Role), st.none() | st.frozensets(exactly(16).map(SpaceId), max_size=4)
)
cut = st.builds(Cut, exactly(16).map(SpaceId), exactly(8), st.integers(1, (1 << 63) - 1), exactly(32))
some_cuts = st.lists(cut, max_size=4, unique_by=lambda c: c[:2]).map(lambda found: Cuts(tuple(sorted(found))))
revocations = st.builds(Revoke, nodes, some_cuts)
statements = st.one_of(
    st.builds(Admit, exactly(32), nodes, exactly(64), exactly(64)),
    st.builds(Grant, nodes, rights),
    revocations,
    st.builds(
        Recover,
        st.lists(revocations, max_size=3, unique_by=lambda r: r.node).map(
            lambda found: tuple(sorted(found, key=lambda r: r.node))
        ),
        exactly(64),
    ),
    st.builds(Invite, exactly(32), rights, st.integers(0, (1 << 48) - 1)),
)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 300)
    | st.binary(max_size=4)
    | st.sampled_from([bytes(8), bytes(16), bytes(32), bytes(64)])
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=8,
)


@QUICK
@given(statements, exactly(16))
def test_what_is_written_can_be_read(
    statement: Admit | Grant | Revoke | Recover | Invite, salt: bytes
) -> None:
    body = encode_statement(statement, salt)
    assert decode_statement(body) == statement
    assert StatementKind(statement_kind(body)).name == type(statement).__name__.upper()


@QUICK
@given(statements, st.data())
def test_there_is_one_way_to_write_it(
    statement: Admit | Grant | Revoke | Recover | Invite, data: st.DataObject
) -> None:
    """A body that reads as the same statement with the same salt is the same body."""
    body = encode_statement(statement, SALT)
    place = data.draw(st.integers(0, len(body) - 1))
    other = body[:place] + data.draw(exactly(1)) + body[place + 1 :]
    try:
        read = decode_statement(other)
    except ProtocolError:
        return
    assert other == body or (read, decode(other)[0]) != (statement, SALT)


@settings(max_examples=300, deadline=None)
@given(st.integers(-1, 8) | values, st.lists(values, max_size=5))
def test_no_body_can_raise_anything_but_a_fault(kind: object, fields: list[object]) -> None:
    for body in (encode([SALT, kind, *fields]), encode(fields), encode(kind)):
        try:
            statement = decode_statement(body)
        except ProtocolError:
            continue
        assert not isinstance(statement, Genesis)
        if not isinstance(statement, Unknown):
            assert encode_statement(statement, SALT) == body


@QUICK
@given(st.binary(max_size=120))
def test_no_bytes_can_raise_anything_but_a_fault(data: bytes) -> None:
    for decoder in (decode_statement, statement_kind, decode_genesis):
        with pytest.raises(ProtocolError):
            decoder(data)


def test_a_kind_of_a_newer_release_is_withheld() -> None:
    assert decode_statement(encode([SALT, 6, {"any": ["thing"]}])) == Unknown(6)
    assert decode_statement(encode([SALT, 255])) == Unknown(255)
    for kind in (256, -1, True, 2.0, None):
        with pytest.raises(Malformed):
            decode_statement(encode([SALT, kind, bytes(32)]))


def test_everything_counted_has_a_limit() -> None:
    spaces = [number.to_bytes(16, "big") for number in range(SPACES_PER_GRANT_MAX + 1)]
    decode_statement(encode([SALT, 2, bytes(32), 1, spaces[1:]]))
    cuts = [[n.to_bytes(16, "big"), bytes(8), 1, bytes(32)] for n in range(CUTS_PER_STATEMENT_MAX + 1)]
    decode_statement(encode([SALT, 3, bytes(32), cuts[1:]]))
    revoked = [[number.to_bytes(32, "big"), []] for number in range(REVOKED_PER_RECOVERY_MAX + 1)]
    decode_statement(encode([SALT, 4, revoked[1:], bytes(64)]))
    shared = [[bytes(32), cuts[: len(cuts) // 2]], [b"\1" * 32, cuts[len(cuts) // 2 :]]]
    for fields in (
        [2, bytes(32), 1, spaces],
        [3, bytes(32), cuts],
        [4, revoked, bytes(64)],
        [4, shared, bytes(64)],
        [6, bytes(2 << 20)],
    ):
        with pytest.raises(TooLarge):
            decode_statement(encode([SALT, *fields]))


@pytest.mark.parametrize("field", range(6))
def test_a_genesis_is_its_founders_and_the_network_keys(field: int) -> None:
    fields = decode(GENESIS.body)
    assert decode_statement(GENESIS.body) == GENESIS == decode_genesis(GENESIS.body)
    other = {0: bytes([1]) * 16, 1: 2, 2: node("bob"), 3: node("bob"), 4: fields[4] + 1, 5: bytes(64)}
    with pytest.raises(BadSignature if field != 1 else Malformed):
        decode_genesis(encode([*fields[:field], other[field], *fields[field + 1 :]]))


# -- proofs --------------------------------------------------------------------------------------------------


def test_an_admission_is_proven_by_the_ticket_and_by_the_joiner() -> None:
    network = GENESIS.network_id
    good = ask_admission(keys("ticket of ann"), keys("joe"), network)
    assert is_proven_admission(good, network)
    assert not is_proven_admission(good, bytes(32))
    for_kim = ask_admission(keys("ticket of ann"), keys("kim"), network)
    by_bob = ask_admission(keys("ticket of bob"), keys("joe"), network)
    for forged in (
        Admit(good.ticket_key, for_kim.joiner, good.ticket_proof, for_kim.joiner_proof),
        Admit(by_bob.ticket_key, good.joiner, good.ticket_proof, by_bob.joiner_proof),
        Admit(by_bob.ticket_key, good.joiner, by_bob.ticket_proof, good.joiner_proof),
        Admit(good.ticket_key, for_kim.joiner, for_kim.ticket_proof, good.joiner_proof),
        Admit(good.ticket_key, good.joiner, good.joiner_proof, good.ticket_proof),
    ):
        assert not is_proven_admission(forged, network)


def test_a_recovery_means_something_in_its_own_commit_only() -> None:
    last = LAST["bob"].commit
    dep = Dep(False, LAST["ann"].read.author, 4, LAST["ann"].commit.hash[:16])
    header = Header(SYSTEM, last.header.author, 2, last.hash, 5, (dep,), ())
    body = sign_recovery(keys("network"), [revoke("dan"), revoke("cat", LAST["cat"])], SALT, header)
    recover = decode_statement(body)
    assert isinstance(recover, Recover)
    assert [each.node for each in recover.revoked] == sorted([node("dan"), node("cat")])
    network_key = GENESIS.network_key
    assert is_proven_recovery(body, recover, network_key, header)
    # What comes after the body may differ; all that says where it stands may not.
    assert is_proven_recovery(
        body, recover, network_key, Header(SYSTEM, header.author, 2, last.hash, 6, (dep,), (bytes(32),))
    )
    author = LAST["cat"].read.author
    for elsewhere in (
        Header(SPACE, header.author, 2, last.hash, 5, (dep,), ()),
        Header(SYSTEM, author, 2, last.hash, 5, (dep,), ()),
        Header(SYSTEM, header.author, 3, last.hash, 5, (dep,), ()),
        Header(SYSTEM, header.author, 2, NO_PREVIOUS, 5, (dep,), ()),
        Header(SYSTEM, header.author, 2, last.hash, 5, (), ()),
        Header(SYSTEM, header.author, 2, last.hash, 5, (dep._replace(seq=3),), ()),
    ):
        assert not is_proven_recovery(body, recover, network_key, elsewhere)
    assert not is_proven_recovery(body, recover, node("ann"), header)
    lenient = encode_statement(Recover(recover.revoked[:1], recover.proof), SALT)
    assert not is_proven_recovery(lenient, Recover(recover.revoked[:1], recover.proof), network_key, header)
    assert life(1) == header.author[-8:]
