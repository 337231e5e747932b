"""How commits travel: consecutive ones of one author in a run, runs of several authors in a window.

Room: layouts and limits of runs and windows, and the proof that a run is its
author's. What its commits change is `integrate`'s. A chain hash costs 1/70 of a
verification, so the last signature of a run vouches for the rest. Author, seq,
previous hash and the hashes of bodies present are recomputed, not sent:

    window    [run …], at most one of each author and space
    run       [skeleton, body or stub …], in the order of commits
    skeleton  [space, author, first seq, previous hash, entries, signature of the last]
    entry     [hlc minus the hlc before (of the first: its hlc), deps, parts]
    part      0 for a body, the next of the run; 1 for the stub of one that was dropped

Window and run are lists of byte strings, cut rather than decoded, and only the
small skeleton becomes objects before the signature is checked: a hostile peer
cannot make 4 MiB take 300, nor seconds.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from protocol.body import Stub, body_hash, decode_stub, name_in, stub_of
from protocol.commit import (
    Commit,
    check_header,
    commit_of_fields,
    deps_to_lists,
    encode_header,
    verify_signature,
)
from protocol.encoding import decode_exact, decode_strings, encode
from protocol.errors import BadSignature, LocalMisuse, Malformed, TooLarge
from protocol.ids import AUTHOR_BYTES, Author
from protocol.keys import SIGNATURE_BYTES
from protocol.limits import (
    COMMIT_SIZE_MAX_BYTES,
    RUN_BODIES_MAX,
    RUN_COMMITS_MAX,
    RUN_SKELETON_MAX_BYTES,
    WINDOW_RUNS_MAX,
    WINDOW_SIZE_MAX_BYTES,
)

# Of a window that carries one commit of the largest size: its heads take less than a skeleton may.
_LONE_COMMIT_MAX_BYTES = COMMIT_SIZE_MAX_BYTES + 2 * RUN_SKELETON_MAX_BYTES


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive commits of one author in one space, the last of them signed."""

    commits: tuple[Commit, ...]
    encoded: bytes | None = field(default=None, compare=False, repr=False)  # as it came, if it did

    def encode(self) -> bytes:
        """Raises `TooLarge` if a node would not take it; `LocalMisuse` if it is not signed, or not whole."""
        if self.encoded is not None:
            return self.encoded
        if not self.commits or self.commits[-1].signature is None:
            raise LocalMisuse("the last commit of a run carries its signature")
        first = self.commits[0].header
        bodies: list[bytes] = []
        entries: list[Any] = []
        hlc = 0
        for commit in self.commits:
            parts: list[Any] = []
            stubs = dict(commit.stubs)
            for index, body in enumerate(commit.bodies):
                stub = stubs.get(index)
                if body is None and stub is None:
                    raise LocalMisuse("a commit of which a body is not here cannot travel")
                parts.append(0 if body is not None else 1)
                bodies.append(body if body is not None else stub.encode())  # type: ignore[union-attr]
            entries.append([commit.header.hlc - hlc, deps_to_lists(commit.header.deps), parts])
            hlc = commit.header.hlc
        signature = self.commits[-1].signature
        skeleton = encode([first.space, first.author, first.seq, first.previous, entries, signature])
        _check_size("commits in a run", len(self.commits), RUN_COMMITS_MAX)
        _check_size("bodies in a run", len(bodies), RUN_BODIES_MAX)
        _check_size("skeleton of a run in bytes", len(skeleton), RUN_SKELETON_MAX_BYTES)
        return encode([skeleton, *bodies])


