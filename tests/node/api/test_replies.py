import msgspec
import pytest

from node.api.replies import TEXT, Reply, json_response, kind, no_content
from node.api.routes import Auth, Route
from tests.node.api.harness import api_with


def test_a_reply_tells_its_status_headers_and_body() -> None:
    reply = json_response({"a": 1}, 201, {"ETag": '"x"', "Location": "/é"})
    assert (reply.status, reply.body) == (201, b'{"a":1}')
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["ETag"] == '"x"'
    assert reply.headers["Location"] == "/é"
    assert reply.headers["Cache-Control"] == "no-cache"


def test_bytes_are_taken_as_rendered_json_and_structs_are_rendered() -> None:
    class Point(msgspec.Struct):
        x: int

    assert json_response(b'{"a":1}').body == b'{"a":1}'
    assert json_response(Point(1)).body == b'{"x":1}'
    assert json_response([]).body == b"[]"
    assert json_response().body == b"null"


@pytest.mark.parametrize("value", ["a\r\nX: y", "a\n", "a\r", "\0", "a\r\n\r\nbody"])
def test_a_header_cannot_be_split(value: str) -> None:
    with pytest.raises(ValueError, match="line break"):
        Reply(headers={"ETag": value})
    with pytest.raises(ValueError, match="line break"):
        Reply(headers={value: "x"})


async def test_replies_on_the_wire() -> None:
    async def empty(request: object) -> Reply:
        return no_content({"ETag": '"1"'})

    async def unchanged(request: object) -> Reply:
        return Reply(b"ignored", 304)

    async def big(request: object) -> Reply:
        return Reply(b"x" * 300_000, kind=TEXT)

    async def styled(request: object) -> Reply:
        return Reply(b"a{}", kind=kind("text/css", cache="max-age=60"))

    routes = [
        Route("GET", path, handler, "", auth=Auth.NONE)
        for path, handler in (("/empty", empty), ("/304", unchanged), ("/big", big), ("/css", styled))
    ]
    async with api_with(*routes) as api:
        gone = await api.ask("GET", "/empty")
        assert (gone.status, gone.headers["etag"]) == (204, '"1"')
        assert "content-length" not in gone.headers
        assert "content-type" not in gone.headers
        assert (await api.ask("GET", "/304")).status == 304
        large = await api.ask("GET", "/big")
        assert len(large.body) == 300_000
        assert large.headers["content-type"] == "text/plain; charset=utf-8"
        css = await api.ask("GET", "/css")
        assert (css.headers["content-type"], css.headers["cache-control"]) == ("text/css", "max-age=60")
        head = await api.ask("HEAD", "/big")
        assert (head.headers["content-length"], head.body) == ("300000", b"")
