"""How often a password may be guessed.

Room: counts failed sign-ins, per account and per source, and says how long to wait. It never sees
a password and does not know which accounts exist: an unknown e-mail is counted like any other, so
nothing here tells them apart. Counts are durable before the password is looked at; a crash or a
race in the middle gives no free guess.

The figures: 5 free failures of one source at one account, then 30 s doubling to 1 h (NIST SP
800-63B, 5.2.2); 100 consecutive failures in all, then only sources that have signed in to this
account before are let in, so that guessing cannot shut the owner out (OWASP ASVS 6.1.1). One
source trying many accounts is slowed after 20 failures.
"""

import asyncio
import hashlib
import ipaddress
import string
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from node.services.ports import LocalStore
from node.services.refusals import TooBusy, TooManyAttempts
from node.services.turns import Turns

KIND = "lockout"

FREE_PER_ACCOUNT = 5
FREE_PER_SOURCE = 20
DELAY_MIN_MS = 30_000
DELAY_MAX_MS = 3_600_000
FAILURES_MAX = 100
SOURCE_FORGET_MS = 3_600_000  # a source starts afresh after an hour without a failure
KNOWN_MAX = 16  # sources remembered as the owner's own, newest last
SOURCES_MAX = 64  # sources counted at one account; FAILURES_MAX holds whatever their number
FORGET_MS = 90 * 86_400_000  # records untouched for so long are swept

_ACCOUNT, _NETWORK = "account:", "network:"
_HEX_DIGITS = string.hexdigits[:16]
_TOGETHER = 100

Entry = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Source:
    """Where a sign-in comes from."""

    address: str  # of the network it comes from
    label: str  # the address, and the web origin when a browser names one

    @classmethod
    def of(cls, address: str | None, origin: str | None) -> "Source":
        """An IPv6 source is its /64: one subscriber holds at least that many addresses."""
        network = address or "unknown"
        try:
            parsed = ipaddress.ip_address(network.split("%", 1)[0])
            if isinstance(parsed, ipaddress.IPv6Address):
                mapped = parsed.ipv4_mapped
                network = str(mapped or ipaddress.IPv6Network((int(parsed), 64), strict=False))
        except ValueError:
            pass
        return cls(network, f"{network} {origin}" if origin else network)


class Attempt:
    """One admitted sign-in. It counts as failed unless `passed` or `withdrawn` says otherwise."""

    def __init__(
        self, local: LocalStore, account: str, source: str, network: str | None, before: list[int]
    ) -> None:
        self._local = local
        self._account = account
        self._source = source
        self._network = network
        self._before = before

    async def passed(self) -> None:
        """The password was right: this source is known, and the account's count starts again."""

        def settle(entry: Entry | None) -> tuple[Entry | None, None]:
            if entry is None:
                return None, None  # it was cleared or forgotten meanwhile, for good
            sources = {source: count for source, count in entry["sources"].items() if source != self._source}
            known = [source for source in entry["known"] if source != self._source]
            known = [*known, self._source][-KNOWN_MAX:]
            return {**entry, "failures": 0, "sources": sources, "known": known}, None

        await self._local.transact(KIND, self._account, settle)
        await self._uncount_network()

    async def withdrawn(self) -> None:
        """The password was never looked at."""

        def restore(entry: Entry | None) -> tuple[Entry | None, None]:
            if entry is None:
                return None, None
            sources = {**entry["sources"], self._source: self._before}
            return {**entry, "failures": max(0, entry["failures"] - 1), "sources": sources}, None

        await self._local.transact(KIND, self._account, restore)
        await self._uncount_network()

    async def _uncount_network(self) -> None:
        if self._network is not None:
            await self._local.transact(KIND, self._network, _uncount_network)


