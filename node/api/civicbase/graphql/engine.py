"""From the text of a document to an answer: schemas and documents that are kept, and the run of one operation.

Room: caches, each with its bound, and the order of steps: read, measure, validate, look at its cost, run. A schema
is made anew when the models are others, and what was validated against the old one goes with it.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec
from graphql import (
    DocumentNode,
    ExecutionResult,
    GraphQLError,
    OperationType,
    execute,
    get_named_type,
    parse,
    print_schema,
    validate,
)
from graphql.type import GraphQLSchema

from node.api.civicbase.graphql import limits
from node.api.civicbase.graphql.errors import DocumentFault, Words
from node.api.civicbase.graphql.executor import RecordExecutor
from node.api.civicbase.graphql.limits import Operation
from node.api.civicbase.graphql.resolvers import Asked, make_resolve, read_list
from node.api.civicbase.graphql.schema import ApplicationSchema, build_schema
from node.api.civicbase.graphql.subscription import ChangeFollower, ChangeSelection, Wanted
from node.api.civicbase.realtime_events import Sources
from node.api.errors import Forbidden
from node.api.routes import Caller
from node.feed import Position
from node.services.permissions import Permissions
from node.services.records import Records
from protocol.schema import Model

Kind = OperationType
SCHEMAS_MAX = 16  # applications whose schema is kept
DOCUMENTS_MAX_CHARS = 100_000  # of all documents that are kept for one schema
BRIEF_MAX_CHARS = 1_000  # a longer document is read and validated on another thread
FAULTS_MAX = 50
_encode = msgspec.json.Encoder().encode


class Models(Protocol):
    """What is used of `storage.catalog.Catalog`."""

    def models_of(self, application: str) -> Iterable[Model]: ...
    def version(self, application: str) -> int: ...


@dataclass(frozen=True, slots=True)
class Prepared:
    """A document that is valid."""

    document: DocumentNode
    operations: Sequence[Operation]


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """The schema of an application, with the documents that are valid in it."""

    version: int
    types: ApplicationSchema
    lists: frozenset[str]
    documents: "OrderedDict[str, Prepared]" = field(default_factory=OrderedDict)

    @property
    def schema(self) -> GraphQLSchema:
        return self.types.schema


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for, and by whom. `may_introspect` says whether the schema may be looked at."""

    query: str
    caller: Caller
    operation_name: str | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)
    may_introspect: bool = True


@dataclass(frozen=True, slots=True)
class Chosen:
    """One operation of a valid document, ready to run in the schema it is valid in."""

    made: Made
    prepared: Prepared
    operation: Operation
    request: Request

    @property
    def kind(self) -> Kind:
        return self.operation.node.operation


