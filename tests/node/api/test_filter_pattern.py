import re

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.api.filter_pattern import filter_pattern, literal_pattern
from protocol.errors import QueryFault
from protocol.query import parse_query
from protocol.schema import Field, FieldType, Model
from protocol.schema_field import RESERVED_TYPES

KINDS = [kind for kind in FieldType if kind not in RESERVED_TYPES]
OPTIONS = ("TODO", "a,b", ' "', "x;y", "(.*)", "\\")
MODEL = Model(
    "m_1",
    "default",
    "M",
    {
        **{
            kind.value: Field(kind.value, kind, options=OPTIONS if kind is FieldType.ENUM else ())
            for kind in KINDS
        },
        "secret": Field("secret", FieldType.STRING, encrypted=True),
    },
)
is_described = jsonschema_rs.validator_for({"pattern": filter_pattern(MODEL)}).is_valid


def is_taken(text: str) -> bool:
    try:
        parse_query({"filter": text}, MODEL)
    except QueryFault:
        return False
    return True


WORDS = [
    *(kind.value for kind in KINDS),
    *("id", "created_at", "version", "secret", "other"),
    *("eq", "ne", "gt", "lte", "in", "nin", "like", "is"),
    *(":", ":", ":", ",", "|", ";", '"', "\\", " ", "\t", "\u2003", "é"),
    *("1", "-2.5e3", "1e400", "true", "2024-02-29", "2023-02-29", "2024-01-31T10:00:00Z", "T", *OPTIONS),
]


@given(text=st.lists(st.sampled_from(WORDS), max_size=9).map("".join) | st.text(max_size=12))
def test_every_filter_of_the_pattern_is_taken(text: str) -> None:
    assert is_taken(text) or not is_described(text), text


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "enum:eq:TODO, id:ne:x|string:like:a%",
        'enum:in:"a,b";TODO',
        "enum:eq:x;y",
        "enum:like:T%",
        "string:eq:",
        'string:in:"ann;bob";carol;',
        "set:nin:1;x",
        "created_at:gt:2024-02-29",
        "updated_at:lte:1700000000000",
        "date:eq:2000-02-29",
        "date:in:2024-01-31;2024-12-30",
        "datetime:eq:2024-02-29T10:00:59.123+01:00",
        "integer:eq:-7",
        "number:lt:2.5e3",
        "boolean:ne:true",
    ],
)
def test_filters_as_people_write_them_are_in_the_pattern(text: str) -> None:
    assert is_taken(text) and is_described(text)


@pytest.mark.parametrize(
    "text",
    [
        "enum:eq:a,b",
        "enum:in:x;y",
        "enum:gt:TODO",
        'string:eq:"a',
        'string:eq:"a" b',
        "string:in:a;b|id:eq:x,",
        "date:eq:1900-02-29",
        "date:eq:2023-02-30",
        "integer:like:1",
        "json:eq:1",
        "secret:eq:1",
        "version:eq:1",
    ],
)
def test_what_is_no_filter_is_not(text: str) -> None:
    assert not is_taken(text) and not is_described(text)


@pytest.mark.parametrize("text", ["id:eq:a\x00", "id:eq:a\x7f", "\t", "id:eq:\n1"])
def test_no_address_holds_control_characters(text: str) -> None:
    assert not is_described(text)


def test_a_literal_stands_for_itself() -> None:
    text = "".join(map(chr, range(32, 127)))
    assert re.fullmatch(literal_pattern(text), text)
    assert jsonschema_rs.validator_for({"pattern": f"^{literal_pattern(text)}$"}).is_valid(text)
