"""What the records of one model look like, and what requests about them may hold, as JSON Schema.

Room: a pure function of a model, for `openapi`. What is said here is what the handlers check, told from the same
rules of `protocol`; what no schema can say (that something is there, that a cursor is one of ours) is left out.
"""

from typing import Any

from node.api.filter_pattern import filter_pattern, literal_pattern
from protocol.ids import INSTANCE_ID_PATTERN, SEGMENTS
from protocol.query import measurable_fields, sortable_fields
from protocol.schema import Field, FieldType, Model
from protocol.schema_field import INTEGER_MAX, INTEGER_MIN, SET_ITEMS_MAX, SHARED_TYPES

Json = dict[str, Any]

_META: Json = {
    "id": {"type": "string", "readOnly": True},
    "created_at": {"type": "string", "format": "date-time", "readOnly": True},
    "updated_at": {"type": "string", "format": "date-time", "readOnly": True},
    "created_by": {"type": ["string", "null"], "readOnly": True},
    "version": {"type": "string", "readOnly": True, "description": "Also the ETag; give it back as If-Match"},
}
_NULL: Json = {"type": "null"}
_INSTANCE_ID: Json = {"type": "string", "pattern": f"^{INSTANCE_ID_PATTERN}$"}
_INTEGER: Json = {"type": "integer", "format": "int64", "minimum": INTEGER_MIN, "maximum": INTEGER_MAX}
_SCALAR: Json = {"anyOf": [{"type": kind} for kind in ("string", "number", "boolean")]}
_TYPES: dict[FieldType, Json] = {
    FieldType.STRING: {"type": "string"},
    FieldType.TEXT: {"type": "string"},
    FieldType.INTEGER: _INTEGER,
    FieldType.NUMBER: {"type": "number"},
    FieldType.BOOLEAN: {"type": "boolean"},
    FieldType.DATE: {"type": "string", "format": "date"},
    FieldType.DATETIME: {"type": "string", "format": "date-time"},
    FieldType.ENUM: {"type": "string"},
    FieldType.JSON: {},
    FieldType.ARRAY: {"type": "array"},
    FieldType.SET: {"type": "array", "items": _SCALAR, "maxItems": SET_ITEMS_MAX},
    FieldType.COUNTER: _INTEGER,
    FieldType.REFERENCE: _INSTANCE_ID | {"description": "The id of a record"},
    FieldType.FILE: {"type": "string"},
}
_LOCKED: Json = {
    "type": "object",
    "properties": {"encrypted": {"const": True}},
    "required": ["encrypted"],
    "description": "What only its readers can see, where they have signed in",
}


def record_schema(model: Model) -> Json:
    """A record as it is read."""
    fields = {name: _nullable(field, _shown(field)) for name, field in model.fields.items()}
    return {
        "title": model.name,
        "type": "object",
        "properties": {**_META, **fields},
        "required": ["id"],  # and, without `fields`, the others
    }


def create_schema(model: Model) -> Json:
    """The body that creates a record."""
    fields = {name: _nullable(field, _given(field)) for name, field in model.fields.items()}
    chosen = _INSTANCE_ID | {"not": {"enum": sorted(SEGMENTS)}, "description": "Chosen by the app"}
    required = [name for name, field in model.fields.items() if field.required and field.default is None]
    return {
        "title": f"New {model.name}",
        "type": "object",
        "properties": {"id": {"anyOf": [chosen, _NULL]}, **fields},
        "additionalProperties": False,
        **({"required": required} if required else {}),
    }


def update_schema(model: Model) -> Json:
    """The body that changes one."""
    fields: dict[str, Json] = {}
    for name, field in model.fields.items():
        ways = [_given(field), *([_edit(field.type)] if field.type in SHARED_TYPES else [])]
        fields[name] = _nullable(field, ways[0] if len(ways) == 1 else {"anyOf": ways})
    return {
        "title": f"Changes to {model.name}",
        "type": "object",
        "properties": fields,
        "additionalProperties": False,
    }


