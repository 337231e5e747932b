from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pycrdt import Array, Doc, Map, Text

from protocol.encoding import encode
from protocol.errors import Malformed, ProtocolError, TooLarge
from protocol.limits import (
    CLIENTS_DELETED_FROM_MAX,
    ELEMENT_SIZE_MAX_BYTES,
    RANGES_PER_UPDATE_MAX,
    STRUCTS_PER_UPDATE_MAX,
    UNITS_PER_UPDATE_MAX,
)
from protocol.yjs_update import (
    Struct,
    Update,
    client_id,
    decode_update,
    encode_update,
    merged_ranges,
    units,
)
from tests.protocol.strategies import AUTHORS
from tests.protocol.yjs_strategies import updates

ONE = Struct(0, 1, None, None, "a")


def encoded(*structs: Struct, client: int = 7, deletes: Any = ()) -> bytes:
    return encode_update(Update(client if structs else -1, structs, deletes), "f")


def refused(data: bytes, *, is_text: bool = True, field: str = "f") -> str:
    with pytest.raises(ProtocolError) as caught:
        decode_update(data, field, is_text=is_text)
    return str(caught.value)


@given(st.data(), st.booleans())
def test_an_update_decodes_to_what_was_encoded(data: st.DataObject, is_text: bool) -> None:
    update = data.draw(updates(is_text=is_text))
    assert decode_update(encode_update(update, "f"), "f", is_text=is_text) == update


@given(st.data(), st.booleans())
def test_one_meaning_has_one_form_and_odd_bytes_raise_nothing_else(
    data: st.DataObject, is_text: bool
) -> None:
    mutated = bytearray(encode_update(data.draw(updates(is_text=is_text)), "f"))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(mutated)))
        match data.draw(st.sampled_from(["cut", "put", "set"])):
            case "cut":
                del mutated[place : place + data.draw(st.integers(1, 4))]
            case "put":
                mutated[place:place] = data.draw(st.binary(min_size=1, max_size=3))
            case "set" if place < len(mutated):
                mutated[place] = data.draw(st.integers(0, 255))
    try:
        update = decode_update(bytes(mutated), "f", is_text=is_text)
    except ProtocolError:
        return
    assert encode_update(update, "f") == bytes(mutated)


@given(st.binary(max_size=60))
@example(b"\x01" * 200)
def test_any_bytes_are_an_update_or_refused(data: bytes) -> None:
    try:
        decode_update(data, "f", is_text=True)
    except ProtocolError:
        pass


def test_what_the_library_writes_of_a_text_is_read() -> None:
    doc: Any = Doc(client_id=2**53 - 1)
    text = doc.get("f", type=Text)
    text += "ab😀c"
    update = decode_update(doc.get_update(), "f", is_text=True)
    assert update == Update(2**53 - 1, (Struct(0, 5, None, None, "ab😀c"),), ())
    del text[1:2]
    assert decode_update(doc.get_update(), "f", is_text=True) == Update(
        2**53 - 1,
        (
            Struct(0, 1, None, None, "a"),
            Struct(1, 1, (2**53 - 1, 0), None, None),
            Struct(2, 3, (2**53 - 1, 1), None, "😀c"),
        ),
        ((2**53 - 1, ((1, 1),)),),
    )


def test_the_library_takes_what_is_written() -> None:
    doc: Any = Doc(client_id=1)
    text, array = doc.get("f", type=Text), doc.get("g", type=Array)
    doc.apply_update(encoded(Struct(0, 3, None, None, "a😀"), Struct(3, 1, (7, 0), (7, 1), "b")))
    elements = [encode(1), encode({"b": 1.0, "a": [None]})]
    doc.apply_update(encode_update(Update(8, (Struct(0, 2, None, None, elements),), ()), "g"))
    assert str(text) == "ab😀"
    assert [bytes(element) for element in array] == elements


