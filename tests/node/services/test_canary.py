import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from node.services.canary import Canary, Trial
from protocol.yjs_update import Struct, Update, encode_update

LOG = logging.getLogger("test")
HELLO = encode_update(Update(7, (Struct(0, 5, None, None, "hello"),), ()), "f")


def trial(key: str, *updates: bytes) -> Trial:
    return Trial(key, "f", True, b"", updates)


@asynccontextmanager
async def canary(
    worker: str = "tests.node.services.canary_standin", timeout_s: float = 5.0
) -> AsyncIterator[Canary]:
    made = Canary(LOG, trial_timeout_s=timeout_s, worker=worker)
    try:
        yield made
    finally:
        await made.stop()


async def test_what_the_worker_survives_is_good_and_one_worker_serves_all() -> None:
    async with canary("node.services.canary_worker") as made:
        assert made.starts == 0
        assert await made.check([]) == set() and made.starts == 0
        assert await made.check([trial("one", HELLO), trial("two", b"no update", HELLO)]) == set()
        assert await made.check([trial("three", HELLO)]) == set()
        assert made.starts == 1


async def test_what_kills_the_worker_twice_is_bad_and_others_are_not() -> None:
    async with canary() as made:
        trials = [trial("good", b"x"), trial("bad", b"x", b"die"), trial("also good", b"y")]
        assert await made.check(trials) == {"bad"}
        assert made.starts == 3
        assert await made.check([trial("later", b"z")]) == set()


async def test_what_takes_for_ever_is_bad_and_the_loop_goes_on_meanwhile() -> None:
    async with canary(timeout_s=1.0) as made:
        turns = 0

        async def tick() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0.001)
                turns += 1

        ticking = asyncio.create_task(tick())
        assert await made.check([trial("endless", b"hang"), trial("good", b"x")]) == {"endless"}
        ticking.cancel()
        assert turns > 5


async def test_what_kills_a_worker_once_was_no_fault_of_the_update(tmp_path: Path) -> None:
    async with canary() as made:
        assert await made.check([trial("unlucky", f"die once {tmp_path / 'dead'}".encode())]) == set()
        assert made.starts == 2


async def test_callers_take_turns() -> None:
    async with canary() as made:
        some = [made.check([trial(f"{n}", b"die" if n == 2 else b"x")]) for n in range(5)]
        assert await asyncio.gather(*some) == [set(), set(), {"2"}, set(), set()]


async def test_where_there_is_no_worker_nothing_is_held_up() -> None:
    async with canary("no.such.module") as made:
        assert await made.check([trial("one", b"die")]) == set()
