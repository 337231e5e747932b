from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.body import body_hash
from protocol.clock import HLC_MAX
from protocol.commit import (
    NO_PREVIOUS,
    Dep,
    Header,
    check_bodies,
    decode_header,
    header_hash,
    make_commit,
    sign_commit,
    verify_signature,
)
from protocol.encoding import decode, encode
from protocol.errors import BrokenChain, Malformed, ProtocolError, TooLarge
from protocol.ids import Author
from protocol.limits import BODIES_PER_COMMIT_MAX, COMMIT_SIZE_MAX_BYTES, DEPS_PER_COMMIT_MAX
from tests.protocol import strategies
from tests.protocol.world import SPACE, author_number, keys_of

AUTHOR, OTHER, THIRD = author_number(1), *sorted([author_number(2), author_number(3)])
PREFIX = b"sixteen bytes..."
FIRST = Header(SPACE, AUTHOR, 1, NO_PREVIOUS, 1, (), ())
SECOND = replace(FIRST, seq=2, previous=b"\1" * 32)


_LISTS: list[Any] = [{}, None, [0], [[]], ""]


def parts_of(header: Header) -> list[Any]:
    parts = decode(header.encode())
    assert isinstance(parts, list)
    return parts


def with_part(header: Header, index: int, part: Any) -> bytes:
    parts = parts_of(header)
    parts[index] = part
    return encode(parts)


# -- codec ---------------------------------------------------------------------------------------------------


@given(strategies.headers())
def test_a_header_decodes_to_what_was_encoded_and_encodes_to_the_same_bytes(header: Header) -> None:
    data = header.encode()
    assert decode_header(data) == header
    assert decode_header(data).encode() == data


@given(st.binary(max_size=200))
def test_any_bytes_are_a_header_or_a_protocol_error(data: bytes) -> None:
    try:
        decode_header(data)
    except ProtocolError:
        pass


@given(strategies.headers(), st.data())
def test_odd_structures_are_a_header_or_a_protocol_error(header: Header, data: st.DataObject) -> None:
    odd = encode(data.draw(strategies.mangled(parts_of(header))))
    try:
        decoded = decode_header(odd)
    except ProtocolError:
        return
    assert decoded.encode() == odd  # equal headers have equal bytes, so one header has one hash


@given(strategies.headers(), st.data())
def test_a_flipped_byte_breaks_the_signature_or_the_form(header: Header, data: st.DataObject) -> None:
    keys = keys_of(1)
    commit = sign_commit(keys, replace(header, author=AUTHOR, deps=()), [])
    assert commit.signature is not None
    flipped = bytearray(commit.header_bytes)
    flipped[data.draw(st.integers(0, len(flipped) - 1))] ^= data.draw(st.integers(1, 255))
    assert verify_signature(AUTHOR, commit.hash, commit.signature)
    assert not verify_signature(AUTHOR, header_hash(bytes(flipped)), commit.signature)


def test_a_signature_is_that_of_the_author_s_node() -> None:
    commit = sign_commit(keys_of(1), FIRST, [])
    assert commit.signature is not None
    assert verify_signature(author_number(1, 9), commit.hash, commit.signature)
    assert not verify_signature(OTHER, commit.hash, commit.signature)


# -- rules ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("index", "part"),
    [
        *[(0, version) for version in (0, 2, True, 1.0, None, "1")],
        *[(1, space) for space in (b"", SPACE[:15], SPACE + b"\0", "the space of app", None)],
        *[(2, node) for node in (b"", AUTHOR[:31], AUTHOR[:33], None)],
        *[(3, incarnation) for incarnation in (b"", b"1234567", b"123456789", None)],
        *[(4, seq) for seq in (0, -1, True, 2.0, 2**63, 2**64, None, "2")],
        *[(5, previous) for previous in (b"", NO_PREVIOUS, b"\1" * 31, b"\1" * 33, None)],
        *[(6, hlc) for hlc in (0, -1, True, 1.0, HLC_MAX + 1, None)],
        *[(7, deps) for deps in _LISTS],
        *[(8, hashes) for hashes in [*_LISTS, [b""], [b"\1" * 31], ["x" * 32]]],
    ],
    ids=repr,
)
def test_headers_that_are_malformed(index: int, part: Any) -> None:
    with pytest.raises(Malformed):
        decode_header(with_part(SECOND, index, part))


@pytest.mark.parametrize("parts", [[], parts_of(SECOND)[:8], [*parts_of(SECOND), 0], {}, None, 0], ids=repr)
def test_a_header_has_nine_parts(parts: Any) -> None:
    with pytest.raises(Malformed):
        decode_header(encode(parts))


def test_a_first_header_has_no_previous_hash() -> None:
    assert decode_header(FIRST.encode()) == FIRST
    with pytest.raises(Malformed):
        decode_header(replace(FIRST, previous=b"\1" * 32).encode())


