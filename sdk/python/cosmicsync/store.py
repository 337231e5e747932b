"""What this device keeps: queued actions, local copies of instances, and notes, in one SQLite file.

Room: tables and durability. Every change is on disk when its method returns. An action stays until the node has
taken it in or refused it, and its place in the queue never changes. What actions mean is `offline`'s.
"""

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cosmicsync.documents import to_json
from cosmicsync.errors import Closed, StoreInUse

MEMORY = ":memory:"
_TABLES = """
CREATE TABLE IF NOT EXISTS action (
    position INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, user TEXT NOT NULL, model TEXT NOT NULL,
    instance TEXT NOT NULL, batch TEXT, content TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS local (
    model TEXT NOT NULL, instance TEXT NOT NULL, content TEXT NOT NULL, stored_ms INTEGER NOT NULL,
    expires_ms INTEGER, PRIMARY KEY (model, instance)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS note (name TEXT PRIMARY KEY, content TEXT NOT NULL) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Action:
    """One queued write; `base` is what the instance was when it was queued.

    `revision` counts how often it became another request than the one before: its idempotency key is `key`.
    `has_new_id` says that nobody else can have made an instance of this id.
    `conflict` holds what was found in the way, until it is resolved.
    """

    id: str
    user: str
    type: str
    model: str
    instance: str
    data: Mapping[str, Any] = field(default_factory=dict)
    base: Mapping[str, Any] | None = None
    base_version: str | None = None
    queued_ms: int = 0
    revision: int = 0
    has_new_id: bool = False
    conflict: Mapping[str, Any] | None = None

    @property
    def key(self) -> str:
        """The idempotency key of a request with this action alone."""
        return self.id if not self.revision else f"{self.id}-{self.revision}"

    def content(self) -> dict[str, Any]:
        """What `of` reads back."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> "Action":
        return cls(**content)


@dataclass(frozen=True, slots=True)
class Local:
    """The local copy of an instance, as the node had it. `expires_ms` None keeps it for good."""

    model: str
    instance: str
    content: Mapping[str, Any]
    stored_ms: int
    expires_ms: int | None = None


class Store:
    """Use it from any thread. One file may be open in several processes; one of them sends at a time."""

    def __init__(self, path: str | Path = MEMORY) -> None:
        self._path = str(path)
        self._lock = threading.RLock()
        self._is_closed = False
        self._database = sqlite3.connect(
            self._path, isolation_level=None, check_same_thread=False, timeout=10
        )
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=FULL")
        self._database.execute("PRAGMA secure_delete=ON")  # what is cleared is gone from the file
        self._database.executescript(_TABLES)

    def close(self) -> None:
        """What is being written is on disk when this returns; whoever comes later gets `Closed`."""
        with self._lock:
            self._is_closed = True
            self._database.close()

    def _opened(self) -> sqlite3.Connection:
        if self._is_closed:
            raise Closed
        return self._database

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            database = self._opened()
            database.execute("BEGIN IMMEDIATE")
            try:
                yield database
            except BaseException:
                database.execute("ROLLBACK")
                raise
            database.execute("COMMIT")

    def _read(self, sql: str, *values: Any) -> list[Any]:
        with self._lock:
            return self._opened().execute(sql, values).fetchall()

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Only one process sends at a time. Raises `StoreInUse`. A process that is killed lets go."""
        if self._path == MEMORY:
            yield
            return
        turn = sqlite3.connect(f"{self._path}-turn", isolation_level=None, timeout=0)
        try:
            try:
                turn.execute("BEGIN EXCLUSIVE")
            except sqlite3.OperationalError as error:
                raise StoreInUse("Another process is sending the queued actions") from error
            yield
        finally:
            turn.close()

    # -- actions

    def add(self, action: Action) -> None:
        """Queue an action behind all others."""
        with self._writing() as database:
            database.execute(
                "INSERT INTO action (id, user, model, instance, content) VALUES (?, ?, ?, ?, ?)",
                (action.id, action.user, action.model, action.instance, to_json(action.content())),
            )

    def replace(self, action: Action) -> None:
        """Another content for a queued action, in its place; it is sent by itself the next time."""
        with self._writing() as database:
            database.execute(
                "UPDATE action SET content = ?, batch = NULL WHERE id = ?",
                (to_json(action.content()), action.id),
            )

    def remove(self, ids: Iterable[str]) -> None:
        with self._writing() as database:
            database.executemany("DELETE FROM action WHERE id = ?", [(id,) for id in ids])

    def actions(self, model: str | None = None, instance: str | None = None) -> list[Action]:
        """Queued actions in their order, of one instance or of all."""
        if model is None:
            rows = self._read("SELECT content FROM action ORDER BY position")
        else:
            sql = "SELECT content FROM action WHERE model = ? AND instance = ? ORDER BY position"
            rows = self._read(sql, model, instance)
        return [Action.of(json.loads(content)) for (content,) in rows]

    def begin_batch(self, key: str, ids: Iterable[str]) -> None:
        """Note that these actions are about to be sent together under this key."""
        with self._writing() as database:
            database.executemany("UPDATE action SET batch = ? WHERE id = ?", [(key, id) for id in ids])

    def end_batch(self, key: str) -> None:
        """Those of a batch that are still queued may be sent in another one."""
        with self._writing() as database:
            database.execute("UPDATE action SET batch = NULL WHERE batch = ?", (key,))

    def batch_in_flight(self) -> tuple[str, list[Action]] | None:
        """A batch that was sent and of which no answer was noted."""
        found = self._read("SELECT batch FROM action WHERE batch IS NOT NULL ORDER BY position LIMIT 1")
        if not found:
            return None
        rows = self._read("SELECT content FROM action WHERE batch = ? ORDER BY position", found[0][0])
        return found[0][0], [Action.of(json.loads(content)) for (content,) in rows]

    # -- local copies

    def put_local(self, copies: Iterable[Local]) -> None:
        rows = [(c.model, c.instance, to_json(c.content), c.stored_ms, c.expires_ms) for c in copies]
        with self._writing() as database:
            database.executemany("INSERT OR REPLACE INTO local VALUES (?, ?, ?, ?, ?)", rows)

    def local(self, model: str, instance: str) -> Local | None:
        rows = self._read("SELECT * FROM local WHERE model = ? AND instance = ?", model, instance)
        return _local(rows[0]) if rows else None

    def locals(self, model: str | None = None) -> list[Local]:
        if model is None:
            return [_local(row) for row in self._read("SELECT * FROM local")]
        return [_local(row) for row in self._read("SELECT * FROM local WHERE model = ?", model)]

    def remove_local(self, keys: Iterable[tuple[str, str]]) -> None:
        with self._writing() as database:
            database.executemany("DELETE FROM local WHERE model = ? AND instance = ?", list(keys))

    # -- notes

    def note(self, name: str) -> Any:
        """What was noted under a name, None if nothing was."""
        rows = self._read("SELECT content FROM note WHERE name = ?", name)
        return json.loads(rows[0][0]) if rows else None

    def put_note(self, name: str, content: Any) -> None:
        with self._writing() as database:
            database.execute("INSERT OR REPLACE INTO note VALUES (?, ?)", (name, to_json(content)))


def _local(row: tuple[str, str, str, int, int | None]) -> Local:
    model, instance, content, stored_ms, expires_ms = row
    return Local(model, instance, json.loads(content), stored_ms, expires_ms)
