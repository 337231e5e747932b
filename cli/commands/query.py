"""`civicnode query`: read-only SQL over the node's index."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli import options

if TYPE_CHECKING:
    from cli.client import NodeClient

PATIENCE_S = 300.0  # for an index that is filled anew: some millions of records
PAUSE_S = 0.2


@click.command(
    short_help="Run read-only SQL over the data.",
    epilog=options.examples(
        'civicnode query "SELECT country, count(*) FROM Airport GROUP BY country ORDER BY 2 DESC" --limit 5',
        'civicnode query "SELECT name FROM sqlite_master" --json',
    ),
)
@click.argument("sql")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=1000, show_default=True, help="Rows at most."
)
@options.data_dir
@options.as_json
def query(sql: str, limit: int, data_dir: Path | None, as_json: bool) -> None:
    """Run SQL, a single SELECT, over the node's data.

    Each model is a view of that name. Nothing can be changed this way.
    """
    from cli.attached import any_node
    from cli.output import print_json, print_table

    with any_node(data_dir) as node:
        answer = _ask(node, {"sql": sql, "limit": limit})
    if as_json:
        print_json({key: answer.get(key) for key in ("columns", "rows", "truncated")})
        return
    print_table(answer["columns"], answer["rows"])
    if answer.get("truncated"):
        click.echo(f"There are more rows than {limit}: raise --limit", err=True)


def _ask(node: "NodeClient", request: dict[str, Any]) -> dict[str, Any]:
    """The answer; waits for the index if it is being filled, as when a restored record is opened first."""
    from cli.client import ApiRefused

    ends_at, is_told = time.monotonic() + PATIENCE_S, False
    while True:
        try:
            answer: dict[str, Any] = node.post("/v1/admin/query", request)
            return answer
        except ApiRefused as refused:
            if refused.status != 503 or time.monotonic() > ends_at:
                raise
            if not is_told:
                click.echo("The query index is being rebuilt: waiting for it", err=True)
                is_told = True
        time.sleep(PAUSE_S)
