from typing import Any

import jsonschema_rs
import pytest

from node.api.civicbase.data import AGGREGATION
from node.api.model_schemas import (
    aggregation_schema,
    create_schema,
    parameter_schema,
    record_schema,
    update_schema,
)
from protocol.errors import QueryFault
from protocol.query import parse_aggregation, parse_query
from protocol.schema import Field, FieldType, Model
from protocol.schema_field import RESERVED_TYPES

KINDS = [kind for kind in FieldType if kind not in RESERVED_TYPES]


def model_of(*fields: Field) -> Model:
    return Model("m_1", "default", "M", {field.name: field for field in fields})


EVERY = model_of(
    *(
        Field(f"a_{kind.value}", kind, options=("TODO", "a,b") if kind is FieldType.ENUM else ())
        for kind in KINDS
    ),
    Field("short", FieldType.STRING, required=True, minimum=2, maximum=4, pattern="^[a-z]*$"),
    Field("few", FieldType.SET, maximum=2),
    Field("small", FieldType.INTEGER, minimum=0, maximum=9),
    Field("parent", FieldType.REFERENCE, model="M"),
    Field("secret", FieldType.STRING, encrypted=True),
)


def is_valid(schema: dict[str, Any], value: Any) -> bool:
    return jsonschema_rs.validator_for(schema).is_valid(value)


@pytest.mark.parametrize(
    "values",
    [
        {"short": "abc"},
        {"short": "abc", "a_set": ["x", "x", 1, True], "few": [1, 2], "a_json": {"any": [None]}},
        {"short": "abc", "a_counter": 2**63 - 1, "a_enum": "a,b", "a_reference": "a.b:c~d", "small": 9},
        {"short": "abc", "a_text": None, "a_array": [1, {}], "a_boolean": False, "parent": None},
        {"short": "a"},
        {"short": "abcde"},
        {"short": "ABC"},
        {"short": None},
        {},
        {"short": "abc", "a_counter": 2**63},
        {"short": "abc", "a_integer": -(2**63) - 1},
        {"short": "abc", "a_reference": ""},
        {"short": "abc", "a_reference": "a b"},
        {"short": "abc", "a_enum": "a"},
        {"short": "abc", "few": [1, 2, 3]},
        {"short": "abc", "a_set": [[]]},
        {"short": "abc", "small": 10},
        {"short": "abc", "other": 1},
    ],
)
def test_the_body_of_a_create_is_described_as_it_is_checked(values: dict[str, Any]) -> None:
    _, faults = EVERY.check_create(values)
    assert is_valid(create_schema(EVERY), values) is not bool(faults), faults
    if "short" in values:
        _, faults = EVERY.check_update(values)
        assert is_valid(update_schema(EVERY), values) is not bool(faults), faults


def test_an_app_may_choose_an_id_and_give_operations_and_readers() -> None:
    create, update = create_schema(EVERY), update_schema(EVERY)
    assert is_valid(create, {"short": "abc", "id": "chosen"})
    assert not is_valid(create, {"short": "abc", "id": "aggregate"})
    edit = {"ops": [{"retain": 1}, {"insert": "x"}], "base_version": "v"}
    assert is_valid(update, {"a_text": edit}) and not is_valid(create, {"short": "abc", "a_text": edit})
    assert not is_valid(update, {"a_text": {"ops": [{"insert": ""}], "base_version": "v"}})
    assert is_valid(create, {"short": "abc", "secret": {"value": "s", "readers": ["u"]}})
    assert not is_valid(create, {"short": "abc", "secret": {"value": "s"}})
    shown = {"id": "1", "created_at": "t", "updated_at": "t", "created_by": None, "version": "v"}
    assert is_valid(record_schema(EVERY), shown | {"secret": {"encrypted": True}})


@pytest.mark.parametrize("name", ["id", "created_at", "version", *EVERY.fields])
def test_a_list_can_be_sorted_by_exactly_the_fields_that_are_named(name: str) -> None:
    schema = parameter_schema("sort", EVERY)
    assert schema is not None
    try:
        parse_query({"sort": name}, EVERY)
        is_taken = True
    except QueryFault:
        is_taken = False
    assert is_valid(schema, name) is is_taken


@pytest.mark.parametrize("operation", ["count", "sum", "avg", "min", "max"])
def test_an_aggregation_takes_exactly_the_fields_that_are_named(operation: str) -> None:
    schema = aggregation_schema(AGGREGATION, EVERY)
    for name in (None, "id", "created_at", "version", *EVERY.fields):
        body: dict[str, Any] = {"aggregations": [{"operation": operation}]}
        if name is not None:
            body["aggregations"][0]["field"] = name
        try:
            parse_aggregation(body, EVERY)
            is_taken = True
        except QueryFault:
            is_taken = False
        assert is_valid(schema, body) is is_taken, body
    assert not is_valid(schema, {"group_by": ["a_set"]}) and is_valid(schema, {"group_by": ["a_enum"]})
    assert not is_valid(schema, {"group_by": ["id"], "filter": "x"})
