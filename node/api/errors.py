"""What the API refuses, and how a refusal reads.

Room: every error that leaves the node is an `ApiError` here, and `body_of` gives it its seed's form. Handlers
raise; they never build an error reply. Errors of storage and protocol become `ApiError`s through one table
that `app` is given, so that this module knows neither.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from aiohttp import web


class ApiError(Exception):
    """A request the node refuses. `message` is for people, `code` for programs; neither holds a secret.

    `details` names each fault by its field. `extra` are further top-level members of the body.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        details: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.details = details
        self.headers = headers
        self.extra = extra


class BadRequest(ApiError):
    """The request cannot be understood."""

    def __init__(
        self, message: str = "The request was not understood", details: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(400, "BAD_REQUEST", message, details)


class ValidationFailed(ApiError):
    """The request was understood and its content is wrong: field to message, every fault at once."""

    def __init__(self, details: Mapping[str, str]) -> None:
        super().__init__(400, "BAD_REQUEST", "Validation failed", details)


class Unauthorized(ApiError):
    """The route needs a token and the request has none."""

    def __init__(self, message: str = "This request needs a token: Authorization: Bearer <token>") -> None:
        super().__init__(401, "UNAUTHORIZED", message, headers={"WWW-Authenticate": "Bearer"})


class InvalidToken(ApiError):
    """The token is forged, expired, revoked or unknown; the message does not say which."""

    def __init__(self, message: str = "Invalid authentication token provided") -> None:
        headers = {"WWW-Authenticate": 'Bearer error="invalid_token"'}
        super().__init__(401, "AUTH_INVALID_TOKEN", message, headers=headers)


class SignInHere(ApiError):
    """An administrator's token, issued by a device that is none: administrator routes want one of this node."""

    def __init__(self) -> None:
        super().__init__(
            401,
            "UNAUTHORIZED",
            "This token was issued by a device without an administrator's role: sign in on this node",
            headers={"WWW-Authenticate": "Bearer"},
        )


class Forbidden(ApiError):
    """The caller is known and may not do this."""

    def __init__(self, message: str = "You may not do this") -> None:
        super().__init__(403, "FORBIDDEN", message)


class OriginRefused(ApiError):
    """A page of an origin that is not allowed sent no valid token. The message names the way out.

    `origin` is repeated to the caller: only what `loopback.presentable` has passed.
    """

    def __init__(self, origin: str | None) -> None:
        super().__init__(
            403,
            "FORBIDDEN",
            f"Requests from {origin or 'a page of another origin'} need a valid token. "
            f"To let its pages in as local apps: civicnode origins allow {origin or 'URL'}",
        )


class NotFound(ApiError):
    """Nothing is there, or nothing this caller may know of. `details` names what of a body is not, field by field."""

    def __init__(
        self,
        message: str = "The requested resource doesn't exist",
        details: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(404, "NOT_FOUND", message, details)


class MethodNotAllowed(ApiError):
    """The path exists, with other methods."""

    def __init__(self, method: str, allowed: Sequence[str]) -> None:
        methods = ", ".join(allowed)
        message = f"{method} is not possible here, only {methods}"
        super().__init__(405, "METHOD_NOT_ALLOWED", message, headers={"Allow": methods})


class RequestTimeout(ApiError):
    """The body stopped coming."""

    def __init__(self) -> None:
        super().__init__(408, "REQUEST_TIMEOUT", "The body stopped coming", headers={"Connection": "close"})


class Conflict(ApiError):
    """The request contradicts what is stored."""

    def __init__(
        self,
        message: str = "The request conflicts with what is stored",
        details: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(409, "CONFLICT", message, details)


class PreconditionFailed(ApiError):
    """`If-Match` names another version than the stored one."""

    def __init__(self, message: str = "The stored version is another one") -> None:
        super().__init__(412, "PRECONDITION_FAILED", message)


class PayloadTooLarge(ApiError):
    """The body is longer than the route takes."""

    def __init__(self, *, size_max_bytes: int) -> None:
        super().__init__(413, "PAYLOAD_TOO_LARGE", f"The body may hold {size_max_bytes} bytes at most")
        self.size_max_bytes = size_max_bytes


class UnsupportedMediaType(ApiError):
    """The body has a type, or an encoding, that the route does not take."""

    def __init__(self, accepted: Sequence[str]) -> None:
        message = f"Content-Type must be {' or '.join(accepted)}" if accepted else "No body is taken here"
        super().__init__(415, "UNSUPPORTED_MEDIA_TYPE", message)


class ContentEncodingRefused(ApiError):
    """A compressed body: refused everywhere, since a few bytes of it can unfold into gigabytes."""

    def __init__(self) -> None:
        super().__init__(
            415, "UNSUPPORTED_MEDIA_TYPE", "Content-Encoding is not supported: send the plain body"
        )


class Misdirected(ApiError):
    """The request names a host that this node does not serve (RFC 9110, section 15.5.20)."""

    def __init__(self) -> None:
        super().__init__(421, "MISDIRECTED_REQUEST", "This node does not answer to that host name")


class RateLimited(ApiError):
    """The caller has used up its window; `retry_after_s` says when the next one begins."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(
            429,
            "RATE_LIMIT_EXCEEDED",
            "Rate limit exceeded",
            headers={"Retry-After": str(retry_after_s)},
            extra={"retry_after": retry_after_s},
        )
        self.retry_after_s = retry_after_s


class InternalError(ApiError):
    """A fault of ours. The log has its trace under the same id."""

    def __init__(self, request_id: str) -> None:
        super().__init__(
            500,
            "INTERNAL_SERVER_ERROR",
            "Something went wrong in this node; its log has the details under the request id",
            headers={"X-Request-Id": request_id},
            extra={"request_id": request_id},
        )


class Unavailable(ApiError):
    """Not now: the node is starting, stopping or catching up."""

    def __init__(
        self, message: str = "Not available right now, try again", *, retry_after_s: int = 1
    ) -> None:
        super().__init__(503, "SERVICE_UNAVAILABLE", message, headers={"Retry-After": str(retry_after_s)})


class StorageFull(ApiError):
    """The disk, or the store's own limit, is full. Nothing of the request was kept."""

    def __init__(self, message: str = "The node's storage is full: nothing was written") -> None:
        super().__init__(507, "STORAGE_FULL", message)


# An exception that is not an ApiError becomes one here; looked up along the exception's base classes.
ErrorTable = Mapping[type[BaseException], Callable[[Any], ApiError]]

# How one surface writes an error down: the JSON body.
Form = Callable[[ApiError], dict[str, object]]


def s1_form(error: ApiError) -> dict[str, object]:
    """CivicBase's format (seed S1, "Error Response Format"); also that of what belongs to no surface."""
    body: dict[str, object] = {"error": error.message, "error_code": error.code}
    if error.details is not None:
        body["details"] = error.details
    if error.extra is not None:
        body.update(error.extra)
    return body


def body_of(error: ApiError, path: str, forms: Sequence[tuple[str, Form]]) -> dict[str, object]:
    """The body of a refusal in the format of the surface that `path` belongs to.

    `forms` are path prefixes with their formats, the first that fits counts; S1's where none does.
    """
    for prefix, form in forms:
        if path.startswith(prefix):
            return form(error)
    return s1_form(error)


def from_exception(error: BaseException, table: ErrorTable) -> ApiError | None:
    """The reply a known exception stands for, or None if it is unexpected."""
    if isinstance(error, ApiError):
        return error
    for kind in type(error).__mro__:
        if (make := table.get(kind)) is not None:
            return make(error)
    if isinstance(error, web.HTTPException):
        return _from_aiohttp(error)
    if isinstance(error, web.RequestPayloadError):
        return BadRequest("The body is not what its headers announce")
    if isinstance(error, UnicodeEncodeError) and error.reason.startswith("surrogates"):
        # aiohttp reads bytes that are not UTF-8 as lone surrogates; only a request can have brought them.
        return BadRequest("The request holds text that is not UTF-8")
    if isinstance(error, (asyncio.TimeoutError, TimeoutError)):
        return Unavailable("The node did not finish in time, try again")
    return None


def _from_aiohttp(error: web.HTTPException) -> ApiError:
    match error:
        case web.HTTPRequestEntityTooLarge():
            return ApiError(413, "PAYLOAD_TOO_LARGE", "The body is too long")
        case web.HTTPMethodNotAllowed():
            return MethodNotAllowed(error.method, sorted(error.allowed_methods))
        case web.HTTPNotFound():
            return NotFound()
        case web.HTTPUnauthorized():
            return Unauthorized()
        case web.HTTPForbidden():
            return Forbidden()
        case web.HTTPBadRequest():
            return BadRequest()
    status = HTTPStatus(error.status)
    return ApiError(status, status.name, status.description or status.phrase)
