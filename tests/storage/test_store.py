"""The store as a whole: its identity, what a commit builds on, and writes that leave nothing."""

import pytest

from protocol.encoding import encode
from protocol.ids import Author
from storage.catalog import MODEL
from storage.errors import NewerFormat, StorageFull, StoreDamaged
from storage.kv import Table
from storage.memory_kv import MemoryKeyValueStore
from storage.opening import renew_identity
from storage.store import FORMAT, Store
from tests.storage.kit import TASK, Site, create, tables


@pytest.fixture
def site() -> Site:
    return Site()


def reopened(store: Store) -> Store:
    return Store(store.keys)


def author_of(site: Site) -> Author:
    assert site.store.identity is not None
    return site.store.identity.author


def deps(site: Site, application: str = "default") -> list[tuple[bool, Author, int]]:
    with site.store.write() as batch:
        return [(dep.in_system, dep.author, dep.seq) for dep in batch.deps(site.store.space(application))]


def test_a_new_store_has_no_identity() -> None:
    assert Store(MemoryKeyValueStore()).is_new


def test_the_identity_outlives_the_process(site: Site) -> None:
    again = reopened(site.store)
    assert again.identity == site.store.identity
    assert not again.is_new
    assert again.members.role_of(site.keys.public) is not None
    assert again.space("default") == site.store.space("default") != again.space("other") != again.system


def test_a_new_life_changes_author_and_epoch_and_nothing_else(site: Site) -> None:
    old = site.store.identity
    assert old is not None
    renew_identity(site.store, site.random_bytes)
    new = reopened(site.store).identity
    assert new is not None
    assert (new.network_id, new.genesis, new.author[:32]) == (old.network_id, old.genesis, old.author[:32])
    assert new.author != old.author and new.epoch != old.epoch and new.store_id != old.store_id


def test_a_newer_format_is_refused_before_anything_else_is_read(site: Site) -> None:
    with site.store.keys.write() as batch:
        batch.put(Table.META, b"format", encode(FORMAT + 1))
        batch.put(Table.CHAINS, b"of a layout that we do not know", b"")
    with pytest.raises(NewerFormat, match="upgrade civicnode"):
        reopened(site.store)


@pytest.mark.parametrize("identity", [None, 1, [], ["a"] * 5, [b"", "", b"", b"not a genesis", b""]])
def test_an_identity_that_cannot_be_read_is_damage(site: Site, identity: object) -> None:
    with site.store.keys.write() as batch:
        batch.put(Table.META, b"identity", encode(identity))
    with pytest.raises(StoreDamaged, match="civicnode doctor"):
        reopened(site.store)


def test_commits_without_an_identity_are_damage(site: Site) -> None:
    with site.store.keys.write() as batch:
        batch.delete(Table.META, b"format")
    with pytest.raises(StoreDamaged):
        reopened(site.store)


def test_nothing_is_kept_of_a_write_that_fails(site: Site) -> None:
    before = tables(site.store.keys)
    memory = site.store.keys
    assert isinstance(memory, MemoryKeyValueStore)
    for attempt in range(3):
        memory.fail_next_write = StorageFull("no space")
        with pytest.raises(StorageFull):
            site.define(TASK)
        assert tables(site.store.keys) == before, attempt
    assert site.store.names.chains_of(site.store.space("default")) == []
    model = site.define(TASK)
    site.create(model, "a", title="x")
    assert reopened(site.store).names.chains_of(site.store.space("default")) == [(1, author_of(site))]


# -- what a commit builds on -------------------------------------------------------------------------------


def test_the_first_commit_of_a_space_names_the_system_space_and_later_ones_do_not(site: Site) -> None:
    author = author_of(site)
    assert deps(site) == [(True, author, 1)]
    model = site.define(TASK)
    assert deps(site) == []
    assert deps(site, "second") == [(True, author, 1)]
    site.create(model, "a", title="x")
    assert [len(commit.header.deps) for commit in site.commits()] == [0, 1, 0]


