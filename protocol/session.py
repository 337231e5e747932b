"""One sync conversation with one peer: both end up with the same commits, whatever either had before.

Room: peer bytes become events, inputs become bytes. Nothing here opens a socket,
reads a clock, draws a random number or touches storage: bytes, `now_ms` and what
storage answers are all handed in. Framing is `frames`', layouts are `messages`',
what is asked of storage is in `exchange`. This module opens, compares and ends;
`outgoing` and `incoming` are the two directions in between. The node's runtime
and the simulator drive this class alike.

    open     each side tells one root over all shared spaces; equal, and that was all
    yours    each tells what it holds of the other's own chains, before the other sends any
    offer    heads that the other may lack: those that arrived here after its cursor, or, where there is
             none, those of every space whose root differs; answered by want, with the seqs after which
    window   runs of what was wanted, causes first, as many under way as there are credits; each is acked
             when it is stored, and done says that all that was wanted has been sent
    root     by each side whenever it has nothing under way; if they differ, both compare space by space
    live     our own new commits go out at once, those of others are offered

Nothing is remembered between sessions but what is stored, so a cut at any place
costs what was under way and no more.
"""

from enum import Enum

from protocol.conversation import Conversation
from protocol.errors import LocalMisuse, ProtocolError
from protocol.exchange import (
    EVERYTHING,
    ArrivalsLoaded,
    Arrived,
    Begin,
    Close,
    Compare,
    Compared,
    Diverged,
    Ended,
    Event,
    HeadsLoaded,
    Input,
    InSync,
    LackingFound,
    LoadState,
    PeerHolds,
    PeerMisbehaved,
    RolledBack,
    RunsLoaded,
    Shares,
    StateLoaded,
    Unacquainted,
    WindowIntegrated,
)
from protocol.frames import FrameReader
from protocol.ids import SYSTEM_SPACE_NAME, Author, NetworkId
from protocol.incoming import Incoming
from protocol.messages import (
    ERROR_TEXT_MAX,
    Ack,
    Done,
    Error,
    Message,
    Offer,
    Open,
    Ping,
    Root,
    Roots,
    Want,
    Who,
    Window,
    Yours,
    decode_message,
    message_size_max,
)
from protocol.outgoing import Outgoing

