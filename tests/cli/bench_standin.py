"""A stand-in for a node, for the tests of the benchmark alone.

It serves just the routes the benchmark asks, over one SQLite file, with no signature and
no rule. A first argument `--fault=NAME` makes it misbehave in one way.
"""

import asyncio
import os
import signal
import sqlite3
import sys
import time
from pathlib import Path

from aiohttp import web

from cli.bench.records import GRAPHQL_PER_PAGE, MODEL, definition

FIELDS = ["title", "summary", "district", "status", "votes", "cost", "urgent", "due"]
TABLE = "m_bench_0badcafe"


class StandIn:
    """All of it: the store, the counters and the routes."""

    def __init__(self, data_dir: Path, delay_s: float, fault: str) -> None:
        self._delay_s = delay_s
        self._fault = fault
        self._commits = self._bodies = 0
        self._stopped = asyncio.Event()
        self._database = sqlite3.connect(data_dir / "index.sqlite", isolation_level=None)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = OFF")  # a busy disk must not decide a test
        row = self._database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        self._count = 0
        if row[0]:
            self._count = self._database.execute(f"SELECT count(*) FROM {TABLE}").fetchone()[0]

    def application(self) -> web.Application:
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_get("/health", self.health)
        app.router.add_get("/metrics", self.metrics)
        app.router.add_post("/v1/data-models", self.define)
        app.router.add_post("/v1/batch", self.batch)
        app.router.add_post("/v1/graphql", self.graphql)
        app.router.add_post("/v1/data/{model}", self.create)
        app.router.add_post("/v1/data/{model}/aggregate", self.aggregate)
        app.router.add_get("/v1/data/{model}", self.find)
        app.router.add_get("/v1/data/{model}/{id}", self.read)
        return app

    async def health(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "healthy"})

    async def metrics(self, request: web.Request) -> web.Response:
        lines = [
            "# TYPE civicnode_commits counter",
            f'civicnode_commits_total{{space="default"}} {float(self._commits)}',
            f"civicnode_bodies_total {float(self._bodies)}",
            f"civicnode_flushes_total {float(2 * self._commits)}",
        ]
        if self._fault == "no-metrics":
            lines = []
        return web.Response(text="\n".join(lines) + "\n")

    async def define(self, request: web.Request) -> web.Response:
        assert (await request.json())["name"] == definition()["name"] == MODEL
        columns = ", ".join(f'"{name}"' for name in FIELDS)
        self._database.execute(f"CREATE TABLE {TABLE} (id TEXT PRIMARY KEY, created_at, {columns})")
        self._database.execute(f"CREATE INDEX by_district ON {TABLE} (district)")
        return web.json_response({"model_id": TABLE}, status=201)

    async def create(self, request: web.Request) -> web.Response:
        if self._fault == "rate-limit":
            return web.json_response({"error": "Rate limit exceeded"}, status=429)
        [found] = self._insert([await request.json()])
        return web.json_response({"message": "created", "instance_id": found}, status=201)

    async def batch(self, request: web.Request) -> web.Response:
        body = await request.json()
        assert body["atomic"] is False
        operations = body["operations"]
        assert all(one["method"] == "POST" and one["path"] == f"/data/{MODEL}" for one in operations)
        if self._fault == "lost-write":
            operations = operations[1:]
        ids = self._insert([one["body"] for one in operations])
        return web.json_response({"results": [{"status": 201, "body": {"instance_id": one}} for one in ids]})

    async def read(self, request: web.Request) -> web.Response:
        row = self._database.execute(
            f"SELECT * FROM {TABLE} WHERE id = ?", (request.match_info["id"],)
        ).fetchone()
        return web.json_response(_record(row)) if row else web.Response(status=404)

    async def graphql(self, request: web.Request) -> web.Response:
        page = (await request.json())["variables"]["page"]
        rows = self._database.execute(
            f"SELECT * FROM {TABLE} ORDER BY due ASC, id LIMIT ? OFFSET ?",
            [GRAPHQL_PER_PAGE, (page - 1) * GRAPHQL_PER_PAGE],
        ).fetchall()
        return web.json_response({"data": {"page": [_record(row) for row in rows]}})

    async def find(self, request: web.Request) -> web.Response:
        asked = request.query
        size, page = int(asked.get("per_page", "20")), int(asked.get("page", "1"))
        where, values = _where(asked["filter"]) if "filter" in asked else ("1", [])
        sort = asked.get("sort", "created_at")
        assert sort in ["created_at", *FIELDS]
        direction = "ASC" if asked.get("order") == "asc" else "DESC"
        rows = self._database.execute(
            f"SELECT * FROM {TABLE} WHERE {where} ORDER BY {sort} {direction}, id {direction} LIMIT ? OFFSET ?",
            [*values, size, (page - 1) * size],
        ).fetchall()
        [total] = self._database.execute(f"SELECT count(*) FROM {TABLE} WHERE {where}", values).fetchone()
        total += self._fault == "wrong-total" and "filter" in asked
        return web.json_response({"items": [_record(row) for row in rows], "total": total})

    async def aggregate(self, request: web.Request) -> web.Response:
        asked = await request.json()
        names = [
            *asked["group_by"],
            *(f"{one['operation']}({one['field']})" for one in asked["aggregations"]),
        ]
        where, values = _where(asked["filter"])
        by = f"GROUP BY {asked['group_by'][0]}" if asked["group_by"] else ""
        text = f"SELECT {', '.join(names)} FROM {TABLE} WHERE {where} {by}"
        rows = self._database.execute(text, values).fetchall()
        return web.json_response([dict(zip(names, row, strict=True)) for row in rows])

    async def serve(self, data_dir: Path) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stopped.set)
        (data_dir / "owner.token").write_text("stand-in\n")
        runner = web.AppRunner(self.application(), access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        address = f"http://127.0.0.1:{runner.addresses[0][1]}"
        sys.stdout.write(f"a line before it\ncivicnode is ready at {address}\n")
        sys.stdout.flush()
        await self._stopped.wait()
        await runner.cleanup()
        self._database.close()

    def _insert(self, bodies: list[dict[str, object]]) -> list[str]:
        self._database.execute("BEGIN")
        ids: list[str] = []
        for body in bodies:
            self._count += 1
            ids.append(f"{self._count:026d}")
            values = [ids[-1], self._count, *(body[name] for name in FIELDS)]
            self._database.execute(f"INSERT INTO {TABLE} VALUES ({', '.join('?' * len(values))})", values)
        self._database.execute("COMMIT")
        self._commits += 1
        self._bodies += len(bodies)
        if self._fault != "no-delay":
            time.sleep(2 * self._delay_s)
        return ids


def _where(filter: str) -> tuple[str, list[object]]:
    field, operator, value = filter.split(":")
    assert field in FIELDS
    return f"{field} {'=' if operator == 'eq' else '<'} ?", [int(value) if field == "votes" else value]


def _record(row: tuple[object, ...]) -> dict[str, object]:
    return dict(zip(["id", "created_at", *FIELDS], row, strict=True))


def main(arguments: list[str]) -> int:
    fault = arguments.pop(0).removeprefix("--fault=") if arguments[0].startswith("--fault=") else ""
    if arguments == ["status", "--help"]:
        sys.stdout.write("Usage: civicnode status [OPTIONS]\n")
        return 0
    assert arguments[0] == "start" and arguments[-1] == "--no-mdns"
    assert "CIVICNODE_API" not in os.environ and "JWT_SECRET" not in os.environ
    if fault == "no-start":
        sys.stderr.write("Error: the data directory was written by a newer release\n")
        return 1
    data_dir = Path(arguments[arguments.index("--data-dir") + 1])
    delay_s = float(os.environ.get("CIVICNODE_BENCH_FLUSH_DELAY_MS", "0")) / 1000

    async def serve() -> None:
        await StandIn(data_dir, delay_s, fault).serve(data_dir)

    asyncio.run(serve())
    return 7 if fault == "unclean-stop" else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
