"""The one write path: what a group of changes leaves behind, and what it must not."""

from pathlib import Path

import pytest

from protocol.changes import DocumentChange, Edit, EditKind, Record
from protocol.clock import hlc_of_ms
from protocol.errors import TooLarge
from protocol.integrate import Change
from protocol.schema import Model
from storage.changes import Written
from storage.errors import (
    DocumentExists,
    IndexUnavailable,
    NotUnique,
    StorageFailed,
    StorageFull,
    StoreDamaged,
    UnknownDocument,
    UnknownModel,
    VersionMismatch,
)
from storage.kv import Table
from storage.local import LocalWriter
from storage.memory_kv import MemoryKeyValueStore
from tests.storage.kit import (
    APPLICATION,
    NOW_MS,
    TASK,
    Refused,
    Site,
    create,
    delete,
    is_stale,
    one,
    refuse,
    tables,
    update,
)

# -- what a change answers ---------------------------------------------------------------------------------


def test_a_create_answers_the_record_and_stores_it(site: Site, model: Model) -> None:
    record = site.create(model, "a", title="x", tags=["q"], votes=2)
    assert record.values == {"title": "x", "tags": ["q"], "votes": 2} == site.values(model, "a")
    assert (record.created_by, record.created_at_ms, record.updated_at_ms) == (
        "ann",
        site.now_ms,
        site.now_ms,
    )
    assert site.indexed(model) == {"a"}


def test_an_update_changes_the_given_fields_alone(site: Site, model: Model) -> None:
    first = site.create(model, "a", title="x", points=1)
    second = site.update(model, "a", points=2)
    assert second.values == {"title": "x", "points": 2}
    assert second.created_at_ms == first.created_at_ms < second.updated_at_ms
    assert second.version != first.version


def test_a_create_where_there_is_one_and_others_where_there_is_none_are_refused(
    site: Site, model: Model
) -> None:
    site.create(model, "a", title="x")
    with pytest.raises(DocumentExists):
        site.create(model, "a", title="y")
    with pytest.raises(UnknownDocument):
        site.update(model, "b", title="y")
    with pytest.raises(UnknownDocument):
        site.delete(model, "b")
    assert site.values(model, "a") == {"title": "x"}


def test_a_deleted_document_can_be_created_again_with_its_new_values_alone(site: Site, model: Model) -> None:
    site.create(model, "a", title="x", points=1, tags=["old"], votes=5)
    site.delete(model, "a")
    assert site.values(model, "a") is None
    assert site.indexed(model) == set()
    site.create(model, "a", title="y", votes=1)
    assert site.values(model, "a") == {"title": "y", "votes": 1}
    assert site.indexed(model) == {"a"}


def test_put_creates_or_changes(site: Site, model: Model) -> None:
    site.put(model, "a", {"title": "x", "points": 1})
    site.put(model, "a", {"title": "y"})
    assert site.values(model, "a") == {"title": "y", "points": 1}


def test_a_change_that_changes_nothing_makes_no_commit(site: Site, model: Model) -> None:
    record = site.create(model, "a", title="x", tags=["p"])
    before = site.store.counts()
    assert site.update(model, "a") == record
    assert site.update(model, "a", tags=["p"]) == record
    assert site.store.counts() == before


def test_if_match_guards_updates_and_deletes(site: Site, model: Model) -> None:
    first = site.create(model, "a", title="x")
    second = site.update(model, "a", first.version, title="y")
    with pytest.raises(VersionMismatch) as refused:
        site.update(model, "a", first.version, title="z")
    assert refused.value.current == second.version
    with pytest.raises(VersionMismatch):
        site.delete(model, "a", first.version)
    assert site.values(model, "a") == {"title": "y"}
    site.delete(model, "a", second.version)
    assert site.values(model, "a") is None


def test_if_match_sees_what_the_group_has_done_before(site: Site, model: Model) -> None:
    record = site.create(model, "a", title="x")
    edits = [Edit(EditKind.UPDATE, model, "a", {"title": t}, record.version) for t in ("y", "z")]
    results = site.group(*(one(edit) for edit in edits)).results
    assert isinstance(results[1], VersionMismatch)
    assert site.values(model, "a") == {"title": "y"}


