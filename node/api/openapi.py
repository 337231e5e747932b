"""The OpenAPI 3.1 description of the API, made from the routes and the models as they are now.

Room: a pure function from routes and models to a document. Nothing is described twice: bodies come from the
very structs that handlers read, users' models become schemas and paths of their own beside the general ones.
Source: OpenAPI Specification 3.1.1, whose schemas are JSON Schema 2020-12.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import msgspec

from node.api.model_schemas import (
    aggregation_schema,
    create_schema,
    parameter_schema,
    record_schema,
    update_schema,
)
from node.api.routes import Auth, KeyAccess, Route, Schema
from protocol.schema import Model

SURFACES = {
    "": "Node",
    "S1": "CivicBase",
    "S2": "Event repositories",
    "S3": "CRM realtime",
    "S4": "Aether channels",
    "S5": "Auth & files",
    "S6": "Member portal",
}

# A schema for texts that are to be shown on one line, for others to refer to.
PRINTABLE = "Printable"

# Where the general routes for records of a model lie; each model's own paths are made from them.
DATA_ROOT = "/v1/data/{model}"

Json = dict[str, Any]


ERROR_SCHEMA: Json = {
    "title": "Error",
    "type": "object",
    "properties": {
        "error": {"type": "string", "description": "For people"},
        "error_code": {"type": "string", "description": "For programs"},
        "details": {
            "type": "object",
            "description": "Every fault, by the field it is in",
            "additionalProperties": {"type": "string"},
        },
        "retry_after": {"type": "integer", "description": "Seconds until the rate limit resets"},
        "request_id": {"type": "string", "description": "Under which the node's log has the details"},
    },
    "required": ["error", "error_code"],
}

_ERRORS = {
    "BadRequest": "Not understood, or not valid: `details` names every fault",
    "Unauthorized": "No token, or one that does not count",
    "Forbidden": "Not with these rights, or a page of a foreign origin without a token",
    "NotFound": "Not there",
    "RateLimited": "Too many requests: `retry_after` says when to go on",
    "Error": "Any other refusal",
}

_RATE_HEADERS: Json = {
    "X-RateLimit-Limit": {"description": "Requests in a window", "schema": {"type": "integer"}},
    "X-RateLimit-Remaining": {"description": "Left in the present window", "schema": {"type": "integer"}},
    "X-RateLimit-Reset": {"description": "When it ends, epoch seconds", "schema": {"type": "integer"}},
}


def describe(
    routes: Iterable[Route], *, version: str, models: Iterable[Model] = (), server: str = "/"
) -> Json:
    """The document for these routes, with concrete paths and schemas for `models`."""
    shown = [route for route in routes if route.summary]
    structs = {kind for route in shown for kind in _structs(route)}
    refs, schemas = _components(sorted(structs, key=lambda struct: struct.__qualname__))
    schemas["Error"] = ERROR_SCHEMA
    schemas[PRINTABLE] = {
        "title": "Printable text",
        "type": "string",
        "description": "Letters, marks, digits, punctuation, symbols and spaces: no control characters, no line "
        "breaks, no spaces of other kinds, nothing that Unicode has not assigned",
        "pattern": _printable_pattern(),
    }
    paths: dict[str, Json] = {}
    for route in shown:
        paths.setdefault(_template(route.path), {})[route.method.lower()] = _operation(route, refs)
    tags = {tag: "" for route in shown for tag in _tags(route)}
    data = [route for route in shown if route.path.startswith(DATA_ROOT)]
    for model in models:
        name = _add_model_schemas(schemas, model)
        tags[model.name] = f"Records of the model {model.name}"
        for route in data:
            path = _template(route.path).replace("{model}", quote(model.name, safe=""), 1)
            paths.setdefault(path, {})[route.method.lower()] = _model_operation(route, refs, model, name)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "civicnode",
            "version": version,
            "description": "The API of this node. Sign in, or take the owner token (`civicnode token`), "
            "and send it as `Authorization: Bearer <token>`.",
        },
        "servers": [{"url": server}],
        "tags": [{"name": tag, "description": text} if text else {"name": tag} for tag, text in tags.items()],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "api_key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
            "schemas": schemas,
            "responses": {
                name: {"description": text, "content": {"application/json": {"schema": _ref("Error")}}}
                for name, text in _ERRORS.items()
            },
            "headers": _RATE_HEADERS,
        },
    }


@lru_cache(maxsize=1)
def _printable_pattern() -> str:
    """What `str.isprintable` takes, as a regular expression: JSON Schema knows no name for it."""
    ranges: list[list[int]] = []
    for code in (*range(0x40000), *range(0xE0000, 0xE0200)):  # nothing else is assigned, but for private use
        if chr(code).isprintable():
            if ranges and ranges[-1][1] == code - 1:
                ranges[-1][1] = code
            else:
                ranges.append([code, code])
    inner = "".join(f"{_literal(first)}-{_literal(last)}" for first, last in ranges)
    return f"^[{inner}]*$"


def _literal(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x80 else chr(code)


def _structs(route: Route) -> Iterable[type[msgspec.Struct]]:
    for schema in (route.request, *route.responses.values()):
        if isinstance(schema, type):
            yield schema


def _components(structs: Sequence[type[msgspec.Struct]]) -> tuple[dict[type, Json], dict[str, Json]]:
    refs, schemas = msgspec.json.schema_components(structs, ref_template="#/components/schemas/{name}")
    return dict(zip(structs, refs, strict=True)), dict(schemas)


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _schema(schema: Schema, refs: Mapping[type, Json]) -> Json:
    return refs[schema] if isinstance(schema, type) else schema


def _template(path: str) -> str:
    return path.replace("*}", "}")


def _tags(route: Route) -> tuple[str, ...]:
    return route.tags or (SURFACES.get(route.surface, route.surface),)


def _operation(route: Route, refs: Mapping[type, Json]) -> Json:
    operation: Json = {
        "operationId": _slug(f"{route.method.lower()} {route.path}"),
        "summary": route.summary,
        "tags": list(_tags(route)),
        "responses": _responses(route, refs),
        "security": _security(route.auth, route.key_access),
    }
    notes = [route.description] if route.description else []
    if route.deprecation is not None:
        operation["deprecated"] = True
        notes.append(route.deprecation.note)
    if notes:
        operation["description"] = "\n\n".join(notes)
    if parameters := _parameters(route):
        operation["parameters"] = parameters
    if route.request is not None:
        operation["requestBody"] = _body(_schema(route.request, refs), route)
    return operation


def _body(schema: Json, route: Route) -> Json:
    content = {content_type: {"schema": schema} for content_type in route.accepts}
    return {"required": not route.body_optional, "content": content}


# As `routes.percent_decoded` takes it.
_NO_CONTROLS = "^[^\\x00-\\x1f\\x7f]*$"
_SEGMENT: Json = {"type": "string", "minLength": 1, "pattern": _NO_CONTROLS}
_SAYING_MORE = frozenset({"enum", "format", "pattern"})


def _parameters(route: Route) -> list[Json]:
    parameters: list[Json] = [
        {"name": name, "in": "path", "required": True, "schema": _SEGMENT}
        for name in re.findall(r"\{(\w+)\*?\}", route.path)
    ]
    for name, schema in (route.query or {}).items():
        inner = {key: value for key, value in schema.items() if key not in ("description", "required")}
        if inner.get("type") == "string" and not _SAYING_MORE & inner.keys():
            inner["pattern"] = _NO_CONTROLS
        content_type = inner.pop("contentMediaType", None)
        place: Json = (
            {"schema": inner} if content_type is None else {"content": {content_type: {"schema": inner}}}
        )
        parameter: Json = {"name": name, "in": "query", **place}
        if "description" in schema:
            parameter["description"] = schema["description"]
        if schema.get("required") is True:
            parameter["required"] = True
        parameters.append(parameter)
    if route.token_in_query:
        text = "A token, for clients that cannot send the Authorization header"
        schema = {"type": "string", "pattern": _NO_CONTROLS}
        parameters.append({"name": "token", "in": "query", "description": text, "schema": schema})
    return parameters


def _responses(route: Route, refs: Mapping[type, Json]) -> Json:
    responses: Json = {}
    for status, schema in sorted(route.responses.items()):
        response: Json = {"description": HTTPStatus(status).phrase}
        if schema is not None:
            content_type = "application/json"
            if isinstance(schema, dict) and "contentMediaType" in schema:
                content_type = schema["contentMediaType"]
            response["content"] = {content_type: {"schema": _schema(schema, refs)}}
            response["content"] |= {other: {} for other in route.also_answers if other != content_type}
        if route.rate and 200 <= status < 300:
            response["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in _RATE_HEADERS}
        responses[str(status)] = response
    refusals = {"400": "BadRequest", "403": "Forbidden"}
    if route.auth is not Auth.NONE:
        refusals["401"] = "Unauthorized"
    if "{" in route.path:
        refusals["404"] = "NotFound"
    if route.rate:
        refusals["429"] = "RateLimited"
    refusals["default"] = "Error"
    for status_text, name in sorted(refusals.items()):
        responses.setdefault(status_text, {"$ref": f"#/components/responses/{name}"})
    return responses


def _security(auth: Auth, access: KeyAccess) -> list[Json]:
    either: list[Json] = [{"bearer": []}] if access is KeyAccess.NONE else [{"bearer": []}, {"api_key": []}]
    match auth:
        case Auth.NONE:
            return []
        case Auth.OPTIONAL | Auth.LOCAL:
            return [{}, *either]
    return either


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_")


# Users' models.


def _add_model_schemas(schemas: dict[str, Json], model: Model) -> str:
    """Add what a model's records read and write as; returns the name they go by."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", model.name)
    while f"{name}.Record" in schemas:  # two names that differ in odd characters only
        name += "_"
    schemas[f"{name}.Record"] = record_schema(model)
    schemas[f"{name}.Create"] = create_schema(model)
    schemas[f"{name}.Update"] = update_schema(model)
    return name


