"""Data models over HTTP: define, list, read, evolve, remove (seed S1, "Defining Custom Data Models").

Room: the seed's shapes. Rules of definitions are `protocol.schema`'s; who may change one is decided here: its
definer and administrators, and `permissions` only by administrators once it holds others' data.
"""

from dataclasses import dataclass
from typing import Any

from aiohttp import web

from node.api.errors import Forbidden
from node.api.replies import json_response, no_content
from node.api.requests import read_any_json
from node.api.routes import CALLER, Caller, Route
from node.services.models import Models
from node.services.records import Records
from protocol.query import parse_query
from protocol.schema import Model
from protocol.schema_field import (
    FIELDS_MAX,
    INDEX_FIELDS_MAX,
    INDEXES_MAX,
    OPTION_SIZE_MAX,
    OPTIONS_MAX,
    PATTERN_SIZE_MAX,
    RESERVED_NAMES,
    RESERVED_TYPES,
    FieldType,
)
from protocol.schema_rules import ACTIONS, MESSAGE_SIZE_MAX, RULES_MAX, VALIDATORS_MAX
from protocol.schema_strategy import CRDT, MERGES, STRATEGIES

TAG = ("Data models",)
_NAME, _WORD = "^[A-Za-z][A-Za-z0-9_-]{0,62}$", "^[A-Za-z][A-Za-z0-9_]{0,62}$"

_FLAG = {"type": ["boolean", "null"]}
_RULE: dict[str, Any] = {
    "type": "string",
    "minLength": 1,
    "description": "public, authenticated, owner, role:NAME, or an expression that is true or false",
}
_RULES = {"anyOf": [_RULE, {"type": "array", "items": _RULE, "minItems": 1, "maxItems": RULES_MAX}]}
_TOLD: dict[str, Any] = {
    name: {"type": "string", "readOnly": True}
    for name in ("model_id", "application_id", "created_by", "created_at", "updated_at", "version")
}
DEFINITION: dict[str, Any] = {
    "type": "object",
    "required": ["name", "fields"],
    "properties": {
        "name": {"type": "string", "pattern": _NAME},
        "fields": {
            "type": "array",
            "minItems": 1,
            "maxItems": FIELDS_MAX,
            "items": {
                "type": "object",
                "required": ["name", "type"],
                "properties": {
                    "name": {"type": "string", "pattern": _WORD, "not": {"enum": sorted(RESERVED_NAMES)}},
                    "type": {"enum": [kind.value for kind in FieldType if kind not in RESERVED_TYPES]},
                    "required": _FLAG,
                    "default": {},
                    "unique": _FLAG,
                    "indexed": _FLAG,
                    "encrypted": _FLAG,
                    "min": {
                        "type": ["number", "string", "null"],
                        "description": "of a set or string its least size",
                    },
                    "max": {"type": ["number", "string", "null"]},
                    "pattern": {"type": ["string", "null"], "maxLength": PATTERN_SIZE_MAX},
                    "options": {
                        "type": ["array", "null"],
                        "items": {"type": "string", "minLength": 1, "maxLength": OPTION_SIZE_MAX},
                        "minItems": 1,
                        "maxItems": OPTIONS_MAX,
                        "uniqueItems": True,
                    },
                    "model": {
                        "type": ["string", "null"],
                        "pattern": _NAME,
                        "description": "of a reference: what it names",
                    },
                    "merge": {"enum": [*sorted(MERGES), None]},
                },
                "additionalProperties": False,
            },
        },
        "indexes": {
            "type": ["array", "null"],
            "maxItems": INDEXES_MAX,
            "items": {
                "type": "object",
                "required": ["key"],
                "properties": {
                    "key": {
                        "type": "object",
                        "minProperties": 1,
                        "maxProperties": INDEX_FIELDS_MAX,
                        "additionalProperties": {"enum": [1, -1]},
                    },
                    "unique": _FLAG,
                    "order": {"type": "array", "items": {"type": "string"}},
                },
                "additionalProperties": False,
            },
        },
        "conflict_strategy": {
            "type": ["string", "null"],
            "pattern": f"^(?:{'|'.join(STRATEGIES)}|[A-Za-z][A-Za-z0-9_-]{{0,62}}@[0-9a-f]{{16,64}})$",
            "description": f"{', '.join(STRATEGIES)}, or a plugin's as name@hash",
            "default": CRDT,
        },
        "validators": {
            "type": ["array", "null"],
            "items": {
                "type": "object",
                "required": ["expression", "message"],
                "properties": {
                    "expression": {"type": "string", "minLength": 1},
                    "message": {"type": "string", "minLength": 1, "maxLength": MESSAGE_SIZE_MAX},
                },
                "additionalProperties": False,
            },
            "maxItems": VALIDATORS_MAX,
        },
        "permissions": {
            "type": ["object", "null"],
            "properties": dict.fromkeys(ACTIONS, _RULES),
            "additionalProperties": False,
        },
        "plural": {"type": ["string", "null"], "pattern": _WORD},
        **{name: {"description": "As it was read: it may come back, and changes nothing"} for name in _TOLD},
    },
    "additionalProperties": False,
}
MODEL = DEFINITION | {
    "required": ["name", "fields", "model_id", "created_at", "updated_at", "version"],
    "properties": DEFINITION["properties"] | _TOLD,
}
CREATED = {
    "type": "object",
    "required": ["message", "model_id"],
    "properties": {"message": {"type": "string"}, "model_id": {"type": "string"}},
}


