"""`make demo`: two nodes become one network, hold the same data, are parted, and come together again.

Room: a visitor of both nodes like any other app: everything goes through the command line and the loopback API.
The one thing added is the wire between them, which can be cut (`cli.wire`). The data are the airports of the package
`airportsdata` (MIT licence), some 28,000 records. With EXIT=1 in the environment it ends by itself, else it leaves
the nodes running until Ctrl-C.
"""

import asyncio
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter, sleep
from typing import Any
from urllib.parse import quote

from rich.console import Console
from rich.text import Text

from cli import child, importer, place
from cli.client import NodeClient
from cli.errors import CliError
from cli.output import piped_width, printable
from cli.progress import progress
from cli.wire import Wire, wire_to
from protocol.tickets import decode_ticket, encode_ticket

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
        {"name": "tags", "type": "set"},
        {"name": "visits", "type": "counter"},
    ],
}
GIVEN = ("icao", "iata", "name", "city", "country", "elevation", "lat", "lon", "tz")
AIRPORTS = "/v1/data/Airport"
WATCHED = "BIKF"
# What each side writes while the two are apart.
APART: Mapping[str, Mapping[str, Any]] = {
    "laptop": {"name": "Keflavik International", "elevation": 173.0, "tags": ["hub"], "visits": 2},
    "phone": {"name": "Reykjavik Keflavik", "city": "Keflavik", "tags": ["ice"], "visits": 3},
}
CHOSEN = "Keflavik International"
EVENT_TIMEOUT_S = 60.0  # what takes milliseconds, on a machine that is busy with something else
AGAIN_S = 0.05
COMMAND_TIMEOUT_S = 120.0
SHORT_CHARS = 12  # of a root: enough to compare by eye

# Bold, green and magenta are legible on dark and on light terminals; rich leaves colour out for NO_COLOR and
# for pipes.
HEAD = "bold magenta"


def main() -> int:
    """Run the demonstration; return the exit code."""
    console = Console(highlight=False, width=piped_width(sys.stdout))
    try:
        with tempfile.TemporaryDirectory(prefix="civicnode-demo-") as folder, ExitStack() as running:
            Demo(console, Path(folder), running).run()
    except CliError as fault:
        print(f"Error: {fault.format_message()}", file=sys.stderr)
        return fault.exit_code
    except KeyboardInterrupt:
        console.print("\nStopped; the demonstration's data are gone.")
    return 0


@dataclass(frozen=True, slots=True)
class Device:
    """A running node, and a connection to its API."""

    name: str
    data_dir: Path
    client: NodeClient

    def airport(self, icao: str) -> Any:
        return self.client.get(f"{AIRPORTS}/{icao}")

    def total(self) -> int:
        return int(self.client.get(AIRPORTS, per_page=1)["total"])

    def status(self) -> Any:
        return self.client.get("/v1/sync/status")

    def sync(self) -> None:
        """Call the other one now, and come back when both hold the same."""
        ends_at = perf_counter() + EVENT_TIMEOUT_S
        while True:  # a call may be under way that was made while nobody answered, or there is much to fetch
            self.client.request("POST", "/v1/sync")
            if self.status()["in_sync"]:
                return
            if perf_counter() > ends_at:
                raise CliError(f"the {self.name} has not come in sync with the other node")
            sleep(AGAIN_S)


