"""The GraphQL schema of an application, made of its models.

Room: from models to types; what the root fields do is handed in as `Resolve`. Everything in it but the root and the
pages is answered by `selection`, so types of records have no resolvers.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from graphql import (
    GraphQLArgument,
    GraphQLBoolean,
    GraphQLEnumType,
    GraphQLEnumValue,
    GraphQLField,
    GraphQLID,
    GraphQLInputField,
    GraphQLInputObjectType,
    GraphQLInt,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLSchema,
    GraphQLString,
)

from node.api.civicbase.graphql.filters import AND, OR, Member, members_of
from node.api.civicbase.graphql.names import ModelNames, free_name, name_models, name_options
from node.api.civicbase.graphql.scalars import DATETIME, JSON, TYPES
from protocol.query import PER_PAGE_DEFAULT, PER_PAGE_MAX
from protocol.query_filter import META_KINDS, MOMENTS, Kind, Op, kind_of
from protocol.schema import Field, FieldType, Model
from protocol.schema_field import SHARED_TYPES

MODELS_MAX = 500  # in one schema, the oldest: anyone signed in may define more
_SORTABLE = frozenset({Kind.TEXT, Kind.INTEGER, Kind.NUMBER, Kind.BOOLEAN})
_LITERALS = ("true", "false", "null")


@dataclass(frozen=True, slots=True)
class Reference:
    """A field that shows the record whose id it holds."""

    field: str
    target: "RecordType"


@dataclass(slots=True)
class RecordType:
    """A model in the schema. `members` of its filter are by name, `sources` say where a field's value comes from.

    `options` are for enum fields with an option that has another name in GraphQL: option to name.
    """

    model: Model
    names: ModelNames
    members: dict[str, Member]
    sources: dict[str, str | Reference] = field(default_factory=dict)
    options: dict[str, dict[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Resolve:
    """What the root fields of a model do, each made for its `RecordType`."""

    many: Callable[[RecordType], Any]
    page: Callable[[RecordType], Any]
    one: Callable[[RecordType], Any]
    create: Callable[[RecordType], Any]
    update: Callable[[RecordType], Any]
    delete: Callable[[RecordType], Any]
    models: Any
    cursor: Any


@dataclass(frozen=True, slots=True)
class ApplicationSchema:
    """`records` and `changes` are the record types by the name of the type, and by that of its `…Change`."""

    schema: GraphQLSchema
    records: Mapping[str, RecordType]
    changes: Mapping[str, RecordType]


def build_schema(models: Iterable[Model], resolve: Resolve) -> ApplicationSchema:
    """The schema of an application. Some milliseconds for a hundred models."""
    return _Builder(models, resolve).build()


class _Builder:
    def __init__(self, models: Iterable[Model], resolve: Resolve) -> None:
        self._resolve = resolve
        named = name_models(models)[:MODELS_MAX]
        self._types = [
            RecordType(model, names, {member.name: member for member in members_of(model)})
            for model, names in named
        ]
        self._by_model = {type.model.name: type for type in self._types}
        self._objects: dict[str, GraphQLObjectType] = {}
        self._enums: dict[tuple[str, str], GraphQLEnumType] = {}
        self._inputs: dict[str, GraphQLInputField] = {}  # of filters, shared by all
        self._order = GraphQLEnumType(
            "SortOrder",
            {"ASC": GraphQLEnumValue("asc"), "DESC": GraphQLEnumValue("desc")},
            description="Rising or falling; records without a value come first when rising.",
        )
        self._edit = GraphQLInputObjectType(
            "FieldEdit",
            {
                "field": GraphQLInputField(GraphQLNonNull(GraphQLString)),
                "ops": GraphQLInputField(GraphQLNonNull(GraphQLList(GraphQLNonNull(JSON)))),
                "base_version": GraphQLInputField(
                    GraphQLNonNull(GraphQLString), description="The version of what you saw"
                ),
            },
            description="Operations on a text or an array, as over HTTP: "
            '[{ retain: 3 }, { insert: "x" }, { delete: 1 }]. What others have written since stays.',
        )
        self._event = GraphQLEnumType(
            "ChangeEvent",
            {
                "CREATED": GraphQLEnumValue("CREATED"),
                "UPDATED": GraphQLEnumValue("UPDATED"),
                "DELETED": GraphQLEnumValue("DELETED"),
                "RESYNC": GraphQLEnumValue(
                    "RESYNC", description="The cursor is too old, or much came at once: read the records anew"
                ),
            },
            description="What has become of a record.",
        )

    def build(self) -> ApplicationSchema:
        query: dict[str, GraphQLField] = {
            "_models": GraphQLField(
                GraphQLNonNull(GraphQLList(GraphQLNonNull(GraphQLString))),
                resolve=self._resolve.models,
                description="The names of the data models that this schema is made of.",
            ),
            "_cursor": GraphQLField(
                GraphQLNonNull(GraphQLString),
                resolve=self._resolve.cursor,
                description="Where the feed of changes stands: read it before a list, and give it to a "
                "subscription after it, and nothing in between is missed.",
            ),
        }
        mutation: dict[str, GraphQLField] = {}
        subscription: dict[str, GraphQLField] = {}
        for type in self._types:
            self._objects[type.names.type] = self._object(type)
        for type in self._types:
            self._add_root_fields(type, query, mutation, subscription)
        schema = GraphQLSchema(
            GraphQLObjectType("Query", query),
            GraphQLObjectType("Mutation", mutation) if mutation else None,
            GraphQLObjectType("Subscription", subscription) if subscription else None,
            description="The data models of this application. See /docs for what all surfaces share.",
        )
        return ApplicationSchema(
            schema,
            {type.names.type: type for type in self._types},
            {f"{type.names.type}Change": type for type in self._types},
        )

    # -- records

    def _object(self, type: RecordType) -> GraphQLObjectType:
        model = type.model
        fields: dict[str, Callable[[], GraphQLField]] = {}
        for name, (kind, text) in _META.items():
            fields[name] = _thunk(GraphQLField(kind, description=text))
            type.sources[name] = name
        for each in model.fields.values():
            target = self._target(each)
            text = _described(each)
            if target is None:
                fields[each.name] = _thunk(GraphQLField(self._output(type, each), description=text))
                type.sources[each.name] = each.name
                continue
            fields[each.name] = self._reference(target, text)
            type.sources[each.name] = Reference(each.name, target)
        for each in model.fields.values():
            if self._target(each) is not None:
                name = free_name(f"{each.name}_id", fields)
                fields[name] = _thunk(GraphQLField(GraphQLID, description=f"The id that {each.name} holds"))
                type.sources[name] = each.name
        return GraphQLObjectType(
            type.names.type,
            lambda: {name: make() for name, make in fields.items()},
            description=f"A record of the data model {model.name}.",
        )

    def _reference(self, target: RecordType, text: str) -> Callable[[], GraphQLField]:
        description = f"{text}. Null if there is no such record, or none for you to read"
        return lambda: GraphQLField(self._objects[target.names.type], description=description)

    def _target(self, field: Field) -> RecordType | None:
        is_shown = field.type is FieldType.REFERENCE and field.model is not None and not field.encrypted
        return self._by_model.get(field.model or "") if is_shown else None

    def _output(self, type: RecordType, field: Field) -> Any:
        if field.encrypted:
            return JSON  # the value where its key is, elsewhere what stands in for it
        if field.type is FieldType.ENUM:
            return self._enum(type, field)
        return TYPES.get(field.type, JSON)

    def _input(self, type: RecordType, field: Field) -> Any:
        if field.encrypted:
            return JSON  # the value, or with who may read it
        return self._enum(type, field) if field.type is FieldType.ENUM else TYPES.get(field.type, JSON)

    def _enum(self, type: RecordType, field: Field) -> GraphQLEnumType:
        key = type.names.type, field.name
        if key not in self._enums:
            names = name_options(field.options)
            values = {
                name: GraphQLEnumValue(
                    option, description=None if name == option else f"Stored as {option!r}"
                )
                for option, name in names.items()
            }
            if any(name != option for option, name in names.items()):
                type.options[field.name] = names
            text = f"The options of {field.name} of {type.model.name}."
            self._enums[key] = GraphQLEnumType(type.names.enum(field.name), values, description=text)
        return self._enums[key]

    # -- what is given

    def _filter(self, type: RecordType) -> GraphQLInputObjectType:
        def fields() -> dict[str, GraphQLInputField]:
            own = {name: self._asked(type, member) for name, member in type.members.items()}
            each = GraphQLList(GraphQLNonNull(made))
            return {
                **own,
                AND: GraphQLInputField(each, description="All of these as well"),
                OR: GraphQLInputField(each, description="And one of these at least"),
            }

        text = "Records that meet all of it. A field by itself asks for the value, as `_eq`; the operators are those "
        text += "of `filter` over HTTP: a field without a value meets `_ne` and `_nin` alone; "
        text += "in `_like`, `%` is any run of characters."
        made = GraphQLInputObjectType(f"{type.names.type}Filter", fields, description=text)
        return made

    def _asked(self, type: RecordType, member: Member) -> GraphQLInputField:
        described = type.model.fields.get(member.field)
        kind: Any
        if member.op is Op.LIKE:
            kind = GraphQLString
        elif described is None:
            kind = DATETIME if member.field in MOMENTS else GraphQLID
        elif described.type is FieldType.SET:
            kind = JSON  # one item of it
        else:
            kind = self._input(type, described)
        if member.op in (Op.IN, Op.NIN):
            kind = GraphQLList(GraphQLNonNull(kind))
        return self._inputs.setdefault(str(kind), GraphQLInputField(kind))

    def _sort(self, type: RecordType) -> GraphQLInputObjectType:
        names = [name for name in (*META_KINDS, *type.model.fields) if kind_of(name, type.model) in _SORTABLE]
        values = {free_name(name, _LITERALS): GraphQLEnumValue(name) for name in names}
        return GraphQLInputObjectType(
            f"{type.names.type}Sort",
            {
                "field": GraphQLInputField(
                    GraphQLNonNull(GraphQLEnumType(f"{type.names.type}SortField", values))
                ),
                "order": GraphQLInputField(self._order, default_value="desc"),
            },
            description="By which field records are sorted; equal ones by their ids.",
        )

    def _values(self, type: RecordType) -> GraphQLInputObjectType:
        fields = {
            "id": GraphQLInputField(GraphQLID, description="Chosen by the app, when a record is created")
        }
        for each in type.model.fields.values():
            fields[each.name] = GraphQLInputField(self._input(type, each), description=_described(each))
        text = f"Values for a record of {type.model.name}. What is wrong with them is named all at once, in "
        text += "`extensions.details` of the error. When updating, what is left out stays, and null clears a field."
        return GraphQLInputObjectType(f"{type.names.type}Input", fields, description=text)

    # -- roots

    def _add_root_fields(
        self,
        type: RecordType,
        query: dict[str, GraphQLField],
        mutation: dict[str, GraphQLField],
        subscription: dict[str, GraphQLField],
    ) -> None:
        names, resolve, record = type.names, self._resolve, self._objects[type.names.type]
        name, records = type.model.name, GraphQLList(GraphQLNonNull(record))
        filter, values = (
            GraphQLArgument(self._filter(type)),
            GraphQLArgument(GraphQLNonNull(self._values(type))),
        )
        id = GraphQLArgument(GraphQLNonNull(GraphQLID))
        version = GraphQLArgument(
            GraphQLString, description="Only if the record still has this version, as `If-Match` over HTTP"
        )
        is_edited = any(field.type in SHARED_TYPES for field in type.model.fields.values())
        edits = {"edits": GraphQLArgument(GraphQLList(GraphQLNonNull(self._edit)))} if is_edited else {}
        listing = {
            "filter": filter,
            "sort": GraphQLArgument(
                self._sort(type), description="By `created_at`, newest first, without it"
            ),
            "page": GraphQLArgument(GraphQLInt, default_value=1),
            "per_page": GraphQLArgument(
                GraphQLInt, default_value=PER_PAGE_DEFAULT, description=f"{PER_PAGE_MAX} at most"
            ),
            "cursor": GraphQLArgument(GraphQLString, description="`next_cursor` of the page before"),
        }
        query[names.many] = GraphQLField(
            records,
            listing,
            resolve.many(type),
            description=f"Records of {name}, filtered, sorted, in pages.",
        )
        query[names.page] = GraphQLField(
            _page(names, records),
            listing,
            resolve.page(type),
            description="The same, and how many there are.",
        )
        query[names.one] = GraphQLField(
            record, {"id": id}, resolve.one(type), description=f"A record of {name}, null if there is none."
        )
        mutation[f"create{names.type}"] = GraphQLField(
            record, {"input": values}, resolve.create(type), description=f"Create a record of {name}."
        )
        mutation[f"update{names.type}"] = GraphQLField(
            record,
            {"id": id, "input": values, "version": version, **edits},
            resolve.update(type),
            description=f"Change the given fields of a record of {name}. Null if you may not read it.",
        )
        mutation[f"delete{names.type}"] = GraphQLField(
            record,
            {"id": id, "version": version},
            resolve.delete(type),
            description=f"Delete a record of {name}; it is answered as it was, null if you may not read it.",
        )
        asked = {
            "id": GraphQLArgument(GraphQLID, description="Only this record"),
            "events": GraphQLArgument(
                GraphQLList(GraphQLNonNull(self._event)), description="Only these; all of them without it"
            ),
            "filter": GraphQLArgument(
                filter.type,
                description="Only records that meet it after the change, and those that may have met it before: "
                "`matches` tells them apart. Deletions always come",
            ),
            "cursor": GraphQLArgument(GraphQLString, description="The last cursor that you have seen"),
        }
        subscription[names.changed] = GraphQLField(
            GraphQLNonNull(self._change(type, record)), asked, description=f"Changes of records of {name}."
        )

    def _change(self, type: RecordType, record: GraphQLObjectType) -> GraphQLObjectType:
        text = "Other than the cursor that you have seen last, it shows that something is missing in between"
        return GraphQLObjectType(
            f"{type.names.type}Change",
            {
                "event": GraphQLField(GraphQLNonNull(self._event)),
                "id": GraphQLField(GraphQLID, description="Null for RESYNC"),
                "record": GraphQLField(record, description="As it is now; null for DELETED and RESYNC"),
                "changed": GraphQLField(
                    GraphQLList(GraphQLNonNull(GraphQLString)), description="The fields that were set"
                ),
                "matches": GraphQLField(
                    GraphQLBoolean,
                    description="Whether the record meets the filter now; null without a record",
                ),
                "origin": GraphQLField(GraphQLID, description="The node that it came from, if not this one"),
                "cursor": GraphQLField(GraphQLNonNull(GraphQLString), description="Where to go on from"),
                "previous": GraphQLField(GraphQLNonNull(GraphQLString), description=text),
            },
            description=f"A change of a record of {type.model.name}.",
        )


def _page(names: ModelNames, records: Any) -> GraphQLObjectType:
    return GraphQLObjectType(
        f"{names.type}Page",
        {
            "items": GraphQLField(GraphQLNonNull(records)),
            "total": GraphQLField(GraphQLNonNull(GraphQLInt), description="Of all pages together"),
            "page": GraphQLField(GraphQLNonNull(GraphQLInt)),
            "per_page": GraphQLField(GraphQLNonNull(GraphQLInt)),
            "next_cursor": GraphQLField(GraphQLString, description="Null on the last page"),
        },
    )


_META: Mapping[str, tuple[Any, str]] = {
    "id": (GraphQLNonNull(GraphQLID), "Chosen by the app, or by the node"),
    "created_at": (GraphQLNonNull(DATETIME), "When it was created"),
    "updated_at": (GraphQLNonNull(DATETIME), "When it was changed last"),
    "created_by": (GraphQLNonNull(GraphQLID), "The id of the user who did"),
    "version": (GraphQLNonNull(GraphQLString), "Give it back to change only what you have seen"),
    "strategy_missing": (
        GraphQLBoolean,
        "True where a value is shown for want of the plugin that should have chosen it",
    ),
}


def _thunk(made: GraphQLField) -> Callable[[], GraphQLField]:
    return lambda: made


def _described(field: Field) -> str:
    """What the model says of a field, in one line."""
    parts = [field.type.value]
    parts += ["required"] if field.required else []
    parts += ["unique"] if field.unique else []
    parts += [f"default {field.default!r:.60}"] if field.default is not None else []
    parts += [f"min {field.minimum}"] if field.minimum is not None else []
    parts += [f"max {field.maximum}"] if field.maximum is not None else []
    parts += [f"pattern {field.pattern}"] if field.pattern is not None else []
    parts += [f"to {field.model}"] if field.model is not None else []
    parts += [f"merge {field.merge}"] if field.merge is not None else []
    return ", ".join(parts)
