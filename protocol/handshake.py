"""Who is at the other end: of our network, and holding the key of the node that it says it is.

Room: one handshake on one TLS connection, as a machine without a socket. Which
nodes may come in is for the caller, who gets a `Peer`; what is said afterwards is
`session`'s. TLS keeps the words secret; this binds them to the channel.

    answerer → caller   challenge: a nonce, nothing else
    caller → answerer   proof: its versions, a nonce, and a MAC that only who knows the network can make
    answerer → caller   identity: the version, its own MAC, node, incarnation, epoch, clock, signature
    caller → answerer   identity: node, incarnation, epoch, clock, signature

    key         SHA-256("civicnode link key 1\\0" + network id)
    transcript  SHA-256 of the CBOR array [fingerprint, then every field said so far but the MACs, in order]
    mac         HMAC-SHA-256(key, side + transcript)
    signature   Ed25519 over "civicnode link 1\\0" + side + transcript, side being "caller" or "answerer"

A stranger gets a random nonce and then silence: who answers says nothing of
itself before the caller's proof. The fingerprint of the answerer's certificate
is in the transcript, so words passed on by someone in between fit no channel but
the first. A nonce of each side makes a recorded handshake worthless.
"""

import hmac
from dataclasses import dataclass, field
from enum import Enum
from hashlib import sha256

from protocol.encoding import encode
from protocol.errors import LocalMisuse, ProtocolError
from protocol.frames import FrameReader, to_frames
from protocol.ids import NODE_ID_BYTES, Author, NetworkId, NodeId, author_of
from protocol.keys import KeyPair, verify
from protocol.messages import (
    NONCE_BYTES,
    Challenge,
    Identity,
    Message,
    Proof,
    decode_message,
    encode_message,
    message_size_max,
)

VERSION_MIN = 1
VERSION_MAX = 1
HANDSHAKE_TIMEOUT_MS = 10_000  # two round trips and two signatures; a slow link takes a tenth of it
MESSAGE_SIZE_MAX_BYTES = 320  # the largest message of a handshake
_KEY_DOMAIN = b"civicnode link key 1\0"
_LINK_DOMAIN = b"civicnode link 1\0"


class Side(Enum):
    """Who opened the connection, and who answered it."""

    CALLER = b"caller"
    ANSWERER = b"answerer"


@dataclass(frozen=True, slots=True)
class Local:
    """What this node says of itself."""

    keys: KeyPair
    author: Author
    epoch: str
    network_id: NetworkId
    versions: tuple[int, int] = (VERSION_MIN, VERSION_MAX)


@dataclass(frozen=True, slots=True)
class Peer:
    """The event of a handshake that is done: who is there. Nothing is known of its rights yet."""

    author: Author
    epoch: str
    clock_ms: int
    version: int

    @property
    def node(self) -> NodeId:
        return NodeId(self.author[:NODE_ID_BYTES])


@dataclass(frozen=True, slots=True)
class HandshakeFailed:
    """The event of a handshake that will not be: close the connection, without a word to the peer.

    `kind` is one of a few words, to be counted by.
    """

    reason: str
    kind: str = field(default="handshake", compare=False)


class _Stranger(ProtocolError):
    """The peer does not know our network."""


class _OtherVersion(ProtocolError):
    """There is no version that both speak."""


class _FalseIdentity(ProtocolError):
    """The peer is not who it says it is."""


class _Unexpected(ProtocolError):
    """A message that does not belong here."""


