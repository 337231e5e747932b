from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from protocol.ancestor import is_past
from protocol.body import Body, Dot, Kind, Operation
from tests.protocol.strategies import AUTHORS, Told, histories, reordered
from tests.protocol.tale import Tale, ancestry, before
from tests.protocol.world import MODEL

ANN, BOB, CLEO = AUTHORS[:3]
DELETE: Operation = [Kind.DELETE.value]
FIELDS = ("title", "done")


def said(author: bytes, seq: int, *operations: Operation, knowing: dict[bytes, int] | None = None) -> Told:
    """The only body of a commit whose author had integrated others' commits up to these."""
    known = {other: Dot(other, last, 0) for other, last in (knowing or {}).items()}
    body = Body(bytes(16), "", MODEL, "one", (), list(operations))
    return Told(Dot(author, seq, 0), seq, body, known)


def title(value: Any) -> Operation:
    return [Kind.SET.value, {"title": value}]


def found(history: list[Told], *dots: Dot) -> list[Any]:
    return [origin.value for origin in Tale(history).origins_of("title", dots)]


@given(histories(), st.data())
def test_what_is_found_is_what_looking_at_every_body_finds(history: list[Told], data: st.DataObject) -> None:
    dots = data.draw(st.lists(st.sampled_from([told.dot for told in history]), min_size=1, unique=True))
    for name in FIELDS:
        expected = ancestry(history, name, dots)
        by_dot = {origin.dot: origin for origin in Tale(history).origins_of(name, dots)}
        assert {dot: origin.value for dot, origin in by_dot.items()} == expected
        orders = [origin.order for origin in by_dot.values()]
        assert orders == sorted(orders)


@given(histories(), st.data(), st.integers(0, 2**32))
def test_the_order_of_arrival_makes_no_difference(
    history: list[Told], data: st.DataObject, seed: int
) -> None:
    dots = data.draw(st.lists(st.sampled_from([told.dot for told in history]), min_size=1, unique=True))
    other = reordered(history, Random(seed))
    for name in FIELDS:
        assert Tale(history).origins_of(name, dots) == Tale(other).origins_of(name, dots)


@given(histories(), st.data())
def test_one_body_is_past_to_another_as_the_graph_says(history: list[Told], data: st.DataObject) -> None:
    one, other = data.draw(st.sampled_from(history)), data.draw(st.sampled_from(history))
    assert is_past(Tale(history), one.dot, other.dot) == (other.dot in before(one, history))


def test_the_ancestor_is_what_both_sides_have_seen_and_not_what_one_side_wrote_on_the_way() -> None:
    history = [
        said(ANN, 1, title("base")),
        said(ANN, 2, title("only ann")),
        said(ANN, 3, title("ann")),
        said(BOB, 1, title("bob"), knowing={ANN: 1}),
    ]
    assert found(history, Dot(ANN, 3, 0), Dot(BOB, 1, 0)) == ["base"]


def test_a_field_that_neither_side_had_seen_comes_from_nothing() -> None:
    history = [said(ANN, 1, title("a")), said(BOB, 1, title("b"))]
    assert found(history, Dot(ANN, 1, 0), Dot(BOB, 1, 0)) == []


def test_what_was_deleted_before_the_sides_parted_is_no_ancestor() -> None:
    history = [
        said(ANN, 1, title("base")),
        said(ANN, 2, DELETE),
        said(ANN, 3, title("ann")),
        said(BOB, 1, title("bob"), knowing={ANN: 2}),
    ]
    assert found(history, Dot(ANN, 3, 0), Dot(BOB, 1, 0)) == []


def test_sides_that_have_both_seen_a_conflict_come_from_all_of_its_values() -> None:
    history = [
        said(ANN, 1, title("a")),
        said(BOB, 1, title("b")),
        said(ANN, 2, title("after a"), knowing={BOB: 1}),
        said(BOB, 2, title("after b"), knowing={ANN: 1}),
    ]
    assert found(history, Dot(ANN, 2, 0), Dot(BOB, 2, 0)) == ["a", "b"]


def test_history_is_read_no_further_than_the_last_body_that_knew_all_before_it() -> None:
    history = [said(ANN, seq, title(seq)) for seq in range(1, 101)]
    history += [said(BOB, 1, title("b"), knowing={ANN: 100}), said(CLEO, 1, title("c"), knowing={ANN: 100})]
    tale = Tale(history)
    (origin,) = tale.origins_of("title", [Dot(BOB, 1, 0), Dot(CLEO, 1, 0)])
    assert (origin.value, tale.reads) == (100, 1)