def test_a_guard_sees_the_record_as_it_stands_and_may_refuse(site: Site, model: Model) -> None:
    seen: list[Record | None] = []
    site.create(model, "a", seen.append, title="x")
    site.change(Edit(EditKind.UPDATE, model, "a", {"title": "y"}, None, seen.append))
    site.change(Edit(EditKind.DELETE, model, "a", {}, None, seen.append))
    site.create(model, "a", seen.append, title="z")
    assert [record and record.values["title"] for record in seen] == [None, "x", "y", None]
    with pytest.raises(Refused):
        site.create(model, "b", refuse, title="x")
    assert site.values(model, "b") is None


def test_values_that_were_checked_against_an_older_definition_are_not_stored(
    site: Site, model: Model
) -> None:
    wider = site.define({**TASK, "fields": [*TASK["fields"], {"name": "place", "type": "string"}]})
    with pytest.raises(IndexUnavailable, match="has just changed: ask again"):
        site.create(model, "a", title="x")
    site.create(wider, "a", title="x", place="here")
    site.undefine(wider)
    with pytest.raises(UnknownModel):
        site.update(wider, "a", title="y")
    site.delete(wider, "a")  # what is there can be deleted whatever its model says


# -- groups ------------------------------------------------------------------------------------------------


def test_a_group_is_one_commit_a_space(site: Site, model: Model) -> None:
    other = site.define(TASK, "second")
    before = site.store.statistics()["commits"], site.store.counts()["commits"]
    written = site.group(
        one(create(model, "a", title="x")),
        DocumentChange("second", "bob", [create(other, "a", title="y")]),
        one(create(model, "b", title="z"), create(model, "c", title="z")),
    )
    after = site.store.statistics()["commits"], site.store.counts()["commits"]
    assert (after[0] - before[0], after[1] - before[1]) == (1, 2)
    assert [len(commit.bodies) for commit in site.commits()[-2:]] == [3, 1]
    assert [(e.application, e.id, e.user, e.change) for e in written.entries] == [
        ("default", "a", "ann", Change.CREATED),
        ("default", "b", "ann", Change.CREATED),
        ("default", "c", "ann", Change.CREATED),
        ("second", "a", "bob", Change.CREATED),
    ]


def test_a_change_that_fails_leaves_no_trace_and_the_others_stand(site: Site, model: Model) -> None:
    site.create(model, "kept", title="x", points=1, tags=["a"], votes=1)
    twin = Site(seed=1)
    twin.define(TASK)
    with site.store.read() as snapshot:
        before = snapshot.documents.get(site.store.space(APPLICATION), model.id, "kept")
    written = site.group(
        one(create(model, "a", title="x")),
        one(
            update(model, "kept", points=2, tags=["b"], votes=9),
            create(model, "b", title="x"),
            update(model, "a", title="changed"),
            delete(model, "a"),
            create(model, "a", title="again"),
            Edit(EditKind.CREATE, model, "c", {"title": "x"}, None, refuse),
        ),
        one(create(model, "d", title="x")),
    )
    assert [type(result) for result in written.results] == [list, Refused, list]
    assert [site.values(model, id) for id in ("a", "b", "c", "d")] == [
        {"title": "x"},
        None,
        None,
        {"title": "x"},
    ]
    with site.store.read() as snapshot:
        assert snapshot.documents.get(site.store.space(APPLICATION), model.id, "kept") == before
    assert [entry.id for entry in written.entries] == ["a", "d"]
    assert site.indexed(model) == {"kept", "a", "d"}
    assert len(site.commits()[-1].bodies) == 2


def test_edits_that_stand_for_themselves_fail_alone(site: Site, model: Model) -> None:
    results = site.change(
        create(model, "a", title="x"),
        create(model, "a", title="twice"),
        Edit(EditKind.CREATE, model, "b", {"title": "x"}, None, refuse),
        create(model, "c", title="x"),
        is_atomic=False,
    )
    assert [type(result) for result in results] == [Record, DocumentExists, Refused, Record]
    assert site.indexed(model) == {"a", "c"}


