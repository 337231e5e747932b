"""Filters of GraphQL as filters of the API's own language.

Room: from the members of a `…Filter` to the text that `protocol.query_filter` reads, so that both mean the same and
are checked by the same code. `AND` and `OR` are worked out to what that language has: conditions joined by `,`, and
groups of them by `|`.

    { status: TODO, due_date_lt: "2031-01-01", OR: [{ votes_gt: 3 }, { title_like: "%now%" }] }
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from node.api.civicbase.graphql.names import free_name
from protocol.errors import QueryFault
from protocol.query_filter import CONDITIONS_MAX, META_KINDS, Kind, Op, kind_of
from protocol.schema import FieldType, Model

AND, OR = "AND", "OR"
_NEVER = 'id:eq:""'  # no document has this id
_ORDER = (Op.EQ, Op.NE, Op.IN, Op.NIN, Op.GT, Op.GTE, Op.LT, Op.LTE)
_EQUALITY = (Op.EQ, Op.NE, Op.IN, Op.NIN)
_OPERATORS: Mapping[Kind, tuple[Op, ...]] = {
    Kind.TEXT: (*_ORDER, Op.LIKE),
    Kind.INTEGER: _ORDER,
    Kind.NUMBER: _ORDER,
    Kind.BOOLEAN: _EQUALITY,
    Kind.SET: _EQUALITY,
}


class Member(NamedTuple):
    """One member of a filter: which question about which field."""

    name: str
    field: str
    op: Op


def members_of(model: Model) -> list[Member]:
    """What a filter of the model may hold beside `AND` and `OR`. A field by itself asks for the value, as `_eq`."""
    fields = [name for name in (*META_KINDS, *model.fields) if kind_of(name, model) in _OPERATORS]
    taken = {AND, OR}
    named: list[Member] = []
    for field in fields:
        named.append(Member(free_name(field, taken), field, Op.EQ))
        taken.add(named[-1].name)
    for field in fields:
        for op in _operators(field, model):
            named.append(Member(free_name(f"{field}_{op.value}", taken), field, op))
            taken.add(named[-1].name)
    return named


def _operators(field: str, model: Model) -> tuple[Op, ...]:
    described = model.fields.get(field)
    if described is not None and described.type is FieldType.ENUM:
        return (
            *_EQUALITY,
            Op.LIKE,
        )  # as the filter language: the order of options is not that of their letters
    kind = kind_of(field, model)
    return () if kind is None else _OPERATORS[kind]


def filter_text(given: Mapping[str, Any], members: Mapping[str, Member]) -> str | None:
    """The filter as text, None where it lets everything through. Raises `QueryFault` naming every fault."""
    faults: list[str] = []
    groups = _groups(given, members, faults)
    if faults:
        raise QueryFault({"filter": "; ".join(dict.fromkeys(faults))})
    if any(not group for group in groups):
        return None
    return "|".join(",".join(group) for group in groups) or _NEVER


_Groups = list[tuple[str, ...]]  # met when all conditions of any group are


def _groups(given: Mapping[str, Any], members: Mapping[str, Member], faults: list[str]) -> _Groups:
    groups: _Groups = [()]
    for name, value in given.items():
        if name == AND:
            for each in value or ():
                groups = _both(groups, _groups(each, members, faults), faults)
        elif name == OR:
            if value is not None:
                either = [group for each in value for group in _groups(each, members, faults)]
                groups = _both(groups, either, faults)
        elif value is None:
            faults.append(f"{name}: Must have a value")
        else:
            groups = _both(groups, _condition(members[name], value, faults), faults)
        if len(faults) > CONDITIONS_MAX:
            return []
    return groups


def _both(left: _Groups, right: _Groups, faults: list[str]) -> _Groups:
    size = sum(len(group) for group in left) * len(right) + sum(len(group) for group in right) * len(left)
    if size > CONDITIONS_MAX:
        faults.append(f"At most {CONDITIONS_MAX} conditions, once AND and OR are worked out")
        return left
    return [a + b for a in left for b in right]


def _condition(member: Member, value: Any, faults: list[str]) -> _Groups:
    if member.op not in (Op.IN, Op.NIN):
        return [(f"{member.field}:{member.op.value}:{_text(value)}",)]
    if None in value:
        faults.append(f"{member.name}: Must hold values")
        return [()]
    if not value:  # which nothing is in
        return [()] if member.op is Op.NIN else []
    return [(f"{member.field}:{member.op.value}:{_texts(value)}",)]


def _texts(values: Sequence[Any]) -> str:
    return ";".join(map(_text, values))


def _text(value: Any) -> str:
    """A value as the filter language writes it: numbers and booleans bare, so that sets find them."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
