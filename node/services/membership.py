"""Who belongs to the network, as people see it: invite, list, grant, revoke, recover.

Room: statements of membership said on behalf of this node, and what is told of them. The rules are
`protocol.membership`'s; how a node joins by a ticket is `joining`'s. Every statement is judged once more inside
the writer's transaction, by what is known then, and refused in words rather than said in vain.
"""

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from node.origins import Address, parse_address
from node.services.devices import Devices
from node.services.refusals import InvalidFields, NotPermitted, UnknownNode, WrongNetwork
from node.writer import Writer
from protocol.body import SALT_BYTES
from protocol.commit import Header
from protocol.errors import InvalidId, ProtocolError
from protocol.ids import NodeId, SpaceId, application_space_name, check_application_id, node_of, space_id
from protocol.keys import SEED_BYTES, KeyPair
from protocol.membership import Fault, Members, Rights, Role
from protocol.statements import Grant, Invite, Revoke, Statement, encode_statement, sign_recovery
from protocol.tickets import (
    ADDRESSES_PER_TICKET_MAX,
    SECRET_BYTES,
    Ticket,
    decode_recovery_code,
    encode_recovery_code,
    encode_ticket,
)
from storage.changes import Said
from storage.judging import cuts_at_heads
from storage.keyfiles import NETWORK_KEY_FILE, flush_directory, load_key
from storage.opening import prepare_next_key
from storage.store import Store

EXPIRES_DEFAULT_MS = 3_600_000
EXPIRES_MIN_MS = 1_000
EXPIRES_MAX_MS = 366 * 86_400_000
ID_DIGITS_MIN = 8  # of a node id, to name it
APPLICATIONS_MAX = 256
_HEX = re.compile(r"[0-9a-f]+")


@dataclass(frozen=True, slots=True)
class Invited:
    """A ticket, and the network's recovery code as long as nobody has written it down."""

    text: str
    ticket: Ticket
    applications: tuple[str, ...] | None
    recovery_code: str | None


@dataclass(frozen=True, slots=True)
class MembershipParts:
    """What the service is handed. `addresses` are those that others may reach this node at."""

    store: Store
    writer: Writer
    devices: Devices
    directory: Path
    addresses: Callable[[], Sequence[Address]]
    applications: Callable[[], Sequence[str]]  # that have data here
    is_told_revoked: Callable[[], bool]  # a peer says that this node's key was revoked
    links: Callable[[], list[dict[str, Any]]]  # as `GET /v1/sync/status` tells of them
    start_again: Callable[[str], None]  # in place, since the node goes on under another key
    now_ms: Callable[[], int]
    random_bytes: Callable[[int], bytes]


