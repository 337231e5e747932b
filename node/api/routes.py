"""Routes as values, who may call them, and finding the one a request means.

Room: what a route is and which path it has. Every HTTP route of the node is one `Route`, from which come its
mounting (`app`), its checks (`middleware`) and its description (`openapi`). Paths are matched segment by
segment after percent-decoding, so that no spelling of a path slips past a rule made for another.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Generic, Protocol, TypeVar
from urllib.parse import unquote, unquote_to_bytes

import msgspec
from aiohttp import web

from node.api.errors import BadRequest
from node.api.versions import Deprecation
from node.services.scopes import Scopes

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Schema = type[msgspec.Struct] | dict[str, Any]

BODY_MAX_BYTES = 16 * 1024 * 1024  # as a commit: protocol/limits

JSON_ONLY = ("application/json",)


class Auth(Enum):
    """What a route asks of its caller."""

    NONE = "none"  # tokens are not looked at; a page of a foreign origin needs one all the same
    OPTIONAL = "optional"  # a token counts if there is one, and must then be valid
    LOCAL = "local"  # as OPTIONAL on a loopback address, as USER on any other
    USER = "user"
    ADMIN = "admin"


class KeyAccess(Enum):
    """What a route asks of the scopes of an API key (`services.scopes`). Routes for administrators ask for `admin`."""

    METHOD = "method"  # `read` for GET and HEAD, `write` for the others
    DATA = "data"  # nothing: its handler asks `permissions`, which knows the scopes, about each model
    NONE = "none"  # no key opens it: it is for people who are signed in


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request. `key` is what its requests are counted under. `scopes` limit an API key."""

    user_id: str | None
    application: str
    is_admin: bool = False
    is_owner: bool = False
    is_admin_elsewhere: bool = False  # an administrator whose token opens no administrator route on this node
    session_id: str | None = None
    roles: frozenset[str] = frozenset()
    key: str = ""
    issuer: str | None = None  # the node whose token it is; None for a shared secret and for keys
    api_key_id: str | None = None
    scopes: Scopes | None = None

    @property
    def known_as(self) -> tuple[str, ...]:
        """The ids of the documents that decide whether the caller stands: user, and session or API key."""
        ids = (self.user_id, self.session_id, self.api_key_id)
        return tuple(
            {id: None for id in ids if id is not None}
        )  # a backend or a peer may have named two alike


DEFAULT_APPLICATION = "default"
ANONYMOUS = Caller(user_id=None, application=DEFAULT_APPLICATION)
OWNER = Caller(user_id="owner", application=DEFAULT_APPLICATION, is_admin=True, is_owner=True)

# Where `middleware` leaves the caller for the handler.
CALLER: web.RequestKey[Caller] = web.RequestKey("caller", Caller)
# The token or API key that the caller was recognised by, if it was by one.
TOKEN: web.RequestKey[str] = web.RequestKey("token", str)
# Set by a handler whose answer shows what lies on this node's disk sealed alone: it is not kept for a repetition.
UNKEPT: web.RequestKey[bool] = web.RequestKey("unkept", bool)


class Authenticator(Protocol):
    """Turns tokens into callers; `services.tokens` has the real one."""

    def cached(self, token: str) -> Caller | None:
        """The caller of a token seen before, if it still counts. Must be quick: it runs on every request."""

    async def authenticate(self, token: str, application: str | None) -> Caller:
        """The caller of a token, in full. Raises `ApiError`, `InvalidToken` as a rule."""


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path.

    `path` holds `{name}` for a segment and may end in `{name*}` for all the rest. `request` and `responses`
    describe bodies for `openapi`; a response None has no body; `also_answers` are further content types of an answer
    with one, which are described as no more than that. `query` are JSON schemas by parameter name.
    `rate` names a policy, "" counts nothing. `token_in_query` lets `?token=` stand in where a browser cannot
    send a header: WebSockets and server-sent events. `has_socket` says that upgrades to WebSocket come here too:
    they are not counted, since sockets have limits of their own, and a client that comes back must get in.
    `names_all` says that an answer has the id of every document whose content it has, so that one which is kept
    (`Idempotency-Key`) is found once such a document is erased.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    surface: str = "S1"
    auth: Auth = Auth.USER
    key_access: KeyAccess = KeyAccess.METHOD
    request: Schema | None = None
    query: Mapping[str, dict[str, Any]] | None = None
    responses: Mapping[int, Schema | None] = field(default_factory=dict)
    also_answers: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    rate: str = "s1"
    accepts: tuple[str, ...] = JSON_ONLY
    body_max_bytes: int = BODY_MAX_BYTES
    body_optional: bool = False
    token_in_query: bool = False
    has_socket: bool = False
    names_all: bool = True
    description: str = ""
    deprecation: Deprecation | None = None


