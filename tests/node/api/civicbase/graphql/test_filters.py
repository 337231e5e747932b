"""Filters of GraphQL mean what they say: each is held against a plain reading of it."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.api.civicbase.graphql.filters import Member, filter_text, members_of
from protocol.errors import QueryFault
from protocol.query_filter import CONDITIONS_MAX, Op, parse_filter
from protocol.schema import parse_definition

MODEL = parse_definition(
    {
        "name": "Task",
        "fields": [
            {"name": "title", "type": "string"},
            {"name": "title_in", "type": "string"},
            {"name": "AND", "type": "boolean"},
            {"name": "rank", "type": "integer"},
            {"name": "tags", "type": "set"},
            {"name": "status", "type": "enum", "options": ["TODO", "DONE"]},
            {"name": "extra", "type": "json"},
        ],
    },
    application="default",
)
MEMBERS = {member.name: member for member in members_of(MODEL)}


def test_every_operator_has_a_name_of_its_own() -> None:
    assert MEMBERS["title"] == Member("title", "title", Op.EQ)
    assert MEMBERS["title_in"] == Member("title_in", "title_in", Op.EQ)
    assert MEMBERS["title_in_"] == Member("title_in_", "title", Op.IN)
    assert MEMBERS["AND_"] == Member("AND_", "AND", Op.EQ)
    assert MEMBERS["created_at_gte"].op is Op.GTE
    assert "extra" not in MEMBERS and "tags_gt" not in MEMBERS and "status_gt" not in MEMBERS
    assert {member.op for member in MEMBERS.values() if member.field == "rank"} == set(Op) - {Op.LIKE}


def matches(given: dict[str, Any], values: dict[str, Any]) -> bool:
    text = filter_text(given, MEMBERS)
    return text is None or parse_filter(text, MODEL).matches(values)


def test_what_lists_mean() -> None:
    assert matches({}, {}) and matches({"AND": []}, {}) and not matches({"OR": []}, {})
    assert matches({"rank_in": [1, 2]}, {"rank": 2}) and not matches({"rank_in": []}, {"rank": 2})
    assert matches({"rank_nin": []}, {"rank": 2})
    assert matches({"tags": 5}, {"tags": [5]}) and matches({"tags_in": ["a", True]}, {"tags": [True]})
    assert not matches({"OR": [{"rank": 1}, {"title": "x"}], "status": "TODO"}, {"rank": 1, "status": "DONE"})


def test_a_text_stays_what_it_is() -> None:
    for text in ('a"b', "a\\b", "a,b|c:d;e", " x ", "5", ""):
        assert matches({"title": text}, {"title": text}), text
        assert matches({"title_in_": ["z", text]}, {"title": text}), text


def test_faults_are_named_all_at_once_and_bounds_hold() -> None:
    with pytest.raises(QueryFault) as caught:
        filter_text({"title": None, "rank_in": [None], "OR": [{"status": None}]}, MEMBERS)
    assert caught.value.details["filter"].count("Must") == 3
    alternatives = {"OR": [{"rank": n} for n in range(8)]}
    assert filter_text({"AND": [alternatives]}, MEMBERS) is not None
    with pytest.raises(QueryFault, match="filter"):
        filter_text({"AND": [alternatives] * 3}, MEMBERS)
    with pytest.raises(QueryFault, match="filter"):
        filter_text({"OR": [{"rank": n} for n in range(CONDITIONS_MAX + 1)]}, MEMBERS)


CONDITION = st.fixed_dictionaries(
    {},
    optional={
        "rank_gte": st.integers(0, 3),
        "rank_in": st.lists(st.integers(0, 3), max_size=2),
        "rank_nin": st.lists(st.integers(0, 3), max_size=2),
        "title": st.sampled_from(["", "a", '"', "a,b"]),
    },
)
FILTER = st.recursive(
    CONDITION,
    lambda inner: st.builds(
        lambda own, both, either: (
            own | ({"AND": both} if both else {}) | ({} if either is None else {"OR": either})
        ),
        CONDITION,
        st.lists(inner, max_size=2),
        st.none() | st.lists(inner, max_size=2),
    ),
    max_leaves=4,
)


def plainly(given: dict[str, Any], values: dict[str, Any]) -> bool:
    rank, title = values.get("rank"), values.get("title")
    tests: dict[str, Callable[[Any], bool]] = {
        "rank_gte": lambda bound: rank is not None and rank >= bound,
        "rank_in": lambda wanted: rank in wanted,
        "rank_nin": lambda wanted: rank not in wanted,
        "title": lambda wanted: title == wanted,
        "AND": lambda all_of: all(plainly(each, values) for each in all_of),
        "OR": lambda some_of: any(plainly(each, values) for each in some_of),
    }
    return all(tests[name](value) for name, value in given.items())


@given(
    FILTER,
    st.fixed_dictionaries({}, optional={"rank": st.integers(0, 3), "title": st.sampled_from(["", "a", '"'])}),
)
def test_a_filter_means_what_it_says(given: dict[str, Any], values: dict[str, Any]) -> None:
    try:
        found = matches(given, values)
    except QueryFault:
        return  # too long once worked out
    assert found == plainly(given, values)
