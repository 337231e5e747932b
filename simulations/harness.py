"""Many nodes in one process, in virtual time, over the real protocol objects and the real store in memory.

Room: the clock, the links and the faults. What nodes say and keep is the
program's own: `Handshake` and `SyncSession` on each end of a link, `Store`,
`Integrator` and `Exchange` behind them. One seed gives one run, event for event:
ties are broken by order of asking, and every purpose has its own stream of chance.

The first node founds the network and is its administrator; it admits the others as
they are made. What they know of it then is the chain of statements up to their own
admission, as a joiner is shown it.
"""

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from itertools import count
from random import Random
from typing import Any

from protocol.body import SALT_BYTES
from protocol.changes import DocumentChange, Edit, EditKind
from protocol.clock import HybridClock
from protocol.commit import Commit, Header
from protocol.cuts import Cuts
from protocol.document import Document
from protocol.exchange import (
    EVERYTHING,
    Arrived,
    Begin,
    Close,
    Effect,
    Ended,
    Event,
    InSync,
    IntegrateWindow,
    News,
    PeerMisbehaved,
    RolledBack,
    WindowIntegrated,
)
from protocol.frames import HEADER_BYTES
from protocol.handshake import Handshake, HandshakeFailed, Local, Peer, Side
from protocol.ids import (
    INCARNATION_BYTES,
    SYSTEM_SPACE_NAME,
    Author,
    SpaceId,
    application_space_name,
    author_of,
    builtin_model_id,
    node_of,
    sortable_id,
)
from protocol.keys import KeyPair
from protocol.membership import Members, Rights, Role
from protocol.schema import Model, parse_definition
from protocol.session import SyncSession
from protocol.statements import (
    EXPIRES_MS_MAX,
    Grant,
    Invite,
    Revoke,
    ask_admission,
    encode_statement,
    sign_recovery,
)
from simulations.forger import Forger
from storage.catalog import Catalog
from storage.doctor_replay import replayed_differences
from storage.exchange import Exchange
from storage.index import Index
from storage.integrator import AnyChange, FeedEntry, Integrator, Said
from storage.kv import KeyValueStore, Table
from storage.memory_kv import MemoryKeyValueStore
from storage.opening import found_store, join_store, renew_identity
from storage.store import Identity, Store

START_MS = 1_700_000_000_000
APPLICATION = "default"
EVENTS_MAX = 2_000_000  # a run that does not come to rest has a bug
TASK = {
    "name": "Task",
    "fields": [
        {"name": "title", "type": "string"},
        {"name": "status", "type": "enum", "options": ["TODO", "IN_PROGRESS", "DONE"]},
        {"name": "votes", "type": "counter"},
        {"name": "tags", "type": "set"},
        {"name": "rank", "type": "integer"},
    ],
}


def model_of(definition: dict[str, Any]) -> Model:
    """A model that every node has from the start, as the program's own are: its definition need not cross."""
    parsed = parse_definition(definition, application=APPLICATION)
    name = "$" + parsed.name.lower()
    return replace(parsed, id=builtin_model_id(APPLICATION, name), name=name)


def in_memory(number: int) -> KeyValueStore:
    """Where the node of this number keeps its record: nowhere but in this process."""
    return MemoryKeyValueStore()


