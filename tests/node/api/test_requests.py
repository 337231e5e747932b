import datetime
import enum
import json
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.api.errors import ApiError, ValidationFailed
from node.api.requests import FAULTS_MAX, faults_of, parse_json


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Step(msgspec.Struct):
    method: str
    times: int


class Order(msgspec.Struct, forbid_unknown_fields=True):
    email: str
    password: Annotated[str, msgspec.Meta(min_length=8)]
    stars: Annotated[int, msgspec.Meta(ge=1, le=5)]
    colour: Colour
    size: Literal["small", "large"]
    steps: list[Step]
    first: Step | None = None
    at: datetime.datetime | None = None
    tags: Annotated[list[str], msgspec.Meta(max_length=2)] = []
    weight: float | str = 0.0
    code: Annotated[str, msgspec.Meta(pattern="^[a-z]+$")] = "a"


GOOD: dict[str, Any] = {
    "email": "ada@example.org",
    "password": "long enough",
    "stars": 3,
    "colour": "red",
    "size": "small",
    "steps": [{"method": "GET", "times": 1}],
}


def test_a_good_body_becomes_its_struct() -> None:
    order = parse_json(json.dumps(GOOD).encode(), Order)
    assert order.colour is Colour.RED
    assert order.steps == [Step("GET", 1)]


def test_every_fault_is_named_at_once_and_in_plain_words() -> None:
    bad = {
        "email": 1,
        "password": "short",
        "stars": 9,
        "colour": "green",
        "size": 7,
        "steps": [{"method": 1}, {"method": "x", "times": 1.5}, 3],
        "first": {"times": "x"},
        "at": "yesterday",
        "tags": ["a", "b", "c"],
        "weight": True,
        "code": "1",
        "more": 1,
    }
    with pytest.raises(ValidationFailed) as caught:
        parse_json(json.dumps(bad).encode(), Order)
    assert caught.value.details == {
        "email": "Must be a text",
        "password": "Must be a text of at least 8 characters",
        "stars": "Must be an integer of 5 or less",
        "colour": "Invalid option. Must be one of: red, blue",
        "size": "Invalid option. Must be one of: small, large",
        "steps[0].method": "Must be a text",
        "steps[0].times": "This field is required",
        "steps[1].times": "Must be an integer",
        "steps[2]": "Must be an object",
        "first.method": "This field is required",
        "first.times": "Must be an integer",
        "at": "Invalid RFC3339 encoded datetime",
        "tags": "Must be a list of at most 2 items",
        "weight": "Must be a number or a text",
        "code": "Must be a text of the form ^[a-z]+$",
        "more": "Unknown field",
    }


def test_an_empty_object_lacks_every_required_field() -> None:
    faults = faults_of(Order, {})
    assert set(faults) == {"email", "password", "stars", "colour", "size", "steps"}
    assert set(faults.values()) == {"This field is required"}


def test_an_answer_names_a_bounded_number_of_faults() -> None:
    assert len(faults_of(Order, {"steps": [0] * 10_000})) == FAULTS_MAX


@pytest.mark.parametrize("struct", [None, Order])
@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"[]", "The body must be a JSON object"),
        (b"null", "The body must be a JSON object"),
        (b'"x"', "The body must be a JSON object"),
        (b"{", "The body is not valid JSON"),
        (b"{} x", "The body is not valid JSON"),
        (b"{'a': 1}", "The body is not valid JSON"),
        (b'{"a": NaN}', "The body is not valid JSON"),
        (b"\xef\xbb\xbf{}", "The body is not valid JSON"),
        (b'{"email": "\\ud800"}', "The body is not valid JSON"),
        (b'{"email": "\xff"}', "The body is not UTF-8 text"),
        (b'{"a": ' * 5_000 + b"1" + b"}" * 5_000, "The body is nested too deeply"),
        (b'{"a": 1e999}', "Number out of range"),
        (b'{"a": ' + b"9" * 5_000 + b"}", "Integer value out of range"),
    ],
)
def test_what_is_not_a_json_object_is_a_400(
    body: bytes, message: str, struct: type[msgspec.Struct] | None
) -> None:
    with pytest.raises(ApiError) as caught:
        parse_json(body, struct)
    assert caught.value.status == 400
    if not caught.value.details:  # with a struct, a fault inside may be found first
        assert caught.value.message.startswith(message)


def test_a_rule_about_the_whole_is_told_as_it_is() -> None:
    class Span(msgspec.Struct):
        start: int
        end: int

        def __post_init__(self) -> None:
            if self.end < self.start:
                raise ValueError("end comes before start")

    with pytest.raises(ApiError, match="end comes before start"):
        parse_json(b'{"start": 2, "end": 1}', Span)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*GOOD, "first", "at", "tags", "weight", "x"]), _json))
def test_an_object_has_faults_exactly_if_it_is_refused(content: dict[str, Any]) -> None:
    body = msgspec.json.encode({**GOOD, **content})
    try:
        parse_json(body, Order)
    except ApiError as error:
        assert error.status == 400
        assert error.details or error.message
    else:
        assert faults_of(Order, msgspec.json.decode(body)) == {}


@given(st.binary(max_size=60))
def test_no_body_raises_anything_but_a_400(body: bytes) -> None:
    for struct in (None, Order):
        try:
            parse_json(body, struct)
        except ApiError as error:
            assert error.status == 400
