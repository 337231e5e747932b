from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import TooLarge, UnknownPlace
from protocol.limits import RANGES_PER_UPDATE_MAX, STRUCTS_PER_UPDATE_MAX
from protocol.walk import Writer, fault_of, plan, plan_emptying, write
from protocol.weave import Anchored, Splice, Weave
from protocol.yjs_update import Struct, Update, encode_update
from tests.protocol.editors import ID, MODEL, Editors, author
from tests.protocol.yjs_strategies import forged_operations, updates

ANN, BEN = Writer(author(1), 0, 11), Writer(author(2), 0, 22)
NOBODY: dict[bytes, int] = {}


def typed(*texts: str, by: Writer = ANN, weave: Weave | None = None) -> Weave:
    """A weave in which someone has typed, one commit a text, each behind the one before."""
    weave = weave or Weave()
    for text in texts:
        put(weave, by, weave.visible_points(), text)
    return weave


def put(weave: Weave, by: Writer, at: int, text: str, delete: int = 0) -> Update:
    """Make one splice, by someone who has seen everything."""
    update = plan(weave, weave.anchor([Splice(at, delete, text)]), by)
    assert update is not None
    own = weave.clients.get(by[:2])
    write(weave, update, by, len(own.step_seqs) + 1 if own else 1)
    return update


def fault(weave: Weave, update: Update, by: Writer = BEN, **known: int) -> str | None:
    seqs = {ANN.author: known.get("ann", 99), BEN.author: known.get("ben", 99)}
    return fault_of(weave, update, by, lambda author: seqs.get(author, 0))


def one(
    origin: Any = None, right: Any = None, *, clock: int = 0, content: Any = "x", id: int = BEN.id
) -> Update:
    length = 1 if content is None else len(content.encode("utf-16-le")) // 2
    return Update(id, (Struct(clock, length, origin, right, content),), ())


def test_units_stand_between_what_their_author_saw_side_by_side() -> None:
    weave = typed("abc")
    assert fault(weave, one(None, (11, 0))) is None
    assert fault(weave, one((11, 0), (11, 1))) is None
    assert fault(weave, one((11, 2), None)) is None
    for origin, right in [
        (None, None),
        ((11, 0), None),
        ((11, 0), (11, 2)),  # over a unit that it had seen
        ((11, 1), (11, 0)),  # the wrong way round
        ((11, 1), (11, 1)),
        (None, (11, 1)),
    ]:
        assert "side by side" in str(fault(weave, one(origin, right)))


def test_deleted_units_are_neighbours_as_others_are() -> None:
    weave = typed("abc")
    put(weave, ANN, 1, "", delete=1)
    assert "side by side" in str(fault(weave, one((11, 0), (11, 2))))
    assert fault(weave, one((11, 0), (11, 1))) is None
    assert fault(weave, one((11, 1), (11, 2))) is None


def test_what_was_written_beside_it_does_not_part_neighbours() -> None:
    weave = typed("ab")
    put(weave, BEN, 1, "new")
    cat = Writer(author(3), 0, 33)
    assert fault(weave, one((11, 0), (11, 1), id=33), cat, ben=0) is None
    assert "side by side" in str(fault(weave, one((11, 0), (11, 1), id=33), cat, ben=1))


def test_no_unit_is_named_that_its_author_cannot_have_seen() -> None:
    weave = typed("ab", "cd", "ef")
    for known, clock, is_seen in [(1, 1, True), (1, 2, False), (2, 3, True), (2, 4, False), (0, 0, False)]:
        update = one((11, clock), None if clock == 2 * known - 1 else (11, clock + 1))
        found = fault(weave, update, ann=known)
        assert (found is None) is is_seen
        assert (fault(weave, Update(-1, (), ((11, ((clock, 1),)),)), ann=known) is None) is is_seen
    assert fault(weave, one((99, 0))) is not None
    assert fault(weave, Update(-1, (), ((99, ((0, 1),)),))) is not None
    assert fault(weave, Update(-1, (), ((11, ((4, 3),)),))) is not None  # beyond the last unit


def test_everything_of_ones_own_chain_has_been_seen() -> None:
    weave = typed("ab", "cd")
    assert fault(weave, one((11, 3), clock=4, id=11), ANN, ann=0) is None


