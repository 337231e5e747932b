"""The filter language: text to conditions, and whether a record meets them.

    status:eq:TODO,due_date:lt:2023-12-31|owner:in:"ann;bob";carol

`field:operator:value`; `,` is AND and binds tighter than `|`, OR. `in` and `nin`
take values parted by `;`. A value in double quotes holds any character, with `\\"`
and `\\\\` inside; one without is taken up to the next separator, trimmed.

Room: parsing, and the meaning of each condition in Python. `storage.index_query`
says the same in SQL, and a test holds the two to the same answers:

- A field without a value (missing or null) meets `ne` and `nin`, and nothing else.
- Text compares by code point. `like` ignores case as `str.casefold` does, in every
  script; `%` is any run of characters, and nothing else is special.
- Numbers compare by value, integers and floats exactly.
- On a set, `eq` and `in` ask whether it holds (any of) the values, `ne` and `nin`
  whether it holds none. `5` stands for the number and the text, `"5"` for the text.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from protocol.errors import QueryFault
from protocol.schema import Field, FieldType, Model, Value
from protocol.schema_check import Fault, check_integer, check_number, set_item_key, text_size_bytes
from protocol.times import ms_from_datetime, normal_date, normal_datetime

FILTER_SIZE_MAX_BYTES = 8192
CONDITIONS_MAX = 64
_NAME_SHOWN_MAX = 64  # of an unknown name, in a fault

_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")
_DIGITS_MAX = 400  # more cannot be a finite double


class Op(StrEnum):
    """What a condition asks of its field."""

    EQ = "eq"
    NE = "ne"
    GT = "gt"
    GTE = "gte"
    LT = "lt"
    LTE = "lte"
    IN = "in"
    NIN = "nin"
    LIKE = "like"


class Kind(StrEnum):
    """How the values of a field compare."""

    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    SET = "set"
    JSON = "json"


_KINDS = {
    FieldType.STRING: Kind.TEXT,
    FieldType.ENUM: Kind.TEXT,
    FieldType.DATE: Kind.TEXT,
    FieldType.DATETIME: Kind.TEXT,
    FieldType.REFERENCE: Kind.TEXT,
    FieldType.INTEGER: Kind.INTEGER,
    FieldType.COUNTER: Kind.INTEGER,
    FieldType.NUMBER: Kind.NUMBER,
    FieldType.BOOLEAN: Kind.BOOLEAN,
    FieldType.SET: Kind.SET,
    FieldType.JSON: Kind.JSON,
    FieldType.TEXT: Kind.TEXT,
    FieldType.ARRAY: Kind.JSON,
}
META_KINDS = {
    "id": Kind.TEXT,
    "created_at": Kind.INTEGER,
    "updated_at": Kind.INTEGER,
    "created_by": Kind.TEXT,
}
MOMENTS = frozenset({"created_at", "updated_at"})  # epoch milliseconds inside, ISO 8601 outside

_OPS = {op.value: op for op in Op}
_EQUALITY = frozenset({Op.EQ, Op.NE, Op.IN, Op.NIN})
_ORDER = _EQUALITY | {Op.GT, Op.GTE, Op.LT, Op.LTE}
_OPERATORS = {
    Kind.TEXT: frozenset(Op),
    Kind.INTEGER: _ORDER,
    Kind.NUMBER: _ORDER,
    Kind.BOOLEAN: _EQUALITY,
    Kind.SET: _EQUALITY,
    Kind.JSON: frozenset[Op](),
}


@dataclass(frozen=True, slots=True)
class Condition:
    """One question about one field. `values` holds one value but for `in` and `nin`, and sets."""

    field: str
    kind: Kind
    op: Op
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Filter:
    """Met when all conditions of any group are. `text` is what it was made from."""

    groups: tuple[tuple[Condition, ...], ...]
    text: str

    def matches(self, values: Mapping[str, Value]) -> bool:
        """Does a record meet the filter?

        `values` are its stored values, with `id`, `created_at`, `updated_at` (epoch milliseconds)
        and `created_by` among them if the filter asks for those. Never raises on a value of the
        wrong type: such a value meets what a missing one meets, or nothing.
        """
        get = values.get
        return any(all(test(get(name)) for name, test in group) for group in self._tests)

    @cached_property
    def _tests(self) -> list[list[tuple[str, Callable[[Value], bool]]]]:
        return [[(condition.field, _test(condition)) for condition in group] for group in self.groups]


def kind_of(name: str, model: Model) -> Kind | None:
    """How the values of a field compare; None if the model has no such field."""
    field = model.fields.get(name)
    if field is None:
        return META_KINDS.get(name)
    return _KINDS.get(FieldType.JSON if field.encrypted else field.type)


def operators_of(name: str, model: Model) -> frozenset[Op]:
    """What can be asked of a field; nothing if the model has no such field."""
    kind, field = kind_of(name, model), model.fields.get(name)
    if field is not None and field.type is FieldType.ENUM and not field.encrypted:
        return _EQUALITY | {Op.LIKE}  # the order of options is not that of their letters
    return frozenset() if kind is None else _OPERATORS[kind]


def parse_filter(text: str, model: Model) -> Filter:
    """Read a filter for the records of a model. Raises `QueryFault` (key `filter`) naming every fault."""
    size = text_size_bytes(text)
    if size is None:
        raise QueryFault({"filter": "Must be valid Unicode"})
    if size > FILTER_SIZE_MAX_BYTES:
        raise QueryFault({"filter": f"Must be at most {FILTER_SIZE_MAX_BYTES} bytes"})
    faults: list[str] = []
    groups: list[tuple[Condition, ...]] = []
    group: list[Condition] = []
    for count, raw in enumerate(_split(text, faults)):
        if count == CONDITIONS_MAX:
            faults.append(f"At most {CONDITIONS_MAX} conditions")
            break
        if raw.starts_group and group:
            groups.append(tuple(group))
            group = []
        condition = _read_condition(raw, model, faults)
        if condition is not None:
            group.append(condition)
    groups.append(tuple(group))
    if faults:
        raise QueryFault({"filter": "; ".join(dict.fromkeys(faults))})
    return Filter(tuple(groups), text)


# --- from text to raw conditions -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Raw:
    """One condition as written. A value is its text and whether it was quoted."""

    starts_group: bool
    field: str
    op: str
    values: list[tuple[str, bool]]


def _split(text: str, faults: list[str]) -> Iterable[_Raw]:
    """The conditions of a filter, in order. After a fault, goes on behind the next separator."""
    position = 0
    starts_group = True
    while True:
        field, position = _until(text, position, ":,|")
        if text[position : position + 1] != ":":
            faults.append(_malformed(field))
        else:
            op, position = _until(text, position + 1, ":,|")
            if text[position : position + 1] != ":":
                faults.append(_malformed(f"{field}:{op}"))
            else:
                values, position = _read_values(text, position + 1, field, op in (Op.IN, Op.NIN), faults)
                yield _Raw(starts_group, field, op, values)
        if position >= len(text):
            return
        starts_group = text[position] == "|"
        position += 1


def _malformed(written: str) -> str:
    shown = written[:_NAME_SHOWN_MAX]
    return f"Expected field:operator:value, found {shown!r}" if shown else "Expected field:operator:value"


def _until(text: str, position: int, stops: str) -> tuple[str, int]:
    """The trimmed text up to the first of `stops` or the end, and where that is."""
    end = position
    while end < len(text) and text[end] not in stops:
        end += 1
    return text[position:end].strip(), end


def _read_values(
    text: str, position: int, field: str, is_list: bool, faults: list[str]
) -> tuple[list[tuple[str, bool]], int]:
    """The value, or the values parted by `;`, and where the condition ends."""
    stops = ",|;" if is_list else ",|"
    values: list[tuple[str, bool]] = []
    while True:
        start = position
        while start < len(text) and text[start].isspace():
            start += 1
        if text[start : start + 1] == '"':
            value, position = _read_quoted(text, start + 1, field, faults)
            values.append((value, True))
            rest, position = _until(text, position, stops)
            if rest:
                faults.append(f"{field}: Unexpected text after the closing quote")
        else:
            value, position = _until(text, position, stops)
            values.append((value, False))
        if text[position : position + 1] != ";":
            return values, position
        position += 1


def _read_quoted(text: str, position: int, field: str, faults: list[str]) -> tuple[str, int]:
    """What stands between the quotes, and the position after the closing one."""
    parts: list[str] = []
    while position < len(text):
        character = text[position]
        if character == '"':
            return "".join(parts), position + 1
        if character == "\\":
            position += 1
            character = text[position : position + 1]
            if character not in ('"', "\\"):
                faults.append(f'{field}: Only \\" and \\\\ may follow a backslash in quotes')
        parts.append(character)
        position += 1
    faults.append(f"{field}: The closing quote is missing")
    return "", position


# --- from raw conditions to typed ones -------------------------------------------------------------


def _read_condition(raw: _Raw, model: Model, faults: list[str]) -> Condition | None:
    name = raw.field[:_NAME_SHOWN_MAX]
    kind = kind_of(raw.field, model)
    op = _OPS.get(raw.op)
    if kind is None:
        faults.append(f"{name}: Unknown field")
    if op is None:
        shown = raw.op[:_NAME_SHOWN_MAX]
        faults.append(f"{name}: Unknown operator {shown!r}. Must be one of: {', '.join(Op)}")
    if kind is None or op is None:
        return None
    field = model.fields.get(raw.field)
    allowed = operators_of(raw.field, model)
    if op not in allowed:
        what = raw.field
        if field is not None:
            what = "an encrypted field" if field.encrypted else field.type.phrase
        choice = ", ".join(op for op in Op if op in allowed)
        faults.append(
            f"{name}: {op} does not apply to {what}. Must be one of: {choice}"
            if choice
            else f"{name}: {what} cannot be filtered"
        )
        return None
    values: list[Value] = []
    for text, is_quoted in raw.values:
        if kind is Kind.SET:
            values += _set_values(text, is_quoted)
            continue
        value = text if op is Op.LIKE else _read_value(raw.field, field, kind, text)
        if isinstance(value, Fault):
            faults.append(f"{name}: {value}")
        values.append(value)
    if kind is not Kind.SET:
        values = list(dict.fromkeys(values))
    return Condition(raw.field, kind, op, tuple(values))


def _read_value(name: str, field: Field | None, kind: Kind, text: str) -> Value:
    """The value that a text stands for, in stored form, or a Fault."""
    if field is None and name in MOMENTS:
        return _read_moment(text)
    match kind:
        case Kind.INTEGER:
            return check_integer(int(text)) if _INTEGER.fullmatch(text) else Fault("Must be an integer")
        case Kind.NUMBER:
            return _read_number(text)
        case Kind.BOOLEAN:
            return text == "true" if text in ("true", "false") else Fault("Must be true or false")
    if field is None:
        return text
    if field.type is FieldType.DATE:
        return normal_date(text) or Fault("Must be a date (YYYY-MM-DD)")
    if field.type is FieldType.DATETIME:
        return _read_datetime(text)
    if field.type is FieldType.ENUM and text not in field.options:
        return Fault(f"Invalid option. Must be one of: {', '.join(field.options)}")
    return text


def _read_number(text: str) -> Value:
    if len(text) > _DIGITS_MAX or not _NUMBER.fullmatch(text):
        return Fault("Must be a number")
    is_integer = text.lstrip("+-").isdigit()
    return check_number(int(text) if is_integer else float(text))


def _read_datetime(text: str) -> Value:
    """A moment; a day alone stands for its first millisecond in UTC."""
    moment = f"{text}T00:00:00.000Z" if normal_date(text) else normal_datetime(text)
    return moment or Fault("Must be a date and time (ISO 8601) or a date (YYYY-MM-DD)")


def _read_moment(text: str) -> Value:
    if _INTEGER.fullmatch(text):
        return check_integer(int(text))
    moment = _read_datetime(text)
    return moment if isinstance(moment, Fault) else ms_from_datetime(moment)


def _set_values(text: str, is_quoted: bool) -> list[Value]:
    """The items a text can stand for: itself, and unquoted also a boolean or a number."""
    items: list[Value] = [text]
    if not is_quoted:
        if text in ("true", "false"):
            items.append(text == "true")
        number = _read_number(text)
        if not isinstance(number, Fault):
            items.append(number)
    keys = [set_item_key(item) for item in items]
    return [key[1] for key in keys if not isinstance(key, Fault)]


# --- the meaning of a condition --------------------------------------------------------------------


def _test(condition: Condition) -> Callable[[Value], bool]:
    """A condition as a function of the field's value, None standing for no value."""
    if condition.kind is Kind.SET:
        return _set_test(condition)
    op = condition.op
    if op is Op.IN or op is Op.NIN:
        wanted = frozenset(condition.values)
        found = op is Op.IN

        def contained(value: Value) -> bool:
            try:
                return (value in wanted) is found
            except TypeError:  # not hashable, so not a value of this field
                return not found

        return contained
    bound = condition.values[0]
    match op:
        case Op.EQ:
            return lambda value: bool(value == bound)
        case Op.NE:
            return lambda value: bool(value != bound)
        case Op.LIKE:
            like = compile_like(bound)
            return lambda value: type(value) is str and like(value)
    return _order_test(op, bound)


