"""Queries as values: a page of records, a sum over them.

Room: reads the parameters of a list request and the body of an aggregation into
`Query` and `Aggregation`, with every fault named at once, and writes and reads
the cursors that continue a page. The filter language is in `query_filter`. How a
query is answered is `storage.index`'s affair.
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from protocol.errors import QueryFault
from protocol.query_filter import META_KINDS, MOMENTS, Condition, Filter, Kind, Op, kind_of, parse_filter
from protocol.schema import META_FIELDS, FieldType, Model, Value
from protocol.schema_check import Fault, check_boolean, check_integer, check_number, check_string

__all__ = [
    "META_KINDS",
    "MOMENTS",
    "Aggregation",
    "Condition",
    "Cursor",
    "Filter",
    "Kind",
    "Measure",
    "Op",
    "Query",
    "decode_cursor",
    "encode_cursor",
    "kind_of",
    "measurable_fields",
    "parse_aggregation",
    "parse_filter",
    "parse_query",
    "read_whole",
    "sortable_fields",
]

PER_PAGE_DEFAULT = 20
PER_PAGE_MAX = 100
PAGE_MAX = 10_000_000
CURSOR_SIZE_MAX = 4096
CURSOR_VALUE_SIZE_MAX = 256  # longer sort values are looked up by id, so that a cursor fits in a URL
GROUP_BY_MAX = 8
MEASURES_MAX = 32

_SORTABLE = frozenset({Kind.TEXT, Kind.INTEGER, Kind.NUMBER, Kind.BOOLEAN})
_PROJECTABLE = frozenset({*META_FIELDS, "version_vector"})
_CURSOR_CHECKS = {
    Kind.TEXT: check_string,
    Kind.INTEGER: check_integer,
    Kind.NUMBER: check_number,
    Kind.BOOLEAN: check_boolean,
}
_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_WHOLE = re.compile(r"[0-9]{1,9}")
_ALIAS = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last record of a page: the next page starts behind it, whatever was added or deleted.

    With `by_id`, `value` is left out and is whatever the record of that id holds now.
    """

    sort: str
    descending: bool
    value: Value
    id: str
    by_id: bool = False


@dataclass(frozen=True, slots=True)
class Query:
    """Which records, in which order, which of them, and which of their fields (None: all).

    Records without a value in the sort field come first when rising, last when falling; records
    with equal values follow each other by id, in the same direction. With a cursor, `page` is 1.
    """

    filter: Filter | None = None
    sort: str = "created_at"
    descending: bool = True
    page: int = 1
    per_page: int = PER_PAGE_DEFAULT
    cursor: Cursor | None = None
    fields: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure of an aggregation: `count`, `sum`, `avg`, `min` or `max` of a field."""

    field: str
    operation: str
    alias: str


@dataclass(frozen=True, slots=True)
class Aggregation:
    """Figures over the records that meet a filter, one row for each group."""

    group_by: tuple[str, ...]
    measures: tuple[Measure, ...]
    filter: Filter | None = None


def parse_query(
    params: Mapping[str, str], model: Model, faults_before: Mapping[str, str] | None = None
) -> Query:
    """The query in a request's parameters; others than those of `Query` are left alone.

    Raises `QueryFault` naming every fault, by parameter, with those that were found before.
    """
    faults = dict(faults_before or {})
    sort, order = params.get("sort"), params.get("order")
    if sort is not None and (what := _unsortable(sort, model)):
        faults["sort"] = what
    if order is not None and order.lower() not in ("asc", "desc"):
        faults["order"] = "Invalid option. Must be one of: asc, desc"
    page = read_whole(params, "page", 1, PAGE_MAX, faults)
    per_page = read_whole(params, "per_page", PER_PAGE_DEFAULT, PER_PAGE_MAX, faults)
    filter_ = _read_filter(params.get("filter"), model, faults)
    fields = _read_projection(params.get("fields"), model, faults)

    by, descending = sort or "created_at", (order or "desc").lower() == "desc"
    cursor: Cursor | None = None
    if text := params.get("cursor"):
        try:
            cursor = decode_cursor(text, model)
        except QueryFault as fault:
            faults.update(fault.details)
        else:
            if (sort is not None and by != cursor.sort) or (
                order is not None and descending != cursor.descending
            ):
                faults["cursor"] = "Belongs to another sort order"
            if page != 1:
                faults["page"] = "Give either page or cursor"
            by, descending = cursor.sort, cursor.descending
    if faults:
        raise QueryFault(faults)
    return Query(filter_, by, descending, page, per_page, cursor, fields)


def parse_aggregation(body: object, model: Model) -> Aggregation:
    """The aggregation in a request's body. Raises `QueryFault` naming every fault, by path."""
    if not isinstance(body, Mapping):
        raise QueryFault({"aggregation": "Must be an object"})
    faults: dict[str, str] = {}
    for key in body:
        if key not in ("group_by", "aggregations", "filter"):
            faults[str(key)] = "Unknown attribute"
    group_by = _read_group_by(body.get("group_by"), model, faults)
    measures = _read_measures(body.get("aggregations"), group_by, model, faults)
    if not group_by and not measures and not faults:
        faults["aggregations"] = "This field is required"
    text = body.get("filter")
    filter_ = None
    if text is not None and not isinstance(text, str):
        faults["filter"] = "Must be a string"
    else:
        filter_ = _read_filter(text, model, faults)
    if faults:
        raise QueryFault(faults)
    return Aggregation(group_by, measures, filter_)


