"""One sync conversation with one peer: both end up with the same commits, whatever either had before.

Room: peer bytes become events, inputs become bytes. Nothing here opens a socket,
reads a clock, draws a random number or touches storage: bytes, `now_ms` and what
storage answers are all handed in. Framing is `frames`', layouts are `messages`',
what is asked of storage is in `exchange`. The node's runtime and the simulator
drive this class alike.

    open     each side tells one root over all shared spaces; equal, and that was all
    yours    each tells what it holds of the other's own chains, before the other sends any
    offer    heads that the other may lack: those that arrived here after its cursor, or, where there is
             none, those of every space whose root differs; answered by want, with the seqs after which
    window   runs of what was wanted, causes first, as many under way as there are credits; each is acked
             when it is stored, and done says that all that was wanted has been sent
    root     by each side whenever it has nothing under way; if they differ, both compare space by space
    live     our own new commits go out at once, those of others are offered

Nothing is remembered between sessions but what is stored, so a cut at any place
costs what was under way and no more. Every buffer is bounded: one offer and
`CREDITS` windows under way in each direction, and tables with a limit beside them.
"""

from collections import deque
from enum import Enum

from protocol.errors import LocalMisuse, Malformed, ProtocolError, TooLarge
from protocol.exchange import (
    EVERYTHING,
    ArrivalsLoaded,
    Arrived,
    Begin,
    ChainKey,
    Close,
    Diverged,
    Ended,
    Event,
    FindLacking,
    Fresh,
    HeadsLoaded,
    Input,
    InSync,
    IntegrateWindow,
    LackingFound,
    LoadArrivals,
    LoadHeads,
    LoadRuns,
    LoadState,
    PeerMisbehaved,
    RolledBack,
    RunsLoaded,
    Shares,
    StateLoaded,
    WindowIntegrated,
    WindowStored,
)
from protocol.frames import FrameReader, to_frames
from protocol.ids import SYSTEM_SPACE_NAME, Author, NetworkId, SpaceId, space_id
from protocol.messages import (
    ERROR_TEXT_MAX,
    HEADS_MAX,
    SPACES_MAX,
    Ack,
    Done,
    Error,
    Lack,
    Message,
    Offer,
    Open,
    Ping,
    Root,
    Roots,
    SpaceTips,
    Tip,
    Want,
    Window,
    Yours,
    decode_message,
    encode_message,
    message_size_max,
)

IDLE_AFTER_MS = 30_000  # three keep-alives missed
PING_EVERY_MS = 10_000
ROOT_EVERY_MS = 1_000  # between roots told on a live link: a mismatch is found this late at worst
CREDITS = 2  # windows under way in one direction: one on the wire while the other is stored
CREDITS_MAX = 8  # that we use, however many a peer gives
WINDOW_TARGET_BYTES = 1 << 20  # small enough that a link is not blocked for long, large enough for long runs
WANTED_MAX = 4_096  # chains; no more heads are offered before some have been sent
REMEMBERED_MAX = 4_096  # chains of which we remember what the peer has, or that we gave up
ROUNDS_MAX = 3  # comparisons without any progress before we say so and wait for a change


class State(Enum):
    """Where a session stands."""

    NEW = "new"
    OPENING = "opening"
    COMPARING = "comparing"  # opened, and the peer has not yet told what it holds of ours
    RUNNING = "running"
    CLOSED = "closed"


class _Unexpected(ProtocolError):
    """A message that does not belong here."""


