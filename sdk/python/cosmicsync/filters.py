"""Filters as MongoDB writes them, said in a node's filter language and judged here.

Room: pure functions. `translate` says as much of a filter as a node can be asked, `matches` judges a document by
all of it. What a node cannot be asked (`$regex`, `$exists`, null, …) is judged here, over what it answers; so a
translation lets through at least what the filter does.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cmp_to_key
from itertools import product
from typing import Any

from cosmicsync.documents import ModelShape
from cosmicsync.errors import BadRequest

Filter = Mapping[str, Any]

CONDITIONS_MAX = 64  # what a node takes in one filter
SIZE_MAX_BYTES = 8_192
_COMPARISONS = {"$eq": "eq", "$ne": "ne", "$gt": "gt", "$gte": "gte", "$lt": "lt", "$lte": "lte"}
_OPPOSITE = {"$eq": "$ne", "$ne": "$eq", "$in": "$nin", "$nin": "$in"}
_OPERATORS = frozenset(
    {*_COMPARISONS, "$in", "$nin", "$like", "$exists", "$regex", "$options", "$not", "$all", "$size"}
)
_ORDERLESS = frozenset({"json", "array"})  # fields that a node does not filter by

Group = tuple[str, ...]  # conditions that must all hold


@dataclass(frozen=True, slots=True)
class Translation:
    """`text` None lets everything through; without `is_exact`, answers are to be judged by `matches`.

    `is_empty` says that no document can match.
    """

    text: str | None
    is_exact: bool
    is_empty: bool = False


def translate(filter: Filter | None, model: ModelShape) -> Translation:
    """What a node can be asked of a filter. Raises `BadRequest` for an operator that is unknown."""
    if not filter:
        return Translation(None, True)
    check(filter)
    groups, is_exact = _groups(filter, model, negated=False)
    if not groups:
        return Translation(None, True, is_empty=True)
    text = "|".join(",".join(group) for group in groups)
    if () in groups:
        return Translation(None, is_exact)
    if sum(map(len, groups)) > CONDITIONS_MAX or len(text.encode()) > SIZE_MAX_BYTES:
        return Translation(_as_much_as_fits(filter, model), False)
    return Translation(text, is_exact)


def check(filter: object, where: str = "filter") -> None:
    """Raises `BadRequest` naming what is no filter."""
    if not isinstance(filter, Mapping):
        raise BadRequest("The filter is not valid", details={where: "Must be an object"})
    for name, wanted in filter.items():
        if name in ("$and", "$or", "$nor"):
            if not isinstance(wanted, Sequence) or isinstance(wanted, str) or not wanted:
                raise BadRequest("The filter is not valid", details={name: "Must be a list of filters"})
            for part in wanted:
                check(part, name)
        elif name.startswith("$"):
            raise BadRequest("The filter is not valid", details={name: "Unknown operator"})
        elif _is_operators(wanted):
            _check_operators(name, wanted)


def _check_operators(name: str, operators: Mapping[str, Any]) -> None:
    for operator, operand in operators.items():
        if operator not in _OPERATORS:
            raise BadRequest("The filter is not valid", details={name: f"Unknown operator {operator}"})
        if operator in ("$in", "$nin", "$all") and not isinstance(operand, (list, tuple, set, frozenset)):
            raise BadRequest("The filter is not valid", details={name: f"{operator} takes a list"})
        if operator == "$not":
            if not _is_operators(operand):
                raise BadRequest("The filter is not valid", details={name: "$not takes operators"})
            _check_operators(name, operand)


def _is_operators(wanted: object) -> bool:
    return isinstance(wanted, Mapping) and bool(wanted) and all(str(name).startswith("$") for name in wanted)


# -- to a node's language: a list of groups, any of which must hold -----------------------------------------


def _groups(filter: Filter, model: ModelShape, *, negated: bool) -> tuple[list[Group], bool]:
    """Groups that let through what the filter (or its opposite) does, and whether only that."""
    parts = [_part(name, wanted, model, negated) for name, wanted in filter.items()]
    return _any(parts) if negated else _all(parts)


def _part(name: str, wanted: Any, model: ModelShape, negated: bool) -> tuple[list[Group], bool]:
    if name == "$nor":
        name, negated = "$or", not negated
    if name in ("$and", "$or"):
        parts = [_groups(part, model, negated=negated) for part in wanted]
        return _all(parts) if (name == "$and") is not negated else _any(parts)
    operators = wanted if _is_operators(wanted) else {"$eq": wanted}
    parts = [
        _part(name, operand, model, not negated)
        if operator == "$not"
        else _condition(name, operator, operand, model, negated)
        for operator, operand in operators.items()
    ]
    return _any(parts) if negated else _all(parts)


def _all(parts: list[tuple[list[Group], bool]]) -> tuple[list[Group], bool]:
    is_exact = all(exact for _, exact in parts)
    if math.prod(len(groups) for groups, _ in parts) > CONDITIONS_MAX:
        short = [groups for groups, _ in parts if len(groups) == 1]
        return [sum((groups[0] for groups in short), ())], False
    joined = [sum(chosen, ()) for chosen in product(*(groups for groups, _ in parts))]
    return joined, is_exact


def _any(parts: list[tuple[list[Group], bool]]) -> tuple[list[Group], bool]:
    return [group for groups, _ in parts for group in groups], all(exact for _, exact in parts)


def _condition(
    name: str, operator: str, operand: Any, model: ModelShape, negated: bool
) -> tuple[list[Group], bool]:
    """One question about one field: a group of one condition, or of none where a node cannot be asked."""
    unsaid: tuple[list[Group], bool] = ([()], False)
    if negated:
        if operator not in _OPPOSITE:
            return unsaid  # the opposite of "greater" includes what has no value
        operator = _OPPOSITE[operator]
    field = model.spelt(name)
    kind = model.type_of(field)
    if "." in field or kind in _ORDERLESS or operator == "$options":
        return unsaid
    if operator in ("$in", "$nin"):
        if not operand:
            return ([], True) if operator == "$in" else ([()], True)
        values = [_said(value, kind) for value in operand]
        if None in values:
            return unsaid
        return [(f"{field}:{operator[1:]}:{';'.join(map(str, values))}",)], True
    if operator == "$like" or operator in _COMPARISONS:
        said = _said(operand, kind)
        if said is None:
            return unsaid
        return [(f"{field}:{_COMPARISONS.get(operator, 'like')}:{said}",)], True
    return unsaid


def _said(value: Any, kind: str | None) -> str | None:
    """A value in the filter language; None if it cannot be said there."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else None
    if isinstance(value, (date, datetime)):
        value = _moment(value, is_day=kind == "date")
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return None


