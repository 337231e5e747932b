"""What models, options and operators are called in GraphQL.

Room: names alone, by rules that hold for every schema.

- A model `Task` is the type `Task`, and `task`, `tasks` (or its `plural`), `tasksPage`, `createTask`, `updateTask`,
  `deleteTask`, `taskChanged`. A hyphen of its name becomes `_`. Where an older model has one of these names already,
  or GraphQL itself has, the model goes by its id instead (`task_1a2b3c4d`): a model that comes later takes nobody's.
- A field is called as it is: its name is one of GraphQL too.
- An option of an enum is called as it is, where it can be: of other characters, those of ASCII become `_`, and the
  rest `u` and their code in hexadecimal; before a digit stands `_`, before `__` or nothing but `_` a `u`. A name that
  is taken, or means something else (`true`, `false`, `null`), gets `_` at its end.
- An operator is added to the field, as in `due_date_lt`; if a field is called so, the operator gets `_` at its end.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from protocol.schema import FieldType, Model

OWN_TYPES = frozenset(
    {
        *("Query", "Mutation", "Subscription"),
        *("String", "Int", "Float", "Boolean", "ID", "Int64", "Date", "DateTime", "JSON"),
        *("SortOrder", "ChangeEvent", "FieldEdit"),
    }
)
_LITERALS = frozenset({"true", "false", "null"})  # no option of an enum may be called so (GraphQL, 2.9.6)


@dataclass(frozen=True, slots=True)
class ModelNames:
    """What one model is called. Types that belong to it begin with `type`."""

    type: str
    one: str
    many: str

    @property
    def page(self) -> str:
        return f"{self.many}Page"

    @property
    def changed(self) -> str:
        return f"{self.one}Changed"

    def enum(self, field: str) -> str:
        """The type of an enum field."""
        return f"{self.type}_{field}"

    def types(self, model: Model) -> set[str]:
        """All types that the model needs."""
        enums = {self.enum(f.name) for f in model.fields.values() if f.type is FieldType.ENUM}
        own = {self.type + end for end in ("", "Page", "Input", "Filter", "Sort", "SortField", "Change")}
        return enums | own


def name_models(models: Iterable[Model]) -> list[tuple[Model, ModelNames]]:
    """The models with their names, oldest first."""
    types: set[str] = set(OWN_TYPES)
    fields: set[str] = set()
    named: list[tuple[Model, ModelNames]] = []
    for model in sorted(models, key=lambda model: (model.created_at_ms, model.id)):
        wanted = model.name.replace("-", "_")
        names = _names(wanted, model.plural)
        while _clash(names, model, types, fields):
            wanted = f"{wanted}_" if wanted.startswith(model.id) else model.id
            names = _names(wanted, None)
        types |= names.types(model)
        fields |= {names.one, names.many, names.page}
        named.append((model, names))
    return named


def _names(name: str, plural: str | None) -> ModelNames:
    one = name[:1].lower() + name[1:]
    many = plural if plural is not None and plural != one else one + "s"
    return ModelNames(name[:1].upper() + name[1:], one, many)


def _clash(names: ModelNames, model: Model, types: set[str], fields: set[str]) -> bool:
    asked = {names.one, names.many, names.page}
    return len(asked) < 3 or not types.isdisjoint(names.types(model)) or not fields.isdisjoint(asked)


def name_options(options: Sequence[str]) -> dict[str, str]:
    """The names of options, by option and in their order."""
    names = {option: option for option in options if _is_plain(option)}
    taken = {*names, *_LITERALS}
    for option in options:
        if option not in names:
            names[option] = free_name(_begun("".join(map(_in_name, option))), taken)
            taken.add(names[option])
    return {option: names[option] for option in options}


def free_name(name: str, taken: Collection[str]) -> str:
    """The name, with `_` at its end until it is not taken."""
    while name in taken:
        name += "_"
    return name


def _is_plain(option: str) -> bool:
    is_name = option.isascii() and option.isidentifier()
    return is_name and not option.startswith("__") and option not in _LITERALS


def _in_name(character: str) -> str:
    if character.isascii():
        return character if character.isalnum() or character == "_" else "_"
    return f"u{ord(character):x}"


def _begun(name: str) -> str:
    if name[:1].isdigit():
        return f"_{name}"
    return f"u{name}" if name.startswith("__") or name == "_" else name
