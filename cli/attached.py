"""The node a command talks to: the one that runs, or one started for this command alone.

Room: the choice between the two. A brief node listens on a free loopback port, looks for no peers, and is
stopped when the command is done, so a command means the same whether a node runs or not.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cli import place
from cli.client import TIMEOUT_S, NodeClient
from cli.errors import CliError


@contextmanager
def running_node(
    data_dir: Path | None, *, application: str | None = None, timeout_s: float = TIMEOUT_S
) -> Iterator[NodeClient]:
    """A client of the node that runs on `data_dir`; raises `NotRunning` if none does."""
    where = place.locate(data_dir)
    found = place.require_running(where)
    token = place.owner_token(where)
    with NodeClient(found, token, application=application, timeout_s=timeout_s) as client:
        yield client


@contextmanager
def any_node(
    data_dir: Path | None,
    *,
    application: str | None = None,
    timeout_s: float = TIMEOUT_S,
    make: bool = False,
) -> Iterator[NodeClient]:
    """A client of the node that runs on `data_dir`, else of one started until the block ends.

    With `make`, a directory that has never held a node will do.
    """
    where = place.locate(data_dir)
    if place.running(where) is not None:
        with running_node(where, application=application, timeout_s=timeout_s) as client:
            yield client
        return
    if not make:
        place.require_node_data(where)
    if place.is_locked(where):
        raise CliError(f"another civicnode command works on {where}: wait for it to end, then try again")
    from cli import child

    quiet = ["--api", "127.0.0.1:0", "--listen", "127.0.0.1:0", "--no-mdns"]
    with (
        child.node(["--data-dir", str(where), *quiet]),
        running_node(where, application=application, timeout_s=timeout_s) as client,
    ):
        yield client
