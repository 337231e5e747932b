"""Two versions of one instance: what an app's resolver is shown, and what is done with its decision.

Room: meetings of a queued action with another version, and the node's own conflicts (values that did not see each
other). A resolver is called with `(local, remote)` or `(local, remote, ancestor)`, and gives back an instance; None
leaves the conflict open.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from cosmicsync.documents import META_FIELDS, changed_fields, fields_of
from cosmicsync.errors import CosmicSyncError, NotFound
from cosmicsync.hooks import Hooks
from cosmicsync.store import Action
from cosmicsync.transport import Transport, new_key

LOCAL_PREFIX = "local-"
DELETED = "$deleted"
TRIES_MAX = 10  # an action that meets yet another version so often waits for somebody to decide


class Conflicts:
    """What there is to decide, for one client."""

    def __init__(self, transport: Transport, hooks: Hooks) -> None:
        self._transport = transport
        self._hooks = hooks
        self._ancestors: dict[str, Mapping[str, Any] | None] = {}  # of instances being resolved

    # -- a queued action meets another version

    async def meet(self, action: Action, remote: Mapping[str, Any]) -> Action | None:
        """What to send instead; an action with a `conflict` waits; None: what it wants is there already."""
        if action.type == "delete":
            return replace(action, base_version=remote["version"], revision=action.revision + 1)
        wanted = changed_fields(remote, action.data, action.data)
        if not wanted or (action.type == "create" and action.has_new_id):
            return None  # an earlier try, whose answer was lost, has done it
        ancestor = action.base
        at = datetime.fromtimestamp(action.queued_ms / 1000, UTC).isoformat()
        local = {**(ancestor or remote), **action.data, "id": action.instance, "updated_at": at}
        decided = await self._decide(action.model, local, remote, ancestor)
        if decided is not None and action.revision < TRIES_MAX:
            return _on_top(action, remote, changed_fields(remote, decided, fields_of(decided)))
        both = [name for name in wanted if ancestor is None or ancestor.get(name) != remote.get(name)]
        if not both and action.model not in self._hooks.resolvers and action.revision < TRIES_MAX:
            return _on_top(action, remote, dict(action.data))
        return replace(action, conflict=_described(action, both or list(wanted), local, remote, ancestor))

    async def _decide(
        self,
        model: str,
        local: Mapping[str, Any],
        remote: Mapping[str, Any],
        ancestor: Mapping[str, Any] | None,
    ) -> dict[str, Any] | None:
        id = str(local.get("id"))
        self._ancestors[id] = ancestor
        try:
            return await self._hooks.resolve(model, local, remote, ancestor)
        finally:
            del self._ancestors[id]

    def decided(self, action: Action, resolution: Any) -> Action | None:
        """The action after a decision on its conflict: an instance or some fields, or the word `local` or `remote`.

        None if nothing is left to send.
        """
        assert action.conflict is not None
        remote = action.conflict["remote"]
        if resolution == "remote":
            return None
        chosen = action.data if resolution == "local" else _fields(resolution)
        changes = changed_fields(remote, chosen, chosen)
        return _on_top(action, remote, changes) if changes else None

    # -- the node's own

    async def settle_open(self, listed: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Ask resolvers about the node's open conflicts. -> those that stay open, of `listed` and of their models."""
        open_now = {conflict["id"]: dict(conflict) for conflict in listed if not conflict["resolved"]}
        for model in list(self._hooks.resolvers):
            try:
                answer = await self._transport.ask(
                    "GET", "/v1/conflicts", query={"model": model, "per_page": "100"}
                )
            except NotFound:
                continue  # not a model of this node yet
            open_now |= {conflict["id"]: dict(conflict) for conflict in answer.body["items"]}
        left: list[dict[str, Any]] = []
        for conflict in open_now.values():
            if conflict["model"] not in self._hooks.resolvers or not await self._settled(conflict):
                left.append(conflict)
        return left

    async def _settled(self, conflict: Mapping[str, Any]) -> bool:
        """Whether a resolver has ended it."""
        field, model = conflict["field"], conflict["model"]
        if field == DELETED:
            return False
        path = f"/v1/data/{quote(model, safe='')}/{quote(conflict['instance_id'], safe='')}"
        try:
            shown = (await self._transport.ask("GET", path)).body
        except NotFound:
            return False
        ancestor = {**shown, field: conflict["ancestor"]} if "ancestor" in conflict else None
        first, *others = conflict["values"]
        decided: dict[str, Any] | None = {**shown, field: first["value"], "updated_at": first["at"]}
        for other in others:
            if decided is not None:
                remote = {**shown, field: other["value"], "updated_at": other["at"]}
                chosen = await self._decide(model, decided, remote, ancestor)
                decided = None if chosen is None else {**decided, **chosen}
        if decided is None:
            return False
        try:
            await self._end(conflict["id"], {field: decided.get(field)})
        except CosmicSyncError as refusal:
            if refusal.status not in (403, 404, 409):
                raise
            return refusal.status == 404  # another one by now, or another's to decide
        return True

    async def resolve(self, conflict_id: str, resolution: Any) -> dict[str, Any]:
        """End a conflict of the node with an instance, with `{field: value}`, or with the value itself."""
        field = (await self._transport.ask("GET", f"/v1/conflicts/{quote(conflict_id, safe='')}")).body[
            "field"
        ]
        if isinstance(resolution, Mapping) and isinstance(resolution.get("resolution"), Mapping):
            resolution = resolution["resolution"]
        if field == DELETED:
            given = dict(resolution) if isinstance(resolution, Mapping) else {DELETED: bool(resolution)}
        elif isinstance(resolution, Mapping) and field in resolution:
            given = {field: resolution[field]}
        else:
            given = {field: resolution}
        return await self._end(conflict_id, given)

    async def _end(self, conflict_id: str, resolution: Mapping[str, Any]) -> dict[str, Any]:
        path = f"/v1/conflicts/{quote(conflict_id, safe='')}/resolve"
        return dict((await self._transport.ask("POST", path, {"resolution": dict(resolution)})).body)

    async def ancestor(self, id: str) -> dict[str, Any] | None:
        """What two versions of an instance came from: that of the conflict being resolved, or the node's."""
        if id in self._ancestors:
            found = self._ancestors[id]
            return None if found is None else {"id": id, **fields_of(found)}
        answer = await self._transport.ask("GET", "/v1/conflicts", query={"instance_id": id})
        for conflict in answer.body["items"]:
            if "ancestor" in conflict:
                return {"id": id, conflict["field"]: conflict["ancestor"]}
        return None


