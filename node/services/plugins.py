"""The node's end of the process in which plugins live.

Room: starting it, starting it again when it dies or hangs, calls with a time limit, and doing what plugins ask of
the node in the midst of a call. What the calls are for is `business`'s and the routes'; who resolves conflicts is in
`plugin_strategies`. A plugin cannot stop the node: its process may die at any instruction.
"""

import asyncio
import logging
import os
import socket
import stat
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import cached_property
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from node.services.canary import child_environment
from node.services.plugin_frames import pack, unpack_from
from node.services.refusals import PluginFailed, PluginRefused, PluginUnavailable
from node.settings import ALIASES, PREFIX

START_TIMEOUT_S = 30.0  # a plugin may import much
CALL_TIMEOUT_S = 5.0
RESTART_EVERY_S = 1.0  # so that a plugin which dies at once costs a start a second at most
WAITING_MAX = 1_000  # calls under way

# Does what a plugin asks during a call: the verb and its arguments to something that JSON holds.
Answers = Callable[[str, Mapping[str, Any]], Awaitable[Any]]


class PluginsFault(Exception):
    """The directory of plugins cannot be used. The message is one line that says why and what to do."""


class Plugins:
    """`start` it before the API listens, `stop` it once. For one event loop."""

    def __init__(
        self,
        directory: Path | None,
        log: logging.Logger,
        *,
        call_timeout_s: float = CALL_TIMEOUT_S,
        module: str = "node.services.plugin_worker",
    ) -> None:
        self._directory = directory
        self._log = log
        self._call_timeout_s = call_timeout_s
        self._module = module
        self._process: Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._reviving: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self._next_start = 0.0
        self._calls = 0
        self._waiting: dict[int, tuple[asyncio.Future[Any], Answers | None]] = {}
        self._answering: set[asyncio.Task[None]] = set()
        self._is_stopped = False
        self.strategy_socket: socket.socket | None = None  # where `plugin_strategies` asks
        self.offer: dict[str, Any] = {}
        self.starts = 0

    @property
    def are_there(self) -> bool:
        """Whether any plugin is to be loaded."""
        return self._directory is not None or bool(entry_points(group="civicnode"))

    async def start(self) -> None:
        """Load the plugins, if there are any. Raises `PluginsFault`; a plugin that fails to load does not."""
        if not self.are_there:
            return
        if self._directory is not None:
            _check(self._directory)
        try:
            await self._started()
        except PluginUnavailable as error:
            raise PluginsFault(str(error)) from error
        for failed in self.offer["failed"]:
            self._log.error("a plugin is not loaded", extra={"data": failed})

    @cached_property
    def models(self) -> frozenset[str]:
        """The names of models that any validator or trigger is for."""
        return frozenset(one[0] for kind in ("validators", "triggers") for one in self.offer.get(kind, ()))

    def _offered(self, kind: str) -> set[tuple[str, ...]]:
        return {tuple(one) for one in self.offer.get(kind, ())}

    def concern(self, model: str, event: str) -> bool:
        """Whether any validator or trigger is to be called for this event (beforeCreate, afterUpdate …)."""
        if any(one == model and kind == event for one, kind, _ in self.offer.get("triggers", ())):
            return True
        is_validated = event in ("beforeCreate", "beforeUpdate")
        return is_validated and any(one == model for one, _ in self.offer.get("validators", ()))

    def has_query(self, model: str, name: str) -> bool:
        return (model, name) in self._offered("queries")

    def has_method(self, model: str, name: str) -> bool:
        return (model, name) in self._offered("methods")

    def strategy_named(self, name: str) -> str | None:
        """The full name, `name@hash`, of a plugin's strategy; None if there is none of that name."""
        return next((one for one in self.offer.get("strategies", ()) if one.partition("@")[0] == name), None)

    async def call(self, what: str, message: Mapping[str, Any], answers: Answers | None = None) -> Any:
        """Call functions of plugins. Raises `PluginFailed` or, for wrong arguments, `PluginRefused` with a function's
        own words, or `PluginUnavailable`.

        `answers` does what the functions ask of the node meanwhile. A call that takes longer than it may ends the
        process, and with it every call under way: nothing less frees a thread that hangs.
        """
        if len(self._waiting) >= WAITING_MAX:
            raise PluginUnavailable("Too many calls of plugins are under way")
        await self._started()
        self._calls += 1
        number, done = self._calls, asyncio.get_running_loop().create_future()
        self._waiting[number] = done, answers
        process = self._process
        try:
            assert self._writer is not None
            self._writer.write(pack({"call": number, "do": what, **message}))
            async with asyncio.timeout(self._call_timeout_s):
                return await done
        except TimeoutError:
            self._log.error("plugins hang and are started again", extra={"data": {"call": what}})
            if process is self._process:
                self.kill()
            raise PluginUnavailable(f"A plugin took longer than {self._call_timeout_s:g} s") from None
        finally:
            self._waiting.pop(number, None)

    async def _started(self) -> None:
        if self._is_stopped:
            raise PluginUnavailable("The node is stopping")
        async with self._starting:
            if self._reading is not None and not self._reading.done():
                return
            loop = asyncio.get_running_loop()
            if loop.time() < self._next_start:
                raise PluginUnavailable(
                    "The process of the plugins has ended and is about to be started again"
                )
            self._next_start = loop.time() + RESTART_EVERY_S
            await self._end()
            await self._launch()

    async def _launch(self) -> None:
        calls, calls_there = socket.socketpair()
        strategies, strategies_there = socket.socketpair()
        arguments = [str(there.fileno()) for there in (calls_there, strategies_there)]
        arguments += [str(self._directory)] if self._directory is not None else []
        self.starts += 1
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", self._module, *arguments,
                stdin=DEVNULL, env=child_environment(_is_theirs),
                pass_fds=(calls_there.fileno(), strategies_there.fileno()),
            )  # fmt: skip
        except OSError as error:
            calls.close()
            strategies.close()
            raise PluginUnavailable(f"The process of the plugins does not start: {error.strerror}") from error
        finally:
            calls_there.close()
            strategies_there.close()
        reader, self._writer = await asyncio.open_connection(sock=calls)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                first = await unpack_from(reader)
        except (TimeoutError, ValueError):
            first = None
        if first is None:
            strategies.close()
            await self._end()
            raise PluginUnavailable(
                "A plugin stops the process of the plugins when it is loaded: see the log"
            )
        self.offer, self.strategy_socket = first["offer"], strategies
        self.__dict__.pop("models", None)
        self._reading = asyncio.create_task(self._read(reader))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        """Hand out what comes, until the process ends."""
        try:
            while (message := await unpack_from(reader)) is not None:
                if "ask" in message:
                    task = asyncio.create_task(self._answer(message))
                    self._answering.add(task)
                    task.add_done_callback(self._answering.discard)
                    continue
                done, _ = self._waiting.get(message["done"], (None, None))
                if done is None or done.done():
                    continue
                if "refused" in message:
                    done.set_exception(PluginRefused({"arguments": message["refused"]}))
                elif "failed" in message:
                    done.set_exception(PluginFailed(message["failed"]))
                else:
                    done.set_result(message["ok"])
        except ValueError as error:
            self._log.error(
                "the process of the plugins talks nonsense", extra={"data": {"reason": str(error)}}
            )
        finally:
            for done, _ in self._waiting.values():
                if not done.done():
                    done.set_exception(PluginUnavailable("The process of the plugins has ended; try again"))
            if not self._is_stopped:
                self._log.error("the process of the plugins has ended")
                self._reviving = asyncio.create_task(self._revive())

    async def _revive(self) -> None:
        """Strategies ask without a call, so the process is started again whether or not one comes."""
        while not self._is_stopped:
            await asyncio.sleep(RESTART_EVERY_S)
            with suppress(PluginUnavailable):
                await self._started()
                return

    def kill(self) -> None:
        """End the process, which hangs; it is started again. From any thread."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()

    async def _answer(self, message: Mapping[str, Any]) -> None:
        _, answers = self._waiting.get(message["for"], (None, None))
        try:
            if answers is None:
                raise PluginFailed("this call is over, or may ask nothing of the node")
            packed = pack({"answer": message["ask"], "ok": await answers(message["do"], message)})
        except Exception as error:  # whatever it is, it is the plugin's to handle
            packed = pack({"answer": message["ask"], "refused": f"{error}" or type(error).__name__})
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(packed)

    def status(self) -> dict[str, Any]:
        """What is loaded and what is not, for `civicnode status`."""
        return {
            "loaded": self.offer.get("plugins", []), "failed": self.offer.get("failed", []), "starts": self.starts
        }  # fmt: skip

    async def stop(self) -> None:
        self._is_stopped = True
        if self._reviving is not None:
            self._reviving.cancel()
        async with self._starting:
            await self._end()

    async def _end(self) -> None:
        if self.strategy_socket is not None:
            self.strategy_socket.close()
            self.strategy_socket = None
        self.kill()
        process, self._process = self._process, None
        if process is not None:
            await process.wait()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self._reading is not None:
            await self._reading
            self._reading = None


def _is_theirs(variable: str) -> bool:
    """Whether plugins get a variable of the environment: all but the node's own settings, of which some are secret."""
    return not variable.startswith(PREFIX) and variable not in ALIASES.values()


def _check(directory: Path) -> None:
    """Code from here runs as the node's user: nobody else may be able to write it. Raises `PluginsFault`."""
    try:
        found = directory.stat()
    except OSError as error:
        raise PluginsFault(f"plugins_dir: {directory} cannot be read: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode):
        raise PluginsFault(f"plugins_dir: {directory} is not a directory")
    if found.st_uid not in (os.getuid(), 0) or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PluginsFault(f"plugins_dir: others can write to {directory}: chown it to yourself, chmod go-w")
