"""A signed export: the log of one application as a file that proves itself.

Room: what a node has of an application, and of the statements that say who may write in it, as a CBOR sequence of
byte strings, and the replay of such a file in memory. Nothing in it is believed: every run is verified by its
author's signature, every commit by its hashes, and what counts follows from the statements, as on a node.

    header   [MAGIC, network id, application]
    run …    as nodes exchange them (SPEC, "Runs and windows"): those of `system`, then those of the application
    end      [END, number of runs]

It proves who wrote what is in it. That nothing is missing it cannot prove: a log that was cut before it was
exported, or a file that somebody made shorter and gave another end, is a whole log of an earlier day.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from protocol.encoding import decode_exact, encode
from protocol.errors import Malformed, ProtocolError
from protocol.ids import AUTHOR_BYTES, SYSTEM_SPACE_NAME, Author, NetworkId, application_space_name, space_id
from protocol.integrate import Integrated, Known, Waiting
from protocol.membership import StatementKind, decode_genesis, statement_kind
from protocol.window import Run, decode_run
from storage.memory_kv import MemoryKeyValueStore
from storage.runs import RunReader, WaitingRoom
from storage.store import Identity, Snapshot, Store

MAGIC = "civicnode signed export 1"
END = "end"
ITEM_MAX_BYTES = 64 << 20  # of one run, more than any that a node takes


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


def verify_archive(path: Path) -> Verified:
    """Replay a file in memory. Blocks. Raises `NotAnArchive`, OSError."""
    with path.open("rb") as file:
        try:
            items = _items(file)
            match decode_exact(next(items, b"")):
                case [str(magic), bytes(network), str(application)] if magic == MAGIC:
                    network_id = NetworkId(network)
                case _:
                    raise NotAnArchive("it is not a signed export")
            *packed, end = [*items] or [b""]
            if end != encode([END, len(packed)]):
                raise NotAnArchive("its end is missing")
            runs = [decode_run(item) for item in packed]
        except ProtocolError as error:
            raise NotAnArchive(f"a signature, hash or length in it is wrong: {error}") from error
    verified = Verified(_founded(network_id, runs), network_id, application)
    system = space_id(network_id, SYSTEM_SPACE_NAME)
    space = space_id(network_id, application_space_name(application))
    if any(run.commits[0].header.space not in (system, space) for run in runs):
        raise NotAnArchive("it holds commits of another application than it says")
    _replay(verified, runs, system, space)
    return verified


def _founded(network_id: NetworkId, runs: list[Run]) -> Store:
    """An empty store in the network whose genesis the file holds."""
    system = space_id(network_id, SYSTEM_SPACE_NAME)
    commits = (commit for run in runs for commit in run.commits if commit.header.space == system)
    bodies = (body for commit in commits for body in commit.bodies if body is not None)
    try:
        founding = (body for body in bodies if statement_kind(body) == StatementKind.GENESIS)
        genesis = next((g for body in founding if (g := decode_genesis(body)).network_id == network_id), None)
    except ProtocolError as error:
        raise NotAnArchive(f"its genesis is none: {error}") from error
    if genesis is None:
        raise NotAnArchive("the genesis of its network is not in it")
    store = Store(MemoryKeyValueStore())
    store.begin(
        Identity(bytes(16), "0", network_id, genesis.body, Author(bytes(AUTHOR_BYTES))), founding=None
    )
    return store


def _replay(verified: Verified, runs: list[Run], system: bytes, space: bytes) -> None:
    """Integrate all that has its causes, statements first, in as many rounds as that takes."""
    pending = [commit for run in runs for commit in run.commits]
    pending.sort(key=lambda commit: (commit.header.space != system, commit.header.hlc))
    while pending:
        left = []
        with verified.store.write() as batch:
            batch.add_application(verified.application)
            for commit in pending:
                outcome = batch.integrate(commit)
                if isinstance(outcome, Integrated):
                    batch.keep(outcome)
                    if commit.header.space == space:
                        author = commit.header.author
                        verified.commits[author] = verified.commits.get(author, 0) + 1
                elif isinstance(outcome, Waiting):
                    left.append(commit)
                elif not isinstance(outcome, Known):
                    verified.forked += 1
        if len(left) == len(pending):
            verified.waiting = len(left)
            return
        pending = left


def _items(file: BinaryIO) -> Iterator[bytes]:
    """The byte strings of a CBOR sequence. Raises `Malformed`."""
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
        yield data
