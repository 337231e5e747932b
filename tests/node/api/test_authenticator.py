import timeit
from dataclasses import replace
from typing import Any

import pytest

from node.api.authenticator import Authenticator, owner_caller
from node.api.errors import InvalidToken
from node.services.account_models import ACCOUNT, APIKEY, ROLE, SIGNOUT
from node.services.identity import LIFETIME_S
from protocol.ids import builtin_model_id
from tests.node.fakes import START_MS, FakeNode

SECRET = "a shared secret of more than thirty-two bytes"


class Gate:
    """A node's accounts and the authenticator in front of them."""

    def __init__(self, **options: Any) -> None:
        self.node = FakeNode(**options)
        self.identity = self.node.identity
        self.authenticator = Authenticator(
            self.identity.tokens,
            self.identity.sessions,
            self.identity.api_keys,
            now_ms=self.node.clock,
            remembered_max=50,
        )
        self.identity.changes.listen(self.authenticator.on_change)

    async def sign_in(self, email: Any = "ann@example.org", application: Any = "default") -> Any:
        accounts = self.identity.accounts
        found = await accounts.find_by_email(application, email)
        account = found[0] if found else await accounts.register(
            application, email=email, username="ann", password="securepassword123"
        )  # fmt: skip
        return account, await self.identity.sessions.start(account)

    async def caller(self, token: Any) -> Any:
        """By the quick way if that answers, as the frame does."""
        return self.authenticator.cached(token) or await self.authenticator.authenticate(token)

    async def refuses(self, token: Any) -> Any:
        try:
            await self.caller(token)
        except InvalidToken:
            return self.authenticator.cached(token) is None
        return False


@pytest.fixture
def gate() -> Any:
    made = Gate()
    yield made
    made.node.close()


