from collections.abc import Sequence
from itertools import product
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.body import Body, Dot, Kind, Operation
from protocol.conflict import DELETED, Judged, Rules, conflicts, judge
from protocol.document import Document
from protocol.errors import LocalMisuse
from protocol.folding import Fold, is_same
from protocol.limits import LIVE_JUDGED_MAX
from protocol.planning import plan_write
from protocol.schema import Field, FieldType
from protocol.schema_strategy import FOLDING_STRATEGIES, STRATEGIES
from tests.protocol.strategies import AUTHORS, Told, histories, reordered
from tests.protocol.tale import past_of
from tests.protocol.test_document import built
from tests.protocol.world import MODEL

ANN, BOB, CLEO = AUTHORS[:3]
DELETE: Operation = [Kind.DELETE.value]
SPACE = bytes(16)
PLUGIN = "closest@0123456789abcdef"


def set_to(**values: Any) -> Operation:
    return [Kind.SET.value, values]


def apart(*bodies: tuple[bytes, list[Operation]]) -> Document:
    """A document of bodies that did not see one another; the n-th at time n."""
    document = Document(MODEL, "one")
    for number, (author, operations) in enumerate(bodies, 1):
        document.apply(Dot(author, number, 0), number, f"user {number}", (), operations)
    return document


def fold(merge: str, kind: FieldType = FieldType.INTEGER, **attributes: Any) -> Fold:
    return Fold(Field("n", kind, merge=merge, **attributes))


class Story:
    """Bodies that set the field `n`, each by someone who has seen some of those before."""

    def __init__(self) -> None:
        self.told: list[Told] = []

    def set(self, author: bytes, value: Any, *seen: Told, known: Sequence[Told] = ()) -> Told:
        """`seen` gives way to the value; `known` was here too, and stays."""
        past: dict[bytes, Dot] = {}
        for one in (*seen, *known, *(t for t in self.told if t.dot.author == author)):
            for dot in (*one.known.values(), one.dot):
                past[dot.author] = max(dot, past.get(dot.author, dot))
        seq = 1 + sum(t.dot.author == author for t in self.told)
        dots = tuple(sorted({t.dot.author: t.dot for t in sorted(seen, key=lambda t: t.dot)}.values()))
        body = Body(bytes(16), "ann", MODEL, "one", dots, [set_to(n=value)])
        past.pop(author, None)
        told = Told(Dot(author, seq, 0), len(self.told) + 1, body, past)
        self.told.append(told)
        return told

    def judged(self, strategy: str, n: Fold | None = None) -> tuple[Any, int]:
        """The shown value, and between how many values the conflict is that is left open; 0 for none."""
        values, found = self.judged_whole(strategy, n)
        return values["n"], len(found[0].values) if found else 0

    def judged_whole(self, strategy: str, n: Fold | None = None) -> Judged:
        rules = Rules(strategy, {} if n is None else {"n": n})
        return judge(built(self.told), rules, past_of(self.told))


# -- crdt, lww, manual ---------------------------------------------------------------------------------------


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
    assert conflict.dots == tuple(sorted(value.dot for value in conflict.values))
    assert document.values()["t"] == conflict.values[-1].value


def test_conflicts_come_in_the_order_of_fields() -> None:
    document = apart((ANN, [set_to(c=1, b=1, a=1)]), (BOB, [set_to(a=2, c=2, b=2)]))
    assert [conflict.field for conflict in conflicts(document)] == ["a", "b", "c"]


def test_the_same_value_twice_is_no_conflict() -> None:
    assert conflicts(apart((ANN, [set_to(t=[1, {"a": 1}])]), (BOB, [set_to(t=[1.0, {"a": 1}])]))) == []
    assert len(conflicts(apart((ANN, [set_to(t=[1])]), (BOB, [set_to(t=[True])])))) == 1


