"""The README is true: every example in it runs, in order, on a real node."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli import child
from tests.system.process import NodeProcess

ROOT = Path(__file__).parent.parent
SDK = ROOT / "sdk"
README = (ROOT / "README.md").read_text("utf-8")
BLOCKS: list[tuple[str, str]] = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
ADDRESS = "127.0.0.1:8080"


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A user's shell: `civicnode` on the path, a home directory of its own."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, command in (("civicnode", "-P -m cli.main"), ("python3", "")):
        script = programs / name
        script.write_text(f'#!/bin/sh\nexec {sys.executable} {command} "$@"\n')
        script.chmod(0o755)
    path = os.pathsep.join([str(programs), os.environ["PATH"]])
    made = child.environment(
        {"PATH": path, "HOME": str(tmp_path), "CIVICNODE_DATA_DIR": str(tmp_path / "data")}
    )
    made["PYTHONPATH"] += os.pathsep + str(SDK / "python")
    yield made


def test_every_example_runs_in_the_order_of_the_page(environment: dict[str, str], tmp_path: Path) -> None:
    languages = [language for language, _ in BLOCKS]
    assert languages[0] == "sh" and {"sh", "json", "python", "js"} == set(languages)
    start, *rest = BLOCKS
    assert start[1].strip() == "make start"  # `.ci/run` and `test_make_start` are what runs it
    with NodeProcess(tmp_path / "data") as node:
        script = ["set -euo pipefail"]
        for language, text in rest:
            text = text.replace(ADDRESS, node.url.removeprefix("http://"))
            if language == "sh":
                script.append(text)
            elif language == "python":
                script.append(f"python3 - <<'PYTHON'\n{text}PYTHON\n")
            elif language == "js" and shutil.which("node"):
                text = text.replace("'cosmicsync'", f"'{SDK / 'javascript' / 'src' / 'index.js'}'")
                script.append(f"node --input-type=module - <<'MODULE'\n{text}MODULE\n")
        shell = subprocess.run(
            ["bash", "-c", "\n".join(script)],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert shell.returncode == 0, shell.stdout + shell.stderr
    answered = [text for language, text in BLOCKS if language == "json"]
    for expected in answered:
        assert expected.strip() in shell.stdout
    for sign in (
        '"model_id"',
        '"instance_id":"plug"',
        "PRECONDITION_FAILED",
        '"tasks":1',
        "IN_PROGRESS",
        "DONE",
        '"body":"Buy oat milk and bread"',
    ):
        assert sign in shell.stdout, sign
    assert '"username":"ada"' in shell.stdout


def test_make_start_runs_a_node_from_nothing(environment: dict[str, str]) -> None:
    """With the environment that `make test` has set up, `make start` has nothing left to install."""
    if not (ROOT / ".venv" / "dev.stamp").exists():
        pytest.skip("run by `make test`, which sets up the environment that this uses")
    starting = subprocess.Popen(
        ["make", "--no-print-directory", "start", "ARGS=--api 127.0.0.1:0 --listen 127.0.0.1:0 --no-mdns"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert starting.stdout is not None
    try:
        assert "http://127.0.0.1:" in starting.stdout.readline()
        data_dir = Path(environment["CIVICNODE_DATA_DIR"])
        os.kill(json.loads((data_dir / "run.json").read_text())["pid"], signal.SIGTERM)
        assert starting.wait(60) == 0
    finally:
        starting.kill()
        starting.wait()
        starting.stdout.close()


def test_every_command_that_the_readme_names_exists(environment: dict[str, str]) -> None:
    from cli.main import civicnode

    named = set(re.findall(r"`civicnode ([a-z]+)", README))
    assert named <= set(civicnode.list_commands(None)), named  # type: ignore[arg-type]


def test_what_the_readme_links_to_exists() -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target
