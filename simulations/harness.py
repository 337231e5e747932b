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
from collections.abc import Callable
from dataclasses import replace
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
    IntegrateWindow,
    News,
    WindowIntegrated,
)
from protocol.ids import (
    INCARNATION_BYTES,
    SYSTEM_SPACE_NAME,
    Author,
    NodeId,
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
from simulations.invariants import check
from simulations.links import Coming, Endpoint, Link
from storage.catalog import Catalog
from storage.changes import AnyChange, Said, SayAgain
from storage.exchange import Exchange
from storage.feed_entry import FeedEntry
from storage.index import Index
from storage.integrator import Integrator
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
        {"name": "notes", "type": "text"},
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
        self._numbers = count()  # of nodes, those included that are gone
        self.trace = sha256()
        self.network_keys = KeyPair.from_seed(self.chance("keys").randbytes(32))
        self.model = model_of(TASK)
        self.nodes: list[Node] = []
        self.links: list[Link] = []
        self.forbidden: dict[str, str] = {}  # ids of documents that nobody may see, and why
        self.unless_forked: dict[str, Author] = {}  # of some of these: unless this author's chain forks

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
        node = Node(self, next(self._numbers), skew_ms, role, by)
        self.nodes.append(node)
        return node

    def twin(self, node: "Node", *, is_noticed: bool = True) -> "Node":
        """A copy of a node's data directory, run as well; as with another disk image, unless it is noticed."""
        twin = Node(self, next(self._numbers), node.skew_ms, Role.MEMBER, copy_of=node, is_noticed=is_noticed)
        self.nodes.append(twin)
        return twin

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
        """Everything that must hold of a world at rest."""
        check(self)


class Node:
    """One node: a store that outlives crashes, and what runs on it."""

    def __init__(
        self,
        world: World,
        number: int,
        skew_ms: int,
        role: Role,
        by: "tuple[Node, KeyPair] | None" = None,
        copy_of: "Node | None" = None,
        is_noticed: bool = True,
    ) -> None:
        self.world = world
        self.number = number
        self.skew_ms = skew_ms
        self.random = world.chance("node", number)
        self.keys = world.make_keys(number)
        self.endpoints: list[Endpoint] = []
        self.coming: list[Coming] = []  # windows that are about to be taken in
        self.news: list[News] = []
        self.acknowledged: set[tuple[Author, int]] = set()
        self.entries: list[FeedEntry] = []  # of the feed, since this node began
        self.index = Index(None) if world.has_index else None
        self.is_up = False
        self.node_keys = KeyPair.from_seed(self.random.randbytes(32))
        if copy_of is not None:
            self.node_keys, self.keys = copy_of.node_keys, _copy(copy_of.keys)
        store = Store(self.keys)
        if copy_of is not None and is_noticed:
            renew_identity(store, self.random.randbytes)  # as the gate does, which sees another inode
        elif copy_of is not None:
            pass
        elif not world.nodes:
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
        self.integrator = self.integrator_over(self.store, self.index)
        self.integrator.indexer.open()
        while self.integrator.indexer.refill():
            pass
        self.exchange = Exchange(self.store, self.write)
        self.exchange.run(self.exchange.settle())
        self.is_up = True

    def integrator_over(self, store: Store, index: Index | None = None) -> Integrator:
        """What writes to a store as this node."""
        catalog = Catalog(store)
        catalog.add_builtin(self.world.model)
        with store.read() as snapshot:
            catalog.load(snapshot)
        return Integrator(store, index, catalog, self.node_keys, HybridClock(), self.random.randbytes,
                          lambda space, seq: None)  # fmt: skip

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
        self.revoke_key(other.node_keys.public, keeping=keeping)

    def revoke_key(self, key: bytes, *, keeping: Callable[[SpaceId, Author, int], int] | None = None) -> None:
        cuts, salt = standing_cuts(self, key, keeping=keeping), self.random.randbytes(SALT_BYTES)
        self.say(lambda members, header: encode_statement(Revoke(NodeId(key), cuts), salt))

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

    def erase(self, id: str) -> None:
        self.edit(Edit(EditKind.ERASE, self.world.model, id, {}))

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

    def say_again(self) -> None:
        """Say again what was lost with a branch of an own chain, if anything was."""
        if self.integrator.has_lost_anything() and self.write(SayAgain()):
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


def standing_cuts(
    node: Node,
    key: bytes,
    *,
    of_system: int = 0,
    keeping: Callable[[SpaceId, Author, int], int] | None = None,
) -> Cuts:
    """Cuts that leave what a node holds of another's chains, but for the last so many of `system`.

    Or what `keeping` makes of each head's seq.
    """
    names = node.store.names
    heads: list[tuple[SpaceId, Author, int, bytes]] = []
    with node.store.read() as snapshot:
        for chain, author in names.authors():
            space = names.space_of_chain(chain)
            head = snapshot.head(space, author) if node_of(author) == key else None
            if head is None:
                continue
            seq = keeping(space, author, head.seq) if keeping is not None else head.seq
            seq -= of_system if space == node.store.system else 0
            digest = snapshot.header_hash(space, author, seq) if seq > 0 else None
            if digest is not None:
                heads.append((space, author, seq, digest))
    return Cuts.at_heads(heads)


def _copy(keys: KeyValueStore) -> MemoryKeyValueStore:
    copy = MemoryKeyValueStore()
    with keys.read() as source, copy.write() as target:
        for table in Table:
            for key, value in source.scan(table, b"", None):
                target.put(table, key, value)
    return copy
