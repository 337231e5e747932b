"""Everything a node keeps, verified; what is derived from the log, repaired.

Room: the order of the examination and what is done about its findings, in a
directory where no node runs. First the file's structure, in a child process;
then what is true (`doctor_log`), what the store rests on (`doctor_basis`), what
follows from the log (`doctor_replay`) and the query index (`doctor_index`). The
log itself is never changed: what is lost from it is told. If the file cannot be
used as it is, `salvage` makes a new one of what can still be proved, and the old
one is kept.
"""

import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from protocol.ids import node_of
from protocol.keys import KeyPair
from protocol.schema import Model
from storage.doctor_basis import examine_basis, stored_format
from storage.doctor_index import examine_index
from storage.doctor_log import Fix, LogFindings, examine_log
from storage.doctor_replay import ReplayFailed, describe, differences, replay, scratch_store
from storage.errors import NewerFormat, StorageError, StoreDamaged, os_failure
from storage.gate import (
    ANCHOR_FILE,
    FOUNDING,
    INDEX_FILE,
    AnchorFile,
    DirectoryLock,
    must_start_new_life,
    read_anchor,
    structural_faults,
)
from storage.keyfiles import NODE_KEY_FILE, load_key
from storage.kv import Table
from storage.lmdb_kv import DATA_FILE, LmdbKeyValueStore
from storage.names import Names
from storage.opening import own_heads
from storage.salvage import salvage
from storage.store import FORMAT, Store

Progress = Callable[[int, int], None]  # commits looked at, and how many there are (each is looked at twice)
_NAMED_MAX = 20  # findings of one kind that a report names; the rest are counted
_FIXES_PER_WRITE = 1_000
_PROGRESS_EVERY = 64
_SCRATCH_PREFIX = "doctor-"
_RESTORE = "`civicnode restore` brings back a backup"
_REPAIR = "`civicnode doctor --repair` puts it right"


@dataclass(slots=True)
class Report:
    """What was found. `problems` are those that are left; `ok` is whether there are none."""

    problems: list[str] = field(default_factory=list)
    repaired: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return not self.problems


def examine(
    data_dir: Path,
    *,
    repair: bool,
    progress: Progress | None = None,
    builtins: Sequence[Model] = (),
    random_bytes: Callable[[int], bytes] = os.urandom,
) -> Report:
    """Verify a data directory in which no node runs, and with `repair` rebuild what is derived from the log.

    `builtins` are the models that the program itself defines: with them, their rows are compared as well.
    Blocks, some seconds for 100,000 documents. Raises `StoreLocked`, `NewerFormat`, `StorageFull`, or another
    `StorageError` if there is nothing to examine; what was repaired until then stays so.
    """
    try:
        if not data_dir.is_dir():
            raise StorageError(f"{data_dir} is not a directory: name the node's with --data-dir")
        with DirectoryLock(data_dir):
            for left_over in data_dir.glob(_SCRATCH_PREFIX + "*"):
                shutil.rmtree(left_over, ignore_errors=True)
            examination = _Examination(data_dir, repair, progress, builtins, random_bytes)
            examination.run()
            return examination.report
    except OSError as error:
        raise os_failure(error, error.filename or data_dir) from error


