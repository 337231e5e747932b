"""The other direction of a sync session: we get from the peer what we lack.

Room: offers judged, windows handed to storage and acknowledged when stored. What
a window means for the record is storage's and `integrate`'s. Bounded: two
questions to storage and `CREDITS` windows at most; a peer that sends more breaks
the protocol.
"""

from collections import deque

from protocol.conversation import Conversation, put_bounded
from protocol.errors import LocalMisuse, Malformed, ProtocolError
from protocol.exchange import (
    ChainKey,
    FindLacking,
    IntegrateWindow,
    LackingFound,
    PeerHolds,
    PeerMisbehaved,
    RolledBack,
    WindowIntegrated,
    WindowStored,
)
from protocol.ids import SYSTEM_SPACE_NAME
from protocol.integrate import FINAL_RULES
from protocol.messages import Ack, Done, Lack, Offer, Tip, Want, Window, Yours
from protocol.outgoing import CREDITS


class TooMuchAtOnce(ProtocolError):
    """The peer goes on before it was told that it may."""


class Incoming:
    """What we lack, and how much of that is under way."""

    def __init__(self, talk: Conversation) -> None:
        self._talk = talk
        self.is_checked = False  # the peer has told what it holds of our own chains, and we hold it too
        self.has_progressed = False  # since somebody last looked
        self._questions: deque[Yours | Offer] = deque()
        self._is_finding = False
        self._wants_sent = self._wants_done = 0
        self._windows_stored = self._windows_storing = 0
        self._given_up: dict[ChainKey, int] = {}

    @property
    def is_busy(self) -> bool:
        return bool(self._questions or self._wants_done < self._wants_sent or self._windows_storing)

    def owed(self) -> dict[str, int]:
        """What only the peer can bring forward, and how far it has."""
        if self._windows_storing or self._wants_done == self._wants_sent:
            return {}
        return {"window": self._windows_stored + self._wants_done}

    # -- what the peer says --------------------------------------------------------------------------------

    def on_yours(self, message: Yours) -> None:
        if any(tip.author != self._talk.author for space in message.spaces for tip in space.tips):
            raise Malformed("told what it holds of another's chain as if it were ours")
        self._ask(message)

    def on_offer(self, message: Offer) -> None:
        if any(type(question) is Offer for question in self._questions):
            raise TooMuchAtOnce("an offer while another waits for its answer")
        self._ask(message)

    def _ask(self, question: Yours | Offer) -> None:
        self._talk.learn([space for space, _ in question.spaces])
        self._questions.append(question)

    def on_window(self, message: Window) -> None:
        if self._windows_storing >= CREDITS:
            raise TooMuchAtOnce("a window without credit")
        self._windows_storing += 1
        talk = self._talk
        talk.emit(IntegrateWindow(message.data, tuple(sorted(talk.names)), talk.shares))

    def on_done(self, message: Done) -> None:
        if not self._wants_done < message.wants <= self._wants_sent:
            raise Malformed("done with what was not wanted")
        self._wants_done = message.wants

    # -- what storage says ---------------------------------------------------------------------------------

    def on_lacking(self, found: LackingFound) -> RolledBack | None:
        """The last event of this session, should the peer hold commits of our own that we lack."""
        if not self._is_finding:
            raise LocalMisuse("an answer without a question")
        self._is_finding = False
        question = self._questions.popleft()
        told: list[tuple[str, Tip]] = [(space, tip) for space, tips in question.spaces for tip in tips]
        lacking = sorted(found.lacking + found.forked)
        talk = self._talk
        for index, _ in lacking:
            space, tip = told[index]
            if tip.author == talk.author:
                return RolledBack(space, tip.seq)
        if type(question) is Yours:
            self.is_checked = True
            held = tuple((talk.key(space, tip.author)[0], tip.seq) for space, tip in told)
            if held:
                talk.emit(PeerHolds(held))
            return None
        lacks: list[Lack] = []
        for index, after_seq in lacking:
            space, tip = told[index]
            given_up = self._given_up.get(talk.key(space, tip.author))
            if space in talk.shares and (
                given_up is None or tip.seq < given_up
            ):  # it forks lower than was known
                lacks.append(Lack(index, after_seq))
        for space, tip in told:
            talk.remember(talk.key(space, tip.author), tip.seq)
        self._wants_sent += bool(lacks)
        talk.send(Want(tuple(lacks)))
        return None

    def on_integrated(self, done: WindowIntegrated) -> PeerMisbehaved | RolledBack | None:
        """The last event of this session, should the window break a rule, or show that we have forked."""
        if not self._windows_storing:
            raise LocalMisuse("a window that was not handed in")
        self._windows_storing -= 1
        if done.fault is not None:
            return PeerMisbehaved(done.fault, "window")
        self._windows_stored += 1
        talk = self._talk
        for fork in done.forks:
            if fork.author == talk.author:
                talk.emit(fork)
                return RolledBack(SYSTEM_SPACE_NAME, fork.seq)
        talk.arrived(done.position)
        talk.owes_root = True
        self.has_progressed |= done.integrated > 0
        for key, seq in done.tips:
            talk.remember(key, seq)
        for fork in done.forks:
            put_bounded(self._given_up, (fork.space, fork.author), fork.seq)
        for chain in done.refused:
            if chain.rule in FINAL_RULES:  # the rest may be integrated once a fork is known
                put_bounded(self._given_up, (chain.space, chain.author), chain.seq)
        talk.emit(*done.forks, *done.refused, WindowStored(done.integrated, done.waiting, done.bodies))
        talk.send(Ack(self._windows_stored, CREDITS))
        return None

    # -- what is next --------------------------------------------------------------------------------------

    def go_on(self) -> None:
        """Ask storage about the oldest question."""
        if self._questions and not self._is_finding:
            self._is_finding = True
            self._talk.emit(FindLacking(self._questions[0].spaces))
