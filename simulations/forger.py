"""Whoever holds a node's key and signs what no honest node would: other branches, early clocks, false pasts.

Room: commits made by hand, well-formed and signed, or spoilt on purpose. When
they are made, and who gets them, is for scenarios and tests.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import count
from typing import Any

from protocol.body import SALT_BYTES, Body, Dot, Kind, Operation, body_hash
from protocol.clock import hlc_of_ms
from protocol.commit import DEP_HASH_BYTES, NO_PREVIOUS, Commit, Dep, Header, sign_commit
from protocol.ids import Author, SpaceId
from protocol.keys import KeyPair
from protocol.packing import pack_window
from protocol.statements import Admit, Grant, Invite, Revoke, encode_statement
from protocol.window import Run
from storage.store import Store

Statement = Invite | Admit | Grant | Revoke


def dep_on(commit: Commit, *, in_system: bool = False) -> Dep:
    """A dep that names a commit."""
    header = commit.header
    return Dep(in_system, header.author, header.seq, commit.hash[:DEP_HASH_BYTES])


def frontier_deps(store: Store, space: SpaceId, author: Author) -> tuple[Dep, ...]:
    """What an honest author who holds what this store does would name: all heads, none of its own chain."""
    with store.read() as snapshot:
        found = [Dep(False, a, seq, prefix) for a, seq, prefix in snapshot.frontier(space) if a != author]
        if space != store.system:
            found += [Dep(True, a, seq, prefix) for a, seq, prefix in snapshot.frontier(store.system)]
    return tuple(sorted(found))


def window_of(*commits: Commit) -> bytes:
    """A window with these commits, in as many runs as there are chains, each as its author's order has it."""
    runs: dict[tuple[SpaceId, Author], list[Commit]] = {}
    for commit in commits:
        runs.setdefault((commit.header.space, commit.header.author), []).append(commit)
    return pack_window([Run(tuple(run)) for run in runs.values()])


@dataclass
class Forger:
    """One author whose key is in bad hands. Each chain goes on where it was left, unless it is told otherwise."""

    keys: KeyPair
    author: Author
    tips: dict[SpaceId, Commit] = field(default_factory=dict)
    salts: Iterable[int] = field(default_factory=count)

    def follow(self, store: Store, *spaces: SpaceId) -> "Forger":
        """Go on where the chains of this author end in a store."""
        with store.read() as snapshot:
            for space in spaces:
                chain, head = store.names.chain(space, self.author), snapshot.head(space, self.author)
                commit = (
                    snapshot.log.commit(chain, head.seq) if chain is not None and head is not None else None
                )
                if commit is not None:
                    self.tips[space] = commit
        return self

    def salt(self) -> bytes:
        return sha256(self.author + next(iter(self.salts)).to_bytes(8, "big")).digest()[:SALT_BYTES]

    def commit(
        self,
        space: SpaceId,
        *bodies: bytes,
        at_ms: int = 0,
        deps: Sequence[Dep] = (),
        after: Commit | None = None,
        hlc: int | None = None,
        is_kept: bool = True,
    ) -> Commit:
        """The next commit of a chain, or one after another commit than the last: `after`.

        `at_ms` is its time, if that is later than the one before; or `hlc`, whatever was before. Not kept: the
        next goes on from before it.
        """
        last = after or self.tips.get(space)
        seq, previous, least = 1, NO_PREVIOUS, 1
        if last is not None:
            seq, previous, least = last.header.seq + 1, last.hash, last.header.hlc + 1
        hashes = tuple(map(body_hash, bodies))
        time = max(least, hlc_of_ms(at_ms)) if hlc is None else hlc
        header = Header(space, self.author, seq, previous, time, tuple(sorted(deps)), hashes)
        commit = sign_commit(self.keys, header, bodies)
        if is_kept:
            self.tips[space] = commit
        return commit

    def body(
        self, model: str, id: str, *, seen: Sequence[Dot] = (), operations: list[Operation] | None = None,
        **values: Any,
    ) -> bytes:  # fmt: skip
        """A body that sets registers of a document, or does what `operations` say."""
        said: list[Operation] = operations if operations is not None else [[Kind.SET.value, values]]
        return Body(self.salt(), "forger", model, id, tuple(sorted(seen)), said).encode(self.author)

    def statement(self, statement: Statement) -> bytes:
        return encode_statement(statement, self.salt())
