"""Values against fields: what is stored, what is refused, in which words."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import ModelFault
from protocol.schema import Field, FieldType, Model, model_id, parse_definition
from protocol.schema_field import STRING_SIZE_MAX_BYTES
from protocol.text_edit import read_edit
from tests.protocol.schema_strategies import anything, models, posted_value, texts


def one_field(kind: FieldType, **attributes: Any) -> Model:
    return Model(model_id("a", "M"), "a", "M", {"f": Field("f", kind, **attributes)})


def stored(kind: FieldType, value: Any, **attributes: Any) -> Any:
    values, faults = one_field(kind, **attributes).check_create({"f": value})
    assert faults == {}
    return values["f"]


def fault(kind: FieldType, value: Any, **attributes: Any) -> str:
    values, faults = one_field(kind, **attributes).check_create({"f": value})
    assert "f" not in values
    return faults["f"]


def test_every_fault_is_named_at_once_in_the_words_of_the_api() -> None:
    model = Model(
        "m",
        "default",
        "Task",
        {
            "title": Field("title", FieldType.STRING, required=True),
            "status": Field("status", FieldType.ENUM, options=("TODO", "IN_PROGRESS", "DONE")),
            "due_date": Field("due_date", FieldType.DATE, required=True),
        },
    )
    _, faults = model.check_create({"status": "LATER", "due_date": "soon", "colour": 1, "id": "x"})
    assert faults == {
        "title": "This field is required",
        "status": "Invalid option. Must be one of: TODO, IN_PROGRESS, DONE",
        "due_date": "Must be a date (YYYY-MM-DD)",
        "colour": "Unknown field",
        "id": "This field is set by the node",
    }


@pytest.mark.parametrize(
    ("kind", "value", "kept"),
    [
        (FieldType.STRING, "", ""),
        (FieldType.STRING, "é\0", "é\0"),
        (FieldType.INTEGER, 2**63 - 1, 2**63 - 1),
        (FieldType.INTEGER, 5.0, 5),
        (FieldType.COUNTER, -1, -1),
        (FieldType.NUMBER, 1.5, 1.5),
        (FieldType.NUMBER, 10**20, 1e20),
        (FieldType.BOOLEAN, False, False),
        (FieldType.DATE, "2024-02-29", "2024-02-29"),
        (FieldType.DATETIME, "2024-01-01T01:00+01:00", "2024-01-01T00:00:00.000Z"),
        (FieldType.JSON, {"a": [1, None, {"b": 1.5}]}, {"a": [1, None, {"b": 1.5}]}),
        (FieldType.SET, ["b", 2, True, "a", 1, 2.0, "b"], [True, 1, 2, "a", "b"]),
        (FieldType.SET, [1e16, 10**16], [10**16]),
        (FieldType.SET, [], []),
        (FieldType.REFERENCE, "task_1.a:b~c-d", "task_1.a:b~c-d"),
    ],
)
def test_good_values_are_kept_in_stored_form(kind: FieldType, value: Any, kept: Any) -> None:
    result = stored(kind, value)
    assert result == kept
    assert type(result) is type(kept)


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        (FieldType.STRING, 5, "Must be a string"),
        (FieldType.STRING, "\ud800", "Must be valid Unicode"),
        (FieldType.STRING, "x" * (2**20 + 1), "Must be at most 1048576 bytes"),
        (FieldType.STRING, "é" * (2**19 + 1), "Must be at most 1048576 bytes"),
        (FieldType.INTEGER, True, "Must be an integer"),
        (FieldType.INTEGER, 1.5, "Must be an integer"),
        (FieldType.INTEGER, "1", "Must be an integer"),
        (FieldType.INTEGER, 2**63, "Must fit in 64 bits"),
        (FieldType.INTEGER, 1e300, "Must fit in 64 bits"),
        (FieldType.NUMBER, float("nan"), "Must be a finite number"),
        (FieldType.NUMBER, float("inf"), "Must be a finite number"),
        (FieldType.NUMBER, 10**400, "Must be a finite number"),
        (FieldType.NUMBER, False, "Must be a number"),
        (FieldType.BOOLEAN, 1, "Must be true or false"),
        (FieldType.DATE, "2023-02-29", "Must be a date (YYYY-MM-DD)"),
        (FieldType.DATE, 20230101, "Must be a date (YYYY-MM-DD)"),
        (FieldType.SET, "abc", "Must be a list of strings, numbers or booleans"),
        (FieldType.SET, [None], "Must be a list of strings, numbers or booleans"),
        (FieldType.SET, [["a"]], "Must be a list of strings, numbers or booleans"),
        (FieldType.SET, list(range(10_001)), "Must have at most 10000 items"),
        (FieldType.SET, ["x" * 4097], "Each item must be at most 4096 bytes"),
        (FieldType.REFERENCE, "", "Must be the id of an instance"),
        (FieldType.REFERENCE, "a b", "Must be the id of an instance"),
        (FieldType.REFERENCE, "x" * 65, "Must be the id of an instance"),
        (FieldType.JSON, {"a": 2**64}, "Must fit in 64 bits"),
        (FieldType.JSON, [float("inf")], "Must be a finite number"),
        (FieldType.JSON, "x" * 2**20, "Must be at most 1048576 bytes of JSON"),
    ],
)
def test_bad_values_are_refused_with_a_reason(kind: FieldType, value: Any, words: str) -> None:
    assert fault(kind, value) == words


def test_json_may_be_nested_32_deep_and_no_deeper() -> None:
    deep: Any = "leaf"
    for _ in range(32):
        deep = [deep]
    assert stored(FieldType.JSON, deep) == deep
    assert fault(FieldType.JSON, [deep]) == "Must be nested at most 32 deep"
    endless: list[Any] = []
    endless.append(endless)
    assert fault(FieldType.JSON, endless) == "Must be nested at most 32 deep"


def test_bounds_hold_for_values_lengths_and_counts() -> None:
    assert fault(FieldType.INTEGER, 4, minimum=5) == "Must be at least 5"
    assert fault(FieldType.NUMBER, 5.1, maximum=5) == "Must be at most 5"
    assert fault(FieldType.DATE, "2022-12-31", minimum="2023-01-01") == "Must be at least 2023-01-01"
    assert fault(FieldType.STRING, "ab", minimum=3) == "Must be at least 3 characters"
    assert fault(FieldType.STRING, "éé", maximum=1) == "Must be at most 1 characters"
    assert fault(FieldType.SET, ["a"], minimum=2) == "Must have at least 2 items"
    assert fault(FieldType.SET, [1, 2], maximum=1) == "Must have at most 1 items"
    assert stored(FieldType.SET, [1, 1.0], maximum=1) == [1]


def test_a_string_may_break_length_and_pattern_at_once() -> None:
    words = fault(FieldType.STRING, "AB", minimum=3, pattern="^[a-z]+$")
    assert words == "Must be at least 3 characters; Must match the pattern ^[a-z]+$"


def test_patterns_match_anywhere_and_in_linear_time() -> None:
    assert stored(FieldType.STRING, "xaby", pattern="ab") == "xaby"
    assert fault(FieldType.STRING, "a" * 100_000 + "!", pattern="^(a+)+$").startswith("Must match")


def test_a_pattern_that_cannot_be_compiled_refuses_every_value() -> None:
    assert fault(FieldType.STRING, "x", pattern="(?=x)") == "The pattern of this field cannot be used"


def test_defaults_fill_gaps_but_not_nulls() -> None:
    model = one_field(FieldType.JSON, default={"a": []})
    values, faults = model.check_create({})
    assert (values, faults) == ({"f": {"a": []}}, {})
    values["f"]["a"].append(1)
    assert model.check_create({})[0] == {"f": {"a": []}}
    assert model.check_create({"f": None}) == ({"f": None}, {}), (
        "said, or it would be taken for an older record"
    )
    assert one_field(FieldType.JSON).check_create({"f": None}) == ({}, {})


def test_a_null_is_no_value_for_a_required_field() -> None:
    model = one_field(FieldType.STRING, required=True)
    assert model.check_create({"f": None})[1] == {"f": "This field is required"}
    assert model.check_update({"f": None})[1] == {"f": "This field is required"}


def test_an_update_checks_the_given_fields_alone() -> None:
    model = Model(
        "m", "a", "M", {"a": Field("a", FieldType.STRING, required=True), "b": Field("b", FieldType.DATE)}
    )
    assert model.check_update({}) == ({}, {})
    assert model.check_update({"b": None}) == ({"b": None}, {})
    assert model.check_update({"b": "x", "c": 1})[1] == {
        "b": "Must be a date (YYYY-MM-DD)",
        "c": "Unknown field",
    }


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (FieldType.INTEGER, 5.0),
        (FieldType.NUMBER, 10**20),
        (FieldType.DATETIME, "2024-01-01T00:00:00Z"),
        (FieldType.SET, [1, 1]),
        (FieldType.SET, [1.0]),
    ],
)
def test_a_record_must_hold_the_stored_form(kind: FieldType, value: Any) -> None:
    assert one_field(kind).check_record({"f": value}) == {"f": "Not in stored form"}


def test_the_order_of_a_sets_items_does_not_matter_in_a_record() -> None:
    assert one_field(FieldType.SET).check_record({"f": ["b", "a"]}) == {}


def test_a_record_may_be_older_than_a_field_with_a_default() -> None:
    assert one_field(FieldType.STRING, required=True, default="x").check_record({}) == {}
    assert one_field(FieldType.STRING, required=True).check_record({}) == {"f": "This field is required"}


def test_a_type_that_is_not_offered_yet_refuses_every_value() -> None:
    assert fault(FieldType.FILE, "x") == "The type file is not offered yet"


@settings(deadline=None)
@given(data=st.data())
def test_what_a_check_lets_through_is_a_valid_record_and_stays_as_it_is(data: st.DataObject) -> None:
    model = data.draw(models())
    posted = {name: data.draw(posted_value(field)) for name, field in model.fields.items()}
    values, faults = model.check_create(posted)
    assert faults == {}
    assert model.check_record(values) == {}
    again, _ = model.check_create(values)
    assert repr(again) == repr(values)
    assert model.check_update(posted) == (values, {})


@settings(deadline=None)
@given(data=st.data())
def test_no_data_whatsoever_makes_a_check_raise(data: st.DataObject) -> None:
    model = data.draw(models())
    keys: st.SearchStrategy[Any] = st.one_of(st.sampled_from(list(model.fields)), texts, st.integers())
    given_data: dict[Any, Any] = data.draw(st.dictionaries(keys, anything, max_size=6))
    for check in (model.check_create, model.check_update):
        values, faults = check(given_data)
        assert not values.keys() & faults.keys()
        if not faults:
            assert model.check_record({name: v for name, v in values.items() if v is not None}) == {}
    assert all(type(words) is str and words for words in model.check_record(given_data).values())


# -- texts and lists that several edit -------------------------------------------------------------------------


def test_a_collaborative_field_takes_a_whole_value_or_operations_on_it() -> None:
    model = Model(
        "m", "a", "M", {"t": Field("t", FieldType.TEXT, required=True), "l": Field("l", FieldType.ARRAY)}
    )
    assert model.check_create({"t": "", "l": [1, {"a": []}]}) == ({"t": "", "l": [1, {"a": []}]}, {})
    assert model.check_create({"t": 1, "l": {}})[1] == {"t": "Must be a string", "l": "Must be a list"}
    assert model.check_create({"t": {"ops": [], "base_version": "v"}})[1] == {"t": "Must be a string"}
    assert model.check_update({"t": None, "l": None}) == ({"l": None}, {"t": "This field is required"})
    edit = {"ops": [{"insert": "x"}], "base_version": "v"}
    values, faults = model.check_update({"t": edit, "l": [2]})
    assert (values["t"], values["l"], faults) == (read_edit(edit, is_text=True), [2], {})
    wrong = {"ops": [{"insert": "x"}, 5], "base_version": ""}
    assert set(model.check_update({"l": wrong})[1]) == {"l.ops[0].insert", "l.ops[1]", "l.base_version"}


def test_what_came_of_edits_made_apart_is_shown_however_long_it_is() -> None:
    model = Model(
        "m", "a", "M", {"t": Field("t", FieldType.TEXT, required=True), "l": Field("l", FieldType.ARRAY)}
    )
    long = "x" * (STRING_SIZE_MAX_BYTES + 1)
    assert set(model.check_create({"t": long, "l": [long]})[1]) == {"t", "l"}
    assert model.check_record({"t": long, "l": [long]}) == {}
    assert model.check_record({}) == {}  # an empty text has no value
    assert model.check_record({"t": 1, "l": "x"}) == {"t": "Must be a string", "l": "Must be a list"}


@pytest.mark.parametrize("kind", ["text", "array"])
@pytest.mark.parametrize("attribute", [{"unique": True}, {"indexed": True}, {"min": 1}, {"pattern": "x"}])
def test_what_a_collaborative_field_cannot_promise_is_refused(kind: str, attribute: dict[str, Any]) -> None:
    with pytest.raises(ModelFault):
        parse_definition({"name": "M", "fields": [{"name": "f", "type": kind, **attribute}]}, application="a")
