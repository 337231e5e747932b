"""A node in this process, and another one of its network that writes without it until they meet.

Room: what tests of routes need that speak of several devices. The node is the daemon's own; `Other` is a store
with an author of its own, whose commits reach the node's writer as those of a peer do.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp

from node.daemon import Node
from node.origins import Address
from node.services.builtin import builtin_models
from node.settings import Settings
from protocol.changes import DocumentChange, Edit, EditKind
from protocol.clock import HybridClock
from protocol.ids import INCARNATION_BYTES, author_of
from protocol.integrate import Integrated, Known
from protocol.schema import Model
from storage.catalog import Catalog
from storage.changes import Received
from storage.integrator import Integrator
from storage.memory_kv import MemoryKeyValueStore
from storage.store import Store

APPLICATION = "default"
PASSWORD = "securepassword123"


@dataclass
class Answer:
    status: int
    headers: Any
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


class Other:
    """Another author of the network, apart from the node until they `meet`."""

    def __init__(self, node: Node) -> None:
        assert node.record is not None
        self._node = node
        self._record = node.record
        identity = self._record.store.identity
        assert identity is not None
        self._random = node.world.random_bytes
        self.store = Store(MemoryKeyValueStore())
        author = author_of(self._record.keys.public, self._random(INCARNATION_BYTES))
        self.store.begin(replace(identity, author=author), founding=None)
        with self.store.write() as batch:
            batch.add_application(APPLICATION)
        catalog = Catalog(self.store)
        for model in builtin_models():
            catalog.add_builtin(model)
        with self.store.read() as snapshot:
            catalog.load(snapshot)
        self.integrator = Integrator(self.store, None, catalog, self._record.keys, HybridClock(), self._random,
                                     lambda space, seq: None)  # fmt: skip

    def hear(self) -> None:
        """Take in all that the node has."""
        now_ms = self._node.world.now_ms()
        for commit in _commits(self._record.store):
            outcome, _ = self.integrator.receive(commit, now_ms)
            assert isinstance(outcome, Integrated | Known), outcome

    def write(self, kind: EditKind, model: Model, id: str, values: dict[str, Any], *, user: str) -> None:
        edit = Edit(kind, model, id, values)
        written = self.integrator.write(
            [DocumentChange(APPLICATION, user, [edit])], self._node.world.now_ms()
        )
        assert not isinstance(written.results[0], Exception), written.results

    async def meet(self) -> None:
        """The node takes in all that was written here, then this one what the node has."""
        await self._node.writer.submit(Received(_commits(self.store)))
        self.hear()


def _commits(store: Store) -> list[Any]:
    with store.read() as snapshot:
        found = [snapshot.log.commit(arrival.chain, arrival.seq) for arrival in snapshot.log.arrivals()]
    return [commit for commit in found if commit is not None]


@dataclass
class Running:
    node: Node
    other: Other
    http: aiohttp.ClientSession

    async def ask(
        self, method: str, path: str, body: Any = None, *, token: str | None = None, **headers: str
    ) -> Answer:
        """One request, as the owner unless a token says otherwise."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        token = token or (self.node.settings.data_dir / "owner.token").read_text().strip()
        sent["Authorization"] = f"Bearer {token}"
        async with self.http.request(method, self.node.url + path, json=body, headers=sent) as answer:
            return Answer(answer.status, answer.headers, await answer.text())

    async def model(self, definition: dict[str, Any]) -> Model:
        """Define a model, and let the other hear of it."""
        made = await self.ask("POST", "/v1/data-models", definition)
        assert made.status == 201, made.text
        self.other.hear()
        model = self.node.catalog.find(APPLICATION, definition["name"])
        assert model is not None
        return model

    async def apart(self, model: Model, id: str, here: dict[str, Any], there: dict[str, Any]) -> None:
        """Both set values of an instance without knowing of each other's; the other's are later. Then they meet."""
        await self.set(model, id, here)
        self.other.write(EditKind.PUT, model, id, there, user="bob")
        await self.other.meet()

    async def set(self, model: Model, id: str, values: dict[str, Any]) -> None:
        found = await self.ask("GET", f"/v1/data/{model.name}/{id}")
        if found.status == 404:
            answer = await self.ask("POST", f"/v1/data/{model.name}", {"id": id, **values})
        else:
            answer = await self.ask("PUT", f"/v1/data/{model.name}/{id}", values)
        assert answer.status in (200, 201), answer.text

    async def sign_up(self, name: str) -> tuple[str, str]:
        """-> user id, token."""
        account = {"email": f"{name}@example.org", "password": PASSWORD}
        made = await self.ask("POST", "/v1/auth/register", {**account, "username": name})
        assert made.status == 201, made.text
        signed_in = await self.ask("POST", "/v1/auth/login", account)
        assert signed_in.status == 200, signed_in.text
        return made.json["user_id"], signed_in.json["token"]


@asynccontextmanager
async def running(directory: Path, **more: Any) -> AsyncIterator[Running]:
    """`more` are settings beside those that tests need."""
    settings = Settings(
        data_dir=directory,
        api=Address("127.0.0.1", 0),
        listen=Address("127.0.0.1", 0),
        mdns=False,
        name="here",
        log_level="error",
        **more,
    )
    node = Node(settings)
    await node.start()
    try:
        async with aiohttp.ClientSession() as http:
            yield Running(node, Other(node), http)
    finally:
        await node.stop()
