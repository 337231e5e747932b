"""This node leaves its network for another: by a ticket, or by that network's recovery code.

Room: the order of the steps, and what becomes of the data that is here. Calling the other network is `node.net`'s
and handed in; how one record takes the place of another is `storage.replacing`'s; bringing documents along is
`bringing`'s. Until the new record is decided upon, the node goes on as it was, whatever fails.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from node.origins import Address, parse_address
from node.services.bringing import bring_job
from node.services.membership import read_recovery_code, recovery_code_faults
from node.services.refusals import HoldsData, InvalidFields, JoinRefused, WrongNetwork
from node.writer import Writer
from protocol.body import SALT_BYTES
from protocol.errors import ProtocolError
from protocol.ids import NetworkId, NodeId
from protocol.keys import SEED_BYTES, KeyPair
from protocol.meeting import Joined, Learned, Reason
from protocol.membership import Rights, Role
from protocol.statements import sign_recovery
from protocol.tickets import Ticket, decode_ticket
from storage.changes import Said
from storage.errors import StorageError
from storage.local import LocalWriter
from storage.opening import OpenRecord, join_store
from storage.replacing import decide, drop_stage, free_aside, make_stage
from storage.store import Store

FOUNDING_COMMITS = 1  # of a network of one: its genesis


class CallFailed(Exception):
    """No node of the other network has let this one in. The message says why, address by address."""

    def __init__(self, message: str, reason: Reason | None = None) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Met:
    """What calling the other network came to: who answered, where, and what it has shown."""

    address: str
    node: NodeId
    outcome: Joined | Learned


Call = Callable[[Sequence[Address], NetworkId, KeyPair, Ticket | None, str], Awaitable[Met]]


class Keep(StrEnum):
    """What becomes of the data of a node that joins another network. Either way it is moved aside first."""

    BRING = "bring"
    DISCARD = "discard"


@dataclass(frozen=True, slots=True)
class JoiningParts:
    """What the service is handed."""

    record: OpenRecord
    writer: Writer
    call: Call
    name: str
    start_again: Callable[[], None]  # in place, with the record that is there then
    remember: Callable[[LocalWriter, str, NodeId], None]  # a peer was reached at an address
    now_ms: Callable[[], int]
    random_bytes: Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Changed:
    """The node is of another network from its next start on, which has begun. `aside` is where the old record goes."""

    network_id: NetworkId
    node: NodeId
    rights: Rights
    aside: Path
    held_data: bool


class Joining:
    """Use it on the event loop."""

    def __init__(self, parts: JoiningParts) -> None:
        self._parts = parts
        self._is_busy = False

    @property
    def holds_data(self) -> bool:
        """Whether there is more in the record than its genesis."""
        return self._parts.record.store.counts()["commits"] > FOUNDING_COMMITS

    async def join(self, text: str, keep: Keep | None) -> Changed:
        """Join the network of a ticket. Raises `InvalidFields`, `WrongNetwork`, `HoldsData` or `JoinRefused`."""
        try:
            ticket = decode_ticket(text)
        except ProtocolError as error:
            raise InvalidFields({"ticket": str(error)}) from error
        self._check_other(ticket.network_id, keep)
        if ticket.role is Role.READER and keep is Keep.BRING and self.holds_data:
            raise JoinRefused("A reader's device writes nothing, so it can bring nothing: use --discard")
        if ticket.is_expired(self._parts.now_ms()):
            raise JoinRefused("This ticket has expired, by this device's clock: ask for a new one")
        addresses = [parse_address(address) for address in ticket.addresses]

        async def work() -> Changed:
            keys, met = await self._call_with_some_key(addresses, ticket)
            outcome = met.outcome
            assert isinstance(outcome, Joined)
            return await self._replace(keys, met, outcome.rights, keep, None)

        return await self._alone(work)

    async def recover(self, code: str, network: str, addresses: Sequence[str], keep: Keep | None) -> Changed:
        """Become an administrator of a network that this node is not in, by its recovery code.

        `addresses` are those of nodes of it. Raises as `join` does.
        """
        faults = recovery_code_faults(code)
        try:
            network_id = NetworkId(bytes.fromhex(network))
            if len(network_id) != 32:
                raise ValueError
        except ValueError:
            faults["network"] = "Must be a network id: 64 hexadecimal digits, as `civicnode status` shows it"
        where: list[Address] = []
        for number, address in enumerate(addresses):
            try:
                where.append(parse_address(address))
            except ValueError as error:
                faults[f"peers[{number}]"] = str(error)
        if faults:
            raise InvalidFields(faults)
        network_keys = read_recovery_code(code)
        self._check_other(network_id, keep)

        async def work() -> Changed:
            keys = self._parts.record.keys
            met = await self._call(where, network_id, keys, None)
            members = met.outcome.members
            if members.genesis.network_key != network_keys.public:
                raise WrongNetwork("This recovery code is of another network than the one named")
            if members.is_revoked(keys.public):
                keys = self._new_key()
            salt = self._parts.random_bytes(SALT_BYTES)
            said = Said(lambda members, header: sign_recovery(network_keys, [], salt, header))
            return await self._replace(keys, met, Rights(Role.ADMIN), keep, said)

        return await self._alone(work)

    # -- inside --------------------------------------------------------------------------------------------

    async def _alone(self, work: Callable[[], Awaitable[Changed]]) -> Changed:
        if self._is_busy:
            raise JoinRefused("This node is joining a network right now")
        self._is_busy = True
        try:
            return await work()
        finally:
            self._is_busy = False

    def _check_other(self, network_id: NetworkId, keep: Keep | None) -> None:
        identity = self._parts.record.store.identity
        assert identity is not None
        if network_id == identity.network_id:
            raise WrongNetwork("This node is in that network already")
        if self.holds_data and keep is None:
            raise HoldsData

    async def _call_with_some_key(self, addresses: Sequence[Address], ticket: Ticket) -> tuple[KeyPair, Met]:
        """Call with the key of this node; with a new one if that was revoked there."""
        keys = self._parts.record.keys
        try:
            return keys, await self._call(addresses, ticket.network_id, keys, ticket)
        except JoinRefused as refusal:
            cause = refusal.__cause__
            if not isinstance(cause, CallFailed) or cause.reason is not Reason.REVOKED:
                raise
        keys = self._new_key()
        return keys, await self._call(addresses, ticket.network_id, keys, ticket)

    def _new_key(self) -> KeyPair:
        return KeyPair.from_seed(self._parts.random_bytes(SEED_BYTES))

    async def _call(
        self, addresses: Sequence[Address], network_id: NetworkId, keys: KeyPair, ticket: Ticket | None
    ) -> Met:
        try:
            return await self._parts.call(addresses, network_id, keys, ticket, self._parts.name)
        except CallFailed as failure:
            raise JoinRefused(f"Not joined: {failure}") from failure

    async def _replace(
        self,
        keys: KeyPair,
        met: Met,
        rights: Rights,
        keep: Keep | None,
        said: Said | None,
    ) -> Changed:
        """Make the new record, let nobody write to the old one any more, decide, and start again."""
        parts, directory = self._parts, self._parts.record.directory
        aside, held_data = free_aside(directory), self.holds_data
        evidence = met.outcome.evidence

        def begin(store: Store) -> None:
            join_store(store, keys, evidence.commits, evidence.runs, random_bytes=parts.random_bytes)

        def local(writer: LocalWriter) -> None:
            parts.remember(writer, met.address, met.node)
            if keep is Keep.BRING and held_data:
                bring_job(writer, aside.name)

        def make() -> Path:
            return make_stage(
                directory,
                keys,
                begin,
                now_ms=parts.now_ms(),
                random_bytes=parts.random_bytes,
                local=local,
                said=said,
            )

        try:
            stage = await asyncio.to_thread(make)
        except StorageError as error:
            raise JoinRefused(f"The record of the other network cannot be made here: {error}") from error
        parts.writer.freeze("this node is changing its network: ask again in a moment")
        await parts.writer.settled()
        try:
            if keep is None and self.holds_data:  # written while we were calling
                await asyncio.to_thread(drop_stage, stage)
                raise HoldsData
            await asyncio.to_thread(decide, directory, stage, aside)
        except StorageError as error:
            await asyncio.to_thread(drop_stage, stage)
            raise JoinRefused(f"Nothing has changed: {error}") from error
        finally:
            parts.start_again()
        return Changed(met.outcome.members.genesis.network_id, keys.public, rights, aside, held_data)