class Demo:
    """The steps, in order. `running` stops what is started."""

    def __init__(self, console: Console, folder: Path, running: ExitStack) -> None:
        self._console = console
        self._folder = folder
        self._running = running

    def run(self) -> None:
        from aiohttp import ClientError
        from airportsdata import load

        self._head("1. Two nodes start", "each with an identity and a network of its own")
        laptop, phone = self._start("laptop"), self._start("phone")
        wire = self._running.enter_context(wire_to(_port_of(laptop)))
        self._head("2. The phone joins the laptop's network", "by one ticket, over TLS")
        self._join(laptop, phone, wire)
        airports = load("ICAO")
        self._head(f"3. {len(airports):,} airports", "imported on the laptop, live on the phone")
        self._import(laptop, phone, airports)
        self._head("4. A change on the laptop", f"heard on the phone's /v1/realtime: {WATCHED}")
        try:
            asyncio.run(self._watch(laptop, phone))
        except (ClientError, TimeoutError) as fault:
            raise CliError(f"the change was not heard ({type(fault).__name__}: {fault})") from None
        self._head("5. The link is cut", f"and both write to {WATCHED}")
        self._part(laptop, phone, wire)
        self._head("6. The link is whole again", "")
        self._meet(laptop, phone, wire)
        self._leave(laptop, phone)

    # -- the steps -----------------------------------------------------------------------------------------

    def _start(self, name: str) -> Device:
        began = perf_counter()
        data_dir = self._folder / name
        options = ["--data-dir", str(data_dir), "--name", name, "--no-mdns"]
        options += ["--api", "127.0.0.1:0", "--listen", "127.0.0.1:0"]
        self._running.enter_context(child.node(options))
        device = self._connect(name, data_dir)
        self._say(name, device.client.api, began)
        return device

    def _connect(self, name: str, data_dir: Path) -> Device:
        client = NodeClient(place.require_running(data_dir), place.owner_token(data_dir))
        self._running.callback(client.close)
        return Device(name, data_dir, client)

    def _join(self, laptop: Device, phone: Device, wire: Wire) -> None:
        """The ticket names the wire alone, so that there is no other way between the two."""
        ticket = decode_ticket(_civicnode(laptop, "invite"))
        text = encode_ticket(replace(ticket, addresses=(f"127.0.0.1:{wire.port}",)))
        self._say("laptop", "civicnode invite")
        self._say("phone", f"civicnode join {text[:20]}…")
        began = perf_counter()
        self._say("", _civicnode(phone, "join", text), began)

    def _import(self, laptop: Device, phone: Device, airports: Mapping[str, Any]) -> None:
        laptop.client.post("/v1/data-models", MODEL)
        bodies = (
            (icao, {"id": icao, **{name: given[name] for name in GIVEN if given[name] not in ("", None)}})
            for icao, given in airports.items()
        )
        began = perf_counter()
        with progress("   import", total=len(airports)) as report:
            outcome = importer.send(
                laptop.client, MODEL["name"], bodies, lambda done: report(done, len(airports))
            )
        took_s = perf_counter() - began
        if outcome.failed:
            raise CliError(f"{outcome.failed} airports were refused, the first is {outcome.faults[0]}")
        rate = f"{outcome.created / took_s:,.0f}/s"
        self._say("laptop", f"each validated, signed, on disk and indexed ({rate})", began)
        began = perf_counter()
        phone.sync()
        self._say("phone", f"holds {phone.total():,}, each verified, after the last by", began)
        found = "country:eq:IS"
        began = perf_counter()
        page = phone.client.get(AIRPORTS, filter=found, sort="name", order="asc")
        self._say("phone", f"…?filter={found}: {page['total']}, from {page['items'][0]['name']}", began)

    async def _watch(self, laptop: Device, phone: Device) -> None:
        """Subscribe to one airport on the phone, change it on the laptop, and wait for the change to arrive."""
        from aiohttp import ClientSession

        headers = {"Authorization": f"Bearer {place.owner_token(phone.data_dir)}"}
        async with (
            ClientSession(headers=headers) as session,
            session.ws_connect(f"{phone.client.api}/v1/realtime") as socket,
            asyncio.timeout(EVENT_TIMEOUT_S),
        ):
            await socket.send_json({"action": "subscribe", "model": "Airport", "instance_id": WATCHED})
            await socket.receive_json()  # the acknowledgement: from here on nothing is missed
            began = perf_counter()
            change = {"elevation": 171.0}
            await asyncio.to_thread(laptop.client.request, "PUT", f"{AIRPORTS}/{WATCHED}", change)
            while (event := await socket.receive_json()).get("event") != "update":
                pass
        self._say("laptop", f"PUT {json.dumps(change)}")
        shown = {"event": event["event"], "elevation": event["data"]["elevation"]}
        self._say("phone", f"{json.dumps(shown)} written there, heard here in", began)

    def _part(self, laptop: Device, phone: Device, wire: Wire) -> None:
        wire.cut()
        for device in (laptop, phone):
            _until(partial(_is_alone, device), f"the {device.name} to see that the link is gone")
        for device in (laptop, phone):
            change = APART[device.name]
            device.client.request("PUT", f"{AIRPORTS}/{WATCHED}", change)
            self._say(device.name, f"PUT {json.dumps(change)}")
        self._roots(laptop, phone)

    def _meet(self, laptop: Device, phone: Device, wire: Wire) -> None:
        wire.restore()
        began = perf_counter()
        phone.sync()
        self._say("both", "hold the same again after", began)
        self._roots(laptop, phone)
        at_laptop, at_phone = laptop.airport(WATCHED), phone.airport(WATCHED)
        if at_laptop != at_phone:
            raise CliError(f"the nodes show {WATCHED} differently: {at_laptop} and {at_phone}")
        self._say(
            "both",
            f"elevation {at_phone['elevation']}, city {at_phone['city']}: one side's each, no conflict",
        )
        self._say("both", f"tags {', '.join(sorted(at_phone['tags']))}: a set keeps what both have added")
        self._say("both", f"visits {at_phone['visits']}: a counter adds up")
        names = {device.status()["node_id"]: device.name for device in (laptop, phone)}
        for conflict in phone.client.get("/v1/conflicts", model="Airport")["items"]:
            field, values = conflict["field"], conflict["values"]
            said = " and ".join(f"“{value['value']}” ({names.get(value['node'], '?')})" for value in values)
            self._say("both", f"{field} is in conflict: {said}")
            self._say("both", f"show “{at_phone[field]}”, the later one, until somebody decides")
            resolution = {"resolution": {field: CHOSEN}}
            phone.client.post(f"/v1/conflicts/{conflict['id']}/resolve", resolution)
            began = perf_counter()
            _until(lambda: laptop.airport(WATCHED)["name"] == CHOSEN, "the laptop to hear what was decided")
            self._say("phone", f"decides for “{CHOSEN}”; the laptop hears of it in", began)
        phone.sync()
        self._roots(laptop, phone)

    def _leave(self, laptop: Device, phone: Device) -> None:
        where = shlex.quote(str(phone.data_dir))
        token = f"printf 'Authorization: Bearer %s' $(civicnode token --data-dir {where})"
        example = f"{phone.client.api}{AIRPORTS}?filter={quote('city:eq:Reykjavik', safe=':')}"
        self._head("Both nodes are yours", "")
        for device in (laptop, phone):
            self._say(device.name, f"{device.client.api}/v1   documentation {device.client.api}/docs")
        self._console.print(f'   try     {token} | curl -H @- "{example}"', soft_wrap=True)
        if os.environ.get("EXIT", "") not in ("", "0"):
            return
        self._console.print("   Ctrl-C stops them and removes their data.")
        while all(place.running(device.data_dir) is not None for device in (laptop, phone)):
            sleep(1.0)

    # -- how it looks --------------------------------------------------------------------------------------

    def _head(self, what: str, more: str) -> None:
        self._console.print(f"\n[bold]{what}[/]{', ' if more else ''}{more}", style=HEAD)

    def _say(self, who: str, text: str, began: float | None = None) -> None:
        """A line of one device; with a beginning, how long it took."""
        took = "" if began is None else f"  {_time(perf_counter() - began)}"
        line = Text.assemble(f"   {who:<7} ", (printable(text)), (took, "green"))
        self._console.print(line, soft_wrap=True)

    def _roots(self, laptop: Device, phone: Device) -> None:
        roots = [str(device.status()["root"])[:SHORT_CHARS] for device in (laptop, phone)]
        verdict = ("equal", "green") if roots[0] == roots[1] else ("not equal", "bold")
        line = Text.assemble(f"   roots   laptop {roots[0]}, phone {roots[1]}: ", verdict)
        self._console.print(line, soft_wrap=True)


def _civicnode(device: Device, *arguments: str) -> str:
    """Run a command as a user of the device would; what it printed. Raises `CliError` with its last words."""
    command = child.command(*arguments, "--data-dir", str(device.data_dir))
    try:
        done = subprocess.run(
            command,
            env=child.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CliError(f"civicnode {arguments[0]} took more than {COMMAND_TIMEOUT_S:.0f} s") from None
    if done.returncode:
        raise CliError(f"civicnode {arguments[0]}: {(done.stderr.strip() or done.stdout.strip())[-300:]}")
    return done.stdout.strip()


def _port_of(device: Device) -> int:
    listen: str = device.client.get("/v1/admin/status")["listen"]
    return int(listen.rpartition(":")[2])


def _is_alone(device: Device) -> bool:
    return not any(peer["state"] in ("live", "syncing") for peer in device.status()["peers"])


def _until(is_there: Callable[[], bool], what: str) -> None:
    ends_at = perf_counter() + EVENT_TIMEOUT_S
    while not is_there():
        if perf_counter() > ends_at:
            raise CliError(f"waited for {what} in vain")
        sleep(0.001)


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"


if __name__ == "__main__":
    sys.exit(main())
