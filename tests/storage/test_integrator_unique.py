"""Unique values: taken once, within a group of changes and across groups."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.changes import DocumentChange, Edit, EditKind
from protocol.schema import Model
from storage.errors import (
    IndexDamaged,
    IndexUnavailable,
    NotUnique,
)
from tests.storage.kit import TASK, Refused, Site, create, delete, documents_of, one, refuse, update


def test_a_unique_value_is_taken_once(site: Site, model: Model) -> None:
    site.create(model, "a", title="x", email="ann@example.org")
    with pytest.raises(NotUnique) as refused:
        site.create(model, "b", title="x", email="ann@example.org")
    assert refused.value.fields == {"email": "This value is already taken"}
    site.create(model, "b", title="x", email="bob@example.org")
    with pytest.raises(NotUnique):
        site.update(model, "b", email="ann@example.org")
    site.update(model, "a", email="ann@example.org", title="y")  # its own


def test_a_unique_value_is_free_once_its_holder_has_let_go(site: Site, model: Model) -> None:
    site.create(model, "a", title="x", email="1")
    site.update(model, "a", email="2")
    site.create(model, "b", title="x", email="1")
    site.delete(model, "b")
    site.create(model, "c", title="x", email="1")
    site.update(model, "c", email=None)
    site.create(model, "d", title="x", email="1")


def test_a_value_that_changes_hands_within_a_group_is_taken_once(site: Site, model: Model) -> None:
    results = site.group(
        one(create(model, "a", title="x", email="1")),
        one(update(model, "a", email="2")),
        one(create(model, "b", title="x", email="1")),
        one(create(model, "c", title="x", email="1")),
    ).results
    assert [type(result) for result in results] == [list, list, list, NotUnique]


def test_what_a_failed_change_freed_and_took_is_as_it_was(site: Site, model: Model) -> None:
    site.create(model, "a", title="x", email="1")
    failing = [
        update(model, "a", email=None),
        create(model, "b", title="x", email="1"),
        Edit(EditKind.CREATE, model, "c", {"title": "x"}, None, refuse),
    ]
    results = site.group(one(*failing), one(create(model, "d", title="x", email="1"))).results
    assert [type(result) for result in results] == [Refused, NotUnique]


Step = tuple[str, str, str | None]  # create, update or delete; id; email

unique_steps = st.lists(
    st.tuples(
        st.sampled_from(["create", "update", "delete", "refused"]),
        st.sampled_from("abcd"),
        st.sampled_from(["1", "2", None]),
    ),
    max_size=14,
)


@settings(max_examples=2 * settings().max_examples)
@given(steps=unique_steps, cuts=st.sets(st.integers(0, 14)))
def test_unique_values_hold_within_groups_and_across_them(steps: list[Step], cuts: set[int]) -> None:
    """A group must come out as if each change had been alone."""
    site = Site()
    model = site.define(TASK)
    held: dict[str, str | None] = {}  # the model: id -> email
    group: list[DocumentChange] = []
    expected: list[bool] = []

    def flush() -> None:
        results = site.group(*group).results
        assert [not isinstance(result, Exception) for result in results] == expected
        group.clear()
        expected.clear()

    for number, (kind, id, email) in enumerate(steps):
        if number in cuts:
            flush()
        is_free = email is None or all(held.get(other) != email for other in held if other != id)
        if kind == "delete":
            group.append(one(delete(model, id)))
            expected.append(id in held)
            held.pop(id, None)
        elif kind == "refused":  # takes what it can and fails then
            last = Edit(EditKind.PUT, model, "z", {"title": "x"}, None, refuse)
            group.append(one(Edit(EditKind.PUT, model, id, {"title": "x", "email": email}), last))
            expected.append(False)
        else:
            edit = create(model, id, title="x", email=email)
            group.append(one(edit if kind == "create" else update(model, id, email=email)))
            is_possible = is_free and (id in held) == (kind == "update")
            expected.append(is_possible)
            if is_possible:
                held[id] = email
    flush()
    assert {d.id: d.values().get("email") for d in documents_of(site, model)} == held


def test_several_fields_are_unique_together(site: Site) -> None:
    indexes = [{"key": {"title": 1, "points": 1}, "unique": True}]
    model = site.define({**TASK, "name": "Pair", "indexes": indexes})
    site.create(model, "a", title="x", points=1)
    site.create(model, "b", title="x", points=2)
    site.create(model, "c", title="x")  # no value equals another
    site.create(model, "d", title="x")
    with pytest.raises(NotUnique) as refused:
        site.update(model, "b", points=1)
    assert refused.value.fields.keys() == {"title", "points"}
    with pytest.raises(NotUnique):
        site.update(model, "c", points=2)
    site.delete(model, "a")
    site.update(model, "b", points=1)


def test_while_the_index_is_being_filled_unique_values_wait_and_others_do_not(
    site: Site, model: Model
) -> None:
    site.create(model, "a", title="x", email="1")
    site.integrator.indexer.distrust()
    with pytest.raises(IndexUnavailable):
        site.create(model, "b", title="x", email="2")
    site.create(model, "c", title="x")
    site.catch_up()
    site.create(model, "b", title="x", email="2")
    assert site.indexed(model) == {"a", "b", "c"}


def test_an_index_that_turns_out_damaged_is_filled_anew(
    site: Site, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(*_: object, **__: object) -> None:
        raise IndexDamaged("the file is damaged")

    assert site.index is not None
    with monkeypatch.context() as patch:
        patch.setattr(site.index, "find_unique_together", damaged)
        with pytest.raises(IndexUnavailable):
            site.create(model, "a", title="x", email="1")
    assert site.integrator.indexer.is_stale
    site.catch_up()
    site.create(model, "a", title="x", email="1")
