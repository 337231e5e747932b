import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.keys import SIGNATURE_BYTES, KeyPair, verify
from tests.protocol import curve25519 as curve

KEYS = KeyPair.from_seed(bytes(range(32)))
MESSAGE = b"a message"

# The first test of RFC 8032, section 7.1.
RFC_SEED = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
RFC_PUBLIC = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
RFC_SIGNATURE = bytes.fromhex(
    "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
)

SECRET, NONCE = 0x1234_5678_9ABC_DEF0 * 8, 987_654_321
PUBLIC = curve.encoded(curve.times(SECRET, curve.BASE))
R = curve.encoded(curve.times(NONCE, curve.BASE))
SMALL = curve.small_order_points()


def test_signatures_are_those_of_rfc_8032() -> None:
    keys = KeyPair.from_seed(RFC_SEED)
    assert (keys.public, keys.sign(b""), keys.seed) == (RFC_PUBLIC, RFC_SIGNATURE, RFC_SEED)
    assert verify(RFC_PUBLIC, b"", RFC_SIGNATURE)


def test_a_secret_is_not_shown() -> None:
    assert KEYS.secret.hex() not in repr(KEYS) and repr(KEYS.secret) not in repr(KEYS)


@given(st.binary(max_size=80), st.integers(0, SIGNATURE_BYTES * 8 - 1))
def test_one_flipped_bit_of_a_signature_is_detected(message: bytes, bit: int) -> None:
    signature = KEYS.sign(message)
    assert verify(KEYS.public, message, signature)
    flipped = bytearray(signature)
    flipped[bit // 8] ^= 1 << bit % 8
    assert not verify(KEYS.public, message, bytes(flipped))


@given(st.binary(min_size=1, max_size=80), st.data())
def test_one_flipped_bit_of_a_message_or_key_is_detected(message: bytes, data: st.DataObject) -> None:
    signature = KEYS.sign(message)
    for whole in (message, KEYS.public):
        flipped = bytearray(whole)
        flipped[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        if whole is message:
            assert not verify(KEYS.public, bytes(flipped), signature)
        else:
            assert not verify(bytes(flipped), message, signature)


@given(st.binary(max_size=70), st.binary(max_size=10), st.binary(max_size=70))
def test_verifying_never_raises(public: bytes, message: bytes, signature: bytes) -> None:
    verify(public, message, signature)


# -- the acceptance rule: SPEC, "Signatures" -----------------------------------------------------------------


def test_a_signature_made_by_hand_is_accepted() -> None:
    assert verify(PUBLIC, MESSAGE, curve.signature(SECRET, NONCE, MESSAGE, public=PUBLIC, r=R))


@pytest.mark.parametrize("order", range(1, 8))
def test_the_equation_is_checked_without_the_cofactor(order: int) -> None:
    """R with a part of small order would pass a check that multiplies by eight."""
    r = curve.encoded(curve.add(curve.times(NONCE, curve.BASE), SMALL[order]))
    assert not verify(PUBLIC, MESSAGE, curve.signature(SECRET, NONCE, MESSAGE, public=PUBLIC, r=r))


@pytest.mark.parametrize("order", range(1, 8))
def test_a_key_with_a_part_of_small_order_verifies_only_where_that_part_vanishes(order: int) -> None:
    public = curve.encoded(curve.add(curve.times(SECRET, curve.BASE), SMALL[order]))
    seen = set()
    for number in range(40):
        message = MESSAGE + bytes([number])
        vanishes = curve.times(curve.challenge(R, public, message) % 8, SMALL[order]) == (0, 1)
        seen.add(vanishes)
        signature = curve.signature(SECRET, NONCE, message, public=public, r=R)
        assert verify(public, message, signature) == vanishes
    assert seen == {True, False}


@pytest.mark.parametrize("order", range(8))
def test_keys_of_small_order_are_refused(order: int) -> None:
    public = curve.encoded(SMALL[order])
    for number in range(16):  # of these, s = nonce fits the equation for some
        message = bytes([number])
        assert not verify(public, message, curve.signature(0, NONCE, message, public=public, r=R))


@pytest.mark.parametrize("order", range(8))
def test_an_r_of_small_order_is_refused(order: int) -> None:
    r = curve.encoded(SMALL[order])
    assert not verify(PUBLIC, MESSAGE, curve.signature(SECRET, 0, MESSAGE, public=PUBLIC, r=r))


@pytest.mark.parametrize("multiple", [1, 2, 7, 14])
def test_an_s_that_is_not_reduced_is_refused(multiple: int) -> None:
    signature = curve.signature(SECRET, NONCE, MESSAGE, public=PUBLIC, r=R)
    s = int.from_bytes(signature[32:], "little") + multiple * curve.ORDER
    assert not verify(PUBLIC, MESSAGE, signature[:32] + s.to_bytes(32, "little"))


def test_points_that_are_not_in_canonical_form_are_refused() -> None:
    """A y of p or more names the same point as y - p, by other bytes; so does a set sign where x is 0."""
    for y in range(19):
        for sign in (0, 1):
            odd = (y + curve.P | sign << 255).to_bytes(32, "little")
            assert not verify(odd, MESSAGE, curve.signature(0, NONCE, MESSAGE, public=odd, r=R))
            assert not verify(PUBLIC, MESSAGE, curve.signature(SECRET, 0, MESSAGE, public=PUBLIC, r=odd))
    for y in (1, curve.P - 1):
        odd = (y | 1 << 255).to_bytes(32, "little")
        assert not verify(odd, MESSAGE, curve.signature(0, NONCE, MESSAGE, public=odd, r=R))


def test_bytes_that_are_no_point_are_refused() -> None:
    y = next(y for y in range(2, 100) if curve.x_of(y, 0) is None)
    public = y.to_bytes(32, "little")
    assert not verify(public, MESSAGE, curve.signature(SECRET, NONCE, MESSAGE, public=public, r=R))
