"""The simulator finds bugs: each of these is planted on purpose, and a handful of seeded runs must fail over it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

import protocol.causal
import protocol.document
import simulations.faults
import storage.store
from protocol.body import Dot, Operation
from protocol.commit import NO_PREVIOUS, Commit
from protocol.document import Document, Layer
from protocol.integrate import Integrated, Outcome, View, integrate
from protocol.verdicts import Judge
from simulations.faults import Run, Settings
from simulations.forger import window_of
from simulations.harness import Node
from simulations.hostile import Hostile

SEEDS = range(6)
SETTINGS = Settings(
    nodes=3, steps=60, step_ms=50, latency_ms=(5, 60), effect_ms=(0, 5), window_target_bytes=2_000, skew_ms=1_000,
    create=2, update=8, delete=1, cut=1, cut_silently=0, crash=1, back_up=0, restore=0, set_back=0, clone=0,
    spoil_frames=0, hostile=2, attack=8, sign_twice=0, revoke=0, grant=0, recover=0,
)  # fmt: skip


class Breaker(Hostile):
    """As hostile as the others; and its chains do not hold together."""

    def act(self, node: Node) -> None:
        """What one of these bugs lets through is tried more often than the rest."""
        acts: list[Callable[[Node], object]] = [
            super().act, self.break_the_chain, self.write_with_a_false_past, self.turn_the_clock_back,
            self.name_what_is_not, self.write_as_a_stranger,
        ]  # fmt: skip
        self.random.choice(acts)(node)

    def turn_the_clock_back(self, node: Node) -> None:
        """In a window of its own: within a run no clock can go back."""
        good = self._commit(node, self._ordinary())
        node.take(window_of(good))
        body = self._forbidden("back in time")
        node.take(window_of(self.author.commit(node.space, body, after=good, hlc=good.header.hlc - 1)))
        self._new_life()

    def break_the_chain(self, node: Node) -> None:
        """A good commit, then one with the next seq that continues another: nobody takes the second."""
        good = self._commit(node, self._ordinary())
        node.take(window_of(good))
        other = self.author.commit(good.header.space, self._ordinary(), after=None, is_kept=False)
        body = self._forbidden("does not continue its chain")
        bad = self.author.commit(good.header.space, body, after=replace(good, hash=other.hash))
        node.take(window_of(bad))
        self._new_life()


def run(seed: int) -> None:
    Run(seed, SETTINGS).go()


@pytest.fixture(autouse=True)
def _a_short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who breaks chains is among them; and a run that does not converge is given up soon."""
    monkeypatch.setattr(simulations.faults, "Hostile", Breaker)
    monkeypatch.setattr(simulations.faults, "SETTLE_MS", 60_000)


@pytest.mark.parametrize("seed", SEEDS)
def test_without_a_bug_these_runs_pass(seed: int) -> None:
    run(seed)


# -- the bugs ----------------------------------------------------------------------------------------------


def chains_are_not_checked(patch: pytest.MonkeyPatch) -> None:
    """A commit with the right seq is taken, whatever it says it continues."""

    def careless(commit: Commit, view: View, **options: Any) -> Outcome:
        header = commit.header
        head = view.head(header.space, header.author)
        if header.seq != (head.seq if head else 0) + 1:
            return integrate(commit, view, **options)
        previous = head.hash if head else NO_PREVIOUS
        return _of(
            commit, integrate(replace(commit, header=replace(header, previous=previous)), view, **options)
        )

    patch.setattr(storage.store, "integrate", careless)


def causes_are_not_waited_for(patch: pytest.MonkeyPatch) -> None:
    """A commit whose deps are not here is integrated at once."""

    def careless(commit: Commit, view: View, *, system: bytes, **options: Any) -> Outcome:
        header = commit.header
        here = tuple(
            dep
            for dep in header.deps
            if view.header_hash(system if dep.in_system else header.space, dep.author, dep.seq) is not None  # type: ignore[arg-type]
        )
        changed = replace(commit, header=replace(header, deps=here))
        return _of(commit, integrate(changed, view, system=system, **options))  # type: ignore[arg-type]

    def own_chain_only(
        commit: Commit, reached: Callable[[Any], int], *_others: object
    ) -> tuple[Any, int] | None:
        key = commit.header.space, commit.header.author
        return (key, commit.header.seq - 1) if commit.header.seq > reached(key) + 1 else None

    patch.setattr(storage.store, "integrate", careless)
    patch.setattr(protocol.causal, "_missing", own_chain_only)


def a_write_takes_away_what_it_has_not_seen(patch: pytest.MonkeyPatch) -> None:
    supersede = Document._supersede

    def careless(self: Document, seen: Sequence[Dot], operations: Sequence[Operation]) -> None:
        supersede(self, [layer.dot for layer in self.layers], operations)

    patch.setattr(Document, "_supersede", careless)


def a_write_leaves_what_it_has_seen(patch: pytest.MonkeyPatch) -> None:
    """Unless it is the last of its layers: as if `seen` were read for one author alone."""
    supersede = Document._supersede

    def careless(self: Document, seen: Sequence[Dot], operations: Sequence[Operation]) -> None:
        supersede(self, [dot for dot in seen if dot == self.layers[-1].dot], operations)

    patch.setattr(Document, "_supersede", careless)


def the_last_to_come_is_shown(patch: pytest.MonkeyPatch) -> None:
    def at_the_end(layers: list[Layer], layer: Layer, *, key: object) -> None:
        layers.append(layer)

    patch.setattr(protocol.document, "insort", at_the_end)


def everybody_may_write(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Judge, "may_write", lambda self, model: True)


def whatever_was_seen_is_past(patch: pytest.MonkeyPatch) -> None:
    """A body may name what its commit does not build on."""
    patch.setattr(Judge, "is_past", lambda self, seen, index: True)


def clocks_may_go_back(patch: pytest.MonkeyPatch) -> None:
    def careless(commit: Commit, view: View, **options: Any) -> Outcome:
        header = commit.header
        head = view.head(header.space, header.author)
        hlc = max(header.hlc, head.hlc + 1 if head else 0)
        return _of(commit, integrate(replace(commit, header=replace(header, hlc=hlc)), view, **options))

    patch.setattr(storage.store, "integrate", careless)


def _of(commit: Commit, outcome: Outcome) -> Outcome:
    return replace(outcome, commit=commit) if isinstance(outcome, Integrated) else outcome


BUGS = [
    chains_are_not_checked, causes_are_not_waited_for, a_write_takes_away_what_it_has_not_seen,
    a_write_leaves_what_it_has_seen, the_last_to_come_is_shown, everybody_may_write, whatever_was_seen_is_past,
    clocks_may_go_back,
]  # fmt: skip


@pytest.mark.parametrize("plant", BUGS, ids=lambda plant: plant.__name__)
def test_a_planted_bug_is_found_in_a_handful_of_runs(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    for seed in SEEDS:
        try:
            run(seed)
        except AssertionError as failure:  # anything else would be a fault of what was planted
            assert f"seed {seed}" in str(failure)
            return
    pytest.fail(f"{len(SEEDS)} runs pass although {plant.__name__}")
