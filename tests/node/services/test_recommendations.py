from typing import Any

import pytest

from node.services.account_models import ACCOUNT
from node.services.recommendations import APPLICATIONS_MAX
from protocol.ids import builtin_model_id
from tests.node.fakes import FakeNode


async def person(node: FakeNode, name: Any, interests: Any, application: Any = "default") -> Any:
    account = await node.identity.accounts.register(
        application, email=f"{name}@example.org", username=name, password="securepassword123"
    )
    if interests:
        await node.identity.profiles.add_interests(application, account.id, interests, user=account.id)
    return node.identity.accounts.require(application, account.id)


async def alike(node: FakeNode, account: Any, top_n: Any = 5) -> Any:
    return [
        (found.username, found.score, found.shared_interests)
        for found in await node.identity.recommendations.for_user(account, top_n)
    ]


async def test_the_most_alike_come_first_with_what_they_share(node: FakeNode) -> None:
    ann = await person(node, "ann", "hiking,chess,opera,go")
    await person(node, "ben", "hiking,chess,opera")
    await person(node, "cid", "Chess,cooking")
    await person(node, "dan", "cooking")
    await person(node, "eve", "")
    assert await alike(node, ann) == [
        ("ben", 0.75, ("chess", "hiking", "opera")),
        ("cid", 0.2, ("chess",)),
    ]
    assert await alike(node, ann, top_n=1) == [("ben", 0.75, ("chess", "hiking", "opera"))]


async def test_who_has_no_interests_is_recommended_nobody(node: FakeNode) -> None:
    await person(node, "ben", "hiking")
    assert await alike(node, await person(node, "eve", "")) == []


async def test_changes_here_count_at_once(node: FakeNode) -> None:
    ann = await person(node, "ann", "hiking")
    assert await alike(node, ann) == []
    ben = await person(node, "ben", "hiking,chess")
    assert await alike(node, ann) == [("ben", 0.5, ("hiking",))]
    await node.identity.profiles.add_interests("default", ann.id, "chess", user=ann.id)
    assert await alike(node, ann) == [("ben", 1.0, ("chess", "hiking"))]
    await node.identity.accounts.set_disabled("default", ben.id, True, user="admin")
    assert await alike(node, ann) == []


async def test_changes_from_peers_count_when_the_feed_tells_of_them(node: FakeNode) -> None:
    ann = await person(node, "ann", "hiking")
    ben = await person(node, "ben", "chess")
    assert await alike(node, ann) == []
    node.records.put("default", ACCOUNT, ben.id, {"interests": ["hiking"]})
    node.identity.on_change(builtin_model_id("default", ACCOUNT), ben.id)
    assert await alike(node, ann) == [("ben", 1.0, ("hiking",))]
    del node.records.documents["default", ACCOUNT, ben.id]
    node.identity.on_change(builtin_model_id("default", ACCOUNT), ben.id)
    assert await alike(node, ann) == []


async def test_a_change_while_the_index_is_being_read_is_not_undone(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(150):
        await person(node, f"user{n}", "hiking")
        node.clock.pass_s(1)
    ann = await person(node, "ann", "hiking")
    find = node.records.find
    first = next(key[2] for key in node.records.documents if key[1] == ACCOUNT)

    async def find_then_change(*arguments: Any) -> Any:
        answer = await find(*arguments)
        node.records.put("default", ACCOUNT, first, {"interests": ["chess"]})
        node.identity.on_change(builtin_model_id("default", ACCOUNT), first)
        return answer

    monkeypatch.setattr(node.records, "find", find_then_change)
    found = await node.identity.recommendations.for_user(ann, 100)
    assert len(found) == 100 and first not in {one.user for one in found}
    assert first not in {one.user for one in await node.identity.recommendations.for_user(ann, 1000)}


async def test_applications_are_kept_apart_and_the_longest_unused_is_dropped(node: FakeNode) -> None:
    people = {}
    for n in range(APPLICATIONS_MAX + 2):
        people[n] = await person(node, "ann", "hiking", f"app_{n}")
        await person(node, f"ben{n}", "hiking", f"app_{n}")
        assert await alike(node, people[n]) == [(f"ben{n}", 1.0, ("hiking",))]
    assert len(node.identity.recommendations._indexes) == APPLICATIONS_MAX
    assert len(node.identity.recommendations._fed) == APPLICATIONS_MAX
    assert await alike(node, people[0]) == [("ben0", 1.0, ("hiking",))]


@pytest.mark.parametrize("model", ["$account", "task_12345678", ""])
def test_news_of_other_models_is_none_of_its_business(node: FakeNode, model: Any) -> None:
    node.identity.on_change(model, "whatever")