def _fields(resolution: Any) -> dict[str, Any]:
    if isinstance(resolution, Mapping) and isinstance(resolution.get("resolution"), Mapping):
        resolution = resolution["resolution"]
    if not isinstance(resolution, Mapping):
        raise ValueError("A conflict is resolved with an instance, some of its fields, 'local' or 'remote'")
    return {name: value for name, value in resolution.items() if name not in META_FIELDS}


def _on_top(action: Action, remote: Mapping[str, Any], changes: Mapping[str, Any]) -> Action | None:
    """The same action made on what is there now: another request, under a key of its own."""
    if not changes:
        return None
    return replace(
        action,
        type="update",
        data=dict(changes),
        base=dict(remote),
        base_version=remote["version"],
        revision=action.revision + 1,
        conflict=None,
    )


def _described(
    action: Action,
    fields: Sequence[str],
    local: Mapping[str, Any],
    remote: Mapping[str, Any],
    ancestor: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """A conflict of the queue, in the shape of the node's, with both versions."""
    return {
        "id": f"{LOCAL_PREFIX}{new_key()}",
        "model": action.model,
        "instance_id": action.instance,
        "field": fields[0],
        "fields": list(fields),
        "values": [
            {"value": local.get(fields[0]), "node": "local", "user": action.user, "at": local["updated_at"]},
            {
                "value": remote.get(fields[0]),
                "node": "remote",
                "user": remote.get("created_by", ""),
                "at": None,
            },
        ],
        "strategy": "client",
        "resolved": False,
        "local": dict(local),
        "remote": dict(remote),
        "ancestor": None if ancestor is None else dict(ancestor),
    }
