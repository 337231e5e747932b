"""May this definition take the place of that one?

Room: the rule that a model only grows, and the words for every way to break it.
Every node quarantines records that their model does not allow, so nothing may
change that could turn a stored, valid record into an invalid one.
"""

from typing import Any

from protocol.schema_definition import Definition
from protocol.schema_field import Field


def find_narrowing(old: Definition, new: Definition) -> dict[str, str]:
    """Why `new` cannot take the place of `old`: whatever might turn a valid record into an invalid one."""
    faults: dict[str, str] = {}
    if new.name != old.name:
        faults["name"] = f"A model keeps its name ({old.name}); define a new model instead"
    for name, before in old.fields.items():
        after = new.fields.get(name)
        path = f"fields.{name}"
        if after is None:
            faults[path] = f"The field {name} cannot be removed: records may hold values in it"
        elif after.type != before.type:
            faults[f"{path}.type"] = (
                f"The type of {name} cannot change from {before.type.value} to {after.type.value};"
                " add a new field"
            )
        else:
            _find_narrowed(path, before, after, faults)
    for name, after in new.fields.items():
        if name not in old.fields and after.required and after.default is None:
            faults[f"fields.{name}.required"] = (
                f"The new field {name} needs a default: existing records lack it"
            )
    return faults


def _find_narrowed(path: str, before: Field, after: Field, faults: dict[str, str]) -> None:
    name = before.name
    if after.required and after.default is None and not (before.required and before.default is None):
        faults[f"{path}.required"] = f"{name} cannot become required without a default: records may lack it"
    low: Any = after.minimum
    high: Any = after.maximum
    if low is not None and (before.minimum is None or low > before.minimum):
        faults[f"{path}.min"] = f"The min of {name} cannot be raised: records may hold less"
    if high is not None and (before.maximum is None or high < before.maximum):
        faults[f"{path}.max"] = f"The max of {name} cannot be lowered: records may hold more"
    if after.pattern is not None and after.pattern != before.pattern:
        faults[f"{path}.pattern"] = f"The pattern of {name} can only be removed: records may not match"
    if lost := [option for option in before.options if option not in after.options]:
        faults[f"{path}.options"] = f"Options of {name} cannot be removed: {', '.join(lost)}"
    if after.encrypted != before.encrypted:
        faults[f"{path}.encrypted"] = f"{name} cannot become encrypted or open: add a new field"
    if after.model != before.model:
        faults[f"{path}.model"] = f"{name} cannot refer to another model"
