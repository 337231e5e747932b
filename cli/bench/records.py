"""What is measured with: the model, the records and the questions asked about them.

Room: pure and seeded; the same seed gives the same bytes in every process, so that the
node, the floors and PocketBase are asked the same things. Eight fields and about 275
bytes of JSON a record. Nothing here sends anything.
"""

import json
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from urllib.parse import urlencode

MODEL = "Bench"
SEED = 20_240
DISTRICTS = 100
STATUSES = ("proposed", "open", "planned", "done", "declined")
VOTES_MAX = 100_000
PER_PAGE = 20
GRAPHQL_PER_PAGE = 100
SORTABLE = ("title", "status", "votes", "cost", "due", "summary", "urgent")

_WORDS = """
bridge school market garden library harbour station theatre cycle path lamp bench square fountain bus
stop river wall roof window meadow clinic crossing playground tree tunnel archive signal quay avenue
"""
_VERBS = ("Repair", "Extend", "Open", "Paint", "Move", "Light", "Plan", "Clean", "Rebuild", "Close")

Record = dict[str, str | int | float | bool]


@dataclass(frozen=True, slots=True)
class Question:
    """One page of a list: a condition on a field, an order, a page number from 1; `is_counted` with its total."""

    field: str
    value: str | int
    sort: str
    descending: bool
    page: int
    operator: str = "eq"
    is_counted: bool = False

    def query_string(self) -> str:
        return urlencode(
            {
                "filter": f"{self.field}:{self.operator}:{self.value}",
                "sort": self.sort,
                "order": "desc" if self.descending else "asc",
                "page": self.page,
                "per_page": PER_PAGE,
            }
        )


@dataclass(frozen=True, slots=True)
class Grouping:
    """Figures over the records whose `field` is below `value`, as pairs of function and field; one row a group."""

    field: str
    value: str | int
    group_by: tuple[str, ...]
    figures: tuple[tuple[str, str], ...]

    def body(self) -> dict[str, object]:
        return {
            "filter": f"{self.field}:lt:{self.value}",
            "group_by": self.group_by,
            "aggregations": [{"operation": function, "field": field} for function, field in self.figures],
        }


_FIELDS: tuple[dict[str, object], ...] = (
    {"name": "title", "type": "string", "required": True},
    {"name": "summary", "type": "string"},
    {"name": "district", "type": "string", "required": True, "indexed": True},
    {"name": "status", "type": "enum", "options": list(STATUSES), "default": STATUSES[0]},
    {"name": "votes", "type": "integer", "min": 0},
    {"name": "cost", "type": "number"},
    {"name": "urgent", "type": "boolean"},
    {"name": "due", "type": "date", "indexed": True},
)


def definition() -> dict[str, object]:
    """The body of `POST /v1/data-models`: eight fields, two of them indexed."""
    return {"name": MODEL, "fields": list(_FIELDS)}


def district(number: int) -> str:
    return f"district-{number:03d}"


def records(count: int, *, seed: int = SEED) -> Iterator[Record]:
    """`count` different records; every district gets an even share of them."""
    chance = random.Random(seed)
    words = _WORDS.split()
    for number in range(count):
        year, month, day = chance.randrange(2025, 2035), chance.randrange(1, 13), chance.randrange(1, 29)
        yield {
            "title": f"{chance.choice(_VERBS)} the {' '.join(chance.choices(words, k=3))} {number}",
            "summary": " ".join(chance.choices(words, k=16)),
            "district": district(number % DISTRICTS),
            "status": chance.choice(STATUSES),
            "votes": chance.randrange(VOTES_MAX),
            "cost": round(chance.uniform(10, 1_000_000), 2),
            "urgent": chance.random() < 0.2,
            "due": f"{year}-{month:02d}-{day:02d}",
        }


