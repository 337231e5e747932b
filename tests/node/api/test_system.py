import re
from pathlib import Path

from node.api import system as system_module
from node.api.routes import Caller
from node.api.system import System
from tests.node.api.harness import NOW_MS, OWNER_TOKEN, USER_TOKEN, api_with

SYSTEM = System(version="1.2.3", started_ms=NOW_MS - 65_000, changelog="# Changes\n")
DOCS = Path(system_module.__file__).parent / "docs"


async def test_health_says_no_more_than_that_to_strangers() -> None:
    def health_of(caller: Caller) -> dict[str, object]:
        return {"node_id": "abc"} if caller.is_owner else {}

    system = System("1.2.3", NOW_MS - 65_000, health_of=health_of)
    async with api_with(system=system) as api:
        reply = await api.ask("GET", "/health")
        assert (reply.status, reply.json) == (
            200,
            {"status": "healthy", "version": "1.2.3", "uptime_s": 65},
        )
        assert "x-ratelimit-limit" not in reply.headers
        assert (await api.ask("GET", "/health", token=OWNER_TOKEN)).json["node_id"] == "abc"
        assert "node_id" not in (await api.ask("GET", "/health", token=USER_TOKEN)).json


async def test_the_nodes_own_routes_are_not_rate_limited() -> None:
    async with api_with(system=SYSTEM) as api:
        for _ in range(70):
            assert (await api.ask("GET", "/health")).status == 200


async def test_metrics_are_prometheus_text_about_routes_not_about_users() -> None:
    async with api_with(system=SYSTEM) as api:
        await api.ask("GET", "/v1/notes/private-id", token=USER_TOKEN)
        reply = await api.ask("GET", "/metrics")
        assert reply.headers["content-type"].startswith("text/plain; version=")
        text = reply.body.decode()
        assert 'civicnode_http_requests_total{method="GET",route="/v1/notes/{id}",status="200"} 1.0' in text
        assert "civicnode_http_request_seconds_bucket" in text
        assert "process_resident_memory_bytes" in text
        assert "private-id" not in text


async def test_the_changelog_is_text() -> None:
    async with api_with(system=SYSTEM) as api:
        reply = await api.ask("GET", "/changelog")
        assert (reply.body, reply.headers["content-type"]) == (b"# Changes\n", "text/plain; charset=utf-8")


async def test_the_docs_page_and_its_parts_are_served_under_a_strict_policy() -> None:
    async with api_with(system=SYSTEM) as api:
        types = {"/docs": "text/html", "/docs/docs.css": "text/css", "/docs/docs.js": "text/javascript"}
        for path, content_type in types.items():
            reply = await api.ask("GET", path)
            assert reply.status == 200
            assert reply.headers["content-type"].startswith(content_type)
            policy = reply.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert reply.repeated == []
        root = await api.ask("GET", "/")
        assert (root.status, root.headers["location"]) == (302, "/docs")


def test_the_docs_page_asks_nobody_but_the_node() -> None:
    for file in DOCS.iterdir():
        text = file.read_text("utf-8")
        assert not re.search(r"(https?:)?//[a-z0-9-]+\.[a-z]", text), file.name
    page = (DOCS / "index.html").read_text("utf-8")
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|style=", page)


def test_the_docs_page_can_be_used_without_a_mouse_or_a_screen() -> None:
    page = (DOCS / "index.html").read_text("utf-8")
    assert '<html lang="en">' in page
    assert "<main" in page
    assert "<nav aria-label" in page
    for control in re.findall(r'<(?:input|select|textarea) id="(\w+)"', page):
        assert f'<label for="{control}">' in page
    script = (DOCS / "docs.js").read_text("utf-8")
    assert "innerHTML" not in script
    assert "aria-live" in script
    style = (DOCS / "docs.css").read_text("utf-8")
    assert ":focus-visible" in style


def test_text_stands_out_from_its_ground_in_both_colour_schemes() -> None:
    """Contrast of at least 4.5 to 1, WCAG 2.2 success criterion 1.4.3."""
    style = (DOCS / "docs.css").read_text("utf-8")
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6});", block))
        for block in re.findall(r":root[^{]*\{([^}]*)\}", style)
    )
    for scheme in (light, dark):
        for name in ("text", "faint", "accent", "get", "post", "put", "delete", "bad"):
            for ground in ("ground", "raised"):
                assert contrast(scheme[name], scheme[ground]) >= 4.5, (name, scheme[name])
        assert contrast(scheme["on-accent"], scheme["accent"]) >= 4.5


def contrast(one: str, other: str) -> float:
    bright, dim = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(digit * 2 for digit in colour[1:])
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
