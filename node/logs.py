"""The node's log: one line an event, for people or for programs.

Room: a logger of the node's own with its handler, made for one node and handed in, so that many nodes in one
process keep theirs apart. Events are named in a few fixed words; what varies goes into `extra={"data": …}`,
never into the name. Members of `data` that are called like secrets are hidden here, as a second line of
defence: secrets are not to be logged at all. The JSON form is that of seed S4 ("Logging Format").
"""

import json
import logging
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

_LEVELS = {"DEBUG": "debug", "INFO": "info", "WARNING": "warn", "ERROR": "error", "CRITICAL": "error"}
_HIDDEN = ("authorization", "password", "secret", "token", "verifier", "private_key", "mfa_code", "api_key")

Clock = Callable[[], int]


def make_logger(
    *, level: str, format: str, stream: TextIO, clock_ms: Clock, component: str = "civicnode"
) -> logging.Logger:
    """A logger by itself: not in the tree of `logging`, so that no other node's settings reach it."""
    logger = logging.Logger(component, level.upper())
    logger.addHandler(make_handler(format=format, stream=stream, clock_ms=clock_ms))
    return logger


def make_handler(*, format: str, stream: TextIO, clock_ms: Clock) -> logging.Handler:
    """What writes the lines; the daemon gives the root logger one as well, for its libraries' warnings."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines(clock_ms) if format == "json" else TextLines(clock_ms))
    return handler


class _Lines(logging.Formatter):
    def __init__(self, clock_ms: Clock) -> None:
        super().__init__()
        self._clock_ms = clock_ms

    def _time(self) -> str:
        now = datetime.fromtimestamp(self._clock_ms() / 1000, UTC)
        return now.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class JsonLines(_Lines):
    """`{"timestamp", "level", "event", "data": {"component", "details"}}` a line."""

    def format(self, record: logging.LogRecord) -> str:
        """One event as one line of JSON."""
        data: dict[str, object] = {"component": record.name}
        details = _details(record)
        if details:
            data["details"] = details
        if record.exc_info is not None and record.exc_info[1] is not None:
            data["error"] = repr(record.exc_info[1])
            data["trace"] = "".join(traceback.format_exception(record.exc_info[1]))
        event = {
            "timestamp": self._time(),
            "level": _LEVELS.get(record.levelname, record.levelname.lower()),
            "event": record.getMessage(),
            "data": data,
        }
        return json.dumps(event, ensure_ascii=False, default=str)


class TextLines(_Lines):
    """Time, level, event, then `key=value` pairs; a trace follows indented."""

    def format(self, record: logging.LogRecord) -> str:
        """One event as one line, and one more for each of its trace."""
        level = _LEVELS.get(record.levelname, record.levelname.lower())
        parts = [self._time(), level.ljust(5), _line(record.getMessage())]
        parts += [f"{key}={_word(value)}" for key, value in _details(record).items()]
        if record.exc_info is not None and record.exc_info[1] is not None:
            trace = "".join(traceback.format_exception(record.exc_info[1]))
            return " ".join(parts) + "\n" + "\n".join("    " + _line(row) for row in trace.splitlines())
        return " ".join(parts)


def _details(record: logging.LogRecord) -> dict[str, object]:
    data: object = getattr(record, "data", None)
    return (
        {str(key): _hidden(str(key), value) for key, value in data.items()}
        if isinstance(data, Mapping)
        else {}
    )


def _hidden(key: str, value: object) -> object:
    if any(word in key.lower() for word in _HIDDEN):
        return "(hidden)"
    if isinstance(value, Mapping):
        return {str(inner): _hidden(str(inner), one) for inner, one in value.items()}
    return value


def _word(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if text.isprintable() and " " not in text and text else json.dumps(text)


def _line(text: str) -> str:
    """Text that cannot start a new line of log, or steer a terminal."""
    return (
        text
        if text.isprintable()
        else "".join(
            letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii")
            for letter in text
        )
    )
