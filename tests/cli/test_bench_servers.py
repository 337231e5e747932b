from pathlib import Path

import pytest

from cli.bench.errors import ChildFailed
from cli.bench.process import Workspace
from cli.bench.records import record_id, records
from cli.bench.servers import Client, floor_running, parse_metrics, port_in, size_on_disk


def test_metrics_of_one_name_are_summed_over_their_labels() -> None:
    text = (
        "# HELP civicnode_commits_total Commits.\n# TYPE civicnode_commits_total counter\n"
        'civicnode_commits_total{space="a b"} 3.0\ncivicnode_commits_total{space="c"} 4\n'
        "process_cpu_seconds_total 1e-3\nodd NaNsense\n\n"
    )
    assert parse_metrics(text) == {"civicnode_commits_total": 7.0, "process_cpu_seconds_total": 0.001}


def test_the_port_is_the_one_after_the_loopback_address() -> None:
    assert port_in("civicnode 0.1 is ready at http://127.0.0.1:41234/docs") == 41234
    with pytest.raises(ChildFailed):
        port_in("civicnode is ready at http://0.0.0.0:80")


def test_only_what_the_file_system_gave_counts_as_size(tmp_path: Path) -> None:
    before = size_on_disk(tmp_path)
    (tmp_path / "written").write_bytes(bytes(100_000))
    with (tmp_path / "reserved").open("wb") as file:
        file.truncate(1 << 30)
    assert 90_000 < size_on_disk(tmp_path) - before < 200_000


def test_the_floor_commits_what_it_is_sent_and_answers_what_it_holds() -> None:
    with Workspace() as workspace, floor_running(workspace, records=3) as port:
        client = Client(port)
        created = client.json("POST", "/records", next(records(1)), right=201)
        assert created["instance_id"] == record_id(1)
        assert client.json("GET", f"/records/{record_id(2)}")["district"] == "district-002"
        client.ask("GET", "/records/absent", right=404)
        client.close()
