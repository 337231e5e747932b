"""Bytes that were good, spoilt in ways that keep most of them good.

Room: what a hostile peer makes of what it has heard, drawn from a seeded `Random`:
bits, lengths and items, fields deep inside what is encoded, and the order of what
is said. It knows CBOR and frames and no layout; whoever feeds the results decides
what must come of them.
"""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import cbor2

from protocol.frames import to_frames

NUMBERS = (0, 1, -1, 23, 24, 255, 256, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 48) - 1,
           1 << 53, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, -(1 << 63), -(1 << 64), 1 << 70)  # fmt: skip
TEXTS = ("", "\0", "é😀", "x" * 70, "system", "app/", "app/default", "app/new", "..", "$role_x", "$deleted")
KINDS: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1.0,
    float("nan"),
    float("inf"),
    b"",
    "",
    [],
    {},
    {1: 2},
    [[]],
)
LONG = 1_100  # items: more than any list of a message may have


def spoilt(random: Random, data: bytes) -> bytes:
    """`data` with something wrong somewhere: in its bits, its length, or a value deep inside it."""
    if random.random() < 0.3 or not data:
        return spoilt_bytes(random, data)
    try:
        value = cbor2.loads(data)
        for _ in range(random.choice((1, 1, 1, 2, 4))):
            value = spoilt_value(random, value)
        return cbor2.dumps(value)
    except Exception:  # no CBOR to begin with, or something that has no form in it
        return spoilt_bytes(random, data)


def spoilt_bytes(random: Random, data: bytes) -> bytes:
    """Bits flipped, a piece left out, said twice, cut off or put in."""
    out, size = bytearray(data), len(data)
    at = random.randrange(size + 1)
    match random.randrange(6):
        case 0 | 1 if size:
            for _ in range(random.choice((1, 1, 1, 2, 8))):
                out[random.randrange(size)] ^= 1 << random.randrange(8)
        case 2:
            del out[at : at + random.randint(1, 8)]
        case 3:
            del out[at:]
        case 4:
            out[at:at] = out[at : at + random.randint(1, 40)]
        case _:
            out[at:at] = random.randbytes(random.randint(1, 4))
    return bytes(out)


def spoilt_value(random: Random, value: Any) -> Any:
    """A value that is another in one place, however deep."""
    if isinstance(value, list) and value and random.random() < 0.75:
        at = random.randrange(len(value))
        return [*value[:at], spoilt_value(random, value[at]), *value[at + 1 :]]
    if isinstance(value, dict) and value and random.random() < 0.6:
        key = random.choice(list(value))
        return {**value, key: spoilt_value(random, value[key])}
    if random.random() < 0.08:
        return random.choice(KINDS)
    return _SPOIL.get(type(value), _anything)(random, value)


def _anything(random: Random, _: Any) -> Any:
    return random.choice(KINDS)


def _number(random: Random, value: int) -> int:
    return random.choice(
        (random.choice(NUMBERS), value + 1, value - 1, value ^ 1 << random.randrange(16), -value)
    )


def _text(random: Random, value: str) -> str:
    return random.choice((random.choice(TEXTS), value + "x", value[:-1], value * 2))


def _bytes(random: Random, value: bytes) -> bytes:
    if len(value) > 40 and random.random() < 0.7:
        return spoilt(random, value)  # often something that is encoded itself
    match random.randrange(5):
        case 0:
            return value[:-1]
        case 1:
            return value + b"\0"
        case 2:
            return bytes(len(value))
        case 3:
            return random.randbytes(len(value))
    return spoilt_bytes(random, value)


def _list(random: Random, value: list[Any]) -> list[Any]:
    at = random.randrange(len(value) + 1)
    match random.randrange(6):
        case 0:
            return value[:at] + value[at + 1 :]
        case 1:
            return value[:at] + value[at : at + 1] * 2 + value[at + 1 :]
        case 2:
            return value[::-1]
        case 3:
            return value[:at]
        case 4 if random.random() < 0.2 and len(cbor2.dumps(value)) < 4_000:
            return (value or [0]) * (LONG // max(1, len(value)))
        case 4:
            return value * 2
    return [*value[:at], random.choice(KINDS), *value[at:]]


def _dict(random: Random, value: dict[Any, Any]) -> dict[Any, Any]:
    return {**value, random.choice((0, "", "x", b"x", None)): random.choice(KINDS)}


_SPOIL: dict[type, Callable[[Random, Any], Any]] = {
    int: _number, str: _text, bytes: _bytes, list: _list, dict: _dict,
}  # fmt: skip


def spoilt_frame(random: Random, frame: bytes) -> bytes:
    """A frame with one message, otherwise: most often a good frame with another message."""
    if random.random() < 0.8:
        return to_frames(spoilt(random, frame[4:]) or b"\0")
    return spoilt_bytes(random, frame)


def spoilt_talk(random: Random, frames: Sequence[bytes], others: Sequence[bytes]) -> list[bytes]:
    """What one side says: its frames with some swapped, said twice, left out, spoilt or from elsewhere."""
    said = list(frames)
    for _ in range(random.randint(0, 3)):
        at = random.randrange(len(said) + 1)
        match random.randrange(6):
            case 0 if at < len(said):
                del said[at]
            case 1 if at < len(said):
                said.insert(at, said[at])
            case 2 if len(said) > 1:
                other = random.randrange(len(said))
                at %= len(said)
                said[at], said[other] = said[other], said[at]
            case 3 | 4 if at < len(said):
                said[at] = spoilt_frame(random, said[at])
            case _:
                frame = random.choice(others)
                said.insert(at, frame if random.random() < 0.5 else spoilt_frame(random, frame))
    return said
