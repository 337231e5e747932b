"""What receivers verify with: the seed's own code in Node.js, the library of Standard Webhooks, an Ed25519 key."""

import base64
import hashlib
import hmac
import json
import math
from typing import Any

import pytest
import standardwebhooks
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nacl.signing import SigningKey

from node.services.webhook_payload import (
    BODY_MAX_BYTES,
    body_of,
    js_text,
    new_secret,
    public_key_text,
    secret_key,
    signature_headers,
    signed_body,
)
from protocol.keys import KeyPair
from tests.node.services.webhook_receiver import NODE, stringified_by_node, verified_by_node

SECRET = "your_webhook_secret"
KEYS = KeyPair.from_seed(b"\7" * 32)
needs_node = pytest.mark.skipif(NODE is None, reason="Node.js is not installed")

# Whatever a document can hold, with keys and numbers that JavaScript treats in its own way.
names = st.one_of(
    st.text(max_size=6),
    st.sampled_from(
        ["0", "7", "10", "007", "-1", "1.5", "4294967294", "4294967295", "__proto__", "constructor"]
    ),
)
numbers = st.one_of(
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(
        [2.0, -0.0, 1e21, 1e20, 123456789012345680000.0, 1e-6, 1e-7, 5e-324, 2**53 + 1, -(2**53) - 1]
    ),
)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(names, inner, max_size=4)),
    max_leaves=12,
)


@needs_node
@settings(max_examples=4, suppress_health_check=list(HealthCheck), deadline=None)
@given(st.lists(values, min_size=40, max_size=80))
def test_js_text_is_what_json_stringify_writes(found: list[Any]) -> None:
    texts = [json.dumps(value, ensure_ascii=False) for value in found]
    assert [js_text(value) for value in found] == stringified_by_node(texts)


@needs_node
def test_numbers_are_written_where_javascript_puts_the_point() -> None:
    found = [math.ldexp(1.1, power) for power in range(-1074, 1024, 7)]
    found += [10.0**power for power in range(-30, 30)] + [-1.5e-9, 123.456, 0.1 + 0.2, 1e300, 100.0]
    assert [js_text(value) for value in found] == stringified_by_node([repr(value) for value in found])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2.0, "2"),
        (-0.0, "0"),
        (1e21, "1e+21"),
        (1e20, "100000000000000000000"),
        (1.5e-7, "1.5e-7"),
        (0.000001, "0.000001"),
        (2**53 + 1, "9007199254740992"),
        (10**400, "null"),
        (True, "true"),
        ('ö\u2028\x7f\x01"\\/\n', '"ö\u2028\x7f\\u0001\\"\\\\/\\n"'),
        ("\ud800", '"\\ud800"'),
        ({"b": 1, "10": 2, "9": 3, "a": [], "01": {}}, '{"9":3,"10":2,"b":1,"a":[],"01":{}}'),
    ],
)
def test_js_text(value: Any, text: str) -> None:
    assert js_text(value) == text


def test_js_text_refuses_what_is_no_json() -> None:
    with pytest.raises(TypeError):
        js_text(b"bytes")


def test_a_body_has_both_shapes_of_the_seed_in_the_order_of_the_contract() -> None:
    changes = {"interests": ["hiking", "photography"]}
    body = body_of("data.updated", "UserProfile", "profile_123", changes, 1632150985_999, None)
    assert json.loads(body) == {
        "event": "data.updated",
        "model": "UserProfile",
        "instanceId": "profile_123",
        "changes": changes,
        "data": {"model": "UserProfile", "instanceId": "profile_123", "changes": changes},
        "timestamp": 1632150985,
    }
    assert list(json.loads(signed_body(body, SECRET))) == [
        "event", "model", "instanceId", "changes", "data", "timestamp", "signature",
    ]  # fmt: skip


def test_the_node_that_a_change_came_from_is_told() -> None:
    assert json.loads(body_of("data.deleted", "Task", "t1", {}, 0, "aa" * 32))["origin"] == "aa" * 32


def test_what_is_too_large_is_told_without_its_values() -> None:
    body = body_of("data.updated", "Task", "t1", {"text": "x" * BODY_MAX_BYTES}, 0, None)
    said = json.loads(body)
    assert len(body) < 200
    assert (said["changes"], said["data"]["changes"], said["data"]["truncated"]) == ({}, {}, True)


