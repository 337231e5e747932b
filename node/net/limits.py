"""How many strangers may be at the door, and how often one address may knock.

Room: counting and refusing, with time handed in. Whoever has proved nothing yet costs a descriptor, a TLS
handshake of a millisecond and 20 KB; what is refused here costs an accepted socket. A flood displaces its own
oldest first, so that it does not keep out somebody who calls from elsewhere.
"""

import ipaddress
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass

LINKS_MAX = 64  # a full mesh beyond that belongs into an overlay
KNOCKING_MAX = 32  # that have not proved to be of this network, in all
KNOCKING_PER_HOST_MAX = 16
LINKS_PER_HOST_MAX = 32  # a machine may run several nodes, and a house may share an address
KNOCKS_PER_S = 10.0  # from one address; an honest node calls once in a while
KNOCKS_AT_ONCE = 40.0
HOSTS_MAX = 1_024  # remembered


def source_of(host: str) -> str:
    """What is counted as one address: an IPv4 address, or the 64 bits of IPv6 that a home gets as one."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.IPv6Network((address, 64), strict=False).network_address)
    return str(address)


@dataclass(slots=True)
class _Bucket:
    level: float
    at_ms: int


class Doorkeeper:
    """Counts connections that others opened. Names of them are the caller's objects."""

    def __init__(self, *, steady_ms: Callable[[], int]) -> None:
        self._steady_ms = steady_ms
        self._knocking: OrderedDict[Hashable, str] = OrderedDict()  # oldest first
        self._inside: dict[Hashable, str] = {}
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def knock(self, who: Hashable, host: str) -> tuple[bool, Hashable | None]:
        """Whether `who` may try to prove itself, and whom to send away for that."""
        source = source_of(host)
        if not self._may_knock(source):
            return False, None
        from_there = [other for other, held in self._knocking.items() if held == source]
        inside = sum(held == source for held in self._inside.values())
        if inside >= LINKS_PER_HOST_MAX:
            return False, None
        displaced: Hashable | None = None
        if len(from_there) >= KNOCKING_PER_HOST_MAX:
            displaced = from_there[0]
        elif len(self._knocking) >= KNOCKING_MAX:
            displaced = self._from_a_crowd()
        if displaced is not None:
            del self._knocking[displaced]
        self._knocking[who] = source
        return True, displaced

    def _from_a_crowd(self) -> Hashable:
        """The oldest of the address that most of them come from; the oldest of all if each comes from its own."""
        counts: dict[str, int] = {}
        for source in self._knocking.values():
            counts[source] = counts.get(source, 0) + 1
        most = max(counts.values())
        return next(who for who, source in self._knocking.items() if counts[source] == most)

    def _may_knock(self, source: str) -> bool:
        now_ms = self._steady_ms()
        bucket = self._buckets.pop(source, None) or _Bucket(KNOCKS_AT_ONCE, now_ms)
        refilled = bucket.level + (now_ms - bucket.at_ms) / 1_000 * KNOCKS_PER_S
        bucket.level, bucket.at_ms = min(KNOCKS_AT_ONCE, refilled), now_ms
        self._buckets[source] = bucket
        if len(self._buckets) > HOSTS_MAX:
            self._buckets.popitem(last=False)
        if bucket.level < 1:
            return False
        bucket.level -= 1
        return True

    def let_in(self, who: Hashable) -> None:
        """It has proved to be of this network."""
        source = self._knocking.pop(who, None)
        if source is not None:
            self._inside[who] = source

    def leave(self, who: Hashable) -> None:
        self._knocking.pop(who, None)
        self._inside.pop(who, None)

    @property
    def knocking(self) -> int:
        return len(self._knocking)
