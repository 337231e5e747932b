"""What tests of storage work with: a store put together as the daemon does it, and ways to look into one."""

import random
import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from protocol.changes import DocumentChange, Edit, EditKind, Guard, Record
from protocol.clock import HybridClock
from protocol.commit import Commit
from protocol.document import Document
from protocol.ids import INCARNATION_BYTES, author_of
from protocol.keys import SEED_BYTES, KeyPair
from protocol.schema import Model, parse_definition
from storage.arrivals import Arrival
from storage.catalog import MODEL, Catalog, definition_models, definition_to_parts
from storage.changes import AnyChange, Written
from storage.feed_entry import FeedEntry
from storage.gate import INDEX_FILE, AnchorFile
from storage.index import Index
from storage.integrator import Integrator
from storage.kv import KeyValueStore, Table
from storage.lmdb_kv import DATA_FILE, LmdbKeyValueStore
from storage.memory_kv import MemoryKeyValueStore
from storage.opening import OpenRecord, found_store, open_record
from storage.store import Store

NOW_MS = 1_750_000_000_000
APPLICATION = "default"
BUILTINS = definition_models()
TASK = {
    "name": "Task",
    "fields": [
        {"name": "title", "type": "string", "required": True},
        {"name": "email", "type": "string", "unique": True},
        {"name": "points", "type": "integer", "indexed": True},
        {"name": "tags", "type": "set"},
        {"name": "votes", "type": "counter"},
        {"name": "extra", "type": "json"},
    ],
}


class Site:
    """A store with its catalog, index and integrator. `directory` None keeps all of it in memory."""

    def __init__(
        self,
        directory: Path | None = None,
        *,
        index: bool = True,
        seed: int = 1,
        now_ms: int = NOW_MS,
        founder: "Site | None" = None,
    ) -> None:
        """`founder` has this one live in its network, as another incarnation of the same node."""
        self.directory = directory
        self.random_bytes = random.Random(seed).randbytes
        self.now_ms = now_ms
        self.record: OpenRecord | None = None
        self.noted: list[tuple[bytes, int]] = []
        self.new_life: str | None = None
        if directory is not None:
            self.record = open_record(directory, now_ms=now_ms, random_bytes=self.random_bytes)
            self.store, self.keys, self.new_life = self.record.store, self.record.keys, self.record.new_life
            self.index = Index(str(directory / INDEX_FILE)) if index else None
        elif founder is not None:
            assert founder.store.identity is not None
            self.store, self.keys = Store(MemoryKeyValueStore()), founder.keys
            author = author_of(self.keys.public, self.random_bytes(INCARNATION_BYTES))
            self.store.begin(replace(founder.store.identity, author=author), founding=None)
            with self.store.write() as batch:
                batch.add_application(APPLICATION)
            self.index = Index(None) if index else None
        else:
            self.store = Store(MemoryKeyValueStore())
            self.keys = KeyPair.from_seed(self.random_bytes(SEED_BYTES))
            network = KeyPair.from_seed(self.random_bytes(SEED_BYTES))
            found_store(self.store, self.keys, network, now_ms=now_ms, random_bytes=self.random_bytes)
            self.index = Index(None) if index else None
        self.start()

    def start(self) -> None:
        """What a daemon does once the record is open."""
        self.catalog = Catalog(self.store)
        for model in BUILTINS:
            self.catalog.add_builtin(model)
        with self.store.read() as snapshot:
            self.catalog.load(snapshot)
        self.integrator = Integrator(
            self.store, self.index, self.catalog, self.keys, HybridClock(), self.random_bytes, self._note
        )
        self.integrator.indexer.open()

    def _note(self, space: bytes, seq: int) -> None:
        self.noted.append((space, seq))
        if self.record is not None:
            self.record.note(space, seq)

    def close(self) -> None:
        if self.index is not None:
            self.index.close()
        if self.record is not None:
            self.record.close()

    def crash(self) -> None:
        """End as a killed process does: nothing is marked clean."""
        if self.index is not None:
            self.index.close()
        self.store.close()
        assert self.record is not None
        self.record.anchor.close()
        self.record.lock.release()

    def __enter__(self) -> "Site":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- changes

    def define(self, definition: dict[str, Any], application: str = APPLICATION) -> Model:
        parsed = parse_definition(definition, application=application)
        self.catalog.add_application(application)
        definitions = self.catalog.find(application, MODEL)
        assert definitions is not None
        parts = definition_to_parts(parsed.to_definition())
        self.put(definitions, parsed.id, parts)
        self.catch_up()
        model = self.catalog.find(application, parsed.name)
        assert model is not None
        return model

    def undefine(self, model: Model) -> None:
        definitions = self.catalog.find(model.application, MODEL)
        assert definitions is not None
        self.delete(definitions, model.id)

    def group(self, *changes: AnyChange) -> Written:
        """One group through the writer, a millisecond after the last."""
        self.now_ms += 1
        return self.integrator.write(changes, self.now_ms)

    def change(
        self, *edits: Edit, user: str = "ann", application: str | None = None, is_atomic: bool = True
    ) -> list[Any]:
        change = DocumentChange(application or edits[0].model.application, user, list(edits), is_atomic)
        result = self.group(change).results[0]
        if isinstance(result, Exception):
            raise result
        assert isinstance(result, list)
        return result

    def create(self, model: Model, id: str, guard: Guard | None = None, **values: Any) -> Record:
        record = self.change(create(model, id, guard, **values))[0]
        assert isinstance(record, Record)
        return record

    def update(self, model: Model, id: str, if_match: str | None = None, **values: Any) -> Record:
        record = self.change(Edit(EditKind.UPDATE, model, id, values, if_match))[0]
        assert isinstance(record, Record)
        return record

    def put(self, model: Model, id: str, values: dict[str, Any]) -> None:
        self.change(Edit(EditKind.PUT, model, id, values))

    def delete(self, model: Model, id: str, if_match: str | None = None) -> None:
        self.change(Edit(EditKind.DELETE, model, id, {}, if_match))

    def receive_from(self, other: "Site") -> list[FeedEntry]:
        """Integrate what the other has and this one lacks, in the order in which it arrived there."""
        entries: list[FeedEntry] = []
        held = {commit.hash: commit for commit in self.commits()}
        for commit in other.commits():
            if held.get(commit.hash) != commit:  # unless it is here, whole or with the same left out of it
                entries += self.integrator.receive(commit, self.now_ms)[1]
        return entries

    def catch_up(self) -> None:
        """Let the index read all that it has missed."""
        while self.integrator.indexer.refill():
            pass

    # -- looking

    def values(self, model: Model, id: str) -> dict[str, Any] | None:
        """The document's values as they are stored; None if it does not exist."""
        with self.store.read() as snapshot:
            document = snapshot.documents.get(self.store.space(model.application), model.id, id)
        return document.values() if document is not None and document.exists else None

    def documents(self) -> dict[tuple[bytes, str, str], Document]:
        with self.store.read() as snapshot:
            return {(space, d.model, d.id): d for space, d in snapshot.documents.everything()}

    def arrivals(self) -> list[Arrival]:
        with self.store.read() as snapshot:
            return list(snapshot.log.arrivals())

    def commits(self) -> list[Commit]:
        """Every commit in the order of arrival."""
        with self.store.read() as snapshot:
            found = [snapshot.log.commit(arrival.chain, arrival.seq) for arrival in snapshot.log.arrivals()]
        return [commit for commit in found if commit is not None]

    def indexed(self, model: Model) -> set[str]:
        """Ids of the model's rows in the index."""
        assert self.index is not None
        _, rows = self.index.sql(f'SELECT id FROM "m_{model.id}"', limit_rows=100_000)
        return {str(row[0]) for row in rows}


