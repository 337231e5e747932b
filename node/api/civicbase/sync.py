"""How this node stands with its peers: looking, and syncing now (seed S1, "Offline Functionality and Sync").

Room: shapes. What is told comes from `node.net`, which knows of peers; this package knows of callers. Addresses
of devices, and what went wrong with them, are for administrators.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from node.api.civicbase.conflicts import CONFLICT
from node.api.errors import ValidationFailed
from node.api.replies import json_response
from node.api.requests import read_query
from node.api.routes import CALLER, Caller, Route

TAG = ("Sync",)
TIMEOUT_MS = 10_000
TIMEOUT_MAX_MS = 60_000
_FOR_ADMINS = ("address", "last_fault", "bytes_in", "bytes_out", "handshake_bytes")


def _nullable(kind: str, **more: Any) -> dict[str, Any]:
    return {"type": [kind, "null"], **more}


PEER: dict[str, Any] = {
    "type": "object",
    "required": ["node_id", "name", "address", "direction", "state", "in_sync", "since", "lag_arrivals"],
    "properties": {
        "node_id": _nullable("string", description="Who is there, or was last; null if nobody ever answered"),
        "name": _nullable("string"),
        "author": _nullable("string", description="The node in this life of its store"),
        "address": _nullable("string", description="For administrators"),
        "direction": {"enum": ["in", "out"], "description": "Who called: the peer, or this node"},
        "source": _nullable("string", description="How an address without a link became known"),
        "state": {
            "enum": ["live", "syncing", "diverged", "closing", "connecting", "waiting", "unreachable"],
            "description": "The first four are of links, the others of addresses without one",
        },
        "in_sync": {"type": "boolean"},
        "since": _nullable("string", format="date-time"),
        "in_sync_at": _nullable("string", format="date-time", description="When both last held the same"),
        "lag_arrivals": _nullable(
            "integer", description="Commits here that the peer has not confirmed", minimum=0
        ),
        "lag_ms": _nullable("integer", description="For how long it has been behind", minimum=0),
        "bytes_in": _nullable("integer", minimum=0),
        "bytes_out": _nullable("integer", minimum=0),
        "handshake_bytes": _nullable("integer", description="Of both, before the sync", minimum=0),
        "clock_ahead_ms": _nullable("integer", description="Its clock against this one's, when it came"),
        "last_fault": _nullable("string"),
    },
}
STATUS: dict[str, Any] = {
    "type": "object",
    "required": ["in_sync", "node_id", "position", "root", "peers", "warnings"],
    "properties": {
        "in_sync": {
            "type": "boolean",
            "description": "Every linked peer holds the same; with peers known and none linked, false",
        },
        "node_id": {"type": "string"},
        "position": {"type": "integer", "minimum": 0, "description": "How many commits have arrived here"},
        "root": _nullable(
            "string",
            description="A hash over all that counts here; nodes that say the same hold the same",
        ),
        "peers": {"type": "array", "items": PEER},
        "warnings": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["kind", "text"],
                "properties": {
                    "kind": {"type": "string"},
                    "text": {"type": "string"},
                    "at": {"type": "string", "format": "date-time"},
                },
            },
        },
    },
}
SYNCED: dict[str, Any] = {
    "type": "object",
    "required": ["syncedCount", "conflicts"],
    "properties": {
        "syncedCount": {
            "type": "integer",
            "minimum": 0,
            "description": "Changes of documents that came from peers or went to one",
        },
        "conflicts": {
            "type": "array",
            "items": CONFLICT,
            "description": "Those of documents that changed meanwhile, as far as the caller may read them",
        },
    },
}


@dataclass(frozen=True, slots=True)
class SyncRoutes:
    """`status` is the network's account of itself, `root` what it holds (None before it can tell); `sync` dials, waits
    so many seconds, and tells the caller what came of it."""

    status: Callable[[], dict[str, Any]]
    root: Callable[[], Awaitable[str | None]]
    sync: Callable[[float, Caller], Awaitable[dict[str, Any]]]

    def routes(self) -> list[Route]:
        return [
            Route(
                "GET",
                "/v1/sync/status",
                self.read_status,
                "How this node stands with its peers",
                tags=TAG,
                responses={200: STATUS},
            ),
            Route(
                "POST",
                "/v1/sync",
                self.sync_now,
                "Dial every known peer now, and wait until all that can be reached hold the same",
                tags=TAG,
                query={
                    "timeout_ms": {
                        "type": "integer",
                        "minimum": 0,
                        "maximum": TIMEOUT_MAX_MS,
                        "default": TIMEOUT_MS,
                    }
                },
                responses={200: SYNCED},
                body_optional=True,
            ),
        ]

    async def read_status(self, request: web.Request) -> web.StreamResponse:
        root = await self.root()
        told = self.status()
        caller = request[CALLER]
        shown = {name: told[name] for name in ("in_sync", "node_id", "position", "peers", "warnings")}
        shown["root"] = root
        if not (caller.is_owner or caller.is_admin):
            shown["peers"] = [peer | dict.fromkeys(_FOR_ADMINS) for peer in told["peers"]]
            shown["warnings"] = [warning for warning in told["warnings"] if warning["kind"] == "clock"]
        return json_response(shown)

    async def sync_now(self, request: web.Request) -> web.StreamResponse:
        text = read_query(request).get("timeout_ms", str(TIMEOUT_MS))
        is_number = text.isascii() and text.isdigit() and len(text) < 9
        if not is_number or int(text) > TIMEOUT_MAX_MS:
            raise ValidationFailed({"timeout_ms": f"Must be a whole number from 0 to {TIMEOUT_MAX_MS}"})
        return json_response(await self.sync(int(text) / 1_000, request[CALLER]))
