"""What can go wrong, as one family of exceptions.

Room: the exceptions and which answer of a node becomes which of them. All derive from `CosmicSyncError` and carry
what programs decide by: `error_code`, `details` (field to fault), `retry_after_s`, `status`.
"""

from collections.abc import Mapping
from typing import Any


class CosmicSyncError(Exception):
    """Something was not done. `status` is the HTTP status, None where no node has answered."""

    error_code = "ERROR"

    def __init__(
        self,
        message: str,
        *,
        error_code: str | None = None,
        status: int | None = None,
        details: Mapping[str, str] | None = None,
        retry_after_s: float | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        if error_code is not None:
            self.error_code = error_code
        self.status = status
        self.details = dict(details or {})
        self.retry_after_s = retry_after_s
        self.body = dict(body or {})


class NodeUnreachable(CosmicSyncError):
    """No node answers at the address. Whether a request that was cut off has counted is not known."""

    error_code = "NODE_UNREACHABLE"


class Closed(CosmicSyncError):
    """The client was closed before it was done. Whether a request that was cut off has counted is not known."""

    error_code = "CLOSED"

    def __init__(self, message: str = "The client was closed") -> None:
        super().__init__(message)


class StoreInUse(CosmicSyncError):
    """Another process is sending the actions of the same store."""

    error_code = "STORE_IN_USE"


class NotOffered(CosmicSyncError):
    """What was asked for cannot be said to a node in this way."""

    error_code = "NOT_OFFERED"


class BadRequest(CosmicSyncError):
    """The node did not accept the content: `details` names each fault by its field."""

    error_code = "BAD_REQUEST"


class Unauthorized(CosmicSyncError):
    """Nobody is signed in, or the token counts no more."""

    error_code = "UNAUTHORIZED"


class MfaRequired(Unauthorized):
    """The password is right; a one-time code is needed beside it."""

    error_code = "AUTH_MFA_REQUIRED"


class Forbidden(CosmicSyncError):
    """The user is known and may not do this."""

    error_code = "FORBIDDEN"


class NotFound(CosmicSyncError):
    """There is no such thing, or none that the user may know of."""

    error_code = "NOT_FOUND"


class Conflict(CosmicSyncError):
    """The request contradicts what is stored."""

    error_code = "CONFLICT"


class PreconditionFailed(Conflict):
    """The stored version is another one than the request was made on."""

    error_code = "PRECONDITION_FAILED"


class RateLimited(CosmicSyncError):
    """Too many requests; `retry_after_s` says how long to wait."""

    error_code = "RATE_LIMIT_EXCEEDED"


class ServerFault(CosmicSyncError):
    """The node could not do it, for reasons of its own."""

    error_code = "INTERNAL_SERVER_ERROR"


_BY_STATUS: dict[int, type[CosmicSyncError]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    412: PreconditionFailed,
    413: BadRequest,
    415: BadRequest,
    422: BadRequest,
    429: RateLimited,
}


def error_of(status: int, body: object, retry_after: str | None = None) -> CosmicSyncError:
    """The exception that an answer stands for; `retry_after` is the header."""
    content: Mapping[str, Any] = body if isinstance(body, Mapping) else {}
    code = content.get("error_code")
    kind = MfaRequired if code == MfaRequired.error_code else _BY_STATUS.get(status)
    if kind is None:
        kind = ServerFault if status >= 500 else CosmicSyncError
    wait = content.get("retry_after", retry_after)
    details = content.get("details")
    return kind(
        str(content.get("error", f"The node answered {status}")),
        error_code=code if isinstance(code, str) else None,
        status=status,
        details=details if isinstance(details, Mapping) else None,
        retry_after_s=_seconds(wait),
        body=content,
    )


def _seconds(value: object) -> float | None:
    try:
        return max(0.0, float(str(value)))
    except ValueError:
        return None