Target = TypeVar("Target")


class _Step(Generic[Target]):
    """A place in the tree of paths, reached by the segments so far."""

    __slots__ = ("any", "literal", "methods", "rest")

    def __init__(self) -> None:
        self.literal: dict[str, _Step[Target]] = {}
        self.any: _Step[Target] | None = None
        self.methods: dict[str, tuple[Target, tuple[str, ...]]] = {}
        self.rest: dict[str, tuple[Target, tuple[str, ...]]] = {}


class RouteTable(Generic[Target]):
    """Which target a method and a path lead to. Literal segments win over `{name}`, that over `{name*}`."""

    def __init__(self) -> None:
        self._root: _Step[Target] = _Step()
        self._plain: dict[tuple[str, str], Target] = {}

    def add(self, method: str, path: str, target: Target) -> None:
        """Mount `target`; HEAD comes with GET. Raises `ValueError` for a second one in the same place."""
        names: list[str] = []
        step = self._root
        segments = path.split("/")
        methods = step.methods
        for position, segment in enumerate(segments):
            if segment.startswith("{") and segment.endswith("*}"):
                if position != len(segments) - 1:
                    raise ValueError(f"{path}: {segment} must come last")
                names.append(segment[1:-2])
                methods = step.rest
                break
            if segment.startswith("{") and segment.endswith("}"):
                names.append(segment[1:-1])
                if step.any is None:
                    step.any = _Step()
                step = step.any
            else:
                step = step.literal.setdefault(segment, _Step())
            methods = step.methods
        if not path.startswith("/") or method in methods:
            raise ValueError(f"{method} {path} cannot be mounted")
        methods[method] = (target, tuple(names))
        if not names:
            self._plain[method, path] = target
        if method == "GET" and "HEAD" not in methods:
            methods["HEAD"] = methods["GET"]

    def find(self, method: str, path: str) -> tuple[Target, dict[str, str]] | list[str]:
        """The target and the values of its `{names}`, or the methods that the path has, none if unknown.

        Of what `percent_decoded` refuses the values mean nothing.
        """
        plain = self._plain.get((method, path))
        if plain is not None:
            return plain, {}
        segments = path.split("/")
        if "%" in path:
            segments = [unquote(segment) for segment in segments]
        values: list[str] = []
        # Straight down first: nearly every request goes where the first match leads.
        step = self._root
        for segment in segments:
            child = step.literal.get(segment)
            if child is None:
                if not segment:
                    break
                values.append(segment)
                child = step.any
                if child is None:
                    break
            step = child
        else:
            hit = step.methods.get(method)
            if hit is not None:
                return hit[0], dict(zip(hit[1], values, strict=True))
        return self._search(method, segments)

    def _search(self, method: str, segments: list[str]) -> tuple[Target, dict[str, str]] | list[str]:
        values: list[str] = []
        allowed: set[str] = set()
        hit = _walk(self._root, segments, 0, method, values, allowed)
        if hit is None:
            return sorted(allowed)
        return hit[0], dict(zip(hit[1], values, strict=True))


def _walk(
    step: _Step[Target], segments: list[str], at: int, method: str, values: list[str], allowed: set[str]
) -> tuple[Target, tuple[str, ...]] | None:
    """Depth first, no deeper than the deepest route; `allowed` gathers the methods of a full match without `method`.

    The first full match owns the path, literal segments before any (OpenAPI 3.1, "Path Templating Matching").
    """
    if at == len(segments):
        hit = step.methods.get(method)
        if hit is None:
            allowed.update(step.methods)
        return hit
    segment = segments[at]
    child = step.literal.get(segment)
    if child is not None:
        hit = _walk(child, segments, at + 1, method, values, allowed)
        if hit is not None or allowed:
            return hit
    if step.any is not None and segment:
        values.append(segment)
        hit = _walk(step.any, segments, at + 1, method, values, allowed)
        if hit is not None or allowed:
            return hit
        values.pop()
    if step.rest:
        hit = step.rest.get(method)
        if hit is None:
            allowed.update(step.rest)
        else:
            values.append("/".join(segments[at:]))
        return hit
    return None


_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def percent_decoded(text: str) -> str:
    """Part of a request target in the clear. Raises `BadRequest` for anything but percent-encoded UTF-8 text.

    Control characters are refused with it: no id, name or search of ours holds one, and logs and terminals
    should not meet them.
    """
    if _BAD_ESCAPE.search(text):
        raise BadRequest("The address holds a % that is not followed by two hexadecimal digits")
    try:
        decoded = unquote_to_bytes(text).decode("utf-8")
    except UnicodeError:
        raise BadRequest("The address is not UTF-8 text") from None
    if _CONTROL.search(decoded):
        raise BadRequest("The address holds a control character")
    return decoded
