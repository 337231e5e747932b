import os
import socket
import sys
from pathlib import Path

import pytest

from node.ports import holder_of


@pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
def test_the_holder_of_a_port_is_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        holder = holder_of(listener.getsockname()[1])
    assert holder is not None
    assert f"process {os.getpid()}" in holder


def test_a_port_nobody_listens_on_has_no_holder() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert holder_of(port) is None


def test_without_proc_nothing_is_known(tmp_path: Path) -> None:
    assert holder_of(1, tmp_path / "nowhere") is None
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "tcp").write_text("header\nshort line\n")
    assert holder_of(1, tmp_path) is None


def test_a_process_cannot_write_to_the_terminal_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    row = "0: 0100007F:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 4242 1 x"
    (tmp_path / "net" / "tcp").write_text(f"header\n{row}\n")
    (tmp_path / "7" / "fd").mkdir(parents=True)
    (tmp_path / "7" / "fd" / "3").symlink_to("socket:[4242]")
    (tmp_path / "7" / "comm").write_text("evil\x1b[2J\n")
    assert holder_of(80, tmp_path) == "evil[2J (process 7)"
