"""Validators and permission rules in definitions."""

from typing import Any

import pytest

from protocol.errors import ModelFault
from protocol.schema import Model, parse_definition
from protocol.schema_rules import DEFAULT_PERMISSIONS, permissions_in_common

ACCOUNT: dict[str, Any] = {
    "name": "Account",
    "fields": [
        {"name": "owner", "type": "string", "required": True},
        {"name": "balance", "type": "number"},
        {"name": "credit", "type": "number", "default": 0},
        {"name": "tags", "type": "set"},
    ],
}
NEGATIVE = {"expression": "balance + credit >= 0", "message": "Account balance cannot be negative"}


def account(*validators: dict[str, str], **more: Any) -> Model:
    return parse_definition({**ACCOUNT, "validators": list(validators), **more}, application="default")


def faults_of(**more: Any) -> dict[str, str]:
    with pytest.raises(ModelFault) as raised:
        parse_definition({**ACCOUNT, **more}, application="default")
    return raised.value.details


def test_a_validator_speaks_under_the_first_field_it_names() -> None:
    model = account(NEGATIVE, {"expression": "size(record.tags) > 0", "message": "Needs a tag"})
    assert model.check_create({"owner": "ann", "balance": -5})[1] == {
        "balance": "Account balance cannot be negative",
        "tags": "Needs a tag",
    }
    assert model.check_create({"owner": "ann", "balance": -5, "credit": 5, "tags": ["x"]})[1] == {}


def test_what_is_unknown_breaks_no_validator() -> None:
    assert account(NEGATIVE).check_create({"owner": "ann"})[1] == {}
    needed = account({"expression": "has(balance)", "message": "How much?"})
    assert needed.check_create({"owner": "ann"})[1] == {"balance": "How much?"}


def test_faults_of_fields_and_of_validators_are_named_together() -> None:
    model = account(
        NEGATIVE,
        {"expression": "size(owner) > 2", "message": "Too short"},
        {"expression": "owner != 'me'", "message": "Who?"},
    )
    faults = model.check_create({"owner": "me", "balance": "much"})[1]
    assert faults == {"balance": "Must be a number", "owner": "Too short; Who?"}


def test_a_record_of_a_peer_is_judged_by_model_and_data_alone() -> None:
    model = account(NEGATIVE)
    stored = Model.from_definition(model.to_definition())
    assert stored == model
    assert stored.check_record({"owner": "ann", "balance": -1}) == {
        "balance": "Account balance cannot be negative"
    }
    assert stored.check_record({"owner": "ann", "balance": 1, "gone": "kept, not shown"}) == {}


def test_a_validator_that_costs_too_much_refuses() -> None:
    dear = "tags.all(a, tags.all(b, tags.all(c, a != '' || b != '' || c != '')))"
    model = account({"expression": dear, "message": "Never"})
    faults = model.check_create({"owner": "ann", "tags": [str(n) for n in range(100)]})[1]
    assert faults == {"tags": "checking this takes more steps than a validator has"}


def test_validators_share_their_fuel() -> None:
    dear = "tags.all(a, tags.all(b, a != '' || b != ''))"
    tags = [str(n) for n in range(100)]
    for count in (1, 2):
        validators = [{"expression": f"{dear} && {n} == {n}", "message": "Never"} for n in range(count)]
        faults = account(*validators).check_create({"owner": "ann", "tags": tags})[1]
        assert bool(faults) is (count == 2)


def test_faults_of_expressions_are_named_where_they_are() -> None:
    faults = faults_of(
        validators=[{"expression": "balanc > 0 && tags > 1", "message": "x"}],
        permissions={
            "read": "record.ownr == user.id",
            "create": ["owner", "user.name == 'x'"],
            "update": "now >",
            "delete": "everyone",
        },
    )
    assert faults["validators[0].expression"].startswith("at 1: there is no balanc")
    assert "at 20: > does not apply to a list" in faults["validators[0].expression"]
    assert faults["permissions.read"].startswith("at 7: there is no ownr here")
    assert faults["permissions.create"] == "at 5: there is no name here; there is id, roles, is_admin"
    assert faults["permissions.update"] == "at 6: a value is expected, not the end"
    assert faults["permissions.delete"].startswith("Must be public, authenticated, owner, role:NAME")


def test_validators_know_no_user_and_no_time() -> None:
    faults = faults_of(validators=[{"expression": "user.id == owner || now > '2024'", "message": "x"}])
    assert "there is no user" in faults["validators[0].expression"]
    assert "there is no now" in faults["validators[0].expression"]


@pytest.mark.parametrize(
    ("said", "in_force"),
    [
        ([], None),
        ([{}, {}], {}),
        ([{"read": "owner"}], {"read": "owner"}),
        ([{"read": "owner"}, 5, {"fly": "public"}], {"read": "owner"}),
        ([{}, {"read": "public"}], {}),
        ([{"read": "owner"}, {"read": "public", "update": "public"}], {"read": "owner"}),
        ([{"read": ["role:a", "owner"]}, {"read": ["role:b", "owner"]}], {"read": "owner"}),
        ([{"read": "role:a"}, {"read": "role:b"}], {"read": "false"}),
        (
            [{"update": ["role:a", "1 < 2"]}, {"update": ["1 < 2", "authenticated"]}],
            {"update": ["1 < 2", "role:a"]},
        ),
    ],
)
def test_of_permissions_that_were_said_apart_only_what_all_of_them_allow_is_in_force(
    said: list[Any], in_force: Any
) -> None:
    for order in (said, said[::-1]):
        found = permissions_in_common(order)
        assert found is in_force is None or DEFAULT_PERMISSIONS | found == DEFAULT_PERMISSIONS | in_force