class World:
    """Virtual time, and the chance of one seed."""

    def __init__(
        self, seed: int, *, keys: Callable[[int], KeyValueStore] = in_memory, has_index: bool = False
    ) -> None:
        """`keys` makes the store of the node with a number; with an index, every node has one of its own."""
        self.seed = seed
        self.make_keys = keys
        self.has_index = has_index
        self.now_ms = 0
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._tickets = count()
        self.trace = sha256()
        keys = self.chance("keys")
        self.network_keys = KeyPair.from_seed(keys.randbytes(32))
        self.model = model_of(TASK)
        self.nodes: list[Node] = []
        self.links: list[Link] = []

    def chance(self, *purpose: object) -> Random:
        """A stream of its own for each purpose, so that one more draw here does not shift another there."""
        return Random(repr((self.seed, *purpose)))

    def after(self, delay_ms: int, happen: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (self.now_ms + delay_ms, next(self._tickets), happen))

    def note(self, *what: object) -> None:
        """Take an event down in the trace: equal traces, equal runs."""
        self.trace.update(repr((self.now_ms, *what)).encode())

    def run(self, until: Callable[[], bool] | None = None, *, for_ms: int = 600_000) -> bool:
        """Let things happen until the time is over, or `until` holds. Returns whether it holds."""
        end_ms = self.now_ms + for_ms
        for _ in range(EVENTS_MAX):
            if until is not None and until():
                return True
            if not self._queue or self._queue[0][0] > end_ms:
                self.now_ms = end_ms
                return until is not None and until()
            self.now_ms, _, happen = heapq.heappop(self._queue)
            happen()
        raise AssertionError(f"seed {self.seed}: no rest after {EVENTS_MAX} events")

    # -- making things -------------------------------------------------------------------------------------

    def node(
        self, *, skew_ms: int = 0, role: Role = Role.MEMBER, by: "tuple[Node, KeyPair] | None" = None
    ) -> "Node":
        """A node: the founder if it is the first, else one that the founder admits with this role.

        Or one that comes `by` a ticket, admitted by a member that knows of it.
        """
        node = Node(self, len(self.nodes), skew_ms, role, by)
        self.nodes.append(node)
        return node

    def ticket(self) -> KeyPair:
        return KeyPair.from_seed(self.chance("ticket", next(self._tickets)).randbytes(32))

    def stranger(self) -> Forger:
        """Somebody with a key that nobody admitted."""
        chance = self.chance("stranger", next(self._tickets))
        keys = KeyPair.from_seed(chance.randbytes(32))
        return Forger(keys, author_of(keys.public, chance.randbytes(INCARNATION_BYTES)))

    def link(self, caller: "Node", answerer: "Node", **options: Any) -> "Link":
        link = Link(self, len(self.links), caller, answerer, **options)
        self.links.append(link)
        return link

    def part(self) -> None:
        """Every link is cut, and stays so until `meet`."""
        for link in self.links:
            link.is_kept = False
            link.cut()
        self.run(for_ms=1_000)

    def meet(self) -> None:
        """Every link is opened."""
        for link in self.links:
            link.is_kept = True
            if link.connection is None:
                link.open()

    def settle(self, *, for_ms: int = 60_000) -> None:
        """Let all nodes come to the same, and check that it is the right one."""
        self.meet()
        assert self.run(self.is_settled, for_ms=for_ms), f"seed {self.seed}: no convergence in {for_ms} ms"
        self.check()

    # -- what must hold ------------------------------------------------------------------------------------

    def is_settled(self) -> bool:
        """Whether all hold the same, and both ends of every link know it."""
        ends = [end for link in self.links if link.connection for end in link.connection.ends.values()]
        is_live = len(ends) == 2 * len(self.links) and all(e.session and e.session.is_live for e in ends)
        return is_live and self.is_in_sync()

    def is_in_sync(self) -> bool:
        """Whether every node runs and all say the same root."""
        return all(node.is_up for node in self.nodes) and len({node.root() for node in self.nodes}) == 1

    def check(self) -> None:
        """Same roots, same documents, nothing acknowledged is lost."""
        for node in self.nodes:
            while node.integrator.next_due_ms() is not None:
                node.come_due()
            found = replayed_differences(node.store, MemoryKeyValueStore())
            assert not found, f"seed {self.seed}: node {node.number} replayed: {found[:5]}"
        roots = {node.root() for node in self.nodes}
        assert len(roots) == 1, f"seed {self.seed}: roots differ"
        roles = [node.store.members.roles for node in self.nodes]
        assert all(held == roles[0] for held in roles), f"seed {self.seed}: equal roots, other members"
        documents = [node.documents() for node in self.nodes]
        assert all(held == documents[0] for held in documents), (
            f"seed {self.seed}: equal roots, other documents"
        )
        for node in self.nodes:
            if node.node_keys.public not in roles[0]:
                continue  # put out, or suspended: the others do not take its word for anything
            promised = node.acknowledged
            lost = [key for key in promised if any(other.seq_of(key[0]) < key[1] for other in self.nodes)]
            assert not lost, f"seed {self.seed}: acknowledged by node {node.number}, and lost: {lost[:3]}"


