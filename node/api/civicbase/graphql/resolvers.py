"""What the root fields do: the same reads and writes as `/v1/data`, by the same rules.

Room: from arguments to calls of `services.records`, with the caller's rights. Errors are those of the API. Records
are handed on as they are rendered; what is selected of them is `selection`'s.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphql import GraphQLResolveInfo

from node.api.civicbase.data import new_instance, opened, raise_if_anothers, raise_unless_creator, write_guard
from node.api.civicbase.graphql.filters import filter_text
from node.api.civicbase.graphql.schema import RecordType, Resolve
from node.api.errors import ValidationFailed
from node.api.routes import Caller
from node.services.permissions import Permissions
from node.services.records import Found, Records, Rendered
from protocol.errors import QueryFault
from protocol.query import Query, parse_query
from protocol.schema import Model

Resolver = Callable[..., Awaitable[Any]]
Info = GraphQLResolveInfo[Any]


class Rows(list[Rendered]):
    """Records of one type, as the executor knows them from any other list."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What resolvers know of the request they work for."""

    caller: Caller
    records: Records
    permissions: Permissions

    def readable(self, type: RecordType, ids: Sequence[str]) -> dict[str, Rendered]:
        """As `selection.Reader`."""
        model, check = type.model, self.permissions.check
        if not self.permissions.may_ever(self.caller, model, "read"):
            return {}
        found = self.records.rendered_by_id(model, ids)
        return {
            id: self.opened(type, shown)
            for id, shown in found.items()
            if check(self.caller, model, "read", shown)
        }

    def opened(self, type: RecordType, document: Rendered) -> Rendered:
        """As `selection.Reader`."""
        is_sealed = type.model.encrypted
        return opened(self.records, self.caller, type.model, document) if is_sealed else document


def make_resolve(models: Sequence[Model], cursor: Callable[[], str]) -> Resolve:
    """What root fields do, for `build_schema`. `cursor` tells where the feed of changes stands."""
    names = sorted(model.name for model in models)
    return Resolve(
        many=_many,
        page=_page,
        one=_one,
        create=_create,
        update=_update,
        delete=_delete,
        models=lambda _root, _info: names,
        cursor=lambda _root, _info: cursor(),
    )


def read_list(type: RecordType, arguments: Mapping[str, Any]) -> Query:
    """Arguments of a list as `GET /v1/data/{model}` has them. Raises `QueryFault` naming every fault."""
    asked = {name: str(arguments[name]) for name in ("page", "per_page") if arguments.get(name) is not None}
    if arguments.get("cursor") is not None:
        asked["cursor"] = arguments["cursor"]
    if (sort := arguments.get("sort")) is not None:
        asked |= {"sort": sort["field"], "order": sort["order"] or "desc"}
    faults: dict[str, str] = {}
    try:
        text = filter_text(arguments.get("filter") or {}, type.members)
        asked |= {} if text is None else {"filter": text}
    except QueryFault as fault:
        faults |= fault.details
    try:
        query = parse_query(asked, type.model)
    except QueryFault as fault:
        faults |= fault.details
    if faults:
        raise QueryFault(faults)
    return query


async def _find(type: RecordType, asked: Asked, arguments: Mapping[str, Any]) -> tuple[Query, Found]:
    query = read_list(type, arguments)
    limit = asked.permissions.reading(asked.caller, type.model)
    found = await asked.records.find(type.model, query, limit)
    if type.model.encrypted:
        found = found._replace(documents=[asked.opened(type, document) for document in found.documents])
    return query, found


def _many(type: RecordType) -> Resolver:
    async def resolve(_root: Any, info: Info, **arguments: Any) -> Rows:
        _, found = await _find(type, info.context, arguments)
        return Rows(found.documents)

    return resolve


def _page(type: RecordType) -> Resolver:
    async def resolve(_root: Any, info: Info, **arguments: Any) -> dict[str, Any]:
        query, found = await _find(type, info.context, arguments)
        return {
            "items": Rows(found.documents),
            "total": found.total,
            "page": query.page,
            "per_page": query.per_page,
            "next_cursor": found.next_cursor,
        }

    return resolve


def _one(type: RecordType) -> Callable[..., Rendered | None]:
    def resolve(_root: Any, info: Info, *, id: str) -> Rendered | None:
        asked: Asked = info.context
        shown = asked.records.rendered(type.model, id)
        if shown is not None or not asked.permissions.may_ever(asked.caller, type.model, "read"):
            asked.permissions.raise_unless(asked.caller, type.model, "read", shown)
        return None if shown is None else asked.opened(type, shown)

    return resolve


def _create(type: RecordType) -> Resolver:
    model = type.model

    async def resolve(_root: Any, info: Info, *, input: dict[str, Any]) -> Rendered | None:
        asked: Asked = info.context
        raise_unless_creator(asked.permissions, asked.caller, model)
        id, values = new_instance(model, dict(input))
        raise_unless_creator(asked.permissions, asked.caller, model, values)
        if id is not None:
            raise_if_anothers(asked.records, asked.caller, model, id)
        record = await asked.records.create(model, values, user=asked.caller.user_id or "", id=id)
        made = asked.records.rendered(model, record.id)  # it is theirs who gave every value of it
        return None if made is None else asked.opened(type, made)

    return resolve


def _update(type: RecordType) -> Resolver:
    model = type.model

    async def resolve(
        _root: Any,
        info: Info,
        *,
        id: str,
        input: dict[str, Any],
        edits: Sequence[Mapping[str, Any]] | None = None,
        version: str | None = None,
    ) -> Rendered | None:
        asked: Asked = info.context
        guard = write_guard(asked.permissions, asked.caller, model, "update")
        given, twice = _with_edits(input, edits or ())
        values, faults = model.check_update(given)
        faults |= twice
        if faults:
            raise ValidationFailed(faults)
        user = asked.caller.user_id or ""
        await asked.records.update(model, id, values, user=user, if_match=version, guard=guard)
        return asked.readable(type, [id]).get(id)

    return resolve


def _with_edits(
    input: Mapping[str, Any], edits: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Values and edits as `PUT` takes them, in one object; and what is given more than once."""
    given, twice = dict(input), {}
    for edit in edits:
        name = edit["field"]
        if name in given:
            twice[name] = "Given more than once"
        given[name] = {"ops": edit["ops"], "base_version": edit["base_version"]}
    return given, twice


def _delete(type: RecordType) -> Resolver:
    model = type.model

    async def resolve(_root: Any, info: Info, *, id: str, version: str | None = None) -> Rendered | None:
        asked: Asked = info.context
        guard = write_guard(asked.permissions, asked.caller, model, "delete")
        before = asked.readable(type, [id]).get(id)
        user = asked.caller.user_id or ""
        await asked.records.delete(model, id, user=user, if_match=version, guard=guard)
        return before

    return resolve