IDLE_AFTER_MS = 30_000  # three keep-alives missed
PING_EVERY_MS = 10_000
# Without an answer from a peer that is alive: storing a window takes seconds at worst.
STALLED_AFTER_MS = 120_000
SLOW_BYTES = 64 << 10  # of a long message count as an answer: half a kilobyte a second is enough
ROOT_EVERY_MS = 1_000  # between roots told on a live link: a mismatch is found this late at worst
WINDOW_TARGET_BYTES = 1 << 20  # small enough that a link is not blocked for long, large enough for long runs
ROUNDS_MAX = 3  # comparisons of the same two roots before we say so
ROUND_AGAIN_MS = 60_000  # and then try once more


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
        self._peer_epoch = peer_epoch
        self._state = State.NEW
        self._talk = Conversation(
            network_id=network_id, author=author, peer=peer, shares=shares, now_ms=now_ms
        )
        self._outgoing = Outgoing(self._talk, window_target_bytes)
        self._incoming = Incoming(self._talk)
        self._frames = FrameReader(message_size_max)
        self._heard_ms = now_ms
        self._opened: StateLoaded | None = None  # as we told it
        self._peer_open: Open | None = None
        self._peer_root: Root | None = None  # told, and not compared yet
        self._peer_roots: Roots | None = None
        self._owes_roots = self._expects_roots = False
        self._is_loading_state = False
        self._is_live = False
        self._rounds = 0
        self._differing: tuple[bytes, bytes] | None = None  # the roots that were compared last
        self._round_again_ms: int | None = None
        self._root_told_ms = now_ms - ROOT_EVERY_MS
        self._settled_position = 0
        self._is_to_compare = False  # as the owner has asked
        self._comparisons = 0  # since then, or since anything came of one
        self._compared_ms: int | None = None
        self._credited_bytes = 0  # of a message that is not whole yet
        # What only the peer can bring forward: how far that is, and since when.
        self._owed: dict[str, tuple[int, int]] = {}

    # -- the face ------------------------------------------------------------------------------------------

    @property
    def is_closed(self) -> bool:
        return self._state is State.CLOSED

    @property
    def is_live(self) -> bool:
        """Whether both sides have held the same at least once."""
        return self._is_live

    @property
    def is_in_sync(self) -> bool:
        """Whether both sides have held the same, and nothing that we know of is under way since."""
        return self._is_live and self._round_again_ms is None and self._is_quiet

    @property
    def has_diverged(self) -> bool:
        """Whether roots differ although nothing is left to exchange."""
        return self._round_again_ms is not None

    @property
    def compared_ms(self) -> int | None:
        """When the peer last told, space by space, that it holds what is held here; None if it has not."""
        return self._compared_ms

    @property
    def settled_position(self) -> int:
        """Up to which of our arrivals the peer surely holds everything."""
        return self._settled_position

    @property
    def sent_bodies(self) -> int:
        """How many changes of documents this session has sent."""
        return self._outgoing.sent_bodies

    @property
    def held_bytes(self) -> int:
        """What is buffered: for those who bound memory."""
        return self._frames.held_bytes + len(self._talk.outbox)

    @property
    def deadline_ms(self) -> int | None:
        """When to call `on_deadline`; None once closed."""
        if self.is_closed:
            return None
        deadlines = [self._heard_ms + IDLE_AFTER_MS, self._talk.spoke_ms + PING_EVERY_MS]
        if self._talk.owes_root and self._is_live and self._is_quiet and not self._is_loading_state:
            deadlines.append(self._root_told_ms + ROOT_EVERY_MS)
        if self._round_again_ms is not None:
            deadlines.append(self._round_again_ms)
        deadlines += [since_ms + STALLED_AFTER_MS for _, since_ms in self._owed.values()]
        return min(deadlines)

    def take_bytes(self) -> bytes:
        """What should now go to the peer, once. On a link that is full, take it before handing in more."""
        taken = bytes(self._talk.outbox)
        self._talk.outbox.clear()
        return taken

    def rest(self) -> bytes:
        """After `Unacquainted`: what was received beyond, for the machine that goes on."""
        return self._frames.rest()

    def receive(self, data: bytes, now_ms: int) -> list[Event]:
        """Take bytes from the peer; return what they mean, in order.

        `data` may hold half a frame or ten. A peer's fault is never raised: it is the last event,
        `PeerMisbehaved`, and later input is ignored.
        """
        if self.is_closed:
            return []
        self._talk.now_ms = self._heard_ms = now_ms
        self._frames.feed(data)
        try:
            while not self.is_closed and (payload := self._frames.next()) is not None:
                self._handle(decode_message(payload))
                self._go_on()
            self._credit_bytes()
        except ProtocolError as fault:
            self._end(PeerMisbehaved(str(fault), fault.kind), code=1)
        return self._take_events()

    def _credit_bytes(self) -> None:
        """A long message on a slow line is as good as an answer, while enough of it comes."""
        held = self._frames.held_bytes
        if held >= self._credited_bytes + SLOW_BYTES:
            self._owed = {what: (far, self._talk.now_ms) for what, (far, _) in self._owed.items()}
        elif held >= self._credited_bytes:
            return
        self._credited_bytes = held

    def receive_eof(self) -> list[Event]:
        """The link is gone."""
        if not self.is_closed:
            self._end(Ended("the link is closed"), code=None)
        return self._take_events()

    def on_deadline(self, now_ms: int) -> list[Event]:
        if self.is_closed:
            return []
        self._talk.now_ms = now_ms
        if now_ms >= self._heard_ms + IDLE_AFTER_MS:
            self._end(Ended("the peer is silent"), code=None)
            return self._take_events()
        if any(now_ms >= since_ms + STALLED_AFTER_MS for _, since_ms in self._owed.values()):
            self._end(Ended("the peer does not answer"), code=0)
            return self._take_events()
        if now_ms >= self._talk.spoke_ms + PING_EVERY_MS:
            self._talk.send(Ping())
        if self._round_again_ms is not None and now_ms >= self._round_again_ms:
            self._round_again_ms, self._rounds = None, ROUNDS_MAX - 1
            self._talk.owes_root = True
        self._go_on()
        return self._take_events()

    def send(self, given: Input, now_ms: int) -> list[Event]:
        """Take an answer to an effect, or a word of the owner. Ignored once closed.

        Raises `LocalMisuse` for an answer to what was not asked.
        """
        if self.is_closed:
            return []
        self._talk.now_ms = now_ms
        match given:
            case Begin() if self._state is State.NEW:
                self._state = State.OPENING
                if self._is_caller:
                    self._load_state()
            case Arrived() if self._state is State.RUNNING and self._incoming.is_checked:
                self._outgoing.on_arrived(given)
            case Arrived(position):
                self._talk.arrived(position)
            case Compare():
                self._is_to_compare, self._comparisons = True, 0
            case Close(reason):
                self._end(Ended(reason), code=0)
            case StateLoaded() if self._is_loading_state:
                self._is_loading_state = False
                self._on_state(given)
            case HeadsLoaded():
                self._outgoing.on_heads(given)
            case ArrivalsLoaded():
                self._outgoing.on_arrivals(given)
            case RunsLoaded():
                if self._outgoing.on_runs(given):
                    self._peer_root = None  # it will have another when it has stored this
            case LackingFound():
                self._outgoing.prove(given.proofs)
                self._end_if(self._incoming.on_lacking(given), code=2)
            case WindowIntegrated():
                self._end_if(self._incoming.on_integrated(given), code=1)
            case _:
                raise LocalMisuse(f"{type(given).__name__} while {self._state.value}")
        self._go_on()
        return self._take_events()

    # -- the state table -----------------------------------------------------------------------------------

    def _handle(self, message: Message) -> None:
        match self._state, message:
            case (State.OPENING, Open()) if self._peer_open is None and not self._is_loading_state:
                self._peer_open = message
                if self._is_caller:
                    self._compare_first()
                else:
                    self._load_state()
            case (State.COMPARING, Yours()):
                self._state = State.RUNNING
                self._incoming.on_yours(message)
            case (State.RUNNING, Offer()):
                self._incoming.on_offer(message)
            case (State.RUNNING, Want()):
                self._outgoing.on_want(message)
            case (State.RUNNING, Window()):
                self._peer_root = None
                self._incoming.on_window(message)
            case (State.RUNNING, Ack()):
                self._outgoing.on_ack(message)
            case (State.RUNNING, Done()):
                self._incoming.on_done(message)
            case (State.RUNNING, Root()):
                self._peer_root = message
            case (State.RUNNING, Roots()):
                self._talk.learn([space for space, _ in message.roots])
                self._peer_roots = message
                self._owes_roots, self._expects_roots = not self._expects_roots, False
            case (State.OPENING, Who()):
                self._state = State.CLOSED
                self._talk.emit(Unacquainted())
            case (_, Ping()):
                pass
            case (_, Error(_, text)):
                self._end(Ended(f"the peer ended it: {text}"), code=None)
            case _:
                raise _Unexpected(f"{type(message).__name__} while {self._state.value}")

    def _go_on(self) -> None:
        """After every input: ask storage for whatever is next, and note what the peer owes."""
        self._ask_on()
        owed: dict[str, tuple[int, int]] = {}
        for what, far in self._owes().items():
            known = self._owed.get(what)
            owed[what] = known if known is not None and known[0] == far else (far, self._talk.now_ms)
        self._owed = owed

    def _owes(self) -> dict[str, int]:
        """What only the peer can bring forward, and how far it has."""
        if self._state is State.RUNNING:
            owed = self._outgoing.owed() | self._incoming.owed()
            if self._expects_roots:
                owed["roots"] = 0
            is_told = not (self._talk.owes_root or self._is_loading_state)
            if not self._is_live and self._round_again_ms is None and is_told and self._is_quiet:
                owed["root"] = 0
            return owed
        is_our_turn = self._state not in (State.OPENING, State.COMPARING) or self._is_loading_state
        return {} if is_our_turn else {self._state.value: 0}

    def _ask_on(self) -> None:
        if self._state is not State.RUNNING:
            return
        if self._is_live and not self._outgoing.is_sending:
            self._settled_position = self._outgoing.told_position
        if self._incoming.has_progressed:
            self._incoming.has_progressed = False
            self._rounds, self._round_again_ms = 0, None
            self._comparisons = 0
        self._incoming.go_on()
        if self._incoming.is_checked:
            self._outgoing.go_on()
        has_root = (self._talk.owes_root and self._is_root_due) or self._peer_root is not None
        is_asked = has_root or self._is_to_compare
        if not self._is_loading_state and (self._peer_roots is not None or (is_asked and self._is_quiet)):
            self._load_state()

    # -- opening -------------------------------------------------------------------------------------------

    def _load_state(self) -> None:
        self._is_loading_state = True
        self._talk.emit(LoadState(self._talk.peer, self._peer_epoch, self._talk.shares))

    def _on_state(self, state: StateLoaded) -> None:
        self._talk.arrived(state.position)
        self._outgoing.offer_branches(state.branches)
        if self._state is State.OPENING:
            self._opened = state
            self._talk.send(Open(state.root, state.cursor, state.position))
            if not self._is_caller:
                self._compare_first()
        elif self._peer_roots is not None:
            self._compare_spaces(state, self._peer_roots)
        elif self._is_quiet:
            self._tell_root(state)
            self._compare_again(state)

    def _compare_first(self) -> None:
        """Both roots are known. Equal, and that was all; else each tells what it holds of the other."""
        ours, theirs, talk = self._opened, self._peer_open, self._talk
        assert ours is not None and theirs is not None
        talk.names.update(space for space, _ in ours.roots)
        self._settled_position = min(theirs.cursor, ours.position)
        if self._settled_position:
            talk.emit(PeerHolds(position=self._settled_position))
        if ours.root == theirs.root:
            self._state, self._incoming.is_checked = State.RUNNING, True
            self._outgoing.told_position = ours.position
            self._in_sync(theirs.position, ours.position)
            return
        if theirs.cursor > ours.position:
            self._end(RolledBack(SYSTEM_SPACE_NAME, 0), code=2)
            return
        self._state = State.COMPARING
        talk.owes_root = True
        talk.send(Yours(ours.theirs))
        # Both sides know all four numbers, so both come to the same decision.
        if theirs.cursor and 0 < ours.cursor <= theirs.position:
            self._outgoing.told_position = theirs.cursor
        else:
            self._outgoing.told_position = ours.position
            talk.send(Roots(ours.roots))
            self._expects_roots = True

    # -- comparing -----------------------------------------------------------------------------------------

    def _compare_spaces(self, state: StateLoaded, theirs: Roots) -> None:
        """Offer the heads of every space in which we differ; the peer does the same."""
        self._peer_roots = None
        if self._owes_roots:
            self._owes_roots = False
            self._tell_roots(state)
        known = dict(theirs.roots)
        if self._is_to_compare and known == dict(state.roots):
            self._is_to_compare, self._compared_ms = False, self._talk.now_ms
            self._talk.emit(Compared())
        differing = [space for space, root in state.roots if known.get(space) != root]
        differing.sort(key=lambda space: space != SYSTEM_SPACE_NAME)  # what all else depends on goes first
        self._outgoing.offer_spaces(differing)
        self._outgoing.told_position = max(self._outgoing.told_position, state.position)
        self._talk.owes_root = True

    def _compare_again(self, state: StateLoaded) -> None:
        """The owner wants to know; as often as it takes, and no oftener than anything comes of it."""
        if self._is_to_compare and not self._expects_roots:
            self._is_to_compare = self._comparisons < ROUNDS_MAX
            self._comparisons += 1
            if self._is_to_compare:
                self._tell_roots(state)
                self._expects_roots = True

    def _tell_roots(self, state: StateLoaded) -> None:
        self._talk.names.update(space for space, _ in state.roots)
        self._talk.send(Roots(state.roots))

    def _tell_root(self, state: StateLoaded) -> None:
        """Nothing is under way: say where we stand, and compare with where the peer does."""
        theirs, self._peer_root = self._peer_root, None
        if self._talk.owes_root and self._is_root_due:
            self._talk.owes_root = False
            self._root_told_ms = self._talk.now_ms
            self._talk.send(Root(state.root, state.position))
        if theirs is None:
            return
        if theirs.root == state.root:
            self._in_sync(theirs.position, state.position)
            return
        differing = state.root, theirs.root
        if differing != self._differing:  # either side has got something since: that is progress
            self._differing, self._rounds, self._round_again_ms = differing, 0, None
        if self._rounds < ROUNDS_MAX:
            self._rounds += 1
            self._tell_roots(state)
            self._expects_roots = True
        elif self._round_again_ms is None:
            self._round_again_ms = self._talk.now_ms + ROUND_AGAIN_MS
            self._talk.emit(Diverged(state.root, theirs.root))

    def _in_sync(self, position: int, our_position: int) -> None:
        self._is_live = self._outgoing.pushes = True
        self._rounds, self._round_again_ms = 0, None
        self._talk.emit(PeerHolds(position=our_position), InSync(position))

    @property
    def _is_root_due(self) -> bool:
        return not self._is_live or self._talk.now_ms >= self._root_told_ms + ROOT_EVERY_MS

    @property
    def _is_quiet(self) -> bool:
        """Whether nothing is under way in either direction."""
        is_comparing = self._peer_roots is not None or self._expects_roots
        is_busy = is_comparing or self._outgoing.is_busy or self._incoming.is_busy
        return self._state is State.RUNNING and self._incoming.is_checked and not is_busy

    # -- ending --------------------------------------------------------------------------------------------

    def _end_if(self, last: PeerMisbehaved | RolledBack | None, *, code: int) -> None:
        if last is not None:
            self._end(last, code=code)

    def _end(self, last: PeerMisbehaved | RolledBack | Ended, *, code: int | None) -> None:
        """Close; with a code, the peer is told."""
        if code is not None:
            text = "" if isinstance(last, RolledBack) else last.reason
            self._talk.send(Error(code, text[:ERROR_TEXT_MAX]))
        self._state = State.CLOSED
        self._talk.emit(last)

    def _take_events(self) -> list[Event]:
        events, self._talk.events = self._talk.events, []
        return events