class Node:
    """One node: a store that outlives crashes, and what runs on it."""

    def __init__(
        self, world: World, number: int, skew_ms: int, role: Role, by: "tuple[Node, KeyPair] | None" = None
    ) -> None:
        self.world = world
        self.number = number
        self.skew_ms = skew_ms
        self.random = world.chance("node", number)
        self.keys = world.make_keys(number)
        self.endpoints: list[Endpoint] = []
        self.news: list[News] = []
        self.acknowledged: set[tuple[Author, int]] = set()
        self.entries: list[FeedEntry] = []  # of the feed, since this node began
        self.index = Index(None) if world.has_index else None
        self.is_up = False
        self.node_keys = KeyPair.from_seed(self.random.randbytes(32))
        store = Store(self.keys)
        if not world.nodes:
            found_store(store, self.node_keys, world.network_keys, now_ms=self.clock_ms(),
                        random_bytes=self.random.randbytes)  # fmt: skip
        else:
            if by is None:
                by = world.nodes[0], KeyPair.from_seed(world.nodes[0].random.randbytes(32))
                by[0].invite(by[1], role)
            statements = by[0].admit(self.node_keys, by[1])
            join_store(store, self.node_keys, statements, random_bytes=self.random.randbytes)
        self.start()

    def clock_ms(self) -> int:
        return START_MS + self.world.now_ms + self.skew_ms

    @property
    def identity(self) -> Identity:
        assert self.store.identity is not None
        return self.store.identity

    @property
    def author(self) -> Author:
        return self.identity.author

    @property
    def space(self) -> SpaceId:
        """Where the documents of these runs are."""
        return self.store.space(APPLICATION)

    # -- life ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        self.store = Store(self.keys)
        catalog = Catalog(self.store)
        catalog.add_builtin(self.world.model)
        with self.store.read() as snapshot:
            catalog.load(snapshot)
        self.integrator = Integrator(self.store, self.index, catalog, self.node_keys, HybridClock(),
                                     self.random.randbytes, lambda space, seq: None)  # fmt: skip
        self.integrator.indexer.open()
        while self.integrator.indexer.refill():
            pass
        self.exchange = Exchange(self.store, self.write)
        self.exchange.run(self.exchange.settle())
        self.is_up = True

    def write(self, change: AnyChange, now_ms: int | None = None) -> Any:
        """Hand a change to the writer: its result, or what it failed with is raised."""
        written = self.integrator.write([change], self.clock_ms() if now_ms is None else now_ms)
        self.entries += written.entries
        (result,) = written.results
        if isinstance(result, Exception):
            raise result
        return result

    def crash(self) -> None:
        """Everything that was not stored is gone, links too."""
        self.is_up = False
        for endpoint in list(self.endpoints):
            endpoint.connection.cut()
        self.endpoints.clear()

    def backup(self) -> KeyValueStore:
        return _copy(self.keys)

    def restore(self, backup: KeyValueStore, *, as_new_author: bool = True) -> None:
        """Go back to a backup: the gate notices and starts a new life, unless it is told not to."""
        self.crash()
        self.keys = _copy(backup)
        store = Store(self.keys)
        if as_new_author:
            renew_identity(store, self.random.randbytes)
        self.start()
        for node in self.world.nodes:  # what was nowhere else is gone, as the docs of backups say
            promised = node.acknowledged
            held = {key for key in promised if any(o.seq_of(key[0]) >= key[1] for o in self.world.nodes)}
            node.acknowledged = held

    def renew(self) -> None:
        """Go on as a new author, as a node does when it learns that its record is not the newest."""
        self.crash()
        renew_identity(Store(self.keys), self.random.randbytes)
        self.start()

    # -- membership ----------------------------------------------------------------------------------------

    def say(self, make: Callable[[Members, Header], bytes]) -> None:
        """Say something in `system`, durably."""
        self.write(Said(make))
        self.tell()

    def invite(self, ticket: KeyPair, role: Role) -> None:
        invite, salt = Invite(ticket.public, Rights(role), EXPIRES_MS_MAX), self.random.randbytes(SALT_BYTES)
        self.say(lambda members, header: encode_statement(invite, salt))

    def admit(self, joiner: KeyPair, ticket: KeyPair) -> list[Commit]:
        """Admit a node by a ticket. All statements, as it is shown them."""
        admit, salt = (
            ask_admission(ticket, joiner, self.identity.network_id),
            self.random.randbytes(SALT_BYTES),
        )
        self.say(lambda members, header: encode_statement(admit, salt))
        return self.statements()

    def statements(self) -> list[Commit]:
        """Every commit of `system` that is here, in the order of arrival."""
        system = self.store.system
        with self.store.read() as snapshot:
            found = [
                snapshot.log.commit(arrival.chain, arrival.seq)
                for arrival in snapshot.log.arrivals()
                if self.store.names.space_of_chain(arrival.chain) == system
            ]
        return [commit for commit in found if commit is not None]

    def revoke(self, other: "Node", *, keeping: Callable[[SpaceId, Author, int], int] | None = None) -> None:
        """Put another node out. Of its chains stays what is here, or what `keeping` makes of each head's seq."""
        key, salt = other.node_keys.public, self.random.randbytes(SALT_BYTES)
        with self.store.read() as snapshot:
            heads = [
                (space, author, seq, digest)
                for chain, author in self.store.names.authors()
                if node_of(author) == key
                and (head := snapshot.head(space := self.store.names.space_of_chain(chain), author))
                and (seq := keeping(space, author, head.seq) if keeping else head.seq)
                and (digest := snapshot.header_hash(space, author, seq)) is not None
            ]
        self.say(lambda members, header: encode_statement(Revoke(key, Cuts.at_heads(heads)), salt))

    def grant(self, other: "Node", role: Role) -> None:
        statement, salt = Grant(other.node_keys.public, Rights(role)), self.random.randbytes(SALT_BYTES)
        self.say(lambda members, header: encode_statement(statement, salt))

    def recover(self, *revoked: Revoke) -> None:
        """Use the recovery code of the network: this node is an admin now, and whom it names are out."""
        keys, salt = self.world.network_keys, self.random.randbytes(SALT_BYTES)
        self.say(lambda members, header: sign_recovery(keys, revoked, salt, header))

    def come_due(self) -> None:
        """Let this node's clock reach whatever came too early."""
        due_ms = self.integrator.next_due_ms()
        if due_ms is not None:
            self.write(lambda local: None, max(due_ms, self.clock_ms()))

    def take(self, window: bytes) -> WindowIntegrated:
        """Integrate a window, however it came here."""
        names = (SYSTEM_SPACE_NAME, application_space_name(APPLICATION))
        answer = self.exchange.perform(IntegrateWindow(window, names, EVERYTHING))
        assert isinstance(answer, WindowIntegrated)
        self.tell()
        return answer

    # -- use -----------------------------------------------------------------------------------------------

    def put(self, id: str, **values: Any) -> None:
        """Create or update a document, durably."""
        self.edit(Edit(EditKind.PUT, self.world.model, id, values))

    def delete(self, id: str) -> None:
        self.edit(Edit(EditKind.DELETE, self.world.model, id, {}))

    def create(self, count: int = 1) -> None:
        for _ in range(count):
            id = sortable_id(self.clock_ms(), self.random.getrandbits(80))
            title = f"task {self.random.randrange(1_000_000)}"
            self.put(id, title=title, status="TODO", rank=self.random.randrange(1_000))

    def edit(self, *edits: Edit) -> None:
        self.write(DocumentChange(APPLICATION, f"user-{self.number}", list(edits)))
        with self.store.read() as snapshot:
            head = snapshot.head(self.store.space(APPLICATION), self.identity.author)
        if head is not None:
            self.acknowledged.add((self.identity.author, head.seq))
        self.tell()

    def tell(self) -> None:
        """Every session hears that something has arrived."""
        position = self.exchange.position
        for endpoint in list(self.endpoints):
            endpoint.give(Arrived(position))

    # -- a look inside -------------------------------------------------------------------------------------

    def root(self) -> bytes:
        return self.exchange.root()

    def seq_of(self, author: Author) -> int:
        with self.store.read() as snapshot:
            head = snapshot.head(self.store.space(APPLICATION), author)
        return head.seq if head is not None else 0

    def documents(self) -> dict[tuple[str, str], Document]:
        with self.store.read() as snapshot:
            return {(found.model, found.id): found for _, found in snapshot.documents.everything()}


