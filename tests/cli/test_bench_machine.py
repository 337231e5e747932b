from pathlib import Path

from cli.bench.machine import facts, file_system, flush_latency


def test_flushes_are_timed_and_leave_nothing_behind(tmp_path: Path) -> None:
    seen = flush_latency(tmp_path, count=5)
    assert 0 < seen.p50_ms <= seen.p99_ms
    assert list(tmp_path.iterdir()) == []


def test_the_file_system_is_that_of_the_nearest_mount(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    inner = tmp_path / "in ner"
    escaped = str(inner).replace(" ", "\\040")
    mounts.write_text(f"/dev/a / ext4 rw 0 0\nnone {escaped} tmpfs rw 0 0\nbroken\n")
    assert file_system(inner / "x", mounts) == "tmpfs"
    assert file_system(Path("/somewhere"), mounts) == "ext4"
    assert file_system(inner, tmp_path / "absent") is None


def test_facts_name_cores_python_and_libraries(tmp_path: Path) -> None:
    found = facts(tmp_path)
    assert isinstance(found["cores"], int)
    assert str(found["python"]).startswith("3.")
    packages = found["packages"]
    assert isinstance(packages, dict) and "aiohttp" in packages
