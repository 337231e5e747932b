"""The curve of Ed25519 in plain integers: to make signatures that no honest signer makes.

Room: arithmetic for tests, after RFC 8032, section 5.1. Slow, and not constant in time.
"""

from hashlib import sha512

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, -1, P) % P
_SQRT_MINUS_1 = pow(2, (P - 1) // 4, P)

Point = tuple[int, int]


def x_of(y: int, sign: int) -> int | None:
    """The x of the point with this y, odd if `sign`; None if there is none."""
    square = (y * y - 1) * pow(_D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * _SQRT_MINUS_1 % P
    if (x * x - square) % P:
        return None
    return P - x if x and x & 1 != sign else x


def add(one: Point, other: Point) -> Point:
    (x1, y1), (x2, y2) = one, other
    k = _D * x1 * x2 * y1 * y2 % P
    return (x1 * y2 + x2 * y1) * pow(1 + k, -1, P) % P, (y1 * y2 + x1 * x2) * pow(1 - k, -1, P) % P


def times(number: int, point: Point) -> Point:
    total: Point = (0, 1)
    while number:
        if number & 1:
            total = add(total, point)
        point = add(point, point)
        number >>= 1
    return total


def encoded(point: Point) -> bytes:
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


def _point(y: int) -> Point:
    x = x_of(y, 0)
    assert x is not None
    return x, y


BASE = _point(4 * pow(5, -1, P) % P)


def small_order_points() -> list[Point]:
    """The eight points whose order divides 8, as multiples of one of order 8."""
    y = 2
    while (x := x_of(y, 0)) is None or times(4 * ORDER, (x, y)) == (0, 1):
        y += 1
    generator = times(ORDER, (x, y))
    return [times(n, generator) for n in range(8)]


def challenge(r: bytes, public: bytes, message: bytes) -> int:
    return int.from_bytes(sha512(r + public + message).digest(), "little") % ORDER


def signature(secret: int, nonce: int, message: bytes, *, public: bytes, r: bytes) -> bytes:
    """`r` and the s that fits it for the secret scalar, whatever `public` and `r` were made of."""
    return r + ((nonce + challenge(r, public, message) * secret) % ORDER).to_bytes(32, "little")
