"""Which versions of the API there are, and how a route goes out of use.

Room: what clients are told about versions; the frame says it. The version stands in the path (seed S1, "API
Versioning"). A route that will go says so in every answer, long before: `Deprecation` (RFC 9745), `Sunset`
(RFC 8594), and a link to what takes its place.
"""

import re
from dataclasses import dataclass
from email.utils import formatdate

VERSION = "v1"
NOTICE_MIN_S = 182 * 86_400  # seed S1, "Version Sunset": at least 6 months in advance

_VERSIONED = re.compile(r"/v[0-9]+(?=/|$)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Deprecation:
    """Since when a route should be left, when it goes (None: not decided), and where to read on. Epoch seconds.

    Raises ValueError when the notice is too short, or `link` cannot stand in a header.
    """

    since_s: int
    sunset_s: int | None = None
    link: str | None = None

    def __post_init__(self) -> None:
        if self.sunset_s is not None and self.sunset_s - self.since_s < NOTICE_MIN_S:
            raise ValueError("a route goes six months after it is deprecated at the earliest")
        if self.link is not None and not re.fullmatch(r"[!-;=?-~]+", self.link, re.ASCII):
            raise ValueError(f"{self.link!r} is no address")

    @property
    def header_lines(self) -> bytes:
        """What every answer of the route carries."""
        lines = [f"Deprecation: @{self.since_s}"]
        if self.sunset_s is not None:
            lines.append(f"Sunset: {formatdate(self.sunset_s, usegmt=True)}")
        if self.link is not None:
            lines.append(f'Link: <{self.link}>; rel="deprecation"')
        return "".join(line + "\r\n" for line in lines).encode("ascii")

    @property
    def note(self) -> str:
        """The same for people."""
        until = "" if self.sunset_s is None else f" It goes on {formatdate(self.sunset_s, usegmt=True)}."
        return f"Deprecated.{until}" + (f" See {self.link}" if self.link is not None else "")


def unknown_path(path: str, is_versioned_known: bool) -> str | None:
    """What helps a client that asks for a path which does not exist, None if nothing is known that would.

    `is_versioned_known`: whether the path exists with the version before it.
    """
    version = _VERSIONED.match(path)
    if version is not None and version[0] != f"/{VERSION}":
        return f"There is no such version of the API: paths begin with /{VERSION}/"
    if version is None and is_versioned_known:
        return f"The path lacks the version of the API: it begins with /{VERSION}/"
    return None
