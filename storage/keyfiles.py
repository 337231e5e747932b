"""Secrets in the data directory: each a file that its owner alone can read.

Room: making and reading such files. What the secrets are for is their owners'.
"""

import os
from pathlib import Path

from protocol.errors import LocalMisuse
from protocol.keys import SEED_BYTES, KeyPair
from storage.errors import StorageError, os_failure

NODE_KEY_FILE = "node.key"
NETWORK_KEY_FILE = "network.key"
NEXT_KEY_FILE = "next.key"  # of a node that goes on under another key from its next start on


def write_secret(path: Path, text: str) -> None:
    """Write a new secret durably: whole, or not at all. Raises FileExistsError rather than replace one."""
    if path.exists():
        raise FileExistsError(f"{path} exists")
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)  # left by a kill
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(text.encode() + b"\n")
            file.flush()
            os.fsync(descriptor)
        os.rename(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    flush_directory(path.parent)


def flush_directory(directory: Path) -> None:
    """Make names that were added to or taken from a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_secret(path: Path) -> str | None:
    """The secret, or None if there is none. Raises `StorageError` if others could read it, or nobody can."""
    try:
        mode = path.stat().st_mode
        if mode & 0o077:
            raise StorageError(f"{path} can be read by others: run `chmod 600 {path}`")
        return path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise os_failure(error, path) from error
    except UnicodeDecodeError as error:
        raise _not_a_key(path) from error


def load_key(path: Path) -> KeyPair | None:
    """The key pair in a file, or None if there is no file. Raises `StorageError` if it holds something else."""
    held = read_secret(path)
    if held is None:
        return None
    try:
        seed = bytes.fromhex(held)
    except ValueError as error:
        raise _not_a_key(path) from error
    if len(seed) != SEED_BYTES:
        raise _not_a_key(path)
    return KeyPair.from_seed(seed)


def load_or_make_key(path: Path, seed: bytes) -> KeyPair:
    """The key pair in a file; made from `seed`, drawn by the caller, if there is no file yet."""
    if len(seed) != SEED_BYTES:
        raise LocalMisuse(f"a seed has {SEED_BYTES} bytes")
    held = load_key(path)
    if held is not None:
        return held
    write_secret(path, seed.hex())
    return KeyPair.from_seed(seed)


def _not_a_key(path: Path) -> StorageError:
    return StorageError(f"{path} does not hold a key: put it back from a backup")
