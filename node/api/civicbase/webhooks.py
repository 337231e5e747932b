"""Webhooks over HTTP (seed S1, "Webhooks", "Webhooks and Real-time Notifications"; CONTRACT, "S1").

Room: the JSON shapes. Which webhooks there are, who may see them and what is sent is `services.webhooks`'.
"""

from dataclasses import dataclass
from typing import Any

import msgspec
from aiohttp import web

from node.api.civicbase.paging import page_schema, paging, read_paging
from node.api.errors import Forbidden, ValidationFailed
from node.api.openapi import PRINTABLE
from node.api.replies import json_response, no_content
from node.api.requests import read_json, read_json_if_any, read_query
from node.api.routes import CALLER, Caller, KeyAccess, Route
from node.services.webhook_events import EVENTS_MAX
from node.services.webhook_lanes import RETRY_MS
from node.services.webhook_records import Delivery, Hook, Status
from node.services.webhook_targets import URL_MAX_CHARS, URL_PATTERN
from node.services.webhooks import FIELDS, OVERLAP_MAX_S, OVERLAP_S, SECRET_MAX_CHARS, Webhooks
from protocol.times import datetime_from_ms

TAG = ("Webhooks",)
BODY_SHOWN_MAX_BYTES = 4_096
_TIME = {"type": ["string", "null"], "format": "date-time"}
_PATH = "/v1/webhooks/{id}"


class RotateRequest(msgspec.Struct, forbid_unknown_fields=True):
    """A `secret` of one's own, and for how long the present one is to sign too."""

    secret: str | None = None
    overlap_s: int = OVERLAP_S


_GIVEN: dict[str, Any] = {
    "url": {
        "type": "string",
        "maxLength": URL_MAX_CHARS,
        "pattern": URL_PATTERN,
        "description": "http or https, at a public address unless the node allows others",
    },
    "events": {
        "type": "array",
        "minItems": 1,
        "maxItems": EVENTS_MAX,
        "items": {
            "type": "string",
            "pattern": "^(?:\\*|user\\.(?:created|updated)|breach\\.created"
            "|(?!(?:user|breach)\\.[a-z]+$)[A-Za-z][A-Za-z0-9_.:~-]{0,127}\\.(?:created|updated|deleted)"
            "|[A-Za-z][A-Za-z0-9_.:~-]{0,127}\\.[A-Za-z][A-Za-z0-9_]{0,62}_changed)$",
        },
        "description": "`data.created|updated|deleted`, `user.created|updated`, `breach.created`, "
        "`project.status_changed`, "
        "`Model.created|updated|deleted`, `Model.field_changed`, or `*`",
    },
    "secret": {
        "$ref": f"#/components/schemas/{PRINTABLE}",
        "minLength": 1,
        "maxLength": SECRET_MAX_CHARS,
        "description": "What signs, `whsec_` with base64 of it, or any text; "
        "made here if there is none, and shown this once",
    },
    "enabled": {"type": "boolean"},
}
CREATE: dict[str, Any] = {
    "type": "object",
    "required": ["url", "events"],
    "properties": _GIVEN
    | {name: {"anyOf": [_GIVEN[name], {"type": "null"}]} for name in ("secret", "enabled")},
    "additionalProperties": False,
}
CHANGE: dict[str, Any] = {
    "type": "object",
    "properties": _GIVEN,
    "additionalProperties": False,
    "description": "What was read may come back with it, as long as it is unchanged",
}
ROTATE: dict[str, Any] = {
    "type": "object",
    "properties": {
        "secret": {"anyOf": [_GIVEN["secret"], {"type": "null"}]},
        "overlap_s": {
            "type": "integer",
            "minimum": 0,
            "maximum": OVERLAP_MAX_S,
            "default": OVERLAP_S,
            "description": "For how long the present one signs too",
        },
    },
    "additionalProperties": False,
}
WEBHOOK: dict[str, Any] = {
    "type": "object",
    "required": ["id", "webhook_id", "url", "events", "enabled", "pending", "public_key"],
    "properties": {
        "id": {"type": "string"},
        "webhook_id": {"type": "string"},
        "url": {"type": "string"},
        "events": {"type": "array", "items": {"type": "string"}},
        "unmatched_events": {
            "type": "array",
            "items": {"type": "string"},
            "description": "Those that name a model or field that is not there, as yet",
        },
        "enabled": {"type": "boolean"},
        "disabled_reason": {"type": ["string", "null"]},
        "disabled_at": _TIME,
        "failing_since": _TIME,
        "pending": {"type": "integer", "description": "Deliveries that wait"},
        "created_by": {"type": "string"},
        "created_at": _TIME,
        "updated_at": _TIME,
        "previous_secret_until": _TIME,
        "public_key": {"type": "string", "description": "Verifies `v1a` signatures: this node's Ed25519 key"},
        "secret": {"type": "string", "description": "In the answer that makes it, and never again"},
        "message": {"type": "string"},
    },
}
WEBHOOKS = page_schema(WEBHOOK)
DELIVERY: dict[str, Any] = {
    "type": "object",
    "required": ["id", "event", "status", "attempts", "created_at"],
    "properties": {
        "id": {"type": "string", "description": "The `webhook-id`: the same however often it is sent"},
        "event": {"type": "string"},
        "instance_id": {"type": ["string", "null"]},
        "status": {"type": "string", "enum": [status.value for status in Status]},
        "attempts": {"type": "integer"},
        "response_code": {
            "type": ["integer", "null"],
            "description": "Of the last attempt, as the next four",
        },
        "response_body": {"type": "string", "description": "Its first 1,024 bytes"},
        "latency_ms": {"type": ["integer", "null"]},
        "error": {"type": ["string", "null"]},
        "attempted_at": _TIME,
        "next_attempt_at": _TIME,
        "created_at": _TIME,
        "body": {
            "type": ["string", "null"],
            "description": f"What was sent, without its signature, up to {BODY_SHOWN_MAX_BYTES} bytes",
        },
    },
}
DELIVERIES = page_schema(DELIVERY)
_PAGING = paging()
_DESCRIPTION = f"""A webhook stays on this node, which tells it of every change that its user may read, those of
other nodes included (they carry `origin`). Each delivery is sent at least once: up to {len(RETRY_MS) + 1} attempts over
three days, those about one instance in order. It is signed in the body (`signature`), in `X-CivicBase-Signature` over
the raw body, and as Standard Webhooks wants it (`webhook-signature`: `v1` with the secret, `v1a` with `public_key`).
A receiver that answers 410, or fails for 5 days, is disabled; `{{"enabled": true}}` ends that. No API key opens these
routes: a webhook lasts, and reads what its user may read, whatever the scopes of a key."""


