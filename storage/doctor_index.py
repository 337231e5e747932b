"""The query index compared with the record: is it whole, how far has it read, are its rows right.

Room: findings in words. An index that is behind, or of another life of the store,
is not at fault: the node brings it up to the record by itself.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from protocol.conflict import conflicts
from protocol.schema import Model
from storage.ancestry import past_in
from storage.catalog import Catalog, is_builtin
from storage.errors import IndexBehind, IndexDamaged
from storage.index import Index, Row
from storage.indexer import row_of
from storage.store import Snapshot, Store


@dataclass(slots=True)
class IndexFindings:
    """`behind` counts arrivals that the index has yet to read; its rows are compared when there are none."""

    faults: list[str] = field(default_factory=list)
    behind: int = 0
    rows: int = 0


def examine_index(path: Path, store: Store, builtins: Sequence[Model]) -> IndexFindings:
    """Look at the index file. Rows of the program's own models are compared if `builtins` has them."""
    found = IndexFindings()
    try:
        with closing(Index(str(path), readers=1)) as index:
            _examine(index, store, builtins, found)
    except IndexDamaged as error:
        found.faults.append(str(error))
    return found


def _examine(index: Index, store: Store, builtins: Sequence[Model], found: IndexFindings) -> None:
    assert store.identity is not None
    found.faults += index.check()
    with store.read() as snapshot:
        last = snapshot.log.last_arrival()
    store_id, position = index.position() or (b"", 0)
    if store_id != store.identity.store_id:
        position = 0
    found.behind = max(last - position, 0)
    if position > last:
        found.faults.append(f"it has read {position} arrivals, and there are {last}")
    elif position == last and not found.faults:
        _compare(index, store, builtins, found)


def _compare(index: Index, store: Store, builtins: Sequence[Model], found: IndexFindings) -> None:
    catalog = Catalog(store)
    for model in builtins:
        catalog.add_builtin(model)
    with store.read() as snapshot:
        catalog.load(snapshot)
        for application in snapshot.applications():
            for model in catalog.all_of(application):
                if model.rules.is_plugins:
                    continue  # what a plugin made of values is known where it is loaded
                open_ids: set[str] = set()
                rows = _rows(snapshot, store, model, found, open_ids)
                try:
                    found.faults += [f"{model.name}: {line}" for line in index.differences(model, rows)]
                    listed = index.open_conflicts(model.id)
                    found.faults += [f"{model.name}: conflict {id} is missing" for id in open_ids - listed]
                    found.faults += [f"{model.name}: conflict {id} is none" for id in listed - open_ids]
                except IndexBehind:
                    found.faults.append(f"{model.name} is not in it")


def _rows(
    snapshot: Snapshot, store: Store, model: Model, found: IndexFindings, open_ids: set[str]
) -> Iterator[Row]:
    """The rows that should be there; `open_ids` gets the conflicts that should."""
    space = store.space(model.application)
    past_of = past_in(snapshot, space)
    for document in snapshot.documents.all_of(space, model.id):
        row = row_of(model, document, past_of)
        if row is not None:
            found.rows += 1
        if not is_builtin(model) and (row is not None or not document.exists):
            open_ids.update(c.id_in(space) for c in conflicts(document, model.rules, past_of))
        if row is not None:
            yield row
