"""Messages cut into frames: a length, then that many bytes.

Room: framing and its limits. What a message means is `messages`' business. Every
limit is checked on the header, before a byte of the frame is kept.

    frame    [more: 1 bit, length: 31 bits, big-endian], then `length` bytes
    message  the bytes of its frames, one after the other; all but the last have `more` set

A frame with its header has at most 1 MiB. One that is followed by more of its
message is full, so that no peer can make a message out of crumbs, and a message
has one form only.
"""

from collections.abc import Callable

from protocol.errors import Malformed, TooLarge

HEADER_BYTES = 4
FRAME_SIZE_MAX_BYTES = 1 << 20  # with the header: a small device holds a few of them without noticing
PAYLOAD_SIZE_MAX_BYTES = FRAME_SIZE_MAX_BYTES - HEADER_BYTES
_MORE = 1 << 31


def to_frames(message: bytes) -> bytes:
    """The frames of one message, one after the other."""
    size = len(message)
    if size <= PAYLOAD_SIZE_MAX_BYTES:
        return size.to_bytes(HEADER_BYTES, "big") + message
    parts: list[bytes] = []
    for start in range(0, size, PAYLOAD_SIZE_MAX_BYTES):
        part = message[start : start + PAYLOAD_SIZE_MAX_BYTES]
        has_more = start + PAYLOAD_SIZE_MAX_BYTES < size
        parts += [(len(part) | (_MORE if has_more else 0)).to_bytes(HEADER_BYTES, "big"), part]
    return b"".join(parts)


class FrameReader:
    """Bytes in, messages out.

    Holds what was fed and not yet taken: a caller that takes all there is after each feeding never holds
    more than one incomplete message and the bytes it has just read.
    """

    def __init__(self, message_size_max: Callable[[bytes], int]) -> None:
        """`message_size_max(head)` is the limit of a message that begins with these one or two bytes.

        It may raise `ProtocolError` for a head that no message has.
        """
        self._message_size_max = message_size_max
        self._buffer = bytearray()
        self._parts: list[bytes] = []  # of a message whose last frame is not here yet
        self._size_bytes = 0  # of those parts
        self._limit_bytes = 0  # of the message that they begin

    @property
    def held_bytes(self) -> int:
        """How much is kept: for those who bound memory."""
        return len(self._buffer) + self._size_bytes

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def next(self) -> bytes | None:
        """The next whole message, or None. Raises `Malformed` or `TooLarge`: then there is nothing more."""
        while (part := self._next_frame()) is not None:
            payload, has_more = part
            if not self._parts and not has_more:
                return payload
            self._parts.append(payload)
            self._size_bytes += len(payload)
            if not has_more:
                message = b"".join(self._parts)
                self._parts, self._size_bytes = [], 0
                return message
        return None

    def rest(self) -> bytes:
        """What was fed after the last message taken: for the machine that goes on with this stream."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    def _next_frame(self) -> tuple[bytes, bool] | None:
        buffer = self._buffer
        if len(buffer) < HEADER_BYTES:
            return None
        length = int.from_bytes(buffer[:HEADER_BYTES], "big")
        has_more, length = bool(length & _MORE), length & (_MORE - 1)
        if length > PAYLOAD_SIZE_MAX_BYTES:
            raise TooLarge("frame in bytes", size=length, size_max=PAYLOAD_SIZE_MAX_BYTES)
        if not length or (has_more and length < PAYLOAD_SIZE_MAX_BYTES):
            raise Malformed("an empty frame, or one that is not full and not the last")
        if not self._parts:
            head = bytes(buffer[HEADER_BYTES : HEADER_BYTES + min(2, length)])
            if len(head) < min(2, length):
                return None
            self._limit_bytes = self._message_size_max(head)
        size = self._size_bytes + length
        if size > self._limit_bytes:
            raise TooLarge("message in bytes", size=size, size_max=self._limit_bytes)
        if len(buffer) < HEADER_BYTES + length:
            return None
        payload = bytes(buffer[HEADER_BYTES : HEADER_BYTES + length])
        del buffer[: HEADER_BYTES + length]
        return payload, has_more
