"""Commands that work without a running node: start, config, doctor, backup, restore, bench."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from storage.errors import StorageError
from tests.cli.conftest import Run
from tests.cli.fake_node import FakeNode


class StartFailed(Exception):
    """As `node.process` has it."""


@dataclass
class Report:
    """As `storage.doctor` has it."""

    ok: bool = True
    problems: list[str] = field(default_factory=list)
    repaired: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=lambda: {"commits": 1200})


Install = Callable[..., None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a small module in the place of a large one."""

    def put(name: str, **members: object) -> None:
        module = ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)

    return put


@pytest.fixture
def settings(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The flags that were handed to the settings."""
    seen: dict[str, Any] = {}

    def load(flags: dict[str, Any] | None = None) -> SimpleNamespace:
        seen.update(flags or {})
        return SimpleNamespace(data_dir=data_dir)

    monkeypatch.setattr("cli.settings.load", load)
    return seen


@pytest.fixture
def stopped(node: FakeNode) -> FakeNode:
    """The data directory of a node that ran before."""
    node.die()
    return node


def test_start_hands_every_flag_on_and_ends_with_the_nodes_code(
    settings: dict[str, Any], install: Install, run: Run
) -> None:
    install("node.process", run=lambda _settings: 7, StartFailed=StartFailed)
    flags = [
        "--api",
        "127.0.0.1:0",
        "--peer",
        "a:1",
        "--peer",
        "b:2",
        "--no-mdns",
        "--api-tls",
        "c.pem",
        "k.pem",
    ]
    assert run("start", *flags).exit_code == 7
    assert settings["api"] == "127.0.0.1:0"
    assert settings["peers"] == ("a:1", "b:2")
    assert settings["mdns"] is False
    assert (settings["api_tls_cert"], settings["api_tls_key"]) == ("c.pem", "k.pem")
    assert settings["name"] is None


def test_a_start_that_fails_says_why_in_one_line(
    settings: dict[str, Any], install: Install, run: Run
) -> None:
    def fail(_settings: object) -> int:
        raise StartFailed("127.0.0.1:8080 is taken by nginx: choose another address with --api HOST:PORT")

    install("node.process", run=fail, StartFailed=StartFailed)
    result = run("start")
    assert result.exit_code == 1
    assert result.stderr == (
        "Error: 127.0.0.1:8080 is taken by nginx: choose another address with --api HOST:PORT\n"
    )


def test_a_second_start_on_a_directory_names_the_first(
    settings: dict[str, Any], install: Install, node: FakeNode, run: Run
) -> None:
    install("node.process", run=lambda _settings: 0, StartFailed=StartFailed)
    result = run("start")
    assert result.exit_code == 1
    assert f"already running in {node.data_dir} at {node.api} (pid " in result.stderr


def test_a_start_in_a_file_is_refused(settings: dict[str, Any], data_dir: Path, run: Run) -> None:
    data_dir.touch()
    result = run("start")
    assert result.exit_code == 1 and "is a file" in result.stderr


def test_config_shows_each_value_with_its_origin(
    run: Run, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data_dir.mkdir()
    (data_dir / "config.toml").write_text('name = "kitchen"\n')
    monkeypatch.setenv("CIVICNODE_API", "127.0.0.1:9000")
    monkeypatch.setenv("CIVICNODE_JWT_SECRET", "s" * 40)
    shown = run("config").stdout
    rows = {line.split()[0]: line.split()[1:3] for line in shown.splitlines()[2:]}
    assert rows["name"] == ["kitchen", str(data_dir / "config.toml")]
    assert rows["api"] == ["127.0.0.1:9000", "CIVICNODE_API"]
    assert rows["listen"] == ["0.0.0.0:4490", "default"]
    assert "s" * 40 not in shown
    document = json.loads(run("config", "--json").stdout)
    assert document["schema"] == 1
    assert {d["name"]: d["origin"] for d in document["settings"]}["data_dir"] == "flag"


def test_every_fault_of_the_settings_is_named_in_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIVICNODE_JWT_SECRET", "short")
    monkeypatch.setenv("CIVICNODE_LOG_FORMAT", "xml")
    result = run("config")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "jwt_secret" in result.stderr and "log_format" in result.stderr


def test_doctor_reports_what_it_checked_and_repaired(install: Install, stopped: FakeNode, run: Run) -> None:
    install(
        "storage.doctor", examine=lambda _where, repair, **_: Report(repaired=["the index"] if repair else [])
    )
    result = run("doctor")
    assert result.exit_code == 0, result.stderr
    assert "1,200 commits" in result.stdout and "repaired  the index" in result.stdout
    document = json.loads(run("doctor", "--no-repair", "--json").stdout)
    assert document == {"schema": 1, "ok": True, "problems": [], "repaired": [], "counts": {"commits": 1200}}


def test_doctor_ends_with_1_if_something_is_beyond_repair(
    install: Install, stopped: FakeNode, run: Run
) -> None:
    install(
        "storage.doctor",
        examine=lambda _where, repair, **_: Report(ok=False, problems=["a forged signature"]),
    )
    result = run("doctor")
    assert result.exit_code == 1
    assert "problem   a forged signature" in result.stdout and "civicnode restore" in result.stderr
    assert run("doctor", "--json").exit_code == 1


def test_doctor_leaves_a_running_node_alone(install: Install, node: FakeNode, run: Run) -> None:
    install("storage.doctor", examine=lambda _where, repair, **_: Report())
    result = run("doctor")
    assert result.exit_code == 1 and "stop it (kill" in result.stderr


def test_a_store_of_a_newer_release_is_named(install: Install, stopped: FakeNode, run: Run) -> None:
    def examine(_where: Path, repair: bool, **_: object) -> Report:
        raise StorageError("data format 9, this release reads up to 1: upgrade civicnode")

    install("storage.doctor", examine=examine)
    assert run("doctor").stderr == "Error: data format 9, this release reads up to 1: upgrade civicnode\n"


def test_a_stopped_node_is_backed_up_and_restored_elsewhere(
    install: Install, stopped: FakeNode, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def backup(_where: Path, file: Path, progress: Callable[[int, int], None]) -> None:
        progress(1, 1)
        file.write_bytes(b"all")

    def restore(file: Path, where: Path, progress: Callable[[int, int], None]) -> None:
        progress(1, 1)
        where.mkdir()
        (where / "owner.token").write_bytes(file.read_bytes())

    install("storage.backup", backup=backup, restore=restore)
    archive = tmp_path / "monday.backup"
    document = json.loads(run("backup", str(archive), "--json").stdout)
    assert document == {"schema": 1, "file": str(archive), "size_bytes": 3}

    result = run("restore", str(archive))
    assert result.exit_code == 1 and "holds a node already" in result.stderr
    (stopped.data_dir / "owner.token").rename(tmp_path / "aside")
    monkeypatch.setattr("cli.place.holds_node", lambda where: (where / "owner.token").exists())
    stopped.data_dir.rename(tmp_path / "old")
    result = run("restore", str(archive), "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["data_dir"] == str(stopped.data_dir)
    assert (stopped.data_dir / "owner.token").read_bytes() == b"all"


def test_a_restore_of_what_is_not_there_names_what_is_expected(
    install: Install, run: Run, tmp_path: Path
) -> None:
    install("storage.backup", backup=None, restore=None)
    result = run("restore", str(tmp_path / "nothing"))
    assert result.exit_code == 1 and "civicnode backup wrote" in result.stderr


def test_bench_hands_its_options_on_and_prints_its_document(install: Install, tmp_path: Path) -> None:
    from click.testing import CliRunner

    from cli.main import civicnode

    seen: dict[str, Any] = {}

    class BenchError(Exception):
        pass

    def measure(**options: Any) -> SimpleNamespace:
        seen.update(options)
        if options["versus"] == "nobody":
            raise BenchError("nothing known under the name 'nobody'")
        return SimpleNamespace(document=lambda: {"schema": 1, "sections": []}, passed=False)

    install("cli.bench", run=measure)
    install("cli.bench.errors", BenchError=BenchError)
    output = tmp_path / "results" / "latest.json"
    arguments = ["bench", "--quick", "--only", "creates", "--output", str(output), "--json"]
    result = CliRunner().invoke(civicnode, arguments)
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout) == {"schema": 1, "sections": []}
    assert (seen["quick"], seen["only"], seen["json_path"]) == (True, ("creates",), output)
    assert output.parent.is_dir()
    assert CliRunner().invoke(civicnode, [*arguments, "--check"]).exit_code == 1
    assert "nobody" in CliRunner().invoke(civicnode, ["bench", "--versus", "nobody"]).stderr