class Membership:
    """Use it on the event loop."""

    def __init__(self, parts: MembershipParts) -> None:
        assert parts.store.identity is not None
        self._parts = parts
        self._author = parts.store.identity.author
        self._node = node_of(self._author)
        self._network_id = parts.store.identity.network_id

    # -- letting others in ---------------------------------------------------------------------------------

    async def invite(
        self,
        *,
        role: Role = Role.MEMBER,
        applications: Sequence[str] | None = None,
        expires_in_ms: int = EXPIRES_DEFAULT_MS,
        addresses: Sequence[str] = (),
        with_recovery_code: bool = False,
    ) -> Invited:
        """A ticket for one device, its invitation durably said. `applications` None are all.

        Raises `InvalidFields` with every fault, or `NotPermitted`.
        """
        faults: dict[str, str] = {}
        rights = self._rights(role, applications, faults)
        if not EXPIRES_MIN_MS <= expires_in_ms <= EXPIRES_MAX_MS:
            faults["expires_in_s"] = "Must be from 1 second to 366 days"
        where = self._addresses(addresses, faults)
        if faults:
            raise InvalidFields(faults)
        expires_ms = self._parts.now_ms() + expires_in_ms
        secret = self._parts.random_bytes(SECRET_BYTES)
        ticket = Ticket(self._network_id, self._node, secret, role, expires_ms, tuple(where))
        await self._say(Invite(ticket.keys.public, rights, expires_ms))
        code = await self.recovery_code() if with_recovery_code else None
        named = None if applications is None else tuple(applications)
        return Invited(encode_ticket(ticket), ticket, named, code)

    def _addresses(self, given: Sequence[str], faults: dict[str, str]) -> list[str]:
        found: list[str] = []
        for number, text in enumerate(given):
            try:
                address = parse_address(text)
                if address.port == 0 or address.is_wildcard:
                    raise ValueError
                found.append(str(address))
            except ValueError:
                faults[f"addresses[{number}]"] = "Must be HOST:PORT, as others reach this node"
        found += [str(address) for address in self._parts.addresses()]
        return list(dict.fromkeys(found))[:ADDRESSES_PER_TICKET_MAX]

    def invitations(self) -> list[dict[str, Any]]:
        """The tickets that may still be used."""
        now_ms = self._parts.now_ms()
        return [
            {
                "role": invite.rights.role.value,
                "applications": self._applications_of(invite.rights),
                "expires_at_ms": invite.expires_ms,
            }
            for invite in self._members.open_invites()
            if invite.expires_ms > now_ms
        ]

    async def recovery_code(self) -> str | None:
        """The network's recovery code, while its key lies here."""
        keys = await asyncio.to_thread(load_key, self._parts.directory / NETWORK_KEY_FILE)
        return None if keys is None else encode_recovery_code(keys)

    async def forget_network_key(self) -> bool:
        """The recovery code was written down: remove the key from this device. Durable. Returns whether it was here."""

        def remove() -> bool:
            path = self._parts.directory / NETWORK_KEY_FILE
            was_here = path.exists()
            path.unlink(missing_ok=True)
            flush_directory(path.parent)
            return was_here

        return await asyncio.to_thread(remove)

    # -- who is there --------------------------------------------------------------------------------------

    def peers(self) -> list[dict[str, Any]]:
        """Every node of the network: this one first, then by name."""
        links = {link["node_id"]: link for link in self._parts.links() if link.get("node_id")}
        found = [self._describe(node, links.get(node.hex())) for node in self._members.nodes]
        return sorted(found, key=lambda one: (not one["is_self"], one["name"] or "~", one["node_id"]))

    def _describe(self, node: NodeId, link: dict[str, Any] | None) -> dict[str, Any]:
        members = self._members
        rights = members.rights_of(node)
        state = "member"
        if rights is None:
            state = "revoked" if members.is_revoked(node) else "suspended"
            if state == "suspended" and not members.is_suspended(node):
                state = "void"  # what let it in does not count any more
        return {
            "node_id": node.hex(),
            "name": self._parts.devices.name_of(node),
            "is_self": node == self._node,
            "state": state,
            "role": rights.role.value if rights is not None else None,
            "applications": self._applications_of(rights) if rights is not None else None,
            "link": link["state"] if link is not None else None,
            "in_sync": link["in_sync"] if link is not None else None,
            "lag_ms": link.get("lag_ms") if link is not None else None,
            "address": link.get("address") if link is not None else None,
        }

    def _applications_of(self, rights: Rights) -> list[str] | None:
        """Names of the applications that rights are limited to; a space whose name is not known here by its id."""
        if rights.spaces is None:
            return None
        names = {self._space(name): name for name in self._parts.applications()}
        return sorted(names.get(space, f"#{space.hex()}") for space in rights.spaces)

    def resolve(self, text: str) -> NodeId:
        """The node that a unique name, or 8 or more characters of a node id, mean. Raises `UnknownNode`."""
        nodes = self._members.nodes
        wanted = text.strip()
        by_name = [node for node in nodes if self._parts.devices.name_of(node) == wanted]
        digits = wanted.lower()
        by_id: list[NodeId] = []
        if len(digits) >= ID_DIGITS_MIN and _HEX.fullmatch(digits):
            by_id = [node for node in nodes if node.hex().startswith(digits)]
        found = list(dict.fromkeys([*by_name, *by_id]))
        if len(found) == 1:
            return found[0]
        if not found:
            raise UnknownNode(f"No node of this network is called '{wanted}': `civicnode peers` lists them")
        ids = ", ".join(node.hex()[:12] for node in found)
        raise UnknownNode(f"Several nodes are meant by '{wanted}' ({ids}): name one by its id")

    # -- deciding about others -----------------------------------------------------------------------------

    async def grant(self, node: NodeId, role: Role, applications: Sequence[str] | None = None) -> None:
        """Give a node these rights from now on. Raises `InvalidFields`, `NotPermitted` or `UnknownNode`."""
        faults: dict[str, str] = {}
        rights = self._rights(role, applications, faults)
        if faults:
            raise InvalidFields(faults)
        if node == self._node:
            raise NotPermitted(
                "A device does not change its own role: do it on another administrator's device"
            )
        await self._say(Grant(node, rights))

    async def revoke(self, node: NodeId) -> int:
        """Put a node key out for good, leaving what is here of it. Returns how many of its chains were cut.

        Raises `NotPermitted` or `UnknownNode`.
        """
        if node == self._node:
            raise NotPermitted("A device does not revoke itself: do it on another administrator's device")
        if self._members.is_revoked(node):
            raise NotPermitted("This node is revoked already")
        with self._parts.store.read() as snapshot:
            cuts = cuts_at_heads(snapshot, node)
        await self._say(Revoke(node, cuts))
        return len(cuts.cuts)

    async def recover(self, code: str, putting_out: Sequence[NodeId] = ()) -> bool:
        """Make this node an administrator by the network key, and put out others. Returns whether it has been said.

        A node whose own key was revoked, by what it knows or by what a peer has told it, goes on under another
        first: then it starts again in place, False is returned, and the caller asks once more. Raises
        `InvalidFields`, `WrongNetwork` or `NotPermitted`.
        """
        network_keys = read_recovery_code(code)
        if network_keys.public != self._members.genesis.network_key:
            raise WrongNetwork("This recovery code is of another network than the one that this node is in")
        if self._node in putting_out:
            raise NotPermitted("A device does not put itself out")
        if self._members.is_revoked(self._node) or self._parts.is_told_revoked():
            seed = self._parts.random_bytes(SEED_BYTES)
            await asyncio.to_thread(prepare_next_key, self._parts.directory, seed)
            self._parts.start_again("this device's old key was revoked")
            return False
        with self._parts.store.read() as snapshot:
            revoked = [Revoke(node, cuts_at_heads(snapshot, node)) for node in putting_out]
        salt = self._parts.random_bytes(SALT_BYTES)
        await self._parts.writer.submit(
            Said(lambda members, header: sign_recovery(network_keys, revoked, salt, header))
        )
        return True

    # -- inside --------------------------------------------------------------------------------------------

    @property
    def _members(self) -> Members:
        return self._parts.store.members

    def _space(self, application: str) -> SpaceId:
        return space_id(self._network_id, application_space_name(application))

    def _rights(self, role: Role, applications: Sequence[str] | None, faults: dict[str, str]) -> Rights:
        if applications is None:
            return Rights(role)
        if not 1 <= len(applications) <= APPLICATIONS_MAX:
            faults["applications"] = f"Must name 1 to {APPLICATIONS_MAX} applications"
        spaces: set[SpaceId] = set()
        for number, name in enumerate(applications[:APPLICATIONS_MAX]):
            try:
                spaces.add(self._space(check_application_id(name)))
            except InvalidId as error:
                faults[f"applications[{number}]"] = str(error)
        return Rights(role, frozenset(spaces))

    async def _say(self, statement: Invite | Grant | Revoke) -> None:
        salt = self._parts.random_bytes(SALT_BYTES)

        def make(members: Members, header: Header) -> bytes:
            raise_unless_valid(members, self._author, statement)
            return encode_statement(statement, salt)

        await self._parts.writer.submit(Said(make))


