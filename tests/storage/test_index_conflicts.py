from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.changes import Edit, EditKind, Record
from protocol.conflict import DELETED, Conflict, conflicts
from protocol.errors import QueryFault
from protocol.resolution import Resolution
from protocol.schema import Model
from protocol.schema_strategy import FOLDING_STRATEGIES, STRATEGIES
from storage import index_conflicts
from storage.ancestry import past_in
from storage.changes import Received
from storage.errors import ConflictChanged, ConflictOpen, IndexUnavailable, StorageError
from storage.index_conflicts import PLACE_DIGITS, ConflictQuery, ConflictRow, NewsPlace, State
from tests.storage.kit import APPLICATION, Site, one, update
from tests.storage.test_indexer import is_true_to_the_record

PLUGIN = "closest@0123456789abcdef"


def definition(strategy: str, name: str = "Task") -> dict[str, Any]:
    merge = strategy in FOLDING_STRATEGIES
    return {
        "name": name,
        "conflict_strategy": strategy,
        "fields": [
            {"name": "title", "type": "string", "required": True},
            {"name": "points", "type": "integer", **({"merge": "sum"} if merge else {})},
            {"name": "best", "type": "integer", "max": 9, **({"merge": "max"} if merge else {})},
            {"name": "notes", "type": "json", **({"merge": "union"} if merge else {})},
            {"name": "tags", "type": "set"},
            {"name": "votes", "type": "counter"},
        ],
    }


class Twins:
    """Nodes of one network that know the same models, one for each strategy, and meet when told."""

    def __init__(self, *strategies: str, nodes: int = 2) -> None:
        self.first = Site(seed=1)
        said = [
            definition(each, f"Task{number or ''}") for number, each in enumerate(strategies or ("crdt",))
        ]
        self.models = [self.first.define(each) for each in said]
        (self.model, *_) = self.models
        self.sites = [self.first, *(Site(seed=n, founder=self.first) for n in range(2, nodes + 1))]
        self.meet()
        for site in self.sites:
            site.catch_up()

    @property
    def second(self) -> Site:
        return self.sites[1]

    def meet(self) -> None:
        """The first hears all others, then they hear it."""
        for other in self.sites[1:]:
            self.first.receive_from(other)
        for other in self.sites[1:]:
            other.receive_from(self.first)

    def apart(self, id: str, *values: dict[str, Any]) -> None:
        """Each node sets these values of a document without knowing of the others', in this order of time."""
        for number, (site, said) in enumerate(zip(self.sites, values, strict=False)):
            site.now_ms = max(s.now_ms for s in self.sites) + number
            site.put(self.model, id, said)
        self.meet()


def record(site: Site, model: Model, id: str) -> Record:
    with site.store.read() as snapshot:
        space = site.store.space(APPLICATION)
        document = snapshot.documents.get(space, model.id, id)
        assert document is not None
        return Record.of(model, document, past_in(snapshot, space))


def open_conflicts(site: Site, model: Model, id: str) -> list[Conflict]:
    with site.store.read() as snapshot:
        space = site.store.space(APPLICATION)
        document = snapshot.documents.get(space, model.id, id)
        assert document is not None
        return conflicts(document, model.rules, past_in(snapshot, space))


def listed(site: Site, model: Model, *, is_open: bool | None = True, **more: Any) -> list[ConflictRow]:
    assert site.index is not None
    return site.index.conflicts(ConflictQuery(APPLICATION, [model.id], is_open=is_open, **more)).rows


def resolve(
    site: Site, model: Model, id: str, conflict: Conflict, values: dict[str, Any], **more: Any
) -> Any:
    ends = Resolution(conflict.field, conflict.dots, **more)
    (result,) = site.change(Edit(EditKind.RESOLVE, model, id, values, ends=ends), user="zoe")
    return result


@pytest.fixture
def twins() -> Iterator[Twins]:
    yield Twins()


# -- what is listed ------------------------------------------------------------------------------------------


def test_a_conflict_is_listed_alike_on_every_node_as_soon_as_it_is_there(twins: Twins) -> None:
    twins.apart("one", {"title": "a"}, {"title": "b"})
    rows = [listed(site, twins.model) for site in twins.sites]
    assert [[(row.id, row.field, row.instance_id, row.state) for row in found] for found in rows] == [
        [(rows[0][0].id, "title", "one", State.OPEN)]
    ] * 2
    (conflict,) = open_conflicts(twins.first, twins.model, "one")
    assert conflict.id_in(twins.first.store.space(APPLICATION)) == rows[0][0].id
    assert rows[0][0].dots == tuple(value.dot for value in conflict.values)