def test_integers_beyond_javascripts_arrive_in_full_and_are_signed_as_javascript_reads_them() -> None:
    body = body_of("data.updated", "Task", "t1", {"n": 2**60 + 1}, 0, None)
    whole = json.loads(signed_body(body, SECRET))
    assert whole["changes"]["n"] == 2**60 + 1
    signed = body.replace(str(2**60 + 1).encode(), b"1152921504606847000")
    assert whole["signature"] == "sha256=" + hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()


@needs_node
@settings(max_examples=3, suppress_health_check=list(HealthCheck), deadline=None)
@given(st.lists(st.dictionaries(names, values, max_size=5), min_size=20, max_size=40))
def test_the_seeds_verifier_accepts_every_body(changes: list[dict[str, Any]]) -> None:
    bodies = [signed_body(body_of("data.updated", "Täsk", "t1", c, 1_000, None), SECRET) for c in changes]
    assert verified_by_node(bodies, SECRET) == [True] * len(bodies)


@needs_node
def test_the_seeds_verifier_refuses_what_was_tampered_with() -> None:
    body = signed_body(body_of("data.updated", "Task", "t1", {"n": 1}, 1_000, None), SECRET)
    assert verified_by_node([body, body.replace(b'"n":1', b'"n":2')], SECRET) == [True, False]
    assert verified_by_node([body], "another") == [False]


# -- Standard Webhooks

ID, NOW_S = "msg_1_abc", 1_700_000_000


def _random(size: int) -> bytes:
    return bytes(range(size))


@pytest.fixture
def at_that_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library refuses timestamps that are more than five minutes away."""
    module: Any = standardwebhooks.webhooks
    real = module.datetime

    class Then(real):  # type: ignore[misc, valid-type]
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return real.fromtimestamp(NOW_S, tz)

    monkeypatch.setattr(module, "datetime", Then)


@pytest.mark.usefixtures("at_that_time")
def test_the_official_library_verifies_every_secret() -> None:
    body = signed_body(body_of("data.updated", "Täsk", "t1", {"n": 2.0}, NOW_S * 1_000, None), SECRET)
    former = new_secret(_random)
    headers = signature_headers(ID, NOW_S, body, [SECRET, former], KEYS.sign)
    for secret in (former, "whsec_" + base64.b64encode(SECRET.encode()).decode()):
        verified = standardwebhooks.Webhook(secret).verify(body, headers)
        assert verified["changes"] == {"n": 2}
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(former).verify(body.replace(b"t1", b"t2"), headers)


def test_the_key_of_the_node_signs_too() -> None:
    headers = signature_headers(ID, NOW_S, b"{}", [SECRET], KEYS.sign)
    _, asymmetric = headers["webhook-signature"].split(" ")
    assert asymmetric.startswith("v1a,")
    public = base64.b64decode(public_key_text(KEYS.public).removeprefix("whpk_"))
    assert public == bytes(SigningKey(b"\7" * 32).verify_key)
    SigningKey(b"\7" * 32).verify_key.verify(
        f"{ID}.{NOW_S}.{{}}".encode(), base64.b64decode(asymmetric.removeprefix("v1a,"))
    )


def test_the_raw_body_is_signed_with_the_secret_and_for_a_while_with_the_one_before() -> None:
    headers = signature_headers(ID, NOW_S, b'{"a":1}', ["new", "old"], KEYS.sign)
    assert headers["X-CivicBase-Signature"] == "sha256=" + hmac.digest(b"new", b'{"a":1}', "sha256").hex()
    assert (
        headers["X-CivicBase-Signature-Previous"]
        == "sha256=" + hmac.digest(b"old", b'{"a":1}', "sha256").hex()
    )
    assert "X-CivicBase-Signature-Previous" not in signature_headers(ID, NOW_S, b"", ["new"], KEYS.sign)


def test_what_keys_a_secret_stands_for() -> None:
    assert secret_key("plain text") == b"plain text"
    assert secret_key("whsec_" + base64.b64encode(b"k" * 24).decode()) == b"k" * 24
    with pytest.raises(ValueError):
        secret_key("whsec_not base64!")
    assert len(secret_key(new_secret(_random))) == 32
