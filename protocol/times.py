"""Dates and times as text: one accepted way in, one way out.

Room: pure conversions between what clients write (RFC 3339 and its close kin)
and the two stored forms, `YYYY-MM-DD` and `YYYY-MM-DDTHH:MM:SS.mmmZ`. The
accepted forms are spelled out here rather than left to `fromisoformat`, whose
taste changes between Python releases: every node must give the same verdict.
Reads no clock.
"""

import re
from datetime import date, datetime, timedelta

_EPOCH = datetime(1970, 1, 1)
_MS = timedelta(milliseconds=1)
_MAX_MS = (datetime(9999, 12, 31, 23, 59, 59, 999_000) - _EPOCH) // _MS
_MIN_MS = (datetime(1, 1, 1) - _EPOCH) // _MS

_NORMAL = re.compile(
    r"(?!0000)[0-9]{4}-[01][0-9]-[0-3][0-9]T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]\.[0-9]{3}Z"
)
_DATETIME = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]"
    r"([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]{1,9}))?)?"
    r"(?:[Zz]|([+-])([0-9]{2}):?([0-9]{2}))?"
)


def normal_date(text: str) -> str | None:
    """The date itself if it is a real day written `YYYY-MM-DD`, else None."""
    if len(text) != 10 or text[4] != "-" or text[7] != "-" or not text.isascii():
        return None
    try:
        date.fromisoformat(text)
    except ValueError:
        return None
    return text


def normal_datetime(text: str) -> str | None:
    """`YYYY-MM-DDTHH:MM:SS.mmmZ` for an RFC 3339 time, or None if it is not one.

    Seconds may be left out; digits beyond the millisecond are cut off. A time
    without an offset counts as UTC. Leap seconds and years outside 1 to 9999
    (after the offset is applied) are refused.
    """
    if _NORMAL.fullmatch(text):
        return text if normal_date(text[:10]) is not None else None
    found = _DATETIME.fullmatch(text)
    if found is None:
        return None
    year, month, day, hour, minute, second, fraction, sign, offset_hours, offset_minutes = found.groups()
    milliseconds = int((fraction or "")[:3].ljust(3, "0"))
    try:
        moment = datetime(
            int(year), int(month), int(day), int(hour), int(minute), int(second or 0), milliseconds * 1000
        )
        if sign is not None:
            if int(offset_hours) > 23 or int(offset_minutes) > 59:
                return None
            offset = timedelta(hours=int(offset_hours), minutes=int(offset_minutes))
            moment = moment - offset if sign == "+" else moment + offset
    except (ValueError, OverflowError):
        return None
    return moment.isoformat(timespec="milliseconds") + "Z"


def datetime_from_ms(at_ms: int) -> str:
    """Epoch milliseconds as text. Times outside years 1 to 9999 are shown as the nearest one inside."""
    moment = _EPOCH + timedelta(milliseconds=max(_MIN_MS, min(at_ms, _MAX_MS)))
    return moment.isoformat(timespec="milliseconds") + "Z"


def ms_from_datetime(text: str) -> int:
    """Epoch milliseconds of a time in the normal form that `normal_datetime` returns."""
    return (datetime.fromisoformat(text[:-1]) - _EPOCH) // _MS
