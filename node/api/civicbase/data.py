"""Instances of data models over HTTP (seed S1, "CRUD Operations" and "Advanced Querying").

Room: the seed's shapes, `ETag` and `If-Match`, projection. Documents come rendered from `services.records`;
rights are asked of `services.permissions`, for writes inside the writer's transaction.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from aiohttp import web

from node.api.civicbase.expansion import EXPAND_QUERY, expanded, read_expansion
from node.api.civicbase.paging import CURSOR, page_schema, paging
from node.api.civicbase.receipts import PREFER_NOTE, PeerReceipts
from node.api.errors import BadRequest, NotFound, ValidationFailed
from node.api.replies import Reply, json_response, no_content
from node.api.requests import read_header, read_json, read_query
from node.api.routes import CALLER, Auth, Caller, KeyAccess, Route
from node.services.permissions import Permissions, Subject
from node.services.records import Records, Rendered
from protocol.changes import Guard, Record
from protocol.errors import InvalidId
from protocol.ids import check_chosen_id
from protocol.query import GROUP_BY_MAX, MEASURES_MAX, Query, parse_aggregation, parse_query
from protocol.schema import META_FIELDS, Model
from storage.errors import DocumentExists

TAG = ("Data",)
INSTANCE: dict[str, Any] = {
    "type": "object",
    "required": ["id"],  # and, without `fields`, the others
    "properties": {
        "id": {"type": "string"},
        "created_at": {"type": "string", "format": "date-time"},
        "updated_at": {"type": "string", "format": "date-time"},
        "created_by": {"type": "string"},
        "version": {"type": "string", "description": "Also the ETag; send it back in If-Match"},
    },
}
PAGE = page_schema({"type": "object"}, has_cursor=True)
MESSAGE = {"type": "object", "required": ["message"], "properties": {"message": {"type": "string"}}}
CREATED = {
    "type": "object",
    "required": ["message", "instance_id"],
    "properties": {"message": {"type": "string"}, "instance_id": {"type": "string"}},
}
LIST_QUERY: dict[str, dict[str, Any]] = {
    **paging(),
    "sort": {"type": "string", "default": "created_at"},
    "order": {"type": "string", "enum": ["asc", "desc"], "default": "desc"},
    "filter": {"type": "string", "description": "field:operator:value, joined by `,` (and) and `|` (or)"},
    "fields": {"type": "string", "description": "the fields to answer with, parted by commas"},
    "cursor": CURSOR,
    "expand": EXPAND_QUERY,
}
_FIELD: dict[str, Any] = {"type": "string", "pattern": "^[A-Za-z][A-Za-z0-9_]{0,62}$"}
AGGREGATION: dict[str, Any] = {
    "type": "object",
    "properties": {
        "group_by": {
            "type": ["array", "null"],
            "items": _FIELD,
            "uniqueItems": True,
            "maxItems": GROUP_BY_MAX,
        },
        "aggregations": {
            "type": ["array", "null"],
            "uniqueItems": True,
            "maxItems": MEASURES_MAX,
            "items": {
                "type": "object",
                "required": ["operation"],
                "properties": {
                    "field": _FIELD | {"description": "`count` needs none"},
                    "operation": {"type": "string", "enum": ["count", "sum", "avg", "min", "max"]},
                    "alias": {"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]{0,62}$"},
                },
                "anyOf": [{"required": ["field"]}, {"properties": {"operation": {"const": "count"}}}],
                "additionalProperties": False,
            },
        },
        "filter": {"type": ["string", "null"]},
    },
    "additionalProperties": False,
    "anyOf": [
        {
            "required": [name],
            "properties": {name: {"type": "array", "minItems": 1}},
        }
        for name in ("group_by", "aggregations")
    ],
}
VECTOR = "version_vector"  # answered where `fields` asks for it
_EDIT_NOTE = """A field of type `text` or `array` takes its whole value, or operations on what it showed at a version:
`{"ops": [{"retain": 3}, {"insert": "x"}, {"delete": 1}], "base_version": "…"}`. Positions count code points of a
text and elements of an array, of which `insert` takes a list. What others have written since stays, and the edit
lands where it was meant. A version that this node does not know, or that is older than both 24 hours and 1,000
edits, answers 409."""
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


def write_guard(permissions: Permissions, caller: Caller, model: Model, action: str) -> Guard | None:
    """A guard that asks for the right inside the transaction, where the document's owner is certain."""
    if caller.is_admin and caller.application == model.application:
        return None

    def guard(record: Record | None) -> None:
        permissions.raise_unless(caller, model, action, record)

    return guard


