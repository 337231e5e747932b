"""What counts, against the slow model: every small case in every order, and many large odd ones."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import permutations, product
from random import Random

from protocol.ids import SpaceId, author_of
from protocol.membership import Fault, Members, Role, Standing
from protocol.statements import Recover, Revoke
from tests.protocol.membership_cases import (
    ABOUT_ANOTHER,
    ABOUT_NONE,
    ADMIT_JOE,
    ADMIT_KIM,
    DEMOTE,
    INVITE,
    RECOVER,
    RECOVER_ALONE,
    REVOKE,
    REVOKE_ALL,
    actions_of,
    said_now,
)
from tests.protocol.membership_model import Id, Ids, Model
from tests.protocol.membership_world import (
    ADMINS,
    GENESIS,
    LAST,
    NAMES,
    PEOPLE,
    SETUP,
    SPACE,
    SYSTEM,
    Said,
    Sayable,
    admit,
    grant,
    invite,
    life,
    next_by,
    node,
    recover,
    revoke,
    say,
)

STORIES = 150
EVERYBODY = (*PEOPLE, "joe", "kim", "zoe", "eve")


# -- both opinions as something that can be compared ---------------------------------------------------------


def fold(said: Iterable[Said]) -> Members:
    """What the fold makes of commits that arrive in this order."""
    return Members.of_genesis(GENESIS).with_commits(each.read for each in said)


def opinion(found: Members, said: Iterable[Said]) -> dict[object, object]:
    """All that the fold says of these commits and of everybody."""
    answer: dict[object, object] = {}
    for each in said:
        answer[each.link] = found.standings(each.link), found.faults(each.link)
    for name in EVERYBODY:
        key = node(name)
        answer[name] = found.rights_of(key), found.is_revoked(key), found.is_suspended(key)
    return answer


def second_opinion(model: Model, said: Iterable[Said], view: Ids) -> dict[object, object]:
    outcome = model.outcome(view)
    answer: dict[object, object] = {}
    for each in said:
        ids = [Id(each.link, index) for index in range(len(each.read.statements))]
        answer[each.link] = tuple(outcome.standing[id] for id in ids), tuple(model.fault(id) for id in ids)
    for name in EVERYBODY:
        key = node(name)
        is_revoked = any(key == other for other, _ in outcome.revocations)
        answer[name] = model.rights_in(key, view), is_revoked, key in outcome.suspended
    return answer


def model_of(said: Iterable[Said]) -> Model:
    return Model(GENESIS, SYSTEM, [each.read for each in said])


# -- every small case ----------------------------------------------------------------------------------------


def check(model: Model, cases: Iterable[Sequence[Said]]) -> int:
    """Both opinions agree on each case, in every order in which it can arrive. How many cases there were."""
    count, setup = 0, fold(SETUP.values())
    for case in cases:
        count += 1
        expected = second_opinion(model, case, frozenset().union(*(model.reach(s.link) for s in case)))
        for order in permutations(case):
            if all(is_after_causes(order, each, position) for position, each in enumerate(order)):
                found = setup.with_commits(each.read for each in order)
                assert opinion(found, case) == expected, describe(case)
    return count


def is_after_causes(order: Sequence[Said], each: Said, position: int) -> bool:
    return all(later.link not in each.read.parents for later in order[position + 1 :])


def describe(case: Iterable[Said]) -> str:
    return "; ".join(f"{NAMES[each.read.author[:32]]} {each.read.statements}" for each in case)


def test_two_administrators_at_the_same_time() -> None:
    for pair in (("ann", "bob"), ("bob", "cat")):
        first, second = (actions_of(who, (*pair, "dan")) for who in pair)
        model = model_of([*SETUP.values(), *first, *second])
        assert check(model, product(first, second)) == len(first) * len(second) > 250


def test_three_administrators_at_the_same_time() -> None:
    people = ("ann", "bob", "cat")
    kinds = (REVOKE, REVOKE_ALL, DEMOTE, RECOVER), (ADMIT_JOE, ADMIT_KIM)
    choices = [actions_of(who, people, *kinds) for who in people]
    model = model_of([*SETUP.values(), *(each for choice in choices for each in choice)])
    assert check(model, product(*choices)) == 10**3


def test_four_administrators_revoke_one_another_or_do_not() -> None:
    choices = [actions_of(who, ADMINS, (REVOKE,), (INVITE,)) for who in ADMINS]
    model = model_of([*SETUP.values(), *(each for choice in choices for each in choice)])
    assert check(model, product(*choices)) == 4**4


def test_what_is_said_after_and_back_dated() -> None:
    """bob goes on in his chain as if he had not seen what cat said; cat speaks once."""
    first = [said_now("bob", action, "cat") for action in (REVOKE, DEMOTE, INVITE, RECOVER_ALONE)]
    second = [
        next_by("bob", action.make(about), after=each)
        for each in first
        for action in (*ABOUT_ANOTHER, *ABOUT_NONE)
        for about in (("cat", "dan") if action in ABOUT_ANOTHER else ("",))
    ]
    by_link = {each.link: each for each in first}
    others = actions_of("cat", ("bob",))
    model = model_of([*SETUP.values(), *first, *second, *others])
    cases = [
        (by_link[parent], each, other)
        for each in second
        for parent in each.read.parents
        if parent in by_link
        for other in others
    ]
    assert check(model, cases) == len(second) * len(others)


def test_what_is_said_by_one_who_has_seen_both() -> None:
    first = actions_of("bob", ("cat",))
    second = actions_of("cat", ("bob",))
    kinds = (REVOKE, REVOKE_ALL, DEMOTE), (ADMIT_JOE, ADMIT_KIM)
    said = [kind.make(about) for kind in kinds[0] for about in ("bob", "cat")]
    said += [kind.make("") for kind in kinds[1]] + [grant(name, Role.MEMBER) for name in ("joe", "kim")]
    cases = [
        (one, other, next_by("dan", each, seen=[one, other]))
        for one, other in product(first, second)
        for each in said
    ]
    model = model_of([*SETUP.values(), *first, *second, *(third for _, _, third in cases)])
    assert check(model, cases) == len(first) * len(second) * 10


# -- large odd ones ------------------------------------------------------------------------------------------


class Story:
    """A network in which nobody keeps to the rules: a random causal order of random statements."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.said: list[Said] = list(SETUP.values())
        self.chains: dict[tuple[str, int], list[Said]] = {(name, 1): [LAST[name]] for name in ADMINS}
        self.chains["ann", 1] = [SETUP[name] for name in ("a1", "a2", "a3", "ann")]
        self.is_about_tickets = seed % 3 == 0
        if self.is_about_tickets:
            for who in self.random.sample(ADMINS, self.random.randint(2, 3)):
                self._add(who, next_by(who, self._admit()))
        for _ in range(self.random.randint(3, 10)):
            self._step()

    def _step(self) -> None:
        random = self.random
        who = random.choice((*ADMINS, *ADMINS, "mia", "joe", "kim", "zoe"))
        incarnation = random.choice((1, 1, 1, 2))
        chain = self.chains.setdefault((who, incarnation), [])
        after = None
        if chain:  # mostly the newest; sometimes an older one, which makes a fork
            after = chain[-1] if random.random() < 0.9 else random.choice([None, *chain])
        late = self.said[len(SETUP) :][-6:]
        seen = random.sample(late, random.randint(0, min(len(late), 4)))
        if random.random() < 0.8:
            seen += LAST.values()
        statements = [self._statement() for _ in range(random.choice((1, 1, 1, 2, 0)))]
        each = say(who, *statements, seen=seen, after=after, incarnation=incarnation)
        self._add(who, each, incarnation)

    def _add(self, who: str, each: Said, incarnation: int = 1) -> None:
        if all(each.link != other.link for other in self.said):
            self.said.append(each)
            self.chains[who, incarnation].append(each)

    def _statement(self) -> Sayable:
        random = self.random
        kinds: dict[Callable[[], Sayable], int] = {
            self._admit: 3,
            self._promote: 8 if self.is_about_tickets else 2,
            self._revoke: 1 if self.is_about_tickets else 4,
            self._grant: 2,
            self._invite: 1,
            self._recover: 1,
        }
        return random.choices(list(kinds), list(kinds.values()))[0]()

    def _admit(self) -> Sayable:
        ticket = self.random.choice((*["ticket of ann"] * 4, "ticket of bob", "ticket of eve"))
        return admit(ticket, self.random.choice(("joe", "joe", "kim", "zoe")))

    def _promote(self) -> Sayable:
        return grant(self.random.choice(("joe", "kim", "zoe")), self.random.choice((Role.ADMIN, Role.MEMBER)))

    def _grant(self) -> Sayable:
        spaces = self.random.choice([None, None, None, frozenset[SpaceId](), frozenset({SPACE})])
        return grant(self.random.choice(EVERYBODY), self.random.choice(tuple(Role)), spaces)

    def _invite(self) -> Sayable:
        role = self.random.choice((Role.MEMBER, Role.ADMIN))
        return invite(self.random.choice(("ticket of eve", "ticket of ann")), role)

    def _revoke(self) -> Revoke:
        name = self.random.choice((*ADMINS, "mia", "joe", "kim", "zoe"))
        chains = [chain for (who, _), chain in self.chains.items() if who == name and chain]
        heads = [self.random.choice(chain[-2:]) for chain in chains if self.random.random() < 0.8]
        return revoke(name, *heads)

    def _recover(self) -> Sayable:
        revoked = {each.node: each for each in (self._revoke() for _ in range(self.random.randint(0, 2)))}
        return recover(*revoked.values())


