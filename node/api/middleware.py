"""The frame that every request passes, HTTP and WebSocket upgrades alike, before any handler sees it.

Room: the order of checks and what every reply carries. In order: the host named, the form of the address,
what caused the request, preflight, encoding and size of the body, who the caller is, whether its source and
rights suffice, its rate; then the handler; then errors become replies. The rules themselves lie in
`loopback`, `routes`, `ratelimit` and `errors`. No header that a proxy would set is ever read.

It runs on every request, so it is one function without objects of its own (about 5 µs of Python; a handler
behind it and `replies.Reply` is still cheaper than a bare aiohttp application).
"""

import asyncio
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from hmac import compare_digest
from urllib.parse import unquote
from weakref import WeakSet

from aiohttp import HttpVersion11, WSCloseCode, hdrs, web
from multidict import istr

from node.api import errors, loopback
from node.api.errors import ApiError, ErrorTable, Form
from node.api.loopback import Served, Source
from node.api.ratelimit import RateLimiter, RatePolicy
from node.api.replies import Reply, json_response
from node.api.requests import ApiRequest, is_upgrade, read_body
from node.api.routes import (
    ANONYMOUS,
    BODY_MAX_BYTES,
    CALLER,
    JSON_ONLY,
    OWNER,
    TOKEN,
    UNKEPT,
    Auth,
    Authenticator,
    Caller,
    Handler,
    KeyAccess,
    Route,
    RouteTable,
    percent_decoded,
)
from node.api.versions import VERSION, unknown_path
from node.metrics import Buckets, Metrics
from node.services.idempotency import KEY_MAX_CHARS, Idempotency, Kept, caller_of
from node.services.scopes import Scopes

SEC_FETCH_SITE = istr("Sec-Fetch-Site")
API_KEY = istr("X-API-Key")
IDEMPOTENCY_KEY = istr("Idempotency-Key")
APPLICATION_ID = istr("X-Application-Id")  # which application the owner token acts in

ALLOWED_HEADERS = (
    "Authorization, Content-Type, If-Match, Idempotency-Key, Prefer, Last-Event-ID, X-API-Key, "
    "X-Application-Id"
)
EXPOSED_HEADERS = (
    "ETag, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, Retry-After, Preference-Applied, "
    "X-Held-By-Peers, Deprecation, Sunset, Link"
)
ALLOWED_METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE"
PREFLIGHT_MAX_AGE_S = 600

# On every reply. Vary, since what a reply says about origins depends on who asks.
_SECURITY = (
    b"X-Content-Type-Options: nosniff\r\n"
    b"Cross-Origin-Resource-Policy: same-origin\r\n"
    b"Referrer-Policy: no-referrer\r\n"
    b"Vary: Origin\r\n"
)
_EXPOSE = f"Access-Control-Expose-Headers: {EXPOSED_HEADERS}\r\n".encode()
_NO_BODY = frozenset({"GET", "HEAD", "OPTIONS"})
_TOKEN_MAX_CHARS = 8_000
_ADMINS_ONLY = "Only administrators may do this"
_CACHED_MAX = 1_024  # entries of each small cache here; full ones are emptied

_ID = re.compile(r"[A-Za-z0-9_.:~-]{1,64}")


@dataclass(frozen=True, slots=True)
class FrameParts:
    """What the frame works with, all handed in. `clock_ms` is wall time, `seconds` a steady clock."""

    clock_ms: Callable[[], int]
    seconds: Callable[[], float]
    new_request_id: Callable[[], str]
    log: logging.Logger
    metrics: Metrics
    authenticator: Authenticator | None = None
    owner_token: str | None = None
    owner: Caller = OWNER
    rates: Mapping[str, RatePolicy] = field(default_factory=dict)
    error_table: ErrorTable = field(default_factory=dict)
    error_forms: Sequence[tuple[str, Form]] = ()
    idempotency: Idempotency | None = None
    log_requests: bool = False


class Mounted:
    """A route in place, with its rate limiter and its counts; flat, since it is read on every request."""

    __slots__ = (
        "accepts",
        "auth",
        "body_max_bytes",
        "handler",
        "has_socket",
        "head",
        "key_access",
        "limiter",
        "method",
        "names_all",
        "path",
        "seconds",
        "seen",
        "token_in_query",
    )

    def __init__(self, route: Route, limiter: RateLimiter | None, seconds: Buckets) -> None:
        self.method = route.method
        self.path = route.path
        self.handler: Handler = route.handler
        self.auth = route.auth
        self.key_access = route.key_access
        self.head = b"" if route.deprecation is None else route.deprecation.header_lines
        self.accepts = route.accepts
        self.body_max_bytes = route.body_max_bytes
        self.token_in_query = route.token_in_query
        self.has_socket = route.has_socket
        self.names_all = route.names_all
        self.limiter = limiter
        self.seconds = seconds
        self.seen: dict[int, tuple[str, str, str]] = {}  # status -> labels of the request counter


