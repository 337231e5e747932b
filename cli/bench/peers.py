"""One round of synchronisation: real nodes of one network over TLS on loopback.

Room: the order of things, as `rounds` has it for one node. Once for all rounds, three nodes write in turn, every one
of them linked with the other two; each round then works on copies of what they hold, so that all rounds see the
same. Where a link has to be cut, or counted from outside, it goes through `cli.wire`.

A node on a copy goes on as a new author, as it should; nothing that is measured depends on that.
"""

import contextlib
import json
import random
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cli.bench import echo, live
from cli.bench.asking import Asking, Sizes
from cli.bench.errors import BenchError, ChildFailed, LoadFailed
from cli.bench.figures import Ledger, Sample, Spread
from cli.bench.network import make_network
from cli.bench.process import START_MAX_S, Workspace
from cli.bench.records import MODEL, SEED, Record, canonical_bytes, records
from cli.bench.servers import Node, node_running
from cli.bench.windows import Weights, weigh
from cli.wire import Wire, wire_to
from storage.errors import StorageError

SYNC_MAX_S = 60.0
AUTHORS = 3
OLD = 500  # writes: more than a second
# The handshake takes one round trip of TLS and two of its own; what a link says first travels with its last word.
HANDSHAKE_FLIGHTS = 6
_FLEETING = ("lock", "lock.mdb", "run.json")  # of a running node

_EVERYTHING = ("catch_up", "catch_up_bytes", "catch_up_plain", "catch_up_deflated", "resync", "resync_bytes",
               "in_sync", "in_sync_bytes", "in_sync_turns", "get_p99_catch_up", "get_p99_serving",
               "live_p50", "live_p99", "live_whole")  # fmt: skip
_LINKS = ("resync", "resync_bytes", "in_sync", "in_sync_bytes", "in_sync_turns")
_LIVE = ("live_p50", "live_p99", "live_whole")


@dataclass(frozen=True, slots=True)
class Written:
    """What three nodes have written, and where it lies. `part` holds the model and the first of the records."""

    first: Path
    second: Path
    empty: Path
    part: Path
    ids: list[str]
    ids_in_part: list[str]
    count: int  # records written, updates included
    count_in_part: int
    canonical_bytes: float  # of these
    weights: Weights


