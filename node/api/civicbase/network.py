"""The devices of the network, and changing networks, for the command line, administrators and their pages.

Room: `/v1/admin/…` about membership: shapes, and who may ask. What is decided is `services.membership`'s and
`services.joining`'s. Devices are the network's, not one application's: of the administrators, those of the
application `default` may ask. What concerns this one device (its keys, its own network) only the owner token may.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from aiohttp import web

from node.api.errors import Forbidden, ValidationFailed
from node.api.replies import json_response
from node.api.requests import read_json, read_json_if_any
from node.api.routes import CALLER, DEFAULT_APPLICATION, Auth, Route
from node.origins import HOST_PATTERN, PORT_PATTERN
from node.services.bringing import Bringing
from node.services.joining import Changed, Joining, Keep
from node.services.membership import (
    APPLICATIONS_MAX,
    EXPIRES_DEFAULT_MS,
    EXPIRES_MAX_MS,
    EXPIRES_MIN_MS,
    Membership,
    recovery_code_faults,
)
from protocol.ids import APPLICATION_ID_PATTERN, NodeId
from protocol.membership import Role
from protocol.times import datetime_from_ms

TAG = ("Devices",)
PUTTING_OUT_MAX = 64
_ROLES = [role.value for role in Role]
_KEEPS = [keep.value for keep in Keep]


class InviteRequest(msgspec.Struct):
    role: Role = Role.MEMBER
    applications: list[str] | None = None
    expires_in_s: int = EXPIRES_DEFAULT_MS // 1_000
    addresses: list[str] = []


class GrantRequest(msgspec.Struct):
    role: Role
    applications: list[str] | None = None


class JoinRequest(msgspec.Struct):
    ticket: str
    keep: Keep | None = None


class RecoverRequest(msgspec.Struct):
    code: str
    revoke: list[str] = []
    network: str | None = None
    peers: list[str] = []
    keep: Keep | None = None


def _nullable(kind: str, **more: Any) -> dict[str, Any]:
    return {"type": [kind, "null"], **more}


_APPLICATIONS: dict[str, Any] = {
    "type": ["array", "null"],
    "items": {"type": "string", "pattern": f"^{APPLICATION_ID_PATTERN}$"},
    "minItems": 1,
    "maxItems": APPLICATIONS_MAX,
    "description": "The applications that the role holds in; null for all",
}
_ANY_HOST = "(?:0\\.0\\.0\\.0|\\[[0:]+\\]):"  # where one listens, and nobody calls
_ADDRESS: dict[str, Any] = {
    "type": "string",
    "pattern": f"^(?!{_ANY_HOST}){HOST_PATTERN}:{PORT_PATTERN}$",
    "description": "HOST:PORT, as others reach it",
}
_KEEP = {"enum": [*_KEEPS, None]}
INVITE: dict[str, Any] = {
    "type": "object",
    "properties": {
        "role": {"enum": _ROLES, "default": Role.MEMBER.value},
        "applications": _APPLICATIONS,
        "expires_in_s": {
            "type": "integer",
            "minimum": EXPIRES_MIN_MS // 1_000,
            "maximum": EXPIRES_MAX_MS // 1_000,
            "default": EXPIRES_DEFAULT_MS // 1_000,
        },
        "addresses": {
            "type": "array",
            "items": _ADDRESS,
            "description": "More addresses of this node",
        },
    },
}
GRANT: dict[str, Any] = {
    "type": "object",
    "required": ["role"],
    "properties": {"role": {"enum": _ROLES}, "applications": _APPLICATIONS},
}
JOIN: dict[str, Any] = {
    "type": "object",
    "required": ["ticket"],
    "properties": {
        "ticket": {
            "type": "string",
            "pattern": "^[Cc][Ii][Vv][Ii][Cc]1[0-9A-Za-z-]+$",
            "description": "Its last digits show whether it was copied whole",
        },
        "keep": _KEEP,
    },
}
RECOVER: dict[str, Any] = {
    "type": "object",
    "required": ["code"],
    "properties": {
        "code": {
            "type": "string",
            "pattern": "^[Cc][Ii][Vv][Ii][Cc][Kk][Ee][Yy]1[0-9A-Za-z-]+$",
            "description": "Its last digits show whether it was copied whole",
        },
        "revoke": {"type": "array", "items": {"type": "string", "minLength": 1}, "maxItems": PUTTING_OUT_MAX},
        "network": _nullable("string", pattern="^[0-9A-Fa-f]{64}$", description="If the node is in another"),
        "peers": {"type": "array", "items": _ADDRESS, "description": "Nodes of that network"},
        "keep": _KEEP,
    },
    "oneOf": [
        {"properties": {"network": {"type": "null"}, "peers": {"maxItems": 0}}},
        {
            "required": ["network", "peers"],
            "properties": {
                "network": {"type": "string"},
                "peers": {"minItems": 1},
                "revoke": {"maxItems": 0},
            },
        },
    ],
}
INVITED: dict[str, Any] = {
    "type": "object",
    "required": ["ticket", "role", "applications", "expires_at", "addresses", "recovery_code"],
    "properties": {
        "ticket": {"type": "string"},
        "role": {"enum": _ROLES},
        "applications": _APPLICATIONS,
        "expires_at": {"type": "string", "format": "date-time"},
        "addresses": {"type": "array", "items": {"type": "string"}},
        "recovery_code": _nullable(
            "string", description="For the owner token, until it is deleted: write it down, then delete it"
        ),
    },
}
INVITATIONS: dict[str, Any] = {
    "type": "object",
    "required": ["invitations"],
    "properties": {
        "invitations": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["role", "applications", "expires_at"],
                "properties": {
                    "role": {"enum": _ROLES},
                    "applications": _APPLICATIONS,
                    "expires_at": {"type": "string", "format": "date-time"},
                },
            },
        }
    },
}
PEER: dict[str, Any] = {
    "type": "object",
    "required": ["node_id", "name", "is_self", "state", "role", "applications", "link"],
    "properties": {
        "node_id": {"type": "string"},
        "name": _nullable("string"),
        "is_self": {"type": "boolean"},
        "state": {
            "enum": ["member", "suspended", "revoked", "void"],
            "description": "suspended: its ticket was used twice; void: what let it in counts no more",
        },
        "role": {"enum": [*_ROLES, None]},
        "applications": _APPLICATIONS,
        "link": _nullable("string", description="As in /v1/sync/status; null if no way to it is known"),
        "in_sync": _nullable("boolean"),
        "lag_ms": _nullable("integer"),
        "address": _nullable("string"),
    },
}
PEERS: dict[str, Any] = {
    "type": "object",
    "required": ["peers", "network_id"],
    "properties": {"network_id": {"type": "string"}, "peers": {"type": "array", "items": PEER}},
}
CHANGED: dict[str, Any] = {
    "type": "object",
    "required": ["network_id", "node_id", "role", "applications_limited", "aside", "held_data"],
    "properties": {
        "network_id": {"type": "string"},
        "node_id": {"type": "string"},
        "role": {"enum": _ROLES},
        "applications_limited": {"type": "boolean"},
        "aside": {
            "type": "string",
            "description": "Where what was here before is now: a whole data directory",
        },
        "held_data": {"type": "boolean", "description": "Whether that held more than its genesis"},
    },
}
RECOVERED: dict[str, Any] = {
    "type": "object",
    "required": ["recovered", "restarting"],
    "properties": {
        "recovered": {"type": "boolean"},
        "restarting": {
            "type": "boolean",
            "description": "The node goes on under another key and starts again: ask once more when it answers",
        },
        "joined": {"anyOf": [CHANGED, {"type": "null"}]},
    },
}
BROUGHT: dict[str, Any] = {
    "type": "object",
    "required": ["bringing"],
    "properties": {
        "bringing": {
            "type": ["object", "null"],
            "properties": {
                "from": {"type": "string"},
                "state": {"enum": ["waiting", "running", "done"]},
                "models": {"type": "integer"},
                "accounts": {"type": "integer"},
                "documents": {"type": "integer"},
                "left": {"type": "integer"},
                "left_behind": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {
                            name: {"type": "string"} for name in ("application", "model", "id", "reason")
                        },
                    },
                },
            },
        }
    },
}
REVOKED: dict[str, Any] = {
    "type": "object",
    "required": ["node_id", "chains"],
    "properties": {
        "node_id": {"type": "string"},
        "chains": {"type": "integer", "description": "Of how many of its chains something is left standing"},
    },
}
FORGOTTEN: dict[str, Any] = {
    "type": "object",
    "required": ["forgotten"],
    "properties": {"forgotten": {"type": "boolean", "description": "Whether the key was still here"}},
}


@dataclass(frozen=True, slots=True)
class NetworkRoutes:
    """`network_id` is that of the network which the node is in."""

    membership: Membership
    joining: Joining
    bringing: Bringing
    network_id: str

    def routes(self) -> list[Route]:
        def route(method: str, path: str, handler: Any, summary: str, response: Any, **more: Any) -> Route:
            status = more.pop("status", 200)
            return Route(
                method,
                "/v1/admin/" + path,
                handler,
                summary,
                auth=Auth.ADMIN,
                tags=TAG,
                responses={status: response},
                **more,
            )

        return [
            route("GET", "peers", self.list_peers, "List the devices of the network", PEERS),
            route("PUT", "peers/{node}", self.grant, "Give a device another role", PEER, request=GRANT),
            route("DELETE", "peers/{node}", self.revoke, "Put a device out of the network for good", REVOKED),
            route(
                "POST",
                "invitations",
                self.invite,
                "Make a ticket that lets one device into the network",
                INVITED,
                request=INVITE,
                status=201,
                body_optional=True,
            ),
            route("GET", "invitations", self.list_invitations, "List tickets that may still be used", INVITATIONS),
            route(
                "DELETE",
                "recovery-code",
                self.forget,
                "The recovery code is written down: remove the network's key from this device",
                FORGOTTEN,
            ),
            route(
                "POST", "join", self.join, "Join the network of a ticket; the node starts again in place", CHANGED,
                request=JOIN,
            ),
            route("GET", "join", self.read_bringing, "What was brought along from the network before", BROUGHT),
            route(
                "POST",
                "recover",
                self.recover,
                "Become an administrator by the network's recovery code",
                RECOVERED,
                request=RECOVER,
            ),
        ]  # fmt: skip

    # -- devices

    async def list_peers(self, request: web.Request) -> web.StreamResponse:
        _network_admin(request)
        return json_response({"network_id": self.network_id, "peers": self.membership.peers()})

    async def grant(self, request: web.Request) -> web.StreamResponse:
        _network_admin(request)
        node = self._node_meant(request)
        asked = await read_json(request, GrantRequest)
        await self.membership.grant(node, asked.role, asked.applications)
        return json_response(next(peer for peer in self.membership.peers() if peer["node_id"] == node.hex()))

    async def revoke(self, request: web.Request) -> web.StreamResponse:
        _network_admin(request)
        node = self._node_meant(request)
        chains = await self.membership.revoke(node)
        return json_response({"node_id": node.hex(), "chains": chains})

    def _node_meant(self, request: web.Request) -> NodeId:
        return self.membership.resolve(request.match_info["node"])

    # -- invitations

    async def invite(self, request: web.Request) -> web.StreamResponse:
        _network_admin(request)
        asked = await read_json_if_any(request, InviteRequest) or InviteRequest()
        invited = await self.membership.invite(
            role=asked.role,
            applications=asked.applications,
            expires_in_ms=asked.expires_in_s * 1_000,
            addresses=asked.addresses,
            with_recovery_code=request[CALLER].is_owner,
        )
        ticket = invited.ticket
        return json_response(
            {
                "ticket": invited.text,
                "role": ticket.role.value,
                "applications": invited.applications,
                "expires_at": datetime_from_ms(ticket.expires_ms),
                "addresses": list(ticket.addresses),
                "recovery_code": invited.recovery_code,
            },
            201,
        )

    async def list_invitations(self, request: web.Request) -> web.StreamResponse:
        _network_admin(request)
        listed = [
            {
                "role": one["role"],
                "applications": one["applications"],
                "expires_at": datetime_from_ms(one["expires_at_ms"]),
            }
            for one in self.membership.invitations()
        ]
        return json_response({"invitations": listed})

    async def forget(self, request: web.Request) -> web.StreamResponse:
        _owner_alone(request)
        return json_response({"forgotten": await self.membership.forget_network_key()})

    # -- changing networks

    async def join(self, request: web.Request) -> web.StreamResponse:
        _owner_alone(request)
        asked = await read_json(request, JoinRequest)
        return json_response(_changed(await self.joining.join(asked.ticket, asked.keep)))

    async def read_bringing(self, request: web.Request) -> web.StreamResponse:
        _owner_alone(request)
        return json_response({"bringing": self.bringing.report()})

    async def recover(self, request: web.Request) -> web.StreamResponse:
        _owner_alone(request)
        asked = await read_json(request, RecoverRequest)
        faults: dict[str, str] = {}
        is_elsewhere = asked.network is not None or bool(asked.peers)
        if is_elsewhere and asked.revoke:
            faults["revoke"] = "Recover first; put out others once this node has synced with the network"
        elif len(asked.revoke) > PUTTING_OUT_MAX:
            faults["revoke"] = f"Must name {PUTTING_OUT_MAX} nodes at most"
        if is_elsewhere and (asked.network is None or not asked.peers):
            faults["network"] = "Goes with the address of a peer in that network"
        if faults:
            raise ValidationFailed(faults | recovery_code_faults(asked.code))
        if asked.network is not None:
            changed = await self.joining.recover(asked.code, asked.network, asked.peers, asked.keep)
            return json_response({"recovered": True, "restarting": True, "joined": _changed(changed)})
        putting_out = list(dict.fromkeys(self._resolved(asked.revoke)))
        has_recovered = await self.membership.recover(asked.code, putting_out)
        return json_response({"recovered": has_recovered, "restarting": not has_recovered, "joined": None})

    def _resolved(self, names: Sequence[str]) -> list[NodeId]:
        return [self.membership.resolve(name) for name in names]


def _changed(changed: Changed) -> dict[str, Any]:
    return {
        "network_id": changed.network_id.hex(),
        "node_id": changed.node.hex(),
        "role": changed.rights.role.value,
        "applications_limited": changed.rights.spaces is not None,
        "aside": str(changed.aside),
        "held_data": changed.held_data,
    }


def _network_admin(request: web.Request) -> None:
    """Devices belong to the whole network: an application's administrators do not decide about them."""
    caller = request[CALLER]
    if not caller.is_owner and caller.application != DEFAULT_APPLICATION:
        raise Forbidden("Only administrators of the application 'default' decide about devices")


def _owner_alone(request: web.Request) -> None:
    if not request[CALLER].is_owner:
        raise Forbidden("Only the owner token may change which network this device is in, or see its keys")