def questions(count: int, record_count: int, *, seed: int = SEED) -> list[Question]:
    """Pages of 20 behind an index, all different until every combination was asked once.

    Every page is full; what differs is the district, the order and the page. With 10,000
    records that makes 7,000 questions, so that a cache of whole answers would not help.
    """
    pages = max(1, min(5, record_count // DISTRICTS // PER_PAGE))
    every = [
        Question("district", district(number), sort, descending, page)
        for number in range(DISTRICTS)
        for sort in SORTABLE
        for descending in (False, True)
        for page in range(1, pages + 1)
    ]
    random.Random(seed).shuffle(every)
    return [every[number % len(every)] for number in range(count)]


def third_by_index(count: int) -> list[Question]:
    """A third of all records, found by an index, in the order of a field that has none."""
    others = [name for name in SORTABLE if name != "due"]
    return [
        Question("due", due, others[number % len(others)], number % 2 == 0, number % 5 + 1, "lt", True)
        for number, due in enumerate(_third_of_dates(count))
    ]


def third_by_scan(count: int) -> list[Question]:
    """A third that no index finds, in the order of a field that has none."""
    others = [name for name in SORTABLE if name not in ("votes", "due")]
    return [
        Question("votes", votes, others[number % len(others)], number % 2 == 0, number % 5 + 1, "lt", True)
        for number, votes in enumerate(_third_of_votes(count))
    ]


def third_in_order(count: int) -> list[Question]:
    """A third that no index finds, in the order of an index."""
    return [
        Question("votes", votes, "due", number % 2 == 0, number % 5 + 1, "lt", True)
        for number, votes in enumerate(_third_of_votes(count))
    ]


def third_counted(count: int) -> list[Grouping]:
    """How many a third is."""
    return [Grouping("votes", votes, (), (("count", "id"),)) for votes in _third_of_votes(count)]


def third_grouped(count: int) -> list[Grouping]:
    """A third in five groups, with four figures of each."""
    figures = (("count", "id"), ("sum", "votes"), ("avg", "cost"), ("max", "due"))
    return [Grouping("votes", votes, ("status",), figures) for votes in _third_of_votes(count)]


def _third_of_dates(count: int) -> list[str]:
    """Dates below which about a third of the records are due: each another one, so that no total is known."""
    chance, middle = random.Random(SEED), date(2028, 5, 1)
    every = [(middle + timedelta(days=number)).isoformat() for number in range(-60, 60)]
    chance.shuffle(every)
    return [every[number % len(every)] for number in range(count)]


def _third_of_votes(count: int) -> list[int]:
    """The same of votes."""
    return random.Random(SEED).sample(range(VOTES_MAX // 3 - count, VOTES_MAX // 3 + count), count)


def rest_page(page: int) -> str:
    """The address of a page of 100 whole records."""
    return f"/v1/data/{MODEL}?sort=due&order=asc&page={page}&per_page={GRAPHQL_PER_PAGE}"


def graphql_page(page: int) -> dict[str, object]:
    """The same in GraphQL, every member of every record."""
    fields = [str(field["name"]) for field in _FIELDS]
    members = " ".join(["id", *fields, "created_at", "updated_at", "created_by", "version"])
    query = "query ($page: Int) { page: benchs(sort: { field: due, order: ASC }, page: $page, per_page: "
    query += f"{GRAPHQL_PER_PAGE}) {{ {members} }} }}"
    return {"query": query, "variables": {"page": page}}


def canonical_bytes(sample: Iterable[Mapping[str, object]]) -> float:
    """Mean size in bytes of a record in canonical CBOR (RFC 8949, section 4.2.1)."""
    import cbor2

    sizes = [len(cbor2.dumps(dict(record), canonical=True)) for record in sample]
    return sum(sizes) / len(sizes)


def as_json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def record_id(number: int) -> str:
    """Same length as the ids a node makes."""
    return f"{number:026d}"


def rendered(count: int) -> dict[str, bytes]:
    """Records as a node answers them, by id."""
    about = {
        "model": MODEL,
        "created_at": "2025-01-01T00:00:00.000Z",
        "updated_at": "2025-01-01T00:00:00.000Z",
        "created_by": "0" * 26,
        "version": "0" * 16,
    }
    return {
        record_id(number): as_json({"id": record_id(number), **about, **record})
        for number, record in enumerate(records(count))
    }


def request(
    method: str, target: str, *, port: int, body: bytes | None = None, token: str | None = None
) -> bytes:
    """A whole HTTP/1.1 request as a program on the same machine would send it."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Accept: application/json"]
    if token is not None:
        lines.append(f"Authorization: Bearer {token}")
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")
