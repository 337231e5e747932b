"""One seeded run with every fault on, and what must hold after it.

Room: which faults, how often, and when it is over. A run draws its own settings
from its seed, so that some are calm and some are not; a failure names the seed,
and the seed alone runs it again.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields

from protocol.changes import Edit, EditKind
from protocol.errors import NotPermitted
from protocol.membership import Role
from protocol.statements import Revoke
from simulations.harness import Node, World, standing_cuts
from simulations.hostile import Hostile
from simulations.links import FrameFaults, Link
from storage.errors import UnknownDocument
from storage.kv import KeyValueStore

SETTLE_MS = 600_000  # virtual; far more than back-off, silence and three comparisons take
NODES_MAX = 6
SPOILT = FrameFaults(twice=0.2, late=0.2, lost=0.05)


@dataclass(frozen=True, slots=True)
class Settings:
    """How a run goes. Rates are weights of what happens at each step."""

    nodes: int
    steps: int
    step_ms: int
    latency_ms: tuple[int, int]
    effect_ms: tuple[int, int]
    window_target_bytes: int
    skew_ms: int  # clocks are up to this far from the truth, either way
    create: int
    update: int
    delete: int
    cut: int
    cut_silently: int
    crash: int
    back_up: int
    restore: int
    set_back: int  # to a backup, and nothing notices until a peer tells
    clone: int
    spoil_frames: int  # 1: for as long as faults last
    hostile: int  # how many members do whatever they like
    attack: int
    sign_twice: int
    revoke: int
    grant: int
    recover: int

    @classmethod
    def drawn(cls, world: World) -> "Settings":
        random = world.chance("settings")
        latency_ms = random.choice((1, 10, 100, 800))
        revoke, recover = random.choice((0, 0, 1)), random.choice((0, 0, 0, 1))
        may_fork = not (
            revoke or recover
        )  # a cut that settles a fork does so where the branch is which it names
        return cls(
            nodes=random.randint(2, 4),
            steps=random.choice((20, 60, 150)),
            step_ms=random.choice((5, 50, 500)),
            latency_ms=(
                latency_ms,
                latency_ms * random.randint(1, 3),
            ),  # three of them must fit into a handshake
            effect_ms=(0, random.choice((0, 5, 200))),
            window_target_bytes=random.choice((500, 5_000, 1 << 20)),
            skew_ms=random.choice((0, 1_000, 86_400_000)),
            create=random.randint(1, 10),
            update=random.randint(1, 10),
            delete=random.randint(0, 3),
            cut=random.choice((0, 1, 3)),
            cut_silently=random.choice((0, 1)),
            crash=random.choice((0, 1, 2)),
            back_up=1,
            restore=random.choice((0, 1)),
            set_back=random.choice((0, 0, 1)) * may_fork,
            clone=random.choice((0, 0, 1)),
            spoil_frames=random.choice((0, 0, 1)),
            hostile=random.choice((0, 1, 2)),
            attack=random.choice((1, 5)),
            sign_twice=random.choice((0, 1, 3)) * may_fork,
            revoke=revoke,
            grant=random.choice((0, 0, 1)),
            recover=recover,
        )


class Run:
    """Nodes that work while everything goes wrong; then nothing does, and they must agree."""

    def __init__(self, seed: int, settings: Settings | None = None) -> None:
        self.world = world = World(seed)
        self.settings = settings or Settings.drawn(world)
        self._random = world.chance("faults")
        self._backups: dict[int, KeyValueStore] = {}
        self._ids = [f"shared-{number}" for number in range(8)]
        skews = world.chance("skew")
        for _ in range(self.settings.nodes):
            world.node(skew_ms=skews.randint(-self.settings.skew_ms, self.settings.skew_ms))
        self._bad = [Hostile(world, number) for number in range(self.settings.hostile)]
        for place, caller in enumerate(world.nodes):
            for answerer in world.nodes[place + 1 :]:
                if answerer.number == caller.number + 1 or self._random.random() < 0.5:
                    self._connect(caller, answerer)

    def _connect(self, caller: Node, answerer: Node) -> None:
        chunks = self._random.choice((None, (1, 9), (1, 2_000)))
        link = self.world.link(
            caller,
            answerer,
            latency_ms=self.settings.latency_ms,
            effect_ms=self.settings.effect_ms,
            chunk_bytes=chunks,
            window_target_bytes=self.settings.window_target_bytes,
            frame_faults=SPOILT if self.settings.spoil_frames else None,
        )
        self.world.after(self._random.randint(0, 1_000), link.open)

    def go(self) -> World:
        """Run it to the end and check it. Raises AssertionError with the seed and the settings."""
        world, settings = self.world, self.settings
        happenings: list[Callable[[], None]] = []
        for name in (field.name for field in fields(Settings)):
            happen = getattr(self, "_" + name, None)
            if happen is not None:
                happenings += [happen] * getattr(settings, name)
        for _ in range(settings.steps):
            world.run(for_ms=self._random.randint(0, 2 * settings.step_ms))
            try:
                self._random.choice(happenings)()
            except NotPermitted:
                pass  # a node that was put out, or made a reader, and knows it
        for link in world.links:
            link.frame_faults = None
        if not world.run(self.is_settled, for_ms=SETTLE_MS):
            raise AssertionError(f"seed {world.seed} did not converge: {settings}; {self._last_news()}")
        world.check()
        return world

    def is_settled(self) -> bool:
        """Whether all hold the same, and every link knows it."""
        live = all(
            link.connection is not None
            and all(end.session is not None and end.session.is_live for end in link.connection.ends.values())
            for link in self.world.links
        )
        return live and self.world.is_in_sync()

    def _last_news(self) -> list[list[str]]:
        return [[repr(news)[:200] for news in node.news[-3:]] for node in self.world.nodes]

    # -- what happens --------------------------------------------------------------------------------------

    def _node(self) -> Node:
        return self._random.choice(self.world.nodes)

    def _link(self) -> Link:
        return self._random.choice(self.world.links)

    def _create(self) -> None:
        node = self._node()
        if node.is_up:
            node.create(self._random.randint(1, 5))

    def _update(self) -> None:
        node, id = self._node(), self._random.choice(self._ids)
        if node.is_up:
            tags = self._random.sample(["a", "b", "c", "d"], self._random.randint(0, 3))
            votes = self._random.randrange(100)
            notes = self._scribbled(node, id)
            node.put(id, title=f"title {votes}", votes=votes, tags=sorted(tags), notes=notes)

    def _scribbled(self, node: Node, id: str) -> str:
        """What a node shows of a text, with a little more in one place and a little less in it."""
        with node.store.read() as snapshot:
            document = snapshot.documents.get(node.space, self.world.model.id, id)
        text: str = document.values().get("notes", "") if document is not None and document.exists else ""
        at = self._random.randint(0, len(text))
        return (
            text[:at]
            + self._random.choice(["", "word ", "😀", "x"])
            + text[at + self._random.randint(0, 3) :]
        )

    def _delete(self) -> None:
        node, id = self._node(), self._random.choice(self._ids)
        if node.is_up:
            try:
                node.edit(Edit(EditKind.DELETE, self.world.model, id, {}))
            except UnknownDocument:
                pass

    def _cut(self) -> None:
        self._link().cut()

    def _cut_silently(self) -> None:
        connection = self._link().connection
        if connection is not None:
            connection.cut(is_silent=True)

    def _crash(self) -> None:
        node = self._node()
        if node.is_up:
            node.crash()
            self.world.after(self._random.randint(1, 5_000), node.start)

    def _back_up(self) -> None:
        node = self._node()
        self._backups[node.number] = node.backup()

    def _restore(self) -> None:
        node = self._node()
        if node.is_up and node.number in self._backups:
            node.restore(self._backups[node.number])

    def _set_back(self) -> None:
        node = self._node()
        if node.is_up and node.number in self._backups:
            node.restore(self._backups[node.number], as_new_author=False)
            node.create(1)

    def _clone(self) -> None:
        """A data directory is copied, and the copy run beside it: the gate gives it a life of its own."""
        node = self._node()
        if node.is_up and len(self.world.nodes) < NODES_MAX:
            twin = self.world.twin(node)
            self._connect(twin, self._random.choice(self.world.nodes[:-1]))

    # -- what is said

    def _attack(self) -> None:
        node = self._node()
        if self._bad and node.is_up:
            self._random.choice(self._bad).act(node)

    def _sign_twice(self) -> None:
        node, other = self._node(), self._node()
        if self._bad and node.is_up and other.is_up:
            self._random.choice(self._bad).sign_twice(node, other)

    def _admin(self) -> Node | None:
        node = self._node()
        is_admin = node.store.members.role_of(node.node_keys.public) is Role.ADMIN
        return node if is_admin and node.is_up else None

    def _revoke(self) -> None:
        admin, random = self._admin(), self._random
        if admin is None:
            return
        keys = [h.keys.public for h in self._bad] + [n.node_keys.public for n in self.world.nodes[1:]]
        share = random.choice((0.0, 0.5, 1.0, 1.0, 1.0))
        admin.revoke_key(random.choice(keys), keeping=lambda space, author, seq: int(seq * share))

    def _grant(self) -> None:
        admin = self._admin()
        if admin is not None:
            other = self._random.choice(self.world.nodes[1:])
            admin.grant(other, self._random.choice((Role.READER, Role.MEMBER, Role.ADMIN)))

    def _recover(self) -> None:
        """The owner's code makes a node an admin, and puts out another that had gone wrong."""
        node, other = self._node(), self._random.choice(self.world.nodes)
        if node.is_up and node is not other:
            cuts = standing_cuts(node, other.node_keys.public, of_system=self._random.randint(0, 1))
            node.recover(Revoke(other.node_keys.public, cuts))
