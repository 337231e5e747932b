"""What one request of one user did to one document, as the bytes that a header signs the hash of.

Room: the layout of a body and of the operations in it. What operations mean for
a document is `document`'s; whether their author may make them is `integrate`'s.

    body       [salt(16), user, model, id, seen, operations]
    seen       [dot …]: of each author the last body that the writer has seen (that one and all before it),
               in the order of authors
    dot        [seq, index] of the same author, or [author(40), seq, index]
    operation  [kind, …], see `Kind`
    stub       [SHA-256 of the body, name(bytes)]; the name is model and id as the body holds them

A header names a body by a hash over its own hash and its name. So what is left of a
body that was dropped, its stub, still proves of which document it was. The salt
keeps an erased short text from being guessed from its hash. A kind that this
version does not know is no fault: the body is kept, forwarded and withheld.
"""

from enum import IntEnum
from hashlib import sha256
from itertools import pairwise
from typing import Any, NamedTuple

from protocol.encoding import check_value, decode, decode_exact, encode, encode_list, encode_text
from protocol.errors import Malformed, TooLarge
from protocol.ids import AUTHOR_BYTES, is_name
from protocol.limits import (
    BODIES_PER_COMMIT_MAX,
    BODY_SIZE_MAX_BYTES,
    CLIENT_NUMBER_MAX,
    NAME_LENGTH_MAX,
    OPERATIONS_PER_BODY_MAX,
    SEEN_PER_BODY_MAX,
    TEXT_LENGTH_MAX,
)
from protocol.yjs_update import decode_update

SALT_BYTES = 16
HASH_BYTES = 32
Operation = list[Any]


class Dot(NamedTuple):
    """One body: the `index`-th of commit `seq` of `author`."""

    author: bytes
    seq: int
    index: int  # type: ignore[assignment]  # in place of tuple's search, which a dot has no use for


class Kind(IntEnum):
    """Kinds of operation. Numbers are for ever."""

    SET = 0  # [0, {field: value}]      registers
    ADD = 1  # [1, field, [element …]]  to an add-wins set
    REMOVE = 2  # [2, field, [element …]]  where `seen` covers them
    INCREMENT = 3  # [3, field, delta]        of a counter, modulo 2^64
    DELETE = 4  # [4]                      the whole document, as far as `seen`
    RESTORE = 5  # [5]                      lifts the deletes that `seen` covers
    ERASE = 6  # [6]                      the whole document, for ever; alone in its body
    TEXT = 8  # [8, field, n, update]     of a text that several may edit, see `yjs_update`
    ARRAY = 9  # [9, field, n, update]     of such a list


_KNOWN = frozenset(Kind)
SHARED_KINDS = frozenset({Kind.TEXT, Kind.ARRAY})
_KIND_MAX = 255
_SET = Kind.SET.value
_SET_ENCODED, _EMPTY = encode(_SET), encode([])
_SALT_HEAD = encode(bytes(SALT_BYTES))[:-SALT_BYTES]
_PLAIN = frozenset({str, bool, type(None)})  # types of which every value may be a field's
_HASH_DOMAIN = b"civicnode body 1\0"
_BEGINNING = b"\x86\x50"  # of every body: a list of six, whose first is a salt
_TYPES = [bytes, str, str, str, list, list]
_USER_AT = len(_BEGINNING) + SALT_BYTES
_NAME_MAX_BYTES = NAME_LENGTH_MAX + 1  # a model of the program's own has a `$` before its name
ERASURE: list[Operation] = [[Kind.ERASE.value]]


