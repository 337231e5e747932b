"""Messages of the protocol `graphql-transport-ws`, as values.

Room: shapes alone (PROTOCOL.md of graphql-ws 6). What follows from them is `socket`'s.

    client                                       server
    connection_init {payload?}                   connection_ack
    subscribe {id, payload: {query, …}}          next {id, payload}…, then complete {id}, or error {id, payload}
    complete {id}                                ping, pong {payload?} either way
"""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

PROTOCOL = "graphql-transport-ws"
ID_MAX_CHARS = 128
TOKEN_MAX_CHARS = 8_000  # as the HTTP frame takes

# Close codes; 4403 is what the protocol recommends for who is not let in.
BAD_REQUEST = 4400
UNAUTHORIZED = 4401
FORBIDDEN = 4403
WRONG_PROTOCOL = 4406
NOT_INITIALISED = 4408
ID_IN_USE = 4409
INITIALISED_TWICE = 4429

_Id = Annotated[str, msgspec.Meta(min_length=1, max_length=ID_MAX_CHARS)]
_encode = msgspec.json.Encoder().encode


class ConnectionInit(msgspec.Struct, tag_field="type", tag="connection_init"):
    payload: dict[str, Any] | None = None


class Subscribe(msgspec.Struct, tag_field="type", tag="subscribe"):
    id: _Id
    payload: dict[str, Any]


class Complete(msgspec.Struct, tag_field="type", tag="complete"):
    id: _Id


class Ping(msgspec.Struct, tag_field="type", tag="ping"):
    payload: dict[str, Any] | None = None


class Pong(msgspec.Struct, tag_field="type", tag="pong"):
    payload: dict[str, Any] | None = None


Message = ConnectionInit | Subscribe | Complete | Ping | Pong
_decode = msgspec.json.Decoder(Message).decode


class NotUnderstood(Exception):
    """Not a message of the protocol; the text says why."""


def read_message(text: str | bytes) -> Message:
    """The message in a text frame. Raises `NotUnderstood`, and nothing else."""
    try:
        message: Message = _decode(text)
        return message
    except (ValueError, RecursionError) as error:
        raise NotUnderstood(
            f"Invalid message received: {error}".encode()[:100].decode(errors="ignore")
        ) from None


class Credentials(msgspec.Struct, frozen=True):
    """`application` says where the owner token is to act; a user's token says so itself."""

    token: str | None
    application: str | None


def credentials_in(payload: Mapping[str, Any] | None) -> Credentials:
    """What the payload of `connection_init` says: `token`, or `Authorization` as over HTTP. Raises `NotUnderstood`."""
    given = payload or {}
    token = given.get("token")
    if token is None:
        token = given.get("Authorization", given.get("authorization"))
        if isinstance(token, str) and token[:7].lower() == "bearer ":
            token = token[7:].strip()
    application = given.get("application_id")
    for value in (token, application):
        if value is not None and not (isinstance(value, str) and 0 < len(value) <= TOKEN_MAX_CHARS):
            raise NotUnderstood("token and application_id must be texts")
    return Credentials(token, application)


ACK = b'{"type":"connection_ack"}'


def pong(payload: Mapping[str, Any] | None) -> bytes:
    return _encode({"type": "pong"} if payload is None else {"type": "pong", "payload": payload})


def next_of(id: str, payload: bytes) -> bytes:
    """`payload` is an answer as JSON."""
    return b'{"type":"next","id":%b,"payload":%b}' % (_encode(id), payload)


def error_of(id: str, errors: list[dict[str, Any]]) -> bytes:
    return _encode({"type": "error", "id": id, "payload": errors})


def complete_of(id: str) -> bytes:
    return b'{"type":"complete","id":%b}' % _encode(id)
