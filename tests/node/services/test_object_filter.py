from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.services.object_filter import filter_text
from protocol.query_filter import parse_filter
from protocol.schema import parse_definition

PROJECT = parse_definition(
    {
        "name": "Project",
        "fields": [
            {"name": "status", "type": "string"},
            {"name": "size", "type": "integer"},
            {"name": "is_open", "type": "boolean"},
        ],
    },
    application="default",
)
numbers = st.integers(-5, 5)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
comparisons = st.dictionaries(
    st.sampled_from(["$gt", "$gte", "$lt", "$lte", "$eq", "$ne"]), numbers, min_size=1, max_size=2
)
objects = st.fixed_dictionaries(
    {},
    optional={
        "status": st.one_of(
            texts,
            st.lists(texts, min_size=1, max_size=3),
            st.fixed_dictionaries({"$nin": st.lists(texts, min_size=1, max_size=2)}),
        ),
        "size": st.one_of(numbers, comparisons),
        "is_open": st.booleans(),
    },
)
records = st.fixed_dictionaries({"status": texts, "size": numbers, "is_open": st.booleans()})


def meets(value: Any, asked: Any) -> bool:
    """What a query object means, in Python."""
    if not isinstance(asked, dict):
        asked = {"$in": asked} if isinstance(asked, list) else {"$eq": asked}
    meaning: dict[str, Callable[[Any, Any], bool]] = {
        "$eq": lambda a, b: a == b, "$ne": lambda a, b: a != b, "$gt": lambda a, b: a > b, "$gte": lambda a, b: a >= b,
        "$lt": lambda a, b: a < b, "$lte": lambda a, b: a <= b,
        "$in": lambda a, b: a in b, "$nin": lambda a, b: a not in b,
    }  # fmt: skip
    return all(meaning[operator](value, other) for operator, other in asked.items())


@given(objects, st.lists(objects, min_size=1, max_size=3) | st.none(), records)
def test_an_object_and_its_filter_let_the_same_records_through(
    where: dict[str, Any], others: list[dict[str, Any]] | None, record: dict[str, Any]
) -> None:
    expected = all(meets(record[name], asked) for name, asked in where.items())
    if others is not None:
        expected = expected and any(all(meets(record[n], a) for n, a in one.items()) for one in others)
        where = {**where, "$or": others}
    text = filter_text(where)
    assert (text is None or parse_filter(text, PROJECT).matches(record)) == expected


def test_the_seeds_query_object_reads_as_it_is_written() -> None:
    where = {"createdBy": "user_123", "status": "active", "endDate": {"$gt": "2026-01-01"}}
    assert filter_text(where) == 'created_by:eq:"user_123",status:eq:"active",endDate:gt:"2026-01-01"'


@pytest.mark.parametrize(
    "where", [{"a": None}, {"a": {"$regex": "x"}}, {"$or": []}, {"$or": {}}, {"a": [{}]}, {"$or": [{"a": 1}] * 65}]
)  # fmt: skip
def test_what_cannot_be_said_is_named(where: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        filter_text(where)