def test_last_write_wins_and_folded_fields_are_listed_nowhere() -> None:
    for strategy in ("lww", "merge"):
        twins = Twins(strategy)
        twins.apart("one", {"title": "a", "points": 1}, {"title": "a", "points": 2})
        assert listed(twins.first, twins.model) == []
        assert record(twins.first, twins.model, "one").values["points"] == (2 if strategy == "lww" else 3)


def test_a_conflict_ends_with_a_write_that_has_seen_both_and_is_remembered(twins: Twins) -> None:
    twins.apart("one", {"title": "a"}, {"title": "b"})
    (before,) = listed(twins.first, twins.model)
    twins.first.update(twins.model, "one", title="c")
    twins.meet()
    for site in twins.sites:
        assert listed(site, twins.model) == []
        (row,) = listed(site, twins.model, is_open=False)
        assert (row.id, row.state, row.ended_by) == (before.id, State.RESOLVED, "ann")
        assert row.ending is not None and row.ending.author == twins.first.store.identity.author  # type: ignore[union-attr]
        assert row.ended_at_ms is not None and row.ended_at_ms >= row.at_ms


def test_of_an_erased_document_no_conflict_is_listed_nor_remembered(twins: Twins) -> None:
    first, model = twins.first, twins.model
    twins.apart("t1", {"title": "a"}, {"title": "b"})
    twins.apart("t2", {"title": "c"}, {"title": "d"})
    first.update(model, "t1", title="e")  # ends that of t1
    assert len(listed(first, model, is_open=None)) == 2
    first.change(*(Edit(EditKind.ERASE, model, id, {}) for id in ("t1", "t2")))
    twins.meet()
    for site in twins.sites:
        assert listed(site, model, is_open=None) == []
        assert is_true_to_the_record(site)


def test_a_value_that_joins_makes_it_another_conflict() -> None:
    twins = Twins(nodes=3)
    third = twins.sites.pop()
    twins.apart("one", {"title": "a"}, {"title": "b"})
    (before,) = listed(twins.first, twins.model)
    third.put(twins.model, "one", {"title": "c"})
    twins.sites.append(third)
    twins.meet()
    (after,) = listed(twins.first, twins.model)
    assert after.id != before.id and len(after.dots) == 3
    assert listed(twins.first, twins.model, is_open=None) == [after]
    assert twins.first.index is not None
    replaced = twins.first.index.conflict(before.id)
    assert replaced is not None and replaced.state is State.REPLACED


def test_a_delete_that_met_an_update_is_listed_where_the_document_is_shown_no_more(twins: Twins) -> None:
    twins.first.create(twins.model, "one", title="a")
    twins.meet()
    twins.second.update(twins.model, "one", title="b")
    twins.first.delete(twins.model, "one")
    twins.meet()
    for site in twins.sites:
        (row,) = listed(site, twins.model)
        assert row.field == DELETED
        assert site.indexed(twins.model) == set()


def test_pages_follow_one_another_and_know_their_total(twins: Twins) -> None:
    for number in range(7):
        twins.apart(f"d{number}", {"title": "a"}, {"title": "b"})
    assert twins.first.index is not None
    seen: list[str] = []
    cursor = None
    while True:
        query = ConflictQuery(APPLICATION, [twins.model.id], per_page=3, cursor=cursor)
        page = twins.first.index.conflicts(query)
        assert page.total == 7
        seen += [row.instance_id for row in page.rows]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == [f"d{number}" for number in reversed(range(7))]  # the newest first
    second = twins.first.index.conflicts(ConflictQuery(APPLICATION, [twins.model.id], page=2, per_page=3))
    assert [row.instance_id for row in second.rows] == ["d3", "d2", "d1"]
    for bad in ("x", "é", "W10", "WzEsMl0", "A" * 300):
        with pytest.raises(QueryFault):
            twins.first.index.conflicts(ConflictQuery(APPLICATION, [twins.model.id], cursor=bad))


