"""A record that is attacked again and again, and a member and a stranger who sign what they like.

Room: what honest peers say to it, what others say and sign, and the check after each try. `mutation`
spoils; what is only decoded is in `fuzzing`.
"""

from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any

from protocol.body import Body, Dot, body_hash, decode_body
from protocol.clock import HLC_MAX, hlc_of_ms
from protocol.commit import NO_PREVIOUS, Commit, Dep, Header, sign_commit
from protocol.errors import ProtocolError
from protocol.exchange import EVERYTHING, Begin, Compare, Effect, Event, IntegrateWindow, PeerMisbehaved
from protocol.frames import to_frames
from protocol.ids import Author, SpaceId, author_of
from protocol.integrate import Integrated, Refused
from protocol.keys import KeyPair
from protocol.membership import Role
from protocol.messages import (
    HEADS_MAX,
    WINDOW_MESSAGE_MAX_BYTES,
    Ack,
    Admission,
    Declined,
    Done,
    Error,
    Lack,
    Message,
    Met,
    More,
    Offer,
    Open,
    Ping,
    Root,
    Roots,
    Shown,
    SpaceTips,
    Tip,
    Want,
    Who,
    Window,
    Yours,
    encode_message,
)
from protocol.packing import pack_window
from protocol.roles import Rights
from protocol.statements import (
    Grant,
    Invite,
    ask_admission,
    encode_statement,
)
from protocol.window import Run
from simulations.forger import Forger, frontier_deps, window_of
from storage.exchange import Exchange
from tests.protocol import dialogue
from tests.protocol.dialogue import KEYS, NOW_MS, Dialogue, Record, copied
from tests.protocol.mutation import LONG, NUMBERS, spoilt, spoilt_talk
from tests.protocol.world import without_bodies

NAMES = ("system", "app/default", "app/forged")
READ_BYTES = 64 << 10
HELD_MAX_BYTES = WINDOW_MESSAGE_MAX_BYTES + (1 << 20)  # the longest message, and some answers
STRANGER = KeyPair.from_seed(b"?" * 32)


@dataclass
class Found:
    """How much was tried, and how it was answered."""

    tried: int = 0
    longest_s: float = 0.0  # CPU time that a node spent at most on one message of a peer, its check included
    kinds: dict[str, Counter[str]] = field(default_factory=dict)  # by where it was said

    def note(self, where: str, kind: str) -> None:
        self.kinds.setdefault(where, Counter())[kind] += 1

    def __getitem__(self, where: str) -> set[str]:
        return set(self.kinds.get(where, ()))


