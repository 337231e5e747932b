"""Values that did not see each other: which one is shown, and what is told about the rest.

Room: the strategies, as functions of a document's live values and of where they
came from, so that every node shows the same. How values become one is `folding`'s,
the search for a common ancestor `ancestor`'s, ending a conflict `resolution`'s.

    crdt            shows the largest by (hlc, author), and lists the conflict
    lww             shows the same, and lists nothing
    merge           folds fields that have a `merge`; the others are as under crdt
    version_vector  drops values whose version another value's dominates; then as merge
    three_way       drops values that are the common ancestor's: if one is left, it is shown;
                    else as merge, among those that were changed
    manual          as crdt; only a resolution ends the conflict
    name@hash       a plugin's, asked for the records that the live values make. Without it, the same is shown as
                    under lww, and marked
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Any, NamedTuple

from protocol.ancestor import Origin, Past, PastOf, is_past
from protocol.body import Dot
from protocol.clock import Hlc
from protocol.document import Document, Layer
from protocol.errors import LocalMisuse
from protocol.folding import CannotFold, Fold, value_key
from protocol.limits import ANCESTOR_DEPTH_MAX, LIVE_JUDGED_MAX
from protocol.schema_strategy import CRDT, LWW, MANUAL, MERGE, THREE_WAY, VERSION_VECTOR, is_plugin

# Takes records that did not see each other, in ascending order of (hlc, author), and returns what they become; None
# where the plugin cannot be asked, or fails. Must be a pure function of them. See `civicnode.Hooks.sync_strategies`.
Resolver = Callable[[Sequence[Mapping[str, Any]]], Mapping[str, Any] | None]

DELETED = "$deleted"  # the field under which a delete that met an update is listed


@dataclass(frozen=True)
class Rules:
    """How the fields of a kind of document come together."""

    strategy: str = CRDT
    folds: Mapping[str, Fold] = field(default_factory=dict)  # by field, those that the strategy heeds
    resolver: "Resolver | None" = field(default=None, compare=False)  # a plugin's, where this node has it

    @cached_property
    def is_plain(self) -> bool:
        """Whether the largest value is shown and nothing is listed, so that nobody need look."""
        return self.strategy == LWW

    @cached_property
    def is_manual(self) -> bool:
        """Whether nothing but a resolution ends a conflict."""
        return self.strategy == MANUAL

    @cached_property
    def is_plugins(self) -> bool:
        """Whether a plugin's function chooses; conflicts stay open only where this node cannot ask it."""
        return is_plugin(self.strategy)


@dataclass(frozen=True, slots=True)
class LiveValue:
    """One of the values that stand side by side, with where it came from."""

    value: Any
    dot: Dot
    user: str
    hlc: Hlc

    @property
    def node(self) -> bytes:
        return self.dot.author[:32]


@dataclass(frozen=True, slots=True)
class Conflict:
    """A field with several live values, the shown one last.

    `dots` are those of all live values in ascending order: with the field they say which conflict this is.
    Those that the strategy has dropped are not among `values`. `ancestor` is what they came from, where the
    strategy asks for it (`has_ancestor`).
    """

    model: str
    id: str
    field: str
    values: tuple[LiveValue, ...]
    dots: tuple[Dot, ...]
    ancestor: Any = None
    has_ancestor: bool = False

    def id_in(self, space: bytes) -> str:
        """The name of this conflict: the same on every node, another as soon as a value joins or goes."""
        parts = [space, *map(_sized, (self.model, self.id, self.field))]
        parts += [dot.author + dot.seq.to_bytes(8, "big") + dot.index.to_bytes(4, "big") for dot in self.dots]
        return sha256(b"civicnode conflict 1\0" + b"".join(parts)).hexdigest()[:32]


def _sized(text: str) -> bytes:
    data = text.encode()
    return len(data).to_bytes(4, "big") + data


class Judged(NamedTuple):
    """What the strategy makes of a document: the shown values, and the conflicts that it leaves open."""

    values: dict[str, Any]
    conflicts: tuple[Conflict, ...]


def no_past(document: Document) -> Past:
    """For documents that are shown under strategies which do not ask where values came from."""
    raise LocalMisuse(f"{document.model}/{document.id} is shown by its history, which is not at hand")


def judge(document: Document, rules: Rules, past_of: PastOf) -> Judged:
    """Show a document that exists. `past_of` is asked only where values stand side by side, as they seldom do."""
    values, is_contested = document.shown()
    if not is_contested or rules.is_plain:
        return Judged(values, ())
    return judge_contested(document, values, rules, past_of)


def judge_contested(document: Document, values: dict[str, Any], rules: Rules, past_of: PastOf) -> Judged:
    """The same for a document of which a register has several values; `values` become the shown ones."""
    layers = document.layers
    judging = _Judging(document, rules, past_of)
    open_conflicts: list[Conflict] = []
    contested = _contested(document)
    if rules.resolver is not None and contested:
        resolved = rules.resolver(_versions(values, contested))
        if resolved is not None:
            return Judged({**values, **{name: resolved[name] for name in contested if name in resolved}}, ())
    for name, live in sorted(contested.items()):
        verdict = judging.verdict(name, [Origin(x.dot, x.hlc, x.registers[name]) for x in live])
        if verdict.is_open:
            open_conflicts.append(_conflict(document, name, live, verdict))
        is_hidden = any(name in layer.sets for layer in layers) or name in document.counters
        if not is_hidden and not any(name == other for _, other in document.shared):
            values[name] = verdict.value
    return Judged(values, tuple(open_conflicts))


