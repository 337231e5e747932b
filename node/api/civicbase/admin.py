"""What the command line and the owner ask of a running node: status, backup, origins, raw queries.

Room: `/v1/admin/…`, administrators alone. Accounts are in `users`. Paths are those of this machine, so only
the owner token, which lies on it, may name one.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
from aiohttp import web

from node.api.errors import Conflict, Forbidden, ValidationFailed
from node.api.replies import json_response
from node.api.requests import read_json, read_query
from node.api.routes import CALLER, Auth, Route
from node.origins import HOST_PATTERN, PORT_PATTERN, parse_origin
from node.services.origins import AllowedOrigins
from node.services.records import Records
from storage.errors import StorageError

TAG = ("Administration",)
SQL_ROWS_MAX = 10_000
OBJECT: dict[str, Any] = {"type": "object"}


BACKUP: dict[str, Any] = {
    "type": "object",
    "required": ["path"],
    "properties": {
        "path": {
            "type": "string",
            "pattern": "^/(?:[^\\x00]*[^\\x00/])$",
            "description": "Absolute, of a file that is not there",
        }
    },
}
_ORIGIN: dict[str, Any] = {
    "type": "string",
    "pattern": f"^[A-Za-z][A-Za-z0-9+.-]{{0,31}}://{HOST_PATTERN}(?::{PORT_PATTERN})?/?$",
    "description": "As in https://app.example.org:8443",
}
ORIGIN: dict[str, Any] = {"type": "object", "required": ["origin"], "properties": {"origin": _ORIGIN}}


class BackupRequest(msgspec.Struct):
    path: str


class OriginRequest(msgspec.Struct):
    origin: str


class SqlRequest(msgspec.Struct):
    """One SELECT, and how many rows of it are wanted."""

    sql: Annotated[str, msgspec.Meta(min_length=1)]
    limit: Annotated[int, msgspec.Meta(ge=1, le=SQL_ROWS_MAX)] = 1_000


@dataclass(frozen=True, slots=True)
class AdminRoutes:
    """`status` is the node's own account of itself; `backup` writes one file and says how many bytes."""

    records: Records
    origins: AllowedOrigins
    status: Callable[[], dict[str, Any]]
    backup: Callable[[Path], int]

    def routes(self) -> list[Route]:
        def route(method: str, path: str, handler: Any, summary: str, **more: Any) -> Route:
            return Route(
                method,
                "/v1/admin/" + path,
                handler,
                summary,
                auth=Auth.ADMIN,
                tags=TAG,
                responses=more.pop("responses", {200: OBJECT}),
                **more,
            )

        return [
            route("GET", "status", self.read_status, "What this node is and holds"),
            route("POST", "backup", self.make_backup, "Write a backup to a file", request=BACKUP),
            route(
                "POST",
                "query",
                self.query,
                "Run one SELECT over the query index",
                request=SqlRequest,
                names_all=False,
            ),
            route("GET", "origins", self.list_origins, "List the origins that count as local apps"),
            route(
                "POST",
                "origins",
                self.allow_origin,
                "Let an origin's pages in as local apps",
                request=ORIGIN,
            ),
            route(
                "DELETE",
                "origins",
                self.refuse_origin,
                "Take an allowed origin back",
                query={"origin": _ORIGIN | {"required": True}},
            ),
        ]

    async def read_status(self, request: web.Request) -> web.StreamResponse:
        return json_response(self.status())

    async def make_backup(self, request: web.Request) -> web.StreamResponse:
        if not request[CALLER].is_owner:
            raise Forbidden("Only the owner token may name a file of this machine")
        path = Path((await read_json(request, BackupRequest)).path)
        if not path.is_absolute():
            raise ValidationFailed({"path": "Must be an absolute path"})
        try:
            size_bytes = await asyncio.to_thread(self.backup, path)
        except (OSError, StorageError) as error:  # what is wrong is not the request but what is there
            raise Conflict("The backup cannot be written there", {"path": str(error)}) from error
        return json_response({"path": str(path), "bytes": size_bytes})

    async def query(self, request: web.Request) -> web.StreamResponse:
        asked = await read_json(request, SqlRequest)
        if not request[CALLER].is_owner:
            raise Forbidden("Only the owner token may query across applications")
        columns, rows = await self.records.sql(asked.sql, limit_rows=asked.limit + 1)
        is_truncated = len(rows) > asked.limit
        return json_response({"columns": columns, "rows": rows[: asked.limit], "truncated": is_truncated})

    async def list_origins(self, request: web.Request) -> web.StreamResponse:
        return json_response({"origins": self.origins.listed()})

    async def allow_origin(self, request: web.Request) -> web.StreamResponse:
        _owner_alone(request)
        await self.origins.allow(_origin((await read_json(request, OriginRequest)).origin))
        return json_response({"origins": self.origins.listed()})

    async def refuse_origin(self, request: web.Request) -> web.StreamResponse:
        _owner_alone(request)
        await self.origins.refuse(_origin(read_query(request).get("origin", "")))
        return json_response({"origins": self.origins.listed()})


def _owner_alone(request: web.Request) -> None:
    """Which pages count as local is for this device's user, not for an application's administrators elsewhere."""
    if not request[CALLER].is_owner:
        raise Forbidden("Only the owner token may say which origins count as local apps")


def _origin(text: str) -> str:
    try:
        return parse_origin(text)
    except ValueError as error:
        raise ValidationFailed({"origin": str(error)}) from error
