"""The small tables that a store cannot be opened without: who it is, what is in it, how models are numbered.

Room: what is to be put right in `meta`, `collections` and `local` before the rest
can be read, given what the log says. Findings and fixes; `doctor` carries them out.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain

from protocol.encoding import decode, encode
from protocol.errors import ProtocolError
from protocol.ids import INCARNATION_BYTES, SYSTEM_SPACE_NAME, application_space_name, author_of, space_id
from protocol.keys import KeyPair
from protocol.membership import Genesis, decode_genesis
from storage.doctor_log import Fix, LogFindings
from storage.kv import Table
from storage.lmdb_kv import LmdbTransaction
from storage.store import FORMAT

_GUESSED = ("default",)  # applications whose space can be told without their name on record


@dataclass(slots=True)
class BasisFindings:
    """As `LogFindings`. `rebuilds` are fixes that throw away what the log can give again."""

    losses: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    fixes: list[Fix] = field(default_factory=list)
    rebuilds: Iterator[Fix] = field(default_factory=lambda: iter(()))


def stored_format(transaction: LmdbTransaction) -> int | None:
    """The format of the record, or None if it cannot be told."""
    for key, value, _ in transaction.audit(Table.META):
        if key == b"format" and value is not None:
            return int(decode(value))
    return None


def examine_basis(
    transaction: LmdbTransaction, log: LogFindings, keys: KeyPair | None, random_bytes: Callable[[int], bytes]
) -> BasisFindings:
    """Look at the small tables, given what the log holds."""
    found = BasisFindings()
    meta: dict[bytes, bytes] = {}
    for key, value, _ in transaction.audit(Table.META):
        if value is None:
            found.faults.append("a record about the store was altered")
            found.fixes.append((Table.META, key, None))
        else:
            meta[key] = value
    if b"format" not in meta:
        found.fixes.append((Table.META, b"format", encode(FORMAT)))
        found.faults.append("the number of the data format was lost")
    genesis = _examine_identity(transaction, log, keys, meta, random_bytes, found)
    if genesis is not None:
        _examine_applications(log, genesis, meta, found)
    for key, value, _ in transaction.audit(Table.LOCAL):
        if value is None:
            found.faults.append("a record of this device alone (a sign-in, a setting) was altered: dropped")
            found.fixes.append((Table.LOCAL, key, None))
    for key, value, _ in transaction.audit(Table.TIMES):
        if value is None:
            found.faults.append("when some changes arrived was altered: dropped")
            found.fixes.append((Table.TIMES, key, None))
    _examine_collections(transaction, found)
    return found


def _examine_identity(
    transaction: LmdbTransaction,
    log: LogFindings,
    keys: KeyPair | None,
    meta: dict[bytes, bytes],
    random_bytes: Callable[[int], bytes],
    found: BasisFindings,
) -> Genesis | None:
    try:
        return decode_genesis(decode(meta[b"identity"])[3])
    except (KeyError, IndexError, TypeError, ProtocolError):
        pass
    genesis = _genesis_of(transaction, log)
    if genesis is None or keys is None:
        found.losses.append("who this store is cannot be told any more")
        return None
    author = author_of(keys.public, random_bytes(INCARNATION_BYTES))
    identity = [random_bytes(16), random_bytes(4).hex(), genesis.network_id, genesis.body, author]
    found.faults.append(
        "who this store is was lost: it goes on as a new author, cursors of before answer `resync`"
    )
    found.fixes.append((Table.META, b"identity", encode(identity)))
    return genesis


def _genesis_of(transaction: LmdbTransaction, log: LogFindings) -> Genesis | None:
    for each in log.chains.values():
        first = each.key + (1).to_bytes(8, "big") + b"\0\0"
        for key, body, _ in transaction.audit(Table.BODIES, first):
            if key == first and body is not None:
                try:
                    genesis = decode_genesis(body)
                except ProtocolError:
                    break
                if space_id(genesis.network_id, SYSTEM_SPACE_NAME) == each.space:
                    return genesis
            break
    return None


def _examine_applications(
    log: LogFindings, genesis: Genesis, meta: dict[bytes, bytes], found: BasisFindings
) -> None:
    names: list[str] = decode(meta[b"applications"]) if b"applications" in meta else []

    def space_of(name: str) -> bytes:
        return space_id(genesis.network_id, application_space_name(name))

    known = {space_of(name) for name in names} | {space_id(genesis.network_id, SYSTEM_SPACE_NAME)}
    unnamed = {each.space for each in log.chains.values()} - known
    guessed = [name for name in _GUESSED if space_of(name) in unnamed]
    if guessed:
        found.faults.append("the names of the applications were lost")
        found.fixes.append((Table.META, b"applications", encode(names + guessed)))
    for space in unnamed - {space_of(name) for name in guessed}:
        found.losses.append(f"the name of the application with space {space.hex()[:8]} is lost")


def _examine_collections(transaction: LmdbTransaction, found: BasisFindings) -> None:
    """Numbers of models cannot be told one by one; but documents are numbered anew when they are rebuilt."""
    numbers = [value for _, value, _ in transaction.audit(Table.COLLECTIONS)]
    if sorted(numbers, key=lambda n: n or b"") == [n.to_bytes(4, "big") for n in range(len(numbers))]:
        return
    found.faults.append("the numbers of models were damaged: all documents are rebuilt")
    tables = (Table.DOCUMENTS, Table.HISTORY, Table.COLLECTIONS)
    found.rebuilds = chain.from_iterable(
        ((table, key, None) for key, _, _ in transaction.audit(table)) for table in tables
    )
