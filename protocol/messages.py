"""Every message that two peers exchange, as values and as bytes.

Room: layouts and limits, nothing else. What follows from a message is for
`handshake`, `session` and `joining`. Each is a CBOR array whose first item is its kind;
decoding is total (any bytes give a message or a `ProtocolError`) and strict (a
message has one form only).

    challenge  [0, nonce(32)]                                              who answers, first of all
    proof      [1, version min, version max, nonce(32), mac(32)]           who calls
    identity   [2, version, mac(32), node(32), incarnation(8), epoch, clock ms, signature(64)]
               of who answers; of who calls with the same version and an empty mac
    open       [3, root(32), cursor, position]
    root       [4, root(32), position]
    roots      [5, [[space name, root(32)] …]]
    yours      [6, [[space name, [[author(40), seq, hash prefix(16)]]] …]]
    offer      [7, [[space name, [[author(40), seq, hash prefix(16)] …]] …]]
    want       [8, [[index, after seq] …]]
    window     [9, packed runs]
    ack        [10, windows, credits]
    done       [11, wants]
    ping       [12]
    error      [13, code, text]
    who        [14]                                                        show how you belong to the network
    shown      [15, packed runs of `system`, is last]
    more       [16]
    admission  [17, admit statement, name]
    met        [18]                                                        what was shown is kept: we go on as members
    declined   [19, reason]

A cursor and a position are numbers in an order of arrival: the cursor in the
receiver's (how far the sender has followed it), the position in the sender's own.
Kinds below 24 take one byte, so the first two bytes of a message tell its kind.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

from protocol.commit import DEP_HASH_BYTES
from protocol.encoding import decode_exact, encode
from protocol.errors import InvalidId, Malformed, TooLarge
from protocol.ids import (
    AUTHOR_BYTES,
    INCARNATION_BYTES,
    NODE_ID_BYTES,
    SYSTEM_SPACE_NAME,
    Author,
    NodeId,
    application_space_name,
    check_application_id,
)
from protocol.keys import SIGNATURE_BYTES
from protocol.limits import COMMIT_SIZE_MAX_BYTES, RUN_SKELETON_MAX_BYTES

NONCE_BYTES = 32
MAC_BYTES = 32
ROOT_BYTES = 32
HEADS_MAX = 1_024  # of one offer: 65 kB, answered before the next is sent
SPACES_MAX = 1_024  # that two peers share; applications of one device are a few
EPOCH_SIZE_MAX = 32
ERROR_TEXT_MAX = 200
NODE_NAME_MAX = 64  # characters of what people call a device
ADMIT_SIZE_MAX_BYTES = 320  # an admit statement has 219
VERSION_MAX = (1 << 16) - 1
# A window that carries one commit of the largest size, and what `packing` puts before it.
WINDOW_MESSAGE_MAX_BYTES = COMMIT_SIZE_MAX_BYTES + 2 * RUN_SKELETON_MAX_BYTES + (64 << 10)
_U63 = 1 << 63
_SPACE_BYTES = 80  # of a space name of the largest length with its head
_HEAD_BYTES = 72  # of one head
_APPLICATION_PREFIX = application_space_name("")


class Tip(NamedTuple):
    """The newest commit of a chain, as one peer tells the other."""

    author: Author
    seq: int
    hash_prefix: bytes


class SpaceTips(NamedTuple):
    """Some heads of one space."""

    space: str
    tips: tuple[Tip, ...]


class SpaceRoot(NamedTuple):
    """The root over all heads of one space."""

    space: str
    root: bytes


class Lack(NamedTuple):
    """The `index`-th head of an offer is lacking, after a seq that is here."""

    index: int  # type: ignore[assignment]  # in place of tuple's search
    after_seq: int


@dataclass(frozen=True, slots=True)
class Challenge:
    nonce: bytes


@dataclass(frozen=True, slots=True)
class Proof:
    version_min: int
    version_max: int
    nonce: bytes
    mac: bytes


@dataclass(frozen=True, slots=True)
class Identity:
    version: int
    mac: bytes
    node: NodeId
    incarnation: bytes
    epoch: str
    clock_ms: int
    signature: bytes


@dataclass(frozen=True, slots=True)
class Open:
    """The first message of each side: in sync if both roots are equal."""

    root: bytes
    cursor: int
    position: int


@dataclass(frozen=True, slots=True)
class Root:
    """The sender has nothing under way and stands here."""

    root: bytes
    position: int


@dataclass(frozen=True, slots=True)
class Roots:
    """The roots of the spaces one by one; asks for heads of those that differ."""

    roots: tuple[SpaceRoot, ...]


@dataclass(frozen=True, slots=True)
class Yours:
    """How much the sender holds of the receiver's own chains: one that holds less has lost some."""

    spaces: tuple[SpaceTips, ...]


