"""What web pages and other hosts can do to the node: nothing, over real sockets."""

import asyncio
import base64

import pytest

from node.api.ratelimit import RatePolicy
from node.origins import Address
from tests.node.api.harness import ADMIN_TOKEN, OWNER_TOKEN, USER_TOKEN, Api, api_with

EVIL = "http://evil.example"
FRIEND = "http://localhost:3000"

# (what, bytes with HOST for the true Host value, how it ends)
FOREIGN_HOSTS = [
    ("no Host in HTTP/1.0", b"GET /health HTTP/1.0\r\n\r\n", 421),
    ("no Host in HTTP/1.1", b"GET /health HTTP/1.1\r\n\r\n", 400),
    ("empty Host", b"GET /health HTTP/1.1\r\nHost:\r\n\r\n", 421),
    ("two Hosts", b"GET /health HTTP/1.1\r\nHost: HOST\r\nHost: HOST\r\n\r\n", 400),
    ("a second, foreign Host", b"GET /health HTTP/1.1\r\nHost: HOST\r\nHost: evil.example\r\n\r\n", 400),
    ("a rebound name", b"GET /health HTTP/1.1\r\nHost: evil.example:PORT\r\n\r\n", 421),
    ("a rebound name without port", b"GET /health HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421),
    (
        "a name that begins like ours",
        b"GET /health HTTP/1.1\r\nHost: 127.0.0.1.evil.example:PORT\r\n\r\n",
        421,
    ),
    ("a name that ends like ours", b"GET /health HTTP/1.1\r\nHost: evil.localhost:PORT\r\n\r\n", 421),
    ("the wrong port", b"GET /health HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n", 421),
    ("no port", b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 421),
    ("a trailing dot", b"GET /health HTTP/1.1\r\nHost: localhost.:PORT\r\n\r\n", 421),
    ("user information", b"GET /health HTTP/1.1\r\nHost: user@HOST\r\n\r\n", 421),
    ("a list", b"GET /health HTTP/1.1\r\nHost: HOST, evil.example\r\n\r\n", 421),
    ("a short IPv4 form", b"GET /health HTTP/1.1\r\nHost: 127.1:PORT\r\n\r\n", 421),
    ("a numeric IPv4 form", b"GET /health HTTP/1.1\r\nHost: 2130706433:PORT\r\n\r\n", 421),
    ("the wildcard", b"GET /health HTTP/1.1\r\nHost: 0.0.0.0:PORT\r\n\r\n", 421),
    ("a mapped address", b"GET /health HTTP/1.1\r\nHost: [::ffff:127.0.0.1]:PORT\r\n\r\n", 421),
    ("IPv6 in full", b"GET /health HTTP/1.1\r\nHost: [0:0:0:0:0:0:0:1]:PORT\r\n\r\n", 421),
    ("IPv6 without brackets", b"GET /health HTTP/1.1\r\nHost: ::1:PORT\r\n\r\n", 421),
    ("bytes that are not ASCII", b"GET /health HTTP/1.1\r\nHost: loc\xffalhost:PORT\r\n\r\n", 421),
    ("absolute-form, foreign", b"GET http://evil.example/health HTTP/1.1\r\nHost: HOST\r\n\r\n", 421),
    ("absolute-form, ours", b"GET http://HOST/health HTTP/1.1\r\nHost: HOST\r\n\r\n", 421),
    ("absolute-form against Host", b"GET http://HOST/health HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421),
    ("a target without slash", b"GET health HTTP/1.1\r\nHost: HOST\r\n\r\n", 400),
    ("authority-form", b"CONNECT HOST HTTP/1.1\r\nHost: HOST\r\n\r\n", 421),
    ("asterisk-form", b"OPTIONS * HTTP/1.1\r\nHost: HOST\r\n\r\n", 421),
    ("forwarded to ours", b"GET / HTTP/1.1\r\nHost: evil.example\r\nX-Forwarded-Host: HOST\r\n\r\n", 421),
    ("forwarded, RFC 7239", b"GET / HTTP/1.1\r\nHost: evil.example\r\nForwarded: host=HOST\r\n\r\n", 421),
]


async def test_only_the_nodes_own_hosts_get_past_the_frame() -> None:
    async with api_with() as api:
        for what, message, status in FOREIGN_HOSTS:
            reply = await api.raw(message.replace(b"PORT", str(api.port).encode()))
            assert reply.status == status, what
            assert reply.json["error_code"] in ("MISDIRECTED_REQUEST", "BAD_REQUEST"), what
            assert "x-ratelimit-limit" not in reply.headers, what
        for host in ("HOST", f"localhost:{api.port}", f"[::1]:{api.port}", f"LocalHost:{api.port}"):
            reply = await api.raw(b"GET /maybe/1 HTTP/1.1\r\nHost: %b\r\n\r\n" % host.encode())
            assert reply.status == 200, host


async def test_a_rebound_host_is_refused_with_a_valid_token_and_on_upgrades_too() -> None:
    async with api_with() as api:
        token = f"Authorization: Bearer {OWNER_TOKEN}\r\n".encode()
        evil = b"Host: evil.example:%d\r\n" % api.port
        for message in (
            b"POST /open/touch HTTP/1.1\r\n" + evil + token + b"\r\n",
            b"GET /v1/live HTTP/1.1\r\n" + evil + token + UPGRADE + b"\r\n",
            b"OPTIONS /v1/notes HTTP/1.1\r\n" + evil + b"Origin: http://x\r\n\r\n",
        ):
            assert (await api.raw(message)).status == 421
        assert api.notes == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": EVIL},
        {"Origin": "null"},
        {"Origin": "http://localhost:3001"},
        {"Origin": "http://localhost"},
        {"Origin": "https://localhost:3000"},
        {"Origin": EVIL, "Sec-Fetch-Site": "same-origin"},
        {"Origin": EVIL, "X-Forwarded-Host": "evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
        {"Sec-Fetch-Site": "cross-site", "Referer": FRIEND},
    ],
)
async def test_a_foreign_page_needs_a_valid_token_on_every_kind_of_route(headers: dict[str, str]) -> None:
    async with api_with() as api:
        for method, target in (
            ("GET", "/open/notes/1"),
            ("GET", "/maybe/1"),
            ("GET", "/local/1"),
            ("GET", "/v1/notes/1"),
            ("GET", "/nowhere"),
            ("POST", "/open/touch"),
            ("DELETE", "/v1/notes/1"),
        ):
            for token in (None, "forged", ""):
                refused = await api.ask(method, target, headers, token=token)
                assert refused.status == 403, (target, token)
                assert refused.json["error_code"] == "FORBIDDEN"
                assert "civicnode origins allow" in refused.json["error"]
        assert api.notes == []
        for token in (USER_TOKEN, OWNER_TOKEN):
            assert (await api.ask("GET", "/open/notes/1", headers, token=token)).status == 200
            assert (await api.ask("GET", "/v1/notes/1", headers, token=token)).status == 200
            assert (await api.ask("GET", "/nowhere", headers, token=token)).status == 404


async def test_the_refusal_names_the_command_with_the_asking_origin() -> None:
    async with api_with() as api:
        named = await api.ask("GET", "/maybe/1", {"Origin": "https://App.example:443"})
        assert "civicnode origins allow https://app.example" in named.json["error"]
        assert named.headers["access-control-allow-origin"] == "https://App.example:443"
        odd = await api.ask("GET", "/maybe/1", {"Origin": "http://x/;$(reboot)"})
        assert odd.json["error"].endswith("civicnode origins allow URL")
        plain = await api.ask("GET", "/maybe/1", {"Sec-Fetch-Site": "cross-site"})
        assert plain.json["error"].endswith("civicnode origins allow URL")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Origin": "http://HOST", "Sec-Fetch-Site": "same-origin"},
        {"Origin": FRIEND, "Sec-Fetch-Site": "same-site"},
        {"Origin": FRIEND},
    ],
)
async def test_programs_own_pages_and_allowed_origins_are_local(headers: dict[str, str]) -> None:
    async with api_with() as api:
        real = {name: value.replace("HOST", api.host) for name, value in headers.items()}
        assert (await api.ask("GET", "/open/notes/1", real)).status == 200
        assert (await api.ask("POST", "/open/touch", real)).status == 200
        assert (await api.ask("GET", "/local/1", real)).status == 200
        assert (await api.ask("GET", "/v1/notes/1", real)).status == 401
        assert api.notes == ["touched"]


