"""An ordered key-value store with transactions: all that the typed tables need of a disk.

Room: the interface, and the list of tables with their layouts. `lmdb_kv` keeps
them on disk and `memory_kv` in memory; the typed classes above (`log`,
`documents`, `local`) are written once and run on either, so the simulator's
store is the daemon's store. Outside this package nobody sees any of it.

Layouts (integers big-endian, so that byte order is number order):

    meta         name                               -> CBOR; see `store`
    chains       space(16) author(40)               -> chain u32, local to this store
    heads        chain u32                          -> CBOR [seq, hash, hlc]
    headers      chain u32, seq u64                 -> header bytes, as signed
    signatures   chain u32, seq u64                 -> 64 bytes; every 64th seq and the newest
    bodies       chain u32, seq u64, index u16      -> body bytes, as hashed in the header
    stubs        chain u32, seq u64, index u16      -> CBOR [hash, name]: what is left of a body that was dropped
    missing      chain u32, seq u64, index u16      -> arrival u64 with which a body that had come as a stub, and no
                                                       erasure said why, was filled in; 0 while it is not
    verdicts     chain u32, seq u64, index u16      -> text; only of bodies that were not applied
    knowledge    chain u32, other chain u32, seq u64 -> seq u64 of the other chain, known from here on
    collections  space(16) model id                 -> collection u32, local to this store
    documents    collection u32, id                 -> CBOR state (`protocol.document`)
    history      collection u32, id, 0, arrival u64, index u16 -> nothing; the arrival tells chain and seq
    pasts        chain u32, seq u64                 -> CBOR [[author, seq, hash prefix] …]: heads of `system` in the
                                                       commit's causal past, from here on
    early        chain u32, seq u64                 -> arrival u64 with which it was found due; 0 while it is not
    forks        space(16) author(40), seq u64      -> CBOR [seq, run, arrival]: a seq signed twice, a run with another
                 [arrival u64]
                                                       commit of it than is here, and when that became known; each is
                                                       lower than those that were known before
    arrivals     arrival u64                        -> chain u32, seq u64, then one byte a body: what it did;
                                                       or 0xFFFFFFFF, ms u64: what was here was judged again
    rejudged     arrival u64, index u32             -> CBOR [space, model, id, what it did, author, hlc, creator,
                                                       [field …]]
    times        ms u64                             -> arrival u64: all that followed it came then or later
    local        kind, 0, key                       -> CBOR; belongs to this node and never leaves it

On disk each value follows a crc32 (u32) over table name, key and value; see `lmdb_kv`.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from enum import StrEnum
from typing import Protocol

KEY_MAX_BYTES = 511  # LMDB's limit, and so everyone's


class Table(StrEnum):
    """The tables, with the version of each layout in its name on disk."""

    META = "meta-1"
    CHAINS = "chains-1"
    HEADS = "heads-1"
    HEADERS = "headers-1"
    SIGNATURES = "signatures-1"
    BODIES = "bodies-1"
    STUBS = "stubs-1"
    MISSING = "missing-1"
    VERDICTS = "verdicts-1"
    KNOWLEDGE = "knowledge-1"
    COLLECTIONS = "collections-1"
    DOCUMENTS = "documents-1"
    HISTORY = "history-1"
    PASTS = "pasts-1"
    EARLY = "early-1"
    FORKS = "forks-1"
    ARRIVALS = "arrivals-1"
    REJUDGED = "rejudged-1"
    TIMES = "times-1"
    LOCAL = "local-1"


class ReadTransaction(Protocol):
    """One consistent state. Every call is a few microseconds unless the page has to come from disk."""

    def get(self, table: Table, key: bytes) -> bytes | None: ...

    def scan(self, table: Table, start: bytes, stop: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        """Pairs with start <= key < stop, ascending; to the end if `stop` is None. Do not write while scanning."""

    def last(self, table: Table, start: bytes, stop: bytes | None) -> tuple[bytes, bytes] | None:
        """The pair with the greatest key in the same range."""

    def count(self, table: Table) -> int: ...

    def audit(self, table: Table, start: bytes = b"") -> Iterator[tuple[bytes, bytes | None, bool]]:
        """Every key in order with its value (None if it is not what was written), and whether a search finds it.

        For `doctor`: does not stop at damage.
        """


class WriteTransaction(ReadTransaction, Protocol):
    """The one writer's transaction: it reads its own writes."""

    def put(self, table: Table, key: bytes, value: bytes) -> None:
        """Raises `LocalMisuse` unless the key has 1 to `KEY_MAX_BYTES` bytes."""

    def put_many(self, table: Table, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        """Put pairs in any order, in one call: a call for each would let no other thread have its turn.

        (Each call to the engine lets go of the interpreter for a microsecond, too short to be taken up by a
        thread that waits and often enough to keep it from insisting: reads beside an import took 3 ms.)
        """

    def append(self, table: Table, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        """Put pairs in ascending order, all greater than any key there is: the cheapest way to fill a tree.

        Raises `LocalMisuse` if they are not, and then nothing of the transaction can be kept.
        """

    def delete(self, table: Table, key: bytes) -> bool:
        """Whether the key was there."""


class KeyValueStore(Protocol):
    """Opened once a process. Readers do not block the writer nor one another."""

    failure: str | None  # why there are no more writes, after a flush that failed

    def read(self) -> AbstractContextManager[ReadTransaction]:
        """The state that was last written, unchanged for as long as the block lasts."""

    def write(self) -> AbstractContextManager[WriteTransaction]:
        """Durable once the block ends; nothing of it is kept if the block raises.

        Blocks on the disk: call it on the writer thread. Raises `StorageFull` or `StorageFailed` at the end; what
        the engine refused within the block is raised there once more, should someone have caught it.
        """

    def statistics(self) -> dict[str, int]:
        """`commits`, `flushes`, `used_bytes` since opening or now."""

    def close(self) -> None: ...


def after(prefix: bytes) -> bytes | None:
    """The least key greater than every key that begins with `prefix`; None if there is none."""
    trimmed = prefix.rstrip(b"\xff")
    return trimmed[:-1] + bytes([trimmed[-1] + 1]) if trimmed else None


def beside(pairs: Iterator[tuple[bytes, bytes]]) -> Callable[[bytes], dict[bytes, bytes]]:
    """What takes those with a prefix out of ascending pairs; ask for prefixes of one length, in ascending order."""
    ahead = next(pairs, None)

    def take(prefix: bytes) -> dict[bytes, bytes]:
        nonlocal ahead
        taken: dict[bytes, bytes] = {}
        while ahead is not None and (found := ahead[0][: len(prefix)]) <= prefix:
            if found == prefix:
                taken[ahead[0]] = ahead[1]
            ahead = next(pairs, None)
        return taken

    return take
