"""`AsyncCosmicSync`: everything an app asks of its node, under the names of the seed's examples.

Room: the face of this library. Each method says what it takes and gives back; the work is done by `data`,
`offline`, `accounts` and `realtime`. `blocking.CosmicSync` has the same methods for code without an event loop.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import FormData

from cosmicsync.accounts import Accounts
from cosmicsync.data import Data
from cosmicsync.documents import Document
from cosmicsync.errors import Closed
from cosmicsync.filters import Filter, Sort
from cosmicsync.hooks import Hook, Hooks, call_here
from cosmicsync.offline import Changes, LocalChange, Offline, SyncResult, told
from cosmicsync.realtime import Event, Subscription
from cosmicsync.store import MEMORY, Store
from cosmicsync.transport import Answer, RateLimit, Tokens, Transport

DEFAULT_URL = "http://127.0.0.1:8080"
CACHE_FOR_S = 60.0
CACHED_MAX = 10_000
_CURSOR = "cursor:"

log = logging.getLogger("cosmicsync")


class AsyncCosmicSync:
    """One node, one user, one local store.

    `token` is of a sign-in or of the owner, `token_file` the owner's in the node's data directory. `store` is the
    file that keeps queue and local copies; without one they live as long as the process.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        token: str | None = None,
        token_file: str | Path | None = None,
        store: str | Path = MEMORY,
        application: str | None = None,
        timeout_s: float = 30.0,
        rate_limit_wait_max_s: float = 5.0,
        on_tokens: Callable[[Tokens | None], None] | None = None,
        _hooks: Hooks | None = None,
        _client: Any = None,
    ) -> None:
        self._transport = Transport(
            url,
            token=token,
            token_file=token_file,
            application=application,
            timeout_s=timeout_s,
            rate_limit_wait_max_s=rate_limit_wait_max_s,
            on_tokens=on_tokens,
        )
        shown = self if _client is None else _client
        self._hooks = _hooks or Hooks(call_here)
        self._data = Data(self._transport, self._hooks, shown)
        self._offline = Offline(Store(store), self._transport, self._data, self._hooks, shown)
        self._subscriptions: list[Subscription] = []
        self._cached: dict[str, tuple[float, Any]] = {}
        self.auth = Accounts(self._transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End subscriptions, connections, and whatever waits for the node, which raises `Closed`. Nothing more is sent;
        what is queued stays in the store."""
        self._transport.end()
        for subscription in self._subscriptions:
            await subscription.close()
        await self._offline.close()
        await self._transport.close()

    @property
    def rate_limit(self) -> RateLimit | None:
        """What the last answer said of it."""
        return self._transport.rate_limit

    async def request(
        self, method: str, path: str, body: Any = None, *, query: Mapping[str, str] | None = None
    ) -> Answer:
        """Any request of the node's API, with token, retries and errors as all others."""
        return await self._transport.ask(method, path, body, query=query)

    # -- models and instances

    async def define_model(
        self, /, name: str, definition: Mapping[str, Any] | None = None, **attributes: Any
    ) -> dict[str, Any]:
        """Define a model, or add to it: `fields` (name to type or attributes), `indexes`, `conflict_strategy`, …"""
        return await self._data.define_model(name, {**(definition or {}), **attributes})

    async def create_instance(
        self, model: str, data: Mapping[str, Any], *, wait_for_peers: int | None = None
    ) -> dict[str, Any]:
        """-> `id` (also as `instance_id`), `version`, `message`. A retry never makes two.

        `wait_for_peers`: wait until so many other devices hold it, too (`Prefer: wait=peers:k`), some seconds at most;
        `held_by_peers` says how many do.
        """
        return await self._data.create(model, data, headers=_prefer(wait_for_peers))

    async def get_instance(self, model: str, id: str) -> Document:
        """Raises `NotFound`."""
        found = await self._data.get(model, id)
        await self._offline.take_remote(model, id, found)
        return found

    async def update_instance(
        self,
        model: str,
        id: str,
        updates: Mapping[str, Any],
        *,
        if_match: str | None = None,
        wait_for_peers: int | None = None,
    ) -> dict[str, Any]:
        """Change the given fields. -> `version`, `message`. Raises `NotFound`, `PreconditionFailed`, `BadRequest`.

        `wait_for_peers` as in `create_instance`.
        """
        return await self._data.update(model, id, updates, if_match=if_match, headers=_prefer(wait_for_peers))

    async def delete_instance(self, model: str, id: str, *, if_match: str | None = None) -> None:
        """Raises `NotFound`, `PreconditionFailed`."""
        await self._data.delete(model, id, if_match=if_match)
        await self._offline.take_remote(model, id, None)

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
        """Instances that meet a filter, MongoDB's (`$gt`, `$in`, `$or`, …) or the node's own text; all without
        `limit`."""
        return await self._data.query(model, filter, skip=skip, limit=limit, sort=sort, projection=projection)

    async def aggregate(self, model: str, aggregation: Mapping[str, Any]) -> list[dict[str, Any]]:
        """`group_by`, `aggregations`, `filter`. -> one row for each group."""
        return await self._data.aggregate(model, aggregation)

    async def batch_update(self, updates: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Updates `{"modelName", "instanceId", "updates"}`: all of them, or none."""
        return await self._data.batch_update(updates)

    async def batch(
        self, operations: Sequence[Mapping[str, Any]], *, atomic: bool = True, versions: bool = False
    ) -> list[dict[str, Any]]:
        """Operations `{"method", "path", "body"}` as `POST /v1/batch` takes them. -> `status` and `body` of each, and
        with `versions` its `version`."""
        return await self._data.batch(operations, atomic=atomic, versions=versions)

    # -- offline

    async def store_locally(
        self, model: str, id: str, data: Mapping[str, Any], *, ttl_s: float | None = None
    ) -> None:
        """Keep a copy here, for so long; on disk when this returns."""
        await self._offline.put(model, id, data, ttl_s)

    async def get_local_data(self, model: str, id: str) -> dict[str, Any] | None:
        """The local copy, with what waits in the queue applied; None if there is none, or its time is over."""
        return await self._offline.get(model, id)

    async def query_local(
        self,
        model: str,
        filter: Filter | None = None,
        *,
        skip: int = 0,
        limit: int | None = None,
        sort: Sort | None = None,
    ) -> list[Document]:
        """The local copies that meet a filter, with what waits in the queue applied: no node is asked."""
        return await self._offline.query(model, filter, skip=skip, limit=limit, sort=sort)

    async def clear_local_data(self, owner: str | None = None) -> int:
        """Forget local copies: all, or those of the user or instance of this id. -> how many. The queue stays."""
        return await self._offline.clear(owner)

    def watch_local(
        self, model: str, watcher: Callable[[LocalChange], Any], *, id: str | None = None
    ) -> Callable[[], None]:
        """Hear whenever the local view changes: at once when an action is queued, again when the node has taken it in
        or refused it. -> a function that ends it."""
        return self._offline.watch(model, id, watcher)

    async def queue_offline_action(
        self, /, action: Mapping[str, Any] | None = None, **members: Any
    ) -> dict[str, Any]:
        """Queue `{"type": create|update|delete, "modelId", "instanceId", "data"}`; it survives restart and crash.

        The local view shows it at once. -> the action with its `id` and `instance_id`.
        """
        given = {**(action or {}), **members}
        model = given.get("modelId", given.get("model_id"))
        id = given.get("instanceId", given.get("instance_id"))
        if not isinstance(model, str):
            raise ValueError("An action names its model: modelId")
        queued = await self._offline.queue(
            str(given.get("type")), model, id, given.get("data") or {}, base_version=given.get("base_version")
        )
        return told(queued)

    async def get_queued_actions(self) -> list[dict[str, Any]]:
        """What waits, in the order in which it is sent."""
        return await self._offline.actions()

    async def discard_queued_action(self, action_id: str) -> bool:
        """Take an action back that waits. False if there is none of this id."""
        return await self._offline.discard(action_id)

    async def sync(self, *, wait_for_peers_s: float = 0.0) -> SyncResult:
        """Send what is queued, let the node sync with its peers, bring local copies up to date.

        No node is no error: `is_offline` says so.
        """
        return await self._offline.sync(wait_for_peers_s=wait_for_peers_s)

    async def partial_sync(self, since: str | float | None = None, *, model: str | None = None) -> Changes:
        """All changes since a time (epoch ms) or a cursor, or since the last time; local copies follow them."""
        return await self._offline.partial_sync(since, model=model)

    async def get_cached_data(self, key: str, fetch: Callable[[], Any], *, ttl_s: float = CACHE_FOR_S) -> Any:
        """What `fetch` gave for this key not longer than `ttl_s` ago, or gives now. In memory."""
        known = self._cached.get(key)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        value = await self._hooks.call(fetch)
        if len(self._cached) >= CACHED_MAX:
            self._cached.clear()
        self._cached[key] = (time.monotonic() + ttl_s, value)
        return value

    # -- conflicts

    async def set_conflict_resolver(self, model: str, resolver: Hook | str) -> None:
        """A function `(local, remote[, ancestor]) -> instance` that decides here, or the name of a strategy by which
        every node does (`lww`, `merge`, `three_way`, …)."""
        if isinstance(resolver, str):
            await self._data.set_strategy(model, resolver)
        else:
            self._hooks.resolvers[model] = resolver

    async def resolve_conflict(self, conflict_id: str, resolution: Any) -> dict[str, Any]:
        """End a conflict that `sync` told of: with an instance, some fields, or `local` or `remote`."""
        return await self._offline.resolve(conflict_id, resolution)

    async def get_conflicts(self, model: str | None = None) -> list[dict[str, Any]]:
        """The node's open conflicts."""
        query = {"per_page": "100"} | ({} if model is None else {"model": model})
        return list((await self._transport.ask("GET", "/v1/conflicts", query=query)).body["items"])

    async def get_common_ancestor(self, local_id: str, remote_id: str | None = None) -> dict[str, Any] | None:
        """What two versions of an instance came from, where that is known. Meant for resolvers."""
        return None if remote_id not in (None, local_id) else await self._offline.conflicts.ancestor(local_id)

    # -- business logic

    def register_validator(self, *, model: str, validate: Hook, name: str = "") -> None:
        """`validate(data, context)` runs before each create and update of a model, and raises to prevent it."""
        self._hooks.add_validator(model, validate)

    def register_trigger(self, *, model: str, event: str, handler: Hook, name: str = "") -> None:
        """`handler(data, context)` runs at `beforeCreate`, `afterUpdate`, …"""
        self._hooks.add_trigger(model, event, handler)

    def register_query_method(self, *, model: str, name: str, query: Hook) -> None:
        """Call it as `client.Project.name(…)` or `client.model("Project").name(…)`."""
        self._hooks.queries[model, name] = query

    def extend_model(self, model: str, methods: Mapping[str, Hook]) -> None:
        """Methods for the instances of a model; each takes the instance."""
        self._hooks.extend(model, methods)

    def register_sync_strategy(self, *, model: str, resolve: Hook, name: str = "") -> None:
        """A resolver by the name that the seed gives it here."""
        self._hooks.resolvers[model] = resolve

    def model(self, name: str) -> "ModelAccess":
        """The query methods of a model: those registered here, and those of the node's plugins, which take their
        parameters by name."""
        return ModelAccess(self, name)

    def __getattr__(self, name: str) -> "ModelAccess":
        if not name[:1].isupper():
            raise AttributeError(name)
        return ModelAccess(self, name)

    async def named_query(self, model: str, name: str, /, **parameters: Any) -> Any:
        """What a query method of one of the node's plugins answers."""
        return await self._data.named_query(model, name, parameters)

    async def call_method(self, model: str, id: str, method: str, /, **parameters: Any) -> Any:
        """What a plugin's method for the instances of a model answers."""
        return await self._data.call_method(model, id, method, parameters)

    async def graphql(self, query: str, variables: Mapping[str, Any] | None = None) -> Any:
        """-> `data`. Raises `BadRequest` with the first of the errors; all of them are in its `body`."""
        return await self._data.graphql(query, variables)

    # -- realtime

    async def subscribe(
        self,
        models: str | Sequence[str],
        handler: Callable[[Event], Any] | None = None,
        *,
        events: Sequence[str] | None = None,
        instance_id: str | None = None,
        cursor: str | None = None,
        durable: str | None = None,
    ) -> Subscription:
        """Hear of changes, through lost links and restarts of the node. Iterate over it, or give a handler.

        `events` are created, updated, deleted, conflict. `cursor` begins behind an event; `durable` is a name under
        which the store remembers how far this subscription has come.
        """
        note = f"{_CURSOR}{durable}"
        if durable is not None and cursor is None:
            cursor = await self._offline._off_loop(self._offline.store.note, note)

        async def on_cursor(position: str) -> None:
            await self._offline._off_loop(self._offline.store.put_note, note, position)

        named = [models] if isinstance(models, str) else list(models)
        subscription = Subscription(
            self._transport,
            named,
            events=events,
            instance_id=instance_id,
            cursor=cursor,
            on_cursor=None if durable is None else on_cursor,
            on_resync=None if handler is None else partial(self._offline.read_anew, named),
        )
        self._subscriptions.append(subscription)
        if handler is not None:
            subscription.run(lambda event: self._hear(handler, event), _log_end)
        return subscription

    async def _hear(self, handler: Callable[[Event], Any], event: Event) -> None:
        if event["type"] in ("create", "update", "delete"):
            await self._offline.take_remote(event["model"], event["instanceId"], event.get("data"))
        try:
            await self._hooks.call(handler, event)
        except Closed:
            raise  # it was not heard to the end: a durable subscription hears it again
        except Exception:
            log.exception("A handler of realtime events failed")

    # -- peers

    async def notify_peer_deletion(
        self, user_id: str, *, erase: bool = False, password: str | None = None
    ) -> dict[str, Any]:
        """Let peers hear of deletions now. -> `user_id`, and `in_sync`: whether every linked peer has them.

        With `erase`, have the account and all that it made removed from every device, for ever (`POST
        /v1/privacy/erase`); `erasure_id` is what `GET /v1/privacy/erasures/{id}` tells the confirmations of.
        """
        told: dict[str, Any] = {"user_id": user_id}
        if erase:
            asked = {
                "confirm": True,
                "user_id": user_id,
                **({} if password is None else {"password": password}),
            }
            told |= (await self._transport.ask("POST", "/v1/privacy/erase", asked)).body
        await self._transport.ask("POST", "/v1/sync", query={"timeout_ms": "2000"}, is_repeatable=True)
        status = (await self._transport.ask("GET", "/v1/sync/status")).body
        return {**told, "in_sync": status["in_sync"], "peers": len(status["peers"])}

    async def register_webhook(self, url: str, events: Sequence[str], *, secret: str) -> dict[str, Any]:
        """Have this node tell a web address of events (`data.updated`, `Task.created`, …). -> with its `id`."""
        asked = {"url": url, "events": list(events), "secret": secret}
        return dict((await self._transport.ask("POST", "/v1/webhooks", asked)).body)

    # -- files

    async def export_data(self, models: Sequence[str] | None = None, *, format: str = "json") -> Any:
        """The records that one may read: of `json` the object, of other formats the bytes."""
        asked = {"format": format, **({} if models is None else {"models": list(models)})}
        return (await self._transport.ask("POST", "/v1/export", asked, is_repeatable=True)).body

    async def import_data(
        self, content: bytes, *, model: str | None = None, format: str = "json", mode: str = "create"
    ) -> dict[str, Any]:
        """Records in any form that an export has. -> `rows`, `created`, `updated`, `failed`, `faults`."""
        form = FormData({"format": format, "mode": mode, **({} if model is None else {"model": model})})
        form.add_field("file", content, filename=f"records.{format}")
        return dict((await self._transport.ask("POST", "/v1/import", form)).body)


class ModelAccess:
    """`client.Project.find_active(…)`. `client` is the one whose methods the app calls."""

    def __init__(self, client: Any, name: str) -> None:
        self._client = client
        self._name = name

    def __getattr__(self, name: str) -> Hook:
        if name.startswith("_"):
            raise AttributeError(name)
        hooks: Hooks = self._client._hooks
        return hooks.queries.get((self._name, name)) or partial(self._client.named_query, self._name, name)


def _prefer(peers: int | None) -> dict[str, str]:
    return {} if peers is None else {"Prefer": f"wait=peers:{peers}"}


def _log_end(error: Exception) -> None:
    log.error("A subscription has ended: %s", error)
