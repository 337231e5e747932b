"""One round: a node and the floors under it, measured a few seconds apart.

Room: the order of things. Which processes are started, what each is asked and which
sample that gives; how a load works is `load`'s business, what a figure means is
`figures`'. Each step is guarded by itself: when one cannot be measured its figures are
marked with the reason and the round goes on.
"""

import contextlib
import json
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cli.bench.asking import IMPORT_MAX_S, Asking, Sizes
from cli.bench.errors import ChildFailed, LoadFailed
from cli.bench.figures import Group, Ledger, Sample, net_share
from cli.bench.load import Outcome, Plan
from cli.bench.process import Load, Workspace
from cli.bench.rawsql import RawOutcome, find_index
from cli.bench.records import (
    MODEL,
    SEED,
    Question,
    as_json,
    canonical_bytes,
    graphql_page,
    questions,
    record_id,
    records,
    request,
    rest_page,
    third_by_index,
    third_by_scan,
    third_counted,
    third_grouped,
    third_in_order,
)
from cli.bench.servers import Node, floor_running, node_running, size_on_disk
from cli.bench.turns import Outcome as TurnsOutcome
from cli.bench.turns import Plan as TurnsPlan
from cli.bench.turns import Turn

HELP_MAX_S = 30.0
MANY = 32
THIRDS_ASKED = 120  # so many different ones, far more than a window sees
GRAPHQL_PAGES = 20
TURNS_MAX_S = 120.0

# The figures that one step brings in, and that are missing when it fails.
_CREATES = (
    "start_empty",
    "creates_c1",
    "creates_c32",
    "creates_per_commit",
    "flushes_per_commit",
    "disk_creates",
)
_READS = ("get_c1", "get_c32")
_PAGES = ("page_c1", "page_c32")
_IMPORTS = ("import_c1", "import_c2", "get_p99_import")
_LARGE_ONCE = ("import_large", "disk_import")
_QUERIES = (
    "query_large",
    "third_by_index",
    "third_by_scan",
    "third_in_order",
    "third_counted",
    "third_grouped",
    "graphql_page",
)
_LARGE = ("start_large", *_QUERIES)


