"""A new record in the place of the old one: killed at any step, one of the two nodes starts."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from protocol.commit import Header
from protocol.cuts import Cuts
from protocol.keys import KeyPair
from protocol.membership import Members, Role
from protocol.statements import Revoke, encode_statement, sign_recovery
from simulations.harness import World
from storage import replacing
from storage.backup import backup
from storage.changes import Said
from storage.errors import StorageError, StorageFull, StoreDamaged
from storage.gate import REPLACING_FILE
from storage.keyfiles import load_key
from storage.opening import OpenRecord, join_store, open_record
from storage.showing import statements
from tests.storage.kit import NOW_MS

KEYS = KeyPair.from_seed(b"j" * 32)
KILLED = 9


def open_at(directory: Path) -> OpenRecord:
    return open_record(directory, now_ms=NOW_MS, random_bytes=os.urandom)


def network() -> tuple[World, list[Any]]:
    """Another network, in which a node with `KEYS` is a member; its statements."""
    world = World(1)
    ann = world.node()
    ticket = world.ticket()
    ann.invite(ticket, Role.MEMBER)
    return world, ann.admit(KEYS, ticket)


def old_node(directory: Path) -> str:
    """A node that was here before: the id of its network."""
    record = open_at(directory)
    assert record.store.identity is not None
    network_id = record.store.identity.network_id.hex()
    record.close()
    (directory / "index.sqlite").write_bytes(b"of the old record")
    (directory / "index.sqlite-wal").write_bytes(b"too")
    (directory / "owner.token").write_text("token")
    return network_id


def stage(directory: Path, **options: Any) -> Path:
    _, known = network()
    return replacing.make_stage(
        directory,
        KEYS,
        lambda store: join_store(store, KEYS, known, random_bytes=os.urandom),
        now_ms=NOW_MS,
        random_bytes=os.urandom,
        **options,
    )


def replace_record(directory: Path) -> Path | None:
    """All of it, as a node does: stage, decide, stop, start."""
    staged = stage(directory)
    replacing.decide(directory, staged, replacing.free_aside(directory))
    return replacing.finish(directory)


def network_of(directory: Path) -> tuple[str, bytes]:
    """The network that a node which starts here is of, and its key. It must start as the same author again."""
    record = open_at(directory)
    assert record.store.identity is not None and record.new_life is None
    found = record.store.identity.network_id.hex(), bytes(record.keys.public)
    assert record.store.members.role_of(record.keys.public) is not None
    record.close()
    return found


def test_the_new_node_starts_in_the_place_of_the_old_one_which_is_whole_elsewhere(tmp_path: Path) -> None:
    directory = tmp_path / "node"
    before = old_node(directory)
    old_key = load_key(directory / "node.key")
    aside = replace_record(directory)
    assert aside is not None and old_key is not None
    world, _ = network()
    assert network_of(directory) == (world.nodes[0].identity.network_id.hex(), KEYS.public)
    assert network_of(aside) == (before, old_key.public)
    assert not (directory / "network.key").exists() and (aside / "network.key").exists()
    assert (aside / "index.sqlite").exists() and not list(directory.glob("index.sqlite*"))
    assert (directory / "owner.token").read_text() == "token"
    assert not list(directory.glob("joining-*")) and not (directory / REPLACING_FILE).exists()


CALLS = ("rename", "mkdir", "unlink", "fsync", "rmdir", "pwrite", "write")


def run_killed(work: Callable[[], object], at: int) -> bool:
    """Do it in a process that is killed at its `at`-th call to the system. Returns whether it got there."""
    pid = os.fork()
    if pid == 0:
        left = at

        def counted(call: Callable[..., Any]) -> Callable[..., Any]:
            def counting(*arguments: Any, **options: Any) -> Any:
                nonlocal left
                left -= 1
                if left == 0:
                    os._exit(KILLED)
                return call(*arguments, **options)

            return counting

        for name in CALLS:
            setattr(os, name, counted(getattr(os, name)))
        try:
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status) == KILLED


def test_killed_at_any_step_one_of_both_nodes_starts(tmp_path: Path) -> None:
    pattern = tmp_path / "pattern"
    before = old_node(pattern)
    world, _ = network()
    after = world.nodes[0].identity.network_id.hex()
    seen: list[str] = []
    for at in range(1, 200):
        directory = tmp_path / f"node{at}"
        # A copy would go on as a new author, which is beside the point: this is the directory itself, moved.
        shutil.copytree(pattern, directory)
        open_at(directory).close()
        was_killed = run_killed(lambda d=directory: replace_record(d), at)  # type: ignore[misc]
        found, _ = network_of(directory)
        seen.append(found)
        assert found in (before, after)
        assert not (directory / REPLACING_FILE).exists() and not list(directory.glob("joining-*"))
        if found == after:
            assert network_of(directory / "replaced-1")[0] == before
        if not was_killed:
            break
    else:
        raise AssertionError("there is no end of steps")
    assert len(seen) > 15
    assert seen == sorted(seen, key=lambda one: one == after), "once decided, it is never the old one again"
    assert seen[0] == before and seen[-1] == after


def test_killed_while_it_is_carried_out_at_the_next_start_too(tmp_path: Path) -> None:
    """Cut short again and again, at every single step."""
    directory = tmp_path / "node"
    before = old_node(directory)
    staged = stage(directory)
    replacing.decide(directory, staged, replacing.free_aside(directory))
    at = 1
    while run_killed(lambda: replacing.finish(directory), at):
        at += 1  # each time one step further, over what the last has left
        assert at < 100
    assert network_of(directory)[1] == KEYS.public
    assert network_of(directory / "replaced-1")[0] == before


def test_what_was_not_decided_is_cleared_away(tmp_path: Path) -> None:
    directory = tmp_path / "node"
    before = old_node(directory)
    staged = stage(directory)
    assert staged.exists()
    assert network_of(directory)[0] == before
    assert not staged.exists()


def test_nobody_works_on_a_directory_that_is_half_changed(tmp_path: Path) -> None:
    directory = tmp_path / "node"
    old_node(directory)
    staged = stage(directory)
    replacing.decide(directory, staged, replacing.free_aside(directory))
    with pytest.raises(StorageError, match="start the node once"):
        backup(directory, tmp_path / "file")
    assert network_of(directory)[1] == KEYS.public


def test_a_second_change_goes_beside_the_first(tmp_path: Path) -> None:
    directory = tmp_path / "node"
    old_node(directory)
    assert replace_record(directory) == directory / "replaced-1"
    assert replace_record(directory) == directory / "replaced-2"
    assert network_of(directory)[1] == KEYS.public


@pytest.mark.parametrize("text", ["", "{}", '{"stage": "../x", "aside": "a", "old": []}', '{"stage": 1}'])
def test_a_damaged_plan_is_refused_by_name(tmp_path: Path, text: str) -> None:
    directory = tmp_path / "node"
    before = old_node(directory)
    (directory / REPLACING_FILE).write_text(text)
    with pytest.raises(StorageError, match=REPLACING_FILE):
        open_at(directory)
    (directory / REPLACING_FILE).unlink()
    assert network_of(directory)[0] == before


def test_a_stage_that_is_gone_is_no_record(tmp_path: Path) -> None:
    directory = tmp_path / "node"
    old_node(directory)
    staged = stage(directory)
    replacing.decide(directory, staged, replacing.free_aside(directory))
    (directory / "data.mdb").unlink()
    shutil.rmtree(staged)
    with pytest.raises(StoreDamaged, match="is gone"):
        open_at(directory)


def test_a_full_disk_leaves_the_old_node_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "node"
    before = old_node(directory)

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device", str(directory))

    with monkeypatch.context() as patch:
        patch.setattr(replacing, "write_secret", full)
        with pytest.raises(StorageFull):
            stage(directory)
    assert not list(directory.glob("joining-*"))
    assert network_of(directory)[0] == before


def test_local_records_and_a_statement_can_be_put_into_the_new_record(tmp_path: Path) -> None:
    directory = tmp_path / "node"
    old_node(directory)
    world, known = network()
    ann = world.nodes[0]

    def recover(members: Members, header: Header) -> bytes:
        revoked = [Revoke(ann.node_keys.public, Cuts())]
        return sign_recovery(world.network_keys, revoked, bytes(16), header)

    staged = replacing.make_stage(
        directory,
        KEYS,
        lambda store: join_store(store, KEYS, known, random_bytes=os.urandom),
        now_ms=NOW_MS,
        random_bytes=os.urandom,
        local=lambda local: local.put("kind", "key", {"a": 1}),
        said=Said(recover),
    )
    replacing.decide(directory, staged, replacing.free_aside(directory))
    record = open_at(directory)
    assert record.new_life is None
    members = record.store.members
    assert members.role_of(KEYS.public) is Role.ADMIN and members.is_revoked(ann.node_keys.public)
    with record.store.read() as snapshot:
        assert snapshot.local.get("kind", "key") == {"a": 1}
    assert len(statements(record.store)) == len(known) + 1
    record.close()


_ = (json, encode_statement)
