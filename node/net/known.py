"""Addresses at which peers were reached, kept across restarts.

Room: local records of this node; they never replicate, and nobody is told of them.

    local "peer address"  HOST:PORT  -> {node: hex, at_ms}
"""

from collections.abc import Callable
from typing import Any

from node.net.contacts import LEARNED_MAX
from node.origins import Address, parse_address
from protocol.ids import NodeId
from storage.changes import AnyChange
from storage.local import LocalWriter
from storage.store import Store

_KIND = "peer address"
FRESH_FOR_MS = 86_400_000  # written again after a day, so that the oldest can be told


def note_address(local: LocalWriter, address: str, node: NodeId, at_ms: int) -> None:
    """In a record that no node runs on yet: a peer was reached here."""
    local.put(_KIND, address, {"node": node.hex(), "at_ms": at_ms})


class KnownAddresses:
    """What is remembered. Use it on the loop."""

    def __init__(
        self, store: Store, submit: Callable[[AnyChange], Any], *, clock_ms: Callable[[], int]
    ) -> None:
        self._submit = submit
        self._clock_ms = clock_ms
        with store.read() as snapshot:
            self._known = dict(snapshot.local.scan(_KIND))

    def addresses(self) -> list[Address]:
        """The newest first."""
        found: list[Address] = []
        for text in sorted(self._known, key=lambda text: -int(self._known[text].get("at_ms", 0))):
            try:
                found.append(parse_address(text))
            except ValueError:  # of a link-local address, or a record of another release
                continue
        return found

    def remember(self, address: Address, node: NodeId) -> None:
        """A peer was reached here. Stored some time soon; the oldest makes room."""
        text, now_ms = str(address), self._clock_ms()
        if "%" in text:
            return  # an interface of this machine is in it, which may mean another one tomorrow
        known = self._known.get(text)
        if (
            known is not None
            and known.get("node") == node.hex()
            and abs(now_ms - known.get("at_ms", 0)) < FRESH_FOR_MS
        ):
            return
        value = {"node": node.hex(), "at_ms": now_ms}
        self._known[text] = value
        oldest = sorted(self._known, key=lambda text: int(self._known[text].get("at_ms", 0)))
        dropped = oldest[: max(0, len(self._known) - LEARNED_MAX)]
        for other in dropped:
            del self._known[other]

        def change(local: LocalWriter) -> None:
            local.put(_KIND, text, value)
            for other in dropped:
                local.delete(_KIND, other)

        self._submit(change)
