"""What is planned, applied: the values that were wanted are the shown ones, whatever was there before."""

from collections.abc import Iterable
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.body import Dot, Kind
from protocol.document import Document
from protocol.errors import BaseMoved, EditFault, TooLarge, Unmergeable
from protocol.limits import SEEN_PER_BODY_MAX
from protocol.planning import Plan, context_of, plan_delete, plan_write
from protocol.schema_field import STRING_SIZE_MAX_BYTES
from protocol.text_edit import AnchoredEdit, read_edit
from protocol.weave import Splice
from protocol.yjs_update import client_id
from tests.protocol import strategies
from tests.protocol.editors import Editors, author
from tests.protocol.strategies import AUTHORS, Told, histories
from tests.protocol.test_document import ANN, BOB, CLEO, COUNTERS, SETS, added, built, set_to, told, written
from tests.protocol.test_weave import scribble
from tests.protocol.world import MODEL

wanted = st.fixed_dictionaries(
    {},
    optional={
        "title": strategies.values,
        "done": strategies.values,
        "tags": st.lists(strategies.elements, max_size=3) | st.none(),
        "count": strategies.int64s | st.none(),
    },
)


@given(histories(), wanted, st.sampled_from(AUTHORS))
def test_a_planned_write_makes_the_values_the_shown_ones(
    history: list[Told], values: dict[str, Any], author: bytes
) -> None:
    current = built(history)
    plan = plan_write(current, values, sets=SETS, counters=COUNTERS)
    after = written(current, author, plan, 1_000) if plan.operations else current
    assert after.exists or not values
    before = current.values() if current.exists else {}
    for name, value in values.items():
        if name == "tags":
            assert _keys(after.elements("tags")) == _keys(value or [])
        elif name == "count":
            assert after.counters.get("count", 0) == (value or 0)
        else:
            assert repr(after.values()[name]) == repr(value)
            assert [v for _, v in after.live_values(name)] == [value]
    for name in before.keys() - values.keys() - {"tags", "labels"}:
        assert after.values()[name] == before[name]


@given(wanted)
def test_a_planned_write_without_a_document_makes_one(values: dict[str, Any]) -> None:
    plan = plan_write(None, values, sets=SETS, counters=COUNTERS)
    assert plan == plan_write(Document(MODEL, "one"), values, sets=SETS, counters=COUNTERS)
    document = written(Document(MODEL, "one"), ANN, plan, 1)
    assert document.exists
    assert document.values().keys() == {n for n, v in values.items() if v or n in ("title", "done")}


@given(histories(), st.sampled_from(AUTHORS))
def test_a_planned_delete_hides_the_document_and_writing_brings_back_just_what_is_written(
    history: list[Told], author: bytes
) -> None:
    current = built(history)
    gone = written(current, author, plan_delete(current), 1_000)
    assert not gone.exists and len(gone.layers) == 1
    plan = plan_write(gone, {"title": "again", "tags": ["x"]}, sets=SETS, counters=COUNTERS)
    back = written(gone, author, plan, 1_001)
    assert back.exists
    assert {n: v for n, v in back.values().items() if n not in COUNTERS} == {"title": "again", "tags": ["x"]}
    assert all(back.values().get(name, 0) == 0 for name in COUNTERS)
    assert (back.created_hlc, back.created_user) == (1_001, "zoe"), "who creates it anew is its creator"


def test_a_write_that_changes_nothing_plans_nothing() -> None:
    document = built([told(ANN, 1, added("x"), [Kind.INCREMENT.value, "count", 2])])
    assert plan_write(document, {"tags": ["x"], "count": 2}, sets=SETS, counters=COUNTERS) == Plan((), [])


def test_a_write_names_only_what_it_supersedes() -> None:
    document = built([told(ANN, 1, set_to(t=1)), told(BOB, 1, set_to(u=1)), told(CLEO, 1, added("x"))])
    assert plan_write(document, {"t": 2}).seen == (Dot(ANN, 1, 0),)
    assert plan_write(document, {"tags": ["x", "y"]}, sets=SETS).seen == ()
    assert plan_write(document, {"tags": []}, sets=SETS).seen == (Dot(CLEO, 1, 0),)


def test_a_context_names_one_dot_of_each_author_and_no_more_than_a_body_can() -> None:
    document = Document(MODEL, "one")
    authors = [number.to_bytes(40, "big") for number in range(SEEN_PER_BODY_MAX + 3)]
    for hlc, one in enumerate(authors, 1):
        document.apply(Dot(one, 1, 0), hlc, "", (), [added(hlc)])
    for hlc, one in enumerate(reversed(authors), len(authors) + 1):
        document.apply(Dot(one, 2, 0), hlc, "", (), [added(hlc)])
    context = context_of(document.layers)
    assert context == tuple(Dot(one, 2, 0) for one in authors[:SEEN_PER_BODY_MAX])


# -- collaborative fields -----------------------------------------------------------------------------------

