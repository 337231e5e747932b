"""The figures: what each is called, what it is held against, and when it passes.

Room: values only. A `Ledger` collects one `Sample` a round and figure, or the reason why
there is none; `summary` turns them into medians and verdicts. Nothing here measures.
A share is worked out within its round and only then is the median of the shares taken, so
that a machine that was slower in one round moves both sides of that round's share alike.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import median


class Group(StrEnum):
    """What can be asked for by itself."""

    START = "start"
    CREATES = "creates"
    READS = "reads"
    PAGES = "pages"
    IMPORT = "import"
    DISK = "disk"
    QUERY = "query"
    HELP = "help"
    SYNC = "sync"


class Against(StrEnum):
    """How a figure is held against the other value of its round."""

    SHARE = "share of"  # value / other, where more is better
    TIMES = "times"  # value / other, where less is better
    OVER = "more than"  # value - other


class Verdict(StrEnum):
    PASS = "pass"
    SHORT = "falls short"
    FAILED = "failed"
    NONE = "-"  # nothing is demanded of it


@dataclass(frozen=True, slots=True)
class Target:
    """A bound on the value itself, or with `compared` on its comparison."""

    bound: float
    at_least: bool
    compared: bool = False

    def is_met(self, reached: float) -> bool:
        return reached >= self.bound if self.at_least else reached <= self.bound

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.bound:,g}"


@dataclass(frozen=True, slots=True)
class Spec:
    """One figure. `{large}` and `{small}` in a title stand for the sizes of the stores."""

    key: str
    group: Group
    title: str
    unit: str
    target: Target | None = None
    against: Against | None = None
    other: str | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One round's value, with what it was held against and how the load saw it.

    `net` is the comparison once the generator's own time is taken off both sides.
    """

    value: float
    other: float | None = None
    net: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    load_core_share: float | None = None

    def compared(self, against: Against | None) -> float | None:
        if against is None or self.other is None:
            return None
        if against is Against.OVER:
            return self.value - self.other
        return self.value / self.other if self.other else None


