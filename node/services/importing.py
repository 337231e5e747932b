"""Records out of a file into models, each for itself: what fails is named with its row, the others stay.

Room: rows become edits with the caller's rights, in runs that the writer takes in together; what became of each
row is counted. Reading files is `record_files`'. Memory holds a few runs, whatever the size of the file.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice
from typing import Any

from node.services.permissions import Actor, Permissions, Subject
from node.services.record_files import Format, Row, Source, Unreadable, value_of
from node.services.records import Records
from protocol.changes import Edit, EditKind, Record
from protocol.errors import InvalidId
from protocol.ids import check_instance_id
from protocol.schema import META_FIELDS, Model
from storage.errors import DocumentExists, UnknownModel

RUN = 64  # rows that are read, checked and handed to the writer together: others get their turn in between
IN_FLIGHT_MAX = 8  # of those runs
FAULTS_KEPT = 1_000
_SET_BY_NODE = frozenset(META_FIELDS[1:])


class Mode(StrEnum):
    """What becomes of a row whose id is that of a record: a fault, or a change of the fields that it gives."""

    CREATE = "create"
    UPSERT = "upsert"


class RowRefused(Exception):
    """A row is not what its model takes. `details` by field."""

    def __init__(self, details: dict[str, str]) -> None:
        super().__init__("Validation failed")
        self.details = details


@dataclass(frozen=True, slots=True)
class Fault:
    """A row that was not taken: its number from 1, its place in the file, and what is wrong with it."""

    row: int
    place: str
    error: Exception


@dataclass(slots=True)
class Outcome:
    """What became of the rows so far. `faults` are the first of `failed`."""

    rows: int = 0
    created: int = 0
    updated: int = 0
    failed: int = 0
    faults: list[Fault] = field(default_factory=list)
    unreadable: str | None = None  # why the rest of the file was not read, if it was not

    def refuse(self, row: int, place: str, error: Exception) -> None:
        self.failed += 1
        if len(self.faults) < FAULTS_KEPT:
            self.faults.append(Fault(row, place, error))


@dataclass(frozen=True, slots=True)
class Asked:
    """An import. `model` is that of rows which do not say theirs, `id_field` what holds the id in the file."""

    source: Source
    model: str | None = None
    mode: Mode = Mode.CREATE
    id_field: str = "id"
    is_dry_run: bool = False


_Planned = tuple[int, str, Edit]  # number and place of a row, and what it comes to
_Run = tuple[list[_Planned], "asyncio.Future[list[Record | Exception | None]]"]


class Imports:
    """Use it on the event loop. `is_expected` tells a fault of a row from one of ours, which is raised."""

    def __init__(
        self, records: Records, permissions: Permissions, is_expected: Callable[[Exception], bool]
    ) -> None:
        self._records = records
        self._permissions = permissions
        self._is_expected = is_expected

    async def run(self, actor: Actor, asked: Asked) -> AsyncGenerator[Outcome, None]:
        """Take in the file: the outcome so far after each run, the last of which is final. All that it counts as
        created or updated is durable."""
        outcome = Outcome()
        rows = asked.source.rows()
        waiting: deque[_Run] = deque()
        try:
            while True:
                read = await self._records.in_pool(_read, rows)
                planned = self._planned(actor, asked, read[0], outcome, waiting)
                if planned and not asked.is_dry_run:
                    edits = [edit for _, _, edit in planned]
                    done = self._records.submit_each(actor.application, actor.user_id or "", edits)
                    waiting.append((planned, done))
                while len(waiting) > (IN_FLIGHT_MAX if read[1] is None else 0):
                    await self._settle(waiting, outcome)
                if read[1] is not None:
                    outcome.unreadable = read[1] or None
                    yield outcome
                    return
                yield outcome
        finally:
            while waiting:  # handed in already: it is counted by nobody, and stands
                await asyncio.wait({waiting.popleft()[1]})
            await self._records.in_pool(rows.close)

    def _planned(
        self, actor: Actor, asked: Asked, rows: list[Row], outcome: Outcome, waiting: deque[_Run]
    ) -> list[_Planned]:
        planned: list[_Planned] = []
        coming = {(e.model.id, e.id) for run, _ in waiting for _, _, e in run}
        for row in rows:
            outcome.rows += 1
            try:
                edit = self._edit(actor, asked, row, coming)
            except Exception as error:
                if not self._is_expected(error) and not isinstance(error, RowRefused):
                    raise
                outcome.refuse(outcome.rows, row.place, error)
                continue
            coming.add((edit.model.id, edit.id))
            planned.append((outcome.rows, row.place, edit))
            if asked.is_dry_run:
                _count(outcome, edit)
        return planned

    async def _settle(self, waiting: deque[_Run], outcome: Outcome) -> None:
        planned, done = waiting.popleft()
        try:
            results = await done
        except Exception as error:
            results = [error] * len(planned)
        for (number, place, edit), result in zip(planned, results, strict=True):
            if not isinstance(result, Exception):
                _count(outcome, edit)
            elif self._is_expected(result):
                outcome.refuse(number, place, result)
            else:
                raise result

    def _edit(self, actor: Actor, asked: Asked, row: Row, coming: set[tuple[str, str]]) -> Edit:
        name = asked.model or row.model
        if name is None:
            raise UnknownModel("The row does not say of which model it is: name it as `model`")
        model = self._records.model(actor.application, name)
        body = {name: value for name, value in row.record.items() if name not in _SET_BY_NODE}
        id = body.pop(asked.id_field, None)
        if asked.source.format is Format.CSV:
            fields = model.fields
            body = {n: value_of(v, fields[n].type.value) if n in fields else v for n, v in body.items()}
        if id is not None:
            try:
                id = check_instance_id(str(id) if type(id) is int else id)
            except InvalidId as error:
                raise RowRefused({asked.id_field: f"Not an id: {error}"}) from None
            creator = self._records.creator(model, id)
            exists = (model.id, id) in coming or self._records.get(model, id) is not None
            if exists and asked.mode is Mode.UPSERT:
                return self._update(actor, model, id, body)
            if exists or (creator is not None and not actor.is_admin and creator != (actor.user_id or "")):
                raise DocumentExists(f"{model.name}/{id} exists")
        if not self._permissions.may_ever(actor, model, "create"):
            self._permissions.raise_unless(actor, model, "create")
        values, faults = model.check_create(body)
        if faults:
            raise RowRefused(faults)
        self._permissions.raise_unless(actor, model, "create", Subject(actor.user_id, values))
        return Edit(EditKind.CREATE, model, id or self._records.new_id(), values)

    def _update(self, actor: Actor, model: Model, id: str, body: dict[str, Any]) -> Edit:
        values, faults = model.check_update(body)
        if faults:
            raise RowRefused(faults)

        def guard(record: Record | None) -> None:
            self._permissions.raise_unless(actor, model, "update", record)

        return Edit(EditKind.UPDATE, model, id, values, None, guard)


def _count(outcome: Outcome, edit: Edit) -> None:
    if edit.kind is EditKind.CREATE:
        outcome.created += 1
    else:
        outcome.updated += 1


def _read(rows: Iterator[Row]) -> tuple[list[Row], str | None]:
    """The next rows; with them, once there are no more, why not: "" at the end of the file."""
    read: list[Row] = []
    try:
        read.extend(islice(rows, RUN))
    except Unreadable as fault:
        return read, fault.message
    return read, None if len(read) == RUN else ""
