"""What counts, against the slow model: every small concurrent case, and many large odd ones, in every order."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import permutations, product
from random import Random

import pytest

from protocol.ids import Author, SpaceId, author_of
from protocol.membership import Fault, Link, Members, Role, Standing
from protocol.statements import Revoke
from tests.protocol.membership_model import Model
from tests.protocol.membership_world import (
    ADMINS,
    GENESIS,
    LAST,
    OTHER_SPACE,
    PEOPLE,
    SETUP,
    SPACE,
    SYSTEM,
    Said,
    Sayable,
    admit,
    cuts,
    grant,
    invite,
    keys,
    life,
    next_by,
    node,
    recover,
    revoke,
    say,
)

STORIES = 300
EVERYBODY = (*PEOPLE, "joe", "kim", "zoe", "eve")


# -- both opinions as something that can be compared ----------------------------------------------------------


def fold(said: Iterable[Said]) -> Members:
    found = Members.of_genesis(GENESIS)
    for each in said:
        found = found.with_commits([each.read])
    return found


def opinion(found: Members, said: Iterable[Said]) -> dict[object, object]:
    """All that the fold says of these commits and of everybody."""
    answer: dict[object, object] = {each.link: (found.standings(each.link), found.faults(each.link)) for each in said}
    for name in EVERYBODY:
        key = node(name)
        answer[name] = found.rights_of(key), found.is_revoked(key), found.is_suspended(key)
    return answer


def second_opinion(model: Model, said: Iterable[Said]) -> dict[object, object]:
    view = model.everything()
    outcome = model.outcome(view)
    answer: dict[object, object] = {}
    for each in said:
        ids = [id for id in view if id.link == each.link and id.index >= 0]
        ids.sort()
        answer[each.link] = tuple(outcome.standing[id] for id in ids), tuple(model.fault(id) for id in ids)
    for name in EVERYBODY:
        key = node(name)
        is_revoked = any(key == other for other, _ in outcome.revocations)
        answer[name] = model.rights_in(key, view), is_revoked, key in outcome.suspended
    return answer


def model_of(said: Iterable[Said]) -> Model:
    return Model(GENESIS, SYSTEM, [each.read for each in said])


# -- large odd ones --------------------------------------------------------------------------------------------


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
        said = Story(seed).said
        found = fold(said)
        first, second = opinion(found, said), second_opinion(model_of(said), said)
        assert first == second, f"seed {seed}"
        for each in said:
            reached.update(found.standings(each.link))
            reached.update(found.faults(each.link))
    few = {each for each in (*Standing, *Fault) if reached[each] < 10}
    assert few == {Fault.EXPIRED, Fault.OTHER_NETWORK, Fault.SILENT}  # no story has such bodies
