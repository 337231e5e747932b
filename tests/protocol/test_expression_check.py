"""What is said to who writes an expression over a model."""

import pytest
from hypothesis import given

from protocol.expression_check import NUMBER, Kind, Type, faults_of, type_of_field
from protocol.expression_text import Node, parse
from protocol.schema_field import Field, FieldType
from tests.protocol.expression_strategies import TREES

FIELDS = [
    Field("n", FieldType.INTEGER),
    Field("t", FieldType.STRING),
    Field("yes", FieldType.BOOLEAN),
    Field("day", FieldType.DATE),
    Field("moment", FieldType.DATETIME),
    Field("status", FieldType.ENUM, options=("TODO", "DONE")),
    Field("tags", FieldType.SET),
    Field("data", FieldType.JSON),
]
NAMES = {field.name: type_of_field(field) for field in FIELDS}
NAMES["record"] = Type(Kind.OBJECT, dict(NAMES))


@pytest.mark.parametrize(
    "text",
    [
        "n >= 0 && t.size() > 2 && record.n < 5",
        "status == 'DONE' ? has(day) : day >= '2023-01-01'",
        "status in ['TODO', 'DONE'] && 'x' in tags && tags.all(x, x.size() < 9)",
        "data.anything[0] > 3 || data.other == null",
        "moment < datetime('2024-01-01T00:00:00Z') && date(moment) == day",
        "t.matches('^[a-z]+$') && t.lower() == t && yes",
        "addDays(day, 3) > '2024-01-01' && t + 'x' != 'yx' && -n < 3.5",
    ],
)
def test_what_makes_sense_is_let_through(text: str) -> None:
    assert faults_of(parse(text), NAMES) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("n", "at 1: the expression must be true or false, not a number"),
        ("m > 1", "at 1: there is no m; there is n, t, yes, day, moment, status, tags, data, record"),
        ("record.m > 1", "at 7: there is no m here; there is n, t, yes, day, moment, status, tags, data"),
        ("n > 'x'", "at 3: > compares a number with a string"),
        ("yes < true", "at 5: < does not apply to a boolean"),
        ("n && yes", "at 1: what stands beside && must be true or false, not a number"),
        ("status == 'DOEN'", "at 8: DOEN is none of the options: TODO, DONE"),
        ("status in ['DOEN']", "at 12: DOEN is none of the options: TODO, DONE"),
        ("day > 'soon'", "at 5: a date is written YYYY-MM-DD"),
        ("moment > '2024-01-01'", 'at 8: a date and time is written datetime("2023-12-31T23:59:00Z")'),
        ("day < moment", "at 5: < compares a date with a date and time"),
        ("'x' in t", "at 5: in takes a list; for a part of a string there is contains()"),
        ("t.matches(t)", "at 11: matches() takes its pattern as a string in quotes"),
        ("t.matches('(?=x)')", "at 11: not a regular expression without look-around or back-references"),
        ("n.contains('x')", "at 1: contains() takes strings, not a number"),
        ("size(n) > 1", "at 6: size() takes a string, a list or an object, not a number"),
        ("has(n, t)", "at 1: has takes 1 arguments"),
        ("tags.any(x, yes)", "at 5: there is no method any; there is"),
        ("now() > day", "at 1: there is no function now; there is"),
        ("n.all(x, true)", "at 1: all() goes through a list, not a number"),
        ("tags.all(n, true)", "at 5: the name n is taken"),
        ("t + n == 'x'", "at 3: + does not apply to a string"),
        ("n.x == 1", "at 2: a number has no member x"),
    ],
)
def test_what_makes_none_is_said_with_its_place(text: str, said: str) -> None:
    (fault,) = faults_of(parse(text), NAMES)[:1]
    assert fault.startswith(said)


def test_every_fault_is_named_at_once() -> None:
    assert [fault.partition(":")[0] for fault in faults_of(parse("m == 1 && n > 'x' || t"), NAMES)] == [
        "at 1", "at 13", "at 22",
    ]  # fmt: skip


@given(TREES)
def test_any_tree_can_be_looked_at(tree: Node) -> None:
    assert all(fault.startswith("at ") for fault in faults_of(tree, {**NAMES, "a": NUMBER}))
