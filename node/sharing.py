"""What follows here from what is shared with other nodes, put together for the daemon.

Room: composition. Who else holds what (`services.receipts`), when a first sync is over, and when commits from a
device whose clock is ahead are due (`due`). Links tell, the writer writes; nothing is decided here.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from node.due import DueTimer, Timers
from node.services.receipts import Newest, Receipts
from node.writer import Writer
from protocol.ids import application_space_name, node_of
from storage.catalog import Catalog
from storage.changes import SayAgain, Shared
from storage.errors import StorageError
from storage.integrator import Integrator
from storage.store import Store

if TYPE_CHECKING:  # loaded with links, after the start
    from protocol.exchange import Shares


@dataclass(frozen=True, slots=True)
class SharingParts:
    """What is handed in."""

    store: Store
    catalog: Catalog
    integrator: Integrator
    writer: Writer
    now_ms: Callable[[], int]
    timers: Timers
    log: logging.Logger


class Sharing:
    """`start` it once the writer runs, `stop` it before the API does: whoever waits is answered."""

    def __init__(self, parts: SharingParts) -> None:
        assert parts.store.identity is not None
        self._parts = parts
        self._author = parts.store.identity.author
        self.receipts = Receipts(node_of(self._author), self._newest_of)
        self.due = DueTimer(
            next_due_ms=parts.integrator.next_due_ms,
            submit=parts.writer.submit,
            now_ms=parts.now_ms,
            timers=parts.timers,
            log=parts.log,
        )

    def start(self) -> None:
        self.due.look()

    def stop(self) -> None:
        self.due.stop()
        self.receipts.close()

    def on_stored(self) -> None:
        """Commits have been stored."""
        self.due.look()

    def on_members_changed(self) -> None:
        """Other statements count than before."""
        members = self._parts.store.members
        self.receipts.on_members_changed(lambda node: members.role_of(node) is not None)

    def on_in_sync(self, shares: "Shares") -> None:
        """This node and a peer hold the same of what they share."""
        parts = self._parts
        if parts.integrator.has_lost_anything():
            self._write(SayAgain(), self._said_again)
        shared = [a for a in parts.catalog.applications() if application_space_name(a) in shares]
        unshared = parts.integrator.unshared(shared)
        if unshared:
            self._write(Shared(unshared), self._noted)

    def _write(self, change: Shared | SayAgain, done: "Callable[[asyncio.Future[Any]], None]") -> None:
        try:
            written = self._parts.writer.submit(change)
        except StorageError as error:
            self._parts.log.warning(
                "not noted: %s", error
            )  # tried again when both hold the same the next time
        else:
            written.add_done_callback(done)

    def _said_again(self, done: "asyncio.Future[Any]") -> None:
        self._noted(done)
        if not done.cancelled() and done.exception() is None and done.result():
            self._parts.log.warning("what this node had lost is issued again: %d documents", done.result())

    def _noted(self, done: "asyncio.Future[Any]") -> None:
        if not done.cancelled() and (error := done.exception()) is not None:
            self._parts.log.warning("not noted: %s", error)

    def _newest_of(self, application: str) -> Newest:
        """Where our own chain stands in an application."""
        space = self._parts.store.space(application)
        with self._parts.store.read() as snapshot:
            head = snapshot.head(space, self._author)
            return Newest(application, space, head.seq if head else 0, snapshot.log.last_arrival())
