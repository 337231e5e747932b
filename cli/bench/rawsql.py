"""The same questions put to SQLite directly: the floor under every list.

Room: a node's index, opened read-only while the node runs, and each question as one or two
statements over it, with no HTTP, no token and no rendering: what someone would write who has only
that to ask. Of a page it asks for the ids alone, and for the total only where the question does. As a child process,
`python -m cli.bench.rawsql FILE`, it reads the questions and for how long as one line of JSON, and asks one after the
other; `turns` asks them and a node in turns.
"""

import gc
import json
import sqlite3
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cli.bench.errors import ChildFailed, LoadFailed
from cli.bench.load import percentile
from cli.bench.records import MODEL, PER_PAGE, Grouping, Question, definition

_HEAD = b"SQLite format 3\x00"
_CACHE_KIB = 65_536
_SIGNS = {"eq": "=", "lt": "<"}

Statement = tuple[str, tuple[str | int, ...]]


@dataclass(frozen=True, slots=True)
class RawOutcome:
    measured: int
    per_second: float
    p50_ms: float
    p99_ms: float


def find_index(data_dir: Path) -> Path:
    """The SQLite file of a data directory; the largest, should there be several."""
    found: list[tuple[int, Path]] = []
    for path in data_dir.rglob("*"):
        if path.is_file() and path.stat().st_size > len(_HEAD):
            with path.open("rb") as file:
                if file.read(len(_HEAD)) == _HEAD:
                    found.append((path.stat().st_size, path))
    if not found:
        raise ChildFailed(f"no SQLite file under {data_dir}")
    return max(found)[1]


class RawIndex:
    """Read-only statements over one model's table, whatever its columns are called exactly."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
        self._connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        try:
            self._table, self._columns = self._find_table()
        except BaseException:
            self._connection.close()
            raise

    def statement(self, question: Question) -> Statement:
        direction = "DESC" if question.descending else "ASC"
        text = (
            f"SELECT id FROM {_quoted(self._table)} WHERE {self._condition(question)} "
            f"ORDER BY {self._column(question.sort)} {direction}, id {direction} LIMIT ? OFFSET ?"
        )
        return text, (question.value, PER_PAGE, (question.page - 1) * PER_PAGE)

    def count(self, question: Question) -> Statement:
        text = f"SELECT count(*) FROM {_quoted(self._table)} WHERE {self._condition(question)}"
        return text, (question.value,)

    def grouping(self, grouping: Grouping) -> Statement:
        groups = list(map(self._column, grouping.group_by))
        figures = [f"{function}({self._column(field)})" for function, field in grouping.figures]
        by = f" GROUP BY {', '.join(groups)} ORDER BY {', '.join(groups)}" if groups else ""
        text = (
            f"SELECT {', '.join([*groups, *figures])} FROM {_quoted(self._table)} "
            f"WHERE {self._column(grouping.field)} < ?{by}"
        )
        return text, (grouping.value,)

    def run(self, statement: Statement) -> list[tuple[Any, ...]]:
        return self._connection.execute(*statement).fetchall()

    def page(self, question: Question) -> list[str]:
        """The ids of one page, in order."""
        return [row[0] for row in self.run(self.statement(question))]

    def _column(self, field: str) -> str:
        return "id" if field == "id" else _quoted(self._columns[field])

    def _condition(self, question: Question) -> str:
        return f"{self._column(question.field)} {_SIGNS[question.operator]} ?"

    def measure(self, asked: Sequence[Question], *, warmup_s: float, seconds: float) -> RawOutcome:
        """Ask one question after another, and over again, for `seconds` after the warm-up."""
        statements = [self.statement(question) for question in asked]
        execute, clock = self._connection.execute, time.perf_counter
        latencies: list[float] = []
        started = clock()
        measure_from, end_at = started + warmup_s, started + warmup_s + seconds
        number = 0
        while (before := clock()) < end_at:
            text, values = statements[number % len(statements)]
            number += 1
            if len(execute(text, values).fetchall()) != PER_PAGE:
                raise LoadFailed(f"a page that is not full: {text} {values}")
            if before >= measure_from:
                latencies.append(clock() - before)
        taken_s = clock() - measure_from
        ordered = sorted(latencies)
        return RawOutcome(
            measured=len(ordered),
            per_second=len(ordered) / taken_s,
            p50_ms=percentile(ordered, 0.50) * 1000,
            p99_ms=percentile(ordered, 0.99) * 1000,
        )

    def close(self) -> None:
        self._connection.close()

    def _find_table(self) -> tuple[str, dict[str, str]]:
        """The table whose columns are the model's fields, and the column of each field."""
        fields = definition()["fields"]
        assert isinstance(fields, list)
        names = [str(item["name"]) for item in fields]
        tables = self._connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
        for (table,) in tables:
            columns = [row[1] for row in self._connection.execute(f"PRAGMA table_info({_quoted(table)})")]
            by_field = {name: column for name in names for column in columns if _holds(column, name)}
            if len(by_field) == len(names) and "id" in columns:
                return table, by_field
        raise ChildFailed(f"no table of the index has the fields of {MODEL}")


def _holds(column: str, name: str) -> bool:
    return column == name or column.endswith(f"_{name}")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def main() -> int:
    """The child's side."""
    plan = json.loads(sys.stdin.readline())
    try:
        asked = [Question(**question) for question in plan["questions"]]
        index = RawIndex(Path(sys.argv[1]))
        gc.disable()
        answer = asdict(index.measure(asked, warmup_s=plan["warmup_s"], seconds=plan["seconds"]))
        index.close()
    except (sqlite3.Error, ChildFailed, LoadFailed) as error:
        answer = {"fault": f"raw SQL: {error}"}
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
