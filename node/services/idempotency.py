"""Answers to requests with an `Idempotency-Key`: one that comes again gets the same, and nothing happens twice.

Room: durable records of this node alone (CONTRACT: they belong to one node), which are dropped after a day. What an
answer looks like on the wire is the frame's. A key belongs to its caller, method and path. What failed is not kept:
nothing was done, so it may be tried again.
"""

import hashlib
from collections.abc import Callable
from typing import NamedTuple

from node.services.account_models import ACCOUNT
from node.services.ports import LocalStore
from node.services.refusals import KeyInUse, KeyReused
from protocol.ids import builtin_model_id

KIND = "idempotency"
KEPT_MS = 86_400_000
KEY_MAX_CHARS = 255
ANSWER_SIZE_MAX_BYTES = 256 << 10  # a larger one is not kept
RECORDS_MAX = 50_000  # beyond it answers are not kept until the next sweep
_ID_CHARS = 26


class Kept(NamedTuple):
    """An answer: its status, header lines and body."""

    status: int
    head: bytes
    body: bytes


class Claim(NamedTuple):
    """A request that is under way. `derived_id` is a name for what it creates, the same whenever it is repeated."""

    name: str
    print: str
    derived_id: str
    erasures: int  # that this process had heard of when it began
    caller: str


def caller_of(application: str, user: str | None) -> str:
    """Whose keys are the same: an account within its application."""
    return f"{application}\0{user}"


class Idempotency:
    """For one event loop. Per request: `begin`, then `keep` if it did something, and `end` always."""

    def __init__(self, local: LocalStore, *, now_ms: Callable[[], int]) -> None:
        self._local = local
        self._now_ms = now_ms
        self._under_way: set[str] = set()
        self._count: int | None = None
        self._erasures = 0
        self._gone: set[str] = set()  # callers whose accounts were erased

    def begin(self, caller: str, method: str, target: str, key: str, body: bytes) -> Claim | Kept:
        """The answer that was given before, or the right to give one. `caller` is what `caller_of` makes of an account.

        Raises `KeyReused` if the key came with another request, `KeyInUse` while the first is under way.
        """
        name = hashlib.sha256("\0".join((caller, method, target.partition("?")[0], key)).encode()).hexdigest()
        print = hashlib.sha256(target.encode() + b"\0" + body).hexdigest()
        known = self._local.get(KIND, name)
        if known is not None and known["at_ms"] > self._now_ms() - KEPT_MS:
            if known["print"] != print:
                raise KeyReused
            return Kept(known["status"], known["head"], known["body"])
        if name in self._under_way:
            raise KeyInUse
        self._under_way.add(name)
        return Claim(name, print, f"k{name[: _ID_CHARS - 1]}", self._erasures, caller)

    async def keep(self, claim: Claim, answer: Kept, *, names_all: bool = True) -> None:
        """Durable when it returns. `names_all`: the answer has the id of every document whose content it has."""
        if self._count is None:
            self._count = sum(1 for _ in self._local.scan(KIND))
        if (
            len(answer.body) > ANSWER_SIZE_MAX_BYTES
            or self._count >= RECORDS_MAX
            or claim.caller in self._gone
        ):
            return
        self._count += 1
        record = {
            "at_ms": self._now_ms(),
            "print": claim.print,
            "caller": claim.caller,
            "names_all": names_all,
            **answer._asdict(),
        }
        await self._local.put(KIND, claim.name, record)
        was_erased_from = not names_all and claim.erasures != self._erasures  # it may show what is gone
        if was_erased_from or claim.caller in self._gone:
            await self._drop([claim.name])

    def end(self, claim: Claim) -> None:
        self._under_way.discard(claim.name)

    async def sweep(self) -> None:
        """Drop what is older than a day."""
        since_ms = self._now_ms() - KEPT_MS
        await self._drop([name for name, one in self._local.scan(KIND) if one["at_ms"] <= since_ms])

    async def forget(self, application: str, model: str, id: str) -> None:
        """Drop every answer that speaks of an erased document, or might without naming it; with an account all of its
        own, which may hold what is no document: the secret of a webhook."""
        self._erasures += 1
        named, caller = id.encode(), None
        if model == builtin_model_id(application, ACCOUNT):
            caller = caller_of(application, id)
            self._gone.add(caller)
        await self._drop([
            name for name, one in self._local.scan(KIND)
            if not one["names_all"] or named in one["body"] or named in one["head"]
            or (caller is not None and one.get("caller", caller) == caller)
        ])  # fmt: skip

    async def _drop(self, names: list[str]) -> None:
        for name in names:
            await self._local.delete(KIND, name)
        self._count = None
