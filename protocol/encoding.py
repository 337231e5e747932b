"""CBOR as this protocol uses it: strict on the way in, deterministic on the way out.

Room: the only place that knows the CBOR library. What came from elsewhere is
read with every leniency off: no tags, no indefinite lengths, no duplicate or
odd map keys, no trailing bytes, bounded depth. Headers are checked by encoding
them again as well (`decode_exact`); bodies are vouched for by their hash. Which
kinds of value a place allows is checked by whoever knows the place, for plain
values by `check_value`: the library also gives `undefined`, simple values, byte
strings as keys, and numbers that are not finite.
"""

import math
from io import BytesIO
from typing import Any

import cbor2

from protocol.errors import Malformed, TooLarge
from protocol.limits import VALUE_DEPTH_MAX

encode = cbor2.dumps  # shortest integers and lengths, 64-bit floats; maps keep their order of insertion


def _refuse_tag(_decoder: object, *_: object) -> Any:
    raise Malformed("tags are not part of this format")


# The library decodes some forty tags by itself (dates, bignums, regular expressions, shared references).
_OWN_TAGS = (*range(6), *range(21, 39), *range(100, 105), *range(256, 264), 43000, 55799)
_NO_TAGS = dict.fromkeys(_OWN_TAGS, _refuse_tag)
_DEPTH_MAX = VALUE_DEPTH_MAX + 8  # for the envelope around a value; each layout has its own rule
_STRICT: Any = {
    "tag_hook": _refuse_tag,
    "semantic_decoders": _NO_TAGS,
    "max_depth": _DEPTH_MAX,
    "allow_indefinite": False,
    "allow_duplicate_keys": False,
    "strict_hashable_types": True,
}
_STRICT_IN_PAIR = {**_STRICT, "max_depth": _DEPTH_MAX + 1}
_LARGE_BYTES = 64 << 10  # of which it is better not to make copies
_STRING_HEADS = tuple(encode(bytes(size))[: -size or None] for size in range(1_024))


# The library spends 0.4 µs on every list, so the frame of what is made most often is put together by hand.
_TEXT_HEADS = tuple(encode("x" * size)[: -size or None] for size in range(256))


def encode_text(text: str) -> bytes:
    """As `encode`, in half the time. Raises UnicodeEncodeError for half a surrogate pair, as that does."""
    data = text.encode()
    return _TEXT_HEADS[len(data)] + data if len(data) < 256 else encode(text)


def encode_list(*items: bytes) -> bytes:
    """The encoded list of at most 23 items that are encoded already."""
    assert len(items) < 24
    return b"".join((_LIST_HEADS[len(items)], *items))


_LIST_HEADS = tuple(bytes([0x80 + size]) for size in range(24))


def decode(data: bytes) -> Any:
    """The one value in `data`. Raises `Malformed`; never anything else, whatever the bytes.

    What it builds can take 72 times the memory of `data` (empty maps): bound the size first.
    """
    size = len(data)
    try:
        if size >= _LARGE_BYTES:
            stream = BytesIO(data)
            value = cbor2.CBORDecoder(stream, **_STRICT).decode()
            is_whole = stream.tell() == size
        else:
            # The library tells where it stopped only of a stream, which takes twice as long. So the bytes go in as the
            # first of two items, and once more as the second, a byte string: longer than `data` itself, it cannot
            # be made of what follows a value that ends early, nor of what is left by one that is cut short.
            value, rest = cbor2.loads(b"".join((b"\x82", data, _string_head(data), data)), **_STRICT_IN_PAIR)
            is_whole = rest == data
    except Exception as error:  # the library raises its own errors, ValueError and OverflowError
        raise Malformed("not in strict CBOR") from error
    if not is_whole:
        raise Malformed("bytes after the end of the value, or too few")
    return value


def _string_head(data: bytes) -> bytes:
    size = len(data)
    return _STRING_HEADS[size] if size < len(_STRING_HEADS) else encode(data)[:-size]


def decode_exact(data: bytes) -> Any:
    """As `decode`, and the same bytes must come out when the value is encoded again."""
    value = decode(data)
    if encode(value) != data:
        raise Malformed("not in the shortest, canonical form")
    return value


def decode_strings(data: bytes, *, count_max: int) -> list[bytes]:
    """The byte strings of a canonical `[bytes …]`, cut out one by one. Raises `Malformed` or `TooLarge`.

    For what may be large and is not trusted yet: nothing is built that the list does not hold.
    """
    count, position = _length(data, 0, major=4)
    if count > count_max:
        raise TooLarge("list of byte strings", size=count, size_max=count_max)
    strings: list[bytes] = []
    for _ in range(count):
        size, position = _length(data, position, major=2)
        strings.append(data[position : position + size])
        position += size
        if position > len(data):
            raise Malformed("a list of byte strings that is cut short")
    if position != len(data):
        raise Malformed("bytes after the end of the list")
    return strings


def _length(data: bytes, position: int, *, major: int) -> tuple[int, int]:
    """The length in the head at `position`, which is of the major type, and where the head ends."""
    head = data[position] if position < len(data) else 0xFF
    if head >> 5 != major or head & 31 > 27:
        raise Malformed("not a list of byte strings of definite length")
    if head & 31 < 24:
        return head & 31, position + 1
    end = position + 1 + (1 << (head & 31) - 24)
    length = int.from_bytes(data[position + 1 : end], "big")
    if end > len(data) or length < (24, 1 << 8, 1 << 16, 1 << 32)[(head & 31) - 24]:
        raise Malformed("a length that is cut short or not in the shortest form")
    return length, end


def check_value(value: Any, *, depth_max: int = VALUE_DEPTH_MAX, may_hold_bytes: bool = False) -> None:
    """Raise `Malformed` unless `value` is a JSON value with 64-bit integers and finite numbers.

    Types are compared exactly: a tuple or a subclass would not come back from the wire as what it was.
    """
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return
    if kind is int:
        if not -(1 << 63) <= value < 1 << 63:
            raise Malformed("an integer beyond 64 bits")
    elif kind is float:
        if not math.isfinite(value):
            raise Malformed("a number that is not finite")
    elif kind is list or kind is dict:
        if depth_max <= 0:
            raise Malformed(f"a value nested deeper than {VALUE_DEPTH_MAX}")
        if kind is dict and any(type(key) is not str for key in value):
            raise Malformed("a map key that is not text")
        for item in value if kind is list else value.values():
            check_value(item, depth_max=depth_max - 1, may_hold_bytes=may_hold_bytes)
    elif kind is not bytes or not may_hold_bytes:
        raise Malformed("a value of a kind that JSON does not have")
