"""What handlers read from a request: body, query, headers, all checked, every fault named at once.

Room: from bytes to values. Limits and content types were checked by `middleware` before a handler runs; what
the values mean is the handler's. msgspec decodes and checks in one go but stops at the first fault, so only
when it refuses is the body decoded again and looked at field by field.
"""

import asyncio
import enum
import re
import typing
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Literal, TypeVar, overload
from urllib.parse import unquote

import msgspec
from aiohttp import hdrs, web

from node.api.errors import ApiError, BadRequest, PayloadTooLarge, RequestTimeout, ValidationFailed
from node.api.loopback import Source
from node.api.routes import BODY_MAX_BYTES

Body = TypeVar("Body", bound=msgspec.Struct)

BODY_PAUSE_S = 10.0  # how long a body may pause before the request is given up
QUERY_MAX_PARAMETERS = 64
FAULTS_MAX = 100  # an answer names so many faults at most, the first ones


class ApiRequest(web.Request):
    """A request in the frame: what `middleware` found out about it, next to what aiohttp offers."""

    ATTRS = web.Request.ATTRS | frozenset(
        {"body_max_bytes", "body_read", "derived_id", "head", "match_info", "on_stream", "source", "stream"}
    )

    match_info: dict[str, str] = {}  # type: ignore[assignment] # noqa: RUF012  # set, never changed
    head: bytes = b""  # header lines that every reply to this request carries
    source: Source = Source.FOREIGN
    body_max_bytes: int = BODY_MAX_BYTES
    body_read: bytes | None = None  # by the frame, for whoever reads it next
    derived_id: str | None = None  # for what a request with an Idempotency-Key creates
    stream: web.StreamResponse | None = None  # what aiohttp has begun to send, unless it is a `Reply`
    on_stream: Callable[["ApiRequest", web.StreamResponse], None] | None = None

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        # aiohttp calls this for its own responses just before it sends their headers.
        headers = response.headers
        for line in self.head.decode("ascii").split("\r\n"):
            if line:
                name, _, value = line.partition(": ")
                headers.setdefault(name, value)
        if self.on_stream is not None:
            self.on_stream(self, response)


def is_upgrade(request: web.Request) -> bool:
    """Whether the client wants to speak WebSocket."""
    return request.headers.get(hdrs.UPGRADE, "").strip().lower() == "websocket"


async def read_body(request: web.Request) -> bytes:
    """The whole body. Raises `PayloadTooLarge`, and `RequestTimeout` when it stops coming."""
    if (read := getattr(request, "body_read", None)) is not None:
        return bytes(read)
    size_max_bytes: int = getattr(request, "body_max_bytes", BODY_MAX_BYTES)
    content = request.content
    if content.is_eof():  # it came along with the headers, as small ones do
        body = content.read_nowait()
    else:
        parts: list[bytes] = []
        size_bytes = 0
        while True:
            try:
                async with asyncio.timeout(BODY_PAUSE_S):
                    part = await content.readany()
            except TimeoutError:
                raise RequestTimeout from None
            if not part:
                break
            size_bytes += len(part)
            if size_bytes > size_max_bytes:
                raise PayloadTooLarge(size_max_bytes=size_max_bytes)
            parts.append(part)
        body = b"".join(parts)
    if len(body) > size_max_bytes:
        raise PayloadTooLarge(size_max_bytes=size_max_bytes)
    return body


@overload
async def read_json(request: web.Request) -> dict[str, Any]: ...
@overload
async def read_json(request: web.Request, struct: None) -> dict[str, Any]: ...
@overload
async def read_json(request: web.Request, struct: type[Body]) -> Body: ...
async def read_json(request: web.Request, struct: type[Body] | None = None) -> Body | dict[str, Any]:
    """The JSON object in the body, as `struct` if one is given.

    Raises `BadRequest` for what is not a JSON object and `ValidationFailed` with every fault of its members.
    """
    body = await read_body(request)
    if not body:
        raise BadRequest("This request needs a JSON body")
    return parse_json(body, struct)


async def read_json_if_any(request: web.Request, struct: type[Body]) -> Body | None:
    """As `read_json`, or None where there is no body."""
    body = await read_body(request)
    return parse_json(body, struct) if body else None


async def read_any_json(request: web.Request) -> Any:
    """The JSON value in the body, of any kind."""
    body = await read_body(request)
    if not body:
        raise BadRequest("This request needs a JSON body")
    return _decoded(body)


@overload
def parse_json(body: bytes, struct: None = None) -> dict[str, Any]: ...
@overload
def parse_json(body: bytes, struct: type[Body]) -> Body: ...
@overload
def parse_json(body: bytes, struct: type[Body] | None) -> Body | dict[str, Any]: ...
def parse_json(body: bytes, struct: type[Body] | None = None) -> Body | dict[str, Any]:
    """What `read_json` does once the body is there; for JSON that comes by other ways (WebSocket frames)."""
    if struct is None:
        content = _decoded(body)
        if type(content) is not dict:
            raise BadRequest("The body must be a JSON object")
        return content
    try:
        decoder: msgspec.json.Decoder[Body] = _decoder(struct)
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        content = _decoded(body)
        if type(content) is not dict:
            raise BadRequest("The body must be a JSON object") from None
        faults = faults_of(struct, content)
        if not faults:  # a rule about the object as a whole
            raise BadRequest(_plain(str(error))) from None
        raise ValidationFailed(faults) from None
    except (ValueError, RecursionError) as error:
        raise _malformed(error, body) from None


