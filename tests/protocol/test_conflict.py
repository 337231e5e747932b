from typing import Any

import pytest
from hypothesis import given

from protocol.body import Dot, Kind, Operation
from protocol.conflict import DELETED, conflicts, is_same
from protocol.document import Document
from tests.protocol import strategies
from tests.protocol.strategies import AUTHORS, Told, histories
from tests.protocol.test_document import built
from tests.protocol.world import MODEL

ANN, BOB, CLEO = AUTHORS[:3]
DELETE: Operation = [Kind.DELETE.value]


def set_to(**values: Any) -> Operation:
    return [Kind.SET.value, values]


def apart(*bodies: tuple[bytes, list[Operation]]) -> Document:
    """A document of bodies that did not see one another; the n-th at time n."""
    document = Document(MODEL, "one")
    for number, (author, operations) in enumerate(bodies, 1):
        document.apply(Dot(author, number, 0), number, f"user {number}", (), operations)
    return document


def test_values_that_did_not_see_each_other_are_listed_the_shown_one_last() -> None:
    document = apart((ANN, [set_to(t="a", u=1)]), (BOB, [set_to(t="b", v=1)]), (CLEO, [set_to(t="a")]))
    (conflict,) = conflicts(document)
    assert (conflict.model, conflict.id, conflict.field) == (MODEL, "one", "t")
    assert [(v.value, v.user, v.hlc) for v in conflict.values] == [
        ("a", "user 1", 1),
        ("b", "user 2", 2),
        ("a", "user 3", 3),
    ]
    assert [v.node for v in conflict.values] == [author[:32] for author in (ANN, BOB, CLEO)]
    assert document.values()["t"] == conflict.values[-1].value


def test_conflicts_come_in_the_order_of_fields() -> None:
    document = apart((ANN, [set_to(b=1, a=1, c=1)]), (BOB, [set_to(c=2, a=2, b=2)]))
    assert [conflict.field for conflict in conflicts(document)] == ["a", "b", "c"]


def test_the_same_value_twice_is_no_conflict() -> None:
    assert conflicts(apart((ANN, [set_to(t=[1, {"a": 1}])]), (BOB, [set_to(t=[1.0, {"a": 1}])]))) == []
    assert len(conflicts(apart((ANN, [set_to(t=[1])]), (BOB, [set_to(t=[True])])))) == 1


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


def test_a_delete_that_met_an_update_is_listed_with_what_it_hides() -> None:
    document = apart(
        (ANN, [set_to(t="a"), [Kind.ADD.value, "tags", ["x"]]]), (BOB, [DELETE]), (CLEO, [DELETE])
    )
    (conflict,) = conflicts(document)
    assert conflict.field == DELETED
    assert [v.value for v in conflict.values] == [{"t": "a", "tags": ["x"]}, None, None]


def test_deletes_alone_are_no_conflict() -> None:
    assert conflicts(apart((ANN, [DELETE]), (BOB, [DELETE]))) == []
    assert conflicts(apart((ANN, [DELETE]), (BOB, [DELETE, set_to(t=1)]))) == []


@given(histories())
def test_only_the_strategy_that_lists_conflicts_lists_them(history: list[Told]) -> None:
    document = built(history)
    assert conflicts(document, "lww") == []
    for conflict in conflicts(document, "crdt"):
        assert len(conflict.values) > 1


@given(histories())
def test_a_field_is_in_conflict_if_it_has_different_live_values(history: list[Told]) -> None:
    document = built(history)
    names = {name for layer in document.layers for name in layer.registers}
    listed = {conflict.field for conflict in conflicts(document)} - {DELETED}
    for name in names:
        live = [value for _, value in document.live_values(name)]
        assert (name in listed) == any(not is_same(a, b) for a in live for b in live)