BODY = {"body": 8}


@given(st.integers(0, 2**32), st.text(alphabet="ab 😀", max_size=12), st.lists(strategies.values, max_size=4))
def test_a_field_given_whole_becomes_the_shown_one(seed: int, text: str, items: list[Any]) -> None:
    editors = Editors(1, 2)
    scribble(editors, Random(seed), 6)
    editors.write(1, body=text, steps=items)
    assert editors.read(1) == text
    assert editors.read(1, "steps") == items
    assert editors.write(1, body=text, steps=items) is None


def test_a_small_change_of_a_large_text_is_a_small_operation() -> None:
    editors = Editors(1)
    editors.write(1, body="word " * 10_000)
    said = editors.write(1, body="word " * 5_000 + "and " + "word " * 5_000)
    assert said is not None and len(said.operations[0][3]) < 50
    said = editors.write(1, body="word " * 5_000 + "und " + "word " * 5_000)
    assert said is not None and len(said.operations[0][3]) < 60


def test_edits_made_apart_are_both_there() -> None:
    editors = Editors(1, 2)
    editors.write(1, body="one two three")
    editors.meet()
    editors.write(1, body="one 2 three")
    editors.write(2, body="one two three four")
    editors.meet()
    assert editors.read(1) == editors.read(2) == "one 2 three four"


def test_a_new_text_is_written_with_the_other_values_in_one_body() -> None:
    document = Document(MODEL, "one")
    plan = plan_write(
        document, {"title": "t", "body": "b", "steps": []}, shared={**BODY, "steps": 9}, author=ANN
    )
    assert [operation[:2] for operation in plan.operations] == [[0, {"title": "t"}], [8, "body"]]
    assert written(document, ANN, plan, 1).values() == {"title": "t", "body": "b"}
    plan = plan_write(document, {"body": ""}, shared=BODY, author=ANN)
    assert plan.operations == [[5]] and written(document, ANN, plan, 1).exists


def test_an_edit_is_made_where_it_was_meant_and_no_larger_than_a_field_may_be() -> None:
    editors = Editors(1)
    editors.write(1, body="ab")
    weave = editors[1].shared[8, "body"].weave
    edit = AnchoredEdit(tuple(weave.anchor([Splice(1, 0, "-")])))
    editors.write(1, body="xxab")
    editors.write(1, body=edit)
    assert editors.read(1) == "xxa-b"
    editors.write(
        1, body=AnchoredEdit(tuple(weave.anchor([Splice(0, 0, "y" * (STRING_SIZE_MAX_BYTES - 5))])))
    )
    with pytest.raises(TooLarge):
        editors.write(1, body=edit)
    editors.write(1, body=AnchoredEdit(tuple(weave.anchor([Splice(0, 2, None)]))))
    assert len(editors.read(1)) == STRING_SIZE_MAX_BYTES - 2


def test_an_edit_of_just_this_state_needs_no_places_and_one_of_another_is_told() -> None:
    editors = Editors(1)
    editors.write(1, body="ab")
    ops = [{"retain": 1}, {"insert": "-"}]
    edit = read_edit({"ops": ops, "base_version": editors[1].version}, is_text=True)
    editors.write(1, body=edit)
    assert editors.read(1) == "a-b"
    with pytest.raises(BaseMoved):
        editors.write(1, body=edit)
    beyond = read_edit({"ops": [{"delete": 4}], "base_version": editors[1].version}, is_text=True)
    with pytest.raises(EditFault) as caught:
        editors.write(1, body=beyond)
    assert caught.value.details == {"body.ops": "Reaches beyond the end: 3 characters at that version"}


def test_a_quarantined_field_is_emptied_but_not_edited() -> None:
    editors = Editors(1)
    editors.write(1, body="ab")
    edit = AnchoredEdit(tuple(editors[1].shared[8, "body"].weave.anchor([Splice(0, 0, "x")])))
    editors[1].quarantine()
    for value in ("abc", edit):
        with pytest.raises(Unmergeable):
            editors.write(1, body=value)
    assert plan_delete(editors[1], author(1)).operations[0] == [4]
    assert len(plan_delete(editors[1], author(1)).operations) == 2


def test_a_client_id_that_another_has_is_not_written_under(monkeypatch: pytest.MonkeyPatch) -> None:
    editors = Editors(1, 2)
    monkeypatch.setattr("protocol.document.client_id", lambda *of: 7 if of[-1] == 0 else client_id(*of))
    editors.write(1, body="ann")
    editors.meet()
    editors.write(2, body="ann and ben")
    editors.meet()
    assert editors[1] == editors[2] and editors.read(1) == "ann and ben"
    assert {(client.author, client.n) for client in editors[1].shared[8, "body"].weave.clients.values()} == {
        (author(1), 0),
        (author(2), 1),
    }


def _keys(elements: Iterable[Any]) -> set[tuple[bool, Any]]:
    return {(isinstance(element, bool), element) for element in elements}