def test_of_models_whose_documents_are_read_by_their_owners_only_those_are_listed(twins: Twins) -> None:
    twins.apart("one", {"title": "a"}, {"title": "b"})
    assert twins.first.index is not None
    for user, count in (("ann", 1), ("bob", 0)):
        query = ConflictQuery(APPLICATION, [], own_models=[twins.model.id], user=user)
        assert twins.first.index.conflicts(query).total == count
    assert listed(twins.first, twins.model, instance_id="other") == []
    assert twins.first.index.conflicts(ConflictQuery("other", [twins.model.id])).total == 0


# -- the table -----------------------------------------------------------------------------------------------


def test_a_new_index_finds_open_conflicts_again(twins: Twins) -> None:
    twins.apart("one", {"title": "a"}, {"title": "b"})
    twins.apart("two", {"title": "a"}, {"title": "b"})
    twins.first.update(twins.model, "two", title="c")
    (before,) = listed(twins.first, twins.model)
    twins.first.integrator.indexer.distrust()
    twins.first.catch_up()
    assert listed(twins.first, twins.model, is_open=None) == [before]
    assert twins.first.index is not None and twins.first.index.has_conflicts(twins.model.id)
    assert is_true_to_the_record(twins.first)


def test_another_strategy_shows_and_lists_other_things(twins: Twins) -> None:
    twins.apart("one", {"title": "a", "points": 1}, {"title": "b", "points": 2})
    assert len(listed(twins.first, twins.model)) == 2
    assert twins.first.integrator.indexer.take_news() == []
    merging = twins.first.define(definition("merge"))
    (row,) = listed(twins.first, merging)
    assert row.field == "title"
    assert listed(twins.first, merging, is_open=False) == []  # nothing has ended
    assert is_true_to_the_record(twins.first)
    assert twins.first.index is not None
    _, found = twins.first.index.sql("SELECT points FROM Task")
    assert found == [(3,)]


def test_what_was_planned_under_another_strategy_is_asked_again(twins: Twins) -> None:
    twins.first.create(twins.model, "one", title="a")
    twins.first.define(definition("manual"))
    with pytest.raises(IndexUnavailable):
        twins.first.update(twins.model, "one", title="b")


def test_a_models_conflicts_go_with_it_and_come_back(twins: Twins) -> None:
    twins.apart("one", {"title": "a"}, {"title": "b"})
    twins.first.undefine(twins.model)
    assert twins.first.index is not None and not twins.first.index.has_conflicts(twins.model.id)
    assert listed(twins.first, twins.model) == []
    again = twins.first.define(definition("crdt"))
    assert len(listed(twins.first, again)) == 1


def test_of_a_document_that_its_model_does_not_allow_nothing_is_listed(twins: Twins) -> None:
    twins.apart("one", {"title": "a", "best": 1}, {"title": "b", "best": 2})
    assert len(listed(twins.first, twins.model)) == 2
    hidden = {"best": 10}  # past the check that the services make
    twins.apart("two", {"title": "a", **hidden}, {"title": "b", **hidden})
    assert {row.instance_id for row in listed(twins.first, twins.model, is_open=None)} == {"one"}
    twins.first.put(twins.model, "one", {"best": 3})
    assert [row.field for row in listed(twins.first, twins.model)] == ["title"]


def test_what_has_ended_is_remembered_up_to_a_number(twins: Twins, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_conflicts, "ENDED_KEPT_MAX", 3)
    monkeypatch.setattr(index_conflicts, "_ENDED_SLACK", 2)
    for number in range(12):
        twins.apart(f"d{number}", {"title": "a"}, {"title": "b"})
        twins.first.update(twins.model, f"d{number}", title="c")
        twins.meet()
        kept = listed(twins.first, twins.model, is_open=False, per_page=100)
        assert min(number + 1, 3) <= len(kept) <= 5
        assert f"d{number}" in {row.instance_id for row in kept}


# -- news ----------------------------------------------------------------------------------------------------


def test_appearing_and_ending_are_news_with_the_arrival_that_did_it(twins: Twins) -> None:
    twins.first.put(twins.model, "one", {"title": "a"})
    twins.second.put(twins.model, "one", {"title": "b"})
    (news,) = twins.first.group(Received(twins.second.commits())).conflicts
    appeared = twins.first.arrivals()[-1].number
    assert (news.instance_id, news.is_open, news.arrival) == ("one", True, appeared)
    another = one(update(twins.model, "one", points=1))
    assert twins.first.group(another).conflicts == []
    (end,) = twins.first.group(one(update(twins.model, "one", title="c"))).conflicts
    ended = twins.first.arrivals()[-1].number
    assert (end.id, end.is_open, end.arrival) == (news.id, False, ended)
    assert twins.first.index is not None
    start, read = NewsPlace(0, False, ""), twins.first.index.conflict_news
    assert read(start, ended, limit=10) == [news, end]
    assert read(start, ended, limit=1) == [news]
    assert read(NewsPlace(appeared, True, news.id[:PLACE_DIGITS]), ended, limit=10) == [end]
    assert read(NewsPlace(appeared + 1, False, ""), ended - 1, limit=10) == []


