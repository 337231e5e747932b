"""What one request of one user did to one document, as the bytes that a header signs the hash of.

Room: the layout of a body and of the operations in it. What operations mean for
a document is `document`'s; whether their author may make them is `integrate`'s.

    body       [salt(16), user, model, id, seen, operations]
    seen       [dot …]: the live values that these operations supersede
    dot        [seq, index] of the same author, or [author(40), seq, index]
    operation  [kind, …], see `Kind`

The salt keeps an erased short text from being guessed from its hash. A kind that
this version does not know is no fault: the body is kept, forwarded and withheld.
"""

from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256
from typing import Any, NamedTuple

from protocol.encoding import check_value, decode, encode
from protocol.errors import Malformed, TooLarge
from protocol.ids import AUTHOR_BYTES
from protocol.limits import BODY_SIZE_MAX_BYTES, OPERATIONS_PER_BODY_MAX, SEEN_PER_BODY_MAX

SALT_BYTES = 16
HASH_BYTES = 32
_TEXT_MAX = 256  # user, model, id and field names: far above what the API gives out
Operation = list[Any]


class Dot(NamedTuple):
    """One body: the `index`-th of commit `seq` of `author`."""

    author: bytes
    seq: int
    index: int


class Kind(IntEnum):
    """Kinds of operation. Numbers are for ever; 8 and 9 are kept for `text` and `array`."""

    SET = 0  # [0, {field: value}]      registers
    ADD = 1  # [1, field, [element …]]  to an add-wins set
    REMOVE = 2  # [2, field, [element …]]  where `seen` names their dots
    INCREMENT = 3  # [3, field, delta]        of a counter
    DELETE = 4  # [4]                      the whole document
    RESTORE = 5  # [5]                      lifts the deletes in `seen`
    TEXT = 8
    ARRAY = 9


_KNOWN = frozenset({Kind.SET, Kind.ADD, Kind.REMOVE, Kind.INCREMENT, Kind.DELETE, Kind.RESTORE})


@dataclass(frozen=True, slots=True)
class Body:
    """One decoded body. `seen` is complete: dots of the same author are written out."""

    salt: bytes
    user: str
    model: str
    id: str
    seen: tuple[Dot, ...]
    operations: list[Operation]

    @property
    def is_understood(self) -> bool:
        """Whether this version knows every operation in it; if not, the body is withheld, never refused."""
        return all(operation[0] in _KNOWN for operation in self.operations)


def encode_body(salt: bytes, user: str, model: str, id: str, seen: tuple[Dot, ...], operations: list[Operation],
                author: bytes) -> bytes:
    """The bytes of a body that `author` is going to sign. Values have been checked by the caller."""
    dots = [list(dot[1:]) if dot.author == author else list(dot) for dot in seen] if seen else []
    return encode([salt, user, model, id, dots, operations])


def body_hash(data: bytes) -> bytes:
    """The hash by which a header names a body."""
    return sha256(data).digest()


def decode_body(data: bytes, author: bytes) -> Body:
    """The body in `data`, signed by `author`. Raises `Malformed` or `TooLarge`, and nothing else."""
    if len(data) > BODY_SIZE_MAX_BYTES:
        raise TooLarge("body in bytes", size=len(data), size_max=BODY_SIZE_MAX_BYTES)
    match decode(data):
        case [bytes() as salt, str() as user, str() as model, str() as id, list() as dots, list() as operations]:
            pass
        case _:
            raise Malformed("a body is [salt, user, model, id, seen, operations]")
    if len(salt) != SALT_BYTES or max(len(user), len(model), len(id)) > _TEXT_MAX or not model or not id:
        raise Malformed("a body with a salt, user, model or id of a wrong length")
    if len(dots) > SEEN_PER_BODY_MAX:
        raise TooLarge("dots seen by a body", size=len(dots), size_max=SEEN_PER_BODY_MAX)
    if not 0 < len(operations) <= OPERATIONS_PER_BODY_MAX:
        raise TooLarge("operations in a body", size=len(operations), size_max=OPERATIONS_PER_BODY_MAX)
    for operation in operations:
        _check_operation(operation)
    return Body(salt, user, model, id, tuple(_decode_dot(dot, author) for dot in dots), operations)


def _decode_dot(dot: Any, author: bytes) -> Dot:
    match dot:
        case [int() as seq, int() as index]:
            named = author
        case [bytes() as named, int() as seq, int() as index] if len(named) == AUTHOR_BYTES and named != author:
            pass
        case _:
            raise Malformed("a dot is [seq, index] or [author, seq, index]")
    if not (0 < seq < 1 << 63 and 0 <= index < 1 << 31) or isinstance(seq, bool) or isinstance(index, bool):
        raise Malformed("a dot out of range")
    return Dot(named, seq, index)


def _check_operation(operation: Any) -> None:
    match operation:
        case [Kind.SET, dict() as values] if values and all(_is_field(name) for name in values):
            for value in values.values():
                check_value(value)
        case [Kind.ADD | Kind.REMOVE, str() as field, list() as elements] if _is_field(field) and elements:
            if any(isinstance(element, list | dict | bytes) for element in elements):
                raise Malformed("an element of a set is a plain value")
            check_value(elements)
        case [Kind.INCREMENT, str() as field, int() as delta] if _is_field(field) and not isinstance(delta, bool):
            check_value(delta)
        case [Kind.DELETE | Kind.RESTORE]:
            pass
        case [int() as kind, *_] if kind not in _KNOWN and not isinstance(kind, bool) and 0 <= kind < 256:
            pass  # of a newer release
        case _:
            raise Malformed("an operation that is not of its kind's form")


def _is_field(name: Any) -> bool:
    return isinstance(name, str) and 0 < len(name) <= _TEXT_MAX
