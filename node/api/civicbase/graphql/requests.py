"""GraphQL requests and answers over HTTP (GraphQL over HTTP, stage 2 draft).

Room: parameters out of a body or an address, the media type of the answer, and its status. With
`application/graphql-response+json` a request that cannot be run is a 4xx; with `application/json`, which older
clients ask for, it is 200 as long as the parameters themselves are well formed.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from aiohttp import hdrs, web

from node.api.errors import ApiError, BadRequest, s1_form
from node.api.replies import Reply, kind

RESPONSE = "application/graphql-response+json"
JSON = "application/json"
_RESPONSE_KIND = kind(f"{RESPONSE}; charset=utf-8", cache="no-store")
_JSON_KIND = kind(f"{JSON}; charset=utf-8", cache="no-store")
_encode = msgspec.json.Encoder().encode
_PARAMETERS: Mapping[str, tuple[type, str]] = {
    "query": (str, "Must be a string"),
    "operationName": (str, "Must be a string"),
    "variables": (dict, "Must be an object"),
    "extensions": (dict, "Must be an object"),
}


class Parameters(msgspec.Struct, frozen=True):
    """What a request asks for."""

    query: str
    operation_name: str | None
    variables: Mapping[str, Any]


def read_parameters(given: Mapping[str, Any]) -> Parameters:
    """The parameters in a JSON object; null is as good as left out. Raises `BadRequest` naming every fault."""
    faults = {
        name: fault
        for name, (expected, fault) in _PARAMETERS.items()
        if given.get(name) is not None and not isinstance(given[name], expected)
    }
    if given.get("query") is None:
        faults["query"] = "This field is required"
    if faults:
        raise BadRequest("The parameters of the request are not those of GraphQL", faults)
    return Parameters(given["query"], given.get("operationName") or None, given.get("variables") or {})


def read_address(query: Mapping[str, str]) -> Parameters:
    """The parameters of a GET request, where objects are JSON texts. Raises `BadRequest` naming every fault."""
    given: dict[str, Any] = dict(query)
    for name in ("variables", "extensions"):
        text = given.get(name)
        try:
            given[name] = msgspec.json.decode(text) if text else None
        except (ValueError, RecursionError):
            given[name] = text  # no object, whatever it is
    return read_parameters(given)


def wants_response_type(request: web.Request) -> bool:
    """Whether the client asks for `application/graphql-response+json`, and not for plain JSON before it."""
    weights = dict(_weights(request.headers.getall(hdrs.ACCEPT, ())))
    asked = weights.get(RESPONSE, 0.0)
    return asked > 0 and asked >= weights.get(JSON, 0.0)


def _weights(accepted: Iterable[str]) -> Iterable[tuple[str, float]]:
    for part in ",".join(accepted).split(","):
        media_type, *parameters = part.lower().split(";")
        weight = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip() == "q":
                try:
                    weight = float(value)
                except ValueError:
                    weight = 0.0
        yield media_type.strip(), weight


def reply(
    request: web.Request, body: bytes, status: int = 200, headers: Mapping[str, str] | None = None
) -> Reply:
    """An answer in the type that the client asks for."""
    return Reply(body, status, headers, _RESPONSE_KIND if wants_response_type(request) else _JSON_KIND)


def refusal(
    request: web.Request, errors: list[dict[str, Any]], status: int, headers: Mapping[str, str] | None = None
) -> Reply:
    """Nothing has run."""
    return reply(request, _encode({"errors": errors}), status, headers)


def refused(error: ApiError) -> dict[str, Any]:
    """A refusal of the API as a member of `errors`."""
    return {"message": error.message, "extensions": extensions_of(error)}


def extensions_of(error: ApiError) -> dict[str, Any]:
    """What the API would say beside the message."""
    return {name: value for name, value in s1_form(error).items() if name != "error"}
