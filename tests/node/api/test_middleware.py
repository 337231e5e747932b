import asyncio
import json
from collections.abc import Iterator

import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from node.api.errors import ApiError, Conflict, Unavailable
from node.api.ratelimit import RatePolicy
from node.api.replies import Reply
from node.api.requests import read_query
from node.api.routes import Auth, Route
from tests.node.api.harness import ADMIN_TOKEN, NOW_MS, OWNER_TOKEN, USER_TOKEN, Api, api_with


async def test_a_token_makes_the_caller_and_its_absence_a_401() -> None:
    async with api_with() as api:
        reply = await api.ask("GET", "/v1/notes/7", token=USER_TOKEN)
        assert (reply.status, reply.json) == (200, {"id": "7", "user": "u1", "application": "default"})
        missing = await api.ask("GET", "/v1/notes/7")
        assert (missing.status, missing.json["error_code"]) == (401, "UNAUTHORIZED")
        assert missing.headers["www-authenticate"] == "Bearer"
        bad = await api.ask("GET", "/v1/notes/7", token="forged")
        assert bad.status == 401
        assert bad.json == {
            "error": "Invalid authentication token provided",
            "error_code": "AUTH_INVALID_TOKEN",
        }


@pytest.mark.parametrize(
    "value", ["Basic dXNlcjp3b3Jk", "Bearer", "Bearer ", "bearer", f"Token {USER_TOKEN}", USER_TOKEN]
)
async def test_what_is_not_a_bearer_token_is_no_token(value: str) -> None:
    async with api_with() as api:
        reply = await api.ask("GET", "/v1/notes/7", {"Authorization": value})
        assert (reply.status, reply.json["error_code"]) == (401, "UNAUTHORIZED")


@pytest.mark.parametrize("value", ["Bearer ünïcode", "Bearer \udcff\udcfe", "Bearer " + "x" * 8001])
async def test_a_token_that_cannot_be_one_is_refused_before_it_is_looked_at(value: str) -> None:
    async with api_with() as api:
        reply = await api.ask("GET", "/v1/notes/7", {"Authorization": value})
        assert (reply.status, reply.json["error_code"]) == (401, "AUTH_INVALID_TOKEN")


async def test_the_scheme_is_read_in_any_case() -> None:
    async with api_with() as api:
        reply = await api.ask("GET", "/v1/notes/7", {"Authorization": f"bEARER  {USER_TOKEN}"})
        assert reply.status == 200


async def test_an_optional_token_must_be_valid_if_there_is_one() -> None:
    async with api_with() as api:
        assert (await api.ask("GET", "/maybe/7")).json["user"] is None
        assert (await api.ask("GET", "/maybe/7", token=USER_TOKEN)).json["user"] == "u1"
        assert (await api.ask("GET", "/maybe/7", token="forged")).status == 401


async def test_an_open_route_does_not_look_at_tokens() -> None:
    async with api_with() as api:
        reply = await api.ask("GET", "/open/notes/7", token="expired")
        assert (reply.status, reply.json["user"]) == (200, None)


async def test_administrators_routes_are_theirs_and_the_owners() -> None:
    async with api_with() as api:
        assert (await api.ask("GET", "/admin/7")).status == 401
        refused = await api.ask("GET", "/admin/7", token=USER_TOKEN)
        assert (refused.status, refused.json["error_code"]) == (403, "FORBIDDEN")
        assert (await api.ask("GET", "/admin/7", token=ADMIN_TOKEN)).status == 200
        assert (await api.ask("GET", "/admin/7", token=OWNER_TOKEN)).status == 200


async def test_the_owner_token_may_name_an_application() -> None:
    async with api_with() as api:
        named = await api.ask("GET", "/v1/notes/7", {"X-Application-Id": "app_1"}, token=OWNER_TOKEN)
        assert named.json["application"] == "app_1"
        bad = await api.ask("GET", "/v1/notes/7", {"X-Application-Id": "../x"}, token=OWNER_TOKEN)
        assert bad.status == 400
        other = await api.ask("GET", "/v1/notes/7", {"X-Application-Id": "app_1"}, token=USER_TOKEN)
        assert other.json["application"] == "default"