class Body(NamedTuple):
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
        return _KNOWN.issuperset([operation[0] for operation in self.operations])

    @property
    def is_shared(self) -> bool:
        """Whether it has an operation on a collaborative field."""
        return not SHARED_KINDS.isdisjoint([operation[0] for operation in self.operations])

    @property
    def is_erasure(self) -> bool:
        """Whether it erases its document."""
        return bool(self.operations[0][0] == Kind.ERASE)

    def check(self) -> None:
        """Raise `Malformed` or `TooLarge` if any node would find the body malformed."""
        if len(self.salt) != SALT_BYTES or len(self.user) > TEXT_LENGTH_MAX:
            raise Malformed("a body with a salt or user of a wrong length")
        if not is_name(self.model) or not is_name(self.id):
            raise Malformed("a body whose model or id is not a name")
        if len(self.seen) > SEEN_PER_BODY_MAX:
            raise TooLarge("authors seen by a body", size=len(self.seen), size_max=SEEN_PER_BODY_MAX)
        if len(self.seen) > 1 and any(a.author >= b.author for a, b in pairwise(self.seen)):
            raise Malformed("what a body has seen is in the order of authors, one dot of each")
        if not 0 < len(self.operations) <= OPERATIONS_PER_BODY_MAX:
            raise TooLarge(
                "operations in a body", size=len(self.operations), size_max=OPERATIONS_PER_BODY_MAX
            )
        for operation in self.operations:
            _check_operation(operation)
        if (len(self.operations) > 1 or self.seen) and any(op[0] == Kind.ERASE for op in self.operations):
            raise Malformed("an erasure stands alone in its body, which has seen nothing")
        if self.is_shared:
            fields = [(op[0], op[1]) for op in self.operations if op[0] in SHARED_KINDS]
            if len(set(fields)) != len(fields):
                raise Malformed("two operations of a body on one collaborative field")

    def encode(self, author: bytes) -> bytes:
        """The bytes of a body that `author` is going to sign. Raises `Malformed` or `TooLarge`."""
        self.check()
        dots = [list(d[1:]) if d.author == author else list(d) for d in self.seen] if self.seen else []
        try:
            data = encode_list(
                _SALT_HEAD + self.salt,
                encode_text(self.user),
                encode_text(self.model),
                encode_text(self.id),
                encode(dots) if dots else _EMPTY,
                _encode_operations(self.operations),
            )
        except UnicodeEncodeError as error:
            raise Malformed("text with half a surrogate pair") from error
        if len(data) > BODY_SIZE_MAX_BYTES:
            raise TooLarge("body in bytes", size=len(data), size_max=BODY_SIZE_MAX_BYTES)
        return data


class Stub(NamedTuple):
    """What is left of a body that was dropped: its own hash, and its document's name."""

    content: bytes
    name: bytes

    @property
    def hash(self) -> bytes:
        """The hash by which a header names the body."""
        return sha256(_HASH_DOMAIN + self.content + self.name).digest()

    @property
    def document(self) -> tuple[str, str]:
        """Model and id of the body's document."""
        found = document_named(self.name)
        assert found is not None, "a stub names a document"
        return found

    def encode(self) -> bytes:
        return encode(list(self))


def stub_of(data: bytes) -> Stub:
    """What is to be left of a body. Only one that names a document has a stub that others take."""
    return Stub(sha256(data).digest(), name_in(data))


def decode_stub(data: bytes) -> Stub:
    """The stub in `data`. Raises `Malformed`, also if it names no document."""
    match decode_exact(data):
        case [bytes() as content, bytes() as name] if len(content) == HASH_BYTES and document_named(name):
            return Stub(content, name)
    raise Malformed("a stub is [hash of a body, name of its document]")


def body_hash(data: bytes) -> bytes:
    """The hash by which a header names a body, whatever its bytes are."""
    return sha256(b"%b%b%b" % (_HASH_DOMAIN, sha256(data).digest(), name_in(data))).digest()


def name_in(data: bytes) -> bytes:
    """Model and id, as a body holds them; nothing if that cannot be told of bytes that are no body."""
    if data[: len(_BEGINNING)] != _BEGINNING:
        return b""
    try:
        # Texts of up to 23 bytes have their size in the first byte: a user and a model mostly, and so every body
        # would spend microseconds in the general case.
        head = data[_USER_AT]
        start = head + (_USER_AT - 0x5F) if 0x60 <= head < 0x78 else _text_in(data, _USER_AT)[1]
        head = data[start]
        middle, id_start = (start + 1, start + head - 0x5F) if 0x60 <= head < 0x78 else _text_in(data, start)
        last, end = _text_in(data, id_start)
    except (IndexError, ValueError):
        return b""
    if end > len(data) or id_start - middle > _NAME_MAX_BYTES or end - last > _NAME_MAX_BYTES:
        return b""
    return data[start:end]


def document_named(name: bytes) -> tuple[str, str] | None:
    """Model and id in the name of a body; None if it is not that of a document."""
    try:
        start, end = _text_in(name, 0)
        last, stop = _text_in(name, end)
        model, id = name[start:end].decode("ascii"), name[last:stop].decode("ascii")
    except (IndexError, ValueError):
        return None
    return (model, id) if stop == len(name) and is_name(model) and is_name(id) else None