def raise_unless_valid(members: Members, author: bytes, statement: Statement) -> None:
    """Refuse, in words, a statement that would be invalid. Raises `NotPermitted` or `UnknownNode`."""
    fault = members.fault(node_of(author), statement)
    match fault:
        case None:
            return
        case Fault.NOT_ADMIN | Fault.NOT_MEMBER:
            role = members.role_of(node_of(author))
            what = (
                f"a {role.value}"
                if role is not None and role is not Role.ADMIN
                else "no administrator of all"
            )
            raise NotPermitted(
                f"This device is {what} in this network: only an administrator's device may do this"
            )
        case Fault.REVOKED:
            raise NotPermitted("This node is revoked: its key never returns. It can join again with another")
        case Fault.STRANGER:
            raise UnknownNode("This node was never let into the network")
        case _:
            raise NotPermitted(f"The network's rules refuse this: {fault.value}")


def recovery_code_faults(code: str) -> dict[str, str]:
    """What is wrong with a recovery code, by the name of its field."""
    try:
        decode_recovery_code(code)
    except ProtocolError as error:
        return {"code": str(error)}
    return {}


def read_recovery_code(code: str) -> KeyPair:
    """The network key in a recovery code. Raises `InvalidFields`."""
    if faults := recovery_code_faults(code):
        raise InvalidFields(faults)
    return decode_recovery_code(code)