class Rounds(Asking):
    """Measures round after round into a `Ledger`. Every method blocks."""

    def __init__(
        self,
        workspace: Workspace,
        ledger: Ledger,
        *,
        command: Sequence[str],
        sizes: Sizes,
        groups: frozenset[Group],
        say: Callable[[str], None],
        flush_delay_ms: float = 0,
    ) -> None:
        super().__init__(workspace, ledger, command=command, sizes=sizes)
        self._groups = groups
        self._say = say
        self._delay_ms = flush_delay_ms
        self._large: Path | None = None
        self._mean_bytes = canonical_bytes(records(min(sizes.pool, 10_000)))
        self._create_bodies = [as_json(record) for record in records(sizes.pool)]

    def prepare(self) -> None:
        """Import the large store, once for all rounds."""
        if not self._wants(Group.START, Group.QUERY, Group.DISK, Group.IMPORT):
            return
        self._begin()
        with self._guarded(*_LARGE_ONCE, *_LARGE):
            self._say(f"importing {self._sizes.large:,} records")
            data_dir = self._workspace.directory("large")
            with node_running(self._workspace, self._command, data_dir) as (node, _):
                node.define_model()
                calls = self._import_calls(node, self._sizes.large // self._sizes.call, seed=SEED)
                self._add_import("import_large", self._load(node.port, calls, once=True))
                node.expect_total(self._sizes.large)
            over = size_on_disk(data_dir) / (self._sizes.large * self._mean_bytes)
            self._ledger.add("disk_import", Sample(over))
            self._large = data_dir

    def run(self, name: str) -> None:
        """One whole round, `name` in front of what is said meanwhile."""
        self._begin()
        with floor_running(
            self._workspace, records=self._sizes.small, flush_delay_ms=self._delay_ms
        ) as floor:
            if self._wants(Group.CREATES, Group.START, Group.DISK):
                self._say(f"{name}: creates")
                self._creating_node(floor)
            if self._wants(Group.READS, Group.PAGES, Group.IMPORT):
                self._say(f"{name}: reads, pages and imports")
                self._reading_node(floor)
        if self._large is not None and self._wants(Group.START, Group.QUERY):
            self._say(f"{name}: {self._sizes.large:,} records")
            self._large_node(self._large)
        if self._wants(Group.HELP):
            self._say(f"{name}: help")
            with self._guarded("status_help"):
                self._ledger.add("status_help", Sample(self._help_seconds()))

    # A node that only takes creates

    def _creating_node(self, floor: int) -> None:
        data_dir = self._workspace.directory("creates")
        with self._guarded(*_CREATES):
            created = 0
            with self._node(data_dir) as (node, start_s):
                self._ledger.add("start_empty", Sample(start_s))
                if self._wants(Group.CREATES, Group.DISK):
                    node.define_model()
                    created = self._creates(node, floor)
            if created:
                self._ledger.add(
                    "disk_creates", Sample(size_on_disk(data_dir) / (created * self._mean_bytes))
                )
        shutil.rmtree(data_dir, ignore_errors=True)

    def _creates(self, node: Node, floor: int) -> int:
        """Creates at 1 and 32 connections beside the floor's; returns how many the node took."""
        for_floor = [request("POST", "/records", port=floor, body=body) for body in self._create_bodies]
        target = f"/v1/data/{MODEL}"
        for_node = [
            request("POST", target, port=node.port, body=body, token=node.token)
            for body in self._create_bodies
        ]
        at_first = before = after = node.metrics()
        created = 0
        for key, connections in (("creates_c1", 1), ("creates_c32", MANY)):
            early = self._half(floor, for_floor, connections=connections, expect=201)
            before = node.metrics()
            ours = self._load(node.port, for_node, connections=connections, expect=201)
            after = node.metrics()
            late = self._half(floor, for_floor, connections=connections, expect=201)
            if self._delay_ms and ours.p50_ms < self._delay_ms:
                raise LoadFailed(f"the node does not honour a flush delay of {self._delay_ms:g} ms")
            self._add_share(key, ours, (early, late), is_alone=connections == 1)
            created += ours.answered
        commits, bodies = "civicnode_commits_total", "civicnode_bodies_total"
        self._add_ratio("creates_per_commit", bodies, commits, before, after)
        self._add_ratio("flushes_per_commit", "civicnode_flushes_total", commits, at_first, after)
        return created

    def _add_ratio(
        self, key: str, over: str, under: str, before: dict[str, float], after: dict[str, float]
    ) -> None:
        missing = [name for name in (over, under) if name not in after]
        if missing:
            raise ChildFailed(f"/metrics does not show {', '.join(missing)}")
        count = after[under] - before.get(under, 0)
        if count <= 0:
            raise ChildFailed(f"{under} did not rise during the creates")
        self._ledger.add(key, Sample((after[over] - before.get(over, 0)) / count))

    # A node that is filled by batch calls, read, listed and filled again

    def _reading_node(self, floor: int) -> None:
        data_dir = self._workspace.directory("reads")
        with self._guarded(*_READS, *_PAGES, *_IMPORTS), self._node(data_dir) as (node, _):
            node.define_model()
            calls = self._import_calls(node, self._sizes.small // self._sizes.call, seed=SEED)
            first = self._load(node.port, calls, once=True)
            node.expect_total(self._sizes.small)
            self._add_import("import_c1", first)
            ids = node.ids(self._sizes.small)
            random.Random(SEED).shuffle(ids)
            with self._guarded(*_READS):
                self._reads(node, floor, ids)
            with self._guarded(*_PAGES):
                self._pages(node)
            if self._wants(Group.IMPORT):
                self._imports(node, ids)
        shutil.rmtree(data_dir, ignore_errors=True)

    def _reads(self, node: Node, floor: int, ids: list[str]) -> None:
        if not self._wants(Group.READS):
            return
        for_floor = [
            request("GET", f"/records/{record_id(number)}", port=floor, token=node.token)
            for number in random.Random(SEED).sample(range(self._sizes.small), self._sizes.small)
        ]
        for_node = self._gets(node, ids)
        for key, connections in (("get_c1", 1), ("get_c32", MANY)):
            early = self._half(floor, for_floor, connections=connections)
            ours = self._load(node.port, for_node, connections=connections)
            late = self._half(floor, for_floor, connections=connections)
            self._add_share(key, ours, (early, late), is_alone=connections == 1)

    def _pages(self, node: Node) -> None:
        if not self._wants(Group.PAGES):
            return
        asked = questions(self._sizes.questions, self._sizes.small)
        raw = self._raw(node, asked)
        wanted = self._listings(node, asked)
        for key, connections in (("page_c1", 1), ("page_c32", MANY)):
            ours = self._load(node.port, wanted, connections=connections)
            sample = Sample(ours.per_second, raw.per_second, None, ours.p50_ms, ours.p99_ms, ours.core_share)
            self._ledger.add(key, sample)

    def _imports(self, node: Node, ids: list[str]) -> None:
        held = node.total()
        count = self._sizes.small // self._sizes.call
        calls = self._import_calls(node, count, seed=SEED + 1)
        self._add_import("import_c2", self._load(node.port, calls, once=True, connections=2))
        idle = self._idle_gets(node, ids)
        beside = self._sizes.calls_beside_gets
        calls = self._import_calls(node, beside, seed=SEED + 2)
        busy = self._beside_import(node, calls, ids)
        sample = Sample(busy.p99_ms, idle.p99_ms, None, busy.p50_ms, busy.p99_ms, busy.core_share)
        self._ledger.add("get_p99_import", sample)
        node.expect_total(held + (count + beside) * self._sizes.call)

    def _beside_import(self, node: Node, calls: list[bytes], ids: list[str]) -> Outcome:
        """GETs by timetable from the first call of an import to its last answer."""
        with self._requests(calls) as path:
            plan = Plan(node.port, str(path), seconds=IMPORT_MAX_S, once=True)
            importing = Load(self._workspace, plan)
            with self._gets_meanwhile(node, ids) as reading:
                importing.go()
                importing.outcome()
        return reading.outcome()

    # A node on the large store

    def _large_node(self, data_dir: Path) -> None:
        with self._guarded(*_LARGE), self._node(data_dir) as (node, start_s):
            empty = self._ledger.last("start_empty")
            self._ledger.add("start_large", Sample(start_s, empty.value if empty else None))
            if self._wants(Group.QUERY):
                self._queries(node)

    def _queries(self, node: Node) -> None:
        """Lists and figures in turns with the same in raw SQL, and pages in GraphQL with the same over REST."""
        sizes, number = self._sizes, THIRDS_ASKED
        for key, asked in {
            "query_large": questions(sizes.questions, sizes.large, seed=SEED + 3),
            "third_by_index": third_by_index(number),
            "third_by_scan": third_by_scan(number),
            "third_in_order": third_in_order(number),
        }.items():
            listings = self._listings(node, asked)
            turns = [Turn(ask.decode(), page=page) for ask, page in zip(listings, asked, strict=True)]
            self._in_turns(key, node, turns)
        for key, groupings in (
            ("third_counted", third_counted(number)),
            ("third_grouped", third_grouped(number)),
        ):
            turns = [
                Turn(self._post(node, f"/v1/data/{MODEL}/aggregate", one.body()), grouping=one)
                for one in groupings
            ]
            self._in_turns(key, node, turns)
        turns = [
            Turn(
                self._post(node, "/v1/graphql", graphql_page(page)),
                other=request("GET", rest_page(page), port=node.port, token=node.token).decode(),
            )
            for page in range(1, GRAPHQL_PAGES + 1)
        ]
        self._in_turns("graphql_page", node, turns)

    def _in_turns(self, key: str, node: Node, turns: list[Turn]) -> None:
        sizes = self._sizes
        index = str(find_index(node.data_dir))
        plan = TurnsPlan(node.port, index, turns, seconds=sizes.window_s, warmup_s=sizes.warmup_s)
        with self._guarded(key):
            outcome = TurnsOutcome(**self._child("cli.bench.turns", (), asdict(plan), wait_s=TURNS_MAX_S))
            sample = Sample(outcome.p50_ms, outcome.other_p50_ms, None, outcome.p50_ms, outcome.p99_ms)
            self._ledger.add(key, sample)

    # What the steps share

    def _wants(self, *groups: Group) -> bool:
        return not self._groups.isdisjoint(groups)

    def _node(self, data_dir: Path) -> contextlib.AbstractContextManager[tuple[Node, float]]:
        return node_running(self._workspace, self._command, data_dir, flush_delay_ms=self._delay_ms)

    def _raw(self, node: Node, asked: list[Question]) -> RawOutcome:
        sizes = self._sizes
        plan = {"questions": list(map(asdict, asked)), "seconds": sizes.window_s, "warmup_s": sizes.warmup_s}
        wait_s = sizes.window_s + sizes.warmup_s + 30
        return RawOutcome(
            **self._child("cli.bench.rawsql", (str(find_index(node.data_dir)),), plan, wait_s=wait_s)
        )

    def _child(
        self, module: str, options: tuple[str, ...], plan: dict[str, Any], *, wait_s: float
    ) -> dict[str, Any]:
        """What a module finds out in a process of its own. Raises `LoadFailed` with its fault."""
        with self._workspace.running(module, *options) as child:
            child.say(json.dumps(plan))
            answer: dict[str, Any] = json.loads(child.line(wait_s))
        if "fault" in answer:
            raise LoadFailed(answer["fault"])
        return answer

    def _post(self, node: Node, target: str, body: object) -> str:
        return request("POST", target, port=node.port, body=as_json(body), token=node.token).decode()

    def _listings(self, node: Node, asked: list[Question]) -> list[bytes]:
        return [
            request("GET", f"/v1/data/{MODEL}?{question.query_string()}", port=node.port, token=node.token)
            for question in asked
        ]

    def _half(self, port: int, prepared: list[bytes], *, connections: int, expect: int = 200) -> Outcome:
        """The floor for half a window. It is measured before and after the node, in equal parts.

        A machine that speeds up or slows down meanwhile then moves both sides alike.
        """
        half_s = self._sizes.window_s / 2
        return self._load(port, prepared, connections=connections, seconds=half_s, expect=expect)

    def _add_share(self, key: str, ours: Outcome, halves: tuple[Outcome, Outcome], *, is_alone: bool) -> None:
        """A rate beside the floor's. The load's share of a core is the larger of both."""
        seconds = sum(half.seconds for half in halves)
        bare = sum(half.measured for half in halves) / seconds
        bare_cores = sum(half.core_share * half.seconds for half in halves) / seconds
        net = net_share((ours.per_second, ours.core_share), (bare, bare_cores)) if is_alone else None
        cores = max(ours.core_share, bare_cores)
        self._ledger.add(key, Sample(ours.per_second, bare, net, ours.p50_ms, ours.p99_ms, cores))

    def _help_seconds(self) -> float:
        """The middle one of a few runs of `status --help`."""
        taken: list[float] = []
        for _ in range(self._sizes.help_runs):
            before = time.perf_counter()
            try:
                ended = subprocess.run(
                    [*self._command, "status", "--help"],
                    capture_output=True,
                    timeout=HELP_MAX_S,
                    env=self._workspace.environment(),
                    check=False,
                )
            except subprocess.TimeoutExpired:
                raise ChildFailed(f"status --help took more than {HELP_MAX_S:.0f} s") from None
            taken.append(time.perf_counter() - before)
            if ended.returncode != 0:
                raise ChildFailed(f"status --help ended with {ended.returncode}")
        return sorted(taken)[len(taken) // 2]
