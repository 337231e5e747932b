"""HTTP/1.1 answers out of received bytes, as lean as a load generator needs.

Room: bytes of one connection come in, one `Answer` at a time comes out. Nothing here
opens a socket or reads a clock, so a test can cut the bytes wherever it likes. It reads
what servers send to a well-behaved client that never pipelines: a length, chunks or no
body at all (RFC 9112, section 6). Sending and timing live in `load`.
"""

from typing import NamedTuple

from cli.bench.errors import BadAnswer

HEAD_MAX_BYTES = 64 * 1024  # far above any server's head; an endless one ends the run
BODY_MAX_BYTES = 64 * 1024 * 1024  # four times the largest request body a node takes

_HEAD_END = b"\r\n\r\n"
_LENGTH = b"\r\ncontent-length:"
_CHUNKED = b"\r\ntransfer-encoding: chunked"
_CLOSE = b"\r\nconnection: close"
_BODILESS = (204, 304)


class Answer(NamedTuple):
    """One whole answer; `keep_alive` is False when the server will close."""

    status: int
    body: bytes
    keep_alive: bool


class AnswerReader:
    """Collects one answer at a time.

    `feed` returns the answer once its last byte is in and is then ready for the next
    one. To be fed nothing, as at the end of a connection, is a fault. Interim answers
    (100 to 199) are passed over. Raises `BadAnswer`.
    """

    __slots__ = ("_held", "_need")

    def __init__(self) -> None:
        self._held = bytearray()
        self._need = 0  # no point in looking again before this many bytes are held

    def feed(self, data: bytes) -> Answer | None:
        if not data:  # what a socket gives at its end
            raise BadAnswer("the server closed the connection before its answer was whole")
        if self._held:
            self._held += data
            if len(self._held) < self._need:
                return None
            data = bytes(self._held)
        while True:
            head_end = data.find(_HEAD_END)
            if head_end < 0:
                if len(data) > HEAD_MAX_BYTES:
                    raise BadAnswer(f"a head of more than {HEAD_MAX_BYTES} bytes")
                self._hold(data, 0)
                return None
            status = _status(data)
            body_start = head_end + 4
            if status >= 200:
                break
            self._held.clear()
            data = data[body_start:]
        head = data[:head_end].lower()
        if status in _BODILESS:
            body_end, body = body_start, b""
        elif _CHUNKED in head:
            unchunked = _unchunk(data, body_start)
            if unchunked is None:
                self._hold(data, len(data) + 1)
                return None
            body_end, body = unchunked
        else:
            body_end = body_start + _length(head)
            if len(data) < body_end:
                self._hold(data, body_end)
                return None
            body = data[body_start:body_end]
        if len(data) > body_end:
            raise BadAnswer(f"{len(data) - body_end} bytes follow the answer, and nothing was asked")
        if self._held:
            self._held.clear()
        return Answer(status, body, _CLOSE not in head)

    def _hold(self, data: bytes, need: int) -> None:
        if not self._held:
            self._held += data
        self._need = need


def _status(data: bytes) -> int:
    if data[:7] != b"HTTP/1." or not data[9:12].isdigit():
        raise BadAnswer(f"not an HTTP/1.1 answer: {data[:40]!r}")
    return int(data[9:12])


def _length(head: bytes) -> int:
    start = head.find(_LENGTH)
    if start < 0:
        raise BadAnswer("an answer with neither a length nor chunks")
    start += len(_LENGTH)
    end = head.find(b"\r\n", start)
    text = (head[start:end] if end >= 0 else head[start:]).strip()
    if not text.isdigit() or len(text) > 12 or int(text) > BODY_MAX_BYTES:
        raise BadAnswer(f"a length of {text[:40]!r}")
    return int(text)


def _unchunk(data: bytes, start: int) -> tuple[int, bytes] | None:
    """End offset and content of the chunks from `start`, or None while some are missing."""
    parts: list[bytes] = []
    total = 0
    while True:
        line_end = data.find(b"\r\n", start)
        if line_end < 0:
            return None
        text = data[start:line_end].split(b";", 1)[0].strip()
        try:
            size = int(text, 16)
        except ValueError:
            raise BadAnswer(f"a chunk size of {text[:40]!r}") from None
        total += size
        if size < 0 or total > BODY_MAX_BYTES:
            raise BadAnswer(f"a chunk of {size} bytes")
        start = line_end + 2
        if size == 0:
            return _after_trailers(data, start, b"".join(parts))
        if len(data) < start + size + 2:
            return None
        parts.append(data[start : start + size])
        start += size
        if data[start : start + 2] != b"\r\n":
            raise BadAnswer("a chunk that runs past its size")
        start += 2


def _after_trailers(data: bytes, start: int, body: bytes) -> tuple[int, bytes] | None:
    while True:
        line_end = data.find(b"\r\n", start)
        if line_end < 0:
            return None
        if line_end == start:
            return line_end + 2, body
        start = line_end + 2
