"""Rights in models: what a member's device can make of them, and what an administrator's has said for good."""

from pathlib import Path
from typing import Any

from protocol.body import Dot, Operation
from protocol.ids import INCARNATION_BYTES, author_of, builtin_model_id
from protocol.schema_rules import DEFAULT_PERMISSIONS
from simulations.forger import Forger, frontier_deps
from tests.node.pair import Running, exchange, pair

DIARY: dict[str, Any] = {"name": "Diary", "fields": [{"name": "line", "type": "string"}]}
MINE = {"read": "owner"}
OPEN = {"read": "public", "create": "public", "update": "public", "delete": "public"}
PATH = "/v1/data-models/Diary"


async def rights(*nodes: Running) -> list[Any]:
    return [(await node.done("GET", PATH))["permissions"] for node in nodes]


async def forge(thief: Running, others: Running, *operations: Operation, is_apart: bool = False) -> None:
    """The device of `thief` says of the definition what no honest one would; `is_apart`, as if it knew of nothing."""
    assert thief.node.record is not None
    store, keys = thief.store, thief.node.record.keys
    definitions, space = builtin_model_id("default", "$model"), store.space("default")
    model = (await others.done("GET", PATH))["model_id"]
    with store.read() as snapshot:
        document = snapshot.documents.get(space, definitions, model)
    assert document is not None
    author = author_of(keys.public, thief.node.world.random_bytes(INCARNATION_BYTES))
    forger = Forger(keys, author)
    seen = () if is_apart else [Dot(writer, *last) for writer, last in document.vector.items()]
    deps = [dep for dep in frontier_deps(store, space, author) if dep.in_system or not is_apart]
    body = forger.body(definitions, model, seen=seen, operations=list(operations))
    commit = forger.commit(space, body, deps=deps, at_ms=thief.clock() + 1_000)
    for node in (thief, others):
        await node.receive([commit])


def to_set(permissions: Any) -> Operation:
    return [0, {"permissions": permissions}]


async def test_rights_that_an_administrators_device_has_said_are_not_changed_by_a_members(
    tmp_path: Path,
) -> None:
    async with pair(tmp_path) as (admin, member):
        _, token = await admin.sign_up("eve")
        await admin.done("POST", "/v1/data-models", {**DIARY, "permissions": MINE}, token=token)
        await exchange(admin, member)
        refused = await member.ask("PUT", PATH, {**DIARY, "permissions": OPEN})
        assert refused.status == 403 and "administrator's device" in refused.text
        assert (await member.ask("DELETE", PATH)).status == 403
        anew: list[Operation] = [[4], [5], to_set({**DIARY, "permissions": OPEN})]
        for operations in ([to_set(OPEN)], [[4]], anew, [[1, "permissions", ["x"]]]):
            await forge(member, admin, *operations)
            assert await rights(admin, member) == [MINE, MINE]
        await forge(member, admin, to_set(OPEN), is_apart=True)
        assert await rights(admin, member) == [MINE, MINE]

        await forge(member, admin, [4], is_apart=True)  # it can hide a definition, until it is said again
        assert (await admin.ask("GET", PATH)).status == 404
        await admin.done("POST", "/v1/data-models", {**DIARY, "permissions": MINE})
        await exchange(admin, member)
        assert await rights(admin, member) == [MINE, MINE]


async def test_rights_that_a_members_device_has_said_count_until_an_administrators_says_them(
    tmp_path: Path,
) -> None:
    async with pair(tmp_path) as (admin, member):
        definer, token = await member.sign_up("dan")
        await member.done("POST", "/v1/data-models", DIARY, token=token)
        changed = await member.done("PUT", PATH, {**DIARY, "permissions": MINE}, token=token)
        assert changed["permissions"] == MINE
        await exchange(admin, member)
        await forge(admin, member, to_set(OPEN), is_apart=True)  # as another member's device could
        assert await rights(admin, member) == [{**DEFAULT_PERMISSIONS, **MINE}] * 2
        assert (await member.ask("PUT", PATH, {**DIARY, "permissions": OPEN}, token=token)).status == 403
        body = {**DIARY, "permissions": OPEN}
        refused = await admin.ask("PUT", PATH, body, token=await admin.login("dan"))
        assert refused.status == 403 and "by an administrator" in refused.text

        said = await admin.done("PUT", PATH, {**DIARY, "permissions": MINE})
        assert (said["permissions"], said["created_by"]) == (MINE, definer)
        await exchange(admin, member)
        more = {**DIARY, "fields": [*DIARY["fields"], {"name": "mood", "type": "string"}]}
        assert (await member.done("PUT", PATH, more, token=token))["permissions"] == MINE
        await exchange(admin, member)
        assert await rights(admin, member) == [MINE, MINE]
