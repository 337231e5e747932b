"""Two ways to one answer, in turns: a node over HTTP, and what it is held against.

Room: a child process, `python -m cli.bench.turns`, that reads a `Plan` as one line of JSON and prints an `Outcome`.
Each question goes to the node and, from the same process, to SQLite over the node's own index, or to another of its
routes. Which of the two comes first alternates, so that a machine which slows down meanwhile moves both alike. Both
must come to the same answer each time, or the figure does not exist; that is looked at off the clock.
"""

import gc
import json
import socket
import sqlite3
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from cli.bench.answers import AnswerReader
from cli.bench.errors import BadAnswer, ChildFailed, LoadFailed
from cli.bench.load import ANSWER_MAX_S, RECEIVE_MAX_BYTES, percentile
from cli.bench.rawsql import RawIndex
from cli.bench.records import Grouping, Question

TURNS_MIN = 10  # however long they take: a median of fewer says little

_Ask = Callable[[], Any]
_Same = Callable[[Any, Any], bool]


@dataclass(frozen=True, slots=True)
class Turn:
    """A whole HTTP request, and what else is asked: a question for SQLite, or the request of another route."""

    request: str
    page: Question | None = None
    grouping: Grouping | None = None
    other: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """`index` is the node's SQLite file. The turns of the first `warmup_s` seconds are not measured."""

    port: int
    index: str
    turns: list[Turn]
    seconds: float
    warmup_s: float


@dataclass(frozen=True, slots=True)
class Outcome:
    measured: int
    p50_ms: float
    p99_ms: float
    other_p50_ms: float


class _Asked:
    """A node on one keep-alive connection. Blocks."""

    def __init__(self, port: int) -> None:
        self._reader = AnswerReader()
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_MAX_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, request: bytes) -> bytes:
        """The body of the answer. Raises `LoadFailed` for any but 200."""
        self._socket.sendall(request)
        while (answer := self._reader.feed(self._socket.recv(RECEIVE_MAX_BYTES))) is None:
            pass
        if answer.status != 200:
            raise LoadFailed(f"{answer.status} where 200 is right: {answer.body[:200]!r}")
        return answer.body

    def close(self) -> None:
        self._socket.close()


def measure(plan: Plan) -> Outcome:
    """Ask one turn after another, and over again. Raises `LoadFailed` where two answers differ."""
    node, index = _Asked(plan.port), RawIndex(Path(plan.index))
    try:
        return _measured(plan, [_sides(turn, node, index) for turn in plan.turns])
    finally:
        index.close()
        node.close()


def _measured(plan: Plan, turns: Sequence[tuple[_Ask, _Ask, _Same]]) -> Outcome:
    clock = time.perf_counter
    taken: list[tuple[float, float]] = []
    started = clock()
    measure_from, end_at = started + plan.warmup_s, started + plan.warmup_s + plan.seconds
    number = 0
    while (now := clock()) < end_at or len(taken) < TURNS_MIN:
        ours, other, is_same = turns[number % len(turns)]
        answers, lasted = [None, None], [0.0, 0.0]
        sides = ((0, ours), (1, other))
        for side, ask in sides if number % 2 else reversed(sides):
            before = clock()
            answers[side] = ask()
            lasted[side] = clock() - before
        number += 1
        if not is_same(*answers):
            raise LoadFailed(f"two answers: {answers[0]!r:.300}, {answers[1]!r:.300}")
        if now >= measure_from:
            taken.append((lasted[0], lasted[1]))
    mine, others = (sorted(side) for side in zip(*taken, strict=True))
    return Outcome(
        measured=len(taken),
        p50_ms=percentile(mine, 0.50) * 1000,
        p99_ms=percentile(mine, 0.99) * 1000,
        other_p50_ms=percentile(others, 0.50) * 1000,
    )


def _sides(turn: Turn, node: _Asked, index: RawIndex) -> tuple[_Ask, _Ask, _Same]:
    ours = partial(node.ask, turn.request.encode())
    if turn.page is not None:
        statements = [index.statement(turn.page)] + [index.count(turn.page)] * turn.page.is_counted
        return ours, lambda: list(map(index.run, statements)), _is_page
    if turn.grouping is not None:
        return ours, partial(index.run, index.grouping(turn.grouping)), _is_grouping
    return ours, partial(node.ask, turn.other.encode()), _is_graphql


def _is_page(answer: bytes, rows: list[list[tuple[Any, ...]]]) -> bool:
    page = json.loads(answer)
    is_right = bool(rows[0]) and [item["id"] for item in page["items"]] == [id for (id,) in rows[0]]
    return is_right and (len(rows) == 1 or page["total"] == rows[1][0][0])


def _is_grouping(answer: bytes, rows: list[tuple[Any, ...]]) -> bool:
    return [tuple(group.values()) for group in json.loads(answer)] == rows


def _is_graphql(answer: bytes, page: bytes) -> bool:
    """An answer with errors is one as well."""
    data = json.loads(answer).get("data") or {}
    return bool(data.get("page")) and data["page"] == json.loads(page)["items"]


def main() -> int:
    """The child's side."""
    try:
        plan = msgspec.json.decode(sys.stdin.readline(), type=Plan)
        gc.disable()
        answer: dict[str, object] = asdict(measure(plan))
    except (sqlite3.Error, OSError, BadAnswer, ChildFailed, LoadFailed) as error:
        answer = {"fault": str(error) or type(error).__name__}
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
