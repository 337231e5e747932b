"""Conflicts as people see them: which there are, what they are between, and ending one.

Room: from a row of the index's table of conflicts to its JSON form (CONTRACT, "S1"), and from a resolution
to an edit. Open ones are shown as their document stands, ended ones as the log has them. Who may see and
end them is asked by the caller.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from node.services.permissions import Owned, Subject
from node.services.records import Records, Rendered
from node.services.refusals import InvalidFields, Refusal
from node.services.sealing import shown
from protocol.body import Dot, Kind
from protocol.changes import Edit, EditKind, Guard, Record
from protocol.clock import ms_of_hlc
from protocol.conflict import DELETED, Conflict, conflicts
from protocol.document import Document
from protocol.ids import NODE_ID_BYTES, SpaceId
from protocol.resolution import Resolution, values_before_deletion
from protocol.schema import Model
from protocol.text_edit import TextEdit
from protocol.times import datetime_from_ms
from storage.ancestry import past_in, told_at
from storage.catalog import Catalog, is_builtin
from storage.documents import BodyAddress
from storage.errors import ConflictChanged
from storage.index import Index
from storage.index_conflicts import ConflictQuery, ConflictRow, State
from storage.store import Snapshot, Store


class UnknownConflict(Refusal):
    """There is no such conflict, or it ended so long ago that it is forgotten."""

    def __init__(self) -> None:
        super().__init__("There is no such conflict")


class ConflictMoved(Refusal):
    """The conflict is over, or another one by now: `current` is what it has become, if anything is left of it."""

    def __init__(self, current: dict[str, Any] | None) -> None:
        open_now = current is not None and not current["resolved"]
        super().__init__(
            "Other values have come meanwhile: resolve this conflict as it is now"
            if open_now
            else "This conflict is resolved already"
        )
        self.current = current


@dataclass(frozen=True, slots=True)
class ConflictSubject:
    """What a conflict is about, and what decides who may see it: `created_by` is its document's."""

    model: Model
    id: str
    field: str
    created_by: str
    shown: Callable[[], Rendered | None] = lambda: None

    def facts(self) -> dict[str, Any] | None:
        """The document as it stands; None if it is deleted or hidden."""
        document = self.shown()
        return None if document is None else document.facts()


class ConflictList(NamedTuple):
    items: list[dict[str, Any]]
    total: int
    next_cursor: str | None


