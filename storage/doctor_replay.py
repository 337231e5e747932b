"""The log replayed from zero into a scratch store, and what the record says that the replay does not.

Room: everything that is derived from the log is compared with what the log makes
of it: documents, history, verdicts, knowledge, heads, what each arrival did,
the frontier of each space. Writes to the scratch store alone; `doctor` puts the
differences right. What is in the log is `doctor_log`'s.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import islice

from protocol.body import stub_of
from protocol.commit import Commit
from protocol.document import Document
from protocol.encoding import decode
from protocol.errors import Malformed
from protocol.ids import SPACE_ID_BYTES
from protocol.integrate import Integrated, Refused, Waiting
from protocol.window import decode_run
from storage.arrivals import KnownFork, Rejudgement
from storage.errors import StorageError
from storage.kv import KeyValueStore, ReadTransaction, Table
from storage.names import Chain, Names
from storage.quarantine import listed
from storage.store import Batch, Identity, Snapshot, Store

Difference = tuple[Table, bytes, bytes | None]  # what the replay has there; None if nothing
_COMMITS_PER_WRITE = 256
# META last: it is small, and what of it is derived stands between what is not.
DERIVED = (Table.COLLECTIONS, Table.HEADS, Table.VERDICTS, Table.MISSING, Table.KNOWLEDGE, Table.PASTS, Table.EARLY,
           Table.FORKS, Table.ARRIVALS, Table.REJUDGED, Table.DOCUMENTS, Table.HISTORY, Table.META)  # fmt: skip
_ALTERED = b"\xff"  # equal to nothing that is stored, and no CBOR
_DERIVED_META = (b"frontier ", b"named ")


class ReplayFailed(StorageError):
    """The log does not integrate in the order in which it says that it did."""


def scratch_store(keys: KeyValueStore, identity: Identity, transaction: ReadTransaction) -> Store:
    """A store in `keys`, which hold nothing, that gives the same numbers to names as the transaction's does."""
    names = {t: dict(transaction.scan(t, b"", None)) for t in (Table.CHAINS, Table.COLLECTIONS)}
    with keys.write() as batch:
        for table, pairs in names.items():
            for name, number in pairs.items():
                batch.put(table, name, number)
    store = Store(keys)
    store.begin(identity, founding=None)
    return store


def replay(real: Snapshot, scratch: Store, step: Callable[[], None]) -> None:
    """Integrate every commit of a record in the order of arrival. `step` is called once a commit.

    Raises `ReplayFailed`, or `StoreDamaged` where the log cannot be read.
    """
    early = {(chain, seq): due_with for chain, seq, due_with in real.log.early()}
    forks = {fork.arrival: fork for _, fork in real.log.all_forks()}
    happenings = real.log.happenings()
    filled: dict[int, list[tuple[Chain, int, int]]] = {}
    for chain, seq, index, filled_with in real.log.missing():
        if filled_with:
            filled.setdefault(filled_with, []).append((chain, seq, index))
    late = {place for places in filled.values() for place in places}
    with scratch.write() as batch:
        for told in listed(real.local):  # what stopped a process once need not stop this one
            batch.quarantine(told)
    while group := list(islice(happenings, _COMMITS_PER_WRITE)):
        with scratch.write() as batch:
            for arrival in group:
                if isinstance(arrival, Rejudgement):
                    if arrival.number > batch.log.last_arrival():  # else it follows from the commit before it
                        if arrival.number in filled:
                            batch.fill_again(filled[arrival.number], real.log)
                        else:
                            _judge_again(batch, arrival, early, forks)
                    continue
                commit = real.log.commit(arrival.chain, arrival.seq)
                if commit is None:
                    raise ReplayFailed(f"arrival {arrival.number} names a commit that is not there")
                commit = _as_it_came(commit, arrival.chain, late)
                outcome = batch.integrate(commit, is_early=(arrival.chain, arrival.seq) in early)
                if not isinstance(outcome, Integrated):
                    raise ReplayFailed(f"arrival {arrival.number} does not integrate: {_reason(outcome)}")
                batch.keep(outcome)
                step()


def _as_it_came(commit: Commit, chain: Chain, late: set[tuple[Chain, int, int]]) -> Commit:
    """A commit without the bodies that were filled in later."""
    if not late:
        return commit
    places = [index for index in range(len(commit.bodies)) if (chain, commit.header.seq, index) in late]
    if not places:
        return commit
    bodies = tuple(None if index in places else body for index, body in enumerate(commit.bodies))
    stubs = {index: stub_of(body) for index in places if (body := commit.bodies[index]) is not None}
    return replace(commit, bodies=bodies, stubs=tuple(sorted({**dict(commit.stubs), **stubs}.items())))


