"""Makes `protocol/link_vectors.json` from fixed seeds: `python -m tests.protocol.make_link_vectors`.

Room: one example of everything that LINKS.md describes, as values. Nothing is random, so that making it again
gives the same file; the test beside it does so.
"""

from collections.abc import Callable
from dataclasses import fields
from hashlib import sha256
from pathlib import Path
from typing import Any

from protocol.beacon import Beacon
from protocol.encoding import encode
from protocol.frames import PAYLOAD_SIZE_MAX_BYTES, FrameReader, to_frames
from protocol.handshake import Handshake, Local, Side
from protocol.ids import Author, NetworkId, NodeId, author_of, space_id
from protocol.keys import KeyPair
from protocol.messages import (
    Ack,
    Admission,
    Challenge,
    Declined,
    Done,
    Error,
    Identity,
    Lack,
    Message,
    Met,
    More,
    Offer,
    Open,
    Ping,
    Proof,
    Root,
    Roots,
    Shown,
    SpaceRoot,
    SpaceTips,
    Tip,
    Want,
    Who,
    Window,
    Yours,
    decode_message,
    encode_message,
    message_size_max,
)
from protocol.packing import pack_window, unpack
from protocol.roots import HeadTree, root_over
from protocol.tickets import encode_ticket
from protocol.window import encode_window
from tests.protocol.dialogue import Record
from tests.protocol.meetings import invite, join, network
from tests.protocol.vector_text import Case, is_refused, plain, text_of

PATH = Path(__file__).parents[2] / "protocol" / "link_vectors.json"
NETWORK = NetworkId(sha256(b"a network").digest())
ANN, BOB = Author(b"a" * 40), Author(b"b" * 40)


def vectors() -> dict[str, list[Case]]:
    """All sections, as they stand in the file."""
    sections: dict[str, Callable[[], list[Case]]] = {
        "messages": _messages,
        "frames": _frames,
        "handshakes": _handshakes,
        "packed": _packed,
        "roots": _roots,
        "joining": _joining,
        "beacons": _beacons,
    }
    return {name: make() for name, make in sections.items()}


def as_text() -> str:
    return text_of(vectors())


def fields_of(message: Message) -> list[Any]:
    """What a message says, in the order of its layout."""
    return [plain(getattr(message, field.name)) for field in fields(message)]


def _messages() -> list[Case]:
    tip, later = Tip(ANN, 7, b"p" * 16), Tip(BOB, 2**63 - 1, b"q" * 16)
    said: list[Message] = [
        Challenge(b"n" * 32),
        Proof(1, 1, b"m" * 32, b"h" * 32),
        Identity(1, b"h" * 32, NodeId(b"k" * 32), b"i" * 8, "epoch", 1_700_000_000_000, b"s" * 64),
        Identity(1, b"", NodeId(b"k" * 32), b"i" * 8, "", 0, b"s" * 64),
        Open(b"r" * 32, 0, 24),
        Root(b"r" * 32, 2**63 - 1),
        Roots((SpaceRoot("app/default", b"r" * 32), SpaceRoot("system", b"t" * 32))),
        Roots(()),
        Yours((SpaceTips("app/default", (tip,)),)),
        Yours(()),
        Offer((SpaceTips("app/default", (tip, later)), SpaceTips("system", (tip,)))),
        Want((Lack(0, 0), Lack(1_023, 300))),
        Want(()),
        Window(b"w"),
        Ack(3, 2),
        Done(1),
        Ping(),
        Error(1, "frame of 2097152 bytes, limit 1048576"),
        Error(0, ""),
        Who(),
        Shown(b"w", False),
        Shown(b"", True),
        More(),
        Admission(b"statement", "laptop"),
        Met(),
        Declined(2),
    ]
    cases: list[Case] = []
    for message in said:
        data = encode_message(message)
        assert decode_message(data) == message
        cases.append({"bytes": data, "kind": data[1], "fields": fields_of(message)})
    odd: dict[str, Any] = {
        "a kind that there is not": [24],
        "one field too few": [10, 1],
        "one field too many": [12, 0],
        "a number that is negative": [11, -1],
        "true for a number": [11, True],
        "a nonce of 31 bytes": [0, b"n" * 31],
        "an empty offer": [7, []],
        "a space without heads": [7, [["system", []]]],
        "heads out of order": [7, [["system", [list(later), list(tip)]]]],
        "spaces out of order": [5, [["system", b"r" * 32], ["app/a", b"r" * 32]]],
        "a space twice": [5, [["system", b"r" * 32], ["system", b"r" * 32]]],
        "a name that no space has": [5, [["users", b"r" * 32]]],
        "a head with seq 0": [6, [["system", [[ANN, 0, b"p" * 16]]]]],
        "an index twice": [8, [[1, 0], [1, 0]]],
        "versions the wrong way round": [1, 2, 1, b"m" * 32, b"h" * 32],
        "a window of nothing": [9, b""],
        "a text of 201 characters": [13, 0, "x" * 201],
        "credits of 256": [10, 0, 256],
    }
    encoded = {what: encode(value) for what, value in odd.items()}
    encoded["a number in a longer form"] = b"\x82\x0b\x18\x01"
    encoded["bytes after the message"] = b"\x81\x0c\x00"
    encoded["nothing"] = b""
    for what, data in encoded.items():
        assert is_refused(decode_message, data), what
        cases.append({"bytes": data, "malformed": what})
    return cases


