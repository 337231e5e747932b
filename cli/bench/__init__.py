"""`civicnode bench`: how fast this node is on this machine, and how near to the floor.

Room: measures a real node in a process of its own, over loopback, with load from another
process, and in the same round the floor under each figure on the same machine: aiohttp
and one LMDB commit, aiohttp answering from memory, raw SQL over the node's own index.
Medians of several rounds, then once more with 5 ms added to every flush. It touches no
data but its own temporary directory and no address but 127.0.0.1.

`records` and `floor`, `rawsql`, `load`, `turns` say what is asked and by whom; `rounds` says in
which order; `figures` says what a figure must reach; `report` shows it. This module has
only the entry point, and imports the rest when it is called.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from cli.bench.asking import Sizes
    from cli.bench.report import Report

ROUNDS_MAX = 50
FLUSH_DELAY_MS = 5.0  # a hard disk or a worn card; a good drive takes a tenth of it
FLUSH_DELAY_MAX_MS = 100.0
VERSUS = ("pocketbase",)


def run(
    *,
    rounds: int = 5,
    quick: bool = False,
    versus: str | None = None,
    json_path: str | Path | None = None,
    only: Sequence[str] | None = None,
    console: "Console",
    flush_delay_ms: float = FLUSH_DELAY_MS,
    command: Sequence[str] | None = None,
    sizes: "Sizes | None" = None,
) -> "Report":
    """Measure, show the tables on `console`, write the JSON document to `json_path`.

    Takes about a minute a round; `quick` makes it one short round whose figures are only a
    hint. `only` names groups (`figures.Group`); a `flush_delay_ms` of 0 leaves the second
    pass out; `command` is how a node's command line is called, by default
    `python -m cli.main`. A figure that cannot be measured is reported as failed. Raises
    `errors.BenchMisuse` for an argument that names nothing known, before anything is
    started. An interrupt or SIGTERM ends it with all children, and so does being killed.
    """
    from cli.bench.session import Session

    session = Session(
        rounds=rounds,
        quick=quick,
        versus=versus,
        only=only,
        console=console,
        flush_delay_ms=flush_delay_ms,
        command=command,
        sizes=sizes,
    )
    return session.run(Path(json_path) if json_path is not None else None)
