from email.utils import parsedate_to_datetime

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from node.api.openapi import describe
from node.api.replies import json_response
from node.api.routes import Auth, Route
from node.api.versions import NOTICE_MIN_S, Deprecation, unknown_path
from tests.node.api.harness import NOW_MS, USER_TOKEN, api_with

SINCE_S = NOW_MS // 1000
GOING = Deprecation(SINCE_S, SINCE_S + NOTICE_MIN_S, "https://example.org/next?a=1#b")


async def old(_request: web.Request) -> web.StreamResponse:
    return json_response({"still": "here"})


OLD = Route("GET", "/v1/old", old, "An old route", deprecation=GOING)


async def test_a_route_that_goes_says_so_in_every_answer() -> None:
    async with api_with(OLD) as api:
        for token, status in ((USER_TOKEN, 200), (None, 401)):
            reply = await api.ask("GET", "/v1/old", token=token)
            assert reply.status == status
            assert reply.headers["deprecation"] == f"@{SINCE_S}"
            sunset = parsedate_to_datetime(reply.headers["sunset"])
            assert sunset.timestamp() == SINCE_S + NOTICE_MIN_S
            assert reply.headers["link"] == '<https://example.org/next?a=1#b>; rel="deprecation"'
        reply = await api.ask("GET", "/v1/notes/1", token=USER_TOKEN)
        assert not {"deprecation", "sunset", "link"} & reply.headers.keys()


async def test_pages_may_read_of_it() -> None:
    async with api_with(OLD) as api:
        reply = await api.ask("GET", "/v1/old", {"Origin": "http://localhost:3000"}, token=USER_TOKEN)
        exposed = reply.headers["access-control-expose-headers"].lower().split(", ")
        assert {"deprecation", "sunset", "link"} <= set(exposed)


def test_the_description_marks_it() -> None:
    operation = describe([OLD], version="1")["paths"]["/v1/old"]["get"]
    assert operation["deprecated"] is True and "Deprecated" in operation["description"]


@given(st.integers(0, 2**33), st.one_of(st.none(), st.integers(0, NOTICE_MIN_S * 2)), st.text())
def test_no_notice_is_shorter_than_promised_and_no_link_breaks_a_header(
    since_s: int, notice_s: int | None, link: str
) -> None:
    sunset_s = None if notice_s is None else since_s + notice_s
    try:
        made = Deprecation(since_s, sunset_s, link)
    except ValueError:
        return
    assert notice_s is None or notice_s >= NOTICE_MIN_S
    assert made.header_lines.count(b"\r\n") == 2 + (notice_s is not None)
    assert made.header_lines.endswith(f'Link: <{link}>; rel="deprecation"\r\n'.encode())


@pytest.mark.parametrize("path", ["/v2/notes/1", "/v2", "/v11/notes", "/v0/", "/v10/v1/notes/1"])
async def test_another_version_is_told_which_there_is(path: str) -> None:
    async with api_with() as api:
        reply = await api.ask("GET", path)
        assert (reply.status, reply.json["error_code"]) == (404, "NOT_FOUND")
        assert "/v1/" in reply.json["error"]


async def test_a_path_without_its_version_is_told_so() -> None:
    async with api_with() as api:
        for method, path in (("GET", "/notes/1"), ("POST", "/notes"), ("PATCH", "/notes/1")):
            reply = await api.ask(method, path)
            assert reply.status == 404 and "/v1/" in reply.json["error"]


@pytest.mark.parametrize("path", ["/nowhere", "/v1/nowhere", "/value", "/va/x", "/v/1"])
async def test_nothing_is_guessed_of_any_other_path(path: str) -> None:
    async with api_with() as api:
        assert (await api.ask("GET", path)).json["error"] == "The requested resource doesn't exist"
    assert unknown_path(path, False) is None


async def test_what_is_refused_for_its_body_is_counted_and_told_its_count() -> None:
    async with api_with() as api:
        for headers in ({"Content-Type": "text/html"}, {"Content-Encoding": "gzip"}):
            sent = {"Content-Type": "application/json"} | headers
            reply = await api.ask("POST", "/v1/notes", sent, b"{}", token=USER_TOKEN)
            assert reply.status == 415 and "x-ratelimit-remaining" in reply.headers
        long = {"Content-Type": "application/json", "Content-Length": str(1 << 40)}
        reply = await api.ask("POST", "/v1/notes", long, token=USER_TOKEN)
        assert reply.status == 413 and reply.headers["x-ratelimit-remaining"] == "997"
    assert Auth.USER is OLD.auth
