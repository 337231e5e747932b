"""Bare TLS between two children."""

import json
from dataclasses import asdict

from cli.bench.echo import Outcome, Plan
from cli.bench.process import START_MAX_S, Workspace


def test_links_and_round_trips_are_timed() -> None:
    with Workspace() as workspace:
        directory = workspace.directory("echo")
        with (
            workspace.running("cli.bench.echo", "serve", str(directory)) as server,
            workspace.running("cli.bench.echo", "ask") as asker,
        ):
            port = int(server.line_with("ready at", START_MAX_S).rsplit(" ", 1)[1])
            asker.say(json.dumps(asdict(Plan(port, links=2, messages=5, every_ms=1.0))))
            seen = Outcome(**json.loads(asker.line(START_MAX_S)))
    assert seen.link_ms > seen.p50_ms > 0
    assert seen.p99_ms >= seen.p50_ms


def test_nobody_at_the_port_is_a_fault() -> None:
    with Workspace() as workspace, workspace.running("cli.bench.echo", "ask") as asker:
        asker.say(json.dumps(asdict(Plan(1, links=1, messages=1, every_ms=1.0))))
        assert "bare TLS" in json.loads(asker.line(START_MAX_S))["fault"]
