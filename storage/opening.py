"""Opening a data directory: lock, gate, keys, identity; and closing it so that the next start is quick.

Room: the order of these steps, for the daemon and for commands that work where
no node runs. A first start makes the node's key and a network of one.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from protocol.body import body_hash
from protocol.clock import HybridClock, ms_of_hlc
from protocol.commit import NO_PREVIOUS, Commit, Header, sign_commit
from protocol.ids import INCARNATION_BYTES, SYSTEM_SPACE_NAME, Author, author_of, node_of, space_id
from protocol.integrate import Fork, Head, Integrated, Known
from protocol.keys import SEED_BYTES, KeyPair
from protocol.membership import StatementKind, decode_genesis, found_network, statement_kind
from protocol.window import Run
from storage.compacting import Compaction, settle
from storage.errors import StorageError, StoreDamaged, os_failure
from storage.gate import (
    FOUNDING,
    AnchorFile,
    DirectoryLock,
    check_record,
    must_start_new_life,
    prepare_directory,
)
from storage.keyfiles import (
    NETWORK_KEY_FILE,
    NEXT_KEY_FILE,
    NODE_KEY_FILE,
    flush_directory,
    load_key,
    load_or_make_key,
    write_secret,
)
from storage.lives import note_life
from storage.lmdb_kv import DATA_FILE, LmdbKeyValueStore
from storage.replacing import finish
from storage.runs import WaitingRoom, ends_to_keep, key_of
from storage.store import Identity, Store

OWN_CLOCK_AHEAD_MAX_MS = 60_000  # DESIGN, "The commit log": further behind its own past, a node starts anew
RandomBytes = Callable[[int], bytes]


def found_store(
    store: Store, keys: KeyPair, network_keys: KeyPair, *, now_ms: int, random_bytes: RandomBytes
) -> None:
    """Give a new store its identity and a network of one, with the founding commit. Durable when it returns."""
    genesis = found_network(keys.public, network_keys, now_ms, random_bytes(16))
    author = author_of(keys.public, random_bytes(INCARNATION_BYTES))
    identity = Identity(random_bytes(16), random_bytes(4).hex(), genesis.network_id, genesis.body, author)
    system = space_id(genesis.network_id, SYSTEM_SPACE_NAME)
    header = Header(
        system, author, 1, NO_PREVIOUS, HybridClock().tick(now_ms), (), (body_hash(genesis.body),)
    )
    store.begin(identity, founding=sign_commit(keys, header, [genesis.body]))


def join_store(
    store: Store,
    keys: KeyPair,
    statements: Sequence[Commit],
    runs: Sequence[Run] = (),
    *,
    random_bytes: RandomBytes,
) -> None:
    """Give a new store its identity in a network that exists, with the statements that say so.

    `statements` are verified commits of `system`, causes first, the genesis among them; `runs` those in which
    they came, whose ends may lie further on, and in which branches of one chain may be. Durable when it returns. Raises
    `StoreDamaged` if they do not integrate.
    """
    genesis = next(
        decode_genesis(body)
        for commit in statements
        for body in commit.bodies
        if body is not None and statement_kind(body) == StatementKind.GENESIS
    )
    author = author_of(keys.public, random_bytes(INCARNATION_BYTES))
    identity = Identity(random_bytes(16), random_bytes(4).hex(), genesis.network_id, genesis.body, author)
    store.begin(identity, founding=None)
    with store.write() as batch:
        reach = {key_of(run.commits[0]): 0 for run in runs}
        for commit in statements:
            outcome = batch.integrate(commit)
            if isinstance(outcome, Fork):
                branch = next((run for run in runs if commit in run.commits), Run((commit,)))
                batch.keep_fork(branch, commit.header.seq)
            elif isinstance(outcome, Integrated):
                batch.keep(outcome)
                reach[key_of(commit)] = commit.header.seq
            elif not isinstance(outcome, Known):
                raise StoreDamaged(f"a statement of the network does not integrate: {outcome}")
        waiting = ends_to_keep([run.commits for run in runs], reach)
        WaitingRoom(batch).keep(batch.local, waiting)


def renew_identity(store: Store, random_bytes: RandomBytes) -> None:
    """Go on as a new author with a new epoch; cursors of before answer `resync`. Durable when it returns.

    Who it was is remembered: should it turn out that the chain forks, what is in it is said again (`reissue`).
    """
    assert store.identity is not None
    node = node_of(store.identity.author)
    former = store.identity.author
    with store.write() as batch:
        note_life(batch.local, former)
    _renew(store, author_of(node, random_bytes(INCARNATION_BYTES)), random_bytes)


def _renew(store: Store, author: Author, random_bytes: RandomBytes) -> None:
    assert store.identity is not None
    old = store.identity
    renewed = Identity(random_bytes(16), random_bytes(4).hex(), old.network_id, old.genesis, author)
    store.begin(renewed, founding=None)


@dataclass(slots=True)
class OpenRecord:
    """An open data directory. Close it on the way out, on every path."""

    directory: Path
    store: Store
    keys: KeyPair
    lock: DirectoryLock
    anchor: AnchorFile
    new_life: str | None  # why the node goes on as a new author, if it does

    def note(self, space: bytes, seq: int) -> None:
        """To be called after each commit of our own, before anyone hears of it. Never raises."""
        self.anchor.note(space, seq)

    @property
    def compaction(self) -> Compaction:
        """How to leave no deleted byte in the record's file."""
        return Compaction(self.store.keys, self.directory, self.anchor)

    def close(self) -> None:
        """Close cleanly: the next start need not verify the record, unless a write or a flush has failed."""
        try:
            self.store.close()
            if self.store.keys.failure is None:
                self.anchor.value.describe((self.directory / DATA_FILE).stat())
                self.anchor.value.is_clean = True
                self.anchor.write(flush=True)
        except (StorageError, OSError):
            pass  # the next start verifies the record
        finally:
            self.anchor.close()
            self.lock.release()