def decode_run(data: bytes, on_step: Callable[[], None] = lambda: None) -> Run:
    """The run in `data`, its last signature verified. `on_step` is called for every commit.

    Raises `Malformed`, `TooLarge`, `BrokenChain` or `BadSignature`.
    """
    _check_size("run in bytes", len(data), _LONE_COMMIT_MAX_BYTES)
    match decode_strings(data, count_max=1 + RUN_BODIES_MAX):
        case [skeleton, *bodies]:
            _check_size("skeleton of a run in bytes", len(skeleton), RUN_SKELETON_MAX_BYTES)
        case _:
            raise Malformed("a run is [skeleton, body or stub …]")
    match decode_exact(skeleton):
        case [
            bytes() as space,
            bytes() as author,
            int() as seq,
            bytes() as previous,
            [_, *_] as entries,
            bytes() as signature,
        ] if len(author) == AUTHOR_BYTES and len(signature) == SIGNATURE_BYTES and seq is not True:
            _check_size("commits in a run", len(entries), RUN_COMMITS_MAX)
        case _:
            raise Malformed("a skeleton is [space, author, first seq, previous hash, entries, signature]")
    commits: list[Commit] = []
    rest = iter(bodies)
    hlc = 0
    for entry in entries:
        on_step()
        match entry:
            case [step, list() as deps, list() as parts] if type(step) is int and step > 0:
                hlc += step
            case _:
                raise Malformed("an entry of a run is [hlc step, deps, parts]")
        present, hashes, stubs = _bodies_of(parts, rest)
        header = check_header(space, Author(author), seq, previous, hlc, deps, hashes)
        header_bytes = encode_header(space, author, seq, previous, hlc, deps, hashes)
        commit = commit_of_fields(header, header_bytes, present, stubs)
        commits.append(commit)
        seq, previous = seq + 1, commit.hash
    if next(rest, None) is not None:
        raise Malformed("a run with a body that no commit names")
    if not verify_signature(author, previous, signature):
        raise BadSignature(f"run of {len(commits)} commits up to seq {seq - 1}")
    commits[-1] = replace(commits[-1], signature=signature)
    return Run(tuple(commits), bytes(data))


def _bodies_of(
    parts: list[Any], rest: Iterator[bytes]
) -> tuple[list[bytes | None], list[bytes], Mapping[int, Stub]]:
    bodies: list[bytes | None] = []
    hashes: list[bytes] = []
    stubs: dict[int, Stub] = {}
    for index, part in enumerate(parts):
        data = next(rest, None)
        if type(part) is not int or part not in (0, 1) or data is None:
            raise Malformed("a part is 0 for a body of the run, 1 for a stub")
        if part == 0:
            bodies.append(data)
            hashes.append(body_hash(data))
        else:
            stub = stubs[index] = decode_stub(data)
            bodies.append(None)
            hashes.append(stub.hash)
    return bodies, hashes, stubs


def encode_window(runs: Sequence[Run]) -> bytes:
    """The bytes of a window. Raises `TooLarge` above 4 MiB unless it carries a single commit."""
    _check_size("runs in a window", len(runs), WINDOW_RUNS_MAX)
    data = encode([run.encode() for run in runs])
    _check_window(data, runs)
    return data


def decode_window(data: bytes, on_step: Callable[[], None] = lambda: None) -> list[Run]:
    """The runs of a window, every signature verified. Otherwise as `decode_run`."""
    _check_size("window in bytes", len(data), _LONE_COMMIT_MAX_BYTES)
    runs = [decode_run(item, on_step) for item in decode_strings(data, count_max=WINDOW_RUNS_MAX)]
    if not runs:
        raise Malformed("a window carries a run")
    if len({(run.commits[0].header.space, run.commits[0].header.author) for run in runs}) != len(runs):
        raise Malformed("a window has one run of each author and space")
    _check_window(data, runs)
    return runs


def _check_window(data: bytes, runs: Sequence[Run]) -> None:
    is_lone = len(runs) == 1 and len(runs[0].commits) == 1
    _check_size("window in bytes", len(data), _LONE_COMMIT_MAX_BYTES if is_lone else WINDOW_SIZE_MAX_BYTES)


def _check_size(what: str, size: int, size_max: int) -> None:
    if size > size_max:
        raise TooLarge(what, size=size, size_max=size_max)


def without_bodies(run: Run, name: bytes) -> Run | None:
    """A run with stubs in place of a document's bodies; None if it has none of them."""
    commits = []
    for commit in run.commits:
        named = {
            i: body for i, body in enumerate(commit.bodies) if body is not None and name_in(body) == name
        }
        if named:
            bodies = tuple(None if i in named else body for i, body in enumerate(commit.bodies))
            stubs = tuple(sorted({**dict(commit.stubs), **{i: stub_of(b) for i, b in named.items()}}.items()))
            commit = replace(commit, bodies=bodies, stubs=stubs)
        commits.append(commit)
    if all(ours is theirs for ours, theirs in zip(commits, run.commits, strict=True)):
        return None
    return Run(tuple(commits))