def faults_of(struct: type[msgspec.Struct], content: dict[str, Any]) -> dict[str, str]:
    """Every fault of a decoded JSON object as a `struct`: where -> what, at most `FAULTS_MAX`."""
    faults: dict[str, str] = {}
    for where, what in _faults(struct, content, ""):
        faults.setdefault(where, what)
        if len(faults) == FAULTS_MAX:
            break
    return faults


def read_query(request: web.Request) -> dict[str, str]:
    """The query parameters, decoded. Raises `BadRequest` for too many, `ValidationFailed` for one given twice.

    That the address is percent-encoded UTF-8 was checked by `middleware`.
    """
    _, _, text = request.raw_path.partition("?")
    if not text:
        return {}
    parts = text.split("&")
    if len(parts) > QUERY_MAX_PARAMETERS:
        raise BadRequest(f"At most {QUERY_MAX_PARAMETERS} query parameters are taken")
    pairs = [part.replace("+", " ").partition("=") for part in parts if part]
    query = {unquote(name): unquote(value) for name, _, value in pairs}
    if len(query) != len(pairs):
        names = [unquote(name) for name, _, _ in pairs]
        twice = {name: "Given more than once" for name in query if names.count(name) > 1}
        raise ValidationFailed(twice)
    return query


def read_header(request: web.Request, name: str) -> str | None:
    """A request header, or None. Raises `BadRequest` if it is not plain ASCII, as all of ours are."""
    value = request.headers.get(name)
    if value is not None and not (value.isascii() and value.isprintable()):
        raise BadRequest(f"The header {name} holds characters other than plain ASCII")
    return value


@lru_cache(maxsize=512)
def _decoder(struct: type[Body]) -> msgspec.json.Decoder[Body]:
    return msgspec.json.Decoder(struct)


def _decoded(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (ValueError, RecursionError) as error:
        raise _malformed(error, body) from None


def _malformed(error: Exception, body: bytes) -> ApiError:
    match error:
        case RecursionError():
            return BadRequest("The body is nested too deeply")
        case _ if not _is_text(body):  # what the decoder raises then differs from release to release
            return BadRequest("The body is not UTF-8 text")
        case msgspec.ValidationError():  # a number that does not fit
            return BadRequest(_plain(str(error)))
    return BadRequest(f"The body is not valid JSON ({error})")


def _is_text(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _faults(struct: type[msgspec.Struct], content: dict[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    known = set()
    for field in msgspec.structs.fields(struct):
        name = field.encode_name
        known.add(name)
        if name in content:
            yield from _value_faults(field.type, content[name], prefix + name)
        elif field.required:
            yield prefix + name, "This field is required"
    if struct.__struct_config__.forbid_unknown_fields:
        for name in content:
            if name not in known:
                yield prefix + name, "Unknown field"


def _value_faults(kind: Any, value: Any, where: str) -> Iterator[tuple[str, str]]:
    if kind is msgspec.Raw:  # anything, which is judged when its turn comes
        return
    try:
        msgspec.convert(value, kind)
        return
    except msgspec.ValidationError as error:
        first = str(error)
    options = typing.get_args(kind) if typing.get_origin(kind) in _UNIONS else (kind,)
    for option in options:
        if isinstance(option, type) and issubclass(option, msgspec.Struct) and type(value) is dict:
            yield from _faults(option, value, where + ".")
            return
        if typing.get_origin(option) is list and type(value) is list:
            (item,) = typing.get_args(option)
            for position, member in enumerate(value):
                yield from _value_faults(item, member, f"{where}[{position}]")
            return
    for option in options:
        if (names := _options(option)) is not None and type(value) is not dict:
            yield where, f"Invalid option. Must be one of: {', '.join(names)}"
            return
    text, _, path = first.partition(" - at `$")
    yield where + path.rstrip("`"), _plain(text)


_UNIONS = (typing.Union, type(int | str))

_KINDS = {
    "str": "a text",
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "object": "an object",
    "array": "a list",
    "null": "null",
}
_LIMITS = (
    (re.compile(r" of length >= (\d+)"), r" of at least \1 characters"),
    (re.compile(r" of length <= (\d+)"), r" of at most \1 characters"),
    (re.compile(r" matching regex '(.*)'"), r" of the form \1"),
    (re.compile(r" >= (\S+)"), r" of \1 or more"),
    (re.compile(r" <= (\S+)"), r" of \1 or less"),
    (re.compile(r" > (\S+)"), r" above \1"),
    (re.compile(r" < (\S+)"), r" below \1"),
)


def _options(kind: Any) -> list[str] | None:
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return [str(member.value) for member in kind]
    return [str(option) for option in typing.get_args(kind)] if typing.get_origin(kind) is Literal else None


def _plain(message: str) -> str:
    """msgspec's message in the words of our own checks."""
    message, _, where = message.partition(" - at `$")
    if kinds := re.match(r"Expected `([^`]+)`", message):
        wanted = " or ".join(_KINDS.get(kind.strip(), kind.strip()) for kind in kinds[1].split("|"))
        limits = message[kinds.end() :].partition(", got ")[0].replace("`", "")
        for pattern, words in _LIMITS:
            limits = pattern.sub(words, limits)
        if wanted == "a list":
            limits = limits.replace("characters", "items")
        message = f"Must be {wanted}{limits}"
    where = where.strip("`.")
    return message if where in ("", "[...]") else f"{message} (at {where})"
