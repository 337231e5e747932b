"""Two sync sessions over two records in memory, talking at once and without a network.

Room: what tests of the session share. Storage answers at once; every message is
written down, so that a conversation can be cut, repeated and gone on with.
"""

from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from random import Random
from typing import Any

from protocol.changes import DocumentChange, Edit, EditKind
from protocol.clock import HybridClock
from protocol.exchange import Arrived, Begin, Effect, Event, Input, InSync
from protocol.frames import FrameReader, to_frames
from protocol.ids import INCARNATION_BYTES, Author, author_of
from protocol.keys import KeyPair
from protocol.messages import Message, decode_message, encode_message, message_size_max
from protocol.session import SyncSession
from simulations.harness import model_of
from storage.catalog import Catalog
from storage.exchange import Exchange
from storage.integrator import Integrator
from storage.kv import Table
from storage.memory_kv import MemoryKeyValueStore
from storage.opening import found_store
from storage.store import Identity, Store

NOW_MS = 1_700_000_000_000
KEYS = KeyPair.from_seed(b"k" * 32)
NETWORK_KEYS = KeyPair.from_seed(b"w" * 32)
TASK = model_of(
    {"name": "Task", "fields": [{"name": "title", "type": "string"}, {"name": "rank", "type": "integer"}]}
)


class Record:
    """One node's record, as an author of its own under the one node key of these tests."""

    def __init__(self, name: str, *, founder: "Record | None" = None) -> None:
        self.random = Random(name)
        self.keys = MemoryKeyValueStore()
        store = Store(self.keys)
        if founder is None:
            found_store(store, KEYS, NETWORK_KEYS, now_ms=NOW_MS, random_bytes=self.random.randbytes)
        else:
            known = founder.identity
            author = author_of(KEYS.public, self.random.randbytes(INCARNATION_BYTES))
            identity = Identity(self.random.randbytes(16), name, known.network_id, known.genesis, author)
            store.begin(identity, founding=None)
        self.open()

    def open(self) -> None:
        """As after a restart: all that is not stored is gone."""
        self.store = Store(self.keys)
        catalog, clock = Catalog(self.store), HybridClock()
        self.integrator = Integrator(
            self.store, None, catalog, KEYS, clock, self.random.randbytes, lambda space, seq: None
        )
        self.exchange = Exchange(self.store, lambda change: self.integrator.write_one(change, NOW_MS))

    def copy(self) -> "Record":
        """Another one that is as this one is now, as after a restart."""
        other = Record.__new__(Record)
        other.random = Random()
        other.random.setstate(self.random.getstate())
        other.keys = copied(self.keys)
        other.open()
        return other

    @property
    def identity(self) -> Identity:
        assert self.store.identity is not None
        return self.store.identity

    @property
    def author(self) -> Author:
        return self.identity.author

    def put(self, id: str, application: str = "default", **values: Any) -> None:
        edits = [Edit(EditKind.PUT, TASK, id, values)]
        (result,) = self.integrator.write([DocumentChange(application, "someone", edits)], NOW_MS).results
        assert not isinstance(result, Exception), result

    def seq(self, author: Author, application: str = "default") -> int:
        with self.store.read() as snapshot:
            head = snapshot.head(self.store.space(application), author)
        return head.seq if head is not None else 0

    def documents(self) -> dict[tuple[bytes, str, str], Any]:
        with self.store.read() as snapshot:
            found = list(snapshot.documents.everything())
        return {(space, document.model, document.id): document for space, document in found}

    def fingerprint(self) -> bytes:
        return sha256(repr(sorted(self.documents().items())).encode()).digest()


@dataclass
class Side:
    """One session and its record."""

    record: Record
    session: SyncSession
    events: list[Event] = field(default_factory=list)
    sent: list[bytes] = field(default_factory=list)  # frames, each a message
    heard: int = 0  # how many of the other side's
    now_ms: int = 0

    def take(self, events: list[Event]) -> None:
        """Carry out effects at once, and what follows from them."""
        waiting = list(events)
        while waiting:
            event = waiting.pop(0)
            self.events.append(event)
            if isinstance(event, Effect):
                waiting += self.give(self.record.exchange.perform(event))
        data = self.session.take_bytes()
        while data:
            size = 4 + (int.from_bytes(data[:4], "big") & 0x7FFFFFFF)
            self.sent.append(data[:size])
            data = data[size:]

    def give(self, given: Input) -> list[Event]:
        return self.session.send(given, self.now_ms)

    def wait_until(self, now_ms: int) -> None:
        """Time passes, and the deadline with it."""
        self.now_ms = now_ms
        self.take(self.session.on_deadline(now_ms))

    @property
    def is_in_sync(self) -> bool:
        return any(isinstance(event, InSync) for event in self.events)

    def messages(self) -> list[Message]:
        """What it has said so far."""
        frames = FrameReader(message_size_max)
        frames.feed(b"".join(self.sent))
        found = []
        while (message := frames.next()) is not None:
            found.append(decode_message(message))
        return found


class Dialogue:
    """Both sides of one link, and the order in which they spoke."""

    def __init__(self, caller: Record, answerer: Record, **options: Any) -> None:
        self.caller = Side(caller, session(caller, answerer, is_caller=True, **options))
        self.answerer = Side(answerer, session(answerer, caller, is_caller=False, **options))
        for side in (self.answerer, self.caller):
            side.take(side.give(Begin()))

    def step(self) -> bool:
        """Let the next message arrive. Returns whether there was one."""
        for side, other in ((self.answerer, self.caller), (self.caller, self.answerer)):
            if side.heard < len(other.sent):
                side.heard += 1
                side.take(side.session.receive(other.sent[side.heard - 1], side.now_ms))
                return True
        return False

    def run(self) -> "Dialogue":
        """Until nobody has anything left to say."""
        for _ in range(10_000):
            if not self.step():
                return self
        raise AssertionError("this conversation does not end")

    def write(self, side: Side, id: str, **values: Any) -> None:
        """A new commit on one side, of which its session is told."""
        side.record.put(id, **values)
        side.take(side.give(Arrived(side.record.exchange.position)))

    @property
    def is_in_sync(self) -> bool:
        return self.caller.is_in_sync and self.answerer.is_in_sync


def session(ours: Record, theirs: Record, *, is_caller: bool, **options: Any) -> SyncSession:
    return SyncSession(
        is_caller=is_caller,
        network_id=ours.identity.network_id,
        author=ours.author,
        peer=theirs.author,
        peer_epoch=theirs.identity.epoch,
        now_ms=0,
        **options,
    )


def copied(keys: MemoryKeyValueStore) -> MemoryKeyValueStore:
    other = MemoryKeyValueStore()
    with keys.read() as source, other.write() as target:
        for table in Table:
            target.append(table, source.scan(table, b"", None))
    return other


def pair(*, ours: int = 3, theirs: int = 2) -> tuple[Record, Record]:
    """Two records of one network, apart so far, with so many commits each."""
    first, second = _written(ours, theirs)
    return first.copy(), second.copy()


@cache
def _written(ours: int, theirs: int) -> tuple[Record, Record]:
    """They are copied, and stay as they are: making them takes longer than most of what is done with them."""
    first = Record("first")
    second = Record("second", founder=first)
    for number in range(ours):
        first.put(f"a{number}", title=f"first {number}")
    for number in range(theirs):
        second.put(f"b{number}", title=f"second {number}")
    return first, second


def kinds(side: Side) -> list[str]:
    """The names of what a side has said."""
    return [type(message).__name__ for message in side.messages()]


def framed(message: Message) -> bytes:
    return to_frames(encode_message(message))
