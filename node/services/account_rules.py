"""What may stand in an account: one function per field, each naming its fault.

Room: pure checks of values that came in a request. They return (normalised value, None) or
(None, message); whoever calls them gathers the messages, so that one answer names every fault.
"""

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

import msgspec

REQUIRED = "This field is required"

EMAIL_MAX = 254  # RFC 5321, 4.5.3.1.3, less the brackets
EMAIL_LOCAL_MAX = 64  # RFC 5321, 4.5.3.1.1
USERNAME_MAX = 64
INTEREST_MAX = 64
INTERESTS_MAX = 100
PROFILE_FIELDS_MAX = 100
PROFILE_SIZE_MAX_BYTES = 64 * 1024
DATA_KEY_MAX = 128
DATA_SIZE_MAX_BYTES = 256 * 1024

APPLICATION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)
ROLE = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}", re.ASCII)
_PROFILE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}", re.ASCII)
_EMAIL_LOCAL = re.compile(r"[^\s@\"\\(),:;<>\[\]]+")
_EMAIL_DOMAIN = re.compile(r"[^\W_](?:[\w-]*[^\W_])?(?:\.[^\W_](?:[\w-]*[^\W_])?)*")

Checked = tuple[Any, str | None]


def check_email(value: object) -> Checked:
    """An e-mail address in the one form it is stored and looked up in: NFC, lower case."""
    if value is None or value == "":
        return None, REQUIRED
    if not isinstance(value, str):
        return None, "Must be a string"
    text = unicodedata.normalize("NFC", value.strip()).lower()
    local, _, domain = text.rpartition("@")
    if (
        len(text) > EMAIL_MAX
        or len(local) > EMAIL_LOCAL_MAX
        or not _EMAIL_LOCAL.fullmatch(local)
        or not _EMAIL_DOMAIN.fullmatch(domain)
        or not text.isprintable()
    ):
        return None, "Must be an e-mail address"
    return text, None


def check_username(value: object) -> Checked:
    if value is None or value == "":
        return None, REQUIRED
    if not isinstance(value, str):
        return None, "Must be a string"
    text = unicodedata.normalize("NFC", value).strip()
    if not 1 <= len(text) <= USERNAME_MAX or not text.isprintable():
        return None, f"Must be 1 to {USERNAME_MAX} printable characters"
    return text, None


def check_application(value: object) -> Checked:
    """The application an account belongs to; none named means `default`."""
    if value is None:
        return "default", None
    if not isinstance(value, str) or not APPLICATION.fullmatch(value):
        return None, "Must be 1 to 64 letters, digits, '_', '.' or '-', beginning with a letter or digit"
    return value, None


def check_role(value: object) -> Checked:
    if value is None or value == "":
        return None, REQUIRED
    if not isinstance(value, str) or not ROLE.fullmatch(value):
        return None, "Must be 1 to 32 letters, digits, '_' or '-', beginning with a letter"
    return value, None


def check_interests(value: object) -> Checked:
    """A list of words, or one string of them parted by commas, without repetitions."""
    if value is None or value == "" or value == []:
        return None, REQUIRED
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        return None, "Must be a string, or a list of strings"
    words = [unicodedata.normalize("NFC", part).strip() for part in parts]
    words = list(dict.fromkeys(word for word in words if word))
    if not words:
        return None, REQUIRED
    if not all(len(word) <= INTEREST_MAX and word.isprintable() for word in words):
        return None, f"Each must be at most {INTEREST_MAX} printable characters"
    if len(words) > INTERESTS_MAX:
        return None, f"Must be at most {INTERESTS_MAX}"
    return words, None


def check_data_key(value: object) -> Checked:
    if value is None or value == "":
        return None, REQUIRED
    if not isinstance(value, str) or len(value) > DATA_KEY_MAX or not value.isprintable():
        return None, f"Must be 1 to {DATA_KEY_MAX} printable characters"
    return value, None


def check_data_value(value: object) -> Checked:
    size_bytes = len(msgspec.json.encode(value))
    if size_bytes > DATA_SIZE_MAX_BYTES:
        return None, f"Must be at most {DATA_SIZE_MAX_BYTES} bytes of JSON"
    return value, None


def check_profile(fields: Mapping[str, Any]) -> dict[str, str]:
    """Faults of an account's free fields, as they would stand after a change."""
    faults = {
        name: "Field names are 1 to 64 letters, digits, '_' or '-', beginning with a letter"
        for name in fields
        if not _PROFILE_NAME.fullmatch(name)
    }
    if len(fields) > PROFILE_FIELDS_MAX:
        faults["profile"] = f"Must be at most {PROFILE_FIELDS_MAX} fields"
    elif len(msgspec.json.encode(fields)) > PROFILE_SIZE_MAX_BYTES:
        faults["profile"] = f"Must be at most {PROFILE_SIZE_MAX_BYTES} bytes of JSON"
    return faults
