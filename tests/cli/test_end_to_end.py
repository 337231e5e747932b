"""The program against real nodes: what a person types, from a first start to a restored backup."""

import json
import os
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli import child, place

QUIET = ["--api", "127.0.0.1:0", "--listen", "127.0.0.1:0", "--no-mdns"]
CSV = "icao,name,country,elevation\nBIKF,Keflavik,IS,171\nBIRK,Reykjavik,IS,48\nEDDF,Frankfurt,DE,364\n"


def civicnode(data_dir: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own."""
    return subprocess.run(
        child.command(*arguments, "--data-dir", str(data_dir)),
        env=child.environment(),
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )


def as_json(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert isinstance(document, dict) and document["schema"] == 1
    return document


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("node") / "data"


@pytest.fixture(scope="module")
def ready(data_dir: Path) -> Iterator[str]:
    """A running node with three records; its ready line."""
    with child.node(["--data-dir", str(data_dir), *QUIET]) as line:
        imported = civicnode(
            data_dir,
            "import",
            "-",
            "--model",
            "Airport",
            "--create-model",
            "--index",
            "country",
            "--json",
            stdin=CSV,
        )
        assert as_json(imported)["created"] == 3
        yield line


def test_the_ready_line_holds_the_address_and_only_the_owner_can_read_the_secrets(
    ready: str, data_dir: Path
) -> None:
    running = place.require_running(data_dir)
    assert ready.endswith(running.api)
    for name in ("owner.token", "run.json"):
        assert stat.S_IMODE((data_dir / name).stat().st_mode) == 0o600


def test_status_tells_what_the_node_is_and_holds(ready: str, data_dir: Path) -> None:
    document = as_json(civicnode(data_dir, "status", "--json"))
    assert document["running"] is True and document["in_sync"] is True
    assert document["data_dir"] == str(data_dir)
    assert len(document["node_id"]) == len(document["network_id"]) == 64
    assert civicnode(data_dir, "status").returncode == 0


def test_an_administrator_is_made_listed_and_given_a_role(ready: str, data_dir: Path) -> None:
    password = "correct horse battery staple"
    made = civicnode(
        data_dir, "admin", "create", "ada@example.org", "--password-stdin", stdin=password + "\n"
    )
    assert made.returncode == 0, made.stderr
    assert civicnode(data_dir, "user", "role", "ada@example.org", "editor").returncode == 0
    (ada,) = as_json(civicnode(data_dir, "user", "list", "--json"))["users"]
    assert ada["is_admin"] is True and "editor" in ada["roles"]
    again = civicnode(
        data_dir, "admin", "create", "ada@example.org", "--password-stdin", stdin=password + "\n"
    )
    assert again.returncode == 1 and again.stderr.count("\n") == 1


def test_records_are_queried_and_exported(ready: str, data_dir: Path, tmp_path: Path) -> None:
    sql = "SELECT country, count(*) AS n FROM Airport GROUP BY country ORDER BY n DESC"
    assert as_json(civicnode(data_dir, "query", sql, "--json"))["rows"] == [["IS", 2], ["DE", 1]]
    refused = civicnode(data_dir, "query", "DELETE FROM Airport")
    assert refused.returncode == 1 and refused.stderr.count("\n") == 1
    target = tmp_path / "airports.ndjson"
    arguments = ["export", str(target), "--model", "Airport", "--filter", "country:eq:IS", "--json"]
    assert as_json(civicnode(data_dir, *arguments))["exported"] == 2
    names = {json.loads(line)["name"] for line in target.read_text().splitlines()}
    assert names == {"Keflavik", "Reykjavik"}


def test_an_export_is_imported_again_under_the_same_ids(ready: str, data_dir: Path, tmp_path: Path) -> None:
    target = tmp_path / "airports.csv"
    assert civicnode(data_dir, "export", str(target), "--model", "Airport").returncode == 0
    imported = civicnode(data_dir, "import", str(target), "--model", "Copy", "--create-model", "--json")
    assert as_json(imported)["created"] == 3
    sql = "SELECT count(*) FROM Copy JOIN Airport USING (id, name, elevation)"
    assert as_json(civicnode(data_dir, "query", sql, "--json"))["rows"] == [[3]]
    again = civicnode(data_dir, "import", str(target), "--model", "Copy")
    assert again.returncode == 1 and "3 of 3 records were not created" in again.stderr


def test_origins_are_allowed_and_taken_back(ready: str, data_dir: Path) -> None:
    assert civicnode(data_dir, "origins", "allow", "https://app.example.org").returncode == 0
    assert civicnode(data_dir, "origins", "list").stdout == "https://app.example.org\n"
    assert civicnode(data_dir, "origins", "remove", "https://app.example.org").returncode == 0
    assert civicnode(data_dir, "origins", "list").stdout == ""


def test_a_second_node_is_refused_the_directory_and_the_port(
    ready: str, data_dir: Path, tmp_path: Path
) -> None:
    second = civicnode(data_dir, "start", *QUIET)
    assert second.returncode == 1 and "already running" in second.stderr
    port = place.require_running(data_dir).api.rpartition(":")[2]
    other = civicnode(tmp_path / "other", "start", "--api", f"127.0.0.1:{port}", *QUIET[2:])
    assert other.returncode == 1
    assert "--api" in other.stderr and str(place.require_running(data_dir).pid) in other.stderr
    assert other.stderr.count("\n") == 1


def test_a_backup_of_the_running_node_is_restored_and_used_without_starting_it(
    ready: str, data_dir: Path, tmp_path: Path
) -> None:
    archive, restored = tmp_path / "monday.backup", tmp_path / "restored"
    assert as_json(civicnode(data_dir, "backup", str(archive), "--json"))["size_bytes"] > 0
    assert as_json(civicnode(restored, "restore", str(archive), "--json"))["data_dir"] == str(restored)
    sql = "SELECT count(*) FROM Airport"
    assert as_json(civicnode(restored, "query", sql, "--json"))["rows"] == [[3]]
    assert place.running(restored) is None
    assert as_json(civicnode(restored, "doctor", "--json"))["ok"] is True
    offline = tmp_path / "tuesday.backup"
    assert civicnode(restored, "backup", str(offline)).returncode == 0
    assert civicnode(restored, "restore", str(offline)).returncode == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_a_node_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    data_dir = tmp_path / "data"
    process = subprocess.Popen(
        child.command("start", "--data-dir", str(data_dir), *QUIET),
        env=child.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with process:
        assert process.stdout is not None
        assert b"http://127.0.0.1:" in process.stdout.readline()
        os.kill(process.pid, number)
        assert process.wait(60) == 0
    stopped = civicnode(data_dir, "status")
    assert stopped.returncode == 3
    assert "civicnode start" in stopped.stderr


def test_a_killed_node_is_told_from_a_running_one(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    arguments = child.command("start", "--data-dir", str(data_dir), *QUIET)
    with subprocess.Popen(
        arguments, env=child.environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
    assert (data_dir / "run.json").exists()
    assert civicnode(data_dir, "status").returncode == 3
    assert as_json(civicnode(data_dir, "doctor", "--json"))["ok"] is True


def test_the_demonstration_ends_by_itself_when_asked(tmp_path: Path) -> None:
    env = child.environment({"EXIT": "1", "NO_COLOR": "1", "TMPDIR": str(tmp_path)})
    done = subprocess.run(
        [*child.command()[:2], "-m", "cli.demo"], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout
    for step in range(1, 7):
        assert f"\n{step}. " in said
    assert "holds 28," in said and '"event": "update"' in said
    roots = [line.rpartition(": ")[2] for line in said.splitlines() if line.startswith("   roots")]
    assert roots == ["not equal", "equal", "equal"]
    assert "tags hub, ice" in said and "visits 5" in said
    assert "name is in conflict: “Keflavik International” (laptop) and “Reykjavik Keflavik” (phone)" in said
    assert said.count("/docs\n") == 2
    assert list(tmp_path.iterdir()) == []
