"""One direction of a sync session: the peer gets from us what it lacks.

Room: offers, the wants that answer them, windows and their credits. When roots
are compared is `session`'s; what there is to send comes from storage, asked for
by effects. Bounded: one offer and as many windows as there are credits are under
way, and nothing is offered while many chains still wait to be sent.
"""

from collections import deque
from collections.abc import Iterable

from protocol.conversation import Conversation
from protocol.errors import LocalMisuse, Malformed, ProtocolError
from protocol.exchange import (
    ArrivalsLoaded,
    Arrived,
    ChainKey,
    Fresh,
    HeadsLoaded,
    LoadArrivals,
    LoadHeads,
    LoadRuns,
    PeerHolds,
    RunsLoaded,
)
from protocol.ids import SpaceId
from protocol.messages import HEADS_MAX, Ack, Done, Offer, SpaceTips, Tip, Want, Window

CREDITS = 2  # windows under way in one direction: one on the wire while the other is stored
FIRST_WINDOW_BYTES = 64 << 10  # read and packed in a tenth of the time of a full one
CREDITS_MAX = 8  # that we use, however many a peer gives
WANTED_MAX = 4_096  # chains; no more heads are offered before some of them have been sent


class NotAnswerable(ProtocolError):
    """The peer answers what was not asked, or acknowledges what was not sent."""


