"""Whole replies, rendered in one piece.

Room: how a finished reply becomes bytes. `aiohttp.web.Response` builds a header mapping, completes it and
serialises it for each reply; a node's replies differ in little but their body, so `Reply` joins prepared
lines instead (tried: 22 against 31 µs a request, connection handling included). What needs aiohttp's own
responses (WebSockets, files, streams) uses them unchanged; `middleware` gives those the same headers.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter
from multidict import CIMultiDict

# A page may load nothing through a reply that is data, and no page may frame it.
DATA_POLICY = "default-src 'none'; frame-ancestors 'none'"


def kind(content_type: str, *, policy: str = DATA_POLICY, cache: str = "no-cache") -> bytes:
    """The header lines that depend on what a body is; prepare them once and hand them to `Reply`.

    `no-cache` lets a client keep a reply and ask with its ETag whether it still holds.
    """
    return (
        f"Content-Type: {content_type}\r\nCache-Control: {cache}\r\nContent-Security-Policy: {policy}\r\n"
    ).encode("ascii")


JSON = kind("application/json")
TEXT = kind("text/plain; charset=utf-8")

_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}
_BODILESS = frozenset({204, 304})  # RFC 9110, section 6.4.1; a node sends no other 1xx than 100 and 101
_DIGITS = tuple(b"%d\r\n\r\n" % length for length in range(4096))

_encode = msgspec.json.Encoder().encode


class Reply(web.StreamResponse):
    """A complete reply. `headers` are those beyond its kind; names and values must be free of line breaks."""

    _reason = ""

    def __init__(
        self,
        body: bytes = b"",
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        kind: bytes = JSON,
    ) -> None:
        # The base class's own is left out on purpose: it makes the header mapping that this class avoids.
        self._status = status
        self._lines = b"" if headers is None else _lines_of(headers)
        self._kind = kind
        self.body = body

    @classmethod
    def again(cls, status: int, own_head: bytes, body: bytes) -> "Reply":
        """A reply that was given before: see `own_head`."""
        reply = cls(body, status, kind=b"")
        reply._lines = own_head
        return reply

    @property
    def own_head(self) -> bytes:
        """The header lines of this reply itself, without those of its request."""
        return self._kind + self._lines

    @property
    def is_secret(self) -> bool:
        """Whether nobody may keep it."""
        return b"no-store" in self._kind

    @property
    def headers(self) -> CIMultiDict[str]:
        """The headers of this reply itself, as a copy: what a reply says is settled when it is made."""
        headers: CIMultiDict[str] = CIMultiDict()
        for line in (self._kind + self._lines).decode("utf-8").split("\r\n"):
            name, _, value = line.partition(": ")
            if name:
                headers.add(name, value)
        return headers

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Note where to write. `request.head`, where there is one, is the header lines of the frame."""
        if self._payload_writer is None and not self._eof_sent:
            self._payload_writer = request.writer
            keep_alive = request.keep_alive if self._keep_alive is None else self._keep_alive
            self._keep_alive = keep_alive
            head: bytes = getattr(request, "head", b"")
            if not keep_alive:
                head += b"Connection: close\r\n"
            elif request.version != HttpVersion11:
                head += b"Connection: keep-alive\r\n"
            self._head = head
            self._is_head = request.method == "HEAD"
        return self._payload_writer

    async def write_eof(self, data: bytes = b"") -> None:
        """Send everything at once and wait while the connection is clogged."""
        writer = self._payload_writer
        if writer is None:
            return
        body = self.body
        status = self._status
        if status in _BODILESS:
            message = b"".join((_STATUS_LINES[status], self._head, self._lines, b"\r\n"))
        else:
            length = len(body)
            digits = _DIGITS[length] if length < 4096 else b"%d\r\n\r\n" % length
            line = _STATUS_LINES[status]
            if self._is_head:
                body = b""
            message = b"".join((line, self._head, self._kind, self._lines, b"Content-Length: ", digits, body))
        self._payload_writer = None
        self._eof_sent = True
        self._body_length = len(body)
        await writer.write_eof(message)


def json_response(content: Any = None, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """A JSON reply of `content`: bytes are taken as rendered JSON, anything else is rendered by msgspec."""
    return Reply(content if type(content) is bytes else _encode(content), status, headers)


def no_content(headers: Mapping[str, str] | None = None) -> Reply:
    """204: done, and there is nothing to say."""
    return Reply(b"", 204, headers)


def _lines_of(headers: Mapping[str, str]) -> bytes:
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if lines.count("\r") != len(headers) or lines.count("\n") != len(headers) or "\0" in lines:
        raise ValueError("a header with a line break in it")
    return lines.encode("utf-8")
