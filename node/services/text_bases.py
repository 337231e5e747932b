"""Edits that an app made on what a document showed some time ago, given places that hold now.

Room: from a version to the state that had it, kept for a while or read from the
history, and from positions in it to units. Where those are by now is looked up
by the writer (`protocol.planning`), so edits that were made apart land where they
were meant, whatever has come in between.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from node.services.refusals import BaseUnknown
from protocol.body import Kind
from protocol.document import Document
from protocol.errors import Unmergeable
from protocol.planning import anchored
from protocol.schema import FieldType, Model
from protocol.shared import SharedField
from protocol.text_edit import AnchoredEdit, TextEdit
from storage.errors import UnknownDocument
from storage.store import Snapshot, Store
from storage.versions import find_version

EDITS_SINCE_MAX = 1_000  # a base may lie so many edits back, …
AGE_MAX_MS = 24 * 60 * 60 * 1000  # … or have been replaced so long ago, whichever reaches further
STATES_KEPT_MAX = 256
MEMORY_MAX_BYTES = 64 << 20  # of all that they and their structures take, about
_KINDS = {FieldType.TEXT: Kind.TEXT.value, FieldType.ARRAY: Kind.ARRAY.value}


class TextBases:
    """From several threads, one at a time."""

    def __init__(self, store: Store, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._now_ms = now_ms
        self._lock = threading.Lock()
        self._states: OrderedDict[tuple[str, str, str, str], tuple[Document, int]] = OrderedDict()
        self._kept_bytes = 0

    def anchor(self, model: Model, id: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values with every `TextEdit` turned into an `AnchoredEdit`. Blocks while it reads.

        Raises `UnknownDocument`, `BaseUnknown`, `Unmergeable`, or `EditFault` for what reaches beyond the end.
        """
        with self._lock, self._store.read() as snapshot:
            return {
                name: self._anchored(snapshot, model, id, name, value)
                if isinstance(value, TextEdit)
                else value
                for name, value in values.items()
            }

    def _anchored(self, snapshot: Snapshot, model: Model, id: str, name: str, edit: TextEdit) -> AnchoredEdit:
        document = self._base(snapshot, model, id, edit.base_version)
        kind = _KINDS[model.fields[name].type]
        return anchored(document.shared.get((kind, name)) or SharedField(kind, name), edit)

    def _base(self, snapshot: Snapshot, model: Model, id: str, version: str) -> Document:
        space = self._store.space(model.application)
        current = snapshot.documents.get(space, model.id, id)
        if current is None or not current.exists:
            raise UnknownDocument(f"{model.name}/{id} does not exist")
        if current.is_broken:
            raise Unmergeable(f"{model.name}/{id} is quarantined on this node")
        key = model.application, model.id, id
        self._keep((*key, current.version), current)  # it is the base of what apps are typing just now
        if current.version == version:
            return current
        kept = self._states.get((*key, version))
        if kept is not None:
            self._states.move_to_end((*key, version))
            return kept[0]
        found = find_version(snapshot, self._store.basis, space, model.id, id, version)
        if found is None:
            raise BaseUnknown("This node does not know that base_version: read the document again")
        is_old = found.ended_ms < self._now_ms() - AGE_MAX_MS
        if is_old and found.bodies_since > EDITS_SINCE_MAX:
            raise BaseUnknown(
                f"That base_version is more than {EDITS_SINCE_MAX} edits and 24 hours old: read the document again"
            )
        self._keep((*key, version), found.document)
        return found.document

    def _keep(self, key: tuple[str, str, str, str], document: Document) -> None:
        if key in self._states:
            self._states.move_to_end(key)
            return
        size = sum(field.memory_bytes for field in document.shared.values())
        self._states[key] = document, size
        self._kept_bytes += size
        while len(self._states) > STATES_KEPT_MAX or (
            self._kept_bytes > MEMORY_MAX_BYTES and len(self._states) > 1
        ):
            _, (_, dropped) = self._states.popitem(last=False)
            self._kept_bytes -= dropped