def is_stale(site: Site) -> bool:
    """Whether the query index is behind the record now."""
    return site.integrator.indexer.is_stale


def failure(site: Site) -> Exception | None:
    """What made it so, if something failed."""
    return site.integrator.indexer.failure


class Refused(Exception):
    """Raised by the guard `refuse`."""


def refuse(_record: Record | None) -> None:
    raise Refused


def one(*edits: Edit, user: str = "ann") -> DocumentChange:
    return DocumentChange(APPLICATION, user, list(edits))


def documents_of(site: Site, model: Model) -> list[Document]:
    """The model's documents that exist."""
    return [d for (_, m, _), d in site.documents().items() if m == model.id and d.exists]


def create(model: Model, id: str, guard: Guard | None = None, **values: Any) -> Edit:
    return Edit(EditKind.CREATE, model, id, values, None, guard)


def update(model: Model, id: str, **values: Any) -> Edit:
    return Edit(EditKind.UPDATE, model, id, values)


def delete(model: Model, id: str) -> Edit:
    return Edit(EditKind.DELETE, model, id, {})


def tables(store: KeyValueStore) -> dict[Table, dict[bytes, bytes]]:
    """All that a key-value store holds."""
    with store.read() as transaction:
        return {table: dict(transaction.scan(table, b"", None)) for table in Table}


def filled_directory(directory: Path, *, tasks: int = 5, seed: int = 1) -> Path:
    """A data directory that was used and stopped cleanly: a model and some documents of it."""
    with Site(directory, seed=seed) as site:
        model = site.define(TASK)
        for number in range(tasks):
            site.create(model, f"t{number}", title=f"Task {number}", points=number, tags=["a", "b"])
    return directory


def copied(directory: Path, target: Path) -> Path:
    """A copy of a stopped node's directory that takes itself for the original."""
    shutil.copytree(directory, target)
    anchor = AnchorFile(target)
    anchor.value.describe(record_file(target).stat())
    anchor.write()
    anchor.close()
    return target


def stored(directory: Path) -> dict[str, dict[str, Any]]:
    """The values of every document of a stopped node, read without changing anything."""
    with closing(LmdbKeyValueStore(str(directory), read_only=True)) as keys, Store(keys).read() as snapshot:
        documents = [document for _, document in snapshot.documents.everything()]
    return {f"{d.model}/{d.id}": d.values() for d in documents if d.exists}


def record_file(directory: Path) -> Path:
    return directory / DATA_FILE
