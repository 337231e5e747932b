"""The words of a definition that say how values made apart come together.

Room: which conflict strategies there are, what a field's `merge` may be, and how
both are read from a definition. What they do to values is `conflict`'s and
`folding`'s.
"""

import re
from collections.abc import Mapping

from protocol.schema_field import Field, FieldType

CRDT = "crdt"
LWW = "lww"
MERGE = "merge"
VERSION_VECTOR = "version_vector"
THREE_WAY = "three_way"
MANUAL = "manual"
STRATEGIES = (CRDT, LWW, MERGE, VERSION_VECTOR, THREE_WAY, MANUAL)
# Those under which the `merge` of a field counts. A plugin's may make of it what it likes.
FOLDING_STRATEGIES = frozenset({MERGE, VERSION_VECTOR, THREE_WAY})

# A plugin's strategy goes by its name and the hash of its code, so that nodes with different code never take
# each other's for their own.
_PLUGIN = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}@[0-9a-f]{16,64}")

_ORDERED_TYPES = frozenset(
    {FieldType.STRING, FieldType.INTEGER, FieldType.NUMBER, FieldType.BOOLEAN}
    | {FieldType.DATE, FieldType.DATETIME, FieldType.ENUM}
)
MERGES: Mapping[str, frozenset[FieldType]] = {
    "union": frozenset({FieldType.SET, FieldType.JSON}),
    "max": _ORDERED_TYPES,
    "min": _ORDERED_TYPES,
    "sum": frozenset({FieldType.INTEGER, FieldType.NUMBER, FieldType.COUNTER}),
    "concat": frozenset({FieldType.STRING, FieldType.JSON}),
}


def is_plugin(strategy: str) -> bool:
    """Whether a strategy is a plugin's: `name@hash`."""
    return strategy not in STRATEGIES


def read_strategy(strategy: object, faults: dict[str, str]) -> str:
    """The strategy of a definition; `crdt` where it names none."""
    if strategy is None:
        return CRDT
    if isinstance(strategy, str) and (strategy in STRATEGIES or _PLUGIN.fullmatch(strategy)):
        return strategy
    options = ", ".join(STRATEGIES)
    faults["conflict_strategy"] = f"Invalid option. Must be one of: {options}, or a plugin's as name@hash"
    return ""


def read_merge(kind: FieldType, merge: object, path: str, faults: dict[str, str]) -> str | None:
    """How a field of this type is folded; None if it is not, or not in a way that there is."""
    if merge is None:
        return None
    path = f"{path}.merge"
    offered = [name for name, kinds in MERGES.items() if kind in kinds]
    if not offered:
        faults[path] = f"merge does not apply to {kind.phrase}"
    elif isinstance(merge, str) and merge in offered:
        return merge
    elif isinstance(merge, str) and merge in MERGES:
        faults[path] = f"{merge} does not apply to {kind.phrase}. Must be one of: {', '.join(offered)}"
    else:
        faults[path] = f"Invalid option. Must be one of: {', '.join(offered)}"
    return None


def check_merges(strategy: str, fields: Mapping[str, Field], faults: dict[str, str]) -> None:
    """Name each field whose `merge` would do nothing under the strategy. None is known if that is faulty."""
    if not strategy or strategy in FOLDING_STRATEGIES or is_plugin(strategy):
        return
    for field in fields.values():
        if field.merge is not None:
            options = ", ".join(sorted(FOLDING_STRATEGIES))
            faults[f"fields.{field.name}.merge"] = f"Needs one of these as conflict_strategy: {options}"
