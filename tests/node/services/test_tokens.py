import base64
import hashlib
import hmac
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from node.services.tokens import CLOCK_LEEWAY_S, TokenRefused, Tokens
from tests.node.fakes import NETWORK, START_MS, Clock, node_id_of

SEED, OTHER_SEED, STRANGER_SEED = b"\x01" * 32, b"\x02" * 32, b"\x03" * 32
ME, OTHER, STRANGER = node_id_of(SEED), node_id_of(OTHER_SEED), node_id_of(STRANGER_SEED)
NOW_S = START_MS // 1000
SECRET = "a shared secret of more than thirty-two bytes"
DROP = object()


def tokens_of(seed: Any = SEED, *, clock: Any = None, roles: Any = None, secret: Any = None) -> Any:
    known = {ME: "admin", OTHER: "member", **(roles or {})}
    return Tokens(
        node_id=node_id_of(seed),
        network_id=NETWORK,
        seed=seed,
        issuer_role=known.get,
        now_ms=clock or Clock(),
        shared_secret=secret,
    )


def issued(tokens: Any, **changes: Any) -> Any:
    said = {
        "user": "u1",
        "application": "default",
        "session": "s1",
        "token_id": "t1",
        "generation": "g1",
        "issued_s": NOW_S,
        "expires_s": NOW_S + 3600,
    }
    return tokens.issue(**(said | changes))


def b64(raw: Any) -> Any:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def joined(header: Any, payload: Any, signature: Any) -> Any:
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    text = f"{b64(head)}.{b64(body)}"
    return f"{text}.{b64(signature(text.encode()))}"


def claims(**changes: Any) -> Any:
    said = {
        "iss": ME,
        "aud": NETWORK,
        "sub": "u1",
        "sid": "s1",
        "jti": "t1",
        "iat": NOW_S,
        "exp": NOW_S + 3600,
        "app": "default",
        "gen": "g1",
    } | changes
    return {name: value for name, value in said.items() if value is not DROP}


def header(**changes: Any) -> Any:
    said = {"alg": "EdDSA", "typ": "JWT", "kid": ME} | changes
    return {name: value for name, value in said.items() if value is not DROP}


def signed(head: Any = None, body: Any = None, seed: Any = SEED) -> Any:
    """Signed with the right kind of signature, whatever the header says."""
    return joined(
        header() if head is None else head,
        claims() if body is None else body,
        lambda text: SigningKey(seed).sign(text).signature,
    )


def macced(key: Any, head: Any = None, body: Any = None, digest: Any = hashlib.sha256) -> Any:
    head = {"alg": "HS256", "typ": "JWT"} if head is None else head
    return joined(head, claims() if body is None else body, lambda text: hmac.digest(key, text, digest))


PUBLIC = bytes.fromhex(ME)
PEM = (
    b"-----BEGIN PUBLIC KEY-----\n"
    + base64.b64encode(bytes.fromhex("302a300506032b6570032100") + PUBLIC)
    + b"\n-----END PUBLIC KEY-----\n"
)
GENUINE = signed()
HEAD, BODY, SIGNATURE = GENUINE.split(".")