class Frame:
    """Takes every request to its handler, or refuses it. One a node; all its state is bounded."""

    def __init__(self, routes: Sequence[Route], parts: FrameParts) -> None:
        self.sockets: WeakSet[web.WebSocketResponse] = WeakSet()  # open WebSockets, for a clean end
        self.stopping = asyncio.Event()  # set when the node stops, for handlers that stream without end
        self._parts = parts
        self._clock_ms = parts.clock_ms
        self._seconds = parts.seconds
        self._authenticator = parts.authenticator
        self._owner_token = parts.owner_token
        self._requests = parts.metrics.counter(
            "civicnode_http_requests_total", "Requests answered", ("method", "route", "status")
        )
        self._durations = parts.metrics.histogram(
            "civicnode_http_request_seconds", "From a request's headers to its reply", ("method", "route")
        )
        parts.metrics.gauge("civicnode_websockets", "Open WebSockets", lambda: len(self.sockets))
        self._limiters = {name: RateLimiter(policy) for name, policy in parts.rates.items()}
        self._table: RouteTable[Mounted] = RouteTable()
        for route in routes:
            self._table.add(route.method, route.path, self._mount(route))
        self._unknown = self._mount(
            Route("-", "-", _unknown, "", auth=Auth.OPTIONAL, key_access=KeyAccess.DATA)
        )
        self._served: Served | None = None
        self._hosts: frozenset[str] = frozenset()
        self._second = -1
        self._head = b""  # header lines of every reply within this second
        self._cors: dict[str, bytes] = {}
        self._strangers: dict[str, Caller] = {}

    def _mount(self, route: Route) -> Mounted:
        # A frame without any rates counts nothing; with some, a name that is missing is a slip of ours.
        if route.rate and route.rate not in self._limiters and self._limiters:
            raise ValueError(
                f"{route.method} {route.path} names the rate {route.rate!r}, which does not exist"
            )
        return Mounted(route, self._limiters.get(route.rate), self._durations.at((route.method, route.path)))

    def serve_as(self, served: Served) -> None:
        """From now on the node answers to this; call it once bound, and when the allowed origins change."""
        self._served = served
        self._hosts = served.hosts

    @property
    def served(self) -> Served | None:
        """What the node answers to, None before it is bound."""
        return self._served

    async def handle(self, request: ApiRequest) -> web.StreamResponse:
        """Answer one request. Raises only cancellation, and `ConnectionError` to drop the connection."""
        began_s = self._seconds()
        now_s = self._clock_ms() // 1000
        if now_s != self._second:
            self._second = now_s
            self._head = b"Date: %b\r\n%b" % (formatdate(now_s, usegmt=True).encode("ascii"), _SECURITY)
        request.head = self._head
        request.on_stream = self._note_stream
        mounted = self._unknown
        method = request.method
        reply: web.StreamResponse
        try:
            headers = request.headers
            target = request.raw_path

            # 1. Is it us who are addressed?
            hosts: Sequence[str] = headers.getall(hdrs.HOST, ())
            if len(hosts) != 1 or hosts[0] not in self._hosts:
                self._check_host(request, hosts)
            if target[:1] != "/":
                raise errors.Misdirected  # absolute-form and its kin: for proxies
            refusal: ApiError | None = None
            if "%" in target or not (target.isascii() and target.isprintable()):
                refusal = _address_refusal(target)

            # 2. What caused it?
            origin = headers.get(hdrs.ORIGIN)
            if origin is None and SEC_FETCH_SITE not in headers:
                source = Source.PROGRAM
            else:
                source = self._source(request, hosts[0])
            request.source = source

            # 3. Where does it lead?
            found = self._table.find(method, target.partition("?")[0])
            if isinstance(found, tuple):
                mounted, request.match_info = found
                if mounted.head:
                    request.head += mounted.head
                if method not in _NO_BODY:
                    refusal = refusal or self._body_refusal(request, mounted)
            elif method == "OPTIONS":
                return self._options(request, found)
            elif found:
                refusal = errors.MethodNotAllowed(method, found)
            else:
                refusal = refusal or self._not_found(target)
            if hdrs.CONTENT_ENCODING in headers:
                refusal = refusal or errors.ContentEncodingRefused()

            # 4. Who asks, and may they?
            caller: Caller | None = None
            fault: ApiError | None = None
            token: str | None = None
            auth = mounted.auth
            if auth is not Auth.NONE or source is Source.FOREIGN:
                authorization = headers.get(hdrs.AUTHORIZATION)
                if authorization is not None:
                    token = _bearer(authorization)
                elif API_KEY in headers:
                    token = headers[API_KEY]
                elif mounted.token_in_query:
                    token = _query_token(target)
                if token is not None:
                    try:
                        caller = self._known(request, token) or await self._authenticate(token)
                    except ApiError as error:
                        fault = error
            if caller is None:
                fault = self._demand(auth, source, origin, fault)
                caller = self._anonymous(request, origin, source, token)
            elif auth is Auth.ADMIN and not caller.is_admin:
                fault = errors.SignInHere() if caller.is_admin_elsewhere else errors.Forbidden(_ADMINS_ONLY)
            elif caller.scopes is not None:
                fault = _beyond_scopes(caller.scopes, mounted)
            request[CALLER] = caller
            if token is not None:
                request[TOKEN] = token

            # 5. Not too often. A refusal counts too, and learns its count.
            limiter = mounted.limiter
            if mounted.has_socket and is_upgrade(request):
                limiter = None
            if limiter is not None and not caller.is_owner:
                lines, passes = limiter.take(caller.key, caller.user_id is not None, now_s)
                request.head += lines
                if not passes:
                    raise errors.RateLimited(max(1, limiter.reset_s - now_s))
            if fault is not None or refusal is not None:
                raise fault or refusal  # type: ignore[misc]  # mypy does not see that one is there

            if hdrs.EXPECT in headers:
                await self._expect(request)
            if method == "POST" and IDEMPOTENCY_KEY in headers and caller.user_id is not None:
                reply = await self._once(request, mounted, caller)
            else:
                reply = await mounted.handler(request)
        except ApiError as error:
            reply = self._refusal(request, error)
        except Exception as error:
            reply = await self._from_exception(request, mounted, error)

        status = reply.status
        labels = mounted.seen.get(status)
        if labels is None:
            labels = mounted.seen[status] = (mounted.method, mounted.path, str(status))
        self._requests.add(labels)
        took_s = self._seconds() - began_s
        if request.stream is None or not _is_endless(request.stream):  # its life is no answer's duration
            mounted.seconds.observe(took_s)
        if self._parts.log_requests:
            details = {
                "method": method,
                "route": mounted.path,
                "status": status,
                "ms": round(took_s * 1000, 3),
            }
            self._parts.log.info("request", extra={"data": details})
        return reply

    # The less travelled branches of the above.

    async def _once(self, request: ApiRequest, mounted: Mounted, caller: Caller) -> web.StreamResponse:
        """The answer to a POST whose key says that it may come again (CONTRACT S1, `Idempotency-Key`)."""
        kept = self._parts.idempotency
        key = request.headers[IDEMPOTENCY_KEY]
        if kept is None or (request.body_exists and mounted.accepts != JSON_ONLY):
            return await mounted.handler(request)  # what is sent as a file is told by its rows
        if not 0 < len(key) <= KEY_MAX_CHARS or not key.isprintable():
            raise errors.BadRequest(f"Idempotency-Key takes 1 to {KEY_MAX_CHARS} printable characters")
        request.body_read = await read_body(request)
        who = caller_of(caller.application, caller.user_id)
        begun = kept.begin(who, request.method, request.raw_path, key, request.body_read)
        if isinstance(begun, Kept):
            return Reply.again(begun.status, begun.head, begun.body)
        try:
            request.derived_id = begun.derived_id
            reply = await mounted.handler(request)
            if isinstance(reply, Reply) and 200 <= reply.status < 300:
                answer = Kept(reply.status, reply.own_head, reply.body)
                if not reply.is_secret and UNKEPT not in request:
                    await kept.keep(begun, answer, names_all=mounted.names_all)
            return reply
        finally:
            kept.end(begun)

    def _check_host(self, request: ApiRequest, hosts: Sequence[str]) -> None:
        name = request.get_extra_info("sockname")
        local_ip = name[0] if isinstance(name, tuple) else None
        if self._served is None or not loopback.is_served(hosts, self._served, local_ip):
            raise errors.Misdirected

    def _source(self, request: ApiRequest, host: str) -> Source:
        headers = request.headers
        assert self._served is not None  # or the host would have been refused
        origins = headers.getall(hdrs.ORIGIN, ())
        source = loopback.source_of(origins, headers.get(SEC_FETCH_SITE), host, self._served)
        if len(origins) == 1:
            # The asking origin may read the reply, a refusal included: what it may *have* is decided by the
            # token, and without this a developer could not read which command lets the page in.
            request.head += self._cors_lines(origins[0])
        return source

    def _cors_lines(self, origin: str) -> bytes:
        lines = self._cors.get(origin)
        if lines is None:
            if not origin.isascii():
                return b""
            if len(self._cors) >= _CACHED_MAX:
                self._cors.clear()
            lines = self._cors[origin] = b"Access-Control-Allow-Origin: %b\r\n%b" % (origin.encode(), _EXPOSE)
        return lines

    def _options(self, request: ApiRequest, methods: Sequence[str]) -> Reply:
        """A preflight, answered for every address alike; or plain OPTIONS."""
        asked = request.headers
        if hdrs.ORIGIN not in asked or hdrs.ACCESS_CONTROL_REQUEST_METHOD not in asked:
            if not methods:
                return self._refusal(request, errors.NotFound())
            return Reply(status=204, headers={"Allow": ", ".join([*methods, "OPTIONS"])})
        headers = {
            "Access-Control-Allow-Methods": ALLOWED_METHODS,
            "Access-Control-Allow-Headers": ALLOWED_HEADERS,
            "Access-Control-Max-Age": str(PREFLIGHT_MAX_AGE_S),
        }
        if asked.get("Access-Control-Request-Private-Network") == "true":
            headers["Access-Control-Allow-Private-Network"] = "true"
        return Reply(status=204, headers=headers)

    def _not_found(self, target: str) -> ApiError:
        path = target.partition("?")[0]
        help = unknown_path(path, bool(self._table.find("", f"/{VERSION}{path}")))
        return errors.NotFound() if help is None else errors.NotFound(help)

    def _body_refusal(self, request: ApiRequest, mounted: Mounted) -> ApiError | None:
        """What is wrong with a body by its headers alone."""
        headers = request.headers
        content_type = headers.get(hdrs.CONTENT_TYPE)
        if (
            content_type not in mounted.accepts
            and request.body_exists
            and (content_type is None or not _accepts(mounted.accepts, content_type))
        ):
            return errors.UnsupportedMediaType(mounted.accepts)
        size_max_bytes = mounted.body_max_bytes
        if size_max_bytes != BODY_MAX_BYTES:
            request.body_max_bytes = size_max_bytes
        length = headers.get(hdrs.CONTENT_LENGTH)
        if length is not None and (len(length) > 18 or int(length) > size_max_bytes):
            return errors.PayloadTooLarge(size_max_bytes=size_max_bytes)
        return None

    def _known(self, request: ApiRequest, token: str) -> Caller | None:
        """The caller of a token that needs no more looking into."""
        if not token.isascii() or len(token) > _TOKEN_MAX_CHARS:
            raise errors.InvalidToken
        if self._authenticator is not None and (caller := self._authenticator.cached(token)) is not None:
            return caller
        if self._owner_token is None or not compare_digest(token, self._owner_token):
            return None
        application = request.headers.get(APPLICATION_ID)
        if application is None:
            return self._parts.owner
        if not _ID.fullmatch(application):
            raise errors.BadRequest(f"{APPLICATION_ID} is not the id of an application")
        return replace(self._parts.owner, application=application)

    async def _authenticate(self, token: str) -> Caller:
        if self._authenticator is None:
            raise errors.InvalidToken
        return await self._authenticator.authenticate(token, None)

    def _demand(
        self, auth: Auth, source: Source, origin: str | None, fault: ApiError | None
    ) -> ApiError | None:
        """What a caller without a valid token is told, None if it may pass."""
        if source is Source.FOREIGN:
            return errors.OriginRefused(None if origin is None else loopback.presentable(origin))
        if fault is not None:
            return fault
        is_exposed = self._served is None or not self._served.is_loopback
        if auth is Auth.USER or auth is Auth.ADMIN or (auth is Auth.LOCAL and is_exposed):
            return errors.Unauthorized()
        return None

    def _anonymous(
        self, request: ApiRequest, origin: str | None, source: Source, token: str | None
    ) -> Caller:
        """Nobody in particular, counted by what is known of it: local apps share one address."""
        if source is Source.FOREIGN:
            key = "foreign"  # apart, so that no web page can use up what local apps need to sign in
        elif token is not None and self._served is not None and self._served.is_loopback:
            key = f"token:{token[-40:]}"  # an app with a stale token uses up its own count only
        elif origin is not None:
            key = f"origin:{origin}"
        else:
            key = f"ip:{request.remote}"
        caller = self._strangers.get(key)
        if caller is None:
            if len(self._strangers) >= _CACHED_MAX:
                self._strangers.clear()
            caller = self._strangers[key] = replace(ANONYMOUS, key=key)
        return caller

    async def _expect(self, request: ApiRequest) -> None:
        if request.headers[hdrs.EXPECT].lower() != "100-continue":
            raise ApiError(417, "EXPECTATION_FAILED", "Only 100-continue can be expected")
        if request.version == HttpVersion11:
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0  # the reply itself has not begun

    def _refusal(self, request: ApiRequest, error: ApiError) -> Reply:
        body = errors.body_of(error, request.raw_path, self._parts.error_forms)
        return json_response(body, error.status, error.headers)

    async def _from_exception(
        self, request: ApiRequest, mounted: Mounted, error: Exception
    ) -> web.StreamResponse:
        """The reply to whatever a handler let through; the log gets what the caller must not see."""
        is_begun = request.writer.output_size > 0
        if isinstance(error, ConnectionError) and (
            request.transport is None or request.transport.is_closing()
        ):
            raise error  # the other side hung up: nobody is left to answer
        if isinstance(error, web.HTTPException) and error.status < 400 and not is_begun:
            return web.Response(status=error.status, headers={"Location": error.headers.get("Location", "/")})
        known = errors.from_exception(error, self._parts.error_table)
        if known is None:
            request_id = self._parts.new_request_id()
            details = {"request_id": request_id, "method": mounted.method, "route": mounted.path}
            self._parts.log.error("unexpected error", exc_info=error, extra={"data": details})
            known = errors.InternalError(request_id)
        if not is_begun:
            return self._refusal(request, known)
        if isinstance(request.stream, web.WebSocketResponse):
            await request.stream.close(code=WSCloseCode.INTERNAL_ERROR)
            return request.stream
        raise ConnectionResetError("a reply broke off")  # aiohttp drops the connection

    def _note_stream(self, request: ApiRequest, response: web.StreamResponse) -> None:
        request.stream = response
        if isinstance(response, web.WebSocketResponse):
            self.sockets.add(response)


