"""Whether work grows with its size or with the square of it.

Room: measuring it by CPU time, so that neither a busy machine nor a slow one makes a difference.
"""

import time
from collections.abc import Callable

TRIES = 5  # caches and other processes disturb a single one


def cpu_s(work: Callable[[], object]) -> float:
    """The CPU time that this process spends on it."""
    started = time.process_time()
    work()
    return time.process_time() - started


def grows_in_proportion(took_s: Callable[[int], float], few: int) -> bool:
    """Whether four times as much takes less than eight times as long: sixteen times if the work is quadratic."""
    return any(took_s(4 * few) < 8 * took_s(few) for _ in range(TRIES))
