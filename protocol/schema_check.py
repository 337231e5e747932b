"""Is this value allowed? One small compiled check per field, three loops over them.

Room: turns fields into the functions behind `Model.check_create`, `check_update`
and `check_record`. A verdict is a pure function of fields and data: no clock, no
randomness, nothing that differs between nodes, because remote records are
quarantined by it everywhere. Nothing here raises, whatever the data.

Every create passes through here, so the loops are plain and the common values
(short ASCII strings, small integers) take the first branch of each check.
"""

import math
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace

from protocol.schema_field import (
    FLOAT_INTEGER_MAX,
    INTEGER_MAX,
    INTEGER_MIN,
    JSON_DEPTH_MAX,
    JSON_SIZE_MAX_BYTES,
    PATTERN_COMPILED_MAX_BYTES,
    RESERVED_NAMES,
    SET_ITEM_SIZE_MAX_BYTES,
    SET_ITEMS_MAX,
    SHARED_TYPES,
    STRING_SIZE_MAX_BYTES,
    Field,
    FieldType,
    Value,
)
from protocol.sealed import read_envelope, read_unsealed
from protocol.times import normal_date, normal_datetime


class Fault(str):
    """A check's way of saying no; the text is what the client reads."""

    __slots__ = ()


Check = Callable[[Value], Value]  # the value in stored form, or a Fault; never given None
Verdict = tuple[dict[str, Value], dict[str, str]]

REQUIRED = Fault("This field is required")
UNKNOWN = Fault("Unknown field")
SET_BY_NODE = Fault("This field is set by the node")
NOT_STORED_FORM = Fault("Not in stored form")

_STRING = Fault("Must be a string")
_STRING_TOO_LONG = Fault(f"Must be at most {STRING_SIZE_MAX_BYTES} bytes")
_UNICODE = Fault("Must be valid Unicode")
_INTEGER = Fault("Must be an integer")
_INTEGER_RANGE = Fault("Must fit in 64 bits")
_NUMBER = Fault("Must be a number")
_FINITE = Fault("Must be a finite number")
_BOOLEAN = Fault("Must be true or false")
_DATE = Fault("Must be a date (YYYY-MM-DD)")
_DATETIME = Fault("Must be a date and time (ISO 8601, such as 2023-12-31T23:59:00Z)")
_REFERENCE = Fault("Must be the id of an instance")
_SET = Fault("Must be a list of strings, numbers or booleans")
_SET_ITEMS = Fault(f"Must have at most {SET_ITEMS_MAX} items")
_SET_ITEM_SIZE = Fault(f"Each item must be at most {SET_ITEM_SIZE_MAX_BYTES} bytes")
_ARRAY = Fault("Must be a list")
_JSON = Fault("Must be JSON (objects with string keys, lists, strings, finite numbers, booleans, null)")
_JSON_DEPTH = Fault(f"Must be nested at most {JSON_DEPTH_MAX} deep")
_JSON_SIZE = Fault(f"Must be at most {JSON_SIZE_MAX_BYTES} bytes of JSON")
_PATTERN_INVALID = Fault("The pattern of this field cannot be used")

_ID_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.:~-")
_ID_SIZE_MAX = 64
_MISSING = object()


@dataclass(frozen=True, slots=True)
class Checks:
    """The compiled checks of one model. See the methods of the same names on `Model`."""

    create: Callable[[Mapping[str, Value]], Verdict]
    update: Callable[[Mapping[str, Value]], Verdict]
    record: Callable[[Mapping[str, Value]], dict[str, str]]


