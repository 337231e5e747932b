import re
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.services.totp import (
    is_totp,
    matching_step,
    normalised,
    provisioning_uri,
    recovery_code,
    recovery_hash,
    secret_text,
    totp_code,
)

SECRET = secret_text(b"12345678901234567890")


# RFC 6238, appendix B, the last six of its eight digits.
@pytest.mark.parametrize(
    ("now_s", "code"),
    [
        (59, "287082"),
        (1111111109, "081804"),
        (1111111111, "050471"),
        (1234567890, "005924"),
        (2000000000, "279037"),
        (20000000000, "353130"),
    ],
)
def test_codes_are_those_of_the_rfc(now_s: int, code: str) -> None:
    assert totp_code(SECRET, now_s // 30) == code
    assert matching_step(SECRET, code, now_s) == now_s // 30


@given(st.binary(min_size=16, max_size=64), st.integers(3, 2**40), st.integers(-3, 3))
def test_a_code_counts_in_its_step_and_in_one_on_either_side(raw: bytes, step: int, off: int) -> None:
    secret = secret_text(raw)
    code = totp_code(secret, step + off)
    near = [other for other in (step - 1, step, step + 1) if totp_code(secret, other) == code]
    assert matching_step(secret, code, step * 30 + 29) == (near[-1] if near else None)
    if abs(off) <= 1:
        assert near


@pytest.mark.parametrize("secret", ["", "A", "not base32!", "JBSWY3DPEHPK3PXP", "A" * 1000, "ä" * 32])
def test_what_is_no_secret_has_no_code(secret: str) -> None:
    assert matching_step(secret, "000000", 0) is None


@given(st.binary(min_size=10, max_size=10), st.sampled_from(["-", "", " ", "--"]))
def test_a_recovery_code_is_read_however_it_is_typed(raw: bytes, between: str) -> None:
    code = recovery_code(raw)
    assert re.fullmatch(r"([a-z2-7]{4}-){3}[a-z2-7]{4}", code)
    typed = normalised(" " + code.replace("-", between).upper())
    assert typed == code.replace("-", "") and not is_totp(typed)
    assert recovery_hash("ann", typed) != recovery_hash("bob", typed)


@given(st.integers(0, 999999))
def test_six_digits_are_a_totp(number: int) -> None:
    code = normalised(f"{number // 1000:03} {number % 1000:03}")
    assert code == f"{number:06}" and is_totp(code)


@given(st.one_of(st.text(), st.integers(), st.none(), st.text("0123456789", max_size=5)))
def test_anything_else_is_no_code(said: object) -> None:
    code = normalised(said)
    assert code is None or re.fullmatch(r"[0-9]{6}|[a-z2-7]{16}", code, re.ASCII)


@pytest.mark.parametrize(
    "said", ["٠٠٠٠٠٠", "1234567", "12345", "a" * 65, "", "1" * 16, "aaaa-aaaa-aaaa-aaa1"]
)
def test_digits_are_ascii_and_lengths_are_exact(said: str) -> None:
    assert normalised(said) is None


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.text("ab :/&?%@é", min_size=1))
def test_the_uri_says_what_it_was_given(account: str, issuer: str) -> None:
    uri = urlsplit(provisioning_uri(SECRET, account=account, issuer=issuer))
    assert (uri.scheme, uri.netloc) == ("otpauth", "totp")
    assert unquote(uri.path) == f"/{issuer}:{account}"
    said = {name: values[0] for name, values in parse_qs(uri.query, strict_parsing=True).items()}
    assert said == {"secret": SECRET, "issuer": issuer, "algorithm": "SHA1", "digits": "6", "period": "30"}
