"""`GET /v1/sync/explain/{model}/{id}`: why a document stands as it does (CONTRACT, "Explain").

Room: who may ask, and the shape. What is known is `services.explaining`'s. Whoever may read a document may know
where it is; what was written about it and does not count is for administrators.
"""

from dataclasses import dataclass
from typing import Any

from aiohttp import web

from node.api.errors import NotFound
from node.api.replies import json_response
from node.api.routes import CALLER, KeyAccess, Route
from node.services.explaining import Explanations
from node.services.permissions import Permissions, Subject
from node.services.records import Records

_TEXT_OR_NULL = {"type": ["string", "null"]}
_WRITER: dict[str, Any] = {
    "node": {"type": "string"},
    "name": {**_TEXT_OR_NULL, "description": "What people call the node"},
    "author": {"type": "string", "description": "The node in one life of its store"},
}
_PLACE = {"type": "string", "enum": ["application", "system"]}
WRITE: dict[str, Any] = {
    "type": "object",
    "required": ["node", "author", "seq", "index", "at", "user", "fields", "verdict"],
    "properties": {
        **_WRITER,
        "seq": {"type": "integer", "description": "Which of its author's commits in this application"},
        "index": {"type": "integer"},
        "at": {"type": "string", "format": "date-time", "description": "By its author's clock"},
        "user": _TEXT_OR_NULL,
        "fields": {"type": "array", "items": {"type": "string"}},
        "verdict": {"enum": ["applied", "early", "withheld", "void", "malformed", "dropped", "missing"]},
        "standing": {"enum": ["stands", "invalid", "cut", "forked", "suspended", "uprooted"]},
        "why": {"type": "string"},
    },
}
EXPLANATION: dict[str, Any] = {
    "type": "object",
    "required": [
        "model",
        "instance_id",
        "here",
        "nodes",
        "waiting",
        "writes",
        "writes_total",
        "refused_total",
    ],
    "properties": {
        "model": {"type": "string"},
        "instance_id": {"type": "string"},
        "here": {
            "type": "object",
            "required": ["state", "version", "version_vector", "quarantine", "conflicts"],
            "properties": {
                "state": {"enum": ["shown", "deleted", "quarantined", "absent", "erased"]},
                "version": _TEXT_OR_NULL,
                "version_vector": {"type": "object", "additionalProperties": {"type": "integer"}},
                "quarantine": {
                    "type": ["object", "null"],
                    "additionalProperties": {"type": "string"},
                    "description": "What the model does not allow, field by field",
                },
                "conflicts": {
                    "type": "array",
                    "items": {"type": "string"},
                    "description": "Fields in conflict",
                },
            },
        },
        "nodes": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["node", "role", "is_this_node", "version", "is_current", "lacks", "known_by"],
                "properties": {
                    "node": {"type": "string"},
                    "name": _TEXT_OR_NULL,
                    "role": {"enum": ["admin", "member", "reader"]},
                    "is_this_node": {"type": "boolean"},
                    "version": {**_TEXT_OR_NULL, "description": "What it surely has; it may have more"},
                    "is_current": {"type": "boolean", "description": "Whether that is all that is here"},
                    "lacks": {"type": "integer", "description": "Writes here that it is not known to have"},
                    "known_by": {
                        "enum": ["this_node", "link", "commits", None],
                        "description": "By what it acknowledged, or by what its own commits have seen",
                    },
                    "as_of": {**_TEXT_OR_NULL, "description": "When it wrote the newest of those"},
                },
            },
        },
        "waiting": {
            "type": "array",
            "description": "Chains that are here and cannot be read on before their causes have come",
            "items": {
                "type": "object",
                "required": ["node", "author", "space", "from_seq", "to_seq", "waits_for", "concerns_it"],
                "properties": {
                    **_WRITER,
                    "space": _PLACE,
                    "from_seq": {"type": "integer"},
                    "to_seq": {"type": "integer"},
                    "waits_for": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": ["node", "author", "space", "seq"],
                            "properties": {**_WRITER, "space": _PLACE, "seq": {"type": "integer"}},
                        },
                    },
                    "concerns_it": {"type": "boolean", "description": "Whether it writes to this document"},
                },
            },
        },
        "writes": {"type": "array", "items": WRITE, "description": "The newest to arrive first"},
        "writes_total": {"type": "integer"},
        "refused": {
            "type": "array",
            "items": WRITE,
            "description": "Those that do not count: for administrators",
        },
        "refused_total": {"type": "integer"},
    },
}


@dataclass(frozen=True, slots=True)
class ExplainRoutes:
    explanations: Explanations
    records: Records
    permissions: Permissions

    def routes(self) -> list[Route]:
        return [
            Route(
                "GET",
                "/v1/sync/explain/{model}/{id}",
                self.explain,
                "Why a document stands as it does: who has which version, what waits, what was refused",
                key_access=KeyAccess.DATA,
                tags=("Sync",),
                responses={200: EXPLANATION},
            )
        ]

    async def explain(self, request: web.Request) -> web.StreamResponse:
        caller, match = request[CALLER], request.match_info
        model = self.records.model(caller.application, match["model"])
        found = await self.explanations.of(model, match["id"])
        if found is None or (found.created_by is None and not caller.is_admin):
            self.permissions.raise_unless_ever(caller, model, "read")
            raise NotFound(f"There is no {model.name} '{match['id']}'")
        shown = self.records.rendered(model, match["id"])
        subject = Subject(found.created_by, None if shown is None else shown.facts())
        self.permissions.raise_unless(caller, model, "read", subject)
        content = found.content
        if not caller.is_admin:
            content = {name: value for name, value in content.items() if name != "refused"}
        return json_response(content)