class Conflicts:
    """`find` and `resolve` are for the event loop, the rest for any thread."""

    def __init__(self, store: Store, catalog: Catalog, index: Index, records: Records) -> None:
        self._store = store
        self._catalog = catalog
        self._index = index
        self._records = records

    async def find(
        self, query: ConflictQuery, may_read: Callable[[Model, Owned], bool] = lambda model, record: False
    ) -> ConflictList:
        """One page; `may_read` is asked about documents of `judged_models`, on another thread.

        Raises `IndexUnavailable` while the index is being rebuilt, `QueryFault` for a bad cursor.
        """
        self._records.raise_if_stale(None)
        found: ConflictList = await self._records.in_pool(self._find, query, may_read)
        return found

    def _find(self, query: ConflictQuery, may_read: Callable[[Model, Owned], bool]) -> ConflictList:
        items: list[dict[str, Any]] = []
        with self._store.read() as snapshot:
            space = self._store.space(query.application)

            def is_allowed(model_id: str, id: str) -> bool:
                model, document = (
                    self._catalog.by_id(space, model_id),
                    snapshot.documents.get(space, model_id, id),
                )
                if model is None or document is None:
                    return False
                record = None
                if document.exists and not document.is_broken:
                    record = Record.of(model, document, past_in(snapshot, space))
                if record is None or model.check_record(record.values):  # of what nobody is shown
                    return may_read(model, Subject(document.created_user))
                return may_read(model, record)

            page = self._index.conflicts(replace(query, is_allowed=is_allowed))
            for row in page.rows:
                content = self._view(snapshot, row)
                if content is not None:
                    items.append(content)
        return ConflictList(items, page.total, page.next_cursor)

    async def among(
        self, application: str, documents: Sequence[tuple[str, str, str]]
    ) -> list[tuple[ConflictSubject, dict[str, Any]]]:
        """The open conflicts of documents (application, model, id), as far as they are of this application."""

        def look() -> list[tuple[ConflictSubject, dict[str, Any]]]:
            found: list[tuple[ConflictSubject, dict[str, Any]]] = []
            space = self._store.space(application)
            with self._store.read() as snapshot:
                for own, model_id, id in documents:
                    model = self._catalog.find(application, model_id) if own == application else None
                    document = snapshot.documents.get(space, model_id, id)
                    if model is None or is_builtin(model) or model.id != model_id or document is None:
                        continue
                    for conflict in conflicts(document, model.rules, past_in(snapshot, space)):
                        subject = self._subject(model, id, conflict.field, document.created_user)
                        found.append((subject, open_content(conflict, model, space)))
            return found

        listed: list[tuple[ConflictSubject, dict[str, Any]]] = await self._records.in_pool(look)
        return listed

    def subject(self, application: str, id: str) -> ConflictSubject:
        """What a conflict of this application is about. Raises `UnknownConflict`."""
        row = self._index.conflict(id)
        model = None if row is None or row.application != application else self._model(row)
        if row is None or model is None:
            raise UnknownConflict
        return self._subject(model, row.instance_id, row.field, row.created_by)

    def _subject(self, model: Model, id: str, field: str, created_by: str) -> ConflictSubject:
        return ConflictSubject(model, id, field, created_by, lambda: self._records.rendered(model, id))

    def view(self, application: str, id: str) -> dict[str, Any] | None:
        """A conflict as JSON, by an id that it has or had; None if it is not known in this application."""
        row = self._index.conflict(id)
        if row is None or row.application != application:
            return None
        with self._store.read() as snapshot:
            content = self._view(snapshot, row)
            model = self._model(row)
            return content if content is not None or model is None else self._current(snapshot, row, model)

    def _view(self, snapshot: Snapshot, row: ConflictRow) -> dict[str, Any] | None:
        """The conflict of a row; None if it has become another one."""
        model = self._model(row)
        space = self._store.space(row.application)
        if model is None or row.state is State.REPLACED:
            return None
        if row.state is State.RESOLVED:
            return self._ended(snapshot, space, model, row)
        document = snapshot.documents.get(space, row.model_id, row.instance_id)
        return (
            None if document is None else _find_open(snapshot, space, model, document, row.field, id=row.id)
        )

    def _model(self, row: ConflictRow) -> Model | None:
        model = self._catalog.find(row.application, row.model_id)
        return None if model is None or is_builtin(model) or model.id != row.model_id else model

    # -- what it is between

    def _ended(self, snapshot: Snapshot, space: SpaceId, model: Model, row: ConflictRow) -> dict[str, Any]:
        values = [said for dot in row.dots if (said := _said(snapshot, space, dot, row.field)) is not None]
        content = _content(row.id, model, row.instance_id, row.field, values, resolved=True)
        content["resolved_at"] = None if row.ended_at_ms is None else datetime_from_ms(row.ended_at_ms)
        content["resolved_by"] = row.ended_by
        content["resolution"] = None
        if row.ending is not None:
            end = _said(snapshot, space, row.ending, row.field)
            if end is not None:
                value = _masked(model, row.field, end["value"])
                content["resolution"] = (
                    {DELETED: value is None} if row.field == DELETED else {row.field: value}
                )
        return content

    # -- ending it

    async def resolve(
        self, application: str, id: str, resolution: Mapping[str, Any], *, user: str, guard: Guard | None
    ) -> tuple[Record | None, dict[str, Any] | None]:
        """End a conflict as told: the record as it is then (None if it is deleted), and the ended conflict.

        Durable when it returns. Raises `UnknownConflict`; `ConflictMoved`; `InvalidFields` naming every
        fault; or as the guard, which sees the record.
        """
        row = self._index.conflict(id)
        model = None if row is None or row.application != application else self._model(row)
        if row is None or model is None:
            raise UnknownConflict
        with self._store.read() as snapshot:
            space = self._store.space(application)
            document = snapshot.documents.get(space, model.id, row.instance_id)
            open_now = [] if document is None else conflicts(document, model.rules, past_in(snapshot, space))
            conflict = next((c for c in open_now if c.id_in(space) == id), None)
            if document is None or conflict is None:
                raise ConflictMoved(self._current(snapshot, row, model))
            values, ends = _edit(model, document, conflict, resolution, snapshot, space)
        edit = Edit(EditKind.RESOLVE, model, document.id, values, guard=guard, ends=ends)
        try:
            (record,) = await self._records.apply(application, user, [edit])
        except ConflictChanged:
            with self._store.read() as snapshot:
                raise ConflictMoved(self._current(snapshot, row, model)) from None
        return record, self.view(application, id)

    def _current(self, snapshot: Snapshot, row: ConflictRow, model: Model) -> dict[str, Any] | None:
        """What has become of a conflict: the one that its field is in now, or how it ended."""
        space = self._store.space(row.application)
        document = snapshot.documents.get(space, model.id, row.instance_id)
        if document is not None:
            content = _find_open(snapshot, space, model, document, row.field)
            if content is not None:
                return content
        newest = self._index.conflict(row.id)
        if newest is None or newest.state is State.OPEN:
            return None
        return self._ended(snapshot, space, model, newest)