class Lockout:
    def __init__(self, local: LocalStore, *, now_ms: Callable[[], int]) -> None:
        self._local = local
        self._now_ms = now_ms
        self._turns = Turns()

    @asynccontextmanager
    async def attempt(self, application: str, email: str, source: Source) -> AsyncIterator[Attempt]:
        """Admit one look at the password of `email`, after those before it from this source.

        Raises TooManyAttempts before anything is looked at. A TooBusy from inside (the password
        queue is full) does not count as a failure.
        """
        account_key = key_of(application, email)
        source_key = _hash(source.label)[:16]
        async with self._turns.take(account_key + source_key):
            # A first look without a write: who is being slowed costs this node no flush.
            entry, now_ms = self._local.get(KIND, account_key), self._now_ms()
            _refuse(_account_wait_ms(entry, source_key, now_ms))
            network_key = None
            if entry is None or source_key not in entry["known"]:
                network_key = _NETWORK + _hash(source.address)
                _refuse(_network_wait_ms(self._local.get(KIND, network_key), now_ms))
                _refuse(await self._local.transact(KIND, network_key, self._count_network))
            before, wait_ms = await self._local.transact(
                KIND, account_key, lambda entry: self._count_account(entry, source_key)
            )
            _refuse(wait_ms)
            admitted = Attempt(self._local, account_key, source_key, network_key, before)
            try:
                yield admitted
            except TooBusy:
                await admitted.withdrawn()
                raise

    async def clear(self, application: str, email: str) -> None:
        """Forget what was counted at an account: its password was set anew by someone entitled."""
        await self._local.delete(KIND, key_of(application, email))

    async def counted(self) -> set[str]:
        """The keys of all addresses at which something is counted: `key_of` each."""
        keys: set[str] = set()
        for digit in _HEX_DIGITS:
            keys.update(key for key, _ in self._local.scan(KIND, _ACCOUNT + digit))
            await asyncio.sleep(0)
        return keys

    async def forget(self, keys: Iterable[str]) -> None:
        """Forget what was counted at these, of `counted`."""
        left = list(keys)
        while left:
            some, left = left[:_TOGETHER], left[_TOGETHER:]
            await asyncio.gather(*(self._local.delete(KIND, key) for key in some))  # which share a flush

    async def sweep(self) -> None:
        """Drop records that no longer say anything."""
        oldest_ms = self._now_ms() - FORGET_MS
        for prefix in (kind + digit for kind in (_ACCOUNT, _NETWORK) for digit in _HEX_DIGITS):
            stale = [key for key, entry in self._local.scan(KIND, prefix) if entry["at_ms"] < oldest_ms]
            for key in stale:
                await self._local.delete(KIND, key)
            await asyncio.sleep(0)  # in slices, so that no request waits for a long scan

    def _count_account(self, entry: Entry | None, source: str) -> tuple[Entry, tuple[list[int], int]]:
        """Runs on the writer thread. -> the entry, (this source's count before, ms to wait)."""
        now_ms = self._now_ms()
        entry = entry or _new_account_entry()
        wait_ms = _account_wait_ms(entry, source, now_ms)
        before: list[int] = entry["sources"].get(source, [0, 0])
        if wait_ms:
            return entry, (before, wait_ms)
        failures = before[0] + 1
        others = [(name, count) for name, count in entry["sources"].items() if name != source]
        sources = dict(others[-(SOURCES_MAX - 1) :])  # the longest quiet go first
        sources[source] = [failures, now_ms + _delay_ms(failures, FREE_PER_ACCOUNT)]
        counted = {**entry, "at_ms": now_ms, "failures": entry["failures"] + 1, "sources": sources}
        return counted, (before, 0)

    def _count_network(self, entry: Entry | None) -> tuple[Entry, int]:
        """Runs on the writer thread. -> the entry, ms to wait."""
        now_ms = self._now_ms()
        wait_ms = _network_wait_ms(entry, now_ms)
        if entry is not None and wait_ms:
            return entry, wait_ms
        is_fresh = entry is None or now_ms > max(entry["at_ms"] + SOURCE_FORGET_MS, entry["until_ms"])
        failures = 1 if is_fresh or entry is None else entry["failures"] + 1
        delay_ms = _delay_ms(failures, FREE_PER_SOURCE)
        return {"failures": failures, "until_ms": now_ms + delay_ms, "at_ms": now_ms}, 0


def _account_wait_ms(entry: Entry | None, source: str, now_ms: int) -> int:
    if entry is None:
        return 0
    _failures, until_ms = entry["sources"].get(source) or (0, 0)
    if now_ms < until_ms:
        return int(until_ms - now_ms)
    if entry["failures"] >= FAILURES_MAX and source not in entry["known"]:
        return DELAY_MAX_MS
    return 0


def _network_wait_ms(entry: Entry | None, now_ms: int) -> int:
    return 0 if entry is None else max(0, int(entry["until_ms"]) - now_ms)


def _new_account_entry() -> Entry:
    return {"failures": 0, "sources": {}, "known": [], "at_ms": 0}


def _uncount_network(entry: Entry | None) -> tuple[Entry | None, None]:
    if entry is None:
        return None, None
    failures = max(0, entry["failures"] - 1)
    until_ms = entry["until_ms"] if failures >= FREE_PER_SOURCE else 0
    return {**entry, "failures": failures, "until_ms": until_ms}, None


def _delay_ms(failures: int, free: int) -> int:
    if failures < free:
        return 0
    return min(DELAY_MIN_MS << min(failures - free, 16), DELAY_MAX_MS)


def _refuse(wait_ms: int) -> None:
    if wait_ms > 0:
        raise TooManyAttempts(wait_ms=wait_ms)


def key_of(application: str, email: str) -> str:
    """Under which failures at an address are counted."""
    return _ACCOUNT + _hash(f"{application}\0{email}")


def _hash(text: str) -> str:
    """Keys hold no e-mail address in the clear and have one length."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
