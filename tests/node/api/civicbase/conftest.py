"""The routes about accounts behind the real frame, on a free port, over fakes."""

import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest

from node.api.app import build_app
from node.api.authenticator import Authenticator, owner_caller
from node.api.civicbase import account_admin, api_keys, auth, mfa, users
from node.api.middleware import FrameParts
from node.api.refusals import REFUSALS
from node.api.runner import ApiServer
from node.logs import make_logger
from node.metrics import Metrics
from node.origins import Address
from protocol.schema import Model
from tests.node.fakes import FakeNode

OWNER_TOKEN = "owner-" + "o" * 37
PASSWORD = "securepassword123"


@dataclass(frozen=True)
class Deps:
    identity: Any
    find_model: Any


@dataclass
class Answer:
    status: int
    headers: Any
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


@dataclass
class Api:
    """A running node's routes about accounts."""

    node: FakeNode
    http: aiohttp.ClientSession
    url: str
    models: dict[tuple[str, str], Model] = field(default_factory=dict)

    async def ask(
        self, method: str, path: str, body: Any = None, *, token: str | None = None, **headers: str
    ) -> Answer:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        async with self.http.request(method, self.url + path, json=body, headers=sent) as answer:
            return Answer(answer.status, answer.headers, await answer.text())

    async def register(self, email: str = "ann@example.org", **more: Any) -> str:
        body = {"email": email, "password": PASSWORD, "username": email.partition("@")[0], **more}
        answer = await self.ask("POST", "/v1/auth/register", body)
        assert answer.status == 201, answer.text
        user: str = answer.json["user_id"]
        return user

    async def login(
        self, email: str = "ann@example.org", password: str = PASSWORD, **more: Any
    ) -> dict[str, Any]:
        answer = await self.ask("POST", "/v1/auth/login", {"email": email, "password": password, **more})
        assert answer.status == 200, answer.text
        granted: dict[str, Any] = answer.json
        return granted

    async def sign_up(self, email: str = "ann@example.org", **more: Any) -> tuple[str, str]:
        """-> user id, token."""
        user = await self.register(email, **more)
        return user, (await self.login(email, **more))["token"]

    async def admin(self) -> str:
        """An administrator's token."""
        made = await self.ask(
            "POST", "/v1/admin/admins", {"email": "boss@example.org", "password": PASSWORD}, token=OWNER_TOKEN
        )
        assert made.status == 201, made.text
        return str((await self.login("boss@example.org"))["token"])


@asynccontextmanager
async def running(**options: Any) -> AsyncIterator[Api]:
    """A node's routes about accounts, on a free port."""
    node = FakeNode(**options)
    models: dict[tuple[str, str], Model] = {}
    identity = node.identity
    authenticator = Authenticator(identity.tokens, identity.sessions, identity.api_keys, now_ms=node.clock)
    identity.changes.listen(authenticator.on_change)
    deps = Deps(identity, lambda application, name: models.get((application, name)))
    log = io.StringIO()
    logger = make_logger(level="error", format="json", stream=log, clock_ms=node.clock)
    parts = FrameParts(
        clock_ms=node.clock,
        seconds=lambda: node.clock.now_ms / 1000,
        new_request_id=lambda: "req-1",
        log=logger,
        metrics=Metrics(),
        authenticator=authenticator,
        owner_token=OWNER_TOKEN,
        owner=owner_caller("test"),
        error_table=REFUSALS,
    )
    parted = (auth, mfa, api_keys, users, account_admin)
    frame = build_app([route for part in parted for route in part.routes(deps)], parts)
    server = ApiServer(frame, Address("127.0.0.1", 0), logger)
    listening = await server.start()
    try:
        async with aiohttp.ClientSession() as http:
            yield Api(node, http, listening.url, models)
        assert not log.getvalue()  # unexpected errors, which are faults of ours
    finally:
        await server.stop(grace_s=1)
        node.close()


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with running() as made:
        yield made
