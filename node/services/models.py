"""Data models as applications define and change them.

Room: define, evolve, delete, list. A definition is a document of the built-in
model `$model`, so it replicates and conflicts as any document does.
"""

from typing import Any

from node.services.records import Records, iso_time
from protocol.changes import Record
from protocol.schema import Model, evolve, parse_definition
from storage.catalog import MODEL, Catalog, definition_to_parts
from storage.errors import DocumentExists


class DefinitionRefused(Exception):
    """A definition breaks rules; `faults` names every one by its field."""

    def __init__(self, faults: dict[str, str]) -> None:
        super().__init__("; ".join(f"{name}: {fault}" for name, fault in faults.items()))
        self.faults = faults


def builtin_definitions() -> Model:
    """The built-in model whose documents are the definitions of all others."""
    return Model(id=MODEL, application="", name=MODEL, fields={}, indexes=(), conflict_strategy="crdt", permissions={},
                 plural=None, created_by="", created_at_ms=0, updated_at_ms=0, version="1")  # fmt: skip


class Models:
    """The models of every application on this node."""

    def __init__(self, records: Records, catalog: Catalog) -> None:
        self._records = records
        self._catalog = catalog

    def all_of(self, application: str) -> list[Model]:
        return list(self._catalog.models_of(application))

    async def define(self, application: str, body: object, *, user: str) -> Model:
        """A new model. Raises `DefinitionRefused` or `DocumentExists`."""
        model = self._parse(body, application)
        parts = definition_to_parts(model.to_definition())
        try:
            await self._records.create(self._definitions(application), parts, user=user, id=model.id)
        except DocumentExists as error:
            raise DocumentExists(f"A data model named '{model.name}' already exists") from error
        return self._records.model(application, model.id)

    async def change(self, model: Model, body: object, *, user: str) -> Model:
        """Evolve a model: fields and indexes may be added and loosened. Raises `DefinitionRefused`."""
        changed = self._parse(body, model.application)
        if changed.id != model.id:
            raise DefinitionRefused({"name": "A model keeps its name"})
        faults = evolve(model, changed)
        if faults:
            raise DefinitionRefused(faults)
        before, after = definition_to_parts(model.to_definition()), definition_to_parts(changed.to_definition())
        parts = {name: value for name, value in after.items() if before.get(name) != value}
        parts |= {name: None for name in before.keys() - after.keys()}
        if parts:
            await self._records.update(self._definitions(model.application), model.id, parts, user=user)
        return self._records.model(model.application, model.id)

    async def delete(self, model: Model, *, user: str) -> None:
        """Delete a definition. Its documents stay in the record and are shown again if it is defined again."""
        await self._records.delete(self._definitions(model.application), model.id, user=user)

    def _definitions(self, application: str) -> Model:
        return self._records.builtin(application, MODEL)

    def _parse(self, body: object, application: str) -> Model:
        parsed = parse_definition(body, application=application)
        if isinstance(parsed, dict):
            raise DefinitionRefused(parsed)
        return parsed


def model_to_json(model: Model) -> dict[str, Any]:
    """The JSON representation of a model: its definition, with who made it and when."""
    return {
        **model.to_definition(), "model_id": model.id, "application_id": model.application,
        "created_by": model.created_by, "created_at": iso_time(model.created_at_ms),
        "updated_at": iso_time(model.updated_at_ms), "version": model.version,
    }  # fmt: skip


