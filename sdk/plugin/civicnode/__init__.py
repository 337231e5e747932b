"""What a plugin of a civicnode imports: the marker of its hooks, and what they are handed.

A plugin is a Python file or a package in the directory that `civicnode start --plugins-dir DIR` names, or an
installed distribution with an entry point in the group `civicnode`. It implements any of the hooks of `Hooks`:

    import civicnode

    def ensure_positive_balance(data, context):
        if data["balance"] < 0:
            raise ValueError("Account balance cannot be negative")

    @civicnode.hookimpl
    def validators():
        return [{"name": "ensurePositiveBalance", "model": "UserAccount", "validate": ensure_positive_balance}]

Functions are plain or `async`, and are called with keyword arguments. They run in a process of their own: what
stops that process, or hangs in it, is reported and started again, and the node goes on.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import pluggy

__all__ = ["Context", "Hooks", "hookimpl"]

hookimpl = pluggy.HookimplMarker("civicnode")
_hookspec = pluggy.HookspecMarker("civicnode")

Record = dict[
    str, Any
]  # a document as the API shows it: its fields, id, created_at, updated_at, created_by, version


class Context(Protocol):
    """What a function learns of the call that it serves, and how it reaches the node's data.

    The methods are awaited in an `async def`, and answer at once in a plain function. In a query or a model method
    they see what the caller may read; validators and triggers see all of their application. Each raises
    RuntimeError where the node refuses.
    """

    application: str
    user: str  # the acting user's id, "" if nobody is signed in
    model: str
    instance_id: str  # "" in a query
    event: str  # beforeCreate, afterUpdate …; "" in queries and model methods
    changes: Record  # the fields that were asked to be set
    previous: Record | None  # the record as it was before

    def get(self, model: str, id: str) -> Any:
        """The record, or None."""

    def query(
        self,
        model: str,
        where: Mapping[str, Any] | str | None = None,
        *,
        sort: str = "created_at",
        order: str = "desc",
        page: int = 1,
        per_page: int = 100,
    ) -> Any:
        """A page of records. `where` is the API's filter expression, or the seed's object:
        `{"createdBy": user, "status": "active", "endDate": {"$gt": "2026-01-01"}}`."""

    def create(self, model: str, data: Mapping[str, Any]) -> Any:
        """Create a record; its id. Not for queries."""

    def update(self, model: str, id: str, data: Mapping[str, Any]) -> Any:
        """Change the given fields. Not for queries."""

    def delete(self, model: str, id: str) -> Any:
        """Delete the record. Not for queries."""


class Hooks:
    """The hooks; a plugin implements those that it needs, each without arguments."""

    @_hookspec
    def validators(self) -> Sequence[Mapping[str, Any]]:  # type: ignore[empty-body]
        """`{"name", "model", "validate"}`: `validate(data, context)` raises to refuse a create or an update.

        `data` is the record as it would be. The exception's text is what the app is told.
        """

    @_hookspec
    def triggers(self) -> Sequence[Mapping[str, Any]]:  # type: ignore[empty-body]
        """`{"name", "model", "event", "handler"}`: `handler(data, context)`, with an `event` of beforeCreate,
        beforeUpdate, beforeDelete, afterCreate, afterUpdate, afterDelete.

        A handler before may raise to refuse, or return a dictionary of fields to set besides. A handler after runs
        once, on the node that took the request, once the change is durable; what it raises is logged.
        """

    @_hookspec
    def queries(self) -> Sequence[Mapping[str, Any]]:  # type: ignore[empty-body]
        """`{"name", "model", "query"}`: `query(context, **arguments)` answers
        `GET /v1/data/{model}/queries/{name}?argument=…` with anything that JSON holds."""

    @_hookspec
    def model_methods(self) -> Sequence[Mapping[str, Any]]:  # type: ignore[empty-body]
        """`{"model", "methods": {name: function}}`: `function(record, context, **arguments)` answers
        `GET /v1/data/{model}/{id}/methods/{name}?argument=…`."""

    @_hookspec
    def sync_strategies(self) -> Sequence[Mapping[str, Any]]:  # type: ignore[empty-body]
        """`{"name", "model", "resolve"}`: `resolve(localData, remoteData)` returns what two records that did not see
        each other become. It takes effect for a model whose `conflict_strategy` is `name`.

        Every node must come to the same result, so it depends on nothing but the two: `localData` is the one that is
        earlier by (time, author), whichever node asks. More than two are resolved one after the other.
        """
