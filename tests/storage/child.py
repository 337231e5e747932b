"""What tests run in a process of its own: opening a record that may kill it, and writing until it is killed.

python -m tests.storage.child open DIRECTORY     opens and reads all; prints one line of JSON
python -m tests.storage.child write DIRECTORY    writes for ever; prints each id once it is acknowledged
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from protocol.changes import DocumentChange
from storage.errors import StorageError
from storage.opening import open_record
from tests.storage.kit import TASK, Site, create, delete, update

ROOT = Path(__file__).parents[2]


def command(task: str, directory: Path) -> list[str]:
    return [sys.executable, "-m", "tests.storage.child", task, str(directory)]


def start(task: str, directory: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command(task, directory), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def opened(directory: Path) -> dict[str, Any]:
    """What opening the record in a child came to. Raises AssertionError if the child was killed by it."""
    child = subprocess.run(command("open", directory), cwd=ROOT, capture_output=True, text=True, check=False)
    assert child.returncode == 0, f"exit status {child.returncode}: {child.stderr}"
    found: dict[str, Any] = json.loads(child.stdout)
    return found


def _open(directory: Path) -> dict[str, Any]:
    try:
        record = open_record(directory, now_ms=_now_ms(), random_bytes=os.urandom)
    except StorageError as error:
        return {"error": type(error).__name__, "message": str(error)}
    try:
        with record.store.read() as snapshot:
            values = {
                f"{document.model}/{document.id}": document.values() if document.exists else None
                for _, document in snapshot.documents.everything()
            }
        assert record.store.identity is not None
        author = record.store.identity.author.hex()
        return {"new_life": record.new_life, "author": author, "documents": values}
    except StorageError as error:
        return {"error": type(error).__name__, "message": str(error), "late": True}
    finally:
        record.close()


def _write(directory: Path) -> None:
    """Groups of creates, updates and deletes of various sizes; a line for each, once it is durable."""
    site = Site(directory, now_ms=_now_ms(), seed=int.from_bytes(os.urandom(4), "big"))
    model = site.catalog.find("default", "Task") or site.define(TASK)
    site.catch_up()
    life = os.urandom(4).hex()
    number = 0
    while True:
        number += 1
        ids = [f"{life}-{number}-{i}" for i in range(1 + number % 7)]
        edits = [
            create(model, id, title=id, points=number, extra={"text": "x" * (number % 50)}) for id in ids
        ]
        changes = [DocumentChange("default", "ann", [edit]) for edit in edits]
        if number % 3 == 0:
            changes.append(DocumentChange("default", "ann", [update(model, ids[0], points=-number)]))
        gone = f"{life}-{number - 1}-0"
        if number % 4 == 0:
            changes.append(DocumentChange("default", "ann", [delete(model, gone)]))
        written = site.integrator.write(changes, _now_ms())
        assert not any(isinstance(result, Exception) for result in written.results), written.results
        acknowledged = dict.fromkeys(ids, number)
        if number % 3 == 0:
            acknowledged[ids[0]] = -number
        _say({"set": acknowledged, "gone": [gone] if number % 4 == 0 else []})


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _say(what: object) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["open", directory]:
            _say(_open(Path(directory)))
        case ["write", directory]:
            _write(Path(directory))
