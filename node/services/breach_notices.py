"""A notice of a breach as those whom it concerns may see it.

Room: from a `$breach` document, which may come from a peer, to who is affected and what is said. Making and listing
them is `privacy`'s; sockets and webhooks tell them as they arrive.
"""

from typing import Any, NamedTuple

from protocol.changes import Record
from protocol.times import datetime_from_ms


class Notice(NamedTuple):
    """`said` is for everybody who is affected; who else is, for administrators alone."""

    affected: frozenset[str]
    said: dict[str, Any]

    @property
    def whole(self) -> dict[str, Any]:
        return {**self.said, "affected_user_ids": sorted(self.affected)}


def read_notice(record: Record) -> Notice:
    affected = record.values.get("affected")
    said = {
        "id": record.id,
        "description": record.values.get("description"),
        "severity": record.values.get("severity"),
        "reported_at": datetime_from_ms(record.created_at_ms),
    }
    listed = affected if isinstance(affected, list) else ()
    return Notice(frozenset(id for id in listed if isinstance(id, str)), said)