@dataclass(frozen=True, slots=True)
class ModelRoutes:
    models: Models
    records: Records

    def routes(self) -> list[Route]:
        path = "/v1/data-models/{model}"
        return [
            Route(
                "GET",
                "/v1/data-models",
                self.list,
                "List the application's data models",
                tags=TAG,
                responses={200: {"type": "array", "items": MODEL}},
            ),
            Route(
                "POST",
                "/v1/data-models",
                self.create,
                "Define a data model",
                tags=TAG,
                request=DEFINITION,
                responses={201: CREATED},
            ),
            Route(
                "GET", path, self.read, "Read a data model, by id or name", tags=TAG, responses={200: MODEL}
            ),
            Route(
                "PUT",
                path,
                self.change,
                "Evolve a data model",
                tags=TAG,
                request=DEFINITION,
                responses={200: MODEL},
            ),
            Route("DELETE", path, self.remove, "Remove a data model", tags=TAG, responses={204: None}),
        ]

    async def list(self, request: web.Request) -> web.StreamResponse:
        return json_response(
            [model.to_definition() for model in self.models.all_of(request[CALLER].application)]
        )

    async def create(self, request: web.Request) -> web.StreamResponse:
        caller = request[CALLER]
        body = await read_any_json(request)
        model = await self.models.define(
            caller.application, body, user=_user(caller), is_admin=caller.is_admin
        )
        reply = {"message": "Data model created successfully", "model_id": model.id}
        return json_response(reply, 201, {"Location": f"/v1/data-models/{model.id}"})

    async def read(self, request: web.Request) -> web.StreamResponse:
        model = self.records.model(request[CALLER].application, request.match_info["model"])
        return json_response(model.to_definition(), headers={"ETag": f'"{model.version}"'})

    async def change(self, request: web.Request) -> web.StreamResponse:
        caller = request[CALLER]
        model = self.records.model(caller.application, request.match_info["model"])
        _may_change(caller, model)
        body = await read_any_json(request)
        if isinstance(body, dict):
            body.setdefault("name", model.name)
            if body.get("permissions", model.permissions) != model.permissions and not caller.is_admin:
                await self._only_own_data(caller, model)
        changed = await self.models.change(model, body, user=_user(caller), is_admin=caller.is_admin)
        return json_response(changed.to_definition())

    async def _only_own_data(self, caller: Caller, model: Model) -> None:
        others = parse_query({"filter": f'created_by:ne:"{caller.user_id}"', "per_page": "1"}, model)
        if (await self.records.find(model, others)).total:
            raise Forbidden(
                "Only administrators may change the permissions of a model that holds others' data"
            )

    async def remove(self, request: web.Request) -> web.StreamResponse:
        caller = request[CALLER]
        model = self.records.model(caller.application, request.match_info["model"])
        _may_change(caller, model)
        await self.models.delete(model, user=_user(caller))
        return no_content()


def _may_change(caller: Caller, model: Model) -> None:
    if not caller.is_admin and caller.user_id != model.created_by:
        raise Forbidden("Only its definer and administrators may change a data model")


def _user(caller: Caller) -> str:
    return caller.user_id or ""
