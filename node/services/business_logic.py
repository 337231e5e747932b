"""Business logic that plugins add to changes: what they refuse or set before, and what they do after.

Room: from edits to calls of `plugins`, and back. It stands in `records`, so that every surface's changes pass it;
changes that come from peers do not, since plugins guard this node's API and nothing else. A validator sees the
record as it would be if it were changed now; another change may come in between, as with any check that is made
outside the transaction.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

from node.services.plugins import Answers, Plugins
from node.services.refusals import NotPermitted, PluginRefused, Refusal
from node.services.sealing import shown
from protocol.changes import Edit, EditKind, Record
from protocol.errors import ModelFault
from protocol.schema import Model
from protocol.text_edit import TextEdit

AFTER_MAX = 10_000  # changes that wait for their triggers; what comes beyond is logged, and not triggered
DEPTH_MAX = 4  # a change whose trigger makes a change, whose trigger makes a change, and so on
_EVENTS = {EditKind.CREATE: "Create", EditKind.UPDATE: "Update", EditKind.DELETE: "Delete"}
Shown = dict[str, Any]  # a record as the API shows it


class BusinessLogic:
    """For one event loop. `close` it once."""

    def __init__(
        self,
        plugins: Plugins,
        read: Callable[[Model, str], Record | None],
        shown: Callable[[Record], dict[str, Any]],
        answers_for: Callable[[str, str], Answers],
        log: logging.Logger,
    ) -> None:
        """`read` is how a record stands, `shown` its JSON, `answers_for` (application, user) what plugins may ask."""
        self._plugins = plugins
        self._read = read
        self._shown = shown
        self._answers_for = answers_for
        self._log = log
        self._triggering: set[asyncio.Task[None]] = set()
        self._pending = 0
        self._depth: ContextVar[int] = ContextVar("depth", default=0)

    def concerns(self, edits: Sequence[Edit]) -> bool:
        """Whether any plugin may have a say in any of these. Costs next to nothing where there are no plugins."""
        models = self._plugins.models
        return bool(models) and any(edit.model.name in models for edit in edits)

    async def before(
        self, application: str, user: str, edits: Sequence[Edit]
    ) -> tuple[list[Shown | None], dict[int, Exception]]:
        """Let triggers and validators have their say. `edits` get the values that triggers set.

        Returns how each record stood, for `after`, and by place what is refused: as a guard or the model would, or
        as `PluginRefused` with every fault. Raises `PluginUnavailable`.
        """
        previous: list[Shown | None] = []
        refused: dict[int, Exception] = {}
        told: dict[int, dict[str, Any]] = {}
        for place, edit in enumerate(edits):
            record = None if edit.kind is EditKind.CREATE else self._read(edit.model, edit.id)
            previous.append(None if record is None else self._shown(record))
            try:
                if edit.guard is not None:
                    edit.guard(record)  # who may not write is told no more than that
            except Exception as error:
                refused[place] = error
                continue
            one = _told(application, user, edit, "before", previous[-1])
            is_there = record is not None or edit.kind in (EditKind.CREATE, EditKind.PUT)
            if is_there and self._plugins.concern(edit.model.name, one["event"]):
                told[place] = one
        if told:
            asked = {"edits": list(told.values())}
            verdicts = await self._plugins.call("before", asked, self._answers(application, user))
            for place, verdict in zip(told, verdicts, strict=True):
                values, faults = edits[place].model.check_update(verdict["sets"])
                if faults:
                    refused[place] = ModelFault(faults)
                elif verdict["faults"]:
                    refused[place] = PluginRefused(verdict["faults"])
                elif values:
                    edits[place].values = {**edits[place].values, **values}
        return previous, refused

    def after(
        self,
        application: str,
        user: str,
        edits: Sequence[Edit],
        done: Sequence[Record | Exception | None],
        previous: Sequence[Shown | None],
    ) -> None:
        """Have triggers called for what is durable now. Nobody waits for them."""
        told = []
        for edit, record, before in zip(edits, done, previous, strict=True):
            if not isinstance(record, Exception):
                one = _told(application, user, edit, "after", before)
                if self._plugins.concern(edit.model.name, one["event"]):
                    told.append(one if record is None else {**one, "data": self._shown(record)})
        if self._pending + len(told) > AFTER_MAX:
            about = {"data": {"changes": len(told)}}
            self._log.error("triggers are behind: some changes are not triggered", extra=about)
        elif told:
            self._pending += len(told)
            task = asyncio.get_running_loop().create_task(self._trigger(application, user, told))
            self._triggering.add(task)
            task.add_done_callback(self._triggering.discard)

    async def _trigger(self, application: str, user: str, told: list[dict[str, Any]]) -> None:
        try:
            await self._plugins.call("after", {"edits": told}, self._answers(application, user))
        except Refusal as error:
            self._log.error("triggers failed", extra={"data": {"reason": str(error)}})
        finally:
            self._pending -= len(told)

    def _answers(self, application: str, user: str) -> Answers:
        """What plugins may ask; changes that lead to changes come to an end."""
        inner, depth = self._answers_for(application, user), self._depth.get() + 1

        async def answer(verb: str, asked: Mapping[str, Any]) -> Any:
            if depth > DEPTH_MAX and verb not in ("get", "query"):
                raise NotPermitted(f"triggers have led to changes {DEPTH_MAX} times over")
            self._depth.set(depth)  # each answer is a task of its own
            return await inner(verb, asked)

        return answer

    async def close(self) -> None:
        """Let what is under way end, and what it leads to."""
        while self._triggering:
            await asyncio.wait(self._triggering)


def _told(application: str, user: str, edit: Edit, when: str, previous: Shown | None) -> dict[str, Any]:
    """What a plugin learns of an edit: see `civicnode.Context`."""
    given = {name: value for name, value in edit.values.items() if not isinstance(value, TextEdit)}
    changes = shown(edit.model, given)
    kind = _EVENTS.get(edit.kind, "Create" if previous is None else "Update")
    return {
        "application": application,
        "user": user,
        "model": edit.model.name,
        "instance_id": edit.id,
        "event": when + kind,
        "changes": changes,
        "previous": previous,
        "data": {**(previous or {"id": edit.id}), **changes},
    }