def _is_endless(response: web.StreamResponse) -> bool:
    return response.status == 101 or response.content_type == "text/event-stream"


def _beyond_scopes(scopes: Scopes, mounted: Mounted) -> ApiError | None:
    """What an API key is told that does not open this route."""
    if mounted.key_access is KeyAccess.NONE:
        return errors.Forbidden("This needs a person who is signed in, not an API key")
    if mounted.key_access is KeyAccess.METHOD and not scopes.allow_method(mounted.method):
        needed = "read" if mounted.method == "GET" else "write"
        return errors.Forbidden(f"This needs an API key with the scope {needed}")
    return None


async def _unknown(request: web.Request) -> web.StreamResponse:
    raise errors.NotFound


def _bearer(authorization: str) -> str | None:
    """The token of an `Authorization` header (RFC 6750), None for any other scheme."""
    if authorization[:7].lower() != "bearer ":
        return None
    return authorization[7:].strip() or None


def _query_token(target: str) -> str | None:
    _, _, query = target.partition("?")
    for part in query.split("&"):
        if part.startswith("token="):
            return unquote(part[6:]) or None
    return None


def _address_refusal(target: str) -> ApiError | None:
    try:
        percent_decoded(target)
    except errors.BadRequest as error:
        return error
    return None


def _accepts(accepted: Sequence[str], content_type: str) -> bool:
    essence, _, rest = content_type.partition(";")
    essence = essence.strip().lower()
    if essence not in accepted and "*/*" not in accepted:
        return False
    if essence != "application/json":
        return True
    # RFC 8259 allows UTF-8 alone; a charset that says otherwise announces a body we would misread.
    charset = rest.strip().lower().replace('"', "").replace(" ", "")
    return charset in ("", "charset=utf-8", "charset=utf8")
