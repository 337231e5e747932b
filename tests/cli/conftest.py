from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cli.main import civicnode
from tests.cli.fake_node import FakeNode

Run = Callable[..., Result]


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def node(data_dir: Path) -> Iterator[FakeNode]:
    """A fake node running on `data_dir`."""
    fake = FakeNode(data_dir)
    yield fake
    fake.die()


@pytest.fixture
def run(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command against `data_dir`, as if typed."""
    monkeypatch.setenv("CIVICNODE_DATA_DIR", str(data_dir))

    def invoke(*arguments: str, stdin: str | bytes | None = None) -> Result:
        return CliRunner().invoke(civicnode, [*arguments, "--data-dir", str(data_dir)], input=stdin)

    return invoke
