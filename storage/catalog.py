"""The models in force: a cache of the `$model` documents, by application.

Room: from a `$model` document to a `Model` and back. Every part of a definition
is a register of its own, so that fields which two nodes added apart both stay.
Reads come from any thread, changes from the writer's.

A model's `permissions` are those in force (SPEC, section 11): what an admin node has said
of them in the `$role_model` document of the same id, else what the definition says.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from protocol.clock import ms_of_hlc
from protocol.conflict import Resolver
from protocol.document import Document
from protocol.errors import ModelFault
from protocol.ids import builtin_model_id
from protocol.schema import Field, FieldType, Model
from protocol.schema_rules import permissions_in_common
from protocol.times import datetime_from_ms
from protocol.verdicts import PERMISSIONS
from storage.store import Snapshot, Store

MODEL = "$model"
RIGHTS = "$role_model"  # its name makes it count from admin nodes alone
_DEFINER = "definer"
_FIELD_PREFIX = "field:"
# What a definition says beside what its definer wrote: it follows from the document, and is not stored in it.
_NOTES = frozenset({"model_id", "application_id", "created_by", "created_at", "updated_at", "version"})


def definition_to_parts(definition: dict[str, Any]) -> dict[str, Any]:
    """The registers of a `$model` document for a definition as `Model.to_definition` gives it."""
    parts = {name: value for name, value in definition.items() if name != "fields" and name not in _NOTES}
    parts["order"] = [field["name"] for field in definition["fields"]]
    return parts | {_FIELD_PREFIX + field["name"]: field for field in definition["fields"]}


def parts_to_definition(parts: dict[str, Any]) -> dict[str, Any]:
    """The definition that registers add up to; a field that `order` does not know comes last, by name."""
    fields = {
        name[len(_FIELD_PREFIX) :]: value for name, value in parts.items() if name.startswith(_FIELD_PREFIX)
    }
    listed = parts.get("order")
    order = [n for n in listed if isinstance(n, str) and n in fields] if isinstance(listed, list) else []
    order = list(dict.fromkeys(order)) + sorted(fields.keys() - set(order))
    rest = {
        name: value for name, value in parts.items() if name != "order" and not name.startswith(_FIELD_PREFIX)
    }
    return {**rest, "fields": [fields[name] for name in order]}


def definition_models() -> tuple[Model, Model]:
    """The built-in models that definitions, and what admin nodes say of their rights, are documents of."""
    fields = (Field(PERMISSIONS, FieldType.JSON), Field(_DEFINER, FieldType.STRING))
    rights = Model(id=RIGHTS, application="", name=RIGHTS, fields={field.name: field for field in fields})
    return Model(id=MODEL, application="", name=MODEL, fields={}), rights


def rights_to_parts(permissions: dict[str, Any], definer: str) -> dict[str, Any]:
    """The registers of a `$role_model` document."""
    return {PERMISSIONS: permissions, _DEFINER: definer}


def definition_ids(application: str) -> frozenset[str]:
    """The ids of the models whose documents say what a model is: both have one id for one model."""
    return frozenset(builtin_model_id(application, name) for name in (MODEL, RIGHTS))


class Catalog:
    """Which models there are, by application and by id or name."""

    def __init__(
        self, store: Store, resolver_of: Callable[[str], Resolver | None] = lambda strategy: None
    ) -> None:
        """`resolver_of` has the functions of plugins' strategies, by `name@hash`."""
        self._store = store
        self._resolver_of = resolver_of
        self._builtin: list[Model] = []
        self._by_space: dict[bytes, dict[str, Model]] = {}
        self._by_name: dict[tuple[str, str], Model] = {}
        self._by_id: dict[tuple[str, str], Model] = {}
        self._versions: dict[str, int] = {}

    def add_builtin(self, model: Model) -> None:
        """A model that the program itself defines, for every application; its name starts with `$`."""
        self._builtin.append(model)

    def add_application(self, application: str) -> list[Model]:
        """Make the built-in models of an application findable. Returns them. From any thread."""
        models = self._by_space.setdefault(self._store.space(application), {})
        found = []
        for template in self._builtin:
            id = builtin_model_id(application, template.name)
            model = models.setdefault(id, replace(template, id=id, application=application))
            self._by_name[application, model.name] = self._by_id[application, id] = model
            found.append(model)
        return found

    def builtin(self, application: str, name: str) -> Model:
        """A built-in model of any application, also of one that nobody has written to: nothing is remembered."""
        known = self._by_name.get((application, name))
        if known is not None:
            return known
        template = next(model for model in self._builtin if model.name == name)
        return replace(template, id=builtin_model_id(application, name), application=application)

    def applications(self) -> list[str]:
        """Applications that have been written to."""
        return sorted({application for application, _ in self._by_name})

    def knows(self, application: str) -> bool:
        """Whether anything was ever written to the application."""
        return self._store.space(application) in self._by_space

    def load(self, snapshot: Snapshot) -> None:
        """Read every definition. Called once, at start."""
        for application in snapshot.applications():
            self.add_application(application)
            space, definitions = self._store.space(application), builtin_model_id(application, MODEL)
            for document in snapshot.documents.all_of(space, definitions):
                self.update(application, document.id, snapshot)

    def update(self, application: str, id: str, snapshot: Snapshot) -> tuple[Model | None, Model | None]:
        """Take over what has changed of a model: its definition, or its rights. Returns the model before and after.

        Who reads meanwhile finds the one or the other.
        """
        space = self._store.space(application)
        definition, rights = (
            snapshot.documents.get(space, builtin_model_id(application, name), id) for name in (MODEL, RIGHTS)
        )
        models = self._by_space.setdefault(space, {})
        before = models.get(id)
        model = None if definition is None else self._read(application, definition, rights)
        if model is not None:
            models[model.id] = self._by_id[application, model.id] = model
            self._by_name[application, model.name] = model
        elif before is not None and not is_builtin(before):
            models.pop(before.id, None)
            self._by_id.pop((application, before.id), None)
            self._by_name.pop((application, before.name), None)
        self._versions[application] = self.version(application) + 1  # last: what is made of them is not older
        return before, model

    def version(self, application: str) -> int:
        """Another one whenever the application's own models are others: for what is made of all of them."""
        return self._versions.get(application, 0)

    def _read(self, application: str, document: Document, rights: Document | None) -> Model | None:
        """The model that a `$model` document defines; None if it is deleted, or not one that we understand."""
        if not document.exists:
            return None
        said = rights if rights is not None and rights.exists else document
        definer = said.values().get(_DEFINER) if said is rights else None
        try:
            model = Model.from_definition({
                **parts_to_definition(document.values()), "application_id": application,
                PERMISSIONS: permissions_in_common([value for _, value in said.live_values(PERMISSIONS)]),
                "created_by": definer or document.created_user, "version": document.version,
                "created_at": datetime_from_ms(ms_of_hlc(document.created_hlc)),
                "updated_at": datetime_from_ms(ms_of_hlc(document.updated_hlc)),
            })  # fmt: skip
        except (ModelFault, ValueError, OverflowError):
            return None  # of a newer release, or of a careless peer: its documents are kept and not shown
        if model.id != document.id or is_builtin(model):
            return None
        return (
            replace(model, resolver=self._resolver_of(model.conflict_strategy))
            if model.rules.is_plugins
            else model
        )

    def find(self, application: str, name_or_id: str) -> Model | None:
        """A model by its id or its name; built-in ones too.

        The id comes first: anyone may name a model as the id of another's, and must not get its requests.
        """
        key = application, name_or_id
        return self._by_id.get(key) or self._by_name.get(key)

    def by_id(self, space: bytes, model_id: str) -> Model | None:
        models = self._by_space.get(space)
        return models.get(model_id) if models else None

    def models_of(self, application: str) -> Iterator[Model]:
        """The application's own models, in the order of their names."""
        yield from sorted(
            (m for m in self.all_of(application) if not is_builtin(m)), key=lambda model: model.name
        )

    def all_of(self, application: str) -> list[Model]:
        """Every model of the application, built-in ones included."""
        return list(self._by_space.get(self._store.space(application), {}).values())


def is_builtin(model: Model) -> bool:
    """Whether the program itself defines the model; no route shows its documents as data."""
    return model.name.startswith("$")
