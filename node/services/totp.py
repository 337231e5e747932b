"""One-time codes: TOTP as authenticator apps make it, and recovery codes for when the app is gone.

Room: pure functions over secrets, codes and times. Who has a secret, and which codes are spent, is `mfa`'s.
TOTP is RFC 6238 with what every app understands: HMAC-SHA-1, 6 digits, 30 s. A code counts in its own
step and in one on either side (RFC 6238, 5.2). `cryptography` loads with the first code.
"""

import base64
import hashlib
import hmac
import re

STEP_S = 30
DIGITS = 6
WINDOW_STEPS = 1
SECRET_SIZE_BYTES = 20  # RFC 4226, 4, R6: 160 bits
RECOVERY_CODES = 10
RECOVERY_SIZE_BYTES = 10  # 80 bits: a hash of it cannot be searched

_SECRET_MAX_CHARS = 128  # a secret may come from a peer
_TOTP = re.compile(r"[0-9]{6}", re.ASCII)
_RECOVERY = re.compile(r"[a-z2-7]{16}", re.ASCII)


def secret_text(raw: bytes) -> str:
    """A secret as apps take it: base32, without padding."""
    return base64.b32encode(raw).decode("ascii").rstrip("=")


def totp_code(secret: str, step: int) -> str:
    """The code of a step. Raises ValueError for what is no secret of 128 bits or more."""
    from cryptography.hazmat.primitives.hashes import SHA1
    from cryptography.hazmat.primitives.twofactor.hotp import HOTP

    if len(secret) > _SECRET_MAX_CHARS:
        raise ValueError("the secret is too long")
    key = base64.b32decode(secret + "=" * (-len(secret) % 8))
    return HOTP(key, DIGITS, SHA1()).generate(step).decode("ascii")


def matching_step(secret: str, code: str, now_s: int) -> int | None:
    """The step that `code` belongs to, of those that count now; None if it belongs to none."""
    present = now_s // STEP_S
    found = None
    try:
        for step in range(max(0, present - WINDOW_STEPS), present + WINDOW_STEPS + 1):
            if hmac.compare_digest(totp_code(secret, step), code):
                found = step
    except ValueError:
        return None
    return found


def provisioning_uri(secret: str, *, account: str, issuer: str) -> str:
    """What the QR code says to an authenticator app."""
    from urllib.parse import quote, urlencode

    label = f"{quote(issuer, safe='')}:{quote(account, safe='@')}"
    said = {"secret": secret, "issuer": issuer, "algorithm": "SHA1", "digits": DIGITS, "period": STEP_S}
    return f"otpauth://totp/{label}?{urlencode(said, quote_via=quote)}"


def recovery_code(raw: bytes) -> str:
    """Ten random bytes as a code that people can copy: four groups of four letters and digits."""
    text = base64.b32encode(raw).decode("ascii").lower()
    return "-".join(text[start : start + 4] for start in range(0, len(text), 4))


def recovery_hash(user: str, code: str) -> str:
    """What is stored of a recovery code that `normalised` has passed."""
    return hashlib.sha256(f"{user}\0{code}".encode()).hexdigest()


def normalised(code: object) -> str | None:
    """A TOTP as its digits, or a recovery code as its letters and digits, however typed; None for neither."""
    if not isinstance(code, str) or len(code) > 64:
        return None
    text = re.sub(r"[\s-]", "", code).lower()
    return text if _TOTP.fullmatch(text) or _RECOVERY.fullmatch(text) else None


def is_totp(code: str) -> bool:
    """Whether a normalised code is a TOTP, not a recovery code."""
    return len(code) == DIGITS
