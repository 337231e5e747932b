"""Ed25519 signatures under one acceptance rule: libsodium's.

Room: sign and verify. Seeds are drawn elsewhere. libsodium up to 1.0.22 refuses
points of small order, non-canonical points and scalars, and checks the equation
without the cofactor; a second implementation must accept exactly that set (SPEC,
"Signatures"). Its development branch multiplies by the cofactor, which accepts
more: the test vectors fail if a release comes that does.
"""

from dataclasses import dataclass, field

from nacl.bindings import crypto_sign, crypto_sign_open, crypto_sign_seed_keypair

from protocol.ids import NodeId

SEED_BYTES = 32
SIGNATURE_BYTES = 64


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A signing key. `public` is a node id (or the network key); `secret` never leaves the process."""

    public: NodeId
    secret: bytes = field(repr=False)

    @classmethod
    def from_seed(cls, seed: bytes) -> "KeyPair":
        public, secret = crypto_sign_seed_keypair(seed)
        return cls(NodeId(public), secret)

    @property
    def seed(self) -> bytes:
        return self.secret[:SEED_BYTES]

    def sign(self, message: bytes) -> bytes:
        """The 64-byte signature over `message`, which starts with the domain of its kind."""
        return crypto_sign(message, self.secret)[:SIGNATURE_BYTES]


def verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether `signature` over `message` verifies under `public`. About 40 µs; releases the GIL."""
    if len(public) != 32 or len(signature) != SIGNATURE_BYTES:
        return False
    try:
        crypto_sign_open(signature + message, public)
    except Exception:  # the binding raises its own error for every way of being wrong
        return False
    return True