def conflicts(document: Document, rules: Rules = Rules(), past_of: PastOf = no_past) -> list[Conflict]:
    """The open conflicts of one document, in the order of the fields' names.

    Of a deleted one only that it is deleted can be in conflict: with what others wrote meanwhile.
    """
    if rules.is_plain or (len(document.layers) < 2 and not document.shared):
        return []
    if document.exists:
        return list(judge(document, rules, past_of).conflicts)
    updates = [x for x in document.layers if (x.registers or x.sets) and not x.is_delete]
    texts = [held for _, held in sorted(document.shared.items()) if held.has_visible]
    if not updates and not texts:
        return []
    values = [_live(x, {**x.registers, **x.sets}) for x in updates]
    for text in texts:
        hlc, author, seq, index, user = text.edited
        values.append(LiveValue({text.name: text.shown}, Dot(author, seq, index), user, hlc))
    values += [_live(x, None) for x in document.layers if x.is_delete]
    dots = tuple(sorted({value.dot for value in values}))
    return [Conflict(document.model, document.id, DELETED, tuple(values), dots)]


def _contested(document: Document) -> dict[str, list[Layer]]:
    """Registers with several live values, each with its layers in ascending order."""
    held: dict[str, list[Layer]] = {}
    for layer in document.layers:
        for name in layer.registers:
            held.setdefault(name, []).append(layer)
    return {name: layers for name, layers in held.items() if len(layers) > 1}


def _versions(values: Mapping[str, Any], contested: Mapping[str, Sequence[Layer]]) -> list[dict[str, Any]]:
    """A record for each writer of contested values: theirs where they wrote one, what is shown elsewhere."""
    writers = {layer.dot: layer for live in contested.values() for layer in live}
    return [
        {**values, **{name: layer.registers[name] for name in contested if name in layer.registers}}
        for layer in sorted(writers.values(), key=lambda layer: (layer.hlc, layer.dot))[-LIVE_JUDGED_MAX:]
    ]


def _conflict(document: Document, name: str, live: Sequence[Layer], verdict: "_Verdict") -> Conflict:
    left = {origin.dot for origin in verdict.left}
    values = tuple(_live(x, x.registers[name]) for x in live if x.dot in left)
    dots = tuple(sorted(x.dot for x in live))
    return Conflict(document.model, document.id, name, values, dots, verdict.ancestor, verdict.has_ancestor)


def _live(layer: Layer, value: Any) -> LiveValue:
    return LiveValue(value, layer.dot, layer.user, layer.hlc)


class _Verdict(NamedTuple):
    """On one field: the shown value, whether a person should look, between which values, and where from."""

    value: Any
    is_open: bool
    left: Sequence[Origin]
    ancestor: Any = None
    has_ancestor: bool = False


class _Judging:
    """The judging of one document."""

    def __init__(self, document: Document, rules: Rules, past_of: PastOf) -> None:
        self._document = document
        self._rules = rules
        self._past_of = past_of

    @cached_property
    def _past(self) -> Past:
        return self._past_of(self._document)

    def verdict(self, name: str, live: Sequence[Origin], depth: int = 0) -> _Verdict:
        """What is shown of values in ascending order, of which there is at least one."""
        rules, fold = self._rules, self._rules.folds.get(name)
        live = live[-LIVE_JUDGED_MAX:]
        match rules.strategy:
            case _ if len(live) == 1 or depth > ANCESTOR_DEPTH_MAX:
                return _Verdict(live[-1].value, False, live)
            case strategy if strategy == MERGE:
                return self._folded(name, live, fold, depth)
            case strategy if strategy == VERSION_VECTOR:
                return self._folded(name, self._undominated(live), fold, depth)
            case strategy if strategy == THREE_WAY:
                return self._three_way(name, live, fold, depth)
            case strategy:
                assert strategy in (CRDT, LWW, MANUAL) or rules.is_plugins
                return _Verdict(live[-1].value, not _are_same(live), live)

    def _folded(self, name: str, live: Sequence[Origin], fold: Fold | None, depth: int) -> _Verdict:
        if len(live) == 1 or (_are_same(live) and not (fold is not None and fold.needs_base)):
            return _Verdict(live[-1].value, False, live)
        if fold is not None:
            base = self._ancestor(name, live, depth) if fold.needs_base else None
            try:
                return _Verdict(fold([origin.value for origin in live], base), False, live)
            except CannotFold:
                pass
        return _Verdict(live[-1].value, not _are_same(live), live)

    def _three_way(self, name: str, live: Sequence[Origin], fold: Fold | None, depth: int) -> _Verdict:
        if _are_same(live):
            return _Verdict(live[-1].value, False, live)
        base = self._ancestor(name, live, depth)
        unchanged = value_key(base)
        changed = [origin for origin in live if value_key(origin.value) != unchanged]
        if _are_same(changed):
            return _Verdict(changed[-1].value, False, changed)
        if fold is not None:
            try:
                return _Verdict(fold([origin.value for origin in changed], base), False, changed)
            except CannotFold:
                pass
        return _Verdict(changed[-1].value, True, changed, base, True)

    def _undominated(self, live: Sequence[Origin]) -> Sequence[Origin]:
        """Values whose writers had none of the others: a writer may have had one and not said so."""
        past = self._past
        return [
            one for one in live if not any(is_past(past, other.dot, one.dot) for other in live if other is not one)
        ]  # fmt: skip

    def _ancestor(self, name: str, live: Sequence[Origin], depth: int) -> Any:
        """What the values came from; None if that was no value."""
        found = self._past.origins_of(name, [origin.dot for origin in live])
        return self.verdict(name, found, depth + 1).value if found else None


def _are_same(live: Sequence[Origin]) -> bool:
    first = value_key(live[0].value)
    return all(value_key(origin.value) == first for origin in live[1:])
