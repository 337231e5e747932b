"""What a first sync brings is known as that, while it lasts, afterwards, and after a restart."""

from protocol.body import SALT_BYTES
from protocol.integrate import Change
from protocol.keys import SEED_BYTES, KeyPair
from protocol.membership import Rights, Role
from protocol.schema import Model
from protocol.statements import EXPIRES_MS_MAX, Invite, ask_admission, encode_statement
from storage.changes import Received, Said, Shared
from storage.feed_entry import FeedEntry
from storage.first_sync import FirstSync, first_sync
from storage.memory_kv import MemoryKeyValueStore
from storage.opening import join_store
from storage.store import Store
from tests.storage.kit import APPLICATION, NOW_MS, TASK, Site, create, one

HOUR_MS = 3_600_000


class Joined(Site):
    """A node of its own key in the network of another, right after that has let it in."""

    def __init__(self, host: Site, seed: int = 7) -> None:
        super().__init__(seed=seed)
        system, ticket = host.store.system, KeyPair.from_seed(self.random_bytes(SEED_BYTES))
        network_id = host.store.members.genesis.network_id
        for statement in (
            Invite(ticket.public, Rights(Role.MEMBER), EXPIRES_MS_MAX),
            ask_admission(ticket, self.keys, network_id),
        ):
            body = encode_statement(statement, self.random_bytes(SALT_BYTES))
            host.group(Said(lambda members, header, body=body: body))  # type: ignore[misc]
        statements = [commit for commit in host.commits() if commit.header.space == system]
        self.store = Store(MemoryKeyValueStore())
        join_store(self.store, self.keys, statements, random_bytes=self.random_bytes)
        self.start()

    def group_of(self, model: Model, id: str) -> list[FeedEntry]:
        """A document made here: what the feed is told of it."""
        return self.group(one(create(model, id, title=id))).entries

    def take(self, host: Site, applications: tuple[str, ...] = ()) -> list[FeedEntry]:
        """All that the host has and this one lacks, in one go."""
        held = {commit.hash for commit in self.commits()}
        missing = [commit for commit in host.commits() if commit.hash not in held]
        return self.group(Received(missing, applications)).entries


def host_with(*ids: str) -> Site:
    site = Site()
    model = site.define(TASK)
    for id in ids:
        site.create(model, id, title=id)
    return site


def first_of(site: Site) -> FirstSync | None:
    with site.store.read() as snapshot:
        return first_sync(snapshot, site.store.space(APPLICATION))


def told(entries: list[FeedEntry]) -> list[tuple[str, bool]]:
    return [(entry.id, entry.is_old) for entry in entries if entry.change is Change.CREATED]


def test_what_was_there_before_is_old_and_what_is_made_meanwhile_is_news() -> None:
    host = host_with("a", "b")
    joiner = Joined(host)
    joiner.now_ms = host.now_ms + 1_000
    model = host.catalog.find(APPLICATION, "Task")
    assert model is not None
    assert all(is_old for _, is_old in told(joiner.take(host, (APPLICATION,))))
    host.now_ms = joiner.now_ms + 1_000
    host.create(model, "c", title="c")
    assert told(joiner.take(host)) == [("c", False)]


def test_it_ends_once_when_both_hold_the_same_and_later_stragglers_are_news() -> None:
    host = host_with("a")
    joiner = Joined(host)
    joiner.now_ms = host.now_ms + HOUR_MS
    joiner.take(host, (APPLICATION,))
    assert joiner.integrator.unshared([APPLICATION]) == [APPLICATION]
    assert joiner.group(Shared([APPLICATION])).caught_up == [APPLICATION]
    assert joiner.integrator.unshared([APPLICATION]) == []
    assert joiner.group(Shared([APPLICATION])).caught_up == []
    model = host.catalog.find(APPLICATION, "Task")
    assert model is not None
    host.create(model, "late", title="of a device that was away")  # an hour before the joiner came
    assert told(joiner.take(host)) == [("late", False)]
    first = first_of(joiner)
    assert (
        first is not None and not first.is_open and first.after < first.until < joiner.arrivals()[-1].number
    )


def test_it_goes_on_after_a_restart() -> None:
    host = host_with("a")
    joiner = Joined(host)
    joiner.now_ms = host.now_ms + HOUR_MS
    joiner.take(host, (APPLICATION,))
    joiner.start()
    model = host.catalog.find(APPLICATION, "Task")
    assert model is not None
    host.create(model, "b", title="b")
    assert told(joiner.take(host)) == [("b", True)]
    assert joiner.group(Shared([APPLICATION])).caught_up == [APPLICATION]
    joiner.start()
    assert joiner.integrator.unshared([APPLICATION]) == []


def test_a_joiner_that_has_written_already_meets_what_was_there_as_old_too() -> None:
    host = host_with("a")
    joiner = Joined(host)
    joiner.now_ms = host.now_ms + 1_000
    mine = joiner.define(TASK)
    assert told(joiner.take(host))[-1] == ("a", True)
    joiner.create(mine, "own", title="own")
    assert joiner.group(Shared([APPLICATION])).caught_up == [APPLICATION]


def test_for_the_founder_whatever_comes_to_its_own_application_is_news() -> None:
    founder = host_with("a")
    other = Site(founder=founder, seed=3)
    other.receive_from(founder)
    founder.now_ms += HOUR_MS  # by its clock, what comes was made long before it comes
    model = founder.catalog.find(APPLICATION, "Task")
    assert model is not None
    other.create(model, "b", title="b")
    assert told(founder.receive_from(other)) == [("b", False)]
    assert founder.integrator.unshared([APPLICATION]) == []
    assert first_of(founder) is None


def test_an_application_made_elsewhere_is_met_by_the_founder_as_old() -> None:
    founder = host_with()
    other = Site(founder=founder, seed=3, now_ms=NOW_MS)
    model = other.define(TASK, "shop")
    other.create(model, "b", title="b")
    founder.now_ms = other.now_ms + 1_000
    held = {commit.hash for commit in founder.commits()}
    missing = [commit for commit in other.commits() if commit.hash not in held]
    written = founder.group(Received(missing, ("shop",)))
    assert told(written.entries)[-1] == ("b", True)
    assert founder.integrator.unshared(["shop", APPLICATION]) == ["shop"]
    assert founder.group(Shared(["shop"])).caught_up == ["shop"]


def test_sharing_what_nobody_has_brought_tells_nobody_anything() -> None:
    host = host_with()
    joiner = Joined(host)
    joiner.define(TASK)
    assert joiner.integrator.unshared([APPLICATION]) == [APPLICATION]
    assert joiner.group(Shared([APPLICATION])).caught_up == []
    assert joiner.integrator.unshared([APPLICATION]) == []
    first = first_of(joiner)
    assert first is not None and first.after == first.until


def test_a_group_that_fails_begins_nothing() -> None:
    host = host_with("a")
    joiner = Joined(host)
    missing = [commit for commit in host.commits() if commit.header.space != host.store.system]

    class Fails(Exception):
        pass

    def fail(_: object) -> None:
        raise Fails

    try:
        joiner.group(Received(missing, (APPLICATION,), fail))
    except Fails:
        pass
    assert first_of(joiner) is None
    joiner.now_ms = host.now_ms + 1
    joiner.take(host, (APPLICATION,))
    first = first_of(joiner)
    assert first is not None and first.is_open
