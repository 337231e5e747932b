"""The records of models as files, as they all were at one moment.

Room: from models and a caller's rights to chunks of bytes. One snapshot of the record is read for all of it, on a
thread, a slice at a time, so memory holds a slice and writers wait for nothing.
"""

import asyncio
from collections.abc import AsyncGenerator, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, aclosing
from typing import Any

from node.services.permissions import Limit
from node.services.record_files import Format, cell_of, csv_line, json_text
from node.services.records import Records
from node.services.refusals import TooBusy
from node.services.sealing import Opener
from protocol.changes import Record
from protocol.schema import META_FIELDS, Model
from storage.ancestry import past_in
from storage.archive import write_archive
from storage.store import Snapshot, Store

EXPORTS_MAX = 4  # at a time: each holds a snapshot, whose pages cannot be used anew meanwhile
SLICE_DOCUMENTS = 200  # read in one go
CHUNK_BYTES = 64 << 10


class Exports:
    """Use it on the event loop."""

    def __init__(self, store: Store, records: Records) -> None:
        self._store = store
        self._records = records
        self._running = 0

    async def chunks(
        self,
        models: Mapping[str, tuple[Model, Limit | None]],
        format: Format,
        opener: Opener | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """The file, in chunks: of each model, by the name it was asked by, what its limit lets through.

        `opener` shows encrypted fields to who may read them. CSV holds one model. Raises `TooBusy`.
        """
        async with aclosing(
            self._streamed(self._parts(self._store.read(), models, format, opener))
        ) as chunks:
            async for chunk in chunks:
                yield chunk

    async def archive(self, application: str) -> AsyncGenerator[bytes, None]:
        """A signed export of the application (`storage.archive`), in chunks. Raises `TooBusy`."""

        def parts() -> Generator[bytes, None, None]:
            with self._store.read() as snapshot:
                yield from write_archive(snapshot, self._store, application)

        async with aclosing(self._streamed(parts())) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _streamed(self, parts: Generator[bytes, None, None]) -> AsyncGenerator[bytes, None]:
        """What `parts` makes, made on a thread."""
        if self._running >= EXPORTS_MAX:
            raise TooBusy
        self._running += 1
        reads: asyncio.Future[bytes | None] | None = None
        try:
            while True:
                reads = asyncio.ensure_future(self._records.in_pool(next, parts, None))
                chunk = await asyncio.shield(reads)
                if chunk is None:
                    return
                yield chunk
        finally:
            self._running -= 1
            if reads is not None and not reads.done():  # whoever asked has gone in the middle of it
                await asyncio.wait({reads})
            await self._records.in_pool(parts.close)

    def _parts(
        self,
        reading: AbstractContextManager[Snapshot],
        models: Mapping[str, tuple[Model, Limit | None]],
        format: Format,
        opener: Opener | None,
    ) -> Generator[bytes, None, None]:
        """Chunks, of about CHUNK_BYTES or of a slice of documents, whichever comes first."""
        with reading as snapshot:
            opening, closing = (b"{\n", b"}\n") if format is Format.JSON else (b"", b"")
            held = [opening]
            for number, (name, (model, limit)) in enumerate(models.items()):
                held.append(_head(name, model, format, is_first=number == 0))
                is_first, size = True, 0
                for count, record in enumerate(self._shown(snapshot, model, limit), 1):
                    if record is not None:
                        line = _line(name, model, _facts(record, opener), format, is_first=is_first)
                        held.append(line)
                        is_first, size = False, size + len(line)
                    if size >= CHUNK_BYTES or count % SLICE_DOCUMENTS == 0:
                        yield b"".join(held)
                        held, size = [], 0
                held.append(b"]" if format is Format.JSON else b"")
            yield b"".join([*held, b"\n" if format is Format.JSON else b"", closing])

    def _shown(self, snapshot: Snapshot, model: Model, limit: Limit | None) -> Iterator[Record | None]:
        """Each document in the order of ids: its record, None for one that is not shown to who asks."""
        space = self._store.space(model.application)
        past_of = past_in(snapshot, space)
        for document in snapshot.documents.all_of(space, model.id):
            if not document.exists or document.is_broken:
                yield None
                continue
            record = Record.of(model, document, past_of)
            yield record if not model.check_record(record.values) and _passes(limit, record) else None


def _passes(limit: Limit | None, record: Record) -> bool:
    if limit is None:
        return True
    return record.created_by == limit.owner if limit.passes is None else limit.passes(record)


def _columns(model: Model) -> list[str]:
    return ["id", *model.fields, *META_FIELDS[1:]]


def _head(name: str, model: Model, format: Format, *, is_first: bool) -> bytes:
    match format:
        case Format.CSV:
            return csv_line(_columns(model))
        case Format.JSON:
            return (b"" if is_first else b",\n") + json_text(name) + b": ["
    return b""


def _facts(record: Record, opener: Opener | None) -> dict[str, Any]:
    facts = record.facts()
    if opener is not None:
        opener(record, facts)
    return facts


def _line(name: str, model: Model, facts: dict[str, Any], format: Format, *, is_first: bool) -> bytes:
    match format:
        case Format.CSV:
            return csv_line(cell_of(facts.get(column)) for column in _columns(model))
        case Format.JSON:
            return (b"\n" if is_first else b",\n") + json_text(facts)
    return json_text({"model": name, "data": facts}) + b"\n"
