"""The feed over a real record: cursors, places in time, and what a first sync leaves out."""

import pytest

from node.feed import BODY_MAX, KEPT_MS, CursorTooOld, Feed, Part, Position
from protocol.cuts import Cuts
from protocol.ids import node_of
from protocol.integrate import Change
from protocol.schema import Model
from protocol.statements import Revoke, encode_statement
from storage.changes import Received, Said, Shared
from storage.feed_entry import FeedEntry
from storage.kv import Table
from storage.log import TIME_KEPT_EVERY_MS, TIMES_KEPT_MS
from tests.storage.kit import APPLICATION, TASK, Site
from tests.storage.test_first_sync import Joined, host_with

HOUR_MS = 3_600_000


def after(
    feed: Feed, arrival: int = 0, *, limit: int = 100, application: str | None = APPLICATION
) -> Part[FeedEntry]:
    return feed.part(Position(arrival, BODY_MAX), limit=limit, application=application)


def ids(part: Part[FeedEntry]) -> list[str]:
    """Of the tasks among the entries."""
    return [entry.id for entry in part.entries if not entry.model.startswith("$")]


def model_of(site: Site) -> Model:
    model = site.catalog.find(APPLICATION, "Task")
    assert model is not None
    return model


def test_a_part_reaches_as_far_as_it_was_read() -> None:
    site = host_with("a", "b", "c")
    feed = Feed(site.store, lambda: site.now_ms)
    last = site.arrivals()[-1].number
    whole = after(feed)
    assert ids(whole) == ["a", "b", "c"] and whole.reach == (last, BODY_MAX)
    some = after(feed, limit=2)
    assert some.reach == (some.entries[-1].arrival, some.entries[-1].index)
    rest = feed.part(some.reach, limit=100, application=APPLICATION)
    assert [*some.entries, *rest.entries] == whole.entries
    nothing = after(feed, last)
    assert nothing.entries == [] and nothing.reach == (last, BODY_MAX)


def test_other_applications_are_left_out_and_read_past() -> None:
    site = host_with("a")
    shop = site.define(TASK, "shop")
    site.create(shop, "s", title="s")
    feed = Feed(site.store, lambda: site.now_ms)
    assert ids(after(feed)) == ["a"]
    assert ids(after(feed, application="shop")) == ["s"]
    assert ids(after(feed, application=None)) == ["a", "s"]
    assert after(feed, application="nobody's").reach == (site.arrivals()[-1].number, BODY_MAX)


def test_a_quiet_application_is_read_in_slices_beside_a_busy_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.feed.ARRIVALS_READ_MAX", 3)
    site = host_with(*"abcdefg")
    shop = site.define(TASK, "shop")
    site.create(shop, "s", title="s")
    feed, place, reads = Feed(site.store, lambda: site.now_ms), Position(0, BODY_MAX), 0
    found: list[FeedEntry] = []
    while place < feed.newest:
        part = feed.part(place, limit=10, application="shop")
        assert part.reach > place
        found += part.entries
        place, reads = part.reach, reads + 1
    assert reads > 3 and [entry.id for entry in found][-1] == "s"


def test_a_time_is_a_place_after_which_nothing_that_came_later_is_missing() -> None:
    site = host_with()
    model = model_of(site)
    came: list[tuple[int, str]] = []
    for number in range(30):
        site.now_ms += 1_700
        site.create(model, f"t{number}", title="x")
        came.append((site.now_ms, f"t{number}"))
    feed = Feed(site.store, lambda: site.now_ms)
    for ms, _ in came:
        part = feed.part(feed.position_at(ms), limit=100, application=APPLICATION)
        wanted = [id for at, id in came if at >= ms]
        assert ids(part)[-len(wanted) :] == wanted
        assert all(at > ms - 2 * TIME_KEPT_EVERY_MS for at, id in came if id in ids(part))
    assert feed.position_at(0) == (0, BODY_MAX)
    assert ids(feed.part(feed.position_at(1 << 60), limit=100, application=APPLICATION))[-1:] in ([], ["t29"])


def test_a_clock_that_is_set_back_loses_nothing() -> None:
    site = host_with()
    model = model_of(site)
    start_ms = site.now_ms
    site.now_ms = start_ms + HOUR_MS
    site.create(model, "ahead", title="x")
    site.now_ms = start_ms + 60_000
    asked_ms = site.now_ms
    site.create(model, "back", title="x")
    site.now_ms += 60_000
    site.create(model, "later", title="x")
    feed = Feed(site.store, lambda: site.now_ms)
    found = ids(feed.part(feed.position_at(asked_ms), limit=100, application=APPLICATION))
    assert found[-2:] == ["back", "later"]


def test_times_long_past_are_forgotten_and_bring_everything() -> None:
    site = host_with("old")
    model, old_ms = model_of(site), site.now_ms
    site.now_ms += TIMES_KEPT_MS + HOUR_MS
    site.create(model, "new", title="x")
    site.now_ms += HOUR_MS
    site.create(model, "newer", title="x")
    with site.store.read() as snapshot:
        assert snapshot.transaction.count(Table.TIMES) == 2
    feed = Feed(site.store, lambda: site.now_ms)
    assert feed.position_at(old_ms + HOUR_MS) == (0, BODY_MAX)
    assert ids(feed.part(feed.position_at(site.now_ms), limit=9, application=APPLICATION)) == ["newer"]


