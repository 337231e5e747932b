"""Dates and times: what is taken, what comes out, and that odd text is refused."""

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.times import datetime_from_ms, ms_from_datetime, normal_date, normal_datetime


@pytest.mark.parametrize(
    ("given_text", "stored"),
    [
        ("2023-12-31T23:59:00Z", "2023-12-31T23:59:00.000Z"),
        ("2023-12-31t23:59z", "2023-12-31T23:59:00.000Z"),
        ("2023-12-31 23:59:59.1239", "2023-12-31T23:59:59.123Z"),
        ("2023-12-31T23:59:59,5+01:30", "2023-12-31T22:29:59.500Z"),
        ("2024-01-01T00:30:00+0100", "2023-12-31T23:30:00.000Z"),
        ("2023-12-31T23:30:00-01:00", "2024-01-01T00:30:00.000Z"),
        ("2024-02-29T00:00:00.001Z", "2024-02-29T00:00:00.001Z"),
    ],
)
def test_a_time_in_any_usual_form_is_stored_as_utc_with_milliseconds(given_text: str, stored: str) -> None:
    assert normal_datetime(given_text) == stored


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2023-12-31",
        "2023-13-01T00:00:00Z",
        "2023-02-29T00:00:00Z",
        "2023-02-29T00:00:00.000Z",
        "2023-12-31T24:00:00.000Z",
        "2023-12-31T23:59:60.000Z",
        "2023-12-31T23:59:00+24:00",
        "2023-12-31T23:59:00+00:60",
        "2023-12-31T23:59:00.000Z\n",
        "0000-01-01T00:00:00.000Z",
        "0001-01-01T00:00:00+01:00",
        "9999-12-31T23:59:59-01:00",
        "٢٠٢٣-12-31T23:59:00.000Z",
        "20231231T235900Z",
        "2023-W52-7T00:00:00Z",
    ],
)
def test_what_is_not_a_moment_is_refused(text: str) -> None:
    assert normal_datetime(text) is None


@pytest.mark.parametrize(
    "text", ["", "2023-1-01", "20230101", "2023-W01-1", "2023-02-29", "2023-12-31T", "٢٠٢٣-12-31"]
)
def test_what_is_not_a_day_is_refused(text: str) -> None:
    assert normal_date(text) is None


@given(st.text(max_size=40))
def test_odd_text_never_raises(text: str) -> None:
    assert normal_date(text) in (None, text)
    normal = normal_datetime(text)
    assert normal is None or normal_datetime(normal) == normal


@given(st.integers(-62_135_596_800_000, 253_402_300_799_999))
def test_milliseconds_survive_the_way_through_text(at_ms: int) -> None:
    text = datetime_from_ms(at_ms)
    assert normal_datetime(text) == text
    assert ms_from_datetime(text) == at_ms


@given(st.integers())
def test_any_number_of_milliseconds_has_a_text(at_ms: int) -> None:
    assert normal_datetime(datetime_from_ms(at_ms)) is not None


@given(st.datetimes(), st.datetimes())
def test_texts_sort_as_the_moments_do(one: datetime, other: datetime) -> None:
    texts = [normal_datetime(moment.isoformat(timespec="milliseconds")) for moment in sorted([one, other])]
    assert None not in texts
    assert texts == sorted(texts, key=str)
