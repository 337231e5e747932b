"""LINKS.md and its vectors against the code: byte for byte, and number by number."""

import json
import re
from typing import Any

import pytest

from protocol import (
    beacon,
    conversation,
    evidence,
    frames,
    handshake,
    meeting,
    messages,
    outgoing,
    packing,
    roots,
    session,
)
from protocol.beacon import Beacon
from protocol.errors import ProtocolError
from protocol.frames import FrameReader, to_frames
from protocol.handshake import Handshake, Local, Peer, Side
from protocol.ids import Author, NetworkId, NodeId, author_of
from protocol.joining import Joiner
from protocol.keys import KeyPair
from protocol.meeting import Joined, ReadShown
from protocol.membership import Rights, Role
from protocol.messages import decode_message, encode_message, message_size_max
from protocol.packing import unpack
from protocol.roots import HeadTree, root_over
from protocol.tickets import decode_ticket
from tests.protocol.make_link_vectors import PATH, as_text, fields_of

SPEC = (PATH.parent / "LINKS.md").read_text(encoding="utf-8")
VECTORS: dict[str, list[Any]] = json.loads(PATH.read_text(encoding="ascii"))
Case = dict[str, Any]


def raw(text: str) -> bytes:
    return bytes.fromhex(text)


def cases(section: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "case", VECTORS[section], ids=lambda case: case.get("malformed") or case.get("refused")
    )


def test_the_vectors_are_made_again_byte_for_byte() -> None:
    assert as_text() == PATH.read_text(encoding="ascii")


def test_every_kind_of_message_has_a_vector_and_a_row() -> None:
    kinds = {case["kind"] for case in VECTORS["messages"] if "kind" in case}
    rows = re.findall(r"^\| (\d+) \| \w+ \| `\[\1[^`]*\]` \| ([\d,]+) \|$", SPEC, re.MULTILINE)
    limits = {int(kind): int(limit.replace(",", "")) for kind, limit in rows}
    for kind in kinds:
        assert limits[kind] == message_size_max(bytes([0x81, kind]))
    assert set(range(14)) <= kinds <= limits.keys()


@cases("messages")
def test_messages(case: Case) -> None:
    data = raw(case["bytes"])
    if "malformed" in case:
        with pytest.raises(ProtocolError):
            decode_message(data)
        return
    message = decode_message(data)
    assert encode_message(message) == data
    assert (data[1], json.loads(json.dumps(fields_of(message)))) == (case["kind"], case["fields"])


@cases("frames")
def test_frames(case: Case) -> None:
    if "bytes" not in case:
        assert case["message_size"] > frames.PAYLOAD_SIZE_MAX_BYTES
        assert int(case["first_header"], 16) == 1 << 31 | frames.PAYLOAD_SIZE_MAX_BYTES
        return
    reader = FrameReader(message_size_max)
    reader.feed(raw(case["bytes"]))
    if "refused" in case:
        with pytest.raises(ProtocolError):
            reader.next()
        return
    assert [reader.next() for _ in case["messages"]] == [raw(message) for message in case["messages"]]
    assert reader.next() is None
    assert b"".join(to_frames(raw(message)) for message in case["messages"]) == raw(case["bytes"])


@cases("handshakes")
def test_handshakes(case: Case) -> None:
    machines = {}
    for side in Side:
        name = side.value.decode()
        told = case[name]
        keys = KeyPair.from_seed(raw(told["seed"]))
        author = author_of(keys.public, raw(told["incarnation"]))
        local = Local(keys, author, told["epoch"], NetworkId(raw(case["network_id"])))
        machines[name] = Handshake(
            side,
            local,
            nonce=raw(told["nonce"]),
            fingerprint=raw(case["fingerprint"]),
            clock_ms=told["clock_ms"],
            now_ms=0,
        )
    known: list[Any] = []
    for said in case["said"]:
        other = "caller" if said["by"] == "answerer" else "answerer"
        assert machines[said["by"]].take_bytes() == raw(said["bytes"])
        known += machines[other].receive(raw(said["bytes"]))
    assert [type(peer) for peer in known] == [Peer, Peer]
    assert {peer.clock_ms for peer in known} == {case["caller"]["clock_ms"], case["answerer"]["clock_ms"]}


