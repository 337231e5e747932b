"""Keeps the query index up to the record: after each commit, after a model's change, and from scratch.

Room: which documents become which rows, and whether queries may be answered. The
index is disposable: when it is missing or damaged it is filled anew, when it is
behind it catches up, in slices, while reads by id and writes go on. Belongs to
the one writer, but for `is_stale` and `distrust`.

While anything is still to be read the index keeps its old position, so that a
crash in between leaves it as far behind as it was.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice

from protocol.ancestor import PastOf
from protocol.body import decode_body
from protocol.changes import Record
from protocol.conflict import Conflict, conflicts
from protocol.document import Document
from protocol.ids import SpaceId
from protocol.integrate import Change, Integrated
from protocol.schema import Model
from storage.ancestry import KnownOrigins, past_in, past_when_asked
from storage.arrivals import Arrival, Rejudgement
from storage.catalog import MODEL, Catalog, is_builtin
from storage.errors import IndexDamaged, StorageError
from storage.index import Index, Row
from storage.index_conflicts import ConflictNews, Standing
from storage.store import Snapshot, Store

SLICE = 256  # documents read in one go: a few milliseconds, for which writers wait

Records = dict[tuple[str, str], Record | None]  # by model id and id, which no two applications share


@dataclass(slots=True)
class _Work:
    """What documents come to in the index."""

    rows: list[tuple[Model, Row]] = field(default_factory=list)
    deletes: list[tuple[str, str]] = field(default_factory=list)
    standings: list[Standing] = field(default_factory=list)


_Touched = dict[tuple[SpaceId, str, str], None]  # space, model, id of documents, in order


def row_of(model: Model, document: Document, past_of: PastOf) -> Row | None:
    """The document's row; None if it is deleted, or quarantined because its model does not allow it."""
    if not document.exists or document.is_broken:
        return None
    return _row_of_record(model, Record.of(model, document, past_of))


def _row_of_record(model: Model, record: Record) -> Row | None:
    """The same for a record that was just made of the document: what it cost to make is not paid twice."""
    if record.is_broken or (not is_builtin(model) and model.check_record(record.values)):
        return None
    return Row(
        record.id,
        record.created_at_ms,
        record.updated_at_ms,
        record.created_by,
        record.version,
        record.values,
    )


@dataclass(slots=True)
class _Reading:
    """A model whose documents are all to be read, from after this id."""

    space: SpaceId
    model_id: str
    after_id: str = ""


