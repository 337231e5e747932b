"""What is kept between requests, and what is not."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from node.api.civicbase.graphql import engine as engines
from node.api.civicbase.graphql.engine import Engine, Request
from node.api.civicbase.graphql.errors import DocumentFault
from node.api.routes import Caller
from tests.node.running import Running, running

OWNER = Caller("owner", "default", is_admin=True, is_owner=True)
TASK = {"name": "Task", "fields": [{"name": "title", "type": "string"}]}


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(tmp_path) as node:
        await node.model(TASK)
        yield node


@pytest.fixture
async def engine(node: Running, monkeypatch: pytest.MonkeyPatch) -> Engine:
    engine = await node.node.civicbase.graphql.engine()
    assert isinstance(engine, Engine)
    return engine


@pytest.fixture
def validated(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The documents that were validated."""
    texts: list[str] = []
    prepared = engines._prepared

    def counted(schema: Any, text: str, hides: bool) -> Any:
        texts.append(text)
        return prepared(schema, text, hides)

    monkeypatch.setattr(engines, "_prepared", counted)
    return texts


async def test_a_document_is_validated_once_for_a_schema(
    node: Running, engine: Engine, validated: list[str]
) -> None:
    asked = [
        Request("{ tasks { title } }", OWNER),
        Request("query ($n: Int) { tasks(page: $n) { id } }", OWNER),
    ]
    for _ in range(3):
        for request in asked:
            await engine.choose(request)
    assert len(validated) == 2
    with pytest.raises(DocumentFault):
        await engine.choose(Request("{ nope }", OWNER))
    with pytest.raises(DocumentFault):
        await engine.choose(Request("{ nope }", OWNER))
    assert validated.count("{ nope }") == 2  # only what is valid is kept
    made = await engine.made("default")
    assert await engine.made("default") is made
    await node.model({"name": "More", "fields": [{"name": "a", "type": "string"}]})
    assert engine.current("default") is None
    await engine.choose(asked[0])
    assert await engine.made("default") is not made and validated.count(asked[0].query) == 2


async def test_what_is_kept_is_bounded(
    node: Running, engine: Engine, validated: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "DOCUMENTS_MAX_CHARS", 100)
    monkeypatch.setattr(engines, "SCHEMAS_MAX", 2)
    for number in range(20):
        await engine.choose(Request(f"{{ a{number}: tasks {{ title }} }}", OWNER))
    made = await engine.made("default")
    assert 0 < sum(map(len, made.documents)) <= 100
    await engine.choose(Request("{ a19: tasks { title } }", OWNER))
    assert len(validated) == 20  # the newest are kept
    for name in ("one", "two", "three"):
        await engine.made(name)
    assert len(engine._made) == 2 and "default" not in engine._made


async def test_long_documents_do_not_hold_up_the_loop(
    engine: Engine, validated: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are read on another thread, with the same outcome."""
    text = (
        "{ tasks { " + " ".join(f"f{n}: title" for n in range(20)) + " } } #" + "x" * engines.BRIEF_MAX_CHARS
    )
    chosen = await engine.choose(Request(text, OWNER))
    assert len(chosen.prepared.operations) == 1
    with pytest.raises(DocumentFault, match="nope"):
        await engine.choose(Request(text.replace("tasks", "nope"), OWNER))