@dataclass(frozen=True, slots=True)
class Offer:
    """Heads that the receiver may lack. Answered by one `Want`."""

    spaces: tuple[SpaceTips, ...]


@dataclass(frozen=True, slots=True)
class Want:
    """What is lacking of the last offer, by place in it; nothing if it is empty."""

    lacks: tuple[Lack, ...]


@dataclass(frozen=True, slots=True)
class Window:
    data: bytes


@dataclass(frozen=True, slots=True)
class Ack:
    """How many windows have been stored since the session began, and how many more may be under way."""

    windows: int
    credits: int


@dataclass(frozen=True, slots=True)
class Done:
    """All that the first so many wants asked for has been sent."""

    wants: int


@dataclass(frozen=True, slots=True)
class Ping:
    """The sender is alive."""


@dataclass(frozen=True, slots=True)
class Error:
    """The sender ends the conversation. `text` is for logs."""

    code: int
    text: str


@dataclass(frozen=True, slots=True)
class Who:
    """The sender does not know the receiver as a member: it is to show the statements that made it one."""


@dataclass(frozen=True, slots=True)
class Shown:
    """Some commits of `system`, packed as a window; none if `data` is empty."""

    data: bytes
    is_last: bool


@dataclass(frozen=True, slots=True)
class More:
    """What was shown has been read: the next, please."""


@dataclass(frozen=True, slots=True)
class Admission:
    """The statement that admits the sender, to be written down by the receiver; and what people call it."""

    statement: bytes
    name: str


@dataclass(frozen=True, slots=True)
class Met:
    """The receiver is a member by what it has shown, and that is kept here."""


@dataclass(frozen=True, slots=True)
class Declined:
    """The sender ends the conversation, for a reason that a person may be told: see `joining`."""

    reason: int


Message = (
    Challenge
    | Proof
    | Identity
    | Open
    | Root
    | Roots
    | Yours
    | Offer
    | Want
    | Window
    | Ack
    | Done
    | Ping
    | Error
    | Who
    | Shown
    | More
    | Admission
    | Met
    | Declined
)


def encode_message(message: Message) -> bytes:
    """The bytes of one message, to be framed."""
    match message:
        case Challenge(nonce):
            return encode([0, nonce])
        case Proof(low, high, nonce, mac):
            return encode([1, low, high, nonce, mac])
        case Identity(version, mac, node, incarnation, epoch, clock_ms, signature):
            return encode([2, version, mac, node, incarnation, epoch, clock_ms, signature])
        case Open(root, cursor, position):
            return encode([3, root, cursor, position])
        case Root(root, position):
            return encode([4, root, position])
        case Roots(roots):
            return encode([5, roots])
        case Yours(spaces):
            return encode([6, spaces])
        case Offer(spaces):
            return encode([7, spaces])
        case Want(lacks):
            return encode([8, lacks])
        case Window(data):
            return encode([9, data])
        case Ack(windows, credits):
            return encode([10, windows, credits])
        case Done(wants):
            return encode([11, wants])
        case Ping():
            return encode([12])
        case Error(code, text):
            return encode([13, code, text])
        case Who():
            return encode([14])
        case Shown(data, is_last):
            return encode([15, data, is_last])
        case More():
            return encode([16])
        case Admission(statement, name):
            return encode([17, statement, name])
        case Met():
            return encode([18])
        case Declined(reason):
            return encode([19, reason])


def message_size_max(head: bytes) -> int:
    """The limit in bytes of a message that begins so. Raises `Malformed` where none does."""
    if len(head) == 2 and 0x81 <= head[0] <= 0x88 and head[1] < len(_SIZES_MAX_BYTES):
        return _SIZES_MAX_BYTES[head[1]]
    raise Malformed("a message is an array that begins with a known kind")


