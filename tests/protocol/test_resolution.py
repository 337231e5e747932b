from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from protocol.body import Kind, Operation
from protocol.conflict import DELETED, Rules, conflicts
from protocol.document import Document
from protocol.folding import is_same
from protocol.planning import plan_delete, plan_write
from protocol.resolution import Resolution, live_dots, plan_resolution, values_before_deletion
from tests.protocol.editors import SHARED, Editors, author
from tests.protocol.strategies import AUTHORS, Told, histories
from tests.protocol.tale import Tale
from tests.protocol.test_ancestor import said
from tests.protocol.test_conflict import apart, set_to
from tests.protocol.test_document import built, written
from tests.protocol.world import MODEL

ANN, BOB, CLEO = AUTHORS[:3]
DELETE: Operation = [Kind.DELETE.value]
SETS = ("tags", "labels")


def resolved(document: Document, ends: Resolution, values: dict[str, Any]) -> Document:
    plan = plan_resolution(document, ends, values, sets=SETS)
    return written(document, CLEO, plan, document.updated_hlc + 1)


@given(histories(), st.data())
def test_a_resolution_ends_its_conflict_and_no_other(history: list[Told], data: st.DataObject) -> None:
    document = built(history)
    listed = conflicts(document)
    for conflict in listed:
        assert live_dots(document, conflict.field) == conflict.dots
        if conflict.field == DELETED:
            after = resolved(document, Resolution(DELETED, conflict.dots, is_kept=True), {})
            assert not after.exists and conflicts(after) == []
            after = resolved(document, Resolution(DELETED, conflict.dots), {"extra": 1})
            assert after.exists and after.values()["extra"] == 1
            continue
        chosen = data.draw(st.sampled_from(conflict.values)).value
        after = resolved(document, Resolution(conflict.field, conflict.dots), {conflict.field: chosen})
        assert [c.field for c in conflicts(after)] == [c.field for c in listed if c != conflict]
        ((_, value),) = after.live_values(conflict.field)
        assert is_same(value, chosen)
        others = [layer.registers for layer in document.layers]
        for name in {name for registers in others for name in registers} - {conflict.field}:
            assert _held(after, name) == _held(document, name)


def _held(document: Document, name: str) -> list[Any]:
    return [(layer.dot, value) for layer, value in document.live_values(name)]


def test_the_live_dots_of_a_document_that_is_there_speak_of_no_deletion() -> None:
    document = apart((ANN, [set_to(t="a")]), (BOB, [set_to(t="b")]))
    assert len(live_dots(document, "t")) == 2
    assert live_dots(document, DELETED) == live_dots(document, "u") == ()


def test_a_deletion_is_taken_back_with_what_it_took_away() -> None:
    tags: Operation = [Kind.ADD.value, "tags", ["x"]]
    votes: Operation = [Kind.INCREMENT.value, "votes", 3]
    history = [
        said(ANN, 1, set_to(title="a", points=1, gone=1), tags, votes),
        said(ANN, 2, set_to(points=5)),
        said(ANN, 3, set_to(gone=None)),
        said(ANN, 4, DELETE),
        said(BOB, 1, set_to(title="b"), knowing={ANN: 1}),
    ]
    for number, seen in enumerate([(), (history[0].dot,), (history[1].dot,), (history[2].dot,)]):
        history[number] = _seeing(history[number], seen)
    document = built(history)
    assert not document.exists
    before = values_before_deletion(document, Tale(history))
    assert before == {"points": 5, "tags": ["x"], "gone": None}  # the title is alive, and counters never went
    (conflict,) = conflicts(document)
    after = resolved(document, Resolution(DELETED, conflict.dots), before)
    assert after.values() == {"title": "b", "points": 5, "tags": ["x"], "gone": None, "votes": 3}


def _seeing(told: Told, seen: tuple[Any, ...]) -> Told:
    return Told(told.dot, told.hlc, told.body._replace(seen=seen), told.known)


def test_where_nothing_was_deleted_nothing_was_taken_away() -> None:
    assert values_before_deletion(apart((ANN, [set_to(t=1)])), Tale([])) == {}


# -- texts that several edit -----------------------------------------------------------------------------------


def test_words_that_met_a_deletion_are_listed_until_someone_decides() -> None:
    editors = Editors(1, 2)
    editors.write(1, body="some words", steps=[1])
    editors.meet()
    editors.delete(1)
    editors.write(2, body="some more words")
    editors.meet()
    document = editors[1]
    (conflict,) = conflicts(document)
    assert (conflict.field, [value.value for value in conflict.values]) == (
        DELETED,
        [{"body": "more "}, None],
    )
    assert conflict.dots == live_dots(document, DELETED) and len(conflict.dots) == 2
    assert conflicts(document, Rules("lww")) == []
    ends = Resolution(DELETED, conflict.dots, is_kept=True)
    kept = plan_resolution(document, ends, {}, shared=SHARED, author=author(1))
    editors.say(1, kept.operations, kept.seen)
    assert conflicts(editors[1]) == [] and not editors[1].exists
    editors.write(1, body="new")
    assert editors[1].values() == {"body": "new"}


def test_a_deletion_is_taken_back_with_the_words_that_it_took_away() -> None:
    first = plan_write(Document(MODEL, "one"), {"body": "words", "t": 1}, shared=SHARED, author=ANN)
    history = [said(ANN, 1, *first.operations)]
    gone = plan_delete(built(history), ANN)
    history += [_seeing(said(ANN, 2, *gone.operations), (history[0].dot,))]
    history += [said(BOB, 1, set_to(u=2), knowing={ANN: 1})]
    document = built(history)
    before = values_before_deletion(document, Tale(history))
    assert before == {"t": 1, "body": "words"}
    (conflict,) = conflicts(document)
    plan = plan_resolution(document, Resolution(DELETED, conflict.dots), before, shared=SHARED, author=CLEO)
    after = written(document, CLEO, plan, document.updated_hlc + 1)
    assert after.values() == {"t": 1, "u": 2, "body": "words"}