def _judge_again(
    batch: Batch,
    told: Rejudgement,
    early: Mapping[tuple[Chain, int], int],
    forks: Mapping[int, KnownFork],
) -> None:
    """What this node once found out from its clock, or from a branch that it does not keep."""
    fork = forks.get(told.number)
    if fork is not None:
        batch.keep_fork(decode_run(fork.run), fork.seq)
    else:
        batch.materialise((at for at, due_with in early.items() if due_with == told.number), told.at_ms)


def _reason(outcome: object) -> str:
    match outcome:
        case Waiting(missing):
            return f"{len(missing)} of its causes come later"
        case Refused(rule):
            return rule
        case _:
            return type(outcome).__name__.lower()


def replayed_differences(store: Store, scratch_keys: KeyValueStore) -> list[str]:
    """What a store holds that is not what its log makes of it, in words; nothing if all is well.

    `scratch_keys` hold nothing, and are of no use afterwards. For stores that are in use by nobody else.
    """
    assert store.identity is not None
    with store.read() as real:
        scratch = scratch_store(scratch_keys, store.identity, real.transaction)
        replay(real, scratch, lambda: None)
        with scratch.read() as expected:
            found = differences(real.transaction, expected.transaction, scratch.names, store.identity.author)
            return [describe(table, key, scratch.names) for table, key, _ in found]


def differences(
    real: ReadTransaction, scratch: ReadTransaction, names: Names, author: bytes
) -> Iterator[Difference]:
    """Where the derived tables of a record differ from those of the replay, in the order of `DERIVED`.

    `names` are those of the record and `author` is who it writes as.
    """
    for table in DERIVED:
        for key, held, expected in _side_by_side(real, scratch, table):
            if table is Table.META and not key.startswith(_DERIVED_META):
                continue
            if held == expected or _means_the_same(table, held, expected, names, author):
                continue
            yield table, key, expected


def _side_by_side(
    real: ReadTransaction, scratch: ReadTransaction, table: Table
) -> Iterator[tuple[bytes, bytes | None, bytes | None]]:
    """Key, what the record has and what the replay has."""
    ours = ((key, _ALTERED if value is None else value) for key, value, _ in real.audit(table))
    theirs = scratch.scan(table, b"", None)
    left, right = next(ours, None), next(theirs, None)
    while left is not None or right is not None:
        if right is None or (left is not None and left[0] < right[0]):
            assert left is not None
            yield left[0], left[1], None
            left = next(ours, None)
        elif left is None or right[0] < left[0]:
            yield right[0], None, right[1]
            right = next(theirs, None)
        else:
            yield left[0], left[1], right[1]
            left, right = next(ours, None), next(theirs, None)


def _means_the_same(
    table: Table, held: bytes | None, expected: bytes | None, names: Names, author: bytes
) -> bool:
    try:
        if table is Table.META and expected is None and held is not None:
            return bool(decode(held)[0] != author)  # named by a life that is over: of no use, and no harm
        if table is Table.COLLECTIONS and expected is None and held is not None:
            return held != _ALTERED  # a model of which nothing has come to be
        if table is Table.DOCUMENTS and held is not None and expected is not None:
            first, second = (Document.from_state("", "", decode(v), names.author) for v in (held, expected))
            return first == second
    except (Malformed, IndexError, TypeError):
        return False
    return False


def describe(table: Table, key: bytes, names: Names) -> str:
    """A derived record in words."""
    if table in (Table.DOCUMENTS, Table.HISTORY):
        try:
            model = names.model(int.from_bytes(key[:4], "big"))[1]
        except IndexError:
            model = "?"
        id = key[4:] if table is Table.DOCUMENTS else key[4:-11]
        what = "document" if table is Table.DOCUMENTS else "history of document"
        return f"{what} {model}/{id.decode(errors='replace')}"
    if table is Table.META:
        return key.decode(errors="replace")
    if table is Table.COLLECTIONS:
        return f"number of model {key[SPACE_ID_BYTES:].decode(errors='replace')}"
    if table is Table.ARRIVALS:
        return f"arrival {int.from_bytes(key, 'big')}"
    numbers = "/".join(str(int.from_bytes(key[at : at + 8], "big")) for at in range(4, len(key), 8))
    return f"{table.partition('-')[0]} of chain {int.from_bytes(key[:4], 'big')} {numbers}".strip()