def test_a_client_writes_under_its_own_id_without_gaps() -> None:
    weave = typed("ab")
    assert "client id" in str(fault(weave, one((11, 1), id=11)))
    assert "client id" in str(fault(weave, one((11, 1), id=23)))
    assert "gap" in str(fault(weave, one((11, 1), clock=1)))
    own = typed("x", by=BEN, weave=typed("ab"))
    assert "gap" in str(fault(own, one((22, 0), clock=0)))
    assert "gap" in str(fault(own, one((22, 0), clock=2)))
    assert fault(own, one((22, 0), clock=1)) is None


def test_a_code_point_is_never_torn_apart() -> None:
    weave = typed("a😀b")
    for origin, right in [((11, 1), (11, 2)), ((11, 0), (11, 2)), ((11, 1), (11, 3))]:
        assert fault(weave, one(origin, right)) is not None
    assert fault(weave, one((11, 0), (11, 1))) is None
    assert fault(weave, one((11, 2), (11, 3))) is None
    for clock, length in [(1, 1), (2, 1), (0, 2), (2, 2)]:
        assert "code point" in str(fault(weave, Update(-1, (), ((11, ((clock, length),)),))))
    for clock, length in [(1, 2), (0, 3), (0, 4), (3, 1)]:
        assert fault(weave, Update(-1, (), ((11, ((clock, length),)),))) is None
    put(weave, ANN, 1, "", delete=1)  # a deleted one is no less one
    assert fault(weave, one((11, 1), (11, 2))) is not None


def test_units_of_one_update_may_stand_beside_each_other() -> None:
    weave = typed("ab")
    structs = (Struct(0, 2, (11, 0), (11, 1), "xy"), Struct(2, 1, (22, 0), (22, 1), "-"))
    assert fault(weave, Update(22, structs, ((22, ((1, 2),)),))) is None
    apart = (structs[0], Struct(2, 1, (11, 0), (11, 1), "-"))  # its own units stand between these now
    assert "side by side" in str(fault(weave, Update(22, apart, ())))
    early = (structs[0]._replace(origin=(22, 2)), structs[1])
    assert fault(weave, Update(22, early, ())) is not None
    torn = (Struct(0, 2, (11, 0), (11, 1), "😀"), Struct(2, 1, (22, 0), (22, 1), "-"))
    assert "code point" in str(fault(weave, Update(22, torn, ())))


def test_what_was_deleted_before_it_was_sent_takes_its_place_all_the_same() -> None:
    weave = typed("ab")
    update = one((11, 0), (11, 1), content=None)
    assert fault(weave, update) is None
    write(weave, update, BEN, 1)
    assert (weave.visible_units(), weave.clients[BEN[:2]].clock) == (2, 1)


@given(st.data(), st.lists(st.sampled_from(["a", "bc", "😀d"]), max_size=4))
def test_judging_leaves_everything_as_it_was(data: st.DataObject, texts: list[str]) -> None:
    weave = typed(*texts)
    if data.draw(st.booleans()):
        typed("y", by=BEN, weave=weave)
    before = weave.normal()
    update = data.draw(
        updates(is_text=True, own=22, clients=st.sampled_from([11, 22, 33]), clocks=st.integers(0, 6))
    )
    fault(weave, update, ann=data.draw(st.integers(0, 4)))
    assert weave.normal() == before
    assert set(weave.by_id) == {client.id for client in weave.clients.values()}


# -- two clients with one id --------------------------------------------------------------------------------


def test_an_id_that_another_has_taken_is_no_place_to_write() -> None:
    weave = typed("ab")
    twin = Writer(author(2), 0, ANN.id)
    update = one((11, 1), id=ANN.id)
    assert "another has taken" in str(fault(weave, update, twin))
    assert "another has taken" in str(fault(weave, one(id=ANN.id), twin, ann=1))
    assert fault(weave, one(id=ANN.id), twin, ann=0) is None  # written apart: nobody could have known


def test_a_name_that_means_two_units_is_none() -> None:
    weave = typed("ab")
    twin, cat = Writer(author(2), 0, ANN.id), Writer(author(3), 0, 33)
    write(weave, one(id=ANN.id), twin, 1, known_of=lambda author: 0)
    assert weave.has_clash
    only_ann = {ANN.author: 1}
    update = one((11, 0), (11, 1), id=33)
    assert fault_of(weave, update, cat, lambda author: only_ann.get(author, 0)) is None
    assert fault_of(weave, update, cat, lambda author: 1) is not None
    write(weave, update, cat, 1, known_of=lambda author: only_ann.get(author, 0))
    assert [run.client.author for run in weave.runs() if run.client.id == 11] in (
        [ANN.author, ANN.author, twin.author],
        [twin.author, ANN.author, ANN.author],
    )


