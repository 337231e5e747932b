"""One client of the realtime socket, without the socket."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.api.civicbase.realtime_messages import Authenticate, Dialect, EditText
from node.api.civicbase.realtime_outbox import Limits
from node.api.errors import Forbidden
from protocol.integrate import Change
from tests.node.api.civicbase.realtime_fakes import ADMIN, ANN, BEN, ELSEWHERE, Client, World, error_of
from tests.node.api.civicbase.test_realtime_messages import json_values, near_messages


@pytest.fixture
def world() -> World:
    return World()


# -- the two dialects


def test_the_first_dialect_hears_whole_instances(world: World) -> None:
    client = Client(world)
    cursor = world.feed.cursor()
    assert client.say(action="subscribe", model="Task") == [
        {"event": "subscribed", "model": "Task", "subscription": 1, "cursor": cursor}
    ]
    world.create("Task", "t1", title="one", count=1)
    world.update("Task", "t1", title="two")
    world.delete("Task", "t1")
    created, updated, deleted = client.hear()
    assert created == {
        "event": "create",
        "model": "Task",
        "instance_id": "t1",
        "data": {"id": "t1", "title": "one", "count": 1, "created_by": "ann", "version": "v1"},
        "subscription": 1,
        "cursor": "e.1.0",
        "previous": cursor,
    }
    assert updated["event"] == "update"
    assert updated["data"]["title"] == "two"
    assert updated["data"]["count"] == 1
    assert (updated["previous"], updated["cursor"]) == ("e.1.0", "e.2.0")
    assert (deleted["event"], deleted["instance_id"], deleted["data"]) == ("delete", "t1", None)
    assert deleted["previous"] == "e.2.0"


def test_the_second_dialect_hears_what_changed(world: World) -> None:
    world.define("Project")
    client = Client(world)
    cursor = world.feed.cursor()
    (subscribed,) = client.say(type="subscribe", models=["Task", "Project"])
    assert subscribed == {
        "type": "subscribed",
        "models": ["Task", "Project"],
        "subscription": 1,
        "cursor": cursor,
    }
    world.create("Task", "t1", title="one", count=1)
    world.update("Project", "p1", title="two")
    world.delete("Task", "t1")
    created, updated, deleted = client.hear()
    assert created["type"] == "create"
    assert created["changes"] == {"title": "one", "count": 1}
    assert (updated["type"], updated["model"], updated["instanceId"]) == ("update", "Project", "p1")
    assert updated["changes"] == {"title": "two"}
    assert updated["data"]["title"] == "two"
    assert (deleted["type"], deleted["model"], deleted["instanceId"]) == ("delete", "Task", "t1")
    chain = [subscribed["cursor"], created["cursor"], updated["cursor"]]
    assert [event["previous"] for event in (created, updated, deleted)] == chain


def test_events_selects_what_is_heard(world: World) -> None:
    client = Client(world)
    (subscribed,) = client.say(type="subscribe", models=["Task"], events=["deleted"])
    world.create("Task", "t1")
    world.update("Task", "t1")
    world.delete("Task", "t1")
    (deleted,) = client.hear()
    assert deleted["type"] == "delete"
    assert deleted["previous"] == subscribed["cursor"], "what was not asked for is no gap"


def test_one_socket_speaks_both_dialects(world: World) -> None:
    client = Client(world)
    client.say(action="subscribe", model="Task")
    client.say(type="subscribe", models=["Task"])
    world.create("Task", "t1")
    first, second = client.hear()
    assert (first["event"], first["subscription"]) == ("create", 1)
    assert (second["type"], second["subscription"]) == ("create", 2)
    client.say(action="unsubscribe", model="Task")
    world.update("Task", "t1")
    assert [event["type"] for event in client.hear()] == ["update"]


def test_models_go_by_name_or_id_and_are_named_as_the_subscriber_did(world: World) -> None:
    client = Client(world)
    id = world.documents.model("default", "Task").id
    client.say(action="subscribe", model=id)
    world.create("Task", "t1")
    assert [event["model"] for event in client.hear()] == [id]
    client.say(action="unsubscribe", model="Task")
    world.create("Task", "t2")
    assert client.hear() == []


def test_a_model_that_took_anothers_id_for_its_name_hears_nothing_of_it(world: World) -> None:
    """Its rules are its definer's, and must not open documents of the other."""
    task = world.define("Task", read="owner")
    lure = world.define(task.id, read="public")
    world.documents.models = {("default", lure.name): lure, **world.documents.models}
    ben = Client(world, BEN)
    ben.say(action="subscribe", model=lure.name)
    assert world.documents.model("default", task.id) is lure
    world.create("Task", "t1", user="ann")
    assert ben.hear() == []


