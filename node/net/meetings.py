"""Conversations about membership on links: who would join, and members that do not know each other yet.

Room: the `Speaker` around `protocol.joining.Admitter`, and the threads on which what a stranger shows is looked
at: one at a time, since it may cost seconds. What is decided is the machine's; what is read and judged is
`storage.showing`'s.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from node.net.clerk import Clerk
from node.net.link import Link, Speaker, State
from node.writer import Writer
from protocol.errors import ProtocolError
from protocol.exchange import PeerMisbehaved
from protocol.handshake import Peer
from protocol.ids import NodeId, node_of
from protocol.joining import Admitter, Opening
from protocol.meeting import (
    Acquainted,
    AdmissionWritten,
    Admitted,
    LoadStatements,
    MeetingAnswer,
    MeetingEffect,
    MeetingEvent,
    NotMet,
    ReadShown,
    Reason,
    StatementsLoaded,
    TakeIn,
    TakenIn,
    WriteAdmission,
)
from storage.errors import StorageError
from storage.showing import NotAdmitted, judge_evidence, load_statements, says_admission
from storage.store import Store


@dataclass(frozen=True, slots=True)
class MeetingParts:
    """What conversations about membership need of the node."""

    store: Store
    writer: Writer
    clerk: Clerk
    clock_ms: Callable[[], int]
    steady_ms: Callable[[], int]
    log: logging.Logger
    on_acquainted: Callable[[Link, bytes], None]  # with what the session is to hear first
    on_admitted: Callable[[NodeId, str], None]  # a joiner, and what people call it
    on_told_revoked: Callable[[], None]  # a peer says that this node's key was revoked


class Meetings:
    """Makes what speaks with peers that there can be no session with yet."""

    def __init__(self, parts: MeetingParts) -> None:
        self.parts = parts
        self._turn = asyncio.Lock()

    def speaker(self, link: Link, peer: Peer, opening: Opening) -> Speaker:
        identity = self.parts.store.identity
        assert identity is not None
        machine = Admitter(
            opening,
            network_id=identity.network_id,
            node=node_of(identity.author),
            peer=peer.node,
            now_ms=self.parts.steady_ms(),
        )
        return MeetingTalk(self, link, machine)

    async def perform(self, effect: MeetingEffect, is_wanted: Callable[[], bool]) -> MeetingAnswer:
        """Carry out an effect. Raises `StorageError` where there is no answer that the machine could be given."""
        match effect:
            case LoadStatements():
                loaded: StatementsLoaded = await asyncio.to_thread(load_statements, self.parts.store, effect)
                return loaded
            case ReadShown():
                async with self._turn:
                    return await asyncio.to_thread(effect.perform)
            case TakeIn():
                try:
                    return TakenIn(await self._take_in(effect, is_wanted))
                except StorageError as error:
                    self.parts.log.warning("not taken in: %s", error)
                    return TakenIn(Reason.FAILED)
            case WriteAdmission():
                try:
                    return AdmissionWritten(await self._admit(effect))
                except StorageError as error:
                    self.parts.log.warning("nobody can be admitted now: %s", error)
                    return AdmissionWritten(Reason.FAILED)

    async def _take_in(self, effect: TakeIn, is_wanted: Callable[[], bool]) -> Reason | None:
        store = self.parts.store
        async with self._turn:
            try:
                reason = await asyncio.to_thread(judge_evidence, store, effect.evidence, effect.node)
            except ProtocolError:
                reason = Reason.OTHER
        if reason is not None:
            return reason
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def on_done(answer: object) -> None:
            if not done.done():
                done.set_result(answer)

        self.parts.clerk.take_in(effect.evidence.runs, on_done, is_wanted)
        answer = await done
        if isinstance(answer, StorageError):
            raise answer
        return None if store.members.role_of(effect.node) is not None else Reason.NO_ROLE

    async def _admit(self, effect: WriteAdmission) -> Reason | None:
        store, joiner = self.parts.store, effect.admit.joiner
        assert store.identity is not None
        if store.members.role_of(joiner) is not None:
            return None
        try:
            await self.parts.writer.submit(
                says_admission(effect, store.identity.author, self.parts.clock_ms())
            )
        except NotAdmitted as refusal:
            return refusal.reason
        self.parts.on_admitted(joiner, effect.name)
        return None


class MeetingTalk(Speaker):
    """One such conversation on one link."""

    def __init__(self, meetings: Meetings, link: Link, machine: Admitter) -> None:
        self._meetings = meetings
        self._link = link
        self._machine = machine
        self._steady_ms = meetings.parts.steady_ms
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def machine(self) -> Admitter:
        return self._machine

    def begin(self) -> None:
        self._link.step(self._machine.begin(self._steady_ms()))

    def on_event(self, event: MeetingEvent) -> None:
        match event:
            case Acquainted():
                self._meetings.parts.on_acquainted(self._link, self._machine.rest())
            case Admitted(node):
                self._meetings.parts.log.info("%s has joined this network", node.hex()[:8])
                self._link.end("it has joined, and comes back as a member")
            case NotMet(reason, text, is_told):
                if is_told and reason is Reason.REVOKED:
                    self._meetings.parts.on_told_revoked()
                self._link.end(text, reason.name.lower())
            case PeerMisbehaved(reason):
                self._link.end(reason, event.kind)
            case _ if isinstance(event, MeetingEffect):
                task = asyncio.get_running_loop().create_task(self._carry_out(event))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _carry_out(self, effect: MeetingEffect) -> None:
        try:
            answer = await self._meetings.perform(effect, lambda: self._is_open)
        except StorageError as error:
            self._link.end(str(error), "storage")
            return
        except Exception:
            self._meetings.parts.log.exception("a conversation about membership failed")
            self._link.cut("an error of this node", "internal")
            return
        if self._is_open:
            self._link.step(self._machine.send(answer, self._steady_ms()))

    @property
    def _is_open(self) -> bool:
        return self._link.state is State.OPEN and not self._machine.is_closed

    def on_writable(self) -> None:
        pass  # one message is under way at a time

    def on_end(self) -> None:
        for task in self._tasks:
            task.cancel()
