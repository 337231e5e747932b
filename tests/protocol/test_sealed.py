from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import ModelFault
from protocol.schema import parse_definition
from protocol.sealed import (
    NONCE_SIZE_BYTES,
    READERS_MAX,
    SEALED_KEY_SIZE_BYTES,
    Envelope,
    Unsealed,
    associated_data,
    read_envelope,
    read_unsealed,
    write_envelope,
)

BOX_MIN = NONCE_SIZE_BYTES + 17
users = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
sealed_keys = st.binary(min_size=SEALED_KEY_SIZE_BYTES, max_size=SEALED_KEY_SIZE_BYTES)
envelopes = st.builds(
    Envelope,
    st.binary(min_size=BOX_MIN, max_size=200),
    st.dictionaries(users, sealed_keys, min_size=1, max_size=4),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda v: st.lists(v) | st.dictionaries(st.text(max_size=4), v),
)


@given(envelopes)
def test_an_envelope_reads_as_it_was_written(envelope: Envelope) -> None:
    assert read_envelope(write_envelope(envelope)) == envelope


@given(json_values | st.fixed_dictionaries({"v": st.just(1), "box": json_values, "keys": json_values}))
def test_whatever_else_is_no_envelope(value: Any) -> None:
    found = read_envelope(value)
    assert found is None or write_envelope(found) == value


@given(envelopes, st.data())
def test_an_envelope_has_one_form(envelope: Envelope, data: st.DataObject) -> None:
    written = write_envelope(envelope)
    wrong = data.draw(
        st.sampled_from([
            {**written, "v": 2}, {**written, "more": 1}, {**written, "box": written["box"] + "="},
            {**written, "box": written["box"] + "\n"}, {**written, "box": written["box"][:20]}, {**written, "keys": {}},
            {**written, "keys": {"": next(iter(written["keys"].values()))}}, {**written, "keys": {"ann": "AAAA"}},
            {**written, "keys": {f"user {n}": next(iter(written["keys"].values())) for n in range(READERS_MAX + 1)}},
        ])
    )  # fmt: skip
    assert read_envelope(wrong) is None


@given(st.tuples(*[st.text(max_size=8)] * 4), st.tuples(*[st.text(max_size=8)] * 4))
def test_every_place_has_associated_data_of_its_own(one: Any, other: Any) -> None:
    assert (associated_data(*one) == associated_data(*other)) == (one == other)


def test_what_an_app_gives_is_a_value_or_a_value_with_its_readers() -> None:
    assert read_unsealed("x") == Unsealed("x")
    assert read_unsealed({"value": 1}) == Unsealed({"value": 1})
    assert read_unsealed({"value": 1, "readers": ["bob", "ann", "bob"]}) == Unsealed(1, ("bob", "ann"))
    for readers in ("bob", [1], [""], ["x"] * READERS_MAX):
        assert isinstance(read_unsealed({"value": 1, "readers": readers}), str)


# -- the field of a model ----------------------------------------------------------------------------------------


PATIENT = parse_definition(
    {
        "name": "Patient",
        "fields": [{"name": "ssn", "type": "string", "max": 11, "encrypted": True, "required": True}],
    },
    application="default",
)


def test_what_is_given_is_checked_in_the_clear_and_what_is_stored_must_be_sealed() -> None:
    assert PATIENT.check_create({"ssn": "123"}) == ({"ssn": Unsealed("123")}, {})
    assert PATIENT.check_update({"ssn": {"value": "1", "readers": ["bob"]}}) == (
        {"ssn": Unsealed("1", ("bob",))},
        {},
    )
    too_long = "way too long for it"
    refused: list[Any] = [too_long, 5, {"value": None, "readers": []}, {"value": "1", "readers": "bob"}]
    for given_value in refused:
        assert set(PATIENT.check_create({"ssn": given_value})[1]) == {"ssn"}
    envelope = write_envelope(Envelope(bytes(BOX_MIN), {"ann": bytes(SEALED_KEY_SIZE_BYTES)}))
    assert PATIENT.check_record({"ssn": envelope}) == {}
    assert PATIENT.check_record({"ssn": "123"}) == {"ssn": "Must be encrypted"}


def test_no_rule_asks_what_nobody_can_see() -> None:
    fields = [{"name": "ssn", "type": "string", "encrypted": True}, {"name": "n", "type": "integer"}]
    rules = {
        "validators": [{"expression": 'ssn != ""', "message": "no"}],
        "permissions": {"read": 'record.ssn == "1"'},
    }
    with pytest.raises(ModelFault) as refused:
        parse_definition({"name": "M", "fields": fields, **rules}, application="default")
    assert set(refused.value.details) == {"validators[0].expression", "permissions.read"}
    fine = {"validators": [{"expression": "n > 0", "message": "no"}]}
    model = parse_definition({"name": "M", "fields": fields, **fine}, application="default")
    assert model.check_create({"ssn": "x", "n": 0})[1] == {"n": "no"}


@pytest.mark.parametrize(
    "attributes",
    [
        {"indexed": True},
        {"unique": True},
        {"default": "x"},
        {"merge": "concat"},
        {"type": "text"},
        {"type": "set"},
    ],
)
def test_nothing_that_needs_the_value_goes_with_encrypted(attributes: dict[str, Any]) -> None:
    field = {"name": "a", "type": "string", "encrypted": True, **attributes}
    with pytest.raises(ModelFault):
        parse_definition({"name": "M", "fields": [field]}, application="default")
