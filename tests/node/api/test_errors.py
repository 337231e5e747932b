import pytest
from aiohttp import web

from node.api import errors
from node.api.errors import ApiError, body_of, from_exception, s1_form


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (errors.BadRequest(), 400, "BAD_REQUEST"),
        (errors.ValidationFailed({"a": "b"}), 400, "BAD_REQUEST"),
        (errors.Unauthorized(), 401, "UNAUTHORIZED"),
        (errors.InvalidToken(), 401, "AUTH_INVALID_TOKEN"),
        (errors.Forbidden(), 403, "FORBIDDEN"),
        (errors.OriginRefused(None), 403, "FORBIDDEN"),
        (errors.NotFound(), 404, "NOT_FOUND"),
        (errors.MethodNotAllowed("PUT", ["GET"]), 405, "METHOD_NOT_ALLOWED"),
        (errors.RequestTimeout(), 408, "REQUEST_TIMEOUT"),
        (errors.Conflict(), 409, "CONFLICT"),
        (errors.PreconditionFailed(), 412, "PRECONDITION_FAILED"),
        (errors.PayloadTooLarge(size_max_bytes=1), 413, "PAYLOAD_TOO_LARGE"),
        (errors.UnsupportedMediaType(["a/b"]), 415, "UNSUPPORTED_MEDIA_TYPE"),
        (errors.Misdirected(), 421, "MISDIRECTED_REQUEST"),
        (errors.RateLimited(9), 429, "RATE_LIMIT_EXCEEDED"),
        (errors.InternalError("id"), 500, "INTERNAL_SERVER_ERROR"),
        (errors.Unavailable(), 503, "SERVICE_UNAVAILABLE"),
        (errors.StorageFull(), 507, "STORAGE_FULL"),
    ],
)
def test_every_refusal_has_its_status_its_code_and_the_seeds_form(
    error: ApiError, status: int, code: str
) -> None:
    body = s1_form(error)
    assert (error.status, body["error_code"]) == (status, code)
    assert isinstance(body["error"], str)


def test_faults_are_named_as_in_the_seed() -> None:
    body = s1_form(errors.ValidationFailed({"title": "This field is required"}))
    assert body["error"] == "Validation failed"
    assert body["details"] == {"title": "This field is required"}


def test_a_surface_may_have_a_form_of_its_own_by_its_prefix() -> None:
    def other(error: ApiError) -> dict[str, object]:
        return {"message": error.message}

    forms = [("/api/v1/", other)]
    assert body_of(errors.NotFound("gone"), "/api/v1/projects", forms) == {"message": "gone"}
    assert "error_code" in body_of(errors.NotFound(), "/v1/data", forms)


def test_exceptions_are_looked_up_along_their_base_classes() -> None:
    class Full(OSError):
        pass

    table: errors.ErrorTable = {
        OSError: lambda error: errors.StorageFull(),
        Full: lambda error: errors.Conflict(),
    }
    assert isinstance(from_exception(Full(), table), errors.Conflict)
    assert isinstance(from_exception(FileNotFoundError(), table), errors.StorageFull)
    assert from_exception(KeyError(), table) is None


@pytest.mark.parametrize(
    ("raised", "status"),
    [
        (web.HTTPNotFound(), 404),
        (web.HTTPMethodNotAllowed("PUT", ["GET"]), 405),
        (web.HTTPRequestEntityTooLarge(1), 413),
        (web.HTTPUnauthorized(), 401),
        (web.HTTPForbidden(), 403),
        (web.HTTPBadRequest(text="<script>"), 400),
        (web.HTTPGone(), 410),
        (web.HTTPServiceUnavailable(), 503),
        (TimeoutError(), 503),
        (web.RequestPayloadError(), 400),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"), 400),
    ],
)
def test_aiohttps_own_exceptions_are_told_in_our_words(raised: Exception, status: int) -> None:
    known = from_exception(raised, {})
    assert known is not None
    assert known.status == status
    assert "script" not in known.message
