from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycrdt import Doc, Text

from protocol.body import Operation
from protocol.errors import Malformed
from protocol.planning import plan_write
from protocol.text_edit import AnchoredEdit
from protocol.walk import plan, write
from protocol.weave import Anchored, Splice, Weave
from protocol.yjs_update import Update, decode_update, units
from tests.protocol.editors import Editors
from tests.protocol.test_walk import ANN, BEN, put, typed

alphabet = "ab😀é"


def scribble(editors: Editors, random: Random, steps: int) -> None:
    """Have everybody edit at random, having heard some of the others."""
    for _ in range(steps):
        number = random.choice(range(1, len(editors.authors) + 1))
        for _ in range(random.randint(0, 3)):
            editors.hear(number, random)
        text = editors.read(number)
        at = random.randint(0, len(text))
        more = "".join(random.choice(alphabet) for _ in range(random.randint(0, 3)))
        editors.write(number, body=text[:at] + more + text[at + random.randint(0, 2) :])


def updates_of(editors: Editors) -> list[bytes]:
    return [operation[3] for said in editors.said for operation in said.operations if operation[0] == 8]


@given(st.integers(0, 2**32), st.integers(1, 5), st.integers(1, 25))
def test_the_order_is_that_of_the_library(seed: int, authors: int, steps: int) -> None:
    random, editors = Random(seed), Editors(*range(1, authors + 1))
    scribble(editors, random, steps)
    editors.meet(random=random)
    plain: Any = Doc(client_id=1)
    text = plain.get("body", type=Text)
    written: dict[int, str] = {}
    for data in updates_of(editors):
        plain.apply_update(data)
        update = decode_update(data, "body", is_text=True)
        for struct in update.structs:
            written[update.client] = written.get(update.client, "") + str(struct.content)
    field = editors[1].shared.get((8, "body"))
    if field is None:
        assert str(text) == ""
        return
    utf16 = {client: content.encode("utf-16-le") for client, content in written.items()}
    read = b"".join(
        utf16[run.client.id][2 * run.clock : 2 * (run.clock + run.length)]
        for run in field.weave.runs()
        if not run.is_deleted
    )
    assert str(text) == read.decode("utf-16-le") == field.shown
    assert field.weave.visible_units() == units(field.shown)
    assert field.weave.visible_points() == len(field.shown)


@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 25))
def test_a_stored_order_is_the_order_and_goes_on_as_it(seed: int, authors: int, steps: int) -> None:
    random, editors = Random(seed), Editors(*range(1, authors + 1))
    scribble(editors, random, steps)
    for number in range(1, authors + 1):
        field = editors[number].shared.get((8, "body"))
        if field is None:
            continue
        state = field.weave.to_state(editors.authors.index)
        again = Weave.from_state(state, editors.authors.__getitem__)
        assert again.normal() == field.weave.normal()
        assert again.to_state(editors.authors.index) == state
        assert again.has_clash is False
        assert put(again, BEN, 0, "x") == put(field.weave, BEN, 0, "x")
        assert again.normal() == field.weave.normal()


@pytest.mark.parametrize(
    "state", [b"", b"\x00", b"\x82\x81\x00\x80", b"\x82\x80\x84\x00\x00\x01\x00", b"\x82\x80\x81\x00"]
)
def test_a_stored_order_of_another_form_is_malformed(state: bytes) -> None:
    with pytest.raises(Malformed):
        Weave.from_state(state, [b""].__getitem__)


def test_typing_is_one_run_however_it_was_cut_into_commits() -> None:
    weave = typed("ab", "c", "def")
    assert [(run.clock, run.length) for run in weave.runs()] == [(0, 6)]
    assert len(list(weave)) == 3
    client = weave.clients[ANN[:2]]
    assert [client.clock_at(seq) for seq in range(5)] == [0, 2, 3, 6, 6]
    assert len(weave.to_state([ANN.author].index)) < 40


