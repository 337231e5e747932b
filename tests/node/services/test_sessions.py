import asyncio
import base64
from collections.abc import Awaitable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.services.account_models import ACCOUNT, SIGNOUT
from node.services.accounts import Account
from node.services.lockout import Source
from node.services.refusals import SessionRefused
from node.services.sessions import EXCHANGED, ROTATIONS_KEPT_MAX, SESSION, Grant
from node.services.tokens import TokenRefused
from tests.node.fakes import FakeNode

DAY_S = 86_400


async def signed_in(node: FakeNode, email: str = "ann@example.org") -> tuple[Account, Grant]:
    accounts = node.identity.accounts
    found = await accounts.find_by_email("default", email)
    account = found[0] if found else await accounts.register(
        "default", email=email, username="ann", password="securepassword123"
    )  # fmt: skip
    return account, await node.identity.sessions.start(account)


async def refresh(node: FakeNode, grant: Grant) -> Grant:
    """What the holder of a grant gets for its refresh token."""
    return await node.identity.sessions.refresh(text_of(grant))


def text_of(grant: Grant) -> str:
    assert grant.refresh_token is not None
    return grant.refresh_token


def stands(node: FakeNode, token: str) -> bool:
    sessions = node.identity.sessions
    try:
        claims = node.identity.tokens.verify(token)
    except TokenRefused:
        return False
    return sessions.account_behind(claims) is not None


async def refused(awaitable: Awaitable[object]) -> bool:
    try:
        await awaitable
    except SessionRefused:
        return True
    return False


async def test_a_session_begins_with_a_token_for_an_hour(node: FakeNode) -> None:
    account, grant = await signed_in(node)
    assert (grant.user, grant.application, grant.expires_in_s) == (account.id, "default", 3600)
    assert stands(node, grant.token)
    node.clock.pass_s(3600)
    assert not stands(node, grant.token)


async def test_a_refresh_token_is_opaque_and_stored_only_as_a_hash(node: FakeNode) -> None:
    _, grant = await signed_in(node)
    text = text_of(grant)
    raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    secret = raw[20:52]
    kept = repr(node.local.entries)
    assert len(secret) == 32 and secret.hex() not in kept and text not in kept


async def test_a_refresh_gives_a_new_pair_and_the_old_token_stands_until_it_expires(node: FakeNode) -> None:
    _, first = await signed_in(node)
    node.clock.pass_s(1800)
    second = await refresh(node, first)
    assert second.session == first.session
    assert second.token != first.token and second.refresh_token != first.refresh_token
    assert second.expires_in_s == 3600
    assert stands(node, first.token) and stands(node, second.token)
    third = await refresh(node, second)
    assert third.refresh_token not in (first.refresh_token, second.refresh_token)


async def test_twenty_parallel_refreshes_give_one_successor(node: FakeNode) -> None:
    _, grant = await signed_in(node)
    node.clock.pass_s(60)
    answers = await asyncio.gather(*(refresh(node, grant) for _ in range(20)))
    assert len({answer.refresh_token for answer in answers}) == 1
    assert len({answer.token for answer in answers}) == 1
    assert node.local.stored(SESSION, grant.session)["number"] == 1
    successor = await refresh(node, answers[0])
    assert stands(node, successor.token)


async def test_a_lost_answer_can_be_asked_for_again_for_thirty_seconds(node: FakeNode) -> None:
    _, grant = await signed_in(node)
    first = await refresh(node, grant)
    node.clock.pass_s(30)
    again = await refresh(node, grant)
    assert (again.token, again.refresh_token) == (first.token, first.refresh_token)
    assert again.expires_in_s == 3570


async def test_a_late_retry_is_answered_even_when_its_successor_was_used_already(node: FakeNode) -> None:
    _, grant = await signed_in(node)
    first = await refresh(node, grant)
    second = await refresh(node, first)
    assert (await refresh(node, grant)).refresh_token == first.refresh_token
    assert (await refresh(node, first)).refresh_token == second.refresh_token
    assert stands(node, second.token)


async def test_a_retry_after_a_restart_gets_the_same_successor(node: FakeNode) -> None:
    _, grant = await signed_in(node)
    first = await refresh(node, grant)
    node.close()
    node.restart()
    assert (await refresh(node, grant)).refresh_token == first.refresh_token


@pytest.mark.parametrize("uses_in_between", [0, 1, 100])
async def test_a_replaced_token_used_later_ends_the_whole_family(
    node: FakeNode, uses_in_between: Any
) -> None:
    account, grant = await signed_in(node)
    other = await node.identity.sessions.start(account)
    newest = await refresh(node, grant)
    for _ in range(uses_in_between):
        newest = await refresh(node, newest)
    node.clock.pass_s(31)
    assert stands(node, newest.token)
    assert await refused(refresh(node, grant))
    assert await refused(refresh(node, newest))
    assert await refused(node.identity.sessions.exchange(newest.token))
    assert not stands(node, newest.token) and not stands(node, grant.token)
    assert node.records.get("default", SIGNOUT, grant.session) is not None
    assert stands(node, other.token)  # another session of the same account


