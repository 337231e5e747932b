"""Whatever is asked of the writer: both stores agree, the log gives it all again, and authors converge."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.changes import Edit, EditKind
from protocol.integrate import Change, Integrated, Known, Waiting
from protocol.schema import Model
from storage.kv import Table
from storage.lmdb_kv import LmdbKeyValueStore
from storage.memory_kv import MemoryKeyValueStore
from storage.store import Store
from tests.directories import temporary_directory
from tests.storage.kit import (
    APPLICATION,
    NOW_MS,
    TASK,
    Site,
    documents_of,
    one,
    refuse,
    tables,
)

# -- commits from elsewhere --------------------------------------------------------------------------------


def test_what_another_wrote_is_integrated_once_and_in_causal_order() -> None:
    first = Site(seed=1)
    model = first.define(TASK)
    first.create(model, "a", title="x")
    second = Site(seed=2, founder=first)
    founding, definition, task = first.commits()
    outcomes = [second.integrator.receive(commit, NOW_MS)[0] for commit in (task, definition, founding)]
    assert [type(outcome) for outcome in outcomes] == [Waiting, Waiting, Integrated]
    for commit in (definition, task):
        assert isinstance(second.integrator.receive(commit, NOW_MS)[0], Integrated)
        assert isinstance(second.integrator.receive(commit, NOW_MS)[0], Known)
    assert second.documents() == first.documents()


def test_what_another_wrote_reaches_feed_and_index_where_its_application_is_known() -> None:
    first = Site(seed=1)
    model = first.define(TASK)
    second = Site(seed=2, founder=first)
    second.receive_from(first)
    second.create(model, "own", title="x")
    first.create(model, "a", title="x")
    entries = second.receive_from(first)
    assert [(e.id, e.change) for e in entries] == [("a", Change.CREATED)]
    assert first.store.identity is not None and entries[0].author == first.store.identity.author
    assert second.indexed(model) == {"a", "own"}


# -- properties --------------------------------------------------------------------------------------------

numbers = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
task_values = st.fixed_dictionaries(
    {},
    optional={
        "title": st.text(max_size=5),
        "points": st.integers(-5, 5) | st.none(),
        "tags": st.lists(
            st.sampled_from(["a", "b", 1, True, 1.5]), unique_by=lambda x: (type(x), x), max_size=3
        ),
        "votes": st.integers(-3, 3),
        "extra": json_values,
    },
)
edits = st.tuples(st.sampled_from(list(EditKind)), st.sampled_from("abc"), task_values)
changes = st.lists(edits, min_size=1, max_size=3)
groups = st.lists(st.lists(st.tuples(changes, st.booleans()), min_size=1, max_size=4), max_size=6)
Groups = list[list[tuple[list[tuple[EditKind, str, dict[str, Any]]], bool]]]


def carry_out(site: Site, model: Model, plan: Groups) -> list[list[object]]:
    """What each change of each group came to, in a form that can be compared."""
    outcomes: list[list[object]] = []
    for group in plan:
        made = []
        for edits, is_refused in group:
            listed = [Edit(kind, model, id, values) for kind, id, values in edits]
            if is_refused:
                listed.append(Edit(EditKind.PUT, model, "z", {"title": "z"}, None, refuse))
            made.append(one(*listed))
        written = site.group(*made)
        outcomes.append([str(r) if isinstance(r, Exception) else r for r in written.results])
        outcomes.append(list(written.entries))
    return outcomes


@settings(max_examples=settings().max_examples // 3)  # each flushes to the disk
@given(plan=groups)
def test_both_stores_agree_on_whatever_is_asked_of_them(plan: Groups) -> None:
    with temporary_directory() as directory, ExitStack() as held:
        on_disk, in_memory = (held.enter_context(Site(place)) for place in (Path(directory), None))
        models = [site.define(TASK) for site in (on_disk, in_memory)]
        outcomes = [carry_out(site, m, plan) for site, m in zip((on_disk, in_memory), models, strict=True)]
        assert outcomes[0] == outcomes[1]
        assert isinstance(on_disk.store.keys, LmdbKeyValueStore)
        assert tables(on_disk.store.keys) == tables(in_memory.store.keys)
        assert on_disk.indexed(models[0]) == in_memory.indexed(models[1])


@given(plan=groups)
def test_replaying_the_log_from_zero_gives_what_is_stored(plan: Groups) -> None:
    site = Site()
    model = site.define(TASK)
    carry_out(site, model, plan)
    assert site.store.identity is not None
    replayed = Store(MemoryKeyValueStore())
    replayed.begin(site.store.identity, founding=None)
    for commit in site.commits():
        with replayed.write() as batch:
            outcome = batch.integrate(commit)
            assert isinstance(outcome, Integrated)
            batch.keep(outcome)
    ours, theirs = tables(site.store.keys), tables(replayed.keys)
    del ours[Table.META][b"applications"]
    for held in (ours, theirs):  # how often bodies went missing is no part of what is there
        held[Table.META].pop(b"missing", None)
    ours[Table.TIMES] = {}  # when things arrived is no part of what they are
    assert ours == theirs


@given(plan=groups)
def test_the_index_holds_the_rows_of_the_documents(plan: Groups) -> None:
    site = Site()
    model = site.define(TASK)
    carry_out(site, model, plan)
    expected = {d.id for d in documents_of(site, model) if not model.check_record(d.values())}
    assert site.indexed(model) == expected


@given(plans=st.lists(st.tuples(st.integers(0, 2), groups), max_size=5), order=st.randoms())
def test_authors_that_write_apart_end_alike_in_whatever_order_they_hear_of_it(
    plans: list[tuple[int, Groups]], order: Any
) -> None:
    first = Site(seed=0)
    model = first.define(TASK)
    sites = [first, *(Site(seed=n, founder=first) for n in (1, 2))]
    for site in sites[1:]:
        site.receive_from(first)
    for who, plan in plans:
        carry_out(sites[who], model, plan)
        sites[order.randrange(3)].receive_from(sites[order.randrange(3)])
    commits = {commit.hash: commit for site in sites for commit in site.commits()}
    for site in sites:
        waiting = list(commits.values())
        while waiting:
            order.shuffle(waiting)
            waiting = [c for c in waiting if isinstance(site.integrator.receive(c, NOW_MS)[0], Waiting)]
    for site in sites[1:]:
        assert site.documents() == first.documents()
        with site.store.read() as theirs, first.store.read() as ours:
            space = first.store.space(APPLICATION)
            assert set(theirs.frontier(space)) == set(ours.frontier(space))
