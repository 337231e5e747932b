"""What can stop a measurement. Each says in one line what happened; none is caught silently.

Room: names and texts only. A figure whose measurement raises one of these is reported as
failed with that line; `BenchMisuse` ends the command instead.
"""


class BenchError(Exception):
    """Root of everything this package raises on purpose."""


class BenchMisuse(BenchError):
    """The caller asked for what does not exist; the text names what does."""


class BadAnswer(BenchError):
    """A server sent what is not an HTTP/1.1 answer, or more than one."""


class LoadFailed(BenchError):
    """A load could not be carried through; the figure it was for does not exist."""


class ChildFailed(BenchError):
    """A process under measurement did not start, answer or stop as it should."""


class BadReply(BenchError):
    """A server answered a request of the set-up in an unexpected way."""

    def __init__(self, *, what: str, status: int, text: str) -> None:
        super().__init__(f"{what} answered {status}: {text[:300]}")
        self.status = status
