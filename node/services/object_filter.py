"""The seed's query object as a filter expression: `{"createdBy": "u", "age": {"$gt": 18}}`.

Room: from objects to the text that `protocol.query_filter` reads. Fields are joined by AND; `$or` takes a list of
such objects. What cannot be said is a ValueError that names it.
"""

from collections.abc import Mapping
from typing import Any

OPERATORS = {f"${name}": name for name in ("eq", "ne", "gt", "gte", "lt", "lte", "in", "nin", "like")}
# The seed's spellings of what every record has (its snippets use both).
ALIASES = {"createdBy": "created_by", "createdAt": "created_at", "updatedAt": "updated_at", "_id": "id"}
GROUPS_MAX = 64  # as many conditions as a filter may have


def filter_text(where: Mapping[str, Any]) -> str | None:
    """The filter expression; None if every record passes. Raises ValueError."""
    groups = _groups(where)
    return "|".join(",".join(group) for group in groups) if all(groups) else None


def _groups(where: Mapping[str, Any]) -> list[list[str]]:
    """Alternatives, each a list of conditions that hold together."""
    groups: list[list[str]] = [[]]
    for name, asked in where.items():
        if name == "$or":
            if not isinstance(asked, list) or not asked:
                raise ValueError("$or takes a list of objects")
            alternatives = [group for one in asked for group in _groups(one)]
        else:
            alternatives = [_conditions(ALIASES.get(name, name), asked)]
        groups = [[*group, *more] for group in groups for more in alternatives]
        if len(groups) > GROUPS_MAX:
            raise ValueError(f"a query comes to more than {GROUPS_MAX} alternatives")
    return groups


def _conditions(field: str, asked: Any) -> list[str]:
    if not isinstance(asked, Mapping):
        asked = {"$in" if isinstance(asked, list) else "$eq": asked}
    conditions = []
    for operator, value in asked.items():
        if operator not in OPERATORS:
            raise ValueError(f"{field}: {operator} is none of {', '.join(OPERATORS)}")
        values = value if isinstance(value, list) else [value]
        conditions.append(f"{field}:{OPERATORS[operator]}:{';'.join(_value(field, one) for one in values)}")
    return conditions


def _value(field: str, value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str():
            return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    raise ValueError(f"{field}: a query compares with texts, numbers and booleans")
