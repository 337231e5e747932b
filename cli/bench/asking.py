"""What every kind of round does alike: fill a node, read from it, load it, and put down what went wrong.

Room: the requests of measurements and who sends them. In which order, and which figures come of it, is for
`rounds` and `peers`, which build on this.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cli.bench.errors import BenchError, LoadFailed
from cli.bench.figures import Ledger, Sample
from cli.bench.load import Outcome, Plan, write_requests
from cli.bench.process import Load, Workspace, run_load
from cli.bench.records import MODEL, as_json, records, request
from cli.bench.servers import Node

IMPORT_MAX_S = 300.0


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured. Times in seconds are the measured windows, without warm-up."""

    small: int = 10_000  # records in the store that is read and listed
    large: int = 100_000  # records in the store for start, disk and sorted queries
    call: int = 1_000  # operations in one batch call
    calls_beside_gets: int = 20
    pool: int = 10_000  # different records that creates go through
    questions: int = 8_000
    window_s: float = 1.5
    warmup_s: float = 0.3
    idle_s: float = 2.0
    gets_per_second: float = 400.0  # timetable of the GETs beside an import: 1/10 of a core or less
    help_runs: int = 3
    written: int = 10_000  # records written on three nodes in turn
    live_writes: int = 500
    live_every_ms: float = 10.0
    links: int = 5  # how often a link is cut and comes up again, for each question
    changed: int = 10  # records that change meanwhile

    @classmethod
    def quick(cls) -> "Sizes":
        """Enough to see that all of it works; the figures are no more than a hint."""
        return cls(
            small=4_000, large=20_000, calls_beside_gets=8, pool=4_000, questions=2_000,
            window_s=0.5, warmup_s=0.1, idle_s=0.5, help_runs=1, written=1_000, live_writes=100, links=3,
        )  # fmt: skip


class Asking:
    """A kind of round. Every method blocks."""

    def __init__(self, workspace: Workspace, ledger: Ledger, *, command: Sequence[str], sizes: Sizes) -> None:
        self._workspace = workspace
        self._ledger = ledger
        self._command = command
        self._sizes = sizes
        self._counts: dict[str, int] = {}

    def _begin(self) -> None:
        """A round begins: what it does not bring in from now on is missing."""
        self._counts = self._ledger.taken()

    @contextlib.contextmanager
    def _guarded(self, *keys: str) -> Iterator[None]:
        """Put down why figures are missing instead of ending the round."""
        try:
            yield
        except (BenchError, OSError, KeyError, ValueError) as error:
            self._ledger.fail(keys, str(error) or type(error).__name__, counts=self._counts)

    @contextlib.contextmanager
    def _requests(self, prepared: Iterable[bytes]) -> Iterator[Path]:
        path = self._workspace.file("requests")
        try:
            write_requests(path, prepared)
            yield path
        finally:
            path.unlink(missing_ok=True)

    def _load(
        self,
        port: int,
        prepared: list[bytes],
        *,
        connections: int = 1,
        seconds: float | None = None,
        once: bool = False,
        per_second: float | None = None,
        expect: int = 200,
    ) -> Outcome:
        window_s = IMPORT_MAX_S if once else seconds or self._sizes.window_s
        with self._requests(prepared) as path:
            plan = Plan(
                port=port,
                requests=str(path),
                connections=connections,
                seconds=window_s,
                warmup_s=self._sizes.warmup_s,
                once=once,
                per_second=per_second,
                expect=expect,
            )
            outcome = run_load(self._workspace, plan)
        if not outcome.measured:
            raise LoadFailed(f"no answer within the {window_s:g} s that were measured")
        return outcome

    def _idle_gets(self, node: Node, ids: list[str]) -> Outcome:
        """GETs by timetable while the node does nothing else."""
        gets, timetable = self._gets(node, ids), self._sizes.gets_per_second
        return self._load(node.port, gets, seconds=self._sizes.idle_s, per_second=timetable)

    @contextlib.contextmanager
    def _gets_meanwhile(self, node: Node, ids: list[str]) -> Iterator[Load]:
        """GETs by timetable for as long as the block takes; ask for the outcome after it."""
        with self._requests(self._gets(node, ids)) as path:
            reading = Load(
                self._workspace,
                Plan(
                    node.port,
                    str(path),
                    seconds=IMPORT_MAX_S,
                    warmup_s=0.0,
                    per_second=self._sizes.gets_per_second,
                ),
            )
            reading.go()
            try:
                yield reading
            finally:
                reading.stop()

    def _import_calls(self, node: Node, count: int, *, seed: int) -> list[bytes]:
        """`count` batch calls, each create by itself and acknowledged with its call."""
        size = self._sizes.call
        source = records(count * size, seed=seed)
        calls: list[bytes] = []
        for _ in range(count):
            operations = [
                {"method": "POST", "path": f"/data/{MODEL}", "body": next(source)} for _ in range(size)
            ]
            body = as_json({"atomic": False, "operations": operations})
            calls.append(request("POST", "/v1/batch", port=node.port, body=body, token=node.token))
        return calls

    def _gets(self, node: Node, ids: list[str]) -> list[bytes]:
        return [
            request("GET", f"/v1/data/{MODEL}/{found}", port=node.port, token=node.token) for found in ids
        ]

    def _add_import(self, key: str, calls: Outcome) -> None:
        rate = calls.per_second * self._sizes.call
        self._ledger.add(key, Sample(rate, None, None, calls.p50_ms, calls.p99_ms, calls.core_share))