class _Examination:
    def __init__(
        self,
        data_dir: Path,
        repair: bool,
        progress: Progress | None,
        builtins: Sequence[Model],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._data_dir = data_dir
        self._record = data_dir / DATA_FILE
        self._repair = repair
        self._progress = progress
        self._builtins = builtins
        self._random_bytes = random_bytes
        self._steps = 0
        self._steps_in_all = 0
        self.report = Report()

    def run(self) -> None:
        keys = self._load_keys()
        if not self._is_record_there():
            return
        why = self._why_unusable()
        if why is not None and not self._mend_file(keys, why):
            return
        with closing(LmdbKeyValueStore(str(self._data_dir), read_only=not self._repair)) as record:
            self._examine_record(record, keys)
        if self._repair and self.report.ok:
            self._write_anchor()

    def _step(self) -> None:
        self._steps += 1
        is_last = self._steps == self._steps_in_all
        if self._progress is not None and (is_last or self._steps % _PROGRESS_EVERY == 0):
            self._progress(self._steps, self._steps_in_all)

    def _tell(self, lines: Iterable[str], hint: str, *, is_repaired: bool = False) -> None:
        """Name the first findings of a kind and count the others."""
        found = list(lines)
        named = found[:_NAMED_MAX]
        if len(found) > len(named):
            named.append(f"{len(found) - len(named)} more of this kind")
        if is_repaired:
            self.report.repaired += named
        else:
            self.report.problems += [f"{line}: {hint}" for line in named]

    # -- the files

    def _load_keys(self) -> KeyPair | None:
        path = self._data_dir / NODE_KEY_FILE
        try:
            keys = load_key(path)
        except StorageError as error:
            self.report.problems.append(str(error))
            return None
        if keys is None and self._record.exists():
            self.report.problems.append(f"{path} is missing: put it back from a backup")
        return keys

    def _is_record_there(self) -> bool:
        if not self._record.exists() and read_anchor(self._data_dir).store_id in (b"", FOUNDING):
            raise StorageError(f"{self._data_dir} holds no record: name the node's directory with --data-dir")
        if self._record.exists() and self._record.stat().st_size:
            return True
        state = "empty" if self._record.exists() else "missing"
        self.report.problems.append(f"{self._record} is {state}, and all data with it: {_RESTORE}")
        return False

    def _why_unusable(self) -> str | None:
        """Why the file has to be made anew, if it has to."""
        faults = structural_faults(self._data_dir)
        if faults:
            more = f" and {len(faults) - 1} more" if len(faults) > 1 else ""
            return f"the structure of {self._record} is damaged ({faults[0]}{more})"
        record = LmdbKeyValueStore(str(self._data_dir), read_only=True)
        with closing(record), record.read() as transaction:
            try:
                found = stored_format(transaction)
                if found is not None and found > FORMAT:
                    raise NewerFormat(found=found, readable=FORMAT)
                for table in Table:
                    if not all(is_found for _, _, is_found in transaction.audit(table)):
                        return f"searches in {table} of {self._record} go astray"
            except StoreDamaged as error:  # a table is not there at all
                return str(error)
        return None

    def _mend_file(self, keys: KeyPair | None, why: str) -> bool:
        """Make a new file of what can be proved. Whether there is one to be examined now."""
        if not self._repair or keys is None:
            self.report.problems.append(
                f"{why}: `civicnode doctor --repair` saves what it can, or {_RESTORE}"
            )
            return False
        outcome = salvage(self._data_dir, keys, read_anchor(self._data_dir).seqs, self._random_bytes)
        if outcome.kept_at is None:
            self.report.problems.append(f"{why}, and nothing of it can be saved: {_RESTORE}")
            return False
        self._drop_index()
        self.report.repaired.append(f"{why}: the damaged file is kept at {outcome.kept_at}")
        self.report.repaired += outcome.notes
        self._tell(outcome.losses, _RESTORE)
        return True

    def _drop_index(self) -> None:
        for path in self._data_dir.glob(INDEX_FILE + "*"):  # with its -wal and -shm
            path.unlink()

    def _write_anchor(self) -> None:
        """All is in order: the next start need not verify the record, unless it has to start a new life."""
        with closing(LmdbKeyValueStore(str(self._data_dir), read_only=True)) as keys:
            store = Store(keys)
            seqs = {space: head.seq for space, head in own_heads(store).items()}
        anchor = AnchorFile(self._data_dir)
        try:
            assert store.identity is not None
            if must_start_new_life(self._data_dir, anchor.value, store.identity.store_id, seqs) is None:
                anchor.value.seqs, anchor.value.is_clean = seqs, True
                anchor.value.describe(self._record.stat())
                anchor.write(flush=True)
        finally:
            anchor.close()

    # -- the record

    def _examine_record(self, record: LmdbKeyValueStore, keys: KeyPair | None) -> None:
        with record.read() as transaction:
            commits = transaction.count(Table.HEADERS)
            self._steps_in_all = 2 * commits
            log = examine_log(transaction, keys, self._step)
            basis = examine_basis(transaction, log, keys, self._random_bytes)
            self.report.counts |= {
                "commits": commits,
                "chains": len(log.chains),
                "bodies": log.bodies,
                "signatures": log.signatures,
                "documents": transaction.count(Table.DOCUMENTS),
            }
            losses = log.losses + basis.losses + _lost_bodies(record, log)
            self._tell(losses, _RESTORE)
            faults = log.faults + basis.faults
            self._tell(faults, _REPAIR, is_repaired=self._repair)
            if self._repair:
                self._carry_out(record, iter(log.fixes + basis.fixes))
            if self._repair and not losses:
                self._carry_out(record, basis.rebuilds)
        if log.is_order_new and self._repair:
            (self._data_dir / ANCHOR_FILE).unlink(missing_ok=True)
            self.report.repaired.append("the order of arrival is new: cursors of before answer `resync`")
        if losses:
            self.report.problems.append("the log is not whole, so documents were not compared with it")
        elif self._repair or not faults:
            self._examine_store(record, keys)

    def _examine_store(self, record: LmdbKeyValueStore, keys: KeyPair | None) -> None:
        store = Store(record)
        assert store.identity is not None
        if keys is not None and node_of(store.identity.author) != keys.public:
            path = self._data_dir / NODE_KEY_FILE
            self.report.problems.append(
                f"{path} is not the key of this record: put both back from one backup"
            )
        if self._is_derived_sound(record, store):
            self._examine_index(Store(record))  # its numbers for names may be new

    def _carry_out(self, record: LmdbKeyValueStore, fixes: Iterator[Fix]) -> None:
        while some := list(islice(fixes, _FIXES_PER_WRITE)):
            with record.write() as batch:
                for table, key, value in some:
                    if value is None:
                        batch.delete(table, key)
                    else:
                        batch.put(table, key, value)

    # -- what is derived

    def _is_derived_sound(self, record: LmdbKeyValueStore, store: Store) -> bool:
        """Whether documents and the like are what the log says, be it that they have been made so."""
        assert store.identity is not None
        with self._scratch() as directory, store.read() as real, record.read() as transaction:
            scratch = scratch_store(LmdbKeyValueStore(directory), store.identity, transaction)
            with closing(scratch):
                try:
                    replay(real, scratch, self._step)
                except (ReplayFailed, StoreDamaged) as error:
                    self.report.problems.append(f"the log cannot be replayed ({error}): {_RESTORE}")
                    return False
                with scratch.keys.read() as expected:
                    found = differences(transaction, expected, scratch.names, store.identity.author)
                    return self._settle(record, found, scratch.names)

    def _settle(self, record: LmdbKeyValueStore, found: Iterator[Fix], names: Names) -> bool:
        lines: list[str] = []

        def told() -> Iterator[Fix]:
            for table, key, value in found:
                state = "should not be there" if value is None else "is not what the log says"
                lines.append(f"{describe(table, key, names)} {state}")
                yield table, key, value

        if self._repair:
            self._carry_out(record, told())
        else:
            deque(told(), maxlen=0)
        self._tell(lines, _REPAIR, is_repaired=self._repair)
        if lines and self._repair:
            self._drop_index()  # it may have followed what was wrong
            self.report.repaired.append("the query index is built anew at the next start")
        return self._repair or not lines

    @contextmanager
    def _scratch(self) -> Iterator[str]:
        directory = tempfile.mkdtemp(prefix=_SCRATCH_PREFIX, dir=self._data_dir)
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def _examine_index(self, store: Store) -> None:
        path = self._data_dir / INDEX_FILE
        if not path.exists():
            return  # it is built at the next start
        found = examine_index(path, store, self._builtins)
        self.report.counts["rows of the query index"] = found.rows
        self.report.counts["arrivals that the query index has yet to read"] = found.behind
        lines = [f"query index: {fault}" for fault in found.faults]
        self._tell(lines, "`civicnode doctor --repair` removes it", is_repaired=self._repair)
        if lines and self._repair:
            self._drop_index()
            self.report.repaired.append("the query index is built anew at the next start")


def _lost_bodies(record: LmdbKeyValueStore, log: LogFindings) -> list[str]:
    """The bodies that are lost, with the documents that they changed, as far as their histories tell."""
    if not log.lost_bodies:
        return []
    documents: dict[bytes, str] = {}
    with record.read() as transaction:
        models = {
            value: key[16:].decode(errors="replace")
            for key, value, _ in transaction.audit(Table.COLLECTIONS)
            if value is not None
        }
        for key, _, _ in transaction.audit(Table.HISTORY):
            documents[key[-10:]] = f"{models.get(key[:4], '?')}/{key[4:-11].decode(errors='replace')}"
    lines = []
    for chain, seq, index in log.lost_bodies:
        arrival = log.arrival_of.get((chain, seq), 0)
        document = documents.get(arrival.to_bytes(8, "big") + index.to_bytes(2, "big"))
        of = f", a change of document {document} (which stays as it is)," if document else ""
        lines.append(f"body {index} of commit {seq} of chain {chain}{of} is lost")
    return lines