def test_a_group_in_which_everything_fails_writes_no_commit(site: Site, model: Model) -> None:
    before = tables(site.store.keys)
    written = site.group(one(create(model, "a", refuse, title="x")), one(update(model, "b", title="x")))
    assert [type(result) for result in written.results] == [Refused, UnknownDocument]
    assert tables(site.store.keys) == before
    assert written.entries == []


def test_a_change_of_too_many_edits_is_refused(site: Site, model: Model) -> None:
    with pytest.raises(TooLarge):
        site.change(*[create(model, "a", title="x")] * 10_001)


def test_large_documents_are_spread_over_commits(site: Site, model: Model) -> None:
    """Each within its own limits: that others came first in the group is no reason to refuse it."""
    text = "x" * 1_000_000
    before = site.store.statistics()["commits"]
    edits = [create(model, f"t{number}", title=text, email=str(number)) for number in range(40)]
    single = site.group(*(one(edit) for edit in edits[:20]), one(create(model, "twice", title="", email="3")))
    assert [type(result) for result in single.results] == [list] * 20 + [NotUnique]
    results = site.change(*edits[20:], is_atomic=False)
    assert [type(result) for result in results] == [Record] * 20
    assert site.store.statistics()["commits"] - before == 2
    assert sorted(len(commit.bodies) for commit in site.commits()[2:]) == [4, 4, 16, 16]
    with pytest.raises(TooLarge):
        site.change(*(create(model, f"u{number}", title=text) for number in range(20)))  # all or nothing
    with pytest.raises(TooLarge):
        site.create(model, "huge", title=text, email=text, extra=[text])
    assert len(site.indexed(model)) == 40


def test_what_does_not_fit_into_the_commit_any_more_begins_another(site: Site, model: Model) -> None:
    large = "x" * 900_000
    before = len(site.commits())
    changes = [one(create(model, f"t{number}", title="x", extra=large)) for number in range(40)]
    written = site.group(*changes, one(update(model, "t0", title="y")), one(delete(model, "t1")))
    assert [type(result) for result in written.results] == [list] * 42
    assert len(site.commits()) - before == 3  # of at most 16 MiB
    assert [(e.id, e.change) for e in written.entries[-2:]] == [
        ("t0", Change.UPDATED),
        ("t1", Change.DELETED),
    ]
    assert site.indexed(model) == {f"t{number}" for number in range(40)} - {"t1"}
    found = site.values(model, "t0")
    assert found is not None and found["title"] == "y"