def raise_unless_creator(
    permissions: Permissions, caller: Caller, model: Model, values: Mapping[str, Any] | None = None
) -> None:
    """Refuse who may create no instance of the model, or, with `values`, not this one."""
    if values is not None:
        permissions.raise_unless(caller, model, "create", Subject(caller.user_id, values))
    else:
        permissions.raise_unless_ever(caller, model, "create")


def new_instance(model: Model, body: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """The id that a body chooses, if any, and its checked values. Raises `ValidationFailed`.

    An app may choose the id itself, so that a create it repeats after a lost answer is refused as double.
    """
    id = body.pop("id", None)
    values, faults = model.check_create(body)
    if id is not None:
        try:
            check_chosen_id(id)
        except InvalidId as error:
            faults["id"] = f"Not an id: {error}"
    if faults:
        raise ValidationFailed(faults)
    return id, values


def raise_if_anothers(records: Records, caller: Caller, model: Model, id: str) -> None:
    """Refuse an id under which someone else had a document: what is deleted keeps its creator, who would
    own what is created in its place. Administrators may bring documents back."""
    creator = None if caller.is_admin else records.creator(model, id)
    if creator is not None and creator != (caller.user_id or ""):
        raise DocumentExists(f"{model.name}/{id} is the id of another user's document")


def if_match(request: web.Request) -> str | None:
    """The version that `If-Match` names; None without it or for `*`, which any existing document fits."""
    value = read_header(request, "If-Match")
    if value is None or value.strip() == "*":
        return None
    value = value.strip().removeprefix("W/").strip('"')
    if "," in value:
        raise BadRequest("If-Match takes one version")
    return value


def project(document: Rendered, fields: Sequence[str], vector: Mapping[str, int] | None = None) -> bytes:
    """The named members of a rendered document; `id` always. `vector` stands in for `version_vector`."""
    content = _decode(document.json)
    if vector is not None:
        content[VECTOR] = vector
    return _encode({"id": content["id"], **{name: content[name] for name in fields if name in content}})


def readable(records: Records, permissions: Permissions, caller: Caller, model: Model, id: str) -> Rendered:
    """The instance, if it is there and the caller may read it. Raises `NotFound`, or as `raise_unless`."""
    document = records.rendered(model, id)
    if document is None:
        permissions.raise_unless_ever(caller, model, "read")
        raise NotFound(f"There is no {model.name} '{id}'")
    permissions.raise_unless(caller, model, "read", document)
    return document


async def page_of(
    records: Records,
    permissions: Permissions,
    caller: Caller,
    model: Model,
    query: Query,
    expand: Sequence[str] = (),
) -> bytes:
    """One page of what the caller may read, as JSON, with what the references `expand` name."""
    found = await records.find(model, query, permissions.reading(caller, model))
    fields = query.fields
    if model.encrypted:
        found = found._replace(documents=[opened(records, caller, model, d) for d in found.documents])
    if fields and VECTOR in fields:
        items = [project(document, fields, _vector(records, model, document)) for document in found.documents]
    elif fields:
        items = [project(document, fields) for document in found.documents]
    else:
        items = [document.json for document in found.documents]
    if expand:
        items = expanded(records, permissions, caller, model, expand, items)
    return b'{"items":[%b],"total":%d,"page":%d,"per_page":%d,"next_cursor":%b}' % (
        b",".join(items),
        found.total,
        query.page,
        query.per_page,
        b"null" if found.next_cursor is None else _encode(found.next_cursor),
    )


def opened(records: Records, caller: Caller, model: Model, document: Rendered) -> Rendered:
    """The document with what the caller's key opens."""
    if records.sealing is None or caller.session_id is None:
        return document
    content = _decode(document.json)
    records.sealing.open(model, content["id"], content, caller.user_id, caller.session_id)
    return document._replace(json=_encode(content))


def may_open(records: Records, caller: Caller, models: Iterable[Model]) -> bool:
    """Whether what the caller is shown of these models may have been opened with the caller's key."""
    sealing = records.sealing
    if sealing is None or sealing.opener(caller.user_id, caller.session_id) is None:
        return False
    return any(model.encrypted for model in models)


def _vector(records: Records, model: Model, document: Rendered) -> Mapping[str, int]:
    found = records.rendered_with_vector(model, _decode(document.json)["id"])
    return {} if found is None else found[1]


def _asked_fields(request: web.Request, model: Model) -> tuple[list[str], list[str]]:
    """The fields that `?fields=` and `?expand=` name. Raises `ValidationFailed`."""
    query = read_query(request)
    faults = {name: "Unknown parameter" for name in query if name not in ("fields", "expand")}
    names = [name for part in query.get("fields", "").split(",") if (name := part.strip())]
    wrong = [name for name in names if name not in model.fields and name not in (*META_FIELDS, VECTOR)]
    if wrong:
        faults["fields"] = f"Unknown field: {', '.join(wrong)}"
    expand = read_expansion(query.get("expand"), model, faults)
    if faults:
        raise ValidationFailed(faults)
    return names, expand


@dataclass(frozen=True, slots=True)
class DataRoutes:
    records: Records
    permissions: Permissions
    receipts: PeerReceipts

    def routes(self) -> list[Route]:
        many, one = "/v1/data/{model}", "/v1/data/{model}/{id}"
        fields = {"fields": LIST_QUERY["fields"], "expand": EXPAND_QUERY}
        open_to_all = Auth.OPTIONAL  # a model may be public: its permissions decide
        return [
            Route(
                "GET",
                many,
                self.list,
                "List instances, filtered, sorted, in pages",
                auth=open_to_all,
                key_access=KeyAccess.DATA,
                tags=TAG,
                query=LIST_QUERY,
                responses={200: PAGE},
            ),
            Route(
                "POST",
                many,
                self.create,
                "Create an instance",
                auth=open_to_all,
                key_access=KeyAccess.DATA,
                tags=TAG,
                description=PREFER_NOTE,
                request={"type": "object"},
                responses={201: CREATED},
            ),
            Route(
                "GET",
                one,
                self.read,
                "Read an instance",
                auth=open_to_all,
                key_access=KeyAccess.DATA,
                tags=TAG,
                query=fields,
                responses={200: INSTANCE},
            ),
            Route(
                "PUT",
                one,
                self.update,
                "Update the given fields of an instance",
                auth=open_to_all,
                key_access=KeyAccess.DATA,
                tags=TAG,
                description=f"{_EDIT_NOTE}\n\n{PREFER_NOTE}",
                request={"type": "object"},
                responses={200: MESSAGE},
            ),
            Route(
                "DELETE",
                one,
                self.delete,
                "Delete an instance",
                auth=open_to_all,
                key_access=KeyAccess.DATA,
                tags=TAG,
                description=PREFER_NOTE,
                responses={204: None},
            ),
            Route(
                "POST",
                many + "/aggregate",
                self.aggregate,
                "Group and aggregate instances",
                auth=open_to_all,
                key_access=KeyAccess.DATA,
                names_all=False,
                tags=TAG,
                request=AGGREGATION,
                responses={200: {"type": "array", "items": {"type": "object"}}},
            ),
        ]

    async def read(self, request: web.Request) -> web.StreamResponse:
        caller = request[CALLER]
        match = request.match_info
        model = self.records.model(caller.application, match["model"])
        document = readable(self.records, self.permissions, caller, model, match["id"])
        vector: Mapping[str, int] | None = None
        names, expand = _asked_fields(request, model) if "?" in request.raw_path else ([], [])
        if VECTOR in names:
            document, vector = self.records.rendered_with_vector(model, match["id"]) or (document, {})
        etag = f'"{document.version}"'
        if request.headers.get("If-None-Match") == etag and not expand:  # of which the version says nothing
            return Reply(b"", 304, {"ETag": etag})
        if model.encrypted:
            document = opened(self.records, caller, model, document)
        content = project(document, names, vector) if names else document.json
        if expand:
            (content,) = expanded(self.records, self.permissions, caller, model, expand, [content])
        return Reply(content, 200, {"ETag": etag})

    async def list(self, request: web.Request) -> web.StreamResponse:
        caller = request[CALLER]
        model = self.records.model(caller.application, request.match_info["model"])
        asked = read_query(request)
        faults: dict[str, str] = {}
        expand = read_expansion(asked.get("expand"), model, faults) if "expand" in asked else []
        query = parse_query(asked, model, faults)
        return Reply(await page_of(self.records, self.permissions, caller, model, query, expand))

    async def create(self, request: web.Request) -> web.StreamResponse:
        caller = request[CALLER]
        model = self.records.model(caller.application, request.match_info["model"])
        raise_unless_creator(self.permissions, caller, model)
        id, values = new_instance(model, await read_json(request))
        raise_unless_creator(self.permissions, caller, model, values)
        if id is not None:
            raise_if_anothers(self.records, caller, model, id)
        user, derived = caller.user_id or "", getattr(request, "derived_id", None)
        try:
            record = await self.records.create(model, values, user=user, id=id or derived)
        except DocumentExists:
            # Made by this very request, whose answer was lost before it could be kept.
            again = None if id is not None or derived is None else self.records.get(model, derived)
            if again is None or again.created_by != user:
                raise
            record = again
        headers = {"Location": f"/v1/data/{model.id}/{record.id}", "ETag": f'"{record.version}"'}
        headers |= await self.receipts.headers(request, caller.application)
        return Reply(
            b'{"message":"Instance created successfully","instance_id":"%b"}' % record.id.encode(),
            201,
            headers,
        )

    async def update(self, request: web.Request) -> web.StreamResponse:
        caller = request[CALLER]
        model = self.records.model(caller.application, request.match_info["model"])
        guard = write_guard(self.permissions, caller, model, "update")
        values, faults = model.check_update(await read_json(request))
        if faults:
            raise ValidationFailed(faults)
        record = await self.records.update(
            model,
            request.match_info["id"],
            values,
            user=caller.user_id or "",
            if_match=if_match(request),
            guard=guard,
        )
        headers = {"ETag": f'"{record.version}"'} | await self.receipts.headers(request, caller.application)
        return json_response({"message": "Instance updated successfully"}, headers=headers)

    async def delete(self, request: web.Request) -> web.StreamResponse:
        caller = request[CALLER]
        model = self.records.model(caller.application, request.match_info["model"])
        guard = write_guard(self.permissions, caller, model, "delete")
        await self.records.delete(
            model,
            request.match_info["id"],
            user=caller.user_id or "",
            if_match=if_match(request),
            guard=guard,
        )
        return no_content(await self.receipts.headers(request, caller.application))

    async def aggregate(self, request: web.Request) -> web.StreamResponse:
        caller = request[CALLER]
        model = self.records.model(caller.application, request.match_info["model"])
        aggregation = parse_aggregation(await read_json(request), model)
        limit = self.permissions.reading(caller, model)
        return json_response(await self.records.aggregate(model, aggregation, limit))
