"""One node for all tests of a worker; each test works on models of its own."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from cosmicsync import CosmicSync
from tests.system.process import NodeProcess

_names = itertools.count(1)


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    with NodeProcess(tmp_path_factory.mktemp("sdk") / "data") as running:
        yield running


@pytest.fixture
def client(node: NodeProcess, tmp_path: Path) -> Iterator[CosmicSync]:
    """A client with the owner's token and a store on disk."""
    with CosmicSync(node.url, token=node.token, store=tmp_path / "store.sqlite") as made:
        yield made


@pytest.fixture
def task(client: CosmicSync) -> str:
    """A model that no other test uses."""
    name = f"Task{next(_names)}"
    client.define_model(
        name,
        fields={
            "title": {"type": "string", "required": True},
            "status": {"type": "enum", "options": ["TODO", "DONE"], "default": "TODO"},
            "priority": "integer",
            "weight": "number",
            "urgent": "boolean",
            "due": "date",
            "at": "datetime",
            "tags": "set",
            "votes": "counter",
            "more": "json",
            "body": "text",
        },
    )
    return name