class Outgoing:
    """What the peer lacks, and how much of that is under way."""

    def __init__(self, talk: Conversation, window_target_bytes: int) -> None:
        """The first window of a catch-up is small and each is twice the one before, up to `window_target_bytes`:
        so the peer has something to store while the larger ones are read here.
        """
        self._talk = talk
        self._target_max_bytes = window_target_bytes
        self._target_bytes = min(FIRST_WINDOW_BYTES, window_target_bytes)
        self.told_position = 0  # of our arrivals, all up to this one is offered or known to be there
        self.sent_bodies = 0
        self.pushes = False  # our own new commits go out unasked
        self._spaces: deque[tuple[str, bytes]] = deque()  # to offer: name, and the author after whom to go on
        self._branches: deque[SpaceTips] = deque()  # to offer: what the peer's node had written as another
        self._branches_told: dict[ChainKey, int] = {}
        self._offered: list[tuple[ChainKey, Tip]] | None = None  # not answered yet
        self._loading: LoadHeads | LoadArrivals | None = None  # what is to be offered next
        self._wanted: dict[ChainKey, int] = {}
        self._asked: dict[ChainKey, int] | None = None  # of storage: the wants of the window being loaded
        self._proofs: deque[bytes] = deque()  # windows that show forks, unasked
        self._wants_received = self._wants_answered = 0
        self._windows_sent = self._windows_acked = 0
        self._under_way: deque[tuple[tuple[SpaceId, int], ...]] = deque()  # of ours, window by window
        self._offers_sent = 0
        self._credits = CREDITS

    @property
    def is_busy(self) -> bool:
        """Whether anything is under way or waits to be."""
        return self.told_position < self._talk.our_position or self.is_sending

    @property
    def is_sending(self) -> bool:
        """Whether any of what is told of is under way."""
        return bool(
            self._spaces
            or self._branches
            or self._loading is not None
            or self._offered is not None
            or self._wanted
            or self._asked is not None
            or self._proofs
            or self._wants_answered < self._wants_received
            or self._windows_acked < self._windows_sent
        )

    def owed(self) -> dict[str, int]:
        """What only the peer can bring forward, and how far it has."""
        owed: dict[str, int] = {}
        if self._offered is not None:
            owed["want"] = self._offers_sent
        if self._windows_acked < self._windows_sent:
            owed["ack"] = self._windows_acked
        return owed

    def offer_spaces(self, spaces: Iterable[str]) -> None:
        """Offer every head of these spaces."""
        waiting = {space for space, _ in self._spaces}
        self._spaces += [(space, b"") for space in spaces if space not in waiting]

    def offer_branches(self, branches: Iterable[SpaceTips]) -> None:
        """Offer these heads as they are, each once."""
        for space, tips in branches:
            keys = {self._talk.key(space, tip.author): tip.seq for tip in tips}
            if any(seq > self._branches_told.get(key, 0) for key, seq in keys.items()):
                self._branches_told |= keys
                self._branches.append(SpaceTips(space, tips))

    def prove(self, windows: Iterable[bytes]) -> None:
        """Send these, unasked: each shows that an author has signed one seq twice."""
        self._proofs += windows

    # -- what the peer says --------------------------------------------------------------------------------

    def on_want(self, message: Want) -> None:
        offered, self._offered = self._offered, None
        if offered is None:
            raise NotAnswerable("a want without an offer")
        for index, after_seq in message.lacks:
            if index >= len(offered) or after_seq >= offered[index][1].seq:
                raise Malformed("wants what was not offered")
        for key, tip in offered:
            self._talk.remember(key, tip.seq)
        for index, after_seq in message.lacks:
            self._wanted[offered[index][0]] = after_seq
        self._wants_received += bool(message.lacks)

    def on_ack(self, message: Ack) -> None:
        if not self._windows_acked <= message.windows <= self._windows_sent:
            raise NotAnswerable("an ack of windows that were not sent")
        self._talk.owes_root |= message.windows > self._windows_acked
        held: dict[SpaceId, int] = {}
        for _ in range(message.windows - self._windows_acked):
            held.update(self._under_way.popleft())
        if held:
            self._talk.emit(PeerHolds(tuple(held.items())))
        self._windows_acked, self._credits = message.windows, min(message.credits, CREDITS_MAX)

    # -- what storage says ---------------------------------------------------------------------------------

    def on_heads(self, loaded: HeadsLoaded) -> None:
        if type(self._loading) is not LoadHeads:
            raise LocalMisuse("heads that were not asked for")
        self._loading = None
        space, _ = self._spaces.popleft()
        if not loaded.is_last and loaded.tips:
            self._spaces.appendleft((space, loaded.tips[-1].author))
        if loaded.tips:  # the peer's own among them: somebody else may write as it
            self._offer([SpaceTips(space, loaded.tips)])

    def on_arrivals(self, loaded: ArrivalsLoaded) -> None:
        if type(self._loading) is not LoadArrivals:
            raise LocalMisuse("arrivals that were not asked for")
        self._loading = None
        self._talk.arrived(loaded.position if loaded.is_last else loaded.position + 1)
        self._tell(loaded.position, loaded.fresh)

    def on_arrived(self, arrived: Arrived) -> None:
        """What has arrived is told at once, if nothing before it is left to be told or on its way from storage.

        An answer on its way may be older than what has arrived, and be taken for all there is.
        """
        is_next = arrived.since == self.told_position == self._talk.our_position
        is_idle = self._offered is None and self._loading is None and self._asked is None
        self._talk.arrived(arrived.position)
        if arrived.fresh and is_next and is_idle and not self._spaces:
            shares = self._talk.shares
            self._tell(arrived.position, tuple(fresh for fresh in arrived.fresh if fresh.space in shares))

    def _tell(self, position: int, all_fresh: tuple[Fresh, ...]) -> None:
        self.told_position = max(self.told_position, position)
        talk = self._talk
        offers: dict[str, list[Tip]] = {}
        for fresh in all_fresh:
            key = talk.key(fresh.space, fresh.tip.author)
            is_there = talk.peer_has.get(key, 0) >= fresh.tip.seq and not fresh.is_fork
            if fresh.tip.author == talk.peer or is_there:
                continue
            if (
                self.pushes
                and not fresh.is_fork
                and fresh.tip.author == talk.author
                and fresh.space in talk.names
            ):
                self._wanted.setdefault(key, fresh.first_seq - 1)  # nobody else can have brought them
            else:
                offers.setdefault(fresh.space, []).append(fresh.tip)
        if offers:
            self._offer([SpaceTips(space, tuple(tips)) for space, tips in offers.items()])

    def _offer(self, spaces: list[SpaceTips]) -> None:
        talk = self._talk
        talk.names.update(space for space, _ in spaces)
        self._offered = [(talk.key(space, tip.author), tip) for space, tips in spaces for tip in tips]
        self._offers_sent += 1
        talk.send(Offer(tuple(spaces)))

    def on_runs(self, loaded: RunsLoaded) -> bool:
        """Whether a window has gone out."""
        asked, self._asked = self._asked, None
        if asked is None:
            raise LocalMisuse("runs that were not asked for")
        for key, seq in loaded.sent_to:
            if self._wanted.get(key) == asked[key]:  # else the peer has asked anew meanwhile
                self._wanted[key] = asked[key] = seq
            self._talk.remember(key, seq)
        for key in loaded.exhausted if loaded.window is not None else asked:
            if self._wanted.get(key) == asked[key]:
                del self._wanted[key]
        grown = 2 * self._target_bytes if self._wanted else FIRST_WINDOW_BYTES
        self._target_bytes = min(grown, self._target_max_bytes)
        self.prove(loaded.proofs)
        if loaded.window is None:
            return False
        author = self._talk.author
        self._send(loaded.window, tuple((key[0], seq) for key, seq in loaded.sent_to if key[1] == author))
        self.sent_bodies += loaded.bodies
        return True

    def _send(self, window: bytes, own: tuple[tuple[SpaceId, int], ...]) -> None:
        self._talk.send(Window(window))
        self._under_way.append(own)
        self._windows_sent += 1

    # -- what is next --------------------------------------------------------------------------------------

    def go_on(self) -> None:
        """Ask storage for what goes out next."""
        talk = self._talk
        if self._offered is None and self._loading is None and len(self._wanted) < WANTED_MAX:
            if self._branches:
                self._offer([self._branches.popleft()])
            elif self._spaces:
                self._loading = LoadHeads(*self._spaces[0], HEADS_MAX)
                talk.emit(self._loading)
            elif self.told_position < talk.our_position:
                self._loading = LoadArrivals(self.told_position, talk.shares, HEADS_MAX)
                talk.emit(self._loading)
        while self._proofs and self._windows_sent - self._windows_acked < self._credits:
            self._send(self._proofs.popleft(), ())
        if self._wanted and self._asked is None and self._windows_sent - self._windows_acked < self._credits:
            self._asked = dict(self._wanted)
            talk.emit(LoadRuns(tuple(self._asked.items()), self._target_bytes))
        if not self._wanted and self._asked is None and self._wants_answered < self._wants_received:
            self._wants_answered = self._wants_received
            talk.send(Done(self._wants_answered))