def compile_checks(fields: Mapping[str, Field]) -> Checks:
    """Build the three checks of a model. Patterns are compiled when first needed."""
    by_name = {field.name: (_given_check(field), field.required) for field in fields.values()}
    plan = [
        (
            field.name,
            by_name[field.name][0],
            field.required,
            field.default,
            type(field.default) in (list, dict),
        )
        for field in fields.values()
    ]
    # What came of several edits made apart is longer than each of them, and an empty text has no value.
    stored = [
        (
            name,
            _stored_check(fields[name]) or check,
            required and fields[name].type not in SHARED_TYPES,
            default,
        )
        for name, check, required, default, _ in plan
    ]

    def create(data: Mapping[str, Value]) -> Verdict:
        values: dict[str, Value] = {}
        faults: dict[str, str] = {}
        known = 0
        get = data.get
        for name, check, required, default, copy_default in plan:
            value = get(name)
            if value is not None:
                known += 1
                checked = check(value)
                if type(checked) is Fault:
                    faults[name] = str(checked)
                else:
                    values[name] = checked
            elif name in data:  # an explicit null: no value, not even the default
                known += 1
                if required:
                    faults[name] = str(REQUIRED)
                elif default is not None:
                    values[name] = None  # said, so that it is not taken for a record older than the field
            elif default is not None:
                values[name] = deepcopy(default) if copy_default else default
            elif required:
                faults[name] = str(REQUIRED)
        if known != len(data):
            _name_unknown(data, by_name, faults)
        return values, faults

    def update(data: Mapping[str, Value]) -> Verdict:
        values: dict[str, Value] = {}
        faults: dict[str, str] = {}
        get = by_name.get
        for name, value in data.items():
            entry = get(name)
            if entry is None:
                _name_unknown((name,), by_name, faults)
            elif value is None:
                if entry[1]:
                    faults[name] = str(REQUIRED)
                else:
                    values[name] = None
            else:
                checked = entry[0](value)
                if type(checked) is Fault:
                    faults[name] = str(checked)
                else:
                    values[name] = checked
        return values, faults

    def record(data: Mapping[str, Value]) -> dict[str, str]:
        faults: dict[str, str] = {}
        get = data.get
        for name, check, required, default in stored:
            value = get(name)
            if value is not None:
                checked = check(value)
                if checked is not value:
                    if type(checked) is Fault:
                        faults[name] = str(checked)
                    elif not _same(checked, value):
                        faults[name] = str(NOT_STORED_FORM)
            elif required and default is None:  # a record may be older than a field that came with a default
                faults[name] = str(REQUIRED)
        return faults

    return Checks(create, update, record)


def _given_check(field: Field) -> Check:
    """The check of what an app gives. Values of encrypted fields come out as `Unsealed`."""
    check = check_of(field)
    if not field.encrypted:
        return check

    def checked(given: Value) -> Value | Fault:
        unsealed = read_unsealed(given)
        if isinstance(unsealed, str):
            return Fault(unsealed)
        if unsealed.value is None:
            return REQUIRED
        value = check(unsealed.value)
        return value if type(value) is Fault else replace(unsealed, value=value)

    return checked


def _stored_check(field: Field) -> Check | None:
    """The check of what is stored, where it differs."""
    return _sealed_check if field.encrypted else _merged_check(field)


def _sealed_check(value: Value) -> Value | Fault:
    return value if read_envelope(value) is not None else Fault("Must be encrypted")


def check_of(field: Field) -> Check:
    """The check of one field, its bounds and pattern included."""
    match field.type:
        case FieldType.STRING:
            return _string_check(field)
        case FieldType.INTEGER:
            return _bounded(check_integer, field)
        case FieldType.COUNTER:
            return check_integer
        case FieldType.NUMBER:
            return _bounded(check_number, field)
        case FieldType.BOOLEAN:
            return check_boolean
        case FieldType.DATE:
            return _bounded(check_date, field)
        case FieldType.DATETIME:
            return _bounded(check_datetime, field)
        case FieldType.ENUM:
            return _enum_check(field.options)
        case FieldType.JSON:
            return check_json
        case FieldType.SET:
            return _set_check(field)
        case FieldType.REFERENCE:
            return check_reference
        case FieldType.TEXT:
            return check_string
        case FieldType.ARRAY:
            return check_array
    fault = Fault(f"The type {field.type.value} is not offered yet")
    return lambda value: fault


# --- one type each ---------------------------------------------------------------------------------


def check_string(value: Value) -> Value:
    """Valid Unicode of at most STRING_SIZE_MAX_BYTES as UTF-8."""
    if type(value) is not str:
        return _STRING
    if value.isascii():
        return value if len(value) <= STRING_SIZE_MAX_BYTES else _STRING_TOO_LONG
    size = text_size_bytes(value)
    if size is None:
        return _UNICODE
    return value if size <= STRING_SIZE_MAX_BYTES else _STRING_TOO_LONG


def check_integer(value: Value) -> Value:
    """A 64-bit integer. A float that is exactly one (JavaScript's `5.0`) becomes it."""
    if type(value) is int:
        return value if INTEGER_MIN <= value <= INTEGER_MAX else _INTEGER_RANGE
    if type(value) is float and value.is_integer():
        return int(value) if -FLOAT_INTEGER_MAX <= value <= FLOAT_INTEGER_MAX else _INTEGER_RANGE
    return _INTEGER