def decode_message(data: bytes) -> Message:
    """The message in `data`. Raises `Malformed` or `TooLarge`, and nothing else, whatever the bytes."""
    size_max = message_size_max(data[:2])
    if len(data) > size_max:
        raise TooLarge("message in bytes", size=len(data), size_max=size_max)
    items = decode_exact(data)
    if type(items) is not list:
        raise Malformed("a message is an array")
    return _DECODERS[data[1]](items[1:])


# -- reading ------------------------------------------------------------------------------------------


def _items(items: Any, count: int) -> list[Any]:
    if type(items) is not list or len(items) != count:
        raise Malformed(f"a list that has not {count} items")
    return items


def _many(items: Any, count_max: int) -> list[Any]:
    if type(items) is not list:
        raise Malformed("not a list")
    if len(items) > count_max:
        raise TooLarge("items in a message", size=len(items), size_max=count_max)
    return items


def _number(item: Any, end: int = _U63) -> int:
    if type(item) is not int or not 0 <= item < end:
        raise Malformed("a number that is not one, or out of range")
    return item


def _bytes(item: Any, size: int) -> bytes:
    if type(item) is not bytes or len(item) != size:
        raise Malformed(f"bytes that are not {size}")
    return item


def _text(item: Any, size_max: int) -> str:
    if type(item) is not str or len(item) > size_max:
        raise Malformed(f"a text that is none, or longer than {size_max}")
    return item


def check_space_name(item: Any) -> str:
    """`item` if it may name a space; raises `Malformed` otherwise."""
    if item == SYSTEM_SPACE_NAME:
        return SYSTEM_SPACE_NAME
    if type(item) is str and item.startswith(_APPLICATION_PREFIX):
        try:
            check_application_id(item[len(_APPLICATION_PREFIX) :])
        except InvalidId as error:
            raise Malformed("a space of an application with no valid id") from error
        return item
    raise Malformed("not the name of a space")


def _tip(item: Any) -> Tip:
    author, seq, prefix = _items(item, 3)
    number = _number(seq)
    if not number:
        raise Malformed("a head with seq 0")
    return Tip(Author(_bytes(author, AUTHOR_BYTES)), number, _bytes(prefix, DEP_HASH_BYTES))


def _space_tips(item: Any) -> SpaceTips:
    space, tips = _items(item, 2)
    found = tuple(_tip(tip) for tip in _many(tips, HEADS_MAX))
    if not found or any(a.author >= b.author for a, b in pairwise(found)):
        raise Malformed("heads of a space are in the order of authors, one of each")
    return SpaceTips(check_space_name(space), found)


def _spaces(items: Any) -> tuple[SpaceTips, ...]:
    found = tuple(_space_tips(item) for item in _many(items, SPACES_MAX))
    _check_order([space for space, _ in found])
    count = sum(len(space.tips) for space in found)
    if count > HEADS_MAX:
        raise TooLarge("heads in a message", size=count, size_max=HEADS_MAX)
    return found


def _check_order(names: Sequence[str]) -> None:
    if any(a >= b for a, b in pairwise(names)):
        raise Malformed("spaces are in the order of their names, each once")


def _challenge(items: list[Any]) -> Challenge:
    (nonce,) = _items(items, 1)
    return Challenge(_bytes(nonce, NONCE_BYTES))


def _proof(items: list[Any]) -> Proof:
    low, high, nonce, mac = _items(items, 4)
    if _number(low, VERSION_MAX + 1) > _number(high, VERSION_MAX + 1):
        raise Malformed("an empty range of versions")
    return Proof(low, high, _bytes(nonce, NONCE_BYTES), _bytes(mac, MAC_BYTES))


def _identity(items: list[Any]) -> Identity:
    version, mac, node, incarnation, epoch, clock_ms, signature = _items(items, 7)
    if mac != b"":
        _bytes(mac, MAC_BYTES)
    return Identity(
        _number(version, VERSION_MAX + 1), mac, NodeId(_bytes(node, NODE_ID_BYTES)),
        _bytes(incarnation, INCARNATION_BYTES), _text(epoch, EPOCH_SIZE_MAX), _number(clock_ms, 1 << 48),
        _bytes(signature, SIGNATURE_BYTES),
    )  # fmt: skip


def _open(items: list[Any]) -> Open:
    root, cursor, position = _items(items, 3)
    return Open(_bytes(root, ROOT_BYTES), _number(cursor), _number(position))


