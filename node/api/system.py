"""The node's own routes: health, metrics, the description of the API and the page that shows it.

Room: what every node answers whatever its surfaces. Without a token they tell nothing about the node's data,
its users or its network. They are free of rate limits, so that what watches a node never blinds itself.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from aiohttp import web

from node.api.middleware import FrameParts
from node.api.openapi import describe
from node.api.replies import TEXT, Reply, json_response, kind
from node.api.routes import CALLER, Auth, Caller, Handler, Route
from protocol.schema import Model

_DOCS = Path(__file__).parent / "docs"

# Scripts and styles come from the node alone, nothing is evaluated, nothing else may embed the page.
DOCS_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
_PAGES = {
    "/docs": ("index.html", kind("text/html; charset=utf-8", policy=DOCS_POLICY)),
    "/docs/docs.css": ("docs.css", kind("text/css; charset=utf-8", policy=DOCS_POLICY)),
    "/docs/docs.js": ("docs.js", kind("text/javascript; charset=utf-8", policy=DOCS_POLICY)),
}
_DOCUMENTS_MAX = 32  # descriptions kept, one per application asked for


class Health(msgspec.Struct):
    """Whether the node works. What more it says depends on who asks."""

    status: str
    version: str
    uptime_s: int


@dataclass(frozen=True, slots=True)
class System:
    """What the node's own routes show. `models_of` gives an application's models; `health_of` adds to
    `/health` what a caller with a token may know, and may name another `status`."""

    version: str
    started_ms: int
    changelog: str = ""
    models_of: Callable[[str], Iterable[Model]] | None = None
    health_of: Callable[[Caller], Mapping[str, object]] | None = None


def system_routes(others: Sequence[Route], system: System, parts: FrameParts) -> list[Route]:
    """The node's own routes. `others` are the rest, which the description covers too."""
    routes: list[Route] = []
    documents: dict[tuple[str, ...], bytes] = {}

    async def health(request: web.Request) -> web.StreamResponse:
        caller = request[CALLER]
        uptime_s = max(0, parts.clock_ms() - system.started_ms) // 1000
        body: dict[str, object] = {"status": "healthy", "version": system.version, "uptime_s": uptime_s}
        if system.health_of is not None and caller.user_id is not None:
            body.update(system.health_of(caller))
        return json_response(body)

    async def openapi(request: web.Request) -> web.StreamResponse:
        caller = request[CALLER]
        models: list[Model] = []
        if system.models_of is not None and caller.user_id is not None:
            models = list(system.models_of(caller.application))
        key = (caller.application, *(f"{model.id} {model.version}" for model in models))
        document = documents.get(key)
        if document is None:
            if len(documents) >= _DOCUMENTS_MAX:
                documents.clear()
            everything = [*others, *routes]
            described = describe(everything, version=system.version, models=models)
            document = documents[key] = msgspec.json.encode(described)
        return json_response(document)

    async def metrics(request: web.Request) -> web.StreamResponse:
        body, content_type = parts.metrics.render()
        return Reply(body, kind=kind(content_type))

    async def changelog(request: web.Request) -> web.StreamResponse:
        return Reply(system.changelog.encode(), kind=TEXT)

    async def to_docs(request: web.Request) -> web.StreamResponse:
        return Reply(status=302, headers={"Location": "/docs"}, kind=TEXT)

    routes += [
        Route(
            "GET",
            "/health",
            health,
            "Whether the node works",
            surface="",
            auth=Auth.OPTIONAL,
            responses={200: Health},
            rate="",
        ),
        Route(
            "GET",
            "/openapi.json",
            openapi,
            "This description",
            surface="",
            auth=Auth.OPTIONAL,
            responses={200: {"type": "object"}},
            rate="",
            description="With a token it covers the models of the caller's application.",
        ),
        Route(
            "GET",
            "/metrics",
            metrics,
            "What the node counts about itself",
            surface="",
            auth=Auth.LOCAL,
            responses={200: _text("text/plain")},
            rate="",
            description="Prometheus' text format.",
        ),
        Route(
            "GET",
            "/changelog",
            changelog,
            "What changed from release to release",
            surface="",
            auth=Auth.NONE,
            responses={200: _text("text/plain")},
            rate="",
        ),
    ]
    for path, (file, lines) in _PAGES.items():
        summary = "The API to try out" if path == "/docs" else ""
        responses = {200: _text("text/html")}
        page = _page(_DOCS / file, lines)
        routes.append(
            Route("GET", path, page, summary, surface="", auth=Auth.NONE, responses=responses, rate="")
        )
    if not any(route.path == "/" for route in others):
        routes.append(Route("GET", "/", to_docs, "", surface="", auth=Auth.NONE, rate=""))
    return routes


def _text(content_type: str) -> dict[str, str]:
    return {"type": "string", "contentMediaType": content_type}


def _page(file: Path, lines: bytes) -> Handler:
    content: list[bytes] = []

    async def page(request: web.Request) -> web.StreamResponse:
        if not content:
            content.append(file.read_bytes())  # noqa: ASYNC240  # a few KB, once
        return Reply(content[0], kind=lines)

    return page
