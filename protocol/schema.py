"""Models: what the documents of a kind look like, and whether given data fits.

Room: `Model` and the ways to make, check and change one. A model is a value; its
verdicts are a pure function of itself and the data, the same on every node. The
parts live next door: words and limits in `schema_field`, value checks in
`schema_check`, the JSON form in `schema_definition`. Where models are stored and
who may change them is decided elsewhere.

A new field type goes into `FieldType`, gets its check in `schema_check.check_of`,
its operators in `query` and its column in `storage.index_layout`.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

from protocol.conflict import Resolver, Rules
from protocol.errors import EditFault, ModelFault
from protocol.folding import Fold
from protocol.schema_check import Checks, compile_checks
from protocol.schema_definition import Definition, read_definition, write_definition
from protocol.schema_evolve import find_narrowing
from protocol.schema_field import META_FIELDS, SHARED_TYPES, Field, FieldType, IndexSpec, Value
from protocol.schema_rules import Validator, Validators
from protocol.schema_strategy import FOLDING_STRATEGIES
from protocol.text_edit import is_edit, read_edit
from protocol.times import datetime_from_ms, ms_from_datetime, normal_datetime

__all__ = [
    "META_FIELDS",
    "Field",
    "FieldType",
    "IndexSpec",
    "Model",
    "Value",
    "evolve",
    "model_id",
    "parse_definition",
]

# Fields whose value is a register: of the others an empty one cannot be told from one that never was.
_REGISTERS = frozenset(FieldType) - SHARED_TYPES - {FieldType.SET, FieldType.COUNTER}


@dataclass(frozen=True)
class Model:
    """One kind of document in one application.

    `fields` keeps the order of the definition. `permissions` is as it was posted. The last four say
    who defined the model and when; they come from the document that holds it.
    """

    id: str
    application: str
    name: str
    fields: dict[str, Field]
    indexes: tuple[IndexSpec, ...] = ()
    conflict_strategy: str = "crdt"
    permissions: dict[str, Any] = field(default_factory=dict)
    plural: str | None = None
    validators: tuple[Validator, ...] = ()
    created_by: str = ""
    created_at_ms: int = 0
    updated_at_ms: int = 0
    version: str = ""
    resolver: Resolver | None = field(
        default=None, compare=False
    )  # of a plugin's strategy, where this node has it

    @cached_property
    def _checks(self) -> Checks:
        return compile_checks(self.fields)

    @cached_property
    def rules(self) -> Rules:
        """How values of one field that did not see each other come together."""
        folds = {f.name: Fold(f) for f in self.fields.values() if f.merge is not None}
        heeded = folds if self.conflict_strategy in FOLDING_STRATEGIES else {}
        return Rules(self.conflict_strategy, heeded, None if self.resolver is None else self._resolved)

    def _resolved(self, versions: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
        """What a plugin's function makes of records, if that is allowed here."""
        assert self.resolver is not None
        resolved = self.resolver(versions)
        if resolved is None:
            return None
        open_fields = self.fields.keys() - self.encrypted
        values, faults = self._checks.update({n: resolved[n] for n in open_fields if n in resolved})
        return None if faults else values

    def check_create(self, data: Mapping[str, Value]) -> tuple[dict[str, Value], dict[str, str]]:
        """Values in stored form with defaults, in the model's order, and every fault by field, validators' too.

        Use the values only if there are no faults. A null means no value: it suppresses the default.
        """
        values, faults = self._checks.create(data)
        if self._validators:
            faults |= self._validators.faults(values, faults)
        return values, faults

    def check_update(self, data: Mapping[str, Value]) -> tuple[dict[str, Value], dict[str, str]]:
        """The same for the given fields alone. A null clears a field that is not required. What the validators
        say is known once the rest of the record is: `check_record`.

        For a collaborative field, operations may be given in place of a value: they come back as a `TextEdit`.
        """
        if self._shared.isdisjoint(data):
            return self._checks.update(data)
        edited = {name: data[name] for name in self._shared if is_edit(data.get(name))}
        values, faults = self._checks.update({name: v for name, v in data.items() if name not in edited})
        for name, given in edited.items():
            try:
                values[name] = read_edit(given, is_text=self.fields[name].type is FieldType.TEXT)
            except EditFault as fault:
                faults |= {f"{name}.{path}": what for path, what in fault.details.items()}
        return values, faults

    @cached_property
    def encrypted(self) -> frozenset[str]:
        """The fields whose values are sealed."""
        return frozenset(name for name, field in self.fields.items() if field.encrypted)

    @cached_property
    def _shared(self) -> frozenset[str]:
        return frozenset(name for name, field in self.fields.items() if field.type in SHARED_TYPES)

    def check_record(self, values: Mapping[str, Value]) -> dict[str, str]:
        """Every fault of a record's stored values; those of an honest node have none.

        A required field may be missing if it has a default: the record may be older than the field. Values in
        fields that the model has not are none of its business: they are kept, and show if the field returns.
        """
        faults = self._checks.record(values)
        if self._validators:
            faults |= self._validators.faults(values, faults)
        return faults

    @cached_property
    def _validators(self) -> Validators:
        return Validators(self.validators, {n: f for n, f in self.fields.items() if not f.encrypted})

    @cached_property
    def late_defaults(self) -> tuple[tuple[str, Value], ...]:
        """What records show that are older than a field: its default, where none was ever written."""
        return tuple(
            (f.name, f.default)
            for f in self.fields.values()
            if f.default is not None and f.type in _REGISTERS
        )

    def decides_as(self, other: "Model") -> bool:
        """Whether both allow and show the same of the same documents."""
        return (
            self.fields == other.fields
            and self.conflict_strategy == other.conflict_strategy
            and self.validators == other.validators
        )

    def to_definition(self) -> dict[str, Any]:
        """The definition as JSON, as posted and with what the node added."""
        return {
            "model_id": self.id,
            "application_id": self.application,
            **write_definition(self._definition()),
            "created_by": self.created_by,
            "created_at": datetime_from_ms(self.created_at_ms),
            "updated_at": datetime_from_ms(self.updated_at_ms),
            "version": self.version,
        }

    @classmethod
    def from_definition(cls, stored: Mapping[str, Any]) -> Self:
        """The model that `to_definition` wrote. Built-in names (`$…`) are allowed.

        What the node added may be missing. Raises `ModelFault`, and nothing else, if `stored` is
        not a definition: it may have come from a peer.
        """
        application = stored.get("application_id") if isinstance(stored, Mapping) else None
        if not isinstance(application, str):
            raise ModelFault({"application_id": "This field is required"})
        definition, faults = read_definition(stored, application=application, stored=True)
        notes: dict[str, Any] = {}
        for name in ("created_by", "version"):
            note = stored.get(name, "")
            if not isinstance(note, str):
                faults[name] = "Must be a string"
            notes[name] = note
        for name in ("created_at", "updated_at"):
            note = stored.get(name, datetime_from_ms(0))
            normal = normal_datetime(note) if isinstance(note, str) else None
            if normal is None:
                faults[name] = "Must be a date and time"
            else:
                notes[f"{name}_ms"] = ms_from_datetime(normal)
        if definition is None or faults:
            raise ModelFault(faults)
        return cls(**_definition_parts(definition, application), **notes)

    def _definition(self) -> Definition:
        return Definition(
            self.name,
            self.fields,
            self.indexes,
            self.conflict_strategy,
            self.permissions,
            self.plural,
            self.validators,
        )