async def test_origins_can_be_allowed_and_withdrawn_while_the_node_runs() -> None:
    async with api_with() as api:
        headers = {"Origin": "https://new.example"}
        assert (await api.ask("GET", "/maybe/1", headers)).status == 403
        api.server.allow_origins(["https://new.example"])
        assert (await api.ask("GET", "/maybe/1", headers)).status == 200
        assert (await api.ask("GET", "/maybe/1", {"Origin": FRIEND})).status == 403


SIMPLE_TYPES = [
    "text/plain",
    "text/plain;charset=UTF-8",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    None,
]


@pytest.mark.parametrize("content_type", SIMPLE_TYPES)
@pytest.mark.parametrize("origin", [None, EVIL, "null", FRIEND])
async def test_a_simple_post_changes_nothing(content_type: str | None, origin: str | None) -> None:
    """What a page may send without asking first: each is refused and leaves the state alone."""
    async with api_with() as api:
        headers = {} if content_type is None else {"Content-Type": content_type}
        if origin is not None:
            headers["Origin"] = origin
        for target in ("/open/notes", "/v1/notes"):
            reply = await api.ask("POST", target, headers, b'{"text": "forged"}')
            assert reply.status in (401, 403, 415), (target, reply.body)
        for token in (USER_TOKEN, OWNER_TOKEN):
            reply = await api.ask("POST", "/v1/notes", headers, b'{"text": "forged"}', token=token)
            assert reply.status == 415
        assert api.notes == []


