"""Stored documents and their histories."""

import pytest

from protocol.changes import Edit, EditKind
from storage.documents import BodyAddress
from storage.errors import StoreDamaged
from storage.kv import Table
from storage.store import Store
from tests.storage.kit import TASK, Site, create, delete, update


@pytest.fixture
def site() -> Site:
    return Site()


def history(site: Site, model_id: str, id: str) -> list[BodyAddress]:
    with site.store.read() as snapshot:
        return list(snapshot.documents.history(site.store.space("default"), model_id, id))


def test_a_document_is_read_back_as_it_was_left(site: Site) -> None:
    model = site.define(TASK)
    record = site.create(
        model, "a", title="x", tags=["p", "q"], votes=3, extra={"deep": [1, None, {"n": 1.5}]}
    )
    site.change(Edit(EditKind.UPDATE, model, "a", {"votes": 5, "tags": ["q", "r"], "points": -1}), user="bob")
    with site.store.read() as snapshot:
        document = snapshot.documents.get(site.store.space("default"), model.id, "a")
    assert document is not None
    values = document.values()
    assert sorted(values.pop("tags")) == ["q", "r"]
    assert values == {"title": "x", "points": -1, "votes": 5, "extra": {"deep": [1, None, {"n": 1.5}]}}
    assert (document.created_user, document.updated_user) == ("ann", "bob")
    assert document.version != record.version


def test_absent_documents_and_models_are_none(site: Site) -> None:
    model = site.define(TASK)
    with site.store.read() as snapshot:
        space = site.store.space("default")
        assert snapshot.documents.get(space, model.id, "a") is None
        assert snapshot.documents.get(space, "other", "a") is None
        assert snapshot.documents.get(site.store.system, model.id, "a") is None
        assert list(snapshot.documents.all_of(space, "other")) == []
        assert list(snapshot.documents.history(space, "other", "a")) == []


def test_documents_of_a_model_come_by_id_from_where_one_asks(site: Site) -> None:
    model = site.define(TASK)
    site.change(*(create(model, id, title=id) for id in ("b", "a", "ab", "c", "a.b")))
    site.delete(model, "c")
    with site.store.read() as snapshot:
        space = site.store.space("default")
        assert [d.id for d in snapshot.documents.all_of(space, model.id)] == ["a", "a.b", "ab", "b", "c"]
        assert [d.id for d in snapshot.documents.all_of(space, model.id, after_id="a")][:2] == ["a.b", "ab"]
        assert [d.exists for d in snapshot.documents.all_of(space, model.id)] == [True] * 4 + [False]


def test_history_names_every_body_in_order(site: Site) -> None:
    model = site.define(TASK)  # the first commit of the space
    site.create(model, "a", title="x")
    site.change(update(model, "a", title="y"), create(model, "b", title="x"), update(model, "a", title="z"))
    site.delete(model, "a")
    assert [(at.seq, at.index) for at in history(site, model.id, "a")] == [(2, 0), (3, 0), (3, 2), (4, 0)]
    assert [(at.seq, at.index) for at in history(site, model.id, "b")] == [(3, 1)]


def test_the_history_of_one_id_holds_nothing_of_another_that_begins_with_it(site: Site) -> None:
    model = site.define(TASK)
    for id in ("a", "aa", "a" * 11, "ab"):
        site.create(model, id, title="x")
    for id in ("a", "aa", "a" * 11, "ab"):
        assert len(history(site, model.id, id)) == 1, id


def test_a_state_that_makes_no_sense_is_damage(site: Site) -> None:
    model = site.define(TASK)
    site.create(model, "a", title="x")
    store: Store = site.store
    collection = store.names.collection(store.space("default"), model.id)
    assert collection is not None
    key = collection.to_bytes(4, "big") + b"a"
    for state in (b"", b"\x80", b"\x87" + b"\x00" * 7, b"\x01", b"\xa0"):
        with store.keys.write() as batch:
            batch.put(Table.DOCUMENTS, key, state)
        with store.read() as snapshot, pytest.raises(StoreDamaged, match="civicnode doctor"):
            snapshot.documents.get(store.space("default"), model.id, "a")


def test_everything_covers_every_space(site: Site) -> None:
    for application in ("default", "second"):
        model = site.define(TASK, application)
        site.change(create(model, "a", title=application), application=application)
        site.change(delete(model, "a"), application=application)
    spaces = {space for space, _, _ in site.documents()}
    assert spaces == {site.store.space("default"), site.store.space("second")}
    assert len(site.documents()) == 4  # two definitions, two deleted tasks