def _frames() -> list[Case]:
    long = encode_message(Window(b"w" * (PAYLOAD_SIZE_MAX_BYTES + 10)))
    cases: list[Case] = [
        {"messages": [message], "bytes": to_frames(message)}
        for message in (encode_message(Ping()), encode_message(Ack(3, 2)))
    ]
    both = [encode_message(Ping()), encode_message(Done(1))]
    cases.append({"messages": both, "bytes": b"".join(map(to_frames, both))})
    framed = to_frames(long)
    second = 4 + PAYLOAD_SIZE_MAX_BYTES
    cases.append(
        {
            "message_sha256": sha256(long).digest(),
            "message_size": len(long),
            "first_header": framed[:4],
            "second_header": framed[second : second + 4],
            "sha256": sha256(framed).digest(),
        }
    )
    for what, data in (
        ("an empty frame", bytes(4)),
        ("a frame above 1 MiB", (PAYLOAD_SIZE_MAX_BYTES + 1).to_bytes(4, "big")),
        ("more to follow, and not full", (1 << 31 | 2).to_bytes(4, "big") + b"\x81\x0c"),
        ("a ping that is too long", (9).to_bytes(4, "big") + b"\x81\x0c"),
        ("a kind that there is not", (2).to_bytes(4, "big") + b"\x81\x18"),
    ):
        reader = FrameReader(message_size_max)
        reader.feed(data)
        assert is_refused(reader.next), what
        cases.append({"bytes": data, "refused": what})
    return cases


def _handshakes() -> list[Case]:
    caller_keys, answerer_keys = KeyPair.from_seed(b"1" * 32), KeyPair.from_seed(b"2" * 32)
    fingerprint = sha256(b"a certificate").digest()
    case: Case = {"network_id": NETWORK, "fingerprint": fingerprint}
    machines = []
    for side, keys, nonce, clock_ms in (
        (Side.CALLER, caller_keys, b"c" * 32, 1_700_000_000_000),
        (Side.ANSWERER, answerer_keys, b"d" * 32, 1_700_000_000_123),
    ):
        incarnation, epoch = side.value[:1] * 8, side.value.decode()[:4]
        local = Local(keys, author_of(keys.public, incarnation), epoch, NETWORK)
        machines.append(
            Handshake(side, local, nonce=nonce, fingerprint=fingerprint, clock_ms=clock_ms, now_ms=0)
        )
        case[side.value.decode()] = {
            "seed": keys.seed,
            "incarnation": incarnation,
            "epoch": epoch,
            "clock_ms": clock_ms,
            "nonce": nonce,
        }
    caller, answerer = machines
    said: list[Case] = []
    for _ in range(2):
        for name, speaker, hearer in (("answerer", answerer, caller), ("caller", caller, answerer)):
            data = speaker.take_bytes()
            said.append({"by": name, "bytes": data})
            hearer.receive(data)
    assert caller.is_over and answerer.is_over
    return [{**case, "said": said}]


