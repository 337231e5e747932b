"""What the fuzzer feeds to decoders and to handshakes.

Room: good bytes for each decoder, and who is told them spoilt. Sessions are in `fuzz_grounds`; `test_fuzz`
says how much of it, and which ways of saying no it has to find.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from random import Random
from typing import Any

from protocol.body import Body, Dot, decode_body
from protocol.commit import decode_header
from protocol.document import Document
from protocol.encoding import decode_strings, encode
from protocol.errors import ProtocolError
from protocol.evidence import Evidence
from protocol.frames import FrameReader
from protocol.handshake import HANDSHAKE_TIMEOUT_MS, Handshake, HandshakeFailed, Local, Peer, Side
from protocol.ids import NetworkId, author_of
from protocol.keys import KeyPair
from protocol.limits import RUN_BODIES_MAX
from protocol.membership import Role
from protocol.messages import (
    decode_message,
    encode_message,
    message_size_max,
)
from protocol.packing import unpack_window
from protocol.statements import (
    decode_genesis,
    decode_statement,
)
from protocol.tickets import (
    _armour,
    _unarmour,
    decode_recovery_code,
    decode_ticket,
    encode_recovery_code,
    encode_ticket,
)
from protocol.window import Run, decode_run
from protocol.yjs_update import decode_update
from tests.protocol import membership_world
from tests.protocol.dialogue import KEYS, NETWORK_KEYS
from tests.protocol.editors import ID, MODEL, Editors, Said
from tests.protocol.fuzz_grounds import STRANGER, Found, Grounds, of_joining, statement_body
from tests.protocol.membership_tables import sample_ticket
from tests.protocol.mutation import spoilt, spoilt_bytes, spoilt_frame

NETWORK = NetworkId(b"n" * 32)

# -- decoders ----------------------------------------------------------------------------------------------


class Decoders:
    """Everything that turns bytes of others into values, with good bytes for each."""

    def __init__(self, found: Found, grounds: "Grounds") -> None:
        self.found = found
        self.editors, self.written = _edited()
        author = KEYS.public + bytes(8)
        frames = [*grounds.said[True], *grounds.said[False], *of_joining(grounds)]
        windows = [grounds.honest, *(f for f in (_window_in(frame[4:]) for frame in frames) if f)]
        runs = [run for window in windows for run in unpack_window(window)]
        commits = [commit for run in runs for commit in run.commits]
        data = [commit for commit in commits if commit.header.space != grounds.victim.store.system]
        bodies = [body for commit in data for body in commit.bodies if body is not None]
        statements = [statement_body(s) for s in _statements()] + [grounds.genesis]
        shared = [
            Body(bytes(16), "ann", MODEL, ID, s.seen, s.operations).encode(author) for s in self.editors.said
        ]
        tickets = [encode_ticket(sample_ticket()), encode_recovery_code(NETWORK_KEYS)]
        self.network_id = grounds.victim.identity.network_id
        self.table: list[tuple[str, list[bytes], Callable[[bytes], object]]] = [
            ("message", [frame[4:] for frame in frames], self._message),
            ("window", windows, unpack_window),
            ("run", [*(run.encode() for run in runs), _long_run(runs[0])], decode_run),
            ("shown", [grounds.founding], self._shown),
            ("header", [commit.header_bytes for commit in commits], decode_header),
            ("statement", statements, decode_statement),
            ("genesis", [grounds.genesis], decode_genesis),
            ("body", bodies + shared, lambda data: decode_body(data, author)),
            ("ticket", [text.encode() for text in tickets], self._ticket),
            ("ticket inside", [_unarmour("civic1", tickets[0], "a ticket")], self._inside_of_a_ticket),
            ("frames", frames, self._frames),
        ]

    def feed_good(self) -> None:
        """What is spoilt was good."""
        for where, samples, decode in self.table:
            for data in samples:
                try:
                    decode(data)
                    self.found.note(where, "good")
                except ProtocolError as fault:
                    assert where == "run" and fault.kind == "too_large", where

    def feed(self, random: Random) -> None:
        where, samples, decode = random.choice(self.table)
        data = spoilt(random, random.choice(samples))
        self.found.tried += 1
        try:
            decode(data)
            self.found.note(where, "good")
        except ProtocolError as fault:
            self.found.note(where, fault.kind)

    def _shown(self, data: bytes) -> None:
        evidence = Evidence(self.network_id)
        evidence.take(data)
        evidence.fold([])

    def _message(self, data: bytes) -> None:
        assert encode_message(decode_message(data)) == data, "a message has one form"

    def _ticket(self, data: bytes) -> None:
        text = data.decode("latin-1")
        try:
            decode_ticket(text)
        except ProtocolError:
            decode_recovery_code(text)

    def _inside_of_a_ticket(self, data: bytes) -> None:
        decode_ticket(_armour("civic1", data))

    def _frames(self, data: bytes) -> None:
        reader = FrameReader(message_size_max)
        for start in range(0, len(data), 7):
            reader.feed(data[start : start + 7])
            while (message := reader.next()) is not None:
                decode_message(message)

    def feed_update(self, random: Random) -> None:
        """One operation on a collaborative field, spoilt, against a document that others have written in."""
        said, before = random.choice(self.written)
        kind, name, n, data = said.operations[0]
        data = _spoilt_update(random, data)
        self.found.tried += 1
        try:
            decode_update(data, name, is_text=kind == 8)
        except ProtocolError as fault:
            self.found.note("update", fault.kind)
            return
        document, author, known = before, said.dot.author, dict(said.known)
        if random.random() < 0.3:  # said by somebody else, or elsewhere, or with another past
            document = random.choice(list(self.editors.documents.values()))
            author = random.choice(self.editors.authors)
            known = {other: random.choice((0, 1, 3, 1 << 40)) for other in self.editors.authors}
        operations = [[kind, name, n, data]]

        def known_of(other: bytes) -> int:
            return known.get(other, 0)

        broken = document.fault_of(author, operations, known_of)
        self.found.note("update", "good" if broken is None else "rule")
        if broken is None:
            changed = document.copy()
            dot = Dot(author, 1_000, 0)
            changed.apply(
                dot, 1 << 40, "ann", (), operations, is_ballast=random.random() < 0.2, known_of=known_of
            )
            changed.values()


def _edited() -> tuple[Editors, list[tuple[Said, Document]]]:
    """Three who edit one document; and what each of them said, with the document as it was before."""
    editors, random = Editors(1, 2, 3), Random(7)
    written: list[tuple[Said, Document]] = []
    for number in range(24):
        who = 1 + number % 3
        text = str(editors.read(who))
        at = random.randint(0, len(text))
        word = random.choice(("word ", "é", "😀"))
        values: list[dict[str, Any]] = [{"body": text[:at] + word + text[at + random.randint(0, 2) :]}]
        if number % 4 == 0:
            values.append({"steps": [number, *editors.read(who, "steps")][:5]})
        for value in values:
            before = editors[who].copy()
            said = editors.write(who, **value)
            assert said is not None
            written.append((said, before))
        if number % 3 == 0:
            editors.meet(random=random)
    return editors, written


def _spoilt_update(random: Random, data: bytes) -> bytes:
    """Mostly one of its small numbers another: clocks, clients, counts and kinds are such."""
    if random.random() < 0.4:
        return spoilt_bytes(random, data)
    out = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 3))):
        at = random.randrange(len(out))
        out[at] = random.choice((0, 1, 2, 4, 8, 0x44, 0x84, 0xC4, 127, out[at] ^ 1, (out[at] + 1) % 256))
    return bytes(out)


def _statements() -> Iterator[Any]:
    yield membership_world.invite("t")
    yield membership_world.admit("t", "ann")
    yield membership_world.grant("ann", Role.READER, frozenset())
    yield membership_world.revoke("ann", membership_world.next_by("ann"))


def _long_run(run: Run) -> bytes:
    """A run with a body more than any may have."""
    skeleton, *_ = decode_strings(run.encode(), count_max=1 + RUN_BODIES_MAX)
    return encode([skeleton, *[b""] * (RUN_BODIES_MAX + 1)])


def _window_in(message: bytes) -> bytes | None:
    return getattr(decode_message(message), "data", None) or None


# -- handshakes --------------------------------------------------------------------------------------------


def local(number: int, network: NetworkId = NETWORK, versions: tuple[int, int] = (1, 1)) -> Local:
    keys = KeyPair.from_seed(bytes([number]) * 32)
    return Local(keys, author_of(keys.public, bytes([number]) * 8), f"epoch{number}", network, versions)


ALICE, BOB = local(1), local(2)
IMPOSTOR = replace(ALICE, keys=STRANGER)
CALLERS = (ALICE, ALICE, ALICE, IMPOSTOR, local(1, NetworkId(b"x" * 32)), local(1, versions=(2, 9)))


def feed_handshake(found: Found, random: Random) -> None:
    """Two machines talk, and in between somebody spoils what he likes. Nobody becomes who he is not."""
    a_local, b_local = (
        random.choice(CALLERS),
        random.choice((BOB, BOB, replace(BOB, keys=STRANGER), local(2, versions=(1, 3)))),
    )
    a = Handshake(
        Side.CALLER, a_local, nonce=random.randbytes(32), fingerprint=bytes(32), clock_ms=1, now_ms=0
    )
    b = Handshake(
        Side.ANSWERER, b_local, nonce=random.randbytes(32), fingerprint=bytes(32), clock_ms=2, now_ms=0
    )
    spoils_at, said = random.randrange(6), list[bytes]()
    for step in range(4):
        ours, other = (b, a) if step % 2 == 0 else (a, b)
        data = ours.take_bytes()
        said.append(data)
        if step == spoils_at and data:
            data = random.choice(
                (spoilt_frame(random, data), spoilt_frame(random, data), random.choice(said) + data)
            )
        found.tried += 1
        events = other.receive(data)
        if not data:
            events += (
                other.receive_eof() if random.random() < 0.5 else other.on_deadline(HANDSHAKE_TIMEOUT_MS)
            )
        for event in events:
            if isinstance(event, HandshakeFailed):
                found.note("handshake", event.kind)
                assert other.take_bytes() == b""
            else:
                assert isinstance(event, Peer)
                real = b_local if other is a else a_local
                assert (event.author, event.epoch) == (real.author, real.epoch) and real.keys is not STRANGER
        assert len(events) <= 1
