from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.body import (
    ERASURE,
    Body,
    Dot,
    Kind,
    Operation,
    Stub,
    body_hash,
    decode_body,
    decode_stub,
    document_named,
    name_in,
    stub_of,
)
from protocol.encoding import encode
from protocol.errors import Malformed, ProtocolError, TooLarge
from protocol.limits import (
    BODIES_PER_COMMIT_MAX,
    BODY_SIZE_MAX_BYTES,
    CLIENT_NUMBER_MAX,
    NAME_LENGTH_MAX,
    OPERATIONS_PER_BODY_MAX,
    SEEN_PER_BODY_MAX,
    TEXT_LENGTH_MAX,
)
from protocol.yjs_update import Struct, Update, encode_update
from tests.protocol import strategies
from tests.protocol.strategies import AUTHORS
from tests.protocol.world import MODEL

AUTHOR = AUTHORS[0]
OTHER, THIRD = sorted(AUTHORS[2:])
SALT = b"sixteen bytes..."
SET_TITLE: Operation = [Kind.SET.value, {"title": "x"}]


def body_of(*operations: Any, seen: tuple[Dot, ...] = (), **parts: Any) -> Body:
    whole: dict[str, Any] = {"salt": SALT, "user": "ann", "model": MODEL, "id": "one"} | parts
    return Body(**whole, seen=seen, operations=list(operations or [SET_TITLE]))


def parts_of(body: Body) -> list[Any]:
    """A body as nested lists, dots of `AUTHOR` in short."""
    dots = [list(dot[1:]) if dot.author == AUTHOR else list(dot) for dot in body.seen]
    return [body.salt, body.user, body.model, body.id, dots, body.operations]


# -- codec ---------------------------------------------------------------------------------------------------


@given(strategies.bodies(), st.sampled_from(AUTHORS))
def test_a_body_decodes_to_what_was_encoded_and_encodes_to_the_same_bytes(body: Body, author: bytes) -> None:
    data = body.encode(author)
    decoded = decode_body(data, author)
    assert decoded == body
    assert repr(decoded) == repr(body)  # 1 is not 1.0 and 0.0 not -0.0
    assert decoded.encode(author) == data


@given(strategies.bodies())
def test_a_body_put_together_by_hand_is_what_the_library_writes(body: Body) -> None:
    assert body.encode(AUTHOR) == encode(parts_of(body))


@given(st.binary(max_size=100))
def test_any_bytes_are_a_body_or_a_protocol_error(data: bytes) -> None:
    try:
        decode_body(data, AUTHOR)
    except ProtocolError:
        pass


@given(strategies.bodies(), st.data())
def test_odd_structures_are_a_body_or_a_protocol_error(body: Body, data: st.DataObject) -> None:
    odd = encode(data.draw(strategies.mangled(parts_of(body))))
    try:
        decoded = decode_body(odd, AUTHOR)
    except ProtocolError:
        return
    decoded.check()
    assert decode_body(decoded.encode(AUTHOR), AUTHOR) == decoded