def net_share(ours: tuple[float, float], other: tuple[float, float]) -> float | None:
    """Share of two rates, each with the cores its load took, without the load's own time.

    For one connection, where server and generator take turns: a request takes 1 / rate,
    and of that the generator worked cores / rate. It is the lower bound of the share, since
    any client has to send and receive; the share of the rates themselves is the upper one.
    """
    (rate, cores), (other_rate, other_cores) = ours, other
    if not rate or not other_rate or cores >= 1 or other_cores >= 1:
        return None
    return ((1 - other_cores) / other_rate) / ((1 - cores) / rate)


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and extremes over the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float | None]) -> "Spread | None":
        known = [value for value in values if value is not None]
        return cls(median(known), min(known), max(known)) if known else None


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure over all rounds; `fault` says why it is missing or incomplete."""

    spec: Spec
    title: str
    rounds: tuple[float, ...]
    value: Spread | None
    other: Spread | None
    compared: Spread | None
    net: Spread | None
    p50_ms: Spread | None
    p99_ms: Spread | None
    load_core_share: Spread | None
    fault: str | None

    @property
    def verdict(self) -> Verdict:
        if self.fault is not None or self.value is None:
            return Verdict.FAILED
        if self.spec.target is None:
            return Verdict.NONE
        reached = self.compared if self.spec.target.compared else self.value
        if reached is None:
            return Verdict.FAILED
        return Verdict.PASS if self.spec.target.is_met(reached.median) else Verdict.SHORT


@dataclass(slots=True)
class Ledger:
    """What the rounds so far brought in."""

    specs: tuple[Spec, ...]
    words: Mapping[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    _samples: dict[str, list[Sample]] = field(default_factory=dict)
    _faults: dict[str, str] = field(default_factory=dict)

    def add(self, key: str, sample: Sample) -> None:
        """Keep a sample; of a figure that was not asked for it is dropped."""
        if any(spec.key == key for spec in self.specs):
            self._samples.setdefault(key, []).append(sample)

    def last(self, key: str) -> Sample | None:
        samples = self._samples.get(key)
        return samples[-1] if samples else None

    def fail(self, keys: Iterable[str], why: str, *, counts: Mapping[str, int]) -> None:
        """Mark those of the figures `keys` that this round did not bring in.

        `counts` is what `taken` gave at the start of the round. When all of them were
        there already (a node that then did not stop cleanly, say), it becomes a remark.
        """
        asked = {spec.key for spec in self.specs}.intersection(keys)
        missing = [key for key in asked if len(self._samples.get(key, ())) <= counts.get(key, 0)]
        for key in missing:
            self._faults.setdefault(key, why)
        if asked and not missing and why not in self.remarks:
            self.remarks.append(why)

    def taken(self) -> dict[str, int]:
        return {key: len(samples) for key, samples in self._samples.items()}

    def summary(self) -> list[Figure]:
        return [self._figure(spec) for spec in self.specs]

    def _figure(self, spec: Spec) -> Figure:
        samples = self._samples.get(spec.key, [])
        fault = self._faults.get(spec.key)
        if fault is None and not samples:
            fault = "not measured"
        return Figure(
            spec=spec,
            title=spec.title.format(**self.words),
            rounds=tuple(sample.value for sample in samples),
            value=Spread.of(sample.value for sample in samples),
            other=Spread.of(sample.other for sample in samples),
            compared=Spread.of(sample.compared(spec.against) for sample in samples),
            net=Spread.of(sample.net for sample in samples),
            p50_ms=Spread.of(sample.p50_ms for sample in samples),
            p99_ms=Spread.of(sample.p99_ms for sample in samples),
            load_core_share=Spread.of(sample.load_core_share for sample in samples),
            fault=fault,
        )


_POST_FLOOR = "bare POST"
_GET_FLOOR = "bare GET"
_SQL_FLOOR = "raw SQL"
_REST = "the same over REST"


def _least(bound: float, *, compared: bool = False) -> Target:
    return Target(bound, at_least=True, compared=compared)


def _most(bound: float, *, compared: bool = False) -> Target:
    return Target(bound, at_least=False, compared=compared)


def _query(key: str, title: str, other: str = _SQL_FLOOR) -> Spec:
    return Spec(key, Group.QUERY, title, "ms", _most(3, compared=True), Against.TIMES, other)


SPECS: tuple[Spec, ...] = (
    Spec(
        "creates_c1",
        Group.CREATES,
        "creates, 1 conn.",
        "/s",
        _least(0.40, compared=True),
        Against.SHARE,
        _POST_FLOOR,
    ),
    Spec(
        "creates_c32",
        Group.CREATES,
        "creates, 32 conn.",
        "/s",
        _least(0.80, compared=True),
        Against.SHARE,
        _POST_FLOOR,
    ),
    Spec("creates_per_commit", Group.CREATES, "creates a commit, 32 conn.", "each", _least(12)),
    Spec("flushes_per_commit", Group.CREATES, "flushes a commit", "each", _most(2)),
    Spec(
        "get_c1",
        Group.READS,
        "GET by id, 1 conn.",
        "/s",
        _least(0.50, compared=True),
        Against.SHARE,
        _GET_FLOOR,
    ),
    Spec(
        "get_c32",
        Group.READS,
        "GET by id, 32 conn.",
        "/s",
        _least(0.50, compared=True),
        Against.SHARE,
        _GET_FLOOR,
    ),
    Spec(
        "page_c1",
        Group.PAGES,
        "indexed page of 20, 1 conn.",
        "/s",
        against=Against.SHARE,
        other=_SQL_FLOOR,
    ),
    Spec(
        "page_c32",
        Group.PAGES,
        "indexed page of 20, 32 conn.",
        "/s",
        _least(4_000),
        Against.SHARE,
        _SQL_FLOOR,
    ),
    Spec("import_c1", Group.IMPORT, "import, calls of {call}, one by one", "/s", _least(14_000)),
    Spec("import_c2", Group.IMPORT, "import, calls of {call}, two at a time", "/s"),
    Spec(
        "get_p99_import",
        Group.IMPORT,
        "GET p99 during an import",
        "ms",
        _most(10, compared=True),
        Against.TIMES,
        "its idle p99",
    ),
    Spec("import_large", Group.IMPORT, "import of {large} records", "/s"),
    Spec("disk_import", Group.DISK, "disk over CBOR, {large} imported", "times", _most(7)),
    Spec("disk_creates", Group.DISK, "disk over CBOR, created singly", "times", _most(7)),
    _query("query_large", "indexed filter with sort, {large} records"),
    _query("third_by_index", "a third of {large} by an index, sorted, with total"),
    _query("third_by_scan", "a third of {large} without one, sorted, with total"),
    _query("third_in_order", "a third of {large} in an index's order, with total"),
    _query("third_counted", "a third of {large}, its total"),
    _query("third_grouped", "a third of {large} in groups with figures"),
    _query("graphql_page", "GraphQL page of 100 of {large}, 1 conn.", _REST),
    Spec("start_empty", Group.START, "launch to /health, empty directory", "s", _most(0.5)),
    Spec(
        "start_large",
        Group.START,
        "launch to /health, {large} records",
        "s",
        _most(0.2, compared=True),
        Against.OVER,
        "an empty one",
    ),
    Spec("status_help", Group.HELP, "civicnode status --help", "s", _most(0.3)),
)

DELAYED_KEYS = (
    "creates_c1",
    "creates_c32",
    "creates_per_commit",
    "flushes_per_commit",
    "import_c1",
    "import_c2",
    "get_p99_import",
)


def delayed_specs() -> tuple[Spec, ...]:
    """The figures that a slower flush can move. Bounds in records a second are for a real disk only."""
    kept = [spec for spec in SPECS if spec.key in DELAYED_KEYS]
    return tuple(
        Spec(spec.key, spec.group, spec.title, spec.unit, None, spec.against, spec.other)
        if spec.target is not None and spec.unit == "/s" and not spec.target.compared
        else spec
        for spec in kept
    )


VERSUS_SPECS: tuple[Spec, ...] = tuple(
    Spec(key, group, title, unit, None, Against.SHARE, "civicnode")
    for key, group, title, unit in (
        ("creates_c1", Group.CREATES, "creates, 1 conn.", "/s"),
        ("creates_c32", Group.CREATES, "creates, 32 conn.", "/s"),
        ("get_c1", Group.READS, "GET by id, 1 conn.", "/s"),
        ("get_c32", Group.READS, "GET by id, 32 conn.", "/s"),
        ("page_c1", Group.PAGES, "indexed page of 20, no total, 1 conn.", "/s"),
        ("page_c32", Group.PAGES, "indexed page of 20, no total, 32 conn.", "/s"),
        ("page_total_c32", Group.PAGES, "indexed page of 20 with total, 32 conn.", "/s"),
        ("start_empty", Group.START, "launch to /api/health, prepared directory", "s"),
    )
)
"""What PocketBase is asked; a key shared with `SPECS` names the same work."""