def _text_in(data: bytes, at: int) -> tuple[int, int]:
    """Where the text of a CBOR item begins and ends; its length may be of any width. Raises IndexError, ValueError."""
    head = data[at]
    if head == 0x78:
        return at + 2, at + 2 + data[at + 1]
    if 0x60 <= head < 0x78:
        return at + 1, at + 1 + head - 0x60
    if not 0x78 <= head < 0x7C:
        raise ValueError
    start = at + 1 + (1 << head - 0x78)
    return start, start + int.from_bytes(data[at + 1 : start], "big")


def decode_body(data: bytes, author: bytes) -> Body:
    """The body in `data`, signed by `author`. Raises `Malformed` or `TooLarge`, and nothing else."""
    if not data.startswith(_BEGINNING):
        raise Malformed("a body begins with a list of six and a salt, in the shortest form")
    if len(data) > BODY_SIZE_MAX_BYTES:
        raise TooLarge("body in bytes", size=len(data), size_max=BODY_SIZE_MAX_BYTES)
    fields = decode(data)  # its beginning is that of a list of six
    if [type(item) for item in fields] != _TYPES:  # no pattern: it would take as long as the decoding
        raise Malformed("a body is [salt, user, model, id, seen, operations]")
    salt, user, model, id, dots, operations = fields
    body = Body(
        salt, user, model, id, tuple([_decode_dot(dot, author) for dot in dots]) if dots else (), operations
    )
    body.check()
    return body


def _decode_dot(dot: Any, author: bytes) -> Dot:
    match dot:
        case [seq, index]:
            named = author
        case [bytes() as named, seq, index] if len(named) == AUTHOR_BYTES and named != author:
            pass
        case _:
            raise Malformed("a dot is [seq, index] or [author, seq, index]")
    if type(seq) is not int or type(index) is not int:  # a bool is not a number here
        raise Malformed("a dot is [seq, index] or [author, seq, index]")
    if not (0 < seq < 1 << 63 and 0 <= index < BODIES_PER_COMMIT_MAX):
        raise Malformed("a dot out of range")
    return Dot(named, seq, index)


def _encode_operations(operations: list[Operation]) -> bytes:
    if len(operations) == 1 and operations[0][0] == _SET:  # nearly always
        return encode_list(encode_list(_SET_ENCODED, encode(operations[0][1])))
    return encode(operations)


def _check_operation(operation: Operation) -> None:
    if type(operation) is not list or not operation or type(operation[0]) is not int:
        raise Malformed("an operation is [kind, …]")
    if operation[0] == _SET:
        _check_set(operation)
        return
    match operation:
        case [Kind.ADD | Kind.REMOVE, field, list() as elements] if elements:
            _check_field(field)
            if any(isinstance(element, list | dict) for element in elements):
                raise Malformed("an element of a set is a plain value")
            check_value(elements)
        case [Kind.INCREMENT, field, delta] if type(delta) is int:
            _check_field(field)
            check_value(delta)
        case [Kind.DELETE | Kind.RESTORE | Kind.ERASE]:
            pass
        case [Kind.TEXT | Kind.ARRAY as kind, field, int(n), bytes(update)]:
            _check_field(field)
            if type(n) is not int or not 0 <= n <= CLIENT_NUMBER_MAX:
                raise Malformed("the number of a client that is out of range")
            decode_update(update, field, is_text=kind == Kind.TEXT)
        case [kind, *rest] if kind not in _KNOWN and 0 <= kind <= _KIND_MAX:
            for argument in rest:  # of a newer release
                check_value(argument, may_hold_bytes=True)
        case _:
            raise Malformed("an operation that is not of its kind's form")


def _check_set(operation: Operation) -> None:
    if len(operation) != 2 or type(operation[1]) is not dict or not operation[1]:
        raise Malformed("an operation that is not of its kind's form")
    for name, value in operation[1].items():
        if type(name) is not str or not 0 < len(name) <= TEXT_LENGTH_MAX:
            _check_field(name)
        if type(value) not in _PLAIN:
            check_value(value)


def _check_field(name: Any) -> None:
    if type(name) is not str or not 0 < len(name) <= TEXT_LENGTH_MAX:
        raise Malformed("the name of a field is not text of a fitting length")
