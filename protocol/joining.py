"""How a node comes to belong to a network, and how two members get to know that they both do.

Room: who says what on a link after the handshake and before any sync, and what
follows. Statements of membership are all that is said here; nothing else crosses a
link before both sides know each other as members. What statements mean is
`membership`'s, what of them is shown `storage.showing`'s, and what every such
conversation has in common `meeting`'s.

Joining, the joiner being the caller:

    who         →
                ←  shown …, `more` after each but the last: what makes the answerer a member, from the genesis on
    admission   →  only now, and only if that adds up
                ←  shown …: all the rest, the new admission too; or declined
    met         →  the joiner has all it needs

Between members one of whom the other does not know yet, whoever called:

    who         →
                ←  shown …
    met         →  checked in memory, then stored: a sync session begins; or declined

Who answers a caller that it does not know waits for its first word: `who` from a
joiner, `open` from a member. To the latter it says `who` itself.
"""

from enum import Enum

from protocol.errors import ProtocolError
from protocol.evidence import Incomplete
from protocol.ids import Author, NetworkId, NodeId
from protocol.keys import KeyPair
from protocol.meeting import (
    Acquainted,
    AdmissionWritten,
    Admitted,
    Joined,
    Learned,
    LoadStatements,
    Meeting,
    MeetingAnswer,
    MeetingEvent,
    NotMet,
    Reason,
    ShownRead,
    State,
    StatementsLoaded,
    TakeIn,
    TakenIn,
    WriteAdmission,
)
from protocol.membership import Fault, Members
from protocol.messages import NODE_NAME_MAX, Admission, Message, Met, More, Open, Shown, Who
from protocol.statements import Admit, ask_admission, decode_statement, encode_statement, is_proven_admission
from protocol.tickets import Ticket

_REASON_OF = {
    Fault.TICKET_USED: Reason.TICKET_USED,
    Fault.EXPIRED: Reason.EXPIRED,
    Fault.NO_INVITATION: Reason.NO_INVITATION,
    Fault.REVOKED: Reason.REVOKED,
    Fault.NOT_MEMBER: Reason.CANNOT_ADMIT,
    Fault.KNOWN: Reason.NO_ROLE,  # it was admitted, and has lost its role since
}


def admission_reason(members: Members, author: bytes, admit: Admit, now_ms: int) -> Reason | None:
    """Why a node, `author`, does not write an admission down that it is asked for; None if it does.

    Whoever is a member already has nothing to be written down: ask `is_member` before.
    """
    if members.is_revoked(admit.joiner):
        return Reason.REVOKED
    fault = members.admission_fault(author, admit, now_ms)
    return None if fault is None else _REASON_OF.get(fault, Reason.OTHER)


class Joiner(Meeting):
    """The side of a node that wants to belong to the network, having called a node of it.

    Without a ticket it only gets to know the network, as for a recovery: then `Learned` is the last event.
    """

    def __init__(
        self,
        *,
        ticket: Ticket | None,
        network_id: NetworkId,
        keys: KeyPair,
        peer: NodeId,
        name: str,
        salt: bytes,
        now_ms: int,
    ) -> None:
        """`name` is what people call this device; `salt` is 16 random bytes."""
        super().__init__(network_id=network_id, node=keys.public, peer=peer, now_ms=now_ms)
        self._ticket = ticket
        self._keys = keys
        self._name = name[:NODE_NAME_MAX]
        self._salt = salt
        self._has_asked = False  # for its admission

    def begin(self, now_ms: int) -> list[MeetingEvent]:
        self._state = State.LEARNING
        self._send(Who())
        return self._take_events()

    def _handle(self, message: Message) -> None:
        match self._state, message:
            case (State.LEARNING, Shown()):
                self._read(message, is_folded=True)
            case _:
                raise self._unexpected(message)

    def _on_answer(self, answer: MeetingAnswer) -> None:
        assert isinstance(answer, ShownRead)  # it asks for nothing else
        members = answer.members
        if members is None:
            self._send(More())
        elif self._has_asked:
            self._on_everything(members)
        elif members.role_of(self._peer) is None:
            self._decline(Reason.NO_ROLE)
        elif self._ticket is None:
            self._end(Learned(members, self._evidence))
        else:
            admit = ask_admission(self._ticket.keys, self._keys, self._network_id)
            self._send(Admission(encode_statement(admit, self._salt), self._name))
            self._has_asked, self._is_last_read = True, False

    def _on_everything(self, members: Members) -> None:
        rights = members.rights_of(self._node)
        if not self._evidence.is_whole:
            raise Incomplete("the statements of the network are not all there")
        if rights is None:
            suspended = members.is_suspended(self._node)
            text = (
                "this ticket was used by another device too: an administrator must decide"
                if suspended
                else None
            )
            self._end(
                NotMet(Reason.TICKET_USED if suspended else Reason.NO_ROLE, text or Reason.NO_ROLE.text)
            )
        else:
            self._send(Met())
            self._end(Joined(members, rights, self._evidence))


