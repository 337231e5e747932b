"""Working without a node: the queue of actions, local copies, and what happens when both meet again.

Room: what is shown here while a write waits, in which order writes are sent, and what becomes of one that the node
refuses or that met another change. Keeping is `store`'s, meetings of two versions are `conflicts`'.

    queued ──sent──► stored       the local copy is the node's again
       │  ├─refused─► reverted    the local view goes back, watchers are told
       │  └─another version was there─► merged and sent again, or a conflict that waits for `resolve_conflict`
       └─no node──► stays, in its place
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

from cosmicsync.conflicts import Conflicts
from cosmicsync.data import Data, path_of
from cosmicsync.documents import Document, ModelShape, fields_of, to_json
from cosmicsync.errors import CosmicSyncError, Forbidden, NodeUnreachable, NotFound, error_of
from cosmicsync.filters import Filter, Sort, check, in_order, matches, sort_keys
from cosmicsync.hooks import Context, Hooks
from cosmicsync.store import Action, Local, Store
from cosmicsync.transport import Closing, Transport, new_key

BATCH_MAX = 100  # actions in one request
BATCH_SIZE_MAX_BYTES = 1 << 20
PAGE = 1_000  # changes asked for at a time
CHUNK = 50  # copies read anew at a time
CURSOR = "cursor"
_METHODS = {"create": "POST", "update": "PUT", "delete": "DELETE"}


@dataclass(frozen=True, slots=True)
class LocalChange:
    """The local view of an instance is another one. `data` None: it is gone.

    `reason` is `optimistic` (queued), `confirmed` (the node has it), `reverted` (the node refused it; `error` says
    why), `remote` (someone else's change came), `stored` or `cleared` (the app's own doing).
    """

    model: str
    instance_id: str
    data: dict[str, Any] | None
    reason: str
    error: CosmicSyncError | None = None


@dataclass(slots=True)
class SyncResult:
    """What a sync has done. `refused` are actions that the node did not take in, with its reason under `error`."""

    synced_count: int = 0
    conflicts: list[dict[str, Any]] = field(default_factory=list)
    refused: list[dict[str, Any]] = field(default_factory=list)
    sent: int = 0
    received: int = 0
    remaining: int = 0
    is_offline: bool = False


@dataclass(frozen=True, slots=True)
class Changes:
    """What has changed since a cursor. With `resync`, what lies between is unknown and was read anew."""

    synced_count: int
    changes: list[dict[str, Any]]
    conflicts: list[dict[str, Any]]
    cursor: str
    resync: bool


def view_of(base: Mapping[str, Any] | None, actions: Sequence[Action]) -> dict[str, Any] | None:
    """An instance as it is shown while actions wait; None if there is none."""
    shown = None if base is None else dict(base)
    for action in actions:
        if action.type == "delete":
            shown = None
        else:
            shown = {"id": action.instance, **(shown or {}), **action.data}
    return shown


def told(action: Action) -> dict[str, Any]:
    """An action as apps see it."""
    return {
        "id": action.id,
        "type": action.type,
        "model_id": action.model,
        "instance_id": action.instance,
        "data": dict(action.data),
        "queued_at": action.queued_ms,
        "conflict": None if action.conflict is None else dict(action.conflict),
    }


Watcher = Callable[[LocalChange], Any]
# Whose turn the code that runs is part of: hooks and watchers are, and what they call.
_in_turn: ContextVar["Offline | None"] = ContextVar("cosmicsync_in_turn", default=None)


class Offline:
    """One store and one node. Use it on one event loop."""

    def __init__(self, store: Store, transport: Transport, data: Data, hooks: Hooks, client: Any) -> None:
        self.store = store
        self._transport = transport
        self._data = data
        self._hooks = hooks
        self._client = client
        self.conflicts = Conflicts(transport, hooks)
        self._turn = asyncio.Lock()
        self._closing = Closing()
        self._watchers: dict[int, tuple[str, str | None, Watcher]] = {}
        self._watched = 0

    async def close(self) -> None:
        """End the sync that runs; what the node has not acknowledged stays in the store. A hook that calls this itself
        comes to its end, and the sync then."""
        if _in_turn.get() is not self:
            self._closing.close()
            async with self._turn:  # the store is let go of
                pass
        self.store.close()

    @asynccontextmanager
    async def _own_turn(self) -> AsyncIterator[None]:
        async with self._transport.closing.open():  # whoever has the turn may be what closes
            await self._turn.acquire()
        before = _in_turn.set(self)
        try:
            async with self._closing.open():
                yield
        finally:
            _in_turn.reset(before)
            self._turn.release()

    # -- local copies

    async def put(self, model: str, id: str, data: Mapping[str, Any], ttl_s: float | None) -> None:
        now_ms = _now_ms()
        expires_ms = None if ttl_s is None else now_ms + int(ttl_s * 1000)
        content = {"id": id, **data}
        await self._off_loop(self.store.put_local, [Local(model, id, content, now_ms, expires_ms)])
        await self._tell(model, id, "stored")

    async def get(self, model: str, id: str) -> dict[str, Any] | None:
        """The instance as it is shown here: the copy, with what waits in the queue. None if it is not here."""
        copy = await self._copy(model, id)
        waiting = await self._off_loop(self.store.actions, model, id)
        shown = view_of(None if copy is None else copy.content, waiting)
        return None if shown is None else self._hooks.document(model, shown)

    async def query(
        self, model: str, filter: Filter | None, *, skip: int, limit: int | None, sort: Sort | None
    ) -> list[Document]:
        """Instances as they are shown here that meet a filter."""
        check(filter or {})
        shape = ModelShape(model, is_known=False)  # without a node, values alone say what they are
        keys = sort_keys(sort, shape)
        now_ms = _now_ms()
        shown: dict[str, dict[str, Any] | None] = {
            copy.instance: dict(copy.content)
            for copy in await self._off_loop(self.store.locals, model)
            if copy.expires_ms is None or copy.expires_ms > now_ms
        }
        for action in await self._off_loop(self.store.actions):
            if action.model == model:
                shown[action.instance] = view_of(shown.get(action.instance), [action])
        met = [item for item in shown.values() if item is not None and matches(filter, item, shape)]
        found = in_order(met, keys)[skip : None if limit is None else skip + limit]
        return [self._hooks.document(model, item) for item in found]

    async def _copy(self, model: str, id: str) -> Local | None:
        copy: Local | None = await self._off_loop(self.store.local, model, id)
        if copy is not None and copy.expires_ms is not None and copy.expires_ms <= _now_ms():
            await self._off_loop(self.store.remove_local, [(model, id)])
            return None
        return copy

    async def clear(self, owner: str | None) -> int:
        """Forget copies: all, or those that are of an instance or a user of this id. Queued actions stay."""
        named = ("id", "created_by", "createdBy", "user_id", "userId", "owner")
        gone = [
            (copy.model, copy.instance)
            for copy in await self._off_loop(self.store.locals)
            if owner is None or owner in (copy.instance, *(copy.content.get(name) for name in named))
        ]
        await self._off_loop(self.store.remove_local, gone)
        for model, id in gone:
            await self._tell(model, id, "cleared")
        return len(gone)

    def watch(self, model: str, id: str | None, watcher: Watcher) -> Callable[[], None]:
        """Hear of every change of the local view. -> ends it."""
        self._watched += 1
        number = self._watched
        self._watchers[number] = (model, id, watcher)
        return lambda: self._watchers.pop(number, None) and None

    async def _tell(self, model: str, id: str, reason: str, error: CosmicSyncError | None = None) -> None:
        hearing = [w for m, i, w in self._watchers.values() if m == model and i in (None, id)]
        if hearing:
            change = LocalChange(model, id, await self.get(model, id), reason, error)
            for watcher in hearing:
                await self._hooks.call(watcher, change)

    async def take_remote(self, model: str, id: str, content: Mapping[str, Any] | None) -> bool:
        """Bring a copy up to date, if there is one. None: the instance is deleted. Whether there was one."""
        copy = await self._off_loop(self.store.local, model, id)
        if copy is None:
            return False
        if content is None:
            await self._off_loop(self.store.remove_local, [(model, id)])
        elif dict(content) != dict(copy.content):
            await self._off_loop(self.store.put_local, [replace(copy, content=content, stored_ms=_now_ms())])
        else:
            return True
        await self._tell(model, id, "remote")
        return True

    # -- the queue

    async def queue(
        self,
        type: str,
        model: str,
        id: str | None,
        data: Mapping[str, Any],
        *,
        base_version: str | None = None,
    ) -> Action:
        """Keep an action for later, and show it at once. It is on disk when this returns."""
        if type not in _METHODS:
            raise ValueError(f"An action is a create, an update or a delete, not {type!r}")
        has_new_id = id is None and not data.get("id")
        if id is None:
            if type != "create":
                raise ValueError(f"An action of type {type} needs an instance id")
            id = str(data.get("id") or new_key())
        shown = await self.get(model, id)
        changes = await self._hooks.before(Context(type, model, id, data, shown, self._client))
        changes.pop("id", None)
        copy = await self._copy(model, id)
        base = None if copy is None else dict(copy.content)
        is_first = not await self._off_loop(self.store.actions, model, id)
        if base_version is None and is_first and base is not None and type == "update":
            base_version = base.get("version")
        action = Action(
            id=new_key(),
            user=self._transport.user,
            type=type,
            model=model,
            instance=id,
            data=changes if type != "delete" else {},
            base=base,
            base_version=base_version,
            queued_ms=_now_ms(),
            has_new_id=has_new_id,
        )
        await self._off_loop(self.store.add, action)
        await self._tell(model, id, "optimistic")
        return action

    async def actions(self) -> list[dict[str, Any]]:
        return [told(action) for action in await self._off_loop(self.store.actions)]

    async def discard(self, action_id: str) -> bool:
        """Take an action back that was not sent yet: the view reverts. False if there is none."""
        async with self._own_turn():
            for action in await self._off_loop(self.store.actions):
                if action.id == action_id:
                    await self._off_loop(self.store.remove, [action_id])
                    await self._tell(action.model, action.instance, "reverted")
                    return True
        return False

    # -- meeting the node

    async def sync(self, *, wait_for_peers_s: float = 0.0) -> SyncResult:
        """Send what waits, let the node sync with its peers, bring copies up to date.

        No node is no error: `is_offline` says so, and what waits stays. Raises what the node refuses all of it
        with (not signed in, too often), and `Closed` if the client is closed meanwhile.
        """
        result = SyncResult()
        async with self._own_turn():
            with self.store.sending():
                try:
                    await self._send(result)
                    await self._with_peers(result, wait_for_peers_s)
                    result.received = (
                        (await self.partial_sync()).synced_count if await self._has_copies() else 0
                    )
                except NodeUnreachable:
                    result.is_offline = True
        waiting = await self._off_loop(self.store.actions)
        result.remaining = len(waiting)
        parked = [dict(action.conflict) for action in waiting if action.conflict is not None]
        result.conflicts = parked + result.conflicts
        return result

    async def _send(self, result: SyncResult) -> None:
        count_max = BATCH_MAX
        while (batch := await self._off_loop(self._next_batch, count_max)) is not None:
            key, actions = batch
            try:
                operations = [_operation(action) for action in actions]
                results = await self._data.batch(operations, atomic=False, versions=True, key=key)
            except CosmicSyncError as refusal:
                if refusal.status is None or refusal.status in (401, 403, 429) or refusal.status >= 500:
                    raise  # nothing is known of these actions, or they are not to blame
                await self._off_loop(self.store.end_batch, key)
                if len(actions) == 1:
                    await self._refuse(actions[0], refusal, result)
                count_max = 1
                continue
            later: CosmicSyncError | None = None
            for action, answer in zip(actions, results, strict=True):
                later = await self._settle(action, answer, result) or later
            await self._off_loop(self.store.end_batch, key)
            if later is not None:
                raise later

    def _next_batch(self, count_max: int) -> tuple[str, list[Action]] | None:
        """The next actions in their order, noted as being sent. What was sent before, is sent as it was."""
        again = self.store.batch_in_flight()
        if again is not None:
            return again
        user, taken, held, size = self._transport.user, list[Action](), set[tuple[str, str]](), 0
        for action in self.store.actions():
            place = (action.model, action.instance)
            if action.user not in ("", user) or action.conflict is not None or place in held:
                held.add(place)  # what follows on the same instance waits behind it
                continue
            size += len(to_json(action.data).encode())
            is_full = len(taken) == count_max or (taken and size > BATCH_SIZE_MAX_BYTES)
            if is_full or any(place == (other.model, other.instance) for other in taken):
                break
            taken.append(action)
        if not taken:
            return None
        key = taken[0].key if len(taken) == 1 else new_key()
        self.store.begin_batch(key, [action.id for action in taken])
        return key, taken

    async def _settle(
        self, action: Action, answer: Mapping[str, Any], result: SyncResult
    ) -> CosmicSyncError | None:
        """-> why it is to be tried later, if it is."""
        status, body = int(answer["status"]), answer.get("body")
        if status < 300 or (status == 404 and action.type == "delete"):
            await self._stored(action, result, answer.get("version"))
            return None
        refusal = error_of(status, body)
        if status == 429 or status >= 500:
            await self._off_loop(self.store.replace, replace(action, revision=action.revision + 1))
            return refusal
        exists_already = status == 409 and action.type == "create" and not refusal.details
        if status == 412 or exists_already:
            await self._meet(action, refusal, result)
        else:
            await self._refuse(action, refusal, result)
        return None

    async def _stored(self, action: Action, result: SyncResult, version: str | None) -> None:
        """The copy is what was sent, until the changes that follow tell what the node has."""
        copy = await self._copy(action.model, action.instance)
        base = action.base if copy is None else copy.content
        content = view_of(base, [action])
        if content is None:
            await self._off_loop(self.store.remove_local, [(action.model, action.instance)])
        else:
            content["version"] = version  # what is queued from now on is made on this one
            expires_ms = None if copy is None else copy.expires_ms
            kept = Local(action.model, action.instance, content, _now_ms(), expires_ms)
            await self._off_loop(self.store.put_local, [kept])
        await self._off_loop(self.store.remove, [action.id])
        result.sent += 1
        result.synced_count += 1
        context = Context(action.type, action.model, action.instance, action.data, action.base, self._client)
        await self._hooks.after(context, content or dict(action.base or {"id": action.instance}))
        await self._tell(action.model, action.instance, "confirmed")

    async def _refuse(self, action: Action, refusal: CosmicSyncError, result: SyncResult) -> None:
        await self._off_loop(self.store.remove, [action.id])
        result.refused.append({**told(action), "error": refusal})
        await self._tell(action.model, action.instance, "reverted", refusal)

    async def _meet(self, action: Action, refusal: CosmicSyncError, result: SyncResult) -> None:
        """The instance is another one than the action was made on."""
        try:
            remote = (await self._transport.ask("GET", path_of(action.model, action.instance))).body
        except NotFound:
            await self._refuse(action, refusal, result)
            return
        met = await self.conflicts.meet(action, remote)
        if met is None:
            await self._stored(action, result, remote["version"])
            return
        await self._off_loop(self.store.replace, met)

    async def resolve(self, conflict_id: str, resolution: Any) -> dict[str, Any]:
        """End a conflict, of the queue or of the node. -> what became of it."""
        async with self._own_turn():
            for action in await self._off_loop(self.store.actions):
                if action.conflict is not None and action.conflict["id"] == conflict_id:
                    decided = self.conflicts.decided(action, resolution)
                    if decided is None:
                        await self._off_loop(self.store.remove, [action.id])
                        await self.take_remote(action.model, action.instance, action.conflict["remote"])
                        await self._tell(action.model, action.instance, "reverted")
                    else:
                        await self._off_loop(self.store.replace, decided)
                    return {**action.conflict, "resolved": True}
        return await self.conflicts.resolve(conflict_id, resolution)

    async def _with_peers(self, result: SyncResult, wait_s: float) -> None:
        query = {"timeout_ms": str(int(wait_s * 1000))}
        try:
            answer = await self._transport.ask("POST", "/v1/sync", query=query, is_repeatable=True)
        except CosmicSyncError as refusal:
            if refusal.status in (None, 401, 429):
                raise
            return  # a node that speaks to nobody has nothing to sync with
        result.synced_count += answer.body["syncedCount"]
        result.conflicts += await self.conflicts.settle_open(answer.body["conflicts"])

    # -- what others did

    async def _has_copies(self) -> bool:
        return bool(await self._off_loop(self.store.locals))

    async def partial_sync(self, since: str | float | None = None, *, model: str | None = None) -> Changes:
        """All changes since a cursor or a time (epoch ms); without one, since the last time. Copies follow them."""
        is_own = since is None
        if is_own:
            since = await self._off_loop(self.store.note, CURSOR)
        if since is None:
            copies = await self._off_loop(self.store.locals)
            since = min((copy.stored_ms for copy in copies), default=_now_ms()) - 5_000
        cursor = str(int(since)) if isinstance(since, (int, float)) else str(since)
        changes: list[dict[str, Any]] = []
        conflicts: list[dict[str, Any]] = []
        is_resync = False
        while True:
            query = {"since": cursor, "limit": str(PAGE)} | ({} if model is None else {"model": model})
            page = (await self._transport.ask("GET", "/v1/sync/changes", query=query)).body
            cursor = page["cursor"]
            if page["resync"]:
                is_resync = True
                await self.read_anew()
            for change in page["changes"]:
                await self.take_remote(change["model"], change["instanceId"], change.get("data"))
            changes += page["changes"]
            conflicts += page["conflicts"]
            if not page["has_more"]:
                break
        if is_own and model is None:
            await self._off_loop(self.store.put_note, CURSOR, cursor)
        return Changes(len(changes), changes, conflicts, cursor, is_resync)

    async def read_anew(self, models: Collection[str] | None = None) -> None:
        """What happened meanwhile is not known: every copy is asked for again, or those of some models."""
        by_model: dict[str, list[Local]] = {}
        for copy in await self._off_loop(self.store.locals):
            if models is None or copy.model in models:
                by_model.setdefault(copy.model, []).append(copy)
        for model, copies in by_model.items():
            for start in range(0, len(copies), CHUNK):
                chunk = copies[start : start + CHUNK]
                found = await self._readable(model, [copy.instance for copy in chunk])
                for copy in chunk:
                    # One without a version never was the node's: it is the app's own.
                    if copy.instance in found or copy.content.get("version") is not None:
                        await self.take_remote(model, copy.instance, found.get(copy.instance))

    async def _readable(self, model: str, ids: list[str]) -> dict[str, dict[str, Any]]:
        """Those instances that are there, and that one may read, by id."""
        try:
            return {item["id"]: dict(item) for item in await self._data.query(model, {"id": {"$in": ids}})}
        except (NotFound, Forbidden):
            return {}

    @staticmethod
    async def _off_loop(work: Callable[..., Any], *arguments: Any) -> Any:
        """The disk is waited for on another thread, to the end even by who is cancelled: what follows finds it done."""
        working = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            await asyncio.wait({working})
            raise


def _operation(action: Action) -> dict[str, Any]:
    is_create = action.type == "create"
    path = path_of(action.model, None if is_create else action.instance).removeprefix("/v1")
    operation: dict[str, Any] = {"method": _METHODS[action.type], "path": path}
    if is_create:
        operation["body"] = {**action.data, "id": action.instance}
    elif action.type == "update":
        operation["body"] = fields_of(action.data)
    if action.base_version is not None:
        operation["if_match"] = action.base_version
    return operation


def _now_ms() -> int:
    return int(time.time() * 1000)
