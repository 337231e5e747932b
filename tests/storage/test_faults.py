"""What disks and systems do to a node: bits flip, space runs out, it is killed. Nothing acknowledged is lost.

`make soak` runs the same at length.
"""

import json
import os
import random
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.doctor import examine
from tests.storage.child import FILLER, outcome, start
from tests.storage.kit import BUILTINS, Site, filled_directory, stored

LONG = pytest.mark.soak


# -- flipped bits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("times", "seed"), [(150, 1), pytest.param(5_000, 2, marks=LONG)])
def test_a_flipped_bit_is_never_served(tmp_path: Path, times: int, seed: int) -> None:
    """Each document reads as it was or is refused, wherever in the file the bit is; the process lives."""
    directory = filled_directory(tmp_path / "node", tasks=40)
    results = outcome("flip", directory, times, seed)
    assert len(results) == times
    seen = Counter(word for result in results for word in result["found"])
    assert seen.keys() <= {"right", "refused", "older"}, seen
    assert seen["refused"] > times / 20  # that the flips were felt at all
    assert seen["right"] > times / 4


# -- a full disk -------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB, most of it taken by a file that can be deleted."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "civicnode-test", str(place)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("only root may mount")
    try:
        (place / FILLER).write_bytes(bytes(2_000_000))
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def check_filled(directory: Path, said: dict[str, object]) -> None:
    assert said["failures"] == ["StorageFull"] * 3
    assert said["readable"] and said["absent"] and said["indexed"]
    kept = said["kept"]
    assert isinstance(kept, list) and len(kept) > 50
    report = examine(directory, repair=False, builtins=BUILTINS)
    assert report.ok, report.problems
    assert {id.rpartition("/")[2] for id in stored(directory) if id.startswith("task_")} == set(kept)


def test_on_a_full_disk_reads_go_on_and_writes_resume_without_a_restart(small_disk: Path) -> None:
    (said,) = outcome("fill", small_disk / "node")
    check_filled(small_disk / "node", said)


def test_at_a_limit_of_the_process_it_is_the_same(tmp_path: Path) -> None:
    (said,) = outcome("fill", tmp_path / "node", 1_000_000)
    check_filled(tmp_path / "node", said)


def test_a_first_start_on_a_full_disk_is_refused_in_words_and_succeeds_later(small_disk: Path) -> None:
    with (small_disk / FILLER).open("ab", buffering=0) as file:
        try:
            while file.write(bytes(4_096)):
                pass
        except OSError:
            pass
    for left in (0, 4_096, 20_000, 90_000, 120_000, 160_000):
        os.truncate(small_disk / FILLER, (small_disk / FILLER).stat().st_size - left)
        (said,) = outcome("open", small_disk / "node")
        assert said.get("error") in (None, "StorageFull"), said
    (small_disk / FILLER).unlink()
    (said,) = outcome("open", small_disk / "node")
    assert "error" not in said, said


# -- kill -9 -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounds", [20, pytest.param(500, marks=LONG)])
def test_what_was_acknowledged_is_there_after_a_kill(tmp_path: Path, rounds: int) -> None:
    directory = tmp_path / "node"
    chance = random.Random(rounds)
    expected: dict[str, int] = {}
    gone: set[str] = set()
    for number in range(rounds):
        with (tmp_path / "errors").open("wb") as errors, start(errors, "write", directory) as child:
            lines: list[bytes] = []
            if number % 5:  # else while it starts
                lines.append(child.stdout.readline())
            _wait(chance.uniform(0, 0.1 if lines else 0.4))
            child.kill()
            lines += child.stdout.readlines()
        complaint = (tmp_path / "errors").read_text()
        assert not complaint, complaint
        for line in lines:
            if line.endswith(b"\n"):
                said = json.loads(line)
                expected |= said["set"]
                gone |= set(said["gone"])
        if lines and lines[-1].endswith(b"\n"):  # what the group that was on its way would have deleted
            for id in json.loads(lines[-1])["goes next"]:
                expected.pop(id)
        if number % 5 == 4 or number == rounds - 1:
            _compare(directory, expected, gone)
    assert len(expected) > rounds


def _wait(seconds: float) -> None:
    """Let the child work for a while."""
    import select

    select.select([], [], [], seconds)


def _compare(directory: Path, expected: dict[str, int], gone: set[str]) -> None:
    report = examine(directory, repair=False, builtins=BUILTINS)
    assert report.ok, report.problems
    found = {
        id.rpartition("/")[2]: values for id, values in stored(directory).items() if id.startswith("task_")
    }
    for id, points in expected.items():
        if id not in gone:
            assert found[id]["title"] == id
            assert found[id]["points"] in (points, -points)  # the group after may have been on its way
    assert not gone & found.keys()
    with Site(directory, now_ms=2_000_000_000_000) as site:
        assert site.new_life is None
        site.catch_up()
        model = site.catalog.find("default", "Task")
        assert model is not None and site.indexed(model) == found.keys()
