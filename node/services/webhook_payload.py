"""What a webhook's receiver is sent: the body in both shapes of the seed, and the signatures over it.

Room: bytes alone, and no clock. Three parties verify what is sent, each in its own way (seed S1, "Webhook
Security"; CONTRACT, "S1"; https://www.standardwebhooks.com):

- the seed's verifier, which parses the body, takes `signature` out and signs `JSON.stringify` of the rest: so
  `js_text` writes JSON exactly as that does;
- who takes the header `X-CivicBase-Signature`, over the raw body;
- a Standard Webhooks library: `webhook-signature` over `id.timestamp.body`, as `v1` with the secret and as `v1a`
  with the key of this node. The id begins with `msg_`, so that nothing signed here can pass for anything else that
  a node signs.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

SECRET_PREFIX = "whsec_"
PUBLIC_KEY_PREFIX = "whpk_"
SIGNATURE_HEADER = "X-CivicBase-Signature"
FORMER_SIGNATURE_HEADER = "X-CivicBase-Signature-Previous"
BODY_MAX_BYTES = 256 << 10  # above it `changes` is left out: receivers limit bodies too

_EXACT_MAX = 1 << 53  # of integers that a JavaScript number holds exactly
_INDEX_MAX = (1 << 32) - 2  # ECMA-262, "array index": such keys come first in an object, in their order
_INDEX = re.compile(r"0|[1-9][0-9]{0,9}")
_ESCAPED = re.compile(r'["\\\x00-\x1f\ud800-\udfff]')
_SHORT = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_decode = msgspec.json.Decoder().decode


# -- JSON as JavaScript writes it


def js_text(value: Any, *, with_exact_integers: bool = False) -> str:
    """What `JSON.stringify(JSON.parse(…))` makes of a JSON value (ECMA-262, sections 25.5.2 and 6.1.6.1.20).

    `with_exact_integers` writes integers beyond 2^53 in full, which JavaScript would round.
    """
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return _js_string(value)
        case int():
            if with_exact_integers or -_EXACT_MAX <= value <= _EXACT_MAX:
                return str(value)
            return _js_number(_as_float(value))
        case float():
            return _js_number(value)
        case Mapping():
            members = (
                f"{_js_string(name)}:{js_text(value[name], with_exact_integers=with_exact_integers)}"
                for name in _js_order(value)
            )
            return "{" + ",".join(members) + "}"
        case list() | tuple():
            return (
                "[" + ",".join(js_text(each, with_exact_integers=with_exact_integers) for each in value) + "]"
            )
    raise TypeError(f"{type(value).__name__} is no JSON value")


def _as_float(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf")


def _js_order(value: Mapping[str, Any]) -> Sequence[str]:
    names = list(value)
    numbers = [name for name in names if _INDEX.fullmatch(name) and int(name) <= _INDEX_MAX]
    if not numbers:
        return names
    first = set(numbers)
    return sorted(numbers, key=int) + [name for name in names if name not in first]


def _js_string(text: str) -> str:
    return '"' + _ESCAPED.sub(_escape, text) + '"'


def _escape(match: re.Match[str]) -> str:
    found = match[0]
    return _SHORT.get(found) or f"\\u{ord(found):04x}"


def _js_number(value: float) -> str:
    """The shortest digits that read back as the number, which are those of `repr`, where JavaScript puts them."""
    if value != value or value in (float("inf"), float("-inf")):
        return "null"
    if value == 0:
        return "0"  # of -0 as well
    mantissa, _, exponent = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    point = len(whole) + int(exponent or "0")  # how many digits stand before the point
    digits = whole + fraction
    point -= len(digits) - len(digits.lstrip("0"))
    digits = digits.strip("0")
    count = len(digits)
    if count <= point <= 21:
        text = digits + "0" * (point - count)
    elif 0 < point <= 21:
        text = f"{digits[:point]}.{digits[point:]}"
    elif -6 < point <= 0:
        text = f"0.{'0' * -point}{digits}"
    else:
        tail = f".{digits[1:]}" if count > 1 else ""
        text = f"{digits[0]}{tail}e{point - 1:+d}"
    return "-" + text if value < 0 else text


# -- the body


def body_of(
    event: str, model: str | None, id: str | None, changes: Mapping[str, Any], at_ms: int, origin: str | None
) -> bytes:
    """The body but for its `signature`, in the order in which it is sent. `at_ms` is when it happened."""
    body = _body(event, model, id, {"changes": dict(changes)}, at_ms, origin)
    if len(body) > BODY_MAX_BYTES:
        body = _body(event, model, id, {"changes": {}, "truncated": True}, at_ms, origin)
    return body


def _body(
    event: str, model: str | None, id: str | None, changed: dict[str, Any], at_ms: int, origin: str | None
) -> bytes:
    said: dict[str, Any] = {"event": event, "model": model, "instanceId": id, "changes": changed["changes"]}
    said["data"] = {"model": model, "instanceId": id, **changed}
    if origin is not None:
        said["origin"] = origin
    said["timestamp"] = at_ms // 1_000
    return js_text(said, with_exact_integers=True).encode("utf-8", "replace")


def signed_body(body: bytes, secret: str) -> bytes:
    """A body with its `signature`: over what `JSON.stringify` makes of it without one."""
    return b'%b,"signature":"%b"}' % (body[:-1], _sha256(secret, js_text(_decode(body)).encode()).encode())


def _sha256(secret: str, data: bytes) -> str:
    return "sha256=" + hmac.new(secret.encode(), data, hashlib.sha256).hexdigest()


# -- signatures over it


def secret_key(secret: str) -> bytes:
    """What `v1` is keyed with: the bytes in a `whsec_` secret, or the text of any other.

    Raises `ValueError` for what begins with `whsec_` and does not go on in base64.
    """
    if not secret.startswith(SECRET_PREFIX):
        return secret.encode()
    return base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)


def new_secret(random_bytes: Callable[[int], bytes]) -> str:
    return SECRET_PREFIX + base64.b64encode(random_bytes(32)).decode()


def public_key_text(public_key: bytes) -> str:
    """As Standard Webhooks libraries take it, to verify `v1a`."""
    return PUBLIC_KEY_PREFIX + base64.b64encode(public_key).decode()


def signature_headers(
    id: str, at_s: int, body: bytes, secrets: Sequence[str], sign: Callable[[bytes], bytes]
) -> dict[str, str]:
    """The headers that vouch for a body. `secrets` are the present one and, for a while, the one before it."""
    signed = b"%b.%d.%b" % (id.encode(), at_s, body)
    signatures = [
        "v1," + base64.b64encode(hmac.new(secret_key(secret), signed, hashlib.sha256).digest()).decode()
        for secret in secrets
    ]
    signatures.append("v1a," + base64.b64encode(sign(signed)).decode())
    headers = {
        SIGNATURE_HEADER: _sha256(secrets[0], body),
        "webhook-id": id,
        "webhook-timestamp": str(at_s),
        "webhook-signature": " ".join(signatures),
    }
    if len(secrets) > 1:
        headers[FORMER_SIGNATURE_HEADER] = _sha256(secrets[1], body)
    return headers