@given(strategies.bodies(), st.data())
def test_a_flipped_byte_changes_the_hash_of_a_body(body: Body, data: st.DataObject) -> None:
    encoded = body.encode(AUTHOR)
    flipped = bytearray(encoded)
    flipped[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
    assert body_hash(bytes(flipped)) != body_hash(encoded)


@given(strategies.bodies(unknown=False), strategies.unknown_operations, st.integers(0, 3))
def test_a_kind_of_a_newer_release_is_kept_and_told(body: Body, unknown: Operation, place: int) -> None:
    assert body.is_understood
    body.operations.insert(place, unknown)
    assert not decode_body(body.encode(AUTHOR), AUTHOR).is_understood


def test_dots_of_the_same_author_are_written_in_short() -> None:
    body = body_of(seen=tuple(sorted([Dot(AUTHOR, 3, 1), Dot(OTHER, 2, 0)])))
    assert [3, 1] in parts_of(body)[4] and [OTHER, 2, 0] in parts_of(body)[4]
    assert decode_body(body.encode(OTHER), OTHER).seen == body.seen
    long = parts_of(body)
    long[4] = [list(dot) for dot in body.seen]
    with pytest.raises(Malformed):
        decode_body(encode(long), AUTHOR)


# -- rules ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "operation",
    [
        [False, {"title": "x"}],  # false, true and floats are equal to kinds
        [0.0, {"title": "x"}],
        [True, "tags", ["x"]],
        [2.0, "tags", ["x"]],
        [4.0],
        [True],
        [],
        0,
        {},
        None,
        "set",
        [None],
        ["0", {}],
        [-1],
        [256],
        [2**64],
        [0],
        [0, {}],
        [0, {}, 1],
        [0, {"title": "x"}, 1],
        [0, [["title", "x"]]],
        [0, {"": 1}],
        [0, {"x" * (TEXT_LENGTH_MAX + 1): 1}],
        [0, {b"title": 1}],
        [0, {"title": b"bytes"}],
        [0, {"title": 2**63}],
        [0, {"title": float("nan")}],
        [0, {"title": [float("inf")]}],
        [0, {"title": {b"a": 1}}],
        [1, "tags"],
        [1, "tags", []],
        [1, "tags", {}],
        [1, "tags", "xy"],
        [1, "", ["x"]],
        [1, 7, ["x"]],
        [1, "tags", ["x"], 1],
        [1, "tags", [["x"]]],
        [1, "tags", [{}]],
        [1, "tags", [b"x"]],
        [2, "tags", [float("nan")]],
        [2, "tags", [2**63]],
        [3, "count"],
        [3, "count", 1.0],
        [3, "count", True],
        [3, "count", None],
        [3, "count", 2**63],
        [3, "", 1],
        [4, 1],
        [5, []],
        [7, 2**64],
        [200, float("nan")],
        [7, {b"a": 1}],
    ],
    ids=repr,
)
def test_operations_that_are_malformed(operation: Any) -> None:
    for operations in ([operation], [SET_TITLE, operation]):
        with pytest.raises(Malformed):
            decode_body(encode(parts_of(body_of(*operations))), AUTHOR)
        with pytest.raises(Malformed):
            body_of(*operations).encode(AUTHOR)


INSERT = encode_update(Update(7, (Struct(0, 1, None, None, "x"),), ()), "body")
APPEND = encode_update(Update(7, (Struct(0, 1, None, None, [b"\x01"]),), ()), "steps")


def test_collaborative_operations_are_kept_byte_by_byte() -> None:
    body = body_of([8, "body", 0, INSERT], [9, "steps", CLIENT_NUMBER_MAX, APPEND], SET_TITLE)
    assert decode_body(body.encode(AUTHOR), AUTHOR) == body
    assert body.is_shared and body.is_understood and not body_of(SET_TITLE).is_shared


@pytest.mark.parametrize(
    "operations",
    [
        [[8]],
        [[8, "body", 0]],
        [[8, "body", 0, INSERT, 1]],
        [[8, "", 0, INSERT]],
        [[8, "body", -1, INSERT]],
        [[8, "body", CLIENT_NUMBER_MAX + 1, INSERT]],
        [[8, "body", True, INSERT]],
        [[8, "body", 0, "text"]],
        [[8, "other", 0, INSERT]],
        [[9, "body", 0, INSERT]],
        [[8, "steps", 0, APPEND]],
        [[8, "body", 0, b"\0\0"]],
        [[8, "body", 0, INSERT], [8, "body", 1, INSERT]],
    ],
    ids=repr,
)
def test_collaborative_operations_that_are_malformed(operations: list[Any]) -> None:
    with pytest.raises(Malformed):
        decode_body(encode(parts_of(body_of(*operations))), AUTHOR)
    with pytest.raises(Malformed):
        body_of(*operations).encode(AUTHOR)


@pytest.mark.parametrize("number", [24, 16, 255], ids=["undefined", "simple 16", "simple 255"])
def test_simple_values_are_malformed_in_any_operation(number: int) -> None:
    simple = {24: b"\xf7", 16: b"\xf0", 255: b"\xf8\xff"}[number]
    for operation in ([0, {"title": "?"}], [1, "tags", ["?"]], [10, "?"], [10, ["?"]]):
        data = encode(parts_of(body_of(operation)))
        decode_body(data, AUTHOR)
        with pytest.raises(Malformed):
            decode_body(data.replace(b"\x61?", simple), AUTHOR)