def open_record(
    directory: Path,
    *,
    now_ms: int,
    random_bytes: RandomBytes,
    flush_delay_ms: float = 0,
    new_life: str | None = None,
) -> OpenRecord:
    """Open the record in a directory, made if it is missing; as a new author if `new_life` says why.

    Raises `StoreLocked`, `StoreDamaged`, `NewerFormat`, `StorageFull` or another `StorageError`.
    """
    with ExitStack() as undo:
        try:
            prepare_directory(directory)
            lock = DirectoryLock(directory)
            undo.callback(lock.release)
            finish(directory)
            anchor = AnchorFile(directory)
            undo.callback(anchor.close)
            settle(directory, anchor)
            _pass_gate(directory, anchor)
            keys = LmdbKeyValueStore(str(directory), flush_delay_ms=flush_delay_ms)
            undo.callback(keys.close)
            store = Store(keys)
            reason, node_keys = _settle_identity(directory, store, anchor, now_ms, random_bytes, new_life)
            _take_bearings(directory, store, anchor)
        except OSError as error:
            raise os_failure(error, error.filename or directory) from error
        undo.pop_all()
    return OpenRecord(directory, store, node_keys, lock, anchor, reason)


def _pass_gate(directory: Path, anchor: AnchorFile) -> None:
    """Make sure that the record may be opened, and that the next start knows that it has been."""
    record, value = directory / DATA_FILE, anchor.value
    if value.store_id == FOUNDING:
        record.unlink(
            missing_ok=True
        )  # a first start that did not get to its end: nobody was promised anything
    check_record(directory, value)
    if not record.exists():
        value.store_id = FOUNDING
        anchor.write(flush=True)
    elif value.is_clean:
        value.is_clean = False
        anchor.write(flush=True)


