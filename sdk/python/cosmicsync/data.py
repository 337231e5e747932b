"""Models and instances: the seed's `createInstance`, `query` and their kin, asked of a node.

Room: from what an app says to requests, and from answers to documents. Hooks run here, around each write. What is
done without a node is `offline`'s.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from cosmicsync.documents import Document, ModelShape, shape_of, to_json
from cosmicsync.errors import BadRequest, Conflict, Forbidden, NotFound, NotOffered, Unauthorized
from cosmicsync.filters import Filter, Sort, in_order, matches, projected, sort_keys, translate
from cosmicsync.hooks import Context, Hooks
from cosmicsync.transport import Answer, Transport, new_key

PAGE_MAX = 100
SHAPE_FOR_S = 60.0  # a definition is asked for again after so long


def path_of(model: str, id: str | None = None) -> str:
    """The path of a model's instances, or of one."""
    tail = "" if id is None else f"/{quote(id, safe='')}"
    return f"/v1/data/{quote(model, safe='')}{tail}"


class Data:
    """One node's data, as the signed-in user may see it."""

    def __init__(self, transport: Transport, hooks: Hooks, client: Any) -> None:
        self._transport = transport
        self._hooks = hooks
        self._client = client
        self._shapes: dict[str, tuple[float, ModelShape]] = {}

    # -- models

    async def define_model(self, name: str, definition: Mapping[str, Any]) -> dict[str, Any]:
        """Define a model, or let it grow: what it has already stays. -> its definition."""
        path = f"/v1/data-models/{quote(name, safe='')}"
        given = {"name": name, "fields": {}, **definition}
        try:
            await self._transport.ask("POST", "/v1/data-models", given)
        except Conflict:
            pass  # it exists: what is new is added
        except Exception:
            if await self._definition(name) is None:
                raise
        else:
            self._shapes.pop(name, None)
            return dict((await self._transport.ask("GET", path)).body)
        now = (await self._transport.ask("GET", path)).body
        grown = {**now, **{key: value for key, value in given.items() if key not in ("fields", "indexes")}}
        grown["fields"] = _joined_fields(now["fields"], given["fields"])
        grown["indexes"] = _joined_indexes(now.get("indexes", []), given.get("indexes") or [])
        self._shapes.pop(name, None)
        return dict((await self._transport.ask("PUT", path, grown)).body)

    async def _definition(self, name: str) -> dict[str, Any] | None:
        try:
            return dict((await self._transport.ask("GET", f"/v1/data-models/{quote(name, safe='')}")).body)
        except NotFound:
            return None

    async def set_strategy(self, model: str, strategy: str) -> None:
        """Let the node bring values together by a strategy of its own (`lww`, `merge`, `manual`, …)."""
        await self.define_model(model, {"conflict_strategy": strategy})

    async def shape(self, model: str) -> ModelShape:
        """The types of a model's fields, asked for once a minute at most."""
        known = self._shapes.get(model)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        try:
            answer = await self._transport.ask("GET", f"/v1/data-models/{quote(model, safe='')}")
            shape = shape_of(answer.body)
        except (Unauthorized, Forbidden):
            shape = ModelShape(
                model, is_known=False
            )  # a public model: its values say enough for most filters
        self._shapes[model] = (time.monotonic() + SHAPE_FOR_S, shape)
        return shape

    # -- one instance

    async def create(
        self, model: str, data: Mapping[str, Any], *, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """-> `id`, `instance_id`, `version`, `message`, and `held_by_peers` where that was waited for.

        A repetition after a lost answer makes no second one.
        """
        context = Context("create", model, data.get("id"), data, None, self._client)
        data = await self._hooks.before(context)
        id = str(data.get("id") or new_key())
        try:
            answer = await self._transport.ask(
                "POST", path_of(model), {**data, "id": id}, headers=headers, is_repeatable=True
            )
        except Conflict as refusal:
            if "id" in data or refusal.details:
                raise
            # Nobody else knows this id: an earlier try, whose answer was lost, has made it.
            answer = await self._transport.ask("GET", path_of(model, id))
        if self._hooks.has_after(model, "create"):
            await self._hooks.after(context, {**data, "id": id, "version": answer.version})
        message = "Instance created successfully"
        told = {"id": id, "instance_id": id, "version": answer.version, "message": message}
        return {**told, **_held_by(answer)}

    async def get(self, model: str, id: str) -> Document:
        """Raises `NotFound`."""
        return self._hooks.document(model, (await self._transport.ask("GET", path_of(model, id))).body)

    async def update(
        self,
        model: str,
        id: str,
        changes: Mapping[str, Any],
        *,
        if_match: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Change the given fields. -> `id`, `version`, `message`, `held_by_peers` where that was waited for.

        Raises `PreconditionFailed` if it is another version than `if_match`.
        """
        context = Context("update", model, id, changes, None, self._client)
        if self._hooks.needs_previous(model, "update"):
            context = Context("update", model, id, changes, await self.get(model, id), self._client)
        changes = await self._hooks.before(context)
        answer = await self._put(model, id, changes, {**(headers or {}), **_guard(if_match)})
        if self._hooks.has_after(model, "update"):
            await self._hooks.after(context, await self.get(model, id))
        return {**answer.body, "id": id, "version": answer.version, **_held_by(answer)}

    async def _put(self, model: str, id: str, changes: Mapping[str, Any], headers: dict[str, str]) -> Answer:
        # Operations on a text or a list say what to do, not what shall be: done twice they are another edit.
        has_edits = any(isinstance(value, Mapping) and "ops" in value for value in changes.values())
        return await self._transport.ask(
            "PUT", path_of(model, id), changes, headers=headers, is_repeatable=False if has_edits else None
        )

    async def delete(
        self, model: str, id: str, *, if_match: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        """Raises `NotFound`, `PreconditionFailed`."""
        context = Context("delete", model, id, {}, None, self._client)
        if self._hooks.needs_previous(model, "delete") or self._hooks.has_after(model, "delete"):
            context = Context("delete", model, id, {}, await self.get(model, id), self._client)
        await self._hooks.before(context)
        await self._transport.ask(
            "DELETE", path_of(model, id), headers={**(headers or {}), **_guard(if_match)}
        )
        await self._hooks.after(context, context.previous or {"id": id})

    # -- many

    async def query(
        self,
        model: str,
        filter: Filter | str | None = None,
        *,
        skip: int = 0,
        limit: int | None = None,
        sort: Sort | None = None,
        projection: Mapping[str, Any] | None = None,
    ) -> list[Document]:
        """Instances that meet a filter, in order. Without `limit` all of them, a page at a time.

        `filter` is MongoDB's (`$gt`, `$in`, `$or`, …) or a text in the node's own language. What a node cannot be
        asked (`$regex`, `$exists`, several sort fields) is judged here, over what it answers.
        """
        if limit is not None and limit <= 0:
            return []
        shape = await self.shape(model)
        keys, fields = sort_keys(sort, shape), projected(projection, shape)
        query: dict[str, str] = {}
        is_exact = True
        if isinstance(filter, str):
            query["filter"] = filter
        else:
            asked = translate(filter, shape)
            if asked.is_empty:
                return []
            is_exact = asked.is_exact
            if asked.text is not None:
                query["filter"] = asked.text
        if len(keys) == 1:
            query |= {"sort": keys[0][0], "order": "desc" if keys[0][1] else "asc"}
        if is_exact and len(keys) < 2:
            if fields is not None:
                query["fields"] = ",".join(fields)
            found = await self._window(model, query, skip, limit)
        else:
            enough = None if limit is None or len(keys) > 1 else skip + limit
            every = await self._judged(model, query, filter, shape, enough)
            if len(keys) > 1:
                every = in_order(every, keys)
            found = every[skip : None if limit is None else skip + limit]
            if fields is not None:
                found = [{name: item[name] for name in ("id", *fields) if name in item} for item in found]
        return [self._hooks.document(model, item) for item in found]

    async def _judged(
        self, model: str, query: dict[str, str], filter: Any, shape: ModelShape, enough: int | None
    ) -> list[dict[str, Any]]:
        met: list[dict[str, Any]] = []
        cursor: str | None = None
        while enough is None or len(met) < enough:
            page = await self._page(model, query, per_page=PAGE_MAX, cursor=cursor)
            met += [item for item in page["items"] if isinstance(filter, str) or matches(filter, item, shape)]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        return met

    async def _window(
        self, model: str, query: dict[str, str], skip: int, limit: int | None
    ) -> list[dict[str, Any]]:
        """So many from so far on: one page where it can be one, else the pages that follow."""
        per_page = min(PAGE_MAX, limit or PAGE_MAX)
        if skip:
            per_page = next(size for size in range(per_page, 0, -1) if skip % size == 0)
        page = await self._page(model, query, per_page=per_page, page=skip // per_page + 1)
        found = list(page["items"])
        while page["next_cursor"] is not None and (limit is None or len(found) < limit):
            left = PAGE_MAX if limit is None else min(PAGE_MAX, limit - len(found))
            page = await self._page(model, query, per_page=left, cursor=page["next_cursor"])
            found += page["items"]
        return found[:limit]

    async def _page(
        self, model: str, query: dict[str, str], *, per_page: int, page: int = 1, cursor: str | None = None
    ) -> dict[str, Any]:
        asked = {**query, "per_page": str(per_page)}
        if cursor is not None:
            asked["cursor"] = cursor
        elif page > 1:
            asked["page"] = str(page)
        return dict((await self._transport.ask("GET", path_of(model), query=asked)).body)

    async def aggregate(self, model: str, pipeline: Mapping[str, Any]) -> list[dict[str, Any]]:
        """`group_by`, `aggregations`, and a `filter` as text or as MongoDB's. -> one row for each group.

        Raises `NotOffered` for a filter that the node cannot be asked.
        """
        body = dict(pipeline)
        if isinstance(body.get("filter"), Mapping):
            asked = translate(body.pop("filter"), await self.shape(model))
            if asked.is_empty or not asked.is_exact:
                raise NotOffered("A node cannot aggregate by this filter")
            if asked.text is not None:
                body["filter"] = asked.text
        return list(
            (await self._transport.ask("POST", f"{path_of(model)}/aggregate", body, is_repeatable=True)).body
        )

    async def named_query(self, model: str, name: str, parameters: Mapping[str, Any]) -> Any:
        """What a query method of a plugin answers. Raises `NotFound` if none has it."""
        path = f"{path_of(model)}/queries/{quote(name, safe='')}"
        return (await self._transport.ask("GET", path, query=_texts(parameters))).body

    async def call_method(self, model: str, id: str, name: str, parameters: Mapping[str, Any]) -> Any:
        """What a model method of a plugin answers for an instance."""
        path = f"{path_of(model, id)}/methods/{quote(name, safe='')}"
        return (await self._transport.ask("GET", path, query=_texts(parameters))).body

    async def graphql(self, query: str, variables: Mapping[str, Any] | None) -> Any:
        body = {"query": query, **({} if variables is None else {"variables": variables})}
        answer = (await self._transport.ask("POST", "/v1/graphql", body)).body
        if answer.get("errors"):
            first = answer["errors"][0]
            code = first.get("extensions", {}).get("error_code")
            raise BadRequest(first["message"], error_code=code, body=answer)
        return answer.get("data")

    async def batch(
        self,
        operations: Sequence[Mapping[str, Any]],
        *,
        atomic: bool = True,
        versions: bool = False,
        key: str | None = None,
    ) -> list[dict[str, Any]]:
        """Operations as `POST /v1/batch` takes them, all or none unless `atomic` is false.

        -> `status` and `body` of each, and with `versions` the `version` that it has made.
        """
        if not operations:
            return []
        asked = {"operations": list(operations), "atomic": atomic, "versions": versions}
        return list((await self._transport.ask("POST", "/v1/batch", asked, key=key)).body["results"])

    async def batch_update(self, updates: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Updates `{"modelName", "instanceId", "updates"}`, stored all together or not at all."""
        operations: list[dict[str, Any]] = []
        for update in list(updates):
            model = update.get("modelName", update.get("model_name"))
            id = update.get("instanceId", update.get("instance_id"))
            context = Context("update", str(model), str(id), update["updates"], None, self._client)
            if self._hooks.needs_previous(context.model, "update"):
                previous = await self.get(context.model, str(id))
                context = Context("update", context.model, str(id), update["updates"], previous, self._client)
            changes = await self._hooks.before(context)
            path = path_of(context.model, str(id)).removeprefix("/v1")
            operations.append({"method": "PUT", "path": path, "body": changes})
        return await self.batch(operations)


def _texts(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Parameters as a query string has them."""
    return {name: value if isinstance(value, str) else to_json(value) for name, value in parameters.items()}


def _guard(if_match: str | None) -> dict[str, str]:
    return {} if if_match is None else {"If-Match": f'"{if_match}"'}


def _held_by(answer: Answer) -> dict[str, int]:
    """What the node says of how many others hold a write, if it was asked."""
    count = answer.headers.get("X-Held-By-Peers")
    return {} if count is None else {"held_by_peers": int(count)}


def _joined_fields(now: Sequence[Mapping[str, Any]], given: Any) -> list[dict[str, Any]]:
    """The fields that there are, with what is given for them, and those that are new."""
    if isinstance(given, Mapping):
        entries = {n: {"name": n, **(v if isinstance(v, Mapping) else {"type": v})} for n, v in given.items()}
    else:
        entries = {entry["name"]: dict(entry) for entry in given}
    joined = {entry["name"]: dict(entry) for entry in now}
    for name, entry in entries.items():
        joined[name] = {**joined.get(name, {}), **entry}
    return list(joined.values())


def _joined_indexes(
    now: Sequence[Mapping[str, Any]], given: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    def place(index: Mapping[str, Any]) -> list[tuple[str, int]]:
        return [(name, index["key"][name]) for name in index.get("order", index["key"])]

    kept = [dict(index) for index in now if all(place(index) != place(other) for other in given)]
    return kept + [dict(index) for index in given]
