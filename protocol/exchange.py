"""What a sync session asks of storage, what storage answers, and what a session tells its owner.

Room: values only. `session` gives effects among its events; whoever drives it has
each carried out (`storage.exchange`) and hands the answer back as an input. Of
each kind one at most is under way, of `IntegrateWindow` as many as there are
credits, answered in order.
"""

from dataclasses import dataclass, field

from protocol.ids import SYSTEM_SPACE_NAME, Author, NetworkId, SpaceId, space_id
from protocol.messages import SpaceRoot, SpaceTips, Tip
from protocol.roles import Rights

ChainKey = tuple[SpaceId, Author]


@dataclass(frozen=True, slots=True)
class Shares:
    """Which spaces may cross a link. `None`: all.

    Rights name spaces by their ids, which have no way back to names, so names are turned into ids to be found.
    """

    spaces: frozenset[str] | None = None
    ids: frozenset[SpaceId] | None = None
    network_id: NetworkId | None = None  # that the ids are of

    def __contains__(self, space: str) -> bool:
        if self.spaces is not None:
            return space in self.spaces
        if self.ids is None or space == SYSTEM_SPACE_NAME:
            return True
        assert self.network_id is not None
        return space_id(self.network_id, space) in self.ids


EVERYTHING = Shares()


def shares_of(ours: Rights, theirs: Rights, network_id: NetworkId) -> Shares:
    """What may cross a link between two nodes: what both may hold, and always `system`."""
    both = ours.meet(theirs).spaces
    return EVERYTHING if both is None else Shares(ids=both, network_id=network_id)


# -- effects, and the answer to each ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LoadState:
    """Where do we stand? Asked anew whenever a root is to be told or compared."""

    peer: Author
    peer_epoch: str
    shares: Shares


@dataclass(frozen=True, slots=True)
class StateLoaded:
    """One consistent state. Spaces are those that are shared and not empty, in the order of their names."""

    root: bytes  # over all of them
    roots: tuple[SpaceRoot, ...]
    position: int  # of the newest arrival
    cursor: (
        int  # up to which arrival of the peer, in this epoch of its store, all of it is here; 0 if unknown
    )
    theirs: tuple[SpaceTips, ...]  # the head of the peer's own chain in each space
    # Of forked chains of the peer's node, what is held here: the node says again what of it counts no more.
    branches: tuple[SpaceTips, ...] = ()


@dataclass(frozen=True, slots=True)
class LoadHeads:
    """The heads of a space, in the order of authors, after one, at most so many."""

    space: str
    after_author: bytes
    count_max: int


@dataclass(frozen=True, slots=True)
class HeadsLoaded:
    position: int
    tips: tuple[Tip, ...]
    is_last: bool


@dataclass(frozen=True, slots=True)
class LoadArrivals:
    """What arrived here after a position: at most so many chains."""

    after_position: int
    shares: Shares
    count_max: int


@dataclass(frozen=True, slots=True)
class Fresh:
    """A chain that has grown. `first_seq` is the first that arrived after the position asked about.

    Or one that forks, as is known since: whatever the peer has of it, it may not know that.
    """

    space: str
    first_seq: int
    tip: Tip
    is_fork: bool = False


@dataclass(frozen=True, slots=True)
class ArrivalsLoaded:
    position: int  # up to which these tell all; the newest arrival unless there were too many
    is_last: bool
    fresh: tuple[Fresh, ...]  # in the order of spaces and authors, each chain once


@dataclass(frozen=True, slots=True)
class FindLacking:
    """Which of these heads are not here?"""

    spaces: tuple[SpaceTips, ...]


@dataclass(frozen=True, slots=True)
class LackingFound:
    """By place of the head in the question: lacking after a seq that is here; or here with another hash.

    What is here with another hash is a fork: `after_seq` then asks for the other header of that seq. `proofs`
    are windows, each with a commit that the peer needs to see that a chain of which it told has forked.
    """

    lacking: tuple[tuple[int, int], ...]
    forked: tuple[tuple[int, int], ...]
    proofs: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class LoadRuns:
    """Runs of these chains after these seqs: as much as fits, in an order that has causes first."""

    wants: tuple[tuple[ChainKey, int], ...]
    size_max_bytes: int


