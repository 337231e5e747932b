"""Documents as applications use them: read, create, update, delete, find.

Room: the one service through which every surface reaches documents. It turns
requests into changes for the writer and stored documents into rendered JSON,
which it keeps in a bounded cache that the feed empties. Who may do what is
checked by the caller (`permissions`), or in a guard inside the transaction.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, NamedTuple

import msgspec

from node.services.business_logic import BusinessLogic
from node.services.permissions import Limit
from node.services.sealing import Sealing
from node.services.text_bases import TextBases
from node.writer import Writer
from protocol.changes import DocumentChange, Edit, EditKind, Guard, Record
from protocol.errors import BaseMoved
from protocol.ids import NODE_ID_BYTES, check_instance_id, sortable_id
from protocol.limits import BODIES_PER_COMMIT_MAX
from protocol.query import META_KINDS, Aggregation, Condition, Filter, Op, Query
from protocol.schema import Model
from protocol.text_edit import TextEdit
from storage.ancestry import KnownOrigins, past_in
from storage.catalog import MODEL, Catalog, is_builtin
from storage.errors import IndexBehind, IndexUnavailable, UnknownModel
from storage.feed_entry import FeedEntry
from storage.index import Index, Page
from storage.store import Snapshot, Store

CACHE_DOCUMENTS_MAX = 50_000
CACHE_BYTES_MAX = 64 << 20


_DEFINITIONS = f"{MODEL}_"  # the ids of the collections of definitions begin so
# A model that is met for the first time, or was just changed, takes the index some milliseconds.
GRACE_TRIES = 20
GRACE_S = 0.01
LONG_SHAPES_MAX = 1_000
LONG_SKIPS = 64
_Shape = tuple[str, str, str, tuple[tuple[str, str], ...]]


def _owned(asked: Filter | None, user: str) -> Filter:
    """What `asked` lets through of the documents that `user` created."""
    own = Condition("created_by", META_KINDS["created_by"], Op.EQ, (user,))
    groups = tuple((own, *group) for group in asked.groups) if asked else ((own,),)
    return Filter(groups, f"{asked.text if asked else ''}&created_by={user}")


def _shape(model: Model, query: Query) -> _Shape:
    """What queries have in common that take about as long: all but the values asked for."""
    conditions = () if query.filter is None else query.filter.groups
    asked = tuple((condition.field, condition.op.value) for group in conditions for condition in group)
    return model.application, model.id, query.sort, asked


class _Newest:
    """Records as the newest group of writes has left them; looked through only if somebody asks."""

    def __init__(self, entries: Sequence[FeedEntry]) -> None:
        self._entries = entries
        self._by_key: dict[tuple[str, str, str], Record] | None = None

    def get(self, key: tuple[str, str, str]) -> Record | None:
        by_key = self._by_key
        if by_key is None:
            by_key = {(e.application, e.model, e.id): e.record for e in self._entries if e.record is not None}
            self._by_key = by_key
        return by_key.get(key)


class Rendered(NamedTuple):
    """A document as JSON, with what the API needs to know without parsing it."""

    json: bytes
    version: str
    created_by: str

    def facts(self) -> dict[str, Any]:
        """The document, for rules of permission that look at it."""
        found: dict[str, Any] = msgspec.json.decode(self.json)
        return found


class Found(NamedTuple):
    """One page of a query: rendered documents, how many there are in all, and where the next page begins."""

    documents: list[Rendered]
    total: int
    next_cursor: str | None


def _has_edits(edit: Edit) -> bool:
    return TextEdit in map(type, edit.values.values())


def _shown(model: Model, record: Record) -> Record | None:
    """The record, unless it is quarantined by its model."""
    if record.is_broken:
        return None
    return record if is_builtin(model) or not model.check_record(record.values) else None


def _are_of(version: str, edit: Edit) -> bool:
    """Whether all edits of fields were made on this version."""
    return all(not isinstance(v, TextEdit) or v.base_version == version for v in edit.values.values())


def vector_to_json(vector: Mapping[bytes, tuple[int, int]]) -> dict[str, int]:
    """How far each writer has got in a document, as the seed's `VersionVector` compares it: it only grows.

    A writer is a node in one life of its store, `<node>.<incarnation>`; the number is of its last write here.
    """
    return {
        f"{author[:NODE_ID_BYTES].hex()}.{author[NODE_ID_BYTES:].hex()}": seq * BODIES_PER_COMMIT_MAX + index
        for author, (seq, index) in sorted(vector.items())
    }


class Records:
    """Use it on the event loop. Reads by id take microseconds; long queries run in a small pool."""

    def __init__(
        self,
        store: Store,
        catalog: Catalog,
        index: Index,
        writer: Writer,
        *,
        now_ms: Callable[[], int],
        random_bits: Callable[[int], int],
        is_index_stale: Callable[[str | None], bool],
        readers: int = 2,
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._index = index
        self._writer = writer
        self._origins = KnownOrigins()  # where values came from that stand side by side
        self._now_ms = now_ms
        self._random_bits = random_bits
        self._bases = TextBases(store, now_ms)
        self._pool = ThreadPoolExecutor(readers, thread_name_prefix="query")
        self._cache: OrderedDict[tuple[str, str, str], Rendered] = OrderedDict()
        self._cache_bytes = 0
        self._newest = _Newest(())
        self._encoder = msgspec.json.Encoder()
        self._long_shapes: dict[
            _Shape, int
        ] = {}  # queries like these were long: how often not to try them briefly
        self._is_index_stale = is_index_stale
        self.sealing: Sealing | None = None  # of encrypted fields; without it none can be written
        self.logic: BusinessLogic | None = None  # what plugins have to say about changes

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    # -- models

    def model(self, application: str, name_or_id: str) -> Model:
        """An application's own model, by name or id. Raises `UnknownModel`, for built-in models too."""
        model = self._catalog.find(application, name_or_id)
        if model is None or is_builtin(model):
            raise UnknownModel(f"There is no data model '{name_or_id}'")
        return model

    def builtin(self, application: str, name: str) -> Model:
        """A built-in model of an application, whether or not that application has been written to."""
        return self._catalog.builtin(application, name)

    # -- reading

    def get(self, model: Model, id: str) -> Record | None:
        """The record, or None if it does not exist, is deleted, or is quarantined by its model."""
        with self._store.read() as snapshot:
            return self._read(snapshot, model, id)

    def _read(self, snapshot: Snapshot, model: Model, id: str) -> Record | None:
        space = self._store.space(model.application)
        document = snapshot.documents.get(space, model.id, id)
        if document is None or not document.exists or document.is_broken:
            return None
        record = Record.of(model, document, past_in(snapshot, space, self._origins))
        return _shown(model, record)

    def quarantined(self, model: Model, ids: Sequence[str]) -> list[Record]:
        """Those of the records that are here and not shown, because their model does not allow what they hold."""
        with self._store.read() as snapshot:
            space = self._store.space(model.application)
            past_of = past_in(snapshot, space)
            documents = [snapshot.documents.get(space, model.id, id) for id in ids]
            records = [
                Record.of(model, document, past_of)
                for document in documents
                if document is not None and document.exists and not document.is_broken
            ]
        return [record for record in records if model.check_record(record.values)]

    async def holds_others(self, application: str, model_id: str, user: str) -> bool:
        """Whether a collection has documents that someone else created; also if its model is deleted."""

        def look() -> bool:
            with self._store.read() as snapshot:
                found = snapshot.documents.all_of(self._store.space(application), model_id)
                return any(document.exists and document.created_user != user for document in found)

        found: bool = await self.in_pool(look)
        return found

    async def hidden_by(self, model: Model, changed: Model) -> list[str]:
        """Ids of the records that `model` shows and `changed` would not."""

        def look() -> list[str]:
            space = self._store.space(model.application)
            with self._store.read() as snapshot:
                past_of = past_in(snapshot, space)
                found = (
                    (document, Record.of(model, document, past_of))
                    for document in snapshot.documents.all_of(space, model.id)
                    if document.exists
                )
                return [
                    document.id
                    for document, record in found
                    if _shown(model, record) is not None
                    and changed.check_record(Record.of(changed, document, past_of).values)
                ]

        hidden: list[str] = await self.in_pool(look)
        return hidden

    def creator(self, model: Model, id: str) -> str | None:
        """Who created the document, be it deleted since; None if there never was one, or it was erased."""
        with self._store.read() as snapshot:
            document = snapshot.documents.get(self._store.space(model.application), model.id, id)
        return None if document is None or document.is_erased else document.created_user

    def creator_of_shown(self, model: Model, id: str) -> str | None:
        """The same of a document that is shown or deleted; None if its model does not allow it."""
        with self._store.read() as snapshot:
            document = snapshot.documents.get(self._store.space(model.application), model.id, id)
            if document is None or (document.exists and self._read(snapshot, model, id) is None):
                return None
            return document.created_user

    def rendered(self, model: Model, id: str) -> Rendered | None:
        """The record as JSON, from the cache where possible."""
        key = (model.application, model.id, id)
        cached = self._cache.get(key)
        if cached is not None:
            self._cache.move_to_end(key)
            return cached
        fresh = self._newest.get(key)
        if fresh is not None and fresh.model is model:
            return self._keep(model, _shown(model, fresh))
        with self._store.read() as snapshot:
            return self._render(snapshot, model, id)

    def rendered_with_vector(self, model: Model, id: str) -> tuple[Rendered, dict[str, int]] | None:
        """The record as JSON with its version vector, both of one state."""
        with self._store.read() as snapshot:
            space = self._store.space(model.application)
            document = snapshot.documents.get(space, model.id, id)
            rendered = self._render(snapshot, model, id)
        if document is None or rendered is None:
            return None
        return rendered, vector_to_json(document.vector)

    def rendered_by_id(self, model: Model, ids: Sequence[str]) -> dict[str, Rendered]:
        """Those of the records that are there, all of one state."""
        cached = self._cache.get
        found = {id: cached((model.application, model.id, id)) for id in ids}
        if None in found.values():
            with self._store.read() as snapshot:
                found = {id: hit or self._render(snapshot, model, id) for id, hit in found.items()}
        return {id: document for id, document in found.items() if document is not None}

    def _rendered_all(self, model: Model, ids: Sequence[str]) -> list[Rendered]:
        """The records that are there, in the order of the ids; all that is read is of one state."""
        return list(self.rendered_by_id(model, ids).values())

    def _render(self, snapshot: Snapshot, model: Model, id: str) -> Rendered | None:
        return self._keep(model, self._read(snapshot, model, id))

    def _keep(self, model: Model, record: Record | None) -> Rendered | None:
        """The record as JSON, in the cache from now on."""
        if record is None:
            return None
        rendered = Rendered(self._encoder.encode(record.facts()), record.version, record.created_by)
        if self._catalog.find(model.application, model.id) is not model:
            return rendered  # of a definition that was changed while the caller waited: not for others
        key = model.application, model.id, record.id
        if (replaced := self._cache.pop(key, None)) is not None:
            self._cache_bytes -= len(replaced.json)
        self._cache[key] = rendered
        self._cache_bytes += len(rendered.json)
        while len(self._cache) > CACHE_DOCUMENTS_MAX or self._cache_bytes > CACHE_BYTES_MAX:
            _, dropped = self._cache.popitem(last=False)
            self._cache_bytes -= len(dropped.json)
        return rendered

    def forget(self, entries: Sequence[FeedEntry]) -> None:
        """Drop what has changed from the cache. Called by the feed before anyone else hears of it.

        Those who hear of it will want to see it: what was made of it while it was stored is not made again.
        """
        self._newest = _Newest(entries)
        for entry in entries if self._cache else ():
            dropped = self._cache.pop((entry.application, entry.model, entry.id), None)
            if dropped is not None:
                self._cache_bytes -= len(dropped.json)
            if entry.model.startswith(
                _DEFINITIONS
            ):  # every rendering of its documents may be another one now
                self._cache.clear()
                self._cache_bytes = 0

    async def find(self, model: Model, query: Query, limit: Limit | None = None) -> Found:
        """One page of a query, of what `limit` lets through. Raises `IndexUnavailable` while the index is being
        rebuilt."""
        page = await self._page(model, query, limit)
        return Found(self._rendered_all(model, page.ids), page.total, page.next_cursor)

    async def find_records(
        self, model: Model, query: Query, limit: Limit | None = None
    ) -> tuple[list[Record], int, str | None]:
        """As `find`, with the records themselves."""
        page = await self._page(model, query, limit)
        records = [record for id in page.ids if (record := self.get(model, id)) is not None]
        return records, page.total, page.next_cursor

    async def aggregate(
        self, model: Model, aggregation: Aggregation, limit: Limit | None = None
    ) -> list[dict[str, Any]]:
        """Figures over what `limit` lets through."""
        self.raise_if_stale(model)
        if limit is not None and limit.passes is None:
            aggregation = replace(aggregation, filter=_owned(aggregation.filter, limit.owner or ""))
            limit = None
        groups: list[dict[str, Any]]
        if limit is None:
            groups = await self.in_pool(self._index.aggregate, model, aggregation)
        else:
            groups = await self.in_pool(self._passing, model, limit, self._index.aggregate, aggregation)
        return groups

    def _passing(self, model: Model, limit: Limit, ask: Callable[..., Any], asked: Any) -> Any:
        """What the index answers of the documents of which `limit` is true: each that is met is read for that."""
        passes = limit.passes
        assert passes is not None
        with self._store.read() as snapshot:
            space = self._store.space(model.application)

            def is_allowed(id: str) -> bool:
                document = snapshot.documents.get(space, model.id, id)
                if document is None or not document.exists or document.is_broken:
                    return False
                return passes(Record.of(model, document, past_in(snapshot, space)))

            return ask(model, asked, is_allowed)

    async def sql(self, text: str, *, limit_rows: int) -> tuple[list[str], list[tuple[Any, ...]]]:
        """A raw SELECT over the index. Raises `QueryRefused`."""
        table: tuple[list[str], list[tuple[Any, ...]]]
        self.raise_if_stale(None)
        table = await self.in_pool(lambda: self._index.sql(text, limit_rows=limit_rows))
        return table

    async def _page(self, model: Model, query: Query, limit: Limit | None) -> Page:
        """A page of the index. One that is being brought up to date is given a moment, before the app is told."""
        if limit is not None and limit.passes is None:
            query, limit = replace(query, filter=_owned(query.filter, limit.owner or "")), None
        for _ in range(GRACE_TRIES):
            try:
                return await self._page_now(model, query, limit)
            except (IndexUnavailable, IndexBehind):
                await asyncio.sleep(GRACE_S)
        return await self._page_now(model, query, limit)

    async def _page_now(self, model: Model, query: Query, limit: Limit | None) -> Page:
        self.raise_if_stale(model)
        if not self._catalog.knows(model.application):
            return Page([], 0, None)
        if limit is not None:
            passing: Page = await self.in_pool(self._passing, model, limit, self._index.query, query)
            return passing
        shape = _shape(model, query)
        skips = self._long_shapes.get(shape, 0)
        if not skips:
            page = self._index.query_briefly(model, query)
            if page is not None:
                return page
            if len(self._long_shapes) >= LONG_SHAPES_MAX:
                self._long_shapes.clear()
        self._long_shapes[shape] = (skips or LONG_SKIPS) - 1
        found: Page = await self.in_pool(self._index.query, model, query)
        return found

    def raise_if_stale(self, model: Model | None) -> None:
        """Raises `IndexUnavailable` while answers of the index about a model, or any if None, would lack something."""
        if self._is_index_stale(None if model is None else model.id):
            raise IndexUnavailable("The query index is being rebuilt; reads by id go on")

    async def in_pool(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Do what may take long, as reading much, on one of a few threads."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)

    # -- writing: values have been checked against the model

    def new_id(self) -> str:
        return sortable_id(self._now_ms(), self._random_bits(80))

    async def create(
        self,
        model: Model,
        values: Mapping[str, Any],
        *,
        user: str,
        id: str | None = None,
        guard: Guard | None = None,
    ) -> Record:
        """A new document. Durable when it returns. Raises `DocumentExists`, `NotUnique`, or as its guard."""
        id = self.new_id() if id is None else check_instance_id(id)
        return await self._one(model, Edit(EditKind.CREATE, model, id, values, None, guard), user)

    async def update(
        self,
        model: Model,
        id: str,
        values: Mapping[str, Any],
        *,
        user: str,
        if_match: str | None = None,
        guard: Guard | None = None,
    ) -> Record:
        """Change the given fields. Durable when it returns. Raises `UnknownDocument`, `VersionMismatch`, …"""
        edit = Edit(EditKind.UPDATE, model, id, values, if_match, guard)
        if _has_edits(edit):
            shown = self.rendered(model, id)
            if shown is not None and _are_of(shown.version, edit):
                try:  # what is edited is what is here, mostly: then the writer finds the places by itself
                    return await self._one(model, edit, user)
                except BaseMoved:
                    pass
            await self._anchor(edit)
        return await self._one(model, edit, user)

    async def put(
        self, model: Model, id: str, values: Mapping[str, Any], *, user: str, guard: Guard | None = None
    ) -> Record:
        """Create or change. Durable when it returns."""
        return await self._one(
            model, Edit(EditKind.PUT, model, check_instance_id(id), values, None, guard), user
        )

    async def delete(
        self, model: Model, id: str, *, user: str, if_match: str | None = None, guard: Guard | None = None
    ) -> None:
        """Delete the document. Durable when it returns. Raises `UnknownDocument`, `VersionMismatch`, …"""
        edit = Edit(EditKind.DELETE, model, id, {}, if_match, guard)
        await self._write(DocumentChange(model.application, user, [edit]))

    async def _one(self, model: Model, edit: Edit, user: str) -> Record:
        record = (await self._write(DocumentChange(model.application, user, [edit])))[0]
        assert record is not None
        return record

    async def _write(self, change: DocumentChange) -> list[Record | None]:
        """All of the edits, or none, once values are sealed and plugins had their say."""
        if self.sealing is not None:
            self.sealing.seal(change.edits, change.user)
        logic, previous = self.logic, None
        if logic is not None and logic.concerns(change.edits):
            previous, refused = await logic.before(change.application, change.user, change.edits)
            if refused:
                change.reached = next(iter(refused))
                raise refused[change.reached]
        done: list[Record | None] = await self._writer.submit(change)
        if logic is not None and previous is not None:
            logic.after(change.application, change.user, change.edits, done, previous)
        return done

    async def apply(self, application: str, user: str, edits: list[Edit]) -> list[Record | None]:
        """Several edits in one signed commit: all of them, or none. Durable when it returns."""
        return await self.apply_change(DocumentChange(application, user, edits))

    async def apply_change(self, change: DocumentChange) -> list[Record | None]:
        """The same, with `change.reached` for who wants to know which edit failed."""
        for position, edit in enumerate(change.edits):
            if _has_edits(edit):
                change.reached = position
                await self._anchor(edit)
        return await self._write(change)

    def submit_each(
        self, application: str, user: str, edits: list[Edit]
    ) -> "asyncio.Future[list[Record | Exception | None]]":
        """Several edits that stand each for itself: a record or an error for each, once all are durable.

        Not awaited here, so that a caller can hand in the next ones meanwhile.
        """
        change = DocumentChange(application, user, edits, is_atomic=False)
        if any(edit.model.encrypted or _has_edits(edit) for edit in edits) or (
            self.logic is not None and self.logic.concerns(edits)
        ):
            return asyncio.ensure_future(self._submit_prepared(change))
        return self._writer.submit(change)

    async def _submit_prepared(self, change: DocumentChange) -> list[Record | Exception | None]:
        failed: dict[int, Exception] = {}
        for place, edit in enumerate(change.edits):
            if edit.model.encrypted or _has_edits(edit):
                try:
                    if self.sealing is not None:
                        self.sealing.seal([edit], change.user)
                    if _has_edits(edit):
                        await self._anchor(edit)
                except Exception as error:  # it belongs to this edit alone
                    failed[place] = error
        logic, previous, count = self.logic, None, len(change.edits)
        if logic is not None and logic.concerns(change.edits):
            previous, refused = await logic.before(change.application, change.user, change.edits)
            failed = refused | failed
        left = [place for place in range(count) if place not in failed]
        change.edits = [change.edits[place] for place in left]
        done: list[Record | Exception | None] = await self._writer.submit(change)
        if logic is not None and previous is not None:
            before = [previous[place] for place in left]
            logic.after(change.application, change.user, change.edits, done, before)
        written = iter(done)
        return [failed[place] if place in failed else next(written) for place in range(count)]

    async def _anchor(self, edit: Edit) -> None:
        """Find the places of edits of collaborative fields. Raises as `TextBases.anchor`, and as the guard."""
        if edit.guard is not None:
            edit.guard(self.get(edit.model, edit.id))  # who may not write is told no more than that
        edit.values = await self.in_pool(self._bases.anchor, edit.model, edit.id, edit.values)
