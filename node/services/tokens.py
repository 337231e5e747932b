"""Access tokens: JWTs signed with this node's key, and the verdict on anyone's.

Room: bytes and keys only. It says whether a token is genuine, for this network and in time; whether
its account, session and rights still stand is asked elsewhere (`node.services.sessions`), because
rights come from replicated state, never from claims. The clock is handed in. `jwt` and
`cryptography` load with the first token (90 ms), not with the node; `warm()` loads them early.

A node's tokens are EdDSA; header `kid` and claim `iss` are the node id (its public key, hex), `aud`
is the network id. HS256 tokens, made by a backend that shares `JWT_SECRET`, count only where that
secret is set; they carry `sub` and `exp` and never an administrator's rights.
"""

import base64
import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

C = TypeVar("C")

LENGTH_MAX = 4096  # ours are about 600 characters; the rest is room for HS256 tokens of others
CLOCK_LEEWAY_S = 60  # how far another node's clock may be ahead; `status` warns above the same figure
_TIME_MAX_S = 2**40
_KEYS_MAX = 256
_NODE_ID = re.compile(r"[0-9a-f]{64}", re.ASCII)


class TokenRefused(Exception):
    """The token is not genuine, not for this network, or not valid now."""

    def __init__(self, reason: str, *, expired: bool = False) -> None:
        super().__init__(reason)
        self.is_expired = expired  # genuine, but past its time


@dataclass(frozen=True, slots=True)
class Claims:
    """What a genuine token says."""

    issuer: str | None  # node id, or None for HS256
    user: str
    application: str
    session: str | None
    token_id: str | None
    generation: str | None  # of the account's credentials when the session began
    expires_s: int
    has_full_rights: bool  # False: opens no administrator route here


class _Header(msgspec.Struct, forbid_unknown_fields=True):
    """Any field beyond these (crit, jwk, jku, x5u, b64, …) is refused, not ignored."""

    alg: str
    typ: str
    kid: str | None = None


class _NodeClaims(msgspec.Struct):
    iss: str
    aud: str
    sub: str
    sid: str
    jti: str
    iat: int
    exp: int
    app: str
    gen: str


class _SharedClaims(msgspec.Struct):
    sub: str
    exp: int
    iat: int | None = None
    nbf: int | None = None
    aud: str | None = None
    sid: str | None = None
    jti: str | None = None
    app: str = "default"


