"""A node's data directory as seen from outside: where it is, who holds it, how to reach its node.

Room: reads `run.json` and `owner.token` and probes `lock`, the three files a running node leaves for
commands; never opens the store. `run.json` counts only while `lock` is held: a killed node leaves the file
behind but cannot leave the lock.

    lock          flock, held by whoever works on the store (`storage.gate`)
    run.json      {"pid", "api", "started_at"} of the running node; "tls_cert" names its certificate, if any
    owner.token   the owner token
"""

import fcntl
import json
import os
from dataclasses import dataclass
from pathlib import Path

from cli.errors import CliError, NotRunning

LOCK = "lock"
RUN = "run.json"
TOKEN = "owner.token"
MARKS = (TOKEN, "node.key", "data.mdb")  # any of these makes a directory a node's


@dataclass(frozen=True, slots=True)
class Running:
    """The node that works on a data directory now."""

    pid: int
    api: str
    tls_cert: Path | None = None


def locate(data_dir: Path | None) -> Path:
    """The data directory a command is about, absolute; it need not exist."""
    if data_dir is None:
        data_dir = _configured()
    return Path(os.path.abspath(data_dir.expanduser()))


def _configured() -> Path:
    from cli.settings import load

    return Path(load().data_dir)


def running(data_dir: Path) -> Running | None:
    """The node running on `data_dir`, or None."""
    try:
        raw = (data_dir / RUN).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError:
        raise CliError(f"{data_dir} belongs to somebody else: run the command as its owner") from None
    if not is_locked(data_dir):
        return None
    try:
        document = json.loads(raw)
        cert = document.get("tls_cert")
        return Running(int(document["pid"]), str(document["api"]), Path(cert) if cert else None)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CliError(f"{data_dir / RUN} is damaged: stop the node and start it again") from None


def is_locked(data_dir: Path) -> bool:
    """Whether somebody works on the store of `data_dir` now."""
    try:
        handle = os.open(data_dir / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def require_running(data_dir: Path) -> Running:
    """The node running on `data_dir`; raises `NotRunning` with the command that starts it."""
    node = running(data_dir)
    if node is None:
        try:
            require_node_data(data_dir)
        except CliError as fault:
            raise NotRunning(fault.message) from None
        if is_locked(data_dir):
            raise NotRunning(
                f"a node is just starting in {data_dir}, or another command is at work: try again"
            )
        raise NotRunning(
            f"no node is running in {data_dir}: start it with civicnode start{as_flag(data_dir)}"
        )
    return node


def require_node_data(data_dir: Path) -> None:
    """Raises `CliError` if `data_dir` is not a node's data directory."""
    if not data_dir.exists():
        raise CliError(
            f"{data_dir} does not exist: name the node's directory with --data-dir, or run civicnode start"
        )
    if not data_dir.is_dir():
        raise CliError(f"{data_dir} is a file: name the node's directory with --data-dir")
    if not holds_node(data_dir):
        raise CliError(
            f"{data_dir} holds no civicnode data: name the node's directory with --data-dir, "
            "or run civicnode start"
        )


def holds_node(data_dir: Path) -> bool:
    """Whether a node has ever kept its data in `data_dir`."""
    return any((data_dir / mark).exists() for mark in MARKS)


def owner_token(data_dir: Path) -> str:
    """The owner token of the node in `data_dir`."""
    require_node_data(data_dir)
    path = data_dir / TOKEN
    try:
        token = path.read_text("ascii").strip()
    except PermissionError:
        raise CliError(f"{path} is readable by its owner alone: run the command as that user") from None
    except (FileNotFoundError, UnicodeDecodeError):
        token = ""
    if not token:
        raise CliError(f"{path} is missing or damaged: delete it and start the node again, to make a new one")
    return token


def refuse_running(data_dir: Path, purpose: str) -> None:
    """Raises `CliError` if a node runs on `data_dir`, whose store must be left alone for `purpose`."""
    node = running(data_dir)
    if node is not None:
        raise CliError(f"a node is running in {data_dir}: stop it (kill {node.pid}), then {purpose}")


def as_flag(data_dir: Path) -> str:
    """` --data-dir DIR` for a command shown to the user; nothing where it is the default."""
    import shlex

    try:
        default = locate(None)
    except CliError:
        default = None
    return "" if data_dir == default else f" --data-dir {shlex.quote(str(data_dir))}"
