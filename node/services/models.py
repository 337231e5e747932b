"""Data models as applications define and change them.

Room: define, evolve, delete, list. A definition is a document of the built-in
model `$model`, so it replicates and conflicts as any document does.
"""

from collections.abc import Callable

from node.services.records import Records
from node.services.refusals import NotPermitted
from protocol.errors import ModelFault
from protocol.schema import Model, evolve, parse_definition
from storage.catalog import MODEL, Catalog, definition_to_parts
from storage.errors import DocumentExists

RECORDS_NAMED_MAX = 5


class Models:
    """The models of every application on this node."""

    def __init__(
        self,
        records: Records,
        catalog: Catalog,
        strategy_named: Callable[[str], str | None] = lambda name: None,
    ) -> None:
        """`strategy_named` gives the full name of a plugin's strategy; None for any other."""
        self._strategy_named = strategy_named
        self._records = records
        self._catalog = catalog

    def all_of(self, application: str) -> list[Model]:
        return list(self._catalog.models_of(application))

    async def define(self, application: str, body: object, *, user: str, is_admin: bool = True) -> Model:
        """A new model. Raises `ModelFault`, `DocumentExists`, or `NotPermitted`.

        A deleted model's documents show again under the new definition and its permissions, so with documents
        of others among them that is for administrators.
        """
        model = parse_definition(self._named(body), application=application)
        may_take_over = is_admin or self._catalog.find(application, model.id) is not None
        if not may_take_over and await self._records.holds_others(application, model.id, user):
            raise NotPermitted(f"Only administrators may define '{model.name}' again: it holds others' data")
        parts = definition_to_parts(model.to_definition())
        try:
            await self._records.create(self._definitions(application), parts, user=user, id=model.id)
        except DocumentExists as error:
            raise DocumentExists(f"A data model named '{model.name}' already exists") from error
        return self._records.model(application, model.id)

    async def change(self, model: Model, body: object, *, user: str) -> Model:
        """Evolve a model: fields and indexes may be added and loosened, validators changed as far as the records
        that are here allow it. Raises `ModelFault`."""
        changed = parse_definition(self._named(body), application=model.application)
        if changed.id != model.id:
            raise ModelFault({"name": "A model keeps its name"})
        faults = evolve(model, changed)
        if not faults and not set(changed.validators) <= set(model.validators):
            faults = await self._refused_records(model, changed)
        if faults:
            raise ModelFault(faults)
        before, after = (
            definition_to_parts(model.to_definition()),
            definition_to_parts(changed.to_definition()),
        )
        parts = {name: value for name, value in after.items() if before.get(name) != value}
        parts |= dict.fromkeys(before.keys() - after.keys())
        if parts:
            await self._records.update(self._definitions(model.application), model.id, parts, user=user)
        return self._records.model(model.application, model.id)

    async def _refused_records(self, model: Model, changed: Model) -> dict[str, str]:
        """A fault for each new validator that records do not meet which are shown here: they would be hidden.

        Records of other nodes that are not here yet are quarantined there and here if they do not meet it.
        """
        ids = await self._records.hidden_by(model, changed)
        if not ids:
            return {}
        some = ", ".join(ids[:RECORDS_NAMED_MAX])
        more = "" if len(ids) <= RECORDS_NAMED_MAX else f" and {len(ids) - RECORDS_NAMED_MAX} more"
        return {"validators": f"Records that are here do not meet them: {some}{more}. Change these first"}

    async def delete(self, model: Model, *, user: str) -> None:
        """Delete a definition. Its documents stay in the record, and show again if it is defined again."""
        await self._records.delete(self._definitions(model.application), model.id, user=user)

    def _named(self, body: object) -> object:
        """The definition with a plugin's strategy by its full name, which says which code is meant."""
        if isinstance(body, dict) and isinstance(strategy := body.get("conflict_strategy"), str):
            return {**body, "conflict_strategy": self._strategy_named(strategy) or strategy}
        return body

    def _definitions(self, application: str) -> Model:
        return self._records.builtin(application, MODEL)