class Tokens:
    """Signs with one node's key and verifies by node id."""

    def __init__(
        self,
        *,
        node_id: str,
        network_id: str,
        seed: bytes,
        issuer_role: Callable[[str], str | None],
        now_ms: Callable[[], int],
        shared_secret: str | None = None,
    ) -> None:
        """`seed` is the node's 32-byte Ed25519 seed, ids are lower-case hex.

        `issuer_role(node_id)` tells the role of a node of this network that is not revoked, as far
        as this node knows, or None.
        """
        self._node_id = node_id
        self._network_id = network_id
        self._seed = seed
        self._issuer_role = issuer_role
        self._now_ms = now_ms
        self._shared_secret = shared_secret
        self._jws: Any = None
        self._signing_key: Any = None
        self._verify_keys: dict[str, Any] = {}

    @property
    def node_id(self) -> str:
        return self._node_id

    def warm(self) -> None:
        """Load what the first token needs. Blocks for about 90 ms; may run on any thread."""
        self._machinery()

    def issue(
        self,
        *,
        user: str,
        application: str,
        session: str,
        token_id: str,
        generation: str,
        issued_s: int,
        expires_s: int,
    ) -> str:
        """The same arguments give the same token."""
        payload = msgspec.json.encode(
            _NodeClaims(
                iss=self._node_id,
                aud=self._network_id,
                sub=user,
                sid=session,
                jti=token_id,
                iat=issued_s,
                exp=expires_s,
                app=application,
                gen=generation,
            )
        )
        token: str = self._machinery().encode(
            payload, self._signing_key, algorithm="EdDSA", headers={"kid": self._node_id}
        )
        return token

    def verify(self, token: str, *, expired_within_s: int = 0) -> Claims:
        """The claims of a genuine token that is valid now.

        With `expired_within_s` a token counts until that long after its `exp`.
        Raises TokenRefused, and nothing else, whatever the text.
        """
        header = _header_of(token)
        now_s = self._now_ms() // 1000
        if header.typ != "JWT":
            raise TokenRefused("not an access token")
        if header.alg == "EdDSA":
            claims = self._verify_node(token, header, now_s)
        elif header.alg == "HS256":
            claims = self._verify_shared(token, header, now_s)
        else:
            raise TokenRefused("algorithm not accepted")
        if claims.expires_s + expired_within_s <= now_s:
            raise TokenRefused("token has expired", expired=True)
        return claims

    def _verify_node(self, token: str, header: _Header, now_s: int) -> Claims:
        issuer = header.kid
        if issuer is None or not _NODE_ID.fullmatch(issuer):
            raise TokenRefused("no key named")
        role = self._issuer_role(issuer)
        is_own = issuer == self._node_id
        if not is_own and role not in ("admin", "member"):
            raise TokenRefused("issuer not accepted")
        said = self._payload(token, self._verify_key(issuer), "EdDSA", _NodeClaims)
        if said.iss != issuer or said.aud != self._network_id:
            raise TokenRefused("issuer or audience differs")
        if not (said.sub and said.sid and said.jti and said.app):
            raise TokenRefused("empty claim")
        if not 0 <= said.iat < said.exp < _TIME_MAX_S:
            raise TokenRefused("times out of order")
        if said.iat > now_s + CLOCK_LEEWAY_S:
            raise TokenRefused("issued in the future")
        return Claims(
            issuer=issuer,
            user=said.sub,
            application=said.app,
            session=said.sid,
            token_id=said.jti,
            generation=said.gen,
            expires_s=said.exp,
            has_full_rights=is_own or role == "admin",
        )

    def _verify_shared(self, token: str, header: _Header, now_s: int) -> Claims:
        if self._shared_secret is None or header.kid is not None:
            raise TokenRefused("algorithm not accepted")
        said = self._payload(token, self._shared_secret, "HS256", _SharedClaims)
        if said.aud is not None and said.aud != self._network_id:
            raise TokenRefused("audience differs")
        if not (said.sub and said.app) or not 0 < said.exp < _TIME_MAX_S:
            raise TokenRefused("empty claim")
        if any(t is not None and t > now_s + CLOCK_LEEWAY_S for t in (said.iat, said.nbf)):
            raise TokenRefused("not valid yet")
        return Claims(
            issuer=None,
            user=said.sub,
            application=said.app,
            session=said.sid,
            token_id=said.jti,
            generation=None,
            expires_s=said.exp,
            has_full_rights=False,
        )

    def _payload(self, token: str, key: Any, algorithm: str, shape: type[C]) -> C:
        import jwt

        try:
            payload = self._machinery().decode(token, key, algorithms=[algorithm])
            return msgspec.json.decode(payload, type=shape)
        except (jwt.PyJWTError, msgspec.DecodeError, ValueError, RecursionError) as error:
            raise TokenRefused("signature or claims are not valid") from error

    def _machinery(self) -> Any:
        if self._jws is None:
            import jwt
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

            self._signing_key = Ed25519PrivateKey.from_private_bytes(self._seed)
            self._jws = jwt.PyJWS(algorithms=["EdDSA", "HS256"])
        return self._jws

    def _verify_key(self, node_id: str) -> Any:
        key = self._verify_keys.get(node_id)
        if key is None:
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

            try:
                key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(node_id))
            except ValueError as error:
                raise TokenRefused("issuer not accepted") from error
            if len(self._verify_keys) >= _KEYS_MAX:
                del self._verify_keys[next(iter(self._verify_keys))]
            self._verify_keys[node_id] = key
        return key


def _header_of(token: str) -> _Header:
    """The header, unverified, of a token in its one canonical text form.

    A token that decodes the same from a second text (padding, stray bits, other characters) is
    refused, so that one token has one text.
    """
    if not token.isascii() or len(token) > LENGTH_MAX:
        raise TokenRefused("not a token")
    parts = token.split(".")
    if len(parts) != 3:
        raise TokenRefused("not a token")
    try:
        decoded = [base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in parts]
        again = [base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in decoded]
        if again != parts:
            raise TokenRefused("not a token")
        return msgspec.json.decode(decoded[0], type=_Header)
    except (msgspec.DecodeError, binascii.Error, ValueError, RecursionError) as error:
        raise TokenRefused("not a token") from error
