"""A click group that imports a command when it is asked for.

Room: keeps `civicnode status --help` from importing what `civicnode import` needs. Knows commands only as
`module:attribute`; what they do is in `cli.commands`.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click


class LazyGroup(click.Group):
    """Commands named by `lazy`: command name -> `module:attribute`, listed in that order."""

    def __init__(self, *args: Any, lazy: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lazy = dict(lazy)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        target = self._lazy.get(cmd_name)
        if target is None:
            return None
        module, _, attribute = target.partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command), target
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self._lazy and not args[0].startswith("-"):
            import difflib

            close = difflib.get_close_matches(args[0], self._lazy, n=1)
            hint = f"did you mean {close[0]}?" if close else f"{ctx.command_path} --help lists them"
            ctx.fail(f"no such command: {args[0]} ({hint})")
        return super().resolve_command(ctx, args)