def test_a_delete_that_met_an_update_is_listed_with_what_it_hides() -> None:
    document = apart(
        (ANN, [set_to(t="a"), [Kind.ADD.value, "tags", ["x"]]]), (BOB, [DELETE]), (CLEO, [DELETE])
    )
    (conflict,) = conflicts(document)
    assert conflict.field == DELETED
    assert [v.value for v in conflict.values] == [{"t": "a", "tags": ["x"]}, None, None]


def test_a_delete_lists_collaborative_fields_the_same_in_whatever_order_they_came() -> None:
    ann, bob = Document(MODEL, "one"), Document(MODEL, "one")
    told = [
        (Dot(author, 1, 0), number, f"user {number}", (), plan.operations)
        for number, (author, field, kind) in enumerate(
            [(ANN, "steps", Kind.ARRAY), (BOB, "body", Kind.TEXT)], 1
        )
        for plan in [
            plan_write(
                Document(MODEL, "one"),
                {field: ["a"] if kind is Kind.ARRAY else "a"},
                shared={field: kind},
                author=author,
            )
        ]
    ]
    delete = (Dot(CLEO, 1, 0), 3, "user 3", (), [DELETE])
    for document, order in ((ann, told), (bob, told[::-1])):
        for body in (*order, delete):
            document.apply(*body)
    (conflict,) = conflicts(ann)
    assert [v.value for v in conflict.values] == [{"body": "a"}, {"steps": ["a"]}, None]
    assert conflicts(bob) == [conflict]


def test_of_a_deleted_document_nothing_else_is_in_conflict() -> None:
    document = apart((ANN, [set_to(t="a")]), (BOB, [set_to(t="b")]), (CLEO, [DELETE]))
    assert [conflict.field for conflict in conflicts(document)] == [DELETED]


def test_deletes_alone_are_no_conflict() -> None:
    assert conflicts(apart((ANN, [DELETE]), (BOB, [DELETE]))) == []
    assert conflicts(apart((ANN, [DELETE]), (BOB, [DELETE, set_to(t=1)]))) == []


@given(histories())
def test_last_write_wins_lists_nothing(history: list[Told]) -> None:
    document = built(history)
    assert conflicts(document, Rules("lww")) == []
    for conflict in conflicts(document):
        assert len(conflict.values) > 1


@given(histories())
def test_a_field_is_in_conflict_if_it_has_different_live_values(history: list[Told]) -> None:
    document = built(history)
    names = {name for layer in document.layers for name in layer.registers} if document.exists else set()
    listed = {conflict.field for conflict in conflicts(document)} - {DELETED}
    assert listed <= names
    for name in names:
        live = [value for _, value in document.live_values(name)]
        assert (name in listed) == any(not is_same(a, b) for a in live for b in live)


def test_a_plugins_strategy_that_is_not_here_shows_the_last_write_and_lists_the_conflict() -> None:
    document = apart((ANN, [set_to(t="a")]), (BOB, [set_to(t="b")]))
    values, found = judge(document, Rules(PLUGIN), past_of([]))
    assert (values, len(found)) == ({"t": "b"}, 1)
    assert Rules(PLUGIN).is_plugins and not any(Rules(name).is_plugins for name in STRATEGIES)


# -- merge ---------------------------------------------------------------------------------------------------


def test_a_folded_field_shows_one_value_and_is_in_no_conflict() -> None:
    story = Story()
    story.set(ANN, 7), story.set(BOB, 5)
    assert story.judged("merge", fold("max")) == (7, 0)
    assert story.judged("merge") == (5, 2)
    assert story.judged("crdt") == (5, 2)


def test_what_cannot_be_folded_is_shown_and_listed_as_under_crdt() -> None:
    story = Story()
    story.set(ANN, 7), story.set(BOB, 5)
    assert story.judged("merge", fold("sum", maximum=10)) == (5, 2)


def test_a_sum_adds_both_sides_to_what_both_have_seen() -> None:
    story = Story()
    base = story.set(ANN, 10)
    story.set(ANN, 12, base), story.set(BOB, 11, base)
    assert story.judged("merge", fold("sum")) == (13, 0)


