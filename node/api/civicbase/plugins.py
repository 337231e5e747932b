"""What plugins add to the API (seed S1, "Custom Business Logic Implementation"): query methods and model methods.

Room: the two routes. Arguments are texts from the query string; what functions make of them, and what they answer,
is theirs. Both read what their caller may read.
"""

from dataclasses import dataclass
from typing import Any

from aiohttp import web

from node.api.errors import NotFound
from node.api.replies import json_response
from node.api.requests import read_query
from node.api.routes import CALLER, Auth, Caller, KeyAccess, Route
from node.services.permissions import Permissions
from node.services.plugin_answers import PluginAnswers
from node.services.plugins import Plugins
from node.services.records import Records
from protocol.schema import Model

TAG = ("Plugins",)
_ARGUMENTS_NOTE = "Parameters of the query string are handed to the function as texts, by their names."


@dataclass(frozen=True, slots=True)
class PluginRoutes:
    plugins: Plugins
    records: Records
    permissions: Permissions

    def routes(self) -> list[Route]:
        return [
            Route(
                "GET",
                "/v1/data/{model}/queries/{name}",
                self.query,
                "Run a query method of a plugin",
                auth=Auth.OPTIONAL,
                key_access=KeyAccess.DATA,
                tags=TAG,
                description=_ARGUMENTS_NOTE,
                responses={200: {}},
            ),
            Route(
                "GET",
                "/v1/data/{model}/{id}/methods/{name}",
                self.method,
                "Run a model method of a plugin on an instance",
                auth=Auth.OPTIONAL,
                key_access=KeyAccess.DATA,
                tags=TAG,
                description=_ARGUMENTS_NOTE,
                responses={200: {}},
            ),
        ]

    async def query(self, request: web.Request) -> web.StreamResponse:
        caller, name = request[CALLER], request.match_info["name"]
        model = self.records.model(caller.application, request.match_info["model"])
        if not self.plugins.has_query(model.name, name):
            raise NotFound(f"No plugin has a query method {model.name}.{name}")
        self.permissions.raise_unless_ever(caller, model, "read")
        return json_response(await self._call("query", request, caller, model, {}))

    async def method(self, request: web.Request) -> web.StreamResponse:
        caller, name, id = request[CALLER], request.match_info["name"], request.match_info["id"]
        model = self.records.model(caller.application, request.match_info["model"])
        if not self.plugins.has_method(model.name, name):
            raise NotFound(f"No plugin has a method {model.name}.{name}")
        record = self.records.get(model, id)
        if record is None:
            self.permissions.raise_unless_ever(caller, model, "read")
            raise NotFound(f"There is no {model.name} '{id}'")
        self.permissions.raise_unless(caller, model, "read", record)
        told = {"record": record.facts(), "instance_id": id}
        return json_response(await self._call("method", request, caller, model, told))

    async def _call(
        self, what: str, request: web.Request, caller: Caller, model: Model, told: dict[str, Any]
    ) -> Any:
        user = caller.user_id or ""
        message = {
            "application": caller.application, "user": user, "model": model.name,
            "name": request.match_info["name"], "arguments": dict(read_query(request)), **told,
        }  # fmt: skip
        answers = PluginAnswers(self.records, self.permissions, caller.application, user, caller)
        return await self.plugins.call(what, message, answers)
