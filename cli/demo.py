"""`make demo`: a node, a real data set, questions to it, and a change seen live.

Room: a visitor of the node like any other app: everything goes through the command line and the loopback API.
The data are the airports of the package `airportsdata` (MIT licence), some 28,000 records. With EXIT=1 in the
environment it ends by itself, else it leaves the node running until Ctrl-C.
"""

import asyncio
import json
import os
import shlex
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, sleep
from typing import Any
from urllib.parse import quote

from rich.console import Console
from rich.text import Text

from cli import child, importer, place
from cli.client import NodeClient
from cli.errors import CliError
from cli.output import piped_width
from cli.progress import progress

MODEL: dict[str, Any] = {
    "name": "Airport",
    "fields": [
        {"name": "icao", "type": "string", "required": True},
        {"name": "iata", "type": "string"},
        {"name": "name", "type": "string"},
        {"name": "city", "type": "string"},
        {"name": "country", "type": "string", "indexed": True},
        {"name": "elevation", "type": "number"},
        {"name": "lat", "type": "number"},
        {"name": "lon", "type": "number"},
        {"name": "tz", "type": "string"},
    ],
}
FIELDS = [field["name"] for field in MODEL["fields"]]
WATCHED = "BIKF"
EVENT_TIMEOUT_S = 10.0

# Bold, green and magenta are legible on dark and on light terminals; rich leaves colour out for NO_COLOR and
# for pipes.
HEAD = "bold magenta"


def main() -> int:
    """Run the demonstration; return the exit code."""
    console = Console(highlight=False, width=piped_width(sys.stdout))
    try:
        with tempfile.TemporaryDirectory(prefix="civicnode-demo-") as folder:
            _demonstrate(console, Path(folder) / "data")
    except CliError as fault:
        print(f"Error: {fault.format_message()}", file=sys.stderr)
        return fault.exit_code
    except KeyboardInterrupt:
        console.print("\nStopped; the demonstration's data are gone.")
    return 0


def _demonstrate(console: Console, data_dir: Path) -> None:
    from aiohttp import ClientError
    from airportsdata import load

    console.print("[bold]1. A node starts[/], with an identity and a network of its own", style=HEAD)
    began = perf_counter()
    arguments = ["--api", "127.0.0.1:0", "--listen", "127.0.0.1:0", "--no-mdns", "--name", "demo"]
    with child.node(["--data-dir", str(data_dir), *arguments]) as ready:
        console.print(f"   {ready}  [green]({_ms(began)})[/]")
        node = NodeClient(place.require_running(data_dir), place.owner_token(data_dir))
        with node:
            airports = load("ICAO")
            console.print(f"\n[bold]2. {len(airports):,} airports arrive[/] by POST /v1/batch", style=HEAD)
            _import(console, node, airports)
            console.print("\n[bold]3. Questions[/]", style=HEAD)
            _ask(console, node)
            console.print(f"\n[bold]4. A change, seen live[/] on /v1/realtime: {WATCHED}", style=HEAD)
            try:
                asyncio.run(_watch(console, node, place.owner_token(data_dir)))
            except (ClientError, TimeoutError) as fault:
                raise CliError(f"the change was not seen ({type(fault).__name__}: {fault})") from None
            _leave(console, node, data_dir)


def _import(console: Console, node: NodeClient, airports: dict[str, Any]) -> None:
    node.post("/v1/data-models", MODEL)
    bodies = (
        (icao, {"id": icao, **{name: airport[name] for name in FIELDS if airport[name] not in ("", None)}})
        for icao, airport in airports.items()
    )
    began = perf_counter()
    with progress("   import", total=len(airports)) as report:
        outcome = importer.send(node, MODEL["name"], bodies, lambda done: report(done, len(airports)))
    took_s = perf_counter() - began
    if outcome.failed:
        raise CliError(f"{outcome.failed} airports were refused, the first is {outcome.faults[0]}")
    console.print(
        f"   each validated, signed, on disk and indexed, in {took_s:.1f} s  "
        f"[green]({outcome.created / took_s:,.0f}/s)[/]"
    )