def test_a_sum_counts_equal_additions_of_both_sides() -> None:
    story = Story()
    base = story.set(ANN, 10)
    story.set(ANN, 11, base), story.set(BOB, 11, base)
    assert story.judged("merge", fold("sum")) == (12, 0)


def test_a_sum_goes_back_to_the_sum_that_both_sides_have_seen() -> None:
    story = Story()
    base = story.set(ANN, 10)
    one, two = story.set(ANN, 11, base), story.set(BOB, 12, base)  # everyone sees 13 now
    story.set(ANN, 14, one, two), story.set(BOB, 15, one, two)
    assert story.judged("merge", fold("sum")) == (16, 0)


def test_a_sum_does_not_take_one_sides_own_steps_for_the_common_value() -> None:
    story = Story()
    base = story.set(ANN, 10)
    step = story.set(ANN, 50, base)
    story.set(ANN, 60, step), story.set(BOB, 11, base)
    assert story.judged("merge", fold("sum")) == (61, 0)


# -- version_vector ------------------------------------------------------------------------------------------


def test_a_value_whose_version_another_dominates_is_out_even_where_the_writer_did_not_say_so() -> None:
    story = Story()
    first = story.set(BOB, 1)
    story.set(ANN, 2, known=[first])
    assert story.judged("crdt") == (2, 2)
    assert story.judged("version_vector") == (2, 0)


def test_a_dominated_value_is_out_whatever_its_time() -> None:
    story = Story()
    old = story.set(BOB, "old")
    new = story.set(ANN, "new", known=[old])
    late = story.told.index(old)
    story.told[late] = Told(old.dot, new.hlc + 5, old.body, old.known)
    assert story.judged("crdt") == ("old", 2)
    assert story.judged("version_vector") == ("new", 0)


def test_versions_of_which_none_dominates_are_merged_or_in_conflict() -> None:
    story = Story()
    base = story.set(CLEO, 0)
    story.set(ANN, 2, base), story.set(BOB, 3, base)
    assert story.judged("version_vector") == (3, 2)
    assert story.judged("version_vector", fold("sum")) == (5, 0)


# -- three_way -----------------------------------------------------------------------------------------------


def test_a_side_that_changed_the_field_wins_over_one_that_wrote_the_old_value_again() -> None:
    story = Story()
    base = story.set(CLEO, "base")
    story.set(ANN, "changed", base), story.set(BOB, "base", base)
    assert story.judged("crdt") == ("base", 2)
    assert story.judged("three_way") == ("changed", 0)


def test_sides_that_made_the_same_change_agree() -> None:
    story = Story()
    base = story.set(CLEO, "base")
    story.set(ANN, "new", base), story.set(BOB, "new", base), story.set(CLEO, "base", base)
    assert story.judged("three_way") == ("new", 0)


def test_different_changes_are_in_conflict_and_the_ancestor_is_told() -> None:
    story = Story()
    base = story.set(CLEO, 10)
    story.set(ANN, 11, base), story.set(BOB, 12, base), story.set(CLEO, 10, base)
    (conflict,) = story.judged_whole("three_way").conflicts
    assert [value.value for value in conflict.values] == [11, 12]
    assert conflict.ancestor == 10
    assert len(conflict.dots) == 3
    assert story.judged("three_way", fold("sum")) == (13, 0)


def test_where_nothing_was_before_every_value_is_a_change() -> None:
    story = Story()
    story.set(ANN, 1), story.set(BOB, 2)
    assert story.judged("three_way") == (2, 2)
    cleared = Story()
    cleared.set(ANN, 1), cleared.set(BOB, None)
    assert cleared.judged("three_way") == (1, 0)


# -- all -----------------------------------------------------------------------------------------------------

FOLDS = {
    "title": Fold(Field("title", FieldType.JSON, merge="union")),
    "done": Fold(Field("done", FieldType.INTEGER, merge="sum")),
    "count": Fold(Field("count", FieldType.NUMBER, merge="max")),
}


