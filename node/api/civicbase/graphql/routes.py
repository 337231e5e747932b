"""`/v1/graphql`: queries and mutations over HTTP, subscriptions over WebSocket, and the schema as text.

Room: routes, and loading the rest of this package with the first request: graphql-core takes a third of a second,
which neither the start of a node nor one without GraphQL pays.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from aiohttp import WSCloseCode, web

from node.api.civicbase.data import may_open
from node.api.civicbase.graphql.requests import (
    JSON,
    RESPONSE,
    Parameters,
    read_address,
    read_parameters,
    refusal,
    refused,
    reply,
    wants_response_type,
)
from node.api.civicbase.realtime import Realtime
from node.api.civicbase.receipts import PREFER_NOTE, PeerReceipts
from node.api.civicbase.streaming import Streams
from node.api.errors import ApiError, BadRequest, ErrorTable, Forbidden, MethodNotAllowed, Unavailable
from node.api.replies import Reply, kind
from node.api.requests import is_upgrade, read_json, read_query
from node.api.routes import CALLER, TOKEN, UNKEPT, Auth, Caller, KeyAccess, Route
from node.services.permissions import Permissions
from node.services.records import Records

if TYPE_CHECKING:
    from node.api.civicbase.graphql.engine import Engine, Models
    from node.api.civicbase.graphql.socket import Socket

PATH = "/v1/graphql"
BODY_MAX_BYTES = 4 << 20
SOCKETS_MAX = 1_000
NOBODY, SIGNED_IN, EVERYBODY = INTROSPECTION = ("nobody", "signed-in", "everybody")
_SDL = kind("text/plain; charset=utf-8")
_TAGS = ("GraphQL",)


@dataclass(frozen=True, slots=True)
class GraphQLParts:
    """What GraphQL works with. `introspection` is one of `INTROSPECTION`; `is_local` says that the API is bound to
    loopback, where who asks without a token counts as signed in for that."""

    models: "Models"
    records: Records
    permissions: Permissions
    receipts: PeerReceipts
    realtime: Realtime
    streams: Streams
    error_table: ErrorTable
    introspection: str
    is_local: bool
    new_request_id: Callable[[], str]
    log: logging.Logger


class GraphQLRoutes:
    """For one event loop; `stop` it once, before the feed."""

    def __init__(self, parts: GraphQLParts) -> None:
        self._parts = parts
        self._engine: Engine | None = None
        self._loading = asyncio.Lock()
        self._sockets: set[Socket] = set()
        self._is_stopping = False

    def stop(self) -> None:
        """Close every socket (1001); new ones are refused from now on."""
        self._is_stopping = True
        for socket in self._sockets:
            socket.close(WSCloseCode.GOING_AWAY, "the node is stopping")

    def routes(self) -> list[Route]:
        return [
            Route(
                "POST",
                PATH,
                self.post,
                "Run a GraphQL query or mutation",
                auth=Auth.OPTIONAL,  # a model may be public: its permissions decide
                key_access=KeyAccess.DATA,
                names_all=False,
                tags=_TAGS,
                request=_REQUEST,
                responses={200: _RESPONSE, 400: _RESPONSE},
                body_max_bytes=BODY_MAX_BYTES,
                description=f"{_DESCRIPTION}\n\n{PREFER_NOTE}",
            ),
            Route(
                "GET",
                PATH,
                self.get,
                "Run a GraphQL query, or follow changes over a WebSocket",
                auth=Auth.OPTIONAL,
                token_in_query=True,
                has_socket=True,
                key_access=KeyAccess.DATA,
                tags=_TAGS,
                query=_QUERY,
                responses={101: None, 200: _RESPONSE, 400: _RESPONSE},
                description=_SOCKET_DESCRIPTION,
            ),
            Route(
                "GET",
                f"{PATH}/schema",
                self.schema,
                "The GraphQL schema of this application, as text",
                auth=Auth.OPTIONAL,
                key_access=KeyAccess.DATA,
                tags=_TAGS,
                responses={200: {"type": "string", "contentMediaType": "text/plain"}},
            ),
        ]

    async def engine(self) -> "Engine":
        """What runs documents, loaded and made with the first request."""
        if self._engine is None:
            async with self._loading:
                if self._engine is None:
                    module = await asyncio.to_thread(import_module, "node.api.civicbase.graphql.engine")
                    words = import_module("node.api.civicbase.graphql.errors").Words
                    parts = self._parts
                    self._engine = module.Engine(
                        parts.models,
                        parts.records,
                        parts.permissions,
                        words(parts.error_table, parts.new_request_id, parts.log),
                        parts.realtime.parts.feed.cursor,
                    )
        assert self._engine is not None
        return self._engine

    def may_introspect(self, caller: Caller) -> bool:
        match self._parts.introspection:
            case "everybody":
                return True
            case "signed-in":
                return caller.user_id is not None or self._parts.is_local
        return False

    # -- HTTP

    async def post(self, request: web.Request) -> web.StreamResponse:
        try:
            parameters = read_parameters(await read_json(request))
        except ApiError as error:
            return _refused(request, error)
        return await self._answer(request, parameters, is_safe=False)

    async def get(self, request: web.Request) -> web.StreamResponse:
        if is_upgrade(request):
            return await self._serve_socket(request)
        try:
            parameters = read_address(read_query(request))
        except ApiError as error:
            return _refused(request, error)
        return await self._answer(request, parameters, is_safe=True)

    async def schema(self, request: web.Request) -> web.StreamResponse:
        caller = request[CALLER]
        if not self.may_introspect(caller):
            raise Forbidden("The schema is not shown to you: sign in first")
        engine = await self.engine()
        return Reply((await engine.sdl(caller.application)).encode(), kind=_SDL)

    # -- WebSocket

    async def _serve_socket(self, request: web.Request) -> web.StreamResponse:
        if self._is_stopping or len(self._sockets) >= SOCKETS_MAX:
            raise Unavailable("The node is stopping" if self._is_stopping else "Too many sockets are open")
        engine, parts, caller = await self.engine(), self._parts, request[CALLER]
        from node.api.civicbase.graphql.socket import Socket, SocketParts

        token = None if caller.user_id is None or caller.is_owner else request.get(TOKEN)
        shared = SocketParts(engine, parts.realtime, parts.streams, self.may_introspect)
        socket = Socket(shared, request, caller, token)
        self._sockets.add(socket)
        try:
            return await socket.run()
        finally:
            self._sockets.discard(socket)

    async def _answer(self, request: web.Request, asked: Parameters, *, is_safe: bool) -> web.StreamResponse:
        from node.api.civicbase.graphql.engine import Kind, Request
        from node.api.civicbase.graphql.errors import DocumentFault

        engine, caller = await self.engine(), request[CALLER]
        if may_open(self._parts.records, caller, self._parts.models.models_of(caller.application)):
            request[UNKEPT] = True
        try:
            chosen = await engine.choose(
                Request(
                    asked.query, caller, asked.operation_name, asked.variables, self.may_introspect(caller)
                )
            )
            if chosen.kind is Kind.SUBSCRIPTION:
                raise BadRequest("Subscriptions go over a WebSocket: graphql-transport-ws")
            if is_safe and chosen.kind is Kind.MUTATION:
                raise MethodNotAllowed("GET", ["POST"])
            body = await engine.run(chosen)
        except DocumentFault as fault:
            status = 400 if fault.refusal is None else fault.refusal.status
            return refusal(request, engine.words.of(fault), status if wants_response_type(request) else 200)
        except ApiError as error:
            return _refused(request, error)
        headers = None
        if chosen.kind is Kind.MUTATION:
            headers = await self._parts.receipts.headers(request, caller.application)
        return reply(request, body, headers=headers)


def _refused(request: web.Request, error: ApiError) -> Reply:
    return refusal(request, [refused(error)], error.status, error.headers)


_REQUEST: dict[str, Any] = {
    "type": "object",
    "required": ["query"],
    "properties": {
        "query": {"type": "string"},
        "operationName": {"type": ["string", "null"]},
        "variables": {"type": ["object", "null"]},
        "extensions": {"type": ["object", "null"]},
    },
}
_RESPONSE: dict[str, Any] = {
    "type": "object",
    "properties": {
        "data": {"type": ["object", "null"]},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["message", "extensions"],
                "properties": {
                    "message": {"type": "string"},
                    "path": {"type": "array"},
                    "locations": {"type": "array"},
                    "extensions": {"type": "object", "required": ["error_code"]},
                },
            },
        },
    },
}
_QUERY: dict[str, dict[str, Any]] = {
    "query": {
        "type": "string",
        "required": True,
        "description": "The document; a query, since GET changes nothing. A WebSocket goes without it",
    },
    "operationName": {"type": "string"},
    "variables": {"type": "object", "contentMediaType": "application/json"},
    "extensions": {"type": "object", "contentMediaType": "application/json"},
}
_DESCRIPTION = f"""The schema is made of the data models, and made anew when they change: `GET {PATH}/schema` shows it.
For a model `Task` there are `tasks(filter, sort, page, per_page, cursor)`, `tasksPage` with `total` and `next_cursor`,
`task(id)`, `createTask(input)`, `updateTask(id, input, edits, version)`, `deleteTask(id, version)` and the subscription
`taskChanged(id, events, filter, cursor)`.

    {{ tasks(filter: {{ status: TODO }}, sort: {{ field: due_date, order: ASC }}) {{ id title status due_date }} }}

Every error names its `error_code` in `extensions`, and `details` where several things are wrong. With
`Accept: {RESPONSE}` a document that cannot be run answers 400, with `{JSON}` 200, as GraphQL over HTTP has it."""
_SOCKET_DESCRIPTION = """With `Upgrade: websocket` and the subprotocol `graphql-transport-ws` it runs subscriptions,
queries and mutations. Sign in by header, by `?token=`, or by `{"type":"connection_init","payload":{"token":…}}`, which
must come within 5 s. Events name their `cursor` and the `previous` one; give the last one back, and nothing is missed.
Close codes: 4400 not understood, 4401 subscribed before `connection_ack`, 4403 the token counts not, or no longer, 4406
another subprotocol, 4408 no `connection_init`, 4409 the id is in use, 4429 initialised twice, 1001 the
node is stopping."""
