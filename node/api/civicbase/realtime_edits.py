"""Edits of texts that come over the realtime socket, made as those of `PUT` are.

Room: from a message to a checked write with the rights of its sender. What the
socket says about it is `realtime_messages`'.
"""

from dataclasses import dataclass

from node.api.civicbase.data import write_guard
from node.api.civicbase.realtime_messages import EditText
from node.api.errors import ErrorTable, ValidationFailed, from_exception
from node.api.routes import Caller
from node.services.permissions import Permissions
from node.services.records import Records


@dataclass(frozen=True, slots=True)
class RealtimeEdits:
    records: Records
    permissions: Permissions
    error_table: ErrorTable

    async def make(self, caller: Caller, asked: EditText) -> str:
        """Make an edit; the version of the document after it. Durable when it returns. Raises `ApiError`."""
        try:
            return await self._make(caller, asked)
        except Exception as error:
            known = from_exception(error, self.error_table)
            if known is None:
                raise
            raise known from error

    async def _make(self, caller: Caller, asked: EditText) -> str:
        model = self.records.model(caller.application, asked.model)
        guard = write_guard(self.permissions, caller, model, "update")
        given = {asked.field: {"ops": asked.ops, "base_version": asked.base_version}}
        values, faults = model.check_update(given)
        if faults:
            raise ValidationFailed(faults)
        record = await self.records.update(
            model, asked.instance, values, user=caller.user_id or "", guard=guard
        )
        return record.version