# --- cursors ---------------------------------------------------------------------------------------


def encode_cursor(sort: str, descending: bool, value: Value, id: str) -> str:
    """The opaque text that continues behind the record `id`, which has `value` in the sort field."""
    parts: list[Value] = [sort, int(descending), id]
    if not isinstance(value, str) or len(value.encode()) <= CURSOR_VALUE_SIZE_MAX:
        parts.append(value)
    return base64.urlsafe_b64encode(_to_json(parts).encode()).rstrip(b"=").decode()


def decode_cursor(text: str, model: Model) -> Cursor:
    """The cursor in a text. Raises `QueryFault` if it was not made by `encode_cursor` for this model."""
    fault = QueryFault({"cursor": "Not a cursor of this model"})
    if len(text) > CURSOR_SIZE_MAX or not text.isascii():
        raise fault
    try:
        packed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        parts = json.loads(packed)
    except (ValueError, binascii.Error, RecursionError):
        raise fault from None
    if not isinstance(parts, list) or len(parts) not in (3, 4):
        raise fault
    sort, descending, id = parts[:3]
    if not isinstance(sort, str) or _unsortable(sort, model) or type(descending) is not int:
        raise fault
    if descending not in (0, 1) or not isinstance(id, str) or isinstance(check_string(id), Fault):
        raise fault
    if len(parts) == 3:
        return Cursor(sort, bool(descending), None, id, by_id=True)
    value, kind = parts[3], kind_of(sort, model)
    if value is not None:
        value = _CURSOR_CHECKS[kind](value) if kind in _CURSOR_CHECKS else Fault()
    if isinstance(value, Fault):
        raise fault
    return Cursor(sort, bool(descending), value, id)


# --- parameters ------------------------------------------------------------------------------------


def _unsortable(name: str, model: Model) -> str | None:
    """Why records cannot be sorted or grouped by a field, or None if they can."""
    kind = kind_of(name, model)
    if kind is None:
        return "Unknown field"
    return None if kind in _SORTABLE else f"A {kind.value} field has no order"


def sortable_fields(model: Model) -> list[str]:
    """The fields by which records can be sorted and grouped."""
    return [name for name in (*META_KINDS, *model.fields) if _unsortable(name, model) is None]


def measurable_fields(operation: str, model: Model) -> list[str]:
    """The fields that an operation of an aggregation applies to."""
    return [name for name in (*META_KINDS, *model.fields) if _unmeasurable(operation, name, model) is None]


def _unmeasurable(operation: object, name: str, model: Model) -> str | None:
    """Why an operation does not apply to a field, or None if it does."""
    kind = kind_of(name, model)
    if kind is None:
        return "Unknown field"
    if name in model.encrypted:
        return "An encrypted field cannot be aggregated"
    if operation in ("sum", "avg") and not _is_summable(name, model):
        return f"{operation} needs an integer, number or counter field"
    if operation in ("min", "max") and (kind not in _SORTABLE or kind is Kind.BOOLEAN):
        return f"{operation} needs a field with an order"
    return None


