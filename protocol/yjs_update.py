"""The layout of a collaborative operation's bytes: Yjs update v1, as far as plain text and flat lists need it.

Room: bytes to `Update` and back, with every limit before anything is built. What
an update may do to a field that is known is `weave`'s affair. Nothing here
knows the library that merges updates: it gets them only after this has read them.

    update   [0, or 1 section] [deletes]
    section  structs, client id, first clock, then each struct: info, origin, right, parent, content
    deletes  clients, then each: client id, ranges, then each: clock, length

Numbers are LEB128 without padding, at most 53 bits. An update is *exact*: sorted,
nothing twice, nothing empty, so one meaning has one form. A section is of one
client: that of the operation. Contents are text, elements as CBOR in byte
strings, or what was deleted before it was sent; formats, embedded objects,
nested types, sub-documents, gaps and collected items are no part of it.
"""

from collections.abc import Sequence
from hashlib import sha256
from itertools import pairwise
from typing import NamedTuple

from protocol.encoding import check_value, decode_exact
from protocol.errors import Malformed, TooLarge
from protocol.limits import (
    CLIENTS_DELETED_FROM_MAX,
    ELEMENT_SIZE_MAX_BYTES,
    RANGES_PER_UPDATE_MAX,
    STRUCTS_PER_UPDATE_MAX,
    UNITS_PER_UPDATE_MAX,
)

CLIENT_ID_BITS = 53  # what a JavaScript number holds
_NUMBER_MAX = (1 << CLIENT_ID_BITS) - 1
_HAS_ORIGIN, _HAS_RIGHT = 0x80, 0x40
_DELETED, _STRING, _ANY = 1, 4, 8  # contents as Yjs numbers them
_ANY_BYTES = 116  # of the kinds of `Any`: a byte string

Id = tuple[int, int]  # client id, clock: one unit of content
Content = str | list[bytes] | None
Range = tuple[int, int]  # first clock, length


class Struct(NamedTuple):
    """Units that were inserted together. `origin` and `right` are what stood left and right of them then.

    A unit is half of a UTF-16 code point's surrogate pair, or a code point, or an element. `content` is
    None for units that were deleted before they were sent.
    """

    clock: int
    length: int
    origin: Id | None
    right: Id | None
    content: Content


class Update(NamedTuple):
    """What one operation does to one field: units of one client that it adds, and units that it deletes."""

    client: int
    structs: tuple[Struct, ...]
    deletes: tuple[tuple[int, tuple[Range, ...]], ...]


def client_id(author: bytes, model: str, id: str, field: str, n: int) -> int:
    """The Yjs client id that is `author`'s own, as the `n`-th, in one field of one document (SPEC section 3)."""
    place = f"{model}\0{id}\0{field}".encode()
    digest = sha256(b"civicnode client 1\0" + author + n.to_bytes(4, "big") + place).digest()
    return int.from_bytes(digest[:8], "big") >> (64 - CLIENT_ID_BITS)


def units(content: str) -> int:
    """UTF-16 code units of a text."""
    return len(content) if content.isascii() else len(content.encode("utf-16-le")) // 2


# -- reading ------------------------------------------------------------------------------------------------


class _Reader:
    __slots__ = ("data", "place")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.place = 0

    def byte(self) -> int:
        if self.place >= len(self.data):
            raise Malformed("an update that is cut short")
        self.place += 1
        return self.data[self.place - 1]

    def number(self) -> int:
        first = self.byte()
        if first < 0x80:
            return first
        number, shift = first & 0x7F, 7
        while True:
            part = self.byte()
            number |= (part & 0x7F) << shift
            shift += 7
            if part < 0x80:
                if part == 0 or number > _NUMBER_MAX:
                    raise Malformed("a number that is padded or beyond 53 bits")
                return number
            if shift > CLIENT_ID_BITS:
                raise Malformed("a number beyond 53 bits")

    def bytes(self) -> bytes:
        size = self.number()
        end = self.place + size
        if end > len(self.data):
            raise Malformed("an update that is cut short")
        self.place = end
        return self.data[end - size : end]

    def text(self) -> str:
        try:
            return self.bytes().decode()
        except UnicodeDecodeError as error:
            raise Malformed("text that is not UTF-8") from error

    def count(self, what: str, size_max: int) -> int:
        size = self.number()
        if size > size_max:
            raise TooLarge(what, size=size, size_max=size_max)
        return size


def decode_update(data: bytes, field: str, *, is_text: bool) -> Update:
    """The update in `data`, of a text or of a list in this field. Raises `Malformed` or `TooLarge` alone."""
    reader = _Reader(data)
    client, structs = -1, []
    if reader.count("clients that an update writes as", 1):
        count = reader.count("structs in an update", STRUCTS_PER_UPDATE_MAX)
        client, clock = reader.number(), reader.number()
        first = clock
        if not count:
            raise Malformed("a section without structs")
        for _ in range(count):
            struct = _read_struct(reader, clock, field, is_text)
            structs.append(struct)
            clock += struct.length
            if clock - first > UNITS_PER_UPDATE_MAX:
                raise TooLarge("units in an update", size=clock - first, size_max=UNITS_PER_UPDATE_MAX)
        if clock > _NUMBER_MAX:
            raise Malformed("a clock beyond 53 bits")
    deletes = _read_deletes(reader)
    if reader.place != len(data):
        raise Malformed("bytes after the end of an update")
    if not structs and not deletes:
        raise Malformed("an update that does nothing")
    return Update(client, tuple(structs), deletes)


