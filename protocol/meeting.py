"""A conversation about membership on one link: what all such conversations share.

Room: frames, deadlines, what is asked of the owner and what the owner is told, as a
machine without a socket, a clock or storage. Who says what, and what follows, is
`joining`'s. One message is under way in each direction, one effect is asked for at a
time, evidence has a limit in all, and every conversation has its time.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum

from protocol.errors import LocalMisuse, ProtocolError
from protocol.evidence import Evidence
from protocol.exchange import PeerMisbehaved
from protocol.frames import FrameReader, to_frames
from protocol.ids import Author, NetworkId, NodeId
from protocol.membership import Members, Rights
from protocol.messages import (
    Declined,
    Error,
    Message,
    Shown,
    decode_message,
    encode_message,
    message_size_max,
)
from protocol.statements import Admit

IDLE_AFTER_MS = 30_000  # without a word, while one is waited for
WHOLE_TIMEOUT_MS = 600_000  # 64 MiB over a slow line


class Reason(IntEnum):
    """Why one side ends the conversation. Numbers are for ever; an unknown one is as good as `OTHER`."""

    OTHER = 0
    TICKET_USED = 1
    EXPIRED = 2
    NO_INVITATION = 3
    REVOKED = 4
    CANNOT_ADMIT = 5
    NOT_PROVEN = 6
    NO_ROLE = 7
    TOO_MUCH = 8
    FAILED = 9

    @property
    def text(self) -> str:
        """What a person is told."""
        return _TEXTS[self]

    @property
    def may_help_elsewhere(self) -> bool:
        """Whether another node of the network may know better."""
        return self in _ELSEWHERE


_TEXTS = {
    Reason.OTHER: "the other node has ended the conversation",
    Reason.TICKET_USED: "this ticket was used already: ask for a new one",
    Reason.EXPIRED: "this ticket has expired: ask for a new one",
    Reason.NO_INVITATION: "this ticket is not known there yet, or was taken back",
    Reason.REVOKED: "this device's key was revoked in that network",
    Reason.CANNOT_ADMIT: "the node that answered may not admit others",
    Reason.NOT_PROVEN: "the proof of the ticket does not hold: was it copied whole?",
    Reason.NO_ROLE: "by what is known there this node has no role in the network",
    Reason.TOO_MUCH: "there is more to show than a node will take in",
    Reason.FAILED: "the node that answered cannot write this down now",
}
_ELSEWHERE = frozenset(
    {Reason.OTHER, Reason.NO_INVITATION, Reason.CANNOT_ADMIT, Reason.NO_ROLE, Reason.FAILED}
)
# -- effects, and the answer to each -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LoadStatements:
    """Some commits of `system` after those that were shown: what `node` has its rights by, or all there are."""

    node: NodeId
    everything: bool
    shown: Mapping[Author, int]  # the last seq of each chain
    branches: int = 0  # how many runs of other branches of these chains


@dataclass(frozen=True, slots=True)
class StatementsLoaded:
    """A packed window, empty if nothing is left, and how far it goes. `is_last`: nothing is left after it."""

    data: bytes
    sent_to: tuple[tuple[Author, int], ...]
    is_last: bool
    branches: int = 0  # in it


@dataclass(frozen=True, slots=True)
class ReadShown:
    """Take in what the peer has shown: `perform` takes long enough for a thread of its own."""

    evidence: Evidence
    data: bytes
    is_folded: bool

    def perform(self) -> "ShownRead":
        try:
            self.evidence.take(self.data)
            return ShownRead(self.evidence.fold() if self.is_folded else None)
        except ProtocolError as fault:
            return ShownRead(fault=fault)


@dataclass(frozen=True, slots=True)
class ShownRead:
    """`members` is what all that was shown adds up to, if that was asked for."""

    members: Members | None = None
    fault: ProtocolError | None = None


@dataclass(frozen=True, slots=True)
class TakeIn:
    """See whether the evidence, with what is known here, gives the peer a role; if it does, store it."""

    evidence: Evidence
    node: NodeId


@dataclass(frozen=True, slots=True)
class TakenIn:
    reason: Reason | None = None  # why not


@dataclass(frozen=True, slots=True)
class WriteAdmission:
    """Write the admission down, unless the joiner is a member already."""

    admit: Admit
    body: bytes
    name: str


@dataclass(frozen=True, slots=True)
class AdmissionWritten:
    reason: Reason | None = None  # why not


MeetingEffect = LoadStatements | ReadShown | TakeIn | WriteAdmission
MeetingAnswer = StatementsLoaded | ShownRead | TakenIn | AdmissionWritten

# -- news --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Joined:
    """The joiner is of the network, with these rights. `evidence` has all statements. The last event."""

    members: Members
    rights: Rights
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Learned:
    """Of a joiner without a ticket: what the answerer has shown. The last event."""

    members: Members
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Admitted:
    """The peer has been shown everything, and is content: it is a member. The last event."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class Acquainted:
    """Both sides know the other as a member: a session may begin on this link. The last event."""


@dataclass(frozen=True, slots=True)
class NotMet:
    """It came to nothing, for one of the known reasons. The last event. `is_told`: by the peer."""

    reason: Reason
    text: str
    is_told: bool = False


MeetingNews = Joined | Learned | Admitted | Acquainted | NotMet | PeerMisbehaved
MeetingEvent = MeetingEffect | MeetingNews


class Unexpected(ProtocolError):
    """A message that does not belong here."""


class State(Enum):
    NEW = "new"
    WAITING = "waiting for a first word"
    SHOWING = "showing"
    SHOWN = "shown"
    LEARNING = "learning"
    DECIDING = "deciding"
    CLOSED = "closed"


