import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cli.bench.errors import ChildFailed, LoadFailed
from cli.bench.load import Plan, write_requests
from cli.bench.process import START_MAX_S, Load, Workspace
from tests.system.neighbours import until

WAITS = "import sys; print('up', flush=True); sys.stdin.read()"
STUBBORN = (
    "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); "
    "time.sleep(600)"
)
KILLED_OUTRIGHT = f"""
import json, os, sys
from cli.bench.process import START_MAX_S, Workspace
with Workspace() as workspace:
    child = workspace.start([sys.executable, "-c", {STUBBORN!r}])
    child.line(START_MAX_S)
    print(json.dumps([child.pid, str(workspace.root)]), flush=True)
    sys.stdin.read()
"""


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_nothing_of_a_workspace_outlives_it() -> None:
    with Workspace() as workspace:
        children = [workspace.start([sys.executable, "-c", code]) for code in (WAITS, STUBBORN)]
        for child in children:
            assert child.line(START_MAX_S) == "up"
        (workspace.directory("data") / "file").write_text("x")
        root = workspace.root
    assert not any(child.is_running for child in children)
    assert not root.exists()


def test_nothing_of_a_workspace_outlives_an_error_inside_it() -> None:
    with pytest.raises(KeyError), Workspace() as workspace:
        child = workspace.start([sys.executable, "-c", WAITS])
        root = workspace.root
        raise KeyError
    assert not child.is_running
    assert not root.exists()


def test_nothing_of_a_workspace_outlives_being_killed_outright() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", KILLED_OUTRIGHT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as victim:
        assert victim.stdout is not None
        pid, root = json.loads(victim.stdout.readline())
        assert not is_gone(pid)
        victim.send_signal(signal.SIGKILL)
        victim.wait(60)
    until(lambda: is_gone(pid) and not Path(root).exists(), "the end of what it left")


def test_children_see_none_of_the_users_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIVICNODE_API", "0.0.0.0:1")
    monkeypatch.setenv("JWT_SECRET", "x")
    with Workspace() as workspace:
        seen = workspace.environment({"CIVICNODE_BENCH_FLUSH_DELAY_MS": "5"})
        assert seen["HOME"] == str(workspace.root)
    assert "CIVICNODE_API" not in seen and "JWT_SECRET" not in seen
    assert seen["CIVICNODE_BENCH_FLUSH_DELAY_MS"] == "5"


def test_a_child_that_ends_says_with_what_and_why() -> None:
    code = "import sys; sys.stderr.write('Error: port taken\\nby another\\n'); sys.exit(3)"
    with Workspace() as workspace:
        child = workspace.start([sys.executable, "-c", code])
        with pytest.raises(ChildFailed, match=r"ended with 3: Error: port taken \| by another"):
            child.line(START_MAX_S)


def test_a_child_that_says_nothing_is_not_waited_for_longer_than_asked() -> None:
    with Workspace() as workspace:
        child = workspace.start([sys.executable, "-c", "import time; time.sleep(60)"])
        with pytest.raises(ChildFailed, match="said nothing"):
            child.line(0.05)
        with pytest.raises(ChildFailed, match="did not end"):
            child.wait(0.05)


def test_lines_before_the_one_that_counts_are_passed_over() -> None:
    code = "print('one'); print('two http://127.0.0.1:80/'); import sys; sys.stdout.flush(); sys.stdin.read()"
    with Workspace() as workspace:
        child = workspace.start([sys.executable, "-c", code])
        assert child.line_with("http://", START_MAX_S) == "two http://127.0.0.1:80/"


def test_a_load_that_cannot_connect_says_so_before_it_is_started() -> None:
    with Workspace() as workspace:
        path = workspace.file("requests")
        write_requests(path, [b"GET / HTTP/1.1\r\n\r\n"])
        with pytest.raises(LoadFailed, match="cannot connect"):
            Load(workspace, Plan(1, str(path)))
