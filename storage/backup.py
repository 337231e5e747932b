"""One file that holds all a node needs to go on: its record and its keys.

Room: the layout of that file, how it is written and how a data directory is made
of it. A backup is a plain tar of the key files, a compact copy of the record and
`manifest.json`, which comes last because it has the size and SHA-256 of each.

Nothing is replaced before everything is known to be whole: a backup is written
under another name and renamed, a restored record is verified beside the one it
replaces, and that one is moved aside, never deleted. A restored directory has no
anchor, so the node goes on as a new author and never signs twice for one place.
"""

import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

from protocol.ids import node_of
from storage.errors import StorageError, StoreDamaged, os_failure
from storage.gate import (
    ANCHOR_FILE,
    FOUNDING,
    LOCK_FILE,
    AnchorFile,
    DirectoryLock,
    check_record,
    prepare_directory,
    read_anchor,
    verify_record,
)
from storage.keyfiles import NODE_KEY_FILE, flush_directory, load_key
from storage.lmdb_kv import DATA_FILE, LmdbKeyValueStore
from storage.opening import OpenRecord
from storage.store import Store

MANIFEST_FILE = "manifest.json"
KIND = "civicnode backup"
FORMAT = 1
SECRET_SUFFIXES = frozenset({".key", ".token"})
_BLOCK_BYTES = tarfile.BLOCKSIZE
_CHUNK_BYTES = 1 << 20
_MANIFEST_MAX_BYTES = 1 << 20
_STAGE_PREFIX = "restoring-"
_ASIDE_PREFIX = "replaced-"

Progress = Callable[[int, int], None]  # bytes done, and how many there are


def backup(data_dir: Path, file: Path, progress: Progress | None = None) -> int:
    """Back up a node that is not running. Returns the size of the file.

    Raises `StoreLocked`, `StoreDamaged`, `StorageFull` or another `StorageError`; then there is no file.
    """
    with _translated(data_dir):
        if not (data_dir / DATA_FILE).exists():
            raise StorageError(f"{data_dir} holds no node: name its directory with --data-dir")
        with DirectoryLock(data_dir):
            check_record(data_dir, read_anchor(data_dir))
            with closing(LmdbKeyValueStore(str(data_dir), read_only=True)) as keys:
                return _write(Store(keys), keys, data_dir, file, progress)


def backup_store(record: OpenRecord, file: Path, progress: Progress | None = None) -> int:
    """Back up an open record, while it is read and written. Returns the size of the file.

    Blocks; from any thread. Raises as `backup` does.
    """
    keys = record.store.keys
    assert isinstance(keys, LmdbKeyValueStore)
    with _translated(file):
        return _write(record.store, keys, record.directory, file, progress)


def restore(
    file: Path, data_dir: Path, progress: Progress | None = None, *, force: bool = False
) -> Path | None:
    """Make a data directory of a backup. A directory that holds a node is refused, unless `force`.

    Returns where the node that was there has been moved, if there was one. Raises `StoreDamaged` if the
    backup is not whole, `NewerFormat`, `StoreLocked`, `StorageFull` or another `StorageError`; the directory
    is then as it was.
    """
    is_new = not data_dir.exists()
    try:
        with _translated(data_dir):
            prepare_directory(data_dir)
            with DirectoryLock(data_dir):
                return _restore(file, data_dir, progress, force)
    except StorageError:
        if is_new:
            shutil.rmtree(data_dir, ignore_errors=True)  # nothing but what we have made
        raise


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise os_failure(error, error.filename or path) from error


# -- writing -----------------------------------------------------------------------------------------------


def _write(
    store: Store, keys: LmdbKeyValueStore, directory: Path, file: Path, progress: Progress | None
) -> int:
    if store.identity is None:
        raise StorageError(f"{directory} holds no node: name its directory with --data-dir")
    if file.exists():
        raise StorageError(f"{file} exists already: delete it or choose another name")
    descriptor, temporary = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)  # for its owner alone
    try:
        with open(descriptor, "w+b") as out:
            parts = [_add_file(out, path) for path in _secrets(directory)]
            parts.append(_add_record(out, keys, progress))
            manifest = {
                "kind": KIND, "format": FORMAT, "node_id": node_of(store.identity.author).hex(),
                "network_id": store.identity.network_id.hex(), "parts": parts,
            }  # fmt: skip
            _add_bytes(out, MANIFEST_FILE, json.dumps(manifest, indent=2).encode())
            out.write(bytes(2 * _BLOCK_BYTES))
            out.flush()
            os.fsync(descriptor)
            size_bytes = out.tell()
        os.link(temporary, file)  # unlike a rename, replaces nothing that has come up meanwhile
        flush_directory(file.parent)
        return size_bytes
    finally:
        os.unlink(temporary)


