"""What tests run in a process of its own, because it may be killed by what it does, or is killed on purpose.

    open            opens the record and reads all
    write           writes for ever; prints what is acknowledged
    fill [BYTES]    writes until nothing fits, and on when there is room
    flip N SEED     opens it N times, each time with another bit flipped

Each prints lines of JSON.
"""

import importlib
import json
import os
import random
import resource
import shutil
import sys
import time
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from protocol.changes import DocumentChange
from storage import gate
from storage.errors import StorageError, StorageFull
from storage.opening import open_record
from tests.forked import Forked
from tests.storage.kit import TASK, Site, copied, create, delete, record_file, update

FILLER = "filler"


def start(errors: IO[bytes], task: str, directory: Path, *arguments: object) -> Forked:
    return Forked(run, [task, str(directory), *map(str, arguments)], errors=errors)


def outcome(task: str, directory: Path, *arguments: object) -> list[Any]:
    """What the child has to say. Raises AssertionError if it was killed by what it did."""
    with TemporaryFile() as errors:
        with start(errors, task, directory, *arguments) as child:
            said = child.stdout.read()
        errors.seek(0)
        assert child.poll() == 0, f"exit status {child.poll()}: {said[-500:]!r} {errors.read().decode()}"
    return [json.loads(line) for line in said.splitlines()]


def opened(directory: Path) -> dict[str, Any]:
    """What opening the record in a child came to."""
    found: dict[str, Any] = outcome("open", directory)[0]
    return found


def _say(what: object) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


# -- opening -----------------------------------------------------------------------------------------------


def _open(directory: Path, now_ms: int) -> dict[str, Any]:
    """All that a node would read; an error if that is what it comes to."""
    try:
        record = open_record(directory, now_ms=now_ms, random_bytes=os.urandom)
    except StorageError as error:
        return {"error": type(error).__name__, "message": str(error)}
    try:
        with record.store.read() as snapshot:
            documents = {
                f"{document.model}/{document.id}": document.values() if document.exists else None
                for _, document in snapshot.documents.everything()
            }
            for arrival in snapshot.log.arrivals():
                commit = snapshot.log.commit(arrival.chain, arrival.seq)
                assert commit is not None and None not in commit.bodies
        assert record.store.identity is not None
        author = record.store.identity.author.hex()
        return {"new_life": record.new_life, "author": author, "documents": documents}
    except StorageError as error:
        return {"error": type(error).__name__, "message": str(error), "new_life": record.new_life}
    finally:
        record.close()


# -- flipped bits ------------------------------------------------------------------------------------------


def _flip(directory: Path, times: int, seed: int) -> None:
    """What each document reads as with one bit flipped: `right`, `refused`, or something that must not be.

    The pages are verified in this process, by the same code: starting another each time would take long.
    """
    verifier: Any = importlib.import_module("lmdb.verify")

    def structural_faults(directory: Path) -> list[str]:
        try:
            return [str(fault) for fault in verifier.verify(str(directory), subdir=True)]
        except verifier.VerifyError as error:
            return [str(error)]

    gate.structural_faults = structural_faults
    site = Site(directory)
    now_ms = site.now_ms
    expected = {
        (space, model, id): document.values() if document.exists else None
        for (space, model, id), document in site.documents().items()
    }
    site.close()
    place = copied(directory, directory.with_name("flipped"))
    pristine = {path.name: path.read_bytes() for path in place.iterdir()}
    chance = random.Random(seed)
    size_bits = 8 * len(pristine["data.mdb"])
    for _ in range(times):
        bit = chance.randrange(size_bits)
        for name, data in pristine.items():
            (place / name).write_bytes(data)
        anchor = gate.AnchorFile(place)
        anchor.value.is_clean = False
        anchor.write()
        anchor.close()
        with record_file(place).open("r+b") as file:
            file.seek(bit // 8)
            file.write(bytes([pristine["data.mdb"][bit // 8] ^ 1 << bit % 8]))
        _say({"bit": bit, "found": _look(place, now_ms, expected)})
    shutil.rmtree(place)


def _look(place: Path, now_ms: int, expected: dict[Any, Any]) -> list[str]:
    try:
        record = open_record(place, now_ms=now_ms, random_bytes=os.urandom)
    except StorageError:
        return ["refused"]
    found: set[str] = set()
    try:
        is_older = (
            record.new_life is not None and "older" in record.new_life
        )  # said so, and goes on as another
        for (space, model, id), values in expected.items():
            try:
                with record.store.read() as snapshot:
                    document = snapshot.documents.get(space, model, id)
            except StorageError:
                found.add("refused")
                continue
            read = document.values() if document is not None and document.exists else None
            found.add("right" if read == values else "older" if is_older else f"wrong: {model}/{id}")
        try:
            with record.store.read() as snapshot:
                for space, document in snapshot.documents.everything():
                    if (space, document.model, document.id) not in expected:
                        found.add(f"invented: {document.model}/{document.id}")
                for arrival in snapshot.log.arrivals():
                    snapshot.log.commit(arrival.chain, arrival.seq)
        except StorageError:
            found.add("refused")
    finally:
        record.close()
    return sorted(found)


# -- writing -----------------------------------------------------------------------------------------------


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
        goes_next = [ids[0]] if number % 4 == 3 else []
        _say({"set": acknowledged, "gone": [gone] if number % 4 == 0 else [], "goes next": goes_next})


def _fill(directory: Path, limit_bytes: int | None) -> None:
    """Write until the disk is full, look around, make room, and write again, all in one process.

    The disk is full because a file named `filler` takes its place, or else no file may exceed `limit_bytes`.
    """
    site = Site(directory, now_ms=_now_ms(), seed=3)
    model = site.define(TASK)
    kept: list[str] = []
    failures: list[str] = []
    if limit_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, resource.RLIM_INFINITY))
    while len(failures) < 3:
        id = f"t{len(kept) + len(failures)}"
        try:
            site.create(model, id, title=id, extra={"text": os.urandom(2_000).hex()})
            kept.append(id)
        except StorageError as error:
            failures.append(type(error).__name__)
            assert isinstance(error, StorageFull), error
        assert len(kept) < 5_000, "it is never full"
    readable = all(site.values(model, id) is not None for id in kept)
    absent = all(site.values(model, f"t{len(kept) + n}") is None for n in range(3))
    if limit_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    else:
        (directory.parent / FILLER).unlink()
    for number in range(20):
        site.create(model, f"after-{number}", title="x")
        kept.append(f"after-{number}")
    site.catch_up()
    indexed = site.indexed(model) == set(kept)
    site.close()
    _say({"kept": kept, "failures": failures, "readable": readable, "absent": absent, "indexed": indexed})


def run(arguments: list[str]) -> None:
    match arguments:
        case ["open", directory]:
            _say(_open(Path(directory), _now_ms()))
        case ["write", directory]:
            _write(Path(directory))
        case ["fill", directory, *limit]:
            _fill(Path(directory), int(limit[0]) if limit else None)
        case ["flip", directory, times, seed]:
            _flip(Path(directory), int(times), int(seed))
