"""The machine a figure was measured on, as far as it explains the figure.

Room: reads what the system tells of itself and times a few flushes. Everything is
optional: what a system does not tell is left out.
"""

import os
import platform
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from statistics import median

FLUSH_BYTES = 4096
FLUSH_FILE_BYTES = 64 * FLUSH_BYTES
_PACKAGES = ("aiohttp", "lmdb", "msgspec", "cbor2", "PyNaCl")


@dataclass(frozen=True, slots=True)
class FlushLatency:
    """What one 4 KiB write and its flush took."""

    p50_ms: float
    p99_ms: float


def flush_latency(directory: Path, *, count: int = 200) -> FlushLatency:
    """Write and flush `count` times into a file of `directory`, which is removed."""
    flush = getattr(os, "fdatasync", os.fsync)
    path = directory / "flush-probe"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    taken_ms: list[float] = []
    try:
        os.pwrite(descriptor, bytes(FLUSH_FILE_BYTES), 0)
        flush(descriptor)
        block = bytes(range(256)) * (FLUSH_BYTES // 256)
        for number in range(count):
            before = time.perf_counter()
            os.pwrite(descriptor, block, number * FLUSH_BYTES % FLUSH_FILE_BYTES)
            flush(descriptor)
            taken_ms.append((time.perf_counter() - before) * 1000)
    finally:
        os.close(descriptor)
        path.unlink()
    taken_ms.sort()
    return FlushLatency(median(taken_ms), taken_ms[min(len(taken_ms) - 1, len(taken_ms) * 99 // 100)])


def facts(directory: Path) -> dict[str, object]:
    """Cores, processor, kernel, Python, libraries, file system of `directory`, load of others."""
    found: dict[str, object] = {
        "cores": os.cpu_count(),
        "processor": _processor(),
        "memory_mib": _memory_mib(),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "file_system": file_system(directory),
        "load_average": round(os.getloadavg()[0], 2),
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
    }
    return {name: value for name, value in found.items() if value is not None}


def file_system(directory: Path, mounts: Path = Path("/proc/mounts")) -> str | None:
    """The type of the file system `directory` lies on; on `tmpfs` a flush costs nothing."""
    try:
        lines = mounts.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    target = directory.resolve()
    best: tuple[int, str] | None = None
    for line in lines:
        parts = line.split(" ")
        if len(parts) < 3:
            continue
        mount = Path(parts[1].replace("\\040", " "))
        if target.is_relative_to(mount) and (best is None or len(mount.parts) >= best[0]):
            best = (len(mount.parts), parts[2])
    return best[1] if best else None


def _processor() -> str | None:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or None


def _memory_mib() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    except (ValueError, OSError):
        return None


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
