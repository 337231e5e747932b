"""A signed export proves itself; one that was touched proves nothing."""

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli.main import civicnode
from protocol.changes import EditKind
from storage import archive
from storage.archive import NotAnArchive, verified_archive
from tests.node.running import running

TASK = {"name": "Task", "fields": [{"name": "title", "type": "string"}]}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A signed export of what two authors wrote, and the id of their network."""
    directory = tmp_path_factory.mktemp("archive")

    async def make() -> tuple[bytes, str]:
        async with running(directory / "node") as node:
            model = await node.model(TASK)
            for number in range(40):
                await node.ask("POST", "/v1/data/Task", {"id": f"t{number}", "title": f"number {number}"})
            await node.ask("DELETE", "/v1/data/Task/t0")
            node.other.hear()
            node.other.write(EditKind.UPDATE, model, "t1", {"title": "from elsewhere"}, user="bob")
            await node.other.meet()
            _, ann = await node.sign_up("ann")
            refused = await node.ask("POST", "/v1/export", {"format": "signed"}, token=ann)
            assert refused.status == 403
            token = (node.node.settings.data_dir / "owner.token").read_text().strip()
            headers = {"Authorization": f"Bearer {token}"}
            url = node.node.url + "/v1/export"
            async with node.http.post(url, json={"format": "signed"}, headers=headers) as answer:
                assert answer.status == 200
                content = await answer.read()
            assert node.node.record is not None and node.node.record.store.identity is not None
            return content, node.node.record.store.identity.network_id.hex()

    content, network = asyncio.run(make())
    path = directory / "export.signed"
    path.write_bytes(content)
    return path, network


def prove(path: Path) -> None:
    with verified_archive(path):
        pass


def test_all_that_it_holds_is_proved(exported: tuple[Path, str]) -> None:
    path, network = exported
    with verified_archive(path) as proved:
        pass
    assert (proved.network_id.hex(), proved.waiting, proved.forked) == (network, 0, 0)
    assert len(proved.commits) == 2
    told = CliRunner().invoke(civicnode, ["verify", str(path), "--network", network, "--json"])
    assert told.exit_code == 0, told.output
    assert json.loads(told.output)["records"] == {"Task": 39}
    listed = CliRunner().invoke(civicnode, ["verify", str(path), "--records"])
    records = {r["data"]["id"]: r["data"]["title"] for r in map(json.loads, listed.output.splitlines())}
    assert len(records) == 39 and records["t1"] == "from elsewhere" and records["t2"] == "number 2"
    other = CliRunner().invoke(civicnode, ["verify", str(path), "--network", "00" * 32])
    assert other.exit_code == 1 and "another network" in other.output


def test_what_it_proves_does_not_depend_on_how_much_of_it_is_held(
    exported: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with verified_archive(exported[0]) as proved:
        expected = proved.commits
    monkeypatch.setattr(archive, "RUNS_HELD_MAX_BYTES", 0)
    monkeypatch.setattr(archive, "BATCH_BYTES", 1)
    with verified_archive(exported[0]) as proved:
        assert (proved.commits, proved.waiting, proved.forked) == (expected, 0, 0)


@pytest.mark.parametrize("place", [0.02, 0.3, 0.6, 0.99])
def test_a_changed_bit_or_a_missing_end_is_found(
    exported: tuple[Path, str], tmp_path: Path, place: float
) -> None:
    content = bytearray(exported[0].read_bytes())
    at = int(len(content) * place)
    touched = tmp_path / "touched"
    content[at] ^= 1
    touched.write_bytes(content)
    with pytest.raises(NotAnArchive):
        prove(touched)
    content[at] ^= 1
    touched.write_bytes(content[:at])
    with pytest.raises(NotAnArchive):
        prove(touched)


def test_a_file_that_ends_between_two_runs_is_found(exported: tuple[Path, str], tmp_path: Path) -> None:
    content = exported[0].read_bytes()
    end = content.rindex(b"cend")
    touched = tmp_path / "touched"
    touched.write_bytes(content[: end - 2])
    with pytest.raises(NotAnArchive, match="its end is missing"):
        prove(touched)


def test_a_file_of_anything_else_is_none(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for content in (b"", b"{}", b"\x41\x00", b"\x5b" + b"\xff" * 8, bytes(100)):
        path.write_bytes(content)
        with pytest.raises(NotAnArchive):
            prove(path)
