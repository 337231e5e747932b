from collections.abc import Iterable
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.body import Body, Dot, Kind, Operation
from protocol.conflict import conflicts
from protocol.document import Document, wrapped
from protocol.encoding import decode, encode
from protocol.errors import Malformed
from protocol.ids import Author
from protocol.planning import Plan, plan_delete, plan_write
from tests.protocol import strategies
from tests.protocol.growth import cpu_s, grows_in_proportion
from tests.protocol.strategies import AUTHORS, Told, histories, reordered
from tests.protocol.world import MODEL, expected_document

ANN, BOB, CLEO = sorted(AUTHORS[1:])
SETS, COUNTERS = ("tags", "labels"), ("count", "votes")


def built(history: Iterable[Told]) -> Document:
    document = Document(MODEL, "one")
    for told in history:
        document.apply(told.dot, told.hlc, told.body.user, told.body.seen, told.body.operations)
    return document


def number_of(author: bytes) -> int:
    return AUTHORS.index(Author(author))


def told(
    author: bytes, seq: int, *operations: Operation, seen: Iterable[Dot] = (), hlc: int | None = None
) -> Told:
    """A body by hand; of its user nothing is said."""
    body = Body(bytes(16), "", MODEL, "one", tuple(seen), list(operations))
    return Told(Dot(author, seq, 0), seq if hlc is None else hlc, body, {})


def written(document: Document, author: bytes, plan: Plan, hlc: int) -> Document:
    """A copy of the document after the next body of an author."""
    after = document.copy()
    dot = Dot(author, document.vector.get(author, (0, 0))[0] + 1, 0)
    after.apply(dot, hlc, "zoe", plan.seen, plan.operations)
    return after


def set_to(**values: Any) -> Operation:
    return [Kind.SET.value, values]


def added(*elements: Any) -> Operation:
    return [Kind.ADD.value, "tags", list(elements)]


def removed(*elements: Any) -> Operation:
    return [Kind.REMOVE.value, "tags", list(elements)]


DELETE: Operation = [Kind.DELETE.value]
RESTORE: Operation = [Kind.RESTORE.value]


# -- merging -------------------------------------------------------------------------------------------------


@given(histories())
def test_a_document_is_what_no_later_body_took_away(history: list[Told]) -> None:
    expected = expected_document(MODEL, "one", [(item.dot, item.hlc, item.body) for item in history])
    assert built(history) == expected


@given(histories(), st.integers(0, 2**32))
def test_every_order_that_respects_causes_gives_the_same_document(history: list[Told], seed: int) -> None:
    here, there = built(history), built(reordered(history, Random(seed)))
    assert here == there
    assert (here.exists, here.version, here.values()) == (there.exists, there.version, there.values())
    assert list(here.values()) == list(there.values())
    assert conflicts(here) == conflicts(there)
    assert plan_delete(here) == plan_delete(there)


@given(histories(), histories())
def test_a_copy_changes_alone(history: list[Told], more: list[Told]) -> None:
    document = built(history)
    copy, shown = document.copy(), repr(document.values())
    for item in more:
        copy.apply(item.dot, item.hlc, item.body.user, item.body.seen, item.body.operations)
    assert document == built(history)
    assert repr(document.values()) == shown


@given(histories())
def test_looking_at_a_document_changes_nothing(history: list[Told]) -> None:
    document = built(history)
    for _ in range(2):
        document.values().clear()
        for name in SETS:
            document.elements(name).clear()
        conflicts(document)
        plan_write(document, {"title": 1, "tags": ["x"], "count": 3}, sets=SETS, counters=COUNTERS)
        document.to_state(number_of)
    assert document == built(history)


def test_values_that_did_not_see_each_other_stand_side_by_side_until_someone_has_seen_both() -> None:
    history = [told(ANN, 1, set_to(title="a")), told(BOB, 1, set_to(title="b"))]
    assert [value for _, value in built(history).live_values("title")] == ["a", "b"]
    both = [*history, told(CLEO, 1, set_to(title="c"), seen=[item.dot for item in history])]
    assert [value for _, value in built(both).live_values("title")] == ["c"]


def test_of_values_side_by_side_the_latest_is_shown_and_then_that_of_the_largest_author() -> None:
    assert built([told(ANN, 1, set_to(t="a"), hlc=2), told(BOB, 1, set_to(t="b"), hlc=1)]).values() == {
        "t": "a"
    }
    assert built([told(ANN, 1, set_to(t="a"), hlc=2), told(BOB, 1, set_to(t="b"), hlc=2)]).values() == {
        "t": "b"
    }


def test_a_write_that_has_seen_an_older_state_supersedes_only_that() -> None:
    history = [
        told(ANN, 1, set_to(t=1)),
        told(ANN, 2, set_to(t=2)),
        told(BOB, 1, set_to(t=3), seen=[Dot(ANN, 1, 0)]),
    ]
    assert [value for _, value in built(history).live_values("t")] == [3, 2]


def test_to_have_seen_a_body_is_to_have_seen_what_its_author_wrote_before() -> None:
    history = [
        told(ANN, 1, set_to(t=1)),
        told(ANN, 2, set_to(u=2)),
        told(BOB, 9, set_to(t=3), seen=[Dot(ANN, 2, 0)]),
    ]
    assert [value for _, value in built(history).live_values("t")] == [3]


