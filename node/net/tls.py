"""TLS 1.3 for links: a certificate that lives as long as the process, and the fingerprint that binds a handshake.

Room: the two TLS contexts. The certificate proves nothing and names nobody: who is at the other end is proved
inside, by `protocol.handshake`, over the fingerprint of the answerer's certificate. So it is made anew from a
throw-away key at each start, says the same in every node but for its key and number, and a stranger who
connects learns nothing lasting from it.
"""

import os
import ssl
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

_NAME = "civicnode"  # the same in every node: it tells a stranger no more than the port does
_SERIAL_BYTES = 16
# No clock goes into it: one that is wrong must not keep two nodes apart, and none should be told.
_NOT_BEFORE = datetime(2000, 1, 1, tzinfo=UTC)
_NOT_AFTER = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)  # RFC 5280, section 4.1.2.5: no end


def answering_context(directory: Path, random_bytes: Callable[[int], bytes]) -> tuple[ssl.SSLContext, bytes]:
    """The context of who answers, with a new certificate, and the certificate's fingerprint.

    Takes about 40 ms the first time, most of it loading the library, so keep it off the loop. `directory` holds
    the throw-away key for a moment, for its owner's eyes alone, since `ssl` takes keys from files only.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, _NAME)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(int.from_bytes(random_bytes(_SERIAL_BYTES), "big") | 1)
        .not_valid_before(_NOT_BEFORE)
        .not_valid_after(_NOT_AFTER)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ) + certificate.public_bytes(serialization.Encoding.PEM)
    context = _context(ssl.PROTOCOL_TLS_SERVER)
    context.num_tickets = 0  # every link proves itself anew, so nothing of an old one is worth keeping
    descriptor, path = tempfile.mkstemp(dir=directory, prefix=".link-")  # made with mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
        context.load_cert_chain(path)
    finally:
        os.unlink(path)
    return context, fingerprint_of(certificate.public_bytes(serialization.Encoding.DER))


def calling_context() -> ssl.SSLContext:
    """The context of who calls. It takes any certificate: the handshake inside looks at which it was."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def fingerprint_of(certificate: bytes) -> bytes:
    """SHA-256 over a certificate as it was sent (DER)."""
    return sha256(certificate).digest()


def _context(purpose: int) -> ssl.SSLContext:
    context = ssl.SSLContext(purpose)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
    return context
