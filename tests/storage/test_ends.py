"""What is remembered of the newest commits is what the tables say, and no more than it may be."""

import pytest

from protocol.ids import Author
from protocol.integrate import Head
from protocol.schema import Model
from storage import ends as module
from storage.ends import Ended, Ends
from tests.storage.kit import TASK, Refused, Site, refuse, tables

HASH = b"\1" * 32
NOBODY: dict[Author, int] = {}


def ended(count: int = 0) -> Ended:
    return Ended(HASH, {Author(bytes([n]) * 40): n for n in range(count)}, frozenset())


def test_the_head_and_the_newest_commits_of_a_chain_are_found() -> None:
    ends = Ends()
    assert ends.get(1) is None and ends.commit(1, 1) is None
    ends.put_head(1, None)
    ends.put(1, Head(1, HASH, 5), ended())
    ends.put(1, Head(2, HASH, 6), ended(3))
    end = ends.get(1)
    assert end is not None and end.head == Head(2, HASH, 6)
    assert ends.commit(1, 1) == ended() and ends.commit(1, 2) == ended(3)
    assert ends.commit(1, 3) is None and ends.commit(2, 1) is None
    ends.clear()
    assert ends.get(1) is None


def test_it_begins_anew_when_it_holds_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WEIGHT_MAX", 20)
    ends = Ends()
    for seq in range(1, 30):
        ends.put(1, Head(seq, HASH, seq), ended(5))
        held = [s for s in range(1, 30) if ends.commit(1, s) is not None]
        assert len(held) <= 3
    ends.put(1, Head(30, HASH, 30), ended(50))  # more than it may hold by itself
    assert ends.commit(1, 30) is None


def pair() -> tuple[Site, Site, Model]:
    """Two lives of one node, which write in turn and integrate what the other has written."""
    first = Site(seed=1)
    model = first.define(TASK)
    second = Site(seed=2, founder=first)
    second.receive_from(first)
    second.catch_up()
    return first, second, model


def test_a_node_without_memory_stores_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = []
    for weight in (module.WEIGHT_MAX, 0):  # with none, everything is asked of the tables
        monkeypatch.setattr(module, "WEIGHT_MAX", weight)
        first, second, model = pair()
        for n in range(4):
            first.create(model, f"a{n}", title=str(n))
            second.receive_from(first)
            second.create(model, f"b{n}", title=str(n))
            second.update(model, f"a{n}", points=n)
            first.receive_from(second)
        stored.append([tables(site.store.keys) for site in (first, second)])
    assert stored[0] == stored[1]


def test_nothing_is_remembered_of_a_write_that_was_not_kept() -> None:
    first, second, model = pair()
    before = first.create(model, "a", title="x")
    with pytest.raises(Refused):
        first.create(model, "b", refuse, title="y")
    with pytest.raises(RuntimeError), first.store.write() as batch:
        for commit in second.commits()[-1:]:
            batch.integrate(commit)
        assert first.store.identity is not None
        head = batch.head(first.store.space("default"), first.store.identity.author)
        raise RuntimeError
    assert head is not None
    after = first.update(model, "a", title="z")
    assert after.version != before.version
    second.receive_from(first)
    assert second.values(model, "a") == {"title": "z"}
