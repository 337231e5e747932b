"""The owner token: every right on this node, for the device's own apps and scripts.

Room: the file it lies in. Who holds it acts as `owner@<node name>`; what that means is decided
where callers are made (`node.api.authenticator`). The file is readable by its owner alone, and
appears under its name only once it is whole.
"""

import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

FILE_NAME = "owner.token"
SIZE_BYTES = 32
_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)


class OwnerTokenDamaged(Exception):
    """The file exists and holds no token, or is not a file of ours."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} holds no owner token; delete it and a new one is made at the next start")
        self.path = path


def read_owner_token(data_dir: Path) -> str | None:
    """The owner token, or None if there is none yet. Raises OwnerTokenDamaged. Blocks.

    A file that others may read is closed to them again.
    """
    path = data_dir / FILE_NAME
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        if path.is_symlink():
            raise OwnerTokenDamaged(path) from error
        raise
    with os.fdopen(handle, "rb") as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise OwnerTokenDamaged(path)
        if stat.S_IMODE(about.st_mode) & 0o077:
            os.fchmod(file.fileno(), 0o600)
        text = file.read(256).decode("ascii", "replace").strip()
    if not _TOKEN.fullmatch(text):
        raise OwnerTokenDamaged(path)
    return text


def ensure_owner_token(data_dir: Path, random_text: Callable[[int], str]) -> str:
    """The owner token, made now if there is none. Raises OwnerTokenDamaged, OSError. Blocks; durable.

    `random_text(n)` gives n random bytes as base64url text.
    """
    token = read_owner_token(data_dir)
    if token is not None:
        return token
    token = random_text(SIZE_BYTES)
    path, draft = data_dir / FILE_NAME, data_dir / f".{FILE_NAME}.new"
    draft.unlink(missing_ok=True)  # left by a start that was cut short
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as file:
        os.fchmod(file.fileno(), 0o600)  # whatever the umask
        file.write(token.encode("ascii") + b"\n")
        file.flush()
        os.fsync(file.fileno())
    os.rename(draft, path)
    folder = os.open(data_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return token