class SyncSession:
    """One side of one conversation. The caller of the link speaks first."""

    def __init__(
        self,
        *,
        is_caller: bool,
        network_id: NetworkId,
        author: Author,
        peer: Author,
        peer_epoch: str,
        now_ms: int,
        shares: Shares = EVERYTHING,
        window_target_bytes: int = WINDOW_TARGET_BYTES,
    ) -> None:
        """`author` is who we write as, `peer` who the other side has proved to be."""
        self._is_caller = is_caller
        self._network_id = network_id
        self._author = author
        self._peer = peer
        self._peer_epoch = peer_epoch
        self._shares = shares
        self._window_target_bytes = window_target_bytes
        self._state = State.NEW
        self._frames = FrameReader(message_size_max)
        self._outbox = bytearray()
        self._events: list[Event] = []
        self._now_ms = now_ms
        self._heard_ms = self._spoke_ms = now_ms
        self._space_ids: dict[str, SpaceId] = {}
        # What the peer gets from us.
        self._may_send = False  # it has told what it holds of ours, and we lack none of it
        self._spaces_to_offer: deque[tuple[str, bytes]] = deque()  # name, and the author after whom to go on
        self._told_position = 0  # of our arrivals, all up to this one is offered or known to be there
        self._our_position = 0
        self._offered: list[tuple[ChainKey, Tip]] | None = None  # not answered yet
        self._is_loading_offer = False
        self._wanted: dict[ChainKey, int] = {}
        self._asked: dict[ChainKey, int] | None = None  # of storage: the wants of the window being loaded
        self._wants_received = self._wants_answered = 0
        self._windows_sent = self._windows_acked = 0
        self._credits = CREDITS
        self._peer_has: dict[ChainKey, int] = {}
        # What we get from the peer.
        self._questions: deque[Yours | Offer] = deque()
        self._is_finding = False
        self._wants_sent = self._wants_done = 0
        self._windows_stored = self._windows_storing = 0
        self._names: set[str] = set()  # of spaces that were named on this link
        self._given_up: dict[ChainKey, int] = {}
        # Comparing.
        self._peer_open: Open | None = None
        self._peer_root: Root | None = None  # told, and not compared yet
        self._peer_roots: Roots | None = None
        self._owes_roots = self._expects_roots = False
        self._owes_root = False  # something has changed since we last told ours
        self._is_loading_state = False
        self._rounds = 0
        self._is_live = False
        self._root_told_ms = now_ms - ROOT_EVERY_MS

    # -- the face ------------------------------------------------------------------------------------------

    @property
    def is_closed(self) -> bool:
        return self._state is State.CLOSED

    @property
    def is_live(self) -> bool:
        """Whether both sides have held the same at least once."""
        return self._is_live

    @property
    def held_bytes(self) -> int:
        """What is buffered: for those who bound memory."""
        return self._frames.held_bytes + len(self._outbox)

    @property
    def deadline_ms(self) -> int | None:
        """When to call `on_deadline`; None once closed."""
        if self.is_closed:
            return None
        deadline = min(self._heard_ms + IDLE_AFTER_MS, self._spoke_ms + PING_EVERY_MS)
        if self._owes_root and self._is_live and self._is_quiet and not self._is_loading_state:
            deadline = min(deadline, self._root_told_ms + ROOT_EVERY_MS)
        return deadline

    def take_bytes(self) -> bytes:
        """What should now go to the peer, once. On a link that is full, take it before handing in more."""
        taken = bytes(self._outbox)
        self._outbox.clear()
        return taken

    def receive(self, data: bytes, now_ms: int) -> list[Event]:
        """Take bytes from the peer; return what they mean, in order.

        `data` may hold half a frame or ten. A peer's fault is never raised: it is the last event,
        `PeerMisbehaved`, and later input is ignored.
        """
        if self.is_closed:
            return []
        self._now_ms = self._heard_ms = now_ms
        self._frames.feed(data)
        try:
            while not self.is_closed and (payload := self._frames.next()) is not None:
                self._handle(decode_message(payload))
                self._go_on()
        except ProtocolError as fault:
            self._end(PeerMisbehaved(str(fault)), code=1)
        return self._take_events()

    def receive_eof(self) -> list[Event]:
        """The link is gone."""
        if not self.is_closed:
            self._end(Ended("the link is closed"), code=None)
        return self._take_events()

    def on_deadline(self, now_ms: int) -> list[Event]:
        if self.is_closed:
            return []
        self._now_ms = now_ms
        if now_ms >= self._heard_ms + IDLE_AFTER_MS:
            self._end(Ended("the peer is silent"), code=None)
            return self._take_events()
        if now_ms >= self._spoke_ms + PING_EVERY_MS:
            self._send(Ping())
        self._go_on()
        return self._take_events()

    def send(self, given: Input, now_ms: int) -> list[Event]:
        """Take an answer to an effect, or a word of the owner. Ignored once closed.

        Raises `LocalMisuse` for an answer to what was not asked.
        """
        if self.is_closed:
            return []
        self._now_ms = now_ms
        match given:
            case Begin() if self._state is State.NEW:
                self._state = State.OPENING
                if self._is_caller:
                    self._load_state()
            case Arrived(position):
                self._our_position = max(self._our_position, position)
            case Close(reason):
                self._end(Ended(reason), code=0)
            case StateLoaded() if self._is_loading_state:
                self._is_loading_state = False
                self._on_state(given)
            case HeadsLoaded() if self._is_loading_offer and self._spaces_to_offer:
                self._is_loading_offer = False
                self._on_heads(given)
            case ArrivalsLoaded() if self._is_loading_offer and not self._spaces_to_offer:
                self._is_loading_offer = False
                self._on_arrivals(given)
            case LackingFound() if self._is_finding:
                self._is_finding = False
                self._on_lacking(given)
            case RunsLoaded() if self._asked is not None:
                self._on_runs(given, self._asked)
            case WindowIntegrated() if self._windows_storing:
                self._on_integrated(given)
            case _:
                raise LocalMisuse(f"{type(given).__name__} while {self._state.value}: it was not asked for")
        self._go_on()
        return self._take_events()

    # -- messages ------------------------------------------------------------------------------------------

    def _handle(self, message: Message) -> None:
        match self._state, message:
            case (State.OPENING, Open()) if self._peer_open is None:
                self._on_open(message)
            case (State.COMPARING, Yours()):
                if any(tip.author != self._author for space in message.spaces for tip in space.tips):
                    raise Malformed("told what it holds of another's chain as if it were ours")
                self._state = State.RUNNING
                self._ask(message)
            case (State.RUNNING, Offer()):
                if any(type(question) is Offer for question in self._questions):
                    raise _Unexpected("an offer while another waits for its answer")
                self._ask(message)
            case (State.RUNNING, Want()) if self._offered is not None:
                self._on_want(message, self._offered)
            case (State.RUNNING, Window()) if self._windows_storing < CREDITS:
                self._windows_storing += 1
                self._peer_root = None
                names = tuple(sorted(self._names))
                self._events.append(IntegrateWindow(message.data, names, self._shares))
            case (State.RUNNING, Ack()) if self._windows_acked <= message.windows <= self._windows_sent:
                self._windows_acked, self._credits = message.windows, min(message.credits, CREDITS_MAX)
                self._owes_root = True
            case (State.RUNNING, Done()) if self._wants_done < message.wants <= self._wants_sent:
                self._wants_done = message.wants
            case (State.RUNNING, Root()):
                self._peer_root = message
            case (State.RUNNING, Roots()):
                self._learn([space for space, _ in message.roots])
                self._peer_roots = message
                self._owes_roots, self._expects_roots = not self._expects_roots, False
            case (_, Ping()):
                pass
            case (_, Error(_, text)):
                self._end(Ended(f"the peer ended it: {text}"), code=None)
            case _:
                raise _Unexpected(f"{type(message).__name__} while {self._state.value}")

    def _ask(self, question: Yours | Offer) -> None:
        self._learn([space for space, _ in question.spaces])
        self._questions.append(question)

    def _learn(self, names: list[str]) -> None:
        self._names.update(names)
        if len(self._names) > SPACES_MAX:
            raise TooLarge("spaces on one link", size=len(self._names), size_max=SPACES_MAX)

    # -- opening -------------------------------------------------------------------------------------------

    def _on_open(self, message: Open) -> None:
        self._peer_open = message
        if not self._is_caller:
            self._load_state()
        elif self._is_loading_state:
            raise _Unexpected("Open before ours")
        else:
            self._compare_first()

    def _on_state(self, state: StateLoaded) -> None:
        self._loaded = state
        self._our_position = max(self._our_position, state.position)
        if self._state is State.OPENING:
            self._send(Open(state.root, state.cursor, state.position))
            if not self._is_caller:
                self._compare_first()
        elif self._peer_roots is not None:
            self._compare_spaces(state, self._peer_roots)
        elif self._is_quiet:
            self._tell_root(state)

    def _compare_first(self) -> None:
        """Both roots are known. Equal, and that was all; else each tells what it holds of the other."""
        state, theirs = self._loaded, self._peer_open
        assert theirs is not None
        self._names.update(space for space, _ in state.roots)
        if state.root == theirs.root:
            self._state, self._may_send = State.RUNNING, True
            self._told_position = state.position
            self._in_sync(theirs.position)
            return
        if theirs.cursor > state.position:
            self._lost(self._loaded.roots[0].space if state.roots else "", theirs.cursor)
            return
        self._state = State.COMPARING
        self._owes_root = True
        self._send(Yours(state.theirs))
        # Both sides know all four numbers, so both come to the same decision.
        if theirs.cursor and state.cursor and state.cursor <= theirs.position:
            self._told_position = theirs.cursor
        else:
            self._told_position = state.position
            self._send(Roots(state.roots))
            self._expects_roots = True

    # -- comparing -----------------------------------------------------------------------------------------

    def _compare_spaces(self, state: StateLoaded, theirs: Roots) -> None:
        """Offer the heads of every space in which we differ; the peer does the same."""
        self._peer_roots = None
        if self._owes_roots:
            self._owes_roots = False
            self._send(Roots(state.roots))
        known = dict(theirs.roots)
        held = {space for space, _ in self._spaces_to_offer}
        differing = [space for space, root in state.roots if known.get(space) != root and space not in held]
        differing.sort(key=lambda space: space != SYSTEM_SPACE_NAME)  # what all else depends on goes first
        self._spaces_to_offer += [(space, b"") for space in differing]
        self._told_position = max(self._told_position, state.position)
        self._owes_root = True

    def _tell_root(self, state: StateLoaded) -> None:
        """Nothing is under way: say where we stand, and compare with where the peer does."""
        theirs, self._peer_root = self._peer_root, None
        if self._owes_root and self._is_root_due:
            self._owes_root = False
            self._root_told_ms = self._now_ms
            self._send(Root(state.root, state.position))
        if theirs is None:
            return
        if theirs.root == state.root:
            self._in_sync(theirs.position)
        elif self._rounds < ROUNDS_MAX:
            self._rounds += 1
            self._names.update(space for space, _ in state.roots)
            self._send(Roots(state.roots))
            self._expects_roots = True
        elif self._rounds == ROUNDS_MAX:
            self._rounds += 1
            self._events.append(Diverged(state.root, theirs.root))

    @property
    def _is_root_due(self) -> bool:
        return not self._is_live or self._now_ms >= self._root_told_ms + ROOT_EVERY_MS

    def _in_sync(self, position: int) -> None:
        self._is_live = True
        self._rounds = 0
        self._events.append(InSync(position))

    @property
    def _is_quiet(self) -> bool:
        """Whether nothing is under way in either direction."""
        sends = (
            self._spaces_to_offer or self._is_loading_offer or self._offered is not None or self._wanted
            or self._asked is not None or self._told_position < self._our_position
            or self._wants_answered < self._wants_received or self._windows_acked < self._windows_sent
        )  # fmt: skip
        receives = self._questions or self._wants_done < self._wants_sent or self._windows_storing
        compares = self._peer_roots is not None or self._expects_roots
        return self._state is State.RUNNING and self._may_send and not (sends or receives or compares)

    # -- what the peer lacks -------------------------------------------------------------------------------

    def _on_heads(self, loaded: HeadsLoaded) -> None:
        space, _ = self._spaces_to_offer.popleft()
        if not loaded.is_last and loaded.tips:
            self._spaces_to_offer.appendleft((space, loaded.tips[-1].author))
        tips = tuple(tip for tip in loaded.tips if tip.author != self._peer)
        if tips:
            self._offer([SpaceTips(space, tips)])

    def _on_arrivals(self, loaded: ArrivalsLoaded) -> None:
        self._told_position = loaded.position
        if not loaded.is_last:
            self._our_position = max(self._our_position, loaded.position + 1)
        offers: dict[str, list[Tip]] = {}
        for fresh in loaded.fresh:
            key = self._key(fresh.space, fresh.tip.author)
            if fresh.tip.author == self._peer or self._peer_has.get(key, 0) >= fresh.tip.seq:
                continue
            if self._is_live and fresh.tip.author == self._author and fresh.space in self._names:
                self._push(key, fresh)
            else:
                offers.setdefault(fresh.space, []).append(fresh.tip)
        if offers:
            self._offer([SpaceTips(space, tuple(tips)) for space, tips in offers.items()])

    def _push(self, key: ChainKey, fresh: Fresh) -> None:
        """Our own commits go out unasked: nobody else can have brought them."""
        self._wanted.setdefault(key, fresh.first_seq - 1)

    def _offer(self, spaces: list[SpaceTips]) -> None:
        self._names.update(space for space, _ in spaces)
        self._offered = [(self._key(space, tip.author), tip) for space, tips in spaces for tip in tips]
        self._send(Offer(tuple(spaces)))

    def _on_want(self, message: Want, offered: list[tuple[ChainKey, Tip]]) -> None:
        self._offered = None
        for index, after_seq in message.lacks:
            if index >= len(offered) or after_seq >= offered[index][1].seq:
                raise Malformed("wants what was not offered")
        for key, tip in offered:
            self._remember(key, tip.seq)
        for index, after_seq in message.lacks:
            self._wanted[offered[index][0]] = after_seq
        self._wants_received += bool(message.lacks)

    def _on_runs(self, loaded: RunsLoaded, asked: dict[ChainKey, int]) -> None:
        self._asked = None
        for key, seq in loaded.sent_to:
            if self._wanted.get(key) == asked[key]:  # else the peer has asked anew meanwhile
                self._wanted[key] = asked[key] = seq
            self._remember(key, seq)
        gone = loaded.exhausted if loaded.window is not None else asked.keys()
        for key in gone:
            if self._wanted.get(key) == asked[key]:
                del self._wanted[key]
        if loaded.window is not None:
            self._send(Window(loaded.window))
            self._windows_sent += 1
            self._peer_root = None

    def _remember(self, key: ChainKey, seq: int) -> None:
        """The peer has this, or was told that we do. Forgetting costs an offer in vain."""
        self._peer_has[key] = max(seq, self._peer_has.pop(key, 0))
        if len(self._peer_has) > REMEMBERED_MAX:
            del self._peer_has[next(iter(self._peer_has))]

    # -- what we lack --------------------------------------------------------------------------------------

    def _on_lacking(self, found: LackingFound) -> None:
        question = self._questions.popleft()
        told = [(space, tip) for space, tips in question.spaces for tip in tips]
        for index, _ in sorted(found.lacking + found.forked):
            space, tip = told[index]
            if tip.author == self._author:
                self._lost(space, tip.seq)
                return
        if type(question) is Yours:
            self._may_send = True
            return
        lacks: list[Lack] = []
        for index, after_seq in sorted(found.lacking + found.forked):
            space, tip = told[index]
            if space in self._shares and self._key(space, tip.author) not in self._given_up:
                lacks.append(Lack(index, after_seq))
        for space, tip in told:
            self._remember(self._key(space, tip.author), tip.seq)
        self._wants_sent += bool(lacks)
        self._send(Want(tuple(lacks)))

    def _on_integrated(self, done: WindowIntegrated) -> None:
        self._windows_storing -= 1
        if done.fault is not None:
            self._end(PeerMisbehaved(done.fault), code=1)
            return
        self._windows_stored += 1
        self._our_position = max(self._our_position, done.position)
        self._owes_root = True
        if done.integrated:
            self._rounds = 0
        for key, seq in done.tips:
            self._remember(key, seq)
        gone = [(found.space, found.author, found.seq) for found in done.forks]
        for space, author, seq in gone + [(found.space, found.author, found.seq) for found in done.refused]:
            self._given_up[space, author] = seq
            if len(self._given_up) > REMEMBERED_MAX:
                del self._given_up[next(iter(self._given_up))]
        self._events += [*done.forks, *done.refused, WindowStored(done.integrated, done.waiting)]
        self._send(Ack(self._windows_stored, CREDITS))

    def _lost(self, space: str, seq: int) -> None:
        self._end(RolledBack(space, seq), code=2)

    # -- after every input ---------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Ask storage for whatever is next."""
        if self._state is not State.RUNNING:
            return
        if self._questions and not self._is_finding:
            self._is_finding = True
            if self._questions[0].spaces:
                self._events.append(FindLacking(self._questions[0].spaces))
            else:
                self._is_finding = False
                self._on_lacking(LackingFound((), ()))
        if self._may_send:
            self._go_on_sending()
        if not self._is_loading_state and (self._peer_roots is not None or self._has_root_to_tell):
            self._load_state()

    def _go_on_sending(self) -> None:
        if self._offered is None and not self._is_loading_offer and len(self._wanted) < WANTED_MAX:
            if self._spaces_to_offer:
                space, after = self._spaces_to_offer[0]
                self._is_loading_offer = True
                self._events.append(LoadHeads(space, after, HEADS_MAX))
            elif self._told_position < self._our_position and self._peer_roots is None:
                self._is_loading_offer = True
                self._events.append(LoadArrivals(self._told_position, self._shares, HEADS_MAX))
        under_way = self._windows_sent - self._windows_acked
        if self._wanted and self._asked is None and under_way < self._credits:
            self._asked = dict(self._wanted)
            self._events.append(LoadRuns(tuple(self._asked.items()), self._window_target_bytes))
        if not self._wanted and self._asked is None and self._wants_answered < self._wants_received:
            self._wants_answered = self._wants_received
            self._send(Done(self._wants_answered))

    @property
    def _has_root_to_tell(self) -> bool:
        is_due = self._owes_root and self._is_root_due
        return (is_due or self._peer_root is not None) and self._is_quiet

    def _load_state(self) -> None:
        self._is_loading_state = True
        self._events.append(LoadState(self._peer, self._peer_epoch, self._shares))

    def _key(self, space: str, author: Author) -> ChainKey:
        known = self._space_ids.get(space)
        if known is None:
            if len(self._space_ids) > 2 * SPACES_MAX:
                self._space_ids.clear()
            known = self._space_ids[space] = space_id(self._network_id, space)
        return known, author

    def _send(self, message: Message) -> None:
        self._outbox += to_frames(encode_message(message))
        self._spoke_ms = self._now_ms

    def _end(self, last: Event, *, code: int | None) -> None:
        """Close; with a code, the peer is told."""
        if code is not None:
            text = "" if isinstance(last, RolledBack) else getattr(last, "reason", "")
            self._send(Error(code, text[:ERROR_TEXT_MAX]))
        self._state = State.CLOSED
        self._events.append(last)

    def _take_events(self) -> list[Event]:
        events, self._events = self._events, []
        return events
