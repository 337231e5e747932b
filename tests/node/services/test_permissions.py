import timeit
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.services.permissions import ACTIONS, Permissions, permission_faults
from node.services.refusals import NotPermitted, SignInNeeded
from node.services.scopes import Scopes


@dataclass(frozen=True, slots=True)
class Who:
    user_id: str | None
    application: str = "default"
    is_admin: bool = False
    roles: frozenset[str] = frozenset()
    scopes: Scopes | None = None


@dataclass(frozen=True)
class Thing:
    permissions: dict[str, Any] = field(default_factory=dict)
    id: str = "thing_1"
    name: str = "Thing"
    application: str = "default"


@dataclass(frozen=True)
class Doc:
    created_by: str | None


NOBODY, ANN, BEN = Who(None), Who("ann"), Who("ben")
EDITOR, ADMIN = Who("eve", roles=frozenset({"editor"})), Who("adam", is_admin=True)
ANNS = Doc("ann")


def may(who: Any, action: Any, record: Any = None, **rules: Any) -> Any:
    return Permissions().check(who, Thing(rules), action, record)


def test_by_default_signed_in_users_read_and_create_and_owners_change() -> None:
    assert may(ANN, "read") and may(ANN, "create") and may(BEN, "read", ANNS)
    assert may(ANN, "update", ANNS) and may(ANN, "delete", ANNS)
    assert not may(BEN, "update", ANNS) and not may(BEN, "delete", ANNS)
    assert not any(may(NOBODY, action, ANNS) for action in ACTIONS)
    assert all(may(ADMIN, action, ANNS) for action in ACTIONS)


def test_rules_of_one_action_leave_the_defaults_of_the_others() -> None:
    rules = {"read": "public"}
    assert may(NOBODY, "read", **rules) and not may(NOBODY, "create", **rules)
    assert may(ANN, "create", **rules) and not may(BEN, "delete", ANNS, **rules)


@pytest.mark.parametrize(
    ("rule", "nobody", "other", "owner", "editor", "admin"),
    [
        ("public", True, True, True, True, True),
        ("authenticated", False, True, True, True, True),
        ("owner", False, False, True, False, True),
        ("role:editor", False, False, False, True, True),
        (["owner", "role:editor"], False, False, True, True, True),
        (["public", "owner"], True, True, True, True, True),
        ([], False, False, False, False, True),
        ("role:", False, False, False, False, True),
        ("user.age > 18", False, False, False, False, True),  # an expression of a later release
        ({"any": "thing"}, False, False, False, False, True),
        (None, False, False, False, False, True),
        (7, False, False, False, False, True),
    ],
)
@pytest.mark.parametrize("action", ACTIONS)
def test_a_rule_lets_in_whom_it_names(
    action: str, rule: Any, nobody: Any, other: Any, owner: Any, editor: Any, admin: Any
) -> None:
    asked = [may(who, action, ANNS, **{action: rule}) for who in (NOBODY, BEN, ANN, EDITOR, ADMIN)]
    assert asked == [nobody, other, owner, editor, admin]


def test_whoever_creates_will_own_and_nobody_owns_what_is_not_named() -> None:
    assert may(ANN, "create", create="owner") and not may(NOBODY, "create", create="owner")
    assert not may(ANN, "update") and not may(ANN, "update", update="owner")


def test_what_one_could_do_with_own_documents_can_be_asked() -> None:
    permissions = Permissions()
    assert permissions.may_ever(ANN, Thing(), "update")
    assert permissions.may_ever(ANN, Thing({"update": ["owner"]}, id="b"), "update")
    assert not permissions.may_ever(ANN, Thing({"update": "role:editor"}, id="c"), "update")
    assert not permissions.may_ever(NOBODY, Thing(), "update")
    assert permissions.may_ever(NOBODY, Thing({"read": "public"}, id="d"), "read")


def test_nobody_reaches_into_another_application() -> None:
    elsewhere = Thing({"read": "public"}, application="app_1")
    for who in (NOBODY, ANN, ADMIN):
        assert not Permissions().check(who, elsewhere, "read")
        assert not Permissions().may_ever(who, elsewhere, "read")


@pytest.mark.parametrize("action", ["", "write", "READ", "permissions"])
def test_an_unknown_action_is_nobodys(action: str) -> None:
    assert not may(ANN, action, ANNS) and not may(ANN, action, ANNS, read="public")


def test_new_rules_of_a_model_count_at_once() -> None:
    permissions = Permissions()
    assert not permissions.check(BEN, Thing({"update": "owner"}), "update", ANNS)
    assert permissions.check(BEN, Thing({"update": "authenticated"}), "update", ANNS)
    assert not permissions.check(BEN, Thing({"update": "owner"}), "update", ANNS)


def test_a_refusal_says_whether_signing_in_would_help() -> None:
    permissions = Permissions()
    permissions.raise_unless(ANN, Thing(), "read")
    with pytest.raises(SignInNeeded):
        permissions.raise_unless(NOBODY, Thing(), "read")
    with pytest.raises(NotPermitted, match="You may not update this"):
        permissions.raise_unless(BEN, Thing(), "update", ANNS)


def test_every_fault_of_a_definition_is_named() -> None:
    faults = permission_faults(
        {"read": "everyone", "update": [], "delete": ["owner", 3], "create": "role:", "admin": "owner"}
    )
    assert set(faults) == {f"permissions.{name}" for name in ("read", "update", "delete", "create", "admin")}
    assert permission_faults([]) and permission_faults("public")
    assert not permission_faults(None)
    assert not permission_faults({"read": ["public", "role:editor"], "update": "owner"})


@given(
    st.recursive(st.none() | st.text() | st.integers(), lambda s: st.lists(s) | st.dictionaries(st.text(), s))
)
def test_no_rules_can_raise_or_let_a_stranger_in_without_saying_public(rules: Any) -> None:
    permission_faults(rules)
    if isinstance(rules, dict) and "public" not in repr(rules):
        assert not any(may(NOBODY, action, ANNS, **rules) for action in ACTIONS)


def test_the_default_verdict_is_cheap() -> None:
    permissions, thing = Permissions(), Thing()
    check = permissions.check
    took_s = min(timeit.repeat(lambda: check(ANN, thing, "update", ANNS), number=2000, repeat=5)) / 2000
    assert took_s < 5e-6  # 0.3 µs on an idle machine
