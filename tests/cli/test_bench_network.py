"""Directories of nodes of one network, and what their data weigh as windows."""

from pathlib import Path

from cli.bench.network import make_network
from cli.bench.windows import weigh
from protocol.ids import node_of
from protocol.roles import Role
from storage.keyfiles import NODE_KEY_FILE, load_key
from storage.lmdb_kv import LmdbKeyValueStore
from storage.opening import open_record
from storage.store import Store


def test_every_directory_holds_a_node_of_the_same_network_that_knows_all_before_it(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("first", "second", "third")]
    make_network(paths[0], paths[1:])
    networks, authors = set(), set()
    for path in paths:
        record = open_record(path, now_ms=2_000_000_000_000, random_bytes=lambda size: bytes(range(size)))
        identity, keys = record.store.identity, load_key(path / NODE_KEY_FILE)
        assert identity is not None and keys is not None
        assert node_of(identity.author) == keys.public
        networks.add(identity.network_id)
        authors.add(identity.author)
        roles = record.store.members.roles
        assert sorted(roles.values()) == [Role.ADMIN, Role.MEMBER, Role.MEMBER]
        record.close()
    assert (len(networks), len(authors)) == (1, 3)


def test_windows_are_weighed_whole_and_nothing_is_written(tmp_path: Path) -> None:
    make_network(tmp_path / "first", [tmp_path / "second"])
    before = (tmp_path / "first" / "data.mdb").read_bytes()
    weights = weigh(tmp_path / "first")
    assert 0 < weights.packed < weights.plain + 16  # too little in it to be said once
    assert weights.deflated > 0
    assert (tmp_path / "first" / "data.mdb").read_bytes() == before
    held = LmdbKeyValueStore(str(tmp_path / "first"))
    commits = Store(held).counts()["commits"]
    held.close()
    assert commits == 3  # the founding, an invitation, an admission