def test_a_write_leaves_fields_alone_that_it_does_not_touch() -> None:
    first = told(ANN, 1, set_to(t=1, u=1), added("x"))
    assert built([first, told(BOB, 1, set_to(t=2), seen=[first.dot])]).values() == {
        "t": 2,
        "u": 1,
        "tags": ["x"],
    }


def test_an_element_that_is_added_while_it_is_removed_elsewhere_stays() -> None:
    first = told(ANN, 1, added("x", "y"))
    again, gone = (
        told(BOB, 1, added("x"), seen=[first.dot]),
        told(CLEO, 1, removed("x", "y"), seen=[first.dot]),
    )
    assert built([first, again, gone]).elements("tags") == ["x"]
    assert built([first, gone]).elements("tags") == []


def test_an_element_that_is_added_again_by_one_who_has_seen_it_is_held_by_the_new_body_alone() -> None:
    first = told(ANN, 1, added("x", "y"))
    document = built([first, told(BOB, 1, added("x"), seen=[first.dot])])
    assert [layer.sets["tags"] for layer in document.layers] == [["y"], ["x"]]


def test_operations_of_a_body_take_effect_in_their_order() -> None:
    assert built([told(ANN, 1, added("x", "y"), removed("x"))]).elements("tags") == ["y"]
    assert built([told(ANN, 1, removed("x"), added("x"))]).elements("tags") == ["x"]
    assert built([told(ANN, 1, set_to(t=1, u=1), set_to(t=2))]).values() == {"t": 2, "u": 1}
    assert built([told(ANN, 1, RESTORE, DELETE)]).exists is False
    first = told(ANN, 1, added("x"))
    assert built([first, told(BOB, 1, removed("x"), added("x"), seen=[first.dot])]).elements("tags") == ["x"]
    assert built([first, told(BOB, 1, added("x"), removed("x"), seen=[first.dot])]).elements("tags") == []


def test_elements_are_one_if_they_are_equal_and_both_or_neither_truth_values() -> None:
    document = built(
        [told(ANN, 1, added(1, True, 1.0, 0, False, -0.0, "1", None)), told(BOB, 1, added(2.0, 1, 2))]
    )
    assert repr(document.elements("tags")) == "[1, True, 0, False, '1', None, 2.0]"
    both = [Dot(ANN, 1, 0), Dot(BOB, 1, 0)]
    left = built([told(ANN, 1, added(1, True, 0.0)), told(CLEO, 1, removed(1.0, 0, 2**53 + 1), seen=both)])
    assert left.elements("tags") == [True]
    large = built([told(ANN, 1, added(2**53 + 1, float(2**53)))])
    assert large.elements("tags") == [2**53 + 1, float(2**53)]


def test_a_delete_that_meets_an_update_hides_the_document() -> None:
    first = told(ANN, 1, set_to(t=1))
    update, delete = told(BOB, 1, set_to(t=2), seen=[first.dot]), told(CLEO, 1, DELETE, seen=[first.dot])
    document = built([first, update, delete])
    assert not document.exists
    assert [value for _, value in document.live_values("t")] == [2]


def test_a_delete_that_has_not_seen_another_is_lifted_by_itself() -> None:
    first = told(ANN, 1, set_to(t=1))
    one, other = told(ANN, 2, DELETE, seen=[first.dot]), told(BOB, 1, DELETE, seen=[first.dot])
    back = told(CLEO, 1, RESTORE, set_to(t=2), seen=[one.dot])
    assert not built([first, one, other, back]).exists
    assert built([first, one, back]).values() == {"t": 2}


def test_a_delete_takes_away_what_its_own_body_said_before() -> None:
    document = built([told(ANN, 1, set_to(t=1), added("x"), DELETE, RESTORE, set_to(u=2))])
    assert document.exists and document.values() == {"u": 2}
    assert conflicts(built([told(ANN, 1, set_to(t=1), DELETE)])) == []


def test_a_restored_document_is_there_even_if_it_is_empty() -> None:
    document = built([told(ANN, 1, set_to(t=1)), told(ANN, 2, DELETE, seen=[Dot(ANN, 1, 0)])])
    assert not document.exists and document.values() == {}
    document = built([*[told(ANN, 1, set_to(t=1)), told(ANN, 2, DELETE, seen=[Dot(ANN, 1, 0)])],
                      told(BOB, 1, RESTORE, seen=[Dot(ANN, 2, 0)])])  # fmt: skip
    assert document.exists and document.values() == {}


@given(st.lists(strategies.int64s, max_size=8), st.randoms(use_true_random=False))
def test_counters_add_up_in_any_order_and_stay_within_64_bits(deltas: list[int], random: Any) -> None:
    history = [told(AUTHORS[n % 4], n + 1, [Kind.INCREMENT.value, "n", d]) for n, d in enumerate(deltas)]
    document = built(history)
    random.shuffle(history)
    assert built(history) == document
    total = document.values().get("n", 0)
    assert (total - sum(deltas)) % 2**64 == 0 and -(2**63) <= total < 2**63
    state = decode(encode(document.to_state(number_of)))
    assert Document.from_state(MODEL, "one", state, AUTHORS.__getitem__) == document


