"""Multicast DNS: one announced service of ours, and those of others, by way of zeroconf.

Room: the only module that knows zeroconf, loaded when discovery begins. What is announced and whom to believe is
`discovery`'s; from the network come names, texts and addresses of anybody's making, passed on as they are, but
bounded. RFC 6762 and RFC 6763.
"""

import asyncio
import ipaddress
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from zeroconf import ServiceStateChange, Zeroconf
    from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

SERVICE = "_civicnode._tcp.local."
RESOLVING_MAX = (
    16  # questions about others under way at a time; more names than that at once wait for their next word
)
RESOLVE_TIMEOUT_MS = 3_000
ADDRESSES_MAX = 8  # of one service
CLOSE_TIMEOUT_S = 1.0  # a goodbye is said three times, an eighth of a second apart


@dataclass(frozen=True, slots=True)
class Announcement:
    """One service, as it was heard or as it is to be said. `label` is the name before the service's own."""

    label: str
    tag: bytes
    port: int
    addresses: tuple[str, ...]


class Radio(Protocol):
    """Saying and hearing announcements."""

    async def open(self, ipv6: bool, hosts: Sequence[str] | None) -> None:
        """Begin to listen, on all interfaces or those of these addresses. Raises OSError where none can be used."""

    async def announce(self, announcement: Announcement) -> None:
        """Say this, and nothing that was said before."""

    async def withdraw(self) -> None:
        """Say goodbye."""

    async def rescan(self) -> None:
        """Interfaces have come or gone."""

    async def close(self) -> None: ...


class MdnsRadio:
    """`Radio` over the real network. `on_heard` and `on_lost` are called on the loop."""

    def __init__(
        self,
        on_heard: Callable[[Announcement], None],
        on_lost: Callable[[str], None],
        log: logging.Logger,
    ) -> None:
        self._on_heard = on_heard
        self._on_lost = on_lost
        self._log = log
        self._zeroconf: AsyncZeroconf | None = None
        self._browser: AsyncServiceBrowser | None = None
        self._said: AsyncServiceInfo | None = None
        self._resolving: dict[str, asyncio.Task[None]] = {}

    async def open(self, ipv6: bool, hosts: Sequence[str] | None) -> None:
        zeroconf = await asyncio.to_thread(_load)
        version = zeroconf.IPVersion.All if ipv6 else zeroconf.IPVersion.V4Only
        interfaces: Any = zeroconf.InterfaceChoice.All if hosts is None else list(hosts)
        opened = zeroconf.asyncio.AsyncZeroconf(interfaces=interfaces, ip_version=version)
        try:
            await opened.zeroconf.async_wait_for_start()
            self._browser = zeroconf.asyncio.AsyncServiceBrowser(
                opened.zeroconf, SERVICE, handlers=[self._on_change]
            )
        except BaseException:
            await opened.async_close()
            raise
        self._zeroconf = opened

    async def announce(self, announcement: Announcement) -> None:
        from zeroconf.asyncio import AsyncServiceInfo

        assert self._zeroconf is not None
        await self.withdraw()
        said = AsyncServiceInfo(
            SERVICE,
            f"{announcement.label}.{SERVICE}",
            port=announcement.port,
            properties={b"t": announcement.tag},
            server=f"{announcement.label}.local.",  # never the machine's own name
            parsed_addresses=list(announcement.addresses),
        )
        self._said = said
        await self._zeroconf.async_register_service(said)

    async def withdraw(self) -> None:
        said, self._said = self._said, None
        if said is not None and self._zeroconf is not None:
            await self._zeroconf.async_unregister_service(said)

    async def rescan(self) -> None:
        if self._zeroconf is not None:
            await self._zeroconf.async_update_interfaces()

    async def close(self) -> None:
        for task in list(self._resolving.values()):
            task.cancel()
        await asyncio.gather(*self._resolving.values(), return_exceptions=True)
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                if self._browser is not None:
                    await self._browser.async_cancel()
                if self._zeroconf is not None:
                    await self._zeroconf.async_close()
        except (TimeoutError, OSError):
            pass  # the network has gone first

    # -- what others say -----------------------------------------------------------------------------------

    def _on_change(
        self, zeroconf: "Zeroconf", service_type: str, name: str, state_change: "ServiceStateChange"
    ) -> None:
        label = name.removesuffix(f".{SERVICE}")
        if state_change.name == "Removed":
            self._on_lost(label)
        elif name not in self._resolving and len(self._resolving) < RESOLVING_MAX:
            task = asyncio.get_running_loop().create_task(self._resolve(zeroconf, name, label))
            self._resolving[name] = task
            task.add_done_callback(lambda _: self._resolving.pop(name, None))

    async def _resolve(self, zeroconf: "Zeroconf", name: str, label: str) -> None:
        from zeroconf.asyncio import AsyncServiceInfo

        try:
            info = AsyncServiceInfo(SERVICE, name)
            if await info.async_request(zeroconf, RESOLVE_TIMEOUT_MS):
                tag = info.properties.get(b"t") or b""
                addresses = [address for address in info.parsed_scoped_addresses() if _is_usable(address)]
                heard = Announcement(label, tag, info.port or 0, tuple(addresses[:ADDRESSES_MAX]))
                self._on_heard(heard)
        except Exception as error:  # whatever a stranger's packet leads to in a library
            self._log.info("an announcement could not be read: %s", error)


def _load() -> Any:
    """The library, off the loop: it takes 25 ms to load."""
    import zeroconf.asyncio

    return zeroconf


def _is_usable(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return not (parsed.is_multicast or parsed.is_unspecified or parsed.is_loopback)