def _secrets(directory: Path) -> list[Path]:
    return [path for path in sorted(directory.iterdir()) if path.suffix in SECRET_SUFFIXES and path.is_file()]


def _add_file(out: IO[bytes], path: Path) -> dict[str, Any]:
    return _add_bytes(out, path.name, path.read_bytes())


def _add_bytes(out: IO[bytes], name: str, data: bytes) -> dict[str, Any]:
    out.write(_tar_header(name, len(data)) + data + bytes(-len(data) % _BLOCK_BYTES))
    return {"name": name, "size_bytes": len(data), "sha256": sha256(data).hexdigest()}


def _add_record(out: IO[bytes], keys: LmdbKeyValueStore, progress: Progress | None) -> dict[str, Any]:
    """The record goes straight into the file: its size is known, and its header written, when it is there."""
    header_at = out.tell()
    out.write(bytes(_BLOCK_BYTES))
    out.flush()
    keys.copy_to(out.fileno())
    begin, end = header_at + _BLOCK_BYTES, out.seek(0, os.SEEK_END)
    digest = sha256()
    out.seek(begin)
    while chunk := out.read(_CHUNK_BYTES):
        digest.update(chunk)
        if progress is not None:
            progress(out.tell() - begin, end - begin)
    out.write(bytes(-(end - begin) % _BLOCK_BYTES))
    out.seek(header_at)
    out.write(_tar_header(DATA_FILE, end - begin))
    out.seek(0, os.SEEK_END)
    return {"name": DATA_FILE, "size_bytes": end - begin, "sha256": digest.hexdigest()}