class Indexer:
    """Feeds one `Index` from one `Store`. Without an index it does nothing and is never up to date."""

    def __init__(
        self, store: Store, index: Index | None, catalog: Catalog, origins: KnownOrigins | None = None
    ) -> None:
        self._store = store
        self._index = index
        self._catalog = catalog
        self._origins = origins
        self._readings: list[_Reading] = []
        self._missed: tuple[int, int] | None = (
            None  # arrivals to read again: after the first, up to the second
        )
        self._is_behind = index is None
        self._is_distrusted = False
        self._news: list[ConflictNews] = []
        self._model_failure: Exception | None = None  # of a model's change, until its commit is followed
        self.failure: Exception | None = None  # what made it stale, if anything has failed

    @property
    def is_stale(self) -> bool:
        """Whether answers of the index would lack something. From any thread."""
        return self._is_behind or self._is_distrusted

    def is_stale_for(self, model_id: str | None) -> bool:
        """Whether answers about this model would, or about any if None. From any thread.

        A model that is read again, as after a change of its definition, holds up no other.
        """
        if not self.is_stale:
            return False
        if model_id is None or self._index is None or self._is_distrusted or self._missed is not None:
            return True
        return any(reading.model_id == model_id for reading in self._readings)

    def open(self) -> None:
        """At start: find out how far the index is behind, and plan to catch up. Never raises."""
        if self._index is None:
            return
        assert self._store.identity is not None
        try:
            position = self._index.position()
            with self._store.read() as snapshot:
                last = snapshot.log.last_arrival()
            store_id, arrival = position or (b"", 0)
            if store_id == self._store.identity.store_id and 0 < arrival <= last:
                self._go_on(self._index, arrival, last)
            else:
                self._begin_anew(self._index)
            self._settle(self._index)
        except StorageError as error:
            self.distrust(error)

    def distrust(self, error: Exception | None = None) -> None:
        """The index is not sound: have it filled anew. From any thread."""
        self.failure = error
        self._is_distrusted = True

    def _begin_anew(self, index: Index) -> None:
        assert self._store.identity is not None
        index.reset(self._store.identity.store_id)
        self._readings, self._missed, self._is_behind = [], None, True
        self._is_distrusted = False
        for model in self._models():
            index.ensure_model(model)
            self._read_all_of(model)

    def _go_on(self, index: Index, position: int, last: int) -> None:
        new = [model for model in self._models() if index.ensure_model(model)]
        if new:
            index.apply([], [], 0)  # should we not get to the end of it, nothing else would tell
        for model in new:
            self._read_all_of(model)
        if position < last:
            self._missed = position, last

    def _models(self) -> list[Model]:
        with self._store.read() as snapshot:
            applications = snapshot.applications()
        return [model for application in applications for model in self._catalog.all_of(application)]

    def _read_all_of(self, model: Model) -> None:
        space = self._store.space(model.application)
        self._forget_reading(model.id)
        if self._store.names.collection(space, model.id) is not None:
            self._readings = [*self._readings, _Reading(space, model.id)]  # a new list: others look at it
            self._is_behind = True

    def _forget_reading(self, model_id: str) -> None:
        self._readings = [reading for reading in self._readings if reading.model_id != model_id]

    def _settle(self, index: Index) -> None:
        """Call the index up to date if nothing is left to be read."""
        self._is_behind = bool(self._readings or self._missed)
        if self.is_stale:
            return
        with self._store.read() as snapshot:
            last = snapshot.log.last_arrival()
        position = index.position()
        if position is None or position[1] != last:
            index.apply([], [], last)
        self.failure = None

    # -- following the writer ------------------------------------------------------------------------------

    def models_added(self, models: Iterable[Model]) -> None:
        """Built-in models of an application that is used for the first time."""
        for model in models:
            self.model_changed(None, model)

    def model_changed(self, before: Model | None, model: Model | None) -> None:
        """A definition was made, changed or deleted, in a commit that is yet to be followed. Never raises."""
        if self._index is None or self._is_distrusted:
            return
        try:
            if model is not None:
                self._adapt(self._index, before, model)
            elif before is not None:
                self._forget_reading(before.id)
                self._index.drop_model(before.id)
        except Exception as error:  # what was written stands, whatever becomes of the index
            self._model_failure = error

    def _adapt(self, index: Index, before: Model | None, model: Model) -> None:
        """Make room for the model; read its documents again if there is none yet, or others may be valid now."""
        may_differ = before is None or not before.decides_as(model)
        if may_differ:  # said before its table changes under those who read it
            self._read_all_of(model)
        if index.ensure_model(model) and not may_differ:
            self._read_all_of(model)

    def follow(
        self,
        done: list[tuple[Integrated, Arrival]],
        records: Records,
        rejudged: Mapping[tuple[SpaceId, str, str], Document | None],
        first: int,
        upto: int,
        on_step: Callable[[], None] | None = None,
    ) -> None:
        """Bring the index up to what was just stored, arrivals `first` to `upto`. Never raises: a failure makes
        it stale.

        `records` are those of the changed documents that are known already, as the commits have left them, and
        those that are made on the way are added;
        `rejudged` has what became of documents that were judged again. `on_step` is called for every document.
        """
        if self._index is None or self._is_distrusted:
            return
        after = first - 1
        failure, self._model_failure = self._model_failure, None
        try:
            latest = {
                key: (finished.commit.header.space, document)
                for finished, _ in done  # several of them may have changed a document
                for key, document in finished.documents.items()
            }
            work = _Work()
            with ExitStack() as stack:
                pasts: dict[SpaceId, PastOf] = {}
                for key, (space, document) in latest.items():
                    if on_step is not None:
                        on_step()
                    if (space, *key) in rejudged:
                        continue
                    past_of = pasts.get(space)
                    if past_of is None:
                        past_of = pasts[space] = past_when_asked(self._store, space, stack, self._origins)
                    record = self._sort_in(space, key[0], document, records.get(key), past_of, work)
                    if record is not None:
                        records[key] = record
                for (space, model_id, id), found in rejudged.items():
                    document = found or Document(model_id, id)  # nothing may be left of it
                    self._sort_in(
                        space,
                        model_id,
                        document,
                        None,
                        past_when_asked(self._store, space, stack, self._origins),
                        work,
                    )
            is_up_to_date = failure is None and not self.is_stale
            position = upto if is_up_to_date else self._held_position(self._index)
            self._apply(self._index, work, position, settled_at=upto)
            if failure is None:
                self._read_short(self._index)
        except Exception as error:  # as above
            failure = error
        if isinstance(failure, IndexDamaged):
            self.distrust(failure)
        elif failure is not None:
            self.failure = failure
            self._missed = self._missed[0] if self._missed else after, upto
            self._is_behind = True

    def _read_short(self, index: Index) -> None:
        """Read the models at once that have few documents, before who changed them is answered."""
        if not self._readings or self._missed is not None:
            return
        for reading in self._readings:
            if not reading.after_id:
                self._read_slice(index, reading, SLICE)
        self._settle(index)

    def take_news(self) -> list[ConflictNews]:
        """Conflicts that have appeared or ended since this was last asked."""
        news, self._news = self._news, []
        return news

    def _apply(
        self, index: Index, work: _Work, position: int, *, settled_at: int, is_news: bool = True
    ) -> None:
        self._news += index.apply(
            work.rows,
            work.deletes,
            position,
            standings=work.standings,
            settled_at=settled_at,
            is_news=is_news,
        )

    def _sort_in(
        self,
        space: SpaceId,
        model_id: str,
        document: Document,
        record: Record | None,
        past_of: PastOf,
        work: _Work,
    ) -> Record | None:
        """What a document comes to. `record` is the one that was just made of it, if it was; else it is made."""
        model = self._catalog.by_id(space, model_id)
        if model is None or self._index is None:
            return record
        if record is None and document.exists:
            record = Record.of(model, document, past_of)
        row = _row_of_record(model, record) if record is not None else None
        if row is None:
            work.deletes.append((model.id, document.id))
        else:
            work.rows.append((model, row))
        if is_builtin(model):
            return record
        is_shown = row is not None or record is None
        found: Sequence[Conflict] = ()
        if is_shown:
            found = record.conflicts if record is not None else conflicts(document, model.rules, past_of)
        if found or document.is_erased or self._index.has_conflicts(model.id):
            named = tuple((conflict.id_in(space), conflict) for conflict in found)
            work.standings.append(Standing(model.application, model.id, document, named, is_shown))
        return record

    def _held_position(self, index: Index) -> int:
        position = index.position()
        return position[1] if position else 0

    # -- catching up -----------------------------------------------------------------------------------------

    def refill(self, limit: int = SLICE) -> bool:
        """Read one slice of what is missing. Returns whether there is more. Blocks for a few milliseconds.

        Raises `StorageError` if it cannot go on for now, as with a full disk: wait before asking again.
        """
        if self._index is None or not self.is_stale:
            return False
        try:
            if self._is_distrusted:
                self._begin_anew(self._index)
            elif self._readings:
                self._read_slice(self._index, self._readings[0], limit)
            elif self._missed:
                self._catch_up(self._index, *self._missed, limit)
            self._settle(self._index)
        except StorageError as error:
            self.failure = error
            if isinstance(error, IndexDamaged):
                self.distrust(error)
            raise
        return self.is_stale

    def _read_slice(self, index: Index, reading: _Reading, limit: int) -> None:
        model = self._catalog.by_id(reading.space, reading.model_id)
        documents: list[Document] = []
        if model is not None:
            work = _Work()
            with self._store.read() as snapshot:
                found = snapshot.documents.all_of(reading.space, model.id, after_id=reading.after_id)
                documents = list(islice(found, limit))
                past_of, last = past_in(snapshot, reading.space, self._origins), snapshot.log.last_arrival()
                for document in documents:
                    self._sort_in(reading.space, model.id, document, None, past_of, work)
            self._apply(index, work, self._held_position(index), settled_at=last, is_news=False)
        if len(documents) < limit:
            self._readings = [other for other in self._readings if other is not reading]
        else:
            reading.after_id = documents[-1].id

    def _catch_up(self, index: Index, after: int, upto: int, limit: int) -> None:
        work = _Work()
        with self._store.read() as snapshot:
            touched, reached = self._touched(snapshot, after, upto, limit)
            for space, model_id, id in touched:
                model = self._catalog.by_id(space, model_id)
                if model is not None and model.name == MODEL:
                    self._redo_model(index, space, id)
                document = snapshot.documents.get(space, model_id, id)
                if document is None:
                    work.deletes.append((model_id, id))
                else:
                    self._sort_in(
                        space, model_id, document, None, past_in(snapshot, space, self._origins), work
                    )
        for model in {model.id: model for model, _ in work.rows}.values():
            if index.ensure_model(model):
                self._read_all_of(model)
        self._apply(index, work, self._held_position(index), settled_at=upto)
        self._missed = (reached, upto) if reached < upto else None

    def _redo_model(self, index: Index, space: SpaceId, model_id: str) -> None:
        """Its definition has changed at a time that the index has missed."""
        model = self._catalog.by_id(space, model_id)
        if model is None:
            index.drop_model(model_id)
        else:
            index.ensure_model(model)
            self._read_all_of(model)

    def _touched(self, snapshot: Snapshot, after: int, upto: int, limit: int) -> tuple[_Touched, int]:
        """Documents that arrivals have changed: of one at least, then while there are fewer than `limit`."""
        touched: _Touched = {}
        for arrival in snapshot.log.happenings(after_number=after):
            if arrival.number > upto or len(touched) >= limit:
                return touched, arrival.number - 1
            if isinstance(arrival, Rejudgement):
                touched.update({told[:3]: None for told in arrival.documents})
                continue
            space, author = snapshot.names.space_of_chain(arrival.chain), snapshot.names.author(arrival.chain)
            for index, change in enumerate(arrival.changes):
                if change is Change.NONE:
                    continue
                data = snapshot.log.body(arrival.chain, arrival.seq, index)
                body = decode_body(data, author) if data is not None else None
                if body is not None:
                    touched[space, body.model, body.id] = None
        return touched, upto
