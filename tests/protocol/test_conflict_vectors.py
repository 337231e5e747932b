import json
from random import Random
from typing import Any

import pytest

from protocol.body import Body, Dot
from protocol.schema_strategy import MERGES, STRATEGIES
from tests.protocol.make_conflict_vectors import PATH, as_text, model_of, outcome
from tests.protocol.strategies import Told, reordered
from tests.protocol.test_vectors import rows

CASES: list[Any] = json.loads(PATH.read_text(encoding="ascii"))


def test_the_vectors_are_what_the_code_makes() -> None:
    assert PATH.read_text(encoding="ascii") == as_text()


@pytest.mark.parametrize("number", range(len(CASES)))
def test_a_case_can_be_judged_from_what_it_says_in_any_order(number: int) -> None:
    case = CASES[number]
    history = [
        Told(
            _dot(body["dot"]),
            body["hlc"],
            Body(bytes(16), "", "task_0a1b2c3d", "one", tuple(map(_dot, body["seen"])), body["operations"]),
            {dot.author: dot for dot in map(_dot, body["past"])},
        )
        for body in case["bodies"]
    ]
    model = model_of(case["fields"], case["strategy"])
    told = {name: case[name] for name in ("exists", "shown", "conflicts")}
    for seed in range(3):
        assert json.loads(json.dumps(outcome(model, reordered(history, Random(seed))))) == told


def _dot(parts: list[Any]) -> Dot:
    author, seq, index = parts
    return Dot(bytes.fromhex(author), seq, index)


def test_strategies_and_merges_of_the_specification_are_those_of_the_code() -> None:
    tables = rows("13. Conflicts")
    named = [row[0].replace("`", "") for row in tables]
    assert set(named) == {*STRATEGIES, "name@hash", "merge", "---", "union", "max, min", "sum", "concat"}
    types = {row[0].replace("`", ""): row[1] for row in tables[-4:]}
    for names, kinds in types.items():
        for name in names.split(", "):
            assert set(kinds.split(", ")) == {kind.value for kind in MERGES[name]}
