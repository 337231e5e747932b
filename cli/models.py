"""The models of a node, as commands need them.

Room: asks the node and reads its definitions; makes none.
"""

from dataclasses import dataclass
from typing import Any

from cli.client import ApiRefused, NodeClient, segment


@dataclass(frozen=True, slots=True)
class Model:
    """A model as the node tells it."""

    definition: dict[str, Any]

    @property
    def fields(self) -> dict[str, str]:
        """Name -> type, in the order of the definition."""
        return {field["name"]: field["type"] for field in self.definition["fields"]}


def find(node: NodeClient, name: str) -> Model | None:
    """The model of that name (or model id), None if there is none."""
    try:
        found = node.get(f"/v1/data-models/{segment(name)}")
    except ApiRefused as fault:
        if fault.status == 404:
            return None
        raise
    return Model(found)


def names(node: NodeClient) -> list[str]:
    """The names of all models."""
    return [str(model["name"]) for model in node.get("/v1/data-models")]