class Peers(Asking):
    """Measures round after round into a `Ledger`. Every method blocks."""

    def __init__(
        self,
        workspace: Workspace,
        ledger: Ledger,
        *,
        command: Sequence[str],
        sizes: Sizes,
        say: Callable[[str], None],
    ) -> None:
        super().__init__(workspace, ledger, command=command, sizes=sizes)
        self._say = say
        self._written: Written | None = None
        self._own: list[list[str]] = [[] for _ in range(AUTHORS)]  # ids of records that each node has created

    def prepare(self) -> None:
        """Write the records on three nodes, once for all rounds."""
        self._begin()
        with self._guarded(*_EVERYTHING):
            self._say(f"writing {self._sizes.written:,} records on {AUTHORS} nodes in turn")
            self._written = self._write()

    def run(self, name: str) -> None:
        """One whole round, `name` in front of what is said meanwhile."""
        self._begin()
        self._say(f"{name}: peers, import")
        with self._guarded("sync_import"):
            self._import()
        written = self._written
        if written is None:
            return
        with self._guarded(*_EVERYTHING):
            bare = self._bare_tls()
            with self._copy(written.first) as first, self._running(first) as source:
                self._say(f"{name}: peers, catch-up")
                self._greet(written, source)
                with self._guarded("catch_up", "catch_up_bytes", *_LINKS):
                    self._catch_up(written, source, bare)
                for key, reads_source in (("get_p99_catch_up", False), ("get_p99_serving", True)):
                    with self._guarded(key):
                        self._gets_beside(key, written, source, reads_source=reads_source)
                self._say(f"{name}: peers, live")
                with self._guarded(*_LIVE):
                    self._live(written, source, bare)
        for key, size in (
            ("catch_up_plain", written.weights.plain),
            ("catch_up_deflated", written.weights.deflated),
        ):
            self._ledger.add(key, Sample(size / 1000, written.canonical_bytes / 1000))

    # What all rounds work on

    def _write(self) -> Written:
        parent = self._workspace.directory("network")
        names = ["first", "second", "third", "empty", "part"]
        paths = {name: parent / name for name in names}
        try:
            make_network(paths["first"], [paths[name] for name in names[1:]])
        except StorageError as error:
            raise BenchError(str(error)) from error
        total = self._sizes.written
        with contextlib.ExitStack() as running:
            nodes: list[Node] = []
            for name in names[:AUTHORS]:
                peers = [node.peer_port for node in nodes]
                nodes.append(running.enter_context(self._running(paths[name], peers=peers)))
            nodes[0].define_model()
            for node in nodes:
                sync(node)
            ids: list[str] = []
            chance = random.Random(SEED)
            with self._running(paths["part"], peers=[nodes[0].peer_port]) as part:
                number_in_part = total // 20
                for number, record in enumerate(records(number_in_part)):
                    self._write_one(nodes[number % AUTHORS], number, record, ids, chance)
                for node in [*nodes, part]:
                    sync(node)
            ids_in_part = list(ids)
            later = list(records(total))[number_in_part:]
            for number, record in enumerate(later, number_in_part):
                self._write_one(nodes[number % AUTHORS], number, record, ids, chance)
            for node in nodes:
                sync(node)
                node.expect_total(len(ids))
        with self._copy(paths["first"]) as copy:
            weights = weigh(copy)
        size = canonical_bytes(records(total)) * total
        return Written(paths["first"], paths["second"], paths["empty"], paths["part"], ids, ids_in_part,
                       total, number_in_part, size, weights)  # fmt: skip

    def _write_one(
        self, node: Node, number: int, record: Record, ids: list[str], chance: random.Random
    ) -> None:
        """A create; but of the last four fifths every fourth is an update, of a record of any node if it is old.

        What is `OLD` writes old has long been everywhere; of what is newer a node may not have heard.
        """
        if number >= self._sizes.written // 5 and number % 4 == 3:
            known = ids[:-OLD] or self._own[number % AUTHORS]
            node.client.ask("PUT", f"/v1/data/{MODEL}/{chance.choice(known)}", record)
        else:
            answer = node.client.json("POST", f"/v1/data/{MODEL}", record, right=201)
            ids.append(answer["instance_id"])
            self._own[number % AUTHORS].append(answer["instance_id"])

    @contextlib.contextmanager
    def _copy(self, data_dir: Path) -> Iterator[Path]:
        copy = self._workspace.directory(data_dir.name)
        try:
            shutil.copytree(data_dir, copy, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*_FLEETING))
            yield copy
        finally:
            shutil.rmtree(copy, ignore_errors=True)

    @contextlib.contextmanager
    def _running(self, data_dir: Path, *, peers: Sequence[int] = ()) -> Iterator[Node]:
        with node_running(self._workspace, self._command, data_dir, peers=peers) as (node, _):
            node.wait_for_index()
            yield node

    def _greet(self, written: Written, source: Node) -> None:
        """Have had another peer before: the first link of a node's life reads the record from the beginning."""
        with self._copy(written.second) as second, self._running(second, peers=[source.peer_port]) as peer:
            sync(peer)

    # The limits

    def _import(self) -> None:
        data_dir = self._workspace.directory("import")
        try:
            with self._running(data_dir) as node:
                node.define_model()
                count = -(-self._sizes.written // self._sizes.call)
                calls = self._load(node.port, self._import_calls(node, count, seed=SEED), once=True)
                node.expect_total(count * self._sizes.call)
                self._add_import("sync_import", calls)
        finally:
            shutil.rmtree(data_dir, ignore_errors=True)

    def _bare_tls(self) -> echo.Outcome:
        sizes = self._sizes
        directory = self._workspace.directory("echo")
        with self._workspace.running("cli.bench.echo", "serve", str(directory)) as server:
            port = int(server.line_with("ready at", START_MAX_S).rsplit(" ", 1)[1])
            plan = echo.Plan(port, sizes.links, sizes.live_writes, sizes.live_every_ms)
            with self._workspace.running("cli.bench.echo", "ask") as asker:
                asker.say(json.dumps(asdict(plan)))
                return echo.Outcome(
                    **_answer(asker.line(60 + sizes.live_writes * sizes.live_every_ms / 1000))
                )

    # An empty node, and a link that is cut

    def _catch_up(self, written: Written, source: Node, bare: echo.Outcome) -> None:
        with (
            wire_to(source.peer_port, is_cut=True) as wire,
            self._copy(written.empty) as empty,
            self._running(empty, peers=[wire.port]) as node,
        ):
            wire.restore()
            taken_s = sync(node)
            node.expect_total(len(written.ids))
            imported = self._ledger.last("sync_import")
            rate = written.count / taken_s
            self._ledger.add("catch_up", Sample(rate, imported.value if imported else None))
            link = link_of(node)
            size = link["bytes_in"] + link["bytes_out"]
            self._ledger.add("catch_up_bytes", Sample(size / 1000, written.canonical_bytes / 1000))
            with self._guarded("resync", "resync_bytes"):
                self._resyncs(written, source, node, wire, bare)
            with self._guarded("in_sync", "in_sync_bytes", "in_sync_turns"):
                self._in_sync_checks(source, node, wire, bare)

    def _resyncs(self, written: Written, source: Node, node: Node, wire: Wire, bare: echo.Outcome) -> None:
        """Records change on one side while the link is cut."""
        taken_ms: list[float] = []
        sizes: list[float] = []
        canonical = 0.0
        chance = random.Random(SEED)
        for turn in range(self._sizes.links):
            with cut(wire, source, node):
                changes = list(records(self._sizes.changed, seed=SEED + 10 + turn))
                changed = chance.sample(written.ids, len(changes))
                for found, record in zip(changed, changes, strict=True):
                    source.client.ask("PUT", f"/v1/data/{MODEL}/{found}", record)
                canonical = canonical_bytes(changes) * len(changes)
                before = wire.carried
            taken_ms.append(sync(node) * 1000)
            sizes.append(wire.carried.since(before).bytes)
            for found, record in zip(changed, changes, strict=True):
                held = node.client.json("GET", f"/v1/data/{MODEL}/{found}")
                if held["title"] != record["title"]:
                    raise ChildFailed("in sync, and a record that changed is not there")
        self._ledger.add("resync", Sample(_median(taken_ms), bare.link_ms))
        self._ledger.add("resync_bytes", Sample(_median(sizes) / 1000, canonical / 1000))

    def _in_sync_checks(self, source: Node, node: Node, wire: Wire, bare: echo.Outcome) -> None:
        """Nothing changes while the link is cut."""
        taken_ms: list[float] = []
        sizes: list[float] = []
        turns: list[float] = []
        for _ in range(self._sizes.links):
            with cut(wire, source, node):
                before = wire.carried
            taken_ms.append(sync(node) * 1000)
            await_in_sync(source)  # one side knows half a round trip before the other
            link = link_of(node)
            sizes.append(link["bytes_in"] + link["bytes_out"] - link["handshake_bytes"])
            turns.append((wire.carried.since(before).flights - HANDSHAKE_FLIGHTS) / 2)
        self._ledger.add("in_sync", Sample(_median(taken_ms), bare.link_ms))
        self._ledger.add("in_sync_bytes", Sample(max(sizes)))
        self._ledger.add("in_sync_turns", Sample(max(turns)))

    # Reads meanwhile

    def _gets_beside(self, key: str, written: Written, source: Node, *, reads_source: bool) -> None:
        """GETs by timetable while a node that holds a twentieth gets the rest."""
        with (
            wire_to(source.peer_port, is_cut=True) as wire,
            self._copy(written.part) as part,
            self._running(part, peers=[wire.port]) as node,
        ):
            node.expect_total(len(written.ids_in_part))
            asked = source if reads_source else node
            idle = self._idle_gets(asked, written.ids_in_part)
            with self._gets_meanwhile(asked, written.ids_in_part) as reading:
                wire.restore()
                sync(node)
            busy = reading.outcome()
            node.expect_total(len(written.ids))
        sample = Sample(busy.p99_ms, idle.p99_ms, None, busy.p50_ms, busy.p99_ms, busy.core_share)
        self._ledger.add(key, sample)

    # A write on one node, heard on another

    def _live(self, written: Written, source: Node, bare: echo.Outcome) -> None:
        sizes = self._sizes
        with self._copy(written.second) as second, self._running(second, peers=[source.peer_port]) as node:
            sync(node)
            plan = live.Plan(
                writer_port=source.port,
                writer_token=source.token,
                listener_port=node.port,
                listener_token=node.token,
                ids=random.Random(SEED).sample(written.ids, min(sizes.live_writes, len(written.ids))),
                writes=sizes.live_writes,
                every_ms=sizes.live_every_ms,
            )
            with self._workspace.running("cli.bench.live") as child:
                child.say(json.dumps(asdict(plan)))
                first = child.line(START_MAX_S)
                if first != "ready":
                    _answer(first)
                child.say("go")
                limit_s = 2 * live.HEARD_MAX_S + sizes.live_writes * sizes.live_every_ms / 1000
                seen = live.Outcome(**_answer(child.line(limit_s)))
        for key, value, other in (
            ("live_p50", seen.p50_ms, bare.p50_ms),
            ("live_p99", seen.p99_ms, bare.p99_ms),
        ):
            self._ledger.add(key, Sample(value, other, None, seen.p50_ms, seen.p99_ms, seen.core_share))
        whole = Sample(seen.whole_p50_ms, bare.p50_ms, None, seen.whole_p50_ms, seen.whole_p99_ms)
        self._ledger.add("live_whole", whole)


def sync(node: Node) -> float:
    """Have a node dial its peers; seconds until it says that both hold the same."""
    began = time.perf_counter()
    node.client.ask("POST", f"/v1/sync?timeout_ms={SYNC_MAX_S * 1000:.0f}")
    taken_s = time.perf_counter() - began
    if not node.client.json("GET", "/v1/sync/status")["in_sync"]:
        raise ChildFailed(f"a node is not in sync with its peers after {taken_s:.1f} s")
    return taken_s


def await_in_sync(node: Node) -> None:
    """Wait until a node knows that it is in sync, without having it ask."""
    ends_at = time.perf_counter() + SYNC_MAX_S
    while not node.client.json("GET", "/v1/sync/status")["in_sync"]:
        if time.perf_counter() > ends_at:
            raise ChildFailed(f"a node is not in sync with its peers after {SYNC_MAX_S} s")
        time.sleep(0.001)


def link_of(node: Node) -> dict[str, Any]:
    """The one link of a node, as the node tells of it."""
    links = [link for link in node.client.json("GET", "/v1/sync/status")["peers"] if link["state"] == "live"]
    if len(links) != 1:
        raise ChildFailed(f"a node tells of {len(links)} links where there is one")
    found: dict[str, Any] = links[0]
    return found


@contextlib.contextmanager
def cut(wire: Wire, *nodes: Node) -> Iterator[None]:
    """The wire is cut, and the nodes at its ends have noticed."""
    wire.cut()
    until = time.perf_counter() + SYNC_MAX_S
    for node in nodes:
        while any(peer["state"] == "live" for peer in node.client.json("GET", "/v1/sync/status")["peers"]):
            if time.perf_counter() > until:
                raise ChildFailed("a node keeps a link that was cut")
            time.sleep(0.005)
    yield
    wire.restore()


def _answer(line: str) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = json.loads(line)
    except ValueError:
        raise LoadFailed(f"a child said {line[:200]!r}") from None
    if "fault" in answer:
        raise LoadFailed(answer["fault"])
    return answer


def _median(values: list[float]) -> float:
    spread = Spread.of(values)
    assert spread is not None
    return spread.median
