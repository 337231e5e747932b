"""TLS on links: 1.3 alone, a new certificate each time, and both sides see the same one."""

import os
import ssl
from pathlib import Path

import pytest

from node.net.tls import answering_context, calling_context, fingerprint_of


def shake(caller: ssl.SSLContext, answerer: ssl.SSLContext) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """A TLS handshake in memory."""
    to_answerer, to_caller = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = caller.wrap_bio(to_caller, to_answerer, server_side=False)
    two = answerer.wrap_bio(to_answerer, to_caller, server_side=True)
    done: set[ssl.SSLObject] = set()
    for _ in range(10):
        for side in (one, two):
            if side not in done:
                try:
                    side.do_handshake()
                    done.add(side)
                except ssl.SSLWantReadError:
                    pass
        if len(done) == 2:
            return one, two
    raise AssertionError("no end")


def test_both_sides_know_the_same_certificate(tmp_path: Path) -> None:
    answering, fingerprint = answering_context(tmp_path, os.urandom)
    caller, answerer = shake(calling_context(), answering)
    certificate = caller.getpeercert(binary_form=True)
    assert certificate is not None
    assert fingerprint_of(certificate) == fingerprint
    assert caller.version() == answerer.version() == "TLSv1.3"
    assert answerer.getpeercert(binary_form=True) is None  # who calls shows none


def test_nothing_but_tls_1_3_is_spoken(tmp_path: Path) -> None:
    answering, _ = answering_context(tmp_path, os.urandom)
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        shake(old, answering)


def test_each_start_has_a_certificate_of_its_own_that_names_nobody(tmp_path: Path) -> None:
    from cryptography import x509

    certificates = []
    for _ in range(2):
        answering, _ = answering_context(tmp_path, os.urandom)
        caller, _ = shake(calling_context(), answering)
        data = caller.getpeercert(binary_form=True)
        assert data is not None
        certificates.append(x509.load_der_x509_certificate(data))
    one, two = certificates
    assert one.serial_number != two.serial_number
    assert one.public_key() != two.public_key()
    assert one.subject == two.subject == one.issuer
    assert one.not_valid_before_utc == two.not_valid_before_utc  # no clock is told
    assert len(list(one.extensions)) == 0


def test_the_key_is_nowhere_on_the_disk_afterwards(tmp_path: Path) -> None:
    answering_context(tmp_path, os.urandom)
    assert list(tmp_path.iterdir()) == []
