"""What has to be said again of a document, when a branch of one's own chain does not count any more.

Room: from a document without the lost bodies and the same with them, to operations that make of it, as it stands
now, what was lost. Whoever goes back to an older record, and does not notice, signs one seq twice; the chain is frozen
below that. The owner goes on as a new author and says the rest again, so that nothing acknowledged is lost. So do
others with what they had written into it. Which bodies are lost is `storage.reissue`'s, and `storage.voided`'s.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from protocol.body import ERASURE, SHARED_KINDS, Body, Dot, Kind, Operation
from protocol.document import Document, Layer, element_key, wrapped
from protocol.errors import TooLarge, Unmergeable
from protocol.planning import context_of, plan_changed, plan_delete, plan_edited
from protocol.shared import SharedField
from protocol.text_edit import AnchoredEdit
from protocol.walk import KnownOf
from protocol.weave import Anchored, Weave
from protocol.yjs_update import Content, Range, Struct, decode_update


class Again(NamedTuple):
    """One body to be said: who acted, what it has seen, and what it says."""

    user: str
    seen: tuple[Dot, ...]
    operations: list[Operation]


class Lost(NamedTuple):
    """A document without the bodies that were lost and with them, and which of these are still to be said again.

    `said` is what was added to counters if some of them were; None if none was.
    """

    without: Document
    wanted: Document
    is_unsaid: Callable[[Dot], bool]
    said: Mapping[str, int] | None


def plan_again(now: Document | None, lost: Lost, author: bytes, known_of: KnownOf) -> list[Again]:
    """Bodies that bring back what is alive of lost ones; of values in conflict the shown one comes last.

    `now` is the document as it stands. What others have made of it since stays as it is: what the lost bodies
    had not seen stands beside what they say. Applied one after the other, each by `author`, of whom `known_of`
    tells how much it has seen of others.
    """
    without, wanted = lost.without, lost.wanted
    now = now or Document(wanted.model, wanted.id)
    if wanted.is_erased:
        return [] if now.is_erased else [Again(wanted.updated_user, (), ERASURE)]
    if not wanted.exists:
        if not (without.exists and now.exists):
            return []
        alive = {layer.dot for layer in wanted.layers}
        gone = context_of([layer for layer in now.layers if layer.dot not in alive])
        return [Again(wanted.updated_user, gone, plan_delete(now, author).operations)]
    operations: list[Operation] = []
    seen: dict[Dot, Layer] = {}
    is_brought_back = bool(now.vector) and not now.exists and not without.exists
    if is_brought_back:
        operations += [[Kind.DELETE.value], [Kind.RESTORE.value]]
        seen = {layer.dot: layer for layer in now.layers}
    layers = [] if is_brought_back else now.layers
    wiped = _wiped(layers, lost)
    layers = [layer for layer in layers if layer not in wiped]
    said, shown, user = _registers_again(layers, lost, seen)
    if wiped:
        said.insert(0, Again(user, context_of(wiped), [[Kind.DELETE.value], [Kind.RESTORE.value]]))
    if shown:
        operations.append([Kind.SET.value, shown])
    operations += _sets_again(layers, now.layers if is_brought_back else wiped, lost, seen)
    for name in sorted(wanted.counters):
        before = now if is_brought_back else without
        said_already = 0 if is_brought_back else (lost.said or {}).get(name, 0)
        if delta := wrapped(wanted.counters[name] - before.counters.get(name, 0) - said_already):
            operations.append([Kind.INCREMENT.value, name, delta])
    if lost.said is None:
        operations += plan_changed(now, without, wanted, author, known_of)
    if operations or not now.vector:
        ordered = sorted(seen.values(), key=lambda layer: layer.order)
        said.append(Again(user, context_of(ordered), operations or [[Kind.RESTORE.value]]))
    return said


def _wiped(layers: list[Layer], lost: Lost) -> list[Layer]:
    """Those of `layers` that lost bodies deleted with the whole document, if a value went that nothing replaced."""
    gone = {layer.dot for layer in lost.without.layers} - {layer.dot for layer in lost.wanted.layers}
    left = {name for layer in lost.wanted.layers for name in layer.registers}
    found = [layer for layer in layers if layer.dot in gone]
    return found if any(not left.issuperset(layer.registers) for layer in found) else []


def _registers_again(
    layers: list[Layer], lost: Lost, seen: dict[Dot, Layer]
) -> tuple[list[Again], dict[str, Any], str]:
    """Bodies for values that stand beside the shown ones, the shown ones, and who said the last of these.

    `layers` are alive now. Into `seen` goes what the shown ones supersede.
    """
    without, wanted = lost.without, lost.wanted
    beside: list[Again] = []
    shown: dict[str, Any] = {}
    user = wanted.updated_user
    names = {name for document in (without, wanted) for layer in document.layers for name in layer.registers}
    for name in sorted(names):
        values = wanted.live_values(name)
        alive = {layer.dot for layer, _ in values}
        gone = {layer.dot for layer, _ in without.live_values(name)} - alive
        superseded = [layer for layer in layers if name in layer.registers and layer.dot in gone]
        unsaid = [(layer, value) for layer, value in values if lost.is_unsaid(layer.dot)]
        if not values or not (unsaid or superseded):
            continue
        last, value = values[-1]
        beside += [
            Again(layer.user, context_of(superseded), [[Kind.SET.value, {name: other}]])
            for layer, other in unsaid
            if layer is not last
        ]
        shown[name] = value
        seen.update({layer.dot: layer for layer in superseded})
        if not lost.is_unsaid(last.dot):  # said again by us, so that it is shown still
            seen.update({layer.dot: layer for layer in layers if layer.dot == last.dot})
        else:
            user = last.user
    return beside, shown, user


def _sets_again(
    layers: list[Layer], wiped: list[Layer], lost: Lost, seen: dict[Dot, Layer]
) -> list[Operation]:
    """What lost bodies added to sets and took from them, without what was in layers that are wiped anyway.

    Into `seen` goes where it is taken from.
    """
    without, wanted = lost.without, lost.wanted
    operations: list[Operation] = []
    for name in sorted(
        {n for document in (without, wanted) for layer in document.layers for n in layer.sets}
    ):
        before, after = (
            {element_key(element): element for element in document.elements(name)}
            for document in (without, wanted)
        )
        held = {element_key(element) for layer in layers for element in layer.sets.get(name, ())}
        lacking = {element_key(element) for layer in wiped for element in layer.sets.get(name, ())}
        lacking |= after.keys() - before.keys()
        added = [element for key, element in after.items() if key in lacking - held]
        taken = [element for key, element in before.items() if key not in after and key in held]
        operations += [[Kind.ADD.value, name, added]] if added else []
        if taken:
            known = {layer.dot for layer in without.layers}
            operations.append([Kind.REMOVE.value, name, taken])
            seen.update({x.dot: x for x in layers if name in x.sets and x.dot in known})
    return operations


# -- what is void because of another's fork ---------------------------------------------------------------------


class Carried(NamedTuple):
    """What lost operations did to a collaborative field, told by units that are there without them."""

    kind: int
    name: str
    splices: tuple[Anchored, ...]


def plain_again(before: Document, bodies: Sequence[tuple[Dot, Body]]) -> list[Again]:
    """What is to be said again of bodies that count no more, but for collaborative fields.

    `before` is the document as it was while they counted: what had been superseded there is not said again.
    """
    layers = {layer.dot: layer for layer in before.layers}
    said: list[Again] = []
    for dot, body in bodies:
        layer = layers.get(dot)
        registers, sets = (layer.registers, layer.sets) if layer is not None else ({}, {})
        operations: list[Operation] = []
        for operation in body.operations:
            match operation:
                case [Kind.SET, values]:
                    alive = {name: value for name, value in values.items() if name in registers}
                    operations += [[Kind.SET.value, alive]] if alive else []
                case [Kind.ADD, name, elements]:
                    held = {element_key(element) for element in sets.get(name, ())}
                    added = [element for element in elements if element_key(element) in held]
                    operations += [[Kind.ADD.value, name, added]] if added else []
                case [Kind.TEXT | Kind.ARRAY, *_]:
                    pass
                case _:
                    operations.append(operation)
        if operations:
            said.append(Again(body.user, body.seen, operations))
    return said


def carried(
    before: Document, now: Document, author: bytes, bodies: Sequence[tuple[Dot, Body]]
) -> list[Carried]:
    """What bodies of one author that count no more did to collaborative fields, as far as it is alive.

    What they inserted goes right after the last unit left of it that `now` still has.
    """
    contents: dict[tuple[int, str], dict[tuple[int, int], str | bytes]] = {}  # of each unit, by n and clock
    deletes: dict[tuple[int, str], list[tuple[int, Range]]] = {}
    for _, body in bodies:
        for operation in body.operations:
            if operation[0] in SHARED_KINDS:
                kind, name, n, data = operation
                update = decode_update(data, name, is_text=kind == Kind.TEXT)
                held = contents.setdefault((kind, name), {})
                for struct in update.structs:
                    held.update({(n, struct.clock + at): unit for at, unit in enumerate(_units_of(struct))})
                some = deletes.setdefault((kind, name), [])
                some += [(client, each) for client, ranges in update.deletes for each in ranges]
    found: list[Carried] = []
    for key in sorted(contents):
        empty = SharedField(*key)
        old, new = (document.shared.get(key, empty).weave for document in (before, now))
        splices = [*_inserted(old, new, author, contents[key], is_text=key[0] == Kind.TEXT)]
        splices += _deleted(old, new, deletes[key])
        if splices:
            found.append(Carried(*key, tuple(splices)))
    return found


def plan_carried(now: Document, again: Carried, author: bytes, known_of: KnownOf) -> list[Operation]:
    """The operation that does again to a field what was lost; none if its contents are not to be had."""
    field = now.shared.get((again.kind, again.name)) or SharedField(again.kind, again.name)
    splices = [
        Anchored(
            splice.after if _has(field.weave, splice.after) else None,
            splice.insert,
            tuple(gone for gone in splice.deletes if _has(field.weave, (*gone[:2], sum(gone[2]) - 1))),
        )
        for splice in again.splices
    ]
    try:
        return plan_edited(now, field, author, AnchoredEdit(tuple(splices)), known_of)
    except (Unmergeable, TooLarge):
        return []


def _units_of(struct: Struct) -> Sequence[str | bytes]:
    """What each unit of a struct holds; nothing if it was deleted before it was sent."""
    if not isinstance(struct.content, str):
        return struct.content or ()
    data = struct.content.encode("utf-16-le")
    return [data[at : at + 2].decode("utf-16-le", "surrogatepass") for at in range(0, len(data), 2)]


def _inserted(
    old: Weave,
    new: Weave,
    author: bytes,
    contents: Mapping[tuple[int, int], str | bytes],
    *,
    is_text: bool,
) -> Iterator[Anchored]:
    """Insertions of lost units that are visible: those at one place together, in the order in which they stood."""
    after: tuple[bytes, int, int] | None = None
    together: list[str | bytes] = []
    for run in old:
        client = run.client
        kept = new.clients.get((client.author, client.n))
        end = min(run.clock + run.length, kept.clock if kept is not None else 0)
        if end > run.clock:
            if together:
                yield Anchored(after, _content(together, is_text=is_text), ())
            after, together = (client.author, client.n, end - 1), []
        if client.author == author and not run.is_deleted:
            lost = range(max(run.clock, end), run.clock + run.length)
            together += [contents[client.n, clock] for clock in lost if (client.n, clock) in contents]
    if together:
        yield Anchored(after, _content(together, is_text=is_text), ())


def _content(parts: Sequence[str | bytes], *, is_text: bool) -> Content:
    if not is_text:
        return [part for part in parts if isinstance(part, bytes)]
    text = "".join([part for part in parts if isinstance(part, str)])
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _deleted(old: Weave, new: Weave, deletes: Sequence[tuple[int, Range]]) -> Iterator[Anchored]:
    """Deletions of units that are still there."""
    for id, (clock, length) in deletes:
        for client in old.by_id.get(id, ())[:1]:
            kept = new.clients.get((client.author, client.n))
            end = min(clock + length, kept.clock if kept is not None else 0)
            if end > clock:
                yield Anchored(None, None, ((client.author, client.n, (clock, end - clock)),))


def _has(weave: Weave, unit: tuple[bytes, int, int] | None) -> bool:
    client = weave.clients.get(unit[:2]) if unit is not None else None
    return client is not None and unit is not None and unit[2] < client.clock
