"""The index kept up to the record: followed, caught up with, filled anew, whatever interrupts it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.query import parse_query
from protocol.schema import Model
from storage import indexer
from storage.ancestry import past_in
from storage.errors import IndexDamaged, StorageFull
from storage.gate import INDEX_FILE
from storage.index import Index
from storage.indexer import SLICE, row_of
from tests.storage.kit import TASK, Site, create, delete, failure, is_stale, update


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path / "node") as site:
        yield site


@pytest.fixture
def model(site: Site) -> Model:
    return site.define(TASK)


def restarted(site: Site) -> Site:
    assert site.directory is not None
    site.close()
    return Site(site.directory)


def without_index(site: Site) -> Site:
    """The same node, going on without its index."""
    assert site.directory is not None
    site.close()
    return Site(site.directory, index=False)


def position(site: Site) -> int:
    assert site.index is not None
    found = site.index.position()
    assert found is not None
    return found[1]


def is_true_to_the_record(site: Site) -> bool:
    """Whether every row is that of its document, and none is missing."""
    assert site.index is not None and not site.integrator.indexer.is_stale
    with site.store.read() as snapshot:
        for application in snapshot.applications():
            for model in site.catalog.all_of(application):
                space = site.store.space(application)
                past_of = past_in(snapshot, space)
                documents = list(snapshot.documents.all_of(space, model.id))
                rows = [
                    row for document in documents if (row := row_of(model, document, past_of)) is not None
                ]
                if site.index.differences(model, rows):
                    return False
        return position(site) == snapshot.log.last_arrival()


def test_a_new_node_is_ready_to_be_asked_at_once(site: Site) -> None:
    assert not site.integrator.indexer.is_stale
    assert is_true_to_the_record(site)


def test_a_new_model_of_which_there_is_nothing_leaves_the_others_to_be_asked(
    site: Site, model: Model
) -> None:
    assert not site.integrator.indexer.is_stale
    site.create(model, "a", title="x")
    site.define({**TASK, "name": "Other"})
    assert not site.integrator.indexer.is_stale
    assert is_true_to_the_record(site)


def test_after_a_clean_stop_nothing_is_read_again(site: Site, model: Model) -> None:
    site.create(model, "a", title="x")
    with restarted(site) as again:
        assert not again.integrator.indexer.is_stale
        assert is_true_to_the_record(again)


def test_an_index_that_is_missing_is_filled(site: Site, model: Model) -> None:
    site.change(*(create(model, f"t{n}", title="x") for n in range(20)))
    site.close()
    assert site.directory is not None
    for file in site.directory.glob(INDEX_FILE + "*"):
        file.unlink()
    with Site(site.directory) as again:
        assert again.integrator.indexer.is_stale
        slices = 0
        while again.integrator.indexer.refill(limit=8):
            slices += 1
        assert slices >= 3  # not all at once
        assert len(again.indexed(model)) == 20
        assert is_true_to_the_record(again)


def test_an_index_of_another_life_is_filled_anew(site: Site, model: Model) -> None:
    site.create(model, "a", title="x")
    site.close()
    assert site.directory is not None
    (site.directory / "anchor").unlink()
    with Site(site.directory) as again:
        assert again.new_life is not None
        again.catch_up()
        assert is_true_to_the_record(again)


def test_an_index_that_is_behind_reads_what_it_missed_and_no_more(
    site: Site, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.change(*(create(model, f"t{n}", title="x") for n in range(50)))
    with without_index(site) as between:
        between.change(update(model, "t1", title="y"), delete(model, "t2"), create(model, "new", title="z"))
        between.update(model, "t1", title="z")
    assert site.directory is not None
    with Site(site.directory) as again:
        assert again.integrator.indexer.is_stale
        assert position(again) == again.arrivals()[-1].number - 2
        applied: list[str] = []
        whole = Index.apply

        def apply(index: Index, rows: Any, deletes: Any, arrival: int, **more: Any) -> Any:
            rows, deletes = list(rows), list(deletes)
            applied.extend([row.id for _, row in rows] + [id for _, id in deletes])
            return whole(index, rows, deletes, arrival, **more)

        monkeypatch.setattr(Index, "apply", apply)
        again.catch_up()
        assert sorted(applied) == ["new", "t1", "t2"]
        assert is_true_to_the_record(again)


def test_models_that_changed_while_the_index_was_behind_are_read_whole(site: Site, model: Model) -> None:
    gone = site.define({**TASK, "name": "Gone"})
    for number in range(5):
        site.create(model, f"t{number}", title="x")
        site.create(gone, f"g{number}", title="x")
    with without_index(site) as between:
        between.undefine(gone)
        between.define({**TASK, "fields": [*TASK["fields"], {"name": "place", "type": "string"}]})
        late = between.define({**TASK, "name": "Late"})
        between.create(late, "l", title="x")
        between.define(TASK, "second")
    assert site.directory is not None
    with Site(site.directory) as again:
        again.catch_up()
        assert again.indexed(late) == {"l"}
        assert len(again.indexed(model)) == 5
        with pytest.raises(Exception, match=r"no such table|m_gone"):
            again.indexed(gone)
        assert is_true_to_the_record(again)


def test_a_model_that_the_index_lacks_is_read_even_if_the_first_try_is_cut_short(
    site: Site, model: Model
) -> None:
    """As after an upgrade that brings a model of its own: the position alone would say that all was read."""
    site.create(model, "a", title="x")
    assert site.index is not None
    site.index.drop_model(model.id)
    with restarted(site) as half:
        assert half.integrator.indexer.is_stale
    with restarted(half) as again:
        again.catch_up()
        assert again.indexed(model) == {"a"}
        assert is_true_to_the_record(again)


def test_an_index_that_is_ahead_is_filled_anew(site: Site, model: Model) -> None:
    site.create(model, "a", title="x")
    assert site.index is not None
    site.index.apply([], [], 1_000)
    with restarted(site) as again:
        again.catch_up()
        assert is_true_to_the_record(again)


@pytest.mark.parametrize("slices", range(6))
def test_a_crash_in_the_middle_of_filling_is_made_up_for(site: Site, model: Model, slices: int) -> None:
    for number in range(10):
        site.create(model, f"t{number}", title="x")
    site.integrator.indexer.distrust()
    for _ in range(slices):
        site.integrator.indexer.refill(limit=3)
    site.create(model, "meanwhile", title="x")
    site.update(model, "t0", title="y")
    with restarted(site) as again:
        again.catch_up()
        assert len(again.indexed(model)) == 11
        assert is_true_to_the_record(again)


@pytest.mark.parametrize("slices", range(4))
def test_a_crash_in_the_middle_of_catching_up_is_made_up_for(site: Site, model: Model, slices: int) -> None:
    with without_index(site) as between:
        for number in range(10):
            between.create(model, f"t{number}", title="x")
    assert site.directory is not None
    with Site(site.directory) as half:
        for _ in range(slices):
            half.integrator.indexer.refill(limit=3)
        half.create(model, "meanwhile", title="x")
    with Site(site.directory) as again:
        again.catch_up()
        assert len(again.indexed(model)) == 11
        assert is_true_to_the_record(again)


@pytest.mark.parametrize("slices", range(4))
def test_a_crash_while_a_changed_model_is_read_is_made_up_for(
    site: Site, model: Model, slices: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexer, "SLICE", 3)  # of which a model this short is not read at once
    for number in range(10):
        site.create(model, f"t{number}", title="x")
    definitions = site.catalog.find("default", "$model")
    assert definitions is not None
    field = {"name": "place", "type": "string", "required": False, "default": "here"}
    site.put(definitions, model.id, {"field:place": field})
    assert site.integrator.indexer.is_stale
    for _ in range(slices):
        site.integrator.indexer.refill(limit=3)
    with restarted(site) as again:
        again.catch_up()
        assert is_true_to_the_record(again)


def test_a_changed_model_of_few_documents_is_read_again_before_the_change_is_answered(
    site: Site, model: Model
) -> None:
    site.change(*(create(model, f"t{number}", title="x") for number in range(SLICE - 1)))
    definitions = site.catalog.find("default", "$model")
    assert definitions is not None
    site.put(definitions, model.id, {"field:place": {"name": "place", "type": "string", "default": "here"}})
    assert not is_stale(site)
    assert len(site.indexed(model)) == SLICE - 1
    assert is_true_to_the_record(site)


def test_a_model_that_is_read_again_holds_up_no_other(site: Site, model: Model) -> None:
    other = site.define({**TASK, "name": "Other"})
    site.change(*(create(model, f"t{number}", title="x") for number in range(SLICE + 10)))
    definitions = site.catalog.find("default", "$model")
    assert definitions is not None
    site.put(definitions, model.id, {"field:place": {"name": "place", "type": "string", "default": "here"}})
    indexer = site.integrator.indexer
    assert (indexer.is_stale_for(model.id), indexer.is_stale_for(other.id)) == (True, False)
    site.create(other, "a", title="x")
    assert site.indexed(other) == {"a"}
    site.catch_up()
    assert is_true_to_the_record(site)


def test_what_a_failing_index_missed_is_read_once_there_is_room(
    site: Site, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert site.index is not None

    def full(*_: object, **__: object) -> None:
        raise StorageFull("no room")

    site.create(model, "before", title="x")
    with monkeypatch.context() as patch:
        patch.setattr(site.index, "apply", full)
        site.create(model, "missed", title="x")
        site.delete(model, "before")
    site.create(model, "after", title="x")
    assert is_stale(site)
    assert isinstance(failure(site), StorageFull)
    site.catch_up()
    assert site.indexed(model) == {"missed", "after"}
    assert failure(site) is None
    assert is_true_to_the_record(site)


def test_a_model_that_the_index_could_not_take_is_taken_later(
    site: Site, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert site.index is not None

    def full(*_: object, **__: object) -> None:
        raise StorageFull("no room")

    with monkeypatch.context() as patch:
        patch.setattr(site.index, "ensure_model", full)
        definitions = site.catalog.find("default", "$model")
        assert definitions is not None
        with pytest.raises(StorageFull):
            site.define({**TASK, "name": "Other"})
    other = site.catalog.find("default", "Other")
    assert other is not None and site.integrator.indexer.is_stale
    site.create(other, "a", title="x")
    site.catch_up()
    assert site.indexed(other) == {"a"}
    assert is_true_to_the_record(site)


def test_a_crash_after_the_index_could_not_take_a_change_is_made_up_for(
    site: Site, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert site.index is not None

    def full(*_: object, **__: object) -> None:
        raise StorageFull("no room")

    site.create(model, "a", title="x", points=1)
    site.create(model, "b", title="x", points=100)
    definitions = site.catalog.find("default", "$model")
    assert definitions is not None
    limited = {"name": "points", "type": "integer", "required": False, "indexed": True, "max": 10}
    with monkeypatch.context() as patch:
        patch.setattr(site.index, "ensure_model", full)
        site.put(definitions, model.id, {"field:points": limited})
    with restarted(site) as again:
        again.catch_up()
        assert again.indexed(model) == {"a"}
        assert is_true_to_the_record(again)


def test_damage_that_a_reader_meets_has_the_index_filled_anew(site: Site, model: Model) -> None:
    site.create(model, "a", title="x")
    site.integrator.indexer.distrust(IndexDamaged("a page is damaged"))
    assert site.integrator.indexer.is_stale
    site.create(model, "b", title="x")
    site.catch_up()
    assert site.indexed(model) == {"a", "b"}
    assert is_true_to_the_record(site)


def test_pages_of_the_index_that_go_bad_under_a_running_node_are_made_up_for(
    site: Site, model: Model
) -> None:
    site.change(*(create(model, f"t{n}", title="x" * 50, points=n) for n in range(600)))
    assert site.index is not None and site.directory is not None
    site.index.truncate_log()
    file = site.directory / INDEX_FILE
    with file.open("r+b") as pages:
        for page in range(1, file.stat().st_size // 4_096):
            pages.seek(page * 4_096)
            pages.write(b"\xff" * 4_096)
    asked = parse_query({"filter": "title:like:%y%"}, model)
    with pytest.raises(IndexDamaged) as met:
        site.index.query(model, asked)
    site.integrator.indexer.distrust(met.value)
    site.catch_up()
    assert site.index.query(model, asked).total == 0
    assert len(site.indexed(model)) == 600
    assert is_true_to_the_record(site)


def test_records_that_a_changed_model_does_not_allow_are_hidden_and_come_back(
    site: Site, model: Model
) -> None:
    site.create(model, "a", title="x", points=1)
    site.create(model, "b", title="x", points=100)
    definitions = site.catalog.find("default", "$model")
    assert definitions is not None
    limited = {"name": "points", "type": "integer", "required": False, "indexed": True, "max": 10}
    site.put(definitions, model.id, {"field:points": limited})
    site.catch_up()
    assert site.indexed(model) == {"a"}
    site.put(definitions, model.id, {"field:points": {**limited, "max": 1_000}})
    site.catch_up()
    assert site.indexed(model) == {"a", "b"}


def test_a_definition_that_makes_no_sense_hides_its_documents_and_nothing_else(
    site: Site, model: Model
) -> None:
    other = site.define({**TASK, "name": "Other"})
    site.create(model, "a", title="x")
    site.create(other, "b", title="x")
    definitions = site.catalog.find("default", "$model")
    assert definitions is not None
    before = site.catalog.find("default", "Task")
    for parts in ({"order": 5}, {"order": [[1], "title"]}, {"field:title": 7}, {"indexes": "x"}, {"name": 3}):
        site.put(definitions, model.id, parts)
        site.catch_up()
        assert site.indexed(other) == {"b"}
    assert before is not None and before.name == "Task"
    assert site.catalog.find("default", "Task") is None
    with restarted(site) as again:
        assert again.catalog.find("default", "Other") is not None
        assert again.catalog.find("default", "Task") is None


def test_without_an_index_everything_else_goes_on() -> None:
    site = Site(index=False)
    model = site.define(TASK)
    site.create(model, "a", title="x", email="1")
    assert site.values(model, "a") == {"title": "x", "email": "1"}
    assert site.integrator.indexer.is_stale
    assert site.integrator.indexer.refill() is False


actions = st.lists(
    st.sampled_from(["create", "update", "delete", "model", "fail", "distrust", "slice", "restart"]),
    max_size=25,
)


@given(plan=actions)
def test_whatever_happens_the_index_ends_true_to_the_record(plan: list[str]) -> None:
    site = Site()
    model = site.define(TASK)
    for number, action in enumerate(plan):
        index = site.index
        assert index is not None
        match action:
            case "create":
                site.create(model, f"t{number}", title="x")
            case "update" | "delete":
                ids = [d.id for (_, m, _), d in site.documents().items() if m == model.id and d.exists]
                if ids:
                    edit = (
                        update(model, ids[-1], points=number) if action == "update" else delete(model, ids[0])
                    )
                    site.change(edit)
            case "model":
                definitions = site.catalog.find("default", "$model")
                assert definitions is not None
                field = {"name": f"f{number}", "type": "string", "required": False, "default": "x"}
                site.put(definitions, model.id, {f"field:f{number}": field})
                model = site.catalog.find("default", "Task") or model
            case "fail":
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(
                        index, "apply", lambda *_, **__: (_ for _ in ()).throw(StorageFull("no room"))
                    )
                    site.create(model, f"t{number}", title="x")
            case "distrust":
                site.integrator.indexer.distrust()
            case "slice":
                site.integrator.indexer.refill(limit=2)
            case "restart":
                site.start()
    site.catch_up()
    assert is_true_to_the_record(site)