def _moment(value: date | datetime, *, is_day: bool) -> str:
    if not isinstance(value, datetime):
        return value.isoformat()
    moment = value.astimezone(UTC)
    if is_day:
        return moment.date().isoformat()
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def _as_much_as_fits(filter: Filter, model: ModelShape) -> str | None:
    """The plain conditions of the outermost level, as many as a node takes."""
    kept: list[str] = []
    size = 0
    for name, wanted in filter.items():
        if name.startswith("$"):
            continue
        groups, _ = _part(name, wanted, model, negated=False)
        if len(groups) != 1:
            continue
        for condition in groups[0]:
            size += len(condition.encode()) + 1
            if size <= SIZE_MAX_BYTES and len(kept) < CONDITIONS_MAX:
                kept.append(condition)
            else:
                size -= len(condition.encode()) + 1
    return ",".join(kept) or None


# -- judged here --------------------------------------------------------------------------------------------


def matches(filter: Filter | None, document: Mapping[str, Any], model: ModelShape) -> bool:
    """Whether a document meets a filter, in full."""
    for name, wanted in (filter or {}).items():
        if name == "$and":
            met = all(matches(part, document, model) for part in wanted)
        elif name == "$or":
            met = any(matches(part, document, model) for part in wanted)
        elif name == "$nor":
            met = not any(matches(part, document, model) for part in wanted)
        else:
            value = _value_at(document, model.spelt(name))
            operators = wanted if _is_operators(wanted) else {"$eq": wanted}
            met = _meets(value, operators)
        if not met:
            return False
    return True


def _value_at(document: Mapping[str, Any], path: str) -> Any:
    value: Any = document
    for step in path.split("."):
        if isinstance(value, Mapping):
            value = value.get(step)
        elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value


def _meets(value: Any, operators: Mapping[str, Any]) -> bool:
    return all(_meets_one(value, name, operand, operators) for name, operand in operators.items())


