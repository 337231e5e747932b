"""Reading and writing model definitions as JSON.

Room: the shape of a definition as apps post it and documents keep it, and every
rule about what may stand in it. All faults are found in one pass, each under the
path where it lies. Makes `Definition`, which `schema` turns into a `Model`.

    {"name": "Task",
     "fields": [{"name": "title", "type": "string", "required": true}, …],
     "indexes": [{"key": {"status": 1, "due_date": -1}, "unique": false}],
     "conflict_strategy": "crdt", "validators": [{"expression": "size(title) > 2", "message": "…"}],
     "permissions": {"read": "public"}, "plural": "tasks"}

`fields` may also be an object, name to attributes or name to type. An index over
several fields is written back with their `order`, since some encodings of a
stored definition sort the keys of an object.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from protocol.schema_check import Fault, check_of, compile_pattern, json_size_bytes, text_size_bytes
from protocol.schema_field import (
    BOUNDED_TYPES,
    DEFINITION_SIZE_MAX_BYTES,
    ENCRYPTED_TYPES,
    FIELDS_MAX,
    INDEX_FIELDS_MAX,
    INDEXES_MAX,
    INTEGER_MAX,
    NAME_SIZE_MAX,
    OPTION_SIZE_MAX,
    OPTIONS_MAX,
    PATTERN_SIZE_MAX,
    RESERVED_NAMES,
    RESERVED_TYPES,
    SCALAR_TYPES,
    UNIQUE_TYPES,
    Field,
    FieldType,
    IndexSpec,
)
from protocol.schema_rules import (
    Validator,
    read_permissions,
    read_validators,
    write_validators,
)
from protocol.schema_strategy import check_merges, read_merge, read_strategy

_FIELD_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}")
_MODEL_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}")
_BUILTIN_NAME = re.compile(r"\$[a-z][a-z0-9_]{0,61}")

_DEFINITION_KEYS = frozenset(
    {"name", "fields", "indexes", "conflict_strategy", "validators", "permissions", "plural"}
)
# Written back for readers and ignored when a definition is posted again; only `application_id` must agree.
_WRITTEN_KEYS = frozenset({"model_id", "application_id", "created_by", "created_at", "updated_at", "version"})
_FIELD_KEYS = frozenset(
    {"name", "type", "required", "default", "unique", "indexed", "min", "max"}
    | {"pattern", "options", "encrypted", "merge", "model"}
)
_NAME_RULE = f"Must start with a letter and hold at most {NAME_SIZE_MAX} letters, digits and underscores"
_FAULTS_MAX = 1000  # a definition within its limits cannot earn more in good faith


@dataclass(frozen=True, slots=True)
class Definition:
    """What a definition says, checked."""

    name: str
    fields: dict[str, Field]
    indexes: tuple[IndexSpec, ...]
    conflict_strategy: str
    permissions: dict[str, Any]
    plural: str | None
    validators: tuple[Validator, ...] = ()


def read_definition(
    body: object, *, application: str, stored: bool = False
) -> tuple[Definition | None, dict[str, str]]:
    """The definition in `body`, or None and every fault by path.

    `stored` is for what a document holds: built-in names (`$…`) are allowed then, and patterns are
    taken as they are (a check of a value names a bad one), so that reading models back stays cheap.
    """
    faults: dict[str, str] = {}
    if not isinstance(body, Mapping):
        return None, {"definition": "Must be an object"}
    size = json_size_bytes(dict(body))
    if isinstance(size, Fault):
        return None, {"definition": str(size)}
    if size > DEFINITION_SIZE_MAX_BYTES:
        return None, {"definition": f"Must be at most {DEFINITION_SIZE_MAX_BYTES} bytes"}

    for key in body:
        if key not in _DEFINITION_KEYS and key not in _WRITTEN_KEYS:
            faults[key] = "Unknown attribute"
    if body.get("application_id", application) != application:
        faults["application_id"] = f"Must be the application of the caller, {application}"

    fields = _read_fields(body.get("fields"), faults, stored=stored)
    # What nobody but its readers can see, no rule can ask about.
    readable = {name: field for name, field in fields.items() if not field.encrypted}
    definition = Definition(
        name=_read_name(body.get("name"), faults, stored=stored),
        fields=fields,
        indexes=_read_indexes(body.get("indexes"), fields, faults),
        conflict_strategy=read_strategy(body.get("conflict_strategy"), faults),
        permissions=read_permissions(body.get("permissions"), readable, faults, stored=stored),
        plural=_read_plural(body.get("plural"), faults),
        validators=read_validators(body.get("validators"), readable, faults, stored=stored),
    )
    check_merges(definition.conflict_strategy, fields, faults)
    return (None, faults) if faults else (definition, faults)


def write_definition(definition: Definition) -> dict[str, Any]:
    """The JSON that `read_definition` reads back to the same definition, whatever happens to key order."""
    written: dict[str, Any] = {
        "name": definition.name,
        "fields": [_write_field(field) for field in definition.fields.values()],
        "indexes": [_write_index(index) for index in definition.indexes],
        "conflict_strategy": definition.conflict_strategy,
        "permissions": definition.permissions,
    }
    if definition.validators:
        written["validators"] = write_validators(definition.validators)
    if definition.plural is not None:
        written["plural"] = definition.plural
    return written


# --- names ----------------------------------------------------------------------------


def _read_name(name: object, faults: dict[str, str], *, stored: bool) -> str:
    if name is None:
        faults["name"] = "This field is required"
    elif isinstance(name, str) and (
        _MODEL_NAME.fullmatch(name) or (stored and _BUILTIN_NAME.fullmatch(name))
    ):
        return name
    else:
        faults["name"] = _NAME_RULE.replace(" and underscores", ", underscores and hyphens")
    return ""


def _read_plural(plural: object, faults: dict[str, str]) -> str | None:
    if plural is None or (isinstance(plural, str) and _FIELD_NAME.fullmatch(plural)):
        return plural
    faults["plural"] = _NAME_RULE
    return None


# --- fields ----------------------------------------------------------------------------------------


def _read_fields(given: object, faults: dict[str, str], *, stored: bool) -> dict[str, Field]:
    entries: list[tuple[str, object]] = []  # path for faults without a usable name, attributes
    if isinstance(given, list):
        entries = [(f"fields[{number}]", attributes) for number, attributes in enumerate(given)]
    elif isinstance(given, Mapping):
        for name, attributes in given.items():
            if isinstance(attributes, str):
                attributes = {"type": attributes}
            if isinstance(attributes, Mapping):
                attributes = {**attributes, "name": name}
            entries.append((f"fields.{name}", attributes))
    elif given is None:
        faults["fields"] = "This field is required"
        return {}
    else:
        faults["fields"] = "Must be a list of fields"
        return {}
    if not entries:
        faults["fields"] = "Must hold at least one field"
    if len(entries) > FIELDS_MAX:
        faults["fields"] = f"Must hold at most {FIELDS_MAX} fields"
        return {}
    fields: dict[str, Field] = {}
    folded: set[str] = set()
    for path, attributes in entries:
        if not isinstance(attributes, Mapping):
            faults[path] = "Must be an object with name and type"
            continue
        name = attributes.get("name")
        if not isinstance(name, str) or not _FIELD_NAME.fullmatch(name):
            faults[f"{path}.name"] = "This field is required" if name is None else _NAME_RULE
            name = ""
        elif name.lower() in RESERVED_NAMES:
            faults[f"{path}.name"] = f"The name {name} is reserved"
        elif name.lower() in folded:
            faults[f"{path}.name"] = f"Two fields are called {name} (case does not count)"
        else:
            path = f"fields.{name}"
            folded.add(name.lower())
        field = _read_field(name, attributes, path, faults, stored=stored)
        if field is not None and name:
            fields[name] = field
        if len(faults) > _FAULTS_MAX:
            break
    return fields


def _read_field(
    name: str, attributes: Mapping[str, Any], path: str, faults: dict[str, str], *, stored: bool
) -> Field | None:
    faults_before = len(faults)
    for key in attributes:
        if key not in _FIELD_KEYS:
            faults[f"{path}.{key}"] = "Unknown attribute"
    kind = _read_type(attributes.get("type"), path, faults)
    flags = {}
    for key in ("required", "unique", "indexed", "encrypted"):
        flag = attributes.get(key)
        if flag is not None and not isinstance(flag, bool):
            faults[f"{path}.{key}"] = "Must be true or false"
        flags[key] = flag is True
    if kind is None:
        return None

    if flags["encrypted"]:
        _check_encrypted(kind, attributes, path, faults)
    if flags["unique"] and kind not in UNIQUE_TYPES:
        faults[f"{path}.unique"] = f"{kind.phrase.capitalize()} cannot be unique"
    if flags["indexed"] and kind not in SCALAR_TYPES:
        faults[f"{path}.indexed"] = f"{kind.phrase.capitalize()} cannot be indexed"
    field = Field(
        name=name,
        type=kind,
        required=flags["required"],
        unique=flags["unique"],
        indexed=flags["indexed"],
        encrypted=flags["encrypted"],
        minimum=_read_bound("min", kind, attributes.get("min"), path, faults),
        maximum=_read_bound("max", kind, attributes.get("max"), path, faults),
        pattern=_read_pattern(kind, attributes.get("pattern"), path, faults, stored=stored),
        options=_read_options(kind, attributes.get("options"), path, faults),
        merge=read_merge(kind, attributes.get("merge"), path, faults),
        model=_read_target(kind, attributes.get("model"), path, faults),
    )
    if field.minimum is not None and field.maximum is not None and field.minimum > field.maximum:  # type: ignore[operator]
        faults[f"{path}.min"] = "Must not be greater than max"
    default = attributes.get("default")
    if default is None:
        return field
    if len(faults) == faults_before:
        return _with_default(field, default, path, faults, stored=stored)
    if kind is not FieldType.ENUM and isinstance(checked := check_of(Field(name, kind))(default), Fault):
        faults[f"{path}.default"] = str(checked)
    return field


def _check_encrypted(
    kind: FieldType, attributes: Mapping[str, Any], path: str, faults: dict[str, str]
) -> None:
    """Of what nobody but its readers can see, nothing else can be asked."""
    if kind not in ENCRYPTED_TYPES:
        faults[f"{path}.encrypted"] = f"{kind.phrase.capitalize()} cannot be encrypted"
    for key in ("unique", "indexed", "default", "merge"):
        if attributes.get(key) not in (None, False):
            faults[f"{path}.{key}"] = f"{key} does not apply to an encrypted field"


def _with_default(field: Field, default: object, path: str, faults: dict[str, str], *, stored: bool) -> Field:
    """The field with its default in stored form. With a pattern, it was checked when it was posted."""
    if stored and field.pattern is not None:
        checked = default if isinstance(default, str) else Fault("Must be a string")
    else:
        checked = check_of(field)(default)
    if isinstance(checked, Fault):
        faults[f"{path}.default"] = str(checked)
        return field
    values = {name: getattr(field, name) for name in field.__dataclass_fields__}
    return Field(**{**values, "default": checked})


def _read_type(kind: object, path: str, faults: dict[str, str]) -> FieldType | None:
    offered = [known.value for known in FieldType if known not in RESERVED_TYPES]
    if kind is None:
        faults[f"{path}.type"] = "This field is required"
    elif isinstance(kind, str) and kind in offered:
        return FieldType(kind)
    elif isinstance(kind, str) and kind in {known.value for known in RESERVED_TYPES}:
        faults[f"{path}.type"] = f"The type {kind} is not offered yet. Must be one of: {', '.join(offered)}"
    else:
        faults[f"{path}.type"] = f"Invalid option. Must be one of: {', '.join(offered)}"
    return None


def _read_bound(
    key: str, kind: FieldType, bound: Any, path: str, faults: dict[str, str]
) -> int | float | str | None:
    if bound is None:
        return None
    path = f"{path}.{key}"
    if kind not in BOUNDED_TYPES:
        faults[path] = f"{key} does not apply to {kind.phrase}"
    elif kind in (FieldType.STRING, FieldType.SET):
        if type(bound) is int and 0 <= bound <= INTEGER_MAX:
            return bound
        faults[path] = "Must be a whole number, not negative"
    else:
        checked = check_of(Field(name="", type=kind))(bound)
        if not isinstance(checked, Fault):
            return checked  # type: ignore[no-any-return]
        faults[path] = str(checked)
    return None


def _read_pattern(
    kind: FieldType, pattern: object, path: str, faults: dict[str, str], *, stored: bool
) -> str | None:
    if pattern is None:
        return None
    path = f"{path}.pattern"
    if kind is not FieldType.STRING:
        faults[path] = f"pattern does not apply to {kind.phrase}"
    elif not isinstance(pattern, str) or len(pattern) > PATTERN_SIZE_MAX or text_size_bytes(pattern) is None:
        faults[path] = f"Must be a regular expression of at most {PATTERN_SIZE_MAX} characters"
    elif not stored and compile_pattern(pattern) is None:
        faults[path] = "Must be a regular expression without look-around or back-references"
    else:
        return pattern
    return None


def _read_options(kind: FieldType, options: object, path: str, faults: dict[str, str]) -> tuple[str, ...]:
    path = f"{path}.options"
    if kind is not FieldType.ENUM:
        if options is not None:
            faults[path] = f"options does not apply to {kind.phrase}"
    elif not isinstance(options, list) or not 1 <= len(options) <= OPTIONS_MAX:
        faults[path] = f"Must be a list of 1 to {OPTIONS_MAX} options"
    elif not all(isinstance(option, str) and 0 < len(option) <= OPTION_SIZE_MAX for option in options):
        faults[path] = f"Each option must be a string of 1 to {OPTION_SIZE_MAX} characters"
    elif len(set(options)) != len(options):
        faults[path] = "Options must differ from one another"
    else:
        return tuple(options)
    return ()


def _read_target(kind: FieldType, target: object, path: str, faults: dict[str, str]) -> str | None:
    if target is None:
        return None
    if kind is not FieldType.REFERENCE:
        faults[f"{path}.model"] = f"model does not apply to {kind.phrase}"
    elif not isinstance(target, str) or not _MODEL_NAME.fullmatch(target):
        faults[f"{path}.model"] = "Must be the name of a model"
    else:
        return target
    return None


def _write_field(field: Field) -> dict[str, Any]:
    written: dict[str, Any] = {"name": field.name, "type": field.type.value, "required": field.required}
    optional = {
        "default": field.default,
        "unique": field.unique or None,
        "indexed": field.indexed or None,
        "min": field.minimum,
        "max": field.maximum,
        "pattern": field.pattern,
        "options": list(field.options) or None,
        "encrypted": field.encrypted or None,
        "merge": field.merge,
        "model": field.model,
    }
    written.update((key, value) for key, value in optional.items() if value is not None)
    return written


# --- indexes ---------------------------------------------------------------------------------------


def _read_indexes(
    given: object, fields: Mapping[str, Field], faults: dict[str, str]
) -> tuple[IndexSpec, ...]:
    if given is None:
        return ()
    if not isinstance(given, list):
        faults["indexes"] = "Must be a list of indexes"
        return ()
    if len(given) > INDEXES_MAX:
        faults["indexes"] = f"Must hold at most {INDEXES_MAX} indexes"
        return ()
    indexes = [_read_index(entry, f"indexes[{number}]", fields, faults) for number, entry in enumerate(given)]
    return tuple(dict.fromkeys(index for index in indexes if index is not None))


def _read_index(
    entry: object, path: str, fields: Mapping[str, Field], faults: dict[str, str]
) -> IndexSpec | None:
    if not isinstance(entry, Mapping):
        faults[path] = "Must be an object with key"
        return None
    faults_before = len(faults)
    for name in entry:
        if name not in ("key", "unique", "order"):
            faults[f"{path}.{name}"] = "Unknown attribute"
    unique = entry.get("unique")
    if unique is not None and not isinstance(unique, bool):
        faults[f"{path}.unique"] = "Must be true or false"
    key = entry.get("key")
    if not isinstance(key, Mapping) or not 1 <= len(key) <= INDEX_FIELDS_MAX:
        faults[f"{path}.key"] = f"Must be an object of 1 to {INDEX_FIELDS_MAX} fields, each 1 or -1"
        return None
    order = entry.get("order", list(key))
    if not isinstance(order, list) or sorted(map(_text, order)) != sorted(key):
        faults[f"{path}.order"] = "Must list the fields of key once each"
        return None
    for name, direction in key.items():
        field = fields.get(name)
        # Faults in the field itself are named where the field is.
        if field is None and name not in ("created_at", "updated_at", "created_by"):
            if not any(where.startswith(f"fields.{name}.") for where in faults):
                faults[f"{path}.key.{name}"] = "Unknown field"
        elif field is not None and field.encrypted:
            faults[f"{path}.key.{name}"] = "An encrypted field cannot be indexed"
        elif field is not None and field.type not in SCALAR_TYPES:
            faults[f"{path}.key.{name}"] = f"{field.type.phrase.capitalize()} cannot be indexed"
        if type(direction) is not int or direction not in (1, -1):
            faults[f"{path}.key.{name}"] = "Must be 1 or -1"
    if len(faults) != faults_before:
        return None
    return IndexSpec(tuple((name, key[name]) for name in order), unique is True)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _write_index(index: IndexSpec) -> dict[str, Any]:
    written: dict[str, Any] = {"key": dict(index.fields)}
    if len(index.fields) > 1:
        written["order"] = [name for name, _ in index.fields]
    written["unique"] = index.unique
    return written