def test_fields_are_shown_in_one_order_whatever_order_they_came_in() -> None:
    history = [told(ANN, 1, [Kind.INCREMENT.value, "b", 1]), told(BOB, 1, [Kind.INCREMENT.value, "a", 1])]
    history += [told(CLEO, 1, set_to(z=1), hlc=5), told(ANN, 2, set_to(y=1), hlc=4)]
    for order in (history, history[::-1]):
        assert list(built(order).values()) == ["y", "z", "a", "b"]


@pytest.mark.parametrize(
    ("number", "expected"), [(2**63, -(2**63)), (-(2**63) - 1, 2**63 - 1), (5, 5), (-1, -1)]
)
def test_numbers_wrap_around_at_64_bits(number: int, expected: int) -> None:
    assert wrapped(number) == expected


def test_a_field_that_bodies_use_in_several_ways_shows_one_of_them_and_breaks_nothing() -> None:
    register, elements = told(ANN, 1, set_to(tags=[{"a": 1}], count="x")), told(BOB, 1, added("x"))
    document = built([register, elements])
    for _ in range(2):
        assert document.values() == {"tags": ["x"], "count": "x"}
    assert document.layers[0].registers == {"tags": [{"a": 1}], "count": "x"}
    counted = built([register, elements, told(CLEO, 1, [Kind.INCREMENT.value, "count", 2])])
    assert counted.values()["count"] == 2
    for current in (document, counted):
        plan = plan_write(current, {"tags": ["y"], "count": 7}, sets=("tags",), counters=("count",))
        shown = written(current, CLEO, plan, 9).values()
        assert shown == {"tags": ["y"], "count": 7}


def test_first_and_last_writers_are_those_of_the_smallest_and_largest_time() -> None:
    document = Document(MODEL, "one")
    for author, hlc, user in ((BOB, 5, "bob"), (ANN, 3, "ann"), (CLEO, 5, "cleo")):
        document.apply(Dot(author, 1, 0), hlc, user, (), [set_to(t=1)])
    assert (document.created_hlc, document.created_user) == (3, "ann")
    assert (document.updated_hlc, document.updated_user) == (5, "cleo")


# -- stored form ---------------------------------------------------------------------------------------------


@given(histories())
def test_a_stored_document_comes_back_as_it_was(history: list[Told]) -> None:
    for size in range(len(history) + 1):
        document = built(history[:size])
        state = decode(encode(document.to_state(number_of)))
        again = Document.from_state(MODEL, "one", state, AUTHORS.__getitem__)
        assert again == document
        assert repr(again.values()) == repr(document.values())
        assert again.to_state(number_of) == document.to_state(number_of)


@given(histories(), st.data())
def test_a_state_that_is_not_of_its_form_is_malformed_or_another_document(
    history: list[Told], data: st.DataObject
) -> None:
    state = data.draw(strategies.mangled(built(history).to_state(number_of)))
    try:
        Document.from_state(MODEL, "one", state, AUTHORS.__getitem__)
    except Malformed:
        pass


# -- size ----------------------------------------------------------------------------------------------------


def test_many_operations_on_many_layers_take_time_in_proportion() -> None:
    """Of each as many as there are layers, as a hostile body could have."""

    def took_s(count: int) -> float:
        """What it takes to apply a body of that many operations to a document of that many layers."""
        document = Document(MODEL, "one")
        for number in range(count):
            document.apply(Dot(ANN, 1, number), 1, "", (), [set_to(**{f"f{number}": 1}), added(number)])
        third = count // 3
        many: list[Operation] = [removed(-number) for number in range(third)]
        many += [added(f"x{number}") for number in range(third)]
        many += [set_to(**{f"f{number}": 2}) for number in range(third)]
        seconds = cpu_s(lambda: document.apply(Dot(BOB, 1, 0), 2, "", [Dot(ANN, 1, count)], many))
        assert len(document.elements("tags")) == count + third - 1
        assert sum(value == 2 for value in document.values().values() if value in (1, 2)) == third
        return seconds

    assert grows_in_proportion(took_s, 1_000)


def test_large_sets_and_contexts_take_time_in_proportion() -> None:
    """Many additions by many authors, then one removal that has seen all."""

    def took_s(count: int) -> float:
        document = Document(MODEL, "one")
        authors = [number.to_bytes(40, "big") for number in range(count // 3)]

        def work() -> None:
            for number in range(count):
                author = authors[number % len(authors)]
                document.apply(Dot(author, number, 0), number, "", (), [added(number)])
            assert len(document.values()["tags"]) == count
            plan = plan_write(document, {"tags": [0]}, sets=SETS)
            after = written(document, ANN, plan, count + 1)
            again = Document.from_state(MODEL, "one", after.to_state(lambda a: 0), lambda n: ANN)
            assert after.elements("tags") == again.elements("tags") == [0]

        return cpu_s(work)

    assert grows_in_proportion(took_s, 1_200)
