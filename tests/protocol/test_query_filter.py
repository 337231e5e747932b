"""The filter language: what parses, what does not, what matches."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import QueryFault
from protocol.query_filter import Condition, Kind, Op, compile_like, parse_filter
from protocol.schema import Field, FieldType, Model
from tests.protocol.schema_strategies import ODD, anything, filters, models, records

TASK = Model(
    "m",
    "default",
    "Task",
    {
        "title": Field("title", FieldType.STRING),
        "status": Field("status", FieldType.ENUM, options=("TODO", "IN_PROGRESS", "DONE")),
        "due_date": Field("due_date", FieldType.DATE),
        "at": Field("at", FieldType.DATETIME),
        "points": Field("points", FieldType.INTEGER),
        "score": Field("score", FieldType.NUMBER),
        "done": Field("done", FieldType.BOOLEAN),
        "tags": Field("tags", FieldType.SET),
        "extra": Field("extra", FieldType.JSON),
    },
)


def matches(text: str, **values: Any) -> bool:
    return parse_filter(text, TASK).matches(values)


def faults_of(text: str) -> str:
    with pytest.raises(QueryFault) as raised:
        parse_filter(text, TASK)
    assert set(raised.value.details) == {"filter"}
    return raised.value.details["filter"]


def test_the_filter_of_the_api_documents_parses() -> None:
    parsed = parse_filter("status:eq:TODO,due_date:lt:2023-12-31", TASK)
    assert parsed.groups == (
        (
            Condition("status", Kind.TEXT, Op.EQ, ("TODO",)),
            Condition("due_date", Kind.TEXT, Op.LT, ("2023-12-31",)),
        ),
    )
    assert parsed.matches({"status": "TODO", "due_date": "2023-12-30"})
    assert not parsed.matches({"status": "TODO", "due_date": "2023-12-31"})


def test_and_binds_tighter_than_or() -> None:
    text = "done:eq:true,points:eq:1|points:eq:2"
    assert matches(text, done=False, points=2)
    assert matches(text, done=True, points=1)
    assert not matches(text, done=False, points=1)


def test_quotes_hold_any_character() -> None:
    assert matches(r'title:eq:"a,b|c;d:e \"f\" \\g"', title=r'a,b|c;d:e "f" \g')
    assert matches('title:in:"a;b";c', title="a;b")
    assert matches('title:in:"a;b";c', title="c")
    assert matches('title:eq:" a "', title=" a ")


def test_unquoted_values_are_trimmed_and_may_hold_colons_quotes_and_semicolons() -> None:
    assert matches("title : eq : a b , points:eq:1", title="a b", points=1)
    assert matches('title:eq:5" disk', title='5" disk')
    assert matches("title:eq:a;b", title="a;b")
    assert matches("at:gte:2023-12-31T10:00:00+01:00", at="2023-12-31T09:00:00.000Z")


def test_a_missing_value_meets_only_ne_and_nin() -> None:
    for text in ("eq:1", "gt:1", "gte:1", "lt:1", "lte:1", "in:1;2"):
        assert not matches(f"points:{text}")
        assert not matches(f"points:{text}", points=None)
    assert not matches("title:like:%")
    assert matches("points:ne:1")
    assert matches("points:nin:1;2", points=None)
    assert not matches("tags:eq:a")
    assert matches("tags:ne:a,tags:nin:a;b")


def test_like_ignores_case_in_every_script_and_knows_only_percent() -> None:
    assert matches("title:like:%STRASSE%", title="Lange Straße 5")
    assert matches("title:like:éa%", title="ÉAB")
    assert matches("title:like:a%b%c", title="aXbXbc")
    assert not matches("title:like:a_c", title="abc")
    assert matches("title:like:abc", title="ABC")
    assert not matches("title:like:abc", title="abcd")
    assert not matches("title:like:ab%ba", title="aba")


def test_numbers_compare_by_value() -> None:
    assert matches("score:eq:1", score=1.0)
    assert matches("score:gt:9007199254740992", score=2**53 + 1)
    assert not matches("score:eq:9007199254740993", score=float(2**53))
    assert matches("score:in:0.1;2e3", score=2000)
    assert matches("score:lt:100000000000000000000", score=2**63 - 1)


def test_sets_are_asked_for_their_items() -> None:
    assert matches("tags:eq:a", tags=["a", "b"])
    assert not matches("tags:ne:a", tags=["a", "b"])
    assert matches("tags:in:x;b", tags=["a", "b"])
    assert matches("tags:nin:x;y", tags=["a", "b"])
    assert matches("tags:eq:5", tags=[5]) and matches("tags:eq:5", tags=["5"])
    assert matches('tags:eq:"5"', tags=["5"]) and not matches('tags:eq:"5"', tags=[5])
    assert matches("tags:eq:true", tags=[True]) and not matches("tags:eq:1", tags=[True])


def test_times_of_the_record_are_asked_in_iso_or_milliseconds() -> None:
    assert matches("created_at:gte:1970-01-02", created_at=86_400_000)
    assert matches("created_at:lt:1970-01-02T00:00:00.001Z", created_at=86_400_000)
    assert matches("updated_at:eq:5", updated_at=5)
    assert matches("created_by:eq:ann,id:like:a%", created_by="ann", id="ab")


def test_every_fault_of_a_filter_is_named_at_once() -> None:
    words = faults_of(
        'colour:eq:red,status:eq:LATER|points:about:1,score:gt:nan,nonsense,title:eq:"a,done:eq:x'
    )
    assert "colour: Unknown field" in words
    assert "status: Invalid option. Must be one of: TODO, IN_PROGRESS, DONE" in words
    assert "points: Unknown operator 'about'" in words
    assert "score: Must be a number" in words
    assert "Expected field:operator:value, found 'nonsense'" in words
    assert "title: The closing quote is missing" in words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "Expected field:operator:value"),
        (",", "Expected field:operator:value"),
        ("title", "Expected field:operator:value, found 'title'"),
        ("title:eq", "Expected field:operator:value, found 'title:eq'"),
        ('title:eq:"a"b', "Unexpected text after the closing quote"),
        (r'title:eq:"\n"', "may follow a backslash"),
        ("tags:like:a", "like does not apply to a set field"),
        ("tags:gt:a", "gt does not apply to a set field"),
        ("status:gt:TODO", "gt does not apply to an enum field"),
        ("done:lt:true", "lt does not apply"),
        ("extra:eq:1", "cannot be filtered"),
        ("points:like:1", "like does not apply"),
        ("points:eq:1.5", "Must be an integer"),
        ("points:eq:1_0", "Must be an integer"),
        ("points:eq:٣", "Must be an integer"),
        ("points:eq:9223372036854775808", "Must fit in 64 bits"),
        ("score:eq:inf", "Must be a number"),
        ("score:eq:-Infinity", "Must be a number"),
        ("score:eq:NaN", "Must be a number"),
        ("score:eq:1e999", "Must be a finite number"),
        ("score:eq:" + "9" * 5000, "Must be a number"),
        ("due_date:eq:2023-02-29", "Must be a date"),
        ("at:eq:soon", "Must be a date and time"),
        ("version:eq:a", "version: Unknown field"),
        ("|".join(["points:eq:1"] * 65), "At most 64 conditions"),
        ("title:eq:" + "é" * 4096, "Must be at most 8192 bytes"),
        ("title:eq:\ud800", "Must be valid Unicode"),
    ],
)
def test_a_bad_filter_is_refused_with_a_reason(text: str, words: str) -> None:
    assert words in faults_of(text)


def test_sixty_four_conditions_are_allowed() -> None:
    assert len(parse_filter("|".join(["points:eq:1"] * 64), TASK).groups) == 64


def parse_or_fault(text: str) -> None:
    try:
        parse_filter(text, TASK).matches({})
    except QueryFault as fault:
        assert fault.details["filter"]


@given(st.text(max_size=60))
def test_no_text_raises_anything_but_its_faults(text: str) -> None:
    parse_or_fault(text)


@settings(max_examples=300)
@given(st.lists(st.sampled_from(["title", "tags", ":eq:", ":in:", ":", ",", "|", ";", '"', "\\", "a", " "])))
def test_no_heap_of_tokens_raises_anything_but_its_faults(tokens: list[str]) -> None:
    parse_or_fault("".join(tokens))


@settings(deadline=None)
@given(data=st.data())
def test_no_record_makes_a_filter_raise(data: st.DataObject) -> None:
    model = data.draw(models())
    parsed = parse_filter(data.draw(filters(model, [])), model)
    keys = st.sampled_from([*model.fields, "id"])
    parsed.matches(data.draw(st.dictionaries(keys, anything)))


@settings(deadline=None)
@given(data=st.data())
def test_a_value_found_in_a_record_and_quoted_matches_that_record(data: st.DataObject) -> None:
    model = data.draw(models([FieldType.STRING, FieldType.REFERENCE, FieldType.NUMBER, FieldType.DATETIME]))
    record = data.draw(records(model))
    for name, value in record.items():
        text = str(value).replace("\\", "\\\\").replace('"', '\\"')
        assert parse_filter(f'{name}:eq:"{text}"', model).matches(record)
        assert not parse_filter(f'{name}:ne:"{text}"', model).matches(record)
        assert parse_filter(f'{name}:in:"{text}"', model).matches(record)


@given(st.text(alphabet=ODD, max_size=8), st.text(alphabet=ODD, max_size=8))
def test_like_agrees_with_trying_every_way_to_match(pattern: str, text: str) -> None:
    def try_all(rest: str, left: str) -> bool:
        if not rest:
            return not left
        if rest[0] == "%":
            return any(try_all(rest[1:], left[at:]) for at in range(len(left) + 1))
        return left[:1] == rest[0] and try_all(rest[1:], left[1:])

    assert compile_like(pattern)(text) == try_all(pattern.casefold(), text.casefold())
