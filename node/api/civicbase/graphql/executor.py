"""graphql-core's executor, with records answered by `selection`.

Room: two hooks. Where a value is a record, or `Rows` of them, everything below it is made into JSON at once, and the
executor goes on beside it: arguments, errors, the order of mutations and introspection are its own.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
from graphql import Executor, GraphQLObjectType, get_named_type
from graphql.execution.collect_fields import FieldDetails

from node.api.civicbase.graphql.resolvers import Asked, Rows
from node.api.civicbase.graphql.schema import RecordType
from node.api.civicbase.graphql.selection import Collected, Selection, compile_selection
from node.services.records import Rendered

CHUNK = 25  # records with references that are made without a break: up to a millisecond
_Details = list[FieldDetails]


class RecordExecutor(Executor[Any]):
    """Takes `records`, the types of records by name, beside what an executor takes."""

    def __init__(self, *arguments: Any, records: dict[str, RecordType], **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._records = records

    def complete_list_value(
        self,
        return_type: Any,
        field_details_list: _Details,
        info: Any,
        path: Any,
        result: Any,
        position_context: Any,
    ) -> Any:
        if type(result) is not Rows:
            return super().complete_list_value(
                return_type, field_details_list, info, path, result, position_context
            )
        selection = self._selection(get_named_type(return_type).name, field_details_list)
        if selection.follows and len(result) > CHUNK:
            return self._in_chunks(selection, result)
        return _listed(selection.render(result, self._reader))

    def complete_object_value(
        self, return_type: GraphQLObjectType, field_details_list: _Details, info: Any, path: Any, result: Any,
        position_context: Any,
    ) -> Any:  # fmt: skip
        if type(result) is not Rendered:
            return super().complete_object_value(
                return_type, field_details_list, info, path, result, position_context
            )
        selection = self._selection(return_type.name, field_details_list)
        return msgspec.Raw(selection.render([result], self._reader)[0])

    @property
    def _reader(self) -> Asked:
        reader: Asked = self.context_value
        return reader

    def _selection(self, name: str, details: _Details) -> Selection:
        type = self._records[name]
        return compile_selection(type, self.collected(type, details), self.collected)

    def collected(self, type: RecordType, details: Sequence[Any]) -> Collected:
        """What some nodes select of a record."""
        object = self.schema.type_map[type.names.type]
        assert isinstance(object, GraphQLObjectType) and isinstance(details, list)
        return self.collect_subfields(object, details).grouped_field_set

    async def _in_chunks(self, selection: Selection, rows: Rows) -> msgspec.Raw:
        made: list[bytes] = []
        for start in range(0, len(rows), CHUNK):
            made += selection.render(rows[start : start + CHUNK], self._reader)
            await asyncio.sleep(0)
        return _listed(made)


def _listed(made: Sequence[bytes]) -> msgspec.Raw:
    return msgspec.Raw(b"[%b]" % b",".join(made))
