"""Values that only one document of a model may have, as far as this node can see to it.

Room: uniqueness holds against what is indexed here, and against the group of changes that is being planned.
Devices that were apart can both give out a value; both documents stay.
"""

from collections.abc import Callable, Sequence
from typing import Any

from protocol.ancestor import PastOf
from protocol.changes import Edit
from protocol.conflict import judge
from protocol.document import Document
from storage.errors import IndexDamaged, IndexUnavailable, NotUnique, StorageFull
from storage.index import Index
from storage.indexer import Indexer

_TAKEN = "This value is already taken"
_TAKEN_TOGETHER = "These values are already taken together"

_Claim = tuple[str, tuple[str, ...], tuple[Any, ...]]  # id of the model, fields, values


class Claims:
    """What a group of changes has taken so far, each value for one document."""

    def __init__(self) -> None:
        self._held: dict[_Claim, str] = {}
        self._before: list[tuple[_Claim, str | None]] = []  # of the change being planned

    def begin(self) -> None:
        """A change is planned that may have to be undone."""
        self._before.clear()

    def holder(self, claim: _Claim) -> str | None:
        return self._held.get(claim)

    def put(self, claim: _Claim, id: str) -> None:
        self._before.append((claim, self._held.get(claim)))
        self._held[claim] = id

    def undo(self) -> None:
        """Everything since `begin`."""
        for claim, id in reversed(self._before):
            if id is None:
                del self._held[claim]
            else:
                self._held[claim] = id
        self._before.clear()


class Uniqueness:
    """Asked by the one writer."""

    def __init__(self, index: Index | None, indexer: Indexer) -> None:
        self._index = index
        self._indexer = indexer

    def check(
        self,
        edit: Edit,
        current: Document | None,
        unique: Sequence[tuple[str, ...]],
        claims: Claims,
        *,
        document: Callable[[str, str], Document | None],
        past_of: PastOf,
        is_stored: bool,
    ) -> None:
        """Claim what an edit would have unique; `unique` are the fields that are so together.

        `current` is the document of the edit if it exists, `document` gives any as the group has left it, and
        `is_stored` tells whether anything was ever stored in this application. Raises `NotUnique`,
        `IndexUnavailable` or `StorageFull`.
        """
        if self._index is None:
            return
        taken: dict[str, str] = {}
        for names in unique:
            if not any(name in edit.values for name in names):
                continue
            shown = (
                judge(current, edit.model.rules, past_of).values
                if current is not None and len(names) > 1
                else {}
            )
            values = tuple(edit.values[name] if name in edit.values else shown.get(name) for name in names)
            if any(value is None for value in values):
                continue  # no value equals another
            claim = edit.model.id, names, tuple(map(_hashable, values))
            holder = claims.holder(claim)
            if holder is None and is_stored:
                holder = self._indexed_holder(edit, names, values)
            if holder is not None and holder != edit.id:
                held = document(edit.model.id, holder)  # this group may have freed the value
                if (
                    held is not None
                    and held.exists
                    and _holds(judge(held, edit.model.rules, past_of).values, names, values)
                ):
                    taken |= dict.fromkeys(names, _TAKEN if len(names) == 1 else _TAKEN_TOGETHER)
                    continue
            claims.put(claim, edit.id)
        if taken:
            raise NotUnique(taken)

    def _indexed_holder(self, edit: Edit, names: tuple[str, ...], values: tuple[Any, ...]) -> str | None:
        if self._index is None or self._indexer.is_stale_for(edit.model.id):
            if isinstance(self._indexer.failure, StorageFull):
                raise StorageFull(str(self._indexer.failure))
            raise IndexUnavailable("the query index is being rebuilt: ask again shortly")
        try:
            return self._index.find_unique_together(edit.model, names, values, except_id=edit.id)
        except IndexDamaged as error:
            self._indexer.distrust(error)
            raise IndexUnavailable("the query index is being rebuilt: ask again shortly") from error


def _hashable(value: Any) -> Any:
    return repr(value) if isinstance(value, (list, dict)) else value


def _holds(shown: dict[str, Any], names: tuple[str, ...], values: tuple[Any, ...]) -> bool:
    return all(shown.get(name) == value for name, value in zip(names, values, strict=True))