def test_one_instance_can_be_followed_alone(world: World) -> None:
    client = Client(world)
    client.say(action="subscribe", model="Task", instance_id="t1")
    client.say(type="subscribe", models=["Task"], instanceId="t2")
    world.create("Task", "t1")
    world.create("Task", "t2")
    world.create("Task", "t3")
    assert [event.get("instance_id", event.get("instanceId")) for event in client.hear()] == ["t1", "t2"]


def test_unsubscribing_from_a_model_ends_its_instances_too(world: World) -> None:
    client = Client(world)
    client.say(action="subscribe", model="Task")
    client.say(action="subscribe", model="Task", instance_id="t1")
    client.say(action="subscribe", model="Task", instance_id="t2")
    assert client.say(action="unsubscribe", model="Task", instance_id="t2") == [
        {"event": "unsubscribed", "model": "Task", "instance_id": "t2"}
    ]
    world.create("Task", "t2")
    assert [event["subscription"] for event in client.hear()] == [1]
    client.say(action="unsubscribe", model="Task")
    world.create("Task", "t1")
    assert client.hear() == []
    assert not world.watchers.wants(world.entry(Change.UPDATED, "Task", "t1"))


def test_one_model_of_several_can_be_left(world: World) -> None:
    world.define("Project")
    client = Client(world)
    (subscribed,) = client.say(type="subscribe", models=["Task", "Project"])
    client.say(type="unsubscribe", models=["Task"])
    world.create("Task", "t1")
    world.create("Project", "p1")
    (event,) = client.hear()
    assert (event["model"], event["previous"]) == ("Project", subscribed["cursor"])
    client.say(type="unsubscribe")
    world.create("Project", "p2")
    assert client.hear() == []


def test_subscribing_again_replaces_the_subscription(world: World) -> None:
    client = Client(world)
    client.say(type="subscribe", models=["Task"], events=["deleted"])
    client.say(type="subscribe", models=["Task"], events=["created"])
    world.create("Task", "t1")
    assert [event["subscription"] for event in client.hear()] == [2]


def test_changes_of_other_nodes_carry_their_origin(world: World) -> None:
    client = Client(world)
    client.say(action="subscribe", model="Task")
    world.create("Task", "t1")
    world.create("Task", "t2", node=ELSEWHERE)
    here, elsewhere = client.hear()
    assert "origin" not in here
    assert elsewhere["origin"] == ELSEWHERE.hex()


def test_other_applications_are_not_heard(world: World) -> None:
    world.define("Task", application="other")
    client = Client(world)
    client.say(action="subscribe", model="Task")
    world.create("Task", "t1", application="other")
    assert client.hear() == []


# -- faults


def test_every_model_that_cannot_be_watched_is_named(world: World) -> None:
    world.define("Secret", read="role:spy")
    client = Client(world)
    fault = error_of(client.say(type="subscribe", models=["Nope", "Task", "Secret"]))
    assert fault == {
        "type": "error",
        "error": "Not all of these models can be watched",
        "error_code": "BAD_REQUEST",
        "details": {
            "models[0]": "There is no data model 'Nope'",
            "models[2]": "You may not read 'Secret'",
        },
    }
    world.create("Task", "t1")
    assert client.hear() == [], "a refused message subscribes to nothing"


def test_errors_come_in_the_shape_of_the_dialect(world: World) -> None:
    client = Client(world)
    assert error_of(client.say(action="subscribe", model="Nope")) == {
        "event": "error",
        "error": "There is no data model 'Nope'",
        "error_code": "NOT_FOUND",
        "details": {"model": "There is no data model 'Nope'"},
    }
    assert error_of(client.say("nonsense"))["event"] == "error", "the dialect spoken last"
    world.define("Secret", read="role:spy")
    assert error_of(client.say(type="subscribe", models=["Secret"]))["error_code"] == "FORBIDDEN"


def test_subscriptions_are_limited(world: World) -> None:
    client = Client(world, limits=Limits(subscriptions_max=2))
    client.say(action="subscribe", model="Task", instance_id="1")
    client.say(action="subscribe", model="Task", instance_id="2")
    assert error_of(client.say(action="subscribe", model="Task"))["error_code"] == "LIMIT_EXCEEDED"
    assert client.say(action="subscribe", model="Task", instance_id="2")[0]["event"] == "subscribed"
    client.say(action="unsubscribe", model="Task", instance_id="1")
    assert client.say(action="subscribe", model="Task")[0]["event"] == "subscribed"


