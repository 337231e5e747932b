"""`/v1/realtime`: changes of documents over a WebSocket (seed S1, "Real-time Updates").

Room: sockets, tasks and timers. What a client may hear, and when it has heard everything, is decided in
`realtime_session`. The feed calls `Realtime` in the middle of answering writers, so entries that somebody
watches only join a queue there and go out on later turns of the loop, a few at a time; one that nobody
watches costs two look-ups. Whatever does not fit a queue is dropped from it and read from the record again.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from hmac import compare_digest

from aiohttp import web

from node.api.civicbase.following import RecordReader
from node.api.civicbase.realtime_events import BREACHES, DECIDE_MODELS, DECISIVE, Event, Sources, Watchers
from node.api.civicbase.realtime_session import Session
from node.api.civicbase.realtime_socket import Connection, RealtimeParts
from node.api.errors import ApiError, InvalidToken, Unavailable
from node.api.requests import is_upgrade
from node.api.routes import CALLER, TOKEN, Auth, Caller, KeyAccess, Route
from node.conflict_feed import AnyEntry
from node.feed import Position
from protocol.integrate import Change
from storage.feed_entry import FeedEntry

MESSAGE_MAX_BYTES = 64 << 10  # of a client
PENDING_MAX = 4_096  # entries on their way to sessions; beyond it everybody reads them from the record
TURN_EVENTS_MAX = 128  # events handed to sessions in one turn of the loop: one to two milliseconds

TAGS = ("Realtime",)


class Realtime:
    """All realtime sockets of one node. Use it on one event loop; `start` and `stop` it once.

    It must hear from the feed after those that empty caches by it: rendered documents and known tokens.
    """

    def __init__(self, parts: RealtimeParts) -> None:
        self.parts = parts
        self.sources = Sources(parts.documents, parts.feed, parts.permissions, parts.node_id, parts.conflict)
        self.watchers: Watchers[Session] = Watchers()
        self.reader = RecordReader(parts.feed)
        self._connections: dict[Session, Connection] = {}
        self._people: dict[tuple[str, str], dict[Connection, None]] = {}  # by user and by session
        self._pending: deque[AnyEntry] = deque()
        self._turn: asyncio.Handle | None = None
        self._rechecks: asyncio.TimerHandle | None = None
        self._unsubscribe: Callable[[], None] = lambda: None
        self._is_stopping = False

    def start(self) -> None:
        # What a first sync brings is not told, but it may decide about rights.
        self._unsubscribe = self.parts.feed.subscribe(
            self._on_entries, on_caught_up=self._on_caught_up, with_old=True
        )
        self._recheck_later()

    async def stop(self) -> None:
        """Close every socket (1001) and wait a little for them; new ones are refused from now on."""
        self._is_stopping = True
        self._unsubscribe()
        for handle in (self._turn, self._rechecks):
            if handle is not None:
                handle.cancel()
        self._pending.clear()
        connections = list(self._connections.values())
        for connection in connections:
            connection.session.end(1001, "the node is stopping")
            connection.step()
        if connections:
            await asyncio.wait(
                [connection.ended for connection in connections], timeout=self.parts.timing.linger_s
            )

    def __len__(self) -> int:
        return len(self._connections)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One client, from its upgrade to its end."""
        if not is_upgrade(request):
            headers = {"Upgrade": "websocket", "Connection": "Upgrade"}
            raise ApiError(426, "UPGRADE_REQUIRED", "This address speaks WebSocket", headers=headers)
        if self._is_stopping:
            raise Unavailable("The node is stopping")
        caller = request[CALLER]
        token = None if caller.user_id is None or caller.is_owner else request.get(TOKEN)
        timing = self.parts.timing
        socket = web.WebSocketResponse(
            heartbeat=timing.heartbeat_s,
            timeout=timing.linger_s,
            compress=False,  # it would cost each socket memory and each event work, for a loopback link
            max_msg_size=MESSAGE_MAX_BYTES + 1,  # aiohttp refuses what reaches it
        )
        writer = await socket.prepare(request)
        if writer is None:
            raise ConnectionResetError("the client left")
        await Connection(self, request, socket, writer, caller, token).run()
        return socket

    # -- who is there

    def enter(self, connection: Connection) -> None:
        self._connections[connection.session] = connection

    def recognise(self, connection: Connection, caller: Caller) -> None:
        """From now on news about this user and session concern the connection, and no others'."""
        self._forget(connection)
        connection.known_as = [(caller.application, name) for name in caller.known_as]
        for key in connection.known_as:
            self._people.setdefault(key, {})[connection] = None

    def leave(self, connection: Connection) -> None:
        connection.session.leave()
        self._connections.pop(connection.session, None)
        self._forget(connection)

    def _forget(self, connection: Connection) -> None:
        for key in connection.known_as:
            others = self._people.get(key, {})
            others.pop(connection, None)
            if not others:
                self._people.pop(key, None)
        connection.known_as = []

    async def authenticate(self, token: str, application: str | None = None) -> Caller:
        """The caller of a token. Raises `ApiError`."""
        owner = self.parts.owner_token
        if not token.isascii():
            raise InvalidToken
        if owner is not None and compare_digest(token, owner):
            caller = self.parts.owner
            return caller if application is None else replace(caller, application=application)
        return await self.parts.authenticator.authenticate(token, application)

    def _recheck_later(self) -> None:
        def recheck() -> None:
            self.check_all()
            self._recheck_later()

        loop = asyncio.get_running_loop()
        self._rechecks = loop.call_later(self.parts.timing.recheck_s, recheck)

    # -- entries

    def _on_entries(self, entries: Sequence[AnyEntry]) -> None:
        """Called by the feed before the writers are answered: quick, and it must not raise."""
        if not self._connections:
            return
        wants = self.watchers.wants
        self._pending.extend(
            e
            for e in entries
            if e.model.startswith(DECISIVE) or (not e.is_old and (wants(e) or e.model.startswith(BREACHES)))
        )
        if self._pending and self._turn is None:
            self._turn = asyncio.get_running_loop().call_soon(self._hand_on)

    def _on_caught_up(self, application: str) -> None:
        """The first sync of an application is over: what it has brought is to be read anew."""
        for session, connection in list(self._connections.items()):
            if session.caller is not None and session.caller.application == application:
                session.read_anew()
                connection.step()

    def check_all(self) -> None:
        """The members of the network are others now: whose tokens still count is to be found out again."""
        for connection in list(self._connections.values()):
            connection.check()

    def _hand_on(self) -> None:
        """Hand entries to sessions, as many as one turn of the loop should take."""
        self._turn = None
        if len(self._pending) > PENDING_MAX:
            self._give_up_on_pending()
        checked: dict[Connection, bool] = {}
        events = 0
        while self._pending and events < TURN_EVENTS_MAX:
            entry = self._pending.popleft()
            events += 1
            if entry.model.startswith(DECISIVE):
                self._on_decisive(entry, checked)
                continue
            if entry.model.startswith(BREACHES):
                self._on_breach(entry)
                continue
            event = Event(entry, self.sources)
            for session in self.watchers.of(entry):
                connection = self._connections[session]
                if connection not in checked:
                    checked[connection] = connection.is_welcome()
                connection.deliver(event, is_welcome=checked[connection])
                events += 1
        for connection in checked:
            connection.step()
        if self._pending:
            self._turn = asyncio.get_running_loop().call_soon(self._hand_on)

    def _on_decisive(self, entry: AnyEntry, checked: dict[Connection, bool]) -> None:
        """A model, an account, its roles or the end of its session: rights may have changed."""
        if entry.model.startswith(DECIDE_MODELS):
            for session in self.watchers.of_model(entry.application, entry.id):
                session.review(entry.id)
                checked.setdefault(self._connections[session], self._connections[session].is_welcome())
        else:
            for connection in list(self._people.get((entry.application, entry.id), ())):
                connection.check()
                checked.pop(connection, None)

    def _on_breach(self, entry: AnyEntry) -> None:
        """A notice for some users: they are told on every socket, whatever they have subscribed to."""
        notice = self.parts.breach(entry.application, entry.id)
        if notice is None or not isinstance(entry, FeedEntry) or entry.change is not Change.CREATED:
            return
        for user in notice.affected:
            for connection in list(self._people.get((entry.application, user), ())):
                if connection.is_welcome():
                    connection.session.tell("breach", notice.said)
                connection.check()

    def _give_up_on_pending(self) -> None:
        """More is written than sessions can be told: they read it from the record, each at its own pace."""
        pending = list(self._pending)
        self._pending.clear()
        for session, entry in self.watchers.first_of_each(pending).items():
            session.fall_behind(Position(entry.arrival, entry.index - 1))
            self._connections[session].step()
        self._pending.extend(e for e in pending if e.model.startswith((*DECISIVE, BREACHES)))