def test_a_commit_that_counts_only_later_is_in_conflict_only_then(twins: Twins) -> None:
    twins.first.put(twins.model, "one", {"title": "a"})
    twins.second.now_ms += 10 * 60_000
    twins.second.put(twins.model, "one", {"title": "b"})
    assert twins.first.group(Received(twins.second.commits())).conflicts == []
    assert listed(twins.first, twins.model) == []
    twins.first.now_ms += 10 * 60_000
    (news,) = twins.first.group().conflicts  # whatever is written next finds it due
    (row,) = listed(twins.first, twins.model)
    assert (news.id, news.is_open) == (row.id, True)
    assert is_true_to_the_record(twins.first)


def test_news_of_one_arrival_are_read_a_few_at_a_time_without_missing_one(twins: Twins) -> None:
    for number in range(9):
        twins.first.put(twins.model, f"d{number}", {"title": "a"})
        twins.second.put(twins.model, f"d{number}", {"title": "b"})
    told = twins.first.group(Received(twins.second.commits())).conflicts
    assert len({news.arrival for news in told}) == 1 and twins.first.index is not None
    place, seen = NewsPlace(0, False, ""), []
    while page := twins.first.index.conflict_news(place, told[0].arrival, limit=2):
        seen += page
        place = NewsPlace(page[-1].arrival, page[-1].is_open, page[-1].id[:PLACE_DIGITS])
    assert seen == sorted(told, key=lambda news: news.id)


# -- ending --------------------------------------------------------------------------------------------------


def test_a_resolution_ends_exactly_the_values_it_speaks_of(twins: Twins) -> None:
    twins.apart("one", {"title": "a", "points": 1}, {"title": "b", "points": 2})
    _, title = open_conflicts(twins.first, twins.model, "one")
    result = resolve(twins.first, twins.model, "one", title, {"title": "both"})
    assert result.values["title"] == "both"
    assert [c.field for c in open_conflicts(twins.first, twins.model, "one")] == ["points"]
    twins.meet()
    assert record(twins.second, twins.model, "one").values == {"title": "both", "points": 2}
    with pytest.raises(ConflictChanged):
        resolve(twins.first, twins.model, "one", title, {"title": "again"})


def test_a_resolution_of_a_conflict_that_has_grown_is_refused() -> None:
    twins = Twins(nodes=3)
    third = twins.sites.pop()
    twins.apart("one", {"title": "a"}, {"title": "b"})
    (conflict,) = open_conflicts(twins.first, twins.model, "one")
    third.put(twins.model, "one", {"title": "c"})
    twins.sites.append(third)
    twins.first.receive_from(third)
    with pytest.raises(ConflictChanged):
        resolve(twins.first, twins.model, "one", conflict, {"title": "d"})
    resolve(twins.second, twins.model, "one", conflict, {"title": "d"})  # which has not heard of it
    twins.meet()
    (grown,) = open_conflicts(twins.first, twins.model, "one")
    assert sorted(value.value for value in grown.values) == ["c", "d"]


def test_under_manual_nothing_but_a_resolution_ends_a_conflict() -> None:
    twins = Twins("manual")
    twins.apart("one", {"title": "a"}, {"title": "b"})
    (conflict,) = open_conflicts(twins.first, twins.model, "one")
    id = conflict.id_in(twins.first.store.space(APPLICATION))
    for edit in (
        Edit(EditKind.UPDATE, twins.model, "one", {"title": "c"}),
        Edit(EditKind.PUT, twins.model, "one", {"title": "c", "points": 1}),
        Edit(EditKind.DELETE, twins.model, "one", {}),
    ):
        with pytest.raises(ConflictOpen) as refused:
            twins.first.change(edit)
        assert refused.value.fields == {"title": id}
    twins.first.update(twins.model, "one", points=1)
    assert len(open_conflicts(twins.first, twins.model, "one")) == 1
    resolve(twins.first, twins.model, "one", conflict, {"title": "c"})
    assert open_conflicts(twins.first, twins.model, "one") == []
    twins.first.update(twins.model, "one", title="d")
    twins.first.delete(twins.model, "one")


