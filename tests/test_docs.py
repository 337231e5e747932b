"""What docs/ shows works."""

import asyncio
import logging
import re
from pathlib import Path

from node.services.plugins import Plugins

DOCS = Path(__file__).parent.parent / "docs"


async def test_the_plugin_of_the_page_is_loaded_and_offers_what_the_page_says(tmp_path: Path) -> None:
    (code,) = re.findall(
        r"^```python\n(.*?)^```$", (DOCS / "plugins.md").read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    await asyncio.to_thread((tmp_path / "example.py").write_text, code)
    plugins = Plugins(tmp_path, logging.getLogger("tests.docs"))
    await plugins.start()
    try:
        assert plugins.status()["failed"] == []
        assert plugins.concern("UserAccount", "beforeUpdate") and plugins.concern(
            "UserAccount", "afterUpdate"
        )
        assert plugins.has_query("Project", "findActiveProjectsByUser")
        assert plugins.has_method("UserProfile", "fullName")
        assert plugins.strategy_named("lastWriteWins") is not None
        arguments = {"record": {"firstName": "Ada", "lastName": "L"}, "name": "fullName", "arguments": {}}
        call = {"application": "default", "user": "", "model": "UserProfile", **arguments}
        assert await plugins.call("method", call) == "Ada L"
    finally:
        await plugins.stop()
