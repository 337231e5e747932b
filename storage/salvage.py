"""A new record out of a file that the engine must not open: what can still be proved of each chain.

Room: finds the log page by page (`pages`), takes the longest prefix of each chain
in which every header, link and body is whole and a signature stands above, and
integrates that into a fresh store. The damaged file is kept under another name.
Records of the device alone are not carried over: old ones that were deleted since
cannot be told from those that were in force.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from protocol.body import Stub, body_hash, decode_stub
from protocol.commit import (
    NO_PREVIOUS,
    Commit,
    Header,
    decode_header,
    header_hash,
    make_commit,
    sign_commit,
    verify_signature,
)
from protocol.encoding import decode
from protocol.errors import ProtocolError
from protocol.ids import (
    INCARNATION_BYTES,
    SYSTEM_SPACE_NAME,
    Author,
    SpaceId,
    application_space_name,
    author_of,
    node_of,
    space_id,
)
from protocol.integrate import Integrated
from protocol.keys import KeyPair
from protocol.limits import SIGNATURE_KEPT_EVERY
from protocol.membership import Genesis, decode_genesis
from storage.doctor_log import named_range
from storage.keyfiles import flush_directory
from storage.kv import ReadTransaction, Table, after
from storage.lmdb_kv import DATA_FILE, LmdbKeyValueStore
from storage.pages import records_on_pages
from storage.store import Identity, Store

_LOG = frozenset({Table.HEADERS, Table.SIGNATURES, Table.BODIES, Table.STUBS, Table.ARRIVALS, Table.META})
_APPLICATIONS = b"applications"
_GUESSED = ("default",)  # applications whose space can be told without their name on record
_PER_WRITE = 1_000
_Place = tuple[int, int]  # chain number and seq


@dataclass(slots=True)
class Salvaged:
    """What came of it. `kept_at` is where the damaged file is now; None if there was nothing to be saved."""

    kept_at: Path | None = None
    notes: list[str] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Chain:
    space: SpaceId
    author: Author
    seq: int = 0  # of the last commit that is whole
    hash: bytes = NO_PREVIOUS
    proved: int = 0
    seen: int = 0  # the highest seq of which there is any trace


def salvage(
    data_dir: Path, keys: KeyPair, seqs: dict[bytes, int], random_bytes: Callable[[int], bytes]
) -> Salvaged:
    """Make a new record in place of the damaged one. The node goes on as a new author.

    `keys` are the node's; what they have signed they can sign again. `seqs` are our highest seqs as the
    anchor knows them. Raises `StorageError` or OSError; the record is then as it was.
    """
    outcome = Salvaged()
    stage = Path(tempfile.mkdtemp(prefix="doctor-", dir=data_dir))
    try:
        (stage / "found").mkdir()
        (stage / "new").mkdir()
        with closing(LmdbKeyValueStore(str(stage / "found"))) as found:
            applications = _collect(data_dir / DATA_FILE, found)
            with found.read() as transaction:
                genesis = _genesis(transaction)
                if genesis is None:
                    return outcome
                chains = _chains(transaction, keys)
                with closing(LmdbKeyValueStore(str(stage / "new"))) as new:
                    store = Store(new)
                    author = author_of(keys.public, random_bytes(INCARNATION_BYTES))
                    identity = Identity(random_bytes(16), random_bytes(4).hex(), genesis.network_id,
                                        genesis.body, author)  # fmt: skip
                    store.begin(identity, founding=None)
                    _name_applications(store, chains, applications, outcome)
                    _fill(store, transaction, chains, keys, seqs, outcome)
        outcome.kept_at = _swap(data_dir / DATA_FILE, stage / "new" / DATA_FILE)
        outcome.notes.append("the node goes on as a new author, so cursors of before answer `resync`")
        outcome.notes.append("sign-ins and settings of this device alone could not be carried over")
        return outcome
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _collect(record: Path, found: LmdbKeyValueStore) -> list[str]:
    """Copy what is found on the pages. Returns the names of the applications."""
    applications: list[str] = []
    records = records_on_pages(record, _LOG)
    while some := list(islice(records, _PER_WRITE)):
        with found.write() as batch:
            for table, key, value in some:
                if table is Table.META:
                    if key == _APPLICATIONS:
                        applications = max(applications, decode(value), key=len)  # names are only ever added
                else:
                    batch.put(table, key, value)
    return applications


def _genesis(transaction: ReadTransaction) -> Genesis | None:
    """The statement with which the network began: the first body of a chain in the space that it names."""
    for key, data in transaction.scan(Table.HEADERS, b"", None):
        body = transaction.get(Table.BODIES, key + b"\0\0") if key[4:] == (1).to_bytes(8, "big") else None
        if body is not None:
            try:
                genesis, header = decode_genesis(body), decode_header(data)
            except ProtocolError:
                continue
            if header.space == space_id(genesis.network_id, SYSTEM_SPACE_NAME):
                return genesis
    return None


# -- what is whole


def _chains(transaction: ReadTransaction, keys: KeyPair) -> dict[int, _Chain]:
    chains: dict[int, _Chain] = {}
    for key, data in transaction.scan(Table.HEADERS, b"", None):
        number, seq = int.from_bytes(key[:4], "big"), int.from_bytes(key[4:], "big")
        header = decode_header(data)
        chain = chains.setdefault(number, _Chain(header.space, header.author))
        chain.seen = seq
        is_next = (header.space, header.author, seq) == (chain.space, chain.author, chain.seq + 1)
        if is_next and header.previous == chain.hash and _bodies(transaction, key, header) is not None:
            chain.seq, chain.hash = seq, header_hash(data)
            signature = transaction.get(Table.SIGNATURES, key)
            if signature is not None and verify_signature(chain.author, chain.hash, signature):
                chain.proved = seq
    for chain in chains.values():
        if node_of(chain.author) == keys.public:
            chain.proved = chain.seq
    return chains


def _stubs(transaction: ReadTransaction, key: bytes, header: Header) -> dict[int, Stub]:
    """What is left of the bodies of a commit that were dropped."""
    found: dict[int, Stub] = {}
    for place, value in transaction.scan(Table.STUBS, key, after(key)):
        index, stub = int.from_bytes(place[12:], "big"), decode_stub(value)
        if index < len(header.body_hashes) and header.body_hashes[index] == stub.hash:
            found[index] = stub
    return found


def _bodies(transaction: ReadTransaction, key: bytes, header: Header) -> list[bytes | None] | None:
    """The bodies of a commit; None if one is neither there nor dropped on purpose."""
    stubs = _stubs(transaction, key, header)
    found = {
        int.from_bytes(place[12:], "big"): body
        for place, body in transaction.scan(Table.BODIES, key, after(key))
    }
    bodies: list[bytes | None] = []
    for index, expected in enumerate(header.body_hashes):
        body = found.get(index) if index not in stubs else None  # it may lie on a page that was freed
        if body is None:
            if index not in stubs:
                return None
        elif body_hash(body) != expected:
            return None
        bodies.append(body)
    return bodies


def _name_applications(
    store: Store, chains: dict[int, _Chain], applications: list[str], outcome: Salvaged
) -> None:
    assert store.identity is not None
    network = store.identity.network_id
    spaces = {space_id(network, application_space_name(name)): name for name in (*applications, *_GUESSED)}
    used = {chain.space for chain in chains.values()} - {store.system}
    outcome.losses += [
        f"the name of the application with space {space.hex()[:8]}" for space in used - spaces.keys()
    ]
    with store.write() as batch:
        for name in applications + [name for space, name in spaces.items() if space in used]:
            batch.add_application(name)


# -- into the new store


def _fill(
    store: Store,
    transaction: ReadTransaction,
    chains: dict[int, _Chain],
    keys: KeyPair,
    seqs: dict[bytes, int],
    outcome: Salvaged,
) -> None:
    waiting = list(_in_order(transaction, chains))
    saved: dict[int, int] = dict.fromkeys(chains, 0)
    while waiting:
        later: list[_Place] = []
        places = iter(waiting)
        while some := list(islice(places, _PER_WRITE)):
            with store.write() as batch:
                for number, seq in some:
                    done = batch.integrate(_commit(transaction, chains[number], number, seq, keys))
                    if isinstance(done, Integrated):
                        batch.keep(done)
                        saved[number] = seq
                    else:
                        later.append((number, seq))
        if len(later) == len(waiting):
            break  # what they build on is lost
        waiting = later
    for number, chain in chains.items():
        seen = chain.seen
        if node_of(chain.author) == keys.public:
            seen = max(seen, seqs.get(chain.space, 0) if _is_newest(chain, chains) else 0)
        who = f"the chain of {node_of(chain.author).hex()[:8]} in space {chain.space.hex()[:8]}"
        outcome.notes.append(f"saved {saved[number]} commits of {who}")
        if saved[number] < seen:
            outcome.losses.append(f"{named_range(saved[number] + 1, seen)} lost from {who}")


def _is_newest(chain: _Chain, chains: dict[int, _Chain]) -> bool:
    """Whether it is our only chain in its space, so that the anchor can mean no other."""
    return (
        sum(each.space == chain.space and each.author[:32] == chain.author[:32] for each in chains.values())
        == 1
    )


def _in_order(transaction: ReadTransaction, chains: dict[int, _Chain]) -> Iterator[_Place]:
    """Commits of the proved prefixes: in the order of arrival as far as it is known, then chain by chain."""
    placed: set[_Place] = set()
    for _, value in transaction.scan(Table.ARRIVALS, b"", None):
        place = int.from_bytes(value[:4], "big"), int.from_bytes(value[4:12], "big")
        if place[0] in chains and 0 < place[1] <= chains[place[0]].proved and place not in placed:
            placed.add(place)
            yield place
    for number, chain in chains.items():
        for seq in range(1, chain.proved + 1):
            if (number, seq) not in placed:
                yield number, seq


def _commit(transaction: ReadTransaction, chain: _Chain, number: int, seq: int, keys: KeyPair) -> Commit:
    key = number.to_bytes(4, "big") + seq.to_bytes(8, "big")
    data = transaction.get(Table.HEADERS, key)
    assert data is not None
    header = decode_header(data)
    signature = transaction.get(Table.SIGNATURES, key)
    is_to_be_signed = seq == chain.proved or seq % SIGNATURE_KEPT_EVERY == 0
    if signature is None and is_to_be_signed and node_of(chain.author) == keys.public:
        signature = sign_commit(keys, header, ()).signature  # the same as it was
    bodies = _bodies(transaction, key, header) or []
    return make_commit(data, bodies, signature, _stubs(transaction, key, header))


def _swap(record: Path, new: Path) -> Path:
    """Put the new file in the place of the old one, which keeps another name: at every moment there is one."""
    number = 1
    while (aside := record.with_name(f"{record.name}.damaged-{number}")).exists():
        number += 1
    os.link(record, aside)
    os.replace(new, record)
    flush_directory(record.parent)
    return aside