def _root(items: list[Any]) -> Root:
    root, position = _items(items, 2)
    return Root(_bytes(root, ROOT_BYTES), _number(position))


def _roots(items: list[Any]) -> Roots:
    (listed,) = _items(items, 1)
    pairs = [_items(item, 2) for item in _many(listed, SPACES_MAX)]
    found = tuple(SpaceRoot(check_space_name(space), _bytes(root, ROOT_BYTES)) for space, root in pairs)
    _check_order([space for space, _ in found])
    return Roots(found)


def _yours(items: list[Any]) -> Yours:
    (listed,) = _items(items, 1)
    return Yours(_spaces(listed))


def _offer(items: list[Any]) -> Offer:
    (listed,) = _items(items, 1)
    found = _spaces(listed)
    if not found:
        raise Malformed("an offer of nothing")
    return Offer(found)


def _want(items: list[Any]) -> Want:
    (listed,) = _items(items, 1)
    pairs = [_items(item, 2) for item in _many(listed, HEADS_MAX)]
    found = tuple(Lack(_number(index, HEADS_MAX), _number(after_seq)) for index, after_seq in pairs)
    if any(a.index >= b.index for a, b in pairwise(found)):
        raise Malformed("wants are in the order of the offer, one of each head")
    return Want(found)


def _window(items: list[Any]) -> Window:
    (data,) = _items(items, 1)
    if type(data) is not bytes or not data:
        raise Malformed("a window without bytes")
    return Window(data)


def _ack(items: list[Any]) -> Ack:
    windows, credits = _items(items, 2)
    return Ack(_number(windows), _number(credits, 256))


def _done(items: list[Any]) -> Done:
    (wants,) = _items(items, 1)
    return Done(_number(wants))


def _ping(items: list[Any]) -> Ping:
    _items(items, 0)
    return Ping()


def _who(items: list[Any]) -> Who:
    _items(items, 0)
    return Who()


def _shown(items: list[Any]) -> Shown:
    data, is_last = _items(items, 2)
    if type(data) is not bytes or type(is_last) is not bool or not (data or is_last):
        raise Malformed("shown is bytes, none only at the end, and whether it is the last")
    return Shown(data, is_last)


def _more(items: list[Any]) -> More:
    _items(items, 0)
    return More()


def _admission(items: list[Any]) -> Admission:
    statement, name = _items(items, 2)
    if type(statement) is not bytes or not 0 < len(statement) <= ADMIT_SIZE_MAX_BYTES:
        raise Malformed("an admission without a statement, or with one too long")
    return Admission(statement, _text(name, NODE_NAME_MAX))


def _met(items: list[Any]) -> Met:
    _items(items, 0)
    return Met()


def _declined(items: list[Any]) -> Declined:
    (reason,) = _items(items, 1)
    return Declined(_number(reason, 256))


def _error(items: list[Any]) -> Error:
    code, text = _items(items, 2)
    return Error(_number(code, 256), _text(text, ERROR_TEXT_MAX))


# By kind: how much a message may take, and what reads it.
_KINDS: tuple[tuple[int, Callable[[list[Any]], Message]], ...] = (
    (64, _challenge),
    (128, _proof),
    (320, _identity),
    (64, _open),
    (64, _root),
    (16 + SPACES_MAX * (_SPACE_BYTES + ROOT_BYTES + 8), _roots),
    (16 + SPACES_MAX * (_SPACE_BYTES + 8) + HEADS_MAX * _HEAD_BYTES, _yours),
    (16 + SPACES_MAX * (_SPACE_BYTES + 8) + HEADS_MAX * _HEAD_BYTES, _offer),
    (16 + HEADS_MAX * 16, _want),
    (WINDOW_MESSAGE_MAX_BYTES, _window),
    (32, _ack),
    (16, _done),
    (8, _ping),
    (16 + 4 * ERROR_TEXT_MAX, _error),
    (8, _who),
    (WINDOW_MESSAGE_MAX_BYTES, _shown),
    (8, _more),
    (16 + ADMIT_SIZE_MAX_BYTES + 4 * NODE_NAME_MAX, _admission),
    (8, _met),
    (8, _declined),
)
_SIZES_MAX_BYTES = tuple(size for size, _ in _KINDS)
_DECODERS = tuple(decoder for _, decoder in _KINDS)