def test_under_manual_a_deleted_document_in_conflict_is_not_made_anew() -> None:
    twins = Twins("manual")
    twins.first.create(twins.model, "one", title="a")
    twins.meet()
    twins.second.update(twins.model, "one", title="b")
    twins.first.delete(twins.model, "one")
    twins.meet()
    with pytest.raises(ConflictOpen) as refused:
        twins.first.create(twins.model, "one", title="c")
    assert set(refused.value.fields) == {DELETED}


def test_a_deletion_in_conflict_is_kept_or_taken_back(twins: Twins) -> None:
    for id in ("kept", "back"):
        twins.first.create(twins.model, id, title="a", points=1, tags=["x"])
        twins.meet()
        twins.second.update(twins.model, id, title="b")
        twins.first.update(twins.model, id, points=5)
        twins.first.delete(twins.model, id)
    twins.meet()
    (kept,), (back,) = (open_conflicts(twins.first, twins.model, id) for id in ("kept", "back"))
    assert resolve(twins.first, twins.model, "kept", kept, {}, is_kept=True) is None
    result = resolve(twins.first, twins.model, "back", back, {"points": 5, "tags": ["x"]})
    assert result.values == {"title": "b", "points": 5, "tags": ["x"]}
    twins.meet()
    for site in twins.sites:
        assert listed(site, twins.model) == []
        assert site.indexed(twins.model) == {"back"}
        assert {row.ended_by for row in listed(site, twins.model, is_open=False)} == {"zoe"}


# -- every strategy, whatever happens ------------------------------------------------------------------------

task_values = st.fixed_dictionaries(
    {},
    optional={
        "title": st.sampled_from(["a", "b", "c"]),
        "points": st.integers(-3, 3) | st.none(),
        "best": st.integers(0, 12),  # past what the model allows
        "notes": st.lists(st.sampled_from([1, "x", [2]]), max_size=2) | st.none(),
        "tags": st.lists(st.sampled_from(["t", "u"]), unique=True),
        "votes": st.integers(0, 3),
    },
)
steps = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(["put", "put", "put", "delete", "hear", "resolve"]),
              st.sampled_from(["one", "two"]), task_values, st.integers(0, 2)),
    min_size=3,
    max_size=14,
)  # fmt: skip


@given(steps=steps)
def test_all_nodes_come_to_the_same_values_and_conflicts(steps: list[Any]) -> None:
    twins = Twins(*STRATEGIES, PLUGIN, nodes=3)
    for number, what, id, values, other in steps:
        site = twins.sites[number]
        site.now_ms += other * 7
        if what == "hear":
            site.receive_from(twins.sites[other])
            continue
        for model in twins.models:
            try:
                match what:
                    case "put":
                        site.put(model, id, values)
                    case "delete":
                        site.delete(model, id)
                    case "resolve":
                        for conflict in open_conflicts(site, model, id):
                            if conflict.field in model.fields:
                                shown = {conflict.field: conflict.values[0].value}
                                resolve(site, model, id, conflict, shown)
            except (StorageError, AssertionError):
                pass  # not there, or in conflict
    twins.meet()
    assert all(map(is_true_to_the_record, twins.sites))
    for model in twins.models:
        shown_by = [shown_and_listed(site, model) for site in twins.sites]
        assert shown_by[0] == shown_by[1] == shown_by[2], model


def shown_and_listed(site: Site, model: Model) -> list[Any]:
    """Each document, as it is shown, with its open conflicts; the index lists those that it should."""
    space = site.store.space(APPLICATION)
    found, expected = [], set()
    for (_, name, id), document in sorted(site.documents().items(), key=lambda item: item[0]):
        if name == model.id:
            values = record(site, model, id).values if document.exists else None
            open_ones = open_conflicts(site, model, id)
            found.append((id, repr(values), open_ones))
            if values is None or not model.check_record(values):
                expected |= {conflict.id_in(space) for conflict in open_ones}
    assert {row.id for row in listed(site, model, per_page=100)} == expected
    assert site.index is not None and site.index.open_conflicts(model.id) == expected
    return found
