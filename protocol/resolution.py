"""Ending a conflict: exactly the live values that were listed give way to one.

Room: the plan of the body that does so, and what a deleted document is restored
with. Which conflicts there are is `conflict`'s.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from protocol.ancestor import NOTHING, Past, Told
from protocol.body import Dot, Kind, Operation
from protocol.conflict import DELETED
from protocol.document import Document, wrapped
from protocol.planning import Plan, context_of, plan_emptied, plan_shared
from protocol.walk import KnownOf


class Resolution(NamedTuple):
    """Which conflict an edit ends: the field, and all its live values by their dots in ascending order.

    Of `$deleted`, `is_kept` says whether the document stays deleted.
    """

    field: str
    dots: tuple[Dot, ...]
    is_kept: bool = False


def live_dots(document: Document, field: str) -> tuple[Dot, ...]:
    """The dots of a field's live values, or of all that stands for and against a deletion."""
    if field == DELETED:
        if document.exists:
            return ()
        dots = {x.dot for x in document.layers if x.is_delete or x.registers or x.sets}
        dots |= {Dot(*field.edited[1:4]) for field in document.shared.values() if field.has_visible}
        return tuple(sorted(dots))
    return tuple(sorted(x.dot for x in document.layers if field in x.registers))


def plan_resolution(
    current: Document,
    ends: Resolution,
    values: Mapping[str, Any],
    *,
    sets: Sequence[str] = (),
    counters: Sequence[str] = (),
    shared: Mapping[str, int] | None = None,
    author: bytes = b"",
    known_of: KnownOf | None = None,
) -> Plan:
    """Operations that end the conflict `ends`, which stands in `current`.

    `values` holds the field's value; for a document that is restored, whatever fields it is restored with
    beside those that are alive.
    """
    context = context_of(x for x in current.layers if x.dot in set(ends.dots))
    if ends.field != DELETED:
        return Plan(context, [[Kind.SET.value, {ends.field: values[ends.field]}]])
    if ends.is_kept:
        return Plan(context, [[Kind.DELETE.value], *plan_emptied(current, author)])
    apart = {*sets, *counters, *(shared or ())}
    registers = {name: value for name, value in values.items() if name not in apart}
    operations: list[Operation] = [[Kind.SET.value, registers]] if registers else []
    operations += [[Kind.ADD.value, name, values[name]] for name in sets if values.get(name)]
    for name in counters:
        if name in values and (delta := wrapped((values[name] or 0) - current.counters.get(name, 0))):
            operations.append([Kind.INCREMENT.value, name, delta])
    operations += plan_shared(current, values, shared, author, known_of)
    return Plan(context, [*operations, [Kind.RESTORE.value]])


def values_before_deletion(document: Document, past: Past) -> dict[str, Any]:
    """What the newest delete took away: fields as its writer had them, but for counters and those that are alive."""
    deletes = [layer for layer in document.layers if layer.is_delete]
    if not deletes:
        return {}
    newest = deletes[-1].dot
    within = {author: min(last, past.reach(newest, author)) for author, last in document.vector.items()}
    bodies: list[Told] = []
    for _, read in past.newest_first({author: reach for author, reach in within.items() if reach > NOTHING}):
        told = read()
        if told is not None:
            bodies.append(told)
    before = Document(document.model, document.id)
    for dot, hlc, body in reversed(bodies):
        before.apply(dot, hlc, body.user, body.seen, body.operations)
    alive = {name for layer in document.layers for name in (*layer.registers, *layer.sets)}
    alive |= {field.name for field in document.shared.values() if field.has_visible}
    taken = before.values() if before.exists else {}
    return {name: v for name, v in taken.items() if name not in alive and name not in before.counters}