def test_messages_are_limited_by_the_second(world: World) -> None:
    client = Client(world)
    session = client.session
    text = json.dumps({"action": "unsubscribe", "model": "Task"})
    for _ in range(100):
        session.receive(text, 0)
    assert all(reply["event"] == "unsubscribed" for reply in client.hear())
    session.receive(text, 0)
    assert error_of(client.hear()) == {
        "event": "error",
        "error": "Rate limit exceeded",
        "error_code": "RATE_LIMIT_EXCEEDED",
        "retry_after": 1,
    }
    session.receive(text, 1_000)
    assert client.hear()[0]["event"] == "unsubscribed"


def test_a_flood_of_messages_closes_the_socket(world: World) -> None:
    client = Client(world)
    for _ in range(2_000):
        client.session.receive("flood", 0)
    assert client.session.close is not None
    assert client.session.close.code == 1008
    assert len(client.hear()) < 1_200


def test_binary_messages_are_refused(world: World) -> None:
    client = Client(world)
    client.session.receive_binary(0)
    assert error_of(client.hear())["error_code"] == "BAD_REQUEST"


# -- signing in


def asks(client: Client, **members: Any) -> Authenticate:
    asked = client.session.receive(json.dumps(members), client.now_ms)
    assert isinstance(asked, Authenticate)
    return asked


def test_nothing_is_subscribed_before_somebody_signs_in(world: World) -> None:
    client = Client(world, None)
    assert error_of(client.say(type="subscribe", models=["Task"]))["error_code"] == "UNAUTHORIZED"
    asked = asks(client, type="authenticate", token="ann")
    assert asked == Authenticate(Dialect.TYPE, "ann")
    assert "ann" not in repr(asked), "tokens stay out of logs"
    assert client.session.authenticated(ANN, asked)
    assert client.hear() == [{"type": "authenticated", "user_id": "ann"}]
    assert client.say(type="subscribe", models=["Task"])[0]["type"] == "subscribed"
    client.session.on_deadline()
    assert client.session.close is None


def test_edits_wait_until_somebody_has_signed_in_and_are_handed_on(world: World) -> None:
    edit = {"model": "Task", "instance_id": "t1", "field": "body", "ops": [], "base_version": "v"}
    nobody = Client(world, None)
    assert error_of(nobody.say(action="edit", **edit))["error_code"] == "UNAUTHORIZED"
    session = Client(world).session
    asked = session.receive(json.dumps({"action": "edit", **edit}), 0)
    assert isinstance(asked, EditText) and not len(session.outbox)
    session.edited(asked, "w")
    session.not_edited(asked, Forbidden("no"))
    assert len(session.outbox) == 2


def test_a_bad_token_closes_the_socket(world: World) -> None:
    client = Client(world, None)
    client.session.not_authenticated(None, asks(client, action="authenticate", token="x"))
    assert error_of(client.hear()) == {
        "event": "error",
        "error": "Invalid authentication token provided",
        "error_code": "AUTH_INVALID_TOKEN",
    }
    assert client.session.close is not None
    assert client.session.close.code == 4401


def test_who_does_not_sign_in_in_time_is_sent_away(world: World) -> None:
    client = Client(world, None)
    assert client.session.deadline_ms == 5_000
    client.session.on_deadline()
    assert error_of(client.hear())["error_code"] == "UNAUTHORIZED"
    assert client.session.close is not None
    assert client.session.close.code == 4401
    assert client.say(type="subscribe", models=["Task"]) == []


def test_a_token_can_be_renewed_by_its_user_alone(world: World) -> None:
    client = Client(world)
    client.say(action="subscribe", model="Task")
    assert not client.session.authenticated(BEN, asks(client, type="authenticate", token="ben"))
    assert error_of(client.hear())["error_code"] == "CONFLICT"
    client.session.not_authenticated(None, asks(client, type="authenticate", token="bad"))
    assert error_of(client.hear())["error_code"] == "AUTH_INVALID_TOKEN"
    assert client.session.close is None
    renewed = replace(ANN, session_id="ann-2")
    assert client.session.authenticated(renewed, asks(client, type="authenticate", token="new"))
    client.hear()
    world.create("Task", "t1")
    assert len(client.hear()) == 1


