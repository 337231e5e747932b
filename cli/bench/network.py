"""Data directories of nodes of one network, made where no node runs.

Room: founds a network in one directory and gives others a place in it, through storage and with the statements
that an invitation and an admission are. What the nodes then do is measured elsewhere.
"""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from protocol.body import SALT_BYTES
from protocol.clock import HybridClock
from protocol.commit import Commit, Header
from protocol.keys import SEED_BYTES, KeyPair
from protocol.membership import Members
from protocol.roles import Rights, Role
from protocol.statements import EXPIRES_MS_MAX, Admit, Invite, ask_admission, encode_statement
from storage.catalog import Catalog
from storage.changes import Said
from storage.gate import prepare_directory
from storage.integrator import Integrator
from storage.keyfiles import NODE_KEY_FILE, load_or_make_key
from storage.lmdb_kv import LmdbKeyValueStore
from storage.opening import join_store, open_record
from storage.store import Store


def make_network(founder: Path, joiners: Sequence[Path]) -> None:
    """Make a node in `founder` and one in each of `joiners`, all of one network, the latter its members.

    Raises `StorageError` or OSError. Durable when it returns. A node that starts for the first time on the directory of
    a joiner goes on as a new author, as after a restore: there is no anchor in it.
    """
    keys: list[KeyPair] = []
    for directory in joiners:
        prepare_directory(directory)
        keys.append(load_or_make_key(directory / NODE_KEY_FILE, os.urandom(SEED_BYTES)))
    record = open_record(founder, now_ms=_now_ms(), random_bytes=os.urandom)
    try:
        store = record.store
        assert store.identity is not None
        catalog = Catalog(store)
        with store.read() as snapshot:
            catalog.load(snapshot)
        integrator = Integrator(store, None, catalog, record.keys, HybridClock(), os.urandom, record.note)
        for joiner in keys:
            ticket = KeyPair.from_seed(os.urandom(SEED_BYTES))
            invite = Invite(ticket.public, Rights(Role.MEMBER), EXPIRES_MS_MAX)
            for statement in (invite, ask_admission(ticket, joiner, store.identity.network_id)):
                integrator.write_one(Said(_saying(statement)), _now_ms())
        statements = _statements(store)
    finally:
        record.close()
    for directory, joiner in zip(joiners, keys, strict=True):
        held = LmdbKeyValueStore(str(directory))
        try:
            join_store(Store(held), joiner, statements, random_bytes=os.urandom)
        finally:
            held.close()


def _saying(statement: Invite | Admit) -> Callable[[Members, Header], bytes]:
    def make(members: Members, header: Header) -> bytes:
        return encode_statement(statement, os.urandom(SALT_BYTES))

    return make


def _statements(store: Store) -> list[Commit]:
    """Every commit of `system`, in the order of arrival, which has causes first."""
    with store.read() as snapshot:
        found = [
            snapshot.log.commit(arrival.chain, arrival.seq)
            for arrival in snapshot.log.arrivals()
            if store.names.space_of_chain(arrival.chain) == store.system
        ]
    return [commit for commit in found if commit is not None]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
