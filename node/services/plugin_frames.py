"""What a node and the process of its plugins say to each other: frames of JSON.

Room: `size u32, JSON`, over sockets and over asyncio's streams. Who says what is in `plugin_worker`.
"""

import asyncio
import socket
from collections.abc import Mapping
from typing import Any

import msgspec

FRAME_MAX_BYTES = (
    64 << 20
)  # a request of the API has 16 MiB at most; records and their previous state come twice
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode


def pack(message: Mapping[str, Any]) -> bytes:
    """A frame. Raises TypeError if JSON cannot hold it, ValueError if it is too large."""
    data = _encode(message)
    if len(data) > FRAME_MAX_BYTES:
        raise ValueError(f"{len(data)} bytes are more than the {FRAME_MAX_BYTES} of a message")
    return len(data).to_bytes(4, "big") + data


async def unpack_from(reader: asyncio.StreamReader) -> dict[str, Any] | None:
    """The next message; None at the end. Raises ValueError for what is none."""
    try:
        size = int.from_bytes(await reader.readexactly(4), "big")
        if size > FRAME_MAX_BYTES:
            raise ValueError("a message is too large")
        return _decode(await reader.readexactly(size))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


def send(connection: socket.socket, message: Mapping[str, Any]) -> None:
    """Blocks. Raises OSError."""
    connection.sendall(pack(message))


def receive(connection: socket.socket) -> dict[str, Any] | None:
    """The next message; None at the end. Blocks. Raises OSError, or ValueError for what is none."""
    head = _receive_exactly(connection, 4)
    if head is None:
        return None
    size = int.from_bytes(head, "big")
    if size > FRAME_MAX_BYTES:
        raise ValueError("a message is too large")
    data = _receive_exactly(connection, size)
    return None if data is None else _decode(data)


def _receive_exactly(connection: socket.socket, size: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < size:
        part = connection.recv(min(size - len(parts), 1 << 20))
        if not part:
            return None
        parts += part
    return bytes(parts)
