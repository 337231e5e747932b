"""Finding a node by its data directory."""

from pathlib import Path

import pytest

from cli import place
from cli.errors import CliError, NotRunning
from tests.cli.fake_node import TOKEN, FakeNode


def test_a_running_node_is_found_by_its_files(node: FakeNode, data_dir: Path) -> None:
    found = place.require_running(data_dir)
    assert found.api == node.api
    assert place.owner_token(data_dir) == TOKEN


def test_a_killed_node_does_not_count_as_running_though_its_file_stays(
    node: FakeNode, data_dir: Path
) -> None:
    node.die()
    assert (data_dir / "run.json").exists()
    assert place.running(data_dir) is None
    with pytest.raises(NotRunning, match=r"no node is running in .*: start it with civicnode start"):
        place.require_running(data_dir)


def test_a_node_that_is_just_starting_is_told_apart_from_none(node: FakeNode, data_dir: Path) -> None:
    (data_dir / "run.json").unlink()
    with pytest.raises(NotRunning, match="just starting"):
        place.require_running(data_dir)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 1}', '{"pid": null, "api": "x"}'])
def test_a_damaged_run_file_is_named(node: FakeNode, data_dir: Path, content: str) -> None:
    (data_dir / "run.json").write_text(content)
    with pytest.raises(CliError, match=r"run\.json is damaged"):
        place.running(data_dir)


def test_a_wrong_data_directory_is_told_from_a_stopped_node(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for where, words in [
        (tmp_path / "absent", "does not exist"),
        (tmp_path / "file", "is a file"),
        (tmp_path, "holds no civicnode data"),
    ]:
        with pytest.raises(CliError, match=words) as caught:
            place.require_running(where)
        assert "--data-dir" in caught.value.message


def test_a_store_in_use_is_left_alone_and_the_way_to_stop_the_node_is_told(
    node: FakeNode, data_dir: Path
) -> None:
    with pytest.raises(CliError, match=r"stop it \(kill \d+\), then examine it"):
        place.refuse_running(data_dir, "examine it")
    node.die()
    place.refuse_running(data_dir, "examine it")


def test_an_empty_token_file_is_named(node: FakeNode, data_dir: Path) -> None:
    (data_dir / "owner.token").write_text("\n")
    with pytest.raises(CliError, match=r"owner\.token is missing or damaged"):
        place.owner_token(data_dir)