@given(history=histories(), seed=st.integers(0, 2**32))
def test_every_order_that_respects_causes_shows_the_same_under_every_strategy(
    history: list[Told], seed: int
) -> None:
    other = reordered(history, Random(seed))
    here, there = built(history), built(other)
    for strategy in (*STRATEGIES, PLUGIN):
        rules = Rules(strategy, FOLDS if strategy in FOLDING_STRATEGIES else {})
        one, two = judge(here, rules, past_of(history)), judge(there, rules, past_of(other))
        assert repr(one) == repr(two)  # types and all
        listed, again = conflicts(here, rules, past_of(history)), conflicts(there, rules, past_of(other))
        assert listed == again
        assert [c.id_in(SPACE) for c in listed] == [c.id_in(SPACE) for c in again]


@st.composite
def numbers_apart(draw: st.DrawFn) -> list[Told]:
    """Integers that three authors set, each in place of some or all of what is there."""
    story = Story()
    for _ in range(draw(st.integers(2, 9))):
        seen = draw(st.lists(st.sampled_from(story.told), unique_by=lambda t: t.dot)) if story.told else []
        story.set(draw(st.sampled_from([ANN, BOB, CLEO])), draw(st.integers(0, 5)), *seen)
    return story.told


@given(history=numbers_apart(), seed=st.integers(0, 2**32))
def test_every_order_folds_numbers_to_the_same(history: list[Told], seed: int) -> None:
    other = reordered(history, Random(seed))
    for strategy, merge in product(("merge", "version_vector", "three_way"), ("sum", "max", "min")):
        rules = Rules(strategy, {"n": fold(merge)})
        shown = judge(built(history), rules, past_of(history))
        assert shown == judge(built(other), rules, past_of(other)), (strategy, merge)
        assert shown.conflicts == ()


@given(histories())
def test_all_that_is_not_in_conflict_is_shown_as_it_is(history: list[Told]) -> None:
    document = built(history)
    for strategy in STRATEGIES:
        values, _ = judge(document, Rules(strategy), past_of(history))
        for name, value in document.values().items():
            if len(document.live_values(name)) < 2:
                assert is_same(values[name], value)
        assert values.keys() == document.values().keys()


def test_the_past_is_not_asked_for_where_it_makes_no_difference() -> None:
    def no_past(document: Document) -> Any:
        raise AssertionError("asked for the past")

    alone = apart((ANN, [set_to(t="a", u=1, n=1), [Kind.ADD.value, "tags", ["x"]]]), (BOB, [set_to(v=1)]))
    for strategy in STRATEGIES:
        judge(alone, Rules(strategy), no_past)
    contested = apart((ANN, [set_to(t="a")]), (BOB, [set_to(t="b")]))
    for strategy in ("crdt", "lww", "manual", "merge", PLUGIN):
        judge(contested, Rules(strategy), no_past)
    with pytest.raises(LocalMisuse):
        conflicts(contested, Rules("three_way"))


def test_a_conflict_has_another_id_for_each_document_field_and_set_of_values() -> None:
    two = apart((ANN, [set_to(t="a", u="a")]), (BOB, [set_to(t="b", u="b")]))
    three = apart((ANN, [set_to(t="a")]), (BOB, [set_to(t="b")]), (CLEO, [set_to(t="c")]))
    other = two.copy()
    other.id = "two"
    ids = [c.id_in(SPACE) for document in (two, three, other) for c in conflicts(document)]
    ids.append(conflicts(two)[0].id_in(bytes([1]) * 16))
    assert len(set(ids)) == len(ids) == 6
    assert all(len(id) == 32 for id in ids)


def test_no_more_than_the_newest_values_are_judged() -> None:
    document = Document(MODEL, "one")
    for number in range(LIVE_JUDGED_MAX + 10):
        document.apply(Dot(ANN, number + 1, 0), number + 1, "ann", (), [set_to(n=number)])
    (conflict,) = conflicts(document)
    assert [value.value for value in conflict.values] == list(range(10, LIVE_JUDGED_MAX + 10))
    assert len(conflict.dots) == LIVE_JUDGED_MAX + 10
    assert judge(document, Rules("merge", {"n": fold("min")}), past_of([])).values == {"n": 10}