class Meeting(ABC):
    """One side of it. `joining.Joiner` and `joining.Admitter` say what happens."""

    def __init__(self, *, network_id: NetworkId, node: NodeId, peer: NodeId, now_ms: int) -> None:
        """`node` is who we are, `peer` who the other side has proved to be. `now_ms` is of any steady clock."""
        self._network_id = network_id
        self._node = node
        self._peer = peer
        self._state = State.NEW
        self._frames = FrameReader(message_size_max)
        self._outbox = bytearray()
        self._events: list[MeetingEvent] = []
        self._heard_ms = now_ms
        self._ends_ms = now_ms + WHOLE_TIMEOUT_MS
        self._asked: type[MeetingEffect] | None = None  # of the owner, and not answered yet
        self._evidence = Evidence(network_id)
        self._is_last_read = False

    # -- the face ------------------------------------------------------------------------------------------

    @property
    def is_closed(self) -> bool:
        return self._state is State.CLOSED

    @property
    def deadline_ms(self) -> int | None:
        """When to call `on_deadline`; None once closed."""
        if self.is_closed:
            return None
        if self._asked is not None:
            return self._ends_ms
        return min(self._ends_ms, self._heard_ms + IDLE_AFTER_MS)

    def take_bytes(self) -> bytes:
        """What should now go to the peer, once."""
        taken = bytes(self._outbox)
        self._outbox.clear()
        return taken

    def rest(self) -> bytes:
        """After `Acquainted`: what was received beyond, for the session."""
        return self._frames.rest()

    @abstractmethod
    def begin(self, now_ms: int) -> list[MeetingEvent]:
        """The link is this machine's."""

    def receive(self, data: bytes, now_ms: int) -> list[MeetingEvent]:
        """Take bytes from the peer. A peer's fault is never raised: it is the last event, `PeerMisbehaved`."""
        self._frames.feed(data)
        if not self.is_closed:
            self._heard_ms = now_ms
        try:
            while not self.is_closed and (payload := self._frames.next()) is not None:
                message = decode_message(payload)
                match message:
                    case Declined(reason):
                        known = Reason(reason) if reason in set(Reason) else Reason.OTHER
                        self._end(NotMet(known, known.text, is_told=True))
                    case Error(_, text):
                        self._end(NotMet(Reason.OTHER, f"{Reason.OTHER.text}: {text}"))
                    case _:
                        self._handle(message)
        except ProtocolError as fault:
            self._misbehaved(fault)
        return self._take_events()

    def receive_eof(self) -> list[MeetingEvent]:
        """The link is gone."""
        if not self.is_closed:
            self._end(NotMet(Reason.OTHER, "the link has ended"))
        return self._take_events()

    def on_deadline(self, now_ms: int) -> list[MeetingEvent]:
        deadline_ms = self.deadline_ms
        if deadline_ms is not None and now_ms >= deadline_ms:
            self._end(NotMet(Reason.OTHER, "the other node is silent, or too slow"))
        return self._take_events()

    def send(self, answer: MeetingAnswer, now_ms: int) -> list[MeetingEvent]:
        """Take the answer to an effect. Ignored once closed. Raises `LocalMisuse` for what was not asked."""
        if self.is_closed:
            return []
        expected = _ANSWERS.get(type(answer))
        if expected is None or self._asked is not expected:
            raise LocalMisuse(f"{type(answer).__name__} that was not asked for")
        self._asked = None
        self._heard_ms = now_ms
        try:
            if isinstance(answer, ShownRead) and answer.fault is not None:
                raise answer.fault
            self._on_answer(answer)
        except ProtocolError as fault:
            self._misbehaved(fault)
        return self._take_events()

    # -- for the machines of `joining` ------------------------------------------------------------------------------

    @abstractmethod
    def _handle(self, message: Message) -> None:
        """Take a message of the peer, of any kind that does not end the conversation by itself."""

    @abstractmethod
    def _on_answer(self, answer: MeetingAnswer) -> None:
        """Take the answer to what this machine has asked for last; of a `ShownRead`, a good one."""

    def _send(self, message: Message) -> None:
        self._outbox += to_frames(encode_message(message))

    def _ask(self, effect: MeetingEffect) -> None:
        assert self._asked is None
        self._asked = type(effect)
        self._events.append(effect)

    def _unexpected(self, message: Message) -> Unexpected:
        return Unexpected(f"{type(message).__name__} while {self._state.value}")

    def _read(self, message: Shown, *, is_folded: bool) -> None:
        """Have it read. `is_folded`: once all is there it is judged by itself; else with what is known here."""
        if self._asked is not None or self._is_last_read:
            raise self._unexpected(message)
        self._is_last_read = message.is_last
        self._ask(ReadShown(self._evidence, message.data, message.is_last and is_folded))

    def _decline(self, reason: Reason) -> None:
        self._send(Declined(reason.value))
        self._end(NotMet(reason, reason.text))

    def _misbehaved(self, fault: ProtocolError) -> None:
        self._send(Error(1, str(fault)[:200]))
        self._end(PeerMisbehaved(str(fault), fault.kind))

    def _end(self, last: MeetingNews) -> None:
        self._state = State.CLOSED
        self._events.append(last)

    def _take_events(self) -> list[MeetingEvent]:
        events, self._events = self._events, []
        return events


_ANSWERS: dict[type[MeetingAnswer], type[MeetingEffect]] = {
    StatementsLoaded: LoadStatements,
    ShownRead: ReadShown,
    TakenIn: TakeIn,
    AdmissionWritten: WriteAdmission,
}
