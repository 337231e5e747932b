"""Plugins' functions that resolve conflicts, as the record asks for them: in the midst of reading, on any thread.

Room: asking the process of the plugins and waiting for its answer, within a bound, and remembering what it said. The
rules that ask are `protocol.conflict`'s. Where no answer comes the record shows what it shows without the plugin,
and says so.
"""

import logging
import socket
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from node.services.plugin_frames import receive, send
from node.services.plugins import Plugins
from protocol.conflict import Resolver

ANSWER_TIMEOUT_S = (
    0.5  # of each step of waiting for the socket; whoever reads a contested record waits as long
)
PAUSE_S = 10.0  # after an answer that did not come, nobody is asked
REMEMBERED_MAX = 10_000
REMEMBERED_BYTES_MAX = 32 << 20


class PluginStrategies:
    """For any thread."""

    def __init__(self, plugins: Plugins, log: logging.Logger, seconds: Callable[[], float]) -> None:
        self._plugins = plugins
        self._log = log
        self._seconds = seconds
        self._lock = threading.Lock()
        self._remembered: OrderedDict[bytes, Mapping[str, Any]] = OrderedDict()
        self._bytes = 0
        self._paused_until = 0.0
        self._encode = msgspec.json.Encoder(order="deterministic").encode

    def resolver_of(self, strategy: str) -> Resolver | None:
        """The function of a strategy, by `name@hash`; None if no plugin here has it."""
        if strategy not in self._plugins.offer.get("strategies", ()):
            return None
        return lambda versions: self._resolve(strategy, versions)

    def _resolve(self, strategy: str, versions: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
        key = self._encode([strategy, versions])
        with self._lock:
            known = self._remembered.get(key)
            if known is None and self._seconds() >= self._paused_until:
                known = self._ask(strategy, versions)
                if known is not None:
                    self._remember(key, known)
        return known

    def _ask(self, strategy: str, versions: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
        connection = self._plugins.strategy_socket
        try:
            if connection is None:
                return None
            connection.settimeout(ANSWER_TIMEOUT_S)
            send(connection, {"strategy": strategy, "versions": versions})
            answer = receive(connection)
        except (OSError, ValueError) as error:
            answer = {"failed": str(error) or type(error).__name__}
            self._hang_up(connection)
        if answer is None or "failed" in answer:
            reason = "the process of the plugins has ended" if answer is None else answer["failed"]
            self._log.error("a strategy fails", extra={"data": {"strategy": strategy, "reason": reason}})
            if answer is None:
                self._hang_up(connection)
            return None
        resolved: Mapping[str, Any] = answer["ok"]
        return resolved

    def _hang_up(self, connection: socket.socket | None) -> None:
        """A late answer must not be taken for the next one: the process starts again, and until then nobody asks."""
        self._paused_until = self._seconds() + PAUSE_S
        self._plugins.kill()

    def _remember(self, key: bytes, resolved: Mapping[str, Any]) -> None:
        self._remembered[key] = resolved
        self._bytes += len(key)
        while len(self._remembered) > REMEMBERED_MAX or self._bytes > REMEMBERED_BYTES_MAX:
            dropped, _ = self._remembered.popitem(last=False)
            self._bytes -= len(dropped)