async def test_what_is_kept_of_past_rotations_is_bounded(node: FakeNode) -> None:
    _, grant = await signed_in(node)
    for _ in range(ROTATIONS_KEPT_MAX + 20):
        grant = await refresh(node, grant)
    assert len(node.local.stored(SESSION, grant.session)["rotations"]) == ROTATIONS_KEPT_MAX
    node.clock.pass_s(31)
    grant = await refresh(node, grant)
    assert len(node.local.stored(SESSION, grant.session)["rotations"]) == 1


async def test_a_session_nobody_refreshes_is_over_after_a_month(node: FakeNode) -> None:
    _, grant = await signed_in(node)
    node.clock.pass_s(29 * DAY_S)
    grant = await refresh(node, grant)
    node.clock.pass_s(30 * DAY_S + 1)
    assert await refused(refresh(node, grant))


async def test_refresh_works_where_the_session_began_and_nowhere_else(node: FakeNode) -> None:
    _, grant = await signed_in(node)
    other = FakeNode(seed=b"\x02" * 32)
    try:
        assert await refused(other.identity.sessions.refresh(text_of(grant)))
        assert await refused(other.identity.sessions.exchange(grant.token))
    finally:
        other.close()


@pytest.mark.parametrize("change", ["first", "last", "longer", "shorter", "padded", "empty"])
async def test_a_refresh_token_that_was_tampered_with_is_refused_and_ends_nothing(
    node: FakeNode, change: Any
) -> None:
    _, grant = await signed_in(node)
    text = text_of(grant)
    odd = {
        "first": ("B" if text[0] == "A" else "A") + text[1:],
        "last": text[:-1] + ("B" if text[-1] == "A" else "A"),
        "longer": text + "AAAA",
        "shorter": text[:-4],
        "padded": text + "=",
        "empty": "",
    }[change]
    assert await refused(node.identity.sessions.refresh(odd))
    assert stands(node, (await node.identity.sessions.refresh(text)).token)


