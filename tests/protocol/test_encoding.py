import struct
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from protocol.encoding import (
    check_value,
    decode,
    decode_exact,
    decode_strings,
    encode,
    encode_list,
    encode_text,
)
from protocol.errors import Malformed, TooLarge
from tests.protocol import strategies


@given(strategies.values)
def test_what_is_encoded_decodes_to_the_same(value: Any) -> None:
    assert _exactly(decode(encode(value))) == _exactly(value)
    assert encode(decode_exact(encode(value))) == encode(value)


@given(st.binary(max_size=80))
@example(bytes.fromhex("9bffffffffffffffff"))
@example(bytes.fromhex("5bffffffffffffffff"))
@example(bytes.fromhex("bbffffffffffffffff"))
def test_any_bytes_decode_or_are_malformed(data: bytes) -> None:
    for decoder in (decode, decode_exact, cut):
        try:
            decoder(data)
        except (Malformed, TooLarge):
            pass


@given(strategies.values, st.data())
def test_any_change_of_good_bytes_decodes_or_is_malformed(value: Any, data: st.DataObject) -> None:
    encoded = bytearray(encode([value, value]))
    for _ in range(data.draw(st.integers(1, 3))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    try:
        decode(bytes(encoded))
    except Malformed:
        pass


@given(strategies.odd_values)
def test_odd_values_decode_or_are_malformed(value: Any) -> None:
    data = encode(value)
    try:
        decode(data)
    except Malformed:
        pass


@given(strategies.values, st.binary(min_size=1, max_size=9))
def test_bytes_after_the_value_are_malformed(value: Any, more: bytes) -> None:
    for decoder in (decode, decode_exact):
        with pytest.raises(Malformed):
            decoder(encode(value) + more)


@given(strategies.values, st.integers(1, 9))
def test_a_value_that_is_cut_short_is_malformed(value: Any, lost: int) -> None:
    data = encode(value)
    with pytest.raises(Malformed):
        decode(data[: max(len(data) - lost, 0)])


# What the tags that a library may know are put on.
_TAGGED: list[Any] = [0, b"\1", "2026-01-01T00:00:00Z", [1, 2], {}, 1.5, ["a", b"b"]]


def test_no_tag_is_decoded_whatever_its_number() -> None:
    contents = [encode(item) for item in _TAGGED]
    for number in (*range(2_000), 43_000, 43_001, 51_997, 55_799, 2**32 - 1, 2**32, 2**64 - 1):
        head = bytes([0xC0 | number]) if number < 24 else b"\xdb" + number.to_bytes(8, "big")
        for content in contents if number < 300 else contents[:1]:
            with pytest.raises(Malformed):
                decode(head + content)
            with pytest.raises(Malformed):
                decode(b"\x81" + head + content)


@pytest.mark.parametrize(
    "hexadecimal",
    ["9f01ff", "5f4101ff", "7f6161ff", "bf616101ff", "ff", "81ff"],
    ids=["list", "bytes", "text", "map", "break", "break in a list"],
)
def test_indefinite_lengths_are_malformed(hexadecimal: str) -> None:
    with pytest.raises(Malformed):
        decode(bytes.fromhex(hexadecimal))


@pytest.mark.parametrize(
    "hexadecimal",
    ["a2616101616102", "a10101", "a1f601", "a1f501", "a1f93c0001", "a18001", "a1a001"],
    ids=["same key twice", "integer", "null", "true", "float", "list", "map"],
)
def test_map_keys_are_strings_and_differ(hexadecimal: str) -> None:
    with pytest.raises(Malformed):
        decode(bytes.fromhex(hexadecimal))


@pytest.mark.parametrize("hexadecimal", ["61ff", "62c080", "63eda080", "64f4908080", "62c3", "61c3"])
def test_text_is_utf_8(hexadecimal: str) -> None:
    with pytest.raises(Malformed):
        decode(bytes.fromhex(hexadecimal))


@pytest.mark.parametrize(
    "hexadecimal",
    ["1801", "190001", "1a00000001", "1b0000000000000001", "3800", "580161", "780161", "980101", "b801616101",
     "f93e00", "fa3fc00000", "f98000", "fa7f800000", "fb7ff8000000000001"],
)  # fmt: skip
def test_exact_decoding_knows_one_form_of_each_value(hexadecimal: str) -> None:
    decode(bytes.fromhex(hexadecimal))
    with pytest.raises(Malformed):
        decode_exact(bytes.fromhex(hexadecimal))


def test_nesting_is_bounded_before_it_costs_anything() -> None:
    for opening in (b"\x81", b"\xa1\x61a"):
        decode(opening * 40 + b"\0")
        for depth in (41, 100_000):
            with pytest.raises(Malformed):
                decode(opening * depth + b"\0")


def test_integers_are_written_in_the_shortest_form_and_floats_in_eight_bytes() -> None:
    assert encode([0, 23, 24, 255, 256, 2**32, -1]).hex() == "870017181818ff1901001b000000010000000020"
    for number in (0.0, 1.0, 1.5, 1e300):
        assert encode(number) == b"\xfb" + struct.pack(">d", number)


@given(strategies.texts | st.integers(0, 300).map(lambda size: "x" * size))
def test_a_text_put_together_by_hand_is_what_the_library_writes(text: str) -> None:
    assert encode_text(text) == encode(text)


@given(st.lists(strategies.values, max_size=23))
def test_a_list_put_together_by_hand_is_what_the_library_writes(items: list[Any]) -> None:
    assert encode_list(*map(encode, items)) == encode(items)


@given(st.lists(st.binary(max_size=300), max_size=30))
@example([b""] * 300)
@example([b"x" * 70_000, b""])
def test_a_list_of_byte_strings_is_cut_as_it_was_encoded(strings: list[bytes]) -> None:
    assert cut(encode(strings)) == strings


@given(st.binary(max_size=40))
def test_cutting_and_decoding_agree(data: bytes) -> None:
    try:
        strings = cut(data)
    except (Malformed, TooLarge):
        return
    assert decode_exact(data) == strings
    assert all(type(item) is bytes for item in strings)


@given(strategies.odd_values)
def test_only_lists_of_byte_strings_are_cut(value: Any) -> None:
    data = encode(value)
    if isinstance(value, list) and all(type(item) is bytes for item in value):
        assert cut(data) == value
    else:
        with pytest.raises(Malformed):
            cut(data)


@pytest.mark.parametrize("data", [b"\x83\x40", b"\x81\x5a\x7f\xff\xff\xffabc", b"\x98"])
def test_a_list_of_byte_strings_that_promises_more_than_there_is_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        cut(data)


@pytest.mark.parametrize(
    "hexadecimal", ["980140", "99000140", "815800", "81580161", "8159000161", "9f40ff", "815f40ff"]
)
def test_a_list_of_byte_strings_has_lengths_in_the_shortest_form(hexadecimal: str) -> None:
    with pytest.raises(Malformed):
        cut(bytes.fromhex(hexadecimal))


def test_the_length_of_a_list_of_byte_strings_is_limited() -> None:
    assert decode_strings(encode([b""] * 30), count_max=30) == [b""] * 30
    with pytest.raises(TooLarge):
        decode_strings(encode([b""] * 31), count_max=30)
    with pytest.raises(TooLarge):
        decode_strings(b"\x9b" + b"\xff" * 8, count_max=1 << 32)


@given(strategies.values)
def test_plain_values_are_allowed(value: Any) -> None:
    check_value(value)


@pytest.mark.parametrize(
    "value",
    [2**63, -(2**63) - 1, float("nan"), float("inf"), b"bytes", (1, 2), {1: 2}, {b"a": 1}, object(), {1},
     [[float("-inf")]], {"a": [b""]}],
)  # fmt: skip
def test_other_values_are_malformed(value: Any) -> None:
    with pytest.raises(Malformed):
        check_value(value)


def test_values_are_nested_at_most_32_deep() -> None:
    deepest: Any = []
    for _ in range(31):
        deepest = [deepest]
    check_value(deepest)
    check_value({"a": deepest[0]})
    for deeper in ([deepest], {"a": deepest}):
        with pytest.raises(Malformed):
            check_value(deeper)


def test_bytes_are_a_value_only_where_the_place_says_so() -> None:
    check_value([b"bytes", {"a": b""}], may_hold_bytes=True)


def _exactly(value: Any) -> Any:
    """`value` in a form in which 1, 1.0 and true differ, and 0.0 from -0.0."""
    if isinstance(value, list):
        return [_exactly(item) for item in value]
    if isinstance(value, dict):
        return [(key, _exactly(item)) for key, item in value.items()]
    return (type(value), str(value))


def cut(data: bytes) -> list[bytes]:
    return decode_strings(data, count_max=1_000)