def _copy(keys: KeyValueStore) -> MemoryKeyValueStore:
    copy = MemoryKeyValueStore()
    with keys.read() as source, copy.write() as target:
        for table in Table:
            for key, value in source.scan(table, b"", None):
                target.put(table, key, value)
    return copy


@dataclass(slots=True)
class Traffic:
    """What went over a link in one direction, framing included."""

    handshake_bytes: int = 0
    session_bytes: int = 0
    messages: int = 0


@dataclass
class Link:
    """Where one node calls another. Connections come and go; `is_kept` calls again after a cut."""

    world: World
    number: int
    caller: Node
    answerer: Node
    latency_ms: tuple[int, int] = (5, 20)
    chunk_bytes: tuple[int, int] | None = None  # bytes arrive in pieces of these sizes; None: as sent
    effect_ms: tuple[int, int] = (0, 3)
    redial_ms: tuple[int, int] = (50, 500)
    is_kept: bool = True
    cut_after_messages: int | None = None  # on the first connection, of both directions
    window_target_bytes: int = 1 << 20
    connection: "Connection | None" = None
    connections: int = 0
    traffic: dict[Side, Traffic] = field(default_factory=lambda: {side: Traffic() for side in Side})

    def open(self) -> None:
        """Call now, if both nodes are up and no connection stands."""
        if self.connection is not None or not (self.caller.is_up and self.answerer.is_up):
            self.call_later()
            return
        self.connections += 1
        self.world.note("open", self.number, self.connections)
        self.connection = Connection(self)
        self.connection.begin()

    def call_later(self) -> None:
        if self.is_kept and self.connection is None:
            delay = self.world.chance("redial", self.number, self.connections, self.world.now_ms)
            self.world.after(delay.randint(*self.redial_ms), self._call_again)

    def _call_again(self) -> None:
        if self.is_kept and self.connection is None:
            self.open()

    def cut(self) -> None:
        if self.connection is not None:
            self.connection.cut()

    @property
    def session_bytes(self) -> int:
        return sum(traffic.session_bytes for traffic in self.traffic.values())


