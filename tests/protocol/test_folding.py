import math
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.folding import CannotFold, Fold, is_same
from protocol.schema import Field, FieldType
from protocol.schema_check import Fault, check_of
from protocol.schema_field import INTEGER_MAX, STRING_SIZE_MAX_BYTES
from protocol.schema_strategy import MERGES
from tests.protocol import strategies
from tests.protocol.schema_strategies import OPTIONS, posted_value

PAIRS = [(kind, merge) for merge, kinds in MERGES.items() for kind in sorted(kinds)]


def field(kind: FieldType | str, merge: str, **attributes: Any) -> Field:
    kind = FieldType(kind)
    options = OPTIONS if kind is FieldType.ENUM else ()
    return Field("f", kind, **{"merge": merge, "options": options, **attributes})


def folded(kind: str, merge: str, *values: Any, base: Any = None, **attributes: Any) -> Any:
    return Fold(field(kind, merge, **attributes))(values, base)


@pytest.mark.parametrize(
    ("kind", "merge", "values", "expected"),
    [
        ("integer", "max", [3, 7, 5], 7),
        ("integer", "min", [3, 7, 5], 3),
        ("number", "max", [0.5, -1], 0.5),
        ("date", "min", ["2030-01-02", "2029-12-31"], "2029-12-31"),
        (
            "datetime",
            "max",
            ["2023-12-31T00:00:00.000Z", "2023-12-31T00:00:00.001Z"],
            "2023-12-31T00:00:00.001Z",
        ),
        ("string", "max", ["b", "ä", "a"], "ä"),
        ("boolean", "max", [False, True], True),
        ("boolean", "min", [False, True], False),
        ("enum", "max", ["DONE", "IN_PROGRESS"], "DONE"),
        ("enum", "min", ["DONE", "IN_PROGRESS"], "IN_PROGRESS"),
        ("json", "union", [["a", {"x": 1}], [{"x": 1.0}, "b", "a"]], ["a", {"x": 1}, "b"]),
        ("json", "union", [{"a": 1, "b": 1}, {"b": 2, "c": 3}], {"a": 1, "b": 2, "c": 3}),
        ("set", "union", [["b"], ["a", "b"]], ["a", "b"]),
        ("string", "concat", ["ab", "cd", "ab"], "abcd"),
        ("json", "concat", [[1, 2], [2, 3]], [1, 2, 2, 3]),
        ("integer", "max", [None, 3], 3),
        ("string", "concat", [None, None], None),
    ],
)
def test_values_are_folded_as_the_field_says(kind: str, merge: str, values: list[Any], expected: Any) -> None:
    assert folded(kind, merge, *values) == expected


def test_options_are_ordered_as_the_definition_lists_them() -> None:
    assert folded("enum", "max", "done", "open", options=("open", "done")) == "done"
    assert folded("enum", "max", "done", "open", options=("done", "open")) == "open"


def test_a_sum_adds_what_each_side_added_to_the_common_value() -> None:
    assert folded("integer", "sum", 12, 11, base=10) == 13
    assert folded("integer", "sum", 11, 11, base=10) == 12
    assert folded("integer", "sum", 3, 4) == 7
    assert folded("integer", "sum", None, 12, base=10) == 2
    assert folded("number", "sum", 10.5, 11, base=10) == 11.5


def test_a_sum_is_exact_before_it_is_rounded() -> None:
    tenths = [0.1] * 10
    assert folded("number", "sum", *tenths) == 1.0 != sum(tenths)
    assert folded("number", "sum", 1e16, 1.0, -1e16) == 1.0


@given(st.lists(st.floats(-1e100, 1e100) | st.integers(-(2**60), 2**60), min_size=1), st.integers(0, 2**32))
def test_a_sum_is_the_same_in_every_order(values: list[float], seed: int) -> None:
    shuffled = list(values)
    Random(seed).shuffle(shuffled)
    one, other = folded("number", "sum", *values, base=0.1), folded("number", "sum", *shuffled, base=0.1)
    assert one == other


@pytest.mark.parametrize(
    ("kind", "merge", "values", "attributes"),
    [
        ("integer", "sum", [INTEGER_MAX, 1], {}),
        ("integer", "sum", [6, 6], {"maximum": 10}),
        ("number", "sum", [1.7e308, 1.7e308], {}),
        ("string", "concat", ["abc", "def"], {"maximum": 5}),
        ("string", "concat", ["a" * STRING_SIZE_MAX_BYTES, "b"], {}),
        ("json", "union", [[1], {"a": 1}], {}),
        ("json", "concat", [{"a": 1}, {"b": 1}], {}),
        ("json", "concat", ["a", ["b"]], {}),
        ("integer", "max", ["a", "b"], {}),
        ("integer", "max", [None, None], {"required": True}),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_the_field_would_not_allow_is_not_folded(
    kind: str, merge: str, values: list[Any], attributes: dict[str, Any]
) -> None:
    with pytest.raises(CannotFold):
        folded(kind, merge, *values, **attributes)


def test_a_value_that_the_field_does_not_allow_spoils_nothing() -> None:
    assert folded("integer", "sum", 11, "garbage", base=10) == 11
    assert folded("integer", "sum", 11, 12, base="garbage") == 23
    assert folded("json", "union", ["a"], math.nan, ["b"]) == ["a", "b"]


@pytest.mark.parametrize("kind", sorted({kind for kind, _ in PAIRS}))
@given(data=st.data())
def test_a_folded_value_is_one_that_the_field_allows(kind: FieldType, data: st.DataObject) -> None:
    value = posted_value(field(kind, "")) | st.none()
    values, base = data.draw(st.lists(value, min_size=1, max_size=4)), data.draw(value)
    for tested in (field(*pair) for pair in PAIRS if pair[0] is kind):
        try:
            result = Fold(tested)(values, base)
        except CannotFold:
            continue
        assert result is None or not isinstance(check_of(tested)(result), Fault), tested.merge


@given(values=st.lists(strategies.values, min_size=1, max_size=4), base=strategies.values)
def test_no_values_that_a_body_can_hold_break_a_fold(values: list[Any], base: Any) -> None:
    for kind, merge in PAIRS:
        try:
            Fold(field(kind, merge))(values, base)
        except CannotFold:
            pass


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (1, 1.0, True),
        (0.0, -0.0, True),
        (1, True, False),
        (0, False, False),
        (True, True, True),
        (None, False, False),
        (2**53 + 1, float(2**53), False),
        ([1, [0]], [1.0, [False]], False),
        ([1], [1, 1], False),
        ({"a": 1, "b": None}, {"b": None, "a": 1.0}, True),
        ({"a": 1}, {"a": True}, False),
        ({"a": 1}, {"b": 1}, False),
        ("é", "e\u0301", False),
        ("1", 1, False),
        ([], {}, False),
    ],
    ids=repr,
)
def test_values_are_the_same_as_an_application_sees_them(one: Any, other: Any, same: bool) -> None:
    assert is_same(one, other) == is_same(other, one) == same


@given(strategies.values, strategies.values, strategies.values)
def test_being_the_same_is_an_equivalence(one: Any, other: Any, third: Any) -> None:
    assert is_same(one, one)
    assert is_same(one, other) == is_same(other, one)
    if is_same(one, other) and is_same(other, third):
        assert is_same(one, third)
