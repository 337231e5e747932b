"""Data models as applications define and change them.

Room: define, evolve, delete, list. A definition is a document of the built-in
model `$model`, so it replicates and conflicts as any document does.

Rights in a model count from admin nodes, which say them beside the definition, in `$role_model`; until one has, those
of the definition do, which a member node can change as long as no other has written to it (SPEC, section 11).
"""

from collections.abc import Callable

from node.services.records import Records
from node.services.refusals import NotPermitted
from protocol.changes import Edit, EditKind, Record
from protocol.errors import ModelFault
from protocol.errors import NotPermitted as MayNotWrite
from protocol.roles import Role
from protocol.schema import Model, evolve, parse_definition
from protocol.verdicts import PERMISSIONS
from storage.catalog import MODEL, RIGHTS, Catalog, definition_to_parts, rights_to_parts
from storage.errors import DocumentExists

RECORDS_NAMED_MAX = 5
_ELSEWHERE = (
    "Others' devices have written to this definition: its permissions are set, and it is removed or defined again, on"
    " an administrator's device"
)
# A member's device can date back what it writes, and be the first to have defined a model.
_UNPROVED = (
    "A member's device says who defined this model: its permissions are set there, or by an administrator"
)


class Models:
    """The models of every application on this node."""

    def __init__(
        self,
        records: Records,
        catalog: Catalog,
        *,
        may_govern: Callable[[], bool],
        strategy_named: Callable[[str], str | None] = lambda name: None,
    ) -> None:
        """`may_govern()` is True on an admin node. `strategy_named` gives the full name of a plugin's strategy; None
        for any other."""
        self._may_govern = may_govern
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
        edits = [Edit(EditKind.CREATE, self._definitions(application), model.id, parts)]
        edits += self._rights(model, definer=user)
        try:
            await self._write(model, edits, user=user)
        except DocumentExists as error:
            raise DocumentExists(f"A data model named '{model.name}' already exists") from error
        return self._records.model(application, model.id)

    async def change(self, model: Model, body: object, *, user: str, is_admin: bool = True) -> Model:
        """Evolve a model: fields and indexes may be added and loosened, validators changed as far as the records
        that are here allow it. Its permissions stay unless others are given.

        On an admin node they stand for good once an administrator has written the definition there. Raises
        `ModelFault`, and `NotPermitted` for what is to be written on such a node.
        """
        if isinstance(body, dict):
            body = {"permissions": model.permissions, **body}
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
        edits = []
        if parts:
            edits.append(Edit(EditKind.UPDATE, self._definitions(model.application), model.id, parts))
        if changed.permissions != model.permissions or (is_admin and self._may_govern()):
            if self._may_govern() and not is_admin and self._said(model) is None:
                raise NotPermitted(_UNPROVED)
            edits += self._rights(changed, definer=model.created_by)
        if edits:
            await self._write(model, edits, user=user)
        return self._records.model(model.application, model.id)

    def _rights(self, model: Model, *, definer: str) -> list[Edit]:
        """What makes the permissions of a model stand, on a node that can say so. Raises `NotPermitted` elsewhere
        where other permissions stand."""
        if self._may_govern():
            rights = self._records.builtin(model.application, RIGHTS)
            return [Edit(EditKind.PUT, rights, model.id, rights_to_parts(model.permissions, definer))]
        said = self._said(model)
        if said is not None and said.values.get(PERMISSIONS) != model.permissions:
            raise NotPermitted(_ELSEWHERE)
        return []

    def _said(self, model: Model) -> Record | None:
        """What an admin node has said of the rights in a model."""
        return self._records.get(self._records.builtin(model.application, RIGHTS), model.id)

    async def _write(self, model: Model, edits: list[Edit], *, user: str) -> None:
        try:
            await self._records.apply(model.application, user, edits)
        except MayNotWrite as error:
            if error.role != Role.MEMBER:
                raise
            raise NotPermitted(_ELSEWHERE) from error

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
        edits = [Edit(EditKind.DELETE, self._definitions(model.application), model.id, {})]
        if self._may_govern() and self._said(model) is not None:
            edits.append(
                Edit(EditKind.DELETE, self._records.builtin(model.application, RIGHTS), model.id, {})
            )
        await self._write(model, edits, user=user)

    def _named(self, body: object) -> object:
        """The definition with a plugin's strategy by its full name, which says which code is meant."""
        if isinstance(body, dict) and isinstance(strategy := body.get("conflict_strategy"), str):
            return {**body, "conflict_strategy": self._strategy_named(strategy) or strategy}
        return body

    def _definitions(self, application: str) -> Model:
        return self._records.builtin(application, MODEL)