@pytest.mark.parametrize(
    "dots",
    [
        [0],
        [[1]],
        [[1, 0, 0]],
        [[0, 0]],
        [[-1, 0]],
        [[True, 0]],
        [[1, False]],
        [[1.0, 0]],
        [[1, -1]],
        [[1, BODIES_PER_COMMIT_MAX]],
        [[2**63, 0]],
        [[2**64, 0]],
        [[OTHER[:39], 1, 0]],
        [[OTHER + b"\0", 1, 0]],
        [[OTHER.hex()[:40], 1, 0]],
        [[AUTHOR, 1, 0]],
        [[1, 0], [1, 0]],
        [[1, 0], [2, 0]],
        [[OTHER, 1, 0], [OTHER, 2, 0]],
        [[THIRD, 1, 0], [OTHER, 1, 0]],
        {},
        None,
    ],
    ids=repr,
)
def test_dots_that_are_malformed(dots: Any) -> None:
    parts = parts_of(body_of())
    parts[4] = dots
    with pytest.raises(Malformed):
        decode_body(encode(parts), AUTHOR)


@pytest.mark.parametrize(
    "parts",
    [
        {"salt": b""},
        {"salt": SALT + b"."},
        {"user": "x" * (TEXT_LENGTH_MAX + 1)},
        {"model": ""},
        {"model": "$"},
        {"model": "a b"},
        {"model": "a\0b"},
        {"model": "x" * (NAME_LENGTH_MAX + 1)},
        {"id": ""},
        {"id": "a\0b"},
        {"id": "a/b"},
        {"id": "ä"},
        {"id": "x" * (NAME_LENGTH_MAX + 1)},
    ],
    ids=repr,
)
def test_bodies_with_parts_that_are_malformed(parts: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        decode_body(encode(parts_of(body_of(**parts))), AUTHOR)
    with pytest.raises(Malformed):
        body_of(**parts).encode(AUTHOR)


@pytest.mark.parametrize("index", range(6))
@pytest.mark.parametrize("odd", [None, 1, 1.5, True, "text", b"bytes", [], {}], ids=repr)
def test_a_part_of_another_type_is_malformed(index: int, odd: Any) -> None:
    parts = parts_of(body_of())
    if type(odd) is type(parts[index]):
        return
    parts[index] = odd
    with pytest.raises(Malformed):
        decode_body(encode(parts), AUTHOR)


def test_text_with_half_a_surrogate_pair_is_malformed() -> None:
    for body in (body_of([0, {"title": "\ud800"}]), body_of([1, "tags", ["\udfff"]]), body_of(user="\ud800")):
        with pytest.raises(Malformed):
            body.encode(AUTHOR)


@pytest.mark.parametrize(
    "value", [(1, 2), [(1, 2)], {1: 2}, b"", object()], ids=lambda value: type(value).__name__
)
def test_a_value_that_would_come_back_as_another_is_malformed(value: Any) -> None:
    with pytest.raises(Malformed):
        body_of([0, {"title": value}]).encode(AUTHOR)


# -- limits --------------------------------------------------------------------------------------------------


def test_the_number_of_operations_is_limited() -> None:
    at_most = body_of(*[SET_TITLE] * OPERATIONS_PER_BODY_MAX)
    assert decode_body(at_most.encode(AUTHOR), AUTHOR) == at_most
    above = body_of(*[SET_TITLE] * (OPERATIONS_PER_BODY_MAX + 1))
    for operations in (above, above._replace(operations=[])):
        with pytest.raises(TooLarge):
            decode_body(encode(parts_of(operations)), AUTHOR)
        with pytest.raises(TooLarge):
            operations.encode(AUTHOR)


def test_the_number_of_authors_seen_is_limited() -> None:
    dots = tuple(Dot(number.to_bytes(40, "big"), 1, 0) for number in range(SEEN_PER_BODY_MAX + 1))
    at_most = body_of(seen=dots[1:])
    assert decode_body(at_most.encode(AUTHOR), AUTHOR) == at_most
    with pytest.raises(TooLarge):
        decode_body(encode(parts_of(body_of(seen=dots))), AUTHOR)
    with pytest.raises(TooLarge):
        body_of(seen=dots).encode(AUTHOR)


def test_the_size_of_a_body_is_limited() -> None:
    room = BODY_SIZE_MAX_BYTES - len(body_of([0, {"title": "x" * 70_000}]).encode(AUTHOR)) + 70_000
    at_most = body_of([0, {"title": "x" * room}])
    data = at_most.encode(AUTHOR)
    assert len(data) == BODY_SIZE_MAX_BYTES and decode_body(data, AUTHOR) == at_most
    above = body_of([0, {"title": "x" * (room + 1)}])
    with pytest.raises(TooLarge):
        above.encode(AUTHOR)
    with pytest.raises(TooLarge):
        decode_body(encode(parts_of(above)), AUTHOR)


def test_names_users_and_dots_at_their_limits_are_allowed() -> None:
    body = body_of(
        [0, {"x" * TEXT_LENGTH_MAX: 1}],
        seen=(Dot(AUTHOR, 2**63 - 1, BODIES_PER_COMMIT_MAX - 1),),
        user="é" * TEXT_LENGTH_MAX,
        model="$" + "m" * NAME_LENGTH_MAX,
        id="i" * NAME_LENGTH_MAX,
    )
    assert decode_body(body.encode(AUTHOR), AUTHOR) == body


def test_values_may_be_nested_32_deep_in_every_kind() -> None:
    deepest: Any = "leaf"
    for _ in range(32):
        deepest = [deepest]
    for operation in ([0, {"title": deepest}], [77, deepest]):
        body = body_of(operation)
        assert decode_body(body.encode(AUTHOR), AUTHOR) == body
        deeper = body_of([*operation[:1], {"title": [deepest]} if operation[0] == 0 else [deepest]])
        with pytest.raises(Malformed):
            deeper.encode(AUTHOR)
        with pytest.raises(Malformed):
            decode_body(encode(parts_of(deeper)), AUTHOR)


# -- what is left of a body ----------------------------------------------------------------------------------


@given(strategies.bodies(), st.sampled_from(AUTHORS))
def test_a_stub_proves_of_which_document_its_body_was(body: Body, author: bytes) -> None:
    data = body.encode(author)
    stub = stub_of(data)
    assert stub.document == (body.model, body.id) and stub.hash == body_hash(data)
    assert decode_stub(stub.encode()) == stub
    other = body._replace(id=body.id + "x") if len(body.id) < NAME_LENGTH_MAX else body._replace(id="x")
    assert Stub(stub.content, stub_of(other.encode(author)).name).hash != stub.hash
    for part in (
        body.salt,
        *(o[1].encode() for o in body.operations if len(o) > 1 and isinstance(o[1], str)),
    ):
        assert len(part) < 8 or part not in stub.encode()


@given(st.binary(max_size=60), st.booleans())
def test_any_bytes_have_a_hash_and_a_name_or_none(data: bytes, is_begun: bool) -> None:
    data = b"\x86\x50" + data if is_begun else data
    name = name_in(data)
    assert name in data and len(body_hash(data)) == 32
    try:
        body = decode_body(data, AUTHOR)
    except ProtocolError:
        return
    assert document_named(name) == (body.model, body.id)


@given(st.binary(max_size=60) | st.tuples(st.binary(max_size=40), st.binary(max_size=40)).map(encode))
def test_any_bytes_are_a_stub_or_malformed(data: bytes) -> None:
    try:
        stub = decode_stub(data)
    except Malformed:
        return
    assert stub.encode() == data and all(stub.document)


@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_a_name_is_found_whatever_the_width_of_the_lengths_before_it(width: int) -> None:
    data = body_of().encode(AUTHOR)
    head = 0x78 + width.bit_length() - 1
    wide = data[:18] + bytes([head]) + (data[18] & 31).to_bytes(width, "big") + data[19:]
    assert decode_body(wide, AUTHOR) == decode_body(data, AUTHOR)
    assert name_in(wide) == name_in(data) and body_hash(wide) != body_hash(data)


def test_an_erasure_stands_alone_and_has_seen_nothing() -> None:
    assert decode_body(body_of(*ERASURE).encode(AUTHOR), AUTHOR).is_erasure
    assert not body_of().is_erasure
    for odd in (body_of(SET_TITLE, *ERASURE), body_of(*ERASURE, seen=(Dot(AUTHOR, 1, 0),)), body_of([6, 0])):
        with pytest.raises(Malformed):
            odd.check()
