"""The genesis: what names a network, and who begins in it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.encoding import decode, encode
from protocol.errors import BadSignature, Malformed, ProtocolError
from protocol.ids import NodeId
from protocol.membership import (
    Genesis,
    Members,
    Role,
    StatementKind,
    decode_genesis,
    found_network,
    statement_kind,
)
from tests.protocol import strategies
from tests.protocol.world import keys_of

SALT = b"sixteen bytes..."
GENESIS = found_network(keys_of(1).public, keys_of(2), 1_000, SALT)


@given(st.binary(min_size=16, max_size=16), st.integers(0, 2**48 - 1), st.integers(1, 5), st.integers(1, 5))
def test_a_genesis_decodes_to_what_was_founded(salt: bytes, now_ms: int, founder: int, network: int) -> None:
    genesis = found_network(keys_of(founder).public, keys_of(network), now_ms, salt)
    assert decode_genesis(genesis.body) == genesis
    assert statement_kind(genesis.body) == StatementKind.GENESIS
    other = found_network(
        keys_of(founder).public, keys_of(network), now_ms, salt[:15] + bytes([salt[15] ^ 1])
    )
    assert other.network_id != genesis.network_id


@given(st.binary(max_size=200))
def test_any_bytes_are_a_genesis_or_a_protocol_error(data: bytes) -> None:
    for decoder in (decode_genesis, statement_kind):
        try:
            decoder(data)
        except ProtocolError:
            pass


@given(st.data())
def test_odd_structures_are_never_a_genesis(data: st.DataObject) -> None:
    odd = encode(data.draw(strategies.mangled(decode(GENESIS.body))))
    try:
        assert decode_genesis(odd).body == odd == GENESIS.body
    except ProtocolError:
        pass


@given(st.data())
def test_a_flipped_byte_of_a_genesis_is_detected(data: st.DataObject) -> None:
    flipped = bytearray(GENESIS.body)
    flipped[data.draw(st.integers(0, len(flipped) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ProtocolError):
        decode_genesis(bytes(flipped))


@pytest.mark.parametrize(
    ("index", "part"),
    [
        *[(0, salt) for salt in (b"", SALT + b".", "sixteen bytes...")],
        *[(1, kind) for kind in (False, 0.0, 1, None)],  # false and 0.0 would be a second form of one genesis
        *[(2, founder) for founder in (b"", bytes(31), bytes(33), None)],
        *[(4, created) for created in (-1, 2**48, True, 1_000.0, None)],
    ],
    ids=repr,
)
def test_a_genesis_with_an_odd_part_is_malformed(index: int, part: Any) -> None:
    parts = decode(GENESIS.body)
    parts[index] = part
    with pytest.raises(Malformed):
        decode_genesis(encode(parts))


def test_a_genesis_needs_the_proof_of_the_network_key_that_it_names() -> None:
    parts = decode(GENESIS.body)
    for index, odd in ((3, keys_of(3).public), (5, bytes(64)), (5, b""), (3, b""), (4, 1_001)):
        with pytest.raises(BadSignature):
            decode_genesis(encode([*parts[:index], odd, *parts[index + 1 :]]))


@pytest.mark.parametrize("kind", [0, 1, 4, 5, 255])
def test_a_statement_of_any_kind_tells_its_kind(kind: int) -> None:
    assert statement_kind(encode([SALT, kind, "anything", [b"else"]])) == kind


@pytest.mark.parametrize(
    "parts", [[SALT], [SALT, -1], [SALT, 256], [SALT, True], [SALT, 1.0], [b"", 1], [1, SALT], 1]
)
def test_statements_that_are_malformed(parts: Any) -> None:
    with pytest.raises(Malformed):
        statement_kind(encode(parts))


def test_the_founder_is_the_one_member_of_a_new_network() -> None:
    members = Members.of_genesis(GENESIS)
    assert members.role_of(keys_of(1).public) is Role.ADMIN
    assert members.role_of(keys_of(2).public) is None
    assert members.role_of(b"") is None


def test_networks_are_named_by_all_that_is_in_their_genesis() -> None:
    assert isinstance(GENESIS, Genesis) and len(GENESIS.network_id) == 32
    others = [
        found_network(NodeId(keys_of(3).public), keys_of(2), 1_000, SALT),
        found_network(keys_of(1).public, keys_of(3), 1_000, SALT),
        found_network(keys_of(1).public, keys_of(2), 1_001, SALT),
    ]
    assert len({GENESIS.network_id, *(other.network_id for other in others)}) == 4
