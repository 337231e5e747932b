"""Packages for Node.js that tests need: installed once, by one worker while the others wait."""

import fcntl
import hashlib
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TIMEOUT_S = 300


@contextmanager
def turn(directory: Path) -> Iterator[None]:
    """Nobody else on this machine installs in the directory meanwhile."""
    place = hashlib.sha256(str(directory).encode()).hexdigest()[:16]
    with (Path(tempfile.gettempdir()) / f"civicnode-npm-{place}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until it is closed
        yield


def install(directory: Path) -> None:
    """What the lockfile of a directory names."""
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(
        command, cwd=directory, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
