"""What the one write path refuses of edits asked for here, beyond what can be seen before the transaction.

Room: the definition in force, conflicts that only a resolution ends, and the record as the edit leaves it. What
comes from peers is never refused: it is integrated, and hidden where its model does not allow it.
"""

from collections.abc import Callable, Sequence

from protocol.ancestor import PastOf
from protocol.changes import Edit, EditKind, Record
from protocol.conflict import conflicts
from protocol.document import Document
from protocol.ids import SpaceId
from protocol.schema import Model
from storage.catalog import Catalog, is_builtin
from storage.errors import ConflictOpen, DocumentQuarantined, IndexUnavailable, RecordRefused, UnknownModel


def check_definition(catalog: Catalog, application: str, edit: Edit) -> None:
    """Refuse values that were checked against a definition that is not in force any more."""
    model = edit.model
    current = catalog.find(application, model.id)
    if current is model or is_builtin(model):
        return
    if current is None:
        raise UnknownModel(f"there is no data model '{model.name}' any more")
    if not current.decides_as(model):
        raise IndexUnavailable(f"the data model '{model.name}' has just changed: ask again")


def raise_if_broken(edit: Edit, current: Document | None) -> None:
    """Refuse to write into a document that this node cannot show, whatever is written. Deleting it goes."""
    if current is not None and current.is_broken and edit.kind is not EditKind.DELETE:
        raise DocumentQuarantined(f"{edit.model.name}/{edit.id}", {})


def check_references(
    edit: Edit,
    before: Record | None,
    references: Sequence[tuple[str, str]],
    find_model: Callable[[str], Model | None],
    document: Callable[[str, str], Document | None],
) -> None:
    """Refuse a reference to nothing that is here, unless the record held it before. `document` gives any as the
    group has left it. What was deleted since, or elsewhere, stays referred to: a reference is no lock."""
    faults: dict[str, str] = {}
    for name, target_name in references:
        id = edit.values.get(name)
        if id is None or (before is not None and before.values.get(name) == id):
            continue
        target = find_model(target_name)
        if target is None:
            faults[name] = f"There is no data model '{target_name}'"
            continue
        found = document(target.id, id)
        is_itself = (target.id, id) == (edit.model.id, edit.id)
        if not is_itself and (found is None or not found.exists):
            faults[name] = f"There is no {target.name} '{id}'"
    if faults:
        raise RecordRefused(faults)


def raise_if_open(space: SpaceId, edit: Edit, current: Document, past_of: PastOf) -> None:
    """Refuse what would take away values that only a resolution may: the field's, or the whole document's."""
    is_whole = edit.kind is EditKind.DELETE or not current.exists
    found = conflicts(current, edit.model.rules, past_of)
    touched = {c.field: c.id_in(space) for c in found if is_whole or c.field in edit.values}
    if touched:
        raise ConflictOpen(touched)


def raise_if_refused(edit: Edit, before: Record | None, after: Record) -> None:
    """Refuse an edit that leaves a record which its model does not allow, and which nobody would see.

    `before` is the record that the edit met; a new one was checked as a whole before it came here. Who mends a
    quarantined record is let through. Raises `DocumentQuarantined` or `RecordRefused`.
    """
    model = edit.model
    if before is None or is_builtin(model):
        return
    faults = model.check_record(after.values)
    if not faults:
        return
    if model.check_record(before.values):
        raise DocumentQuarantined(f"{model.name}/{edit.id}", faults)
    raise RecordRefused(faults)