def _order_test(op: Op, bound: Value) -> Callable[[Value], bool]:
    def ordered(value: Value) -> bool:
        if value is None:
            return False
        try:
            match op:
                case Op.GT:
                    return bool(value > bound)
                case Op.GTE:
                    return bool(value >= bound)
                case Op.LT:
                    return bool(value < bound)
            return bool(value <= bound)
        except TypeError:
            return False

    return ordered


def _set_test(condition: Condition) -> Callable[[Value], bool]:
    wanted = {set_item_key(item) for item in condition.values}
    found = condition.op in (Op.EQ, Op.IN)

    def holds(value: Value) -> bool:
        held = type(value) is list and any(set_item_key(item) in wanted for item in value)
        return held is found

    return holds


def compile_like(pattern: str) -> Callable[[str], bool]:
    """A matcher for `like`: case-insensitive, `%` any run. Linear in the text but for repeats."""
    first, *rest = pattern.casefold().split("%")
    if not rest:
        return lambda text: text.casefold() == first
    *middle, last = rest

    def like(text: str) -> bool:
        folded = text.casefold()
        position, end = len(first), len(folded) - len(last)
        if end < position or not folded.startswith(first) or not folded.endswith(last):
            return False
        for part in middle:
            found = folded.find(part, position, end)
            if found < 0:
                return False
            position = found + len(part)
        return True

    return like
