"""One call of `civicnode bench` from its arguments to its report.

Room: checks what was asked for, opens the workspace, runs the rounds of the node, of the
node with slow flushes and of PocketBase side by side, and hands what they found to
`report`. It measures nothing itself.
"""

import contextlib
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from cli.bench import FLUSH_DELAY_MAX_MS, ROUNDS_MAX, VERSUS, machine
from cli.bench.asking import Sizes
from cli.bench.errors import BenchMisuse
from cli.bench.figures import SPECS, VERSUS_SPECS, Group, Ledger, Spec, delayed_specs
from cli.bench.peer_figures import PEER_SPECS
from cli.bench.process import Workspace
from cli.bench.report import Report, Section, show
from cli.bench.rounds import Rounds

if TYPE_CHECKING:
    from rich.console import Console

    from cli.bench.peers import Peers
    from cli.bench.pocketbase import PocketBase

DELAYED_GROUPS = frozenset({Group.CREATES, Group.IMPORT})


class Session:
    """Checked arguments and, after `run`, a report. Raises `BenchMisuse` when made."""

    def __init__(
        self,
        *,
        rounds: int,
        quick: bool,
        versus: str | None,
        only: Sequence[str] | None,
        console: "Console",
        flush_delay_ms: float,
        command: Sequence[str] | None,
        sizes: Sizes | None,
    ) -> None:
        if not 1 <= rounds <= ROUNDS_MAX:
            raise BenchMisuse(f"rounds must be 1 to {ROUNDS_MAX}, not {rounds}")
        if not 0 <= flush_delay_ms <= FLUSH_DELAY_MAX_MS:
            raise BenchMisuse(f"a flush delay must be 0 to {FLUSH_DELAY_MAX_MS:g} ms, not {flush_delay_ms:g}")
        if versus is not None and versus not in VERSUS:
            raise BenchMisuse(f"nothing known under the name {versus!r}; there is: {', '.join(VERSUS)}")
        if versus is not None:
            from cli.bench.pocketbase import find_binary

            find_binary()
        self._groups = chosen_groups(only)
        self._slow_groups = self._groups & DELAYED_GROUPS if flush_delay_ms else frozenset()
        self._delay_ms = flush_delay_ms
        self._rounds = 1 if quick else rounds
        self._quick = quick
        self._versus = versus
        self._console = console
        self._command = list(command) if command else [sys.executable, "-m", "cli.main"]
        self._sizes = sizes or (Sizes.quick() if quick else Sizes())

    def run(self, json_path: Path | None) -> Report:
        started_at, started = datetime.now(UTC), time.perf_counter()
        with _terminable(), Workspace() as workspace, self._console.status("starting") as status:

            def say(text: str) -> None:
                status.update(text)

            about = machine.facts(workspace.root)
            flushes: list[machine.FlushLatency] = []
            plain = self._ledger(SPECS, self._groups)
            between = self._ledger(PEER_SPECS, self._groups)
            slow = self._ledger(delayed_specs(), self._slow_groups)
            measured = self._measures(workspace, plain, self._groups - {Group.SYNC}, say)
            peers = self._peers(workspace, between, say)
            delayed = self._measures(workspace, slow, self._slow_groups, say, self._delay_ms)
            beside = self._ledger(VERSUS_SPECS, self._groups)
            other = self._other(workspace, beside, plain, say)
            if measured is not None:
                measured.prepare()
            if peers is not None:
                peers.prepare()
            for number in range(1, self._rounds + 1):
                name = f"round {number} of {self._rounds}"
                flushes.append(machine.flush_latency(workspace.root))
                if measured is not None:
                    measured.run(name)
                if peers is not None:
                    peers.run(name)
                if other is not None:
                    other.run(name)
                if delayed is not None:
                    delayed.run(f"{name}, {self._delay_ms:g} ms a flush")
            version = other.version() if other is not None else None
        report = Report(
            started_at=started_at.isoformat(timespec="seconds"),
            taken_s=time.perf_counter() - started,
            rounds=self._rounds,
            is_quick=self._quick,
            machine=about,
            flushes=flushes,
            sections=self._sections(plain, between, slow, beside, version),
        )
        if json_path is not None:
            json_path.write_text(json.dumps(report.document(), indent=2, ensure_ascii=False) + "\n", "utf-8")
        show(report, self._console)
        return report

    def _ledger(self, specs: Sequence[Spec], groups: frozenset[Group]) -> Ledger:
        words = {
            "small": f"{self._sizes.small:,}",
            "large": f"{self._sizes.large:,}",
            "call": f"{self._sizes.call:,}",
            "written": f"{self._sizes.written:,}",
            "changed": f"{self._sizes.changed:,}",
        }
        return Ledger(tuple(spec for spec in specs if spec.group in groups), words)

    def _measures(
        self,
        workspace: Workspace,
        ledger: Ledger,
        groups: frozenset[Group],
        say: Callable[[str], None],
        flush_delay_ms: float = 0,
    ) -> Rounds | None:
        if not groups:
            return None
        return Rounds(
            workspace,
            ledger,
            command=self._command,
            sizes=self._sizes,
            groups=groups,
            say=say,
            flush_delay_ms=flush_delay_ms,
        )

    def _peers(self, workspace: Workspace, ledger: Ledger, say: Callable[[str], None]) -> "Peers | None":
        if not ledger.specs:
            return None
        from cli.bench.peers import Peers

        return Peers(workspace, ledger, command=self._command, sizes=self._sizes, say=say)

    def _other(
        self, workspace: Workspace, ledger: Ledger, ours: Ledger, say: Callable[[str], None]
    ) -> "PocketBase | None":
        if self._versus is None or not ledger.specs:
            return None
        from cli.bench.pocketbase import PocketBase

        return PocketBase(workspace, ledger, ours=ours, sizes=self._sizes, groups=self._groups, say=say)

    def _sections(
        self, plain: Ledger, between: Ledger, slow: Ledger, beside: Ledger, version: str | None
    ) -> list[Section]:
        title = f"civicnode, {self._sizes.small:,} records unless another number is named"
        sections: list[Section] = []
        if plain.specs:
            sections.append(Section("civicnode", title, plain.summary(), tuple(plain.remarks)))
        if between.specs:
            title = (
                f"civicnode with peers, {self._sizes.written:,} records written singly on three nodes in turn"
            )
            sections.append(Section("civicnode-peers", title, between.summary(), tuple(between.remarks)))
        if slow.specs:
            title = f"civicnode, {self._delay_ms:g} ms added to every flush"
            remarks = ("The floor flushes twice a commit, and waits twice.", *slow.remarks)
            sections.append(Section("civicnode-slow-flush", title, slow.summary(), remarks, self._delay_ms))
        if version is not None:
            from cli.bench.pocketbase import REMARK

            title = f"PocketBase {version}, the same records and questions"
            sections.append(
                Section("pocketbase", title, beside.summary(), (REMARK, *beside.remarks), version=version)
            )
        return sections


def chosen_groups(only: Sequence[str] | None) -> frozenset[Group]:
    """The groups named, or all. Raises `BenchMisuse` for a name that is none."""
    if not only:
        return frozenset(Group)
    known = {group.value for group in Group}
    unknown = sorted(set(only) - known)
    if unknown:
        raise BenchMisuse(f"no figures called {', '.join(unknown)}; there are: {', '.join(sorted(known))}")
    return frozenset(Group(name) for name in only)


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM unwind the stack, so that children and files go, instead of ending us at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
