"""Where peers come in, and how this node goes out: sockets and TLS, up to the point where a link begins.

Room: connections before anything is known of the other end. Who may knock is `limits`'; what is said on a link
is the machines'. An accepted connection is counted before TLS begins, so that a refused one costs no handshake.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Sequence

from node.listening import BACKLOG
from node.net.limits import Doorkeeper
from node.net.link import LINGER_S, Link
from node.origins import Address

TLS_TIMEOUT_S = 5.0  # two round trips; a mobile link takes one second for each at worst
DIAL_TIMEOUT_S = 8.0  # to connect and for TLS; the handshake inside has its own
STAGGER_S = 0.25  # RFC 8305, section 8: between tries of the addresses of one name

MakeLink = Callable[[Address], Link]


class Door:
    """Listens for peers. `open` it once on an event loop, `close` it once."""

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        context: ssl.SSLContext,
        make_link: MakeLink,
        keeper: Doorkeeper,
        on_refused: Callable[[str], None],
        log: logging.Logger,
    ) -> None:
        """`sockets` are bound. `on_refused` hears one word for everyone who was sent away without a link."""
        self._sockets = sockets
        self._context = context
        self._make_link = make_link
        self._keeper = keeper
        self._on_refused = on_refused
        self._log = log
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._raw: dict[Link, asyncio.Transport] = {}  # those that TLS has not begun on, or not ended

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        for sock in self._sockets:
            self._servers.append(await loop.create_server(lambda: _Knock(self), sock=sock, backlog=BACKLOG))

    async def close(self) -> None:
        """Let nobody in any more."""
        for server in self._servers:
            server.close()
        if not self._servers:
            for sock in self._sockets:
                sock.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def knock(self, transport: asyncio.Transport) -> None:
        """Somebody has connected."""
        name = transport.get_extra_info("peername")
        if not name:
            transport.abort()
            return
        address = Address(str(name[0]), int(name[1]))
        link = self._make_link(address)
        may, displaced = self._keeper.knock(link, address.host)
        if not may:
            self._on_refused("flood")
            transport.abort()
            return
        if isinstance(displaced, Link):
            self._on_refused("crowded")
            displaced.cut("others came", None)
            raw = self._raw.pop(displaced, None)
            if raw is not None:
                raw.abort()
        self._raw[link] = transport
        task = asyncio.get_running_loop().create_task(self._secure(link, transport))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _secure(self, link: Link, transport: asyncio.Transport) -> None:
        try:
            secured = await asyncio.get_running_loop().start_tls(
                transport,
                link,
                self._context,
                server_side=True,
                ssl_handshake_timeout=TLS_TIMEOUT_S,
                ssl_shutdown_timeout=LINGER_S,
            )
            if secured is None:
                raise ConnectionResetError("the other side has hung up")
            link.connection_made(secured)
        except (OSError, ssl.SSLError, asyncio.CancelledError) as error:
            transport.abort()
            link.end(str(error) or "TLS failed", "tls")
        finally:
            self._raw.pop(link, None)


class _Knock(asyncio.Protocol):
    """An accepted connection before TLS."""

    def __init__(self, door: Door) -> None:
        self._door = door

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._door.knock(transport)


async def call(link: Link, address: Address, context: ssl.SSLContext) -> None:
    """Connect a link. Raises OSError (TimeoutError, `ssl.SSLError` among them) if there is no way."""
    async with asyncio.timeout(DIAL_TIMEOUT_S):
        await asyncio.get_running_loop().create_connection(
            lambda: link,
            address.host,
            address.port,
            ssl=context,
            server_hostname="",  # no name is sent: it would tell on the way whom we call
            ssl_handshake_timeout=TLS_TIMEOUT_S,
            ssl_shutdown_timeout=LINGER_S,
            happy_eyeballs_delay=STAGGER_S,
        )