async def test_every_counted_reply_says_what_is_left() -> None:
    async with api_with(rates={"s1": RatePolicy(3600, 3, 2)}) as api:
        reset = str((NOW_MS // 3_600_000 + 1) * 3600)
        for left in ("2", "1", "0"):
            reply = await api.ask("GET", "/v1/notes/7", token=USER_TOKEN)
            assert reply.status == 200
            assert reply.headers["x-ratelimit-limit"] == "3"
            assert reply.headers["x-ratelimit-remaining"] == left
            assert reply.headers["x-ratelimit-reset"] == reset
        refused = await api.ask("GET", "/v1/notes/7", token=USER_TOKEN)
        wait_s = int(reset) - NOW_MS // 1000
        assert (refused.status, refused.headers["retry-after"]) == (429, str(wait_s))
        assert refused.json == {
            "error": "Rate limit exceeded",
            "error_code": "RATE_LIMIT_EXCEEDED",
            "retry_after": wait_s,
        }
        assert refused.headers["x-ratelimit-remaining"] == "0"
        assert (await api.ask("GET", "/v1/notes/7", token=OWNER_TOKEN)).status == 200
        assert (await api.ask("GET", "/v1/notes/7", token=ADMIN_TOKEN)).status == 200
        api.now_ms = int(reset) * 1000
        assert (await api.ask("GET", "/v1/notes/7", token=USER_TOKEN)).status == 200


async def test_refusals_are_counted_too_and_a_stale_token_only_against_itself() -> None:
    async with api_with(rates={"s1": RatePolicy(3600, 3, 2)}) as api:
        statuses = [(await api.ask("GET", "/v1/notes/7", token="stale")).status for _ in range(3)]
        assert statuses == [401, 401, 429]
        assert (await api.ask("GET", "/v1/notes/7")).status == 401
        assert (await api.ask("GET", "/nowhere")).status == 404
        assert (await api.ask("GET", "/nowhere")).status == 429
        from_a_page = await api.ask("GET", "/maybe/1", {"Origin": "http://localhost:3000"})
        assert from_a_page.status == 200  # counted under its origin


async def test_the_owner_is_not_counted() -> None:
    async with api_with(rates={"s1": RatePolicy(3600, 1, 1)}) as api:
        for _ in range(5):
            reply = await api.ask("GET", "/v1/notes/7", token=OWNER_TOKEN)
            assert reply.status == 200
            assert "x-ratelimit-limit" not in reply.headers


async def test_the_owner_is_not_counted_on_unknown_paths_nor_users_as_strangers() -> None:
    async with api_with(rates={"s1": RatePolicy(3600, 1, 1)}) as api:
        for _ in range(3):
            assert (await api.ask("GET", "/nowhere", token=OWNER_TOKEN)).status == 404
            assert (await api.ask("TRACE", "/v1/notes/1", token=OWNER_TOKEN)).status == 405
        assert (await api.ask("GET", "/nowhere", token=USER_TOKEN)).status == 404
        assert (await api.ask("GET", "/nowhere")).status == 404
        assert (await api.ask("GET", "/nowhere")).status == 429


async def test_unknown_paths_and_methods() -> None:
    async with api_with() as api:
        missing = await api.ask("GET", "/nowhere")
        assert missing.json == {"error": "The requested resource doesn't exist", "error_code": "NOT_FOUND"}
        assert (await api.ask("GET", "/v1/notes/1/")).status == 404
        assert (await api.ask("GET", "/v1//notes/1")).status == 404
        wrong = await api.ask("PATCH", "/v1/notes/1", token=USER_TOKEN)
        assert (wrong.status, wrong.headers["allow"]) == (405, "DELETE, GET, HEAD, PUT")
        assert wrong.json["error_code"] == "METHOD_NOT_ALLOWED"
        assert (await api.ask("TRACE", "/v1/notes/1")).status == 405


async def test_head_answers_as_get_without_the_body() -> None:
    async with api_with() as api:
        got = await api.ask("GET", "/v1/notes/7", token=USER_TOKEN)
        head = await api.ask("HEAD", "/v1/notes/7", token=USER_TOKEN)
        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-length"] == str(len(got.body))


async def test_a_fault_of_ours_is_a_500_with_an_id_and_the_trace_stays_in_the_log() -> None:
    async with api_with() as api:
        reply = await api.ask("GET", "/open/fail")
        assert (reply.status, reply.headers["x-request-id"]) == (500, "req-1")
        assert reply.json["error_code"] == "INTERNAL_SERVER_ERROR"
        assert reply.json["request_id"] == "req-1"
        assert b"secret detail" not in reply.body
        assert b"Traceback" not in reply.body
        entry = json.loads(api.log.getvalue())
        assert entry["data"]["details"] == {"request_id": "req-1", "method": "GET", "route": "/open/fail"}
        assert "secret detail" in entry["data"]["trace"]
        assert (await api.ask("GET", "/maybe/1")).status == 200


async def test_known_exceptions_of_other_layers_become_replies_through_the_table() -> None:
    class GapFound(LookupError):
        pass

    async def gap(request: web.Request) -> web.StreamResponse:
        raise GapFound

    async def gone(request: web.Request) -> web.StreamResponse:
        raise web.HTTPGone

    async def moved(request: web.Request) -> web.StreamResponse:
        raise web.HTTPFound("/elsewhere")

    async def late(request: web.Request) -> web.StreamResponse:
        raise TimeoutError

    def conflict(error: LookupError) -> ApiError:
        return Conflict("there is a gap")

    routes = [
        Route("GET", path, handler, "", auth=Auth.NONE)
        for path, handler in (("/gap", gap), ("/gone", gone), ("/moved", moved), ("/late", late))
    ]
    async with api_with(*routes, error_table={LookupError: conflict}) as api:
        found = await api.ask("GET", "/gap")
        assert (found.status, found.json) == (409, {"error": "there is a gap", "error_code": "CONFLICT"})
        aiohttps = await api.ask("GET", "/gone")
        assert (aiohttps.status, aiohttps.json["error_code"]) == (410, "GONE")
        redirect = await api.ask("GET", "/moved")
        assert (redirect.status, redirect.headers["location"]) == (302, "/elsewhere")
        timeout = await api.ask("GET", "/late")
        assert (timeout.status, timeout.headers["retry-after"]) == (503, "1")
        assert api.log.getvalue() == ""


@pytest.mark.parametrize(
    "target",
    [
        "/v1/notes/%",
        "/v1/notes/%zz",
        "/v1/notes/%1",
        "/v1/notes/%ff",
        "/v1/notes/%c3%28",
        "/v1/notes/%ed%a0%80",
        "/v1/notes/%00",
        "/v1/notes/a%0d%0aX-Evil:%201",
        "/v1/notes/%7f",
        "/v1/notes/1?q=%ff",
        "/v1/notes/1?q=%00",
        "/v1/notes/1?q=%",
        "/v1/notes/\udcff\udcfe",
        "/v1/notes/é",
        "/nowhere/%ff",
    ],
)
async def test_an_address_that_is_not_percent_encoded_text_is_a_400(target: str) -> None:
    async with api_with() as api:
        reply = await api.ask("GET", target, token=USER_TOKEN)
        assert (reply.status, reply.json["error_code"]) == (400, "BAD_REQUEST")


async def test_who_may_not_ask_or_asks_in_the_wrong_way_hears_that_first() -> None:
    async with api_with() as api:
        assert (await api.ask("GET", "/v1/notes/%00")).status == 401
        assert (await api.ask("PATCH", "/v1/notes/%00", token=USER_TOKEN)).status == 405


@pytest.mark.parametrize(
    ("target", "id"),
    [
        ("/v1/notes/%31", "1"),
        ("/v1/%6Eotes/1", "1"),
        ("/v1/notes/a%2Fb", "a/b"),
        ("/v1/notes/a%252Fb", "a%2Fb"),
        ("/v1/notes/%C3%A9", "é"),
        ("/v1/notes/a+b", "a+b"),
        ("/v1/notes/..", ".."),
        ("/v1/notes/1?a=b&c", "1"),
    ],
)
async def test_an_address_is_decoded_once(target: str, id: str) -> None:
    async with api_with() as api:
        assert (await api.ask("GET", target, token=USER_TOKEN)).json["id"] == id


MALFORMED = [
    b"\x00\x01\x02\r\n\r\n",
    b"GET / HTTP/9.9\r\nHost: HOST\r\n\r\n",
    b"GET /he\x00alth HTTP/1.1\r\nHost: HOST\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: HOST\r\nBad Header: x\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: HOST\r\nX: a\x00b\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: HOST\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
    b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: HOST\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: HOST\r\n" + b"X: y\r\n" * 500 + b"\r\n",
    b"POST /v1/notes HTTP/1.1\r\nHost: HOST\r\nContent-Length: -1\r\n\r\n",
    b"POST /v1/notes HTTP/1.1\r\nHost: HOST\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    b"POST /v1/notes HTTP/1.1\r\nHost: HOST\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nab",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64,
    b"BREW /pot HTTP/1.1\r\nHost: HOST\r\n\r\n",
]


@pytest.mark.parametrize("message", MALFORMED)
async def test_what_is_not_http_gets_a_400_in_our_format(message: bytes) -> None:
    async with api_with() as api:
        reply = await api.raw(message)
        assert reply.status == 400
        assert reply.json == {"error": "The request is not valid HTTP", "error_code": "BAD_REQUEST"}
        assert reply.headers["connection"] == "close"
        assert "trace" not in api.log.getvalue()


async def test_a_body_that_breaks_off_its_chunks_is_a_400() -> None:
    async with api_with() as api:
        head = f"POST /v1/notes HTTP/1.1\r\nHost: HOST\r\nAuthorization: Bearer {USER_TOKEN}\r\n".encode()
        chunked = head + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        good = await api.raw(chunked + b'8\r\n{"text":\r\n4\r\n"x"}\r\n0\r\n\r\n')
        assert good.status == 201
        bad = await api.raw(chunked + b'8\r\n{"text":\r\nzz\r\n')
        assert (bad.status, bad.json["error_code"]) == (400, "BAD_REQUEST")
        assert api.notes == ["x"]


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 201),
        ("application/json; charset=utf-8", 201),
        ('Application/JSON; Charset="UTF-8"', 201),
        ("application/json; charset=utf-16", 415),
        ("application/json; charset=latin-1", 415),
        ("text/json", 415),
        ("application/xml", 415),
        ("*/*", 415),
        ("", 415),
        (";", 415),
        ("application/jsonx", 415),
        ("\udcff", 415),
    ],
)
async def test_only_the_content_types_of_the_route_are_taken(content_type: str, status: int) -> None:
    async with api_with() as api:
        headers = {"Content-Type": content_type}
        reply = await api.ask("POST", "/v1/notes", headers, b'{"text":"x"}', token=USER_TOKEN)
        assert reply.status == status
        if status == 415:
            assert reply.json["error_code"] == "UNSUPPORTED_MEDIA_TYPE"


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "identity", "zstd", ""])
async def test_a_compressed_body_is_refused_unread(encoding: str) -> None:
    async with api_with() as api:
        headers = {"Content-Encoding": encoding, "Content-Type": "application/json"}
        reply = await api.ask("POST", "/v1/notes", headers, b'{"text":"x"}', token=USER_TOKEN)
        assert reply.status == 415
        assert api.notes == []