@given(st.text(max_size=300) | st.binary(max_size=80).map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
async def test_no_text_given_as_a_refresh_token_can_raise_anything_else(text: str) -> None:
    node = FakeNode()
    try:
        assert await refused(node.identity.sessions.refresh(text))
        assert await refused(node.identity.sessions.exchange(text))
    finally:
        node.close()


async def test_an_expired_token_is_exchanged_once_within_seven_days_but_for_a_retry(node: FakeNode) -> None:
    _, grant = await signed_in(node)
    node.clock.pass_s(3600 + 7 * DAY_S - 40)
    assert not stands(node, grant.token)
    fresh = await node.identity.sessions.exchange(grant.token)
    assert fresh.refresh_token is None and fresh.expires_in_s == 3600
    assert stands(node, fresh.token)
    node.clock.pass_s(30)
    assert (await node.identity.sessions.exchange(grant.token)).token == fresh.token  # the answer was lost
    node.clock.pass_s(1)
    assert await refused(node.identity.sessions.exchange(grant.token))
    assert stands(node, fresh.token)  # a second use is refused, and no more than that
    node.clock.pass_s(4000)
    assert stands(node, (await node.identity.sessions.exchange(fresh.token)).token)


async def test_an_expired_token_is_not_exchanged_after_seven_days(node: FakeNode) -> None:
    _, grant = await signed_in(node)
    node.clock.pass_s(3600 + 7 * DAY_S)
    assert await refused(node.identity.sessions.exchange(grant.token))


async def test_twenty_parallel_exchanges_give_one_token(node: FakeNode) -> None:
    _, grant = await signed_in(node)
    node.clock.pass_s(4000)
    grants = await asyncio.gather(*(node.identity.sessions.exchange(grant.token) for _ in range(20)))
    assert len({each.token for each in grants}) == 1


async def test_an_exchange_keeps_the_refresh_family_alive(node: FakeNode) -> None:
    _, grant = await signed_in(node)
    token = grant.token
    for _ in range(10):
        node.clock.pass_s(5 * DAY_S)
        token = (await node.identity.sessions.exchange(token)).token
    assert stands(node, (await refresh(node, grant)).token)


async def test_signing_out_ends_the_session_here_and_tells_every_node(node: FakeNode) -> None:
    account, grant = await signed_in(node)
    _, other = await signed_in(node)
    await node.identity.sessions.end(grant.session, user=account.id, application="default")
    assert not stands(node, grant.token)
    assert await refused(refresh(node, grant))
    assert await refused(node.identity.sessions.exchange(grant.token))
    signout = node.records.stored("default", SIGNOUT, grant.session)
    assert signout.values["user"] == account.id
    assert stands(node, other.token)


async def test_signing_out_twice_at_once_is_signing_out(node: FakeNode) -> None:
    account, grant = await signed_in(node)
    end = node.identity.sessions.end
    await asyncio.gather(*(end(grant.session, user=account.id, application="default") for _ in range(5)))
    assert not stands(node, grant.token)


async def test_news_of_a_sign_out_elsewhere_ends_the_session_here(node: FakeNode) -> None:
    account, grant = await signed_in(node)
    values = {"user": account.id, "node": "ff" * 32, "until_ms": node.clock.now_ms + 10**10}
    node.records.put("default", SIGNOUT, grant.session, values)
    assert not stands(node, grant.token)
    await node.records.delete("default", SIGNOUT, grant.session, user="a member's device")
    assert not stands(node, grant.token)  # nor is a sign-out taken back
    assert await refused(refresh(node, grant))
    assert await refused(node.identity.sessions.exchange(grant.token))


async def test_another_nodes_token_stands_until_its_session_ends_there() -> None:
    here, there = FakeNode(), FakeNode(seed=b"\x02" * 32)
    here.roles[there.node_id] = "member"
    try:
        account, grant = await signed_in(there)
        assert not stands(here, grant.token)  # the account has not arrived
        here.records.documents.update(there.records.documents)
        assert stands(here, grant.token)
        await there.identity.sessions.end(grant.session, user=account.id, application="default")
        here.records.documents.update(there.records.documents)
        assert not stands(here, grant.token)
    finally:
        here.close()
        there.close()


async def test_a_readers_session_ends_without_a_word_to_others(node: FakeNode) -> None:
    account, grant = await signed_in(node)
    node.own_role = "reader"
    await node.identity.sessions.end(grant.session, user=account.id, application="default")
    assert not stands(node, grant.token)
    assert node.records.get("default", SIGNOUT, grant.session) is None


async def test_a_change_of_password_ends_every_other_session(node: FakeNode) -> None:
    account, mine = await signed_in(node)
    _, other = await signed_in(node)
    await node.identity.accounts.change_password(
        account, "securepassword123", "a new password", session=mine.session, source=Source.of(None, None)
    )
    assert stands(node, mine.token) and not stands(node, other.token)
    assert await refused(refresh(node, other))
    assert await refused(node.identity.sessions.exchange(other.token))
    mine = await refresh(node, mine)
    assert stands(node, mine.token)
    _, later = await signed_in(node)
    assert stands(node, later.token)


async def test_a_password_set_by_an_administrator_ends_all_sessions(node: FakeNode) -> None:
    account, grant = await signed_in(node)
    await node.identity.accounts.set_password("default", account.id, "a new password", user="admin")
    assert not stands(node, grant.token)
    assert await refused(refresh(node, grant))


async def test_disabling_ends_all_sessions_for_good(node: FakeNode) -> None:
    account, grant = await signed_in(node)
    await node.identity.accounts.set_disabled("default", account.id, True, user="admin")
    assert not stands(node, grant.token)
    assert await refused(refresh(node, grant))
    assert await refused(node.identity.sessions.exchange(grant.token))
    await node.identity.accounts.set_disabled("default", account.id, False, user="admin")
    assert not stands(node, grant.token)
    assert await refused(refresh(node, grant))


async def test_a_deleted_account_has_no_session(node: FakeNode) -> None:
    account, grant = await signed_in(node)
    del node.records.documents["default", ACCOUNT, account.id]
    assert not stands(node, grant.token)
    assert await refused(refresh(node, grant))


async def test_a_surface_may_give_its_sessions_another_life(node: FakeNode) -> None:
    account, _ = await signed_in(node)
    grant = await node.identity.sessions.start(account, lifetime_s=7 * DAY_S)
    assert grant.expires_in_s == 7 * DAY_S
    assert (await refresh(node, grant)).expires_in_s == 7 * DAY_S


async def test_sweeping_drops_what_says_nothing_more_and_nothing_else(node: FakeNode) -> None:
    account, old = await signed_in(node)
    _, ended = await signed_in(node)
    node.clock.pass_s(4000)
    await node.identity.sessions.exchange(old.token)
    await node.identity.sessions.end(ended.session, user=account.id, application="default")
    elsewhere = {"user": account.id, "node": "ff" * 32, "until_ms": node.clock.now_ms}
    node.records.put("default", SIGNOUT, "elsewhere", elsewhere)
    before = (dict(node.local.entries), dict(node.records.documents))
    await node.identity.sessions.sweep(["default"])
    assert (node.local.entries, node.records.documents) == before
    node.clock.pass_s(40 * DAY_S)
    _, young = await signed_in(node)
    await node.identity.sessions.sweep(["default"])
    assert [key for kind, key in node.local.entries if kind in (SESSION, EXCHANGED)] == [young.session]
    assert [key[2] for key in node.records.documents if key[1] == SIGNOUT] == ["elsewhere"]
