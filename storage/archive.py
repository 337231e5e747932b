"""A signed export: the log of one application as a file that proves itself.

Room: what a node has of an application, and of the statements that say who may write in it, as a CBOR sequence of
byte strings, and the replay of such a file in a store of its own. Nothing in it is believed: every run is verified by
its author's signature, every commit by its hashes, and what counts follows from the statements, as on a node.

The file is read twice, whatever its size: once to find its runs, whose places are all that is remembered of them, and
once in the order of time across their authors, in which causes come first.

    header   [MAGIC, network id, application]
    run …    as nodes exchange them (SPEC, "Runs and windows"): those of `system`, then those of the application
    end      [END, number of runs]

It proves who wrote what is in it. That nothing is missing it cannot prove: a log that was cut before it was
exported, or a file that somebody made shorter and gave another end, is a whole log of an earlier day.
"""

import heapq
import tempfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from protocol.commit import Commit
from protocol.encoding import decode_exact, encode
from protocol.errors import Malformed, ProtocolError
from protocol.ids import (
    AUTHOR_BYTES,
    SYSTEM_SPACE_NAME,
    Author,
    NetworkId,
    SpaceId,
    application_space_name,
    space_id,
)
from protocol.integrate import Integrated, Known, Waiting
from protocol.membership import StatementKind, decode_genesis, statement_kind
from protocol.window import Run, decode_run
from storage.lmdb_kv import LmdbKeyValueStore
from storage.runs import RunReader, WaitingRoom
from storage.store import Batch, Identity, Snapshot, Store

MAGIC = "civicnode signed export 1"
END = "end"
ITEM_MAX_BYTES = 64 << 20  # of one run, more than any that a node takes
RUNS_HELD_MAX_BYTES = 16 << 20  # of runs that are being replayed, as they are in the file
BATCH_BYTES = 4 << 20  # of commits, about, that are stored in one transaction, which holds them in memory
COMMIT_BYTES = 1_000  # at least, that one counts as there


class NotAnArchive(Exception):
    """The file is not a signed export, or not one that can be believed. The text says which."""


@dataclass(slots=True)
class Verified:
    """What a file proves: the documents in `store`, written by these authors."""

    store: Store
    network_id: NetworkId
    application: str
    commits: dict[Author, int] = field(default_factory=dict)  # of the application, that count or not
    waiting: int = 0  # commits whose causes are not in the file: nothing of them is in `store`
    forked: int = 0  # of authors who have signed two of one place


def write_archive(snapshot: Snapshot, store: Store, application: str) -> Iterator[bytes]:
    """The file, item by item, of one moment. What waits for its causes comes along."""
    assert store.identity is not None
    yield encode(encode([MAGIC, store.identity.network_id, application]))
    count = 0
    reader = RunReader(snapshot, store.names, WaitingRoom(snapshot))
    for space in (store.system, store.space(application)):
        for _, author in store.names.chains_of(space):
            after_seq = 0
            while (stretch := reader.stretch((space, author), after_seq)) is not None:
                yield encode(Run(tuple(stretch.commits)).encode())
                after_seq = stretch.commits[-1].header.seq
                count += 1
    yield encode(encode([END, count]))


@contextmanager
def verified_archive(path: Path) -> Iterator[Verified]:
    """Replay a file in a temporary directory, which is gone afterwards. Blocks. Raises `NotAnArchive`, OSError."""
    with (
        path.open("rb") as file,
        tempfile.TemporaryDirectory(prefix="civicnode-verify-") as directory,
        closing(LmdbKeyValueStore(directory)) as keys,
    ):
        try:
            yield _replayed(file, Store(keys))
        except ProtocolError as error:
            raise NotAnArchive(f"a signature, hash or length in it is wrong: {error}") from error


