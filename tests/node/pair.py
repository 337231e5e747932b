"""Two whole nodes of one network in one process; unlinked, what one has written is handed over by hand.

Room: what tests share that ask one node about what happened on another. Each node is the daemon's own, with its
API on a free port and its record in a directory; only time is the test's.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from node.daemon import Node, World
from node.origins import Address
from node.settings import Settings
from protocol.body import SALT_BYTES
from protocol.commit import Commit, Header
from protocol.cuts import Cuts
from protocol.ids import NodeId, node_of
from protocol.keys import SEED_BYTES, KeyPair
from protocol.membership import Members, Rights, Role
from protocol.statements import (
    EXPIRES_MS_MAX,
    Admit,
    Grant,
    Invite,
    Revoke,
    ask_admission,
    encode_statement,
)
from storage.changes import Received, Said
from storage.judging import cuts_at_heads
from storage.keyfiles import NODE_KEY_FILE, load_or_make_key
from storage.lmdb_kv import LmdbKeyValueStore
from storage.opening import join_store
from storage.store import Store
from tests.node.fakes import Clock

FREE = Address("127.0.0.1", 0)
PASSWORD = "correct horse 9"


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Any
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


class Running:
    """One node, and a client of its API."""

    def __init__(self, directory: Path, clock: Clock, http: aiohttp.ClientSession, **settings: Any) -> None:
        defaults: dict[str, Any] = {"api": FREE, "listen": FREE, "mdns": False, "name": directory.name}
        self.clock = clock
        self.node = Node(Settings(data_dir=directory, **(defaults | settings)), World(now_ms=clock))
        self.http = http
        self.directory = directory

    async def start(self) -> None:
        """Start it, and let it do what it does by itself after a first start."""
        await self.node.start()
        while self.node.belonging._tasks or self.node.integrator.indexer.is_stale:  # noqa: ASYNC110
            await asyncio.sleep(0.001)  # what is waited for has no event

    @property
    def store(self) -> Store:
        assert self.node.record is not None
        return self.node.record.store

    @property
    def id(self) -> NodeId:
        assert self.store.identity is not None
        return node_of(self.store.identity.author)

    @property
    def owner(self) -> str:
        return (self.directory / "owner.token").read_text().strip()

    async def ask(
        self, method: str, path: str, body: Any = None, *, token: str | None = None, **headers: str
    ) -> Answer:
        """One request; without a token, the owner's."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        sent["Authorization"] = f"Bearer {self.owner if token is None else token}"
        url = self.node.url + path
        async with self.http.request(method, url, json=body, headers=sent) as answer:
            return Answer(answer.status, answer.headers, await answer.text())

    async def done(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        """The content of an answer that must be a success."""
        answer = await self.ask(method, path, body, **options)
        assert answer.status < 300, answer.text
        return answer.json if answer.text else None

    async def sign_up(self, name: str) -> tuple[str, str]:
        """-> user id, token."""
        account = {"email": f"{name}@example.org", "password": PASSWORD}
        made = await self.done("POST", "/v1/auth/register", {**account, "username": name})
        return str(made["user_id"]), await self.login(name)

    async def login(self, name: str, password: str = PASSWORD) -> str:
        account = {"email": f"{name}@example.org", "password": password}
        return str((await self.done("POST", "/v1/auth/login", account))["token"])

    # -- what it holds and says

    def commits(self) -> list[Commit]:
        """Every commit, in the order of arrival."""
        with self.store.read() as snapshot:
            found = [snapshot.log.commit(at.chain, at.seq) for at in snapshot.log.arrivals()]
        return [commit for commit in found if commit is not None]

    async def say(self, make: Callable[[Members, Header], bytes]) -> None:
        """Say something about the members of the network."""
        await self.node.writer.submit(Said(make))

    def cuts_at_heads(self, node: NodeId) -> Cuts:
        """What leaves standing all that is here of a node."""
        with self.store.read() as snapshot:
            return cuts_at_heads(snapshot, node)

    async def revoke(self, node: NodeId, cuts: Cuts | None = None) -> None:
        """Revoke a node; without `cuts`, what is here of it goes on counting."""
        revoke = Revoke(node, self.cuts_at_heads(node) if cuts is None else cuts)
        await self.say(lambda members, header: encode_statement(revoke, bytes(SALT_BYTES)))

    async def grant(self, node: NodeId, role: Role) -> None:
        await self.say(lambda members, header: encode_statement(Grant(node, Rights(role)), bytes(SALT_BYTES)))

    async def receive(self, commits: Sequence[Commit], applications: Sequence[str] = ()) -> None:
        """Integrate what another node has sent, as the sync engine does."""
        with self.store.read() as snapshot:
            met = [name for name in applications if name not in snapshot.applications()]
        outcomes = await self.node.writer.submit(Received(commits, met))
        assert outcomes is not None


async def hand_over(source: Running, target: Running) -> None:
    """All that the one has and the other lacks."""
    with target.store.read() as snapshot:
        heads = {
            (target.store.names.space_of_chain(chain), author): snapshot.head(
                target.store.names.space_of_chain(chain), author
            )
            for chain, author in target.store.names.authors()
        }
    missing = []
    for commit in source.commits():
        head = heads.get((commit.header.space, commit.header.author))
        if head is None or head.seq < commit.header.seq:
            missing.append(commit)
    with source.store.read() as snapshot:
        applications = snapshot.applications()
    if missing:
        await target.receive(missing, applications)


async def exchange(first: Running, second: Running) -> None:
    """Both hold the same afterwards."""
    await hand_over(first, second)
    await hand_over(second, first)


@asynccontextmanager
async def pair(
    directory: Path, *, role: Role = Role.MEMBER, is_linked: bool = False, **settings: Any
) -> AsyncIterator[tuple[Running, Running]]:
    """The founder of a network and a second node that it has admitted in this role."""
    async with AsyncExitStack() as held:
        http = await held.enter_async_context(aiohttp.ClientSession())
        first = Running(directory / "first", Clock(), http, **settings)
        await first.start()
        held.push_async_callback(first.node.stop)
        await admit(first, directory / "second", role)
        if is_linked:
            settings = {"peers": (first.node.network.listening,), **settings}
        second = Running(directory / "second", Clock(), http, **settings)
        await second.start()
        held.push_async_callback(second.node.stop)
        yield first, second


async def admit(host: Running, directory: Path, role: Role) -> None:
    """Make a data directory of a node that the host has admitted."""
    random_bytes = host.node.world.random_bytes
    keys = _new_node(directory, random_bytes(SEED_BYTES))
    ticket = KeyPair.from_seed(random_bytes(SEED_BYTES))
    network_id = host.store.members.genesis.network_id
    said: list[Invite | Admit] = [
        Invite(ticket.public, Rights(role), EXPIRES_MS_MAX),
        ask_admission(ticket, keys, network_id),
    ]
    for statement in said:
        body = encode_statement(statement, random_bytes(SALT_BYTES))
        await host.say(lambda members, header, body=body: body)  # type: ignore[misc]
    kept = LmdbKeyValueStore(str(directory))
    store = Store(kept)
    statements = [commit for commit in host.commits() if commit.header.space == host.store.system]
    join_store(store, keys, statements, random_bytes=random_bytes)
    store.close()


def _new_node(directory: Path, seed: bytes) -> KeyPair:
    directory.mkdir(mode=0o700)
    return load_or_make_key(directory / NODE_KEY_FILE, seed)
