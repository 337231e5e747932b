"""The newest commits of chains, in memory: what the next ones build on.

Room: a cache of tables of the log, for the one writer. Integrating a commit asks what its causes know, and these are
mostly the newest commits of other chains, stored a moment ago: the disk would be asked a dozen times for each.
`log` fills it and asks it; whatever is not here is read from the tables.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from protocol.ids import Author
from protocol.integrate import Head
from protocol.membership import Link
from storage.names import Chain

WEIGHT_MAX = 200_000  # commits, and entries of what they know: some 20 MB


class Ended(NamedTuple):
    """One stored commit, as those that build on it see it."""

    hash: bytes
    knows: Mapping[Author, int]  # everything, not only what has grown
    system_past: frozenset[Link]
    counts: bool = False  # by all that was known when it was stored; False also if that was not looked up


@dataclass(slots=True)
class End:
    """One chain. `head` is None if it has no commit yet."""

    head: Head | None
    commits: dict[int, Ended] = field(default_factory=dict)  # by seq


class Ends:
    """Of all chains. When it holds too much it begins anew; when a write is not kept, it has to."""

    def __init__(self) -> None:
        self._ends: dict[Chain, End] = {}
        self._weight = 0

    def get(self, chain: Chain) -> End | None:
        return self._ends.get(chain)

    def commit(self, chain: Chain, seq: int) -> Ended | None:
        end = self._ends.get(chain)
        return end.commits.get(seq) if end is not None else None

    def put_head(self, chain: Chain, head: Head | None) -> None:
        """As it is stored."""
        self._ends[chain] = End(head)
        self._weigh(1)

    def put(self, chain: Chain, head: Head, commit: Ended) -> None:
        """A commit was stored at the end of its chain."""
        end = self._ends.get(chain)
        if end is None:
            end = self._ends[chain] = End(head)
        end.head = head
        end.commits[head.seq] = commit
        self._weigh(1 + len(commit.knows))

    def _weigh(self, more: int) -> None:
        self._weight += more
        if self._weight > WEIGHT_MAX:
            self.clear()

    def clear(self) -> None:
        self._ends.clear()
        self._weight = 0