def test_what_a_failed_group_would_have_named_is_named_by_the_next(site: Site) -> None:
    def refuse(_record: object) -> None:
        raise PermissionError

    definitions = site.catalog.builtin("default", MODEL)
    outcome = site.group(lambda local: local.put("kind", "key", {}))  # its transaction stays
    with pytest.raises(PermissionError):
        site.change(create(definitions, "a", refuse, name="x"))
    assert outcome.results == [None]
    assert deps(site) == [(True, author_of(site), 1)]
    site.create(definitions, "a", name="x")
    assert [dep.in_system for dep in site.commits()[-1].header.deps] == [True]


def test_a_new_author_names_the_system_space_and_its_old_chain(site: Site) -> None:
    model = site.define(TASK)
    old = author_of(site)
    renew_identity(site.store, site.random_bytes)
    site.start()
    assert deps(site) == [(False, old, 1), (True, old, 1)]
    site.create(model, "a", title="x")
    assert deps(site) == []
    assert site.values(model, "a") == {"title": "x"}


def test_heads_of_others_are_named_once_until_they_grow() -> None:
    first = Site(seed=1)
    model = first.define(TASK)
    second = Site(seed=2, founder=first)
    second.receive_from(first)
    author = author_of(first)
    assert deps(second) == [(False, author, 1), (True, author, 1)]
    second.create(model, "a", title="x")
    assert deps(second) == []
    first.create(model, "b", title="x")
    first.create(model, "c", title="x")
    second.receive_from(first)
    assert deps(second) == [(False, author, 3)]  # the newest stands for what it builds on


def test_several_commits_in_one_write_build_on_one_another(site: Site) -> None:
    other = Site(seed=2, founder=site)
    model = site.define(TASK)
    for number in range(4):
        site.create(model, f"t{number}", title="x")
    with other.store.write() as batch:
        for commit in site.commits():
            outcome = batch.integrate(commit)
            batch.keep(outcome)  # type: ignore[arg-type]
    assert other.documents() == site.documents()
    with other.store.read() as theirs, site.store.read() as ours:
        space = site.store.space("default")
        assert theirs.frontier(space) == ours.frontier(space)
        assert theirs.log.last_arrival() == ours.log.last_arrival()


def test_more_heads_than_a_commit_may_name_are_folded_first() -> None:
    first = Site(seed=0)
    model = first.define(TASK)
    for number in range(1, 71):
        branch = Site(seed=number, founder=first, index=False)
        for commit in first.commits()[:2]:
            branch.integrator.receive(commit, branch.now_ms)
        branch.create(model, f"t{number}", title="x")
        first.integrator.receive(branch.commits()[-1], first.now_ms)
    assert len(deps(first)) == 70
    first.create(model, "last", title="x")
    fold, last = first.commits()[-2:]
    assert (len(fold.header.deps), fold.bodies) == (64, ())
    assert (len(last.header.deps), len(last.bodies)) == (6, 1)
    assert deps(first) == []
    assert first.store.identity is not None
    other = Site(seed=99, founder=first)
    other.receive_from(first)
    assert other.documents() == first.documents()


# -- applications ------------------------------------------------------------------------------------------


def test_applications_are_listed_in_the_order_of_their_first_use(site: Site) -> None:
    for application in ("second", "default", "second"):
        site.define(TASK, application)
    with site.store.read() as snapshot:
        assert snapshot.applications() == ["second", "default"]


def test_an_application_whose_first_write_failed_is_not_taken_for_stored(site: Site) -> None:
    memory = site.store.keys
    assert isinstance(memory, MemoryKeyValueStore)
    memory.fail_next_write = StorageFull("no space")
    with pytest.raises(StorageFull):
        site.define(TASK)
    model = site.define(TASK)
    site.create(model, "a", title="x")
    with reopened(site.store).read() as snapshot:
        assert snapshot.applications() == ["default"]


def test_an_application_in_which_nothing_came_to_be_is_not_stored(site: Site) -> None:
    model = Site().define(TASK)
    with pytest.raises(Exception, match="does not exist"):
        site.update(model, "missing", title="x")
    with site.store.read() as snapshot:
        assert snapshot.applications() == []


def test_counts_are_those_of_documents_and_commits(site: Site) -> None:
    model = site.define(TASK)
    site.change(create(model, "a", title="x"), create(model, "b", title="x"))
    assert site.store.counts() == {"documents": 3, "commits": 3}