def parameter_schema(name: str, model: Model) -> Json | None:
    """What a query parameter of lists and single records may be for this model; None if that is as for any."""
    match name:
        case "sort":
            return {"type": "string", "enum": sortable_fields(model), "default": "created_at"}
        case "filter":
            return {"type": "string", "pattern": filter_pattern(model)}
        case "fields":
            return _names([*_META, "version_vector", *model.fields])
        case "expand":
            return _names([name for name, field in model.fields.items() if field.model is not None])
    return None


def aggregation_schema(general: Json, model: Model) -> Json:
    """The body of an aggregation: `general`, which is that of any model, with the fields that this one has."""
    properties = general["properties"]
    groups, measures = properties["group_by"], properties["aggregations"]
    measure = measures["items"]
    ways = []
    for operation in measure["properties"]["operation"]["enum"]:
        if fields := measurable_fields(operation, model):
            asked = {"operation": {"const": operation}, "field": {"enum": fields}}
            required = {} if operation == "count" else {"required": ["field"]}
            ways.append({"properties": asked, **required})
    return general | {
        "properties": properties
        | {
            "group_by": groups | {"items": {"type": "string", "enum": sortable_fields(model)}},
            "aggregations": measures | {"items": measure | {"anyOf": ways}},
            "filter": properties["filter"] | {"pattern": filter_pattern(model)},
        }
    }


def _names(names: list[str]) -> Json:
    """Some of these names, parted by commas."""
    one = f"(?:{'|'.join(map(literal_pattern, names))})"
    listed = f"(?:{one}(?: *,[ ,]*{one})*)?" if names else ""
    return {"type": "string", "pattern": f"^[ ,]*{listed}[ ,]*$"}


def _nullable(field: Field, schema: Json) -> Json:
    return schema if field.required or not schema else {"anyOf": [schema, _NULL]}


def _plain(field: Field) -> Json:
    """A value of the field, with its bounds as far as JSON Schema can say them."""
    schema = dict(_TYPES[field.type])
    if field.options:
        schema["enum"] = list(field.options)
    least, most = {
        FieldType.INTEGER: ("minimum", "maximum"),
        FieldType.NUMBER: ("minimum", "maximum"),
        FieldType.STRING: ("minLength", "maxLength"),
        FieldType.SET: ("minItems", "maxItems"),
    }.get(field.type, ("", ""))
    for word, bound in ((least, field.minimum), (most, field.maximum)):
        if word and bound is not None:
            schema[word] = bound
    if field.type is FieldType.STRING and field.pattern is not None:
        schema["pattern"] = field.pattern
    if field.default is not None:
        schema["default"] = field.default
    return schema


def _shown(field: Field) -> Json:
    schema = _plain(field)
    if field.type is FieldType.SET:
        return schema | {"uniqueItems": True}
    return {"anyOf": [schema, _LOCKED]} if field.encrypted and schema else schema


def _given(field: Field) -> Json:
    schema = _plain(field)
    if field.type is FieldType.SET and (field.minimum, field.maximum) != (None, None):
        return schema | {"uniqueItems": True}  # what is given twice counts once
    if not field.encrypted or not schema:
        return schema
    readers = {"type": "array", "items": {"type": "string", "minLength": 1}}
    named = {
        "type": "object",
        "description": "A value and the ids of the users who may read it",
        "properties": {"value": schema, "readers": readers},
        "required": ["value", "readers"],
        "additionalProperties": False,
    }
    return {"anyOf": [schema, named]}


def _edit(kind: FieldType) -> Json:
    """Operations on a field that several may edit at once."""
    count: Json = {"type": "integer", "minimum": 1}
    insert: Json = (
        {"type": "string", "minLength": 1} if kind is FieldType.TEXT else {"type": "array", "minItems": 1}
    )
    ops: list[Json] = [
        {"type": "object", "properties": {word: schema}, "required": [word], "additionalProperties": False}
        for word, schema in (("retain", count), ("delete", count), ("insert", insert))
    ]
    return {
        "type": "object",
        "description": "Operations on what the field showed at a version; positions count code points or elements",
        "properties": {
            "ops": {"type": "array", "items": {"oneOf": ops}},
            "base_version": {"type": "string", "minLength": 1, "maxLength": 64},
        },
        "required": ["ops", "base_version"],
        "additionalProperties": False,
    }