def _find_open(
    snapshot: Snapshot, space: SpaceId, model: Model, document: Document, field: str, *, id: str | None = None
) -> dict[str, Any] | None:
    """The open conflict of a field, if there is one and it is the one of this id."""
    for conflict in conflicts(document, model.rules, past_in(snapshot, space)):
        if conflict.field == field and (id is None or conflict.id_in(space) == id):
            return open_content(conflict, model, space)
    return None


def open_content(conflict: Conflict, model: Model, space: SpaceId) -> dict[str, Any]:
    """The JSON form of an open conflict."""
    values = [_value(x.value, x.dot, x.user, x.hlc) for x in conflict.values]
    content = _content(conflict.id_in(space), model, conflict.id, conflict.field, values, resolved=False)
    if conflict.has_ancestor:
        content["ancestor"] = _masked(model, conflict.field, conflict.ancestor)
    return content


def _content(
    id: str, model: Model, instance_id: str, field: str, values: list[dict[str, Any]], *, resolved: bool
) -> dict[str, Any]:
    content: dict[str, Any] = {
        "id": id,
        "model": model.name,
        "instance_id": instance_id,
        "field": field,
        "values": [{**one, "value": _masked(model, field, one["value"])} for one in values],
        "strategy": model.conflict_strategy,
        "resolved": resolved,
    }
    if model.rules.is_plugins:
        content["strategy_missing"] = True
    return content


def _value(value: Any, dot: Dot, user: str, hlc: int) -> dict[str, Any]:
    at = datetime_from_ms(ms_of_hlc(hlc))
    return {"value": value, "node": dot.author[:NODE_ID_BYTES].hex(), "user": user, "at": at}


def _said(snapshot: Snapshot, space: SpaceId, dot: Dot, field: str) -> dict[str, Any] | None:
    """What a body says of a field, as the log has it; None if it says nothing of it, or is gone."""
    chain = snapshot.names.chain(space, dot.author)
    told = None if chain is None else told_at(snapshot, BodyAddress(chain, dot.seq, dot.index))
    if told is None:
        return None
    registers: dict[str, Any] = {}
    is_delete = False
    for operation in told.body.operations:
        match operation[0]:
            case Kind.SET:
                registers |= operation[1]
            case Kind.DELETE:
                registers, is_delete = {}, True
            case Kind.RESTORE:
                is_delete = False
    if field == DELETED or is_delete:
        return _value(None if is_delete else registers, told.dot, told.body.user, told.hlc)
    return _value(registers[field], told.dot, told.body.user, told.hlc) if field in registers else None


def _masked(model: Model, field: str, value: Any) -> Any:
    """A value of a conflict as everybody may see it."""
    if field == DELETED:
        return shown(model, value) if isinstance(value, Mapping) else value
    return shown(model, {field: value})[field]


def _edit(
    model: Model,
    document: Document,
    conflict: Conflict,
    resolution: Mapping[str, Any],
    snapshot: Snapshot,
    space: SpaceId,
) -> tuple[dict[str, Any], Resolution]:
    """The values and the end that a resolution asks for. Raises `InvalidFields` naming every fault."""
    field = conflict.field
    faults: dict[str, str] = {}
    if field not in resolution:
        faults[field] = "This field is required"
    if field != DELETED:
        faults |= {name: "Not the field of this conflict" for name in resolution if name != field}
        values, wrong = model.check_update({name: v for name, v in resolution.items() if name == field})
        if faults | wrong:
            raise InvalidFields(faults | wrong)
        return values, Resolution(field, conflict.dots)
    kept = resolution.get(DELETED)
    others = {name: value for name, value in resolution.items() if name != DELETED}
    if DELETED in resolution and not isinstance(kept, bool):
        faults[DELETED] = "Must be true (it stays deleted) or false (it is restored)"
    if kept is True or faults:
        faults |= dict.fromkeys(others, "Only for a document that is restored")
        if faults:
            raise InvalidFields(faults)
        return {}, Resolution(DELETED, conflict.dots, is_kept=True)
    before = values_before_deletion(document, past_in(snapshot, space)(document))
    given, faults = model.check_update(others)
    faults |= {name: "Give the whole value" for name, value in given.items() if isinstance(value, TextEdit)}
    values = {name: value for name, value in before.items() if name in model.fields} | given
    whole = {name: v for name, v in document.values().items() if name in model.fields} | values
    faults = model.check_record(whole) | faults
    if faults:
        raise InvalidFields(faults)
    return values, Resolution(DELETED, conflict.dots)