class Connection:
    """One connection: two ordered streams of bytes, until it is cut. What was under way is then lost."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.world = link.world
        self.is_open = True
        self.messages = 0
        self.random = self.world.chance("connection", link.number, link.connections)
        self._arrival_ms = dict.fromkeys(Side, 0)
        fingerprint = self.random.randbytes(32)
        self.ends = {
            Side.CALLER: Endpoint(self, Side.CALLER, link.caller, fingerprint),
            Side.ANSWERER: Endpoint(self, Side.ANSWERER, link.answerer, fingerprint),
        }

    def begin(self) -> None:
        for end in self.ends.values():
            end.node.endpoints.append(end)
            end.flush()

    def transmit(self, sender: Side, data: bytes) -> None:
        """Bytes on their way to the other side, in order."""
        end = self.ends[Side.ANSWERER if sender is Side.CALLER else Side.CALLER]
        limit = self.link.cut_after_messages
        for frame in _frames(data):
            self.messages += 1
            self.link.traffic[sender].messages += 1
            self._carry(sender, end, frame)
            if limit is not None and self.link.connections == 1 and self.messages >= limit:
                due_ms = self._arrival_ms[sender] - self.world.now_ms
                self.world.after(due_ms, self.cut)
                return

    def _carry(self, sender: Side, end: "Endpoint", data: bytes) -> None:
        for piece in self._pieces(data):
            due_ms = self.world.now_ms + self.random.randint(*self.link.latency_ms)
            self._arrival_ms[sender] = due_ms = max(due_ms, self._arrival_ms[sender])
            self.world.after(due_ms - self.world.now_ms, partial(end.hear, piece))

    def _pieces(self, data: bytes) -> Iterator[bytes]:
        if self.link.chunk_bytes is None:
            yield data
            return
        place = 0
        while place < len(data):
            size = self.random.randint(*self.link.chunk_bytes)
            yield data[place : place + size]
            place += size

    def cut(self, *, is_silent: bool = False) -> None:
        """Both sides see the end of the stream, unless the cut is silent: then each finds out by itself."""
        if not self.is_open:
            return
        self.is_open = False
        self.world.note("cut", self.link.number)
        if self.link.connection is self:
            self.link.connection = None
        for end in self.ends.values():
            if not is_silent:
                end.hear_eof()
        self.link.call_later()


def _frames(data: bytes) -> Iterator[bytes]:
    place = 0
    while place < len(data):
        size = int.from_bytes(data[place : place + HEADER_BYTES], "big") & 0x7FFFFFFF
        yield data[place : place + HEADER_BYTES + size]
        place += HEADER_BYTES + size


class Endpoint:
    """The driver of one end: carries bytes, effects and deadlines, and decides nothing."""

    def __init__(self, connection: Connection, side: Side, node: Node, fingerprint: bytes) -> None:
        self.connection = connection
        self.world = connection.world
        self.side = side
        self.node = node
        self.random = self.world.chance("end", connection.link.number, connection.link.connections, side.name)
        identity = node.identity
        local = Local(node.node_keys, identity.author, identity.epoch, identity.network_id)
        self.handshake: Handshake | None = Handshake(
            side, local, nonce=self.random.randbytes(32), fingerprint=fingerprint, clock_ms=node.clock_ms(),
            now_ms=self.world.now_ms,
        )  # fmt: skip
        self.session: SyncSession | None = None
        self.peer: Peer | None = None
        self._due_ms = {False: 0, True: 0}  # reading and integrating are queues of their own
        self._armed_ms: int | None = None

    @property
    def is_gone(self) -> bool:
        return self not in self.node.endpoints

    def hear(self, data: bytes) -> None:
        if self.is_gone or not self.connection.is_open:
            return
        self.world.note("hear", self.node.number, self.connection.link.number, data)
        if self.session is not None:
            self.step(self.session.receive(data, self.world.now_ms))
        elif self.handshake is not None:
            self._on_handshake(self.handshake.receive(data))

    def hear_eof(self) -> None:
        if not self.is_gone and self.session is not None:
            self.step(self.session.receive_eof())
        self.leave()

    def give(self, given: Any) -> None:
        if self.session is not None and not self.is_gone:
            self.step(self.session.send(given, self.world.now_ms))

    def _on_handshake(self, events: list[Peer | HandshakeFailed]) -> None:
        self.flush()
        for event in events:
            if isinstance(event, HandshakeFailed):
                self.connection.cut()
                return
            assert self.handshake is not None
            self.peer = event
            rest, self.handshake = self.handshake.rest(), None
            self.session = SyncSession(
                is_caller=self.side is Side.CALLER, network_id=self.node.identity.network_id,
                author=self.node.identity.author, peer=event.author, peer_epoch=event.epoch,
                now_ms=self.world.now_ms, window_target_bytes=self.connection.link.window_target_bytes,
            )  # fmt: skip
            self.give(Begin())
            if rest:
                self.hear(rest)

    def flush(self) -> None:
        """Bytes out, deadline re-armed."""
        machine = self.session or self.handshake
        if machine is None:
            return
        data = machine.take_bytes()
        if data and self.connection.is_open:
            traffic = self.connection.link.traffic[self.side]
            if self.session is not None:
                traffic.session_bytes += len(data)
            else:
                traffic.handshake_bytes += len(data)
            self.connection.transmit(self.side, data)
        deadline_ms = machine.deadline_ms
        if deadline_ms is not None and (self._armed_ms is None or deadline_ms < self._armed_ms):
            self._armed_ms = deadline_ms
            self.world.after(max(0, deadline_ms - self.world.now_ms), lambda: self._on_time(deadline_ms))

    def _on_time(self, armed_ms: int) -> None:
        if self._armed_ms != armed_ms or self.is_gone:
            return
        self._armed_ms = None
        if self.session is not None:
            self.step(self.session.on_deadline(self.world.now_ms))
        elif self.handshake is not None:
            self._on_handshake(self.handshake.on_deadline(self.world.now_ms))

    def step(self, events: list[Event]) -> None:
        """After any input: bytes out, timer re-armed, then events onwards."""
        self.flush()
        for event in events:
            match event:
                case InSync(position):
                    assert self.peer is not None
                    self.node.exchange.keep_cursor(self.peer.author, self.peer.epoch, position)
                    self.node.news.append(event)
                case RolledBack():
                    self.node.news.append(event)
                    self.node.renew()
                    return
                case Ended() | PeerMisbehaved():
                    self.node.news.append(event)
                    self.leave()
                    self.connection.cut()
                    return
                case _ if isinstance(event, Effect):
                    self._carry_out(event)
                case _:
                    self.node.news.append(event)

    def leave(self) -> None:
        if not self.is_gone:
            self.node.endpoints.remove(self)

    def _carry_out(self, effect: Effect) -> None:
        """Storage takes its time, first to look and then to answer; answers of one kind keep their order."""
        lane = isinstance(effect, IntegrateWindow)
        low, high = self.connection.link.effect_ms
        looks_ms = max(self.world.now_ms + self.random.randint(low, high), self._due_ms[lane])
        answers_ms = self._due_ms[lane] = looks_ms + self.random.randint(low, high)
        self.world.after(looks_ms - self.world.now_ms, lambda: self._look(effect, answers_ms))

    def _look(self, effect: Effect, answers_ms: int) -> None:
        if self.is_gone or not self.node.is_up:
            return
        before = self.node.exchange.position
        answer = self.node.exchange.perform(effect)
        self.world.after(answers_ms - self.world.now_ms, lambda: self.give(answer))
        if self.node.exchange.position > before:
            self.node.tell()

    def close(self) -> None:
        self.give(Close("closing"))