def test_a_token_of_another_application_than_named_is_refused(world: World) -> None:
    client = Client(world, None)
    asked = asks(client, type="authenticate", token="ann", application_id="other")
    assert not client.session.authenticated(ANN, asked)
    assert client.session.close is not None


def test_a_token_that_counts_no_longer_ends_everything(world: World) -> None:
    client = Client(world)
    client.say(action="subscribe", model="Task")
    client.session.sign_out("The token has expired")
    world.create("Task", "t1")
    assert error_of(client.hear())["error"] == "The token has expired"
    assert client.session.close is not None
    assert client.session.close.code == 4401


# -- who may see what


def test_documents_of_others_are_not_shown_where_readers_must_own(world: World) -> None:
    world.define("Diary", read="owner")
    ann, ben, admin = Client(world), Client(world, BEN), Client(world, ADMIN)
    for client in (ann, ben, admin):
        client.say(action="subscribe", model="Diary")
    world.create("Diary", "d1", user="ann")
    world.update("Diary", "d1", user="root")
    world.delete("Diary", "d1", user="root")
    assert [event["event"] for event in ann.hear()] == ["create", "update", "delete"]
    assert [event["event"] for event in admin.hear()] == ["create", "update", "delete"]
    assert ben.hear() == []


def test_rights_are_those_at_delivery_live_and_replayed(world: World) -> None:
    client = Client(world, BEN)
    (subscribed,) = client.say(action="subscribe", model="Task")
    world.create("Task", "t1", user="ann", title="public as yet")
    assert len(client.hear()) == 1
    world.define("Task", read="owner")
    world.update("Task", "t1", user="ann", title="private")
    assert client.hear() == []
    client.say(action="subscribe", model="Task", cursor=subscribed["cursor"])
    assert client.read_on() == []


def test_roles_count_as_they_are_now(world: World) -> None:
    world.define("Plan", read="role:planner")
    planner = replace(BEN, roles=frozenset({"planner"}))
    client = Client(world, planner)
    client.say(type="subscribe", models=["Plan", "Task"])
    client.session.refresh(BEN)
    assert error_of(client.hear()) == {
        "type": "error",
        "error": "You may not read 'Plan' any more",
        "error_code": "FORBIDDEN",
        "details": {"Plan": "You may not read 'Plan' any more"},
    }
    world.create("Plan", "p1")
    world.create("Task", "t1")
    assert [event["model"] for event in client.hear()] == ["Task"]


def test_a_model_that_is_deleted_ends_its_subscriptions_by_name(world: World) -> None:
    client = Client(world)
    client.say(action="subscribe", model="Task")
    model = world.documents.model("default", "Task")
    world.forget("Task")
    client.session.review(model.id)
    assert error_of(client.hear())["error_code"] == "NOT_FOUND"
    assert client.say(action="unsubscribe", model="Task")[0]["event"] == "unsubscribed"


def test_what_cannot_be_shown_is_not_told_of(world: World) -> None:
    """A quarantined document, or one that was deleted before the event went out."""
    client = Client(world)
    client.say(action="subscribe", model="Task")
    entry = world.entry(Change.CREATED, "Task", "t1")
    world.documents.shown.clear()
    world.commit(entry)
    world.feed.publish_all()
    assert client.hear() == []


def test_one_rendering_serves_all(world: World) -> None:
    clients = [Client(world, caller) for caller in (ANN, BEN, ADMIN)]
    for client in clients:
        client.say(action="subscribe", model="Task")
        client.say(type="subscribe", models=["Task"])
    before = world.documents.renderings
    entry = world.entry(Change.CREATED, "Task", "t1")
    assert world.watchers.of(entry) == [client.session for client in clients]
    clients[0].on_entries([entry])
    assert world.documents.renderings == before + 1


# -- whatever comes


@settings(max_examples=200)
@given(
    st.lists(
        st.one_of(st.text(max_size=20), json_values.map(json.dumps), near_messages.map(json.dumps)),
        max_size=8,
    )
)
def test_no_message_raises_and_each_is_answered(texts: list[str]) -> None:
    world = World()
    world.create("Task", "t1")
    client = Client(world)
    for text in texts:
        client.now_ms += 1_000
        asked = client.session.receive(text, client.now_ms)
        if isinstance(asked, EditText):
            client.session.not_edited(asked, Forbidden("no"))
        elif asked is not None:
            client.session.not_authenticated(None, asked)
        assert client.hear(), text
        client.read_on()
    world.create("Task", "t2")
    client.hear()
