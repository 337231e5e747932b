"""Pages of lists, as every list here has them: `page`, `per_page` and `cursor`.

Room: what a query says about pages and how pages are described. What a page holds is the list's own.
"""

from collections.abc import Mapping
from typing import Any

from protocol.query import CURSOR_SIZE_MAX, PAGE_MAX, PER_PAGE_DEFAULT, PER_PAGE_MAX, read_whole

CURSOR: dict[str, Any] = {
    "type": "string",
    "pattern": f"^[A-Za-z0-9_-]{{0,{CURSOR_SIZE_MAX}}}$",
    "description": "next_cursor of the page before; goes without `page`",
}
_WHOLE = {"type": "integer"}


def paging(per_page: int = PER_PAGE_DEFAULT) -> dict[str, dict[str, Any]]:
    """The parameters of a list without cursors; `per_page` is what holds where none is given."""
    return {
        "page": {"type": "integer", "minimum": 1, "maximum": PAGE_MAX, "default": 1},
        "per_page": {"type": "integer", "minimum": 1, "maximum": PER_PAGE_MAX, "default": per_page},
    }


def page_schema(item: dict[str, Any], *, has_cursor: bool = False, **more: dict[str, Any]) -> dict[str, Any]:
    """The schema of a page of such items; `more` is what stands beside them, always."""
    properties = {
        "items": {"type": "array", "items": item},
        "total": _WHOLE,
        "page": _WHOLE,
        "per_page": _WHOLE,
    }
    if has_cursor:
        properties["next_cursor"] = {"type": ["string", "null"]}
    properties |= more
    return {"type": "object", "required": list(properties), "properties": properties}


def read_paging(
    query: Mapping[str, str], faults: dict[str, str], per_page: int = PER_PAGE_DEFAULT
) -> tuple[int, int]:
    """`page` and `per_page`; what is wrong with them goes to `faults`."""
    page = read_whole(query, "page", 1, PAGE_MAX, faults)
    return page, read_whole(query, "per_page", per_page, PER_PAGE_MAX, faults)
