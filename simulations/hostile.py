"""A member whose key is in bad hands: it writes, and does whatever the rules forbid.

Room: one attack after another, each given to one honest node as a link would.
What must never be seen is noted in the world as forbidden; whether an attack
brings nodes apart is for the invariants. It knows all that any node knows.
"""

from collections.abc import Callable
from random import Random

from protocol.body import Dot
from protocol.commit import Commit, Dep
from protocol.exchange import WindowIntegrated
from protocol.ids import INCARNATION_BYTES, author_of
from protocol.keys import KeyPair
from protocol.limits import CLOCK_AHEAD_MAX_MS
from protocol.membership import Role
from simulations.forger import Forger, frontier_deps, window_of
from simulations.harness import Node, World


class Hostile:
    """One key that was admitted once, under as many incarnations as it likes."""

    def __init__(self, world: World, number: int, role: Role = Role.MEMBER) -> None:
        self.world = world
        self.number = number
        self.random: Random = world.chance("hostile", number)
        self.keys = KeyPair.from_seed(self.random.randbytes(32))
        self._count = 0
        founder = world.nodes[0]
        ticket = world.ticket()
        founder.invite(ticket, role)
        founder.admit(self.keys, ticket)
        self.author = self._new_life()

    def _new_life(self) -> Forger:
        self.author = Forger(self.keys, author_of(self.keys.public, self.random.randbytes(INCARNATION_BYTES)))
        return self.author

    def act(self, node: Node) -> None:
        """Something bad or quite ordinary, towards one node."""
        acts: list[Callable[[Node], object]] = [
            self.write, self.write, self.write, self.write_far_ahead, self.write_with_a_false_past,
            self.write_as_another, self.write_what_is_for_admins, self.tamper, self.turn_the_clock_back,
            self.name_what_is_not, self.name_another_hash, self.write_without_end, self.say_nothing,
            self.write_as_a_stranger,
        ]  # fmt: skip
        self.random.choice(acts)(node)

    # -- what a member may do

    def write(self, node: Node) -> WindowIntegrated:
        """A few ordinary commits, of which nodes may hear in whatever order."""
        commits = [self._commit(node, self._ordinary()) for _ in range(self.random.randint(1, 3))]
        return node.take(window_of(*commits))

    def write_far_ahead(self, node: Node) -> None:
        at_ms = node.clock_ms() + self.random.randint(1, 50) * CLOCK_AHEAD_MAX_MS
        node.take(window_of(self._commit(node, self._ordinary(), at_ms=at_ms)))
        self._new_life()  # else all that follows is as far ahead

    # -- what it may not

    def sign_twice(self, node: Node, other: Node) -> None:
        """One seq for this node and the same for another, each having seen what is there; and both go on."""
        base = self.author.tips.get(node.space)
        branches: list[list[Commit]] = []
        for witness in (node, other):
            if base is None:
                self.author.tips.pop(node.space, None)
            else:
                self.author.tips[node.space] = base
            branches.append(
                [self._commit(witness, self._ordinary()) for _ in range(self.random.randint(1, 3))]
            )
        for witness, commits in zip((node, other), branches, strict=True):
            witness.take(window_of(*commits))
        self._new_life()

    def write_with_a_false_past(self, node: Node) -> None:
        """It says that it has seen what it does not build on: the body says nothing."""
        victim = self.random.choice(self.world.nodes)
        dot = Dot(victim.author, victim.seq_of(victim.author) + 1, 0)
        node.take(window_of(self._commit(node, self._forbidden("has seen what is not past", seen=(dot,)))))

    def write_as_another(self, node: Node) -> None:
        """The author is somebody else, the signature its own."""
        victim = self.random.choice(self.world.nodes)
        forger = Forger(self.keys, victim.author).follow(node.store, node.space)
        body = forger.body(self.world.model.id, self._id("of a forged author"), title="x")
        answer = node.take(window_of(forger.commit(node.space, body)))
        assert answer.fault is not None and not answer.integrated

    def write_as_a_stranger(self, node: Node) -> None:
        stranger = self.world.stranger()
        body = stranger.body(self.world.model.id, self._id("of a stranger"), title="x")
        deps = frontier_deps(node.store, node.space, stranger.author)
        node.take(window_of(stranger.commit(node.space, body, deps=deps)))

    def write_what_is_for_admins(self, node: Node) -> None:
        if node.store.members.role_of(self.keys.public) is not Role.ADMIN:
            body = self.author.body("$role_x", self._id("for admins"), title="x")
            node.take(window_of(self._commit(node, body)))

    def tamper(self, node: Node) -> None:
        """One byte of a window is another."""
        window = bytearray(window_of(self._commit(node, self._ordinary(), is_kept=False)))
        window[self.random.randrange(len(window))] ^= 1 << self.random.randrange(8)
        node.take(bytes(window))

    def turn_the_clock_back(self, node: Node) -> None:
        """Nobody takes a commit that is not later than the one before, nor what follows it."""
        good = self._commit(node, self._ordinary())
        bad = self.author.commit(node.space, self._forbidden("back in time"), deps=(), after=good, hlc=1)
        node.take(window_of(good, bad))
        self._new_life()

    def name_what_is_not(self, node: Node) -> None:
        """It builds on a commit that nobody has made: it waits for ever."""
        victim = self.random.choice(self.world.nodes)
        dep = Dep(False, victim.author, victim.seq_of(victim.author) + 1_000, self.random.randbytes(16))
        body = self._forbidden("builds on what is not", dep)
        node.take(window_of(self._commit(node, body, deps=[dep])))
        self._new_life()

    def name_another_hash(self, node: Node) -> None:
        """It builds on a commit by a hash that this commit has not."""
        known = [d for d in frontier_deps(node.store, node.space, self.author.author) if not d.in_system]
        if known:
            dep = self.random.choice(known)._replace(hash_prefix=self.random.randbytes(16))
            body = self._forbidden("builds on another hash", dep)
            node.take(window_of(self._commit(node, body, deps=[dep])))
            self._new_life()

    def write_without_end(self, node: Node) -> None:
        """Many commits that say nothing."""
        commits = [self._commit(node) for _ in range(self.random.randint(5, 30))]
        node.take(window_of(*commits))

    def say_nothing(self, node: Node) -> None:
        """Statements that cannot be read, or that it has no right to."""
        bodies = [self.random.randbytes(self.random.randint(1, 50)) for _ in range(3)]
        deps = frontier_deps(node.store, node.store.system, self.author.author)
        node.take(window_of(self.author.commit(node.store.system, *bodies, deps=deps)))

    # -- parts of it

    def _commit(
        self, node: Node, *bodies: bytes, deps: list[Dep] | None = None, at_ms: int | None = None,
        is_kept: bool = True,
    ) -> Commit:  # fmt: skip
        if deps is None:
            deps = list(frontier_deps(node.store, node.space, self.author.author))
        time_ms = node.clock_ms() if at_ms is None else at_ms
        return self.author.commit(node.space, *bodies, deps=deps, at_ms=time_ms, is_kept=is_kept)

    def _ordinary(self) -> bytes:
        id = f"shared-{self.random.randrange(8)}" if self.random.random() < 0.5 else self._next_id()
        return self.author.body(self.world.model.id, id, title=f"hostile {self.random.randrange(99)}")

    def _forbidden(self, why: str, dep: Dep | None = None, *, seen: tuple[Dot, ...] = ()) -> bytes:
        """A body that nobody may see; unless the chain that `dep` names forks, of which everybody takes anything."""
        id = self._id(why)
        if dep is not None:
            self.world.unless_forked[id] = dep.author
        return self.author.body(self.world.model.id, id, seen=seen, title="x")

    def _id(self, why: str) -> str:
        id = self._next_id()
        self.world.forbidden[id] = why
        return id

    def _next_id(self) -> str:
        self._count += 1
        return f"hostile-{self.number}-{self._count}"
