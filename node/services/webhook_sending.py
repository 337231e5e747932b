"""One request to a webhook's receiver: made with care for what the target may be, and told as an outcome.

Room: the HTTP client. Each request has a connection of its own, whose address is judged when the socket is made
(`webhook_targets`), so a name that resolves to something else by then gains nothing. Redirects are not followed, no
proxy of the environment is used, no cookie is kept, and of an answer no more is read than is shown.
"""

import asyncio
import contextlib
import email.utils
import socket
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from node.services.webhook_targets import TargetRefused, raise_unless_allowed

if TYPE_CHECKING:
    from aiohttp.typedefs import LooseHeaders

TIMEOUT_S = 15.0  # of a whole attempt, looking up the name included (Standard Webhooks: 15 to 30 s)
ANSWER_READ_MAX_BYTES = 1_024  # shown in the log of deliveries
HEADER_MAX_BYTES = 8 << 10  # of one header of an answer
LOOK_UPS_MAX = 8  # at the same time: each takes a thread that nothing can end
_HEADERS = {
    "Content-Type": "application/json",
    "User-Agent": "civicnode",
    "Accept-Encoding": "identity",  # a few bytes of another one can unfold into gigabytes
}
Look = Callable[[str, int], Awaitable[list[str]]]  # the addresses of a name


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an attempt. `code` is None without an answer, and then `error` says why."""

    code: int | None
    latency_ms: int
    excerpt: str = ""
    error: str | None = None
    retry_after_s: int | None = None

    @property
    def is_delivered(self) -> bool:
        return self.code is not None and 200 <= self.code < 300


class Sender:
    """Use it on one event loop; `close` it at the end."""

    def __init__(
        self,
        *,
        allow_private: bool,
        is_own: Callable[[str, int], bool],
        seconds: Callable[[], float],
        now_ms: Callable[[], int],
        look_up: Look | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """`is_own(host, port)` is whether this node listens there. `look_up` resolves names; the system, if None."""
        self._allow_private = allow_private
        self._is_own = is_own
        self._seconds = seconds
        self._now_ms = now_ms
        self._resolver = _Resolver(look_up or LookUps())
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
        """POST once. Never raises, but for cancellation."""
        began = self._seconds()

        def took_ms() -> int:
            return max(0, int((self._seconds() - began) * 1_000))

        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._send(url, headers, body, took_ms)
        except TimeoutError:
            return Outcome(None, took_ms(), error=f"no answer within {self._timeout_s:g} s")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Outcome(None, took_ms(), error=_told(error))

    async def _send(
        self, url: str, headers: Mapping[str, str], body: bytes, took_ms: Callable[[], int]
    ) -> Outcome:
        sent: LooseHeaders = {**_HEADERS, **headers}
        async with self._open().post(
            URL(url, encoded=True), data=body, headers=sent, allow_redirects=False
        ) as answer:
            latency_ms = took_ms()
            excerpt = b""
            with contextlib.suppress(aiohttp.ClientError, OSError):  # the status has been said
                while len(excerpt) < ANSWER_READ_MAX_BYTES:
                    part = await answer.content.read(ANSWER_READ_MAX_BYTES - len(excerpt))
                    if not part:
                        break
                    excerpt += part
            answer.close()  # whatever else it would send
            return Outcome(
                answer.status,
                latency_ms,
                excerpt.decode("utf-8", "replace").replace("\0", "\ufffd"),
                None if 200 <= answer.status < 300 else f"the receiver answered {answer.status}",
                self._retry_after_s(answer.headers.get("Retry-After")),
            )

    def _retry_after_s(self, text: str | None) -> int | None:
        """Seconds, or a date (RFC 9110, section 10.2.3)."""
        if text is None:
            return None
        text = text.strip()
        if text.isascii() and text.isdigit():
            return int(text[:9])
        try:
            at = email.utils.parsedate_to_datetime(text).timestamp()
        except (ValueError, OverflowError):
            return None
        return max(0, int(at - self._now_ms() / 1_000))

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    resolver=self._resolver,
                    use_dns_cache=False,
                    force_close=True,
                    limit=0,  # how many there are at a time is decided before
                    socket_factory=self._socket,
                ),
                timeout=aiohttp.ClientTimeout(total=None),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                auto_decompress=False,
                max_line_size=HEADER_MAX_BYTES,
                max_field_size=HEADER_MAX_BYTES,
            )
        return self._session

    def _socket(self, info: tuple[Any, ...]) -> socket.socket:
        """The socket of one connection. Raises `TargetRefused`: this is the last moment at which one can."""
        family, kind, protocol, _, address = info
        raise_unless_allowed(
            str(address[0]), int(address[1]), allow_private=self._allow_private, is_own=self._is_own
        )
        return socket.socket(family, kind, protocol)


def _told(error: BaseException) -> str:
    """An error in few words that hold nothing of the target but what its owner has given."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, TargetRefused):
            return str(seen)
        seen = seen.__cause__ or seen.__context__
    match error:
        case aiohttp.ClientConnectorDNSError():
            return "the host's name cannot be resolved"
        case aiohttp.ClientSSLError() | aiohttp.ClientConnectorCertificateError():
            return "the receiver's certificate cannot be verified"
        case aiohttp.ClientConnectorError():
            return f"cannot connect: {error.strerror or 'refused'}"
        case aiohttp.ServerDisconnectedError() | ConnectionError() | aiohttp.ClientOSError():
            return "the receiver closed the connection"
    return "the receiver's answer was not understood"


class _Resolver(AbstractResolver):
    def __init__(self, look_up: Look) -> None:
        self._look_up = look_up

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in await self._look_up(host, port)
        ]

    async def close(self) -> None:
        pass


class LookUps:
    """Names looked up by the system, on threads of their own.

    A server that does not answer holds a thread for many seconds. Those of the loop's pool serve the whole node, and
    a pool's threads are waited for at the end; these are neither.
    """

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(LOOK_UPS_MAX)

    async def __call__(self, host: str, port: int) -> list[str]:
        await self._turns.acquire()
        loop = asyncio.get_running_loop()
        found: asyncio.Future[list[str]] = loop.create_future()

        def settle(addresses: list[str] | OSError) -> None:
            self._turns.release()
            if found.done():
                return
            if isinstance(addresses, OSError):
                found.set_exception(addresses)
            else:
                found.set_result(addresses)

        def look() -> None:
            result: list[str] | OSError
            try:
                infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
                result = list(dict.fromkeys(str(info[4][0]) for info in infos))
            except UnicodeError:
                result = OSError("not a host name")
            except OSError as error:
                result = error
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(settle, result)

        threading.Thread(target=look, name="webhook name", daemon=True).start()
        return await found
