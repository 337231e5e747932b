"""What plugins may ask of the node in the midst of a call.

Room: from `civicnode.Context`'s verbs to `records`. Validators and triggers act for their application, with the acting
user as the one who changes; queries and model methods read what their caller may read.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from node.services.permissions import Actor, Permissions
from node.services.plugins import Answers
from node.services.records import Records
from node.services.refusals import InvalidFields, NotPermitted
from protocol.query import parse_query
from protocol.schema import Model


class PluginAnswers:
    """Answers of one application. `caller` limits what is read, and forbids to write; None does neither."""

    def __init__(
        self,
        records: Records,
        permissions: Permissions,
        application: str,
        user: str,
        caller: Actor | None = None,
    ) -> None:
        self._records = records
        self._permissions = permissions
        self._application = application
        self._user = user
        self._caller = caller

    async def __call__(self, verb: str, asked: Mapping[str, Any]) -> Any:
        """Raises what `records` raises, `NotPermitted`, or ValueError for a verb that there is none of."""
        model = self._records.model(self._application, asked["model"])
        if verb == "get":
            return self._get(model, asked["id"])
        if verb == "query":
            return await self._query(model, asked)
        if self._caller is not None:
            raise NotPermitted("Queries and model methods change nothing")
        changes: dict[str, Callable[[Model, Mapping[str, Any]], Awaitable[Any]]] = {
            "create": self._create, "update": self._update, "delete": self._delete
        }  # fmt: skip
        if verb not in changes:
            raise ValueError(f"there is no {verb}")
        return await changes[verb](model, asked)

    def _may_read(self, model: Model, record: Any) -> bool:
        return self._caller is None or self._permissions.check(self._caller, model, "read", record)

    def _get(self, model: Model, id: str) -> dict[str, Any] | None:
        record = self._records.get(model, id)
        return None if record is None or not self._may_read(model, record) else record.facts()

    async def _query(self, model: Model, asked: Mapping[str, Any]) -> list[dict[str, Any]]:
        wanted = {"per_page": 100, **asked["options"]} | (
            {"filter": asked["filter"]} if asked["filter"] else {}
        )
        query = parse_query({name: str(value) for name, value in wanted.items()}, model)
        records, _, _ = await self._records.find_records(model, query)
        return [record.facts() for record in records if self._may_read(model, record)]

    async def _create(self, model: Model, asked: Mapping[str, Any]) -> str:
        values, faults = model.check_create(asked["data"])
        if faults:
            raise InvalidFields(faults)
        return (await self._records.create(model, values, user=self._user)).id

    async def _update(self, model: Model, asked: Mapping[str, Any]) -> None:
        values, faults = model.check_update(asked["data"])
        if faults:
            raise InvalidFields(faults)
        await self._records.update(model, asked["id"], values, user=self._user)

    async def _delete(self, model: Model, asked: Mapping[str, Any]) -> None:
        await self._records.delete(model, asked["id"], user=self._user)


def answers_for(records: Records, permissions: Permissions) -> Callable[[str, str], Answers]:
    """For `BusinessLogic`: what validators and triggers may ask."""
    return lambda application, user: PluginAnswers(records, permissions, application, user)
