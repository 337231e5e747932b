"""What is measured with: the model, the records and the questions asked about them.

Room: pure and seeded; the same seed gives the same bytes in every process, so that the
node, the floors and PocketBase are asked the same things. Eight fields and about 275
bytes of JSON a record. Nothing here sends anything.
"""

import json
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

MODEL = "Bench"
SEED = 20_240
DISTRICTS = 100
STATUSES = ("proposed", "open", "planned", "done", "declined")
PER_PAGE = 20
SORTABLE = ("title", "status", "votes", "cost", "due", "summary")

_WORDS = (
    "bridge school market garden library harbour station theatre cycle path lamp bench square fountain bus "
    "stop river wall roof window meadow clinic crossing playground tree tunnel archive signal quay avenue"
).split()
_VERBS = ("Repair", "Extend", "Open", "Paint", "Move", "Light", "Plan", "Clean", "Rebuild", "Close")

Record = dict[str, str | int | float | bool]


@dataclass(frozen=True, slots=True)
class Question:
    """One page of a list: an equality on an indexed field, an order, a page number from 1."""

    field: str
    value: str
    sort: str
    descending: bool
    page: int

    def query_string(self) -> str:
        return urlencode(
            {
                "filter": f"{self.field}:eq:{self.value}",
                "sort": self.sort,
                "order": "desc" if self.descending else "asc",
                "page": self.page,
                "per_page": PER_PAGE,
            }
        )


def definition() -> dict[str, object]:
    """The body of `POST /v1/data-models`: eight fields, two of them indexed."""
    return {
        "name": MODEL,
        "fields": [
            {"name": "title", "type": "string", "required": True},
            {"name": "summary", "type": "string"},
            {"name": "district", "type": "string", "required": True, "indexed": True},
            {"name": "status", "type": "enum", "options": list(STATUSES), "default": STATUSES[0]},
            {"name": "votes", "type": "integer", "min": 0},
            {"name": "cost", "type": "number"},
            {"name": "urgent", "type": "boolean"},
            {"name": "due", "type": "date", "indexed": True},
        ],
    }


def district(number: int) -> str:
    return f"district-{number:03d}"


def records(count: int, *, seed: int = SEED) -> Iterator[Record]:
    """`count` different records; every district gets an even share of them."""
    chance = random.Random(seed)
    for number in range(count):
        words = " ".join(chance.choices(_WORDS, k=14))
        yield {
            "title": f"{chance.choice(_VERBS)} the {' '.join(chance.choices(_WORDS, k=3))} {number}",
            "summary": words,
            "district": district(number % DISTRICTS),
            "status": chance.choice(STATUSES),
            "votes": chance.randrange(100_000),
            "cost": round(chance.uniform(10, 1_000_000), 2),
            "urgent": chance.random() < 0.2,
            "due": f"20{chance.randrange(25, 35)}-{chance.randrange(1, 13):02d}-{chance.randrange(1, 29):02d}",
        }


def questions(count: int, record_count: int, *, seed: int = SEED) -> Iterator[Question]:
    """Pages of 20 behind an index, in an order in which hardly any two are the same.

    Every page is full; what differs is the district, the order and the page, some
    thousands of combinations, so that a cache of whole answers would not help.
    """
    chance = random.Random(seed)
    pages = max(1, min(5, record_count // DISTRICTS // PER_PAGE))
    for _ in range(count):
        yield Question(
            field="district",
            value=district(chance.randrange(DISTRICTS)),
            sort=chance.choice(SORTABLE),
            descending=chance.random() < 0.5,
            page=chance.randint(1, pages),
        )


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
