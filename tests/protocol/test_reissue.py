"""What is said again of a lost branch: as much as was lost, and no more, whatever others have made of the rest."""

from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from protocol.body import Dot, Kind
from protocol.document import Document
from protocol.planning import Plan, plan_delete, plan_write
from protocol.reissue import Again, Lost, plan_again

OLD, NEW, PEER = b"o" * 40, b"n" * 40, b"p" * 40
SETS, COUNTERS = ("tags",), ("votes",)


class Writing:
    """A document that authors write to, one after the other, each having seen what is there."""

    def __init__(self, document: Document | None = None) -> None:
        self.document = document or Document("m", "d")
        self.seqs: dict[bytes, int] = {}

    def copy(self) -> "Writing":
        other = Writing(self.document.copy())
        other.seqs = dict(self.seqs)
        return other

    def apply(self, author: bytes, plan: Plan | Again) -> None:
        if not plan.operations:
            return
        seq = self.seqs[author] = self.seqs.get(author, 0) + 1
        user = plan.user if isinstance(plan, Again) else author.decode()[0]
        self.document.apply(
            Dot(author, seq, 0), 100 * sum(self.seqs.values()), user, plan.seen, plan.operations
        )

    def put(self, author: bytes, **values: Any) -> "Writing":
        self.apply(author, plan_write(self.document, values, sets=SETS, counters=COUNTERS, author=author))
        return self

    def delete(self, author: bytes) -> "Writing":
        if self.document.exists:
            self.apply(author, plan_delete(self.document, author))
        return self

    def say_again(
        self, without: Document, wanted: Document, said: dict[str, int] | None = None
    ) -> list[Again]:
        lost = Lost(without, wanted, lambda dot: dot.author == OLD and dot.seq > 1, said)
        plans = plan_again(self.document, lost, NEW, lambda author: 0)
        for plan in plans:
            self.apply(NEW, plan)
        return plans


def begun() -> Writing:
    return Writing().put(OLD, title="t0", votes=1, tags=["a", "b"])


def shown(writing: Writing) -> dict[str, Any]:
    values = writing.document.values()
    return {**values, "tags": sorted(values.get("tags", []))}


def test_a_value_a_sum_and_a_set_are_brought_back() -> None:
    base = begun()
    wanted = base.copy().put(OLD, title="t1", votes=4, tags=["b", "c"])
    base.say_again(base.document.copy(), wanted.document)
    assert shown(base) == shown(wanted) and len(base.document.live_values("title")) == 1


def test_what_another_wrote_without_having_seen_it_stays_beside_it() -> None:
    base = begun()
    now = base.copy().put(PEER, title="of a peer")
    both = now.copy()
    both.seqs[OLD] = 1
    both.apply(OLD, Plan((Dot(OLD, 1, 0),), [[Kind.SET.value, {"title": "lost"}]]))
    now.say_again(now.document.copy(), both.document)
    assert {value for _, value in now.document.live_values("title")} == {"lost", "of a peer"}


def test_a_lost_deletion_is_said_again_and_a_lost_return_too() -> None:
    base = begun()
    gone = base.copy().delete(OLD)
    again = base.copy()
    again.say_again(base.document, gone.document)
    assert not again.document.exists
    back = gone.copy().put(OLD, title="back", votes=2)
    again.say_again(gone.document, back.document)
    assert again.document.values() == {"title": "back", "votes": 2} and len(again.document.layers) == 1


def test_nothing_lost_is_nothing_said() -> None:
    base = begun()
    assert base.say_again(base.document.copy(), base.document.copy()) == []


def test_a_document_that_was_only_on_the_lost_branch_is_made_with_its_user() -> None:
    empty = Writing()
    wanted = Writing()
    wanted.seqs[OLD] = 1
    wanted.put(OLD, title="new", votes=3)
    (plan,) = empty.say_again(Document("m", "d"), wanted.document)
    assert plan.user == "o" and empty.document.values() == {"title": "new", "votes": 3}


@given(seed=st.integers(0, 1 << 32))
def test_all_that_was_lost_shows_whatever_was_written_and_counters_add_up(seed: int) -> None:
    random = Random(seed)
    base = begun()

    def act(writing: Writing, author: bytes) -> None:
        if random.random() < 0.2:
            writing.delete(author)
        else:
            fields = {
                "title": f"t{random.randrange(99)}",
                "votes": random.randrange(9),
                "tags": random.sample("abcd", random.randrange(4)),
            }
            names = random.sample(sorted(fields), random.randint(1, 3))
            writing.put(author, **{name: fields[name] for name in names})

    for _ in range(random.randrange(3)):
        act(base, PEER)
    wanted = base.copy()
    for _ in range(random.randint(1, 4)):
        act(wanted, OLD)
    now = base.copy()
    now.say_again(base.document, wanted.document)
    assert now.document.exists == wanted.document.exists
    if now.document.exists:
        assert shown(now) == shown(wanted)
