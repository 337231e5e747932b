"""`Idempotency-Key` on POST (CONTRACT, S1), on a real node."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.node.running import Running, running

TASK = {"name": "Task", "fields": [{"name": "title", "type": "string", "required": True}]}
KEY = {"Idempotency_Key": "8e03978e-40d5-43dd-bc93-6894a57f9324"}
TASKS = "/v1/data/Task"


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(tmp_path / "node") as node:
        await node.model(TASK)
        yield node


async def total(node: Running) -> int:
    return int((await node.ask("GET", TASKS)).json["total"])


async def test_a_create_that_is_repeated_makes_one_record_and_gets_the_same_answer(node: Running) -> None:
    first = await node.ask("POST", TASKS, {"title": "once"}, **KEY)
    again = await node.ask("POST", TASKS, {"title": "once"}, **KEY)
    assert (first.status, again.status, first.text) == (201, 201, again.text)
    assert (
        first.headers["ETag"] == again.headers["ETag"]
        and first.headers["Location"] == again.headers["Location"]
    )
    assert await total(node) == 1
    _, ann = await node.sign_up("ann")
    assert (await node.ask("POST", TASKS, {"title": "once"}, token=ann, **KEY)).text != first.text


async def test_an_answer_that_could_not_be_kept_is_found_again_by_what_it_made(node: Running) -> None:
    first = await node.ask("POST", TASKS, {"title": "once"}, **KEY)
    for name, _ in node.node.local.scan("idempotency"):
        await node.node.local.delete("idempotency", name)  # as if the power had failed before
    again = await node.ask("POST", TASKS, {"title": "once"}, **KEY)
    assert (again.status, again.json) == (201, first.json) and await total(node) == 1


async def test_another_request_with_the_key_is_refused_and_what_failed_may_be_tried_again(
    node: Running,
) -> None:
    assert (await node.ask("POST", TASKS, {}, **KEY)).status == 400
    assert (await node.ask("POST", TASKS, {"title": "once"}, **KEY)).status == 201
    refused = await node.ask("POST", TASKS, {"title": "twice"}, **KEY)
    assert (refused.status, refused.json["error_code"]) == (422, "IDEMPOTENCY_KEY_REUSED")
    assert (await node.ask("POST", TASKS, {"title": "x"}, Idempotency_Key="k" * 256)).status == 400


async def test_of_many_at_once_one_does_it(node: Running) -> None:
    answers = await asyncio.gather(*(node.ask("POST", TASKS, {"title": "once"}, **KEY) for _ in range(8)))
    assert {answer.status for answer in answers} <= {201, 409} and await total(node) == 1


async def test_it_holds_for_every_post_but_keeps_no_secret(node: Running) -> None:
    batch = {"operations": [{"method": "POST", "path": "/data/Task", "body": {"title": "b"}}]}
    first = await node.ask("POST", "/v1/batch", batch, **KEY)
    assert (await node.ask("POST", "/v1/batch", batch, **KEY)).text == first.text and await total(node) == 1
    await node.sign_up("ann")
    account = {"email": "ann@example.org", "password": "securepassword123"}
    signed_in = await node.ask("POST", "/v1/auth/login", account, **KEY)
    kept = [one for _, one in node.node.local.scan("idempotency")]
    assert signed_in.status == 200 and all(
        signed_in.json["token"].encode() not in one["body"] for one in kept
    )