@cases("packed")
def test_packed_windows(case: Case) -> None:
    if "malformed" in case:
        with pytest.raises(ProtocolError):
            unpack(raw(case["bytes"]))
    else:
        assert unpack(raw(case["bytes"])) == raw(case["window"])


@cases("roots")
def test_roots(case: Case) -> None:
    if "spaces" in case:
        assert root_over({raw(space): raw(root) for space, root in case["spaces"]}).hex() == case["root"]
        return
    heads = [(Author(raw(author)), seq, raw(digest)) for author, seq, digest in case["heads"]]
    for order in (heads, heads[::-1]):
        assert HeadTree(order).root.hex() == case["root"]


@cases("joining")
def test_joining(case: Case) -> None:
    """Each side is played against the recorded other."""
    ticket = decode_ticket(case["ticket"])
    assert ticket.keys.seed == raw(case["ticket_seed"])
    keys = KeyPair.from_seed(raw(case["joiner_seed"]))
    joiner = Joiner(
        ticket=ticket, network_id=NetworkId(raw(case["network_id"])), keys=keys, peer=NodeId(raw(case["answerer"])),
        name=case["name"], salt=raw(case["salt"]), now_ms=0,
    )  # fmt: skip
    events = joiner.begin(0)
    for said in case["said"]:
        if said["by"] == "joiner":
            assert joiner.take_bytes() == raw(said["bytes"])
        else:
            events = joiner.receive(raw(said["bytes"]), 0)
            (effect,) = events
            assert isinstance(effect, ReadShown)
            events = joiner.send(effect.perform(), 0)
    (joined,) = events
    assert isinstance(joined, Joined) and joined.rights == Rights(Role.MEMBER)


@cases("beacons")
def test_beacons(case: Case) -> None:
    made = Beacon(NetworkId(raw(case["network_id"]))).tag(raw(case["name"]), case["hour"])
    assert made.hex() == case["tag"]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("at most 1 MiB ({:,} bytes)", frames.FRAME_SIZE_MAX_BYTES),
        ("more than 10 s\n  ({:,} ms)", handshake.HANDSHAKE_TIMEOUT_MS),
        ("At most {} characters", messages.EPOCH_SIZE_MAX),
        ("each once, at most {:,}; heads", messages.SPACES_MAX),
        ("at most {:,} heads in a message", messages.HEADS_MAX),
        ("at most {} characters. A window", messages.ERROR_TEXT_MAX),
        ("and at most {} more", packing.STRINGS_MAX),
        ("A string has at most {} bytes", packing.STRING_SIZE_MAX_BYTES),
        ("most {:,} marks", packing.MARKS_MAX),
        ("the window has at most {:,} bytes", packing.UNPACKED_SIZE_MAX_BYTES),
        ("at most {} heads below it", roots.LEAF_HEADS_MAX),
        ("credits are under way: {} until", outgoing.CREDITS),
        ("After {} comparisons", session.ROUNDS_MAX),
        ("waits a minute ({:,} ms)", session.ROUND_AGAIN_MS),
        ("once a second ({:,} ms)", session.ROOT_EVERY_MS),
        ("after 10 s ({:,} ms)", session.PING_EVERY_MS),
        ("after 30 s ({:,} ms)", session.IDLE_AFTER_MS),
        ("{} before and after", beacon.HOURS_APART_MAX),
        ("this is {}.", handshake.VERSION_MAX),
        ("at most 64 MiB ({:,} bytes)", evidence.SHOWN_SIZE_MAX_BYTES),
        ("and {:,} commits; one", evidence.SHOWN_COMMITS_MAX),
        ("30 s\n({:,} ms) without a word", meeting.IDLE_AFTER_MS),
        ("10 minutes ({:,} ms)", meeting.WHOLE_TIMEOUT_MS),
        ("has 1 to {} bytes, a name", messages.ADMIT_SIZE_MAX_BYTES),
        ("a name at most\n{} characters; a reason", messages.NODE_NAME_MAX),
    ],
)
def test_the_numbers_in_the_specification_are_those_of_the_code(text: str, number: int) -> None:
    assert text.format(number) in SPEC


def test_what_a_conversation_remembers_is_larger_than_one_offer() -> None:
    assert conversation.REMEMBERED_MAX >= messages.HEADS_MAX