async def test_a_body_that_announces_too_much_is_refused_at_once() -> None:
    async with api_with() as api:
        for length in (str(16 * 1024 * 1024 + 1), "9" * 18):
            headers = {"Content-Type": "application/json", "Content-Length": length}
            reply = await api.ask("POST", "/v1/notes", headers, b"{", token=USER_TOKEN)
            assert (reply.status, reply.json["error_code"]) == (413, "PAYLOAD_TOO_LARGE")


async def test_a_body_that_turns_out_too_long_is_refused() -> None:
    async def take(request: web.Request) -> web.StreamResponse:
        from node.api.requests import read_body

        return Reply(b"%d" % len(await read_body(request)))

    route = Route("POST", "/small", take, "", auth=Auth.NONE, accepts=("*/*",), body_max_bytes=100)
    async with api_with(route) as api:
        head = (
            b"POST /small HTTP/1.1\r\nHost: HOST\r\nContent-Type: a/b\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        assert (await api.raw(head + b"64\r\n" + b"x" * 100 + b"\r\n0\r\n\r\n")).body == b"100"
        assert (await api.raw(head + b"65\r\n" + b"x" * 101 + b"\r\n0\r\n\r\n")).status == 413
        assert (await api.ask("POST", "/small", {"Content-Type": "a/b"}, b"x" * 101)).status == 413


async def test_a_client_that_asks_first_gets_100_only_once_it_may_send() -> None:
    async with api_with() as api:
        head = (
            "POST /v1/notes HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: 12\r\n"
        )
        head = head.format(api.host) + "Expect: 100-continue\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
        writer.write(head.encode() + f"Authorization: Bearer {USER_TOKEN}\r\n\r\n".encode())
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b'{"text":"x"}')
        assert b"201 Created" in await reader.readline()
        writer.close()
        assert (await api.raw(head.encode() + b"\r\n")).status == 401
        other = head.replace("100-continue", "200-ok").encode()
        refused = await api.raw(other + f"Authorization: Bearer {USER_TOKEN}\r\n\r\n".encode())
        assert refused.status == 417