@dataclass(frozen=True, slots=True)
class WebhookRoutes:
    webhooks: Webhooks

    def routes(self) -> list[Route]:
        def route(method: str, path: str, handler: Any, summary: str, shape: Any, **more: Any) -> Route:
            status = more.pop("status", 200)
            return Route(
                method,
                _PATH + path,
                handler,
                summary,
                tags=TAG,
                key_access=KeyAccess.NONE,
                responses={status: shape},
                **more,
            )

        change = "PUT and PATCH are the same: what is given is changed."
        return [
            Route(
                "POST",
                "/v1/webhooks",
                self.create,
                "Register a webhook",
                tags=TAG,
                key_access=KeyAccess.NONE,
                request=CREATE,
                responses={201: WEBHOOK},
                description=_DESCRIPTION,
            ),
            Route(
                "GET",
                "/v1/webhooks",
                self.list,
                "List one's webhooks; administrators: all of the application",
                tags=TAG,
                key_access=KeyAccess.NONE,
                query=_PAGING,
                responses={200: WEBHOOKS},
            ),
            route("GET", "", self.read, "Read a webhook", WEBHOOK),
            route("PUT", "", self.change, "Change a webhook", WEBHOOK, request=CHANGE, description=change),
            route("PATCH", "", self.change, "Change a webhook", WEBHOOK, request=CHANGE, description=change),
            route("DELETE", "", self.remove, "Remove a webhook, with what waits for it", None, status=204),
            route(
                "POST",
                "/rotate-secret",
                self.rotate,
                "Give a webhook another secret; the one before signs too for a while",
                WEBHOOK,
                request=ROTATE,
                body_optional=True,
                description="Until `previous_secret_until` both sign `webhook-signature`, and the former one "
                "`X-CivicBase-Signature-Previous`. `signature` and `X-CivicBase-Signature` use the new one at once.",
            ),
            route("POST", "/test", self.test, "Send a `ping` now, and tell what came of it", DELIVERY),
            route(
                "GET",
                "/deliveries",
                self.deliveries,
                "List deliveries, the newest first",
                DELIVERIES,
                query=_PAGING,
                description="All that wait, and the last 500 that are over, of 14 days.",
            ),
            route(
                "POST",
                "/deliveries/{delivery}/replay",
                self.replay,
                "Send a delivery again, under the same id",
                DELIVERY,
                status=202,
            ),
        ]

    async def create(self, request: web.Request) -> web.StreamResponse:
        caller = _signed_in(request)
        hook = await self.webhooks.create(caller, is_owner=caller.is_owner, values=await read_json(request))
        reply = {"message": "Webhook created successfully", **self._view(hook), "secret": hook.secret}
        return json_response(reply, 201, {"Location": f"/v1/webhooks/{hook.id}"})

    async def list(self, request: web.Request) -> web.StreamResponse:
        page, per_page = _paging(request)
        found = self.webhooks.of(request[CALLER])
        shown = [self._view(hook) for hook in found[(page - 1) * per_page : page * per_page]]
        return json_response({"items": shown, "total": len(found), "page": page, "per_page": per_page})

    async def read(self, request: web.Request) -> web.StreamResponse:
        return json_response(self._view(self.webhooks.get(request[CALLER], request.match_info["id"])))

    async def change(self, request: web.Request) -> web.StreamResponse:
        values = await read_json(request)
        # A client may send back what it has read.
        caller, id = _signed_in(request), request.match_info["id"]
        shown = self._view(self.webhooks.get(caller, id))
        given = {n: v for n, v in values.items() if n in FIELDS or n not in shown or v != shown[n]}
        return json_response(self._view(await self.webhooks.change(caller, id, given)))

    async def remove(self, request: web.Request) -> web.StreamResponse:
        await self.webhooks.remove(request[CALLER], request.match_info["id"])
        return no_content()

    async def rotate(self, request: web.Request) -> web.StreamResponse:
        asked = await read_json_if_any(request, RotateRequest) or RotateRequest()
        hook = await self.webhooks.rotate_secret(
            _signed_in(request), request.match_info["id"], asked.secret, asked.overlap_s
        )
        return json_response({**self._view(hook), "secret": hook.secret})

    async def test(self, request: web.Request) -> web.StreamResponse:
        id = request.match_info["id"]
        return json_response(self._delivery(id, await self.webhooks.test(request[CALLER], id)))

    async def deliveries(self, request: web.Request) -> web.StreamResponse:
        page, per_page = _paging(request)
        id = request.match_info["id"]
        found = await self.webhooks.deliveries(request[CALLER], id)
        shown = [self._delivery(id, each) for each in found[(page - 1) * per_page : page * per_page]]
        return json_response({"items": shown, "total": len(found), "page": page, "per_page": per_page})

    async def replay(self, request: web.Request) -> web.StreamResponse:
        id, delivery = request.match_info["id"], request.match_info["delivery"]
        return json_response(
            self._delivery(id, await self.webhooks.replay(request[CALLER], id, delivery)), 202
        )

    def _view(self, hook: Hook) -> dict[str, Any]:
        former_until_ms = hook.former_until_ms if hook.former_secret is not None else None
        return {
            "id": hook.id,
            "webhook_id": hook.id,
            "url": hook.url,
            "events": list(hook.events),
            "unmatched_events": self.webhooks.unmatched(hook),
            "enabled": hook.enabled,
            "disabled_reason": hook.disabled_reason,
            "disabled_at": _time(hook.disabled_ms),
            "failing_since": _time(self.webhooks.failing_since_ms(hook)),
            "pending": self.webhooks.pending(hook),
            "created_by": hook.user,
            "created_at": _time(hook.created_ms),
            "updated_at": _time(hook.updated_ms),
            "previous_secret_until": _time(former_until_ms),
            "public_key": self.webhooks.public_key,
        }

    def _delivery(self, hook: str, delivery: Delivery) -> dict[str, Any]:
        body = self.webhooks.sent_body(hook, delivery)
        return {
            "id": delivery.id,
            "event": delivery.event,
            "instance_id": delivery.instance or None,
            "status": delivery.status.value,
            "attempts": delivery.attempts,
            "response_code": delivery.code,
            "response_body": delivery.excerpt,
            "latency_ms": delivery.latency_ms,
            "error": delivery.error,
            "attempted_at": _time(delivery.last_ms),
            "next_attempt_at": None if delivery.is_over else _time(delivery.next_ms),
            "created_at": _time(delivery.created_ms),
            "body": None if body is None else body[:BODY_SHOWN_MAX_BYTES].decode("utf-8", "ignore"),
        }


def _signed_in(request: web.Request) -> Caller:
    """Who sets up what outlives a token. Raises Forbidden for one that was made with a shared secret."""
    caller = request[CALLER]
    if caller.issuer is None and not caller.is_owner:
        raise Forbidden("This token was made with a shared secret: sign in at a node to do this")
    return caller


def _time(ms: int | None) -> str | None:
    return None if ms is None else datetime_from_ms(ms)


def _paging(request: web.Request) -> tuple[int, int]:
    query = read_query(request)
    faults = {name: "Unknown parameter" for name in query if name not in _PAGING}
    page, per_page = read_paging(query, faults)
    if faults:
        raise ValidationFailed(faults)
    return page, per_page
