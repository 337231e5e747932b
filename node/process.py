"""A node as a process of its own: how its interpreter is set, signals, and starting again in place.

Room: what there is once a process, around one `daemon.Node` after the other. What a node is made of is the daemon's.
"""

import asyncio
import gc
import os
import selectors
import signal
import sys
from dataclasses import replace
from functools import partial
from typing import Any

from node.daemon import NewLife, Node
from node.listening import CannotListen
from node.pace import Pace
from node.services.owner import OwnerTokenDamaged
from node.services.plugins import PluginsFault
from node.settings import Settings
from storage.errors import StorageError

# One busy Python thread makes every request wait for its turn: at the default of 5 ms a read took 5.2 ms
# beside a busy writer, at 0.2 ms it takes 0.36 ms, and throughput stays the same (measured on two cores).
SWITCH_INTERVAL_S = 0.000_2
# A full collection stops every thread, for 80 ms in the middle of an import (measured). What dies here dies
# by its reference count; cycles are rare and young, so old objects are looked at seldom. Young ones are looked at
# once, whatever their number: few at a time, since no request is answered meanwhile (20,000 take 4 to 10 ms).
GC_THRESHOLDS = (2_000, 200, 500)


class StartFailed(Exception):
    """The node cannot start. The message is one line that says why and what to do."""


def run(settings: Settings) -> int:
    """Run a node until SIGINT or SIGTERM. Returns the exit status. Raises `StartFailed`."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.set_threshold(*GC_THRESHOLDS)
    os.umask(0o077)  # whatever a library makes beside our files is for the owner's eyes too
    try:
        selector = selectors.DefaultSelector()
        with asyncio.Runner(loop_factory=partial(asyncio.SelectorEventLoop, selector)) as runner:
            return runner.run(_serve(settings, Pace(getattr(selector, "fileno", lambda: None)())))
    except (StorageError, CannotListen, OwnerTokenDamaged, PluginsFault) as error:
        raise StartFailed(str(error)) from error
    except OSError as error:
        raise StartFailed(f"{error.filename or settings.data_dir}: {error.strerror or error}") from error


async def _serve(settings: Settings, pace: Pace) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    node = Node(settings, pace=pace)
    await node.start()
    gc.freeze()  # modules and routes live as long as the process
    sys.stdout.write(f"civicnode is ready: {node.url}\n")  # the one line that callers wait for
    sys.stdout.flush()
    while True:
        assert node.record is not None and node.renewal is not None
        if node.record.new_life:
            node.log.warning("going on as a new author: %s", node.record.new_life)
        stopped: asyncio.Future[Any] = loop.create_task(stopping.wait())
        either: list[asyncio.Future[Any]] = [stopped, node.renewal]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if stopping.is_set():
            node.log.info("stopping")
            await node.stop()
            return 0
        node = await renewed(node)


async def renewed(node: Node) -> Node:
    """The node that is in the directory now, on the same addresses. Whoever asks the API meanwhile waits."""
    assert node.renewal is not None and node.server.listening is not None
    new_life = NewLife(node.renewal.result(), node.server.keep_sockets())
    settings = replace(node.settings, api=node.server.listening.address, listen=node.network.listening)
    await node.stop()
    renewed = Node(settings, node.world, new_life, node.pace)
    await renewed.start()
    return renewed
