"""What can go wrong in `protocol`, one class for each fact.

Room: the root of the package's errors and the classes that carry their facts as
fields. Nothing here decides anything; replies are made from these elsewhere.
"""

from collections.abc import Mapping


class ProtocolError(Exception):
    """Something handed to `protocol` breaks its rules."""


class _NamedFaults(ProtocolError):
    """Several faults found in one go: where each lies, and what it is."""

    def __init__(self, details: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{where}: {what}" for where, what in details.items()))
        self.details = dict(details)


class ModelFault(_NamedFaults):
    """A model definition cannot be accepted. `details` maps a path (`fields.title.type`) to the fault."""


class QueryFault(_NamedFaults):
    """A query cannot be run as asked. `details` maps a parameter (`filter`, `per_page`) to its faults."""
