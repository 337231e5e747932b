"""`?expand=`: with an instance, those that its references name.

Room: from the names of reference fields to what the caller may read of what they name, each under `expand` of the
instance that names it. One level; what is not here, or not for the caller, is left out.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from node.api.routes import Caller
from node.services.permissions import Permissions
from node.services.records import Records
from protocol.schema import FieldType, Model
from storage.errors import UnknownModel

EXPANSIONS_MAX = 8
EXPAND_QUERY: dict[str, Any] = {
    "type": "string",
    "description": "Reference fields, parted by commas: what they name comes along, in `expand`",
}


def read_expansion(text: str | None, model: Model, faults: dict[str, str]) -> list[str]:
    """The fields that `expand` names; what is wrong with it goes to `faults`."""
    names = list(dict.fromkeys(name for part in (text or "").split(",") if (name := part.strip())))
    wrong = [name for name in names if not _is_reference(model, name)]
    if wrong:
        faults["expand"] = f"Not a reference to a model: {', '.join(wrong)}"
    elif len(names) > EXPANSIONS_MAX:
        faults["expand"] = f"Must name at most {EXPANSIONS_MAX} fields"
    return names


def _is_reference(model: Model, name: str) -> bool:
    field = model.fields.get(name)
    return field is not None and field.type is FieldType.REFERENCE and field.model is not None


def expanded(
    records: Records,
    permissions: Permissions,
    caller: Caller,
    model: Model,
    names: Sequence[str],
    items: Sequence[bytes],
) -> list[bytes]:
    """Rendered instances, each with `expand`: by field, the instance that it names."""
    if not names:
        return list(items)
    contents: list[dict[str, Any]] = [msgspec.json.decode(item) for item in items]
    for content in contents:
        content["expand"] = {}
    for name in names:
        ids = [id for content in contents if isinstance(id := content.get(name), str)]
        target_name = model.fields[name].model
        assert target_name is not None
        try:
            target = records.model(caller.application, target_name)
        except UnknownModel:
            continue
        found = {
            id: msgspec.Raw(document.json)
            for id, document in records.rendered_by_id(target, list(dict.fromkeys(ids))).items()
            if permissions.check(caller, target, "read", document)
        }
        for content in contents:
            if (shown := found.get(content.get(name, ""))) is not None:
                content["expand"][name] = shown
    return [msgspec.json.encode(content) for content in contents]