@pytest.mark.parametrize(
    "fill",
    [
        lambda doc: doc.get("f", type=Map).__setitem__("key", 1),
        lambda doc: doc.get("f", type=Array).append(1),
        lambda doc: doc.get("f", type=Array).append("text"),
        lambda doc: doc.get("f", type=Array).append([[]]),
        lambda doc: doc.get("f", type=Array).append(Text("nested")),
        lambda doc: doc.get("f", type=Array).append(Doc()),
        lambda doc: doc.get("f", type=Text).insert(0, "bold", {"b": True}),
        lambda doc: doc.get("f", type=Text).insert_embed(0, {"image": 1}),
        lambda doc: doc.get("other", type=Text).insert(0, "elsewhere"),
    ],
    ids=["map", "number", "string", "nested list", "nested type", "sub-document", "format", "embedded", "other field"],
)  # fmt: skip
@pytest.mark.parametrize("is_text", [True, False])
def test_contents_that_no_field_has_are_refused(fill: Any, is_text: bool) -> None:
    doc: Any = Doc(client_id=7)
    fill(doc)
    refused(doc.get_update(), is_text=is_text)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "cut short"),
        (b"\x00\x00", "does nothing"),
        (b"\x01\x00\x07\x00\x00", "without structs"),
        (b"\x02\x00\x00", "clients that an update writes as: 2"),
        (encoded(ONE) + b"\x00", "after the end"),
        (encoded(ONE)[:-1], "cut short"),
        (encoded(ONE._replace(content="")), "empty struct"),
        (encoded(Struct(0, 0, None, None, None)), "empty struct"),
        (encoded(ONE).replace(b"\x01f", b"\x01g"), "not the field"),
        (b"\x01\x01\x07\x00\x04\x00\x01\x00\x01a\x00", "not the field"),  # a parent that is a unit
        (b"\x01\x01\x07\x00\x24\x01\x01f\x01k\x01a\x00", "of a kind"),  # under a key of a map
        (b"\x01\x01\x07\x00\x00\x01\x01f\x01\x00", "of a kind"),  # collected
        (b"\x01\x01\x07\x00\x0a\x01\x01f\x01\x00", "of a kind"),  # a gap
        (b"\x01\x01\x07\x00\x02\x01\x01f\x01\x011\x00", "of a kind"),  # JSON
        (b"\x01\x01\x07\x00\x03\x01\x01f\x01\x00\x00", "of a kind"),  # binary
        (b"\x01\x01\x87\x00\x00\x04\x01\x01f\x01a\x00", "padded"),
        (b"\x01\x01" + b"\xff" * 7 + b"\x1f\x00\x04\x01\x01f\x01a\x00", "53 bits"),
        (b"\x01\x01" + b"\xff" * 200, "53 bits"),
        (b"\x01\x01\x07\x00\x04\x01\x01f\x02\xc3(\x00", "UTF-8"),
        (b"\x01\x01\x07\x00\x04\x01\x01f\x03\xed\xa0\x80\x00", "UTF-8"),  # half a surrogate pair
        (encoded(ONE._replace(clock=2**53 - 1)), "clock beyond"),
        (encoded(deletes=((7, ((0, 0),)),)), "empty range"),
        (encoded(deletes=((7, ()),)), "empty range"),
        (encoded(deletes=((7, ((2**53 - 1, 1),)),)), "53 bits"),
        (encoded(deletes=((7, ((4, 1), (0, 1))),)), "not in order"),
        (encoded(deletes=((7, ((0, 2), (2, 1))),)), "not in order"),
        (encoded(deletes=((7, ((0, 1),)), (7, ((4, 1),)))), "order of clients"),
        (encoded(deletes=((8, ((0, 1),)), (7, ((4, 1),)))), "order of clients"),
    ],
)
def test_bytes_that_break_the_layout_are_refused(data: bytes, what: str) -> None:
    assert what in refused(data)


@pytest.mark.parametrize(
    "element",
    [b"", b"\xff", b"\1\0", b"\x18\x01", b"\xc1\x01", b"\xf7", encode([b"bytes"]), b"\x81" * 40 + b"\0"],
)
def test_an_element_is_the_exact_encoding_of_a_value(element: bytes) -> None:
    refused(encoded(Struct(0, 1, None, None, [element])), is_text=False)


def test_sizes_and_counts_are_limited_before_anything_is_built() -> None:
    many = tuple(Struct(n, 1, (7, n - 1) if n else None, None, "a") for n in range(STRUCTS_PER_UPDATE_MAX))
    assert decode_update(encoded(*many), "f", is_text=True).structs == many
    more = (*many, Struct(STRUCTS_PER_UPDATE_MAX, 1, (7, 0), None, "a"))
    ranges = tuple((2 * n, 1) for n in range(RANGES_PER_UPDATE_MAX))
    assert decode_update(encoded(deletes=((7, ranges),)), "f", is_text=True).deletes == ((7, ranges),)
    half = ranges[: RANGES_PER_UPDATE_MAX // 2 + 1]
    large = [b"\x5a" + (ELEMENT_SIZE_MAX_BYTES).to_bytes(4, "big") + bytes(ELEMENT_SIZE_MAX_BYTES)]
    for data, is_text in [
        (encoded(*more), True),
        (encoded(Struct(0, UNITS_PER_UPDATE_MAX + 1, None, None, None)), True),
        (encoded(deletes=((7, half), (8, half))), True),
        (encoded(deletes=tuple((n, ((0, 1),)) for n in range(CLIENTS_DELETED_FROM_MAX + 1))), True),
        (encoded(Struct(0, 1, None, None, large)), False),
        (b"\x01\x01\x07\x00\x08\x01\x01f\xff\xff\xff\xff\x0f", False),
    ]:
        with pytest.raises(TooLarge):
            decode_update(data, "f", is_text=is_text)


def test_units_are_those_of_utf_16() -> None:
    assert [units(text) for text in ("", "ab", "é€", "😀", "a😀b")] == [0, 2, 2, 2, 4]


@given(st.sampled_from(AUTHORS), st.sampled_from(AUTHORS), st.integers(0, 3), st.integers(0, 3))
def test_a_client_id_is_one_authors_in_one_field(one: bytes, other: bytes, n: int, m: int) -> None:
    ids = {
        client_id(author, *place, number)
        for author in (one, other)
        for number in (n, m)
        for place in [("a", "b", "c"), ("ab", "", "c"), ("a", "bc", ""), ("a", "b", "d")]
    }
    assert len(ids) == 4 * len({one, other}) * len({n, m})
    assert all(0 <= id < 2**53 for id in ids)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 5))))
def test_merged_ranges_hold_the_same_and_lie_apart(ranges: list[tuple[int, int]]) -> None:
    merged = merged_ranges(ranges)
    assert {c + n for c, size in ranges for n in range(size)} == {
        c + n for c, size in merged for n in range(size)
    }
    assert all(a[0] + a[1] < b[0] for a, b in pairwise(merged))


def test_faults_are_told_apart_from_sizes() -> None:
    with pytest.raises(Malformed):
        decode_update(b"\x00\x00", "f", is_text=True)
