"""From the values that an application wants to the operations that say so.

Room: what a body of this node will hold, given the document that its writer has
seen. How bodies change documents is `document`'s. Nothing here is signed or
stored, and nothing here is part of the agreed format: other nodes judge bodies
by what they say, not by how they came about.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from protocol.body import Dot, Kind, Operation
from protocol.document import Document, Layer, element_key, wrapped
from protocol.errors import BaseMoved, EditFault, TooLarge, UnknownPlace, Unmergeable
from protocol.limits import SEEN_PER_BODY_MAX
from protocol.schema_field import JSON_SIZE_MAX_BYTES, STRING_SIZE_MAX_BYTES
from protocol.shared import SharedField, elements_of, shown_size_bytes
from protocol.text_edit import AnchoredEdit, TextEdit, diff
from protocol.walk import KnownOf, Writer, plan, plan_emptying
from protocol.weave import Anchored, Splice
from protocol.yjs_update import Content, Update, encode_update


class Plan(NamedTuple):
    """Operations of one body, and what they have seen."""

    seen: tuple[Dot, ...]
    operations: list[Operation]


def plan_write(
    current: Document | None,
    values: Mapping[str, Any],
    *,
    sets: Sequence[str] = (),
    counters: Sequence[str] = (),
    shared: Mapping[str, int] | None = None,
    author: bytes = b"",
    known_of: KnownOf | None = None,
) -> Plan:
    """Operations that make `values` the shown ones. `current` is the state that the writer has seen.

    A set is given whole, and becomes the additions and removals that lead there; a counter is given as its
    new total, and becomes a difference. Collaborative fields (`shared`: name to kind of operation) are given
    whole, and become the differences to what is shown, or as an edit; they need a `current`, be it an empty
    one, the `author` who writes, and what that author knows of others (`walk.plan`). Writing to a deleted
    document brings it back with just these values.

    Raises `Unmergeable` for a collaborative field that cannot be edited; of an edit `BaseMoved` if it is a
    `TextEdit` of another state, `UnknownPlace` if it has no place here, `EditFault` if it reaches beyond the
    end; and `TooLarge`.
    """
    apart = {*sets, *counters, *(shared or ())}
    registers = {name: value for name, value in values.items() if name not in apart} if apart else values
    operations: list[Operation] = [[Kind.SET.value, dict(registers)]] if registers else []
    if current is None or not current.vector:
        operations += [[Kind.ADD.value, name, values[name]] for name in sets if values.get(name)]
        operations += [[Kind.INCREMENT.value, name, values[name]] for name in counters if values.get(name)]
        operations += plan_shared(current, values, shared, author, known_of)
        return Plan((), operations or [[Kind.RESTORE.value]])
    if not current.exists:
        operations = [[Kind.DELETE.value], [Kind.RESTORE.value], *operations]
        operations += [[Kind.ADD.value, name, values[name]] for name in sets if values.get(name)]
        for name in counters:
            if delta := wrapped((values.get(name) or 0) - current.counters.get(name, 0)):
                operations.append([Kind.INCREMENT.value, name, delta])
        wanted = {(kind, name): values.get(name) for name, kind in (shared or {}).items()}
        for kind, name in [*wanted, *(key for key in current.shared if key not in wanted)]:
            value = wanted.get((kind, name))
            operations += _one(current, kind, name, value, author, known_of, is_anew=True)
        return Plan(context_of(current.layers), operations)
    touched: set[str] = set(registers)
    for name in sets:
        if name in values:
            wanted_elements, held = values[name] or [], current.elements(name)
            wanted_keys, held_keys = {element_key(e) for e in wanted_elements}, {element_key(e) for e in held}
            added = [e for e in wanted_elements if element_key(e) not in held_keys]
            removed = [e for e in held if element_key(e) not in wanted_keys]
            operations += [[Kind.ADD.value, name, added]] if added else []
            operations += [[Kind.REMOVE.value, name, removed]] if removed else []
            touched |= {name} if removed else set()
    for name in counters:
        if name in values and (delta := wrapped((values[name] or 0) - current.counters.get(name, 0))):
            operations.append([Kind.INCREMENT.value, name, delta])
    operations += plan_shared(current, values, shared, author, known_of)
    touches = [
        x for x in current.layers if not touched.isdisjoint(x.registers) or not touched.isdisjoint(x.sets)
    ]
    return Plan(context_of(touches), operations)


def plan_delete(current: Document, author: bytes = b"") -> Plan:
    """Operations that delete what is there now; what others write meanwhile stays visible as a conflict."""
    return Plan(context_of(current.layers), [[Kind.DELETE.value], *plan_emptied(current, author)])


def context_of(layers: Iterable[Layer]) -> tuple[Dot, ...]:
    """What a body names as seen that shall supersede these layers, which are in ascending order.

    The newest dot of each author is enough: whoever has seen a body has seen all that its author wrote before
    it. Of more authors than a body can name, those of the newest layers are named.
    """
    newest: dict[bytes, Dot] = {}
    for layer in layers:
        newest.pop(layer.dot.author, None)
        newest[layer.dot.author] = layer.dot
    return tuple(sorted(list(newest.values())[-SEEN_PER_BODY_MAX:]))


# -- collaborative fields -----------------------------------------------------------------------------------


def plan_emptied(current: Document, author: bytes) -> list[Operation]:
    """Operations that delete all that collaborative fields show."""
    return [
        op
        for kind, name in sorted(current.shared)
        for op in _one(current, kind, name, None, author, None, is_anew=True)
    ]


def plan_shared(
    current: Document | None,
    values: Mapping[str, Any],
    shared: Mapping[str, int] | None,
    author: bytes,
    known_of: KnownOf | None = None,
) -> list[Operation]:
    """Operations by which collaborative fields show these values."""
    operations: list[Operation] = []
    for name, kind in (shared or {}).items():
        if name in values:
            assert current is not None, "a client id depends on the document's name"
            operations += _one(current, kind, name, values[name], author, known_of, is_anew=False)
    return operations


def plan_changed(
    current: Document, before: Document, after: Document, author: bytes, known_of: KnownOf
) -> list[Operation]:
    """Operations that change collaborative fields as they change from one document to another.

    All that was ever in `before` is in `current` too. A field whose contents are not to be had, or that would become
    too large, is left out.
    """
    operations: list[Operation] = []
    for kind, name in sorted(after.shared):
        old, new, field = (
            each.shared.get((kind, name)) or SharedField(kind, name) for each in (before, after, current)
        )
        if old.is_broken or new.is_broken:
            continue
        shown = [each.shown if each.is_text else elements_of(each.shown) for each in (old, new)]
        edit = AnchoredEdit(tuple(old.weave.anchor(diff(*shown))))
        if edit.splices:
            try:
                operations += plan_edited(current, field, author, edit, known_of)
            except (Unmergeable, TooLarge, UnknownPlace):
                continue
    return operations


def plan_edited(
    current: Document, field: SharedField, author: bytes, edit: AnchoredEdit, known_of: KnownOf
) -> list[Operation]:
    """The operation by which this node makes an edit of a field; none if nothing changes.

    Raises `Unmergeable`, `TooLarge`, or `UnknownPlace` for an edit of another state.
    """
    return _edit(current, field, _free_writer(current, field, author), edit, known_of)


def _one(
    document: Document,
    kind: int,
    name: str,
    value: Any,
    author: bytes,
    known_of: KnownOf | None,
    *,
    is_anew: bool,
) -> list[Operation]:
    """The operation that makes a field show `value`, as a list of one, or none if it does already."""
    field = document.shared.get((kind, name)) or SharedField(kind, name)
    writer = _free_writer(document, field, author)
    if isinstance(value, TextEdit):
        value = _anchored(document, field, value)
    if isinstance(value, AnchoredEdit):
        return _edit(document, field, writer, value, known_of)
    if not value:
        return _operation(field, writer, plan_emptying(field.weave, writer))
    if field.is_broken or document.is_quarantined:
        raise Unmergeable(f"the contents of {name} are not to be had")
    wanted: Content = value if field.is_text else elements_of(value)
    held: Any = field.shown if field.is_text else elements_of(field.shown)
    splices = [Splice(0, len(held), wanted)] if is_anew else diff(held, wanted)
    return _operation(field, writer, plan(field.weave, field.weave.anchor(splices), writer, known_of))


def _anchored(document: Document, field: SharedField, edit: TextEdit) -> AnchoredEdit:
    """An edit of just the state that it was made on."""
    if edit.base_version != document.version:
        raise BaseMoved(f"{field.name} was edited on another version of {document.model}/{document.id}")
    return anchored(field, edit)


def anchored(field: SharedField, edit: TextEdit) -> AnchoredEdit:
    """An edit of a field as it was at the edit's base. Raises `EditFault` for one that reaches beyond the end."""
    length = field.weave.visible_points()
    if edit.reach > length:
        what = "characters" if field.is_text else "elements"
        raise EditFault({f"{field.name}.ops": f"Reaches beyond the end: {length} {what} at that version"})
    return AnchoredEdit(tuple(field.weave.anchor(edit.splices)))