class Engine:
    """For one event loop."""

    def __init__(
        self,
        models: Models,
        records: Records,
        permissions: Permissions,
        words: Words,
        cursor: Callable[[], str],
    ) -> None:
        self._models = models
        self._records = records
        self._permissions = permissions
        self.words = words
        self._cursor = cursor
        self._made: OrderedDict[str, Made] = OrderedDict()
        self._building = asyncio.Lock()

    # -- schemas

    def current(self, application: str) -> Made | None:
        """The schema of an application, None if it must be made first."""
        made = self._made.get(application)
        return made if made is not None and made.version == self._models.version(application) else None

    async def made(self, application: str) -> Made:
        """The schema of an application, as its models are now."""
        made = self.current(application)
        if made is not None:
            self._made.move_to_end(application)
            return made
        async with self._building:
            made = self.current(application)  # others may have waited for the same
            if made is None:
                version = self._models.version(application)
                made = await asyncio.to_thread(
                    self._build, version, list(self._models.models_of(application))
                )
                self._made[application] = made
                self._made.move_to_end(application)
                while len(self._made) > SCHEMAS_MAX:
                    self._made.popitem(last=False)
            return made

    async def sdl(self, application: str) -> str:
        """The schema as text."""
        made = await self.made(application)
        return await asyncio.to_thread(print_schema, made.schema)

    def _build(self, version: int, models: Sequence[Model]) -> Made:
        types = build_schema(models, make_resolve(models, self._cursor))
        query = types.schema.query_type
        assert query is not None
        lists = frozenset(name for name, field in query.fields.items() if "per_page" in field.args)
        return Made(version, types, lists)

    # -- documents

    async def choose(self, request: Request) -> Chosen:
        """The operation that is asked for. Raises `DocumentFault`."""
        made = await self.made(request.caller.application)
        prepared = made.documents.get(request.query)
        if prepared is None:
            prepared = await self._prepare(made, request)
        else:
            made.documents.move_to_end(request.query)
        operation = _named(prepared, request.operation_name)
        try:
            limits.check_variables(request.variables)
            limits.check_cost(operation, made.lists, request.variables)
        except GraphQLError as error:
            raise DocumentFault([error]) from None
        if operation.introspects and not request.may_introspect:
            raise DocumentFault([], Forbidden("The schema is not shown to you: sign in first"))
        return Chosen(made, prepared, operation, request)

    async def _prepare(self, made: Made, request: Request) -> Prepared:
        hides, text = not request.may_introspect, request.query
        if len(text) <= BRIEF_MAX_CHARS:
            prepared = _prepared(made.schema, text, hides)
        else:
            prepared = await asyncio.to_thread(_prepared, made.schema, text, hides)
        made.documents[text] = prepared
        size_chars = sum(map(len, made.documents))
        while size_chars > DOCUMENTS_MAX_CHARS:
            dropped, _ = made.documents.popitem(last=False)
            size_chars -= len(dropped)
        return prepared

    # -- running

    async def run(self, chosen: Chosen) -> bytes:
        """The answer of a query or a mutation, as JSON. Raises `DocumentFault` if its variables do not fit."""
        request = chosen.request
        asked = Asked(request.caller, self._records, self._permissions)
        result = execute(
            chosen.made.schema,
            chosen.prepared.document,
            context_value=asked,
            variable_values=dict(request.variables),
            operation_name=request.operation_name,
            max_coercion_errors=FAULTS_MAX,
            executor_class=RecordExecutor,
            hide_suggestions=not request.may_introspect,
            records=chosen.made.types.records,
        )
        if not isinstance(result, ExecutionResult):
            result = await result
        if result.data is None and all(error.path is None for error in result.errors or ()):
            raise DocumentFault(result.errors or [])
        answer: dict[str, Any] = {}
        if result.errors:
            answer["errors"] = self.words.said(result.errors)
        answer["data"] = result.data
        return _encode(answer)

    # -- following

    def wanted(self, chosen: Chosen) -> Wanted:
        """What a subscription asks for. Raises `DocumentFault`, and as `GET /v1/sync/changes` for who may not read."""
        made, request = chosen.made, chosen.request
        root = made.schema.subscription_type
        assert root is not None
        executor = RecordExecutor.build(
            made.schema,
            chosen.prepared.document,
            raw_variable_values=dict(request.variables),
            operation_name=request.operation_name,
            max_coercion_errors=FAULTS_MAX,
            hide_suggestions=not request.may_introspect,
            records=made.types.records,
        )
        if isinstance(executor, list):
            raise DocumentFault(executor)
        assert isinstance(executor, RecordExecutor)
        fields = executor.root_fields(root)
        if len(fields) != 1:  # it may be skipped
            raise DocumentFault([GraphQLError("A subscription selects one field")])
        ((response_name, details),) = fields.items()
        root_field = root.fields[details[0].node.name.value]
        try:
            arguments = executor.arguments(root_field, details)
        except GraphQLError as error:
            raise DocumentFault([error]) from None
        change = get_named_type(root_field.type)
        type = made.types.changes[change.name]
        self._permissions.raise_unless_ever(request.caller, type.model, "read")
        selection = ChangeSelection(type, executor.collected(change, details), executor.collected_of)
        filter = read_list(type, {"filter": arguments.get("filter")}).filter
        events = arguments.get("events")
        return Wanted(
            type,
            response_name,
            selection,
            arguments.get("id"),
            None if events is None else frozenset(events),
            filter,
            arguments.get("cursor"),
            frozenset(c.field for group in filter.groups for c in group) if filter else frozenset(),
        )

    def follower(
        self, sources: Sources, caller: Caller, wanted: Wanted, position: Position
    ) -> ChangeFollower:
        """Who follows the feed for a subscription, from a position on."""
        return ChangeFollower(
            sources, caller, wanted, position, self.reader, lambda type, id: self._records.get(type.model, id)
        )

    def reader(self, caller: Caller) -> Asked:
        """What reads records for a caller."""
        return Asked(caller, self._records, self._permissions)


def _prepared(schema: GraphQLSchema, text: str, hides: bool) -> Prepared:
    try:
        document = parse(
            text,
            max_tokens=limits.TOKENS_MAX,
            max_source_length=limits.QUERY_MAX_CHARS,
            max_comments=limits.TOKENS_MAX,
        )
        operations = limits.measure(document)
    except GraphQLError as error:
        raise DocumentFault([error]) from None
    errors = validate(schema, document, max_errors=FAULTS_MAX, hide_suggestions=hides)
    if errors:
        raise DocumentFault(errors)
    return Prepared(document, operations)


def _named(prepared: Prepared, name: str | None) -> Operation:
    operations = prepared.operations
    if name is None:
        if len(operations) == 1:
            return operations[0]
        fault = "Must provide operation name if query contains multiple operations." if operations else ""
        raise DocumentFault([GraphQLError(fault or "Must provide an operation.")])
    for operation in operations:
        if operation.node.name is not None and operation.node.name.value == name:
            return operation
    raise DocumentFault([GraphQLError(f"Unknown operation named '{name[:100]}'.")])
