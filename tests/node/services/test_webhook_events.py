"""Names of events: which are taken, and under which of them a change is heard."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.services.webhook_events import EVENTS_MAX, Happening, check_events


@pytest.mark.parametrize(
    "name",
    [
        "*", "user.created", "user.updated", "data.created", "data.updated", "data.deleted", "project.status_changed",
        "UserProfile.updated", "email-thread.created", "Task_1a2b3c4d.deleted", "Deal.stage_changed", "a.b.created",
        "user.email_changed", "breach.created",
    ],
)  # fmt: skip
def test_good_names(name: str) -> None:
    assert check_events([name]) == ((name,), {})


@pytest.mark.parametrize(
    "name",
    [None, 7, "", ".", "updated", "Task.", ".updated", "Task.renamed", "Task.*", "user.deleted", "breach.deleted",
     "$account.created", "Task._changed", "Task.1x_changed", "Tä.created", "Task.created ", "x" * 200 + ".created"],
)  # fmt: skip
def test_bad_names(name: object) -> None:
    events, faults = check_events(["data.created", name])
    assert events == () and list(faults) == ["events[1]"]


@pytest.mark.parametrize("events", [None, "data.created", [], {}, ["data.created"] * (EVENTS_MAX + 1)])
def test_what_is_no_list_of_names(events: object) -> None:
    assert list(check_events(events)[1]) == ["events"]


def test_every_fault_is_named_and_each_name_counts_once() -> None:
    assert list(check_events(["x", "data.created", 3])[1]) == ["events[0]", "events[2]"]
    assert check_events(["data.created", "*", "data.created"])[0] == ("data.created", "*")


@given(st.lists(st.one_of(st.text(), st.none(), st.floats(), st.just("data.updated"))))
def test_any_list_is_judged(events: list[Any]) -> None:
    names, faults = check_events(events)
    assert bool(names) != bool(faults)


def test_a_change_is_heard_once_under_each_name_that_was_asked_for() -> None:
    names = frozenset({"data.updated", "Task.updated", "Task.stage_changed"})
    happening = Happening(names, "data.updated", "task", "Task", "t1", {}, 0, None, None)
    assert happening.heard_as(("*",)) == ["data.updated"]
    assert happening.heard_as(("*", "data.updated")) == ["data.updated"]
    assert happening.heard_as(("Task.updated", "data.updated")) == ["Task.updated", "data.updated"]
    assert happening.heard_as(("Task.stage_changed", "*")) == ["Task.stage_changed", "data.updated"]
    assert happening.heard_as(("Task.deleted",)) == []