def _packed() -> list[Case]:
    record = Record("packed")
    for number in range(12):
        record.put(f"d{number}", title="the same title again and again \u00ff", rank=number)
    chain = record.store.names.chain(record.store.space("default"), record.author)
    assert chain is not None
    with record.store.read() as snapshot:
        commits = tuple(snapshot.log.commits(chain))
    from protocol.window import Run

    runs = [Run(commits)]
    window, packed = encode_window(runs), pack_window(runs)
    assert unpack(packed) == window and len(packed) < len(window)
    cases: list[Case] = [{"window": window, "bytes": packed}]
    small = encode_window([Run(commits[:1])]) if commits[0].signature else b"\x80"
    cases.append({"window": small, "bytes": encode([small])})
    by_hand = encode(
        [b"\xff\x01and\xff\x80and\xff\x00", b"\x63one", *[b"\x61" + bytes([n]) for n in range(63)]]
    )
    cases.append({"window": unpack(by_hand), "bytes": by_hand})
    for what, value in (
        ("no data", []),
        ("a mark at the end", [b"x\xff", b"\x61a"]),
        ("a code without a string", [b"x\xff\x02", b"\x61a"]),
        ("a code that is none", [b"x\xff\x40", b"\x61a"]),
        ("a string of 257 bytes", [b"x", b"y" * 257]),
        ("text for bytes", ["x"]),
    ):
        data = encode(value)
        assert is_refused(unpack, data), what
        cases.append({"bytes": data, "malformed": what})
    return cases


def _roots() -> list[Case]:
    def heads(count: int) -> list[tuple[Author, int, bytes]]:
        return [
            (Author(sha256(b"author %d" % n).digest() + bytes(8)), n + 1, sha256(b"head %d" % n).digest())
            for n in range(count)
        ]

    cases: list[Case] = [
        {"heads": [list(head) for head in heads(count)], "root": HeadTree(heads(count)).root}
        for count in (0, 1, 2, 16, 17, 40)
    ]
    spaces: dict[bytes, bytes] = {
        space_id(NETWORK, name): HeadTree(heads(count)).root
        for name, count in (("system", 1), ("app/default", 17), ("app/empty", 0))
    }
    told = [[space, root] for space, root in spaces.items()]
    cases.append({"spaces": told, "root": root_over(spaces)})
    return cases


def _joining() -> list[Case]:
    """A founder lets a device in: everything that both say after their handshake."""
    _, (ann,) = network()
    ticket, keys = invite(ann), KeyPair.from_seed(sha256(b"a joiner").digest())
    caller, answerer = join(ticket, keys, ann)
    said = sorted(
        [("joiner", place, data) for place, data in zip((0, 2, 4), caller.sent, strict=True)]
        + [("answerer", place, data) for place, data in zip((1, 3), answerer.sent, strict=True)],
        key=lambda item: item[1],
    )
    return [
        {
            "network_id": ann.identity.network_id,
            "ticket": encode_ticket(ticket),
            "ticket_seed": ticket.keys.seed,
            "joiner_seed": keys.seed,
            "answerer": ann.node_keys.public,
            "salt": bytes(16),
            "name": "laptop",
            "said": [{"by": by, "bytes": data} for by, _, data in said],
        }
    ]


def _beacons() -> list[Case]:
    return [
        {"network_id": NETWORK, "name": name, "hour": hour, "tag": Beacon(NETWORK).tag(name, hour)}
        for name, hour in ((b"nameless", 472_222), (bytes(8), 0), (b"nameless", 472_223))
    ]


if __name__ == "__main__":
    PATH.write_text(as_text(), encoding="ascii")