def model_id(application: str, name: str) -> str:
    """The id that follows from application and name, so that definitions made apart are one document."""
    readable = "".join(c if c.isascii() and c.isalnum() else "_" for c in name.lower())
    digest = hashlib.sha256("\0".join((application, name)).encode()).hexdigest()
    return f"{readable}_{digest[:8]}"


def parse_definition(body: object, *, application: str) -> Model:
    """The model that a posted definition describes. Raises `ModelFault` naming every fault."""
    definition, faults = read_definition(body, application=application)
    if definition is None:
        raise ModelFault(faults)
    return Model(**_definition_parts(definition, application))


def evolve(old: Model, new: Model) -> dict[str, str]:
    """Every reason why `new` cannot replace `old`; empty if it can.

    A model grows only: nothing may change that could make a stored record invalid, because every
    node would then hide that record. Fields, options, indexes and permissions may be added, bounds
    widened, patterns and `required` dropped. Validators may change: whether records here meet them is
    for who has the records.
    """
    return find_narrowing(old._definition(), new._definition())


def _definition_parts(definition: Definition, application: str) -> dict[str, Any]:
    return {
        "id": model_id(application, definition.name),
        "application": application,
        "name": definition.name,
        "fields": definition.fields,
        "indexes": definition.indexes,
        "conflict_strategy": definition.conflict_strategy,
        "permissions": definition.permissions,
        "plural": definition.plural,
        "validators": definition.validators,
    }