async def test_a_connection_serves_many_requests_and_closes_when_asked() -> None:
    async with api_with() as api:
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
        request = f"GET /maybe/1 HTTP/1.1\r\nHost: {api.host}\r\n\r\n".encode()
        writer.write(request * 3)  # pipelined
        for _ in range(3):
            assert (await read(reader))[0] == b"HTTP/1.1 200 OK"
        writer.write(request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert b"Connection: close" in await read(reader)
        assert await reader.read() == b""
        writer.close()


async def test_http_1_0_is_answered_and_kept_open_only_when_asked() -> None:
    async with api_with() as api:
        request = f"GET /maybe/1 HTTP/1.0\r\nHost: {api.host}\r\n".encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
        writer.write(request + b"Connection: keep-alive\r\n\r\n")
        assert b"Connection: keep-alive" in await read(reader)
        writer.write(request + b"\r\n")
        assert b"Connection: close" in await read(reader)
        assert await reader.read() == b""
        writer.close()


async def read(reader: asyncio.StreamReader) -> list[bytes]:
    lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
    length = next(int(line.split()[1]) for line in lines if line.startswith(b"Content-Length"))
    await reader.readexactly(length)
    return lines


async def test_aiohttps_own_responses_get_the_same_headers_once() -> None:
    async def plain(request: web.Request) -> web.StreamResponse:
        return web.Response(text="x", headers={"Cache-Control": "private"})

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "2"})
        await response.prepare(request)
        await response.write(b"ab")
        return response

    async def broken(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "2"})
        await response.prepare(request)
        raise RuntimeError("too late")

    routes = [
        Route("GET", path, handler, "", auth=Auth.NONE)
        for path, handler in (("/plain", plain), ("/stream", stream), ("/broken", broken))
    ]
    async with api_with(*routes) as api:
        for path in ("/plain", "/stream"):
            reply = await api.ask("GET", path, {"Origin": "http://localhost:3000"})
            assert reply.status == 200
            assert reply.headers["x-content-type-options"] == "nosniff"
            assert reply.headers["x-ratelimit-limit"] == "60"
            assert reply.headers["access-control-allow-origin"] == "http://localhost:3000"
            assert reply.repeated == []
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
        writer.write(f"GET /broken HTTP/1.1\r\nHost: {api.host}\r\n\r\n".encode())
        assert b"too late" not in await reader.read()  # cut off, no second reply
        writer.close()
        assert "too late" in api.log.getvalue()


