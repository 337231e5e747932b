"""Edits of a text or a list as applications give them: operations of one form, or a whole new value.

Room: reading `[{"retain": n}, {"insert": …}, {"delete": n}]`, and the difference
between an old and a new value. Positions count code points of a text and elements
of a list. Where an edit lands after others have edited too is decided by `weave`:
its places are units, so nothing needs to be transformed.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from protocol.encoding import encode
from protocol.errors import EditFault
from protocol.limits import STRUCTS_PER_UPDATE_MAX
from protocol.schema_check import Fault, check_json, check_string
from protocol.weave import Anchored, Splice
from protocol.yjs_update import Content

OPS_MAX = 10_000  # of one edit, before neighbours are joined
_DIFFERENCES_MAX = 256  # inserted and deleted characters that are looked for one by one
_TOKENS_DIFFERENT_MAX = 512
_TOKEN = re.compile(r"\w+|\s+|.", re.DOTALL)


@dataclass(frozen=True, slots=True)
class TextEdit:
    """Operations on the value that a document showed at a version."""

    splices: tuple[Splice, ...]
    reach: int  # how long that value must be at least
    base_version: str


@dataclass(frozen=True, slots=True)
class AnchoredEdit:
    """A `TextEdit` whose places hold in every later state."""

    splices: tuple[Anchored, ...]


# -- operations ---------------------------------------------------------------------------------------------


def is_edit(value: object) -> bool:
    """Whether a value given for a collaborative field is an edit of it rather than a whole new value."""
    return isinstance(value, Mapping) and "ops" in value


def read_edit(given: Mapping[str, Any], *, is_text: bool) -> TextEdit:
    """The edit in `{"ops": […], "base_version": "…"}`. Raises `EditFault` naming every fault, by path."""
    faults: dict[str, str] = {
        name: "Unknown attribute" for name in given if name not in ("ops", "base_version")
    }
    version = given.get("base_version")
    if not isinstance(version, str) or not 0 < len(version) <= 64:
        faults["base_version"] = "This field is required" if version is None else "Must be a version"
        version = ""
    splices: list[Splice] = []
    place = 0
    ops = given.get("ops")
    if not isinstance(ops, list) or len(ops) > OPS_MAX:
        faults["ops"] = f"Must be a list of at most {OPS_MAX} operations"
        ops = []
    for number, op in enumerate(ops):
        path = f"ops[{number}]"
        match op:
            case {"retain": int(count)} if len(op) == 1 and type(count) is int and count > 0:
                place += count
            case {"delete": int(count)} if len(op) == 1 and type(count) is int and count > 0:
                _join(splices, Splice(place, count, None))
                place += count
            case {"insert": content} if len(op) == 1:
                inserted = _read_insert(content, is_text)
                if isinstance(inserted, Fault):
                    faults[f"{path}.insert"] = str(inserted)
                else:
                    _join(splices, Splice(place, 0, inserted))
            case _:
                faults[path] = 'Must be one of {"retain": n}, {"insert": …}, {"delete": n}, n at least 1'
        if len(faults) > 20:
            break
    if sum(1 for splice in splices if splice.insert) > STRUCTS_PER_UPDATE_MAX:
        faults["ops"] = f"Must insert at {STRUCTS_PER_UPDATE_MAX} places at most"
    if faults:
        raise EditFault(faults)
    return TextEdit(tuple(splices), place, version)


def _read_insert(content: object, is_text: bool) -> Content | Fault:
    if is_text:
        checked = check_string(content)
        return Fault("Must not be empty") if checked == "" else checked
    if not isinstance(content, list) or not content:
        return Fault("Must be a list of elements, not empty")
    checked = check_json(content)
    return checked if isinstance(checked, Fault) else [encode(element) for element in content]


def _join(splices: list[Splice], new: Splice) -> None:
    """Append a splice, as one with the last where they meet."""
    last = splices[-1] if splices else None
    if last is None or last.at + last.delete != new.at:
        splices.append(new)
        return
    inserted: Content = last.insert or new.insert
    if last.insert and new.insert:
        inserted = last.insert + new.insert  # type: ignore[operator]  # both texts, or both lists
    splices[-1] = Splice(last.at, last.delete + new.delete, inserted)


def spliced(value: Any, splices: Sequence[Splice]) -> Any:
    """A text or a list of elements with splices made."""
    for at, delete, insert in reversed(splices):
        value = value[:at] + (insert or value[:0]) + value[at + delete :]
    return value


# -- differences --------------------------------------------------------------------------------------------


def diff(old: Any, new: Any) -> list[Splice]:
    """Splices that make `new` of `old`, both texts or both lists of elements: few and small where that is quick."""
    start = _common(old, new)
    stop = _common(old[start:][::-1], new[start:][::-1])
    before, after = old[start : len(old) - stop], new[start : len(new) - stop]
    if not before and not after:
        return []
    hunks = None
    if before and after:
        hunks = _hunks(before, after, _DIFFERENCES_MAX)
        if hunks is None and isinstance(before, str):
            hunks = _token_hunks(before, after)
    if hunks is None or len(hunks) > STRUCTS_PER_UPDATE_MAX:
        hunks = [(0, len(before), 0, len(after))]
    return [Splice(start + a, b - a, after[c:d] or None) for a, b, c, d in hunks]


def _common(one: Any, other: Any) -> int:
    """How many items two texts or lists begin with alike."""
    low, high = 0, min(len(one), len(other))
    if one[:high] == other[:high]:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle
    return low


_Hunk = tuple[int, int, int, int]  # old from, to; new from, to


def _token_hunks(before: str, after: str) -> list[_Hunk] | None:
    """Differences in words, as ones in characters."""
    olds, news = _TOKEN.findall(before), _TOKEN.findall(after)
    hunks = _hunks(olds, news, _TOKENS_DIFFERENT_MAX)
    if hunks is None:
        return None
    old_ends, new_ends = _ends(olds), _ends(news)
    return [(old_ends[a], old_ends[b], new_ends[c], new_ends[d]) for a, b, c, d in hunks]


def _ends(tokens: list[str]) -> list[int]:
    ends = [0]
    for token in tokens:
        ends.append(ends[-1] + len(token))
    return ends


def _hunks(old: Sequence[Any], new: Sequence[Any], most: int) -> list[_Hunk] | None:
    """A shortest edit script (Myers, "An O(ND) Difference Algorithm", 1986); None if it has more than `most` steps."""
    reach, trails = {1: 0}, []
    olds, news = len(old), len(new)
    for distance in range(most + 1):
        trails.append(dict(reach))
        for diagonal in range(-distance, distance + 1, 2):
            if diagonal == -distance or (diagonal != distance and reach[diagonal - 1] < reach[diagonal + 1]):
                x = reach[diagonal + 1]
            else:
                x = reach[diagonal - 1] + 1
            y = x - diagonal
            while x < olds and y < news and old[x] == new[y]:
                x, y = x + 1, y + 1
            reach[diagonal] = x
            if x >= olds and y >= news:
                return _joined_hunks(_steps_back(trails, olds, news))
    return None


def _steps_back(trails: list[dict[int, int]], x: int, y: int) -> list[_Hunk]:
    """Single insertions and deletions of a script, from its end to its beginning."""
    steps: list[_Hunk] = []
    for distance in range(len(trails) - 1, 0, -1):
        reach, diagonal = trails[distance], x - y
        is_down = diagonal == -distance or (
            diagonal != distance and reach[diagonal - 1] < reach[diagonal + 1]
        )
        before = diagonal + 1 if is_down else diagonal - 1
        x = reach[before]
        y = x - before
        steps.append((x, x, y, y + 1) if is_down else (x, x + 1, y, y))
    return steps


def _joined_hunks(steps: list[_Hunk]) -> list[_Hunk]:
    hunks: list[_Hunk] = []
    for a, b, c, d in reversed(steps):
        if hunks and hunks[-1][1] == a and hunks[-1][3] == c:
            hunks[-1] = hunks[-1][0], b, hunks[-1][2], d
        else:
            hunks.append((a, b, c, d))
    return hunks