def _of_model(parameter: Json, model: Model) -> Json:
    """The parameter as it is for this model."""
    narrowed = parameter_schema(parameter["name"], model) if parameter["in"] == "query" else None
    return parameter if narrowed is None else parameter | {"schema": narrowed}


def _model_operation(route: Route, refs: Mapping[type, Json], model: Model, name: str) -> Json:
    operation = _operation(route, refs)
    operation["operationId"] = _slug(
        f"{route.method.lower()} {model.id} {route.path.removeprefix(DATA_ROOT)}"
    )
    operation["tags"] = [model.name]
    operation["parameters"] = [
        _of_model(parameter, model)
        for parameter in operation.get("parameters", [])
        if parameter["name"] != "model"
    ]
    tail = route.path.removeprefix(DATA_ROOT)
    record = _ref(f"{name}.Record")
    is_one = re.fullmatch(r"/\{\w+\}", tail) is not None
    if not tail and route.method == "POST":
        operation["requestBody"] = _body(_ref(f"{name}.Create"), route)
    elif tail == "/aggregate" and isinstance(route.request, dict):
        operation["requestBody"] = _body(aggregation_schema(route.request, model), route)
    elif is_one and route.method in ("PUT", "PATCH"):
        operation["requestBody"] = _body(_ref(f"{name}.Update"), route)
    elif is_one and route.method == "GET" and 200 in route.responses:
        operation["responses"]["200"]["content"] = {"application/json": {"schema": record}}
    elif not tail and route.method == "GET" and 200 in route.responses:
        page: Json = {
            "type": "object",
            "properties": {
                "items": {"type": "array", "items": record},
                "total": {"type": "integer"},
                "page": {"type": "integer"},
                "per_page": {"type": "integer"},
                "next_cursor": {"type": ["string", "null"]},
            },
            "required": ["items"],
        }
        operation["responses"]["200"]["content"] = {"application/json": {"schema": page}}
    return operation
