"""A window as it crosses a link: what comes again and again in it is said once.

Room: bytes to bytes and back, exactly. Knows nothing of what a window means, save
where to look for repetition: authors in deps and dots, users, models and names of
fields, all of them CBOR strings. A record of ten fields shrinks by a third; it is
no compression of values.

    packed  [data, string …]; with no strings, data is the window itself
    data    the window, where 0xFF and a code stand for the string of that code, and 0xFF 0x00 for 0xFF

Strings are whole CBOR strings, with their heads, so they begin with 0x40 to 0x7B;
no code lies in that range. One pass undoes it, and its result has the size that
is computed before it is built.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from protocol.encoding import decode, decode_strings, encode
from protocol.errors import Malformed, TooLarge
from protocol.messages import WINDOW_MESSAGE_MAX_BYTES
from protocol.window import Run, decode_window, encode_window

_MARK = b"\xff"
_CODES = (*range(0x01, 0x40), *range(0x80, 0xFF))
STRINGS_MAX = len(_CODES)
STRING_SIZE_MAX_BYTES = 256
MARKS_MAX = 1 << 20  # each becomes an object while the window is put together: 40 MB at most
UNPACKED_SIZE_MAX_BYTES = WINDOW_MESSAGE_MAX_BYTES
_SAMPLE_BODIES = 48  # of a window, spread over its runs: enough to meet every field that is common
_SAMPLE_SIZE_MAX_BYTES = 4_096  # a larger body has little to gain and costs much to look through
_WORTH_PACKING_BYTES = 1_024  # a record just written goes out alone, and fast: there is little to say once
_REPEATED_MIN = 3  # in the sample
_STRING_SIZE_MIN = 4  # a mark and its code take two bytes


def pack_window(runs: Sequence[Run], on_step: Callable[[], None] = lambda: None) -> bytes:
    """The bytes that carry these runs. Raises as `encode_window` does.

    `on_step` is called again and again: to pack a full window takes some 20 ms.
    """
    window = encode_window(runs)
    if len(window) < _WORTH_PACKING_BYTES:
        return encode([window])
    strings = _strings_of(runs)
    data = window.replace(_MARK, b"\xff\x00")
    used: list[bytes] = []
    for string in strings:
        on_step()
        shorter = data.replace(string.replace(_MARK, b"\xff\x00"), bytes((0xFF, _CODES[len(used)])))
        if len(data) - len(shorter) > len(string):
            used.append(string)
            data = shorter
    if len(data) >= len(window) or data.count(_MARK) > MARKS_MAX:
        used, data = [], window
    return encode([data, *used])


def unpack_window(packed: bytes, on_step: Callable[[], None] = lambda: None) -> list[Run]:
    """The runs that were packed, every signature verified. `on_step` is called for every commit.

    Raises `ProtocolError`.
    """
    return decode_window(unpack(packed), on_step)


def unpack(packed: bytes) -> bytes:
    """The window as it was encoded. Raises `Malformed` or `TooLarge`."""
    match decode_strings(packed, count_max=1 + STRINGS_MAX):
        case [data]:
            return data
        case [data, *strings] if all(len(string) <= STRING_SIZE_MAX_BYTES for string in strings):
            pass
        case _:
            raise Malformed("a packed window is [data, string …]")
    marks = data.count(_MARK)
    if marks > MARKS_MAX:
        raise TooLarge("marks in a window", size=marks, size_max=MARKS_MAX)
    meaning: list[bytes | None] = [None] * 256
    meaning[0] = _MARK
    for code, string in zip(_CODES, strings, strict=False):
        meaning[code] = string
    first, *rest = data.split(_MARK)
    parts = [first]
    size = len(first)
    for part in rest:
        said = meaning[part[0]] if part else None
        if said is None:
            raise Malformed("a mark without a code, or with one that has no meaning")
        parts += said, part[1:]
        size += len(said) + len(part) - 1
        if size > UNPACKED_SIZE_MAX_BYTES:
            raise TooLarge("window in bytes", size=size, size_max=UNPACKED_SIZE_MAX_BYTES)
    return b"".join(parts)


def _strings_of(runs: Sequence[Run]) -> list[bytes]:
    """What probably repeats, the most worth first: authors, and texts that a sample of bodies shares."""
    authors = {run.commits[0].header.author for run in runs}
    ends = [commit for run in runs for commit in run.commits[-_SAMPLE_BODIES:]]
    authors |= {dep.author for commit in ends for dep in commit.header.deps}
    strings: list[bytes] = [encode(author) for author in sorted(authors)[: STRINGS_MAX // 2]]
    found = Counter(text for body in _sample(runs) for text in _texts(body))
    worth = [(count * len(text), text) for text, count in found.items() if count >= _REPEATED_MIN]
    texts = [encode(text) for _, text in sorted(worth, reverse=True)[: STRINGS_MAX - len(strings)]]
    return strings + [text for text in texts if _STRING_SIZE_MIN <= len(text) <= STRING_SIZE_MAX_BYTES]


def _sample(runs: Sequence[Run]) -> Iterator[Any]:
    commits = [commit for run in runs for commit in run.commits]
    step = max(1, len(commits) // _SAMPLE_BODIES)
    taken = 0
    for commit in commits[::step]:
        for body in commit.bodies[:_SAMPLE_BODIES]:
            if body is not None and len(body) <= _SAMPLE_SIZE_MAX_BYTES and taken < 2 * _SAMPLE_BODIES:
                taken += 1
                try:
                    yield decode(body)
                except Malformed:
                    continue  # of a careless author: it travels as it is


def _texts(value: Any) -> Iterable[str]:
    """Every text in a decoded value, keys too."""
    values = [value]
    while values:
        held = values.pop()
        if type(held) is str:
            yield held
        elif type(held) is list:
            values += held
        elif type(held) is dict:
            values += held
            values += held.values()
