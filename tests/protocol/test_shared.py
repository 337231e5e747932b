"""Collaborative fields as documents hold them: several authors, every order, ballast, what cannot be merged."""

from random import Random
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pycrdt import Array, Doc, Text

from protocol import merging, yjs_update
from protocol.document import Document
from protocol.encoding import decode, encode
from protocol.errors import Malformed, Unmergeable
from protocol.planning import plan_write
from protocol.shared import STEPS_STORED_MAX, SharedField
from tests.protocol.editors import ID, MODEL, Editors, Said, author
from tests.protocol.test_weave import scribble

seeds = st.integers(0, 2**32)


def stored(document: Document, authors: list[bytes]) -> Document:
    state = encode(document.to_state(authors.index))
    return Document.from_state(MODEL, ID, decode(state), authors.__getitem__)


def write_anything(editors: Editors, random: Random, steps: int) -> None:
    """Texts, lists, deletes of the document, in any mixture."""
    for _ in range(steps):
        number = random.choice(range(1, len(editors.authors) + 1))
        match random.randint(0, 5):
            case 0:
                editors.meet(number, random=random)
            case 1:
                editors.write(number, steps=[random.randint(0, 3) for _ in range(random.randint(0, 4))])
            case 2 if random.randint(0, 2) == 0 and editors[number].exists:
                editors.delete(number)
            case _:
                scribble(editors, random, 1)


@given(seeds, st.integers(2, 4), st.integers(1, 15))
def test_every_causal_order_gives_the_same_document_and_that_of_a_plain_exchange(
    seed: int, authors: int, steps: int
) -> None:
    random, editors = Random(seed), Editors(*range(1, authors + 1))
    write_anything(editors, random, steps)
    editors.meet(random=random)
    first = editors[1]
    others = [editors[number] for number in range(2, authors + 1)] + [editors.rebuilt(random)]
    for other in others:
        assert other == first and other.values() == first.values() and other.version == first.version
    assert all(said.verdicts == {None} for said in editors.said)
    doc: Any = Doc(client_id=1)
    lists: Any = Doc(client_id=1)
    text, array = doc.get("body", type=Text), lists.get("steps", type=Array)
    for said in editors.said:
        for operation in said.operations:
            if operation[0] in (8, 9):
                (doc if operation[0] == 8 else lists).apply_update(operation[3])
    assert first.values().get("body", "") == str(text)
    assert first.values().get("steps", []) == [decode(bytes(element)) for element in array]


@given(seeds, st.integers(1, 3), st.integers(1, 20))
def test_a_stored_document_is_the_document_and_goes_on_as_it(seed: int, authors: int, steps: int) -> None:
    random, editors = Random(seed), Editors(*range(1, authors + 1))
    for _ in range(steps):
        write_anything(editors, random, 1)
        for number in range(1, authors + 1):
            if random.randint(0, 1):
                again = stored(editors[number], editors.authors)
                assert again == editors[number] and again.values() == editors[number].values()
                editors.documents[author(number)] = again
    editors.meet(random=random)
    assert all(editors[number] == editors.rebuilt(random) for number in range(1, authors + 1))


def test_many_small_edits_are_stored_as_such_until_there_are_enough_of_them() -> None:
    editors = Editors(1, 2)
    editors.write(1, body="x" * 20_000)
    editors[1].to_state(editors.authors.index)
    sizes = []
    for step in range(2 * STEPS_STORED_MAX):
        editors.write(1, body=editors.read(1) + str(step % 10))
        editors.documents[author(1)] = stored(editors[1], editors.authors)
        sizes.append(len(editors[1].to_state(editors.authors.index)[5][2]))
    assert min(sizes) == 11 and max(sizes) == 11 + STEPS_STORED_MAX
    editors.meet(2)
    assert editors[1] == editors[2] and editors.read(1) == editors.read(2)


def test_a_document_that_was_copied_stays_what_it_was() -> None:
    editors = Editors(1)
    editors.write(1, body="one", steps=[1])
    before = editors[1].copy()
    editors.write(1, body="one two", steps=[1, 2])
    after = editors[1].copy()
    assert before.values() == {"body": "one", "steps": [1]}
    for document in (before, after):  # two ways on from the same place, and back again
        plan = plan_write(document, {"body": "three"}, shared={"body": 8}, author=author(1))
        copy = document.copy()
        copy.apply(editors.said[-1].dot._replace(seq=3), 9, "", (), plan.operations)
        assert copy.values()["body"] == "three"
    assert (before.values()["body"], after.values()["body"]) == ("one", "one two")
    assert before != after and before == before.copy()