def check_number(value: Value) -> Value:
    """A finite number. Integers beyond 64 bits become floats, as they would in JavaScript."""
    if type(value) is float:
        return value if math.isfinite(value) else _FINITE
    if type(value) is not int:
        return _NUMBER
    if INTEGER_MIN <= value <= INTEGER_MAX:
        return value
    try:
        return float(value)
    except OverflowError:
        return _FINITE


def check_boolean(value: Value) -> Value:
    return value if type(value) is bool else _BOOLEAN


def check_date(value: Value) -> Value:
    """A day, `YYYY-MM-DD`."""
    return _DATE if type(value) is not str or normal_date(value) is None else value


def check_datetime(value: Value) -> Value:
    """A moment; any RFC 3339 form becomes UTC with milliseconds."""
    if type(value) is not str:
        return _DATETIME
    normal = normal_datetime(value)
    return _DATETIME if normal is None else normal


def check_reference(value: Value) -> Value:
    """An id. Whether such an instance is here is asked of local writes alone (`storage.admission`): for other
    nodes it may still be on its way."""
    if type(value) is str and 0 < len(value) <= _ID_SIZE_MAX and _ID_CHARACTERS.issuperset(value):
        return value
    return _REFERENCE


def check_json(value: Value) -> Value:
    """Any JSON within the limits; handed back as it is, not copied."""
    size = json_size_bytes(value)
    if isinstance(size, Fault):
        return size
    return value if size <= JSON_SIZE_MAX_BYTES else _JSON_SIZE


def check_array(value: Value) -> Value:
    """A list of any JSON within the limits; handed back as it is."""
    return check_json(value) if type(value) is list else _ARRAY


def _merged_check(field: Field) -> Check | None:
    """What a collaborative field of a record may show: of its type, however long."""
    if field.type is FieldType.TEXT:
        return lambda value: value if type(value) is str else _STRING
    if field.type is FieldType.ARRAY:
        return lambda value: value if type(value) is list else _ARRAY
    return None


def check_set(value: Value) -> Value:
    """A list of scalars; comes back sorted, without repetitions, whole floats as integers."""
    if type(value) is not list:
        return _SET
    if len(value) > SET_ITEMS_MAX:
        return _SET_ITEMS
    keyed: dict[tuple[int, Value], Value] = {}
    for item in value:
        key = set_item_key(item)
        if isinstance(key, Fault):
            return key
        keyed[key] = key[1]
    if sum(len(item) for item in keyed.values() if type(item) is str) > JSON_SIZE_MAX_BYTES:
        return _JSON_SIZE
    return [keyed[key] for key in sorted(keyed)]


def set_item_key(item: Value) -> "tuple[int, Value] | Fault":
    """What makes two items of a set the same, and their order: booleans, numbers, strings.

    JSON's `true` is not `1`, but `1.0` is.
    """
    kind = type(item)
    if kind is str:
        size = text_size_bytes(item)
        if size is None:
            return _UNICODE
        return (2, item) if size <= SET_ITEM_SIZE_MAX_BYTES else _SET_ITEM_SIZE
    if kind is bool:
        return 0, item
    if kind is int or kind is float:
        number = check_number(item)
        if type(number) is float and number.is_integer() and INTEGER_MIN <= number <= INTEGER_MAX:
            number = int(number)  # one form for one number
        return number if isinstance(number, Fault) else (1, number)
    return _SET


# --- bounds, patterns, options ---------------------------------------------------------------------


def _string_check(field: Field) -> Check:
    minimum, maximum, pattern = field.minimum, field.maximum, field.pattern
    if minimum is None and maximum is None and pattern is None:
        return check_string
    shortest = int(minimum) if minimum is not None else 0
    longest = int(maximum) if maximum is not None else STRING_SIZE_MAX_BYTES
    too_short = f"Must be at least {shortest} characters"
    too_long = f"Must be at most {longest} characters"
    mismatch = f"Must match the pattern {pattern}"
    matches: Callable[[str], bool] | None = None

    def check(value: Value) -> Value:
        nonlocal matches
        checked = check_string(value)
        if type(checked) is Fault:
            return checked
        faults = []
        if len(value) < shortest:
            faults.append(too_short)
        elif len(value) > longest:
            faults.append(too_long)
        if pattern is not None:
            if matches is None:
                matches = compile_pattern(pattern)
                if matches is None:
                    return _PATTERN_INVALID
            if not matches(value):
                faults.append(mismatch)
        return Fault("; ".join(faults)) if faults else value

    return check


