"""What stands in the order of arrival beside the commits themselves: arrivals, judgements that changed, forks.

Room: the values that `log` gives and takes. How they lie in its tables is its own.
"""

from dataclasses import dataclass
from typing import NamedTuple

from protocol.ids import Author, SpaceId
from protocol.integrate import Change
from storage.names import Chain

NO_CHAIN = 0xFFFFFFFF  # in place of a chain's number: no commit has arrived


@dataclass(slots=True, unsafe_hash=True)  # never changed; frozen, each would take twice the time to make
class Arrival:
    """One commit in the order in which this store integrated them: the one feed counts by these."""

    number: int
    chain: Chain
    seq: int
    changes: tuple[Change, ...]


class Rejudged(NamedTuple):
    """A document that is another one since commits came to count, or ceased to.

    `author` and `hlc` are those of the commit that let it be known. `created_by` is the user who had created it,
    and `fields` are those that hold something else now.
    """

    space: SpaceId
    model: str
    id: str
    change: Change
    author: Author
    hlc: int
    created_by: str
    fields: tuple[str, ...]


class KnownFork(NamedTuple):
    """The first seq that an author signed twice, a run with another commit of it than ours, and the arrival
    with which that became known."""

    seq: int
    run: bytes
    arrival: int


@dataclass(frozen=True, slots=True)
class Rejudgement:
    """What was here was judged again, at a time by this node's clock: a place of its own in the order of arrival."""

    number: int
    at_ms: int
    documents: tuple[Rejudged, ...]
