"""Scalars that GraphQL does not bring, and the type of each kind of field.

Room: types without state, made once. Values of records pass through as they are stored; what comes in is only read
here, and checked by the model, which names every fault at once.
"""

import re
from collections.abc import Mapping
from typing import Any

from graphql import (
    GraphQLBoolean,
    GraphQLError,
    GraphQLFloat,
    GraphQLID,
    GraphQLList,
    GraphQLNonNull,
    GraphQLScalarType,
    GraphQLString,
)

from protocol.schema import FieldType
from protocol.schema_check import Fault, check_integer

_DIGITS = re.compile(r"[+-]?[0-9]{1,19}")


def _int64(value: Any) -> int:
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        value = int(value)
    checked = check_integer(value)
    if isinstance(checked, Fault):
        raise GraphQLError(f"Int64 {checked[:1].lower()}{checked[1:]}")
    number: int = checked
    return number


def _text(name: str) -> Any:
    def read(value: Any) -> str:
        if not isinstance(value, str):
            raise GraphQLError(f"{name} must be a string")
        return value

    return read


INT64 = GraphQLScalarType(
    "Int64",
    coerce_output_value=lambda value: value,
    coerce_input_value=_int64,
    description="A whole number of 64 bits. Given as a number, or as a string of digits where a client has no such "
    "numbers (JavaScript beyond 2^53); answered as a number.",
)
DATE = GraphQLScalarType(
    "Date",
    coerce_output_value=lambda value: value,
    coerce_input_value=_text("Date"),
    description="A day, as 2031-01-31.",
    specified_by_url="https://www.rfc-editor.org/rfc/rfc3339",
)
DATETIME = GraphQLScalarType(
    "DateTime",
    coerce_output_value=lambda value: value,
    coerce_input_value=_text("DateTime"),
    description="A moment in UTC, to the millisecond, as 2031-01-31T23:59:00.000Z. Other offsets may be given.",
    specified_by_url="https://www.rfc-editor.org/rfc/rfc3339",
)
JSON = GraphQLScalarType(
    "JSON",
    coerce_output_value=lambda value: value,
    coerce_input_value=lambda value: value,
    description="Any JSON: an object, a list, a string, a number, true, false or null.",
    specified_by_url="https://www.rfc-editor.org/rfc/rfc8259",
)

# What a field reads and writes as; enums and references have types of their own.
TYPES: Mapping[str, Any] = {
    FieldType.STRING: GraphQLString,
    FieldType.TEXT: GraphQLString,
    FieldType.INTEGER: INT64,
    FieldType.COUNTER: INT64,
    FieldType.NUMBER: GraphQLFloat,
    FieldType.BOOLEAN: GraphQLBoolean,
    FieldType.DATE: DATE,
    FieldType.DATETIME: DATETIME,
    FieldType.JSON: JSON,
    FieldType.ARRAY: GraphQLList(JSON),
    FieldType.SET: GraphQLList(GraphQLNonNull(JSON)),
    FieldType.REFERENCE: GraphQLID,
}
