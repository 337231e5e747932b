"""Keeps the query index up to the record: after each commit, after a model's change, and from scratch.

Room: which documents become which rows. The index is disposable: when it is
missing, behind or damaged it is reset and filled again in slices, while reads by
id and writes go on. Belongs to the one writer.
"""

from collections.abc import Iterable
from itertools import islice

from protocol.changes import Record
from protocol.document import Document
from protocol.integrate import Integrated
from protocol.schema import Model
from storage.catalog import Catalog, is_builtin
from storage.errors import IndexDamaged, StorageError
from storage.index import Index, Row
from storage.log import Arrival
from storage.store import Store


def row_of(model: Model, document: Document) -> Row | None:
    """The document's row; None if it is deleted, or quarantined because its model does not allow it."""
    if not document.exists:
        return None
    record = Record.of(model, document)
    if not is_builtin(model) and model.check_record(record.values):
        return None
    return Row(record.id, record.created_at_ms, record.updated_at_ms, record.created_by, record.version, record.values)


class Indexer:
    """Feeds one `Index` from one `Store`. Without an index it does nothing and is never up to date."""

    def __init__(self, store: Store, index: Index | None, catalog: Catalog) -> None:
        self._store = store
        self._index = index
        self._catalog = catalog
        self._refill: list[tuple[bytes, Model, str]] = []  # what is still to be read: space, model, after this id
        self.is_stale = index is None

    def open(self) -> None:
        """At start: find out whether the index is up to the record, and plan a refill if not."""
        if self._index is None:
            return
        identity = self._store.identity
        assert identity is not None
        try:
            position = self._index.position()
            with self._store.read() as snapshot:
                arrival = snapshot.log.last_arrival()
                applications = snapshot.applications()
            if position != (identity.store_id, arrival):
                self.reset()
                return
            for application in applications:
                for model in self._all_models(application):
                    if self._index.ensure_model(model):
                        self._refill.append((self._store.space(application), model, ""))
        except (IndexDamaged, StorageError):
            self.reset()
        self.is_stale = bool(self._refill)

    def _all_models(self, application: str) -> Iterable[Model]:
        return self._catalog.all_of(application)

    def reset(self) -> None:
        """Throw the index away and plan to fill it from the record."""
        assert self._index is not None and self._store.identity is not None
        self.is_stale = True
        self._index.reset(self._store.identity.store_id)
        with self._store.read() as snapshot:
            applications = snapshot.applications()
        self._refill = [(self._store.space(a), m, "") for a in applications for m in self._all_models(a)]
        for _, model, _ in self._refill:
            self._index.ensure_model(model)

    def models_added(self, models: Iterable[Model]) -> None:
        """Built-in models of an application that is used for the first time."""
        for model in models:
            self.model_changed(None, model)

    def model_changed(self, before: Model | None, model: Model | None) -> None:
        """A definition was made, changed or deleted."""
        if self._index is None:
            return
        try:
            if model is None:
                if before is not None:
                    self._index.drop_model(before.id)
                    self._refill = [job for job in self._refill if job[1].id != before.id]
            elif self._index.ensure_model(model) or (before is not None and before.version != model.version):
                space = self._store.space(model.application)
                if self._store.names.collection(space, model.id) is not None:
                    self._refill = [job for job in self._refill if job[1].id != model.id]
                    self._refill.append((space, model, ""))
                    self.is_stale = True
        except (IndexDamaged, StorageError):
            self.is_stale = True

    def follow(self, done: list[tuple[Integrated, Arrival]]) -> None:
        """Bring the index up to commits that were just stored. Never raises: a failure makes it stale."""
        if self._index is None or not done:
            return
        rows: list[tuple[Model, Row]] = []
        deletes: list[tuple[str, str]] = []
        for finished, _ in done:
            space = finished.commit.header.space
            for (model_id, id), document in finished.documents.items():
                model = self._catalog.by_id(space, model_id)
                if model is None:
                    continue
                row = row_of(model, document)
                if row is None:
                    deletes.append((model.id, id))
                else:
                    rows.append((model, row))
        try:
            self._index.apply(rows, deletes, 0 if self.is_stale else done[-1][1].number)
        except (IndexDamaged, StorageError):
            self._refill = []
            self.is_stale = True

    def refill(self, limit: int = 256) -> bool:
        """Read one slice of what is missing. Returns whether there is more. Blocks for a few milliseconds."""
        if self._index is None or not self.is_stale:
            return False
        try:
            if not self._refill:
                self.reset()
            if self._refill:
                self._refill_slice(self._index, limit)
            if not self._refill:  # only now does it stand for the record: until here its position said nothing
                with self._store.read() as snapshot:
                    self._index.apply([], [], snapshot.log.last_arrival())
                self.is_stale = False
        except (IndexDamaged, StorageError):
            self._refill = []
        return self.is_stale

    def _refill_slice(self, index: Index, limit: int) -> None:
        space, model, after_id = self._refill[0]
        with self._store.read() as snapshot:
            documents = list(islice(snapshot.documents.all_of(space, model.id, after_id=after_id), limit))
        current = self._catalog.by_id(space, model.id)
        if current is not None:
            found = [(document.id, row_of(current, document)) for document in documents]
            rows = [(current, row) for _, row in found if row is not None]
            deletes = [(current.id, id) for id, row in found if row is None]
            index.apply(rows, deletes, 0)
        if len(documents) < limit:
            self._refill.pop(0)
        else:
            self._refill[0] = (space, model, documents[-1].id)
