import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from node.services.canary import Canary, Trial
from node.writer import WriterOverloaded
from protocol.yjs_update import Struct, Update, encode_update

LOG = logging.getLogger("test")
HELLO = encode_update(Update(7, (Struct(0, 5, None, None, "hello"),), ()), "f")


def trial(key: str, *updates: bytes) -> Trial:
    return Trial(key, "f", True, b"", updates)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110  # what is waited for has no event
            await asyncio.sleep(0)


@asynccontextmanager
async def canary(
    worker: str = "tests.node.services.canary_standin", *, cpu_s: float = 10.0, silence_s: float = 600.0
) -> AsyncIterator[Canary]:
    made = Canary(LOG, cpu_max_s=cpu_s, silence_timeout_s=silence_s, worker=worker)
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


async def test_what_spends_cpu_time_for_ever_is_bad_and_the_loop_goes_on_meanwhile() -> None:
    async with canary(cpu_s=0.1) as made:
        turns = 0

        async def tick() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0.001)
                turns += 1

        ticking = asyncio.create_task(tick())
        assert await made.check([trial("endless", b"hang"), trial("good", b"x")]) == {"endless"}
        assert made.starts == 3
        ticking.cancel()
        assert turns > 5


async def test_the_library_is_ended_in_the_middle_of_its_work() -> None:
    """It holds the interpreter meanwhile. Loading it, which takes more than the limit, counts for nothing."""
    others = [
        encode_update(Update(n, (Struct(0, 50, None, None, "x" * 50),), ()), "f") for n in range(1, 2000)
    ]
    async with canary("node.services.canary_worker", cpu_s=0.05) as made:
        assert await made.check([trial("good", HELLO), trial("long", *others)]) == {"long"}
        assert made.starts == 2


async def test_a_worker_that_is_stopped_for_longer_than_the_limit_condemns_nothing(tmp_path: Path) -> None:
    told = tmp_path / "stopped"
    async with canary(cpu_s=0.05) as made:
        checking = asyncio.create_task(made.check([trial("honest", f"stop 1 {told}".encode())]))
        await until(lambda: told.exists() and told.read_text().endswith("\n"))
        await asyncio.sleep(0.2)  # it is stopped for longer than it may work

        def goes_on() -> bool:  # it may be told so before it has stopped: again, then
            os.kill(int(told.read_text()), signal.SIGCONT)
            return checking.done()

        await until(goes_on)
        assert await checking == set()
        assert made.starts == 1


async def test_a_worker_that_never_comes_back_is_replaced(tmp_path: Path) -> None:
    async with canary(silence_s=0.3) as made:
        trials = [trial("honest", f"stop 2 {tmp_path / 'stopped'}".encode()), trial("good", b"x")]
        assert await made.check(trials) == set()
        assert made.starts >= 3


async def test_what_silences_every_worker_while_they_answer_other_questions_is_bad() -> None:
    async with canary(silence_s=0.3) as made:
        assert await made.check([trial("bad", b"stop"), trial("good", b"x")]) == {"bad"}
        assert made.starts >= 4


async def test_where_no_worker_answers_any_more_silence_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with canary(silence_s=0.1) as made:
        started, left = made._started, 3

        async def started_three_times() -> object:
            nonlocal left
            left -= 1
            if left < 0:
                raise OSError("none to be had")
            return await started()

        monkeypatch.setattr(made, "_started", started_three_times)
        assert await made.check([trial("unclear", b"stop")]) == set()
        assert left == -1


async def test_what_kills_a_worker_once_was_no_fault_of_the_update(tmp_path: Path) -> None:
    async with canary() as made:
        assert await made.check([trial("unlucky", f"die 1 {tmp_path / 'dead'}".encode())]) == set()
        assert made.starts == 2


async def test_a_worker_that_is_killed_from_outside_says_less_than_one_that_dies(tmp_path: Path) -> None:
    async with canary() as made:
        assert await made.check([trial("unlucky", f"kill 2 {tmp_path / 'dead'}".encode())]) == set()
        assert made.starts == 3
        assert await made.check([trial("bad", b"kill")]) == {"bad"}


async def test_stopping_does_not_wait_for_a_worker_that_is_silent(tmp_path: Path) -> None:
    told = tmp_path / "stopped"
    async with canary() as made:
        checking = asyncio.create_task(made.check([trial("unclear", f"stop 9 {told}".encode())]))
        await until(told.exists)
        waiting = asyncio.create_task(made.check([trial("later", b"x")]))
        await asyncio.sleep(0)
        await made.stop()
        for task in (checking, waiting):
            with pytest.raises(WriterOverloaded):
                await task
        assert made.starts == 1


async def test_stopping_while_a_worker_is_started_lets_nothing_through_untried() -> None:
    async with canary() as made:
        checking = asyncio.create_task(made.check([trial("unclear", b"stop")]))
        await until(lambda: made.starts > 0)
        await made.stop()
        with pytest.raises(WriterOverloaded):
            await checking


async def test_callers_take_turns() -> None:
    async with canary() as made:
        some = [made.check([trial(f"{n}", b"die" if n == 2 else b"x")]) for n in range(5)]
        assert await asyncio.gather(*some) == [set(), set(), {"2"}, set(), set()]


async def test_where_there_is_no_worker_nothing_is_held_up() -> None:
    async with canary("no.such.module") as made:
        assert await made.check([trial("one", b"die")]) == set()
