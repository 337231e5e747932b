"""Addresses that a peer may be reached at: where they come from, who was there, when to try them again.

Room: bookkeeping, with time and chance handed in. Who dials is `dialer`. An address is dialed at once, then after
delays that double up to a limit, each drawn anew between half and the whole of it, so that many nodes that lost
one another at the same moment do not call at the same moment. An address whose node is linked already is left
alone, whatever led to the link.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum

from node.origins import Address
from protocol.ids import Author

RETRY_FIRST_MS = 500
RETRY_MAX_MS = (
    30_000  # one small packet in half a minute costs nothing, and nobody waits longer for a node that is back
)
RETRY_FORGOTTEN_MAX_MS = 300_000  # an address that was good once, and that nobody has configured
CONTACTS_MAX = 256  # nodes of a large house; what is configured is always kept
PER_HOST_MAX = 8  # that one host may announce
LEARNED_MAX = 64


class Source(IntEnum):
    """How an address became known; the larger counts."""

    LEARNED = 0  # a peer was reached there once
    NEARBY = 1  # announced on the local network
    CONFIGURED = 2


@dataclass(slots=True, eq=False)
class Contact:
    """One address. `due_ms` is when to dial it next; None while it is being dialed."""

    address: Address
    source: Source
    due_ms: int | None
    author: Author | None = None  # who was there last
    failures: int = 0
    fault: str | None = None
    is_own: bool = False  # it led to this very node
    tried: int = 0  # attempts that came to an end


class Contacts:
    """Every address that this node may dial."""

    def __init__(self, *, steady_ms: Callable[[], int], chance: Callable[[], float]) -> None:
        """`chance` gives numbers from 0 to 1."""
        self._steady_ms = steady_ms
        self._chance = chance
        self._contacts: dict[Address, Contact] = {}

    def __iter__(self) -> Iterator[Contact]:
        return iter(list(self._contacts.values()))

    def __len__(self) -> int:
        return len(self._contacts)

    def get(self, address: Address) -> Contact | None:
        return self._contacts.get(address)

    def add(self, address: Address, source: Source, author: Author | None = None) -> bool:
        """Know an address, and dial it soon. Returns False if there are too many already."""
        now_ms = self._steady_ms()
        known = self._contacts.get(address)
        if known is not None:
            known.source = max(known.source, source)
            if source is Source.NEARBY and known.due_ms is not None:  # it has just shown itself
                known.failures, known.due_ms = 0, min(known.due_ms, now_ms)
            return True
        if source is not Source.CONFIGURED:
            same_host = sum(contact.address.host == address.host for contact in self._contacts.values())
            if same_host >= PER_HOST_MAX or len(self._contacts) >= CONTACTS_MAX:
                return False
        self._contacts[address] = Contact(address, source, now_ms, author)
        return True

    def forget_nearby(self, address: Address) -> None:
        """It is not announced any more. What was reached there stays as something learned."""
        contact = self._contacts.get(address)
        if contact is None or contact.source is not Source.NEARBY:
            return
        if contact.author is not None:
            contact.source = Source.LEARNED
        else:
            del self._contacts[address]

    def due(self, linked: Callable[[Author], bool]) -> list[Contact]:
        """What should be dialed now, the best known first; none whose node is `linked`."""
        now_ms = self._steady_ms()
        found = [
            contact
            for contact in self._contacts.values()
            if contact.due_ms is not None and contact.due_ms <= now_ms and self._is_wanted(contact, linked)
        ]
        return sorted(found, key=lambda contact: (contact.failures, -contact.source))

    def next_due_ms(self, linked: Callable[[Author], bool]) -> int | None:
        """When `due` will have something."""
        times = [
            contact.due_ms
            for contact in self._contacts.values()
            if contact.due_ms is not None and self._is_wanted(contact, linked)
        ]
        return min(times, default=None)

    def _is_wanted(self, contact: Contact, linked: Callable[[Author], bool]) -> bool:
        return not contact.is_own and (contact.author is None or not linked(contact.author))

    # -- what became of dialing

    def on_dialing(self, contact: Contact) -> None:
        contact.due_ms = None

    def on_reached(self, contact: Contact, author: Author, *, is_own: bool = False) -> None:
        """The handshake is done."""
        contact.author, contact.is_own, contact.fault, contact.failures = author, is_own, None, 0
        self._over(contact)

    def on_failed(self, contact: Contact, fault: str) -> None:
        """Nobody was there, or nobody whom we want."""
        contact.fault = fault
        contact.failures += 1
        self._over(contact)

    def _over(self, contact: Contact) -> None:
        contact.tried += 1
        longest_ms = RETRY_FORGOTTEN_MAX_MS if contact.source is Source.LEARNED else RETRY_MAX_MS
        delay_ms = min(longest_ms, RETRY_FIRST_MS << min(max(contact.failures - 1, 0), 20))
        contact.due_ms = self._steady_ms() + round(delay_ms * (0.5 + self._chance() / 2))

    def on_link_lost(self, author: Author, *, except_for: Contact | None = None) -> None:
        """A link has ended: whatever led to this node is worth trying, soon, but not on both sides at once."""
        now_ms = self._steady_ms()
        for contact in self._contacts.values():
            if contact.author == author and contact.due_ms is not None and contact is not except_for:
                contact.failures = 0
                contact.due_ms = now_ms + round(self._chance() * RETRY_FIRST_MS / 2)

    def wake(self) -> None:
        """The network has changed, or somebody wants to know now: nothing waits any longer."""
        now_ms = self._steady_ms()
        for contact in self._contacts.values():
            contact.failures = 0
            contact.is_own = False
            if contact.due_ms is not None:
                contact.due_ms = now_ms
