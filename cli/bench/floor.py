"""The floor: what aiohttp and one LMDB commit cost when nothing else is done.

Room: a child process, `python -m cli.bench.floor --dir DIR --records N`, that serves two
routes on a free loopback port and prints its address when it is ready. `POST /records`
reads the body and commits it to LMDB with fsync before it answers; no token, no schema,
no signature, no index. `GET /records/{id}` answers a record rendered beforehand. It ends
when its standard input closes, and holds nothing that a node needs.

LMDB flushes twice a commit: the pages, then the meta page that makes them count. With
`CIVICNODE_BENCH_FLUSH_DELAY_MS` set, each of the two takes that much longer, in the
handler, where a slow disk would make it wait too.
"""

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import lmdb
from aiohttp import web

from cli.bench.process import DELAY_VARIABLE
from cli.bench.records import as_json, record_id, rendered

FLUSHES_PER_COMMIT = 2  # fdatasync of the data, then a synchronous write of the meta page
MAP_SIZE_BYTES = 16 * 1024**3

Handler = Callable[[web.Request], Awaitable[web.Response]]


def application(environment: lmdb.Environment, cached: dict[str, bytes], delay_s: float) -> web.Application:
    written = 0

    async def create(request: web.Request) -> web.Response:
        nonlocal written
        body = await request.read()
        written += 1
        with environment.begin(write=True) as transaction:
            transaction.put(written.to_bytes(8, "big"), body, append=True)
        if delay_s:
            time.sleep(FLUSHES_PER_COMMIT * delay_s)  # noqa: ASYNC251 - a flush blocks like this
        answer = as_json({"message": "Instance created successfully", "instance_id": record_id(written)})
        return web.Response(body=answer, status=201, content_type="application/json")

    async def read(request: web.Request) -> web.Response:
        body = cached.get(request.match_info["id"])
        if body is None:
            return web.Response(status=404)
        return web.Response(body=body, content_type="application/json")

    app = web.Application()
    app.router.add_post("/records", create)
    app.router.add_get("/records/{id}", read)
    return app


async def serve(directory: Path, record_count: int, delay_s: float) -> None:
    environment = lmdb.open(str(directory), map_size=MAP_SIZE_BYTES, writemap=False)
    runner = web.AppRunner(application(environment, rendered(record_count), delay_s), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        sys.stdout.write(f"ready at http://127.0.0.1:{runner.addresses[0][1]}\n")
        sys.stdout.flush()
        closed = asyncio.Event()
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), closed.set)
        await closed.wait()
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
    finally:
        await runner.cleanup()
        environment.close()


def main() -> int:
    parser = argparse.ArgumentParser(description="The floor of a measurement; started by `civicnode bench`.")
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--records", type=int, default=0)
    options = parser.parse_args()
    delay_s = float(os.environ.get(DELAY_VARIABLE) or 0) / 1000
    asyncio.run(serve(options.dir, options.records, delay_s))
    return 0


if __name__ == "__main__":
    sys.exit(main())
