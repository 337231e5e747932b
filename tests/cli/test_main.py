"""The program as a whole: help, JSON, faults, and how fast it answers."""

import errno
import subprocess
import sys
from collections.abc import Iterator
from time import perf_counter

import click
import pytest

from cli import child
from cli.main import civicnode, explain, main

HELP_MAX_RATIO = 2  # times as long as the bare library


def every_command() -> Iterator[tuple[str, click.Command]]:
    """Each command with its full name, groups and their members alike."""

    def below(prefix: str, group: click.Group) -> Iterator[tuple[str, click.Command]]:
        context = click.Context(group)
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None
            yield f"{prefix} {name}", command
            if isinstance(command, click.Group):
                yield from below(f"{prefix} {name}", command)

    yield from below("civicnode", civicnode)


COMMANDS = dict(every_command())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example_of_itself(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*name.split()[1:], "--help"]) == 0
    shown = capsys.readouterr().out
    assert COMMANDS[name].help
    assert "Example" in shown
    assert name in shown.partition("Example")[2]


@pytest.mark.parametrize("name", [n for n, c in COMMANDS.items() if isinstance(c, click.Group)])
def test_the_list_of_commands_cuts_no_sentence_off(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*name.split()[1:], "--help"]) == 0
    assert "..." not in capsys.readouterr().out.partition("Commands:")[2]


@pytest.mark.parametrize("name", [n for n, c in COMMANDS.items() if not isinstance(c, click.Group)])
def test_every_command_but_start_takes_json_and_a_data_directory(name: str) -> None:
    options = {option for parameter in COMMANDS[name].params for option in parameter.opts}
    if name not in ("civicnode bench", "civicnode verify"):  # which need no node
        assert "--data-dir" in options
    if name != "civicnode start":
        assert "--json" in options


def test_an_unknown_command_names_the_one_that_was_meant(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["statsu"]) == 2
    assert "did you mean status?" in capsys.readouterr().err


def test_without_a_command_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "start" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "/data/record"),
            "the disk is full: /data/record: free",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "/data/lock"),
            "permission denied: /data/lock: run",
        ),
        (OSError(errno.EROFS, "Read-only file system", "/data"), "read-only: /data: choose"),
        (ValueError("one\ntwo"), "unexpected ValueError: one two (civicnode --traceback shows where)"),
    ],
)
def test_faults_of_the_system_are_one_line_that_names_the_fix(fault: BaseException, words: str) -> None:
    assert words in explain(fault)
    assert "\n" not in explain(fault)


def test_help_of_a_command_takes_little_more_than_loading_the_library_that_prints_it() -> None:
    def took_s(arguments: list[str]) -> float:
        began = perf_counter()
        subprocess.run(arguments, env=child.environment(), check=True, capture_output=True)
        return perf_counter() - began

    pairs = [
        (took_s(child.command("status", "--help")), took_s([sys.executable, "-c", "import click"]))
        for _ in range(5)
    ]
    assert min(help_s / click_s for help_s, click_s in pairs) < HELP_MAX_RATIO


def test_help_imports_neither_the_server_nor_the_store() -> None:
    code = (
        "import sys; from cli.main import main; main(['status', '--help']); "
        "heavy = {'aiohttp', 'lmdb', 'sqlite3', 'rich', 'nacl', 'cbor2', 'msgspec', 'node', 'storage'}; "
        "sys.exit(','.join(heavy & set(sys.modules)) or None)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=child.environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_reader_that_goes_away_is_no_fault() -> None:
    code = "import sys; from cli.main import main; sys.exit(main(['--help']))"
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=child.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    process.wait()
    assert errors == b""
