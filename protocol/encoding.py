"""CBOR as this protocol uses it: strict on the way in, deterministic on the way out.

Room: the only place that knows the CBOR library. What came from elsewhere is
read with every leniency off: no tags, no indefinite lengths, no duplicate or
odd map keys, no trailing bytes, bounded depth, no NaN. Headers are checked by
re-encoding as well (`decode_exact`); bodies are vouched for by their hash.
"""

import math
from typing import Any

import cbor2

from protocol.errors import Malformed
from protocol.limits import VALUE_DEPTH_MAX

_DEPTH_MAX = VALUE_DEPTH_MAX + 8  # a value sits in an operation, in a list, in a body, in a run

encode = cbor2.dumps  # deterministic for arrays, integers, bytes and text; maps keep their insertion order


def _refuse_tag(_decoder: object, *_: object) -> Any:
    raise Malformed("tags are not part of this format")


# The library decodes some forty tags by itself (dates, bignums, regular expressions, shared references).
_NO_TAGS = {tag: _refuse_tag for tag in (*range(0, 6), *range(21, 39), 43000, 55799, *range(100, 105), *range(256, 264))}


def decode(data: bytes) -> Any:
    """The one value in `data`. Raises `Malformed`; never anything else, whatever the bytes."""
    try:
        value = cbor2.loads(
            data,
            tag_hook=_refuse_tag,
            semantic_decoders=_NO_TAGS,
            max_depth=_DEPTH_MAX,
            allow_indefinite=False,
            allow_duplicate_keys=False,
            strict_hashable_types=True,
        )
    except Malformed:
        raise
    except Exception as error:  # the library raises its own errors, ValueError and OverflowError
        raise Malformed("not in strict CBOR") from error
    return value


def decode_exact(data: bytes) -> Any:
    """As `decode`, and the same bytes must come out when the value is encoded again."""
    value = decode(data)
    if encode(value) != data:
        raise Malformed("not in the shortest, canonical form")
    return value


def check_value(value: Any, depth: int = 0) -> None:
    """Raise `Malformed` unless `value` is a JSON value with 64-bit integers and finite numbers."""
    if value is None or value is True or value is False or isinstance(value, str):
        return
    if isinstance(value, int):
        if not -(1 << 63) <= value < 1 << 63:
            raise Malformed("an integer beyond 64 bits")
        return
    if isinstance(value, float):
        if not math.isfinite(value):
            raise Malformed("a number that is not finite")
        return
    if depth >= VALUE_DEPTH_MAX:
        raise Malformed(f"a value nested deeper than {VALUE_DEPTH_MAX}")
    if isinstance(value, list):
        for item in value:
            check_value(item, depth + 1)
        return
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise Malformed("a map key that is not text")
            check_value(item, depth + 1)
        return
    raise Malformed("a value of a kind that JSON does not have")