async def test_a_simple_post_without_a_body_is_refused_by_its_origin() -> None:
    async with api_with() as api:
        for origin in (EVIL, "null"):
            assert (await api.ask("POST", "/open/touch", {"Origin": origin})).status == 403
        assert api.notes == []


PREFLIGHT = {
    "Access-Control-Request-Method": "PUT",
    "Access-Control-Request-Headers": "authorization,content-type,if-match",
}


@pytest.mark.parametrize("origin", [EVIL, FRIEND, "null"])
@pytest.mark.parametrize("target", ["/v1/notes/1", "/v1/notes", "/health", "/nowhere", "/v1/live"])
async def test_preflight_is_answered_everywhere_without_a_token(origin: str, target: str) -> None:
    async with api_with() as api:
        reply = await api.ask("OPTIONS", target, {"Origin": origin, **PREFLIGHT})
        assert reply.status == 204
        assert reply.headers["access-control-allow-origin"] == origin
        assert "access-control-allow-credentials" not in reply.headers
        allowed = reply.headers["access-control-allow-headers"].lower().split(", ")
        wanted = ["authorization", "content-type", "if-match", "idempotency-key", "prefer", "last-event-id"]
        wanted += ["x-api-key", "x-application-id"]
        assert allowed == wanted
        methods = reply.headers["access-control-allow-methods"].split(", ")
        assert {"GET", "POST", "PUT", "PATCH", "DELETE"} <= set(methods)
        assert "Origin" in reply.headers["vary"]
        assert reply.body == b""


async def test_a_reply_to_another_origin_lets_its_page_read_what_the_contract_names() -> None:
    async with api_with() as api:
        reply = await api.ask("GET", "/v1/notes/1", {"Origin": EVIL}, token=USER_TOKEN)
        assert reply.headers["access-control-allow-origin"] == EVIL
        exposed = reply.headers["access-control-expose-headers"].split(", ")
        assert {
            "Deprecation",
            "ETag",
            "Link",
            "Sunset",
            "Preference-Applied",
            "Retry-After",
            "X-Held-By-Peers",
            "X-RateLimit-Limit",
            "X-RateLimit-Remaining",
            "X-RateLimit-Reset",
        } == set(exposed)
        plain = await api.ask("GET", "/v1/notes/1", token=USER_TOKEN)
        assert "access-control-allow-origin" not in plain.headers
        assert reply.repeated == plain.repeated == []


async def test_a_private_network_preflight_is_granted_when_asked_for() -> None:
    async with api_with() as api:
        asked = {"Origin": EVIL, "Access-Control-Request-Private-Network": "true", **PREFLIGHT}
        reply = await api.ask("OPTIONS", "/v1/notes", asked)
        assert reply.headers["access-control-allow-private-network"] == "true"


