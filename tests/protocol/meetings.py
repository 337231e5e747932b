"""Conversations about membership between nodes in memory: machines with storage behind them, at once and by hand.

Room: what tests of joining share. Nodes are those of the harness, so what they say is real; nothing has a network.
"""

from dataclasses import dataclass, field
from typing import Any

from protocol.exchange import EVERYTHING, IntegrateWindow
from protocol.frames import FrameReader
from protocol.ids import NodeId, node_of
from protocol.joining import Admitter, Joiner, Opening
from protocol.keys import KeyPair
from protocol.meeting import (
    AdmissionWritten,
    LoadStatements,
    Meeting,
    MeetingAnswer,
    MeetingEffect,
    MeetingEvent,
    ReadShown,
    Reason,
    TakeIn,
    TakenIn,
    WriteAdmission,
)
from protocol.membership import Rights, Role
from protocol.messages import Message, decode_message, message_size_max
from protocol.statements import Invite, encode_statement
from protocol.tickets import Ticket
from simulations.harness import Node, World
from storage.changes import Said
from storage.showing import NotAdmitted, judge_evidence, load_statements, says_admission

HOUR_MS = 3_600_000


def invite(node: Node, role: Role = Role.MEMBER, *, expires_in_ms: int = HOUR_MS, number: int = 0) -> Ticket:
    """A ticket of a node, its invitation said."""
    secret = node.random.randbytes(16)
    ticket = Ticket(
        node.identity.network_id, NodeId(node.node_keys.public), secret, role, node.clock_ms() + expires_in_ms, ()
    )  # fmt: skip
    statement = Invite(ticket.keys.public, Rights(role), ticket.expires_ms)
    node.integrator.write_one(
        Said(lambda members, header: encode_statement(statement, bytes([number]) * 16)), node.clock_ms()
    )
    return ticket


@dataclass
class End:
    """One side: a machine, who answers its effects, and what has happened."""

    machine: Meeting
    node: Node | None = None
    news: list[MeetingEvent] = field(default_factory=list)
    sent: list[bytes] = field(default_factory=list)  # chunks, as handed out
    heard: int = 0
    now_ms: int = 0

    def take(self, events: list[MeetingEvent]) -> None:
        waiting = list(events)
        while waiting:
            event = waiting.pop(0)
            if isinstance(event, MeetingEffect):
                waiting += self.machine.send(self.perform(event), self.now_ms)
            else:
                self.news.append(event)
        data = self.machine.take_bytes()
        if data:
            self.sent.append(data)

    def perform(self, effect: MeetingEffect) -> MeetingAnswer:
        if isinstance(effect, ReadShown):
            return effect.perform()
        assert self.node is not None
        return answer(self.node, effect)

    @property
    def last(self) -> Any:
        return self.news[-1] if self.news else None

    def messages(self) -> list[Message]:
        frames = FrameReader(message_size_max)
        frames.feed(b"".join(self.sent))
        found = []
        while (payload := frames.next()) is not None:
            found.append(decode_message(payload))
        return found


def answer(node: Node, effect: MeetingEffect) -> MeetingAnswer:
    """What a node's storage says."""
    match effect:
        case LoadStatements():
            return load_statements(node.store, effect)
        case TakeIn(evidence, peer):
            reason = judge_evidence(node.store, evidence, peer)
            if reason is None:
                window = IntegrateWindow(b"", ("system",), EVERYTHING)
                node.exchange.run(node.exchange.integrate(window, evidence.runs))
                reason = None if node.store.members.role_of(peer) else Reason.NO_ROLE
            return TakenIn(reason)
        case WriteAdmission():
            if node.store.members.role_of(effect.admit.joiner) is not None:
                return AdmissionWritten()
            try:
                said = says_admission(effect, node.identity.author, node.clock_ms())
                node.integrator.write_one(said, node.clock_ms())
            except NotAdmitted as refusal:
                return AdmissionWritten(refusal.reason)
            return AdmissionWritten()
        case _:
            return effect.perform()


def joiner(ticket: Ticket | None, keys: KeyPair, at: Node, **options: Any) -> Joiner:
    """A device with these keys that has called a node."""
    given: dict[str, Any] = {"network_id": at.identity.network_id, "peer": at.node_keys.public}
    return Joiner(ticket=ticket, keys=keys, name="laptop", salt=bytes(16), now_ms=0, **{**given, **options})


def admitter(node: Node, peer: bytes, opening: Opening = Opening.WAITS) -> Admitter:
    return Admitter(
        opening,
        network_id=node.identity.network_id,
        node=node_of(node.identity.author),
        peer=NodeId(peer),
        now_ms=0,
    )


def meet(caller: End, answerer: End) -> None:
    """Let both talk until neither has anything left to say."""
    for end in (answerer, caller):
        end.take(end.machine.begin(end.now_ms))
    for _ in range(1_000):
        moved = False
        for end, other in ((answerer, caller), (caller, answerer)):
            while end.heard < len(other.sent):
                end.heard += 1
                end.take(end.machine.receive(other.sent[end.heard - 1], end.now_ms))
                moved = True
        if not moved:
            return
    raise AssertionError("this conversation does not end")


def join(ticket: Ticket, keys: KeyPair, peer: Node, **options: Any) -> tuple[End, End]:
    """A device with these keys joins by a ticket, at this node. Both ends, done."""
    caller = End(joiner(ticket, keys, peer, **options))
    answerer = End(admitter(peer, keys.public), peer)
    meet(caller, answerer)
    return caller, answerer


def network(*roles: Role) -> tuple[World, list[Node]]:
    """A founder, and nodes that it admits."""
    world = World(1)
    nodes = [world.node(), *(world.node(role=role) for role in roles)]
    return world, nodes