def test_a_commit_that_cannot_be_stored_undoes_the_whole_group(
    site: Site, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    before = tables(site.store.keys)
    many = [[create(model, f"{name}{number}", title="x") for number in range(6_000)] for name in "ab"]
    with monkeypatch.context() as patch:
        patch.setattr("storage.documents.DocumentWriter.store", fail)  # the log has it by then
        with pytest.raises(ZeroDivisionError):
            site.group(*(one(*edits) for edits in many))
    assert tables(site.store.keys) == before
    site.create(model, "a0", title="x")


def test_one_change_is_never_parted_over_two_commits(site: Site, model: Model) -> None:
    first, second = (
        [create(model, f"{name}{number}", title="x") for number in range(6_000)] for name in "ab"
    )
    before = len(site.commits())
    written = site.group(one(*first), one(*second))
    assert [len(result) for result in written.results] == [6_000, 6_000]
    assert [len(commit.bodies) for commit in site.commits()[before:]] == [6_000, 6_000]


def test_a_unique_value_is_taken_across_the_commits_of_a_group(site: Site) -> None:
    model = site.define({"name": "Coin", "fields": [
        {"name": "code", "type": "string", "unique": True}, {"name": "extra", "type": "string"}]})  # fmt: skip
    large = "x" * 900_000
    changes = [one(create(model, f"t{number}", code=f"{number % 20}", extra=large)) for number in range(40)]
    results = site.group(*changes).results
    assert [type(result) for result in results] == [list] * 20 + [NotUnique] * 20


# -- records of this device --------------------------------------------------------------------------------


def test_local_changes_share_the_transaction_and_fail_alone(site: Site, model: Model) -> None:
    def count(local: LocalWriter) -> int:
        value = (local.get("counter", "a") or {"n": 0})["n"] + 1
        local.put("counter", "a", {"n": value})
        return int(value)

    def fail(local: LocalWriter) -> None:
        local.put("counter", "a", {"n": 99})
        local.delete("counter", "a")
        local.put("counter", "b", {})
        raise Refused

    before = site.store.statistics()["commits"]
    results = site.group(count, fail, one(create(model, "a", title="x")), count).results
    assert (results[0], type(results[1]), results[3]) == (1, Refused, 2)
    assert site.store.statistics()["commits"] - before == 1
    with site.store.read() as snapshot:
        assert snapshot.local.get("counter", "a") == {"n": 2}
        assert list(snapshot.local.scan("counter")) == [("a", {"n": 2})]


# -- when the disk does not take it ------------------------------------------------------------------------


@pytest.mark.parametrize("failure", [StorageFull("no space"), StorageFailed("the disk failed")])
def test_nothing_of_a_group_is_kept_that_the_disk_does_not_take(failure: Exception) -> None:
    site = Site()
    model = site.define(TASK)
    site.create(model, "a", title="x")
    memory = site.store.keys
    assert isinstance(memory, MemoryKeyValueStore)
    before, noted = tables(memory), list(site.noted)
    memory.fail_next_write = failure
    with pytest.raises(type(failure)):
        site.group(one(create(model, "b", title="x")), lambda local: local.put("kind", "key", {}))
    assert tables(memory) == before
    assert site.noted == noted
    assert site.indexed(model) == {"a"}
    if isinstance(failure, StorageFull):
        site.create(model, "b", title="x")
        assert site.indexed(model) == {"a", "b"}
    else:
        with pytest.raises(StorageFailed):
            site.create(model, "b", title="x")
        assert site.values(model, "a") == {"title": "x"}  # reads go on


def test_a_damaged_document_fails_its_own_changes_alone(site: Site, model: Model) -> None:
    site.create(model, "a", title="x")
    collection = site.store.names.collection(site.store.space(APPLICATION), model.id)
    assert collection is not None
    with site.store.keys.write() as batch:
        batch.put(Table.DOCUMENTS, collection.to_bytes(4, "big") + b"a", b"\x80")
    results = site.group(one(update(model, "a", title="y")), one(create(model, "b", title="x"))).results
    assert [type(result) for result in results] == [StoreDamaged, list]


def test_an_error_of_the_engine_fails_the_whole_group_though_a_change_swallowed_it(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        model = site.define(TASK)

        def overlong(local: LocalWriter) -> None:
            local._transaction.put(Table.LOCAL, b"", b"")

        with pytest.raises(Exception, match="keys have 1 to 511"):
            site.group(one(create(model, "a", title="x")), overlong)
        assert site.values(model, "a") is None
        site.create(model, "a", title="x")


# -- the index after a commit ------------------------------------------------------------------------------


def test_an_index_that_fails_after_the_commit_makes_it_stale_and_not_failed(
    site: Site, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert site.index is not None

    def fail(*_: object, **__: object) -> None:
        raise StorageFull("the index has no room")

    with monkeypatch.context() as patch:
        patch.setattr(site.index, "apply", fail)
        site.create(model, "a", title="x")
        assert is_stale(site)
        site.update(model, "a", title="y")
        with pytest.raises(StorageFull):
            site.integrator.indexer.refill()
    assert site.values(model, "a") == {"title": "y"}
    site.create(model, "b", title="z")
    site.catch_up()
    assert not is_stale(site)
    assert site.indexed(model) == {"a", "b"}
    assert site.index.check() == []


def test_whatever_the_index_raises_the_write_is_acknowledged(
    site: Site, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert site.index is not None
    for name in ("apply", "ensure_model"):

        def fail(*_: object, **__: object) -> None:
            raise ZeroDivisionError

        with monkeypatch.context() as patch:
            patch.setattr(site.index, name, fail)
            site.create(model, f"with-{name}", title="x")
            definitions = site.catalog.find(APPLICATION, "$model")
            assert definitions is not None
            site.put(definitions, model.id, {"plural": name})
        site.catch_up()
    assert site.indexed(model) == {"with-apply", "with-ensure_model"}


# -- who hears of it ---------------------------------------------------------------------------------------


def test_the_anchor_is_told_of_each_commit_before_anyone_hears_of_it(site: Site, model: Model) -> None:
    space = site.store.space(APPLICATION)
    assert site.noted == [(space, 1)]
    site.create(model, "a", title="x")
    assert site.noted == [(space, 1), (space, 2)]


def test_that_a_commit_of_ours_is_durable_is_told_before_the_index_follows(site: Site, model: Model) -> None:
    told: list[tuple[int, int]] = []

    def on_durable(written: Written) -> None:
        assert site.index is not None
        with site.store.read() as snapshot:
            told.append((snapshot.log.last_arrival(), (site.index.position() or (b"", 0))[1]))
        assert [arrival for _, _, arrival in written.plain] == [written.arrival]

    change = DocumentChange(APPLICATION, "ann", [create(model, "a", title="x")])
    before = site.index.position() if site.index is not None else None
    assert before is not None
    site.integrator.write([change], site.now_ms, on_durable)
    assert told == [(before[1] + 1, before[1])]
    site.integrator.write([lambda local: None], site.now_ms, on_durable)
    assert len(told) == 1


def test_entries_say_what_changed(site: Site, model: Model) -> None:
    site.create(model, "a", title="x", points=1)
    entries = site.group(one(update(model, "a", title="y")), one(delete(model, "a"), user="bob")).entries
    assert [(e.change, e.changed, e.user, e.index) for e in entries] == [
        (Change.UPDATED, {"title": "y"}, "ann", 0),
        (Change.DELETED, {}, "bob", 1),
    ]
    assert {e.arrival for e in entries} == {site.arrivals()[-1].number}


def test_timestamps_grow_whatever_the_wall_clock_does(site: Site, model: Model) -> None:
    for number, now_ms in enumerate((NOW_MS, NOW_MS - 10_000, NOW_MS, NOW_MS + 1)):
        site.integrator.write([one(create(model, f"t{number}", title="x"))], now_ms)
    hlcs = [commit.header.hlc for commit in site.commits()]
    assert hlcs == sorted(set(hlcs))


def test_the_clock_goes_on_after_a_restart(site: Site, model: Model) -> None:
    site.create(model, "a", title="x")
    last = site.commits()[-1].header.hlc
    site.start()
    site.integrator.write([one(create(model, "b", title="x"))], site.now_ms - 30_000)
    assert site.commits()[-1].header.hlc > last


def test_the_clock_of_others_is_observed_after_a_restart_too() -> None:
    first = Site(seed=1)
    model = first.define(TASK)
    ahead = Site(seed=2, founder=first, now_ms=NOW_MS + 60_000)
    ahead.receive_from(first)
    ahead.create(model, "a", title="theirs")
    first.receive_from(ahead)
    first.start()
    first.update(model, "a", title="ours")
    assert first.commits()[-1].header.hlc > ahead.commits()[-1].header.hlc
    far = Site(seed=3, founder=first, now_ms=NOW_MS + 86_400_000)
    far.receive_from(first)
    far.create(model, "b", title="far")
    first.receive_from(far)
    first.start()
    first.create(model, "c", title="ours")
    assert first.commits()[-1].header.hlc < hlc_of_ms(NOW_MS + 3_600_000)  # it never drags us along


# -- what those who hear of it are handed ------------------------------------------------------------------


def test_an_entry_carries_the_record_as_the_whole_group_has_left_it(site: Site, model: Model) -> None:
    written = site.group(
        one(create(model, "a", title="x"), create(model, "b", title="y")),
        one(update(model, "a", title="z")),
        one(delete(model, "b")),
    )
    records = {(entry.id, entry.change): entry.record for entry in written.entries}
    shown = records["a", Change.CREATED]
    assert shown is not None and shown.values == {"title": "z"}
    assert records["a", Change.UPDATED] is shown
    assert records["b", Change.CREATED] is records["b", Change.DELETED] is None


def test_an_entry_of_another_node_carries_the_record_too(site: Site, model: Model) -> None:
    other = Site(seed=9, founder=site)
    other.receive_from(site)
    site.create(model, "a", title="x", points=3)
    records = [entry.record for entry in other.receive_from(site) if entry.id == "a"]
    assert [record.values for record in records if record is not None] == [{"title": "x", "points": 3}]
