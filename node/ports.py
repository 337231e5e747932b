"""Which process holds a TCP port, as far as Linux tells.

Room: reading /proc for the message about a taken port. On other systems, and for processes of other users,
nothing is known and nothing is raised.
"""

from collections.abc import Iterator
from pathlib import Path

_LISTEN = "0A"  # the state column of /proc/net/tcp, include/net/tcp_states.h


def holder_of(port: int, proc: Path = Path("/proc")) -> str | None:
    """`NAME (process PID)` of a process that listens on `port`, or None if it cannot be found out."""
    inodes = {inode for table in ("tcp", "tcp6") for inode in _listening(proc / "net" / table, port)}
    if not inodes:
        return None
    links = {f"socket:[{inode}]" for inode in inodes}
    for process in _entries(proc):
        if not process.name.isdigit():
            continue
        for descriptor in _entries(process / "fd"):
            try:
                if str(descriptor.readlink()) in links:
                    return f"{_name(process)} (process {process.name})"
            except OSError:
                continue
    return None


def _listening(table: Path, port: int) -> Iterator[str]:
    try:
        lines = table.read_text("ascii").splitlines()[1:]
    except (OSError, UnicodeDecodeError):
        return
    for line in lines:
        columns = line.split()
        if len(columns) > 9 and columns[3] == _LISTEN and int(columns[1].rpartition(":")[2], 16) == port:
            yield columns[9]


def _entries(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except OSError:
        return []


def _name(process: Path) -> str:
    try:
        name = (process / "comm").read_text("utf-8", errors="replace").strip()
    except OSError:
        return "another program"
    return "".join(letter for letter in name if letter.isprintable()) or "another program"
