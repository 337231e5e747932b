"""Vectors as text, and what all that make them share.

Room: how a file of vectors looks. What stands in it is said beside it, in `make_…_vectors`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from protocol.errors import ProtocolError

Case = dict[str, Any]


def text_of(sections: Mapping[str, Sequence[Case]]) -> str:
    """The file, one case a line."""
    parts = []
    for name, cases in sections.items():
        lines = ",\n".join(f"  {json.dumps(plain(case), ensure_ascii=True)}" for case in cases)
        parts.append(f'"{name}": [\n{lines}\n]')
    return "{\n" + ",\n".join(parts) + "\n}\n"


def plain(value: Any) -> Any:
    """`value` as JSON has it, byte strings in hexadecimal."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


def is_refused(decoder: Callable[..., object], *arguments: object) -> bool:
    """Whether these bytes are a fault of whoever sends them."""
    try:
        decoder(*arguments)
    except ProtocolError:
        return True
    return False
