"""What an app adds to its models on this device: validators, triggers, queries, methods, resolvers.

Room: keeping and calling them. Each is a plain function or a coroutine function; when they are called is decided
by `data` and `offline`. They run in the app's process: what every node is to enforce belongs into the model.
"""

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cosmicsync.documents import META_FIELDS, Document, fields_of

Hook = Callable[..., Any]
EVENTS = frozenset(f"{when}{what}" for when in ("before", "after") for what in ("Create", "Update", "Delete"))

log = logging.getLogger("cosmicsync")


@dataclass(frozen=True, slots=True)
class Context:
    """What a hook is told beside the data. `action` is create, update or delete; `changes` what was given."""

    action: str
    model: str
    instance_id: str | None
    changes: Mapping[str, Any]
    previous: Mapping[str, Any] | None
    client: Any = field(repr=False)


async def call_here(hook: Hook, *arguments: Any) -> Any:
    """Call a hook on the event loop, and wait for it if it is a coroutine."""
    result = hook(*arguments)
    return await result if inspect.isawaitable(result) else result


async def call_in_thread(hook: Hook, *arguments: Any) -> Any:
    """Call a hook on a thread of its own, so that it may use a blocking client."""
    if inspect.iscoroutinefunction(hook):
        return await hook(*arguments)
    return await asyncio.to_thread(hook, *arguments)


class Hooks:
    """All of one client. `call` says how a hook is called."""

    def __init__(self, call: Callable[..., Awaitable[Any]] = call_here) -> None:
        self.call = call
        self.queries: dict[tuple[str, str], Hook] = {}
        self.resolvers: dict[str, Hook] = {}
        self._validators: dict[str, list[Hook]] = {}
        self._triggers: dict[tuple[str, str], list[Hook]] = {}
        self._methods: dict[str, dict[str, Hook]] = {}

    def add_validator(self, model: str, validate: Hook) -> None:
        self._validators.setdefault(model, []).append(validate)

    def add_trigger(self, model: str, event: str, handler: Hook) -> None:
        """Raises `ValueError` for an event that never comes."""
        if event not in EVENTS:
            raise ValueError(f"There is no event {event!r}: {', '.join(sorted(EVENTS))}")
        self._triggers.setdefault((model, event), []).append(handler)

    def extend(self, model: str, methods: Mapping[str, Hook]) -> None:
        self._methods.setdefault(model, {}).update(methods)

    def document(
        self, model: str, content: Mapping[str, Any], hidden: Mapping[str, Any] | None = None
    ) -> Document:
        """An instance with the methods of its model. What is `hidden` are attributes and no items."""
        return Document(content, self._methods.get(model), hidden)

    def needs_previous(self, model: str, action: str) -> bool:
        """Whether some hook looks at the whole instance before an update is sent."""
        return model in self._validators or (model, f"before{action.capitalize()}") in self._triggers

    async def before(self, context: Context) -> dict[str, Any]:
        """What is to be written in place of the changes. Raises what a validator or a trigger raises.

        A `before…` trigger may change the data that it is given; what it changes is written.
        """
        whole = self.document(context.model, {**fields_of(context.previous or {}), **context.changes})
        before = dict(whole)
        for handler in self._triggers.get((context.model, f"before{context.action.capitalize()}"), ()):
            await self.call(handler, whole, context)
        if context.action != "delete":
            for validate in self._validators.get(context.model, ()):
                await self.call(validate, whole, context)
        moved = {name: value for name, value in whole.items() if name not in before or before[name] != value}
        return {**context.changes, **moved}

    def has_after(self, model: str, action: str) -> bool:
        return (model, f"after{action.capitalize()}") in self._triggers

    async def after(self, context: Context, content: Mapping[str, Any]) -> None:
        """The write is stored. A trigger that fails now changes nothing about that: it is logged."""
        for handler in self._triggers.get((context.model, f"after{context.action.capitalize()}"), ()):
            try:
                await self.call(handler, self.document(context.model, content), context)
            except Exception:
                log.exception("A trigger after %s of %s failed", context.action, context.model)

    def version(self, model: str, content: Mapping[str, Any]) -> Document:
        """An instance as resolvers see it: id and fields. What the node adds can be read, but is nothing to merge."""
        meta = {name: content[name] for name in META_FIELDS if name != "id" and name in content}
        return self.document(model, {"id": content.get("id"), **fields_of(content)}, meta)

    async def resolve(
        self,
        model: str,
        local: Mapping[str, Any],
        remote: Mapping[str, Any],
        ancestor: Mapping[str, Any] | None,
    ) -> dict[str, Any] | None:
        """What the resolver of a model decides; None if it has none, or leaves it open."""
        resolver = self.resolvers.get(model)
        if resolver is None:
            return None
        versions: list[Any] = [self.version(model, local), self.version(model, remote)]
        if _takes_three(resolver):
            versions.append(None if ancestor is None else self.version(model, ancestor))
        decided = await self.call(resolver, *versions)
        return dict(decided) if isinstance(decided, Mapping) else None


def _takes_three(resolver: Hook) -> bool:
    try:
        inspect.signature(resolver).bind(None, None, None)
    except TypeError:
        return False
    return True
