"""The API put together: every route of every surface behind one frame.

Room: mounting alone. What a route does lies in its surface, what every request passes in `middleware`, what
listens in `runner`.
"""

from collections.abc import Iterable

from node.api.middleware import Frame, FrameParts
from node.api.routes import Route
from node.api.system import System, system_routes


def build_app(routes: Iterable[Route], parts: FrameParts, system: System | None = None) -> Frame:
    """The API of one node: `routes`, and the node's own beside them if `system` says what they show."""
    mounted = list(routes)
    if system is not None:
        mounted += system_routes(mounted, system, parts)
    return Frame(mounted, parts)
