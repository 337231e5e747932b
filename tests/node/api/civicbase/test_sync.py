"""The routes about peers: what they tell to whom, and a sync that was asked for."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from node.api.civicbase.sync import TIMEOUT_MAX_MS, TIMEOUT_MS, SyncRoutes
from node.api.openapi import describe
from node.api.routes import Caller
from tests.node.api.harness import ADMIN_TOKEN, OWNER_TOKEN, USER_TOKEN, Api, api_with

PEER: dict[str, Any] = {
    "node_id": "aa" * 32,
    "name": None,
    "author": "aa" * 40,
    "address": "10.0.0.2:4490",
    "direction": "out",
    "source": None,
    "state": "live",
    "in_sync": True,
    "since": "2026-01-01T00:00:00.000Z",
    "in_sync_at": "2026-01-01T00:00:00.000Z",
    "lag_arrivals": 0,
    "lag_ms": 0,
    "bytes_in": 5,
    "handshake_bytes": 3,
    "bytes_out": 6,
    "clock_ahead_ms": 90_000,
    "last_fault": "once",
}
STATUS = {
    "in_sync": True,
    "node_id": "bb" * 32,
    "position": 7,
    "listen": "0.0.0.0:4490",
    "peers": [PEER],
    "warnings": [
        {"kind": "clock", "text": "apart"},
        {"kind": "fork", "text": "somebody", "at": "2026-01-01T00:00:00.000Z"},
    ],
}
ROOT = "cc" * 32


class Network:
    def __init__(self) -> None:
        self.waited_s: list[float] = []
        self.callers: list[str | None] = []

    async def root(self) -> str | None:
        return ROOT

    async def sync(self, timeout_s: float, caller: Caller) -> dict[str, Any]:
        self.waited_s.append(timeout_s)
        self.callers.append(caller.user_id)
        return {"syncedCount": 3, "conflicts": []}


@pytest.fixture
def network() -> Network:
    return Network()


@pytest.fixture
async def api(network: Network) -> AsyncIterator[Api]:
    async with api_with(*SyncRoutes(lambda: STATUS, network.root, network.sync).routes()) as api:
        yield api


@pytest.mark.parametrize("token", [OWNER_TOKEN, ADMIN_TOKEN])
async def test_the_owner_and_administrators_see_everything(api: Api, token: str) -> None:
    told = (await api.ask("GET", "/v1/sync/status", token=token)).json
    assert told == {name: value for name, value in STATUS.items() if name != "listen"} | {"root": ROOT}


async def test_others_see_how_peers_stand_but_neither_addresses_nor_faults(api: Api) -> None:
    told = (await api.ask("GET", "/v1/sync/status", token=USER_TOKEN)).json
    (peer,) = told["peers"]
    kept = ("address", "last_fault", "bytes_in", "bytes_out", "handshake_bytes")
    assert peer == PEER | dict.fromkeys(kept)
    assert [warning["kind"] for warning in told["warnings"]] == ["clock"]
    assert (await api.ask("GET", "/v1/sync/status")).status == 401


async def test_a_sync_answers_in_the_seeds_shape_and_waits_as_long_as_asked(
    api: Api, network: Network
) -> None:
    answer = await api.ask("POST", "/v1/sync", token=USER_TOKEN)
    assert (answer.status, answer.json) == (200, {"syncedCount": 3, "conflicts": []})
    await api.ask("POST", "/v1/sync?timeout_ms=250", token=USER_TOKEN)
    await api.post("/v1/sync?timeout_ms=0", {}, token=USER_TOKEN)
    assert network.waited_s == [TIMEOUT_MS / 1_000, 0.25, 0.0]
    assert network.callers == ["u1"] * 3
    assert (await api.ask("POST", "/v1/sync")).status == 401


@pytest.mark.parametrize("odd", ["-1", "x", "1.5", str(TIMEOUT_MAX_MS + 1), "9" * 30, "", "٣"])
async def test_a_time_to_wait_that_is_none_is_refused(api: Api, network: Network, odd: str) -> None:
    from urllib.parse import quote

    answer = await api.ask("POST", f"/v1/sync?timeout_ms={quote(odd)}", token=USER_TOKEN)
    assert answer.status == 400
    assert set(answer.json["details"]) == {"timeout_ms"}
    assert network.waited_s == []


def test_both_are_described() -> None:
    network = Network()
    document = describe(
        SyncRoutes(lambda: STATUS, network.root, network.sync).routes(), version="0", models=[]
    )
    assert {"/v1/sync/status", "/v1/sync"} <= document["paths"].keys()
