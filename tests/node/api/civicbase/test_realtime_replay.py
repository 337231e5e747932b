"""What a subscription hears when the record is read for it: nothing missed, nothing repeated."""

import json
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.api.civicbase.realtime_outbox import Limits
from node.conflict_feed import AnyEntry
from node.feed import Part, Position
from protocol.integrate import Change
from storage.feed_entry import FeedEntry
from tests.node.api.civicbase.realtime_fakes import ADMIN, ANN, BEN, Client, World


@pytest.fixture
def world() -> World:
    return World()


def test_a_cursor_brings_back_what_came_after_it(world: World) -> None:
    world.create("Task", "t1")
    first = Client(world)
    first.say(action="subscribe", model="Task")
    world.create("Task", "t2")
    world.create("Task", "t3")
    cursor = first.hear()[0]["cursor"]
    second = Client(world)
    (subscribed,) = second.say(action="subscribe", model="Task", cursor=cursor)
    assert subscribed["cursor"] == cursor
    world.create("Task", "t4")
    assert second.hear() == [], "what is live waits for what is older"
    replayed = second.read_on()
    assert [event["instance_id"] for event in replayed] == ["t3", "t4"]
    assert replayed[0]["previous"] == cursor
    world.create("Task", "t5")
    (live,) = second.hear()
    assert live["previous"] == replayed[-1]["cursor"]


def test_the_newest_cursor_goes_live_without_reading(world: World) -> None:
    world.create("Task", "t1")
    client = Client(world)
    client.say(action="subscribe", model="Task", cursor=world.feed.cursor())
    assert not client.session.is_behind
    world.create("Task", "t2")
    assert [event["instance_id"] for event in client.hear()] == ["t2"]


@pytest.mark.parametrize("cursor", ["another.1.0", "nonsense", "e.99.0", "e.0.0"])
def test_a_cursor_that_is_too_old_gets_one_resync_and_then_what_is_live(world: World, cursor: str) -> None:
    world.create("Task", "t1")
    world.feed.reaches_back_to = 1
    client = Client(world)
    subscribed, resync = client.say(type="subscribe", models=["Task"], cursor=cursor)
    assert subscribed["type"] == "subscribed"
    assert resync == {**subscribed, "type": "resync"}
    assert not client.session.is_behind
    world.create("Task", "t2")
    (event,) = client.hear()
    assert (event["instanceId"], event["previous"]) == ("t2", resync["cursor"])


def test_a_record_that_ends_too_early_gets_one_resync_a_subscription(world: World) -> None:
    for n in range(3):
        world.create("Task", f"t{n}")
    client = Client(world)
    client.say(action="subscribe", model="Task", cursor="e.1.0")
    client.say(type="subscribe", models=["Task"])
    client.session.resync()
    (resync,) = client.hear()
    assert resync == {"event": "resync", "model": "Task", "subscription": 1, "cursor": "e.3.0"}
    assert not client.session.is_behind


def test_entries_that_are_stored_but_not_handed_on_are_not_told_early(world: World) -> None:
    """Until then the cache of rendered documents may still hold the state before them."""
    world.create("Task", "t1")
    client = Client(world)
    client.say(action="subscribe", model="Task", cursor="e.0.0")
    world.commit(world.entry(Change.UPDATED, "Task", "t1"))
    assert len(client.read_on(limit=10)) == 1
    assert not client.session.is_behind
    world.feed.publish_all()
    assert [event["event"] for event in client.hear()] == ["update"]


def test_a_full_queue_makes_a_subscription_fall_behind_and_lose_nothing(world: World) -> None:
    client = Client(world, limits=Limits(queue_frames_max=2, replay_frames_max=1))
    client.say(action="subscribe", model="Task")
    for n in range(5):
        world.create("Task", f"t{n}")
    assert client.session.is_behind
    heard = client.hear()
    assert [event["instance_id"] for event in heard] == ["t0", "t1"]
    heard += client.read_on()
    world.create("Task", "t5")
    heard += client.hear()
    assert [event["instance_id"] for event in heard] == [f"t{n}" for n in range(6)]
    assert [event["previous"] for event in heard[1:]] == [event["cursor"] for event in heard[:-1]]


def test_the_queue_is_bounded_by_its_bytes_and_one_event(world: World) -> None:
    client = Client(world, limits=Limits(queue_size_max_bytes=10_000))
    client.say(action="subscribe", model="Task")
    for n in range(100):
        world.create("Task", f"t{n}", title="x" * 3_000)
    assert client.session.outbox.size_bytes < 10_000 + 4_000


def test_a_cut_off_client_finds_its_place_again(world: World) -> None:
    client = Client(world)
    client.say(action="subscribe", model="Task")
    world.create("Task", "t1")
    (heard,) = client.hear()
    world.create("Task", "t2")
    client.session.cut_off(1013, "too slow")
    assert client.hear() == []
    assert not world.watchers.wants(world.entry(Change.UPDATED, "Task", "t1"))
    again = Client(world)
    again.say(action="subscribe", model="Task", cursor=heard["cursor"])
    assert [event["instance_id"] for event in again.read_on()] == ["t2"]


