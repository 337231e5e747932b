"""The web origins whose pages the user lets in as local apps.

Room: which they are, durably; what being allowed means is decided in `node.api.loopback`. Origins of the
settings always count; others are added and taken back while the node runs.
"""

from collections.abc import Callable, Iterable

from node.services.local import LocalStore

_KIND = "origin"


class AllowedOrigins:
    """`changed` is told of every change with the full list, on the loop."""

    def __init__(
        self, local: LocalStore, configured: Iterable[str], changed: Callable[[list[str]], None]
    ) -> None:
        self._local = local
        self._configured = tuple(configured)
        self._changed = changed

    def listed(self) -> list[str]:
        """All allowed origins, sorted."""
        return sorted({*self._configured, *(origin for origin, _ in self._local.scan(_KIND))})

    async def allow(self, origin: str) -> None:
        """Durable when it returns. `origin` is as `parse_origin` writes it."""
        await self._local.put(_KIND, origin, {})
        self._changed(self.listed())

    async def refuse(self, origin: str) -> None:
        """Take an origin back; one of the settings stays until it is removed there."""
        await self._local.delete(_KIND, origin)
        self._changed(self.listed())
