"""What expressions come to. The rule is SPEC, "Expressions"; its vectors are checked here too."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from protocol.expression import FUEL, Expression, compile_expression
from protocol.expression_text import Node, parse
from tests.protocol.expression_strategies import TREES, WORLDS

VECTORS = json.loads((Path(__file__).parents[2] / "protocol" / "expression_vectors.json").read_text())


def value(text: str, **names: Any) -> Any:
    verdict = compile_expression(text).evaluate(names)
    assert not verdict.is_spent
    return verdict.value


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["expression"])
def test_vectors(case: dict[str, Any]) -> None:
    verdict = compile_expression(case["expression"]).evaluate(VECTORS["names"])
    assert (repr(verdict.value), verdict.is_spent) == (repr(case["value"]), False)


@given(TREES, WORLDS, st.integers(0, 300))
def test_an_evaluation_ends_within_its_fuel_and_raises_nothing(
    tree: Node, names: dict[str, Any], fuel: int
) -> None:
    before = repr(names)
    verdict = Expression(tree).evaluate(names, fuel)
    assert verdict == Expression(tree).evaluate(names, fuel) or verdict.value != verdict.value
    if verdict.is_spent:
        assert verdict.value is None
    else:
        assert _is_plain(verdict.value)
        more = Expression(tree).evaluate(names, fuel + 1)
        assert (repr(more.value), more.fuel) == (repr(verdict.value), verdict.fuel + 1), (
            "more changes nothing"
        )
    assert repr(names) == before


def _is_plain(found: Any) -> bool:
    if isinstance(found, list):
        return all(map(_is_plain, found))
    if isinstance(found, dict):
        return all(map(_is_plain, found.values()))
    if isinstance(found, float):
        return found - found == 0  # finite
    return found is None or type(found) in (bool, str) or (type(found) is int and -(2**63) <= found < 2**63)


def test_what_would_take_long_runs_out_of_fuel() -> None:
    text = "xs.all(a, xs.all(b, xs.all(c, a + b + c >= 0)))"
    verdict = compile_expression(text).evaluate({"xs": list(range(1_000))})
    assert verdict.is_spent and verdict.value is None
    doubled = compile_expression(" + ".join(["t"] * 60))
    assert doubled.evaluate({"t": "x" * 2**20}).value is None, "a text that long is no value"
    assert compile_expression("t.matches('a*b')").evaluate({"t": "a" * (FUEL * 8 + 8)}).is_spent


@example("a && b", True, None)
@given(st.sampled_from(["a && b", "a || b"]), *[st.sampled_from([True, False, None])] * 2)
def test_and_and_or_do_not_depend_on_the_order_of_their_sides(
    text: str, a: bool | None, b: bool | None
) -> None:
    assert value(text, a=a, b=b) is value(text, a=b, b=a)
    turned = "!(" + text.replace("&&", "||").replace("a", "!a").replace("b", "!b") + ")"
    if "&&" in text:
        assert value(text, a=a, b=b) is value(turned, a=a, b=b)


@given(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**63), 2**63 - 1))
def test_a_division_has_its_rest(a: int, b: int) -> None:
    rest = value("a % b", a=a, b=b)
    if b == 0:
        assert rest is None
    else:
        quotient = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
        assert quotient * b + rest == a and abs(rest) < abs(b)


def test_names_are_looked_up_where_they_are_bound() -> None:
    assert value("xs.exists(x, x == y) && x == 9", xs=[1, 2], x=9, y=2) is True
    assert parse("a.all(b, b)") == parse("a . all( b,b )")