class Interleaving:
    """Entries are stored, handed on, delivered and read in any order, and the queue fills."""

    models = ("Task", "Diary", "Other")

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.world = World()
        self.world.define("Diary", read="owner")
        self.world.define("Other")
        self.caller = self.random.choice([ANN, BEN, ADMIN])
        self.limits = Limits(
            queue_frames_max=self.random.randint(1, 6), replay_frames_max=self.random.randint(1, 4)
        )
        self.client = Client(self.world, self.caller, self.limits)
        self.client.delivers_at_once = False
        self.part: Part[AnyEntry] | None = None
        self.requests: list[dict[str, Any]] = []
        self.heard: list[list[Any]] = []

    def step(self) -> None:
        choices = (self.write, self.hand_on, self.deliver, self.read, self.replay, self.take)
        rare = (self.subscribe, self.doubt_the_token, self.give_up_on_pending)
        self.random.choices([*choices, *rare], [3, 2, 3, 4, 4, 4, 1, 1, 1])[0]()
        queued_max = max(self.limits.queue_frames_max, self.limits.replay_frames_max)
        assert len(self.client.session.outbox) <= queued_max + 2 * len(
            self.requests
        )  # replies, and one event

    def write(self) -> None:
        entries: list[FeedEntry] = []
        for index in range(self.random.randint(1, 3)):
            model, user = self.random.choice(self.models), self.random.choice(["ann", "ben"])
            id = self.random.choice("12") + user
            entries.append(self.world.entry(Change.UPDATED, model, id, user=user, index=index, title="x"))
        self.world.commit(*entries)

    def hand_on(self) -> None:
        self.world.feed.publish_all()

    def deliver(self) -> None:
        self.client.deliver_pending(self.random.randint(1, 4))

    def give_up_on_pending(self) -> None:
        self.client.drop_pending()

    def doubt_the_token(self) -> None:
        """Found out when the first pending entry is to be delivered."""
        if self.client.pending:
            first = self.client.pending.pop(0)
            self.client.session.fall_behind(Position(first.arrival, first.index - 1))

    def subscribe(self) -> None:
        feed, random = self.world.feed, self.random
        cursor, instance = None, random.choice([None, None, "1ann", "2ben"])
        if random.random() < 0.6:
            known = [entry for entry in feed.record if (entry.arrival, entry.index) <= feed.newest]
            back = random.randint(1, 20)
            cursor = feed.cursor_of(known[-back]) if back <= len(known) else feed.cursor(Position(0, 0))
        models = random.sample(self.models, random.choice([1, 1, 2]))
        if random.random() < 0.5:
            request: dict[str, Any] = {"action": "subscribe", "model": models[0], "instance_id": instance}
            models = models[:1]
        else:
            instance = instance if len(models) == 1 else None
            request = {"type": "subscribe", "models": models, "instanceId": instance}
        started = cursor or feed.cursor()
        for other in self.requests:
            if other["dialect"] == next(iter(request)) and other["instance"] == instance:
                other["models"] = [model for model in other["models"] if model not in models]
        about = {"dialect": next(iter(request)), "models": models, "instance": instance, "started": started}
        self.requests.append({**about, "after": feed.position(started)})
        self.heard.append([])
        self.client.now_ms += 1_000
        self.client.session.receive(json.dumps({**request, "cursor": cursor}), self.client.now_ms)

    def read(self) -> None:
        session, feed = self.client.session, self.world.feed
        after = session.behind_since
        if after is not None and self.part is None:
            self.part = feed.part(after, limit=self.random.randint(1, 6))

    def replay(self) -> None:
        if self.part is not None:
            self.part = self.client.session.replay(self.part)

    def take(self) -> None:
        for _ in range(self.random.randint(1, 6)):
            for frame in self.client.session.outbox.take(1):
                self.note(json.loads(b"".join(frame)))

    def note(self, message: dict[str, Any]) -> None:
        kind = message.get("event", message.get("type"))
        assert kind in ("subscribed", "update"), message
        if kind == "update":
            self.heard[message["subscription"] - 1].append(message)

    def end(self) -> None:
        """Let everything arrive; then look at what each subscription has heard."""
        self.hand_on()
        self.client.deliver_pending(len(self.client.pending))
        for _ in range(10_000):
            self.take()
            self.read()
            self.replay()
            if self.part is None and not self.client.session.is_behind and not self.client.session.outbox:
                break
        for request, heard in zip(self.requests, self.heard, strict=True):
            cursors = [request["started"], *(event["cursor"] for event in heard)]
            assert [event["previous"] for event in heard] == cursors[:-1], "a chain without gaps"
            told = [event["cursor"] for event in heard if event["model"] in request["models"]]
            assert told == [self.world.feed.cursor_of(entry) for entry in self.expected(request)]

    def expected(self, request: dict[str, Any]) -> list[FeedEntry]:
        named = {self.world.documents.model("default", name).id: name for name in request["models"]}
        return [
            entry
            for entry in self.world.feed.record
            if entry.model in named
            and (entry.arrival, entry.index) > request["after"]
            and request["instance"] in (None, entry.id)
            and (named[entry.model] != "Diary" or self.caller is ADMIN or entry.user == self.caller.user_id)
        ]


@settings(max_examples=120, deadline=None)
@given(st.integers(0, 2**32))
def test_nothing_is_missed_or_repeated_however_reading_and_telling_interleave(seed: int) -> None:
    run = Interleaving(seed)
    run.subscribe()
    for _ in range(100):
        run.step()
    run.end()
