"""A request that comes again gets the answer that it got, and does nothing twice."""

from typing import Any

import pytest

from node.services.idempotency import KEPT_MS, RECORDS_MAX, Claim, Idempotency, Kept, caller_of
from node.services.refusals import KeyInUse, KeyReused
from protocol.ids import builtin_model_id
from tests.node.fakes import FakeLocal

ANSWER = Kept(201, b"Location: /x\r\n", b'{"instance_id":"one"}')


@pytest.fixture
def now() -> list[int]:
    return [1_000_000]


@pytest.fixture
def kept(now: list[int]) -> Idempotency:
    return Idempotency(FakeLocal(), now_ms=lambda: now[0])


def begin(kept: Idempotency, **other: Any) -> Claim | Kept:
    asked = {"caller": "default\0ann", "method": "POST", "target": "/v1/data/Task", "key": "k", "body": b"{}"}
    return kept.begin(**{**asked, **other})


async def once(kept: Idempotency, **other: Any) -> Claim:
    claim = begin(kept, **other)
    assert isinstance(claim, Claim)
    await kept.keep(claim, ANSWER)
    kept.end(claim)
    return claim


async def test_the_answer_is_the_one_that_was_given(kept: Idempotency) -> None:
    await once(kept)
    assert begin(kept) == ANSWER


@pytest.mark.parametrize("other", [{"caller": "default\0bob"}, {"key": "l"}, {"target": "/v1/data/Note"}])
async def test_a_key_belongs_to_its_caller_and_path(kept: Idempotency, other: dict[str, Any]) -> None:
    claim = await once(kept)
    another = begin(kept, **other)
    assert isinstance(another, Claim) and another.derived_id != claim.derived_id


async def test_the_same_key_with_another_request_is_refused(kept: Idempotency) -> None:
    await once(kept)
    for other in ({"body": b"[]"}, {"target": "/v1/data/Task?x=1"}):
        with pytest.raises(KeyReused):
            begin(kept, **other)


async def test_while_the_first_is_under_way_the_second_is_refused(kept: Idempotency) -> None:
    claim = begin(kept)
    assert isinstance(claim, Claim)
    with pytest.raises(KeyInUse):
        begin(kept)
    kept.end(claim)  # it failed: it may be tried again, and makes the same
    again = begin(kept)
    assert isinstance(again, Claim) and again.derived_id == claim.derived_id


async def test_after_a_day_an_answer_is_forgotten(kept: Idempotency, now: list[int]) -> None:
    await once(kept)
    now[0] += KEPT_MS + 1
    await once(kept)
    await kept.sweep()
    assert begin(kept) == ANSWER
    now[0] += KEPT_MS + 1
    await kept.sweep()
    assert isinstance(begin(kept), Claim)


async def test_what_speaks_of_an_erased_document_goes(kept: Idempotency) -> None:
    await once(kept)
    await kept.forget("default", "task_1", "other")
    assert begin(kept) == ANSWER
    await kept.forget("default", "task_1", "one")
    assert isinstance(begin(kept), Claim)


async def test_what_shows_documents_without_their_ids_goes_with_any_that_is_erased(kept: Idempotency) -> None:
    claim, late = begin(kept), begin(kept, key="l")
    assert isinstance(claim, Claim) and isinstance(late, Claim)
    await kept.keep(claim, ANSWER, names_all=False)
    kept.end(claim)
    await kept.forget("default", "task_1", "other")
    await kept.keep(late, ANSWER, names_all=False)  # it began before
    kept.end(late)
    for key in ("k", "l"):
        assert isinstance(begin(kept, key=key), Claim)


async def test_with_an_erased_account_all_its_answers_go_and_no_later_one_is_kept(kept: Idempotency) -> None:
    under_way = begin(kept, key="late")
    assert isinstance(under_way, Claim)
    await once(kept)
    await once(kept, caller=caller_of("default", "bob"))
    await kept.forget("default", builtin_model_id("default", "$account"), "ann")
    await kept.keep(under_way, ANSWER)
    kept.end(under_way)
    assert isinstance(begin(kept), Claim) and isinstance(begin(kept, key="late"), Claim)
    assert begin(kept, caller=caller_of("default", "bob")) == ANSWER


async def test_there_is_a_bound(kept: Idempotency) -> None:
    kept._count = RECORDS_MAX
    await once(kept)
    assert isinstance(begin(kept), Claim)
