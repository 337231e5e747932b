"""The settings in force for a command, as the node reads them.

Room: hands flags to `node.settings` and turns its faults into one line; knows no setting by itself.
"""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from cli.errors import CliError

if TYPE_CHECKING:
    from node.settings import Settings


def load(flags: Mapping[str, object] | None = None) -> "Settings":
    """Settings from the file, the environment and `flags` (those not None), the later outranking the former.

    Raises `CliError` naming every fault at once.
    """
    from node import settings

    given = {name: value for name, value in (flags or {}).items() if value is not None}
    try:
        return settings.load(given, environ=os.environ)
    except settings.SettingsFault as fault:
        raise CliError("; ".join(fault.faults)) from None