class Opening(Enum):
    """How a conversation of a member begins."""

    WAITS = "the caller is not known here: its first word tells what it wants"
    ASKED = "the peer has said `who`"
    ASKS = "the peer is not known here, and is to show itself"


class Admitter(Meeting):
    """The side of a member towards a peer with which there can be no session yet."""

    def __init__(
        self, opening: Opening, *, network_id: NetworkId, node: NodeId, peer: NodeId, now_ms: int
    ) -> None:
        super().__init__(network_id=network_id, node=node, peer=peer, now_ms=now_ms)
        self._opening = opening
        self._shown: dict[Author, int] = {}  # to the peer
        self._branches_shown = 0
        self._everything = False  # is to be shown
        self._is_last_shown = False

    def begin(self, now_ms: int) -> list[MeetingEvent]:
        match self._opening:
            case Opening.WAITS:
                self._state = State.WAITING
            case Opening.ASKED:
                self._load()
            case Opening.ASKS:
                self._learn()
        return self._take_events()

    def _learn(self) -> None:
        self._state = State.LEARNING
        self._send(Who())

    def _handle(self, message: Message) -> None:
        match self._state, message:
            case (State.WAITING, Who()):
                self._load()
            case (State.WAITING, Open()):
                self._learn()
            case (State.SHOWING, More()):
                self._go_on_showing(message)
            case (State.SHOWN, Admission()) if not self._everything:
                self._consider(message)
            case (State.SHOWN, Met()):
                self._end(Admitted(self._peer) if self._everything else Acquainted())
            case (State.LEARNING, Shown()):
                self._read(message, is_folded=False)
            case _:
                raise self._unexpected(message)

    def _on_answer(self, answer: MeetingAnswer) -> None:
        match answer:
            case StatementsLoaded():
                self._show(answer)
            case ShownRead():
                self._on_read()
            case TakenIn(reason):
                self._on_taken_in(reason)
            case AdmissionWritten(reason):
                self._on_written(reason)

    def _load(self) -> None:
        self._state = State.SHOWING
        self._ask(LoadStatements(self._node, self._everything, dict(self._shown), self._branches_shown))

    def _show(self, loaded: StatementsLoaded) -> None:
        if not loaded.data and not self._shown:  # this node has no role itself
            self._decline(Reason.CANNOT_ADMIT)
            return
        self._shown.update(loaded.sent_to)
        self._branches_shown += loaded.branches
        self._is_last_shown = loaded.is_last
        self._send(Shown(loaded.data, loaded.is_last))
        if loaded.is_last:
            self._state = State.SHOWN

    def _go_on_showing(self, message: More) -> None:
        if self._asked is not None or self._is_last_shown:
            raise self._unexpected(message)
        self._load()

    def _consider(self, admission: Admission) -> None:
        """Only the peer itself is admitted on its link, and only if both proofs hold."""
        try:
            admit = decode_statement(admission.statement)
        except ProtocolError:
            admit = None
        if (
            not isinstance(admit, Admit)
            or admit.joiner != self._peer
            or not is_proven_admission(admit, self._network_id)
        ):
            self._decline(Reason.NOT_PROVEN)
            return
        self._state = State.DECIDING
        self._ask(WriteAdmission(admit, admission.statement, admission.name))

    def _on_written(self, reason: Reason | None) -> None:
        if reason is not None:
            self._decline(reason)
        else:
            self._everything, self._is_last_shown, self._branches_shown = True, False, 0
            self._load()

    def _on_read(self) -> None:
        if not self._is_last_read:
            self._send(More())
        else:
            self._state = State.DECIDING
            self._ask(TakeIn(self._evidence, self._peer))

    def _on_taken_in(self, reason: Reason | None) -> None:
        if reason is not None:
            self._decline(reason)
        else:
            self._send(Met())
            self._end(Acquainted())
