"""One collaborative field of a document: a text, or a list that several may edit at once.

Room: joins the order of units (`weave`), the verdict on updates (`walk`) and
their contents (`merging`) into a value that documents hold. What operations of
an application become updates is `text_edit`'s.

A field is a value: applying an update gives another one, and the old one stays
what it was, though both share the structures that the newest has grown. The old
one builds its own again in the rare case that someone goes back to it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from protocol.encoding import decode, encode
from protocol.errors import Malformed, Unmergeable
from protocol.merging import YjsContents
from protocol.walk import KnownOf, RuleBroken, Writer, fault_of, write
from protocol.weave import Weave
from protocol.yjs_update import Update, decode_update, encode_update, units

TEXT, ARRAY = 8, 9  # the kinds of operation, `body.Kind`
STEPS_STORED_MAX = 64  # each is applied again when a field is read from the disk to be edited, 0.1 ms
STEPS_STORED_MAX_BYTES = 64 << 10


class Edited(NamedTuple):
    """The newest update of a field: they are compared in this order."""

    hlc: int
    author: bytes
    seq: int
    index: int  # type: ignore[assignment]  # in place of tuple's search
    user: str


class _Step(NamedTuple):
    """An update as it was applied."""

    update: Update
    data: bytes  # for the contents
    writer: Writer
    seq: int
    known: dict[bytes, int] | None  # how much its author knew of others, where that is asked
    is_ballast: bool


class _Base(NamedTuple):
    """A stored state, taken apart when it is needed."""

    weave: bytes
    contents: bytes
    authors: tuple[bytes, ...]  # whom the order names, by their place


class _Live:
    """Structures that have been built and have grown with the steps of one line of fields."""

    __slots__ = ("contents", "contents_steps", "weave", "weave_steps")

    def __init__(self) -> None:
        self.weave: Weave | None = None
        self.weave_steps = 0
        self.contents: YjsContents | None = None
        self.contents_steps = 0


class SharedField:
    """A collaborative field as some updates have made it. Not for several threads at once."""

    __slots__ = ("_base", "_broken", "_count", "_live", "_shown", "_steps", "edited", "kind", "name")

    def __init__(self, kind: int, name: str, *, is_broken: bool = False) -> None:
        """An empty field. A broken one keeps order alone: its contents cannot be, or must not be, merged."""
        self.kind = kind
        self.name = name
        self.edited = Edited(0, b"", 0, 0, "")
        self._broken = is_broken
        self._base = _Base(b"", b"", ())
        self._steps: list[_Step] = []
        self._count = 0  # of the steps, how many are this field's
        self._live = _Live()
        self._shown: Any = "" if kind == TEXT else []

    def __eq__(self, other: object) -> bool:
        """Whether both hold the same units in the same order, and show the same where both can."""
        if not isinstance(other, SharedField):
            return False
        if (self.kind, self.name, self.edited) != (other.kind, other.name, other.edited):
            return False
        if self.weave.normal() != other.weave.normal():
            return False
        return self.is_broken or other.is_broken or encode(self.shown) == encode(other.shown)

    __hash__ = None  # type: ignore[assignment]  # compared by what may yet be built

    def __repr__(self) -> str:
        return f"SharedField({self.name}: {self._shown!r})"

    @property
    def is_text(self) -> bool:
        return self.kind == TEXT

    @property
    def weave(self) -> Weave:
        """The order of its units, not to be changed."""
        live = self._live
        if live.weave is None or live.weave_steps > self._count:
            if live.weave is not None:
                live = self._live = _Live()
            live.weave = (
                Weave.from_state(self._base.weave, self._base.authors.__getitem__)
                if self._base.weave
                else Weave()
            )
            live.weave_steps = 0
        for step in self._steps[live.weave_steps : self._count]:
            known_of = None if step.known is None else _known_of(step.known)
            try:
                write(
                    live.weave,
                    step.update,
                    step.writer,
                    step.seq,
                    known_of=known_of,
                    is_ballast=step.is_ballast,
                )
            except RuleBroken:  # applied without what it builds on: some of the history only
                self._broken, self._shown = True, None
        live.weave_steps = self._count
        return live.weave

    def _contents(self) -> YjsContents:
        live = self._live
        if live.contents is None or live.contents_steps > self._count:
            if live.contents is not None:
                live = self._live = _Live()
            live.contents = YjsContents(self.name, self._base.contents, is_text=self.is_text)
            live.contents_steps = 0
        for step in self._steps[live.contents_steps : self._count]:
            live.contents.merge(step.data)
        live.contents_steps = self._count
        return live.contents

    @property
    def shown(self) -> Any:
        """The text, or the list of values; None if the field is broken. Found out when it is asked for."""
        if self._shown is None and not self._broken:
            expected = self.weave.visible_units()
            try:
                shown = self._contents().shown() if not self._broken else None
                if shown is not None and (units(shown) if self.is_text else len(shown)) != expected:
                    raise Unmergeable("the contents of a field are not those of its updates")
                self._shown = shown
            except Unmergeable:
                self._broken = True
        return self._shown

    @property
    def is_broken(self) -> bool:
        """Whether its contents are not to be had, as far as this node can tell."""
        return self.shown is None

    @property
    def unmerged(self) -> tuple[bytes, list[bytes]]:
        """Contents as they were some updates ago, and those updates; nothing is merged to find that out."""
        return self._base.contents, [step.data for step in self._steps[: self._count]]

    @property
    def memory_bytes(self) -> int:
        """About how much it takes in memory once its structures are built."""
        written = sum([len(step.data) + 1_000 for step in self._steps[: self._count]])
        return 64 * len(self._base.weave) + 3 * len(self._base.contents) + 3 * written

    @property
    def has_visible(self) -> bool:
        """Whether anything in it is not deleted."""
        return bool(self.shown) if not self.is_broken else self.weave.visible_units() > 0

    def fault_of(self, update: Update, writer: Writer, known_of: KnownOf) -> str | None:
        """The rule that an update breaks, or None."""
        return fault_of(self.weave, update, writer, known_of)

    def applied(
        self,
        update: Update,
        data: bytes,
        writer: Writer,
        seq: int,
        edited: Edited,
        *,
        known_of: KnownOf | None = None,
        is_ballast: bool = False,
    ) -> "SharedField":
        """The field with one more update, which has no fault and is encoded in `data`.

        As ballast, its units take their places and are deleted at once; nothing else of it counts.
        """
        weave, known = self.weave, None
        is_clash = any((c.author, c.n) != writer[:2] for c in weave.by_id.get(writer.id, ()))
        if (is_clash or weave.has_clash) and known_of is not None:
            known = {client.author: known_of(client.author) for client in weave.clients.values()}
        if is_ballast:
            data = encode_update(_covered(update), self.name)
        step = _Step(update, data, writer, seq, known, is_ballast)
        other = SharedField(self.kind, self.name, is_broken=self._broken or is_clash)
        other._base, other._count = self._base, self._count + 1
        if len(self._steps) == self._count:
            other._steps, other._live = self._steps, self._live
        else:  # another way on than that which was taken before
            other._steps = self._steps[: self._count]
        other._steps.append(step)
        other.edited = self.edited if is_ballast else max(self.edited, edited)
        other._shown = self._shown if is_ballast else None
        return other

    def broken(self) -> "SharedField":
        """The same without contents."""
        other = SharedField(self.kind, self.name, is_broken=True)
        other._base, other._steps, other._count = self._base, self._steps[: self._count], self._count
        other.edited, other._shown = self.edited, None
        return other

    # -- stored form -----------------------------------------------------------------------------------------

    def to_state(self, number_of: Callable[[bytes], int]) -> list[Any]:
        """[kind, name, edited hlc, author, seq, index, user, shown or null, contents, order, authors, step …].

        `authors` are the store's numbers of those that order and steps name by their place in it. Contents and
        order are as they were some steps ago, so that a small edit of a large text costs little. A step is
        [update, author, n, seq, 1 if ballast, [author, seq, …] as far as that was asked].
        """
        shown = self.shown
        steps = self._steps[: self._count]
        if len(steps) > STEPS_STORED_MAX or sum([len(s.data) for s in steps]) > STEPS_STORED_MAX_BYTES:
            self._rebase()
            shown, steps = self.shown, []
        base = self._base
        numbers = {author: number for number, author in enumerate(base.authors)}

        def number(author: bytes) -> int:
            return numbers.setdefault(author, len(numbers))

        told = [_step_to_state(step, number) for step in steps]
        hlc, author, *rest = self.edited
        edited = [hlc, number_of(author) if author else 0, *rest]
        authors = list(map(number_of, numbers))
        return [
            self.kind,
            self.name,
            *edited,
            None if self.is_broken else shown,
            base.contents,
            base.weave,
            authors,
            *told,
        ]

    def _rebase(self) -> None:
        """Begin anew with what has come of the steps so far."""
        weave, contents = self.weave, b""
        if not self.is_broken:
            try:
                contents = self._contents().encode()
            except Unmergeable:
                self._broken, self._shown = True, None
        numbers: dict[bytes, int] = {}
        order = weave.to_state(lambda author: numbers.setdefault(author, len(numbers)))
        old, self._live = self._live, _Live()
        self._base, self._steps, self._count = _Base(order, contents, tuple(numbers)), [], 0
        self._live.weave, self._live.contents = old.weave, old.contents
        old.weave = old.contents = None  # they are as far as this field is: others make their own

    @classmethod
    def from_state(cls, state: list[Any], author_of: Callable[[int], bytes]) -> "SharedField":
        """The field of a stored state. Raises `Malformed`; the order is looked at when it is needed."""
        try:
            kind, name, hlc, author, seq, index, user, shown, contents, weave, authors, *steps = state
            field = cls(kind, name, is_broken=shown is None)
            field.edited = Edited(hlc, author_of(author) if hlc else b"", seq, index, user)
            field._base = _Base(weave, contents, tuple(map(author_of, authors)))
            field._steps = [_step_of_state(step, field) for step in steps]
            field._count, field._shown = len(steps), shown
        except (TypeError, ValueError, LookupError) as error:
            raise Malformed("a stored field that is not of its form") from error
        return field


def _step_to_state(step: _Step, number: Callable[[bytes], int]) -> list[Any]:
    known = [part for author, seq in (step.known or {}).items() for part in (number(author), seq)]
    return [step.data, number(step.writer.author), step.writer.n, step.seq, int(step.is_ballast), known]


def _step_of_state(state: list[Any], field: SharedField) -> _Step:
    data, place, n, seq, is_ballast, told = state
    authors = field._base.authors
    update = decode_update(data, field.name, is_text=field.is_text)
    known = {authors[other]: told[at + 1] for at, other in enumerate(told) if not at % 2}
    return _Step(update, data, Writer(authors[place], n, update.client), seq, known or None, bool(is_ballast))


def _known_of(known: dict[bytes, int]) -> KnownOf:
    return lambda author: known.get(author, 0)


def _covered(update: Update) -> Update:
    """What is left of an update as ballast: its units, all of them deleted."""
    clock = update.structs[0].clock if update.structs else 0
    length = sum(struct.length for struct in update.structs)
    return update._replace(deletes=((update.client, ((clock, length),)),) if length else ())


def shown_size_bytes(shown: Any) -> int:
    """About how much a field shows."""
    return len(shown.encode()) if isinstance(shown, str) else len(encode(shown))


def elements_of(values: list[Any]) -> list[bytes]:
    """Values as the elements of a list's updates."""
    return [encode(value) for value in values]


def values_of(elements: list[bytes]) -> list[Any]:
    return [decode(element) for element in elements]
