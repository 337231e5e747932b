"""Makes protocol/conflict_vectors.json: what each strategy shows of documents written apart.

Room: the cases, and what is told of each. `python -m tests.protocol.make_conflict_vectors` writes the file; a test
makes it again, and another judges every case from what the file says.
"""

import json
from pathlib import Path
from typing import Any

from protocol.body import Body, Dot, Kind, Operation
from protocol.conflict import Judged, conflicts, judge
from protocol.ids import SPACE_ID_BYTES
from protocol.schema import Model, parse_definition
from tests.protocol.strategies import AUTHORS, Told
from tests.protocol.tale import past_of
from tests.protocol.test_document import built

PATH = Path(__file__).parent.parent.parent / "protocol" / "conflict_vectors.json"
SPACE = bytes(range(SPACE_ID_BYTES))
ANN, BOB, CLEO = AUTHORS[0], AUTHORS[2], AUTHORS[3]
Case = dict[str, Any]


class Scene:
    """Bodies by three authors, each knowing and superseding what it is told to."""

    def __init__(self, what: str, *fields: Case, strategies: tuple[str, ...]) -> None:
        self.what = what
        self.fields = list(fields)
        self.strategies = strategies
        self.told: list[Told] = []

    def write(
        self,
        author: bytes,
        *operations: Operation,
        seen: tuple[Told, ...] = (),
        knows: tuple[Told, ...] = (),
    ) -> Told:
        own = [told for told in self.told if told.dot.author == author]
        past: dict[bytes, Dot] = {}
        for one in (*own, *seen, *knows):
            for dot in (*one.known.values(), one.dot):
                past[dot.author] = max(dot, past.get(dot.author, dot))
        past.pop(author, None)
        newest: dict[bytes, Dot] = {}
        for one in sorted(seen, key=lambda told: told.dot):
            newest[one.dot.author] = one.dot
        body = Body(bytes(16), "", "task_0a1b2c3d", "one", tuple(sorted(newest.values())), list(operations))
        told = Told(Dot(author, len(own) + 1, 0), len(self.told) + 1, body, past)
        self.told.append(told)
        return told


def setting(**values: Any) -> Operation:
    return [Kind.SET.value, values]


def model_of(fields: list[Case], strategy: str) -> Model:
    folding = strategy in ("merge", "version_vector", "three_way")
    given = [field if folding else {k: v for k, v in field.items() if k != "merge"} for field in fields]
    definition = {"name": "Task", "fields": given, "conflict_strategy": strategy}
    return parse_definition(definition, application="default")


def scenes() -> list[Scene]:
    every = ("crdt", "lww", "manual", "merge", "version_vector", "three_way", "closest@0123456789abcdef")
    points = {"name": "points", "type": "integer", "merge": "sum"}
    title = {"name": "title", "type": "string"}
    made: list[Scene] = []

    apart = Scene(
        "two sides change what both have seen, a third writes it again", title, points, strategies=every
    )
    base = apart.write(ANN, setting(title="base", points=10))
    apart.write(ANN, setting(title="ann", points=12), seen=(base,))
    apart.write(BOB, setting(title="base", points=11), seen=(base,))
    apart.write(CLEO, setting(title="base", points=10), seen=(base,))
    made.append(apart)

    crossed = Scene(
        "two sides have both seen a conflict, and are in conflict again", points, strategies=every
    )
    base = crossed.write(ANN, setting(points=10))
    one, two = (
        crossed.write(ANN, setting(points=11), seen=(base,)),
        crossed.write(BOB, setting(points=12), seen=(base,)),
    )
    crossed.write(ANN, setting(points=14), seen=(one, two))
    crossed.write(BOB, setting(points=15), seen=(one, two))
    made.append(crossed)

    unsaid = Scene("a writer had the other value and did not say so", title, strategies=every)
    first = unsaid.write(BOB, setting(title="old"))
    unsaid.write(ANN, setting(title="new"), knows=(first,))
    made.append(unsaid)

    nothing = Scene("nothing was there before; one side clears the field", title, points, strategies=every)
    nothing.write(ANN, setting(title="ann", points=3))
    nothing.write(BOB, setting(title=None, points=None))
    made.append(nothing)

    deleted = Scene(
        "an update of what was deleted meanwhile, and a conflict below it", title, strategies=every
    )
    base = deleted.write(ANN, setting(title="base"))
    deleted.write(ANN, [Kind.DELETE.value], seen=(base,))
    deleted.write(BOB, setting(title="b"), seen=(base,))
    deleted.write(CLEO, setting(title="c"), seen=(base,))
    made.append(deleted)

    folds = Scene(
        "every way to fold, and values that a field does not allow",
        {"name": "union", "type": "json", "merge": "union"},
        {"name": "keys", "type": "json", "merge": "union"},
        {"name": "mixed", "type": "json", "merge": "union"},
        {"name": "most", "type": "enum", "options": ["TODO", "IN_PROGRESS", "DONE"], "merge": "max"},
        {"name": "least", "type": "number", "merge": "min"},
        {"name": "exact", "type": "number", "merge": "sum"},
        {"name": "bounded", "type": "integer", "max": 10, "merge": "sum"},
        {"name": "log", "type": "string", "merge": "concat"},
        {"name": "spoilt", "type": "integer", "merge": "max"},
        strategies=("merge",),
    )
    folds.write(ANN, setting(union=["a", {"x": 1}], keys={"a": 1, "b": 1}, mixed=[1], most="DONE", least=2.5,
                             exact=0.1, bounded=6, log="one ", spoilt=7))  # fmt: skip
    folds.write(BOB, setting(union=[{"x": 1.0}, "b"], keys={"b": 2}, mixed={"a": 1}, most="IN_PROGRESS", least=2,
                             exact=0.2, bounded=6, log="two ", spoilt="garbage"))  # fmt: skip
    folds.write(CLEO, setting(union=None, keys={"c": 3}, mixed=[2], most="TODO", least=3, exact=0.3, bounded=1,
                              log="one ", spoilt=5))  # fmt: skip
    made.append(folds)
    return made


def make() -> list[Case]:
    return [_case(scene, strategy) for scene in scenes() for strategy in scene.strategies]


def _case(scene: Scene, strategy: str) -> Case:
    model = model_of(scene.fields, strategy)
    return {
        "what": scene.what,
        "space": SPACE.hex(),
        "strategy": strategy,
        "fields": scene.fields,
        "bodies": [
            {
                "dot": _dot(told.dot),
                "hlc": told.hlc,
                "past": [_dot(dot) for dot in sorted(told.known.values())],
                "seen": [_dot(dot) for dot in told.body.seen],
                "operations": told.body.operations,
            }
            for told in scene.told
        ],
        **outcome(model, scene.told),
    }


def outcome(model: Model, told: list[Told]) -> Case:
    """What is shown, and what is in conflict."""
    document, past = built(told), past_of(told)
    shown = judge(document, model.rules, past) if document.exists else Judged({}, ())
    return {
        "exists": document.exists,
        "shown": shown.values,
        "conflicts": [
            {
                "field": conflict.field,
                "id": conflict.id_in(SPACE),
                "values": [value.value for value in conflict.values],
                **({"ancestor": conflict.ancestor} if conflict.has_ancestor else {}),
            }
            for conflict in conflicts(document, model.rules, past)
        ],
    }


def _dot(dot: Any) -> list[Any]:
    return [dot.author.hex(), dot.seq, dot.index]


def as_text() -> str:
    return json.dumps(make(), indent=1) + "\n"


if __name__ == "__main__":
    PATH.write_text(as_text(), encoding="ascii")
