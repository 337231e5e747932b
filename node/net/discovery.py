"""Finding the nodes of this network on the local one, and being found, without telling anybody else who we are.

Room: what is announced and when, and whom to believe. Names and tags are `protocol.beacon`'s, packets `mdns`'s.
An announcement is a hint where to dial, and nothing more: who is there is proved by the handshake. So whatever
is heard can cost one attempt to connect, of a bounded number of addresses.

A name is used for an hour; another one is also taken when the machine's addresses change. Where multicast cannot
be used this is said once, and tried again when the network changes.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence

from node.net.mdns import Announcement, Radio
from node.origins import Address
from protocol.beacon import HOUR_MS, NAME_BYTES, Beacon
from protocol.ids import NetworkId

HEARD_MAX = 256  # announcements of our network that are remembered
MakeRadio = Callable[[Callable[[Announcement], None], Callable[[str], None]], Radio]


class Discovery:
    """One node on the local network. `start` it on the loop, tell it of changes, `stop` it once."""

    def __init__(
        self,
        network_id: NetworkId,
        listening: Address,
        make_radio: MakeRadio,
        *,
        on_found: Callable[[Address], None],
        on_lost: Callable[[Address], None],
        clock_ms: Callable[[], int],
        random_bytes: Callable[[int], bytes],
        log: logging.Logger,
    ) -> None:
        """`listening` is where this node takes calls: on every address of the machine, or on one."""
        self._beacon = Beacon(network_id)
        self._listening = listening
        self._radio = make_radio(self.on_heard, self.on_lost)
        self._tell_found = on_found
        self._tell_lost = on_lost
        self._clock_ms = clock_ms
        self._random_bytes = random_bytes
        self._log = log
        self._is_open = False
        self._has_complained = False
        self._label = ""
        self._said: tuple[int, tuple[str, ...]] | None = (
            None  # the hour and the addresses of what is announced
        )
        self._own_labels: set[str] = set()
        self._heard: dict[str, tuple[Address, ...]] = {}
        self._lock = asyncio.Lock()

    @property
    def is_open(self) -> bool:
        return self._is_open

    async def refresh(self, addresses: Sequence[str]) -> None:
        """The machine has these addresses now; the hour may have changed. Cheap if nothing has."""
        async with self._lock:
            usable = self._usable(addresses)
            hour = self._clock_ms() // HOUR_MS
            if self._said == (hour, usable) and self._is_open:
                return
            try:
                if not self._is_open:
                    host = self._listening.host
                    await self._radio.open(":" in host, None if self._listening.is_wildcard else [host])
                    self._is_open = True
                else:
                    await self._radio.rescan()
                await self._announce(hour, usable)
            except OSError as error:
                self._complain(error.strerror or str(error))
            except Exception as error:  # of the library: discovery is a convenience, never a reason to fail
                self._complain(str(error) or type(error).__name__)
            else:
                self._said, self._has_complained = (hour, usable), False

    def _usable(self, addresses: Sequence[str]) -> tuple[str, ...]:
        """Where this node can be reached, in a fixed order."""
        if not self._listening.is_wildcard:
            return (self._listening.host,)
        with_ipv6 = ":" in self._listening.host
        return tuple(sorted(address for address in addresses if with_ipv6 or ":" not in address))

    async def _announce(self, hour: int, addresses: tuple[str, ...]) -> None:
        if not addresses:
            await self._radio.withdraw()
            return
        name = self._random_bytes(NAME_BYTES)
        self._label = name.hex()
        self._own_labels = {self._label, *list(self._own_labels)[-8:]}  # one that is going may still be heard
        tag = self._beacon.tag(name, hour)
        await self._radio.announce(Announcement(self._label, tag, self._listening.port, addresses))

    def _complain(self, reason: str) -> None:
        if not self._has_complained:
            self._has_complained = True
            self._log.warning(
                "nodes nearby cannot be found: %s; static peers (--peer) work all the same", reason
            )

    async def stop(self) -> None:
        async with self._lock:
            await self._radio.close()

    # -- what is heard -------------------------------------------------------------------------------------

    def on_heard(self, heard: Announcement) -> None:
        """Somebody has announced this. Whatever it is, nothing raises."""
        if heard.label in self._own_labels or not 0 < heard.port < 1 << 16:
            return
        try:
            name = bytes.fromhex(heard.label)
        except ValueError:
            return
        if name.hex() != heard.label or not self._beacon.is_ours(name, heard.tag, self._clock_ms()):
            return
        found = tuple(Address(host, heard.port) for host in heard.addresses)
        if heard.label not in self._heard and len(self._heard) >= HEARD_MAX:
            return
        gone = set(self._heard.get(heard.label, ())) - set(found)
        self._heard[heard.label] = found
        self._forget(gone)
        for address in found:
            self._tell_found(address)

    def on_lost(self, label: str) -> None:
        """Somebody has said goodbye, or has not been heard of for long."""
        self._forget(set(self._heard.pop(label, ())))

    def _forget(self, addresses: set[Address]) -> None:
        announced = {address for those in self._heard.values() for address in those}
        for address in addresses - announced:
            self._tell_lost(address)
