"""What the one writer can be asked to do, and what it came to.

Room: the requests of `integrator` beside edits of documents, which are `protocol.changes`'.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from protocol.changes import DocumentChange
from protocol.commit import Commit, Header
from protocol.membership import Members
from protocol.window import Run
from storage.feed_entry import FeedEntry
from storage.heads import Plain
from storage.index_conflicts import ConflictNews
from storage.local import LocalWriter
from storage.quarantine import Quarantined

# A local change reads and writes records of this node alone; if it raises, nothing of it is kept.
LocalChange = Callable[[LocalWriter], Any]


@dataclass(slots=True)
class Received:
    """Commits from a peer, verified, causes first. They are integrated before what the group asks for here.

    `applications` are those whose spaces are met here for the first time; `local` is kept with the commits.
    The result is an `Outcome` for each commit.
    """

    commits: Sequence[Commit]
    applications: Sequence[str] = ()
    local: LocalChange | None = None
    quarantine: Sequence[Quarantined] = ()  # documents in which nothing is to be merged any more


@dataclass(frozen=True, slots=True)
class Forked:
    """A run from a peer with another commit of `seq` than is here: its author has signed two. Verified."""

    run: Run
    seq: int


@dataclass(frozen=True, slots=True)
class Shared:
    """This node and a peer hold the same of these applications. The result is None."""

    applications: Sequence[str]


@dataclass(frozen=True, slots=True)
class Said:
    """Something that this node says in `system`.

    `make` gets the members as they stand and the header that will carry the statement, but for its body
    hashes; it gives the body, or raises to say nothing. The result is the `Commit`.
    """

    make: Callable[[Members, Header], bytes]


@dataclass(frozen=True, slots=True)
class SayAgain:
    """This node and a peer hold the same: what this node had written on branches that do not count is said again.

    The result is how many documents that took.
    """


AnyChange = DocumentChange | Received | Forked | Shared | Said | SayAgain | LocalChange


@dataclass(slots=True)
class Written:
    """What a group of changes came to. `results[i]` belongs to `changes[i]`: a list of records, a value, an error."""

    results: list[Any]
    entries: list[FeedEntry] = field(default_factory=list)
    conflicts: list[ConflictNews] = field(default_factory=list)  # that have appeared or ended
    arrival: int = 0  # the newest of what was stored; 0 if no commit was
    caught_up: list[str] = field(default_factory=list)  # applications to be read anew: first sync over
    has_new_members: bool = False  # other statements count than before
    plain: Sequence[
        Plain
    ] = ()  # all that was stored, if the newest of each chain is what peers are told of it