async def test_a_token_is_verified_once_and_then_remembered(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    account, grant = await gate.sign_in()
    assert gate.authenticator.cached(grant.token) is None
    caller = await gate.caller(grant.token)
    assert (caller.user_id, caller.application, caller.session_id) == (account.id, "default", grant.session)
    assert not caller.is_admin and not caller.is_owner and caller.key
    monkeypatch.setattr(gate.identity.tokens, "verify", None)  # not asked again
    assert gate.authenticator.cached(grant.token) is caller
    assert await gate.authenticator.authenticate(grant.token) is caller


async def test_a_remembered_token_expires_to_the_second(gate: Gate) -> None:
    _, grant = await gate.sign_in()
    await gate.caller(grant.token)
    gate.node.clock.pass_s(LIFETIME_S - 0.1)
    assert gate.authenticator.cached(grant.token) is not None
    gate.node.clock.pass_s(0.1)
    assert await gate.refuses(grant.token)


async def test_every_change_takes_effect_on_the_very_next_request(gate: Gate) -> None:
    account, grant = await gate.sign_in()
    accounts, sessions = gate.identity.accounts, gate.identity.sessions
    assert not (await gate.caller(grant.token)).is_admin
    await accounts.grant_role("default", account.id, "admin", user="owner")
    assert (await gate.caller(grant.token)).is_admin
    await accounts.withdraw_role("default", account.id, "admin", user="owner")
    assert not (await gate.caller(grant.token)).is_admin
    await accounts.set_disabled("default", account.id, True, user="owner")
    assert await gate.refuses(grant.token)
    await accounts.set_disabled("default", account.id, False, user="owner")
    _, grant = await gate.sign_in()
    await gate.caller(grant.token)
    await accounts.set_password("default", account.id, "a new password", user="owner")
    assert await gate.refuses(grant.token)
    _, grant = await gate.sign_in()
    _, other = await gate.sign_in()
    await gate.caller(grant.token)
    await gate.caller(other.token)
    await sessions.end(grant.session, user=account.id, application="default")
    assert await gate.refuses(grant.token)
    assert (await gate.caller(other.token)).session_id == other.session


@pytest.mark.parametrize(
    ("model", "values", "refused"),
    [
        (ACCOUNT, {"disabled": True}, True),
        (ACCOUNT, {"generation": "another"}, True),
        (ROLE, {"roles": ["editor"]}, False),
        (SIGNOUT, {"user": "u", "node": "ff" * 32, "until_ms": 0}, True),
    ],
)
async def test_a_change_from_a_peer_takes_effect_when_the_feed_tells_of_it(
    gate: Gate, model: Any, values: Any, refused: Any
) -> None:
    account, grant = await gate.sign_in()
    await gate.caller(grant.token)
    id = grant.session if model == SIGNOUT else account.id
    gate.node.records.put("default", model, id, values)
    gate.identity.on_change(builtin_model_id("default", model), id)
    if refused:
        assert await gate.refuses(grant.token)
    else:
        assert (await gate.caller(grant.token)).roles == {"editor"}


async def test_an_account_that_was_deleted_is_nobody(gate: Gate) -> None:
    account, grant = await gate.sign_in()
    await gate.caller(grant.token)
    del gate.node.records.documents["default", ACCOUNT, account.id]
    gate.identity.on_change(builtin_model_id("default", ACCOUNT), account.id)
    assert await gate.refuses(grant.token)


async def test_news_of_others_forgets_nothing(gate: Gate) -> None:
    _, grant = await gate.sign_in()
    caller = await gate.caller(grant.token)
    gate.identity.on_change("task_12345678", "01hf7yawxr947kq3rdb60n2j9m")
    assert gate.authenticator.cached(grant.token) is caller


async def test_no_more_than_so_many_are_remembered_the_oldest_goes(gate: Gate) -> None:
    account, _ = await gate.sign_in()
    grants = [await gate.identity.sessions.start(account) for _ in range(60)]
    for grant in grants:
        await gate.caller(grant.token)
    remembered = [gate.authenticator.cached(grant.token) is not None for grant in grants]
    assert remembered == [False] * 10 + [True] * 50
    assert sum(map(len, gate.authenticator._about.values())) == 100  # by user and by session
    gate.authenticator.on_change("$account_x", account.id)
    assert not gate.authenticator._known and not gate.authenticator._about


async def test_a_second_text_of_a_remembered_token_is_no_way_around_its_end(gate: Gate) -> None:
    account, grant = await gate.sign_in()
    await gate.caller(grant.token)
    await gate.identity.sessions.end(grant.session, user=account.id, application="default")
    for text in (grant.token, grant.token + "!!!!", grant.token + "=", grant.token + " ", grant.token + "\n"):
        assert await gate.refuses(text)


async def test_an_administrators_token_from_a_member_node_opens_nothing_special_here() -> None:
    here, there = Gate(), Gate(seed=b"\x02" * 32)
    try:
        account, grant = await there.sign_in()
        await there.identity.accounts.grant_role("default", account.id, "admin", user="owner")
        assert (await there.caller(grant.token)).is_admin
        here.node.records.documents.update(there.node.records.documents)
        here.node.roles[there.node.node_id] = "member"
        caller = await here.caller(grant.token)
        assert caller.user_id == account.id and not caller.is_admin
        assert caller.is_admin_elsewhere and not caller.roles
        here.node.roles[there.node.node_id] = "admin"
        here.authenticator.forget_all()
        assert (await here.caller(grant.token)).is_admin
        del here.node.roles[there.node.node_id]
        here.authenticator.forget_all()
        assert await here.refuses(grant.token)
    finally:
        here.node.close()
        there.node.close()


async def test_a_shared_secret_signs_for_users_and_never_for_administrators() -> None:
    import jwt

    gate = Gate(shared_secret=SECRET)
    try:
        account, _ = await gate.sign_in()
        token = jwt.encode({"sub": account.id, "exp": START_MS // 1000 + 60}, SECRET, algorithm="HS256")
        caller = await gate.caller(token)
        assert (caller.user_id, caller.session_id) == (account.id, None)
        await gate.identity.accounts.grant_role("default", account.id, "admin", user="owner")
        assert await gate.refuses(token)
    finally:
        gate.node.close()


async def test_rights_come_from_the_account_and_never_from_claims() -> None:
    import jwt

    gate = Gate(shared_secret=SECRET)
    try:
        account, _ = await gate.sign_in()
        said = {
            "sub": account.id,
            "exp": START_MS // 1000 + 60,
            "roles": ["admin"],
            "is_admin": True,
            "role": "admin",
        }
        caller = await gate.caller(jwt.encode(said, SECRET, algorithm="HS256"))
        assert not caller.is_admin and not caller.roles
    finally:
        gate.node.close()


async def test_the_quick_way_is_quick(gate: Gate) -> None:
    _, grant = await gate.sign_in()
    await gate.caller(grant.token)
    cached = gate.authenticator.cached
    took_s = min(timeit.repeat(lambda: cached(grant.token), number=2000, repeat=5)) / 2000
    assert took_s < 5e-6  # 0.2 µs on an idle machine


async def keyed(gate: Gate, *scopes: str, **more: Any) -> Any:
    """-> account, key, its text."""
    account, _ = await gate.sign_in()
    key, text = await gate.identity.api_keys.create(
        account, name="a program", scopes=list(scopes), is_admin=account.is_admin, **more
    )
    return account, key, text


async def test_an_api_key_stands_for_its_user_within_its_scopes(gate: Gate) -> None:
    account, key, text = await keyed(gate, "read", "data:Task:write")
    _, grant = await gate.sign_in()
    caller, person = await gate.caller(text), await gate.caller(grant.token)
    assert (caller.user_id, caller.application, caller.session_id) == (account.id, "default", None)
    assert caller.api_key_id == key.id and caller.scopes.words == ("data:Task:write", "read")
    assert caller.key == person.key and person.scopes is None
    assert gate.authenticator.cached(text) is caller


async def test_a_key_is_never_more_than_its_user_is_now(gate: Gate) -> None:
    account, _ = await gate.sign_in()
    accounts = gate.identity.accounts
    await accounts.grant_role("default", account.id, "admin", user="owner")
    await accounts.grant_role("default", account.id, "editor", user="owner")
    _, _, admin = await keyed(gate, "admin")
    _, _, plain = await keyed(gate, "read", "write")
    assert (await gate.caller(admin)).is_admin and not (await gate.caller(plain)).is_admin
    assert (await gate.caller(plain)).roles == {"editor"}
    await accounts.withdraw_role("default", account.id, "admin", user="owner")
    assert not (await gate.caller(admin)).is_admin and (await gate.caller(admin)).roles == {"editor"}
    await accounts.withdraw_role("default", account.id, "editor", user="owner")
    assert (await gate.caller(plain)).roles == frozenset()


async def test_what_ends_a_key_ends_it_on_the_very_next_request(gate: Gate) -> None:
    account, key, text = await keyed(gate, "read")
    await gate.caller(text)
    await gate.identity.api_keys.revoke(key, user=account.id)
    assert await gate.refuses(text)
    _, _, text = await keyed(gate, "read")
    await gate.caller(text)
    await gate.identity.accounts.end_all(account)
    assert await gate.refuses(text)
    _, _, text = await keyed(gate, "read")
    await gate.caller(text)
    await gate.identity.accounts.set_disabled("default", account.id, True, user="owner")
    assert await gate.refuses(text)
    await gate.identity.accounts.set_disabled("default", account.id, False, user="owner")
    assert await gate.refuses(text)


async def test_a_remembered_key_expires_to_the_second_and_tells_its_last_use(gate: Gate) -> None:
    _, key, text = await keyed(gate, "read", expires_in=60)
    keys = gate.identity.api_keys
    assert keys.last_used_ms(key) is None
    await gate.caller(text)
    gate.node.clock.pass_s(59.9)
    assert gate.authenticator.cached(text) is not None
    used_ms = gate.node.clock()
    assert keys.last_used_ms(key) == used_ms
    gate.node.clock.pass_s(0.1)
    assert await gate.refuses(text)
    await keys.keep_uses()
    gate.node.restart()
    assert gate.node.identity.api_keys.last_used_ms(key) == used_ms


async def test_ids_that_are_alike_break_nothing(gate: Gate) -> None:
    """A peer may have written a key whose id is that of its user."""
    account, key, text = await keyed(gate, "read")
    documents = gate.node.records.documents
    written = documents["default", APIKEY, key.id]
    documents["default", APIKEY, account.id] = replace(written, id=account.id)
    twin = text.replace(key.id, account.id)
    await gate.caller(twin)
    await gate.caller(text)
    gate.authenticator.on_change("$account_x", account.id)
    assert gate.authenticator.cached(twin) is gate.authenticator.cached(text) is None
    assert (await gate.caller(twin)).known_as == (account.id,)


async def test_a_remembered_key_is_as_quick_as_a_token(gate: Gate) -> None:
    _, _, text = await keyed(gate, "read")
    await gate.caller(text)
    cached = gate.authenticator.cached
    took_s = min(timeit.repeat(lambda: cached(text), number=2000, repeat=5)) / 2000
    assert took_s < 20e-6


def test_the_owner_acts_under_the_nodes_name() -> None:
    owner = owner_caller("kitchen")
    assert (owner.user_id, owner.is_admin, owner.is_owner) == ("owner@kitchen", True, True)
