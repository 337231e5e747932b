"""What TLS costs between two processes when nothing else is done: the limit of everything between peers.

Room: two child processes over bare asyncio and the TLS of links. `python -m cli.bench.echo serve DIR` prints its port
and sends back what it is sent, until its standard input closes. `python -m cli.bench.echo ask` reads a `Plan` as one
line of JSON and prints an `Outcome`: how long a link takes until its first answer, and a round trip on it.
"""

import asyncio
import gc
import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

from cli.bench.load import percentile
from node.net.tls import answering_context, calling_context

MESSAGE_BYTES = 400  # about what a change of one field takes on a link
ANSWER_MAX_S = 30.0


@dataclass(frozen=True, slots=True)
class Plan:
    """`links` are made one after the other; on one more, a message goes out every so often."""

    port: int
    links: int
    messages: int
    every_ms: float


@dataclass(frozen=True, slots=True)
class Outcome:
    link_ms: float  # median: connect, TLS, a message and its echo
    p50_ms: float  # of a message and its echo
    p99_ms: float


class _Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)


class _Asker(asyncio.Protocol):
    def __init__(self) -> None:
        self._missing = 0
        self._echoed: asyncio.Future[float] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def ask(self, message: bytes) -> "asyncio.Future[float]":
        """When its echo was whole."""
        self._missing = len(message)
        self._echoed = asyncio.get_running_loop().create_future()
        self._transport.write(message)
        return self._echoed

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        self._missing -= len(data)
        if self._missing <= 0 and self._echoed is not None and not self._echoed.done():
            self._echoed.set_result(now)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._echoed is not None and not self._echoed.done():
            self._echoed.set_exception(exc if isinstance(exc, OSError) else ConnectionResetError())

    def close(self) -> None:
        self._transport.close()


async def ask(plan: Plan) -> Outcome:
    loop, context, message = asyncio.get_running_loop(), calling_context(), bytes(MESSAGE_BYTES)

    async def link() -> _Asker:
        _, asker = await loop.create_connection(_Asker, "127.0.0.1", plan.port, ssl=context)
        return asker

    links_ms: list[float] = []
    for _ in range(plan.links):
        began = time.perf_counter()
        asker = await link()
        links_ms.append((await asker.ask(message) - began) * 1000)
        asker.close()
    asker = await link()
    taken_ms: list[float] = []
    due = time.perf_counter()
    for _ in range(plan.messages):
        due += plan.every_ms / 1000
        await asyncio.sleep(due - time.perf_counter())
        began = time.perf_counter()
        taken_ms.append((await asker.ask(message) - began) * 1000)
    asker.close()
    links_ms.sort()
    taken_ms.sort()
    return Outcome(percentile(links_ms, 0.5), percentile(taken_ms, 0.5), percentile(taken_ms, 0.99))


async def serve(directory: Path) -> None:
    context, _ = answering_context(directory, os.urandom)
    server = await asyncio.get_running_loop().create_server(_Echo, "127.0.0.1", 0, ssl=context)
    sys.stdout.write(f"ready at {server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    closed = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), closed.set)
    await closed.wait()
    asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
    server.close()


def main() -> int:
    if sys.argv[1] == "serve":
        asyncio.run(serve(Path(sys.argv[2])))
        return 0
    plan = Plan(**json.loads(sys.stdin.readline()))
    gc.collect()
    gc.disable()
    try:
        answer: dict[str, object] = asdict(asyncio.run(asyncio.wait_for(ask(plan), 60.0)))
    except (OSError, TimeoutError) as error:
        answer = {"fault": f"bare TLS: {error or type(error).__name__}"}
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
