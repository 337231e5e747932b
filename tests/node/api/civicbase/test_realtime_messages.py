"""Both dialects of the realtime socket, read and written."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.api.civicbase import realtime_messages as messages
from node.api.civicbase.realtime_messages import (
    Authenticate,
    Dialect,
    EditText,
    Message,
    MessageRefused,
    Subscribe,
    Unsubscribe,
    read_message,
)
from protocol.integrate import Change


def read(**members: Any) -> Message:
    return read_message(json.dumps(members))


def refusal(message: object) -> MessageRefused:
    text = message if isinstance(message, str) else json.dumps(message)
    with pytest.raises(MessageRefused) as caught:
        read_message(text)
    return caught.value


def test_the_seeds_own_examples_are_understood() -> None:
    assert read(action="subscribe", model="Task", instance_id="task_instance_67890") == Subscribe(
        Dialect.ACTION, ("Task",), "task_instance_67890"
    )
    assert read(action="unsubscribe", model="Task") == Unsubscribe(Dialect.ACTION, ("Task",))
    assert read(type="authenticate", token="your_auth_token") == Authenticate(Dialect.TYPE, "your_auth_token")
    assert read(
        type="subscribe", models=["UserProfile", "Project"], events=["updated", "deleted"]
    ) == Subscribe(
        Dialect.TYPE, ("UserProfile", "Project"), topics=frozenset({Change.UPDATED, Change.DELETED})
    )


def test_an_edit_is_read_in_both_dialects() -> None:
    ops = [{"retain": 1}, {"insert": "x"}]
    action = {
        "action": "edit",
        "model": "Page",
        "instance_id": "one",
        "field": "body",
        "ops": ops,
        "base_version": "v",
    }
    expected = EditText(Dialect.ACTION, "Page", "one", "body", ops, "v")
    assert read_message(json.dumps(action)) == expected
    said = {
        "type": "edit",
        "model": "Page",
        "instanceId": "one",
        "field": "body",
        "ops": ops,
        "baseVersion": "v",
        "ref": "7",
    }
    assert read_message(json.dumps(said)) == replace(expected, dialect=Dialect.TYPE, ref="7")
    with pytest.raises(MessageRefused) as caught:
        read_message(json.dumps({"action": "edit", "ops": "x", "instance_id": "/", "baseVersion": "v"}))
    assert set(caught.value.details or ()) == {
        "model",
        "field",
        "ops",
        "instance_id",
        "base_version",
        "baseVersion",
    }


def test_a_null_is_as_good_as_nothing() -> None:
    message = read(action="subscribe", model="Task", instance_id=None, cursor=None)
    assert message == Subscribe(Dialect.ACTION, ("Task",))


def test_a_model_named_twice_is_meant_once() -> None:
    assert read(type="subscribe", models=["A", "B", "A"]) == Subscribe(Dialect.TYPE, ("A", "B"))


def test_unsubscribing_without_models_means_all_of_the_dialect() -> None:
    assert read(type="unsubscribe") == Unsubscribe(Dialect.TYPE, None)


def test_every_fault_is_named_at_once() -> None:
    fault = refusal(
        {
            "type": "subscribe",
            "models": ["Task", 5, ""],
            "events": ["updated", "touched"],
            "instanceId": "no spaces",
            "cursor": 7,
            "filter": "x",
        }
    )
    assert fault.dialect is Dialect.TYPE
    assert fault.code == "BAD_REQUEST"
    assert fault.details == {
        "models[1]": "Must be a text",
        "models[2]": "Must have 1 to 128 characters",
        "events[1]": "Invalid option. Must be one of: created, updated, deleted, conflict",
        "instanceId": "an id is 1 to 64 characters of A-Z a-z 0-9 _ . : ~ -",
        "cursor": "Must be a text",
        "filter": "Unknown field",
    }


@pytest.mark.parametrize(
    ("message", "details"),
    [
        ({"action": "subscribe"}, {"model": "This field is required"}),
        ({"type": "subscribe"}, {"models": "This field is required"}),
        ({"type": "subscribe", "models": []}, {"models": "Must be a list of 1 to 1000 models"}),
        ({"type": "subscribe", "models": "Task"}, {"models": "Must be a list of 1 to 1000 models"}),
        (
            {"type": "subscribe", "models": ["A"], "events": []},
            {"events": "Must be a list of at least one event"},
        ),
        (
            {"type": "subscribe", "models": ["A", "B"], "instanceId": "x"},
            {"instanceId": "Needs exactly one model beside it"},
        ),
        ({"type": "unsubscribe", "instanceId": "x"}, {"instanceId": "Needs exactly one model beside it"}),
        ({"type": "authenticate"}, {"token": "This field is required"}),
        (
            {"action": "dance"},
            {"action": "Invalid option. Must be one of: authenticate, subscribe, unsubscribe, edit"},
        ),
        ({"type": 1}, {"type": "Invalid option. Must be one of: authenticate, subscribe, unsubscribe, edit"}),
    ],
)
def test_a_fault_says_where_it_is(message: object, details: dict[str, str]) -> None:
    assert refusal(message).details == details


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "The message is not valid JSON"),
        ("{", "The message is not valid JSON"),
        ("[" * 20_000, "The message is nested too deeply"),
        ("[]", "The message must be a JSON object"),
        ("{}", "A message has either an action or a type"),
        ('{"action":"subscribe","type":"subscribe"}', "A message has either an action or a type"),
    ],
)
def test_what_shows_no_dialect_is_refused_without_one(text: str, message: str) -> None:
    fault = refusal(text)
    assert fault.dialect is None
    assert fault.message.startswith(message)


def test_a_flood_of_faults_is_cut_short() -> None:
    fault = refusal({"action": "subscribe", **{f"field{n}": n for n in range(5_000)}})
    assert fault.details is not None
    assert len(fault.details) == messages.FAULTS_MAX


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
_MEMBERS = ["model", "models", "instance_id", "instanceId", "events", "cursor", "token", "application_id"]
near_messages = st.builds(
    lambda said, verb, members: {**members, said: verb},
    st.sampled_from(["action", "type"]),
    st.sampled_from(["authenticate", "subscribe", "unsubscribe"]) | json_values,
    st.dictionaries(
        st.sampled_from(_MEMBERS),
        json_values
        | st.sampled_from(["Task", "x"])
        | st.lists(st.sampled_from(["Task", "updated"]), max_size=3),
        max_size=5,
    ),
)


@given(st.one_of(st.text(), json_values.map(json.dumps), near_messages.map(json.dumps)))
def test_no_text_raises_anything_but_a_refusal(text: str) -> None:
    try:
        read_message(text)
    except MessageRefused as fault:
        json.loads(messages.error_reply(Dialect.TYPE, fault.message, fault.code, fault.details))


names = st.text(min_size=1, max_size=20)


@given(
    st.sampled_from(Dialect),
    st.sampled_from([Change.CREATED, Change.UPDATED, Change.DELETED]),
    names,
    names,
    json_values,
)
def test_events_are_json_whatever_the_names_and_values(
    dialect: Dialect, change: Change, model: str, id: str, value: Any
) -> None:
    document = {"id": id, "value": json.loads(json.dumps(value).replace("NaN", "0").replace("Infinity", "0"))}
    rendered = None if change is Change.DELETED else json.dumps(document).encode()
    head = messages.event_head(dialect, change, model, id, rendered, {"value": 1}, None)
    tail = messages.event_tail(3, messages.cursor_text("e.1.0"), messages.cursor_text('"odd"'))
    event = json.loads(head + tail)
    assert event[dialect.heard] == messages.EVENT_NAMES[change]
    assert event["model"] == model
    assert event["cursor"] == "e.1.0"
    assert event["previous"] == '"odd"'
    if dialect is Dialect.ACTION:
        assert event["instance_id"] == id
        assert event["data"] == (None if rendered is None else document)
    else:
        assert event["instanceId"] == id
        assert event["changes"] == ({} if rendered is None else {"value": document["value"]})


def test_changes_show_the_fields_as_they_stand() -> None:
    """Of two values that did not see each other one is shown, not always the one that came last."""
    head = messages.event_head(
        Dialect.TYPE,
        Change.UPDATED,
        "Task",
        "1",
        b'{"id":"1","title":"shown","count":2}',
        {"title": "lost"},
        "ab",
    )
    event = json.loads(head + b"}")
    assert event == {
        "type": "update",
        "model": "Task",
        "instanceId": "1",
        "changes": {"title": "shown"},
        "data": {"id": "1", "title": "shown", "count": 2},
        "origin": "ab",
    }