def routes(realtime: Realtime) -> list[Route]:
    """The realtime socket of surface S1."""
    return [
        Route(
            "GET",
            "/v1/realtime",
            realtime.handle,
            "Follow changes of documents over a WebSocket",
            auth=Auth.OPTIONAL,  # a message may authenticate instead
            key_access=KeyAccess.DATA,
            token_in_query=True,
            rate="",  # sockets have limits of their own, and a client that comes back must get in
            responses={101: None},  # any other is an error
            tags=TAGS,
            description=_DESCRIPTION,
        )
    ]


_DESCRIPTION = """Sign in by header, by `?token=`, or within 5 s by `{"type":"authenticate","token":…}`.

Subscribe by `{"action":"subscribe","model":"Task","instance_id":…,"cursor":…}` or by
`{"type":"subscribe","models":["Task"],"events":["created","updated","deleted","conflict"],"cursor":…}`; each is
answered in its own shape. `conflict` and `conflict_resolved` tell that values which did not see each other stand
side by side, and that they do no more: `conflict` holds what `GET /v1/conflicts/{id}` answers.

Edit a `text` or an `array` by `{"action":"edit","model":"Page","instance_id":…,"field":"body",
"ops":[{"retain":3},{"insert":"x"},{"delete":1}],"base_version":…}` or by `{"type":"edit",…,"instanceId":…,
"baseVersion":…}`; `edited` names the new version, and a `ref` that you give comes back with it.

`breach` comes to whom a notice of a breach concerns (`GET /v1/privacy/breaches`), whatever is subscribed.

Every event carries `cursor` and `previous`; `subscribe` takes a cursor back and replays what came after it.
`resync` says that a cursor is too old: read the documents again. Close codes: 4401 not signed in (any more),
1013 too slow, 1008 too many messages, 1001 the node is stopping."""
