"""Conflicts and the history of documents over HTTP (CONTRACT, "S1"; seed S1, "Conflict Resolution Strategies").

Room: the JSON shapes and who may ask. What conflicts there are, what ends one and what history holds is
`services.conflicts`' and `services.history`'s.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from node.api.civicbase.data import write_guard
from node.api.civicbase.paging import CURSOR, page_schema, paging, read_paging
from node.api.errors import ApiError, NotFound, ValidationFailed
from node.api.replies import json_response
from node.api.requests import read_json, read_query
from node.api.routes import CALLER, Auth, Caller, KeyAccess, Route
from node.services.conflicts import ConflictMoved, Conflicts, ConflictSubject
from node.services.history import Histories
from node.services.models import Models
from node.services.permissions import Permissions
from node.services.records import Records
from protocol.conflict import DELETED
from protocol.schema import Model
from storage.index_conflicts import ConflictQuery

TAG = ("Conflicts",)
CONFLICT: dict[str, Any] = {
    "type": "object",
    "required": ["id", "model", "instance_id", "field", "values", "strategy", "resolved"],
    "properties": {
        "id": {"type": "string", "description": "The same on every node; another once a value joins or goes"},
        "model": {"type": "string"},
        "instance_id": {"type": "string"},
        "field": {"type": "string", "description": "`$deleted` where a deletion met an update"},
        "values": {
            "type": "array",
            "description": "What stands side by side; the last one is shown",
            "items": {
                "type": "object",
                "required": ["value", "node", "user", "at"],
                "properties": {
                    "value": {},
                    "node": {"type": "string"},
                    "user": {"type": "string"},
                    "at": {"type": "string", "format": "date-time"},
                },
            },
        },
        "strategy": {"type": "string"},
        "resolved": {"type": "boolean"},
        "ancestor": {"description": "What the values came from, under `three_way`"},
        "strategy_missing": {
            "type": "boolean",
            "description": "This node has not the plugin of the strategy",
        },
        "resolved_at": {"type": ["string", "null"], "format": "date-time"},
        "resolved_by": {"type": ["string", "null"]},
        "resolution": {"type": ["object", "null"]},
    },
}
CONFLICTS = page_schema(CONFLICT, has_cursor=True)
RESOLUTION: dict[str, Any] = {
    "type": "object",
    "required": ["resolution"],
    "properties": {
        "resolution": {
            "type": "object",
            "description": "The field of the conflict and the value it is to have. For `$deleted`: true keeps the "
            "document deleted; false restores it as it was deleted, with whatever further fields are given",
        }
    },
}
RESOLVED: dict[str, Any] = {
    "type": "object",
    "required": ["message", "instance_id", "version", "conflict"],
    "properties": {
        "message": {"type": "string"},
        "instance_id": {"type": "string"},
        "version": {"type": ["string", "null"], "description": "Of the instance; null if it stays deleted"},
        "conflict": {"anyOf": [CONFLICT, {"type": "null"}]},
    },
}
_VECTOR = {
    "type": "object",
    "description": "For each writer (a node in one life of its store) its last write that was seen",
    "additionalProperties": {"type": "integer"},
}
WRITE: dict[str, Any] = {
    "type": "object",
    "required": ["action", "version", "previous_version", "node", "user", "at", "operations"],
    "properties": {
        "action": {"type": "string", "enum": ["created", "updated", "deleted", "restored"]},
        "version": {
            "type": "string",
            "description": "As the writer's node had it after the write",
        },
        "previous_version": {"type": ["string", "null"], "description": "The same before it"},
        "node": {"type": "string"},
        "user": {"type": "string"},
        "at": {"type": "string", "format": "date-time"},
        "operations": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["op"],
                "properties": {"op": {"type": "string"}, "field": {"type": "string"}},
            },
        },
        "version_vector": _VECTOR,
    },
}
HISTORY = page_schema(WRITE, has_cursor=True, version={"type": "string"}, version_vector=_VECTOR)
_PAGING = {**paging(), "cursor": CURSOR}
CONFLICTS_QUERY: dict[str, dict[str, Any]] = {
    **_PAGING,
    "model": {"type": "string", "description": "only those of this model, by id or name"},
    "instance_id": {"type": "string", "description": "only those of this instance"},
    "resolved": {
        "type": "string",
        "enum": ["true", "false", "all"],
        "default": "false",
        "description": "the last 10,000 that were resolved are remembered, until the query index is made anew",
    },
}
_RESOLVED = {"false": True, "true": False, "all": None}  # whether only open ones are wanted


@dataclass(frozen=True, slots=True)
class ConflictRoutes:
    conflicts: Conflicts
    histories: Histories
    models: Models
    records: Records
    permissions: Permissions

    def routes(self) -> list[Route]:
        return [
            Route(
                "GET",
                "/v1/conflicts",
                self.list,
                "List conflicts: values of one field that did not see each other",
                key_access=KeyAccess.DATA,
                tags=TAG,
                query=CONFLICTS_QUERY,
                responses={200: CONFLICTS},
            ),
            Route(
                "GET",
                "/v1/conflicts/{id}",
                self.read,
                "Read a conflict, or what it has become",
                key_access=KeyAccess.DATA,
                tags=TAG,
                responses={200: CONFLICT},
            ),
            Route(
                "POST",
                "/v1/conflicts/{id}/resolve",
                self.resolve,
                "End a conflict with one value",
                key_access=KeyAccess.DATA,
                tags=TAG,
                request=RESOLUTION,
                responses={200: RESOLVED},
                description="409 with the present `conflict` if other values have come meanwhile.",
            ),
            Route(
                "GET",
                "/v1/data/{model}/{id}/history",
                self.history,
                "List every write to an instance, the newest first",
                key_access=KeyAccess.DATA,
                auth=Auth.OPTIONAL,
                tags=("Data",),
                query=_PAGING,
                responses={200: HISTORY},
            ),
        ]

    async def list(self, request: web.Request) -> web.StreamResponse:
        caller = request[CALLER]
        query = read_query(request)
        faults = {name: "Unknown parameter" for name in query if name not in CONFLICTS_QUERY}
        page, per_page = _paging(query, faults)
        asked = query.get("resolved", "false")
        if asked not in _RESOLVED:
            faults["resolved"] = f"Invalid option. Must be one of: {', '.join(_RESOLVED)}"
        if faults:
            raise ValidationFailed(faults)
        models = self._models(caller, query.get("model"))
        limits = {model.id: self.permissions.reading(caller, model) for model in models}
        found = await self.conflicts.find(
            ConflictQuery(
                caller.application,
                [id for id, limit in limits.items() if limit is None],
                [id for id, limit in limits.items() if limit is not None and limit.passes is None],
                caller.user_id or "",
                [id for id, limit in limits.items() if limit is not None and limit.passes is not None],
                instance_id=query.get("instance_id"),
                is_open=_RESOLVED[asked],
                page=page,
                per_page=per_page,
                cursor=query.get("cursor") or None,
            ),
            lambda model, record: self.permissions.check(caller, model, "read", record),
        )
        return json_response(
            {
                "items": found.items,
                "total": found.total,
                "page": page,
                "per_page": per_page,
                "next_cursor": found.next_cursor,
            }
        )

    def _models(self, caller: Caller, named: str | None) -> Sequence[Model]:
        """The models that are meant, of those of which the caller might read something."""
        if named is not None:
            model = self.records.model(caller.application, named)
            self.permissions.raise_unless_ever(caller, model, "read")
            return [model]
        every = self.models.all_of(caller.application)
        return [model for model in every if self.permissions.may_ever(caller, model, "read")]

    async def read(self, request: web.Request) -> web.StreamResponse:
        caller, id = request[CALLER], request.match_info["id"]
        self._may(caller, self.conflicts.subject(caller.application, id), "read")
        content = self.conflicts.view(caller.application, id)
        if content is None:
            raise NotFound("There is no such conflict any more")
        return json_response(content)

    async def resolve(self, request: web.Request) -> web.StreamResponse:
        caller, id = request[CALLER], request.match_info["id"]
        subject = self.conflicts.subject(caller.application, id)
        self._may(caller, subject, "read")
        self._may(caller, subject, "update")
        body = await read_json(request)
        faults = {name: "Unknown field" for name in body if name != "resolution"}
        resolution = body.get("resolution")
        if not isinstance(resolution, dict):
            faults["resolution"] = "This field is required" if resolution is None else "Must be an object"
        if faults or not isinstance(resolution, dict):
            raise ValidationFailed(faults)
        # Of a deleted document there is no record inside the transaction to ask about: its creator was asked.
        guard = None
        if subject.field != DELETED:
            guard = write_guard(self.permissions, caller, subject.model, "update")
        try:
            record, conflict = await self.conflicts.resolve(
                caller.application, id, resolution, user=caller.user_id or "", guard=guard
            )
        except ConflictMoved as moved:
            raise ApiError(409, "CONFLICT", str(moved), extra={"conflict": moved.current}) from None
        version = None if record is None else record.version
        reply = {
            "message": "Conflict resolved successfully",
            "instance_id": subject.id,
            "version": version,
            "conflict": conflict,
        }
        return json_response(reply, headers=None if version is None else {"ETag": f'"{version}"'})

    def _may(self, caller: Caller, subject: ConflictSubject, action: str) -> None:
        self.permissions.raise_unless(caller, subject.model, action, subject)

    async def history(self, request: web.Request) -> web.StreamResponse:
        caller = request[CALLER]
        model = self.records.model(caller.application, request.match_info["model"])
        id = request.match_info["id"]
        query = read_query(request)
        faults = {name: "Unknown parameter" for name in query if name not in _PAGING}
        page, per_page = _paging(query, faults)
        if faults:
            raise ValidationFailed(faults)
        created_by = self.records.creator_of_shown(model, id)
        if created_by is None:
            self.permissions.raise_unless_ever(caller, model, "read")
            raise NotFound(f"There is no {model.name} '{id}'")
        self._may(
            caller,
            ConflictSubject(model, id, "", created_by, lambda: self.records.rendered(model, id)),
            "read",
        )
        found = await self.histories.page(
            model, id, page=page, per_page=per_page, cursor=query.get("cursor") or None
        )
        if found is None:
            raise NotFound(f"There is no {model.name} '{id}'")
        return json_response({**found._asdict(), "page": page, "per_page": per_page})


def _paging(query: dict[str, str], faults: dict[str, str]) -> tuple[int, int]:
    """`page` and `per_page`; what is wrong with them goes to `faults`."""
    page, per_page = read_paging(query, faults)
    if page != 1 and query.get("cursor"):
        faults["page"] = "Give either page or cursor"
    return page, per_page