@pytest.mark.parametrize(
    "deps",
    [
        [[2, OTHER, 1, PREFIX]],
        [[-1, OTHER, 1, PREFIX]],
        [[False, OTHER, 1, PREFIX]],
        [[True, OTHER, 1, PREFIX]],
        [[0.0, OTHER, 1, PREFIX]],
        [[1.0, OTHER, 1, PREFIX]],
        [[0, OTHER[:39], 1, PREFIX]],
        [[0, OTHER + b"\0", 1, PREFIX]],
        [[0, OTHER, 0, PREFIX]],
        [[0, OTHER, True, PREFIX]],
        [[0, OTHER, 1.0, PREFIX]],
        [[0, OTHER, 2**63, PREFIX]],
        [[0, OTHER, 1, PREFIX[:15]]],
        [[0, OTHER, 1, PREFIX * 2]],
        [[0, OTHER, 1]],
        [[0, OTHER, 1, PREFIX, 0]],
        [[0, AUTHOR, 1, PREFIX]],
        [[0, OTHER, 1, PREFIX], [0, OTHER, 1, PREFIX]],
        [[0, OTHER, 1, PREFIX], [0, OTHER, 2, PREFIX]],
        [[0, THIRD, 1, PREFIX], [0, OTHER, 1, PREFIX]],
        [[1, OTHER, 1, PREFIX], [0, OTHER, 1, PREFIX]],
    ],
    ids=repr,
)
def test_deps_that_are_malformed(deps: Any) -> None:
    with pytest.raises(Malformed):
        decode_header(with_part(SECOND, 7, deps))


def test_an_author_s_own_chain_in_the_system_space_may_be_a_dep() -> None:
    header = replace(SECOND, deps=(Dep(False, OTHER, 1, PREFIX), Dep(True, AUTHOR, 1, PREFIX)))
    assert decode_header(header.encode()) == header


# -- limits --------------------------------------------------------------------------------------------------


def test_the_number_of_bodies_is_limited() -> None:
    hashes = tuple(number.to_bytes(32, "big") for number in range(BODIES_PER_COMMIT_MAX + 1))
    at_most = replace(SECOND, body_hashes=hashes[1:])
    assert decode_header(at_most.encode()) == at_most
    with pytest.raises(TooLarge) as caught:
        decode_header(replace(SECOND, body_hashes=hashes).encode())
    assert (caught.value.size, caught.value.size_max) == (BODIES_PER_COMMIT_MAX + 1, BODIES_PER_COMMIT_MAX)


def test_the_number_of_deps_is_limited() -> None:
    numbers = range(DEPS_PER_COMMIT_MAX + 1)
    deps = tuple(Dep(False, Author(number.to_bytes(40, "big")), 1, PREFIX) for number in numbers)
    at_most = replace(SECOND, deps=deps[1:])
    assert decode_header(at_most.encode()) == at_most
    with pytest.raises(TooLarge):
        decode_header(replace(SECOND, deps=deps).encode())


def test_numbers_at_their_limits_are_allowed() -> None:
    header = replace(SECOND, seq=2**63 - 1, hlc=HLC_MAX, deps=(Dep(True, OTHER, 2**63 - 1, PREFIX),))
    assert decode_header(header.encode()) == header


# -- bodies --------------------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=40), max_size=4), st.data())
def test_a_commit_holds_the_bodies_that_its_header_names(bodies: list[bytes], data: st.DataObject) -> None:
    header = replace(FIRST, body_hashes=tuple(map(body_hash, bodies)))
    made = sign_commit(keys_of(1), header, bodies)
    assert make_commit(made.header_bytes, bodies, made.signature) == made
    kept = [body if data.draw(st.booleans()) else None for body in bodies]
    assert make_commit(made.header_bytes, kept, None).bodies == tuple(kept)
    if bodies:
        place = data.draw(st.integers(0, len(bodies) - 1))
        with pytest.raises(BrokenChain):
            check_bodies(header, [*bodies[:place], bodies[place] + b"\0", *bodies[place + 1 :]])
        with pytest.raises(BrokenChain):
            check_bodies(header, kept[1:])
    with pytest.raises(BrokenChain):
        check_bodies(header, [*kept, None])


def test_the_size_of_a_commit_is_limited() -> None:
    bodies = [bytes(1 << 20)] * 16
    assert sum(map(len, bodies)) == COMMIT_SIZE_MAX_BYTES
    header = replace(FIRST, body_hashes=(*[body_hash(bodies[0])] * 16, body_hash(b"x")))
    check_bodies(header, [*bodies, None])
    with pytest.raises(TooLarge):
        check_bodies(header, [*bodies, b"x"])