def test_fields_that_show_nothing_have_no_value() -> None:
    editors = Editors(1)
    editors.write(1, body="x", steps=[None])
    assert editors[1].values() == {"body": "x", "steps": [None]}
    editors.write(1, body="", steps=None)
    assert editors[1].values() == {}
    assert editors[1].exists


def test_nothing_of_a_deleted_document_comes_back_but_what_was_written_apart() -> None:
    editors = Editors(1, 2)
    editors.write(1, body="secret words", steps=[1])
    editors.meet()
    editors.write(2, body="secret words and more")
    editors.delete(1)
    assert not editors[1].exists
    editors.write(1, steps=[2])
    assert editors[1].values() == {"steps": [2]}
    editors.meet()
    assert editors[1] == editors[2]
    assert editors[1].values() == {"body": " and more", "steps": [2]}


# -- ballast -------------------------------------------------------------------------------------------------


def test_honest_words_keep_their_place_when_those_around_them_count_no_more() -> None:
    editors = Editors(1, 2, 3)
    editors.write(1, body="The end.")
    editors.meet()
    editors.write(3, body="The [[evil]] end.")
    editors.meet()
    editors.write(2, body="The [[ev good il]] end.")
    editors.meet()

    def is_void(said: Said) -> bool:
        return said.dot.author == author(3)

    rebuilt = editors.rebuilt(Random(1), is_void)
    assert rebuilt.values() == {"body": "The  good end."}
    assert rebuilt.vector.keys() == {author(1), author(2)}


def test_what_ballast_deleted_is_there_again() -> None:
    editors = Editors(1, 2)
    editors.write(1, body="keep this", steps=[1])
    editors.meet()
    editors.delete(2)
    editors.meet()
    rebuilt = editors.rebuilt(Random(1), lambda said: said.dot.author == author(2))
    assert rebuilt.values() == {"body": "keep this", "steps": [1]}
    assert rebuilt.exists and rebuilt.updated_user == "ann"


@given(seeds, st.integers(1, 12), st.integers(0, 6))
@example(0, 1, 0)
def test_ballast_comes_to_the_same_in_every_order_and_changes_no_order(
    seed: int, steps: int, cut: int
) -> None:
    random, editors = Random(seed), Editors(1, 2, 3)
    write_anything(editors, random, steps)
    editors.meet(random=random)

    def is_void(said: Said) -> bool:
        return said.dot.author == author(3) and said.dot.seq > cut

    one, other = (editors.rebuilt(random, is_void) for _ in range(2))
    assert one == other and one.values() == other.values()
    everything = editors[1]
    for key, field in one.shared.items():
        was = [
            (run.client.author, run.client.n, run.clock + n)
            for run in everything.shared[key].weave
            for n in range(run.length)
        ]
        now = [
            (run.client.author, run.client.n, run.clock + n) for run in field.weave for n in range(run.length)
        ]
        assert was == now
        ends = {
            client.author: client.clock_at(cut) for client in field.weave.clients.values() if client.n == 0
        }
        for run in field.weave.runs():
            if run.client.author == author(3) and run.clock >= ends[author(3)]:
                assert run.is_deleted
    again = stored(one, editors.authors)
    assert again == one and again.values() == one.values()


def test_ballast_that_only_deletes_leaves_nothing() -> None:
    editors = Editors(1, 2)
    editors.write(1, body="abc")
    editors.meet()
    editors.write(2, body="ac")
    said = editors.said[-1]
    blank = Document(MODEL, ID)
    blank.apply(said.dot, said.hlc, "", (), said.operations, is_ballast=True)
    assert blank.is_blank