@dataclass(frozen=True, slots=True)
class RunsLoaded:
    """A window, or none if nothing is left. `sent_to` says how far, `exhausted` where that was all.

    `proofs` are windows with the other branches of chains that fork in what the window has of them.
    """

    window: bytes | None
    sent_to: tuple[tuple[ChainKey, int], ...]
    exhausted: frozenset[ChainKey]
    bodies: int = 0
    proofs: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class IntegrateWindow:
    """Verify and integrate a window from the peer, with runs of spaces of these names, and of ours."""

    data: bytes
    names: tuple[str, ...]
    shares: Shares


@dataclass(frozen=True, slots=True)
class WindowIntegrated:
    """`fault` is set if the window breaks a rule that no honest node breaks; then nothing of it was kept."""

    position: int  # of the newest arrival
    tips: tuple[tuple[ChainKey, int], ...] = ()  # what the peer holds, as the window shows
    integrated: int = 0  # commits that were new
    waiting: int = 0  # commits whose causes are not here yet
    forks: tuple["ForkFound", ...] = ()
    refused: tuple["ChainRefused", ...] = ()
    fault: str | None = None
    bodies: int = 0  # of the new commits


Effect = LoadState | LoadHeads | LoadArrivals | FindLacking | LoadRuns | IntegrateWindow
Answer = StateLoaded | HeadsLoaded | ArrivalsLoaded | LackingFound | RunsLoaded | WindowIntegrated

# -- what else a session tells ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class InSync:
    """Both sides hold the same. All that had arrived at the peer up to `position` is here: worth keeping."""

    position: int


@dataclass(frozen=True, slots=True)
class PeerHolds:
    """The peer has this on its disk, by its own word: so much of our own chains, and all that had arrived here
    up to `position` in spaces that are shared. Other events may have told more."""

    chains: tuple[tuple[SpaceId, int], ...] = ()
    position: int = 0


@dataclass(frozen=True, slots=True)
class Compared:
    """The peer was asked (`Compare`), and holds what is held here."""


@dataclass(frozen=True, slots=True)
class WindowStored:
    """Commits from the peer are integrated, or wait for their causes."""

    integrated: int
    waiting: int
    bodies: int = 0  # of the former


@dataclass(frozen=True, slots=True)
class ForkFound:
    """An author has signed two commits with one seq: data, no fault of the peer. `run` has the other."""

    space: SpaceId
    author: Author
    seq: int
    run: bytes


@dataclass(frozen=True, slots=True)
class ChainRefused:
    """A chain breaks a rule and is read no further; `rule` is `integrate`'s word for it."""

    space: SpaceId
    author: Author
    seq: int
    rule: str


@dataclass(frozen=True, slots=True)
class RolledBack:
    """The peer holds commits of our own that we lack: our store is not the newest. The last event.

    We must go on as a new author before we write or connect again.
    """

    space: str
    seq: int


@dataclass(frozen=True, slots=True)
class Diverged:
    """Roots differ although each side has what the other offers: forks, refused chains, quotas."""

    root: bytes
    peer_root: bytes


@dataclass(frozen=True, slots=True)
class PeerMisbehaved:
    """The peer broke the protocol. The last event. `kind` is one of a few words, to be counted by."""

    reason: str
    kind: str = field(default="protocol", compare=False)


@dataclass(frozen=True, slots=True)
class Unacquainted:
    """The peer does not know this node as a member, and asks. The last event; the link can go on with `joining`."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The conversation is over: the link is cut, silent, or closed by either side. The last event."""

    reason: str


News = (
    InSync
    | Compared
    | PeerHolds
    | WindowStored
    | ForkFound
    | ChainRefused
    | RolledBack
    | Diverged
    | PeerMisbehaved
    | Unacquainted
    | Ended
)
Event = Effect | News

# -- what its owner tells a session ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Begin:
    """The link is up. The first input of every session."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """Our order of arrival has grown up to here.

    `fresh` are all chains that have grown after the position `since`, if that is known without asking storage.
    """

    position: int
    since: int = -1
    fresh: tuple[Fresh, ...] = ()


@dataclass(frozen=True, slots=True)
class Close:
    """End the conversation."""

    reason: str


@dataclass(frozen=True, slots=True)
class Compare:
    """Compare with the peer once nothing is under way, whatever was compared before: see `compared_ms`."""


Input = Answer | Begin | Arrived | Close | Compare
