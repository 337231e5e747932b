"""A progress bar on the terminal's error stream; nothing anywhere else.

Room: the only module that imports rich, and only when a bar will be seen.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Report = Callable[[int, int], None]
"""Called with what is done and what there is in all (0: not known)."""


@contextmanager
def progress(what: str, *, quiet: bool = False, total: int = 0) -> Iterator[Report]:
    """A bar for `what`; it moves when the function it yields is called."""
    if quiet or not sys.stderr.isatty():
        yield _ignore
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.theme import Theme

    # rich's own colours are made for dark terminals.
    plain = Theme({"progress.remaining": "none", "progress.download": "none", "bar.back": "bright_black"})
    columns = (
        TextColumn("{task.description}"),
        BarColumn(complete_style="green", finished_style="green"),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True, theme=plain)) as bar:
        task = bar.add_task(what, total=total or None, rate="")

        def report(done: int, of: int) -> None:
            speed = bar.tasks[0].speed
            bar.update(task, completed=done, total=of or None, rate=f"{speed:,.0f}/s" if speed else "")

        yield report


def _ignore(_done: int, _of: int) -> None:
    return None
