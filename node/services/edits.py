"""Read, change and write one document as if alone.

Room: the loop that every edit of an account goes through. Edits on this node take turns; a change
that arrives from a peer in between is noticed inside the writer's transaction, and the edit is
worked out again from what it left.
"""

from collections.abc import Callable
from typing import Any

from node.services.ports import Changed, Record, Records, Values
from node.services.refusals import ChangedMeanwhile
from node.services.turns import Turns
from protocol.ids import builtin_model_id
from storage.errors import DocumentExists, UnknownDocument

TRIES_MAX = 4  # only a change from a peer can come in between, at the very moment


class Edits:
    def __init__(self, records: Records, changed: Changed) -> None:
        """`changed(model id, document id)` is called after each write, before it is answered, so that
        what was decided from the old state is forgotten in time."""
        self._records = records
        self._changed = changed
        self._turns = Turns()

    async def write(
        self,
        application: str,
        model: str,
        id: str,
        change: Callable[[Record | None], Values],
        *,
        user: str,
    ) -> None:
        """Write what `change` makes of the present document (None if there is none yet).

        No values, no write. Durable on return. Whatever `change` raises stops the edit. Raises
        TooBusy, and ChangedMeanwhile when peers keep changing the document.
        """
        async with self._turns.take(f"{application}\0{model}\0{id}"):
            for _ in range(TRIES_MAX):
                old = self._records.get(application, model, id)
                values = change(old)
                if not values:
                    return
                guard = _unchanged_since(old)
                try:
                    if old is None:
                        await self._records.create(application, model, values, user=user, id=id, guard=guard)
                    else:
                        await self._records.update(application, model, id, values, user=user, guard=guard)
                except (ChangedMeanwhile, DocumentExists, UnknownDocument):
                    continue
                self._changed(builtin_model_id(application, model), id)
                return
        raise ChangedMeanwhile


def _unchanged_since(seen: Record | None) -> Callable[[Any], None]:
    """A guard for the writer's transaction: the document is still the one that was read."""
    version = None if seen is None else seen.version

    def guard(current: Any) -> None:
        if (None if current is None else current.version) != version:
            raise ChangedMeanwhile

    return guard
