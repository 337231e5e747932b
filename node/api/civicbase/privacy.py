"""People's data: a copy of all of it, erasing it with proof, consents, notices of breaches, how long it is kept.

Room: translates `/v1/privacy/…` (seed: "Data Privacy and GDPR Compliance") to the services and back.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from aiohttp import web

from node.api.civicbase.account_views import (
    GIVEN,
    AccountDeps,
    acting_user,
    own_account,
    profile_view,
    schema,
    signed_in_account,
    source_of,
)
from node.api.civicbase.data import opened
from node.api.errors import Forbidden, NotFound, ValidationFailed
from node.api.replies import json_response
from node.api.requests import read_json
from node.api.routes import CALLER, Auth, Caller, KeyAccess, Route
from node.services.account_rules import REQUIRED
from node.services.erasing import Erasing, ErasureView, Item
from node.services.permissions import Permissions
from node.services.privacy import (
    AFFECTED_MAX,
    CONSENTS_MAX,
    CONSENTS_RESERVED,
    DAYS_MAX,
    DESCRIPTION_MAX,
    SEVERITIES,
    Privacy,
)
from node.services.records import Records, Rendered
from protocol.ids import NodeId
from protocol.schema import Model
from protocol.times import datetime_from_ms

TAGS = ("Privacy",)
_TEXT = {"type": "string"}
_MOMENT = {"type": "string", "format": "date-time"}
_CONSENTS = {
    "type": "object",
    "minProperties": 1,
    "maxProperties": CONSENTS_MAX,
    "propertyNames": {
        "pattern": "^[A-Za-z][A-Za-z0-9_.-]{0,63}$",
        "not": {"enum": sorted(CONSENTS_RESERVED)},
    },
    "additionalProperties": {"type": "boolean"},
}
_ERASE = schema("confirm", password=_TEXT, confirm={"const": True}, model=_TEXT, id=_TEXT, user_id=_TEXT) | {
    "dependentRequired": {"model": ["id"], "id": ["model"]}
}
_DAYS = {"type": "object", "additionalProperties": {"type": ["integer", "null"]}}
_DAYS_GIVEN = {
    "type": "object",
    "additionalProperties": {"type": ["integer", "null"], "minimum": 1, "maximum": DAYS_MAX},
}
_ASKED = schema(
    "erasure_id erasure_ids documents status",
    erasure_id=_TEXT,
    erasure_ids={"type": "array", "items": _TEXT},
    documents={"type": "integer"},
    status={"enum": ["pending", "needs_administrator"]},
)
_NODE = schema(
    "node name status confirmed_at",
    node=_TEXT,
    name={"type": ["string", "null"]},
    status={"enum": ["confirmed", "pending", "reader"]},
    confirmed_at={"type": ["string", "null"]},
)
_ERASURE = schema(
    "id kind status requested_at documents left nodes",
    id=_TEXT,
    kind=_TEXT,
    status={"enum": ["confirmed", "pending", "needs_administrator"]},
    requested_at=_MOMENT,
    documents={"type": "integer"},
    left={"type": "integer"},
    nodes={"type": "array", "items": _NODE},
)
_BREACH = schema(
    "id description severity reported_at", id=_TEXT, description=_TEXT, severity=_TEXT, reported_at=_MOMENT
)


class PrivacyRoutes:
    """`name_of` tells what a node is called, `find_model` the model of a name or id that the data routes show."""

    def __init__(
        self,
        accounts: AccountDeps,
        privacy: Privacy,
        erasing: Erasing,
        records: Records,
        permissions: Permissions,
        *,
        find_model: Callable[[str, str], Model | None],
        name_of: Callable[[NodeId], str | None],
    ) -> None:
        self._identity = accounts.identity
        self._privacy = privacy
        self._erasing = erasing
        self._records = records
        self._permissions = permissions
        self._find_model = find_model
        self._name_of = name_of

    # -- all of it

    async def export(self, request: web.Request) -> web.StreamResponse:
        caller = request[CALLER]
        account = own_account(self._identity, caller)
        disposition = 'attachment; filename="my-data.json"'
        response = web.StreamResponse(
            headers={"Content-Type": "application/json", "Content-Disposition": disposition}
        )
        pieces = self._privacy.export(account, profile_view(account), partial(self._opened, caller))
        first = await anext(pieces)  # what cannot be begun is refused with an answer
        await response.prepare(request)
        await response.write(first)
        async for piece in pieces:
            await response.write(piece)
        await response.write_eof()
        return response

    def _opened(self, caller: Caller, model: Model, document: Rendered) -> Rendered:
        return opened(self._records, caller, model, document) if model.encrypted else document

    # -- erasing

    async def erase(self, request: web.Request) -> web.StreamResponse:
        caller = request[CALLER]
        body = await read_json(request)
        faults = {} if body.get("confirm") is True else {"confirm": "Must be true: nothing brings it back"}
        names = {name: body[name] for name in ("model", "id", "user_id") if name in body}
        faults |= {name: "Must be a string" for name, value in names.items() if not isinstance(value, str)}
        if ("model" in body) != ("id" in body):
            faults["id" if "model" in body else "model"] = REQUIRED
        if not caller.is_owner and not isinstance(body.get("password"), str):
            faults["password"] = REQUIRED
        if faults:
            raise ValidationFailed(faults)
        if not caller.is_owner:
            account = signed_in_account(self._identity, caller)
            await self._identity.accounts.confirm(account, body["password"], source_of(request))
        if "model" in body:
            kind, items = "document", [self._document(caller, body["model"], body["id"])]
        else:
            kind, items = "account", await self._account(caller, body.get("user_id"))
        ids = await self._erasing.erase(caller.application, kind, items, user=acting_user(caller))
        left = sum(len(view.left) for id in ids if (view := self._erasing.view(caller.application, id)))
        status = "needs_administrator" if left else "pending"
        told = {"erasure_id": ids[0], "erasure_ids": ids, "documents": len(items), "status": status}
        return json_response(told, 202, {"Location": f"/v1/privacy/erasures/{ids[0]}"})

    def _document(self, caller: Caller, name: str, id: str) -> Item:
        """A document that the caller may erase: an administrator any, a user what is the user's and may be deleted."""
        model = self._find_model(caller.application, name)
        shown = None if model is None else self._records.rendered(model, id)
        if model is None or (shown is None and not caller.is_admin):
            raise NotFound("There is no such document")
        if shown is not None:
            self._permissions.raise_unless(caller, model, "delete", shown)
            if not caller.is_admin and shown.created_by != caller.user_id:
                raise Forbidden("Only administrators may erase what others have made")
        return model.id, id

    async def _account(self, caller: Caller, user_id: str | None) -> list[Item]:
        """Everything of the caller's account, or, for administrators, of another's."""
        if user_id is None:
            user_id = own_account(self._identity, caller).id
        if user_id != caller.user_id and not caller.is_admin:
            raise Forbidden("Only administrators may do this for other users")
        self._identity.accounts.require(caller.application, user_id)
        return await self._records.in_pool(self._erasing.created_by, caller.application, user_id)  # type: ignore[no-any-return]

    async def erasure(self, request: web.Request) -> web.StreamResponse:
        return json_response(self._view(request[CALLER].application, request.match_info["id"]))

    async def complete(self, request: web.Request) -> web.StreamResponse:
        caller, id = request[CALLER], request.match_info["id"]
        if not self._erasing.may_erase_all(caller.application):
            raise Forbidden("This device is no administrator's: ask on one that is")
        if not await self._erasing.complete(caller.application, id, user=acting_user(caller)):
            raise NotFound("There is no such erasure")
        return json_response(self._view(caller.application, id), 202)

    def _view(self, application: str, id: str) -> dict[str, Any]:
        view = self._erasing.view(application, id)
        if view is None:
            raise NotFound("There is no such erasure")
        return {
            "id": view.id,
            "kind": view.kind,
            "status": _status(view),
            "requested_at": datetime_from_ms(view.at_ms),
            "documents": len(view.items),
            "left": len(view.left),
            "nodes": [
                {
                    "node": told.node.hex(),
                    "name": self._name_of(told.node),
                    "status": told.state,
                    "confirmed_at": None
                    if told.confirmed_at_ms is None
                    else datetime_from_ms(told.confirmed_at_ms),
                }
                for told in view.nodes
            ],
        }

    # -- consents, breaches, retention

    async def consents(self, request: web.Request) -> web.StreamResponse:
        account = own_account(self._identity, request[CALLER])
        return json_response(await self._privacy.consents(account.application, account.id))

    async def put_consents(self, request: web.Request) -> web.StreamResponse:
        account = own_account(self._identity, request[CALLER])
        given = await read_json(request)
        return json_response(await self._privacy.put_consents(account.application, account.id, given))

    async def report_breach(self, request: web.Request) -> web.StreamResponse:
        caller = request[CALLER]
        told = await read_json(request)
        user = acting_user(caller)
        return json_response(await self._privacy.report_breach(caller.application, told, user=user), 201)

    async def breaches(self, request: web.Request) -> web.StreamResponse:
        caller = request[CALLER]
        user = None if caller.is_admin else acting_user(caller)
        found = [breach async for breach in self._privacy.breaches(caller.application, user=user)]
        return json_response({"items": found, "total": len(found)})

    async def retention(self, request: web.Request) -> web.StreamResponse:
        return json_response(self._privacy.retention(request[CALLER].application))

    async def put_retention(self, request: web.Request) -> web.StreamResponse:
        caller = request[CALLER]
        told = await read_json(request)
        user = acting_user(caller)
        return json_response(await self._privacy.put_retention(caller.application, told, user=user))

    def routes(self) -> list[Route]:
        people = KeyAccess.NONE
        return [
            Route("GET", "/v1/privacy/export", self.export, "A copy of everything that is kept about you",
                  key_access=people, responses={200: schema(
                      "exported_at userProfile userData consents sessions apiKeys webhooks breaches documents")},
                  tags=TAGS),
            Route("POST", "/v1/privacy/erase", self.erase,
                  "Erase your account and all that you made, or one document, on every node and for ever",
                  key_access=people, request=_ERASE,
                  responses={202: _ASKED}, tags=TAGS,
                  description="Without `model` and `id` the whole account goes; administrators may name another's by "
                              "`user_id`. The owner token needs no password."),
            Route("GET", "/v1/privacy/erasures/{id}", self.erasure,
                  "Which nodes hold nothing of it any more, and which have not said so yet",
                  auth=Auth.OPTIONAL, responses={200: _ERASURE}, tags=TAGS,
                  description="For anybody who knows its id: whose account it was cannot sign in any more."),
            Route("POST", "/v1/privacy/erasures/{id}/complete", self.complete,
                  "Erase what is left of an erasure that was asked for on a member's device",
                  auth=Auth.ADMIN, key_access=people, body_optional=True, responses={202: _ERASURE}, tags=TAGS),
            Route("GET", "/v1/privacy/consent", self.consents, "What you have agreed to and refused, and when",
                  responses={200: schema("id updated_at history")}, tags=TAGS),
            Route("PUT", "/v1/privacy/consent", self.put_consents, "Agree and refuse, by the names of consents",
                  request=_CONSENTS, responses={200: schema("id updated_at history")}, tags=TAGS),
            Route("POST", "/v1/privacy/breaches", self.report_breach,
                  "Let users know that data of theirs got into wrong hands",
                  auth=Auth.ADMIN,
                  request=schema("affected_user_ids description",
                                 affected_user_ids={"type": "array", "items": GIVEN, "minItems": 1,
                                                    "maxItems": AFFECTED_MAX},
                                 description=GIVEN | {"maxLength": DESCRIPTION_MAX},
                                 severity={"enum": list(SEVERITIES)}),
                  responses={201: _BREACH}, tags=TAGS),
            Route("GET", "/v1/privacy/breaches", self.breaches,
                  "The breaches that concern you; all of them, for administrators",
                  responses={200: schema("items total", items={"type": "array", "items": _BREACH},
                                         total={"type": "integer"})}, tags=TAGS),
            Route("GET", "/v1/privacy/retention", self.retention,
                  "For how many days documents of models are kept after their last change",
                  auth=Auth.ADMIN, responses={200: _DAYS}, tags=TAGS),
            Route("PUT", "/v1/privacy/retention", self.put_retention,
                  "Have documents of models erased so many days after their last change; null keeps them",
                  auth=Auth.ADMIN, request=_DAYS_GIVEN, responses={200: _DAYS}, tags=TAGS),
        ]  # fmt: skip


def _status(view: ErasureView) -> str:
    if view.left:
        return "needs_administrator"
    return "pending" if any(told.state == "pending" for told in view.nodes) else "confirmed"