async def test_requests_are_counted_by_route_and_logged_when_wanted() -> None:
    async with api_with(log_requests=True) as api:
        await api.ask("GET", "/v1/notes/7", token=USER_TOKEN)
        await api.ask("GET", "/v1/notes/8", token=USER_TOKEN)
        await api.ask("GET", "/secret-path-of-a-user")
        text = api.frame._parts.metrics.render()[0].decode()
        assert 'requests_total{method="GET",route="/v1/notes/{id}",status="200"} 2.0' in text
        assert 'requests_total{method="-",route="-",status="404"} 1.0' in text
        assert "secret-path" not in text + api.log.getvalue()
        first = json.loads(api.log.getvalue().splitlines()[0])
        assert first["data"]["details"]["route"] == "/v1/notes/{id}"


async def test_a_query_is_read_strictly() -> None:
    async def search(request: web.Request) -> web.StreamResponse:
        return Reply(json.dumps(read_query(request)).encode())

    async with api_with(Route("GET", "/search", search, "", auth=Auth.NONE)) as api:
        assert (await api.ask("GET", "/search?a=1&b=x%20y&c=p+q&d=")).json == {
            "a": "1",
            "b": "x y",
            "c": "p q",
            "d": "",
        }
        assert (await api.ask("GET", "/search?&a%26%2B=%3D+=&&e&=f")).json == {"a&+": "= =", "e": "", "": "f"}
        assert (await api.ask("GET", "/search?a=%FF")).status == 400
        twice = await api.ask("GET", "/search?a=1&a=2&b=1&b=2&c=1")
        assert twice.json["details"] == {"a": "Given more than once", "b": "Given more than once"}
        many = "&".join(f"p{number}=1" for number in range(65))
        assert (await api.ask("GET", f"/search?{many}")).status == 400


