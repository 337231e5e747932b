"""Several devices in this process: the daemon's own nodes over TLS on loopback, looked after as `civicnode start` does.

Room: what tests of membership need that would take too long with processes.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from node.daemon import Node
from node.origins import Address
from node.process import renewed
from node.settings import Settings

PATIENCE_S = 180.0  # a call comes again after up to 30 s, a second copy of an erased record after 60


@dataclass
class Answer:
    status: int
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


class Device:
    """A node that is looked after as `civicnode start` does."""

    def __init__(self, node: Node, http: aiohttp.ClientSession) -> None:
        self.node = node
        self.http = http
        self._keeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self.node.start()
        self._keeper = asyncio.create_task(self._keep())

    async def _keep(self) -> None:
        while True:
            assert self.node.renewal is not None
            await asyncio.wait([self.node.renewal])
            self.node = await renewed(self.node)

    async def stop(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        await self.node.stop()

    @property
    def directory(self) -> Path:
        return self.node.settings.data_dir

    @property
    def id(self) -> str:
        assert self.node.record is not None
        return self.node.record.keys.public.hex()

    @property
    def network_id(self) -> str:
        return self.node.network.network_id.hex()

    @property
    def listening(self) -> str:
        return str(self.node.network.listening)

    async def ask(self, method: str, path: str, body: Any = None, *, token: str | None = None) -> Answer:
        """One request, as the owner unless a token says otherwise."""
        token = token or (self.directory / "owner.token").read_text().strip()
        headers = {"Authorization": f"Bearer {token}"}
        async with self.http.request(method, self.node.url + path, json=body, headers=headers) as answer:
            return Answer(answer.status, await answer.text())

    async def get(self, path: str, body: Any = None, *, method: str = "GET", status: int = 200) -> Any:
        """What the owner is answered; the status is as said."""
        answer = await self.ask(method, path, body)
        assert answer.status == status, answer.text
        return answer.json

    async def invite(self, **wanted: Any) -> str:
        answer = await self.get("/v1/admin/invitations", wanted, method="POST", status=201)
        return str(answer["ticket"])

    async def join(self, ticket: str, keep: str | None = None) -> dict[str, Any]:
        joined: dict[str, Any] = await self.get(
            "/v1/admin/join", {"ticket": ticket, "keep": keep}, method="POST"
        )
        await until(lambda: self.network_id == joined["network_id"], "the node is back")
        return joined

    async def peers(self) -> dict[str, dict[str, Any]]:
        """The devices, by id."""
        answer = await self.get("/v1/admin/peers")
        return {one["node_id"]: one for one in answer["peers"]}

    async def refusal(
        self, method: str, path: str, body: Any = None, *, status: int, token: str | None = None
    ) -> str:
        """Why something is refused."""
        answer = await self.ask(method, path, body, token=token)
        assert answer.status == status, answer.text
        told = answer.json
        return str(told["error"]) + "".join(f" {k}: {v}" for k, v in (told.get("details") or {}).items())

    async def sign_in(self, name: str, *, application: str = "default", is_admin: bool = False) -> str:
        """The token of a new account."""
        path = "/v1/admin/admins" if is_admin else "/v1/auth/register"
        account = {"email": f"{name}@example.org", "password": "correct horse", "application_id": application}
        headers = {
            "Authorization": f"Bearer {(self.directory / 'owner.token').read_text().strip()}",
            "X-Application-Id": application,
        }
        body = {**account, "username": name}
        async with self.http.post(self.node.url + path, json=body, headers=headers) as made:
            assert made.status == 201, await made.text()
        async with self.http.post(self.node.url + "/v1/auth/login", json=account) as signed_in:
            assert signed_in.status == 200, await signed_in.text()
            return str((await signed_in.json())["token"])

    async def add_peer(self, other: "Device") -> None:
        """Know where another device is."""
        from node.net.contacts import Source

        running = await until(lambda: self.node.network._running, "the links of a device to be open")
        running.peers.found(other.node.network.listening, Source.CONFIGURED)

    def forget_peers(self) -> None:
        """Know nobody's address, and be linked with nobody."""
        running = self.node.network._running
        assert running is not None
        running.peers.contacts._contacts.clear()
        for link in list(running.peers.links):
            link.cut("the test says so")


async def until(holds: Callable[[], Any], what: str) -> Any:
    """What `holds` gives, or what awaiting that gives, once it is true."""
    ends_at = time.monotonic() + PATIENCE_S
    while time.monotonic() < ends_at:
        found = holds()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return found
        await asyncio.sleep(0.02)
    raise AssertionError(f"it did not come to this: {what}")


@asynccontextmanager
async def devices(tmp_path: Path, *names: str) -> AsyncIterator[list[Device]]:
    """Nodes of these names, each in a network of its own."""
    async with aiohttp.ClientSession() as http:
        started: list[Device] = []
        try:
            for name in names:
                settings = Settings(
                    data_dir=tmp_path / name,
                    api=Address("127.0.0.1", 0),
                    listen=Address("127.0.0.1", 0),
                    mdns=False,
                    name=name,
                    log_level="error",
                )
                device = Device(Node(settings), http)
                await device.start()
                started.append(device)
            yield started
        finally:
            for device in started:
                await device.stop()
