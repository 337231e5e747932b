"""Every way in which bytes or requests can break a rule of the protocol.

Room: one root, `ProtocolError`, for what others did wrong; `LocalMisuse` for our
own bugs. Errors are named after the fact and carry its numbers as fields.
"""

import re
from collections.abc import Mapping


class ProtocolError(Exception):
    """Something that came from outside breaks a rule of the protocol."""

    @property
    def kind(self) -> str:
        """One of a few words, to be counted by: the name of the class."""
        return re.sub(r"(?<!^)(?=[A-Z])", "_", type(self).__name__.lstrip("_")).lower()


class LocalMisuse(Exception):
    """A caller inside this program broke a precondition: a bug, never a peer's fault."""


class Malformed(ProtocolError):
    """Bytes do not follow the layout that protocol/SPEC.md gives them."""


class TooLarge(ProtocolError):
    """Something is longer, deeper or more numerous than a node will hold."""

    def __init__(self, what: str, *, size: int, size_max: int) -> None:
        super().__init__(f"{what}: {size}, limit {size_max}")
        self.what = what
        self.size = size
        self.size_max = size_max


class BadSignature(ProtocolError):
    """A signature does not verify under the key that is named beside it."""


class BrokenChain(ProtocolError):
    """A header does not continue its author's chain, or a body is not the one that a header names."""


class NotPermitted(ProtocolError):
    """This node has not the right to write that: its commit would be void on every other node."""

    def __init__(self, model: str, role: str | None) -> None:
        """`role` is what it has where it would write; None if it has none."""
        held = f"is {'an' if role == 'admin' else 'a'} {role} in" if role else "has no role here in"
        super().__init__(f"this device {held} this network: it may not write documents of {model}")
        self.model = model
        self.role = role


class BaseMoved(ProtocolError):
    """An edit was made on another state than the one that it meets: its places have to be found first."""


class UnknownPlace(ProtocolError):
    """An edit names a place in a text that is not there: it was made on a state that is not this node's any more."""


class Unmergeable(ProtocolError):
    """The library that merges the contents of collaborative fields has failed on an update that keeps every rule."""


class InvalidId(ProtocolError):
    """A document, application or model id has characters or a length that ids may not have."""


class ExpressionFault(ProtocolError):
    """A text is not an expression. `at` is where, in code points."""

    def __init__(self, what: str, at: int) -> None:
        super().__init__(f"at {at + 1}: {what}")
        self.what = what
        self.at = at


class _NamedFaults(ProtocolError):
    """Several faults found in one go: where each lies, and what it is."""

    def __init__(self, details: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{where}: {what}" for where, what in details.items()))
        self.details = dict(details)


class ModelFault(_NamedFaults):
    """A model definition cannot be accepted. `details` maps a path (`fields.title.type`) to the fault."""


class QueryFault(_NamedFaults):
    """A query cannot be run as asked. `details` maps a parameter (`filter`, `per_page`) to its faults."""


class EditFault(_NamedFaults):
    """An edit of a collaborative field is not of its form. `details` maps a path (`ops[2]`) to the fault."""
