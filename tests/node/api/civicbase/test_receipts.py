"""What `Prefer` says about waiting for other nodes, in every form that RFC 7240 allows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.api.civicbase.receipts import TIMEOUT_MAX_S, TIMEOUT_S, Wanted, wanted


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["wait=peers:2"], Wanted(2, TIMEOUT_S)),
        (['wait="peers:2"'], Wanted(2, TIMEOUT_S)),
        (["Wait = peers:2 ; Timeout = 5"], Wanted(2, 5.0)),
        (['wait=peers:2; timeout="0.5"'], Wanted(2, 0.5)),
        (["respond-async, wait=peers:1; timeout=3, lenient"], Wanted(1, 3.0)),
        (["wait=peers:1, wait-timeout=7"], Wanted(1, 7.0)),
        (["wait-timeout=7", "wait=peers:1"], Wanted(1, 7.0)),
        (["wait=peers:1; foo; timeout=2"], Wanted(1, 2.0)),
        (["wait=10, wait=peers:3"], Wanted(3, TIMEOUT_S)),  # a wait in seconds is nothing to us
        (["wait=peers:1, wait=peers:2"], Wanted(1, TIMEOUT_S)),  # the first counts
        (["wait=peers:1; timeout=999999"], Wanted(1, TIMEOUT_MAX_S)),
        (["wait=peers:1; timeout=0"], Wanted(1, 0.0)),
        (["wait=peers:0"], Wanted(0, TIMEOUT_S)),
        (["wait=peers:1; timeout=soon"], Wanted(1, TIMEOUT_S)),
        (["wait=peers:1; timeout=-1"], Wanted(1, TIMEOUT_S)),
    ],
)
def test_what_is_understood(values: list[str], expected: Wanted) -> None:
    assert wanted(values) == expected


@pytest.mark.parametrize(
    "value",
    ["", "wait", "wait=", "wait=5", "wait=peers", "wait=peers:", "wait=peers:x", "wait=peers:-1",
     "wait=peers:99999", "wait=peers:٢", "return=minimal", 'foo="wait=peers:2"', ",,;;==", '"wait=peers:2"'],
)  # fmt: skip
def test_what_is_not_understood_is_ignored(value: str) -> None:
    assert wanted([value]) is None


@given(st.lists(st.text(alphabet='wait=peers:12;, "\\timeout.-', max_size=60), max_size=3))
def test_no_header_can_raise(values: list[str]) -> None:
    want = wanted(values)
    assert want is None or 0 <= want.timeout_s <= TIMEOUT_MAX_S
