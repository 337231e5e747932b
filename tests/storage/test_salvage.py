"""A file that cannot be used: what can be proved of it is saved, and it is kept."""

import os
import random
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from protocol.commit import decode_header
from storage.gate import structural_faults
from storage.kv import Table
from storage.lmdb_kv import LmdbKeyValueStore
from tests.storage.child import opened
from tests.storage.damage import check, compact, rewrite
from tests.storage.kit import (
    TASK,
    Site,
    copied,
    record_file,
    stored,
)


@pytest.fixture
def directory(template: Path, tmp_path: Path) -> Path:
    """A copy of `template` to be damaged."""
    return copied(template, tmp_path / "node")


def test_a_zeroed_meta_page_costs_nothing(directory: Path) -> None:
    before = stored(directory)
    damaged = record_file(directory).read_bytes()
    damaged = bytes(4_096) + damaged[4_096:]
    record_file(directory).write_bytes(damaged)
    report = check(directory)
    assert not report.ok and "structure" in report.problems[0]
    assert record_file(directory).read_bytes() == damaged
    report = check(directory, repair=True)
    assert report.ok, report.problems
    kept = directory / "data.mdb.damaged-1"
    assert kept.read_bytes() == damaged
    assert any(str(kept) in line for line in report.repaired)
    assert stored(directory) == before
    assert check(directory).ok
    with Site(directory) as site:
        site.catch_up()
        model = site.catalog.find("default", "Task")
        assert model is not None
        site.create(model, "after", title="x")
    assert check(directory).ok


def test_both_meta_pages_zeroed_cost_nothing_either(directory: Path) -> None:
    before = stored(directory)
    data = record_file(directory).read_bytes()
    record_file(directory).write_bytes(bytes(8_192) + data[8_192:])
    assert check(directory, repair=True).ok
    assert stored(directory) == before


@pytest.mark.parametrize("share", [0.9, 0.7, 0.5])
def test_of_a_truncated_file_the_proved_prefixes_are_saved(large: Path, tmp_path: Path, share: float) -> None:
    directory = copied(large, tmp_path / "node")
    before = stored(directory)
    os.truncate(record_file(directory), int(record_file(directory).stat().st_size * share))
    report = check(directory, repair=True)
    if not (directory / "data.mdb.damaged-1").exists():
        assert "nothing of it can be saved" in report.problems[0]
        return
    after = stored(directory)
    assert all(
        before[id] == values for id, values in after.items()
    )  # every commit made one document of its own
    if len(after) < len(before):
        assert any("lost from" in problem for problem in report.problems), report.problems
    assert check(directory).ok
    with Site(directory) as site:
        site.catch_up()
        site.define({**TASK, "name": "After"})
    assert check(directory).ok


def test_a_page_that_was_overwritten_costs_what_stood_on_it(large: Path, tmp_path: Path) -> None:
    before = stored(large)
    pages = record_file(large).stat().st_size // 4_096
    chance = random.Random(3)
    for attempt in range(4):
        directory = copied(large, tmp_path / f"copy-{attempt}")
        with record_file(directory).open("r+b") as file:
            file.seek(chance.randrange(2, pages) * 4_096)
            file.write(chance.randbytes(4_096))
        report = check(directory, repair=True)
        if not report.ok:
            assert all("civicnode" in problem or "not whole" in problem for problem in report.problems)
        if "error" not in opened(directory):
            assert all(before[id] == values for id, values in stored(directory).items())


def test_of_noise_nothing_is_saved_and_it_is_kept(directory: Path) -> None:
    noise = random.Random(1).randbytes(100_000)
    record_file(directory).write_bytes(noise)
    report = check(directory, repair=True)
    assert len(report.problems) == 1
    assert "nothing of it can be saved" in report.problems[0] and "civicnode restore" in report.problems[0]
    assert record_file(directory).read_bytes() == noise


def test_without_the_key_nothing_is_replaced(directory: Path) -> None:
    data = record_file(directory).read_bytes()[: 8 * 4_096]
    record_file(directory).write_bytes(data)
    (directory / "node.key").unlink()
    assert not check(directory, repair=True).ok
    assert record_file(directory).read_bytes() == data


def branch_keys(data: bytes) -> list[int]:
    """Where the last byte of each key stands that leads to others."""
    found = []
    for start in range(2 * 4_096, len(data), 4_096):
        if int.from_bytes(data[start + 10 : start + 12], "little") == 0x01:
            lower = int.from_bytes(data[start + 12 : start + 14], "little")
            for position in range(start + 16 + 2, start + lower, 2):  # the first key of a page is empty
                node = start + int.from_bytes(data[position : position + 2], "little")
                found.append(node + 8 + int.from_bytes(data[node + 6 : node + 8], "little") - 1)
    return found


def goes_astray(directory: Path) -> bool:
    with closing(LmdbKeyValueStore(str(directory), read_only=True)) as keys, keys.read() as transaction:
        return not all(is_found for table in Table for _, _, is_found in transaction.audit(table))


def test_a_search_that_goes_astray_is_led_back(large: Path, tmp_path: Path) -> None:
    """A bit in a key that leads to others, in an order that still is one: no verifier of pages sees that."""
    directory = copied(large, tmp_path / "node")
    before, data = stored(directory), bytearray(record_file(directory).read_bytes())
    for place in branch_keys(bytes(data)):
        data[place] ^= 1
        record_file(directory).write_bytes(data)
        if not structural_faults(directory) and goes_astray(directory):
            break
        data[place] ^= 1
    assert goes_astray(directory)
    found = opened(directory)
    assert found.get("error") == "StoreDamaged" or found["documents"]
    report = check(directory)
    assert any("go astray" in problem for problem in report.problems), report
    report = check(directory, repair=True)
    assert report.ok, report.problems
    assert stored(directory) == before


def test_what_does_not_continue_its_chain_is_not_saved(directory: Path) -> None:
    with closing(LmdbKeyValueStore(str(directory))) as keys, keys.read() as transaction:
        key, data = list(transaction.scan(Table.HEADERS, b"", None))[6]
    forged = replace(decode_header(data), previous=b"x" * 32)
    rewrite(directory, Table.HEADERS, key, forged.encode())
    compact(directory)  # else the true one is found on a page that is free by now
    assert any("does not continue its chain" in problem for problem in check(directory).problems)
    damaged = record_file(directory).read_bytes()
    record_file(directory).write_bytes(bytes(4_096) + damaged[4_096:])
    report = check(directory, repair=True)
    assert any("lost from" in problem for problem in report.problems), report
    assert check(directory).ok
    saved = {id for id in stored(directory) if id.startswith("task_")}
    seq = int.from_bytes(key[4:], "big")
    assert len(saved) == seq - 2  # the first commit of the space defines the model