class Grounds:
    """A record that is attacked, again and again from the same state, and what honest peers say to it."""

    def __init__(self, found: Found) -> None:
        self.found = found
        self.victim, self.peer = dialogue.pair(ours=3, theirs=1)
        third = Record("third", founder=self.victim)
        Dialogue(third, self.victim).run()
        Dialogue(self.peer, self.victim).run()
        third.put("honest", title="it is still taken in")
        space = self.victim.store.space("default")
        self.honest = window_of(Forger(KEYS, third.author).follow(third.store, space).tips[space])
        self.genesis, system = self.victim.identity.genesis, self.victim.store.system
        self.founding = window_of(
            Forger(KEYS, self.victim.author).follow(self.victim.store, system).tips[system]
        )
        self.victim.put("ours", title="not known to the peer yet")
        self.image = copied(self.victim.keys)
        self.before = self.victim.documents()
        self.peer.put("theirs", title="not known to the victim yet")
        self.honest_ids = {"honest", "theirs"}
        # What the peer says as the answerer and as the caller.
        self.said: dict[bool, list[bytes]] = {}
        peer = copied(self.peer.keys)
        for is_caller in (False, True):
            self.peer.keys = copied(peer)
            self.peer.open()
            talk = Dialogue(self.peer, self.fresh()) if is_caller else Dialogue(self.fresh(), self.peer)
            talk.run()
            self.said[is_caller] = (talk.caller if is_caller else talk.answerer).sent
        self.others = [*self.said[True], *self.said[False], *of_joining(self), *self._out_of_place()]
        self._lives = count(1)
        self._last: tuple[Record, Forger] | None = None

    def _out_of_place(self) -> list[bytes]:
        """Good messages that no honest peer says here."""
        space, author = "app/default", self.victim.author
        many = tuple(
            Tip(author_of(KEYS.public, n.to_bytes(8, "big")), 1, bytes(16)) for n in range(HEADS_MAX)
        )
        ours = (SpaceTips(space, (Tip(author, 99, bytes(16)),)),)
        said: list[Message] = [
            Who(), Ping(), Error(1, "x"), Ack(9, 2), Ack(0, 0), Done(1), Want((Lack(0, 0),)), Root(bytes(32), 1),
            Yours(ours), Yours(()), Offer(ours), Offer((SpaceTips(space, many),)), Roots(()), Open(bytes(32), 0, 9),
        ]  # fmt: skip
        return [to_frames(encode_message(message)) for message in said]

    def fresh(self) -> Record:
        """The victim as it was."""
        record = Record.__new__(Record)
        record.random, record.keys = Random(1), copied(self.image)
        record.open()

        def write(change: Any) -> Any:
            done = record.integrator.write_one(change, NOW_MS)
            for outcome in done if isinstance(done, list) else ():
                self._note(outcome)
            return done

        record.exchange = Exchange(record.store, write)
        return record

    def _note(self, outcome: Any) -> None:
        if isinstance(outcome, Refused):
            self.found.note("refused", outcome.rule)
        elif isinstance(outcome, Integrated):
            for entry in outcome.entries:
                self.found.note("verdict", entry.verdict.value)
        else:
            self.found.note("outcome", type(outcome).__name__)

    def attack(self, random: Random) -> None:
        """One session with a peer that says whatever it likes; then the victim must be as good as before."""
        victim = self.fresh()
        is_caller = random.random() < 0.5
        side = dialogue.Side(victim, dialogue.session(victim, self.peer, is_caller=is_caller))
        frames = spoilt_talk(random, self.said[not is_caller], self.others)
        if random.random() < 0.7:
            windows = [
                to_frames(encode_message(Window(self.forged(victim, random))))
                for _ in range(random.randint(1, 3))
            ]
            at = random.randint(min(2, len(frames)), len(frames))
            frames[at:at] = windows
        if random.random() < 0.1:
            frames.insert(random.choice((0, 2)), random.choice(self.others))
        is_hasty = random.random() < 0.15
        side.take(side.give(Begin()))
        if random.random() < 0.1:
            side.take(side.give(Compare()))
        while frames:
            together = random.choice((1, 2, 9)) if is_hasty else 1  # before anything of it is carried out
            self.found.tried += len(frames[:together])
            frame, frames = b"".join(frames[:together]), frames[together:]
            cut = random.randrange(len(frame) + 1) if random.random() < 0.1 else 0
            for piece in (frame[:cut], frame[cut:]):
                self._deliver(side, piece)
            if random.random() < 0.02:
                side.wait_until(side.now_ms + random.choice((1_000, 10_000, 60_000)))
            if side.session.is_closed:
                break
        self._take(side, side.session.receive_eof())
        assert side.session.is_closed
        self.check(victim)

    def _deliver(self, side: dialogue.Side, data: bytes) -> None:
        """As a socket would, so much at a time; what is held stays bounded however much comes."""
        for start in range(0, max(1, len(data)), READ_BYTES):
            if not side.session.is_closed:
                self._take(side, side.session.receive(data[start : start + READ_BYTES], side.now_ms))
                assert side.session.held_bytes < HELD_MAX_BYTES

    def _take(self, side: dialogue.Side, events: list[Event]) -> None:
        known = len(side.events)
        side.take(events)
        for event in side.events[known:]:
            assert isinstance(event, Event)
            if isinstance(event, PeerMisbehaved):
                self.found.note("session", event.kind)
            elif not isinstance(event, Effect):
                self.found.note("news", type(event).__name__)

    def feed_window(self, random: Random) -> None:
        """A window that is signed, straight into the record."""
        victim = self.fresh()
        for _ in range(random.randint(1, 4)):
            self.found.tried += 1
            answer = victim.exchange.perform(IntegrateWindow(self.forged(victim, random), NAMES, EVERYTHING))
            self.found.note("integrated", "fault" if getattr(answer, "fault", None) else "taken")
        self.check(victim)

    def check(self, victim: Record) -> None:
        answer = victim.exchange.perform(IntegrateWindow(self.honest, NAMES, EVERYTHING))
        assert getattr(answer, "fault", "") is None, answer
        after = victim.documents()
        for key, document in self.before.items():
            assert after[key] == document, key
        new = {id for (_, model, id) in after.keys() - self.before.keys() if not self._is_forged(id)}
        assert "honest" in new and new <= self.honest_ids, new
        if len(after) % 4 == 0:
            victim.put("still", title="it can write")

    # -- directed cases

    def break_every_rule(self) -> None:
        """One window for each verdict, each rule of integration, and a fork."""
        victim = self.fresh()
        space, system = victim.store.space("default"), victim.store.system

        def life(keys: KeyPair = KEYS) -> Forger:
            return Forger(keys, author_of(keys.public, next(self._lives).to_bytes(8, "big")))

        def take(*commits: Commit) -> None:
            answer = victim.exchange.perform(IntegrateWindow(window_of(*commits), NAMES, EVERYTHING))
            assert getattr(answer, "fault", "") is None, answer
            for fork in getattr(answer, "forks", ()):
                self.found.note("news", type(fork).__name__)

        def commit(forger: Forger, body: bytes, **options: Any) -> Commit:
            deps = frontier_deps(victim.store, space, forger.author)
            return forger.commit(space, body, **{"deps": deps, "at_ms": NOW_MS, **options})

        def body(forger: Forger, **options: Any) -> bytes:
            return forger.body(dialogue.TASK.id, "forged-0", **({"title": "x"} | options))

        member, stranger = life(), life(STRANGER)
        first = commit(member, body(member))
        take(first)
        take(first)
        take(commit(stranger, body(stranger)))
        take(commit(member, b"not a body"))
        take(commit(member, body(member, operations=[[99, "newer"]])))
        take(without_bodies(commit(member, body(member)), [0]))
        take(commit(member, member.body(dialogue.TASK.id, "forged-gone", operations=[[6]])))
        take(commit(member, member.body(dialogue.TASK.id, "forged-gone", title="x")))
        take(commit(member, body(member), at_ms=NOW_MS + 10**10))
        take(commit(member, body(member), after=first))
        late = life()
        good = commit(late, body(late))
        take(good)
        take(commit(late, body(late), hlc=good.header.hlc - 1))
        liar = life()
        deps = [
            dep._replace(hash_prefix=bytes(16)) for dep in frontier_deps(victim.store, space, liar.author)
        ]
        take(commit(liar, body(liar), deps=deps))
        (dep, *_) = frontier_deps(victim.store, system, liar.author)
        take(liar.commit(system, b"x", deps=[dep._replace(in_system=True)]))
        waiting = life()
        missing = Dep(False, life().author, 5, bytes(16))
        take(commit(waiting, body(waiting), deps=[missing]))
        self.check(victim)

    def say_what_is_out_of_place(self) -> None:
        """Every one of these messages at every stage of a conversation, alone and several times at once."""
        for is_caller in (False, True):
            frames = self.said[not is_caller]
            for place in range(len(frames) + 1):
                for other in self.others:
                    for times in (1, 3):
                        victim = self.fresh()
                        side = dialogue.Side(victim, dialogue.session(victim, self.peer, is_caller=is_caller))
                        side.take(side.give(Begin()))
                        for frame in [*frames[:place], other * times]:
                            self._take(side, side.session.receive(frame, side.now_ms))
                        assert side.session.is_closed or side.session.deadline_ms is not None

    def _is_forged(self, id: str) -> bool:
        return id not in self.honest_ids and all(id != known for _, _, known in self.before)

    # -- who signs whatever he likes

    def forged(self, victim: Record, random: Random) -> bytes:
        """A window of a member, or a stranger, with anything in it, well signed; often in good form."""
        keys = random.choice((KEYS, KEYS, STRANGER))
        forger = Forger(keys, author_of(keys.public, next(self._lives).to_bytes(8, "big")))
        if self._last is not None and self._last[0] is victim and random.random() < 0.4:
            forger = self._last[1]  # goes on with its chains
        self._last, author = (victim, forger), forger.author
        space = victim.store.space(random.choice(("default", "default", "default", "forged")))
        is_system = random.random() < 0.2
        if is_system:
            space = victim.store.system
        deps = list(frontier_deps(victim.store, space, author)) if random.random() < 0.9 else []
        before = forger.tips.get(space)
        commits: list[Commit] = []
        for _ in range(random.choice((1, 1, 2, 3))):
            bodies = [self._body(forger, random, is_system) for _ in range(random.choice((0, 1, 1, 1, 2)))]
            commits.append(self._commit(forger, space, bodies, deps, random, is_first=not commits))
            deps = []
        if (
            random.random() < 0.3 and before is not None
        ):  # what is signed next has the same seq as the first of these
            forger.tips[space] = before
        if random.random() < 0.15:  # some bodies were dropped
            last = commits[-1]
            commits[-1] = without_bodies(last, range(len(last.bodies)))
        if random.random() < 0.1:
            random.shuffle(commits)
        runs = [Run(tuple(commits))]
        if random.random() < 0.15:
            runs *= 2
        try:
            return pack_window(runs)
        except (ProtocolError, OverflowError, ValueError, TypeError):  # of no form at all
            return self.honest

    def _commit(
        self, forger: Forger, space: SpaceId, bodies: list[bytes], deps: list[Dep], random: Random,
        *, is_first: bool = False,
    ) -> Commit:  # fmt: skip
        last = forger.tips.get(space)
        seq, previous, hlc = 1, NO_PREVIOUS, hlc_of_ms(NOW_MS)
        if last is not None:
            seq, previous, hlc = last.header.seq + 1, last.hash, last.header.hlc + 1
            hlc -= random.choice((1, 2)) if is_first and random.random() < 0.15 else 0
        match random.randrange(16):
            case 0:
                previous = random.choice((NO_PREVIOUS, random.randbytes(32), previous[:-1]))
            case 1:
                seq = random.choice((seq + 1, 1, random.choice(NUMBERS)))
            case 2:
                hlc = random.choice((1, hlc - 2, HLC_MAX, hlc_of_ms(NOW_MS + 10**10), random.choice(NUMBERS)))
            case 3 | 4 if deps:
                at = random.randrange(len(deps))
                deps[at] = random.choice((
                    deps[at]._replace(hash_prefix=random.randbytes(16)),
                    deps[at]._replace(seq=deps[at].seq + random.choice((1, 1_000, 1 << 62))),
                    deps[at]._replace(in_system=not deps[at].in_system),
                    deps[at]._replace(author=random.choice((forger.author, Author(random.randbytes(40))))),
                ))  # fmt: skip
            case 5 if deps:
                deps = random.choice((deps[::-1], deps * 2, deps * LONG))
        header = Header(space, forger.author, seq, previous, hlc, tuple(deps), tuple(map(body_hash, bodies)))
        commit = sign_commit(forger.keys, header, bodies)
        forger.tips[space] = commit
        return commit

    def _body(self, forger: Forger, random: Random, is_system: bool) -> bytes:
        if is_system:
            rights = Rights(random.choice(list(Role)))
            said = random.choice((Invite(STRANGER.public, rights, 1 << 40), Grant(STRANGER.public, rights)))
            data = random.choice((encode_statement(said, forger.salt()), self.genesis))
            return spoilt(random, data) if random.random() < 0.7 else data
        model = random.choice((dialogue.TASK.id, dialogue.TASK.id, "$role_x", "nothing"))
        id = f"forged-{random.randrange(9)}"
        seen = [Dot(random.choice((forger.author, self.peer.author)), random.choice((1, 2, 99)), 0)] * (
            random.random() < 0.3
        )
        operations = random.choice((
            [[0, {"title": "x"}]], [[0, {"title": "x", "rank": 1 << 62}]], [[1, "tags", ["a"]]], [[3, "n", 1 << 62]],
            [[4]], [[5]], [[99, "new"]], [[8, "notes", 0, b"\x00\x00"]],
        ))  # fmt: skip
        try:
            data = Body(forger.salt(), "forger", model, id, tuple(seen), operations).encode(forger.author)
        except ProtocolError:
            data = forger.body(model, id, title="x")
        if random.random() < 0.5:
            other = spoilt(random, data)
            return data if self._names_what_others_wrote(other, forger.author) else other
        return data

    def _names_what_others_wrote(self, data: bytes, author: bytes) -> bool:
        try:
            return not self._is_forged(decode_body(data, author).id)
        except ProtocolError:
            return False


def of_joining(grounds: "Grounds") -> list[bytes]:
    network = grounds.victim.identity.network_id
    admit = statement_body(ask_admission(STRANGER, KEYS, network))
    said: list[Message] = [
        Who(),
        Shown(grounds.founding, True),
        More(),
        Admission(admit, "a phone"),
        Met(),
        Declined(1),
    ]
    return [to_frames(encode_message(message)) for message in said]


def statement_body(statement: Any) -> bytes:
    return encode_statement(statement, bytes(16))
