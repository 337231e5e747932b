import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.services.scopes import PATTERN, SCOPES_MAX, Scopes, check_scopes

WORDS = ["read", "write", "admin", "data:Task:read", "data:Task:write", "data:*:read", "data:*:write"]
some = st.lists(st.sampled_from(WORDS))


@pytest.mark.parametrize(
    ("words", "reads_task", "writes_task", "reads_plan", "gets", "posts"),
    [
        (["read"], True, False, True, True, False),
        (["write"], False, True, False, False, True),
        (["admin"], True, True, True, True, True),
        (["data:Task:read"], True, False, False, False, False),
        (["data:Task:write"], False, True, False, False, False),
        (["data:*:read"], True, False, True, False, False),
        (["data:task:read", "data:Tas:read", "data::read", "everything"], False, False, False, False, False),
    ],
)
def test_what_a_scope_opens(
    words: Any, reads_task: bool, writes_task: bool, reads_plan: bool, gets: bool, posts: bool
) -> None:
    scopes = Scopes(words)
    assert scopes.allow("Task", "read") is reads_task
    assert {scopes.allow("Task", action) for action in ("create", "update", "delete")} == {writes_task}
    assert scopes.allow("Plan", "read") is reads_plan
    assert scopes.allow_method("GET") is scopes.allow_method("HEAD") is gets
    assert {scopes.allow_method(method) for method in ("POST", "PUT", "PATCH", "DELETE")} == {posts}


@given(some, some)
def test_a_further_scope_closes_nothing(few: list[str], more: list[str]) -> None:
    narrow, wide = Scopes(few), Scopes(few + more)
    for model in ("Task", "Plan", "*"):
        for action in ("read", "create", "update", "delete"):
            assert wide.allow(model, action) or not narrow.allow(model, action)
    for method in ("GET", "POST"):
        assert wide.allow_method(method) or not narrow.allow_method(method)


@given(st.lists(st.one_of(st.sampled_from(WORDS), st.text(), st.integers()), max_size=8))
def test_what_passes_the_check_is_kept_as_it_is_and_nothing_else_passes(words: list[Any]) -> None:
    checked, fault = check_scopes(words)
    if fault is None:
        assert list(Scopes(words).words) == checked == sorted(set(words))
        assert all(re.fullmatch(PATTERN, word) for word in checked)
    else:
        assert not words or any(not isinstance(w, str) or not re.fullmatch(PATTERN, w) for w in words)


@pytest.mark.parametrize(
    "value", [None, [], "read", ["read\n"], ["data:Task:delete"], ["data:$role:read"], [None], ["read"] * 65]
)
def test_faults_are_named(value: Any) -> None:
    assert check_scopes(value)[1]
    assert SCOPES_MAX == 64