def read_whole(params: Mapping[str, str], name: str, default: int, most: int, faults: dict[str, str]) -> int:
    """A parameter that is a whole number from 1 to `most`; what is wrong with it goes to `faults`."""
    text = params.get(name)
    if text is None:
        return default
    number = int(text) if _WHOLE.fullmatch(text) else 0
    if not 1 <= number <= most:
        faults[name] = f"Must be an integer from 1 to {most}"
    return number


def _read_filter(text: str | None, model: Model, faults: dict[str, str]) -> Filter | None:
    if not text or text.isspace():
        return None
    try:
        return parse_filter(text, model)
    except QueryFault as fault:
        faults.update(fault.details)
        return None


def _read_projection(text: str | None, model: Model, faults: dict[str, str]) -> tuple[str, ...] | None:
    if not text or text.isspace():
        return None
    names = list(dict.fromkeys(name for part in text.split(",") if (name := part.strip())))
    unknown = [name for name in names if name not in model.fields and name not in _PROJECTABLE]
    if unknown:
        faults["fields"] = f"Unknown field: {', '.join(name[:64] for name in unknown[:20])}"
    return tuple(names) or None


def _read_group_by(given: object, model: Model, faults: dict[str, str]) -> tuple[str, ...]:
    if given is None:
        return ()
    if not isinstance(given, list) or not all(isinstance(name, str) for name in given):
        faults["group_by"] = "Must be a list of fields"
        return ()
    if len(given) > GROUP_BY_MAX:
        faults["group_by"] = f"Must hold at most {GROUP_BY_MAX} fields"
        return ()
    for number, name in enumerate(given):
        if what := _unsortable(name, model):
            faults[f"group_by[{number}]"] = what
        elif name in given[:number]:
            faults[f"group_by[{number}]"] = f"{name} is listed twice"
    return tuple(given)


_OPERATIONS = ("count", "sum", "avg", "min", "max")


def _read_measures(
    given: object, group_by: tuple[str, ...], model: Model, faults: dict[str, str]
) -> tuple[Measure, ...]:
    if given is None:
        return ()
    if not isinstance(given, list) or len(given) > MEASURES_MAX:
        faults["aggregations"] = f"Must be a list of at most {MEASURES_MAX} aggregations"
        return ()
    measures: list[Measure] = []
    taken = set(group_by)
    for number, entry in enumerate(given):
        path = f"aggregations[{number}]"
        if not isinstance(entry, Mapping):
            faults[path] = "Must be an object with field, operation and alias"
            continue
        measure = _read_measure(entry, path, model, faults)
        if measure is None:
            continue
        if measure.alias in taken:
            faults[f"{path}.alias"] = f"{measure.alias} is taken"
        taken.add(measure.alias)
        measures.append(measure)
    return tuple(measures)


def _read_measure(
    entry: Mapping[Any, Any], path: str, model: Model, faults: dict[str, str]
) -> Measure | None:
    faults_before = len(faults)
    for key in entry:
        if key not in ("field", "operation", "alias"):
            faults[f"{path}.{key}"] = "Unknown attribute"
    operation = entry.get("operation")
    if operation not in _OPERATIONS:
        faults[f"{path}.operation"] = f"Invalid option. Must be one of: {', '.join(_OPERATIONS)}"
    name = entry.get("field", "id" if operation == "count" else None)
    if name is None:
        faults[f"{path}.field"] = "This field is required"
    elif not isinstance(name, str):
        faults[f"{path}.field"] = "Must be the name of a field"
    elif what := _unmeasurable(operation, name, model):
        faults[f"{path}.field"] = what
    alias = entry.get("alias", f"{operation}_{name}")
    if not isinstance(alias, str) or not _ALIAS.fullmatch(alias):
        faults[f"{path}.alias"] = "Must be a name of letters, digits and underscores"
    if len(faults) != faults_before:
        return None
    return Measure(str(name), str(operation), str(alias))


def _is_summable(name: str, model: Model) -> bool:
    field = model.fields.get(name)
    return field is not None and field.type in (FieldType.INTEGER, FieldType.NUMBER, FieldType.COUNTER)