# -- verdicts of several nodes -------------------------------------------------------------------------------


@given(st.data(), st.integers(0, 2**32))
def test_verdicts_and_texts_are_the_same_everywhere_whatever_is_forged(
    data: st.DataObject, seed: int
) -> None:
    random, editors = Random(seed), Editors(1, 2, 3)
    for _ in range(data.draw(st.integers(3, 12))):
        number = data.draw(st.integers(1, 3))
        match data.draw(st.sampled_from(["write", "write", "forge", "hear", "meet"])):
            case "write":
                text = editors.read(number)
                at = random.randint(0, len(text))
                editors.write(
                    number, body=text[:at] + data.draw(st.sampled_from(["xy", "😀"])) + text[at + 1 :]
                )
            case "forge":
                forged = forged_operations(tuple(editors.authors), author(number), MODEL, ID)
                editors.say(number, [data.draw(forged)])
            case "hear":
                editors.hear(number, random)
            case "meet":
                editors.meet(number, random=random)
    editors.meet(random=random)
    assert all(len(said.verdicts) == 1 for said in editors.said)
    one, two, three = (editors[number] for number in (1, 2, 3))
    assert one == two == three
    assert one.values() == two.values() == three.values()
    assert not one.is_broken


# -- planning ------------------------------------------------------------------------------------------------


def test_a_plan_changes_nothing_and_has_no_fault() -> None:
    weave = typed("abc")
    before = weave.normal()
    update = plan(weave, weave.anchor([Splice(0, 1, "X"), Splice(2, 0, "Y")]), BEN)
    assert update is not None and weave.normal() == before
    assert fault(weave, update) is None
    assert plan(weave, [], BEN) is None
    assert plan(weave, weave.anchor([Splice(3, 0, None)]), BEN) is None


def test_splices_land_where_they_were_meant_after_others_have_edited() -> None:
    weave = typed("abc")
    anchored = weave.anchor([Splice(1, 1, "X"), Splice(3, 0, "!")])
    put(weave, ANN, 0, "00")
    put(weave, ANN, 3, "", delete=1)  # the b
    update = plan(weave, anchored, BEN)
    assert update is not None and update.deletes == ()  # it is deleted already
    assert [(s.origin, s.right) for s in update.structs] == [((11, 0), (11, 1)), ((11, 2), None)]
    assert fault(weave, update) is None


def test_a_splice_of_another_state_is_told_from_one_that_can_be_made() -> None:
    for anchored in [
        Anchored((author(9), 0, 0), "x", ()),
        Anchored((ANN.author, 0, 3), "x", ()),
        Anchored(None, None, ((ANN.author, 0, (2, 2)),)),
    ]:
        with pytest.raises(UnknownPlace):
            plan(typed("abc"), [anchored], BEN)


def test_no_more_is_planned_than_an_update_may_hold() -> None:
    weave = typed("ab" * STRUCTS_PER_UPDATE_MAX * 2)
    places = [Splice(2 * n, 0, "x") for n in range(STRUCTS_PER_UPDATE_MAX + 1)]
    assert plan(weave, weave.anchor(places[:-1]), BEN) is not None
    with pytest.raises(TooLarge):
        plan(weave, weave.anchor(places), BEN)


def test_emptying_deletes_all_that_is_visible_however_scattered() -> None:
    assert plan_emptying(Weave(), ANN) is None
    weave = typed("abcd")
    put(weave, ANN, 1, "", delete=1)
    assert plan_emptying(weave, BEN) == Update(-1, (), ((11, ((0, 1), (2, 2))),))
    weave = typed("ab" * (RANGES_PER_UPDATE_MAX + 1))
    client = weave.clients[ANN[:2]]
    for clock in range(0, client.clock, 2):
        weave.delete(client, clock, 1)
    assert plan_emptying(weave, BEN) == Update(-1, (), ((11, ((0, client.clock),)),))
    update = plan_emptying(weave, BEN)
    assert update is not None and len(encode_update(update, "f")) < 20
