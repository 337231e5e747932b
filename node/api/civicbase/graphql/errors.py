"""What goes wrong in GraphQL, in its own form and with the codes of the API.

Room: from exceptions to members of `errors` (GraphQL, 7.1.2). Whatever the API would answer over HTTP stands in
`extensions`: `error_code`, `details` naming every fault, and the rest. What is wrong with the document itself is
`BAD_REQUEST`.

    {"message": "Validation failed", "path": ["createTask"], "locations": […],
     "extensions": {"error_code": "BAD_REQUEST", "details": {"title": "This field is required"}}}
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from graphql import GraphQLError

from node.api.civicbase.graphql.requests import extensions_of, refused
from node.api.errors import ApiError, ErrorTable, InternalError, from_exception

ERRORS_MAX = 50  # in one answer, the first ones


class DocumentFault(Exception):
    """A request that cannot be run. `refusal` where the API would refuse it with another status than 400."""

    def __init__(self, errors: Sequence[GraphQLError], refusal: ApiError | None = None) -> None:
        super().__init__(errors[0].message if errors else str(refusal))
        self.errors = list(errors)
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class Words:
    """How an exception is said."""

    table: ErrorTable
    new_request_id: Callable[[], str]
    log: logging.Logger

    def api_error(self, error: Exception) -> ApiError:
        """The refusal that an exception stands for; one that nobody expected is logged, and says no more than that."""
        known = from_exception(error, self.table)
        if known is None:
            request_id = self.new_request_id()
            self.log.error("unexpected error", exc_info=error, extra={"data": {"request_id": request_id}})
            known = InternalError(request_id)
        return known

    def said(self, errors: Iterable[GraphQLError]) -> list[dict[str, Any]]:
        """The errors as they are answered."""
        return [self._said(error) for error in list(errors)[:ERRORS_MAX]]

    def of(self, fault: DocumentFault) -> list[dict[str, Any]]:
        """Why nothing has run."""
        return self.said(fault.errors) if fault.refusal is None else [refused(fault.refusal)]

    def _said(self, error: GraphQLError) -> dict[str, Any]:
        cause = error.original_error
        while isinstance(cause, GraphQLError):
            cause = cause.original_error
        said: dict[str, Any] = {"message": error.message}
        if error.locations:
            said["locations"] = [{"line": at.line, "column": at.column} for at in error.locations]
        if error.path is not None:
            said["path"] = error.path
        if isinstance(cause, Exception):
            refusal = self.api_error(cause)
            said["message"] = refusal.message
            said["extensions"] = extensions_of(refusal)
        else:
            said["extensions"] = {"error_code": "BAD_REQUEST"} | (error.extensions or {})
        return said