@pytest.fixture(scope="module")
def loop_api() -> Iterator[tuple[asyncio.AbstractEventLoop, Api]]:
    loop = asyncio.new_event_loop()
    context = api_with(rates={"s1": RatePolicy(3600, 10**9, 10**9)})
    api = loop.run_until_complete(context.__aenter__())
    yield loop, api
    loop.run_until_complete(context.__aexit__(None, None, None))
    loop.close()


TOKEN_LINE = f"Authorization: Bearer {USER_TOKEN}".encode()
_names = st.sampled_from(
    [b"Content-Type", b"If-Match", b"Origin", b"Sec-Fetch-Site", b"Authorization", b"Accept", b"Expect"]
)
_values = st.binary(max_size=30).map(lambda value: value.translate(None, b"\r\n\0"))
_targets = st.binary(max_size=40).map(lambda value: value.translate(None, b"\r\n\0 "))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    method=st.sampled_from([b"GET", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"HEAD"]),
    root=st.sampled_from([b"/v1/notes/", b"/v1/notes", b"/open/notes/", b"/", b"/maybe/"]),
    target=_targets,
    headers=st.lists(st.tuples(_names, _values), max_size=3),
    body=st.binary(max_size=40),
    signed_in=st.booleans(),
)
def test_no_request_whatever_gives_a_500(
    loop_api: tuple[asyncio.AbstractEventLoop, Api],
    method: bytes,
    root: bytes,
    target: bytes,
    headers: list[tuple[bytes, bytes]],
    body: bytes,
    signed_in: bool,
) -> None:
    loop, api = loop_api
    lines = [b"%b %b%b HTTP/1.1" % (method, root, target), b"Host: HOST", b"Content-Length: %d" % len(body)]
    lines += [b"%b: %b" % pair for pair in headers]
    if signed_in and not any(name == b"Authorization" for name, _ in headers):
        lines.append(TOKEN_LINE)
    if method == b"POST" and not any(name == b"Content-Type" for name, _ in headers):
        lines.append(b"Content-Type: application/json")
    reply = loop.run_until_complete(api.raw(b"\r\n".join(lines) + b"\r\n\r\n" + body))
    assert reply.status < 500
    if reply.status >= 400 and method != b"HEAD":
        assert set(reply.json) >= {"error", "error_code"}


def test_unavailable_says_when_to_come_back() -> None:
    assert Unavailable(retry_after_s=7).headers == {"Retry-After": "7"}


async def test_a_caller_that_hangs_up_within_its_body_fills_no_log() -> None:
    async with api_with() as api:
        _, writer = await asyncio.open_connection("127.0.0.1", api.port)
        head = f"POST /v1/notes HTTP/1.1\r\nHost: {api.host}\r\nAuthorization: Bearer {USER_TOKEN}\r\n"
        more = "Content-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
        writer.write((head + more).encode())
        await writer.drain()
        assert (await api.ask("GET", "/v1/notes/7", token=USER_TOKEN)).status == 200
        writer.transport.abort()
        assert (await api.ask("GET", "/v1/notes/7", token=USER_TOKEN)).status == 200
        assert (await api.ask("GET", "/v1/notes/7", token=USER_TOKEN)).status == 200
    assert "outside the frame" not in api.log.getvalue()