@given(st.integers(0, 2**32), st.integers(1, 20), st.integers(0, 2**32))
def test_anchored_splices_say_what_splices_of_the_text_say(seed: int, steps: int, where: int) -> None:
    random, editors = Random(seed), Editors(1, 2)
    scribble(editors, random, steps)
    field = editors[1].shared.get((8, "body"))
    if field is None:
        return
    text, place = field.shown, 0
    splices: list[Splice] = []
    random = Random(where)
    while place <= len(text) and len(splices) < 4:
        at = random.randint(place, len(text))
        splices.append(Splice(at, random.randint(0, min(3, len(text) - at)), random.choice(["", "X", "😀y"])))
        place = at + splices[-1].delete + 1
    expected = text
    for at, delete, insert in reversed(splices):
        expected = expected[:at] + (insert or "") + expected[at + delete :]
    anchored = field.weave.anchor(splices)
    assert [splice.insert for splice in anchored] == [splice.insert for splice in splices]
    editors.say(1, _operations(editors, anchored))
    assert editors.read(1) == expected


def _operations(editors: Editors, anchored: list[Anchored]) -> list[Operation]:
    values = {"body": AnchoredEdit(tuple(anchored))}
    return plan_write(editors[1], values, shared={"body": 8}, author=editors.authors[0]).operations or [[5]]


def test_positions_beyond_the_end_mean_the_end() -> None:
    weave = typed("ab")
    (anchored,) = weave.anchor([Splice(9, 3, "x")])
    assert (anchored.after, anchored.deletes) == ((*ANN[:2], 1), ())
    assert Weave().anchor([Splice(0, 1, "x")])[0].after is None


def test_what_is_visible_of_a_range_is_found() -> None:
    weave = typed("abcdef")
    client = weave.clients[ANN[:2]]
    weave.delete(client, 1, 1)
    weave.delete(client, 3, 2)
    assert list(weave.visible(client, 0, 6)) == [(0, 1), (2, 1), (5, 1)]
    assert list(weave.visible(client, 1, 2)) == [(2, 1)]
    assert list(weave.visible(client, 3, 1)) == []


def test_the_unit_after_another_is_found_within_runs_and_between_them() -> None:
    weave = typed("ab", "c")
    client = weave.clients[ANN[:2]]
    everything = {client: 3}.__getitem__
    assert weave.after(None, everything) == (client, 0)
    assert [weave.after((client, clock), everything) for clock in range(3)] == [
        (client, 1),
        (client, 2),
        None,
    ]
    assert Weave().after(None, everything) is None


def test_what_is_not_past_is_passed_over_in_both_directions() -> None:
    weave = typed("ab")
    put(weave, BEN, 1, "xyz")
    ann, ben = weave.clients[ANN[:2]], weave.clients[BEN[:2]]
    for known, left, right in [(0, (ann, 0), (ann, 1)), (2, (ben, 1), (ben, 0)), (3, (ben, 2), (ben, 0))]:
        end = {ann: 2, ben: known}.__getitem__
        assert weave.at_or_before((ben, 2), end) == left
        assert weave.after((ann, 0), end) == right
    assert weave.at_or_before((ann, 0), {ann: 0, ben: 0}.__getitem__) is None
    assert weave.after((ann, 1), {ann: 2, ben: 0}.__getitem__) is None


def test_what_was_taken_back_was_never_there() -> None:
    weave = typed("ab")
    before = weave.normal()
    put(weave, BEN, 1, "x😀")
    weave.take_back(*BEN[:2], 0)
    assert weave.normal() == before and weave.by_id.keys() == {ANN.id}
    put(weave, ANN, 1, "😀")
    weave.take_back(*ANN[:2], 2)
    weave.take_back(*BEN[:2], 0)
    assert weave.runs()[0].length == 2 and weave.clients[ANN[:2]].halves == []


def test_an_update_is_a_value() -> None:
    assert Update(1, (), ()) == Update(1, (), ())


def test_ballast_makes_no_difference_to_the_normal_form_wherever_it_lies() -> None:
    calm, torn = typed("abcd"), typed("abcd")
    update = plan(torn, torn.anchor([Splice(2, 0, "xy")]), BEN)
    assert update is not None
    write(torn, update, BEN, 1, is_ballast=True)
    assert torn.normal() == calm.normal() and torn.runs() != calm.runs()