def compile_pattern(pattern: str) -> Callable[[str], bool] | None:
    """A linear-time matcher for a regular expression as JSON Schema understands it (unanchored).

    None if it cannot be compiled: bad syntax, look-around, back-references, or too large. Python's
    `re` is never used on what users write, since it can be made to run for ever.
    """
    import jsonschema_rs  # 50 ms, and most models have no pattern

    options = jsonschema_rs.RegexOptions(size_limit=PATTERN_COMPILED_MAX_BYTES)
    try:
        return jsonschema_rs.validator_for({"pattern": pattern}, pattern_options=options).is_valid
    except (ValueError, TypeError):  # UnicodeEncodeError is a ValueError too
        return None


def _bounded(check: Check, field: Field) -> Check:
    """Add `minimum` and `maximum`, which are in stored form and so compare with checked values."""
    minimum, maximum = field.minimum, field.maximum
    if minimum is None and maximum is None:
        return check
    too_small = Fault(f"Must be at least {minimum}")
    too_large = Fault(f"Must be at most {maximum}")

    def bounded(value: Value) -> Value:
        checked = check(value)
        if type(checked) is Fault:
            return checked
        if minimum is not None and checked < minimum:
            return too_small
        if maximum is not None and checked > maximum:
            return too_large
        return checked

    return bounded


def _set_check(field: Field) -> Check:
    if field.minimum is None and field.maximum is None:
        return check_set
    fewest = int(field.minimum) if field.minimum is not None else 0
    most = int(field.maximum) if field.maximum is not None else SET_ITEMS_MAX
    too_few = Fault(f"Must have at least {fewest} items")
    too_many = Fault(f"Must have at most {most} items")

    def bounded(value: Value) -> Value:
        checked = check_set(value)
        if type(checked) is Fault:
            return checked
        if len(checked) < fewest:
            return too_few
        return too_many if len(checked) > most else checked

    return bounded


def _enum_check(options: tuple[str, ...]) -> Check:
    allowed = frozenset(options)
    fault = Fault(f"Invalid option. Must be one of: {', '.join(options)}")

    def check(value: Value) -> Value:
        return value if type(value) is str and value in allowed else fault

    return check


# --- shared pieces ---------------------------------------------------------------------------------


def text_size_bytes(text: str) -> int | None:
    """Length as UTF-8; None if the text has lone surrogates and so has no such form."""
    if text.isascii():
        return len(text)
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        return None


def json_size_bytes(value: Value, depth: int = 0) -> "int | Fault":
    """About how long the value is as JSON: its texts, and 8 for all else. A Fault if it is not JSON."""
    kind = type(value)
    if kind is str:
        size = text_size_bytes(value)
        return _UNICODE if size is None else size + 2
    if value is None or kind is bool:
        return 8
    if kind is int:
        return 8 if INTEGER_MIN <= value <= INTEGER_MAX else _INTEGER_RANGE
    if kind is float:
        return 8 if math.isfinite(value) else _FINITE
    if kind is not list and kind is not dict:
        return _JSON
    if depth == JSON_DEPTH_MAX:
        return _JSON_DEPTH
    total = 8
    for item in value.values() if kind is dict else value:
        size_or_fault = json_size_bytes(item, depth + 1)
        if isinstance(size_or_fault, Fault):
            return size_or_fault
        total += size_or_fault
    if kind is dict:
        for key in value:
            size = text_size_bytes(key) if type(key) is str else None
            if size is None:
                return _JSON
            total += size + 2
    return total


def _name_unknown(
    names: Mapping[str, Value] | tuple[str, ...], known: Mapping[str, object], faults: dict[str, str]
) -> None:
    for name in names:
        if name not in known:
            faults[str(name)] = str(SET_BY_NODE if name in RESERVED_NAMES else UNKNOWN)


def _same(checked: Value, value: Value) -> bool:
    """Is a stored value what the check makes of it? The order of a set's items is the document's affair."""
    if type(checked) is not type(value):
        return False
    if type(checked) is list:
        return len(checked) == len(value) and all(
            type(key := set_item_key(item)) is tuple and type(key[1]) is type(item) for item in value
        )
    return bool(checked == value)
