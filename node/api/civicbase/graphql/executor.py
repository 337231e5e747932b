"""graphql-core's executor, with records answered by `selection`.

Room: two hooks. Where a value is a record, or `Rows` of them, everything below it is made into JSON at once, and the
executor goes on beside it: arguments, errors, the order of mutations and introspection are its own.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
from graphql import (
    Executor,
    GraphQLField,
    GraphQLNamedType,
    GraphQLObjectType,
    get_argument_values,
    get_named_type,
)
from graphql.execution.collect_fields import FieldDetails, collect_fields

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
        return compile_selection(type, self.collected_of(type, details), self.collected_of)

    def collected_of(self, type: RecordType, details: Sequence[Any]) -> Collected:
        """What some nodes select of a record."""
        return self.collected(self.schema.type_map[type.names.type], details)

    def collected(self, type: GraphQLNamedType, details: Sequence[Any]) -> Collected:
        """What some nodes select of an object."""
        assert isinstance(type, GraphQLObjectType) and isinstance(details, list)
        return self.collect_subfields(type, details).grouped_field_set

    def root_fields(self, root: GraphQLObjectType) -> dict[str, _Details]:
        """The root fields of the operation, without those that are skipped."""
        return collect_fields(
            self.schema, self.fragments, self.variable_values, root, self.operation, self.hide_suggestions
        ).grouped_field_set

    def arguments(self, field: GraphQLField, details: _Details) -> dict[str, Any]:
        """The arguments of a field. Raises `GraphQLError`."""
        node, _, values = details[0]
        return get_argument_values(field, node, self.variable_values, values, self.hide_suggestions)

    async def _in_chunks(self, selection: Selection, rows: Rows) -> msgspec.Raw:
        made: list[bytes] = []
        for start in range(0, len(rows), CHUNK):
            made += selection.render(rows[start : start + CHUNK], self._reader)
            await asyncio.sleep(0)
        return _listed(made)


def _listed(made: Sequence[bytes]) -> msgspec.Raw:
    return msgspec.Raw(b"[%b]" % b",".join(made))
