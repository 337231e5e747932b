"""Everything about who belongs to the network, put together for the daemon.

Room: composition of the services of membership with what they need of the node, and what of them runs beside
requests. Nothing is decided here.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from node.net.known import note_address
from node.net.network import Network
from node.origins import Address
from node.services.bringing import Bringing, BringingParts
from node.services.devices import APPLICATION, NODE, Devices
from node.services.identity import Identity
from node.services.joining import Joining, JoiningParts, Met
from node.services.local import LocalStore
from node.services.membership import Membership, MembershipParts
from node.services.records import Records
from node.writer import Writer
from protocol.ids import NetworkId, NodeId
from protocol.keys import KeyPair
from protocol.tickets import Ticket
from storage.catalog import Catalog
from storage.errors import StorageError
from storage.opening import OpenRecord


@dataclass(frozen=True, slots=True)
class BelongingParts:
    """What is handed in. `name` is what the device is called, `user` who its name is written as."""

    record: OpenRecord
    catalog: Catalog
    records: Records
    writer: Writer
    local: LocalStore
    identity: Identity
    network: Callable[[], Network]
    name: str
    user: str
    start_again: Callable[[str | None], None]  # in place; why as a new author, if so
    now_ms: Callable[[], int]
    steady_ms: Callable[[], int]
    random_bytes: Callable[[int], bytes]
    log: logging.Logger


class Belonging:
    """`start` it once the API answers, `stop` it before the writer stops."""

    def __init__(self, parts: BelongingParts) -> None:
        self._parts = parts
        record, writer = parts.record, parts.writer
        self._members = record.store.members
        self._tasks: set[asyncio.Task[None]] = set()
        self.devices = Devices(
            record.store,
            writer,
            lambda: parts.records.builtin(APPLICATION, NODE),
            name=parts.name,
            user=parts.user,
        )
        self.membership = Membership(
            MembershipParts(
                store=record.store,
                writer=writer,
                devices=self.devices,
                directory=record.directory,
                addresses=lambda: parts.network().addresses(),
                applications=parts.catalog.applications,
                is_told_revoked=lambda: parts.network().is_told_revoked,
                links=lambda: list(parts.network().status()["peers"]),
                start_again=parts.start_again,
                now_ms=parts.now_ms,
                random_bytes=parts.random_bytes,
            )
        )
        self.joining = Joining(
            JoiningParts(
                record=record,
                writer=writer,
                call=self._call,
                name=self.devices.name,
                start_again=lambda: parts.start_again(None),
                remember=lambda local, address, node: note_address(local, address, node, parts.now_ms()),
                now_ms=parts.now_ms,
                random_bytes=parts.random_bytes,
            )
        )
        self.bringing = Bringing(
            BringingParts(
                directory=record.directory,
                records=parts.records,
                writer=writer,
                local=parts.local,
                has_email=self._has_email,
                find_model=parts.catalog.find,
                wait_synced=lambda: parts.network().linked_and_in_sync(),
                log=parts.log,
            )
        )

    def start(self) -> None:
        self._in_background(self._publish_name())
        self._in_background(self.bringing.run())

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def on_stored(self) -> None:
        """Commits have been stored: if they say who belongs to the network, that counts from now on."""
        members = self._parts.record.store.members
        if members is not self._members:
            self._members = members
            self._in_background(self._publish_name())

    def on_admitted(self, node: NodeId, name: str) -> None:
        """A device was let in here, and says what it is called."""
        self._in_background(self.devices.note(node, name))

    async def _call(
        self,
        addresses: Sequence[Address],
        network_id: NetworkId,
        keys: KeyPair,
        ticket: Ticket | None,
        name: str,
    ) -> Met:
        from node.net.calling import CallParts, call_network  # here, since most starts never join

        parts = self._parts
        given = CallParts(parts.now_ms, parts.steady_ms, parts.random_bytes, parts.log)
        return await call_network(addresses, network_id, keys, ticket, name, given)

    async def _has_email(self, application: str, email: str) -> bool:
        return bool(await self._parts.identity.accounts.find_by_email(application, email))

    async def _publish_name(self) -> None:
        await self.devices.publish()

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(self._logged(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _logged(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except StorageError as error:
            self._parts.log.warning("not done: %s", error)
        except Exception:
            self._parts.log.exception("work in the background failed")