def stray_bit(segment: Any) -> Any:
    """The same bytes from another text: a bit set that the decoder drops."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    assert len(segment) % 4 in (2, 3)
    return segment[:-1] + alphabet[alphabet.index(segment[-1]) ^ 1]


FORGED = {
    "no algorithm": joined(header(alg="none"), claims(), lambda _: b""),
    "no algorithm, odd case": joined(header(alg="nOnE"), claims(), lambda _: b""),
    "no algorithm, our signature": signed(header(alg="none")),
    "no algorithm named": signed(header(alg=DROP)),
    "algorithm null": signed(header(alg=None)),
    "algorithm a list": signed(header(alg=["EdDSA"])),
    "HS256 over the public key": macced(PUBLIC),
    "HS256 over the public key in hex": macced(ME.encode()),
    "HS256 over the public key as PEM": macced(PEM),
    "HS256 over PEM with other line ends": macced(PEM.replace(b"\n", b"\r\n")),
    "HS256 over PEM with leading blanks": macced(b"  " + PEM.strip()),
    "HS256 over an empty key": macced(b""),
    "HS256 with our kid": macced(PUBLIC, header(alg="HS256")),
    "HS384": macced(SECRET.encode(), header(alg="HS384", kid=DROP), digest=hashlib.sha384),
    "HS512": macced(SECRET.encode(), header(alg="HS512", kid=DROP), digest=hashlib.sha512),
    "EdDSA header over a MAC": macced(PUBLIC, header()),
    "RS256": signed(header(alg="RS256")),
    "Ed25519 under its other name": signed(header(alg="Ed25519")),
    "a stranger's key and id": signed(header(kid=STRANGER), claims(iss=STRANGER), seed=STRANGER_SEED),
    "a stranger's key under our id": signed(seed=STRANGER_SEED),
    "a member's key, our name": signed(header(kid=OTHER), claims(iss=ME), seed=OTHER_SEED),
    "our key, a member's name": signed(header(), claims(iss=OTHER)),
    "no kid": signed(header(kid=DROP)),
    "kid null": signed(header(kid=None)),
    "kid in capitals": signed(header(kid=ME.upper())),
    "kid with a blank": signed(header(kid=ME[:-1] + " ")),
    "kid a path": signed(header(kid="../../../../dev/null")),
    "kid SQL": signed(header(kid="x' UNION SELECT 'key")),
    "kid a number": signed(header(kid=1)),
    "no typ": signed(header(typ=DROP)),
    "another typ": signed(header(typ="refresh+jwt")),
    "crit": signed(header(crit=["exp"])),
    "crit b64, unencoded": signed(header(crit=["b64"], b64=False)),
    "jwk": signed(
        header(jwk={"kty": "OKP", "crv": "Ed25519", "x": b64(bytes.fromhex(STRANGER))}), seed=STRANGER_SEED
    ),
    "jku": signed(header(jku="https://example.com/keys")),
    "x5u": signed(header(x5u="https://example.com/cert")),
    "x5c": signed(header(x5c=["MII"])),
    "cty": signed(header(cty="JWT")),
    "zip": signed(header(zip="DEF")),
    "another audience": signed(body=claims(aud="dd" * 32)),
    "a list of audiences": signed(body=claims(aud=[NETWORK])),
    "no audience": signed(body=claims(aud=DROP)),
    "no issuer": signed(body=claims(iss=DROP)),
    "no subject": signed(body=claims(sub=DROP)),
    "empty subject": signed(body=claims(sub="")),
    "subject a number": signed(body=claims(sub=1)),
    "no session": signed(body=claims(sid=DROP)),
    "empty session": signed(body=claims(sid="")),
    "no token id": signed(body=claims(jti=DROP)),
    "no application": signed(body=claims(app=DROP)),
    "no generation": signed(body=claims(gen=DROP)),
    "no expiry": signed(body=claims(exp=DROP)),
    "expiry a text": signed(body=claims(exp=str(NOW_S + 60))),
    "expiry a fraction": signed(body=claims(exp=NOW_S + 60.5)),
    "expiry true": signed(body=claims(exp=True)),
    "expiry null": signed(body=claims(exp=None)),
    "expiry beyond all clocks": signed(body=claims(exp=10**30)),
    "expiry not a number": signed(body=b'{"exp":NaN}'),
    "expiry before issue": signed(body=claims(iat=NOW_S + 30, exp=NOW_S + 20)),
    "expired this second": signed(body=claims(iat=NOW_S - 10, exp=NOW_S)),
    "expired": signed(body=claims(iat=NOW_S - 7200, exp=NOW_S - 3600)),
    "issued in the future": signed(body=claims(iat=NOW_S + CLOCK_LEEWAY_S + 1)),
    "no issue time": signed(body=claims(iat=DROP)),
    "issued before time": signed(body=claims(iat=-1)),
    "claims a list": signed(body=b"[]"),
    "claims not JSON": signed(body=b"{"),
    "claims not UTF-8": signed(body=b'{"iss":"\xff"}'),
    "claims deeply nested": signed(body=b"[" * 700 + b"]" * 700),
    "header a list": signed(b"[]"),
    "header not JSON": signed(b"EdDSA"),
    "header deeply nested": signed(b'{"alg":' * 300),
    "header empty": signed(b""),
    "trailing garbage": GENUINE + "!!!!",
    "trailing blank": GENUINE + " ",
    "trailing line end": GENUINE + "\n",
    "trailing segment": GENUINE + ".",
    "five segments": GENUINE + ".A.B",
    "leading blank": " " + GENUINE,
    "padding": f"{HEAD}.{BODY}.{SIGNATURE}==",
    "padding in the header": f"{HEAD}=.{BODY}.{SIGNATURE}",
    "stray bit in the signature": f"{HEAD}.{BODY}.{stray_bit(SIGNATURE)}",
    "plain base64 alphabet": f"{HEAD}.{BODY}.{SIGNATURE.replace('-', '+').replace('_', '/')}+",
    "line end inside": f"{HEAD}.{BODY}.{SIGNATURE[:40]}\n{SIGNATURE[40:]}",
    "no signature": f"{HEAD}.{BODY}.",
    "two segments": f"{HEAD}.{BODY}",
    "short signature": f"{HEAD}.{BODY}.{b64(b'x' * 63)}",
    "zero signature": f"{HEAD}.{BODY}.{b64(bytes(64))}",
    "signature of something else": f"{HEAD}.{b64(json.dumps(claims(sub='root')).encode())}.{SIGNATURE}",
    "empty": "",
    "dots": "..",
    "not ASCII": GENUINE[:-1] + "é",
    "lone surrogate": GENUINE[:-1] + "\ud800",
    "far too long": signed(body=claims(sub="x" * 5000)),
}


@pytest.mark.parametrize("name", FORGED)
@pytest.mark.parametrize("secret", [None, SECRET])
def test_a_forged_expired_or_odd_token_is_refused(name: str, secret: str | None) -> None:
    with pytest.raises(TokenRefused):
        tokens_of(secret=secret).verify(FORGED[name])


def test_the_forgeries_differ_from_a_token_that_counts() -> None:
    assert tokens_of().verify(GENUINE).user == "u1"
    assert len(FORGED) == len({GENUINE, *FORGED.values()}) - 1 >= 40


def test_an_issued_token_says_what_it_was_issued_for() -> None:
    tokens = tokens_of()
    found = tokens.verify(issued(tokens, application="app_1"))
    assert (found.user, found.application, found.session) == ("u1", "app_1", "s1")
    assert (found.token_id, found.generation, found.issuer) == ("t1", "g1", ME)
    assert found.expires_s == NOW_S + 3600 and found.has_full_rights


def test_the_same_arguments_give_the_same_token() -> None:
    assert issued(tokens_of()) == issued(tokens_of())


def test_a_token_expires_to_the_second() -> None:
    clock = Clock()
    tokens = tokens_of(clock=clock)
    token = issued(tokens)
    clock.pass_s(3599.9)
    tokens.verify(token)
    clock.pass_s(0.1)
    with pytest.raises(TokenRefused) as refused:
        tokens.verify(token)
    assert refused.value.is_expired
    clock.pass_s(99)
    assert tokens.verify(token, expired_within_s=100).user == "u1"
    clock.pass_s(1)
    with pytest.raises(TokenRefused):
        tokens.verify(token, expired_within_s=100)


def test_a_forged_token_is_never_called_expired() -> None:
    forged = signed(body=claims(iat=NOW_S - 7200, exp=NOW_S - 3600), seed=STRANGER_SEED)
    with pytest.raises(TokenRefused) as refused:
        tokens_of().verify(forged)
    assert not refused.value.is_expired


@pytest.mark.parametrize(
    ("role", "counts", "full"),
    [
        ("admin", True, True),
        ("member", True, False),
        ("reader", False, False),
        (None, False, False),
        ("king", False, False),
    ],
)
def test_another_nodes_token_counts_by_that_nodes_role(role: Any, counts: Any, full: Any) -> None:
    token = issued(tokens_of(OTHER_SEED))
    here = tokens_of(roles={OTHER: role})
    if counts:
        assert here.verify(token).has_full_rights is full
    else:
        with pytest.raises(TokenRefused):
            here.verify(token)


def test_a_readers_tokens_count_on_that_reader() -> None:
    reader = tokens_of(roles={ME: "reader"})
    assert reader.verify(issued(reader)).has_full_rights


def test_a_revoked_issuer_stops_counting_at_once() -> None:
    roles = {OTHER: "member"}
    here = Tokens(
        node_id=ME, network_id=NETWORK, seed=SEED, issuer_role=roles.get, now_ms=Clock(), shared_secret=None
    )
    token = issued(tokens_of(OTHER_SEED))
    assert here.verify(token).user == "u1"
    roles.clear()
    with pytest.raises(TokenRefused):
        here.verify(token)


@pytest.mark.parametrize("node_id", ["00" * 32, "ff" * 32, "01" + "00" * 31])
def test_an_issuer_whose_id_is_no_key_cannot_sign(node_id: Any) -> None:
    token = signed(header(kid=node_id), claims(iss=node_id))
    with pytest.raises(TokenRefused):
        tokens_of(roles={node_id: "admin"}).verify(token)


def shared(**changes: Any) -> Any:
    said = {"sub": "u1", "exp": NOW_S + 60} | changes
    return {name: value for name, value in said.items() if value is not DROP}


def test_a_shared_secrets_token_counts_where_the_secret_is_and_never_in_full() -> None:
    token = macced(SECRET.encode(), body=shared())
    found = tokens_of(secret=SECRET).verify(token)
    assert (found.user, found.application, found.issuer) == ("u1", "default", None)
    assert not found.has_full_rights
    with pytest.raises(TokenRefused):
        tokens_of().verify(token)
    with pytest.raises(TokenRefused):
        tokens_of(secret=SECRET + "!").verify(token)


@pytest.mark.parametrize(
    "odd",
    [
        shared(exp=NOW_S),
        shared(exp=DROP),
        shared(sub=DROP),
        shared(sub=""),
        shared(aud="another audience"),
        shared(nbf=NOW_S + 3600),
        shared(iat=NOW_S + 3600),
        shared(app=""),
        shared(exp=10**30),
    ],
)
def test_a_shared_secrets_token_is_judged_as_strictly(odd: Any) -> None:
    with pytest.raises(TokenRefused):
        tokens_of(secret=SECRET).verify(macced(SECRET.encode(), body=odd))


@given(st.text(max_size=300))
def test_no_text_can_raise_anything_else(text: str) -> None:
    with pytest.raises(TokenRefused):
        tokens_of(secret=SECRET).verify(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(name=st.sampled_from(sorted(claims())), value=JSON)
def test_no_signed_claim_of_any_kind_can_raise_anything_else(name: str, value: Any) -> None:
    tokens = tokens_of()
    try:
        found = tokens.verify(signed(body=claims(**{name: value})))
    except TokenRefused:
        return
    assert name in ("sub", "sid", "jti", "app", "gen", "iat", "exp") and found.issuer == ME


@given(name=st.sampled_from(["alg", "typ", "kid", "other"]), value=JSON)
def test_no_header_of_any_kind_can_raise_anything_else(name: str, value: Any) -> None:
    token = signed(header(**{name: value}))
    if header(**{name: value}) == header():
        return
    with pytest.raises(TokenRefused):
        tokens_of(secret=SECRET).verify(token)
