"""The README of the Python client is true: its examples run, in order, on a real node."""

import contextlib
import io
import re
from pathlib import Path

import pytest

from tests.system.process import NodeProcess

README = (Path(__file__).parents[2] / "sdk" / "python" / "README.md").read_text()


def test_every_example_runs_in_the_order_of_the_page(
    node: NodeProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    script = "".join(blocks).replace("http://127.0.0.1:8080", node.url).replace("ada@", "readme@")
    script = script.replace('username="ada"', 'username="readme"')
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(script, "README.md", "exec"), {})
    for sign in (
        "Write it down True",
        "optimistic",
        "reverted",
        "1 stored; [{'priority': 'Must be an integer'}]",
        "'HEARD OF AT ONCE', 'ON THE TRAIN'",
    ):
        assert sign in printed.getvalue(), (sign, printed.getvalue())
