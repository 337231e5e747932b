"""Built-in documents by the names of their models, for the account services.

Room: the account services speak of `("default", "$account", id)`; this finds the model and passes on.
"""

from typing import Any

from node.services.records import Records
from protocol.changes import Guard, Record
from protocol.query import Query


class NamedRecords:
    """`services.ports.Records` over `services.records`."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def get(self, application: str, model: str, id: str, /) -> Record | None:
        return self._records.get(self._records.builtin(application, model), id)

    def was_ever(self, application: str, model: str, id: str, /) -> bool:
        return self._records.creator(self._records.builtin(application, model), id) is not None

    async def create(
        self,
        application: str,
        model: str,
        values: dict[str, Any],
        /,
        *,
        user: str,
        id: str | None = None,
        guard: Guard | None = None,
    ) -> Record:
        return await self._records.create(
            self._records.builtin(application, model), values, user=user, id=id, guard=guard
        )

    async def update(
        self,
        application: str,
        model: str,
        id: str,
        values: dict[str, Any],
        /,
        *,
        user: str,
        guard: Guard | None = None,
    ) -> Record:
        return await self._records.update(
            self._records.builtin(application, model), id, values, user=user, guard=guard
        )

    async def delete(self, application: str, model: str, id: str, /, *, user: str) -> None:
        await self._records.delete(self._records.builtin(application, model), id, user=user)

    async def find(
        self, application: str, model: str, query: Query, /
    ) -> tuple[list[Record], int, str | None]:
        return await self._records.find_records(self._records.builtin(application, model), query)
