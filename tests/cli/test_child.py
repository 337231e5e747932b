"""A node as a child process: started, waited for, stopped; and the choice to start one."""

import sys
from pathlib import Path

import pytest

from cli import child
from cli.attached import any_node
from cli.errors import CliError
from tests.cli.fake_node import FakeNode

# What `civicnode start` is to a parent: a ready line, a clean end on SIGTERM, words on standard error.
STAND_IN = """
import signal, sys
from pathlib import Path
from tests.cli.fake_node import FakeNode
mode, data_dir = sys.argv[1], Path(sys.argv[sys.argv.index("--data-dir") + 1])
if mode == "fails":
    print("something before", file=sys.stderr)
    sys.exit("Error: the port is taken: choose another")
if mode == "mute":
    sys.exit(1)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
node = FakeNode(data_dir)
print(f"civicnode is ready: {node.api}", flush=True)
print("x" * 200_000, flush=True)
signal.sigwait({signal.SIGTERM})
node.die()
(data_dir / "stopped").touch()
"""


@pytest.fixture
def mode(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How the stand-in for the node behaves; its only item may be replaced."""
    chosen = ["works"]

    def command(*arguments: str) -> list[str]:
        return [sys.executable, "-c", STAND_IN, *chosen, *arguments]

    monkeypatch.setattr(child, "command", command)
    return chosen


def test_a_node_is_ready_inside_the_block_and_stopped_after_it(mode: list[str], data_dir: Path) -> None:
    with child.node(["--data-dir", str(data_dir)]) as ready:
        assert ready.startswith("civicnode is ready: http://127.0.0.1:")
        assert not (data_dir / "stopped").exists()
    assert (data_dir / "stopped").exists()


def test_a_node_is_stopped_also_when_the_block_fails(mode: list[str], data_dir: Path) -> None:
    with pytest.raises(ZeroDivisionError), child.node(["--data-dir", str(data_dir)]):
        raise ZeroDivisionError
    assert (data_dir / "stopped").exists()


def test_a_node_that_does_not_start_is_reported_in_its_own_last_words(
    mode: list[str], data_dir: Path
) -> None:
    mode[0] = "fails"
    with pytest.raises(CliError) as caught, child.node(["--data-dir", str(data_dir)]):
        pytest.fail("it did not start")
    assert caught.value.message == "the port is taken: choose another"
    mode[0] = "mute"
    with pytest.raises(CliError, match="said nothing"), child.node(["--data-dir", str(data_dir)]):
        pytest.fail("it did not start")


def test_a_command_uses_the_running_node_or_starts_one_for_itself(
    mode: list[str], node: FakeNode, data_dir: Path
) -> None:
    with any_node(data_dir) as client:
        assert client.api == node.api
    node.die()
    with any_node(data_dir) as client:
        assert client.api != node.api
        assert client.get("/v1/admin/status")["name"] == "kitchen"
    assert (data_dir / "stopped").exists()


def test_a_command_starts_no_node_in_a_directory_that_holds_none(mode: list[str], tmp_path: Path) -> None:
    with pytest.raises(CliError, match="holds no civicnode data"), any_node(tmp_path):
        pytest.fail("a node was started")
    assert list(tmp_path.iterdir()) == []