def _tar_header(name: str, size_bytes: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size_bytes, 0o600
    return entry.tobuf(tarfile.GNU_FORMAT)


# -- reading -----------------------------------------------------------------------------------------------


def _restore(file: Path, data_dir: Path, progress: Progress | None, force: bool) -> Path | None:
    is_held = _holds_node(data_dir)
    if is_held and not force:
        raise StorageError(f"{data_dir} holds a node already: name an empty directory, or use --force")
    stage = Path(tempfile.mkdtemp(prefix=_STAGE_PREFIX, dir=data_dir))
    try:
        _extract(file, stage, progress)
        store_id = _check(stage, file)
        return _put_in_place(stage, data_dir, store_id, is_held)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _holds_node(data_dir: Path) -> bool:
    if read_anchor(data_dir).store_id not in (b"", FOUNDING) or (data_dir / DATA_FILE).exists():
        return True
    return bool(_secrets(data_dir))


def _extract(file: Path, stage: Path, progress: Progress | None) -> None:
    """Copy the parts of a backup, each as long as and with the hash that the manifest says."""
    try:
        with tarfile.open(file, "r:") as archive:
            members = {member.name: member for member in archive.getmembers() if member.isreg()}
            parts = _read_manifest(archive, members, file)
            total = sum(part["size_bytes"] for part in parts.values())
            done = 0
            for name, part in parts.items():
                member = members.get(name)
                if member is None or member.size != part["size_bytes"]:
                    raise StoreDamaged(f"{file} is not whole: its {name} is missing or cut short")
                with closing(_opened(archive, member)) as source:
                    digest = _copy(source, stage / name, progress, done, total)
                if digest != part["sha256"]:
                    raise StoreDamaged(f"{file} is damaged: its {name} has changed since it was written")
                done += member.size
        flush_directory(stage)
    except tarfile.TarError as error:
        raise StoreDamaged(f"{file} is not a backup of civicnode, or damaged ({error})") from error


def _opened(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    source = archive.extractfile(member)
    assert source is not None  # of a regular file there is one
    return source


def _read_manifest(
    archive: tarfile.TarFile, members: dict[str, tarfile.TarInfo], file: Path
) -> dict[str, dict[str, Any]]:
    """The parts by name; only names that a backup may hold."""
    member = members.get(MANIFEST_FILE)
    if member is None or member.size > _MANIFEST_MAX_BYTES:
        raise StoreDamaged(f"{file} is not a backup of civicnode, or cut short: it has no manifest")
    try:
        manifest = json.loads(_opened(archive, member).read())
        if manifest["kind"] != KIND or manifest["format"] > FORMAT:
            raise StorageError(f"{file} was written by another program or a newer civicnode")
        parts = {part["name"]: part for part in manifest["parts"]}
        is_sound = all(
            (name == DATA_FILE or Path(name).suffix in SECRET_SUFFIXES)
            and name == os.path.basename(name)
            and isinstance(part["size_bytes"], int)
            and isinstance(part["sha256"], str)
            for name, part in parts.items()
        )
    except (ValueError, KeyError, TypeError) as error:
        raise StoreDamaged(f"{file} is damaged: its manifest cannot be read") from error
    if not is_sound or not {DATA_FILE, NODE_KEY_FILE} <= parts.keys():
        raise StoreDamaged(f"{file} is damaged: its manifest names other parts than a backup has")
    return parts


def _copy(source: IO[bytes], target: Path, progress: Progress | None, done: int, total: int) -> str:
    digest = sha256()
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as out:
        while chunk := source.read(_CHUNK_BYTES):
            digest.update(chunk)
            out.write(chunk)
            if progress is not None:
                progress(done + out.tell(), total)
        out.flush()
        os.fsync(descriptor)
    return digest.hexdigest()


def _check(stage: Path, file: Path) -> bytes:
    """Make sure that a node would open what was copied. Returns the id of the store."""
    verify_record(stage)
    with closing(LmdbKeyValueStore(str(stage), read_only=True)) as keys:
        identity = Store(keys).identity
    key = load_key(stage / NODE_KEY_FILE)
    if identity is None or key is None or key.public != node_of(identity.author):
        raise StoreDamaged(f"{file} is damaged: its record and its {NODE_KEY_FILE} do not belong together")
    return identity.store_id


def _put_in_place(stage: Path, data_dir: Path, store_id: bytes, is_held: bool) -> Path | None:
    """Move the old node aside and the new one in. Should we be cut short, no node starts on a half of either.

    That is what the anchor sees to: while it is there and the record is not, a start is refused.
    """
    moved: list[tuple[Path, Path]] = []

    def move(path: Path, target: Path) -> None:
        os.rename(path, target)
        moved.append((path, target))

    anchor = data_dir / ANCHOR_FILE
    aside: Path | None = None
    try:
        if is_held:
            aside = _free_name(data_dir)
            aside.mkdir(mode=0o700)
            if anchor.exists():
                shutil.copy2(anchor, aside / ANCHOR_FILE)
        _keep_shut(data_dir, store_id)
        if aside is not None:
            staying = {LOCK_FILE, ANCHOR_FILE, stage.name}
            old = [p for p in sorted(data_dir.iterdir()) if not p.name.startswith(_ASIDE_PREFIX)]
            for path in sorted(old, key=lambda path: path.name != DATA_FILE):
                if path.name not in staying:
                    move(path, aside / path.name)
        for path in sorted(stage.iterdir(), key=lambda path: path.name == DATA_FILE):
            move(path, data_dir / path.name)
        flush_directory(data_dir)
    except BaseException:
        for path, target in reversed(moved):
            os.rename(target, path)
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)
        else:
            anchor.unlink(missing_ok=True)
        raise
    anchor.unlink()
    flush_directory(data_dir)
    return aside


def _keep_shut(data_dir: Path, store_id: bytes) -> None:
    anchor = AnchorFile(data_dir)
    try:
        if anchor.value.store_id in (b"", FOUNDING):
            anchor.value.store_id = store_id
            anchor.write(flush=True)
    finally:
        anchor.close()


def _free_name(data_dir: Path) -> Path:
    number = 1
    while (aside := data_dir / f"{_ASIDE_PREFIX}{number}").exists():
        number += 1
    return aside
