"""`cosmicsync.filters` against the node's own reading of its filter language."""

import re
from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosmicsync.documents import ModelShape
from cosmicsync.errors import BadRequest
from cosmicsync.filters import in_order, matches, projected, sort_keys, translate
from protocol.query_filter import parse_filter
from protocol.schema import parse_definition

TYPES = {
    "name": "string",
    "age": "integer",
    "weight": "number",
    "on": "boolean",
    "due": "date",
    "tags": "set",
    "more": "json",
}
SHAPE = ModelShape("Thing", TYPES)
MODEL = parse_definition({"name": "Thing", "fields": TYPES}, application="default")

# Few values, so that filters and documents often meet; some of them awkward in the node's language.
_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "name": st.sampled_from(["a", "b", "", "x,y", 'a"b', "a\\b", "a|b", "5", "true", "é", " a "]),
    "age": st.integers(-2, 2),
    "weight": st.sampled_from([-1.5, 0, 1, 2.25]),
    "on": st.booleans(),
    "due": st.sampled_from(["2030-01-01", "2030-01-02"]),
    "tags": st.sampled_from(["a", "b", "x;y"]),
}


@st.composite
def conditions(draw: st.DrawFn) -> dict[str, Any]:
    name = draw(st.sampled_from(sorted(_VALUES)))
    value = _VALUES[name]
    orders = [] if name in ("on", "tags") else ["$gt", "$gte", "$lt", "$lte"]
    operator = draw(st.sampled_from(["", "$eq", "$ne", "$in", "$nin", "$exists", "null", *orders]))
    if operator == "":
        return {name: draw(value)}
    if operator == "null":
        return {name: None}
    operand: Any = draw(st.booleans()) if operator == "$exists" else draw(value)
    if operator in ("$in", "$nin"):
        operand = draw(st.lists(value, max_size=3))
    wanted = {operator: operand}
    return {name: {"$not": wanted} if draw(st.booleans()) else wanted}


def _joined(parts: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    some = st.lists(parts, min_size=1, max_size=3)
    return st.builds(lambda word, of: {word: of}, st.sampled_from(["$and", "$or", "$nor"]), some)


filters = st.recursive(conditions(), _joined, max_leaves=6)
documents = st.fixed_dictionaries(
    {}, optional={n: st.lists(v, unique=True, max_size=2) if n == "tags" else v for n, v in _VALUES.items()}
)


@given(filters, documents)
def test_a_translation_lets_through_what_the_filter_does_and_nothing_else_if_it_is_exact(
    filter: dict[str, Any], document: dict[str, Any]
) -> None:
    said, here = translate(filter, SHAPE), matches(filter, document, SHAPE)
    if said.is_empty:
        assert not here
        return
    there = said.text is None or parse_filter(said.text, MODEL).matches(document)
    assert there >= here, said
    if said.is_exact:
        assert there == here, said


def test_the_words_of_the_seed_are_said_whole() -> None:
    said = translate({"age": {"$gt": 18}, "name": {"$in": ["a", "b"]}}, SHAPE)
    assert said.text == 'age:gt:18,name:in:"a";"b"' and said.is_exact
    said = translate({"$or": [{"age": 1}, {"age": 2, "on": True}]}, SHAPE)
    assert said.text == "age:eq:1|age:eq:2,on:eq:true" and said.is_exact


def test_moments_are_said_in_the_form_of_the_field() -> None:
    moment = datetime(2030, 1, 2, 3, 4, 5, 6_000, tzinfo=UTC)
    assert translate({"due": {"$gt": moment}}, SHAPE).text == 'due:gt:"2030-01-02"'
    assert translate({"due": date(2030, 1, 2)}, SHAPE).text == 'due:eq:"2030-01-02"'
    assert translate({"createdAt": {"$lt": moment}}, SHAPE).text == 'created_at:lt:"2030-01-02T03:04:05.006Z"'
    assert matches({"due": {"$lt": moment}}, {"due": "2030-01-01"}, SHAPE)


def test_what_is_too_long_for_a_node_is_asked_in_part_and_judged_here() -> None:
    many = translate({"age": 1, "name": {"$in": [f"name {n}" for n in range(2_000)]}}, SHAPE)
    assert many.text == "age:eq:1" and not many.is_exact
    wide = translate({"$and": [{"$or": [{"age": a}, {"age": -a}]} for a in range(20)], "on": True}, SHAPE)
    assert not wide.is_exact and wide.text == "on:eq:true"


@pytest.mark.parametrize(
    "filter",
    [
        {"age": {"$near": 1}},
        {"$xor": []},
        {"$or": []},
        {"$or": {"age": 1}},
        {"age": {"$in": 1}},
        {"age": {"$not": 1}},
    ],
)
def test_what_is_no_filter_is_refused_by_name(filter: dict[str, Any]) -> None:
    with pytest.raises(BadRequest) as caught:
        translate(filter, SHAPE)
    assert caught.value.details


def test_what_a_node_cannot_be_asked_is_judged_here() -> None:
    here = {"name": "Ada", "more": {"deep": [{"x": 1}]}, "tags": ["a", "b"]}
    assert matches({"name": {"$regex": "^ad", "$options": "i"}}, here, SHAPE)
    assert matches({"name": {"$regex": re.compile("da$")}}, here, SHAPE)
    assert matches({"name": {"$like": "%D%"}}, here, SHAPE)
    assert matches({"more.deep.0.x": {"$gte": 1}}, here, SHAPE)
    assert matches({"tags": {"$all": ["a", "b"], "$size": 2}}, here, SHAPE)
    assert not matches({"age": {"$exists": True}}, here, SHAPE)
    assert not matches({"on": {"$eq": 1}}, {"on": True}, SHAPE)


def test_sorting_and_projecting_here_do_as_a_node_does() -> None:
    rows: list[dict[str, Any]] = [{"id": "1", "age": 2}, {"id": "2"}, {"id": "3", "age": 1, "name": "b"}]
    assert [row["id"] for row in in_order(rows, sort_keys({"age": 1}, SHAPE))] == ["2", "3", "1"]
    assert [row["id"] for row in in_order(rows, sort_keys([("age", -1)], SHAPE))] == ["1", "3", "2"]
    assert projected({"name": 1, "createdAt": 1}, SHAPE) == ["name", "created_at"]
    hidden = projected({"name": 0}, SHAPE)
    assert hidden is not None and "name" not in hidden and "age" in hidden
    with pytest.raises(BadRequest):
        projected({"name": 1, "age": 0}, SHAPE)
    with pytest.raises(BadRequest):
        sort_keys({"age": 2}, SHAPE)