def _meets_one(value: Any, operator: str, operand: Any, operators: Mapping[str, Any]) -> bool:
    match operator:
        case "$eq":
            return _equal(value, operand)
        case "$ne":
            return not _equal(value, operand)
        case "$in":
            return any(_equal(value, each) for each in operand)
        case "$nin":
            return not any(_equal(value, each) for each in operand)
        case "$exists":
            return (value is not None) is bool(operand)
        case "$not":
            return not _meets(value, operand)
        case "$regex":
            return _fits(value, operand, str(operators.get("$options", "")))
        case "$like":
            pattern = ".*".join(map(re.escape, str(operand).casefold().split("%")))
            return isinstance(value, str) and re.fullmatch(pattern, value.casefold(), re.DOTALL) is not None
        case "$all":
            return isinstance(value, list) and all(_equal(value, each) for each in operand)
        case "$size":
            return isinstance(value, list) and len(value) == operand
        case "$options":
            return True
    order = _compare(value, _same_form(value, operand))
    if order is None:
        return False
    return {"$gt": order > 0, "$gte": order >= 0, "$lt": order < 0, "$lte": order <= 0}[operator]


def _equal(value: Any, operand: Any) -> bool:
    operand = _same_form(value, operand)
    if isinstance(value, list) and not isinstance(operand, (list, tuple)):
        return any(_equal(each, operand) for each in value)
    if isinstance(value, bool) is not isinstance(operand, bool):
        return False
    return bool(value == (list(operand) if isinstance(operand, tuple) else operand))


def _same_form(value: Any, operand: Any) -> Any:
    """A moment in the form in which a node writes it."""
    if isinstance(operand, date):
        return _moment(operand, is_day=isinstance(value, str) and len(value) == len("2000-01-01"))
    return operand


def _compare(value: Any, operand: Any) -> int | None:
    """-1, 0 or 1; None where the two have no order between them."""
    numbers = isinstance(value, (int, float)) and isinstance(operand, (int, float))
    if isinstance(value, bool) or isinstance(operand, bool):
        numbers = False
    if not numbers and not (isinstance(value, str) and isinstance(operand, str)):
        return None
    return int(value > operand) - int(value < operand)


def _fits(value: Any, pattern: Any, options: str) -> bool:
    if not isinstance(value, str):
        return False
    flags = sum(
        flag
        for letter, flag in (("i", re.IGNORECASE), ("m", re.MULTILINE), ("s", re.DOTALL))
        if letter in options
    )
    return (pattern if isinstance(pattern, re.Pattern) else re.compile(pattern, flags)).search(
        value
    ) is not None


# -- order and projection -----------------------------------------------------------------------------------

Sort = Mapping[str, int] | Sequence[tuple[str, int]]


def sort_keys(sort: Sort | None, model: ModelShape) -> list[tuple[str, bool]]:
    """The fields to sort by, each with whether it falls. Raises `BadRequest`."""
    pairs = list(sort.items()) if isinstance(sort, Mapping) else list(sort or ())
    for name, direction in pairs:
        if direction not in (1, -1):
            raise BadRequest("The sort is not valid", details={name: "Must be 1 or -1"})
    return [(model.spelt(name), direction == -1) for name, direction in pairs]


def in_order(documents: Iterable[dict[str, Any]], keys: Sequence[tuple[str, bool]]) -> list[dict[str, Any]]:
    """Documents by several fields; what has no value comes first when rising, as a node has it."""

    def compare(one: dict[str, Any], other: dict[str, Any]) -> int:
        for name, falls in keys:
            a, b = one.get(name), other.get(name)
            if a is None or b is None:
                order = int(a is not None) - int(b is not None)
            else:
                order = _compare(a, b) or 0
            if order:
                return -order if falls else order
        return 0

    return sorted(documents, key=cmp_to_key(compare))


def projected(projection: Mapping[str, Any] | None, model: ModelShape) -> list[str] | None:
    """The fields that a projection leaves, None for all. Raises `BadRequest`, also where it has both kinds."""
    if not projection:
        return None
    chosen = {model.spelt(name): bool(wanted) for name, wanted in projection.items()}
    others = {name: wanted for name, wanted in chosen.items() if name != "id"}
    if len(set(others.values())) > 1:
        raise BadRequest(
            "The projection is not valid", details={"projection": "Either fields to show, or to hide"}
        )
    if True in others.values():
        return list(others)
    every = [*model.fields, "created_at", "updated_at", "created_by", "version"]
    return [name for name in every if name not in others] if others else None
