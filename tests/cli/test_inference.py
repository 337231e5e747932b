"""Guessing a model, and CSV cells as values."""

import csv
import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.inference import Guess, Names, body_of
from node.services.record_files import Record, value_of


def types(records: list[Record], *, from_text: bool) -> dict[str, str]:
    guess = Guess(from_text=from_text)
    for record in records:
        guess.learn(record)
    return {name: guess.type_of(name) for name in guess.kinds}


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["1", "-20"], "integer"),
        (["1", "2.5"], "number"),
        (["1e3", "2.5E-7"], "number"),
        (["1", "x"], "string"),
        (["007", "12"], "string"),
        (["+4930123"], "string"),
        (["99999999999999999999"], "string"),
        (["9223372036854775807"], "integer"),
        (["1e999"], "string"),
        (["true", "False"], "boolean"),
        (["true", "1"], "string"),
        (["2024-02-29"], "date"),
        (["2023-02-29"], "string"),
        (["2024-02-29T10:00:00Z", "2024-02-29T10:00:00.5+01:00"], "datetime"),
        (["2024-02-29T10:00:00"], "string"),
        (["2024-02-29", "2024-02-29T10:00:00Z"], "string"),
        (["nan", "inf"], "string"),
        (["١٢"], "string"),
    ],
)
def test_cells_get_the_narrowest_type_that_all_have(cells: list[str], kind: str) -> None:
    assert types([{"f": cell} for cell in cells], from_text=True) == {"f": kind}


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, None], "integer"),
        ([1, 2.0], "number"),
        ([2**63], "number"),
        ([True], "boolean"),
        ([True, 1], "json"),
        (["1", 1], "json"),
        (["a", "2024-01-01"], "string"),
        ([[1], {"a": 1}], "json"),
        ([None], "string"),
    ],
)
def test_json_values_get_the_narrowest_type_that_all_have(values: list[Any], kind: str) -> None:
    assert types([{"f": value} for value in values], from_text=False) == {"f": kind}


@given(number=st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_survives_a_cell(number: float) -> None:
    cell = str(number)
    kind = types([{"f": cell}], from_text=True)["f"]
    assert value_of(cell, kind) == number


@given(
    cell=st.text(),
    kind=st.sampled_from(["string", "integer", "number", "boolean", "json", "set", "counter", "date"]),
)
def test_no_cell_can_raise(cell: str, kind: str) -> None:
    value_of(cell, kind)
    types([{"f": cell}], from_text=True)


@given(cell=st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"])))
def test_text_that_does_not_look_like_anything_else_stays_as_it_is(cell: str) -> None:
    out = io.StringIO()
    csv.writer(out).writerow([cell])
    assert value_of(next(csv.reader([out.getvalue()]))[0], "string") == cell


def test_a_cell_that_is_no_value_of_its_type_is_left_for_the_node_to_refuse() -> None:
    assert value_of("many", "integer") == "many"
    assert value_of("{", "json") == "{"
    assert value_of("maybe", "boolean") == "maybe"


def test_names_become_field_names_and_never_collide() -> None:
    names = Names.of(["First Name", "first-name", "first_name", "2nd", "ü", "", "version", "id"], None)
    assert names.fields == {
        "First Name": "First_Name",
        "first-name": "first_name",
        "first_name": "first_name_2",
        "2nd": "field_2nd",
        "ü": "field",
        "": "field_2",
    }
    assert names.id_field == "id"
    assert names.left_out == ["version"]


@given(originals=st.lists(st.text(max_size=80), unique=True, max_size=20))
def test_every_field_name_is_one_a_model_takes(originals: list[str]) -> None:
    import re

    given_names = list(Names.of(originals, None).fields.values())
    assert all(re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,62}", name) for name in given_names)
    assert len(set(given_names)) == len(given_names)


def test_a_named_id_field_stays_a_field_and_a_field_called_id_does_not() -> None:
    record = {"id": 7, "icao": "BIKF", "version": "x"}
    assert body_of(record, Names.of(record, None), {}, from_text=False) == {"id": "7", "icao": "BIKF"}
    assert body_of(record, Names.of(record, "icao"), {}, from_text=False) == {"id": "BIKF", "icao": "BIKF"}


def test_the_model_names_its_fields_by_their_new_names_and_indexes_those_asked_for() -> None:
    guess = Guess(from_text=True)
    guess.learn({"id": "1", "Home Town": "Bonn", "age": "3"})
    definition = guess.definition("Person", Names.of(guess.kinds, None), ["Home Town"])
    assert definition == {
        "name": "Person",
        "fields": [
            {"name": "Home_Town", "type": "string", "indexed": True},
            {"name": "age", "type": "integer"},
        ],
    }