def _edit(
    document: Document, field: SharedField, writer: Writer, edit: AnchoredEdit, known_of: KnownOf | None
) -> list[Operation]:
    if field.is_broken or document.is_quarantined:
        raise Unmergeable(f"the contents of {field.name} are not to be had")
    size_max = STRING_SIZE_MAX_BYTES if field.is_text else JSON_SIZE_MAX_BYTES
    size = shown_size_bytes(field.shown) + sum(map(_size_bytes, edit.splices))
    if size > size_max and any(splice.insert for splice in edit.splices):
        raise TooLarge(f"{field.name} in bytes", size=size, size_max=size_max)
    return _operation(field, writer, plan(field.weave, edit.splices, writer, known_of))


def _operation(field: SharedField, writer: Writer, update: Update | None) -> list[Operation]:
    if update is None:
        return []
    return [[field.kind, field.name, writer.n, encode_update(update, field.name)]]


def _free_writer(document: Document, field: SharedField, author: bytes) -> Writer:
    """This node's client in a field: the first of its own whose id no other has."""
    n = 0
    while True:
        writer = document.writer(author, field.name, n)
        if all((client.author, client.n) == (author, n) for client in field.weave.by_id.get(writer.id, ())):
            return writer
        n += 1


def _size_bytes(splice: Anchored) -> int:
    if splice.insert is None:
        return 0
    return len(splice.insert.encode()) if isinstance(splice.insert, str) else sum(map(len, splice.insert))
