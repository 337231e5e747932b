"""What peers sent, on its way to the writer: texts are tried elsewhere first.

Room: which updates of a change from a peer are new to this node, and what becomes of documents whose updates a
process did not survive: they are quarantined here, in the same transaction in which the change is taken in.
Everybody else's verdict on it, and the order of units, stay what they are.
"""

import asyncio
import logging
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any

from node.services.canary import Canary, Trial
from node.writer import Writer
from protocol.body import SHARED_KINDS, Kind, decode_body
from protocol.commit import Commit
from protocol.errors import ProtocolError
from protocol.ids import SpaceId
from protocol.shared import SharedField
from protocol.times import datetime_from_ms
from storage.changes import AnyChange, Received
from storage.quarantine import Quarantined, listed
from storage.store import Store

REASON = "merging its text stopped a process"
LOOKED_AT_HERE_MAX_BYTES = 4_096  # of bodies: 0.2 ms at most, as long as it takes to ask a thread
_FieldKey = tuple[SpaceId, str, str, int, str]  # space, model, id, kind, field


class Screen:
    """In front of the writer, for changes that come from peers. Use it on the loop."""

    def __init__(
        self, store: Store, writer: Writer, canary: Canary, log: logging.Logger, *, now_ms: Callable[[], int]
    ) -> None:
        self._store = store
        self._writer = writer
        self._canary = canary
        self._log = log
        self._now_ms = now_ms
        self._turn = (
            asyncio.Lock()
        )  # of the one that is tried: they reach the writer in the order in which they came
        self._on_their_way = 0  # that are to be tried and have not reached it

    def submit(self, change: AnyChange) -> "asyncio.Future[Any]":
        """As `Writer.submit`: what it comes to, once it is durable."""
        if isinstance(change, Received):
            size = sum(len(body or b"") for commit in change.commits for body in commit.bodies)
            if self._on_their_way or size > LOOKED_AT_HERE_MAX_BYTES or self._has_updates(change):
                self._on_their_way += 1
                return asyncio.ensure_future(self._submit_tried(change))
        return self._writer.submit(change)

    def _has_updates(self, change: Received) -> bool:
        return any(_updates_of(commit, self._store.system) for commit in change.commits)

    async def _submit_tried(self, change: Received) -> Any:
        try:
            async with self._turn:
                trials = await asyncio.to_thread(self._trials, change)
                bad = await self._canary.check(trials) if trials else set()
                if bad:
                    change = replace(change, quarantine=self._quarantine(bad))
                written = self._writer.submit(change)
        finally:
            self._on_their_way -= 1
        return await written

    def _quarantine(self, bad: set[Hashable]) -> tuple[Quarantined, ...]:
        documents: list[tuple[SpaceId, str, str]] = sorted({key[:3] for key in bad if isinstance(key, tuple)})
        for _, model, id in documents:
            self._log.error(
                "a document is quarantined", extra={"data": {"model": model, "id": id, "reason": REASON}}
            )
        now_ms = self._now_ms()
        return tuple(Quarantined(space, model, id, now_ms, REASON) for space, model, id in documents)

    def _trials(self, change: Received) -> list[Trial]:
        """For each field what is to be merged in it, in the order of the commits. Blocks while it reads."""
        updates: dict[_FieldKey, list[bytes]] = {}
        for commit in change.commits:
            for key, update in _updates_of(commit, self._store.system):
                updates.setdefault(key, []).append(update)
        if not updates:
            return []
        trials: list[Trial] = []
        with self._store.read() as snapshot:
            for key, new in updates.items():
                space, model, id, kind, name = key
                document = snapshot.documents.get(space, model, id)
                if document is not None and document.is_quarantined:
                    continue
                held = document.shared.get((kind, name)) if document is not None else None
                contents, waiting = (held or SharedField(kind, name)).unmerged
                trials.append(Trial(key, name, kind == Kind.TEXT, contents, (*waiting, *new)))
        return trials


def _updates_of(commit: Commit, system: SpaceId) -> list[tuple[_FieldKey, bytes]]:
    """The updates of collaborative fields in a commit that can be read."""
    space = commit.header.space
    found: list[tuple[_FieldKey, bytes]] = []
    for data in commit.bodies if space != system else ():
        if data is None or (b"\x08" not in data and b"\x09" not in data):
            continue  # however a kind is encoded, its number is the last byte: most bodies need no second look
        try:
            body = decode_body(data, commit.header.author)
        except ProtocolError:
            continue
        for operation in body.operations if body.is_understood else ():
            if operation[0] in SHARED_KINDS:
                kind, name, _, update = operation
                found.append(((space, body.model, body.id, int(kind), name), update))
    return found


def quarantined_of(store: Store) -> list[dict[str, Any]]:
    """The documents that are quarantined on this node, for `civicnode status`."""
    with store.read() as snapshot:
        applications = {store.space(name): name for name in snapshot.applications()}
        return [
            {
                "application": applications.get(told.space, ""),
                "model": told.model,
                "id": told.id,
                "at": datetime_from_ms(told.at_ms),
                "reason": told.reason,
            }
            for told in listed(snapshot.local)
        ]