def test_a_document_of_ballast_alone_does_not_exist_and_is_kept() -> None:
    editors = Editors(1)
    said = editors.write(1, body="abc")
    assert said is not None
    document = Document(MODEL, ID)
    document.apply(said.dot, said.hlc, "", (), said.operations, is_ballast=True)
    assert (document.exists, document.is_blank, document.vector) == (False, False, {})
    assert stored(document, editors.authors) == document
    plan = plan_write(document, {"body": "new"}, shared={"body": 8}, author=author(1))
    document.apply(said.dot._replace(seq=2), 9, "", (), plan.operations)
    assert document.values() == {"body": "new"}


# -- what cannot be merged ------------------------------------------------------------------------------------


class _Panic(BaseException):
    """As the library's own: no `Exception`."""


def test_a_library_that_panics_breaks_one_field_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    editors = Editors(1)
    editors.write(1, body="fine", steps=[1])
    assert editors[1].values() == {"body": "fine", "steps": [1]}

    def panic(self: Any, data: bytes) -> None:
        raise _Panic

    monkeypatch.setattr(merging.YjsContents, "merge", _through(panic))
    editors.write(1, body="fine too")
    document = editors[1]
    assert document.values() == {"steps": [1]} and document.is_broken
    monkeypatch.undo()
    again = stored(document, editors.authors)
    assert again.is_broken and again == document
    with pytest.raises(Unmergeable):
        plan_write(again, {"body": "more"}, shared={"body": 8}, author=author(1))
    assert plan_write(again, {"body": ""}, shared={"body": 8}, author=author(1)).operations
    assert not editors.rebuilt(Random(1)).is_broken


def _through(panic: Any) -> Any:
    def merge(self: Any, data: bytes) -> None:
        try:
            panic(self, data)
        except BaseException as error:
            raise merging._as_unmergeable(error) from error

    return merge


def test_contents_that_are_not_those_of_the_updates_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging.YjsContents, "shown", lambda self: "something else")
    editors = Editors(1)
    editors.write(1, body="text")
    assert editors[1].is_broken and editors[1].values() == {}


def test_a_quarantined_document_keeps_order_and_merges_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    editors = Editors(1, 2)
    editors.write(1, body="one")
    editors.meet()
    editors[2].quarantine()

    def never(self: Any, *_: Any, **__: Any) -> None:
        raise AssertionError("the library was asked")

    plan = plan_write(Document(MODEL, ID), {"steps": [1]}, shared={"steps": 9}, author=author(1))
    said = editors.say(1, plan.operations)
    monkeypatch.setattr(merging.YjsContents, "__init__", never)
    editors.meet(2)
    stored(editors[2], editors.authors)
    assert said.verdicts == {None} and editors[2].is_broken and editors[2].values() == {}
    monkeypatch.undo()
    assert editors[1].shared[8, "body"].weave.normal() == editors[2].shared[8, "body"].weave.normal()
    again = stored(editors[2], editors.authors)
    assert again.is_quarantined and again == editors[1]


def test_two_clients_with_one_id_break_a_field_in_the_same_way_everywhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(yjs_update, "CLIENT_ID_BITS", 0)  # every client id is 0
    editors = Editors(1, 2, 3)
    editors.write(1, body="ann")
    editors.meet(3)
    editors.write(2, body="ben")
    editors.meet()
    assert all(said.verdicts == {None} for said in editors.said)
    assert editors[1] == editors[2] == editors[3] == editors.rebuilt(Random(1))
    assert all(editors[number].is_broken for number in (1, 2, 3))
    assert editors[1].values() == {}
    assert stored(editors[1], editors.authors) == editors[1]
    assert editors.rebuilt(Random(2)).shared[8, "body"].weave.visible_units() == 6


@pytest.mark.parametrize(
    "state", [[], [8], [8, "body", 1, 0, "", "", b"", b"", [7]], [8, "b", 1, 0, "", "x", b"", b"", [], [1]]]
)
def test_a_stored_field_of_another_form_is_malformed(state: list[Any]) -> None:
    with pytest.raises(Malformed):
        SharedField.from_state(state, [b""].__getitem__)


def test_a_field_that_gets_only_some_of_its_history_is_broken_and_raises_nothing() -> None:
    editors = Editors(1, 2)
    editors.write(1, body="ab")
    editors.meet()
    editors.write(2, body="acb")
    said = editors.said[-1]
    document = Document(MODEL, ID)
    document.apply(said.dot, said.hlc, "", (), said.operations)
    assert document.values() == {} and document.is_broken