class Handshake:
    """One side of one handshake. `nonce` is random and used once; `fingerprint` is the SHA-256 of the
    answerer's certificate, as each side sees it."""

    def __init__(
        self, side: Side, local: Local, *, nonce: bytes, fingerprint: bytes, clock_ms: int, now_ms: int
    ) -> None:
        """`now_ms` is of any steady clock; `clock_ms` is the wall clock, told to the peer."""
        if len(nonce) != NONCE_BYTES or len(fingerprint) != 32 or not 0 <= clock_ms < 1 << 48:
            raise LocalMisuse("a nonce and a fingerprint have 32 bytes, and a clock 48 bits")
        self._side = side
        self._local = local
        self._nonce = nonce
        self._clock_ms = clock_ms
        self._key = sha256(_KEY_DOMAIN + local.network_id).digest()
        self._said: list[object] = [fingerprint]
        self._expected: type[Message] | None = Challenge if side is Side.CALLER else Proof
        self._version = 0
        self._outbox = bytearray()
        self._frames = FrameReader(_size_max)
        self.deadline_ms: int | None = now_ms + HANDSHAKE_TIMEOUT_MS
        if side is Side.ANSWERER:
            self._said.append(nonce)
            self._send(Challenge(nonce))

    @property
    def is_over(self) -> bool:
        return self._expected is None

    def take_bytes(self) -> bytes:
        """What should now go to the peer, once."""
        taken = bytes(self._outbox)
        self._outbox.clear()
        return taken

    def rest(self) -> bytes:
        """After `Peer`: what was received beyond the handshake, for the machine that goes on."""
        return self._frames.rest()

    def receive(self, data: bytes) -> list[Peer | HandshakeFailed]:
        """Take bytes from the peer. At most one event, the last; later input is kept for `rest`."""
        self._frames.feed(data)
        try:
            while not self.is_over and (message := self._frames.next()) is not None:
                peer = self._handle(decode_message(message))
                if peer is not None:
                    self._close()
                    return [peer]
        except ProtocolError as fault:
            return self._fail(str(fault), fault.kind)
        return []

    def receive_eof(self) -> list[Peer | HandshakeFailed]:
        return [] if self.is_over else self._fail("the peer has closed the connection", "gone")

    def on_deadline(self, now_ms: int) -> list[Peer | HandshakeFailed]:
        if self.deadline_ms is None or now_ms < self.deadline_ms:
            return []
        return self._fail("the peer was too slow", "slow")

    def _fail(self, reason: str, kind: str) -> list[Peer | HandshakeFailed]:
        self._close()
        self._outbox.clear()
        return [HandshakeFailed(reason, kind)]

    def _close(self) -> None:
        self._expected, self.deadline_ms = None, None

    def _send(self, message: Message) -> None:
        self._outbox += to_frames(encode_message(message))

    def _handle(self, message: Message) -> Peer | None:
        if type(message) is not self._expected:
            raise _Unexpected(f"an unexpected {type(message).__name__}")
        match message:
            case Challenge(nonce):
                self._said.append(nonce)
                self._prove()
            case Proof():
                self._check_proof(message)
                self._introduce(Side.ANSWERER)
                self._expected = Identity
            case Identity():
                peer = self._check_identity(message)
                if self._side is Side.CALLER:
                    self._introduce(Side.CALLER)
                return peer
        return None

    # -- the first proof -----------------------------------------------------------------------------------

    def _prove(self) -> None:
        low, high = self._local.versions
        self._said += [low, high, self._nonce]
        self._send(Proof(low, high, self._nonce, self._mac(Side.CALLER)))
        self._expected = Identity

    def _check_proof(self, proof: Proof) -> None:
        self._said += [proof.version_min, proof.version_max, proof.nonce]
        if not hmac.compare_digest(proof.mac, self._mac(Side.CALLER)):
            raise _Stranger("the caller does not know this network")
        low, high = self._local.versions
        self._version = min(high, proof.version_max)
        if self._version < max(low, proof.version_min):
            told = f"{proof.version_min} to {proof.version_max}"
            raise _OtherVersion(f"versions {told}, this node speaks {low} to {high}")

    # -- who is there --------------------------------------------------------------------------------------

    def _introduce(self, side: Side) -> None:
        local, author = self._local, self._local.author
        node, incarnation = NodeId(author[:NODE_ID_BYTES]), author[NODE_ID_BYTES:]
        mac = self._mac(side) if side is Side.ANSWERER else b""
        self._said += [self._version, node, incarnation, local.epoch, self._clock_ms]
        signature = local.keys.sign(self._signed(side))
        self._said.append(signature)
        self._send(Identity(self._version, mac, node, incarnation, local.epoch, self._clock_ms, signature))

    def _check_identity(self, told: Identity) -> Peer:
        side = Side.ANSWERER if self._side is Side.CALLER else Side.CALLER
        expected = self._mac(side) if side is Side.ANSWERER else b""
        if not hmac.compare_digest(told.mac, expected):
            raise _Stranger("the answerer does not know this network")
        if self._side is Side.CALLER:
            low, high = self._local.versions
            if not low <= told.version <= high:
                raise _OtherVersion(f"version {told.version} was not offered")
            self._version = told.version
        elif told.version != self._version:
            raise _OtherVersion("another version than was agreed")
        self._said += [told.version, told.node, told.incarnation, told.epoch, told.clock_ms]
        if not verify(told.node, self._signed(side), told.signature):
            raise _FalseIdentity("the peer does not hold the key of the node that it says it is")
        self._said.append(told.signature)
        return Peer(author_of(told.node, told.incarnation), told.epoch, told.clock_ms, self._version)

    def _transcript(self) -> bytes:
        return sha256(encode(self._said)).digest()

    def _mac(self, side: Side) -> bytes:
        return hmac.digest(self._key, side.value + b"\0" + self._transcript(), "sha256")

    def _signed(self, side: Side) -> bytes:
        return _LINK_DOMAIN + side.value + b"\0" + self._transcript()


def _size_max(head: bytes) -> int:
    return min(message_size_max(head), MESSAGE_SIZE_MAX_BYTES)
