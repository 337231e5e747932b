"""One node for all tests of a worker; each test works on models of its own."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from cosmicsync import CosmicSync
from tests.system.process import NodeProcess

_names = itertools.count(1)


PLUGIN = """
import civicnode

async def cheap(context, below):
    return [one["name"] for one in await context.query("Offer", {"price": {"$lt": int(below)}})]

def label(record, context, currency):
    return f"{record['name']}: {record['price']} {currency}"

@civicnode.hookimpl
def queries():
    return [{"name": "cheap", "model": "Offer", "query": cheap}]

@civicnode.hookimpl
def model_methods():
    return [{"model": "Offer", "methods": {"label": label}}]
"""


def plugin(directory: Path) -> tuple[str, str]:
    """What to start a node with so that it has the plugin."""
    (directory / "plugins").mkdir()
    (directory / "plugins" / "offers.py").write_text(PLUGIN)
    return "--plugins-dir", str(directory / "plugins")


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    directory = tmp_path_factory.mktemp("sdk")
    with NodeProcess(directory / "data", *plugin(directory)) as running:
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