def _replayed(file: BinaryIO, store: Store) -> Verified:
    items = _items(file)
    match decode_exact(next(items, (0, b""))[1]):
        case [str(magic), bytes(network), str(application)] if magic == MAGIC:
            network_id = NetworkId(network)
        case _:
            raise NotAnArchive("it is not a signed export")
    system = space_id(network_id, SYSTEM_SPACE_NAME)
    space = space_id(network_id, application_space_name(application))
    places: dict[SpaceId, list[_Place]] = {system: [], space: []}
    genesis: bytes | None = None
    last = b""
    for offset, item in items:
        if last:
            raise NotAnArchive("it goes on after its end")
        if _is_end(item):
            last = item
            continue
        commits = decode_run(item).commits
        first = commits[0].header
        if first.space not in places:
            raise NotAnArchive("it holds commits of another application than it says")
        if first.space == system and genesis is None:
            genesis = _genesis(commits, network_id)
        places[first.space].append(_Place(first.hlc, offset, len(commits)))
    if last != encode([END, sum(map(len, places.values()))]):
        raise NotAnArchive("its end is missing")
    if genesis is None:
        raise NotAnArchive("the genesis of its network is not in it")
    store.begin(Identity(bytes(16), "0", network_id, genesis, Author(bytes(AUTHOR_BYTES))), founding=None)
    verified = Verified(store, network_id, application)
    with store.write() as batch:
        batch.add_application(application)
    for of_space in (system, space):
        _replay(verified, _Runs(file), places[of_space], is_counted=of_space == space)
    return verified


def _is_end(item: bytes) -> bool:
    return item.startswith(encode([END, 0])[:-1])  # a run is a list of byte strings


def _genesis(commits: tuple[Commit, ...], network_id: NetworkId) -> bytes | None:
    """The genesis of the network, if it is among these statements."""
    bodies = (body for commit in commits for body in commit.bodies if body is not None)
    founding = (decode_genesis(body) for body in bodies if statement_kind(body) == StatementKind.GENESIS)
    return next((genesis.body for genesis in founding if genesis.network_id == network_id), None)


@dataclass(order=True, slots=True)
class _Place:
    """How far a run has been replayed, in the order of the time of its next commit."""

    hlc: int
    offset: int  # in the file, of the run
    left: int  # commits that are still to come


class _Runs:
    """The runs of a file by their places. Those of authors who write at the same time are asked for in turn."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._held: OrderedDict[int, tuple[Run, int]] = OrderedDict()
        self._held_bytes = 0

    def at(self, offset: int) -> Run:
        if offset in self._held:
            self._held.move_to_end(offset)
            return self._held[offset][0]
        self._file.seek(offset)
        _, item = next(_items(self._file))
        run = decode_run(item)
        self._held[offset] = run, len(item)
        self._held_bytes += len(item)
        while self._held_bytes > RUNS_HELD_MAX_BYTES and len(self._held) > 1:
            _, (_, size) = self._held.popitem(last=False)
            self._held_bytes -= size
        return run


def _replay(verified: Verified, runs: _Runs, places: list[_Place], *, is_counted: bool) -> None:
    """Integrate all commits of one space that have their causes, in as many rounds as that takes."""
    while places:
        before = sum(place.left for place in places)
        heapq.heapify(places)
        waiting: list[_Place] = []
        while places:
            with verified.store.write() as batch:
                room = BATCH_BYTES
                while places and room > 0:
                    place = heapq.heappop(places)
                    commits = runs.at(place.offset).commits
                    commit = commits[-place.left]
                    room -= COMMIT_BYTES + sum(len(body) for body in commit.bodies if body is not None)
                    if not _integrate(verified, batch, commit, is_counted=is_counted):
                        waiting.append(place)
                    elif place.left > 1:
                        place.left -= 1
                        place.hlc = commits[-place.left].header.hlc
                        heapq.heappush(places, place)
        if sum(place.left for place in waiting) == before:
            verified.waiting += before
            return
        places = waiting


def _integrate(verified: Verified, batch: Batch, commit: Commit, *, is_counted: bool) -> bool:
    """Whether all that the commit rests on is here."""
    outcome = batch.integrate(commit)
    if isinstance(outcome, Integrated):
        batch.keep(outcome)
        if is_counted:
            author = commit.header.author
            verified.commits[author] = verified.commits.get(author, 0) + 1
    elif isinstance(outcome, Waiting):
        return False
    elif not isinstance(outcome, Known):
        verified.forked += 1
    return True


def _items(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """The byte strings of a CBOR sequence, from here on, and where each begins. Raises `Malformed`."""
    offset = file.tell()
    while first := file.read(1):
        if first[0] >> 5 != 2 or first[0] & 31 > 27:
            raise Malformed("an item of a signed export is a byte string")
        size = first[0] & 31
        if size >= 24:
            size = int.from_bytes(file.read(1 << (size - 24)), "big")
        if size > ITEM_MAX_BYTES:
            raise Malformed(f"an item of {size} bytes")
        data = file.read(size)
        if len(data) != size:
            raise Malformed("the file ends in the middle of an item")
        yield offset, data
        offset = file.tell()
