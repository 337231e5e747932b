"""The JavaScript client: its own tests, its types, its README and its filters, run by the node that is there."""

import json
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from cli import child
from cosmicsync.filters import matches, translate
from tests.sdk.conftest import plugin
from tests.sdk.test_python_filters import SHAPE, TYPES, documents, filters
from tests.system import npm
from tests.system.neighbours import join
from tests.system.process import NodeProcess

PACKAGE = Path(__file__).parents[2] / "sdk" / "javascript"
NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="Node.js is not installed")


def run(command: list[str], cwd: Path = PACKAGE, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def tools() -> Path:
    """What the tests of the package need, installed once."""
    installed = PACKAGE / "node_modules" / ".package-lock.json"
    lock = PACKAGE / "package-lock.json"
    with npm.turn(PACKAGE):
        if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
            npm.install(PACKAGE)
    return PACKAGE / "node_modules"


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[NodeProcess, NodeProcess]]:
    """Two devices of one network."""
    directory = tmp_path_factory.mktemp("javascript")
    with NodeProcess(directory / "one", *plugin(directory)) as a, NodeProcess(directory / "two") as b:
        join(b, a)
        yield a, b


def test_the_tests_of_the_package_pass(tools: Path, nodes: tuple[NodeProcess, NodeProcess]) -> None:
    a, b = nodes
    socket = "--experimental-websocket"  # Node.js 20 has it behind this flag; later ones by themselves
    flags = [socket] if run(["node", socket, "--eval", ""]).returncode == 0 else []
    environment = {
        **os.environ,
        "COSMICSYNC_URL": a.url,
        "COSMICSYNC_TOKEN": a.token,
        "COSMICSYNC_OTHER_URL": b.url,
        "COSMICSYNC_OTHER_TOKEN": b.token,
        "COSMICSYNC_NODE": json.dumps(child.command()),
    }
    command = ["node", *flags, "--test", "--test-concurrency=1", "--test-reporter=tap"]
    names = sorted(path.name for path in (PACKAGE / "test").glob("*.test.js"))
    # One of them waits for a node of its own to start, twice: the others run meanwhile, one after the other.
    slow = "realtime.test.js"
    names.remove(slow)
    started = [
        subprocess.Popen(
            [*command, *(f"test/{name}" for name in files)],
            cwd=PACKAGE,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for files in ([slow], names)
    ]
    for process, printed in [(process, process.communicate()[0]) for process in started]:
        assert process.returncode == 0, printed[-8_000:]
        assert "\n# skipped 0\n" in printed and "\n# fail 0\n" in printed, printed[-8_000:]


def test_the_types_are_those_of_the_sources_and_serve_an_app(tools: Path, tmp_path: Path) -> None:
    """`test/sample.ts` calls every method."""
    done = run(["node", str(tools / "typescript" / "bin" / "tsc"), "-p", "test", "--outDir", str(tmp_path)])
    assert done.returncode == 0, done.stdout
    made = {path.name: path.read_text() for path in (tmp_path / "src").glob("*.d.ts")}
    kept = {path.name: path.read_text() for path in (PACKAGE / "types").glob("*.d.ts")}
    assert made == kept  # else: npm run types


def test_every_example_of_the_readme_runs_in_the_order_of_the_page(
    nodes: tuple[NodeProcess, NodeProcess], tmp_path: Path
) -> None:
    """Word for word but for the node's address, with the package as it would be published."""
    (packed,) = json.loads(run(["npm", "pack", "--json", "--pack-destination", str(tmp_path)]).stdout)
    with tarfile.open(tmp_path / packed["filename"]) as archive:
        archive.extractall(tmp_path / "node_modules", filter="data")
    (tmp_path / "node_modules" / "package").rename(tmp_path / "node_modules" / "cosmicsync")
    held = {Path(entry["path"]) for entry in packed["files"]}
    assert {path.parts[0] for path in held} == {"README.md", "package.json", "src", "types"}
    sources = {path.stem for path in held if path.parts[0] == "src"}
    assert sources == {path.name.removesuffix(".d.ts") for path in held if path.parts[0] == "types"}

    page = (PACKAGE / "README.md").read_text()
    blocks = re.findall(r"^```js\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    script = "".join(blocks).replace("http://127.0.0.1:8080", nodes[0].url)
    (tmp_path / "readme.mjs").write_text(script)
    done = run(["node", "readme.mjs"], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for sign in (
        "Write it down true",
        "optimistic On the train",
        "reverted undefined { priority: 'Must be an integer' }",
        "1 stored; 1 refused",
        "[ 'HEARD OF AT ONCE', 'ON THE TRAIN' ]",
    ):
        assert sign in done.stdout, (sign, done.stdout)


def test_filters_mean_the_same_in_both_languages(tmp_path: Path) -> None:
    cases: list[Any] = []

    @settings(max_examples=300, database=None)
    @given(filters, documents)
    def collect(filter: dict[str, Any], document: dict[str, Any]) -> None:
        said = translate(filter, SHAPE)
        told = [said.text, said.is_exact, said.is_empty]
        cases.append([filter, document, told, matches(filter, document, SHAPE)])

    collect()
    (tmp_path / "cases.json").write_text(json.dumps([TYPES, cases]))
    script = f"""
        import {{ matches, translate }} from '{PACKAGE / "src" / "filters.js"}';
        import {{ ModelShape }} from '{PACKAGE / "src" / "documents.js"}';
        import {{ readFileSync }} from 'node:fs';
        const [types, cases] = JSON.parse(readFileSync('{tmp_path / "cases.json"}', 'utf8'));
        const shape = new ModelShape('Thing', types);
        for (const [filter, document, told, met] of cases) {{
          const {{ text = null, isExact, isEmpty = false }} = translate(filter, shape);
          const here = JSON.stringify([[text, isExact, isEmpty], matches(filter, document, shape)]);
          if (here !== JSON.stringify([told, met])) {{
            console.log(JSON.stringify(filter), JSON.stringify(document), here, JSON.stringify([told, met]));
          }}
        }}
        console.log(cases.length);"""
    done = run(["node", "--input-type=module", "--eval", script])
    assert done.stdout == f"{len(cases)}\n", done.stdout[:2_000] + done.stderr
    assert len(cases) >= 300
