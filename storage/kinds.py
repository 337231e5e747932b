"""What planning a write needs to know of a model, looked up once a definition.

Room: which of its fields merge in ways of their own, and which are unique together.
"""

from dataclasses import dataclass

from protocol.body import Kind
from protocol.schema import FieldType, Model

MODELS_MAX = 1_000  # remembered; full, it is emptied
_SHARED = {FieldType.TEXT: Kind.TEXT.value, FieldType.ARRAY: Kind.ARRAY.value}


@dataclass(frozen=True, slots=True)
class Kinds:
    """Of one model."""

    sets: tuple[str, ...]
    counters: tuple[str, ...]
    shared: dict[str, int]  # collaborative fields, with the kind of operation
    unique: tuple[tuple[str, ...], ...]  # fields that are unique together
    references: tuple[tuple[str, str], ...]  # fields that name an instance, and the name of its model


class KindsOfModels:
    """For the one writer."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Model, Kinds]] = {}

    def of(self, model: Model) -> Kinds:
        known = self._known.get(id(model))
        if known is not None and known[0] is model:
            return known[1]
        fields = model.fields.values()
        unique: list[tuple[str, ...]] = [(f.name,) for f in fields if f.unique]
        unique += [tuple(name for name, _ in spec.fields) for spec in model.indexes if spec.unique]
        kinds = Kinds(
            tuple(f.name for f in fields if f.type is FieldType.SET),
            tuple(f.name for f in fields if f.type is FieldType.COUNTER),
            {f.name: _SHARED[f.type] for f in fields if f.type in _SHARED},
            tuple(dict.fromkeys(unique)),
            tuple((f.name, f.model) for f in fields if f.model is not None and not f.encrypted),
        )
        if len(self._known) >= MODELS_MAX:
            self._known.clear()
        self._known[id(model)] = (model, kinds)
        return kinds
