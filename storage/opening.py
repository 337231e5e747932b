"""Opening a data directory: lock, gate, keys, identity; and closing it so that the next start is quick.

Room: the order of these steps, for the daemon and for commands that work where
no node runs. A first start makes the node's key and a network of one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from protocol.clock import HybridClock
from protocol.commit import NO_PREVIOUS, Header, sign_commit
from protocol.body import body_hash
from protocol.ids import INCARNATION_BYTES, SYSTEM_SPACE_NAME, author_of, space_id
from protocol.integrate import Integrated
from protocol.keys import SEED_BYTES, KeyPair
from protocol.membership import found_network
from storage.errors import StoreDamaged
from storage.gate import Anchor, AnchorFile, DirectoryLock, check_record, must_start_new_life, prepare_directory
from storage.keyfiles import NETWORK_KEY_FILE, NODE_KEY_FILE, load_or_make_key
from storage.lmdb_kv import DATA_FILE, LmdbKeyValueStore
from storage.store import Identity, Store

RandomBytes = Callable[[int], bytes]


def found_store(store: Store, keys: KeyPair, network_keys: KeyPair, *, now_ms: int, random_bytes: RandomBytes) -> None:
    """Give a new store its identity and a network of one, with the founding commit. Durable when it returns."""
    genesis = found_network(keys.public, network_keys, now_ms, random_bytes(16))
    author = author_of(keys.public, random_bytes(INCARNATION_BYTES))
    identity = Identity(random_bytes(16), random_bytes(4).hex(), genesis.network_id, genesis.body, author)
    system = space_id(genesis.network_id, SYSTEM_SPACE_NAME)
    header = Header(system, author, 1, NO_PREVIOUS, HybridClock().tick(now_ms), (), (body_hash(genesis.body),))
    store.begin(identity, founding=Integrated(sign_commit(keys, header, [genesis.body]), {}, []))


def renew_identity(store: Store, random_bytes: RandomBytes) -> None:
    """Go on as a new author with a new epoch; cursors of before answer `resync`. Durable when it returns."""
    assert store.identity is not None
    old = store.identity
    author = author_of(old.author[:32], random_bytes(INCARNATION_BYTES))
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
        """To be called after each commit of our own, before anyone hears of it."""
        self.anchor.note(space, seq)

    def close(self) -> None:
        """Close cleanly: the next start need not verify the record."""
        self.store.close()
        facts = (self.directory / DATA_FILE).stat()
        self.anchor.value.is_clean = True
        self.anchor.value.size_bytes = facts.st_size
        self.anchor.write(flush=True)
        self.anchor.close()
        self.lock.release()


def open_record(directory: Path, *, now_ms: int, random_bytes: RandomBytes, flush_delay_ms: float = 0) -> OpenRecord:
    """Open the record in a directory, made if it is missing.

    Raises `StoreLocked`, `StoreDamaged`, `NewerFormat`, `StorageFull`, another `StorageError`, or OSError.
    """
    prepare_directory(directory)
    lock = DirectoryLock(directory)
    try:
        anchor = AnchorFile(directory)
        check_record(directory, anchor.value)
        keys = load_or_make_key(directory / NODE_KEY_FILE, random_bytes(SEED_BYTES))
        store = Store(LmdbKeyValueStore(str(directory), flush_delay_ms=flush_delay_ms))
        try:
            reason = _settle_identity(directory, store, keys, anchor.value, now_ms, random_bytes)
            _take_bearings(directory, store, anchor)
        except BaseException:
            store.close()
            raise
    except BaseException:
        lock.release()
        raise
    return OpenRecord(directory, store, keys, lock, anchor, reason)


def _settle_identity(directory: Path, store: Store, keys: KeyPair, anchor: Anchor, now_ms: int,
                     random_bytes: RandomBytes) -> str | None:
    if store.identity is None:
        if anchor.store_id:
            raise StoreDamaged(f"{directory / DATA_FILE} is empty although it held data: "
                               "run `civicnode doctor`, or `civicnode restore` a backup")  # fmt: skip
        network_keys = load_or_make_key(directory / NETWORK_KEY_FILE, random_bytes(SEED_BYTES))
        found_store(store, keys, network_keys, now_ms=now_ms, random_bytes=random_bytes)
        return None
    if store.identity.author[:32] != keys.public:
        raise StoreDamaged(f"{directory / NODE_KEY_FILE} is not the key of this record: restore both together")
    reason = must_start_new_life(directory, anchor, store.identity.store_id, own_seqs(store))
    if reason is not None:
        renew_identity(store, random_bytes)
    return reason


def _take_bearings(directory: Path, store: Store, anchor: AnchorFile) -> None:
    assert store.identity is not None
    facts = (directory / DATA_FILE).stat()
    turn = anchor.value.turn
    anchor.value = Anchor(store.identity.store_id, facts.st_ino, facts.st_dev, False, 0, own_seqs(store), turn)
    anchor.write(flush=True)


def own_seqs(store: Store) -> dict[bytes, int]:
    """Our highest seq in every space of the record."""
    assert store.identity is not None
    author = store.identity.author
    with store.read() as snapshot:
        spaces = {store.system, *(store.space(application) for application in snapshot.applications())}
        heads = {space: snapshot.head(space, author) for space in spaces}
    return {space: head.seq for space, head in heads.items() if head is not None}
