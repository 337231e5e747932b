"""Secrets in the data directory: each a file that its owner alone can read.

Room: making and reading such files. What the secrets are for is their owners'.
"""

import os
from pathlib import Path

from protocol.errors import LocalMisuse
from protocol.keys import SEED_BYTES, KeyPair
from storage.errors import StorageError

NODE_KEY_FILE = "node.key"
NETWORK_KEY_FILE = "network.key"


def write_secret(path: Path, text: str) -> None:
    """Write a new secret durably. Raises FileExistsError rather than replace one."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, text.encode() + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    flush_directory(path.parent)


def flush_directory(directory: Path) -> None:
    """Make names that were added to or taken from a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_secret(path: Path) -> str | None:
    """The secret, or None if there is none. Raises `StorageError` if others could read it."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return None
    if mode & 0o077:
        raise StorageError(f"{path} can be read by others: run `chmod 600 {path}`")
    return path.read_text(encoding="ascii").strip()


def load_or_make_key(path: Path, seed: bytes) -> KeyPair:
    """The key pair in a file; made from `seed`, drawn by the caller, if there is no file yet."""
    if len(seed) != SEED_BYTES:
        raise LocalMisuse(f"a seed has {SEED_BYTES} bytes")
    held = read_secret(path)
    if held is None:
        write_secret(path, seed.hex())
        return KeyPair.from_seed(seed)
    try:
        found = bytes.fromhex(held)
    except ValueError as error:
        raise StorageError(f"{path} does not hold a key: restore it from a backup") from error
    if len(found) != SEED_BYTES:
        raise StorageError(f"{path} does not hold a key: restore it from a backup")
    return KeyPair.from_seed(found)
