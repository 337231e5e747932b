"""A machine that is set back to a snapshot, and writes before it meets a peer: nothing that it acknowledged is lost."""

import shutil
from pathlib import Path
from typing import Any

from tests.system.neighbours import free_port, status, until
from tests.system.process import NodeProcess, civicnode

PAGE = {
    "name": "Page",
    "fields": [
        {"name": "title", "type": "string"},
        {"name": "votes", "type": "counter"},
        {"name": "tags", "type": "set"},
        {"name": "body", "type": "text"},
    ],
}


def write(node: NodeProcess, id: str, **values: Any) -> None:
    """Create or update a page; it is acknowledged."""
    answer = node.ask("PUT", f"/v1/data/Page/{id}", values)
    if answer.status == 404:
        answer = node.ask("POST", "/v1/data/Page", {"id": id, **values})
    assert answer.status in (200, 201), answer.body


def agree(*nodes: NodeProcess) -> None:
    """Wait until all are in sync and hold the same."""

    def is_so() -> bool:
        told = [status(node) for node in nodes]
        return all(each["in_sync"] and each["peers"] for each in told) and len({e["root"] for e in told}) == 1

    until(is_so, "agreement", *nodes)


def ok(*arguments: str) -> str:
    """What a command that must succeed prints."""
    done = civicnode(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def shown(node: NodeProcess, id: str) -> dict[str, Any]:
    """A page; nothing if there is none."""
    answer = node.ask("GET", f"/v1/data/Page/{id}")
    page: dict[str, Any] = answer.json if answer.status == 200 else {}
    return page


def set_back(directory: Path, snapshot: Path) -> None:
    """The same files, with what was in them before: nothing on this machine can tell."""
    for name in ("data.mdb", "anchor", "index.sqlite"):
        if (snapshot / name).exists():
            shutil.copyfile(snapshot / name, directory / name)
    shutil.copystat(snapshot / "data.mdb", directory / "data.mdb")


def test_a_machine_that_was_set_back_and_wrote_before_it_met_a_peer_loses_neither_branch(
    tmp_path: Path,
) -> None:
    one, two, snapshot, port = tmp_path / "one", tmp_path / "two", tmp_path / "snapshot", free_port()
    here, there = ("--listen", f"127.0.0.1:{port}"), ("--peer", f"127.0.0.1:{port}")
    with NodeProcess(one, *here) as a:
        ok("join", ok("invite", "--data-dir", str(one)).strip(), "--data-dir", str(two))
        assert a.stop() == 0
    with NodeProcess(one, *here) as a, NodeProcess(two, *there) as b:
        assert a.ask("POST", "/v1/data-models", PAGE).status == 201
        write(a, "doc", title="before", votes=1, tags=["kept", "taken"], body="The fox.")
        write(a, "gone", title="to be deleted")
        agree(a, b)
        assert a.stop() == 0
        shutil.copytree(one, snapshot)
        with NodeProcess(one, *here) as a:
            for number in range(80):  # more than one signature vouches for
                first = {"id": f"first-{number}", "title": "on the first branch"}
                assert a.ask("POST", "/v1/data/Page", first).status == 201
            write(a, "doc", title="first", votes=3, tags=["kept", "taken", "first"], body="The quick fox.")
            write(a, "both", title="first")
            agree(a, b)
            write(b, "both", title="of two, which has seen it")
            agree(a, b)
            assert a.stop() == b.stop() == 0
    set_back(one, snapshot)
    with NodeProcess(one, *here) as a:
        assert not shown(a, "first-0")
        write(a, "second", title="on the second branch", votes=2)
        write(a, "doc", title="second", votes=6, tags=["kept"], body="The fox jumps.")
        assert a.ask("DELETE", "/v1/data/Page/gone").status == 204
        with NodeProcess(two, *there) as b:
            until(lambda: bool(shown(b, "second")), "what was written after the snapshot", a, b)
            until(lambda: bool(shown(a, "first-79")), "what was written before it was set back", a, b)
            agree(a, b)
            for node in (a, b):
                firsts = [shown(node, f"first-{number}") for number in range(80)]
                assert {first.get("title") for first in firsts} == {"on the first branch"}
                assert shown(node, "second")["votes"] == 2
                assert shown(node, "both")["title"] == "of two, which has seen it"
                assert not shown(node, "gone")
                page = shown(node, "doc")
                assert (page["title"], page["votes"], page["tags"]) == ("second", 8, ["kept", "first"])
                assert page["body"] == "The quick fox jumps."
                (conflict,) = node.ask("GET", "/v1/conflicts").json["items"]
                assert {value["value"] for value in conflict["values"]} == {"first", "second"}
            write(a, "after", title="a new life")
            agree(a, b)
            assert a.stop() == b.stop() == 0
    for node in (a, b):
        assert "Traceback" not in node.errors.read_text()
    assert "issued again" in a.errors.read_text()
    for directory in (one, two):
        report = civicnode("doctor", "--data-dir", str(directory), "--json")
        assert report.returncode == 0, report.stdout + report.stderr