def test_whatever_was_said_both_opinions_agree() -> None:
    reached: Counter[object] = Counter()
    for seed in range(STORIES):
        story = Story(seed)
        said, found, model = story.said, fold(story.said), model_of(story.said)
        everything = model.everything()
        assert opinion(found, said) == second_opinion(model, said, everything), f"seed {seed}"

        heads = [each.link for each in story.random.sample(said, 3)]
        past: Ids = frozenset().union(*(model.reach(head) for head in heads))
        then = found.at(heads)
        for name in EVERYBODY:
            rights = model.rights_in(node(name), past)
            assert then.rights_of(node(name)) == rights, f"seed {seed}"
            assert found.role_at(node(name), heads) == (rights.role if rights else None)
            data = SPACE, author_of(node(name), life(1)), story.random.randint(1, 3), bytes(32)
            verdict = found.judge(*data, heads)
            expected = model.judge(everything, heads, *data)
            assert (verdict.standing, verdict.role) == expected, f"seed {seed}"
            reached[verdict.standing, "data"] += 1
        for each in said:
            reached.update(found.standings(each.link))
            reached.update(found.faults(each.link))
    few = {each for each in (*Standing, *Fault) if reached[each] < 5}
    assert few == {Fault.EXPIRED, Fault.OTHER_NETWORK, Fault.SILENT}  # no story has such bodies
    assert all(reached[each, "data"] for each in Standing if each is not Standing.FORKED)


def test_the_order_of_arrival_does_not_matter() -> None:
    for seed in range(0, STORIES, 3):
        story = Story(seed)
        expected = opinion(fold(story.said), story.said)
        shuffled = list(story.said)
        story.random.shuffle(shuffled)  # causes late too: the fold sorts them out
        found = fold(shuffled)
        assert opinion(found, story.said) == expected, f"seed {seed}"
        again = found.with_commits(each.read for each in shuffled[::-1])
        assert opinion(again, story.said) == expected
        assert opinion(found.at(found.heads), story.said) == expected
        assert found.heads == fold(story.said).heads


def test_without_a_recovery_a_valid_revocation_stands_for_good() -> None:
    count = 0
    for seed in range(STORIES):
        said = Story(seed).said
        statements = [statement for each in said for statement in each.read.statements]
        if any(isinstance(statement, Recover) for statement in statements):
            continue
        found = fold(said)
        for each in said:
            for statement, fault in zip(each.read.statements, found.faults(each.link), strict=True):
                if isinstance(statement, Revoke) and fault is None:
                    count += 1
                    assert found.is_revoked(statement.node)
                    assert found.rights_of(statement.node) is None
    assert count > 50
