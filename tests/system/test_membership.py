"""Networks of real processes: a device joins, others see its data, one is put out, and what is lost is recovered."""

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from protocol.tickets import decode_ticket
from tests.system.process import NodeProcess, civicnode

TASK = {"name": "Task", "fields": [{"name": "title", "type": "string"}]}
PATIENCE_S = 180.0  # for what takes a moment between processes, on a busy machine


def until(holds: Callable[[], Any], what: str) -> Any:
    """What `holds` gives once it is true. It is looked at again and again, not waited for by the clock."""
    ends_at = time.monotonic() + PATIENCE_S
    while time.monotonic() < ends_at:
        found = holds()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"in {PATIENCE_S:.0f} s it did not come to this: {what}")


def document(node: NodeProcess, path: str) -> Any:
    """What is there, or None."""
    answer = node.ask("GET", path)
    return answer.json if answer.status == 200 else None


def ok(*arguments: str) -> str:
    """What a command that must succeed prints."""
    done = civicnode(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(*arguments: str) -> str:
    """The one line of a command that must fail."""
    done = civicnode(*arguments)
    assert done.returncode == 1, (done.stdout, done.stderr)
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("Error: "), done.stderr
    return lines[0]


def invite(node: NodeProcess, *arguments: str) -> str:
    return ok("invite", "--data-dir", str(node.data_dir), *arguments).strip()


def recovery_code(node: NodeProcess) -> str:
    done = civicnode("invite", "--data-dir", str(node.data_dir))
    assert done.returncode == 0, done.stderr
    return next(line.strip() for line in done.stderr.splitlines() if "civickey1" in line)


def join(directory: Path, ticket: str, *arguments: str) -> dict[str, Any]:
    joined: dict[str, Any] = json.loads(
        ok("join", ticket, "--data-dir", str(directory), "--json", *arguments)
    )
    return joined


def put(node: NodeProcess, id: str, **values: Any) -> int:
    return node.ask("POST", "/v1/data/Task", {"id": id, **values}).status


def title(node: NodeProcess, id: str) -> str | None:
    answer = node.ask("GET", f"/v1/data/Task/{id}")
    return str(answer.json["title"]) if answer.status == 200 else None


def peers(node: NodeProcess) -> dict[str, dict[str, Any]]:
    """The devices as a node sees them, by name."""
    answer = node.ask("GET", "/v1/admin/peers")
    assert answer.status == 200, answer.body
    return {one["name"] or one["node_id"]: one for one in answer.json["peers"]}


def roles(node: NodeProcess) -> set[tuple[str, str]]:
    return {(one["node_id"], one["role"]) for one in node.ask("GET", "/v1/admin/peers").json["peers"]}


def status(node: NodeProcess) -> dict[str, Any]:
    told: dict[str, Any] = node.ask("GET", "/v1/admin/status").json
    return told


@pytest.fixture
def ann(tmp_path: Path) -> Any:
    """The founder of a network, with a model and a task."""
    with NodeProcess(tmp_path / "ann", "--name", "ann") as node:
        assert node.ask("POST", "/v1/data-models", TASK).status == 201
        assert put(node, "first", title="of ann") == 201
        yield node


def test_a_second_device_joins_and_both_hold_the_same(ann: NodeProcess, tmp_path: Path) -> None:
    done = civicnode("invite", "--data-dir", str(ann.data_dir))
    assert done.returncode == 0 and done.stdout.count("\n") == 1 and done.stdout.startswith("civic1")
    assert "civickey1" in done.stderr and not (ann.data_dir / "network.key").exists()
    assert "civickey1" not in civicnode("invite", "--data-dir", str(ann.data_dir)).stderr
    joined = join(tmp_path / "bob", done.stdout.strip())
    assert joined["role"] == "member" and not joined["held_data"]
    with NodeProcess(tmp_path / "bob", "--name", "bob") as bob:
        until(lambda: title(bob, "first") == "of ann", "what was there crosses")
        assert put(ann, "second", title="later") == 201
        until(lambda: title(bob, "second") == "later", "what is new crosses")
        assert put(bob, "third", title="of bob") == 201
        until(lambda: title(ann, "third") == "of bob", "and back")
        until(lambda: set(peers(ann)) == {"ann", "bob"} == set(peers(bob)), "names are known")
        assert peers(ann)["bob"]["role"] == "member" and peers(bob)["ann"]["role"] == "admin"
        until(lambda: peers(ann)["bob"]["in_sync"] and status(bob)["in_sync"], "both say so")
        assert refused("invite", "--data-dir", str(bob.data_dir)).count("only an administrator") == 1


def test_a_node_that_runs_joins_in_place(ann: NodeProcess, tmp_path: Path) -> None:
    ticket = invite(ann)
    with NodeProcess(tmp_path / "bob", "--name", "bob") as bob:
        before, pid = status(bob), bob.pid
        joined = join(tmp_path / "bob", ticket)
        after = status(bob)
        assert after["network_id"] == joined["network_id"] == status(ann)["network_id"]
        assert after["network_id"] != before["network_id"]
        assert after["node_id"] == before["node_id"] and after["api"] == before["api"]
        assert json.loads((bob.data_dir / "run.json").read_text())["pid"] == pid
        until(lambda: title(bob, "first") == "of ann", "it syncs at once")
        assert bob.stop() == 0
    ok("doctor", "--data-dir", str(tmp_path / "bob"))


def test_a_ticket_admits_one_device_and_not_for_ever(ann: NodeProcess, tmp_path: Path) -> None:
    ticket = invite(ann)
    join(tmp_path / "bob", ticket)
    assert "was used already" in refused("join", ticket, "--data-dir", str(tmp_path / "cat"))
    short = invite(ann, "--expires", "1s")
    expires_ms = decode_ticket(short).expires_ms
    until(lambda: time.time() * 1_000 > expires_ms, "it expires")
    assert "expired" in refused("join", short, "--data-dir", str(tmp_path / "dan"))
    assert "copied whole" in refused("join", ticket[:-3], "--data-dir", str(tmp_path / "dan"))
    assert "already" in refused("join", invite(ann), "--data-dir", str(ann.data_dir), "--discard")


def test_a_node_that_holds_data_asks_what_becomes_of_it(ann: NodeProcess, tmp_path: Path) -> None:
    ticket = invite(ann)
    with NodeProcess(tmp_path / "bob", "--name", "bob") as bob:
        model = {
            "name": "Note",
            "fields": [
                {"name": "text", "type": "string"},
                {"name": "tags", "type": "set"},
                {"name": "votes", "type": "counter"},
                {"name": "more", "type": "json"},
            ],
        }
        assert bob.ask("POST", "/v1/data-models", model).status == 201
        assert bob.ask("POST", "/v1/data-models", TASK).status == 201
        note = {"id": "n1", "text": "mine", "tags": ["a", "b"], "votes": 3, "more": {"deep": [1, 2.5, None]}}
        assert bob.ask("POST", "/v1/data/Note", note).status == 201
        assert bob.ask("POST", "/v1/data/Note", {"id": "gone"}).status == 201
        assert bob.ask("DELETE", "/v1/data/Note/gone").status in (200, 204)
        assert put(bob, "first", title="of bob") == 201  # an id that the network has as well
        for number in range(2):
            account = {
                "email": f"{number}@example.org",
                "username": f"u{number}",
                "password": "correct horse",
            }
            assert bob.ask("POST", "/v1/auth/register", account).status == 201
        twin = {"email": "0@example.org", "username": "other", "password": "another horse"}
        assert ann.ask("POST", "/v1/auth/register", twin).status == 201
        assert "--bring" in refused("join", ticket, "--data-dir", str(bob.data_dir))
        assert status(bob)["network_id"] != status(ann)["network_id"]
        joined = join(bob.data_dir, ticket, "--bring")
        assert joined["held_data"] and Path(joined["aside"]).is_dir()
        brought = joined["bringing"]
        assert brought["state"] == "done" and brought["models"] == 1 + 1
        assert brought["accounts"] == 1 and brought["documents"] == 1
        left = {(one["model"], one["id"]): one["reason"] for one in brought["left_behind"]}
        assert left[("Task", "first")] == "the network has a document of this id"
        assert [reason for (name, _), reason in left.items() if name == "$account"] == [
            "its e-mail address exists there"
        ]
        for node in (bob, ann):
            found = until(partial(document, node, "/v1/data/Note/n1"), "n1")
            assert {name: found[name] for name in note} == note
            assert node.ask("GET", "/v1/data/Note/gone").status == 404
            assert title(node, "first") == "of ann"
            for number, password in ((0, "another horse"), (1, "correct horse")):
                credentials = {"email": f"{number}@example.org", "password": password}
                assert node.ask("POST", "/v1/auth/login", credentials, token=None).status == 200
    with NodeProcess(Path(joined["aside"]), "--name", "old") as old:  # what was there is whole
        assert title(old, "first") == "of bob"


def test_discarded_data_is_left_behind_and_kept(ann: NodeProcess, tmp_path: Path) -> None:
    ticket = invite(ann)
    with NodeProcess(tmp_path / "bob", "--name", "bob") as bob:
        assert bob.ask("POST", "/v1/data-models", TASK).status == 201
        assert put(bob, "own", title="of bob") == 201
    joined = join(tmp_path / "bob", ticket, "--discard")
    with NodeProcess(tmp_path / "bob", "--name", "bob") as bob:
        until(lambda: title(bob, "first"), "the network's data")
        assert title(bob, "own") is None
    with NodeProcess(Path(joined["aside"])) as old:
        assert title(old, "own") == "of bob"


def test_a_revoked_device_loses_its_link_and_counts_nowhere(ann: NodeProcess, tmp_path: Path) -> None:
    for name in ("bob", "cat"):
        join(tmp_path / name, invite(ann))
    with (
        NodeProcess(tmp_path / "bob", "--name", "bob") as bob,
        NodeProcess(tmp_path / "cat", "--name", "cat") as cat,
    ):
        until(lambda: title(bob, "first") and title(cat, "first"), "all are in sync")
        assert put(bob, "before", title="counts") == 201
        until(lambda: title(ann, "before") and title(cat, "before"), "what it wrote before")
        ok("revoke", "bob", "--data-dir", str(ann.data_dir))
        until(lambda: peers(ann)["bob"]["state"] == "revoked" == peers(cat)["bob"]["state"], "all know")
        until(lambda: peers(ann)["bob"]["link"] != "live", "the link is closed")
        put(bob, "after", title="void")
        assert put(ann, "mark", title="x") == 201
        until(lambda: title(cat, "mark"), "a later write has crossed")
        for node in (ann, cat):
            assert title(node, "after") is None and title(node, "before") == "counts"
        assert title(bob, "mark") is None
        assert "is revoked" in refused("grant", "bob", "admin", "--data-dir", str(ann.data_dir))


def test_a_reader_reads_and_signs_in_and_writes_nothing(ann: NodeProcess, tmp_path: Path) -> None:
    account = {"email": "ada@example.org", "username": "ada", "password": "correct horse"}
    assert ann.ask("POST", "/v1/auth/register", account).status == 201
    assert join(tmp_path / "rex", invite(ann, "--role", "reader"))["role"] == "reader"
    with NodeProcess(tmp_path / "rex", "--name", "rex") as rex:
        until(lambda: title(rex, "first") == "of ann", "it reads")
        credentials = {"email": "ada@example.org", "password": "correct horse"}
        login = until(
            lambda: (
                (a := rex.ask("POST", "/v1/auth/login", credentials, token=None)).status == 200 and a.json
            ),
            "it signs in",
        )
        token = login["token"]
        assert rex.ask("GET", "/v1/users/me", token=token).status == 200
        tried = [
            rex.ask("POST", "/v1/data/Task", {"title": "x"}),
            rex.ask("POST", "/v1/data/Task", {"title": "x"}, token=token),
            rex.ask("PUT", "/v1/data/Task/first", {"title": "x"}),
            rex.ask("DELETE", "/v1/data/Task/first"),
            rex.ask("POST", "/v1/data-models", {"name": "Other", "fields": [{"name": "a", "type": "string"}]}),
            rex.ask("POST", "/v1/batch", {"operations": [
                {"method": "POST", "path": "/v1/data/Task", "body": {"title": "x"}}]}),
            rex.ask("POST", "/v1/auth/register", {**account, "email": "b@example.org"}, token=None),
            rex.ask("PUT", "/v1/users/me", {"username": "eve"}, token=token),
            rex.ask("POST", "/v1/admin/invitations", {}),
        ]  # fmt: skip
        for answer in tried:
            assert answer.status == 403, (answer.status, answer.body)
            assert "reader" in answer.json["error"], answer.body
        assert title(ann, "first") == "of ann"


def test_the_owner_recovers_on_a_new_device(ann: NodeProcess, tmp_path: Path) -> None:
    code = recovery_code(ann)
    network = status(ann)["network_id"]
    where = status(ann)["listen"]
    other = "civickey1" + "0" * 60
    assert refused(
        "recover", other, "--network", network, "--peer", where, "--data-dir", str(tmp_path / "new")
    )
    done = ok(
        "recover", code, "--network", network, "--peer", where, "--data-dir", str(tmp_path / "new"), "--json"
    )
    assert json.loads(done)["joined"]["role"] == "admin"
    with NodeProcess(tmp_path / "new", "--name", "new") as new:
        until(lambda: title(new, "first") == "of ann", "it was let in, having shown how it became a member")
        until(lambda: peers(ann).get("new", {}).get("role") == "admin", "the others know")
        until(lambda: "ann" in peers(new), "it knows what the others are called")
        ok("revoke", "ann", "--data-dir", str(new.data_dir))
        until(lambda: peers(new)["ann"]["state"] == "revoked", "it governs")
        # The one that was put out holds the recovery code as well, and comes back under another key.
        before = status(ann)["node_id"]
        until(lambda: any(w["kind"] == "revoked" for w in status(ann)["warnings"]), "it is told")
        recovered = json.loads(ok("recover", code, "--data-dir", str(ann.data_dir), "--json"))
        assert recovered["recovered"] and recovered["node_id"] != before
        assert status(ann)["node_id"] == recovered["node_id"]
        assert title(ann, "first") == "of ann", "nothing of what it holds is lost"
        until(lambda: (recovered["node_id"], "admin") in roles(new), "it is back")


def test_a_node_killed_while_it_joins_is_one_or_the_other(ann: NodeProcess, tmp_path: Path) -> None:
    networks = set()
    for number in range(2):
        directory = tmp_path / f"bob{number}"
        ticket = invite(ann)
        with NodeProcess(directory) as bob:
            alone = status(bob)["network_id"]
            answer = bob.ask("POST", "/v1/admin/join", {"ticket": ticket})
            assert answer.status == 200, answer.body
            time.sleep(0.05 * number)
            bob.kill()
        with NodeProcess(directory) as bob:
            found = status(bob)["network_id"]
            networks.add(found)
            assert found == status(ann)["network_id"] != alone, "once it was answered, it is decided"
            until(lambda bob=bob: title(bob, "first"), "it syncs")  # type: ignore[misc]
