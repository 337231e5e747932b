"""Queries and aggregations from parameters and bodies, and the cursors between pages."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import QueryFault
from protocol.query import (
    CURSOR_SIZE_MAX,
    Aggregation,
    Cursor,
    Measure,
    Query,
    decode_cursor,
    encode_cursor,
    parse_aggregation,
    parse_filter,
    parse_query,
)
from protocol.schema import FieldType, Model
from tests.protocol.schema_strategies import ids, json_values, models, posted_value, texts
from tests.protocol.test_query_filter import TASK

ORDERED = [kind for kind in FieldType if kind.value in {"string", "integer", "number", "boolean", "datetime"}]


def query_faults(**params: str) -> dict[str, str]:
    with pytest.raises(QueryFault) as raised:
        parse_query(params, TASK)
    return raised.value.details


def aggregation_faults(body: Any) -> dict[str, str]:
    with pytest.raises(QueryFault) as raised:
        parse_aggregation(body, TASK)
    return raised.value.details


def test_without_parameters_the_newest_twenty_are_asked_for() -> None:
    assert parse_query({}, TASK) == Query(None, "created_at", True, 1, 20, None, None)


def test_all_parameters_are_read() -> None:
    params = {
        "filter": "done:eq:true",
        "sort": "due_date",
        "order": "asc",
        "page": "3",
        "per_page": "100",
        "fields": "title, id,version_vector,title",
        "token": "other parameters are left alone",
    }
    assert parse_query(params, TASK) == Query(
        parse_filter("done:eq:true", TASK), "due_date", False, 3, 100, None, ("title", "id", "version_vector")
    )


def test_every_bad_parameter_is_named_at_once() -> None:
    faults = query_faults(
        filter="colour:eq:1",
        sort="tags",
        order="up",
        page="0",
        per_page="101",
        fields="title,colour",
        cursor="?",
    )
    assert faults == {
        "filter": "colour: Unknown field",
        "sort": "A set field has no order",
        "order": "Invalid option. Must be one of: asc, desc",
        "page": "Must be an integer from 1 to 10000000",
        "per_page": "Must be an integer from 1 to 100",
        "fields": "Unknown field: colour",
        "cursor": "Not a cursor of this model",
    }


@pytest.mark.parametrize("text", ["", "-1", "+1", "1.0", "1e1", " 1", "٣", "1_0", "99999999999999999999"])
def test_a_page_is_a_plain_number(text: str) -> None:
    assert set(query_faults(page=text)) == {"page"}


def test_a_cursor_brings_its_order_and_refuses_another() -> None:
    cursor = encode_cursor("due_date", False, "2023-12-31", "a")
    query = parse_query({"cursor": cursor}, TASK)
    assert (query.sort, query.descending, query.page) == ("due_date", False, 1)
    assert query.cursor == Cursor("due_date", False, "2023-12-31", "a")
    assert query_faults(cursor=cursor, sort="title") == {"cursor": "Belongs to another sort order"}
    assert query_faults(cursor=cursor, order="desc") == {"cursor": "Belongs to another sort order"}
    assert query_faults(cursor=cursor, page="2") == {"page": "Give either page or cursor"}


def test_a_long_sort_value_is_left_out_of_the_cursor() -> None:
    text = encode_cursor("title", True, "\0" * 1000, "a" * 64)
    assert len(text) < 200
    assert decode_cursor(text, TASK) == Cursor("title", True, None, "a" * 64, by_id=True)


@settings(deadline=None)
@given(data=st.data())
def test_a_cursor_reads_back_as_it_was_written(data: st.DataObject) -> None:
    model = data.draw(models(ORDERED))
    field = data.draw(st.sampled_from(list(model.fields.values())))
    value, descending, id = (
        data.draw(posted_value(field) | st.none()),
        data.draw(st.booleans()),
        data.draw(ids),
    )
    text = encode_cursor(field.name, descending, value, id)
    assert len(text) <= CURSOR_SIZE_MAX
    cursor = decode_cursor(text, model)
    assert repr(cursor.value) == repr(value)
    assert (cursor.sort, cursor.descending, cursor.id) == (field.name, descending, id)


@pytest.mark.parametrize(
    "parts",
    [
        [],
        ["points", 1, "a", "not a number"],
        ["points", 1, "a", True],
        ["points", 1, "a", 2**63],
        ["score", 1, "a", float("nan")],
        ["done", 1, "a", 1],
        ["title", 1, "a", 5],
        ["title", 2, "a", "x"],
        ["title", True, "a", "x"],
        ["title", 1, 5, "x"],
        ["title", 1, "\ud800", "x"],
        ["tags", 1, "a", "x"],
        ["colour", 1, "a", "x"],
        ["title", 1, "a", ["x"]],
        ["title", 1, "a", "x", "y"],
        {"title": 1},
    ],
)
def test_a_forged_cursor_is_refused(parts: Any) -> None:
    text = base64.urlsafe_b64encode(json.dumps(parts).encode()).rstrip(b"=").decode()
    with pytest.raises(QueryFault):
        decode_cursor(text, TASK)


@pytest.mark.parametrize("text", ["", "!", "é", "W", "W" * 5000, "W1tb" * 1000, "////", "AAAA"])
def test_a_text_that_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(QueryFault):
        decode_cursor(text, TASK)


@given(
    st.dictionaries(
        st.sampled_from(["filter", "sort", "order", "page", "per_page", "cursor", "fields"]),
        st.one_of(texts, st.text(max_size=20), st.sampled_from(["title", "asc", "1", "done:eq:true"])),
    )
)
def test_no_parameters_raise_anything_but_their_faults(params: dict[str, str]) -> None:
    try:
        parse_query(params, TASK)
    except QueryFault as fault:
        assert set(fault.details) <= set(params)


def test_the_aggregation_of_the_api_documents_is_read() -> None:
    body = {
        "group_by": ["status"],
        "aggregations": [{"field": "id", "operation": "count", "alias": "task_count"}],
        "filter": "due_date:gte:2023-01-01",
    }
    assert parse_aggregation(body, TASK) == Aggregation(
        ("status",), (Measure("id", "count", "task_count"),), parse_filter("due_date:gte:2023-01-01", TASK)
    )


def test_an_alias_follows_from_operation_and_field() -> None:
    body = {"aggregations": [{"operation": "count"}, {"field": "points", "operation": "sum"}]}
    measures = parse_aggregation(body, TASK).measures
    assert [measure.alias for measure in measures] == ["count_id", "sum_points"]


def test_every_fault_of_an_aggregation_is_named_at_once() -> None:
    faults = aggregation_faults(
        {
            "group_by": ["status", "tags", "colour", "status"],
            "aggregations": [
                {"field": "title", "operation": "sum"},
                {"field": "tags", "operation": "min"},
                {"field": "points", "operation": "median", "alias": "not a name", "x": 1},
                {"operation": "avg"},
                {"field": "points", "operation": "max", "alias": "status"},
                {"field": "colour", "operation": "count"},
                5,
            ],
            "filter": 5,
            "limit": 1,
        }
    )
    assert set(faults) == {
        "group_by[1]",
        "group_by[2]",
        "group_by[3]",
        "aggregations[0].field",
        "aggregations[1].field",
        "aggregations[2].operation",
        "aggregations[2].alias",
        "aggregations[2].x",
        "aggregations[3].field",
        "aggregations[4].alias",
        "aggregations[5].field",
        "aggregations[6]",
        "filter",
        "limit",
    }


@pytest.mark.parametrize("body", [None, [], "x", {}, {"group_by": "status"}, {"aggregations": {}}])
def test_an_aggregation_must_ask_for_something(body: Any) -> None:
    assert aggregation_faults(body)


@given(
    st.one_of(
        json_values,
        st.fixed_dictionaries(
            {},
            optional={
                "group_by": st.one_of(json_values, st.lists(st.sampled_from(["status", "title", "x"]))),
                "aggregations": st.one_of(
                    json_values,
                    st.lists(
                        st.fixed_dictionaries(
                            {},
                            optional={
                                "field": st.one_of(json_values, st.sampled_from(["id", "points", "tags"])),
                                "operation": st.one_of(json_values, st.sampled_from(["count", "sum", "min"])),
                                "alias": st.one_of(json_values, st.just("x")),
                            },
                        )
                    ),
                ),
                "filter": st.one_of(json_values, st.just("points:eq:1")),
            },
        ),
    )
)
def test_no_body_raises_anything_but_its_faults(body: Any) -> None:
    try:
        parse_aggregation(body, TASK)
    except QueryFault as fault:
        assert fault.details


def test_a_model_without_ordered_fields_still_sorts_by_its_records_own() -> None:
    model = Model("m", "a", "M", {})
    for name in ("id", "created_at", "updated_at", "created_by"):
        assert parse_query({"sort": name}, model).sort == name