def _settle_identity(
    directory: Path,
    store: Store,
    anchor: AnchorFile,
    now_ms: int,
    random_bytes: RandomBytes,
    new_life: str | None,
) -> tuple[str | None, KeyPair]:
    node_key_file = directory / NODE_KEY_FILE
    if store.identity is None:
        if anchor.value.store_id != FOUNDING:
            raise StoreDamaged(
                f"{directory / DATA_FILE} holds nothing although it exists: "
                "run `civicnode doctor`, or `civicnode restore` a backup"
            )
        keys = load_or_make_key(node_key_file, random_bytes(SEED_BYTES))
        network_keys = load_or_make_key(directory / NETWORK_KEY_FILE, random_bytes(SEED_BYTES))
        found_store(store, keys, network_keys, now_ms=now_ms, random_bytes=random_bytes)
        flush_directory(directory)  # the record's name in it
        return None, keys
    is_other = _adopt_next_key(directory, store, random_bytes)
    held = load_key(node_key_file)
    if held is None:
        raise StorageError(f"{node_key_file} is missing: put it back from a backup, together with the record")
    if node_of(store.identity.author) != held.public:
        raise StorageError(f"{node_key_file} is not the key of this record: put both back from one backup")
    heads = own_heads(store)
    seqs = {space: head.seq for space, head in heads.items()}
    if is_other:
        return "this device's old key was revoked", held
    reason = new_life or must_start_new_life(directory, anchor.value, store.identity.store_id, seqs)
    ahead_ms = max((ms_of_hlc(head.hlc) for head in heads.values()), default=0) - now_ms
    if reason is None and ahead_ms > OWN_CLOCK_AHEAD_MAX_MS:
        reason = f"this device's clock is {ahead_ms // 1000} s behind what it said at the last write"
    if reason is None and any(author == store.identity.author for _, author in store.basis.forks):
        reason = "another has written as this node, in its name"
    if reason is not None:
        renew_identity(store, random_bytes)
    return reason, held


def prepare_next_key(directory: Path, seed: bytes) -> None:
    """Let the node go on under another key from its next start on: a revoked one never returns. Durable.

    Raises `StorageError`.
    """
    try:
        write_secret(directory / NEXT_KEY_FILE, seed.hex())
    except FileExistsError:
        pass  # prepared before, and the start is still to come
    except OSError as error:
        raise os_failure(error, directory) from error


def _adopt_next_key(directory: Path, store: Store, random_bytes: RandomBytes) -> bool:
    """Go on under the key that was prepared, if one was; the old one stays beside it under another name.

    The record says first whose it is, so wherever this is cut short, the next start goes on from there.
    """
    keys = load_key(directory / NEXT_KEY_FILE)
    if keys is None:
        return False
    assert store.identity is not None
    old = node_of(store.identity.author)
    if old != keys.public:
        author = author_of(keys.public, random_bytes(INCARNATION_BYTES))
        _renew(store, author, random_bytes)
    held = load_key(directory / NODE_KEY_FILE)
    if held is not None and held.public != keys.public:
        os.rename(directory / NODE_KEY_FILE, directory / f"former-{held.public.hex()[:16]}.key")
    os.rename(directory / NEXT_KEY_FILE, directory / NODE_KEY_FILE)
    flush_directory(directory)
    return True


def _take_bearings(directory: Path, store: Store, anchor: AnchorFile) -> None:
    assert store.identity is not None
    value = anchor.value
    value.store_id, value.is_clean = store.identity.store_id, False
    value.describe((directory / DATA_FILE).stat())
    value.seqs = {space: head.seq for space, head in own_heads(store).items()}
    anchor.write(flush=True)


def own_heads(store: Store) -> dict[bytes, Head]:
    """The newest commit of our own chain in every space of the record."""
    assert store.identity is not None
    author = store.identity.author
    with store.read() as snapshot:
        heads = {space: snapshot.head(space, author) for space in store.names.spaces_of(author)}
    return {space: head for space, head in heads.items() if head is not None}