def _ask(console: Console, node: NodeClient) -> None:
    data = "/v1/data/Airport"

    def ask(label: str, request: Callable[[], Any], show: Callable[[Any], str]) -> None:
        began = perf_counter()
        answer = request()
        took = _ms(began)
        # The time comes first: where it is narrow, an answer is cut, a figure or its unit never.
        line = Text.assemble((f"{took:>12}", "green"), f"  {label:<32}  {show(answer)}")
        console.print(line, no_wrap=True, overflow="ellipsis")

    def page(filter_: str, sort: str, order: str) -> None:
        ask(
            f"…?filter={filter_}",
            lambda: node.get(data, filter=filter_, sort=sort, order=order, per_page=20),
            lambda a: f"{a['total']:,}, from {a['items'][0]['name']}",
        )

    ask(f"GET {data}", lambda: node.get(data, per_page=1), lambda a: f"{a['total']:,} records")
    ask(f"GET {data}/{WATCHED}", lambda: node.get(f"{data}/{WATCHED}"), lambda a: str(a["name"]))
    page("country:eq:IS", "name", "asc")
    page("elevation:gt:13000", "elevation", "desc")
    page("name:like:%harbour%", "name", "asc")
    count = {"field": "id", "operation": "count", "alias": "airports"}
    ask(
        f"POST {data}/aggregate",
        lambda: node.post(f"{data}/aggregate", {"group_by": ["country"], "aggregations": [count]}),
        lambda rows: (
            f"{len(rows)} countries, most in {max(rows, key=lambda row: row['airports'])['country']}"
        ),
    )
    sql = "SELECT tz, count(*) FROM Airport GROUP BY tz ORDER BY 2 DESC"
    ask(
        "civicnode query 'SELECT tz, …'",
        lambda: node.post("/v1/admin/query", {"sql": sql, "limit": 1}),
        lambda answer: "{}: {:,}".format(*answer["rows"][0]),
    )


async def _watch(console: Console, node: NodeClient, token: str) -> None:
    """Subscribe to one airport, change it over HTTP, and wait for the change to arrive."""
    from aiohttp import ClientSession

    headers = {"Authorization": f"Bearer {token}"}
    async with (
        ClientSession(headers=headers) as session,
        session.ws_connect(f"{node.api}/v1/realtime") as socket,
        asyncio.timeout(EVENT_TIMEOUT_S),
    ):
        await socket.send_json({"action": "subscribe", "model": "Airport", "instance_id": WATCHED})
        await socket.receive_json()  # the acknowledgement: from here on nothing is missed
        began = perf_counter()
        change = {"elevation": 171.0}
        await asyncio.to_thread(node.request, "PUT", f"/v1/data/Airport/{WATCHED}", change)
        while (event := await socket.receive_json()).get("event") != "update":
            pass
        shown = {key: event.get(key) for key in ("event", "model", "instance_id")}
        console.print(f"   PUT  {json.dumps(change)}")
        console.print(
            f"   seen {json.dumps(shown)}, elevation {event['data']['elevation']}  [green]({_ms(began)})[/]",
            soft_wrap=True,
        )


def _leave(console: Console, node: NodeClient, data_dir: Path) -> None:
    token = f"printf 'Authorization: Bearer %s' $(civicnode token --data-dir {shlex.quote(str(data_dir))})"
    example = f"{node.api}/v1/data/Airport?filter={quote('city:eq:Reykjavik', safe=':')}"
    console.print("\n[bold]The node is yours[/]", style=HEAD)
    console.print(f"   API    {node.api}/v1   documentation {node.api}/docs")
    console.print(f'   try    {token} | curl -H @- "{example}"', soft_wrap=True)
    if os.environ.get("EXIT", "") not in ("", "0"):
        return
    console.print("   Ctrl-C stops it and removes its data.")
    while place.running(data_dir) is not None:
        sleep(1.0)


def _ms(began: float) -> str:
    return f"{(perf_counter() - began) * 1000:.1f} ms"


if __name__ == "__main__":
    sys.exit(main())
