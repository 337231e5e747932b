"""Records found page by page, in files that nobody should open."""

import random
import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from storage.kv import Table
from storage.lmdb_kv import LmdbKeyValueStore
from storage.pages import records_on_pages
from tests.directories import temporary_directory
from tests.storage.kit import record_file, tables

LOG = frozenset({Table.HEADERS, Table.BODIES, Table.ARRIVALS})


def log_of(directory: Path) -> set[tuple[Table, bytes, bytes]]:
    store = LmdbKeyValueStore(str(directory), read_only=True)
    held = tables(store)
    store.close()
    return {(table, key, value) for table in LOG for key, value in held[table].items()}


def test_every_record_is_found_and_none_besides(large: Path) -> None:
    assert set(records_on_pages(record_file(large), LOG)) == log_of(large)


def test_values_of_any_size_are_found(tmp_path: Path) -> None:
    store = LmdbKeyValueStore(str(tmp_path))
    values = {bytes([n]) * 12: random.Random(n).randbytes(n * n * 37) for n in range(1, 60)}
    with store.write() as batch:
        for key, value in values.items():
            batch.put(Table.BODIES, key, value)
    store.close()
    found = {key: value for _, key, value in records_on_pages(record_file(tmp_path), LOG)}
    assert found == values


def test_a_record_of_another_table_is_not_taken_for_one(large: Path) -> None:
    found = records_on_pages(record_file(large), frozenset({Table.LOCAL, Table.VERDICTS}))
    assert list(found) == []


@given(data=st.binary(max_size=20_000))
def test_noise_holds_nothing(data: bytes) -> None:
    with temporary_directory() as directory:
        path = Path(directory) / "noise"
        path.write_bytes(data)
        assert list(records_on_pages(path, LOG)) == []


def test_whatever_is_overwritten_what_is_found_was_there(tmp_path: Path) -> None:
    directory = tmp_path / "node"
    # In a process of its own: unused space of pages is written with whatever this process had in that memory.
    made = "import pathlib, sys, tests.storage.kit as kit; kit.filled_directory(pathlib.Path(sys.argv[1]), tasks=30)"
    subprocess.run([sys.executable, "-c", made, str(directory)], check=True)
    expected, data = log_of(directory), record_file(directory).read_bytes()
    chance = random.Random(4)
    for _ in range(200):
        torn = bytearray(data)
        for _ in range(chance.randrange(1, 20)):
            start = chance.randrange(len(torn))
            torn[start : start + chance.choice((1, 2, 8, 500))] = chance.randbytes(
                chance.choice((1, 2, 8, 500))
            )
        (tmp_path / "torn").write_bytes(torn)
        assert set(records_on_pages(tmp_path / "torn", LOG)) <= expected