def test_what_a_first_sync_brings_is_not_handed_on_and_cannot_be_replayed() -> None:
    host = host_with("a", "b")
    joiner = Joined(host)
    feed = Feed(joiner.store, lambda: joiner.now_ms)
    before = feed.newest
    heard: list[str] = []
    everything: list[str] = []
    told: list[str] = []
    feed.subscribe(lambda entries: heard.extend(e.id for e in entries), on_caught_up=told.append)
    feed.subscribe(lambda entries: everything.extend(e.id for e in entries), with_old=True)
    joiner.now_ms = host.now_ms + 1_000
    feed.publish(joiner.take(host, (APPLICATION,)))
    assert heard == [] and everything[-2:] == ["a", "b"]
    mine = model_of(joiner)
    feed.publish(joiner.group_of(mine, "own"))
    assert heard == ["own"]
    during = feed.part(before, limit=100, application=APPLICATION)
    assert ids(during) == ["own"], "while it lasts, news can be read without what is old"
    for application in joiner.group(Shared([APPLICATION])).caught_up:
        feed.caught_up(application)
    assert told == [APPLICATION]
    with pytest.raises(CursorTooOld):
        feed.part(before, limit=100, application=APPLICATION)
    now = feed.position(feed.cursor())
    feed.publish(joiner.group_of(mine, "next"))
    assert ids(feed.part(now, limit=100, application=APPLICATION)) == ["next"]


def test_cursors_of_another_life_and_from_the_future_are_too_old() -> None:
    site = host_with("a")
    feed = Feed(site.store, lambda: site.now_ms)
    epoch = feed.cursor().partition(".")[0]
    for cursor in ("", "x.1.0", f"{epoch}.9999.0", f"{epoch}.1", f"{epoch}.-1.0", f"{epoch}.1.0x"):
        with pytest.raises(CursorTooOld):
            feed.position(cursor)
    assert feed.position(f"{epoch}.1.0") == (1, 0)


def test_a_cursor_further_back_than_the_feed_reaches_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    site = host_with(*"abcdef")
    feed = Feed(site.store, lambda: site.now_ms)
    epoch = feed.cursor().partition(".")[0]
    monkeypatch.setattr("node.feed.ARRIVALS_KEPT_MAX", 3)
    with pytest.raises(CursorTooOld):
        feed.position(f"{epoch}.1.0")
    with pytest.raises(CursorTooOld):
        feed.position_at(0)


def test_a_cursor_from_before_a_month_ago_is_too_old_and_one_that_has_seen_all_never_is() -> None:
    site = host_with("a", "b")
    feed = Feed(site.store, lambda: site.now_ms)
    seen = feed.cursor(Position(site.arrivals()[-1].number, BODY_MAX))
    early = feed.cursor(Position(1, BODY_MAX))
    assert feed.position(early).arrival == 1
    site.now_ms += KEPT_MS - HOUR_MS
    assert feed.position(early).arrival == 1
    site.create(model_of(site), "c", title="c")
    feed.newest = Position(site.arrivals()[-1].number, BODY_MAX)
    site.now_ms += 2 * HOUR_MS
    with pytest.raises(CursorTooOld):
        feed.position(early)
    with pytest.raises(CursorTooOld):
        feed.position_at(site.now_ms - 2 * KEPT_MS)
    assert ids(feed.part(feed.position(seen), limit=100, application=APPLICATION)) == ["c"]
    site.now_ms += 2 * KEPT_MS
    assert feed.position(feed.cursor()) == feed.newest


def test_what_is_judged_again_is_told_live_and_from_the_record_alike() -> None:
    """A node is revoked above its first document: the second is gone, a change of another's is undone."""
    host = host_with("a")
    joiner = Joined(host)
    joiner.now_ms = host.now_ms + 1_000
    joiner.take(host, (APPLICATION,))
    model = model_of(joiner)
    joiner.create(model, "b", title="b")
    host.now_ms = joiner.now_ms
    _bring(host, joiner)
    head = joiner.commits()[-1]
    joiner.create(model, "c", title="c")
    joiner.update(model, "a", title="changed", points=7)
    _bring(host, joiner)
    assert host.values(model, "a") == {"title": "changed", "points": 7}
    feed = Feed(host.store, lambda: host.now_ms)
    before = feed.newest
    cut = Cuts.at_heads([(head.header.space, head.header.author, head.header.seq, head.hash)])
    revoke = encode_statement(Revoke(node_of(head.header.author), cut), bytes(16))
    written = host.group(Said(lambda members, header: revoke))
    assert written.has_new_members
    assert [(e.id, e.change, sorted(e.changed)) for e in written.entries] == [
        ("c", Change.DELETED, []),
        ("a", Change.UPDATED, ["points", "title"]),
    ]
    deleted, updated = written.entries
    assert deleted.created_by == "ann"
    assert {node_of(e.author) for e in written.entries} == {node_of(host.commits()[0].header.author)}
    assert host.values(model, "a") == {"title": "a"}
    feed.publish(written.entries)
    replayed = feed.part(before, limit=100, application=APPLICATION)
    assert replayed.entries == written.entries
    assert [feed.cursor_of(e) for e in replayed.entries] == [feed.cursor_of(e) for e in (deleted, updated)]


def _bring(host: Site, joiner: Site) -> None:
    held = {commit.hash for commit in host.commits()}
    host.group(Received([commit for commit in joiner.commits() if commit.hash not in held]))