def _read_struct(reader: _Reader, clock: int, field: str, is_text: bool) -> Struct:
    info = reader.byte()
    origin = (reader.number(), reader.number()) if info & _HAS_ORIGIN else None
    right = (reader.number(), reader.number()) if info & _HAS_RIGHT else None
    if origin is None and right is None and (reader.byte() != 1 or reader.text() != field):
        raise Malformed("a parent that is not the field")
    content: Content
    found = info & ~(_HAS_ORIGIN | _HAS_RIGHT)
    if found == _DELETED:
        content, length = None, reader.number()
    elif found == _STRING and is_text:
        content = reader.text()
        length = units(content)
    elif found == _ANY and not is_text:
        length = reader.count("elements in a struct", UNITS_PER_UPDATE_MAX)
        content = [_read_element(reader) for _ in range(length)]
    else:
        raise Malformed("a content of a kind that such a field does not have")
    if not length:
        raise Malformed("an empty struct")
    return Struct(clock, length, origin, right, content)


def _read_element(reader: _Reader) -> bytes:
    if reader.byte() != _ANY_BYTES:
        raise Malformed("an element that is not its encoding")
    element = reader.bytes()
    if len(element) > ELEMENT_SIZE_MAX_BYTES:
        raise TooLarge("element in bytes", size=len(element), size_max=ELEMENT_SIZE_MAX_BYTES)
    check_value(decode_exact(element))
    return element


def _read_deletes(reader: _Reader) -> tuple[tuple[int, tuple[Range, ...]], ...]:
    deletes: list[tuple[int, tuple[Range, ...]]] = []
    left = RANGES_PER_UPDATE_MAX
    for _ in range(reader.count("clients that an update deletes from", CLIENTS_DELETED_FROM_MAX)):
        client = reader.number()
        count = reader.count("ranges that an update deletes", left)
        left -= count
        ranges = tuple([(reader.number(), reader.number()) for _ in range(count)])
        if not ranges or any(length == 0 or clock + length > _NUMBER_MAX for clock, length in ranges):
            raise Malformed("an empty range of deletes, or one beyond 53 bits")
        if any(a[0] + a[1] >= b[0] for a, b in pairwise(ranges)):
            raise Malformed("ranges that are not in order, or meet")
        if deletes and deletes[-1][0] >= client:
            raise Malformed("deletes that are not in the order of clients")
        deletes.append((client, ranges))
    return tuple(deletes)


# -- writing ------------------------------------------------------------------------------------------------


def encode_update(update: Update, field: str) -> bytes:
    """The bytes that `decode_update` reads back. Whether they keep its limits is checked there."""
    out = bytearray()
    if update.structs:
        out.append(1)
        _put(out, len(update.structs), update.client, update.structs[0].clock)
        for struct in update.structs:
            _put_struct(out, struct, field)
    else:
        out.append(0)
    _put(out, len(update.deletes))
    for client, ranges in update.deletes:
        _put(out, client, len(ranges))
        for clock, length in ranges:
            _put(out, clock, length)
    return bytes(out)


def _put_struct(out: bytearray, struct: Struct, field: str) -> None:
    info = _DELETED if struct.content is None else _STRING if isinstance(struct.content, str) else _ANY
    info |= _HAS_ORIGIN if struct.origin is not None else 0
    info |= _HAS_RIGHT if struct.right is not None else 0
    out.append(info)
    if struct.origin is not None:
        _put(out, *struct.origin)
    if struct.right is not None:
        _put(out, *struct.right)
    if struct.origin is None and struct.right is None:
        out.append(1)
        _put_bytes(out, field.encode())
    if struct.content is None:
        _put(out, struct.length)
    elif isinstance(struct.content, str):
        _put_bytes(out, struct.content.encode())
    else:
        _put(out, len(struct.content))
        for element in struct.content:
            out.append(_ANY_BYTES)
            _put_bytes(out, element)


def _put(out: bytearray, *numbers: int) -> None:
    for number in numbers:
        while number > 0x7F:
            out.append(number & 0x7F | 0x80)
            number >>= 7
        out.append(number)


def _put_bytes(out: bytearray, data: bytes) -> None:
    _put(out, len(data))
    out += data


def merged_ranges(ranges: Sequence[Range]) -> tuple[Range, ...]:
    """Ranges in order, those that meet or overlap joined."""
    merged: list[Range] = []
    for clock, length in sorted(ranges):
        if merged and clock <= merged[-1][0] + merged[-1][1]:
            first = merged[-1][0]
            merged[-1] = (first, max(merged[-1][1], clock + length - first))
        else:
            merged.append((clock, length))
    return tuple(merged)