async def test_plain_options_names_the_methods() -> None:
    async with api_with() as api:
        reply = await api.ask("OPTIONS", "/v1/notes/1")
        assert (reply.status, reply.headers["allow"]) == (204, "DELETE, GET, HEAD, PUT, OPTIONS")
        assert (await api.ask("OPTIONS", "/nowhere")).status == 404


UPGRADE = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
    + base64.b64encode(b"0" * 16)
    + b"\r\n"
)


async def upgraded(api: Api, *headers: str, target: str = "/v1/live") -> int:
    head = "".join(f"{header}\r\n" for header in headers).encode()
    reply = await api.raw(b"GET %b HTTP/1.1\r\nHost: HOST\r\n" % target.encode() + head + UPGRADE + b"\r\n")
    return reply.status


async def test_the_same_rules_hold_for_upgrades() -> None:
    async with api_with() as api:
        own = f"Origin: http://{api.host}"
        bearer = f"Authorization: Bearer {USER_TOKEN}"
        assert await upgraded(api) == 101
        assert await upgraded(api, own) == 101
        assert await upgraded(api, f"Origin: {FRIEND}") == 101
        for origin in (EVIL, "null", "http://localhost:3001", "http://evil.example:1"):
            assert await upgraded(api, f"Origin: {origin}") == 403
            assert await upgraded(api, f"Origin: {origin}", "Authorization: Bearer forged") == 403
            assert await upgraded(api, f"Origin: {origin}", target="/v1/live?token=forged") == 403
            assert await upgraded(api, f"Origin: {origin}", bearer) == 101
            assert await upgraded(api, f"Origin: {origin}", target=f"/v1/live?token={USER_TOKEN}") == 101
        assert await upgraded(api, "Sec-Fetch-Site: cross-site") == 403
        assert await upgraded(api, target="/v1/live?token=forged") == 401


async def test_a_token_in_the_address_counts_only_where_a_route_says_so() -> None:
    async with api_with() as api:
        assert (await api.ask("GET", f"/v1/notes/1?token={USER_TOKEN}")).status == 401
        assert (await api.ask("GET", f"/maybe/1?token={USER_TOKEN}", {"Origin": EVIL})).status == 403


async def test_foreign_pages_cannot_use_up_the_requests_of_local_apps() -> None:
    async with api_with(rates={"s1": RatePolicy(3600, 1000, 5)}) as api:
        for number in range(20):
            await api.ask("POST", "/open/touch", {"Origin": EVIL})
            await api.ask("GET", "/v1/notes/1", {"Origin": EVIL}, token=f"forged-{number}")
        assert (await api.ask("POST", "/open/touch")).status == 200


async def test_on_an_exposed_address_local_routes_need_a_token() -> None:
    async with api_with(address=Address("0.0.0.0", 0)) as api:
        assert (await api.ask("GET", "/local/1")).status == 401
        assert (await api.ask("GET", "/local/1", token=USER_TOKEN)).status == 200
        assert (await api.ask("GET", "/maybe/1")).status == 200


async def test_every_reply_carries_the_headers_that_keep_pages_out() -> None:
    async with api_with() as api:
        replies = [
            await api.ask("GET", "/maybe/1"),
            await api.ask("GET", "/nowhere"),
            await api.ask("GET", "/open/fail"),
            await api.ask("GET", "/admin/1", token=ADMIN_TOKEN),
            await api.ask("GET", "/maybe/1", {"Host": "evil.example"}),
        ]
        for reply in replies:
            if reply.status == 400:  # two Host headers: refused below the frame
                continue
            assert reply.headers["x-content-type-options"] == "nosniff"
            assert reply.headers["cross-origin-resource-policy"] == "same-origin"
            assert "frame-ancestors 'none'" in reply.headers["content-security-policy"]
            assert "server" not in reply.headers
            assert "set-cookie" not in reply.headers
            assert reply.headers["date"].endswith("GMT")


async def test_many_connections_at_once_each_get_their_own_answer() -> None:
    async with api_with() as api:
        replies = await asyncio.gather(
            *(api.ask("GET", f"/v1/notes/{number}", token=USER_TOKEN) for number in range(50))
        )
        assert [reply.json["id"] for reply in replies] == [str(number) for number in range(50)]
